//! The term machine of one node.
//!
//! What all roles share is here: facts about members, messages, sending; promises are in
//! `promises.rs`, and how rosters are taken over in `rosters.rs`.
//! `readiness.rs` knows who hears whom: whoever is not heard by the others has no vote.
//! `follower.rs` watches the host, `election.rs` stands and votes, `host.rs` keeps the lease and
//! the roster, `standbys.rs` chooses who succeeds, `handover.rs` moves hosting as planned.

mod election;
mod follower;
mod handover;
mod host;
mod known;
mod promises;
mod readiness;
mod rosters;
mod standbys;
mod voting;

use std::collections::{BTreeMap, VecDeque};

use crate::id::{MemberId, Term};
use crate::limits::{EVENTS_MAX, TERM_SENDS_MAX};
use crate::migration::api::{Authority, Decision, TermEvent, TermsStatistics};
use crate::migration::certificate::Certificate;
use crate::migration::message::TermMessage;
use crate::migration::roster::TermRoster;
use crate::session::hosting::HostPolicy;
use crate::tick::{Tick, TickRate};
use crate::time::Time;

use self::election::{Attempt, Election};
use self::follower::Follower;
use self::handover::{Grant, Incoming};
use self::host::Host;
use self::known::{Beats, Known};

/// How much earlier than the suspicion time a voter's word ends, in microseconds. Less than any
/// lease's margin.
const STICKY_MARGIN_US: u64 = 20_000;
/// Round trip that is assumed before one is measured, in microseconds.
const RTT_UNKNOWN_US: u64 = 100_000;
/// Time between two times that somebody is told of a newer term, in microseconds.
const NEWS_US: u64 = 30_000;

/// After a sleep what has come meanwhile is still to be read: what follows from silence waits for so
/// long, in microseconds.
const LOOK_US: u64 = 1000;

/// Whether what is due at `due` has come true. Whoever sees that in time, or much too late, needs no
/// second look; else `doubt` keeps when it was seen first.
fn second_look(doubt: &mut Option<Time>, now: Time, due: Time, limit_us: u64) -> bool {
    if now < due {
        *doubt = None;
        return false;
    }
    let late_us = now.micros_since(due);
    let first = *doubt.get_or_insert(now);
    let is_clear = late_us <= LOOK_US || late_us > limit_us;
    let is_true = is_clear || now.micros_since(first) >= LOOK_US;
    if is_true {
        *doubt = None;
    }
    is_true
}

/// When to look at what is due at `due`.
fn look_at(doubt: Option<Time>, due: Time) -> Time {
    doubt.map_or(due, |first| first.plus_micros(LOOK_US))
}

/// Who a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The member.
    pub member: MemberId,
    /// Number of its process: another for each that joins under the same identity.
    pub incarnation: u32,
}

/// The term machine; see the [module](super).
///
/// Call `heard`, `handle`, `handle_timeout` or a command, then drain `poll_decision` (carry each
/// out before the next call that takes an [`Authority`]), `poll_send` and `poll_event`, and sleep
/// until `poll_timeout`.
#[derive(Debug)]
pub struct Terms {
    me: Identity,
    policy: HostPolicy,
    rate: TickRate,
    /// The newest roster that it knows; of term 0 before the first.
    roster: TermRoster,
    /// Why its host is its host, as far as it was told.
    certificate: Certificate,
    /// What is of a lower term is refused.
    promised: Term,
    /// Whom it gave its vote in `promised`.
    vote: Option<MemberId>,
    /// The highest term that it has heard of.
    highest: Term,
    sticky: Option<Sticky>,
    grant: Option<Grant>,
    incoming: Option<Incoming>,
    known: BTreeMap<MemberId, Known>,
    beats: Beats,
    role: Role,
    attempt: Option<Attempt>,
    election: Option<Election>,
    /// A host's goodbye in the term of the roster.
    farewell: Option<Farewell>,
    /// What the host last said was safe, or this host found to be.
    safe: Tick,
    /// Silence after which the host is suspected, as it says.
    suspect_us: u64,
    /// The newest heartbeat of the host of this term that said so; 0 for none.
    paced_by: u32,
    /// When heartbeats, suspicions or requests go out again.
    next_beat: Time,
    next_report: Time,
    reported_at: Time,
    load: (u16, u32),
    /// Handovers switch at a multiple of so many ticks.
    stride: u32,
    outgoing: VecDeque<(MemberId, TermMessage)>,
    decisions: VecDeque<Decision>,
    events: VecDeque<TermEvent>,
    statistics: TermsStatistics,
}

