//! A session inside of a Bevy app.
//!
//! [`SessionPlugin`] runs a session in the app's `PreUpdate` and mirrors what is shown into the
//! app's world: one entity per shown entity, with its [`NetId`] and the components that the game
//! asked for. The same systems draw a host, a client, a listen server and a lockstep peer.
//!
//! The state itself lives in a world of its own, which only the tick changes. The app's entities
//! are copies: changing them changes nothing.
//!
//! ```
//! use bevy_app::App;
//! use phalanx::app::{PlayerInput, SessionPlugin};
//! use phalanx::netcode::link::memory::MemoryHub;
//! use phalanx::netcode::session::config::{HostConfig, Mode};
//! use phalanx::prelude::*;
//!
//! #[derive(Component, Networked, Clone, Copy, Debug)]
//! struct Position(Vec2);
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let game = Game::builder("example")
//!     .component::<Position>()
//!     .input::<u8>()
//!     .setup(|world, _setup| {
//!         world.spawn_networked(Position(Vec2::ONE));
//!     })
//!     .build()?;
//! # let link = MemoryHub::new().link();
//! let config = HostConfig::new(game.info_for("1.0", Mode::StateSync), 2);
//! let plugin = SessionPlugin::<_, u8>::host(&game, config, link)?.show::<Position>();
//!
//! let mut app = App::new();
//! app.add_plugins(plugin);
//! app.world_mut().resource_mut::<PlayerInput<u8>>().0 = 7;
//! app.update();
//! # Ok(())
//! # }
//! ```

use core::fmt;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bevy_app::{App, Plugin, PreUpdate};
use bevy_ecs::component::{Component, Mutable};
use bevy_ecs::entity::Entity;
use bevy_ecs::message::Message;
use bevy_ecs::resource::Resource;
use bevy_ecs::schedule::IntoScheduleConfigs;
use bevy_ecs::world::{Mut, World};
use phalanx_netcode::id::Path;
use phalanx_netcode::link::Link;
use phalanx_netcode::node::Event;
use phalanx_netcode::session::config::{HostConfig, JoinConfig};
use phalanx_netcode::state::{Exact, Networked};
use phalanx_netcode::tick::Tick;

use crate::net_id::{NetId, NetIndex};
use crate::{Game, Session, SessionError, TickEvents};

/// Runs a session in an app; see the [module](self).
pub struct SessionPlugin<L, I> {
    /// Taken when the plugin is built.
    session: Mutex<Option<Session<L>>>,
    hand: Hand<I>,
    mirrors: Vec<fn(&mut World)>,
    messages: Vec<fn(&mut App)>,
}

/// The local player's input, between the app and the session's closure.
type Hand<I> = Arc<Mutex<I>>;

/// The local player's input. The app's systems set it; the session takes it as it stands whenever
/// it samples a tick.
#[derive(Resource, Clone, Copy, Debug, Default)]
pub struct PlayerInput<I: Send + Sync + 'static>(pub I);

/// Something that happened in the session.
#[derive(Message, Clone, Debug)]
pub struct SessionEvent(pub Event);

/// Something that happened in the game, told once; see [`TickEvents`].
#[derive(Message, Clone, Debug)]
pub struct GameEvent<T: Send + Sync + 'static> {
    /// The tick in which it happened.
    pub tick: Tick,
    /// What happened.
    pub event: T,
}

/// The session that runs in this app.
#[derive(Resource)]
pub struct RunningSession<L: Send + 'static> {
    session: Mutex<Session<L>>,
    is_over: bool,
    /// The app's entities, by the ids under which they are shown.
    mirrored: BTreeMap<NetId, Entity>,
}

impl<L: Link + Send + 'static> RunningSession<L> {
    /// The session: statistics, messages, leaving.
    pub fn session(&mut self) -> &mut Session<L> {
        let session = self.session.get_mut();
        session.unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the session has ended for this node.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// The app's entity that shows `id`.
    #[must_use]
    pub fn entity(&self, handle: NetId) -> Option<Entity> {
        self.mirrored.get(&handle).copied()
    }
}

impl<L: Send> fmt::Debug for RunningSession<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunningSession")
            .field("is_over", &self.is_over)
            .finish_non_exhaustive()
    }
}

impl<L, I> fmt::Debug for SessionPlugin<L, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionPlugin").finish_non_exhaustive()
    }
}

impl<L, I> SessionPlugin<L, I>
where
    L: Link + Send + 'static,
    I: Exact + Clone + Default + Send + Sync + 'static,
{
    /// Hosts a session over `link`: a dedicated host, or a listen server if the settings give this
    /// node a slot.
    ///
    /// # Errors
    /// As [`Session::host`].
    pub fn host(game: &Game, config: HostConfig, link: L) -> Result<Self, SessionError> {
        let hand = Hand::<I>::default();
        let held = Arc::clone(&hand);
        let session = Session::host(game, config, link, move |_tick, _world: &World| {
            in_hand(&held)
        })?;
        Ok(Self::new(session, hand))
    }

    /// Joins the host behind `path`, which `link` has connected to.
    ///
    /// # Errors
    /// As [`Session::join`].
    pub fn join(
        game: &Game,
        config: JoinConfig,
        link: L,
        path: Path,
    ) -> Result<Self, SessionError> {
        let hand = Hand::<I>::default();
        let held = Arc::clone(&hand);
        let input = move |_tick, _world: &World| in_hand(&held);
        let session = Session::join(game, config, link, path, input)?;
        Ok(Self::new(session, hand))
    }

    fn new(session: Session<L>, hand: Hand<I>) -> Self {
        Self {
            session: Mutex::new(Some(session)),
            hand,
            mirrors: Vec::new(),
            messages: Vec::new(),
        }
    }

    /// Mirrors `T` into the app's entities. It is written only where it differs in its exact form,
    /// so that the app's change detection works.
    #[must_use]
    pub fn show<T>(mut self) -> Self
    where
        T: Component<Mutability = Mutable> + Networked + Clone,
    {
        self.mirrors.push(mirror::<L, T>);
        self
    }

    /// Forwards the game's events of type `T` as [`GameEvent`] messages.
    #[must_use]
    pub fn event<T: Clone + PartialEq + Send + Sync + 'static>(mut self) -> Self {
        self.messages.push(|app| {
            app.add_message::<GameEvent<T>>();
        });
        self.mirrors.push(forward::<L, T>);
        self
    }
}

