//! A session whose hosting moves, watched: who hosts, what each node has settled, whose inputs
//! acted, and what was promised to be safe.
//!
//! The checkers look at all nodes while the session runs:
//!
//! * at most one host per term of a session, and one that may act at an instant;
//! * a frozen host sends nothing but words of members among each other;
//! * terms and ticks of a node never go back, but for ticks that it says it has lost;
//! * what a host has called safe is never lost, unless data loss was announced;
//! * reliable messages arrive once and in order;
//! * a handover that is off leaves the host in its term.
//!
//! [`Succession::assert_recovers`] looks at the end: all follow one host, hold the same history, and
//! every input in it is what its player submitted, or the player was told.

mod chat;
mod checks;
mod commands;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use phalanx::netcode::driver::Player;
use phalanx::netcode::id::{MemberId, SessionId, Term};
use phalanx::netcode::link::conditioner::Conditions;
use phalanx::netcode::node::{DisconnectReason, Event};
use phalanx::netcode::session::config::{Gate, HostConfig, JoinConfig, MigrationConfig, Start};
use phalanx::netcode::session::messages::Channel;
use phalanx::netcode::tick::Tick;
use phalanx::netcode::time::Time;

use self::chat::{Chat, Life};
use self::checks::assert_frozen_is_silent;
pub use self::checks::assert_one_acts;
use crate::cluster::{Bot, ClusterOf, Index, Seeded};
use crate::pianist::Pianist;
use crate::toy::{self, Footprint, Toy};

/// Microseconds between two looks at the nodes.
const LOOK_US: u64 = 5_000;

/// Looks between two messages of each member.
const LOOKS_PER_MESSAGE: u64 = 8;

/// How long a member that was let in nowhere waits before it asks again, in microseconds.
const ASK_AGAIN_US: u64 = 200_000;

/// A player of the toy that remembers what it submitted.
pub trait Remembers: Seeded + Player<Simulation = Toy> {
    /// Its inputs by tick.
    fn submitted(&self) -> &BTreeMap<Tick, u64>;
}

impl Remembers for Bot {
    fn submitted(&self) -> &BTreeMap<Tick, u64> {
        &self.submitted
    }
}

impl Remembers for Pianist {
    fn submitted(&self) -> &BTreeMap<Tick, u64> {
        &self.submitted
    }
}

/// What was seen of a process.
#[derive(Debug, Default)]
struct Seen {
    /// State after each settled tick, as far as the node still stands by it.
    settled: BTreeMap<u32, Footprint>,
    checked: u32,
    /// Own inputs that were replaced.
    replaced: BTreeSet<u32>,
    /// Ticks that it has settled and lost.
    lost: BTreeSet<u32>,
    events: usize,
    /// Since when it has settled nothing more, and how long that took at most.
    moved: Option<(Time, u32)>,
    gap_us: u64,
    /// The term and the newest tick that it has shown.
    shown: (Term, u32),
    /// Links that it has had.
    links: u64,
    life: u32,
    /// The first tick on which its inputs act.
    active_from: Option<u32>,
    is_in: bool,
    /// Cut off and paused for now.
    is_away: bool,
    leaves: bool,
    /// When it asks to be let in again.
    asks_at: Option<Time>,
    /// Where it records.
    file: Option<PathBuf>,
}

/// A session of players of whom the first hosts, watched.
#[derive(Debug)]
pub struct Succession<P: Remembers = Bot> {
    /// The nodes.
    pub cluster: ClusterOf<P>,
    /// What repeats the run.
    pub seed: String,
    /// Whether members talk to whoever hosts, and it to them.
    pub chats: bool,
    /// Whether to print what nodes tell.
    pub traces: bool,
    seen: Vec<Seen>,
    joins: Vec<JoinConfig>,
    /// The host of each term of each session, as anybody said.
    hosts: BTreeMap<(SessionId, Term), MemberId>,
    /// The state after each tick that a host called safe.
    safe: BTreeMap<u32, Footprint>,
    /// Whether it was announced that data may be lost, or a part of the session went its own way.
    is_unclean: bool,
    chat: Chat,
    looks: u64,
    waits: bool,
}

