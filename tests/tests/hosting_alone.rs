//! Who is left alone: where nobody else may host, members are told so soon and give up in time; where
//! one of two players went on without the other, both are told as soon as they hear each other.

use phalanx::netcode::id::SessionId;
use phalanx::netcode::link::CloseReason;
use phalanx::netcode::link::conditioner::Conditions;
use phalanx::netcode::migration::HostPolicy;
use phalanx::netcode::node::{DisconnectReason, Event};
use phalanx::netcode::session::config::{Gate, HostConfig, Start};
use phalanx::netcode::tick::Tick;
use phalanx_tests::cluster::{Bot, Cluster, Index};
use phalanx_tests::succession::{Succession, assert_one_acts};

type Session = Succession<Bot>;

/// A session of a host and so many others, of which some ticks have run.
fn open(host: HostConfig, guests: u8, seed: u64) -> Cluster {
    let mut cluster = Cluster::new(host, Conditions::from_rtt(30_000, 0), seed);
    cluster.watch = Some(assert_one_acts);
    for guest in Session::guests(guests) {
        cluster.join(guest);
    }
    let all: Vec<Index> = (0..=usize::from(guests)).collect();
    let goes = cluster.run_while_not(20_000_000, |it| it.settled(&all) > Tick::new(200));
    assert!(goes, "it does not begin");
    cluster
}

fn with_policy(players: u8, hosting: HostPolicy) -> HostConfig {
    HostConfig {
        hosting,
        ..Session::elected(players, Gate::Paced)
    }
}

/// A host that does not play, and whose players may not host.
fn dedicated(players: u8) -> HostConfig {
    let policy = HostPolicy {
        players_host: false,
        ..HostPolicy::default()
    };
    HostConfig {
        plays: false,
        start: Start::Players(players),
        ..with_policy(players, policy)
    }
}

/// All that `what` finds in what `index` was told.
fn told<T>(cluster: &Cluster, index: Index, what: impl Fn(&Event) -> Option<T>) -> Vec<T> {
    let events = cluster.members[index].events.iter();
    events.filter_map(what).collect()
}

fn why_out(cluster: &Cluster, index: Index) -> Vec<DisconnectReason> {
    told(cluster, index, |event| {
        if let Event::Disconnected { reason } = event {
            Some(*reason)
        } else {
            None
        }
    })
}

/// How often `index` was told that nobody may host, or too few elect.
fn lacks(cluster: &Cluster, index: Index) -> (usize, usize) {
    let heirs = told(cluster, index, |event| {
        matches!(event, Event::NobodyMayHost { .. }).then_some(())
    });
    let majorities = told(cluster, index, |event| {
        matches!(event, Event::NoMajority(_)).then_some(())
    });
    (heirs.len(), majorities.len())
}

#[test]
fn players_who_may_not_host_are_told_so_and_give_up_in_time() {
    let mut cluster = open(dedicated(2), 2, 1);
    cluster.crash(0);
    cluster.run_us(2_000_000);
    for player in [1, 2] {
        assert_eq!(lacks(&cluster, player), (1, 0), "once, and soon");
    }
    cluster.run_us(27_000_000);
    assert_eq!([1, 2].map(|player| why_out(&cluster, player)), [[], []]);
    cluster.run_us(2_500_000);
    for player in [1, 2] {
        let reasons = why_out(&cluster, player);
        assert_eq!(reasons, [DisconnectReason::NobodyMayHost]);
        assert_eq!(
            reasons[0].to_string(),
            "the host was not heard for too long, and nobody else here may host"
        );
        assert_eq!(lacks(&cluster, player), (1, 0));
    }
}

