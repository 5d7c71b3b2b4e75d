//! Where the entities of one snapshot are, who owns them, and in which room they are.

use core::ops::Range;

use crate::hash::mix;
use crate::id::Slot;
use crate::simulation::OWNER_KIND;
use crate::state::{QuantizedSnapshot, Schema, ShapeId, Shapes, WireLayout};

use super::{ROOM_KIND, is_within};

/// Cells that a query looks into, at most, per axis to each side. A radius that needs more makes
/// the cells larger.
const REACH: i32 = 1;

/// Where to find things in the lanes of a shape.
#[derive(Clone, Debug, Default)]
struct Places {
    owner: Option<usize>,
    room: Option<usize>,
    /// The kind that has the position, and its lanes.
    position: Option<(u16, Range<usize>)>,
}

/// An index of one snapshot. It is made at most once per snapshot, for all clients.
#[derive(Debug, Default)]
pub(in crate::statesync) struct WorldIndex {
    owner_kind: Option<u16>,
    room_kind: Option<u16>,
    shapes: Vec<Places>,
    positions: Vec<Option<[f32; 3]>>,
    owners: Vec<Option<Slot>>,
    rooms: Vec<Option<i32>>,
    placeless: Vec<u32>,
    /// Entities that have an owner, by slot and index.
    owned: Vec<(Slot, u32)>,
    cell: f32,
    /// Where each bucket ends in `members`.
    ends: Vec<u32>,
    members: Vec<u32>,
}

impl WorldIndex {
    /// An index for snapshots of `schema`.
    pub(in crate::statesync) fn new(schema: &Schema) -> Self {
        let kind = |name: &str| {
            let index = schema.kind_index(name)?;
            u16::try_from(index).ok()
        };
        Self {
            owner_kind: kind(OWNER_KIND),
            room_kind: kind(ROOM_KIND),
            ..Self::default()
        }
    }

    /// Whether clients get the kind that names rooms.
    pub(in crate::statesync) fn has_rooms(&self, layout: &WireLayout) -> bool {
        self.room_kind
            .and_then(|kind| layout.kind(kind))
            .is_some_and(|kind| !kind.lanes.is_empty())
    }

