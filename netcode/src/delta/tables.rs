//! The fixed numbers of the codec: chances of everything that bodies say, and weights of guesses.
//!
//! They were learned from scenes by `benches/src/bin/train_tables.rs`, which writes `tables.bin`.

use std::sync::LazyLock;

use crate::wire::bytes::{DecodeError, Reader};
use crate::wire::range::{Bit, SYMBOL_BITS, Symbols};

use super::model::flags;

/// Symbols of a residual: see [`super::model::residual`].
pub(super) const SYMBOLS: usize = 69;
/// Families of residuals: positions, other vectors, numbers, first parts of rotations, other parts.
pub(super) const FAMILIES: usize = 5;
pub(super) const POSITION: usize = 0;
pub(super) const VECTOR: usize = 1;
pub(super) const NUMBER: usize = 2;
pub(super) const ROTATION: usize = 3;
/// Classes of how much a value moved lately; the last one is for values without a past.
pub(super) const SCALES: usize = 16;
/// Classes of how wrong the guesses nearby were.
pub(super) const SURPRISES: usize = 8;
/// Tables of residuals.
pub(super) const RESIDUALS: usize = FAMILIES * SCALES * SURPRISES;
/// Contexts of flags.
pub(super) const FLAGS: usize = flags::END;
/// Families of values with a course: positions, other vectors, numbers, rotations.
pub(super) const COURSES: usize = 4;
/// Classes of how much a course bends.
pub(super) const BENDS: usize = 16;
/// Classes of the distance to a neighbour, and one for no neighbour.
pub(super) const DISTANCES: usize = 9;

/// How a value's course goes on, in 4096ths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Course {
    /// Share of the newest velocity.
    pub(super) velocity: i16,
    /// Share of the change of velocity.
    pub(super) bend: i16,
    /// Share of the velocity where only one is known.
    pub(super) alone: i16,
}

/// All fixed numbers.
#[derive(Clone, Debug)]
pub(super) struct Tables {
    residuals: Box<[Symbols<SYMBOLS>; RESIDUALS]>,
    flags: Box<[Bit; FLAGS]>,
    courses: Box<[Course; COURSES * BENDS]>,
    /// By the classes of the distances to two neighbours: shares of their residuals.
    neighbours: Box<[[i16; 2]; DISTANCES * DISTANCES]>,
}

/// What `tables.bin` holds, before it is turned into tables.
#[derive(Clone, Debug)]
pub(super) struct Numbers {
    /// Shares of the symbols, table by table.
    pub(super) residuals: Vec<[u16; SYMBOLS]>,
    /// Chances of flags in 65536ths.
    pub(super) flags: Vec<u16>,
    pub(super) courses: Vec<Course>,
    pub(super) neighbours: Vec<[i16; 2]>,
}

impl Tables {
    /// The numbers that this version of the codec knows.
    pub(super) fn shared() -> &'static Self {
        static SHARED: LazyLock<Tables> = LazyLock::new(|| {
            let numbers = Numbers::decode(include_bytes!("tables.bin"))
                .expect("the file of the source tree is whole");
            Tables::new(&numbers).expect("the file of the source tree has positive shares")
        });
        &SHARED
    }

    /// Tables of these numbers; `None` if shares do not sum up or there are too few.
    pub(super) fn new(numbers: &Numbers) -> Option<Self> {
        let residuals: Box<[_]> = numbers
            .residuals
            .iter()
            .map(Symbols::new)
            .collect::<Option<_>>()?;
        let flags: Box<[_]> = numbers.flags.iter().map(|&flag| Bit::new(flag)).collect();
        let courses: Box<[_]> = numbers.courses.clone().into();
        let neighbours: Box<[_]> = numbers.neighbours.clone().into();
        Some(Self {
            residuals: residuals.try_into().ok()?,
            flags: flags.try_into().ok()?,
            courses: courses.try_into().ok()?,
            neighbours: neighbours.try_into().ok()?,
        })
    }

    #[inline]
    pub(super) fn residual(&self, table: usize) -> &Symbols<SYMBOLS> {
        &self.residuals[table]
    }

    #[inline]
    pub(super) fn flag(&self, context: usize) -> Bit {
        self.flags[context]
    }

    #[inline]
    pub(super) fn course(&self, family: usize, bend: usize) -> Course {
        self.courses[family * BENDS + bend]
    }

    #[inline]
    pub(super) fn neighbours(&self, first: usize, second: usize) -> [i16; 2] {
        self.neighbours[first * DISTANCES + second]
    }
}

