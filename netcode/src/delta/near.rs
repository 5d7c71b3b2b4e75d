//! Entities near to each other are often wrong in the same way: pushed, pulled or stopped together.

use super::coder::{Coder, Lesson};
use super::tables::DISTANCES;

/// Entities that are remembered; further ones push out the oldest.
const REMEMBERED: usize = 128;
/// Entities that are looked at together.
const LOT: usize = 8;
/// Parts of a position that are looked at.
const PARTS: usize = 3;
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

    /// The nearest two within `reach` of a place.
    #[inline]
    pub(super) fn find<C: Coder>(&self, coder: &C, place: [f32; PARTS], reach: f32) -> Neighbours {
        let count = self.count.min(REMEMBERED);
        let limit = reach * reach;
        let [xs, ys, zs] = self
            .places
            .each_ref()
            .map(|places| places.as_chunks::<LOT>().0);
        let mut best = [(limit, REMEMBERED); 2];
        for (lot, ((xs, ys), zs)) in xs.iter().zip(ys).zip(zs).enumerate() {
            let first = lot * LOT;
            if first >= count {
                break;
            }
            // A lot at a time, so that it becomes vector code; most lots have nobody near.
            let mut squares = [0.0_f32; LOT];
            let mut is_near = false;
            for at in 0..LOT {
                let (x, y, z) = (xs[at] - place[0], ys[at] - place[1], zs[at] - place[2]);
                squares[at] = x * x + y * y + z * z;
                is_near |= squares[at] < best[1].0;
            }
            if !is_near {
                continue;
            }
            for (index, square) in (first..count).zip(squares) {
                if square < best[1].0 {
                    if square < best[0].0 {
                        best[1] = best[0];
                        best[0] = (square, index);
                    } else {
                        best[1] = (square, index);
                    }
                }
            }
        }
        let mut found = Neighbours {
            residuals: [[0; PARTS]; 2],
            classes: [NONE; 2],
            weights: [0; 2],
            mean: None,
        };
        let mut sum = 0_u32;
        let mut parts = 0;
        for (at, &(square, index)) in best.iter().enumerate() {
            let Some(residuals) = self.residuals.get(index) else {
                continue;
            };
            found.residuals[at] = *residuals;
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "0 to 8"
            )]
            let class = (square / limit * (NONE as f32)) as usize;
            found.classes[at] = class.min(NONE - 1);
            sum = residuals
                .iter()
                .fold(sum, |sum, part| sum.saturating_add(part.unsigned_abs()));
            parts += 3;
        }
        found.mean = sum.checked_div(parts);
        if found.mean.is_some() {
            found.weights = coder
                .tables()
                .neighbours(found.classes[0], found.classes[1])
                .map(i64::from);
        }
        found
    }

    /// Remembers an entity and how wrong the guess along its course was.
    #[inline]
    pub(super) fn push(&mut self, place: [f32; PARTS], residuals: [i32; PARTS]) {
        let at = self.count % REMEMBERED;
        self.count += 1;
        self.before = (self.places.map(|places| places[at]), self.residuals[at]);
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
        if self.mean.is_none() {
            return 0;
        }
        let theirs = self.residuals.map(|residuals| residuals[part]);
        if C::LEARNS {
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
