//! What befalls a session: drawn from its seed, several things at a time, each for a while.

use std::collections::BTreeSet;

use phalanx::netcode::id::Path;
use phalanx::netcode::link::conditioner::{Burst, Conditions};
use phalanx::netcode::prng::Prng;
use phalanx::netcode::time::Time;

use crate::cluster::{Index, Seeded};
use crate::watched::{Watched, Watcher};

/// Members of a session at most, those included that are gone.
const MEMBERS_MAX: usize = 14;

/// One of `choices`.
///
/// # Panics
/// If there is none.
pub fn draw<T: Copy>(prng: &mut Prng, choices: &[T]) -> T {
    let index = prng.below(choices.len() as u64);
    choices[usize::try_from(index).expect("an index of a slice")]
}

/// One thing that befalls a session.
#[derive(Clone, Debug)]
enum Fault {
    Crash(Index),
    /// The process crashes, and another one in its place remembers nothing.
    Restart(Index),
    /// The process is stopped for a while, as by a debugger, and goes on.
    Pause(Index),
    Isolate(Index),
    /// What the node sends does not arrive.
    Mute(Index),
    /// What is sent to the node does not arrive.
    Deafen(Index),
    /// Nodes of which only those on the same side hear each other.
    Split(BTreeSet<Index>),
    /// As `Split`, but one side hears the other one.
    HalfSplit(BTreeSet<Index>),
    /// Two sides that hear each other over nobody, and both hear this node.
    Bridge(Index, BTreeSet<Index>),
    /// All that the node sends comes later than a host is suspected.
    Late(Index),
    /// What the node sends is slow and gets lost.
    Slow(Index),
    /// All routes are bad.
    Storm,
    Handover,
    /// A handover, and the crash of this node soon after.
    HandoverAndCrash(Index),
    /// Two requests at once: for a handover and to leave.
    Leave(Index),
    Join,
    /// What was on its way some time ago arrives again.
    Echoes,
}

/// What goes on.
#[derive(Debug)]
struct Trouble {
    fault: Fault,
    ends_at: Time,
}

/// All that goes on, and what has happened.
#[derive(Debug, Default)]
pub struct Faults {
    troubles: Vec<Trouble>,
    story: Vec<String>,
    /// Datagrams to be heard again: receiver, the paths of both, and the bytes.
    echoes: Vec<(Index, Path, Path, Vec<u8>)>,
}

impl Faults {
    /// Lets `count` things befall the session, each some time after the one before, and all end then.
    pub fn befall<P: Seeded, W: Watcher<P>>(
        mut self,
        prng: &mut Prng,
        session: &mut Watched<P, W>,
        count: u64,
    ) {
        for _ in 0..count {
            let us = draw(prng, &[200_000, 1_000_000, 2_000_000]);
            self.run(session, prng.below(us));
            self.strike(prng, session);
        }
        self.calm(session);
    }

    /// Lets time pass, and ends what is over.
    fn run<P: Seeded, W: Watcher<P>>(&mut self, session: &mut Watched<P, W>, us: u64) {
        let end = session.cluster.now().plus_micros(us);
        while session.cluster.now() < end {
            let now = session.cluster.now();
            let next = self.troubles.iter().map(|trouble| trouble.ends_at).min();
            let next = next.map_or(end, |next| next.min(end));
            session.run(next.micros_since(now));
            let now = session.cluster.now();
            let is_over = |trouble: &Trouble| trouble.ends_at <= now;
            let (over, left) = self.troubles.drain(..).partition(is_over);
            self.troubles = left;
            for trouble in over {
                self.end(session, &trouble.fault);
            }
        }
    }

    /// All is well from now on.
    fn calm<P: Seeded, W: Watcher<P>>(&mut self, session: &mut Watched<P, W>) {
        for trouble in core::mem::take(&mut self.troubles) {
            self.end(session, &trouble.fault);
        }
        session
            .cluster
            .set_all_conditions(Conditions::from_rtt(50_000, 0));
        session.calm();
    }

