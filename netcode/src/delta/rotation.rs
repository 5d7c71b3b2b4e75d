//! Rotations that go on turning, in floats that are the same everywhere.
//!
//! Rotations are unit quaternions; turning at a constant rate is a great circle of the sphere that
//! they form, and going on along it is a weighted sum of two of them. Sums do not care which part is
//! which, so all is done in the order of the base's lanes: three parts, and the one left out. The
//! lanes of most references have the same order.

use super::coder::{Coder, Lesson};
use super::model::{Horizon, NO_PAST};
use super::plan::{LanePlan, RotationPlan};
use super::tables::{BENDS, ROTATION, SCALES};

/// A unit quaternion in the order of the base's lanes.
type Quaternion = [f32; 4];

/// The part that is left out, in that order.
const LEFT_OUT: usize = 3;

/// Which of x, y, z and w the lanes hold, by the one that is left out, which comes last.
const ORDERS: [[usize; 4]; 4] = [[1, 2, 3, 0], [0, 2, 3, 1], [0, 1, 3, 2], [0, 1, 2, 3]];

/// Where a rotation is guessed to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    at: Quaternion,
    /// What makes it a unit quaternion.
    norm: f32,
    /// Class of how much it turns and bends.
    pub(super) scale: usize,
    /// Which part the base leaves out.
    base: usize,
    /// Which part is likely left out, in the order of the base.
    first: usize,
    /// Context of whether it is: how far ahead of the second it is, and the bend.
    pub(super) context: usize,
}

/// sin(r h) / sin(h) where cos(h) is 1 - x: four terms of its series, as a polynomial in x.
#[derive(Clone, Copy, Debug, Default)]
struct SineRatio([f32; 4]);

impl SineRatio {
    fn new(r: f32) -> Self {
        let square = r * r;
        let second = r * (1.0 - square) * (1.0 / 3.0);
        let third = second * (4.0 - square) * 0.1;
        let fourth = third * (9.0 - square) * (1.0 / 21.0);
        Self([r, second, third, fourth])
    }

    #[inline]
    fn at(&self, x: f32) -> f32 {
        let [first, second, third, fourth] = self.0;
        first + x * (second + x * (third + x * fourth))
    }
}

/// How far a great circle through an older reference and the base is followed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Circle {
    base: SineRatio,
    from: SineRatio,
    /// Beyond this it turns too fast to tell.
    x_max: f32,
}

impl Circle {
    /// `ratio` times as far again.
    pub(super) fn new(ratio: f32) -> Self {
        let reach = 1.0 + ratio;
        Self {
            base: SineRatio::new(reach),
            from: SineRatio::new(ratio),
            x_max: 4.0 / (reach * reach),
        }
    }

    /// Where it leads; `None` where nobody can tell.
    #[inline]
    fn follow(&self, base: &Quaternion, from: &Quaternion) -> Option<Quaternion> {
        let cosine = dot(base, from);
        let x = 1.0 - cosine.abs();
        let x = if x > 0.0 { x } else { 0.0 };
        if x > self.x_max {
            return None;
        }
        let a = self.base.at(x);
        let b = self.from.at(x);
        let b = if cosine < 0.0 { -b } else { b };
        Some([0, 1, 2, 3].map(|at| a * base[at] - b * from[at]))
    }
}

#[inline]
pub(super) fn largest_of(lane: i32) -> usize {
    (lane.cast_unsigned() & 3) as usize
}

/// The quaternion of a rotation's lanes, in their order.
#[inline]
fn in_own_order(lanes: [i32; 4], plan: &RotationPlan) -> Quaternion {
    let part = |lane: i32| lane.wrapping_mul(2).wrapping_sub(plan.steps) as f32 * plan.part;
    let (a, b, c) = (part(lanes[1]), part(lanes[2]), part(lanes[3]));
    let rest = 1.0 - a * a - b * b - c * c;
    let rest = if rest > 0.0 { rest } else { 0.0 };
    [a, b, c, rest.sqrt()]
}

/// The quaternion of a rotation's lanes, in the order of one that leaves out part `base`.
#[inline]
fn in_order_of(base: usize, lanes: [i32; 4], plan: &RotationPlan) -> Quaternion {
    let own = in_own_order(lanes, plan);
    let largest = largest_of(lanes[0]);
    if largest == base {
        return own;
    }
    let mut parts = [0.0; 4];
    for (own, part) in own.into_iter().zip(ORDERS[largest]) {
        parts[part] = own;
    }
    ORDERS[base].map(|part| parts[part])
}

#[inline]
fn dot(a: &Quaternion, b: &Quaternion) -> f32 {
    (a[0] * b[0] + a[1] * b[1]) + (a[2] * b[2] + a[3] * b[3])
}

/// The square of a distance.
#[inline]
fn square(a: &Quaternion, b: &Quaternion) -> f32 {
    let apart = [0, 1, 2, 3].map(|at| a[at] - b[at]);
    dot(&apart, &apart)
}

/// The class of a distance, given its square: 2 from 1 on, and two per octave.
#[inline]
fn class(square: f32) -> usize {
    let exponent = square.to_bits() >> 23;
    exponent.saturating_sub(125) as usize
}

/// The lanes of a rotation.
#[inline]
fn four(lanes: &[i32]) -> [i32; 4] {
    lanes.first_chunk().copied().unwrap_or_default()
}

