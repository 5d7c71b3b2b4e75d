//! Term machines over bad paths: crashes, partitions, pauses and handovers from a seed, with
//! checkers of what must hold.
//!
//! Safety, at every moment: one host per term, one that acts, nothing lost that was promised.
//! Liveness: once the faults end, one host is there that all follow. `SEEDS=n` runs more seeds,
//! `SEED=n cargo test -p phalanx-netcode --test terms one_seed -- --nocapture` one of them.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says how to repeat it"
)]

#[path = "terms/checks.rs"]
mod checks;
#[path = "terms/gaps.rs"]
mod gaps;
#[path = "terms/life.rs"]
mod life;
#[path = "terms/network.rs"]
mod network;
#[path = "terms/node.rs"]
mod node;
#[path = "terms/plan.rs"]
mod plan;
#[path = "terms/scenarios.rs"]
mod scenarios;
#[path = "terms/standing.rs"]
mod standing;
#[path = "terms/toy.rs"]
mod toy;
#[path = "terms/world.rs"]
mod world;
#[path = "terms/young.rs"]
mod young;

use std::panic::{AssertUnwindSafe, catch_unwind};

use network::{Network, Quality};
use phalanx_netcode::migration::{Ablation, HostPolicy};
use phalanx_netcode::prng::Prng;
use plan::{Outcome, Plan};
use world::World;

/// Seeds of a default run.
const SEEDS: u64 = 200;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn run(seed: u64, ablation: Ablation) -> Outcome {
    plan::run(Plan::new(seed), ablation, false)
}

/// Runs these seeds, and tells of those that failed.
fn run_all(seeds: impl Iterator<Item = u64>, run: fn(u64) -> Outcome, again: &str) {
    let mut failed = Vec::new();
    let (mut runs, mut terms, mut unclean, mut lonely, mut slowest) = (0, 0, 0, 0, 0);
    for seed in seeds {
        let result = catch_unwind(AssertUnwindSafe(|| run(seed)));
        runs += 1;
        match result {
            Ok(outcome) => {
                terms += outcome.terms.saturating_sub(1);
                unclean += u32::from(outcome.unclean);
                lonely += u32::from(!outcome.had_quorum);
                slowest = slowest.max(outcome.recovered_us.unwrap_or(0));
                if let Some(violation) = outcome.violation {
                    failed.push((seed, violation));
                }
            }
            Err(_) => failed.push((seed, "panicked".to_owned())),
        }
    }
    eprintln!(
        "{runs} runs, {terms} migrations, {unclean} unclean, {lonely} without a quorum, \
         slowest recovery {slowest} us"
    );
    for (seed, violation) in &failed {
        eprintln!(
            "{again}={seed} cargo test -p phalanx-netcode --test terms one_ -- --nocapture\n\
             {violation}"
        );
    }
    assert!(failed.is_empty(), "{} of {runs} runs failed", failed.len());
}

#[test]
fn random_faults_break_no_promise() {
    let count = number("SEEDS").unwrap_or(SEEDS);
    let first = number("FIRST").unwrap_or(0);
    run_all(
        first..first + count,
        |seed| run(seed, Ablation::default()),
        "SEED",
    );
}

#[test]
fn seeds_that_found_something_pass() {
    // A vote after a commit, ticks of the retired host behind it; a target that comes back as another
    // process.
    // The word of a grant was forgotten when the target's term was followed.
    let safety = [44_570, 47_214, 208_183];
    // The target of a handover slept through the election after it, and takes over, frozen.
    let late = [205_255];
    // Candidates that stood at the same moment took each other's votes, again and again.
    let duels = [
        23_173, 25_008, 27_372, 33_773, 43_073, 49_718, 50_768, 50_823, 54_173,
    ];
    // A voter had promised more than the term was worth that the others knew: to suspect the hosts of
    // different terms was no agreement.
    let apart = [43_130, 50_328, 53_047, 225_522];
    run_all(
        [&safety[..], &late, &duels, &apart].concat().into_iter(),
        |seed| run(seed, Ablation::default()),
        "SEED",
    );
    // A new host that had not heard how much was safe made less of it.
    run_all(
        [28_988].into_iter(),
        |seed| plan::run_hunted(seed, Ablation::default(), false),
        "HUNTED",
    );
}

