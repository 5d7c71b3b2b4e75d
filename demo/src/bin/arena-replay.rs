//! Looks at replays of Arena: what they hold, whether they are right, how they played.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use phalanx::ShownWorld;
use phalanx::netcode::replay::Mode;
use phalanx::netcode::simulation::Simulation as _;
use phalanx::netcode::tick::Tick;
use phalanx_demo::replay;
use phalanx_demo::summary;
use phalanx_demo::view::{self, Canvas};

const PROGRAM: &str = "arena-replay";

/// Looks at replays of Arena.
#[derive(Parser, Debug)]
#[command(name = PROGRAM, version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Says what a replay holds
    Info {
        /// The replay
        file: PathBuf,
        /// Also which components and fields its states spend their bytes on
        #[arg(long)]
        bytes: bool,
        /// With --bytes: prints JSON instead of tables
        #[arg(long, requires = "bytes")]
        json: bool,
    },
    /// Plays a replay and compares every recorded hash and keyframe
    Verify {
        /// The replay
        file: PathBuf,
    },
    /// Shows a replay on the terminal
    Play {
        /// The replay
        file: PathBuf,
        /// Times the speed of the match
        #[arg(
            long,
            allow_negative_numbers = true,
            value_name = "X",
            default_value_t = 1.0
        )]
        speed: f64,
        /// The tick to begin at
        #[arg(long, allow_negative_numbers = true, value_name = "TICK")]
        from: Option<u32>,
    },
    /// Prints the state at a tick as text
    Dump {
        /// The replay
        file: PathBuf,
        /// The tick; the last one otherwise
        #[arg(long, allow_negative_numbers = true, value_name = "T")]
        tick: Option<u32>,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    summary::main(PROGRAM, || {
        let done = match cli.command {
            Command::Info { file, bytes, json } => info(&file, bytes, json),
            Command::Verify { file } => verify(&file),
            Command::Play { file, speed, from } => play(&file, speed, from.map(Tick::new)),
            Command::Dump { file, tick } => dump(&file, tick.map(Tick::new)),
        };
        match done {
            // Whoever read the output has seen enough, as `head` has.
            Err(error) if summary::is_closed_pipe(&error) => Ok(ExitCode::SUCCESS),
            done => done.map(|()| ExitCode::SUCCESS),
        }
    })
}

fn info(file: &Path, bytes: bool, json: bool) -> Result<()> {
    let mut reader = replay::open(file)?;
    let cannot_read = || format!("cannot read {}", file.display());
    let info = reader.info().with_context(cannot_read)?;
    if !json {
        writeln!(io::stdout(), "{info}")?;
    }
    if !bytes {
        return Ok(());
    }
    let table = reader.breakdown(progress()).with_context(cannot_read)?;
    clear_progress();
    if json {
        writeln!(io::stdout(), "{}", replay::breakdown_json(&table))?;
    } else if info.header.mode == Mode::Lockstep {
        writeln!(
            io::stdout(),
            "\nbytes      this replay is of a lockstep session: it holds inputs and no states"
        )?;
    } else {
        writeln!(io::stdout(), "\n{table}")?;
    }
    Ok(())
}

/// Shows on a terminal how far something has come.
fn progress() -> impl FnMut(Tick, Tick) {
    let is_terminal = io::stderr().is_terminal();
    move |tick, last| {
        if is_terminal {
            // Progress is a courtesy; a closed terminal is no reason to stop.
            let _ = write!(io::stderr(), "\rtick {tick} of {last}\x1b[K");
        }
    }
}

fn clear_progress() {
    if io::stderr().is_terminal() {
        let _ = write!(io::stderr(), "\r\x1b[K");
    }
}

fn verify(file: &Path) -> Result<()> {
    let report = replay::verify(file, progress());
    clear_progress();
    let report = report?;
    // What clients hold has a hash of its own, which is not the one of the host's whole state.
    let (states, what) = match report.states {
        0 => (String::new(), "hashes"),
        states => (format!("{states} states, "), "hashes of what clients hold"),
    };
    writeln!(
        io::stdout(),
        "verified: ticks {} to {}, {states}{} {what} and {} keyframes equal; {}",
        report.first,
        report.last,
        report.hashes,
        report.keyframes,
        report.completeness,
    )?;
    Ok(())
}

fn play(file: &Path, speed: f64, from: Option<Tick>) -> Result<()> {
    ensure!(
        speed.is_finite() && speed > 0.0 && speed <= 1000.0,
        "--speed must lie above 0 and up to 1000, it is {speed}"
    );
    let mut player = replay::play(file, from)?;
    let rate = player.reader().header().tick_rate;
    let last = player.reader().last_tick();
    let names = player.reader().header().roster.clone();
    let terminal = io::stdout().is_terminal();
    let canvas = Canvas::new(terminal && std::env::var_os("NO_COLOR").is_none());
    let start_tick = player.tick();
    let start = Instant::now();
    let mut drawn_at: Option<Instant> = None;
    loop {
        let is_last = player.tick() >= last;
        if is_last || drawn_at.is_none_or(|at| at.elapsed() >= Duration::from_millis(100)) {
            drawn_at = Some(Instant::now());
            let mut stdout = io::stdout().lock();
            let home = if terminal { "\x1b[H" } else { "" };
            let erase = if terminal { "\x1b[J" } else { "" };
            let simulation = player.simulation();
            let shown = ShownWorld::new(simulation, None);
            let field = view::draw(shown, simulation.world(), canvas, &names);
            writeln!(
                stdout,
                "{home}{field}tick {} of {last}{erase}",
                player.tick()
            )?;
            stdout.flush()?;
        }
        let goes_on = player
            .step()
            .with_context(|| format!("cannot play {}", file.display()))?;
        if !goes_on {
            return Ok(());
        }
        let played = Tick::new(player.tick().since(start_tick));
        let due = Duration::from_micros(rate.micros_at(played)).div_f64(speed);
        thread::sleep(due.saturating_sub(start.elapsed()));
    }
}

fn dump(file: &Path, tick: Option<Tick>) -> Result<()> {
    let last = replay::open(file)?.last_tick();
    let mut player = replay::play(file, Some(tick.unwrap_or(last)))?;
    let snapshot = player.snapshot();
    let mut text = String::new();
    snapshot.write_text(player.simulation().schema(), &mut text)?;
    io::stdout().write_all(text.as_bytes())?;
    Ok(())
}
