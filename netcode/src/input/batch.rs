//! The coding of input batches: runs of inputs after what the other side has acked.
//!
//! For every slot, both ends hold a [`SlotModel`] that learned the slot's history exactly up to
//! the batch's base, the newest tick that the receiver acked to the sender. So a datagram needs
//! nothing but its base: it may be lost, doubled or overtaken. Bases only grow; a batch whose base
//! lies behind the receiver's model was overtaken by one that held at least as much, and is
//! skipped as stale.
//!
//! The layout is in `docs/WIRE-inputs.md`.

use super::history::{InputHistory, SlotInput};
use super::model::SlotModel;
use crate::id::Slot;
use crate::limits::{INPUT_HISTORY_TICKS_MAX, SLOTS_MAX};
use crate::tick::Tick;
use crate::wire::bytes::DecodeError;
use crate::wire::range::{Bit, Decoder, Encoder};

/// What both ends know of a batch before it is coded or read.
#[derive(Clone, Copy, Debug)]
pub struct BatchPlan<'a> {
    /// Mask of the slots that the batch carries.
    pub slots: u64,
    /// The tick in the datagram's header: not before the newest input of any slot in the batch.
    pub reference: Tick,
    /// Whether slots commonly have different newest ticks; a hint that costs bytes if wrong.
    pub uneven: bool,
    /// What the sender's base of each slot should be, by slot: the acks of the receiver's newest
    /// datagram that the header names. Spares coding the bases where it is right.
    pub expected: Option<&'a [Tick]>,
    /// The receiver's own slot, and what it sent for it: the values that the sender accepted are
    /// not coded again.
    pub own: Option<(Slot, &'a InputHistory)>,
}

impl BatchPlan<'_> {
    /// A plan with inputs of `slots`, and no hints.
    #[must_use]
    pub const fn new(slots: u64, reference: Tick) -> Self {
        Self {
            slots,
            reference,
            uneven: false,
            expected: None,
            own: None,
        }
    }
}

/// What a sender put into a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchSpan {
    /// Bytes of the batch.
    pub bytes: usize,
    /// Ticks after its base that any slot has in the batch, at most.
    pub ticks: u32,
    /// Newer ticks that had no room.
    pub left_out: u32,
}

/// Why no batch was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Not even one tick of every slot fits; a whole datagram has room for that.
    #[error("one tick of inputs does not fit the room")]
    NoRoom,
    /// The receiver lacks ticks that history does not hold any more: it needs a snapshot.
    #[error("the inputs after the base are known no more")]
    RolledOff,
    /// The receiver acked a tick that it cannot have, or one after the plan's reference.
    #[error("the acked tick is ahead of history or of the reference")]
    Ahead,
}

/// What a batch brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchReport {
    /// The batch was overtaken by a newer one, and skipped.
    pub is_stale: bool,
    /// Mask of the slots whose history grew.
    pub grown: u64,
    /// Inputs that were not known before, over all slots.
    pub inputs: u32,
}

/// Codes batches for one receiver.
#[derive(Clone, Debug)]
pub struct BatchEncoder {
    models: Models,
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
        if let Some(bytes) = self.attempt(plan, &runs, history, ticks, room, out) {
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
            if self
                .attempt(plan, &runs, history, middle, room, out)
                .is_some()
            {
                out.truncate(before);
                fits = middle;
            } else {
                ticks = middle;
            }
        }
        if fits == 0 {
            return Err(BatchError::NoRoom);
        }
        let bytes = self
            .attempt(plan, &runs, history, fits, room, out)
            .ok_or(BatchError::NoRoom)?;
        Ok(BatchSpan {
            bytes,
            ticks: fits,
            left_out: ticks_all - fits,
        })
    }

    /// Codes at most `ticks` ticks of every slot, or nothing if that takes more than `room` bytes.
    fn attempt(
        &self,
        plan: &BatchPlan<'_>,
        runs: &Runs,
        history: &InputHistory,
        ticks: u32,
        room: usize,
        out: &mut Vec<u8>,
    ) -> Option<usize> {
        let mut runs = *runs;
        for slot in slots_of(plan.slots) {
            let run = slot.index();
            runs.newest[run] = runs.newest[run].min(runs.bases[run].plus(ticks));
        }
        let before = out.len();
        let mut coder = Encoder::new(out);
        self.encode_bases(plan, &runs, &mut coder);
        self.encode_newest(plan, &runs, &mut coder);
        let is_done = self.encode_runs(plan, &runs, history, room, &mut coder);
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
                let is_accepted = |tick| sent.get(slot, tick) == history.get(slot, tick);
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
                for tick in runs.ticks(slot) {
                    model.encode(&mut cursor, history.get(slot, tick).bytes(), coder);
                    if coder.bits() > bits_max {
                        return false;
                    }
                }
            }
        }
        true
    }
}

