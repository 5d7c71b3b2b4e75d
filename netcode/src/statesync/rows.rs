//! Hashes of what clients see, to compare both ends.

use crate::delta::Projection;
use crate::state::{
    EntityRef, QuantizedSnapshot, Shapes, WireLayout, row_hash as value_hash, sum_of_rows as sum,
};

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
    snapshot.hash(shapes)
}

fn row_hash(shapes: &Shapes, entity: &EntityRef<'_>) -> u64 {
    let kinds = &shapes.get(entity.shape).kinds;
    value_hash(entity.id, kinds, entity.lanes, entity.opaque)
}
