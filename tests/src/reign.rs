//! A state-sync session whose hosting moves, watched: what happened by whose word, what each client
//! was shown of it, and whose inputs acted.

use std::collections::BTreeMap;

use phalanx::netcode::link::conditioner::Conditions;
use phalanx::netcode::node::Event;
use phalanx::netcode::prng::Prng;
use phalanx::netcode::session::config::{HostConfig, JoinConfig, MigrationConfig, Start};
use phalanx::netcode::tick::Tick;
use phalanx::netcode::time::Time;

use crate::cluster::Index;
use crate::watched::{LOOK_US, Seen, Watched, Watcher};
use crate::yard::{self, Body, Plan, Pusher};

/// How long a slot is kept for a member that is not heard, in microseconds.
const RESUME_US: u64 = 5_000_000;

/// After so many ticks a player has been told that an input of its did not act.
const TOLD_TICKS: u32 = 60;

/// A session of players of whom the first hosts, watched.
pub type Reign = Watched<Pusher, StateWatcher>;

/// What was seen of a state-sync session.
#[derive(Debug, Default)]
pub struct StateWatcher {
    /// What hosts ran, by term and tick.
    ran: BTreeMap<(u32, Tick), Ran>,
    /// When each body appeared first.
    births: BTreeMap<u64, (u32, Tick)>,
}

/// A tick as its host ran it.
#[derive(Clone, Debug)]
pub struct Ran {
    /// All bodies after it.
    pub bodies: BTreeMap<u64, Body>,
    /// What acted, by slot.
    pub inputs: Vec<Option<u8>>,
}

/// What was seen of a process in a state-sync session.
#[derive(Debug, Default)]
pub struct StateSeen {
    /// The newest tick that it ran as a host.
    ran: Tick,
    /// The term that it hosted when it was looked at last.
    hosted: Option<u32>,
}

impl Watcher<Pusher> for StateWatcher {
    type Seen = StateSeen;

    fn stride_us(_left_us: u64) -> u64 {
        LOOK_US
    }

    fn restart(session: &mut Reign, index: Index, host: Index) -> StateSeen {
        let plan = session.cluster.members[host].driver.player().plan;
        session.cluster.restart(index, host, newcomer());
        let player = session.cluster.driver(index).player_mut();
        (player.plan, player.is_steady) = (plan, true);
        StateSeen::default()
    }

    fn let_in_another(session: &mut Reign, _prng: &mut Prng) {
        session.join();
    }

    fn has_room(session: &Reign) -> bool {
        session.free_slots() > 0
    }

    /// Somebody else holds the state of the newest term as it is now, or nearly.
    fn can_do_without(session: &Reign, index: Index) -> bool {
        let newest = session.tick();
        let alive = session.alive();
        let term = |other: Index| session.cluster.node(other).session().term;
        let present = alive.iter().map(|&other| term(other)).max();
        alive.into_iter().any(|other| {
            let node = session.cluster.node(other);
            // What a host holds that was deposed may be void.
            if Some(term(other)) != present {
                return false;
            }
            let held = if node.is_host() {
                Some(node.tick())
            } else {
                node.standby_held()
            };
            other != index && held.is_some_and(|held| held.plus(60) > newest)
        })
    }

    fn resume_us(_session: &Reign, _index: Index) -> u64 {
        RESUME_US
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "what else happens is no matter of hosting"
    )]
    fn hear(session: &mut Reign, index: Index, event: &Event) {
        let seen = &mut session.seen[index];
        match event {
            Event::InputReplaced { tick } => {
                let is_new = seen.replaced.insert(*tick);
                assert!(is_new, "{index} is told of {tick} twice");
            }
            Event::LostTicks { first, .. } => {
                // A host that follows another one shows on what stands of its own.
                seen.own.ran = seen.own.ran.min(first.previous());
            }
            Event::Refused { .. } | Event::JoinFailed { .. } => {
                assert!(!seen.is_in, "node {index} is out: {event:?}");
                session.refuse(index);
            }
            Event::Disconnected { reason } => session.end(index, *reason),
            Event::Forked { .. } => panic!("node {index} goes on in a session of its own"),
            _ => {}
        }
    }

    fn look(session: &mut Reign) {
        for index in 0..session.seen.len() {
            if session.cluster.members[index].crashed {
                continue;
            }
            let has_state = session.cluster.node(index).received().next().is_some();
            let seen = &mut session.seen[index];
            seen.is_in |= has_state && seen.asks_at.is_none();
            if !seen.is_in || session.cluster.members[index].paused {
                continue;
            }
            let node = session.cluster.node(index);
            let hosts = node.is_host().then(|| node.session().term.0);
            // A host that hands over may have run a last tick since.
            let hosted = core::mem::replace(&mut seen.own.hosted, hosts);
            if let Some(term) = hosted.filter(|_| hosts.is_none()).or(hosts) {
                session.take_ran(index, term);
            }
            if hosts.is_none() {
                session.take_shown(index);
            }
        }
    }
}

