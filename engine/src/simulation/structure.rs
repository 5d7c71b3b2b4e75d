//! Which networked entities lie in which rows.
//!
//! Values are saved column by column; where each value belongs is saved once for all columns, and
//! shared between images as long as it does not change. Comparing it costs 8 bytes per entity,
//! and tells whether values can be copied straight back.

use std::sync::{Arc, OnceLock};

use bevy_ecs::entity::Entity;
use bevy_ecs::query::QueryState;
use bevy_ecs::storage::TableId;
use bevy_ecs::world::{World, WorldId};

use crate::hierarchy::release_children;
use crate::net_id::{NetId, NetIndex};

/// Stands for "no place".
pub(crate) const NOWHERE: u32 = u32::MAX;

/// The networked entities of a moment. An entity's place is its index in `ids`.
#[derive(Debug, Default)]
pub(crate) struct Structure {
    /// Where the structure was read; `None` in structures that come from a snapshot. Entities and
    /// counters of other worlds mean nothing here.
    world: Option<WorldId>,
    /// Tables in the order of the query, with their number of rows. Empty in structures that come
    /// from a snapshot.
    tables: Vec<(TableId, u32)>,
    /// First place of each table, by table id; [`NOWHERE`] for others.
    starts: Vec<u32>,
    /// By place; empty in structures that come from a snapshot.
    entities: Vec<Entity>,
    /// By place.
    ids: Vec<NetId>,
    /// [`NetIndex::changes`] of the moment.
    changes: u64,
    /// Places by id ascending, once someone asked.
    order: OnceLock<Vec<u32>>,
}

impl Structure {
    /// The structure of a snapshot: only ids, ascending.
    pub(crate) fn of_ids(ids: Vec<NetId>) -> Self {
        Self {
            ids,
            ..Self::default()
        }
    }

    /// The ids by place.
    pub(crate) fn ids(&self) -> &[NetId] {
        &self.ids
    }

    /// The place of the first row of `entity`'s table.
    pub(crate) fn table_start(&self, world: &World, entity: Entity) -> u32 {
        let location = location(world, entity);
        self.starts[location.table_id.as_usize()]
    }

    /// The place of `entity`.
    pub(crate) fn place(&self, world: &World, entity: Entity) -> u32 {
        let location = location(world, entity);
        self.starts[location.table_id.as_usize()] + location.table_row.index_u32()
    }

    /// The places by id ascending.
    pub(crate) fn order(&self) -> &[u32] {
        self.order.get_or_init(|| {
            let mut order: Vec<u32> = (0..count(self.ids.len())).collect();
            if !self.ids.is_sorted() {
                order.sort_unstable_by_key(|&place| self.ids[place as usize]);
            }
            order
        })
    }

    fn clear(&mut self) {
        self.tables.clear();
        self.starts.clear();
        self.entities.clear();
        self.ids.clear();
        self.order.take();
    }
}

fn location(world: &World, entity: Entity) -> bevy_ecs::entity::EntityLocation {
    world
        .entities()
        .get_spawned(entity)
        .expect("a query returned the entity")
}

/// The table in which these entities lie.
pub(crate) fn table_of(world: &World, entities: &[Entity]) -> TableId {
    location(world, entities[0]).table_id
}

/// A number of rows, or a place.
pub(crate) fn count(len: usize) -> u32 {
    u32::try_from(len).expect("an ECS has fewer than 2^32 entities")
}

/// Reads the world's structure.
pub(crate) struct StructureReader {
    query: QueryState<(Entity, &'static NetId)>,
    latest: Arc<Structure>,
}

impl StructureReader {
    /// A reader of `world`, which must have no default query filters at this moment.
    pub(crate) fn new(world: &mut World) -> Self {
        Self {
            query: QueryState::new(world),
            latest: Arc::default(),
        }
    }

    /// The world's structure; the memory of `recycled` is used again where possible.
    pub(crate) fn read(&mut self, world: &World, recycled: &mut Arc<Structure>) -> Arc<Structure> {
        let latest = Arc::clone(&self.latest);
        if self.is_current(world, &latest) {
            return latest;
        }
        let mut structure = Arc::into_inner(core::mem::take(recycled)).unwrap_or_default();
        structure.clear();
        structure.world = Some(world.id());
        structure.changes = world.resource::<NetIndex>().changes();
        for (entities, ids) in segments(&mut self.query, world) {
            let table = table_of(world, entities);
            if structure.starts.len() <= table.as_usize() {
                structure.starts.resize(table.as_usize() + 1, NOWHERE);
            }
            structure.starts[table.as_usize()] = count(structure.ids.len());
            structure.tables.push((table, count(ids.len())));
            structure.entities.extend_from_slice(entities);
            structure.ids.extend_from_slice(ids);
        }
        self.latest = Arc::new(structure);
        Arc::clone(&self.latest)
    }

