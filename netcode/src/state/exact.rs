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

use std::collections::{BTreeMap, BTreeSet};

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
/// - `write_exact` appends bytes that [`Exact::exact_type`] describes, and equal values give equal
///   bytes.
/// - `read_exact` accepts these bytes only, takes all of them, and gives back an equal value.
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
    MemberId, u16, U16, |member| member.0, MemberId;
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

impl<T: Exact, const N: usize> Exact for [T; N] {
    fn exact_type() -> ExactType {
        const { assert!(N <= 65_535, "an exact array has at most 65535 elements") };
        let count = u16::try_from(N).expect("asserted on the line above");
        ExactType::Array(Box::new(T::exact_type()), count)
    }

    #[inline]
    fn write_exact(&self, out: &mut Vec<u8>) {
        self.iter().for_each(|value| value.write_exact(out));
    }

    #[inline]
    fn read_exact(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut values = [const { None }; N];
        for value in &mut values {
            *value = Some(T::read_exact(reader)?);
        }
        Ok(values.map(|value| value.expect("the loop above filled every place")))
    }

    #[inline(always)]
    fn hash_exact(&self, hasher: &mut ValueHasher) {
        for value in self {
            value.hash_exact(hasher);
        }
    }
}

impl<T: Exact> Exact for Option<T> {
    fn exact_type() -> ExactType {
        ExactType::Option(Box::new(T::exact_type()))
    }

    #[inline]
    fn write_exact(&self, out: &mut Vec<u8>) {
        self.is_some().write_exact(out);
        if let Some(value) = self {
            value.write_exact(out);
        }
    }

    #[inline]
    fn read_exact(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        if reader.bool()? {
            T::read_exact(reader).map(Some)
        } else {
            Ok(None)
        }
    }

    #[inline]
    fn hash_exact(&self, hasher: &mut ValueHasher) {
        self.is_some().hash_exact(hasher);
        if let Some(value) = self {
            value.hash_exact(hasher);
        }
    }
}

impl<T: Exact> Exact for Vec<T> {
    fn exact_type() -> ExactType {
        ExactType::List(Box::new(T::exact_type()))
    }

    fn write_exact(&self, out: &mut Vec<u8>) {
        count(self.len()).write_exact(out);
        self.iter().for_each(|value| value.write_exact(out));
    }

    fn read_exact(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let count = list_count(reader)?;
        // In memory an element can be much larger than its bytes, so the capacity is bounded by
        // the bytes at hand and grows only with elements that were really there.
        let mut values = Self::with_capacity(count.min(reader.len() / size_of::<T>().max(1)));
        for _ in 0..count {
            values.push(list_element(reader)?);
        }
        Ok(values)
    }

    #[inline]
    fn hash_exact(&self, hasher: &mut ValueHasher) {
        hasher.u32(count(self.len()));
        for value in self {
            value.hash_exact(hasher);
        }
    }
}

impl Exact for String {
    fn exact_type() -> ExactType {
        ExactType::Text
    }

    fn write_exact(&self, out: &mut Vec<u8>) {
        count(self.len()).write_exact(out);
        out.extend_from_slice(self.as_bytes());
    }

    fn read_exact(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        read_text(reader).map(str::to_owned)
    }

    #[inline]
    fn hash_exact(&self, hasher: &mut ValueHasher) {
        hasher.u32(count(self.len()));
        hasher.raw(self.as_bytes());
    }
}

impl<T: Exact + Ord> Exact for BTreeSet<T> {
    fn exact_type() -> ExactType {
        Vec::<T>::exact_type()
    }

    fn write_exact(&self, out: &mut Vec<u8>) {
        count(self.len()).write_exact(out);
        self.iter().for_each(|value| value.write_exact(out));
    }

    fn read_exact(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut values = Self::new();
        for _ in 0..list_count(reader)? {
            let value = list_element(reader)?;
            if values.last().is_some_and(|last| *last >= value) {
                return Err(KEYS_NOT_ASCENDING);
            }
            values.insert(value);
        }
        Ok(values)
    }

