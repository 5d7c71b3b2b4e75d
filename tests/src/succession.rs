//! A session whose hosting moves, watched: who hosts, what each node has settled, and whose inputs
//! acted.

use std::collections::{BTreeMap, BTreeSet};

use phalanx::netcode::id::MemberId;
use phalanx::netcode::link::conditioner::Conditions;
use phalanx::netcode::node::Event;
use phalanx::netcode::session::config::{Gate, HostConfig, JoinConfig};
use phalanx::netcode::tick::Tick;
use phalanx::netcode::time::Time;

use crate::cluster::{Cluster, Index};
use crate::toy::{self, Footprint};

/// Microseconds between two looks at the nodes.
const LOOK_US: u64 = 5_000;

/// What was seen of a node.
#[derive(Debug, Default)]
struct Seen {
    /// State after each settled tick, as far as the node still stands by it.
    settled: BTreeMap<u32, Footprint>,
    checked: u32,
    /// Own inputs that were replaced.
    replaced: BTreeSet<u32>,
    events: usize,
    moved: Option<(Time, u32)>,
    gap_us: u64,
}

/// A session of players of whom the first hosts, watched.
#[derive(Debug)]
pub struct Succession {
    /// The nodes.
    pub cluster: Cluster,
    /// What repeats the run.
    pub seed: String,
    seen: Vec<Seen>,
    waits: bool,
}

impl Succession {
    /// Opens a session of `players` and runs it until all have settled 240 ticks.
    ///
    /// # Panics
    /// If that takes more than 20 s.
    #[must_use]
    pub fn new(
        host: HostConfig,
        join: &JoinConfig,
        players: u8,
        conditions: Conditions,
        seed: u64,
        repeat: &str,
    ) -> Self {
        let waits = host.gate != Gate::Paced;
        let mut cluster = Cluster::new(host, conditions, seed);
        for number in 1..players {
            cluster.join(JoinConfig {
                name: format!("member {number}"),
                ..join.clone()
            });
        }
        let mut seen = Vec::new();
        seen.resize_with(usize::from(players), Seen::default);
        let mut session = Self {
            cluster,
            seed: format!("seed {seed}, again with: {repeat}"),
            seen,
            waits,
        };
        session.run_until(20_000_000, |it| it.settled().number() > 240);
        session
    }

    /// The game that is played.
    #[must_use]
    pub fn game() -> phalanx::netcode::session::config::GameInfo {
        toy::game()
    }

    /// The nodes that have not crashed.
    #[must_use]
    pub fn alive(&self) -> Vec<Index> {
        let all = 0..self.cluster.members.len();
        all.filter(|&index| !self.cluster.members[index].crashed)
            .collect()
    }

    /// What all nodes that are alive have settled.
    #[must_use]
    pub fn settled(&self) -> Tick {
        self.cluster.settled(&self.alive())
    }

