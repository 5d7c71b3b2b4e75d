//! Sessions whose hosting moves, from a seed: whole nodes, bytes and all, in virtual time, under
//! crashes, pauses, partitions, bad paths, restarts, joins and leaves, with checkers of what must
//! hold at every moment and of what must hold once all is well again (`phalanx_tests::succession`).
//!
//! `SEEDS=n` runs more seeds, `FIRST=n` from another on, and
//! `SEED=n cargo test -p phalanx-tests --test hosting_swarm one_seed -- --nocapture` one of them; with
//! `PAIR=1` that of a pair of servers.

use std::path::PathBuf;

use phalanx::netcode::link::conditioner::{Burst, Conditions};
use phalanx::netcode::migration::HostPolicy;
use phalanx::netcode::prng::Prng;
use phalanx::netcode::session::config::{
    Gate, HostConfig, InputDelay, JoinConfig, LatePolicy, MigrationConfig, Role, Start,
};
use phalanx_tests::cluster::Bot;
use phalanx_tests::faults::{Faults, draw};
use phalanx_tests::seeds;
use phalanx_tests::succession::Succession;
use phalanx_tests::swarm::{Outcome, run_all};
use phalanx_tests::toy;

type Session = Succession<Bot>;

/// Seeds of a default run.
const SEEDS: u64 = 32;

/// Seeds that found something once.
const REGRESSIONS: [u64; 50] = [
    21, 135, 218, 254, 323, 331, 335, 722, 1241, 1301, 2297, 2957, 3367, 3435, 3445, 3550, 4351,
    4483, 6362, 7219, 8168, 8676, 8947, 100606, 103530, 103928, 105474, 106796, 108470, 108797,
    109694, 114114, 121033, 121777, 124011, 131847, 201750, 210324, 211277, 211592, 222111, 230528,
    231398, 256821, 258196, 333486, 407051, 450955, 1004824, 5006931,
];

/// All must be in step again so long after the last fault, in microseconds.
const RECOVERY_US: u64 = 20_000_000;

/// Who hosts, and who may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Players do; two have an arbiter.
    Players,
    /// So do two servers without a slot.
    Pair,
}

/// The session of a seed before anything befalls it.
fn open(prng: &mut Prng, seed: u64, kind: Kind) -> Session {
    let is_pair = kind == Kind::Pair;
    let members: u8 = if is_pair {
        draw(prng, &[3, 3, 4, 5])
    } else {
        draw(prng, &[2, 3, 3, 3, 4, 4, 5, 5, 8])
    };
    let players = members - if is_pair { 2 } else { 0 };
    let waits = prng.below(3) == 0;
    let prediction_ticks = if waits { draw(prng, &[0, 0, 4]) } else { 0 };
    let delay = draw(
        prng,
        &[
            InputDelay::default(),
            InputDelay::default(),
            InputDelay::Adaptive { min: 0, max: 8 },
            InputDelay::Fixed(6),
        ],
    );
    let host = HostConfig {
        plays: !is_pair,
        gate: if waits {
            Gate::Wait {
                limit_us: 20_000_000,
            }
        } else {
            Gate::Paced
        },
        prediction_ticks,
        input_delay: delay,
        late_policy: draw(prng, &[LatePolicy::Repeat, LatePolicy::Neutral]),
        start: Start::Players(players),
        migration: MigrationConfig::ELECTED,
        spectators: 4,
        silence_us: 2_000_000,
        resume_us: draw(prng, &[4_000_000, 30_000_000]),
        // More places than there are players, for those who come later.
        ..HostConfig::new(toy::game(), players + 6)
    };
    let join = JoinConfig {
        input_delay: delay,
        prediction_ticks: if waits {
            prediction_ticks
        } else {
            draw(prng, &[0, 0, 4])
        },
        join_us: 2_000_000,
        silence_us: 2_000_000,
        resume_us: 8_000_000,
        ..JoinConfig::new(toy::game(), "somebody")
    };
    let loss = draw(prng, &[0, 0, 20_000, 50_000, 100_000]);
    let mut conditions = Conditions::from_rtt(2_000 + prng.below(180_000), loss);
    conditions.jitter_us = draw(prng, &[0, 5_000, 15_000]);
    conditions.duplicate_per_million = draw(prng, &[0, 0, 50_000]);
    conditions.reorder_per_million = draw(prng, &[0, 0, 50_000]);
    if prng.below(4) == 0 {
        conditions.burst = Some(Burst::from_mean(loss, 2 + prng.next_u32() % 6));
    }
    let env = if is_pair { "PAIR=1 " } else { "" };
    let again = format!(
        "{env}SEED={seed} cargo test -p phalanx-tests --test hosting_swarm one_seed -- --nocapture \
         ({players} players, waits {waits}, predicts {prediction_ticks}, {conditions:?})"
    );
    let mut session = Session::open(host, Vec::new(), conditions, seed, &again);
    for number in 1..members {
        let watches = is_pair && number == 1;
        let config = JoinConfig {
            name: format!("member {number}"),
            role: if watches { Role::Spectator } else { join.role },
            ..join.clone()
        };
        let drift_ppm = draw(prng, &[0, 500, -500]);
        session.join(config, prng.below(2) * prng.below(90_000_000), drift_ppm);
    }
    if members == 2 {
        let arbiter = JoinConfig {
            role: Role::Spectator,
            hosting: HostPolicy::arbiter(),
            silence_us: join.silence_us,
            resume_us: join.resume_us,
            ..JoinConfig::new(toy::game(), "arbiter")
        };
        session.join(arbiter, 0, 0);
    }
    session.watcher.newcomer = Some(join);
    session.watcher.chats = prng.below(2) == 0;
    session.traces = seeds::number("SEED").is_some();
    if prng.below(4) == 0 {
        session.cluster.tapped = 600;
    }
    session
}

fn run(seed: u64, kind: Kind) -> Outcome {
    let mut prng = Prng::with_stream(seed, 7);
    let mut session = open(&mut prng, seed, kind);
    let records = prng.below(8) == 0;
    if records {
        for index in 0..session.cluster.members.len() {
            let name = format!("hosting_{seed}_{index}.phxr");
            let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
            session.record(index, file);
        }
    }
    session.run_until(20_000_000, |it| {
        !it.is_in_motion() && it.settled().number() > 180
    });
    let count = 1 + prng.below(6);
    Faults::default().befall(&mut prng, &mut session, count);
    let recovered_us = session.assert_recovers(RECOVERY_US);
    if records {
        session.assert_recordings();
    }
    Outcome {
        migrations: session.terms(),
        messages: session.messages(),
        unclean: u64::from(session.is_unclean()),
        recordings: u64::from(records),
        given_up: u64::from(session.has_given_up()),
        recovered_us,
    }
}

#[test]
fn sessions_survive_what_befalls_them() {
    run_all(seeds::range(SEEDS), |seed| run(seed, Kind::Players));
}

#[test]
fn pairs_of_servers_survive_what_befalls_them() {
    run_all(seeds::range(SEEDS / 2), |seed| run(seed, Kind::Pair));
}

#[test]
fn seeds_that_found_something_once_pass() {
    run_all(REGRESSIONS.into_iter(), |seed| run(seed, Kind::Players));
}

#[test]
fn one_seed() {
    let is_pair = seeds::number("PAIR").is_some();
    let kind = if is_pair { Kind::Pair } else { Kind::Players };
    if let Some(seed) = seeds::number("SEED") {
        run_all([seed].into_iter(), |seed| run(seed, kind));
    }
}
