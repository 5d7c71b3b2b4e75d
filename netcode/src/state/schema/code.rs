//! The canonical bytes of a schema: for its digest, for handshakes and for files.
//!
//! | part | form |
//! |---|---|
//! | form | u8: 2 |
//! | kinds | varint count, then kinds, by name strictly ascending |
//! | kind | name, version (varint), shape (u8: 0 component, 1 resource), visibility (u8: 0 client, 1 host only, 2 derived, 3 local), fields |
//! | fields | varint count, then per field: name, type, wire |
//! | wire | u8: low four bits the wire form (0 exact, 1 fixed, 2 range, 3 varint, 4 half, 5 unit, 6 rotation), `10` predicted as last, `20` position; then per form: fixed: min, max (zigzag varints), steps per unit (varint); range: min, max (zigzag varints); unit, rotation: bits (u8) |
//! | name | varint count of bytes, then UTF-8 |
//! | type | u8 code (constants below), then per code: array: count (varint), type; option, list: type; struct: fields; enum: varint count, then per variant: tag (u8), name, fields |

use crate::hash::digest;
use crate::limits::{FIELDS_MAX, KINDS_MAX, NAME_BYTES_MAX, SCHEMA_BYTES_MAX, TYPE_DEPTH_MAX};
use crate::wire::bytes::{DecodeError, Reader, put_counted, put_varint};

use super::{
    ExactType, FieldSchema, KindSchema, KindShape, Prediction, Schema, Visibility, WireForm,
};

/// Version of this form.
const FORM: u8 = 2;

const BOOL: u8 = 0x01;
const U8: u8 = 0x02;
const U16: u8 = 0x03;
const U32: u8 = 0x04;
const U64: u8 = 0x05;
const I8: u8 = 0x06;
const I16: u8 = 0x07;
const I32: u8 = 0x08;
const I64: u8 = 0x09;
const F32: u8 = 0x0a;
const F64: u8 = 0x0b;
const NET_ID: u8 = 0x0c;
const VEC2: u8 = 0x0d;
const VEC3: u8 = 0x0e;
const VEC4: u8 = 0x0f;
const QUAT: u8 = 0x10;
const ARRAY: u8 = 0x11;
const OPTION: u8 = 0x12;
const LIST: u8 = 0x13;
const TEXT: u8 = 0x14;
const STRUCT: u8 = 0x15;
const ENUM: u8 = 0x16;

const WIRE_EXACT: u8 = 0;
const WIRE_FIXED: u8 = 1;
const WIRE_RANGE: u8 = 2;
const WIRE_VARINT: u8 = 3;
const WIRE_HALF: u8 = 4;
const WIRE_UNIT: u8 = 5;
const WIRE_ROTATION: u8 = 6;
const WIRE_LAST: u8 = 0x10;
const WIRE_POSITION: u8 = 0x20;

impl Schema {
    /// Appends the canonical bytes. [`Schema::hash`] is their digest.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(FORM);
        put_varint(out, self.kinds.len() as u64);
        for kind in &self.kinds {
            put_counted(out, kind.name.as_bytes());
            put_varint(out, u64::from(kind.version));
            out.push(match kind.shape {
                KindShape::Component => 0,
                KindShape::Resource => 1,
            });
            out.push(match kind.visibility {
                Visibility::Client => 0,
                Visibility::HostOnly => 1,
                Visibility::Derived => 2,
                Visibility::Local => 3,
            });
            put_fields(out, &kind.fields);
        }
    }

    /// Reads a schema; what follows it stays in the reader.
    ///
    /// # Errors
    /// If the bytes end too early, are not canonical, or exceed a limit.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let start = reader.rest();
        let window = &start[..start.len().min(SCHEMA_BYTES_MAX)];
        let mut schema_reader = Reader::new(window);
        let kinds = read_kinds(&mut schema_reader)?;
        let taken = window.len() - schema_reader.len();
        // `new` sorts; the digest below is that of the bytes that were read, so they must have
        // been in order.
        if !kinds.is_sorted_by(|a, b| a.name < b.name) {
            return Err(DecodeError::Invalid(
                "the kinds of a schema are out of order",
            ));
        }
        let schema = Self::new(kinds)
            .map_err(|_broken| DecodeError::Invalid("a schema breaks a limit or a rule"))?;
        let bytes = reader.bytes(taken)?;
        debug_assert_eq!(schema.hash, digest(bytes), "a schema has one form");
        Ok(schema)
    }
}

