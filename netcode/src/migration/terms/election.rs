//! Standing for election, voting, and taking office.

use core::cmp::Reverse;
use std::collections::BTreeMap;

use crate::hash::mix;
use crate::id::{MemberId, Term};
use crate::limits::{TERM_GAP_TICKS_MAX, TERM_STANDBYS_MAX};
use crate::migration::api::{Authority, Decision, Takeover, TermEvent};
use crate::migration::certificate::{CastVote, Certificate, ElectionKind};
use crate::migration::lineage::Position;
use crate::migration::message::TermMessage;
use crate::migration::roster::TermRoster;
use crate::tick::Tick;
use crate::time::Time;

use super::host::Host;
use super::{Role, Terms};

/// First pause after an election in vain, in microseconds; it doubles.
const RETRY_US: u64 = 40_000;
/// Doublings of it.
const RETRY_DOUBLINGS_MAX: u32 = 4;

/// An election that this node stands for.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) term: Term,
    pub(super) kind: ElectionKind,
    /// What it had promised, and voted, before it voted for itself.
    pub(super) before: (Term, Option<MemberId>),
    pub(super) ballots: BTreeMap<MemberId, Ballot>,
    pub(super) deadline: Time,
    /// When the request goes out again.
    pub(super) next_request: Time,
}

/// What a vote says.
#[derive(Clone, Debug)]
pub(super) struct Ballot {
    pub(super) position: Position,
    pub(super) shown: Tick,
    pub(super) upto: Tick,
    pub(super) records: Vec<u8>,
}

/// A request for a vote.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub(super) term: Term,
    pub(super) seq: u32,
    pub(super) suspect_us: u64,
    pub(super) kind: ElectionKind,
    pub(super) position: Tick,
}

/// An election that was won, until the node has taken over the records.
#[derive(Debug)]
pub(super) struct Election {
    roster: TermRoster,
    certificate: Certificate,
    before: MemberId,
    base: Tick,
    /// The promise to go back to if the records are of no use.
    fallback: (Term, Option<MemberId>),
}

impl Terms {
    /// Stands for election if it is this node's turn.
    pub(super) fn consider_standing(&mut self, now: Time, authority: &impl Authority) {
        let Role::Follower(follower) = &self.role else {
            return;
        };
        let able = self.policy.can_host
            && self.is_member()
            && self
                .roster
                .member(self.me.member)
                .is_some_and(|one| one.can_host);
        let free = self.attempt.is_none() && self.election.is_none() && self.incoming.is_none();
        let is_idle = free && self.decisions.is_empty();
        if follower.suspected_since.is_none() || !able || !is_idle || !authority.may_host() {
            return;
        }
        if self.count_suspecting(now) < self.roster.elect() {
            if let Role::Follower(follower) = &mut self.role {
                follower.quorum_since = None;
            }
            return;
        }
        let Role::Follower(follower) = &mut self.role else {
            return;
        };
        let quorum_since = *follower.quorum_since.get_or_insert(now);
        let suspected_since = follower.suspected_since.unwrap_or(now);
        if now < follower.stands_not_before || !self.may_vote_for(now, self.me.member) {
            return;
        }
        let Some((kind, rank)) = self.turn(now, suspected_since, authority) else {
            return;
        };
        let unclean_us = self
            .policy
            .unclean_after_us
            .filter(|_| kind == ElectionKind::Unclean);
        let since = quorum_since.max(suspected_since.plus_micros(unclean_us.unwrap_or(0)));
        // Whoever comes first gets the same start each time that all may stand again.
        let since = since.max(self.free_since(now));
        let step_us = 40_000 + self.rtt_max_us() / 2;
        if now.micros_since(since) >= rank * step_us {
            self.stand(now, kind, authority);
        }
    }

