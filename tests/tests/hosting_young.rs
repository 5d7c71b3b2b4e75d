//! Sessions of eight whose host dies right after the start, some while pairs of members have not met
//! yet, or never will: either the host has said that nobody could succeed it, or the others elect one
//! as fast as later in the match.

use phalanx::netcode::link::conditioner::Conditions;
use phalanx::netcode::node::Event;
use phalanx::netcode::prng::Prng;
use phalanx::netcode::session::config::Gate;
use phalanx_tests::cluster::{Bot, Index};
use phalanx_tests::succession::Succession;

type Session = Succession<Bot>;

const PLAYERS: u8 = 8;
const RTT_US: u64 = 50_000;
/// Two suspicion times and six round trips.
const BOUND_US: u64 = 600_000;

/// Who has not met yet, and from when on they hear each other.
type Strangers = Vec<((Index, Index), u64)>;

/// Opens a session, and runs it until `us` after its host has run the first tick.
fn until_after_start(seed: u64, us: u64, strangers: &Strangers) -> Session {
    let host = Session::elected(PLAYERS, Gate::Paced);
    let conditions = Conditions::from_rtt(RTT_US, 0);
    let repeat = "cargo test -p phalanx-tests --test hosting_young";
    let guests = Session::guests(PLAYERS - 1);
    let mut session = Session::open(host, guests, conditions, seed, repeat);
    for &((one, other), _) in strangers {
        session.cluster.cut.extend([(one, other), (other, one)]);
    }
    let has_started = |session: &Session| {
        let mut told = session.cluster.members[0].events.iter();
        told.any(|event| *event == Event::Started)
    };
    let (mut started_us, mut now_us) = (None, 0);
    while started_us.is_none_or(|started_us| now_us < started_us + us) {
        session.run(10_000);
        now_us += 10_000;
        assert!(now_us < 20_000_000, "it does not start");
        if started_us.is_none() && has_started(&session) {
            started_us = Some(now_us);
        }
        for &((one, other), from_us) in strangers {
            if from_us <= now_us {
                let is_pair = |cut: &(Index, Index)| *cut == (one, other) || *cut == (other, one);
                session.cluster.cut.retain(|cut| !is_pair(cut));
            }
        }
    }
    session
}

/// Crashes the host; time until another one acts, which must have been announced.
fn elects_in(session: &mut Session) -> u64 {
    assert!(session.cluster.node(0).is_replaceable());
    // Whoever has not met it cannot follow it.
    let elected_us = session.crash_first_host(BOUND_US);
    let told = session.alive().into_iter().any(|index| {
        let mut events = session.cluster.members[index].events.iter();
        events.any(|event| matches!(event, Event::DataLossPossible { .. }))
    });
    assert!(!told, "an election without those who held everything");
    elected_us
}

#[test]
fn a_host_that_dies_right_after_the_start_is_succeeded() {
    for (seed, us) in [(1, 300_000), (2, 300_000), (3, 1_000_000), (4, 2_000_000)] {
        let mut session = until_after_start(seed, us, &Vec::new());
        let gap_us = elects_in(&mut session);
        // As fast as in the middle of a match: the pace of the lobby counts no more.
        assert!(gap_us <= 400_000, "seed {seed}: {gap_us} us");
        session.assert_recovers(2_000_000);
        eprintln!("{us} us after the start: another host after {gap_us} us");
    }
}

#[test]
fn members_that_have_not_met_do_not_stand_in_the_way() {
    let mut replaceable = 0;
    for (seed, us) in (1..13).zip([300_000, 1_000_000, 2_000_000].into_iter().cycle()) {
        let mut prng = Prng::new(seed);
        let players = Index::from(PLAYERS);
        let pairs = (1..players).flat_map(|one| (one + 1..players).map(move |two| (one, two)));
        let strangers: Strangers = pairs
            .filter_map(|pair| match prng.below(8) {
                0 => Some((pair, u64::MAX)),
                1..=4 => Some((pair, prng.below(2_500_000))),
                _ => None,
            })
            .collect();
        let mut session = until_after_start(seed, us, &strangers);
        if session.cluster.node(0).is_replaceable() {
            replaceable += 1;
            elects_in(&mut session);
        } else {
            // Nothing was promised; what the harness watches holds all the same.
            session.cluster.crash(0);
            session.run(3_000_000);
        }
    }
    eprintln!("{replaceable} of 12 could go on");
    assert!(replaceable >= 4, "{replaceable} of 12 could go on");
}
