//! Reading bodies that nobody vouches for.

use std::sync::Arc;

use crate::id::NetId;
use crate::limits::ENTITIES_MAX;
use crate::state::{EntityRef, QuantizedSnapshot, ShapeId, Shapes, WireLayout};
use crate::tick::Tick;
use crate::wire::bytes::DecodeError;
use crate::wire::range;

use super::coder::{Coder, Reader};
use super::entity::{self, Memory};
use super::model::{Ages, flags};
use super::plan::Plans;
use super::project::Projection;
use super::tables::Tables;
use super::view::Reference;
use super::walk::{self, BLOCK, Cursor, Seen, age_classes, changed_context, is_block, next_id};
use super::{AGE_MAX, PART_REFERENCES_MAX, REFERENCES_MAX};

const TOO_MANY_SHAPES: DecodeError =
    DecodeError::Invalid("entities have too many combinations of kinds");
const NOT_ASCENDING: DecodeError = DecodeError::Invalid("entities do not come by id ascending");

/// Bytes by which a body may be shorter than the bits that it sets: its last bytes are rounded.
const SLACK: usize = 64;

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
    plans: Plans,
    ages: Ages,
    memory: Memory,
    now: Projection,
    past: [Projection; REFERENCES_MAX],
    classes: Vec<u8>,
}

impl Decoder {
    /// A decoder of snapshots with this layout.
    #[must_use]
    pub fn new(layout: Arc<WireLayout>) -> Self {
        Self {
            plans: Plans::new(layout),
            ages: Ages::default(),
            memory: Memory::default(),
            now: Projection::default(),
            past: Default::default(),
            classes: Vec::new(),
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
        let mut ages = [0; REFERENCES_MAX];
        for (index, (age, reference)) in ages.iter_mut().zip(references).enumerate() {
            *age = reference.age;
            let before = index.checked_sub(1).map_or(0, |at| references[at].age);
            if *age <= before || *age > AGE_MAX {
                return Err(DecodeError::Invalid("the ages of references do not ascend"));
            }
        }
        let Self {
            plans,
            ages: weights,
            memory,
            now,
            past,
            classes,
        } = self;
        weights.set(&ages[..references.len()]);
        let layout = &*plans.layout;
        memory.clear(bytes.len() + SLACK);
        let mut reader = Reader {
            tables: Tables::shared(),
            coder: range::Decoder::new(bytes),
        };
        let is_split = reader.flag(flags::SPLIT, false);
        let from = if is_split {
            next_id(&mut reader, None, NetId::NONE)?
        } else {
            NetId::NONE
        };
        let has_middle = reader.flag(flags::MIDDLE, false);
        age_classes(layout, shapes, references, from, past, classes);
        let mut cursor = Cursor::new(references, from);
        let mut last = None;
        let mut did_previous = false;
        let mut did_block = false;
        // Entities of the base before the cursor that stay as they are, and are not in `out` yet.
        let mut kept = 0;
        let mut place = 0;
        // The id of a new entity sets a bit.
        let mut spawns_left = (bytes.len() + SLACK).saturating_mul(8);
        let next = loop {
            if is_split && reader.flag(flags::STOP, false) {
                break Some(next_id(&mut reader, last, NetId::NONE)?);
            }
            let base = cursor.id();
            let spawns = match base {
                Some(_) => has_middle && reader.flag(flags::SPAWN, false),
                None => reader.raw(0, 1) == 1,
            };
            if spawns {
                keep(shapes, layout, out, &cursor, &mut kept, now)?;
                let id = next_id(&mut reader, last, NetId::NONE)?;
                if id < from || base.is_some_and(|base| id >= base) {
                    return Err(NOT_ASCENDING);
                }
                spawns_left = spawns_left
                    .checked_sub(1)
                    .filter(|_| out.len() < ENTITIES_MAX)
                    .ok_or(DecodeError::Invalid("a body has too many new entities"))?;
                entity::unknown(&mut reader, plans, memory, now)?;
                memory.commit(now);
                push(shapes, layout, out, id, tick, now)?;
                last = Some(id);
                continue;
            }
            let Some(id) = base else {
                break None;
            };
            if is_block(classes, place) {
                let (view, at) = cursor.base().ok_or(NOT_ASCENDING)?;
                did_block = reader.flag(flags::BLOCK + usize::from(did_block), false);
                if !did_block {
                    kept += BLOCK;
                    cursor.skip(BLOCK);
                    place += BLOCK;
                    last = Some(view.id(at + BLOCK - 1));
                    did_previous = false;
                    continue;
                }
            }
            last = Some(id);
            let context = changed_context(classes, place, did_previous);
            place += 1;
            did_previous = reader.flag(context, false);
            if !did_previous {
                kept += 1;
                cursor.skip(1);
                continue;
            }
            keep(shapes, layout, out, &cursor, &mut kept, now)?;
            let seen = cursor.seen().ok_or(NOT_ASCENDING)?;
            cursor.skip(1);
            if reader.flag(flags::GONE, false) {
                continue;
            }
            let past = walk::past(layout, shapes, &seen, past).ok_or(NOT_ASCENDING)?;
            entity::known(&mut reader, plans, memory, weights, &past, now)?;
            push(shapes, layout, out, id, tick, now)?;
        };
        if let (Some(next), Some(base)) = (next, cursor.id())
            && next > base
        {
            return Err(NOT_ASCENDING);
        }
        keep(shapes, layout, out, &cursor, &mut kept, now)?;
        reader.coder.finish()?;
        Ok(Span { from, next })
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
        let Self {
            plans,
            ages: weights,
            memory,
            now,
            past,
            ..
        } = self;
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

/// Takes over the last `kept` entities of the base before the cursor.
#[inline]
fn keep(
    shapes: &mut Shapes,
    layout: &WireLayout,
    out: &mut QuantizedSnapshot,
    cursor: &Cursor<'_>,
    kept: &mut usize,
    now: &mut Projection,
) -> Result<(), DecodeError> {
    let count = core::mem::take(kept);
    let Some((view, end)) = cursor.base().filter(|_| count > 0) else {
        return Ok(());
    };
    if let Some((snapshot, first)) = view.run(end - count, count) {
        out.push_run(snapshot, first, count);
        return Ok(());
    }
    for at in end - count..end {
        let (entity, hidden) = view.entity(at);
        if hidden == 0 {
            out.push_entity(entity);
        } else {
            now.take(layout, shapes, &entity, hidden);
            push(shapes, layout, out, entity.id, entity.changed, now)?;
        }
    }
    Ok(())
}

fn push(
    shapes: &mut Shapes,
    layout: &WireLayout,
    out: &mut QuantizedSnapshot,
    id: NetId,
    changed: Tick,
    now: &Projection,
) -> Result<(), DecodeError> {
    let shape = shapes
        .intern(layout, &now.kinds)
        .map_err(|_full| TOO_MANY_SHAPES)?;
    out.push(id, shape, changed, |lanes, opaque| {
        lanes.extend_from_slice(&now.lanes);
        opaque.extend_from_slice(&now.opaque);
    });
    Ok(())
}
