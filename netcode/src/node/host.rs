//! The host's side of a session: who takes part, and whose inputs act on which tick.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::hash::keyed;
use crate::id::{MemberId, Path, SessionId, Slot, Term};
use crate::limits::{ANSWERS_MAX, INPUT_HISTORY_TICKS_MAX, MEMBERS_MAX};
use crate::lockstep::{DelayControl, Exchange, Shape};
use crate::node::api::{Event, SessionInfo};
use crate::node::core::{Core, ExportFor, Todo};
use crate::node::doctor::Doctor;
use crate::node::seat::{Holder, Seat, Source};
use crate::session::bulk::{BulkConfig, BulkSender};
use crate::session::config::{Gate, HostConfig, Role, Start};
use crate::session::control::{Control, Purpose};
use crate::session::handshake::{
    self, Bye, ByeReason, Hello, Refusal, Refuse, SchemaPart, Welcome,
};
use crate::session::peer::Peer;
use crate::session::roster::{Member, MemberRecord};
use crate::session::statistics::DropReason;
use crate::tick::Tick;
use crate::time::Time;
use crate::wire::header::{TagKey, kind};

/// Bytes of schema in one part of a refusal.
const SCHEMA_PART_BYTES: usize = 900;
/// Parts of a schema that are sent for one Hello, at most.
const SCHEMA_PARTS_MAX: usize = 32;
/// Parts that one Hello gets: it is small, and the answer shall not be hundreds of times its size.
const SCHEMA_PARTS_AT_ONCE: u32 = 4;
/// Times that a goodbye is said: it is not acked.
const BYE_COPIES: u8 = 3;
/// Ticks by which absences are settled ahead of time, where everyone waits for everyone.
const ABSENCE_TICKS: u32 = 16;
/// Microseconds that the start waits for round trips to be measured.
const MEASURING_US: u64 = 2_000_000;
/// Microseconds from the last player's arrival to the first tick, at least.
const START_LEAD_US: u64 = 300_000;
/// Microseconds between two exports of the state for members that join.
const EXPORT_US: u64 = 100_000;
/// Microseconds after the last tick in which members fetch what they lack.
const FAREWELL_US: u64 = 5_000_000;

/// A member behind a path.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) peer: Peer,
    pub(super) exchange: Exchange,
    nonce: u64,
    welcome: Vec<u8>,
    role: Role,
    /// Ticks by which its frames are held back.
    behind: u32,
    due: bool,
    /// It needs the state of some tick; the transfer begins when that is exported.
    pub(super) wants_state: bool,
    /// When the state may be sent, to members that watch with a delay.
    state_not_before: Tick,
    pub(super) transfer: Option<BulkSender>,
    transfers: u16,
    is_too_far_behind: bool,
}

/// The host's side of a session.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) config: HostConfig,
    pub(super) guests: BTreeMap<Path, Guest>,
    pub(super) doctor: Doctor,
    seats: Vec<Seat>,
    own_slot: Option<Slot>,
    delay: DelayControl,
    next_member: u16,
    start_at: Option<Time>,
    /// Since when all players are there that the start waits for.
    complete_since: Option<Time>,
    started: bool,
    manual_start: bool,
    exported_at: Option<Time>,
    ended_at: Option<Time>,
    outgoing: VecDeque<(Path, Vec<u8>)>,
    schema_parts: Vec<Vec<u8>>,
    /// Paths that the driver should close.
    pub(super) closing: VecDeque<Path>,
    leaving: bool,
}

impl Host {
    pub(super) fn new(config: HostConfig, now: Time) -> (Self, Core) {
        let session = SessionId(
            u128::from(keyed(config.secret, b"session 0")) << 64
                | u128::from(keyed(config.secret, b"session 1")),
        );
        let own_slot = config.plays.then_some(Slot(0));
        let info = SessionInfo {
            session,
            term: Term(1),
            member: MemberId::FIRST_HOST,
            slot: own_slot,
            slots: config.slots,
            seed: config.seed,
            input_bytes: config.game.input_bytes,
            tick_rate: config.game.tick_rate,
            images: config.desync.images,
            desync_interval: config.desync.interval_ticks,
        };
        let prediction = match config.gate {
            Gate::Wait { .. } => config.prediction_ticks,
            Gate::Paced => 0,
        };
        let mut core = Core::new(info, prediction, now);
        core.begin_after(Tick::ZERO);
        core.last_tick = config.last_tick;
        core.todo.push_back(Todo::Begin);
        if core.info.images > 0 {
            core.todo.push_back(Todo::Capture(Tick::ZERO));
        }
        let role = if config.plays {
            Role::Player
        } else {
            Role::DedicatedHost
        };
        core.roster.set(Member {
            id: MemberId::FIRST_HOST,
            role,
            slot: own_slot,
            name: config.name.clone(),
            connected: true,
        });
        let mut seats = vec![Seat::default(); usize::from(config.slots)];
        if let Some(slot) = own_slot {
            seats[slot.index()].holder = Some(Holder {
                member: MemberId::FIRST_HOST,
                resume: 0,
                path: None,
                from: None,
                inputs_from: Tick::ZERO,
                lost_at: None,
                replaced: 0,
            });
        }
        let host = Self {
            guests: BTreeMap::new(),
            doctor: Doctor::default(),
            seats,
            own_slot,
            delay: DelayControl::new(config.input_delay),
            next_member: 1,
            start_at: None,
            complete_since: None,
            started: false,
            manual_start: false,
            exported_at: None,
            ended_at: None,
            outgoing: VecDeque::new(),
            schema_parts: Vec::new(),
            closing: VecDeque::new(),
            leaving: false,
            config,
        };
        (host, core)
    }

