//! A node and its [term machine](crate::migration): what members say about hosting goes in, and
//! what follows from it is carried out on the role.
//!
//! The machine decides who hosts; [`takeover`](super::takeover) changes the role. Between the two
//! stands this rule: whatever the role is, it is brought in line with the machine after every call,
//! so that a step that could not be taken yet, for want of a path for example, is taken later. A
//! host is asked for its lease before anything is done in its name, also when the process has
//! slept in between.

mod abandoned;
mod apart;
mod decisions;
mod held;
mod leaving;
mod majority;

use std::collections::BTreeMap;

use crate::hash::keyed;
use crate::id::{MemberId, Path, SessionId, Term};
use crate::migration::{
    HandoverError, HostPolicy, Identity, TermEvent, TermMember, TermMessage, TermRoster, Terms,
};
use crate::node::api::Event;
use crate::node::core::Core;
use crate::node::host::Host;
use crate::node::standby::AuthorityStream;
use crate::node::takeover::{Prepare, StepDown, Warm};
use crate::session::control::Stand;
use crate::session::introduction::Introduction;
use crate::session::statistics::DropReason;
use crate::tick::Tick;
use crate::time::Time;

use super::{Node, Role};
use abandoned::Stillness;
use decisions::Pending;
use held::held;
pub(super) use held::stands;
use majority::Watch;

/// The term machine of a node, and what the node has done about it.
#[derive(Debug)]
pub(super) struct Hosting {
    terms: Terms,
    /// The member as which it takes part.
    own: MemberId,
    /// Whom this node was told to ask, for a handover that may still come to nothing.
    expects: Option<MemberId>,
    /// Since when this node wants to leave; a host hands over first.
    leaves: Option<Time>,
    /// The newest time that it was told.
    now: Time,
    /// When the machine is told again of who is there.
    tells_at: Time,
    /// A term that this node hosts as soon as it has run the ticks that another standby held, in
    /// state-sync mode.
    pending: Option<Pending>,
    /// What the next host may still lack of the state that this node has handed over.
    owed: Option<Owed>,
    /// Since when a host that is frozen has heard nobody.
    stillness: Option<Stillness>,
    /// For how long too few have been there, and what was said of it.
    watch: Watch,
    /// Members that have said that they went on alone, and in which sessions. Only members of the mesh
    /// can have.
    apart: BTreeMap<MemberId, SessionId>,
}

/// The newest state of a host that has handed over, until the next one has it.
#[derive(Debug)]
struct Owed {
    stream: Box<AuthorityStream>,
    path: Path,
    next_at: Time,
}

/// A member of which the mesh brought something within so many microseconds is heard.
const HEARD_US: u64 = 200_000;

/// Microseconds after which the next host is sent again what it may lack.
const OWED_US: u64 = 20_000;

impl Hosting {
    fn new(terms: Terms, own: MemberId, now: Time) -> Self {
        Self {
            terms,
            own,
            expects: None,
            leaves: None,
            now,
            tells_at: now,
            pending: None,
            owed: None,
            stillness: None,
            watch: Watch::default(),
            apart: BTreeMap::new(),
        }
    }

    /// The machine that decides who hosts.
    pub(super) const fn terms(&self) -> &Terms {
        &self.terms
    }

    /// Tells the machine of a host what its guests have acked.
    fn tell_acks(&mut self, host: &Host, now: Time) {
        for guest in host.guests.values() {
            if let (Some(sent), Some(incarnation)) = (guest.peer.echoed_at, guest.incarnation) {
                let member = guest.peer.member;
                let held = match &host.stream {
                    Some(stream) => stream.held_by(member),
                    None => guest.exchange.peer_holds(),
                };
                self.terms.acked(now, member, incarnation, sent, held);
            }
        }
        self.terms.count_acks(now);
    }
}

/// Number of this process among those with the same identity, from its secret.
fn incarnation(secret: u128) -> u32 {
    u32::try_from(keyed(secret, b"incarnation") >> 32).unwrap_or_default()
}

impl Node {
    // ---- for games ----

    /// The machine that decides who hosts; `None` where hosting does not move by election, and on a
    /// client before it has heard of it.
    #[must_use]
    pub fn terms(&self) -> Option<&Terms> {
        self.hosting.as_ref().map(|hosting| &hosting.terms)
    }

    /// Whether the members could elect another host now if this one were gone: one that holds all that
    /// is safe is heard by enough of those who vote. A young session cannot until its members have met,
    /// and one of two players never. `false` on nodes that do not host.
    #[must_use]
    pub fn is_replaceable(&self) -> bool {
        self.is_host() && self.terms().is_some_and(Terms::is_replaceable)
    }

