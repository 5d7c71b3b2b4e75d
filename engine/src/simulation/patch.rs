//! Taking over what an authority says changed.
//!
//! All of a patch is read and checked before the first change, so a bad one leaves no trace. What
//! it does not mention is not touched, and costs nothing.

use bevy_ecs::entity::Entity;
use bevy_ecs::world::World;
use phalanx_netcode::id;
use phalanx_netcode::limits::ENTITIES_MAX;
use phalanx_netcode::state::{
    ImportError, KindRows, KindSchema, KindShape, Patch, PatchRows, Schema, Visibility,
};

use super::ENTITY;
use super::kind::Kind;
use crate::game::RESERVED_PREFIX;
use crate::net_id::{NetId, NetIndex};

/// Memory that patches use again.
#[derive(Default)]
pub(super) struct Patcher {
    /// Every entity that the patch gives a value, by id ascending.
    targets: Vec<(NetId, Entity)>,
    /// Ids of `targets` before the entities are known.
    ids: Vec<id::NetId>,
    /// The entities of one kind's rows.
    entities: Vec<Entity>,
    /// Entities that get a component which they did not have, ascending.
    restructured: Vec<Entity>,
    /// Per entry of `restructured`, the kinds that it has afterwards: a run of bits per entity.
    wanted: Vec<u64>,
}

/// Checks everything about `patch` but the values in its rows.
fn check(patch: &Patch, schema: &Schema) -> Result<(), ImportError> {
    if patch.kinds.len() != schema.kinds().len() {
        return Err(ImportError::KindCount {
            found: patch.kinds.len(),
            expected: schema.kinds().len(),
        });
    }
    if !are_entities(&patch.removed) {
        return Err(ImportError::NotCanonical {
            kind: ENTITY.to_owned(),
        });
    }
    for (rows, kind) in patch.kinds.iter().zip(schema.kinds()) {
        check_kind(rows, kind, patch)?;
    }
    Ok(())
}

fn check_kind(rows: &PatchRows, kind: &KindSchema, patch: &Patch) -> Result<(), ImportError> {
    let name = || kind.name.clone();
    let is_empty = rows.rows.is_empty() && rows.removed.is_empty();
    if kind.visibility != Visibility::Client {
        return if is_empty {
            Ok(())
        } else {
            Err(ImportError::NotInSnapshots { kind: name() })
        };
    }
    let KindRows { ids, ends, bytes } = &rows.rows;
    let fits = ids.len() == ends.len()
        && ends.is_sorted()
        && ends.last().copied().unwrap_or(0) as usize == bytes.len();
    let ids_fit = match kind.shape {
        KindShape::Component => are_entities(ids) && are_entities(&rows.removed),
        KindShape::Resource => {
            ids.len() + rows.removed.len() <= 1
                && ids.iter().chain(&rows.removed).all(|id| id.is_none())
        }
    };
    // What the engine itself needs must stay, and an entity that goes is in `Patch::removed`.
    let is_own = kind.name.starts_with(RESERVED_PREFIX);
    let must_stay = kind.name == ENTITY || is_own && kind.shape == KindShape::Resource;
    let stays = !must_stay
        || rows.removed.is_empty()
            && !(patch.is_whole && kind.shape == KindShape::Resource && ids.is_empty());
    if fits && ids_fit && stays {
        Ok(())
    } else {
        Err(ImportError::NotCanonical { kind: name() })
    }
}

/// Whether these are ids of entities that a host may have, strictly ascending.
fn are_entities(ids: &[id::NetId]) -> bool {
    let in_order = ids.is_sorted_by(|a, b| a < b);
    let first = ids.first().is_none_or(|id| !id.is_none());
    let last = ids.last().is_none_or(|&id| !NetId::from(id).is_predicted());
    in_order && first && last
}

impl Patcher {
    /// Checks all of `patch` and reads its values into `kinds`. The world stays as it is.
    pub(super) fn read(
        &mut self,
        world: &World,
        patch: &Patch,
        schema: &Schema,
        kinds: &mut [Option<Box<dyn Kind>>],
    ) -> Result<(), ImportError> {
        check(patch, schema)?;
        for (kind, rows) in kinds.iter_mut().zip(&patch.kinds) {
            if let Some(kind) = kind {
                kind.read_patch(&rows.rows)?;
            }
        }
        self.collect_ids(patch);
        self.targets.clear();
        let index = world.resource::<NetIndex>();
        let mut spawned = 0;
        let ids = self.ids.iter().map(|&id| id.into());
        index.find_all(ids, |id, entity| {
            spawned += usize::from(entity.is_none());
            self.targets
                .push((id, entity.unwrap_or(Entity::PLACEHOLDER)));
        });
        let kept = if patch.is_whole { 0 } else { index.len() };
        if kept.max(self.ids.len() - spawned) + spawned > ENTITIES_MAX {
            return Err(ImportError::NotCanonical {
                kind: ENTITY.to_owned(),
            });
        }
        Ok(())
    }

    /// Brings `world` to the state that `patch` leads to. It has just been read.
    pub(super) fn apply(
        &mut self,
        world: &mut World,
        patch: &Patch,
        schema: &Schema,
        kinds: &mut [Option<Box<dyn Kind>>],
    ) {
        self.despawn(world, patch);
        self.spawn(world);
        self.insert_missing(world, patch, schema, kinds);
        for (kind, rows) in kinds.iter_mut().zip(&patch.kinds) {
            if let Some(kind) = kind
                && !rows.rows.is_empty()
            {
                find_all(&self.targets, &rows.rows.ids, &mut self.entities);
                kind.set_patched(world, &self.entities);
            }
        }
        self.remove(world, patch, schema, kinds);
    }

