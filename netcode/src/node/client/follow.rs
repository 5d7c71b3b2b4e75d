//! State-sync mode: the host's states come, and this node shows and continues them.
//!
//! Whatever arrives goes to the [`Receiver`]. Each new state is then handed to the simulation as a
//! patch of the one before; where this node predicts, [`predict`](super::predict) runs the ticks
//! behind it again.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Client;
use super::decide::Decided;
use crate::id::NetId;
use crate::limits::{INPUT_HISTORY_TICKS_MAX, JOIN_TICK_MAX};
use crate::node::api::{DisconnectReason, Event};
use crate::node::core::{Core, Todo};
use crate::node::desync::fold;
use crate::node::state_sync::{Received, StateSyncStatistics};
use crate::session::clock::offset_of;
use crate::session::control::Control;
use crate::session::handshake::{Baseline, ByeReason};
use crate::session::peer::Accepted;
use crate::session::statistics::DropReason;
use crate::state::{Patch, Schema, Snapshot};
use crate::statesync::Receiver;
use crate::tick::Tick;
use crate::time::Time;
use crate::wire::header::HashSection;

/// States that are kept for whoever shows them: with three ticks between them 0.6 s at 60 Hz.
const HELD_MAX: usize = 12;

/// Snapshots whose predicted counterparts are kept.
const PREDICTED_MAX: usize = 32;

/// Snapshots that may be missing in a row before the node counts as starved, and its prediction
/// holds.
const STARVED_SNAPSHOTS: u32 = 6;

/// Ticks for which one arrival stands, at most.
const ARRIVAL_TICKS_MAX: u32 = 16;

/// Microseconds between two requests for the whole state.
const RESET_US: u64 = 1_000_000;

/// Microseconds between two reports of how far behind others are shown.
const BEHIND_US: u64 = 100_000;

/// What a client holds of the host's state.
#[derive(Debug)]
pub(super) struct Follower {
    pub(super) receiver: Receiver,
    pub(super) snapshot_ticks: u32,
    /// Ticks that may run ahead of the newest state.
    pub(super) reach: u32,
    /// The newest states that the simulation took over, oldest first.
    pub(super) held: VecDeque<Received>,
    /// What the driver shall take over next, or takes over now.
    pub(super) patch: Patch,
    /// Whether `patch` waits for the driver.
    is_patching: bool,
    /// Something came that the simulation has not taken over.
    is_fresh: bool,
    /// When that came.
    fresh_at: Time,
    /// The newest tick of the host that was heard of.
    pub(super) heard: Tick,
    /// Whether nothing was heard yet of a host that this client has gone over to.
    pub(super) is_first: bool,
    /// The newest tick that ran for the first time.
    pub(super) ran: Tick,
    /// Own entities as they were predicted, by number of the snapshot.
    pub(super) predicted: Vec<Snapshot>,
    /// The newest snapshot whose prediction was judged.
    pub(super) judged: Option<Tick>,
    /// What this client decides.
    pub(super) decided: Decided,
    reset_at: Option<Time>,
    /// Hash of what shall be held at a tick, by the host's word, until that is complete here.
    promised: Option<HashSection>,
    /// The last tick, the host's hash, and that of what shall be held here.
    last: Option<(Tick, u64, u64)>,
    told_behind: Option<(u32, Time)>,
    /// The newest tick that was shown before the present host: nothing up to there is shown again.
    pub(super) shown_upto: Option<Tick>,
    /// A new simulation is to take over the first state: this node was the host.
    begins: bool,
    /// Snapshots that were offered to the next host as its first reference.
    pub(super) offered: Vec<Baseline>,
    pub(super) statistics: StateSyncStatistics,
}

impl Follower {
    pub(super) fn new(schema: &Schema, snapshot_ticks: u32, prediction: u32, from: Tick) -> Self {
        Self {
            receiver: Receiver::new(schema, snapshot_ticks),
            snapshot_ticks,
            reach: prediction + STARVED_SNAPSHOTS * snapshot_ticks,
            held: VecDeque::with_capacity(HELD_MAX),
            patch: Patch::default(),
            is_patching: false,
            is_fresh: false,
            fresh_at: Time::ZERO,
            heard: from,
            is_first: false,
            ran: Tick::ZERO,
            predicted: vec![Snapshot::default(); PREDICTED_MAX],
            judged: None,
            decided: Decided::new(schema),
            reset_at: None,
            promised: None,
            last: None,
            told_behind: None,
            shown_upto: None,
            begins: false,
            offered: Vec::new(),
            statistics: StateSyncStatistics::default(),
        }
    }

