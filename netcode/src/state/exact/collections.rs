//! Values made of several values of one type.
//!
//! A hostile count reserves no more memory than the bytes at hand justify, and elements without
//! bytes are refused, since nothing would bound their number.

use std::collections::{BTreeMap, BTreeSet};

use crate::hash::ValueHasher;
use crate::wire::bytes::{DecodeError, Reader};

use super::{Exact, ExactType, FieldSchema};

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

/// Keys of a map or set are out of order or repeat.
pub(super) const KEYS_NOT_ASCENDING: DecodeError =
    DecodeError::Invalid("the keys of a map are not strictly ascending");
/// Values without bytes cannot be elements of a list: nothing would bound their number.
pub(in crate::state) const LIST_OF_NOTHING: DecodeError =
    DecodeError::Invalid("a list has elements that take no bytes");

/// A count as it stands before lists and texts.
fn count(len: usize) -> u32 {
    u32::try_from(len).expect("a list of 2^32 elements exceeds every limit on the state")
}

/// Reads the count of a list. Each element takes a byte at least, so more elements than bytes at
/// hand are refused before anything is allocated.
pub(in crate::state) fn list_count(reader: &mut Reader<'_>) -> Result<usize, DecodeError> {
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
pub(in crate::state) fn read_text<'a>(reader: &mut Reader<'a>) -> Result<&'a str, DecodeError> {
    let count = list_count(reader)?;
    core::str::from_utf8(reader.bytes(count)?)
        .map_err(|_not_utf8| DecodeError::Invalid("a text is not UTF-8"))
}
