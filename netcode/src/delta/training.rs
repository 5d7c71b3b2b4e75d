//! Learning the fixed numbers of the codec from scenes; not for games.
//!
//! Rounds over the same scenes refine the weights of guesses (least squares, in which large misses
//! count less), and then the chances of what remains.

use crate::state::Shapes;

use super::coder::{Coder, Lesson};
use super::encoder::Encoder;
use super::tables::{
    BENDS, COURSES, Course, DISTANCES, FAMILIES, FLAGS, Numbers, RESIDUALS, SCALES, SURPRISES,
    SYMBOLS, Tables, shares,
};
use super::view::{Reference, View};

/// Misses of this size count half.
const HALF: f64 = 2.0;

/// Sums of weighted least squares with two unknowns.
#[derive(Clone, Copy, Debug, Default)]
struct Squares {
    aa: f64,
    ab: f64,
    bb: f64,
    ay: f64,
    by: f64,
}

impl Squares {
    fn add(&mut self, a: f64, b: f64, y: f64, guess: f64) {
        let weight = 1.0 / ((y - guess).abs() + HALF);
        self.aa += weight * a * a;
        self.ab += weight * a * b;
        self.bb += weight * b * b;
        self.ay += weight * a * y;
        self.by += weight * b * y;
    }

    /// The best two factors, drawn towards `prior` where little is known.
    fn solve(&self, prior: [f64; 2], belief: f64) -> [f64; 2] {
        let aa = self.aa + belief;
        let bb = self.bb + belief;
        let ay = self.ay + belief * prior[0];
        let by = self.by + belief * prior[1];
        let det = aa * bb - self.ab * self.ab;
        [
            (ay * bb - by * self.ab) / det,
            (by * aa - ay * self.ab) / det,
        ]
    }
}

/// What was learned so far.
#[derive(Debug)]
pub struct Lessons {
    numbers: Numbers,
    tables: Tables,
    symbols: Vec<[f64; SYMBOLS]>,
    flags: Vec<[f64; 2]>,
    courses: Vec<Squares>,
    alone: Vec<Squares>,
    neighbours: Vec<Squares>,
    bits: f64,
    /// How much the scene at hand counts.
    weight: f64,
}

impl Default for Lessons {
    fn default() -> Self {
        let numbers = Numbers::guessed();
        let tables = Tables::new(&numbers).expect("guessed shares are positive");
        Self {
            numbers,
            tables,
            symbols: vec![[0.0; SYMBOLS]; RESIDUALS],
            flags: vec![[0.0; 2]; FLAGS],
            courses: vec![Squares::default(); COURSES * BENDS],
            alone: vec![Squares::default(); COURSES * BENDS],
            neighbours: vec![Squares::default(); DISTANCES * DISTANCES],
            bits: 0.0,
            weight: 1.0,
        }
    }
}