impl<L, I> Plugin for SessionPlugin<L, I>
where
    L: Link + Send + 'static,
    I: Exact + Clone + Default + Send + Sync + 'static,
{
    fn build(&self, app: &mut App) {
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(session) = session.take() else {
            return;
        };
        app.init_resource::<NetIndex>()
            .init_resource::<PlayerInput<I>>()
            .add_message::<SessionEvent>()
            .insert_resource(RunningSession {
                session: Mutex::new(session),
                is_over: false,
                mirrored: BTreeMap::new(),
            });
        self.messages.iter().for_each(|add| add(app));
        let hand = Arc::clone(&self.hand);
        let mirrors = self.mirrors.clone();
        let update = move |world: &mut World| {
            let input = world.resource::<PlayerInput<I>>().0.clone();
            *hand.lock().unwrap_or_else(PoisonError::into_inner) = input;
            world.resource_scope(|world, mut running: Mut<'_, RunningSession<L>>| {
                running.update(world);
            });
            mirrors.iter().for_each(|mirror| mirror(world));
        };
        app.add_systems(PreUpdate, update.in_set(SessionSystems));
    }

    fn is_unique(&self) -> bool {
        true
    }
}

/// The systems in `PreUpdate` that run the session and mirror what is shown.
#[derive(bevy_ecs::schedule::SystemSet, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionSystems;

fn in_hand<I: Clone>(hand: &Mutex<I>) -> I {
    hand.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

impl<L: Link + Send + 'static> RunningSession<L> {
    /// Runs the session and gives every shown entity one of the app.
    fn update(&mut self, world: &mut World) {
        if self.is_over {
            return;
        }
        self.is_over = !self.session().update();
        while let Some(event) = self.session().poll_event() {
            world.write_message(SessionEvent(event));
        }
        let mut gone = core::mem::take(&mut self.mirrored);
        let mut mirrored = BTreeMap::new();
        if let Some(shown) = self.session().shown() {
            for id in shown.ids() {
                let handle = shown.handle(id);
                let entity = gone.remove(&handle);
                let entity = entity.filter(|&entity| world.get_entity(entity).is_ok());
                let entity = match entity {
                    Some(entity) => entity,
                    None => world.spawn_empty().id(),
                };
                if world.get::<NetId>(entity) != Some(&id) {
                    world.entity_mut(entity).insert(id);
                }
                mirrored.insert(handle, entity);
            }
        }
        for entity in gone.into_values() {
            // The app may have despawned it by itself.
            let _was_there = world.despawn(entity);
        }
        self.mirrored = mirrored;
    }
}

/// Brings the app's entities to what is shown of `T`.
fn mirror<L, T>(world: &mut World)
where
    L: Link + Send + 'static,
    T: Component<Mutability = Mutable> + Networked + Clone,
{
    let mut bytes = (Vec::new(), Vec::new());
    world.resource_scope(|world, mut running: Mut<'_, RunningSession<L>>| {
        let running = &mut *running;
        let session = running.session.get_mut();
        let session = session.unwrap_or_else(PoisonError::into_inner);
        let Some(shown) = session.shown() else { return };
        for &entity in running.mirrored.values() {
            let Ok(mut entity) = world.get_entity_mut(entity) else {
                continue;
            };
            let value = entity.get::<NetId>().and_then(|&id| shown.get::<T>(id));
            match (value, entity.get_mut::<T>()) {
                (Some(value), Some(mut there)) => {
                    bytes.0.clear();
                    bytes.1.clear();
                    value.write_exact(&mut bytes.0);
                    there.write_exact(&mut bytes.1);
                    if bytes.0 != bytes.1 {
                        *there = value;
                    }
                }
                (Some(value), None) => drop(entity.insert(value)),
                (None, Some(_)) => drop(entity.remove::<T>()),
                (None, None) => {}
            }
        }
    });
}

/// Tells the app of the game's events.
fn forward<L, T>(world: &mut World)
where
    L: Link + Send + 'static,
    T: Clone + PartialEq + Send + Sync + 'static,
{
    let mut running = world.resource_mut::<RunningSession<L>>();
    let Some(simulation) = running.session().simulation_mut() else {
        return;
    };
    let Some(mut events) = simulation.world_mut().get_resource_mut::<TickEvents<T>>() else {
        return;
    };
    let happened: Vec<(Tick, T)> = events.drain().collect();
    for (tick, event) in happened {
        world.write_message(GameEvent { tick, event });
    }
}

/// Ends a borrow that an expression gives and nobody needs.
fn drop<T>(_value: T) {}
