//! How the match stands, for people.

use phalanx::prelude::*;

use super::{Armies, ControlPoint, Downed, Hero};

/// How one slot's army stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whose.
    pub slot: Slot,
    /// What its control points have brought.
    pub score: u32,
    /// Control points that it holds.
    pub points: u32,
    /// Units on the field.
    pub units: u32,
    /// Enemies that it has felled.
    pub kills: u32,
    /// Units and heroes that it has lost.
    pub losses: u32,
    /// Whether its hero is on the field.
    pub hero: bool,
}

/// How all armies stand, by slot.
#[must_use]
pub fn standings(world: &World) -> Vec<Standing> {
    let Some(armies) = world.get_resource::<Armies>() else {
        return Vec::new();
    };
    let mut standings: Vec<Standing> = (0..=u8::MAX)
        .map(Slot)
        .zip(&armies.0)
        .map(|(slot, army)| Standing {
            slot,
            score: army.score,
            points: 0,
            units: army
                .fallen
                .iter()
                .fold(army.units, |units, &fallen| units.saturating_sub(fallen)),
            kills: army.kills,
            losses: army.losses,
            hero: false,
        })
        .collect();
    for (_, entity) in world.resource::<NetIndex>().iter() {
        if let Some(point) = world.get::<ControlPoint>(entity)
            && let Some(holder) = point.holder
            && let Some(standing) = standings.get_mut(holder.index())
        {
            standing.points += 1;
        }
        if let Some(hero) = world.get::<Hero>(entity)
            && world.get::<Downed>(entity).is_none()
            && let Some(standing) = standings.get_mut(hero.slot.index())
        {
            standing.hero = true;
        }
    }
    standings
}
