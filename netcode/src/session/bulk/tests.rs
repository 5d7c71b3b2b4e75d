//! Transfers over a simulated path, in exact time, and bytes that no honest end makes.

use super::*;
use crate::hash::digest;
use crate::limits::{BULK_HEADER_BYTES_MAX, DATAGRAM_BYTES_MAX};
use crate::prng::Prng;
use crate::time::Time;
use crate::wire::bytes::DecodeError;

/// Bytes of IPv4, UDP and our own header around a chunk or an ack.
const HEADERS_BYTES: u64 = 36;

/// A path, the same in both directions.
#[derive(Clone, Copy, Debug)]
struct PathModel {
    rtt_us: u64,
    jitter_us: u64,
    loss_per_million: u32,
    /// Bytes per second of the bottleneck and bytes of its queue.
    bottleneck: Option<(u64, u64)>,
}

impl PathModel {
    const fn with_rtt_ms(ms: u64) -> Self {
        Self {
            rtt_us: ms * 1000,
            jitter_us: 0,
            loss_per_million: 0,
            bottleneck: None,
        }
    }
}

/// One direction: datagrams by their arrival.
#[derive(Default)]
struct Direction {
    free_at: Time,
    flying: Vec<(Time, Vec<u8>)>,
    dropped: u64,
    queue_us_max: u64,
}

impl Direction {
    fn send(&mut self, model: &PathModel, prng: &mut Prng, now: Time, bytes: Vec<u8>) {
        assert!(bytes.len() + BULK_HEADER_BYTES_MAX <= DATAGRAM_BYTES_MAX);
        let mut leaves_at = now;
        if let Some((rate, queue_bytes)) = model.bottleneck {
            let waiting_us = self.free_at.micros_since(now);
            if waiting_us * rate / 1_000_000 > queue_bytes {
                self.dropped += 1;
                return;
            }
            self.queue_us_max = self.queue_us_max.max(waiting_us);
            let bytes = bytes.len() as u64 + HEADERS_BYTES;
            self.free_at = self.free_at.max(now).plus_micros(bytes * 1_000_000 / rate);
            leaves_at = self.free_at;
        }
        if prng.chance_per_million(model.loss_per_million) {
            return;
        }
        let late_us = model.rtt_us / 2 + prng.below(model.jitter_us + 1);
        self.flying.push((leaves_at.plus_micros(late_us), bytes));
    }

    fn next_at(&self) -> Option<Time> {
        self.flying.iter().map(|(at, _)| *at).min()
    }

    fn arriving(&mut self, now: Time) -> Vec<Vec<u8>> {
        let mut arriving: Vec<_> = self.flying.extract_if(.., |(at, _)| *at <= now).collect();
        arriving.sort_by_key(|(at, _)| *at);
        arriving.into_iter().map(|(_, bytes)| bytes).collect()
    }
}

/// What a transfer took.
#[derive(Debug)]
struct Outcome {
    received_us: u64,
    chunks_sent: u64,
    dropped: u64,
    queue_us_max: u64,
}

fn payload(bytes: usize) -> Vec<u8> {
    let mut prng = Prng::new(bytes as u64);
    (0..bytes.div_ceil(8))
        .flat_map(|_| prng.next_u64().to_le_bytes())
        .take(bytes)
        .collect()
}

