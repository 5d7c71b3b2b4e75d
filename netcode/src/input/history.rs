//! What a node knows of every slot's inputs: a ring of the newest ticks.
//!
//! A slot's ticks are contiguous from its start to its newest. The memory is one block, allocated
//! once; the oldest tick of a slot gives way to the newest beyond [`INPUT_HISTORY_TICKS_MAX`].

use super::InputFrame;
use crate::id::Slot;
use crate::limits::{INPUT_BYTES_MAX, INPUT_HISTORY_TICKS_MAX, SLOTS_MAX};
use crate::tick::Tick;

/// Ticks of the ring, as an index.
const RING: usize = INPUT_HISTORY_TICKS_MAX as usize;

const _: () = assert!(RING.is_power_of_two() && RING.is_multiple_of(64));

/// What is known of one slot's input for one tick.
#[derive(Clone, Copy, Debug, Eq)]
pub enum SlotInput<'a> {
    /// The slot has no input: it acts as neutral.
    Absent,
    /// The slot's bytes.
    Present(&'a [u8]),
    /// Not known yet, known no more, or before the slot's start.
    Unknown,
}

impl<'a> SlotInput<'a> {
    /// The input's bytes, or `None` where it is absent or unknown.
    #[must_use]
    pub const fn bytes(self) -> Option<&'a [u8]> {
        match self {
            Self::Present(bytes) => Some(bytes),
            Self::Absent | Self::Unknown => None,
        }
    }
}

impl PartialEq for SlotInput<'_> {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Present(a), Self::Present(b)) => same_bytes(a, b),
            (Self::Absent, Self::Absent) | (Self::Unknown, Self::Unknown) => true,
            (Self::Absent | Self::Present(_) | Self::Unknown, _) => false,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Span {
    /// The tick after which the slot's inputs begin; itself absent.
    start: Tick,
    /// The oldest tick whose place in the ring is still its own.
    oldest: Tick,
    newest: Tick,
}

/// The newest inputs of all slots of a session.
#[derive(Clone, Debug)]
pub struct InputHistory {
    input_bytes: usize,
    spans: Vec<Span>,
    /// A bit per slot and tick of the ring.
    present: Vec<u64>,
    /// A bit per slot and tick of the ring: whether the input differs from the tick before.
    changed: Vec<u64>,
    /// `input_bytes` per slot and tick of the ring; zero where absent.
    bytes: Vec<u8>,
}

impl InputHistory {
    /// A history of `slots` slots with inputs of `input_bytes` bytes, all starting at tick 0.
    ///
    /// # Panics
    /// If `slots` exceeds [`SLOTS_MAX`] or `input_bytes` exceeds [`INPUT_BYTES_MAX`].
    #[must_use]
    pub fn new(slots: u8, input_bytes: u8) -> Self {
        let slots = usize::from(slots);
        let input_bytes = usize::from(input_bytes);
        assert!(
            slots <= SLOTS_MAX && input_bytes <= INPUT_BYTES_MAX,
            "a session has at most {SLOTS_MAX} slots of {INPUT_BYTES_MAX} bytes"
        );
        let nothing = Span {
            start: Tick::ZERO,
            oldest: Tick::ZERO,
            newest: Tick::ZERO,
        };
        Self {
            input_bytes,
            spans: vec![nothing; slots],
            present: vec![0; slots * RING / 64],
            changed: vec![0; slots * RING / 64],
            bytes: vec![0; slots * RING * input_bytes],
        }
    }

