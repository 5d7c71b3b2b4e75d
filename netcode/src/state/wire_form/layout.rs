//! From a schema to lanes.

use crate::limits::ROW_LANES_MAX;

use super::super::schema::{ExactType, FieldSchema, KindSchema, Schema};
use super::quantizers::{HALF_LANE_MAX, HALF_LANE_MIN, octahedron_steps};
use super::row::{Step, VariantSteps};
use super::{FieldLayout, KindLayout, Lane, LaneModel, Prediction, WireForm, WireLayout};
use crate::state::schema::Visibility;

impl WireLayout {
    /// The layout of the kinds of `schema` that clients may see.
    ///
    /// A field that holds a list or a text, and one with which a row would have more than
    /// [`ROW_LANES_MAX`] lanes, is opaque: it travels as its exact bytes.
    #[must_use]
    pub fn new(schema: &Schema) -> Self {
        let kinds = schema.kinds().iter().zip(0_u16..);
        Self {
            kinds: kinds
                .map(|(kind, number)| {
                    (kind.visibility == Visibility::Client).then(|| kind_layout(kind, number))
                })
                .collect(),
        }
    }
}

fn kind_layout(kind: &KindSchema, number: u16) -> KindLayout {
    let mut layout = KindLayout {
        kind: number,
        ..KindLayout::default()
    };
    for (field, index) in kind.fields.iter().zip(0_u16..) {
        let first = layout.lanes.len();
        let mut flat = Flat {
            field: index,
            lanes: core::mem::take(&mut layout.lanes),
            steps: Vec::new(),
        };
        let scope = Scope::default().within(field);
        let is_opaque = flat.add(&field.exact, scope).is_err();
        layout.has_opaque |= is_opaque;
        if is_opaque {
            flat.lanes.truncate(first);
            flat.steps = vec![Step::Opaque(field.exact.clone())];
        }
        layout.lanes = flat.lanes;
        if field.is_position && !is_opaque {
            layout.position = Some((narrow(first), flat.steps.clone()));
        }
        layout.steps.append(&mut flat.steps);
        layout.fields.push(FieldLayout {
            lane: narrow(first),
            lanes: narrow(layout.lanes.len() - first),
            is_opaque,
            is_position: field.is_position && !is_opaque,
        });
    }
    layout
}

/// A number of lanes, which is at most [`ROW_LANES_MAX`].
fn narrow(count: usize) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX)
}

/// What the fields around a value declare for it.
#[derive(Clone, Copy)]
struct Scope {
    form: WireForm,
    course: bool,
    part: u8,
    parts: u8,
}

impl Default for Scope {
    fn default() -> Self {
        Self {
            form: WireForm::Exact,
            course: true,
            part: 0,
            parts: 1,
        }
    }
}

impl Scope {
    /// What holds inside of `field`: what it declares itself, or else what is declared around it.
    fn within(self, field: &FieldSchema) -> Self {
        Self {
            form: field.wire.or(self.form),
            course: self.course && field.prediction == Prediction::Course,
            part: 0,
            parts: 1,
        }
    }

    fn part(self, part: u8, parts: u8) -> Self {
        Self {
            part,
            parts,
            ..self
        }
    }

    fn scalar(self) -> LaneModel {
        LaneModel::Scalar {
            part: self.part,
            parts: self.parts,
            course: self.course,
        }
    }
}

/// The field has no lanes.
struct Opaque;

/// The steps of a part that may be absent, and its lanes while it is.
struct Part {
    steps: Box<[Step]>,
    idle: Box<[i32]>,
}

/// The lanes and steps of one field.
struct Flat {
    field: u16,
    lanes: Vec<Lane>,
    steps: Vec<Step>,
}

