//! What the rules of Arena promise, and that every node follows them to the same state.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use phalanx::Checker;
use phalanx::prelude::*;
use phalanx_demo::arena::{
    self, ALL_SQUADS, Armies, Army, Bot, Buttons, Command, ControlPoint, Downed, Health, Hero,
    Position, SquadOrder, Unit, Verb,
};

const SLOTS: u8 = 2;

fn match_of(units: u32) -> (Game, EcsSimulation) {
    let game = arena::game(units).unwrap();
    let simulation = game.simulation(1, SLOTS);
    (game, simulation)
}

/// Steps once; slots that have no command are absent.
fn step(game: &Game, simulation: &mut EcsSimulation, commands: &[Option<Command>]) {
    let slots = u8::try_from(commands.len()).unwrap();
    let tick = simulation.tick().next();
    let mut frame = InputFrame::empty(tick, slots, game.input_bytes());
    for (slot, command) in (0..).map(Slot).zip(commands) {
        if let Some(command) = command {
            frame.set(slot, &game.encode_input(command));
        }
    }
    simulation.step(&frame, StepKind::First);
}

fn hero_of(simulation: &mut EcsSimulation, slot: Slot) -> Option<Entity> {
    let world = simulation.world_mut();
    let mut heroes = world.query::<(Entity, &Hero)>();
    heroes
        .iter(world)
        .find(|(_, hero)| hero.slot == slot)
        .map(|(entity, _)| entity)
}

fn units_of(simulation: &mut EcsSimulation, slot: Slot) -> usize {
    let world = simulation.world_mut();
    let mut units = world.query::<&Unit>();
    units.iter(world).filter(|unit| unit.slot == slot).count()
}

fn place_of(simulation: &EcsSimulation, entity: Entity) -> Vec2 {
    simulation.world().get::<Position>(entity).unwrap().0
}

fn put(simulation: &mut EcsSimulation, entity: Entity, place: Vec2) {
    simulation
        .world_mut()
        .get_mut::<Position>(entity)
        .unwrap()
        .0 = place;
}

#[test]
fn a_hero_lives_as_long_as_its_slot_takes_part_and_goes_where_its_player_points() {
    let (game, mut simulation) = match_of(0);
    let east = Command {
        direction: [127, 0],
        ..Command::default()
    };
    step(&game, &mut simulation, &[None, Some(east)]);
    assert_eq!(hero_of(&mut simulation, Slot(0)), None);
    let hero = hero_of(&mut simulation, Slot(1)).unwrap();
    let start = place_of(&simulation, hero);
    for _ in 0..60 {
        step(&game, &mut simulation, &[None, Some(east)]);
    }
    let way = place_of(&simulation, hero) - start;
    assert!(way.x > 5.0 && way.y == 0.0, "{way}");

    let rest = Command::default();
    let before = place_of(&simulation, hero);
    step(&game, &mut simulation, &[Some(rest), Some(rest)]);
    assert_eq!(place_of(&simulation, hero), before);
    assert!(hero_of(&mut simulation, Slot(0)).is_some());

    step(&game, &mut simulation, &[Some(rest), None]);
    assert_eq!(hero_of(&mut simulation, Slot(1)), None);
    assert!(hero_of(&mut simulation, Slot(0)).is_some());
}

#[test]
fn nobody_leaves_the_field() {
    let (game, mut simulation) = match_of(20);
    let north_west = Command {
        direction: [-128, -128],
        ..Command::default()
    }
    .ordering(ALL_SQUADS, Verb::Go, Vec2::ZERO);
    for _ in 0..2500 {
        step(&game, &mut simulation, &[Some(north_west), None]);
    }
    let hero = hero_of(&mut simulation, Slot(0)).unwrap();
    assert_eq!(place_of(&simulation, hero), Vec2::ZERO);
    let world = simulation.world_mut();
    let mut all = world.query::<&Position>();
    for Position(place) in all.iter(world) {
        let field = 0.0..=arena::FIELD_M;
        assert!(
            field.contains(&place.x) && field.contains(&place.y),
            "{place}"
        );
    }
}

