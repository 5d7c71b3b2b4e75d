//! Hosting: heartbeats, the lease, the roster, and what is safe.

mod upkeep;

use std::collections::BTreeMap;

use crate::id::{MemberId, Term};
use crate::limits::{TERM_MEMBERS_MAX, TERM_VOTERS_MAX};
use crate::migration::api::{Authority, Decision, TermEvent};
use crate::migration::certificate::ElectionKind;
use crate::migration::detector::Pace;
use crate::migration::message::TermMessage;
use crate::migration::roster::{TermMember, TermRoster, keep_quorum};
use crate::tick::Tick;
use crate::time::Time;

use super::handover::Handover;
use super::known::{Known, TickWord};
use super::{Role, Terms, look_at, second_look};

/// Of so many heartbeats one goes to members that neither vote nor succeed.
const BYSTANDER_BEATS: u32 = 8;
/// Time between two heartbeats to a member whose acks of tick datagrams say as much, in
/// microseconds.
const CALM_US: u64 = 300_000;
/// Time after which the suspicion time may become shorter again, in microseconds.
const TUNE_US: u64 = 1_000_000;
/// Times that a member is told of a new term at full pace.
const TOLD_FAST: u32 = 12;
/// Time between two tellings after that, in microseconds.
const TOLD_SLOW_US: u64 = 250_000;
/// Time between two looks at who should succeed, in microseconds.
const RANKING_US: u64 = 1_000_000;

/// What a host keeps.
#[derive(Debug)]
pub(super) struct Host {
    /// Until when it may act.
    pub(super) lease_until: Time,
    /// The newest roster that counts alone.
    pub(super) committed: TermRoster,
    /// Whether the first roster of the term counts.
    pub(super) is_settled: bool,
    /// Whether the node was told to freeze.
    pub(super) is_frozen: bool,
    /// When it saw, late, that its lease was over, and has not frozen yet: what came meanwhile may
    /// say that it is not.
    doubt: Option<Time>,
    /// How old words become.
    pub(super) pace: Pace,
    frozen_since: Time,
    /// Since when it acts without a break. Before, silence may have been its own.
    acts_since: Time,
    /// Members that came, changed or went, and are not in the roster yet.
    wishes: BTreeMap<MemberId, Option<TermMember>>,
    /// Who should succeed, in order; not all need be in the roster yet.
    pub(super) wanted: Vec<MemberId>,
    pub(super) ranked_at: Time,
    pub(super) handover: Option<Handover>,
    /// Handover target that must become a standby first.
    began_at: Time,
    beats: u32,
    /// The suspicion time of the newest heartbeat, and the first one that said so.
    told_us: u64,
    told_by: u32,
    tuned_at: Time,
    /// Whether it has run a tick.
    has_begun: bool,
    stands_not_before: Time,
    failed: u32,
}

impl Host {
    pub(super) fn new(roster: TermRoster, is_settled: bool, now: Time) -> Self {
        let alone = roster.keep() <= 1 && roster.is_voter(roster.host);
        Self {
            lease_until: if alone { Time::FAR } else { Time::ZERO },
            wanted: roster.standbys.clone(),
            committed: roster,
            is_settled,
            is_frozen: false,
            doubt: None,
            pace: Pace::default(),
            frozen_since: now,
            acts_since: now,
            wishes: BTreeMap::new(),
            ranked_at: Time::ZERO,
            handover: None,
            began_at: now,
            beats: 0,
            told_us: 0,
            told_by: 0,
            tuned_at: now,
            has_begun: false,
            stands_not_before: Time::ZERO,
            failed: 0,
        }
    }

    /// Takes over from this node's own term before.
    pub(super) fn inherit(&mut self, before: Self) {
        self.wishes = before.wishes;
        self.is_frozen = before.is_frozen;
        self.pace = before.pace;
    }

    pub(super) fn stood_in_vain(&mut self, now: Time, jitter_us: u64) {
        let pause_us = (60_000 << self.failed.min(4)) + jitter_us;
        self.failed += 1;
        self.stands_not_before = now.plus_micros(pause_us);
    }