impl Lessons {
    /// Takes a snapshot and its references, which `encoder` knows the layout of, as one of a scene
    /// that counts `weight` times.
    pub fn take(
        &mut self,
        encoder: &mut Encoder,
        weight: f64,
        shapes: &Shapes,
        now: View<'_>,
        references: &[Reference<'_>],
    ) {
        self.weight = weight;
        encoder.teach(self, shapes, now, references);
    }

    /// Ends a round: all scenes were taken once.
    ///
    /// # Panics
    /// Never: shares are made to sum up.
    pub fn end_round(&mut self) {
        let fixed = |value: f64| {
            #[expect(clippy::cast_possible_truncation, reason = "clamped")]
            {
                (value * 4096.0).round().clamp(-32_000.0, 32_000.0) as i16
            }
        };
        for (course, (both, one)) in self
            .numbers
            .courses
            .iter_mut()
            .zip(self.courses.iter().zip(&self.alone))
        {
            let [velocity, bend] = both.solve([1.0, 0.3], 300.0);
            let [alone, _] = one.solve([0.9, 0.0], 300.0);
            *course = Course {
                velocity: fixed(velocity),
                bend: fixed(bend),
                alone: fixed(alone),
            };
        }
        for (shares, squares) in self.numbers.neighbours.iter_mut().zip(&self.neighbours) {
            *shares = squares.solve([0.0, 0.0], 300.0).map(fixed);
        }
        for (chance, [zeros, ones]) in self.numbers.flags.iter_mut().zip(&self.flags) {
            // As if it had been seen a few times as it was guessed.
            let before = f64::from(*chance) / 65536.0;
            let ones = (ones + 8.0 * before) / (zeros + ones + 8.0);
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "clamped"
            )]
            {
                *chance = (ones * 65536.0).round().clamp(16.0, 65_500.0) as u16;
            }
        }
        self.numbers.residuals = self.residuals();
        let numbers = self.numbers.clone();
        *self = Self {
            tables: Tables::new(&numbers).expect("shares are positive and sum to the total"),
            numbers,
            ..Self::default()
        };
    }

    /// Bits of all scenes since the round began, by what was known before it.
    #[must_use]
    pub fn bits(&self) -> f64 {
        self.bits
    }

    /// The bytes of `tables.bin`.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.numbers.encode(&mut bytes);
        bytes
    }

    /// Shares of symbols; those of rare contexts lean on the contexts around them.
    fn residuals(&self) -> Vec<[u16; SYMBOLS]> {
        let guessed = Numbers::guessed().residuals;
        let mut all = Vec::with_capacity(RESIDUALS);
        for family in 0..FAMILIES {
            for scale in 0..SCALES {
                let first = (family * SCALES + scale) * SURPRISES;
                let mut around = guessed[first].map(f64::from);
                normalize(&mut around, 30.0);
                for counts in &self.symbols[first..first + SURPRISES] {
                    add(&mut around, counts);
                }
                for surprise in 0..SURPRISES {
                    let mut weights = around;
                    normalize(&mut weights, 24.0);
                    // The classes next to it, a little.
                    for next in [surprise.wrapping_sub(1), surprise + 1] {
                        if next < SURPRISES && next > 0 && surprise > 0 {
                            let mut counts = self.symbols[first + next];
                            let sum: f64 = counts.iter().sum();
                            normalize(&mut counts, sum.min(40.0));
                            add(&mut weights, &counts);
                        }
                    }
                    add(&mut weights, &self.symbols[first + surprise]);
                    all.push(shares(&weights));
                }
            }
        }
        all
    }
}

fn normalize(weights: &mut [f64; SYMBOLS], total: f64) {
    let sum: f64 = weights.iter().sum();
    if sum > 0.0 {
        weights.iter_mut().for_each(|weight| *weight *= total / sum);
    }
}

fn add(weights: &mut [f64; SYMBOLS], counts: &[f64; SYMBOLS]) {
    for (weight, count) in weights.iter_mut().zip(counts) {
        *weight += count;
    }
}

impl Coder for &mut Lessons {
    const READS: bool = false;
    const LEARNS: bool = true;

    fn tables(&self) -> &Tables {
        &self.tables
    }

    fn flag(&mut self, context: usize, bit: bool) -> bool {
        let ones = f64::from(self.numbers.flags[context]) / 65536.0;
        self.bits -= self.weight * if bit { ones } else { 1.0 - ones }.log2();
        self.flags[context][usize::from(bit)] += self.weight;
        bit
    }

    fn symbol(&mut self, table: usize, symbol: usize) -> usize {
        let share = f64::from(self.numbers.residuals[table][symbol]) / 32768.0;
        self.bits -= self.weight * share.log2();
        self.symbols[table][symbol] += self.weight;
        symbol
    }

    fn raw(&mut self, value: u32, bits: u32) -> u32 {
        self.bits += self.weight * f64::from(bits);
        value
    }

    fn learn(&mut self, lesson: &Lesson) {
        match *lesson {
            Lesson::Course {
                family,
                bend,
                velocity,
                change,
                actual,
            } => {
                let at = family * BENDS + bend;
                let course = self.numbers.courses[at];
                let part = |weight: i16| f64::from(weight) / 4096.0;
                let (velocity, actual) = (f64::from(velocity), f64::from(actual));
                if let Some(change) = change {
                    let change = f64::from(change);
                    let guess = velocity * part(course.velocity) + change * part(course.bend);
                    self.courses[at].add(velocity, change, actual, guess);
                } else {
                    let guess = velocity * part(course.alone);
                    self.alone[at].add(velocity, 0.0, actual, guess);
                }
            }
            Lesson::Neighbours {
                classes,
                theirs,
                actual,
            } => {
                let at = classes[0] * DISTANCES + classes[1];
                let shares = self.numbers.neighbours[at].map(|part| f64::from(part) / 4096.0);
                let theirs = theirs.map(f64::from);
                let guess = theirs[0] * shares[0] + theirs[1] * shares[1];
                self.neighbours[at].add(theirs[0], theirs[1], f64::from(actual), guess);
            }
        }
    }
}
