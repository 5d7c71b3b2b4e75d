//! Nodes in virtual time: each a term machine over a toy, and a clock of its own.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use phalanx_netcode::id::{MemberId, Term};
use phalanx_netcode::migration::{HostPolicy, Identity, TermEvent, TermMember, TermRoster, Terms};
use phalanx_netcode::tick::{Tick, TickRate};
use phalanx_netcode::time::Time;

use crate::checks::Checks;
use crate::network::Network;
use crate::node::{Body, Node};
use crate::toy::Toy;

const TICK_US: u64 = 16_667;

#[derive(Debug)]
pub(crate) enum Happening {
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
        let offset_us = 1_000_000 * id + 77;
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
            looked_at: (0, 0),
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

    pub(crate) fn machine(id: u64, incarnation: u32, policy: &HostPolicy, now: Time) -> Terms {
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
        let first = self.now + 1000 + 1900 * id % TICK_US;
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
        node.looked_at = (0, 0);
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

    pub(crate) fn log(&self, id: u64, what: &str) {
        if self.trace {
            eprintln!("{:>9} {id} {what}", self.now);
        }
    }

    // ---- time ----

    pub(crate) fn push(&mut self, at: u64, happening: Happening) {
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
        let acting: Vec<(u64, u32)> = self
            .nodes
            .iter()
            .filter(|node| node.may_act(now))
            .map(|node| (node.id, node.terms.term().0))
            .collect();
        self.checks.acting(&acting);
    }

    // ---- a node's life ----

    pub(crate) fn send(&mut self, from: u64, to: u64, body: Body) {
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
}