    /// Voters that suspect the host, this node included; a host that said goodbye agrees.
    fn count_suspecting(&self, now: Time) -> usize {
        let voters = self.roster.voters();
        voters
            .filter(|&id| {
                let has_left = self.farewell.is_some_and(|one| one.host == id);
                id == self.me.member || has_left || self.is_suspecting(now, id)
            })
            .count()
    }

    /// As what this node may stand now, and how many others come first.
    fn turn(
        &self,
        now: Time,
        suspected_since: Time,
        authority: &impl Authority,
    ) -> Option<(ElectionKind, u64)> {
        if self.is_retired() {
            return Some((ElectionKind::Incumbent, 0));
        }
        let me = self.me.member;
        let holds = self.holds(authority);
        let is_present = |id: MemberId| {
            let heard_at = self.known.get(&id).map(|one| one.heard_at);
            heard_at.is_some_and(|at| now.micros_since(at) < self.policy.demote_after_us * 3 / 2)
        };
        let place = self.roster.standbys.iter().position(|&id| id == me);
        let place = place.or(self.policy.ablation.any_candidate.then_some(0));
        if let Some(place) = place
            && (holds >= self.roster.floor.tick || self.policy.ablation.any_candidate)
        {
            if self.farewell.is_some_and(|one| one.successor == Some(me)) {
                return Some((ElectionKind::Failover, 0));
            }
            let ahead = self.roster.standbys.iter().take(place);
            let rank = ahead.filter(|&&id| is_present(id)).count();
            let rank = rank + usize::from(self.farewell.is_some());
            return Some((ElectionKind::Failover, rank as u64));
        }
        let unclean_us = self.policy.unclean_after_us?;
        if now.micros_since(suspected_since) < unclean_us {
            return None;
        }
        let ahead = self.roster.members.iter().filter(|one| {
            let other = self.known.get(&one.id);
            let holds_more =
                other.is_some_and(|other| (other.position, Reverse(one.id)) > (holds, Reverse(me)));
            one.can_host && one.id != me && self.is_suspecting(now, one.id) && holds_more
        });
        Some((ElectionKind::Unclean, ahead.count().min(4) as u64))
    }

    /// Asks for votes in a new term.
    pub(super) fn stand(&mut self, now: Time, kind: ElectionKind, authority: &impl Authority) {
        let granted = self.grant.map_or(Term(0), |grant| grant.term);
        let term = Term(self.highest.max(self.fence_of_all()).max(granted).0 + 1);
        self.highest = term;
        let mut ballots = BTreeMap::new();
        if self.roster.is_voter(self.me.member) {
            let newest = self.holds(authority);
            let own = Ballot {
                position: self.roster.lineage.position(newest),
                shown: authority.shown(),
                upto: newest,
                records: Vec::new(),
            };
            ballots.insert(self.me.member, own);
        }
        if let Some(farewell) = self.farewell
            && farewell.successor == Some(self.me.member)
            && self.roster.is_voter(farewell.host)
        {
            let theirs = Ballot {
                position: self.roster.lineage.position(farewell.position),
                shown: farewell.shown,
                upto: Tick::ZERO,
                records: Vec::new(),
            };
            ballots.insert(farewell.host, theirs);
        }
        let patience_us = (2 * self.rtt_max_us() + 100_000).max(self.policy.suspect_us_min);
        self.attempt = Some(Attempt {
            term,
            kind,
            before: (self.promised, self.vote),
            ballots,
            deadline: now.plus_micros(patience_us),
            next_request: now,
        });
        (self.promised, self.vote) = (term, Some(self.me.member));
        self.suspect_us = self.suspect_us.max(self.own_suspect_us());
        self.statistics.stood += 1;
        self.event(TermEvent::Electing {
            candidate: self.me.member,
            term,
        });
        self.attempt_beat(now, authority);
        self.count_votes(now, authority);
    }

    fn fence_of_all(&self) -> Term {
        let theirs = self.known.values().map(|one| one.promised).max();
        self.promised
            .max(self.roster.term)
            .max(theirs.unwrap_or_default())
    }

