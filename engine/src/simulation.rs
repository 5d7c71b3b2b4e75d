//! A running game: steps, saved states, hashes and snapshots.
//!
//! # How state is saved
//! Values lie in columns, one per kind and table. [`EcsSimulation::capture`] copies columns as
//! they are, and restoring copies them back, both at the speed of memory, as long as the same
//! entities lie in the same rows. Where entities were spawned or despawned, or components inserted
//! or removed in between, restoring goes by [`NetId`]: afterwards the same ids have the same
//! components with the same values; rows and `Entity` ids may differ, and nothing in the state
//! depends on them.

mod column;
mod import;
mod kind;
mod patch;
mod published;
mod resource;
mod source;
mod structure;

use core::fmt;
use std::sync::Arc;

use bevy_ecs::change_detection::Tick as ChangeTick;
use bevy_ecs::entity::Entity;
use bevy_ecs::entity_disabling::DefaultQueryFilters;
use bevy_ecs::query::QueryState;
use bevy_ecs::schedule::Schedule;
use bevy_ecs::world::World;
use phalanx_netcode::hash::ValueHasher;
use phalanx_netcode::id::{NetId as RawNetId, Slot, Term};
use phalanx_netcode::input::InputFrame;
use phalanx_netcode::simulation::{ClaimRefused, Simulation, StepKind};
use phalanx_netcode::state::{
    ImportError, KindHasher, KindRows, KindSchema, Patch, Schema, Snapshot, StateHash, Visibility,
    kind_salt,
};
use phalanx_netcode::tick::Tick;

use crate::claims::ClaimedValues;
use crate::events::TickEvents;
use crate::game::{ClaimRule, Game, SessionSetup};
use crate::hierarchy::Hierarchy;
use crate::input::{CurrentTick, SlotPresence, Stepping};
use crate::net_id::{NetId, NetIdAllocator, NetIndex};
use crate::rewind::SeenTicks;
use crate::rng::TickRng;
use crate::schedule::{self, DeriveSchedule, TickSchedule};
use crate::shown::{self, Corrections, Smoothing};
use crate::side::{Authority, Owner, Side};
use crate::spawn::{SpawnCounts, first_predicted_id};

use import::pairs;
use kind::{Kind, Saved};
use patch::Patcher;
use published::{Moment, Ranks};
pub(crate) use source::KindSource;
use structure::{Structure, StructureReader};

/// Name of the kind that says which entities exist.
const ENTITY: &str = "phalanx.entity";
/// Name of the kind that says which entities are disabled.
const DISABLED: &str = "phalanx.disabled";

/// A running game, one tick at a time. Made by [`Game::simulation`].
pub struct EcsSimulation {
    game: Game,
    world: World,
    tick_schedule: Schedule,
    derive_schedule: Schedule,
    /// By the schema's order; `None` where nothing is saved.
    kinds: Vec<Option<Box<dyn Kind>>>,
    structure: StructureReader,
    /// In games where it is state.
    hierarchy: Option<Hierarchy>,
    owners: QueryState<(Entity, &'static NetId, &'static Owner)>,
    deciders: QueryState<(Entity, &'static NetId, &'static Authority)>,
    /// Bevy's tick of the last publication, as long as change detection has seen every change
    /// since.
    published: Option<ChangeTick>,
    ranks: Ranks,
    /// Memory for the structure of a publication.
    spare: Arc<Structure>,
    patcher: Patcher,
    corrections: Corrections,
    public_seed: u64,
    tick: Tick,
}

/// A saved state of an [`EcsSimulation`], for this process only.
///
/// Other simulations of the same [`Game`] can restore it too, though not at the speed of memory.
#[derive(Default)]
pub struct EcsImage {
    tick: Tick,
    structure: Arc<Structure>,
    /// By the schema's order.
    kinds: Vec<Option<Saved>>,
}

impl EcsImage {
    /// The tick of the saved state.
    #[must_use]
    pub fn tick(&self) -> Tick {
        self.tick
    }

