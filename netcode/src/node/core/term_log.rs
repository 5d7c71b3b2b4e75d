//! Which terms a node has followed, and from where on each of them acted.
//!
//! Histories branch: a host that nobody hears goes on ordering ticks until its lease ends, while
//! the others follow another one from an earlier tick. So a term's number alone does not say what
//! somebody holds of the session; two logs do, by the newest term that is in both.

use std::collections::VecDeque;

use crate::id::{MemberId, Term};
use crate::migration::Lineage;
use crate::session::handshake::{Followed, TERMS_MAX, TermBase, TermStart};
use crate::tick::Tick;

/// Beginnings of terms that a node remembers. Whoever missed more needs a state.
const TERMS_KEPT: usize = 64;

/// How much of their histories two nodes share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::node) struct Shared {
    /// The newest term that both have followed.
    pub(in crate::node) term: Term,
    /// What either holds up to this tick is the other's history too.
    pub(in crate::node) upto: Tick,
}

/// What the recorder has to know of terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TermNews {
    /// What was ordered after this tick, and terms that began there, are no part of the session.
    Back(Tick),
    /// A term begins.
    Begun(TermStart),
}

/// The terms that a node has followed.
#[derive(Debug)]
pub(in crate::node) struct TermLog {
    /// The term that it came in, or the newest whose beginning it has forgotten.
    since: Term,
    /// How later terms began, ascending; at most [`TERMS_KEPT`].
    starts: VecDeque<TermStart>,
    /// What the recorder has not seen; at most [`TERMS_KEPT`].
    news: VecDeque<TermNews>,
}

impl TermLog {
    pub(in crate::node) const fn new(since: Term) -> Self {
        Self {
            since,
            starts: VecDeque::new(),
            news: VecDeque::new(),
        }
    }

    /// Of a node that begins anew in `since`: of what it held before, nothing is known to stand.
    pub(in crate::node) fn voided(since: Term) -> Self {
        let mut log = Self::new(since);
        log.tell(TermNews::Back(Tick::ZERO));
        log
    }

    /// A term begins.
    pub(in crate::node) fn begin(&mut self, start: TermStart) {
        self.starts.push_back(start);
        self.tell(TermNews::Begun(start));
        if self.starts.len() > TERMS_KEPT
            && let Some(forgotten) = self.starts.pop_front()
        {
            self.since = Term(forgotten.term);
        }
    }

    /// Terms after the shared one are no part of the session.
    pub(in crate::node) fn go_back(&mut self, shared: Shared) {
        let is_beyond = |start: &mut TermStart| start.term > shared.term.0;
        let mut is_undone = false;
        while self.starts.pop_back_if(is_beyond).is_some() {
            is_undone = true;
        }
        if is_undone {
            self.tell(TermNews::Back(shared.upto));
        }
    }

    /// How terms up to `term` began is not known.
    pub(in crate::node) fn forget(&mut self, term: Term) {
        self.starts.clear();
        self.since = term;
    }

    /// Takes over how terms up to the present one began, if this node came in it and does not know.
    pub(in crate::node) fn learn(&mut self, present: Term, lineage: &Lineage) {
        let is_new = self.starts.is_empty() && self.since == present;
        let Some((first, later)) = lineage.ancestors().split_first().filter(|_| is_new) else {
            return;
        };
        let leads_here = later.last().is_some_and(|last| last.term == present);
        if !leads_here || later.len() > TERMS_KEPT {
            return;
        }
        self.since = first.term;
        self.starts.extend(later.iter().map(|one| TermStart {
            term: one.term.0,
            base: one.base.number(),
            // Nobody tells who hosted.
            host: MemberId::UNKNOWN.0,
            is_planned: false,
        }));
    }

