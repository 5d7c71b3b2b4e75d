//! Rows to lanes and back: the steps that one kind's fields take.

use crate::hash::canonical_f32_bits;
use crate::wire::bytes::{DecodeError, Reader};

use super::super::schema::ExactType;
use super::super::walk;
use super::{KindLayout, quantizers};

/// What becomes of the next bytes of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A bool: one lane.
    Bool,
    /// An integer of `bytes` bytes: one lane, the low 32 bits of its distance to `origin`.
    Int {
        bytes: u8,
        is_signed: bool,
        origin: i64,
        min: i64,
        max: i64,
    },
    /// Eight bytes as they are: the lanes of their high and low half.
    Wide,
    /// A float, in order: one lane.
    Float32,
    /// The bits of a float: the lanes of their high and low half.
    Float64,
    /// A float in steps: one lane.
    Fixed {
        is_wide: bool,
        per_unit: u32,
        min: i32,
        max: i32,
    },
    /// A float as binary16: one lane.
    Half { is_wide: bool },
    /// A Vec2 as an angle: one lane.
    Direction2 { bits: u8 },
    /// A Vec3 on an octahedron: two lanes.
    Direction3 { bits: u8 },
    /// A Quat: four lanes.
    Rotation { bits: u8 },
    /// A value that travels as it is: no lanes.
    Opaque(ExactType),
    /// A presence lane, then the lanes of the value; those of `idle` where there is none.
    Option {
        steps: Box<[Step]>,
        idle: Box<[i32]>,
    },
    /// The lane of the variant's number, then the lanes of all variants.
    Enum(Box<[VariantSteps]>),
}

/// What becomes of the fields of a variant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct VariantSteps {
    pub(super) tag: u8,
    pub(super) steps: Box<[Step]>,
    /// Its lanes while another variant is there.
    pub(super) idle: Box<[i32]>,
}

impl KindLayout {
    /// Appends the lanes and opaque bytes of a row in its exact form, and adds to `clamped` the
    /// values that were beyond their bounds.
    ///
    /// # Errors
    /// If the row is none of this kind. What was appended until then stays.
    pub fn quantize(
        &self,
        row: &[u8],
        lanes: &mut Vec<i32>,
        opaque: &mut Vec<u8>,
        clamped: &mut u64,
    ) -> Result<(), DecodeError> {
        let mut to = Quantize {
            reader: Reader::new(row),
            lanes,
            opaque,
            clamped,
        };
        to.steps(&self.steps)?;
        to.reader.finish()
    }

    /// Appends the row in its exact form that stands for `lanes` and for the opaque bytes at the
    /// beginning of `opaque`, which it takes. [`KindLayout::quantize`] gives the same lanes and
    /// bytes for it again.
    ///
    /// # Errors
    /// If they are not what [`KindLayout::quantize`] makes of a row: a lane is beyond its bounds, a
    /// lane of an absent part is not idle, the opaque bytes are no values. What was appended until
    /// then stays.
    pub fn dequantize(
        &self,
        lanes: &[i32],
        opaque: &mut &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), DecodeError> {
        let mut from = Dequantize {
            lanes,
            opaque: Reader::new(opaque),
            out,
        };
        from.steps(&self.steps)?;
        if !from.lanes.is_empty() {
            return Err(DecodeError::Invalid("a row has too many lanes"));
        }
        *opaque = from.opaque.rest();
        Ok(())
    }

    /// Where the entity with this row is, in the units of the game; the third number is 0 for a
    /// place in a plane. `None` without a position, and for lanes beyond their bounds.
    #[must_use]
    pub fn place(&self, lanes: &[i32]) -> Option<[f64; 3]> {
        let (first, steps) = self.position.as_ref()?;
        let lanes = lanes.get(usize::from(*first)..)?;
        let mut place = [0.0; 3];
        for ((part, step), &lane) in place.iter_mut().zip(steps).zip(lanes) {
            *part = step.number(lane)?;
        }
        Some(place)
    }

    /// How many of the first bytes of `opaque` belong to a row of this kind.
    ///
    /// # Errors
    /// If they are no values of its opaque fields.
    pub fn opaque_len(&self, opaque: &[u8]) -> Result<usize, DecodeError> {
        if !self.has_opaque {
            return Ok(0);
        }
        let mut reader = Reader::new(opaque);
        for step in &self.steps {
            if let Step::Opaque(exact) = step {
                walk::check(exact, &mut reader)?;
            }
        }
        Ok(opaque.len() - reader.len())
    }
}