    pub(super) fn own_slot(&self) -> Option<Slot> {
        self.own_slot
    }

    pub(super) fn input_delay(&self) -> u32 {
        if self.is_paced() {
            0
        } else {
            self.delay.ticks()
        }
    }

    /// A path that the link should close, once what was to be said over it is said.
    pub(super) fn poll_close(&mut self) -> Option<Path> {
        let path = *self.closing.front()?;
        if self.outgoing.iter().any(|(to, _)| *to == path) {
            return None;
        }
        self.closing.pop_front()
    }

    pub(super) fn end_at(&mut self, core: &mut Core, tick: Tick) {
        let newest = core
            .slots()
            .map(|slot| core.known.newest(slot))
            .max()
            .unwrap_or_default();
        // Others hear of it a round trip later, when they may be that much further.
        let trips = self
            .guests
            .values()
            .filter_map(|guest| guest.peer.rtt.smoothed_us());
        let lead = core
            .rate
            .ticks_in_us_ceil(2 * trips.max().unwrap_or(0) + 300_000);
        let last = tick.max(newest.plus(lead));
        core.last_tick = Some(core.last_tick.map_or(last, |known| known.min(last)));
        if let Some(last) = core.last_tick {
            for guest in self.guests.values_mut() {
                guest.tell(&Control::LastTick(last.number()));
            }
        }
    }

    pub(super) fn start(&mut self) {
        self.manual_start = true;
    }

    pub(super) fn is_over(&self, core: &Core) -> bool {
        self.leaving && self.outgoing.is_empty() || core.is_over() && self.guests.is_empty()
    }

    fn is_paced(&self) -> bool {
        self.config.gate == Gate::Paced
    }

    // ---- arrivals ----

    pub(super) fn handle_datagram(&mut self, core: &mut Core, now: Time, path: Path, bytes: &[u8]) {
        let result = match bytes.first() {
            Some(&kind::HELLO) => self.handle_hello(core, now, path, &bytes[1..]),
            Some(&kind::BYE) => self.handle_bye(core, path, &bytes[1..]),
            Some(&kind::BULK) => self.handle_bulk(core, now, path, &bytes[1..]),
            Some(&kind::BULK_ACK) => self.handle_bulk_ack(now, path, &bytes[1..]),
            Some(_) => self.handle_tick(core, now, path, bytes),
            None => Err(DropReason::Malformed),
        };
        match result {
            Ok(()) => {
                core.statistics.datagrams_received += 1;
                core.statistics.bytes_received += bytes.len() as u64;
            }
            Err(reason) => {
                core.statistics.drops.count(reason);
                if let Some(guest) = self.guests.get_mut(&path) {
                    guest.peer.statistics.drops.count(reason);
                }
            }
        }
    }

    fn handle_hello(
        &mut self,
        core: &mut Core,
        now: Time,
        path: Path,
        body: &[u8],
    ) -> Result<(), DropReason> {
        let hello: Hello = handshake::read(body).map_err(|_error| DropReason::Malformed)?;
        if let Some(guest) = self.guests.get(&path)
            && guest.nonce == hello.nonce
        {
            if self.outgoing.len() < ANSWERS_MAX {
                self.outgoing.push_back((path, guest.welcome.clone()));
            }
            return Ok(());
        }
        match self.admit(core, now, path, &hello) {
            Ok(()) => {}
            Err(Refusal::Schema { host, .. }) => self.refuse_schema(path, &hello, host),
            Err(refusal) => {
                self.answer(
                    path,
                    kind::REFUSE,
                    &Refuse {
                        nonce: hello.nonce,
                        refusal,
                    },
                );
            }
        }
        Ok(())
    }

    fn refuse_schema(&mut self, path: Path, hello: &Hello, host: u64) {
        if self.schema_parts.is_empty() {
            let (mut schema, mut block) = (Vec::new(), Vec::new());
            self.config.game.schema.encode(&mut schema);
            crate::wire::compress::compress(&schema, &mut block);
            self.schema_parts = block
                .chunks(SCHEMA_PART_BYTES)
                .take(SCHEMA_PARTS_MAX)
                .map(<[u8]>::to_vec)
                .collect();
        }
        let parts = u8::try_from(self.schema_parts.len()).unwrap_or(u8::MAX);
        let refusal = Refusal::Schema { host, parts };
        self.answer(
            path,
            kind::REFUSE,
            &Refuse {
                nonce: hello.nonce,
                refusal,
            },
        );
        let mut sent = 0;
        for part in 0..parts {
            if hello.schema_parts_wanted & (1 << part) != 0 && sent < SCHEMA_PARTS_AT_ONCE {
                sent += 1;
                let bytes = self.schema_parts[usize::from(part)].clone();
                let part = SchemaPart {
                    nonce: hello.nonce,
                    part,
                    bytes,
                };
                self.answer(path, kind::SCHEMA_PART, &part);
            }
        }
    }

    fn answer<T: crate::wire::codec::Encode>(&mut self, path: Path, kind: u8, body: &T) {
        // A flood of requests meets a full queue; whoever is serious asks again.
        if self.outgoing.len() < ANSWERS_MAX {
            let mut bytes = Vec::new();
            handshake::write(kind, body, &mut bytes);
            self.outgoing.push_back((path, bytes));
        }
    }

