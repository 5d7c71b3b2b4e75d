//! What a game consists of, registered once and used in every mode.

use core::any::{TypeId, type_name};
use core::fmt;
use std::sync::Arc;

use bevy_ecs::component::{Component, Mutable};
use bevy_ecs::resource::Resource;
use bevy_ecs::schedule::IntoScheduleConfigs;
use bevy_ecs::system::ScheduleSystem;
use bevy_ecs::world::World;
use phalanx_netcode::hash::public_seed;
use phalanx_netcode::input::InputFrame;
use phalanx_netcode::limits::{INPUT_BYTES_MAX, NAME_BYTES_MAX};
use phalanx_netcode::node::SessionInfo;
use phalanx_netcode::state::{Exact, KindSchema, Networked, Schema, SchemaError, Visibility};
use phalanx_netcode::tick::TickRate;

use crate::claims::ClaimedValues;
use crate::events::EventSource;
use crate::hierarchy::Parent;
use crate::input::{self, Inputs, SlotPresence};
use crate::net_id::NetIdAllocator;
use crate::rewind::RewindSource;
use crate::rng::TickRng;
use crate::schedule::{self, DeriveSchedule, SystemSource, TickSchedule};
use crate::side::{Authority, Owner};
use crate::simulation::{EcsSimulation, KindSource};
use crate::spawn::SpawnKey;

/// Prefix of the kinds that the engine registers itself.
pub(crate) const RESERVED_PREFIX: &str = "phalanx.";

/// A game: its state, its input and its rules. Cheap to clone; every clone is the same game.
#[derive(Clone)]
pub struct Game {
    inner: Arc<GameInner>,
}

pub(crate) struct GameInner {
    id: String,
    tick_rate: TickRate,
    pub(crate) schema: Arc<Schema>,
    /// By the schema's order.
    pub(crate) kinds: Vec<KindSource>,
    input: InputType,
    input_bytes: u8,
    pub(crate) tick_systems: Vec<SystemSource>,
    pub(crate) derive_systems: Vec<SystemSource>,
    pub(crate) setups: Vec<Setup>,
    pub(crate) claim_rules: Vec<ClaimRule>,
    pub(crate) events: Vec<EventSource>,
    pub(crate) rewinds: Vec<RewindSource>,
    pub(crate) has_hierarchy: bool,
}

type Setup = Box<dyn Fn(&mut World, &SessionSetup) + Send + Sync>;

/// Whether a client may say this of an entity that it decides.
pub(crate) type ClaimRule = Box<dyn Fn(&World, &ClaimedValues<'_>) -> bool + Send + Sync>;

/// The input type, with its name erased.
struct InputType {
    type_id: TypeId,
    name: &'static str,
    bytes_max: Option<usize>,
    neutral: fn(usize) -> Vec<u8>,
    load: fn(&mut World, &InputFrame, u64, u64),
}

impl InputType {
    fn of<T: Exact + Default + Send + Sync + 'static>() -> Self {
        Self {
            type_id: TypeId::of::<T>(),
            name: type_name::<T>(),
            bytes_max: input::bytes_max(&T::exact_type()),
            neutral: |size| input::encode(&T::default(), size),
            load: |world, frame, present_before, present| {
                world
                    .get_resource_or_init::<Inputs<T>>()
                    .load(frame, present_before, present);
            },
        }
    }
}

/// What a session fixes before its first tick. The initial state follows from it alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionSetup {
    /// The one number on which the run depends. A client of state-sync gets `public_seed` for it:
    /// what setup makes of it there is replaced by what the host tells, and what the host does not
    /// tell cannot be foreseen.
    pub seed: u64,
    /// A number that all nodes of a session have in common, in both modes: for what every node
    /// makes by itself and nobody tells, as a landscape. It follows from the host's seed.
    pub public_seed: u64,
    /// Number of slots, `0..slots`, present or not.
    pub slots: u8,
}

