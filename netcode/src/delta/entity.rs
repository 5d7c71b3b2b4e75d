//! One entity's shape and values, given what both ends have of it.

use crate::limits::KINDS_MAX;
use crate::state::{EntityRef, Shape, Shapes, lanes_differ};
use crate::wire::bytes::DecodeError;

use super::PART_REFERENCES_MAX;
use super::coder::{Coder, number};
use super::group::{KindPast, Mood};
use super::model::{self, Ages, Horizon, OLDER, flags};
use super::near::Near;
use super::plan::{KindPlan, Plans};
use super::project::Projection;
use super::tally::STRUCTURE;
use super::walk::Lanes;

/// Values of one entity with its shape.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row<'a> {
    pub(super) kinds: &'a [u16],
    pub(super) starts: &'a [u32],
    pub(super) lanes: &'a [i32],
    pub(super) opaque: &'a [u8],
}

impl<'a> Row<'a> {
    #[inline]
    pub(super) fn of(shapes: &'a Shapes, entity: &EntityRef<'a>) -> Self {
        let shape = shapes.get(entity.shape);
        Self {
            kinds: &shape.kinds,
            starts: &shape.starts,
            lanes: entity.lanes,
            opaque: entity.opaque,
        }
    }

    #[inline]
    pub(super) fn same(&self, other: &Self) -> bool {
        let same_opaque = self.opaque.len() == other.opaque.len()
            && (self.opaque.is_empty() || self.opaque == other.opaque);
        same_lanes(self.lanes, other.lanes) && same_kinds(self.kinds, other.kinds) && same_opaque
    }

    /// The lanes of a kind, which is likely number `place`.
    #[inline]
    fn kind(&self, place: usize, kind: u16) -> Option<&'a [i32]> {
        let place = if self.kinds.get(place) == Some(&kind) {
            place
        } else {
            self.kinds.binary_search(&kind).ok()?
        };
        self.lanes
            .get(self.starts[place] as usize..self.starts[place + 1] as usize)
    }
}

impl Projection {
    pub(super) fn row(&self) -> Row<'_> {
        Row {
            kinds: &self.kinds,
            starts: &self.starts,
            lanes: &self.lanes,
            opaque: &self.opaque,
        }
    }

    pub(super) fn copy_row(&mut self, row: &Row<'_>) {
        self.kinds.clear();
        self.kinds.extend_from_slice(row.kinds);
        self.starts.clear();
        self.starts.extend_from_slice(row.starts);
        self.lanes.clear();
        self.lanes.extend_from_slice(row.lanes);
        self.opaque.clear();
        self.opaque.extend_from_slice(row.opaque);
    }
}

/// Whether lanes are the same.
#[inline]
pub(super) fn same_lanes(one: &[i32], other: &[i32]) -> bool {
    one.len() == other.len() && !lanes_differ(one, other)
}

/// Whether kinds are the same, which most of the time are even the same list.
#[inline]
fn same_kinds(one: &[u16], other: &[u16]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    core::ptr::eq(one, other) || one.iter().zip(other).all(|(one, other)| one == other)
}

/// What a body remembers from entity to entity.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    /// The new entity before, if there was one.
    newest: Projection,
    has_newest: bool,
    /// Whether the entity that is coded is a new one.
    is_new: bool,
    /// Which kinds the entity has: for reading shapes.
    kinds: Vec<u16>,
    /// Bytes of the body: opaque bytes cannot be more.
    opaque_max: usize,
    /// Entities whose positions were coded lately.
    near: Near,
    /// References of a part body's item before: how many (`None` is gone) and how old.
    pub(super) like: Like,
}

/// How many references an item has (`None` is gone), and how old they are.
pub(super) type Like = (Option<usize>, [u32; PART_REFERENCES_MAX]);

impl Memory {
    /// A body begins.
    pub(super) fn clear(&mut self, opaque_max: usize) {
        self.has_newest = false;
        self.near.clear();
        self.opaque_max = opaque_max;
        self.like = (Some(0), [0; PART_REFERENCES_MAX]);
    }

    /// What [`Memory::restore`] takes back to.
    pub(super) fn mark(&self) -> (Like, usize) {
        (self.like, self.near.len())
    }

    /// Forgets an item that was not committed.
    pub(super) fn restore(&mut self, (like, near): (Like, usize)) {
        self.like = like;
        self.near.forget(near);
        self.is_new = false;
    }

    /// The entity stands: if it is a new one, the next one may be like it.
    pub(super) fn commit(&mut self, now: &Projection) {
        if core::mem::take(&mut self.is_new) {
            self.newest.copy_row(&now.row());
            self.has_newest = true;
        }
    }
}

/// What both ends have of an entity: values in the base and in older references.
#[derive(Clone, Copy, Debug)]
pub(super) struct Past<'a> {
    pub(super) base: Row<'a>,
    pub(super) older: [Option<Row<'a>>; OLDER],
}

