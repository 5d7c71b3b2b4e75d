//! Values with exactly one byte form.
//!
//! [`Exact`] ties a Rust type to an [`ExactType`]: it writes the value's bytes, reads them back
//! from bytes that nobody vouches for, and feeds the same bytes to a hash without building them.
//! [`Networked`] makes a type a component or resource of a schema. Both are derived:
//! `#[derive(Exact)]`, `#[derive(Networked)]` in crate `phalanx`.
//!
//! # Value hash
//! The hash of a row is [`ValueHasher`] with the kind's salt ([`kind_salt`](super::kind_salt)) fed
//! with the row's exact bytes. [`Exact::hash_exact`] delivers these bytes as numbers of their own
//! width, so a snapshot, which knows bytes only, and an ECS, which knows values only, agree.

mod collections;

pub(super) use collections::{LIST_OF_NOTHING, list_count, read_text};

use glam::{IVec2, IVec3, IVec4, Quat, UVec2, UVec3, UVec4, Vec2, Vec3, Vec4};

use crate::hash::{ValueHasher, canonical_f32_bits, canonical_f64_bits};
use crate::id::{MemberId, NetId, Slot, Term};
use crate::prng::Prng;
use crate::tick::Tick;
use crate::wire::bytes::{DecodeError, Reader};

use super::schema::{ExactType, FieldSchema, Visibility};

/// A value with exactly one byte form.
///
/// # Contract
/// - `write_exact` appends bytes that [`Exact::exact_type`] describes; a value that was read from
///   bytes writes the same bytes again.
/// - `read_exact` accepts such bytes only, and takes all of them.
/// - `hash_exact` feeds the hasher with these bytes, in any partition.
/// - The type is not recursive: a list of itself has no finite [`ExactType`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no exact form",
    note = "derive `Exact` for structs and enums; use fixed-width integers instead of `usize`, \
            `BTreeMap` instead of `HashMap`, `NetId` instead of `Entity`"
)]
pub trait Exact: Sized {
    /// The layout of the bytes.
    fn exact_type() -> ExactType;

    /// Appends the value's bytes.
    fn write_exact(&self, out: &mut Vec<u8>);

    /// Reads a value.
    ///
    /// # Errors
    /// If the bytes end too early or are not the form of a value.
    fn read_exact(reader: &mut Reader<'_>) -> Result<Self, DecodeError>;

    /// Feeds the value's bytes to `hasher`, without allocating.
    fn hash_exact(&self, hasher: &mut ValueHasher);
}

/// A component or resource of the schema.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a networked component or resource",
    note = "derive `Networked` for it"
)]
pub trait Networked: Exact {
    /// Its name, unique in the schema and stable across builds.
    const NAME: &'static str;
    /// Raised when the meaning changes and the layout does not.
    const VERSION: u16;
    /// Who may hold it.
    const VISIBILITY: Visibility;

    /// Its fields in order; the row is their concatenation. A type without fields of its own, such
    /// as an enum, is one field named `value`.
    fn fields() -> Vec<FieldSchema>;
}

/// `Exact` for numbers: their type, their method of `ValueHasher` and its type.
macro_rules! exact_number {
    ($($number:ty, $exact:ident, $hash:ident, $word:ty;)*) => {$(
        impl Exact for $number {
            fn exact_type() -> ExactType {
                ExactType::$exact
            }

            #[inline]
            fn write_exact(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }

            #[inline]
            fn read_exact(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
                Ok(Self::from_le_bytes(reader.array()?))
            }

            #[inline(always)]
            fn hash_exact(&self, hasher: &mut ValueHasher) {
                hasher.$hash(<$word>::from_le_bytes(self.to_le_bytes()));
            }
        }
    )*};
}

exact_number! {
    u8, U8, u8, u8;
    u16, U16, u16, u16;
    u32, U32, u32, u32;
    u64, U64, word, u64;
    i8, I8, u8, u8;
    i16, I16, u16, u16;
    i32, I32, u32, u32;
    i64, I64, word, u64;
}

impl Exact for bool {
    fn exact_type() -> ExactType {
        ExactType::Bool
    }

    #[inline]
    fn write_exact(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }

    #[inline]
    fn read_exact(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.bool()
    }

    #[inline(always)]
    fn hash_exact(&self, hasher: &mut ValueHasher) {
        hasher.u8(u8::from(*self));
    }
}

impl Exact for f32 {
    fn exact_type() -> ExactType {
        ExactType::F32
    }

    #[inline]
    fn write_exact(&self, out: &mut Vec<u8>) {
        canonical_f32_bits(*self).write_exact(out);
    }

    #[inline]
    fn read_exact(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let value = Self::from_le_bytes(reader.array()?);
        if value.to_bits() == canonical_f32_bits(value) {
            Ok(value)
        } else {
            Err(NAN_NOT_CANONICAL)
        }
    }

