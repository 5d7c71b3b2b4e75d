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

/// A place in each reference.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    views: [Option<(View<'a>, usize)>; REFERENCES_MAX],
    /// Older references.
    older: usize,
}

impl<'a> Cursor<'a> {
    /// At the first entities whose ids are not below `from`.
    pub(super) fn new(references: &[Reference<'a>], from: NetId) -> Self {
        let mut views = [None; REFERENCES_MAX];
        for (view, reference) in views.iter_mut().zip(references) {
            *view = Some((reference.view, reference.view.place_of(from)));
        }
        Self {
            views,
            older: references.len().min(REFERENCES_MAX).saturating_sub(1),
        }
    }

    /// The id of the base's next entity.
    #[inline]
    pub(super) fn id(&self) -> Option<NetId> {
        let (view, place) = self.views[0]?;
        (place < view.len()).then(|| view.id(place))
    }

    /// The base's next entity and what the older references have of it; goes on behind it.
    #[inline]
    pub(super) fn take(&mut self) -> Option<[Option<Seen<'a>>; REFERENCES_MAX]> {
        let id = self.id()?;
        let mut seen = [None; REFERENCES_MAX];
        for (seen, view) in seen.iter_mut().zip(&mut self.views[..=self.older]) {
            if let Some((view, place)) = view {
                while *place < view.len() && view.id(*place) < id {
                    *place += 1;
                }
                if *place < view.len() && view.id(*place) == id {
                    *seen = Some(view.entity(*place));
                    *place += 1;
                }
            }
        }
        Some(seen)
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
    let older = cursor.older;
    while let Some(seen) = cursor.take() {
        let class = match past(layout, shapes, &seen, scratch) {
            Some(past) if older > 0 => age_class(&past, older),
            _ => UNKNOWN,
        };
        classes.push(class);
    }
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
