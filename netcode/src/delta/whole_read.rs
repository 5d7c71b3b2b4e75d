//! Reading whole bodies.
//!
//! What stays is copied from the base in runs; what changes is first copied with what follows it,
//! and then changed in place.

use crate::id::NetId;
use crate::limits::ENTITIES_MAX;
use crate::state::{QuantizedSnapshot, Shapes, WireLayout};
use crate::tick::Tick;
use crate::wire::bytes::DecodeError;
use crate::wire::range;

use super::REFERENCES_MAX;
use super::coder::{Coder, Reader};
use super::decoder::{SLACK, Span, TOO_MANY_SHAPES};
use super::desk::Desk;
use super::entity::{self, Memory};
use super::model::{Ages, flags};
use super::plan::Plans;
use super::project::Projection;
use super::tables::Tables;
use super::view::Reference;
use super::walk::{self, BLOCK, Block, Cursor, changed_context, is_block, next_id, survey};

const NOT_ASCENDING: DecodeError = DecodeError::Invalid("entities do not come by id ascending");

/// A whole body that is being read.
pub(super) struct WholeReader<'a, 'b> {
    layout: &'a WireLayout,
    plans: &'a Plans,
    ages: &'a Ages,
    memory: &'a mut Memory,
    now: &'a mut Projection,
    past: &'a mut [Projection; REFERENCES_MAX],
    blocks: &'a [Block],
    reader: Reader<'static, 'b>,
    shapes: &'a mut Shapes,
    tick: Tick,
    out: &'a mut QuantizedSnapshot,
    from: NetId,
    is_split: bool,
    has_middle: bool,
    cursor: Cursor<'a>,
    /// Number of the base's next entity, counted from the first of this body.
    place: usize,
    /// Entities of the base before the cursor that stay as they are, and are not in `out` yet.
    kept: usize,
    /// Entities of the base from the cursor on that are in `out` already.
    ahead: usize,
    did_previous: bool,
    did_block: bool,
    /// The newest entity that the base does not have.
    spawned: Option<NetId>,
    /// How many more there may be: the id of each sets a bit.
    spawns_left: usize,
}