    pub(super) fn next_timeout(&self, next_beat: Time) -> Time {
        if self.is_frozen || self.lease_until == Time::FAR {
            next_beat
        } else {
            next_beat.min(look_at(self.doubt, self.lease_until))
        }
    }
}

impl Terms {
    // ---- commands ----

    /// Host: a member came, in this process, or something about it changed. It becomes part of the
    /// roster, and votes (if it wants to) once it has echoed.
    pub fn member_joined(&mut self, member: TermMember) {
        if let Role::Host(host) = &mut self.role
            && member.id != self.me.member
        {
            let room = self.roster.members.len() + host.wishes.len() < 2 * TERM_MEMBERS_MAX;
            if room || host.wishes.contains_key(&member.id) {
                host.wishes.insert(member.id, Some(member));
            }
        }
    }

    /// Host: a member is gone for ever.
    pub fn member_left(&mut self, member: MemberId) {
        if let Role::Host(host) = &mut self.role
            && member != self.me.member
            && (self.roster.member(member).is_some() || host.wishes.contains_key(&member))
        {
            host.wishes.insert(member, None);
        }
    }

    // ---- echoes ----

    #[expect(clippy::too_many_arguments, reason = "the fields of one message")]
    pub(super) fn echoed(
        &mut self,
        now: Time,
        from: MemberId,
        term: Term,
        seq: u32,
        position: Tick,
        version: u32,
        authority: &impl Authority,
    ) {
        if !self.is_host() || term != self.roster.term {
            self.statistics.ignored += 1;
            if term < self.roster.term {
                self.send_news(now, from);
            }
            return;
        }
        let sent = self.beats.sent(seq);
        let margin_us = self.policy.lease_margin_us;
        let newest = authority.newest();
        let Some(known) = self.known.get_mut(&from) else {
            return;
        };
        if known.term != term {
            (known.term, known.held, known.version) = (term, Tick::ZERO, 0);
            known.word = TickWord::default();
        }
        if let Some((sent, suspect_us)) = sent {
            known.sample_rtt(now.micros_since(sent));
            if let Some(least_us) = self.beats.least_since(seq) {
                known.word.confirm(now, seq, least_us);
            }
            let lease_us = suspect_us.saturating_sub(margin_us);
            known.give_word(sent, sent, lease_us);
        }
        known.echoed_at = now;
        // Nobody holds what has not run.
        known.held = known.held.max(position.min(newest));
        known.version = known.version.max(version);
        self.commit_roster();
        self.renew_lease(now);
        self.advance_safe(now, authority);
    }

    /// Host: the newest tick datagram of this term that a member has acked left at `sent`, and the
    /// member, in this process, holds all records up to `held`, if that is known. The lease and
    /// what is safe follow with the next [`Terms::handle_timeout`], or at once if the lease is over.
    pub fn acked(
        &mut self,
        now: Time,
        member: MemberId,
        incarnation: u32,
        sent: Time,
        held: Option<Tick>,
    ) {
        let Role::Host(host) = &self.role else {
            return;
        };
        let (is_over, is_of_term) = (host.lease_until <= now, sent >= host.began_at);
        let Some(known) = self.known.get_mut(&member) else {
            return;
        };
        let same = known.incarnation == incarnation && known.term == self.roster.term;
        if !same || !is_of_term {
            return;
        }
        if let Some(held) = held {
            known.held = known.held.max(held);
        }
        let Some(suspect_us) = known.word.acked(sent) else {
            return;
        };
        let lease_us = suspect_us.saturating_sub(self.policy.lease_margin_us);
        known.give_word(sent, sent, lease_us);
        known.echoed_at = now;
        if is_over {
            self.renew_lease(now);
        }
    }

