//! Smoothing of what a client predicts for itself.
//!
//! When the host's word about a tick differs from what the client predicted, the present that
//! follows from it differs too, and an entity would jump. The difference is kept next to the state
//! and fades, so that what is shown goes on from where it was. It never enters the state.

use std::collections::BTreeMap;

use bevy_ecs::entity::Entity;
use bevy_ecs::world::World;
use phalanx_netcode::state::{ExactType, FieldSchema, Interpolation, KindRows, Schema, Visibility};
use phalanx_netcode::tick::Tick;

use super::Smoothing;
use crate::net_id::NetId;

/// A value of a kind and the entity that it is shown for.
type Place = (NetId, u16);

/// The differences between what is shown and what is predicted.
#[derive(Debug, Default)]
pub(crate) struct Corrections {
    /// By the schema's order: numbers that can be shown a little off.
    kinds: Vec<Vec<Part>>,
    smoothing: Smoothing,
    /// The newest tick that was predicted, and the values at its end.
    newest: Tick,
    rows: BTreeMap<Place, Vec<u8>>,
    /// What is added to the numbers of a row.
    errors: BTreeMap<Place, Vec<f32>>,
    row: KindRows,
}

/// Floats of a row that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    /// First byte.
    at: usize,
    floats: usize,
    /// Whether they are a rotation, whose length is 1.
    is_rotation: bool,
}

impl Corrections {
    pub(crate) fn new(schema: &Schema) -> Self {
        let kinds = schema.kinds().iter().map(|kind| {
            let mut parts = Vec::new();
            if kind.visibility == Visibility::Client {
                let _end = collect(&kind.fields, 0, &mut parts);
            }
            parts
        });
        Self {
            kinds: kinds.collect(),
            ..Self::default()
        }
    }

    pub(crate) fn set_smoothing(&mut self, smoothing: Smoothing) {
        self.smoothing = smoothing;
    }

    /// Forgets all: the state is another one.
    pub(crate) fn clear(&mut self) {
        self.newest = Tick::ZERO;
        self.rows.clear();
        self.errors.clear();
    }

    /// Takes notice of the values of this client's own entities after `tick` ran, for the first
    /// time or again. `own` are the ids under which they are shown; `write` gives the row of a
    /// kind.
    pub(crate) fn stepped(
        &mut self,
        world: &World,
        tick: Tick,
        own: &[(NetId, Entity)],
        write: impl Fn(u16, &World, &[(NetId, Entity)], &mut KindRows),
    ) {
        if tick < self.newest {
            // On the way to the present; only where that arrives counts.
            return;
        }
        let is_again = tick == self.newest;
        self.newest = tick;
        let mut before = core::mem::take(&mut self.rows);
        for (kind, parts) in (0..).zip(&self.kinds) {
            if parts.is_empty() {
                continue;
            }
            self.row.clear();
            write(kind, world, own, &mut self.row);
            for (id, row) in self.row.rows() {
                let place = (NetId::from(id), kind);
                let mut kept = before.remove(&place).unwrap_or_default();
                if is_again && kept.len() == row.len() && kept != row {
                    let errors = self.errors.entry(place).or_default();
                    add_difference(parts, &kept, row, errors, self.smoothing.snap_beyond);
                }
                kept.clear();
                kept.extend_from_slice(row);
                self.rows.insert(place, kept);
            }
        }
        if !before.is_empty() || !is_again {
            let rows = &self.rows;
            self.errors.retain(|place, _| rows.contains_key(place));
        }
    }

    /// Whether ticks have been predicted.
    pub(crate) fn is_predicting(&self) -> bool {
        self.newest > Tick::ZERO
    }

    /// Whether all is shown as it is predicted.
    pub(crate) fn are_none(&self) -> bool {
        self.errors.is_empty()
    }

    /// Time passes, and differences fade.
    pub(crate) fn fade(&mut self, elapsed_us: u64) {
        if self.errors.is_empty() {
            return;
        }
        #[expect(clippy::cast_precision_loss, reason = "a short time")]
        let halvings = elapsed_us as f32 / self.smoothing.half_life_us.max(1) as f32;
        let factor = libm::exp2f(-halvings);
        self.errors.retain(|_place, errors| {
            errors.iter_mut().for_each(|error| *error *= factor);
            errors.iter().any(|error| error.abs() > NEGLIGIBLE)
        });
    }

