//! Hosting moves by itself: members elect another host when theirs is gone, and a host that hands
//! over loses nothing. Whole nodes, bytes and all, in virtual time.
//!
//! `SEEDS=n` runs more seeds, `SEED=n` one.

use phalanx::netcode::link::conditioner::Conditions;
use phalanx::netcode::session::config::Gate;
use phalanx_tests::cluster::Bot;
use phalanx_tests::succession::Succession;
use phalanx_tests::{gaps, seeds};

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

#[test]
fn members_elect_another_host_when_theirs_dies() {
    for seed in seeds::chosen(1, 6) {
        let players = 3 + u8::try_from(seed % 3).expect("small");
        let gate = if seed % 2 == 0 { PACED } else { WAIT };
        let conditions = Conditions::from_rtt(50_000, 0);
        let test = "members_elect_another_host_when_theirs_dies";
        let mut session = open(players, gate, conditions, seed, test);
        let gap_ms = session.gap_ms(|it| {
            it.cluster.crash(0);
            it.assert_recovers(5_000_000);
        });
        println!("seed {seed}: {players} players, {gate:?}: gap {gap_ms} ms");
        assert!(gap_ms < 420, "{gap_ms} ms");
    }
}

#[test]
fn a_handover_loses_nothing() {
    for seed in seeds::chosen(1, 6) {
        let players = 3 + u8::try_from(seed % 3).expect("small");
        let gate = if seed % 2 == 0 { PACED } else { WAIT };
        let conditions = Conditions::from_rtt(50_000, 0);
        let mut session = open(players, gate, conditions, seed, "a_handover_loses_nothing");
        session.run(2_000_000);
        let before = session.losses();
        let gap_ms = session.gap_ms(|it| {
            it.move_host();
            it.assert_recovers(3_000_000);
        });
        println!("seed {seed}: {players} players, {gate:?}: gap {gap_ms} ms");
        assert_eq!(session.losses(), before);
    }
}

#[test]
fn a_host_that_leaves_hands_over_first() {
    for seed in seeds::chosen(1, 4) {
        let test = "a_host_that_leaves_hands_over_first";
        let mut session = open(4, PACED, Conditions::from_rtt(50_000, 0), seed, test);
        session.run(2_000_000);
        let before = session.losses();
        session.cluster.driver(0).node_mut().leave();
        session.cluster.run_us(4_000_000);
        // It is gone; the others play on, without it.
        session.cluster.crash(0);
        session.assert_recovers(3_000_000);
        assert_eq!(session.losses().1, before.1);
        for index in session.alive() {
            let roster = session.cluster.node(index).roster();
            assert_eq!(roster.members().len(), 3);
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
/// loss.
#[test]
fn the_gap_after_a_crash_is_short() {
    gaps::assert_short_after_crashes(&seeds::chosen(1, 8), |rtt_us, seed| {
        let test = "the_gap_after_a_crash_is_short";
        let conditions = Conditions::from_rtt(rtt_us, 0);
        let mut session = open(8, PACED, conditions, seed, test);
        session.run(1_000_000 + seed * 7_919 % 100_000);
        session.gap_ms(|it| {
            it.cluster.crash(0);
            it.assert_recovers(5_000_000);
        })
    });
}