    /// Whether those who hold the newest roster are enough among the voters of `roster`.
    fn is_held_by_quorum(&self, roster: &TermRoster) -> bool {
        let (term, version) = self.roster.number();
        let holds = |id: &MemberId| {
            let known = self.known.get(id);
            *id == self.me.member
                || known.is_some_and(|one| one.term == term && one.version >= version)
        };
        roster.voters().filter(holds).count() >= roster.keep()
    }

    fn commit_roster(&mut self) {
        let Role::Host(host) = &self.role else {
            return;
        };
        let settled = host.is_settled && host.committed.number() == self.roster.number();
        let counts = self.policy.ablation.no_commit
            || (self.is_held_by_quorum(&host.committed) && self.is_held_by_quorum(&self.roster));
        if settled || !counts {
            return;
        }
        let roster = self.roster.clone();
        if let Role::Host(host) = &mut self.role {
            (host.committed, host.is_settled) = (roster, true);
        }
    }

    /// Whether no change of the roster is under way.
    pub(super) fn is_roster_settled(&self) -> bool {
        match &self.role {
            Role::Host(host) => host.is_settled && host.committed.number() == self.roster.number(),
            Role::Follower(_) | Role::Over => false,
        }
    }

    /// What as many voters of `roster` as it takes to keep the term have reached at least: when their
    /// word ends, or when what they have answered left.
    fn kept_by(&self, roster: &TermRoster, of: impl Fn(&Known) -> Time) -> Time {
        let mut times = [Time::ZERO; TERM_VOTERS_MAX];
        let mut count = 0;
        for (place, id) in times.iter_mut().zip(roster.voters()) {
            *place = if id == self.me.member {
                Time::FAR
            } else {
                self.known.get(&id).map_or(Time::ZERO, &of)
            };
            count += 1;
        }
        let times = &mut times[..count];
        times.sort_unstable();
        let index = count.checked_sub(keep_quorum(count));
        index
            .and_then(|index| times.get(index))
            .copied()
            .unwrap_or(Time::ZERO)
    }

    /// Host: takes what [`Terms::acked`] was told into account. [`Terms::handle_timeout`] does so, too;
    /// called at once the machine knows better how steadily members answer.
    pub fn count_acks(&mut self, now: Time) {
        self.renew_lease(now);
    }

    pub(super) fn renew_lease(&mut self, now: Time) {
        let Role::Host(host) = &self.role else {
            return;
        };
        let kept = |of: fn(&Known) -> Time| {
            let of_newest = self.kept_by(&self.roster, of);
            of_newest.min(self.kept_by(&host.committed, of))
        };
        let until = kept(|one| one.lease_until);
        let answered = kept(|one| one.answered);
        let limit_us = self.policy.suspect_us_max;
        if let Role::Host(host) = &mut self.role {
            host.lease_until = until;
            if until > now {
                host.failed = 0;
            }
            // One that needs nobody's word has no pace.
            if answered < Time::FAR {
                host.pace.see(now, answered, limit_us);
            }
        }
    }

    /// Tells the node to freeze or to go on, if that has changed.
    pub(super) fn tell_lease(&mut self, now: Time, authority: &impl Authority) {
        if self.election.is_some() {
            return;
        }
        let acts = self.may_act(now);
        let is_of_term = self.attempt.is_none() && self.promised == self.roster.term;
        // So that a silence which was its own is never one of members: they are not evicted for it.
        let limit_us = self.policy.evict_after_us / 4;
        let Role::Host(host) = &mut self.role else {
            return;
        };
        if acts {
            host.doubt = None;
        }
        if acts != host.is_frozen {
            return;
        }
        if !acts && is_of_term && !second_look(&mut host.doubt, now, host.lease_until, limit_us) {
            return;
        }
        host.is_frozen = !acts;
        if acts {
            host.acts_since = now;
            self.event(TermEvent::Resumed);
            self.decisions.push_back(Decision::Thaw);
            self.advance_safe(now, authority);
        } else {
            host.frozen_since = now;
            self.statistics.frozen += 1;
            self.event(TermEvent::Frozen);
            self.decisions.push_back(Decision::Freeze);
        }
    }

