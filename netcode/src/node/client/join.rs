//! Getting in: Hello, Welcome, Refuse, and the slot that takes part.

use super::{Client, NONCE_US, Phase, lead_limits};
use crate::hash::{keyed, public_seed};
use crate::id::{MemberId, Path, SessionId, Slot, Term};
use crate::limits::{IMAGES_MAX, JOIN_TICK_MAX, SLOTS_MAX, SNAPSHOT_TICKS_MAX};
use crate::lockstep::{DelayControl, Exchange};
use crate::node::api::{Event, SessionInfo};
use crate::node::client::follow::Follower;
use crate::node::core::{Core, Todo};
use crate::session::config::{Mode, ResumeToken, Role};
use crate::session::control::Control;
use crate::session::handshake::{
    self, PROTOCOL_VERSION, PROTOCOL_VERSION_MIN, Refusal, Refuse, SchemaPart, Welcome,
};
use crate::session::peer::Peer;
use crate::session::statistics::DropReason;
use crate::state::Schema;
use crate::tick::Tick;
use crate::time::Time;
use crate::wire::bytes::Reader;
use crate::wire::header::TagKey;

/// Bytes of an encoded schema that a refusal may bring.
const SCHEMA_BYTES_MAX: usize = 1 << 20;

/// Ticks behind the clock at which a member counts as caught up.
const CAUGHT_UP_TICKS: u32 = 4;

/// Ticks that may run before the host has confirmed this node's own inputs for them, where all
/// wait for all.
pub(super) const UNCONFIRMED_TICKS_MAX: u32 = 255;

impl Client {
    /// Asks to join, or to come back.
    pub(super) fn ask(&mut self, now: Time, confirmed: Tick) {
        self.renew_nonce(now);
        self.hello.resume = self.resume.map_or(0, |token| token.0);
        self.hello.confirmed = confirmed.number();
        self.phase = Phase::Asking {
            since: now,
            next_at: now,
            nonce_until: now.plus_micros(NONCE_US),
        };
    }

    /// Takes a nonce that it never had.
    pub(super) fn renew_nonce(&mut self, now: Time) {
        self.hello.nonce = self.fresh_nonce(now);
    }

    pub(super) fn fresh_nonce(&mut self, now: Time) -> u64 {
        self.attempts += 1;
        let mut seed = b"hello".to_vec();
        seed.extend_from_slice(&self.attempts.to_le_bytes());
        seed.extend_from_slice(&now.micros().to_le_bytes());
        seed.extend_from_slice(self.config.name.as_bytes());
        keyed(self.config.secret, &seed).max(1)
    }

    /// Takes the session up again over `path`.
    pub(in crate::node) fn rejoin(&mut self, core: &Core, now: Time, path: Path) {
        self.path = path;
        self.closed = None;
        self.outgoing.clear();
        // What ran beyond the final inputs may have to run again: from a state that is still kept.
        let last = core.final_tick().min(core.timeline.simulated());
        let ahead = core.timeline.simulated().since(core.timeline.settled());
        let has_state = !self.needs_state && self.state.is_none();
        let goes_on = has_state && (ahead == 0 || ahead < core.info.images);
        self.ask(now, if goes_on { last } else { Tick::ZERO });
    }

    /// The state is lost: asks for a new one, and for the slot that it has.
    pub(in crate::node) fn ask_anew(&mut self, now: Time) {
        if self.phase == Phase::Over {
            return;
        }
        self.outgoing.clear();
        self.needs_state = true;
        self.state = None;
        self.ask(now, Tick::ZERO);
    }

    pub(super) fn handle_welcome(
        &mut self,
        core: &mut Core,
        now: Time,
        body: &[u8],
    ) -> Result<(), DropReason> {
        let welcome: Welcome = handshake::read(body).map_err(|_error| DropReason::Malformed)?;
        let is_asking = matches!(self.phase, Phase::Asking { .. });
        if !is_asking || welcome.nonce != self.hello.nonce || self.has_renounced() {
            return Err(DropReason::Unexpected);
        }
        let info = self.check_welcome(&welcome)?;
        let from = Tick::new(welcome.from);
        let resumed = welcome.resumed
            && self.hello.resume != 0
            && core.info.session == info.session
            // What it asked for: other ticks may be known no more.
            && welcome.from == self.hello.confirmed
            && from > Tick::ZERO
            && (core.info.slots, core.info.images) == (info.slots, info.images)
            && core.slots().all(|slot| core.known.oldest(slot) <= from)
            && from <= core.final_tick();
        if welcome.resumed && !resumed {
            return Err(DropReason::Malformed);
        }
        self.open_link(now, &welcome, &info, from, 0);
        if resumed {
            for slot in core.slots() {
                if core.known.newest(slot) > from {
                    core.known.rewind(slot, from);
                }
            }
            // Where all wait for all, it is absent until it is let in again, and knows it.
            if let Some(slot) = core.info.slot.filter(|_| !self.waits) {
                self.abandon_inputs(core, slot, from);
            }
            // What it sent over another link, or in another slot, is not what the host refers to.
            if let Some(slot) = info.slot {
                core.submitted.start(slot, Tick::ZERO);
            }
            if info.term > core.info.term {
                core.terms.forget(info.term);
            }
            core.info = info.clone();
            core.awaited = None;
            self.running = self.start_at_us.is_some();
        } else {
            if let Some(slot) = core.info.slot.filter(|_| !self.waits)
                && core.info.session == info.session
            {
                self.abandon_inputs(core, slot, Tick::MAX);
            }
            self.begin_anew(core, now, &info, &welcome);
        }
        self.frames_upto = from;
        self.checked_own = from;
        let resume = ResumeToken(welcome.resume);
        core.report(Event::Welcomed { info, resume });
        Ok(())
    }

