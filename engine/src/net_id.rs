//! Identity of networked entities, and the index that finds them.
//!
//! An entity with a [`NetId`] belongs to the state. Ids come from a counter that is itself state
//! ([`NetIdAllocator`]), so every node gives the same id to the same entity, and a rollback takes
//! the counter back with everything else. [`NetIndex`] is kept by component hooks: it is right
//! after every spawn, despawn, insert and remove, whoever did it.

use core::fmt;

use bevy_ecs::bundle::Bundle;
use bevy_ecs::component::Component;
use bevy_ecs::entity::Entity;
use bevy_ecs::lifecycle::HookContext;
use bevy_ecs::resource::Resource;
use bevy_ecs::system::{Commands, EntityCommands, Res, ResMut, SystemParam};
use bevy_ecs::world::{DeferredWorld, EntityWorldMut, World};
use phalanx_macros::Networked;
use phalanx_netcode::hash::ValueHasher;
use phalanx_netcode::id::{self, Slot, Term};
use phalanx_netcode::state::{Exact, ExactType};
use phalanx_netcode::wire::bytes::{DecodeError, Reader};

use crate::input::CurrentTick;
use crate::side::{Owner, Side};
use crate::spawn::{PREDICTED, SpawnCounts};

/// An entity's network identity: the same on every node, whoever hosts.
///
/// As a component it makes its entity a part of the state. As a value it is a reference to an
/// entity; it stays valid over rollbacks, joins and replays, which an
/// [`Entity`](bevy_ecs::entity::Entity) does not. [`NetIndex`] translates.
///
/// It cannot be changed in place, and clones of an entity do not get it.
#[derive(Component, Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[component(immutable, clone_behavior = Ignore, on_insert = enter_index, on_discard = leave_index)]
pub struct NetId(id::NetId);

impl NetId {
    /// The id that no entity has.
    pub const NONE: Self = Self(id::NetId::NONE);

    /// The id with these bits.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(id::NetId::from_bits(bits))
    }

    /// The id's bits, as they stand in snapshots and hashes.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0.bits()
    }

    /// Whether this is [`NetId::NONE`].
    #[must_use]
    pub const fn is_none(self) -> bool {
        self.0.is_none()
    }

    /// Whether a client gave this id in advance; the host's entity will have another one.
    #[must_use]
    pub const fn is_predicted(self) -> bool {
        self.bits() >= PREDICTED
    }

    /// The id as the protocol names it.
    #[must_use]
    pub const fn raw(self) -> id::NetId {
        self.0
    }
}

impl From<id::NetId> for NetId {
    fn from(id: id::NetId) -> Self {
        Self(id)
    }
}

impl From<NetId> for id::NetId {
    fn from(id: NetId) -> Self {
        id.0
    }
}

impl fmt::Display for NetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Exact for NetId {
    fn exact_type() -> ExactType {
        ExactType::NetId
    }

    #[inline]
    fn write_exact(&self, out: &mut Vec<u8>) {
        self.0.write_exact(out);
    }

    #[inline]
    fn read_exact(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        id::NetId::read_exact(reader).map(Self)
    }

    #[inline(always)]
    fn hash_exact(&self, hasher: &mut ValueHasher) {
        self.0.hash_exact(hasher);
    }
}

/// The counter from which ids come. It is a part of the state.
///
/// [`SpawnNetworked`] and [`NetCommands`] draw from it; a game seldom needs it itself.
#[derive(Resource, Networked, Clone, Copy, Debug, PartialEq, Eq)]
#[networked(name = "phalanx.net_ids", visibility = HostOnly)]
pub struct NetIdAllocator {
    next: u64,
}

impl Default for NetIdAllocator {
    fn default() -> Self {
        Self { next: 1 }
    }
}

impl NetIdAllocator {
    /// A new id.
    pub fn allocate(&mut self) -> NetId {
        let id = NetId::from_bits(self.next);
        // 2^32 ids per term last 10 hours at 2000 spawns per tick and 60 ticks per second; beyond
        // that they run on into the next term's range, which a session of one term never sees.
        self.next += 1;
        id
    }

    /// Never gives ids up to `newest`.
    pub(crate) fn raise_above(&mut self, newest: NetId) {
        self.next = self.next.max(newest.bits().saturating_add(1));
    }

    /// Whether ids up to `newest` are never given again, and enough are left for any session.
    pub(crate) fn is_beyond(&self, newest: NetId) -> bool {
        (newest.bits().saturating_add(1)..PREDICTED).contains(&self.next)
    }

    /// Gives ids of `term` from now on, unless it has got as far already.
    pub(crate) fn begin_term(&mut self, term: Term) {
        self.next = self.next.max(id::NetId::new(term, 1).bits());
    }

