//! Hits, falls and returns.

use phalanx::prelude::*;

use super::movement::reach_of;
use super::players::HERO_HEALTH;
use super::{all_slots, base_of, place_near_base, recruit, slots_of};
use crate::arena::field::{CELL_M, Field};
use crate::arena::{
    Armies, Buttons, Command, Downed, Health, Hero, Position, SQUADS, Unit, Velocity, Weapon,
};

/// Ticks between two hits of a unit.
const RELOAD_TICKS: u8 = 20;
/// Damage of a unit's hit: this, and up to as much again.
const HIT: u64 = 8;
/// Ticks between two strikes of a hero.
const STRIKE_TICKS: u8 = 45;
/// Damage of a hero's strike to every enemy in view.
const STRIKE: u16 = 60;
/// Ticks for which a fallen hero waits.
const DOWNED_TICKS: u32 = 300;
/// One fallen unit of each army comes back every so many ticks.
const REINFORCE_TICKS: u32 = 3;

/// Units that can hit do, at the same moment: hits count together in [`fall`].
pub(super) fn fight(
    mut field: ResMut<Field>,
    mut rng: ResMut<TickRng>,
    mut units: Ordered<(&Unit, &Position, &mut Weapon)>,
) {
    for (unit, position, mut weapon) in units.iter_mut() {
        if weapon.reload > 0 {
            weapon.reload -= 1;
            continue;
        }
        let Some(target) = field.find(weapon.target) else {
            continue;
        };
        let reach = reach_of(unit.squad);
        if target.position.distance_squared(position.0) < reach * reach {
            weapon.reload = RELOAD_TICKS;
            let damage = HIT + rng.below(HIT);
            field.hit(target.index, saturated(damage), unit.slot);
        }
    }
}

/// Heroes strike around themselves as their players say. A client knows when its own hero may, and
/// the host whom that hits.
pub(super) fn strike(
    side: Res<Side>,
    inputs: Res<Inputs<Command>>,
    mut field: ResMut<Field>,
    mut heroes: Ordered<(&mut Hero, &Position), Without<Downed>>,
) {
    for (mut hero, position) in heroes.iter_mut() {
        if !side.computes(hero.slot) {
            continue;
        }
        if hero.strike > 0 {
            hero.strike -= 1;
            continue;
        }
        let strikes = inputs
            .get(hero.slot)
            .is_some_and(|command| command.buttons.contains(Buttons::STRIKE));
        if strikes {
            hero.strike = STRIKE_TICKS;
            if side.is_authority() {
                hit_around(&mut field, hero.slot, position.0);
            }
        }
    }
}

fn hit_around(field: &mut Field, slot: Slot, here: Vec2) {
    let struck: Vec<u32> = field
        .around(here, CELL_M)
        .filter(|seen| seen.slot != slot && seen.position.distance_squared(here) < CELL_M * CELL_M)
        .map(|seen| seen.index)
        .collect();
    for index in struck {
        field.hit(index, STRIKE, slot);
    }
}

/// Hits take effect. A unit without health is gone, a hero waits at its base.
#[expect(clippy::type_complexity, reason = "a query's type says what it reads")]
pub(super) fn fall(
    tick: Res<CurrentTick>,
    field: Res<Field>,
    mut armies: ResMut<Armies>,
    mut fighters: Ordered<
        (
            &NetId,
            &mut Health,
            &mut Position,
            Option<&Unit>,
            Option<&Hero>,
        ),
        super::Standing,
    >,
    mut commands: NetCommands,
) {
    let slots = slots_of(&armies);
    // The survey took exactly these, in this order.
    for (hit, (&id, mut health, mut position, unit, hero)) in field.hits().zip(fighters.iter_mut())
    {
        if hit.damage == 0 {
            continue;
        }
        health.0 = health.0.saturating_sub(hit.damage);
        if health.0 > 0 {
            continue;
        }
        if let Some(unit) = unit {
            commands.despawn(id);
            if let Some(army) = armies.of_mut(unit.slot) {
                let fallen = &mut army.fallen[usize::from(unit.squad) % SQUADS];
                *fallen = fallen.saturating_add(1);
                army.losses = army.losses.saturating_add(1);
            }
        } else if let Some(hero) = hero {
            let until = tick.0.plus(DOWNED_TICKS);
            commands.insert(id, Downed { until });
            position.0 = base_of(hero.slot, slots);
            if let Some(army) = armies.of_mut(hero.slot) {
                army.losses = army.losses.saturating_add(1);
            }
        }
        if let Some(army) = armies.of_mut(hit.by) {
            army.kills = army.kills.saturating_add(1);
        }
    }
}

/// Fallen heroes rise when their time has come.
pub(super) fn rise(
    side: Res<Side>,
    tick: Res<CurrentTick>,
    mut heroes: Ordered<(&NetId, &Hero, &Downed, &mut Health, Option<&mut Velocity>)>,
    mut commands: NetCommands,
) {
    for (&id, hero, downed, mut health, velocity) in heroes.iter_mut() {
        if !side.computes(hero.slot) {
            continue;
        }
        if let Some(mut velocity) = velocity {
            velocity.0 = Vec2::ZERO;
        }
        if downed.until <= tick.0 {
            health.0 = HERO_HEALTH;
            commands.remove::<Downed>(id);
        }
    }
}

/// Fallen units come back at their base, one at a time, the largest gap first.
pub(super) fn reinforce(
    tick: Res<CurrentTick>,
    mut rng: ResMut<TickRng>,
    mut armies: ResMut<Armies>,
    mut commands: NetCommands,
) {
    if !tick.0.number().is_multiple_of(REINFORCE_TICKS) {
        return;
    }
    let slots = slots_of(&armies);
    for (slot, army) in all_slots().zip(&mut armies.0) {
        let mut weakest = 0;
        for squad in 1..SQUADS {
            if army.fallen[squad] > army.fallen[weakest] {
                weakest = squad;
            }
        }
        if army.fallen[weakest] == 0 {
            continue;
        }
        army.fallen[weakest] -= 1;
        let place = place_near_base(rng.reborrow(), slot, slots, 6.0);
        let squad = u8::try_from(weakest).expect("an army has SQUADS squads");
        commands.spawn(recruit(slot, squad, place));
    }
}

fn saturated(damage: u64) -> u16 {
    u16::try_from(damage).unwrap_or(u16::MAX)
}
