//! What nodes do: what arrives is taken, ticks run, and what the machine decides is carried out.

use std::sync::Arc;

use phalanx_netcode::id::{MemberId, NetId, Term};
use phalanx_netcode::migration::{
    Authority, Decision, ElectionKind, TermEvent, TermMember, TermMessage,
};
use phalanx_netcode::tick::Tick;
use phalanx_netcode::time::Time;

use crate::node::Body;
use crate::toy::Record;
use crate::world::{Happening, World};

/// Inputs that a client has not been promised yet, at most.
const INPUTS_MAX: usize = 64;

impl World {
    pub(crate) fn arrive(&mut self, from: u64, from_incarnation: u32, to: u64, body: &Body) {
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
                self.nodes[usize::try_from(to).unwrap()]
                    .terms
                    .member_joined(member);
            }
            _ if !same => {}
            Body::Ping => {
                let rtt_us = self.network.quality.rtt_us + self.network.quality.jitter_us;
                if node.terms.host() != Some(MemberId(from)) {
                    node.terms.heard(local, MemberId(from));
                }
                // Over both ways, where none is cut.
                node.terms
                    .set_link(local, MemberId(from), Some(rtt_us), Some(local));
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
            let fits = if let Some(held) = node.toy.at(tick) {
                held == record
            } else {
                tick != node.toy.newest().next() || node.toy.append(record)
            };
            if !fits {
                self.checks.differs_from_host(id, tick);
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

    pub(crate) fn tick(&mut self, id: u64) {
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
        if self.nodes[usize::try_from(id).unwrap()]
            .ticks
            .is_multiple_of(30)
        {
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
        if self.nodes[usize::try_from(id).unwrap()]
            .terms
            .owes()
            .is_some()
        {
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
        // What was looked at in this term already held none of them.
        let (seen_term, seen) = node.looked_at;
        let seen = if seen_term == term { seen } else { 0 };
        let seen = seen.max(from.saturating_sub(600)).min(from);
        node.looked_at = (term, from);
        for (index, record) in node.toy.log()[..from].iter().enumerate().skip(seen) {
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
    pub(crate) fn drain(&mut self, id: u64) {
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
            if let TermEvent::HandoverAborted { reason, .. } = &event {
                self.checks.aborted(id, *reason, node.terms.is_host());
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
                if let Some(vote) = vote.filter(|_| kind == ElectionKind::Failover) {
                    self.checks.voted_with(id, vote.shown, node.toy.shown());
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