    /// Gives the ids from `first` on.
    pub(crate) fn start_at(&mut self, first: NetId) {
        self.next = first.bits();
    }
}

/// Finds the entity of a [`NetId`]; hooks keep it up to date.
///
/// It is not state but follows from it, and its contents do not depend on history.
#[derive(Resource, Debug, Default)]
pub struct NetIndex {
    /// By id ascending. Ids mostly grow, so most insertions are at the end; a removal leaves
    /// `None`, which a rollback often fills again.
    entries: Vec<(NetId, Option<Entity>)>,
    len: usize,
    /// Counts every insertion and removal, so that a saved state knows whether ids may have moved.
    changes: u64,
}

impl NetIndex {
    /// The entity with this id.
    #[must_use]
    pub fn get(&self, id: NetId) -> Option<Entity> {
        let index = self.entries.binary_search_by_key(&id, |entry| entry.0);
        self.entries[index.ok()?].1
    }

    /// Whether an entity has this id.
    #[must_use]
    pub fn contains(&self, id: NetId) -> bool {
        self.get(id).is_some()
    }

    /// Number of networked entities.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no networked entities.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All networked entities, by id ascending.
    pub fn iter(&self) -> impl Iterator<Item = (NetId, Entity)> {
        self.entries
            .iter()
            .filter_map(|&(id, entity)| Some((id, entity?)))
    }

    /// The largest id; [`NetId::NONE`] if there is no entity.
    pub(crate) fn newest(&self) -> NetId {
        let mut ids = self.entries.iter().rev();
        let newest = ids.find(|entry| entry.1.is_some());
        newest.map_or(NetId::NONE, |entry| entry.0)
    }

    /// The largest id that a host gave; [`NetId::NONE`] if there is no such entity.
    pub(crate) fn newest_of_host(&self) -> NetId {
        let mut ids = self.entries.iter().rev();
        let newest = ids.find(|entry| entry.1.is_some() && !entry.0.is_predicted());
        newest.map_or(NetId::NONE, |entry| entry.0)
    }

    /// The entities that a client made up in advance, by id ascending.
    pub(crate) fn predicted(&self) -> impl Iterator<Item = (NetId, Entity)> {
        let first = self
            .entries
            .partition_point(|entry| !entry.0.is_predicted());
        let predicted = self.entries[first..].iter();
        predicted.filter_map(|&(id, entity)| Some((id, entity?)))
    }

    /// Finds the entities of `ids`, which ascend; neighbours cost next to nothing.
    pub(crate) fn find_all(
        &self,
        ids: impl Iterator<Item = NetId>,
        mut found: impl FnMut(NetId, Option<Entity>),
    ) {
        let mut rest = &self.entries[..];
        for id in ids {
            if rest.first().is_some_and(|entry| entry.0 < id) {
                // Doubling steps, then halving ones: a near entry is found in a few.
                let mut step = 1;
                while rest.get(step).is_some_and(|entry| entry.0 < id) {
                    step *= 2;
                }
                let end = rest.len().min(step + 1);
                let skipped = step / 2 + rest[step / 2..end].partition_point(|entry| entry.0 < id);
                rest = &rest[skipped..];
            }
            let entity = rest.first().filter(|entry| entry.0 == id);
            found(id, entity.and_then(|entry| entry.1));
        }
    }

    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    fn insert(&mut self, id: NetId, entity: Entity) {
        assert!(!id.is_none(), "NetId::NONE was inserted on an entity");
        self.changes += 1;
        let place = match self.entries.last() {
            Some(&(last, _)) if last < id => Err(self.entries.len()),
            Some(_) | None => self.entries.binary_search_by_key(&id, |entry| entry.0),
        };
        match place {
            Ok(index) => {
                let entry = &mut self.entries[index].1;
                assert!(
                    entry.is_none_or(|holder| holder == entity),
                    "two entities were given the NetId {id}"
                );
                self.len += usize::from(entry.is_none());
                *entry = Some(entity);
            }
            Err(index) => {
                self.entries.insert(index, (id, Some(entity)));
                self.len += 1;
            }
        }
    }

    fn remove(&mut self, id: NetId, entity: Entity) {
        self.changes += 1;
        let Ok(index) = self.entries.binary_search_by_key(&id, |entry| entry.0) else {
            return;
        };
        if self.entries[index].1 != Some(entity) {
            return;
        }
        self.entries[index].1 = None;
        self.len -= 1;
        if self.entries.len() > 64 && self.len < self.entries.len() / 2 {
            self.entries.retain(|entry| entry.1.is_some());
        }
    }
}