    /// Number of networked entities in the saved state.
    #[must_use]
    pub fn entities(&self) -> usize {
        self.structure.ids().len()
    }
}

impl fmt::Debug for EcsImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EcsImage")
            .field("tick", &self.tick)
            .field("entities", &self.entities())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for EcsSimulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EcsSimulation")
            .field("game", &self.game.id())
            .field("tick", &self.tick)
            .finish_non_exhaustive()
    }
}

impl EcsSimulation {
    pub(crate) fn new(game: &Game, setup: SessionSetup) -> Self {
        let inner = game.inner();
        let mut world = World::new();
        world.init_resource::<NetIndex>();
        world.init_resource::<NetIdAllocator>();
        world.init_resource::<SlotPresence>();
        world.init_resource::<CurrentTick>();
        world.init_resource::<SpawnCounts>();
        world.init_resource::<Side>();
        world.init_resource::<SeenTicks>();
        inner
            .events
            .iter()
            .for_each(|source| (source.init)(&mut world));
        inner
            .rewinds
            .iter()
            .for_each(|source| source.init(&mut world));
        world.insert_resource(Stepping(StepKind::First));
        world.insert_resource(TickRng::new(setup.seed));
        // The first, empty frame makes the resource that systems read inputs from.
        let empty = InputFrame::empty(Tick::ZERO, setup.slots, game.input_bytes());
        inner.load_inputs(&mut world, &empty, 0, 0);

        // Queries take the default filters of the moment when they are made. Without them they
        // see entities whatever disables these, also by components of the game.
        let filters = world.remove_resource::<DefaultQueryFilters>();
        let structure = StructureReader::new(&mut world);
        let mut hierarchy = inner.has_hierarchy.then(|| Hierarchy::new(&mut world));
        let owners = QueryState::new(&mut world);
        let deciders = QueryState::new(&mut world);
        let kinds = inner
            .kinds
            .iter()
            .map(|source| (source.make)(&source.schema, &mut world))
            .collect();
        if let Some(filters) = filters {
            world.insert_resource(filters);
        }

        let checked = "the same systems made a schedule when the game was built";
        let tick_schedule =
            schedule::build(TickSchedule, &inner.tick_systems, &mut world).expect(checked);
        let mut derive_schedule =
            schedule::build(DeriveSchedule, &inner.derive_systems, &mut world).expect(checked);
        for function in &inner.setups {
            function(&mut world, &setup);
        }
        world.flush();
        // A setup may choose ids by itself; the counter must not give them again.
        let newest = world.resource::<NetIndex>().newest();
        world.resource_mut::<NetIdAllocator>().raise_above(newest);
        if let Some(hierarchy) = &mut hierarchy {
            hierarchy.note(&mut world, true);
        }
        derive_schedule.run(&mut world);
        Self {
            game: game.clone(),
            world,
            tick_schedule,
            derive_schedule,
            kinds,
            structure,
            hierarchy,
            owners,
            deciders,
            published: None,
            ranks: Ranks::default(),
            spare: Arc::default(),
            patcher: Patcher::default(),
            corrections: Corrections::new(game.schema()),
            public_seed: setup.public_seed,
            tick: Tick::ZERO,
        }
    }

    /// The game that runs.
    #[must_use]
    pub fn game(&self) -> &Game {
        &self.game
    }

    /// The world, to draw it.
    #[must_use]
    pub fn world(&self) -> &World {
        &self.world
    }

    /// The world, for presentation: entities without a [`NetId`], components and resources that
    /// are not registered. Whoever changes the state here makes this node diverge.
    pub fn world_mut(&mut self) -> &mut World {
        &mut self.world
    }

    /// On which side of its session this simulation is; an authority unless set otherwise.
    #[must_use]
    pub fn side(&self) -> Side {
        *self.world.resource()
    }