    // ---- what is safe ----

    fn advance_safe(&mut self, now: Time, authority: &impl Authority) {
        let newest = authority.newest();
        let Role::Host(host) = &self.role else {
            return;
        };
        if self.policy.ablation.safe_at_once {
            self.safe = newest;
            return;
        }
        if !self.may_act(now) || !(host.is_settled || self.policy.ablation.early_safe) {
            return;
        }
        let mut counted = self.roster.standbys.clone();
        if !self.policy.ablation.no_commit {
            counted.extend(&host.committed.standbys);
        }
        let term = self.roster.term;
        let held = counted.iter().map(|id| {
            let known = self.known.get(id).filter(|one| one.term == term);
            known.map_or(Tick::ZERO, |one| one.held)
        });
        let all = held.min();
        // Without a standby nothing can be kept safer than here, unless one is about to be.
        let alone = || self.wanted_standbys(now).is_empty();
        let safe = all.or_else(|| alone().then_some(newest));
        self.safe = self.safe.max(safe.unwrap_or_default().min(newest));
    }

    // ---- heartbeats ----

    pub(super) fn host_timeout(&mut self, now: Time, authority: &impl Authority) {
        self.commit_roster();
        self.renew_lease(now);
        self.tell_lease(now, authority);
        self.advance_safe(now, authority);
        self.handover_progress(now, authority);
        if !self.is_host() {
            return;
        }
        self.maintain(now, authority);
        if now >= self.next_beat && self.attempt.is_none() {
            self.tune(now, authority.newest());
            self.next_beat = now.plus_micros(self.beat_us());
            self.beat(now, authority);
            self.handover_beat(now, authority);
        }
        self.consider_incumbency(now, authority);
        self.consider_host_fork(now, authority);
    }

    /// Longer paths have it suspected later at once; shorter ones earlier, after a while, and when
    /// ticks begin: a lobby has time, a match has not.
    fn tune(&mut self, now: Time, newest: Tick) {
        let own_us = self.own_suspect_us();
        let Role::Host(host) = &mut self.role else {
            return;
        };
        let begins =
            newest > Tick::ZERO && !core::mem::replace(&mut host.has_begun, newest > Tick::ZERO);
        if own_us > self.suspect_us || begins || now.micros_since(host.tuned_at) >= TUNE_US {
            self.suspect_us = own_us;
            host.tuned_at = now;
        }
    }

    /// Whether nothing is under way that heartbeats must hurry for.
    fn is_calm(&self, now: Time) -> bool {
        let Role::Host(host) = &self.role else {
            return false;
        };
        self.may_act(now) && self.is_roster_settled() && host.handover.is_none()
    }

    /// Whether a member acks tick datagrams, and knows all that a heartbeat would tell it.
    fn is_heard_by_ticks(&self, now: Time, id: MemberId) -> bool {
        let (Role::Host(host), Some(known)) = (&self.role, self.known.get(&id)) else {
            return false;
        };
        let (term, version) = self.roster.number();
        let rtt_us = known.rtt_us().unwrap_or(super::RTT_UNKNOWN_US);
        let fresh_us = rtt_us + 2 * (self.beat_us() + self.rate.tick_us());
        known.term == term
            && known.version >= version
            && known.word.knows(host.told_by)
            && now.micros_since(known.word.sent()) <= fresh_us
    }

