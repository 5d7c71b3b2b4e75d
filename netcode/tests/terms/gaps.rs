//! How long players see nothing new when hosting moves, in virtual time.

use phalanx_netcode::migration::HostPolicy;
use phalanx_netcode::prng::Prng;

use crate::network::{Network, Quality};
use crate::world::World;

const TICK_US: u64 = 16_667;

/// A setting, and what is asked of it.
struct Setting {
    name: &'static str,
    rtt_us: u64,
    nodes: u64,
    policy: HostPolicy,
    is_planned: bool,
    p50_us_max: u64,
    p99_us_max: u64,
}

/// Gaps of all survivors of one run, and the ticks that were taken back.
fn run(setting: &Setting, seed: u64) -> (Vec<u64>, u32) {
    let mut prng = Prng::new(seed);
    let quality = Quality {
        rtt_us: setting.rtt_us,
        jitter_us: setting.rtt_us / 50,
        loss_ppm: 0,
        duplicate_ppm: 0,
        stale_ppm: 0,
        burst_ppm: 0,
    };
    let mut world = World::new(Network::new(quality, Prng::with_stream(seed, 1)));
    for _ in 0..setting.nodes {
        let ppm = i64::try_from(prng.below(400)).unwrap() - 200;
        world.add(setting.policy.clone(), ppm);
    }
    world.run_until(4_000_000 + prng.below(100_000));
    let host = world.host().unwrap();
    for node in &mut world.nodes {
        node.gap_us = 0;
    }
    let newest = world.nodes.iter().filter(|node| node.id != host);
    let held = newest.map(|node| node.toy.log().len()).max().unwrap();
    if setting.is_planned {
        assert!(world.hand_over(host, None), "nobody to hand over to");
    } else {
        world.crash(host);
    }
    let until = world.now + 3_000_000;
    world.run_until(until);
    assert_eq!(
        world.checks.violation, None,
        "{} with seed {seed}",
        setting.name
    );
    assert!(
        world.is_in_step(),
        "{} with seed {seed}: {}",
        setting.name,
        world.summary()
    );
    let new_host = world.host().unwrap();
    assert_ne!(new_host, host, "hosting has not moved");
    let base = world.nodes[usize::try_from(new_host).unwrap()]
        .terms
        .roster()
        .lineage
        .base();
    let lost = if setting.is_planned {
        0
    } else {
        held.saturating_sub(base.number().try_into().unwrap())
    };
    let gaps = world
        .nodes
        .iter()
        .filter(|node| node.alive)
        .map(|node| node.gap_us);
    (gaps.collect(), u32::try_from(lost).unwrap())
}

/// Prints the figures of all settings, and holds them against their limits.
pub(crate) fn report(runs: u64) {
    let crash = |name, rtt_us, p50_us_max, p99_us_max| Setting {
        name,
        rtt_us,
        nodes: 8,
        policy: HostPolicy::default(),
        is_planned: false,
        p50_us_max,
        p99_us_max,
    };
    let planned = |name, rtt_us| Setting {
        name,
        rtt_us,
        nodes: 8,
        policy: HostPolicy::default(),
        is_planned: true,
        p50_us_max: rtt_us + TICK_US,
        // Jitter of both ways.
        p99_us_max: rtt_us + TICK_US + rtt_us / 25,
    };
    let settings = [
        crash("crash, RTT 50, 8 members", 50_000, 370_000, 420_000),
        crash("crash, RTT 100, 8 members", 100_000, 620_000, 620_000),
        crash("crash, RTT 200, 8 members", 200_000, 1_050_000, 1_050_000),
        Setting {
            policy: HostPolicy::dedicated(),
            nodes: 6,
            ..crash("crash, dedicated pair, RTT 2", 2000, 180_000, 180_000)
        },
        planned("planned, RTT 50, 8 members", 50_000),
        planned("planned, RTT 100, 8 members", 100_000),
        planned("planned, RTT 200, 8 members", 200_000),
    ];
    for setting in settings {
        let mut gaps = Vec::new();
        let mut lost = 0;
        for seed in 0..runs {
            let (more, ticks) = run(&setting, seed);
            gaps.extend(more);
            lost = lost.max(ticks);
        }
        gaps.sort_unstable();
        let at = |percent: usize| gaps[(gaps.len() * percent / 100).min(gaps.len() - 1)];
        let (p50, p99) = (at(50), at(99));
        eprintln!(
            "{}: gap p50 {} ms, p99 {} ms; at most {lost} ticks taken back",
            setting.name,
            p50 / 1000,
            p99 / 1000
        );
        assert!(p50 <= setting.p50_us_max, "{}: p50 {p50} us", setting.name);
        assert!(p99 <= setting.p99_us_max, "{}: p99 {p99} us", setting.name);
    }
}
