//! Saving, restoring, exporting and importing state, as a game sees it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "state/pieces.rs"]
mod pieces;

use phalanx::netcode::prng::Prng;
use phalanx::netcode::state::{KindRows, Snapshot, StateHash};
use phalanx::prelude::*;
use pieces::{Armour, Burning, Frozen, Path, Score, Shield};

#[derive(Component, Networked, Clone, Copy, Debug, PartialEq)]
struct Position(Vec2);

/// Not registered: presentation.
#[derive(Component)]
struct Sprite;

fn game() -> Game {
    Game::builder("state")
        .component::<Position>()
        .component::<Path>()
        .component::<Burning>()
        .component::<Armour>()
        .component::<Shield>()
        .component::<Frozen>()
        .resource::<Score>()
        .build()
        .unwrap()
}

/// One random change to the world, of any kind that a game may make.
fn change(world: &mut World, prng: &mut Prng) {
    let entities: Vec<Entity> = world
        .resource::<NetIndex>()
        .iter()
        .map(|(_id, entity)| entity)
        .collect();
    let pick = |prng: &mut Prng| {
        let index = prng.below(u64::try_from(entities.len()).unwrap());
        entities[usize::try_from(index).unwrap()]
    };
    if entities.is_empty() || prng.below(4) == 0 {
        let position = Position(Vec2::new(prng.unit_f32(), prng.unit_f32()));
        world.spawn_networked(position);
        return;
    }
    let entity = pick(prng);
    let other = *world.get::<NetId>(pick(prng)).unwrap();
    let mut entity = world.entity_mut(entity);
    match prng.below(16) {
        0 => {
            entity.despawn();
        }
        1 => {
            entity.insert(Path(vec![other; 3]));
        }
        2 => {
            entity.remove::<Path>();
        }
        3 => {
            entity.insert(Burning { ticks: 9 });
        }
        4 => {
            entity.remove::<Burning>();
        }
        5 => {
            entity.insert(Armour(3));
        }
        6 => {
            entity.remove::<Armour>();
        }
        7 => {
            entity.remove::<Shield>();
        }
        8 => {
            entity.insert(bevy_ecs::entity_disabling::Disabled);
        }
        9 => {
            entity.remove::<bevy_ecs::entity_disabling::Disabled>();
        }
        10 => {
            entity.insert(Sprite);
        }
        13 => {
            entity.insert(Frozen);
        }
        14 => {
            entity.remove::<Frozen>();
        }
        11 => {
            world.insert_resource(Score {
                names: vec!["a".into(); 2],
            });
        }
        12 => {
            world.remove_resource::<Score>();
        }
        _ => {
            if let Some(mut position) = entity.get_mut::<Position>() {
                position.0.x += 1.0;
            }
        }
    }
}

fn hash_of(simulation: &mut EcsSimulation) -> StateHash {
    simulation.state_hash()
}

#[test]
fn a_restored_state_is_the_captured_one_whatever_happened_since() {
    let game = game();
    let mut simulation = game.simulation(1, 2);
    let seed = 5;
    let mut prng = Prng::new(seed);
    let mut images: Vec<(EcsImage, StateHash, Snapshot)> = Vec::new();
    for round in 0..600 {
        for _ in 0..prng.below(8) {
            change(simulation.world_mut(), &mut prng);
        }
        if prng.below(3) == 0 {
            // Some images hold another state already, as in a ring.
            let mut image = if images.len() > 40 && prng.below(2) == 0 {
                images.swap_remove(3).0
            } else {
                EcsImage::default()
            };
            simulation.capture(&mut image);
            let hash = hash_of(&mut simulation);
            let mut hash_of_image = StateHash::default();
            simulation.hash_image(&image, &mut hash_of_image);
            assert_eq!(hash, hash_of_image, "seed {seed}, round {round}");
            let snapshot = simulation.export(&image);
            assert_eq!(
                snapshot.hash(game.schema()),
                hash,
                "seed {seed}, round {round}"
            );
            images.push((image, hash, snapshot));
        }
        if !images.is_empty() && prng.below(3) == 0 {
            let back = prng.below(u64::try_from(images.len()).unwrap().min(10));
            let index = images.len() - 1 - usize::try_from(back).unwrap();
            let (image, hash, snapshot) = &images[index];
            simulation.restore(image);
            assert_eq!(
                &hash_of(&mut simulation),
                hash,
                "seed {seed}, round {round}"
            );
            assert_eq!(
                &simulation.snapshot(),
                snapshot,
                "seed {seed}, round {round}"
            );
        }
    }
    assert!(images.len() > 100);
}