    /// The session that a welcome lets this node into, if it can be.
    pub(super) fn check_welcome(&self, welcome: &Welcome) -> Result<SessionInfo, DropReason> {
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
        let follows = self.config.game.mode == Mode::StateSync;
        let is_known_pace = if follows {
            (1..=SNAPSHOT_TICKS_MAX).contains(&welcome.snapshot_ticks)
        } else {
            welcome.snapshot_ticks == 0
        };
        if !is_known_pace || follows && (welcome.resumed || welcome.gate != 0) {
            return Err(DropReason::Malformed);
        }
        Ok(SessionInfo {
            session: SessionId(welcome.session),
            term: Term(welcome.term),
            member: MemberId(welcome.member),
            slot,
            hosts: false,
            slots: welcome.slots,
            seed: welcome.seed,
            public_seed: if follows {
                welcome.seed
            } else {
                public_seed(welcome.seed)
            },
            input_bytes,
            tick_rate: self.config.game.tick_rate,
            images: match (follows, slot) {
                (false, _) => welcome.images,
                // The host's newest state, to predict from.
                (true, Some(_)) if self.config.prediction_ticks > 0 => 1,
                (true, _) => 0,
            },
            desync_interval: if follows { 0 } else { welcome.desync_interval },
        })
    }

    /// Everything that belongs to the link to a host begins with its welcome.
    pub(super) fn open_link(
        &mut self,
        now: Time,
        welcome: &Welcome,
        info: &SessionInfo,
        from: Tick,
        salt: u8,
    ) {
        let follows = self.config.game.mode == Mode::StateSync;
        let key = TagKey::new(info.session, info.term, welcome.nonce).salted(salt);
        let statistics = self.peer.statistics;
        self.peer = Peer::new(self.path, info.member, key, info.tick_rate, now);
        self.peer.statistics = statistics;
        self.peer.slot = info.slot;
        let all = (0..info.slots)
            .map(Slot)
            .fold(0, |mask, slot| mask | slot.bit());
        self.peer.tells_missing = follows;
        let incoming = if follows { 0 } else { all };
        self.exchange = Exchange::new(info.slots, info.input_bytes, 0, incoming, from);
        self.resume = Some(ResumeToken(welcome.resume));
        self.waits = welcome.gate != 0;
        self.heal = welcome.heal;
        self.arrivals.clear();
        self.active_from = None;
        self.said_ready = false;
        self.receiver = None;
        self.phase = Phase::Inside;
    }

    /// Begins with the state at the tick that the welcome names.
    pub(super) fn begin_anew(
        &mut self,
        core: &mut Core,
        now: Time,
        info: &SessionInfo,
        welcome: &Welcome,
    ) {
        let from = Tick::new(welcome.from);
        if self.config.game.mode == Mode::StateSync {
            self.begin_to_follow(core, now, info, welcome.snapshot_ticks, from);
            return;
        }
        let prediction = self
            .config
            .prediction_ticks
            .min(info.images.saturating_sub(1));
        let is_known = core.info.session == info.session;
        let reported = if is_known {
            core.reported()
        } else {
            Tick::ZERO
        };
        *core = Core::new(info.clone(), prediction, now);
        if self.waits {
            core.timeline.keep_guesses(UNCONFIRMED_TICKS_MAX);
        }
        core.begin_after(from);
        core.jump(from);
        // A recorder gets each tick once.
        core.skip_reports(reported);
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

    /// Begins, or begins again, to take the host's states.
    fn begin_to_follow(
        &mut self,
        core: &mut Core,
        now: Time,
        info: &SessionInfo,
        snapshot_ticks: u32,
        from: Tick,
    ) {
        let is_new = self.follower.is_none() || core.info.session != info.session;
        let predicts = info.images > 0;
        let prediction = if predicts {
            self.config.prediction_ticks
        } else {
            0
        };
        *core = Core::new(info.clone(), prediction, now);
        core.follows = true;
        core.begin_after(from);
        core.jump(from);
        if is_new {
            // The first state of the host replaces it.
            core.todo.push_back(Todo::Begin);
        }
        let schema = &self.config.game.schema;
        let before = self.follower.take().map(|before| before.statistics);
        let mut follower = Follower::new(schema, snapshot_ticks, prediction, from);
        follower.statistics = before.filter(|_| !is_new).unwrap_or_default();
        self.follower = Some(Box::new(follower));
        self.running = false;
        self.start_at_us = None;
        self.delay = DelayControl::new(lead_limits(&self.config));
        self.needs_state = true;
        self.state = None;
    }

    pub(super) fn handle_refuse(&mut self, core: &mut Core, body: &[u8]) -> Result<(), DropReason> {
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

    pub(super) fn refused(&mut self, core: &mut Core, reason: String, differences: Vec<String>) {
        self.phase = Phase::Over;
        self.closing.push_back(self.path);
        core.report(Event::Refused {
            reason,
            differences,
        });
    }

    pub(super) fn handle_schema_part(
        &mut self,
        core: &mut Core,
        body: &[u8],
    ) -> Result<(), DropReason> {
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

    pub(super) fn activate(
        &mut self,
        core: &mut Core,
        now: Time,
        from: Tick,
    ) -> Result<(), DropReason> {
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

    pub(super) fn say_ready(&mut self, core: &Core) {
        if self.said_ready || self.needs_state || self.peer.slot.is_none() {
            return;
        }
        let behind = if self.follower.is_some() {
            // States come and do not have to be caught up with.
            0
        } else {
            core.clock.tick().since(core.timeline.simulated())
        };
        if core.timeline.simulated() == Tick::ZERO || self.running && behind <= CAUGHT_UP_TICKS {
            self.said_ready = true;
            self.tell(&Control::Ready);
        }
    }
}