/// Reads the batches of one sender.
#[derive(Clone, Debug)]
pub struct BatchDecoder {
    models: Models,
    /// Inputs that were read but not applied yet: a byte for presence, and the value.
    fresh: Vec<u8>,
}

impl BatchDecoder {
    /// A decoder whose slots all start after tick 0.
    #[must_use]
    pub fn new(slots: u8, input_bytes: u8) -> Self {
        Self {
            models: Models::new(slots, input_bytes),
            fresh: Vec::new(),
        }
    }

    /// Forgets what was learned of `slot`, which starts after `tick`. Both ends must do so.
    ///
    /// # Panics
    /// If the session has no such slot.
    pub fn start(&mut self, slot: Slot, tick: Tick) {
        self.models.slots[slot.index()].start(tick);
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
            let own = plan.own.filter(|(own, _)| *own == slot);
            let some_replaced = own.is_some() && !runs.is_empty(slot) && coder.bit(SOME_REPLACED);
            let mut was_replaced = false;
            for tick in runs.ticks(slot) {
                if let Some((_, sent)) = own {
                    was_replaced = some_replaced && coder.bit(REPLACED[usize::from(was_replaced)]);
                    if was_replaced {
                        model.decode(&mut cursor, coder);
                    } else {
                        match sent.get(slot, tick) {
                            SlotInput::Absent => cursor.follow(None),
                            SlotInput::Present(bytes) => cursor.follow(Some(bytes)),
                            SlotInput::Unknown => {
                                return Err(DecodeError::Invalid(
                                    "an input is accepted that was never sent",
                                ));
                            }
                        }
                    }
                } else {
                    model.decode(&mut cursor, coder);
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
        SlotInput::Present(bytes) => input == Some(bytes),
        // Older than history: nothing to compare with.
        SlotInput::Unknown => true,
    }
}

/// The models of all slots of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Models {
    slots: Vec<SlotModel>,
}

impl Models {
    fn new(slots: u8, input_bytes: u8) -> Self {
        assert!(
            usize::from(slots) <= SLOTS_MAX,
            "a session has at most {SLOTS_MAX} slots"
        );
        let model = SlotModel::new(usize::from(input_bytes), Tick::ZERO);
        Self {
            slots: vec![model; usize::from(slots)],
        }
    }

    /// Lets the model of `slot` learn up to `base`, unless history has a gap.
    fn advance(&mut self, slot: Slot, base: Tick, history: &InputHistory) -> bool {
        let model = &mut self.slots[slot.index()];
        while model.tick() < base {
            match history.get(slot, model.tick().next()) {
                SlotInput::Absent => model.advance(None),
                SlotInput::Present(bytes) => model.advance(Some(bytes)),
                SlotInput::Unknown => return false,
            }
        }
        true
    }

