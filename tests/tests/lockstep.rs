//! Lockstep at its simplest: everyone plays to the last tick, and all states are equal.

use phalanx::netcode::link::conditioner::Conditions;
use phalanx::netcode::session::config::{Gate, HostConfig, InputDelay, JoinConfig};
use phalanx::netcode::tick::Tick;
use phalanx_tests::cluster::Cluster;
use phalanx_tests::toy;

fn host(slots: u8, last: u32) -> HostConfig {
    HostConfig {
        last_tick: Some(Tick::new(last)),
        ..HostConfig::new(toy::game(), slots)
    }
}

#[test]
fn four_paced_players_end_with_one_state() {
    for seed in 0..5 {
        let conditions = Conditions::from_rtt(100_000, 50_000);
        let mut cluster = Cluster::new(host(4, 600), conditions, seed);
        for player in 0..4 {
            cluster.join(JoinConfig::new(toy::game(), &format!("player {player}")));
        }
        let over = cluster.run_while_not(20_000_000, |c| {
            (0..5).all(|index| c.node(index).settled_tick() == Tick::new(600))
        });
        assert!(over, "seed {seed}: not all reached the last tick");
        assert!(
            cluster.agree(&[0, 1, 2, 3, 4]),
            "seed {seed}: states differ"
        );
    }
}

#[test]
fn two_strict_players_run_every_tick_at_the_same_time_and_never_stall() {
    let config = HostConfig {
        gate: Gate::Wait {
            limit_us: 5_000_000,
        },
        plays: true,
        input_delay: InputDelay::Fixed(4),
        ..host(2, 3000)
    };
    let mut cluster = Cluster::new(config, Conditions::from_rtt(100_000, 0), 7);
    cluster.join(JoinConfig {
        input_delay: InputDelay::Fixed(4),
        ..JoinConfig::new(toy::game(), "guest")
    });
    let mut apart = 0;
    let over = cluster.run_while_not(60_000_000, |c| {
        apart = apart.max(c.node(0).tick().distance_from(c.node(1).tick()).abs());
        (0..2).all(|index| c.node(index).settled_tick() == Tick::new(3000))
    });
    assert!(over, "not all reached the last tick");
    assert!(cluster.agree(&[0, 1]), "states differ");
    assert!(apart <= 1, "the players were {apart} ticks apart");
    for index in 0..2 {
        assert_eq!(cluster.node(index).statistics().stalls, 0, "node {index}");
    }
}