    /// Sets the side, when the session begins or the host changes. A client that becomes an
    /// authority goes on with ids above all that it knows.
    pub fn set_side(&mut self, side: Side) {
        *self.world.resource_mut::<Side>() = side;
        self.corrections.clear();
        let newest = self.world.resource::<NetIndex>().newest_of_host();
        let mut ids = self.world.resource_mut::<NetIdAllocator>();
        if !side.is_authority() {
            ids.start_at(first_predicted_id(self.tick));
        } else if !ids.is_beyond(newest) {
            ids.start_at(NetId::from_bits(newest.bits() + 1));
        }
    }

    /// Takes the events of one type that presentation has not had yet; see
    /// [`TickEvents`].
    pub fn drain_events<T>(&mut self) -> impl Iterator<Item = (Tick, T)>
    where
        T: Clone + PartialEq + Send + Sync + 'static,
    {
        let events = self.world.get_resource_mut::<TickEvents<T>>();
        events
            .into_iter()
            .flat_map(|events| events.into_inner().drain())
    }

    /// The current state in its canonical form.
    #[must_use]
    pub fn snapshot(&mut self) -> Snapshot {
        let mut image = EcsImage::default();
        self.capture(&mut image);
        self.export(&image)
    }

    /// The hash of the current state.
    #[must_use]
    pub fn state_hash(&mut self) -> StateHash {
        let mut hash = StateHash::default();
        self.hash(&mut hash);
        hash
    }

    /// Sets how a client hides corrections of what it predicts.
    pub fn set_smoothing(&mut self, smoothing: Smoothing) {
        self.corrections.set_smoothing(smoothing);
    }

    /// Lets time pass for what is shown: corrections fade.
    pub fn fade_corrections(&mut self, elapsed_us: u64) {
        self.corrections.fade(elapsed_us);
    }

    /// Says how far the time is on the way from the tick before the newest to that, 0 to 1: what a
    /// client predicts is shown there, between the two. Without, it is shown as of whole ticks. A
    /// [`Session`](crate::Session) does this by itself.
    pub fn show_between_ticks(&mut self, part: f32) {
        self.corrections.set_part(part);
    }

    pub(crate) fn corrections(&self) -> &Corrections {
        &self.corrections
    }

    /// Compares what `own` has at `tick` with what it had when the tick ran before.
    fn note_predicted(&mut self, own: Slot, tick: Tick) {
        let world = &self.world;
        let predicted = world.resource::<NetIndex>().predicted();
        let owned = self
            .owners
            .iter(world)
            .filter(|(_, id, owner)| owner.0 == own && !id.is_predicted())
            .map(|(entity, &id, _owner)| (id, entity));
        let shown: Vec<(NetId, Entity)> = owned
            .chain(predicted)
            .map(|(id, entity)| (shown::handle_of(world, id, entity, own), entity))
            .collect();
        let kinds = &self.kinds;
        let write = |kind: u16, world: &World, own: &[(NetId, Entity)], rows: &mut KindRows| {
            if let Some(kind) = &kinds[usize::from(kind)] {
                kind.publish_some(world, own, rows);
            }
        };
        self.corrections.stepped(world, tick, &shown, write);
    }

    fn schemas(&self) -> &[KindSchema] {
        self.game.schema().kinds()
    }

    /// A registered component that an entity without a [`NetId`] has.
    pub(crate) fn stray_component(&mut self) -> Option<&str> {
        let kinds = self.kinds.iter_mut().zip(self.game.schema().kinds());
        for (kind, schema) in kinds {
            if let Some(kind) = kind
                && kind.has_strays(&mut self.world)
            {
                return Some(&schema.name);
            }
        }
        None
    }
}

impl Simulation for EcsSimulation {
    type Image = EcsImage;

    fn schema(&self) -> &Arc<Schema> {
        self.game.schema()
    }

    fn tick(&self) -> Tick {
        self.tick
    }

