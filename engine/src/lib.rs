//! Phalanx keeps a multiplayer game's state the same on every machine, in real time.
//!
//! A game writes its rules once: registered components and resources, a typed input, and systems
//! of plain [`bevy_ecs`]. [`Game`] collects them; [`EcsSimulation`] runs them, one tick at a time,
//! and can save, restore, hash, export and import its state. Lockstep, rollback, late join,
//! replay and desync reports all build on that.
//!
//! ```
//! use phalanx::prelude::*;
//!
//! #[derive(Component, Networked, Clone, Copy, Debug, PartialEq)]
//! struct Position(Vec2);
//!
//! #[derive(Component, Networked, Clone, Copy, Debug)]
//! struct Hero(Slot);
//!
//! #[derive(Exact, Clone, Copy, Debug, Default)]
//! struct Stick {
//!     x: i8,
//!     y: i8,
//! }
//!
//! fn steer(sticks: Res<Inputs<Stick>>, mut heroes: Query<(&Hero, &mut Position)>) {
//!     for (hero, mut position) in &mut heroes {
//!         if let Some(stick) = sticks.get(hero.0) {
//!             position.0 += Vec2::new(f32::from(stick.x), f32::from(stick.y)) / 127.0;
//!         }
//!     }
//! }
//!
//! # fn main() -> Result<(), GameError> {
//! let game = Game::builder("example")
//!     .component::<Position>()
//!     .component::<Hero>()
//!     .input::<Stick>()
//!     .systems(|| steer)
//!     .setup(|world, setup| {
//!         for slot in 0..setup.slots {
//!             world.spawn_networked((Hero(Slot(slot)), Position(Vec2::ZERO)));
//!         }
//!     })
//!     .build()?;
//!
//! let mut simulation = game.simulation(7, 2);
//! let mut frame = InputFrame::empty(Tick::new(1), 2, game.input_bytes());
//! frame.set(Slot(0), &game.encode_input(&Stick { x: 127, y: 0 }));
//! simulation.step(&frame, StepKind::First);
//! assert_eq!(simulation.tick(), Tick::new(1));
//! # Ok(())
//! # }
//! ```
//!
//! A game also depends on `bevy_ecs` 0.20, the version that [`bevy_ecs`] is here: its derives
//! name that crate.
//!
//! # Rules of a deterministic game
//! The next state may depend on the state and the inputs, on nothing else:
//! - State is what is registered, on entities with a [`NetId`]. Entities without one, and types
//!   that are not registered, are presentation: systems of the tick must not read them.
//! - References to entities are [`NetId`]s, never [`Entity`](bevy_ecs::entity::Entity).
//! - The order of rows in a plain `Query` is history, not state. Where the result depends on the
//!   order (spawning, random numbers, float sums, "first come"), iterate through [`Ordered`].
//! - Random numbers come from [`TickRng`], sine and its like from [`math`].
//! - No `Local`, `Changed`, `Added`, `RemovedComponents` or message readers in systems of the
//!   tick: their memory lives in the system, and a restore cannot reach it.
//! - Entity hierarchies (`ChildOf`, `Children`) are state where the game says so:
//!   [`GameBuilder::hierarchy`]. Otherwise their order is history, and nobody else knows of them.
//!
//! [`GameBuilder::build`] refuses what it can see of this; [`Checker`] finds the rest.

// Derived code names its traits by `::phalanx::netcode`; this makes that path work in here too.
extern crate self as phalanx;

#[cfg(feature = "bevy_app")]
pub mod app;
mod checker;
mod claims;
mod events;
mod game;
mod hierarchy;
mod input;
pub mod math;
#[cfg(feature = "metrics")]
pub mod metrics;
mod net_id;
mod ordered;
mod playback;
mod rewind;
mod rng;
mod schedule;
mod session;
mod shown;
mod side;
mod simulation;
mod spawn;

pub use bevy_ecs;
pub use phalanx_macros::{Exact, Networked};
pub use phalanx_netcode as netcode;
pub use phalanx_netcode::state::{Exact, Networked};

pub use checker::{CheckError, CheckReport, CheckStep, Checker};
pub use claims::ClaimedValues;
pub use events::TickEvents;
pub use game::{Game, GameBuilder, GameError, SessionSetup};
pub use input::{CurrentTick, Inputs, SlotPresence, Stepping};
pub use net_id::{NetCommands, NetId, NetIdAllocator, NetIndex, SpawnNetworked};
pub use ordered::Ordered;
pub use playback::{Playback, PlaybackError};
pub use rewind::{Rewind, RewindAt};
pub use rng::TickRng;
pub use session::{EcsPlayer, LocalInput, Session, SessionError};
pub use shown::{ShownWorld, Smoothing};
pub use side::{Authority, Owner, Side, on_authority};
pub use simulation::{EcsImage, EcsSimulation};
pub use spawn::SpawnKey;

/// What the code of a game needs.
pub mod prelude {
    pub use bevy_ecs::prelude::*;

    pub use crate::math::{self, IVec2, Mat2, Quat, UVec2, Vec2, Vec3, Vec4};
    pub use crate::netcode::id::Slot;
    pub use crate::netcode::input::InputFrame;
    pub use crate::netcode::simulation::{Simulation, StepKind};
    pub use crate::netcode::state::Visibility;
    pub use crate::netcode::tick::{Tick, TickRate};
    pub use crate::{
        Authority, CheckError, CheckReport, CheckStep, Checker, CurrentTick, EcsImage,
        EcsSimulation, Exact, Game, GameBuilder, GameError, Inputs, NetCommands, NetId,
        NetIdAllocator, NetIndex, Networked, Ordered, Owner, Rewind, SessionSetup, ShownWorld,
        Side, SlotPresence, SpawnKey, SpawnNetworked, Stepping, TickEvents, TickRng, on_authority,
    };
}

/// The README's code compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct ReadmeDoctests;
