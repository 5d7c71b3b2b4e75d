//! Whole bodies, entity by entity.

use crate::id::NetId;
use crate::state::{EntityRef, QuantizedSnapshot, Shapes, WireLayout};

use super::REFERENCES_MAX;
use super::coder::Coder;
use super::desk::Desk;
use super::entity::{self, Memory, Row};
use super::model::{Ages, flags};
use super::plan::Plans;
use super::project::Projection;
use super::tally::STRUCTURE;
use super::view::{Reference, View};
use super::walk::{self, BLOCK, Block, Cursor, changed_context, is_block, next_id, survey};

/// What a whole body tells, and of which snapshots its reader knows.
pub(super) struct Told<'a> {
    pub(super) shapes: &'a Shapes,
    pub(super) now: View<'a>,
    /// The base first.
    pub(super) references: &'a [Reference<'a>],
}

/// A whole body that is being written, or learned from.
pub(super) struct Whole<'a, C> {
    layout: &'a WireLayout,
    plans: &'a Plans,
    ages: &'a Ages,
    memory: &'a mut Memory,
    row: &'a mut Projection,
    past: &'a mut [Projection; REFERENCES_MAX],
    blocks: &'a [Block],
    pub(super) coder: C,
    shapes: &'a Shapes,
    now: View<'a>,
    /// Place in `now`.
    at: usize,
    cursor: Cursor<'a>,
    /// The snapshot that is coded, if all references and it have the same entities at the same places.
    even: Option<&'a QuantizedSnapshot>,
    /// Number of the base's next entity, counted from the first of this body.
    place: usize,
    has_middle: bool,
    did_previous: bool,
    /// Whether something changed in the last block of quiet entities.
    did_block: bool,
    /// Entities that were looked at ahead: they are in the base and now.
    ahead: usize,
    /// Which of them differ, the next one in bit 0.
    differ: u32,
    /// The entity before.
    pub(super) last: Option<NetId>,
}

impl<'a, C: Coder> Whole<'a, C> {
    pub(super) fn begin(
        desk: &'a mut Desk,
        mut coder: C,
        told: &Told<'a>,
        from: Option<NetId>,
    ) -> Self {
        let Desk {
            plans,
            ages,
            memory,
            now: row,
            past,
            blocks,
        } = desk;
        let Told {
            shapes,
            now,
            references,
        } = *told;
        memory.clear(0);
        let layout = &*plans.layout;
        let start = from.unwrap_or(NetId::NONE);
        let cursor = survey(layout, shapes, references, start, past, blocks);
        let even = cursor.even_with(&now);
        let at = now.place_of(start);
        let has_middle = has_middle(now, at, references.first(), start);
        coder.flag(flags::SPLIT, from.is_some());
        if let Some(from) = from {
            next_id(&mut coder, None, from).expect("an id is one");
        }
        coder.flag(flags::MIDDLE, has_middle);
        Self {
            layout,
            plans,
            ages,
            memory,
            row,
            past,
            blocks,
            coder,
            shapes,
            now,
            at,
            cursor,
            even,
            place: 0,
            has_middle,
            did_previous: false,
            did_block: false,
            ahead: 0,
            differ: 0,
            last: None,
        }
    }

    /// The id of the next entity in either list.
    pub(super) fn next(&self) -> Option<NetId> {
        let now = (self.at < self.now.len()).then(|| self.now.id(self.at));
        match (now, self.cursor.id()) {
            (Some(now), Some(base)) => Some(now.min(base)),
            (now, base) => now.or(base),
        }
    }

    /// Writes the next entity, or several that were looked at together; false if that was the end.
    #[inline]
    pub(super) fn go_on(&mut self) -> bool {
        if self.ahead == 0 && self.place.is_multiple_of(BLOCK) {
            self.look_ahead();
        }
        if self.ahead == 0 {
            return self.step();
        }
        if self.has_middle || is_block(self.blocks, self.place) {
            self.step_ahead();
        }
        if !self.has_middle {
            self.run_ahead();
        }
        true
    }