#[test]
fn a_unit_falls_without_health_and_its_army_gets_it_back() {
    let (game, mut simulation) = match_of(8);
    let strike = Command {
        buttons: Buttons::STRIKE,
        ..Command::default()
    };
    step(&game, &mut simulation, &[Some(strike), None]);
    let world = simulation.world_mut();
    let mut units = world.query::<(Entity, &Unit)>();
    let victim = units
        .iter(world)
        .find(|(_, unit)| unit.slot == Slot(1))
        .unwrap()
        .0;
    world.get_mut::<Health>(victim).unwrap().0 = 1;
    // The first step spent the strike on nobody; wait until the hero can strike again.
    let idle = Some(Command::default());
    for _ in 0..45 {
        step(&game, &mut simulation, &[idle, None]);
    }
    let hero = hero_of(&mut simulation, Slot(0)).unwrap();
    let place = place_of(&simulation, victim);
    put(&mut simulation, hero, place);
    assert_eq!(units_of(&mut simulation, Slot(1)), 4);
    let mut fewest = 4;
    for _ in 0..6 {
        step(&game, &mut simulation, &[Some(strike), None]);
        fewest = fewest.min(units_of(&mut simulation, Slot(1)));
    }
    assert_eq!(fewest, 3, "the strike fells exactly the weak one");
    assert!(simulation.world().get_entity(victim).is_err());
    assert_eq!(units_of(&mut simulation, Slot(1)), 4, "reinforcements come");
    let armies = simulation.world().resource::<Armies>();
    assert_eq!(armies.0[0].kills, 1);
    assert_eq!(armies.0[1].losses, 1);
}

#[test]
fn a_fallen_hero_waits_at_its_base_and_rises() {
    let (game, mut simulation) = match_of(400);
    let idle = [Some(Command::default()), None];
    step(&game, &mut simulation, &idle);
    let hero = hero_of(&mut simulation, Slot(0)).unwrap();
    let base = place_of(&simulation, hero);
    // Among the enemy's army, with nearly no health.
    let world = simulation.world_mut();
    world.get_mut::<Health>(hero).unwrap().0 = 1;
    let mut units = world.query::<(&Unit, &Position)>();
    let place = units
        .iter(world)
        .find(|(unit, _)| unit.slot == Slot(1))
        .unwrap()
        .1
        .0;
    put(&mut simulation, hero, place);
    let mut ticks = 0;
    while simulation.world().get::<Downed>(hero).is_none() {
        step(&game, &mut simulation, &idle);
        ticks += 1;
        assert!(ticks < 60, "the hero stands among enemies and lives");
    }
    assert_eq!(place_of(&simulation, hero), base);
    let east = Command {
        direction: [127, 0],
        ..Command::default()
    };
    step(&game, &mut simulation, &[Some(east), None]);
    assert_eq!(place_of(&simulation, hero), base, "the fallen do not walk");
    for _ in 0..310 {
        step(&game, &mut simulation, &idle);
    }
    assert!(simulation.world().get::<Downed>(hero).is_none());
    assert!(simulation.world().get::<Health>(hero).unwrap().0 > 1);
}

#[test]
fn a_point_goes_to_whoever_outnumbers_the_others_and_brings_score() {
    // Heroes alone: armies would go for points of their own.
    let (game, mut simulation) = match_of(0);
    let idle = [Some(Command::default()), None];
    step(&game, &mut simulation, &idle);
    let hero = hero_of(&mut simulation, Slot(0)).unwrap();
    let world = simulation.world_mut();
    let mut points = world.query::<(Entity, &ControlPoint, &Position)>();
    let (point, _, &Position(middle)) = points
        .iter(world)
        .find(|(_, _, position)| position.0 == Vec2::splat(arena::FIELD_M / 2.0))
        .unwrap();
    put(&mut simulation, hero, middle);
    for _ in 0..89 {
        step(&game, &mut simulation, &idle);
    }
    let holder = |simulation: &EcsSimulation| {
        simulation
            .world()
            .get::<ControlPoint>(point)
            .unwrap()
            .holder
    };
    assert_eq!(holder(&simulation), None);
    step(&game, &mut simulation, &idle);
    assert_eq!(holder(&simulation), Some(Slot(0)));
    for _ in 0..60 {
        step(&game, &mut simulation, &idle);
    }
    let standing = arena::standings(simulation.world())[0];
    assert_eq!((standing.points, standing.score), (1, 2));
    // The player leaves: the point stays theirs until someone else takes it.
    for _ in 0..100 {
        step(&game, &mut simulation, &[None, None]);
    }
    assert_eq!(holder(&simulation), Some(Slot(0)));
}

#[test]
fn squads_go_where_they_are_sent_and_stay_when_told() {
    let (game, mut simulation) = match_of(8);
    let place = Vec2::new(100.0, 30.0);
    let go = Command::default().ordering(0b0001, Verb::Go, place);
    let hold = Command::default().ordering(0b1110, Verb::Hold, place);
    step(&game, &mut simulation, &[Some(hold), None]);
    step(&game, &mut simulation, &[Some(go), None]);
    assert!(matches!(
        simulation.world().resource::<Armies>().0[0].orders,
        [
            SquadOrder::Go(_),
            SquadOrder::Hold,
            SquadOrder::Hold,
            SquadOrder::Hold
        ]
    ));
    let distances = |simulation: &mut EcsSimulation| {
        let world = simulation.world_mut();
        let mut units = world.query::<(&Unit, &Position)>();
        let mut by_squad = [0.0_f32; 4];
        for (unit, position) in units.iter(world) {
            if unit.slot == Slot(0) {
                by_squad[usize::from(unit.squad)] = position.0.distance(place);
            }
        }
        by_squad
    };
    let before = distances(&mut simulation);
    for _ in 0..300 {
        step(&game, &mut simulation, &[Some(Command::default()), None]);
    }
    let after = distances(&mut simulation);
    assert!(after[0] < before[0] - 25.0, "{before:?} {after:?}");
    for squad in 1..4 {
        assert!(
            (after[squad] - before[squad]).abs() < 3.0,
            "{before:?} {after:?}"
        );
    }
}