/// A player who comes later.
fn newcomer() -> JoinConfig {
    JoinConfig {
        prediction_ticks: 12,
        resume_us: RESUME_US,
        ..JoinConfig::new(yard::game(), "newcomer")
    }
}

impl Reign {
    /// Opens a session of `players` and runs it until each standby holds a state and 240 ticks have
    /// run.
    ///
    /// # Panics
    /// If that takes more than 20 s.
    #[must_use]
    pub fn new(plan: Plan, players: u8, conditions: Conditions, seed: u64, repeat: &str) -> Self {
        let host = Self::host_config(players);
        Self::with_host(host, plan, conditions, seed, repeat)
    }

    /// The settings of a host that plays, in a session of so many players.
    #[must_use]
    pub fn host_config(players: u8) -> HostConfig {
        HostConfig {
            plays: true,
            start: Start::Players(players),
            migration: MigrationConfig::ELECTED,
            resume_us: RESUME_US,
            ..HostConfig::new(yard::game(), players)
        }
    }

    /// As [`Reign::new`], with a host of other settings.
    ///
    /// # Panics
    /// As [`Reign::new`].
    #[must_use]
    pub fn with_host(
        host: HostConfig,
        plan: Plan,
        conditions: Conditions,
        seed: u64,
        repeat: &str,
    ) -> Self {
        // Clocks that differ by what cheap ones do, in every other run.
        let drift_ppm = if seed.is_multiple_of(2) { 250 } else { 0 };
        let mut cluster = yard::cluster(host, plan, conditions, drift_ppm, seed);
        for member in &mut cluster.members {
            member.driver.player_mut().is_steady = true;
        }
        let mut reign = Self::over(cluster, StateWatcher::default(), seed, repeat);
        reign.run_until(20_000_000, |it| {
            let safe = it.cluster.node(0).safe_tick();
            it.tick() > Tick::new(240) && safe.is_some_and(|safe| safe > Tick::new(200))
        });
        reign
    }

    /// Lets another player join, if somebody hosts whom all follow. The session must have a slot
    /// for it.
    pub fn join(&mut self) {
        if self.host().is_some() {
            let index = self.cluster.join(newcomer());
            self.seen.push(Seen::default());
            self.restart(index);
        }
    }

    /// The newest tick that all nodes that are alive have, or were shown.
    #[must_use]
    pub fn tick(&self) -> Tick {
        let alive = self.alive().into_iter();
        let ticks = alive.map(|index| {
            let node = self.cluster.node(index);
            if node.is_host() {
                node.tick()
            } else {
                self.seen[index].shown.1
            }
        });
        ticks.min().unwrap_or_default()
    }

    /// Slots that nobody has, whom all follow.
    #[must_use]
    pub fn free_slots(&self) -> usize {
        let node = self
            .alive()
            .into_iter()
            .map(|index| self.cluster.node(index));
        let free = node.map(|node| usize::from(node.session().slots) - node.roster().players());
        free.min().unwrap_or(0)
    }

    /// Takes note of what a host has run.
    fn take_ran(&mut self, index: Index, term: u32) {
        let player = self.cluster.members[index].driver.player();
        let seen = &mut self.seen[index];
        for (&tick, inputs) in player.acted.range(seen.own.ran.next()..) {
            let bodies = player.worlds[&tick].clone();
            for &id in bodies.keys() {
                self.watcher.births.entry(id).or_insert((term, tick));
            }
            let inputs = inputs.clone();
            let ran = Ran { bodies, inputs };
            self.watcher.ran.insert((term, tick), ran);
            seen.own.ran = tick;
        }
        seen.moves(seen.own.ran, self.cluster.now_of(index));
    }

    /// Takes note of what a client was shown last: it never goes back.
    fn take_shown(&mut self, index: Index) {
        let node = self.cluster.node(index);
        let term = node.session().term;
        let arrivals: Vec<(Tick, Time)> = node
            .received()
            .map(|state| (state.tick, state.arrived_at))
            .collect();
        let Some(&(newest, _)) = arrivals.last() else {
            return;
        };
        let seen = &mut self.seen[index];
        for (tick, at) in arrivals {
            seen.moves(tick, at);
        }
        // What it runs as a host later is new.
        seen.own.ran = seen.own.ran.max(newest);
        assert!(
            newest >= seen.shown.1 && term >= seen.shown.0,
            "{index} was shown {:?}, now {newest} of term {term:?}",
            seen.shown,
        );
        if newest > seen.shown.1 {
            seen.shown = (term, newest);
        }
    }

