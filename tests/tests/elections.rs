//! Hosting moves by itself: members elect another host when theirs is gone, and a host that hands
//! over loses nothing. Whole nodes, bytes and all, in virtual time.
//!
//! `SEEDS=n` runs more seeds, `SEED=n` one.

use phalanx::netcode::link::conditioner::Conditions;
use phalanx::netcode::session::config::Gate;
use phalanx_tests::cluster::Bot;
use phalanx_tests::succession::Succession;

const PACED: Gate = Gate::Paced;
const WAIT: Gate = Gate::Wait {
    limit_us: 4_000_000,
};

type Session = Succession<Bot>;

fn open(players: u8, gate: Gate, conditions: Conditions, seed: u64, test: &str) -> Session {
    let host = Session::elected(players, gate);
    let repeat = format!("SEED={seed} cargo test -p phalanx-tests --test elections {test}");
    let guests = Session::guests(players - 1);
    Session::new(host, guests, conditions, seed, 240, &repeat)
}

fn seeds(usual: u64) -> Vec<u64> {
    let read = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    match (read("SEED"), read("SEEDS")) {
        (Some(seed), _) => vec![seed],
        (None, count) => (1..=count.unwrap_or(usual)).collect(),
    }
}

#[test]
fn members_elect_another_host_when_theirs_dies() {
    for seed in seeds(6) {
        let players = 3 + u8::try_from(seed % 3).expect("small");
        let gate = if seed % 2 == 0 { PACED } else { WAIT };
        let conditions = Conditions::from_rtt(50_000, 0);
        let test = "members_elect_another_host_when_theirs_dies";
        let mut session = open(players, gate, conditions, seed, test);
        session.forget_gaps();
        session.cluster.crash(0);
        session.assert_recovers(5_000_000);
        let gap_us = session.longest_gap_us();
        println!(
            "seed {seed}: {players} players, {gate:?}: gap {} ms",
            gap_us / 1000
        );
        assert!(gap_us <= 420_000, "{}: {gap_us} us", session.seed);
    }
}

#[test]
fn a_handover_loses_nothing() {
    for seed in seeds(6) {
        let players = 3 + u8::try_from(seed % 3).expect("small");
        let gate = if seed % 2 == 0 { PACED } else { WAIT };
        let conditions = Conditions::from_rtt(50_000, 0);
        let mut session = open(players, gate, conditions, seed, "a_handover_loses_nothing");
        session.run(2_000_000);
        session.forget_gaps();
        let before = session.losses();
        let now = session.cluster.now_of(0);
        let node = session.cluster.driver(0).node_mut();
        let target = node.request_handover(now, None).expect("somebody can host");
        session.run_until(3_000_000, |it| {
            it.host() == it.index_of(target) && it.host().is_some()
        });
        session.assert_recovers(3_000_000);
        let gap_us = session.longest_gap_us();
        println!(
            "seed {seed}: {players} players, {gate:?}: gap {} ms",
            gap_us / 1000
        );
        assert_eq!(session.losses(), before, "{}", session.seed);
    }
}

#[test]
fn a_host_that_leaves_hands_over_first() {
    for seed in seeds(4) {
        let test = "a_host_that_leaves_hands_over_first";
        let mut session = open(4, PACED, Conditions::from_rtt(50_000, 0), seed, test);
        session.run(2_000_000);
        let before = session.losses();
        session.cluster.driver(0).node_mut().leave();
        session.cluster.run_us(4_000_000);
        // It is gone; the others play on, without it.
        session.cluster.crash(0);
        session.assert_recovers(3_000_000);
        assert_eq!(session.losses().1, before.1, "{}", session.seed);
        for index in session.alive() {
            let roster = session.cluster.node(index).roster();
            assert_eq!(roster.members().len(), 3, "{}", session.seed);
        }
    }
}

#[test]
fn the_last_of_two_goes_on_in_a_session_of_its_own() {
    let test = "the_last_of_two_goes_on_in_a_session_of_its_own";
    let mut session = open(2, PACED, Conditions::from_rtt(50_000, 0), 1, test);
    let common = session.cluster.node(1).session().session;
    session.cluster.crash(0);
    session.run(2_500_000);
    assert!(!session.cluster.node(1).is_host(), "it may be late only");
    session.assert_recovers(3_000_000);
    assert!(session.cluster.node(1).is_host());
    assert_ne!(session.cluster.node(1).session().session, common);
}

/// How long members stand still when their host dies: of eight players, at any moment, without
/// loss. The limits are those of the project, in milliseconds.
#[test]
fn the_gap_after_a_crash_is_short() {
    for (rtt_us, limit_ms) in [(50_000, 420), (100_000, 620), (200_000, 1050)] {
        let mut gaps: Vec<u64> = Vec::new();
        for seed in seeds(8) {
            let test = "the_gap_after_a_crash_is_short";
            let conditions = Conditions::from_rtt(rtt_us, 0);
            let mut session = open(8, PACED, conditions, seed, test);
            session.run(1_000_000 + seed * 7_919 % 100_000);
            session.forget_gaps();
            session.cluster.crash(0);
            session.assert_recovers(5_000_000);
            gaps.push(session.longest_gap_us() / 1000);
        }
        gaps.sort_unstable();
        let (median, worst) = (gaps[gaps.len() / 2], gaps[gaps.len() - 1]);
        println!(
            "RTT {} ms: median {median} ms, longest {worst} ms",
            rtt_us / 1000
        );
        assert!(worst <= limit_ms, "RTT {rtt_us} us: {gaps:?}");
    }
}
