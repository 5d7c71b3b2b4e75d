//! Nodes in virtual time: each a term machine over a toy, and a clock of its own.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use phalanx_netcode::id::{MemberId, NetId, Term};
use phalanx_netcode::migration::{
    Authority, Decision, ElectionKind, HandoverFailure, HostPolicy, Identity, TermEvent,
    TermMember, TermMessage, TermRoster, Terms,
};
use phalanx_netcode::tick::{Tick, TickRate};
use phalanx_netcode::time::Time;

use crate::checks::Checks;
use crate::network::Network;
use crate::toy::{Record, Toy};

const TICK_US: u64 = 16_667;
/// Inputs that a client has not been promised yet, at most.
const INPUTS_MAX: usize = 64;

/// What travels.
#[derive(Clone, Debug)]
pub(crate) enum Body {
    /// A term message, as bytes.
    Term(Arc<[u8]>),
    /// Host to member: its ticks after `after`, and when they left on its clock. As a tick datagram
    /// it is acked.
    Records {
        term: u32,
        sent: Time,
        after: u32,
        records: Arc<[Record]>,
    },
    /// Member to host: what it holds, its inputs that are not safe yet, and its ack: when the newest
    /// of the host's datagrams left that it has accepted.
    Inputs {
        term: u32,
        held: u32,
        seqs: Arc<[u32]>,
        ack: Option<Time>,
    },
    /// A sign of life on a warm link.
    Ping,
    /// A process that wants to be a member.
    Join { incarnation: u32 },
}

#[derive(Debug)]
enum Happening {
    Arrival {
        from: u64,
        from_incarnation: u32,
        to: u64,
        to_incarnation: u32,
        body: Body,
    },
    Wake {
        node: u64,
        incarnation: u32,
    },
    Tick {
        node: u64,
        incarnation: u32,
    },
}

pub(crate) struct Node {
    pub(crate) id: u64,
    pub(crate) incarnation: u32,
    pub(crate) terms: Terms,
    pub(crate) toy: Toy,
    pub(crate) alive: bool,
    pub(crate) paused_until: u64,
    pub(crate) policy: HostPolicy,
    offset_us: u64,
    ppm: i64,
    wake_at: u64,
    start: Tick,
    counter: u32,
    next_input: u32,
    unsafe_inputs: Vec<u32>,
    received: BTreeMap<u64, Vec<u32>>,
    held_by: BTreeMap<u64, u32>,
    ticks: u64,
    /// The newest of the host's datagrams that it has accepted: term, and when it left.
    accepted: Option<(u32, Time)>,
    /// As host it leaves datagrams out: of so many ticks one is sent.
    pub(crate) sends_every: u64,
    /// Records of a term that it does not know yet.
    early: Option<(u64, Body)>,
    /// When the player was shown a tick last, and the longest pause since it was reset.
    pub(crate) shown_at: Option<u64>,
    pub(crate) gap_us: u64,
    pub(crate) forked: bool,
}

impl Node {
    fn local(&self, now: u64) -> Time {
        let drift = i64::try_from(now).unwrap() * self.ppm / 1_000_000;
        Time::from_micros(self.offset_us + now.checked_add_signed(drift).unwrap())
    }

    fn global(&self, at: Time) -> u64 {
        let since = at.micros().saturating_sub(self.offset_us);
        let drift = i64::try_from(since.min(1 << 50)).unwrap() * self.ppm / 1_000_000;
        let mut now = since.saturating_sub_signed(drift).saturating_sub(2);
        while now < 1 << 50 && self.local(now) < at {
            now += 1;
        }
        now
    }

    fn accept(&mut self, term: u32, sent: Time) {
        self.accepted = self.accepted.max(Some((term, sent)));
    }

    pub(crate) fn is_up(&self, now: u64) -> bool {
        self.alive && self.paused_until <= now
    }

    pub(crate) fn may_act(&self, now: u64) -> bool {
        self.is_up(now) && self.terms.may_act(self.local(now))
    }
}

pub(crate) struct World {
    pub(crate) now: u64,
    pub(crate) nodes: Vec<Node>,
    pub(crate) network: Network,
    pub(crate) checks: Checks,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    happenings: BTreeMap<u64, Happening>,
    number: u64,
    pub(crate) events: Vec<(u64, u64, TermEvent)>,
    pub(crate) deliveries: u64,
    /// Stop before this delivery: for crashes at every boundary.
    pub(crate) trace: bool,
    pub(crate) sent_bytes: u64,
}

