//! A standby of a state-sync session goes on where the host ended: with all of its state.

use std::collections::BTreeMap;

use phalanx::netcode::id::{MemberId, Path, Term};
use phalanx::netcode::link::conditioner::Conditions;
use phalanx::netcode::node::{Prepare, TakeOver, TakeOverError, Warm};
use phalanx::netcode::session::config::{HostConfig, MigrationConfig, Start};
use phalanx::netcode::simulation::Simulation as _;
use phalanx::netcode::tick::Tick;
use phalanx_tests::cluster::ClusterOf;
use phalanx_tests::yard::{self, Plan, Pusher};

const RTT_US: u64 = 50_000;

fn cluster(loss: u32, seed: u64, claims: bool) -> ClusterOf<Pusher> {
    let config = HostConfig {
        start: Start::Players(4),
        plays: true,
        migration: MigrationConfig::COMMANDED,
        ..HostConfig::new(yard::game(), 4)
    };
    let plan = Plan {
        bodies: 100,
        is_lively: true,
        term_ticks: if claims { 40 } else { 0 },
        ..Plan::default()
    };
    yard::cluster(config, plan, Conditions::from_rtt(RTT_US, loss), 0, seed)
}

fn warm(index: usize) -> Warm {
    Warm {
        path: Path(u32::try_from(index).expect("few members")),
        rtt_us: Some(RTT_US),
    }
}

fn member(index: usize) -> MemberId {
    MemberId(index as u64)
}

fn take_over(
    cluster: &mut ClusterOf<Pusher>,
    candidate: usize,
    base: Tick,
) -> Result<(), TakeOverError> {
    let paths: BTreeMap<MemberId, Warm> = (0..4)
        .filter(|&index| index != candidate)
        .map(|index| (member(index), warm(index)))
        .collect();
    let take_over = TakeOver {
        term: Term(2),
        base,
        is_planned: false,
        paths,
        lost: vec![member(0)],
    };
    let now = cluster.now_of(candidate);
    cluster
        .driver(candidate)
        .node_mut()
        .take_over(now, &take_over)
}

fn fail_over(loss: u32, seed: u64, claims: bool) {
    let mut cluster = cluster(loss, seed, claims);
    cluster.driver(0).node_mut().stream_to(&[member(1)]);
    cluster.run_us(6_000_000);
    let last = cluster.node(0).tick();
    assert!(last > Tick::new(200), "seed {seed}: {last}");
    cluster.members[0].paused = true;
    cluster.isolate(0);
    cluster.run_us(250_000);
    for index in 1..4 {
        let now = cluster.now_of(index);
        let prepare = Prepare {
            candidate: member(1),
            term: Term(2),
            warm: (index != 1).then(|| warm(1)),
            keeps_frames: false,
        };
        cluster.driver(index).node_mut().prepare_for(now, prepare);
    }
    cluster.run_us(60_000);
    let (term, base) = cluster.node(1).position();
    assert_eq!(term, Term(1), "seed {seed}");
    assert!(last.since(base) <= 15, "seed {seed}: {base} of {last}");
    let there = cluster.driver(0).player().worlds[&base].clone();
    assert_eq!(
        take_over(&mut cluster, 1, base.next()),
        Err(TakeOverError::Position {
            position: base,
            base: base.next()
        })
    );
    assert_eq!(take_over(&mut cluster, 1, base), Ok(()), "seed {seed}");
    assert!(cluster.node(1).is_host());
    cluster.run_us(1);
    let simulation = cluster.driver(1).simulation().expect("it has a state");
    if simulation.tick() == base {
        assert_eq!(
            simulation.bodies(),
            &there,
            "seed {seed}: the state at {base}"
        );
    }
    cluster.driver(1).node_mut().stream_to(&[member(2)]);
    cluster.run_us(4_000_000);
    let tick = cluster.node(1).tick();
    assert!(tick > last.plus(120), "seed {seed}: {tick} after {last}");
    for index in [2, 3] {
        let node = cluster.node(index);
        assert_eq!(node.host_member(), member(1), "seed {seed}");
        assert_eq!(node.session().term, Term(2), "seed {seed}");
        let counted = node.state_sync().expect("a client of state-sync");
        let newest = counted.newest_complete.expect("a state of the new host");
        assert!(tick.since(newest) < 30, "seed {seed}: {newest} of {tick}");
        assert_eq!(counted.hashes_wrong, 0, "seed {seed}");
    }
    let held = cluster.node(2).standby_held().expect("it stands by now");
    assert!(tick.since(held) <= 20, "seed {seed}: {held} of {tick}");
}

#[test]
fn a_standby_that_runs_goes_on() {
    for seed in 1..=4 {
        fail_over(if seed > 2 { 30_000 } else { 0 }, seed, false);
    }
}

#[test]
fn a_standby_that_copies_goes_on() {
    fail_over(10_000, 5, true);
}

#[test]
fn who_stands_not_by_cannot_go_on() {
    let mut cluster = cluster(0, 9, false);
    cluster.driver(0).node_mut().stream_to(&[member(1)]);
    cluster.run_us(3_000_000);
    let refused = take_over(&mut cluster, 2, Tick::ZERO);
    assert_eq!(refused, Err(TakeOverError::NoState));
    assert!(!cluster.node(2).is_host());
}

/// Members elect: nobody is told from outside.
#[test]
fn members_of_a_state_sync_session_elect_a_standby() {
    for seed in 11..=13 {
        let config = HostConfig {
            start: Start::Players(4),
            plays: true,
            migration: MigrationConfig::ELECTED,
            ..HostConfig::new(yard::game(), 4)
        };
        let network = Conditions::from_rtt(RTT_US, 0);
        let mut cluster = yard::cluster(config, Plan::default(), network, 0, seed);
        cluster.run_us(10_000_000);
        let last = cluster.node(0).tick();
        let standbys = (1..4).filter(|&index| cluster.node(index).standby_held().is_some());
        assert!(standbys.count() >= 1, "seed {seed}: nobody stands by");
        cluster.members[0].paused = true;
        cluster.isolate(0);
        cluster.run_us(4_000_000);
        let hosts: Vec<usize> = (1..4)
            .filter(|&index| cluster.node(index).is_host())
            .collect();
        assert_eq!(hosts.len(), 1, "seed {seed}: {hosts:?}");
        let host = hosts[0];
        let tick = cluster.node(host).tick();
        assert!(tick > last.plus(100), "seed {seed}: {tick} after {last}");
        for index in (1..4).filter(|&index| index != host) {
            let node = cluster.node(index);
            assert_eq!(node.host_member(), member(host), "seed {seed}");
            let newest = node
                .state_sync()
                .and_then(|counted| counted.newest_complete);
            let newest = newest.expect("a state of the new host");
            assert!(tick.since(newest) < 30, "seed {seed}: {newest} of {tick}");
        }
        // The old host wakes up, finds another one, and follows it.
        cluster.mend(0);
        cluster.members[0].paused = false;
        cluster.run_us(4_000_000);
        assert!(!cluster.node(0).is_host(), "seed {seed}");
        assert!(cluster.node(host).is_host(), "seed {seed}");
        assert_eq!(cluster.node(0).host_member(), member(host), "seed {seed}");
    }
}
