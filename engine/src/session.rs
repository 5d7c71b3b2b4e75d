//! A game over a real link, in real time: what a game client or a listen server holds.

use std::fmt;
use std::path::Path as FilePath;

use bevy_ecs::world::World;
use phalanx_netcode::driver::{Driver, Player};
use phalanx_netcode::id::Path;
use phalanx_netcode::link::clock::Clock;
use phalanx_netcode::link::replay_file::RecordError;
use phalanx_netcode::link::{Link, random_secret};
use phalanx_netcode::node::{Event, Inspection, Node, SessionInfo};
use phalanx_netcode::replay::Summary;
use phalanx_netcode::session::config::{ConfigError, GameInfo, HostConfig, JoinConfig, Mode, Role};
use phalanx_netcode::state::Exact;
use phalanx_netcode::statesync::{Tables, View};
use phalanx_netcode::tick::Tick;
use phalanx_netcode::time::Time;

use crate::{EcsSimulation, Game, ShownWorld, Side};

/// Gives the local player's input for a tick, from what the world shows.
pub trait LocalInput<I>: FnMut(Tick, &World) -> I + Send + 'static {}

impl<I, F: FnMut(Tick, &World) -> I + Send + 'static> LocalInput<I> for F {}

/// A game over a link `L`, in real time.
///
/// Call [`Session::update`] from the game's loop, at least once per tick; it never waits.
/// [`Session::run`] is that loop for programs that have no other.
pub struct Session<L> {
    driver: Driver<EcsPlayer>,
    link: L,
    clock: Clock,
    /// What a client of state-sync shows of others.
    view: View,
    updated: Time,
    #[cfg(feature = "metrics")]
    feed: crate::metrics::Feed,
}

type EncodedInput = Box<dyn FnMut(Tick, &World) -> Vec<u8> + Send>;

/// The game's side of a [`Driver`].
pub struct EcsPlayer {
    game: Game,
    input: EncodedInput,
    /// Whether only the host decides the state.
    follows: bool,
    /// The newest tick for which an input was sampled.
    sampled: Tick,
}

impl Player for EcsPlayer {
    type Simulation = EcsSimulation;

    fn begin(&mut self, session: &SessionInfo) -> EcsSimulation {
        let mut simulation = self.game.simulation_of(session);
        if self.follows && !session.hosts {
            simulation.set_side(session.slot.map_or(Side::Spectating, Side::Predicting));
        }
        simulation
    }

    fn sample(&mut self, tick: Tick, simulation: &EcsSimulation, input: &mut [u8]) {
        self.sampled = tick;
        let sampled = (self.input)(tick, simulation.world());
        input.copy_from_slice(&sampled);
    }
}

