//! A client's side of a session.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::hash::keyed;
use crate::id::{MemberId, Path, SessionId, Slot, Term};
use crate::limits::{
    CATCH_UP_US_MAX, IMAGES_MAX, INPUT_HISTORY_TICKS_MAX, JOIN_TICK_MAX, SLOTS_MAX,
    SNAPSHOT_BYTES_MAX,
};
use crate::lockstep::{DelayControl, Exchange, Shape};
use crate::node::api::{DesyncReport, DisconnectReason, Event, SessionInfo};
use crate::node::core::{Core, ExportFor, Todo};
use crate::node::desync::fold;
use crate::node::host::first_transfer;
use crate::session::bulk::{BulkConfig, BulkReceiver, BulkSender};
use crate::session::clock::{Samples, offset_of};
use crate::session::config::{InputDelay, JoinConfig, ResumeToken, Role};
use crate::session::control::{Control, HASHES_MAX, Purpose};
use crate::session::handshake::{
    self, Bye, ByeReason, Hello, PROTOCOL_VERSION, PROTOCOL_VERSION_MIN, Refusal, Refuse,
    SchemaPart, Welcome,
};
use crate::session::peer::Peer;
use crate::session::statistics::DropReason;
use crate::state::Schema;
use crate::tick::Tick;
use crate::time::Time;
use crate::wire::bytes::Reader;
use crate::wire::header::{TagKey, kind};

/// Microseconds between two Hellos.
const HELLO_US: u64 = 100_000;
/// Copies of a goodbye: it is not acked.
const BYE_COPIES: u8 = 3;
/// Bytes of an encoded schema that a refusal may bring.
const SCHEMA_BYTES_MAX: usize = 1 << 20;
/// Ticks behind the clock at which a member counts as caught up.
const CAUGHT_UP_TICKS: u32 = 4;
/// Microseconds by which frames shall be there before they are due.
const FRAME_MARGIN_US: i64 = 2_000;
/// Microseconds after the last tick in which others fetch what they lack.
const FAREWELL_US: u64 = 2_000_000;
/// Ticks sent after the last one, so that hashes and acks of it arrive.
const FAREWELL_TICKS: u64 = 16;

/// Ticks that may run before the host has confirmed this node's own inputs for them, where all
/// wait for all.
const UNCONFIRMED_TICKS_MAX: u32 = 255;

/// Where a client stands.
#[derive(Debug, PartialEq, Eq)]
enum Phase {
    /// Hello goes out until it is answered.
    Asking { since: Time, next_at: Time },
    /// Takes part.
    Inside,
    /// Over.
    Over,
}

/// A client's side of a session.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) config: JoinConfig,
    path: Path,
    phase: Phase,
    hello: Hello,
    attempts: u64,
    resume: Option<ResumeToken>,
    pub(super) peer: Peer,
    exchange: Exchange,
    waits: bool,
    heal: bool,
    delay: DelayControl,
    /// When frames became known, as clock offsets.
    arrivals: Samples<256>,
    frames_upto: Tick,
    active_from: Option<Tick>,
    start_at_us: Option<u64>,
    running: bool,
    needs_state: bool,
    said_ready: bool,
    receiver: Option<(Tick, BulkReceiver)>,
    pub(super) state: Option<(Tick, Arc<[u8]>)>,
    diverged: Option<(Tick, Vec<String>)>,
    healing: bool,
    report: Option<BulkSender>,
    hashes_wanted: Option<(Tick, Tick)>,
    checked_own: Tick,
    stalled_at: Tick,
    due: bool,
    ended_at: Option<Time>,
    outgoing: VecDeque<Vec<u8>>,
    schema_parts: Vec<Option<Vec<u8>>>,
    pub(super) closing: VecDeque<Path>,
}

impl Client {
    pub(super) fn new(config: JoinConfig, path: Path, now: Time) -> (Self, Core) {
        let placeholder =
            SessionInfo::placeholder(config.game.tick_rate, 1, config.game.input_bytes);
        let core = Core::new(placeholder, 0, now);
        let key = TagKey::new(SessionId(0), Term(0), 0);
        let peer = Peer::new(path, MemberId(0), key, config.game.tick_rate, now);
        let hello = Hello::new(&config.game, &config.name, config.role, 0);
        let limits = lead_limits(&config);
        let mut client = Self {
            path,
            phase: Phase::Over,
            hello,
            attempts: 0,
            resume: None,
            peer,
            exchange: Exchange::new(1, config.game.input_bytes, 0, 0, Tick::ZERO),
            waits: false,
            heal: false,
            delay: DelayControl::new(limits),
            arrivals: Samples::default(),
            frames_upto: Tick::ZERO,
            active_from: None,
            start_at_us: None,
            running: false,
            needs_state: false,
            said_ready: false,
            receiver: None,
            state: None,
            diverged: None,
            healing: false,
            report: None,
            hashes_wanted: None,
            checked_own: Tick::ZERO,
            stalled_at: Tick::ZERO,
            due: false,
            ended_at: None,
            outgoing: VecDeque::new(),
            schema_parts: Vec::new(),
            closing: VecDeque::new(),
            config,
        };
        client.ask(now, Tick::ZERO);
        (client, core)
    }

    /// Asks to join, or to come back.
    fn ask(&mut self, now: Time, confirmed: Tick) {
        self.attempts += 1;
        let mut seed = b"hello".to_vec();
        seed.extend_from_slice(&self.attempts.to_le_bytes());
        seed.extend_from_slice(&now.micros().to_le_bytes());
        seed.extend_from_slice(self.config.name.as_bytes());
        self.hello.nonce = keyed(self.config.secret, &seed).max(1);
        self.hello.resume = self.resume.map_or(0, |token| token.0);
        self.hello.confirmed = confirmed.number();
        self.phase = Phase::Asking {
            since: now,
            next_at: now,
        };
    }

