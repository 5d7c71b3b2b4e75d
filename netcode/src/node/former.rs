//! The session before a fork.
//!
//! A node that goes on alone cannot know whether the others are gone or only away. So it keeps its
//! paths to those who may play on without it, and tells them over these, as long as it keeps their
//! places, that there are two sessions now. Whoever hears that tells its game, and so does this node
//! when it hears one of them: [`Event::Apart`](super::Event::Apart). Members without a vote that hear
//! nobody else come over when they hear it. What they all say otherwise is no matter of the session that
//! this node is in.

use std::collections::BTreeSet;

use super::api::Event;
use super::mesh::Mesh;
use super::{Node, Role};
use crate::id::{MemberId, SessionId};
use crate::migration::TermMessage;
use crate::tick::Tick;
use crate::time::Time;

/// Time between two tellings, in microseconds: a path that has come back may end soon.
const TELL_US: u64 = 500_000;

/// The session that this node was in before it forked.
#[derive(Debug)]
pub(super) struct Former {
    /// The paths to those who may be in it.
    pub(super) mesh: Box<Mesh>,
    session: SessionId,
    /// The last tick that both sessions have.
    last: Tick,
    /// What they are told.
    word: Vec<u8>,
    since: Time,
    until: Time,
    tells_at: Time,
    /// Who may play on without this node: the others come over, or have nobody.
    players: BTreeSet<MemberId>,
    /// Who of them was heard after the fork.
    heard: BTreeSet<MemberId>,
}

/// A fork: the sessions before and after it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fork {
    pub(super) before: SessionId,
    pub(super) after: SessionId,
    /// The last tick that both have.
    pub(super) last: Tick,
    pub(super) at: Time,
    /// For how long the others are told, in microseconds.
    pub(super) tell_us: u64,
}

impl Former {
    /// The session that a node has left whose mesh this was, and in which members may play on.
    pub(super) fn new(
        mut mesh: Box<Mesh>,
        fork: &Fork,
        may_play_on: impl Fn(MemberId) -> bool,
    ) -> Self {
        let players = mesh.members().filter(|&member| may_play_on(member));
        let players = players.collect();
        mesh.keep_ticks(|_| false);
        let word = TermMessage::Forked {
            session: fork.after,
            last: fork.last,
        };
        Self {
            mesh,
            session: fork.before,
            last: fork.last,
            word: word.to_bytes(),
            since: fork.at,
            until: fork.at.plus_micros(fork.tell_us),
            tells_at: fork.at,
            players,
            heard: BTreeSet::new(),
        }
    }

    /// Tells the others what is due. Who of them was heard for the first time.
    fn tell(&mut self, now: Time) -> Vec<MemberId> {
        let mesh = &mut self.mesh;
        if now >= self.until {
            mesh.stop();
            return Vec::new();
        }
        while mesh.poll_received().is_some() {}
        while mesh.poll_wish().is_some() {}
        // Paths that never were cannot come to be without a host that introduces.
        while mesh.poll_open(now).is_some() {}
        let members: Vec<MemberId> = mesh.members().collect();
        if now >= self.tells_at {
            self.tells_at = now.plus_micros(TELL_US);
            for &member in &members {
                let _sent = mesh.send(member, self.word.clone());
            }
        }
        // What was sent before they fell silent may come late: they have to echo something newer.
        let is_back = |member: &MemberId| mesh.echoed_at(*member).is_some_and(|at| at > self.since);
        let players = members.into_iter().filter(|it| self.players.contains(it));
        let back: Vec<MemberId> = players.filter(is_back).collect();
        let news = back.into_iter().filter(|&member| self.heard.insert(member));
        news.collect()
    }

    pub(super) fn poll_timeout(&self) -> Time {
        if self.mesh.members().next().is_none() {
            return Time::FAR;
        }
        self.mesh.poll_timeout().min(self.tells_at)
    }
}

impl Node {
    /// Tells the members of the session before a fork that there are two.
    pub(super) fn tell_of_fork(&mut self, now: Time) {
        let Some(former) = &mut self.former else {
            return;
        };
        if let Role::Host(host) = &self.role {
            // Whoever has come over is no other's member any more, and its path is this session's.
            for (path, guest) in &host.guests {
                former.mesh.leave_path(now, *path);
                former.mesh.forget(guest.peer.member);
            }
        }
        for member in former.tell(now) {
            self.core.report(Event::Apart {
                member,
                session: former.session,
                last: former.last,
            });
        }
    }
}
