//! The state as clients need it: quantized values in lanes, entity by entity.
//!
//! A [`QuantizedSnapshot`] holds, per entity, one run of `i32` lanes over all of its kinds, so that
//! the codec, which looks at one entity in several snapshots at once, touches few cache lines. What
//! a lane means follows from the [`WireLayout`](super::WireLayout) and the entity's [`ShapeId`].

mod hash;
mod quantizer;

pub(crate) use hash::{row_hash, sum_of_rows};
pub use quantizer::{QuantizeReport, Quantizer};

use core::ops::Range;

use crate::id::NetId;
use crate::tick::Tick;

/// Which kinds an entity has: a number in a [`Shapes`](super::Shapes) table. Numbers are local to a node and never
/// travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShapeId(pub u32);

/// One entity of a [`QuantizedSnapshot`], or its resources under [`NetId::NONE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntityHead {
    /// Whose values these are.
    pub id: NetId,
    /// Which kinds it has.
    pub shape: ShapeId,
    /// The newest snapshot tick at which a value or the shape differed from the snapshot before.
    pub changed: Tick,
    /// Where its lanes end in the snapshot's lanes.
    lanes_end: u32,
    /// Where its opaque bytes end.
    opaque_end: u32,
}

/// One entity's values, borrowed from a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntityRef<'a> {
    /// Whose values these are.
    pub id: NetId,
    /// Which kinds it has.
    pub shape: ShapeId,
    /// The newest snapshot tick at which something of it differed from the snapshot before.
    pub changed: Tick,
    /// The lanes of all its kinds, one kind after the other.
    pub lanes: &'a [i32],
    /// The exact bytes of those fields that have no lanes, in the same order.
    pub opaque: &'a [u8],
}

impl EntityRef<'_> {
    /// Whether both have the same kinds with the same values.
    #[must_use]
    #[inline]
    pub fn same_value(&self, other: &EntityRef<'_>) -> bool {
        self.shape == other.shape
            && self.lanes.len() == other.lanes.len()
            && !lanes_differ(self.lanes, other.lanes)
            && self.opaque.len() == other.opaque.len()
            && (self.opaque.is_empty() || self.opaque == other.opaque)
    }
}

/// Quantized state at one snapshot tick: all entities by NetId ascending. Resources come first, as
/// the entity [`NetId::NONE`], if any is visible.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct QuantizedSnapshot {
    /// The tick of the state.
    pub tick: Tick,
    heads: Vec<EntityHead>,
    /// The ids and the shapes of the heads, to compare many at once.
    ids: Vec<u64>,
    shapes: Vec<u32>,
    lanes: Vec<i32>,
    opaque: Vec<u8>,
}

impl Clone for QuantizedSnapshot {
    fn clone(&self) -> Self {
        Self {
            tick: self.tick,
            heads: self.heads.clone(),
            ids: self.ids.clone(),
            shapes: self.shapes.clone(),
            lanes: self.lanes.clone(),
            opaque: self.opaque.clone(),
        }
    }

    /// Reuses the memory of `self`.
    fn clone_from(&mut self, source: &Self) {
        self.tick = source.tick;
        self.heads.clone_from(&source.heads);
        self.ids.clone_from(&source.ids);
        self.shapes.clone_from(&source.shapes);
        self.lanes.clone_from(&source.lanes);
        self.opaque.clone_from(&source.opaque);
    }
}

impl QuantizedSnapshot {
    /// An empty snapshot.
    #[must_use]
    pub fn new(tick: Tick) -> Self {
        Self {
            tick,
            ..Self::default()
        }
    }

    /// Forgets all entities and keeps the memory.
    pub fn clear(&mut self, tick: Tick) {
        self.tick = tick;
        self.heads.clear();
        self.ids.clear();
        self.shapes.clear();
        self.lanes.clear();
        self.opaque.clear();
    }

