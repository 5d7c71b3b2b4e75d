//! Hosting that moves in particular settings: before the start, with an arbiter, for ever cut in two,
//! with recorders, and without rules that it needs.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use phalanx::netcode::link::conditioner::Conditions;
use phalanx::netcode::migration::{Ablation, HostPolicy};
use phalanx::netcode::node::Event;
use phalanx::netcode::session::config::{Gate, HostConfig, InputDelay, JoinConfig, Role};
use phalanx::netcode::tick::Tick;
use phalanx_tests::cluster::{Bot, Index};
use phalanx_tests::pianist::Pianist;
use phalanx_tests::succession::{Remembers, Succession};
use phalanx_tests::toy;

type Session = Succession<Bot>;

const PACED: Gate = Gate::Paced;
const WAIT: Gate = Gate::Wait {
    limit_us: 4_000_000,
};

fn repeat(test: &str) -> String {
    format!("cargo test -p phalanx-tests --test hosting_cases {test}")
}

fn open(players: u8, gate: Gate, seed: u64, test: &str) -> Session {
    let host = Session::elected(players, gate);
    let guests = Session::guests(players - 1);
    let conditions = Conditions::from_rtt(50_000, 0);
    Session::new(host, guests, conditions, seed, 200, &repeat(test))
}

fn has_told<P: Remembers>(
    session: &Succession<P>,
    index: Index,
    what: impl Fn(&Event) -> bool,
) -> bool {
    session.cluster.members[index].events.iter().any(what)
}

#[test]
fn with_an_arbiter_the_last_of_two_goes_on_in_the_same_session() {
    for seed in 1..5 {
        let gate = if seed % 2 == 0 { PACED } else { WAIT };
        let host = HostConfig {
            spectators: 1,
            silence_us: 1_500_000,
            ..Session::elected(2, gate)
        };
        let mut joins = Session::guests(1);
        joins.push(JoinConfig {
            role: Role::Spectator,
            hosting: HostPolicy::arbiter(),
            ..JoinConfig::new(toy::game(), "arbiter")
        });
        let conditions = Conditions::from_rtt(50_000, 10_000);
        let test = repeat("with_an_arbiter");
        let mut session = Session::new(host, joins, conditions, seed, 200, &test);
        let common = session.cluster.node(0).session().session;
        session.cluster.crash(0);
        session.assert_recovers(4_000_000);
        assert_eq!(session.host(), Some(1), "the arbiter does not host");
        assert_eq!(session.cluster.node(1).session().session, common);
        // The arbiter alone is no session.
        session.cluster.crash(1);
        session.run(5_000_000);
        assert!(!session.cluster.node(2).is_host());
    }
}

/// A lobby elects as well: whoever is there waits on for the others, with another host.
#[test]
fn a_session_whose_host_dies_before_the_start_begins_with_another() {
    for (seed, gate) in [(1, PACED), (2, WAIT)] {
        let host = HostConfig {
            resume_us: 2_000_000,
            ..Session::elected(4, gate)
        };
        let conditions = Conditions::from_rtt(50_000, 0);
        let test = repeat("a_session_whose_host_dies_before");
        let mut session = Session::open(host, Session::guests(2), conditions, seed, &test);
        session.run(1_500_000);
        assert!(!has_told(&session, 1, |event| *event == Event::Started));
        session.cluster.crash(0);
        session.run_until(3_000_000, |it| it.host().is_some());
        assert_eq!(session.settled(), Tick::ZERO);
        // Two more: one takes the place of the host that is gone.
        for name in ["third", "fourth"] {
            let index = session.join(JoinConfig::new(toy::game(), name), 0, 0);
            session.restart(index);
        }
        session.run_until(10_000_000, |it| {
            !it.is_in_motion() && it.settled().number() > 60
        });
        session.assert_recovers(3_000_000);
    }
}

