//! Lockstep sessions as their players see them.

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
        let mut cluster = Cluster::new(host(4, 600), Conditions::from_rtt(100_000, 50_000), seed);
        for player in 0..4 {
            cluster.join(JoinConfig::new(toy::game(), &format!("player {player}")));
        }
        let over = cluster.run_while_not(20_000_000, |c| {
            (0..5).all(|index| c.node(index).settled_tick() == Tick::new(600))
        });
        for i in 0..5 {
            println!(
                "{i}: {:?} {:?}",
                cluster.node(i).settled_tick(),
                cluster.node(i).statistics()
            );
        }
        assert!(over, "seed {seed}");
        assert!(
            cluster.agree(&[0, 1, 2, 3, 4]),
            "seed {seed}: states differ"
        );
    }
}

#[test]
fn strict_two_players_never_stall() {
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
    let over = cluster.run_while_not(60_000_000, |c| {
        (0..2).all(|index| c.node(index).settled_tick() == Tick::new(3000))
    });
    for i in 0..2 {
        println!(
            "{i}: {:?} {:?}",
            cluster.node(i).settled_tick(),
            cluster.node(i).statistics()
        );
    }
    println!("{:?}", cluster.traffic);
    assert!(over);
    assert!(cluster.agree(&[0, 1]));
    assert_eq!(cluster.node(0).statistics().stalls, 0);
    assert_eq!(cluster.node(1).statistics().stalls, 0);
}
