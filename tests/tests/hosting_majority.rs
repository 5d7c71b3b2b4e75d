//! Too few are left to elect a host: whoever is left is told so soon, in numbers, and gives up when its
//! policy says so, not before.

use phalanx::netcode::link::conditioner::Conditions;
use phalanx::netcode::migration::{HostPolicy, Quorum};
use phalanx::netcode::node::{DisconnectReason, Event};
use phalanx::netcode::session::config::Gate;
use phalanx_tests::cluster::{Bot, Index};
use phalanx_tests::succession::Succession;

type Session = Succession<Bot>;

const PLAYERS: u8 = 5;

fn open(seed: u64, test: &str, give_up_after_us: Option<u64>) -> Session {
    let hosting = HostPolicy {
        give_up_after_us,
        ..HostPolicy::default()
    };
    let mut host = Session::elected(PLAYERS, Gate::Paced);
    host.hosting = hosting.clone();
    let mut guests = Session::guests(PLAYERS - 1);
    for guest in &mut guests {
        guest.hosting = hosting.clone();
    }
    let repeat = format!("cargo test -p phalanx-tests --test hosting_majority {test}");
    let conditions = Conditions::from_rtt(50_000, 0);
    Session::new(host, guests, conditions, seed, 240, &repeat)
}

/// What `index` was told last of who is there.
fn told(session: &Session, index: Index) -> Option<Quorum> {
    let mut events = session.cluster.members[index].events.iter().rev();
    events.find_map(|event| {
        if let Event::NoMajority(quorum) = event {
            Some(*quorum)
        } else {
            None
        }
    })
}

/// Why `index` is out, if it is.
fn why_out(session: &Session, index: Index) -> Option<DisconnectReason> {
    let mut events = session.cluster.members[index].events.iter();
    events.find_map(|event| {
        if let Event::Disconnected { reason } = event {
            Some(*reason)
        } else {
            None
        }
    })
}

const fn of(heard: u16) -> Quorum {
    Quorum {
        voters: PLAYERS as u16,
        heard,
        needed: 3,
    }
}

#[test]
fn whoever_is_left_knows_how_many_are_missing_and_gives_up_in_time() {
    let mut session = open(1, "whoever_is_left", HostPolicy::default().give_up_after_us);
    for index in [0, 1, 2] {
        session.cluster.crash(index);
    }
    session.cluster.run_us(1_000_000);
    assert_eq!([3, 4].map(|index| told(&session, index)), [None; 2]);
    session.cluster.run_us(1_000_000);
    assert_eq!([3, 4].map(|index| told(&session, index)), [Some(of(2)); 2]);
    assert_eq!(session.cluster.node(3).quorum(), Some(of(2)));
    // One more dies: the last one is told of that, too.
    session.cluster.crash(4);
    session.cluster.run_us(3_000_000);
    assert_eq!(told(&session, 3), Some(of(1)));
    session.cluster.run_us(24_500_000);
    assert_eq!(why_out(&session, 3), None);
    session.cluster.run_us(2_500_000);
    let reason = why_out(&session, 3).expect("it has given up");
    assert_eq!(reason, DisconnectReason::NoMajority(of(1)));
    assert_eq!(
        reason.to_string(),
        "of 5 members that elect a host 1 were heard, and it takes 3"
    );
}

#[test]
fn a_host_that_is_left_alone_is_told_as_well() {
    let mut session = open(2, "a_host_that_is_left_alone", Some(4_000_000));
    for index in [1, 2, 3] {
        session.cluster.crash(index);
    }
    session.cluster.run_us(2_500_000);
    assert!(session.cluster.node(0).is_frozen());
    assert_eq!(told(&session, 0), Some(of(2)));
    assert_eq!(why_out(&session, 0), None);
    session.cluster.run_us(3_500_000);
    let reason = DisconnectReason::NoMajority(of(2));
    assert_eq!(why_out(&session, 0), Some(reason));
}

#[test]
fn nobody_gives_up_where_the_policy_says_so() {
    let mut session = open(3, "nobody_gives_up", None);
    for index in [0, 1, 2] {
        session.cluster.crash(index);
    }
    session.cluster.run_us(20_000_000);
    assert_eq!(told(&session, 3), Some(of(2)));
    assert_eq!(why_out(&session, 3), None);
}

#[test]
fn a_minority_that_is_heard_again_goes_on() {
    let mut session = open(4, "a_minority_that_is_heard_again", Some(15_000_000));
    let pairs = [0, 1, 2].into_iter().flat_map(|one| [(one, 3), (one, 4)]);
    session
        .cluster
        .cut
        .extend(pairs.flat_map(|(one, other)| [(one, other), (other, one)]));
    session.cluster.run_us(2_200_000);
    assert_eq!([3, 4].map(|index| told(&session, index)), [Some(of(2)); 2]);
    session.cluster.cut.clear();
    session.run(500_000);
    session.assert_recovers(3_000_000);
    let told = (0..PLAYERS).map(|index| told(&session, Index::from(index)));
    let told: Vec<Option<Quorum>> = told.collect();
    assert_eq!(told, [None, None, None, Some(of(2)), Some(of(2))]);
    assert!(!session.cluster.node(0).is_frozen());
}
