//! Members of a state-sync session whose process sleeps for longer than their links last, and whose
//! links find back: hosts, standbys and others, among three to five.
//!
//! Whoever slept for less than its place is kept is with the others again, in its own slot and without
//! having been told that it is out; what it shows goes on, is what the host has, and what it does acts.

use phalanx::netcode::link::CloseReason;
use phalanx::netcode::link::conditioner::Conditions;
use phalanx::netcode::node::Event;
use phalanx::netcode::session::config::{HostConfig, JoinConfig, MigrationConfig, Role, Start};
use phalanx::netcode::tick::Tick;
use phalanx_tests::cluster::{ClusterOf, Index};
use phalanx_tests::succession::assert_one_acts;
use phalanx_tests::yard::{self, Plan, Pusher};

type Cluster = ClusterOf<Pusher>;

/// Silence after which a link ends, in microseconds.
const LINK_US: u64 = 10_000_000;
const SILENCE_US: u64 = 5_000_000;
/// How long a member that is away keeps its place.
const RESUME_US: u64 = 15_000_000;
/// Datagrams that a link keeps for a sleeper.
const WAITING: usize = 300;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sleeper {
    Host,
    Standby,
    Other,
}

/// A session of so many members; of a pair of servers the host and who joins first have no slot.
fn open(members: u8, is_pair: bool, seed: u64) -> Cluster {
    let players = members - if is_pair { 2 } else { 0 };
    let host = HostConfig {
        plays: !is_pair,
        start: Start::Players(players),
        migration: MigrationConfig::ELECTED,
        silence_us: SILENCE_US,
        resume_us: RESUME_US,
        spectators: u16::from(is_pair),
        ..HostConfig::new(yard::game(), players)
    };
    let mut cluster = Cluster::new(host, Conditions::from_rtt(20_000, 0), seed);
    cluster.watch = Some(assert_one_acts);
    cluster.closes = true;
    cluster.waiting_max = WAITING;
    for number in 1..members {
        let watches = is_pair && number == 1;
        cluster.join(JoinConfig {
            role: if watches {
                Role::Spectator
            } else {
                Role::Player
            },
            prediction_ticks: 12,
            silence_us: SILENCE_US,
            resume_us: RESUME_US,
            ..JoinConfig::new(yard::game(), &format!("member {number}"))
        });
    }
    for member in &mut cluster.members {
        let player = member.driver.player_mut();
        player.plan = Plan {
            bodies: 60,
            is_lively: true,
            ..Plan::default()
        };
        player.is_steady = true;
    }
    cluster
}

/// The newest tick that `index` has run as a host, or was shown.
fn shown(cluster: &Cluster, index: Index) -> Tick {
    let node = cluster.node(index);
    if node.is_host() {
        return node.tick();
    }
    let newest = node.received().last();
    newest.map_or(Tick::ZERO, |state| state.tick)
}

fn counted(cluster: &Cluster, index: Index) -> (u64, u64) {
    let told = cluster.node(index).state_sync();
    told.map_or((0, 0), |told| (told.hashes, told.hashes_wrong))
}

/// Who sleeps in this role; `None` if nobody has it.
fn find(cluster: &Cluster, sleeper: Sleeper) -> Option<Index> {
    let terms = cluster.node(0).terms()?;
    let standbys = &terms.roster().standbys;
    let is_standby = |index: &Index| standbys.contains(&cluster.node(*index).session().member);
    let mut clients = 1..cluster.members.len();
    match sleeper {
        Sleeper::Host => Some(0),
        Sleeper::Standby => clients.find(is_standby),
        Sleeper::Other => clients.find(|index| !is_standby(index)),
    }
}

fn sleep(cluster: &mut Cluster, sleeper: Index, us: u64) {
    cluster.members[sleeper].paused = true;
    cluster.run_us(us.min(LINK_US));
    if us >= LINK_US {
        for other in (0..cluster.members.len()).filter(|&other| other != sleeper) {
            cluster.shut(sleeper, other, CloseReason::TimedOut);
        }
        cluster.run_us(us - LINK_US);
    }
    cluster.members[sleeper].paused = false;
}

