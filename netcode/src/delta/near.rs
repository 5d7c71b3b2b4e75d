//! Entities near to each other are often wrong in the same way: pushed, pulled or stopped together.

use super::coder::{Coder, Lesson};
use super::tables::DISTANCES;

/// Entities that are remembered; further ones push out the oldest.
const REMEMBERED: usize = 128;
/// Entities that are looked at together.
const LOT: usize = 8;
/// Parts of a position that are looked at.
const PARTS: usize = 3;
/// A place that is near to none; squares of distances to it are floats still.
const NOWHERE: f32 = 1e18;
/// Further than all.
const FAR: f32 = f32::MAX;
/// The bits of a float that say which one it is about.
const NUMBER: u32 = 127;
const _: () = assert!(
    NUMBER as usize + 1 == REMEMBERED,
    "the bits tell them apart"
);
/// Stands for no neighbour.
const NONE: usize = DISTANCES - 1;

/// The positions that a body coded lately, and how wrong their guesses were.
#[derive(Clone, Debug)]
pub(super) struct Near {
    places: [[f32; REMEMBERED]; PARTS],
    residuals: [[i32; PARTS]; REMEMBERED],
    count: usize,
    /// What the newest one pushed out.
    before: ([f32; PARTS], [i32; PARTS]),
}

impl Default for Near {
    fn default() -> Self {
        Self {
            places: [[0.0; REMEMBERED]; PARTS],
            residuals: [[0; PARTS]; REMEMBERED],
            count: 0,
            before: ([0.0; PARTS], [0; PARTS]),
        }
    }
}

/// The residuals of the two nearest entities.
#[derive(Clone, Copy, Debug)]
pub(super) struct Neighbours {
    residuals: [[i32; PARTS]; 2],
    classes: [usize; 2],
    weights: [i64; 2],
    /// Mean size of their residuals; `None` if there are none.
    pub(super) mean: Option<u32>,
}

impl Near {
    /// A body begins.
    pub(super) fn clear(&mut self) {
        self.count = 0;
    }

    /// How many were remembered in all.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Forgets the newest ones but `count`: at most one, which was remembered just now.
    pub(super) fn forget(&mut self, count: usize) {
        if self.count > count {
            self.count = count;
            let (place, residuals) = self.before;
            self.set(count % REMEMBERED, place, residuals);
        }
    }

    /// The nearest two of a place, nearer than the square root of `limit`.
    #[inline]
    pub(super) fn find<C: Coder>(&self, coder: &C, place: [f32; PARTS], limit: f32) -> Neighbours {
        let count = self.count.min(REMEMBERED);
        let [xs, ys, zs] = &self.places;
        let (xs, ys, zs) = (xs.as_chunks().0, ys.as_chunks().0, zs.as_chunks().0);
        let [x0, y0, z0] = place;
        // Of each column of lots the nearest two, as floats that end with where they are. No
        // branch depends on a distance: nobody could predict it.
        let mut first = [FAR; LOT];
        let mut second = [FAR; LOT];
        let mut numbers: [u32; LOT] = [0, 1, 2, 3, 4, 5, 6, 7];
        let lots: usize = count.div_ceil(LOT);
        let lots = xs[..lots].iter().zip(&ys[..lots]).zip(&zs[..lots]);
        for ((xs, ys), zs) in lots {
            let (xs, ys, zs): (&[f32; LOT], &[f32; LOT], &[f32; LOT]) = (xs, ys, zs);
            for at in 0..LOT {
                let (x, y, z) = (xs[at] - x0, ys[at] - y0, zs[at] - z0);
                let square = x * x + y * y + z * z + 1.0;
                let key = f32::from_bits(square.to_bits() & !NUMBER | numbers[at]);
                let further = greater(first[at], key);
                first[at] = lesser(first[at], key);
                second[at] = lesser(second[at], further);
                numbers[at] += 8;
            }
        }
        // The nearest two of all: each half takes over the other, three times.
        let mut half = LOT / 2;
        while half > 0 {
            for at in 0..half {
                let further = greater(first[at], first[at + half]);
                first[at] = lesser(first[at], first[at + half]);
                second[at] = lesser(lesser(second[at], second[at + half]), further);
            }
            half /= 2;
        }
        let mut found = Neighbours {
            residuals: [[0; PARTS]; 2],
            classes: [NONE; 2],
            weights: [0; 2],
            mean: None,
        };
        let mut sum = 0_u32;
        let mut parts = 0;
        let per_limit = NONE as f32;
        for (at, key) in [first[0], second[0]].into_iter().enumerate() {
            let square = key - 1.0;
            let is_near = square < limit;
            let residuals = self.residuals[(key.to_bits() & NUMBER) as usize];
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "saturates, and is 0 to 8 where it counts"
            )]
            let class = (square / limit * per_limit) as i32 as usize;
            found.classes[at] = if is_near { class.min(NONE - 1) } else { NONE };
            for (found, part) in found.residuals[at].iter_mut().zip(residuals) {
                *found = if is_near { part } else { 0 };
                sum = sum.saturating_add(found.unsigned_abs());
            }
            parts += u32::from(is_near) * 3;
        }
        found.mean = sum.checked_div(parts);
        let [one, two] = coder
            .tables()
            .neighbours(found.classes[0], found.classes[1]);
        found.weights = [one.into(), two.into()];
        found
    }

    /// Remembers an entity and how wrong the guess along its course was.
    #[inline]
    pub(super) fn push(&mut self, place: [f32; PARTS], residuals: [i32; PARTS]) {
        let at = self.count % REMEMBERED;
        self.count += 1;
        if at.is_multiple_of(LOT) && self.count <= REMEMBERED {
            // A lot begins that a body before left something in.
            for places in &mut self.places {
                places[at..at + LOT].fill(NOWHERE);
            }
        }
        let [xs, ys, zs] = &self.places;
        self.before = ([xs[at], ys[at], zs[at]], self.residuals[at]);
        self.set(at, place, residuals);
    }

    #[inline]
    fn set(&mut self, at: usize, place: [f32; PARTS], residuals: [i32; PARTS]) {
        for (places, part) in self.places.iter_mut().zip(place) {
            places[at] = part;
        }
        self.residuals[at] = residuals;
    }
}

impl Neighbours {
    /// What they add to the guess of part `part`, whose residual along its course is `actual`.
    #[inline]
    pub(super) fn step<C: Coder>(&self, coder: &mut C, part: usize, actual: i64) -> i64 {
        // Those that are not near count nothing.
        let theirs = [self.residuals[0][part], self.residuals[1][part]];
        if C::LEARNS && self.mean.is_some() {
            coder.learn(&Lesson::Neighbours {
                classes: self.classes,
                theirs: theirs.map(|part| part as f32),
                actual: actual as f32,
            });
        }
        let sum = i64::from(theirs[0]) * self.weights[0] + i64::from(theirs[1]) * self.weights[1];
        (sum + 2048) >> 12
    }
}

#[inline]
fn greater(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

#[inline]
fn lesser(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}