    /// The first state that comes replaces the one that this node ran as a host, up to `shown`.
    pub(super) fn begins_with_state(&mut self, shown: Tick) {
        (self.shown_upto, self.begins, self.ran) = (Some(shown), true, shown);
    }

    /// Forgets what the host before has said beside its states.
    pub(super) fn forget_host(&mut self) {
        self.is_fresh = false;
        (self.reset_at, self.promised, self.last) = (None, None, None);
        self.told_behind = None;
        self.decided.claims.clear();
    }

    /// The tick of the state that the simulation has taken over last.
    pub(super) fn base(&self) -> Option<Tick> {
        self.held.back().map(|held| held.tick)
    }

    /// The states that the simulation has taken over, oldest first.
    pub(in crate::node) fn received(&self) -> impl ExactSizeIterator<Item = &Received> {
        self.held.iter()
    }

    /// The place of the prediction for the snapshot at `tick`.
    pub(super) fn place(&self, tick: Tick) -> usize {
        (tick.number() / self.snapshot_ticks) as usize % PREDICTED_MAX
    }

    /// Whether all that the host has told for the last tick is here.
    pub(super) fn is_final(&self) -> bool {
        self.last.is_some()
    }

    /// Takes what is newest out of the receiver, and makes the patch that leads there from the
    /// state before. `None` if there is nothing new.
    fn take_newest(&mut self) -> Option<Tick> {
        let tick = self.receiver.newest()?;
        let is_old = self.base().is_some_and(|base| tick < base);
        if is_old || self.shown_upto >= Some(tick) {
            return None;
        }
        let is_complete = self.receiver.is_complete(tick);
        let is_again = self.base() == Some(tick);
        let snapshot = Arc::clone(self.receiver.at(tick)?);
        let before = self.held.back().map(|held| &*held.snapshot);
        let made = Patch::between(
            self.receiver.layout(),
            self.receiver.shapes(),
            before,
            &snapshot,
            &mut self.patch,
        );
        if made.is_err() {
            self.statistics.unreadable += 1;
            return None;
        }
        self.patch.tick = tick;
        if self.held.len() >= HELD_MAX && !is_again {
            self.held.pop_front();
        }
        let same = if is_again { self.held.pop_back() } else { None };
        let arrived_at = same.map_or(self.fresh_at, |same| same.arrived_at);
        self.held.push_back(Received {
            tick,
            arrived_at,
            snapshot,
            is_complete,
        });
        self.statistics.snapshots += u64::from(!is_again);
        self.statistics.newest = Some(tick);
        self.statistics.newest_complete = self.receiver.newest_complete();
        Some(tick)
    }

    /// Compares the last state with what the host says of it, as soon as both are here.
    fn compare_last(&mut self) {
        if let Some((tick, _, interest)) = self.last
            && self.receiver.newest_complete() == Some(tick)
        {
            let converged = self.receiver.hash_at(tick) == Some(interest);
            self.statistics.converged = Some(converged);
        }
    }

    /// Compares what is held with what the host says shall be. False if it differs.
    fn is_as_promised(&mut self) -> bool {
        self.compare_last();
        let complete = self.receiver.newest_complete();
        let Some(promised) = self.promised.take_if(|hash| complete >= Some(hash.tick)) else {
            return true;
        };
        // One that was never told as a whole says nothing.
        let hash = self.receiver.is_complete(promised.tick);
        let hash = hash.then(|| self.receiver.hash_at(promised.tick)).flatten();
        let Some(hash) = hash else {
            return true;
        };
        let is_same = fold(promised.tick, hash) == promised;
        self.statistics.hashes += 1;
        self.statistics.hashes_wrong += u64::from(!is_same);
        is_same
    }
}

