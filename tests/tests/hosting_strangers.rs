//! A host dies before a member has met the one that hosts next: neighbours that have met both
//! introduce the two, and the member follows as all others do.

use phalanx::netcode::id::MemberId;
use phalanx::netcode::link::conditioner::Conditions;
use phalanx::netcode::migration::HostPolicy;
use phalanx::netcode::node::Event;
use phalanx::netcode::session::config::{Gate, HostConfig, JoinConfig};
use phalanx::netcode::tick::Tick;
use phalanx_tests::cluster::{Bot, Index, Seeded};
use phalanx_tests::reign::Reign;
use phalanx_tests::succession::Succession;
use phalanx_tests::toy;
use phalanx_tests::watched::{Watched, Watcher};
use phalanx_tests::yard;

type Session = Succession<Bot>;

/// Players at the start; another one comes later.
const PLAYERS: u8 = 5;
const RTT_US: u64 = 50_000;
/// Until another host acts, and all but the stranger follow.
const ELECTED_US: u64 = 600_000;
/// Round trips until the stranger follows, too: asked, introduced, invited, opened, returned.
const INTRODUCED_US: u64 = 8 * RTT_US;

const WAIT: Gate = Gate::Wait {
    limit_us: 4_000_000,
};

/// The ways in which paths come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Paths {
    /// Whoever knows an address opens one.
    Plain,
    /// They need invitations.
    Sealed,
}

/// The standbys of the session, by the first host's word.
fn standbys<P: Seeded, W: Watcher<P>>(session: &Watched<P, W>) -> Vec<Index> {
    let terms = session.cluster.node(0).terms();
    let ids = terms.map(|terms| terms.roster().standbys.clone());
    let ids = ids.unwrap_or_default().into_iter();
    ids.filter_map(|id| session.index_of(id)).collect()
}

/// The last member comes, and cannot meet the standbys. Then the host dies; and now it could meet them,
/// but nobody introduces it any more who did before.
fn lose_host<P: Seeded, W: Watcher<P>>(
    session: &mut Watched<P, W>,
    paths: Paths,
    come: impl FnOnce(&mut Watched<P, W>),
) -> (Index, MemberId) {
    let standbys = standbys(session);
    assert_eq!(standbys.len(), 2);
    if paths == Paths::Sealed {
        for index in session.alive() {
            session.cluster.seal(index);
        }
    }
    let stranger = session.cluster.members.len();
    come(session);
    if paths == Paths::Sealed {
        session.cluster.seal(stranger);
    }
    for &standby in &standbys {
        session.cluster.set_may_meet(stranger, standby, false);
    }
    session.run_until(3_000_000, |it| {
        let mut told = it.cluster.members[stranger].events.iter();
        told.any(|event| matches!(event, Event::Activated { .. }))
    });
    let has_met = |it: &Watched<P, W>, index: Index| {
        let own = it.member(stranger);
        let mut links = it.cluster.node(index).mesh_links();
        links.any(|link| link.member == own && link.is_confirmed)
    };
    let mut others = (0..stranger).filter(|index| !standbys.contains(index));
    session.run_until(8_000_000, |it| {
        others.clone().all(|index| has_met(it, index))
    });
    assert_eq!(others.next(), Some(0));
    assert!(!standbys.iter().any(|&index| has_met(session, index)));
    for &standby in &standbys {
        session.cluster.set_may_meet(stranger, standby, true);
    }
    (stranger, session.member(stranger))
}

/// Crashes the host; the stranger follows as the same member. Returns after how many microseconds.
fn follows<P: Seeded, W: Watcher<P>>(
    session: &mut Watched<P, W>,
    stranger: (Index, MemberId),
    us: u64,
) -> u64 {
    let died_at = session.cluster.now();
    let elected_us = session.crash_first_host(ELECTED_US);
    let before = session.cluster.members[stranger.0].events.len();
    session.run_until(us - elected_us.min(us), |it| it.host().is_some());
    let took_us = session.cluster.now().micros_since(died_at);
    assert_eq!(
        session.member(stranger.0),
        stranger.1,
        "it did not join anew"
    );
    let told = &session.cluster.members[stranger.0].events[before..];
    let is_new_host = |event: &&Event| matches!(event, Event::HostChanged { .. });
    assert_eq!(told.iter().filter(is_new_host).count(), 1, "{told:?}");
    took_us
}

fn lockstep(gate: Gate, paths: Paths, loss: Conditions, seed: u64) -> (Session, (Index, MemberId)) {
    lockstep_by(HostPolicy::default(), gate, paths, loss, seed)
}

fn lockstep_by(
    hosting: HostPolicy,
    gate: Gate,
    paths: Paths,
    loss: Conditions,
    seed: u64,
) -> (Session, (Index, MemberId)) {
    let host = HostConfig {
        slots: PLAYERS + 1,
        hosting: hosting.clone(),
        ..Session::elected(PLAYERS, gate)
    };
    let repeat = "cargo test -p phalanx-tests --test hosting_strangers";
    let mut guests = Session::guests(PLAYERS - 1);
    for guest in &mut guests {
        guest.hosting = hosting.clone();
    }
    let mut session = Session::new(host, guests, loss, seed, 120, repeat);
    let stranger = lose_host(&mut session, paths, |it| {
        let config = JoinConfig {
            hosting,
            ..JoinConfig::new(toy::game(), "stranger")
        };
        let index = it.join(config, 0, 0);
        it.restart(index);
    });
    (session, stranger)
}