    /// Takes in a snapshot; `reach` is the largest radius that will be asked for.
    pub(in crate::statesync) fn build(
        &mut self,
        layout: &WireLayout,
        shapes: &Shapes,
        snapshot: &QuantizedSnapshot,
        reach: Option<f32>,
    ) {
        self.positions.clear();
        self.owners.clear();
        self.rooms.clear();
        self.placeless.clear();
        self.owned.clear();
        for (at, entity) in (0_u32..).zip(snapshot.entities()) {
            let places = self.places(layout, shapes, entity.shape);
            let lane = |lane: Option<usize>| entity.lanes.get(lane?).copied();
            let owner = lane(places.owner).and_then(|slot| u8::try_from(slot).ok().map(Slot));
            let room = lane(places.room);
            let position = places.position.as_ref().and_then(|(kind, range)| {
                let lanes = entity.lanes.get(range.clone())?;
                let place = layout.kind(*kind)?.place(lanes)?;
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "to the nearest, or infinite"
                )]
                let place = place.map(|part| part as f32);
                place.iter().all(|part| part.is_finite()).then_some(place)
            });
            self.positions.push(position);
            self.owners.push(owner);
            self.rooms.push(room);
            if position.is_none() {
                self.placeless.push(at);
            }
            self.owned.extend(owner.map(|slot| (slot, at)));
        }
        self.owned.sort_unstable();
        self.cell = 0.0;
        if let Some(reach) = reach {
            self.fill_cells(reach.max(f32::MIN_POSITIVE));
        }
    }

    /// The owner of entity number `at`.
    pub(in crate::statesync) fn owner(&self, at: u32) -> Option<Slot> {
        self.owners.get(at as usize).copied().flatten()
    }

    /// The room of entity number `at`.
    pub(in crate::statesync) fn room(&self, at: u32) -> Option<i32> {
        self.rooms.get(at as usize).copied().flatten()
    }

    /// The position of entity number `at`.
    pub(in crate::statesync) fn place(&self, at: u32) -> Option<[f32; 3]> {
        self.positions.get(at as usize).copied().flatten()
    }

    /// The entities without a position, ascending.
    pub(in crate::statesync) fn placeless(&self) -> &[u32] {
        &self.placeless
    }

    /// The entities of `slot`, ascending.
    pub(in crate::statesync) fn owned_by(&self, slot: Option<Slot>) -> impl Iterator<Item = u32> {
        let range = slot.map_or(0..0, |slot| {
            let start = self.owned.partition_point(|&(owner, _)| owner < slot);
            let end = self.owned.partition_point(|&(owner, _)| owner <= slot);
            start..end
        });
        self.owned[range].iter().map(|&(_, at)| at)
    }

    /// Appends the entities within `radius` of `point`, in any order, some twice.
    pub(in crate::statesync) fn within(&self, point: [f32; 3], radius: f32, found: &mut Vec<u32>) {
        if self.cell <= 0.0 || self.ends.is_empty() {
            return;
        }
        let center = self.cell_of(point);
        for x in -REACH..=REACH {
            for y in -REACH..=REACH {
                for z in -REACH..=REACH {
                    let cell = [
                        center[0].saturating_add(x),
                        center[1].saturating_add(y),
                        center[2].saturating_add(z),
                    ];
                    let bucket = self.bucket(cell);
                    let start = bucket.checked_sub(1).map_or(0, |before| self.ends[before]);
                    let members = &self.members[start as usize..self.ends[bucket] as usize];
                    found.extend(members.iter().copied().filter(|&at| {
                        self.place(at)
                            .is_some_and(|place| is_within(place, point, radius))
                    }));
                }
            }
        }
    }

    fn places(&mut self, layout: &WireLayout, shapes: &Shapes, shape: ShapeId) -> &Places {
        let at = shape.0 as usize;
        while self.shapes.len() <= at {
            let next = ShapeId(u32::try_from(self.shapes.len()).unwrap_or(u32::MAX));
            let shape = shapes.get(next);
            let mut places = Places::default();
            for (&kind, lanes) in shape.kinds.iter().zip(shape.starts.windows(2)) {
                let lanes = lanes[0] as usize..lanes[1] as usize;
                let first = (!lanes.is_empty()).then_some(lanes.start);
                if Some(kind) == self.owner_kind {
                    places.owner = first;
                }
                if Some(kind) == self.room_kind {
                    places.room = first;
                }
                let kind_layout = layout.kind(kind);
                if places.position.is_none()
                    && kind_layout.is_some_and(|k| k.fields.iter().any(|field| field.is_position))
                {
                    places.position = Some((kind, lanes));
                }
            }
            self.shapes.push(places);
        }
        &self.shapes[at]
    }

    /// Sorts the entities into buckets by their cell.
    fn fill_cells(&mut self, reach: f32) {
        #[expect(clippy::cast_precision_loss, reason = "one")]
        let cell = reach / REACH as f32;
        self.cell = cell;
        let buckets = self.positions.len().next_power_of_two().max(16);
        self.ends.clear();
        self.ends.resize(buckets, 0);
        for at in 0..self.positions.len() {
            if let Some(place) = self.positions[at] {
                let bucket = self.bucket(self.cell_of(place));
                self.ends[bucket] += 1;
            }
        }
        let mut sum = 0;
        for end in &mut self.ends {
            // Each is where its bucket begins, and grows to its end below.
            (sum, *end) = (sum + *end, sum);
        }
        self.members.clear();
        self.members.resize(sum as usize, 0);
        for (at, number) in (0..self.positions.len()).zip(0_u32..) {
            if let Some(place) = self.positions[at] {
                let bucket = self.bucket(self.cell_of(place));
                self.members[self.ends[bucket] as usize] = number;
                self.ends[bucket] += 1;
            }
        }
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "a float beyond the range of i32 becomes its end; there is nothing beyond"
    )]
    fn cell_of(&self, place: [f32; 3]) -> [i32; 3] {
        place.map(|part| (part / self.cell).floor() as i32)
    }

    fn bucket(&self, cell: [i32; 3]) -> usize {
        let [x, y, z] = cell.map(|part| u64::from(part.cast_unsigned()));
        let hash = mix(x | y << 32, z);
        let mask = self.ends.len() - 1;
        usize::try_from(hash & 0xffff_ffff).unwrap_or(0) & mask
    }
}
