//! Machines that are busy: hosts that wake in fits and starts, or stall now and then, and members that
//! do. Nobody is replaced for that, no host stands still, and one that dies is missed all the same.
//!
//! What a machine does for the first time nobody can expect: a session learns from two such pauses.

use phalanx::netcode::link::conditioner::Conditions;
use phalanx::netcode::node::Event;
use phalanx::netcode::prng::Prng;
use phalanx::netcode::session::config::Gate;
use phalanx_tests::cluster::{Bot, Index};
use phalanx_tests::succession::Succession;

type Session = Succession<Bot>;

const RTT_US: u64 = 50_000;

fn open(players: u8, seed: u64, test: &str) -> Session {
    let host = Session::elected(players, Gate::Paced);
    let conditions = Conditions::from_rtt(RTT_US, 0);
    let repeat = format!("cargo test -p phalanx-tests --test hosting_uneven {test}");
    Session::open(
        host,
        Session::guests(players - 1),
        conditions,
        seed,
        &repeat,
    )
}

/// These stand still for so long, and are awake for a moment.
fn stall(session: &mut Session, who: &[Index], us: u64) {
    for &index in who {
        session.cluster.members[index].paused = true;
    }
    session.run(us);
    for &index in who {
        session.cluster.members[index].paused = false;
    }
    session.run(1_000);
}

/// How often something of hosting was told: suspicions, elections, and times that a host froze.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Told {
    suspicions: usize,
    elections: usize,
    freezes: usize,
}

fn told(session: &Session) -> Told {
    let members = session.cluster.members.iter();
    let events = || members.clone().flat_map(|member| &member.events);
    Told {
        suspicions: events()
            .filter(|event| matches!(event, Event::HostSuspected { .. }))
            .count(),
        elections: events()
            .filter(|event| matches!(event, Event::Electing { .. } | Event::HostChanged { .. }))
            .count(),
        freezes: events().filter(|event| **event == Event::Frozen).count(),
    }
}

#[test]
fn a_host_that_wakes_in_fits_and_starts_is_kept() {
    for (seed, players, every_us) in [(1, 3, 100_000), (2, 4, 150_000), (3, 8, 150_000)] {
        let mut session = open(players, seed, "a_host_that_wakes");
        let wake_for = |session: &mut Session, us: u64| {
            let end = session.cluster.now().plus_micros(us);
            while session.cluster.now() < end {
                stall(session, &[0], every_us - 1_000);
            }
        };
        // It does so from the lobby on.
        wake_for(&mut session, 4_000_000);
        let young = told(&session);
        assert!(session.settled().number() > 60, "{}", session.seed);
        wake_for(&mut session, 20_000_000);
        let usual = told(&session);
        let died = session.crash_first_host(3_000_000);
        session.assert_recovers(3_000_000);
        println!(
            "{players} players, awake each {} ms: at first {young:?}, then {usual:?}; another host {} \
             ms after its death",
            every_us / 1000,
            died / 1000
        );
        assert_eq!(usual, young, "{}", session.seed);
        assert_eq!(young.elections, 0, "{}", session.seed);
        // Two and a half suspicion times.
        assert!(died <= 1_000_000, "{}: {died} us", session.seed);
    }
}

#[test]
fn a_host_that_stalls_now_and_then_is_kept() {
    for seed in 1..=4 {
        let players = [3, 4, 5, 8][usize::try_from(seed - 1).expect("small")];
        let mut session = open(players, seed, "a_host_that_stalls");
        let mut prng = Prng::new(seed);
        session.run(4_000_000);
        assert_eq!(told(&session), Told::default(), "{}", session.seed);
        // Worse and worse.
        let mut stall_us = 100_000;
        while stall_us < 400_000 {
            stall(&mut session, &[0], stall_us);
            session.run(200_000 + prng.below(400_000));
            stall_us += stall_us / 16;
        }
        let before = told(&session);
        for _ in 0..20 {
            stall(&mut session, &[0], stall_us);
            session.run(200_000 + prng.below(400_000));
        }
        let after = told(&session);
        println!("{players} players: while it becomes worse {before:?}, then {after:?}");
        assert_eq!(after, before, "{}", session.seed);
        assert_eq!(before.elections, 0, "{}", session.seed);
        assert!(before.freezes <= 2, "{}: {before:?}", session.seed);
        // It recovers, and so does the time in which it is missed.
        session.run(25_000_000);
        let died = session.crash_first_host(3_000_000);
        session.assert_recovers(3_000_000);
        println!(
            "calm again: another host {} ms after its death",
            died / 1000
        );
        assert!(died <= 300_000, "{}: {died} us", session.seed);
    }
}

#[test]
fn members_that_stall_do_not_stop_their_host() {
    for seed in 1..=2 {
        let mut session = open(3, seed, "members_that_stall");
        let mut prng = Prng::new(seed);
        session.run(4_000_000);
        let mut stall_us = 60_000;
        while stall_us < 300_000 {
            stall(&mut session, &[1, 2], stall_us);
            session.run(200_000 + prng.below(400_000));
            stall_us += stall_us / 16;
        }
        let before = told(&session);
        for _ in 0..20 {
            stall(&mut session, &[1, 2], stall_us);
            session.run(200_000 + prng.below(400_000));
        }
        let after = told(&session);
        println!("while they become worse {before:?}, then {after:?}");
        assert_eq!(after, before, "{}", session.seed);
        assert_eq!(before.elections, 0, "{}", session.seed);
        assert!(before.freezes <= 2, "{}: {before:?}", session.seed);
    }
}
