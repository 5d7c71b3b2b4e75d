//! Runs of the published coders over a whole scene, every cube compared.

use std::fmt;
use std::time::{Duration, Instant};

use super::{Frame, fiedler, giesen, kbit_s};

/// What coding a scene took.
#[derive(Clone, Debug)]
pub struct Run {
    /// Name of the coder.
    pub coder: &'static str,
    /// Snapshots that were coded: all but the first few, which have no baseline.
    pub snapshots: usize,
    /// Bytes of all packets, payload only.
    pub bytes: usize,
    /// Microseconds per snapshot, median.
    pub us_encode: f64,
    /// Microseconds per snapshot, median.
    pub us_decode: f64,
}

impl Run {
    /// Bandwidth at 60 snapshots per second.
    #[must_use]
    pub fn kbit_s(&self) -> f64 {
        kbit_s(self.bytes, self.snapshots)
    }

    /// Mean size of a packet.
    #[must_use]
    pub fn bytes_per_snapshot(&self) -> f64 {
        self.bytes as f64 / self.snapshots as f64
    }
}

/// Why a scene could not be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunError {
    /// No snapshot has a baseline.
    TooShort {
        /// Snapshots of the scene.
        frames: usize,
        /// Distance to the baseline.
        lag: usize,
    },
    /// What was decoded is not what was encoded.
    Differs {
        /// Name of the coder.
        coder: &'static str,
        /// Snapshot, from 0.
        frame: usize,
    },
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort { frames, lag } => write!(
                f,
                "a scene of {frames} snapshots has none with a baseline {lag} before it"
            ),
            Self::Differs { coder, frame } => {
                write!(f, "{coder}: snapshot {frame} decodes to another one")
            }
        }
    }
}

impl std::error::Error for RunError {}

/// [`fiedler()`] over `scene`, each snapshot against the one `lag` before it.
///
/// # Errors
/// If the scene has no snapshot with a baseline, or one decodes to another.
pub fn fiedler(scene: &[Frame], lag: usize) -> Result<Run, RunError> {
    run("Fiedler", scene, lag, |number, out| {
        let (baseline, before) = (&scene[number - lag], number.checked_sub(2 * lag));
        let before = before.map(|before| &scene[before]);
        // As for our codec: a host codes what it quantized just before.
        let now = scene[number].clone();
        let started = Instant::now();
        fiedler::encode(&now, baseline, before, out);
        let encoded = Instant::now();
        let decoded = fiedler::decode(out, baseline, before);
        let times = (encoded - started, encoded.elapsed());
        (times, decoded.is_some_and(|frame| frame == scene[number]))
    })
}

/// [`giesen()`] over `scene`, each snapshot against the one `lag` before it.
///
/// # Errors
/// If the scene has no snapshot with a baseline, or one decodes to another.
pub fn giesen(scene: &[Frame], lag: usize) -> Result<Run, RunError> {
    // States of the latest `lag` snapshots, on each side.
    let mut writers = vec![giesen::State::new(); lag];
    let mut readers = writers.clone();
    let (mut written, mut read) = (giesen::State::new(), giesen::State::new());
    run("Giesen", scene, lag, |number, out| {
        let (baseline, slot) = (&scene[number - lag], number % lag);
        let now = scene[number].clone();
        let started = Instant::now();
        giesen::encode(&now, baseline, &writers[slot], &mut written, out);
        let encoded = Instant::now();
        let decoded = giesen::decode(out, baseline, &readers[slot], &mut read);
        let times = (encoded - started, encoded.elapsed());
        std::mem::swap(&mut writers[slot], &mut written);
        std::mem::swap(&mut readers[slot], &mut read);
        (times, decoded == scene[number])
    })
}

/// Codes each snapshot that has a baseline: `code` fills the packet, and tells the times of encoding
/// and decoding and whether what came out is what went in.
fn run(
    coder: &'static str,
    scene: &[Frame],
    lag: usize,
    mut code: impl FnMut(usize, &mut Vec<u8>) -> ((Duration, Duration), bool),
) -> Result<Run, RunError> {
    let frames = scene.len();
    if lag == 0 || frames <= lag {
        return Err(RunError::TooShort { frames, lag });
    }
    let mut packet = Vec::new();
    let (mut bytes, mut encode, mut decode) = (0, Vec::new(), Vec::new());
    for frame in lag..frames {
        packet.clear();
        let ((encoding, decoding), equal) = code(frame, &mut packet);
        if !equal {
            return Err(RunError::Differs { coder, frame });
        }
        bytes += packet.len();
        encode.push(encoding);
        decode.push(decoding);
    }
    Ok(Run {
        coder,
        snapshots: frames - lag,
        bytes,
        us_encode: median(encode),
        us_decode: median(decode),
    })
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e6
}