#[test]
fn hunted_hosts_break_no_promise() {
    let count = number("SEEDS").unwrap_or(SEEDS / 3);
    let first = number("FIRST").unwrap_or(0);
    run_all(
        first..first + count,
        |seed| plan::run_hunted(seed, Ablation::default(), false),
        "HUNTED",
    );
}

#[test]
fn young_sessions_go_on_once_their_host_says_so() {
    let count = number("SEEDS").unwrap_or(SEEDS);
    let first = number("FIRST").unwrap_or(0);
    run_all(
        first..first + count,
        |seed| young::run(seed, false),
        "YOUNG",
    );
}

#[test]
fn one_young_seed() {
    if let Some(seed) = number("YOUNG") {
        let outcome = young::run(seed, true);
        assert!(outcome.violation.is_none(), "{outcome:?}");
    }
}

#[test]
fn one_hunted_seed() {
    if let Some(seed) = number("HUNTED") {
        let outcome = plan::run_hunted(seed, Ablation::default(), true);
        assert!(outcome.violation.is_none(), "{outcome:?}");
    }
}

#[test]
fn one_seed() {
    if let Some(seed) = number("SEED") {
        let outcome = plan::run(Plan::new(seed), Ablation::default(), true);
        assert!(outcome.violation.is_none(), "{outcome:?}");
    }
}

/// The first seed from `first` at which a run without a rule breaks something, within `count`.
fn caught(ablation: Ablation, first: u64, count: u64) -> Option<(u64, String)> {
    (first..first + count).find_map(|seed| {
        // Of two seeds one is hunted.
        let one = || {
            if seed.is_multiple_of(2) {
                plan::run_hunted(seed, ablation, false)
            } else {
                run(seed, ablation)
            }
        };
        let result = catch_unwind(AssertUnwindSafe(one));
        let violation = match result {
            Ok(outcome) => outcome.violation,
            Err(_) => Some("panicked".to_owned()),
        };
        violation.map(|violation| (seed, violation))
    })
}

fn ablations() -> Vec<(&'static str, Ablation)> {
    let none = Ablation::default();
    vec![
        (
            "many_votes",
            Ablation {
                many_votes: true,
                ..none
            },
        ),
        (
            "no_lease",
            Ablation {
                no_lease: true,
                ..none
            },
        ),
        (
            "no_stickiness",
            Ablation {
                no_stickiness: true,
                ..none
            },
        ),
        (
            "no_tick_word",
            Ablation {
                no_tick_word: true,
                ..none
            },
        ),
        (
            "late_lease",
            Ablation {
                late_lease: true,
                ..none
            },
        ),
        (
            "any_candidate",
            Ablation {
                any_candidate: true,
                ..none
            },
        ),
        (
            "no_commit",
            Ablation {
                no_commit: true,
                ..none
            },
        ),
        (
            "early_safe",
            Ablation {
                early_safe: true,
                ..none
            },
        ),
        (
            "silent_when_frozen",
            Ablation {
                silent_when_frozen: true,
                ..none
            },
        ),
        (
            "no_incumbent",
            Ablation {
                no_incumbent: true,
                ..none
            },
        ),
        (
            "no_gossip",
            Ablation {
                no_gossip: true,
                ..none
            },
        ),
        (
            "safe_at_once",
            Ablation {
                safe_at_once: true,
                ..none
            },
        ),
        (
            "no_fence",
            Ablation {
                no_fence: true,
                ..none
            },
        ),
        (
            "act_after_commit",
            Ablation {
                act_after_commit: true,
                ..none
            },
        ),
    ]
}