    pub(super) fn own_slot(&self) -> Option<Slot> {
        self.peer.slot
    }

    pub(super) fn is_over(&self) -> bool {
        self.phase == Phase::Over && self.outgoing.is_empty()
    }

    /// The input delay in force.
    pub(super) fn input_delay(&self) -> u32 {
        self.delay.ticks() - self.ahead(self.config.prediction_ticks)
    }

    /// A path that the link should close, once what was to be said over it is said.
    pub(super) fn poll_close(&mut self) -> Option<Path> {
        if self.outgoing.is_empty() {
            self.closing.pop_front()
        } else {
            None
        }
    }

    /// Takes the session up again over `path`.
    pub(super) fn rejoin(&mut self, core: &Core, now: Time, path: Path) {
        self.path = path;
        self.outgoing.clear();
        // What ran beyond the final inputs may have to run again: from a state that is still kept.
        let last = self.final_tick(core).min(core.timeline.simulated());
        let ahead = core.timeline.simulated().since(core.timeline.settled());
        let has_state = !self.needs_state && self.state.is_none();
        let goes_on = has_state && (ahead == 0 || ahead < core.info.images);
        self.ask(now, if goes_on { last } else { Tick::ZERO });
    }

    pub(super) fn leave(&mut self, core: &mut Core) {
        if self.phase == Phase::Inside {
            self.say_bye(core, ByeReason::Left);
        }
        self.end(core, DisconnectReason::Left);
    }

    fn say_bye(&mut self, core: &Core, reason: ByeReason) {
        let bye = Bye {
            session_low: session_low(core),
            reason,
        };
        for _ in 0..BYE_COPIES {
            let mut bytes = Vec::new();
            handshake::write(kind::BYE, &bye, &mut bytes);
            self.outgoing.push_back(bytes);
        }
    }

    fn end(&mut self, core: &mut Core, reason: DisconnectReason) {
        if self.phase != Phase::Over {
            self.phase = Phase::Over;
            self.closing.push_back(self.path);
            core.awaited = None;
            core.report(Event::Disconnected { reason });
        }
    }

    // ---- arrivals ----

    pub(super) fn handle_datagram(&mut self, core: &mut Core, now: Time, path: Path, bytes: &[u8]) {
        let result = match bytes.first() {
            _ if path != self.path => Err(DropReason::UnknownPath),
            Some(&kind::WELCOME) => self.handle_welcome(core, now, &bytes[1..]),
            Some(&kind::REFUSE) => self.handle_refuse(core, &bytes[1..]),
            Some(&kind::SCHEMA_PART) => self.handle_schema_part(core, &bytes[1..]),
            Some(&kind::BYE) => self.handle_bye(core, &bytes[1..]),
            Some(&kind::BULK) => self.handle_chunk(core, now, &bytes[1..]),
            Some(&kind::BULK_ACK) => self.handle_bulk_ack(now, &bytes[1..]),
            Some(_) => self.handle_tick(core, now, bytes),
            None => Err(DropReason::Malformed),
        };
        match result {
            Ok(()) => {
                core.statistics.datagrams_received += 1;
                core.statistics.bytes_received += bytes.len() as u64;
            }
            Err(reason) => {
                core.statistics.drops.count(reason);
                self.peer.statistics.drops.count(reason);
            }
        }
    }

    fn handle_welcome(
        &mut self,
        core: &mut Core,
        now: Time,
        body: &[u8],
    ) -> Result<(), DropReason> {
        let welcome: Welcome = handshake::read(body).map_err(|_error| DropReason::Malformed)?;
        let is_asking = matches!(self.phase, Phase::Asking { .. });
        if !is_asking || welcome.nonce != self.hello.nonce {
            return Err(DropReason::Unexpected);
        }
        let slot = match (welcome.slot, self.config.role) {
            (u8::MAX, Role::Spectator) => None,
            (slot, Role::Player) if slot < welcome.slots => Some(Slot(slot)),
            _ => return Err(DropReason::Malformed),
        };
        let input_bytes = self.config.game.input_bytes;
        let frame_bytes = usize::from(welcome.slots) * usize::from(input_bytes);
        let fits = welcome.slots > 0
            && usize::from(welcome.slots) <= SLOTS_MAX
            && frame_bytes <= crate::limits::INPUT_FRAME_BYTES_MAX
            && welcome.images <= IMAGES_MAX
            && welcome.from <= JOIN_TICK_MAX
            && (PROTOCOL_VERSION_MIN..=PROTOCOL_VERSION).contains(&welcome.protocol);
        if !fits {
            return Err(DropReason::Malformed);
        }
        let from = Tick::new(welcome.from);
        let info = SessionInfo {
            session: SessionId(welcome.session),
            term: Term(welcome.term),
            member: MemberId(welcome.member),
            slot,
            slots: welcome.slots,
            seed: welcome.seed,
            input_bytes,
            tick_rate: self.config.game.tick_rate,
            images: welcome.images,
            desync_interval: welcome.desync_interval,
        };
        let resumed = welcome.resumed
            && self.hello.resume != 0
            && core.info.session == info.session
            // What it asked for: other ticks may be known no more.
            && welcome.from == self.hello.confirmed
            && from > Tick::ZERO
            && (core.info.slots, core.info.images) == (info.slots, info.images)
            && core.slots().all(|slot| core.known.oldest(slot) <= from)
            && from <= self.final_tick(core);
        if welcome.resumed && !resumed {
            return Err(DropReason::Malformed);
        }
        let key = TagKey::new(info.session, info.term, welcome.nonce);
        self.peer = Peer::new(self.path, info.member, key, info.tick_rate, now);
        self.peer.slot = slot;
        let all = (0..info.slots)
            .map(Slot)
            .fold(0, |mask, slot| mask | slot.bit());
        self.exchange = Exchange::new(info.slots, input_bytes, 0, all, from);
        self.resume = Some(ResumeToken(welcome.resume));
        self.waits = welcome.gate != 0;
        self.heal = welcome.heal;
        self.arrivals.clear();
        self.active_from = None;
        self.said_ready = false;
        self.receiver = None;
        self.phase = Phase::Inside;
        if resumed {
            for slot in core.slots() {
                if core.known.newest(slot) > from {
                    core.known.rewind(slot, from);
                }
            }
            core.info = info.clone();
            core.awaited = None;
            self.running = self.start_at_us.is_some();
        } else {
            let prediction = self
                .config
                .prediction_ticks
                .min(info.images.saturating_sub(1));
            *core = Core::new(info.clone(), prediction, now);
            if self.waits {
                core.timeline.keep_guesses(UNCONFIRMED_TICKS_MAX);
            }
            core.begin_after(from);
            core.jump(from);
            self.running = false;
            self.start_at_us = None;
            self.delay = DelayControl::new(lead_limits(&self.config));
            self.needs_state = from > Tick::ZERO;
            if !self.needs_state {
                core.todo.push_back(Todo::Begin);
                if core.info.images > 0 {
                    core.todo.push_back(Todo::Capture(Tick::ZERO));
                }
            }
        }
        self.frames_upto = from;
        self.checked_own = from;
        let resume = ResumeToken(welcome.resume);
        core.report(Event::Welcomed { info, resume });
        Ok(())
    }

