//! Predictions and contexts.

use crate::wire::bytes::DecodeError;

use super::coder::{Coder, raw_wide};
use super::plan::{CLASSES, LanePlan};
use super::tables::{SCALES, SURPRISES};

/// Older references beside the base.
pub(super) const OLDER: usize = super::REFERENCES_MAX - 1;

/// A value was out of its lane's bounds.
pub(super) const OUT_OF_BOUNDS: DecodeError = DecodeError::Invalid("a lane is out of its bounds");

/// Flag contexts, by what they are about.
pub(super) mod flags {
    use super::CLASSES;
    /// An entity of the base changed: + age (6) x previous (2) x next (2).
    pub(in crate::delta) const CHANGED: usize = 0;
    /// A changed entity is gone.
    pub(in crate::delta) const GONE: usize = CHANGED + 24;
    /// Its shape changed.
    pub(in crate::delta) const SHAPE: usize = GONE + 1;
    /// Opaque bytes changed.
    pub(in crate::delta) const OPAQUE: usize = SHAPE + 1;
    /// A group changed: + class x moved lately (4) x what was before it (3).
    pub(in crate::delta) const GROUP: usize = OPAQUE + 1;
    /// A rotation's largest part changed.
    pub(in crate::delta) const LARGEST: usize = GROUP + CLASSES * 12;
    /// A body does not hold all.
    pub(in crate::delta) const SPLIT: usize = LARGEST + 1;
    /// Entities appear between those of the base.
    pub(in crate::delta) const MIDDLE: usize = SPLIT + 1;
    /// An entity appears here.
    pub(in crate::delta) const SPAWN: usize = MIDDLE + 1;
    /// A split body stops here.
    pub(in crate::delta) const STOP: usize = SPAWN + 1;
    /// A lane of a new entity equals that of the new one before.
    pub(in crate::delta) const SAME: usize = STOP + 1;
    /// A part body has no more items.
    pub(in crate::delta) const NO_MORE: usize = SAME + CLASSES;
    /// A part body's next id is below the last.
    pub(in crate::delta) const BACK: usize = NO_MORE + 1;
    /// An item has other references than the one before.
    pub(in crate::delta) const UNLIKE: usize = BACK + 1;
    pub(in crate::delta) const END: usize = UNLIKE + 1;
}

const _: () = assert!(flags::END <= super::tables::FLAGS);

/// Weights of the differences to older references, by which of them are there.
#[derive(Clone, Debug, Default)]
pub(super) struct Ages {
    ages: [u32; super::REFERENCES_MAX],
    count: usize,
    /// By the mask of older references that an entity has: in 65536ths.
    weights: [[i64; OLDER]; 1 << OLDER],
}

impl Ages {
    /// Takes the ages of the references, the base's first.
    pub(super) fn set(&mut self, ages: &[u32]) {
        if self.ages[..self.count] == *ages {
            return;
        }
        self.count = ages.len();
        self.ages[..ages.len()].copy_from_slice(ages);
        for mask in 1..1_usize << OLDER {
            let mut weights = [0; OLDER];
            let present = (0..ages.len().saturating_sub(1)).filter(|bit| mask >> bit & 1 == 1);
            let count = i64::try_from(present.clone().count()).unwrap_or(1);
            for older in present {
                let gap = i64::from(ages[older + 1].saturating_sub(ages[0]).max(1));
                weights[older] = i64::from(ages[0]) * 65536 / gap / count;
            }
            self.weights[mask] = weights;
        }
    }

    #[inline]
    pub(super) fn weights(&self, mask: usize) -> &[i64; OLDER] {
        &self.weights[mask % (1 << OLDER)]
    }
}

/// A guess of a lane, and how much it moves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Guess {
    pub(super) value: i32,
    /// Distance that it went since the references, as it would be now.
    pub(super) moved: u32,
}

