//! The coding of input batches: runs of inputs after what the other side has acked.
//!
//! For every slot, both ends hold a [`SlotModel`] that learned the slot's history exactly up to
//! the batch's base, the newest tick that the receiver acked to the sender. So a datagram needs
//! nothing but its base: it may be lost, doubled or overtaken. Bases only grow; a batch whose base
//! lies behind the receiver's model was overtaken by one that held at least as much, and is
//! skipped as stale.
//!
//! The layout is in `docs/WIRE.md`, chapter 8.

mod decode;
mod encode;

pub use decode::BatchDecoder;
pub use encode::BatchEncoder;

use super::history::{InputHistory, SlotInput};
use super::model::SlotModel;
use crate::id::Slot;
use crate::limits::{INPUT_HISTORY_TICKS_MAX, SLOTS_MAX};
use crate::tick::Tick;
use crate::wire::bytes::DecodeError;
use crate::wire::range::Bit;

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
            let tick = model.tick().next();
            let is_known = tick <= history.newest(slot) && tick > history.oldest(slot);
            if is_known && !model.is_new() && !history.is_changed(slot, tick) {
                model.advance_unchanged();
                continue;
            }
            match history.get(slot, tick) {
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

    /// At most the first `ticks` ticks of every slot.
    fn shortened(&self, slots: u64, ticks: u32) -> Self {
        let mut runs = *self;
        for slot in slots_of(slots) {
            let run = slot.index();
            runs.newest[run] = runs.newest[run].min(runs.bases[run].plus(ticks));
        }
        runs
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

#[cfg(test)]
mod tests;
