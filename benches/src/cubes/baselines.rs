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

/// [`fiedler`] over `scene`, each snapshot against the one `lag` before it.
///
/// # Errors
/// If the scene has no snapshot with a baseline, or one decodes to another.
pub fn fiedler(scene: &[Frame], lag: usize) -> Result<Run, RunError> {
    run("Fiedler", scene, lag, |number, out| {
        let (baseline, before) = (&scene[number - lag], number.checked_sub(2 * lag));
        let before = before.map(|before| &scene[before]);
        let started = Instant::now();
        fiedler::encode(&scene[number], baseline, before, out);
        let encoded = Instant::now();
        let decoded = fiedler::decode(out, baseline, before);
        let times = (encoded - started, encoded.elapsed());
        (times, decoded.is_some_and(|frame| frame == scene[number]))
    })
}

/// [`giesen`] over `scene`, each snapshot against the one `lag` before it.
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
        let started = Instant::now();
        giesen::encode(&scene[number], baseline, &writers[slot], &mut written, out);
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
