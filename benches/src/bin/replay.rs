//! What a replay costs: bytes, time on the tick's thread, seeks and verification.
//!
//! ```text
//! cargo run --release -p phalanx-benches --bin replay [-- [states] MINUTES [UNITS]]
//! ```
//!
//! Plays a match of 8 players at 60 Hz (an hour of it unless MINUTES says otherwise) in a game on
//! the engine, whose inputs of 8 bytes change with p = 0.1; records it through the writer thread
//! into a file, then seeks to random ticks and verifies it. The inputs come in two sorts: `noise`
//! changes all 8 bytes to random ones, the worst case; `sticks` changes what players change. With
//! `states` the same match (with `sticks`) is recorded as in state-sync mode: 20 snapshots per second,
//! each coded against those before, here on the thread that plays.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::error::Error;
use std::fs::File;
use std::io::BufReader;
use std::time::{Duration, Instant};

use phalanx::netcode::id::SessionId;
use phalanx::netcode::link::replay_file::ReplayFile;
use phalanx::netcode::prng::Prng;
use phalanx::netcode::replay::{Header, Mode, Player, Reader, Writer};
use phalanx::netcode::state::Snapshot;
use phalanx::prelude::*;

const SLOTS: u8 = 8;
/// Ticks between two recorded state hashes.
const HASH_TICKS: u32 = 10;
const SEEKS: u32 = 100;

