//! How a host ends whom the others do without.
//!
//! A host that hears too few is frozen, and waits: they may be heard again. After a sleep that was
//! longer than its links last there is no path over which that could happen. So it waits as long as
//! its session keeps the slots of members that are away, as every member does that hears no host,
//! and then tells its game that it is out.

use crate::id::MemberId;
use crate::node::api::{DisconnectReason, Event};
use crate::node::{Node, Role};
use crate::time::Time;

/// A step of time that is longer is a sleep, in which nobody could be heard.
const SLEEP_US: u64 = 1_500_000;

/// How long a frozen host has heard nobody.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stillness {
    since: Time,
    seen_at: Time,
}

impl Node {
    /// Whether this node hosts, and hears too few to do anything in the session's name: see
    /// [`Event::Frozen`].
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        match &self.role {
            Role::Host(host) => host.is_frozen(),
            Role::Client(_) => false,
        }
    }

    /// When somebody was heard last whom a frozen host waits for: the host that it shall follow, or
    /// any voter if there is none.
    fn hope_heard_at(&self) -> Option<Time> {
        let hosting = self.hosting.as_ref()?;
        let mesh = self.mesh.as_ref()?;
        let terms = &hosting.terms;
        let is_apart = |id: &MemberId| hosting.apart.contains_key(id);
        let heard = |id: MemberId| mesh.path(id).and(mesh.heard(id));
        match terms.host().filter(|&host| host != hosting.own) {
            Some(host) => heard(host),
            None => {
                let voters = terms.roster().voters();
                voters.filter(|id| !is_apart(id)).filter_map(heard).max()
            }
        }
    }

    /// Ends a host that is frozen and has waited in vain.
    pub(super) fn end_if_abandoned(&mut self, now: Time) {
        let heard_at = self.hope_heard_at();
        let Some(hosting) = &mut self.hosting else {
            return;
        };
        let Role::Host(host) = &self.role else {
            hosting.stillness = None;
            return;
        };
        if !host.is_frozen() || hosting.terms.is_over() {
            hosting.stillness = None;
            return;
        }
        let limit_us = host.config.resume_us.max(host.config.silence_us);
        let still = hosting.stillness.get_or_insert(Stillness {
            since: now,
            seen_at: now,
        });
        if now.micros_since(still.seen_at) > SLEEP_US {
            still.since = now;
        }
        still.seen_at = now;
        still.since = still.since.max(heard_at.unwrap_or(Time::ZERO));
        if now.micros_since(still.since) > limit_us {
            self.say_goodbye(now);
            let reason = DisconnectReason::Abandoned;
            self.core.report(Event::Disconnected { reason });
        }
    }
}
