//! Batches over a path that loses, doubles and reorders.

use super::*;

/// One direction of a session over a path that loses, doubles and reorders, both ends in view.
struct Lossy {
    prng: Prng,
    habits: Vec<Habit>,
    values: Vec<(bool, Vec<u8>)>,
    own: Option<Slot>,
    uneven: bool,
    room_min: usize,
    now: Tick,
    /// What the receiver sent for its own slot, as both know.
    sent: InputHistory,
    sender: InputHistory,
    encoder: BatchEncoder,
    receiver: InputHistory,
    decoder: BatchDecoder,
    /// The receiver's acks by number, and the newest of them that the sender heard.
    acks: Vec<Vec<Tick>>,
    heard: Option<usize>,
    datagrams: Vec<UnderWay>,
    /// Acks under way: arrival and number.
    answers: Vec<(Tick, usize)>,
    stale: u32,
    cut: u32,
}

impl Lossy {
    fn new(seed: u64) -> Self {
        let mut prng = Prng::new(seed);
        let slots = 1 + prng.below(6).to_le_bytes()[0];
        let bytes = [1, 2, 8, 3, 64][index(prng.below(5))];
        let habits = (0..slots).map(|_| match prng.below(6) {
            0 => Habit::Noise,
            1 | 2 => Habit::Moody,
            3 => Habit::Absent,
            4 => Habit::Sticks,
            _ => Habit::Flips,
        });
        let habits = habits.collect();
        let room_min = if prng.below(2) == 0 {
            DATAGRAM_BYTES_MAX
        } else {
            usize::from(slots) * (usize::from(bytes) + 4) + 20
        };
        Self {
            habits,
            values: vec![(false, vec![0; usize::from(bytes)]); usize::from(slots)],
            own: (prng.below(2) == 0).then_some(Slot(slots - 1)),
            uneven: prng.below(2) == 0,
            room_min,
            now: Tick::ZERO,
            sent: InputHistory::new(slots, bytes),
            sender: InputHistory::new(slots, bytes),
            encoder: BatchEncoder::new(slots, bytes),
            receiver: InputHistory::new(slots, bytes),
            decoder: BatchDecoder::new(slots, bytes),
            acks: Vec::new(),
            heard: None,
            datagrams: Vec::new(),
            answers: Vec::new(),
            stale: 0,
            cut: 0,
            prng,
        }
    }

    fn slots(&self) -> impl Iterator<Item = Slot> + use<> {
        (0..self.habits.len().to_le_bytes()[0]).map(Slot)
    }

    fn produce(&mut self) {
        for slot in self.slots() {
            let (present, value) = &mut self.values[slot.index()];
            while self.sender.newest(slot) < self.now {
                let unacked = self.sender.newest(slot).since(self.encoder.base(slot));
                if unacked > 60 || self.uneven && self.prng.below(3) == 0 {
                    break;
                }
                let tick = self.sender.newest(slot).next();
                self.habits[slot.index()].step(&mut self.prng, present, value);
                let input = present.then_some(&value[..]);
                if self.own != Some(slot) {
                    self.sender.push(slot, tick, input);
                    continue;
                }
                self.sent.push(slot, tick, input);
                // Sometimes late: repeated, or taken as absent.
                match self.prng.below(12) {
                    0 => self.sender.push(slot, tick, None),
                    1 => {
                        let before = self.sender.get(slot, tick.previous()).bytes();
                        let before = before.map(<[u8]>::to_vec);
                        self.sender.push(slot, tick, before.as_deref());
                    }
                    _ => self.sender.push(slot, tick, input),
                }
            }
        }
    }

    fn send(&mut self, loss_percent: u64) {
        let named = self.heard.filter(|_| self.prng.below(4) > 0);
        let expected = named.map(|ack| self.acks[ack].clone());
        let plan = BatchPlan {
            uneven: self.uneven,
            expected: expected.as_deref(),
            own: self.own.map(|own| (own, &self.sent)),
            ..BatchPlan::new((1 << self.habits.len()) - 1, self.now)
        };
        let room = self.room_min + index(self.prng.below(20));
        let mut out = vec![1, 2, 3];
        let span = self.encoder.encode(&plan, &self.sender, room, &mut out);
        let span = span.unwrap();
        self.cut += u32::from(span.left_out > 0);
        let bytes = out.split_off(3);
        assert_eq!(out, [1, 2, 3]);
        assert!(bytes.len() <= room);
        assert_eq!(bytes.len(), span.bytes);
        let newest = |slot| {
            let last = self.encoder.base(slot).plus(span.ticks);
            self.sender.newest(slot).min(last)
        };
        let newest: Vec<Tick> = self.slots().map(newest).collect();
        for _ in 0..=u64::from(self.prng.below(10) == 0) {
            if self.prng.below(100) >= loss_percent {
                let delay = u32::try_from(1 + self.prng.below(12)).unwrap();
                self.datagrams.push(UnderWay {
                    arrival: self.now.plus(delay),
                    reference: self.now,
                    named,
                    bytes: bytes.clone(),
                    newest: newest.clone(),
                });
            }
        }
    }

