//! One remote participant: sequence numbers, acks, round trips and carriers of one path.

use crate::id::{MemberId, Path, Slot};
use crate::limits::DATAGRAM_BYTES_MAX;
use crate::session::clock::{Rtt, Samples};
use crate::session::messages::{Messages, MessagesConfig};
use crate::session::outbox::{Inbox, Outbox};
use crate::session::statistics::{Body, BodyBytes, DropReason, PeerStatistics};
use crate::tick::{Seq, Tick, TickRate};
use crate::time::Time;
use crate::wire::header::{ClockSection, HashSection, Prefix, TagKey, TickHeader};

/// Datagrams that a peer remembers having sent.
const SENT_MAX: usize = 256;
/// Numbers before the newest received one that a peer remembers, to drop duplicates.
const SEEN: u32 = 64;
/// Bytes before the input batch without control, message and missing sections, at most.
const HEADER_BYTES_MAX: usize = 54;
/// Bytes of the count before claims.
const CLAIMS_HEAD_BYTES: usize = 2;
/// Bytes of the section that tells what is missing, at most.
const MISSING_BYTES_MAX: usize = 10;
/// Numbers by which a datagram may come behind later ones before it counts as lost.
const REORDER_MAX: u32 = 2;
/// Ticks by which it may, where not every tick sends one.
const REORDER_TICKS: u64 = 3;
/// A missing number that is this far behind the ack in a datagram that the other end has accepted
/// need not be told again: the other end has counted it as lost then.
const TOLD_AGE: u32 = 8;
/// Room for control messages: one whole input frame always fits behind them, even where its coding
/// makes it half as long again.
const CONTROL_ROOM_BYTES: usize =
    DATAGRAM_BYTES_MAX - HEADER_BYTES_MAX - crate::limits::INPUT_FRAME_BYTES_MAX * 3 / 2 - 16;
/// Refused datagrams after which a link is beyond repair; each that is not makes up for a quarter.
const FAULTS_MAX: u32 = 64;
/// Ticks between clock sections on a steady link.
const CLOCK_INTERVAL_TICKS: u32 = 60;
/// Ticks after the start of a path with a clock section in each datagram.
const CLOCK_WARMUP_TICKS: u32 = 30;

/// What was in a datagram that was sent.
#[derive(Clone, Copy, Debug, Default)]
struct Sent {
    seq: Seq,
    at: Time,
    /// The offset between tick and number that the datagram spelled out.
    spelled: Option<i64>,
    /// The newest number of the peer that the datagram acked.
    ack: Option<Seq>,
    /// What became of it.
    outcome: Option<Outcome>,
}

/// What became of a datagram that was sent. It never changes once it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The peer accepted it.
    Acked,
    /// It was lost, or came too late to count.
    Lost,
}

/// A datagram that was accepted.
#[derive(Debug)]
pub struct Accepted<'a> {
    /// Tick of the newest input, if the datagram can tell.
    pub tick: Option<Tick>,
    /// State hash.
    pub hash: Option<HashSection>,
    /// The peer's clock.
    pub clock: Option<ClockSection>,
    /// The newest of our datagrams that the peer had accepted.
    pub ack: Option<Seq>,
    /// The same, if this datagram is the first to say so.
    pub acked: Option<Seq>,
    /// Control messages.
    pub control: Option<&'a [u8]>,
    /// A packet of the game's messages.
    pub messages: Option<&'a [u8]>,
    /// What a client says of the entities that it decides.
    pub claims: Option<&'a [u8]>,
    /// The input batch.
    pub batch: &'a [u8],
    /// Bytes of the whole datagram.
    bytes: usize,
    /// Its number.
    pub seq: Seq,
    missing: u64,
    /// The tick, where it stood in full.
    spelled: Option<Tick>,
}

