//! Moving hosting as planned.
//!
//! The host says to whom; voters grant their vote to the target on the condition that the host
//! commits; the target asks for these grants again and again, so that it holds a lease by the time
//! that it begins. The host stops for ever and commits; the target takes over at the next tick.

use std::collections::BTreeMap;

use crate::id::{MemberId, Term};
use crate::limits::TERM_RECORDS_BYTES_MAX;
use crate::migration::api::{Authority, Decision, HandoverError, HandoverFailure, TermEvent};
use crate::migration::certificate::ElectionKind;
use crate::migration::detector::Detector;
use crate::migration::message::TermMessage;
use crate::tick::Tick;
use crate::time::Time;

use super::election::{Ballot, Request};
use super::follower::Follower;
use super::{Role, STICKY_MARGIN_US, Terms};

/// Time for a target to become ready, in microseconds.
const PATIENCE_US: u64 = 2_000_000;
/// Time more for a target that is ready, until the session's ticks come to the switch: where they wait
/// for a member that has lost its link, they never do, and it cannot come back meanwhile.
const SWITCH_US: u64 = 1_000_000;
/// Round trip by which the switch lies ahead, at most, in microseconds. What a host measures that has
/// slept says nothing.
const RTT_AHEAD_US: u64 = 500_000;
/// A plan that the host has not repeated for so long is off, in microseconds: many beats.
const PLAN_US: u64 = 1_000_000;
/// Ticks that a target may be behind.
const LAG_TICKS_MAX: u32 = 2;
/// Ticks by which the switch moves if the target is not ready at it.
const POSTPONE_TICKS: u32 = 4;

/// A handover, on the host.
#[derive(Debug)]
pub(super) struct Handover {
    pub(super) target: MemberId,
    /// The target's term, once it was prepared.
    pub(super) term: Option<Term>,
    pub(super) switch: Tick,
    deadline: Time,
    ready_at: Option<Time>,
}

/// A vote that counts if the host commits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grant {
    pub(super) term: Term,
    pub(super) target: MemberId,
    pub(super) switch: Tick,
    pub(super) until: Time,
    /// When the host named the target last; nothing once the plan is off.
    pub(super) named_at: Option<Time>,
    /// What the host has said when it stopped.
    pub(super) commit: Option<(Tick, u64)>,
}

/// A handover, on its target.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) term: Term,
    pub(super) ballots: BTreeMap<MemberId, Ballot>,
    /// When to give up, once the host has stopped.
    deadline: Option<Time>,
    /// The last ticks of the host, up to its very last, as it sent them with its commit.
    pub(super) records: Vec<u8>,
}

impl Terms {
    // ---- host ----

    /// Host: hands over to `target`, or to the best successor. Says to whom.
    ///
    /// # Errors
    /// If that cannot begin; see [`HandoverError`].
    pub fn request_handover(
        &mut self,
        now: Time,
        target: Option<MemberId>,
    ) -> Result<MemberId, HandoverError> {
        if !self.may_act(now) {
            return Err(HandoverError::NotHost);
        }
        let target = target
            .or_else(|| self.heir(now))
            .ok_or(HandoverError::Nobody)?;
        let able = self.roster.member(target).is_some_and(|one| one.can_host);
        if !able || target == self.me.member {
            return Err(HandoverError::CannotHost(target));
        }
        let Role::Host(host) = &mut self.role else {
            return Err(HandoverError::NotHost);
        };
        if host.handover.is_some() {
            return Err(HandoverError::UnderWay);
        }
        host.handover = Some(Handover {
            target,
            term: None,
            switch: Tick::MAX,
            deadline: now.plus_micros(PATIENCE_US),
            ready_at: None,
        });
        self.next_beat = now;
        Ok(target)
    }

    /// Host: calls a handover off. Nothing happens if none is under way, or if it is too late.
    pub fn cancel_handover(&mut self) {
        self.abort_handover(HandoverFailure::CalledOff);
    }

    /// The member that is about to host, and the first tick that it will host as planned: inputs
    /// from there on go to both.
    #[must_use]
    pub fn handover_target(&self) -> Option<(MemberId, Tick)> {
        match &self.role {
            Role::Host(host) => {
                let handover = host.handover.as_ref()?;
                handover.term.map(|_| (handover.target, handover.switch))
            }
            Role::Follower(_) => {
                let grant = self.grant.filter(|one| one.term > self.roster.term)?;
                let is_on = grant.named_at.is_some() || grant.commit.is_some();
                is_on.then_some((grant.target, grant.switch))
            }
            Role::Over => None,
        }
    }