    fn step(&mut self, frame: &InputFrame, kind: StepKind) {
        debug_assert_eq!(frame.tick(), self.tick.next(), "ticks follow each other");
        let world = &mut self.world;
        let side = *world.resource::<Side>();
        let mut presence = world.resource_mut::<SlotPresence>();
        let present_before = presence.mask();
        // A client has no word on others' presence but the state.
        let others = side
            .predicting()
            .map_or(0, |own| present_before & !own.bit());
        let present = frame.present() | others;
        presence.set_mask(present);
        self.game
            .inner()
            .load_inputs(world, frame, present_before, present);
        if !side.is_authority() {
            let first = first_predicted_id(frame.tick());
            world.resource_mut::<NetIdAllocator>().start_at(first);
            *world.resource_mut::<TickRng>() = TickRng::predicted(self.public_seed, frame.tick());
        }
        world.resource_mut::<SpawnCounts>().reset();
        *world.resource_mut::<CurrentTick>() = CurrentTick(frame.tick());
        *world.resource_mut::<Stepping>() = Stepping(kind);
        for events in &self.game.inner().events {
            (events.begin)(world, frame.tick());
        }
        self.tick_schedule.run(world);
        if let Some(hierarchy) = &mut self.hierarchy {
            hierarchy.note(world, side.is_authority());
        }
        if side.is_authority() && world.resource::<SeenTicks>().is_used() {
            for past in &self.game.inner().rewinds {
                past.record(world, frame.tick());
            }
        }
        if let Some(own) = side.predicting() {
            self.note_predicted(own, frame.tick());
        }
        // Removal records are for systems outside of the tick, which have read them by the next
        // step; without this they would pile up.
        self.world.clear_trackers();
        self.tick = frame.tick();
    }

    fn hash(&mut self, out: &mut StateHash) {
        let schema = Arc::clone(self.game.schema());
        out.reset(schema.kinds().len());
        for (index, (kind, schema)) in self.kinds.iter_mut().zip(schema.kinds()).enumerate() {
            if let Some(kind) = kind {
                out.set(index, kind.hash(&self.world));
            } else if schema.name == ENTITY {
                let ids = self.world.resource::<NetIndex>().iter();
                out.set(index, entity_hash(ids.map(|(id, _entity)| id)));
            }
        }
    }

    fn capture(&mut self, image: &mut EcsImage) {
        image.tick = self.tick;
        image.structure = self.structure.read(&self.world, &mut image.structure);
        if image.kinds.len() != self.kinds.len() {
            image.kinds = self
                .kinds
                .iter()
                .map(|kind| kind.as_ref().map(|kind| kind.empty()))
                .collect();
        }
        for (kind, saved) in self.kinds.iter_mut().zip(&mut image.kinds) {
            if let (Some(kind), Some(saved)) = (kind, saved) {
                kind.capture(&self.world, &image.structure, &mut **saved);
            }
        }
    }

    fn restore(&mut self, image: &EcsImage) {
        let arranged = self.structure.is_current(&self.world, &image.structure)
            && pairs(&mut self.kinds, &image.kinds)
                .all(|(kind, saved)| kind.is_arranged(&self.world, &image.structure, saved));
        if arranged {
            for (kind, saved) in pairs(&mut self.kinds, &image.kinds) {
                kind.restore_in_place(&mut self.world, saved);
            }
        } else {
            self.rearrange(image);
        }
        self.align_hierarchy();
        // Values were written around change detection.
        self.published = None;
        self.tick = image.tick;
        *self.world.resource_mut::<CurrentTick>() = CurrentTick(image.tick);
    }

    fn hash_image(&self, image: &EcsImage, out: &mut StateHash) {
        let schemas = self.schemas();
        out.reset(schemas.len());
        for (index, schema) in schemas.iter().enumerate() {
            if let (Some(kind), Some(Some(saved))) = (&self.kinds[index], image.kinds.get(index)) {
                out.set(index, kind.hash_saved(&image.structure, &**saved));
            } else if schema.name == ENTITY {
                out.set(index, entity_hash(image.structure.ids().iter().copied()));
            }
        }
    }