    /// Lets a client in, or says why not.
    fn admit(
        &mut self,
        core: &mut Core,
        now: Time,
        path: Path,
        hello: &Hello,
    ) -> Result<(), Refusal> {
        let protocol = hello.compare(&self.config.game)?;
        if core.is_over() || self.leaving {
            return Err(Refusal::Ended);
        }
        let resumes = self.seat_to_resume(hello);
        let slot = if hello.spectator {
            None
        } else {
            Some(resumes.or(self.free_slot()))
        };
        let slot = match slot {
            None => {
                let watching = self
                    .guests
                    .values()
                    .filter(|guest| guest.role == Role::Spectator);
                let limit = self.config.spectators;
                if watching.count() >= usize::from(limit) {
                    return Err(Refusal::SpectatorsFull { limit });
                }
                None
            }
            Some(None) => {
                return Err(Refusal::Full {
                    slots: self.config.slots,
                });
            }
            Some(slot) => slot,
        };
        if self.guests.len() >= MEMBERS_MAX {
            return Err(Refusal::Full {
                slots: self.config.slots,
            });
        }
        // Whoever was on this path before is another attempt.
        if self.guests.contains_key(&path) {
            self.lose(core, now, path);
            // The path goes on, with the new attempt.
            self.closing.retain(|closing| *closing != path);
        }
        let holder = slot.and_then(|slot| self.seats[slot.index()].holder.clone());
        let member = match holder {
            Some(holder) => {
                if let Some(old) = holder.path {
                    self.say_bye(core, old, ByeReason::Replaced);
                    self.guests.remove(&old);
                    self.doctor.forget(old);
                }
                holder.member
            }
            None => {
                // After 65 535 joins numbers come again, but never one that is in use.
                while core.roster.member(MemberId(self.next_member)).is_some() {
                    self.next_member = self.next_member.wrapping_add(1);
                }
                let member = MemberId(self.next_member);
                self.next_member = self.next_member.wrapping_add(1);
                member
            }
        };
        self.welcome(core, now, path, hello, protocol, member, slot);
        Ok(())
    }

    fn seat_to_resume(&self, hello: &Hello) -> Option<Slot> {
        let is_its = |seat: &Seat| {
            seat.holder
                .as_ref()
                .is_some_and(|h| h.resume == hello.resume && h.resume != 0)
        };
        let index = self.seats.iter().position(is_its)?;
        u8::try_from(index).ok().map(Slot)
    }

    fn free_slot(&self) -> Option<Slot> {
        let index = self.seats.iter().position(|seat| seat.holder.is_none())?;
        u8::try_from(index).ok().map(Slot)
    }

    #[expect(clippy::too_many_arguments, reason = "all of them make up the welcome")]
    fn welcome(
        &mut self,
        core: &mut Core,
        now: Time,
        path: Path,
        hello: &Hello,
        protocol: u16,
        member: MemberId,
        slot: Option<Slot>,
    ) {
        let mut proof = b"resume".to_vec();
        proof.extend_from_slice(&member.0.to_le_bytes());
        proof.extend_from_slice(&hello.nonce.to_le_bytes());
        proof.extend_from_slice(&u64::from(path.0).to_le_bytes());
        let resume = keyed(self.config.secret, &proof).max(1);
        let confirmed = Tick::new(hello.confirmed);
        let settled = core.timeline.settled();
        let holds_frames = confirmed <= settled
            && core
                .slots()
                .all(|slot| core.known.oldest(slot) <= confirmed)
            && settled.since(confirmed) < INPUT_HISTORY_TICKS_MAX / 2;
        let resumed = hello.resume != 0 && slot.is_some() && hello.confirmed > 0 && holds_frames;
        let from = if resumed { confirmed } else { settled };
        let role = if slot.is_some() {
            Role::Player
        } else {
            Role::Spectator
        };
        let body = Welcome {
            nonce: hello.nonce,
            protocol,
            session: core.info.session.0,
            term: core.info.term.0,
            member: member.0,
            slot: slot.map_or(u8::MAX, |slot| slot.0),
            slots: core.info.slots,
            seed: core.info.seed,
            gate: u8::from(!self.is_paced()),
            desync_interval: core.info.desync_interval,
            images: core.info.images,
            heal: self.config.desync.heal,
            resume,
            from: from.number(),
            resumed,
        };
        let mut welcome = Vec::new();
        handshake::write(kind::WELCOME, &body, &mut welcome);
        self.outgoing.push_back((path, welcome.clone()));

        let key = TagKey::new(core.info.session, core.info.term, hello.nonce);
        let mut peer = Peer::new(path, member, key, core.rate, now);
        peer.slot = slot;
        let (slots, input_bytes) = (core.info.slots, core.info.input_bytes);
        let all = core.slots().fold(0, |mask, slot| mask | slot.bit());
        let behind = if slot.is_none() {
            self.config.spectator_delay_ticks
        } else {
            0
        };
        let wants_state = from > Tick::ZERO && !resumed;
        let mut guest = Guest {
            peer,
            exchange: Exchange::new(slots, input_bytes, all, 0, from),
            nonce: hello.nonce,
            welcome,
            role,
            behind,
            due: true,
            wants_state,
            state_not_before: from.plus(behind),
            transfer: None,
            transfers: first_transfer(hello.nonce),
            is_too_far_behind: false,
        };
        for other in core.roster.members() {
            guest.tell(&Control::Member(MemberRecord::from(other)));
        }
        if let Some(at) = self.start_at {
            guest.tell(&Control::Start(at.micros()));
        }
        if let Some(last) = core.last_tick {
            guest.tell(&Control::LastTick(last.number()));
        }
        self.guests.insert(path, guest);
        if let Some(slot) = slot {
            let held = self.seats[slot.index()].holder.take();
            self.seats[slot.index()].holder = Some(Holder {
                member,
                resume,
                path: Some(path),
                // Where all wait for all, a member that was away is absent until it is back.
                from: held.and_then(|held| held.from).filter(|_| self.is_paced()),
                inputs_from: Tick::MAX,
                lost_at: None,
                replaced: 0,
            });
        }
        let joined = Member {
            id: member,
            role,
            slot,
            name: hello.name.clone(),
            connected: true,
        };
        self.set_member(core, joined);
        self.export_if_due(core, now);
    }