    /// Writes all entities that were looked at ahead.
    #[inline]
    fn run_ahead(&mut self) {
        let block = self.blocks.get(self.place / BLOCK).copied();
        let block = block.unwrap_or_default();
        let mut bit = self.place % BLOCK;
        let end = bit + core::mem::take(&mut self.ahead);
        while bit < end {
            let stay = (self.differ.trailing_zeros() as usize).min(end - bit);
            self.coder
                .flags(block.contexts(bit..bit + stay, self.did_previous), stay);
            self.pass(stay);
            bit += stay;
            if stay > 0 {
                self.did_previous = false;
            }
            if bit == end {
                break;
            }
            // It and those before it are done with.
            self.differ = self.differ >> stay >> 1;
            let context = block.changed_context(bit, self.did_previous);
            bit += 1;
            if self.lanes(context) {
                self.did_previous = true;
            } else {
                self.base(true);
            }
        }
        self.last = self.cursor.before(self.place);
    }

    /// Passes over entities of the base that are there now, too.
    #[inline]
    fn pass(&mut self, count: usize) {
        self.place += count;
        self.at += count;
        self.cursor.skip(count);
    }

    /// Writes the next entity; false if that was the end.
    #[inline]
    pub(super) fn step(&mut self) -> bool {
        if self.ahead == 0 && self.place.is_multiple_of(BLOCK) {
            self.look_ahead();
        }
        if self.ahead > 0 {
            self.step_ahead();
            return true;
        }
        let now = (self.at < self.now.len()).then(|| self.now.id(self.at));
        let Some(base) = self.cursor.id() else {
            self.coder.raw(u32::from(now.is_some()), 1);
            if now.is_some() {
                self.spawn();
            }
            return now.is_some();
        };
        let spawns = now.is_some_and(|now| now < base);
        if self.has_middle {
            self.coder.flag(flags::SPAWN, spawns);
        }
        if spawns {
            self.spawn();
            return true;
        }
        if is_block(self.blocks, self.place) {
            let (view, place) = self.cursor.base().expect("the base has an entity here");
            let stays = (0..BLOCK).all(|count| self.stays(count));
            let did = usize::from(self.did_block);
            self.did_block = self.coder.flag(flags::BLOCK + did, !stays);
            if stays {
                self.at += BLOCK;
                self.place += BLOCK;
                self.last = Some(view.id(place + BLOCK - 1));
                self.cursor.skip(BLOCK);
                self.did_previous = false;
                return true;
            }
        }
        self.base(now == Some(base));
        self.last = Some(base);
        true
    }

    /// Finds out which of the next entities change, if they are the same in the base and now.
    #[inline]
    fn look_ahead(&mut self) {
        let Some((view, place)) = self.cursor.base() else {
            return;
        };
        let count = BLOCK.min(view.len() - place);
        if count == 0 {
            return;
        }
        if let Some(now) = self.even {
            let is_likely = !is_block(self.blocks, self.place);
            self.ahead = count;
            self.differ = self.cursor.differences(now, count, is_likely);
            return;
        }
        if let Some(mask) = self.now.differences(self.at, &view, place, count) {
            self.ahead = count;
            self.differ = mask;
        }
    }

    /// Writes an entity, or a block, that was looked at ahead.
    #[inline]
    fn step_ahead(&mut self) {
        let (view, place) = self.cursor.base().expect("the base has an entity here");
        if self.has_middle {
            self.coder.flag(flags::SPAWN, false);
        }
        if is_block(self.blocks, self.place) {
            let did = usize::from(self.did_block);
            self.did_block = self.coder.flag(flags::BLOCK + did, self.differ != 0);
            if self.differ == 0 {
                self.at += BLOCK;
                self.place += BLOCK;
                self.ahead = 0;
                self.last = Some(view.id(place + BLOCK - 1));
                self.cursor.skip(BLOCK);
                self.did_previous = false;
                return;
            }
        }
        self.ahead -= 1;
        let differs = self.differ & 1 == 1;
        self.differ >>= 1;
        self.last = Some(view.id(place));
        let context = changed_context(self.blocks, self.place, self.did_previous);
        if !differs {
            self.coder.flag(context, false);
            self.place += 1;
            self.at += 1;
            self.cursor.skip(1);
        } else if !self.lanes(context) {
            self.base(true);
            return;
        }
        self.did_previous = differs;
    }