impl Flat {
    fn add(&mut self, exact: &ExactType, scope: Scope) -> Result<(), Opaque> {
        match exact {
            ExactType::Bool => {
                self.lane(0, 1, LaneModel::Symbol);
                self.steps.push(Step::Bool);
            }
            ExactType::U8
            | ExactType::U16
            | ExactType::U32
            | ExactType::U64
            | ExactType::I8
            | ExactType::I16
            | ExactType::I32
            | ExactType::I64 => self.int(exact, scope),
            ExactType::NetId => {
                self.lane(i32::MIN, i32::MAX, LaneModel::Id { high: true });
                self.lane(i32::MIN, i32::MAX, LaneModel::Id { high: false });
                self.steps.push(Step::Wide);
            }
            ExactType::F32 => self.float(false, scope),
            ExactType::F64 => self.float(true, scope),
            ExactType::Vec2 => self.vector(2, scope),
            ExactType::Vec3 => self.vector(3, scope),
            ExactType::Vec4 | ExactType::Quat => self.vector(4, scope),
            ExactType::Array(element, count) => {
                // Short arrays of numbers are vectors.
                let parts = match u8::try_from(*count) {
                    Ok(count @ 2..=4) if is_number(element) => count,
                    _ => 1,
                };
                for index in 0..*count {
                    let part = if parts == 1 { 0 } else { index };
                    let part = u8::try_from(part).unwrap_or(0);
                    self.add(element, scope.part(part, parts))?;
                }
            }
            ExactType::Option(value) => {
                self.lane(0, 1, LaneModel::Symbol);
                let Part { steps, idle } = self.inner(|inner| inner.add(value, scope))?;
                self.steps.push(Step::Option { steps, idle });
            }
            ExactType::List(_) | ExactType::Text => return Err(Opaque),
            ExactType::Struct(fields) => self.fields(fields, scope)?,
            ExactType::Enum(variants) => {
                let last = i32::try_from(variants.len()).unwrap_or(i32::MAX) - 1;
                self.lane(0, last, LaneModel::Symbol);
                let variants = variants
                    .iter()
                    .map(|(tag, _, fields)| {
                        let Part { steps, idle } =
                            self.inner(|inner| inner.fields(fields, scope))?;
                        Ok(VariantSteps {
                            tag: *tag,
                            steps,
                            idle,
                        })
                    })
                    .collect::<Result<_, Opaque>>()?;
                self.steps.push(Step::Enum(variants));
            }
        }
        if self.lanes.len() > ROW_LANES_MAX {
            return Err(Opaque);
        }
        Ok(())
    }

    fn fields(&mut self, fields: &[FieldSchema], scope: Scope) -> Result<(), Opaque> {
        fields
            .iter()
            .try_for_each(|field| self.add(&field.exact, scope.within(field)))
    }

    /// The steps that `add` adds, apart, and the lanes that they leave idle.
    fn inner(&mut self, add: impl FnOnce(&mut Self) -> Result<(), Opaque>) -> Result<Part, Opaque> {
        let outer = core::mem::take(&mut self.steps);
        let first = self.lanes.len();
        add(self)?;
        let steps = core::mem::replace(&mut self.steps, outer);
        let idle = self.lanes[first..].iter().map(|lane| lane.idle()).collect();
        Ok(Part {
            steps: steps.into(),
            idle,
        })
    }

    fn lane(&mut self, min: i32, max: i32, model: LaneModel) {
        self.lanes.push(Lane {
            min,
            max,
            model,
            field: self.field,
        });
    }

    fn int(&mut self, exact: &ExactType, scope: Scope) {
        let Some((bytes, is_signed, natural_min, natural_max)) = integer(exact) else {
            return;
        };
        let (min, max) = match scope.form {
            WireForm::Range { min, max } => (min, max),
            WireForm::Varint if bytes == 8 => {
                // The high half of small numbers hardly ever changes.
                self.lane(i32::MIN, i32::MAX, LaneModel::Word);
                self.lane(i32::MIN, i32::MAX, scope.scalar());
                self.steps.push(Step::Wide);
                return;
            }
            _ if bytes == 8 => {
                self.lane(i32::MIN, i32::MAX, LaneModel::Word);
                self.lane(i32::MIN, i32::MAX, LaneModel::Word);
                self.steps.push(Step::Wide);
                return;
            }
            WireForm::Exact
            | WireForm::Varint
            | WireForm::Fixed { .. }
            | WireForm::Half
            | WireForm::Unit { .. }
            | WireForm::Rotation { .. } => (natural_min, natural_max),
        };
        let (origin, lane_min, lane_max) = bounds(min, max);
        self.lane(lane_min, lane_max, scope.scalar());
        self.steps.push(Step::Int {
            bytes,
            is_signed,
            origin,
            min,
            max,
        });
    }