    fn beat(&mut self, now: Time, authority: &impl Authority) {
        let is_frozen = !self.may_act(now);
        if is_frozen && self.policy.ablation.silent_when_frozen {
            return;
        }
        let Role::Host(host) = &mut self.role else {
            return;
        };
        host.beats = host.beats.wrapping_add(1);
        let for_all = host.beats % BYSTANDER_BEATS == 0;
        let seq = self.beats.begin(now, self.suspect_us);
        if host.told_us != self.suspect_us {
            (host.told_us, host.told_by) = (self.suspect_us, seq);
            for known in self.known.values_mut() {
                known.word.lower(self.suspect_us);
            }
        }
        let is_calm = self.is_calm(now);
        let newest = authority.newest();
        let heartbeat = TermMessage::Heartbeat {
            term: self.roster.term,
            seq,
            suspect_ms: self.suspect_ms(),
            is_frozen,
            tick: newest,
            safe: self.safe.min(newest),
        };
        for id in self.others() {
            let matters = self.roster.is_voter(id)
                || self.roster.is_standby(id)
                || self.roster.member(id).is_some_and(|one| one.wants_vote);
            let is_enough = is_calm && self.is_heard_by_ticks(now, id);
            let (term, version) = self.roster.number();
            let Some(known) = self.known.get_mut(&id) else {
                continue;
            };
            let knows_term = known.term == term;
            let patience_us = known.rtt_us().map_or(super::RTT_UNKNOWN_US, |us| us) + 20_000;
            let pause_us = if known.told >= TOLD_FAST {
                TOLD_SLOW_US
            } else if knows_term {
                patience_us
            } else {
                0
            };
            let is_behind = !knows_term || known.version < version;
            let tells = is_behind && now.micros_since(known.told_at) >= pause_us;
            if tells {
                (known.told_at, known.told) = (now, known.told.saturating_add(1));
            } else if !is_behind {
                known.told = 0;
            }
            let is_due = if is_enough {
                now.micros_since(known.beat_at) >= CALM_US
            } else {
                matters || for_all
            };
            if is_due {
                known.beat_at = now;
            }
            if tells && !knows_term {
                let announcement = TermMessage::NewTerm {
                    seq,
                    suspect_ms: self.suspect_ms(),
                    certificate: self.certificate.clone(),
                    roster: self.roster.clone(),
                };
                self.send(id, announcement);
                continue;
            }
            if tells {
                let roster = self.roster.clone();
                self.send(id, TermMessage::RosterUpdate { roster });
            }
            if is_due {
                self.send(id, heartbeat.clone());
            }
        }
    }

    // ---- losing and regaining a term ----

    /// A host whose term is over for some of its voters, or that many of them suspect, stands
    /// again as soon as enough of them are heard: the term changes, the host stays.
    fn consider_incumbency(&mut self, now: Time, authority: &impl Authority) {
        let Role::Host(host) = &self.role else {
            return;
        };
        let ablated = self.policy.ablation.no_incumbent;
        if ablated || self.attempt.is_some() || self.election.is_some() {
            return;
        }
        if now < host.stands_not_before || !self.may_vote_for(now, self.me.member) {
            return;
        }
        let term = self.roster.term;
        let others = || self.roster.voters().filter(|&id| id != self.me.member);
        let known = |id: MemberId| self.known.get(&id);
        // One without a vote has promised, too, when it had one, and could not follow for ever.
        let is_challenged =
            self.promised > term || self.known.values().any(|one| one.promised > term);
        let suspected = others().filter(|&id| self.is_suspecting(now, id)).count();
        let is_lost = !self.may_act(now) && suspected > 0;
        if !is_challenged && !is_lost {
            return;
        }
        let hears = others().filter(|&id| {
            let heard_at = known(id).map(|one| one.heard_at);
            heard_at.is_some_and(|at| now.micros_since(at) < self.suspect_us)
        });
        let own = usize::from(self.roster.is_voter(self.me.member));
        if hears.count() + own >= self.roster.elect() {
            self.handover_lost();
            self.stand(now, ElectionKind::Incumbent, authority);
        }
    }

    fn consider_host_fork(&mut self, now: Time, authority: &impl Authority) {
        let Role::Host(host) = &self.role else {
            return;
        };
        let frozen_us = now.micros_since(host.frozen_since);
        let is_due = self.policy.fork_after_us.is_some_and(|us| frozen_us >= us);
        let may = self.policy.fork_minority && self.policy.can_host && self.attempt.is_none();
        if host.is_frozen && is_due && may && self.election.is_none() && self.decisions.is_empty() {
            self.fork(authority);
        }
    }
}