    /// Hands hosting over to `target`, or to the member that suits best, without losing a tick or
    /// an input. Says to whom; [`Event::HostChanged`] or [`Event::HandoverAborted`] follows.
    ///
    /// # Errors
    /// If that cannot begin.
    pub fn request_handover(
        &mut self,
        now: Time,
        target: Option<MemberId>,
    ) -> Result<MemberId, HandoverError> {
        let hosting = self.hosting.as_mut().ok_or(HandoverError::NotHost)?;
        let target = hosting.terms.request_handover(now, target)?;
        self.drive_terms(now);
        Ok(target)
    }

    // ---- for the node ----

    /// A node that opens a session in which hosting moves by election.
    pub(super) fn found_terms(&mut self, now: Time) {
        let Role::Host(host) = &self.role else {
            return;
        };
        if !host.may_move() || !host.config.migration.elects {
            return;
        }
        let policy = host.config.hosting.clone();
        let me = Identity {
            member: self.core.info.member,
            incarnation: incarnation(host.config.secret),
        };
        let founder = TermMember {
            id: me.member,
            incarnation: me.incarnation,
            can_host: policy.can_host,
            is_voter: policy.is_voter,
            wants_vote: policy.is_voter,
        };
        let roster = TermRoster::founding(self.core.info.term, founder);
        let terms = Terms::new(me, policy, self.core.rate, roster, now);
        self.hosting = Some(Box::new(Hosting::new(terms, me.member, now)));
    }

    /// A client has heard that hosting moves by election here.
    fn join_terms(&mut self, now: Time) {
        let Role::Client(client) = &self.role else {
            return;
        };
        let me = Identity {
            member: self.core.info.member,
            incarnation: incarnation(client.config.secret),
        };
        let terms = Terms::join(me, client.config.hosting.clone(), self.core.rate, now);
        self.hosting = Some(Box::new(Hosting::new(terms, me.member, now)));
    }

    /// Before anything is done in a host's name: whether it still may.
    pub(super) fn check_lease(&mut self, now: Time) {
        let (Some(hosting), Role::Host(host)) = (&mut self.hosting, &mut self.role) else {
            return;
        };
        if !hosting.terms.is_host() {
            return;
        }
        if now.micros_since(hosting.now) > self.core.rate.tick_us() {
            // All that was there when it was awake last was read then.
            hosting.tell_acks(host, hosting.now);
        }
        if is_done(&self.core, &hosting.terms) {
            // Whoever may host next goes on from the last tick: nothing can be ordered anew.
            host.freeze(false);
            return;
        }
        if !hosting.terms.may_act(now) {
            // Acks that have come since may say that it does.
            hosting.tell_acks(host, now);
        }
        let was_frozen = host.is_frozen();
        let is_frozen = !hosting.terms.may_act(now);
        host.freeze(is_frozen);
        if was_frozen && !is_frozen {
            host.pardon(&mut self.core, now);
        }
    }

    fn is_done(&self) -> bool {
        let hosting = self.hosting.as_ref();
        hosting.is_some_and(|hosting| is_done(&self.core, &hosting.terms))
    }

    /// Before a client takes a datagram: whether it may still take ticks of its host. Its ack would
    /// promise the host what it has promised to another member.
    pub(super) fn check_promise(&mut self) {
        if let (Some(hosting), Role::Client(client)) = (&self.hosting, &mut self.role) {
            client.renounce(hosting.terms.has_renounced(self.core.info.term));
        }
    }

    /// A datagram came over `path`: if it was one of ticks, its sender is alive.
    pub(super) fn heard_ticks(&mut self, now: Time, path: Path) {
        let member = match &self.role {
            Role::Host(host) => {
                let guest = host.guests.get(&path).map(|guest| &guest.peer);
                guest
                    .filter(|peer| peer.heard_at == now)
                    .map(|peer| peer.member)
            }
            Role::Client(client) => {
                let is_host = client.path() == path && client.peer.heard_at == now;
                is_host.then_some(client.host)
            }
        };
        if let (Some(member), Some(hosting)) = (member, &mut self.hosting)
            && self.core.info.term == hosting.terms.term()
        {
            hosting.terms.heard(now, member);
        }
    }