    /// The first tick that this host does not run any more.
    pub(super) fn switch_tick(&self) -> Option<Tick> {
        match &self.role {
            Role::Host(host) => host.handover.as_ref().map(|handover| handover.switch),
            Role::Follower(_) | Role::Over => None,
        }
    }

    fn abort_handover(&mut self, reason: HandoverFailure) {
        let Role::Host(host) = &mut self.role else {
            return;
        };
        let Some(handover) = host.handover.take() else {
            return;
        };
        self.event(TermEvent::HandoverAborted {
            target: handover.target,
            reason,
        });
        if let Some(term) = handover.term {
            for id in self.others() {
                for _ in 0..2 {
                    self.send(id, TermMessage::Abort { term });
                }
            }
        }
    }

    /// This host has lost its term, or is about to.
    pub(super) fn handover_lost(&mut self) {
        self.abort_handover(HandoverFailure::LostLease);
    }

    /// Host: prepares, waits, and commits at the switch tick.
    pub(super) fn handover_progress(&mut self, now: Time, authority: &impl Authority) {
        let acts = self.may_act(now);
        let settled = self.is_roster_settled();
        let newest = authority.newest();
        let rtt_us = self.rtt_max_us().min(RTT_AHEAD_US);
        let highest = self.highest;
        let roster_term = self.roster.term;
        let beat_us = self.beat_us();
        let stride = self.stride.max(1);
        let in_stride = |tick: Tick| {
            let number = tick.number().checked_next_multiple_of(stride);
            number.map_or(tick, Tick::new)
        };
        let Role::Host(host) = &mut self.role else {
            return;
        };
        let Some(handover) = &mut host.handover else {
            return;
        };
        let (target, deadline) = (handover.target, handover.deadline);
        let Some(term) = handover.term else {
            let is_standby = self.roster.is_standby(target);
            let known = self.known.get(&target);
            let is_near = known.is_some_and(|one| {
                one.term == roster_term
                    && newest.since(one.held)
                        <= self.rate.ticks_in_us_ceil(rtt_us) + LAG_TICKS_MAX + 2
            });
            if acts && settled && is_standby && is_near {
                let lead_us = rtt_us + rtt_us / 2 + 2 * beat_us;
                handover.term = Some(Term(highest.max(roster_term).0 + 1));
                handover.switch = in_stride(newest.plus(self.rate.ticks_in_us_ceil(lead_us) + 1));
                self.highest = Term(highest.max(roster_term).0 + 1);
                self.next_beat = now;
            } else if now >= deadline {
                self.abort_handover(HandoverFailure::NotReady);
            } else if !acts {
                self.abort_handover(HandoverFailure::LostLease);
            }
            return;
        };
        if !acts {
            self.abort_handover(HandoverFailure::LostLease);
            return;
        }
        let fresh_us = 3 * beat_us + 10_000;
        let is_ready = handover
            .ready_at
            .is_some_and(|at| now.micros_since(at) < fresh_us);
        if newest.next() < handover.switch {
            let is_late = now >= deadline.plus_micros(SWITCH_US);
            if is_late || now >= deadline && !is_ready {
                self.abort_handover(HandoverFailure::NotReady);
            }
            return;
        }
        if is_ready {
            self.commit_handover(now, term, target, authority);
        } else if now >= deadline {
            self.abort_handover(HandoverFailure::NotReady);
        } else {
            handover.switch = in_stride(newest.plus(POSTPONE_TICKS));
        }
    }

    fn commit_handover(
        &mut self,
        now: Time,
        term: Term,
        target: MemberId,
        authority: &impl Authority,
    ) {
        let last = authority.newest();
        let commit = (last, authority.hash(last).unwrap_or(0));
        let (switch, until) = (last.next(), now);
        self.grant = Some(Grant {
            term,
            target,
            switch,
            until,
            named_at: None,
            commit: Some(commit),
        });
        if self.policy.ablation.act_after_commit {
            if let Role::Host(host) = &mut self.role {
                host.handover = None;
            }
        } else {
            (self.promised, self.vote) = (term, Some(target));
            self.stick(now, target, self.suspect_us);
            self.role = Role::Follower(Box::new(Follower::new(now)));
            self.decisions.push_back(Decision::StepDown {
                term: self.roster.term,
                last: Some(last),
            });
        }
        self.next_beat = now;
        for _ in 0..2 {
            self.tell_commit(authority);
        }
        self.next_beat = now.plus_micros(self.beat_us());
    }

