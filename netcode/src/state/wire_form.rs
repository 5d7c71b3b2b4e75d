//! The wire form of values: what clients need of a field in state-sync, and in how many bits.
//!
//! A field's [`WireForm`] says how its exact value becomes numbers. [`WireLayout`] flattens a
//! schema into [`Lane`]s, one `i32` each, with what the codec must know to predict them.

mod check;
mod layout;
mod quantizers;
mod row;

pub(super) use check::{Reason, check_field, check_position};

use std::collections::BTreeMap;

use super::quantized::ShapeId;
use crate::limits::SHAPES_MAX;
use row::Step;

/// How a field's exact value is quantized for clients.
///
/// Vectors and arrays apply it to each part. A value beyond the bounds is clamped and counted,
/// never wrapped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum WireForm {
    /// Without loss, whatever the type is.
    #[default]
    Exact,
    /// A float in steps of `1 / per_unit` from `min` to `max`.
    Fixed {
        /// Least value, in units.
        min: i32,
        /// Greatest value, in units.
        max: i32,
        /// Steps per unit.
        per_unit: u32,
    },
    /// An integer from `min` to `max`.
    Range {
        /// Least value.
        min: i64,
        /// Greatest value.
        max: i64,
    },
    /// An integer without bounds whose values are mostly small.
    Varint,
    /// A float with 16 bits (IEEE 754 binary16, to the nearest).
    Half,
    /// A direction: a Vec2 as an angle of this many bits, a Vec3 as an octahedron of this many
    /// bits per axis. Its length is lost.
    Unit {
        /// Bits, 4 to 16.
        bits: u8,
    },
    /// A rotation (Quat) by its three smallest parts with this many bits each, and two bits for
    /// which one is left out.
    Rotation {
        /// Bits per part, 5 to 15.
        bits: u8,
    },
}

/// How the codec guesses the next value of a field from those that a client has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Prediction {
    /// Along its course: position and velocity from several acked snapshots.
    #[default]
    Course,
    /// As it was.
    Last,
}

/// How a client shows a field between two snapshots. Presentation only: not in the schema hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Interpolation {
    /// Linear for floats and vectors, spherical for rotations, stepwise for the rest.
    #[default]
    Natural,
    /// Part by part; normalized afterwards for rotations.
    Linear,
    /// Along the shortest arc.
    Spherical,
    /// The older value until the newer one is due.
    Step,
}

/// What the codec knows about a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LaneModel {
    /// A bool, an enum's tag, an `Option`'s presence: equal or different, without distance.
    Symbol,
    /// A number whose neighbours are near values; part `part` of a vector with `parts` parts.
    Scalar {
        /// Which part.
        part: u8,
        /// Parts of the vector, 1 for a number.
        parts: u8,
        /// Whether its course is predicted.
        course: bool,
    },
    /// Which part of a rotation is left out (0 to 3). The next three lanes are the others.
    RotationLargest,
    /// A part of a rotation, 0 to 2^bits - 1, of the three that follow [`LaneModel::RotationLargest`].
    RotationPart {
        /// Which of the three.
        part: u8,
    },
    /// Half of something without neighbours: the bits of a 64-bit number or float.
    Word,
    /// High and low half of a NetId.
    Id {
        /// Whether this is the half with the term.
        high: bool,
    },
}

/// One number of a kind's quantized row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lane {
    /// Least value.
    pub min: i32,
    /// Greatest value. Lanes over all of `i32` wrap around in the codec.
    pub max: i32,
    /// What the codec knows about it.
    pub model: LaneModel,
    /// The field (index in the kind) that it comes from.
    pub field: u16,
}

impl Lane {
    /// Bits of the lane where it is written without any prediction: enough for all values from
    /// `min` to `max`.
    #[must_use]
    pub const fn bits(&self) -> u32 {
        32 - self.max.abs_diff(self.min).leading_zeros()
    }

    /// What the lane is while the part that it belongs to is absent: the value nearest to 0.
    #[must_use]
    pub const fn idle(&self) -> i32 {
        if self.min > 0 {
            self.min
        } else if self.max < 0 {
            self.max
        } else {
            0
        }
    }
}

/// A field as it lies in a quantized row: lanes, or opaque bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldLayout {
    /// First lane of the field in the kind's row.
    pub lane: u16,
    /// How many lanes it has; 0 for an opaque field.
    pub lanes: u16,
    /// Whether the field travels as its exact bytes: lists, texts, and what nests too deep.
    pub is_opaque: bool,
    /// Whether the field is where its entity is: for interest and for the spatial model.
    pub is_position: bool,
}