fn come_back(sleeper: Sleeper, is_pair: bool) {
    for (members, pauses_ms) in [
        (3, [7000, 13_000]),
        (4, [2000, 11_000]),
        (5, [7000, 13_000]),
    ] {
        for (seed, pause_ms) in (1..).zip(pauses_ms) {
            let what = format!("{sleeper:?} of {members}, pair {is_pair}, {pause_ms} ms");
            let mut cluster = open(members, is_pair, seed);
            let all: Vec<Index> = (0..usize::from(members)).collect();
            let goes = cluster.run_while_not(30_000_000, |it| {
                let is_safe = it
                    .node(0)
                    .safe_tick()
                    .is_some_and(|safe| safe > Tick::new(200));
                is_safe && all.iter().all(|&index| shown(it, index) > Tick::new(260))
            });
            assert!(goes, "{what}: it does not begin");
            for &index in &all {
                cluster.set_reopens(index, true);
            }
            let Some(who) = find(&cluster, sleeper) else {
                continue;
            };
            let identity = |cluster: &Cluster| {
                let session = cluster.node(who).session();
                (session.session, session.member, session.slot)
            };
            let before = identity(&cluster);
            sleep(&mut cluster, who, pause_ms * 1000);
            let newest = all.iter().map(|&index| shown(&cluster, index)).max();
            let goal = newest.unwrap_or_default().plus(60);
            let is_back = cluster.run_while_not(30_000_000, |it| {
                it.host_of(&all).is_some() && all.iter().all(|&index| shown(it, index) > goal)
            });
            assert!(is_back, "{what}: {:#?}", standing(&cluster));
            assert_eq!(identity(&cluster), before, "{what}");
            let is_gone = |event: &Event| {
                matches!(
                    event,
                    Event::Disconnected { .. } | Event::Left { .. } | Event::Forked { .. }
                )
            };
            for &index in &all {
                let events = &cluster.members[index].events;
                assert!(!events.iter().any(is_gone), "{what}: {index}: {events:?}");
            }
            assert_holds(&mut cluster, &all, &what);
        }
    }
}

/// All hold what the host says, and what they do acts.
fn assert_holds(cluster: &mut Cluster, all: &[Index], what: &str) {
    // What was sampled before it knew its way again may come late.
    cluster.run_us(1_000_000);
    let before: Vec<(u64, u64)> = all.iter().map(|&it| counted(cluster, it)).collect();
    for &index in all {
        cluster.members[index].events.clear();
    }
    cluster.run_us(5_000_000);
    let host = cluster.host_of(all).expect("it goes on");
    for (&index, before) in all.iter().zip(before) {
        if index == host {
            continue;
        }
        let (hashes, wrong) = counted(cluster, index);
        assert!(hashes > before.0, "{what}: {index} was told no hash");
        assert_eq!(wrong, 0, "{what}: {index}");
        let is_replaced = |event: &Event| matches!(event, Event::InputReplaced { .. });
        let events = &cluster.members[index].events;
        let replaced: Vec<_> = events.iter().filter(|it| is_replaced(it)).collect();
        assert!(replaced.is_empty(), "{what}: {index}: {replaced:?}");
    }
    let acted = &cluster.members[host].driver.player().acted;
    let (tick, inputs) = acted.last_key_value().expect("it has run ticks");
    assert!(
        inputs.iter().all(Option::is_some),
        "{what}: {inputs:?} acted at {tick}"
    );
}

fn standing(cluster: &Cluster) -> Vec<String> {
    let of = |index: Index| {
        let node = cluster.node(index);
        let events = cluster.members[index].events.iter().rev();
        format!(
            "{index}: hosts {}, over {}, term {:?}, shown {}, {:?}",
            node.is_host(),
            node.is_over(),
            node.terms().map(|terms| terms.term().0),
            shown(cluster, index),
            events.take(6).collect::<Vec<_>>()
        )
    };
    (0..cluster.members.len()).map(of).collect()
}

#[test]
fn hosts_that_sleep_come_back() {
    come_back(Sleeper::Host, false);
}

#[test]
fn standbys_that_sleep_come_back() {
    come_back(Sleeper::Standby, false);
}

#[test]
fn others_that_sleep_come_back() {
    come_back(Sleeper::Other, false);
}

#[test]
fn servers_without_a_slot_that_sleep_come_back() {
    come_back(Sleeper::Host, true);
    come_back(Sleeper::Standby, true);
}
