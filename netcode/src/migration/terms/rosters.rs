//! Taking over rosters: newer versions of the term's, and those of other terms, which are followed.

use crate::id::{MemberId, Term};
use crate::migration::api::{Authority, Decision, TermEvent};
use crate::migration::certificate::{Certificate, ElectionKind};
use crate::migration::roster::TermRoster;
use crate::tick::Tick;
use crate::time::Time;

use super::follower::Follower;
use super::known::Known;
use super::{Role, Terms};

impl Terms {
    /// Takes over a roster that is newer than its own; true if it was.
    pub(super) fn adopt(
        &mut self,
        now: Time,
        roster: &TermRoster,
        certificate: Option<&Certificate>,
        authority: &impl Authority,
    ) -> bool {
        if roster.number() <= self.roster.number() {
            return false;
        }
        if roster.term == self.roster.term {
            // Only the host makes versions, and it knows its own.
            if self.is_host() || roster.host != self.roster.host {
                return false;
            }
            self.learn_members(roster, now);
            self.roster = roster.clone();
            return true;
        }
        // A vote for oneself binds nobody once one has given up.
        let promised = self
            .attempt
            .as_ref()
            .map_or(self.promised, |one| one.before.0);
        if roster.term < promised || !self.decisions.is_empty() {
            return false;
        }
        self.follow(now, roster, certificate, authority);
        true
    }

    pub(super) fn follow(
        &mut self,
        now: Time,
        roster: &TermRoster,
        certificate: Option<&Certificate>,
        authority: &impl Authority,
    ) {
        let newest = authority.newest();
        let is_first = self.roster.term == Term(0);
        let keep = if is_first {
            Some(newest)
        } else {
            self.roster.lineage.common(newest, &roster.lineage)
        };
        let kept = keep.unwrap_or(Tick::ZERO);
        if kept < newest {
            self.event(TermEvent::LostTicks {
                first: kept.next(),
                last: newest,
            });
        }
        if self.is_host() {
            self.handover_lost();
            self.decisions.push_back(Decision::StepDown {
                term: self.roster.term,
                last: keep,
            });
        }
        let before = self.roster.host;
        self.learn_members(roster, now);
        self.roster = roster.clone();
        self.certificate = certificate.cloned().unwrap_or_default();
        (self.promised, self.vote) = (roster.term, None);
        self.highest = self.highest.max(roster.term);
        (self.attempt, self.election, self.incoming) = (None, None, None);
        // The target of a handover counts on the word of the grants, however long that lasts.
        if let Some(grant) = self.grant.take_if(|one| one.term == roster.term)
            && grant.target == roster.host
        {
            self.keep_word(grant.target, grant.until);
        }
        (self.farewell, self.grant) = (None, None);
        self.safe = self.safe.min(self.roster.lineage.base());
        let follower = match core::mem::replace(&mut self.role, Role::Over) {
            Role::Follower(follower) if before == roster.host => follower.again(now),
            Role::Follower(_) | Role::Host(_) | Role::Over => Follower::new(now),
        };
        self.role = Role::Follower(Box::new(follower));
        self.suspect_us = self.suspect_us.max(self.own_suspect_us());
        self.paced_by = 0;
        // The new host knows of nobody who hears whom.
        self.next_report = now;
        self.statistics.terms += 1;
        self.decisions.push_back(Decision::Follow {
            term: roster.term,
            host: roster.host,
            kind: roster.kind,
            base: roster.lineage.base(),
            start: roster.start,
            keep,
        });
        if !is_first {
            self.host_changed(before);
        }
    }

    pub(super) fn host_changed(&mut self, before: MemberId) {
        self.event(TermEvent::HostChanged {
            term: self.roster.term,
            host: self.roster.host,
            before,
            kind: self.roster.kind,
            data_loss_possible: self.roster.kind == ElectionKind::Unclean,
        });
    }

    /// Keeps facts about those in `roster` only; a new process of a member is a stranger.
    pub(super) fn learn_members(&mut self, roster: &TermRoster, now: Time) {
        let mut known = core::mem::take(&mut self.known);
        for member in &roster.members {
            let before = known.remove(&member.id);
            let same = before.filter(|one| one.incarnation == member.incarnation);
            let mut facts = same.unwrap_or_else(|| Known::new(member.incarnation, now));
            if roster.term > self.roster.term {
                // It was the host before who was suspected.
                facts.suspects_at = None;
            }
            self.known.insert(member.id, facts);
        }
    }
}
