//! Units see, decide and move.
//!
//! Every unit decides in one tick of [`THINK_TICKS`], by its NetId, and moves in all of them; that
//! quarters the cost of looking at neighbours.

use phalanx::prelude::*;

use super::on_field;
use super::players::Destinations;
use crate::arena::field::{CELL_M, Field};
use crate::arena::{
    Armies, ControlPoint, Downed, Hero, Position, SquadOrder, Unit, Velocity, Weapon,
};

/// Ticks between two decisions of a unit.
const THINK_TICKS: u64 = 4;
/// Metres per tick of a unit.
const UNIT_SPEED: f32 = 0.15;
/// Metres that units keep between each other.
const SPACING_M: f32 = 1.2;
/// A unit closer to its destination than this has arrived.
const ARRIVAL_M: f32 = 6.0;

/// Reach of a weapon, in metres. Squads 2 and 3 shoot.
pub(super) fn reach_of(squad: u8) -> f32 {
    if squad < 2 { 1.6 } else { 3.6 }
}

/// Units choose the nearest enemy in view, and their way: to that enemy, or else to where their
/// squad is ordered, and in any case away from whoever is too close.
pub(super) fn look_and_steer(
    tick: Res<CurrentTick>,
    field: Res<Field>,
    armies: Res<Armies>,
    points: Ordered<(&ControlPoint, &Position)>,
    heroes: Ordered<(&Hero, &Position), Without<Downed>>,
    mut units: Query<(&NetId, &Unit, &Position, &mut Velocity, &mut Weapon)>,
) {
    let destinations = Destinations::new(
        &armies,
        heroes
            .iter()
            .map(|(hero, position)| (hero.slot, position.0)),
    );
    let points: Vec<(Option<Slot>, Vec2)> = points
        .iter()
        .map(|(point, position)| (point.holder, position.0))
        .collect();
    let phase = u64::from(tick.0.number());
    // Units read the survey and write only themselves: their order plays no role.
    for (id, unit, position, mut velocity, mut weapon) in &mut units {
        if !(id.bits() + phase).is_multiple_of(THINK_TICKS) {
            continue;
        }
        let here = position.0;
        let surroundings = look(&field, *id, unit.slot, here);
        weapon.target = surroundings.enemy.map_or(NetId::NONE, |(id, _)| id);
        let way = match surroundings.enemy {
            Some((_, enemy)) => {
                let way = enemy - here;
                // Inside its reach a unit stands and fights.
                if way.length_squared() < reach_of(unit.squad) * reach_of(unit.squad) {
                    Vec2::ZERO
                } else {
                    way
                }
            }
            None => match destinations.of(unit.slot, unit.squad) {
                SquadOrder::Seek => way_to_nearest(&points, unit.slot, here),
                SquadOrder::Go(place) => unless_arrived(place - here),
                SquadOrder::Hold | SquadOrder::Follow => Vec2::ZERO,
            },
        };
        let way = way.normalize_or_zero() + surroundings.push;
        velocity.0 = way.clamp_length_max(1.0) * UNIT_SPEED;
    }
}

/// Units move.
pub(super) fn advance(mut units: Query<(&mut Position, &Velocity), With<Unit>>) {
    for (mut position, velocity) in &mut units {
        position.0 = on_field(position.0 + velocity.0);
    }
}

/// What a unit notices.
struct Surroundings {
    /// The nearest enemy in view.
    enemy: Option<(NetId, Vec2)>,
    /// Away from whoever is too close.
    push: Vec2,
}

fn look(field: &Field, own: NetId, slot: Slot, here: Vec2) -> Surroundings {
    let mut nearest = None;
    let mut nearest_squared = CELL_M * CELL_M;
    let mut push = Vec2::ZERO;
    for seen in field.around(here, CELL_M) {
        let away = here - seen.position;
        let squared = away.length_squared();
        if squared < SPACING_M * SPACING_M {
            if squared > 0.0 {
                push += away * (1.0 - squared / (SPACING_M * SPACING_M));
            } else if field.id(seen.index) < own {
                // Two on the same spot must not stay there: the younger one yields.
                push.x += 1.0;
            }
        }
        if seen.slot != slot && squared < nearest_squared {
            nearest_squared = squared;
            nearest = Some(*seen);
        }
    }
    Surroundings {
        enemy: nearest.map(|seen| (field.id(seen.index), seen.position)),
        push,
    }
}

fn way_to_nearest(points: &[(Option<Slot>, Vec2)], slot: Slot, here: Vec2) -> Vec2 {
    let mut nearest = Vec2::ZERO;
    let mut nearest_squared = f32::INFINITY;
    for &(holder, place) in points {
        let way = place - here;
        if holder != Some(slot) && way.length_squared() < nearest_squared {
            nearest_squared = way.length_squared();
            nearest = way;
        }
    }
    // Seekers go right to the middle of a point, else they would stop before they take it.
    nearest
}

fn unless_arrived(way: Vec2) -> Vec2 {
    if way.length_squared() < ARRIVAL_M * ARRIVAL_M {
        Vec2::ZERO
    } else {
        way
    }
}