impl From<&SessionInfo> for SessionSetup {
    fn from(session: &SessionInfo) -> Self {
        Self {
            seed: session.seed,
            public_seed: session.public_seed,
            slots: session.slots,
        }
    }
}

/// Why a game cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GameError {
    /// The game's id is empty or longer than [`NAME_BYTES_MAX`] bytes.
    #[error("the game's id \"{0}\" must have 1 to {NAME_BYTES_MAX} bytes")]
    BadId(String),
    /// The kinds do not make a schema.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// A name of the game starts like the engine's own.
    #[error(
        "\"{0}\" is reserved: names that start with \"{RESERVED_PREFIX}\" belong to the engine"
    )]
    ReservedName(String),
    /// Two input types were registered.
    #[error("the game has the input types `{first}` and `{second}`; one struct or enum holds them")]
    TwoInputs {
        /// Registered first.
        first: &'static str,
        /// Registered second.
        second: &'static str,
    },
    /// An input may be longer than a datagram has room for.
    #[error("the input `{input}` has {bytes} bytes, at most {INPUT_BYTES_MAX} fit")]
    InputTooLarge {
        /// The type.
        input: &'static str,
        /// Bytes of its longest value.
        bytes: usize,
    },
    /// An input has lists or texts, so its length has no limit.
    #[error("the input `{0}` has no largest size: lists and texts go in messages")]
    InputUnbounded(&'static str),
    /// Two systems touch the same data, and nothing says which one runs first.
    #[error(
        "systems `{first}` and `{second}` are not ordered but both use {data}: order them with `.after`, `.before` or `.chain`"
    )]
    Ambiguous {
        /// One system.
        first: String,
        /// The other.
        second: String,
        /// Components and resources that both touch; empty if one uses the whole world.
        data: String,
    },
    /// A system keeps memory that a rollback cannot take back.
    #[error(
        "a system of the tick uses `{parameter}`, whose memory lies outside of the state; keep it in a registered component or resource"
    )]
    MemoryOutsideState {
        /// The parameter or filter.
        parameter: &'static str,
    },
    /// A system uses events or a past that the game does not keep.
    #[error("a system uses `{0}`: register it with `event` or `rewindable`")]
    NotRegistered(String),
    /// There are `Derived` kinds and nothing that computes them after a join.
    #[error("\"{0}\" is Derived, but the game has no `derive_systems` to compute it")]
    NothingDerives(String),
    /// The systems cannot be brought into an order.
    #[error("{0}")]
    Schedule(String),
}

impl Game {
    /// Starts the registration of a game. Nodes whose `id` differs refuse each other.
    pub fn builder(id: &str) -> GameBuilder {
        GameBuilder {
            id: id.to_owned(),
            tick_rate: TickRate::DEFAULT,
            kinds: Vec::new(),
            input: None,
            tick_systems: Vec::new(),
            derive_systems: Vec::new(),
            setups: Vec::new(),
            claim_rules: Vec::new(),
            events: Vec::new(),
            rewinds: Vec::new(),
            has_hierarchy: false,
            error: None,
        }
    }

