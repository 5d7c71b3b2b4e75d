//! What a client should receive: a radius around viewpoints, rooms, and rules of the game.
//!
//! An entity comes into view within the radius and leaves it only beyond the larger leave radius,
//! so that one at the border does not come and go. Entities that the client owns, resources, and
//! entities without a position are not subject to the radius. Interest is decided once per client
//! and snapshot; clients that see the same share one [`Sight`], and so the bytes made from it.

mod index;

use core::fmt;
use std::sync::Arc;

use crate::delta::{Entry, View};
use crate::id::{MemberId, NetId, Slot};
use crate::state::{EntityRef, QuantizedSnapshot, Shape, Shapes};

pub(super) use index::WorldIndex;

/// How far clients see. Without one they see everything.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interest {
    /// Distance from a viewpoint within which an entity comes into view, in the units of the
    /// position. Infinite: everywhere.
    pub radius: f32,
    /// Distance beyond which it leaves the view again; at least `radius`.
    pub leave_radius: f32,
}

impl Interest {
    /// Entities come into view at `radius` and leave it a tenth further out.
    #[must_use]
    pub fn within(radius: f32) -> Self {
        Self {
            radius,
            leave_radius: radius * 1.1,
        }
    }

    /// Everything is in view, but for what rooms and rules take away.
    pub const EVERYTHING: Self = Self {
        radius: f32::INFINITY,
        leave_radius: f32::INFINITY,
    };
}

/// Name of the kind whose first field, an integer of at most 32 bits, is the room of its entity.
/// A client sees the rooms of its own entities and those that it was given; an entity without the
/// kind is in all rooms.
pub const ROOM_KIND: &str = "phalanx.room";

/// Who looks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Viewer {
    /// The member.
    pub member: MemberId,
    /// Its slot; the entities that it owns are its viewpoints, and always in its view.
    pub slot: Option<Slot>,
    /// More viewpoints. A viewer that has none, no slot and never had an own entity sees as if it
    /// were everywhere.
    pub viewpoints: Vec<[f32; 3]>,
    /// More rooms.
    pub rooms: Vec<i32>,
}

/// A game's own rule about who gets what.
///
/// It is asked for every entity, client and snapshot: be quick.
pub trait VisibilityRule: fmt::Debug + Send + Sync {
    /// The kinds of `entity` that `viewer` must not get: bit `n` stands for the `n`-th kind of its
    /// shape, kinds beyond the 64th cannot be hidden. `None` hides the entity.
    fn hidden(&self, viewer: &Viewer, entity: &EntityRef<'_>, shape: &Shape) -> Option<u64>;
}

/// What one client, or several, see of one snapshot.
#[derive(Clone, Debug)]
pub(super) enum Sight {
    /// All of it.
    All,
    /// These entities, by index ascending.
    Some(Arc<Vec<Entry>>),
}

impl Sight {
    /// Whether both show the same of one snapshot.
    pub(super) fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::All, Self::All) => true,
            (Self::Some(a), Self::Some(b)) => Arc::ptr_eq(a, b) || a == b,
            (Self::All, Self::Some(_)) | (Self::Some(_), Self::All) => false,
        }
    }

    /// It as the codec takes it.
    pub(super) fn view<'a>(&'a self, snapshot: &'a QuantizedSnapshot) -> View<'a> {
        match self {
            Self::All => View::all(snapshot),
            Self::Some(entries) => View::of(snapshot, entries),
        }
    }

    /// How many entities it shows.
    pub(super) fn len(&self, snapshot: &QuantizedSnapshot) -> usize {
        match self {
            Self::All => snapshot.len(),
            Self::Some(entries) => entries.len(),
        }
    }

    /// The entity with number `at` in this view: its index in the snapshot, and its hidden kinds.
    pub(super) fn entry(&self, at: usize) -> Entry {
        match self {
            Self::All => Entry {
                index: u32::try_from(at).unwrap_or(u32::MAX),
                hidden: 0,
            },
            Self::Some(entries) => entries[at],
        }
    }

    pub(super) fn entries(&self, snapshot: &QuantizedSnapshot) -> impl Iterator<Item = Entry> {
        (0..self.len(snapshot)).map(|at| self.entry(at))
    }
}

/// What a subscription remembers of its interest between two snapshots.
#[derive(Clone, Debug, Default)]
pub(super) struct Outlook {
    /// Entities in view because of their place, ascending.
    near: Vec<NetId>,
    /// Where the viewer's own entities were last.
    own: Vec<[f32; 3]>,
    /// Whether it ever had an own entity.
    had_own: bool,
    rooms: Vec<i32>,
    found: Vec<u32>,
    /// The radius, where there is one.
    reach: f32,
}

/// Who decides: the settings of a publisher.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules {
    pub(super) interest: Option<Interest>,
    pub(super) rule: Option<Arc<dyn VisibilityRule>>,
    pub(super) has_rooms: bool,
}