    fn float(&mut self, is_wide: bool, scope: Scope) {
        match scope.form {
            WireForm::Fixed { min, max, per_unit } => {
                let steps = |units: i32| {
                    let steps = i64::from(units).saturating_mul(i64::from(per_unit));
                    i32::try_from(steps).unwrap_or(if units < 0 { i32::MIN } else { i32::MAX })
                };
                let (min, max) = (steps(min), steps(max));
                self.lane(min, max, scope.scalar());
                self.steps.push(Step::Fixed {
                    is_wide,
                    per_unit,
                    min,
                    max,
                });
            }
            WireForm::Half => {
                self.lane(HALF_LANE_MIN, HALF_LANE_MAX, scope.scalar());
                self.steps.push(Step::Half { is_wide });
            }
            WireForm::Exact
            | WireForm::Range { .. }
            | WireForm::Varint
            | WireForm::Unit { .. }
            | WireForm::Rotation { .. }
                if is_wide =>
            {
                self.lane(i32::MIN, i32::MAX, LaneModel::Word);
                self.lane(i32::MIN, i32::MAX, LaneModel::Word);
                self.steps.push(Step::Float64);
            }
            WireForm::Exact
            | WireForm::Range { .. }
            | WireForm::Varint
            | WireForm::Unit { .. }
            | WireForm::Rotation { .. } => {
                self.lane(i32::MIN, i32::MAX, scope.scalar());
                self.steps.push(Step::Float32);
            }
        }
    }

    /// A vector of `parts` floats.
    fn vector(&mut self, parts: u8, scope: Scope) {
        match (scope.form, parts) {
            (WireForm::Unit { bits }, 2) => {
                let half_turn = 1_i32 << (bits - 1);
                self.lane(-half_turn, half_turn - 1, scope.part(0, 1).scalar());
                self.steps.push(Step::Direction2 { bits });
            }
            (WireForm::Unit { bits }, 3) => {
                let steps = octahedron_steps(bits);
                self.lane(-steps, steps, scope.part(0, 2).scalar());
                self.lane(-steps, steps, scope.part(1, 2).scalar());
                self.steps.push(Step::Direction3 { bits });
            }
            (WireForm::Rotation { bits }, 4) => {
                self.lane(0, 3, LaneModel::RotationLargest);
                for part in 0..3 {
                    self.lane(0, (1 << bits) - 1, LaneModel::RotationPart { part });
                }
                self.steps.push(Step::Rotation { bits });
            }
            _ => (0..parts).for_each(|part| self.float(false, scope.part(part, parts))),
        }
    }
}

/// Whether values of the type are one number each.
fn is_number(exact: &ExactType) -> bool {
    integer(exact).is_some() || matches!(exact, ExactType::F32 | ExactType::F64)
}

/// Bytes, sign and bounds of an integer type; those of a u64 as far as `i64` reaches.
pub(super) fn integer(exact: &ExactType) -> Option<(u8, bool, i64, i64)> {
    let unsigned = |bytes: u8| {
        let max = i64::try_from(u64::MAX >> (64 - 8 * u32::from(bytes))).unwrap_or(i64::MAX);
        Some((bytes, false, 0, max))
    };
    let signed = |bytes: u8| {
        let shift = 64 - 8 * u32::from(bytes);
        Some((bytes, true, i64::MIN >> shift, i64::MAX >> shift))
    };
    if *exact == ExactType::U8 {
        unsigned(1)
    } else if *exact == ExactType::U16 {
        unsigned(2)
    } else if *exact == ExactType::U32 {
        unsigned(4)
    } else if *exact == ExactType::U64 {
        unsigned(8)
    } else if *exact == ExactType::I8 {
        signed(1)
    } else if *exact == ExactType::I16 {
        signed(2)
    } else if *exact == ExactType::I32 {
        signed(4)
    } else if *exact == ExactType::I64 {
        signed(8)
    } else {
        None
    }
}

/// Where lane 0 lies, and the lane's bounds, for integers from `min` to `max`, which are less than
/// 2^32 apart. Lanes are the numbers themselves where that is possible, else their bits as a u32
/// where all of these occur, else counted from the least.
fn bounds(min: i64, max: i64) -> (i64, i32, i32) {
    if let (Ok(lane_min), Ok(lane_max)) = (i32::try_from(min), i32::try_from(max)) {
        return (0, lane_min, lane_max);
    }
    let span = max.wrapping_sub(min);
    if min == 0 && span == i64::from(u32::MAX) {
        return (0, i32::MIN, i32::MAX);
    }
    if let Ok(span) = i32::try_from(span) {
        return (min, 0, span);
    }
    let origin = min.wrapping_add(1 << 31);
    let lane_max = i32::try_from(span.saturating_sub(1 << 31)).unwrap_or(i32::MAX);
    (origin, i32::MIN, lane_max)
}
