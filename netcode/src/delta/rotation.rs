//! Rotations that go on turning, in floats that are the same everywhere.
//!
//! Rotations are unit quaternions; turning at a constant rate is a great circle of the sphere that
//! they form, and going on along it is a weighted sum of two of them.

use super::coder::{Coder, Lesson};
use super::model::{Horizon, half_octaves, scale};
use super::plan::LanePlan;
use super::tables::{BENDS, ROTATION};

/// A unit quaternion (x, y, z, w).
type Quaternion = [f32; 4];

/// Where a rotation is guessed to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    at: Quaternion,
    /// Class of how much it turns and bends.
    pub(super) scale: usize,
    /// The part with the greatest magnitude, and the second.
    pub(super) largest: [usize; 2],
    /// Context of whether the first one is: how far ahead of the second it is, and the bend.
    pub(super) context: usize,
}

/// The quaternion of a rotation's lanes.
#[inline]
fn quaternion(lanes: &[i32], bits: u32) -> Quaternion {
    let steps = (1_i32 << bits) - 1;
    let scale = core::f32::consts::FRAC_1_SQRT_2 / steps as f32;
    let largest = largest_of(lanes[0]);
    let mut parts = [0.0; 4];
    let mut rest = 1.0;
    for (index, &lane) in others(largest).into_iter().zip(&lanes[1..]) {
        let part = (2 * lane - steps) as f32 * scale;
        parts[index] = part;
        rest -= part * part;
    }
    parts[largest] = if rest > 0.0 { rest.sqrt() } else { 0.0 };
    parts
}

#[inline]
pub(super) fn largest_of(lane: i32) -> usize {
    (lane.cast_unsigned() & 3) as usize
}

/// The parts that are not the largest.
#[inline]
fn others(largest: usize) -> [usize; 3] {
    [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]][largest]
}

#[inline]
fn dot(a: &Quaternion, b: &Quaternion) -> f32 {
    a[0] * b[0] + a[1] * b[1] + (a[2] * b[2] + a[3] * b[3])
}

/// sin(r h) / sin(h) where cos(h) is 1 - x: four terms of its series.
#[inline]
fn sine_ratio(r: f32, x: f32) -> f32 {
    let square = r * r;
    let second = (1.0 - square) * (1.0 / 3.0) * x;
    let third = second * (4.0 - square) * 0.1 * x;
    let fourth = third * (9.0 - square) * (1.0 / 21.0) * x;
    r * (1.0 + second + third + fourth)
}

/// Where the great circle from `from` through `base` leads, `ratio` times as far again; `None` where
/// it turns too fast to tell.
#[inline]
fn along(base: &Quaternion, from: &Quaternion, ratio: f32) -> Option<Quaternion> {
    let cosine = dot(base, from);
    let (sign, x) = if cosine < 0.0 {
        (-1.0, 1.0 + cosine)
    } else {
        (1.0, 1.0 - cosine)
    };
    let x = if x > 0.0 { x } else { 0.0 };
    let reach = 1.0 + ratio;
    if reach * reach * x > 4.0 {
        return None;
    }
    let a = sine_ratio(reach, x);
    let b = sine_ratio(ratio, x) * sign;
    Some([0, 1, 2, 3].map(|at| a * base[at] - b * from[at]))
}

#[inline]
fn distance(a: &Quaternion, b: &Quaternion) -> f32 {
    let apart = [0, 1, 2, 3].map(|at| a[at] - b[at]);
    dot(&apart, &apart).sqrt()
}