impl World {
    pub(crate) fn new(network: Network) -> Self {
        Self {
            now: 0,
            nodes: Vec::new(),
            network,
            checks: Checks::default(),
            queue: BinaryHeap::new(),
            happenings: BTreeMap::new(),
            number: 0,
            events: Vec::new(),
            deliveries: 0,
            trace: false,
            sent_bytes: 0,
        }
    }

    // ---- members ----

    /// Adds a node: the founder, or one that wants to join.
    pub(crate) fn add(&mut self, policy: HostPolicy, ppm: i64) -> u64 {
        let id = u64::try_from(self.nodes.len()).unwrap();
        let offset_us = 1_000_000 * u64::from(id) + 77;
        let terms = Self::machine(id, 1, &policy, Time::from_micros(offset_us + self.now));
        self.nodes.push(Node {
            id,
            incarnation: 1,
            terms,
            toy: Toy::default(),
            alive: true,
            paused_until: 0,
            policy,
            offset_us,
            ppm,
            wake_at: u64::MAX,
            start: Tick::ZERO,
            counter: 0,
            next_input: 1,
            unsafe_inputs: Vec::new(),
            received: BTreeMap::new(),
            held_by: BTreeMap::new(),
            ticks: 0,
            accepted: None,
            sends_every: 1,
            early: None,
            shown_at: None,
            gap_us: 0,
            forked: false,
        });
        self.start(id);
        id
    }

    fn machine(id: u64, incarnation: u32, policy: &HostPolicy, now: Time) -> Terms {
        let member = MemberId(id);
        let me = Identity {
            member,
            incarnation,
        };
        if id > 0 || incarnation > 1 {
            return Terms::join(me, policy.clone(), TickRate::DEFAULT, now);
        }
        let founder = TermMember {
            id: member,
            incarnation,
            can_host: true,
            is_voter: true,
            wants_vote: true,
        };
        let roster = TermRoster::founding(Term(1), founder);
        Terms::new(me, policy.clone(), TickRate::DEFAULT, roster, now)
    }

    fn start(&mut self, id: u64) {
        let incarnation = self.nodes[usize::try_from(id).unwrap()].incarnation;
        let first = self.now + 1000 + 1900 * u64::from(id) % TICK_US;
        self.push(
            first,
            Happening::Tick {
                node: id,
                incarnation,
            },
        );
        if id == 0 && incarnation == 1 {
            self.checks.hosts(0, 1, 1);
        }
    }

    pub(crate) fn crash(&mut self, id: u64) {
        self.log(id, "crashes");
        self.nodes[usize::try_from(id).unwrap()].alive = false;
    }

    /// A new process of the member, which knows nothing.
    pub(crate) fn restart(&mut self, id: u64) {
        self.log(id, "restarts");
        let now = self.now;
        let node = &mut self.nodes[usize::try_from(id).unwrap()];
        node.incarnation += 1;
        let local = node.local(now);
        node.terms = Self::machine(id, node.incarnation, &node.policy, local);
        node.toy = Toy::default();
        (node.alive, node.paused_until, node.forked) = (true, 0, false);
        // Its inputs have other numbers: those of the process before are not its own.
        node.unsafe_inputs.clear();
        (node.received, node.held_by) = (BTreeMap::new(), BTreeMap::new());
        (node.wake_at, node.shown_at) = (u64::MAX, None);
        node.next_input = node.incarnation * 1_000_000 + 1;
        (node.early, node.accepted) = (None, None);
        self.start(id);
    }

    pub(crate) fn pause(&mut self, id: u64, us: u64) {
        self.log(id, &format!("pauses for {us} us"));
        self.nodes[usize::try_from(id).unwrap()].paused_until = self.now + us;
    }

    pub(crate) fn leave(&mut self, id: u64) {
        self.log(id, "leaves");
        let now = self.now;
        let node = &mut self.nodes[usize::try_from(id).unwrap()];
        let local = node.local(now);
        node.terms.leave(local, &node.toy);
        self.drain(id);
        self.nodes[usize::try_from(id).unwrap()].alive = false;
    }

    pub(crate) fn hand_over(&mut self, id: u64, target: Option<u64>) -> bool {
        let now = self.now;
        let node = &mut self.nodes[usize::try_from(id).unwrap()];
        let local = node.local(now);
        let begun = node
            .terms
            .request_handover(local, target.map(MemberId))
            .is_ok();
        self.log(id, &format!("hands over to {target:?}: {begun}"));
        self.drain(id);
        begun
    }

