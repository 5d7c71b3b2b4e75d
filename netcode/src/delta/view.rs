//! What a client has, or shall have, of a snapshot.

use crate::id::NetId;
use crate::state::{EntityRef, QuantizedSnapshot, ShapeId};

/// One entity of a [`View`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// The entity's number in the snapshot.
    pub index: u32,
    /// Kinds that the client does not get: bit `n` is the `n`-th kind of the entity's shape.
    pub hidden: u64,
}

/// The part of a snapshot that one client gets.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    snapshot: &'a QuantizedSnapshot,
    entries: Option<&'a [Entry]>,
}

impl<'a> View<'a> {
    /// All of a snapshot.
    #[must_use]
    pub const fn all(snapshot: &'a QuantizedSnapshot) -> Self {
        Self {
            snapshot,
            entries: None,
        }
    }

    /// These entries of a snapshot, by index ascending.
    #[must_use]
    pub const fn of(snapshot: &'a QuantizedSnapshot, entries: &'a [Entry]) -> Self {
        Self {
            snapshot,
            entries: Some(entries),
        }
    }

    /// Number of entities.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries
            .map_or_else(|| self.snapshot.len(), <[Entry]>::len)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The id of entity number `place` of the view.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    #[inline]
    pub fn id(&self, place: usize) -> NetId {
        let index = match self.entries {
            None => place,
            Some(entries) => entries[place].index as usize,
        };
        NetId::from_bits(self.snapshot.ids()[index])
    }

    /// Entity number `place` of the view, and its hidden kinds.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    #[inline]
    pub fn entity(&self, place: usize) -> (EntityRef<'a>, u64) {
        match self.entries {
            None => (self.snapshot.entity(place), 0),
            Some(entries) => {
                let entry = entries[place];
                (self.snapshot.entity(entry.index as usize), entry.hidden)
            }
        }
    }

    /// Makes room in `out` for all of it.
    pub(super) fn reserve(&self, out: &mut QuantizedSnapshot) {
        if self.entries.is_none() {
            out.reserve_like(self.snapshot);
        }
    }

    /// The kinds and lanes of entity number `place` of the view, if that is all there is to know of
    /// it: nothing is hidden, and it has no opaque bytes.
    #[inline]
    pub(super) fn lanes(&self, place: usize) -> Option<(ShapeId, &'a [i32])> {
        let index = match self.entries {
            None => place,
            Some(entries) => {
                let entry = entries.get(place).filter(|entry| entry.hidden == 0)?;
                entry.index as usize
            }
        };
        self.snapshot.only_lanes(index)
    }

    /// Whether the entities of `other` from `other_place` on begin with those of this view from
    /// `place` on. False where that cannot be told quickly.
    pub(super) fn begins(&self, place: usize, other: &Self, other_place: usize) -> bool {
        let count = self.len().saturating_sub(place);
        let (Some((own, at)), Some((theirs, other_at))) = (
            self.run(place, count),
            other.run(other_place, count.min(other.len() - other_place)),
        ) else {
            return count == 0;
        };
        let own = &own.ids()[at..at + count];
        let theirs = theirs.ids().get(other_at..other_at + count);
        theirs.is_some_and(|theirs| own == theirs)
    }

    /// The snapshot and the entity's number in it of `count` places from `place` on, if they lie
    /// there one after the other and nothing of them is hidden.
    #[inline]
    pub(super) fn run(&self, place: usize, count: usize) -> Option<(&'a QuantizedSnapshot, usize)> {
        let Some(entries) = self.entries else {
            return (place + count <= self.snapshot.len()).then_some((self.snapshot, place));
        };
        let entries = entries.get(place..place + count)?;
        let first = entries.first()?.index;
        let is_run = (first..)
            .zip(entries)
            .all(|(index, entry)| entry.index == index && entry.hidden == 0);
        is_run.then_some((self.snapshot, first as usize))
    }

    /// Which of `count` entities from `place` on differ from those of `other` from `other_place` on;
    /// `None` where that cannot be told quickly. Both are of one table of shapes.
    #[inline]
    pub(super) fn differences(
        &self,
        place: usize,
        other: &Self,
        other_place: usize,
        count: usize,
    ) -> Option<u32> {
        let (own, at) = self.run(place, count)?;
        let (theirs, other_at) = other.run(other_place, count)?;
        own.differences(at, theirs, other_at, count)
    }

    /// The snapshot, if this is all of it.
    pub(super) fn snapshot(&self) -> Option<&'a QuantizedSnapshot> {
        self.entries.is_none().then_some(self.snapshot)
    }

    /// The snapshot, if this and `other` are all of theirs, and these are aligned.
    pub(super) fn aligned_with(&self, other: &Self) -> Option<&'a QuantizedSnapshot> {
        let own = self.snapshot()?;
        own.is_aligned(other.snapshot()?).then_some(own)
    }

    /// The place of `id`, which is likely `hint`; `None` if it is not there.
    #[inline]
    pub(super) fn seek(&self, id: NetId, hint: usize) -> Option<usize> {
        if hint < self.len() && self.id(hint) == id {
            return Some(hint);
        }
        let place = self.place_of(id);
        (place < self.len() && self.id(place) == id).then_some(place)
    }

    /// The first place whose id is not below `id`.
    #[must_use]
    pub fn place_of(&self, id: NetId) -> usize {
        let ids = self.snapshot.ids();
        match self.entries {
            None => ids.partition_point(|&own| own < id.bits()),
            Some(entries) => entries.partition_point(|entry| ids[entry.index as usize] < id.bits()),
        }
    }
}

/// A complete snapshot that the receiver holds.
#[derive(Clone, Copy, Debug)]
pub struct Reference<'a> {
    /// How many snapshots it is older than the one that is coded, from 1 to
    /// [`AGE_MAX`](super::AGE_MAX).
    pub age: u32,
    /// What the receiver has of it.
    pub view: View<'a>,
}

/// Distances from the base to the second reference, best first: how fast things move now.
const NEAR_GAPS: [u32; 3] = [1, 2, 3];
/// Distances from the base to the third reference, best first: how that changes.
const FAR_GAPS: [u32; 7] = [4, 5, 3, 6, 7, 8, 2];

/// The ages of the references that predict best: the newest snapshot that is held, from age `newest`
/// on, one just before it, and one some more before. `is_held` says whether the receiver is known to
/// hold all of the snapshot of an age. Returns as many as there are.
pub fn choose_ages(newest: u32, is_held: impl Fn(u32) -> bool) -> ([u32; 3], usize) {
    let mut ages = [0; 3];
    let Some(base) = (newest.max(1)..=super::AGE_MAX).find(|&age| is_held(age)) else {
        return (ages, 0);
    };
    ages[0] = base;
    let mut count = 1;
    let held = |gap: u32| base + gap <= super::AGE_MAX && is_held(base + gap);
    let near = NEAR_GAPS.into_iter().find(|&gap| held(gap));
    let far = FAR_GAPS
        .into_iter()
        .find(|&gap| near.is_none_or(|near| near < gap) && held(gap));
    for gap in [near, far].into_iter().flatten() {
        ages[count] = base + gap;
        count += 1;
    }
    (ages, count)
}
