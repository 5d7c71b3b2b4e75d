//! Rows of all forms: their bits, their round trips, and what is refused.

use super::*;
use crate::prng::Prng;
use crate::state::schema::tests::{below, component, random_schema};
use crate::state::snapshot::tests::random_row;
use crate::state::{ExactType, FieldSchema, KindSchema, Schema, SchemaError};
use crate::wire::bytes::DecodeError;

fn field(exact: ExactType, wire: WireForm) -> FieldSchema {
    FieldSchema::new("f", exact).wire(wire)
}

fn schema_of(fields: Vec<FieldSchema>) -> Result<Schema, SchemaError> {
    Schema::new(vec![component("K", fields)])
}

fn layout_of(fields: Vec<FieldSchema>) -> KindLayout {
    let schema = schema_of(fields).unwrap();
    WireLayout::new(&schema).kind(0).unwrap().clone()
}

fn array(exact: ExactType, count: u16) -> ExactType {
    ExactType::Array(Box::new(exact), count)
}

fn option(exact: ExactType) -> ExactType {
    ExactType::Option(Box::new(exact))
}

const METRES: WireForm = WireForm::Fixed {
    min: -32,
    max: 32,
    per_unit: 512,
};

/// Every quantizer with the lanes that it makes and their bits.
#[test]
fn bits_are_these() {
    use ExactType as T;
    let range = |min, max| WireForm::Range { min, max };
    let fixed = |min, max, per_unit| WireForm::Fixed { min, max, per_unit };
    let cases: &[(T, WireForm, &[u32])] = &[
        (T::Bool, WireForm::Exact, &[1]),
        (T::U8, WireForm::Exact, &[8]),
        (T::U16, WireForm::Exact, &[16]),
        (T::U32, WireForm::Exact, &[32]),
        (T::U64, WireForm::Exact, &[32, 32]),
        (T::I8, WireForm::Exact, &[8]),
        (T::I16, WireForm::Exact, &[16]),
        (T::I32, WireForm::Exact, &[32]),
        (T::I64, WireForm::Exact, &[32, 32]),
        (T::NetId, WireForm::Exact, &[32, 32]),
        (T::F32, WireForm::Exact, &[32]),
        (T::F64, WireForm::Exact, &[32, 32]),
        (T::Quat, WireForm::Exact, &[32; 4]),
        (T::U16, range(0, 100), &[7]),
        (T::U16, range(0, 0), &[0]),
        (T::I32, range(-5, 10), &[4]),
        (T::U32, range(4_000_000_000, 4_000_000_255), &[8]),
        (T::I64, range(i64::MIN, i64::MIN + 1023), &[10]),
        (T::U64, range(0, 0xffff_ffff), &[32]),
        (T::U64, range(1, 1 << 31), &[31]),
        (T::U64, range(0, 1 << 31), &[32]),
        (T::U32, WireForm::Varint, &[32]),
        (T::I64, WireForm::Varint, &[32, 32]),
        (T::F32, METRES, &[16]),
        (T::Vec2, METRES, &[16; 2]),
        (T::Vec3, METRES, &[16; 3]),
        (T::Vec4, fixed(0, 1, 255), &[8; 4]),
        (T::F32, fixed(0, 1, 256), &[9]),
        (T::F64, fixed(-1_000_000, 1_000_000, 1000), &[31]),
        (array(T::F32, 5), fixed(-1, 1, 100), &[8; 5]),
        (T::F32, WireForm::Half, &[16]),
        (T::F64, WireForm::Half, &[16]),
        (T::Vec3, WireForm::Half, &[16; 3]),
        (T::Vec2, WireForm::Unit { bits: 10 }, &[10]),
        (T::Vec3, WireForm::Unit { bits: 10 }, &[10; 2]),
        (T::Quat, WireForm::Rotation { bits: 9 }, &[2, 9, 9, 9]),
        (T::Quat, WireForm::Half, &[16; 4]),
        (option(T::Vec2), METRES, &[1, 16, 16]),
        (array(option(T::U8), 2), range(0, 3), &[1, 2, 1, 2]),
    ];
    for (exact, wire, bits) in cases {
        let layout = layout_of(vec![field(exact.clone(), *wire)]);
        let found: Vec<u32> = layout.lanes.iter().map(Lane::bits).collect();
        assert_eq!(found, *bits, "{exact} as {wire:?}");
        assert_eq!(layout.bits(), bits.iter().sum::<u32>());
    }
    let order = T::Enum(vec![
        (0, "Idle".to_owned(), vec![]),
        (4, "Go".to_owned(), vec![FieldSchema::new("0", T::Vec2)]),
        (9, "Wait".to_owned(), vec![field(T::U8, range(1, 8))]),
    ]);
    let layout = layout_of(vec![field(order, METRES)]);
    let bits: Vec<u32> = layout.lanes.iter().map(Lane::bits).collect();
    assert_eq!(bits, [2, 16, 16, 3], "what is inside may say otherwise");
}