/// One remote participant.
#[derive(Debug)]
pub struct Peer {
    /// Its route.
    pub path: Path,
    /// Its identity in the session.
    pub member: MemberId,
    /// The slot whose inputs come from it.
    pub slot: Option<Slot>,
    /// When it was last heard.
    pub heard_at: Time,
    /// Round trips.
    pub rtt: Rtt,
    /// When the newest of our datagrams that it has acked was sent: it was alive after that.
    pub echoed_at: Option<Time>,
    /// How long before they were needed its inputs arrived, in 1/16 tick.
    pub margins: Samples<64>,
    /// Its clock minus ours, in microseconds, from its last clock section.
    pub clock_offset_us: Option<i64>,
    /// When tick 0 was due on its clock, in microseconds, from its last clock section.
    pub zero_us: Option<u64>,
    /// Control messages to it.
    pub outbox: Outbox,
    /// Control messages from it.
    pub inbox: Inbox,
    /// The game's messages.
    pub messages: Messages,
    /// Counters.
    pub statistics: PeerStatistics,
    /// A state hash to send with the next datagram.
    pub hash_due: Option<HashSection>,
    /// Claims to send with the next datagram, at most
    /// [`CLAIM_BYTES_MAX`](crate::limits::CLAIM_BYTES_MAX); none if empty.
    pub claims_due: Vec<u8>,
    /// Whether to tell the peer which of its datagrams are missing, not only the newest that
    /// arrived.
    pub tells_missing: bool,
    /// Whether the peer does, so that the outcome of each of our datagrams becomes known: see
    /// [`Peer::take_outcomes`].
    pub hears_missing: bool,
    /// Datagrams refused for what is in them since one with such content was not.
    faults: u32,
    key: TagKey,
    rate: TickRate,
    next_seq: Seq,
    sent: Vec<Sent>,
    acked: Option<Seq>,
    /// Missing numbers of the peer before this one were told, and the peer knows.
    told: Seq,
    /// Our oldest datagram without an outcome.
    unresolved: Seq,
    /// Outcomes that nobody has taken yet.
    outcomes: Vec<(Seq, Outcome)>,
    /// Offset spelled out last, and whether the peer has acked a datagram with it.
    spelled: Option<(i64, Seq, bool)>,
    received: Option<Seq>,
    received_at: Time,
    seen: u64,
    /// Offset that the peer spelled out last, and in which datagram.
    heard_offset: Option<(i64, Seq)>,
    loss_window: (u32, u32),
    loss: u8,
    packed: u32,
    clock_wanted: bool,
    /// When the newest clock section went out.
    clock_at: Time,
    /// The peer said something that it repeats until it hears our ack.
    is_ack_urgent: bool,
    /// Working memory of the packer, kept for its capacity.
    scratch: Vec<u8>,
}

impl Peer {
    /// A peer on `path`, in the session and term of `key`.
    #[must_use]
    pub fn new(path: Path, member: MemberId, key: TagKey, rate: TickRate, now: Time) -> Self {
        Self {
            path,
            member,
            slot: None,
            heard_at: now,
            rtt: Rtt::default(),
            echoed_at: None,
            margins: Samples::default(),
            clock_offset_us: None,
            zero_us: None,
            outbox: Outbox::default(),
            inbox: Inbox::default(),
            messages: Messages::new(MessagesConfig::default()),
            statistics: PeerStatistics::default(),
            hash_due: None,
            claims_due: Vec::new(),
            tells_missing: false,
            hears_missing: false,
            faults: 0,
            key,
            rate,
            next_seq: Seq::ZERO,
            sent: vec![Sent::default(); SENT_MAX],
            acked: None,
            told: Seq::ZERO,
            unresolved: Seq::ZERO,
            outcomes: Vec::new(),
            spelled: None,
            received: None,
            received_at: now,
            seen: 0,
            heard_offset: None,
            loss_window: (0, 0),
            loss: 0,
            packed: 0,
            clock_wanted: false,
            clock_at: now,
            is_ack_urgent: false,
            scratch: Vec::new(),
        }
    }

    /// The newest of our datagrams that the peer has acked.
    #[must_use]
    pub const fn acked(&self) -> Option<Seq> {
        self.acked
    }

    /// Share of the peer's datagrams that did not arrive, in 1/256.
    #[must_use]
    pub const fn loss(&self) -> u8 {
        self.loss
    }