/// Where a rotation is guessed to be, from its lanes in the base and in older references, those of
/// the base where there are none. `actual` are the lanes that it has, for lessons.
#[inline]
pub(super) fn turn<C: Coder>(
    coder: &mut C,
    base: &[i32],
    older: [&[i32]; 2],
    horizon: &Horizon,
    plan: &RotationPlan,
    actual: &[i32],
) -> Turn {
    let base = four(base);
    let start = in_own_order(base, plan);
    let base = largest_of(base[0]);
    let extend = |at: usize| {
        let from = in_order_of(base, four(older[at]), plan);
        horizon.circle[at].follow(&start, &from)
    };
    // In steps of lanes.
    let steps = |square: f32| square * plan.unit * plan.unit;
    let mut at = start;
    let mut scale = NO_PAST;
    let mut bent = 0;
    if horizon.mask == 3
        && let (Some(near), Some(far)) = (extend(0), extend(1))
    {
        let bend = steps(square(&near, &far));
        bent = class(bend).min(BENDS - 1);
        let weights = coder.tables().course(ROTATION, bent);
        let velocity = f32::from(weights.velocity) * (1.0 / 4096.0);
        let change = f32::from(weights.bend) * (1.0 / 4096.0) * horizon.bend_ratio;
        for part in 0..4 {
            at[part] = start[part]
                + velocity * (near[part] - start[part])
                + change * (near[part] - far[part]);
        }
        let moved = steps(square(&start, &far));
        scale = class(bend + moved * (1.0 / 64.0)).min(SCALES - 2);
        if C::LEARNS {
            let actual = towards(&start, in_order_of(base, four(actual), plan));
            for part in 0..4 {
                coder.learn(&Lesson::Course {
                    family: ROTATION,
                    bend: bent,
                    velocity: (near[part] - start[part]) * plan.unit,
                    change: Some((near[part] - far[part]) * plan.unit * horizon.bend_ratio),
                    actual: (actual[part] - start[part]) * plan.unit,
                });
            }
        }
    } else if horizon.mask != 0
        && let Some(near) = extend(usize::from(horizon.mask == 2))
    {
        let moved = steps(square(&near, &start));
        bent = class(moved).min(BENDS - 1);
        let weights = coder.tables().course(ROTATION, bent);
        let velocity = f32::from(weights.alone) * (1.0 / 4096.0);
        for part in 0..4 {
            at[part] = start[part] + velocity * (near[part] - start[part]);
        }
        scale = class(moved * (1.0 / 16.0 + 1.0 / 64.0)).min(SCALES - 2);
        if C::LEARNS {
            let actual = towards(&start, in_order_of(base, four(actual), plan));
            for part in 0..4 {
                coder.learn(&Lesson::Course {
                    family: ROTATION,
                    bend: bent,
                    velocity: (near[part] - start[part]) * plan.unit,
                    change: None,
                    actual: (actual[part] - start[part]) * plan.unit,
                });
            }
        }
    }
    let length = dot(&at, &at);
    let norm = if length > 0.25 && length < 4.0 {
        1.0 / length.sqrt()
    } else {
        at = start;
        1.0
    };
    finish(at, norm, base, scale, bent)
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
fn finish(at: Quaternion, norm: f32, base: usize, scale: usize, bent: usize) -> Turn {
    let greater = |a: f32, b: f32| if a > b { a } else { b };
    let lesser = |a: f32, b: f32| if a > b { b } else { a };
    let sizes = at.map(f32::abs);
    let (a, b) = (greater(sizes[0], sizes[1]), lesser(sizes[0], sizes[1]));
    let (c, d) = (greater(sizes[2], sizes[3]), lesser(sizes[2], sizes[3]));
    let greatest = greater(a, c);
    let second = greater(lesser(a, c), greater(b, d));
    let first = if sizes[LEFT_OUT] == greatest {
        LEFT_OUT
    } else {
        greatest_of(&sizes)
    };
    let margin = (greatest - second) * norm * 128.0;
    let margin = (margin.to_bits() >> 23).saturating_sub(126).min(7) as usize;
    Turn {
        at,
        norm,
        scale,
        base,
        first,
        context: margin * 4 + (bent / 4).min(3),
    }
}

/// The first of the greatest.
fn greatest_of(sizes: &Quaternion) -> usize {
    let mut first = 0;
    for part in 1..4 {
        if sizes[part] > sizes[first] {
            first = part;
        }
    }
    first
}

impl Turn {
    /// The part that is likely left out.
    #[inline]
    pub(super) fn first(&self) -> usize {
        ORDERS[self.base][self.first]
    }

    /// The one that is left out if that is not, most likely.
    pub(super) fn second(&self) -> usize {
        let mut sizes = self.at.map(f32::abs);
        sizes[self.first] = -1.0;
        ORDERS[self.base][greatest_of(&sizes)]
    }

    /// The lanes of the three parts beside `largest`.
    #[inline]
    pub(super) fn lanes(&self, largest: usize, plan: &RotationPlan, bounds: &LanePlan) -> [i32; 3] {
        let left_out = place(self.base, largest);
        let (at, left_out) = if left_out == LEFT_OUT {
            ([self.at[0], self.at[1], self.at[2]], self.at[LEFT_OUT])
        } else {
            let [a, b, c, _] = ORDERS[largest];
            let parts = [a, b, c].map(|part| self.at[place(self.base, part)]);
            (parts, self.at[left_out])
        };
        let unit = plan.unit * self.norm;
        let unit = if left_out < 0.0 { -unit } else { unit };
        #[expect(clippy::cast_possible_truncation, reason = "saturates, and is clamped")]
        at.map(|part| ((part * unit + plan.middle) as i32).clamp(bounds.min, bounds.max))
    }
}

/// Where a part stands in the order of the base.
#[inline]
fn place(base: usize, part: usize) -> usize {
    if part == base {
        LEFT_OUT
    } else {
        part - usize::from(part > base)
    }
}