fn put_fields(out: &mut Vec<u8>, fields: &[FieldSchema]) {
    put_varint(out, fields.len() as u64);
    for field in fields {
        put_counted(out, field.name.as_bytes());
        put_type(out, &field.exact);
        put_wire(out, field);
    }
}

fn put_wire(out: &mut Vec<u8>, field: &FieldSchema) {
    let mut flags = match field.prediction {
        Prediction::Course => 0,
        Prediction::Last => WIRE_LAST,
    };
    if field.is_position {
        flags |= WIRE_POSITION;
    }
    match field.wire {
        WireForm::Exact => out.push(flags | WIRE_EXACT),
        WireForm::Varint => out.push(flags | WIRE_VARINT),
        WireForm::Half => out.push(flags | WIRE_HALF),
        WireForm::Fixed { min, max, per_unit } => {
            out.push(flags | WIRE_FIXED);
            put_signed(out, min.into());
            put_signed(out, max.into());
            put_varint(out, per_unit.into());
        }
        WireForm::Range { min, max } => {
            out.push(flags | WIRE_RANGE);
            put_signed(out, min);
            put_signed(out, max);
        }
        WireForm::Unit { bits } => out.extend([flags | WIRE_UNIT, bits]),
        WireForm::Rotation { bits } => out.extend([flags | WIRE_ROTATION, bits]),
    }
}

/// Zigzag: 0, -1, 1, -2 are 0, 1, 2, 3.
fn put_signed(out: &mut Vec<u8>, value: i64) {
    put_varint(out, (value << 1 ^ value >> 63).cast_unsigned());
}

fn put_type(out: &mut Vec<u8>, exact: &ExactType) {
    let mut plain = |code| out.push(code);
    match exact {
        ExactType::Bool => plain(BOOL),
        ExactType::U8 => plain(U8),
        ExactType::U16 => plain(U16),
        ExactType::U32 => plain(U32),
        ExactType::U64 => plain(U64),
        ExactType::I8 => plain(I8),
        ExactType::I16 => plain(I16),
        ExactType::I32 => plain(I32),
        ExactType::I64 => plain(I64),
        ExactType::F32 => plain(F32),
        ExactType::F64 => plain(F64),
        ExactType::NetId => plain(NET_ID),
        ExactType::Vec2 => plain(VEC2),
        ExactType::Vec3 => plain(VEC3),
        ExactType::Vec4 => plain(VEC4),
        ExactType::Quat => plain(QUAT),
        ExactType::Text => plain(TEXT),
        ExactType::Array(element, count) => {
            out.push(ARRAY);
            put_varint(out, u64::from(*count));
            put_type(out, element);
        }
        ExactType::Option(value) => {
            out.push(OPTION);
            put_type(out, value);
        }
        ExactType::List(element) => {
            out.push(LIST);
            put_type(out, element);
        }
        ExactType::Struct(fields) => {
            out.push(STRUCT);
            put_fields(out, fields);
        }
        ExactType::Enum(variants) => {
            out.push(ENUM);
            put_varint(out, variants.len() as u64);
            for (tag, name, fields) in variants {
                out.push(*tag);
                put_counted(out, name.as_bytes());
                put_fields(out, fields);
            }
        }
    }
}

fn read_kinds(reader: &mut Reader<'_>) -> Result<Vec<KindSchema>, DecodeError> {
    if reader.u8()? != FORM {
        return Err(DecodeError::Invalid("a schema has an unknown form"));
    }
    let count = read_count(reader, KINDS_MAX)?;
    let mut kinds = Vec::new();
    for _ in 0..count {
        let name = read_name(reader)?.to_owned();
        let version = u16::try_from(reader.varint()?)
            .map_err(|_too_large| DecodeError::Invalid("the version of a kind exceeds 16 bits"))?;
        let shape = match reader.u8()? {
            0 => KindShape::Component,
            1 => KindShape::Resource,
            _ => return Err(DecodeError::Invalid("a kind has an unknown shape")),
        };
        let visibility = match reader.u8()? {
            0 => Visibility::Client,
            1 => Visibility::HostOnly,
            2 => Visibility::Derived,
            3 => Visibility::Local,
            _ => return Err(DecodeError::Invalid("a kind has an unknown visibility")),
        };
        let fields = read_fields(reader, TYPE_DEPTH_MAX)?;
        kinds.push(KindSchema {
            name,
            version,
            shape,
            visibility,
            fields,
        });
    }
    Ok(kinds)
}