impl Step {
    /// The number that a lane stands for, if the step makes one lane of one number.
    fn number(&self, lane: i32) -> Option<f64> {
        match self {
            Self::Fixed { per_unit, .. } => Some(quantizers::unfixed(lane, *per_unit)),
            Self::Float32 => quantizers::float_of_lane(lane).map(f64::from),
            Self::Half { .. } => quantizers::unhalf(lane),
            Self::Int {
                origin, min, max, ..
            } => int_of_lane(lane, *origin, *min, *max)
                .and_then(|value| i32::try_from(value).ok())
                .map(f64::from),
            Self::Bool
            | Self::Wide
            | Self::Float64
            | Self::Direction2 { .. }
            | Self::Direction3 { .. }
            | Self::Rotation { .. }
            | Self::Opaque(_)
            | Self::Option { .. }
            | Self::Enum(_) => None,
        }
    }
}

/// The integer that a lane stands for, if it is one from `min` to `max`.
#[inline]
fn int_of_lane(lane: i32, origin: i64, min: i64, max: i64) -> Option<i64> {
    let mut value = i64::from(lane).wrapping_add(origin);
    if value < min {
        // The upper half of a u32, whose lanes are its bits.
        value = value.wrapping_add(1 << 32);
    }
    (min..=max).contains(&value).then_some(value)
}

/// The low 32 bits.
#[inline]
fn low_half(value: u64) -> i32 {
    let [a, b, c, d, ..] = value.to_le_bytes();
    i32::from_le_bytes([a, b, c, d])
}

struct Quantize<'a> {
    reader: Reader<'a>,
    lanes: &'a mut Vec<i32>,
    opaque: &'a mut Vec<u8>,
    clamped: &'a mut u64,
}

