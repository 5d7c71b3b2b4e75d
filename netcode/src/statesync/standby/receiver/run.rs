//! Ticks of the host that a standby runs itself.

use std::collections::VecDeque;

use crate::limits::STANDBY_HISTORY_TICKS;
use crate::tick::Tick;

/// A tick of the host that the standby is to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TickToRun {
    /// The tick.
    pub tick: Tick,
    /// What the host says of it: the inputs, for one.
    pub context: Vec<u8>,
    /// The combined hash of the host's state after it, where that is known.
    pub hash: Option<u64>,
}

/// A tick of the host that the standby ran.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeldRun {
    /// The tick.
    pub tick: Tick,
    /// The combined hash of the state after it, the host's own.
    pub hash: u64,
    /// What the host says of it.
    pub context: Vec<u8>,
}

/// Ticks that the standby ran, and those that it is to run.
#[derive(Debug)]
pub(super) struct Run {
    /// The state that the first tick starts from is to be imported first.
    pub(super) wants_import: bool,
    /// A tick was not the host's: no more of them can run.
    is_stuck: bool,
    /// The newest tick that ran and was the host's.
    newest: HeldRun,
    /// By tick, without gaps: from the one after the newest that ran.
    waiting: VecDeque<TickToRun>,
    /// Ran before the newest was known to be the host's.
    unsure: VecDeque<TickToRun>,
    /// Ticks that ran up to the newest, without gaps.
    past: VecDeque<TickToRun>,
}

impl Run {
    /// Goes on from a state that is to be imported.
    pub(super) fn new(from: HeldRun) -> Self {
        Self {
            wants_import: true,
            is_stuck: false,
            newest: from,
            waiting: VecDeque::new(),
            unsure: VecDeque::new(),
            past: VecDeque::new(),
        }
    }

    pub(super) const fn newest(&self) -> &HeldRun {
        &self.newest
    }

    /// The ticks that ran up to the newest, and what the host says of them, newest first.
    pub(super) fn newest_first(&self) -> impl Iterator<Item = (Tick, &[u8])> {
        let is_first = self.past.is_empty();
        let first = is_first.then_some((self.newest.tick, &*self.newest.context));
        let past = self.past.iter().rev();
        first
            .into_iter()
            .chain(past.map(|run| (run.tick, &*run.context)))
    }

    /// The newest tick that ran.
    fn ran_upto(&self) -> Tick {
        self.unsure.back().map_or(self.newest.tick, |run| run.tick)
    }

    /// The newest tick of which all is known to run it.
    pub(super) fn known_upto(&self) -> Tick {
        self.waiting
            .back()
            .map_or_else(|| self.ran_upto(), |run| run.tick)
    }

    /// Takes the contexts of the ticks that end with `last`; false if there is a gap before them.
    pub(super) fn take(&mut self, contexts: Vec<Vec<u8>>, last: TickToRun) -> bool {
        let count = u32::try_from(contexts.len()).unwrap_or(u32::MAX);
        let Some(first) = last.tick.number().checked_sub(count) else {
            return false;
        };
        if first > self.known_upto().number().saturating_add(1) {
            return false;
        }
        if self.is_stuck {
            return true;
        }
        let known = self.known_upto();
        let before = (first..).map(Tick::new).zip(contexts);
        let ticks = before.map(|(tick, context)| TickToRun {
            tick,
            context,
            hash: None,
        });
        self.waiting
            .extend(ticks.chain([last]).filter(|run| run.tick > known));
        true
    }

    pub(super) fn next(&self) -> Option<&TickToRun> {
        self.waiting.front().filter(|_| !self.wants_import)
    }

    /// The next tick ran, with this hash if it was asked for; false if that was not the host's.
    pub(super) fn ran(&mut self, hash: Option<u64>) -> bool {
        let Some(run) = self.waiting.pop_front() else {
            return true;
        };
        let Some(expected) = run.hash else {
            self.unsure.push_back(run);
            return true;
        };
        if hash != Some(expected) {
            self.stop();
            return false;
        }
        self.newest = HeldRun {
            tick: run.tick,
            hash: expected,
            context: run.context.clone(),
        };
        self.past.append(&mut self.unsure);
        self.past.push_back(run);
        while self.past.len() > STANDBY_HISTORY_TICKS as usize {
            self.past.pop_front();
        }
        true
    }

    /// Runs no more ticks.
    pub(super) fn stop(&mut self) {
        self.is_stuck = true;
        self.waiting.clear();
        self.unsure.clear();
    }

    /// Ticks beyond `keep` are void; false if one of them ran.
    pub(super) fn keep(&mut self, keep: Tick) -> bool {
        self.waiting.retain(|run| run.tick <= keep);
        self.ran_upto() <= keep
    }

    /// The ticks after `after`, if all of them are there: oldest first.
    pub(super) fn after(&self, after: Tick) -> Option<Vec<&TickToRun>> {
        let first = self.past.partition_point(|run| run.tick <= after);
        let runs: Vec<&TickToRun> = self.past.range(first..).collect();
        let starts = runs.first()?.tick.number().checked_sub(1)?;
        (starts == after.number()).then_some(runs)
    }
}