impl<P: Remembers> Succession<P> {
    /// Opens a session of a host and of members that join by `joins`, and runs it until all have
    /// settled `ticks` ticks.
    ///
    /// # Panics
    /// If that takes more than 20 s.
    #[must_use]
    pub fn new(
        host: HostConfig,
        joins: Vec<JoinConfig>,
        conditions: Conditions,
        seed: u64,
        ticks: u32,
        repeat: &str,
    ) -> Self {
        let mut session = Self::open(host, joins, conditions, seed, repeat);
        session.run_until(20_000_000, |it| {
            !it.is_in_motion() && it.settled().number() > ticks
        });
        session
    }

    /// As [`Succession::new`], but nothing has run yet.
    #[must_use]
    pub fn open(
        host: HostConfig,
        joins: Vec<JoinConfig>,
        conditions: Conditions,
        seed: u64,
        repeat: &str,
    ) -> Self {
        let waits = host.gate != Gate::Paced;
        let as_host = JoinConfig {
            silence_us: host.silence_us,
            resume_us: host.resume_us.clamp(host.silence_us, 8_000_000),
            ..JoinConfig::new(host.game.clone(), "the first host, again")
        };
        let mut cluster = ClusterOf::new(host, conditions, seed);
        cluster.watch = Some(assert_one_acts);
        cluster.overhear = Some(assert_frozen_is_silent);
        let mut session = Self {
            cluster,
            seed: format!("seed {seed}, again with: {repeat}"),
            chats: false,
            traces: false,
            seen: vec![Seen {
                is_in: true,
                active_from: Some(1),
                ..Seen::default()
            }],
            joins: vec![as_host],
            hosts: BTreeMap::new(),
            safe: BTreeMap::new(),
            is_unclean: false,
            chat: Chat::default(),
            looks: 0,
            waits,
        };
        for join in joins {
            session.join(join, 0, 0);
        }
        session
    }

    /// The settings of a session of `players` players that begins once all are there, and whose
    /// members elect who hosts.
    #[must_use]
    pub fn elected(players: u8, gate: Gate) -> HostConfig {
        HostConfig {
            plays: true,
            gate,
            start: Start::Players(players),
            migration: MigrationConfig::ELECTED,
            ..HostConfig::new(toy::game(), players)
        }
    }

    /// The settings of so many players besides the host.
    #[must_use]
    pub fn guests(count: u8) -> Vec<JoinConfig> {
        let names = (1..=count).map(|number| format!("member {number}"));
        names
            .map(|name| JoinConfig::new(toy::game(), &name))
            .collect()
    }

    // ---- members ----

    /// Adds a process that asks whoever hosts to join; its clock may be ahead and drift.
    pub fn join(&mut self, config: JoinConfig, ahead_us: u64, drift_ppm: i32) -> Index {
        self.joins.push(config.clone());
        self.seen.push(Seen::default());
        self.cluster.join_drifting(config, ahead_us, drift_ppm)
    }

    /// Starts the process of `index` again, which remembers nothing, and asks whoever hosts.
    pub fn restart(&mut self, index: Index) {
        let host = self.acting_host(index).unwrap_or(index);
        if host == index {
            // Nobody to ask: it comes back when there is.
            self.cluster.crash(index);
            self.seen[index].asks_at = Some(self.cluster.now().plus_micros(ASK_AGAIN_US));
            self.seen[index].is_in = false;
            return;
        }
        self.hear(index);
        let config = self.joins[index].clone();
        self.cluster.restart(index, host, config);
        let old = &mut self.seen[index];
        *old = Seen {
            events: old.events,
            links: old.links + 1,
            life: old.life + 1,
            ..Seen::default()
        };
    }

    /// Lets `index` leave. It is gone once it has handed over what it had to.
    pub fn leave(&mut self, index: Index) {
        self.seen[index].leaves = true;
        self.cluster.driver(index).node_mut().leave();
    }

    /// Cuts `index` off and holds it, for good.
    pub fn send_away(&mut self, index: Index) {
        self.cluster.members[index].paused = true;
        self.cluster.isolate(index);
        self.seen[index].is_away = true;
    }

    /// The processes that take part: neither crashed, nor gone, nor still asking to be let in.
    #[must_use]
    pub fn alive(&self) -> Vec<Index> {
        let takes_part = |&index: &Index| {
            let seen = &self.seen[index];
            let crashed = self.cluster.members[index].crashed;
            !crashed && !seen.is_away && seen.is_in && !seen.leaves
        };
        (0..self.cluster.members.len()).filter(takes_part).collect()
    }

