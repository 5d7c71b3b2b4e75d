//! The sender's side.

use super::{
    ABSENT_DIFFERS, APPEARS, BatchError, BatchPlan, BatchSpan, DISTANCES, Models, OFFSETS,
    REPLACED, Runs, SOME_APPEAR, SOME_REPLACED, SPREADS, STEPS, UNEXPECTED, differ_chance,
    slots_of,
};
use crate::id::Slot;
use crate::input::history::InputHistory;
use crate::limits::INPUT_HISTORY_TICKS_MAX;
use crate::tick::Tick;
use crate::wire::range::Encoder;

/// Codes batches for one receiver.
#[derive(Clone, Debug)]
pub struct BatchEncoder {
    pub(super) models: Models,
}

impl BatchEncoder {
    /// An encoder whose slots all start after tick 0.
    #[must_use]
    pub fn new(slots: u8, input_bytes: u8) -> Self {
        Self {
            models: Models::new(slots, input_bytes),
        }
    }

    /// Forgets what was learned of `slot`, which starts after `tick`. Both ends must do so.
    ///
    /// # Panics
    /// If the session has no such slot.
    pub fn start(&mut self, slot: Slot, tick: Tick) {
        self.models.slots[slot.index()].start(tick);
    }

    /// The tick of `slot` after which batches begin.
    ///
    /// # Panics
    /// If the session has no such slot.
    #[must_use]
    pub fn base(&self, slot: Slot) -> Tick {
        self.models.slots[slot.index()].tick()
    }

    /// Takes notice that the receiver has `slot` up to `acked`; an older ack changes nothing.
    ///
    /// # Errors
    /// If history does not reach from the last base to this one. Nothing has changed if the ack is
    /// [`BatchError::Ahead`].
    ///
    /// # Panics
    /// If the session has no such slot.
    pub fn rebase(
        &mut self,
        slot: Slot,
        acked: Tick,
        history: &InputHistory,
    ) -> Result<(), BatchError> {
        if acked > history.newest(slot) {
            return Err(BatchError::Ahead);
        }
        self.models
            .advance(slot, acked, history)
            .then_some(())
            .ok_or(BatchError::RolledOff)
    }

    /// Appends a batch of at most `room` bytes with everything after the bases up to the plan's
    /// reference; where that does not fit, the oldest ticks of every slot.
    ///
    /// # Errors
    /// If nothing can be written; `out` is then as it was.
    ///
    /// # Panics
    /// If the plan does not fit the session.
    pub fn encode(
        &mut self,
        plan: &BatchPlan<'_>,
        history: &InputHistory,
        room: usize,
        out: &mut Vec<u8>,
    ) -> Result<BatchSpan, BatchError> {
        let mut runs = Runs::default();
        let mut ticks_all = 0;
        for slot in slots_of(plan.slots) {
            let base = self.base(slot);
            if base > plan.reference {
                return Err(BatchError::Ahead);
            }
            if plan.reference.since(base) > INPUT_HISTORY_TICKS_MAX
                || base.next() < history.oldest(slot)
            {
                return Err(BatchError::RolledOff);
            }
            let newest = history.newest(slot).min(plan.reference).max(base);
            runs.bases[slot.index()] = base;
            runs.newest[slot.index()] = newest;
            ticks_all = ticks_all.max(newest.since(base));
        }
        let mut fits = 0;
        let mut ticks = ticks_all;
        if let Some(bytes) = self.attempt(plan, &runs, history, room, out) {
            return Ok(BatchSpan {
                bytes,
                ticks,
                left_out: 0,
            });
        }
        // The most ticks that fit, between `fits` and `ticks`, which does not.
        while fits + 1 < ticks {
            let middle = fits.midpoint(ticks);
            let before = out.len();
            let shorter = runs.shortened(plan.slots, middle);
            if self.attempt(plan, &shorter, history, room, out).is_some() {
                out.truncate(before);
                fits = middle;
            } else {
                ticks = middle;
            }
        }
        if fits == 0 {
            return Err(BatchError::NoRoom);
        }
        let shorter = runs.shortened(plan.slots, fits);
        let bytes = self
            .attempt(plan, &shorter, history, room, out)
            .ok_or(BatchError::NoRoom)?;
        Ok(BatchSpan {
            bytes,
            ticks: fits,
            left_out: ticks_all - fits,
        })
    }

    /// Codes `runs`, or nothing if that takes more than `room` bytes.
    fn attempt(
        &self,
        plan: &BatchPlan<'_>,
        runs: &Runs,
        history: &InputHistory,
        room: usize,
        out: &mut Vec<u8>,
    ) -> Option<usize> {
        let before = out.len();
        let mut coder = Encoder::new(out);
        self.encode_bases(plan, runs, &mut coder);
        self.encode_newest(plan, runs, &mut coder);
        let is_done = self.encode_runs(plan, runs, history, room, &mut coder);
        let bytes = coder.finish();
        if is_done && bytes <= room {
            return Some(bytes);
        }
        out.truncate(before);
        None
    }