impl Numbers {
    /// Numbers before anything was learned.
    pub(super) fn guessed() -> Self {
        let residuals = (0..RESIDUALS)
            .map(|table| {
                let scale = f64::from(1 << (table / SURPRISES % SCALES / 2)) + 0.5;
                let mut weights = [0.0; SYMBOLS];
                for (symbol, weight) in weights.iter_mut().enumerate() {
                    let (size, count) = size_of_symbol(symbol);
                    *weight = count / (1.0 + (size / scale) * (size / scale));
                }
                shares(&weights)
            })
            .collect();
        let mut chances = vec![1 << 14; FLAGS];
        for (context, one_in) in [
            (flags::GONE, 200),
            (flags::SHAPE, 500),
            (flags::SPLIT, 10),
            (flags::MIDDLE, 50),
            (flags::SPAWN, 50),
            (flags::STOP, 1000),
            (flags::NO_MORE, 16),
            (flags::BACK, 64),
            (flags::UNLIKE, 8),
        ] {
            chances[context] = u16::MAX / one_in;
        }
        let course = Course {
            velocity: 4096,
            bend: 1024,
            alone: 4096,
        };
        Self {
            residuals,
            flags: chances,
            courses: vec![course; COURSES * BENDS],
            neighbours: vec![[0; 2]; DISTANCES * DISTANCES],
        }
    }

    /// The bytes of `tables.bin`: little-endian, in the order of the fields.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        for shares in &self.residuals {
            shares
                .iter()
                .for_each(|share| out.extend_from_slice(&share.to_le_bytes()));
        }
        for flag in &self.flags {
            out.extend_from_slice(&flag.to_le_bytes());
        }
        for course in &self.courses {
            for part in [course.velocity, course.bend, course.alone] {
                out.extend_from_slice(&part.to_le_bytes());
            }
        }
        for part in self.neighbours.iter().flatten() {
            out.extend_from_slice(&part.to_le_bytes());
        }
    }

    /// Reads what [`Numbers::encode`] wrote.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let mut next = || reader.array::<2>();
        let mut residuals = Vec::with_capacity(RESIDUALS);
        for _ in 0..RESIDUALS {
            let mut shares = [0; SYMBOLS];
            for share in &mut shares {
                *share = u16::from_le_bytes(next()?);
            }
            residuals.push(shares);
        }
        let mut flags = vec![0; FLAGS];
        for flag in &mut flags {
            *flag = u16::from_le_bytes(next()?);
        }
        let mut courses = vec![Course::default(); COURSES * BENDS];
        for course in &mut courses {
            course.velocity = i16::from_le_bytes(next()?);
            course.bend = i16::from_le_bytes(next()?);
            course.alone = i16::from_le_bytes(next()?);
        }
        let mut neighbours = vec![[0; 2]; DISTANCES * DISTANCES];
        for part in neighbours.iter_mut().flatten() {
            *part = i16::from_le_bytes(next()?);
        }
        reader.finish()?;
        Ok(Self {
            residuals,
            flags,
            courses,
            neighbours,
        })
    }
}

/// A typical size of a symbol's residuals, and how many it stands for.
fn size_of_symbol(symbol: usize) -> (f64, f64) {
    match symbol {
        0 => (0.0, 1.0),
        1..=16 => (f64::from(u32::try_from(symbol).unwrap_or(0)) / 2.0, 1.0),
        17..=48 => {
            let count = f64::from(1 << ((symbol - 17) / 4 + 2));
            (count * 2.0, count)
        }
        _ => {
            let count = f64::from(1_u32 << (symbol - 49 + 11));
            (count, count)
        }
    }
}

/// Shares that are about proportional to weights.
pub(super) fn shares(weights: &[f64; SYMBOLS]) -> [u16; SYMBOLS] {
    let sum: f64 = weights.iter().sum();
    let total = 1_u16 << SYMBOL_BITS;
    let free = f64::from(total) - 69.0;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "within the total"
    )]
    let mut shares = weights.map(|weight| 1 + (weight / sum * free) as u16);
    let rest = total - shares.iter().sum::<u16>();
    let mut largest = 0;
    for symbol in 1..SYMBOLS {
        if shares[symbol] > shares[largest] {
            largest = symbol;
        }
    }
    shares[largest] += rest;
    shares
}
