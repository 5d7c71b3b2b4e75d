//! The roster's upkeep: wishes of members, votes that come and go, and who succeeds.

use crate::id::MemberId;
use crate::limits::TERM_VOTERS_MAX;
use crate::migration::api::{Authority, TermEvent};
use crate::migration::roster::{TermMember, TermRoster};
use crate::time::Time;

use super::RANKING_US;
use crate::migration::terms::{Role, Terms};

impl Terms {
    /// Changes the roster by what has come up, one step at a time: as many members without a vote
    /// as there are, but one vote.
    pub(super) fn maintain(&mut self, now: Time, authority: &impl Authority) {
        if !self.may_act(now) || !self.is_roster_settled() {
            return;
        }
        let Role::Host(host) = &self.role else {
            return;
        };
        if now.micros_since(host.ranked_at) >= RANKING_US || host.ranked_at == Time::ZERO {
            self.rank(now, authority);
        }
        let mut next = self.roster.clone();
        let mut votes_changed = false;
        let fulfilled = self.grant_wishes(&mut next, &mut votes_changed);
        let evicted = self.change_a_vote(now, &mut next, &mut votes_changed);
        next.standbys = self.next_standbys(now, &next, authority);
        if let Role::Host(host) = &mut self.role {
            for id in fulfilled {
                host.wishes.remove(&id);
            }
        }
        if next == self.roster {
            return;
        }
        if next.standbys != self.roster.standbys {
            self.event(TermEvent::Standbys {
                standbys: next.standbys.clone(),
            });
        }
        if let Some(member) = evicted {
            self.event(TermEvent::Evicted { member });
        }
        next.version += 1;
        // Never less than before: what was safe in an earlier term a new host knows by the floor only.
        let floor = self.safe.max(next.floor.tick).min(authority.newest());
        next.floor = next.lineage.position(floor);
        self.learn_members(&next, now);
        self.roster = next;
        self.commit_roster();
        self.renew_lease(now);
        self.next_beat = now;
    }

    /// Puts wishes into `next` as far as one change of votes allows; those that are fulfilled.
    fn grant_wishes(&self, next: &mut TermRoster, votes_changed: &mut bool) -> Vec<MemberId> {
        let Role::Host(host) = &self.role else {
            return Vec::new();
        };
        let mut fulfilled = Vec::new();
        for (&id, wish) in &host.wishes {
            let place = next.members.binary_search_by_key(&id, |one| one.id);
            let present = place
                .ok()
                .and_then(|index| next.members.get(index))
                .copied();
            let same =
                |one: &TermMember| wish.is_some_and(|wish| wish.incarnation == one.incarnation);
            if let (Some(one), Some(wish)) = (present, wish)
                && same(&one)
            {
                // Its vote follows by itself.
                if let Some(entry) = place.ok().and_then(|index| next.members.get_mut(index)) {
                    (entry.can_host, entry.wants_vote) = (wish.can_host, wish.wants_vote);
                }
                fulfilled.push(id);
                continue;
            }
            if present.is_some_and(|one| one.is_voter) {
                if *votes_changed {
                    continue;
                }
                *votes_changed = true;
            }
            if let Ok(index) = place {
                next.members.remove(index);
                next.standbys.retain(|&standby| standby != id);
            }
            if let Some(wish) = wish {
                if !next.has_room_for(id) {
                    continue;
                }
                let place = next.members.partition_point(|one| one.id < id);
                next.members.insert(
                    place,
                    TermMember {
                        is_voter: false,
                        ..*wish
                    },
                );
            }
            fulfilled.push(id);
        }
        fulfilled
    }

    /// Takes the vote of one that is silent, or gives one to a member that echoes.
    fn change_a_vote(
        &self,
        now: Time,
        next: &mut TermRoster,
        votes_changed: &mut bool,
    ) -> Option<MemberId> {
        let Role::Host(host) = &self.role else {
            return None;
        };
        if *votes_changed {
            return None;
        }
        let term = self.roster.term;
        let silent_us = |id: MemberId| {
            let known = self.known.get(&id);
            known.map_or(0, |one| now.micros_since(one.echoed_at.max(host.began_at)))
        };
        // A host that slept has not heard anybody meanwhile.
        let listened_us = now.micros_since(host.acts_since);
        let fresh_us = self.policy.demote_after_us / 2;
        let voters = next.voter_count();
        for index in 0..next.members.len() {
            let one = next.members[index];
            let known = self.known.get(&one.id);
            if one.id == self.me.member {
                continue;
            }
            let unheard_us = silent_us(one.id).min(listened_us);
            if one.is_voter && (unheard_us >= self.policy.evict_after_us || !one.wants_vote) {
                next.members[index].is_voter = false;
                *votes_changed = true;
                return Some(one.id);
            }
            let is_up = known.is_some_and(|known| {
                let holds = known.term == term && known.version >= self.roster.version;
                holds && known.incarnation == one.incarnation && silent_us(one.id) < fresh_us
            });
            let may_vote = is_up && self.may_vote(now, one.id, next);
            if one.wants_vote && !one.is_voter && may_vote && voters < TERM_VOTERS_MAX {
                next.members[index].is_voter = true;
                *votes_changed = true;
                return None;
            }
        }
        None
    }
}