/// The guess for a lane from its base value and its distances to the older references.
#[inline]
pub(super) fn course(
    base: i32,
    older: &[i32; OLDER],
    weights: &[i64; OLDER],
    lane: &LanePlan,
) -> Guess {
    let mut sum = 0;
    let mut moved = 0_u64;
    for (&distance, &weight) in older.iter().zip(weights) {
        let part = i64::from(distance).wrapping_mul(weight);
        sum += part;
        moved += part.unsigned_abs();
    }
    let step = (sum + 32768) >> 16;
    let value = i64::from(base)
        .saturating_add(step)
        .clamp(i64::from(lane.min), i64::from(lane.max));
    Guess {
        value: i32::try_from(value).unwrap_or(base),
        moved: u32::try_from(moved >> 15).unwrap_or(u32::MAX),
    }
}

/// Two classes per octave.
#[inline]
pub(super) fn half_octaves(value: u32) -> usize {
    if value < 2 {
        return value as usize;
    }
    let log = value.ilog2();
    (2 * log + (value >> (log - 1) & 1)) as usize
}

/// The residual table of a family for a value that moved so much and surprises so much.
#[inline]
pub(super) fn table(family: usize, moved: u32, surprise: u32) -> usize {
    let scale = half_octaves(moved).min(SCALES - 1);
    let surprise = ((u32::BITS - surprise.leading_zeros()) as usize).min(SURPRISES - 1);
    (family * SCALES + scale) * SURPRISES + surprise
}

/// A distance: exactly up to 8, then two symbols per octave, from 2^11 one, and the bits below.
#[inline]
pub(super) fn residual<C: Coder>(coder: &mut C, table: usize, value: i32) -> i32 {
    let size = value.unsigned_abs();
    let is_negative = value < 0;
    let beyond = size.wrapping_sub(1);
    let symbol = if size <= 8 {
        if size == 0 {
            0
        } else {
            2 * size - 1 + u32::from(is_negative)
        }
    } else {
        let octave = beyond.ilog2();
        if octave <= 10 {
            let half = beyond >> (octave - 1) & 1;
            17 + 4 * (octave - 3) + 2 * half + u32::from(is_negative)
        } else {
            49 + octave - 11
        }
    };
    let symbol = coder.symbol(table, symbol as usize);
    #[expect(clippy::cast_possible_truncation, reason = "a symbol is below 69")]
    let symbol = symbol as u32;
    let signed = |size: u32, is_negative: bool| {
        let size = size.cast_signed();
        if is_negative {
            size.wrapping_neg()
        } else {
            size
        }
    };
    match symbol {
        0 => 0,
        1..=16 => signed(symbol.div_ceil(2), symbol & 1 == 0),
        17..=48 => {
            let octave = 3 + (symbol - 17) / 4;
            let half = (symbol - 17) / 2 % 2;
            let low = coder.raw(beyond & ((1 << (octave - 1)) - 1), octave - 1);
            let beyond = 1 << octave | half << (octave - 1) | low;
            signed(beyond + 1, (symbol - 17) % 2 == 1)
        }
        _ => {
            let octave = symbol - 49 + 11;
            let is_negative = coder.raw(u32::from(is_negative), 1) == 1;
            let low = raw_wide(coder, beyond & ((1 << octave) - 1), octave);
            signed((1 << octave | low) + 1, is_negative)
        }
    }
}

/// A value without prediction, in its lane's bits.
#[inline]
pub(super) fn plain<C: Coder>(
    coder: &mut C,
    value: i32,
    lane: &LanePlan,
) -> Result<i32, DecodeError> {
    let above = value.wrapping_sub(lane.min).cast_unsigned();
    let above = raw_wide(coder, above, lane.bits);
    bounded(lane.min.wrapping_add(above.cast_signed()), lane)
}

/// The value if it lies within its lane's bounds.
#[inline]
pub(super) fn bounded(value: i32, lane: &LanePlan) -> Result<i32, DecodeError> {
    if lane.min <= value && value <= lane.max {
        Ok(value)
    } else {
        Err(OUT_OF_BOUNDS)
    }
}
