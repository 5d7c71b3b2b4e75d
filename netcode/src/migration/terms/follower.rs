//! Watching a host: echoes, suspicion, and what follows from it.

use crate::id::{MemberId, Term};
use crate::migration::api::{Authority, Decision, TermEvent};
use crate::migration::detector::Detector;
use crate::migration::message::TermMessage;
use crate::migration::roster::TermRoster;
use crate::tick::Tick;
use crate::time::Time;

use super::{Farewell, Role, Terms, look_at, second_look};

/// A node that does not host.
#[derive(Debug)]
pub(super) struct Follower {
    pub(super) detector: Detector,
    pub(super) suspected_since: Option<Time>,
    /// When this node saw, late, that it hears nothing of its host, and has not said so yet: it may
    /// have slept, and what came meanwhile waits.
    doubt: Option<Time>,
    /// For how long it has listened since then, and when it did last.
    listened_us: u64,
    listened_at: Time,
    /// Since when enough others suspect the host, too.
    pub(super) quorum_since: Option<Time>,
    /// It does not stand for election before.
    pub(super) stands_not_before: Time,
    /// Elections that it stood for in vain since it followed anybody.
    pub(super) failed: u32,
    /// Whether the session's ticks have begun, as far as the host has said.
    has_begun: bool,
}

impl Follower {
    pub(super) fn new(now: Time) -> Self {
        Self {
            detector: Detector::new(now),
            suspected_since: None,
            doubt: None,
            listened_us: 0,
            listened_at: now,
            quorum_since: None,
            stands_not_before: Time::ZERO,
            failed: 0,
            has_begun: false,
        }
    }

    /// The same host has another term: its pace is known.
    pub(super) fn again(self, now: Time) -> Self {
        let mut next = Self::new(now);
        (next.detector, next.has_begun) = (self.detector, self.has_begun);
        next.detector.skip(now);
        next
    }
}

impl Terms {
    /// What this node holds of the history that it follows, also while a decision to drop some
    /// has not been carried out.
    pub(super) fn holds(&self, authority: &impl Authority) -> Tick {
        let newest = authority.newest();
        let kept = self.decisions.iter().filter_map(|decision| {
            if let Decision::Follow { keep, .. } = decision {
                Some(keep.unwrap_or(Tick::ZERO))
            } else {
                None
            }
        });
        kept.fold(newest, Tick::min)
    }

    /// Silence after which this node suspects its host, in microseconds. Never less than the host
    /// says: it stops to act before.
    fn patience_us(&self, follower: &Follower) -> u64 {
        let (least_us, most_us) = (self.policy.suspect_us_min, self.policy.suspect_us_max);
        let own_us = follower.detector.patience_us().clamp(least_us, most_us);
        self.suspect_us.max(own_us)
    }

    /// Whether the host of the roster has stopped for ever: it said goodbye, or this is it.
    pub(super) fn host_is_gone(&self) -> bool {
        self.farewell.is_some() || self.is_retired()
    }

    /// Whether this node was the host of the roster's term, and hosts no more.
    pub(super) fn is_retired(&self) -> bool {
        self.roster.host == self.me.member && self.is_member() && !self.is_host()
    }

    /// A sign of life of the host.
    pub(super) fn host_heard(&mut self, now: Time) {
        let has_stopped =
            self.farewell.is_some() || self.grant.is_some_and(|one| one.commit.is_some());
        if self.promised != self.roster.term || has_stopped {
            return;
        }
        let host = self.roster.host;
        let limit_us = self.policy.suspect_us_max;
        if let Role::Follower(follower) = &mut self.role {
            // What was suspicious belongs to the pace, too: else it would be so each time.
            follower.detector.heard(now, limit_us);
            if follower.suspected_since.take().is_some() {
                (follower.quorum_since, follower.failed) = (None, 0);
                self.event(TermEvent::SuspicionEnded { host });
            }
        }
    }

    /// A lobby's pace says nothing of that of ticks, which is faster.
    pub(super) fn watch_pace(&mut self, tick: Tick) {
        if let Role::Follower(follower) = &mut self.role
            && tick > Tick::ZERO
            && !follower.has_begun
        {
            follower.has_begun = true;
            follower.detector.forget();
        }
    }

    /// A heartbeat of the host of the roster, in its term.
    pub(super) fn heartbeat(
        &mut self,
        now: Time,
        seq: u32,
        suspect_ms: u16,
        is_frozen: bool,
        authority: &impl Authority,
    ) {
        if self.is_host() {
            return;
        }
        let told_us = u64::from(suspect_ms) * 1000;
        if seq > self.paced_by {
            (self.paced_by, self.suspect_us) = (seq, told_us);
        }
        if self.farewell.is_some() {
            return;
        }
        if !is_frozen {
            self.host_heard(now);
        } else if self.suspects() {
            // Whoever has lost patience waits for an election, and is free to vote in it.
            return;
        }
        if self.gives_word() {
            // The host counts by what it said in this heartbeat, even if it comes late.
            self.stick(now, self.roster.host, self.suspect_us.max(told_us));
        }
        self.echo(seq, authority);
    }