    /// Counts a datagram that was refused although its numbers were right. True once so many were
    /// that the two ends must have been told different things: only a new link helps.
    pub const fn is_beyond_repair(&mut self, reason: DropReason) -> bool {
        if matches!(reason, DropReason::BadSection | DropReason::BadBatch) {
            self.faults += 1;
        }
        self.faults >= FAULTS_MAX
    }

    /// Asks for a clock section in the next datagram.
    pub const fn want_clock(&mut self) {
        self.clock_wanted = true;
    }

    /// Whether the next datagram has something to say beside its batch, and beside the ack of
    /// inputs, which can wait for a few ticks.
    #[must_use]
    pub fn has_word(&self) -> bool {
        self.packed < CLOCK_WARMUP_TICKS
            || self.clock_wanted
            || self.is_ack_urgent
            || !self.outbox.is_idle()
            || !self.messages.is_idle()
    }

    /// Checks a tick datagram, and takes in what concerns the path: cheapest refusal first.
    /// Its content counts as accepted only after [`Peer::accept`].
    ///
    /// # Errors
    /// Why it is dropped. Nothing has changed then but a counter.
    pub fn open<'a>(&mut self, now: Time, bytes: &'a [u8]) -> Result<Accepted<'a>, DropReason> {
        let prefix = Prefix::read(bytes).ok_or(DropReason::Malformed)?;
        let seq = self
            .restore_seq(now, prefix.tag, prefix.seq_low)
            .ok_or(DropReason::WrongTag)?;
        self.check_new(seq)?;
        let newest_sent = self.next_seq.number().checked_sub(1).map(Seq::new);
        let (header, batch) = prefix
            .sections(newest_sent)
            .map_err(|_error| DropReason::Malformed)?;
        let tick = match (header.tick, self.heard_offset) {
            (Some(tick), _) => Some(tick),
            (None, Some((offset, since))) if seq > since => {
                u32::try_from(i64::from(seq.number()) + offset)
                    .ok()
                    .map(Tick::new)
            }
            (None, _) => None,
        };
        if tick.is_none() && !batch.is_empty() {
            return Err(DropReason::UnknownTick);
        }
        let acked = header
            .ack
            .filter(|&ack| self.acked.is_none_or(|acked| ack > acked));
        Ok(Accepted {
            tick,
            hash: header.hash,
            clock: header.clock,
            ack: header.ack,
            acked,
            control: header.control,
            messages: header.messages,
            claims: header.claims,
            batch,
            bytes: bytes.len(),
            seq,
            missing: header.missing,
            spelled: header.tick,
        })
    }

    /// The tags that datagrams of this link may have which are still under way to here: a mask.
    #[must_use]
    pub fn stray_tags(&self) -> u64 {
        let epoch = self.received.unwrap_or_default().number() >> 8;
        let epochs = epoch.saturating_sub(1)..=epoch.saturating_add(3);
        epochs.fold(0, |mask, epoch| {
            mask | 1 << self.key.tag(Seq::new(epoch.wrapping_shl(8)))
        })
    }

    /// The tags that datagrams of this link may have which are still under way from here: a mask.
    #[must_use]
    pub fn sent_tags(&self) -> u64 {
        let epoch = self.next_seq.number() >> 8;
        let epochs = epoch.saturating_sub(1)..=epoch;
        epochs.fold(0, |mask, epoch| {
            mask | 1 << self.key.tag(Seq::new(epoch.wrapping_shl(8)))
        })
    }

    /// The number of the next datagram that is packed.
    #[must_use]
    pub const fn next_seq(&self) -> Seq {
        self.next_seq
    }

    /// Takes in a datagram whose content was fine: windows, acks and clocks advance.
    pub fn accept(&mut self, now: Time, datagram: &Accepted<'_>) {
        self.mark_received(now, datagram.seq);
        self.heard_at = now;
        self.is_ack_urgent |=
            datagram.control.is_some() || datagram.messages.is_some() || datagram.claims.is_some();
        // Of those that carry little, some fit anyway.
        if datagram.control.is_some() || !datagram.batch.is_empty() {
            self.faults = self.faults.saturating_sub(FAULTS_MAX / 4);
        }
        if let Some(tick) = datagram.spelled
            && self
                .heard_offset
                .is_none_or(|(_, since)| datagram.seq > since)
        {
            let offset = i64::from(tick.number()) - i64::from(datagram.seq.number());
            self.heard_offset = Some((offset, datagram.seq));
        }
        if let Some(ack) = datagram.acked {
            self.take_ack(now, ack, datagram.clock);
        }
        if self.hears_missing
            && let Some(ack) = datagram.ack
            && self.acked == Some(ack)
        {
            self.resolve(ack, datagram.missing);
        }
        if let Some(clock) = datagram.clock {
            let one_way = self.rtt.min_us().unwrap_or(0) / 2;
            let there = Time::from_micros(clock.sent_us).plus_micros(one_way);
            self.clock_offset_us = Some(there.micros_from(now));
            self.zero_us = Some(clock.zero_us);
            self.statistics.loss_sent = clock.loss;
        }
        let parts = [
            (self.body_in(), datagram.batch.len()),
            (Body::Control, datagram.control.map_or(0, <[u8]>::len)),
            (Body::Messages, datagram.messages.map_or(0, <[u8]>::len)),
        ];
        self.statistics.datagrams_received += 1;
        self.statistics.bytes_received += datagram.bytes as u64;
        count_parts(&mut self.statistics.received, datagram.bytes, &parts);
    }

    /// What stands where the input batch does: whoever hears what is missing sends state.
    const fn body_out(&self) -> Body {
        if self.hears_missing {
            Body::State
        } else {
            Body::Inputs
        }
    }

    const fn body_in(&self) -> Body {
        if self.tells_missing {
            Body::State
        } else {
            Body::Inputs
        }
    }

    /// Appends the next datagram to `out`. `batch` appends the input batch, whose newest input has
    /// `tick`, within the room that it is told; `zero` is when tick 0 was due.
    pub fn pack(
        &mut self,
        now: Time,
        zero: Time,
        tick: Option<Tick>,
        batch: impl FnOnce(Seq, usize, &mut Vec<u8>),
        out: &mut Vec<u8>,
    ) {
        let seq = self.next_seq;
        self.next_seq = seq.next();
        self.packed = self.packed.saturating_add(1);
        let spelled = tick.and_then(|tick| self.spell(seq, tick));
        // Whoever sends state leaves datagrams out when there is none.
        let clock_us = u64::from(CLOCK_INTERVAL_TICKS) * self.rate.tick_us();
        let due = self.packed <= CLOCK_WARMUP_TICKS
            || self.clock_wanted
            || self.packed.is_multiple_of(CLOCK_INTERVAL_TICKS)
            || self.hears_missing && now.micros_since(self.clock_at) >= clock_us;
        if due {
            self.clock_at = now;
        }
        let clock = due.then(|| self.clock_section(now, zero));
        self.clock_wanted = false;
        self.is_ack_urgent = false;
        let mut scratch = core::mem::take(&mut self.scratch);
        scratch.clear();
        let resend_us = self.rtt.smoothed_us().unwrap_or(100_000) + 2 * self.rate.tick_us();
        self.outbox
            .write(now, seq, CONTROL_ROOM_BYTES, resend_us, &mut scratch);
        let control_end = scratch.len();
        let missing_max = if self.tells_missing {
            MISSING_BYTES_MAX
        } else {
            0
        };
        let mut room = DATAGRAM_BYTES_MAX - HEADER_BYTES_MAX - missing_max - control_end;
        let mut claims = core::mem::take(&mut self.claims_due);
        if !claims.is_empty() {
            room = room.saturating_sub(claims.len() + CLAIMS_HEAD_BYTES);
        }
        batch(seq, room, &mut scratch);
        let (control, inputs) = scratch.split_at(control_end);
        room = room.saturating_sub(inputs.len());
        let messages = self.messages.pump(now, room);
        TickHeader {
            ack: self.received,
            tick: spelled.and(tick),
            clock,
            hash: self.hash_due.take(),
            control: (!control.is_empty()).then_some(control),
            messages: messages.as_deref(),
            missing: self.missing(),
            claims: (!claims.is_empty()).then_some(&claims),
        }
        .encode(self.key, seq, out);
        claims.clear();
        self.claims_due = claims;
        out.extend_from_slice(inputs);
        let parts = [
            (self.body_out(), inputs.len()),
            (Body::Control, control.len()),
            (Body::Messages, messages.as_deref().map_or(0, <[u8]>::len)),
        ];
        self.statistics.datagrams_sent += 1;
        self.statistics.bytes_sent += out.len() as u64;
        count_parts(&mut self.statistics.sent, out.len(), &parts);
        self.scratch = scratch;
        self.forget_sent(seq);
        self.sent[seq.number() as usize % SENT_MAX] = Sent {
            seq,
            at: now,
            spelled,
            ack: self.received,
            outcome: None,
        };
    }

    /// Spells the tick out unless the peer can tell it from the number for certain.
    fn spell(&mut self, seq: Seq, tick: Tick) -> Option<i64> {
        let offset = i64::from(tick.number()) - i64::from(seq.number());
        match self.spelled {
            Some((known, _, true)) if known == offset => None,
            Some((known, _, false)) if known == offset => Some(offset),
            _ => {
                self.spelled = Some((offset, seq, false));
                Some(offset)
            }
        }
    }

    fn clock_section(&self, now: Time, zero: Time) -> ClockSection {
        let waited = now.micros_since(self.received_at);
        let margin = self.margins.min();
        ClockSection {
            sent_us: now.micros(),
            zero_us: zero.micros(),
            ack_delay_us: u32::try_from(waited).unwrap_or(u32::MAX),
            margin: margin.map(|margin| i16::try_from(margin.clamp(-32_000, 32_000)).unwrap_or(0)),
            loss: self.loss,
        }
    }

    /// The whole number of a datagram, from its low bits and its tag.
    ///
    /// A gap of more than half a window shows in the tag; it is believed if the peer was silent for
    /// at least half the time that so many datagrams take.
    fn restore_seq(&self, now: Time, tag: u8, low: u8) -> Option<Seq> {
        let near = self.received.unwrap_or_default().nearest(low);
        let silent_us = now.micros_since(self.heard_at);
        let gap_max = silent_us.saturating_mul(u64::from(self.rate.hz())) * 2 / 1_000_000 + 1;
        let epochs_max = u32::try_from(gap_max / 256).unwrap_or(0).min(31);
        (0..=epochs_max)
            .map(|epoch| Seq::new(near.number().saturating_add(256 * epoch)))
            .find(|&seq| self.key.tag(seq) == tag)
    }

    fn check_new(&self, seq: Seq) -> Result<(), DropReason> {
        let Some(newest) = self.received else {
            return Ok(());
        };
        if seq > newest {
            return Ok(());
        }
        match newest.number() - seq.number() {
            0 => Err(DropReason::Duplicate),
            age if age > SEEN => Err(DropReason::TooOld),
            age if self.seen & (1 << (age - 1)) != 0 => Err(DropReason::Duplicate),
            _ => Ok(()),
        }
    }

    fn mark_received(&mut self, now: Time, seq: Seq) {
        let newest = self.received.unwrap_or_default();
        if self.received.is_none() || seq > newest {
            let ahead = match self.received {
                None => 1,
                Some(newest) => {
                    let ahead = seq.number() - newest.number();
                    // The newest one until now is the nearest behind, shifted by what lies between.
                    self.seen = self.seen.checked_shl(ahead).unwrap_or(0)
                        | 1_u64.checked_shl(ahead - 1).unwrap_or(0);
                    ahead
                }
            };
            self.received = Some(seq);
            self.received_at = now;
            self.loss_window.0 += ahead;
        } else {
            let age = (newest.number() - seq.number()).clamp(1, SEEN);
            self.seen |= 1 << (age - 1);
        }
        self.loss_window.1 += 1;
        if self.loss_window.0 >= 256 {
            let lost = self.loss_window.0.saturating_sub(self.loss_window.1);
            self.loss = u8::try_from(lost * 256 / self.loss_window.0).unwrap_or(u8::MAX);
            self.loss_window = (0, 0);
        }
    }

    fn take_ack(&mut self, now: Time, ack: Seq, clock: Option<ClockSection>) {
        self.acked = Some(ack);
        let sent = self.sent[ack.number() as usize % SENT_MAX];
        if sent.seq == ack {
            self.echoed_at = self.echoed_at.max(Some(sent.at));
            // Without the peer's word on its delay the sample is too long by up to a tick; then it
            // only serves until there is a better one.
            let waited = clock.map(|clock| u64::from(clock.ack_delay_us));
            let trip = now.micros_since(sent.at);
            if let Some(waited) = waited {
                self.rtt.sample(trip.saturating_sub(waited));
            } else if self.rtt.smoothed_us().is_none() {
                self.rtt.sample(trip);
            }
            if let (Some(offset), Some((known, since, _))) = (sent.spelled, self.spelled)
                && offset == known
                && ack >= since
            {
                self.spelled = Some((known, since, true));
            }
        }
        self.outbox.on_ack(ack);
        if sent.seq == ack
            && let Some(theirs) = sent.ack
        {
            let told = Seq::new(theirs.number().saturating_sub(TOLD_AGE));
            self.told = self.told.max(told);
        }
    }

    /// The numbers before the newest received one that are missing and worth telling.
    fn missing(&self) -> u64 {
        let (true, Some(newest)) = (self.tells_missing, self.received) else {
            return 0;
        };
        // Numbers before `told`, and those before the first of all, are no news.
        let news = newest.number() - self.told.number().min(newest.number());
        let window = match news {
            0 => 0,
            1..=63 => (1_u64 << news) - 1,
            _ => u64::MAX,
        };
        !self.seen & window
    }

    /// The outcomes that became known since the last call, each once. A datagram that was counted
    /// as lost stays that, even if the peer accepts it later.
    pub fn take_outcomes(&mut self) -> impl Iterator<Item = (Seq, Outcome)> {
        self.outcomes.drain(..)
    }

    /// Finds out what became of our datagrams up to `ack`, of which `missing` did not arrive yet.
    fn resolve(&mut self, ack: Seq, missing: u64) {
        let mut is_first = true;
        let newest = self.sent[ack.number() as usize % SENT_MAX];
        let reorder_us = REORDER_TICKS * self.rate.tick_us() * 7 / 8;
        for number in self.unresolved.number()..=ack.number() {
            let seq = Seq::new(number);
            let age = ack.number() - number;
            let sent = &mut self.sent[number as usize % SENT_MAX];
            if sent.seq == seq && sent.outcome.is_none() {
                let bit = age
                    .checked_sub(1)
                    .map_or(0, |bit| missing.checked_shr(bit).unwrap_or(1));
                let outcome = match (bit & 1, age) {
                    (0, _) => Some(Outcome::Acked),
                    (_, age) if age > REORDER_MAX => Some(Outcome::Lost),
                    _ if newest.at.micros_since(sent.at) > reorder_us => Some(Outcome::Lost),
                    _ => None,
                };
                sent.outcome = outcome;
                self.outcomes.extend(outcome.map(|outcome| (seq, outcome)));
            }
            let is_open = sent.seq == seq && sent.outcome.is_none();
            if is_first && !is_open {
                self.unresolved = seq.next();
            }
            is_first &= !is_open;
        }
    }

    /// Makes room for datagram `seq`: what stood there, unacked for so long, is lost.
    fn forget_sent(&mut self, seq: Seq) {
        let sent = self.sent[seq.number() as usize % SENT_MAX];
        let is_other = seq.number() as usize >= SENT_MAX && sent.outcome.is_none();
        if self.hears_missing && is_other {
            self.outcomes.push((sent.seq, Outcome::Lost));
            self.unresolved = self.unresolved.max(sent.seq.next());
        }
    }
}

/// Counts the parts of a tick datagram of `total` bytes; what is in none of them is header.
fn count_parts(counts: &mut BodyBytes, total: usize, parts: &[(Body, usize)]) {
    let mut header = total;
    for &(body, bytes) in parts {
        counts.count(body, bytes);
        header = header.saturating_sub(bytes);
    }
    counts.count(Body::Header, header);
}

#[cfg(test)]
mod tests;
