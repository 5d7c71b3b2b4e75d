//! What it takes to tell another node all of a state every tick, bit for bit: bytes and time.
//!
//! Worlds of entities with a position, a velocity, a rotation and a health, of which a part moves,
//! and the demo game with eight bots. A delta starts some ticks back, where the receiver's newest
//! ack is, and may use one tick earlier to foretell. For comparison: the whole state, and the
//! difference of all its bytes, both compressed by LZ4. Medians.
//! `cargo run --release -p phalanx-benches --bin exact_delta`.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::hint::black_box;
use std::time::Instant;

use phalanx::netcode::prng::Prng;
use phalanx::netcode::state::{DeltaCodec, Schema, Snapshot, StateHash};
use phalanx::netcode::wire::compress::compress;
use phalanx::prelude::*;
use phalanx_demo::arena::{self, Bot};

#[derive(Component, Networked, Clone, Copy, Debug)]
struct Place(Vec3);

#[derive(Component, Networked, Clone, Copy, Debug)]
struct Movement(Vec3);

#[derive(Component, Networked, Clone, Copy, Debug)]
struct Facing(Quat);

#[derive(Component, Networked, Clone, Copy, Debug)]
struct Life {
    points: u16,
    is_burning: bool,
    squad: u16,
}

const SLOTS: u8 = 8;
const WARM_UP_TICKS: usize = 120;
const TICKS: usize = 60;
/// Ticks from the receiver's newest ack to the present one: at 60 Hz and a round trip of 50 ms.
const BEHIND: usize = 4;

fn main() -> Result<(), GameError> {
    println!(
        "{:>8} {:>6} | {:>8} {:>8} {:>8} {:>8} {:>8} | {:>8} {:>8} {:>8} {:>8} {:>8}",
        "entities",
        "moving",
        "whole",
        "lz4",
        "1 tick",
        "delta",
        "foretold",
        "snapshot",
        "hash",
        "encode",
        "apply",
        "step"
    );
    for entities in [1_000, 10_000] {
        for percent in [0, 1, 10, 100] {
            let game = Game::builder("exact delta benchmark")
                .component::<Place>()
                .component::<Movement>()
                .component::<Facing>()
                .component::<Life>()
                .build()?;
            let mut simulation = game.simulation(1, 2);
            let mut prng = Prng::new(7);
            for _ in 0..entities {
                spawn(simulation.world_mut(), &mut prng);
            }
            let moving = entities * percent / 100;
            measure(&mut simulation, &format!("{percent}%"), |simulation| {
                steer(simulation.world_mut(), moving, &mut prng);
                let frame = InputFrame::empty(simulation.tick().next(), 2, game.input_bytes());
                simulation.step(&frame, StepKind::First);
            });
        }
    }
    for units in [1_000, 10_000] {
        let game = arena::game(units)?;
        let mut simulation = game.simulation(1, SLOTS);
        let mut bots: Vec<Bot> = (0..SLOTS).map(|slot| Bot::new(1, Slot(slot))).collect();
        measure(&mut simulation, "arena", |simulation| {
            let tick = simulation.tick().next();
            let mut frame = InputFrame::empty(tick, SLOTS, game.input_bytes());
            for (slot, bot) in (0..SLOTS).map(Slot).zip(&mut bots) {
                frame.set(slot, &game.encode_input(&bot.next_command()));
            }
            simulation.step(&frame, StepKind::First);
        });
    }
    Ok(())
}

fn spawn(world: &mut World, prng: &mut Prng) {
    let mut one = || prng.range_f32(-1.0, 1.0);
    world.spawn_networked((
        Place(Vec3::new(one() * 100.0, one() * 100.0, one())),
        Movement(Vec3::new(one(), one(), one())),
        Facing(Quat::from_xyzw(one(), one(), one(), 1.0).normalize()),
        Life {
            points: 100,
            is_burning: false,
            squad: 3,
        },
    ));
}

