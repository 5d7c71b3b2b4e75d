//! Hosting moves by itself: members elect another host when theirs is gone, and a host that hands
//! over loses nothing. Whole nodes, bytes and all, in virtual time.
//!
//! `SEEDS=n` runs more seeds, `SEED=n` one.

use std::collections::BTreeMap;

use phalanx::netcode::link::conditioner::Conditions;
use phalanx::netcode::node::Event;
use phalanx::netcode::session::config::{Gate, HostConfig, JoinConfig, MigrationConfig, Start};
use phalanx::netcode::tick::Tick;
use phalanx::netcode::time::Time;
use phalanx_tests::cluster::{Cluster, Index};
use phalanx_tests::toy::{self, Footprint};

/// Microseconds between two looks at the nodes.
const LOOK_US: u64 = 5_000;

/// A session of players of whom the first hosts, watched.
struct Watched {
    cluster: Cluster,
    seed: u64,
    /// State after each settled tick, and who had it first.
    states: BTreeMap<u32, (Footprint, Index)>,
    checked: Vec<u32>,
    /// When the settled tick of each node moved last, and its longest standstill.
    moved: Vec<(Time, u32)>,
    gap_us: Vec<u64>,
}

impl Watched {
    fn new(players: u8, gate: Gate, rtt_us: u64, loss_ppm: u32, seed: u64) -> Self {
        let host = HostConfig {
            plays: true,
            gate,
            start: Start::Players(players),
            migration: MigrationConfig::ELECTED,
            ..HostConfig::new(toy::game(), players)
        };
        let mut cluster = Cluster::new(host, Conditions::from_rtt(rtt_us, loss_ppm), seed);
        for number in 1..players {
            cluster.join(JoinConfig::new(toy::game(), &format!("member {number}")));
        }
        let count = usize::from(players);
        let now = cluster.now();
        let mut watched = Self {
            cluster,
            seed,
            states: BTreeMap::new(),
            checked: vec![0; count],
            moved: vec![(now, 0); count],
            gap_us: vec![0; count],
        };
        watched.run_until(10_000_000, |it| it.settled().number() > 240);
        watched
    }

    fn alive(&self) -> Vec<Index> {
        (0..self.cluster.members.len())
            .filter(|&index| !self.cluster.members[index].crashed)
            .collect()
    }

    fn settled(&self) -> Tick {
        self.cluster.settled(&self.alive())
    }

    fn run_until(&mut self, us: u64, done: impl Fn(&Self) -> bool) {
        let end = self.cluster.now().plus_micros(us);
        while !done(self) {
            assert!(
                self.cluster.now() < end,
                "seed {}: it does not come true in {us} us:\n{}",
                self.seed,
                self.standing()
            );
            self.cluster.run_us(LOOK_US);
            self.look();
        }
    }

    fn run(&mut self, us: u64) {
        let end = self.cluster.now().plus_micros(us);
        while self.cluster.now() < end {
            self.cluster.run_us(LOOK_US);
            self.look();
        }
    }

    fn standing(&self) -> String {
        let of = |index: Index| {
            let node = self.cluster.node(index);
            format!(
                "{index}: host {} of term {}, terms {:?} fence {:?} {}, settled {}, drops {:?}, {:?}",
                node.host_member().0,
                node.session().term.0,
                node.terms()
                    .map(|it| (it.term().0, it.host(), it.is_host())),
                node.terms().map(|it| it.fence().0),
                node.terms().map_or(0, |it| it.roster().voter_count()),
                node.settled_tick(),
                node.statistics().drops,
                self.cluster.members[index]
                    .events
                    .iter()
                    .rev()
                    .take(4)
                    .collect::<Vec<_>>(),
            )
        };
        self.alive()
            .into_iter()
            .map(of)
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// Every settled tick is the same everywhere.
    fn look(&mut self) {
        let now = self.cluster.now();
        for index in self.alive() {
            let lost = self.cluster.members[index]
                .events
                .iter()
                .any(|event| matches!(event, Event::Desync(_) | Event::Disconnected { .. }));
            assert!(!lost, "seed {}: {}", self.seed, self.standing());
            let settled = self.cluster.node(index).settled_tick().number();
            if settled > self.moved[index].1 {
                let still_us = now.micros_since(self.moved[index].0);
                self.gap_us[index] = self.gap_us[index].max(still_us);
                self.moved[index] = (now, settled);
            }
            for tick in self.checked[index] + 1..=settled {
                let simulation = self.cluster.members[index].driver.simulation();
                let Some(footprint) = simulation.and_then(|it| it.footprint(Tick::new(tick)))
                else {
                    continue;
                };
                let entry = self.states.entry(tick);
                let (known, other) = entry.or_insert_with(|| (footprint.clone(), index));
                assert_eq!(
                    known, footprint,
                    "seed {}: {other} and {index} differ at tick {tick}",
                    self.seed
                );
            }
            self.checked[index] = self.checked[index].max(settled);
        }
    }

    fn hosts(&self) -> Vec<Index> {
        let alive = self.alive().into_iter();
        alive
            .filter(|&index| self.cluster.node(index).is_host())
            .collect()
    }

    /// All follow one host, and ticks go on.
    fn agrees(&self) -> bool {
        let [host] = self.hosts()[..] else {
            return false;
        };
        let host = self.cluster.node(host);
        self.alive().into_iter().all(|index| {
            let node = self.cluster.node(index);
            node.host_member() == host.session().member
                && node.session().term == host.session().term
        })
    }
}

fn seeds(usual: u64) -> Vec<u64> {
    let read = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    match (read("SEED"), read("SEEDS")) {
        (Some(seed), _) => vec![seed],
        (None, count) => (1..=count.unwrap_or(usual)).collect(),
    }
}

#[test]
fn members_elect_another_host_when_theirs_dies() {
    for seed in seeds(4) {
        let players = 3 + u8::try_from(seed % 3).unwrap();
        let mut session = Watched::new(players, Gate::Paced, 50_000, 0, seed);
        session.gap_us.fill(0);
        session.cluster.crash(0);
        let before = session.settled();
        session.run_until(3_000_000, Watched::agrees);
        session.run_until(3_000_000, |it| it.settled() > before.plus(120));
        let worst = session.gap_us.iter().max().copied().unwrap();
        println!("seed {seed}: {players} players, gap {} ms", worst / 1000);
        assert!(worst < 1_000_000, "seed {seed}: {worst} us");
    }
}

#[test]
fn a_handover_loses_nothing() {
    for seed in seeds(4) {
        let players = 3 + u8::try_from(seed % 3).unwrap();
        let mut session = Watched::new(players, Gate::Paced, 50_000, 0, seed);
        session.run(2_000_000);
        session.gap_us.fill(0);
        let now = session.cluster.now_of(0);
        let node = session.cluster.driver(0).node_mut();
        let target = node.request_handover(now, None).expect("somebody can host");
        session.run_until(3_000_000, |it| {
            it.agrees() && it.cluster.node(0).host_member() == target
        });
        let before = session.settled();
        session.run_until(3_000_000, |it| it.settled() > before.plus(120));
        let worst = session.gap_us.iter().max().copied().unwrap();
        println!("seed {seed}: {players} players, gap {} ms", worst / 1000);
        for index in session.alive() {
            let events = &session.cluster.members[index].events;
            let lost = |event: &&Event| {
                matches!(event, Event::TicksLost { .. } | Event::InputReplaced { .. })
            };
            let lost: Vec<&Event> = events.iter().filter(lost).collect();
            assert!(lost.is_empty(), "seed {seed}: {index}: {lost:?}");
        }
    }
}
