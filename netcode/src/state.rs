//! Game state without an ECS: what it consists of, one moment of it, and its hash.
//!
//! A [`Schema`] lists component and resource kinds with their fields. A [`Snapshot`] is the
//! canonical state at one tick: per kind, rows sorted by [`NetId`](crate::id::NetId), each value
//! encoded in exactly one way. Replays, late joins, desync reports and handover share these.

mod exact;
mod hash;
mod patch;
mod quantized;
mod schema;
mod snapshot;
mod text;
mod walk;
mod wire_form;

pub use exact::{Exact, Networked};
pub use hash::{KindHasher, StateHash};
pub use patch::{KindPart, Patch, PatchRows, parts_of};
pub use quantized::{EntityHead, EntityRef, QuantizeReport, QuantizedSnapshot, Quantizer, ShapeId};
pub(crate) use quantized::{lanes_differ, row_hash, sum_of_rows};
pub use schema::{
    ExactType, FieldSchema, KindSchema, KindShape, Schema, SchemaDifference, SchemaError,
    Visibility, kind_salt,
};
pub use snapshot::{DeltaCodec, DeltaHead, Difference, ImportError, KindRows, Snapshot};
pub use wire_form::{
    FieldLayout, Interpolation, KindLayout, Lane, LaneModel, Prediction, Shape, Shapes,
    TooManyShapes, WireForm, WireLayout,
};
