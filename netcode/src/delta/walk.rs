//! Walks along the references of a body, the same at both ends.

use core::ops::Range;

use crate::id::NetId;
use crate::state::{EntityRef, QuantizedSnapshot, ShapeId, Shapes, WireLayout};
use crate::wire::bytes::DecodeError;

use super::coder::{Coder, number};
use super::entity::{Memory, Past, Row};
use super::model::{OLDER, flags};
use super::project::Projection;
use super::view::{Reference, View};
use super::{AGE_MAX, PART_REFERENCES_MAX, REFERENCES_MAX};

/// An entity's values and hidden kinds.
pub(super) type Seen<'a> = (EntityRef<'a>, u64);

/// Ages of an entity: it differs from the newer of the older references, it differs from the older
/// one only, or from neither; or nobody knows.
const LATELY: usize = 0;
const BEFORE: usize = 1;
const QUIET: usize = 2;
const UNKNOWN: usize = 3;

/// Entities of the base that one flag may pass over when they are all quiet and stay so.
pub(super) const BLOCK: usize = 16;

/// The ages of some entities of the base that follow each other: bit `n` is the `n`-th.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Block {
    /// Which ones differ from the oldest reference; bit [`BLOCK`] is the first of the next block.
    moved: u32,
    /// Which of these differ from the newer one too.
    lately: u32,
    /// Whether nobody knows.
    is_unknown: bool,
    /// Whether all have a flag together: there are [`BLOCK`], and all are quiet.
    is_quiet: bool,
}

/// Contexts by whether the next entity moved, above that whether it moved lately, and whether nobody
/// knows; the lowest bit is whether it moved.
const CONTEXTS: [u8; 16] = {
    let mut contexts = [0; 16];
    let mut at = 0;
    while at < contexts.len() {
        let class = match (at >> 3, at & 1, at >> 2 & 1) {
            (1, _, _) => UNKNOWN,
            (_, 0, _) => QUIET,
            (_, _, 0) => BEFORE,
            (_, _, _) => LATELY,
        };
        #[expect(clippy::cast_possible_truncation, reason = "there are fewer contexts")]
        {
            contexts[at] = (flags::CHANGED + class * 4 + (at >> 1 & 1)) as u8;
        }
        at += 1;
    }
    contexts
};

impl Block {
    /// The context of whether entity number `bit` of the block changed.
    #[inline]
    pub(super) fn changed_context(&self, bit: usize, did_previous: bool) -> usize {
        let moved = self.moved >> (bit % BLOCK) & 3;
        let lately = self.lately >> (bit % BLOCK) & 1;
        let unknown = u32::from(self.is_unknown);
        let context = CONTEXTS[(unknown << 3 | lately << 2 | moved) as usize];
        usize::from(context) + usize::from(did_previous) * 2
    }

    /// The contexts of entities `bits` of the block, if they do not change but the last.
    #[inline]
    pub(super) fn contexts(
        &self,
        bits: Range<usize>,
        did_previous: bool,
    ) -> impl Iterator<Item = usize> {
        let first = bits.start;
        bits.map(move |bit| self.changed_context(bit, did_previous && bit == first))
    }
}

/// An entity of which both ends have lanes only, of the same kinds in all references.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lanes<'a> {
    pub(super) shape: ShapeId,
    pub(super) base: &'a [i32],
    /// The base's where there are none.
    pub(super) older: [&'a [i32]; OLDER],
    /// Which older references have it.
    pub(super) mask: usize,
}

/// References that all have the same entities, and of these lanes only, at the same places.
#[derive(Clone, Copy, Debug)]
struct Even<'a> {
    base: &'a QuantizedSnapshot,
    /// The base where there are none.
    older: [&'a QuantizedSnapshot; OLDER],
    /// Which older references there are.
    mask: usize,
}

/// A place in the base, and where the older references likely have the same entity.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    base: Option<View<'a>>,
    older: [Option<View<'a>>; OLDER],
    /// There if no place has to be looked for.
    even: Option<Even<'a>>,
    /// Place in the base.
    place: usize,
    /// Place in an older reference less that in the base.
    shifts: [isize; OLDER],
}

