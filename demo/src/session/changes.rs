//! Changes of host, and what they cost this node.

use std::collections::VecDeque;

use phalanx::netcode::id::MemberId;
use phalanx::netcode::tick::Tick;
use phalanx::netcode::time::Time;

/// Time after a change of host in which ticks that stay away count as part of it, in microseconds.
const AFTERMATH_US: u64 = 500_000;
/// Replaced inputs that are remembered: more than a node samples ahead.
const REPLACED_MAX: usize = 256;

/// What changes of host have cost a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Migrations {
    /// How often another member became the host.
    pub count: u32,
    /// The longest time without a new tick around a new term, or around a time in which nobody may
    /// have hosted.
    pub blackout_us: Option<u64>,
    /// Ticks that had run and were ordered anew.
    pub ticks_lost: u64,
    /// Own inputs that were given before a change, and did not act after it.
    pub inputs_lost: u64,
    /// Whether a new host may have begun without something that was promised, or in a session of
    /// its own.
    pub is_unclean: bool,
    /// Whether this node went on in a session of its own, or knows of another that did.
    pub is_forked: bool,
}

/// Watches a node's changes of host.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Who hosts, as far as it is known.
    host: Option<MemberId>,
    figures: Migrations,
    /// The newest tick, and since when it is.
    newest: Option<(Time, Tick)>,
    /// Whether a term began since then, or nobody may have hosted.
    is_changing: bool,
    aftermath_until: Time,
    /// Own inputs that were replaced and count as lost in no change yet.
    replaced: VecDeque<Tick>,
    /// The own inputs that had been given and had not acted when the host changed last: those after
    /// the first tick, up to the second.
    at_stake: Option<(Tick, Tick)>,
}

impl Changes {
    /// What they have cost so far.
    pub(super) const fn figures(&self) -> Migrations {
        self.figures
    }

    /// Ticks up to `tick` are there, on the word of `host`.
    pub(super) fn advance(&mut self, now: Time, tick: Tick, host: MemberId) {
        if tick == Tick::ZERO {
            return;
        }
        self.host.get_or_insert(host);
        let Some((since, newest)) = self.newest else {
            self.newest = Some((now, tick));
            return;
        };
        if tick <= newest {
            // Some may have to run again.
            self.newest = Some((since, tick));
            return;
        }
        if self.is_changing || since < self.aftermath_until {
            let gap_us = now.micros_since(since);
            let longest = self.figures.blackout_us.unwrap_or(0);
            self.figures.blackout_us = Some(longest.max(gap_us));
        }
        self.is_changing = false;
        self.newest = Some((now, tick));
    }

    /// `member` hosts; own inputs were given up to the tick `given`. Says whether another one did
    /// before.
    pub(super) fn host_changed(&mut self, now: Time, member: MemberId, given: Tick) -> bool {
        let before = self.host.replace(member);
        let Some(before) = before else {
            return false;
        };
        // A host that slept, and was elected again, stood still like all others.
        self.is_changing = true;
        self.aftermath_until = now.plus_micros(AFTERMATH_US);
        if before == member {
            return false;
        }
        self.figures.count += 1;
        let acted = self.newest.map_or(Tick::ZERO, |(_, tick)| tick);
        self.at_stake = Some((acted, given));
        let known = core::mem::take(&mut self.replaced);
        known.into_iter().for_each(|tick| self.input_replaced(tick));
        true
    }

    /// Nobody may host now, as far as this node hears.
    pub(super) const fn stands_still(&mut self) {
        self.is_changing = true;
    }

    /// An own input for `tick` did not act.
    pub(super) fn input_replaced(&mut self, tick: Tick) {
        let is_at_stake = |(acted, given): (Tick, Tick)| acted < tick && tick <= given;
        if self.at_stake.is_some_and(is_at_stake) {
            self.figures.inputs_lost += 1;
            return;
        }
        if self.replaced.len() == REPLACED_MAX {
            self.replaced.pop_front();
        }
        self.replaced.push_back(tick);
    }

    /// The ticks from `first` to `last` did not happen.
    pub(super) fn ticks_lost(&mut self, first: Tick, last: Tick) {
        self.figures.ticks_lost += u64::from(last.since(first)) + 1;
    }

    /// Something that was promised may be lost.
    pub(super) const fn unclean(&mut self) {
        self.figures.is_unclean = true;
    }

    /// There are two sessions, or may be.
    pub(super) const fn forked(&mut self) {
        self.figures.is_unclean = true;
        self.figures.is_forked = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: MemberId = MemberId(1);
    const NEW: MemberId = MemberId(2);

    fn ms(ms: u64) -> Time {
        Time::from_millis(ms)
    }

    #[test]
    fn only_a_gap_around_a_change_counts() {
        let mut changes = Changes::default();
        changes.advance(ms(0), Tick::new(1), OLD);
        // Slow, and none of our business.
        changes.advance(ms(900), Tick::new(2), OLD);
        changes.advance(ms(950), Tick::new(3), OLD);
        assert_eq!(changes.figures(), Migrations::default());

        assert!(changes.host_changed(ms(1200), NEW, Tick::new(5)));
        changes.advance(ms(1250), Tick::new(3), NEW);
        changes.advance(ms(1300), Tick::new(4), NEW);
        assert_eq!(changes.figures().blackout_us, Some(350_000));
        // What follows at once belongs to it.
        changes.advance(ms(1690), Tick::new(5), NEW);
        assert_eq!(changes.figures().blackout_us, Some(390_000));
        changes.advance(ms(1750), Tick::new(6), NEW);
        changes.advance(ms(2750), Tick::new(7), NEW);
        assert_eq!(changes.figures().blackout_us, Some(390_000));
        assert_eq!(changes.figures().count, 1);
    }

    #[test]
    fn a_host_that_is_elected_again_and_one_that_is_heard_again_stood_still() {
        let mut changes = Changes::default();
        changes.advance(ms(0), Tick::new(1), OLD);
        assert!(!changes.host_changed(ms(1500), OLD, Tick::new(5)));
        changes.advance(ms(1520), Tick::new(2), OLD);
        let figures = changes.figures();
        assert_eq!((figures.count, figures.blackout_us), (0, Some(1_520_000)));

        changes.advance(ms(3000), Tick::new(3), OLD);
        changes.stands_still();
        changes.advance(ms(5000), Tick::new(4), OLD);
        assert_eq!(changes.figures().blackout_us, Some(2_000_000));
        changes.advance(ms(9000), Tick::new(5), OLD);
        assert_eq!(changes.figures().blackout_us, Some(2_000_000));
    }

    #[test]
    fn inputs_count_as_lost_that_were_under_way_when_the_host_changed() {
        let mut changes = Changes::default();
        changes.advance(ms(0), Tick::new(10), OLD);
        // One by bad luck, one that was under way.
        changes.input_replaced(Tick::new(9));
        changes.input_replaced(Tick::new(11));
        changes.host_changed(ms(100), NEW, Tick::new(14));
        assert_eq!(changes.figures().inputs_lost, 1);
        changes.input_replaced(Tick::new(14));
        changes.input_replaced(Tick::new(15));
        assert_eq!(changes.figures().inputs_lost, 2);
        changes.ticks_lost(Tick::new(9), Tick::new(10));
        assert_eq!(changes.figures().ticks_lost, 2);
    }
}
