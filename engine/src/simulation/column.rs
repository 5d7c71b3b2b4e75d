//! Saving, restoring and hashing one component kind.

use core::any::Any;
use core::marker::PhantomData;

use bevy_ecs::change_detection::{DetectChangesMut, Ref};
use bevy_ecs::component::{Component, ComponentId, Mutable};
use bevy_ecs::entity::Entity;
use bevy_ecs::query::{QueryState, With, Without};
use bevy_ecs::storage::TableId;
use bevy_ecs::world::World;
use phalanx_netcode::hash::ValueHasher;
use phalanx_netcode::state::{ImportError, KindHasher, KindRows, KindSchema};

use super::kind::{Codec, Kind, Saved, decode_value, downcast, downcast_mut};
use super::published::{Moment, Published};
use super::structure::{NOWHERE, Places, Run, Structure, count, table_of};
use crate::net_id::NetId;

/// A component kind.
pub(super) struct Column<T: Component<Mutability = Mutable>, C> {
    name: String,
    salt: u64,
    query: QueryState<(Entity, &'static NetId, &'static mut T)>,
    /// Entities to remove the component from, once all kinds are in place.
    surplus: Vec<Entity>,
    /// Sees when values changed.
    ticks: QueryState<(Entity, &'static NetId, Ref<'static, T>)>,
    published: Published,
    /// The values of a patch, by its rows.
    patched: Vec<T>,
    component: ComponentId,
    codec: PhantomData<fn() -> C>,
}

/// The saved values of a component.
struct Values<T> {
    /// Runs of consecutive places: first place, length. Their values follow each other.
    runs: Vec<(u32, u32)>,
    values: Vec<T>,
}

impl<T> Default for Values<T> {
    fn default() -> Self {
        Self {
            runs: Vec::new(),
            values: Vec::new(),
        }
    }
}

impl<T> Values<T> {
    fn push(&mut self, place: u32, value: T) {
        match self.runs.last_mut() {
            Some((start, len)) if *start + *len == place => *len += 1,
            Some(_) | None => self.runs.push((place, 1)),
        }
        self.values.push(value);
    }

    /// The places in the order of the values.
    fn places(&self) -> impl Iterator<Item = u32> {
        self.runs
            .iter()
            .flat_map(|&(start, len)| start..start + len)
    }

    /// Finds values by place.
    fn index(&self) -> RunIndex {
        let mut row = 0;
        let mut runs: Vec<(u32, u32, u32)> = Vec::with_capacity(self.runs.len());
        for &(start, len) in &self.runs {
            runs.push((start, len, row));
            row += len;
        }
        runs.sort_unstable();
        RunIndex { runs }
    }

    /// The index of each place's value, by place; [`NOWHERE`] where there is none.
    fn rows(&self, places: usize) -> Vec<u32> {
        let mut rows = vec![NOWHERE; places];
        for (row, place) in self.places().enumerate() {
            rows[place as usize] = count(row);
        }
        rows
    }
}

/// Runs of saved values: first place, length, index of the first value; by place.
struct RunIndex {
    runs: Vec<(u32, u32, u32)>,
}

impl RunIndex {
    /// Cuts `run` into parts that were saved in one piece, or not at all: the index of the first
    /// saved value, the first row of the table, the number of rows.
    fn overlaps(&self, run: Run, mut part: impl FnMut(Option<u32>, u32, u32)) {
        let end = run.place + run.len;
        let mut place = run.place;
        let mut index = self
            .runs
            .partition_point(|&(start, len, _row)| start + len <= place);
        while place < end {
            let row = run.row + (place - run.place);
            match self.runs.get(index) {
                Some(&(start, len, saved)) if start <= place => {
                    let len = end.min(start + len) - place;
                    part(Some(saved + (place - start)), row, len);
                    place += len;
                    index += 1;
                }
                later => {
                    let len = later.map_or(end, |later| end.min(later.0)) - place;
                    part(None, row, len);
                    place += len;
                }
            }
        }
    }
}

impl<T, C> Column<T, C>
where
    T: Component<Mutability = Mutable> + Clone,
    C: Codec<T>,
{
    /// The column of `T` in `world`, which must have no default query filters at this moment.
    pub(super) fn new(schema: &KindSchema, world: &mut World) -> Self {
        Self {
            name: schema.name.clone(),
            salt: schema.salt(),
            query: QueryState::new(world),
            surplus: Vec::new(),
            ticks: QueryState::new(world),
            published: Published::new(schema.fixed_len()),
            patched: Vec::new(),
            component: world.register_component::<T>(),
            codec: PhantomData,
        }
    }

    fn value_hash(&self, value: &T) -> u64 {
        let mut hasher = ValueHasher::new(self.salt);
        C::hash(value, &mut hasher);
        hasher.finish()
    }
}

