//! What the codec does with the lanes of a kind: runs of lanes that are coded together.

use std::sync::Arc;

use crate::state::{KindLayout, Lane, LaneModel, WireLayout};

/// How a group's lanes are predicted and coded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Form {
    /// A vector or a number that goes on along its course (or stays, without `course`).
    Course {
        /// Whether its velocity is looked at.
        course: bool,
    },
    /// The largest part of a rotation and three others.
    Rotation(RotationPlan),
    /// Equal or different, without distance.
    Symbol,
}

/// The steps of a rotation's parts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct RotationPlan {
    /// Steps from the least to the greatest value.
    pub(super) steps: i32,
    /// Half a step, as a part of a quaternion.
    pub(super) part: f32,
    /// Steps that a part of a quaternion has.
    pub(super) unit: f32,
    /// Where zero is, in steps, and half a step.
    pub(super) middle: f32,
}

impl RotationPlan {
    /// For parts of so many bits.
    fn new(bits: u32) -> Self {
        let steps = (1_i32 << bits.min(24)) - 1;
        Self {
            steps,
            part: core::f32::consts::FRAC_1_SQRT_2 / steps as f32,
            unit: core::f32::consts::FRAC_1_SQRT_2 * steps as f32,
            middle: steps as f32 * 0.5 + 0.5,
        }
    }
}

/// Lanes of one field that are coded together.
#[derive(Clone, Debug)]
pub(super) struct Group {
    /// First lane, in the kind.
    pub(super) lane: usize,
    pub(super) len: usize,
    pub(super) form: Form,
    /// Which contexts its flag uses.
    pub(super) class: usize,
    pub(super) field: u16,
    pub(super) is_position: bool,
    /// Square of how far neighbours of a position may be, in steps of its lanes.
    pub(super) reach_square: f32,
    /// Residuals of neighbours count up to this size.
    pub(super) residual_max: i32,
}

/// Entities so far from each other are neighbours, in the units of the game.
const NEIGHBOURS_WITHIN: f64 = 1.25;

/// How a kind's lanes are coded.
#[derive(Clone, Debug)]
pub(super) struct KindPlan {
    pub(super) lanes: Box<[LanePlan]>,
    pub(super) groups: Box<[Group]>,
    pub(super) has_opaque: bool,
}

/// Bounds of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LanePlan {
    pub(super) min: i32,
    pub(super) max: i32,
    /// Bits of a value without any prediction.
    pub(super) bits: u32,
}

/// Classes of groups for the contexts of their flags.
pub(super) const CLASSES: usize = 6;

/// The plans of all kinds.
#[derive(Clone, Debug)]
pub(super) struct Plans {
    pub(super) layout: Arc<WireLayout>,
    kinds: Box<[Option<KindPlan>]>,
}

impl Plans {
    pub(super) fn new(layout: Arc<WireLayout>) -> Self {
        let mut kinds = Vec::new();
        for kind in layout.kinds() {
            kinds.resize(usize::from(kind.kind) + 1, None);
            kinds[usize::from(kind.kind)] = Some(plan(kind));
        }
        Self {
            layout,
            kinds: kinds.into(),
        }
    }

    /// The plan of a kind that the layout has.
    #[inline]
    pub(super) fn kind(&self, kind: u16) -> &KindPlan {
        self.kinds[usize::from(kind)]
            .as_ref()
            .expect("shapes have kinds of the layout only")
    }

    pub(super) fn has(&self, kind: u16) -> bool {
        self.kinds
            .get(usize::from(kind))
            .is_some_and(Option::is_some)
    }

    /// One more than the greatest kind's number.
    pub(super) fn end(&self) -> usize {
        self.kinds.len()
    }
}

fn plan(kind: &KindLayout) -> KindPlan {
    let mut groups: Vec<Group> = Vec::new();
    for (lane, info) in kind.lanes.iter().enumerate() {
        let joins = match info.model {
            LaneModel::Scalar { part, .. } => part > 0,
            LaneModel::RotationPart { .. } => true,
            LaneModel::Symbol
            | LaneModel::RotationLargest
            | LaneModel::Word
            | LaneModel::Id { .. } => false,
        };
        match groups.last_mut() {
            Some(group) if joins && group.field == info.field => group.len += 1,
            _ => groups.push(group(kind, lane, info)),
        }
    }
    KindPlan {
        lanes: kind.lanes.iter().map(lane_plan).collect(),
        groups: groups.into(),
        has_opaque: kind.has_opaque(),
    }
}

fn group(kind: &KindLayout, lane: usize, info: &Lane) -> Group {
    let is_position = kind
        .fields
        .get(usize::from(info.field))
        .is_some_and(|field| field.is_position);
    let (form, class) = match info.model {
        LaneModel::Symbol => (Form::Symbol, 0),
        LaneModel::Scalar { parts, course, .. } => {
            let class = if parts > 1 { 1 } else { 2 };
            (Form::Course { course }, class)
        }
        LaneModel::RotationLargest | LaneModel::RotationPart { .. } => {
            let part = kind.lanes.get(lane + 1).unwrap_or(info);
            let bits = lane_plan(part).bits;
            (Form::Rotation(RotationPlan::new(bits)), 3)
        }
        LaneModel::Word => (Form::Symbol, 4),
        LaneModel::Id { .. } => (Form::Symbol, 5),
    };
    let reach = if is_position {
        (NEIGHBOURS_WITHIN * steps_per_unit(kind, lane)).clamp(1.0, 1e6)
    } else {
        1.0
    };
    #[expect(clippy::cast_possible_truncation, reason = "at most a million")]
    Group {
        reach_square: reach as f32 * reach as f32,
        residual_max: (reach / 4.0) as i32,
        lane,
        len: 1,
        form,
        class,
        field: info.field,
        is_position,
    }
}

/// Steps of a position's lane per unit of the game.
fn steps_per_unit(kind: &KindLayout, lane: usize) -> f64 {
    let mut lanes: Vec<i32> = kind.lanes.iter().map(Lane::idle).collect();
    let Some(zero) = kind.place(&lanes) else {
        return 1.0;
    };
    lanes[lane] = lanes[lane].saturating_add(1);
    match kind.place(&lanes) {
        Some(one) if one != zero => {
            let apart = zero.iter().zip(one).map(|(a, b)| (b - a) * (b - a));
            1.0 / apart.sum::<f64>().sqrt()
        }
        _ => 1.0,
    }
}

fn lane_plan(lane: &Lane) -> LanePlan {
    let span = lane.max.wrapping_sub(lane.min).cast_unsigned();
    LanePlan {
        min: lane.min,
        max: lane.max,
        bits: u32::BITS - span.leading_zeros(),
    }
}
