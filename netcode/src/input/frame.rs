//! The inputs of all slots for one tick.

use crate::id::Slot;
use crate::limits::{INPUT_BYTES_MAX, SLOTS_MAX};
use crate::tick::Tick;

/// The inputs of all slots for one tick; an absent slot has none.
///
/// Its shape (slots, bytes per input) is fixed for a session. Bytes of absent slots are zero, so
/// frames compare by value.
#[derive(Debug, PartialEq, Eq)]
pub struct InputFrame {
    tick: Tick,
    present: u64,
    slots: u8,
    input_bytes: u8,
    bytes: Vec<u8>,
}

impl Clone for InputFrame {
    fn clone(&self) -> Self {
        Self {
            bytes: self.bytes.clone(),
            ..*self
        }
    }

    /// Keeps the memory that is there: guesses are copied in every tick.
    fn clone_from(&mut self, source: &Self) {
        let Self {
            tick,
            present,
            slots,
            input_bytes,
            ref bytes,
        } = *source;
        self.bytes.clone_from(bytes);
        (self.tick, self.present) = (tick, present);
        (self.slots, self.input_bytes) = (slots, input_bytes);
    }
}

impl InputFrame {
    /// A frame of `slots` absent slots with inputs of `input_bytes` bytes.
    ///
    /// # Panics
    /// If `slots` exceeds [`SLOTS_MAX`] or `input_bytes` exceeds [`INPUT_BYTES_MAX`].
    #[must_use]
    pub fn empty(tick: Tick, slots: u8, input_bytes: u8) -> Self {
        assert!(
            usize::from(slots) <= SLOTS_MAX,
            "a session has at most {SLOTS_MAX} slots"
        );
        assert!(
            usize::from(input_bytes) <= INPUT_BYTES_MAX,
            "an input has at most {INPUT_BYTES_MAX} bytes"
        );
        let bytes = vec![0; usize::from(slots) * usize::from(input_bytes)];
        Self {
            tick,
            present: 0,
            slots,
            input_bytes,
            bytes,
        }
    }

    /// The tick on which these inputs act: the step from `tick - 1` to `tick` uses them.
    #[must_use]
    pub fn tick(&self) -> Tick {
        self.tick
    }

    /// Gives the frame another tick, and keeps its inputs.
    pub fn set_tick(&mut self, tick: Tick) {
        self.tick = tick;
    }

    /// Number of slots, present or absent.
    #[must_use]
    pub fn slots(&self) -> u8 {
        self.slots
    }

    /// Bytes of one input.
    #[must_use]
    pub fn input_bytes(&self) -> u8 {
        self.input_bytes
    }

    /// Mask of the present slots: bit `n` is slot `n`.
    #[must_use]
    pub fn present(&self) -> u64 {
        self.present
    }

    /// The input of `slot`, or `None` where the slot is absent or beyond the session's slots.
    #[must_use]
    pub fn input(&self, slot: Slot) -> Option<&[u8]> {
        if slot.0 >= self.slots || self.present & slot.bit() == 0 {
            return None;
        }
        let size = usize::from(self.input_bytes);
        Some(&self.bytes[slot.index() * size..][..size])
    }

    /// The present slots with their inputs, in slot order.
    pub fn inputs(&self) -> impl Iterator<Item = (Slot, &[u8])> {
        (0..self.slots).filter_map(|slot| Some((Slot(slot), self.input(Slot(slot))?)))
    }

    /// Sets the input of `slot` and makes it present.
    ///
    /// # Panics
    /// If the slot or the size of `input` does not fit the frame's shape.
    pub fn set(&mut self, slot: Slot, input: &[u8]) {
        assert!(slot.0 < self.slots, "slot {} of {}", slot.0, self.slots);
        let size = usize::from(self.input_bytes);
        self.bytes[slot.index() * size..][..size].copy_from_slice(input);
        self.present |= slot.bit();
    }

    /// Makes `slot` absent.
    pub fn clear(&mut self, slot: Slot) {
        if slot.0 < self.slots {
            let size = usize::from(self.input_bytes);
            self.bytes[slot.index() * size..][..size].fill(0);
            self.present &= !slot.bit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cleared_slot_leaves_no_trace() {
        let mut frame = InputFrame::empty(Tick::new(3), 4, 2);
        let untouched = frame.clone();
        frame.set(Slot(2), &[7, 9]);
        assert_eq!(frame.input(Slot(2)), Some(&[7, 9][..]));
        assert_eq!(frame.inputs().collect::<Vec<_>>(), [(Slot(2), &[7, 9][..])]);
        frame.clear(Slot(2));
        assert_eq!(frame, untouched);
        assert_eq!(frame.input(Slot(200)), None);
    }
}
