//! What types are made of, for code that goes down to their scalars and treats those alike.

use super::{ExactType, FieldSchema};

/// The parts of a type; see [`ExactType::parts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::state) enum Parts<'a> {
    /// None: one number, flag or reference.
    Scalar,
    /// So many F32, with these names.
    Floats(&'static [&'static str]),
    /// Letters.
    Text,
    /// So many values of one type.
    Array(&'a ExactType, u16),
    /// A value, or none.
    Option(&'a ExactType),
    /// Any number of values of one type.
    List(&'a ExactType),
    /// Fields in order.
    Struct(&'a [FieldSchema]),
    /// The fields of one of these variants.
    Enum(&'a [(u8, String, Vec<FieldSchema>)]),
}

impl ExactType {
    /// What the type is made of.
    pub(in crate::state) fn parts(&self) -> Parts<'_> {
        match self {
            Self::Bool
            | Self::U8
            | Self::U16
            | Self::U32
            | Self::U64
            | Self::I8
            | Self::I16
            | Self::I32
            | Self::I64
            | Self::F32
            | Self::F64
            | Self::NetId => Parts::Scalar,
            Self::Vec2 => Parts::Floats(&["x", "y"]),
            Self::Vec3 => Parts::Floats(&["x", "y", "z"]),
            Self::Vec4 | Self::Quat => Parts::Floats(&["x", "y", "z", "w"]),
            Self::Text => Parts::Text,
            Self::Array(element, count) => Parts::Array(element, *count),
            Self::Option(value) => Parts::Option(value),
            Self::List(element) => Parts::List(element),
            Self::Struct(fields) => Parts::Struct(fields),
            Self::Enum(variants) => Parts::Enum(variants),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_as_long_as_their_names_say_and_scalars_have_a_length() {
        for exact in [
            ExactType::Vec2,
            ExactType::Vec3,
            ExactType::Vec4,
            ExactType::Quat,
        ] {
            let Parts::Floats(names) = exact.parts() else {
                panic!("{exact}");
            };
            assert_eq!(exact.fixed_len(), Some(4 * names.len()), "{exact}");
        }
        assert_eq!(ExactType::NetId.parts(), Parts::Scalar);
        assert!(ExactType::NetId.fixed_len().is_some());
        assert_eq!(ExactType::Text.parts(), Parts::Text);
    }
}
