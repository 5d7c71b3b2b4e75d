//! The seam between the protocol and a game: one trait.
//!
//! `netcode` owns it, `phalanx::EcsSimulation` implements it, and a toy in a test can too. A node
//! never touches a simulation; it emits requests, and a driver obeys them here.

use std::sync::Arc;

use crate::id::Slot;
use crate::input::InputFrame;
use crate::state::{ImportError, Patch, Schema, Snapshot, StateHash, Visibility};
use crate::tick::Tick;

/// How a step came about. Sounds and effects belong to steps that are [`StepKind::First`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepKind {
    /// The tick runs for the first time on this node.
    First,
    /// The tick ran before, on inputs that were guessed wrong; it runs again.
    Again,
}

/// A game whose next state is a function of its state and an input frame.
///
/// # Contract
/// Two simulations that agree on [`Simulation::hash`] at tick T and take the same frames agree at
/// every later tick, on every platform and whatever their history was. [`Simulation::restore`] of
/// a captured image and [`Simulation::import`] of an exported snapshot are such histories.
pub trait Simulation {
    /// A saved state for this process only: as cheap as a copy of memory. The driver keeps a ring
    /// of them for rollback, desync reports and joins.
    type Image: Default;

    /// What the state consists of. It never changes during a session.
    fn schema(&self) -> &Arc<Schema>;

    /// The tick of the current state; 0 before the first step.
    fn tick(&self) -> Tick;

    /// Advances by one tick. `frame.tick()` is `self.tick() + 1`.
    fn step(&mut self, frame: &InputFrame, kind: StepKind);

    /// Hashes the current state into `out`, per kind and combined.
    fn hash(&mut self, out: &mut StateHash);

    /// Saves the current state into `image`, reusing its memory.
    fn capture(&mut self, image: &mut Self::Image);

    /// Returns to a state that this simulation captured.
    fn restore(&mut self, image: &Self::Image);

    /// Hashes a captured state, equal to what [`Simulation::hash`] gave then.
    fn hash_image(&self, image: &Self::Image, out: &mut StateHash);

    /// A captured state in its canonical form, for other nodes and for files.
    fn export(&self, image: &Self::Image) -> Snapshot;

    /// Takes over a canonical state, for example of another node.
    ///
    /// # Errors
    /// If the snapshot does not fit the schema; the current state is then unchanged.
    fn import(&mut self, snapshot: &Snapshot) -> Result<(), ImportError>;

    // ---- state-sync mode ----

    /// Writes what clients may see of the current state, in its canonical form: kinds that are not
    /// visible to clients have no rows. On the host, every few ticks.
    fn publish(&mut self, out: &mut Snapshot) {
        let mut image = Self::Image::default();
        self.capture(&mut image);
        *out = self.export(&image);
        let schema = Arc::clone(self.schema());
        for (rows, kind) in out.kinds.iter_mut().zip(schema.kinds()) {
            if kind.visibility != Visibility::Client {
                rows.clear();
            }
        }
    }

    /// As [`Simulation::publish`], but only the entities that belong to `slot`: those whose
    /// [`OWNER_KIND`] says so. On a client that predicts them.
    fn publish_owned(&mut self, slot: Slot, out: &mut Snapshot) {
        self.publish(out);
        let schema = Arc::clone(self.schema());
        let owners = schema
            .kinds()
            .iter()
            .position(|kind| kind.name == OWNER_KIND);
        let owners = owners.and_then(|index| out.kinds.get(index)).cloned();
        for rows in &mut out.kinds {
            let all = core::mem::take(rows);
            for (id, row) in all.rows() {
                let owner = owners.as_ref().and_then(|owners| owners.find(id)?.first());
                if owner == Some(&slot.0) {
                    rows.push(id, |out| out.extend_from_slice(row));
                }
            }
        }
    }

    /// Takes over what the authority says has changed; the state is that of `patch.tick` then.
    /// Kinds that clients do not get keep the values that they have here.
    ///
    /// # Errors
    /// If the patch does not fit the schema; the current state is then unchanged.
    fn patch(&mut self, patch: &Patch) -> Result<(), ImportError> {
        let mut image = Self::Image::default();
        self.capture(&mut image);
        let mut snapshot = self.export(&image);
        patch.apply_to(&Arc::clone(self.schema()), &mut snapshot);
        self.import(&snapshot)
    }

    /// Takes notice that the player of `slot` sees others as they were `behind_ticks` ago when its
    /// inputs act: for queries that the host answers for what that player saw.
    fn seen(&mut self, slot: Slot, behind_ticks: u32) {
        let _ = (slot, behind_ticks);
    }
}

/// Name of the kind that says which slot an entity belongs to, in the first byte of its rows.
pub const OWNER_KIND: &str = "phalanx.owner";
