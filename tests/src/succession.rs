//! A lockstep session whose hosting moves, watched: what each node has settled, whose inputs acted,
//! and what was promised to be safe.
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

use std::collections::BTreeMap;
use std::path::PathBuf;

use phalanx::netcode::driver::Player;
use phalanx::netcode::id::{MemberId, SessionId, Term};
use phalanx::netcode::link::conditioner::Conditions;
use phalanx::netcode::node::Event;
use phalanx::netcode::prng::Prng;
use phalanx::netcode::session::config::{Gate, HostConfig, JoinConfig, MigrationConfig, Start};
use phalanx::netcode::session::messages::Channel;
use phalanx::netcode::tick::Tick;

use self::chat::{Chat, Life};
use crate::cluster::{Bot, ClusterOf, Index, Seeded};
use crate::faults::draw;
use crate::pianist::Pianist;
use crate::toy::{self, Footprint, Toy};
use crate::watched::{LOOK_US, Seen, Watched, Watcher};

pub use crate::watched::assert_one_acts;

/// Looks between two messages of each member.
const LOOKS_PER_MESSAGE: u64 = 8;

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

/// A session of players of whom the first hosts, watched.
pub type Succession<P = Bot> = Watched<P, TickWatcher>;

/// What was seen of a lockstep session.
#[derive(Debug)]
pub struct TickWatcher {
    /// Whether members talk to whoever hosts, and it to them.
    pub chats: bool,
    /// As what members join that come later.
    pub newcomer: Option<JoinConfig>,
    joins: Vec<JoinConfig>,
    /// The host of each term of each session, as anybody said.
    hosts: BTreeMap<(SessionId, Term), MemberId>,
    /// The state after each tick that a host called safe.
    safe: BTreeMap<u32, Footprint>,
    /// Whether it was announced that data may be lost, or a part of the session went its own way.
    is_unclean: bool,
    chat: Chat,
    /// Messages that have arrived since the nodes were looked at, and at whom.
    messages: Vec<(Life, Vec<u8>)>,
    looks: u64,
    waits: bool,
}

/// What was seen of a process in a lockstep session.
#[derive(Debug, Default)]
pub struct TickSeen {
    /// State after each settled tick, as far as the node still stands by it.
    settled: BTreeMap<u32, Footprint>,
    checked: u32,
    /// Links that it has had.
    links: u64,
    life: u32,
    /// The first tick on which its inputs act.
    active_from: Option<u32>,
    /// Where it records.
    file: Option<PathBuf>,
}

impl<P: Remembers> Watcher<P> for TickWatcher {
    type Seen = TickSeen;

    fn stride_us(left_us: u64) -> u64 {
        left_us.min(LOOK_US)
    }

    fn restart(session: &mut Succession<P>, index: Index, host: Index) -> TickSeen {
        let config = session.watcher.joins[index].clone();
        session.cluster.restart(index, host, config);
        let old = &session.seen[index].own;
        TickSeen {
            links: old.links + 1,
            life: old.life + 1,
            ..TickSeen::default()
        }
    }

    fn let_in_another(session: &mut Succession<P>, prng: &mut Prng) {
        let Some(join) = session.watcher.newcomer.clone() else {
            return;
        };
        let name = format!("member {}", session.cluster.members.len());
        let config = JoinConfig { name, ..join };
        let index = session.join(config, prng.below(1_000_000), draw(prng, &[0, 500]));
        session.restart(index);
    }

