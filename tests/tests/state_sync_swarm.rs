//! Sessions in state-sync mode whose hosting moves, from a seed: whole nodes, bytes and all, in
//! virtual time, under the same faults as those in lockstep mode (`hosting_swarm`), with checkers of
//! what must hold at every moment and of what must hold once all is well again
//! (`phalanx_tests::reign`).
//!
//! `SEEDS=n` runs more seeds, `FIRST=n` from another on, and
//! `SEED=n cargo test -p phalanx-tests --test state_sync_swarm one_seed -- --nocapture` one of them.

use phalanx::netcode::link::conditioner::{Burst, Conditions};
use phalanx::netcode::prng::Prng;
use phalanx::netcode::session::config::HostConfig;
use phalanx_tests::faults::{Faults, draw};
use phalanx_tests::reign::Reign;
use phalanx_tests::seeds;
use phalanx_tests::swarm::{Outcome, run_all};
use phalanx_tests::yard::Plan;

/// Seeds of a default run.
const SEEDS: u64 = 16;

/// Seeds that found something once.
const REGRESSIONS: [u64; 20] = [
    3, 18, 59, 88, 108, 180, 188, 233, 252, 253, 306, 356, 375, 422, 505, 1249, 3001972, 8000256,
    9000310, 9000618,
];

/// All must be in step again so long after the last fault, in microseconds.
const RECOVERY_US: u64 = 20_000_000;

/// Slots for players who come later.
const FREE_SLOTS: u8 = 4;

/// The session of a seed before anything befalls it.
fn open(prng: &mut Prng, seed: u64) -> Reign {
    let players = draw(prng, &[3, 3, 4, 5, 6]);
    let loss = draw(prng, &[0, 0, 20_000, 50_000, 100_000]);
    let mut conditions = Conditions::from_rtt(2_000 + prng.below(160_000), loss);
    conditions.jitter_us = draw(prng, &[0, 5_000, 15_000]);
    conditions.duplicate_per_million = draw(prng, &[0, 0, 50_000]);
    conditions.reorder_per_million = draw(prng, &[0, 0, 50_000]);
    if prng.below(4) == 0 {
        conditions.burst = Some(Burst::from_mean(loss, 2 + prng.next_u32() % 6));
    }
    let plan = Plan {
        bodies: draw(prng, &[12, 100]),
        is_lively: true,
        term_ticks: draw(prng, &[0, 0, 40]),
        ..Plan::default()
    };
    let host = HostConfig {
        slots: players + FREE_SLOTS,
        ..Reign::host_config(players)
    };
    let repeat = format!(
        "SEED={seed} cargo test -p phalanx-tests --test state_sync_swarm one_seed -- --nocapture \
         ({players} players, {plan:?}, {conditions:?})"
    );
    let mut session = Reign::with_host(host, plan, conditions, seed, &repeat);
    session.traces = seeds::number("SEED").is_some();
    if prng.below(4) == 0 {
        session.cluster.tapped = 600;
    }
    session
}

fn run(seed: u64) -> Outcome {
    let mut prng = Prng::with_stream(seed, 7);
    let mut session = open(&mut prng, seed);
    let count = 1 + prng.below(5);
    Faults::default().befall(&mut prng, &mut session, count);
    let recovered_us = session.assert_recovers(RECOVERY_US);
    Outcome {
        migrations: session.terms().len(),
        given_up: u64::from(session.has_given_up()),
        recovered_us,
        ..Outcome::default()
    }
}

#[test]
fn sessions_survive_what_befalls_them() {
    run_all(seeds::range(SEEDS), run);
}

#[test]
fn seeds_that_found_something_once_pass() {
    run_all(REGRESSIONS.into_iter(), run);
}

#[test]
fn one_seed() {
    if let Some(seed) = seeds::number("SEED") {
        run_all([seed].into_iter(), run);
    }
}