/// Spawns entities that belong to the state.
///
/// Implemented for [`World`] and [`Commands`]. On `Commands` the id is given when the command is
/// applied, in the order of the commands, which is the same on every node as long as the systems
/// issue them in an order that does not depend on history (see [`Ordered`](crate::Ordered)). A
/// system that needs the new id at once uses [`NetCommands`].
pub trait SpawnNetworked {
    /// Access to the new entity.
    type Spawned<'a>
    where
        Self: 'a;

    /// Spawns an entity with a new [`NetId`] and the components of `bundle`.
    fn spawn_networked<B: Bundle>(&mut self, bundle: B) -> Self::Spawned<'_>;
}

impl SpawnNetworked for World {
    type Spawned<'a> = EntityWorldMut<'a>;

    fn spawn_networked<B: Bundle>(&mut self, bundle: B) -> EntityWorldMut<'_> {
        let id = self.resource_mut::<NetIdAllocator>().allocate();
        self.spawn((id, bundle))
    }
}

impl SpawnNetworked for Commands<'_, '_> {
    type Spawned<'a>
        = EntityCommands<'a>
    where
        Self: 'a;

    fn spawn_networked<B: Bundle>(&mut self, bundle: B) -> EntityCommands<'_> {
        let mut entity = self.spawn_empty();
        entity.queue(move |mut entity: EntityWorldMut<'_>| {
            let id = entity.resource_mut::<NetIdAllocator>().allocate();
            entity.insert((id, bundle));
        });
        entity
    }
}

/// [`Commands`] that give a new entity's [`NetId`] at once.
///
/// Ids are drawn in the order in which systems run, so two systems with this parameter must be
/// ordered; the schedule refuses them otherwise.
#[derive(SystemParam)]
pub struct NetCommands<'w, 's> {
    commands: Commands<'w, 's>,
    ids: ResMut<'w, NetIdAllocator>,
    counts: ResMut<'w, SpawnCounts>,
    tick: Res<'w, CurrentTick>,
    side: Res<'w, Side>,
}

impl fmt::Debug for NetCommands<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetCommands").finish_non_exhaustive()
    }
}

impl NetCommands<'_, '_> {
    /// Spawns an entity with the components of `bundle` and returns its new id. The entity exists
    /// for systems that are ordered after this one.
    pub fn spawn<B: Bundle>(&mut self, bundle: B) -> NetId {
        let id = self.ids.allocate();
        self.commands.spawn((id, bundle));
        id
    }

    /// Spawns an entity that the input of `slot` in this tick brings about, such as a shot, so that
    /// the client in that slot may show it before the host knows of it. It gets a [`SpawnKey`]
    /// by which the client finds its own again in what the host sends; the client's has an id of
    /// its own until then. It belongs to `slot`, unless `bundle` has another [`Owner`].
    ///
    /// The client must spawn the same entities for its slot as the host, in the same order: what
    /// it cannot know beforehand is spawned by [`NetCommands::spawn`] and by the authority alone.
    ///
    /// [`SpawnKey`]: crate::SpawnKey
    pub fn spawn_predicted<B: Bundle>(&mut self, slot: Slot, bundle: B) -> NetId {
        let Some(key) = self.counts.next(slot, self.tick.0) else {
            return self.spawn(bundle);
        };
        let id = if self.side.is_authority() {
            self.ids.allocate()
        } else {
            key.predicted_id()
        };
        let mut entity = self.commands.spawn((id, key, bundle));
        entity.insert_if_new(Owner(slot));
        id
    }

    /// Despawns the entity with this id; nothing happens if there is none.
    pub fn despawn(&mut self, id: NetId) {
        self.commands.queue(move |world: &mut World| {
            if let Some(entity) = world.resource::<NetIndex>().get(id) {
                world.despawn(entity);
            }
        });
    }

    /// Inserts the components of `bundle` on the entity with this id; nothing happens if there is
    /// none.
    pub fn insert<B: Bundle>(&mut self, id: NetId, bundle: B) {
        self.commands.queue(move |world: &mut World| {
            if let Some(entity) = world.resource::<NetIndex>().get(id) {
                world.entity_mut(entity).insert(bundle);
            }
        });
    }

    /// Removes the components of `B` from the entity with this id; nothing happens if there is
    /// none.
    pub fn remove<B: Bundle>(&mut self, id: NetId) {
        self.commands.queue(move |world: &mut World| {
            if let Some(entity) = world.resource::<NetIndex>().get(id) {
                world.entity_mut(entity).remove::<B>();
            }
        });
    }

    /// The plain commands.
    pub fn commands(&mut self) -> Commands<'_, '_> {
        self.commands.reborrow()
    }
}