    fn handle_refuse(&mut self, core: &mut Core, body: &[u8]) -> Result<(), DropReason> {
        let refuse: Refuse = handshake::read(body).map_err(|_error| DropReason::Malformed)?;
        let is_asking = matches!(self.phase, Phase::Asking { .. });
        if !is_asking || refuse.nonce != self.hello.nonce {
            return Err(DropReason::Unexpected);
        }
        if let Refusal::Schema { parts, .. } = refuse.refusal
            && parts > 0
            && parts <= 32
        {
            if self.schema_parts.len() != usize::from(parts) {
                self.schema_parts = vec![None; usize::from(parts)];
            }
            let missing = self.schema_parts.iter().enumerate();
            self.hello.schema_parts_wanted = missing
                .filter(|(_, part)| part.is_none())
                .fold(0, |mask, (index, _)| mask | 1 << index);
            return Ok(());
        }
        let reason = refuse.refusal.sentence(&self.config.game);
        self.refused(core, reason, Vec::new());
        Ok(())
    }

    fn refused(&mut self, core: &mut Core, reason: String, differences: Vec<String>) {
        self.phase = Phase::Over;
        self.closing.push_back(self.path);
        core.report(Event::Refused {
            reason,
            differences,
        });
    }

    fn handle_schema_part(&mut self, core: &mut Core, body: &[u8]) -> Result<(), DropReason> {
        let part: SchemaPart = handshake::read(body).map_err(|_error| DropReason::Malformed)?;
        let is_asking = matches!(self.phase, Phase::Asking { .. });
        if !is_asking || part.nonce != self.hello.nonce {
            return Err(DropReason::Unexpected);
        }
        let place = self.schema_parts.get_mut(usize::from(part.part));
        *place.ok_or(DropReason::Malformed)? = Some(part.bytes);
        if self.schema_parts.iter().any(Option::is_none) {
            return Ok(());
        }
        let block: Vec<u8> = self
            .schema_parts
            .iter()
            .flatten()
            .flatten()
            .copied()
            .collect();
        let host = crate::wire::compress::decompress(&block, SCHEMA_BYTES_MAX)
            .and_then(|bytes| Schema::decode(&mut Reader::new(&bytes)));
        let differences = match host {
            Ok(host) => {
                let found = host.compare(&self.config.game.schema);
                found.iter().map(ToString::to_string).collect()
            }
            Err(_error) => Vec::new(),
        };
        let reason = "the host's components differ from yours".to_owned();
        self.refused(core, reason, differences);
        Ok(())
    }

    fn handle_bye(&mut self, core: &mut Core, body: &[u8]) -> Result<(), DropReason> {
        let bye: Bye = handshake::read(body).map_err(|_error| DropReason::Malformed)?;
        if self.phase != Phase::Inside || bye.session_low != session_low(core) {
            return Err(DropReason::Unexpected);
        }
        self.end(core, DisconnectReason::Bye(bye.reason));
        Ok(())
    }

    fn handle_chunk(&mut self, core: &mut Core, now: Time, body: &[u8]) -> Result<(), DropReason> {
        let (tick, receiver) = self.receiver.as_mut().ok_or(DropReason::Unexpected)?;
        receiver
            .handle_chunk(now, body)
            .map_err(|_error| DropReason::Malformed)?;
        self.peer.heard_at = now;
        if !receiver.is_complete() || self.state.is_some() {
            return Ok(());
        }
        let tick = *tick;
        match receiver.finish() {
            Ok(bytes) => {
                self.state = Some((tick, bytes.into()));
                self.take_state(core);
            }
            Err(crate::session::bulk::BulkFinishError::Incomplete) => {}
            Err(crate::session::bulk::BulkFinishError::DigestMismatch) => {
                self.end(core, DisconnectReason::BadState);
            }
        }
        Ok(())
    }