    /// The slots that are absent at their base and have ticks after it, but for the own one.
    fn idle(&self, plan: &BatchPlan<'_>, runs: &Runs) -> u64 {
        let own = plan.own.map_or(0, |(slot, _)| slot.bit());
        slots_of(plan.slots & !own)
            .filter(|&slot| !runs.is_empty(slot))
            .filter(|&slot| !self.slots[slot.index()].cursor().is_present())
            .fold(0, |mask, slot| mask | slot.bit())
    }
}

/// The ticks of a batch, by slot.
#[derive(Clone, Copy, Debug)]
struct Runs {
    bases: [Tick; SLOTS_MAX],
    newest: [Tick; SLOTS_MAX],
}

impl Default for Runs {
    fn default() -> Self {
        Self {
            bases: [Tick::ZERO; SLOTS_MAX],
            newest: [Tick::ZERO; SLOTS_MAX],
        }
    }
}

impl Runs {
    /// Ends the run of `slot` at `offset` ticks before `reference`.
    fn end(&mut self, slot: Slot, reference: Tick, offset: u32) -> Result<(), DecodeError> {
        let base = self.bases[slot.index()];
        let newest = reference.minus(offset);
        if newest < base || offset > reference.number() {
            return Err(DecodeError::Invalid("a run ends before it begins"));
        }
        if newest.since(base) > INPUT_HISTORY_TICKS_MAX {
            return Err(DecodeError::Invalid("a run is longer than history"));
        }
        self.newest[slot.index()] = newest;
        Ok(())
    }

    fn is_empty(&self, slot: Slot) -> bool {
        self.newest[slot.index()] == self.bases[slot.index()]
    }

    fn ticks(&self, slot: Slot) -> impl Iterator<Item = Tick> + use<> {
        let base = self.bases[slot.index()].number();
        let newest = self.newest[slot.index()].number();
        (base..newest).map(|number| Tick::new(number + 1))
    }
}

/// The bases are not those that the acks let expect.
const UNEXPECTED: Bit = Bit::one_in(32);
/// The reference minus the first base: the ticks of a round trip.
const DISTANCES: [Bit; 11] = [
    Bit::new(63_500),
    Bit::new(62_000),
    Bit::new(49_000),
    Bit::new(28_000),
    Bit::new(20_000),
    Bit::one_in(4),
    Bit::one_in(4),
    Bit::one_in(4),
    Bit::one_in(4),
    Bit::one_in(4),
    Bit::one_in(4),
];
/// A base minus the previous slot's, in zigzag.
const STEPS: [Bit; 12] = {
    let mut lengths = [Bit::one_in(2); 12];
    lengths[1] = Bit::one_in(4);
    lengths
};
/// The reference minus the newest tick of all slots.
const OFFSETS: [Bit; 11] = {
    let mut lengths = [Bit::one_in(2); 11];
    lengths[0] = Bit::one_in(64);
    lengths
};
/// The reference minus the newest tick of one of several slots.
const SPREADS: [Bit; 11] = {
    let mut lengths = [Bit::one_in(2); 11];
    lengths[1] = Bit::one_in(4);
    lengths
};
/// The newest tick of an absent slot is not that of the absent slot before it.
const ABSENT_DIFFERS: Bit = Bit::one_in(32);
/// An absent slot has come to life.
const SOME_APPEAR: Bit = Bit::one_in(128);
/// It is this one.
const APPEARS: Bit = Bit::one_in(4);
/// Not all inputs of the receiver's slot were taken as it sent them.
const SOME_REPLACED: Bit = Bit::one_in(64);
/// This input was not, after one that was and after one that was not.
const REPLACED: [Bit; 2] = [Bit::one_in(4), Bit::one_in(2)];

/// Chance that slots differ in their base or in their newest tick.
const fn differ_chance(plan: &BatchPlan<'_>) -> Bit {
    if plan.uneven {
        Bit::one_in(2)
    } else {
        Bit::one_in(64)
    }
}

fn slots_of(mask: u64) -> impl Iterator<Item = Slot> + Clone {
    let mut rest = mask;
    core::iter::from_fn(move || {
        let slot = rest.trailing_zeros();
        // Without its lowest bit; an empty mask stays empty.
        rest &= rest.wrapping_sub(1);
        (slot < 64).then_some(Slot(slot.to_le_bytes()[0]))
    })
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

fn unzigzag(folded: u32) -> i64 {
    let half = i64::from(folded.div_ceil(2));
    if folded % 2 == 1 { -half } else { half }
}

#[cfg(test)]
mod tests;