#[test]
fn models_say_what_lanes_are() {
    let layout = layout_of(vec![
        field(ExactType::Vec2, METRES).position(),
        field(ExactType::F32, WireForm::Exact).predicted(Prediction::Last),
        field(ExactType::Quat, WireForm::Rotation { bits: 9 }),
        field(array(ExactType::U8, 3), WireForm::Exact),
        field(ExactType::I64, WireForm::Varint),
        field(ExactType::Text, WireForm::Exact),
        field(ExactType::NetId, WireForm::Exact),
    ]);
    let scalar = |part, parts, course| LaneModel::Scalar {
        part,
        parts,
        course,
    };
    let models: Vec<LaneModel> = layout.lanes.iter().map(|lane| lane.model).collect();
    assert_eq!(
        models,
        [
            scalar(0, 2, true),
            scalar(1, 2, true),
            scalar(0, 1, false),
            LaneModel::RotationLargest,
            LaneModel::RotationPart { part: 0 },
            LaneModel::RotationPart { part: 1 },
            LaneModel::RotationPart { part: 2 },
            scalar(0, 3, true),
            scalar(1, 3, true),
            scalar(2, 3, true),
            LaneModel::Word,
            scalar(0, 1, true),
            LaneModel::Id { high: true },
            LaneModel::Id { high: false },
        ]
    );
    let fields: Vec<u16> = layout.lanes.iter().map(|lane| lane.field).collect();
    assert_eq!(fields, [0, 0, 1, 2, 2, 2, 2, 3, 3, 3, 4, 4, 6, 6]);
    assert!(layout.fields[5].is_opaque && layout.has_opaque());
    assert_eq!(layout.position_field().unwrap().lanes, 2);
    assert_eq!(layout.place(&[512, -256]), Some([1.0, -0.5, 0.0]));
    assert_eq!(
        layout.place(&[512]),
        Some([1.0, 0.0, 0.0]),
        "as far as it goes"
    );
}

#[test]
fn long_rows_and_lists_are_opaque() {
    let numbers = |count| array(ExactType::U8, count);
    let layout = layout_of(vec![
        field(numbers(200), WireForm::Exact),
        field(numbers(57), WireForm::Exact),
        field(numbers(56), WireForm::Exact),
        field(array(numbers(999), 999), WireForm::Exact),
        field(option(ExactType::Text), WireForm::Exact),
    ]);
    let opaque: Vec<bool> = layout.fields.iter().map(|field| field.is_opaque).collect();
    assert_eq!(opaque, [false, true, false, true, true]);
    assert_eq!(layout.lanes.len(), crate::limits::ROW_LANES_MAX);
    assert_eq!(layout.fields[2].lane, 200);
}

fn quantize(layout: &KindLayout, row: &[u8]) -> Result<(Vec<i32>, Vec<u8>, u64), DecodeError> {
    let (mut lanes, mut opaque, mut clamped) = Default::default();
    layout.quantize(row, &mut lanes, &mut opaque, &mut clamped)?;
    Ok((lanes, opaque, clamped))
}

