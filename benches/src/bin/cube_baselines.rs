//! The challenge's published coders on a scene: bandwidth, time per snapshot, every cube compared.
//!
//! `cargo run --release -p phalanx-benches --bin cube_baselines -- --data FILE`
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::error::Error;
use std::path::Path;

use phalanx_benches::cubes::{self, baselines};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [option, path] = &arguments[..] else {
        return Err("usage: cube_baselines --data FILE".into());
    };
    if option != "--data" {
        return Err(format!("unknown option {option}; usage: cube_baselines --data FILE").into());
    }
    let scene = cubes::read(Path::new(path))?;
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
