//! The least world that naia runs on: entities are numbers, components are boxed.

use std::collections::BTreeMap;
use std::collections::HashMap;

use naia_shared::{
    ComponentFieldUpdate, ComponentKind, ComponentKinds, ComponentUpdate,
    EntityAndGlobalEntityConverter, GlobalWorldManagerType, LocalEntityAndGlobalEntityConverter,
    ReplicaDynMutWrapper, ReplicaDynRefWrapper, ReplicaMutTrait, ReplicaMutWrapper,
    ReplicaRefTrait, ReplicaRefWrapper, Replicate, ReplicatedComponent, SerdeErr, WorldMutType,
    WorldRefType,
};

/// An entity.
pub type Id = u64;

type Components = HashMap<ComponentKind, Box<dyn Replicate>>;

/// All entities of a node.
#[derive(Default)]
pub struct World {
    entities: BTreeMap<Id, Components>,
    next: Id,
}

impl World {
    /// Every component of a kind.
    pub fn all<R: Replicate>(&self) -> impl Iterator<Item = &R> {
        self.entities.values().filter_map(|components| {
            let component = components.get(&ComponentKind::of::<R>())?;
            component.to_any().downcast_ref()
        })
    }

    /// How many entities have a component.
    pub fn count<R: Replicate>(&self) -> usize {
        self.all::<R>().count()
    }

    fn component(&self, id: Id, kind: ComponentKind) -> Option<&dyn Replicate> {
        Some(self.entities.get(&id)?.get(&kind)?.as_ref())
    }

    fn component_mut(&mut self, id: Id, kind: ComponentKind) -> Option<&mut dyn Replicate> {
        Some(self.entities.get_mut(&id)?.get_mut(&kind)?.as_mut())
    }

    fn kinds(&self, id: Id) -> Vec<ComponentKind> {
        let components = self.entities.get(&id).into_iter();
        components.flat_map(|map| map.keys().copied()).collect()
    }
}

/// A world that naia reads.
pub struct Reader<'w>(pub &'w World);

/// A world that naia writes.
pub struct Writer<'w>(pub &'w mut World);

struct Shared<'a, R>(&'a R);

impl<R: Replicate> ReplicaRefTrait<R> for Shared<'_, R> {
    fn to_ref(&self) -> &R {
        self.0
    }
}

struct Unique<'a, R>(&'a mut R);

impl<R: Replicate> ReplicaRefTrait<R> for Unique<'_, R> {
    fn to_ref(&self) -> &R {
        self.0
    }
}

impl<R: Replicate> ReplicaMutTrait<R> for Unique<'_, R> {
    fn to_mut(&mut self) -> &mut R {
        self.0
    }
}

macro_rules! readable {
    ($view:ident) => {
        impl WorldRefType<Id> for $view<'_> {
            fn has_entity(&self, id: &Id) -> bool {
                self.0.entities.contains_key(id)
            }

            fn entities(&self) -> Vec<Id> {
                self.0.entities.keys().copied().collect()
            }

            fn has_component<R: ReplicatedComponent>(&self, id: &Id) -> bool {
                self.has_component_of_kind(id, &ComponentKind::of::<R>())
            }

            fn has_component_of_kind(&self, id: &Id, kind: &ComponentKind) -> bool {
                self.0.component(*id, *kind).is_some()
            }

            fn component<'a, R: ReplicatedComponent>(
                &'a self,
                id: &Id,
            ) -> Option<ReplicaRefWrapper<'a, R>> {
                let component = self.0.component(*id, ComponentKind::of::<R>())?;
                let component = component.to_any().downcast_ref::<R>()?;
                Some(ReplicaRefWrapper::new(Shared(component)))
            }

            fn component_of_kind<'a>(
                &'a self,
                id: &Id,
                kind: &ComponentKind,
            ) -> Option<ReplicaDynRefWrapper<'a>> {
                let component = self.0.component(*id, *kind)?;
                Some(ReplicaDynRefWrapper::new(component.dyn_ref()))
            }
        }
    };
}

readable!(Reader);
readable!(Writer);

