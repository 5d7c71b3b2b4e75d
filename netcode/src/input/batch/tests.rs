//! Batches over a lossy path, their size, and bytes that are none.

mod lossy;

use super::*;
use crate::limits::{DATAGRAM_BYTES_MAX, INPUT_FRAME_BYTES_MAX};
use crate::prng::Prng;

/// A slot's inputs as a game makes them.
#[derive(Clone, Copy, Debug)]
enum Habit {
    /// The inputs that the field measures with: one of 16 bits flips with a chance of 0.1.
    Flips,
    /// Every byte is another every tick.
    Noise,
    /// Absent and present by turns, and a value that moves a little.
    Moody,
    /// Never there.
    Absent,
    /// Two sticks as `i16`, each a random walk, and buttons.
    Sticks,
}

impl Habit {
    fn step(self, prng: &mut Prng, present: &mut bool, value: &mut [u8]) {
        match self {
            Self::Absent => *present = false,
            Self::Flips => {
                *present = true;
                if prng.chance_per_million(100_000) {
                    let bit = index(prng.below(value.len().min(2) as u64 * 8));
                    value[bit / 8] ^= 1 << (bit % 8);
                }
            }
            Self::Noise => {
                *present = true;
                value.fill_with(|| byte(prng));
            }
            Self::Moody => {
                *present ^= prng.chance_per_million(50_000);
                if prng.chance_per_million(300_000) {
                    let at = index(prng.below(value.len() as u64));
                    value[at] = value[at].wrapping_add(byte(prng) % 5);
                }
            }
            Self::Sticks => {
                *present = true;
                for axis in value.chunks_exact_mut(2).take(2) {
                    let step = i16::try_from(prng.below(401)).unwrap() - 200;
                    let moved = i16::from_le_bytes([axis[0], axis[1]]).wrapping_add(step);
                    axis.copy_from_slice(&moved.to_le_bytes());
                }
            }
        }
    }
}

fn index(number: u64) -> usize {
    usize::try_from(number).unwrap()
}

fn byte(prng: &mut Prng) -> u8 {
    prng.next_u64().to_le_bytes()[7]
}

fn mean(total: usize, count: u32) -> f64 {
    f64::from(u32::try_from(total).unwrap()) / f64::from(count)
}