    /// The host that has stopped, until the target's term begins: the target may still lack ticks up
    /// to this one, which nobody else has. To send them is no act of a host: they are part of the
    /// history that it has handed on.
    #[must_use]
    pub fn owes(&self) -> Option<(MemberId, Tick)> {
        let grant = self.grant.filter(|_| self.is_retired())?;
        let (last, _) = grant.commit?;
        Some((grant.target, last))
    }

    /// The host that has stopped: to all, until the target's term begins.
    fn tell_commit(&mut self, authority: &impl Authority) {
        let Some(grant) = self.grant else {
            return;
        };
        let Some((last, hash)) = grant.commit else {
            return;
        };
        let commit = TermMessage::Commit {
            term: grant.term,
            target: grant.target,
            last,
            hash,
            upto: Tick::ZERO,
            records: Vec::new(),
        };
        for id in self.others() {
            if id != grant.target {
                self.send(id, commit.clone());
            }
        }
        // What the target may lack goes with it: once it is told, nobody sends that again.
        let known = self.known.get(&grant.target);
        let known = known.filter(|one| one.term == self.roster.term);
        let held = known.map_or(Tick::ZERO, |one| one.held).min(last);
        let mut records = Vec::new();
        let mut upto = authority.records_after(held, TERM_RECORDS_BYTES_MAX, &mut records);
        if records.len() > TERM_RECORDS_BYTES_MAX || upto != last {
            records.clear();
            upto = held;
        }
        self.send(
            grant.target,
            TermMessage::Commit {
                term: grant.term,
                target: grant.target,
                last,
                hash,
                upto,
                records,
            },
        );
    }

    /// What goes out with heartbeats while a handover is under way.
    pub(super) fn handover_beat(&mut self, now: Time, authority: &impl Authority) {
        match &self.role {
            Role::Host(host) => {
                let Some(handover) = &host.handover else {
                    return;
                };
                let Some(term) = handover.term else {
                    return;
                };
                let prepare = TermMessage::Prepare {
                    term,
                    target: handover.target,
                    switch: handover.switch,
                };
                for id in self.others() {
                    self.send(id, prepare.clone());
                }
            }
            Role::Follower(_) if self.is_retired() => self.tell_commit(authority),
            Role::Follower(_) if self.incoming.is_some() => self.ask_grants(now, authority),
            Role::Follower(_) | Role::Over => {}
        }
    }

    pub(super) fn target_ready(&mut self, now: Time, from: MemberId, term: Term) {
        if let Role::Host(host) = &mut self.role
            && let Some(handover) = &mut host.handover
            && handover.target == from
            && handover.term == Some(term)
        {
            handover.ready_at = Some(now);
        }
    }

    // ---- voters and the target ----

    pub(super) fn prepared(
        &mut self,
        now: Time,
        from: MemberId,
        term: Term,
        target: MemberId,
        switch: Tick,
    ) {
        self.highest = self.highest.max(term);
        let known = from == self.roster.host && !self.is_host() && !self.host_is_gone();
        if !known || term <= self.promised || self.suspects() || !self.is_member() {
            self.statistics.ignored += 1;
            return;
        }
        let before = self.grant;
        if before.is_some_and(|one| one.term > term || (one.term == term && one.target != target)) {
            return;
        }
        let same = before.filter(|one| one.term == term);
        self.grant = Some(Grant {
            term,
            target,
            switch,
            until: same.map_or(Time::ZERO, |one| one.until),
            named_at: Some(now),
            commit: same.and_then(|one| one.commit),
        });
        let begins = self.incoming.as_ref().is_none_or(|one| one.term != term);
        if target == self.me.member && self.policy.can_host && begins {
            self.begin_incoming(now, term);
        }
    }