/// Moves `moving` entities at 60 Hz, each with a slowly changing speed.
fn steer(world: &mut World, moving: usize, prng: &mut Prng) {
    let mut query = world.query::<(&mut Place, &mut Movement, &mut Facing, &mut Life)>();
    for (mut place, mut movement, mut facing, mut life) in query.iter_mut(world).take(moving) {
        let push = Vec3::new(prng.range_f32(-0.1, 0.1), prng.range_f32(-0.1, 0.1), 0.0);
        movement.0 += push;
        place.0 += movement.0 / 60.0;
        facing.0 = (facing.0 * Quat::from_xyzw(0.0, 0.0, 0.005, 1.0)).normalize();
        if prng.below(60) == 0 {
            life.points -= 1;
        }
    }
}

fn measure(simulation: &mut EcsSimulation, name: &str, mut step: impl FnMut(&mut EcsSimulation)) {
    let schema = std::sync::Arc::clone(simulation.schema());
    let (mut ours, mut theirs) = (DeltaCodec::new(&schema), DeltaCodec::new(&schema));
    let mut states: Vec<Snapshot> = Vec::new();
    let mut image = EcsImage::default();
    let mut hash = StateHash::default();
    let mut out = Snapshot::default();
    let mut bytes = Vec::new();
    let mut sizes = [const { Vec::new() }; 5];
    let mut times = [const { Vec::new() }; 5];
    for number in 0..WARM_UP_TICKS + TICKS {
        times[4].push(time(|| step(simulation)));
        if number + BEHIND + 1 < WARM_UP_TICKS {
            continue;
        }
        let mut now = Snapshot::default();
        times[0].push(time(|| {
            simulation.capture(&mut image);
            now = simulation.export(&image);
        }));
        times[1].push(time(|| simulation.hash(black_box(&mut hash))));
        if states.len() > BEHIND {
            let start = &states[states.len() - BEHIND];
            let earlier = &states[states.len() - BEHIND - 1];
            bytes.clear();
            now.compress(&schema, &mut bytes);
            sizes[0].push(bytes.len() as f64);
            sizes[1].push(difference(start, &now, &schema) as f64);
            for (sizes, (start, earlier)) in sizes[2..4]
                .iter_mut()
                .zip([(&states[states.len() - 1], None), (start, None)])
            {
                bytes.clear();
                ours.encode(start, earlier, &now, &mut bytes);
                sizes.push(bytes.len() as f64);
            }
            bytes.clear();
            times[2].push(time(|| {
                ours.encode(start, Some(earlier), &now, &mut bytes);
            }));
            sizes[4].push(bytes.len() as f64);
            times[3].push(time(|| {
                theirs
                    .apply(start, Some(earlier), &bytes, &mut out)
                    .expect("a delta that was just made");
            }));
            assert!(out == now, "the very same state");
        }
        states.push(now);
    }
    let entities = image.entities();
    let [whole, lz4, last, delta, foretold] = sizes.map(median);
    let [snapshot, hash, encode, apply, step] = times.map(median);
    println!(
        "{entities:>8} {name:>6} | {whole:>8.0} {lz4:>8.0} {last:>8.0} {delta:>8.0} {foretold:>8.0} | \
         {snapshot:>8.0} {hash:>8.0} {encode:>8.0} {apply:>8.0} {step:>8.0}"
    );
}

/// Bytes of the difference of all bytes of two states, compressed.
fn difference(start: &Snapshot, now: &Snapshot, schema: &Schema) -> usize {
    let (mut old, mut new) = (Vec::new(), Vec::new());
    start.encode(schema, &mut old);
    now.encode(schema, &mut new);
    old.resize(new.len(), 0);
    let bytes: Vec<u8> = old
        .iter()
        .zip(&new)
        .map(|(old, new)| new.wrapping_sub(*old))
        .collect();
    let mut out = Vec::new();
    compress(&bytes, &mut out);
    out.len()
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

/// Microseconds that `run` takes.
fn time(run: impl FnOnce()) -> f64 {
    let start = Instant::now();
    run();
    start.elapsed().as_secs_f64() * 1e6
}