    /// Takes what members have said, does what is due, and brings the role in line.
    pub(super) fn drive_terms(&mut self, now: Time) {
        self.tell_of_fork(now);
        self.take_term_messages(now);
        let Some(hosting) = &mut self.hosting else {
            return;
        };
        hosting.now = now;
        self.host_when_ready(now);
        let Some(hosting) = &mut self.hosting else {
            return;
        };
        if now >= hosting.tells_at || hosting.terms.poll_timeout() <= now {
            hosting.tells_at = now.plus_micros(self.core.rate.tick_us());
            self.tell_members_of_terms(now);
            self.seek_strangers(now);
        }
        if let Some(hosting) = &mut self.hosting {
            // A host that has run a tick may have reached the last one before a handover. One of state
            // commits to what came out of it, not before.
            let hands_over = hosting.terms.handover_target().is_some();
            let is_due = hosting.terms.poll_timeout() <= now || hands_over;
            if is_due && !(hands_over && self.core.awaits_authority()) {
                let held = held(
                    &self.core,
                    &self.role,
                    &hosting.terms,
                    hosting.pending.as_ref(),
                );
                hosting.terms.handle_timeout(now, &held);
            }
        }
        self.obey_terms(now);
        self.fall_in_line(now);
        self.send_term_messages();
        self.send_owed(now);
        self.go_when_replaced(now);
        self.end_if_abandoned(now);
        self.watch_majority(now);
    }

    /// When [`Node::drive_terms`] is due.
    pub(super) fn terms_due(&self) -> Time {
        self.hosting.as_ref().map_or(Time::FAR, |hosting| {
            let owed = hosting.owed.as_ref();
            let owed_at = owed.map_or(Time::FAR, |owed| owed.next_at);
            hosting.terms.poll_timeout().min(owed_at)
        })
    }

    /// The state after a tick is there, which may have been the last one before a handover.
    pub(super) fn authority_is_there(&mut self) {
        let Some(hosting) = &self.hosting else {
            return;
        };
        let now = hosting.now;
        let hands_over = hosting.terms.handover_target().is_some();
        if let Role::Client(client) = &mut self.role {
            // The next host wants inputs for the ticks to come as soon as possible.
            client.advance(&mut self.core, now);
        }
        if hands_over {
            self.drive_terms(now);
        }
    }

    /// Sends the next host what it may lack of the last tick, until it hosts.
    fn send_owed(&mut self, now: Time) {
        let Some(hosting) = &mut self.hosting else {
            return;
        };
        let Some(owed) = &mut hosting.owed else {
            return;
        };
        let Some((target, _)) = hosting.terms.owes() else {
            hosting.owed = None;
            return;
        };
        if owed.next_at <= now {
            owed.next_at = now.plus_micros(OWED_US);
            let datagrams = owed.stream.repeat_for(target).into_iter();
            self.parting
                .extend(datagrams.map(|bytes| (owed.path, bytes)));
        }
    }

    fn take_term_messages(&mut self, now: Time) {
        while let Some(received) = self.mesh.as_mut().and_then(|mesh| mesh.poll_received()) {
            if Introduction::is_one(&received.bytes) {
                if let Err(reason) = self.take_introduction(now, &received) {
                    self.core.statistics.drops.count(reason);
                }
                continue;
            }
            let Ok(message) = TermMessage::decode(&received.bytes) else {
                self.core.statistics.drops.count(DropReason::BadSection);
                continue;
            };
            if let TermMessage::Forked { session, last } = message {
                self.hear_of_fork(now, received.from, session, last);
                continue;
            }
            if let Role::Client(client) = &self.role
                && client.is_between_sessions()
            {
                // It may still be of the session before.
                continue;
            }
            let own = self.core.info.member;
            let is_of_another = |hosting: &Hosting| hosting.own != own;
            // Whether members elect is the host's to say, by its settings. Who has come while the host
            // changes has none yet: whom it has met is told of by the host that let it in.
            let is_elected = match &self.role {
                Role::Client(client) => client.elects().unwrap_or(true),
                Role::Host(_) => false,
            };
            if is_elected && self.hosting.as_deref().is_none_or(is_of_another) {
                self.join_terms(now);
            }
            let Some(hosting) = &mut self.hosting else {
                continue;
            };
            let held = held(
                &self.core,
                &self.role,
                &hosting.terms,
                hosting.pending.as_ref(),
            );
            hosting.terms.handle(now, received.from, &message, &held);
            // Each decision is carried out before the machine asks again what this node holds.
            self.obey_terms(now);
        }
    }

