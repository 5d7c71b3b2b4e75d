//! Bevy's hierarchy as state.
//!
//! A [`ChildOf`] names its parent by an [`Entity`], which means nothing elsewhere, and the order of
//! [`Children`] is history. So the state has the parent's [`NetId`] in a kind of its own,
//! [`Parent`]. After a tick, it follows what systems did to the hierarchy; after a restore or a
//! patch, the hierarchy follows it. Children always go by id.
//!
//! A client may hold a child whose parent it does not hold, since that is still under way or out of
//! its view. Such a child has a `Parent` and no `ChildOf` until the parent comes.

use bevy_ecs::component::Component;
use bevy_ecs::entity::Entity;
use bevy_ecs::hierarchy::{ChildOf, Children};
use bevy_ecs::query::{Or, QueryState, With};
use bevy_ecs::world::World;
use phalanx_macros::Networked;

use crate::net_id::{NetId, NetIndex};

/// Ancestors that an entity may have in what a node takes over from another. Bevy walks hierarchies
/// by recursion, so a chain of any length, or a ring, would overflow the stack.
pub(crate) const ANCESTORS_MAX: usize = 64;

/// The entity that this one is a child of.
#[derive(Component, Networked, Clone, Copy, Debug, PartialEq, Eq)]
#[networked(name = "phalanx.parent")]
pub(crate) struct Parent(NetId);

type Linked = (
    Entity,
    &'static NetId,
    Option<&'static ChildOf>,
    Option<&'static Parent>,
);

type IsLinked = Or<(With<ChildOf>, With<Parent>)>;

/// Where a child goes among its siblings: whether it has no id, and the id.
type Place = (bool, Option<NetId>);

/// Keeps [`ChildOf`] and [`Parent`] in step.
pub(crate) struct Hierarchy {
    linked: QueryState<Linked, IsLinked>,
    parents: QueryState<(Entity, &'static Children), With<NetId>>,
}

impl Hierarchy {
    /// For `world`, which must have no default query filters at this moment.
    pub(crate) fn new(world: &mut World) -> Self {
        Self {
            linked: QueryState::new(world),
            parents: QueryState::new(world),
        }
    }

    /// After a tick: the state follows the hierarchy. A node that `decides` knows all entities; for
    /// another one, a child without `ChildOf` may be waiting for its parent.
    pub(crate) fn note(&mut self, world: &mut World, decides: bool) {
        let index = world.resource::<NetIndex>();
        let mut changes: Vec<(Entity, Option<Parent>)> = Vec::new();
        for (entity, _id, child_of, parent) in self.linked.iter(world) {
            let now = child_of.and_then(|child_of| world.get::<NetId>(child_of.parent()));
            let waits =
                |parent: &Parent| !decides && child_of.is_none() && index.get(parent.0).is_none();
            match (now, parent) {
                (Some(&id), parent) if parent != Some(&Parent(id)) => {
                    changes.push((entity, Some(Parent(id))));
                }
                (None, Some(parent)) if !waits(parent) => changes.push((entity, None)),
                _ => {}
            }
        }
        for (entity, parent) in changes {
            let mut entity = world.entity_mut(entity);
            match parent {
                Some(parent) => entity.insert(parent),
                None => entity.remove::<Parent>(),
            };
        }
        self.sort(world);
    }

    /// After a restore or a patch: the hierarchy follows the state.
    pub(crate) fn align(&mut self, world: &mut World) {
        let index = world.resource::<NetIndex>();
        let wanted = |parent: Option<&Parent>| parent.and_then(|parent| index.get(parent.0));
        // A child of an entity of presentation is nobody else's affair.
        let current = |child_of: Option<&ChildOf>| {
            let parent = child_of.map(ChildOf::parent);
            parent.filter(|&parent| world.get::<NetId>(parent).is_some())
        };
        let differs = self
            .linked
            .iter(world)
            .any(|(_, _, child_of, parent)| wanted(parent) != current(child_of));
        if differs {
            let mut changes: Vec<(Entity, Option<Entity>)> = Vec::new();
            for (entity, _id, child_of, parent) in self.linked.iter(world) {
                let parent = wanted(parent).filter(|&parent| has_an_end(world, index, parent));
                if parent != current(child_of) {
                    changes.push((entity, parent));
                }
            }
            // First what goes, so that no ring stands in between.
            for &(entity, _) in &changes {
                world.entity_mut(entity).remove::<ChildOf>();
            }
            for (entity, parent) in changes {
                if let Some(parent) = parent {
                    world.entity_mut(entity).insert(ChildOf(parent));
                }
            }
        }
        self.sort(world);
    }

    /// Brings children into the order of their ids; those of presentation come last.
    fn sort(&mut self, world: &mut World) {
        let place = |&child: &Entity| {
            let id = world.get::<NetId>(child);
            (id.is_none(), id)
        };
        let mut unsorted: Vec<(Entity, Vec<(Entity, Place)>)> = Vec::new();
        for (parent, children) in self.parents.iter(world) {
            if children.iter().is_sorted_by_key(place) {
                continue;
            }
            let ids = children.iter().map(|child| {
                let (is_last, id) = place(child);
                (*child, (is_last, id.copied()))
            });
            unsorted.push((parent, ids.collect()));
        }
        for (parent, mut ids) in unsorted {
            ids.sort_unstable_by_key(|&(child, _place)| child);
            if let Some(mut children) = world.get_mut::<Children>(parent) {
                children.sort_by_cached_key(|child| {
                    let found = ids.binary_search_by_key(child, |&(child, _place)| child);
                    found.ok().map(|at| ids[at].1)
                });
            }
        }
    }
}

/// Whether an entity below `parent` has at most [`ANCESTORS_MAX`] ancestors: as the state says, so
/// that links which are still to be made count, too.
fn has_an_end(world: &World, index: &NetIndex, parent: Entity) -> bool {
    let above = |&entity: &Entity| {
        let parent = world.get::<Parent>(entity)?;
        index.get(parent.0)
    };
    core::iter::successors(Some(parent), above)
        .nth(ANCESTORS_MAX)
        .is_none()
}

/// Lets the children of `entities` that are part of the state outlive them: whether they go, the
/// state says. Bevy despawns children together with their parents.
pub(crate) fn release_children(world: &mut World, entities: &[Entity]) {
    let mut released: Vec<Entity> = Vec::new();
    for &entity in entities {
        if let Some(children) = world.get::<Children>(entity) {
            let is_state = |child: &&Entity| world.get::<NetId>(**child).is_some();
            released.extend(children.iter().filter(is_state));
        }
    }
    for child in released {
        world.entity_mut(child).remove::<ChildOf>();
    }
}