    /// Lets the driver import the state, once the simulation is not behind it.
    fn take_state(&mut self, core: &mut Core) {
        let Some((tick, _)) = &self.state else { return };
        let is_there = self.needs_state || core.timeline.simulated() >= *tick;
        if is_there && !core.todo.contains(&Todo::Import) {
            core.todo.push_back(Todo::Import);
        }
    }

    /// The driver has imported the state, or could not.
    pub(super) fn commit_import(&mut self, core: &mut Core, now: Time, found: Option<Tick>) {
        let Some((tick, _)) = self.state.take() else {
            return;
        };
        if found != Some(tick) {
            self.say_bye(core, ByeReason::Fault);
            self.end(core, DisconnectReason::BadState);
            return;
        }
        core.jump(tick);
        if core.info.images > 0 {
            core.todo.push_back(Todo::Capture(tick));
        }
        if core::mem::take(&mut self.needs_state) {
            self.running = false;
            self.try_run(core, now);
        } else {
            self.healing = false;
            core.report(Event::Healed { tick });
        }
        self.advance(core, now);
    }

    fn handle_bulk_ack(&mut self, now: Time, body: &[u8]) -> Result<(), DropReason> {
        let report = self.report.as_mut().ok_or(DropReason::Unexpected)?;
        report
            .handle_ack(now, body)
            .map_err(|_error| DropReason::Malformed)?;
        if report.is_complete() {
            self.report = None;
        }
        Ok(())
    }

    fn handle_tick(&mut self, core: &mut Core, now: Time, bytes: &[u8]) -> Result<(), DropReason> {
        if self.phase != Phase::Inside {
            return Err(DropReason::Unexpected);
        }
        let datagram = self.peer.open(now, bytes)?;
        if let Some(reference) = datagram.tick {
            let own = self.peer.slot.map(|slot| (slot, &core.submitted));
            let shape = Shape {
                reference,
                uneven: self.waits,
                own,
            };
            // Frames wait here until the state is there and the ticks before have run.
            let newest_max = core.timeline.settled().plus(INPUT_HISTORY_TICKS_MAX - 64);
            self.exchange
                .read(
                    datagram.ack,
                    shape,
                    newest_max,
                    datagram.batch,
                    &mut core.known,
                )
                .map_err(|_error| DropReason::BadBatch)?;
        } else if !datagram.batch.is_empty() {
            return Err(DropReason::UnknownTick);
        }
        let mut controls = Vec::new();
        if let Some(control) = datagram.control {
            self.peer
                .inbox
                .read(control, |message| {
                    controls.push(Control::from_bytes(message))
                })
                .map_err(|_error| DropReason::BadSection)?;
        }
        if let Some(messages) = datagram.messages {
            self.peer
                .messages
                .handle(messages)
                .map_err(|_fault| DropReason::BadSection)?;
        }
        self.peer.accept(now, &datagram);
        self.peer.statistics.datagrams_received += 1;
        self.peer.statistics.bytes_received += bytes.len() as u64;
        if let Some(ack) = datagram.acked
            && self.exchange.on_ack(ack, &core.submitted).is_err()
        {
            // Our own inputs are forgotten before the host had them: it has gone on without.
            self.rejoin(core, now, self.path);
            return Ok(());
        }
        if let Some(margin) = datagram.clock.and_then(|clock| clock.margin)
            && self.active_from.is_some()
        {
            let rtt_us = self.peer.rtt.smoothed_us().unwrap_or(0);
            // Where all wait for all, prediction lets the host run ahead of late inputs.
            let spare = if self.waits {
                16 * core.timeline.prediction()
            } else {
                0
            };
            let margin = margin.saturating_add(i16::try_from(spare).unwrap_or(0));
            self.delay.report(now, core.rate, rtt_us, margin);
        }
        while core.has_room_for_messages()
            && let Some((channel, bytes)) = self.peer.messages.receive()
        {
            core.report(Event::Message {
                from: MemberId::FIRST_HOST,
                channel,
                bytes,
            });
        }
        for control in controls {
            match control {
                Ok(control) => self.handle_control(core, now, control)?,
                Err(_error) => return Err(DropReason::BadSection),
            }
        }
        self.note_arrivals(core, now);
        self.find_replaced(core);
        self.try_run(core, now);
        self.steer(core);
        self.advance(core, now);
        Ok(())
    }

    /// Notes when frames became known, and how early.
    fn note_arrivals(&mut self, core: &mut Core, now: Time) {
        let known = self.confirmed_by_others(core);
        let first = self
            .frames_upto
            .number()
            .max(known.number().saturating_sub(16))
            + 1;
        for number in first..=known.number() {
            let tick = Tick::new(number);
            self.arrivals.push(offset_of(core.rate, tick, now));
            if self.waits && self.running {
                let margin_us = core.clock.due(tick).micros_from(now);
                let tick_us = i64::try_from(core.rate.tick_us()).unwrap_or(1);
                let margin = margin_us.saturating_mul(16) / tick_us;
                self.peer.margins.push(margin);
                if margin < 4 {
                    self.peer.want_clock();
                }
            }
        }
        self.frames_upto = self.frames_upto.max(known);
    }