    /// Whether the world has this structure now.
    pub(crate) fn is_current(&mut self, world: &World, structure: &Structure) -> bool {
        if structure.world != Some(world.id()) {
            return false;
        }
        let ids_may_differ = structure.changes != world.resource::<NetIndex>().changes();
        let mut tables = structure.tables.iter();
        let mut start = 0;
        for (entities, ids) in segments(&mut self.query, world) {
            let end = start + entities.len();
            let table = (location(world, entities[0]).table_id, count(entities.len()));
            if tables.next() != Some(&table)
                || !same_entities(&structure.entities[start..end], entities)
                || ids_may_differ && structure.ids[start..end] != *ids
            {
                return false;
            }
            start = end;
        }
        start == structure.ids.len()
    }
}

/// The networked entities, table by table.
fn segments<'w>(
    query: &'w mut QueryState<(Entity, &'static NetId)>,
    world: &'w World,
) -> impl Iterator<Item = (&'w [Entity], &'w [NetId])> {
    query
        .contiguous_iter(world)
        .expect("`NetId` has table storage")
}

/// Slice equality without a branch per element, so that it runs at the speed of memory.
fn same_entities(a: &[Entity], b: &[Entity]) -> bool {
    a.len() == b.len()
        && a.chunks(64).zip(b.chunks(64)).all(|(a, b)| {
            a.iter().zip(b).fold(0, |differing, (a, b)| {
                differing | (a.to_bits() ^ b.to_bits())
            }) == 0
        })
}

/// Where the entities of a structure are in the world now, and back.
#[derive(Debug, Default)]
pub(crate) struct Places {
    /// By place.
    entities: Vec<Entity>,
    /// By index of the entity; [`NOWHERE`] for others.
    places: Vec<u32>,
    /// The rows of each table, by table id.
    runs: Vec<Vec<Run>>,
}

/// Consecutive rows of a table that hold consecutive places.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    /// First row.
    pub(crate) row: u32,
    /// Place of the first row.
    pub(crate) place: u32,
    /// Number of rows.
    pub(crate) len: u32,
}

impl Places {
    /// Despawns what `structure` does not have and spawns what it has and the world lacks.
    pub(crate) fn arrange(&mut self, world: &mut World, structure: &Structure) {
        let mut surplus = Vec::new();
        merge(world, structure, |place, _id, entity| {
            if let (None, Some(entity)) = (place, entity) {
                surplus.push(entity);
            }
        });
        release_children(world, &surplus);
        for entity in surplus {
            // It is gone already if the game's own hooks took it along with another one.
            let _was_alive = world.despawn(entity);
        }
        self.entities.clear();
        self.entities
            .resize(structure.ids.len(), Entity::PLACEHOLDER);
        let mut missing = Vec::new();
        merge(world, structure, |place, id, entity| {
            match (place, entity) {
                (Some(place), Some(entity)) => self.entities[place as usize] = entity,
                (Some(place), None) => missing.push((place, id)),
                (None, _) => {}
            }
        });
        for (place, id) in missing {
            self.entities[place as usize] = world.spawn(id).id();
        }
        self.places.clear();
        for (place, entity) in self.entities.iter().enumerate() {
            let index = entity.index_u32() as usize;
            if self.places.len() <= index {
                self.places.resize(index + 1, NOWHERE);
            }
            self.places[index] = count(place);
        }
    }

    /// Finds out which rows hold which places. It holds until entities move.
    pub(crate) fn find_rows(&mut self, world: &World, reader: &mut StructureReader) {
        self.runs.clear();
        for (entities, _ids) in segments(&mut reader.query, world) {
            let table = table_of(world, entities);
            let mut runs: Vec<Run> = Vec::new();
            for (row, &entity) in (0..).zip(entities) {
                let place = self.place(entity);
                if place == NOWHERE {
                    continue;
                }
                match runs.last_mut() {
                    Some(run) if run.place + run.len == place && run.row + run.len == row => {
                        run.len += 1;
                    }
                    Some(_) | None => runs.push(Run { row, place, len: 1 }),
                }
            }
            if self.runs.len() <= table.as_usize() {
                self.runs.resize_with(table.as_usize() + 1, Vec::new);
            }
            self.runs[table.as_usize()] = runs;
        }
    }

    /// `entity` alone, as a run whose row means nothing.
    pub(crate) fn run_of(&self, entity: Entity) -> Option<Run> {
        let place = self.place(entity);
        (place != NOWHERE).then_some(Run {
            row: 0,
            place,
            len: 1,
        })
    }

    /// The rows of `table`.
    pub(crate) fn runs(&self, table: TableId) -> &[Run] {
        self.runs.get(table.as_usize()).map_or(&[], Vec::as_slice)
    }

    /// The entity at `place`.
    pub(crate) fn entity(&self, place: u32) -> Entity {
        self.entities[place as usize]
    }

    /// The place of `entity`, or [`NOWHERE`].
    pub(crate) fn place(&self, entity: Entity) -> u32 {
        self.places
            .get(entity.index_u32() as usize)
            .copied()
            .unwrap_or(NOWHERE)
    }
}

/// Walks through the ids of `structure` and of `world`, ascending: place, id, entity.
fn merge(
    world: &World,
    structure: &Structure,
    mut visit: impl FnMut(Option<u32>, NetId, Option<Entity>),
) {
    let mut wanted = structure
        .order()
        .iter()
        .map(|&place| (structure.ids[place as usize], place))
        .peekable();
    for (id, entity) in world.resource::<NetIndex>().iter() {
        while let Some((earlier, place)) = wanted.next_if(|&(wanted, _)| wanted < id) {
            visit(Some(place), earlier, None);
        }
        let place = wanted.next_if(|&(wanted, _)| wanted == id);
        visit(place.map(|(_, place)| place), id, Some(entity));
    }
    for (id, place) in wanted {
        visit(Some(place), id, None);
    }
}
