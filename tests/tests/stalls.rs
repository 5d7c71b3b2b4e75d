//! Who waits, and who does not: exact, in virtual time.
//!
//! `STALL_TICKS=1000000 cargo test --release -p phalanx-tests --test stalls` runs the strict sessions
//! for as long as the published figure.

use phalanx::netcode::link::conditioner::{Burst, Conditions};
use phalanx::netcode::node::Event;
use phalanx::netcode::session::config::{Gate, HostConfig, InputDelay, JoinConfig};
use phalanx_tests::cluster::Cluster;
use phalanx_tests::toy;

/// Virtual time before the first assertion: ten seconds.
const WARM_UP_US: u64 = 10_000_000;

fn ticks() -> u64 {
    match std::env::var("STALL_TICKS") {
        Ok(text) => text.parse().expect("STALL_TICKS is a number"),
        Err(_unset) => 20_000,
    }
}

fn run_ticks(cluster: &mut Cluster, ticks: u64) {
    cluster.run_us(ticks * 1_000_000 / 60);
}

/// Two strict players; every tick of both must run when it is due.
fn strict(delay: u32, loss_per_million: u32) {
    let host = HostConfig {
        gate: Gate::Wait {
            limit_us: 5_000_000,
        },
        plays: true,
        input_delay: InputDelay::Fixed(delay),
        ..HostConfig::new(toy::game(), 2)
    };
    let conditions = Conditions::from_rtt(100_000, loss_per_million);
    let mut cluster = Cluster::new(host, conditions, 1);
    cluster.join(JoinConfig {
        input_delay: InputDelay::Fixed(delay),
        ..JoinConfig::new(toy::game(), "guest")
    });
    for member in &mut cluster.members {
        member.driver.player_mut().remembers = false;
    }
    cluster.run_us(WARM_UP_US);
    let before = [0, 1].map(|index| *cluster.node(index).statistics());
    let mut left = ticks();
    while left > 0 {
        let stretch = left.min(6_000);
        left -= stretch;
        run_ticks(&mut cluster, stretch);
        cluster.members.iter_mut().for_each(|m| m.events.clear());
    }
    for (index, before) in before.iter().enumerate() {
        let after = cluster.node(index).statistics();
        assert_eq!(after.stalls - before.stalls, 0, "node {index}");
        assert!(after.ticks - before.ticks >= ticks() - 2, "node {index}");
    }
}

#[test]
fn strict_players_with_delay_4_never_wait_without_loss() {
    strict(4, 0);
}

#[test]
fn strict_players_with_delay_8_never_wait_at_5_percent_loss() {
    strict(8, 50_000);
}

#[test]
fn bursts_of_one_client_make_nobody_else_wait() {
    for seed in 0..3 {
        let perfect = Conditions::from_rtt(100_000, 0);
        let mut cluster = Cluster::new(HostConfig::new(toy::game(), 8), perfect, seed);
        for player in 0..8 {
            cluster.join(JoinConfig::new(toy::game(), &format!("player {player}")));
        }
        let bad = Conditions {
            burst: Some(Burst::from_mean(50_000, 5)),
            ..perfect
        };
        cluster.set_route(1, 0, bad);
        cluster.set_route(0, 1, bad);
        cluster.run_us(WARM_UP_US);
        let before: Vec<_> = (0..9).map(|n| *cluster.node(n).statistics()).collect();
        run_ticks(&mut cluster, 3_000);
        for index in 0..9 {
            let (after, before) = (cluster.node(index).statistics(), before[index]);
            if index != 1 {
                assert_eq!(after.stalls, before.stalls, "seed {seed}, node {index}");
                assert_eq!(after.inputs_replaced, 0, "seed {seed}, node {index}");
            }
            assert!(after.ticks - before.ticks > 2_900, "seed {seed}, {index}");
        }
        let reported = cluster.members[1]
            .events
            .iter()
            .filter(|event| matches!(event, Event::InputReplaced { .. }))
            .count();
        let after = cluster.node(1).statistics();
        assert_eq!(after.inputs_replaced, reported as u64, "seed {seed}");
        let late = cluster.node(0).links().map(|l| l.statistics.inputs_late);
        let late: u64 = late.sum();
        assert!(late > 0, "seed {seed}: bursts of 5 must make inputs late");
        // An input that was replaced by an equal one is not worth a report; others are.
        assert!(reported as u64 <= late, "seed {seed}: {reported} of {late}");
    }
}

#[test]
fn predicting_players_never_see_a_desync_that_is_none() {
    for seed in 0..3 {
        let host = HostConfig::new(toy::game(), 2);
        let mut cluster = Cluster::new(host, Conditions::from_rtt(100_000, 50_000), seed);
        for player in 0..2 {
            cluster.join(JoinConfig {
                input_delay: InputDelay::Adaptive { min: 0, max: 30 },
                prediction_ticks: 12,
                ..JoinConfig::new(toy::game(), &format!("player {player}"))
            });
        }
        run_ticks(&mut cluster, 3_000);
        for (index, member) in cluster.members.iter().enumerate() {
            let statistics = member.driver.node().statistics();
            assert_eq!(statistics.desyncs, 0, "seed {seed}, node {index}");
            assert!(statistics.ticks > 2_500, "seed {seed}, node {index}");
        }
        assert!(cluster.node(1).statistics().rollbacks > 100, "seed {seed}");
    }
}
