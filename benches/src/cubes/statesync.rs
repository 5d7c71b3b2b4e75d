//! The state codec over a scene, as a host and a client use it: every snapshot is decoded from what
//! the client holds, and compared.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use phalanx_netcode::delta::{AGE_MAX, Decoder, Encoder, Reference, View, WholeEnd, choose_ages};
use phalanx_netcode::id::NetId;
use phalanx_netcode::limits::DATAGRAM_BYTES_MAX;
use phalanx_netcode::prng::Prng;
use phalanx_netcode::state::{QuantizedSnapshot, Shapes, WireLayout};

/// Snapshots between the base and the oldest of the references that [`choose_ages`] names, at most.
const GAP_MAX: usize = 8;

/// What coding a scene took.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// Snapshots that were coded and counted.
    pub snapshots: usize,
    /// Bytes of all bodies, payload only.
    pub bytes: usize,
    /// Snapshots that took more than one datagram.
    pub split: usize,
    /// Microseconds per snapshot, median.
    pub us_encode: f64,
    /// Microseconds per snapshot, median.
    pub us_decode: f64,
    /// Microseconds per snapshot, mean.
    pub us_encode_mean: f64,
    /// Microseconds per snapshot, mean.
    pub us_decode_mean: f64,
}

/// Why a scene could not be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Differs {
    /// Snapshot, from 0.
    pub snapshot: usize,
}

impl fmt::Display for Differs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "snapshot {} decodes to another one", self.snapshot)
    }
}

impl std::error::Error for Differs {}

/// How a scene is sent.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// Snapshots until an ack is back.
    pub lag: usize,
    /// Datagrams lost, in millionths.
    pub loss_per_million: u32,
    /// Decides which ones.
    pub seed: u64,
    /// Snapshots at the beginning that are not counted.
    pub warm_up: usize,
}

/// Codes and decodes `scene`.
///
/// # Errors
/// If a snapshot decodes to another one.
///
/// # Panics
/// If the lag exceeds 2^32.
pub fn run(
    layout: &Arc<WireLayout>,
    shapes: &Shapes,
    scene: &[QuantizedSnapshot],
    link: Link,
) -> Result<Run, Differs> {
    let mut encoder = Encoder::new(Arc::clone(layout));
    let mut decoder = Decoder::new(Arc::clone(layout));
    let mut theirs = shapes.clone();
    let mut prng = Prng::new(link.seed);
    // What the client holds of each snapshot: all of it, or nothing.
    let mut held: Vec<Option<QuantizedSnapshot>> = Vec::with_capacity(scene.len());
    let mut run = Run::default();
    let (mut encode_times, mut decode_times) = (Vec::new(), Vec::new());
    let mut bodies: Vec<Vec<u8>> = Vec::new();
    let mut fresh = QuantizedSnapshot::default();
    let mut spare = Vec::new();
    // Snapshots that references may reach back to.
    let reach = if link.loss_per_million == 0 {
        link.lag + GAP_MAX
    } else {
        AGE_MAX as usize
    };
    for (number, scene_now) in scene.iter().enumerate() {
        // A host codes what it quantized just before.
        fresh.clone_from(scene_now);
        let now = &fresh;
        let is_held = |age: u32| {
            let at = number.checked_sub(age as usize);
            at.is_some_and(|at| held[at].is_some())
        };
        let newest = u32::try_from(link.lag).expect("a few snapshots");
        let (ages, count) = choose_ages(newest, is_held);
        let ages = &ages[..count];
        let host: Vec<Reference<'_>> = ages
            .iter()
            .map(|&age| Reference {
                age,
                view: View::all(&scene[number - age as usize]),
            })
            .collect();
        let started = Instant::now();
        let mut from = NetId::NONE;
        let mut used = 0;
        loop {
            if used == bodies.len() {
                bodies.push(Vec::new());
            }
            let body = &mut bodies[used];
            body.clear();
            used += 1;
            let end = encoder.encode_whole(
                shapes,
                View::all(now),
                &host,
                from,
                DATAGRAM_BYTES_MAX,
                body,
            );
            match end {
                WholeEnd::Done => break,
                WholeEnd::Next(next) => from = next,
                WholeEnd::TooLarge(_) => return Err(Differs { snapshot: number }),
            }
        }
        let encoded = started.elapsed();
        let client: Vec<Reference<'_>> = ages
            .iter()
            .filter_map(|&age| {
                let held = held[number - age as usize].as_ref()?;
                Some(Reference {
                    age,
                    view: View::all(held),
                })
            })
            .collect();
        let mut got: QuantizedSnapshot = spare.pop().unwrap_or_default();
        got.clear(now.tick);
        let mut part = QuantizedSnapshot::new(now.tick);
        let started = Instant::now();
        for body in &bodies[..used] {
            let to = if used == 1 { &mut got } else { &mut part };
            decoder
                .decode_whole(&mut theirs, now.tick, &client, body, to)
                .map_err(|_error| Differs { snapshot: number })?;
            if used > 1 {
                part.entities().for_each(|entity| got.push_entity(entity));
            }
        }
        let decoded = started.elapsed();
        let same = got.len() == now.len()
            && got.entities().zip(now.entities()).all(|(got, sent)| {
                got.id == sent.id
                    && got.lanes == sent.lanes
                    && got.opaque == sent.opaque
                    && theirs.get(got.shape).kinds == shapes.get(sent.shape).kinds
            });
        if !same {
            return Err(Differs { snapshot: number });
        }
        if number >= link.warm_up {
            run.snapshots += 1;
            run.bytes += bodies[..used].iter().map(Vec::len).sum::<usize>();
            run.split += usize::from(used > 1);
            encode_times.push(encoded.as_secs_f64() * 1e6);
            decode_times.push(decoded.as_secs_f64() * 1e6);
        }
        // A snapshot of which a datagram is lost is not held.
        let arrives = (0..used).all(|_| !prng.chance_per_million(link.loss_per_million));
        held.push(arrives.then_some(got));
        // The memory of one that no reference reaches back to is used again.
        if let Some(old) = held.len().checked_sub(reach + 1) {
            spare.extend(held[old].take());
        }
    }
    (run.us_encode, run.us_encode_mean) = median_and_mean(encode_times);
    (run.us_decode, run.us_decode_mean) = median_and_mean(decode_times);
    Ok(run)
}

