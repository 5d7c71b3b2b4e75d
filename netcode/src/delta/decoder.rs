//! Reading bodies that nobody vouches for.

use std::sync::Arc;

use crate::id::NetId;
use crate::state::{EntityRef, QuantizedSnapshot, ShapeId, Shapes, WireLayout};
use crate::tick::Tick;
use crate::wire::bytes::DecodeError;
use crate::wire::range;

use super::coder::Reader;
use super::desk::Desk;
use super::entity;
use super::tables::Tables;
use super::view::Reference;
use super::walk::{self, Seen};
use super::whole_read::WholeReader;
use super::{PART_REFERENCES_MAX, REFERENCES_MAX};

/// The table of shapes is full.
pub(super) const TOO_MANY_SHAPES: DecodeError =
    DecodeError::Invalid("entities have too many combinations of kinds");

/// Bytes by which a body may be shorter than the bits that it sets: its last bytes are rounded.
pub(super) const SLACK: usize = 64;

/// Which entities a whole body is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// From this id on.
    pub from: NetId,
    /// Up to below this one; `None` is to the end.
    pub next: Option<NetId>,
}

/// What a receiver of part bodies holds and takes.
pub trait PartState {
    /// The value of entity `id` in the snapshot `age` before the one that the body is about. `None`
    /// if it is not held: the body is refused.
    fn reference(&self, id: NetId, age: u32) -> Option<EntityRef<'_>>;

    /// Takes the value of an entity, or that it is gone.
    ///
    /// # Errors
    /// If the value is refused: so is what follows in the body.
    fn take(
        &mut self,
        id: NetId,
        value: Option<(ShapeId, &[i32], &[u8])>,
    ) -> Result<(), DecodeError>;
}

/// Reads bodies; keeps its memory from call to call.
#[derive(Debug)]
pub struct Decoder {
    desk: Desk,
}

impl Decoder {
    /// A decoder of snapshots with this layout.
    #[must_use]
    pub fn new(layout: Arc<WireLayout>) -> Self {
        Self {
            desk: Desk::new(layout),
        }
    }

    /// Reads a whole body of the snapshot of `tick`, which was coded against `references`: the base
    /// first, ages ascending. `out` then holds the entities of the span that the body is about, and
    /// no others. What did not change keeps its `changed` of the base.
    ///
    /// # Errors
    /// If the bytes are not a body against these references; what `out` holds has no meaning then.
    pub fn decode_whole(
        &mut self,
        shapes: &mut Shapes,
        tick: Tick,
        references: &[Reference<'_>],
        bytes: &[u8],
        out: &mut QuantizedSnapshot,
    ) -> Result<Span, DecodeError> {
        out.clear(tick);
        let references = &references[..references.len().min(REFERENCES_MAX)];
        if !self.desk.set_ages(references) {
            return Err(DecodeError::Invalid("the ages of references do not ascend"));
        }
        WholeReader::begin(&mut self.desk, shapes, tick, references, bytes, out)?.read()
    }

    /// Reads a part body, item by item.
    ///
    /// # Errors
    /// If the bytes are not a part body, or `state` lacks a reference or refuses a value. Items
    /// before were taken then.
    pub fn decode_part(
        &mut self,
        shapes: &mut Shapes,
        bytes: &[u8],
        state: &mut impl PartState,
    ) -> Result<(), DecodeError> {
        let Desk {
            plans,
            ages: weights,
            memory,
            now,
            past,
            ..
        } = &mut self.desk;
        let layout = &*plans.layout;
        memory.clear(bytes.len() + SLACK);
        let mut reader = Reader {
            tables: Tables::shared(),
            coder: range::Decoder::new(bytes),
        };
        let mut last = None;
        // The id of an item sets a bit.
        let mut items_left = (bytes.len() + SLACK).saturating_mul(8);
        while let Some(id) = walk::part_id(&mut reader, last, NetId::NONE)? {
            items_left = items_left
                .checked_sub(1)
                .ok_or(DecodeError::Invalid("a body has too many items"))?;
            last = Some(id);
            let Some(count) = walk::part_references(&mut reader, memory, None, &[])? else {
                state.take(id, None)?;
                continue;
            };
            let ages = memory.like.1;
            let ages = &ages[..count.min(PART_REFERENCES_MAX)];
            let mut seen: [Option<Seen<'_>>; REFERENCES_MAX] = [None; REFERENCES_MAX];
            for (seen, &age) in seen.iter_mut().zip(ages) {
                let entity = state
                    .reference(id, age)
                    .ok_or(DecodeError::Invalid("a reference is not held"))?;
                *seen = Some((entity, 0));
            }
            match walk::past(layout, shapes, &seen, past) {
                Some(past) => {
                    weights.set(ages);
                    entity::known(&mut reader, plans, memory, weights, &past, now)?;
                }
                None => entity::unknown(&mut reader, plans, memory, now)?,
            }
            memory.commit(now);
            let shape = shapes
                .intern(layout, &now.kinds)
                .map_err(|_full| TOO_MANY_SHAPES)?;
            state.take(id, Some((shape, &now.lanes, &now.opaque)))?;
        }
        reader.coder.finish()
    }
}