/// `ABLATE=n`: looks for the first seed that catches each rule that is left out.
#[test]
fn search_of_ablations() {
    let Some(count) = number("ABLATE") else {
        return;
    };
    let only = std::env::var("ONLY").ok();
    for (name, ablation) in ablations() {
        if only.as_deref().is_none_or(|only| only == name) {
            eprintln!(
                "{name}: {:?}",
                caught(ablation, number("FIRST").unwrap_or(0), count)
            );
        }
    }
}

/// Each with a seed from which on it is found soon.
#[test]
fn rules_that_are_left_out_are_missed() {
    let found = [
        ("no_lease", 1),
        ("no_stickiness", 62),
        ("any_candidate", 88),
        ("no_incumbent", 5),
        ("no_gossip", 160),
        ("safe_at_once", 11),
        ("act_after_commit", 5),
    ];
    for (name, first) in found {
        let all = ablations();
        let (_, ablation) = all.into_iter().find(|(known, _)| *known == name).unwrap();
        let caught = caught(ablation, first, 80);
        assert!(caught.is_some(), "nobody notices that {name}");
    }
}

/// Three nodes on good paths.
fn three() -> World {
    let quality = Quality {
        rtt_us: 20_000,
        jitter_us: 1000,
        loss_ppm: 0,
        duplicate_ppm: 0,
        stale_ppm: 0,
        burst_ppm: 0,
    };
    let mut world = World::new(Network::new(quality, Prng::new(5)));
    for _ in 0..3 {
        world.add(HostPolicy::default(), 0);
    }
    world
}

/// Runs `scenario` up to delivery number `boundary` after `from`, crashes `node` there, and says
/// what went wrong; `None` as second if the scenario has fewer deliveries.
fn crash_at(
    node: u64,
    from: u64,
    boundary: u64,
    until: u64,
    begin: fn(&mut World),
) -> Option<Option<String>> {
    let mut world = three();
    world.run_until(from);
    begin(&mut world);
    let first = world.deliveries;
    while world.deliveries < first + boundary {
        if world.next_at().is_none_or(|at| at > until) {
            return None;
        }
        world.step();
    }
    world.crash(node);
    let crashed_at = world.now;
    while world.checks.violation.is_none() && world.now < crashed_at + 8_000_000 {
        let next = world.now + 20_000;
        world.run_until(next);
        let roster_follows = world.host().is_some_and(|host| {
            let roster = world.nodes[usize::try_from(host).unwrap()].terms.roster();
            roster.voters().all(|id| id.0 != node)
        });
        if world.is_in_step() && roster_follows {
            let until = world.now + 300_000;
            world.run_until(until);
            let host = world.host()?;
            world
                .checks
                .history(&world.nodes[usize::try_from(host).unwrap()].toy);
            return Some(world.checks.violation.take());
        }
    }
    let summary = world.summary();
    let violation = world.checks.violation.take();
    Some(violation.or_else(|| Some(format!("no host that all follow: {summary}"))))
}

fn crash_everywhere(from: u64, length: u64, begin: fn(&mut World)) {
    let mut runs = 0;
    for node in 0..3 {
        let mut boundary = 0;
        while let Some(violation) = crash_at(node, from, boundary, from + length, begin) {
            assert_eq!(violation, None, "{node} crashes before delivery {boundary}");
            boundary += 1;
            runs += 1;
        }
    }
    eprintln!("{runs} crashes");
    assert!(runs > 100, "{runs} crashes");
}

#[test]
fn every_crash_during_a_handover_is_survived() {
    crash_everywhere(2_000_000, 160_000, |world| {
        assert!(world.hand_over(0, Some(1)), "nobody to hand over to");
    });
}

#[test]
fn every_crash_while_the_roster_changes_is_survived() {
    crash_everywhere(2_000_000, 200_000, |world| {
        world.add(HostPolicy::default(), 50);
    });
}

#[test]
fn hosting_that_moves_shows_little() {
    gaps::report(number("RUNS").unwrap_or(12));
}
