//! Members that say they went on alone, each in a session of its own.
//!
//! Whoever has a vote stays where it is, and its game is told. A member without one that hears nobody
//! else goes along: it could not be part of electing anybody here. It has listened for its host as long
//! as the other one by then, in vain, and from then on it has nothing to do with the members of the
//! session before, and never goes back. So nobody follows two, and nothing that is said of hosting in
//! one session is heard in the other.

use crate::id::{MemberId, SessionId, Term};
use crate::node::api::Event;
use crate::node::takeover::Prepare;
use crate::node::{Node, Role};
use crate::tick::Tick;
use crate::time::Time;

impl Node {
    /// A member says that it went on alone, in `session`, from `last` on.
    pub(super) fn hear_of_fork(
        &mut self,
        now: Time,
        member: MemberId,
        session: SessionId,
        last: Tick,
    ) {
        if self.goes_along(now, member, session) {
            return;
        }
        let Some(hosting) = &mut self.hosting else {
            return;
        };
        if hosting.terms.has_no_say() && hosting.terms.suspects() {
            // It may go along soon.
            return;
        }
        if hosting.apart.insert(member, session) != Some(session) {
            self.core.report(Event::Apart {
                member,
                session,
                last,
            });
        }
    }

    /// Goes along with `member` into `session` if this node has no say here and nobody to follow.
    fn goes_along(&mut self, now: Time, member: MemberId, session: SessionId) -> bool {
        let may_go = self.hosting.as_ref().is_some_and(|hosting| {
            hosting.pending.is_none() && hosting.terms.may_go_along_with(member)
        });
        let warm = self.warm(member).filter(|_| may_go);
        let (Some(warm), Role::Client(client)) = (warm, &mut self.role) else {
            return false;
        };
        let prepare = Prepare {
            candidate: member,
            term: Term(self.core.info.term.0 + 1),
            warm: Some(warm),
            keeps_frames: false,
        };
        if !client.go_apart(&mut self.core, now, session, prepare) {
            return false;
        }
        self.hosting = None;
        if let Some(mesh) = &mut self.mesh {
            mesh.keep_ticks(|_| false);
            mesh.retain(|other| other == member);
        }
        true
    }
}