    /// A plan that the host repeats no more is off: its Abort may have been lost. The vote stays
    /// given, and the word lasts as long as it was given for.
    pub(super) fn forget_plan(&mut self, now: Time) {
        let is_off = |at: Time| now.micros_since(at) > PLAN_US;
        if let Some(grant) = &mut self.grant
            && grant.commit.is_none()
            && grant.named_at.take_if(|at| is_off(*at)).is_some()
        {
            self.incoming = None;
        }
    }

    fn begin_incoming(&mut self, now: Time, term: Term) {
        self.incoming = Some(Incoming {
            term,
            ballots: BTreeMap::new(),
            deadline: None,
            records: Vec::new(),
        });
        self.next_beat = now;
    }

    /// Target: asks for grants, and tells the host once there are enough.
    fn ask_grants(&mut self, now: Time, authority: &impl Authority) {
        let Some(incoming) = &self.incoming else {
            return;
        };
        let term = incoming.term;
        let request = TermMessage::VoteRequest {
            term,
            seq: self.beats.begin(now, self.suspect_us),
            suspect_ms: self.suspect_ms(),
            kind: ElectionKind::Handover,
            position: self.roster.lineage.position(self.holds(authority)),
            roster: self.roster.clone(),
        };
        for id in self.others() {
            if self.roster.is_voter(id) && id != self.roster.host {
                self.send(id, request.clone());
            }
        }
        self.tell_ready(now);
    }

    fn tell_ready(&mut self, now: Time) {
        if let Some(incoming) = &self.incoming {
            let term = incoming.term;
            if self.has_grants(now) {
                self.send(self.roster.host, TermMessage::Ready { term });
            }
        }
    }

    /// Whether enough voters have granted, and their word still holds for a while. The host's own
    /// vote comes with its commit.
    fn has_grants(&self, now: Time) -> bool {
        let Some(incoming) = &self.incoming else {
            return false;
        };
        let me = self.me.member;
        let host = self.roster.host;
        let granted = self.roster.voters().filter(|id| {
            let word = self.known.get(id).is_some_and(|one| one.lease_until > now);
            *id == me || *id == host || (incoming.ballots.contains_key(id) && word)
        });
        granted.count() >= self.roster.elect()
    }

    /// Voter: grants, if the host has named this target for this term.
    pub(super) fn grant_asked(
        &mut self,
        now: Time,
        from: MemberId,
        request: Request,
        authority: &impl Authority,
    ) {
        let Some(grant) = &mut self.grant else {
            return;
        };
        let named = grant.term == request.term && grant.target == from;
        if !named || request.term < self.promised || self.attempt.is_some() {
            return;
        }
        let word_us = request.suspect_us.saturating_sub(STICKY_MARGIN_US);
        grant.until = grant.until.max(now.plus_micros(word_us));
        let newest = self.holds(authority);
        let vote = TermMessage::Vote {
            term: request.term,
            seq: request.seq,
            position: self.roster.lineage.position(newest),
            shown: authority.shown(),
            upto: request.position,
            records: Vec::new(),
        };
        self.send(from, vote);
    }

    /// The host has stopped for ever, and `target` hosts.
    pub(super) fn committed(
        &mut self,
        now: Time,
        from: MemberId,
        term: Term,
        target: MemberId,
        (last, hash): (Tick, u64),
        authority: &impl Authority,
    ) {
        self.highest = self.highest.max(term);
        if from != self.roster.host || term < self.promised || term <= self.roster.term {
            self.statistics.ignored += 1;
            return;
        }
        if self.is_host() || self.attempt.is_some() {
            return;
        }
        let voted = term == self.promised && self.vote.is_some_and(|vote| vote != target);
        let granted = self
            .grant
            .is_some_and(|one| one.term == term && one.target != target);
        if voted || granted {
            return;
        }
        let is_first = self
            .grant
            .is_none_or(|one| one.term != term || one.commit.is_none());
        let until = self
            .grant
            .filter(|one| one.term == term)
            .map_or(Time::ZERO, |one| one.until);
        self.grant = Some(Grant {
            term,
            target,
            switch: last.next(),
            until,
            named_at: None,
            commit: Some((last, hash)),
        });
        if target == self.me.member {
            if !self.is_member() {
                // The target was another process of this member, and it is gone.
                return;
            }
            if is_first && self.incoming.is_none() && self.election.is_none() {
                // It had given the host up, or never heard of the plan. Nobody else can host this
                // term, so it asks for the grants now.
                self.begin_incoming(now, term);
            }
            let patience_us = 2 * self.suspect_us + self.rtt_max_us();
            if let Some(incoming) = &mut self.incoming {
                incoming
                    .deadline
                    .get_or_insert(now.plus_micros(patience_us));
            }
            self.settle_incoming(now, authority);
            return;
        }
        if is_first {
            // The old host's word is void, and the new one has its time.
            (self.promised, self.vote) = (term, Some(target));
            if self.sticky.is_some_and(|one| one.to == from) {
                self.sticky = None;
            }
            self.stick(now, target, self.suspect_us);
            if let Role::Follower(follower) = &mut self.role {
                follower.detector = Detector::new(now);
                (follower.suspected_since, follower.quorum_since) = (None, None);
            }
        }
    }

