//! Who decides what: the authority, clients that predict, and who owns which entity.
//!
//! The same systems run everywhere. In lockstep every node is an authority over the whole state.
//! In state-sync the host is, and a client runs the tick ahead of it to predict what its own
//! player does; [`Side`] tells systems which of these they are part of, so that they can leave to
//! the host what only the host can know.

use bevy_ecs::component::Component;
use bevy_ecs::resource::Resource;
use bevy_ecs::system::Res;
use phalanx_macros::Networked;
use phalanx_netcode::id::Slot;

/// The slot whose player an entity belongs to. Registered in every game.
///
/// In state-sync the client in that slot predicts the entity; all others interpolate it. In
/// lockstep it has no effect but the one that the game gives it.
#[derive(Component, Networked, Clone, Copy, Debug, PartialEq, Eq)]
#[networked(name = "phalanx.owner")]
pub struct Owner(pub Slot);

/// The slot that decides an entity's values instead of the host. Registered in every game.
///
/// In state-sync the host takes over what the client in that slot says about the entity, as far as
/// the game's rules let it pass. Entities without it are the host's. Only a client that predicts
/// runs ticks, and so decides anything: one whose `prediction_ticks` is 0 leaves such an entity as
/// it was.
#[derive(Component, Networked, Clone, Copy, Debug, PartialEq, Eq)]
#[networked(name = "phalanx.authority")]
pub struct Authority(pub Slot);

/// On which side of the session the running systems are.
///
/// It is no state: it differs between nodes. What it skips, a client does not predict; the host's
/// next snapshot brings the outcome.
///
/// ```
/// use phalanx::prelude::*;
///
/// # #[derive(Component)]
/// # struct Monster;
/// fn monsters_think(side: Res<Side>, monsters: Query<&Monster>) {
///     if !side.is_authority() {
///         return;
///     }
///     // What follows runs in lockstep and on the host of a state-sync session.
/// #   let _ = monsters;
/// }
/// ```
#[derive(Resource, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Side {
    /// What this node computes is the state: every node of a lockstep session, and the host of a
    /// state-sync session.
    #[default]
    Authority,
    /// A client of a state-sync session runs ahead of the host, for the player in this slot.
    Predicting(Slot),
    /// A client of a state-sync session without a slot. It runs no ticks.
    Spectating,
}

impl Side {
    /// Whether what this node computes is the state.
    #[must_use]
    pub const fn is_authority(self) -> bool {
        matches!(self, Self::Authority)
    }

    /// The slot for which this client predicts.
    #[must_use]
    pub const fn predicting(self) -> Option<Slot> {
        match self {
            Self::Predicting(slot) => Some(slot),
            Self::Authority | Self::Spectating => None,
        }
    }

    /// Whether this node computes what belongs to `slot`: an authority does for all, a client for
    /// its own.
    #[must_use]
    pub fn computes(self, slot: Slot) -> bool {
        match self {
            Self::Authority => true,
            Self::Predicting(own) => own == slot,
            Self::Spectating => false,
        }
    }
}

/// A condition for systems that only an authority runs: artificial players, spawning, loot.
///
/// ```
/// use phalanx::prelude::*;
///
/// # fn monsters_think() {}
/// # fn steer() {}
/// # fn main() -> Result<(), GameError> {
/// Game::builder("example")
///     .systems(|| (steer, monsters_think.run_if(on_authority)).chain())
/// #   .build()?;
/// # Ok(())
/// # }
/// ```
#[must_use]
pub fn on_authority(side: Res<Side>) -> bool {
    side.is_authority()
}