impl Quantize<'_> {
    fn steps(&mut self, steps: &[Step]) -> Result<(), DecodeError> {
        steps.iter().try_for_each(|step| self.step(step))
    }

    #[inline]
    fn step(&mut self, step: &Step) -> Result<(), DecodeError> {
        match step {
            Step::Bool => self.lanes.push(i32::from(self.reader.bool()?)),
            Step::Int {
                bytes,
                is_signed,
                origin,
                min,
                max,
            } => {
                let (value, is_clamped) = self.int(*bytes, *is_signed)?;
                let inside = value.clamp(*min, *max);
                self.note(is_clamped || inside != value);
                self.lanes
                    .push(low_half(inside.wrapping_sub(*origin).cast_unsigned()));
            }
            Step::Wide | Step::Float64 => {
                let word = self.reader.u64()?;
                self.lanes.extend([low_half(word >> 32), low_half(word)]);
            }
            Step::Float32 => {
                let value = self.float32()?;
                self.lanes.push(quantizers::float_lane(value));
            }
            Step::Fixed {
                is_wide,
                per_unit,
                min,
                max,
            } => {
                let value = self.float(*is_wide)?;
                let (lane, is_clamped) = quantizers::fixed(value, *per_unit, *min, *max);
                self.note(is_clamped);
                self.lanes.push(lane);
            }
            Step::Half { is_wide } => {
                let (lane, is_clamped) = quantizers::half(self.float(*is_wide)?);
                self.note(is_clamped);
                self.lanes.push(lane);
            }
            Step::Direction2 { bits } => {
                let parts = [self.float(false)?, self.float(false)?];
                let (lane, is_clamped) = quantizers::direction2(parts, *bits);
                self.note(is_clamped);
                self.lanes.push(lane);
            }
            Step::Direction3 { bits } => {
                let parts = [self.float(false)?, self.float(false)?, self.float(false)?];
                let (lanes, is_clamped) = quantizers::direction3(parts, *bits);
                self.note(is_clamped);
                self.lanes.extend(lanes);
            }
            Step::Rotation { bits } => {
                let mut parts = [0.0; 4];
                for part in &mut parts {
                    *part = self.float32()?;
                }
                let (lanes, is_clamped) = quantizers::rotation(parts, *bits);
                self.note(is_clamped);
                self.lanes.extend(lanes);
            }
            Step::Opaque(exact) => {
                let before = self.reader.rest();
                walk::check(exact, &mut self.reader)?;
                let taken = before.len() - self.reader.len();
                self.opaque.extend_from_slice(&before[..taken]);
            }
            Step::Option { steps, idle } => {
                let is_some = self.reader.bool()?;
                self.lanes.push(i32::from(is_some));
                if is_some {
                    self.steps(steps)?;
                } else {
                    self.lanes.extend_from_slice(idle);
                }
            }
            Step::Enum(variants) => {
                let tag = self.reader.u8()?;
                let chosen = variants
                    .binary_search_by_key(&tag, |variant| variant.tag)
                    .map_err(|_unknown| DecodeError::Invalid("an enum has an unknown tag"))?;
                self.lanes.push(i32::try_from(chosen).unwrap_or(i32::MAX));
                for (index, variant) in variants.iter().enumerate() {
                    if index == chosen {
                        self.steps(&variant.steps)?;
                    } else {
                        self.lanes.extend_from_slice(&variant.idle);
                    }
                }
            }
        }
        Ok(())
    }

    #[inline]
    fn note(&mut self, is_clamped: bool) {
        *self.clamped += u64::from(is_clamped);
    }

    /// The next integer, and whether it exceeded `i64`.
    #[inline]
    fn int(&mut self, bytes: u8, is_signed: bool) -> Result<(i64, bool), DecodeError> {
        let value = match (bytes, is_signed) {
            (1, false) => i64::from(self.reader.u8()?),
            (1, true) => i64::from(self.reader.u8()?.cast_signed()),
            (2, false) => i64::from(self.reader.u16()?),
            (2, true) => i64::from(self.reader.u16()?.cast_signed()),
            (4, false) => i64::from(self.reader.u32()?),
            (4, true) => i64::from(self.reader.u32()?.cast_signed()),
            (_, true) => self.reader.u64()?.cast_signed(),
            (_, false) => {
                let word = self.reader.u64()?;
                return Ok(i64::try_from(word).map_or((i64::MAX, true), |value| (value, false)));
            }
        };
        Ok((value, false))
    }

    #[inline]
    fn float32(&mut self) -> Result<f32, DecodeError> {
        Ok(f32::from_bits(self.reader.u32()?))
    }

    #[inline]
    fn float(&mut self, is_wide: bool) -> Result<f64, DecodeError> {
        if is_wide {
            Ok(f64::from_bits(self.reader.u64()?))
        } else {
            Ok(f64::from(self.float32()?))
        }
    }
}

struct Dequantize<'a, 'o> {
    lanes: &'a [i32],
    opaque: Reader<'o>,
    out: &'a mut Vec<u8>,
}

/// A lane beyond its bounds.
const OUT_OF_BOUNDS: DecodeError = DecodeError::Invalid("a lane is beyond its bounds");

impl Dequantize<'_, '_> {
    fn steps(&mut self, steps: &[Step]) -> Result<(), DecodeError> {
        steps.iter().try_for_each(|step| self.step(step))
    }