    /// Number of entities, the resources' row included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.heads.len()
    }

    /// Whether there are no entities.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    /// Bytes that the values take.
    #[must_use]
    pub fn memory(&self) -> usize {
        let heads = size_of_val(&*self.heads) + size_of_val(&*self.ids);
        heads + size_of_val(&*self.shapes) + size_of_val(&*self.lanes) + self.opaque.len()
    }

    /// The heads, by NetId ascending.
    #[must_use]
    pub fn heads(&self) -> &[EntityHead] {
        &self.heads
    }

    /// The ids, ascending.
    pub(crate) fn ids(&self) -> &[u64] {
        &self.ids
    }

    /// Where the lanes of entity number `index` lie.
    fn lanes_of(&self, index: usize) -> Range<usize> {
        let start = index
            .checked_sub(1)
            .map_or(0, |before| self.heads[before].lanes_end);
        start as usize..self.heads[index].lanes_end as usize
    }

    fn opaque_of(&self, index: usize) -> Range<usize> {
        let start = index
            .checked_sub(1)
            .map_or(0, |before| self.heads[before].opaque_end);
        start as usize..self.heads[index].opaque_end as usize
    }

    /// Entity number `index`, counted by NetId.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    #[inline]
    pub fn entity(&self, index: usize) -> EntityRef<'_> {
        let head = self.heads[index];
        EntityRef {
            id: head.id,
            shape: head.shape,
            changed: head.changed,
            lanes: &self.lanes[self.lanes_of(index)],
            opaque: &self.opaque[self.opaque_of(index)],
        }
    }

    /// The shape and the lanes of entity number `index`, if it has no opaque bytes.
    #[inline]
    pub(crate) fn only_lanes(&self, index: usize) -> Option<(ShapeId, &[i32])> {
        let head = self.heads.get(index)?;
        let (lanes, opaque) = match index.checked_sub(1) {
            None => (0, 0),
            Some(before) => (self.heads[before].lanes_end, self.heads[before].opaque_end),
        };
        let lanes = self.lanes.get(lanes as usize..head.lanes_end as usize)?;
        (opaque == head.opaque_end).then_some((head.shape, lanes))
    }

    /// All entities, by NetId ascending.
    pub fn entities(&self) -> impl ExactSizeIterator<Item = EntityRef<'_>> {
        (0..self.len()).map(|index| self.entity(index))
    }

    /// The number of entity `id`.
    #[must_use]
    pub fn index_of(&self, id: NetId) -> Option<usize> {
        self.ids.binary_search(&id.bits()).ok()
    }

    /// The entity `id`.
    #[must_use]
    pub fn find(&self, id: NetId) -> Option<EntityRef<'_>> {
        self.index_of(id).map(|index| self.entity(index))
    }

    /// Adds an entity whose values `write` appends to the lanes and to the opaque bytes. Entities
    /// come by NetId ascending.
    ///
    /// # Panics
    /// If `id` is not beyond the newest one, or the lanes or bytes exceed 2^32.
    pub fn push(
        &mut self,
        id: NetId,
        shape: ShapeId,
        changed: Tick,
        write: impl FnOnce(&mut Vec<i32>, &mut Vec<u8>),
    ) {
        assert!(
            self.heads.last().is_none_or(|last| last.id < id),
            "entities come by NetId ascending"
        );
        write(&mut self.lanes, &mut self.opaque);
        self.ids.push(id.bits());
        self.shapes.push(shape.0);
        self.heads.push(EntityHead {
            id,
            shape,
            changed,
            lanes_end: u32::try_from(self.lanes.len()).expect("a snapshot has fewer lanes"),
            opaque_end: u32::try_from(self.opaque.len()).expect("a snapshot has fewer bytes"),
        });
    }

    /// Whether `other` (of the same table of shapes) has the same entities with the same shapes, and
    /// all of both is lanes: then the lanes of an entity lie at the same places.
    pub(crate) fn is_aligned(&self, other: &Self) -> bool {
        self.opaque.is_empty()
            && other.opaque.is_empty()
            && self.lanes.len() == other.lanes.len()
            && self.ids == other.ids
            && self.shapes == other.shapes
    }

    /// Which of `count` entities, at most 32, from number `at` on differ from those of an aligned
    /// snapshot: bit `n` is the `n`-th. If that is unlikely, all of them are looked at together first.
    ///
    /// # Panics
    /// If there are not so many.
    #[inline]
    pub(crate) fn aligned_differences(
        &self,
        at: usize,
        other: &Self,
        count: usize,
        is_likely: bool,
    ) -> u32 {
        let heads = &self.heads[at..at + count];
        // A group may begin where the last entity ends, and have none.
        let Some(last) = heads.last() else {
            return 0;
        };
        let (start, end) = (self.lanes_of(at).start, last.lanes_end as usize);
        let (mine, others) = (&self.lanes[start..end], &other.lanes[start..end]);
        if !is_likely && mine == others {
            return 0;
        }
        let shapes = &self.shapes[at..at + count];
        let first = shapes.first().copied().unwrap_or_default();
        if shapes
            .iter()
            .fold(0, |differs, shape| differs | (shape ^ first))
            == 0
        {
            equal_rows_that_differ(mine.len() / count.max(1), mine, others)
        } else {
            rows_that_differ(heads, start, mine, others)
        }
    }

    /// The lanes of entity number `index` of an aligned snapshot.
    ///
    /// # Panics
    /// If there is none.
    #[inline]
    pub(crate) fn aligned_lanes<'a>(&self, index: usize, other: &'a Self) -> &'a [i32] {
        &other.lanes[self.lanes_of(index)]
    }

    /// Which of `count` entities, at most 32, from number `at` on differ in value from those of
    /// `other` from `other_at` on: bit `n` is the `n`-th. `None` if these are not the same entities
    /// with the same shapes (of one table).
    #[must_use]
    pub fn differences(
        &self,
        at: usize,
        other: &Self,
        other_at: usize,
        count: usize,
    ) -> Option<u32> {
        let range = at..at.checked_add(count)?;
        let other_range = other_at..other_at.checked_add(count)?;
        let own = self.heads.get(range.clone())?;
        let theirs = other.heads.get(other_range.clone())?;
        let shapes = &self.shapes[range.clone()];
        if self.ids[range] != other.ids[other_range.clone()]
            || *shapes != other.shapes[other_range]
            || !(1..=32).contains(&count)
        {
            return None;
        }
        // Lanes follow from the shapes.
        let start = self.lanes_of(at).start;
        let mine = self.lanes.get(start..own[count - 1].lanes_end as usize)?;
        let others = other.lanes.get(other.lanes_of(other_at).start..)?;
        let others = others.get(..mine.len())?;
        // Most of the time nothing differs, which one look at all of them tells.
        let mut mask = if *mine == *others {
            0
        } else if shapes
            .iter()
            .fold(0, |differs, shape| differs | (shape ^ shapes[0]))
            == 0
        {
            equal_rows_that_differ(mine.len() / count, mine, others)
        } else {
            rows_that_differ(own, start, mine, others)
        };
        let opaque = self.opaque_of(at).start..own[count - 1].opaque_end as usize;
        let others = other.opaque_of(other_at).start..theirs[count - 1].opaque_end as usize;
        if !opaque.is_empty() || !others.is_empty() {
            for bit in 0..count {
                let (one, two) = (self.opaque_of(at + bit), other.opaque_of(other_at + bit));
                mask |= u32::from(self.opaque[one] != other.opaque[two]) << bit;
            }
        }
        Some(mask)
    }

    /// The lanes of entity number `index`, to be changed at `changed`.
    ///
    /// # Panics
    /// If there is none.
    #[inline]
    pub(crate) fn lanes_mut(&mut self, index: usize, changed: Tick) -> &mut [i32] {
        let lanes = self.lanes_of(index);
        self.heads[index].changed = changed;
        &mut self.lanes[lanes]
    }

    /// Room for as many entities, lanes and bytes as `like` has.
    pub(crate) fn reserve_like(&mut self, like: &Self) {
        let more = |own: usize, like: usize| like.saturating_sub(own);
        self.heads.reserve(more(self.heads.len(), like.heads.len()));
        self.ids.reserve(more(self.ids.len(), like.ids.len()));
        self.shapes
            .reserve(more(self.shapes.len(), like.shapes.len()));
        self.lanes.reserve(more(self.lanes.len(), like.lanes.len()));
        self.opaque
            .reserve(more(self.opaque.len(), like.opaque.len()));
    }

    /// Forgets all entities but the first `count`.
    pub(crate) fn truncate(&mut self, count: usize) {
        if let Some(head) = self.heads.get(count) {
            let (lanes, opaque) = match count.checked_sub(1) {
                None => (0, 0),
                Some(last) => (self.heads[last].lanes_end, self.heads[last].opaque_end),
            };
            debug_assert!(lanes <= head.lanes_end && opaque <= head.opaque_end);
            self.heads.truncate(count);
            self.ids.truncate(count);
            self.shapes.truncate(count);
            self.lanes.truncate(lanes as usize);
            self.opaque.truncate(opaque as usize);
        }
    }

    /// Adds copies of `count` entities of `other` from number `at` on.
    ///
    /// # Panics
    /// If `other` has fewer, and as [`QuantizedSnapshot::push`].
    pub fn push_run(&mut self, other: &Self, at: usize, count: usize) {
        if count == 0 {
            return;
        }
        let heads = &other.heads[at..at + count];
        assert!(
            self.heads.last().is_none_or(|last| last.id < heads[0].id),
            "entities come by NetId ascending"
        );
        let lanes = other.lanes_of(at).start..other.lanes_of(at + count - 1).end;
        let opaque = other.opaque_of(at).start..other.opaque_of(at + count - 1).end;
        let end = |len: usize| u32::try_from(len).expect("a snapshot has fewer lanes and bytes");
        // Ends move by where the run begins here and there; the last one is within bounds.
        let lanes_move = end(self.lanes.len()).wrapping_sub(end(lanes.start));
        let opaque_move = end(self.opaque.len()).wrapping_sub(end(opaque.start));
        self.lanes.extend_from_slice(&other.lanes[lanes]);
        self.opaque.extend_from_slice(&other.opaque[opaque]);
        self.ids.extend_from_slice(&other.ids[at..at + count]);
        self.shapes.extend_from_slice(&other.shapes[at..at + count]);
        end(self.lanes.len());
        end(self.opaque.len());
        if lanes_move == 0 && opaque_move == 0 {
            self.heads.extend_from_slice(heads);
            return;
        }
        self.heads.extend(heads.iter().map(|head| EntityHead {
            lanes_end: head.lanes_end.wrapping_add(lanes_move),
            opaque_end: head.opaque_end.wrapping_add(opaque_move),
            ..*head
        }));
    }

    /// Adds a copy of an entity.
    ///
    /// # Panics
    /// As [`QuantizedSnapshot::push`].
    pub fn push_entity(&mut self, entity: EntityRef<'_>) {
        self.push(entity.id, entity.shape, entity.changed, |lanes, opaque| {
            lanes.extend_from_slice(entity.lanes);
            opaque.extend_from_slice(entity.opaque);
        });
    }
}

