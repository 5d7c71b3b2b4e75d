//! Standbys of a state-sync session hold the host's state, tick by tick and bit for bit.

use phalanx::netcode::id::MemberId;
use phalanx::netcode::link::conditioner::Conditions;
use phalanx::netcode::session::config::{HostConfig, Start};
use phalanx::netcode::simulation::Simulation as _;
use phalanx::netcode::state::StateHash;
use phalanx::netcode::statesync::StandbyMode;
use phalanx::netcode::tick::Tick;
use phalanx_tests::cluster::ClusterOf;
use phalanx_tests::yard::{self, Plan, Pusher};

fn cluster(plan: Plan, network: Conditions, seed: u64) -> ClusterOf<Pusher> {
    let host = HostConfig {
        start: Start::Players(4),
        plays: true,
        ..HostConfig::new(yard::game(), 4)
    };
    yard::cluster(host, plan, network, 0, seed)
}

fn held(cluster: &ClusterOf<Pusher>, index: usize) -> Tick {
    cluster.node(index).standby_held().unwrap_or_default()
}

#[test]
fn standbys_run_the_hosts_ticks() {
    for (seed, loss) in [(1, 0), (2, 50_000), (3, 150_000)] {
        let plan = Plan {
            bodies: 100,
            is_lively: true,
            ..Plan::default()
        };
        let mut cluster = cluster(plan, Conditions::from_rtt(50_000, loss), seed);
        cluster
            .driver(0)
            .node_mut()
            .stream_to(&[MemberId(1), MemberId(2)]);
        cluster.run_us(8_000_000);
        let tick = cluster.node(0).tick();
        assert!(tick > Tick::new(300), "seed {seed}: {tick}");
        for index in [1, 2] {
            let behind = tick.since(held(&cluster, index));
            assert!(behind <= 20, "seed {seed}: {behind} ticks behind");
            let counted = cluster.node(index).standby_statistics().unwrap();
            let (mode, at) = counted.held.unwrap();
            assert_eq!(mode, StandbyMode::Runs, "seed {seed}");
            assert!(counted.runs > 250, "seed {seed}: {counted:?}");
            let standby = cluster.driver(index).standby().unwrap();
            assert_eq!(standby.tick(), at, "seed {seed}");
            let here = standby.bodies().clone();
            let there = &cluster.driver(0).player().worlds[&at];
            assert_eq!(&here, there, "seed {seed}: all bodies of the host");
        }
        assert_eq!(cluster.node(3).standby_held(), None, "it is none");
        let safe = cluster.node(0).safe_tick().unwrap();
        assert!(safe <= held(&cluster, 1).min(held(&cluster, 2)));
        assert!(
            tick.since(safe) <= 20,
            "seed {seed}: safe at {safe} of {tick}"
        );
        let sent = cluster.node(0).standby_statistics().unwrap();
        assert_eq!(sent.wholes, 2, "seed {seed}");
        let per_tick = sent.bytes / sent.ticks;
        assert!(
            per_tick < 150,
            "seed {seed}: {per_tick} bytes per standby and tick"
        );
    }
}

/// While a whole state is on its way to a standby, the host runs on. What is to be made up for then
/// runs some ticks at a time, or the standby would be deaf and mute meanwhile.
#[test]
fn a_standby_makes_up_for_ticks_a_few_at_a_time() {
    let plan = Plan {
        bodies: 300,
        is_lively: true,
        ..Plan::default()
    };
    // It takes 24 ticks to arrive.
    let mut cluster = cluster(plan, Conditions::from_rtt(800_000, 0), 4);
    cluster.run_us(8_000_000);
    cluster.driver(0).node_mut().stream_to(&[MemberId(1)]);
    let runs = |cluster: &ClusterOf<Pusher>| {
        let counted = cluster.node(1).standby_statistics();
        counted.map_or(0, |counted| counted.runs)
    };
    let (mut before, mut most, mut behind) = (0, 0, 0);
    for _ in 0..8000 {
        cluster.run_us(1000);
        let now = runs(&cluster);
        most = most.max(now - before);
        before = now;
        if let Some(held) = cluster.node(1).standby_held() {
            behind = behind.max(cluster.node(0).tick().since(held));
        }
    }
    let lag = cluster.node(0).tick().since(held(&cluster, 1));
    assert!(lag <= 28, "it has caught up: {lag} ticks behind");
    assert!(
        behind > lag + 20,
        "there is something to make up for: {behind}, {lag}"
    );
    // In a millisecond there may be two or three occasions.
    assert!(most <= 16, "{most} ticks within a millisecond");
}

#[test]
fn standbys_copy_what_no_input_tells() {
    // Clients decide an entity by turns, and the host takes over what they say.
    let plan = Plan {
        bodies: 60,
        is_lively: true,
        term_ticks: 40,
        ..Plan::default()
    };
    let mut cluster = cluster(plan, Conditions::from_rtt(50_000, 20_000), 5);
    cluster.driver(0).node_mut().stream_to(&[MemberId(1)]);
    cluster.run_us(8_000_000);
    let tick = cluster.node(0).tick();
    let counted = cluster.node(1).standby_statistics().unwrap();
    let (mode, at) = counted.held.unwrap();
    assert_eq!(mode, StandbyMode::Copies);
    assert!(tick.since(at) <= 12, "at {at} of {tick}");
    assert!(cluster.node(0).state_sync().unwrap().claims > 0);
    let mut hash = StateHash::default();
    cluster.driver(0).simulation_mut().unwrap().hash(&mut hash);
    assert_ne!(hash.combined(), 0);
}

#[test]
fn who_is_no_standby_any_more_is_sent_nothing() {
    let mut cluster = cluster(Plan::default(), Conditions::from_rtt(30_000, 0), 7);
    cluster.driver(0).node_mut().stream_to(&[MemberId(1)]);
    cluster.run_us(3_000_000);
    let at = held(&cluster, 1);
    assert!(at > Tick::ZERO);
    cluster.driver(0).node_mut().stream_to(&[]);
    cluster.run_us(1_000_000);
    assert!(held(&cluster, 1) <= at.plus(4));
    assert_eq!(cluster.node(0).safe_tick(), None);
    // And a client has no standbys.
    cluster.driver(1).node_mut().stream_to(&[MemberId(2)]);
    cluster.run_us(1_000_000);
    assert_eq!(cluster.node(2).standby_held(), None);
}
