//! A game that keeps the rules stays the same over any history; one that breaks them is caught.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use bevy_ecs::lifecycle::HookContext;
use bevy_ecs::world::DeferredWorld;
use phalanx::prelude::*;

#[derive(Component, Networked, Clone, Copy, Debug, PartialEq)]
struct Body {
    position: Vec2,
    heading: f32,
}

#[derive(Component, Networked, Clone, Copy, Debug, PartialEq)]
struct Health(i16);

#[derive(Component, Networked, Clone, Copy, Debug)]
struct Owner(Slot);

#[derive(Component, Networked, Clone, Debug)]
struct Orders {
    target: NetId,
    waypoints: Vec<Vec2>,
}

#[derive(Component, Networked, Clone, Copy, Debug)]
#[component(storage = "SparseSet")]
struct Burning {
    left: u8,
}

/// Computed from the others: how far away the target is.
#[derive(Component, Networked, Clone, Copy, Debug)]
#[networked(visibility = Derived)]
struct Reach(f32);

#[derive(Resource, Networked, Clone, Copy, Debug, Default)]
struct Score {
    kills: u32,
    last: NetId,
}

#[derive(Exact, Clone, Copy, Debug, Default)]
enum Command {
    #[default]
    Idle,
    Spawn(u8),
    Move {
        x: i8,
        y: i8,
    },
    Attack,
}

fn obey(
    inputs: Res<Inputs<Command>>,
    mut rng: ResMut<TickRng>,
    mut units: Ordered<(&NetId, &Owner, &mut Body)>,
    mut commands: NetCommands,
) {
    for (slot, command) in inputs.iter() {
        match *command {
            Command::Idle => {}
            Command::Spawn(count) => {
                for _ in 0..count % 4 {
                    let position = Vec2::new(rng.range_f32(-9.0, 9.0), rng.range_f32(-9.0, 9.0));
                    let heading = rng.unit_f32();
                    commands.spawn((Owner(slot), Body { position, heading }, Health(20)));
                }
            }
            Command::Move { x, y } => {
                for (_id, owner, mut body) in units.iter_mut() {
                    if owner.0 == slot {
                        body.position += Vec2::new(f32::from(x), f32::from(y)) / 64.0;
                    }
                }
            }
            Command::Attack => {
                let ids: Vec<NetId> = units.iter().map(|(&id, _, _)| id).collect();
                for (&id, owner, body) in units.iter() {
                    if owner.0 == slot && !ids.is_empty() {
                        let len = u64::try_from(ids.len()).unwrap();
                        let target = ids[usize::try_from(rng.below(len)).unwrap()];
                        let waypoints = vec![body.position; usize::from(slot.0) + 1];
                        commands.insert(id, Orders { target, waypoints });
                    }
                }
            }
        }
    }
    for slot in inputs.left() {
        for (&id, owner, _) in units.iter() {
            if owner.0 == slot {
                commands.despawn(id);
            }
        }
    }
}

fn turn(mut bodies: Query<(&mut Body, Option<&Burning>)>) {
    for (mut body, burning) in &mut bodies {
        let speed = if burning.is_some() { 0.2 } else { 0.1 };
        body.heading += speed;
        let (sin, cos) = math::sin_cos(body.heading);
        body.position += Vec2::new(cos, sin) * speed;
    }
}

fn fight(
    mut commands: Commands,
    attackers: Ordered<(&NetId, &Orders)>,
    mut victims: Query<&mut Health>,
    index: Res<NetIndex>,
    mut score: ResMut<Score>,
) {
    for (&id, orders) in attackers.iter() {
        let Some(entity) = index.get(orders.target) else {
            commands.entity(index.get(id).unwrap()).remove::<Orders>();
            continue;
        };
        let Ok(mut health) = victims.get_mut(entity) else {
            continue;
        };
        health.0 -= 5;
        if health.0 == 10 {
            commands.entity(entity).insert(Burning { left: 5 });
        }
        if health.0 == 0 {
            score.kills += 1;
            score.last = orders.target;
            commands.entity(entity).despawn();
            commands.spawn_networked((
                Body {
                    position: Vec2::ZERO,
                    heading: 0.0,
                },
                Health(1),
            ));
        }
    }
}

fn burn(mut commands: Commands, mut burning: Query<(Entity, &mut Burning)>) {
    for (entity, mut fire) in &mut burning {
        fire.left = fire.left.saturating_sub(1);
        if fire.left == 0 {
            commands.entity(entity).remove::<Burning>();
        }
    }
}

fn measure(
    mut commands: Commands,
    units: Query<(Entity, &Body, Option<&Orders>, Has<Reach>)>,
    bodies: Query<&Body>,
    index: Res<NetIndex>,
) {
    for (entity, body, orders, has_reach) in &units {
        let target = orders.and_then(|orders| bodies.get(index.get(orders.target)?).ok());
        match target {
            Some(target) => {
                let distance = body.position.distance(target.position);
                commands.entity(entity).insert(Reach(distance));
            }
            None if has_reach => {
                commands.entity(entity).remove::<Reach>();
            }
            None => {}
        }
    }
}

fn skirmish() -> GameBuilder {
    Game::builder("skirmish")
        .component::<Body>()
        .component::<Health>()
        .component::<Owner>()
        .component::<Orders>()
        .component::<Burning>()
        .component::<Reach>()
        .resource::<Score>()
        .input::<Command>()
        .systems(|| (obey, turn, fight, burn, measure).chain())
        .derive_systems(|| measure)
        .setup(|world, setup| {
            world.init_resource::<Score>();
            for slot in 0..setup.slots {
                let position = Vec2::splat(f32::from(slot));
                let heading = world.resource_mut::<TickRng>().unit_f32();
                let body = Body { position, heading };
                world.spawn_networked((Owner(Slot(slot)), body, Health(100)));
            }
        })
}

