//! Saving, restoring and hashing one resource kind.

use core::any::Any;

use bevy_ecs::change_detection::DetectChangesMut;
use bevy_ecs::component::{ComponentId, Mutable};
use bevy_ecs::entity::Entity;
use bevy_ecs::resource::Resource;
use bevy_ecs::world::World;
use phalanx_netcode::hash::ValueHasher;
use phalanx_netcode::id;
use phalanx_netcode::state::{Exact, ImportError, KindHasher, KindRows};

use super::kind::{ExactCodec, Kind, Saved, decode_value, downcast, downcast_mut};
use super::published::Moment;
use super::structure::{Places, Structure};
use crate::net_id::NetId;

/// A resource kind. Whether the resource exists is part of what is saved.
pub(super) struct Single<T> {
    name: String,
    salt: u64,
    /// The value of a patch.
    patched: Option<T>,
}

impl<T> Single<T> {
    pub(super) fn new(name: &str, salt: u64) -> Self {
        Self {
            name: name.to_owned(),
            salt,
            patched: None,
        }
    }
}

impl<T: Resource<Mutability = Mutable> + Exact + Clone> Single<T> {
    fn set(world: &mut World, saved: &dyn Any) {
        match downcast::<Option<T>>(saved) {
            Some(saved) => match world.get_resource_mut::<T>() {
                Some(mut value) => value.bypass_change_detection().clone_from(saved),
                None => world.insert_resource(saved.clone()),
            },
            None => {
                world.remove_resource::<T>();
            }
        }
    }

    fn hash_of(&self, value: Option<&T>) -> u64 {
        let mut hasher = KindHasher::default();
        if let Some(value) = value {
            let mut value_hasher = ValueHasher::new(self.salt);
            value.hash_exact(&mut value_hasher);
            hasher.row(id::NetId::NONE, value_hasher.finish());
        }
        hasher.finish()
    }
}

impl<T: Resource<Mutability = Mutable> + Exact + Clone> Kind for Single<T> {
    fn empty(&self) -> Saved {
        Box::new(None::<T>)
    }

    fn capture(&mut self, world: &World, _structure: &Structure, saved: &mut dyn Any) {
        let saved: &mut Option<T> = downcast_mut(saved);
        match (saved, world.get_resource::<T>()) {
            (Some(saved), Some(value)) => saved.clone_from(value),
            (saved, value) => *saved = value.cloned(),
        }
    }

    fn is_arranged(&mut self, _world: &World, _structure: &Structure, _saved: &dyn Any) -> bool {
        true
    }

    fn restore_in_place(&mut self, world: &mut World, saved: &dyn Any) {
        Self::set(world, saved);
    }

    fn insert_missing(&mut self, _world: &mut World, _places: &Places, _saved: &dyn Any) {}

    fn restore_rows(&mut self, world: &mut World, _places: &Places, saved: &dyn Any) {
        Self::set(world, saved);
    }

    fn remove_surplus(&mut self, _world: &mut World) {}

    fn has_strays(&mut self, _world: &mut World) -> bool {
        false
    }

    fn hash(&mut self, world: &World) -> u64 {
        self.hash_of(world.get_resource::<T>())
    }

    fn hash_saved(&self, _structure: &Structure, saved: &dyn Any) -> u64 {
        self.hash_of(downcast::<Option<T>>(saved).as_ref())
    }

    fn export(&self, _structure: &Structure, saved: &dyn Any) -> KindRows {
        let mut rows = KindRows::default();
        if let Some(value) = downcast::<Option<T>>(saved) {
            rows.push(id::NetId::NONE, |bytes| value.write_exact(bytes));
        }
        rows
    }

    fn decode(&self, _structure: &Structure, rows: &KindRows) -> Result<Saved, ImportError> {
        let mut saved = None::<T>;
        for (index, &id) in rows.ids.iter().enumerate() {
            if !id.is_none() {
                return Err(ImportError::NotCanonical {
                    kind: self.name.clone(),
                });
            }
            saved = Some(decode_value::<T, ExactCodec>(
                &self.name,
                id,
                rows.row(index),
            )?);
        }
        Ok(Box::new(saved))
    }

    fn publish(&mut self, moment: &Moment<'_>, out: &mut KindRows) {
        out.clear();
        if let Some(value) = moment.world.get_resource::<T>() {
            out.push(id::NetId::NONE, |bytes| value.write_exact(bytes));
        }
    }

    fn publish_some(&self, _world: &World, _entities: &[(NetId, Entity)], _out: &mut KindRows) {}

    fn read_patch(&mut self, rows: &KindRows) -> Result<(), ImportError> {
        self.patched = None;
        for (id, row) in rows.rows() {
            self.patched = Some(decode_value::<T, ExactCodec>(&self.name, id, row)?);
        }
        Ok(())
    }

    fn component(&self) -> Option<ComponentId> {
        None
    }

    fn insert_patched(&mut self, _world: &mut World, _missing: &[(Entity, u32)]) {}

    fn set_patched(&mut self, world: &mut World, _entities: &[Entity]) {
        if let Some(value) = self.patched.take() {
            match world.get_resource_mut::<T>() {
                Some(mut place) => *place = value,
                None => world.insert_resource(value),
            }
        }
    }

    fn remove_patched(&mut self, world: &mut World, _entity: Entity) {
        world.remove_resource::<T>();
    }
}
