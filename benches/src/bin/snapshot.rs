//! Cost of saving, restoring and hashing an ECS world, against a plain copy of the same bytes.
//!
//! Entities have four components of 45 bytes together. All figures of a line come from one run in
//! which the measured things take turns, so that other load hits them alike; each is the median of
//! its samples. `cargo run --release -p phalanx-benches --bin snapshot`.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::hint::black_box;
use std::time::Instant;

use phalanx::netcode::state::StateHash;
use phalanx::prelude::*;

#[derive(Component, Networked, Clone, Copy, Debug)]
struct Position(Vec3);

#[derive(Component, Networked, Clone, Copy, Debug)]
struct Velocity(Vec3);

#[derive(Component, Networked, Clone, Copy, Debug)]
struct Facing(Quat);

#[derive(Component, Networked, Clone, Copy, Debug)]
struct Health([u8; 5]);

/// Bytes of the components, one by one.
const BYTES: [usize; 4] = [12, 12, 16, 5];

/// Bytes per entity.
const ENTITY_BYTES: usize = 45;

/// Of every so many entities, the costlier restore finds one despawned and one spawned.
const CHURN: usize = 100;

const SAMPLES: usize = 201;

fn main() -> Result<(), GameError> {
    let game = Game::builder("snapshot benchmark")
        .component::<Position>()
        .component::<Velocity>()
        .component::<Facing>()
        .component::<Health>()
        .build()?;
    println!("nanoseconds per entity of {ENTITY_BYTES} bytes; x is the ratio to memcpy");
    println!(
        "{:>8} {:>8} {:>15} {:>15} {:>15} {:>8} {:>8}",
        "entities", "memcpy", "capture", "restore", "1 % churn", "hash", "export"
    );
    for entities in [1_000, 10_000, 100_000] {
        measure(&game, entities);
    }
    Ok(())
}

fn measure(game: &Game, entities: usize) {
    let mut simulation = game.simulation(1, 2);
    for number in 0..entities {
        spawn(simulation.world_mut(), number);
    }
    let sources = BYTES.map(|bytes| vec![7_u8; bytes * entities]);
    let mut copies = sources.clone();
    let mut image = EcsImage::default();
    let mut hash = StateHash::default();
    simulation.capture(&mut image);

    let [
        mut memcpy,
        mut capture,
        mut restore,
        mut churn,
        mut hashing,
        mut export,
    ] = [const { Vec::new() }; 6];
    for sample in 0..SAMPLES {
        memcpy.push(time(|| {
            for (copy, source) in copies.iter_mut().zip(&sources) {
                black_box(&mut *copy).copy_from_slice(black_box(source));
            }
        }));
        capture.push(time(|| simulation.capture(black_box(&mut image))));
        restore.push(time(|| simulation.restore(black_box(&image))));
        hashing.push(time(|| simulation.hash(black_box(&mut hash))));
        if sample % 20 == 0 {
            export.push(time(|| drop(black_box(simulation.export(&image)))));
            change(simulation.world_mut(), entities / CHURN);
            churn.push(time(|| simulation.restore(black_box(&image))));
            // The despawned ones lie in other rows now.
            simulation.capture(&mut image);
        }
    }
    let per_entity = |samples: &mut Vec<f64>| {
        samples.sort_by(f64::total_cmp);
        samples[samples.len() / 2] / entities as f64
    };
    let memcpy = per_entity(&mut memcpy);
    let ratio = |samples: &mut Vec<f64>| {
        let cost = per_entity(samples);
        format!("{cost:.2} {:.2}x", cost / memcpy)
    };
    println!(
        "{entities:>8} {memcpy:>8.2} {:>15} {:>15} {:>15} {:>8.2} {:>8.2}",
        ratio(&mut capture),
        ratio(&mut restore),
        ratio(&mut churn),
        per_entity(&mut hashing),
        per_entity(&mut export),
    );
}

fn spawn(world: &mut World, number: usize) {
    let number = number as f32;
    world.spawn_networked((
        Position(Vec3::splat(number)),
        Velocity(Vec3::new(number, 1.0, -1.0)),
        Facing(Quat::IDENTITY),
        Health([1, 2, 3, 4, 5]),
    ));
}

/// Despawns `count` entities, spread over all, and spawns as many.
fn change(world: &mut World, count: usize) {
    let index = world.resource::<NetIndex>();
    let stride = index.len() / count.max(1);
    let doomed: Vec<Entity> = index
        .iter()
        .step_by(stride)
        .take(count)
        .map(|(_id, entity)| entity)
        .collect();
    for (number, entity) in doomed.into_iter().enumerate() {
        world.despawn(entity);
        spawn(world, number);
    }
}

/// Nanoseconds that `run` takes.
fn time(run: impl FnOnce()) -> f64 {
    let start = Instant::now();
    run();
    start.elapsed().as_secs_f64() * 1e9
}