fn play(prng: &mut phalanx::netcode::prng::Prng, _slot: Slot) -> Command {
    let byte = prng.next_u64().to_le_bytes();
    match byte[0] % 8 {
        0 => Command::Spawn(byte[1]),
        1..4 => Command::Move {
            x: byte[1].cast_signed(),
            y: byte[2].cast_signed(),
        },
        4 => Command::Attack,
        _ => Command::Idle,
    }
}

#[test]
fn a_game_that_keeps_the_rules_passes_a_thousand_ticks() {
    let game = skirmish().build().unwrap();
    let report = Checker::new(&game).seed(3).ticks(1000).inputs(play).run();
    let report = report.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(report.ticks, 1000);
    assert!(report.rebuilds > 60 && report.rollbacks > 400, "{report:?}");
    assert!(report.entities_max > 50, "{report:?}");
}

/// Runs a few seeds: a broken game need not show in every single run.
fn caught(game: GameBuilder) -> CheckError {
    let game = game.build().unwrap();
    (0..4)
        .find_map(|seed| {
            let checker = Checker::new(&game).seed(seed).ticks(200).inputs(play);
            checker.run().err()
        })
        .expect("the checker missed a game that breaks the rules")
}

#[test]
fn a_system_that_depends_on_row_order_is_caught() {
    fn first_come(bodies: Query<(&NetId, &Health)>, mut score: ResMut<Score>) {
        if let Some((&id, _)) = bodies.iter().next() {
            score.last = id;
        }
    }
    let error = caught(skirmish().systems(|| first_come.after(measure)));
    let CheckError::Differs { differences, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(differences[0].kind, "Score");
    assert_eq!(differences[0].path, "last");
    let text = error.to_string();
    assert!(text.contains("Score.last"), "{text}");
}

#[test]
fn spawning_in_row_order_is_caught() {
    fn clone_all(mut commands: Commands, bodies: Query<(&Body, &Owner)>) {
        for (&body, &owner) in &bodies {
            if body.position.x > 3.0 {
                commands.spawn_networked((
                    Body {
                        position: Vec2::ZERO,
                        ..body
                    },
                    owner,
                ));
            }
        }
    }
    let error = caught(skirmish().systems(|| clone_all.after(measure)));
    assert!(matches!(error, CheckError::Differs { .. }), "{error}");
}

#[test]
fn memory_in_a_system_is_caught() {
    // `after` hides the parameters from `build`.
    fn every_third(mut calls: Local<u32>, mut score: ResMut<Score>) {
        *calls += 1;
        if calls.is_multiple_of(3) {
            score.kills += 1;
        }
    }
    let error = caught(skirmish().systems(|| every_third.after(measure)));
    assert!(matches!(error, CheckError::Differs { .. }), "{error}");
}

#[test]
fn state_that_is_not_registered_is_caught() {
    #[derive(Resource, Default)]
    struct Hidden(u32);
    fn count(mut hidden: ResMut<Hidden>, mut score: ResMut<Score>) {
        hidden.0 += 1;
        score.kills = hidden.0;
    }
    let game = skirmish()
        .setup(|world, _setup| {
            world.init_resource::<Hidden>();
        })
        .systems(|| count.after(measure));
    let error = caught(game);
    assert!(matches!(error, CheckError::Differs { .. }), "{error}");
}

#[test]
fn a_rule_that_knows_of_rollbacks_is_caught() {
    fn count(stepping: Res<Stepping>, mut score: ResMut<Score>) {
        score.kills += u32::from(stepping.is_first());
    }
    let error = caught(skirmish().systems(|| count.after(measure)));
    assert!(matches!(error, CheckError::Differs { .. }), "{error}");
}

#[test]
fn a_hook_that_spawns_is_caught() {
    #[derive(Component, Networked, Clone)]
    #[component(on_insert = spawn_another)]
    struct Hooked;
    fn spawn_another(mut world: DeferredWorld<'_>, _context: HookContext) {
        world.commands().spawn_networked(Health(1));
    }
    let game = skirmish().component::<Hooked>().setup(|world, _setup| {
        world.spawn_networked(Hooked);
    });
    let error = caught(game);
    let CheckError::Differs { step, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(step, CheckStep::Rebuild);
}

#[test]
fn a_registered_component_on_presentation_is_caught() {
    fn decorate(mut commands: Commands) {
        commands.spawn(Health(1));
    }
    let error = caught(skirmish().systems(|| decorate.after(measure)));
    let CheckError::Stray { kind, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(kind, "Health");
}

/// The state after 300 ticks is known: it may differ neither between builds nor between platforms,
/// and only changes of the rules of this test, of hashes or of the generator change it.
#[test]
fn three_hundred_ticks_end_in_the_golden_state() {
    let game = skirmish().build().unwrap();
    let checker = Checker::new(&game).seed(42).ticks(300).inputs(play);
    let report = checker.run().unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(format!("{:016x}", report.hash), "5244c2001af87ae1");
}

#[test]
fn a_check_of_nothing_does_not_pass() {
    let game = skirmish().build().unwrap();
    let check = || Checker::new(&game).inputs(play);
    assert_eq!(check().slots(0).run(), Err(CheckError::Slots(0)));
    assert_eq!(check().slots(65).run(), Err(CheckError::Slots(65)));
    assert_eq!(check().ticks(0).run(), Err(CheckError::NoTicks));
    assert!(check().slots(1).ticks(1).run().is_ok());
    assert!(check().slots(64).ticks(1).run().is_ok());
}