/// A voter's word: no vote for another than `to` before `until`.
#[derive(Clone, Copy, Debug)]
struct Sticky {
    to: MemberId,
    until: Time,
}

/// A host that left for ever, and for whom it votes.
#[derive(Clone, Copy, Debug)]
struct Farewell {
    host: MemberId,
    successor: Option<MemberId>,
    position: Tick,
    shown: Tick,
}

#[derive(Debug)]
enum Role {
    Follower(Box<Follower>),
    Host(Box<Host>),
    /// Left, or forked.
    Over,
}

impl Terms {
    /// The machine of the node that opens a session, or of one whose roster is known already.
    #[must_use]
    pub fn new(
        me: Identity,
        policy: HostPolicy,
        rate: TickRate,
        roster: TermRoster,
        now: Time,
    ) -> Self {
        let mut terms = Self::join(me, policy, rate, now);
        terms.promised = roster.term;
        terms.highest = roster.term;
        terms.learn_members(&roster, now);
        terms.roster = roster;
        if terms.roster.host == me.member && terms.is_member() {
            terms.role = Role::Host(Box::new(Host::new(terms.roster.clone(), true, now)));
            // It grows with the first that is far away. A word of those who come first that lasts
            // longer would bind them beyond the host's end.
            terms.suspect_us = terms.own_suspect_us();
        }
        terms
    }

    /// The machine of a node that joins: it follows as soon as the host sends a roster.
    #[must_use]
    pub fn join(me: Identity, policy: HostPolicy, rate: TickRate, now: Time) -> Self {
        let suspect_us = policy.suspect_us_max;
        Self {
            me,
            policy,
            rate,
            roster: TermRoster::default(),
            certificate: Certificate::default(),
            promised: Term(0),
            vote: None,
            highest: Term(0),
            sticky: None,
            grant: None,
            incoming: None,
            known: BTreeMap::new(),
            beats: Beats::default(),
            role: Role::Follower(Box::new(Follower::new(now))),
            attempt: None,
            election: None,
            farewell: None,
            safe: Tick::ZERO,
            suspect_us,
            paced_by: 0,
            next_beat: now,
            next_report: now,
            reported_at: Time::ZERO,
            load: (0, 0),
            stride: 1,
            outgoing: VecDeque::new(),
            decisions: VecDeque::new(),
            events: VecDeque::new(),
            statistics: TermsStatistics::default(),
        }
    }

    // ---- getters ----

    /// The newest roster that this node knows; of term 0 before it knows one.
    #[must_use]
    pub const fn roster(&self) -> &TermRoster {
        &self.roster
    }

    /// Why the host is the host, as far as this node was told.
    #[must_use]
    pub const fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The term that this node follows or hosts.
    #[must_use]
    pub const fn term(&self) -> Term {
        self.roster.term
    }

    /// Whatever is of a lower term must be dropped, even while no host of this one is known: this
    /// node has voted, and what it said that it holds must stay true.
    #[must_use]
    pub fn fence(&self) -> Term {
        if self.policy.ablation.no_fence {
            return self.roster.term;
        }
        self.promised.max(self.roster.term)
    }

    /// The host of [`Terms::term`], if it is known.
    #[must_use]
    pub fn host(&self) -> Option<MemberId> {
        (self.roster.term > Term(0)).then_some(self.roster.host)
    }

    /// Whether this node hosts. It may still be frozen; see [`Terms::may_act`].
    #[must_use]
    pub const fn is_host(&self) -> bool {
        matches!(self.role, Role::Host(_))
    }

    /// Whether this node, as host, may emit anything authoritative now: it holds a lease.
    #[must_use]
    pub fn may_act(&self, now: Time) -> bool {
        let Role::Host(host) = &self.role else {
            return false;
        };
        self.attempt.is_none()
            && self.election.is_none()
            && self.promised == self.roster.term
            && (host.lease_until > now || self.policy.ablation.no_lease)
    }