impl<'a> Cursor<'a> {
    /// At the base's first entity whose id is not below `from`.
    pub(super) fn new(references: &[Reference<'a>], from: NetId) -> Self {
        let mut older = [None; OLDER];
        for (older, reference) in older.iter_mut().zip(references.iter().skip(1)) {
            *older = Some(reference.view);
        }
        let base = references.first().map(|base| base.view);
        Self {
            base,
            older,
            even: base.and_then(|base| even(base, &older)),
            place: base.map_or(0, |base| base.place_of(from)),
            shifts: [0; OLDER],
        }
    }

    /// The base, and the place of its next entity.
    #[inline]
    pub(super) fn base(&self) -> Option<(View<'a>, usize)> {
        self.base.map(|base| (base, self.place))
    }

    /// The id of the base's next entity.
    #[inline]
    pub(super) fn id(&self) -> Option<NetId> {
        let base = self.base?;
        (self.place < base.len()).then(|| base.id(self.place))
    }

    /// How many entities of the base are left.
    #[inline]
    pub(super) fn left(&self) -> usize {
        self.base.map_or(0, |base| base.len() - self.place)
    }

    /// The id of the entity before the base's next, if one of `count` passed ones.
    pub(super) fn before(&self, count: usize) -> Option<NetId> {
        let base = self.base.filter(|_| count > 0)?;
        self.place.checked_sub(1).map(|place| base.id(place))
    }

    /// Passes over entities of the base.
    #[inline]
    pub(super) fn skip(&mut self, count: usize) {
        self.place += count;
    }

    /// What an older reference has of the base's next entity.
    #[inline]
    fn seek(&mut self, at: usize, id: NetId) -> Option<Seen<'a>> {
        let view = self.older[at]?;
        let hint = self.place.wrapping_add_signed(self.shifts[at]);
        let place = view.seek(id, hint)?;
        self.shifts[at] = place.wrapping_sub(self.place).cast_signed();
        Some(view.entity(place))
    }