impl<L: Link> Session<L> {
    /// Opens a session as its host, over `link`. A secret of 0 in the settings is replaced by a
    /// random one, and in state-sync mode, where it is the host's secret, a seed of 0 as well.
    ///
    /// # Errors
    /// If the settings cannot be used, the input is of another type than the game's, or the system
    /// has no random numbers.
    pub fn host<I: Exact + 'static>(
        game: &Game,
        mut config: HostConfig,
        link: L,
        input: impl LocalInput<I>,
    ) -> Result<Self, SessionError> {
        let clock = Clock::new();
        prepare::<I>(game, &mut config.secret)?;
        if config.seed == 0 && config.game.mode == Mode::StateSync {
            config.seed = u64::try_from(random_secret()? >> 64).unwrap_or(1);
        }
        let info = config.game.clone();
        let node = Node::host(config, clock.now())?;
        Ok(Self::new(game, info, node, link, clock, input))
    }

    /// Joins the host behind `path`, which `link` has connected to. A secret of 0 in the settings
    /// is replaced by a random one.
    ///
    /// # Errors
    /// If the settings cannot be used, the input is of another type than the game's, or the system
    /// has no random numbers.
    pub fn join<I: Exact + 'static>(
        game: &Game,
        mut config: JoinConfig,
        link: L,
        path: Path,
        input: impl LocalInput<I>,
    ) -> Result<Self, SessionError> {
        let clock = Clock::new();
        prepare::<I>(game, &mut config.secret)?;
        let decides = config.game.mode == Mode::StateSync && config.role == Role::Player;
        if decides && game.has_claim_rules() && config.prediction_ticks == 0 {
            return Err(SessionError::DecidesWithoutTicks);
        }
        let info = config.game.clone();
        let node = Node::join(config, path, clock.now())?;
        Ok(Self::new(game, info, node, link, clock, input))
    }

    fn new<I: Exact + 'static>(
        game: &Game,
        info: GameInfo,
        node: Node,
        link: L,
        clock: Clock,
        mut input: impl LocalInput<I>,
    ) -> Self {
        let encoder = game.clone();
        let player = EcsPlayer {
            game: game.clone(),
            input: Box::new(move |tick, world| encoder.encode_input(&input(tick, world))),
            sampled: Tick::ZERO,
            follows: info.mode == Mode::StateSync,
        };
        Self {
            driver: Driver::new(node, info, player),
            view: View::new(game.schema(), game.tick_rate()),
            updated: clock.now(),
            link,
            clock,
            #[cfg(feature = "metrics")]
            feed: crate::metrics::Feed::default(),
        }
    }

    /// Takes in what arrived, runs the ticks that are due, and sends. `false` once all is over.
    ///
    /// With the feature `metrics`, it publishes the session's statistics about once a second, and
    /// at the end.
    pub fn update(&mut self) -> bool {
        let now = self.clock.now();
        self.driver.pump(now, &mut self.link);
        self.move_view(now);
        #[cfg(feature = "metrics")]
        self.feed.update(now, self.driver.node());
        !self.driver.node().is_over()
    }

    /// Lets what is shown follow the time.
    fn move_view(&mut self, now: Time) {
        let elapsed = now.micros_since(self.updated);
        self.updated = now;
        let part = self.driver.node().part_of_tick(now);
        if let Some(simulation) = self.driver.simulation_mut() {
            simulation.fade_corrections(elapsed);
            simulation.show_between_ticks(part);
        }
        let received: Vec<_> = self
            .driver
            .node()
            .received()
            .map(|state| (state.tick, state.arrived_at, &state.snapshot))
            .collect();
        if received.is_empty() {
            return;
        }
        self.view.update(now, received.into_iter());
        if let Some(shown) = self.view.shown() {
            let sampled = self.driver.player().sampled.number();
            let seen = shown.tick.number() + u32::from(shown.fraction >= 0.5);
            let behind = sampled.saturating_sub(seen);
            self.driver.node_mut().show_behind(now, behind);
        }
    }

    /// What a renderer shows at this moment, once there is a state: the same call on a host, a
    /// client and a lockstep peer.
    #[must_use]
    pub fn shown(&self) -> Option<ShownWorld<'_>> {
        let simulation = self.driver.simulation()?;
        let tables = self.driver.node().wire_tables();
        let others = tables.map(|(layout, shapes)| (&self.view, Tables { layout, shapes }));
        Some(ShownWorld::new(simulation, others))
    }

    /// Updates until the session is over, and hands each event to `on_event`. Between updates the
    /// thread sleeps.
    pub fn run(&mut self, mut on_event: impl FnMut(&mut Self, Event)) {
        loop {
            let goes_on = self.update();
            while let Some(event) = self.poll_event() {
                on_event(self, event);
            }
            if !goes_on {
                return;
            }
            self.nap();
        }
    }

    /// Sleeps until something may be due, at most a millisecond.
    pub fn nap(&self) {
        self.clock.nap_until(self.driver.poll_timeout());
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.driver.poll_event()
    }

    /// Records the session into a file from its beginning. Call it before the first update.
    pub fn record(&mut self, file: impl AsRef<FilePath>) {
        self.driver.record(file);
    }

    /// Ends the recording and waits until the file is complete. `None` if nothing was recorded.
    ///
    /// # Errors
    /// If the file could not be written.
    pub fn finish_recording(&mut self) -> Option<Result<Summary, RecordError>> {
        self.driver.finish_recording()
    }

    /// The world, once there is a state: for drawing.
    #[must_use]
    pub fn world(&self) -> Option<&World> {
        self.driver.simulation().map(EcsSimulation::world)
    }

    /// The simulation, once there is a state.
    #[must_use]
    pub fn simulation(&self) -> Option<&EcsSimulation> {
        self.driver.simulation()
    }

    /// The simulation, for presentation entities and systems. State must not be changed.
    pub fn simulation_mut(&mut self) -> Option<&mut EcsSimulation> {
        self.driver.simulation_mut()
    }

    /// The protocol machine: roster, statistics, links, input delay.
    #[must_use]
    pub fn node(&self) -> &Node {
        self.driver.node()
    }

    /// The protocol machine, for commands: messages, leaving, the last tick.
    pub fn node_mut(&mut self) -> &mut Node {
        self.driver.node_mut()
    }

    /// The link.
    #[must_use]
    pub fn link(&self) -> &L {
        &self.link
    }

    /// The link, for example to connect again after a loss.
    pub fn link_mut(&mut self) -> &mut L {
        &mut self.link
    }

    /// Counts from here on what each client is sent, by component and field, or stops to; it costs
    /// time while it is on. False, and without effect, but on a host in state-sync mode.
    ///
    /// What was counted is in [`Session::inspections`], and comes as [`Event::Inspected`] once per
    /// second and client; with the feature `metrics` it is published, too.
    pub fn inspect(&mut self, on: bool) -> bool {
        self.driver.node_mut().inspect(on)
    }

    /// What each client was sent since [`Session::inspect`] was switched on, or since it came.
    pub fn inspections(&self) -> impl Iterator<Item = Inspection> {
        self.driver.node().inspections()
    }

    /// The hash of the state that this node holds. In lockstep it is equal on all nodes at the same
    /// tick. In state-sync a client holds a part of the state, in steps: the hash of the host's whole
    /// state, as clients are told it, is `node().state_sync()`'s `authority`.
    pub fn state_hash(&mut self) -> Option<u64> {
        self.driver.state_hash()
    }
}

