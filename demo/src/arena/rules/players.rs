//! What players do: come, go, give orders, steer their heroes.

use std::collections::BTreeMap;

use phalanx::prelude::*;

use super::{base_of, on_field, slots_of};
use crate::arena::state::STEPS_PER_M;
use crate::arena::{Armies, Command, Downed, Health, Hero, Position, SquadOrder, Velocity, Weapon};

/// Health of a hero at its best.
pub(super) const HERO_HEALTH: u16 = 1000;
/// Metres per tick of a hero.
const HERO_SPEED: f32 = 0.22;

/// A hero appears when its slot joins and goes when it leaves; its army is then on its own.
pub(super) fn come_and_go(
    inputs: Res<Inputs<Command>>,
    mut armies: ResMut<Armies>,
    heroes: Ordered<(&NetId, &Hero)>,
    mut commands: NetCommands,
) {
    for slot in inputs.left() {
        for (&id, hero) in heroes.iter() {
            if hero.slot == slot {
                commands.despawn(id);
            }
        }
        if let Some(army) = armies.of_mut(slot) {
            army.orders = Default::default();
        }
    }
    for slot in inputs.joined() {
        commands.spawn((
            Hero { slot, strike: 0 },
            Owner(slot),
            Position(base_of(slot, slots_of(&armies))),
            Velocity::default(),
            Health(HERO_HEALTH),
            Weapon::default(),
        ));
    }
}

/// Hands orders to squads.
pub(super) fn give_orders(inputs: Res<Inputs<Command>>, mut armies: ResMut<Armies>) {
    for (slot, command) in inputs.iter() {
        let (Some(army), Some(order)) = (armies.of_mut(slot), command.squad_order()) else {
            continue;
        };
        for (squad, current) in army.orders.iter_mut().enumerate() {
            if command.concerns(squad) {
                *current = order;
            }
        }
    }
}

/// Heroes go where their players point. There is no inertia. A client that predicts steers its own.
pub(super) fn steer_heroes(
    side: Res<Side>,
    inputs: Res<Inputs<Command>>,
    mut heroes: Query<(&Hero, &mut Position, Option<&mut Velocity>), Without<Downed>>,
) {
    for (hero, mut position, velocity) in &mut heroes {
        if !side.computes(hero.slot) {
            continue;
        }
        let way = inputs
            .get(hero.slot)
            .map_or(Vec2::ZERO, |command| command.way());
        let way = way * HERO_SPEED;
        // A client is not told velocities.
        if let Some(mut velocity) = velocity {
            velocity.0 = way;
        }
        // On the steps of its wire form, a hero goes the same way on the host and on its client.
        position.0 = (on_field(position.0 + way) * STEPS_PER_M).round() / STEPS_PER_M;
    }
}

/// Where each squad goes; slots without a standing hero let `Follow` mean `Hold`.
pub(super) struct Destinations<'a> {
    armies: &'a Armies,
    heroes: BTreeMap<Slot, Vec2>,
}

impl<'a> Destinations<'a> {
    pub(super) fn new(armies: &'a Armies, heroes: impl Iterator<Item = (Slot, Vec2)>) -> Self {
        Self {
            armies,
            heroes: heroes.collect(),
        }
    }

    /// The order of a squad, with the hero's place filled in.
    pub(super) fn of(&self, slot: Slot, squad: u8) -> SquadOrder {
        let order = self
            .armies
            .of(slot)
            .and_then(|army| army.orders.get(usize::from(squad)));
        match order.copied().unwrap_or_default() {
            SquadOrder::Follow => self
                .heroes
                .get(&slot)
                .map_or(SquadOrder::Hold, |&place| SquadOrder::Go(place)),
            order @ (SquadOrder::Seek | SquadOrder::Go(_) | SquadOrder::Hold) => order,
        }
    }
}
