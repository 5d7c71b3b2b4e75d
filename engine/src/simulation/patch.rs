//! Taking over what an authority says changed.
//!
//! All of a patch is read and checked before the first change, so a bad one leaves no trace. What
//! it does not mention is not touched, and costs nothing.

use bevy_ecs::archetype::ArchetypeId;
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
use crate::hierarchy::release_children;
use crate::net_id::{NetId, NetIndex};

/// Memory that patches use again.
#[derive(Default)]
pub(super) struct Patcher {
    /// Every entity that the patch gives a value, by id ascending.
    targets: Vec<(NetId, Entity)>,
    /// Ids of `targets` before the entities are known.
    ids: Vec<id::NetId>,
    entities: Vec<Entity>,
    /// Values that are to be inserted, of one kind.
    missing: Vec<(Entity, u32)>,
    /// The kinds that each of `targets` has: a run of bits per target.
    had: Vec<u64>,
    /// The kinds that it shall have.
    wanted: Vec<u64>,
    /// What is to be removed: entity, number of the kind.
    surplus: Vec<(Entity, usize)>,
    /// Which of `targets` may have too many components afterwards.
    is_restructured: Vec<bool>,
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
        check_kind(rows, kind)?;
    }
    Ok(())
}

fn check_kind(rows: &PatchRows, kind: &KindSchema) -> Result<(), ImportError> {
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
    if fits && ids_fit {
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
        self.write(world, patch, schema, kinds);
    }

    /// As [`Patcher::apply`], but no entity goes, not even one that was spawned in advance.
    pub(super) fn write(
        &mut self,
        world: &mut World,
        patch: &Patch,
        schema: &Schema,
        kinds: &mut [Option<Box<dyn Kind>>],
    ) {
        self.spawn(world);
        self.insert_missing(world, patch, schema, kinds);
        for (kind, rows) in kinds.iter_mut().zip(&patch.kinds) {
            if let Some(kind) = kind
                && !rows.rows.is_empty()
            {
                self.entities.clear();
                for_each(&self.targets, &rows.rows.ids, |_row, _place, entity| {
                    self.entities.push(entity);
                });
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
        release_children(world, &self.entities);
        for &entity in &self.entities {
            // It is gone already if the game's own hooks took it along with another one.
            let _was_alive = world.despawn(entity);
        }
    }

    fn spawn(&mut self, world: &mut World) {
        let is_there = |entity: Entity| world.entities().contains_spawned(entity);
        let missing: Vec<usize> = (0..self.targets.len())
            .filter(|&place| !is_there(self.targets[place].1))
            .collect();
        let ids = missing.iter().map(|&place| self.targets[place].0);
        self.entities.clear();
        self.entities
            .extend(world.spawn_batch(ids.collect::<Vec<NetId>>()));
        for (place, &entity) in missing.into_iter().zip(&self.entities) {
            self.targets[place].1 = entity;
        }
    }

    /// Inserts what entities lack, and takes away what they have too many: required components that
    /// came along, and what a whole patch does not mention.
    fn insert_missing(
        &mut self,
        world: &mut World,
        patch: &Patch,
        schema: &Schema,
        kinds: &mut [Option<Box<dyn Kind>>],
    ) {
        let words = kinds.len().div_ceil(64);
        self.had.clear();
        self.is_restructured.clear();
        self.is_restructured
            .resize(self.targets.len(), patch.is_whole);
        let mut known = KnownArchetype::default();
        for &(_id, entity) in &self.targets {
            let bits = known.kinds_of(world, entity, kinds);
            self.had.extend_from_slice(bits);
        }
        self.wanted.clear();
        if patch.is_whole {
            self.wanted.resize(self.had.len(), 0);
        } else {
            self.wanted.extend_from_slice(&self.had);
        }
        // What the authority does not show is this node's own affair.
        let mut visible = vec![0; words];
        for (number, schema) in schema.kinds().iter().enumerate() {
            if schema.visibility == Visibility::Client {
                let (word, bit) = place_of(number);
                visible[word] |= bit;
            }
        }
        for (number, (kind, rows)) in kinds.iter_mut().zip(&patch.kinds).enumerate() {
            let (Some(kind), (word, bit)) = (kind, place_of(number)) else {
                continue;
            };
            self.missing.clear();
            for_each(&self.targets, &rows.rows.ids, |row, place, entity| {
                self.wanted[place * words + word] |= bit;
                if self.had[place * words + word] & bit == 0 {
                    self.is_restructured[place] = true;
                    self.missing.push((entity, row));
                }
            });
            if !self.missing.is_empty() {
                kind.insert_patched(world, &self.missing);
            }
        }
        let mut known = KnownArchetype::default();
        let restructured = self.targets.iter().zip(&self.is_restructured).enumerate();
        for (place, (&(_id, entity), _)) in restructured.filter(|(_, (_, is))| **is) {
            let wanted = &self.wanted[place * words..(place + 1) * words];
            let has = known.kinds_of(world, entity, kinds);
            for word in 0..words {
                let mut surplus = has[word] & visible[word] & !wanted[word];
                while surplus != 0 {
                    let number = word * 64 + surplus.trailing_zeros() as usize;
                    self.surplus.push((entity, number));
                    surplus &= surplus - 1;
                }
            }
        }
        for (entity, number) in self.surplus.drain(..) {
            if let Some(kind) = &mut kinds[number] {
                kind.remove_patched(world, entity);
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
                // What the engine itself needs stays.
                KindShape::Resource if schema.name.starts_with(RESERVED_PREFIX) => {}
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
                }
            }
        }
    }
}

/// Visits the targets of `ids`, which are among them: row, place among the targets, entity. Both
/// ascend.
fn for_each(
    targets: &[(NetId, Entity)],
    ids: &[id::NetId],
    mut visit: impl FnMut(u32, usize, Entity),
) {
    let mut place = 0;
    for (row, &id) in (0..).zip(ids) {
        while targets.get(place).is_some_and(|target| target.0.raw() < id) {
            place += 1;
        }
        if let Some(&(target, entity)) = targets.get(place)
            && target.raw() == id
        {
            visit(row, place, entity);
        }
    }
}

/// Word and bit of kind `number` in a run of bits.
fn place_of(number: usize) -> (usize, u64) {
    (number / 64, 1 << (number % 64))
}

/// The kinds of the archetype that was looked at last: neighbours mostly have the same.
#[derive(Default)]
struct KnownArchetype {
    archetype: Option<ArchetypeId>,
    kinds: Vec<u64>,
}

impl KnownArchetype {
    /// The kinds that `entity` has, as bits.
    fn kinds_of(
        &mut self,
        world: &World,
        entity: Entity,
        kinds: &[Option<Box<dyn Kind>>],
    ) -> &[u64] {
        let location = world.entities().get_spawned(entity);
        let archetype = location.ok().map(|location| location.archetype_id);
        if archetype.is_none() || archetype != self.archetype {
            self.archetype = archetype;
            self.kinds.clear();
            self.kinds.resize(kinds.len().div_ceil(64), 0);
            let Some(archetype) = archetype.and_then(|id| world.archetypes().get(id)) else {
                return &self.kinds;
            };
            for (number, kind) in kinds.iter().enumerate() {
                let component = kind.as_ref().and_then(|kind| kind.component());
                if component.is_some_and(|component| archetype.contains(component)) {
                    let (word, bit) = place_of(number);
                    self.kinds[word] |= bit;
                }
            }
        }
        &self.kinds
    }
}
