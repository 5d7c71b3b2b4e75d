//! What a client shows of that which it predicts for itself.
//!
//! Ticks are whole, and what is drawn is not: between two ticks a value is shown on its way from
//! that at the end of the tick before to the newest.
//!
//! When the host's word about a tick differs from what the client predicted, the present that
//! follows from it differs too, and an entity would jump. The difference is kept next to the state
//! and fades, so that what is shown goes on from where it was. It never enters the state.

use std::collections::BTreeMap;

use bevy_ecs::entity::Entity;
use bevy_ecs::world::World;
use phalanx_netcode::state::{KindRows, Schema, Visibility};
use phalanx_netcode::statesync::{Blend, Floats};
use phalanx_netcode::tick::Tick;

use super::Smoothing;
use crate::net_id::NetId;

/// A value of a kind and the entity that it is shown for.
type Place = (NetId, u16);

/// The differences between what is shown and what is predicted.
#[derive(Debug)]
pub(crate) struct Corrections {
    /// By the schema's order: numbers that can be shown a little off.
    kinds: Vec<Blend>,
    smoothing: Smoothing,
    /// The newest tick that was predicted, and the values at its end.
    newest: Tick,
    rows: BTreeMap<Place, Vec<u8>>,
    /// The values at the end of the tick before, but for what jumped since.
    before: BTreeMap<Place, Vec<u8>>,
    /// How far the time is on the way from the tick before, 0, to the newest, 1.
    part: f32,
    /// What is added to the numbers of a row.
    errors: BTreeMap<Place, Vec<f32>>,
    row: KindRows,
}

impl Corrections {
    pub(crate) fn new(schema: &Schema) -> Self {
        let kinds = schema.kinds().iter();
        let kinds = kinds.map(|kind| match kind.visibility {
            Visibility::Client => Blend::new(kind),
            Visibility::HostOnly | Visibility::Derived | Visibility::Local => Blend::default(),
        });
        Self {
            kinds: kinds.collect(),
            smoothing: Smoothing::default(),
            newest: Tick::ZERO,
            rows: BTreeMap::new(),
            before: BTreeMap::new(),
            part: 1.0,
            errors: BTreeMap::new(),
            row: KindRows::default(),
        }
    }

    pub(crate) fn set_smoothing(&mut self, smoothing: Smoothing) {
        self.smoothing = smoothing;
    }

