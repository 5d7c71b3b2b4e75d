//! Walks over exact bytes that a schema guides: no Rust type is at hand.

use crate::hash::{canonical_f32_bits, canonical_f64_bits};
use crate::wire::bytes::{DecodeError, Reader};

use super::exact::{LIST_OF_NOTHING, NAN_NOT_CANONICAL, list_count, read_text};
use super::schema::{ExactType, FieldSchema};

/// Takes one value of type `exact`, and checks that its bytes are the one form of a value.
///
/// What only the Rust type knows is not checked: that the keys of a map ascend.
///
/// The type is one of a [`Schema`](super::Schema), so its depth is limited and its elements take
/// bytes: the work is bounded by the bytes at hand times the fields of the kind.
pub(super) fn check(exact: &ExactType, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
    match exact {
        ExactType::Bool => reader.bool().map(drop),
        ExactType::U8 | ExactType::I8 => reader.bytes(1).map(drop),
        ExactType::U16 | ExactType::I16 => reader.bytes(2).map(drop),
        ExactType::U32 | ExactType::I32 => reader.bytes(4).map(drop),
        ExactType::U64 | ExactType::I64 | ExactType::NetId => reader.bytes(8).map(drop),
        ExactType::F32 => check_f32s(1, reader),
        ExactType::Vec2 => check_f32s(2, reader),
        ExactType::Vec3 => check_f32s(3, reader),
        ExactType::Vec4 | ExactType::Quat => check_f32s(4, reader),
        ExactType::F64 => {
            let bits = reader.u64()?;
            if bits == canonical_f64_bits(f64::from_bits(bits)) {
                Ok(())
            } else {
                Err(NAN_NOT_CANONICAL)
            }
        }
        ExactType::Array(element, count) => check_elements(element, usize::from(*count), reader),
        ExactType::Option(value) => {
            if reader.bool()? {
                check(value, reader)?;
            }
            Ok(())
        }
        ExactType::List(element) => {
            let count = list_count(reader)?;
            check_elements(element, count, reader)
        }
        ExactType::Text => read_text(reader).map(drop),
        ExactType::Struct(fields) => check_fields(fields, reader),
        ExactType::Enum(variants) => {
            let (_, fields) = variant(variants, reader.u8()?)?;
            check_fields(fields, reader)
        }
    }
}

/// Takes the values of `fields`, as [`check`].
pub(super) fn check_fields(
    fields: &[FieldSchema],
    reader: &mut Reader<'_>,
) -> Result<(), DecodeError> {
    fields
        .iter()
        .try_for_each(|field| check(&field.exact, reader))
}

/// The name and the fields of the variant with this tag.
pub(super) fn variant(
    variants: &[(u8, String, Vec<FieldSchema>)],
    tag: u8,
) -> Result<(&str, &[FieldSchema]), DecodeError> {
    variants
        .binary_search_by_key(&tag, |(tag, _, _)| *tag)
        .map(|index| {
            let (_, name, fields) = &variants[index];
            (name.as_str(), fields.as_slice())
        })
        .map_err(|_unknown| DecodeError::Invalid("an enum has an unknown tag"))
}

fn check_elements(
    element: &ExactType,
    count: usize,
    reader: &mut Reader<'_>,
) -> Result<(), DecodeError> {
    if element.is_plain() {
        let len = element.fixed_len().and_then(|len| len.checked_mul(count));
        return reader.bytes(len.ok_or(DecodeError::Truncated)?).map(drop);
    }
    for _ in 0..count {
        let before = reader.len();
        check(element, reader)?;
        if reader.len() == before {
            return Err(LIST_OF_NOTHING);
        }
    }
    Ok(())
}

