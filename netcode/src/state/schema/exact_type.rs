//! How the bytes of a value are laid out.

use core::fmt;

use super::{FieldSchema, Prediction, WireForm};

/// The exact form of a value: how its bytes are laid out in snapshots, bit for bit.
///
/// Numbers are little-endian. The layout of a type is the concatenation of its parts, without
/// padding or alignment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ExactType {
    /// One byte, 0 or 1.
    Bool,
    /// One byte.
    U8,
    /// Two bytes.
    U16,
    /// Four bytes.
    U32,
    /// Eight bytes.
    U64,
    /// One byte.
    I8,
    /// Two bytes.
    I16,
    /// Four bytes.
    I32,
    /// Eight bytes.
    I64,
    /// Four bytes; every NaN is `0x7fc00000`.
    F32,
    /// Eight bytes; every NaN is `0x7ff8000000000000`.
    F64,
    /// Eight bytes: a reference to another entity.
    NetId,
    /// `2` x F32: x, y.
    Vec2,
    /// `3` x F32: x, y, z.
    Vec3,
    /// `4` x F32: x, y, z, w.
    Vec4,
    /// `4` x F32: x, y, z, w of a rotation.
    Quat,
    /// A fixed number of values of one type.
    Array(Box<ExactType>, u16),
    /// A byte that says whether a value follows: 0 or 1.
    Option(Box<ExactType>),
    /// A count (U32), then that many values, each of at least one byte.
    List(Box<ExactType>),
    /// A count of bytes (U32), then UTF-8.
    Text,
    /// Fields in order.
    Struct(Vec<FieldSchema>),
    /// A tag byte, then the fields of that variant. Variants are (tag, name, fields), by tag.
    Enum(Vec<(u8, String, Vec<FieldSchema>)>),
}

impl ExactType {
    /// Bytes of every value, where that does not depend on the value.
    #[must_use]
    pub fn fixed_len(&self) -> Option<usize> {
        match self {
            Self::Bool | Self::U8 | Self::I8 => Some(1),
            Self::U16 | Self::I16 => Some(2),
            Self::U32 | Self::I32 | Self::F32 => Some(4),
            Self::U64 | Self::I64 | Self::F64 | Self::NetId | Self::Vec2 => Some(8),
            Self::Vec3 => Some(12),
            Self::Vec4 | Self::Quat => Some(16),
            Self::Array(element, count) => element.fixed_len()?.checked_mul(usize::from(*count)),
            Self::Option(_) | Self::List(_) | Self::Text => None,
            Self::Struct(fields) => fixed_len_of(fields),
            Self::Enum(variants) => {
                let (_, _, first) = variants.first()?;
                let len = fixed_len_of(first)?;
                let rest_agrees = variants
                    .iter()
                    .all(|(_, _, fields)| fixed_len_of(fields) == Some(len));
                if rest_agrees {
                    len.checked_add(1)
                } else {
                    None
                }
            }
        }
    }

    /// Bytes that every value takes at least; saturates.
    #[must_use]
    pub fn min_len(&self) -> usize {
        match self {
            Self::Bool | Self::U8 | Self::I8 | Self::Option(_) => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 | Self::List(_) | Self::Text => 4,
            Self::U64 | Self::I64 | Self::F64 | Self::NetId | Self::Vec2 => 8,
            Self::Vec3 => 12,
            Self::Vec4 | Self::Quat => 16,
            Self::Array(element, count) => element.min_len().saturating_mul(usize::from(*count)),
            Self::Struct(fields) => min_len_of(fields),
            Self::Enum(variants) => variants
                .iter()
                .map(|(_, _, fields)| min_len_of(fields))
                .min()
                .unwrap_or(0)
                .saturating_add(1),
        }
    }

    /// Whether every sequence of [`ExactType::fixed_len`] bytes is a value, so that there is
    /// nothing to check but the length.
    #[must_use]
    pub(in crate::state) fn is_plain(&self) -> bool {
        match self {
            Self::U8
            | Self::U16
            | Self::U32
            | Self::U64
            | Self::I8
            | Self::I16
            | Self::I32
            | Self::I64
            | Self::NetId => true,
            Self::Array(element, _) => element.is_plain(),
            Self::Struct(fields) => fields.iter().all(|field| field.exact.is_plain()),
            Self::Bool
            | Self::F32
            | Self::F64
            | Self::Vec2
            | Self::Vec3
            | Self::Vec4
            | Self::Quat
            | Self::Option(_)
            | Self::List(_)
            | Self::Text
            | Self::Enum(_) => false,
        }
    }
}