    /// Makes a member known to all.
    fn set_member(&mut self, core: &mut Core, member: Member) {
        for guest in self.guests.values_mut() {
            guest.tell(&Control::Member(MemberRecord::from(&member)));
        }
        core.roster.set(member.clone());
        core.report(Event::Member(member));
    }

    /// Asks for the state, now or as soon as the last time is long enough ago: members that come
    /// and go shall not keep the host busy with exports.
    fn export_if_due(&mut self, core: &mut Core, now: Time) {
        let is_wanted = self.guests.values().any(|guest| guest.wants_state);
        let is_due = self
            .exported_at
            .is_none_or(|at| now.micros_since(at) >= EXPORT_US);
        if is_wanted && is_due {
            self.exported_at = Some(now);
            let tick = core.timeline.settled();
            core.todo.push_back(Todo::Export(tick, ExportFor::Join));
        }
    }

    /// The state at `tick` is there: it goes to those who wait for one.
    pub(super) fn give_state(&mut self, tick: Tick, bytes: &Arc<[u8]>) {
        for guest in self.guests.values_mut().filter(|guest| guest.wants_state) {
            guest.wants_state = false;
            guest.begin_transfer(Purpose::Join, tick, bytes);
        }
    }

    fn handle_bye(&mut self, core: &mut Core, path: Path, body: &[u8]) -> Result<(), DropReason> {
        let bye: Bye = handshake::read(body).map_err(|_error| DropReason::Malformed)?;
        if bye.session_low != session_low(core) {
            return Err(DropReason::Unexpected);
        }
        let Some(guest) = self.guests.remove(&path) else {
            return Err(DropReason::UnknownPath);
        };
        self.doctor.forget(path);
        self.closing.push_back(path);
        let reason = if bye.reason == ByeReason::Ended && core.is_over() {
            ByeReason::Ended
        } else {
            ByeReason::Left
        };
        self.depart(core, guest.peer.member, reason);
        Ok(())
    }

    fn handle_bulk_ack(&mut self, now: Time, path: Path, body: &[u8]) -> Result<(), DropReason> {
        let guest = self.guests.get_mut(&path).ok_or(DropReason::UnknownPath)?;
        let transfer = guest.transfer.as_mut().ok_or(DropReason::Unexpected)?;
        transfer
            .handle_ack(now, body)
            .map_err(|_error| DropReason::Malformed)?;
        guest.peer.heard_at = now;
        if transfer.is_complete() {
            guest.transfer = None;
        }
        Ok(())
    }

    fn handle_bulk(
        &mut self,
        core: &mut Core,
        now: Time,
        path: Path,
        body: &[u8],
    ) -> Result<(), DropReason> {
        let guest = self.guests.get_mut(&path).ok_or(DropReason::UnknownPath)?;
        guest.peer.heard_at = now;
        self.doctor.handle_chunk(now, path, body)?;
        self.doctor
            .handle_timeout(core, &self.config.game.schema, now);
        self.follow_doctor(core);
        Ok(())
    }

    fn handle_tick(
        &mut self,
        core: &mut Core,
        now: Time,
        path: Path,
        bytes: &[u8],
    ) -> Result<(), DropReason> {
        let paced = self.is_paced();
        let guest = self.guests.get_mut(&path).ok_or(DropReason::UnknownPath)?;
        let datagram = guest.peer.open(now, bytes)?;
        let mut grown = None;
        if let (Some(slot), Some(tick)) = (guest.peer.slot, datagram.tick)
            && guest.exchange.expects(slot)
        {
            let before = core.submitted.newest(slot);
            // No honest node is further ahead than the longest delay and a half second.
            let newest_max = core.clock.tick().plus(INPUT_HISTORY_TICKS_MAX / 4);
            let shape = Shape {
                reference: tick,
                uneven: false,
                own: None,
            };
            guest
                .exchange
                .read(
                    datagram.ack,
                    shape,
                    newest_max,
                    datagram.batch,
                    &mut core.submitted,
                )
                .map_err(|_error| DropReason::BadBatch)?;
            grown = Some((slot, before));
        } else if !datagram.batch.is_empty() {
            return Err(DropReason::Unexpected);
        }
        let mut controls = Vec::new();
        if let Some(control) = datagram.control {
            guest
                .peer
                .inbox
                .read(control, |message| {
                    controls.push(Control::from_bytes(message))
                })
                .map_err(|_error| DropReason::BadSection)?;
        }
        if let Some(messages) = datagram.messages {
            guest
                .peer
                .messages
                .handle(messages)
                .map_err(|_fault| DropReason::BadSection)?;
        }
        guest.peer.accept(now, &datagram);
        guest.peer.statistics.datagrams_received += 1;
        guest.peer.statistics.bytes_received += bytes.len() as u64;
        if let Some(ack) = datagram.acked
            && guest.exchange.on_ack(ack, &core.known).is_err()
        {
            guest.is_too_far_behind = true;
        }
        if let Some(margin) = datagram.clock.and_then(|clock| clock.margin) {
            let rtt_us = guest.peer.rtt.smoothed_us().unwrap_or(0);
            let spare = i16::try_from(16 * core.timeline.prediction()).unwrap_or(0);
            self.delay
                .report(now, core.rate, rtt_us, margin.saturating_add(spare));
        }
        let member = guest.peer.member;
        while core.has_room_for_messages()
            && let Some((channel, bytes)) = guest.peer.messages.receive()
        {
            core.report(Event::Message {
                from: member,
                channel,
                bytes,
            });
        }
        if let Some((slot, before)) = grown {
            self.measure_margins(core, now, path, slot, before);
            if !paced {
                self.adopt(core, slot);
            }
        }
        if let Some(hash) = datagram.hash {
            self.doctor.compare(core, &mut self.guests, path, hash);
        }
        for control in controls {
            match control {
                Ok(control) => self.handle_control(core, path, control)?,
                Err(_error) => return Err(DropReason::BadSection),
            }
        }
        self.advance(core, now);
        Ok(())
    }