#[test]
fn a_stranger_follows_in_lockstep() {
    for (seed, gate, paths) in [
        (1, Gate::Paced, Paths::Plain),
        (2, WAIT, Paths::Plain),
        (3, Gate::Paced, Paths::Sealed),
        (4, WAIT, Paths::Sealed),
    ] {
        let conditions = Conditions::from_rtt(RTT_US, 0);
        let (mut session, stranger) = lockstep(gate, paths, conditions, seed);
        let took_us = follows(&mut session, stranger, ELECTED_US + INTRODUCED_US);
        eprintln!("{gate:?}, {paths:?}: all follow after {took_us} us");
        session.assert_recovers(2_000_000);
    }
}

#[test]
fn a_stranger_follows_in_state_sync() {
    for (seed, paths) in [(1, Paths::Plain), (2, Paths::Sealed), (3, Paths::Sealed)] {
        let host = HostConfig {
            slots: PLAYERS + 1,
            ..Reign::host_config(PLAYERS)
        };
        let conditions = Conditions::from_rtt(RTT_US, 0);
        let repeat = "cargo test -p phalanx-tests --test hosting_strangers";
        let mut session = Reign::with_host(host, yard::Plan::default(), conditions, seed, repeat);
        assert_eq!(session.free_slots(), 1);
        let stranger = lose_host(&mut session, paths, Reign::join);
        let took_us = follows(&mut session, stranger, ELECTED_US + INTRODUCED_US);
        eprintln!("state-sync, {paths:?}: all follow after {took_us} us");
        session.assert_recovers(4_000_000);
    }
}

/// Words of introductions are lost as all others, and said again.
#[test]
fn a_stranger_follows_over_bad_paths() {
    let mut slowest_us = 0;
    for seed in 1..13 {
        let paths = if seed % 2 == 0 {
            Paths::Sealed
        } else {
            Paths::Plain
        };
        let conditions = Conditions {
            loss_per_million: 100_000,
            ..Conditions::from_rtt(RTT_US, 10_000)
        };
        let (mut session, stranger) = lockstep(Gate::Paced, paths, conditions, seed);
        let took_us = follows(&mut session, stranger, 6_000_000);
        slowest_us = slowest_us.max(took_us);
        session.assert_recovers(4_000_000);
    }
    eprintln!("10 % loss: all follow after {slowest_us} us at most");
    assert!(slowest_us <= 4_000_000, "{slowest_us}");
}

/// A host that hands over to a member that not all have met introduces them itself, as a neighbour.
#[test]
fn a_stranger_follows_a_handover() {
    for (seed, paths) in [(1, Paths::Plain), (2, Paths::Sealed)] {
        let conditions = Conditions::from_rtt(RTT_US, 0);
        let (mut session, stranger) = lockstep(Gate::Paced, paths, conditions, seed);
        let now = session.cluster.now();
        let target = session.request_handover().expect("somebody can host");
        session.run_until(1_000_000, |it| {
            it.host().is_some() && it.host() == it.index_of(target)
        });
        let took_us = session.cluster.now().micros_since(now);
        eprintln!("handover, {paths:?}: all follow after {took_us} us");
        assert_eq!(session.member(stranger.0), stranger.1);
        session.assert_recovers(2_000_000);
    }
}

/// Without introductions by members it is as it was: over links that need invitations nobody brings
/// them, and elsewhere the new host goes on trying as seldom as before.
#[test]
fn without_introductions_a_stranger_stays_one() {
    for (seed, paths) in [(3, Paths::Sealed), (1, Paths::Plain)] {
        let mut hosting = HostPolicy::default();
        hosting.ablation.no_introductions = true;
        let conditions = Conditions::from_rtt(RTT_US, 0);
        let (mut session, stranger) = lockstep_by(hosting, Gate::Paced, paths, conditions, seed);
        session.crash_first_host(ELECTED_US);
        session.run(INTRODUCED_US);
        let followed = session.cluster.node(stranger.0).host_member();
        assert_eq!(followed, MemberId(0), "{paths:?}");
        if paths == Paths::Sealed {
            session.run(5_000_000);
            assert_eq!(session.host(), None);
        }
    }
}

/// Where all have met, nobody is introduced.
#[test]
fn acquaintances_say_nothing() {
    let host = Session::elected(PLAYERS, Gate::Paced);
    let guests = Session::guests(PLAYERS - 1);
    let conditions = Conditions::from_rtt(RTT_US, 0);
    let repeat = "cargo test -p phalanx-tests --test hosting_strangers";
    let mut session = Session::new(host, guests, conditions, 1, 120, repeat);
    session.cluster.tapped = usize::MAX;
    session.crash_first_host(ELECTED_US);
    session.assert_recovers(2_000_000);
    assert!(session.settled() > Tick::new(200));
    let words = session.cluster.tap.iter().filter(|(_, _, bytes)| {
        // Kind, mac, an id below 128, counter, flags and an echo of 5 to 9 B, the first message.
        let is_mesh = bytes.first() == Some(&0xd0) && bytes.len() > 15;
        is_mesh && is_introduction(bytes)
    });
    assert_eq!(words.count(), 0);
}

/// Whether a datagram of the mesh from a member with a short id has a word of an introduction.
fn is_introduction(bytes: &[u8]) -> bool {
    use phalanx::netcode::session::introduction::Introduction;
    let mut at = 15;
    if bytes[14] == 1 {
        at += 4;
        while bytes[at] & 0x80 != 0 {
            at += 1;
        }
        at += 1;
    }
    while at < bytes.len() {
        let (mut length, mut shift) = (0, 0);
        loop {
            length |= usize::from(bytes[at] & 0x7f) << shift;
            shift += 7;
            at += 1;
            if bytes[at - 1] & 0x80 == 0 {
                break;
            }
        }
        if Introduction::is_one(&bytes[at..at + length]) {
            return true;
        }
        at += length;
    }
    false
}