    /// The lanes of the base's next entity and what the older references have of it, where lanes
    /// are all there is, of the same kinds in all.
    #[inline]
    pub(super) fn lanes(&mut self) -> Option<Lanes<'a>> {
        if let Some(even) = &self.even {
            let (shape, base) = even.base.only_lanes(self.place)?;
            return Some(Lanes {
                shape,
                base,
                older: even
                    .older
                    .map(|older| even.base.aligned_lanes(self.place, older)),
                mask: even.mask,
            });
        }
        let view = self.base?;
        let (shape, base) = view.lanes(self.place)?;
        let id = view.id(self.place);
        let mut lanes = Lanes {
            shape,
            base,
            older: [base; OLDER],
            mask: 0,
        };
        for at in 0..OLDER {
            let Some(view) = self.older[at] else {
                break;
            };
            let hint = self.place.wrapping_add_signed(self.shifts[at]);
            if let Some(place) = view.seek(id, hint) {
                self.shifts[at] = place.wrapping_sub(self.place).cast_signed();
                let (own, there) = view.lanes(place)?;
                if own != shape {
                    return None;
                }
                lanes.older[at] = there;
                lanes.mask |= 1 << at;
            }
        }
        Some(lanes)
    }

    /// All of the base, if the references are even.
    pub(super) fn even_base(&self) -> Option<&'a QuantizedSnapshot> {
        self.even.as_ref().map(|even| even.base)
    }

    /// All of `now`, if the references are even and it has what they have.
    pub(super) fn even_with(&self, now: &View<'a>) -> Option<&'a QuantizedSnapshot> {
        now.aligned_with(&View::all(self.even_base()?))
    }

    /// Which of the base's next `count` entities differ in `now`, which is even with it.
    #[inline]
    pub(super) fn differences(
        &self,
        now: &QuantizedSnapshot,
        count: usize,
        is_likely: bool,
    ) -> u32 {
        self.even.as_ref().map_or(0, |even| {
            even.base
                .aligned_differences(self.place, now, count, is_likely)
        })
    }

    /// The lanes of the base's next entity in `now`, which is even with it.
    #[inline]
    pub(super) fn lanes_in(&self, now: &'a QuantizedSnapshot) -> &'a [i32] {
        self.even
            .as_ref()
            .map_or(&[][..], |even| even.base.aligned_lanes(self.place, now))
    }

    /// The base's next entity and what the older references have of it.
    #[inline]
    pub(super) fn seen(&mut self) -> Option<[Option<Seen<'a>>; REFERENCES_MAX]> {
        let id = self.id()?;
        let base = self.base?.entity(self.place);
        Some([Some(base), self.seek(0, id), self.seek(1, id)])
    }
}

/// The references, if all of them are even.
fn even<'a>(base: View<'a>, older: &[Option<View<'a>>; OLDER]) -> Option<Even<'a>> {
    let mut even = Even {
        base: base.snapshot()?,
        older: [base.snapshot()?; OLDER],
        mask: 0,
    };
    for (at, older) in older.iter().enumerate() {
        if let Some(older) = older {
            even.older[at] = older.aligned_with(&base)?;
            even.mask |= 1 << at;
        }
    }
    Some(even)
}

/// How long ago each entity of the base from `from` on changed, as far as the references tell.
/// Returns a cursor at the first of them.
pub(super) fn survey<'a>(
    layout: &WireLayout,
    shapes: &Shapes,
    references: &[Reference<'a>],
    from: NetId,
    scratch: &mut [Projection; REFERENCES_MAX],
    blocks: &mut Vec<Block>,
) -> Cursor<'a> {
    blocks.clear();
    let mut cursor = Cursor::new(references, from);
    let Some((base, first)) = cursor.base() else {
        return cursor;
    };
    let older = references.len().min(REFERENCES_MAX) - 1;
    let count = base.len() - first;
    let Some(oldest) = older.checked_sub(1) else {
        let unknown = Block {
            is_unknown: true,
            ..Block::default()
        };
        blocks.resize(count.div_ceil(BLOCK), unknown);
        return cursor;
    };
    blocks.reserve(count.div_ceil(BLOCK));
    if let Some(even) = &cursor.even {
        survey_even(even, first, oldest, blocks);
        return cursor;
    }
    while cursor.place < base.len() {
        let count = BLOCK.min(base.len() - cursor.place);
        let differences = |at: usize| {
            let hint = cursor.place.wrapping_add_signed(cursor.shifts[at]);
            base.differences(cursor.place, &cursor.older[at]?, hint, count)
        };
        let moved = differences(oldest);
        let lately = match moved {
            Some(0) => Some(0),
            Some(moved) if oldest == 0 => Some(moved),
            _ => differences(0),
        };
        let (moved, lately) = match (moved, lately) {
            (Some(moved), Some(lately)) => {
                cursor.skip(count);
                (moved, lately & moved)
            }
            _ => one_by_one(layout, shapes, &mut cursor, (older, count), scratch),
        };
        push_block(blocks, count, moved, lately);
    }
    cursor.place = first;
    cursor.shifts = [0; OLDER];
    cursor
}

/// The same where no place has to be looked for.
fn survey_even(even: &Even<'_>, first: usize, oldest: usize, blocks: &mut Vec<Block>) {
    let mut place = first;
    let mut moved = 0;
    while place < even.base.len() {
        let count = BLOCK.min(even.base.len() - place);
        let differences = |at: usize, is_likely: bool| {
            even.base
                .aligned_differences(place, even.older[at], count, is_likely)
        };
        // What moves is often beside what moves.
        moved = differences(oldest, moved != 0);
        let lately = match moved {
            0 => 0,
            moved if oldest == 0 => moved,
            moved => moved & differences(0, true),
        };
        push_block(blocks, count, moved, lately);
        place += count;
    }
}

#[inline]
fn push_block(blocks: &mut Vec<Block>, count: usize, moved: u32, lately: u32) {
    if let Some(before) = blocks.last_mut() {
        before.moved |= (moved & 1) << BLOCK;
    }
    blocks.push(Block {
        moved,
        lately,
        is_unknown: false,
        is_quiet: moved == 0 && count == BLOCK,
    });
}

/// Which of the next `count` entities moved, and which of these lately, where entities come and go.
#[cold]
fn one_by_one(
    layout: &WireLayout,
    shapes: &Shapes,
    cursor: &mut Cursor<'_>,
    (older, count): (usize, usize),
    scratch: &mut [Projection; REFERENCES_MAX],
) -> (u32, u32) {
    let (mut moved, mut lately) = (0, 0);
    for bit in 0..count {
        let past = cursor
            .seen()
            .and_then(|seen| past(layout, shapes, &seen, scratch));
        cursor.skip(1);
        let Some(past) = past else {
            continue;
        };
        let differs = |row: &Option<Row<'_>>| row.is_none_or(|row| !row.same(&past.base));
        if differs(&past.older[older - 1]) {
            moved |= 1 << bit;
            lately |= u32::from(older == 1 || differs(&past.older[0])) << bit;
        }
    }
    (moved, lately)
}

/// Whether a block of quiet entities begins at entity number `place`, counted from the first of the
/// body: it has a flag of its own.
#[inline]
pub(super) fn is_block(blocks: &[Block], place: usize) -> bool {
    place.is_multiple_of(BLOCK)
        && blocks
            .get(place / BLOCK)
            .is_some_and(|block| block.is_quiet)
}

/// The context of whether entity number `place` of the base changed.
#[inline]
pub(super) fn changed_context(blocks: &[Block], place: usize, did_previous: bool) -> usize {
    blocks[place / BLOCK].changed_context(place % BLOCK, did_previous)
}

/// What both ends have of an entity, without hidden kinds; `None` if the base does not have it.
#[inline]
pub(super) fn past<'a>(
    layout: &WireLayout,
    shapes: &'a Shapes,
    seen: &[Option<Seen<'a>>; REFERENCES_MAX],
    scratch: &'a mut [Projection; REFERENCES_MAX],
) -> Option<Past<'a>> {
    for (seen, scratch) in seen.iter().zip(scratch.iter_mut()) {
        if let Some((entity, hidden)) = seen
            && *hidden != 0
        {
            scratch.take(layout, shapes, entity, *hidden);
        }
    }
    let scratch = &*scratch;
    let row = |at: usize| {
        seen[at].as_ref().map(|(entity, hidden)| {
            if *hidden == 0 {
                Row::of(shapes, entity)
            } else {
                scratch[at].row()
            }
        })
    };
    let mut older = [None; OLDER];
    for (at, older) in (1..).zip(&mut older) {
        *older = row(at);
    }
    Some(Past {
        base: row(0)?,
        older,
    })
}

