//! Entities that this client decides: it tells the host of them, and nobody turns them back.
//!
//! After each tick that runs for the first time, their rows are kept and claimed. When the host's
//! states make ticks run again, the kept rows come back at the end: what the host says of such an
//! entity is what it was told a round trip ago.

use super::Client;
use super::follow::Follower;
use crate::id::{NetId, Slot};
use crate::node::core::{Core, Todo};
use crate::state::{Patch, Schema, Snapshot};
use crate::statesync::{Claims, authority_kind, authority_of};
use crate::tick::Tick;

/// Ticks whose rows are kept.
const DECIDED_TICKS: usize = 128;

/// What a client decides.
#[derive(Debug)]
pub(super) struct Decided {
    kind: Option<u16>,
    pub(super) claims: Claims,
    /// Entities that this client decides by the host's newest word, ascending.
    ids: Vec<NetId>,
    /// Their rows after each tick.
    kept: Vec<Snapshot>,
    /// Rows that the driver writes back.
    pub(super) patch: Patch,
}

impl Decided {
    pub(super) fn new(schema: &Schema) -> Self {
        Self {
            kind: authority_kind(schema),
            claims: Claims::new(schema),
            ids: Vec::new(),
            kept: Vec::new(),
            patch: Patch::default(),
        }
    }

    pub(super) fn has(&self, id: NetId) -> bool {
        self.ids.binary_search(&id).is_ok()
    }

    /// Makes the patch that writes back what was there after `tick`; false if that is nothing.
    fn look_back(&mut self, tick: Tick) -> bool {
        let Self {
            ids, kept, patch, ..
        } = self;
        let Some(kept) = kept
            .get(tick.number() as usize % DECIDED_TICKS)
            .filter(|kept| kept.tick == tick && tick != Tick::ZERO)
        else {
            return false;
        };
        patch.tick = tick;
        patch.is_whole = false;
        patch.removed.clear();
        patch.kinds.resize_with(kept.kinds.len(), Default::default);
        let mut is_some = false;
        for (kind, (to, from)) in (0_usize..).zip(patch.kinds.iter_mut().zip(&kept.kinds)) {
            to.rows.clear();
            to.removed.clear();
            if !self.claims.is_claimable(kind) {
                continue;
            }
            for (id, row) in from.rows() {
                if ids.binary_search(&id).is_ok() {
                    to.rows.push(id, |out| out.extend_from_slice(row));
                    is_some = true;
                }
            }
        }
        is_some
    }
}

impl Follower {
    /// Takes in which entities `slot` decides by the newest state.
    pub(super) fn find_decided(&mut self, slot: Option<Slot>) {
        let decided = &mut self.decided;
        decided.ids.clear();
        let (Some(kind), Some(slot)) = (decided.kind, slot) else {
            return;
        };
        let (layout, shapes) = (self.receiver.layout(), self.receiver.shapes());
        let Some(held) = self.held.back() else {
            return;
        };
        for entity in held.snapshot.entities() {
            if authority_of(layout, shapes, kind, &entity) == Some(slot) {
                decided.ids.push(entity.id);
            }
        }
        if decided.ids.is_empty() {
            decided.claims.clear();
        }
    }

    /// Asks for what this client decides, after a tick that ran for the first time.
    pub(super) fn claim_after(&self, core: &mut Core, tick: Tick, slot: Slot) {
        if !self.decided.ids.is_empty() {
            core.todo.push_back(Todo::PublishDecided(tick, slot));
        }
    }

    /// Asks that what this client decided up to `tick` is written back.
    pub(super) fn keep_decided(&self, core: &mut Core, tick: Tick) {
        if !self.decided.ids.is_empty() {
            core.todo.push_back(Todo::Overwrite(tick));
        }
    }
}

impl Client {
    /// What this client decides, as it is after a tick.
    pub(in crate::node) fn commit_decided(&mut self, snapshot: &Snapshot) {
        let Some(follower) = &mut self.follower else {
            return;
        };
        let layout = follower.receiver.layout();
        let decided = &mut follower.decided;
        decided.kept.resize_with(DECIDED_TICKS, Snapshot::default);
        let kept = &mut decided.kept[snapshot.tick.number() as usize % DECIDED_TICKS];
        kept.clone_from(snapshot);
        let ids = &decided.ids;
        decided
            .claims
            .update(layout, snapshot, |id| ids.binary_search(&id).is_ok());
        follower.statistics.claims_unsent = decided.claims.too_large;
    }

    /// What this client had decided after `tick`, to be written back; `None` if that is nothing.
    pub(in crate::node) fn look_back(&mut self, tick: Tick) -> Option<&Patch> {
        let decided = &mut self.follower.as_mut()?.decided;
        decided.look_back(tick).then_some(&decided.patch)
    }
}
