//! What a node knows of the other members, and what it sent when.

use crate::id::{MemberId, Term};
use crate::session::clock::Rtt;
use crate::tick::Tick;
use crate::time::Time;

/// Facts about one member.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) incarnation: u32,
    /// When anything arrived.
    pub(super) heard_at: Time,
    /// Since when anything is known of it.
    pub(super) since: Time,
    /// As the node measures it.
    pub(super) rtt_us: Option<u64>,
    /// When the newest datagram was sent over the warm link that the member has echoed.
    pub(super) met_at: Option<Time>,
    /// As echoes measure it.
    rtt: Rtt,
    /// When it last said that it suspects the host of the roster.
    pub(super) suspects_at: Option<Time>,
    /// The highest term that it has promised anything for.
    pub(super) promised: Term,
    /// What it last said that it holds.
    pub(super) position: Tick,
    /// What hosting there would cost, and whom it hears, as it last said.
    pub(super) cost_us: Option<u64>,
    pub(super) reached: Vec<MemberId>,
    /// When it was told of a newer term.
    pub(super) news_at: Time,
    /// Its word not to vote for another than this node.
    pub(super) lease_until: Time,
    /// When the newest of what it has answered with its word left this node.
    pub(super) answered: Time,
    /// The last term in which it echoed, when, and what it held then.
    pub(super) term: Term,
    pub(super) echoed_at: Time,
    pub(super) held: Tick,
    pub(super) version: u32,
    /// What its acks of tick datagrams are worth, in that term.
    pub(super) word: TickWord,
    /// When it was sent a heartbeat last.
    pub(super) beat_at: Time,
    /// When it was sent the roster last, and how often.
    pub(super) told_at: Time,
    pub(super) told: u32,
}

impl Known {
    pub(super) fn new(incarnation: u32, now: Time) -> Self {
        Self {
            incarnation,
            heard_at: now,
            since: now,
            rtt_us: None,
            met_at: None,
            rtt: Rtt::default(),
            suspects_at: None,
            promised: Term(0),
            position: Tick::ZERO,
            cost_us: None,
            reached: Vec::new(),
            news_at: Time::ZERO,
            lease_until: Time::ZERO,
            answered: Time::ZERO,
            term: Term(0),
            echoed_at: now,
            held: Tick::ZERO,
            version: 0,
            word: TickWord::default(),
            beat_at: Time::ZERO,
            told_at: Time::ZERO,
            told: 0,
        }
    }

    /// It has given its word with its answer to what left at `sent`, for `lease_us` from then on as
    /// this node counts; `from` is when that begins.
    pub(super) fn give_word(&mut self, sent: Time, from: Time, lease_us: u64) {
        self.answered = self.answered.max(sent);
        self.lease_until = self.lease_until.max(from.plus_micros(lease_us));
    }

    /// Its word counts no more.
    pub(super) const fn forget_word(&mut self) {
        (self.answered, self.lease_until) = (Time::ZERO, Time::ZERO);
    }

    pub(super) fn sample_rtt(&mut self, us: u64) {
        self.rtt.sample(us);
    }

    /// The round trip with its usual deviation, in microseconds.
    pub(super) fn rtt_us(&self) -> Option<u64> {
        let own = self.rtt.smoothed_us();
        own.map(|us| us + 2 * self.rtt.deviation_us())
            .or(self.rtt_us)
    }

    /// The smoothed round trip, in microseconds.
    pub(super) fn mean_rtt_us(&self) -> Option<u64> {
        self.rtt_us.or(self.rtt.smoothed_us())
    }
}

/// What a voter's acks of tick datagrams are worth to its host.
///
/// A voter gives its word with each tick datagram that it accepts, for as long as the newest
/// heartbeat that it has heard says. The host knows that from echoes, a round trip late: so it
/// counts the least that the voter may have gone by.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TickWord {
    /// The newest heartbeat that the voter has echoed; 0 for none.
    confirmed: u32,
    /// For how long at least it gives its word with a tick datagram that left at `since` or later.
    us: u64,
    since: Time,
    /// The same for one that left before.
    before_us: u64,
    /// When the newest one left that it has acked.
    sent: Time,
}

impl TickWord {
    /// The voter has echoed heartbeat `seq`; since then none said less than `least_us`.
    pub(super) fn confirm(&mut self, now: Time, seq: u32, least_us: u64) {
        if seq <= self.confirmed {
            return;
        }
        let is_first = self.confirmed == 0;
        self.confirmed = seq;
        if least_us <= self.us {
            self.lower(least_us);
        } else if is_first || self.sent >= self.since {
            // What left before this was known may have met a voter that knew the value before.
            (self.before_us, self.us, self.since) = (self.us, least_us, now);
        }
    }

    /// A heartbeat that says so is on its way.
    pub(super) fn lower(&mut self, us: u64) {
        self.us = self.us.min(us);
        self.before_us = self.before_us.min(us);
    }

