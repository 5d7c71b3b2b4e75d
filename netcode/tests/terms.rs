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
#[path = "terms/network.rs"]
mod network;
#[path = "terms/plan.rs"]
mod plan;
#[path = "terms/toy.rs"]
mod toy;
#[path = "terms/world.rs"]
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use phalanx_netcode::migration::Ablation;
use plan::{Outcome, Plan};

/// Seeds of a default run.
const SEEDS: u64 = 300;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn run(seed: u64, ablation: Ablation) -> Outcome {
    plan::run(Plan::new(seed), ablation, false)
}

/// Runs these seeds, and tells of those that failed.
fn run_all(seeds: impl Iterator<Item = u64>) {
    let mut failed = Vec::new();
    let (mut runs, mut terms, mut unclean, mut lonely, mut slowest) = (0, 0, 0, 0, 0);
    for seed in seeds {
        let result = catch_unwind(AssertUnwindSafe(|| run(seed, Ablation::default())));
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
            "SEED={seed} cargo test -p phalanx-netcode --test terms one_seed -- --nocapture\n\
             {violation}"
        );
    }
    assert!(failed.is_empty(), "{} of {runs} runs failed", failed.len());
}

#[test]
fn random_faults_break_no_promise() {
    let count = number("SEEDS").unwrap_or(SEEDS);
    let first = number("FIRST").unwrap_or(0);
    run_all(first..first + count);
}

#[test]
fn one_seed() {
    if let Some(seed) = number("SEED") {
        let outcome = plan::run(Plan::new(seed), Ablation::default(), true);
        assert!(outcome.violation.is_none(), "{outcome:?}");
    }
}