    /// Sends the request to those who have not voted yet.
    fn attempt_beat(&mut self, now: Time, authority: &impl Authority) {
        let next_request = now.plus_micros(self.beat_us());
        let Some(attempt) = &mut self.attempt else {
            return;
        };
        attempt.next_request = next_request;
        let (term, kind) = (attempt.term, attempt.kind);
        let asked: Vec<MemberId> = self
            .roster
            .voters()
            .filter(|id| *id != self.me.member && !attempt.ballots.contains_key(id))
            .collect();
        let request = TermMessage::VoteRequest {
            term,
            seq: self.beats.begin(now, self.suspect_us),
            suspect_ms: self.suspect_ms(),
            kind,
            position: self.roster.lineage.position(self.holds(authority)),
            roster: self.roster.clone(),
        };
        for id in asked {
            self.send(id, request.clone());
        }
    }

    pub(super) fn attempt_timeout(&mut self, now: Time, authority: &impl Authority) {
        self.attempt_expiry(now);
        if self
            .attempt
            .as_ref()
            .is_some_and(|attempt| now >= attempt.next_request)
        {
            self.attempt_beat(now, authority);
        }
    }

    fn attempt_expiry(&mut self, now: Time) {
        if self
            .attempt
            .as_ref()
            .is_some_and(|attempt| now >= attempt.deadline)
        {
            self.give_up(now);
        }
    }

    /// Stands no more; the vote for itself binds nobody then, and those for it are given back.
    pub(super) fn give_up(&mut self, now: Time) {
        let Some(attempt) = self.attempt.take() else {
            return;
        };
        (self.promised, self.vote) = attempt.before;
        if self.is_host() {
            self.forget_words(now, &attempt);
        } else {
            self.release_votes(attempt.term);
        }
        // Candidates that met once shall not meet again.
        let spread_us = RETRY_US + self.rtt_max_us();
        let jitter = mix(self.me.member.0, u64::from(attempt.term.0)) % spread_us;
        match &mut self.role {
            Role::Follower(follower) => {
                let doublings = follower.failed.min(RETRY_DOUBLINGS_MAX);
                follower.failed += 1;
                let pause_us = (RETRY_US << doublings) + jitter;
                follower.stands_not_before = now.plus_micros(pause_us);
                follower.quorum_since = None;
            }
            Role::Host(host) => host.stood_in_vain(now, jitter),
            Role::Over => {}
        }
    }

    /// A host that stood again in vain goes on in its term, without those who voted: their word was
    /// for the new one, and before that they may have elected another host.
    fn forget_words(&mut self, now: Time, attempt: &Attempt) {
        for voter in attempt.ballots.keys() {
            if let Some(known) = self.known.get_mut(voter) {
                known.forget_word();
            }
        }
        self.renew_lease(now);
    }

    /// A candidate that will never host `term` frees those who voted for it, so that the next one
    /// need not wait until their word ends. It counts on no word of theirs any more.
    fn release_votes(&mut self, term: Term) {
        for known in self.known.values_mut() {
            known.forget_word();
        }
        let voters: Vec<MemberId> = self.roster.voters().collect();
        for id in voters {
            if id != self.me.member {
                for _ in 0..2 {
                    self.send(id, TermMessage::Abort { term });
                }
            }
        }
    }

    /// A candidate stands no more: the vote that it had is free, and the word that went with it.
    pub(super) fn released(&mut self, from: MemberId, term: Term) {
        let was_given = self.promised == term && self.vote == Some(from);
        let by_handover = self.grant.is_some_and(|one| one.term == term);
        if !was_given || by_handover || from == self.roster.host || self.is_host() {
            return;
        }
        self.vote = None;
        self.sticky.take_if(|one| one.to == from);
        if let Role::Follower(follower) = &mut self.role {
            // Whoever comes first among those who are left comes first again.
            follower.quorum_since = None;
        }
    }