#[test]
fn a_state_that_no_match_leads_to_is_played_on_without_harm() {
    let (game, mut simulation) = match_of(60);
    step(&game, &mut simulation, &[Some(Command::default()); 2]);
    let world = simulation.world_mut();
    let mut armies = world.resource_mut::<Armies>();
    for army in &mut armies.0 {
        army.fallen = [u32::MAX; 4];
        (army.kills, army.losses, army.score) = (u32::MAX, u32::MAX, u32::MAX);
    }
    armies.0.resize(300, Army::default());
    let mut points = world.query::<&mut ControlPoint>();
    for mut point in points.iter_mut(world) {
        point.holder = Some(Slot(255));
        point.progress = u16::MAX;
    }
    let mut units = world.query::<(&mut Unit, &mut Position, &mut Health)>();
    for (number, (mut unit, mut position, mut health)) in units.iter_mut(world).enumerate() {
        let odd = [f32::NAN, f32::INFINITY, -1e30, 100.0, 100.5];
        position.0 = Vec2::new(odd[number % 5], odd[number / 5 % 5]);
        unit.slot = Slot(if number % 2 == 0 { 0 } else { 200 });
        unit.squad = 255;
        health.0 = 1;
    }
    let snapshot = simulation.snapshot();
    let mut target = game.simulation(3, SLOTS);
    target.import(&snapshot).unwrap();
    for _ in 0..200 {
        step(&game, &mut simulation, &[Some(Command::default()), None]);
        step(&game, &mut target, &[Some(Command::default()), None]);
        assert_eq!(simulation.state_hash(), target.state_hash());
    }
    assert_eq!(arena::standings(simulation.world()).len(), 256);
}

/// A match of bots: slot 3 comes late, slot 1 goes and returns.
fn bots_play(simulation: &mut EcsSimulation, game: &Game, bots: &mut [Bot], ticks: u32) {
    for _ in 0..ticks {
        let number = simulation.tick().next().number();
        let commands: Vec<Option<Command>> = (0..)
            .zip(bots.iter_mut())
            .map(|(slot, bot)| {
                let command = bot.next_command();
                let away = slot == 3 && number < 100 || slot == 1 && (150..200).contains(&number);
                (!away).then_some(command)
            })
            .collect();
        step(game, simulation, &commands);
    }
}

fn bots() -> Vec<Bot> {
    (0..4).map(|slot| Bot::new(7, Slot(slot))).collect()
}

#[test]
fn six_hundred_ticks_end_in_the_known_state() {
    let game = arena::game(600).unwrap();
    let mut simulation = game.simulation(7, 4);
    bots_play(&mut simulation, &game, &mut bots(), 600);
    let armies = simulation.world().resource::<Armies>();
    assert!(armies.0.iter().any(|army| army.losses > 0), "{armies:?}");
    // The same in debug and release builds and on every platform. A change of the rules or of the
    // hash changes it.
    let hash = simulation.state_hash().combined();
    assert_eq!(hash, 0x9a00_0bdd_d403_f12b, "{hash:#018x}");
}

#[test]
fn a_node_that_takes_over_a_snapshot_plays_on_like_the_others() {
    let game = arena::game(600).unwrap();
    let mut simulation = game.simulation(7, 4);
    let mut bots = bots();
    bots_play(&mut simulation, &game, &mut bots, 1200);
    assert!(
        simulation
            .world()
            .resource::<Armies>()
            .0
            .iter()
            .any(|army| army.losses > 0)
    );
    let mut joined = game.simulation(8, 4);
    joined.import(&simulation.snapshot()).unwrap();
    let mut bots_of_joined = bots.clone();
    for _ in 0..60 {
        bots_play(&mut simulation, &game, &mut bots, 5);
        bots_play(&mut joined, &game, &mut bots_of_joined, 5);
        assert_eq!(
            simulation.state_hash(),
            joined.state_hash(),
            "at {}",
            joined.tick()
        );
    }
}

#[test]
fn the_rules_are_a_function_of_state_and_inputs() {
    let game = arena::game(400).unwrap();
    let mut bots = bots();
    let report = Checker::new(&game)
        .seed(5)
        .slots(4)
        .ticks(900)
        .inputs(|_prng, slot| bots[slot.index()].next_command())
        .run()
        .unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(report.ticks, 900);
    assert!(report.rebuilds > 0 && report.rollbacks > 0, "{report:?}");
}
