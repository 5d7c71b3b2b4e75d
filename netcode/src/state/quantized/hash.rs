//! The hash of a quantized state: the same on a host, on a client that sees everything, and in a
//! replay, whatever their tables of shapes are.

use crate::hash::{ValueHasher, mix};
use crate::id::NetId;
use crate::state::wire_form::Shapes;

use super::QuantizedSnapshot;

impl QuantizedSnapshot {
    /// The hash of all values. `shapes` is the table that the snapshot was made with.
    ///
    /// # Panics
    /// If an entity has a shape that is none of `shapes`.
    #[must_use]
    pub fn hash(&self, shapes: &Shapes) -> u64 {
        sum_of_rows(self.entities().map(|entity| {
            let kinds = &shapes.get(entity.shape).kinds;
            row_hash(entity.id, kinds, entity.lanes, entity.opaque)
        }))
    }
}

/// The hash of an entity's values: of its kinds by number, so that it is the same on both ends.
pub(crate) fn row_hash(id: NetId, kinds: &[u16], lanes: &[i32], opaque: &[u8]) -> u64 {
    let mut hasher = ValueHasher::new(id.bits());
    hasher.u32(u32::try_from(kinds.len()).unwrap_or(u32::MAX));
    for &kind in kinds {
        hasher.u16(kind);
    }
    for &lane in lanes {
        hasher.u32(lane.cast_unsigned());
    }
    hasher.bytes(opaque);
    // Mixed with the id once more: equal rows of two entities do not cancel when they swap.
    mix(hasher.finish(), id.bits())
}

/// The hash of a set of rows, in any order.
pub(crate) fn sum_of_rows(hashes: impl Iterator<Item = u64>) -> u64 {
    let mut count = 0_u64;
    let sum = hashes.fold(0_u64, |sum, hash| {
        count += 1;
        sum.wrapping_add(hash)
    });
    mix(sum, count)
}