    fn arrive(&mut self, loss_percent: u64) {
        let now = self.now;
        let due: Vec<_> = self
            .datagrams
            .extract_if(.., |datagram| datagram.arrival <= now)
            .collect();
        for datagram in due {
            let reference = datagram.reference;
            let expected = datagram.named.map(|ack| self.acks[ack].clone());
            let plan = BatchPlan {
                uneven: self.uneven,
                expected: expected.as_deref(),
                own: self.own.map(|own| (own, &self.sent)),
                ..BatchPlan::new((1 << self.habits.len()) - 1, reference)
            };
            let before: Vec<Tick> = self.slots().map(|s| self.receiver.newest(s)).collect();
            let report = self
                .decoder
                .decode(&plan, reference, &datagram.bytes, &mut self.receiver)
                .unwrap();
            self.stale += u32::from(report.is_stale);
            let mut grown = (0, 0);
            for slot in self.slots() {
                let after = self.receiver.newest(slot);
                // An overtaken batch held nothing that was not in the other, unless that was cut.
                assert!(after >= datagram.newest[slot.index()] || self.cut > 0);
                if after > before[slot.index()] {
                    grown.0 |= slot.bit();
                    grown.1 += after.since(before[slot.index()]);
                }
            }
            assert_eq!((report.grown, report.inputs), grown);
        }
        if self.prng.below(100) >= loss_percent {
            let delay = u32::try_from(1 + self.prng.below(12)).unwrap();
            self.answers.push((now.plus(delay), self.acks.len()));
        }
        let ack = self.slots().map(|slot| self.receiver.newest(slot));
        self.acks.push(ack.collect());
        let heard: Vec<_> = self.answers.extract_if(.., |a| a.0 <= now).collect();
        for (_, ack) in heard {
            self.heard = self.heard.max(Some(ack));
            for slot in self.slots() {
                let acked = self.acks[ack][slot.index()];
                self.encoder.rebase(slot, acked, &self.sender).unwrap();
            }
        }
    }

    fn tick(&mut self, loss_percent: u64) {
        self.now = self.now.next();
        self.produce();
        self.send(loss_percent);
        self.arrive(loss_percent);
        for slot in self.slots() {
            let oldest = self.receiver.oldest(slot).max(self.sender.oldest(slot));
            let newest = self.receiver.newest(slot);
            for number in oldest.max(newest.minus(30)).number()..=newest.number() {
                let tick = Tick::new(number);
                let known = self.receiver.get(slot, tick);
                assert_eq!(known, self.sender.get(slot, tick), "{slot:?} {tick}");
            }
        }
    }
}

#[test]
fn batches_survive_loss_doubles_and_reordering() {
    let (mut stale, mut cut) = (0, 0);
    for seed in 0..60 {
        println!("seed {seed}");
        let mut lossy = Lossy::new(seed);
        for _ in 0..400 {
            lossy.tick(20);
        }
        // What was made by now must get through once the path is better.
        let last: Vec<Tick> = lossy.slots().map(|s| lossy.sender.newest(s)).collect();
        for _ in 0..400 {
            lossy.tick(0);
        }
        for slot in lossy.slots() {
            assert!(lossy.receiver.newest(slot) >= last[slot.index()]);
            let base = lossy.decoder.base(slot);
            let mut model = SlotModel::new(lossy.sender.input_bytes(), Tick::ZERO);
            let mut ahead = Models {
                slots: vec![model.clone(); lossy.habits.len()],
            };
            assert!(ahead.advance(slot, base, &lossy.sender));
            model.clone_from(&ahead.slots[slot.index()]);
            assert_eq!(model, lossy.decoder.models.slots[slot.index()]);
            let encoder = &mut lossy.encoder.models;
            let both = base.max(encoder.slots[slot.index()].tick());
            assert!(encoder.advance(slot, both, &lossy.sender));
            assert!(lossy.decoder.models.advance(slot, both, &lossy.receiver));
            assert_eq!(
                lossy.encoder.models.slots[slot.index()],
                lossy.decoder.models.slots[slot.index()]
            );
        }
        stale += lossy.stale;
        cut += lossy.cut;
    }
    assert!(stale > 100, "{stale} stale batches");
    assert!(cut > 100, "{cut} batches were cut to their room");
}
