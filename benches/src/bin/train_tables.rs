//! Learns the fixed numbers of the state codec and writes them.
//!
//! ```text
//! cargo run --release -p phalanx-benches --bin train_tables -- netcode/src/delta/tables.bin
//! ```
//!
//! The scenes are made here, each from a seed: cubes that a player rolls about, in several
//! configurations and at several rates, and the small worlds of [`phalanx_benches::worlds`]. None is
//! one that the codec is measured with.

use std::sync::Arc;

use phalanx_benches::cubes::{self, SceneConfig, snapshots};
use phalanx_benches::worlds;
use phalanx_netcode::delta::training::Lessons;
use phalanx_netcode::delta::{Encoder, Reference, View};
use phalanx_netcode::prng::Prng;
use phalanx_netcode::state::{QuantizedSnapshot, Shapes, WireLayout};

const ROUNDS: usize = 6;

/// Snapshots that follow each other.
struct Scene {
    name: &'static str,
    weight: f64,
    layout: Arc<WireLayout>,
    shapes: Shapes,
    snapshots: Vec<QuantizedSnapshot>,
    /// Usual age of the base.
    lag: usize,
}

#[expect(clippy::print_stdout, reason = "a program that reports its progress")]
fn main() {
    let path = std::env::args().nth(1).expect("where to write the tables");
    let scenes = scenes();
    let mut lessons = Lessons::default();
    for round in 0..ROUNDS {
        for scene in &scenes {
            let before = lessons.bits();
            let count = take(&mut lessons, scene, round);
            let spent = (lessons.bits() - before) / scene.weight;
            println!(
                "round {round}, {}: {:.1} bytes per snapshot",
                scene.name,
                spent / 8.0 / count
            );
        }
        lessons.end_round();
    }
    std::fs::write(path, lessons.to_bytes()).expect("the tables can be written");
}

/// Lets `lessons` see a scene; returns how many snapshots it saw.
fn take(lessons: &mut Lessons, scene: &Scene, round: usize) -> f64 {
    let mut encoder = Encoder::new(Arc::clone(&scene.layout));
    let mut prng = Prng::with_stream(7, u64::try_from(round).expect("few rounds"));
    let mut count = 0.0;
    for number in 16..scene.snapshots.len() {
        let ages = ages(&mut prng, scene.lag, number);
        let references: Vec<Reference<'_>> = ages
            .iter()
            .map(|&age| Reference {
                age: u32::try_from(age).expect("few"),
                view: View::all(&scene.snapshots[number - age]),
            })
            .collect();
        let now = View::all(&scene.snapshots[number]);
        lessons.take(&mut encoder, scene.weight, &scene.shapes, now, &references);
        count += 1.0;
    }
    count
}

/// Ages of references as links have them: mostly the usual ones, at times others after losses.
fn ages(prng: &mut Prng, lag: usize, number: usize) -> Vec<usize> {
    let mut pick = |choices: &[usize]| {
        choices[usize::try_from(prng.below(choices.len() as u64)).expect("small")]
    };
    let base = match pick(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2]) {
        0 => lag,
        1 => lag + pick(&[1, 1, 2, 3]),
        _ => pick(&[1, 2, 3, 4, 8]),
    };
    let older = match pick(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2]) {
        0 => vec![1, 4],
        1 => vec![pick(&[1, 2]), pick(&[3, 4, 5, 6])],
        _ => vec![pick(&[1, 2, 3, 4, 6])],
    };
    let all = core::iter::once(base).chain(older.into_iter().map(|gap| base + gap));
    all.filter(|&age| age <= number).collect()
}

fn scenes() -> Vec<Scene> {
    let mut scenes = Vec::new();
    let usual = SceneConfig::default();
    let configs = [
        (usual, 1500),
        (
            SceneConfig {
                speed: 7.0,
                spacing: 0.9,
                ..usual
            },
            1500,
        ),
        (
            SceneConfig {
                small_half: 0.25,
                pull: 18.0,
                friction: 0.4,
                ..usual
            },
            1200,
        ),
        (
            SceneConfig {
                scatter: 0.2,
                speed: 11.0,
                restitution: 0.3,
                ..usual
            },
            1200,
        ),
        (usual, 2400),
        (
            SceneConfig {
                speed: 8.0,
                thrust: 24.0,
                ..usual
            },
            2000,
        ),
        (usual, 2800),
        (usual, 2800),
        (
            SceneConfig {
                speed: 7.0,
                thrust: 20.0,
                ..usual
            },
            2800,
        ),
        (usual, 2800),
        (
            SceneConfig {
                speed: 9.0,
                ..usual
            },
            2800,
        ),
        (usual, 2800),
    ];
    for (seed, (config, frames)) in (501..).zip(configs) {
        let scene = cubes::generate(seed, frames, &config);
        let layout = snapshots::layout();
        let mut shapes = Shapes::default();
        let all = snapshots::snapshots(&scene, &layout, &mut shapes);
        // The same at twenty snapshots per second.
        let slow = all.iter().step_by(3).cloned().collect();
        for (name, weight, snapshots, lag) in
            [("cubes", 1.0, all, 6), ("cubes at 20 Hz", 0.3, slow, 2)]
        {
            scenes.push(Scene {
                name,
                weight,
                layout: Arc::clone(&layout),
                shapes: shapes.clone(),
                snapshots,
                lag,
            });
        }
    }
    scenes.extend(worlds::all(77).into_iter().map(|world| Scene {
        name: world.name,
        weight: 1.0,
        layout: world.layout,
        shapes: world.shapes,
        snapshots: world.snapshots,
        lag: 3,
    }));
    scenes
}
