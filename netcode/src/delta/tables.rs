//! The fixed chances of everything that bodies say.

use std::sync::LazyLock;

use crate::wire::range::{Bit, SYMBOL_BITS, Symbols};

use super::model::flags;

/// Symbols of a residual: see [`super::model::residual`].
pub(super) const SYMBOLS: usize = 69;
/// Families of residuals: vectors, numbers, rotations.
pub(super) const FAMILIES: usize = 3;
/// Classes of how much a value moved lately.
pub(super) const SCALES: usize = 16;
/// Classes of how wrong the guesses nearby were.
pub(super) const SURPRISES: usize = 8;
/// Tables of residuals.
pub(super) const RESIDUALS: usize = FAMILIES * SCALES * SURPRISES;
/// Contexts of flags.
pub(super) const FLAGS: usize = 512;

/// All chances.
#[derive(Clone, Debug)]
pub(super) struct Tables {
    residuals: Box<[Symbols<SYMBOLS>]>,
    flags: Box<[Bit]>,
}

impl Tables {
    /// The chances that this version of the codec knows.
    pub(super) fn shared() -> &'static Self {
        static SHARED: LazyLock<Tables> = LazyLock::new(Tables::guessed);
        &SHARED
    }

    #[inline]
    pub(super) fn residual(&self, table: usize) -> &Symbols<SYMBOLS> {
        &self.residuals[table]
    }

    #[inline]
    pub(super) fn flag(&self, context: usize) -> Bit {
        self.flags[context]
    }

    fn guessed() -> Self {
        let residuals = (0..RESIDUALS)
            .map(|table| {
                let scale = f64::from(1 << (table / SURPRISES % SCALES / 2)) + 0.5;
                let mut weights = [0.0; SYMBOLS];
                for (symbol, weight) in weights.iter_mut().enumerate() {
                    let (size, count) = match symbol {
                        0 => (0.0, 1.0),
                        1..=16 => (f64::from(u32::try_from(symbol).unwrap_or(0)) / 2.0, 1.0),
                        17..=48 => {
                            let octave = (symbol - 17) / 4 + 3;
                            let count = f64::from(1 << (octave - 1));
                            (count * 2.0, count)
                        }
                        _ => {
                            let octave = symbol - 49 + 11;
                            let count = f64::from(1_u32 << octave);
                            (count, count)
                        }
                    };
                    *weight = count / (1.0 + (size / scale) * (size / scale));
                }
                shares(&weights)
            })
            .collect();
        let mut chances = vec![Bit::one_in(3); FLAGS];
        for (context, one_in) in [
            (flags::GONE, 200),
            (flags::SHAPE, 500),
            (flags::OPAQUE, 4),
            (flags::LARGEST, 20),
            (flags::SPLIT, 10),
            (flags::MIDDLE, 50),
            (flags::SPAWN, 50),
            (flags::STOP, 1000),
            (flags::NO_MORE, 16),
            (flags::BACK, 64),
            (flags::UNLIKE, 8),
        ] {
            chances[context] = Bit::one_in(one_in);
        }
        chances[flags::CHANGED + 16..flags::CHANGED + 20].fill(Bit::one_in(500));
        Self {
            residuals,
            flags: chances.into(),
        }
    }
}

fn shares(weights: &[f64; SYMBOLS]) -> Symbols<SYMBOLS> {
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
    shares[0] += rest;
    Symbols::new(&shares).expect("shares are positive and sum to the total")
}