impl<L: fmt::Debug> fmt::Debug for Session<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("link", &self.link)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for EcsPlayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EcsPlayer").finish_non_exhaustive()
    }
}

/// Why a session does not begin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The settings cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The closure gives inputs of another type than the game takes.
    #[error("the game's input is `{expected}`, the closure gives `{found}`")]
    Input {
        /// The game's input type.
        expected: &'static str,
        /// The closure's.
        found: &'static str,
    },
    /// The game lets clients decide entities, and this one would run no tick.
    #[error(
        "this game lets players' clients decide entities (it has rules for their claims), and what a \
         client decides is what its own ticks do; with `prediction_ticks` 0 it would run none: set 1 \
         or more, or join as a spectator"
    )]
    DecidesWithoutTicks,
    /// The system has no random numbers.
    #[error("the operating system gives no random numbers: {0}")]
    Random(#[from] std::io::Error),
}

fn prepare<I: 'static>(game: &Game, secret: &mut u128) -> Result<(), SessionError> {
    let found = core::any::type_name::<I>();
    game.check_input::<I>()
        .map_err(|expected| SessionError::Input { expected, found })?;
    if *secret == 0 {
        *secret = random_secret()?;
    }
    Ok(())
}

impl Game {
    /// What two nodes compare when they meet, for a session in lockstep. `build` names the version of your program: nodes
    /// whose texts differ do not play together.
    #[must_use]
    pub fn info(&self, build: &str) -> GameInfo {
        self.info_for(build, Mode::Lockstep)
    }

    /// As [`Game::info`], for a session in the given mode.
    #[must_use]
    pub fn info_for(&self, build: &str, mode: Mode) -> GameInfo {
        GameInfo {
            game: self.id().to_owned(),
            build: build.to_owned(),
            schema: std::sync::Arc::clone(self.schema()),
            mode,
            tick_rate: self.tick_rate(),
            input_bytes: self.input_bytes(),
        }
    }
}