fn transfer(seed: u64, bytes: usize, model: PathModel, config: BulkConfig) -> Outcome {
    let mut prng = Prng::new(seed);
    let whole = payload(bytes);
    let mut sender = BulkSender::new(7, whole.clone().into(), config).unwrap();
    let mut receiver = BulkReceiver::new(7, bytes as u64, digest(&whole), 1 << 24).unwrap();
    let (mut there, mut back) = (Direction::default(), Direction::default());
    let mut now = Time::from_millis(5);
    let start = now;
    let mut received_us = None;
    let mut chunks_sent = 0;
    let mut idle_steps = 0;
    while !sender.is_complete() {
        let mut out = Vec::new();
        while sender.next_chunk(now, &mut out) {
            there.send(&model, &mut prng, now, core::mem::take(&mut out));
            chunks_sent += 1;
        }
        for chunk in there.arriving(now) {
            let progress = receiver.handle_chunk(now, &chunk).unwrap();
            if progress.is_complete() {
                received_us.get_or_insert(now.micros_since(start));
            }
            if receiver.write_ack(now, &mut out) {
                back.send(&model, &mut prng, now, core::mem::take(&mut out));
            }
        }
        if receiver.write_ack(now, &mut out) {
            back.send(&model, &mut prng, now, core::mem::take(&mut out));
        }
        let mut acked = false;
        for ack in back.arriving(now) {
            sender.handle_ack(now, &ack).unwrap();
            acked = true;
        }
        if acked {
            continue;
        }
        let next = [
            sender.next_time(),
            receiver.next_ack_time(),
            there.next_at(),
            back.next_at(),
        ];
        let next = next.into_iter().flatten().min().expect("someone must act");
        idle_steps = if next > now { 0 } else { idle_steps + 1 };
        assert!(
            idle_steps < 3,
            "seed {seed}: no progress at {now:?} {sender:?}"
        );
        now = now.max(next);
        assert!(
            now < start.plus_micros(300_000_000),
            "seed {seed}, {model:?}: {sender:?}"
        );
    }
    assert!(receiver.finish().unwrap() == whole, "seed {seed}");
    assert_eq!(receiver.finish(), Err(BulkFinishError::Incomplete));
    assert!(sender.progress().is_complete());
    Outcome {
        received_us: received_us.unwrap_or(0),
        chunks_sent,
        dropped: there.dropped,
        queue_us_max: there.queue_us_max,
    }
}

#[test]
fn half_a_megabyte_over_loopback_takes_a_few_round_trips() {
    let outcome = transfer(1, 500_000, PathModel::with_rtt_ms(2), BulkConfig::default());
    assert_eq!(outcome.chunks_sent, 432);
    assert!(outcome.received_us <= 20_000, "{outcome:?}");
}

#[test]
fn a_bottleneck_is_filled_and_its_queue_stays_short() {
    for queue_bytes in [15_000, 40_000, 100_000, 1_000_000] {
        let model = PathModel {
            bottleneck: Some((1_000_000, queue_bytes)),
            ..PathModel::with_rtt_ms(100)
        };
        let outcome = transfer(2, 500_000, model, BulkConfig::default());
        // 433 datagrams of 1206 B at 1 MB/s and half a round trip: 0.572 s.
        assert!(outcome.received_us <= 2 * 572_000, "{outcome:?}");
        let outcome = transfer(2, 5_000_000, model, BulkConfig::default());
        // Inputs share this queue. It holds what a start without knowledge of the path overshoots,
        // and then less than that.
        assert!(outcome.queue_us_max <= 60_000, "{outcome:?}");
        let dropped_max = if queue_bytes < 100_000 {
            outcome.chunks_sent / 20
        } else {
            0
        };
        assert!(outcome.dropped <= dropped_max, "{outcome:?}");
        assert!(outcome.received_us <= 2 * 5_250_000, "{outcome:?}");
    }
}

#[test]
fn every_loss_and_round_trip_ends_with_the_whole_payload() {
    for rtt_ms in [1, 20, 100, 400] {
        for loss in [0, 10_000, 50_000, 200_000, 400_000] {
            for seed in 0..2 {
                let model = PathModel {
                    loss_per_million: loss,
                    jitter_us: if seed == 0 { 0 } else { rtt_ms * 250 },
                    ..PathModel::with_rtt_ms(rtt_ms)
                };
                let outcome = transfer(seed, 300_000, model, BulkConfig::default());
                // Nothing is sent again without need, beyond what loss and its probes explain.
                let needed = 259 * 1_000_000 / u64::from(1_000_000 - loss);
                assert!(outcome.chunks_sent <= needed * 3 / 2 + 8, "{outcome:?}");
            }
        }
    }
}

