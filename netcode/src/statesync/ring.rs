//! The newest published snapshots.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::limits::STATE_RING_SNAPSHOTS;
use crate::state::QuantizedSnapshot;
use crate::tick::Tick;

/// One place of the ring.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) number: u32,
    pub(super) tick: Tick,
    pub(super) snapshot: Arc<QuantizedSnapshot>,
}

/// The last [`STATE_RING_SNAPSHOTS`] snapshots by number, ascending. Those that do not differ share
/// their memory.
#[derive(Debug, Default)]
pub(super) struct Ring {
    slots: VecDeque<Slot>,
    /// Snapshots that nobody holds any more, kept for their memory.
    spare: Vec<Arc<QuantizedSnapshot>>,
}

impl Ring {
    pub(super) fn newest(&self) -> Option<&Slot> {
        self.slots.back()
    }

    pub(super) fn newest_first(&self) -> impl Iterator<Item = &QuantizedSnapshot> {
        self.slots.iter().rev().map(|slot| &*slot.snapshot)
    }

    pub(super) fn slots_newest_first(
        &self,
    ) -> impl Iterator<Item = (u32, Tick, &Arc<QuantizedSnapshot>)> {
        let slots = self.slots.iter().rev();
        slots.map(|slot| (slot.number, slot.tick, &slot.snapshot))
    }

    pub(super) fn get(&self, number: u32) -> Option<&Arc<QuantizedSnapshot>> {
        self.slot(number).map(|slot| &slot.snapshot)
    }

    pub(super) fn slot(&self, number: u32) -> Option<&Slot> {
        // Numbers are consecutive but for pauses: the place is there or a little further back.
        let newest = self.slots.back()?.number;
        let back = usize::try_from(newest.checked_sub(number)?).ok()?;
        let guess = self.slots.len().saturating_sub(back + 1);
        let guessed = self.slots.get(guess).filter(|slot| slot.number == number);
        guessed.or_else(|| {
            let index = self.slots.binary_search_by_key(&number, |slot| slot.number);
            index.ok().and_then(|index| self.slots.get(index))
        })
    }

    /// A snapshot to fill, which nobody else holds.
    pub(super) fn take_spare(&mut self) -> Arc<QuantizedSnapshot> {
        let mut spare = self.spare.pop().unwrap_or_default();
        if Arc::get_mut(&mut spare).is_none() {
            spare = Arc::default();
        }
        spare
    }

    /// Adds a snapshot that differs from the one before.
    pub(super) fn push(&mut self, number: u32, tick: Tick, snapshot: Arc<QuantizedSnapshot>) {
        if self.slots.len() == STATE_RING_SNAPSHOTS as usize
            && let Some(oldest) = self.slots.pop_front()
        {
            self.recycle(oldest.snapshot);
        }
        self.slots.push_back(Slot {
            number,
            tick,
            snapshot,
        });
    }

    /// Adds the newest snapshot once more, under another number.
    pub(super) fn push_same(&mut self, number: u32, tick: Tick) {
        if let Some(newest) = self.newest() {
            let snapshot = Arc::clone(&newest.snapshot);
            self.push(number, tick, snapshot);
        }
    }

    /// Keeps the memory of a snapshot that nobody else holds.
    pub(super) fn recycle(&mut self, snapshot: Arc<QuantizedSnapshot>) {
        if Arc::strong_count(&snapshot) == 1 && self.spare.len() < 2 {
            self.spare.push(snapshot);
        }
    }

    /// Bytes that all snapshots take.
    pub(super) fn memory(&self) -> usize {
        let mut bytes = 0;
        let mut before: Option<&Arc<QuantizedSnapshot>> = None;
        for slot in &self.slots {
            if before.is_none_or(|before| !Arc::ptr_eq(before, &slot.snapshot)) {
                bytes += slot.snapshot.memory();
            }
            before = Some(&slot.snapshot);
        }
        bytes
    }
}