impl Client {
    /// Takes in the state in a datagram.
    pub(super) fn read_state(
        &mut self,
        core: &mut Core,
        now: Time,
        datagram: &Accepted<'_>,
    ) -> Result<(), DropReason> {
        let Some(follower) = &mut self.follower else {
            return Err(DropReason::Unexpected);
        };
        let Some(tick) = datagram.tick else {
            return if datagram.batch.is_empty() {
                Ok(())
            } else {
                Err(DropReason::UnknownTick)
            };
        };
        // However long a path was silent, no host is so far ahead of what it said last. One that this
        // client follows from now on may be, if a machine has slept.
        let newest_max = if follower.is_first {
            Tick::new(JOIN_TICK_MAX)
        } else {
            follower.heard.plus(INPUT_HISTORY_TICKS_MAX - 64)
        };
        if tick > newest_max {
            return Err(DropReason::UnknownTick);
        }
        if !datagram.batch.is_empty() {
            let Ok(report) = follower.receiver.read(tick, datagram.batch) else {
                follower.statistics.unreadable += 1;
                if follower.receiver.needs_reset() {
                    self.ask_for_all(now);
                }
                return Err(DropReason::BadState);
            };
            follower.statistics.state_bytes += datagram.batch.len() as u64;
            if !report.is_known && !follower.is_fresh {
                follower.is_fresh = true;
                follower.fresh_at = now;
            }
        }
        let passed = tick.since(follower.heard).min(ARRIVAL_TICKS_MAX);
        follower.heard = follower.heard.max(tick);
        core.told.hear(tick);
        follower.is_first = false;
        if let Some(hash) = datagram.hash
            && follower.promised.is_none_or(|known| known.tick < hash.tick)
        {
            follower.promised = Some(hash);
        }
        if passed > 0 && self.is_on_time(core, now, tick) {
            // As often as if there had been a datagram per tick: what is remembered spans a time.
            for _ in 0..passed {
                self.arrivals.push(offset_of(core.rate, tick, now));
            }
        }
        Ok(())
    }

    /// Asks the host for the whole state, now and then.
    fn ask_for_all(&mut self, now: Time) {
        let Some(follower) = &mut self.follower else {
            return;
        };
        let may = follower
            .reset_at
            .is_none_or(|at| now.micros_since(at) >= RESET_US);
        if may {
            follower.reset_at = Some(now);
            follower.statistics.resets += 1;
            self.tell(&Control::Reset);
        }
    }

    /// Takes in the whole state, which came as a transfer.
    pub(super) fn take_keyframe(&mut self, core: &mut Core, now: Time, tick: Tick, bytes: &[u8]) {
        let Some(follower) = &mut self.follower else {
            return;
        };
        if follower.receiver.install_keyframe(bytes) != Ok(tick) {
            self.say_bye(core, ByeReason::Fault);
            self.end(core, DisconnectReason::BadState);
            return;
        }
        follower.statistics.keyframes += 1;
        follower.statistics.keyframe_bytes += bytes.len() as u64;
        if !follower.is_fresh {
            follower.is_fresh = true;
            follower.fresh_at = now;
        }
        self.advance(core, now);
    }

    /// Takes in what only a host in this mode says; gives back what is none of that.
    pub(super) fn handle_word(
        &mut self,
        core: &mut Core,
        control: Control,
    ) -> Result<Option<Control>, DropReason> {
        let Some(follower) = &mut self.follower else {
            return Ok(Some(control));
        };
        match control {
            Control::Replaced { first, ticks } => {
                let slot = self.peer.slot.ok_or(DropReason::Unexpected)?;
                for bit in (0..64).filter(|bit| ticks & (1 << bit) != 0) {
                    let tick = Tick::new(first).plus(bit);
                    if core.submitted.get(slot, tick).bytes().is_some() {
                        core.tell_replaced(tick);
                    } else if tick > core.submitted.newest(slot) {
                        core.told.note_ahead(tick);
                    }
                }
                Ok(None)
            }
            Control::Denied { entity, is_foreign } => {
                let slot = self.peer.slot.ok_or(DropReason::Unexpected)?;
                follower.statistics.claims_denied += 1;
                core.report(Event::ClaimRefused {
                    slot,
                    entity: NetId::from_bits(entity),
                    is_foreign,
                });
                Ok(None)
            }
            Control::Final {
                tick,
                state,
                interest,
            } => {
                let tick = Tick::new(tick);
                if core.last_tick != Some(tick) {
                    return Err(DropReason::Unexpected);
                }
                follower.last = Some((tick, state, interest));
                follower.statistics.authority = Some((tick, state));
                // The state may have come first.
                follower.compare_last();
                Ok(None)
            }
            Control::Hashes { .. } | Control::Diverged { .. } | Control::Difference(_) => {
                Err(DropReason::Unexpected)
            }
            Control::Member(_)
            | Control::Gone(_)
            | Control::Start(_)
            | Control::LastTick(_)
            | Control::Ready
            | Control::Activate(_)
            | Control::Transfer { .. }
            | Control::Reset
            | Control::Behind(_)
            | Control::Peer { .. }
            | Control::Invite { .. }
            | Control::Invitation { .. }
            | Control::Settings(_)
            | Control::Stand(_) => Ok(Some(control)),
        }
    }

