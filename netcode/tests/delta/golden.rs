//! Bytes of bodies that must not change unawares.

use std::sync::Arc;

use phalanx_netcode::delta::{Encoder, PartItem, View};
use phalanx_netcode::id::NetId;
use phalanx_netcode::state::{
    ExactType, FieldSchema, KindSchema, KindShape, QuantizedSnapshot, Schema, Shapes, Visibility,
    WireForm, WireLayout,
};
use phalanx_netcode::tick::Tick;

use super::references;

/// Four bodies in the plane with a position, a rotation, a flag and health, at tick `tick`.
fn golden_moment(layout: &WireLayout, shapes: &mut Shapes, tick: i32) -> QuantizedSnapshot {
    let shape = shapes.intern(layout, &[0]).expect("the first shape");
    let mut snapshot = QuantizedSnapshot::new(Tick::new(tick.unsigned_abs()));
    for number in 0..4_i32 {
        // The first stands still, the last appears at tick 12.
        let at = if number == 0 { 0 } else { tick };
        if number == 3 && tick < 12 {
            continue;
        }
        let id = NetId::from_bits(u64::from(number.unsigned_abs()) * 3 + 1);
        snapshot.push(id, shape, Tick::new(0), |lanes, _opaque| {
            let x = 1000 * number + at * 7 + at * at / 3;
            lanes.extend([x, -40 - at * 3, 300 + number * 11]);
            lanes.extend([3, 255 + at * 2, 200 - at, 256 + number]);
            lanes.extend([i32::from(at > 9), 100 - at]);
        });
    }
    snapshot
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn golden_bytes_of_both_bodies() {
    let place = WireForm::Fixed {
        min: -32,
        max: 32,
        per_unit: 512,
    };
    let kind = KindSchema {
        name: "body".to_owned(),
        version: 1,
        shape: KindShape::Component,
        visibility: Visibility::Client,
        fields: vec![
            FieldSchema::new("position", ExactType::Vec3)
                .wire(place)
                .position(),
            FieldSchema::new("rotation", ExactType::Quat).wire(WireForm::Rotation { bits: 9 }),
            FieldSchema::new("flag", ExactType::Bool),
            FieldSchema::new("health", ExactType::I16).wire(WireForm::Range { min: 0, max: 100 }),
        ],
    };
    let schema = Schema::new(vec![kind]).expect("one kind");
    let layout = Arc::new(WireLayout::new(&schema));
    let mut shapes = Shapes::default();
    let moments: Vec<QuantizedSnapshot> = (0..13)
        .map(|tick| golden_moment(&layout, &mut shapes, tick))
        .collect();
    let views: Vec<View<'_>> = moments.iter().map(View::all).collect();
    let refs = references(&[6, 7, 10], &views[..12]);
    let mut encoder = Encoder::new(Arc::clone(&layout));
    let mut body = Vec::new();
    encoder.encode_whole(&shapes, views[12], &refs, NetId::NONE, 1180, &mut body);
    assert_eq!(hex(&body), GOLDEN_WHOLE);
    let mut first = Vec::new();
    encoder.encode_whole(&shapes, views[0], &[], NetId::NONE, 1180, &mut first);
    assert_eq!(hex(&first), GOLDEN_FIRST);
    encoder.begin_part(200);
    for entity in moments[12].entities() {
        let old: Vec<_> = [6, 7]
            .into_iter()
            .filter_map(|age| Some((age, moments[12 - age as usize].find(entity.id)?, 0)))
            .collect();
        let item = PartItem {
            id: entity.id,
            value: (entity.id.bits() != 1).then_some((entity, 0)),
            references: if entity.id.bits() == 1 { &[] } else { &old },
        };
        assert!(encoder.push_part(&shapes, &item));
    }
    let mut part = Vec::new();
    encoder.finish_part(&mut part);
    assert_eq!(hex(&part), GOLDEN_PART);
}

const GOLDEN_WHOLE: &str = "8fb6853f6aec0aac4b413319f6f76098f9362c";
const GOLDEN_FIRST: &str =
    "afe9be3859357e81edc1a1362ea34742c13890ed2928737f8dcd7b0c04184a907673ae0e19";
const GOLDEN_PART: &str = "5c7583fdfb97c8840622722148e27cb18588b4b2675ecf86b08f";