/// Where a rotation is guessed to be, from its lanes in the base and in older references, those of
/// the base where there are none. `actual` are the lanes that it has, for lessons.
#[inline]
pub(super) fn turn<C: Coder>(
    coder: &mut C,
    base: &[i32],
    older: [&[i32]; 2],
    horizon: &Horizon,
    bits: u32,
    actual: &[i32],
) -> Turn {
    let start = quaternion(base, bits);
    let steps = ((1_i32 << bits) - 1) as f32 * core::f32::consts::FRAC_1_SQRT_2;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "saturates"
    )]
    let lanes = |distance: f32| (distance * steps) as u32;
    let extend = |at: usize| along(&start, &quaternion(older[at], bits), horizon.ratio[at]);
    let mut at = start;
    let mut class = super::model::NO_PAST;
    let mut bent = 0;
    if horizon.mask == 3
        && let (Some(near), Some(far)) = (extend(0), extend(1))
    {
        bent = lanes(distance(&near, &far));
        let bend = half_octaves(bent).min(BENDS - 1);
        let weights = coder.tables().course(ROTATION, bend);
        let velocity = f32::from(weights.velocity) * (1.0 / 4096.0);
        let change = f32::from(weights.bend) * (1.0 / 4096.0) * horizon.bend_ratio;
        for part in 0..4 {
            at[part] = start[part]
                + velocity * (near[part] - start[part])
                + change * (near[part] - far[part]);
        }
        class = scale(bent, lanes(distance(&start, &far)));
        if C::LEARNS {
            let actual = towards(&start, quaternion(actual, bits));
            for part in 0..4 {
                coder.learn(&Lesson::Course {
                    family: ROTATION,
                    bend,
                    velocity: (near[part] - start[part]) * steps,
                    change: Some((near[part] - far[part]) * steps * horizon.bend_ratio),
                    actual: (actual[part] - start[part]) * steps,
                });
            }
        }
    } else if horizon.mask != 0
        && let Some(near) = extend(usize::from(horizon.mask == 2))
    {
        let moved = lanes(distance(&near, &start));
        let bend = half_octaves(moved).min(BENDS - 1);
        let weights = coder.tables().course(ROTATION, bend);
        let velocity = f32::from(weights.alone) * (1.0 / 4096.0);
        for part in 0..4 {
            at[part] = start[part] + velocity * (near[part] - start[part]);
        }
        bent = moved / 4;
        class = scale(bent, moved);
        if C::LEARNS {
            let actual = towards(&start, quaternion(actual, bits));
            for part in 0..4 {
                coder.learn(&Lesson::Course {
                    family: ROTATION,
                    bend,
                    velocity: (near[part] - start[part]) * steps,
                    change: None,
                    actual: (actual[part] - start[part]) * steps,
                });
            }
        }
    }
    let square = dot(&at, &at);
    if square > 0.25 && square < 4.0 {
        let norm = 1.0 / square.sqrt();
        at = at.map(|part| part * norm);
    } else {
        at = start;
    }
    finish(at, class, bent)
}

#[inline]
fn towards(base: &Quaternion, other: Quaternion) -> Quaternion {
    if dot(base, &other) < 0.0 {
        other.map(|part| -part)
    } else {
        other
    }
}

#[inline]
fn finish(at: Quaternion, scale: usize, bent: u32) -> Turn {
    let sizes = at.map(f32::abs);
    let (mut first, mut second) = if sizes[1] > sizes[0] { (1, 0) } else { (0, 1) };
    for part in 2..4 {
        if sizes[part] > sizes[first] {
            second = first;
            first = part;
        } else if sizes[part] > sizes[second] {
            second = part;
        }
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "0 to 128"
    )]
    let margin = ((sizes[first] - sizes[second]) * 128.0) as u32;
    let margin = (u32::BITS - margin.leading_zeros()).min(7) as usize;
    let bend = (half_octaves(bent) / 3).min(3);
    Turn {
        at,
        scale,
        largest: [first, second],
        context: margin * 4 + bend,
    }
}

impl Turn {
    /// The lanes of the three parts beside `largest`.
    #[inline]
    pub(super) fn lanes(&self, largest: usize, plan: &LanePlan) -> [i32; 3] {
        let steps = plan.max as f32;
        let scale = if self.at[largest] < 0.0 {
            -core::f32::consts::FRAC_1_SQRT_2
        } else {
            core::f32::consts::FRAC_1_SQRT_2
        } * steps;
        let middle = steps * 0.5 + 0.5;
        #[expect(clippy::cast_possible_truncation, reason = "saturates, and is clamped")]
        others(largest)
            .map(|part| ((self.at[part] * scale + middle) as i32).clamp(plan.min, plan.max))
    }
}