    /// The terms after `term`, ascending.
    pub(in crate::node) fn after(&self, term: Term) -> impl Iterator<Item = &TermStart> + use<'_> {
        self.starts.iter().filter(move |start| start.term > term.0)
    }

    /// The terms that `host` hosted, as far as they are known, in a session that is in `present`.
    pub(in crate::node) fn hosted_by(
        &self,
        host: MemberId,
        present: Term,
    ) -> impl Iterator<Item = Term> + use<'_> {
        let first = self.starts.front().map_or(present, |_| Term(1));
        let is_first = self.since == Term(1) && host == MemberId::FIRST_HOST;
        let first = is_first.then_some(first);
        let later = self.starts.iter().filter(move |start| start.host == host.0);
        first.into_iter().chain(later.map(|start| Term(start.term)))
    }

    /// The newest tick that stands of what was ordered in `term`, if this node has followed it.
    pub(in crate::node) fn standing(&self, term: Term) -> Option<Tick> {
        self.has_followed(term).then(|| self.smallest_base(term))
    }

    /// What this node shares with one that came in `since` and then followed the terms of `starts`,
    /// each with its base, ascending; `None` if no term is known to be in both.
    pub(in crate::node) fn shared(&self, since: Term, starts: &[(Term, Tick)]) -> Option<Shared> {
        let newest_first = starts.iter().rev().map(|&(term, _)| term);
        let term = newest_first
            .chain([since])
            .find(|&term| self.has_followed(term))?;
        let later = starts.iter().filter(|&&(later, _)| later > term);
        let theirs = later.map(|&(_, base)| base).min().unwrap_or(Tick::MAX);
        Some(Shared {
            term,
            upto: theirs.min(self.smallest_base(term)),
        })
    }

    /// What a host is told of this log: of the newest terms.
    pub(in crate::node) fn followed(&self) -> Followed {
        let older = self.starts.len().saturating_sub(TERMS_MAX);
        let before = older.checked_sub(1).and_then(|last| self.starts.get(last));
        let starts = self.starts.iter().skip(older);
        Followed {
            since: before.map_or(self.since.0, |start| start.term),
            starts: starts
                .map(|start| TermBase {
                    term: start.term,
                    base: start.base,
                })
                .collect(),
        }
    }

    /// What the recorder has not seen yet.
    pub(in crate::node) fn poll_news(&mut self) -> Option<TermNews> {
        self.news.pop_front()
    }

    fn has_followed(&self, term: Term) -> bool {
        term == self.since || self.starts.iter().any(|start| start.term == term.0)
    }

    fn smallest_base(&self, after: Term) -> Tick {
        let bases = self.after(after).map(|start| Tick::new(start.base));
        bases.min().unwrap_or(Tick::MAX)
    }

    fn tell(&mut self, news: TermNews) {
        self.news.push_back(news);
        if self.news.len() > TERMS_KEPT {
            self.news.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(terms: &[(u32, u32)]) -> TermLog {
        let mut log = TermLog::new(Term(1));
        for &(term, base) in terms {
            log.begin(TermStart {
                term,
                base,
                host: 0,
                is_planned: false,
            });
        }
        log
    }

    fn shared(of: &TermLog, with: &TermLog) -> Option<(u32, Tick)> {
        let followed = with.followed();
        let shared = of.shared(followed.since(), &followed.starts())?;
        Some((shared.term.0, shared.upto))
    }

    #[test]
    fn what_two_logs_share_ends_where_the_first_of_them_branches_off() {
        let alone = log(&[(2, 193)]);
        let others = log(&[(4, 209)]);
        assert_eq!(shared(&others, &alone), Some((1, Tick::new(193))));
        assert_eq!(shared(&alone, &others), Some((1, Tick::new(193))));
        let later = log(&[(4, 209), (5, 180)]);
        assert_eq!(shared(&later, &alone), Some((1, Tick::new(180))));
        assert_eq!(shared(&later, &others), Some((4, Tick::new(180))));
        assert_eq!(shared(&others, &others), Some((4, Tick::MAX)));
        assert_eq!(shared(&log(&[]), &log(&[])), Some((1, Tick::MAX)));
    }

    #[test]
    fn who_came_later_shares_what_came_since() {
        let mut late = TermLog::new(Term(4));
        let others = log(&[(4, 209), (6, 300)]);
        assert_eq!(shared(&others, &late), Some((4, Tick::new(300))));
        let strange = log(&[(5, 100)]);
        assert_eq!(shared(&strange, &late), None);
        let lineage = Lineage::founding(Term(1)).continued(Term(4), Tick::new(209));
        late.learn(Term(4), &lineage);
        assert_eq!(shared(&strange, &late), Some((1, Tick::new(100))));
    }

    #[test]
    fn who_followed_many_terms_tells_of_the_newest() {
        let many: Vec<_> = (2..40).map(|term| (term, term * 10)).collect();
        let (long, short) = (log(&many), log(&many[..30]));
        assert_eq!(long.followed().starts.len(), TERMS_MAX);
        assert_eq!(shared(&long, &short), Some((31, Tick::new(320))));
    }
}
