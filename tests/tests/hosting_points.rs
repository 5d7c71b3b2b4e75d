//! Crashes at every point of a short session in which somebody joins, hosting is handed over, and a
//! host is elected: whichever process ends, after whichever of its datagrams, the others go on.
//!
//! All points are run; `POINT=node:datagrams` runs one of them. `SEED=n` draws other paths.

use std::panic::{AssertUnwindSafe, catch_unwind};

use phalanx::netcode::link::conditioner::Conditions;
use phalanx::netcode::session::config::{Gate, HostConfig, JoinConfig};
use phalanx_tests::cluster::{Bot, Index};
use phalanx_tests::seeds;
use phalanx_tests::succession::Succession;
use phalanx_tests::toy;

type Session = Succession<Bot>;

/// Nodes that take part, the one that joins later included.
const NODES: Index = 4;

/// Runs the session; `point` says who crashes after how many datagrams, from when all three are
/// there. Returns how many datagrams each node has sent by the end of the story.
fn run(seed: u64, gate: Gate, point: Option<(Index, u64)>) -> Vec<u64> {
    let host = HostConfig {
        slots: 4,
        silence_us: 1_000_000,
        ..Session::elected(3, gate)
    };
    let conditions = Conditions {
        jitter_us: 2_000,
        ..Conditions::from_rtt(20_000, 10_000)
    };
    let again = point.map_or(String::new(), |(node, at)| format!("POINT={node}:{at} "));
    let again =
        format!("SEED={seed} {again}cargo test -p phalanx-tests --test hosting_points ({gate:?})");
    let mut session = Session::new(host, Session::guests(2), conditions, seed, 60, &again);
    session.cluster.reset_traffic();
    session.cluster.crashes_after = point;
    session.join(
        JoinConfig {
            join_us: 1_000_000,
            resume_us: 2_000_000,
            ..JoinConfig::new(toy::game(), "late")
        },
        0,
        0,
    );
    session.run(350_000);
    // Who has crashed may be missing for it.
    let _target = session.request_handover();
    session.run(350_000);
    let paused = session.host().unwrap_or(0);
    session.cluster.members[paused].paused = true;
    session.run(450_000);
    session.cluster.members[paused].paused = false;
    session.run(100_000);
    let mut sent = vec![0; NODES];
    for ((from, _), (datagrams, _)) in &session.cluster.traffic {
        sent[*from] += datagrams;
    }
    session.cluster.crashes_after = None;
    session.assert_recovers(12_000_000);
    sent
}

#[expect(clippy::print_stdout, reason = "what came of a long run")]
fn run_points(gate: Gate) {
    let seed = seeds::number("SEED").unwrap_or(1);
    let sent = run(seed, gate, None);
    let one = std::env::var("POINT").ok().map(|point| {
        let (node, at) = point.split_once(':').expect("POINT=node:datagrams");
        let node: Index = node.parse().expect("a node");
        (node, at.parse::<u64>().expect("a number of datagrams"))
    });
    let points: Vec<(Index, u64)> = match one {
        Some(point) => vec![point],
        None => (0..NODES)
            .flat_map(|node| (0..sent[node]).map(move |at| (node, at)))
            .collect(),
    };
    let mut failed = Vec::new();
    for &point in &points {
        let result = catch_unwind(AssertUnwindSafe(|| run(seed, gate, Some(point))));
        if result.is_err() {
            failed.push(point);
        }
    }
    println!("{} points, {} failed", points.len(), failed.len());
    assert!(
        failed.is_empty(),
        "crashes that were not survived: {failed:?}"
    );
}

#[test]
fn crashes_at_every_datagram_are_survived() {
    run_points(Gate::Paced);
}

#[test]
fn crashes_at_every_datagram_are_survived_where_all_wait() {
    run_points(Gate::Wait {
        limit_us: 5_000_000,
    });
}
