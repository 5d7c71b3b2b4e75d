//! Departures at every moment, and handshakes over bad networks.

use phalanx::netcode::link::conditioner::Conditions;
use phalanx::netcode::prng::Prng;
use phalanx::netcode::session::config::{Gate, HostConfig, InputDelay, JoinConfig};
use phalanx::netcode::tick::Tick;
use phalanx_tests::cluster::{Cluster, Index};
use phalanx_tests::toy::{self, Footprint};

const WAIT: Gate = Gate::Wait { limit_us: 400_000 };

fn footprint(cluster: &Cluster, index: Index, tick: Tick) -> Option<&Footprint> {
    cluster.members[index].driver.simulation()?.footprint(tick)
}

/// Every tick that all survivors have settled was the same for all of them.
fn assert_survivors_agree(cluster: &Cluster, survivors: &[Index], upto: Tick, what: &str) {
    for number in 1..=upto.number() {
        let tick = Tick::new(number);
        let first = footprint(cluster, survivors[0], tick);
        assert!(first.is_some(), "{what}: {tick} never ran");
        for &other in &survivors[1..] {
            assert_eq!(
                first,
                footprint(cluster, other, tick),
                "{what}: {tick} of {other}"
            );
        }
    }
}

/// A playing host and two or three clients, of whom the last is cut off for good after `at_us`.
/// Only some of the routes may carry its last datagrams.
fn depart(gate: Gate, clients: usize, at_us: u64, seed: u64, what: &str) {
    let mut prng = Prng::with_stream(seed, 4);
    let slots = u8::try_from(clients + 1).expect("few clients");
    let host = HostConfig {
        gate,
        plays: true,
        input_delay: InputDelay::Fixed(3),
        prediction_ticks: [0, 0, 5][usize::try_from(seed % 3).expect("below 3")],
        silence_us: 600_000,
        resume_us: [0, 700_000][usize::from(seed.is_multiple_of(2))],
        ..HostConfig::new(toy::game(), slots)
    };
    let loss = [0, 50_000, 200_000][usize::try_from(prng.below(3)).expect("below 3")];
    let rtt_us = 20_000 + prng.below(80_000);
    let mut cluster = Cluster::new(host, Conditions::from_rtt(rtt_us, loss), seed);
    for number in 0..clients {
        cluster.join(JoinConfig {
            input_delay: InputDelay::Fixed(3),
            silence_us: 600_000,
            ..JoinConfig::new(toy::game(), &format!("client {number}"))
        });
    }
    let running = |c: &Cluster| (0..=clients).all(|index| c.node(index).tick() >= Tick::new(60));
    assert!(
        cluster.run_while_not(15_000_000, running),
        "{what}: no start"
    );
    cluster.run_us(at_us);
    let leaver = clients;
    // What is on its way still arrives; in some runs nothing more reaches the leaver either.
    if prng.below(2) == 0 {
        cluster.cut.push((leaver, 0));
        cluster.run_us(prng.below(60_000));
        cluster.isolate(leaver);
    } else {
        cluster.isolate(leaver);
    }
    let survivors: Vec<Index> = (0..clients).collect();
    cluster.run_us(1_500_000);
    let before = cluster.settled(&survivors);
    cluster.run_us(1_000_000);
    let after = cluster.settled(&survivors);
    // Fixed delays and loss make the strict gate slow, but it must go on.
    assert!(after >= before.plus(8), "{what}: {before} to {after}");
    assert_survivors_agree(&cluster, &survivors, after, what);
    for &index in &survivors {
        assert_eq!(cluster.node(index).statistics().desyncs, 0, "{what}");
    }
    // Nobody plays for the one that is gone for good.
    let slot = cluster.node(leaver).session().slot.expect("it played");
    let last = footprint(&cluster, 0, after).map(|last| last.present);
    assert_eq!(
        last.map(|present| present & slot.bit()),
        Some(0),
        "{what}: present"
    );
}

#[test]
fn survivors_agree_whenever_a_client_dies() {
    let mut seed = 0;
    for (name, gate) in [("paced", Gate::Paced), ("wait", WAIT)] {
        for clients in [2, 3] {
            // Every 700 us over two ticks: before, between and after its datagrams.
            for step in 0..48 {
                seed += 1;
                let what = format!("{name}, {clients} clients, step {step}, seed {seed}");
                depart(gate, clients, step * 700, seed, &what);
            }
        }
    }
}

#[test]
fn survivors_agree_when_a_client_says_goodbye() {
    for seed in 0..40 {
        let host = HostConfig {
            gate: if seed % 2 == 0 { WAIT } else { Gate::Paced },
            plays: true,
            ..HostConfig::new(toy::game(), 3)
        };
        let mut cluster = Cluster::new(host, Conditions::from_rtt(60_000, 50_000), seed);
        for number in 0..2 {
            cluster.join(JoinConfig::new(toy::game(), &format!("client {number}")));
        }
        let running = |c: &Cluster| (0..3).all(|index| c.node(index).tick() >= Tick::new(30));
        assert!(cluster.run_while_not(15_000_000, running), "seed {seed}");
        cluster.run_us(seed * 1_000);
        cluster.driver(2).node_mut().leave();
        cluster.run_us(3_000_000);
        let settled = cluster.settled(&[0, 1]);
        assert!(settled >= Tick::new(100), "seed {seed}: only {settled}");
        assert_survivors_agree(&cluster, &[0, 1], settled, &format!("seed {seed}"));
        assert_eq!(cluster.node(1).roster().players(), 2, "seed {seed}");
    }
}

#[test]
fn a_thousand_of_a_thousand_handshakes_complete_at_a_fifth_loss() {
    for seed in 0..1000 {
        let host = HostConfig::new(toy::game(), 2);
        let conditions = Conditions::from_rtt(100_000, 200_000);
        let mut cluster = Cluster::new(host, conditions, seed);
        let index = cluster.join(JoinConfig::new(toy::game(), "guest"));
        let inside = |c: &Cluster| c.node(index).session().slot.is_some();
        assert!(cluster.run_while_not(10_000_000, inside), "seed {seed}");
    }
}