    fn end<P: Seeded, W: Watcher<P>>(&mut self, session: &mut Watched<P, W>, fault: &Fault) {
        match fault {
            Fault::Pause(index) => session.cluster.members[*index].paused = false,
            Fault::Late(index) | Fault::Slow(index) => {
                let usual = session.cluster.default_conditions();
                session.cluster.change_conditions(*index, usual);
            }
            Fault::Storm => {
                let usual = session.cluster.default_conditions();
                session.cluster.set_all_conditions(usual);
            }
            Fault::Echoes => {
                for (to, path, from, bytes) in core::mem::take(&mut self.echoes) {
                    let is_same = session.cluster.path_to(to) == path;
                    if is_same && !session.cluster.members[to].crashed {
                        session.cluster.inject_over(from, to, &bytes);
                    }
                }
            }
            Fault::Crash(_)
            | Fault::Restart(_)
            | Fault::Isolate(_)
            | Fault::Mute(_)
            | Fault::Deafen(_)
            | Fault::Split(_)
            | Fault::HalfSplit(_)
            | Fault::Bridge(..)
            | Fault::Handover
            | Fault::HandoverAndCrash(_)
            | Fault::Leave(_)
            | Fault::Join => {}
        }
        self.cut(session);
    }

    /// Cuts what is to be cut now.
    fn cut<P: Seeded, W: Watcher<P>>(&self, session: &mut Watched<P, W>) {
        let count = session.cluster.members.len();
        let pairs = (0..count).flat_map(|from| (0..count).map(move |to| (from, to)));
        session.cluster.cut = pairs
            .filter(|&(from, to)| self.troubles.iter().any(|it| cuts(&it.fault, from, to)))
            .collect();
    }

    /// Draws what befalls the session next, and lets it.
    fn strike<P: Seeded, W: Watcher<P>>(&mut self, prng: &mut Prng, session: &mut Watched<P, W>) {
        let Some(fault) = self.draw(prng, session) else {
            return;
        };
        let us = 50_000 + prng.below(2_400_000);
        let now = session.cluster.now();
        let at_ms = now.micros() / 1000 - 10_000;
        let lasts = |fault: &Fault| match fault {
            Fault::Crash(_)
            | Fault::Restart(_)
            | Fault::Handover
            | Fault::HandoverAndCrash(_)
            | Fault::Leave(_)
            | Fault::Join => false,
            Fault::Pause(_)
            | Fault::Isolate(_)
            | Fault::Mute(_)
            | Fault::Deafen(_)
            | Fault::Split(_)
            | Fault::HalfSplit(_)
            | Fault::Bridge(..)
            | Fault::Late(_)
            | Fault::Slow(_)
            | Fault::Storm
            | Fault::Echoes => true,
        };
        let ends_at = now.plus_micros(us);
        self.story.push(if lasts(&fault) {
            format!("{at_ms} ms: {fault:?} for {} ms", us / 1000)
        } else {
            format!("{at_ms} ms: {fault:?}")
        });
        session.seed = format!(
            "{}\n{:#?}",
            session.seed.lines().next().unwrap_or_default(),
            self.story
        );
        match &fault {
            Fault::Crash(index) => session.cluster.crash(*index),
            Fault::Restart(index) => session.restart(*index),
            Fault::Pause(index) => session.cluster.members[*index].paused = true,
            Fault::Late(index) => {
                let late = Conditions {
                    latency_us: 300_000 + prng.below(900_000),
                    ..session.cluster.default_conditions()
                };
                session.cluster.change_conditions(*index, late);
            }
            Fault::Slow(index) => {
                let slow = Conditions {
                    latency_us: 100_000,
                    jitter_us: 50_000,
                    loss_per_million: 200_000,
                    ..session.cluster.default_conditions()
                };
                session.cluster.change_conditions(*index, slow);
            }
            Fault::Storm => {
                let usual = session.cluster.default_conditions();
                let loss = 100_000 + prng.next_u32() % 200_000;
                let storm = Conditions {
                    jitter_us: 20_000,
                    loss_per_million: loss,
                    burst: Some(Burst::from_mean(loss, 8)),
                    duplicate_per_million: 100_000,
                    reorder_per_million: 100_000,
                    ..usual
                };
                session.cluster.set_all_conditions(storm);
            }
            Fault::Handover => {
                // Nobody may be ready for it; then nothing happens.
                let _target = session.request_handover();
            }
            Fault::HandoverAndCrash(index) => {
                let _target = session.request_handover();
                self.run(session, prng.below(300_000));
                // Hosting may have moved since, and nobody else have what it takes.
                if W::can_do_without(session, *index) {
                    session.cluster.crash(*index);
                }
            }
            Fault::Leave(index) => {
                session.leave(*index);
                // It takes leave at its leisure: others count on it until it has gone.
                self.run(session, 300_000);
            }
            Fault::Join => W::let_in_another(session, prng),
            Fault::Echoes => {
                let cluster = &session.cluster;
                let tapped = cluster.tap.iter().map(|(from, to, bytes)| {
                    let (from, path) = (cluster.path_to(*from), cluster.path_to(*to));
                    (*to, path, from, bytes.clone())
                });
                self.echoes.extend(tapped);
            }
            Fault::Isolate(_)
            | Fault::Mute(_)
            | Fault::Deafen(_)
            | Fault::Split(_)
            | Fault::HalfSplit(_)
            | Fault::Bridge(..) => {}
        }
        if lasts(&fault) {
            self.troubles.push(Trouble { fault, ends_at });
        }
        self.cut(session);
    }

