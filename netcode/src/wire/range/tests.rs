//! Round trips, the cost of ending, marks, and bytes that no encoder wrote.

use super::*;
use crate::prng::Prng;

/// One decision of a random stream.
#[derive(Clone, Copy, Debug)]
enum Decision {
    Bit(bool, Bit),
    Uniform(u32, u32),
    Number(u32),
}

const LENGTHS: [Bit; 16] = [Bit::one_in(3); 16];

impl Decision {
    fn random(prng: &mut Prng) -> Self {
        match prng.below(8) {
            0 => {
                let bits = u32::try_from(prng.below(17)).unwrap();
                Self::Uniform(prng.next_u32() & ((1 << bits) - 1), bits)
            }
            1 => {
                let bits = prng.below(17);
                let value = u32::try_from(prng.below(1 << bits)).unwrap();
                Self::Number(value.min(number_max(&LENGTHS)))
            }
            // Bits as likely as their model says, or utterly unlikely, with extreme chances too.
            kind => {
                let shift = prng.below(16);
                let model = Bit::new(u16::try_from(prng.below(65536) >> shift).unwrap());
                let model = if prng.below(2) == 0 {
                    model
                } else {
                    Bit::new(u16::MAX - model.per_65536())
                };
                let likely = prng.below(65536) < u64::from(model.per_65536());
                Self::Bit(likely ^ (kind == 2 && prng.below(4) == 0), model)
            }
        }
    }

    fn encode(self, coder: &mut Encoder<'_>) {
        match self {
            Self::Bit(bit, model) => coder.bit(bit, model),
            Self::Uniform(value, bits) => coder.uniform(value, bits),
            Self::Number(value) => coder.number(value, &LENGTHS),
        }
    }

    fn check(self, coder: &mut Decoder<'_>, what: &str) {
        match self {
            Self::Bit(bit, model) => assert_eq!(coder.bit(model), bit, "{what}"),
            Self::Uniform(value, bits) => assert_eq!(coder.uniform(bits), value, "{what}"),
            Self::Number(value) => assert_eq!(coder.number(&LENGTHS), value, "{what}"),
        }
    }

    /// Its information in bits.
    fn bits(self) -> f64 {
        let cost = |bit: bool, model: Bit| {
            let ones = f64::from(model.per_65536()) / 65536.0;
            -(if bit { ones } else { 1.0 - ones }).log2()
        };
        match self {
            Self::Bit(bit, model) => cost(bit, model),
            Self::Uniform(_, bits) => f64::from(bits),
            Self::Number(value) => {
                let length = (value + 1).ilog2();
                let steps = (0..).zip(LENGTHS).take_while(|&(step, _)| step <= length);
                let unary: f64 = steps.map(|(step, model)| cost(step < length, model)).sum();
                unary + f64::from(length)
            }
        }
    }
}

fn stream(seed: u64, decisions_max: u64) -> Vec<Decision> {
    let mut prng = Prng::new(seed);
    let count = prng.below(decisions_max);
    (0..count).map(|_| Decision::random(&mut prng)).collect()
}

#[test]
fn streams_come_back_and_cost_what_they_hold() {
    let mut prefix = vec![9, 9, 0];
    let mut overhead = 0.0;
    let seeds = 6000_u32;
    for seed in 0..seeds {
        let what = format!("seed {seed}");
        let decisions = stream(u64::from(seed), 150);
        prefix.truncate(3);
        let mut coder = Encoder::new(&mut prefix);
        for decision in &decisions {
            decision.encode(&mut coder);
        }
        let (bits, expected) = (coder.bits(), coder.len());
        let count = coder.finish();
        assert!(count <= expected, "{what}");
        assert_eq!(prefix[..3], [9, 9, 0], "{what}");
        let bytes = &prefix[3..];
        assert_eq!(bytes.len(), count, "{what}");
        assert_ne!(bytes.last(), Some(&0), "{what}");

        let information: f64 = decisions.iter().map(|decision| decision.bits()).sum();
        let count = f64::from(u32::try_from(count).unwrap());
        let bits = f64::from(u32::try_from(bits).unwrap());
        assert!(count * 8.0 < information + 8.01, "{what}");
        // What rounding takes from zeros, it gives to ones.
        assert!(
            bits > information * 0.99 - 1.0 && bits < information + 0.01,
            "{what}: {bits} of {information} bits"
        );
        overhead += count - information / 8.0;

        let mut decoder = Decoder::new(bytes);
        for decision in decisions {
            decision.check(&mut decoder, &what);
        }
        assert_eq!(decoder.finish(), Ok(()), "{what}");
    }
    let overhead = overhead / f64::from(seeds);
    assert!(overhead < 0.5, "mean overhead {overhead} bytes");
}

#[test]
fn likely_zeros_take_no_bytes() {
    let mut out = Vec::new();
    let mut coder = Encoder::new(&mut out);
    for _ in 0..1000 {
        coder.bit(false, Bit::one_in(500));
    }
    assert!(coder.is_empty());
    assert_eq!(coder.finish(), 0);
    let mut decoder = Decoder::new(&[]);
    assert!((0..1000).all(|_| !decoder.bit(Bit::one_in(500))));
    assert_eq!(decoder.finish(), Ok(()));
}

