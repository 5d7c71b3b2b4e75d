//! One node of a session over UDP, from its start to its end.
//!
//! A [`Session`] owns a driver and a link and runs on a thread of its own; a [`Board`] shows others
//! how it stands and takes their wish to stop. Everything that happens ends up in an [`Outcome`].

mod board;
mod changes;
mod link;
mod log;
mod outcome;

use std::fs::{self, OpenOptions};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use phalanx::netcode::driver::Driver;
use phalanx::netcode::id::{Path, Term};
use phalanx::netcode::link::udp::UdpStatistics;
use phalanx::netcode::migration::HostPolicy;
use phalanx::netcode::node::{DisconnectReason, Event, Node};
use phalanx::netcode::session::config::{
    GameInfo, HostConfig, JoinConfig, MigrationConfig, Mode as SessionMode, Role, Start,
    StateSyncConfig,
};
use phalanx::netcode::statesync::Interest;
use phalanx::netcode::tick::Tick;
use phalanx::netcode::time::Time;
use phalanx::{EcsSimulation, Game, ShownWorld};

pub use board::{Board, Status};
pub use changes::Migrations;
pub use link::{Destination, GameLink, Network, open_link};
pub use outcome::{End, HEADER_BYTES, Outcome, Traffic};

use self::log::{Log, Moment};
use crate::arena::{self, standings};
use crate::eye::Eye;
use crate::inspector::Accounts;
use crate::options::{Mode, Settings};
use crate::play::{Hands, Pilot};
use crate::truth::Truth;
use crate::view::{self, Canvas};

/// Longest sleep between two looks at the link, in microseconds.
const NAP_US: u64 = 1000;
/// Time between two updates of the board.
const BOARD_PERIOD: Duration = Duration::from_millis(250);
/// Time for a session to end after it was asked to stop; a host may need it to hand over.
const STOP_LIMIT: Duration = Duration::from_secs(4);
/// Times that a client comes back after it lost its link.
const RETURNS_MAX: u32 = 3;

/// One node of a session, ready to run.
#[derive(Debug)]
pub struct Session {
    driver: Driver<Pilot>,
    link: GameLink,
    epoch: Instant,
    host: Option<Destination>,
    /// The path to the host.
    path: Option<Path>,
    leave_at: Option<Tick>,
    /// What a host does that is asked to stop.
    farewell: Farewell,
    /// When to vanish without a word.
    dies_at: Option<Tick>,
    /// Whether it began as the host.
    is_founder: bool,
    has_changed_role: bool,
    /// How far a hero sees, should this node tell states.
    view_m: Option<f32>,
    baseline: Option<Baseline>,
    /// The term of which was said that another member can take over.
    told_term: Option<Term>,
    record: Option<PathBuf>,
    /// What a client in state-sync mode shows.
    eye: Option<Eye>,
    /// Whether to draw the field for the board.
    draws: Option<Canvas>,
    inspector: Option<Inspector>,
    log: Log,
}

/// What a host does that is asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Farewell {
    /// It ends the match for everyone, in one state.
    EndMatch,
    /// It leaves the match to another member, if one can host; else it ends it.
    HandOver,
}

/// Who looks at what clients are sent.
#[derive(Debug)]
struct Inspector {
    accounts: Accounts,
    period: Duration,
    told_at: Instant,
}

impl Inspector {
    /// The next table, if it is time.
    fn poll_table(&mut self, names: &[String]) -> Option<String> {
        if self.told_at.elapsed() < self.period {
            return None;
        }
        self.told_at = Instant::now();
        let table = self.accounts.table(names);
        (!table.is_empty()).then_some(table)
    }
}

