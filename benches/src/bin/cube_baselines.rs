//! The challenge's published coders on a scene: bandwidth, time per snapshot, every cube compared.
//!
//! `cargo run --release -p phalanx-benches --bin cube_baselines -- [--data FILE | --seed N [--frames
//! N] [--out FILE]]`. Without `--data` the scene is made with rapier3d, by default 2837 snapshots
//! from seed 1; `--out` writes it in the challenge's format.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::error::Error;
use std::path::{Path, PathBuf};

use phalanx_benches::cubes::{self, Frame, SceneConfig, baselines};

const USAGE: &str = "usage: cube_baselines [--data FILE | --seed N [--frames N] [--out FILE]]";

fn main() -> Result<(), Box<dyn Error>> {
    let scene = scene()?;
    println!("{} snapshots of {} cubes", scene.len(), cubes::CUBES);
    println!(
        "{:<10} {:>9} {:>12} {:>10} {:>10}",
        "coder", "kbit/s", "B/snapshot", "µs encode", "µs decode"
    );
    for run in [
        baselines::fiedler(&scene, cubes::LAG)?,
        baselines::giesen(&scene, cubes::LAG)?,
    ] {
        println!(
            "{:<10} {:>9.1} {:>12.1} {:>10.1} {:>10.1}",
            run.coder,
            run.kbit_s(),
            run.bytes_per_snapshot(),
            run.us_encode,
            run.us_decode
        );
    }
    Ok(())
}

fn scene() -> Result<Vec<Frame>, Box<dyn Error>> {
    let (mut seed, mut frames, mut out) = (1, 2837, None::<PathBuf>);
    let mut arguments = std::env::args().skip(1);
    while let Some(option) = arguments.next() {
        let value = arguments.next().ok_or(USAGE)?;
        match option.as_str() {
            "--data" => return Ok(cubes::read(Path::new(&value))?),
            "--seed" => seed = value.parse()?,
            "--frames" => frames = value.parse()?,
            "--out" => out = Some(value.into()),
            _ => return Err(USAGE.into()),
        }
    }
    if frames > cubes::FRAMES_MAX {
        return Err(format!("at most {} frames", cubes::FRAMES_MAX).into());
    }
    let scene = cubes::generate(seed, frames, &SceneConfig::default());
    if let Some(out) = out {
        cubes::write(&out, &scene)?;
    }
    Ok(scene)
}
