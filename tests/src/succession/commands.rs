//! Hosting that moves by command, as an election would decide: the members that are there vote, and
//! the base is the newest position among them.

use std::collections::BTreeMap;

use phalanx::netcode::id::Term;
use phalanx::netcode::node::{Event, Prepare, StepDown, TakeOver, Warm};
use phalanx::netcode::prng::Prng;
use phalanx::netcode::tick::Tick;

use super::{Remembers, Succession};
use crate::cluster::Index;

impl<P: Remembers> Succession<P> {
    /// How a member reaches `index`.
    #[must_use]
    pub fn warm(&self, index: Index) -> Warm {
        Warm {
            path: self.cluster.path_to(index),
            rtt_us: Some(self.rtt_us()),
        }
    }

    fn rtt_us(&self) -> u64 {
        2 * self.cluster.default_conditions().latency_us
    }

    /// `who` vote for `candidate` in `term`, or follow it.
    pub fn prepare(&mut self, who: &[Index], candidate: Index, term: u32, keeps_frames: bool) {
        for &voter in who {
            let prepare = Prepare {
                candidate: self.member(candidate),
                term: Term(term),
                warm: (voter != candidate).then(|| self.warm(candidate)),
                keeps_frames,
            };
            let now = self.cluster.now_of(voter);
            let node = self.cluster.driver(voter).node_mut();
            node.prepare_for(now, prepare);
        }
    }

    /// What the voters hold beyond the candidate's position comes to it; it takes over there.
    ///
    /// # Panics
    /// If it cannot.
    pub fn elect(&mut self, voters: &[Index], candidate: Index, term: u32, lost: &[Index]) -> Tick {
        for &voter in voters {
            let mut at = self.cluster.node(candidate).position().1;
            let newest = self.cluster.node(voter).position().1;
            while at < newest {
                let mut bytes = Vec::new();
                let node = self.cluster.node(voter);
                let written = node.records_after(at, 600, &mut bytes);
                at = written.expect("frames of a voter");
                let now = self.cluster.now_of(candidate);
                let node = self.cluster.driver(candidate).node_mut();
                let reached = node.ingest_records(now, &bytes).expect("frames of a voter");
                assert_eq!(reached, at);
            }
        }
        self.take_over(candidate, term, lost, false)
    }

    /// `candidate` hosts from where it is; returns the base of its term.
    ///
    /// # Panics
    /// If it cannot.
    pub fn take_over(
        &mut self,
        candidate: Index,
        term: u32,
        lost: &[Index],
        is_planned: bool,
    ) -> Tick {
        let base = self.cluster.node(candidate).position().1;
        let others = (0..self.cluster.members.len()).filter(|&index| index != candidate);
        let take_over = TakeOver {
            term: Term(term),
            base,
            is_planned,
            paths: others
                .map(|index| (self.member(index), self.warm(index)))
                .collect::<BTreeMap<_, _>>(),
            lost: lost.iter().map(|&index| self.member(index)).collect(),
        };
        let now = self.cluster.now_of(candidate);
        let node = self.cluster.driver(candidate).node_mut();
        node.take_over(now, &take_over)
            .unwrap_or_else(|error| panic!("{error}"));
        // Ticks that ran on guesses may be final now: they run again before anybody looks.
        self.cluster.pump(candidate);
        base
    }

    /// All who are there follow `host` in `term`, and play on in step.
    ///
    /// # Panics
    /// If not.
    pub fn assert_goes_on(&mut self, host: Index, term: u32) {
        let member = self.member(host);
        let from = self.settled().number();
        self.run_until(10_000_000, |it| {
            let follows = |index: Index| {
                let node = it.cluster.node(index);
                node.position().0 == Term(term) && node.host_member() == member
            };
            it.alive().into_iter().all(follows) && it.settled().number() > from + 120
        });
        for index in self.alive() {
            let events = &self.cluster.members[index].events;
            let term = Term(term);
            assert!(
                events.contains(&Event::HostChanged { member, term }),
                "{index}: {events:?}"
            );
        }
        let _the_same = self.history();
    }

    /// The host that was away is there again, has ordered for a while on its own, and makes room.
    pub fn come_back(&mut self, index: Index, host: Index, term: u32, alone_us: u64) {
        self.cluster.members[index].paused = false;
        self.cluster.run_us(alone_us);
        self.cluster.mend(index);
        self.step_down(index, host, term);
        self.seen[index].is_away = false;
        self.run_until(5_000_000, |it| {
            it.cluster.node(index).position().0 == Term(term)
        });
    }

    fn step_down(&mut self, index: Index, host: Index, term: u32) {
        let step_down = StepDown {
            host: self.member(host),
            warm: self.warm(host),
            term: Term(term),
        };
        let now = self.cluster.now_of(index);
        let node = self.cluster.driver(index).node_mut();
        node.step_down(now, step_down);
    }

    /// The host hands over to `target`; returns the last tick that it has ordered.
    ///
    /// # Panics
    /// If it cannot.
    pub fn hand_over(&mut self, old: Index, target: Index, term: u32) -> Tick {
        let others = self.alive().into_iter().filter(|&it| it != old);
        self.prepare(&others.collect::<Vec<_>>(), target, term, true);
        self.run(self.rtt_us());
        let at = self.cluster.node(old).tick().plus(10);
        let node = self.cluster.driver(old).node_mut();
        let at = node.hand_over_at(at).expect("it hosts");
        self.run_until(3_000_000, |it| {
            it.cluster.node(old).has_handed_over() == Some(at)
        });
        while self.cluster.node(target).position().1 < at {
            self.cluster.run_us(1_000);
        }
        let base = self.take_over(target, term, &[], true);
        assert_eq!(base, at);
        self.step_down(old, target, term);
        at
    }

    /// The host is gone, the others vote after a while, and the winner takes over; returns it and
    /// the base of its term.
    ///
    /// # Panics
    /// If nobody can.
    pub fn fail_over(&mut self, prng: &mut Prng, old: Index, term: u32) -> (Index, Tick) {
        self.send_away(old);
        let voters = self.alive();
        let plays = |index: &Index| self.cluster.node(*index).session().slot.is_some();
        let players: Vec<Index> = voters.iter().copied().filter(plays).collect();
        let pick = usize::try_from(prng.below(players.len() as u64)).expect("an index");
        let candidate = players[pick];
        // Not all at once: suspicion and votes take their time.
        let mut order = voters.clone();
        order.sort_by_key(|&index| index != candidate);
        self.run(150_000 + prng.below(150_000));
        for voter in order {
            self.prepare(&[voter], candidate, term, false);
            self.run(prng.below(self.rtt_us() + 1));
        }
        let base = self.elect(&voters, candidate, term, &[old]);
        (candidate, base)
    }
}
