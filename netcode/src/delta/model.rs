//! Predictions and contexts.

use crate::wire::bytes::DecodeError;

use super::coder::{Coder, Lesson, raw_wide};
use super::plan::{CLASSES, LanePlan};
use super::rotation::Circles;
use super::tables::{BENDS, SCALES, SURPRISES};

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
    /// A rotation's largest part is not the one guessed: + margin (8) x bend (4).
    pub(in crate::delta) const LARGEST: usize = GROUP + CLASSES * 12;
    /// It is not the second one either.
    pub(in crate::delta) const SECOND: usize = LARGEST + 32;
    /// A body does not hold all.
    pub(in crate::delta) const SPLIT: usize = SECOND + 1;
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
    /// Something changes in a block of quiet entities: + in the block before.
    pub(in crate::delta) const BLOCK: usize = UNLIKE + 1;
    pub(in crate::delta) const END: usize = BLOCK + 2;
}

/// How far references reach into the future, by which of the older two an entity has.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ages {
    ages: [u32; super::REFERENCES_MAX],
    count: usize,
    horizons: [Horizon; 1 << OLDER],
}

/// What distances to older references say about now.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Horizon {
    /// Which older references there are: bit 0 the newer, bit 1 the older.
    pub(super) mask: usize,
    /// Age of the base over the time from the reference to the base, in 4096ths.
    pub(super) reach: [i64; OLDER],
    /// The same for rotations.
    pub(super) circles: Circles,
    /// By how much of the difference of both velocities the mean velocity until now differs from the
    /// newer one, if it goes on changing; in 256ths, and as a float.
    pub(super) bend: i64,
    pub(super) bend_ratio: f32,
}

impl Ages {
    /// Takes the ages of the references, the base's first.
    pub(super) fn set(&mut self, ages: &[u32]) {
        let ages = &ages[..ages.len().min(super::REFERENCES_MAX)];
        if self.ages[..self.count] == *ages {
            return;
        }
        *self = Self::default();
        self.count = ages.len();
        self.ages[..ages.len()].copy_from_slice(ages);
        let base = i64::from(ages.first().copied().unwrap_or(0));
        for mask in 0..1_usize << OLDER {
            let horizon = &mut self.horizons[mask];
            let mut gaps = [0; OLDER];
            for (bit, &age) in ages.iter().skip(1).enumerate() {
                if mask >> bit & 1 == 1 {
                    horizon.mask |= 1 << bit;
                    gaps[bit] = (i64::from(age) - base).max(1);
                    horizon.reach[bit] = base * 4096 / gaps[bit];
                    let ratio = small_f32(horizon.reach[bit]) / 4096.0;
                    horizon.circles.set(bit, ratio);
                }
            }
            if horizon.mask == 3 {
                horizon.bend = 256 * (base + gaps[0]) / (gaps[1] - gaps[0]).max(1);
                horizon.bend_ratio = small_f32(horizon.bend) / 256.0;
            }
        }
    }

    #[inline]
    pub(super) fn horizon(&self, mask: usize) -> &Horizon {
        &self.horizons[mask % (1 << OLDER)]
    }
}

/// A number of at most 24 bits.
fn small_f32(value: i64) -> f32 {
    i32::try_from(value).map_or(0.0, |value| value as f32)
}

/// A guess of a lane, and how much it moves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Guess {
    pub(super) step: i64,
    /// Class of how much it moves.
    pub(super) scale: usize,
}

/// The scale of values without a past.
pub(super) const NO_PAST: usize = SCALES - 1;

/// The class of a value that bends and moves so much.
#[inline]
pub(super) fn scale(bend: u64, moved: u64) -> usize {
    // Far from an overflow: these are sixteenths of products of 53 bits.
    half_octaves(bend.wrapping_add(moved / 8)).min(SCALES - 2)
}

/// How far a lane goes from its base, given the distances that it went from the older references to
/// the base.
#[inline(always)]
pub(super) fn course<C: Coder>(
    coder: &mut C,
    family: usize,
    distances: [i32; OLDER],
    horizon: &Horizon,
    actual: i64,
) -> Guess {
    if horizon.mask == 0 {
        return Guess {
            step: 0,
            scale: NO_PAST,
        };
    }
    // In 16ths of a step.
    let reach = |at: usize| i64::from(distances[at]).wrapping_mul(horizon.reach[at]) >> 8;
    if horizon.mask != 3 {
        let velocity = reach(horizon.mask >> 1);
        let moved = (velocity >> 4).unsigned_abs();
        let bend = half_octaves(moved);
        let weight = i64::from(coder.tables().course(family, bend).alone);
        coder.learn(&Lesson::Course {
            family,
            bend,
            velocity: velocity as f32 / 16.0,
            change: None,
            actual: actual as f32,
        });
        let step = (((velocity * weight) >> 12) + 8) >> 4;
        return Guess {
            step,
            scale: scale(moved / 4, moved),
        };
    }
    let (near, far) = (reach(0), reach(1));
    let change = near.wrapping_sub(far);
    let bent = (change >> 4).unsigned_abs();
    let bend = half_octaves(bent);
    let weights = coder.tables().course(family, bend);
    let full = change.wrapping_mul(horizon.bend) >> 8;
    coder.learn(&Lesson::Course {
        family,
        bend,
        velocity: near as f32 / 16.0,
        change: Some(full as f32 / 16.0),
        actual: actual as f32,
    });
    let along = near.wrapping_mul(i64::from(weights.velocity));
    let step = along.wrapping_add(full.wrapping_mul(i64::from(weights.bend)));
    Guess {
        step: (step >> 12).wrapping_add(8) >> 4,
        scale: scale(bent, (far >> 4).unsigned_abs()),
    }
}

