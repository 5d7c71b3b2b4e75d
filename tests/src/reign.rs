//! A state-sync session whose hosting moves, watched: who hosts, what happened by whose word, what
//! each client was shown of it, and whose inputs acted.

use std::collections::{BTreeMap, BTreeSet};

use phalanx::netcode::id::MemberId;
use phalanx::netcode::link::conditioner::Conditions;
use phalanx::netcode::node::{DisconnectReason, Event};
use phalanx::netcode::session::config::{HostConfig, JoinConfig, MigrationConfig, Start};
use phalanx::netcode::tick::Tick;
use phalanx::netcode::time::Time;

use crate::cluster::{ClusterOf, Index};
use crate::yard::{self, Body, Plan, Pusher};

/// Microseconds between two looks at the nodes.
const LOOK_US: u64 = 5_000;

/// A tick as its host ran it.
#[derive(Clone, Debug)]
pub struct Ran {
    /// All bodies after it.
    pub bodies: BTreeMap<u64, Body>,
    /// What acted, by slot.
    pub inputs: Vec<Option<u8>>,
}

/// How long a newcomer that was let in nowhere waits before it asks again, in microseconds.
const ASK_AGAIN_US: u64 = 200_000;

/// How long a slot is kept for a member that is not heard, in microseconds.
const RESUME_US: u64 = 5_000_000;

/// What was seen of a node.
#[derive(Debug, Default)]
struct Seen {
    /// It came when the session was under way: it may have to ask again.
    is_newcomer: bool,
    /// A newcomer that holds no state yet.
    is_outside: bool,
    /// When it asks again.
    asks_at: Option<Time>,
    /// The newest state that it was shown: term and tick.
    shown: (u32, Tick),
    /// Own inputs of which it was told that another one acted.
    replaced: BTreeSet<Tick>,
    /// The newest tick that it ran as a host.
    ran: Tick,
    /// The term that it hosted when it was looked at last.
    hosted: Option<u32>,
    events: usize,
    moved: Option<(Time, Tick)>,
    gap_us: u64,
}

