//! Entities without the kinds that a client does not get.

use crate::state::{EntityRef, ShapeId, Shapes, TooManyShapes, WireLayout};

/// The visible part of one entity, with memory that is used again.
#[derive(Clone, Debug, Default)]
pub struct Projection {
    /// The visible kinds.
    pub kinds: Vec<u16>,
    /// Where the lanes of each kind begin, and where the last ends.
    pub starts: Vec<u32>,
    /// The lanes of the visible kinds.
    pub lanes: Vec<i32>,
    /// The opaque bytes of the visible kinds.
    pub opaque: Vec<u8>,
}

impl Projection {
    /// Takes over the kinds of `entity` that `hidden` does not name.
    ///
    /// # Panics
    /// If the entity is not of these shapes and this layout.
    pub fn take(
        &mut self,
        layout: &WireLayout,
        shapes: &Shapes,
        entity: &EntityRef<'_>,
        hidden: u64,
    ) {
        let shape = shapes.get(entity.shape);
        self.kinds.clear();
        self.starts.clear();
        self.lanes.clear();
        self.opaque.clear();
        self.starts.push(0);
        let mut opaque = entity.opaque;
        for (place, &kind) in shape.kinds.iter().enumerate() {
            let len = layout
                .kind(kind)
                .filter(|kind| kind.has_opaque())
                .map_or(Ok(0), |kind| kind.opaque_len(opaque))
                .expect("a snapshot's opaque bytes are those of its kinds");
            let (part, rest) = opaque.split_at(len);
            opaque = rest;
            if place < 64 && hidden >> place & 1 == 1 {
                continue;
            }
            self.kinds.push(kind);
            let lanes = shape.starts[place] as usize..shape.starts[place + 1] as usize;
            self.lanes.extend_from_slice(&entity.lanes[lanes]);
            let end = u32::try_from(self.lanes.len()).expect("an entity has fewer lanes");
            self.starts.push(end);
            self.opaque.extend_from_slice(part);
        }
    }
}

/// The visible part of `entity` in `out`, and the number of its shape.
///
/// # Errors
/// If the shape would be one too many.
pub fn project(
    layout: &WireLayout,
    shapes: &mut Shapes,
    entity: &EntityRef<'_>,
    hidden: u64,
    out: &mut Projection,
) -> Result<ShapeId, TooManyShapes> {
    out.take(layout, shapes, entity, hidden);
    shapes.intern(layout, &out.kinds)
}
