//! What a node says about its links is what the network saw.

use phalanx::netcode::link::conditioner::Conditions;
use phalanx::netcode::node::LinkQuality;
use phalanx::netcode::session::config::{Gate, HostConfig, JoinConfig, Start};
use phalanx::netcode::session::messages::Channel;
use phalanx::netcode::session::statistics::Body;
use phalanx::netcode::tick::Tick;
use phalanx_tests::cluster::{Cluster, Index};
use phalanx_tests::toy;

/// The links of a node.
fn links(cluster: &Cluster, index: Index) -> Vec<LinkQuality> {
    cluster.node(index).links().collect()
}

/// Two clients, the second of which joins a running match; messages both ways.
fn played(seed: u64) -> Cluster {
    let host = HostConfig {
        last_tick: Some(Tick::new(600)),
        start: Start::Players(1),
        ..HostConfig::new(toy::game(), 2)
    };
    let mut cluster = Cluster::new(host, Conditions::from_rtt(60_000, 0), seed);
    cluster.join(JoinConfig::new(toy::game(), "first"));
    cluster.run_us(3_000_000);
    cluster.join(JoinConfig::new(toy::game(), "second"));
    cluster.run_us(1_000_000);
    for index in 1..3 {
        let (to, sent) = (cluster.node(index).session().member, b"to you");
        let host = cluster.members[0].driver.node_mut();
        host.send_message(to, Channel::Reliable, sent)
            .expect("there is a link");
        let host = cluster.node(0).session().member;
        let node = cluster.members[index].driver.node_mut();
        node.send_message(host, Channel::Reliable, b"to the host")
            .expect("there is a link");
    }
    cluster.run_us(1_000_000);
    cluster
}

#[test]
fn bytes_by_body_add_up_to_what_the_network_carried() {
    let seed = 11;
    let cluster = played(seed);
    let of_host = links(&cluster, 0);
    assert_eq!(of_host.len(), 2, "seed {seed}");
    for index in 1..3 {
        let member = cluster.node(index).session().member;
        let here = of_host.iter().find(|link| link.member == member).unwrap();
        let there = links(&cluster, index)[0];
        for (link, from, to) in [(here.statistics, 0, index), (there.statistics, index, 0)] {
            let (datagrams, bytes) = cluster.traffic[&(from, to)];
            assert_eq!(
                (link.datagrams_sent, link.bytes_sent, link.sent.total()),
                (datagrams, bytes, bytes),
                "seed {seed}: from {from} to {to}"
            );
            assert_eq!(link.received.total(), link.bytes_received, "seed {seed}");
            for body in [Body::Handshake, Body::Header, Body::Inputs, Body::Control] {
                assert_ne!(link.sent.of(body), 0, "seed {seed}: {}", body.name());
            }
            // The same name means the same on both ends; the last 30 ms are still under way.
            let other = if from == 0 { there } else { *here };
            for body in Body::ALL {
                let (sent, received) = (link.sent.of(body), other.statistics.received.of(body));
                assert!(received <= sent, "seed {seed}: {}", body.name());
                assert!(sent - received <= 200, "seed {seed}: {}", body.name());
            }
        }
        assert!(here.statistics.sent.of(Body::Messages) >= 6, "seed {seed}");
        assert!(
            there.statistics.sent.of(Body::Messages) >= 11,
            "seed {seed}"
        );
    }
    // The one that joined late got a state; the host sends nothing but that and acks in bulk.
    let bulk = |index: usize| of_host[index].statistics.sent.of(Body::Bulk);
    assert_eq!(bulk(0), 0, "seed {seed}");
    assert_ne!(bulk(1), 0, "seed {seed}");
    let sum: u64 = of_host.iter().map(|link| link.statistics.bytes_sent).sum();
    assert_eq!(cluster.node(0).statistics().bytes_sent, sum, "seed {seed}");
}

#[test]
fn a_stall_is_put_down_to_the_member_that_was_awaited() {
    let host = HostConfig {
        gate: Gate::Wait {
            limit_us: 5_000_000,
        },
        ..HostConfig::new(toy::game(), 2)
    };
    let mut cluster = Cluster::new(host, Conditions::from_rtt(20_000, 0), 5);
    for name in ["steady", "silent"] {
        cluster.join(JoinConfig::new(toy::game(), name));
    }
    cluster.run_us(2_000_000);
    let before: Vec<u64> = links(&cluster, 0)
        .iter()
        .map(|link| link.statistics.stalls)
        .collect();
    cluster.cut.push((2, 0));
    cluster.run_us(1_000_000);
    let after = links(&cluster, 0);
    let silent = cluster.node(2).session().member;
    for (link, before) in after.iter().zip(before) {
        let more = link.statistics.stalls - before;
        assert_eq!(more, u64::from(link.member == silent), "{link:?}");
    }
    assert_ne!(links(&cluster, 1)[0].statistics.stalls, 0);
}
