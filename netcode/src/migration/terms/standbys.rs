//! Who succeeds: ranking by what members measure, with patience.

use core::cmp::Reverse;

use crate::id::MemberId;
use crate::limits::TERM_STANDBYS_MAX;
use crate::migration::api::Authority;
use crate::migration::roster::TermRoster;
use crate::time::Time;

use super::{Role, Terms};

/// Cost of a member that has not reported yet, in microseconds.
const COST_UNKNOWN_US: u64 = 10_000_000;
/// Ticks behind the host up to which a member counts as up to date.
const LAG_TICKS_MAX: u32 = 30;

/// What hosting at a member costs the others, in microseconds: the median and half of the 95th
/// percentile of its round trips, 20 ms for each stall in the last minute, and twice its tick.
pub(super) fn cost_us(median_us: u32, p95_us: u32, stalls: u16, tick_us: u32) -> u64 {
    u64::from(median_us)
        + u64::from(p95_us) / 2
        + u64::from(stalls) * 20_000
        + u64::from(tick_us) * 2
}

impl Terms {
    /// Who needs all that a host holds: standbys, and those that are about to be.
    pub fn stream_to(&self) -> impl Iterator<Item = MemberId> + '_ {
        let wanted: &[MemberId] = match &self.role {
            Role::Host(host) => &host.wanted,
            Role::Follower(_) | Role::Over => &[],
        };
        let more = wanted.iter().filter(|id| !self.roster.is_standby(**id));
        let standbys: &[MemberId] = if self.is_host() {
            &self.roster.standbys
        } else {
            &[]
        };
        standbys.iter().chain(more).copied()
    }

    /// Chooses anew who should succeed: whoever costs a fifth less takes a place.
    pub(super) fn rank(&mut self, now: Time, authority: &impl Authority) {
        let wanted = self.wanted_standbys(now);
        let _ = authority;
        if let Role::Host(host) = &mut self.role {
            host.wanted = wanted;
            host.ranked_at = now;
        }
    }

    fn cost_of(&self, id: MemberId) -> u64 {
        let cost_us = self.known.get(&id).and_then(|one| one.cost_us);
        cost_us.map_or(2 * COST_UNKNOWN_US, |cost_us| {
            // Whom too few hear could not get elected now; still better than nobody.
            let is_electable = self.is_electable(id, &self.roster);
            cost_us + if is_electable { 0 } else { COST_UNKNOWN_US }
        })
    }

    /// Whether a member could succeed as far as can be heard.
    fn is_able(&self, now: Time, id: MemberId) -> bool {
        let Role::Host(host) = &self.role else {
            return false;
        };
        let Some(known) = self.known.get(&id) else {
            return false;
        };
        let member = self.roster.member(id);
        let silent_us = now.micros_since(known.echoed_at);
        let echoes = known.term == self.roster.term || host.wanted.contains(&id);
        member.is_some_and(|one| one.can_host && one.incarnation == known.incarnation)
            && id != self.me.member
            && silent_us < self.policy.demote_after_us
            && echoes
    }

    /// The members that should succeed, in order.
    pub(super) fn wanted_standbys(&self, now: Time) -> Vec<MemberId> {
        let Role::Host(host) = &self.role else {
            return Vec::new();
        };
        let count = self
            .policy
            .standbys_among(self.roster.members.len())
            .min(TERM_STANDBYS_MAX);
        let mut wanted: Vec<MemberId> = host.wanted.clone();
        wanted.retain(|&id| self.is_able(now, id));
        wanted.truncate(count);
        let mut others: Vec<MemberId> = self.others();
        others.retain(|id| !wanted.contains(id) && self.is_able(now, *id));
        // The best at the end.
        others.sort_by_key(|&id| Reverse((self.cost_of(id), id)));
        while wanted.len() < count
            && let Some(id) = others.pop()
        {
            wanted.push(id);
        }
        let is_better = |a: MemberId, b: MemberId| self.cost_of(a) * 6 / 5 < self.cost_of(b);
        if let (Some(&best), Some(last)) = (others.last(), wanted.last_mut())
            && is_better(best, *last)
        {
            *last = best;
        }
        for place in (1..wanted.len()).rev() {
            if is_better(wanted[place], wanted[place - 1]) {
                wanted.swap(place, place - 1);
            }
        }
        if let Some(target) = host.handover.as_ref().map(|handover| handover.target) {
            wanted.retain(|&id| id != target);
            wanted.insert(0, target);
            wanted.truncate(count.max(1));
        }
        wanted
    }

    /// The standbys of the next roster: those that are wanted and up to date, and of the present
    /// ones those for whom nobody is yet.
    pub(super) fn next_standbys(
        &mut self,
        now: Time,
        next: &TermRoster,
        authority: &impl Authority,
    ) -> Vec<MemberId> {
        let present = &self.roster.standbys;
        let any_silent = present.iter().any(|&id| !self.is_able(now, id));
        let target = match &self.role {
            Role::Host(host) => host.handover.as_ref().map(|handover| handover.target),
            Role::Follower(_) | Role::Over => None,
        };
        let target_waits = target.is_some_and(|id| !self.roster.is_standby(id));
        if any_silent || present.is_empty() || target_waits {
            self.rank(now, authority);
        }
        let Role::Host(host) = &self.role else {
            return next.standbys.clone();
        };
        let newest = authority.newest();
        let term = self.roster.term;
        let lag_max = self.rate.ticks_in_us_ceil(self.policy.demote_after_us);
        let lag = |id: MemberId| {
            let known = self.known.get(&id).filter(|one| one.term == term);
            known.map_or(u32::MAX, |one| newest.since(one.held))
        };
        let is_listed = |id: MemberId| next.member(id).is_some_and(|one| one.can_host);
        let fits = |id: MemberId| {
            let stays = self.roster.is_standby(id) && lag(id) <= lag_max;
            let may_come = Some(id) == target || self.may_succeed(now, id, next);
            is_listed(id) && (stays || (lag(id) <= LAG_TICKS_MAX && may_come))
        };
        let mut standbys = host.wanted.clone();
        standbys.retain(|&id| fits(id));
        let count = self
            .policy
            .standbys_among(next.members.len())
            .min(TERM_STANDBYS_MAX);
        // A silent one keeps its place until somebody takes it, or it is given up for dead: what
        // nobody else holds is not safe.
        for &id in &self.roster.standbys {
            let echoed_at = self.known.get(&id).map_or(Time::ZERO, |one| one.echoed_at);
            let is_dead = now.micros_since(echoed_at) >= self.policy.evict_after_us;
            if standbys.len() < count && is_listed(id) && !is_dead && !standbys.contains(&id) {
                standbys.push(id);
            }
        }
        standbys
    }

    /// Who succeeds a host that leaves at once.
    pub(super) fn heir(&self, now: Time) -> Option<MemberId> {
        let standby = self.roster.standbys.first().copied();
        standby.or_else(|| self.wanted_standbys(now).first().copied())
    }
}