    fn draw<P: Seeded, W: Watcher<P>>(
        &self,
        prng: &mut Prng,
        session: &Watched<P, W>,
    ) -> Option<Fault> {
        let alive = session.alive();
        if alive.is_empty() {
            return None;
        }
        let any = draw(prng, &alive);
        let host = session.host().unwrap_or(any);
        let whom = if prng.below(3) == 0 { any } else { host };
        // Who is left must be able to elect, whatever roster they have.
        let can_spare = |&index: &Index| {
            session.cluster.node(index).terms().is_some_and(|terms| {
                let roster = terms.roster();
                let votes = |&&index: &&Index| roster.is_voter(session.member(index));
                2 * alive.iter().filter(votes).count() > roster.voter_count() + 2
            })
        };
        let spare = alive.iter().all(can_spare) && !session.is_in_motion();
        let room = session.cluster.members.len() < MEMBERS_MAX
            && !session.is_in_motion()
            && W::has_room(session);
        let without = |index: Index| spare && W::can_do_without(session, index);
        let is_held = |index: Index| {
            let mut troubles = self.troubles.iter();
            troubles.any(|it| matches!(it.fault, Fault::Pause(held) if held == index))
        };
        let mut side: BTreeSet<Index> = BTreeSet::new();
        for &index in &alive {
            if prng.below(2) == 0 {
                side.insert(index);
            }
        }
        Some(match prng.below(26) {
            0..=2 if without(whom) => Fault::Crash(whom),
            3 if without(whom) => Fault::Restart(whom),
            4 if without(any) => Fault::HandoverAndCrash(any),
            5 if spare => Fault::Leave(whom),
            6 | 7 if room => Fault::Join,
            8..=10 if !is_held(whom) => Fault::Pause(whom),
            11 | 12 => Fault::Isolate(whom),
            13 => Fault::Mute(whom),
            14 => Fault::Deafen(whom),
            15 => Fault::Split(side),
            16 => Fault::HalfSplit(side),
            17 => Fault::Bridge(any, side),
            18 => Fault::Late(whom),
            19 => Fault::Slow(any),
            20 => Fault::Storm,
            21 | 22 if session.cluster.tapped > 0 => Fault::Echoes,
            _ => Fault::Handover,
        })
    }
}

/// Whether `fault` keeps datagrams from coming `from` there `to` there.
fn cuts(fault: &Fault, from: Index, to: Index) -> bool {
    match fault {
        Fault::Isolate(index) => from == *index || to == *index,
        Fault::Mute(index) => from == *index,
        Fault::Deafen(index) => to == *index,
        Fault::Split(side) => side.contains(&from) != side.contains(&to),
        Fault::HalfSplit(side) => side.contains(&from) && !side.contains(&to),
        Fault::Bridge(index, side) => {
            from != *index && to != *index && side.contains(&from) != side.contains(&to)
        }
        Fault::Crash(_)
        | Fault::Restart(_)
        | Fault::Pause(_)
        | Fault::Late(_)
        | Fault::Slow(_)
        | Fault::Storm
        | Fault::Handover
        | Fault::HandoverAndCrash(_)
        | Fault::Leave(_)
        | Fault::Join
        | Fault::Echoes => false,
    }
}