    #[inline]
    fn hash_exact(&self, hasher: &mut ValueHasher) {
        hasher.u32(count(self.len()));
        for value in self {
            value.hash_exact(hasher);
        }
    }
}

/// A list of structs with the fields `key` and `value`, keys strictly ascending.
impl<K: Exact + Ord, V: Exact> Exact for BTreeMap<K, V> {
    fn exact_type() -> ExactType {
        ExactType::List(Box::new(ExactType::Struct(vec![
            FieldSchema::new("key", K::exact_type()),
            FieldSchema::new("value", V::exact_type()),
        ])))
    }

    fn write_exact(&self, out: &mut Vec<u8>) {
        count(self.len()).write_exact(out);
        for (key, value) in self {
            key.write_exact(out);
            value.write_exact(out);
        }
    }

    fn read_exact(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut values = Self::new();
        for _ in 0..list_count(reader)? {
            let (key, value) = list_element(reader)?;
            if values
                .last_key_value()
                .is_some_and(|(last, _)| *last >= key)
            {
                return Err(KEYS_NOT_ASCENDING);
            }
            values.insert(key, value);
        }
        Ok(values)
    }

    #[inline]
    fn hash_exact(&self, hasher: &mut ValueHasher) {
        hasher.u32(count(self.len()));
        for (key, value) in self {
            key.hash_exact(hasher);
            value.hash_exact(hasher);
        }
    }
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
/// Keys of a map or set are out of order or repeat.
const KEYS_NOT_ASCENDING: DecodeError =
    DecodeError::Invalid("the keys of a map are not strictly ascending");
/// Values without bytes cannot be elements of a list: nothing would bound their number.
pub(super) const LIST_OF_NOTHING: DecodeError =
    DecodeError::Invalid("a list has elements that take no bytes");

/// A count as it stands before lists and texts.
fn count(len: usize) -> u32 {
    u32::try_from(len).expect("a list of 2^32 elements exceeds every limit on the state")
}

/// Reads the count of a list. Each element takes a byte at least, so more elements than bytes at
/// hand are refused before anything is allocated.
pub(super) fn list_count(reader: &mut Reader<'_>) -> Result<usize, DecodeError> {
    let count = usize::try_from(reader.u32()?).unwrap_or(usize::MAX);
    if count > reader.len() {
        return Err(DecodeError::Truncated);
    }
    Ok(count)
}

/// Reads one element of a list.
fn list_element<T: Exact>(reader: &mut Reader<'_>) -> Result<T, DecodeError> {
    let before = reader.len();
    let value = T::read_exact(reader)?;
    if reader.len() == before {
        return Err(LIST_OF_NOTHING);
    }
    Ok(value)
}

/// Reads a text in place.
pub(super) fn read_text<'a>(reader: &mut Reader<'a>) -> Result<&'a str, DecodeError> {
    let count = list_count(reader)?;
    core::str::from_utf8(reader.bytes(count)?)
        .map_err(|_not_utf8| DecodeError::Invalid("a text is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use core::fmt::Debug;

    use super::*;
    use crate::state::schema::tests::below;
    use crate::state::walk::tests::random_value;
    use crate::state::walk::{check, variant};

    /// Random bytes of `T`'s type are a value, give the same bytes back, and hash the same by
    /// value and by bytes; changed bytes are refused or are another value.
    fn agree<T: Exact + Debug>() {
        let exact = T::exact_type();
        for seed in 0..300 {
            let mut prng = Prng::with_stream(seed, 5);
            let mut bytes = Vec::new();
            random_value(&exact, &mut prng, &mut bytes);
            let context = || format!("{exact}, seed {seed}: {bytes:?}");
            let mut reader = Reader::new(&bytes);
            assert_eq!(check(&exact, &mut reader), Ok(()), "{}", context());
            assert_eq!(reader.finish(), Ok(()), "{}", context());
            if let Some(len) = exact.fixed_len() {
                assert_eq!(bytes.len(), len, "{}", context());
            }
            assert!(bytes.len() >= exact.min_len(), "{}", context());

            let mut reader = Reader::new(&bytes);
            let value = match T::read_exact(&mut reader) {
                Ok(value) => value,
                // Only the type knows this rule.
                Err(error) => {
                    assert_eq!(error, KEYS_NOT_ASCENDING, "{}", context());
                    continue;
                }
            };
            assert_eq!(reader.finish(), Ok(()), "{}", context());
            assert_eq!(written(&value), bytes, "{value:?}");
            let mut by_value = ValueHasher::new(seed);
            value.hash_exact(&mut by_value);
            let mut by_bytes = ValueHasher::new(seed);
            by_bytes.raw(&bytes);
            assert_eq!(by_value.finish(), by_bytes.finish(), "{value:?}");

            if !bytes.is_empty() {
                let at = below(&mut prng, bytes.len());
                let mut changed = bytes.clone();
                changed[at] ^= 1 << below(&mut prng, 8);
                changed.truncate(bytes.len() - usize::from(prng.chance_per_million(200_000)));
                let mut reader = Reader::new(&changed);
                let mut check_reader = Reader::new(&changed);
                let checked = check(&exact, &mut check_reader);
                if let Ok(other) = T::read_exact(&mut reader) {
                    assert_eq!(checked, Ok(()), "{}", context());
                    let taken = changed.len() - reader.len();
                    assert_eq!(check_reader.len(), reader.len(), "{}", context());
                    assert_eq!(written(&other), changed[..taken], "{other:?}");
                }
            }
        }
    }

    fn written<T: Exact>(value: &T) -> Vec<u8> {
        let mut bytes = Vec::new();
        value.write_exact(&mut bytes);
        bytes
    }

    /// What the derive expands to, in short.
    #[derive(Debug)]
    enum Choice {
        Nothing,
        Both(u8, Option<f32>),
    }

    impl Exact for Choice {
        fn exact_type() -> ExactType {
            let both = <(u8, Option<f32>)>::exact_type();
            let ExactType::Struct(fields) = both else {
                panic!("a tuple is a struct");
            };
            ExactType::Enum(vec![
                (2, "Nothing".to_owned(), vec![]),
                (4, "Both".to_owned(), fields),
            ])
        }

        fn write_exact(&self, out: &mut Vec<u8>) {
            match self {
                Self::Nothing => out.push(2),
                Self::Both(a, b) => {
                    out.push(4);
                    a.write_exact(out);
                    b.write_exact(out);
                }
            }
        }

        fn read_exact(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
            match reader.u8()? {
                2 => Ok(Self::Nothing),
                4 => Ok(Self::Both(
                    u8::read_exact(reader)?,
                    Option::read_exact(reader)?,
                )),
                _ => Err(DecodeError::Invalid("an unknown variant")),
            }
        }

        fn hash_exact(&self, hasher: &mut ValueHasher) {
            match self {
                Self::Nothing => hasher.u8(2),
                Self::Both(a, b) => {
                    hasher.u8(4);
                    a.hash_exact(hasher);
                    b.hash_exact(hasher);
                }
            }
        }
    }

    #[test]
    fn types_and_their_bytes_agree() {
        agree::<bool>();
        agree::<u8>();
        agree::<u16>();
        agree::<u32>();
        agree::<u64>();
        agree::<i8>();
        agree::<i16>();
        agree::<i32>();
        agree::<i64>();
        agree::<f32>();
        agree::<f64>();
        agree::<NetId>();
        agree::<Tick>();
        agree::<Prng>();
        agree::<Slot>();
        agree::<MemberId>();
        agree::<Term>();
        agree::<Vec2>();
        agree::<Vec3>();
        agree::<Vec4>();
        agree::<Quat>();
        agree::<(IVec2, IVec3, IVec4)>();
        agree::<(UVec2, UVec3, UVec4)>();
        agree::<()>();
        agree::<(u8,)>();
        agree::<(u8, u16, bool, Vec3)>();
        agree::<[u16; 5]>();
        agree::<[Option<u16>; 3]>();
        agree::<[u64; 0]>();
        agree::<Option<f64>>();
        agree::<Option<Option<bool>>>();
        agree::<Vec<u8>>();
        agree::<Vec<(Option<i16>, Vec<String>)>>();
        agree::<String>();
        agree::<BTreeSet<bool>>();
        agree::<BTreeMap<u64, String>>();
        agree::<BTreeMap<bool, Vec<f32>>>();
        agree::<Choice>();
        agree::<Vec<(u8, Choice)>>();
    }

    #[test]
    fn every_nan_is_written_as_one() {
        assert_eq!(written(&-f32::NAN), [0, 0, 0xc0, 0x7f]);
        assert_eq!(written(&f32::from_bits(0x7f80_0001)), [0, 0, 0xc0, 0x7f]);
        assert_eq!(written(&-f64::NAN), [0, 0, 0, 0, 0, 0, 0xf8, 0x7f]);
        assert_eq!(
            f32::read_exact(&mut Reader::new(&[0, 0, 0xc0, 0xff])),
            Err(NAN_NOT_CANONICAL)
        );
    }

    #[test]
    fn keys_must_ascend() {
        let of = |keys: &[u8]| {
            let bytes = written(&keys.to_vec());
            BTreeSet::<u8>::read_exact(&mut Reader::new(&bytes))
        };
        assert_eq!(of(&[1, 2, 9]), Ok(BTreeSet::from([1, 2, 9])));
        assert_eq!(of(&[1, 1]), Err(KEYS_NOT_ASCENDING));
        assert_eq!(of(&[2, 1]), Err(KEYS_NOT_ASCENDING));
        let pairs = |pairs: &[(u8, bool)]| {
            let bytes = written(&pairs.to_vec());
            BTreeMap::<u8, bool>::read_exact(&mut Reader::new(&bytes))
        };
        assert_eq!(pairs(&[(1, true), (2, false)]).map(|map| map.len()), Ok(2));
        assert_eq!(pairs(&[(2, true), (2, false)]), Err(KEYS_NOT_ASCENDING));
    }

    #[test]
    fn hostile_counts_are_refused() {
        let huge = [0xff, 0xff, 0xff, 0xff, 1, 2, 3];
        let truncated = Some(DecodeError::Truncated);
        let error = |result: Result<usize, DecodeError>| result.err();
        let mut reader = Reader::new(&huge);
        assert_eq!(
            error(Vec::<u8>::read_exact(&mut reader).map(|v| v.len())),
            truncated
        );
        let mut reader = Reader::new(&huge);
        assert_eq!(
            error(String::read_exact(&mut reader).map(|v| v.len())),
            truncated
        );
        // Elements without bytes would make a count of any size plausible.
        let mut reader = Reader::new(&[2, 0, 0, 0, 1, 2]);
        assert_eq!(Vec::<()>::read_exact(&mut reader), Err(LIST_OF_NOTHING));
        let mut reader = Reader::new(&[2, 0, 0, 0, 1, 2]);
        assert_eq!(
            Vec::<[u8; 0]>::read_exact(&mut reader),
            Err(LIST_OF_NOTHING)
        );
    }

    #[test]
    fn an_element_larger_than_its_bytes_reserves_no_more_than_them() {
        // 100 elements may follow, each of 1 byte at least, but of 1 KiB in memory.
        let mut bytes = vec![100, 0, 0, 0];
        bytes.extend([0; 100]);
        let mut reader = Reader::new(&bytes);
        let values = Vec::<Option<[u64; 128]>>::read_exact(&mut reader).unwrap();
        assert_eq!(values.len(), 100);
        bytes[4] = 7;
        let mut reader = Reader::new(&bytes);
        assert!(Vec::<Option<[u64; 128]>>::read_exact(&mut reader).is_err());
    }

    #[test]
    fn variants_are_found_by_tag() {
        let ExactType::Enum(variants) = Choice::exact_type() else {
            panic!("an enum");
        };
        assert_eq!(variant(&variants, 4).map(|(name, _)| name), Ok("Both"));
        assert!(variant(&variants, 3).is_err());
    }
}