fn median_and_mean(mut times: Vec<f64>) -> (f64, f64) {
    if times.is_empty() {
        return (0.0, 0.0);
    }
    times.sort_by(f64::total_cmp);
    let mean = times.iter().sum::<f64>() / times.len() as f64;
    (times[times.len() / 2], mean)
}

/// Nanoseconds per entity that nothing happens to, to encode and to decode.
///
/// # Errors
/// If the snapshot decodes to another one.
pub fn idle_ns(
    layout: &Arc<WireLayout>,
    shapes: &Shapes,
    snapshot: &QuantizedSnapshot,
) -> Result<(f64, f64), Differs> {
    let mut encoder = Encoder::new(Arc::clone(layout));
    let mut decoder = Decoder::new(Arc::clone(layout));
    let mut shapes = shapes.clone();
    // Copies, so that comparing them costs what it does.
    let older = [snapshot.clone(), snapshot.clone(), snapshot.clone()];
    let references: Vec<Reference<'_>> = [6, 7, 10]
        .into_iter()
        .zip(&older)
        .map(|(age, snapshot)| Reference {
            age,
            view: View::all(snapshot),
        })
        .collect();
    let (mut encode, mut decode) = (Vec::new(), Vec::new());
    let mut got = QuantizedSnapshot::default();
    let mut body = Vec::new();
    for _ in 0..201 {
        body.clear();
        let started = Instant::now();
        encoder.encode_whole(
            &shapes,
            View::all(snapshot),
            &references,
            NetId::NONE,
            DATAGRAM_BYTES_MAX,
            &mut body,
        );
        encode.push(started.elapsed().as_secs_f64() * 1e9);
        let started = Instant::now();
        decoder
            .decode_whole(&mut shapes, snapshot.tick, &references, &body, &mut got)
            .map_err(|_error| Differs { snapshot: 0 })?;
        decode.push(started.elapsed().as_secs_f64() * 1e9);
    }
    let count = snapshot.len() as f64;
    Ok((
        median_and_mean(encode).0 / count,
        median_and_mean(decode).0 / count,
    ))
}