/// Counters when the first tick had run.
#[derive(Clone, Copy, Debug)]
struct Baseline {
    tick: Tick,
    udp: UdpStatistics,
}

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
            secret: secret()?,
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

    /// A node that joins the host at `to`; without hands it watches, or stands by as the next host
    /// if the settings say so.
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
                Hands::None if settings.stands_by => HostPolicy {
                    players_host: false,
                    ..HostPolicy::default()
                },
                Hands::None => HostPolicy::bystander(),
            },
            secret: secret()?,
            ..JoinConfig::new(info.clone(), name)
        };
        let path = link::connect(&mut link, to)?;
        let node = Node::join(config, path, Time::ZERO)?;
        let eye = (settings.mode == Mode::StateSync).then(|| Eye::new(&game));
        let pilot = Pilot::new(game, hands);
        let mut session = Self::new(node, info, pilot, settings, link)?;
        session.eye = eye;
        session.host = Some(to.clone());
        session.path = Some(path);
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
            view_m: settings.broadcast.view_m,
            baseline: None,
            told_term: None,
            driver,
            link,
            epoch: Instant::now(),
            host: None,
            path: None,
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

    /// Runs the session to its end.
    #[must_use]
    pub fn run(mut self, board: &Board) -> Outcome {
        let mut shown_at = Instant::now();
        let mut stopped_at = None;
        loop {
            let now = self.now();
            let is_host = self.driver.node().is_host();
            self.driver.player_mut().set_hosting(is_host);
            self.driver.pump(now, &mut self.link);
            while let Some(event) = self.driver.poll_event() {
                self.take(now, event);
            }
            let node = self.driver.node();
            // A client whose view is beyond its budget seldom holds a state as a whole.
            let states = node.state_sync().filter(|_| !is_host);
            let told = states.and_then(|states| states.newest);
            let settled = told.unwrap_or(node.settled_tick());
            self.log.changes.advance(now, settled, node.host_member());
            self.count_traffic();
            if let Some(eye) = &mut self.eye {
                let sampled = self.driver.player().sampled();
                eye.follow(now, &mut self.driver, sampled);
            }
            self.tell_if_replaceable();
            if self.is_to_die() {
                self.log.end = Some(End::Killed);
                let tick = self.driver.node().tick();
                let who = self.log.who(self.driver.node().session().member);
                self.log
                    .say(format!("killed the host, {who}, after tick {tick}"));
                break;
            }
            if self.driver.player().wants_to_quit() {
                board.stop();
            }
            if stopped_at.is_none() && (board.is_stopped() || self.has_enough()) {
                stopped_at = Some(Instant::now());
                self.stop();
                // A node that leaves is over at once; its goodbye must still go out.
                let now = self.now();
                self.driver.transmit(now, &mut self.link);
            }
            if stopped_at.is_some_and(|at| at.elapsed() > STOP_LIMIT) {
                self.log.end.get_or_insert(End::Left);
                self.driver.node_mut().leave();
                let now = self.now();
                self.driver.transmit(now, &mut self.link);
                break;
            }
            if self.driver.node().is_over() {
                break;
            }
            if shown_at.elapsed() >= BOARD_PERIOD || !self.log.news.is_empty() {
                shown_at = Instant::now();
                self.show(board);
            }
            self.nap();
        }
        self.show(board);
        self.outcome()
    }

    fn now(&self) -> Time {
        Time::ZERO + self.epoch.elapsed()
    }

    fn nap(&self) {
        let until = self.driver.poll_timeout();
        let us = until.micros_since(self.now()).min(NAP_US);
        if us > 0 {
            thread::sleep(Duration::from_micros(us));
        }
    }

    /// Whether this node hosts and another could go on without it: somebody holds all that was
    /// promised, and every player that is here has a vote.
    fn is_replaceable(&self) -> bool {
        let node = self.driver.node();
        node.terms().is_some_and(|terms| {
            let voters = terms.roster().voter_count();
            let has_enough = voters > 2 && voters >= node.roster().players();
            let has_standby = !terms.roster().standbys.is_empty();
            terms.is_host() && has_standby && terms.safe_tick() > Tick::ZERO && has_enough
        })
    }

    /// Says so, once per term.
    fn tell_if_replaceable(&mut self) {
        let term = self.driver.node().session().term;
        if self.told_term != Some(term) && self.is_replaceable() {
            self.told_term = Some(term);
            self.log
                .say("another member can take over, should this one be gone");
        }
    }

    /// Whether it is time to vanish.
    fn is_to_die(&self) -> bool {
        let tick = self.driver.node().tick();
        let is_due = self.dies_at.is_some_and(|at| tick >= at);
        is_due && self.log.end.is_none() && self.is_replaceable()
    }

    /// Whether this client was to leave at the present tick.
    fn has_enough(&self) -> bool {
        let settled = self.driver.node().settled_tick();
        self.leave_at.is_some_and(|tick| settled >= tick) && self.log.end.is_none()
    }

    /// Ends the session or leaves it.
    fn stop(&mut self) {
        let now = self.now();
        let node = self.driver.node_mut();
        let hands_over = node.is_host() && self.farewell == Farewell::HandOver;
        if hands_over && let Ok(target) = node.request_handover(now, None) {
            // It goes once that one hosts.
            node.leave();
            self.log.end.get_or_insert(End::Left);
            let who = self.log.who(target);
            self.log.say(format!("leaving the match to {who}"));
        } else if node.is_host() && node.tick() > Tick::ZERO {
            // Everyone runs the same last tick.
            let tick = node.tick();
            node.end_at(tick);
        } else {
            self.log.end.get_or_insert(End::Left);
            node.leave();
        }
    }

    fn take(&mut self, now: Time, event: Event) {
        if let Event::Disconnected { reason } = event
            && self.comes_back(reason)
        {
            return;
        }
        let moment = Moment {
            now,
            own: self.driver.node().session().member,
            given: self.driver.player().sampled(),
            address: self.host_address(),
        };
        if matches!(event, Event::HostChanged { .. })
            && let Some(publisher) = self.driver.node_mut().publisher_mut()
        {
            publisher.set_interest(self.view_m.map(Interest::within));
        }
        if let Event::Inspected(inspection) = event {
            if let Some(inspector) = &mut self.inspector {
                inspector.accounts.take(*inspection);
            }
            return;
        }
        self.log.take(moment, event);
    }

    /// Takes the session up again if the link was lost and this node may connect once more. Where
    /// the link is encrypted, the host has given it the right to.
    fn comes_back(&mut self, reason: DisconnectReason) -> bool {
        let lost = matches!(
            reason,
            DisconnectReason::Silence | DisconnectReason::PathClosed(_)
        );
        let (Some(to), Some(old)) = (&self.host, self.path) else {
            return false;
        };
        if !lost || self.log.end.is_some() || self.log.returns >= RETURNS_MAX {
            return false;
        }
        let now = self.now();
        // The old path closes first.
        self.driver.transmit(now, &mut self.link);
        let again = match to {
            Destination::Address(_) => link::connect(&mut self.link, to),
            Destination::Token(_) => self.link.inner_mut().rejoin(old).map_err(Into::into),
        };
        let Ok(path) = again else {
            return false;
        };
        self.path = Some(path);
        self.log.returns += 1;
        self.log.news.push(format!(
            "lost the host; coming back (attempt {} of {RETURNS_MAX})",
            self.log.returns
        ));
        self.driver.node_mut().rejoin(now, path);
        true
    }

    fn host_address(&self) -> Option<SocketAddr> {
        self.host.as_ref().map(Destination::address)
    }

    /// Keeps the counts between the first and the last tick.
    fn count_traffic(&mut self) {
        let node = self.driver.node();
        let tick = node.tick();
        self.log.players = self.log.players.max(node.roster().players());
        // Hosts and clients send different things: whoever is both counts as what it was first.
        self.has_changed_role |= node.is_host() != self.is_founder;
        if tick == Tick::ZERO || self.log.end.is_some() || self.has_changed_role {
            return;
        }
        let udp = self.link.inner().statistics();
        let Some(base) = self.baseline else {
            self.baseline = Some(Baseline { tick, udp });
            return;
        };
        let links = u64::try_from(node.links().count()).unwrap_or(0);
        let traffic = &mut self.log.traffic;
        let before = traffic.until.max(base.tick);
        traffic.link_ticks += u64::from(tick.since(before)) * links;
        traffic.until = tick;
        traffic.datagrams_sent = udp.datagrams_sent - base.udp.datagrams_sent;
        // Whoever sends nonsense to this port shall not blur what its clients cost.
        traffic.datagrams_refused = udp.drops.total() - base.udp.drops.total();
        traffic.datagrams_received = (udp.datagrams_received - base.udp.datagrams_received)
            .saturating_sub(traffic.datagrams_refused);
        let with_headers = |bytes, datagrams| bytes + HEADER_BYTES * datagrams;
        traffic.bytes_sent =
            with_headers(udp.bytes_sent - base.udp.bytes_sent, traffic.datagrams_sent);
        traffic.bytes_received = with_headers(
            (udp.bytes_received - base.udp.bytes_received)
                .saturating_sub(udp.bytes_refused - base.udp.bytes_refused),
            traffic.datagrams_received,
        );
    }

    fn rtt_us(&self) -> Option<u64> {
        let trips: Vec<u64> = self
            .driver
            .node()
            .links()
            .filter_map(|link| link.rtt_us)
            .collect();
        let count = u64::try_from(trips.len()).unwrap_or(0);
        trips.iter().sum::<u64>().checked_div(count)
    }

    fn show(&mut self, board: &Board) {
        let node = self.driver.node();
        self.log.remember_all(node);
        let rtt_us = self.rtt_us();
        // Links are gone by the end.
        self.log.rtt_us = rtt_us.or(self.log.rtt_us);
        let line = self.status_line(rtt_us);
        let view = match (self.draws, self.driver.simulation()) {
            (Some(canvas), Some(simulation)) => {
                let shown = self.eye.as_ref().and_then(|eye| eye.shown(&self.driver));
                let shown = shown.unwrap_or_else(|| ShownWorld::new(simulation, None));
                view::draw(shown, simulation.world(), canvas, &self.log.names)
            }
            (None, _) | (_, None) => String::new(),
        };
        let node = self.driver.node();
        let figures = board::figures(node, rtt_us, &self.link.inner().statistics());
        let inspector = self.inspector.as_mut();
        let accounts = inspector.map(|inspector| {
            let table = inspector.poll_table(&self.log.names);
            self.log.news.extend(table);
            inspector.accounts.figures()
        });
        let mut status = board.status();
        status.tick = node.tick().number();
        status.line = line;
        status.view = view;
        status.figures = figures;
        status.accounts = accounts.unwrap_or_default();
        status.term = node.session().term.0;
        status.is_host = node.is_host();
        status.is_killed = self.log.end == Some(End::Killed);
        status.news.append(&mut self.log.news);
    }

    fn status_line(&self, rtt_us: Option<u64>) -> String {
        let node = self.driver.node();
        if let (Some(host), true) = (self.host_address(), node.roster().members().is_empty()) {
            return format!("asking {host} to join");
        }
        let statistics = node.statistics();
        let hosting = if node.terms().is_some() {
            let host = self.log.who(node.host_member());
            format!("  host {host}, term {}", node.session().term.0)
        } else {
            String::new()
        };
        let head = format!(
            "tick {}  players {}{hosting}  rtt {}  delay {}  stalls {}  replaced {}",
            node.tick(),
            node.roster().players(),
            rtt_us.map_or_else(|| "-".to_owned(), |us| format!("{} ms", us / 1000)),
            node.input_delay(),
            statistics.stalls,
            statistics.inputs_replaced,
        );
        let Some(sync) = node.state_sync() else {
            let (rollbacks, desyncs) = (statistics.rollbacks, statistics.desyncs);
            return format!("{head}  rollbacks {rollbacks}  desyncs {desyncs}");
        };
        let traffic = &self.log.traffic;
        let bytes = if node.is_host() {
            traffic.bytes_sent
        } else {
            traffic.bytes_received
        };
        // 8 bits, 60 ticks per second.
        let kbit_s = (bytes * 480)
            .checked_div(traffic.link_ticks * 1000)
            .unwrap_or(0);
        if node.is_host() {
            format!(
                "{head}  {kbit_s} kbit/s per client  snapshots {}",
                sync.snapshots
            )
        } else {
            format!(
                "{head}  {kbit_s} kbit/s down  corrections {}",
                sync.corrections
            )
        }
    }

    fn outcome(mut self) -> Outcome {
        let rtt_us = self.rtt_us().or(self.log.rtt_us);
        if self.log.end == Some(End::Killed) {
            self.link.into_inner().abandon();
        }
        let recording = self
            .driver
            .finish_recording()
            .map(|result| result.map(drop).map_err(|error| error.to_string()));
        if let (None, Some(file)) = (&recording, &self.record)
            && fs::metadata(file).is_ok_and(|found| found.is_file() && found.len() == 0)
        {
            // The match never began, and this is the file that was made for it.
            let _ = fs::remove_file(file);
        }
        let own_hash = self.driver.state_hash();
        let node = self.driver.node();
        let sync = node.state_sync();
        let authority = sync.and_then(|sync| sync.authority);
        // A client holds a part of the state, in steps: its own hash says nothing.
        let is_whole = self.eye.is_none() || node.is_host();
        let world = self.driver.simulation().map(EcsSimulation::world);
        Outcome {
            host: self.log.who(node.host_member()),
            end: self.log.end.unwrap_or(End::Left),
            slot: node.session().slot,
            is_founder: self.is_founder,
            hosts: node.is_host(),
            host_member: node.host_member(),
            term: node.session().term,
            migrations: self.log.changes.figures(),
            players: self.log.players,
            tick: authority.map_or(node.tick(), |(tick, _)| tick),
            took_part: world.is_some(),
            state_hash: authority
                .map(|(_, hash)| hash)
                .or(own_hash.filter(|_| is_whole)),
            sync,
            shown: self.eye.map(|eye| eye.errors().clone()),
            statistics: *node.statistics(),
            desyncs: self.log.desyncs,
            rtt_us,
            traffic: self.log.traffic,
            standings: world.map(standings).unwrap_or_default(),
            accounts: self.inspector.map(|inspector| inspector.accounts),
            names: self.log.names,
            recording,
        }
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

/// A secret from the operating system.
fn secret() -> Result<u128> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| anyhow!("the operating system gives no random numbers: {error}"))?;
    Ok(u128::from_le_bytes(bytes))
}

/// A file in the system's folder for temporary files, for a replay that nobody named.
#[must_use]
pub fn temporary_replay(seed: u64) -> PathBuf {
    let name = format!("arena-{seed}-{}.phxr", std::process::id());
    std::env::temp_dir().join(name)
}