    /// Whether processes still ask to be let in, or have not left yet.
    #[must_use]
    pub fn is_in_motion(&self) -> bool {
        let mut all = self.seen.iter().zip(&self.cluster.members);
        all.any(|(seen, member)| {
            let asks = !seen.is_in && !member.crashed || seen.asks_at.is_some();
            asks || seen.leaves && !member.crashed
        })
    }

    /// What all nodes that take part have settled.
    #[must_use]
    pub fn settled(&self) -> Tick {
        self.cluster.settled(&self.alive())
    }

    /// The node of a member.
    #[must_use]
    pub fn index_of(&self, member: MemberId) -> Option<Index> {
        let mut all = self.alive().into_iter();
        all.find(|&index| self.cluster.node(index).session().member == member)
    }

    /// The member of a node.
    #[must_use]
    pub fn member(&self, index: Index) -> MemberId {
        self.cluster.node(index).session().member
    }

    /// Whether `index` could not follow whoever hosts: the two have not met, or it was away for so
    /// long that it is no member any more.
    fn is_stranger(&self, index: Index) -> bool {
        let node = self.cluster.node(index);
        if node.terms().is_none() {
            return true;
        }
        let Some(host) = self.acting_host(index) else {
            return false;
        };
        let host = self.cluster.node(host);
        let (own, other) = (node.session().member, host.session().member);
        let have_met = node.mesh_links().any(|link| link.member == other)
            && host.mesh_links().any(|link| link.member == own);
        host.roster().member(own).is_none() || !have_met
    }

    /// A node that hosts, the one of the newest term, if any does besides `but`.
    fn acting_host(&self, but: Index) -> Option<Index> {
        let hosts = self.alive().into_iter();
        let hosts = hosts.filter(|&index| index != but && self.cluster.node(index).is_host());
        hosts.max_by_key(|&index| self.cluster.node(index).session().term)
    }

    /// Records `index` into `file`, which [`Succession::assert_recordings`] verifies.
    pub fn record(&mut self, index: Index, file: PathBuf) {
        self.cluster.driver(index).record(&file);
        self.seen[index].file = Some(file);
    }

    // ---- time ----

    /// Runs until `done`.
    ///
    /// # Panics
    /// If that takes more than `us` microseconds, or something is seen that must not be.
    pub fn run_until(&mut self, us: u64, done: impl Fn(&Self) -> bool) {
        let end = self.cluster.now().plus_micros(us);
        while !done(self) {
            assert!(self.cluster.now() < end, "it does not come true in {us} us");
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
            let left = end.micros_since(self.cluster.now());
            self.cluster.run_us(left.min(LOOK_US));
            self.look();
        }
    }

    /// How the nodes stand, for people.
    #[must_use]
    pub fn standing(&self) -> String {
        let of = |index: Index| {
            let node = self.cluster.node(index);
            let terms = node.terms();
            let seen = &self.seen[index];
            let now = self.cluster.now_of(index);
            let mesh = node.mesh_links().map(|link| {
                let ago = |at: Option<Time>| at.map(|at| now.micros_since(at) / 1000);
                let confirmed = if link.is_confirmed { "" } else { "?" };
                let (heard, echoed) = (ago(link.heard_at), ago(link.echoed_at));
                format!(
                    "{}{confirmed} heard {heard:?} echoed {echoed:?} ms ago",
                    link.member
                )
            });
            let mesh: Vec<String> = mesh.collect();
            format!(
                "{index}: {}member {} follows {} in term {}, host {}; machine: term {:?} host {:?} hosts {:?} \
                 acts {:?} fence {:?} voters {:?} standbys {:?}; tick {} settled {} position {:?}; \
                 drops {:?}; mesh [{}]; {:?}",
                if seen.is_in { "" } else { "(asks) " },
                node.session().member,
                node.host_member(),
                node.session().term.0,
                node.is_host(),
                terms.map(|it| it.term().0),
                terms.and_then(|it| it.host()),
                terms.map(|it| it.is_host()),
                terms.map(|it| it.may_act(self.cluster.now_of(index))),
                terms.map(|it| it.fence().0),
                terms.map(|it| it
                    .roster()
                    .voters()
                    .map(|it| it.to_string())
                    .collect::<Vec<_>>()),
                terms.map(|it| it.roster().standbys.clone()),
                node.tick(),
                node.settled_tick(),
                node.position(),
                node.statistics().drops,
                mesh.join(", "),
                self.cluster.members[index]
                    .events
                    .iter()
                    .rev()
                    .filter(|event| !matches!(event, Event::Message { .. }))
                    .take(6)
                    .collect::<Vec<_>>(),
            )
        };
        let here = |index: &Index| !self.cluster.members[*index].crashed;
        let lines = (0..self.cluster.members.len()).filter(here).map(of);
        lines.collect::<Vec<String>>().join("\n")
    }

