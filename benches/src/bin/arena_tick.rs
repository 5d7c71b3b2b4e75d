//! What a tick of the demo game costs, and what lockstep adds to it: capture, restore and hash.
//!
//! `cargo run --release -p phalanx-benches --bin arena_tick [TICKS]`, by default 120 ticks per size (a
//! tenth of it for 100 000 units). Eight bots play; medians, in microseconds. `growth` is the time per
//! unit relative to 1000 units: a rule that looks at all pairs would grow a hundredfold.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::hint::black_box;
use std::time::Instant;

use phalanx::netcode::state::StateHash;
use phalanx::prelude::*;
use phalanx_demo::arena::{self, Bot};

const SLOTS: u8 = 8;
const WARM_UP_TICKS: usize = 60;

fn main() -> Result<(), GameError> {
    let ticks = std::env::args().nth(1).and_then(|text| text.parse().ok());
    let ticks: usize = ticks.unwrap_or(120);
    println!(
        "{:>8} {:>10} {:>10} {:>10} {:>10} {:>8}",
        "units", "step", "capture", "restore", "hash", "growth"
    );
    let mut first = None;
    for units in [1_000, 5_000, 10_000, 100_000] {
        let ticks = if units > 50_000 { ticks / 10 } else { ticks };
        let game = arena::game(units)?;
        let [step, capture, restore, hash] = measure(&game, ticks.max(1));
        let per_unit = step / f64::from(units);
        let growth = per_unit / *first.get_or_insert(per_unit);
        println!(
            "{units:>8} {step:>10.0} {capture:>10.1} {restore:>10.1} {hash:>10.1} {growth:>8.2}"
        );
    }
    Ok(())
}

fn measure(game: &Game, ticks: usize) -> [f64; 4] {
    let mut simulation = game.simulation(1, SLOTS);
    let mut bots: Vec<Bot> = (0..SLOTS).map(|slot| Bot::new(1, Slot(slot))).collect();
    let mut image = EcsImage::default();
    let mut hash = StateHash::default();
    let mut times = [const { Vec::new() }; 4];
    for number in 0..WARM_UP_TICKS + ticks {
        let tick = simulation.tick().next();
        let mut frame = InputFrame::empty(tick, SLOTS, game.input_bytes());
        for (slot, bot) in (0..SLOTS).map(Slot).zip(&mut bots) {
            frame.set(slot, &game.encode_input(&bot.next_command()));
        }
        let spent = [
            time(|| simulation.step(&frame, StepKind::First)),
            time(|| simulation.capture(black_box(&mut image))),
            time(|| simulation.restore(black_box(&image))),
            time(|| simulation.hash(black_box(&mut hash))),
        ];
        if number >= WARM_UP_TICKS {
            for (all, us) in times.iter_mut().zip(spent) {
                all.push(us);
            }
        }
    }
    times.map(|mut all| {
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    })
}

/// Microseconds that `run` takes.
fn time(run: impl FnOnce()) -> f64 {
    let start = Instant::now();
    run();
    start.elapsed().as_secs_f64() * 1e6
}
