//! What must hold whatever happens: the invariants of safety, and when all are in step (I9). That
//! machines neither grow nor talk more and more (I13), and what their messages survive (I12), is in
//! scenarios of their own.

use std::collections::BTreeMap;

use phalanx_netcode::id::NetId;
use phalanx_netcode::migration::{Authority, HandoverFailure, Takeover};
use phalanx_netcode::tick::Tick;

use crate::toy::Toy;

/// Observers of all nodes. The first violation is kept.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    pub(crate) violation: Option<String>,
    hosts: BTreeMap<u32, (u64, u32)>,
    ids: BTreeMap<NetId, (u64, u32)>,
    shown: BTreeMap<(u64, u32), (u32, u32)>,
    /// The newest tick that was promised to be safe, its hash, and the term that promised it.
    safe: Option<(Tick, u64, u32)>,
    /// Inputs that were promised to be safe.
    promised: BTreeMap<(u64, u32), Tick>,
    /// Whether an election has put promises at risk, and said so.
    pub(crate) unclean: bool,
    /// The term of the last such election: promises of terms before it count no more.
    unclean_term: u32,
    pub(crate) terms: u32,
}

impl Checks {
    pub(crate) fn fail(&mut self, text: String) {
        self.violation.get_or_insert(text);
    }

    /// I1: at most one host per term.
    pub(crate) fn hosts(&mut self, node: u64, incarnation: u32, term: u32) {
        let who = (node, incarnation);
        if let Some(before) = self.hosts.insert(term, who) {
            if before != who {
                self.fail(format!("I1: {before:?} and {who:?} host term {term}"));
            }
        } else {
            self.terms += 1;
        }
    }

    /// I2: at most one acts at any instant, each in its term; and none whose term a later one has
    /// followed that has promised anything.
    pub(crate) fn acting(&mut self, acting: &[(u64, u32)]) {
        if acting.len() > 1 {
            self.fail(format!("I2: {acting:?} act at once"));
        }
        if let Some((_, _, promised)) = self.safe
            && let Some((node, term)) = acting.iter().find(|(_, term)| *term < promised)
        {
            self.fail(format!(
                "I2: {node} acts in term {term}, something of term {promised} was safe"
            ));
        }
    }

    /// I3: what a player is shown goes forward.
    pub(crate) fn shows(&mut self, node: u64, incarnation: u32, term: u32, tick: Tick) {
        let new = (term, tick.number());
        if let Some(before) = self.shown.insert((node, incarnation), new)
            && (before >= new || before.1 >= new.1)
        {
            self.fail(format!("I3: {node} was shown {before:?} and then {new:?}"));
        }
    }

    /// I3: who has voted shows nothing more until it follows whom it has elected.
    pub(crate) fn voted_with(&mut self, node: u64, then: Tick, now: Tick) {
        if now > then {
            self.fail(format!(
                "I3: {node} voted with {then} shown, and showed {now}"
            ));
        }
    }

    /// I6: what the host sends fits what a follower holds.
    pub(crate) fn differs_from_host(&mut self, node: u64, tick: Tick) {
        self.fail(format!(
            "I6: {node} holds another tick {tick} than its host"
        ));
    }

    /// I11: a handover that came to nothing leaves the host in its term.
    pub(crate) fn aborted(&mut self, node: u64, reason: HandoverFailure, hosts: bool) {
        if reason != HandoverFailure::LostLease && !hosts {
            self.fail(format!(
                "I11: {node} hosts no more after a handover came to nothing"
            ));
        }
    }

    /// I9: once the faults are over all are in step soon.
    pub(crate) fn in_step_after(&mut self, us: u64, bound_us: u64) {
        if us > bound_us {
            self.fail(format!("I9: all are in step after {us} us only"));
        }
    }

    /// Somebody was told that all up to `tick` is safe.
    pub(crate) fn is_safe(&mut self, term: u32, tick: Tick, toy: &Toy) {
        if term < self.unclean_term {
            return;
        }
        let Some(hash) = toy.hash(tick) else {
            return;
        };
        match self.safe {
            Some((known, _, _)) if known > tick => {}
            Some((known, before, _)) if known == tick => {
                if before != hash {
                    self.fail(format!("I6: two histories of tick {tick} are safe"));
                }
            }
            _ => self.safe = Some((tick, hash, term)),
        }
    }

    /// An input was promised to be safe in the history that `tick` is of.
    pub(crate) fn promise(&mut self, term: u32, input: (u64, u32), tick: Tick) {
        if term >= self.unclean_term {
            self.promised.insert(input, tick);
        }
    }

    /// I6: a term takes over all that was safe in the terms before. One that begins when a later term
    /// has promised something (the target of a handover that slept) is void: it must never act.
    pub(crate) fn takes_over(&mut self, node: u64, takeover: &Takeover, toy: &Toy) {
        if takeover.data_loss_possible {
            self.unclean = true;
            self.unclean_term = takeover.term.0;
            (self.safe, self.promised) = (None, BTreeMap::new());
            return;
        }
        if let Some((tick, hash, promised)) = self.safe
            && promised <= takeover.term.0
        {
            let term = takeover.term.0;
            if takeover.base < tick {
                let base = takeover.base;
                self.fail(format!(
                    "I6: {node} begins term {term} at {base}, {tick} was safe"
                ));
            } else if toy.hash(tick) != Some(hash) {
                self.fail(format!(
                    "I6: {node} begins term {term} with another tick {tick}"
                ));
            }
        }
    }

    /// I7: an id is given once.
    pub(crate) fn spawned(&mut self, node: u64, incarnation: u32, id: NetId) {
        if let Some(before) = self.ids.insert(id, (node, incarnation)) {
            self.fail(format!("I7: {id} was given by {before:?} and by {node}"));
        }
    }

    /// I4: in the end, what was promised has happened exactly once.
    pub(crate) fn history(&mut self, toy: &Toy) {
        let mut times: BTreeMap<(u64, u32), u32> = BTreeMap::new();
        for record in toy.log() {
            for &input in &record.inputs {
                *times.entry(input).or_default() += 1;
            }
        }
        if let Some((input, count)) = times.iter().find(|(_, count)| **count > 1) {
            self.fail(format!("I4: input {input:?} acted {count} times"));
        }
        let lost = self
            .promised
            .keys()
            .find(|input| !times.contains_key(input));
        if let Some(input) = lost {
            let tick = self.promised[input];
            self.fail(format!(
                "I4: input {input:?} of tick {tick} was safe, and is lost"
            ));
        }
    }
}