#[cfg(test)]
mod tests {
    use phalanx_netcode::prng::Prng;

    use super::super::{
        CUBES, Cube, ORIENTATION_MAX, POSITION_XY_MAX, POSITION_Z_MAX, empty_frame,
    };
    use super::*;

    fn number(prng: &mut Prng, max: i32) -> i32 {
        i32::try_from(prng.below(u64::try_from(max).expect("a bound") + 1)).expect("below an i32")
    }

    fn any_cube(prng: &mut Prng) -> Cube {
        Cube {
            largest: u8::try_from(prng.below(4)).expect("below 4"),
            orientation: [(); 3].map(|()| {
                u16::try_from(number(prng, i32::from(ORIENTATION_MAX))).expect("nine bits")
            }),
            position: [
                number(prng, 2 * POSITION_XY_MAX) - POSITION_XY_MAX,
                number(prng, 2 * POSITION_XY_MAX) - POSITION_XY_MAX,
                number(prng, POSITION_Z_MAX),
            ],
            interacting: prng.below(2) == 1,
        }
    }

    /// Some cubes rest, some drift by up to 300 units, some jump anywhere; how many changes.
    fn scene(prng: &mut Prng, frames: usize) -> Vec<Frame> {
        let mut frame = empty_frame();
        for cube in frame.iter_mut() {
            *cube = any_cube(prng);
        }
        let mut scene = vec![frame];
        while scene.len() < frames {
            let mut frame = scene.last().expect("the first one").clone();
            let (drift, jump) = (prng.below(300_000), prng.below(30_000));
            for cube in frame.iter_mut() {
                if prng.chance_per_million(u32::try_from(drift).expect("small")) {
                    let step = 1 << prng.below(9);
                    cube.position[2] += number(prng, 2 * step) - step;
                    cube.position[2] = cube.position[2].clamp(0, POSITION_Z_MAX);
                    cube.orientation[0] ^= 1 << prng.below(9);
                    cube.interacting = !cube.interacting;
                }
                if prng.chance_per_million(u32::try_from(jump).expect("small")) {
                    *cube = any_cube(prng);
                }
            }
            scene.push(frame);
        }
        scene
    }

    #[test]
    fn every_scene_comes_back() {
        for seed in 0..8 {
            let scene = scene(&mut Prng::new(seed), 20);
            for lag in [1, 6] {
                for run in [fiedler(&scene, lag), giesen(&scene, lag)] {
                    let run = run.unwrap_or_else(|error| panic!("seed {seed}, lag {lag}: {error}"));
                    assert_eq!(run.snapshots, 20 - lag);
                    assert!(run.bytes > 0, "seed {seed}, lag {lag}: {run:?}");
                }
            }
        }
        assert_eq!(
            fiedler(&scene(&mut Prng::new(1), 6), 6).map(|run| run.bytes),
            Err(RunError::TooShort { frames: 6, lag: 6 })
        );
    }

    #[test]
    fn scenes_at_rest_cost_next_to_nothing() {
        let still = vec![empty_frame(); 400];
        let bits = fiedler(&still, 1).expect("long enough");
        // One bit that says how, one per cube.
        assert_eq!(bits.bytes, 399 * (1 + CUBES).div_ceil(8));
        let adaptive = giesen(&still, 1).expect("long enough");
        assert!(adaptive.bytes * 8 < bits.bytes, "{adaptive:?}");
    }

    #[test]
    fn hostile_packets_neither_panic_nor_hang() {
        let prng = &mut Prng::new(7);
        let scene = scene(prng, 3);
        let (state, mut next) = (giesen::State::new(), giesen::State::new());
        let mut fine = Vec::new();
        fiedler::encode(&scene[2], &scene[1], Some(&scene[0]), &mut fine);
        let mut refused = 0;
        for round in 0..200 {
            let mut packet = fine.clone();
            packet.truncate(usize::try_from(prng.below(fine.len() as u64)).expect("a length"));
            for byte in packet.iter_mut().skip(round) {
                *byte ^= prng.next_u32().to_le_bytes()[0];
            }
            let decoded = fiedler::decode(&packet, &scene[1], Some(&scene[0]));
            refused += usize::from(decoded.is_none());
            let adaptive = giesen::decode(&packet, &scene[1], &state, &mut next);
            assert_eq!(adaptive.len(), CUBES);
        }
        assert!(refused > 150, "{refused} of 200 refused");
    }
}
