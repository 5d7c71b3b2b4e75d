//! What the inspector says of a client's bytes is what the network carried.

use phalanx::netcode::link::conditioner::Conditions;
use phalanx::netcode::node::{Event, Inspection};
use phalanx::netcode::session::config::{HostConfig, JoinConfig, Role, Start, StateSyncConfig};
use phalanx::netcode::session::statistics::Body;
use phalanx::netcode::tick::Tick;
use phalanx_tests::cluster::{ClusterOf, Index};
use phalanx_tests::yard::{self, Plan, Pusher};

type Cluster = ClusterOf<Pusher>;

/// Two players and a spectator, of a world with so many bodies.
fn played(bodies: u32, budget_bytes_per_second: u32, seed: u64) -> Cluster {
    let config = HostConfig {
        start: Start::Players(2),
        last_tick: Some(Tick::new(420)),
        state_sync: StateSyncConfig {
            budget_bytes_per_second,
            ..StateSyncConfig::default()
        },
        ..HostConfig::new(yard::game(), 2)
    };
    let mut cluster = Cluster::new(config, Conditions::from_rtt(60_000, 30_000), seed);
    cluster.join(JoinConfig::new(yard::game(), "one"));
    cluster.join(JoinConfig::new(yard::game(), "two"));
    cluster.join(JoinConfig {
        role: Role::Spectator,
        ..JoinConfig::new(yard::game(), "three")
    });
    for member in &mut cluster.members {
        member.driver.player_mut().plan = Plan {
            bodies,
            ..Plan::default()
        };
    }
    cluster
}

fn inspection(cluster: &Cluster, index: Index) -> Inspection {
    let member = cluster.node(index).session().member;
    let mut all = cluster.node(0).inspections();
    all.find(|it| it.member == member).expect("it is watched")
}

/// The account of `index` is complete: by field, by body, and with `bytes` carried to it.
#[track_caller]
fn assert_exact(inspection: &Inspection, bytes: u64, seed: u64) {
    let schema = yard::game().schema;
    let sent = &inspection.sent;
    assert_eq!(sent.total(), bytes, "seed {seed}");
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let bits = |bytes: u64| bytes as f64 * 8.0;
    let state = inspection.breakdown(&schema);
    assert_eq!(state.bits, bits(sent.of(Body::State)), "seed {seed}");
    let all: f64 = inspection.rows(&schema).iter().map(|row| row.bits).sum();
    assert_eq!(all, bits(bytes), "seed {seed}");
    let of = |name: &str| {
        let row = state.rows.iter().find(|row| row.name() == name);
        row.map_or(0.0, |row| row.bits)
    };
    for name in ["Body.at", "Body.vy", "Mark.hits", "Weather.wind"] {
        assert!(of(name) > 0.0, "seed {seed}: {name} in\n{state}");
    }
    assert_eq!(of("Secret.state"), 0.0, "the host's alone");
    // What is around bodies and of no field is little; else fields would say nothing.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let bodies = inspection.bodies as f64;
    assert!(of("(heads)") < 56.0 * bodies, "seed {seed}:\n{state}");
    assert!(of("Body.at") > of("Weather.wind"), "seed {seed}:\n{state}");
}

#[test]
fn every_bit_that_a_client_is_sent_has_a_row() {
    // Whole bodies; and part bodies, since the budget does not do for them.
    for (bodies, budget) in [(12, 32_000), (300, 6000)] {
        let seed = 5;
        let mut cluster = played(bodies, budget, seed);
        assert!(cluster.driver(0).node_mut().inspect(true));
        cluster.run_us(6_000_000);
        for index in 1..4 {
            let (_, bytes) = cluster.traffic[&(0, index)];
            assert_exact(&inspection(&cluster, index), bytes, seed);
        }
        let carried: u64 = (1..4).map(|index| cluster.traffic[&(0, index)].1).sum();
        let statistics = cluster.node(0).statistics();
        assert_eq!(statistics.bytes_sent, carried, "seed {seed}");
    }
}