    /// Notes how early new inputs are, and asks for a report when they are not.
    fn measure_margins(&mut self, core: &Core, now: Time, path: Path, slot: Slot, before: Tick) {
        // Where all wait for all, an input must also reach the farthest other client in time.
        let relay_us = if self.is_paced() {
            0
        } else {
            let others = self.guests.iter().filter(|(other, _)| **other != path);
            others
                .filter_map(|(_, guest)| guest.peer.rtt.min_us())
                .max()
                .unwrap_or(0)
                / 2
        };
        let Some(guest) = self.guests.get_mut(&path) else {
            return;
        };
        let newest = core.submitted.newest(slot);
        let first = before.number().max(newest.number().saturating_sub(16)) + 1;
        for number in first..=newest.number() {
            let due = core.clock.due(Tick::new(number));
            let margin_us = due.micros_from(now.plus_micros(relay_us));
            let margin =
                margin_us.saturating_mul(16) / i64::try_from(core.rate.tick_us()).unwrap_or(1);
            guest.peer.margins.push(margin);
            if margin < 4 {
                guest.peer.want_clock();
            }
        }
    }

    /// Where all wait for all, a received input is final.
    fn adopt(&self, core: &mut Core, slot: Slot) {
        let Some(holder) = &self.seats[slot.index()].holder else {
            return;
        };
        let Some(from) = holder.from else { return };
        let mut tick = core.known.newest(slot).next();
        while tick <= core.submitted.newest(slot) && tick >= from {
            core.known
                .push(slot, tick, core.submitted.get(slot, tick).bytes());
            tick = tick.next();
        }
    }

    fn handle_control(
        &mut self,
        core: &mut Core,
        path: Path,
        control: Control,
    ) -> Result<(), DropReason> {
        match control {
            Control::Ready => {
                if self.start_at.is_some() {
                    self.activate(core, path);
                }
                Ok(())
            }
            Control::Hashes {
                after,
                upto,
                hashes,
            } => {
                self.doctor
                    .take_hashes(core, &mut self.guests, path, after, upto, &hashes);
                Ok(())
            }
            Control::Transfer {
                id,
                purpose: Purpose::Report,
                tick,
                bytes,
                digest,
            } => self
                .doctor
                .expect_report(path, id, Tick::new(tick), bytes, digest),
            Control::Transfer {
                purpose: Purpose::Join,
                ..
            }
            | Control::Member(_)
            | Control::Gone(_)
            | Control::Start(_)
            | Control::LastTick(_)
            | Control::Activate(_)
            | Control::Diverged { .. }
            | Control::Difference(_) => Err(DropReason::Unexpected),
        }
    }

    /// Lets the slot of a member that has caught up take part.
    fn activate(&mut self, core: &mut Core, path: Path) {
        let Some(guest) = self.guests.get_mut(&path) else {
            return;
        };
        let Some(slot) = guest.peer.slot else { return };
        if guest.exchange.expects(slot) {
            return;
        }
        let Some(holder) = &mut self.seats[slot.index()].holder else {
            return;
        };
        // Late enough that the member hears of it in time, also when one datagram is lost.
        let rtt_us = guest.peer.rtt.smoothed_us().unwrap_or(200_000);
        let lead = core.rate.ticks_in_us_ceil(2 * rtt_us + 100_000);
        let at = core.clock.tick().max(core.known.newest(slot)).plus(lead);
        let first = if core.clock.tick() == Tick::ZERO {
            // Or as soon as its absence is not settled, where that was told ahead of time.
            core.known.newest(slot).next()
        } else {
            at
        };
        if holder.from.is_none() {
            holder.from = Some(first);
        }
        holder.inputs_from = first;
        guest.exchange.expect(slot, first.previous());
        core.submitted.start(slot, first.previous());
        guest.tell(&Control::Activate(first.number()));
    }

    // ---- departures ----

    pub(super) fn handle_path_closed(&mut self, core: &mut Core, now: Time, path: Path) {
        self.lose(core, now, path);
    }

    /// The link of a member is gone; its slot is kept for a while.
    fn lose(&mut self, core: &mut Core, now: Time, path: Path) {
        let Some(guest) = self.guests.remove(&path) else {
            return;
        };
        self.doctor.forget(path);
        self.closing.push_back(path);
        let member = guest.peer.member;
        let keeps = self.config.resume_us > 0 && !core.is_over();
        let seat = guest
            .peer
            .slot
            .and_then(|slot| self.seats[slot.index()].holder.as_mut());
        match seat {
            Some(holder) if keeps && self.started => {
                holder.lose(now, self.config.gate);
                if let Some(mut known) = core.roster.member(member).cloned() {
                    known.connected = false;
                    self.set_member(core, known);
                }
            }
            _ => self.depart(core, member, ByeReason::Left),
        }
    }

