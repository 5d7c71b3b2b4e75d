//! Replays of the game: opening and verifying.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use anyhow::{Context, Result};
use phalanx::netcode::delta::Breakdown;
use phalanx::netcode::replay::{Mode, Player, Reader, VerifyReport};
use phalanx::netcode::tick::Tick;
use phalanx::{EcsSimulation, Side};

use serde_json::{Value, json};

use crate::arena;

/// A replay file with the game that plays it.
pub type ReplayPlayer = Player<EcsSimulation, BufReader<File>>;

/// Opens a replay without looking at more than its outline.
///
/// # Errors
/// If it cannot be read or is no replay.
pub fn open(path: &Path) -> Result<Reader<BufReader<File>>> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    Reader::open(BufReader::new(file)).with_context(|| format!("cannot use {}", path.display()))
}

/// Opens a replay to play from `tick` on, or from its start.
///
/// # Errors
/// If it cannot be read, is of another game or build, or does not reach that tick.
pub fn play(path: &Path, tick: Option<Tick>) -> Result<ReplayPlayer> {
    let reader = open(path)?;
    let slots = reader.header().slots();
    // The first keyframe brings the whole state, so the number of units plays no role.
    let game = arena::game(0).context("the game's rules do not fit together")?;
    anyhow::ensure!(
        reader.header().game == game.id(),
        "{} is a replay of the game \"{}\", not of \"{}\"",
        path.display(),
        reader.header().game.escape_debug(),
        game.id()
    );
    let mut simulation = game.simulation(0, slots);
    if reader.header().mode == Mode::StateSync {
        simulation.set_side(Side::Spectating);
    }
    let player = match tick {
        Some(tick) => Player::open_at(simulation, reader, tick),
        None => Player::new(simulation, reader),
    };
    player.with_context(|| format!("cannot play {}", path.display()))
}

/// Plays a replay to its end and compares all that it recorded.
///
/// # Errors
/// The first thing that differs, with its tick.
pub fn verify(path: &Path, progress: impl FnMut(Tick, Tick)) -> Result<VerifyReport> {
    play(path, None)?
        .verify(progress)
        .with_context(|| format!("{} is not verified", path.display()))
}

/// Bits per component and field, in the order of the table that people read. What belongs to no
/// component has no names.
#[must_use]
pub fn breakdown_json(table: &Breakdown) -> Value {
    let rows = table.rows.iter().map(|row| {
        json!({
            "component": row.kind,
            "field": row.field,
            "bytes": row.bits / 8.0,
            "bits_per_snapshot": table.per_snapshot(row.bits),
            "share": table.share(row.bits),
        })
    });
    json!({
        "snapshots": table.snapshots,
        "bytes": table.bits / 8.0,
        "bits_per_snapshot": table.per_snapshot(table.bits),
        "fields": rows.collect::<Vec<_>>(),
    })
}
