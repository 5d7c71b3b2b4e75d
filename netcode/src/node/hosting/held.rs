//! What a node holds of its session's history, as its term machine asks it.

use super::Pending;
use crate::migration::{Authority, TermRoster, Terms};
use crate::node::Role;
use crate::node::core::Core;
use crate::node::core::term_log::Shared;
use crate::tick::Tick;

/// What a node holds, for its term machine.
pub(super) struct Held<'a> {
    core: &'a Core,
    role: &'a Role,
    /// The newest tick of what this node holds that is part of the history which the machine
    /// follows. The role may still be in an earlier term, and hold ticks that are void since.
    pub(super) stands: Tick,
    /// The tick up to which it is about to run what another standby held, in state-sync mode.
    pending: Option<Tick>,
    /// Whether it was found that this node cannot host what it was elected for.
    pub(super) fails: bool,
}

/// What a node in this role holds.
pub(super) fn held<'a>(
    core: &'a Core,
    role: &'a Role,
    terms: &Terms,
    pending: Option<&Pending>,
) -> Held<'a> {
    Held {
        core,
        role,
        stands: stands(core, terms),
        pending: pending.map(|pending| pending.take_over.base),
        fails: false,
    }
}

/// The newest tick that may still be part of the history which the machine follows, of what was
/// ordered in the role's term.
pub(in crate::node) fn stands(core: &Core, terms: &Terms) -> Tick {
    let roster = terms.roster();
    if roster.term < core.info.term {
        // The machine is told of the new term soon.
        return Tick::MAX;
    }
    let shared = shared(core, roster);
    shared.map_or(Tick::ZERO, |shared| shared.upto)
}

/// What the role's history shares with that of `roster`.
pub(super) fn shared(core: &Core, roster: &TermRoster) -> Option<Shared> {
    let starts = roster.lineage.ancestors().iter();
    let starts: Vec<_> = starts.map(|one| (one.term, one.base)).collect();
    let ((oldest, _), later) = starts.split_first()?;
    core.terms.shared(*oldest, later)
}

impl Authority for Held<'_> {
    fn newest(&self) -> Tick {
        match self.role {
            Role::Client(client) if self.core.follows => {
                let position = client.standby_position();
                let position = self.pending.map_or(position, |tick| tick.max(position));
                // The state at an earlier tick is here no more.
                if position > self.stands {
                    return Tick::ZERO;
                }
                position
            }
            Role::Client(_) | Role::Host(_) => self.core.final_tick().min(self.stands),
        }
    }

    fn may_host(&self) -> bool {
        let is_able = match self.role {
            Role::Host(host) => host.may_move(),
            // A state that is void by now is none.
            Role::Client(_) if self.core.follows && self.newest() == Tick::ZERO => false,
            Role::Client(client) => client.may_host(self.core).is_ok(),
        };
        is_able && !self.fails
    }

    fn shown(&self) -> Tick {
        match self.role {
            Role::Host(_) => self.core.final_tick(),
            Role::Client(_) => self.core.timeline.settled(),
        }
    }

    fn records_after(&self, after: Tick, room: usize, out: &mut Vec<u8>) -> Tick {
        match self.role {
            // What a host of state holds alone, no standby can have told anyone.
            Role::Host(host) if host.audience.is_some() => return after,
            Role::Client(client) if self.core.follows => {
                let standby = client.standby.as_ref();
                let standby = standby.filter(|_| self.newest() > after);
                return standby.map_or(after, |it| it.records_after(after, room, out));
            }
            Role::Host(_) | Role::Client(_) => {}
        }
        let (term, newest) = (self.core.info.term, self.newest());
        let written =
            crate::lockstep::write_records(term, after, newest, &self.core.known, room, out);
        written.unwrap_or(after)
    }

    fn hash(&self, tick: Tick) -> Option<u64> {
        let streamed = match self.role {
            Role::Host(host) => host.stream.as_ref().and_then(|it| it.hash_at(tick)),
            Role::Client(client) => client.standby.as_ref().and_then(|it| it.hash_at(tick)),
        };
        streamed.or_else(|| self.core.hashes.at(tick))
    }
}