    /// The time on a node's clock.
    pub(crate) fn local(&self, id: u64) -> Time {
        self.nodes[usize::try_from(id).unwrap()].local(self.now)
    }

    /// The node that acts as host, if one does.
    pub(crate) fn host(&self) -> Option<u64> {
        let mut acting = self.nodes.iter().filter(|node| node.may_act(self.now));
        acting.next().map(|node| node.id)
    }

    fn log(&self, id: u64, what: &str) {
        if self.trace {
            eprintln!("{:>9} {id} {what}", self.now);
        }
    }

    // ---- time ----

    fn push(&mut self, at: u64, happening: Happening) {
        self.number += 1;
        self.queue.push(Reverse((at, self.number)));
        self.happenings.insert(self.number, happening);
    }

    /// Runs until `until`, or until a check fails.
    pub(crate) fn run_until(&mut self, until: u64) {
        while self.checks.violation.is_none() && self.next_at().is_some_and(|at| at <= until) {
            self.step();
        }
        self.now = self.now.max(until);
    }

    pub(crate) fn next_at(&self) -> Option<u64> {
        self.queue.peek().map(|Reverse((at, _))| *at)
    }

    /// One happening.
    pub(crate) fn step(&mut self) {
        let Some(Reverse((at, number))) = self.queue.pop() else {
            return;
        };
        self.now = at;
        let happening = self.happenings.remove(&number).unwrap();
        let (id, incarnation) = match &happening {
            Happening::Arrival {
                to, to_incarnation, ..
            } => (*to, *to_incarnation),
            Happening::Wake { node, incarnation } | Happening::Tick { node, incarnation } => {
                (*node, *incarnation)
            }
        };
        let node = &self.nodes[usize::try_from(id).unwrap()];
        if !node.alive || node.incarnation != incarnation {
            return;
        }
        if node.paused_until > at {
            let resumed = node.paused_until;
            self.push(resumed, happening);
            return;
        }
        match happening {
            Happening::Arrival {
                from,
                from_incarnation,
                body,
                ..
            } => {
                self.deliveries += 1;
                self.arrive(from, from_incarnation, id, &body);
            }
            Happening::Wake { .. } => {
                let node = &mut self.nodes[usize::try_from(id).unwrap()];
                if node.wake_at > at {
                    return;
                }
                node.wake_at = u64::MAX;
                let local = node.local(at);
                node.terms.handle_timeout(local, &node.toy);
            }
            Happening::Tick { .. } => {
                self.push(
                    at + TICK_US,
                    Happening::Tick {
                        node: id,
                        incarnation,
                    },
                );
                self.tick(id);
            }
        }
        self.drain(id);
        self.watch();
    }

    fn watch(&mut self) {
        let now = self.now;
        let acting: Vec<u64> = self
            .nodes
            .iter()
            .filter(|node| node.may_act(now))
            .map(|node| node.id)
            .collect();
        self.checks.acting(&acting);
    }

    // ---- a node's life ----

    fn send(&mut self, from: u64, to: u64, body: Body) {
        let is_record = matches!(body, Body::Records { .. });
        if to >= self.nodes.len() as u64 {
            return;
        }
        if let Body::Term(bytes) = &body {
            self.sent_bytes += bytes.len() as u64;
        }
        for at in self
            .network
            .route(self.now, from, to, is_record)
            .into_iter()
            .flatten()
        {
            let arrival = Happening::Arrival {
                from,
                from_incarnation: self.nodes[usize::try_from(from).unwrap()].incarnation,
                to,
                to_incarnation: self.nodes[usize::try_from(to).unwrap()].incarnation,
                body: body.clone(),
            };
            self.push(at, arrival);
        }
    }