    /// A member is gone for good.
    fn depart(&mut self, core: &mut Core, member: MemberId, reason: ByeReason) {
        for seat in &mut self.seats {
            if seat
                .holder
                .as_ref()
                .is_some_and(|holder| holder.member == member)
            {
                seat.holder = None;
            }
        }
        for guest in self.guests.values_mut() {
            guest.tell(&Control::Gone(member.0));
        }
        if let Some(member) = core.roster.remove(member) {
            core.report(Event::Left { member, reason });
        }
    }

    fn say_bye(&mut self, core: &Core, path: Path, reason: ByeReason) {
        let bye = Bye {
            session_low: session_low(core),
            reason,
        };
        for _ in 0..BYE_COPIES {
            self.answer(path, kind::BYE, &bye);
        }
        self.closing.push_back(path);
    }

    pub(super) fn leave(&mut self, core: &Core) {
        let paths: Vec<Path> = self.guests.keys().copied().collect();
        for path in paths {
            self.say_bye(core, path, ByeReason::HostStops);
        }
        self.guests.clear();
        self.leaving = true;
    }

    // ---- time ----

    pub(super) fn handle_timeout(&mut self, core: &mut Core, now: Time) {
        self.watch_links(core, now);
        self.try_start(core, now);
        self.advance(core, now);
        self.doctor
            .handle_timeout(core, &self.config.game.schema, now);
        self.follow_doctor(core);
        self.export_if_due(core, now);
        self.say_farewell(core, now);
    }

    fn watch_links(&mut self, core: &mut Core, now: Time) {
        let silent: Vec<Path> = self
            .guests
            .iter()
            .filter(|(_, guest)| now.micros_since(guest.peer.heard_at) > self.config.silence_us)
            .map(|(path, _)| *path)
            .collect();
        for path in silent {
            self.lose(core, now, path);
        }
        let behind: Vec<Path> = self
            .guests
            .iter()
            .filter(|(_, guest)| guest.is_too_far_behind)
            .map(|(path, _)| *path)
            .collect();
        // It asks again, and gets a snapshot instead of frames that are known no more.
        for path in behind {
            self.say_bye(core, path, ByeReason::TooSlow);
            self.lose(core, now, path);
        }
        let resume_us = self.config.resume_us;
        let expired = |holder: &Holder| {
            holder
                .lost_at
                .is_some_and(|at| now.micros_since(at) > resume_us)
        };
        let gone: Vec<MemberId> = self
            .seats
            .iter()
            .filter_map(|seat| seat.holder.as_ref().filter(|holder| expired(holder)))
            .map(|holder| holder.member)
            .collect();
        for member in gone {
            self.depart(core, member, ByeReason::Left);
        }
    }

    fn try_start(&mut self, core: &mut Core, now: Time) {
        if self.started {
            return;
        }
        let Some(at) = self.start_at else {
            let is_complete = match self.config.start {
                Start::Players(players) => core.roster.players() >= usize::from(players),
                Start::Manual => self.manual_start,
            };
            if !is_complete {
                self.complete_since = None;
                return;
            }
            // Round trips should be known, so that everyone's first inputs are in time; but nobody
            // keeps the others from starting by staying silent.
            let since = *self.complete_since.get_or_insert(now);
            let measured = self
                .guests
                .values()
                .all(|guest| guest.peer.rtt.smoothed_us().is_some());
            if measured || now.micros_since(since) > MEASURING_US {
                let trips = self
                    .guests
                    .values()
                    .filter_map(|guest| guest.peer.rtt.smoothed_us());
                let lead = START_LEAD_US + 2 * trips.max().unwrap_or(0);
                let at = now.plus_micros(lead);
                self.start_at = Some(at);
                for guest in self.guests.values_mut() {
                    guest.tell(&Control::Start(at.micros()));
                }
                core.clock
                    .jump(Tick::ZERO, at_before(at, core.rate.tick_us()));
                self.begin(core);
            }
            return;
        };
        if at <= now {
            self.started = true;
            core.report(Event::Started);
        }
    }

    /// Lets everyone who is there play from the first tick on.
    fn begin(&mut self, core: &mut Core) {
        if let Some(slot) = self.own_slot {
            let seat = &mut self.seats[slot.index()];
            if let Some(holder) = &mut seat.holder {
                holder.from = Some(Tick::new(1));
                holder.inputs_from = Tick::new(1);
            }
            core.submitted.start(slot, Tick::ZERO);
            if !self.is_paced() {
                let trips = self
                    .guests
                    .values()
                    .filter_map(|guest| guest.peer.rtt.smoothed_us());
                let one_way = trips.max().unwrap_or(0) / 2;
                let ticks = core.rate.ticks_in_us_ceil(one_way) + 1;
                self.delay
                    .guess(ticks.saturating_sub(core.timeline.prediction()));
                core.prefill(slot, Tick::new(self.delay.ticks()));
            }
        }
        let paths: Vec<Path> = self.guests.keys().copied().collect();
        for path in paths {
            self.activate(core, path);
        }
        if !self.is_paced() {
            self.settle_absences(core, Tick::ZERO);
            core.slots().for_each(|slot| self.adopt(core, slot));
        }
    }

    /// Runs what may run.
    pub(super) fn advance(&mut self, core: &mut Core, now: Time) {
        match self.config.gate {
            Gate::Paced => self.advance_paced(core, now),
            Gate::Wait { .. } => self.advance_waiting(core, now),
        }
        if core.is_over() && self.ended_at.is_none() {
            self.ended_at = Some(now);
            let tick = core.timeline.settled();
            core.report(Event::Ended { tick });
        }
    }