    /// A tick datagram that left at `sent` was acked: for how long the voter gave its word with it
    /// at least, in microseconds. `None` if that is no news.
    pub(super) fn acked(&mut self, sent: Time) -> Option<u64> {
        if self.confirmed == 0 || sent <= self.sent {
            return None;
        }
        self.sent = sent;
        Some(if sent >= self.since {
            self.us
        } else {
            self.before_us
        })
    }

    /// Whether the voter is known to go by heartbeat `seq` or a newer one.
    pub(super) const fn knows(&self, seq: u32) -> bool {
        self.confirmed > 0 && self.confirmed >= seq
    }

    /// When the newest tick datagram left that the voter has acked.
    pub(super) const fn sent(&self) -> Time {
        self.sent
    }
}

/// Numbers of what asks for an echo, and when they were sent.
#[derive(Clone, Debug)]
pub(super) struct Beats {
    next: u32,
    sent: [(u32, Time, u64); BEATS],
}

/// Numbers that are remembered: echoes of older ones are worth nothing, since their lease is over.
const BEATS: usize = 256;

impl Default for Beats {
    fn default() -> Self {
        Self {
            next: 1,
            sent: [(0, Time::ZERO, 0); BEATS],
        }
    }
}

impl Beats {
    /// A new number; whoever echoes it will not vote for another for `suspect_us`, less a margin.
    pub(super) fn begin(&mut self, now: Time, suspect_us: u64) -> u32 {
        let seq = self.next;
        self.next = self.next.wrapping_add(1).max(1);
        self.sent[Self::index(seq)] = (seq, now, suspect_us);
        seq
    }

    /// When this number was sent, and for what suspicion time.
    pub(super) fn sent(&self, seq: u32) -> Option<(Time, u64)> {
        let (number, at, suspect_us) = self.sent[Self::index(seq)];
        (number == seq && seq > 0).then_some((at, suspect_us))
    }

    /// The shortest suspicion time that went out with this number or a later one; `None` if that
    /// is too long ago.
    pub(super) fn least_since(&self, seq: u32) -> Option<u64> {
        self.sent(seq)?;
        let later = (seq..self.next).filter_map(|seq| self.sent(seq));
        later.map(|(_, suspect_us)| suspect_us).min()
    }

    fn index(seq: u32) -> usize {
        usize::try_from(seq).unwrap_or(0) % BEATS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(ms: u64) -> Time {
        Time::from_millis(ms)
    }

    #[test]
    fn an_ack_is_worth_what_the_voter_surely_knew() {
        let mut word = TickWord::default();
        assert_eq!(word.acked(at(5)), None, "nothing was echoed yet");
        word.confirm(at(100), 1, 150_000);
        assert_eq!(
            word.acked(at(90)),
            Some(0),
            "it may have come before the heartbeat"
        );
        assert_eq!(word.acked(at(101)), Some(150_000));
        assert_eq!(word.acked(at(101)), None, "no news");
        // Longer from the echo on, for what leaves after it.
        word.confirm(at(200), 2, 300_000);
        assert_eq!(word.acked(at(199)), Some(150_000));
        assert_eq!(word.acked(at(200)), Some(300_000));
        // Shorter at once, for what has left long ago, too.
        word.lower(120_000);
        assert_eq!(word.acked(at(201)), Some(120_000));
        word.confirm(at(300), 3, 120_000);
        assert_eq!(word.acked(at(301)), Some(120_000));
    }

    #[test]
    fn two_changes_within_a_round_trip_keep_the_shorter() {
        let mut word = TickWord::default();
        word.confirm(at(100), 1, 150_000);
        word.confirm(at(110), 2, 200_000);
        word.confirm(at(120), 3, 300_000);
        // Nothing that left after the first echo was acked yet: the first value stands.
        assert_eq!(word.acked(at(115)), Some(150_000));
        assert_eq!(word.acked(at(125)), Some(150_000));
        word.confirm(at(130), 4, 300_000);
        assert_eq!(word.acked(at(129)), Some(150_000));
        assert_eq!(word.acked(at(131)), Some(300_000));
        assert!(word.knows(4) && !word.knows(5));
        // An echo that comes late changes nothing.
        word.confirm(at(140), 2, 900_000);
        assert_eq!(word.acked(at(141)), Some(300_000));
    }

    #[test]
    fn the_shortest_of_the_requests_since_counts() {
        let mut beats = Beats::default();
        let seqs: Vec<u32> = [200_000, 150_000, 300_000]
            .map(|us| beats.begin(at(1), us))
            .to_vec();
        assert_eq!(beats.least_since(seqs[0]), Some(150_000));
        assert_eq!(beats.least_since(seqs[2]), Some(300_000));
        for _ in 0..BEATS {
            beats.begin(at(2), 100_000);
        }
        assert_eq!(beats.least_since(seqs[2]), None, "forgotten");
        assert_eq!(beats.least_since(0), None);
    }
}
