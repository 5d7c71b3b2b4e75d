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
}

/// What each of the references has, or gets: the base, the newer and the older one, and the base once
/// more, as four numbers are worked out as fast as three.
type Lot = [f32; 4];

#[inline(always)]
fn each(f: impl Fn(usize) -> f32) -> Lot {
    [f(0), f(1), f(2), f(3)]
}

/// How far the great circles through older references and the base are followed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Circles {
    /// The terms of the sine ratios.
    base: [Lot; 4],
    from: [Lot; 4],
    /// Beyond this it turns too fast to tell.
    x_max: Lot,
}

impl Circles {
    /// The circle through older reference `at` is followed `ratio` times as far again.
    pub(super) fn set(&mut self, at: usize, ratio: f32) {
        let reach = 1.0 + ratio;
        let at = at + 1;
        for (terms, term) in self.base.iter_mut().zip(SineRatio::new(reach).0) {
            terms[at] = term;
        }
        for (terms, term) in self.from.iter_mut().zip(SineRatio::new(ratio).0) {
            terms[at] = term;
        }
        self.x_max[at] = 4.0 / (reach * reach);
    }

    /// Where they lead, part by part; and whether that can be told.
    #[inline(always)]
    fn follow(&self, base: &Quaternion, from: &[Lot; 4]) -> ([Lot; 4], [bool; 4]) {
        let cosine = each(|at| {
            (base[0] * from[0][at] + base[1] * from[1][at])
                + (base[2] * from[2][at] + base[3] * from[3][at])
        });
        let x = each(|at| 1.0 - cosine[at].abs());
        let x = each(|at| if x[at] > 0.0 { x[at] } else { 0.0 });
        let a = ratio(&self.base, &x);
        let b = ratio(&self.from, &x);
        let b = each(|at| if cosine[at] < 0.0 { -b[at] } else { b[at] });
        let part = |part: usize| each(|at| a[at] * base[part] - b[at] * from[part][at]);
        let tells = |at: usize| x[at] <= self.x_max[at];
        (
            [part(0), part(1), part(2), part(3)],
            [tells(0), tells(1), tells(2), tells(3)],
        )
    }
}

#[inline(always)]
fn ratio(terms: &[Lot; 4], x: &Lot) -> Lot {
    let [first, second, third, fourth] = terms;
    each(|at| first[at] + x[at] * (second[at] + x[at] * (third[at] + x[at] * fourth[at])))
}

/// The quaternions of rotations' lanes, part by part, in the order of the first.
#[inline(always)]
fn in_order_of_first(lanes: &[[i32; 4]; 4], plan: &RotationPlan) -> [Lot; 4] {
    let part = |part: usize| {
        each(|at| lanes[at][part].wrapping_mul(2).wrapping_sub(plan.steps) as f32 * plan.part)
    };
    let (a, b, c) = (part(1), part(2), part(3));
    let rest = each(|at| 1.0 - a[at] * a[at] - b[at] * b[at] - c[at] * c[at]);
    let rest = each(|at| if rest[at] > 0.0 { rest[at] } else { 0.0 });
    let d = each(|at| rest[at].sqrt());
    let mut parts = [a, b, c, d];
    let base = largest_of(lanes[0][0]);
    for at in 1..3 {
        let largest = largest_of(lanes[at][0]);
        if largest != base {
            let own = parts.map(|part| part[at]);
            let own = reordered(own, largest, base);
            for (part, own) in parts.iter_mut().zip(own) {
                part[at] = own;
            }
        }
    }
    parts
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
fn in_order_of(base: usize, lanes: [i32; 4], plan: &RotationPlan) -> Quaternion {
    reordered(in_own_order(lanes, plan), largest_of(lanes[0]), base)
}

/// A quaternion that leaves out part `from`, in the order of one that leaves out part `to`.
fn reordered(own: Quaternion, from: usize, to: usize) -> Quaternion {
    let mut parts = [0.0; 4];
    for (own, part) in own.into_iter().zip(ORDERS[from]) {
        parts[part] = own;
    }
    ORDERS[to].map(|part| parts[part])
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
    let rows = [four(base), four(older[0]), four(older[1]), four(base)];
    let parts = in_order_of_first(&rows, plan);
    let start = parts.map(|part| part[0]);
    let base = largest_of(rows[0][0]);
    let (ends, tells) = horizon.circles.follow(&start, &parts);
    // Where the circle through older reference `at` leads.
    let end = |at: usize| tells[at + 1].then(|| ends.map(|part| part[at + 1]));
    // In steps of lanes.
    let steps = |square: f32| square * plan.unit * plan.unit;
    let mut at = start;
    let mut scale = NO_PAST;
    let mut bent = 0;
    if horizon.mask == 3
        && let (Some(near), Some(far)) = (end(0), end(1))
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
        && let Some(near) = end(usize::from(horizon.mask == 2))
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