    fn resume_us(session: &Succession<P>, index: Index) -> u64 {
        session.watcher.joins[index].resume_us
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "what else happens is no matter of hosting"
    )]
    fn hear(session: &mut Succession<P>, index: Index, event: &Event) {
        let node = session.cluster.node(index);
        let info = node.session();
        let seen = &mut session.seen[index];
        let watcher = &mut session.watcher;
        match event {
            Event::Welcomed { .. } => {
                seen.own.links += 1;
                seen.is_in = true;
                seen.asks_at = None;
            }
            Event::Activated { tick } => {
                seen.own.active_from.get_or_insert(tick.number());
            }
            Event::LostTicks { first, last } => {
                for tick in first.number()..=last.number() {
                    seen.own.settled.remove(&tick);
                }
                let before = first.previous();
                seen.own.checked = seen.own.checked.min(before.number());
                // It may be told of the term later than of the loss, but not by much.
                seen.shown = (info.term, seen.shown.1.min(before));
            }
            Event::InputReplaced { tick } => {
                let is_new = seen.replaced.insert(*tick);
                assert!(
                    is_new || seen.lost.contains(tick),
                    "{index} is told twice that its input of {tick} was replaced"
                );
            }
            Event::HostChanged { member, term } => {
                seen.own.links += 1;
                let term_of = (info.session, *term);
                let known = *watcher.hosts.entry(term_of).or_insert(*member);
                assert!(
                    known == *member,
                    "{member:?} and {known:?} host term {}",
                    term.0
                );
            }
            Event::HandoverAborted { .. } => {
                let is_of_old = node.terms().is_some_and(|terms| {
                    terms.term() == terms.fence() && terms.roster().host == info.member
                });
                assert!(
                    !is_of_old || node.is_host(),
                    "{index} hosts no more after a handover that is off"
                );
            }
            Event::DataLossPossible { .. } | Event::Forked { .. } => watcher.is_unclean = true,
            Event::Message {
                channel: Channel::Reliable,
                bytes,
                ..
            } => watcher
                .messages
                .push(((index, seen.own.life), bytes.clone())),
            Event::Desync(report) => panic!("node {index}: {report:?}"),
            Event::Healed { tick } => panic!("node {index} healed at {tick}"),
            Event::Refused { .. } | Event::JoinFailed { .. } => {
                assert!(!seen.is_in, "node {index} is out: {event:?}");
                session.refuse(index);
            }
            Event::Disconnected { reason } => session.end(index, *reason),
            _ => {}
        }
    }

    fn look(session: &mut Succession<P>) {
        session.hear_messages();
        for index in session.alive() {
            if !session.cluster.members[index].paused {
                session.look_at(index);
            }
        }
        let watcher = &mut session.watcher;
        watcher.looks += 1;
        if watcher.chats && watcher.looks.is_multiple_of(LOOKS_PER_MESSAGE) {
            session.talk();
        }
    }
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
        let cluster = ClusterOf::new(host, conditions, seed);
        let watcher = TickWatcher {
            chats: false,
            newcomer: None,
            joins: vec![as_host],
            hosts: BTreeMap::new(),
            safe: BTreeMap::new(),
            is_unclean: false,
            chat: Chat::default(),
            messages: Vec::new(),
            looks: 0,
            waits,
        };
        let mut session = Self::over(cluster, watcher, seed, repeat);
        session.seen[0].own.active_from = Some(1);
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
        self.watcher.joins.push(config.clone());
        self.seen.push(Seen::default());
        self.cluster.join_drifting(config, ahead_us, drift_ppm)
    }

    /// What all nodes that take part have settled.
    #[must_use]
    pub fn settled(&self) -> Tick {
        self.cluster.settled(&self.alive())
    }

    /// Records `index` into `file`, which [`Succession::assert_recordings`] verifies.
    pub fn record(&mut self, index: Index, file: PathBuf) {
        self.cluster.driver(index).record(&file);
        self.seen[index].own.file = Some(file);
    }

    // ---- what is seen ----

    /// Takes in the messages that have arrived.
    fn hear_messages(&mut self) {
        for (to, bytes) in core::mem::take(&mut self.watcher.messages) {
            let seen = &self.seen;
            let links = |from: Life, to: Life| seen[from.0].own.links + seen[to.0].own.links;
            // A process that has ended since has forgotten them.
            if self.life(to.0) != to {
                continue;
            }
            if let Err(error) = self.watcher.chat.hear(to, &bytes, links) {
                panic!("{error}");
            }
        }
    }

    /// Takes note of what `index` has settled.
    fn look_at(&mut self, index: Index) {
        let node = self.cluster.node(index);
        let settled = node.settled_tick();
        let shown = (node.session().term, settled);
        let seen = &mut self.seen[index];
        assert!(
            shown >= seen.shown,
            "{index} shows {shown:?} after {:?}",
            seen.shown
        );
        seen.shown = shown;
        seen.moves(settled, self.cluster.now());
        let simulation = self.cluster.members[index].driver.simulation();
        let (seen, settled) = (&mut seen.own, settled.number());
        for tick in seen.checked + 1..=settled {
            if let Some(footprint) = simulation.and_then(|it| it.footprint(Tick::new(tick))) {
                seen.settled.insert(tick, footprint.clone());
            }
        }
        seen.checked = seen.checked.max(settled);
        self.note_safe(index);
    }

    /// Remembers what a host calls safe.
    fn note_safe(&mut self, index: Index) {
        let node = self.cluster.node(index);
        let now = self.cluster.now_of(index);
        let Some(terms) = node.terms().filter(|terms| terms.may_act(now)) else {
            return;
        };
        let safe = terms.safe_tick().number();
        let watcher = &mut self.watcher;
        let newest = watcher.safe.last_key_value().map_or(0, |(tick, _)| *tick);
        let first = newest.saturating_sub(8).min(safe);
        for (tick, footprint) in self.seen[index].own.settled.range(first..=safe) {
            let known = watcher.safe.entry(*tick);
            let known = known.or_insert_with(|| footprint.clone());
            assert!(
                watcher.is_unclean || known == footprint,
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
                let bytes = self.watcher.chat.next(from, to);
                let node = self.cluster.driver(index).node_mut();
                let sent = node.send_message(member, Channel::Reliable, &bytes);
                if sent.is_ok() {
                    let links = self.seen[index].own.links + self.seen[other].own.links;
                    self.watcher.chat.sent(from, to, links, now_us);
                }
            }
        }
    }

    fn life(&self, index: Index) -> Life {
        (index, self.seen[index].own.life)
    }

    /// How many messages have arrived.
    #[must_use]
    pub fn messages(&self) -> usize {
        self.watcher.chat.heard()
    }

    /// Terms that had a host, of all sessions.
    #[must_use]
    pub fn terms(&self) -> usize {
        self.watcher.hosts.len()
    }

    /// Whether it was announced that data may be lost, or a part of the session went its own way.
    #[must_use]
    pub const fn is_unclean(&self) -> bool {
        self.watcher.is_unclean
    }
}
