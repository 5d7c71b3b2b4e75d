//! The receiver's side: bytes that nobody vouches for.

use super::{
    ABSENT_DIFFERS, APPEARS, BatchPlan, BatchReport, DISTANCES, Models, OFFSETS, REPLACED, Runs,
    SOME_APPEAR, SOME_REPLACED, SPREADS, STEPS, UNEXPECTED, differ_chance, slots_of,
};
use crate::id::Slot;
use crate::input::history::{InputHistory, SlotInput, same_bytes};
use crate::tick::Tick;
use crate::wire::bytes::DecodeError;
use crate::wire::range::Decoder;

/// Reads the batches of one sender.
#[derive(Clone, Debug)]
pub struct BatchDecoder {
    pub(super) models: Models,
    /// Per slot: the newest tick that a batch brought or repeated.
    told: Vec<Tick>,
    /// Inputs that were read but not applied yet: a byte for presence, and the value.
    fresh: Vec<u8>,
}

impl BatchDecoder {
    /// A decoder whose slots all start after tick 0.
    #[must_use]
    pub fn new(slots: u8, input_bytes: u8) -> Self {
        Self {
            models: Models::new(slots, input_bytes),
            told: vec![Tick::ZERO; usize::from(slots)],
            fresh: Vec::new(),
        }
    }

    /// Forgets what was learned of `slot`, which starts after `tick`. Both ends must do so.
    ///
    /// # Panics
    /// If the session has no such slot.
    pub fn start(&mut self, slot: Slot, tick: Tick) {
        self.models.slots[slot.index()].start(tick);
        self.told[slot.index()] = tick;
    }

    /// The newest tick of `slot` that a batch of the sender had, or the slot's start.
    ///
    /// # Panics
    /// If the session has no such slot.
    #[must_use]
    pub fn told(&self, slot: Slot) -> Tick {
        self.told[slot.index()]
    }

    /// The highest base of `slot` that a batch had.
    ///
    /// # Panics
    /// If the session has no such slot.
    #[must_use]
    pub fn base(&self, slot: Slot) -> Tick {
        self.models.slots[slot.index()].tick()
    }

    /// Reads a whole batch and adds what is new to `history`. Ticks after `newest_max` are
    /// refused, so that a sender cannot push older ones out of history.
    ///
    /// # Errors
    /// If the bytes are no batch, contradict what is known already, or build on inputs that are
    /// not in `history`. `history` is then unchanged. The models may have moved up to known ticks;
    /// this makes batches stale until the sender's bases get there, which they do as it hears our
    /// acks.
    ///
    /// # Panics
    /// If the plan does not fit the session.
    pub fn decode(
        &mut self,
        plan: &BatchPlan<'_>,
        newest_max: Tick,
        bytes: &[u8],
        history: &mut InputHistory,
    ) -> Result<BatchReport, DecodeError> {
        let mut coder = Decoder::new(bytes);
        let mut runs = Runs::default();
        decode_bases(plan, &mut runs, &mut coder)?;
        for slot in slots_of(plan.slots) {
            let base = runs.bases[slot.index()];
            if base > history.newest(slot) {
                return Err(DecodeError::Invalid("a batch builds on unknown inputs"));
            }
            if base < self.base(slot) {
                return Ok(BatchReport {
                    is_stale: true,
                    ..BatchReport::default()
                });
            }
        }
        for slot in slots_of(plan.slots) {
            if !self.models.advance(slot, runs.bases[slot.index()], history) {
                return Err(DecodeError::Invalid("a batch builds on forgotten inputs"));
            }
        }
        self.decode_newest(plan, &mut runs, &mut coder)?;
        for slot in slots_of(plan.slots) {
            let newest = runs.newest[slot.index()];
            if newest > newest_max {
                return Err(DecodeError::Invalid("inputs are too far ahead"));
            }
        }
        let staying = self.decode_idle(plan, &runs, history, &mut coder)?;
        self.decode_runs(plan, &runs, plan.slots & !staying, history, &mut coder)?;
        coder.finish()?;
        Ok(self.apply(plan, &runs, staying, history))
    }

    fn decode_newest(
        &self,
        plan: &BatchPlan<'_>,
        runs: &mut Runs,
        coder: &mut Decoder<'_>,
    ) -> Result<(), DecodeError> {
        let count = plan.slots.count_ones();
        if count == 0 {
            return Ok(());
        }
        if count > 1 && coder.bit(differ_chance(plan)) {
            let mut absent_offset = 0;
            for slot in slots_of(plan.slots) {
                let offset = if self.models.slots[slot.index()].cursor().is_present() {
                    coder.number(&SPREADS)
                } else {
                    if coder.bit(ABSENT_DIFFERS) {
                        absent_offset = coder.number(&SPREADS);
                    }
                    absent_offset
                };
                runs.end(slot, plan.reference, offset)?;
            }
        } else {
            let offset = coder.number(&OFFSETS);
            for slot in slots_of(plan.slots) {
                runs.end(slot, plan.reference, offset)?;
            }
        }
        Ok(())
    }