/// How rows of one kind are quantized.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KindLayout {
    /// The kind's number in the schema.
    pub kind: u16,
    /// The lanes of a row.
    pub lanes: Vec<Lane>,
    /// The fields, as in the schema.
    pub fields: Vec<FieldLayout>,
    /// Whether a field is opaque.
    has_opaque: bool,
    /// How a row becomes lanes.
    steps: Vec<Step>,
    /// The first lane of the position, and how its numbers become lanes.
    position: Option<(u16, Vec<Step>)>,
}

impl KindLayout {
    /// Bits of a row's lanes without any prediction; see [`Lane::bits`].
    #[must_use]
    pub fn bits(&self) -> u32 {
        self.lanes.iter().map(Lane::bits).sum()
    }

    /// The field that says where an entity is.
    #[must_use]
    pub fn position_field(&self) -> Option<&FieldLayout> {
        self.fields.iter().find(|field| field.is_position)
    }

    /// Whether rows of this kind have opaque bytes.
    #[must_use]
    pub fn has_opaque(&self) -> bool {
        self.has_opaque
    }
}

/// The kinds of an entity and where their lanes lie in its row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The kinds, by number in the schema, strictly ascending.
    pub kinds: Box<[u16]>,
    /// `starts[n]` is where the lanes of `kinds[n]` begin; one more entry says where the last ends.
    pub starts: Box<[u32]>,
}

/// A node's table of shapes. It only grows, up to [`SHAPES_MAX`]; its numbers never travel.
#[derive(Clone, Debug, Default)]
pub struct Shapes {
    shapes: Vec<Shape>,
    by_kinds: BTreeMap<Box<[u16]>, ShapeId>,
}

/// More different combinations of components than [`SHAPES_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("entities have more than {SHAPES_MAX} different combinations of components")]
pub struct TooManyShapes;

impl Shapes {
    /// The number of the shape with these kinds, which are those of `layout` and strictly
    /// ascending.
    ///
    /// # Errors
    /// If it would be one too many.
    pub fn intern(&mut self, layout: &WireLayout, kinds: &[u16]) -> Result<ShapeId, TooManyShapes> {
        if let Some(&known) = self.by_kinds.get(kinds) {
            return Ok(known);
        }
        if self.shapes.len() >= SHAPES_MAX {
            return Err(TooManyShapes);
        }
        let mut starts = Vec::with_capacity(kinds.len() + 1);
        let mut start = 0;
        for &kind in kinds {
            starts.push(start);
            let lanes = layout.kind(kind).map_or(0, |kind| kind.lanes.len());
            start += u32::try_from(lanes).unwrap_or(0);
        }
        starts.push(start);
        let id = ShapeId(u32::try_from(self.shapes.len()).unwrap_or(u32::MAX));
        self.shapes.push(Shape {
            kinds: kinds.into(),
            starts: starts.into(),
        });
        self.by_kinds.insert(kinds.into(), id);
        Ok(id)
    }

    /// How many there are. Those that are known keep their ids.
    pub(crate) fn count(&self) -> usize {
        self.shapes.len()
    }

    /// The shape with this number.
    ///
    /// # Panics
    /// If it is not one of this table.
    #[must_use]
    pub fn get(&self, id: ShapeId) -> &Shape {
        &self.shapes[id.0 as usize]
    }
}

/// How the rows of all kinds that clients may see are quantized.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WireLayout {
    /// By the schema's order; `None` for kinds that clients do not get.
    kinds: Vec<Option<KindLayout>>,
}

impl WireLayout {
    /// The layout of kind number `kind`; `None` if clients do not get it.
    #[must_use]
    pub fn kind(&self, kind: u16) -> Option<&KindLayout> {
        self.kinds.get(usize::from(kind))?.as_ref()
    }

    /// Number of kinds in the schema, those included that clients do not get.
    #[must_use]
    pub fn schema_kinds(&self) -> usize {
        self.kinds.len()
    }

    /// The kinds that clients get, by number.
    pub fn kinds(&self) -> impl Iterator<Item = &KindLayout> {
        self.kinds.iter().flatten()
    }
}

#[cfg(test)]
pub(super) mod tests;