    /// Number of slots.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.spans.len()
    }

    /// Bytes of one input.
    #[must_use]
    pub const fn input_bytes(&self) -> usize {
        self.input_bytes
    }

    /// Forgets what is known of `slot` and lets its inputs begin after `tick`, at which it counts
    /// as absent.
    ///
    /// # Panics
    /// If the session has no such slot.
    pub fn start(&mut self, slot: Slot, tick: Tick) {
        self.spans[slot.index()] = Span {
            start: tick,
            oldest: tick,
            newest: tick,
        };
    }

    /// The tick up to which the inputs of `slot` are known; its start if none is.
    ///
    /// # Panics
    /// If the session has no such slot.
    #[must_use]
    pub fn newest(&self, slot: Slot) -> Tick {
        self.spans[slot.index()].newest
    }

    /// The oldest tick of `slot` that is still known; its start counts as known.
    ///
    /// # Panics
    /// If the session has no such slot.
    #[must_use]
    pub fn oldest(&self, slot: Slot) -> Tick {
        self.spans[slot.index()].oldest
    }

    /// The input of `slot` for `tick`; unknown also for a slot that the session does not have.
    #[must_use]
    #[inline]
    pub fn get(&self, slot: Slot, tick: Tick) -> SlotInput<'_> {
        let Some(span) = self.spans.get(slot.index()) else {
            return SlotInput::Unknown;
        };
        if tick > span.newest || tick < span.oldest {
            return SlotInput::Unknown;
        }
        let at = place(slot, tick);
        if tick == span.start || self.present[at / 64] & (1 << (at % 64)) == 0 {
            SlotInput::Absent
        } else {
            SlotInput::Present(&self.bytes[at * self.input_bytes..][..self.input_bytes])
        }
    }

    /// Whether the input of `slot` for `tick` differs from that for the tick before. Only of use for
    /// a tick that is known and after the slot's start.
    ///
    /// # Panics
    /// If the session has no such slot.
    #[must_use]
    #[inline]
    pub fn is_changed(&self, slot: Slot, tick: Tick) -> bool {
        let at = place(slot, tick);
        self.changed[at / 64] & (1 << (at % 64)) != 0
    }

    /// Whether `slot` is known to be present in a tick after `after`, up to `until`.
    ///
    /// # Panics
    /// If the session has no such slot.
    #[must_use]
    pub fn is_present_within(&self, slot: Slot, after: Tick, until: Tick) -> bool {
        let span = &self.spans[slot.index()];
        let first = after.max(span.start).next().max(span.oldest).number();
        let end = until.min(span.newest).number();
        let mut number = first;
        while number <= end {
            // As many ticks as one word of the ring holds.
            let at = place(slot, Tick::new(number));
            let count = (64 - number % 64).min(end - number + 1);
            let word = self.present[at / 64] >> (at % 64);
            if word << (64 - count) != 0 {
                return true;
            }
            number += count;
        }
        false
    }

    /// Adds the input of `slot` for the tick after its newest; `None` if the slot is absent.
    ///
    /// # Panics
    /// If `tick` is another, or the slot or the size of `input` does not fit the session.
    #[inline]
    pub fn push(&mut self, slot: Slot, tick: Tick, input: Option<&[u8]>) {
        let span = &mut self.spans[slot.index()];
        assert!(
            tick > span.newest && tick.since(span.newest) == 1,
            "inputs of a slot are contiguous: {tick} after {}",
            span.newest
        );
        let before = place(slot, span.newest);
        let was_present =
            span.newest != span.start && self.present[before / 64] & (1 << (before % 64)) != 0;
        span.newest = tick;
        span.oldest = span.oldest.max(tick.minus(INPUT_HISTORY_TICKS_MAX - 1));
        let at = place(slot, tick);
        let is_changed = match input {
            Some(input) => {
                let before = &self.bytes[before * self.input_bytes..][..self.input_bytes];
                !was_present || !same_bytes(before, input)
            }
            None => was_present,
        };
        let bit = 1 << (at % 64);
        if is_changed {
            self.changed[at / 64] |= bit;
        } else {
            self.changed[at / 64] &= !bit;
        }
        let bytes = &mut self.bytes[at * self.input_bytes..][..self.input_bytes];
        if let Some(input) = input {
            bytes.copy_from_slice(input);
            self.present[at / 64] |= bit;
        } else {
            bytes.fill(0);
            self.present[at / 64] &= !bit;
        }
    }

    /// Forgets the inputs of `slot` after `tick`; nothing happens if there are none.
    ///
    /// # Panics
    /// If the session has no such slot, or `tick` is before [`InputHistory::oldest`].
    pub fn rewind(&mut self, slot: Slot, tick: Tick) {
        assert!(
            tick >= self.oldest(slot),
            "tick {tick} of slot {} is known no more",
            slot.0
        );
        let span = &mut self.spans[slot.index()];
        span.newest = span.newest.min(tick);
    }

    /// Fills `frame` with the inputs of all slots for its tick, unless one is unknown.
    ///
    /// # Panics
    /// If the frame's shape is not the session's.
    pub fn fill(&self, frame: &mut InputFrame) -> bool {
        let tick = frame.tick();
        for slot in (0..frame.slots()).map(Slot) {
            match self.get(slot, tick) {
                SlotInput::Absent => frame.clear(slot),
                SlotInput::Present(bytes) => frame.set(slot, bytes),
                SlotInput::Unknown => return false,
            }
        }
        true
    }
}

/// Whether two inputs are equal. Eight bytes are what many games have: comparing them as one word
/// costs less than the call for any length.
#[inline]
pub(crate) fn same_bytes(a: &[u8], b: &[u8]) -> bool {
    match (<&[u8; 8]>::try_from(a), <&[u8; 8]>::try_from(b)) {
        (Ok(a), Ok(b)) => a == b,
        _ => a == b,
    }
}

