//! The rules: the initial state, and one tick as a chain of systems.

mod combat;
mod movement;
mod players;
mod points;

use bevy_ecs::schedule::{IntoScheduleConfigs, ScheduleConfigs};
use bevy_ecs::system::ScheduleSystem;
use phalanx::prelude::*;

use super::field::Field;
use super::{
    Armies, Army, ControlPoint, FIELD_M, Health, Position, SQUADS, Unit, Velocity, Weapon,
};

/// Health of a unit at its best.
const UNIT_HEALTH: u16 = 100;

/// The tick, in order. A client of a state-sync session predicts its own hero and leaves the rest
/// to the host.
pub(super) fn systems() -> ScheduleConfigs<ScheduleSystem> {
    (
        (players::come_and_go, players::give_orders)
            .chain()
            .run_if(on_authority),
        players::steer_heroes,
        (
            survey,
            movement::look_and_steer,
            movement::advance,
            combat::fight,
        )
            .chain()
            .run_if(on_authority),
        combat::strike,
        combat::fall.run_if(on_authority),
        combat::rise,
        (combat::reinforce, points::capture)
            .chain()
            .run_if(on_authority),
    )
        .chain()
}

/// Makes the initial state: control points, and around its base every slot's army.
pub(super) fn set_up(world: &mut World, setup: &SessionSetup, units: u32) {
    world.init_resource::<Field>();
    for row in 1..=3_u8 {
        for column in 1..=3_u8 {
            let place = Vec2::new(f32::from(column), f32::from(row)) * (FIELD_M / 4.0);
            world.spawn_networked((ControlPoint::default(), Position(place)));
        }
    }
    let slots = u32::from(setup.slots);
    let mut armies = Armies::default();
    for slot in 0..setup.slots {
        // What does not divide evenly goes to the first slots.
        let share = units / slots + u32::from(u32::from(slot) < units % slots);
        let slot = Slot(slot);
        for number in 0..share {
            let squad = squad_of(number);
            let place = place_near_base(world.resource_mut::<TickRng>(), slot, setup.slots, 14.0);
            world.spawn_networked(recruit(slot, squad, place));
        }
        armies.0.push(Army {
            units: share,
            ..Army::default()
        });
    }
    world.insert_resource(armies);
}

/// Takes stock of who stands where. Fallen heroes are not on the field.
#[expect(clippy::type_complexity, reason = "a query's type says what it reads")]
fn survey(
    mut field: ResMut<Field>,
    fighters: Ordered<(&NetId, &Position, Option<&Unit>, Option<&super::Hero>), Standing>,
) {
    let all = fighters.iter().filter_map(|(id, position, unit, hero)| {
        let slot = unit.map(|unit| unit.slot).or(hero.map(|hero| hero.slot))?;
        Some((*id, position.0, slot))
    });
    field.survey(all);
}

/// Those who can fight and be hit.
type Standing = (With<Weapon>, Without<super::Downed>);

/// A fresh unit.
fn recruit(slot: Slot, squad: u8, place: Vec2) -> impl Bundle {
    (
        Unit { slot, squad },
        Position(place),
        Velocity::default(),
        Health(UNIT_HEALTH),
        Weapon::default(),
    )
}

/// Squads are filled in turn.
fn squad_of(number: u32) -> u8 {
    let [squad, ..] = (number % SQUADS_U32).to_le_bytes();
    squad
}

const SQUADS_U32: u32 = 4;
const _: () = assert!(SQUADS_U32 as usize == SQUADS);

/// Where an army starts and comes back: the slots stand on a circle.
fn base_of(slot: Slot, slots: u8) -> Vec2 {
    let angle = f32::from(slot.0) * (core::f32::consts::TAU / f32::from(slots.max(1)));
    let (sin, cos) = math::sin_cos(angle);
    Vec2::splat(FIELD_M / 2.0) + Vec2::new(cos, sin) * (FIELD_M * 0.32)
}

/// A random place within `radius` metres of a base, in a square.
fn place_near_base(mut rng: Mut<'_, TickRng>, slot: Slot, slots: u8, radius: f32) -> Vec2 {
    let x = rng.range_f32(-radius, radius);
    let y = rng.range_f32(-radius, radius);
    on_field(base_of(slot, slots) + Vec2::new(x, y))
}

/// The nearest place on the field.
fn on_field(place: Vec2) -> Vec2 {
    let clamp = |metres| math::max(0.0, math::min(FIELD_M, metres));
    Vec2::new(clamp(place.x), clamp(place.y))
}

/// Every slot that there can be. A state that comes from a file may hold more armies; those do
/// nothing.
fn all_slots() -> impl Iterator<Item = Slot> {
    (0..=u8::MAX).map(Slot)
}

/// The session's slots.
fn slots_of(armies: &Armies) -> u8 {
    u8::try_from(armies.0.len()).unwrap_or(u8::MAX)
}