    /// The game's id, for the handshake.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.inner.id
    }

    /// Ticks per second that the rules are made for.
    #[must_use]
    pub fn tick_rate(&self) -> TickRate {
        self.inner.tick_rate
    }

    /// What the state consists of.
    #[must_use]
    pub fn schema(&self) -> &Arc<Schema> {
        &self.inner.schema
    }

    /// Bytes of one slot's input for one tick.
    #[must_use]
    pub fn input_bytes(&self) -> u8 {
        self.inner.input_bytes
    }

    /// The bytes of the default input.
    #[must_use]
    pub fn neutral_input(&self) -> Vec<u8> {
        (self.inner.input.neutral)(usize::from(self.input_bytes()))
    }

    /// Whether `T` is the game's input type; if not, its name.
    pub(crate) fn check_input<T: 'static>(&self) -> Result<(), &'static str> {
        if TypeId::of::<T>() == self.inner.input.type_id {
            Ok(())
        } else {
            Err(self.inner.input.name)
        }
    }

    /// The bytes of `input`, as they stand in input frames: [`Game::input_bytes`] of them.
    ///
    /// # Panics
    /// If `T` is not the game's input type.
    #[must_use]
    pub fn encode_input<T: Exact + 'static>(&self, input: &T) -> Vec<u8> {
        assert!(
            TypeId::of::<T>() == self.inner.input.type_id,
            "the game's input is `{}`, not `{}`",
            self.inner.input.name,
            type_name::<T>()
        );
        input::encode(input, usize::from(self.input_bytes()))
    }

    /// A simulation at tick 0 of a session with this seed and number of slots, as its host has it.
    /// A node of a session makes it by [`Game::simulation_of`].
    ///
    /// # Panics
    /// If `slots` exceeds [`SLOTS_MAX`](phalanx_netcode::limits::SLOTS_MAX).
    #[must_use]
    pub fn simulation(&self, seed: u64, slots: u8) -> EcsSimulation {
        self.simulation_of(SessionSetup {
            seed,
            public_seed: public_seed(seed),
            slots,
        })
    }

    /// A simulation at tick 0 of `session`, as [`Player::begin`] has to give it.
    ///
    /// [`Player::begin`]: phalanx_netcode::driver::Player::begin
    ///
    /// # Panics
    /// If there are more than [`SLOTS_MAX`](phalanx_netcode::limits::SLOTS_MAX) slots.
    #[must_use]
    pub fn simulation_of(&self, session: impl Into<SessionSetup>) -> EcsSimulation {
        EcsSimulation::new(self, session.into())
    }

    /// Whether clients may decide entities by the game's word.
    pub(crate) fn has_claim_rules(&self) -> bool {
        !self.inner.claim_rules.is_empty()
    }

    pub(crate) fn inner(&self) -> &GameInner {
        &self.inner
    }
}

impl GameInner {
    /// Hands a tick's inputs to the systems; `present` are the slots that take part.
    pub(crate) fn load_inputs(
        &self,
        world: &mut World,
        frame: &InputFrame,
        present_before: u64,
        present: u64,
    ) {
        (self.input.load)(world, frame, present_before, present);
    }
}

impl fmt::Debug for Game {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Game")
            .field("id", &self.inner.id)
            .field("tick_rate", &self.inner.tick_rate)
            .field("kinds", &self.inner.kinds.len())
            .finish_non_exhaustive()
    }
}

/// Collects a game's parts; see [`Game::builder`].
#[must_use]
pub struct GameBuilder {
    id: String,
    tick_rate: TickRate,
    kinds: Vec<KindSource>,
    input: Option<InputType>,
    tick_systems: Vec<SystemSource>,
    derive_systems: Vec<SystemSource>,
    setups: Vec<Setup>,
    claim_rules: Vec<ClaimRule>,
    events: Vec<EventSource>,
    rewinds: Vec<RewindSource>,
    has_hierarchy: bool,
    /// The first mistake; `build` returns it.
    error: Option<GameError>,
}

impl fmt::Debug for GameBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GameBuilder")
            .field("id", &self.id)
            .field("kinds", &self.kinds.len())
            .finish_non_exhaustive()
    }
}

impl GameBuilder {
    /// Sets the ticks per second that the rules are made for; 60 otherwise.
    pub fn tick_rate(mut self, rate: TickRate) -> Self {
        self.tick_rate = rate;
        self
    }

    /// Makes a component a part of the state, on entities that have a [`NetId`](crate::NetId).
    ///
    /// Any storage works; `SparseSet` is slower to save. A restore writes values in place where
    /// it can, without change detection or hooks, and else inserts and removes the component, with
    /// its hooks. So hooks and observers of registered components may not spawn or despawn
    /// networked entities, and may not insert or remove registered components; values that they
    /// set in the state during a restore are overwritten.
    pub fn component<T>(mut self) -> Self
    where
        T: Component<Mutability = Mutable> + Networked + Clone,
    {
        self.check_name(T::NAME);
        self.kinds.push(KindSource::component::<T>());
        self
    }