    fn export(&self, image: &EcsImage) -> Snapshot {
        let structure = &image.structure;
        let rows = |(index, schema): (usize, &KindSchema)| match (
            &self.kinds[index],
            image.kinds.get(index),
        ) {
            (Some(kind), Some(Some(saved))) if schema.visibility.in_snapshots() => {
                kind.export(structure, &**saved)
            }
            (None, _) if schema.name == ENTITY => {
                let mut rows = KindRows::default();
                for &place in structure.order() {
                    rows.push(structure.ids()[place as usize].raw(), |_bytes| {});
                }
                rows
            }
            (Some(_) | None, _) => KindRows::default(),
        };
        Snapshot {
            tick: image.tick,
            kinds: self.schemas().iter().enumerate().map(rows).collect(),
        }
    }

    fn import(&mut self, snapshot: &Snapshot) -> Result<(), ImportError> {
        let image = self.decode(snapshot)?;
        self.take_over(&image);
        if self.side().is_authority() {
            // Who takes over states tick by tick has a past, too.
            for past in &self.game.inner().rewinds {
                past.record(&mut self.world, self.tick);
            }
        }
        Ok(())
    }

    /// Costs what has changed since the last publication, and a copy. Changes are seen by bevy's
    /// change detection: systems that write state around it
    /// (`bypass_change_detection`) write what nobody is sent.
    fn publish(&mut self, out: &mut Snapshot) {
        out.tick = self.tick;
        out.kinds.resize_with(self.kinds.len(), KindRows::default);
        let structure = self.structure.read(&self.world, &mut self.spare);
        let moment = Moment {
            world: &self.world,
            structure: &structure,
            ranks: self.ranks.of(&self.world, &structure),
            since: self.published,
            now: self.world.read_change_tick(),
        };
        let schemas = self.game.schema().kinds();
        let kinds = self.kinds.iter_mut().zip(schemas).zip(&mut out.kinds);
        for ((kind, schema), rows) in kinds {
            match kind {
                Some(kind) if schema.visibility == Visibility::Client => {
                    kind.publish(&moment, rows);
                }
                None if schema.name == ENTITY => {
                    rows.clear();
                    let ids = self.world.resource::<NetIndex>().iter();
                    rows.ids.extend(ids.map(|(id, _entity)| id.raw()));
                    rows.ends.resize(rows.ids.len(), 0);
                }
                Some(_) | None => rows.clear(),
            }
        }
        // Changes from here on have a later tick.
        self.published = Some(self.world.increment_change_tick());
    }

    /// Values of kinds that clients do not see stay as they are on entities that stay. Entities
    /// that this client spawned in advance go: what of them is still to come is predicted again.
    fn patch(&mut self, patch: &Patch) -> Result<(), ImportError> {
        let schema = self.game.schema();
        let kinds = &mut self.kinds;
        self.patcher.read(&self.world, patch, schema, kinds)?;
        self.patcher.apply(&mut self.world, patch, schema, kinds);
        if patch.is_whole {
            self.corrections.clear();
        }
        self.tick = patch.tick;
        *self.world.resource_mut::<CurrentTick>() = CurrentTick(patch.tick);
        self.align_hierarchy();
        self.derive_schedule.run(&mut self.world);
        Ok(())
    }

    /// Costs what the patch has. No entity goes.
    fn overwrite(&mut self, patch: &Patch) -> Result<(), ImportError> {
        let schema = self.game.schema();
        let kinds = &mut self.kinds;
        self.patcher.read(&self.world, patch, schema, kinds)?;
        self.patcher.write(&mut self.world, patch, schema, kinds);
        self.align_hierarchy();
        self.derive_schedule.run(&mut self.world);
        Ok(())
    }

