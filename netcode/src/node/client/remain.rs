//! Going over to another host in state-sync mode: what this node holds and has shown remains.
//!
//! The Return tells which snapshots are held as a whole. If one of them is what the new host would
//! have told, its datagrams go on from there; otherwise everything is told anew. Either way nothing
//! is shown twice: states up to the newest tick that was shown are taken in, and not handed to the
//! simulation. Inputs go on as in lockstep; of those that the old host may have replaced, the new one
//! says what acted, and the game is told of the rest.

use super::follow::Follower;
use super::switch::RECOVERY_US;
use super::{Client, lead_limits};
use std::collections::BTreeMap;

use crate::id::Slot;
use crate::input::{InputFrame, InputHistory};
use crate::lockstep::{DelayControl, Timeline};
use crate::node::api::{Event, SessionInfo};
use crate::node::audience::Audience;
use crate::node::core::term_log::Shared;
use crate::node::core::{Core, Todo};
use crate::node::standby::{FRAMES_MAX, Standby};
use crate::session::acted::Acted;
use crate::session::handshake::{BASELINES_MAX, Back, Baseline};
use crate::session::statistics::DropReason;
use crate::state::Snapshot;
use crate::statesync::{Publisher, PublisherConfig};
use crate::tick::Tick;
use crate::time::Time;

/// Round trip that is assumed where none was measured, in microseconds.
const RTT_US: u64 = 100_000;

/// What is left of a host that became a client, until all of its state is there.
#[derive(Debug)]
pub(super) struct Reigned {
    /// The newest tick that it ran.
    pub(super) tick: Tick,
    /// What acted, as far back as it is remembered.
    pub(super) acted: InputHistory,
    /// The inputs of the newest ticks, oldest first.
    pub(super) frames: Vec<InputFrame>,
    pub(super) publisher: Option<Box<Publisher>>,
    pub(super) snapshot_ticks: u32,
}

impl Follower {
    /// The newest snapshots that are held as a whole, for a Return.
    fn baselines(&mut self) -> Vec<Baseline> {
        let newest = self.receiver.newest_complete();
        if self.offered.first().map(|it| Tick::new(it.tick)) == newest {
            return self.offered.clone();
        }
        self.offered.clear();
        let mut next = newest;
        while let (Some(tick), Some(epoch)) = (next, self.receiver.epoch())
            && self.offered.len() < BASELINES_MAX
        {
            if let Some(hash) = self.receiver.hash_at(tick) {
                let tick = tick.number();
                self.offered.push(Baseline { tick, hash, epoch });
            }
            next = self.receiver.complete_before(tick);
        }
        self.offered.clone()
    }

    /// Another host goes on from `base`: with what is held up to there as its first reference, or with
    /// nothing.
    fn remain(&mut self, base: Tick, goes_on: bool) {
        if goes_on {
            self.receiver.rewind(base);
        } else {
            self.receiver.forget();
        }
        self.offered.clear();
        self.shown_upto = self.base().max(self.shown_upto);
        self.heard = base;
        self.is_first = true;
        self.forget_host();
    }
}

impl Client {
    /// What this node was shown beyond what it goes on from as a host, and what became of its inputs
    /// up to there.
    pub(super) fn settle_accounts(&mut self, core: &mut Core, shown: Tick, base: Tick) {
        if shown > base {
            core.report(Event::LostTicks {
                first: base.next(),
                last: shown,
            });
        }
        if let Some(slot) = self.peer.slot.filter(|_| self.active_from.is_some()) {
            let acted = Acted::newest(&core.known, slot);
            self.find_unacted(core, slot, base, Some(&acted), Some(base));
        }
    }

    /// What is held, for the next host.
    pub(super) fn baselines(&mut self) -> Vec<Baseline> {
        let follower = self.follower.as_mut();
        follower.map_or_else(Vec::new, |follower| follower.baselines())
    }