    /// Hands the newest state to the simulation, and runs again what was predicted behind it.
    pub(super) fn take_over(&mut self, core: &mut Core, now: Time) {
        let Some(follower) = &mut self.follower else {
            return;
        };
        if !follower.is_fresh || follower.is_patching {
            return;
        }
        follower.is_fresh = false;
        let base = follower.base();
        let Some(tick) = follower.take_newest() else {
            return;
        };
        let is_as_promised = follower.is_as_promised();
        follower.is_patching = true;
        follower.find_decided(self.peer.slot);
        let begins = core::mem::take(&mut follower.begins);
        self.judge(tick);
        let predicts = self.predicts(core);
        if predicts
            && let Some(base) = base
            && core.timeline.simulated() >= base
        {
            core.todo.push_back(Todo::Restore(base));
            core.statistics.rollbacks += 1;
        }
        if begins {
            core.todo.push_back(Todo::Begin);
        }
        core.todo.push_back(Todo::Patch);
        if core.info.images > 0 {
            core.todo.push_back(Todo::Capture(tick));
        }
        let settled = self.settled(core).max(core.timeline.settled());
        let upto = core.timeline.simulated();
        core.timeline.follow(settled.min(tick), tick);
        self.needs_state = false;
        // The image that was just captured is the host's word alone: its next patch fits that.
        self.keep_decided(core, tick);
        self.predict_up_to(core, upto);
        let reached = core.timeline.simulated();
        if reached > tick {
            self.keep_decided(core, reached);
        }
        if !is_as_promised {
            self.ask_for_all(now);
        }
    }

    fn keep_decided(&self, core: &mut Core, tick: Tick) {
        if let Some(follower) = self.follower.as_ref().filter(|_| self.predicts(core)) {
            follower.keep_decided(core, tick);
        }
    }

    /// The newest tick whose state is known as a whole.
    fn settled(&self, core: &Core) -> Tick {
        let follower = self.follower.as_ref();
        follower
            .and_then(|follower| follower.receiver.newest_complete())
            .unwrap_or(core.timeline.settled())
    }

    /// The driver has taken the patch over, or could not.
    pub(in crate::node) fn commit_patch(&mut self, core: &mut Core, now: Time, is_patched: bool) {
        let Some(follower) = &mut self.follower else {
            return;
        };
        if !core::mem::take(&mut follower.is_patching) {
            return;
        }
        if is_patched {
            self.advance(core, now);
            return;
        }
        core.todo.clear();
        core.awaited = None;
        if follower.patch.is_whole {
            self.say_bye(core, ByeReason::Fault);
            self.end(core, DisconnectReason::BadState);
        } else {
            self.ask_anew(now);
        }
    }

    /// The player sees others as they were so many ticks before its inputs act.
    pub(in crate::node) fn show(&mut self, now: Time, behind_ticks: u32) {
        let is_active = self.active_from.is_some();
        let Some(follower) = self.follower.as_mut().filter(|_| is_active) else {
            return;
        };
        let is_known = follower
            .told_behind
            .is_some_and(|(ticks, at)| ticks == behind_ticks || now.micros_since(at) < BEHIND_US);
        if !is_known {
            follower.told_behind = Some((behind_ticks, now));
            self.tell(&Control::Behind(behind_ticks));
        }
    }

    /// Runs ticks on the host's time, ahead of its states where this node predicts.
    pub(super) fn advance_following(&mut self, core: &mut Core, now: Time) {
        self.take_over(core, now);
        core.clock.skip(now, crate::limits::CATCH_UP_US_MAX);
        while core.awaited.is_none() && core.clock.is_due(now) {
            let tick = core.clock.tick().next();
            if self.asks_for_input(core, tick.plus(self.input_delay())) {
                return;
            }
            core.clock.advance();
            core.transmitted_at = now;
            self.due = true;
            self.predict_up_to(core, tick);
        }
        self.watch_starvation(core, now);
    }

    /// Tells when states do not come any more, and when they do again.
    fn watch_starvation(&self, core: &mut Core, now: Time) {
        let Some((base, reach)) = self
            .follower
            .as_ref()
            .and_then(|follower| Some((follower.base()?, follower.reach)))
        else {
            return;
        };
        let limit = base.plus(reach);
        let is_starved = core.clock.tick() > limit && core.is_within(limit);
        match (is_starved, core.stalled_since) {
            (true, None) => {
                core.stall(now, now);
                core.report(Event::Stalled {
                    tick: limit.next(),
                    slots: 0,
                });
            }
            (false, Some(since)) => {
                core.unstall(now);
                core.report(Event::Resumed {
                    stalled_us: now.micros_since(since),
                });
            }
            _ => {}
        }
    }
}
