//! Which forms fit which types.

use super::super::schema::{ExactType, FieldSchema};
use super::WireForm;
use super::layout::integer;

/// Why a field cannot travel as it declares.
pub(in crate::state) type Reason = &'static str;

impl WireForm {
    /// This form, or `other` where this one is [`WireForm::Exact`].
    #[must_use]
    pub(super) fn or(self, other: Self) -> Self {
        if self == Self::Exact { other } else { self }
    }

    /// Checks the form's own numbers.
    fn check(self) -> Result<(), Reason> {
        let fits = match self {
            Self::Exact | Self::Varint | Self::Half => return Ok(()),
            Self::Fixed { min, max, per_unit } => {
                let end = |units: i32| {
                    let steps = i64::from(units).saturating_mul(i64::from(per_unit));
                    i32::try_from(steps).is_ok()
                };
                if per_unit == 0 || min >= max {
                    return Err("a fixed-point range is empty or has no steps");
                }
                end(min) && end(max)
            }
            Self::Range { min, max } => {
                if min > max {
                    return Err("a range is empty");
                }
                max.checked_sub(min)
                    .is_some_and(|span| u32::try_from(span).is_ok())
            }
            Self::Unit { bits } => {
                return if (4..=16).contains(&bits) {
                    Ok(())
                } else {
                    Err("a direction has 4 to 16 bits")
                };
            }
            Self::Rotation { bits } => {
                return if (5..=15).contains(&bits) {
                    Ok(())
                } else {
                    Err("a rotation has 5 to 15 bits per part")
                };
            }
        };
        if fits {
            Ok(())
        } else {
            Err("a range has more than 2^32 steps")
        }
    }
}

/// Checks that the values of a field can travel as it and what is around it declare.
///
/// The types are checked already: their depth is limited.
pub(in crate::state) fn check_field(field: &FieldSchema, outer: WireForm) -> Result<(), Reason> {
    field.wire.check()?;
    check_type(&field.exact, field.wire.or(outer))
}

/// As [`check_field`], for a field inside of another one's type.
fn check_inner(field: &FieldSchema, outer: WireForm) -> Result<(), Reason> {
    if field.is_position {
        return Err("a position inside of another field; mark a field of the kind itself");
    }
    check_field(field, outer)
}

fn check_type(exact: &ExactType, form: WireForm) -> Result<(), Reason> {
    let floats = |is_wide: bool| match form {
        WireForm::Exact | WireForm::Half => Ok(()),
        WireForm::Fixed { min, max, per_unit } => {
            // A f32 has 24 bits: beyond 2^23 steps two steps could be one value.
            let is_near =
                |units: i32| i64::from(units).saturating_mul(i64::from(per_unit)).abs() <= 1 << 23;
            if is_wide || is_near(min) && is_near(max) {
                Ok(())
            } else {
                Err("a f32 tells steps apart only up to 2^23 steps from 0")
            }
        }
        WireForm::Range { .. } | WireForm::Varint => {
            Err("`Range` and `Varint` are for integers; floats need steps per unit")
        }
        WireForm::Unit { .. } => Err("`Unit` is for Vec2 and Vec3"),
        WireForm::Rotation { .. } => Err("`Rotation` is for Quat"),
    };
    match exact {
        ExactType::Bool | ExactType::NetId | ExactType::Text | ExactType::List(_) => {
            if form == WireForm::Exact {
                check_inside(exact)
            } else {
                Err("bool, NetId, lists and texts travel as they are")
            }
        }
        ExactType::U8
        | ExactType::U16
        | ExactType::U32
        | ExactType::U64
        | ExactType::I8
        | ExactType::I16
        | ExactType::I32
        | ExactType::I64 => match form {
            WireForm::Exact | WireForm::Varint => Ok(()),
            WireForm::Range { min, max } => match integer(exact) {
                Some((_, _, least, greatest)) if min >= least && max <= greatest => Ok(()),
                _ => Err("a range reaches beyond its integer type"),
            },
            WireForm::Fixed { .. }
            | WireForm::Half
            | WireForm::Unit { .. }
            | WireForm::Rotation { .. } => Err("integers travel exactly, as `Range` or `Varint`"),
        },
        ExactType::F32 | ExactType::Vec4 => floats(false),
        ExactType::F64 => floats(true),
        ExactType::Vec2 | ExactType::Vec3 => {
            if matches!(form, WireForm::Unit { .. }) {
                Ok(())
            } else {
                floats(false)
            }
        }
        ExactType::Quat => {
            if matches!(form, WireForm::Rotation { .. }) {
                Ok(())
            } else if matches!(form, WireForm::Fixed { .. }) {
                Err("a Quat travels exactly, as `Half` or as `Rotation`")
            } else {
                floats(false)
            }
        }
        ExactType::Array(value, _) | ExactType::Option(value) => check_type(value, form),
        ExactType::Struct(fields) => fields.iter().try_for_each(|field| check_inner(field, form)),
        ExactType::Enum(variants) => variants
            .iter()
            .flat_map(|(_, _, fields)| fields)
            .try_for_each(|field| check_inner(field, form)),
    }
}

/// Checks what the fields inside of a list declare, though it has no effect there: the same type
/// may stand elsewhere.
fn check_inside(exact: &ExactType) -> Result<(), Reason> {
    if let ExactType::List(element) = exact {
        check_type(element, WireForm::Exact)
    } else {
        Ok(())
    }
}

/// Checks that a field marked as position is one: two or three numbers that have lanes.
pub(in crate::state) fn check_position(field: &FieldSchema) -> Result<(), Reason> {
    if !field.is_position {
        return Ok(());
    }
    let is_number = |exact: &ExactType| {
        *exact == ExactType::F32 || integer(exact).is_some_and(|(bytes, ..)| bytes <= 4)
    };
    let is_place = if let ExactType::Array(element, 2..=3) = &field.exact {
        is_number(element)
    } else {
        matches!(field.exact, ExactType::Vec2 | ExactType::Vec3)
            && !matches!(field.wire, WireForm::Unit { .. })
    };
    if is_place {
        Ok(())
    } else {
        Err("a position is a Vec2, a Vec3 or an array of 2 or 3 of f32 or integers up to 32 bits")
    }
}
