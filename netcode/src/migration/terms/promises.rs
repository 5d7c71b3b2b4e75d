//! What a node has promised: which terms it refuses, and whom it may vote for.

use crate::id::{MemberId, Term};
use crate::migration::message::TermMessage;
use crate::time::Time;

use super::{STICKY_MARGIN_US, Sticky, Terms};

impl Terms {
    /// Whether something of `term` is too old; then the sender is told.
    pub(super) fn refuses(&mut self, now: Time, from: MemberId, term: Term) -> bool {
        let fence = self.promised.max(self.roster.term);
        if term >= fence {
            return false;
        }
        self.statistics.ignored += 1;
        if self.roster.term > term {
            self.send_news(now, from);
        }
        if self.promised > term {
            self.send(
                from,
                TermMessage::Stale {
                    promised: self.promised,
                },
            );
        }
        true
    }

    /// Whether a vote for `candidate` breaks no word now.
    pub(super) fn may_vote_for(&self, now: Time, candidate: MemberId) -> bool {
        if self.policy.ablation.no_stickiness {
            return true;
        }
        let held = |to: MemberId, until: Time| to != candidate && until > now;
        let by_echo = self.sticky.is_some_and(|one| held(one.to, one.until));
        let by_grant = self.grant.is_some_and(|one| held(one.target, one.until));
        !by_echo && !by_grant
    }

    /// Gives the word not to vote for another than `to` for so long.
    pub(super) fn stick(&mut self, now: Time, to: MemberId, suspect_us: u64) {
        self.keep_word(
            to,
            now.plus_micros(suspect_us.saturating_sub(STICKY_MARGIN_US)),
        );
    }

    /// Its word not to vote for another than `to` lasts until then at least.
    pub(super) fn keep_word(&mut self, to: MemberId, until: Time) {
        let before = self.sticky.filter(|one| one.to == to);
        let until = before.map_or(until, |one| one.until.max(until));
        self.sticky = Some(Sticky { to, until });
    }

    pub(super) fn learn_promise(&mut self, from: MemberId, promised: Term) {
        self.highest = self.highest.max(promised);
        if let Some(known) = self.known.get_mut(&from) {
            known.promised = known.promised.max(promised);
        }
    }
}