    /// Costs what the slot decides.
    fn publish_decided(&mut self, slot: Slot, out: &mut Snapshot) {
        let mut decided: Vec<(NetId, Entity)> = self
            .deciders
            .iter(&self.world)
            .filter(|(_, id, authority)| authority.0 == slot && !id.is_predicted())
            .map(|(entity, &id, _authority)| (id, entity))
            .collect();
        decided.sort_unstable();
        self.publish_entities(&decided, out);
    }

    /// The game's rules see the claim before it is taken over:
    /// [`GameBuilder::validate_claims`](crate::GameBuilder::validate_claims).
    fn claim(&mut self, slot: Slot, id: RawNetId, patch: &Patch) -> Result<(), ClaimRefused> {
        let id = NetId::from(id);
        let game = self.game.inner();
        let entity = self.world.resource::<NetIndex>().get(id);
        let is_own = entity
            .and_then(|entity| self.world.get::<Authority>(entity))
            .is_some_and(|authority| authority.0 == slot);
        let claim = ClaimedValues::new(slot, id, self.game.schema(), patch);
        let passes = |rule: &ClaimRule| rule(&self.world, &claim);
        if !is_own || !game.claim_rules.iter().all(passes) {
            return Err(ClaimRefused);
        }
        self.overwrite(patch).map_err(|_unfit| ClaimRefused)
    }

    /// Costs what the slot has. Entities that this client spawned in advance are not among them:
    /// the authority does not know them.
    fn publish_owned(&mut self, slot: Slot, out: &mut Snapshot) {
        let mut owned: Vec<(NetId, Entity)> = self
            .owners
            .iter(&self.world)
            .filter(|(_, id, owner)| owner.0 == slot && !id.is_predicted())
            .map(|(entity, &id, _owner)| (id, entity))
            .collect();
        owned.sort_unstable();
        self.publish_entities(&owned, out);
    }

    /// Entities that this client spawned in advance stay until a state is taken over: no host knows
    /// them.
    fn become_authority(&mut self) {
        self.set_side(Side::Authority);
    }

    /// What this simulation told nobody, since nobody looked at it, is not told now.
    fn succeed(&mut self, before: &mut Self) {
        for events in &self.game.inner().events {
            (events.succeed)(&mut self.world, &mut before.world);
        }
    }

    fn begin_term(&mut self, term: Term) {
        let mut ids = self.world.resource_mut::<NetIdAllocator>();
        ids.begin_term(term);
    }

    /// [`Rewind`](crate::Rewind) goes back as far.
    fn seen(&mut self, slot: Slot, behind_ticks: u32) {
        let mut seen = self.world.resource_mut::<SeenTicks>();
        seen.set(slot, behind_ticks);
    }
}

impl EcsSimulation {
    /// Links children to their parents as the state says.
    fn align_hierarchy(&mut self) {
        if let Some(hierarchy) = &mut self.hierarchy {
            hierarchy.align(&mut self.world);
        }
    }

    /// Writes what clients may see of `entities`, which go by id ascending.
    fn publish_entities(&self, entities: &[(NetId, Entity)], out: &mut Snapshot) {
        out.tick = self.tick;
        out.kinds.resize_with(self.kinds.len(), KindRows::default);
        let schemas = self.game.schema().kinds();
        let kinds = self.kinds.iter().zip(schemas).zip(&mut out.kinds);
        for ((kind, schema), rows) in kinds {
            rows.clear();
            if schema.visibility != Visibility::Client {
                continue;
            }
            match kind {
                Some(kind) => kind.publish_some(&self.world, entities, rows),
                None => entities
                    .iter()
                    .for_each(|(id, _entity)| rows.push(id.raw(), |_bytes| {})),
            }
        }
    }
}

fn entity_hash(ids: impl Iterator<Item = NetId>) -> u64 {
    let value = ValueHasher::new(kind_salt(ENTITY)).finish();
    let mut hasher = KindHasher::default();
    ids.for_each(|id| hasher.row(id.raw(), value));
    hasher.finish()
}