    /// The terms that hosts ran, ascending: the first tick, and the term.
    #[must_use]
    pub fn terms(&self) -> Vec<(Tick, u32)> {
        let mut terms: Vec<(Tick, u32)> = Vec::new();
        for &(term, tick) in self.watcher.ran.keys() {
            if terms.last().is_none_or(|last| last.1 != term) {
                terms.push((tick, term));
            }
        }
        terms
    }

    /// What happened in the end: ticks of later terms take the place of those of earlier ones.
    #[must_use]
    pub fn history(&self) -> BTreeMap<Tick, Ran> {
        let mut history: BTreeMap<Tick, Ran> = BTreeMap::new();
        let mut term = 0;
        for (&(of, tick), ran) in &self.watcher.ran {
            if of != term {
                term = of;
                history.split_off(&tick);
            }
            history.insert(tick, ran.clone());
        }
        history
    }

    /// All follow one host within `us` microseconds, newcomers are in, ticks go on without a gap,
    /// what clients hold is what the host has, no id was given twice, and every input acted or its
    /// player was told. Returns after how many microseconds all follow one host.
    ///
    /// # Panics
    /// If not.
    pub fn assert_recovers(&mut self, us: u64) -> u64 {
        let start = self.cluster.now();
        self.run_until(us, |it| it.host().is_some() && !it.is_in_motion());
        let recovered_us = self.cluster.now().micros_since(start);
        let alive = self.alive();
        let newest = alive.iter().map(|&index| {
            let node = self.cluster.node(index);
            node.tick().max(self.seen[index].shown.1)
        });
        let goal = newest.max().unwrap_or_default().plus(120);
        self.run_until(us, |it| it.tick() > goal && it.host().is_some());
        self.assert_converges();
        let history = self.history();
        let ticks: Vec<Tick> = history.keys().copied().collect();
        for pair in ticks.windows(2) {
            assert_eq!(pair[0].next(), pair[1], "ticks between are nobody's");
        }
        self.assert_ids(&history);
        for index in self.alive() {
            self.assert_inputs(index, &history);
        }
        recovered_us
    }

    /// Every client holds what it shall hold, by the host's word, now and twice again.
    fn assert_converges(&mut self) {
        let counted = |it: &Self, index: Index| {
            let told = it.cluster.node(index).state_sync();
            told.map_or((0, 0), |told| (told.hashes, told.hashes_wrong))
        };
        let clients: Vec<(Index, u64)> = self
            .alive()
            .into_iter()
            .filter(|&index| !self.cluster.node(index).is_host())
            .map(|index| (index, counted(self, index).0))
            .collect();
        self.run_until(20_000_000, |it| {
            clients
                .iter()
                .all(|&(index, before)| counted(it, index).0 >= before + 2)
        });
        for (index, _) in clients {
            let (_, wrong) = counted(self, index);
            assert_eq!(wrong, 0, "{index} held another state than it should");
        }
    }

    /// No id was given to two bodies.
    fn assert_ids(&self, history: &BTreeMap<Tick, Ran>) {
        let mut before: Option<&Ran> = None;
        for (tick, ran) in history {
            for id in ran.bodies.keys() {
                let is_new = before.is_some_and(|before| !before.bodies.contains_key(id));
                let born = self.watcher.births.get(id).map(|born| born.1);
                assert!(
                    !is_new || born == Some(*tick),
                    "body {id:#x} appears at {tick}, and was there at {born:?}"
                );
            }
            before = Some(ran);
        }
    }

    /// Every input of `index` acted as it was submitted, or the node was told.
    fn assert_inputs(&self, index: Index, history: &BTreeMap<Tick, Ran>) {
        let node = self.cluster.node(index);
        let slot = node.session().slot.expect("a player");
        let player = self.cluster.members[index].driver.player();
        let newest = history.keys().next_back().copied().unwrap_or_default();
        for (tick, ran) in history {
            // A host tells of late inputs some at a time, and that takes its way.
            if newest.since(*tick) < TOLD_TICKS {
                break;
            }
            let Some(&pushed) = player.pushed.get(tick) else {
                continue;
            };
            let acted = ran.inputs[slot.index()];
            let is_told = self.replaced(index).contains(tick);
            assert!(
                acted == Some(pushed) || is_told,
                "{index} pushed {pushed} at {tick}, {acted:?} acted"
            );
        }
    }
}
