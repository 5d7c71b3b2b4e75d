//! Scenes as snapshots of state-sync, by way of a schema that a game would register.

use std::sync::Arc;

use phalanx_netcode::id::NetId;
use phalanx_netcode::state::{
    ExactType, FieldSchema, KindSchema, KindShape, QuantizedSnapshot, Schema, Shapes, Visibility,
    WireForm, WireLayout,
};
use phalanx_netcode::tick::Tick;

use super::{Frame, ORIENTATION_BITS, UNITS_PER_METRE};

const _: () = assert!(ORIENTATION_BITS == 9);

/// The kind that all cubes have.
///
/// # Panics
/// Never: the schema is a legal one.
#[must_use]
pub fn schema() -> Schema {
    let position = WireForm::Fixed {
        min: -32,
        max: 32,
        per_unit: UNITS_PER_METRE.unsigned_abs(),
    };
    let rotation = WireForm::Rotation { bits: 9 };
    let cube = KindSchema {
        name: "cube".to_owned(),
        version: 1,
        shape: KindShape::Component,
        visibility: Visibility::Client,
        fields: vec![
            FieldSchema::new("position", ExactType::Vec3)
                .wire(position)
                .position(),
            FieldSchema::new("rotation", ExactType::Quat).wire(rotation),
            FieldSchema::new("interacting", ExactType::Bool),
        ],
    };
    Schema::new(vec![cube]).expect("one kind with three fields")
}

/// The layout of [`schema`].
#[must_use]
pub fn layout() -> Arc<WireLayout> {
    Arc::new(WireLayout::new(&schema()))
}

/// A scene's snapshots; `shapes` are those of the layout.
///
/// # Panics
/// If `shapes` is full.
#[must_use]
pub fn snapshots(
    scene: &[Frame],
    layout: &WireLayout,
    shapes: &mut Shapes,
) -> Vec<QuantizedSnapshot> {
    let shape = shapes.intern(layout, &[0]).expect("the first shape");
    (0..)
        .zip(scene)
        .map(|(tick, frame)| {
            let mut snapshot = QuantizedSnapshot::new(Tick::new(tick));
            for (id, cube) in (1..).zip(frame.iter()) {
                snapshot.push(
                    NetId::from_bits(id),
                    shape,
                    Tick::new(tick),
                    |lanes, _opaque| {
                        lanes.extend(cube.position);
                        lanes.push(i32::from(cube.largest));
                        lanes.extend(cube.orientation.map(i32::from));
                        lanes.push(i32::from(cube.interacting));
                    },
                );
            }
            snapshot
        })
        .collect()
}