/// Two against two: nobody can be elected, and nobody grows while that lasts.
#[test]
fn an_endless_partition_costs_no_memory() {
    for (seed, gate) in [(1, PACED), (2, WAIT)] {
        let for_ever_us = 3_600_000_000;
        let hosting = HostPolicy {
            give_up_after_us: None,
            ..HostPolicy::default()
        };
        let host = HostConfig {
            resume_us: for_ever_us,
            hosting: hosting.clone(),
            ..Session::elected(4, gate)
        };
        let mut guests = Session::guests(3);
        for guest in &mut guests {
            guest.resume_us = for_ever_us;
            guest.hosting = hosting.clone();
        }
        let conditions = Conditions::from_rtt(50_000, 0);
        let test = repeat("an_endless_partition");
        let mut session = Session::new(host, guests, conditions, seed, 200, &test);
        for (a, b) in [(0, 2), (0, 3), (1, 2), (1, 3)] {
            session.cluster.cut.extend([(a, b), (b, a)]);
        }
        // What a node prints itself as is a rough measure of what it holds.
        let sizes = |session: &Session| -> Vec<usize> {
            let alive = session.alive().into_iter();
            alive
                .map(|index| format!("{:?}", session.cluster.node(index)).len())
                .collect()
        };
        session.run(15_000_000);
        let early = sizes(&session);
        session.run(60_000_000);
        let late = sizes(&session);
        for (early, late) in early.into_iter().zip(late) {
            assert!(late < early + early / 8 + 4096, "{early} B, then {late} B");
        }
        assert!(session.settled() < Tick::new(400), "a minority goes on");
        session.cluster.cut.clear();
        session.assert_recovers(10_000_000);
    }
}

/// A host that was cut off records nothing that another one orders anew; its recording goes on.
#[test]
fn recordings_hold_what_stands() {
    for seed in 1..7 {
        let gate = if seed % 3 == 0 { WAIT } else { PACED };
        let host = Session::elected(3, gate);
        let conditions = Conditions::from_rtt(50_000, 0);
        let test = repeat("recordings_hold");
        let mut session = Session::open(host, Session::guests(2), conditions, seed, &test);
        for index in 0..3 {
            let name = format!("hosting_cases_{seed}_{index}.phxr");
            session.record(index, PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name));
        }
        session.run_until(20_000_000, |it| {
            !it.is_in_motion() && it.settled().number() > 200
        });
        session.cluster.isolate(0);
        session.run(500_000 + seed * 77_000);
        session.cluster.mend(0);
        session.assert_recovers(5_000_000);
        assert!(session.losses().1 > 0 || gate != PACED, "nothing was void");
        assert_eq!(session.assert_recordings(), 3, "each has recorded a term");
    }
}

/// A run with a handover by the members, and the same without: the same states after all ticks.
#[test]
fn a_handover_leaves_no_trace_in_the_state() {
    for (seed, gate) in [(1, PACED), (2, WAIT), (3, PACED)] {
        let mut ends = Vec::new();
        for moves in [false, true] {
            let delay = InputDelay::Fixed(14);
            let host = HostConfig {
                input_delay: delay,
                last_tick: Some(Tick::new(600)),
                ..Succession::<Pianist>::elected(3, gate)
            };
            let mut guests = Succession::<Pianist>::guests(2);
            for guest in &mut guests {
                guest.input_delay = delay;
            }
            let conditions = Conditions::from_rtt(50_000, 0);
            let test = repeat("a_handover_leaves_no_trace");
            let mut session =
                Succession::<Pianist>::new(host, guests, conditions, seed, 200, &test);
            if moves {
                session.move_host();
            }
            session.run_until(20_000_000, |it| it.settled() == Tick::new(600));
            assert_eq!(session.losses(), (0, 0));
            ends.push(session.history());
        }
        assert_eq!(ends[0].len(), 600);
        assert!(ends[0] == ends[1], "seed {seed}: the states differ");
    }
}