/// Which rows of `len` lanes differ: bit `n` is the `n`-th.
fn equal_rows_that_differ(len: usize, mine: &[i32], others: &[i32]) -> u32 {
    fn of<const LEN: usize>(mine: &[i32], others: &[i32]) -> u32 {
        let (mine, others) = (mine.as_chunks::<LEN>().0, others.as_chunks::<LEN>().0);
        let mut mask = 0;
        if let (Some(mine), Some(others), 16) = (
            mine.first_chunk::<16>(),
            others.first_chunk::<16>(),
            mine.len(),
        ) {
            // As many as the codec asks for, without a loop.
            for bit in 0..16 {
                mask |= u32::from(mine[bit] != others[bit]) << bit;
            }
            return mask;
        }
        for (bit, (one, two)) in mine.iter().zip(others).enumerate() {
            mask |= u32::from(one != two) << bit;
        }
        mask
    }
    // Lengths that are known are compared without a loop.
    match len {
        1 => of::<1>(mine, others),
        2 => of::<2>(mine, others),
        3 => of::<3>(mine, others),
        4 => of::<4>(mine, others),
        5 => of::<5>(mine, others),
        6 => of::<6>(mine, others),
        7 => of::<7>(mine, others),
        8 => of::<8>(mine, others),
        9 => of::<9>(mine, others),
        10 => of::<10>(mine, others),
        11 => of::<11>(mine, others),
        12 => of::<12>(mine, others),
        13 => of::<13>(mine, others),
        14 => of::<14>(mine, others),
        15 => of::<15>(mine, others),
        16 => of::<16>(mine, others),
        _ => {
            let rows = mine.chunks_exact(len.max(1));
            let others = others.chunks_exact(len.max(1));
            let mut mask = 0;
            for (bit, (one, two)) in rows.zip(others).enumerate() {
                mask |= u32::from(lanes_differ(one, two)) << bit;
            }
            mask
        }
    }
}