    /// Tells the game of own inputs that others acted in place of.
    fn find_replaced(&mut self, core: &mut Core) {
        let (Some(slot), Some(from)) = (self.peer.slot, self.active_from) else {
            return;
        };
        let newest = core.known.newest(slot);
        self.checked_own = self.checked_own.max(from.previous());
        while self.checked_own < newest {
            let tick = self.checked_own.next();
            self.checked_own = tick;
            let submitted = core.submitted.get(slot, tick).bytes();
            if submitted.is_some() && submitted != core.known.get(slot, tick).bytes() {
                core.statistics.inputs_replaced += 1;
                core.report(Event::InputReplaced { tick });
            }
        }
    }

    fn handle_control(
        &mut self,
        core: &mut Core,
        now: Time,
        control: Control,
    ) -> Result<(), DropReason> {
        match control {
            Control::Member(record) => {
                let member = record
                    .member(core.info.slots)
                    .ok_or(DropReason::BadSection)?;
                if core.roster.members().len() >= crate::limits::MEMBERS_MAX
                    && core.roster.member(member.id).is_none()
                {
                    return Err(DropReason::BadSection);
                }
                core.roster.set(member.clone());
                core.report(Event::Member(member));
            }
            Control::Gone(id) => {
                if let Some(member) = core.roster.remove(MemberId(id)) {
                    core.report(Event::Left {
                        member,
                        reason: ByeReason::Left,
                    });
                }
            }
            Control::Start(at_us) => self.start_at_us = Some(at_us),
            Control::LastTick(tick) => core.last_tick = Some(Tick::new(tick)),
            Control::Activate(tick) => self.activate(core, now, Tick::new(tick))?,
            Control::Transfer {
                id,
                purpose: Purpose::Join,
                tick,
                bytes,
                digest,
            } => {
                let wanted = self.needs_state || self.healing;
                if !wanted || tick > JOIN_TICK_MAX {
                    return Err(DropReason::Unexpected);
                }
                let receiver = BulkReceiver::new(id, u64::from(bytes), digest, SNAPSHOT_BYTES_MAX)
                    .map_err(|_too_large| DropReason::BadSection)?;
                self.receiver = Some((Tick::new(tick), receiver));
            }
            Control::Hashes {
                after,
                upto,
                hashes,
            } => {
                let span = upto.checked_sub(after).unwrap_or(u32::MAX) as usize;
                if !hashes.is_empty()
                    || !(1..=HASHES_MAX).contains(&span)
                    || self.hashes_wanted.is_some()
                {
                    return Err(DropReason::Unexpected);
                }
                for number in after + 1..=upto {
                    if core.hashes.at(Tick::new(number)).is_none() {
                        core.todo.push_back(Todo::Hash(Tick::new(number)));
                    }
                }
                self.hashes_wanted = Some((Tick::new(after), Tick::new(upto)));
            }
            Control::Diverged { tick, heal } => {
                // One export at a time, however often the host asks.
                let exports = |todo: &Todo| matches!(todo, Todo::Export(_, _));
                if core.todo.iter().any(exports) {
                    return Err(DropReason::Unexpected);
                }
                core.statistics.desyncs += 1;
                self.diverged = Some((Tick::new(tick), Vec::new()));
                self.healing = heal && self.heal;
                core.todo
                    .push_back(Todo::Export(Tick::new(tick), ExportFor::Report));
            }
            Control::Difference(line) => {
                let Some((_, lines)) = &mut self.diverged else {
                    return Ok(());
                };
                if lines.len() < 64 {
                    lines.push(line);
                }
            }
            Control::Ready
            | Control::Transfer {
                purpose: Purpose::Report,
                ..
            } => {
                return Err(DropReason::Unexpected);
            }
        }
        Ok(())
    }

    fn activate(&mut self, core: &mut Core, now: Time, from: Tick) -> Result<(), DropReason> {
        let slot = self.peer.slot.ok_or(DropReason::Unexpected)?;
        let near = from <= core.clock.tick().max(core.known.newest(slot)).plus(10_000);
        if self.active_from.is_some() || from == Tick::ZERO || !near {
            return Err(DropReason::Unexpected);
        }
        self.active_from = Some(from);
        core.submitted.start(slot, from.previous());
        self.exchange.offer(slot, from.previous());
        let rtt_us = self.peer.rtt.smoothed_us().unwrap_or(100_000);
        let jitter_us = 2 * self.peer.rtt.deviation_us();
        let ticks = |us| core.rate.ticks_in_us_ceil(us);
        if self.waits {
            let way_us = if core.roster.players() > 2 {
                rtt_us
            } else {
                rtt_us / 2
            };
            let ahead = core.timeline.prediction();
            self.delay
                .guess((ticks(way_us + jitter_us) + 1).saturating_sub(ahead));
            core.prefill(
                slot,
                core.clock
                    .tick()
                    .plus(self.delay.ticks())
                    .min(from.plus(64)),
            );
        } else {
            self.delay.guess(ticks(rtt_us + jitter_us) + 2);
        }
        core.report(Event::Activated { tick: from });
        self.advance(core, now);
        Ok(())
    }

    // ---- time ----