/// Reads fields whose types may be nested `depth` deep.
///
/// The vectors grow with what was really read, and nothing that is read takes less than a byte.
fn read_fields(reader: &mut Reader<'_>, depth: usize) -> Result<Vec<FieldSchema>, DecodeError> {
    let count = read_count(reader, FIELDS_MAX)?;
    let mut fields = Vec::new();
    for _ in 0..count {
        let name = read_name(reader)?;
        let mut field = FieldSchema::new(name, read_type(reader, depth)?);
        read_wire(reader, &mut field)?;
        fields.push(field);
    }
    Ok(fields)
}

/// Reads what a field declares. Whether it fits the type is checked with the whole schema.
fn read_wire(reader: &mut Reader<'_>, field: &mut FieldSchema) -> Result<(), DecodeError> {
    let flags = reader.u8()?;
    if flags & !(WIRE_LAST | WIRE_POSITION | 0x0f) != 0 {
        return Err(DecodeError::Invalid("a field has unknown marks"));
    }
    if flags & WIRE_LAST != 0 {
        field.prediction = Prediction::Last;
    }
    field.is_position = flags & WIRE_POSITION != 0;
    let narrow = |value: i64| {
        i32::try_from(value).map_err(|_too_large| DecodeError::Invalid("a bound exceeds 32 bits"))
    };
    field.wire = match flags & 0x0f {
        WIRE_EXACT => WireForm::Exact,
        WIRE_FIXED => WireForm::Fixed {
            min: narrow(read_signed(reader)?)?,
            max: narrow(read_signed(reader)?)?,
            per_unit: reader.varint_u32()?,
        },
        WIRE_RANGE => WireForm::Range {
            min: read_signed(reader)?,
            max: read_signed(reader)?,
        },
        WIRE_VARINT => WireForm::Varint,
        WIRE_HALF => WireForm::Half,
        WIRE_UNIT => WireForm::Unit { bits: reader.u8()? },
        WIRE_ROTATION => WireForm::Rotation { bits: reader.u8()? },
        _ => return Err(DecodeError::Invalid("a field has an unknown wire form")),
    };
    Ok(())
}