/// Codes the values of an entity that the base has: from `now`, or into it.
pub(super) fn known<C: Coder>(
    coder: &mut C,
    plans: &Plans,
    memory: &mut Memory,
    ages: &Ages,
    past: &Past<'_>,
    now: &mut Projection,
) -> Result<(), DecodeError> {
    let differs = !C::READS && !same_kinds(&now.kinds, past.base.kinds);
    let differs = coder.flag(flags::SHAPE, differs);
    known_after(coder, plans, memory, ages, past, differs, now)
}

/// The same once it is known whether its shape differs.
pub(super) fn known_after<C: Coder>(
    coder: &mut C,
    plans: &Plans,
    memory: &mut Memory,
    ages: &Ages,
    past: &Past<'_>,
    differs: bool,
    now: &mut Projection,
) -> Result<(), DecodeError> {
    let base = &past.base;
    if differs {
        shape(coder, plans, base.kinds, memory, now)?;
    } else if C::READS {
        take_shape(plans, base.kinds, now);
    }
    memory.is_new = false;
    let mut mood = Mood::default();
    for place in 0..now.kinds.len() {
        let kind = now.kinds[place];
        let plan = plans.kind(kind);
        let lanes = now.starts[place] as usize..now.starts[place + 1] as usize;
        let lanes = &mut now.lanes[lanes];
        let Some(base) = base.kind(place, kind) else {
            appear(coder, plan, kind, None, lanes)?;
            continue;
        };
        let mut older = [base; OLDER];
        let mut mask = 0;
        for (bit, (slice, row)) in older.iter_mut().zip(&past.older).enumerate() {
            if let Some(there) = row.as_ref().and_then(|row| row.kind(place, kind)) {
                *slice = there;
                mask |= 1 << bit;
            }
        }
        let past = KindPast {
            base,
            older,
            horizon: ages.horizon(mask),
        };
        for group in &plan.groups {
            past.group(coder, plan, group, &mut mood, &mut memory.near, lanes)?;
            coder.note(kind, group.field);
        }
    }
    opaque(coder, plans, memory, Some(base.opaque), now)
}

/// Codes the lanes of an entity that has the same kinds as before, none of them with opaque bytes:
/// from `now`, or into it.
#[inline]
pub(super) fn lanes<C: Coder>(
    coder: &mut C,
    plans: &Plans,
    memory: &mut Memory,
    shape: &Shape,
    horizon: &Horizon,
    past: &Lanes<'_>,
    now: &mut [i32],
) -> Result<(), DecodeError> {
    memory.is_new = false;
    let mut mood = Mood::default();
    let mut starts = shape.starts.iter().map(|&start| start as usize);
    let mut start = starts.next().unwrap_or(0);
    for (&kind, end) in shape.kinds.iter().zip(starts) {
        let lanes = start..end;
        start = end;
        let plan = plans.kind(kind);
        let past = KindPast {
            base: &past.base[lanes.clone()],
            older: past.older.map(|older| &older[lanes.clone()]),
            horizon,
        };
        let now = &mut now[lanes];
        for group in &plan.groups {
            past.group(coder, plan, group, &mut mood, &mut memory.near, now)?;
            coder.note(kind, group.field);
        }
    }
    Ok(())
}

/// Codes an entity that nothing is known of; [`Memory::commit`] makes it the model of the next.
pub(super) fn unknown<C: Coder>(
    coder: &mut C,
    plans: &Plans,
    memory: &mut Memory,
    now: &mut Projection,
) -> Result<(), DecodeError> {
    memory.is_new = true;
    let newest = core::mem::take(&mut memory.newest);
    let done = unknown_after(coder, plans, memory, &newest, now);
    memory.newest = newest;
    done
}

fn unknown_after<C: Coder>(
    coder: &mut C,
    plans: &Plans,
    memory: &mut Memory,
    newest: &Projection,
    now: &mut Projection,
) -> Result<(), DecodeError> {
    let like = memory.has_newest.then(|| newest.row());
    let kinds = like.map_or(&[][..], |like| like.kinds);
    if coder.flag(flags::SHAPE, !C::READS && !same_kinds(&now.kinds, kinds)) {
        shape(coder, plans, kinds, memory, now)?;
    } else if C::READS {
        take_shape(plans, kinds, now);
    }
    for place in 0..now.kinds.len() {
        let kind = now.kinds[place];
        let lanes = now.starts[place] as usize..now.starts[place + 1] as usize;
        let like = like.and_then(|like| like.kind(place, kind));
        appear(coder, plans.kind(kind), kind, like, &mut now.lanes[lanes])?;
    }
    opaque(coder, plans, memory, like.map(|like| like.opaque), now)
}