    /// Forgets all: the state is another one.
    pub(crate) fn clear(&mut self) {
        self.newest = Tick::ZERO;
        self.rows.clear();
        self.before.clear();
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
            // On the way to the present only where that arrives counts, and where it comes from.
            if tick.next() == self.newest {
                self.keep_before(world, own, write);
            }
            return;
        }
        let is_again = tick == self.newest;
        self.newest = tick;
        let mut old = core::mem::take(&mut self.rows);
        for (kind, blend) in (0..).zip(&self.kinds) {
            if blend.is_empty() {
                continue;
            }
            self.row.clear();
            write(kind, world, own, &mut self.row);
            for (id, row) in self.row.rows() {
                let place = (NetId::from(id), kind);
                let mut kept = old.remove(&place).unwrap_or_default();
                let snap_beyond = self.smoothing.snap_beyond;
                if is_again && kept.len() == row.len() && kept != row {
                    let errors = self.errors.entry(place).or_default();
                    add_difference(blend, &kept, row, errors, snap_beyond);
                    let before = self.before.get(&place);
                    if before.is_some_and(|before| is_beyond(blend, before, row, snap_beyond)) {
                        self.before.remove(&place);
                    }
                }
                if !is_again {
                    // The two rows of a place take turns.
                    let mut spare = self.before.remove(&place).unwrap_or_default();
                    let is_way =
                        kept.len() == row.len() && !is_beyond(blend, &kept, row, snap_beyond);
                    core::mem::swap(&mut spare, &mut kept);
                    if is_way {
                        self.before.insert(place, spare);
                    }
                }
                kept.clear();
                kept.extend_from_slice(row);
                self.rows.insert(place, kept);
            }
        }
        if !old.is_empty() || !is_again {
            let rows = &self.rows;
            self.errors.retain(|place, _| rows.contains_key(place));
            self.before.retain(|place, _| rows.contains_key(place));
        }
    }

    /// Takes notice of the values at the end of the tick before the newest, when it ran again.
    fn keep_before(
        &mut self,
        world: &World,
        own: &[(NetId, Entity)],
        write: impl Fn(u16, &World, &[(NetId, Entity)], &mut KindRows),
    ) {
        for (kind, blend) in (0..).zip(&self.kinds) {
            if blend.is_empty() {
                continue;
            }
            self.row.clear();
            write(kind, world, own, &mut self.row);
            for (id, row) in self.row.rows() {
                // What jumped has none, and what is new neither.
                if let Some(kept) = self.before.get_mut(&(NetId::from(id), kind)) {
                    kept.clear();
                    kept.extend_from_slice(row);
                }
            }
        }
    }

    /// How far the time is on the way from the tick before to the newest one, 0 to 1.
    pub(crate) const fn set_part(&mut self, part: f32) {
        self.part = part.clamp(0.0, 1.0);
    }

    /// Whether values are shown between two ticks.
    fn is_between(&self) -> bool {
        self.part < 1.0 && !self.before.is_empty()
    }

    /// Whether ticks have been predicted.
    pub(crate) fn is_predicting(&self) -> bool {
        self.newest > Tick::ZERO
    }

    /// Whether all is shown as it is predicted.
    pub(crate) fn are_none(&self) -> bool {
        self.errors.is_empty() && !self.is_between()
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
        let Some(blend) = self.kinds.get(usize::from(kind)) else {
            return;
        };
        if self.part < 1.0
            && let Some(before) = self.before.get(&(id, kind))
            && before.len() == row.len()
        {
            blend.mix(row, before, 1.0 - self.part);
        }
        let Some(errors) = self.errors.get(&(id, kind)) else {
            return;
        };
        let mut errors = errors.iter();
        for part in blend.floats() {
            let mut shown = [0.0; 4];
            let shown = &mut shown[..part.count];
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
    blend: &Blend,
    before: &[u8],
    after: &[u8],
    errors: &mut Vec<f32>,
    snap_beyond: f32,
) {
    errors.resize(blend.floats().map(|part| part.count).sum(), 0.0);
    let mut rest = &mut errors[..];
    for part in blend.floats() {
        let (errors, later) = rest.split_at_mut(part.count);
        rest = later;
        let change = difference(part, before, after);
        for (error, change) in errors.iter_mut().zip(change) {
            *error += change;
        }
        if errors.iter().any(|error| is_far(*error, snap_beyond)) {
            errors.fill(0.0);
        }
    }
}

/// Whether something in a row moved further than things do.
fn is_beyond(blend: &Blend, before: &[u8], after: &[u8], snap_beyond: f32) -> bool {
    let mut changes = blend
        .floats()
        .flat_map(|part| difference(part, before, after));
    changes.any(|change| is_far(change, snap_beyond))
}

fn is_far(change: f32, snap_beyond: f32) -> bool {
    !change.is_finite() || change.abs() > snap_beyond
}

/// `before - after`, and zeros up to four.
fn difference(part: Floats, before: &[u8], after: &[u8]) -> [f32; 4] {
    let number = |row, place| float(row, part.at + place * 4);
    // Both signs of a rotation's parts mean the same; the nearer one counts.
    let products = (0..part.count).map(|place| number(before, place) * number(after, place));
    let sign = if part.is_rotation && products.sum::<f32>() < 0.0 {
        -1.0
    } else {
        1.0
    };
    core::array::from_fn(|place| {
        if place < part.count {
            sign * number(before, place) - number(after, place)
        } else {
            0.0
        }
    })
}

fn float(row: &[u8], at: usize) -> f32 {
    let bytes = row.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
    f32::from_le_bytes(bytes.unwrap_or_default())
}