    #[inline(always)]
    fn hash_exact(&self, hasher: &mut ValueHasher) {
        hasher.float32(*self);
    }
}

impl Exact for f64 {
    fn exact_type() -> ExactType {
        ExactType::F64
    }

    #[inline]
    fn write_exact(&self, out: &mut Vec<u8>) {
        canonical_f64_bits(*self).write_exact(out);
    }

    #[inline]
    fn read_exact(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let value = Self::from_le_bytes(reader.array()?);
        if value.to_bits() == canonical_f64_bits(value) {
            Ok(value)
        } else {
            Err(NAN_NOT_CANONICAL)
        }
    }

    #[inline(always)]
    fn hash_exact(&self, hasher: &mut ValueHasher) {
        hasher.float64(*self);
    }
}

/// `Exact` for types that wrap one exact value: how to unwrap and wrap it.
macro_rules! exact_newtype {
    ($($outer:ty, $inner:ty, $exact:ident, $unwrap:expr, $wrap:expr;)*) => {$(
        impl Exact for $outer {
            fn exact_type() -> ExactType {
                ExactType::$exact
            }

            #[inline]
            fn write_exact(&self, out: &mut Vec<u8>) {
                let unwrap: fn(&Self) -> $inner = $unwrap;
                unwrap(self).write_exact(out);
            }

            #[inline]
            fn read_exact(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
                <$inner>::read_exact(reader).map($wrap)
            }

            #[inline(always)]
            fn hash_exact(&self, hasher: &mut ValueHasher) {
                let unwrap: fn(&Self) -> $inner = $unwrap;
                unwrap(self).hash_exact(hasher);
            }
        }
    )*};
}

exact_newtype! {
    NetId, u64, NetId, |id| id.bits(), NetId::from_bits;
    Tick, u32, U32, |tick| tick.number(), Tick::new;
    Prng, u64, U64, |prng| prng.state(), Prng::new;
    Slot, u8, U8, |slot| slot.0, Slot;
    MemberId, u64, U64, |member| member.0, MemberId;
    Term, u32, U32, |term| term.0, Term;
}

/// `Exact` for vectors: as the array of their parts.
macro_rules! exact_vector {
    ($($vector:ty, $part:ty, $count:literal, $exact:expr;)*) => {$(
        impl Exact for $vector {
            fn exact_type() -> ExactType {
                $exact
            }

            #[inline]
            fn write_exact(&self, out: &mut Vec<u8>) {
                self.to_array().write_exact(out);
            }

            #[inline]
            fn read_exact(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
                <[$part; $count]>::read_exact(reader).map(Self::from_array)
            }

            #[inline(always)]
            fn hash_exact(&self, hasher: &mut ValueHasher) {
                self.to_array().hash_exact(hasher);
            }
        }
    )*};
}

exact_vector! {
    Vec2, f32, 2, ExactType::Vec2;
    Vec3, f32, 3, ExactType::Vec3;
    Vec4, f32, 4, ExactType::Vec4;
    Quat, f32, 4, ExactType::Quat;
    IVec2, i32, 2, <[i32; 2]>::exact_type();
    IVec3, i32, 3, <[i32; 3]>::exact_type();
    IVec4, i32, 4, <[i32; 4]>::exact_type();
    UVec2, u32, 2, <[u32; 2]>::exact_type();
    UVec3, u32, 3, <[u32; 3]>::exact_type();
    UVec4, u32, 4, <[u32; 4]>::exact_type();
}

/// `Exact` for tuples: a struct with the fields `0`, `1` …
macro_rules! exact_tuple {
    ($($name:ident $index:tt),*) => {
        impl<$($name: Exact),*> Exact for ($($name,)*) {
            fn exact_type() -> ExactType {
                ExactType::Struct(vec![
                    $(FieldSchema::new(stringify!($index), $name::exact_type())),*
                ])
            }

            #[inline]
            fn write_exact(&self, out: &mut Vec<u8>) {
                $(self.$index.write_exact(out);)*
            }

            #[inline]
            fn read_exact(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
                Ok(($($name::read_exact(reader)?,)*))
            }

            #[inline(always)]
            fn hash_exact(&self, hasher: &mut ValueHasher) {
                $(self.$index.hash_exact(hasher);)*
            }
        }
    };
}

impl Exact for () {
    fn exact_type() -> ExactType {
        ExactType::Struct(Vec::new())
    }

    fn write_exact(&self, _out: &mut Vec<u8>) {}

    fn read_exact(_reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(())
    }

    fn hash_exact(&self, _hasher: &mut ValueHasher) {}
}

exact_tuple!(A 0);
exact_tuple!(A 0, B 1);
exact_tuple!(A 0, B 1, C 2);
exact_tuple!(A 0, B 1, C 2, D 3);

/// A NaN with another sign or payload than the canonical one.
pub(super) const NAN_NOT_CANONICAL: DecodeError =
    DecodeError::Invalid("a NaN is not the canonical one");

#[cfg(test)]
mod tests;