    fn encode_bases(&self, plan: &BatchPlan<'_>, runs: &Runs, coder: &mut Encoder<'_>) {
        let mut slots = slots_of(plan.slots);
        if let Some(expected) = plan.expected {
            let is_other =
                |slot: Slot| expected.get(slot.index()) != Some(&runs.bases[slot.index()]);
            let is_unexpected = slots_of(plan.slots).any(is_other);
            coder.bit(is_unexpected, UNEXPECTED);
            if !is_unexpected {
                return;
            }
        }
        let Some(first) = slots.next() else { return };
        let mut previous = runs.bases[first.index()];
        coder.number(plan.reference.since(previous), &DISTANCES);
        if slots.clone().next().is_none() {
            return;
        }
        let differ = slots
            .clone()
            .any(|slot| runs.bases[slot.index()] != previous);
        coder.bit(differ, differ_chance(plan));
        if differ {
            for slot in slots {
                let base = runs.bases[slot.index()];
                coder.number(zigzag(base.distance_from(previous)), &STEPS);
                previous = base;
            }
        }
    }

    fn encode_newest(&self, plan: &BatchPlan<'_>, runs: &Runs, coder: &mut Encoder<'_>) {
        let mut slots = slots_of(plan.slots);
        let Some(first) = slots.next() else { return };
        let newest = runs.newest[first.index()];
        if slots.clone().next().is_some() {
            let differ = slots.any(|slot| runs.newest[slot.index()] != newest);
            coder.bit(differ, differ_chance(plan));
            if differ {
                let mut absent_offset = 0;
                for slot in slots_of(plan.slots) {
                    let offset = plan.reference.since(runs.newest[slot.index()]);
                    if !self.models.slots[slot.index()].cursor().is_present() {
                        coder.bit(offset != absent_offset, ABSENT_DIFFERS);
                        if offset == absent_offset {
                            continue;
                        }
                        absent_offset = offset;
                    }
                    coder.number(offset, &SPREADS);
                }
                return;
            }
        }
        coder.number(plan.reference.since(newest), &OFFSETS);
    }

    /// Whether it came to the end within `room` bytes.
    fn encode_runs(
        &self,
        plan: &BatchPlan<'_>,
        runs: &Runs,
        history: &InputHistory,
        room: usize,
        coder: &mut Encoder<'_>,
    ) -> bool {
        let idle = self.models.idle(plan, runs);
        let appearing = slots_of(idle)
            .filter(|&slot| {
                let run = slot.index();
                history.is_present_within(slot, runs.bases[run], runs.newest[run])
            })
            .fold(0, |mask, slot| mask | slot.bit());
        if idle != 0 {
            coder.bit(appearing != 0, SOME_APPEAR);
            if appearing != 0 {
                for slot in slots_of(idle) {
                    coder.bit(appearing & slot.bit() != 0, APPEARS);
                }
            }
        }
        let bits_max = room.saturating_add(9).saturating_mul(8);
        for slot in slots_of(plan.slots & !(idle & !appearing)) {
            let model = &self.models.slots[slot.index()];
            let mut cursor = *model.cursor();
            let own = plan.own.filter(|(own, _)| *own == slot);
            if let Some((_, sent)) = own {
                if runs.is_empty(slot) {
                    continue;
                }
                // An absence is never "as sent": the two ends learn at different times from when on the
                // receiver's slot takes part.
                let is_accepted = |tick| {
                    let value = sent.get(slot, tick);
                    value.bytes().is_some() && value == history.get(slot, tick)
                };
                let some_replaced = !runs.ticks(slot).all(is_accepted);
                coder.bit(some_replaced, SOME_REPLACED);
                if !some_replaced {
                    continue;
                }
                let mut was_replaced = false;
                for tick in runs.ticks(slot) {
                    let is_replaced = !is_accepted(tick);
                    coder.bit(is_replaced, REPLACED[usize::from(was_replaced)]);
                    was_replaced = is_replaced;
                    let input = history.get(slot, tick).bytes();
                    if is_replaced {
                        model.encode(&mut cursor, input, coder);
                    } else {
                        cursor.follow(input);
                    }
                    if coder.bits() > bits_max {
                        return false;
                    }
                }
            } else {
                // What history knows of a change from one tick to the next saves comparing values.
                let mut is_following =
                    !model.is_new() && runs.bases[slot.index()] >= history.oldest(slot);
                for tick in runs.ticks(slot) {
                    if is_following && !history.is_changed(slot, tick) {
                        model.encode_unchanged(&mut cursor, coder);
                    } else {
                        model.encode(&mut cursor, history.get(slot, tick).bytes(), coder);
                    }
                    is_following = true;
                    if coder.bits() > bits_max {
                        return false;
                    }
                }
            }
        }
        true
    }
}

/// 0, -1, 1, -2, 2 ... as 0, 1, 2, 3, 4 ...; the distance has less than 31 bits.
fn zigzag(distance: i64) -> u32 {
    let folded = if distance < 0 {
        distance.unsigned_abs() * 2 - 1
    } else {
        distance.unsigned_abs() * 2
    };
    u32::try_from(folded).unwrap_or(u32::MAX)
}