#[test]
fn a_snapshot_carries_the_state_to_any_other_simulation() {
    let game = game();
    let mut origin = game.simulation(1, 2);
    let mut target = game.simulation(99, 2);
    let seed = 8;
    let mut prng = Prng::new(seed);
    for round in 0..60 {
        for _ in 0..40 {
            change(origin.world_mut(), &mut prng);
        }
        // The target has a past of its own, which must leave no trace.
        for _ in 0..20 {
            change(target.world_mut(), &mut prng);
        }
        let snapshot = origin.snapshot();
        target.import(&snapshot).unwrap();
        assert_eq!(
            hash_of(&mut origin),
            hash_of(&mut target),
            "seed {seed}, round {round}"
        );
        assert_eq!(target.snapshot(), snapshot, "seed {seed}, round {round}");
        assert_eq!(target.tick(), origin.tick());
    }
}

/// Captures, changes, restores: the hash must be the captured one, and the change must show.
fn undo(simulation: &mut EcsSimulation, change: impl FnOnce(&mut World)) {
    let mut image = EcsImage::default();
    simulation.capture(&mut image);
    let before = simulation.state_hash();
    change(simulation.world_mut());
    assert_ne!(simulation.state_hash(), before);
    simulation.restore(&image);
    assert_eq!(simulation.state_hash(), before);
}

#[test]
fn changes_that_keep_all_rows_are_undone() {
    let mut simulation = game().simulation(1, 2);
    let world = simulation.world_mut();
    let first = world.spawn_networked(Position(Vec2::ONE)).id();
    let second = world.spawn_networked(Position(Vec2::ZERO)).id();
    world.entity_mut(first).insert(Burning { ticks: 3 });
    undo(&mut simulation, |world| {
        world.entity_mut(first).remove::<Burning>();
        world.entity_mut(second).insert(Burning { ticks: 3 });
    });
    undo(&mut simulation, |world| {
        world.entity_mut(first).insert(NetId::from_bits(77));
    });
    let world = simulation.world_mut();
    assert_eq!(world.resource::<NetIndex>().get(NetId::from_bits(77)), None);
    assert_eq!(world.resource::<NetIndex>().len(), 2);
}

#[test]
fn another_simulation_of_the_game_can_restore_an_image() {
    let game = game();
    let (mut one, mut other) = (game.simulation(1, 2), game.simulation(1, 2));
    // Same rows and as many changes of the index, but other ids.
    one.world_mut()
        .spawn((NetId::from_bits(5), Position(Vec2::ONE)));
    other
        .world_mut()
        .spawn((NetId::from_bits(6), Position(Vec2::ONE)));
    let mut image = EcsImage::default();
    one.capture(&mut image);
    other.restore(&image);
    assert_eq!(other.state_hash(), one.state_hash());
    assert!(
        other
            .world()
            .resource::<NetIndex>()
            .contains(NetId::from_bits(5))
    );
}

#[test]
fn disabled_entities_are_state() {
    let game = game();
    let mut simulation = game.simulation(1, 2);
    let entity = simulation
        .world_mut()
        .spawn_networked((Position(Vec2::ONE), bevy_ecs::entity_disabling::Disabled))
        .id();
    let mut image = EcsImage::default();
    simulation.capture(&mut image);
    assert_eq!(image.entities(), 1);
    let hash = hash_of(&mut simulation);
    simulation
        .world_mut()
        .entity_mut(entity)
        .remove::<bevy_ecs::entity_disabling::Disabled>();
    assert_ne!(hash_of(&mut simulation), hash);
    simulation.world_mut().despawn(entity);
    simulation.restore(&image);
    assert_eq!(hash_of(&mut simulation), hash);
}

#[test]
fn presentation_is_neither_saved_nor_touched() {
    let game = game();
    let mut simulation = game.simulation(1, 2);
    let world = simulation.world_mut();
    let unit = world.spawn_networked(Position(Vec2::ONE)).id();
    let hash = hash_of(&mut simulation);
    let mut image = EcsImage::default();
    simulation.capture(&mut image);
    let world = simulation.world_mut();
    let scenery = world.spawn((Sprite, Position(Vec2::ZERO))).id();
    world.entity_mut(unit).insert(Sprite);
    assert_eq!(hash_of(&mut simulation), hash);
    simulation.restore(&image);
    let world = simulation.world();
    assert_eq!(world.get::<Position>(scenery), Some(&Position(Vec2::ZERO)));
    assert!(world.get::<Sprite>(unit).is_some());
}