/// Codes an id beyond `last`.
pub(super) fn next_id<C: Coder>(
    coder: &mut C,
    last: Option<NetId>,
    id: NetId,
) -> Result<NetId, DecodeError> {
    let first = match last {
        None => 0,
        Some(last) => last.bits().checked_add(1).ok_or(BEYOND)?,
    };
    let gap = number(coder, id.bits().wrapping_sub(first));
    first.checked_add(gap).map(NetId::from_bits).ok_or(BEYOND)
}

const BEYOND: DecodeError = DecodeError::Invalid("an id lies beyond all ids");

/// Bits that [`next_id`] takes.
pub(super) fn next_id_bits(last: Option<NetId>, id: NetId) -> usize {
    let first = last.map_or(0, |last| last.bits().saturating_add(1));
    let gap = id.bits().saturating_sub(first);
    2 * gap.saturating_add(1).ilog2() as usize + 1
}

/// Codes the id of a part body's next item, and that there is one.
pub(super) fn part_id<C: Coder>(
    coder: &mut C,
    last: Option<NetId>,
    id: NetId,
) -> Result<Option<NetId>, DecodeError> {
    if last.is_some() && coder.flag(flags::NO_MORE, false) {
        return Ok(None);
    }
    if let Some(last) = last
        && coder.flag(flags::BACK, id <= last)
    {
        let back = number(coder, last.bits().wrapping_sub(id.bits()));
        let id = last.bits().checked_sub(back).ok_or(BEYOND)?;
        return Ok(Some(NetId::from_bits(id)));
    }
    next_id(coder, last, id).map(Some)
}

/// Codes how many references an item has and how old they are; `None` if it is gone. Returns the
/// count; the ages are in the memory.
pub(super) fn part_references<C: Coder>(
    coder: &mut C,
    memory: &mut Memory,
    count: Option<usize>,
    ages: &[u32],
) -> Result<Option<usize>, DecodeError> {
    let mut own = [0; PART_REFERENCES_MAX];
    if !C::READS {
        own[..ages.len()].copy_from_slice(ages);
    }
    // As the item before, most of the time.
    let like = memory.like;
    if !coder.flag(flags::UNLIKE, like != (count, own)) {
        return Ok(like.0);
    }
    let code = match count {
        None => 0,
        Some(count) => u32::try_from(count).unwrap_or(0) + 1,
    };
    let code = coder.raw(code, 2);
    let mut before = 0;
    let mut read = [0; PART_REFERENCES_MAX];
    let count = usize::try_from(code).unwrap_or(0).checked_sub(1);
    for (read, own) in read.iter_mut().zip(own).take(count.unwrap_or(0)) {
        let age = number(coder, u64::from(own.wrapping_sub(before).wrapping_sub(1)));
        before = u32::try_from(age)
            .ok()
            .and_then(|age| age.checked_add(before)?.checked_add(1))
            .filter(|&age| age <= AGE_MAX)
            .ok_or(DecodeError::Invalid("a reference is too old"))?;
        *read = before;
    }
    memory.like = (count, read);
    Ok(count)
}