#[derive(Component, Networked, Clone, Copy, Debug, PartialEq)]
struct Position(#[networked(range(0..=1024), per_unit = 64, position)] Vec2);

#[derive(Component, Networked, Clone, Copy, Debug, PartialEq)]
struct Velocity(#[networked(range(-16..=16), per_unit = 256)] Vec2);

#[derive(Component, Networked, Clone, Copy, Debug, PartialEq)]
struct Unit {
    squad: u8,
    health: u16,
}

/// One player's input: 8 bytes.
#[derive(Exact, Clone, Copy, Debug, Default)]
struct Stick {
    x: i8,
    y: i8,
    aim: u16,
    buttons: u32,
}

fn steer(sticks: Res<Inputs<Stick>>, mut units: Query<(&Unit, &mut Velocity)>) {
    let mut pushes = [Vec2::ZERO; SLOTS as usize];
    for (slot, stick) in sticks.iter() {
        pushes[slot.index()] = Vec2::new(f32::from(stick.x), f32::from(stick.y)) / 127.0;
    }
    for (unit, mut velocity) in &mut units {
        velocity.0 = velocity.0 * 0.9 + pushes[usize::from(unit.squad)];
    }
}

fn walk(mut units: Query<(&mut Position, &Velocity)>) {
    for (mut position, velocity) in &mut units {
        let next = position.0 + velocity.0;
        // The field is a torus of 1024 units.
        position.0 = Vec2::new(next.x.rem_euclid(1024.0), next.y.rem_euclid(1024.0));
    }
}

fn fight(mut dice: ResMut<TickRng>, mut units: Ordered<(&mut Unit, &mut Position)>) {
    for (mut unit, mut position) in units.iter_mut() {
        if dice.chance_per_million(2000) {
            unit.health = unit.health.saturating_sub(40);
            if unit.health == 0 {
                unit.health = 100;
                position.0 = Vec2::splat(f32::from(unit.squad) * 100.0);
            }
        }
    }
}

fn game(units: u32) -> Result<Game, GameError> {
    Game::builder("replay-bench")
        .component::<Position>()
        .component::<Velocity>()
        .component::<Unit>()
        .input::<Stick>()
        .systems(|| (steer, walk, fight).chain())
        .setup(move |world, _setup| {
            for (squad, _) in (0..SLOTS).cycle().zip(0..units) {
                let place = Vec2::splat(f32::from(squad) * 100.0);
                let unit = Unit { squad, health: 100 };
                world.spawn_networked((Position(place), Velocity(Vec2::ZERO), unit));
            }
        })
        .build()
}

/// How inputs change.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Inputs8 {
    Noise,
    Sticks,
}

impl Inputs8 {
    fn change(self, prng: &mut Prng, input: &mut [u8; 8]) {
        match self {
            Self::Noise => *input = prng.next_u64().to_le_bytes(),
            Self::Sticks => {
                let [step, choice, bit, ..] = prng.next_u64().to_le_bytes();
                match choice % 4 {
                    0 => input[0] = step,
                    1 => input[1] = step,
                    2 => input[2] = input[2].wrapping_add(step % 32),
                    _ => input[4] ^= 1 << (bit % 4),
                }
            }
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1).peekable();
    let states = arguments.next_if(|word| word == "states").is_some();
    let minutes: u32 = arguments.next().map_or(Ok(60), |text| text.parse())?;
    let units: u32 = arguments.next().map_or(Ok(1000), |text| text.parse())?;
    let game = game(units)?;
    let ticks = minutes * 60 * u32::from(game.tick_rate().hz());
    println!("{minutes} minutes, {ticks} ticks, {SLOTS} players, {units} units");
    if states {
        return run_states(&game, ticks);
    }
    for inputs in [Inputs8::Sticks, Inputs8::Noise] {
        println!("\ninputs: {inputs:?}");
        run(&game, ticks, inputs)?;
    }
    Ok(())
}

fn run(game: &Game, ticks: u32, inputs: Inputs8) -> Result<(), Box<dyn Error>> {
    let path = std::env::temp_dir().join(format!("phalanx-bench-{}.phx", std::process::id()));
    let recorded = record(game, ticks, inputs, &path);
    let played = recorded.and_then(|()| play(game, ticks, &path));
    std::fs::remove_file(&path)?;
    played
}

/// Ticks between two snapshots.
const SNAPSHOT_TICKS: u32 = 3;

fn run_states(game: &Game, ticks: u32) -> Result<(), Box<dyn Error>> {
    let path = std::env::temp_dir().join(format!("phalanx-bench-{}.phx", std::process::id()));
    let recorded = record_states(game, ticks, &path);
    let played = recorded.and_then(|()| play(game, ticks, &path));
    std::fs::remove_file(&path)?;
    played
}

fn record_states(game: &Game, ticks: u32, path: &std::path::Path) -> Result<(), Box<dyn Error>> {
    let mut simulation = game.simulation(7, SLOTS);
    let header = header(game, Mode::StateSync, simulation.tick());
    let mut writer = Writer::new(File::create(path)?, &header)?;
    let (mut state, mut copy) = (Snapshot::default(), Snapshot::default());
    simulation.publish(&mut state);
    writer.state(&state, true)?;

    let mut prng = Prng::new(3);
    let mut values = [[0_u8; 8]; SLOTS as usize];
    let mut frame = InputFrame::empty(simulation.tick(), SLOTS, game.input_bytes());
    let (mut costs, mut copies) = (Vec::new(), Vec::new());
    for tick in 1..=ticks {
        frame.set_tick(frame.tick().next());
        for (slot, value) in (0..SLOTS).zip(&mut values) {
            if prng.chance_per_million(100_000) {
                Inputs8::Sticks.change(&mut prng, value);
            }
            frame.set(Slot(slot), value);
        }
        simulation.step(&frame, StepKind::First);
        if !tick.is_multiple_of(SNAPSHOT_TICKS) {
            continue;
        }
        simulation.publish(&mut state);
        let start = Instant::now();
        copy.clone_from(&state);
        copies.push(start.elapsed());
        let start = Instant::now();
        writer.state(&copy, tick % 3600 == 0)?;
        costs.push(start.elapsed());
    }
    let (_file, summary) = writer.finish()?;
    let info = Reader::open(BufReader::new(File::open(path)?))?.info()?;
    println!("file                {:>10} B", summary.bytes);
    println!(
        "  states            {:>10} B ({}, {:.0} B each)",
        info.states.bytes,
        summary.states,
        bytes_each(info.states.bytes, summary.states),
    );
    println!("  hashes            {:>10} B", info.hashes.bytes);
    println!(
        "  keyframes         {:>10} B ({})",
        info.keyframes.bytes, info.keyframes.chunks
    );
    show("copy, per state", &mut copies);
    show("code and write", &mut costs);
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "a figure to print")]
fn bytes_each(bytes: u64, count: u32) -> f64 {
    bytes as f64 / f64::from(count.max(1))
}

fn header(game: &Game, mode: Mode, start: Tick) -> Header {
    Header {
        game: game.id().to_owned(),
        build: env!("CARGO_PKG_VERSION").to_owned(),
        mode,
        tick_rate: game.tick_rate(),
        input_bytes: game.input_bytes(),
        seed: 7,
        session: SessionId(1),
        schema: game.schema().clone(),
        roster: vec![String::from("bot"); usize::from(SLOTS)],
        start,
    }
}

fn record(
    game: &Game,
    ticks: u32,
    inputs: Inputs8,
    path: &std::path::Path,
) -> Result<(), Box<dyn Error>> {
    let mut simulation = game.simulation(7, SLOTS);
    let header = header(game, Mode::Lockstep, simulation.tick());
    let mut file = ReplayFile::create(path, &header)?;
    file.keyframe(simulation.snapshot());

    let mut prng = Prng::new(3);
    let mut values = [[0_u8; 8]; SLOTS as usize];
    let mut frame = InputFrame::empty(simulation.tick(), SLOTS, game.input_bytes());
    let mut costs = Vec::new();
    let mut keyframe_costs = Vec::new();
    let mut stepping = Duration::ZERO;
    for _ in 0..ticks {
        frame.set_tick(frame.tick().next());
        for (slot, value) in (0..SLOTS).zip(&mut values) {
            if prng.chance_per_million(100_000) {
                inputs.change(&mut prng, value);
            }
            frame.set(Slot(slot), value);
        }
        let start = Instant::now();
        simulation.step(&frame, StepKind::First);
        stepping += start.elapsed();
        let hash = simulation
            .tick()
            .number()
            .is_multiple_of(HASH_TICKS)
            .then(|| simulation.state_hash().combined());

        let start = Instant::now();
        file.frame(&frame);
        if let Some(hash) = hash {
            file.hash(frame.tick(), hash);
        }
        costs.push(start.elapsed());
        if file.keyframe_due(frame.tick()) {
            let start = Instant::now();
            file.keyframe(simulation.snapshot());
            keyframe_costs.push(start.elapsed());
        }
    }
    let summary = file.finish()?;
    let info = Reader::open(BufReader::new(File::open(path)?))?.info()?;
    println!(
        "step                {:>10.1} µs, mean",
        micros(stepping) / f64::from(ticks)
    );
    println!("file                {:>10} B", summary.bytes);
    println!("  inputs            {:>10} B", info.inputs.bytes);
    println!(
        "  hashes            {:>10} B (every {HASH_TICKS} ticks)",
        info.hashes.bytes
    );
    println!(
        "  keyframes         {:>10} B ({})",
        info.keyframes.bytes, info.keyframes.chunks
    );
    show("record, per tick", &mut costs);
    show("capture a keyframe", &mut keyframe_costs);
    Ok(())
}

fn play(game: &Game, ticks: u32, path: &std::path::Path) -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    let reader = Reader::open(BufReader::new(File::open(path)?))?;
    println!(
        "open                {:>10.2} ms",
        micros(start.elapsed()) / 1000.0
    );
    let mut player = Player::new(game.simulation(0, SLOTS), reader)?;
    let mut prng = Prng::new(5);
    let mut costs = Vec::new();
    for _ in 0..SEEKS {
        let tick = u32::try_from(prng.below(u64::from(ticks)))?;
        let start = Instant::now();
        player.seek(Tick::new(tick))?;
        costs.push(start.elapsed());
        if let (simulated, Some(recorded)) = player.hashes()?
            && simulated != recorded
        {
            return Err(format!("tick {tick} is another after a seek").into());
        }
    }
    show("seek to a random tick", &mut costs);
    let start = Instant::now();
    let report = player.verify(|_, _| ())?;
    let took = start.elapsed();
    println!(
        "verify              {:>10.2} s ({} states, {} hashes, {} keyframes)",
        took.as_secs_f64(),
        report.states,
        report.hashes,
        report.keyframes,
    );
    Ok(())
}

fn show(what: &str, costs: &mut [Duration]) {
    costs.sort_unstable();
    let total: Duration = costs.iter().sum();
    let (Some(&max), Ok(count)) = (costs.last(), u32::try_from(costs.len())) else {
        return;
    };
    let at = |part: usize| micros(costs[costs.len() * part / 1000]);
    println!(
        "{what:<22} mean {:>8.2} µs, median {:>8.2}, 99.9 % {:>8.2}, max {:>8.2}",
        micros(total / count),
        at(500),
        at(999),
        micros(max),
    );
}

fn micros(span: Duration) -> f64 {
    span.as_secs_f64() * 1e6
}
