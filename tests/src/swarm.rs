//! Many sessions, each from a seed, and what came of them.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::seeds;

/// What came of a session.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    /// Terms that had a host.
    pub migrations: usize,
    /// Messages of the game that have arrived.
    pub messages: usize,
    /// 1 if it was announced that data may be lost.
    pub unclean: u64,
    /// 1 if it was recorded, and the recordings verified.
    pub recordings: u64,
    /// 1 if faults kept members from a host for so long that they gave up.
    pub given_up: u64,
    /// Microseconds until all had settled a tick under one host.
    pub recovered_us: u64,
}

/// Runs a session per seed, and prints what came of them.
///
/// # Panics
/// If one fails, when all have run, or as soon as `FAILURES` have failed, 5 if the environment does
/// not say.
#[expect(clippy::print_stdout, reason = "what came of a long run")]
pub fn run_all(seeds: impl Iterator<Item = u64>, run: impl Fn(u64) -> Outcome) {
    let mut runs = 0;
    let mut sum = Outcome::default();
    let mut failed = Vec::new();
    let mut recoveries = Vec::new();
    for seed in seeds {
        match catch_unwind(AssertUnwindSafe(|| run(seed))) {
            Ok(outcome) => {
                runs += 1;
                sum.migrations += outcome.migrations;
                sum.messages += outcome.messages;
                sum.unclean += outcome.unclean;
                sum.recordings += outcome.recordings;
                sum.given_up += outcome.given_up;
                if outcome.given_up == 0 {
                    recoveries.push(outcome.recovered_us / 1000);
                }
            }
            Err(_panic) => {
                failed.push(seed);
                if failed.len() as u64 >= seeds::number("FAILURES").unwrap_or(5) {
                    break;
                }
            }
        }
    }
    recoveries.sort_unstable();
    let part = |millis: usize| {
        let at = recoveries.len().saturating_sub(1) * millis / 1000;
        recoveries.get(at).copied().unwrap_or(0)
    };
    println!(
        "{} sessions, {} migrations, {} messages, {} unclean, {} recorded, {} given up; in step again after \
         {} ms (median), {} (99 of 100), {} (999 of 1000), {} at most; failed: {failed:?}",
        runs,
        sum.migrations,
        sum.messages,
        sum.unclean,
        sum.recordings,
        sum.given_up,
        part(500),
        part(990),
        part(999),
        part(1000),
    );
    assert!(failed.is_empty(), "seeds that failed: {failed:?}");
}
