//! Who counts in a term: members, votes, and the order of succession.

use crate::id::{MemberId, Term};
use crate::limits::{TERM_MEMBERS_BYTES_MAX, TERM_MEMBERS_MAX, TERM_STANDBYS_MAX, TERM_VOTERS_MAX};
use crate::migration::certificate::ElectionKind;
use crate::migration::lineage::{Lineage, Position};
use crate::tick::Tick;

/// Votes that elect a host among `voters`.
#[must_use]
pub const fn elect_quorum(voters: usize) -> usize {
    voters / 2 + 1
}

/// Voters that keep a host, itself included: so many that no quorum can elect without one of
/// them.
#[must_use]
pub const fn keep_quorum(voters: usize) -> usize {
    voters + 1 - elect_quorum(voters)
}

/// A member, as the term machine knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TermMember {
    /// Its identity.
    pub id: MemberId,
    /// Number of its process. One that restarted has another, and none of the promises that it
    /// made before.
    pub incarnation: u32,
    /// Whether it may host: it wants to, and has the host's build.
    pub can_host: bool,
    /// Whether it votes.
    pub is_voter: bool,
    /// Whether it would vote if the host let it: a voter that was silent for long gets its vote
    /// back when it is heard again.
    pub wants_vote: bool,
}

/// The members of a session in one term.
///
/// Only the host of the term changes it, and raises the version. Rosters are ordered by
/// (term, version).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TermRoster {
    /// The term.
    pub term: Term,
    /// Number of the change within the term.
    pub version: u32,
    /// How the term came to be.
    pub kind: ElectionKind,
    /// Who hosts.
    pub host: MemberId,
    /// The first tick that the term may show.
    pub start: Tick,
    /// What a candidate must hold at least: everything that was safe when this was made.
    pub floor: Position,
    /// The history up to this term.
    pub lineage: Lineage,
    /// The members, by identity; at most [`TERM_MEMBERS_MAX`], of which [`TERM_VOTERS_MAX`] vote.
    pub members: Vec<TermMember>,
    /// Who succeeds, in order; at most [`TERM_STANDBYS_MAX`].
    pub standbys: Vec<MemberId>,
}

impl TermRoster {
    /// The roster of a session that `host` opens.
    #[must_use]
    pub fn founding(term: Term, host: TermMember) -> Self {
        let lineage = Lineage::founding(term);
        Self {
            term,
            version: 0,
            kind: ElectionKind::Founding,
            host: host.id,
            start: Tick::new(1),
            floor: lineage.position(Tick::ZERO),
            lineage,
            members: vec![host],
            standbys: Vec::new(),
        }
    }

    /// Its order among rosters.
    #[must_use]
    pub const fn number(&self) -> (Term, u32) {
        (self.term, self.version)
    }

    /// The member with this identity.
    #[must_use]
    pub fn member(&self, id: MemberId) -> Option<&TermMember> {
        let index = self.members.binary_search_by_key(&id, |one| one.id).ok()?;
        self.members.get(index)
    }

    /// The members that vote.
    pub fn voters(&self) -> impl Iterator<Item = MemberId> + '_ {
        let voters = self.members.iter().filter(|one| one.is_voter);
        voters.map(|one| one.id)
    }

    /// Number of members that vote.
    #[must_use]
    pub fn voter_count(&self) -> usize {
        self.voters().count()
    }

    /// Whether this member votes.
    #[must_use]
    pub fn is_voter(&self, id: MemberId) -> bool {
        self.member(id).is_some_and(|one| one.is_voter)
    }

    /// Whether this member succeeds.
    #[must_use]
    pub fn is_standby(&self, id: MemberId) -> bool {
        self.standbys.contains(&id)
    }

    /// Votes that elect.
    #[must_use]
    pub fn elect(&self) -> usize {
        elect_quorum(self.voter_count())
    }

    /// Voters that keep a host.
    #[must_use]
    pub fn keep(&self) -> usize {
        keep_quorum(self.voter_count())
    }

    /// Whether one more member has room: in number, and in the bytes of a message. Ids that hosts of
    /// many terms gave take more of them.
    pub(super) fn has_room_for(&self, id: MemberId) -> bool {
        let mut ids: Vec<MemberId> = self.members.iter().map(|one| one.id).collect();
        ids.insert(ids.partition_point(|one| *one < id), id);
        let bytes = |ahead: u64| 5 + (u64::BITS - ahead.leading_zeros()).div_ceil(7).max(1);
        let gaps = ids.windows(2).map(|pair| bytes(pair[1].0 - pair[0].0));
        let first = ids.first().map_or(0, |first| bytes(first.0));
        ids.len() <= TERM_MEMBERS_MAX && first + gaps.sum::<u32>() <= TERM_MEMBERS_BYTES_MAX
    }

    /// Whether the limits hold and names have a meaning.
    pub(super) fn is_sound(&self) -> bool {
        let ascending = self.members.windows(2).all(|pair| pair[0].id < pair[1].id);
        let mut standbys = self.standbys.clone();
        standbys.sort_unstable();
        standbys.dedup();
        let hosts = |id: &MemberId| self.member(*id).is_some_and(|one| one.can_host);
        ascending
            && self.members.len() <= TERM_MEMBERS_MAX
            && self.voter_count() <= TERM_VOTERS_MAX
            && self.standbys.len() <= TERM_STANDBYS_MAX
            && standbys.len() == self.standbys.len()
            && self.standbys.iter().all(hosts)
            && self.member(self.host).is_some()
            && !self.is_standby(self.host)
            && self.floor.term <= self.term
            && self.start > self.lineage.base()
            && self
                .lineage
                .ancestors()
                .last()
                .is_some_and(|last| last.term == self.term)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_quorum_elects_past_those_who_keep() {
        for voters in 1..=TERM_VOTERS_MAX {
            let (elect, keep) = (elect_quorum(voters), keep_quorum(voters));
            assert!(elect + keep > voters, "{voters} voters");
            assert!(2 * elect > voters, "{voters} voters");
            assert!(keep >= 1 && keep <= elect, "{voters} voters");
            // A roster with one voter more: its electors meet those who hold this one.
            let more = elect_quorum(voters + 1);
            assert!(elect + more > voters + 1, "{voters} and one more");
        }
    }
}