    fn arrive(&mut self, from: u64, from_incarnation: u32, to: u64, body: &Body) {
        let now = self.now;
        let node = &mut self.nodes[usize::try_from(to).unwrap()];
        let local = node.local(now);
        // A link belongs to one process of a member.
        let listed = node.terms.roster().member(MemberId(from));
        let same = listed.is_none_or(|one| one.incarnation == from_incarnation);
        match body {
            Body::Join { incarnation } => {
                let wishes = &self.nodes[usize::try_from(from).unwrap()].policy;
                let member = TermMember {
                    id: MemberId(from),
                    incarnation: *incarnation,
                    can_host: wishes.can_host,
                    is_voter: false,
                    wants_vote: wishes.is_voter,
                };
                self.nodes[usize::try_from(to).unwrap()].terms.member_joined(member);
            }
            _ if !same => {}
            Body::Ping => {
                let rtt_us = self.network.quality.rtt_us + self.network.quality.jitter_us;
                if node.terms.host() != Some(MemberId(from)) {
                    node.terms.heard(local, MemberId(from));
                }
                node.terms.set_rtt(MemberId(from), rtt_us);
            }
            Body::Term(bytes) => {
                let message = TermMessage::decode(bytes).unwrap();
                if self.trace
                    && !matches!(
                        message,
                        TermMessage::Heartbeat { .. } | TermMessage::Echo { .. }
                    )
                {
                    eprintln!(
                        "{now:>9} {from} -> {to} {}",
                        crate::standing::brief(&message)
                    );
                }
                node.terms
                    .handle(local, MemberId(from), &message, &node.toy);
            }
            Body::Records {
                term,
                sent,
                after,
                records,
            } => {
                let terms = &node.terms;
                if terms.term().0 < *term {
                    // Its node follows the new host before its machine has heard of the term.
                    if !terms.has_renounced(Term(*term)) {
                        node.accept(*term, *sent);
                    }
                    node.early = Some((from, body.clone()));
                    return;
                }
                let current = terms.term().0 == *term && !terms.has_renounced(terms.term());
                if current && terms.host() == Some(MemberId(from)) && !terms.is_host() {
                    node.accept(*term, *sent);
                    node.terms.heard(local, MemberId(from));
                    self.take_records(to, *after, records);
                    let node = &mut self.nodes[usize::try_from(to).unwrap()];
                    let target = node.terms.handover_target();
                    if target.is_some_and(|(id, _)| id == MemberId(to)) {
                        node.terms.handle_timeout(local, &node.toy);
                    }
                }
            }
            Body::Inputs {
                term,
                held,
                seqs,
                ack,
            } => {
                if node.terms.term().0 == *term
                    && let Some(sent) = ack
                {
                    let held = Some(Tick::new(*held));
                    let member = MemberId(from);
                    node.terms
                        .acked(local, member, from_incarnation, *sent, held);
                }
                node.terms.heard(local, MemberId(from));
                let target = node.terms.handover_target();
                let is_target = target.is_some_and(|(id, _)| id == MemberId(to));
                if node.terms.term().0 == *term && (node.terms.is_host() || is_target) {
                    node.held_by.insert(from, *held);
                    node.received.insert(from, seqs.to_vec());
                }
            }
        }
    }

    fn take_records(&mut self, id: u64, after: u32, records: &[Record]) {
        let node = &mut self.nodes[usize::try_from(id).unwrap()];
        for (index, record) in (1..).zip(records) {
            let tick = Tick::new(after + index);
            if let Some(held) = node.toy.at(tick) {
                if held != record {
                    let text = format!("I6: {id} holds another tick {tick} than its host");
                    self.checks.fail(text);
                    return;
                }
            } else if tick == node.toy.newest().next() && !node.toy.append(record) {
                let text = format!("I6: tick {tick} of the host does not fit what {id} holds");
                self.checks.fail(text);
                return;
            }
        }
        self.show(id);
    }

    /// Shows the newest tick, if it is new.
    fn show(&mut self, id: u64) {
        let now = self.now;
        let node = &mut self.nodes[usize::try_from(id).unwrap()];
        let newest = node.toy.newest();
        if newest >= node.start && node.toy.show(newest) {
            if let Some(before) = node.shown_at {
                node.gap_us = node.gap_us.max(now - before);
            }
            node.shown_at = Some(now);
            let (term, incarnation) = (node.terms.term().0, node.incarnation);
            self.checks.shows(id, incarnation, term, newest);
        }
    }