    /// Target: takes over once the host has committed and all of its ticks are here.
    pub(super) fn settle_incoming(&mut self, now: Time, authority: &impl Authority) {
        let Some(incoming) = &self.incoming else {
            return;
        };
        let term = incoming.term;
        let commit = self
            .grant
            .filter(|one| one.term == term)
            .and_then(|one| one.commit);
        let Some((last, hash)) = commit else {
            return;
        };
        if incoming.deadline.is_some_and(|deadline| now >= deadline) {
            // The records or the grants did not come: an election follows.
            self.incoming = None;
            if !self.suspects() {
                self.suspect(now);
            }
            return;
        }
        let lacks = self.holds(authority) < last;
        if !self.decisions.is_empty()
            || self.election.is_some()
            || (lacks && incoming.records.is_empty())
        {
            return;
        }
        if !self.has_grants(now) {
            // They are asked for again; if the host has been gone for long, it is suspected first.
            return;
        }
        let own_hash = authority.hash(last);
        if self.holds(authority) > last || own_hash.is_some_and(|own| hash != 0 && own != hash) {
            self.incoming = None;
            self.send(self.roster.host, TermMessage::Abort { term });
            return;
        }
        let Some(incoming) = self.incoming.take() else {
            return;
        };
        let records = (self.roster.host, last, incoming.records);
        let best = Some(records).filter(|_| lacks);
        let mut ballots = incoming.ballots;
        let position = self.roster.lineage.position(last);
        for id in [self.me.member, self.roster.host] {
            if self.roster.is_voter(id) {
                let ballot = Ballot {
                    position,
                    shown: last,
                    upto: last,
                    records: Vec::new(),
                };
                ballots.insert(id, ballot);
            }
        }
        // What voters have shown of the host's last ticks is no reason to leave ticks out.
        for ballot in ballots.values_mut() {
            ballot.shown = ballot.shown.min(last);
        }
        let fallback = (self.promised, self.vote);
        self.promised = term;
        self.vote = Some(self.me.member);
        self.win(
            term,
            ElectionKind::Handover,
            &ballots,
            fallback,
            best,
            authority,
        );
    }

    /// The host calls it off, or the target refuses, or a candidate stands no more.
    pub(super) fn aborted(&mut self, now: Time, from: MemberId, term: Term) {
        self.released(from, term);
        if from == self.roster.host {
            let is_this = self
                .grant
                .is_some_and(|one| one.term == term && one.commit.is_none());
            if is_this {
                // The vote of this term stays given; the word that went with it is void.
                if let Some(grant) = &mut self.grant {
                    (grant.until, grant.named_at) = (Time::ZERO, None);
                }
                self.incoming = None;
            }
            return;
        }
        if let Role::Host(host) = &self.role
            && host
                .handover
                .as_ref()
                .is_some_and(|one| one.target == from && one.term == Some(term))
        {
            self.abort_handover(HandoverFailure::Refused);
            return;
        }
        // It has stopped already: it stands again, as the one who holds everything.
        let refused = self
            .grant
            .is_some_and(|one| one.term == term && one.target == from);
        if refused && self.is_retired() {
            self.sticky = None;
            if let Some(grant) = &mut self.grant {
                grant.commit = None;
            }
            if let Role::Follower(follower) = &mut self.role {
                follower.suspected_since.get_or_insert(now);
            }
        }
    }
}