/// As a Rust programmer would write it: `Option<u8>`, `[Vec3; 4]`, `{hp: u16, armour: u8}`.
impl fmt::Display for ExactType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool => f.write_str("bool"),
            Self::U8 => f.write_str("u8"),
            Self::U16 => f.write_str("u16"),
            Self::U32 => f.write_str("u32"),
            Self::U64 => f.write_str("u64"),
            Self::I8 => f.write_str("i8"),
            Self::I16 => f.write_str("i16"),
            Self::I32 => f.write_str("i32"),
            Self::I64 => f.write_str("i64"),
            Self::F32 => f.write_str("f32"),
            Self::F64 => f.write_str("f64"),
            Self::NetId => f.write_str("NetId"),
            Self::Vec2 => f.write_str("Vec2"),
            Self::Vec3 => f.write_str("Vec3"),
            Self::Vec4 => f.write_str("Vec4"),
            Self::Quat => f.write_str("Quat"),
            Self::Array(element, count) => write!(f, "[{element}; {count}]"),
            Self::Option(value) => write!(f, "Option<{value}>"),
            Self::List(element) => write!(f, "Vec<{element}>"),
            Self::Text => f.write_str("String"),
            Self::Struct(fields) => Fields(fields).fmt(f),
            Self::Enum(variants) => {
                for (index, (_, name, fields)) in variants.iter().enumerate() {
                    if index > 0 {
                        f.write_str(" | ")?;
                    }
                    f.write_str(name)?;
                    if !fields.is_empty() {
                        write!(f, " {}", Fields(fields))?;
                    }
                }
                Ok(())
            }
        }
    }
}

/// Shows fields as `{hp: u16, armour: u8}`, those of tuple structs as `(u16, u8)`.
pub(super) struct Fields<'a>(pub(super) &'a [FieldSchema]);

impl fmt::Display for Fields<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tuple = is_tuple(self.0);
        f.write_str(if tuple { "(" } else { "{" })?;
        for (index, field) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            if !tuple {
                write!(f, "{}: ", field.name)?;
            }
            field.exact.fmt(f)?;
            Declared(field).fmt(f)?;
        }
        f.write_str(if tuple { ")" } else { "}" })
    }
}

/// Shows what a field declares for the wire, with a space before: ` as 0..=100`,
/// ` as -32..=32 by 1/512, position`. Nothing if it declares nothing.
pub(super) struct Declared<'a>(pub(super) &'a FieldSchema);

impl fmt::Display for Declared<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.wire {
            WireForm::Exact => {}
            WireForm::Fixed { min, max, per_unit } => {
                write!(f, " as {min}..={max} by 1/{per_unit}")?;
            }
            WireForm::Range { min, max } => write!(f, " as {min}..={max}")?,
            WireForm::Varint => f.write_str(" as varint")?,
            WireForm::Half => f.write_str(" as half")?,
            WireForm::Unit { bits } => write!(f, " as unit {bits}")?,
            WireForm::Rotation { bits } => write!(f, " as rotation {bits}")?,
        }
        if self.0.prediction == Prediction::Last {
            f.write_str(", predicted as last")?;
        }
        if self.0.is_position {
            f.write_str(", position")?;
        }
        Ok(())
    }
}

/// Whether `fields` are those of a tuple struct: not none, and numbered.
pub(in crate::state) fn is_tuple(fields: &[FieldSchema]) -> bool {
    fields.first().is_some_and(|field| field.name == "0")
}

/// Bytes of the values of `fields` together, where that does not depend on the values.
pub(super) fn fixed_len_of(fields: &[FieldSchema]) -> Option<usize> {
    fields.iter().try_fold(0_usize, |sum, field| {
        sum.checked_add(field.exact.fixed_len()?)
    })
}

/// Bytes that the values of `fields` take together at least; saturates.
pub(super) fn min_len_of(fields: &[FieldSchema]) -> usize {
    fields.iter().fold(0_usize, |sum, field| {
        sum.saturating_add(field.exact.min_len())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_follow_the_layout() {
        let field = FieldSchema::new;
        let array = |element, count| ExactType::Array(Box::new(element), count);
        let row = ExactType::Struct(vec![
            field("a", ExactType::Vec3),
            field("b", array(ExactType::U16, 3)),
        ]);
        assert_eq!((row.fixed_len(), row.min_len()), (Some(18), 18));
        let choice = |fields| {
            ExactType::Enum(vec![
                (0, "A".to_owned(), vec![field("0", ExactType::U16)]),
                (1, "B".to_owned(), fields),
            ])
        };
        let even = choice(vec![field("0", ExactType::U8), field("1", ExactType::Bool)]);
        assert_eq!((even.fixed_len(), even.min_len()), (Some(3), 3));
        let uneven = choice(vec![]);
        assert_eq!((uneven.fixed_len(), uneven.min_len()), (None, 1));
        let list = ExactType::List(Box::new(ExactType::U8));
        assert_eq!((list.fixed_len(), list.min_len()), (None, 4));
        let mut huge = ExactType::U64;
        for _ in 0..15 {
            huge = array(huge, u16::MAX);
        }
        assert_eq!((huge.fixed_len(), huge.min_len()), (None, usize::MAX));
    }

    #[test]
    fn types_read_like_rust() {
        let field = FieldSchema::new;
        let text = ExactType::Struct(vec![
            field("items", ExactType::List(Box::new(ExactType::Text))),
            field(
                "order",
                ExactType::Option(Box::new(ExactType::Enum(vec![
                    (0, "Idle".to_owned(), vec![]),
                    (4, "Go".to_owned(), vec![field("0", ExactType::Vec2)]),
                ]))),
            ),
        ]);
        assert_eq!(
            text.to_string(),
            "{items: Vec<String>, order: Option<Idle | Go (Vec2)>}"
        );
    }
}
