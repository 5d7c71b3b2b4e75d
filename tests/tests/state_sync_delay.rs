//! Spectators of a state-sync session that watch with a delay.

use phalanx::netcode::link::conditioner::Conditions;
use phalanx::netcode::node::{Event, Node};
use phalanx::netcode::session::config::{
    ConfigError, HostConfig, JoinConfig, Start, StateSyncConfig,
};
use phalanx::netcode::tick::Tick;
use phalanx::netcode::time::Time;
use phalanx_tests::cluster::Index;
use phalanx_tests::yard::{self, Body, Cluster, Plan, spectator};

const DELAY: u32 = 120;
/// Snapshots are 3 ticks apart, and a path of 60 ms takes some ticks.
const LATE_MAX: u32 = DELAY + 3 + 6;

fn host(budget_bytes_per_second: u32) -> HostConfig {
    HostConfig {
        start: Start::Players(1),
        spectator_delay_ticks: DELAY,
        state_sync: StateSyncConfig {
            budget_bytes_per_second,
            ..StateSyncConfig::default()
        },
        ..HostConfig::new(yard::game(), 2)
    }
}

fn cluster(bodies: u32, budget: u32, seed: u64) -> Cluster {
    let mut cluster = Cluster::new(host(budget), Conditions::from_rtt(60_000, 20_000), seed);
    cluster.driver(0).player_mut().plan = Plan {
        bodies,
        ..Plan::default()
    };
    cluster
}

/// What the host's world was at `tick`.
fn world_of_host(cluster: &mut Cluster, tick: Tick) -> Vec<(u64, Body)> {
    let worlds = &cluster.driver(0).player_mut().worlds;
    let world = worlds.get(&tick).expect("the host remembers it");
    world.iter().map(|(id, body)| (*id, body.clone())).collect()
}

/// Watches `index` for two seconds: it is always so far behind, and what it holds as a whole is what
/// the host had then.
#[track_caller]
fn assert_late(cluster: &mut Cluster, index: Index) {
    let mut compared = 0;
    for _ in 0..100 {
        cluster.run_us(20_000);
        let live = cluster.node(0).tick();
        let received = cluster.node(index).received();
        let newest = received.map(|received| received.tick).max();
        let newest = newest.expect("it sees something");
        let behind = live.since(newest);
        assert!(
            (DELAY..=LATE_MAX).contains(&behind),
            "{behind} ticks behind"
        );
        // Neither does anything else tell it of a later tick.
        assert!(live.since(cluster.node(index).tick()) >= DELAY);
        let statistics = cluster.node(index).state_sync().expect("state-sync mode");
        let yard = cluster.driver(index).simulation().expect("a state").clone();
        if statistics.newest_complete == statistics.newest && statistics.newest == Some(newest) {
            let real = world_of_host(cluster, newest);
            let shown: Vec<(u64, Body)> = yard
                .bodies()
                .iter()
                .map(|(id, body)| (*id, body.clone()))
                .collect();
            assert_eq!(shown, real, "tick {newest}");
            compared += 1;
        }
    }
    assert!(compared > 20, "{compared}");
    let wrong = cluster.node(index).state_sync().map(|it| it.hashes_wrong);
    assert_eq!(wrong, Some(0));
}

#[test]
fn spectators_see_what_was_and_players_what_is() {
    let seed = 21;
    let mut cluster = cluster(12, 32_000, seed);
    let player = cluster.join(JoinConfig::new(yard::game(), "player"));
    let early = cluster.join(spectator("early"));
    cluster.run_us(1_500_000);
    assert_eq!(
        cluster.node(early).received().count(),
        0,
        "before the delay there is nothing to see"
    );
    cluster.run_us(2_500_000);
    assert_late(&mut cluster, early);
    let late = cluster.join(spectator("late"));
    cluster.run_us(1_000_000);
    assert_late(&mut cluster, late);
    let live = cluster.node(0).tick();
    let newest = cluster.node(player).received().map(|it| it.tick).max();
    assert!(live.since(newest.expect("it plays")) < 12);
    // It ends for those who watch when they have seen the end.
    let last = cluster.node(0).tick().plus(30);
    cluster.driver(0).node_mut().end_at(last);
    cluster.run_us(1_500_000);
    let ended = |cluster: &Cluster, index: Index| {
        let mut events = cluster.members[index].events.iter();
        events.any(|event| matches!(event, Event::Ended { .. }))
    };
    assert!(ended(&cluster, player) && !ended(&cluster, early));
    assert!(!ended(&cluster, late), "seed {seed}");
    cluster.run_us(2_500_000);
    let authority = cluster.node(0).state_sync().and_then(|it| it.authority);
    for index in [early, late] {
        assert!(ended(&cluster, index), "node {index}");
        let statistics = cluster.node(index).state_sync().expect("state-sync mode");
        assert_eq!(statistics.converged, Some(true), "node {index}");
        assert_eq!(statistics.authority, authority, "node {index}");
    }
    cluster.run_us(8_000_000);
    assert!(cluster.node(0).is_over(), "all have left");
}

#[test]
fn a_large_world_comes_late_in_one_piece() {
    let mut cluster = cluster(500, 1_000_000, 22);
    cluster.join(JoinConfig::new(yard::game(), "player"));
    let early = cluster.join(spectator("early"));
    cluster.run_us(4_500_000);
    assert_late(&mut cluster, early);
    let late = cluster.join(spectator("late"));
    cluster.run_us(2_000_000);
    assert_late(&mut cluster, late);
    for index in [early, late] {
        let statistics = cluster.node(index).state_sync().expect("state-sync mode");
        assert!(statistics.keyframes > 0, "node {index}: {statistics:?}");
    }
}

#[test]
fn a_delay_that_no_host_keeps_snapshots_for_is_refused() {
    let refused = |spectator_delay_ticks| {
        let config = HostConfig {
            spectator_delay_ticks,
            ..host(32_000)
        };
        Node::host(config, Time::ZERO).map(drop)
    };
    assert_eq!(refused(1800), Ok(()));
    let error = refused(1801).expect_err("too long");
    let expected = ConfigError::SpectatorDelay {
        ticks: 1801,
        max: 1800,
    };
    assert_eq!(error, expected);
    let sentence = error.to_string();
    assert!(sentence.contains("at most 1800 ticks behind"), "{sentence}");
}