#[test]
fn a_rate_cap_is_kept() {
    let config = BulkConfig {
        bytes_per_second_max: Some(200_000),
        ..BulkConfig::default()
    };
    let outcome = transfer(3, 300_000, PathModel::with_rtt_ms(30), config);
    // 259 chunks with 18 B each, less what 20 ms allow at once.
    assert!(outcome.received_us >= 1_480_000, "{outcome:?}");
    assert!(outcome.received_us <= 1_560_000, "{outcome:?}");
}

#[test]
fn sizes_at_the_edges_of_a_chunk_arrive() {
    for bytes in [0, 1, 1159, 1160, 1161, 2320, 64 * 1160, 64 * 1160 + 1] {
        transfer(4, bytes, PathModel::with_rtt_ms(10), BulkConfig::default());
    }
}

#[test]
fn a_large_payload_with_a_stubborn_hole_stays_within_the_window() {
    let whole = payload(6000 * 1160);
    let config = BulkConfig::default();
    let mut sender = BulkSender::new(1, whole.clone().into(), config).unwrap();
    let mut receiver = BulkReceiver::new(1, whole.len() as u64, digest(&whole), 1 << 24).unwrap();
    let mut now = Time::ZERO;
    for round in 0..4000 {
        let mut out = Vec::new();
        while sender.next_chunk(now, &mut out) {
            let chunk = core::mem::take(&mut out);
            // The first chunk is lost for a long time.
            if round > 2000 || chunk[6..10] != [0; 4] {
                receiver.handle_chunk(now, &chunk).unwrap();
            }
        }
        now = now.plus_micros(5000);
        if receiver.write_ack(now, &mut out) {
            assert!(out.len() + BULK_HEADER_BYTES_MAX <= DATAGRAM_BYTES_MAX);
            sender.handle_ack(now, &out).unwrap();
        }
        if round == 2000 {
            assert_eq!(receiver.progress().bytes, 4095 * 1160);
        }
    }
    assert!(sender.is_complete());
    assert!(receiver.finish().unwrap() == whole);
}

#[test]
fn claims_do_not_allocate_and_wrong_bytes_do_not_pass() {
    assert_eq!(
        BulkReceiver::new(1, 1 << 40, 0, usize::MAX).unwrap_err(),
        BulkTooLarge {
            bytes: 1 << 40,
            max: SNAPSHOT_BYTES_MAX as u64
        }
    );
    assert!(BulkReceiver::new(1, 1001, 0, 1000).is_err());
    let mut receiver = BulkReceiver::new(1, 200 << 20, 0, SNAPSHOT_BYTES_MAX).unwrap();
    let chunk = |index: u32, len: usize| {
        let mut bytes = vec![1, 0, 0, 0, 0, 0];
        bytes.extend(index.to_le_bytes());
        bytes.resize(10 + len, 0);
        bytes
    };
    let now = Time::ZERO;
    for (index, len) in [(4096, 1160), (u32::MAX, 1160), (0, 1159), (0, 1161), (0, 0)] {
        assert!(receiver.handle_chunk(now, &chunk(index, len)).is_err());
    }
    assert!(receiver.handle_chunk(now, &[2; 1170]).is_err());
    assert!(!receiver.write_ack(Time::FAR, &mut Vec::new()));
    receiver.handle_chunk(now, &chunk(4095, 1160)).unwrap();
    assert!(receiver.buffer_capacity() <= 2 * 4096 * 1160);

    let mut receiver = BulkReceiver::new(1, 10, digest(&[1; 10]), 1000).unwrap();
    assert_eq!(receiver.finish(), Err(BulkFinishError::Incomplete));
    receiver.handle_chunk(now, &chunk(0, 10)).unwrap();
    assert_eq!(receiver.finish(), Err(BulkFinishError::DigestMismatch));
}

