//! Hashes of what clients see, to compare both ends.

use crate::delta::Projection;
use crate::hash::{ValueHasher, mix};
use crate::id::NetId;
use crate::state::{EntityRef, QuantizedSnapshot, Shapes, WireLayout};

use super::interest::Sight;

/// Hashes of the rows of one snapshot, computed when they are asked for.
#[derive(Debug, Default)]
pub(super) struct RowHashes {
    number: Option<u32>,
    rows: Vec<u64>,
    all: u64,
    projection: Projection,
}

impl RowHashes {
    /// The hash of what `sight` shows of snapshot `number`.
    pub(super) fn view(
        &mut self,
        layout: &WireLayout,
        shapes: &Shapes,
        number: u32,
        snapshot: &QuantizedSnapshot,
        sight: &Sight,
    ) -> u64 {
        if self.number != Some(number) {
            self.number = Some(number);
            self.rows.clear();
            self.rows
                .extend(snapshot.entities().map(|entity| row_hash(shapes, &entity)));
            self.all = sum(self.rows.iter().copied());
        }
        let Sight::Some(entries) = sight else {
            return self.all;
        };
        sum(entries.iter().map(|entry| {
            if entry.hidden == 0 {
                return self.rows[entry.index as usize];
            }
            let entity = snapshot.entity(entry.index as usize);
            let visible = &mut self.projection;
            visible.take(layout, shapes, &entity, entry.hidden);
            value_hash(entity.id, &visible.kinds, &visible.lanes, &visible.opaque)
        }))
    }
}

/// The hash of everything in `snapshot`.
pub(super) fn hash_all(shapes: &Shapes, snapshot: &QuantizedSnapshot) -> u64 {
    sum(snapshot.entities().map(|entity| row_hash(shapes, &entity)))
}

fn row_hash(shapes: &Shapes, entity: &EntityRef<'_>) -> u64 {
    let kinds = &shapes.get(entity.shape).kinds;
    value_hash(entity.id, kinds, entity.lanes, entity.opaque)
}

/// The hash of an entity's values: of its kinds by number, so that it is the same on both ends.
fn value_hash(id: NetId, kinds: &[u16], lanes: &[i32], opaque: &[u8]) -> u64 {
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

fn sum(hashes: impl Iterator<Item = u64>) -> u64 {
    let mut count = 0_u64;
    let sum = hashes.fold(0_u64, |sum, hash| {
        count += 1;
        sum.wrapping_add(hash)
    });
    mix(sum, count)
}
