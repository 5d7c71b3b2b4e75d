//! The seam between the protocol and a game: one trait.
//!
//! `netcode` owns it, `phalanx::EcsSimulation` implements it, and a toy in a test can too. A node
//! never touches a simulation; it emits requests, and a driver obeys them here.

use std::sync::Arc;

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

    /// Writes what clients may see of the current state: as [`Simulation::export`], with all other
    /// kinds empty. `out` may be a snapshot of another state, whose memory can be used again.
    fn publish(&mut self, out: &mut Snapshot) {
        let mut image = Self::Image::default();
        self.capture(&mut image);
        *out = self.export(&image);
        for (rows, kind) in out.kinds.iter_mut().zip(self.schema().kinds()) {
            if kind.visibility != Visibility::Client {
                rows.clear();
            }
        }
    }

    /// Takes over what an authority says of the current state. Kinds that clients do not get stay
    /// as they are here; those that are derived are computed anew.
    ///
    /// # Errors
    /// If the result is no state of the schema; the current state is then unchanged.
    fn patch(&mut self, patch: &Patch) -> Result<(), ImportError> {
        let mut image = Self::Image::default();
        self.capture(&mut image);
        let mut snapshot = self.export(&image);
        patch.apply_to(self.schema(), &mut snapshot);
        self.import(&snapshot)
    }
}