/// Codes which kinds `now` has, given another list; the decoder's `now` gets room for them.
fn shape<C: Coder>(
    coder: &mut C,
    plans: &Plans,
    like: &[u16],
    memory: &mut Memory,
    now: &mut Projection,
) -> Result<(), DecodeError> {
    memory.kinds.clear();
    // Those that stay.
    for kind in like {
        let stays = !C::READS && now.kinds.binary_search(kind).is_ok();
        if coder.raw(u32::from(stays), 1) == 1 {
            memory.kinds.push(*kind);
        }
    }
    // Those that are new, by number.
    let mut next = 0_usize;
    let mut own = 0;
    loop {
        while !C::READS && own < now.kinds.len() && like.binary_search(&now.kinds[own]).is_ok() {
            own += 1;
        }
        let another = !C::READS && own < now.kinds.len();
        if coder.raw(u32::from(another), 1) == 0 {
            break;
        }
        let gap = if another {
            usize::from(now.kinds[own]).saturating_sub(next) as u64
        } else {
            0
        };
        let gap = number(coder, gap);
        let kind = usize::try_from(gap)
            .ok()
            .and_then(|gap| gap.checked_add(next))
            .filter(|&kind| kind < plans.end() && kind < KINDS_MAX)
            .and_then(|kind| u16::try_from(kind).ok())
            .filter(|&kind| plans.has(kind) && like.binary_search(&kind).is_err())
            .ok_or(DecodeError::Invalid("an entity has a kind that is none"))?;
        memory.kinds.push(kind);
        next = usize::from(kind) + 1;
        own += 1;
    }
    coder.note(STRUCTURE.0, STRUCTURE.1);
    if C::READS {
        memory.kinds.sort_unstable();
        let kinds = core::mem::take(&mut memory.kinds);
        take_shape(plans, &kinds, now);
        memory.kinds = kinds;
    }
    Ok(())
}

/// Gives `now` the lanes of these kinds, all 0.
fn take_shape(plans: &Plans, kinds: &[u16], now: &mut Projection) {
    now.kinds.clear();
    now.kinds.extend_from_slice(kinds);
    now.starts.clear();
    now.starts.push(0);
    let mut end = 0;
    for &kind in kinds {
        end += plans.kind(kind).lanes.len();
        now.starts
            .push(u32::try_from(end).expect("KINDS_MAX rows of at most 256 lanes"));
    }
    now.lanes.clear();
    now.lanes.resize(end, 0);
    now.opaque.clear();
}

/// Codes lanes without references; `like` are those of another entity.
fn appear<C: Coder>(
    coder: &mut C,
    plan: &KindPlan,
    kind: u16,
    like: Option<&[i32]>,
    now: &mut [i32],
) -> Result<(), DecodeError> {
    for group in &plan.groups {
        let range = group.lane..group.lane + group.len;
        if let Some(like) = like {
            let same = !C::READS && now[range.clone()] == like[range.clone()];
            if coder.flag(flags::SAME + group.class, same) {
                now[range.clone()].copy_from_slice(&like[range]);
                coder.note(kind, group.field);
                continue;
            }
        }
        for lane in range {
            now[lane] = model::plain(coder, now[lane], &plan.lanes[lane])?;
        }
        coder.note(kind, group.field);
    }
    Ok(())
}

/// Codes the bytes of opaque fields.
fn opaque<C: Coder>(
    coder: &mut C,
    plans: &Plans,
    memory: &Memory,
    like: Option<&[u8]>,
    now: &mut Projection,
) -> Result<(), DecodeError> {
    if !now.kinds.iter().any(|&kind| plans.kind(kind).has_opaque) {
        return Ok(());
    }
    if let Some(like) = like {
        let same = !C::READS && now.opaque == like;
        if !coder.flag(flags::OPAQUE, !same) {
            if C::READS {
                now.opaque.extend_from_slice(like);
                return is_whole(plans, now);
            }
            return Ok(());
        }
    }
    let count = number(coder, now.opaque.len() as u64);
    if C::READS {
        // Each byte takes eight bits of the body.
        let count = usize::try_from(count)
            .ok()
            .filter(|&count| count <= memory.opaque_max)
            .ok_or(DecodeError::Truncated)?;
        now.opaque.resize(count, 0);
    }
    for byte in &mut now.opaque {
        #[expect(clippy::cast_possible_truncation, reason = "eight bits")]
        {
            *byte = coder.raw(u32::from(*byte), 8) as u8;
        }
    }
    // A bit that is set ends them, so that the body's trailing zeros never count as theirs.
    coder.raw(1, 1);
    coder.note(STRUCTURE.0, STRUCTURE.1);
    if C::READS {
        is_whole(plans, now)
    } else {
        Ok(())
    }
}

/// Whether opaque bytes are values of the kinds that have some.
fn is_whole(plans: &Plans, now: &Projection) -> Result<(), DecodeError> {
    let mut rest = &now.opaque[..];
    for &kind in &now.kinds {
        if plans.kind(kind).has_opaque {
            let kind = plans.layout.kind(kind).ok_or(DecodeError::Truncated)?;
            let len = kind.opaque_len(rest)?;
            rest = rest.get(len..).ok_or(DecodeError::Truncated)?;
        }
    }
    if rest.is_empty() {
        Ok(())
    } else {
        Err(DecodeError::Trailing(rest.len()))
    }
}