    /// Since when no word of its own and no pause keeps this node from standing, as far as that was
    /// so lately.
    fn free_since(&self, now: Time) -> Time {
        let Role::Follower(follower) = &self.role else {
            return now;
        };
        let me = self.me.member;
        let sticky = self.sticky.filter(|one| one.to != me).map(|one| one.until);
        let grant = self
            .grant
            .filter(|one| one.target != me)
            .map(|one| one.until);
        let word = sticky.max(grant).unwrap_or(Time::ZERO);
        word.max(follower.stands_not_before)
    }

    /// A vote, or the grant of a handover.
    pub(super) fn voted(
        &mut self,
        now: Time,
        from: MemberId,
        term: Term,
        seq: u32,
        ballot: Ballot,
        authority: &impl Authority,
    ) {
        // One that slept does not count what has come in the meantime.
        self.attempt_expiry(now);
        if !self.roster.is_voter(from) {
            return;
        }
        let Some((sent, suspect_us)) = self.beats.sent(seq) else {
            return;
        };
        let lease_us = suspect_us.saturating_sub(self.policy.lease_margin_us);
        let Some(known) = self.known.get_mut(&from) else {
            return;
        };
        let begins = if self.policy.ablation.late_lease {
            now
        } else {
            sent
        };
        if self
            .attempt
            .as_ref()
            .is_some_and(|attempt| attempt.term == term)
        {
            known.sample_rtt(now.micros_since(sent));
            known.give_word(sent, begins, lease_us);
            if let Some(attempt) = &mut self.attempt {
                attempt.ballots.insert(from, ballot);
            }
            self.count_votes(now, authority);
        } else if self
            .incoming
            .as_ref()
            .is_some_and(|incoming| incoming.term == term)
        {
            known.give_word(sent, begins, lease_us);
            if let Some(incoming) = &mut self.incoming {
                incoming.ballots.insert(from, ballot);
            }
            self.settle_incoming(now, authority);
        }
    }

    fn count_votes(&mut self, now: Time, authority: &impl Authority) {
        let Some(attempt) = &self.attempt else {
            return;
        };
        let voters = self.roster.voters();
        let votes = voters.filter(|id| attempt.ballots.contains_key(id)).count();
        if votes < self.roster.elect() {
            return;
        }
        let Some(attempt) = self.attempt.take() else {
            return;
        };
        let own = self.holds(authority);
        let best = attempt
            .ballots
            .iter()
            .filter(|(_, ballot)| ballot.upto > own && !ballot.records.is_empty())
            .max_by_key(|(id, ballot)| (ballot.upto, Reverse(**id)));
        let best = best.map(|(id, ballot)| (*id, ballot.upto, ballot.records.clone()));
        let _ = now;
        self.win(
            attempt.term,
            attempt.kind,
            &attempt.ballots,
            attempt.before,
            best,
            authority,
        );
    }

    /// Elected, or taking over as planned: tells the node what to begin with.
    pub(super) fn win(
        &mut self,
        term: Term,
        kind: ElectionKind,
        ballots: &BTreeMap<MemberId, Ballot>,
        fallback: (Term, Option<MemberId>),
        best: Option<(MemberId, Tick, Vec<u8>)>,
        authority: &impl Authority,
    ) {
        let own = self.holds(authority);
        let (records_from, base, records) = match best {
            Some((id, upto, records)) => (Some(id), upto, records),
            None => (None, own, Vec::new()),
        };
        // A voter may claim to have shown anything; the gap is run again, so it must stay small.
        let shown = ballots.values().map(|ballot| ballot.shown).max();
        let shown = shown.unwrap_or_default().max(authority.shown());
        let start = shown.min(base.plus(TERM_GAP_TICKS_MAX)).max(base).next();
        let votes = ballots.iter().map(|(id, ballot)| CastVote {
            voter: *id,
            position: ballot.position,
            shown: ballot.shown,
        });
        let certificate = Certificate {
            votes: votes.collect(),
        };
        let roster = self.next_roster(term, kind, base, own, start, ballots);
        let before = self.roster.host;
        self.decisions
            .push_back(Decision::BecomeHost(Box::new(Takeover {
                term,
                kind,
                before,
                base,
                start,
                records,
                records_from,
                certificate: certificate.clone(),
                data_loss_possible: kind == ElectionKind::Unclean,
            })));
        self.election = Some(Election {
            roster,
            certificate,
            before,
            base,
            fallback,
        });
    }