/// The target dies while the handover is prepared: the host stays, in its term.
#[test]
fn a_handover_that_is_off_leaves_the_host() {
    for seed in 1..6 {
        let mut session = open(4, PACED, seed, "a_handover_that_is_off");
        let term = session.cluster.node(0).session().term;
        let target = session.request_handover().expect("somebody can host");
        let target = session.index_of(target).expect("it is there");
        session.run(5_000 * seed);
        session.cluster.crash(target);
        session.run_until(5_000_000, |it| {
            has_told(it, 0, |event| {
                matches!(event, Event::HandoverAborted { .. })
            })
        });
        session.assert_recovers(3_000_000);
        assert_eq!(session.host(), Some(0));
        assert_eq!(session.cluster.node(0).session().term, term);
    }
}

/// A host that all wait for lets a sleeper's link go, and says so to nobody: awake, the member hears
/// the host over the mesh, asks for another link, and has its slot again; the host stays.
#[test]
fn who_wakes_to_a_link_that_is_no_more_has_another_soon() {
    for seed in 1..5 {
        let host = HostConfig {
            silence_us: 8_000_000,
            resume_us: 8_000_000,
            ..Session::elected(
                4,
                Gate::Wait {
                    limit_us: 1_500_000,
                },
            )
        };
        let guests = Session::guests(3).into_iter().map(|guest| JoinConfig {
            silence_us: 8_000_000,
            resume_us: 8_000_000,
            ..guest
        });
        let conditions = Conditions::from_rtt(50_000, 0);
        let test = repeat("who_wakes_to_a_link");
        let mut session = Session::new(host, guests.collect(), conditions, seed, 200, &test);
        session.cluster.waiting_max = 0;
        let sleeper = 2;
        let welcomes = |session: &Session| {
            let events = session.cluster.members[sleeper].events.iter();
            let welcomes = events.filter(|event| matches!(event, Event::Welcomed { .. }));
            welcomes.count()
        };
        session.cluster.members[sleeper].paused = true;
        session.run(2_000_000 + 100_000 * seed);
        session.cluster.members[sleeper].paused = false;
        assert_eq!(welcomes(&session), 1);
        // A second without a tick, a round trip, and what a state takes.
        session.assert_recovers(2_000_000);
        assert_eq!(welcomes(&session), 2, "{}", session.standing());
        assert_eq!((session.host(), session.terms()), (Some(0), 0));
    }
}

/// What goes wrong without a rule is seen by the checkers.
#[test]
fn rules_that_are_left_out_are_missed() {
    let without = |ablation: Ablation, story: fn(&mut Session)| {
        let result = catch_unwind(AssertUnwindSafe(|| {
            let policy = HostPolicy {
                ablation,
                ..HostPolicy::default()
            };
            let host = HostConfig {
                hosting: policy.clone(),
                ..Session::elected(3, PACED)
            };
            let mut guests = Session::guests(2);
            for guest in &mut guests {
                guest.hosting = policy.clone();
            }
            let conditions = Conditions::from_rtt(50_000, 0);
            let test = repeat("rules_that_are_left_out");
            let mut session = Session::new(host, guests, conditions, 1, 200, &test);
            story(&mut session);
            session.assert_recovers(6_000_000);
        }));
        result.is_err()
    };
    let cut_off = |session: &mut Session| {
        session.cluster.isolate(0);
        session.run(1_000_000);
        session.cluster.mend(0);
    };
    let hand_over = |session: &mut Session| {
        let target = session.request_handover();
        assert!(target.is_some(), "somebody can host");
        session.run(1_000_000);
    };
    assert!(!without(Ablation::default(), cut_off));
    assert!(!without(Ablation::default(), hand_over));
    let no_lease = Ablation {
        no_lease: true,
        ..Ablation::default()
    };
    assert!(without(no_lease, cut_off), "a host without a lease");
    let act_after_commit = Ablation {
        act_after_commit: true,
        ..Ablation::default()
    };
    assert!(without(act_after_commit, hand_over), "a host that goes on");
    let safe_at_once = Ablation {
        safe_at_once: true,
        ..Ablation::default()
    };
    assert!(without(safe_at_once, cut_off), "what only the host holds");
}