fn dequantize(layout: &KindLayout, lanes: &[i32], opaque: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let (mut rest, mut row) = (opaque, Vec::new());
    layout.dequantize(lanes, &mut rest, &mut row)?;
    if rest.is_empty() {
        Ok(row)
    } else {
        Err(DecodeError::Trailing(rest.len()))
    }
}

/// Gives every field, also inside of types, a random form that fits it.
pub(in crate::state) fn with_random_forms(fields: &mut [FieldSchema], prng: &mut Prng) {
    for field in fields {
        inside(&mut field.exact, prng);
        for _ in 0..4 {
            let min = i32::try_from(prng.below(200)).unwrap() - 100;
            let max = min + 1 + i32::try_from(prng.below(100)).unwrap();
            let form = match below(prng, 7) {
                0 => WireForm::Fixed {
                    min,
                    max,
                    per_unit: 1 + u32::try_from(prng.below(2000)).unwrap(),
                },
                1 => WireForm::Range {
                    min: min.into(),
                    max: max.into(),
                },
                2 => WireForm::Varint,
                3 => WireForm::Half,
                4 => WireForm::Unit {
                    bits: 4 + u8::try_from(prng.below(13)).unwrap(),
                },
                5 => WireForm::Rotation {
                    bits: 5 + u8::try_from(prng.below(11)).unwrap(),
                },
                _ => WireForm::Exact,
            };
            let candidate = field.clone().wire(form);
            if check_field(&candidate, WireForm::Exact).is_ok() {
                *field = candidate;
                break;
            }
        }
        if below(prng, 4) == 0 {
            field.prediction = Prediction::Last;
        }
    }
}

fn inside(exact: &mut ExactType, prng: &mut Prng) {
    if let ExactType::Array(value, _) | ExactType::Option(value) | ExactType::List(value) = exact {
        inside(value, prng);
    } else if let ExactType::Struct(fields) = exact {
        with_random_forms(fields, prng);
    } else if let ExactType::Enum(variants) = exact {
        for (_, _, fields) in variants {
            with_random_forms(fields, prng);
        }
    }
}

/// A random schema with random wire forms.
pub(in crate::state) fn random_wire_schema(prng: &mut Prng) -> Schema {
    let mut kinds: Vec<KindSchema> = random_schema(prng).kinds().to_vec();
    for kind in &mut kinds {
        with_random_forms(&mut kind.fields, prng);
    }
    Schema::new(kinds).unwrap()
}

#[test]
fn quantized_rows_are_canonical() {
    let (mut rows, mut formed, mut clamped_rows) = (0, 0, 0);
    for seed in 0..3000 {
        let mut prng = Prng::new(seed);
        let schema = random_wire_schema(&mut prng);
        for layout in WireLayout::new(&schema).kinds() {
            let kind = &schema.kinds()[usize::from(layout.kind)];
            for _ in 0..8 {
                let row = random_row(kind, &mut prng);
                let (lanes, opaque, clamped) = quantize(layout, &row).unwrap();
                assert_eq!(lanes.len(), layout.lanes.len(), "seed {seed}");
                for (lane, value) in layout.lanes.iter().zip(&lanes) {
                    assert!((lane.min..=lane.max).contains(value), "seed {seed}");
                }
                assert_eq!(layout.opaque_len(&opaque), Ok(opaque.len()));
                let near = dequantize(layout, &lanes, &opaque)
                    .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
                assert_eq!(
                    quantize(layout, &near),
                    Ok((lanes, opaque, 0)),
                    "seed {seed}"
                );
                rows += 1;
                clamped_rows += u32::from(clamped > 0);
                if near == row {
                    assert_eq!(clamped, 0, "seed {seed}");
                } else {
                    formed += 1;
                }
                let check = Schema::new(vec![kind.clone()]).unwrap();
                let mut snapshot = crate::state::Snapshot::default();
                snapshot.kinds.push(Default::default());
                let id = crate::id::NetId::from_bits(u64::from(
                    kind.shape == crate::state::KindShape::Component,
                ));
                snapshot.kinds[0].push(id, |out| out.extend_from_slice(&near));
                assert_eq!(snapshot.validate(&check), Ok(()), "seed {seed}");
            }
        }
    }
    assert!(
        formed > rows / 20 && clamped_rows > 100,
        "{formed} of {rows}"
    );
}

