//! Sessions whose host dies while members still meet each other: before all pairs have paths, some of
//! which never come. As soon as the host has said that others can go on without it, they do.

use phalanx_netcode::migration::HostPolicy;
use phalanx_netcode::prng::Prng;

use crate::network::{Network, Quality};
use crate::plan::Outcome;
use crate::world::World;

/// Until when pairs meet, at the latest, and the host dies.
const MEETING_US: u64 = 4_000_000;
/// Beyond the end of all runs.
const FOR_EVER: u64 = 1 << 40;
/// Time in which the last pair's paths become votes: a ping, a report, and a change of the roster
/// for each member.
const VOTES_US: u64 = 2_500_000;

/// A run, and whether the host said that it could be replaced.
pub(crate) fn run(seed: u64, trace: bool) -> Outcome {
    let mut prng = Prng::with_stream(seed, 5);
    let rtt_us = [2000, 20_000, 50_000, 100_000][usize::try_from(prng.below(4)).unwrap()];
    let quality = Quality {
        rtt_us,
        jitter_us: 1000,
        loss_ppm: if prng.below(2) == 0 { 0 } else { 10_000 },
        duplicate_ppm: 0,
        stale_ppm: 0,
        burst_ppm: 0,
    };
    let mut world = World::new(Network::new(quality, Prng::with_stream(seed, 6)));
    world.trace = trace;
    let count = 3 + prng.below(6);
    for _ in 0..count {
        let policy = HostPolicy {
            fork_after_us: None,
            ..HostPolicy::default()
        };
        world.add(policy, i64::try_from(prng.below(401)).unwrap() - 200);
    }
    let dies_at = 100_000 + prng.below(MEETING_US + VOTES_US);
    // Where the host carries greetings, whoever has not met by then never will.
    let is_carried = prng.below(2) == 0;
    let some_never = prng.below(4) == 0;
    let mut all_met_at = 0;
    for one in 1..count {
        for other in one + 1..count {
            let mut meet_at = prng.below(MEETING_US);
            let never = some_never && prng.below(12) == 0;
            if never || (is_carried && meet_at > dies_at) {
                meet_at = FOR_EVER;
            }
            all_met_at = all_met_at.max(meet_at);
            world.network.block(one, other, meet_at);
            world.network.block(other, one, meet_at);
        }
    }
    world.run_until(dies_at);
    let says = world.nodes[0].terms.is_replaceable();
    if trace {
        eprintln!("{dies_at:>9} replaceable: {says}, all have met at {all_met_at}");
    }
    if !says && all_met_at + VOTES_US < dies_at && quality.loss_ppm == 0 {
        let text = "all have met, and nobody can succeed".to_owned();
        world.checks.fail(text);
    }
    world.crash(0);
    let bound_us = 2_000_000 + 6 * rtt_us;
    let mut recovered_us = None;
    while world.checks.violation.is_none() && world.now < dies_at + 2 * bound_us {
        let next = world.now + 10_000;
        world.run_until(next);
        if world.host().is_some() {
            recovered_us = Some(world.now - dies_at);
            break;
        }
    }
    let is_late = recovered_us.is_none_or(|us| us > bound_us) || world.checks.unclean;
    if says && is_late && world.checks.violation.is_none() {
        let text = format!(
            "I9: replaceable, but {recovered_us:?} us without a host: {}",
            world.summary()
        );
        world.checks.fail(text);
    }
    let until = world.now + 1_000_000;
    world.run_until(until);
    Outcome {
        violation: world.checks.violation.take(),
        terms: world.checks.terms,
        unclean: world.checks.unclean,
        had_quorum: says,
        recovered_us: recovered_us.filter(|_| says),
    }
}
