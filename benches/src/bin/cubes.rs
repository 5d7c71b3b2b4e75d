//! The state codec on the networked physics compression challenge, beside the published coders.
//!
//! ```text
//! cargo run --release -p phalanx-benches --bin cubes -- [--data FILE] [--lag N] [--loss PERCENT]
//!     [--frames N] [--seed N] [--json]
//! ```
//!
//! Without `--data` the scene is made with rapier3d. Every snapshot is decoded from what the client
//! holds and compared. All figures of a run come from the same machine at the same time.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::error::Error;
use std::path::PathBuf;

use phalanx_benches::cubes::{self, SceneConfig, baselines, snapshots, statesync};
use phalanx_benches::worlds;
use phalanx_netcode::state::{QuantizedSnapshot, Shapes};
use statesync::Link;

const USAGE: &str = "usage: cubes [--data FILE] [--lag N] [--loss PERCENT] [--frames N] [--seed N] \
                     [--json]";

/// Snapshots that are not counted: until all references are there.
const WARM_UP: usize = 18;

struct Options {
    data: Option<PathBuf>,
    lag: usize,
    losses: Vec<f64>,
    frames: usize,
    seed: u64,
    json: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = options()?;
    let mut scene = match &options.data {
        Some(path) => cubes::read(path)?,
        None => cubes::generate(options.seed, options.frames, &SceneConfig::default()),
    };
    scene.truncate(options.frames);
    let fiedler = baselines::fiedler(&scene, options.lag)?;
    let giesen = baselines::giesen(&scene, options.lag)?;
    let layout = snapshots::layout();
    let mut shapes = Shapes::default();
    let all = snapshots::snapshots(&scene, &layout, &mut shapes);
    let link = Link {
        lag: options.lag,
        loss_per_million: 0,
        seed: options.seed,
        warm_up: WARM_UP,
    };
    let ours = statesync::run(&layout, &shapes, &all, link)?;
    let per_snapshot = |run: &statesync::Run| run.bytes as f64 / run.snapshots as f64;
    let kbit_s = cubes::kbit_s(ours.bytes, ours.snapshots);
    let mut lossy = Vec::new();
    for &percent in &options.losses {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "checked"
        )]
        let loss_per_million = (percent * 10_000.0) as u32;
        let run = statesync::run(
            &layout,
            &shapes,
            &all,
            Link {
                loss_per_million,
                ..link
            },
        )?;
        lossy.push((percent, per_snapshot(&run) / per_snapshot(&ours) - 1.0));
    }
    let last = all.last().ok_or("the scene is empty")?;
    let idle = statesync::idle_ns(&layout, &shapes, last)?;
    let many = worlds::many_idle(10_000);
    let idle_many = statesync::idle_ns(&many.layout, &many.shapes, &many.snapshots[0])?;
    let crowd = worlds::crowd(90, 120, options.seed);
    let steady = statesync::run(
        &crowd.layout,
        &crowd.shapes,
        &crowd.snapshots,
        Link {
            lag: 2,
            warm_up: 20,
            ..link
        },
    )?;
    let first = statesync::run(
        &crowd.layout,
        &crowd.shapes,
        &crowd.snapshots[..1],
        Link { warm_up: 0, ..link },
    )?;
    if options.json {
        let losses: Vec<String> = lossy
            .iter()
            .map(|(percent, more)| format!("{{\"loss_percent\":{percent},\"more\":{more:.5}}}"))
            .collect();
        println!(
            "{{\"snapshots\":{},\"lag\":{},\"kbit_s\":{kbit_s:.2},\"bytes\":{:.2},\
             \"us_encode\":{:.2},\"us_decode\":{:.2},\"giesen_kbit_s\":{:.2},\
             \"fiedler_kbit_s\":{:.2},\"of_giesen\":{:.4},\"of_fiedler\":{:.4},\
             \"time_of_giesen\":{:.3},\"idle_ns_encode\":{:.2},\"idle_ns_decode\":{:.2},\
             \"moving_90_first\":{:.1},\"moving_90_steady\":{:.1},\"losses\":[{}]}}",
            ours.snapshots,
            options.lag,
            per_snapshot(&ours),
            ours.us_encode,
            ours.us_decode,
            giesen.kbit_s(),
            fiedler.kbit_s(),
            kbit_s / giesen.kbit_s(),
            kbit_s / fiedler.kbit_s(),
            (ours.us_encode + ours.us_decode) / (giesen.us_encode + giesen.us_decode),
            idle.0,
            idle.1,
            per_snapshot(&first),
            per_snapshot(&steady),
            losses.join(",")
        );
        return Ok(());
    }
    println!(
        "{} snapshots of {} cubes, lag {}, payload only, every cube compared; median times",
        ours.snapshots,
        cubes::CUBES,
        options.lag
    );
    println!(
        "{:<10} {:>9} {:>12} {:>10} {:>10}",
        "coder", "kbit/s", "B/snapshot", "µs encode", "µs decode"
    );
    for run in [&fiedler, &giesen] {
        println!(
            "{:<10} {:>9.1} {:>12.1} {:>10.1} {:>10.1}",
            run.coder,
            run.kbit_s(),
            run.bytes_per_snapshot(),
            run.us_encode,
            run.us_decode
        );
    }
    println!(
        "{:<10} {kbit_s:>9.1} {:>12.1} {:>10.1} {:>10.1}   (means {:.1} and {:.1}; {} split)",
        "delta",
        per_snapshot(&ours),
        ours.us_encode,
        ours.us_decode,
        ours.us_encode_mean,
        ours.us_decode_mean,
        ours.split
    );
    println!(
        "bytes: {:.4} of Giesen's, {:.4} of Fiedler's; time {:.2} of Giesen's",
        kbit_s / giesen.kbit_s(),
        kbit_s / fiedler.kbit_s(),
        (ours.us_encode + ours.us_decode) / (giesen.us_encode + giesen.us_decode)
    );
    for (percent, more) in lossy {
        println!("at {percent} % loss: {:+.2} % bytes", more * 100.0);
    }
    println!(
        "idle entity: {:.1} ns encode, {:.1} ns decode (of 901); {:.1} and {:.1} (of 10 000)",
        idle.0, idle.1, idle_many.0, idle_many.1
    );
    println!(
        "90 moving entities, all fields changed: {:.0} B without references, {:.1} B steady",
        per_snapshot(&first),
        per_snapshot(&steady)
    );
    let largest = largest(&crowd.snapshots);
    println!("(a row of these has {largest} lanes)");
    Ok(())
}