    fn advance_paced(&mut self, core: &mut Core, now: Time) {
        if self.started {
            core.forgive(now);
        }
        while self.ticks_are_due(core, now) {
            let tick = core.clock.tick().next();
            if self.asks_for_input(core, tick) {
                return;
            }
            for slot in core.slots() {
                let seat = &mut self.seats[slot.index()];
                let policy = self.config.late_policy;
                let source = seat.finalize(slot, tick, policy, &core.submitted, &mut core.known);
                if source == Source::Replaced
                    && let Some(path) = seat.holder.as_ref().and_then(|holder| holder.path)
                    && let Some(guest) = self.guests.get_mut(&path)
                {
                    guest.peer.statistics.inputs_late += 1;
                    guest.peer.want_clock();
                }
            }
            core.step(tick, self.own_slot);
            self.tick_done(core, now);
        }
    }

    fn advance_waiting(&mut self, core: &mut Core, now: Time) {
        let own = self.own_slot;
        while self.ticks_are_due(core, now) {
            let tick = core.clock.tick().next();
            self.settle_absences(core, tick);
            if self.asks_for_input(core, tick.plus(self.delay.ticks())) {
                return;
            }
            for slot in core.slots() {
                self.adopt(core, slot);
            }
            let confirmed = self.confirmed(core);
            core.settle(confirmed, own);
            if !core.timeline.may_step(confirmed) {
                let due = core.clock.next_due();
                let first = core.stalled_since.is_none();
                core.stall(now, due);
                if first {
                    let slots = self.missing(core, tick);
                    core.report(Event::Stalled { tick, slots });
                }
                self.drop_slowest(core, now, tick);
                return;
            }
            if let Some(since) = core.stalled_since {
                core.unstall(now);
                core.clock.hold(now);
                let stalled_us = now.micros_since(since);
                core.report(Event::Resumed { stalled_us });
                // The others follow this clock.
                self.guests
                    .values_mut()
                    .for_each(|guest| guest.peer.want_clock());
            }
            core.step(confirmed, own);
            self.tick_done(core, now);
        }
        if self.started {
            let confirmed = self.confirmed(core);
            core.settle(confirmed, own);
        }
    }

    fn ticks_are_due(&self, core: &Core, now: Time) -> bool {
        self.started
            && core.awaited.is_none()
            && core.is_within(core.clock.tick().next())
            && core.clock.is_due(now)
    }

    /// Asks for the host's own inputs up to `tick`; true if it must wait for the answer.
    fn asks_for_input(&self, core: &mut Core, tick: Tick) -> bool {
        let Some(slot) = self.own_slot else {
            return false;
        };
        if core.submitted.newest(slot) >= tick {
            return false;
        }
        core.awaited = Some(tick);
        core.todo.push_back(Todo::Sample(tick));
        true
    }

    fn tick_done(&mut self, core: &mut Core, now: Time) {
        core.clock.advance();
        core.transmitted_at = now;
        for guest in self.guests.values_mut() {
            guest.due = true;
        }
    }

    /// The tick up to which all inputs are final.
    fn confirmed(&self, core: &Core) -> Tick {
        core.slots()
            .map(|slot| core.known.newest(slot))
            .min()
            .unwrap_or(Tick::ZERO)
    }

    fn missing(&self, core: &Core, tick: Tick) -> u64 {
        core.slots()
            .filter(|&slot| core.known.newest(slot) < tick)
            .fold(0, |mask, slot| mask | slot.bit())
    }

    /// Slots without a player are absent for some ticks to come, so that nobody waits to hear it.
    fn settle_absences(&self, core: &mut Core, tick: Tick) {
        for slot in core.slots() {
            let from = match &self.seats[slot.index()].holder {
                None => Tick::MAX,
                Some(holder) => holder.from.unwrap_or(Tick::MAX),
            };
            let upto = tick.plus(ABSENCE_TICKS).min(from.previous());
            while core.known.newest(slot) < upto {
                let next = core.known.newest(slot).next();
                core.known.push(slot, next, None);
            }
        }
    }

    /// Lets go of members for whom all have waited too long.
    fn drop_slowest(&mut self, core: &mut Core, now: Time, tick: Tick) {
        let Gate::Wait { limit_us } = self.config.gate else {
            return;
        };
        let Some(since) = core.stalled_since else {
            return;
        };
        if now.micros_since(since) <= limit_us {
            return;
        }
        let missing = self.missing(core, tick);
        for slot in crate::lockstep::slots_of(missing) {
            let path = match &self.seats[slot.index()].holder {
                Some(holder) if Some(slot) != self.own_slot => holder.path,
                _ => continue,
            };
            if let Some(path) = path {
                self.say_bye(core, path, ByeReason::TooSlow);
                self.lose(core, now, path);
            }
        }
        self.settle_absences(core, tick);
    }

    fn say_farewell(&mut self, core: &Core, now: Time) {
        let Some(at) = self.ended_at else { return };
        let delay = Tick::new(self.config.spectator_delay_ticks);
        if now.micros_since(at) > FAREWELL_US + core.rate.micros_at(delay) {
            let paths: Vec<Path> = self.guests.keys().copied().collect();
            for path in paths {
                self.say_bye(core, path, ByeReason::Ended);
            }
            self.guests.clear();
        }
    }

    // ---- sending ----

