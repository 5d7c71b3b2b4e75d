//! Walks along the references of a body, the same at both ends.

use crate::id::NetId;
use crate::state::{EntityRef, Shapes, WireLayout};
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
const LATELY: u8 = 0;
const BEFORE: u8 = 1;
const QUIET: u8 = 2;
const UNKNOWN: u8 = 3;

/// Entities of the base that one flag may pass over when they are all quiet and stay so.
pub(super) const BLOCK: usize = 16;

/// A place in the base, and where the older references likely have the same entity.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    base: Option<View<'a>>,
    older: [Option<View<'a>>; OLDER],
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

    /// The base's next entity and what the older references have of it.
    #[inline]
    pub(super) fn seen(&mut self) -> Option<[Option<Seen<'a>>; REFERENCES_MAX]> {
        let id = self.id()?;
        let base = self.base?.entity(self.place);
        Some([Some(base), self.seek(0, id), self.seek(1, id)])
    }
}

/// How long ago each entity of the base from `from` on changed, as far as the references tell.
pub(super) fn age_classes(
    layout: &WireLayout,
    shapes: &Shapes,
    references: &[Reference<'_>],
    from: NetId,
    scratch: &mut [Projection; REFERENCES_MAX],
    classes: &mut Vec<u8>,
) {
    classes.clear();
    let mut cursor = Cursor::new(references, from);
    let Some((base, first)) = cursor.base() else {
        return;
    };
    let older = references.len().min(REFERENCES_MAX) - 1;
    let Some(oldest) = older.checked_sub(1) else {
        classes.resize(base.len() - first, UNKNOWN);
        return;
    };
    while cursor.place < base.len() {
        let count = BLOCK.min(base.len() - cursor.place);
        let differences = |at: usize| {
            let hint = cursor.place.wrapping_add_signed(cursor.shifts[at]);
            base.differences(cursor.place, &cursor.older[at]?, hint, count)
        };
        if let Some(before) = differences(oldest) {
            if before == 0 {
                classes.resize(classes.len() + count, QUIET);
                cursor.skip(count);
                continue;
            }
            let lately = if oldest == 0 {
                Some(before)
            } else {
                differences(0)
            };
            if let Some(lately) = lately {
                classes.extend((0..count).map(|bit| {
                    let is = |mask: u32| mask >> bit & 1 == 1;
                    match (is(before), is(lately)) {
                        (false, _) => QUIET,
                        (true, true) => LATELY,
                        (true, false) => BEFORE,
                    }
                }));
                cursor.skip(count);
                continue;
            }
        }
        for _ in 0..count {
            let (entity, hidden) = base.entity(cursor.place);
            let is_quiet = hidden == 0
                && cursor
                    .seek(oldest, entity.id)
                    .is_some_and(|(old, hidden)| hidden == 0 && old.same_value(&entity));
            let class = if is_quiet {
                QUIET
            } else {
                let past = cursor
                    .seen()
                    .and_then(|seen| past(layout, shapes, &seen, scratch));
                past.map_or(UNKNOWN, |past| age_class(&past, older))
            };
            classes.push(class);
            cursor.skip(1);
        }
    }
}

/// Whether a block of quiet entities begins at entity number `place`, counted from the first of the
/// body: it has a flag of its own.
#[inline]
pub(super) fn is_block(classes: &[u8], place: usize) -> bool {
    place.is_multiple_of(BLOCK)
        && classes
            .get(place..place + BLOCK)
            .is_some_and(|block| block.iter().all(|&class| class == QUIET))
}

/// Whether the entity changed lately.
#[inline]
fn age_class(past: &Past<'_>, older: usize) -> u8 {
    let differs = |row: &Option<Row<'_>>| row.is_none_or(|row| !row.same(&past.base));
    if differs(&past.older[older - 1]) {
        if older == 1 || differs(&past.older[0]) {
            LATELY
        } else {
            BEFORE
        }
    } else {
        QUIET
    }
}

/// The context of whether entity number `place` of the base changed.
#[inline]
pub(super) fn changed_context(classes: &[u8], place: usize, did_previous: bool) -> usize {
    let class = usize::from(classes[place]);
    let next = classes.get(place + 1).is_some_and(|&next| next < QUIET);
    flags::CHANGED + class * 4 + usize::from(did_previous) * 2 + usize::from(next)
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