fn check_f32s(count: usize, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
    for _ in 0..count {
        let bits = reader.u32()?;
        if bits != canonical_f32_bits(f32::from_bits(bits)) {
            return Err(NAN_NOT_CANONICAL);
        }
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::prng::Prng;
    use crate::state::schema::tests::below;

    /// Appends the bytes of a random value.
    pub(in crate::state) fn random_value(exact: &ExactType, prng: &mut Prng, out: &mut Vec<u8>) {
        let float = |prng: &mut Prng, out: &mut Vec<u8>, count: usize| {
            for _ in 0..count {
                let value = match below(prng, 5) {
                    0 => f32::NAN,
                    1 => -0.0,
                    2 => f32::INFINITY,
                    _ => f32::from_bits(prng.next_u32()),
                };
                out.extend_from_slice(&canonical_f32_bits(value).to_le_bytes());
            }
        };
        let random = |prng: &mut Prng, out: &mut Vec<u8>, count: usize| {
            out.extend_from_slice(&prng.next_u64().to_le_bytes()[..count]);
        };
        let small = |prng: &mut Prng, out: &mut Vec<u8>| {
            let count = u32::try_from(prng.below(4)).unwrap();
            out.extend_from_slice(&count.to_le_bytes());
            count
        };
        match exact {
            ExactType::Bool => out.push(u8::from(prng.chance_per_million(500_000))),
            ExactType::U8 | ExactType::I8 => random(prng, out, 1),
            ExactType::U16 | ExactType::I16 => random(prng, out, 2),
            ExactType::U32 | ExactType::I32 => random(prng, out, 4),
            ExactType::U64 | ExactType::I64 | ExactType::NetId => random(prng, out, 8),
            ExactType::F32 => float(prng, out, 1),
            ExactType::Vec2 => float(prng, out, 2),
            ExactType::Vec3 => float(prng, out, 3),
            ExactType::Vec4 | ExactType::Quat => float(prng, out, 4),
            ExactType::F64 => {
                let bits = canonical_f64_bits(f64::from_bits(prng.next_u64()));
                out.extend_from_slice(&bits.to_le_bytes());
            }
            ExactType::Array(element, count) => {
                (0..*count).for_each(|_| random_value(element, prng, out));
            }
            ExactType::Option(value) => {
                let some = prng.chance_per_million(500_000);
                out.push(u8::from(some));
                if some {
                    random_value(value, prng, out);
                }
            }
            ExactType::List(element) => {
                (0..small(prng, out)).for_each(|_| random_value(element, prng, out));
            }
            ExactType::Text => {
                for _ in 0..small(prng, out) {
                    out.push(b'a' + u8::try_from(prng.below(26)).unwrap());
                }
            }
            ExactType::Struct(fields) => {
                for field in fields {
                    random_value(&field.exact, prng, out);
                }
            }
            ExactType::Enum(variants) => {
                let (tag, _, fields) = &variants[below(prng, variants.len())];
                out.push(*tag);
                for field in fields {
                    random_value(&field.exact, prng, out);
                }
            }
        }
    }

    #[test]
    fn bytes_that_are_no_value_are_refused() {
        let list = |element| ExactType::List(Box::new(element));
        let choice = ExactType::Enum(vec![(3, "A".to_owned(), vec![])]);
        let cases: [(ExactType, &[u8]); 8] = [
            (ExactType::Bool, &[2]),
            (ExactType::F32, &[1, 0, 0xc0, 0x7f]),
            (ExactType::F32, &[0, 0, 0xc0, 0xff]),
            (ExactType::F64, &[1, 0, 0, 0, 0, 0, 0xf8, 0x7f]),
            (ExactType::Option(Box::new(ExactType::U8)), &[2, 0]),
            (ExactType::Text, &[1, 0, 0, 0, 0xff]),
            (list(ExactType::U16), &[2, 0, 0, 0, 1, 1, 1]),
            (choice, &[0]),
        ];
        for (exact, bytes) in cases {
            assert!(
                check(&exact, &mut Reader::new(bytes)).is_err(),
                "{exact}: {bytes:?}"
            );
        }
    }
}
