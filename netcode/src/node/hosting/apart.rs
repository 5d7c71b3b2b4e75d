//! Going on apart from the session: who cannot have a majority begins a session of its own, and
//! members that have no vote and hear nobody else go with it.
//!
//! The one that begins says so to all who may come, four times per second, until they are there or
//! have no place any more. Whoever believes it has listened for its host as long as the other one,
//! in vain; from then on it has nothing to do with the members of the session before, and never
//! goes back. So nobody follows two, and nothing that is said of hosting in one session is heard in
//! the other: what still comes from members that have not come over is not read.

use crate::hash::keyed;
use crate::id::{MemberId, SessionId, Term};
use crate::migration::TermMessage;
use crate::node::api::Event;
use crate::node::takeover::{Prepare, TakeOver};
use crate::node::{Node, Role};
use crate::tick::Tick;
use crate::time::Time;

/// Microseconds between two times that members are told of the session.
const TELL_US: u64 = 250_000;

/// Members of the session before that may come into this one.
#[derive(Debug)]
pub(super) struct Outside {
    members: Vec<MemberId>,
    tells_at: Time,
}

impl Outside {
    /// Whether `member` has not come over yet.
    pub(super) fn has(&self, member: MemberId) -> bool {
        self.members.contains(&member)
    }

    /// When they are told again.
    pub(super) const fn due(&self) -> Time {
        self.tells_at
    }
}

impl Node {
    /// Goes on as the host of a session of its own.
    pub(super) fn fork(&mut self, now: Time, term: Term, base: Tick) {
        let secret = match &self.role {
            Role::Host(host) => host.config.secret,
            Role::Client(client) => client.config.secret,
        };
        let mut seed = b"fork".to_vec();
        seed.extend_from_slice(&self.core.info.session.0.to_le_bytes());
        seed.extend_from_slice(&term.0.to_le_bytes());
        let half = |which: u8| {
            let mut seed = seed.clone();
            seed.push(which);
            u128::from(keyed(secret, &seed))
        };
        let before = self.core.info.session;
        let own = self.core.info.member;
        let others = self.core.roster.members().iter().map(|member| member.id);
        let mut paths = self.warm_paths();
        paths.retain(|&member, _| self.may_come(member));
        let members: Vec<MemberId> = paths.keys().copied().collect();
        let take_over = TakeOver {
            term,
            base,
            is_planned: false,
            paths,
            // Nobody is waited for.
            lost: others.filter(|&id| id != own).collect(),
        };
        self.core.info.session = SessionId(half(1) << 64 | half(0));
        self.hosting = None;
        if self.take_over(now, &take_over).is_ok() {
            // What other members say of the session before is no matter of this one.
            if let Some(mesh) = &mut self.mesh {
                mesh.retain(|member| members.contains(&member));
            }
            self.core.report(Event::Forked {
                session: self.core.info.session,
            });
            self.found_terms(now);
            if let Some(hosting) = &mut self.hosting {
                hosting.outside = Some(Outside {
                    members,
                    tells_at: now,
                });
            }
        } else {
            self.core.info.session = before;
        }
    }

    /// Whether `member` may come into a session that this node begins: it has no vote in this one.
    fn may_come(&self, member: MemberId) -> bool {
        let roster = self.hosting.as_ref().map(|hosting| hosting.terms.roster());
        let known = roster.and_then(|roster| roster.member(member));
        known.is_some_and(|known| !known.is_voter)
    }

    /// Tells those who may come of the session.
    pub(super) fn tell_of_fork(&mut self, now: Time) {
        let (Some(hosting), Some(mesh), Role::Host(host)) =
            (&mut self.hosting, &mut self.mesh, &self.role)
        else {
            return;
        };
        let Some(outside) = hosting.outside.as_mut().filter(|it| it.tells_at <= now) else {
            return;
        };
        outside.tells_at = now.plus_micros(TELL_US);
        let is_in = |member: MemberId| host.guests.values().any(|it| it.peer.member == member);
        let has_place = |member: MemberId| self.core.roster.member(member).is_some();
        outside
            .members
            .retain(|&member| has_place(member) && !is_in(member));
        let message = TermMessage::Forked {
            term: self.core.info.term,
            session: self.core.info.session,
        };
        for &member in &outside.members {
            let _sent = mesh.send(member, message.to_bytes());
        }
        if outside.members.is_empty() {
            hosting.outside = None;
        }
    }

    /// `from` says that it has begun a session of its own: this node goes with it if it has no vote
    /// and nobody else to follow.
    pub(super) fn hear_of_fork(
        &mut self,
        now: Time,
        from: MemberId,
        term: Term,
        session: SessionId,
    ) {
        let follows = self.hosting.as_ref().is_some_and(|hosting| {
            hosting.pending.is_none() && hosting.terms.may_go_with(from)
        });
        let Some(warm) = self.warm(from).filter(|_| follows) else {
            return;
        };
        let Role::Client(client) = &mut self.role else {
            return;
        };
        let prepare = Prepare {
            candidate: from,
            term,
            warm: Some(warm),
            keeps_frames: false,
        };
        if !client.go_apart(&mut self.core, now, session, prepare) {
            return;
        }
        self.hosting = None;
        if let Some(mesh) = &mut self.mesh {
            mesh.keep_ticks(|_| false);
            mesh.retain(|member| member == from);
        }
    }
}