/// Two classes per octave, up to class 15, which is for all beyond.
///
/// From a table: nobody could predict branches that depend on how things move.
#[inline]
pub(super) fn half_octaves(value: u64) -> usize {
    const CLASSES: [u8; 256] = {
        let mut classes = [0; 256];
        let mut value = 1;
        while value < 256_u32 {
            let log = value.ilog2();
            // The two highest bits are 2 or 3.
            let class = if value == 1 {
                1
            } else {
                2 * log + (value >> (log - 1)) - 2
            };
            assert!(
                class < 16 && BENDS == 16 && SCALES <= 16,
                "all beyond are of one class"
            );
            #[expect(clippy::cast_possible_truncation, reason = "below 16")]
            {
                classes[value as usize] = class as u8;
            }
            value += 1;
        }
        classes
    };
    usize::from(CLASSES[value.min(255) as usize])
}

/// The class of a typical size of residuals nearby; class 0 is for nothing to compare with.
#[inline]
pub(super) fn surprise(mean: u32) -> usize {
    const { assert!(SURPRISES == 8, "all from 32 on are of one class") };
    // The length of the number: that of one more bit, less one.
    1 + (mean.min(32) << 1 | 1).ilog2() as usize
}

/// The residual table of a family, scale and surprise.
#[inline]
pub(super) fn table(family: usize, scale: usize, surprise: usize) -> usize {
    (family * SCALES + scale) * SURPRISES + surprise
}

/// A distance: exactly up to 8, then two symbols per octave, from 2^11 one, and the bits below.
#[inline]
pub(super) fn residual<C: Coder>(coder: &mut C, table: usize, value: i32) -> i32 {
    if C::READS {
        return read_residual(coder, table);
    }
    let size = value.unsigned_abs();
    let is_negative = u32::from(value < 0);
    if let Some(&(symbol, bits)) = SMALL.get(size as usize) {
        // Raw bits even if there are none, which costs less than a branch on it.
        coder.symbol(table, usize::from(symbol) + is_negative as usize);
        let bits = u32::from(bits);
        coder.raw(size.wrapping_sub(1) & ((1 << bits) - 1), bits);
        return value;
    }
    write_large(coder, table, size - 1, is_negative);
    value
}

/// Of sizes that are not rare: the symbol of a positive one, and how many raw bits follow.
const SMALL: [(u8, u8); 64] = {
    let mut small = [(0, 0); 64];
    let mut size = 1_u8;
    // The logarithm of sizes beyond 8, less one.
    let mut octave = 3;
    while size < 64 {
        // 0 is 0, odd ones are positive.
        small[size as usize] = if size <= 8 {
            (2 * size - 1, 0)
        } else {
            let beyond = size - 1;
            if beyond >> octave > 1 {
                octave += 1;
            }
            let half = beyond >> (octave - 1) & 1;
            (17 + 4 * (octave - 3) + 2 * half, octave - 1)
        };
        size += 1;
    }
    small
};

/// Writes a large distance, less one.
#[cold]
fn write_large<C: Coder>(coder: &mut C, table: usize, beyond: u32, is_negative: u32) {
    let octave = beyond.ilog2();
    if octave <= 10 {
        let half = beyond >> (octave - 1) & 1;
        let symbol = 17 + 4 * (octave - 3) + 2 * half + is_negative;
        coder.symbol(table, symbol as usize);
        coder.raw(beyond & ((1 << (octave - 1)) - 1), octave - 1);
    } else {
        coder.symbol(table, (49 + octave - 11) as usize);
        coder.raw(is_negative, 1);
        raw_wide(coder, beyond & ((1 << octave) - 1), octave);
    }
}

/// Reads what [`residual`] wrote.
#[inline]
fn read_residual<C: Coder>(coder: &mut C, table: usize) -> i32 {
    #[expect(clippy::cast_possible_truncation, reason = "a symbol is below 69")]
    let symbol = coder.symbol(table, 0) as u32;
    let signed = |size: u32, is_negative: bool| {
        let size = size.cast_signed();
        if is_negative {
            size.wrapping_neg()
        } else {
            size
        }
    };
    match symbol {
        0..=16 => signed(symbol.div_ceil(2), symbol & 1 == 0),
        17..=48 => {
            let octave = 3 + (symbol - 17) / 4;
            let half = (symbol - 17) / 2 % 2;
            let low = coder.raw(0, octave - 1);
            let beyond = 1 << octave | half << (octave - 1) | low;
            signed(beyond + 1, (symbol - 17) % 2 == 1)
        }
        _ => {
            let octave = symbol - 49 + 11;
            let is_negative = coder.raw(0, 1) == 1;
            let low = raw_wide(coder, 0, octave);
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
