//! Prediction: own entities react at once, and what the host says corrects them.
//!
//! The simulation goes back to the newest state of the host, and runs the ticks behind it on this
//! node's own inputs, up to where it was. How much of the world it continues is its own affair.

use super::Client;
use crate::id::NetId;
use crate::node::core::{Core, Todo};
use crate::simulation::StepKind;
use crate::state::{EntityRef, Shape, Snapshot, WireLayout};
use crate::tick::Tick;

/// Terms from here on stand for entities that only exist on a client: predicted spawns.
const PREDICTED_TERM: u32 = 1 << 31;

impl Client {
    /// Whether this node runs ticks of its own.
    pub(super) fn predicts(&self, core: &Core) -> bool {
        core.timeline.prediction() > 0 && self.active_from.is_some() && core.info.images > 0
    }

    /// Runs ticks up to `tick`, as far as prediction reaches.
    pub(super) fn predict_up_to(&mut self, core: &mut Core, tick: Tick) {
        let (predicts, slot) = (self.predicts(core), self.peer.slot);
        let (Some(follower), Some(slot)) = (&mut self.follower, slot) else {
            return;
        };
        let Some(base) = follower.base().filter(|_| predicts) else {
            return;
        };
        let upto = tick
            .min(base.plus(follower.reach))
            .min(core.last_tick.unwrap_or(Tick::MAX));
        while core.timeline.simulated() < upto {
            let next = core.timeline.simulated().next();
            let kind = if next > follower.ran {
                follower.ran = next;
                core.statistics.ticks += 1;
                StepKind::First
            } else {
                core.statistics.ticks_again += 1;
                StepKind::Again
            };
            core.timeline.follow(core.timeline.settled(), next);
            core.todo.push_back(Todo::Step(next, kind));
            if next.number().is_multiple_of(follower.snapshot_ticks) {
                core.todo.push_back(Todo::PublishOwned(next, slot));
            }
            if kind == StepKind::First {
                follower.claim_after(core, next, slot);
            }
        }
    }

    /// Own entities as they are predicted.
    pub(in crate::node) fn commit_owned(&mut self, snapshot: &Snapshot) {
        let Some(follower) = &mut self.follower else {
            return;
        };
        let place = follower.place(snapshot.tick);
        let kept = &mut follower.predicted[place];
        kept.tick = snapshot.tick;
        kept.kinds
            .resize_with(snapshot.kinds.len(), Default::default);
        for (kept, rows) in kept.kinds.iter_mut().zip(&snapshot.kinds) {
            kept.ids.clone_from(&rows.ids);
            kept.ends.clone_from(&rows.ends);
            kept.bytes.clone_from(&rows.bytes);
        }
    }

    /// Compares what was predicted for the snapshot at `tick` with what the host says, once.
    pub(super) fn judge(&mut self, tick: Tick) {
        let Some(follower) = &mut self.follower else {
            return;
        };
        let place = follower.place(tick);
        let predicted = &follower.predicted[place];
        let is_new = follower.judged.is_none_or(|judged| judged < tick);
        let (Some(held), true) = (follower.received().last(), predicted.tick == tick && is_new)
        else {
            return;
        };
        if !held.is_complete || tick == Tick::ZERO {
            return;
        }
        let layout = follower.receiver.layout();
        let shapes = follower.receiver.shapes();
        let (mut judged, mut wrong) = (0, 0);
        // What the host says of entities that are decided here says nothing about predictions.
        for id in entities_of(predicted).filter(|&id| !follower.decided.has(id)) {
            let real = held.snapshot.find(id);
            let is_right = real.is_some_and(|real| {
                let shape = shapes.get(real.shape);
                is_as_predicted(layout, shape, &real, predicted)
            });
            judged += 1;
            wrong += u64::from(!is_right);
        }
        follower.statistics.predictions += judged;
        follower.statistics.corrections += wrong;
        follower.judged = Some(tick);
    }
}

/// The entities of `snapshot`, each once, without those that only exist here.
fn entities_of(snapshot: &Snapshot) -> impl Iterator<Item = NetId> {
    let mut ids: Vec<NetId> = snapshot
        .kinds
        .iter()
        .flat_map(|rows| rows.ids.iter().copied())
        .filter(|id| id.term().0 < PREDICTED_TERM && *id != NetId::NONE)
        .collect();
    ids.sort_unstable();
    ids.dedup();
    ids.into_iter()
}

/// Whether `predicted` has the values of `real`, as far as the wire tells them apart.
fn is_as_predicted(
    layout: &WireLayout,
    shape: &Shape,
    real: &EntityRef<'_>,
    predicted: &Snapshot,
) -> bool {
    let (mut lanes, mut opaque, mut clamped) = (Vec::new(), Vec::new(), 0);
    for &kind in shape.kinds.iter() {
        let number = usize::from(kind);
        let row = predicted
            .kinds
            .get(number)
            .and_then(|rows| rows.find(real.id));
        let is_read = layout.kind(kind).zip(row).is_some_and(|(layout, row)| {
            let read = layout.quantize(row, &mut lanes, &mut opaque, &mut clamped);
            read.is_ok()
        });
        if !is_read {
            return false;
        }
    }
    lanes == real.lanes && opaque == real.opaque
}
