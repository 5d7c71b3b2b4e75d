//! Scenarios that need one rule each: a sweep over times, in which nothing goes wrong, and something
//! does without the rule.

use phalanx_netcode::migration::{Ablation, HostPolicy};
use phalanx_netcode::prng::Prng;

use crate::network::{Network, Quality};
use crate::world::World;

/// When the roster has settled.
const SETTLED_US: u64 = 2_000_000;

fn world(nodes: u16, rtt_us: u64, ablation: Ablation) -> World {
    let quality = Quality {
        rtt_us,
        jitter_us: 0,
        loss_ppm: 0,
        duplicate_ppm: 0,
        stale_ppm: 0,
        burst_ppm: 0,
    };
    let mut world = World::new(Network::new(quality, Prng::new(9)));
    for _ in 0..nodes {
        let policy = HostPolicy {
            ablation,
            fork_after_us: None,
            ..HostPolicy::default()
        };
        world.add(policy, 0);
    }
    world.run_until(SETTLED_US);
    world
}

/// The first violation of the runs of `scenario`, of which there are `count`.
fn sweep(count: u64, scenario: impl Fn(u64) -> World) -> Option<(u64, String)> {
    (0..count).find_map(|number| {
        let mut world = scenario(number);
        world.checks.violation.take().map(|text| (number, text))
    })
}

fn assert_needed(count: u64, without: Ablation, scenario: fn(u64, Ablation) -> World) {
    let with_all = sweep(count, |number| scenario(number, Ablation::default()));
    assert_eq!(with_all, None, "with all rules");
    let ablated = sweep(count, |number| scenario(number, without));
    assert!(ablated.is_some(), "nobody notices what is missing");
}

/// Two standbys are cut off from the host; a third voter is for a moment, and all three suspect
/// it. The host goes on with that one and a fourth, which has only heard ticks for a while: its
/// word for them must keep it from voting for the standbys.
fn ticks_alone(number: u64, ablation: Ablation) -> World {
    let mut world = world(5, 20_000, ablation);
    let now = world.now;
    let roster = world.nodes[0].terms.roster();
    let standbys: Vec<u16> = roster.standbys.iter().map(|id| id.0).collect();
    let others: Vec<u16> = (1..5).filter(|id| !standbys.contains(id)).collect();
    for &id in &standbys {
        world.network.block(0, id, now + 1_500_000);
        world.network.block(id, 0, now + 1_500_000);
    }
    world.run_until(now + number % 40 * 10_000);
    let now = world.now;
    let until = now + 155_000 + number / 40 * 10_000;
    world.network.block(0, others[1], until);
    world.run_until(now + 1_500_000);
    world
}

#[test]
fn a_voter_keeps_the_word_that_its_acks_of_ticks_give() {
    let without = Ablation {
        no_tick_word: true,
        ..Ablation::default()
    };
    assert_needed(320, without, ticks_alone);
}