impl<T, C> Kind for Column<T, C>
where
    T: Component<Mutability = Mutable> + Clone,
    C: Codec<T>,
{
    fn empty(&self) -> Saved {
        Box::new(Values::<T>::default())
    }

    fn capture(&mut self, world: &World, structure: &Structure, saved: &mut dyn Any) {
        let saved: &mut Values<T> = downcast_mut(saved);
        saved.runs.clear();
        if let Ok(segments) = self.query.contiguous_iter(world) {
            let mut filled = 0;
            for (entities, _ids, values) in segments {
                let start = structure.table_start(world, entities[0]);
                saved.runs.push((start, count(values.len())));
                // Values that own memory, such as lists, use that of older ones again.
                let (over, beyond) = values.split_at(values.len().min(saved.values.len() - filled));
                saved.values[filled..filled + over.len()].clone_from_slice(over);
                saved.values.extend_from_slice(beyond);
                filled += values.len();
            }
            saved.values.truncate(filled);
        } else {
            saved.values.clear();
            for (entity, _id, value) in self.query.iter(world) {
                saved.push(structure.place(world, entity), value.clone());
            }
        }
    }

    fn is_arranged(&mut self, world: &World, structure: &Structure, saved: &dyn Any) -> bool {
        if self.query.contiguous_iter(world).is_ok() {
            return true;
        }
        let saved: &Values<T> = downcast(saved);
        let mut places = saved.places();
        self.query
            .iter(world)
            .all(|(entity, _id, _)| places.next() == Some(structure.place(world, entity)))
            && places.next().is_none()
    }

    fn restore_in_place(&mut self, world: &mut World, saved: &dyn Any) {
        let mut rest: &[T] = &downcast::<Values<T>>(saved).values;
        if let Ok(segments) = self.query.contiguous_iter_mut(world) {
            for (_entities, _ids, mut values) in segments {
                let values = values.bypass_change_detection();
                let (same, later) = rest.split_at(values.len());
                values.clone_from_slice(same);
                rest = later;
            }
        } else {
            for ((_entity, _id, mut value), saved) in self.query.iter_mut(world).zip(rest) {
                value.bypass_change_detection().clone_from(saved);
            }
        }
    }

    fn insert_missing(&mut self, world: &mut World, places: &Places, saved: &dyn Any) {
        let saved: &Values<T> = downcast(saved);
        let index = saved.index();
        let mut there = Vec::new();
        let mut count_there = 0;
        let mut note = |run: Run| {
            index.overlaps(run, |row, _run_row, len| {
                if let Some(row) = row {
                    there.push(row as usize..(row + len) as usize);
                    count_there += len as usize;
                }
            });
        };
        if let Ok(segments) = self.query.contiguous_iter(world) {
            for (entities, _ids, _values) in segments {
                let runs = places.runs(table_of(world, entities));
                runs.iter().for_each(|&run| note(run));
            }
        } else {
            for (entity, _id, _value) in self.query.iter(world) {
                places.run_of(entity).into_iter().for_each(&mut note);
            }
        }
        if count_there == saved.values.len() {
            return;
        }
        let mut is_there = vec![false; saved.values.len()];
        for rows in there {
            is_there[rows].fill(true);
        }
        let rows = saved.places().zip(&saved.values).zip(is_there);
        for ((place, value), _) in rows.filter(|(_, is_there)| !is_there) {
            // A hook of the game may have despawned the entity; then there is nothing to set.
            if let Ok(mut entity) = world.get_entity_mut(places.entity(place)) {
                entity.insert(value.clone());
            }
        }
    }

    fn restore_rows(&mut self, world: &mut World, places: &Places, saved: &dyn Any) {
        let saved: &Values<T> = downcast(saved);
        let index = saved.index();
        let surplus = &mut self.surplus;
        surplus.clear();
        let tables: Option<Vec<TableId>> = self.query.contiguous_iter(world).ok().map(|segments| {
            segments
                .map(|(entities, _ids, _values)| table_of(world, entities))
                .collect()
        });
        if let Some(tables) = tables
            && let Ok(segments) = self.query.contiguous_iter_mut(world)
        {
            for ((entities, _ids, mut values), table) in segments.zip(tables) {
                let values = values.bypass_change_detection();
                for &run in places.runs(table) {
                    index.overlaps(run, |row, run_row, len| {
                        let here = run_row as usize..(run_row + len) as usize;
                        match row {
                            Some(row) => {
                                let there = row as usize..(row + len) as usize;
                                values[here].clone_from_slice(&saved.values[there]);
                            }
                            None => surplus.extend_from_slice(&entities[here]),
                        }
                    });
                }
            }
        } else {
            for (entity, _id, mut value) in self.query.iter_mut(world) {
                if let Some(run) = places.run_of(entity) {
                    index.overlaps(run, |row, _run_row, _len| match row {
                        Some(row) => {
                            let saved = &saved.values[row as usize];
                            value.bypass_change_detection().clone_from(saved);
                        }
                        None => surplus.push(entity),
                    });
                }
            }
        }
    }

    fn remove_surplus(&mut self, world: &mut World) {
        for entity in self.surplus.drain(..) {
            if let Ok(mut entity) = world.get_entity_mut(entity) {
                entity.remove::<T>();
            }
        }
    }

    fn has_strays(&mut self, world: &mut World) -> bool {
        let mut strays = world.query_filtered::<(), (With<T>, Without<NetId>)>();
        strays.iter(world).next().is_some()
    }

    fn hash(&mut self, world: &World) -> u64 {
        let mut hasher = KindHasher::default();
        let salted = ValueHasher::new(self.salt);
        let mut take = |id: &NetId, value: &T| {
            let mut value_hasher = salted;
            C::hash(value, &mut value_hasher);
            hasher.row(id.raw(), value_hasher.finish());
        };
        if let Ok(segments) = self.query.contiguous_iter(world) {
            for (_entities, ids, values) in segments {
                ids.iter()
                    .zip(values)
                    .for_each(|(id, value)| take(id, value));
            }
        } else {
            for (_entity, id, value) in self.query.iter(world) {
                take(id, value);
            }
        }
        hasher.finish()
    }

    fn hash_saved(&self, structure: &Structure, saved: &dyn Any) -> u64 {
        let saved: &Values<T> = downcast(saved);
        let mut hasher = KindHasher::default();
        for (place, value) in saved.places().zip(&saved.values) {
            let id = structure.ids()[place as usize];
            hasher.row(id.raw(), self.value_hash(value));
        }
        hasher.finish()
    }

    fn export(&self, structure: &Structure, saved: &dyn Any) -> KindRows {
        let saved: &Values<T> = downcast(saved);
        let rows = saved.rows(structure.ids().len());
        let mut out = KindRows::default();
        for &place in structure.order() {
            if let Some(value) = saved.values.get(rows[place as usize] as usize) {
                out.push(structure.ids()[place as usize].raw(), |bytes| {
                    C::write(value, bytes);
                });
            }
        }
        out
    }

    fn decode(&self, structure: &Structure, rows: &KindRows) -> Result<Saved, ImportError> {
        let mut saved = Values::<T>::default();
        let mut place = 0;
        for (index, &id) in rows.ids.iter().enumerate() {
            // Both lists ascend, so one pass finds every row's entity.
            while structure
                .ids()
                .get(place)
                .is_some_and(|other| other.raw() < id)
            {
                place += 1;
            }
            if structure
                .ids()
                .get(place)
                .is_none_or(|other| other.raw() != id)
            {
                return Err(ImportError::NotCanonical {
                    kind: self.name.clone(),
                });
            }
            saved.push(
                count(place),
                decode_value::<T, C>(&self.name, id, rows.row(index))?,
            );
        }
        Ok(Box::new(saved))
    }

    fn publish(&mut self, moment: &Moment<'_>, out: &mut KindRows) {
        let published = &mut self.published;
        // One query for all of it: another one may go through the tables in another order, where it
        // has found several at once.
        let (query, world) = (&mut self.ticks, moment.world);
        if let Ok(segments) = query.contiguous_iter(world) {
            let runs = || {
                segments.map(|(entities, ids, _values)| {
                    (moment.structure.table_start(world, entities[0]), ids)
                })
            };
            let mut writing = published.begin(moment, runs);
            if let Ok(segments) = query.contiguous_iter(world) {
                for (_entities, _ids, values) in segments {
                    let ticks = values.changed_ticks_slice();
                    writing.take(values.into_inner(), ticks, C::write);
                }
            }
            if writing.is_stale() {
                let read = published.read();
                for (_entity, id, value) in query.iter(world) {
                    read.push(id.raw(), |bytes| C::write(&value, bytes));
                }
                published.place_read();
            }
        } else {
            // Rows of sparse sets come and go without a trace in the structure.
            let read = published.read();
            for (_entity, id, value) in query.iter(world) {
                read.push(id.raw(), |bytes| C::write(&value, bytes));
            }
            published.sort();
            published.place_read();
        }
        published.copy_into(out);
    }

    fn publish_some(&self, world: &World, entities: &[(NetId, Entity)], out: &mut KindRows) {
        for &(id, entity) in entities {
            if let Some(value) = world.get::<T>(entity) {
                out.push(id.raw(), |bytes| C::write(value, bytes));
            }
        }
    }

    fn read_patch(&mut self, rows: &KindRows) -> Result<(), ImportError> {
        self.patched.clear();
        self.patched.reserve(rows.len());
        for (id, row) in rows.rows() {
            let value = decode_value::<T, C>(&self.name, id, row)?;
            self.patched.push(value);
        }
        Ok(())
    }

    fn component(&self) -> Option<ComponentId> {
        Some(self.component)
    }

    fn insert_patched(&mut self, world: &mut World, missing: &[(Entity, u32)]) {
        let values = &self.patched;
        let batch = missing.iter();
        let batch = batch.map(|&(entity, row)| (entity, values[row as usize].clone()));
        // A hook of the game may have despawned an entity; then there is nothing to set.
        let _despawned = world.try_insert_batch(batch);
    }

    fn set_patched(&mut self, world: &mut World, entities: &[Entity]) {
        for (&entity, value) in entities.iter().zip(&self.patched) {
            if let Ok((_entity, _id, mut place)) = self.query.get_mut(world, entity) {
                place.clone_from(value);
            }
        }
    }

    fn remove_patched(&mut self, world: &mut World, entity: Entity) {
        if let Ok(mut entity) = world.get_entity_mut(entity) {
            entity.remove::<T>();
        }
    }
}
