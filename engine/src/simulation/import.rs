//! States from elsewhere: canonical snapshots, and images whose rows lie in other places.

use core::any::Any;
use std::sync::Arc;

use bevy_ecs::entity::Entity;
use phalanx_netcode::id;
use phalanx_netcode::simulation::Simulation;
use phalanx_netcode::state::{ImportError, KindShape, Networked, Snapshot};

use super::kind::{Kind, Saved};
use super::structure::{Places, Structure};
use super::{ENTITY, EcsImage, EcsSimulation};
use crate::game::RESERVED_PREFIX;
use crate::net_id::{NetId, NetIdAllocator, NetIndex};

impl EcsSimulation {
    /// Checks `snapshot` and reads its values, without touching the world.
    pub(super) fn decode(&self, snapshot: &Snapshot) -> Result<EcsImage, ImportError> {
        let schemas = self.schemas();
        snapshot.validate(self.game.schema())?;
        let entities = schemas.iter().position(|kind| kind.name == ENTITY);
        let ids = entities.map_or(&[][..], |index| &snapshot.kinds[index].ids);
        let structure = Structure::of_ids(ids.iter().map(|&id| id.into()).collect());
        let mut kinds = Vec::with_capacity(schemas.len());
        for ((kind, rows), schema) in self.kinds.iter().zip(&snapshot.kinds).zip(schemas) {
            let is_own = schema.name.starts_with(RESERVED_PREFIX);
            if is_own && schema.shape == KindShape::Resource && rows.is_empty() {
                return Err(ImportError::NotCanonical {
                    kind: schema.name.clone(),
                });
            }
            kinds.push(match kind {
                Some(kind) => Some(kind.decode(&structure, rows)?),
                None => None,
            });
        }
        let image = EcsImage {
            tick: snapshot.tick,
            structure: Arc::new(structure),
            kinds,
        };
        self.check_allocator(&image)?;
        Ok(image)
    }

    /// Refuses a counter that would give an id of the snapshot again.
    fn check_allocator(&self, image: &EcsImage) -> Result<(), ImportError> {
        let newest = image.structure.ids().last().copied();
        let fits = self
            .game
            .schema()
            .kind_index(NetIdAllocator::NAME)
            .and_then(|index| {
                image.kinds[index]
                    .as_ref()?
                    .downcast_ref::<Option<NetIdAllocator>>()
            })
            .and_then(Option::as_ref)
            .is_some_and(|allocator| allocator.is_beyond(newest.unwrap_or_default()));
        if fits {
            Ok(())
        } else {
            Err(ImportError::BadRow {
                kind: NetIdAllocator::NAME.to_owned(),
                id: id::NetId::NONE,
            })
        }
    }

    /// As [`Simulation::import`], with rows in an order that history never gave: all entities are
    /// spawned anew, in the order into which `shuffle` brings their ids.
    pub(crate) fn import_shuffled(
        &mut self,
        snapshot: &Snapshot,
        shuffle: impl FnOnce(&mut [NetId]),
    ) -> Result<(), ImportError> {
        let image = self.decode(snapshot)?;
        let index = self.world.resource::<NetIndex>().iter();
        let old: Vec<Entity> = index.map(|(_id, entity)| entity).collect();
        for entity in old {
            self.world.despawn(entity);
        }
        let mut ids = image.structure.ids().to_vec();
        shuffle(&mut ids);
        for id in ids {
            self.world.spawn(id);
        }
        self.take_over(&image);
        Ok(())
    }

    /// Restores a decoded snapshot, and computes what it does not hold.
    pub(super) fn take_over(&mut self, image: &EcsImage) {
        self.restore(image);
        self.derive_schedule.run(&mut self.world);
    }

    /// Restores by id, where rows differ.
    pub(super) fn rearrange(&mut self, image: &EcsImage) {
        let mut places = Places::default();
        places.arrange(&mut self.world, &image.structure);
        places.find_rows(&self.world, &mut self.structure);
        // Inserting may bring along required components, also of kinds that were handled before,
        // so values are set when all is inserted, and what is too many goes last.
        for (kind, saved) in pairs(&mut self.kinds, &image.kinds) {
            kind.insert_missing(&mut self.world, &places, saved);
        }
        places.find_rows(&self.world, &mut self.structure);
        for (kind, saved) in pairs(&mut self.kinds, &image.kinds) {
            kind.restore_rows(&mut self.world, &places, saved);
        }
        for (kind, _saved) in pairs(&mut self.kinds, &image.kinds) {
            kind.remove_surplus(&mut self.world);
        }
    }
}

/// The kinds that are saved, with their values.
pub(super) fn pairs<'a>(
    kinds: &'a mut [Option<Box<dyn Kind>>],
    saved: &'a [Option<Saved>],
) -> impl Iterator<Item = (&'a mut (dyn Kind + 'static), &'a (dyn Any + 'static))> {
    kinds
        .iter_mut()
        .zip(saved)
        .filter_map(|(kind, saved)| Some((&mut **kind.as_mut()?, &**saved.as_ref()? as _)))
}