    /// Tells the machine of a host who is there and what they want.
    fn tell_members_of_terms(&mut self, now: Time) {
        let Some(hosting) = &mut self.hosting else {
            return;
        };
        if let Role::Host(host) = &self.role
            && let Some(audience) = &host.audience
        {
            hosting.terms.set_stride(audience.config.snapshot_ticks);
        }
        if let Some(mesh) = &self.mesh {
            // Whoever went on alone is there no more, whatever it says over its path.
            let apart = &hosting.apart;
            for member in mesh.members().filter(|member| !apart.contains_key(member)) {
                let link = mesh.peer(member).filter(|peer| peer.is_confirmed);
                let echoed_at = link.and_then(|peer| peer.echoed_at);
                hosting
                    .terms
                    .set_link(now, member, mesh.rtt(member), echoed_at);
            }
        }
        let roster = hosting.terms.roster();
        if roster.term == self.core.info.term {
            self.core.terms.learn(roster.term, &roster.lineage);
        }
        let Role::Host(host) = &mut self.role else {
            return;
        };
        hosting.tell_acks(host, now);
        // Members that were away may be reached over another path than before.
        let mesh = self.mesh.iter();
        for (member, path) in mesh.flat_map(|mesh| mesh.confirmed_paths()) {
            if !host.guests.contains_key(&path) {
                host.meet(member, path);
            }
        }
        host.introductions
            .set_hubs(&hosting.terms.roster().standbys);
        while let Some((member, stand)) = host.standing.pop_front() {
            let roster = hosting.terms.roster();
            let plays = self.core.roster.member(member);
            let plays = plays.is_some_and(|known| known.slot.is_some());
            let may_host = host.config.hosting.players_host || !plays;
            let can_host = stand.can_host && may_host;
            let is_known = roster.member(member).is_some_and(|known| {
                known.incarnation == stand.incarnation && known.can_host == can_host
            });
            if !is_known {
                hosting.terms.member_joined(TermMember {
                    id: member,
                    incarnation: stand.incarnation,
                    can_host,
                    is_voter: false,
                    wants_vote: stand.votes,
                });
            }
        }
        let members = hosting.terms.roster().members.iter().map(|one| one.id);
        let gone = members.filter(|&id| self.core.roster.member(id).is_none());
        for id in gone.collect::<Vec<_>>() {
            hosting.terms.member_left(id);
        }
    }

    /// Carries out what the machine has decided, and passes on what happened.
    fn obey_terms(&mut self, now: Time) {
        while let Some(hosting) = &mut self.hosting {
            if let Some(decision) = hosting.terms.poll_decision() {
                self.obey_term(now, decision);
                continue;
            }
            let Some(event) = hosting.terms.poll_event() else {
                return;
            };
            self.take_term_event(now, event);
        }
    }

    fn take_term_event(&mut self, now: Time, event: TermEvent) {
        match event {
            TermEvent::HostSuspected { host } => {
                self.core.report(Event::HostSuspected { member: host });
            }
            TermEvent::SuspicionEnded { host } => {
                self.core.report(Event::HostHeardAgain { member: host });
            }
            TermEvent::Electing { candidate, term } => {
                self.core.report(Event::Electing {
                    member: candidate,
                    term,
                });
                let warm = if candidate == self.core.info.member {
                    None
                } else {
                    // Without a path no vote could have been asked for.
                    let Some(warm) = self.warm(candidate) else {
                        return;
                    };
                    Some(warm)
                };
                self.prepare_for(
                    now,
                    Prepare {
                        candidate,
                        term,
                        warm,
                        keeps_frames: false,
                    },
                );
            }
            TermEvent::Frozen | TermEvent::Resumed if self.is_done() => {}
            TermEvent::Frozen => self.core.report(Event::Frozen),
            TermEvent::Resumed => self.core.report(Event::Thawed),
            TermEvent::HandoverAborted { target, reason } => {
                if let Role::Host(host) = &mut self.role {
                    host.cancel_handover();
                }
                self.core.report(Event::HandoverAborted {
                    member: target,
                    reason,
                });
            }
            // The elected host reports this itself, when it has taken over.
            TermEvent::HostChanged {
                term,
                host,
                data_loss_possible: true,
                ..
            } if host != self.core.info.member => {
                self.core.report(Event::DataLossPossible { term });
            }
            // The role reports these itself, when it has gone over.
            TermEvent::HostChanged { .. }
            | TermEvent::LostTicks { .. }
            | TermEvent::Forked
            | TermEvent::Evicted { .. }
            | TermEvent::Standbys { .. } => {}
        }
    }