#[test]
fn accounts_are_told_once_per_second_and_when_a_link_ends() {
    let seed = 6;
    let mut cluster = played(40, 32_000, seed);
    cluster.driver(0).node_mut().inspect(true);
    cluster.run_us(20_000_000);
    assert!(cluster.node(0).is_over(), "seed {seed}");
    assert_eq!(cluster.node(0).inspections().count(), 0, "all have left");
    for index in 1..4 {
        let member = cluster.node(index).session().member;
        let told = cluster.members[0].events.iter();
        let told: Vec<&Inspection> = told
            .filter_map(|event| {
                let Event::Inspected(inspection) = event else {
                    return None;
                };
                (inspection.member == member).then_some(&**inspection)
            })
            .collect();
        // 420 ticks are 7 seconds.
        assert!(
            (7..=10).contains(&told.len()),
            "seed {seed}: {}",
            told.len()
        );
        let last = told[told.len() - 1];
        // The goodbye comes after the account is closed, if there is one.
        let (_, carried) = cluster.traffic[&(0, index)];
        let of_host = cluster.node(index).links().next().unwrap().statistics;
        assert!(last.sent.total() <= carried, "seed {seed}");
        assert!(last.sent.total() >= of_host.received.total(), "seed {seed}");
        assert_exact(last, last.sent.total(), seed);
        // Differences add up to the whole.
        let mut sum = told[0].sent.of(Body::State);
        let mut bits = told[0].state.bits_all();
        for pair in told.windows(2) {
            let grown = pair[1].since(pair[0]);
            assert_eq!((grown.from, grown.until), (pair[0].until, pair[1].until));
            sum += grown.sent.of(Body::State);
            bits += grown.state.bits_all();
        }
        assert_eq!(sum, last.sent.of(Body::State), "seed {seed}");
        assert!((bits - last.state.bits_all()).abs() < 0.5, "seed {seed}");
    }
}

#[test]
fn it_can_be_switched_on_and_off_in_a_running_session() {
    let seed = 7;
    let mut cluster = played(12, 32_000, seed);
    cluster.run_us(2_000_000);
    assert_eq!(cluster.node(0).inspections().count(), 0, "it is off");
    cluster.driver(0).node_mut().inspect(true);
    cluster.reset_traffic();
    cluster.run_us(3_000_000);
    for index in 1..4 {
        let (_, bytes) = cluster.traffic[&(0, index)];
        let it = inspection(&cluster, index);
        assert_exact(&it, bytes, seed);
        assert!(it.until.since(it.from) >= 170, "seed {seed}: {it:?}");
    }
    cluster.driver(0).node_mut().inspect(false);
    cluster.run_us(500_000);
    assert_eq!(cluster.node(0).inspections().count(), 0, "it is off");
    let told = cluster.members[0].events.len();
    cluster.run_us(1_000_000);
    let more = &cluster.members[0].events[told..];
    assert!(!more.iter().any(|it| matches!(it, Event::Inspected(_))));
    // A client has nobody to look at.
    assert!(!cluster.driver(1).node_mut().inspect(true));
}

#[test]
fn a_whole_state_that_arrived_as_a_transfer_is_told_by_field_too() {
    let seed = 8;
    let mut cluster = played(700, 64_000, seed);
    cluster.driver(0).node_mut().inspect(true);
    cluster.run_us(2_000_000);
    let late = cluster.join(JoinConfig {
        role: Role::Spectator,
        ..JoinConfig::new(yard::game(), "late")
    });
    cluster.driver(late).player_mut().plan = Plan {
        bodies: 700,
        ..Plan::default()
    };
    cluster.run_us(2_000_000);
    let (_, bytes) = cluster.traffic[&(0, late)];
    let account = inspection(&cluster, late);
    assert_exact(&account, bytes, seed);
    let rows = account.rows(&yard::game().schema);
    let of = |name: &str| {
        let row = rows.iter().find(|row| row.name() == name);
        row.map_or(0.0, |row| row.bits)
    };
    // Some bits per body at least; and the transfer itself takes little.
    assert!(of("keyframe: Body.at") > 2800.0, "seed {seed}: {rows:#?}");
    let parts = rows.iter().filter(|row| row.name().contains("keyframe: "));
    let content: f64 = parts.map(|row| row.bits).sum();
    let around = of("(bulk)");
    assert!(around > 0.0 && around < content, "seed {seed}: {rows:#?}");
    assert_eq!(
        content,
        account.keyframe_breakdown(&yard::game().schema).bits
    );
}