    /// Writes an entity that changed, which is the base's next one; false, and nothing is written,
    /// if it is not a matter of lanes alone.
    #[inline]
    fn lanes(&mut self, context: usize) -> bool {
        let Some(past) = self.cursor.lanes() else {
            return false;
        };
        let lanes = match self.even {
            Some(now) => self.cursor.lanes_in(now),
            None => match self.now.lanes(self.at) {
                Some((shape, lanes)) if shape == past.shape => lanes,
                Some(_) | None => return false,
            },
        };
        self.place += 1;
        self.at += 1;
        self.cursor.skip(1);
        self.coder.flag(context, true);
        self.coder.flag(flags::GONE, false);
        self.coder.note(STRUCTURE.0, STRUCTURE.1);
        self.coder.flag(flags::SHAPE, false);
        let own = &mut self.row.lanes;
        own.clear();
        own.extend_from_slice(lanes);
        let shape = self.shapes.get(past.shape);
        let horizon = self.ages.horizon(past.mask);
        let memory = &mut *self.memory;
        entity::lanes(
            &mut self.coder,
            self.plans,
            memory,
            shape,
            horizon,
            &past,
            own,
        )
        .expect("values of a snapshot are within bounds");
        true
    }

    /// Whether the next but `count` entities are the same in the base and now.
    fn stays(&mut self, count: usize) -> bool {
        let Some((view, place)) = self.cursor.base() else {
            return false;
        };
        if self.at + count >= self.now.len() || place + count >= view.len() {
            return false;
        }
        let (base, hidden) = view.entity(place + count);
        let (now, now_hidden) = self.now.entity(self.at + count);
        if base.id != now.id {
            return false;
        }
        if hidden == 0 && now_hidden == 0 {
            return base.same_value(&now);
        }
        let layout = &*self.plans.layout;
        self.row.take(layout, self.shapes, &now, now_hidden);
        let old = &mut self.past[0];
        old.take(layout, self.shapes, &base, hidden);
        old.row().same(&self.row.row())
    }

    /// Writes an entity that the base does not have.
    fn spawn(&mut self) {
        let (entity, hidden) = self.now.entity(self.at);
        next_id(&mut self.coder, self.last, entity.id).expect("ids ascend");
        self.coder.note(STRUCTURE.0, STRUCTURE.1);
        take(self.layout, self.shapes, &entity, hidden, self.row);
        entity::unknown(&mut self.coder, self.plans, self.memory, self.row)
            .expect("values of a snapshot are within bounds");
        self.memory.commit(self.row);
        self.at += 1;
        self.last = Some(entity.id);
    }

    /// Writes what became of an entity of the base.
    #[inline]
    fn base(&mut self, stays: bool) {
        let context = changed_context(self.blocks, self.place, self.did_previous);
        self.place += 1;
        if !stays {
            self.cursor.skip(1);
            self.coder.flag(context, true);
            self.coder.flag(flags::GONE, true);
            self.did_previous = true;
            return;
        }
        let (entity, hidden) = self.now.entity(self.at);
        self.at += 1;
        let (view, place) = self.cursor.base().expect("the base has an entity here");
        let (base, base_hidden) = view.entity(place);
        if hidden == 0 && base_hidden == 0 && base.same_value(&entity) {
            self.cursor.skip(1);
            self.did_previous = self.coder.flag(context, false);
            return;
        }
        let seen = self.cursor.seen().expect("the base has an entity here");
        self.cursor.skip(1);
        let layout = &*self.plans.layout;
        let past =
            walk::past(layout, self.shapes, &seen, self.past).expect("the base has this entity");
        take(layout, self.shapes, &entity, hidden, self.row);
        let is_same = self.row.row().same(&past.base);
        self.did_previous = self.coder.flag(context, !is_same);
        if is_same {
            return;
        }
        self.coder.flag(flags::GONE, false);
        self.coder.note(STRUCTURE.0, STRUCTURE.1);
        entity::known(
            &mut self.coder,
            self.plans,
            self.memory,
            self.ages,
            &past,
            self.row,
        )
        .expect("values of a snapshot are within bounds");
    }
}

/// The visible part of an entity.
pub(super) fn take(
    layout: &WireLayout,
    shapes: &Shapes,
    entity: &EntityRef<'_>,
    hidden: u64,
    out: &mut Projection,
) {
    if hidden == 0 {
        out.copy_row(&Row::of(shapes, entity));
    } else {
        out.take(layout, shapes, entity, hidden);
    }
}

/// Whether entities appear before the base's last one.
fn has_middle(now: View<'_>, mut at: usize, base: Option<&Reference<'_>>, from: NetId) -> bool {
    let Some(base) = base.map(|base| base.view) else {
        return false;
    };
    let first = base.place_of(from);
    if base.begins(first, &now, at) {
        return false;
    }
    for place in first..base.len() {
        let id = base.id(place);
        if at == now.len() {
            return false;
        }
        let own = now.id(at);
        if own < id {
            return true;
        }
        at += usize::from(own == id);
    }
    false
}