impl WorldMutType<Id> for Writer<'_> {
    fn spawn_entity(&mut self) -> Id {
        let id = self.0.next;
        self.0.next += 1;
        self.0.entities.insert(id, Components::new());
        id
    }

    fn local_duplicate_entity(&mut self, id: &Id) -> Id {
        let copy = self.spawn_entity();
        self.local_duplicate_components(&copy, id);
        copy
    }

    fn local_duplicate_components(&mut self, to: &Id, from: &Id) {
        for kind in self.0.kinds(*from) {
            if let Some(component) = self.0.component(*from, kind).map(|c| c.copy_to_box()) {
                self.insert_boxed_component(to, component);
            }
        }
    }

    fn despawn_entity(&mut self, id: &Id) {
        self.0.entities.remove(id);
    }

    fn component_kinds(&mut self, id: &Id) -> Vec<ComponentKind> {
        self.0.kinds(*id)
    }

    fn component_mut<'a, R: ReplicatedComponent>(
        &'a mut self,
        id: &Id,
    ) -> Option<ReplicaMutWrapper<'a, R>> {
        let component = self.0.component_mut(*id, ComponentKind::of::<R>())?;
        let component = component.to_any_mut().downcast_mut::<R>()?;
        Some(ReplicaMutWrapper::new(Unique(component)))
    }

    fn component_mut_of_kind<'a>(
        &'a mut self,
        id: &Id,
        kind: &ComponentKind,
    ) -> Option<ReplicaDynMutWrapper<'a>> {
        let component = self.0.component_mut(*id, *kind)?;
        Some(ReplicaDynMutWrapper::new(component.dyn_mut()))
    }

    fn component_apply_update(
        &mut self,
        converter: &dyn LocalEntityAndGlobalEntityConverter,
        id: &Id,
        kind: &ComponentKind,
        update: ComponentUpdate,
    ) -> Result<(), SerdeErr> {
        match self.0.component_mut(*id, *kind) {
            Some(component) => component.read_apply_update(converter, update),
            None => Ok(()),
        }
    }

    fn component_apply_field_update(
        &mut self,
        converter: &dyn LocalEntityAndGlobalEntityConverter,
        id: &Id,
        kind: &ComponentKind,
        update: ComponentFieldUpdate,
    ) -> Result<(), SerdeErr> {
        match self.0.component_mut(*id, *kind) {
            Some(component) => component.read_apply_field_update(converter, update),
            None => Ok(()),
        }
    }

    fn mirror_entities(&mut self, to: &Id, from: &Id) {
        for kind in self.0.kinds(*from) {
            self.mirror_components(to, from, &kind);
        }
    }

    fn mirror_components(&mut self, to: &Id, from: &Id, kind: &ComponentKind) {
        let source = self.0.component(*from, *kind).map(|c| c.copy_to_box());
        if let (Some(source), Some(target)) = (source, self.0.component_mut(*to, *kind)) {
            target.mirror(source.as_ref());
        }
    }

    fn insert_component<R: ReplicatedComponent>(&mut self, id: &Id, component: R) {
        self.insert_boxed_component(id, Box::new(component));
    }

    fn insert_boxed_component(&mut self, id: &Id, component: Box<dyn Replicate>) {
        if let Some(components) = self.0.entities.get_mut(id) {
            components.insert(component.kind(), component);
        }
    }

    fn remove_component<R: ReplicatedComponent>(&mut self, id: &Id) -> Option<R> {
        let component = self.remove_component_of_kind(id, &ComponentKind::of::<R>())?;
        component.to_boxed_any().downcast().ok().map(|boxed| *boxed)
    }

    fn remove_component_of_kind(
        &mut self,
        id: &Id,
        kind: &ComponentKind,
    ) -> Option<Box<dyn Replicate>> {
        self.0.entities.get_mut(id)?.remove(kind)
    }

    fn entity_publish(
        &mut self,
        kinds: &ComponentKinds,
        converter: &dyn EntityAndGlobalEntityConverter<Id>,
        manager: &dyn GlobalWorldManagerType,
        id: &Id,
    ) {
        for kind in self.0.kinds(*id) {
            self.component_publish(kinds, converter, manager, id, &kind);
        }
    }

    fn component_publish(
        &mut self,
        kinds: &ComponentKinds,
        converter: &dyn EntityAndGlobalEntityConverter<Id>,
        manager: &dyn GlobalWorldManagerType,
        id: &Id,
        kind: &ComponentKind,
    ) {
        let Ok(global) = converter.entity_to_global_entity(id) else {
            return;
        };
        if let Some(component) = self.0.component_mut(*id, *kind) {
            let fields = component.diff_mask_size();
            component.publish(&manager.register_component(kinds, &global, kind, fields));
        }
    }

    fn entity_unpublish(&mut self, id: &Id) {
        for kind in self.0.kinds(*id) {
            self.component_unpublish(id, &kind);
        }
    }

    fn component_unpublish(&mut self, id: &Id, kind: &ComponentKind) {
        if let Some(component) = self.0.component_mut(*id, *kind) {
            component.unpublish();
        }
    }

    fn entity_enable_delegation(
        &mut self,
        kinds: &ComponentKinds,
        converter: &dyn EntityAndGlobalEntityConverter<Id>,
        manager: &dyn GlobalWorldManagerType,
        id: &Id,
    ) {
        for kind in self.0.kinds(*id) {
            self.component_enable_delegation(kinds, converter, manager, id, &kind);
        }
    }

    fn component_enable_delegation(
        &mut self,
        kinds: &ComponentKinds,
        converter: &dyn EntityAndGlobalEntityConverter<Id>,
        manager: &dyn GlobalWorldManagerType,
        id: &Id,
        kind: &ComponentKind,
    ) {
        let Ok(global) = converter.entity_to_global_entity(id) else {
            return;
        };
        let accessor = manager.get_entity_auth_accessor(&global);
        let mutates = manager.entity_needs_mutator_for_delegation(&global);
        if let Some(component) = self.0.component_mut(*id, *kind) {
            let fields = component.diff_mask_size();
            let mutator = mutates.then(|| manager.register_component(kinds, &global, kind, fields));
            component.enable_delegation(&accessor, mutator.as_ref());
        }
    }

    fn entity_disable_delegation(&mut self, id: &Id) {
        for kind in self.0.kinds(*id) {
            self.component_disable_delegation(id, &kind);
        }
    }

    fn component_disable_delegation(&mut self, id: &Id, kind: &ComponentKind) {
        if let Some(component) = self.0.component_mut(*id, *kind) {
            component.disable_delegation();
        }
    }
}