fn largest(snapshots: &[QuantizedSnapshot]) -> usize {
    let rows = snapshots.iter().flat_map(QuantizedSnapshot::entities);
    rows.map(|entity| entity.lanes.len()).max().unwrap_or(0)
}

fn options() -> Result<Options, Box<dyn Error>> {
    let mut options = Options {
        data: None,
        lag: cubes::LAG,
        losses: vec![5.0, 25.0],
        frames: 2837,
        seed: 1,
        json: false,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(option) = arguments.next() {
        if option == "--json" {
            options.json = true;
            continue;
        }
        let value = arguments.next().ok_or(USAGE)?;
        match option.as_str() {
            "--data" => options.data = Some(value.into()),
            "--lag" => options.lag = value.parse()?,
            "--loss" => options.losses = vec![value.parse()?],
            "--frames" => options.frames = value.parse()?,
            "--seed" => options.seed = value.parse()?,
            _ => return Err(USAGE.into()),
        }
    }
    let losses_fit = options
        .losses
        .iter()
        .all(|loss| (0.0..=90.0).contains(loss));
    if !(1..=100).contains(&options.lag)
        || !(WARM_UP + 1..=cubes::FRAMES_MAX).contains(&options.frames)
        || !losses_fit
    {
        return Err("lag is 1 to 100, loss 0 to 90 %, frames at least 19".into());
    }
    Ok(options)
}