    pub(super) fn poll_transmit(
        &mut self,
        core: &mut Core,
        now: Time,
        out: &mut Vec<u8>,
    ) -> Option<Path> {
        if let Some((path, bytes)) = self.outgoing.pop_front() {
            out.extend_from_slice(&bytes);
            return Some(path);
        }
        if let Some(path) = self.doctor.poll_ack(now, out) {
            return Some(path);
        }
        if now.micros_since(core.transmitted_at) >= self.pause_us(core) {
            core.transmitted_at = now;
            for guest in self.guests.values_mut() {
                guest.due = true;
            }
        }
        let newest = core
            .slots()
            .map(|slot| core.known.newest(slot))
            .max()
            .unwrap_or_default();
        // After the last tick, those who watch with a delay see the rest.
        let since_end = self
            .ended_at
            .map_or(0, |at| core.rate.ticks_in_us_ceil(now.micros_since(at)));
        let uneven = !self.is_paced();
        for (path, guest) in &mut self.guests {
            if core::mem::take(&mut guest.due) {
                guest.write(core, now, newest, since_end, uneven, out);
                if guest.is_too_far_behind {
                    // No batch was written, and the absence of one means "nothing has changed".
                    out.clear();
                    continue;
                }
                return Some(*path);
            }
            if let Some(transfer) = &mut guest.transfer
                && core.clock.tick() >= guest.state_not_before
            {
                out.push(kind::BULK);
                if transfer.next_chunk(now, out) {
                    return Some(*path);
                }
                out.clear();
            }
        }
        None
    }

    /// Longest time between two datagrams: a tick, or a little more where ticks themselves send.
    fn pause_us(&self, core: &Core) -> u64 {
        let tick_us = core.rate.tick_us();
        if !self.started || core.is_over() {
            tick_us
        } else {
            tick_us + tick_us / 2
        }
    }

    pub(super) fn poll_timeout(&self, core: &Core) -> Time {
        let mut next = core.transmitted_at.plus_micros(self.pause_us(core));
        if let (Some(at), false) = (self.start_at, self.started) {
            next = next.min(at);
        }
        let ticks = self.started && core.awaited.is_none() && core.stalled_since.is_none();
        if ticks && core.is_within(core.clock.tick().next()) {
            next = next.min(core.clock.next_due());
        }
        for guest in self.guests.values() {
            let transfer = guest.transfer.as_ref();
            if let Some(at) = transfer.and_then(BulkSender::next_time)
                && core.clock.tick() >= guest.state_not_before
            {
                next = next.min(at);
            }
        }
        next
    }

    /// Carries out what the diagnosis of a desync has come to.
    fn follow_doctor(&mut self, core: &mut Core) {
        while let Some((path, line)) = self.doctor.poll_line() {
            if let Some(guest) = self.guests.get_mut(&path) {
                guest.tell(&Control::Difference(line));
            }
        }
        while let Some(path) = self.doctor.poll_heal() {
            if let Some(guest) = self.guests.get_mut(&path)
                && self.config.desync.heal
            {
                guest.wants_state = true;
            }
        }
        if !self.config.desync.heal {
            self.doctor.cure = None;
        }
        if self.doctor.cure.is_some() {
            core.todo.push_back(Todo::Import);
        }
    }

    /// This host had diverged, and has taken over the state of the majority: it runs the ticks
    /// since then again, on the same inputs.
    pub(super) fn commit_import(&mut self, core: &mut Core, tick: Tick, fits: bool) {
        self.doctor.cure = None;
        if !fits {
            return;
        }
        let upto = core.timeline.simulated();
        core.jump(tick);
        let confirmed = self.confirmed(core);
        while core.timeline.simulated() < upto && core.timeline.may_step(confirmed) {
            core.step(confirmed, self.own_slot);
        }
        core.report(Event::Healed { tick });
    }
}

impl Guest {
    pub(super) fn tell(&mut self, control: &Control) {
        // A full outbox means a peer that acks nothing. What it misses it would miss for ever.
        if self.peer.outbox.push(control.to_bytes()).is_err() {
            self.is_too_far_behind = true;
        }
    }

    fn begin_transfer(&mut self, purpose: Purpose, tick: Tick, bytes: &Arc<[u8]>) {
        self.transfers = self.transfers.wrapping_add(1);
        let id = self.transfers;
        self.tell(&Control::Transfer {
            id,
            purpose,
            tick: tick.number(),
            bytes: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
            digest: crate::hash::digest(bytes),
        });
        self.transfer = BulkSender::new(id, Arc::clone(bytes), BulkConfig::default()).ok();
    }

    fn write(
        &mut self,
        core: &mut Core,
        now: Time,
        newest: Tick,
        since_end: u32,
        uneven: bool,
        out: &mut Vec<u8>,
    ) {
        let reference = newest
            .minus(self.behind.saturating_sub(since_end))
            .max(self.exchange.newest_base());
        let (exchange, known, theirs) = (&mut self.exchange, &core.known, &core.submitted);
        let own = self.peer.slot.map(|slot| (slot, theirs));
        let shape = Shape {
            reference,
            uneven,
            own,
        };
        let too_far = &mut self.is_too_far_behind;
        self.peer.pack(
            now,
            core.clock.due(Tick::ZERO),
            Some(reference),
            |seq, room, out| {
                if exchange
                    .write(seq, shape, known, theirs, room, out)
                    .is_err()
                {
                    *too_far = true;
                }
            },
            out,
        );
        core.statistics.datagrams_sent += 1;
        core.statistics.bytes_sent += out.len() as u64;
    }
}

/// Number of the transfer before the first on a link. Chunks of the link before may still arrive.
pub(super) fn first_transfer(nonce: u64) -> u16 {
    let [low, high, ..] = nonce.to_le_bytes();
    u16::from_le_bytes([low, high])
}

fn session_low(core: &Core) -> u64 {
    u64::try_from(core.info.session.0 & u128::from(u64::MAX)).unwrap_or(0)
}

fn at_before(at: Time, us: u64) -> Time {
    Time::from_micros(at.micros().saturating_sub(us))
}
