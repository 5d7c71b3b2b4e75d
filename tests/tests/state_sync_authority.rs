//! Entities that a client decides, in virtual time: what it says counts, as long as it decides.

use phalanx::netcode::link::conditioner::Conditions;
use phalanx::netcode::node::Event;
use phalanx::netcode::session::config::{HostConfig, InputDelay, JoinConfig, Start};
use phalanx::netcode::tick::Tick;
use phalanx_tests::cluster::ClusterOf;
use phalanx_tests::yard::{self, Plan, Pusher};

/// Ticks for which the host, slot 0 and slot 1 decide the first body in turn.
const TERM: u32 = 240;

/// Ticks after a transfer in which its news travel: half a round trip, and what loss adds.
const NEWS: u32 = 60;

fn cluster(loss_per_million: u32, seed: u64) -> ClusterOf<Pusher> {
    let config = HostConfig {
        start: Start::Players(2),
        ..HostConfig::new(yard::game(), 2)
    };
    let path = Conditions::from_rtt(100_000, loss_per_million);
    let mut cluster = ClusterOf::<Pusher>::new(config, path, seed);
    for name in ["one", "two"] {
        cluster.join(JoinConfig {
            prediction_ticks: 16,
            input_delay: InputDelay::Adaptive { min: 0, max: 30 },
            ..JoinConfig::new(yard::game(), name)
        });
    }
    for member in &mut cluster.members {
        member.driver.player_mut().plan = Plan {
            bodies: 6,
            is_lively: false,
            gust_ticks: 0,
            term_ticks: TERM,
        };
    }
    cluster
}

#[test]
fn authority_goes_to_clients_and_back_and_nothing_jumps() {
    let mut cluster = cluster(50_000, 11);
    let upto = Tick::new(TERM * 7);
    assert!(cluster.run_while_not(120_000_000, |c| c.settled(&[1, 2]) >= upto));
    let host = cluster.driver(0).player().first.clone();
    for index in [1, 2] {
        let slot = cluster.node(index).session().slot.expect("it plays").0;
        let shown = cluster.driver(index).player().first.clone();
        let mut own = 0;
        let terms = (0..7).filter(|term| term % 3 == u32::from(slot) + 1);
        for first in terms.map(|term| term * TERM + NEWS) {
            for number in first..first + TERM - NEWS {
                let (now, next) = (Tick::new(number), Tick::new(number + 1));
                let (now, next) = (&shown[&now], &shown[&next]);
                if now.decider != Some(slot) || next.decider != Some(slot) {
                    continue;
                }
                own += 1;
                assert!(
                    next.at[0] == now.at[0] + 1 || next.at[0] < now.at[0] - 1000,
                    "node {index} after tick {number}: from {now:?} to {next:?}"
                );
            }
            // The host follows: by what was claimed last before its tick ran.
            let last = Tick::new(first + TERM - NEWS - 1);
            let (held, decided) = (&host[&last], &shown[&last]);
            let apart = (decided.at[0] - held.at[0]).abs();
            assert!(
                !(30..=1000).contains(&apart),
                "the host has {held:?} where node {index} says {decided:?}"
            );
        }
        assert!(own > 150, "node {index} decided {own} ticks only");
    }
    let statistics = cluster.node(0).state_sync().expect("state-sync mode");
    assert!(statistics.claims > 300, "{statistics:?}");
    assert_eq!(statistics.claims_foreign, 0, "{statistics:?}");
    let reported = |event: &Event| {
        matches!(
            event,
            Event::ClaimRefused {
                is_foreign: true,
                ..
            }
        )
    };
    assert!(!cluster.members[0].events.iter().any(reported));
    // The host decides again: all hold what it has.
    let soon = Tick::new(TERM * 9 + NEWS);
    assert!(cluster.run_while_not(120_000_000, |c| c.settled(&[1, 2]) >= soon));
    let last = cluster.node(0).tick().plus(50);
    cluster.driver(0).node_mut().end_at(last);
    cluster.run_us(4_000_000);
    let real = cluster.driver(0).simulation().expect("a state").clone();
    assert_eq!(real.bodies()[&100].decider, None);
    for index in [1, 2] {
        let statistics = cluster.node(index).state_sync().expect("state-sync mode");
        assert_eq!(statistics.converged, Some(true), "node {index}");
        let shown = cluster.driver(index).simulation().expect("a state");
        assert_eq!(shown.bodies(), real.bodies(), "node {index}");
    }
}
