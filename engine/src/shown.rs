//! What a renderer shows: everyone's values at one glance.
//!
//! On a client of state-sync, other players' entities are shown as they were a moment ago, between
//! two snapshots of the host, and the client's own as it predicts them now, on their way to the
//! newest tick and with corrections faded in. On the host and in lockstep all values are those of
//! the present. [`ShownWorld`] gives them
//! the same way everywhere.

mod correction;

pub(crate) use correction::Corrections;

use core::fmt;

use bevy_ecs::component::Component;
use bevy_ecs::entity::Entity;
use bevy_ecs::world::World;
use phalanx_netcode::id::Slot;
use phalanx_netcode::state::Networked;
use phalanx_netcode::statesync::{Shown, Tables, View};
use phalanx_netcode::wire::bytes::Reader;

use crate::net_id::{NetId, NetIndex};
use crate::side::{Owner, Side};
use crate::simulation::EcsSimulation;
use crate::spawn::SpawnKey;

/// How a client hides corrections of what it predicts for its own player.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Smoothing {
    /// Microseconds in which a difference halves.
    pub half_life_us: u32,
    /// A field that is off by more than this is not smoothed: it was moved on purpose. In the
    /// game's own units; by default 10. Honest corrections are as large as what an entity does
    /// while its inputs are under way, which is a few metres; across a respawn or a portal nothing
    /// should glide. A game that counts pixels, or lets things go 30 units per second, sets more.
    pub snap_beyond: f32,
}

impl Default for Smoothing {
    fn default() -> Self {
        Self {
            half_life_us: 50_000,
            snap_beyond: 10.0,
        }
    }
}

/// The id under which an entity is shown: that of its prediction, if `own` made it.
pub(crate) fn handle_of(world: &World, id: NetId, entity: Entity, own: Slot) -> NetId {
    match world.get::<SpawnKey>(entity) {
        Some(key) if key.slot == own => key.predicted_id(),
        Some(_) | None => id,
    }
}

/// What a renderer shows at this moment; see [`Session::shown`](crate::Session::shown).
#[derive(Clone, Copy)]
pub struct ShownWorld<'a> {
    simulation: &'a EcsSimulation,
    /// What this client was told of others.
    others: Option<(&'a View, Tables<'a>)>,
}

impl fmt::Debug for ShownWorld<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShownWorld")
            .field("side", &self.side())
            .finish_non_exhaustive()
    }
}

impl<'a> ShownWorld<'a> {
    /// What `simulation` shows; on a client of state-sync, with what its node was told of `others`.
    /// Without, a spectating simulation, as of a replay, shows all that it has. A
    /// [`Session`](crate::Session) does this by itself.
    #[must_use]
    pub fn new(simulation: &'a EcsSimulation, others: Option<(&'a View, Tables<'a>)>) -> Self {
        Self { simulation, others }
    }

    /// The moment at which others are shown, on a client of state-sync.
    #[must_use]
    pub fn others_at(&self) -> Option<Shown> {
        self.others?.0.shown()
    }

    /// On which side of the session this is.
    #[must_use]
    pub fn side(&self) -> Side {
        self.simulation.side()
    }

    /// The entity in this node's world, if its present value is what is shown.
    fn present(&self, id: NetId) -> Option<Entity> {
        let world = self.simulation.world();
        let entity = world.resource::<NetIndex>().get(id)?;
        self.shows_present(id, entity).then_some(entity)
    }

    fn shows_present(&self, id: NetId, entity: Entity) -> bool {
        match self.side() {
            Side::Authority => true,
            // A client that does not run ahead shows what it owns like everything else.
            Side::Predicting(_) if !self.simulation.corrections().is_predicting() => false,
            Side::Predicting(own) => {
                let owner = self.simulation.world().get::<Owner>(entity);
                id.is_predicted() || owner.is_some_and(|owner| owner.0 == own)
            }
            // As of a replay: what it holds is all there is.
            Side::Spectating => self.others.is_none(),
        }
    }

    /// Whether this client predicts `id`, so that it reacts to its player at once.
    #[must_use]
    pub fn is_predicted(&self, id: NetId) -> bool {
        self.side().predicting().is_some() && self.present(id).is_some()
    }

    /// All entities that are shown. Those that are not this client's own go by id ascending.
    pub fn ids(&self) -> impl Iterator<Item = NetId> + use<'a> {
        let this = *self;
        let index = this.simulation.world().resource::<NetIndex>();
        let present = index
            .iter()
            .filter(move |&(id, entity)| this.shows_present(id, entity));
        let others = this.others.into_iter();
        let others = others.flat_map(|(view, _tables)| view.ids());
        let others = others.map(NetId::from);
        present
            .map(|(id, _entity)| id)
            .chain(others.filter(move |&id| this.present(id).is_none()))
    }

    /// The id under which an entity was first shown. It differs from `id` where this client
    /// predicted the entity's spawn: the host's entity goes on in its place, and what a renderer
    /// keeps for it should too.
    #[must_use]
    pub fn handle(&self, id: NetId) -> NetId {
        match (self.present(id), self.side().predicting()) {
            (Some(entity), Some(own)) => handle_of(self.simulation.world(), id, entity, own),
            _ => id,
        }
    }

    /// The shown value of `T` on the entity `id`; `None` if it has none, is not shown, or `T` is no
    /// registered kind that clients see.
    #[must_use]
    pub fn get<T: Component + Networked + Clone>(&self, id: NetId) -> Option<T> {
        let kind = self.kind_of::<T>()?;
        self.value(kind, id, &mut Vec::new())
    }

    /// All entities that are shown with a `T`.
    pub fn iter<T: Component + Networked + Clone>(
        &self,
    ) -> impl Iterator<Item = (NetId, T)> + use<'a, T> {
        let this = *self;
        let mut row = Vec::new();
        let kind = this.kind_of::<T>();
        let ids = kind.into_iter().flat_map(move |kind| {
            let ids = this.ids();
            ids.map(move |id| (kind, id))
        });
        ids.filter_map(move |(kind, id)| Some((id, this.value(kind, id, &mut row)?)))
    }

    fn kind_of<T: Networked>(&self) -> Option<u16> {
        let kind = self.simulation.game().schema().kind_index(T::NAME)?;
        u16::try_from(kind).ok()
    }

    fn value<T: Component + Networked + Clone>(
        &self,
        kind: u16,
        id: NetId,
        row: &mut Vec<u8>,
    ) -> Option<T> {
        row.clear();
        if let Some(entity) = self.present(id) {
            let value = self.simulation.world().get::<T>(entity)?;
            let corrections = self.simulation.corrections();
            if corrections.are_none() {
                return Some(value.clone());
            }
            let handle = self.handle(id);
            value.write_exact(row);
            corrections.apply(handle, kind, row);
        } else {
            let (view, tables) = self.others?;
            if !view.row(tables, id.raw(), kind, row) {
                return None;
            }
        }
        let mut reader = Reader::new(row);
        T::read_exact(&mut reader).ok()
    }
}

#[cfg(test)]
mod tests;