    /// Whether this node, as host, may run `tick` now: it may act, and no handover ends its term
    /// before.
    #[must_use]
    pub fn may_run(&self, now: Time, tick: Tick) -> bool {
        self.may_act(now) && self.switch_tick().is_none_or(|switch| tick < switch)
    }

    /// Host: the newest tick that every standby that counts holds. Follower: as the host last
    /// said.
    #[must_use]
    pub const fn safe_tick(&self) -> Tick {
        self.safe
    }

    /// Whether the host is suspected.
    #[must_use]
    pub const fn suspects(&self) -> bool {
        match &self.role {
            Role::Follower(follower) => follower.suspected_since.is_some(),
            Role::Host(_) | Role::Over => false,
        }
    }

    /// Whether this node is over: it left, or forked.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        matches!(self.role, Role::Over)
    }

    /// Counters.
    #[must_use]
    pub const fn statistics(&self) -> &TermsStatistics {
        &self.statistics
    }

    /// Whether this very process is a member of the roster.
    #[must_use]
    pub fn is_member(&self) -> bool {
        self.roster
            .member(self.me.member)
            .is_some_and(|one| one.incarnation == self.me.incarnation)
    }

    // ---- facts ----

    /// Something authentic arrived from this member; [`Terms::handle`] sees itself to messages. Of
    /// the host it must be a tick datagram of the roster's term that was accepted: that is a
    /// heartbeat, and whoever acks it gives its word with the ack.
    pub fn heard(&mut self, now: Time, from: MemberId) {
        if let Some(known) = self.known.get_mut(&from) {
            known.heard_at = now;
        }
        if from == self.roster.host {
            self.host_heard(now);
            self.give_word_for_ticks(now);
        }
    }

    /// Whether tick datagrams of the host of `term` must be refused and not be acked: this node has
    /// promised its vote to another, and an ack would be a promise to that one. What a host sends
    /// that has stopped may be taken.
    #[must_use]
    pub fn has_renounced(&self, term: Term) -> bool {
        // Unless it has voted in a later term since: what it said then that it holds must stay true.
        let has_stopped = self
            .grant
            .is_some_and(|one| one.commit.is_some() && self.promised <= one.term);
        self.fence() > term && !has_stopped
    }

    /// How this node copes: times that it stalled in the last minute, and the mean time that a
    /// tick takes, in microseconds. It counts when standbys are chosen.
    pub const fn set_load(&mut self, stalls: u16, tick_us: u32) {
        self.load = (stalls, tick_us);
    }

    /// Handovers from now on switch at a multiple of so many ticks: where only such ticks are shown,
    /// the first one of the new host is then shown at once.
    pub const fn set_stride(&mut self, ticks: u32) {
        self.stride = ticks;
    }

    /// A message from a member, authenticated by its link.
    pub fn handle(
        &mut self,
        now: Time,
        from: MemberId,
        message: &TermMessage,
        authority: &impl Authority,
    ) {
        if self.is_over() || from == self.me.member {
            return;
        }
        self.statistics.handled += 1;
        if let Some(known) = self.known.get_mut(&from) {
            known.heard_at = now;
        }
        match message {
            TermMessage::Heartbeat {
                term,
                seq,
                suspect_ms,
                is_frozen,
                tick,
                safe,
            } => {
                if self.refuses(now, from, *term) {
                    return;
                }
                if *term == self.roster.term && from == self.roster.host {
                    self.safe = self.safe.max(*safe);
                    self.watch_pace(*tick);
                    self.heartbeat(now, *seq, *suspect_ms, *is_frozen, authority);
                } else {
                    self.statistics.ignored += 1;
                }
            }
            TermMessage::NewTerm {
                seq,
                suspect_ms,
                certificate,
                roster,
            } => {
                self.highest = self.highest.max(roster.term);
                if self.adopt(now, roster, Some(certificate), authority)
                    || roster.number() == self.roster.number()
                {
                    self.certificate = certificate.clone();
                }
                if self.refuses(now, from, roster.term) {
                    return;
                }
                let is_hosts = from == self.roster.host && roster.term == self.roster.term;
                if is_hosts && *seq > 0 && !self.is_host() {
                    self.heartbeat(now, *seq, *suspect_ms, false, authority);
                }
            }
            TermMessage::RosterUpdate { roster } => {
                self.highest = self.highest.max(roster.term);
                let is_news = self.adopt(now, roster, None, authority);
                if is_news && from == self.roster.host && !self.is_host() {
                    // The host waits for this ack.
                    self.echo(0, authority);
                }
            }
            TermMessage::Echo {
                term,
                seq,
                position,
                version,
            } => self.echoed(now, from, *term, *seq, position.tick, *version, authority),
            TermMessage::Report {
                reached,
                median_us,
                p95_us,
                stalls,
                tick_us,
            } => {
                let cost_us = standbys::cost_us(*median_us, *p95_us, *stalls, *tick_us);
                if let Some(known) = self.known.get_mut(&from) {
                    known.cost_us = Some(cost_us);
                    known.reached.clone_from(reached);
                }
            }
            TermMessage::Suspect {
                promised,
                position,
                roster,
            } => self.suspicion(now, from, *promised, position.tick, roster, authority),
            TermMessage::VoteRequest {
                term,
                seq,
                suspect_ms,
                kind,
                position,
                roster,
            } => {
                let request = election::Request {
                    term: *term,
                    seq: *seq,
                    suspect_us: u64::from(*suspect_ms) * 1000,
                    kind: *kind,
                    position: position.tick,
                };
                self.vote_asked(now, from, request, roster, authority);
            }
            TermMessage::Vote {
                term,
                seq,
                position,
                shown,
                upto,
                records,
            } => {
                let ballot = election::Ballot {
                    position: *position,
                    shown: *shown,
                    upto: *upto,
                    records: records.clone(),
                };
                self.voted(now, from, *term, *seq, ballot, authority);
            }
            TermMessage::Stale { promised } => self.learn_promise(from, *promised),
            TermMessage::Prepare {
                term,
                target,
                switch,
            } => self.prepared(now, from, *term, *target, *switch),
            TermMessage::Ready { term } => self.target_ready(now, from, *term),
            TermMessage::Commit {
                term,
                target,
                last,
                hash,
                upto,
                records,
            } => {
                // Records that fall short of the last tick are of no use: others bring the rest.
                if *target == self.me.member
                    && upto == last
                    && let Some(incoming) = &mut self.incoming
                    && incoming.term == *term
                {
                    incoming.records.clone_from(records);
                }
                self.committed(now, from, *term, *target, (*last, *hash), authority);
            }
            TermMessage::Abort { term } => self.aborted(now, from, *term),
            TermMessage::Goodbye {
                term,
                successor,
                position,
                shown,
            } => {
                let farewell = Farewell {
                    host: from,
                    successor: *successor,
                    position: position.tick,
                    shown: *shown,
                };
                self.goodbye(now, *term, farewell, authority);
            }
            // It falls silent here, as one that is gone.
            TermMessage::Forked { .. } => self.statistics.ignored += 1,
        }
        self.settle(now, authority);
    }

    /// Time has passed, or a tick has run, or the target of a handover
    /// ([`Terms::handover_target`]) has got records.
    pub fn handle_timeout(&mut self, now: Time, authority: &impl Authority) {
        self.take_office(now, authority);
        match &self.role {
            Role::Host(_) => self.host_timeout(now, authority),
            Role::Follower(_) => self.follower_timeout(now, authority),
            Role::Over => return,
        }
        self.attempt_timeout(now, authority);
        self.settle(now, authority);
    }

    /// Leaves: a host names who shall succeed, and stops for ever. The machine is over; what it
    /// still has to say is in [`Terms::poll_send`], three times.
    pub fn leave(&mut self, now: Time, authority: &impl Authority) {
        if self.is_over() {
            return;
        }
        let hosts = self.is_host();
        let successor = if hosts { self.heir(now) } else { None };
        let goodbye = TermMessage::Goodbye {
            term: self.roster.term,
            successor,
            position: self.roster.lineage.position(authority.newest()),
            shown: authority.shown(),
        };
        for id in self.others() {
            if hosts || id == self.roster.host {
                for _ in 0..3 {
                    self.send(id, goodbye.clone());
                }
            }
        }
        (self.attempt, self.election, self.incoming) = (None, None, None);
        self.role = Role::Over;
    }

    // ---- outputs ----

    /// What the node must do, in order.
    pub fn poll_decision(&mut self) -> Option<Decision> {
        self.decisions.pop_front()
    }

    /// A message to a member. It may be lost.
    pub fn poll_send(&mut self) -> Option<(MemberId, TermMessage)> {
        let next = self.outgoing.pop_front()?;
        self.statistics.sent += 1;
        Some(next)
    }

    /// What happened.
    pub fn poll_event(&mut self) -> Option<TermEvent> {
        self.events.pop_front()
    }

    /// When [`Terms::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Time {
        if self.election.is_some() {
            return Time::ZERO;
        }
        let role = match &self.role {
            Role::Over => return Time::FAR,
            // One that stands again says nothing else until that is over.
            Role::Host(_) if self.attempt.is_some() => Time::FAR,
            Role::Host(host) => host.next_timeout(self.next_beat),
            Role::Follower(follower) => self.follower_due(follower),
        };
        let attempt = self.attempt.as_ref();
        role.min(attempt.map_or(Time::FAR, |one| one.deadline.min(one.next_request)))
    }

    // ---- sending ----

    fn others(&self) -> Vec<MemberId> {
        let others = self.roster.members.iter().map(|one| one.id);
        others.filter(|&id| id != self.me.member).collect()
    }

    fn send(&mut self, to: MemberId, message: TermMessage) {
        if self.outgoing.len() >= TERM_SENDS_MAX {
            self.outgoing.pop_front();
            self.statistics.overflowed += 1;
        }
        self.outgoing.push_back((to, message));
    }

    fn event(&mut self, event: TermEvent) {
        if self.events.len() >= EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    /// Tells somebody of the term that it does not know, now and then.
    fn send_news(&mut self, now: Time, to: MemberId) {
        if let Some(known) = self.known.get_mut(&to) {
            if now.micros_since(known.news_at) < NEWS_US {
                return;
            }
            known.news_at = now;
        }
        let news = TermMessage::NewTerm {
            seq: 0,
            suspect_ms: self.suspect_ms(),
            certificate: self.certificate.clone(),
            roster: self.roster.clone(),
        };
        self.send(to, news);
    }

    // ---- times ----

    /// The longest round trip to a voter, in microseconds.
    fn rtt_max_us(&self) -> u64 {
        let voters = self.roster.voters().filter(|&id| id != self.me.member);
        let heard = voters.filter_map(|id| self.known.get(&id));
        let longest = heard.filter_map(Known::rtt_us).max();
        longest.unwrap_or(RTT_UNKNOWN_US)
    }

    /// The suspicion time that suits what this node measures, in microseconds; whole milliseconds.
    ///
    /// On a host the lease that follows from it outlasts by a quarter the age that the word of its
    /// voters usually reaches, and the time is one and a half times what lies between two words.
    fn own_suspect_us(&self) -> u64 {
        let alone = self.roster.voter_count() <= 1;
        let rtt_us = if alone { 0 } else { self.rtt_max_us() };
        let mut us = 2 * rtt_us + 50_000;
        if let Role::Host(host) = &self.role
            && !alone
        {
            let age_us = host.pace.usual_age_us();
            let gap_us = age_us.saturating_sub(rtt_us);
            let lease_us = age_us + self.rate.tick_us().max(age_us / 4);
            us = us.max(lease_us + self.policy.lease_margin_us);
            us = us.max(gap_us * 3 / 2);
        }
        us.clamp(self.policy.suspect_us_min, self.policy.suspect_us_max)
            .next_multiple_of(1000)
    }

    fn suspect_ms(&self) -> u16 {
        u16::try_from(self.suspect_us / 1000).unwrap_or(u16::MAX)
    }

    /// Time between two heartbeats, suspicions or requests, in microseconds.
    fn beat_us(&self) -> u64 {
        let lease_us = self.suspect_us.saturating_sub(self.policy.lease_margin_us);
        let room_us = lease_us.saturating_sub(self.rtt_max_us() + 10_000);
        (room_us / 3).clamp(self.policy.heartbeat_us_min, self.policy.heartbeat_us_max)
    }

    /// Ends a mutation: what follows from the facts, and the checks of tests.
    fn settle(&mut self, now: Time, authority: &impl Authority) {
        if self.is_host() {
            self.tell_lease(now, authority);
        }
        debug_assert!(
            self.promised >= self.roster.term,
            "a term without a promise"
        );
        debug_assert!(
            self.known.len() <= self.roster.members.len(),
            "facts of strangers"
        );
    }
}
