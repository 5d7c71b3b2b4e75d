//! Who hears whom.
//!
//! A vote is worth something only where it can be asked for: members that have not met each other
//! cannot elect one of them, and where the host carried their greetings they never will without it.
//! So members report whom they hear, a host gives no vote to a member before all others that decide
//! hear it, and names no standby that too few of them hear. What it does not hear of for long
//! (paths that cannot be) it does not wait for.
//!
//! Safety does not depend on this: votes come and go by roster changes as ever.

use crate::id::MemberId;
use crate::limits::{SUSPECT_US_MAX, TERM_MEMBERS_MAX};
use crate::migration::api::Quorum;
use crate::migration::message::TermMessage;
use crate::migration::roster::TermRoster;
use crate::time::Time;

use super::{RTT_UNKNOWN_US, Role, Terms};

/// Time between two reports to the host, in microseconds.
const REPORT_US: u64 = 1_000_000;
/// The same when there is news.
const REPORT_NEWS_US: u64 = 50_000;
/// Silence after which a member is out of reach, in microseconds: links send at least each second.
const REACH_US: u64 = 2_500_000;
/// Silence after which a voter counts as not heard, in microseconds: whoever misses its host says so
/// each beat, and links send four times per second.
const HEARD_US: u64 = 1_200_000;
/// After so much time as a member a path that is missing counts as one that cannot be, in
/// microseconds.
const MEETING_US: u64 = 10_000_000;

impl Terms {
    /// What the node knows of its warm link to a member: the round trip, and when the newest datagram
    /// was sent that the member has echoed over it, `None` if it has not yet.
    pub fn set_link(
        &mut self,
        now: Time,
        member: MemberId,
        rtt_us: Option<u64>,
        echoed_at: Option<Time>,
    ) {
        let was_reached = self.reaches(now, member);
        let Some(known) = self.known.get_mut(&member) else {
            return;
        };
        if let Some(us) = rtt_us {
            known.rtt_us = Some(us.min(SUSPECT_US_MAX));
        }
        known.met_at = echoed_at;
        if !was_reached && self.reaches(now, member) {
            // The host may wait for that.
            let at = self.reported_at.plus_micros(REPORT_NEWS_US).max(now);
            self.next_report = self.next_report.min(at);
        }
    }

    /// Host: whether the others could elect a successor if this node were gone now, as far as it
    /// was told: a standby is heard by enough voters.
    #[must_use]
    pub fn is_replaceable(&self) -> bool {
        let Role::Host(host) = &self.role else {
            return false;
        };
        // Of a change that is under way some know, and some do not.
        let elects = |roster: &TermRoster| {
            let mut standbys = roster.standbys.iter();
            standbys.any(|&id| self.electors(id, roster) >= roster.elect())
        };
        host.is_settled && elects(&self.roster) && elects(&host.committed)
    }

    /// Who is there of those who vote, as far as this node hears.
    #[must_use]
    pub fn quorum(&self, now: Time) -> Quorum {
        let is_heard = |id: &MemberId| {
            let known = self.known.get(id);
            let heard_at = known.map(|one| one.met_at.unwrap_or_default().max(one.heard_at));
            *id == self.me.member || heard_at.is_some_and(|at| now.micros_since(at) < HEARD_US)
        };
        let small = |count: usize| u16::try_from(count).unwrap_or(u16::MAX);
        Quorum {
            voters: small(self.roster.voter_count()),
            heard: small(self.roster.voters().filter(is_heard).count()),
            needed: small(if self.is_host() {
                self.roster.keep()
            } else {
                self.roster.elect()
            }),
        }
    }

    /// Whether nothing is done in the session's name, as far as this node knows: its host is silent, or
    /// it hosts and may not act.
    #[must_use]
    pub fn stands_still(&self, now: Time) -> bool {
        match &self.role {
            Role::Host(_) => !self.may_act(now),
            Role::Follower(_) => self.suspects(),
            Role::Over => false,
        }
    }

    /// Whether any member besides the host may host. Where none may, a majority is of no use.
    #[must_use]
    pub fn has_heir(&self) -> bool {
        let mut members = self.roster.members.iter();
        members.any(|one| one.can_host && one.id != self.roster.host)
    }