#[test]
fn a_host_that_only_slept_is_waited_for_where_nobody_else_may_host() {
    let mut cluster = open(dedicated(2), 2, 2);
    cluster.members[0].paused = true;
    cluster.run_us(4_000_000);
    assert_eq!([1, 2].map(|player| lacks(&cluster, player)), [(1, 0); 2]);
    cluster.members[0].paused = false;
    let before = cluster.settled(&[0, 1, 2]);
    let goal = before.plus(120);
    let goes = cluster.run_while_not(10_000_000, |it| it.settled(&[0, 1, 2]) > goal);
    assert!(goes, "it does not go on from {before}");
    assert_eq!([1, 2].map(|player| why_out(&cluster, player)), [[], []]);
    // It dies after all: told again, and the patience begins anew.
    cluster.crash(0);
    cluster.run_us(28_000_000);
    assert_eq!([1, 2].map(|player| lacks(&cluster, player)), [(2, 0); 2]);
    assert_eq!([1, 2].map(|player| why_out(&cluster, player)), [[], []]);
    cluster.run_us(3_500_000);
    assert_eq!(why_out(&cluster, 1), [DisconnectReason::NobodyMayHost]);
}

/// Who `index` knows to play on in another session: member, session, and the last tick in common.
fn apart(cluster: &Cluster, index: Index) -> Vec<(u64, SessionId, Tick)> {
    told(cluster, index, |event| {
        if let Event::Apart {
            member,
            session,
            last,
        } = event
        {
            Some((member.0, *session, *last))
        } else {
            None
        }
    })
}

/// Both of two players know that the other one plays on, after which tick, and in which session.
fn assert_both_know(cluster: &Cluster) {
    let of = |index: Index| cluster.node(index).session();
    assert_ne!(of(0).session, of(1).session);
    let [first, second] = [0, 1].map(|index| apart(cluster, index));
    assert_eq!(first.len(), 1, "{first:?}");
    let last = first[0].2;
    assert_eq!(first, [(of(1).member.0, of(1).session, last)]);
    assert_eq!(second, [(of(0).member.0, of(0).session, last)]);
    for index in [0, 1] {
        let node = cluster.node(index);
        assert!(node.is_host() && !node.is_frozen(), "{index} goes on");
        assert!(node.settled_tick() > last.plus(60), "{index} goes on");
        assert!(why_out(cluster, index).is_empty());
    }
}

#[test]
fn both_of_two_players_that_go_on_apart_are_told() {
    for (seed, sleep_us) in [(3, 4_000_000), (4, 7_000_000), (5, 20_000_000)] {
        let mut cluster = open(Session::elected(2, Gate::Paced), 1, seed);
        cluster.members[0].paused = true;
        cluster.run_us(sleep_us);
        let forks = told(&cluster, 1, |event| {
            matches!(event, Event::Forked { .. }).then_some(())
        });
        assert_eq!(forks.len(), 1);
        assert_eq!(apart(&cluster, 1), [], "nobody was heard");
        cluster.members[0].paused = false;
        cluster.run_us(8_000_000);
        assert_both_know(&cluster);
    }
}

/// Nothing waits for whoever slept, and the link has ended meanwhile, and finds back.
#[test]
fn they_are_told_over_a_path_that_comes_back() {
    let mut cluster = open(Session::elected(2, Gate::Paced), 1, 6);
    cluster.closes = true;
    cluster.waiting_max = 0;
    cluster.members[0].paused = true;
    cluster.run_us(10_000_000);
    cluster.set_reopens(0, true);
    cluster.set_reopens(1, true);
    cluster.shut(0, 1, CloseReason::TimedOut);
    cluster.run_us(4_000_000);
    cluster.members[0].paused = false;
    cluster.run_us(8_000_000);
    assert_both_know(&cluster);
}

/// Whoever went on without one that died is told of nobody, and stops to look for it.
#[test]
fn one_of_two_players_that_died_is_not_heard() {
    let mut cluster = open(Session::elected(2, Gate::Paced), 1, 7);
    cluster.crash(0);
    cluster.run_us(5_000_000);
    assert!(cluster.node(1).is_host());
    let before = cluster.node(1).settled_tick();
    cluster.run_us(40_000_000);
    assert!(cluster.node(1).settled_tick() > before.plus(2000));
    assert_eq!(apart(&cluster, 1), []);
    let sent = cluster.node(1).statistics().datagrams_sent;
    cluster.run_us(2_000_000);
    assert_eq!(cluster.node(1).statistics().datagrams_sent, sent);
}
