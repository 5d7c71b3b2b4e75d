//! What must be true of a session whose hosting moves: at each look, and at its end.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;

use phalanx::netcode::replay::{self, Reader};
use phalanx::netcode::tick::Tick;

use super::chat::Life;
use super::{Remembers, Succession};
use crate::cluster::Index;
use crate::toy::{Footprint, Toy};

impl<P: Remembers> Succession<P> {
    /// All follow one host within `us` microseconds, ticks go on, and what was settled is the same
    /// everywhere. Returns after how many microseconds all had settled a tick under that host.
    ///
    /// Where members have given up by then, there may be nobody left to elect: nothing is asked for.
    ///
    /// # Panics
    /// If not.
    pub fn assert_recovers(&mut self, us: u64) -> u64 {
        let start = self.cluster.now();
        let mut left_us = us;
        // Whoever hosts may still change its mind.
        let recovered_us = loop {
            self.run_until(left_us, |it| {
                it.has_given_up() || it.host().is_some() && !it.is_in_motion()
            });
            if self.has_given_up() {
                self.run(us);
                return us;
            }
            let host = self.host();
            let before = self.alive().into_iter();
            let before = before.map(|index| self.cluster.node(index).settled_tick());
            let newest = before.max().unwrap_or_default();
            left_us = us.saturating_sub(self.cluster.now().micros_since(start));
            self.run_until(left_us.max(1_000_000), |it| {
                it.settled() > newest || it.host() != host
            });
            let spent_us = self.cluster.now().micros_since(start);
            left_us = us.saturating_sub(spent_us);
            if self.host() == host {
                break spent_us;
            }
        };
        let goal = self.settled().plus(120);
        let is_there = |it: &Self| it.settled() > goal && it.host().is_some();
        let has_stranger = |it: &Self| {
            let mut alive = it.alive().into_iter();
            alive.any(|index| it.is_stranger(index))
        };
        self.run_until(6_000_000, |it| is_there(it) || has_stranger(it));
        // Who came while the host changed, and cannot follow it, asks anew after a while.
        self.run_until(20_000_000, is_there);
        let states = self.history();
        for index in self.alive() {
            self.assert_inputs(index, 1, &states);
        }
        if !self.watcher.is_unclean {
            for (tick, footprint) in &self.watcher.safe {
                let known = states.get(tick);
                assert!(
                    known.is_none_or(|known| known == footprint),
                    "tick {tick} was safe, and is another now: {footprint:?}, {known:?}"
                );
            }
        }
        self.assert_heard();
        recovered_us
    }

    /// Of the links that are there, every message has arrived that is two seconds old.
    fn assert_heard(&self) {
        let now_us = self.cluster.now().micros();
        let alive = self.alive();
        let links = |from: Life, to: Life| {
            let is_here = |life: Life| alive.contains(&life.0) && self.life(life.0) == life;
            let links = self.seen[from.0].own.links + self.seen[to.0].own.links;
            (is_here(from) && is_here(to)).then_some(links)
        };
        if let Some(unheard) = self
            .watcher
            .chat
            .unheard(now_us.saturating_sub(1_500_000), links)
        {
            panic!("{unheard}");
        }
    }

    /// What was settled, by tick: the same on every node that takes part.
    ///
    /// # Panics
    /// If not.
    #[must_use]
    pub fn history(&self) -> BTreeMap<u32, Footprint> {
        let mut states: BTreeMap<u32, (&Footprint, Index)> = BTreeMap::new();
        for index in self.alive() {
            for (tick, footprint) in &self.seen[index].own.settled {
                let (known, other) = *states.entry(*tick).or_insert((footprint, index));
                assert_eq!(
                    known, footprint,
                    "{other} and {index} differ at tick {tick}"
                );
            }
        }
        let states = states.into_iter();
        states
            .map(|(tick, (footprint, _))| (tick, footprint.clone()))
            .collect()
    }

    /// Every input of `index` from tick `first` on acted as it was submitted, or the node was told.
    /// Returns how many were replaced.
    ///
    /// # Panics
    /// If not.
    pub fn assert_inputs(
        &self,
        index: Index,
        first: u32,
        history: &BTreeMap<u32, Footprint>,
    ) -> usize {
        let node = self.cluster.node(index);
        let Some(slot) = node.session().slot else {
            return 0;
        };
        let seen = &self.seen[index];
        let bot = self.cluster.members[index].driver.player();
        let first = seen
            .own
            .active_from
            .map_or(u32::MAX, |from| from.max(first));
        let settled = node.settled_tick().number();
        let mut replaced = 0;
        for (tick, footprint) in history.range(first..) {
            let submitted = bot.submitted().get(&Tick::new(*tick));
            let Some(submitted) = submitted.filter(|_| *tick <= settled) else {
                continue;
            };
            let is_present = footprint.present & slot.bit() != 0;
            let acted = footprint.inputs[slot.index()];
            // Where all wait for all, whoever was away is absent until it is let in again.
            let is_away = self.watcher.waits && !is_present;
            let is_told = seen.replaced.contains(&Tick::new(*tick));
            assert!(
                is_present && acted == *submitted || is_told || is_away,
                "{index} submitted {submitted:x} for {tick}, {acted:x} acted, present {is_present}"
            );
            replaced += usize::from(is_told);
        }
        replaced
    }

    /// What nodes that take part have recorded verifies, across all changes of host. Returns how
    /// many changes were recorded.
    ///
    /// # Panics
    /// If not.
    pub fn assert_recordings(&mut self) -> usize {
        let mut changes = 0;
        for index in self.alive() {
            let Some(file) = self.seen[index].own.file.take() else {
                continue;
            };
            let seed = self.cluster.node(index).session().seed;
            let driver = self.cluster.driver(index);
            let summary = driver.finish_recording().expect("it recorded");
            summary.expect("the file is complete");
            let reader = BufReader::new(File::open(&file).expect("it was recorded"));
            let mut reader = Reader::open(reader).expect("a replay");
            changes += reader.term_changes().expect("term changes").len();
            let toy = Toy::new(seed, reader.header().slots());
            let mut player = replay::Player::new(toy, reader).expect("it fits the toy");
            let report = player.verify(|_, _| ());
            let report = report.unwrap_or_else(|error| panic!("recording of {index}: {error}"));
            assert!(report.last > report.first, "{report:?}");
            std::fs::remove_file(&file).expect("it is there");
        }
        changes
    }
}
