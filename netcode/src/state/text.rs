//! Exact bytes as text for people.

use core::fmt::{Display, Write};

use crate::id::NetId;
use crate::wire::bytes::{DecodeError, Reader};

use super::exact::{list_count, read_text};
use super::schema::{ExactType, FieldSchema, is_tuple};
use super::walk::variant;

/// The values of `fields` as Rust would show them: `{hp: 5, order: Move {to: (0.5, 1.0)}}`. A
/// single field of a tuple struct or an enum stands alone. Bytes that are no such values are shown
/// as they are, in hexadecimal.
pub(super) fn row_text(fields: &[FieldSchema], row: &[u8]) -> String {
    let mut reader = Reader::new(row);
    let mut text = String::new();
    let result = match fields {
        [field] if field.name == "0" || field.name == "value" => {
            put_value(&field.exact, &mut reader, &mut text)
        }
        _ => put_fields(fields, &mut reader, &mut text),
    };
    if result.and_then(|()| reader.finish()).is_ok() {
        text
    } else {
        hexadecimal(row)
    }
}

/// The value of type `exact`, as [`row_text`].
pub(super) fn value_text(exact: &ExactType, value: &[u8]) -> String {
    let mut reader = Reader::new(value);
    let mut text = String::new();
    let result = put_value(exact, &mut reader, &mut text);
    if result.and_then(|()| reader.finish()).is_ok() {
        text
    } else {
        hexadecimal(value)
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold("0x".to_owned(), |mut text, byte| {
        put(&mut text, format_args!("{byte:02x}"));
        text
    })
}

/// Appends what a string always takes.
fn put(out: &mut String, text: impl Display) {
    write!(out, "{text}").expect("a string takes all that is written");
}

fn put_value(
    exact: &ExactType,
    reader: &mut Reader<'_>,
    out: &mut String,
) -> Result<(), DecodeError> {
    match exact {
        ExactType::Bool => put(out, reader.bool()?),
        ExactType::U8 => put(out, reader.u8()?),
        ExactType::U16 => put(out, reader.u16()?),
        ExactType::U32 => put(out, reader.u32()?),
        ExactType::U64 => put(out, reader.u64()?),
        ExactType::I8 => put(out, i8::from_le_bytes(reader.array()?)),
        ExactType::I16 => put(out, i16::from_le_bytes(reader.array()?)),
        ExactType::I32 => put(out, i32::from_le_bytes(reader.array()?)),
        ExactType::I64 => put(out, i64::from_le_bytes(reader.array()?)),
        // `{:?}` is the shortest text that gives the same bits back, `-0.0` included.
        ExactType::F32 => put(out, format_args!("{:?}", f32::from_bits(reader.u32()?))),
        ExactType::F64 => put(out, format_args!("{:?}", f64::from_bits(reader.u64()?))),
        ExactType::NetId => match NetId::from_bits(reader.u64()?) {
            NetId::NONE => put(out, "#none"),
            id => put(out, format_args!("#{id}")),
        },
        ExactType::Vec2 => put_list(&ExactType::F32, 2, ('(', ')'), reader, out)?,
        ExactType::Vec3 => put_list(&ExactType::F32, 3, ('(', ')'), reader, out)?,
        ExactType::Vec4 | ExactType::Quat => {
            put_list(&ExactType::F32, 4, ('(', ')'), reader, out)?;
        }
        ExactType::Array(element, count) => {
            put_list(element, usize::from(*count), ('[', ']'), reader, out)?;
        }
        ExactType::List(element) => {
            let count = list_count(reader)?;
            put_list(element, count, ('[', ']'), reader, out)?;
        }
        ExactType::Option(value) => {
            if reader.bool()? {
                out.push_str("Some(");
                put_value(value, reader, out)?;
                out.push(')');
            } else {
                out.push_str("None");
            }
        }
        ExactType::Text => put(out, format_args!("{:?}", read_text(reader)?)),
        ExactType::Struct(fields) => put_fields(fields, reader, out)?,
        ExactType::Enum(variants) => {
            let (name, fields) = variant(variants, reader.u8()?)?;
            out.push_str(name);
            if !fields.is_empty() {
                if !is_tuple(fields) {
                    out.push(' ');
                }
                put_fields(fields, reader, out)?;
            }
        }
    }
    Ok(())
}

fn put_fields(
    fields: &[FieldSchema],
    reader: &mut Reader<'_>,
    out: &mut String,
) -> Result<(), DecodeError> {
    let tuple = is_tuple(fields);
    out.push(if tuple { '(' } else { '{' });
    for (index, field) in fields.iter().enumerate() {
        if index > 0 {
            out.push_str(", ");
        }
        if !tuple {
            put(out, format_args!("{}: ", field.name));
        }
        put_value(&field.exact, reader, out)?;
    }
    out.push(if tuple { ')' } else { '}' });
    Ok(())
}

fn put_list(
    element: &ExactType,
    count: usize,
    (open, close): (char, char),
    reader: &mut Reader<'_>,
    out: &mut String,
) -> Result<(), DecodeError> {
    out.push(open);
    for index in 0..count {
        if index > 0 {
            out.push_str(", ");
        }
        put_value(element, reader, out)?;
    }
    out.push(close);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prng::Prng;
    use crate::state::schema::tests::random_type;
    use crate::state::walk::tests::random_value;

    #[test]
    fn values_read_like_rust() {
        let field = FieldSchema::new;
        let order = ExactType::Enum(vec![
            (0, "Idle".to_owned(), vec![]),
            (2, "Go".to_owned(), vec![field("to", ExactType::Vec2)]),
            (5, "Hit".to_owned(), vec![field("0", ExactType::NetId)]),
        ]);
        let fields = [
            field("hp", ExactType::I16),
            field("orders", ExactType::List(Box::new(order))),
            field("name", ExactType::Option(Box::new(ExactType::Text))),
        ];
        let row = [
            &[0xff, 0xff][..],
            &[4, 0, 0, 0],
            &[0],
            &[2, 0, 0, 0, 0x80, 0, 0, 0xc0, 0x3f],
            &[5, 7, 0, 0, 0, 1, 0, 0, 0],
            &[5, 0, 0, 0, 0, 0, 0, 0, 0],
            &[1, 2, 0, 0, 0, b'a', 0x1b],
        ]
        .concat();
        assert_eq!(
            row_text(&fields, &row),
            "{hp: -1, orders: [Idle, Go {to: (-0.0, 1.5)}, Hit(#1.7), Hit(#none)], \
             name: Some(\"a\\u{1b}\")}"
        );
        assert_eq!(row_text(&fields, &[1, 2]), "0x0102");
        assert_eq!(row_text(&[], &[]), "{}");
        assert_eq!(row_text(&[field("0", ExactType::U8)], &[7]), "7");
        assert_eq!(
            row_text(
                &[field("0", ExactType::U8), field("1", ExactType::Bool)],
                &[7, 1]
            ),
            "(7, true)"
        );
    }

    #[test]
    fn every_value_has_a_text() {
        for seed in 0..3000 {
            let mut prng = Prng::new(seed);
            let exact = random_type(&mut prng, 0);
            let mut value = Vec::new();
            random_value(&exact, &mut prng, &mut value);
            let text = value_text(&exact, &value);
            assert!(!text.starts_with("0x"), "seed {seed}: {exact}: {text}");
        }
    }
}
