//! Saving, restoring and hashing one component kind.

use core::any::Any;
use core::marker::PhantomData;

use bevy_ecs::change_detection::DetectChangesMut;
use bevy_ecs::component::{Component, Mutable};
use bevy_ecs::entity::Entity;
use bevy_ecs::query::QueryState;
use bevy_ecs::world::World;
use phalanx_netcode::hash::ValueHasher;
use phalanx_netcode::state::{ImportError, KindHasher, KindRows};

use super::kind::{Codec, Kind, Saved, decode_value, downcast, downcast_mut, push_row};
use super::structure::{NOWHERE, Places, Structure, count};
use crate::net_id::NetId;

/// A component kind.
pub(super) struct Column<T: Component<Mutability = Mutable>, C> {
    name: String,
    salt: u64,
    query: QueryState<(Entity, &'static NetId, &'static mut T)>,
    /// Entities to remove the component from, once all kinds are in place.
    surplus: Vec<Entity>,
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
    fn clear(&mut self) {
        self.runs.clear();
        self.values.clear();
    }

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

    /// The index of each place's value, by place; [`NOWHERE`] where there is none.
    fn rows(&self, places: usize) -> Vec<u32> {
        let mut rows = vec![NOWHERE; places];
        for (row, place) in self.places().enumerate() {
            rows[place as usize] = count(row);
        }
        rows
    }
}

impl<T, C> Column<T, C>
where
    T: Component<Mutability = Mutable> + Clone,
    C: Codec<T>,
{
    /// The column of `T` in `world`, which must have no default query filters at this moment.
    pub(super) fn new(name: &str, salt: u64, world: &mut World) -> Self {
        Self {
            name: name.to_owned(),
            salt,
            query: QueryState::new(world),
            surplus: Vec::new(),
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
        saved.clear();
        if let Ok(segments) = self.query.contiguous_iter(world) {
            for (entities, _ids, values) in segments {
                let start = structure.table_start(world, entities[0]);
                saved.runs.push((start, count(values.len())));
                saved.values.extend_from_slice(values);
            }
        } else {
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
        let mut rows = saved.rows(places.len());
        for (entity, _id, _value) in self.query.iter(world) {
            if let Some(row) = rows.get_mut(places.place(entity) as usize) {
                *row = NOWHERE;
            }
        }
        for (place, row) in rows.iter().enumerate() {
            if *row != NOWHERE
                && let Ok(mut entity) = world.get_entity_mut(places.entity(count(place)))
            {
                entity.insert(saved.values[*row as usize].clone());
            }
        }
    }

    fn restore_rows(&mut self, world: &mut World, places: &Places, saved: &dyn Any) {
        let saved: &Values<T> = downcast(saved);
        let rows = saved.rows(places.len());
        let saved_value = |entity| {
            let row = *rows.get(places.place(entity) as usize)?;
            saved.values.get(row as usize)
        };
        self.surplus.clear();
        for (entity, _id, mut value) in self.query.iter_mut(world) {
            match saved_value(entity) {
                Some(saved) => value.bypass_change_detection().clone_from(saved),
                None => self.surplus.push(entity),
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
                push_row(&mut out, structure.ids()[place as usize].raw(), |bytes| {
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
}