    /// Brings the role in line with the machine.
    fn fall_in_line(&mut self, now: Time) {
        let Some(hosting) = &self.hosting else {
            return;
        };
        let terms = &hosting.terms;
        if terms.is_over() {
            return;
        }
        let target = terms.handover_target();
        if terms.is_host() {
            if let Role::Host(host) = &mut self.role
                && host.audience.is_some()
            {
                let standbys: Vec<MemberId> = terms.stream_to().collect();
                host.stream_to(&self.core, &standbys);
            }
            if let (Role::Host(host), Some((_, switch))) = (&mut self.role, target)
                && host.hands_over_at() != Some(switch.previous())
            {
                host.hand_over_at(&self.core, switch.previous());
            }
            self.check_lease(now);
            return;
        }
        let (term, fence) = (terms.term(), terms.fence());
        let host = terms.host().filter(|&host| host != hosting.own);
        let own_term = self.core.info.term;
        let follows = self.host_member();
        if let Some(host) = host
            && (own_term < term || follows != host)
            && fence == term
        {
            let Some(warm) = self.warm(host) else {
                return;
            };
            match &self.role {
                Role::Host(_) => self.step_down(now, StepDown { host, warm, term }),
                Role::Client(_) => self.prepare_for(
                    now,
                    Prepare {
                        candidate: host,
                        term,
                        warm: Some(warm),
                        keeps_frames: false,
                    },
                ),
            }
            return;
        }
        self.expect(now, target);
        if target.is_none() && fence == term && own_term == term && Some(follows) == host {
            self.mend_link(now, follows);
        }
    }

    /// Asks the host for another link if this node hears it, but not over the link.
    fn mend_link(&mut self, now: Time, host: MemberId) {
        let heard_at = self.mesh.as_ref().and_then(|mesh| mesh.heard(host));
        let is_heard = heard_at.is_some_and(|at| now.micros_since(at) < HEARD_US);
        let warm = self.warm(host).filter(|_| is_heard);
        if let (Some(warm), Role::Client(client)) = (warm, &mut self.role) {
            client.ask_again(&mut self.core, now, warm);
        }
    }

    /// Asks the target of a handover beforehand, or takes that back.
    fn expect(&mut self, now: Time, target: Option<(MemberId, Tick)>) {
        let own = self.core.info.member;
        let Some(hosting) = &mut self.hosting else {
            return;
        };
        let term = hosting.terms.term();
        let target = target.map(|(member, _)| member);
        if target.is_none() && hosting.expects.take().is_some() && hosting.terms.fence() == term {
            self.withdraw(now);
            return;
        }
        let Some(target) = target else { return };
        let warm = if target == own {
            None
        } else {
            let Some(warm) = self.warm(target) else {
                return;
            };
            Some(warm)
        };
        if let Some(hosting) = &mut self.hosting {
            hosting.expects = Some(target);
        }
        if matches!(self.role, Role::Client(_)) {
            self.prepare_for(
                now,
                Prepare {
                    candidate: target,
                    term: Term(term.0 + 1),
                    warm,
                    keeps_frames: true,
                },
            );
        }
    }

    fn send_term_messages(&mut self) {
        let (Some(hosting), Some(mesh)) = (&mut self.hosting, &mut self.mesh) else {
            return;
        };
        while let Some((to, message)) = hosting.terms.poll_send() {
            // Whoever is not in the mesh yet hears of it with the next repetition.
            let _sent = mesh.send(to, message.to_bytes());
        }
    }

    // ---- paths ----

    fn warm(&self, member: MemberId) -> Option<Warm> {
        let path = self.mesh.as_ref()?.path(member)?;
        let rtt_us = self.rtt(member);
        Some(Warm { path, rtt_us })
    }

    fn warm_paths(&self) -> BTreeMap<MemberId, Warm> {
        let mesh = self.mesh.iter();
        let members = mesh.flat_map(|mesh| mesh.members());
        members
            .filter_map(|member| Some((member, self.warm(member)?)))
            .collect()
    }
}

/// Whether the last tick of the session has run, and all who may host next hold it.
fn is_done(core: &Core, terms: &Terms) -> bool {
    core.last_tick
        .is_some_and(|last| core.timeline.settled() >= last && terms.safe_tick() >= last)
}

/// What a member says of itself to a host.
pub(super) fn stand(policy: &HostPolicy, secret: u128) -> Stand {
    Stand {
        incarnation: incarnation(secret),
        can_host: policy.can_host,
        votes: policy.is_voter,
    }
}