    /// The slots that are absent in all of their run.
    fn decode_idle(
        &self,
        plan: &BatchPlan<'_>,
        runs: &Runs,
        history: &InputHistory,
        coder: &mut Decoder<'_>,
    ) -> Result<u64, DecodeError> {
        let mut staying = self.models.idle(plan, runs);
        if staying != 0 && coder.bit(SOME_APPEAR) {
            for slot in slots_of(staying) {
                if coder.bit(APPEARS) {
                    staying &= !slot.bit();
                }
            }
        }
        let is_known = |slot: Slot| {
            let run = slot.index();
            history.is_present_within(slot, runs.bases[run], runs.newest[run])
        };
        if slots_of(staying).any(is_known) {
            return Err(DecodeError::Invalid("an input differs from before"));
        }
        Ok(staying)
    }

    fn decode_runs(
        &mut self,
        plan: &BatchPlan<'_>,
        runs: &Runs,
        slots: u64,
        history: &InputHistory,
        coder: &mut Decoder<'_>,
    ) -> Result<(), DecodeError> {
        self.fresh.clear();
        let size = history.input_bytes();
        for slot in slots_of(slots) {
            let model = &self.models.slots[slot.index()];
            let mut cursor = *model.cursor();
            let known = history.newest(slot);
            let oldest = history.oldest(slot);
            let mut is_following = !model.is_new();
            let own = plan.own.filter(|(own, _)| *own == slot);
            let some_replaced = own.is_some() && !runs.is_empty(slot) && coder.bit(SOME_REPLACED);
            let mut was_replaced = false;
            for tick in runs.ticks(slot) {
                let mut is_changed = true;
                if let Some((_, sent)) = own {
                    was_replaced = some_replaced && coder.bit(REPLACED[usize::from(was_replaced)]);
                    if was_replaced {
                        model.decode(&mut cursor, coder);
                    } else {
                        match sent.get(slot, tick) {
                            SlotInput::Present(bytes) => cursor.follow(Some(bytes)),
                            SlotInput::Absent | SlotInput::Unknown => {
                                return Err(DecodeError::Invalid(
                                    "an input is accepted that was never sent",
                                ));
                            }
                        }
                    }
                } else {
                    is_changed = model.decode(&mut cursor, coder);
                }
                // The tick before agreed, and neither end has a change since.
                let agrees_surely = is_following
                    && !is_changed
                    && tick <= known
                    && tick > oldest
                    && !history.is_changed(slot, tick);
                is_following = true;
                if agrees_surely {
                    continue;
                }
                let input = cursor.input(size);
                if tick > known {
                    self.fresh.push(u8::from(input.is_some()));
                    match input {
                        Some(bytes) => self.fresh.extend_from_slice(bytes),
                        None => self.fresh.resize(self.fresh.len() + size, 0),
                    }
                } else if !agrees(history.get(slot, tick), input) {
                    return Err(DecodeError::Invalid("an input differs from before"));
                }
            }
        }
        Ok(())
    }

    fn apply(
        &mut self,
        plan: &BatchPlan<'_>,
        runs: &Runs,
        staying: u64,
        history: &mut InputHistory,
    ) -> BatchReport {
        let mut report = BatchReport::default();
        let mut fresh = self.fresh.chunks_exact(1 + history.input_bytes());
        for slot in slots_of(plan.slots) {
            let newest = runs.newest[slot.index()];
            let told = &mut self.told[slot.index()];
            *told = newest.max(*told);
            while history.newest(slot) < newest {
                let tick = history.newest(slot).next();
                if staying & slot.bit() != 0 {
                    history.push(slot, tick, None);
                } else {
                    let input = fresh
                        .next()
                        .expect("decode_runs kept every tick after the newest known");
                    history.push(slot, tick, (input[0] != 0).then_some(&input[1..]));
                }
                report.grown |= slot.bit();
                report.inputs += 1;
            }
        }
        report
    }
}

fn decode_bases(
    plan: &BatchPlan<'_>,
    runs: &mut Runs,
    coder: &mut Decoder<'_>,
) -> Result<(), DecodeError> {
    if let Some(expected) = plan.expected
        && !coder.bit(UNEXPECTED)
    {
        for slot in slots_of(plan.slots) {
            runs.bases[slot.index()] = *expected
                .get(slot.index())
                .ok_or(DecodeError::Invalid("a slot without an expected base"))?;
        }
        return Ok(());
    }
    let mut slots = slots_of(plan.slots);
    let Some(first) = slots.next() else {
        return Ok(());
    };
    let distance = coder.number(&DISTANCES);
    let number = plan.reference.number().checked_sub(distance);
    let mut base = Tick::new(number.ok_or(DecodeError::Invalid("a base before tick 0"))?);
    runs.bases[first.index()] = base;
    let differ = slots.clone().next().is_some() && coder.bit(differ_chance(plan));
    for slot in slots {
        if differ {
            let number = i64::from(base.number()) + unzigzag(coder.number(&STEPS));
            base = u32::try_from(number)
                .map(Tick::new)
                .map_err(|_beyond| DecodeError::Invalid("a base is no tick"))?;
        }
        runs.bases[slot.index()] = base;
    }
    Ok(())
}

fn agrees(known: SlotInput<'_>, input: Option<&[u8]>) -> bool {
    match known {
        SlotInput::Absent => input.is_none(),
        SlotInput::Present(bytes) => input.is_some_and(|input| same_bytes(input, bytes)),
        // Older than history: nothing to compare with.
        SlotInput::Unknown => true,
    }
}

/// The distance whose place in 0, -1, 1, -2, 2 ... this is.
fn unzigzag(folded: u32) -> i64 {
    let half = i64::from(folded.div_ceil(2));
    if folded % 2 == 1 { -half } else { half }
}
