//! Positions in a session's history, and how histories of different terms branch.
//!
//! Each term continues the history of an earlier one after a tick, its **base**; what was run
//! beyond the base in the earlier term is no part of the session. A [`Lineage`] lists the bases of
//! the terms that a history consists of, so that any member can tell how much of what it holds
//! belongs to it.

use crate::id::Term;
use crate::limits::TERM_LINEAGE_MAX;
use crate::tick::Tick;

/// How far somebody's records reach: without a gap up to `tick`, in the history of `term`.
///
/// Ordered by term first: the history of a later term holds everything of an earlier one that
/// anybody was promised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The term whose history it is.
    pub term: Term,
    /// The newest tick held.
    pub tick: Tick,
}

/// A term of a history, and where it branched off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ancestor {
    /// The term.
    pub term: Term,
    /// The last tick that it took over from the terms before.
    pub base: Tick,
}

/// The terms of a history, oldest first; at most [`TERM_LINEAGE_MAX`] of the newest.
///
/// Terms ascend; bases never go back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lineage {
    ancestors: Vec<Ancestor>,
}

impl Lineage {
    /// The history of a session's first term.
    #[must_use]
    pub fn founding(term: Term) -> Self {
        let base = Tick::ZERO;
        Self {
            ancestors: vec![Ancestor { term, base }],
        }
    }

    /// A history of these terms, or `None` if there are too many or they do not ascend.
    #[must_use]
    pub fn new(ancestors: Vec<Ancestor>) -> Option<Self> {
        let ascends = ancestors
            .windows(2)
            .all(|pair| pair[0].term < pair[1].term && pair[0].base <= pair[1].base);
        (ascends && ancestors.len() <= TERM_LINEAGE_MAX).then_some(Self { ancestors })
    }

    /// Its terms, oldest first.
    #[must_use]
    pub fn ancestors(&self) -> &[Ancestor] {
        &self.ancestors
    }

    /// Where its newest term begins.
    #[must_use]
    pub fn base(&self) -> Tick {
        self.ancestors.last().map_or(Tick::ZERO, |last| last.base)
    }

    /// The position of somebody who holds this history up to `tick`.
    #[must_use]
    pub fn position(&self, tick: Tick) -> Position {
        let reached = self.ancestors.iter().rev().find(|one| one.base <= tick);
        let oldest = self.ancestors.first();
        let before = || oldest.map_or(Term(0), |one| Term(one.term.0.saturating_sub(1)));
        Position {
            term: reached.map_or_else(before, |one| one.term),
            tick,
        }
    }

    /// The history that continues this one as `term` after tick `base`.
    #[must_use]
    pub fn continued(&self, term: Term, base: Tick) -> Self {
        let mut ancestors = self.ancestors.clone();
        // Terms that began after the base are no part of it.
        while ancestors.len() > 1 && ancestors.last().is_some_and(|last| last.base > base) {
            ancestors.pop();
        }
        ancestors.retain(|one| one.term < term && one.base <= base);
        ancestors.push(Ancestor { term, base });
        let surplus = ancestors.len().saturating_sub(TERM_LINEAGE_MAX);
        ancestors.drain(..surplus);
        Self { ancestors }
    }

    /// How much of what is held up to `tick` of this history is also part of `other`: up to this
    /// tick. `None` if the lists have no term in common, so that nobody can tell.
    #[must_use]
    pub fn common(&self, tick: Tick, other: &Self) -> Option<Tick> {
        let shared = self.ancestors.iter().rev().find_map(|own| {
            let is_shared = other.ancestors.contains(own);
            is_shared.then_some(own.term)
        })?;
        let later = |list: &Self| {
            let first = list.ancestors.iter().find(|one| one.term > shared);
            first.map_or(Tick::MAX, |one| one.base)
        };
        Some(tick.min(later(self)).min(later(other)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tick(number: u32) -> Tick {
        Tick::new(number)
    }

    #[test]
    fn a_position_names_the_newest_term_whose_base_is_held() {
        let lineage = Lineage::founding(Term(1))
            .continued(Term(2), tick(100))
            .continued(Term(5), tick(140));
        let term_at = |number| lineage.position(tick(number)).term;
        assert_eq!(
            [99, 100, 139, 140, 500].map(term_at),
            [1, 2, 2, 5, 5].map(Term)
        );
    }

    #[test]
    fn what_histories_share_ends_where_the_first_of_them_branches_off() {
        let root = Lineage::founding(Term(1)).continued(Term(2), tick(100));
        let ours = root.continued(Term(3), tick(150));
        let theirs = root
            .continued(Term(4), tick(130))
            .continued(Term(6), tick(200));
        assert_eq!(ours.common(tick(180), &theirs), Some(tick(130)));
        assert_eq!(theirs.common(tick(300), &ours), Some(tick(130)));
        assert_eq!(root.common(tick(120), &theirs), Some(tick(120)));
        assert_eq!(root.common(tick(170), &theirs), Some(tick(130)));
        assert_eq!(ours.common(tick(180), &ours), Some(tick(180)));
        let stranger = Lineage::founding(Term(9));
        assert_eq!(ours.common(tick(180), &stranger), None);
    }

    #[test]
    fn a_list_keeps_the_newest_terms_only() {
        let mut lineage = Lineage::founding(Term(1));
        for term in 2..40 {
            lineage = lineage.continued(Term(term), tick(term * 10));
        }
        assert_eq!(lineage.ancestors().len(), TERM_LINEAGE_MAX);
        assert_eq!(lineage.base(), tick(390));
        assert_eq!(Lineage::new(lineage.ancestors().to_vec()), Some(lineage));
    }
}
