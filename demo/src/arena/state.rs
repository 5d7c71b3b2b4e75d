//! What the game's state consists of, and how exactly state-sync clients get it.

use phalanx::prelude::*;

/// Squads of an army. Squads 0 and 1 fight at arm's length, 2 and 3 shoot.
pub const SQUADS: usize = 4;

/// Steps per metre in which state-sync clients get a [`Position`].
pub(super) const STEPS_PER_M: f32 = 128.0;

/// Where something is, in metres. Clients get it in steps of 1/128 m.
#[derive(Component, Networked, Clone, Copy, Debug, Default, PartialEq)]
pub struct Position(
    #[networked(range(0..=200), per_unit = 128, position, interpolate = "linear")] pub Vec2,
);

/// Metres per tick; the host's affair in state-sync mode: clients see where things are.
#[derive(Component, Networked, Clone, Copy, Debug, Default, PartialEq)]
#[networked(visibility = HostOnly)]
pub struct Velocity(pub Vec2);

/// A member of an army.
#[derive(Component, Networked, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Whose army.
    #[networked(range(0..=63), predict = "last")]
    pub slot: Slot,
    /// Which squad of it, `0..SQUADS`.
    #[networked(range(0..=3), predict = "last")]
    pub squad: u8,
}

/// What a unit or hero can still take. At 0 it falls in the same tick.
#[derive(Component, Networked, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health(#[networked(range(0..=1000), predict = "last")] pub u16);

/// What a unit or hero fights with; the host's affair in state-sync mode.
#[derive(Component, Networked, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[networked(visibility = HostOnly)]
pub struct Weapon {
    /// Ticks until it may hit again.
    #[networked(range(0..=31))]
    pub reload: u8,
    /// The enemy in view, [`NetId::NONE`] if there is none.
    pub target: NetId,
}

/// The unit that a player steers. It exists while the slot takes part.
#[derive(Component, Networked, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hero {
    /// Whose hero.
    #[networked(range(0..=63), predict = "last")]
    pub slot: Slot,
    /// Ticks until it may strike around itself again.
    #[networked(range(0..=63))]
    pub strike: u8,
}

/// A hero that fell and waits at its base.
#[derive(Component, Networked, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Downed {
    /// The tick in which it rises.
    pub until: Tick,
}

/// A place worth holding.
#[derive(Component, Networked, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ControlPoint {
    /// Who holds it.
    #[networked(range(0..=63), predict = "last")]
    pub holder: Option<Slot>,
    /// Who is about to take it.
    #[networked(range(0..=63), predict = "last")]
    pub claimant: Option<Slot>,
    /// Ticks for which the claimant has outnumbered all others.
    #[networked(range(0..=127))]
    pub progress: u16,
}

/// All armies, by slot.
#[derive(Resource, Networked, Clone, Debug, Default, PartialEq)]
pub struct Armies(pub Vec<Army>);

/// One slot's army.
#[derive(Exact, Clone, Debug, Default, PartialEq)]
pub struct Army {
    /// What each squad is to do.
    pub orders: [SquadOrder; SQUADS],
    /// Units of each squad that fell and have not come back yet.
    pub fallen: [u32; SQUADS],
    /// Units of this army, fallen ones included.
    pub units: u32,
    /// Enemies that this army has felled.
    pub kills: u32,
    /// Units and heroes that it has lost.
    pub losses: u32,
    /// What its control points have brought.
    pub score: u32,
}

/// What a squad is to do.
#[derive(Exact, Clone, Copy, Debug, Default, PartialEq)]
pub enum SquadOrder {
    /// Go to the nearest control point that the army does not hold.
    #[default]
    Seek,
    /// Go to a place.
    Go(Vec2),
    /// Stay.
    Hold,
    /// Go with the hero.
    Follow,
}

impl Armies {
    /// The army of `slot`, if the session has that slot.
    #[must_use]
    pub fn of(&self, slot: Slot) -> Option<&Army> {
        self.0.get(slot.index())
    }

    pub(super) fn of_mut(&mut self, slot: Slot) -> Option<&mut Army> {
        self.0.get_mut(slot.index())
    }
}
