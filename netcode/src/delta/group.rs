//! One group of lanes of an entity, given what both ends have of it.

use crate::wire::bytes::DecodeError;

use super::coder::Coder;
use super::model::{self, Guess, Horizon, OLDER, flags};
use super::near::Near;
use super::plan::{Form, Group, KindPlan, LanePlan, RotationPlan};
use super::rotation::{self, Turn};
use super::tables::{NUMBER, POSITION, ROTATION, VECTOR};

/// What both ends have of one kind of an entity.
#[derive(Clone, Copy, Debug)]
pub(super) struct KindPast<'a> {
    pub(super) base: &'a [i32],
    /// The base's where there is none.
    pub(super) older: [&'a [i32]; OLDER],
    pub(super) horizon: &'a Horizon,
}

/// What one entity has taught so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mood {
    /// What the groups before did: 0 there was none, 1 all stayed, 2 some changed.
    before: usize,
    /// How wrong the guess of its position was.
    position: Doubt,
    has_position: bool,
}

/// Sizes of residuals, weighted.
#[derive(Clone, Copy, Debug, Default)]
struct Doubt {
    total: u32,
    weight: u32,
}

impl Doubt {
    #[inline]
    fn add(&mut self, size: u32, weight: u32) {
        self.total = self.total.saturating_add(size.saturating_mul(weight));
        // A few times a few.
        self.weight = self.weight.wrapping_add(weight);
    }

    #[inline]
    fn surprise(&self) -> usize {
        match self.total.checked_div(self.weight) {
            None => 0,
            Some(mean) => model::surprise(mean),
        }
    }
}

/// Weights of a neighbour's residuals, and of those of the same value.
const OF_NEIGHBOURS: u32 = 2;
const OF_PARTS: u32 = 4;

impl KindPast<'_> {
    /// Codes a group of the kind's lanes `now`.
    #[inline]
    pub(super) fn group<C: Coder>(
        &self,
        coder: &mut C,
        plan: &KindPlan,
        group: &Group,
        mood: &mut Mood,
        near: &mut Near,
        now: &mut [i32],
    ) -> Result<(), DecodeError> {
        let range = group.lane..group.lane + group.len;
        let past = GroupPast {
            base: &self.base[range.clone()],
            older: self.older.map(|older| &older[range.clone()]),
            horizon: self.horizon,
        };
        let bounds = &plan.lanes[range.clone()];
        let now = &mut now[range];
        // Lengths that are known need no loops, and no looks at bounds.
        match group.len {
            1 => past.of_len::<1, C>(coder, group, mood, near, bounds, now),
            2 => past.of_len::<2, C>(coder, group, mood, near, bounds, now),
            3 => past.of_len::<3, C>(coder, group, mood, near, bounds, now),
            4 => past.of_len::<4, C>(coder, group, mood, near, bounds, now),
            _ => past.group(coder, group, mood, near, bounds, now),
        }
    }
}

/// What both ends have of one group of an entity.
#[derive(Clone, Copy, Debug)]
struct GroupPast<'a> {
    base: &'a [i32],
    /// The base's where there is none.
    older: [&'a [i32]; OLDER],
    horizon: &'a Horizon,
}

/// Lanes of a group, of which there are so many.
#[inline(always)]
fn all<T, const LEN: usize>(lanes: &[T]) -> &[T; LEN] {
    lanes.first_chunk().expect("a group has so many lanes")
}