#[test]
fn exact_forms_lose_nothing() {
    for seed in 0..2000 {
        let mut prng = Prng::new(seed);
        let schema = random_schema(&mut prng);
        for layout in WireLayout::new(&schema).kinds() {
            let row = random_row(&schema.kinds()[usize::from(layout.kind)], &mut prng);
            let (lanes, opaque, clamped) = quantize(layout, &row).unwrap();
            assert_eq!(dequantize(layout, &lanes, &opaque), Ok(row), "seed {seed}");
            assert_eq!(clamped, 0);
        }
    }
}

/// Whatever lanes and bytes come: a row that gives them again, or an error.
#[test]
fn hostile_lanes_are_refused_or_canonical() {
    let (mut accepted, mut refused) = (0, 0);
    for seed in 0..60_000 {
        let mut prng = Prng::with_stream(seed / 20, 1);
        let schema = random_wire_schema(&mut prng);
        for layout in WireLayout::new(&schema).kinds() {
            let mut prng = Prng::with_stream(seed, 2);
            let kind = &schema.kinds()[usize::from(layout.kind)];
            let row = random_row(kind, &mut prng);
            let (mut lanes, mut opaque, _) = quantize(layout, &row).unwrap();
            for _ in 0..=below(&mut prng, 3) {
                if !lanes.is_empty() {
                    let at = below(&mut prng, lanes.len());
                    let lane = layout.lanes[at];
                    lanes[at] = match below(&mut prng, 6) {
                        0 => lane.max.wrapping_add(1),
                        1 => lane.min.wrapping_sub(1),
                        2 => lane.max,
                        3 => lane.min,
                        4 => lanes[at] ^ 1 << below(&mut prng, 32),
                        _ => prng.next_u32().cast_signed(),
                    };
                }
                if !opaque.is_empty() {
                    let at = below(&mut prng, opaque.len());
                    opaque[at] ^= 1 << below(&mut prng, 8);
                }
            }
            if below(&mut prng, 10) == 0 {
                lanes.push(0);
            }
            match dequantize(layout, &lanes, &opaque) {
                Ok(row) => {
                    accepted += 1;
                    let again = quantize(layout, &row);
                    assert_eq!(again, Ok((lanes, opaque, 0)), "seed {seed}");
                }
                Err(_) => refused += 1,
            }
        }
    }
    assert!(accepted > 1000 && refused > 1000, "{accepted}, {refused}");
}

#[test]
fn clamped_values_are_counted() {
    let layout = layout_of(vec![
        field(ExactType::Vec2, METRES),
        field(ExactType::U16, WireForm::Range { min: 1, max: 100 }),
        field(ExactType::F32, WireForm::Half),
        field(ExactType::U64, WireForm::Range { min: 0, max: 9 }),
    ]);
    let row = |x: f32, y: f32, hp: u16, h: f32, n: u64| {
        let mut row = Vec::new();
        row.extend(x.to_le_bytes());
        row.extend(y.to_le_bytes());
        row.extend(hp.to_le_bytes());
        row.extend(h.to_le_bytes());
        row.extend(n.to_le_bytes());
        let (lanes, _, clamped) = quantize(&layout, &row).unwrap();
        (lanes, clamped)
    };
    assert_eq!(
        row(1.0, -32.0, 100, 2.0, 9),
        (vec![512, -16_384, 100, 0x4000, 9], 0)
    );
    assert_eq!(
        row(33.0, -1e30, 0, 1e9, u64::MAX),
        (vec![16_384, -16_384, 1, 0x7bff, 9], 5)
    );
    assert_eq!(row(f32::INFINITY, 0.0, 1, 0.0, 0).1, 1);
}