    /// Whether this node's vote is still its host's to ask for.
    fn gives_word(&self) -> bool {
        self.promised == self.roster.term && !self.is_host() && self.is_member()
    }

    /// A tick datagram of the host was accepted, and will be acked.
    pub(super) fn give_word_for_ticks(&mut self, now: Time) {
        let has_stopped =
            self.farewell.is_some() || self.grant.is_some_and(|one| one.commit.is_some());
        if self.gives_word() && !has_stopped && !self.policy.ablation.no_tick_word {
            self.stick(now, self.roster.host, self.suspect_us);
        }
    }

    /// Tells the host that it was heard, and what this node holds.
    pub(super) fn echo(&mut self, seq: u32, authority: &impl Authority) {
        if !self.gives_word() {
            return;
        }
        let echo = TermMessage::Echo {
            term: self.roster.term,
            seq,
            position: self.roster.lineage.position(self.holds(authority)),
            version: self.roster.version,
        };
        self.send(self.roster.host, echo);
    }

    pub(super) fn follower_timeout(&mut self, now: Time, authority: &impl Authority) {
        let Role::Follower(follower) = &self.role else {
            return;
        };
        if self.roster.term == Term(0) {
            return;
        }
        let late_at = self.late_at(follower);
        let limit_us = self.policy.suspect_us_max;
        let has_left = self.farewell.is_some();
        if follower.suspected_since.is_none()
            && self.is_member()
            && let Role::Follower(follower) = &mut self.role
            && (second_look(&mut follower.doubt, now, late_at, limit_us) || has_left)
        {
            self.suspect(now);
        }
        if now >= self.next_report {
            self.report(now);
        }
        if now >= self.next_beat {
            if self.suspects() {
                self.next_beat = now.plus_micros(self.beat_us());
                self.tell_suspicion(authority);
            } else if self.incoming.is_some() || self.owes().is_some() {
                self.next_beat = now.plus_micros(self.beat_us());
            }
            self.handover_beat(now, authority);
        }
        self.forget_plan(now);
        self.settle_incoming(now, authority);
        self.consider_standing(now, authority);
        self.consider_fork(now, authority);
    }

    pub(super) fn suspect(&mut self, now: Time) {
        let host = self.roster.host;
        if let Role::Follower(follower) = &mut self.role {
            follower.suspected_since = Some(now);
            (follower.listened_us, follower.listened_at) = (0, now);
            follower.quorum_since = None;
        }
        // The host will not commit any more: what it prepared is void.
        if self.grant.is_none_or(|one| one.commit.is_none()) {
            self.incoming = None;
        }
        self.next_beat = now;
        self.event(TermEvent::HostSuspected { host });
    }

    fn tell_suspicion(&mut self, authority: &impl Authority) {
        let suspicion = TermMessage::Suspect {
            promised: self
                .promised
                .max(self.grant.map_or(Term(0), |grant| grant.term)),
            position: self.roster.lineage.position(self.holds(authority)),
            roster: self.roster.clone(),
        };
        for id in self.others() {
            let decides = self.roster.is_voter(id) || self.roster.is_standby(id);
            if decides || id == self.roster.host {
                self.send(id, suspicion.clone());
            }
        }
    }

    /// A member suspects the host of the roster that it knows.
    pub(super) fn suspicion(
        &mut self,
        now: Time,
        from: MemberId,
        promised: Term,
        position: Tick,
        roster: &TermRoster,
        authority: &impl Authority,
    ) {
        self.learn_promise(from, promised);
        self.highest = self.highest.max(roster.term);
        if !self.policy.ablation.no_gossip {
            self.adopt(now, roster, None, authority);
        }
        if roster.number() < self.roster.number() && !self.policy.ablation.no_gossip {
            self.send_news(now, from);
        }
        // Whoever has promised more than this term is worth cannot take it over any more, and has
        // no host either.
        let follows = roster.term == self.roster.term;
        if !follows && (roster.term > self.roster.term || promised <= self.roster.term) {
            return;
        }
        if let Some(known) = self.known.get_mut(&from) {
            known.suspects_at = Some(now);
            known.position = if follows { position } else { Tick::ZERO };
        }
        self.consider_standing(now, authority);
    }

    /// Whether a member's suspicion still counts.
    pub(super) fn is_suspecting(&self, now: Time, id: MemberId) -> bool {
        let fresh_us = 3 * self.policy.heartbeat_us_max + 50_000;
        let known = self.known.get(&id);
        known
            .and_then(|one| one.suspects_at)
            .is_some_and(|at| now.micros_since(at) < fresh_us)
    }