    fn tick(&mut self, id: u64) {
        let now = self.now;
        let node = &mut self.nodes[usize::try_from(id).unwrap()];
        let local = node.local(now);
        node.ticks += 1;
        if node.forked {
            return;
        }
        if node.ticks.is_multiple_of(5) && node.unsafe_inputs.len() < INPUTS_MAX {
            node.unsafe_inputs.push(node.next_input);
            node.next_input += 1;
        }
        if !node.terms.is_member() && node.ticks % 12 == 1 {
            let incarnation = node.incarnation;
            for to in 0..u64::try_from(self.nodes.len()).unwrap() {
                if to != id {
                    self.send(id, to, Body::Join { incarnation });
                }
            }
        }
        if self.nodes[usize::try_from(id).unwrap()].ticks.is_multiple_of(30) {
            for to in 0..u64::try_from(self.nodes.len()).unwrap() {
                if to != id {
                    self.send(id, to, Body::Ping);
                }
            }
        }
        let node = &mut self.nodes[usize::try_from(id).unwrap()];
        if node.terms.is_host() {
            let next = node.toy.newest().next();
            if node.terms.may_run(local, next) {
                self.run_tick(id);
                self.show(id);
            }
            // Before the machine may end the term with this tick.
            let node = &self.nodes[usize::try_from(id).unwrap()];
            let hands_over = node.terms.handover_target().is_some();
            if hands_over || node.ticks.is_multiple_of(node.sends_every) {
                self.send_records(id);
            }
            let node = &mut self.nodes[usize::try_from(id).unwrap()];
            node.terms.handle_timeout(local, &node.toy);
        } else if let Some(host) = node.terms.host()
            && node.terms.is_member()
        {
            let term = node.terms.term().0;
            let accepted = node.accepted.filter(|(of, _)| *of == term);
            let body = Body::Inputs {
                term,
                held: node.toy.newest().number(),
                seqs: node.unsafe_inputs.clone().into(),
                ack: accepted.map(|(_, sent)| sent),
            };
            let target = node.terms.handover_target().map(|(target, _)| target.0);
            self.send(id, host.0, body.clone());
            if let Some(target) = target.filter(|&target| target != id && target != host.0) {
                self.send(id, target, body);
            }
        }
        if self.nodes[usize::try_from(id).unwrap()].terms.owes().is_some() {
            self.send_records(id);
        }
        self.settle_inputs(id);
    }

    fn run_tick(&mut self, id: u64) {
        let node = &mut self.nodes[usize::try_from(id).unwrap()];
        let term = node.terms.term();
        let mut inputs = Vec::new();
        node.received.insert(id, node.unsafe_inputs.clone());
        for (&client, seqs) in &node.received {
            let mut applied = node.toy.applied(client);
            for &seq in seqs {
                // A new process of a client counts from another number.
                if seq > applied {
                    inputs.push((client, seq));
                    applied = seq;
                }
            }
        }
        node.toy.step(term.0, inputs);
        node.counter += 1;
        let spawned = NetId::new(term, node.counter);
        let incarnation = node.incarnation;
        self.checks.spawned(id, incarnation, spawned);
    }

    fn send_records(&mut self, id: u64) {
        let now = self.now;
        let node = &self.nodes[usize::try_from(id).unwrap()];
        let members: Vec<u64> = if let Some((target, _)) = node.terms.owes() {
            vec![target.0]
        } else if node.may_act(now) {
            node.terms
                .roster()
                .members
                .iter()
                .map(|one| one.id.0)
                .collect()
        } else {
            return;
        };
        let term = node.terms.term().0;
        for to in members {
            if to == id {
                continue;
            }
            let node = &self.nodes[usize::try_from(id).unwrap()];
            let base = node.terms.roster().lineage.base().number();
            let after = node
                .held_by
                .get(&to)
                .copied()
                .unwrap_or(base.saturating_sub(2));
            let from = usize::try_from(after).unwrap();
            let log = node.toy.log();
            let upto = log.len().min(from + 120);
            let records: Arc<[Record]> = log.get(from..upto).unwrap_or_default().into();
            self.send(
                id,
                to,
                Body::Records {
                    term,
                    sent: self.nodes[usize::try_from(id).unwrap()].local(now),
                    after,
                    records,
                },
            );
        }
    }

    /// Forgets inputs that are safe, and has the promise kept.
    fn settle_inputs(&mut self, id: u64) {
        let node = &mut self.nodes[usize::try_from(id).unwrap()];
        let host_acts = !node.terms.is_host() || node.terms.may_act(node.local(self.now));
        if !node.terms.is_member() || !host_acts || node.terms.fence() > node.terms.term() {
            return;
        }
        let safe = node.terms.safe_tick().min(node.toy.newest());
        let from = usize::try_from(safe.number()).unwrap();
        let term = node.terms.term().0;
        self.checks.is_safe(term, safe, &node.toy);
        if node.unsafe_inputs.is_empty() {
            return;
        }
        let mut settled = Vec::new();
        for (index, record) in node.toy.log()[..from].iter().enumerate().rev().take(600) {
            for &(client, seq) in &record.inputs {
                if client == id && node.unsafe_inputs.contains(&seq) {
                    settled.push((seq, Tick::new(u32::try_from(index + 1).unwrap())));
                }
            }
        }
        for (seq, tick) in settled {
            node.unsafe_inputs.retain(|&one| one != seq);
            self.checks.promise(term, (id, seq), tick);
        }
    }

