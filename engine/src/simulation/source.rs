//! Kinds as a game registers them, before they have a world.

use bevy_ecs::component::{Component, Mutable};
use bevy_ecs::entity_disabling::Disabled;
use bevy_ecs::resource::Resource;
use bevy_ecs::world::World;
use phalanx_netcode::state::{KindSchema, KindShape, Networked, Visibility};

use super::column::Column;
use super::kind::{ExactCodec, Kind, MarkerCodec};
use super::resource::Single;
use super::{DISABLED, ENTITY};

/// A registered kind, before it has a world.
pub(crate) struct KindSource {
    pub(crate) schema: KindSchema,
    pub(super) make: fn(&KindSchema, &mut World) -> Option<Box<dyn Kind>>,
}

impl KindSource {
    pub(crate) fn component<T>() -> Self
    where
        T: Component<Mutability = Mutable> + Networked + Clone,
    {
        Self {
            schema: KindSchema::of::<T>(KindShape::Component),
            make: |schema, world| {
                (schema.visibility != Visibility::Local).then(|| {
                    let column = Column::<T, ExactCodec>::new(schema, world);
                    Box::new(column) as Box<dyn Kind>
                })
            },
        }
    }

    pub(crate) fn resource<T>() -> Self
    where
        T: Resource<Mutability = Mutable> + Networked + Clone,
    {
        Self {
            schema: KindSchema::of::<T>(KindShape::Resource),
            make: |schema, _world| {
                (schema.visibility != Visibility::Local).then(|| {
                    Box::new(Single::<T>::new(&schema.name, schema.salt())) as Box<dyn Kind>
                })
            },
        }
    }

    /// Which entities exist. The structure has it; there is nothing else to save.
    pub(crate) fn entity() -> Self {
        Self {
            schema: own_component(ENTITY),
            make: |_schema, _world| None,
        }
    }

    /// Which entities have bevy's `Disabled`.
    pub(crate) fn disabled() -> Self {
        Self {
            schema: own_component(DISABLED),
            make: |schema, world| {
                let column = Column::<Disabled, MarkerCodec>::new(schema, world);
                Some(Box::new(column))
            },
        }
    }
}

fn own_component(name: &str) -> KindSchema {
    KindSchema {
        name: name.to_owned(),
        version: 1,
        shape: KindShape::Component,
        visibility: Visibility::Client,
        fields: Vec::new(),
    }
}
