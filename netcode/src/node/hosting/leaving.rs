//! How a node leaves a session in which members elect: a host hands over first.

use super::held;
use crate::node::{Node, Role};
use crate::time::Time;

/// How long a host that leaves looks for a successor, in microseconds.
const LEAVE_US: u64 = 3_000_000;

impl Node {
    /// Begins to leave: a host whom somebody can succeed hands over first. Says whether that is all
    /// for now.
    pub(in crate::node) fn hands_over_to_leave(&mut self) -> bool {
        let Some(hosting) = &mut self.hosting else {
            return false;
        };
        let now = hosting.now;
        if !hosting.terms.is_host() {
            self.say_goodbye(now);
            return matches!(self.role, Role::Host(_));
        }
        let own = hosting.own;
        let mut members = hosting.terms.roster().members.iter();
        if !members.any(|member| member.id != own && member.can_host) {
            return false;
        }
        if hosting.leaves.is_none() {
            hosting.leaves = Some(now);
            // If that cannot begin now, it is tried again.
            let _target = hosting.terms.request_handover(now, None);
        }
        true
    }

    /// Leaves once another member hosts, or nobody takes over in time.
    pub(super) fn go_when_replaced(&mut self, now: Time) {
        let Some(hosting) = &mut self.hosting else {
            return;
        };
        let Some(since) = hosting.leaves else { return };
        let is_client = matches!(self.role, Role::Client(_));
        if is_client && hosting.terms.fence() == self.core.info.term {
            hosting.leaves = None;
            self.leave_now();
        } else if now.micros_since(since) > LEAVE_US {
            hosting.leaves = None;
            self.say_goodbye(now);
            if is_client {
                self.leave_now();
            }
        } else {
            let _target = hosting.terms.request_handover(now, None);
        }
    }

    /// The machine is over; a host falls silent, so that others elect another one at once.
    pub(super) fn say_goodbye(&mut self, now: Time) {
        let Some(hosting) = &mut self.hosting else {
            return;
        };
        let held = held(
            &self.core,
            &self.role,
            &hosting.terms,
            hosting.pending.as_ref(),
        );
        hosting.terms.leave(now, &held);
        self.send_term_messages();
        if let Role::Host(host) = &mut self.role {
            host.vanish(&mut self.core);
        }
    }
}