    /// The first roster of a term that this node hosts.
    fn next_roster(
        &self,
        term: Term,
        kind: ElectionKind,
        base: Tick,
        own: Tick,
        start: Tick,
        ballots: &BTreeMap<MemberId, Ballot>,
    ) -> TermRoster {
        let mut roster = self.roster.clone();
        let before = roster.host;
        (roster.term, roster.version, roster.kind) = (term, 0, kind);
        (roster.host, roster.start) = (self.me.member, start);
        roster.lineage = roster.lineage.continued(term, base);
        roster.standbys.retain(|&id| id != self.me.member);
        if kind == ElectionKind::Handover && roster.member(before).is_some_and(|one| one.can_host) {
            // It holds everything.
            roster.standbys.retain(|&id| id != before);
            roster.standbys.insert(0, before);
        }
        let wanted = self.policy.standbys_among(roster.members.len());
        for (id, ballot) in ballots {
            let can_host = roster.member(*id).is_some_and(|one| one.can_host);
            let near = ballot.position.tick.plus(32) >= base;
            let gone = self.farewell.is_some_and(|one| one.host == *id);
            let fits = roster.standbys.len() < wanted.min(TERM_STANDBYS_MAX);
            if can_host && near && fits && !gone && *id != roster.host && !roster.is_standby(*id) {
                roster.standbys.push(*id);
            }
        }
        roster.standbys.truncate(TERM_STANDBYS_MAX);
        // Whoever succeeds must hold what was safe; this node held it before it was elected.
        roster.floor = roster.lineage.position(own.min(base));
        roster
    }

    /// After [`Decision::BecomeHost`] was carried out: begins the term, or gives it up if the
    /// records were of no use.
    pub(super) fn take_office(&mut self, now: Time, authority: &impl Authority) {
        if self.election.is_none() || !self.decisions.is_empty() {
            return;
        }
        let Some(election) = self.election.take() else {
            return;
        };
        if authority.newest() < election.base || !authority.may_host() {
            (self.promised, self.vote) = election.fallback;
            self.decisions.push_back(Decision::StepDown {
                term: election.roster.term,
                last: None,
            });
            self.role = Role::Follower(Box::new(super::follower::Follower::new(now)));
            self.release_votes(election.roster.term);
            return;
        }
        self.roster = election.roster;
        self.certificate = election.certificate;
        (self.promised, self.vote) = (self.roster.term, Some(self.me.member));
        self.highest = self.highest.max(self.roster.term);
        (self.farewell, self.grant, self.incoming) = (None, None, None);
        self.safe = self.safe.min(self.roster.lineage.base());
        let old = core::mem::replace(&mut self.role, Role::Over);
        let mut host = Host::new(self.roster.clone(), false, now);
        if let Role::Host(before) = old {
            host.inherit(*before);
        }
        self.role = Role::Host(Box::new(host));
        for known in self.known.values_mut() {
            (known.echoed_at, known.told) = (now, 0);
            known.suspects_at = None;
        }
        self.suspect_us = self.own_suspect_us();
        self.paced_by = 0;
        self.statistics.terms += 1;
        self.next_beat = now;
        self.host_changed(election.before);
        self.renew_lease(now);
    }
}