    /// All entities that have rows, each once.
    fn collect_ids(&mut self, patch: &Patch) {
        self.ids.clear();
        for kind in &patch.kinds {
            let ids = &kind.rows.ids;
            if ids.first().is_some_and(|id| !id.is_none()) && self.ids != *ids {
                self.ids.extend_from_slice(ids);
            }
        }
        // A handful of ascending runs: a stable sort only merges them.
        self.ids.sort();
        self.ids.dedup();
    }

    fn despawn(&mut self, world: &mut World, patch: &Patch) {
        let index = world.resource::<NetIndex>();
        self.entities.clear();
        if patch.is_whole {
            let mut kept = self.ids.iter().peekable();
            for (id, entity) in index.iter() {
                while kept.next_if(|&&kept| kept < id.raw()).is_some() {}
                if kept.next_if(|&&kept| kept == id.raw()).is_none() {
                    self.entities.push(entity);
                }
            }
        } else {
            let removed = patch.removed.iter();
            self.entities
                .extend(removed.filter_map(|&id| index.get(id.into())));
            // What this client made up in advance is no part of the authority's state.
            self.entities
                .extend(index.predicted().map(|(_id, entity)| entity));
        }
        for &entity in &self.entities {
            // It is gone already if the game's own hooks took it along with another one.
            let _was_alive = world.despawn(entity);
        }
    }

    fn spawn(&mut self, world: &mut World) {
        for (id, entity) in &mut self.targets {
            if !world.entities().contains_spawned(*entity) {
                *entity = world.spawn(*id).id();
            }
        }
    }

    /// Inserts what entities lack, and takes away again what came along as a required component.
    fn insert_missing(
        &mut self,
        world: &mut World,
        patch: &Patch,
        schema: &Schema,
        kinds: &mut [Option<Box<dyn Kind>>],
    ) {
        self.restructured.clear();
        for (kind, rows) in kinds.iter().zip(&patch.kinds) {
            if let Some(kind) = kind {
                find_all(&self.targets, &rows.rows.ids, &mut self.entities);
                let lacking = self.entities.iter().copied();
                self.restructured
                    .extend(lacking.filter(|&entity| !kind.is_on(world, entity)));
            }
        }
        if self.restructured.is_empty() {
            return;
        }
        self.restructured.sort_unstable();
        self.restructured.dedup();
        let words = kinds.len().div_ceil(64);
        self.wanted.clear();
        self.wanted.resize(self.restructured.len() * words, 0);
        for (number, kind) in kinds.iter().enumerate() {
            let Some(kind) = kind else { continue };
            for (place, &entity) in self.restructured.iter().enumerate() {
                if kind.is_on(world, entity) {
                    self.wanted[place * words + number / 64] |= 1 << (number % 64);
                }
            }
        }
        for (number, (kind, rows)) in kinds.iter_mut().zip(&patch.kinds).enumerate() {
            let Some(kind) = kind else { continue };
            find_all(&self.targets, &rows.rows.ids, &mut self.entities);
            for (row, &entity) in self.entities.iter().enumerate() {
                if let Ok(place) = self.restructured.binary_search(&entity) {
                    let bits = &mut self.wanted[place * words + number / 64];
                    if *bits & (1 << (number % 64)) == 0 {
                        *bits |= 1 << (number % 64);
                        kind.insert_patched(world, entity, row);
                    }
                }
            }
        }
        for (number, (kind, schema)) in kinds.iter_mut().zip(schema.kinds()).enumerate() {
            let Some(kind) = kind else { continue };
            // What the authority does not show is this node's own affair.
            if schema.visibility != Visibility::Client {
                continue;
            }
            for (place, &entity) in self.restructured.iter().enumerate() {
                let is_wanted =
                    self.wanted[place * words + number / 64] & (1 << (number % 64)) != 0;
                if !is_wanted && kind.is_on(world, entity) {
                    kind.remove_patched(world, entity);
                }
            }
        }
    }

    fn remove(
        &mut self,
        world: &mut World,
        patch: &Patch,
        schema: &Schema,
        kinds: &mut [Option<Box<dyn Kind>>],
    ) {
        let kinds = kinds.iter_mut().zip(&patch.kinds).zip(schema.kinds());
        for ((kind, rows), schema) in kinds {
            let Some(kind) = kind else { continue };
            if schema.visibility != Visibility::Client {
                continue;
            }
            match schema.shape {
                KindShape::Resource => {
                    if !rows.removed.is_empty() || patch.is_whole && rows.rows.is_empty() {
                        kind.remove_patched(world, Entity::PLACEHOLDER);
                    }
                }
                KindShape::Component => {
                    for &id in &rows.removed {
                        if let Some(entity) = world.resource::<NetIndex>().get(id.into()) {
                            kind.remove_patched(world, entity);
                        }
                    }
                    if patch.is_whole {
                        let mut having = rows.rows.ids.iter().peekable();
                        for &(id, entity) in &self.targets {
                            let has = having.next_if(|&&having| having == id.raw()).is_some();
                            if !has && kind.is_on(world, entity) {
                                kind.remove_patched(world, entity);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The entities of `ids`, which are among `targets`. Both ascend.
fn find_all(targets: &[(NetId, Entity)], ids: &[id::NetId], entities: &mut Vec<Entity>) {
    entities.clear();
    let mut targets = targets.iter();
    for &id in ids {
        let found = targets.find(|target| target.0.raw() == id);
        entities.extend(found.map(|target| target.1));
    }
}