    fn look(&mut self) {
        let now = self.cluster.now();
        let mut messages = Vec::new();
        for index in 0..self.cluster.members.len() {
            self.ask_again(index);
            if !self.cluster.members[index].crashed && !self.seen[index].is_away {
                messages.extend(self.hear(index));
            }
        }
        for (to, bytes) in messages {
            let seen = &self.seen;
            let links = |from: Life, to: Life| seen[from.0].links + seen[to.0].links;
            let to = (to, self.seen[to].life);
            if let Err(error) = self.chat.hear(to, &bytes, links) {
                panic!("{error}");
            }
        }
        for index in self.alive() {
            if self.cluster.members[index].paused {
                continue;
            }
            let node = self.cluster.node(index);
            let settled = node.settled_tick().number();
            let shown = (node.session().term, settled);
            let seen = &mut self.seen[index];
            assert!(
                shown >= seen.shown,
                "{index} shows {shown:?} after {:?}",
                seen.shown
            );
            seen.shown = shown;
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
            self.note_safe(index);
        }
        self.looks += 1;
        if self.chats && self.looks.is_multiple_of(LOOKS_PER_MESSAGE) {
            self.talk();
        }
    }

    /// A process that was let in nowhere asks again in time; one that has left ends.
    fn ask_again(&mut self, index: Index) {
        let now = self.cluster.now();
        let seen = &mut self.seen[index];
        if seen.asks_at.take_if(|at| *at <= now).is_some() {
            self.restart(index);
        }
        let is_over = self.cluster.node(index).is_over();
        if self.seen[index].leaves && is_over && !self.cluster.members[index].crashed {
            self.cluster.crash(index);
        }
    }