impl GroupPast<'_> {
    /// Codes a group of a length that the compiler knows.
    #[inline]
    fn of_len<const LEN: usize, C: Coder>(
        &self,
        coder: &mut C,
        group: &Group,
        mood: &mut Mood,
        near: &mut Near,
        bounds: &[LanePlan],
        now: &mut [i32],
    ) -> Result<(), DecodeError> {
        let past = Self {
            base: all::<_, LEN>(self.base),
            older: self.older.map(|older| &all::<_, LEN>(older)[..]),
            horizon: self.horizon,
        };
        let bounds = all::<_, LEN>(bounds);
        let now: &mut [i32; LEN] = now.first_chunk_mut().expect("a group has so many lanes");
        past.group(coder, group, mood, near, bounds, now)
    }

    #[inline(always)]
    fn group<C: Coder>(
        &self,
        coder: &mut C,
        group: &Group,
        mood: &mut Mood,
        near: &mut Near,
        bounds: &[LanePlan],
        now: &mut [i32],
    ) -> Result<(), DecodeError> {
        let context = flags::GROUP + group.class * 12 + self.moved() * 3 + mood.before;
        let differs = !C::READS && differ(now, self.base);
        if !coder.flag(context, differs) {
            if C::READS {
                now.copy_from_slice(self.base);
            }
            mood.before = mood.before.max(1);
            return Ok(());
        }
        mood.before = 2;
        match group.form {
            Form::Symbol => self.symbols(coder, bounds, now),
            Form::Course { course } => {
                if group.is_position && !mood.has_position && course {
                    mood.has_position = true;
                    return self.position(coder, bounds, group, mood, near, now);
                }
                let family = if group.len > 1 { VECTOR } else { NUMBER };
                self.vector(coder, bounds, family, course, now)
            }
            Form::Rotation(ref plan) => self.rotation(coder, bounds, plan, mood, now),
        }
    }

    /// Codes lanes that are equal or different only.
    #[inline(always)]
    fn symbols<C: Coder>(
        &self,
        coder: &mut C,
        bounds: &[LanePlan],
        now: &mut [i32],
    ) -> Result<(), DecodeError> {
        for ((now, bounds), &base) in now.iter_mut().zip(bounds).zip(self.base) {
            // What has two values is the other one.
            if bounds.bits == 1 {
                *now = if base == bounds.min {
                    bounds.max
                } else {
                    bounds.min
                };
            } else {
                *now = model::plain(coder, *now, bounds)?;
            }
        }
        Ok(())
    }

    /// Codes a vector or a number; without `course` it stays where it is.
    #[inline(always)]
    fn vector<C: Coder>(
        &self,
        coder: &mut C,
        bounds: &[LanePlan],
        family: usize,
        course: bool,
        now: &mut [i32],
    ) -> Result<(), DecodeError> {
        let mut doubt = Doubt::default();
        for (part, (now, bounds)) in now.iter_mut().zip(bounds).enumerate() {
            let mut guess = self.course(coder, family, part, *now);
            if !course {
                guess.step = 0;
            }
            let table = model::table(family, guess.scale, doubt.surprise());
            let rest = lane(coder, bounds, self.base[part], guess.step, table, now)?;
            doubt.add(rest.unsigned_abs(), OF_PARTS);
        }
        Ok(())
    }

    /// Codes where an entity is.
    #[inline(always)]
    fn position<C: Coder>(
        &self,
        coder: &mut C,
        bounds: &[LanePlan],
        group: &Group,
        mood: &mut Mood,
        near: &mut Near,
        now: &mut [i32],
    ) -> Result<(), DecodeError> {
        let mut place = [0.0; 3];
        for (place, &lane) in place.iter_mut().zip(self.base) {
            *place = lane as f32;
        }
        let neighbours = near.find(coder, place, group.reach_square);
        let mut doubt = Doubt::default();
        if let Some(mean) = neighbours.mean {
            doubt.add(mean, OF_NEIGHBOURS);
        }
        let limit = i64::from(group.residual_max);
        let mut residuals = [0; 3];
        for (part, (now, bounds)) in now.iter_mut().zip(bounds).enumerate() {
            let guess = self.course(coder, POSITION, part, *now);
            let base = self.base[part];
            let off = i64::from(now.wrapping_sub(base)).wrapping_sub(guess.step);
            let more = if part < 3 {
                neighbours.step(coder, part, off)
            } else {
                0
            };
            let table = model::table(POSITION, guess.scale, doubt.surprise());
            let step = guess.step.wrapping_add(more);
            let rest = lane(coder, bounds, base, step, table, now)?;
            doubt.add(rest.unsigned_abs(), OF_PARTS);
            if let Some(residual) = residuals.get_mut(part) {
                let off = i64::from(now.wrapping_sub(base)).wrapping_sub(guess.step);
                #[expect(clippy::cast_possible_truncation, reason = "within limits of an i32")]
                {
                    *residual = off.clamp(-limit, limit) as i32;
                }
            }
        }
        near.push(place, residuals);
        mood.position = doubt;
        Ok(())
    }

    /// Codes a rotation.
    #[inline(always)]
    fn rotation<C: Coder>(
        &self,
        coder: &mut C,
        bounds: &[LanePlan],
        plan: &RotationPlan,
        mood: &Mood,
        now: &mut [i32],
    ) -> Result<(), DecodeError> {
        let turn = rotation::turn(coder, self.base, self.older, self.horizon, plan, now);
        let largest = largest(coder, &turn, rotation::largest_of(now[0]));
        now[0] = i32::try_from(largest).unwrap_or(0);
        let guesses = turn.lanes(largest, plan, &bounds[1]);
        let mut doubt = Doubt::default();
        let mut table = model::table(ROTATION, turn.scale, mood.position.surprise());
        let parts = now[1..].iter_mut().zip(&bounds[1..]);
        for (guess, (now, bounds)) in guesses.into_iter().zip(parts) {
            let rest = model::residual(coder, table, now.wrapping_sub(guess));
            *now = model::bounded(guess.wrapping_add(rest), bounds)?;
            doubt.add(rest.unsigned_abs(), 1);
            table = model::table(ROTATION + 1, turn.scale, doubt.surprise());
        }
        Ok(())
    }

    /// A guess of a lane, whose value is `now`, along its course.
    #[inline(always)]
    fn course<C: Coder>(&self, coder: &mut C, family: usize, part: usize, now: i32) -> Guess {
        let base = self.base[part];
        // How far it went from the older references to the base.
        let distances = self.older.map(|older| base.wrapping_sub(older[part]));
        let actual = i64::from(now.wrapping_sub(base));
        model::course(coder, family, distances, self.horizon, actual)
    }

    /// Whether a group moved lately: 0 in no reference, 1 long ago, 2 lately, 3 nobody knows.
    #[inline(always)]
    fn moved(&self) -> usize {
        if self.horizon.mask == 0 {
            return 3;
        }
        let lately = differ(self.older[0], self.base);
        let before = differ(self.older[1], self.base);
        if lately { 2 } else { usize::from(before) }
    }
}