/// Index of a slot's tick in the ring.
#[inline]
fn place(slot: Slot, tick: Tick) -> usize {
    slot.index() * RING + (tick.number() % INPUT_HISTORY_TICKS_MAX) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_those_between_neighbours() {
        for (seed, size) in [(1, 8), (2, 3), (3, 1)] {
            let mut prng = crate::prng::Prng::new(seed);
            let mut history = InputHistory::new(2, size);
            let slot = Slot(1);
            history.start(slot, Tick::new(500));
            let mut before: Option<Vec<u8>> = None;
            let mut tick = Tick::new(500);
            for _ in 0..5000 {
                if prng.below(50) == 0 && tick.since(history.oldest(slot)) > 9 {
                    tick = tick.minus(5);
                    history.rewind(slot, tick);
                    before = history.get(slot, tick).bytes().map(<[u8]>::to_vec);
                }
                tick = tick.next();
                let value = prng.below(2).to_le_bytes()[0];
                let input = (prng.below(4) > 0).then(|| vec![value; usize::from(size)]);
                history.push(slot, tick, input.as_deref());
                let differs = input != before;
                assert_eq!(
                    history.is_changed(slot, tick),
                    differs,
                    "seed {seed} at {tick}"
                );
                before = input;
            }
        }
    }

    #[test]
    fn the_ring_keeps_exactly_its_ticks() {
        let mut history = InputHistory::new(3, 2);
        let slot = Slot(2);
        assert_eq!(history.get(slot, Tick::ZERO), SlotInput::Absent);
        for number in 1..=3000_u32 {
            let input = number.to_le_bytes();
            let input = (!number.is_multiple_of(5)).then_some(&input[..2]);
            history.push(slot, Tick::new(number), input);
        }
        assert_eq!(history.newest(slot), Tick::new(3000));
        assert_eq!(
            history.oldest(slot),
            Tick::new(3001 - INPUT_HISTORY_TICKS_MAX)
        );
        assert_eq!(
            history.get(slot, history.oldest(slot).previous()),
            SlotInput::Unknown
        );
        assert_eq!(history.get(slot, Tick::new(3001)), SlotInput::Unknown);
        for number in history.oldest(slot).number()..=3000 {
            let known = history.get(slot, Tick::new(number));
            if number % 5 == 0 {
                assert_eq!(known, SlotInput::Absent);
            } else {
                assert_eq!(known, SlotInput::Present(&number.to_le_bytes()[..2]));
            }
        }
        assert_eq!(history.newest(Slot(1)), Tick::ZERO, "slots are separate");
        assert_eq!(history.get(Slot(9), Tick::ZERO), SlotInput::Unknown);
    }

    #[test]
    fn a_slot_begins_after_its_start() {
        let mut history = InputHistory::new(1, 1);
        history.push(Slot(0), Tick::new(1), Some(&[7]));
        history.start(Slot(0), Tick::new(1025));
        assert_eq!(history.newest(Slot(0)), Tick::new(1025));
        assert_eq!(history.oldest(Slot(0)), Tick::new(1025));
        assert_eq!(
            history.get(Slot(0), Tick::new(1025)),
            SlotInput::Absent,
            "tick 1 had the same place"
        );
        assert_eq!(history.get(Slot(0), Tick::new(1024)), SlotInput::Unknown);
        history.push(Slot(0), Tick::new(1026), Some(&[9]));
        assert_eq!(
            history.get(Slot(0), Tick::new(1026)),
            SlotInput::Present(&[9])
        );
    }

    #[test]
    fn rewound_ticks_are_unknown_until_pushed_again() {
        let mut history = InputHistory::new(1, 1);
        for tick in 1..=9 {
            history.push(Slot(0), Tick::new(tick), Some(&[1]));
        }
        history.rewind(Slot(0), Tick::new(4));
        history.rewind(Slot(0), Tick::new(6));
        assert_eq!(history.newest(Slot(0)), Tick::new(4));
        assert_eq!(history.get(Slot(0), Tick::new(5)), SlotInput::Unknown);
        history.push(Slot(0), Tick::new(5), None);
        assert_eq!(history.get(Slot(0), Tick::new(5)), SlotInput::Absent);

        for tick in 6..=2000 {
            history.push(Slot(0), Tick::new(tick), Some(&[1]));
        }
        let oldest = history.oldest(Slot(0));
        history.rewind(Slot(0), Tick::new(1990));
        assert_eq!(
            history.oldest(Slot(0)),
            oldest,
            "older places are overwritten"
        );
    }

    #[test]
    fn presence_within_ticks_is_that_of_each() {
        let mut prng = crate::prng::Prng::new(4);
        let mut history = InputHistory::new(2, 1);
        let slot = Slot(1);
        for tick in 1..=2500 {
            let is_present = prng.below(60) == 0;
            history.push(slot, Tick::new(tick), is_present.then_some(&[1]));
        }
        for round in 0..20_000 {
            let after = Tick::new(1400 + prng.next_u32() % 1150);
            let until = after.plus(prng.next_u32() % 200);
            let any = (after.number()..until.number())
                .any(|before| history.get(slot, Tick::new(before + 1)).bytes().is_some());
            assert_eq!(
                history.is_present_within(slot, after, until),
                any,
                "round {round}, after {after} until {until}"
            );
        }
    }

    #[test]
    fn a_frame_is_filled_only_when_every_slot_is_known() {
        let mut history = InputHistory::new(2, 1);
        let mut frame = InputFrame::empty(Tick::new(1), 2, 1);
        history.push(Slot(0), Tick::new(1), Some(&[3]));
        assert!(!history.fill(&mut frame));
        history.push(Slot(1), Tick::new(1), None);
        assert!(history.fill(&mut frame));
        assert_eq!(frame.present(), 1);
        assert_eq!(frame.input(Slot(0)), Some(&[3][..]));
    }
}