impl Rules {
    /// Whether everyone sees everything.
    pub(super) fn show_all(&self) -> bool {
        !self.has_rooms && self.rule.is_none() && self.radius().is_none()
    }

    fn radius(&self) -> Option<(f32, f32)> {
        let interest = self
            .interest
            .filter(|interest| interest.radius.is_finite())?;
        Some((interest.radius, interest.leave_radius.max(interest.radius)))
    }

    /// What `viewer` sees of `snapshot`, of which `index` knows the places; `spare` is what the
    /// entries are written into.
    pub(super) fn sight(
        &self,
        viewer: &Viewer,
        outlook: &mut Outlook,
        snapshot: &QuantizedSnapshot,
        shapes: &Shapes,
        index: &WorldIndex,
        spare: &mut Vec<Entry>,
    ) -> bool {
        spare.clear();
        let owned =
            |index: &WorldIndex, at: u32| viewer.slot.is_some() && index.owner(at) == viewer.slot;
        outlook.look_around(viewer, index);
        outlook.reach = self.radius().map_or(0.0, |(radius, _)| radius);
        let found = core::mem::take(&mut outlook.found);
        let found = self.candidates(viewer, outlook, snapshot, index, found);
        let mut is_all = found.len() == snapshot.len();
        for &at in &found {
            let is_own = owned(index, at);
            if self.has_rooms
                && !is_own
                && let Some(room) = index.room(at)
                && outlook.rooms.binary_search(&room).is_err()
            {
                is_all = false;
                continue;
            }
            let mut hidden = 0;
            if let Some(rule) = &self.rule {
                let entity = snapshot.entity(at as usize);
                match rule.hidden(viewer, &entity, shapes.get(entity.shape)) {
                    Some(kinds) => hidden = kinds & kinds_mask(shapes.get(entity.shape)),
                    None => {
                        is_all = false;
                        continue;
                    }
                }
            }
            is_all &= hidden == 0;
            spare.push(Entry { index: at, hidden });
        }
        outlook.found = found;
        is_all
    }

    /// Indexes of what rooms and rules still have to look at, ascending.
    fn candidates(
        &self,
        viewer: &Viewer,
        outlook: &mut Outlook,
        snapshot: &QuantizedSnapshot,
        index: &WorldIndex,
        mut found: Vec<u32>,
    ) -> Vec<u32> {
        found.clear();
        let everywhere = viewer.viewpoints.is_empty() && viewer.slot.is_none() && !outlook.had_own;
        let Some((radius, leave_radius)) = self.radius().filter(|_| !everywhere) else {
            let count = u32::try_from(snapshot.len()).unwrap_or(u32::MAX);
            found.extend(0..count);
            return found;
        };
        let points = || viewer.viewpoints.iter().chain(&outlook.own);
        for point in points() {
            index.within(*point, radius, &mut found);
        }
        // What is in view stays until it is further away than the leave radius.
        for &id in &outlook.near {
            if let Some(at) = snapshot.index_of(id)
                && let Ok(at) = u32::try_from(at)
                && let Some(place) = index.place(at)
                && points().any(|&point| is_within(place, point, leave_radius))
            {
                found.push(at);
            }
        }
        found.sort_unstable();
        found.dedup();
        outlook.near.clear();
        let near = found.iter().map(|&at| snapshot.heads()[at as usize].id);
        outlook.near.extend(near);
        found.extend_from_slice(index.placeless());
        found.extend(index.owned_by(viewer.slot));
        found.sort_unstable();
        found.dedup();
        found
    }
}

impl Outlook {
    /// The first viewpoint, and how far it is to things that are no longer near.
    pub(super) fn center(&self, viewer: &Viewer) -> Option<([f32; 3], f32)> {
        let point = self.own.first().or(viewer.viewpoints.first())?;
        Some((*point, self.reach))
    }

    /// Finds the viewer's own entities and the rooms that it may look into.
    fn look_around(&mut self, viewer: &Viewer, index: &WorldIndex) {
        let mut has_own = false;
        self.rooms.clear();
        self.rooms.extend_from_slice(&viewer.rooms);
        for at in index.owned_by(viewer.slot) {
            if let Some(place) = index.place(at) {
                if !has_own {
                    self.own.clear();
                }
                has_own = true;
                self.own.push(place);
            }
            self.rooms.extend(index.room(at));
        }
        self.had_own |= has_own;
        self.rooms.sort_unstable();
        self.rooms.dedup();
    }
}

/// The bits of a shape's kinds in a mask of hidden ones.
fn kinds_mask(shape: &Shape) -> u64 {
    match shape.kinds.len() {
        count @ 0..64 => (1 << count) - 1,
        _ => u64::MAX,
    }
}

fn is_within(a: [f32; 3], b: [f32; 3], radius: f32) -> bool {
    let [x, y, z] = [a[0] - b[0], a[1] - b[1], a[2] - b[2]];
    x * x + y * y + z * z <= radius * radius
}