#[test]
fn acks_of_chunks_never_sent_are_refused() {
    let config = BulkConfig::default();
    let mut sender = BulkSender::new(1, payload(100_000).into(), config).unwrap();
    let mut out = Vec::new();
    let now = Time::from_millis(100);
    for ms in 0..100 {
        while sender.next_chunk(Time::from_millis(ms), &mut out) {}
    }
    let bad: [&[u8]; 9] = [
        &[],
        &[2, 0, 0, 0, 0, 0, 0, 1, 0],
        &[1, 0, 0, 0, 0, 0, 0, 33, 0],
        &[1, 0, 32, 0, 0, 0, 0, 1, 0],
        &[1, 0, 0, 0, 0, 0, 0, 31, 1, 1],
        &[1, 0, 0, 0, 0, 0, 0, 1, 1, 0],
        &[1, 0, 0, 0, 0, 0, 0, 1, 0, 0],
        &[1, 0, 0, 0, 0, 0, 0, 1, 2, 1],
        &[1, 0, 0, 0, 0, 0, 0, 1, 0x81, 4],
    ];
    for bytes in bad {
        assert!(sender.handle_ack(now, bytes).is_err(), "{bytes:?}");
        assert_eq!(sender.progress().bytes, 0);
    }
    assert_eq!(
        sender.handle_ack(now, &[1, 0, 31, 0, 0, 0, 0, 33, 0]),
        Err(DecodeError::Invalid("an ack is for chunks never sent"))
    );
    sender
        .handle_ack(now, &[1, 0, 31, 0, 0, 0, 0, 31, 0])
        .unwrap();
    assert_eq!(sender.progress().bytes, 31 * 1160);
}

/// Real chunks and acks, changed at random, on both ends.
#[test]
fn mutated_bytes_never_panic() {
    let mut prng = Prng::new(8);
    let whole = payload(200_000);
    let (mut refused, mut taken) = (0, 0);
    for round in 0..200 {
        let config = BulkConfig::default();
        let mut sender = BulkSender::new(9, whole.clone().into(), config).unwrap();
        let total = whole.len() as u64;
        let mut receiver = BulkReceiver::new(9, total, digest(&whole), 1 << 20).unwrap();
        for step in 0..200 {
            let now = Time::from_millis(round + step * 7);
            let mut out = Vec::new();
            let mut mutate = |bytes: &mut Vec<u8>| {
                for _ in 0..prng.below(3) {
                    let at = usize::try_from(prng.below(bytes.len().clamp(1, 16) as u64)).unwrap();
                    match prng.below(6) {
                        0 => bytes.truncate(at),
                        1 => bytes.insert(at, prng.next_u64().to_le_bytes()[0]),
                        _ => {
                            if let Some(byte) = bytes.get_mut(at) {
                                *byte ^= 1 << prng.below(8);
                            }
                        }
                    }
                }
            };
            while sender.next_chunk(now, &mut out) {
                let mut chunk = core::mem::take(&mut out);
                mutate(&mut chunk);
                match receiver.handle_chunk(now, &chunk) {
                    Ok(_) => taken += 1,
                    Err(_) => refused += 1,
                }
            }
            if receiver.write_ack(now.plus_micros(3000), &mut out) {
                mutate(&mut out);
                match sender.handle_ack(now.plus_micros(3000), &out) {
                    Ok(()) => taken += 1,
                    Err(_) => refused += 1,
                }
            }
        }
        assert!(receiver.finish().is_err() || receiver.is_complete());
    }
    assert!(refused > 2000 && taken > 2000, "{refused} {taken}");
}

#[test]
fn golden_bytes_of_the_wire_document() {
    let config = BulkConfig::default();
    let mut sender = BulkSender::new(7, vec![0xff].into(), config).unwrap();
    let mut receiver = BulkReceiver::new(7, 1, digest(&[0xff]), 1).unwrap();
    let (mut chunk, mut ack) = (Vec::new(), Vec::new());
    assert!(sender.next_chunk(Time::ZERO, &mut chunk));
    assert_eq!(chunk, [7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff]);
    assert!(
        receiver
            .handle_chunk(Time::ZERO, &chunk)
            .unwrap()
            .is_complete()
    );
    assert!(receiver.write_ack(Time::ZERO, &mut ack));
    assert_eq!(ack, [7, 0, 0, 0, 0, 0, 0, 1, 0]);
    sender.handle_ack(Time::ZERO, &ack).unwrap();
    assert!(sender.is_complete());
    assert_eq!(receiver.finish(), Ok(vec![0xff]));
}
