//! How a node comes into a session: as its host, or by joining one.

use std::fs::OpenOptions;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use phalanx::Game;
use phalanx::netcode::driver::Driver;
use phalanx::netcode::link::random_secret;
use phalanx::netcode::migration::HostPolicy;
use phalanx::netcode::node::Node;
use phalanx::netcode::session::config::{
    GameInfo, HostConfig, JoinConfig, MigrationConfig, Mode as SessionMode, Role, Start,
    StateSyncConfig,
};
use phalanx::netcode::statesync::Interest;
use phalanx::netcode::tick::Tick;
use phalanx::netcode::time::Time;

use super::figures::Recent;
use super::link::{self, Destination, GameLink};
use super::log::Log;
use super::{Farewell, Inspector, Session};
use crate::arena;
use crate::eye::Eye;
use crate::inspector::Accounts;
use crate::options::{Attendance, Mode, Settings};
use crate::play::{Hands, Pilot};
use crate::truth::Truth;
use crate::view::Canvas;

impl Session {
    /// A node that hosts, and plays unless `hands` is [`Hands::None`].
    ///
    /// # Errors
    /// If the settings contradict each other.
    pub fn host(settings: &Settings, name: &str, hands: Hands, link: GameLink) -> Result<Self> {
        let (game, info) = game_of(settings)?;
        let config = HostConfig {
            name: name.to_owned(),
            plays: !matches!(hands, Hands::None),
            seed: settings.seed,
            gate: settings.gate,
            input_delay: settings.delay,
            prediction_ticks: settings.predict,
            start: Start::Players(settings.players),
            last_tick: settings.ticks,
            spectator_delay_ticks: info
                .tick_rate
                .ticks_in_us_ceil(micros(settings.spectators_behind)),
            state_sync: StateSyncConfig {
                snapshot_ticks: settings.broadcast.snapshot_ticks,
                budget_bytes_per_second: settings.broadcast.budget_bytes_per_second,
                ..StateSyncConfig::default()
            },
            silence_us: silence_us(settings),
            resume_us: micros(settings.keep),
            migration: if settings.migration {
                MigrationConfig::ELECTED
            } else {
                MigrationConfig::default()
            },
            hosting: HostPolicy {
                // Who runs a host of its own does so to keep it out of the players' hands.
                players_host: !matches!(hands, Hands::None),
                ..HostPolicy::default()
            },
            secret: random_secret()?,
            ..HostConfig::new(info.clone(), settings.players)
        };
        let mut node = Node::host(config, Time::ZERO)?;
        if let Some(publisher) = node.publisher_mut() {
            publisher.set_interest(settings.broadcast.view_m.map(Interest::within));
        }
        let inspects = settings.inspect.filter(|_| node.inspect(true));
        let inspector = inspects.map(|period| Inspector {
            accounts: Accounts::new(&info.schema, f64::from(info.tick_rate.hz())),
            period,
            told_at: Instant::now(),
        });
        let mut session = Self::new(node, info, Pilot::new(game, hands), settings, link)?;
        session.inspector = inspector;
        Ok(session)
    }