    /// Takes in what `index` tells; returns the messages that it has got.
    #[expect(
        clippy::wildcard_enum_match_arm,
        clippy::print_stdout,
        reason = "what else happens is no matter of hosting; traces are for people"
    )]
    fn hear(&mut self, index: Index) -> Vec<(Index, Vec<u8>)> {
        let from = self.seen[index].events;
        let now = self.cluster.now();
        let node = self.cluster.node(index);
        let session = node.session().session;
        let is_stranger = self.is_stranger(index);
        let mut messages = Vec::new();
        for event in &self.cluster.members[index].events[from..] {
            let seen = &mut self.seen[index];
            if self.traces && !matches!(event, Event::Message { .. }) {
                println!("{} ms, {index}: {event:?}", now.micros() / 1000 - 10_000);
            }
            match event {
                Event::Welcomed { .. } => {
                    seen.links += 1;
                    seen.is_in = true;
                    seen.asks_at = None;
                }
                Event::Activated { tick } => {
                    seen.active_from.get_or_insert(tick.number());
                }
                Event::LostTicks { first, last } => {
                    for tick in first.number()..=last.number() {
                        seen.settled.remove(&tick);
                        seen.lost.insert(tick);
                    }
                    let before = first.previous().number();
                    seen.checked = seen.checked.min(before);
                    // It may be told of the term later than of the loss, but not by much.
                    seen.shown = (node.session().term, seen.shown.1.min(before));
                }
                Event::InputReplaced { tick } => {
                    let is_new = seen.replaced.insert(tick.number());
                    assert!(
                        is_new || seen.lost.contains(&tick.number()),
                        "{index} is told twice that its input of {tick} was replaced"
                    );
                }
                Event::HostChanged { member, term } => {
                    seen.links += 1;
                    let known = *self.hosts.entry((session, *term)).or_insert(*member);
                    assert!(
                        known == *member,
                        "{member:?} and {known:?} host term {}",
                        term.0
                    );
                }
                Event::HandoverAborted { .. } => {
                    let is_of_old = node.terms().is_some_and(|terms| {
                        terms.term() == terms.fence() && terms.roster().host == self.member(index)
                    });
                    assert!(
                        !is_of_old || node.is_host(),
                        "{index} hosts no more after a handover that is off"
                    );
                }
                Event::DataLossPossible { .. } | Event::Forked { .. } => self.is_unclean = true,
                Event::Message {
                    channel: Channel::Reliable,
                    bytes,
                    ..
                } => messages.push((index, bytes.clone())),
                Event::Desync(report) => panic!("node {index}: {report:?}"),
                Event::Healed { tick } => panic!("node {index} healed at {tick}"),
                Event::Refused { .. } | Event::JoinFailed { .. } => {
                    assert!(!seen.is_in, "node {index} is out: {event:?}");
                    seen.asks_at = Some(now.plus_micros(ASK_AGAIN_US));
                }
                Event::Disconnected { reason } => {
                    let has_left = seen.leaves && *reason == DisconnectReason::Left;
                    // Whoever has not met the new host yet cannot follow it, and whoever was away
                    // for too long has no place any more.
                    let is_unheard = matches!(
                        reason,
                        DisconnectReason::Silence
                            | DisconnectReason::Abandoned
                            | DisconnectReason::NoMajority(_)
                    );
                    let was_dropped = is_unheard && is_stranger;
                    assert!(was_dropped || has_left, "node {index} is out: {reason}");
                    if was_dropped {
                        seen.is_in = false;
                        seen.asks_at = Some(now.plus_micros(ASK_AGAIN_US));
                    }
                }
                _ => {}
            }
        }
        self.seen[index].events = self.cluster.members[index].events.len();
        messages
    }

    /// Remembers what a host calls safe.
    fn note_safe(&mut self, index: Index) {
        let node = self.cluster.node(index);
        let now = self.cluster.now_of(index);
        let Some(terms) = node.terms().filter(|terms| terms.may_act(now)) else {
            return;
        };
        let safe = terms.safe_tick().number();
        let newest = self.safe.last_key_value().map_or(0, |(tick, _)| *tick);
        let first = newest.saturating_sub(8).min(safe);
        for (tick, footprint) in self.seen[index].settled.range(first..=safe) {
            let known = self.safe.entry(*tick).or_insert_with(|| footprint.clone());
            assert!(
                self.is_unclean || known == footprint,
                "tick {tick} was safe, and is another on {index}: {known:?} {footprint:?}"
            );
        }
    }

    // ---- messages ----

    fn talk(&mut self) {
        let now_us = self.cluster.now().micros();
        for index in self.alive() {
            if self.cluster.members[index].paused {
                continue;
            }
            let node = self.cluster.node(index);
            // Somebody new knows who hosts only once it knows the members.
            if node.terms().is_none() {
                continue;
            }
            let to: Vec<MemberId> = if node.is_host() {
                node.links().map(|link| link.member).collect()
            } else {
                vec![node.host_member()]
            };
            for member in to {
                let Some(other) = self.index_of(member).filter(|&other| other != index) else {
                    continue;
                };
                let (from, to) = (self.life(index), self.life(other));
                let bytes = self.chat.next(from, to);
                let node = self.cluster.driver(index).node_mut();
                let sent = node.send_message(member, Channel::Reliable, &bytes);
                if sent.is_ok() {
                    let links = self.seen[index].links + self.seen[other].links;
                    self.chat.sent(from, to, links, now_us);
                }
            }
        }
    }

    fn life(&self, index: Index) -> Life {
        (index, self.seen[index].life)
    }

    /// How many messages have arrived.
    #[must_use]
    pub fn messages(&self) -> usize {
        self.chat.heard()
    }

    // ---- what must hold ----

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

    /// The longest time for which a node that takes part has settled nothing, in microseconds.
    #[must_use]
    pub fn longest_gap_us(&self) -> u64 {
        let gaps = self
            .alive()
            .into_iter()
            .map(|index| self.seen[index].gap_us);
        gaps.max().unwrap_or(0)
    }

    /// Inputs of nodes that take part which were replaced, and ticks that were taken back.
    #[must_use]
    pub fn losses(&self) -> (usize, usize) {
        let alive = self.alive();
        let replaced = alive.iter().map(|&index| self.seen[index].replaced.len());
        let lost = alive.iter().map(|&index| self.seen[index].lost.len());
        (replaced.sum(), lost.sum())
    }

    /// Terms that had a host, of all sessions.
    #[must_use]
    pub fn terms(&self) -> usize {
        self.hosts.len()
    }

    /// Whether it was announced that data may be lost, or a part of the session went its own way.
    #[must_use]
    pub const fn is_unclean(&self) -> bool {
        self.is_unclean
    }
}

impl<P: Remembers> Drop for Succession<P> {
    #[expect(clippy::print_stdout, reason = "the line that repeats a failed run")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}\n{}", self.seed, self.standing());
        }
    }
}
