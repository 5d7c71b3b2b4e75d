//! Spawns that a client predicts, and the ids that it gives in advance.
//!
//! A client of state-sync that runs ahead of the host cannot know which [`NetId`] the host will
//! give. Its own ids have the highest bit set, which no host's id has, and never travel. They
//! follow from the tick and the order of spawns in it alone, so a tick that runs again gives its
//! entities the same ids again.

use bevy_ecs::component::Component;
use bevy_ecs::resource::Resource;
use phalanx_macros::Networked;
use phalanx_netcode::id::Slot;
use phalanx_netcode::limits::SLOTS_MAX;
use phalanx_netcode::tick::Tick;

use crate::net_id::NetId;

/// The bit that only ids of predicted entities have.
pub(crate) const PREDICTED: u64 = 1 << 63;
/// Bits of a predicted id below the tick.
const TICK_SHIFT: u32 = 31;
/// Bits of a predicted id below the slot.
const SLOT_SHIFT: u32 = 24;
/// Stands for the slot where a spawn has no key.
const NO_SLOT: u64 = 0x7f;

/// Which input brought an entity about: the same on the host and on the client that predicted it.
/// Registered in every game; [`NetCommands::spawn_predicted`](crate::NetCommands::spawn_predicted)
/// gives it.
#[derive(Component, Networked, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[networked(name = "phalanx.spawn")]
pub struct SpawnKey {
    /// Whose input.
    pub slot: Slot,
    /// The tick in which it acted.
    pub tick: Tick,
    /// How many entities the same slot spawned before it in that tick.
    pub ordinal: u16,
}

impl SpawnKey {
    /// The id that the predicting client gives the entity, until the host's entity takes its
    /// place. Presentation may go on under it: see
    /// [`ShownWorld::handle`](crate::ShownWorld::handle).
    #[must_use]
    pub fn predicted_id(self) -> NetId {
        let slot = u64::from(self.slot.0);
        predicted_id(self.tick, slot, u64::from(self.ordinal))
    }
}

/// The first id for entities without a key that a client gives at `tick`.
pub(crate) fn first_predicted_id(tick: Tick) -> NetId {
    predicted_id(tick, NO_SLOT, 0)
}

fn predicted_id(tick: Tick, slot: u64, number: u64) -> NetId {
    let tick = u64::from(tick.number());
    NetId::from_bits(PREDICTED | tick << TICK_SHIFT | slot << SLOT_SHIFT | number)
}

const _: () = assert!((SLOTS_MAX as u64) < NO_SLOT && (u16::MAX as u64) < 1 << SLOT_SHIFT);

/// How many keyed entities each slot has spawned in the running tick.
#[derive(Resource, Debug)]
pub(crate) struct SpawnCounts {
    counts: [u16; SLOTS_MAX],
}

impl Default for SpawnCounts {
    fn default() -> Self {
        Self {
            counts: [0; SLOTS_MAX],
        }
    }
}

impl SpawnCounts {
    /// A tick begins.
    pub(crate) fn reset(&mut self) {
        self.counts.fill(0);
    }

    /// The key of the next entity; `None` for a slot that cannot be, and after 65 535 of them.
    pub(crate) fn next(&mut self, slot: Slot, tick: Tick) -> Option<SpawnKey> {
        let count = self.counts.get_mut(slot.index())?;
        let ordinal = *count;
        *count = ordinal.checked_add(1)?;
        Some(SpawnKey {
            slot,
            tick,
            ordinal,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn predicted_ids_differ_and_are_no_hosts_ids() {
        let mut ids = BTreeSet::new();
        for tick in [0, 1, 77, u32::MAX].map(Tick::new) {
            let mut counts = SpawnCounts::default();
            for slot in [Slot(0), Slot(1), Slot(63)] {
                for _ in 0..3 {
                    let key = counts.next(slot, tick).unwrap();
                    assert!(ids.insert(key.predicted_id()));
                }
            }
            for number in 0..3 {
                let first = first_predicted_id(tick).bits();
                assert!(ids.insert(NetId::from_bits(first + number)));
            }
        }
        assert!(ids.iter().all(|id| id.is_predicted()));
        assert_eq!(ids.len(), 4 * 12);
    }

    #[test]
    fn keys_count_per_slot_and_end() {
        let mut counts = SpawnCounts::default();
        let ordinals: Vec<u16> = [Slot(1), Slot(1), Slot(2)]
            .iter()
            .filter_map(|&slot| counts.next(slot, Tick::new(5)))
            .map(|key| key.ordinal)
            .collect();
        assert_eq!(ordinals, [0, 1, 0]);
        assert_eq!(counts.next(Slot(64), Tick::new(5)), None);
        counts.counts[3] = u16::MAX;
        assert_eq!(counts.next(Slot(3), Tick::new(5)), None);
        counts.reset();
        assert_eq!(counts.next(Slot(3), Tick::new(6)).unwrap().ordinal, 0);
    }
}
