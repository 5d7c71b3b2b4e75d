//! Whether a voter gives its vote, and to whom.

use core::cmp::Reverse;

use crate::id::MemberId;
use crate::limits::TERM_RECORDS_BYTES_MAX;
use crate::migration::api::{Authority, TermEvent};
use crate::migration::certificate::ElectionKind;
use crate::migration::message::TermMessage;
use crate::migration::roster::TermRoster;
use crate::tick::Tick;
use crate::time::Time;

use super::election::{Ballot, Request};
use super::{Role, Terms};

/// How much earlier than the candidate a voter may find an unclean election due, in microseconds.
const UNCLEAN_SLACK_US: u64 = 500_000;

impl Terms {
    /// Somebody asks for this node's vote.
    pub(super) fn vote_asked(
        &mut self,
        now: Time,
        from: MemberId,
        request: Request,
        roster: &TermRoster,
        authority: &impl Authority,
    ) {
        self.learn_promise(from, request.term);
        let term_before = self.roster.term;
        if !self.policy.ablation.no_gossip {
            self.adopt(now, roster, None, authority);
        }
        if self.roster.term != term_before {
            // First what that term took over; the request comes again.
            return;
        }
        if request.kind == ElectionKind::Handover {
            self.grant_asked(now, from, request, authority);
            return;
        }
        if request.term <= self.roster.term || request.term < self.promised {
            self.refuses(now, from, request.term.min(roster.term));
            return;
        }
        if !self.may_grant(now, from, request, roster, authority) {
            self.statistics.ignored += 1;
            return;
        }
        let is_new = self.vote != Some(from) || self.promised != request.term;
        if is_new {
            self.give_up(now);
            (self.promised, self.vote) = (request.term, Some(from));
            self.incoming = None;
            self.listen_on();
            self.statistics.voted += 1;
            self.event(TermEvent::Electing {
                candidate: from,
                term: request.term,
            });
        }
        self.stick(now, from, request.suspect_us);
        let ballot = self.ballot(request, roster, authority);
        let vote = TermMessage::Vote {
            term: request.term,
            seq: request.seq,
            position: ballot.position,
            shown: ballot.shown,
            upto: ballot.upto,
            records: ballot.records,
        };
        self.send(from, vote);
    }

    /// What it holds of the candidate's history. A voter that has promised more than the
    /// candidate's roster is worth has not taken that over: it may hold ticks of another branch.
    fn ballot(&self, request: Request, roster: &TermRoster, authority: &impl Authority) -> Ballot {
        let held = self.holds(authority);
        let shared = self.roster.lineage.common(held, &roster.lineage);
        let newest = shared.unwrap_or(Tick::ZERO);
        let mut records = Vec::new();
        let mut upto = request.position;
        // Records of another branch stay here.
        if newest > request.position && newest == held {
            let reached =
                authority.records_after(request.position, TERM_RECORDS_BYTES_MAX, &mut records);
            if records.len() > TERM_RECORDS_BYTES_MAX {
                records.clear();
            }
            if !records.is_empty() {
                upto = reached.clamp(request.position, newest);
            }
        }
        Ballot {
            position: roster.lineage.position(newest),
            shown: authority.shown(),
            upto,
            records,
        }
    }

    /// Whether this node gives its vote: once per term, to whom it may, and against no word of its
    /// own.
    fn may_grant(
        &mut self,
        now: Time,
        from: MemberId,
        request: Request,
        roster: &TermRoster,
        authority: &impl Authority,
    ) -> bool {
        let ablation = self.policy.ablation;
        let votes = self.is_member() && self.roster.is_voter(self.me.member);
        let granted = self
            .grant
            .is_some_and(|one| one.term == request.term && one.target != from);
        // A vote for itself is void once it gives way, which is judged below.
        let gives_way = self
            .attempt
            .as_ref()
            .is_some_and(|one| one.term == request.term);
        let is_given = self.vote.is_some_and(|vote| vote != from);
        let spent = request.term == self.promised && is_given && !gives_way;
        if !votes || ((granted || spent) && !ablation.many_votes) {
            return false;
        }
        if self.may_act(now) || self.election.is_some() || !self.decisions.is_empty() {
            return false;
        }
        if let Some(attempt) = &self.attempt {
            // Of two candidates the one that holds less gives way.
            let own = (
                self.holds(authority),
                Reverse(self.place_of(self.me.member)),
            );
            let theirs = (request.position, Reverse(self.place_of(from)));
            if request.term < attempt.term || theirs < own {
                return false;
            }
        }
        let again = ablation.many_votes && request.term == self.promised;
        if !self.may_vote_for(now, from) && !again {
            return false;
        }
        if roster.number() < self.roster.number() && !ablation.any_candidate {
            if roster.term < self.roster.term || !ablation.no_gossip {
                self.send_news(now, from);
            }
            return false;
        }
        if self.roster.member(from).is_none() {
            return false;
        }
        let holds_floor = request.position >= roster.floor.tick;
        match request.kind {
            ElectionKind::Failover => {
                (roster.is_standby(from) && holds_floor) || ablation.any_candidate
            }
            ElectionKind::Incumbent => roster.host == from,
            ElectionKind::Unclean => {
                let Role::Follower(follower) = &self.role else {
                    // A host that is frozen is a voter like others.
                    return self.policy.unclean_after_us.is_some();
                };
                let since = follower.suspected_since.unwrap_or(now);
                let unclean_us = self.policy.unclean_after_us.unwrap_or(u64::MAX);
                now.micros_since(since) >= unclean_us.saturating_sub(UNCLEAN_SLACK_US)
            }
            ElectionKind::Founding | ElectionKind::Handover => false,
        }
    }

    /// Who comes first where positions are equal.
    fn place_of(&self, id: MemberId) -> (usize, MemberId) {
        let place = self
            .roster
            .standbys
            .iter()
            .position(|&standby| standby == id);
        let is_host = id == self.roster.host;
        (
            if is_host {
                0
            } else {
                place.map_or(usize::MAX, |place| place + 1)
            },
            id,
        )
    }
}