    /// Takes all outputs of a node.
    fn drain(&mut self, id: u64) {
        let now = self.now;
        loop {
            let node = &mut self.nodes[usize::try_from(id).unwrap()];
            let Some(decision) = node.terms.poll_decision() else {
                break;
            };
            self.carry_out(id, decision);
        }
        loop {
            let node = &mut self.nodes[usize::try_from(id).unwrap()];
            let Some((to, message)) = node.terms.poll_send() else {
                break;
            };
            let body = Body::Term(message.to_bytes().into());
            self.send(id, to.0, body);
        }
        let node = &mut self.nodes[usize::try_from(id).unwrap()];
        while let Some(event) = node.terms.poll_event() {
            if self.trace {
                eprintln!("{now:>9} {id} {event:?}");
            }
            if let TermEvent::HandoverAborted { reason, .. } = &event
                && *reason != HandoverFailure::LostLease
                && !node.terms.is_host()
            {
                let text = format!("I11: {id} hosts no more after a handover came to nothing");
                self.checks.fail(text);
            }
            self.events.push((now, id, event));
        }
        let due = node.terms.poll_timeout();
        if due < Time::FAR {
            let at = node.global(due).max(now + 1);
            if at < node.wake_at {
                node.wake_at = at;
                let incarnation = node.incarnation;
                self.push(
                    at,
                    Happening::Wake {
                        node: id,
                        incarnation,
                    },
                );
            }
        }
    }

    fn carry_out(&mut self, id: u64, decision: Decision) {
        let now = self.now;
        self.log(id, &format!("{decision:?}"));
        let node = &mut self.nodes[usize::try_from(id).unwrap()];
        match decision {
            Decision::BecomeHost(takeover) => {
                node.toy.take(&takeover.records);
                self.checks.takes_over(id, &takeover, &node.toy);
                let local = node.local(now);
                node.terms.handle_timeout(local, &node.toy);
                if !node.terms.is_host() {
                    let text = format!("{id} did not become host of term {}", takeover.term.0);
                    self.checks.fail(text);
                    return;
                }
                let incarnation = node.incarnation;
                self.checks.hosts(id, incarnation, takeover.term.0);
                node.counter = 0;
                node.start = takeover.start;
                node.held_by.clear();
                // The gap up to what others have been shown.
                while node.toy.newest().next() < takeover.start {
                    let term = node.terms.term();
                    node.toy.step(term.0, Vec::new());
                    node.counter += 1;
                    self.checks
                        .spawned(id, incarnation, NetId::new(term, node.counter));
                }
                // The first tick of the term does not wait for this node's clock.
                let node = &self.nodes[usize::try_from(id).unwrap()];
                if node.terms.may_run(local, node.toy.newest().next()) {
                    self.run_tick(id);
                    self.show(id);
                    self.send_records(id);
                }
            }
            Decision::Follow {
                start, keep, kind, ..
            } => {
                node.toy.truncate(keep.unwrap_or(Tick::ZERO));
                node.start = start;
                let voter = MemberId(id);
                let votes = &node.terms.certificate().votes;
                let vote = votes.iter().find(|vote| vote.voter == voter);
                if let Some(vote) = vote.filter(|_| kind == ElectionKind::Failover)
                    && node.toy.shown() > vote.shown
                {
                    let (before, now) = (vote.shown, node.toy.shown());
                    let text = format!("I3: {id} voted with {before} shown, and showed {now}");
                    self.checks.fail(text);
                    return;
                }
                node.received.clear();
                node.held_by.clear();
                if let Some((from, body)) = node.early.take() {
                    let incarnation = self.nodes[usize::try_from(from).unwrap()].incarnation;
                    self.arrive(from, incarnation, id, &body);
                }
            }
            Decision::StepDown { last, .. } => {
                if let Some(last) = last {
                    node.toy.truncate(last);
                }
            }
            Decision::Freeze | Decision::Thaw => {}
            Decision::Fork { .. } => node.forked = true,
        }
    }
}