fn enter_index(mut world: DeferredWorld<'_>, context: HookContext) {
    if let Some(&id) = world.get::<NetId>(context.entity)
        && let Some(mut index) = world.get_resource_mut::<NetIndex>()
    {
        index.insert(id, context.entity);
    }
}

fn leave_index(mut world: DeferredWorld<'_>, context: HookContext) {
    if let Some(&id) = world.get::<NetId>(context.entity)
        && let Some(mut index) = world.get_resource_mut::<NetIndex>()
    {
        index.remove(id, context.entity);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use phalanx_netcode::prng::Prng;
    use std::collections::BTreeMap;

    #[test]
    fn entities_are_found_in_passing() {
        let mut world = world();
        let mut prng = Prng::new(2);
        for id in 1..2000 {
            if prng.below(3) > 0 {
                world.spawn(NetId::from_bits(id * 2));
            }
        }
        let index = world.resource::<NetIndex>();
        for sparse in [1, 2, 30, 700] {
            let mut ids: Vec<NetId> = Vec::new();
            for id in 1..4100 {
                if prng.below(sparse) == 0 {
                    ids.push(NetId::from_bits(id));
                }
            }
            let mut found = Vec::new();
            index.find_all(ids.iter().copied(), |id, entity| found.push((id, entity)));
            let expected = ids.iter().map(|&id| (id, index.get(id)));
            assert!(found.into_iter().eq(expected), "one in {sparse}");
        }
    }

    fn world() -> World {
        let mut world = World::new();
        world.init_resource::<NetIdAllocator>();
        world.init_resource::<NetIndex>();
        world
    }

    #[test]
    fn the_index_follows_thousands_of_random_changes() {
        let mut world = world();
        let mut expected: BTreeMap<NetId, Entity> = BTreeMap::new();
        let mut dead: Vec<NetId> = Vec::new();
        let seed = 11;
        let mut prng = Prng::new(seed);
        for step in 0..5000 {
            let pick = |prng: &mut Prng, len: usize| {
                usize::try_from(prng.below(u64::try_from(len).unwrap())).unwrap()
            };
            match prng.below(5) {
                0 | 1 => {
                    let entity = world.spawn_networked(()).id();
                    expected.insert(*world.get::<NetId>(entity).unwrap(), entity);
                }
                2 if !dead.is_empty() => {
                    // An id comes back, as after a rollback.
                    let id = dead.swap_remove(pick(&mut prng, dead.len()));
                    expected.insert(id, world.spawn(id).id());
                }
                3 if !expected.is_empty() => {
                    let (&id, &entity) = expected
                        .iter()
                        .nth(pick(&mut prng, expected.len()))
                        .unwrap();
                    // Losing the component is as good as despawning.
                    world.entity_mut(entity).remove::<NetId>();
                    expected.remove(&id);
                    dead.push(id);
                }
                _ if !expected.is_empty() => {
                    let (&id, &entity) = expected
                        .iter()
                        .nth(pick(&mut prng, expected.len()))
                        .unwrap();
                    world.despawn(entity);
                    expected.remove(&id);
                    dead.push(id);
                }
                _ => {}
            }
            let index = world.resource::<NetIndex>();
            assert_eq!(index.len(), expected.len(), "seed {seed}, step {step}");
            if step % 100 == 0 {
                assert!(
                    index.iter().eq(expected.clone()),
                    "seed {seed}, step {step}"
                );
            }
        }
        let index = world.resource::<NetIndex>();
        assert!(index.iter().eq(expected));
        assert!(dead.iter().all(|&id| !index.contains(id)));
    }

    #[test]
    fn commands_give_ids_in_their_order() {
        let mut world = world();
        let mut commands = world.commands();
        let first = commands.spawn_networked(()).id();
        let second = commands.spawn_networked(()).id();
        world.flush();
        assert_eq!(world.get::<NetId>(first), Some(&NetId::from_bits(1)));
        assert_eq!(world.get::<NetId>(second), Some(&NetId::from_bits(2)));
    }

    #[test]
    fn a_replaced_id_leaves_the_index() {
        let mut world = world();
        let entity = world.spawn(NetId::from_bits(5)).id();
        world.entity_mut(entity).insert(NetId::from_bits(9));
        let index = world.resource::<NetIndex>();
        assert_eq!(index.get(NetId::from_bits(5)), None);
        assert_eq!(index.get(NetId::from_bits(9)), Some(entity));
        assert_eq!(index.len(), 1);
    }

    #[test]
    #[should_panic(expected = "two entities were given the NetId")]
    fn one_id_on_two_entities_is_a_bug_of_the_game() {
        let mut world = world();
        world.spawn(NetId::from_bits(5));
        world.spawn(NetId::from_bits(5));
    }
}