    /// Brings the bytes of a predicted row to what is shown.
    pub(crate) fn apply(&self, id: NetId, kind: u16, row: &mut [u8]) {
        let (Some(errors), Some(parts)) = (
            self.errors.get(&(id, kind)),
            self.kinds.get(usize::from(kind)),
        ) else {
            return;
        };
        let mut errors = errors.iter();
        for part in parts {
            let mut shown = [0.0; 4];
            let shown = &mut shown[..part.floats];
            for (place, number) in shown.iter_mut().enumerate() {
                let error = errors.next().copied().unwrap_or(0.0);
                *number = float(row, part.at + place * 4) + error;
            }
            if part.is_rotation {
                let length = libm::sqrtf(shown.iter().map(|part| part * part).sum());
                if length > NEGLIGIBLE {
                    shown.iter_mut().for_each(|part| *part /= length);
                }
            }
            for (place, number) in shown.iter().enumerate() {
                if number.is_finite() {
                    let at = part.at + place * 4;
                    row[at..at + 4].copy_from_slice(&number.to_le_bytes());
                }
            }
        }
    }
}

/// Errors below this are not seen.
const NEGLIGIBLE: f32 = 1e-5;

/// Adds `before - after` to `errors`, so that what is shown stays where it was.
fn add_difference(
    parts: &[Part],
    before: &[u8],
    after: &[u8],
    errors: &mut Vec<f32>,
    snap_beyond: f32,
) {
    errors.resize(parts.iter().map(|part| part.floats).sum(), 0.0);
    let mut rest = &mut errors[..];
    for part in parts {
        let (errors, later) = rest.split_at_mut(part.floats);
        rest = later;
        // Both signs of a rotation's parts mean the same; the nearer one counts.
        let dot: f32 = (0..part.floats)
            .map(|place| float(before, part.at + place * 4) * float(after, part.at + place * 4))
            .sum();
        let sign = if part.is_rotation && dot < 0.0 {
            -1.0
        } else {
            1.0
        };
        for (place, error) in errors.iter_mut().enumerate() {
            let at = part.at + place * 4;
            *error += sign * float(before, at) - float(after, at);
        }
        let is_far = |error: &f32| !error.is_finite() || error.abs() > snap_beyond;
        if errors.iter().any(is_far) {
            errors.fill(0.0);
        }
    }
}

fn float(row: &[u8], at: usize) -> f32 {
    let bytes = row.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
    f32::from_le_bytes(bytes.unwrap_or_default())
}

/// Collects the floats of `fields`, which start at byte `at`, and returns where they end; `None`
/// behind a field whose length varies.
fn collect(fields: &[FieldSchema], mut at: usize, parts: &mut Vec<Part>) -> Option<usize> {
    for field in fields {
        if field.interpolation != Interpolation::Step {
            collect_type(&field.exact, at, parts);
        }
        at += field.exact.fixed_len()?;
    }
    Some(at)
}

fn collect_type(exact: &ExactType, at: usize, parts: &mut Vec<Part>) {
    let mut part = |floats, is_rotation| {
        parts.push(Part {
            at,
            floats,
            is_rotation,
        });
    };
    match exact {
        ExactType::F32 => part(1, false),
        ExactType::Vec2 => part(2, false),
        ExactType::Vec3 => part(3, false),
        ExactType::Vec4 => part(4, false),
        ExactType::Quat => part(4, true),
        ExactType::Struct(fields) => {
            let _end = collect(fields, at, parts);
        }
        ExactType::Array(element, count) => {
            if let Some(len) = element.fixed_len() {
                for number in 0..usize::from(*count) {
                    collect_type(element, at + number * len, parts);
                }
            }
        }
        ExactType::Bool
        | ExactType::U8
        | ExactType::U16
        | ExactType::U32
        | ExactType::U64
        | ExactType::I8
        | ExactType::I16
        | ExactType::I32
        | ExactType::I64
        | ExactType::F64
        | ExactType::NetId
        | ExactType::Option(_)
        | ExactType::List(_)
        | ExactType::Text
        | ExactType::Enum(_) => {}
    }
}