#[test]
fn carries_run_through_long_runs_of_ones() {
    // Decisions that lead to a short number keep it in the interval, and `low` just below it: as
    // ones without end, until something goes above it.
    let mut carried = 0;
    for seed in 0..500 {
        let mut prng = Prng::new(seed);
        let target = [0x35, 0x80, 1 << prng.below(8)];
        let target = &target[..1 + usize::try_from(prng.below(3)).unwrap()];
        let models: Vec<Bit> = (0..500)
            .map(|_| Bit::new(u16::try_from(20_000 + prng.below(20_000)).unwrap()))
            .collect();
        let mut decoder = Decoder::new(target);
        let bits: Vec<bool> = models.iter().map(|&model| decoder.bit(model)).collect();
        assert_eq!(decoder.finish(), Ok(()), "seed {seed}");

        let mut out = Vec::new();
        let mut coder = Encoder::new(&mut out);
        for (&bit, &model) in bits.iter().zip(&models) {
            coder.bit(bit, model);
        }
        assert!(coder.run > 5 || coder.low == 0, "seed {seed}");
        let mark = coder.mark();
        for beyond in [false, true] {
            coder.restore(&mark);
            for _ in 0..20 {
                coder.bit(beyond, Bit::one_in(2));
            }
            carried += u32::from(beyond && coder.run == 0);
            let mut copy = Vec::new();
            let mut again = Encoder::new(&mut copy);
            for (&bit, &model) in bits.iter().zip(&models) {
                again.bit(bit, model);
            }
            for _ in 0..20 {
                again.bit(beyond, Bit::one_in(2));
            }
            again.finish();
            let mut decoder = Decoder::new(&copy);
            for (&bit, &model) in bits.iter().zip(&models) {
                assert_eq!(decoder.bit(model), bit, "seed {seed}");
            }
            for _ in 0..20 {
                assert_eq!(decoder.bit(Bit::one_in(2)), beyond, "seed {seed}");
            }
            assert_eq!(decoder.finish(), Ok(()), "seed {seed}");
        }
        coder.restore(&mark);
        coder.finish();
        assert_eq!(out, target, "seed {seed}: the shortest bytes inside");
    }
    assert!(carried > 100, "carries met runs {carried} times");
}

#[test]
fn a_mark_takes_back_everything_after_it() {
    for seed in 0..2000 {
        let before = stream(seed, 60);
        let undone = stream(seed ^ 0xabcd_0000, 200);
        let after = stream(seed ^ 0x1234_0000, 60);

        let mut straight = Vec::new();
        let mut coder = Encoder::new(&mut straight);
        for decision in before.iter().chain(&after) {
            decision.encode(&mut coder);
        }
        coder.finish();

        let mut detour = Vec::new();
        let mut coder = Encoder::new(&mut detour);
        for decision in &before {
            decision.encode(&mut coder);
        }
        let (mark, len, bits) = (coder.mark(), coder.len(), coder.bits());
        for decision in &undone {
            decision.encode(&mut coder);
        }
        coder.restore(&mark);
        assert_eq!((coder.len(), coder.bits()), (len, bits), "seed {seed}");
        for decision in &after {
            decision.encode(&mut coder);
        }
        coder.finish();
        assert_eq!(detour, straight, "seed {seed}");
    }
}

#[test]
fn bytes_that_nobody_coded_are_read_without_harm() {
    let mut prng = Prng::new(5);
    let mut refused = 0;
    for seed in 0..20_000 {
        let mut out = Vec::new();
        let decisions = stream(seed, 40);
        let mut coder = Encoder::new(&mut out);
        for decision in &decisions {
            decision.encode(&mut coder);
        }
        coder.finish();
        for _ in 0..=prng.below(4) {
            match prng.below(3) {
                0 if !out.is_empty() => {
                    let at = usize::try_from(prng.below(out.len() as u64)).unwrap();
                    out[at] ^= prng.next_u64().to_le_bytes()[0];
                }
                1 => out.push(prng.next_u64().to_le_bytes()[0] | 0xf0),
                _ => drop(out.pop()),
            }
        }
        let mut decoder = Decoder::new(&out);
        for decision in &decisions {
            match *decision {
                Decision::Bit(_, model) => drop(decoder.bit(model)),
                Decision::Uniform(_, bits) => {
                    assert!(decoder.uniform(bits) >> bits == 0, "seed {seed}");
                }
                Decision::Number(_) => {
                    let value = decoder.number(&LENGTHS);
                    assert!(value <= number_max(&LENGTHS), "seed {seed}");
                }
            }
        }
        refused += u32::from(decoder.finish().is_err());
    }
    assert!(refused > 0);
    let mut decoder = Decoder::new(&[0xff; 64]);
    for _ in 0..20 {
        decoder.bit(Bit::new(0));
        decoder.uniform(16);
    }
    assert_eq!(
        Decoder::new(&[1; 20]).finish(),
        Err(DecodeError::Trailing(12))
    );
    assert!(Decoder::new(&[3, 0]).finish().is_err());
}

#[test]
fn chances_follow_what_is_seen_and_stay_inside() {
    let mut bit = Bit::one_in(2);
    for _ in 0..100_000 {
        bit.update(true);
    }
    assert!(bit.per_65536() > 65_000 && bit.per_65536() < u16::MAX);
    for _ in 0..100_000 {
        bit.update(false);
    }
    assert!(bit.per_65536() < 500 && bit.per_65536() > 0);

    let mut prng = Prng::new(11);
    let mut bit = Bit::one_in(2);
    let mut mean = 0.0;
    for _ in 0..100_000 {
        bit.update(prng.chance_per_million(200_000));
        mean += f64::from(bit.per_65536()) / 65536.0 / 100_000.0;
    }
    assert!((mean - 0.2).abs() < 0.01, "mean {mean}");
}
