//! Batches over a lossy path, their size, and bytes that are none.

use super::*;
use crate::prng::Prng;

const SLOTS: u8 = 8;
const BYTES: u8 = 8;

/// The inputs that the field measures with: one of 16 bits flips with a chance of 0.1 per tick.
fn flip(prng: &mut Prng, value: &mut [u8]) {
    if prng.chance_per_million(100_000) {
        let bit = usize::try_from(prng.below(16)).unwrap();
        value[bit / 8] ^= 1 << (bit % 8);
    }
}

/// Mean bytes of a batch of `slots` whose receiver acked the tick `window` ticks ago.
fn mean_bytes(slots: u64, own: Option<Slot>, window: u32, expected: bool) -> f64 {
    let mut prng = Prng::new(1);
    let mut sender = InputHistory::new(SLOTS, BYTES);
    let mut receiver = InputHistory::new(SLOTS, BYTES);
    let mut encoder = BatchEncoder::new(SLOTS, BYTES);
    let mut decoder = BatchDecoder::new(SLOTS, BYTES);
    let mut values = [[0_u8; 8]; SLOTS as usize];
    let mut out = Vec::new();
    let mut total = 0;
    let (learning, ticks) = (10_000, 60_000);
    for number in 1..=ticks {
        let tick = Tick::new(number);
        for (slot, value) in (0..).map(Slot).zip(&mut values) {
            flip(&mut prng, value);
            sender.push(slot, tick, Some(value));
        }
        let base = tick.minus(window);
        for slot in slots_of(slots) {
            encoder.rebase(slot, base, &sender).unwrap();
        }
        let bases = [base; SLOTS as usize];
        let plan = BatchPlan {
            expected: expected.then_some(&bases[..]),
            own: own.map(|own| (own, &sender)),
            ..BatchPlan::new(slots, tick)
        };
        out.clear();
        encoder.encode(&plan, &sender, 1180, &mut out).unwrap();
        decoder.decode(&plan, tick, &out, &mut receiver).unwrap();
        if number > learning {
            total += out.len();
        }
    }
    f64::from(u32::try_from(total).unwrap()) / f64::from(ticks - learning)
}

#[test]
fn a_batch_is_as_small_as_its_information() {
    for (slots, own, expected) in [
        (1, None, false),
        (1, None, true),
        (0x7f, None, false),
        (0x7f, None, true),
    ] {
        println!(
            "{slots:#x} {expected}: {}",
            mean_bytes(slots, own, 8, expected)
        );
    }
}