fn read_signed(reader: &mut Reader<'_>) -> Result<i64, DecodeError> {
    let zigzag = reader.varint()?;
    Ok((zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed())
}

fn read_type(reader: &mut Reader<'_>, depth: usize) -> Result<ExactType, DecodeError> {
    let depth = depth.checked_sub(1).ok_or(DecodeError::Invalid(
        "the types of a kind are nested too deep",
    ))?;
    Ok(match reader.u8()? {
        BOOL => ExactType::Bool,
        U8 => ExactType::U8,
        U16 => ExactType::U16,
        U32 => ExactType::U32,
        U64 => ExactType::U64,
        I8 => ExactType::I8,
        I16 => ExactType::I16,
        I32 => ExactType::I32,
        I64 => ExactType::I64,
        F32 => ExactType::F32,
        F64 => ExactType::F64,
        NET_ID => ExactType::NetId,
        VEC2 => ExactType::Vec2,
        VEC3 => ExactType::Vec3,
        VEC4 => ExactType::Vec4,
        QUAT => ExactType::Quat,
        TEXT => ExactType::Text,
        ARRAY => {
            let count = u16::try_from(reader.varint()?)
                .map_err(|_too_large| DecodeError::Invalid("an array exceeds 65535 elements"))?;
            ExactType::Array(Box::new(read_type(reader, depth)?), count)
        }
        OPTION => ExactType::Option(Box::new(read_type(reader, depth)?)),
        LIST => ExactType::List(Box::new(read_type(reader, depth)?)),
        STRUCT => ExactType::Struct(read_fields(reader, depth)?),
        ENUM => {
            let count = read_count(reader, 256)?;
            let mut variants = Vec::new();
            for _ in 0..count {
                let tag = reader.u8()?;
                let name = read_name(reader)?.to_owned();
                variants.push((tag, name, read_fields(reader, depth)?));
            }
            ExactType::Enum(variants)
        }
        _ => return Err(DecodeError::Invalid("a field has an unknown type")),
    })
}

fn read_count(reader: &mut Reader<'_>, max: usize) -> Result<usize, DecodeError> {
    let count = usize::try_from(reader.varint()?).unwrap_or(usize::MAX);
    if count > max {
        return Err(DecodeError::Invalid("a schema has too many parts"));
    }
    Ok(count)
}

fn read_name<'a>(reader: &mut Reader<'a>) -> Result<&'a str, DecodeError> {
    reader.text(NAME_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{below, component};
    use super::*;
    use crate::prng::Prng;
    use crate::state::wire_form::tests::random_wire_schema;

    #[test]
    fn schemas_come_back_and_leave_the_rest() {
        for seed in 0..2000 {
            let schema = random_wire_schema(&mut Prng::new(seed));
            let mut bytes = Vec::new();
            schema.encode(&mut bytes);
            assert_eq!(digest(&bytes), schema.hash());
            bytes.push(77);
            let mut reader = Reader::new(&bytes);
            assert_eq!(Schema::decode(&mut reader), Ok(schema), "seed {seed}");
            assert_eq!(reader.rest(), [77], "seed {seed}");
        }
    }

    #[test]
    fn the_bytes_are_these() {
        let schema = Schema::new(vec![
            component(
                "Unit",
                vec![
                    FieldSchema::new("hp", ExactType::U16)
                        .wire(WireForm::Range { min: 0, max: 300 }),
                    FieldSchema::new("at", ExactType::Vec2)
                        .wire(WireForm::Fixed {
                            min: -32,
                            max: 32,
                            per_unit: 512,
                        })
                        .position(),
                    FieldSchema::new("facing", ExactType::Quat)
                        .wire(WireForm::Rotation { bits: 9 })
                        .predicted(Prediction::Last),
                    FieldSchema::new(
                        "path",
                        ExactType::List(Box::new(ExactType::Array(Box::new(ExactType::F32), 300))),
                    ),
                ],
            ),
            KindSchema {
                name: "Rng".to_owned(),
                version: 258,
                shape: KindShape::Resource,
                visibility: Visibility::HostOnly,
                fields: vec![FieldSchema::new(
                    "value",
                    ExactType::Enum(vec![
                        (0, "A".to_owned(), vec![]),
                        (
                            7,
                            "B".to_owned(),
                            vec![FieldSchema::new("0", ExactType::Bool)],
                        ),
                    ]),
                )],
            },
        ])
        .unwrap();
        let mut bytes = Vec::new();
        schema.encode(&mut bytes);
        let expected = [
            &[2, 2][..],
            &[3],
            b"Rng",
            &[0x82, 0x02, 1, 1, 1, 5],
            b"value",
            &[0x16, 2, 0, 1, b'A', 0, 7, 1, b'B', 1, 1, b'0', 0x01, 0, 0],
            &[4],
            b"Unit",
            &[1, 0, 0, 4, 2, b'h', b'p', 0x03, 0x02, 0, 0xd8, 0x04],
            &[2, b'a', b't', 0x0d, 0x21, 63, 64, 0x80, 0x04, 6],
            b"facing",
            &[0x10, 0x16, 9, 4],
            b"path",
            &[0x13, 0x11, 0xac, 0x02, 0x0a, 0],
        ]
        .concat();
        assert_eq!(bytes, expected);
        assert_eq!(schema.hash(), 8_225_100_798_015_275_796);
    }

    #[test]
    fn depth_is_checked_before_the_stack_is_used() {
        let mut bytes = vec![2, 1, 1, b'K', 1, 0, 0, 1, 1, b'f'];
        bytes.extend(std::iter::repeat_n(OPTION, SCHEMA_BYTES_MAX * 2));
        assert_eq!(
            Schema::decode(&mut Reader::new(&bytes)),
            Err(DecodeError::Invalid(
                "the types of a kind are nested too deep"
            ))
        );
    }

    #[test]
    fn mutated_schemas_decode_to_themselves_or_not_at_all() {
        let mut accepted = 0;
        for seed in 0..200_000_u64 {
            let mut prng = Prng::with_stream(seed / 100, 3);
            let schema = random_wire_schema(&mut prng);
            let mut bytes = Vec::new();
            schema.encode(&mut bytes);
            let mut prng = Prng::with_stream(seed, 4);
            for _ in 0..=below(&mut prng, 3) {
                let at = below(&mut prng, bytes.len());
                bytes[at] =
                    prng.next_u64().to_le_bytes()[usize::from(prng.chance_per_million(500_000))];
            }
            let mut reader = Reader::new(&bytes);
            let Ok(decoded) = Schema::decode(&mut reader) else {
                continue;
            };
            accepted += 1;
            let mut again = Vec::new();
            decoded.encode(&mut again);
            assert_eq!(again, bytes[..bytes.len() - reader.len()], "seed {seed}");
        }
        assert!(accepted > 1000, "{accepted} reached the end");
    }
}