/// Which rows of `mine` differ from those of `others`: bit `n` is that of head `n`. The first begins
/// at lane `start` of its snapshot.
fn rows_that_differ(heads: &[EntityHead], start: usize, mine: &[i32], others: &[i32]) -> u32 {
    let (mut mine, mut others, mut start) = (mine, others, start);
    let mut mask = 0;
    for (bit, head) in heads.iter().enumerate() {
        let end = head.lanes_end as usize;
        let (Some((one, rest)), Some((two, others_rest))) = (
            mine.split_at_checked(end.wrapping_sub(start)),
            others.split_at_checked(end.wrapping_sub(start)),
        ) else {
            break;
        };
        (mine, others, start) = (rest, others_rest, end);
        mask |= u32::from(lanes_differ(one, two)) << bit;
    }
    mask
}

/// Whether rows of the same length differ. They are short: looking at them here costs less than a
/// call.
#[inline]
pub(crate) fn lanes_differ(one: &[i32], two: &[i32]) -> bool {
    let (one_fours, one_rest) = one.as_chunks::<4>();
    let (two_fours, two_rest) = two.as_chunks::<4>();
    let mut differ = 0;
    for (one, two) in one_fours.iter().zip(two_fours) {
        differ |= i32::from(one != two);
    }
    for (one, two) in one_rest.iter().zip(two_rest) {
        differ |= one ^ two;
    }
    differ != 0
}