impl<'a, 'b> WholeReader<'a, 'b> {
    pub(super) fn begin(
        desk: &'a mut Desk,
        shapes: &'a mut Shapes,
        tick: Tick,
        references: &[Reference<'a>],
        bytes: &'b [u8],
        out: &'a mut QuantizedSnapshot,
    ) -> Result<Self, DecodeError> {
        let Desk {
            plans,
            ages,
            memory,
            now,
            past,
            blocks,
        } = desk;
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
        let cursor = survey(layout, shapes, references, from, past, blocks);
        let mut ahead = 0;
        if let Some(base) = references.first().filter(|_| !is_split) {
            base.view.reserve(out);
            if let Some(base) = cursor.even_base() {
                // Most bodies only change entities. The rest is dropped if one comes or goes.
                out.push_run(base, 0, base.len());
                ahead = base.len();
            }
        }
        Ok(Self {
            layout,
            plans,
            ages,
            memory,
            now,
            past,
            blocks,
            reader,
            shapes,
            tick,
            out,
            from,
            is_split,
            has_middle,
            cursor,
            place: 0,
            kept: 0,
            ahead,
            did_previous: false,
            did_block: false,
            spawned: None,
            spawns_left: (bytes.len() + SLACK).saturating_mul(8),
        })
    }

    /// Reads all of it.
    pub(super) fn read(mut self) -> Result<Span, DecodeError> {
        let next = loop {
            if self.is_split && self.reader.flag(flags::STOP, false) {
                let last = self.last();
                break Some(next_id(&mut self.reader, last, NetId::NONE)?);
            }
            let base = self.cursor.id();
            let spawns = match base {
                Some(_) => self.has_middle && self.reader.flag(flags::SPAWN, false),
                None => self.reader.raw(0, 1) == 1,
            };
            if spawns {
                self.spawn(base)?;
            } else if base.is_none() {
                break None;
            } else if self.is_split || self.has_middle {
                self.step()?;
            } else {
                // Nothing but entities of the base follows until its end.
                while self.cursor.left() > 0 {
                    self.block()?;
                }
            }
        };
        if let (Some(next), Some(base)) = (next, self.cursor.id())
            && next > base
        {
            return Err(NOT_ASCENDING);
        }
        self.drop_ahead();
        self.keep()?;
        self.reader.coder.finish()?;
        Ok(Span {
            from: self.from,
            next,
        })
    }

    /// The id of the entity before.
    fn last(&self) -> Option<NetId> {
        self.cursor.before(self.place).max(self.spawned)
    }

    /// Reads the rest of a block.
    #[inline]
    fn block(&mut self) -> Result<(), DecodeError> {
        if self.quiet_block() {
            return Ok(());
        }
        let block = self.blocks[self.place / BLOCK];
        let first = self.place % BLOCK;
        let count = BLOCK.min(first + self.cursor.left());
        let mut bit = first;
        while bit < count {
            let contexts = block.contexts(bit..count, self.did_previous);
            let stay = self.reader.flags(contexts, 0);
            self.stay(stay);
            bit += stay;
            if stay > 0 {
                self.did_previous = false;
            }
            if bit < count {
                bit += 1;
                self.place += 1;
                self.did_previous = true;
                self.change()?;
            }
        }
        Ok(())
    }

    /// Reads an entity of the base, or a block.
    fn step(&mut self) -> Result<(), DecodeError> {
        if self.quiet_block() {
            return Ok(());
        }
        let context = changed_context(self.blocks, self.place, self.did_previous);
        self.did_previous = self.reader.flag(context, false);
        if self.did_previous {
            self.place += 1;
            self.change()
        } else {
            self.stay(1);
            Ok(())
        }
    }

    /// Passes over a block in which nothing happens, if one begins here.
    #[inline]
    fn quiet_block(&mut self) -> bool {
        if !is_block(self.blocks, self.place) {
            return false;
        }
        let context = flags::BLOCK + usize::from(self.did_block);
        self.did_block = self.reader.flag(context, false);
        if !self.did_block {
            self.stay(BLOCK);
            self.did_previous = false;
        }
        !self.did_block
    }

    /// The base's next entities stay as they are.
    #[inline]
    fn stay(&mut self, count: usize) {
        let copied = count.min(self.ahead);
        self.ahead -= copied;
        self.kept += count - copied;
        self.cursor.skip(count);
        self.place += count;
    }

    /// Reads what became of the base's next entity, which changed.
    #[inline]
    fn change(&mut self) -> Result<(), DecodeError> {
        if self.reader.flag(flags::GONE, false) {
            self.drop_ahead();
            self.keep()?;
            self.cursor.skip(1);
            return Ok(());
        }
        let differs = self.reader.flag(flags::SHAPE, false);
        let Some(past) = self.cursor.lanes().filter(|_| !differs) else {
            return self.change_any(differs);
        };
        if self.ahead == 0 {
            self.keep()?;
            self.copy_ahead()?;
        }
        let index = self.out.len() - self.ahead;
        self.ahead -= 1;
        self.cursor.skip(1);
        let now = self.out.lanes_mut(index, self.tick);
        let shape = self.shapes.get(past.shape);
        let horizon = self.ages.horizon(past.mask);
        let memory = &mut *self.memory;
        entity::lanes(
            &mut self.reader,
            self.plans,
            memory,
            shape,
            horizon,
            &past,
            now,
        )
    }

    /// The same for an entity of which there is more than lanes.
    fn change_any(&mut self, differs: bool) -> Result<(), DecodeError> {
        self.drop_ahead();
        self.keep()?;
        let seen = self.cursor.seen().ok_or(NOT_ASCENDING)?;
        let id = self.cursor.id().ok_or(NOT_ASCENDING)?;
        self.cursor.skip(1);
        let past = walk::past(self.layout, self.shapes, &seen, self.past).ok_or(NOT_ASCENDING)?;
        entity::known_after(
            &mut self.reader,
            self.plans,
            self.memory,
            self.ages,
            &past,
            differs,
            self.now,
        )?;
        push(self.shapes, self.layout, self.out, id, self.tick, self.now)
    }

    /// Reads an entity that the base does not have; `base` is its next one.
    fn spawn(&mut self, base: Option<NetId>) -> Result<(), DecodeError> {
        self.drop_ahead();
        self.keep()?;
        let last = self.last();
        let id = next_id(&mut self.reader, last, NetId::NONE)?;
        if id < self.from || base.is_some_and(|base| id >= base) {
            return Err(NOT_ASCENDING);
        }
        self.spawns_left = self
            .spawns_left
            .checked_sub(1)
            .filter(|_| self.out.len() < ENTITIES_MAX)
            .ok_or(DecodeError::Invalid("a body has too many new entities"))?;
        entity::unknown(&mut self.reader, self.plans, self.memory, self.now)?;
        self.memory.commit(self.now);
        self.spawned = Some(id);
        push(self.shapes, self.layout, self.out, id, self.tick, self.now)
    }

    /// Forgets what was copied ahead.
    fn drop_ahead(&mut self) {
        let ahead = core::mem::take(&mut self.ahead);
        self.out.truncate(self.out.len() - ahead);
    }

    /// Copies the base's next entity and, if they lie beside each other, the others of its block.
    #[inline]
    fn copy_ahead(&mut self) -> Result<(), DecodeError> {
        let (view, at) = self.cursor.base().ok_or(NOT_ASCENDING)?;
        // The place is that after the entity.
        let count = BLOCK - (self.place - 1) % BLOCK;
        let count = count.min(view.len() - at);
        for count in [count, 1] {
            if let Some((snapshot, first)) = view.run(at, count) {
                self.out.push_run(snapshot, first, count);
                self.ahead = count;
                return Ok(());
            }
        }
        Err(NOT_ASCENDING)
    }

    /// Takes over those entities of the base before the cursor that stay and are not there yet.
    #[inline]
    fn keep(&mut self) -> Result<(), DecodeError> {
        let count = core::mem::take(&mut self.kept);
        let Some((view, end)) = self.cursor.base().filter(|_| count > 0) else {
            return Ok(());
        };
        if let Some((snapshot, first)) = view.run(end - count, count) {
            self.out.push_run(snapshot, first, count);
            return Ok(());
        }
        for at in end - count..end {
            let (entity, hidden) = view.entity(at);
            if hidden == 0 {
                self.out.push_entity(entity);
            } else {
                self.now.take(self.layout, self.shapes, &entity, hidden);
                let (id, changed) = (entity.id, entity.changed);
                push(self.shapes, self.layout, self.out, id, changed, self.now)?;
            }
        }
        Ok(())
    }
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
