//! What the ECS computes about its state and what netcode computes about a snapshot of it agree.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use phalanx::netcode::prng::Prng;
use phalanx::netcode::state::Snapshot;
use phalanx::prelude::*;

#[derive(Component, Networked, Clone, Copy, Debug, PartialEq)]
struct Position(Vec3);

#[derive(Component, Networked, Clone, Debug, PartialEq)]
#[networked(visibility = HostOnly, version = 3)]
enum Order {
    Idle,
    Follow(NetId),
    March { route: Vec<Vec2>, fast: bool },
}

#[derive(Component, Networked, Clone, Copy, Debug, PartialEq)]
struct Elite;

#[derive(Component, Networked, Clone, Copy, Debug, PartialEq)]
#[networked(visibility = Derived)]
struct Threat(f32);

#[derive(Component, Networked, Clone, Copy, Debug, PartialEq)]
#[networked(visibility = Local)]
struct Highlight(u8);

#[derive(Resource, Networked, Clone, Debug, Default, PartialEq)]
struct Score {
    red: i32,
    comments: Vec<String>,
}

fn assess(units: Query<(&Position, &mut Threat)>) {
    for (position, mut threat) in units {
        threat.0 = position.0.x;
    }
}

fn game() -> Game {
    Game::builder("snapshot")
        .component::<Position>()
        .component::<Order>()
        .component::<Elite>()
        .component::<Threat>()
        .component::<Highlight>()
        .resource::<Score>()
        .derive_systems(|| assess)
        .build()
        .unwrap()
}

fn populate(world: &mut World, prng: &mut Prng) {
    let mut last = None;
    for _ in 0..prng.below(40) {
        let x = prng.range_f32(-9.0, 9.0);
        let mut entity = world.spawn_networked(Position(Vec3::new(x, -0.0, f32::NAN)));
        match (prng.below(4), last) {
            (0, Some(leader)) => drop(entity.insert(Order::Follow(leader))),
            (1, _) => drop(entity.insert(Order::Idle)),
            (2, _) => {
                let route = vec![Vec2::new(x, 1.0); usize::try_from(prng.below(4)).unwrap()];
                entity.insert(Order::March { route, fast: true });
            }
            _ => {}
        }
        if prng.below(3) == 0 {
            entity.insert((Elite, Threat(x), Highlight(3)));
        }
        last = entity.get::<NetId>().copied();
    }
    if prng.below(2) == 0 {
        world.insert_resource(Score {
            red: -7,
            comments: vec!["ready".to_owned()],
        });
    }
}

#[test]
fn the_snapshot_of_a_world_is_valid_and_hashes_like_it() {
    for seed in 0..200 {
        let mut prng = Prng::new(seed);
        let mut simulation = game().simulation(1, 2);
        populate(simulation.world_mut(), &mut prng);
        let schema = simulation.schema().clone();
        let snapshot = simulation.snapshot();
        assert_eq!(snapshot.validate(&schema), Ok(()), "seed {seed}");
        assert_eq!(
            snapshot.hash(&schema),
            simulation.state_hash().without_derived(&schema),
            "seed {seed}"
        );
        let mut bytes = Vec::new();
        snapshot.compress(&schema, &mut bytes);
        assert_eq!(Snapshot::decompress(&bytes, &schema), Ok(snapshot));
    }
}

#[test]
fn two_worlds_differ_in_the_field_that_was_changed() {
    let make = |fast| {
        let mut simulation = game().simulation(1, 2);
        let order = Order::March {
            route: vec![Vec2::ZERO, Vec2::new(1.0, 2.0)],
            fast,
        };
        simulation.world_mut().spawn_networked((order, Elite));
        simulation
    };
    let (mut a, mut b) = (make(true), make(false));
    let schema = a.schema().clone();
    let found = a.snapshot().differences(&b.snapshot(), &schema, 10);
    let lines: Vec<_> = found.iter().map(ToString::to_string).collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(
        lines[0].ends_with("Order.value.March.fast: true here, false there"),
        "{lines:?}"
    );
    let mut text = String::new();
    a.snapshot().write_text(&schema, &mut text).unwrap();
    assert!(
        text.contains("  Order: March {route: [(0.0, 0.0), (1.0, 2.0)], fast: true}\n"),
        "{text}"
    );
}