    /// Begins to run ticks as soon as it is known when they are due.
    fn try_run(&mut self, core: &mut Core, now: Time) {
        if self.running || self.needs_state || self.state.is_some() {
            return;
        }
        let (Some(at_us), Some(ahead_us)) = (self.start_at_us, self.peer.clock_offset_us) else {
            return;
        };
        let to_local = |us: u64| {
            let local = i64::try_from(us)
                .unwrap_or(i64::MAX)
                .saturating_sub(ahead_us);
            Time::from_micros(u64::try_from(local).unwrap_or(0))
        };
        if core.timeline.simulated() == Tick::ZERO && core.clock.tick() == Tick::ZERO {
            let trip_us = self.peer.rtt.min_us().unwrap_or(0);
            let first = to_local(at_us);
            let wait_us = if self.waits {
                0
            } else {
                trip_us / 2 + core.rate.tick_us() / 4
            };
            let ahead_us = u64::from(self.ahead(core.timeline.prediction())) * core.rate.tick_us();
            let tick_us = core.rate.tick_us();
            let zero = first
                .micros()
                .saturating_add(wait_us)
                .saturating_sub(tick_us + ahead_us);
            core.clock.jump(Tick::ZERO, Time::from_micros(zero));
            core.report(Event::Started);
        } else if let Some(offset) = self.target(core) {
            let elapsed = now.micros_from(Time::ZERO).saturating_sub(offset);
            let ticks = u64::try_from(elapsed).unwrap_or(0);
            let ticks = ticks.saturating_mul(u64::from(core.rate.hz())) / 1_000_000;
            let tick = Tick::new(u32::try_from(ticks).unwrap_or(u32::MAX));
            // Whoever is further behind than history reaches cannot catch up; and no host may make
            // this node ask for inputs without end.
            let settled = core.timeline.settled();
            let latest = settled.plus(INPUT_HISTORY_TICKS_MAX);
            core.clock.jump(tick.clamp(settled, latest), now);
            core.clock.steer(offset);
        } else {
            return;
        }
        self.running = true;
    }

    /// Where the clock should be, as an offset of its tick 0.
    fn target(&self, core: &Core) -> Option<i64> {
        if self.waits {
            // The host's own ticks: everyone runs the same tick at the same time.
            let zero_us = i64::try_from(self.peer.zero_us?).ok()?;
            return Some(zero_us.saturating_sub(self.peer.clock_offset_us?));
        }
        // The latest of the last four seconds: a jitter buffer as deep as the losses were long.
        let arrival = self.arrivals.max()?;
        let ahead = self.ahead(core.timeline.prediction());
        let ahead_us = i64::try_from(u64::from(ahead) * core.rate.tick_us()).unwrap_or(0);
        Some(arrival + FRAME_MARGIN_US - ahead_us)
    }

    fn steer(&self, core: &mut Core) {
        if self.running
            && (self.waits || self.arrivals.len() >= 8)
            && let Some(offset) = self.target(core)
        {
            core.clock.steer(offset);
        }
    }

    /// Ticks of the lead that prediction covers; input delay covers the rest.
    fn ahead(&self, prediction: u32) -> u32 {
        if self.waits {
            return 0;
        }
        let lead = self.delay.ticks();
        lead.saturating_sub(self.config.input_delay.min())
            .min(prediction)
    }

    pub(super) fn handle_timeout(&mut self, core: &mut Core, now: Time) {
        match &mut self.phase {
            Phase::Asking { since, next_at } => {
                let never_inside = self.resume.is_none();
                let limit_us = if never_inside {
                    self.config.join_us
                } else {
                    self.config.resume_us
                };
                if now.micros_since(*since) > limit_us {
                    self.end(core, DisconnectReason::Silence);
                    if never_inside {
                        core.events.pop_back();
                        core.report(Event::NoAnswer);
                    }
                } else if *next_at <= now {
                    *next_at = now.plus_micros(HELLO_US);
                    let mut bytes = Vec::new();
                    handshake::write(kind::HELLO, &self.hello, &mut bytes);
                    self.outgoing.push_back(bytes);
                }
            }
            Phase::Inside => {
                if now.micros_since(self.peer.heard_at) > self.config.silence_us {
                    // The host may keep the slot: ask it.
                    self.rejoin(core, now, self.path);
                    return;
                }
                self.try_run(core, now);
                self.advance(core, now);
                self.answer_hashes(core);
                self.say_farewell(core, now);
            }
            Phase::Over => {}
        }
    }

    /// The path is closed. The driver may open another one and call [`Client::rejoin`].
    pub(super) fn handle_path_closed(&mut self, core: &mut Core, path: Path) {
        if path == self.path {
            let was_inside = self.phase == Phase::Inside;
            self.end(core, DisconnectReason::PathClosed);
            if !was_inside && self.resume.is_none() {
                core.events.pop_back();
                core.report(Event::NoAnswer);
            }
        }
    }

    /// Runs what may run.
    pub(super) fn advance(&mut self, core: &mut Core, now: Time) {
        if self.phase == Phase::Inside && self.running {
            if self.waits {
                self.advance_waiting(core, now);
            } else {
                self.advance_paced(core, now);
            }
            self.take_state(core);
            self.say_ready(core);
            if core.is_over() && self.ended_at.is_none() && self.state.is_none() {
                self.ended_at = Some(now);
                let tick = core.timeline.settled();
                core.report(Event::Ended { tick });
            }
        } else if self.phase == Phase::Inside {
            self.say_ready(core);
        }
    }

    fn advance_paced(&mut self, core: &mut Core, now: Time) {
        let own = self.peer.slot;
        // The host's ticks went on: those that nobody ran here are made up for without inputs.
        core.clock.skip(now, CATCH_UP_US_MAX);
        while core.awaited.is_none() && core.clock.is_due(now) {
            let tick = core.clock.tick().next();
            if self.asks_for_input(core, tick.plus(self.input_delay())) {
                return;
            }
            core.clock.advance();
            core.transmitted_at = now;
            self.due = true;
            self.run(core, now, self.config.catch_up_ticks.max(1));
            let confirmed = self.confirmed(core);
            let late = core.timeline.simulated() < tick && core.is_within(tick);
            if late && !core.timeline.may_step(confirmed) && self.stalled_at < tick {
                self.stalled_at = tick;
                let first = core.stalled_since.is_none();
                core.stall(now, now);
                if first {
                    core.report(Event::Stalled {
                        tick: confirmed.next(),
                        slots: 0,
                    });
                }
            }
        }
        let confirmed = self.confirmed(core);
        core.settle(confirmed, own);
        if core.stalled_since.is_some() {
            self.run(core, now, self.config.catch_up_ticks.max(1));
        }
    }