/// A session of players of whom the first hosts, watched.
#[derive(Debug)]
pub struct Reign {
    /// The nodes.
    pub cluster: ClusterOf<Pusher>,
    /// What repeats the run.
    pub seed: String,
    seen: Vec<Seen>,
    /// What hosts ran, by term and tick.
    ran: BTreeMap<(u32, Tick), Ran>,
    /// When each body appeared first.
    births: BTreeMap<u64, (u32, Tick)>,
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
        let mut seen = Vec::new();
        for member in &mut cluster.members {
            member.driver.player_mut().is_steady = true;
            seen.push(Seen::default());
        }
        let mut reign = Self {
            cluster,
            seed: format!("seed {seed}, again with: {repeat}"),
            seen,
            ran: BTreeMap::new(),
            births: BTreeMap::new(),
        };
        reign.run_until(20_000_000, |it| {
            let safe = it.cluster.node(0).safe_tick();
            it.tick() > Tick::new(240) && safe.is_some_and(|safe| safe > Tick::new(200))
        });
        reign
    }

    /// The nodes that have not crashed, and are in.
    #[must_use]
    pub fn alive(&self) -> Vec<Index> {
        let mut all = self.processes();
        all.retain(|&index| !self.seen[index].is_outside);
        all
    }

    /// The nodes that have not crashed.
    fn processes(&self) -> Vec<Index> {
        let all = 0..self.cluster.members.len();
        all.filter(|&index| !self.cluster.members[index].crashed)
            .collect()
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

    /// Starts the process of `index` again, which remembers nothing and asks whoever hosts. If
    /// nobody does, it comes back later.
    pub fn restart(&mut self, index: Index) {
        let acts = |&other: &Index| {
            let node = self.cluster.node(other);
            other != index && node.is_host() && !self.cluster.members[other].paused
        };
        let Some(host) = self.alive().into_iter().find(acts) else {
            self.cluster.crash(index);
            self.seen[index].asks_at = Some(self.cluster.now().plus_micros(ASK_AGAIN_US));
            return;
        };
        let events = self.cluster.members[index].events.len();
        let plan = self.cluster.members[host].driver.player().plan;
        self.cluster.restart(index, host, newcomer());
        let player = self.cluster.driver(index).player_mut();
        (player.plan, player.is_steady) = (plan, true);
        self.seen[index] = Seen {
            is_newcomer: true,
            is_outside: true,
            events,
            ..Seen::default()
        };
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

    /// Runs until `done`.
    ///
    /// # Panics
    /// If that takes more than `us` microseconds, or something is seen that must not be.
    pub fn run_until(&mut self, us: u64, done: impl Fn(&Self) -> bool) {
        let end = self.cluster.now().plus_micros(us);
        while !done(self) {
            assert!(
                self.cluster.now() < end,
                "{}: it does not come true in {us} us:\n{}",
                self.seed,
                self.standing()
            );
            self.cluster.run_us(LOOK_US);
            self.look();
        }
    }

    /// Runs for `us` microseconds.
    ///
    /// # Panics
    /// If something is seen that must not be.
    pub fn run(&mut self, us: u64) {
        let end = self.cluster.now().plus_micros(us);
        while self.cluster.now() < end {
            self.cluster.run_us(LOOK_US);
            self.look();
        }
    }

    /// How the nodes stand, for people.
    #[must_use]
    pub fn standing(&self) -> String {
        let of = |index: Index| {
            let node = self.cluster.node(index);
            let terms = node.terms();
            let events = self.cluster.members[index].events.iter().rev().take(8);
            format!(
                "{index}: member {} follows {} in term {}, host {}; machine: term {:?} host {:?} hosts {:?} \
                 fence {:?} standbys {:?}; tick {} shown {:?} position {:?} standby {:?}; {:?}; drops {:?}; {:?}",
                node.session().member.0,
                node.host_member().0,
                node.session().term.0,
                node.is_host(),
                terms.map(|it| it.term().0),
                terms.and_then(|it| it.host()),
                terms.map(|it| it.is_host()),
                terms.map(|it| it.fence().0),
                terms.map(|it| it.roster().standbys.clone()),
                node.tick(),
                self.seen[index].shown,
                node.position(),
                node.standby_statistics(),
                node.state_sync(),
                node.statistics().drops,
                events.collect::<Vec<_>>(),
            )
        };
        let lines: Vec<String> = self.alive().into_iter().map(of).collect();
        lines.join("\n")
    }

    fn look(&mut self) {
        let now = self.cluster.now();
        for index in 0..self.seen.len() {
            if self.seen[index].asks_at.is_some_and(|at| at <= now) {
                self.restart(index);
            }
        }
        for index in self.processes() {
            self.hear(index);
            let is_in = self.cluster.node(index).received().next().is_some();
            let seen = &mut self.seen[index];
            seen.is_outside &= seen.asks_at.is_some() || !is_in;
            if seen.is_outside {
                continue;
            }
            if self.cluster.members[index].paused {
                continue;
            }
            let node = self.cluster.node(index);
            let hosts = node.is_host().then(|| node.session().term.0);
            // A host that hands over may have run a last tick since.
            let hosted = core::mem::replace(&mut self.seen[index].hosted, hosts);
            if let Some(term) = hosted.filter(|_| hosts.is_none()).or(hosts) {
                self.take_ran(index, term);
            }
            if hosts.is_none() {
                self.take_shown(index);
            }
        }
        self.assert_one_host();
    }

    /// Takes note of what a host has run.
    fn take_ran(&mut self, index: Index, term: u32) {
        let player = self.cluster.members[index].driver.player();
        let seen = &mut self.seen[index];
        for (&tick, inputs) in player.acted.range(seen.ran.next()..) {
            let bodies = player.worlds[&tick].clone();
            for &id in bodies.keys() {
                self.births.entry(id).or_insert((term, tick));
            }
            let inputs = inputs.clone();
            self.ran.insert((term, tick), Ran { bodies, inputs });
            seen.ran = tick;
        }
        let ran = seen.ran;
        let now = self.cluster.now_of(index);
        self.note_moved(index, ran, now);
    }

    /// Takes note of what a client was shown last: it never goes back.
    fn take_shown(&mut self, index: Index) {
        let node = self.cluster.node(index);
        let term = node.session().term.0;
        let arrivals: Vec<(Tick, Time)> = node
            .received()
            .map(|state| (state.tick, state.arrived_at))
            .collect();
        let Some(&(newest, _)) = arrivals.last() else {
            return;
        };
        for (tick, at) in arrivals {
            self.note_moved(index, tick, at);
        }
        let seen = &mut self.seen[index];
        // What it runs as a host later is new.
        seen.ran = seen.ran.max(newest);
        assert!(
            newest >= seen.shown.1 && term >= seen.shown.0,
            "{}: {index} was shown {:?}, now {newest} of term {term}",
            self.seed,
            seen.shown,
        );
        if newest > seen.shown.1 {
            seen.shown = (term, newest);
        }
    }

    /// There was news of `tick` at `at`, on the clock of `index`.
    fn note_moved(&mut self, index: Index, tick: Tick, at: Time) {
        let seen = &mut self.seen[index];
        let moved = *seen.moved.get_or_insert((at, tick));
        if tick > moved.1 {
            seen.gap_us = seen.gap_us.max(at.micros_since(moved.0));
            seen.moved = Some((at, tick));
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "what else happens is no matter of hosting"
    )]
    fn hear(&mut self, index: Index) {
        let from = self.seen[index].events;
        for event in &self.cluster.members[index].events[from..] {
            match event {
                Event::InputReplaced { tick } => {
                    let is_new = self.seen[index].replaced.insert(*tick);
                    assert!(is_new, "{}: {index} is told of {tick} twice", self.seed);
                }
                Event::LostTicks { first, .. } => {
                    // A host that follows another one shows on what stands of its own.
                    let seen = &mut self.seen[index];
                    seen.ran = seen.ran.min(first.previous());
                }
                Event::Refused { .. }
                | Event::JoinFailed { .. }
                | Event::Disconnected {
                    reason: DisconnectReason::Silence,
                } if self.seen[index].is_newcomer => {
                    // Whoever has not met the next host cannot follow it.
                    let seen = &mut self.seen[index];
                    seen.is_outside = true;
                    seen.asks_at = Some(self.cluster.now().plus_micros(ASK_AGAIN_US));
                }
                Event::Disconnected { reason } => panic!(
                    "{}: node {index} is out: {reason}\n{}",
                    self.seed,
                    self.standing()
                ),
                _ => {}
            }
        }
        self.seen[index].events = self.cluster.members[index].events.len();
    }

    /// At most one node acts as host at this instant.
    fn assert_one_host(&self) {
        let acts = |index: &Index| {
            let node = self.cluster.node(*index);
            let now = self.cluster.now_of(*index);
            let may = node.terms().is_some_and(|terms| terms.may_act(now));
            !self.cluster.members[*index].paused && node.is_host() && may
        };
        let acting: Vec<Index> = self.alive().into_iter().filter(acts).collect();
        assert!(
            acting.len() <= 1,
            "{}: {acting:?} act at once\n{}",
            self.seed,
            self.standing()
        );
    }

    /// The node of a member.
    #[must_use]
    pub fn index_of(&self, member: MemberId) -> Option<Index> {
        let mut all = 0..self.cluster.members.len();
        all.find(|&index| self.cluster.node(index).session().member == member)
    }

    /// The node that hosts, if all follow one.
    #[must_use]
    pub fn host(&self) -> Option<Index> {
        self.cluster.host_of(&self.alive())
    }

    /// Forgets how long nodes stood still so far.
    pub fn forget_gaps(&mut self) {
        for seen in &mut self.seen {
            seen.gap_us = 0;
        }
    }

    /// The longest time between the arrivals of two newer states on a node that is alive, in
    /// microseconds. What a host runs itself arrives when it is looked at, up to 5 ms later.
    #[must_use]
    pub fn longest_gap_us(&self) -> u64 {
        let alive = self.alive().into_iter();
        alive
            .map(|index| self.seen[index].gap_us)
            .max()
            .unwrap_or(0)
    }

    /// The same of the node `index`.
    #[must_use]
    pub fn gap_us(&self, index: Index) -> u64 {
        self.seen[index].gap_us
    }

    /// Ticks of which `index` was told that another input acted than its own.
    #[must_use]
    pub fn replaced(&self, index: Index) -> &BTreeSet<Tick> {
        &self.seen[index].replaced
    }

    /// Inputs of nodes that are alive which were replaced, and times that ticks were taken back.
    #[must_use]
    pub fn losses(&self) -> (usize, usize) {
        let alive = self.alive();
        let replaced = alive.iter().map(|&index| self.seen[index].replaced.len());
        let lost = alive
            .iter()
            .flat_map(|&index| &self.cluster.members[index].events);
        let lost = lost.filter(|event| matches!(event, Event::LostTicks { .. }));
        (replaced.sum(), lost.count())
    }

    /// The terms that hosts ran, ascending: the first tick, and the term.
    #[must_use]
    pub fn terms(&self) -> Vec<(Tick, u32)> {
        let mut terms: Vec<(Tick, u32)> = Vec::new();
        for &(term, tick) in self.ran.keys() {
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
        for (&(of, tick), ran) in &self.ran {
            if of != term {
                term = of;
                history.split_off(&tick);
            }
            history.insert(tick, ran.clone());
        }
        history
    }

    /// All follow one host within `us` microseconds, newcomers are in, ticks go on without a gap, what clients hold is
    /// what the host has, no id was given twice, and every input acted or its player was told.
    ///
    /// # Panics
    /// If not.
    pub fn assert_recovers(&mut self, us: u64) {
        let is_waiting = |seen: &Seen| seen.is_outside || seen.asks_at.is_some();
        self.run_until(us, |it| {
            it.host().is_some() && !it.seen.iter().any(is_waiting)
        });
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
            assert_eq!(
                pair[0].next(),
                pair[1],
                "{}: ticks between are nobody's",
                self.seed
            );
        }
        self.assert_ids(&history);
        for index in self.alive() {
            self.assert_inputs(index, &history);
        }
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
            assert_eq!(
                wrong, 0,
                "{}: {index} held another state than it should",
                self.seed
            );
        }
    }

    /// No id was given to two bodies.
    fn assert_ids(&self, history: &BTreeMap<Tick, Ran>) {
        let mut before: Option<&Ran> = None;
        for (tick, ran) in history {
            for id in ran.bodies.keys() {
                let is_new = before.is_some_and(|before| !before.bodies.contains_key(id));
                let born = self.births.get(id).map(|born| born.1);
                assert!(
                    !is_new || born == Some(*tick),
                    "{}: body {id:#x} appears at {tick}, and was there at {born:?}",
                    self.seed
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
        for (tick, ran) in history {
            let Some(&pushed) = player.pushed.get(tick) else {
                continue;
            };
            let acted = ran.inputs[slot.index()];
            let is_told = self.seen[index].replaced.contains(tick);
            assert!(
                acted == Some(pushed) || is_told,
                "{}: {index} pushed {pushed} at {tick}, {acted:?} acted\n{}",
                self.seed,
                self.standing()
            );
        }
    }
}