    /// A node that joins the host at `to`; without hands it does what the settings say.
    ///
    /// # Errors
    /// If the settings contradict each other, or the destination cannot be one.
    pub fn join(
        settings: &Settings,
        name: &str,
        hands: Hands,
        mut link: GameLink,
        to: &Destination,
    ) -> Result<Self> {
        let (game, info) = game_of(settings)?;
        let config = JoinConfig {
            role: match hands {
                Hands::None => Role::Spectator,
                Hands::Bot(_) | Hands::Keyboard(_) => Role::Player,
            },
            input_delay: settings.delay,
            prediction_ticks: settings.predict,
            join_us: u64::try_from(settings.timeout.as_micros()).unwrap_or(u64::MAX),
            silence_us: silence_us(settings),
            hosting: match hands {
                _ if !settings.migration => HostPolicy::bystander(),
                Hands::Bot(_) | Hands::Keyboard(_) => HostPolicy::default(),
                Hands::None => match settings.attends {
                    Attendance::Watches => HostPolicy::bystander(),
                    Attendance::Votes => HostPolicy::arbiter(),
                    Attendance::StandsBy => HostPolicy {
                        players_host: false,
                        ..HostPolicy::default()
                    },
                },
            },
            secret: random_secret()?,
            ..JoinConfig::new(info.clone(), name)
        };
        let path = link::connect(&mut link, to)?;
        let node = Node::join(config, path, Time::ZERO)?;
        let eye = (settings.mode == Mode::StateSync).then(|| Eye::new(&game));
        let pilot = Pilot::new(game, hands);
        let mut session = Self::new(node, info, pilot, settings, link)?;
        session.eye = eye;
        session.way = Some((path, to.address()));
        session.leave_at = settings.ticks;
        Ok(session)
    }

    fn new(
        node: Node,
        info: GameInfo,
        pilot: Pilot,
        settings: &Settings,
        link: GameLink,
    ) -> Result<Self> {
        let pilot = match settings.mode {
            Mode::Lockstep => pilot,
            Mode::StateSync => pilot.taking_states(),
        };
        let mut driver = Driver::new(node, info, pilot);
        if let Some(file) = &settings.record {
            // Whoever wants a replay shall not learn after the match that there is none. What the
            // file holds stays until the match begins: perhaps it never does.
            OpenOptions::new()
                .append(true)
                .create(true)
                .open(file)
                .with_context(|| format!("cannot record to {}", file.display()))?;
            driver.record(file);
        }
        Ok(Self {
            farewell: Farewell::EndMatch,
            dies_at: None,
            is_founder: driver.node().is_host(),
            has_changed_role: false,
            baseline: None,
            told_term: None,
            driver,
            link,
            epoch: Instant::now(),
            way: None,
            recent: Recent::default(),
            leave_at: None,
            record: settings.record.clone(),
            eye: None,
            draws: None,
            inspector: None,
            log: Log::default(),
        })
    }

    /// The same, in one process with its host or its clients: the host notes who is where in
    /// `truth`, and clients compare with it what they show. Without effect in lockstep.
    #[must_use]
    pub fn in_view_of(mut self, truth: &Truth) -> Self {
        if self.driver.node().game().mode == SessionMode::StateSync {
            self.driver.player_mut().note_into(truth.clone());
        }
        if let Some(eye) = self.eye.take() {
            self.eye = Some(eye.judged_by(truth.clone()));
        }
        self
    }

    /// The same, which draws the field for its board.
    #[must_use]
    pub const fn drawing(mut self, canvas: Canvas) -> Self {
        self.draws = Some(canvas);
        self
    }

    /// The same, which leaves the match to another member if it hosts and is asked to stop.
    #[must_use]
    pub const fn handing_over(mut self) -> Self {
        self.farewell = Farewell::HandOver;
        self
    }

    /// The same, which vanishes at this tick, as a process that is killed: its socket closes, and
    /// nobody is told. Only while it hosts, and once another member can take over.
    #[must_use]
    pub const fn dying_at(mut self, tick: Tick) -> Self {
        self.dies_at = Some(tick);
        self
    }
}

/// The game of these settings, and what its nodes must have in common.
fn game_of(settings: &Settings) -> Result<(Game, GameInfo)> {
    let game = arena::game(settings.units).context("the game's rules do not fit together")?;
    let info = GameInfo {
        game: game.id().to_owned(),
        build: arena::build_name(settings.units),
        schema: Arc::clone(game.schema()),
        mode: settings.mode.of_session(),
        tick_rate: game.tick_rate(),
        input_bytes: game.input_bytes(),
    };
    Ok((game, info))
}

/// How long a silent link counts as alive: shorter than the link's own patience, if that is long.
fn silence_us(settings: &Settings) -> u64 {
    let longest = Duration::from_secs(5);
    micros(settings.timeout.min(longest))
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