    #[inline]
    fn step(&mut self, step: &Step) -> Result<(), DecodeError> {
        match step {
            Step::Bool => {
                let is_true = self.flag()?;
                self.out.push(u8::from(is_true));
            }
            Step::Int {
                bytes,
                is_signed: _,
                origin,
                min,
                max,
            } => {
                let lane = self.lane()?;
                let value = int_of_lane(lane, *origin, *min, *max).ok_or(OUT_OF_BOUNDS)?;
                self.out
                    .extend_from_slice(&value.to_le_bytes()[..usize::from(*bytes)]);
            }
            Step::Wide => {
                let word = self.word()?;
                self.out.extend_from_slice(&word.to_le_bytes());
            }
            Step::Float64 => {
                let word = self.word()?;
                if !quantizers::is_canonical64(word) {
                    return Err(OUT_OF_BOUNDS);
                }
                self.out.extend_from_slice(&word.to_le_bytes());
            }
            Step::Float32 => {
                let lane = self.lane()?;
                let value = quantizers::float_of_lane(lane).ok_or(OUT_OF_BOUNDS)?;
                self.float32(value);
            }
            Step::Fixed {
                is_wide,
                per_unit,
                min,
                max,
            } => {
                let lane = self.lane()?;
                if !(*min..=*max).contains(&lane) {
                    return Err(OUT_OF_BOUNDS);
                }
                self.float(quantizers::unfixed(lane, *per_unit), *is_wide);
            }
            Step::Half { is_wide } => {
                let lane = self.lane()?;
                let value = quantizers::unhalf(lane).ok_or(OUT_OF_BOUNDS)?;
                self.float(value, *is_wide);
            }
            Step::Direction2 { bits } => {
                let lane = self.lane()?;
                let half_turn = 1_i32 << (bits - 1);
                if !(-half_turn..half_turn).contains(&lane) {
                    return Err(OUT_OF_BOUNDS);
                }
                for part in quantizers::undirection2(lane, *bits) {
                    self.float(part, false);
                }
            }
            Step::Direction3 { bits } => {
                let lanes = [self.lane()?, self.lane()?];
                let steps = quantizers::octahedron_steps(*bits);
                if lanes.iter().any(|lane| !(-steps..=steps).contains(lane)) {
                    return Err(OUT_OF_BOUNDS);
                }
                for part in quantizers::undirection3(lanes, *bits).ok_or(OUT_OF_BOUNDS)? {
                    self.float(part, false);
                }
            }
            Step::Rotation { bits } => {
                let lanes = [self.lane()?, self.lane()?, self.lane()?, self.lane()?];
                let parts = quantizers::unrotation(lanes, *bits)
                    .ok_or(DecodeError::Invalid("lanes are not those of a rotation"))?;
                parts.into_iter().for_each(|part| self.float32(part));
            }
            Step::Opaque(exact) => {
                let before = self.opaque.rest();
                walk::check(exact, &mut self.opaque)?;
                let taken = before.len() - self.opaque.len();
                self.out.extend_from_slice(&before[..taken]);
            }
            Step::Option { steps, idle } => {
                let is_some = self.flag()?;
                self.out.push(u8::from(is_some));
                if is_some {
                    self.steps(steps)?;
                } else {
                    self.idle(idle)?;
                }
            }
            Step::Enum(variants) => {
                let chosen = usize::try_from(self.lane()?).unwrap_or(usize::MAX);
                let tag = variants.get(chosen).ok_or(OUT_OF_BOUNDS)?.tag;
                self.out.push(tag);
                for (index, variant) in variants.iter().enumerate() {
                    if index == chosen {
                        self.steps(&variant.steps)?;
                    } else {
                        self.idle(&variant.idle)?;
                    }
                }
            }
        }
        Ok(())
    }

    #[inline]
    fn lane(&mut self) -> Result<i32, DecodeError> {
        let (lane, rest) = self.lanes.split_first().ok_or(DecodeError::Truncated)?;
        self.lanes = rest;
        Ok(*lane)
    }

    #[inline]
    fn flag(&mut self) -> Result<bool, DecodeError> {
        match self.lane()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(OUT_OF_BOUNDS),
        }
    }

    #[inline]
    fn word(&mut self) -> Result<u64, DecodeError> {
        let (high, low) = (self.lane()?, self.lane()?);
        Ok(u64::from(high.cast_unsigned()) << 32 | u64::from(low.cast_unsigned()))
    }

    /// Takes the lanes of a part that is not there.
    fn idle(&mut self, idle: &[i32]) -> Result<(), DecodeError> {
        let (lanes, rest) = self
            .lanes
            .split_at_checked(idle.len())
            .ok_or(DecodeError::Truncated)?;
        if lanes != idle {
            return Err(DecodeError::Invalid("a lane of an absent part is not idle"));
        }
        self.lanes = rest;
        Ok(())
    }

    #[inline]
    fn float32(&mut self, value: f32) {
        self.out
            .extend_from_slice(&canonical_f32_bits(value).to_le_bytes());
    }

    #[inline]
    fn float(&mut self, value: f64, is_wide: bool) {
        if is_wide {
            let bits = crate::hash::canonical_f64_bits(value);
            self.out.extend_from_slice(&bits.to_le_bytes());
        } else {
            self.float32(quantizers::narrow(value));
        }
    }
}