    /// Runs ticks up to the clock's, at most `budget`.
    fn run(&mut self, core: &mut Core, now: Time, budget: u32) {
        let own = self.peer.slot;
        let confirmed = self.confirmed(core);
        core.settle(confirmed, own);
        for _ in 0..budget {
            let tick = core.timeline.simulated().next();
            if tick > core.clock.tick()
                || !core.is_within(tick)
                || !core.timeline.may_step(confirmed)
            {
                break;
            }
            core.step(confirmed, own);
        }
        if core.timeline.simulated() >= core.clock.tick()
            && let Some(since) = core.stalled_since
        {
            core.unstall(now);
            core.report(Event::Resumed {
                stalled_us: now.micros_since(since),
            });
        }
    }

    fn advance_waiting(&mut self, core: &mut Core, now: Time) {
        let own = self.peer.slot;
        let mut budget = self.config.catch_up_ticks.max(1);
        while core.awaited.is_none() && core.clock.is_due(now) && budget > 0 {
            let tick = core.clock.tick().next();
            if !core.is_within(tick) {
                break;
            }
            if self.asks_for_input(core, tick.plus(self.delay.ticks())) {
                return;
            }
            let confirmed = self.confirmed(core);
            let last = self.final_tick(core);
            core.settle(last, own);
            // Behind the clock after a join: the ticks in between run first.
            while core.timeline.simulated() < core.clock.tick()
                && core.timeline.may_step(confirmed)
                && budget > 0
            {
                core.step(last, own);
                budget -= 1;
            }
            let is_behind = core.timeline.simulated() < core.clock.tick();
            if is_behind || !core.timeline.may_step(confirmed) {
                let due = core.clock.next_due();
                if core.stalled_since.is_none() && !is_behind {
                    let slots = core
                        .slots()
                        .filter(|&slot| core.known.newest(slot) < tick && Some(slot) != own)
                        .fold(0, |mask, slot| mask | slot.bit());
                    core.report(Event::Stalled { tick, slots });
                }
                core.stall(now, due);
                return;
            }
            if let Some(since) = core.stalled_since {
                core.unstall(now);
                core.clock.hold(now);
                let stalled_us = now.micros_since(since);
                core.report(Event::Resumed { stalled_us });
            }
            core.step(last, own);
            core.clock.advance();
            core.transmitted_at = now;
            self.due = true;
            budget = budget.saturating_sub(1);
        }
        let last = self.final_tick(core);
        core.settle(last, own);
    }

    fn asks_for_input(&self, core: &mut Core, tick: Tick) -> bool {
        let (Some(slot), Some(from)) = (self.peer.slot, self.active_from) else {
            return false;
        };
        let tick = core.last_tick.map_or(tick, |last| tick.min(last));
        // Far behind, as after a pause: what acts on that tick is known, so nobody is asked.
        let is_settled = !self.waits && core.known.newest(slot) >= tick;
        if core.submitted.newest(slot) >= tick || tick < from || is_settled {
            return false;
        }
        core.awaited = Some(tick);
        core.todo.push_back(Todo::Sample(tick));
        true
    }

    /// The tick up to which all inputs are final.
    fn final_tick(&self, core: &Core) -> Tick {
        core.slots()
            .map(|slot| core.known.newest(slot))
            .min()
            .unwrap_or(Tick::ZERO)
    }

    /// The tick up to which all inputs are final, or this node's own.
    fn confirmed(&self, core: &Core) -> Tick {
        let own = self
            .peer
            .slot
            .filter(|_| self.waits && self.active_from.is_some());
        core.slots()
            .map(|slot| {
                let known = core.known.newest(slot);
                // Where all wait for all, nobody replaces what this node has submitted.
                if Some(slot) == own {
                    known.max(core.submitted.newest(slot))
                } else {
                    known
                }
            })
            .min()
            .unwrap_or(Tick::ZERO)
    }

    /// The tick up to which the inputs of the others are known.
    fn confirmed_by_others(&self, core: &Core) -> Tick {
        let others = core
            .slots()
            .filter(|&slot| !self.waits || Some(slot) != self.peer.slot);
        others
            .map(|slot| core.known.newest(slot))
            .min()
            .unwrap_or(Tick::ZERO)
    }

    fn say_ready(&mut self, core: &Core) {
        if self.said_ready || self.needs_state || self.peer.slot.is_none() {
            return;
        }
        let behind = core.clock.tick().since(core.timeline.simulated());
        if core.timeline.simulated() == Tick::ZERO || self.running && behind <= CAUGHT_UP_TICKS {
            self.said_ready = true;
            self.tell(&Control::Ready);
        }
    }

    fn tell(&mut self, control: &Control) {
        // A full outbox means a host that acks nothing; silence ends it soon.
        let _full = self.peer.outbox.push(control.to_bytes());
    }

    // ---- desync ----

    /// A hash is known: it goes to the host if it is one of those that are compared.
    pub(super) fn own_hash(&mut self, core: &Core, tick: Tick, hash: u64) {
        if core.hashes.is_compared(tick) && !self.healing {
            self.peer.hash_due = Some(fold(tick, hash));
        }
        self.answer_hashes(core);
    }