/// Whether lanes, as many of both, differ.
#[inline(always)]
fn differ(one: &[i32], two: &[i32]) -> bool {
    let pairs = one.iter().zip(two);
    pairs.fold(0, |differ, (one, two)| differ | (one ^ two)) != 0
}

/// Codes which part of a rotation is left out.
#[inline]
fn largest<C: Coder>(coder: &mut C, turn: &Turn, largest: usize) -> usize {
    let first = turn.first();
    if !coder.flag(flags::LARGEST + turn.context, largest != first) {
        return first;
    }
    let second = turn.second();
    if !coder.flag(flags::SECOND, largest != second) {
        return second;
    }
    let mut rest = (0..4).filter(|part| ![first, second].contains(part));
    let low = rest.next().unwrap_or(0);
    let high = rest.next().unwrap_or(0);
    if coder.raw(u32::from(largest == high), 1) == 1 {
        high
    } else {
        low
    }
}

/// Codes a lane as what remains of it after a guess; returns that.
#[inline(always)]
fn lane<C: Coder>(
    coder: &mut C,
    bounds: &LanePlan,
    base: i32,
    step: i64,
    table: usize,
    now: &mut i32,
) -> Result<i32, DecodeError> {
    let guess = i64::from(base)
        .saturating_add(step)
        .clamp(i64::from(bounds.min), i64::from(bounds.max));
    #[expect(clippy::cast_possible_truncation, reason = "within bounds of an i32")]
    let guess = guess as i32;
    let rest = model::residual(coder, table, now.wrapping_sub(guess));
    *now = model::bounded(guess.wrapping_add(rest), bounds)?;
    Ok(rest)
}
