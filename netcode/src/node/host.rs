//! The host's side of a session: who takes part, and whose inputs act on which tick.
//!
//! [`admission`] lets members in, [`departure`] lets them go, [`introduce`] makes them known to each
//! other, [`pace`] runs the ticks, [`send`] says what goes out, [`succession`] takes hosting over and
//! hands it over, and [`broadcast`] tells the state in state-sync mode.

mod admission;
mod broadcast;
pub(super) mod claims;
mod departure;
mod introduce;
mod pace;
mod send;
mod succession;

use std::collections::{BTreeMap, VecDeque};

use crate::hash::{keyed, public_seed};
use crate::id::{MemberId, Path, SessionId, Slot, Term};
use crate::limits::INPUT_HISTORY_TICKS_MAX;
use crate::lockstep::{DelayControl, Shape};
use crate::node::api::{Event, SessionInfo};
use crate::node::audience::Audience;
use crate::node::core::{Core, Todo};
use crate::node::doctor::Doctor;
use crate::node::guest::Guest;
use crate::node::host::introduce::Introductions;
use crate::node::host::succession::Succession;
use crate::node::seat::{Early, Holder, Seat};
use crate::node::standby::AuthorityStream;
use crate::session::bucket::Bucket;
use crate::session::config::{Gate, HostConfig, Mode, Role};
use crate::session::control::{Control, Purpose, Stand};
use crate::session::handshake::ByeReason;
use crate::session::roster::Member;
use crate::session::statistics::{Body, DropReason};
use crate::tick::Tick;
use crate::time::Time;
use crate::wire::header::kind;

/// The host's side of a session.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) config: HostConfig,
    pub(super) guests: BTreeMap<Path, Guest>,
    pub(super) doctor: Doctor,
    /// Whom the state is told, in state-sync mode.
    pub(super) audience: Option<Box<Audience>>,
    seats: Vec<Seat>,
    own_slot: Option<Slot>,
    delay: DelayControl,
    next_member: u32,
    start_at: Option<Time>,
    /// Since when all players are there that the start waits for.
    complete_since: Option<Time>,
    started: bool,
    manual_start: bool,
    exported_at: Option<Time>,
    admissions: Bucket,
    /// Nonces of the newest links, so that none opens a second one: what is still under way of the
    /// first, its welcome above all, would be taken for the second's.
    nonces: VecDeque<u64>,
    ended_at: Option<Time>,
    outgoing: VecDeque<(Path, Vec<u8>)>,
    schema_parts: Vec<Vec<u8>>,
    /// Paths that the driver should close.
    pub(super) closing: VecDeque<Path>,
    /// What members have said of their hosting, for the node to take at once.
    pub(super) standing: VecDeque<(MemberId, Stand)>,
    /// Who knows whom, where hosting may move.
    pub(super) introductions: Introductions,
    /// What standbys are sent, in state-sync mode.
    pub(super) stream: Option<Box<AuthorityStream>>,
    leaving: bool,
    /// What it has to do with hosts before and after it.
    succession: Succession,
}