    /// Makes a resource a part of the state. Whether it exists is state too.
    pub fn resource<T>(mut self) -> Self
    where
        T: Resource<Mutability = Mutable> + Networked + Clone,
    {
        self.check_name(T::NAME);
        self.kinds.push(KindSource::resource::<T>());
        self
    }

    /// Sets the type of an input. Systems read it from [`Inputs<T>`]. Its largest value has at
    /// most [`INPUT_BYTES_MAX`] bytes; shorter ones are filled up with zeros.
    pub fn input<T: Exact + Default + Send + Sync + 'static>(mut self) -> Self {
        let second = InputType::of::<T>();
        if let Some(first) = &self.input {
            self.error.get_or_insert(GameError::TwoInputs {
                first: first.name,
                second: second.name,
            });
        }
        self.input = Some(second);
        self
    }

    /// Adds systems to the tick. The closure returns them as `add_systems` of a schedule takes
    /// them, `|| (steer, fight.after(steer), die.after(fight))`; it runs once per simulation.
    ///
    /// Systems that touch the same data must be ordered.
    pub fn systems<M, C, F>(mut self, systems: F) -> Self
    where
        C: IntoScheduleConfigs<ScheduleSystem, M>,
        F: Fn() -> C + Send + Sync + 'static,
    {
        self.tick_systems.push(SystemSource::new(systems));
        self
    }

    /// Adds systems that compute [`Visibility::Derived`] kinds. They run once after the setup and
    /// once after a snapshot of another node was taken over. In ticks they run only if they are
    /// among [`GameBuilder::systems`] too.
    pub fn derive_systems<M, C, F>(mut self, systems: F) -> Self
    where
        C: IntoScheduleConfigs<ScheduleSystem, M>,
        F: Fn() -> C + Send + Sync + 'static,
    {
        self.derive_systems.push(SystemSource::new(systems));
        self
    }

    /// Lets systems of the tick tell presentation of events, each once: see
    /// [`TickEvents`](crate::TickEvents).
    pub fn event<T: Clone + PartialEq + Send + Sync + 'static>(mut self) -> Self {
        self.events.push(EventSource::of::<T>());
        self
    }

    /// Lets systems read `T` as a player saw it, up to `ticks_max` ticks back: see
    /// [`Rewind`](crate::Rewind). The host of a state-sync session keeps that many copies of all
    /// its values, at most 256.
    pub fn rewindable<T: Component + Clone>(mut self, ticks_max: u32) -> Self {
        self.rewinds.push(RewindSource::of::<T>(ticks_max.min(256)));
        self
    }

    /// Makes bevy's hierarchy a part of the state: [`ChildOf`] between two entities that have a
    /// [`NetId`](crate::NetId), as a turret is of its tank. It travels, is restored and hashed as
    /// the kind `phalanx.parent`, as it stands at the end of a tick. [`Children`] go by id from
    /// then on, those without an id last. Links to or from entities without an id stay presentation.
    ///
    /// A client that holds the child and not (yet) the parent, for example since that is out of its
    /// view, has the child without `ChildOf`; the link comes and goes with the parent. Nothing is
    /// linked that has more than 64 ancestors.
    ///
    /// [`ChildOf`]: bevy_ecs::hierarchy::ChildOf
    /// [`Children`]: bevy_ecs::hierarchy::Children
    pub fn hierarchy(mut self) -> Self {
        self.has_hierarchy = true;
        self
    }

    /// Adds a function that makes the initial state: entities by
    /// [`SpawnNetworked`](crate::SpawnNetworked), resources by `World::insert_resource`. It must
    /// depend on its arguments alone; random numbers come from the world's
    /// [`TickRng`]. Several run in the order in which they were added. Entities may also be spawned
    /// with a [`NetId`](crate::NetId) of the game's choice, for example from a level file; the
    /// counter goes on above the largest.
    ///
    /// It also runs on nodes that join later, before they take over the host's state.
    pub fn setup(
        mut self,
        setup: impl Fn(&mut World, &SessionSetup) + Send + Sync + 'static,
    ) -> Self {
        self.setups.push(Box::new(setup));
        self
    }

    /// Adds a rule for what clients say of entities that they decide ([`Authority`]). The host
    /// asks it between two ticks, with the world as it is before; where it says no, the claim is
    /// ignored, counted and reported. Without rules every value passes that the schema allows.
    ///
    /// [`Session::join`](crate::Session::join) then takes no player's client that predicts nothing: it
    /// would run no tick, and decide nothing.
    pub fn validate_claims(
        mut self,
        rule: impl Fn(&World, &ClaimedValues<'_>) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.claim_rules.push(Box::new(rule));
        self
    }

    /// Checks the parts and puts them together.
    ///
    /// # Errors
    /// Names what is wrong: a name that repeats, an input that is too large, two systems that
    /// conflict without being ordered, memory outside of the state.
    pub fn build(mut self) -> Result<Game, GameError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        if self.id.is_empty() || self.id.len() > NAME_BYTES_MAX {
            return Err(GameError::BadId(self.id));
        }
        let input = self.input.unwrap_or_else(InputType::of::<()>);
        let Some(bytes) = input.bytes_max else {
            return Err(GameError::InputUnbounded(input.name));
        };
        let input_bytes = match u8::try_from(bytes) {
            Ok(small) if bytes <= INPUT_BYTES_MAX => small,
            Ok(_) | Err(_) => {
                return Err(GameError::InputTooLarge {
                    input: input.name,
                    bytes,
                });
            }
        };
        self.kinds.extend([
            KindSource::entity(),
            KindSource::disabled(),
            KindSource::resource::<NetIdAllocator>(),
            KindSource::resource::<SlotPresence>(),
            KindSource::resource::<TickRng>(),
            KindSource::component::<Owner>(),
            KindSource::component::<Authority>(),
            KindSource::component::<SpawnKey>(),
        ]);
        if self.has_hierarchy {
            self.kinds.push(KindSource::component::<Parent>());
        }
        self.kinds.sort_by(|a, b| a.schema.name.cmp(&b.schema.name));
        let schemas: Vec<KindSchema> = self.kinds.iter().map(|kind| kind.schema.clone()).collect();
        let derived = schemas
            .iter()
            .find(|kind| kind.visibility == Visibility::Derived);
        if let Some(kind) = derived
            && self.derive_systems.is_empty()
        {
            return Err(GameError::NothingDerives(kind.name.clone()));
        }
        let schema = Arc::new(Schema::new(schemas)?);
        let inner = GameInner {
            id: self.id,
            tick_rate: self.tick_rate,
            schema,
            kinds: self.kinds,
            input,
            input_bytes,
            tick_systems: self.tick_systems,
            derive_systems: self.derive_systems,
            setups: self.setups,
            claim_rules: self.claim_rules,
            events: self.events,
            rewinds: self.rewinds,
            has_hierarchy: self.has_hierarchy,
        };
        // The schedules of simulations are built from the same sources; what passes here passes
        // there.
        let mut world = World::new();
        schedule::build(TickSchedule, &inner.tick_systems, &mut world)?;
        schedule::build(DeriveSchedule, &inner.derive_systems, &mut world)?;
        if schedule::uses_messages(&world) {
            return Err(GameError::MemoryOutsideState {
                parameter: "messages",
            });
        }
        let events = inner.events.iter().map(|source| source.resource);
        let rewinds = inner.rewinds.iter().map(|source| source.resource);
        let known: Vec<&str> = events.chain(rewinds).collect();
        if let Some(missing) = schedule::unregistered(&world, &known) {
            return Err(GameError::NotRegistered(missing));
        }
        Ok(Game {
            inner: Arc::new(inner),
        })
    }

    fn check_name(&mut self, name: &str) {
        if name.starts_with(RESERVED_PREFIX) {
            self.error
                .get_or_insert(GameError::ReservedName(name.to_owned()));
        }
    }
}
