//! Cost of publishing a world to state-sync clients: its exact rows, and their quantized form.
//!
//! Entities have a position, a velocity, a rotation and a health, 45 bytes in four components, with
//! wire forms. Each figure is the median of its samples.
//! `cargo run --release -p phalanx-benches --bin quantize`.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::hint::black_box;
use std::time::Instant;

use phalanx::netcode::state::{
    Patch, QuantizeReport, QuantizedSnapshot, Quantizer, Shapes, Snapshot, WireLayout,
};
use phalanx::prelude::*;

#[derive(Component, Networked, Clone, Copy, Debug)]
struct Position(#[networked(range(-1024..=1024), per_unit = 512, position)] Vec3);

#[derive(Component, Networked, Clone, Copy, Debug)]
struct Velocity(#[networked(range(-64..=64), per_unit = 256)] Vec3);

#[derive(Component, Networked, Clone, Copy, Debug)]
struct Facing(#[networked(rotation = 9)] Quat);

#[derive(Component, Networked, Clone, Copy, Debug)]
struct Health {
    #[networked(range(0..=1000))]
    points: u16,
    is_burning: bool,
    squad: u16,
}

const SAMPLES: usize = 101;

fn main() -> Result<(), GameError> {
    let game = Game::builder("quantize benchmark")
        .component::<Position>()
        .component::<Velocity>()
        .component::<Facing>()
        .component::<Health>()
        .build()?;
    println!("microseconds per snapshot");
    println!(
        "{:>8} {:>8} {:>10} {:>10} {:>10} {:>10}",
        "entities", "changed", "publish", "quantize", "found", "patch"
    );
    for entities in [1_000, 10_000] {
        for percent in [0, 1, 10, 100] {
            measure(&game, entities, percent);
        }
    }
    Ok(())
}

fn measure(game: &Game, entities: usize, percent: usize) {
    let mut simulation = game.simulation(1, 2);
    let world = simulation.world_mut();
    for number in 0..entities {
        let place = Vec3::splat(number as f32 / 50.0);
        let facing = Quat::from_xyzw(0.1, 0.7, place.x.fract() - 0.5, 0.4).normalize();
        world.spawn_networked((
            Position(place),
            Velocity(Vec3::new(1.0, -1.0, 0.5)),
            Facing(facing),
            Health {
                points: 100,
                is_burning: false,
                squad: 3,
            },
        ));
    }
    let layout = WireLayout::new(simulation.schema());
    let mut shapes = Shapes::default();
    let mut quantizer = Quantizer::default();
    let [mut before, mut now] = [const { None }; 2].map(|_: Option<()>| Snapshot::default());
    let [mut old, mut new] = [const { None }; 2].map(|_: Option<()>| QuantizedSnapshot::default());
    let mut report = QuantizeReport::default();
    let mut patch = Patch::default();
    let [mut publishing, mut quantizing, mut patching] = [const { Vec::new() }; 3];
    simulation.publish(&mut before);
    quantizer.quantize(&layout, &mut shapes, &before, None, &mut old);
    for _ in 0..SAMPLES {
        let world = simulation.world_mut();
        let mut query = world.query::<(&mut Position, &mut Velocity, &mut Facing, &mut Health)>();
        let moving = entities * percent / 100;
        for (mut position, mut velocity, mut facing, mut health) in
            query.iter_mut(world).take(moving)
        {
            position.0 += Vec3::splat(0.02);
            velocity.0.x += 0.01;
            facing.0 = (facing.0 * Quat::from_xyzw(0.01, 0.02, 0.0, 0.999)).normalize();
            health.points ^= 1;
        }
        publishing.push(time(|| simulation.publish(black_box(&mut now))));
        quantizing.push(time(|| {
            let past = Some((&before, &old));
            report = quantizer.quantize(&layout, &mut shapes, &now, past, black_box(&mut new));
        }));
        patching.push(time(|| {
            Patch::between(&layout, &shapes, Some(&old), &new, black_box(&mut patch))
                .expect("what was quantized can be dequantized");
        }));
        std::mem::swap(&mut before, &mut now);
        std::mem::swap(&mut old, &mut new);
    }
    println!(
        "{entities:>8} {:>7}% {:>10.1} {:>10.1} {:>10} {:>10.1}",
        percent,
        median(&mut publishing),
        median(&mut quantizing),
        report.changed,
        median(&mut patching),
    );
}

fn median(samples: &mut [f64]) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

/// Microseconds that `run` takes.
fn time(run: impl FnOnce()) -> f64 {
    let start = Instant::now();
    run();
    start.elapsed().as_secs_f64() * 1e6
}