#[test]
fn forms_that_do_not_fit_are_refused() {
    use ExactType as T;
    let range = |min, max| WireForm::Range { min, max };
    let fixed = |min, max, per_unit| WireForm::Fixed { min, max, per_unit };
    let list = T::List(Box::new(T::F32));
    let cases = [
        (T::Bool, WireForm::Varint),
        (T::NetId, WireForm::Varint),
        (T::Text, WireForm::Half),
        (list, METRES),
        (T::U8, range(0, 256)),
        (T::U8, range(-1, 5)),
        (T::U64, range(-1, 5)),
        (T::I64, range(0, 1 << 32)),
        (T::I64, range(i64::MIN, i64::MAX)),
        (T::U8, range(5, 4)),
        (T::U8, METRES),
        (T::U8, WireForm::Half),
        (T::F32, range(0, 5)),
        (T::F32, WireForm::Varint),
        (T::F32, fixed(5, 5, 1)),
        (T::F32, fixed(0, 5, 0)),
        (T::F32, fixed(0, 16_385, 512)),
        (T::F64, fixed(0, i32::MAX, 2)),
        (T::F32, WireForm::Unit { bits: 8 }),
        (T::Vec4, WireForm::Unit { bits: 8 }),
        (T::Vec3, WireForm::Unit { bits: 3 }),
        (T::Vec3, WireForm::Unit { bits: 17 }),
        (T::Vec3, WireForm::Rotation { bits: 9 }),
        (T::Quat, WireForm::Rotation { bits: 4 }),
        (T::Quat, WireForm::Rotation { bits: 16 }),
        (T::Quat, METRES),
        (option(T::U8), METRES),
        (array(T::Bool, 3), WireForm::Varint),
    ];
    for (exact, wire) in cases {
        let found = schema_of(vec![field(exact.clone(), wire)]);
        let Err(SchemaError::BadWire { kind, field, .. }) = found else {
            panic!("{exact} as {wire:?}: {found:?}");
        };
        assert_eq!((kind.as_str(), field.as_str()), ("K", "f"));
    }
    assert!(schema_of(vec![field(T::F32, fixed(0, 16_384, 512))]).is_ok());
    assert!(schema_of(vec![field(T::F64, fixed(0, i32::MAX, 1))]).is_ok());
}

#[test]
fn positions_are_places() {
    let place = |exact| FieldSchema::new("at", exact).position();
    for exact in [
        ExactType::F32,
        ExactType::Quat,
        ExactType::Text,
        array(ExactType::I64, 2),
        array(ExactType::F32, 4),
        option(ExactType::Vec2),
    ] {
        assert!(schema_of(vec![place(exact.clone())]).is_err(), "{exact}");
    }
    let direction = place(ExactType::Vec3).wire(WireForm::Unit { bits: 8 });
    assert!(schema_of(vec![direction]).is_err());
    assert!(schema_of(vec![place(ExactType::Vec2), place(ExactType::Vec3)]).is_err());
    let inner = ExactType::Struct(vec![place(ExactType::Vec2)]);
    let found = schema_of(vec![FieldSchema::new("body", inner)]);
    assert!(
        matches!(found, Err(SchemaError::BadWire { .. })),
        "{found:?}"
    );
    let layout = layout_of(vec![
        FieldSchema::new("hp", ExactType::U8),
        place(array(ExactType::I32, 3)),
    ]);
    assert_eq!(layout.place(&[1, 20, -30, 40]), Some([20.0, -30.0, 40.0]));
    let layout = layout_of(vec![place(ExactType::Vec2)]);
    let lanes = [1.5_f32, -2.0].map(quantizers::float_lane);
    assert_eq!(layout.place(&lanes), Some([1.5, -2.0, 0.0]));
}
