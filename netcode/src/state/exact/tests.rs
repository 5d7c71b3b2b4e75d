//! Types, their bytes and their hashes agree.

use core::fmt::Debug;

use std::collections::{BTreeMap, BTreeSet};

use super::collections::KEYS_NOT_ASCENDING;
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