/// Mean bytes of a batch of 8-byte inputs whose receiver acked the tick `window` ticks ago.
fn mean_bytes(habit: Habit, slots: u64, own: Option<Slot>, window: u32, expected: bool) -> f64 {
    let mut prng = Prng::new(1);
    let mut sender = InputHistory::new(8, 8);
    let mut receiver = InputHistory::new(8, 8);
    let mut encoder = BatchEncoder::new(8, 8);
    let mut decoder = BatchDecoder::new(8, 8);
    let mut values = [(false, [0_u8; 8]); 8];
    let mut out = Vec::new();
    let mut total = 0;
    let (learning, ticks) = (10_000, 40_000);
    for number in 1..=ticks {
        let tick = Tick::new(number);
        for (slot, (present, value)) in (0..).map(Slot).zip(&mut values) {
            if slots & slot.bit() != 0 {
                habit.step(&mut prng, present, value);
                sender.push(slot, tick, present.then_some(value));
            }
        }
        let base = tick.minus(window);
        for slot in slots_of(slots) {
            encoder.rebase(slot, base, &sender).unwrap();
        }
        let bases = [base; 8];
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
    for slot in slots_of(slots) {
        assert_eq!(receiver.newest(slot), Tick::new(ticks));
    }
    mean(total, ticks - learning)
}

#[test]
fn a_batch_is_as_small_as_its_information() {
    // Eight ticks of one slot hold 0.87 bytes: 0.469 bits each for whether it changed, and 4 bits
    // for each change.
    let one = mean_bytes(Habit::Flips, 1, None, 8, false);
    assert!(one <= 1.8, "one slot: {one}");
    let one = mean_bytes(Habit::Flips, 1, None, 8, true);
    assert!(one <= 0.95, "one slot, acks named by the header: {one}");
    // Seven hold 6.08 bytes; the receiver's own is free.
    let seven = mean_bytes(Habit::Flips, 0xff, Some(Slot(7)), 8, false);
    assert!(seven <= 7.05, "seven slots and the own: {seven}");
    let seven = mean_bytes(Habit::Flips, 0xff, Some(Slot(7)), 8, true);
    assert!(
        seven <= 6.55,
        "seven slots, acks named by the header: {seven}"
    );
    // Absent slots are free, and noise costs at most a byte more than it is.
    let absent = mean_bytes(Habit::Absent, 0xff, None, 8, true);
    assert!(absent <= 0.01, "absent slots: {absent}");
    let noise = mean_bytes(Habit::Noise, 1, None, 8, true);
    assert!(noise <= 65.0, "noise: {noise}");
    let sticks = mean_bytes(Habit::Sticks, 1, None, 8, true);
    // Two random walks of 401 steps hold 8.65 bits per step: 17.3 bytes.
    assert!(sticks <= 20.5, "sticks: {sticks}");
}

/// A datagram under way.
#[derive(Clone)]
struct UnderWay {
    arrival: Tick,
    reference: Tick,
    /// The ack that its header names.
    named: Option<usize>,
    bytes: Vec<u8>,
    /// What it brings its receiver to.
    newest: Vec<Tick>,
}

/// Mean bytes of a batch where each of 7 slots is 0 to 2 ticks behind, as a host relays them.
fn mean_bytes_uneven(expected: bool) -> f64 {
    let mut prng = Prng::new(1);
    let mut sender = InputHistory::new(7, 8);
    let mut receiver = InputHistory::new(7, 8);
    let mut encoder = BatchEncoder::new(7, 8);
    let mut decoder = BatchDecoder::new(7, 8);
    let mut values = [(false, [0_u8; 8]); 7];
    let mut acks = Vec::new();
    let mut out = Vec::new();
    let mut total = 0;
    let (learning, ticks) = (10_000, 40_000);
    for number in 1..=ticks {
        let tick = Tick::new(number);
        for (slot, (present, value)) in (0..).map(Slot).zip(&mut values) {
            let newest = tick.minus(prng.next_u32() % 3);
            while sender.newest(slot) < newest {
                Habit::Flips.step(&mut prng, present, value);
                let next = sender.newest(slot).next();
                sender.push(slot, next, present.then_some(value));
            }
        }
        let newest = |slot| sender.newest(Slot(slot));
        acks.push([0, 1, 2, 3, 4, 5, 6].map(newest));
        let bases = acks[acks.len().saturating_sub(9)];
        if number > 8 {
            for (slot, base) in (0..).map(Slot).zip(bases) {
                encoder.rebase(slot, base, &sender).unwrap();
            }
        }
        let plan = BatchPlan {
            uneven: true,
            expected: (expected && number > 8).then_some(&bases[..]),
            ..BatchPlan::new(0x7f, tick)
        };
        out.clear();
        encoder.encode(&plan, &sender, 1180, &mut out).unwrap();
        decoder.decode(&plan, tick, &out, &mut receiver).unwrap();
        if number > learning {
            total += out.len();
        }
    }
    mean(total, ticks - learning)
}

#[test]
fn slots_that_differ_in_their_newest_tick_stay_small() {
    // 6.08 bytes of inputs, about 2 for seven newest ticks, and as much again for the bases.
    let uneven = mean_bytes_uneven(true);
    assert!(uneven <= 8.3, "{uneven}");
    let uneven = mean_bytes_uneven(false);
    assert!(uneven <= 10.8, "{uneven}");
}

/// A sender and a receiver of 3 slots with 2-byte inputs, 40 ticks in, the last 10 not acked.
fn session() -> (InputHistory, BatchEncoder, InputHistory, BatchDecoder) {
    let mut prng = Prng::new(3);
    let mut sender = InputHistory::new(3, 2);
    let mut receiver = InputHistory::new(3, 2);
    let mut encoder = BatchEncoder::new(3, 2);
    let decoder = BatchDecoder::new(3, 2);
    let mut values = [(false, [0_u8; 2]); 3];
    for tick in (1..=40).map(Tick::new) {
        let habits = [Habit::Flips, Habit::Absent, Habit::Moody];
        for ((slot, habit), (present, value)) in (0..).map(Slot).zip(habits).zip(&mut values) {
            habit.step(&mut prng, present, value);
            sender.push(slot, tick, present.then_some(value));
            if tick <= Tick::new(33) {
                receiver.push(slot, tick, present.then_some(value));
            }
            if tick <= Tick::new(30) {
                encoder.rebase(slot, tick, &sender).unwrap();
            }
        }
    }
    (sender, encoder, receiver, decoder)
}

/// The example of `docs/WIRE.md`, chapter 8.
#[test]
fn bytes_are_golden() {
    let mut sent = InputHistory::new(2, 2);
    let mut sender = InputHistory::new(2, 2);
    let mut encoder = BatchEncoder::new(2, 2);
    for number in 1..=12_u8 {
        let tick = Tick::new(u32::from(number));
        let value = [number / 3, if number < 10 { 0 } else { 0x80 }];
        sender.push(Slot(0), tick, Some(&value));
        sender.push(Slot(1), tick, (number >= 9).then_some(&[5, 0]));
        let own = if number == 11 { [9, 9] } else { value };
        sent.push(Slot(0), tick, Some(&own));
    }
    let base = Tick::new(6);
    for slot in [Slot(0), Slot(1)] {
        encoder.rebase(slot, base, &sender).unwrap();
    }
    let mut first = InputHistory::new(2, 2);
    for slot in [Slot(0), Slot(1)] {
        for tick in (1..=6).map(Tick::new) {
            first.push(slot, tick, sender.get(slot, tick).bytes());
        }
    }
    let plain = BatchPlan::new(3, Tick::new(12));
    let hinted = BatchPlan {
        uneven: true,
        expected: Some(&[base; 2]),
        own: Some((Slot(0), &sent)),
        ..BatchPlan::new(3, Tick::new(13))
    };
    for (plan, golden) in [
        (plain, &[0x4f, 0xda, 0x7b, 0x04, 0xf9, 0x8f, 0xbf][..]),
        (hinted, &[0x7a, 0x8b, 0xff, 0x4b, 0x13, 0x8c][..]),
    ] {
        let mut bytes = Vec::new();
        encoder.encode(&plan, &sender, 100, &mut bytes).unwrap();
        assert_eq!(bytes, golden, "{bytes:02x?}");
        let mut receiver = first.clone();
        let mut decoder = BatchDecoder::new(2, 2);
        let report = decoder.decode(&plan, plan.reference, &bytes, &mut receiver);
        assert_eq!(
            report,
            Ok(BatchReport {
                is_stale: false,
                grown: 3,
                inputs: 12
            })
        );
        for slot in [Slot(0), Slot(1)] {
            for tick in (1..=12).map(Tick::new) {
                assert_eq!(receiver.get(slot, tick), sender.get(slot, tick));
            }
        }
        let report = decoder.decode(&plan, plan.reference, &bytes, &mut receiver);
        assert_eq!(report, Ok(BatchReport::default()), "nothing new");
    }
}

#[test]
fn a_batch_that_is_none_changes_nothing() {
    let (sender, mut encoder, receiver, decoder) = session();
    let expected = [Tick::new(30), Tick::new(31), Tick::new(30)];
    let plans = [
        BatchPlan::new(7, Tick::new(40)),
        BatchPlan {
            uneven: true,
            expected: Some(&expected),
            own: Some((Slot(2), &sender)),
            ..BatchPlan::new(7, Tick::new(44))
        },
        BatchPlan::new(5, Tick::new(41)),
        BatchPlan::new(u64::MAX >> 61, Tick::new(u32::MAX)),
        BatchPlan::new(7, Tick::ZERO),
        BatchPlan::new(0, Tick::new(40)),
    ];
    let mut prng = Prng::new(17);
    let (mut target, mut reader) = (receiver.clone(), decoder.clone());
    let mut refused = 0;
    for round in 0..200_000_u32 {
        let plan = &plans[index(prng.below(6)) % if round % 2 == 0 { 2 } else { 6 }];
        let mut bytes = Vec::new();
        let is_codable = (40..50).contains(&plan.reference.number());
        if is_codable && prng.below(8) > 0 {
            let history = &sender;
            encoder.encode(plan, history, 200, &mut bytes).unwrap();
        }
        for _ in 0..=prng.below(3) {
            match prng.below(4) {
                0 => bytes.push(byte(&mut prng)),
                1 => drop(bytes.pop()),
                _ if bytes.is_empty() => {}
                _ => {
                    let at = index(prng.below(bytes.len() as u64));
                    bytes[at] = byte(&mut prng);
                }
            }
        }
        let newest_max = Tick::new(50);
        match reader.decode(plan, newest_max, &bytes, &mut target) {
            Ok(report) if report.grown != 0 => {
                for slot in (0..3).map(Slot) {
                    assert!(target.newest(slot) <= newest_max, "round {round}");
                }
                target = receiver.clone();
            }
            Ok(_) => {}
            Err(_) => refused += 1,
        }
        for slot in (0..3).map(Slot) {
            assert_eq!(target.newest(slot), Tick::new(33), "round {round}");
        }
        reader.clone_from(&decoder);
    }
    assert!(refused > 50_000, "{refused} refused");
    for slot in (0..3).map(Slot) {
        for tick in (0..=33).map(Tick::new) {
            assert_eq!(target.get(slot, tick), receiver.get(slot, tick));
        }
    }
}

#[test]
fn what_contradicts_or_reaches_beyond_history_is_refused() {
    let (sender, mut encoder, receiver, decoder) = session();
    let plan = BatchPlan::new(1, Tick::new(40));
    let mut out = Vec::new();
    encoder.encode(&plan, &sender, 100, &mut out).unwrap();
    let attempt = |history: &InputHistory, newest_max| {
        let mut history = history.clone();
        let before = history.newest(Slot(0));
        let result = decoder
            .clone()
            .decode(&plan, newest_max, &out, &mut history);
        assert!(result.is_ok() || history.newest(Slot(0)) == before);
        result.map(|report| report.inputs)
    };
    assert_eq!(attempt(&receiver, Tick::new(40)), Ok(7));
    let refused = |text| Err(DecodeError::Invalid(text));
    assert_eq!(
        attempt(&receiver, Tick::new(39)),
        refused("inputs are too far ahead")
    );
    let mut behind = receiver.clone();
    behind.rewind(Slot(0), Tick::new(29));
    assert_eq!(
        attempt(&behind, Tick::new(40)),
        refused("a batch builds on unknown inputs")
    );
    let mut other = receiver.clone();
    other.rewind(Slot(0), Tick::new(30));
    other.push(Slot(0), Tick::new(31), Some(&[0xaa, 0xaa]));
    assert_eq!(
        attempt(&other, Tick::new(40)),
        refused("an input differs from before")
    );
    let mut started = receiver;
    started.start(Slot(0), Tick::new(30));
    assert_eq!(
        attempt(&started, Tick::new(40)),
        refused("a batch builds on forgotten inputs")
    );
}

#[test]
fn a_sender_knows_whom_it_cannot_serve() {
    let (sender, mut encoder, _, _) = session();
    let slot = Slot(0);
    assert_eq!(
        encoder.rebase(slot, Tick::new(41), &sender),
        Err(BatchError::Ahead)
    );
    assert_eq!(encoder.rebase(slot, Tick::new(12), &sender), Ok(()));
    assert_eq!(encoder.base(slot), Tick::new(30), "an old ack is no news");
    let plan = BatchPlan::new(1, Tick::new(29));
    let early = encoder.encode(&plan, &sender, 50, &mut Vec::new());
    assert_eq!(early, Err(BatchError::Ahead));

    let mut encoder = BatchEncoder::new(1, 1);
    let mut history = InputHistory::new(1, 1);
    let mut out = vec![7];
    for tick in (1..=INPUT_HISTORY_TICKS_MAX).map(Tick::new) {
        history.push(slot, tick, Some(&tick.number().to_le_bytes()[..1]));
    }
    let plan = BatchPlan::new(1, Tick::new(INPUT_HISTORY_TICKS_MAX));
    let span = encoder.encode(&plan, &history, 50, &mut out).unwrap();
    assert!(span.bytes <= 50 && span.ticks > 20 && span.left_out > 900);
    assert_eq!(span.ticks + span.left_out, INPUT_HISTORY_TICKS_MAX);
    out.truncate(1);
    let nothing = encoder.encode(&plan, &history, 1, &mut out);
    assert_eq!((nothing, &out[..]), (Err(BatchError::NoRoom), &[7][..]));

    let late = Tick::new(INPUT_HISTORY_TICKS_MAX + 1);
    history.push(slot, late, None);
    let plan = BatchPlan::new(1, late);
    let lost = encoder.encode(&plan, &history, 50, &mut out);
    assert_eq!((lost, &out[..]), (Err(BatchError::RolledOff), &[7][..]));
    let lost = encoder.rebase(slot, late, &history);
    assert_eq!(lost, Err(BatchError::RolledOff));
    encoder.start(slot, late);
    assert_eq!(encoder.base(slot), late);
}

#[test]
fn a_whole_frame_fits_a_datagram_whatever_was_learned() {
    // 64 slots of 9 bytes, and 9 of 64: after long silence everything changes at once.
    for (slots, bytes) in [(64, 9), (9, 64), (64, 1), (1, 64)] {
        assert!(usize::from(slots) * usize::from(bytes) <= INPUT_FRAME_BYTES_MAX);
        let mut prng = Prng::new(9);
        let mut history = InputHistory::new(slots, bytes);
        let mut receiver = InputHistory::new(slots, bytes);
        let mut encoder = BatchEncoder::new(slots, bytes);
        let mut decoder = BatchDecoder::new(slots, bytes);
        let mask = u64::MAX >> (64 - slots);
        for number in 1..=900 {
            let tick = Tick::new(number);
            for slot in slots_of(mask) {
                let value: Vec<u8> = if number == 900 {
                    (0..bytes).map(|_| byte(&mut prng) | 1).collect()
                } else {
                    // Only single low bits flip, so every byte's contexts learn that.
                    let at = usize::from(bytes) * index(u64::from(number)) / 900;
                    let mut value = vec![0; usize::from(bytes)];
                    value[at] = u8::from(number % 2 == 0);
                    value
                };
                history.push(slot, tick, Some(&value));
                if number < 900 {
                    receiver.push(slot, tick, Some(&value));
                    encoder.rebase(slot, tick, &history).unwrap();
                }
            }
        }
        let plan = BatchPlan::new(mask, Tick::new(900));
        let mut out = Vec::new();
        let span = encoder.encode(&plan, &history, DATAGRAM_BYTES_MAX, &mut out);
        assert_eq!(span.map(|span| span.ticks), Ok(1));
        let most = usize::from(slots) * (usize::from(bytes) + 4) + 8;
        assert!(out.len() <= most, "{} of {most} bytes", out.len());
        decoder
            .decode(&plan, plan.reference, &out, &mut receiver)
            .unwrap();
        for slot in slots_of(mask) {
            let sent = history.get(slot, plan.reference);
            assert_eq!(receiver.get(slot, plan.reference), sent);
        }
    }
}