    /// The host, or another member, leaves for ever.
    pub(super) fn goodbye(
        &mut self,
        now: Time,
        term: Term,
        farewell: Farewell,
        authority: &impl Authority,
    ) {
        let from = farewell.host;
        if self.is_host() {
            self.member_left(from);
            return;
        }
        if from != self.roster.host || term != self.roster.term || self.farewell.is_some() {
            return;
        }
        self.farewell = Some(farewell);
        // It stopped before it said so: the word given to it is void.
        if self.sticky.is_some_and(|one| one.to == from) {
            self.sticky = None;
        }
        (self.incoming, self.grant) = (None, None);
        if !self.suspects() && self.is_member() {
            self.suspect(now);
        }
        self.follower_timeout(now, authority);
    }

    /// Goes on alone if it is one of two voters, and has listened long enough for the other one.
    fn consider_fork(&mut self, now: Time, authority: &impl Authority) {
        let Some(fork_us) = self.policy.fork_after_us else {
            return;
        };
        self.listen(now, fork_us);
        let Role::Follower(follower) = &self.role else {
            return;
        };
        let is_due = follower.suspected_since.is_some() && follower.listened_us >= fork_us;
        let own = self.roster.member(self.me.member);
        let able = self.policy.can_host && own.is_some_and(|own| own.can_host);
        let may = able && self.is_member() && self.attempt.is_none();
        // Whoever has lost its vote is one that others do without.
        let few = self.is_last_but_host() || self.policy.fork_minority;
        if is_due && may && few && self.election.is_none() && self.decisions.is_empty() {
            self.fork(authority);
        }
    }

    /// Whether this node is a member that has no say in who hosts.
    pub(crate) fn has_no_say(&self) -> bool {
        self.is_member() && !self.roster.is_voter(self.me.member)
    }

    /// Whether this node may go into the session that `other` has begun: it has no say in who hosts
    /// this one, and has listened for its host as long as `other` has to.
    pub(crate) fn may_go_along_with(&self, other: MemberId) -> bool {
        let (Role::Follower(follower), Some(fork_us)) = (&self.role, self.policy.fork_after_us)
        else {
            return false;
        };
        let is_alone = follower.suspected_since.is_some() && follower.listened_us >= fork_us;
        let is_free = self.attempt.is_none() && self.election.is_none() && self.incoming.is_none();
        is_alone && is_free && self.has_no_say() && self.roster.is_voter(other)
    }

    /// Whether this node votes, and nobody else does but the host.
    fn is_last_but_host(&self) -> bool {
        let me = self.me.member;
        let host = self.roster.host;
        self.roster.is_voter(me) && self.roster.voters().all(|id| id == me || id == host)
    }

    /// It has just voted: a while is the candidate's.
    pub(super) fn listen_on(&mut self) {
        let fork_us = self.policy.fork_after_us.unwrap_or(u64::MAX);
        let most_us = fork_us.saturating_sub(self.policy.suspect_us_max);
        if let Role::Follower(follower) = &mut self.role {
            follower.listened_us = follower.listened_us.min(most_us);
        }
    }

    /// Counts the time in which a suspected host could have been heard: one that slept has not
    /// listened, and listens for a while before it gives up anybody.
    fn listen(&mut self, now: Time, fork_us: u64) {
        let step_max_us = 2 * self.policy.heartbeat_us_max + 50_000;
        let after_sleep_us = fork_us.saturating_sub(self.policy.suspect_us_max);
        if let Role::Follower(follower) = &mut self.role {
            let step_us = now.micros_since(follower.listened_at);
            follower.listened_at = now;
            follower.listened_us = if step_us > step_max_us {
                follower.listened_us.min(after_sleep_us)
            } else {
                follower.listened_us + step_us
            };
        }
    }

    /// Goes on alone, in a session of its own.
    pub(super) fn fork(&mut self, authority: &impl Authority) {
        let newest = self.holds(authority);
        self.role = Role::Over;
        self.event(TermEvent::Forked);
        self.decisions.push_back(Decision::Fork {
            term: Term(self.highest.max(self.promised).0 + 1),
            base: newest,
            start: newest.max(authority.shown()).next(),
        });
    }

    /// When this node loses patience with its host.
    fn late_at(&self, follower: &Follower) -> Time {
        let heard_at = follower.detector.heard_at();
        heard_at.plus_micros(self.patience_us(follower))
    }

    pub(super) fn follower_due(&self, follower: &Follower) -> Time {
        if self.roster.term == Term(0) {
            return Time::FAR;
        }
        let late_at = look_at(follower.doubt, self.late_at(follower));
        let busy = self.incoming.is_some() || self.owes().is_some();
        let due = if follower.suspected_since.is_some() {
            self.next_beat
        } else if busy {
            self.next_beat.min(late_at)
        } else if self.is_member() {
            late_at
        } else {
            Time::FAR
        };
        due.min(self.next_report)
    }
}