impl Host {
    pub(super) fn new(config: HostConfig, now: Time) -> (Self, Core) {
        let session = SessionId(
            u128::from(keyed(config.secret, b"session 0")) << 64
                | u128::from(keyed(config.secret, b"session 1")),
        );
        let own_slot = config.plays.then_some(Slot(0));
        let tells_state = config.game.mode == Mode::StateSync;
        let info = SessionInfo {
            session,
            term: Term(1),
            member: MemberId::FIRST_HOST,
            slot: own_slot,
            hosts: true,
            slots: config.slots,
            seed: config.seed,
            public_seed: public_seed(config.seed),
            input_bytes: config.game.input_bytes,
            tick_rate: config.game.tick_rate,
            // Nobody compares states with a host that tells them, and nothing runs again there.
            images: if tells_state { 0 } else { config.desync.images },
            desync_interval: if tells_state {
                0
            } else {
                config.desync.interval_ticks
            },
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
        if tells_state {
            core.todo.push_back(Todo::Publish(Tick::ZERO));
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
        let mut host = Self::blank(config, own_slot);
        if let Some(slot) = own_slot {
            host.seats[slot.index()].holder = Some(Holder {
                member: MemberId::FIRST_HOST,
                resume: 0,
                path: None,
                from: None,
                inputs_from: Tick::ZERO,
                lost_at: None,
                replaced: 0,
                early: Early::default(),
            });
        }
        (host, core)
    }

    /// A host with free seats and without guests.
    fn blank(config: HostConfig, own_slot: Option<Slot>) -> Self {
        let tells_state = config.game.mode == Mode::StateSync;
        Self {
            guests: BTreeMap::new(),
            doctor: Doctor::default(),
            audience: tells_state.then(|| Box::new(Audience::new(&config))),
            seats: vec![Seat::default(); usize::from(config.slots)],
            own_slot,
            delay: DelayControl::new(config.input_delay),
            next_member: 1,
            start_at: None,
            complete_since: None,
            started: false,
            manual_start: false,
            exported_at: None,
            admissions: Bucket::default(),
            nonces: VecDeque::new(),
            ended_at: None,
            outgoing: VecDeque::new(),
            schema_parts: Vec::new(),
            closing: VecDeque::new(),
            standing: VecDeque::new(),
            introductions: Introductions::default(),
            stream: None,
            leaving: false,
            succession: Succession::default(),
            config,
        }
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
            Some(&kind::RETURN) => self.handle_return(core, now, path, &bytes[1..]),
            Some(&kind::BYE) => self.handle_bye(core, path, &bytes[1..]),
            Some(&kind::BULK) => self.handle_bulk(core, now, path, &bytes[1..]),
            Some(&kind::BULK_ACK) => self.handle_bulk_ack(now, path, &bytes[1..]),
            Some(&kind::STANDBY_ACK) => self.handle_standby_ack(now, path, &bytes[1..]),
            Some(_) => self.handle_tick(core, now, path, bytes),
            None => Err(DropReason::Malformed),
        };
        match result {
            Ok(()) => {
                core.statistics.datagrams_received += 1;
                core.statistics.bytes_received += bytes.len() as u64;
                if let Some(body) = bytes.first().and_then(|&first| Body::of_kind(first))
                    && let Some(guest) = self.guests.get_mut(&path)
                {
                    guest.peer.statistics.count_received(body, bytes.len());
                }
            }
            Err(reason) => {
                core.statistics.drops.count(reason);
                let Some(guest) = self.guests.get_mut(&path) else {
                    return;
                };
                guest.peer.statistics.drops.count(reason);
                // It is heard no more, and asks anew.
                if guest.peer.is_beyond_repair(reason) {
                    self.lose(core, now, path);
                }
            }
        }
    }

    fn handle_bulk_ack(&mut self, now: Time, path: Path, body: &[u8]) -> Result<(), DropReason> {
        let guest = self.guests.get_mut(&path).ok_or(DropReason::UnknownPath)?;
        let transfer = guest.transfer.as_mut().ok_or(DropReason::Unexpected)?;
        transfer
            .handle_ack(now, body)
            .map_err(|_error| DropReason::Malformed)?;
        guest.peer.heard_at = now;
        if transfer.is_complete() {
            let id = transfer.id();
            guest.transfer = None;
            if let Some(stream) = &mut self.stream {
                stream.transfer_arrived(guest.peer.member, id);
            }
            if let (Some(listener), Some(audience)) = (&mut guest.listener, &self.audience) {
                listener.keyframe_held(audience);
            }
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
        if self.audience.is_some() {
            return Err(DropReason::Unexpected);
        }
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
        let claims = match (datagram.claims, &self.audience, guest.peer.slot) {
            (None, ..) => Vec::new(),
            (Some(section), Some(audience), Some(_)) => audience.read_claims(section)?,
            (Some(_), ..) => return Err(DropReason::Unexpected),
        };
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
        if let Some(messages) = datagram.messages
            && guest.peer.messages.handle(messages).is_err()
        {
            // Its message channels are beyond repair.
            self.say_bye(core, path, ByeReason::Fault);
            self.lose(core, now, path);
            return Err(DropReason::BadSection);
        }
        guest.peer.accept(now, &datagram);
        if let Some(listener) = &mut guest.listener {
            listener.hear(&mut guest.peer);
            if let (Some(audience), Some(slot)) = (&mut self.audience, guest.peer.slot)
                && !claims.is_empty()
                && listener.is_newest_claim(datagram.seq)
                && let Some(word) = audience.take_claims(core, slot, claims)
            {
                guest.tell(&word);
            }
        }
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
        if let Some(hash) = datagram.hash
            && self.audience.is_none()
        {
            self.doctor.compare(core, &mut self.guests, path, hash);
        }
        for control in controls {
            match control {
                Ok(control) => self.handle_control(core, now, path, control)?,
                Err(_error) => return Err(DropReason::BadSection),
            }
        }
        self.advance(core, now);
        Ok(())
    }

    fn handle_control(
        &mut self,
        core: &mut Core,
        now: Time,
        path: Path,
        control: Control,
    ) -> Result<(), DropReason> {
        let control = match self.audience {
            Some(_) => match self.handle_listener(core, now, path, control)? {
                Some(control) => control,
                None => return Ok(()),
            },
            None => control,
        };
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
            Control::Invite {
                member: to,
                public_key,
            } if self.config.migration.allows => self.relay(now, path, to, |member| {
                Control::Invite { member, public_key }
            }),
            Control::Invitation {
                member: to,
                part,
                parts,
                bytes,
            } if self.config.migration.allows => {
                self.relay(now, path, to, |member| Control::Invitation {
                    member,
                    part,
                    parts,
                    bytes,
                })
            }
            Control::Stand(stand) if self.config.migration.allows => {
                let guest = self.guests.get_mut(&path).ok_or(DropReason::UnknownPath)?;
                guest.incarnation = Some(stand.incarnation);
                guest.votes = stand.votes && self.config.migration.elects;
                if self.standing.len() < crate::limits::MEMBERS_MAX {
                    self.standing.push_back((guest.peer.member, stand));
                }
                Ok(())
            }
            Control::Transfer {
                purpose: Purpose::Join | Purpose::Standby,
                ..
            }
            | Control::Member(_)
            | Control::Gone(_)
            | Control::Start(_)
            | Control::LastTick(_)
            | Control::Activate(_)
            | Control::Diverged { .. }
            | Control::Difference(_)
            | Control::Reset
            | Control::Replaced { .. }
            | Control::Final { .. }
            | Control::Denied { .. }
            | Control::Behind(_)
            | Control::Peer { .. }
            | Control::Invite { .. }
            | Control::Invitation { .. }
            | Control::Settings(_)
            | Control::Stand(_) => Err(DropReason::Unexpected),
        }
    }

    // ---- time ----

    pub(super) fn handle_timeout(&mut self, core: &mut Core, now: Time) {
        if self.is_frozen() {
            return;
        }
        self.end_patience(core, now);
        self.forget_away(core, now);
        self.watch_links(core, now);
        self.try_start(core, now);
        self.advance(core, now);
        self.doctor
            .handle_timeout(core, &self.config.game.schema, now);
        self.follow_doctor(core);
        self.export_if_due(core, now);
        self.say_farewell(core, now);
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
        if !self.config.desync.heal_host {
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