#[test]
fn a_refused_snapshot_changes_nothing() {
    let game = game();
    let mut simulation = game.simulation(1, 2);
    let mut prng = Prng::new(3);
    for _ in 0..200 {
        change(simulation.world_mut(), &mut prng);
    }
    let good = simulation.snapshot();
    let position = game.schema().kind_index("Position").unwrap();
    let entity = game.schema().kind_index("phalanx.entity").unwrap();
    let ids = game.schema().kind_index("phalanx.net_ids").unwrap();
    type BreakIt<'a> = (&'a str, &'a dyn Fn(&mut Snapshot));
    let break_it: [BreakIt<'_>; 9] = [
        ("a kind is missing", &|bad| bad.kinds.truncate(4)),
        ("ids repeat", &|bad| {
            let ids = &mut bad.kinds[position].ids;
            ids[1] = ids[0];
        }),
        ("an end is too far", &|bad| {
            bad.kinds[position].ends[0] = u32::MAX
        }),
        ("ends are missing", &|bad| bad.kinds[position].ends.clear()),
        ("bytes are missing", &|bad| {
            bad.kinds[position].bytes.truncate(1)
        }),
        ("a row belongs to nobody", &|bad| {
            bad.kinds[entity].ids.truncate(3);
            bad.kinds[entity].ends.truncate(3);
        }),
        ("an entity has no id", &|bad| {
            bad.kinds[entity].ids[0] = NetId::NONE.raw();
        }),
        ("the id counter is missing", &|bad| {
            bad.kinds[ids] = KindRows::default();
        }),
        ("the id counter would repeat ids", &|bad| {
            bad.kinds[ids].bytes.fill(0);
        }),
    ];
    for (what, break_it) in break_it {
        let mut bad = good.clone();
        break_it(&mut bad);
        assert!(simulation.import(&bad).is_err(), "{what}");
        assert_eq!(simulation.snapshot(), good, "{what}");
    }
    assert_eq!(simulation.import(&good), Ok(()));
}

#[test]
fn a_snapshot_with_random_damage_is_refused_or_taken_as_it_is() {
    let game = game();
    let mut simulation = game.simulation(1, 2);
    let mut prng = Prng::new(3);
    for _ in 0..100 {
        change(simulation.world_mut(), &mut prng);
    }
    let good = simulation.snapshot();
    let seed = 21;
    let mut prng = Prng::new(seed);
    let mut refused = 0;
    for round in 0..2000 {
        let mut bad = good.clone();
        let kinds = bad.kinds.len();
        for _ in 0..=prng.below(3) {
            let rows = &mut bad.kinds[below(&mut prng, kinds)];
            let value = prng.next_u64() >> prng.below(64);
            let (ids, ends, bytes) = (&mut rows.ids, &mut rows.ends, &mut rows.bytes);
            let index = below(&mut prng, ids.len());
            let end = below(&mut prng, ends.len());
            let byte = below(&mut prng, bytes.len());
            match prng.below(6) {
                0 if !ids.is_empty() => ids[index] = NetId::from_bits(value).raw(),
                1 if !ends.is_empty() => ends[end] = u32::try_from(value >> 32).unwrap(),
                2 if !bytes.is_empty() => bytes[byte] = value.to_le_bytes()[0],
                3 if !ids.is_empty() => drop(ids.drain(index..)),
                4 => bytes.truncate(byte),
                _ => ids.push(NetId::from_bits(value).raw()),
            }
        }
        let before = simulation.snapshot();
        match simulation.import(&bad) {
            Ok(()) => assert_eq!(simulation.snapshot(), bad, "seed {seed}, round {round}"),
            Err(_) => {
                refused += 1;
                assert_eq!(simulation.snapshot(), before, "seed {seed}, round {round}");
            }
        }
        let frame = InputFrame::empty(simulation.tick().next(), 2, game.input_bytes());
        simulation.step(&frame, StepKind::First);
        // The next id is free, whatever the snapshot said.
        simulation.world_mut().spawn_networked(());
    }
    assert!((500..2000).contains(&refused), "{refused} were refused");
}

fn below(prng: &mut Prng, bound: usize) -> usize {
    usize::try_from(prng.below(u64::try_from(bound).unwrap())).unwrap()
}