    fn answer_hashes(&mut self, core: &Core) {
        let Some((after, upto)) = self.hashes_wanted else {
            return;
        };
        if core.todo.iter().any(|todo| matches!(todo, Todo::Hash(_))) {
            return;
        }
        self.hashes_wanted = None;
        let ticks = after.number() + 1..=upto.number();
        let hashes = ticks
            .map(Tick::new)
            .map(|tick| core.hashes.at(tick).map_or(0, |hash| fold(tick, hash).hash))
            .collect();
        let (after, upto) = (after.number(), upto.number());
        self.tell(&Control::Hashes {
            after,
            upto,
            hashes,
        });
    }

    /// The state that the host wants to compare is there, or known no more.
    pub(super) fn give_report(&mut self, tick: Tick, bytes: Option<Vec<u8>>) {
        let bytes: Arc<[u8]> = bytes.unwrap_or_default().into();
        let id = first_transfer(self.hello.nonce);
        self.tell(&Control::Transfer {
            id,
            purpose: Purpose::Report,
            tick: tick.number(),
            bytes: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
            digest: crate::hash::digest(&bytes),
        });
        self.report = BulkSender::new(id, bytes, BulkConfig::default()).ok();
    }

    /// Reports a divergence that the host has described, once its lines are complete.
    pub(super) fn poll_report(&mut self, core: &mut Core) {
        if !self.healing
            && let Some((tick, differences)) = self.diverged.take_if(|(_, lines)| !lines.is_empty())
        {
            let member = core.info.member;
            core.report(Event::Desync(DesyncReport {
                tick,
                member,
                differences,
            }));
        }
    }

    // ---- sending ----

    fn say_farewell(&mut self, core: &mut Core, now: Time) {
        let Some(at) = self.ended_at else { return };
        let after = now.micros_since(at);
        let last = core.timeline.settled();
        let is_heard = self.exchange.is_all_known(last, &core.submitted);
        let is_patient = after > FAREWELL_TICKS * core.rate.tick_us();
        if is_patient && is_heard && self.peer.outbox.is_idle() || after > FAREWELL_US {
            self.say_bye(core, ByeReason::Ended);
            self.end(core, DisconnectReason::Bye(ByeReason::Ended));
        }
    }

    pub(super) fn poll_transmit(
        &mut self,
        core: &mut Core,
        now: Time,
        out: &mut Vec<u8>,
    ) -> Option<Path> {
        if let Some(bytes) = self.outgoing.pop_front() {
            out.extend_from_slice(&bytes);
            return Some(self.path);
        }
        if self.phase != Phase::Inside {
            return None;
        }
        if now.micros_since(core.transmitted_at) >= self.pause_us(core) {
            core.transmitted_at = now;
            self.due = true;
        }
        if core::mem::take(&mut self.due) {
            self.write(core, now, out);
            return Some(self.path);
        }
        if let Some((_, receiver)) = &mut self.receiver {
            out.push(kind::BULK_ACK);
            if receiver.write_ack(now, out) {
                return Some(self.path);
            }
            out.clear();
        }
        if let Some(report) = &mut self.report {
            out.push(kind::BULK);
            if report.next_chunk(now, out) {
                return Some(self.path);
            }
            out.clear();
        }
        None
    }

    fn write(&mut self, core: &mut Core, now: Time, out: &mut Vec<u8>) {
        let slot = self.peer.slot.filter(|_| self.active_from.is_some());
        let newest = slot.map(|slot| core.submitted.newest(slot));
        let reference = newest.unwrap_or_default();
        let shape = Shape {
            reference,
            uneven: false,
            own: None,
        };
        let exchange = &mut self.exchange;
        let mut is_forgotten = false;
        self.peer.pack(
            now,
            core.clock.due(Tick::ZERO),
            newest,
            |seq, room, out| {
                let result = exchange.write(seq, shape, &core.submitted, &core.known, room, out);
                is_forgotten = result.is_err();
            },
            out,
        );
        core.statistics.datagrams_sent += 1;
        core.statistics.bytes_sent += out.len() as u64;
        if is_forgotten {
            self.rejoin(core, now, self.path);
        }
    }

    fn pause_us(&self, core: &Core) -> u64 {
        let tick_us = core.rate.tick_us();
        if !self.running || self.ended_at.is_some() {
            tick_us
        } else {
            tick_us + tick_us / 2
        }
    }

    pub(super) fn poll_timeout(&self, core: &Core) -> Time {
        match &self.phase {
            Phase::Asking { next_at, .. } => *next_at,
            Phase::Over => Time::FAR,
            Phase::Inside => {
                let mut next = core.transmitted_at.plus_micros(self.pause_us(core));
                let held = self.waits && core.stalled_since.is_some();
                if self.running && core.awaited.is_none() && !held {
                    let over = self.waits && !core.is_within(core.clock.tick().next());
                    if !over {
                        next = next.min(core.clock.next_due());
                    }
                }
                if let Some(at) = self.report.as_ref().and_then(BulkSender::next_time) {
                    next = next.min(at);
                }
                if let Some((_, receiver)) = &self.receiver
                    && let Some(at) = receiver.next_ack_time()
                {
                    next = next.min(at);
                }
                next
            }
        }
    }
}

/// The lead is steered within these limits: what prediction covers, and the input delay.
fn lead_limits(config: &JoinConfig) -> InputDelay {
    let delay = config.input_delay;
    InputDelay::Adaptive {
        min: delay.min(),
        max: delay.max() + config.prediction_ticks,
    }
}

fn session_low(core: &Core) -> u64 {
    u64::try_from(core.info.session.0 & u128::from(u64::MAX)).unwrap_or(0)
}