    /// Goes on with the new host.
    pub(super) fn remain(
        &mut self,
        core: &mut Core,
        now: Time,
        back: &Back,
        info: &SessionInfo,
        shared: Option<Shared>,
    ) -> Result<(), DropReason> {
        let base = Tick::new(back.welcome.from);
        let baseline = back.baseline.map(Tick::new);
        let follower = self.follower.as_ref().ok_or(DropReason::Unexpected)?;
        // What a host has run, it has shown.
        let shown = follower.base().max(follower.shown_upto);
        if let Some(baseline) = baseline {
            let is_held = follower.receiver.is_complete(baseline);
            if !is_held || baseline > base {
                return Err(DropReason::Malformed);
            }
        }
        let (active_from, running, slot) = (self.active_from, self.running, self.peer.slot);
        self.take_link(core, now, back, base);
        if let Some(follower) = &mut self.follower {
            follower.remain(base, baseline.is_some());
        }
        core.info.seed = info.seed;
        let is_new = core.info.term != info.term;
        match shared {
            Some(shared) => core.change_terms(shared, &back.terms),
            None => {
                core.terms.forget(info.term);
                core.info.term = info.term;
            }
        }
        self.running = running;
        self.due = true;
        let slot = slot.filter(|_| self.peer.slot == slot);
        self.go_on_with_inputs(core, back, slot, active_from);
        self.recovers_until = Some(now.plus_micros(RECOVERY_US));
        if let Some(standby) = &mut self.standby {
            standby.begin_term(info.term, base);
        }
        if let Some(shown) = shown.filter(|&shown| shown > base) {
            core.report(Event::LostTicks {
                first: base.next(),
                last: shown,
            });
        }
        self.report_link(core, back, is_new);
        self.advance(core, now);
        Ok(())
    }

    /// A host of state becomes a client: asks for all of the state that it ran.
    pub(super) fn leave_reign(&mut self, core: &mut Core, audience: Audience, rtt_us: Option<u64>) {
        let tick = core.timeline.simulated();
        core.told.hear(tick);
        let Audience {
            config, publisher, ..
        } = audience;
        self.snapshot_ticks = config.snapshot_ticks;
        let oldest = core.slots().map(|slot| core.known.oldest(slot)).max();
        let ticks = tick.since(oldest.unwrap_or(tick));
        let ticks = ticks.min(u32::try_from(FRAMES_MAX).unwrap_or(u32::MAX));
        let mut frames = Vec::new();
        for behind in (0..ticks).rev() {
            let at = tick.minus(behind);
            let mut frame = InputFrame::empty(at, core.info.slots, core.info.input_bytes);
            for slot in core.slots() {
                if let Some(input) = core.known.get(slot, at).bytes() {
                    frame.set(slot, input);
                }
            }
            frames.push(frame);
        }
        self.reigned = Some(Reigned {
            tick,
            acted: core.known.clone(),
            frames,
            publisher: Some(Box::new(publisher)),
            snapshot_ticks: config.snapshot_ticks,
        });
        core.todo.push_back(Todo::Authority(tick));
        // As a host it sampled for the very next tick. From now on inputs have a way to go.
        self.delay = DelayControl::new(lead_limits(&self.config));
        let way = core.rate.ticks_in_us_ceil(rtt_us.unwrap_or(RTT_US));
        self.delay.guess(way + 2);
        let ahead_us = u64::from(self.ahead(self.config.prediction_ticks)) * core.rate.tick_us();
        let now = core.clock.tick();
        let due_us = core.clock.due(now).micros();
        let due = Time::from_micros(due_us.saturating_sub(ahead_us));
        core.clock.jump(now, due);
        let upto = now.next().plus(self.delay.ticks());
        self.samples_all_upto = upto;
    }