    /// Whether a member and this node heard each other over their warm link lately.
    fn reaches(&self, now: Time, member: MemberId) -> bool {
        let met_at = self.known.get(&member).and_then(|known| known.met_at);
        met_at.is_some_and(|at| now.micros_since(at) < REACH_US)
    }

    /// Tells the host whom this node hears, and how well it would host.
    pub(super) fn report(&mut self, now: Time) {
        (self.reported_at, self.next_report) = (now, now.plus_micros(REPORT_US));
        let others = self.roster.members.iter();
        let others = others.filter(|one| one.id != self.me.member && one.id != self.roster.host);
        let matters = others.filter(|one| one.is_voter || one.wants_vote || one.can_host);
        let reached = matters.map(|one| one.id);
        let mut reached: Vec<MemberId> = reached.filter(|&id| self.reaches(now, id)).collect();
        reached.truncate(TERM_MEMBERS_MAX);
        let trips = self.others().into_iter();
        let trips = trips.filter_map(|id| self.known.get(&id)?.mean_rtt_us());
        let mut trips: Vec<u64> = trips.collect();
        trips.sort_unstable();
        let small = |us: u64| u32::try_from(us).unwrap_or(u32::MAX);
        let at = |percent: usize| {
            let index = (trips.len() * percent / 100).min(trips.len().saturating_sub(1));
            small(trips.get(index).copied().unwrap_or(RTT_UNKNOWN_US))
        };
        let report = TermMessage::Report {
            reached,
            median_us: at(50),
            p95_us: at(95),
            stalls: self.load.0,
            tick_us: self.load.1,
        };
        self.send(self.roster.host, report);
    }

    /// Host: whether two other members hear each other, as one of them last said.
    fn are_linked(&self, one: MemberId, other: MemberId) -> bool {
        let says = |id: MemberId, of: MemberId| {
            let known = self.known.get(&id);
            known.is_some_and(|known| known.reached.binary_search(&of).is_ok())
        };
        says(one, other) || says(other, one)
    }

    /// Host: whether a missing path to this member counts as one that cannot be.
    fn has_waited(&self, now: Time, id: MemberId) -> bool {
        let known = self.known.get(&id);
        known.is_some_and(|known| now.micros_since(known.since) >= MEETING_US)
    }

    /// Host: voters of `roster` besides it that could vote for `id`, itself included.
    fn electors(&self, id: MemberId, roster: &TermRoster) -> usize {
        let voters = roster.voters().filter(|&voter| voter != self.me.member);
        let hears = |&voter: &MemberId| voter == id || self.are_linked(voter, id);
        voters.filter(hears).count()
    }

    /// Host: whether a member is heard by as many voters as it takes to be elected without this
    /// node, or by all that there are.
    pub(super) fn is_electable(&self, id: MemberId, roster: &TermRoster) -> bool {
        let electors = self.electors(id, roster);
        let others = roster.voters().filter(|&voter| voter != self.me.member);
        electors >= roster.elect() || electors >= others.count()
    }

    /// Host: whether a member may become a standby of `roster`.
    pub(super) fn may_succeed(&self, now: Time, id: MemberId, roster: &TermRoster) -> bool {
        self.is_electable(id, roster) || self.has_waited(now, id)
    }

    /// Host: whether a member may vote in `roster`: all others that vote hear it, also those that are
    /// cut off for the moment until they have lost their votes, and those that succeed and are
    /// there. After long those that succeed will do.
    pub(super) fn may_vote(&self, now: Time, id: MemberId, roster: &TermRoster) -> bool {
        let is_here = |other: MemberId| {
            let known = self.known.get(&other);
            known.is_some_and(|one| now.micros_since(one.echoed_at) < self.policy.demote_after_us)
        };
        let misses =
            |other: MemberId| other != id && other != self.me.member && !self.are_linked(id, other);
        let mut standbys = roster.standbys.iter().copied();
        let misses_a_voter = || roster.voters().any(misses);
        let waits = standbys.any(|other| is_here(other) && misses(other))
            || (!self.has_waited(now, id) && misses_a_voter());
        !waits
    }
}