    /// The node of a member.
    #[must_use]
    pub fn index_of(&self, member: MemberId) -> Option<Index> {
        let mut all = 0..self.cluster.members.len();
        all.find(|&index| self.cluster.node(index).session().member == member)
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
            format!(
                "{index}: member {} follows {} in term {}, host {}; machine: term {:?} host {:?} hosts {:?} fence {:?} voters {:?}; \
                 tick {} settled {} position {:?}; drops {:?}; {:?}",
                node.session().member.0,
                node.host_member().0,
                node.session().term.0,
                node.is_host(),
                terms.map(|it| it.term().0),
                terms.and_then(|it| it.host()),
                terms.map(|it| it.is_host()),
                terms.map(|it| it.fence().0),
                terms.map(|it| it.roster().voter_count()),
                node.tick(),
                node.settled_tick(),
                node.position(),
                node.statistics().drops,
                self.cluster.members[index]
                    .events
                    .iter()
                    .rev()
                    .take(6)
                    .collect::<Vec<_>>(),
            )
        };
        let lines: Vec<String> = self.alive().into_iter().map(of).collect();
        lines.join("\n")
    }

    fn look(&mut self) {
        let now = self.cluster.now();
        for index in self.alive() {
            self.hear(index);
            if self.cluster.members[index].paused {
                continue;
            }
            let settled = self.cluster.node(index).settled_tick().number();
            let seen = &mut self.seen[index];
            let moved = *seen.moved.get_or_insert((now, settled));
            if settled > moved.1 {
                seen.gap_us = seen.gap_us.max(now.micros_since(moved.0));
                seen.moved = Some((now, settled));
            }
            let simulation = self.cluster.members[index].driver.simulation();
            for tick in seen.checked + 1..=settled {
                if let Some(footprint) = simulation.and_then(|it| it.footprint(Tick::new(tick))) {
                    seen.settled.insert(tick, footprint.clone());
                }
            }
            seen.checked = seen.checked.max(settled);
        }
        self.assert_one_host();
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "what else happens is no matter of hosting"
    )]
    fn hear(&mut self, index: Index) {
        let from = self.seen[index].events;
        for event in &self.cluster.members[index].events[from..] {
            match event {
                Event::TicksLost { first, last } => {
                    let seen = &mut self.seen[index];
                    for tick in first.number()..=last.number() {
                        seen.settled.remove(&tick);
                    }
                    seen.checked = seen.checked.min(first.previous().number());
                }
                Event::InputReplaced { tick } => {
                    self.seen[index].replaced.insert(tick.number());
                }
                Event::Desync(report) => panic!("{}: node {index}: {report:?}", self.seed),
                Event::Disconnected { reason } => {
                    panic!(
                        "{}: node {index} is out: {reason}\n{}",
                        self.seed,
                        self.standing()
                    )
                }
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

    /// The node that hosts, if all follow one.
    #[must_use]
    pub fn host(&self) -> Option<Index> {
        let alive = self.alive();
        let is_host = |index: &&Index| self.cluster.node(**index).is_host();
        let mut hosts = alive.iter().filter(is_host);
        let (host, other) = (*hosts.next()?, hosts.next());
        let (member, term) = {
            let info = self.cluster.node(host).session();
            (info.member, info.term)
        };
        let follow = |&index: &Index| {
            let node = self.cluster.node(index);
            node.host_member() == member && node.session().term == term
        };
        (other.is_none() && alive.iter().all(follow)).then_some(host)
    }

    /// Forgets how long nodes stood still so far.
    pub fn forget_gaps(&mut self) {
        for seen in &mut self.seen {
            seen.gap_us = 0;
        }
    }

    /// The longest time for which a node that is alive has settled nothing, in microseconds.
    #[must_use]
    pub fn longest_gap_us(&self) -> u64 {
        let gaps = self
            .alive()
            .into_iter()
            .map(|index| self.seen[index].gap_us);
        gaps.max().unwrap_or(0)
    }

    /// All follow one host within `us` microseconds, ticks go on, and what was settled is the same
    /// everywhere.
    ///
    /// # Panics
    /// If not.
    pub fn assert_recovers(&mut self, us: u64) {
        self.run_until(us, |it| it.host().is_some());
        let before = self.alive().into_iter();
        let before = before.map(|index| self.cluster.node(index).settled_tick());
        let goal = before.max().unwrap_or_default().plus(120);
        self.run_until(us, |it| it.settled() > goal);
        let mut states: BTreeMap<u32, (Footprint, Index)> = BTreeMap::new();
        for index in self.alive() {
            for (tick, footprint) in &self.seen[index].settled {
                let entry = states.entry(*tick);
                let (known, other) = entry.or_insert_with(|| (footprint.clone(), index));
                assert_eq!(
                    known, footprint,
                    "{}: {other} and {index} differ at tick {tick}",
                    self.seed
                );
            }
        }
        for index in self.alive() {
            self.assert_inputs(index, &states);
        }
    }

    /// Every input of `index` acted as it was submitted, or the node was told.
    fn assert_inputs(&self, index: Index, states: &BTreeMap<u32, (Footprint, Index)>) {
        let node = self.cluster.node(index);
        let slot = node.session().slot.expect("a player");
        let bot = self.cluster.members[index].driver.player();
        for (tick, (footprint, _)) in states {
            let Some(submitted) = bot.submitted.get(&Tick::new(*tick)) else {
                continue;
            };
            let is_present = footprint.present & slot.bit() != 0;
            let acted = footprint.inputs[slot.index()];
            // Where all wait for all, whoever was away is absent until it is let in again.
            let is_away = self.waits && !is_present;
            let is_told = self.seen[index].replaced.contains(tick) || is_away;
            assert!(
                is_present && acted == *submitted || is_told,
                "{}: {index} submitted {submitted:x} for {tick}, {acted:x} acted",
                self.seed
            );
        }
    }

    /// Inputs of nodes that are alive which were replaced, and ticks that were taken back.
    #[must_use]
    pub fn losses(&self) -> (usize, usize) {
        let alive = self.alive();
        let replaced = alive.iter().map(|&index| self.seen[index].replaced.len());
        let lost = alive
            .iter()
            .flat_map(|&index| &self.cluster.members[index].events);
        let lost = lost.filter(|event| matches!(event, Event::TicksLost { .. }));
        (replaced.sum(), lost.count())
    }
}