    /// All of the state that this node ran as a host is there: it stands by with it, and shows it
    /// until the first state of another host comes.
    pub(in crate::node) fn commit_authority(
        &mut self,
        core: &mut Core,
        tick: Tick,
        hash: u64,
        state: Option<&mut Snapshot>,
    ) {
        let Some(reigned) = self.reigned.take_if(|it| it.tick == tick) else {
            return;
        };
        let (slots, input_bytes) = (core.info.slots, core.info.input_bytes);
        let predicts = core.info.slot.is_some() && self.config.prediction_ticks > 0;
        let prediction = if predicts {
            self.config.prediction_ticks
        } else {
            0
        };
        let (schema, ticks) = (&self.config.game.schema, reigned.snapshot_ticks);
        let mut follower = Follower::new(schema, ticks, prediction, tick);
        follower.begins_with_state(tick);
        if let Some(publisher) = &reigned.publisher {
            follower.receiver.seed(publisher);
        }
        self.follower = Some(Box::new(follower));
        core.follows = true;
        core.info.images = u32::from(predicts);
        core.info.desync_interval = 0;
        core.timeline = Timeline::new(slots, input_bytes, prediction, tick);
        if let Some(state) = state {
            let publishes = PublisherConfig::new(&self.state_sync_config(), core.rate);
            let mut standby = Standby::new(schema, core, publishes);
            standby.hold(
                core::mem::take(state),
                hash,
                reigned.acted,
                reigned.frames,
                reigned.publisher,
            );
            self.standby = Some(Box::new(standby));
        }
    }

    /// Inputs that the new host wants are offered from there; the game is told what became of the
    /// others.
    fn go_on_with_inputs(
        &mut self,
        core: &mut Core,
        back: &Back,
        slot: Option<Slot>,
        active_from: Option<Tick>,
    ) {
        let (Some(slot), Some(own)) = (slot, self.peer.slot) else {
            if let Some(slot) = self.peer.slot {
                core.submitted.start(slot, Tick::ZERO);
            }
            core.awaited = None;
            return;
        };
        debug_assert_eq!(slot, own, "the same slot");
        let after = back
            .inputs_after
            .map(Tick::new)
            .filter(|&after| active_from.is_some() && core.submitted.oldest(slot) <= after);
        if active_from.is_some() {
            let base = Tick::new(back.welcome.from);
            self.find_unacted(core, slot, base, back.acted.as_ref(), after);
        }
        if let Some(after) = after {
            self.active_from = active_from;
            self.said_ready = true;
            if core.submitted.newest(slot) < after {
                core.submitted.start(slot, after);
            }
            self.exchange.offer(slot, after);
        } else {
            core.submitted.start(slot, Tick::ZERO);
            core.awaited = None;
        }
    }

    /// Tells the game of own inputs that did not act, up to those that the new host takes. What was
    /// sampled for ticks beyond `base` is known to nobody but this node, and what was replaced long
    /// before was told. Of the ticks between, those that the new host does not know either count as
    /// replaced: the old host's word on them may have been lost.
    fn find_unacted(
        &self,
        core: &mut Core,
        slot: Slot,
        base: Tick,
        acted: Option<&Acted>,
        after: Option<Tick>,
    ) {
        core.told.forget_ahead();
        let Some(acted) = acted else { return };
        let newest = core.submitted.newest(slot);
        let last = after.map_or(newest, |after| after.min(newest));
        let told: BTreeMap<Tick, Option<&[u8]>> = acted.ticks(core.info.input_bytes).collect();
        let sure_upto = core.told.sure_upto();
        let first = Tick::new(acted.first).min(base.min(sure_upto).next());
        let first = first.max(core.submitted.oldest(slot).next());
        for number in first.number()..=last.number() {
            let tick = Tick::new(number);
            let Some(submitted) = core.submitted.get(slot, tick).bytes() else {
                continue;
            };
            let acts = match told.get(&tick) {
                Some(&there) => there == Some(submitted),
                None => tick <= base && tick <= sure_upto,
            };
            if !acts {
                core.tell_replaced(tick);
            }
        }
    }
}
