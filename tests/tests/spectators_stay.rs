//! Whoever watches goes on watching when the host changes, in all modes, with and without a delay:
//! nothing is shown twice, and nothing else than what happened.

use phalanx::netcode::link::conditioner::Conditions;
use phalanx::netcode::migration::HostPolicy;
use phalanx::netcode::node::Event;
use phalanx::netcode::session::config::{
    Gate, HostConfig, JoinConfig, MigrationConfig, Role, Start,
};
use phalanx::netcode::tick::Tick;
use phalanx_tests::cluster::{Bot, ClusterOf, Index, Seeded};
use phalanx_tests::toy;
use phalanx_tests::yard::{self, Plan, Pusher};

const PLAYERS: u8 = 3;
const RTT_US: u64 = 50_000;
/// Index of the one who watches.
const WATCHER: Index = PLAYERS as Index;
const LOOK_US: u64 = 5_000;

/// How hosting moves.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Change {
    Crash,
    Handover,
}

fn host(config: HostConfig, delay_ticks: u32) -> HostConfig {
    HostConfig {
        plays: true,
        start: Start::Players(PLAYERS),
        migration: MigrationConfig::ELECTED,
        spectators: 1,
        spectator_delay_ticks: delay_ticks,
        ..config
    }
}

fn join<P: Seeded>(cluster: &mut ClusterOf<P>, config: &JoinConfig) {
    for number in 1..=PLAYERS {
        cluster.join(JoinConfig {
            name: format!("member {number}"),
            role: if usize::from(number) == WATCHER {
                Role::Spectator
            } else {
                Role::Player
            },
            ..config.clone()
        });
    }
}

/// What the watcher has been shown, and how long nothing was new, in microseconds.
#[derive(Debug, Default)]
struct Watched {
    tick: Tick,
    since_us: u64,
    longest_us: u64,
}

impl Watched {
    /// Runs on, and looks at what `shown` gives.
    fn run<P: Seeded>(
        &mut self,
        cluster: &mut ClusterOf<P>,
        us: u64,
        shown: impl Fn(&ClusterOf<P>) -> Tick,
    ) {
        for _ in 0..us / LOOK_US {
            cluster.run_us(LOOK_US);
            let tick = shown(cluster);
            assert!(tick >= self.tick, "{tick} is shown after {}", self.tick);
            self.since_us += LOOK_US;
            if tick > self.tick {
                self.longest_us = self.longest_us.max(self.since_us);
                (self.tick, self.since_us) = (tick, 0);
            }
        }
    }
}

/// Lets hosting move, and checks what the watcher gets; says how long it got nothing new.
fn change<P: Seeded>(
    cluster: &mut ClusterOf<P>,
    change: Change,
    delay_ticks: u32,
    shown: impl Fn(&ClusterOf<P>) -> Tick,
    what: &str,
) -> u64 {
    let mut watched = Watched::default();
    watched.run(cluster, 9_000_000, &shown);
    assert!(watched.tick > Tick::new(200), "{what}: {watched:?}");
    watched.longest_us = 0;
    let mut others: Vec<Index> = (0..=usize::from(PLAYERS)).collect();
    match change {
        Change::Crash => {
            cluster.crash(0);
            others.remove(0);
        }
        Change::Handover => {
            let now = cluster.now_of(0);
            let node = cluster.driver(0).node_mut();
            node.request_handover(now, None).expect("somebody can host");
        }
    }
    watched.run(cluster, 4_000_000, &shown);
    let host = cluster.host_of(&others);
    let host = host.filter(|&host| host != 0 && host != WATCHER);
    let host = host.unwrap_or_else(|| panic!("{what}: nobody hosts whom all follow"));
    watched.run(cluster, 2_000_000, &shown);
    let behind = cluster.node(host).tick().since(watched.tick);
    assert!(
        behind >= delay_ticks && behind <= delay_ticks + 30,
        "{what}: it is {behind} ticks behind"
    );
    let member = &cluster.members[WATCHER];
    let is_out = |event: &Event| matches!(event, Event::Disconnected { .. });
    assert!(!member.events.iter().any(is_out), "{what}");
    watched.longest_us
}

/// Nobody but the host reaches whoever watches: when it dies the players go on as if nobody watched.
/// Says how long nothing new was `shown` to any of them.
fn gap_of_players<P: Seeded>(
    cluster: &mut ClusterOf<P>,
    shown: impl Fn(&ClusterOf<P>, Index) -> Tick,
) -> u64 {
    for player in 1..WATCHER {
        cluster.cut.extend([(player, WATCHER), (WATCHER, player)]);
    }
    let mut newest = Tick::ZERO;
    let mut look = |it: &ClusterOf<P>| {
        let players = (1..WATCHER).map(|index| shown(it, index));
        newest = newest.max(players.max().unwrap_or_default());
        newest
    };
    cluster.run_us(9_000_000);
    cluster.crash(0);
    let (mut before, mut gap_us, mut since_us) = (look(cluster), 0, 0);
    assert!(before > Tick::new(200), "{before}");
    for _ in 0..3_000_000 / LOOK_US {
        cluster.run_us(LOOK_US);
        since_us += LOOK_US;
        let now = look(cluster);
        if now > before {
            (before, gap_us, since_us) = (now, since_us.max(gap_us), 0);
        }
    }
    let others: Vec<Index> = (1..WATCHER).collect();
    assert!(cluster.host_of(&others).is_some() && since_us < 200_000);
    gap_us
}

#[test]
fn whoever_watches_and_is_not_reached_holds_nobody_up() {
    let conditions = Conditions::from_rtt(RTT_US, 0);
    let game = toy::game();
    let config = HostConfig::new(game.clone(), PLAYERS);
    let mut cluster: ClusterOf<Bot> = ClusterOf::new(host(config, 0), conditions, 3);
    join(&mut cluster, &JoinConfig::new(game, ""));
    let shown = |it: &ClusterOf<Bot>, index| it.node(index).settled_tick();
    let gap_us = gap_of_players(&mut cluster, shown);
    println!("lockstep: nothing new for {} ms", gap_us / 1000);
    assert!(gap_us <= 350_000, "lockstep: {gap_us}");

    let game = yard::game();
    let config = HostConfig::new(game.clone(), PLAYERS);
    let mut cluster: ClusterOf<Pusher> = ClusterOf::new(host(config, 0), conditions, 3);
    let usual = JoinConfig {
        prediction_ticks: 12,
        ..JoinConfig::new(game, "")
    };
    join(&mut cluster, &usual);
    let shown = |it: &ClusterOf<Pusher>, index| {
        let newest = it.node(index).received().last();
        newest.map_or(Tick::ZERO, |newest| newest.tick)
    };
    let gap_us = gap_of_players(&mut cluster, shown);
    println!("state-sync: nothing new for {} ms", gap_us / 1000);
    assert!(gap_us <= 350_000, "state-sync: {gap_us}");
}

/// One of two players dies: the other one goes on in a session of its own, and whoever watches goes
/// with it, sees all that it does, and hears nothing of the old host when that wakes.
fn fork<P: Seeded>(
    cluster: &mut ClusterOf<P>,
    delay_ticks: u32,
    wakes: bool,
    shown: impl Fn(&ClusterOf<P>) -> Tick,
    what: &str,
) {
    const SURVIVOR: Index = 1;
    const LAST: Index = 2;
    let mut watched = Watched::default();
    watched.run(cluster, 6_000_000, &shown);
    assert!(watched.tick > Tick::new(100), "{what}: {watched:?}");
    let before = cluster.node(LAST).session().session;
    if wakes {
        cluster.members[0].paused = true;
    } else {
        cluster.crash(0);
    }
    watched.longest_us = 0;
    // Longer than the survivor listens, and than it takes to tell.
    watched.run(cluster, 4_500_000, &shown);
    let forked = |it: &ClusterOf<P>, index: Index| {
        let sessions = it.members[index].events.iter().filter_map(|event| {
            let Event::Forked { session } = event else {
                return None;
            };
            Some(*session)
        });
        sessions.collect::<Vec<_>>()
    };
    let apart = forked(cluster, SURVIVOR);
    assert_eq!(apart.len(), 1, "{what}");
    assert_eq!(apart, forked(cluster, LAST), "{what}");
    for index in [SURVIVOR, LAST] {
        assert_eq!(cluster.node(index).session().session, apart[0], "{what}");
    }
    assert_ne!(before, apart[0]);
    let survivor = cluster.node(SURVIVOR).session().member;
    assert_eq!(cluster.node(LAST).host_member(), survivor, "{what}");
    if wakes {
        cluster.members[0].paused = false;
    }
    watched.run(cluster, 6_000_000, &shown);
    let behind = cluster.node(SURVIVOR).tick().since(watched.tick);
    assert!(
        behind >= delay_ticks && behind <= delay_ticks + 30,
        "{what}: it is {behind} ticks behind"
    );
    assert_eq!(cluster.node(LAST).session().session, apart[0], "{what}");
    assert_eq!(cluster.node(LAST).host_member(), survivor, "{what}");
    let known = cluster.node(SURVIVOR).terms().map(|terms| {
        let members = terms.roster().members.iter();
        members.map(|member| member.id).collect::<Vec<_>>()
    });
    let last = cluster.node(LAST).session().member;
    assert_eq!(known.map(|known| known.contains(&last)), Some(true));
    let is_out = |event: &Event| matches!(event, Event::Disconnected { .. });
    assert!(!cluster.members[LAST].events.iter().any(is_out), "{what}");
}

fn two_and_a_watcher<P: Seeded>(
    config: HostConfig,
    delay_ticks: u32,
    usual: &JoinConfig,
) -> ClusterOf<P> {
    let config = HostConfig {
        start: Start::Players(2),
        ..host(config, delay_ticks)
    };
    let mut cluster = ClusterOf::new(config, Conditions::from_rtt(RTT_US, 5_000), 5);
    for role in [Role::Player, Role::Spectator] {
        let hosting = if role == Role::Spectator {
            HostPolicy::bystander()
        } else {
            HostPolicy::default()
        };
        cluster.join(JoinConfig {
            role,
            hosting,
            ..usual.clone()
        });
    }
    cluster
}

#[test]
fn watchers_go_with_the_one_who_goes_on_alone_in_lockstep() {
    let wait = Gate::Wait {
        limit_us: 4_000_000,
    };
    for gate in [Gate::Paced, wait] {
        for delay_ticks in [0, 90] {
            for wakes in [false, true] {
                let what = format!("{gate:?}, {delay_ticks} ticks, wakes: {wakes}");
                let config = HostConfig {
                    gate,
                    ..HostConfig::new(toy::game(), 2)
                };
                let usual = JoinConfig::new(toy::game(), "member");
                let mut cluster: ClusterOf<Bot> = two_and_a_watcher(config, delay_ticks, &usual);
                let shown = |it: &ClusterOf<Bot>| it.node(2).settled_tick();
                fork(&mut cluster, delay_ticks, wakes, shown, &what);
                for member in &cluster.members {
                    let desyncs = member.driver.node().statistics().desyncs;
                    assert_eq!(desyncs, 0, "{what}");
                }
            }
        }
    }
}

#[test]
fn watchers_go_with_the_one_who_goes_on_alone_in_state_sync() {
    for delay_ticks in [0, 90] {
        for wakes in [false, true] {
            let what = format!("state-sync, {delay_ticks} ticks, wakes: {wakes}");
            let config = HostConfig::new(yard::game(), 2);
            let usual = JoinConfig {
                prediction_ticks: 12,
                ..JoinConfig::new(yard::game(), "member")
            };
            let mut cluster: ClusterOf<Pusher> = two_and_a_watcher(config, delay_ticks, &usual);
            for member in &mut cluster.members {
                member.driver.player_mut().plan = Plan {
                    bodies: 100,
                    is_lively: true,
                    ..Plan::default()
                };
            }
            let shown = |it: &ClusterOf<Pusher>| {
                let newest = it.node(2).received().last();
                newest.map_or(Tick::ZERO, |newest| newest.tick)
            };
            fork(&mut cluster, delay_ticks, wakes, shown, &what);
            let told = cluster.node(2).state_sync().expect("a client");
            assert!(told.hashes > 2, "{what}: {told:?}");
            assert_eq!(told.hashes_wrong, 0, "{what}");
        }
    }
}

/// Whoever watches may hold more than the one who goes on alone: that did not happen, it is told so, and
/// what both have then is the same.
#[test]
fn what_only_watchers_had_heard_did_not_happen() {
    let config = HostConfig::new(toy::game(), 2);
    let usual = JoinConfig::new(toy::game(), "member");
    let mut cluster: ClusterOf<Bot> = two_and_a_watcher(config, 0, &usual);
    cluster.run_us(5_000_000);
    // The last ticks of the host reach only who watches.
    cluster.cut.push((0, 1));
    cluster.run_us(100_000);
    cluster.crash(0);
    cluster.run_us(100_000);
    let (had, has) = (
        cluster.node(2).settled_tick(),
        cluster.node(1).settled_tick(),
    );
    assert!(had > has, "{had} and {has}");
    cluster.run_us(6_000_000);
    let apart = cluster.node(1).session().session;
    assert!(cluster.node(1).is_host());
    assert_eq!(cluster.node(2).session().session, apart);
    let lost = Event::LostTicks {
        first: has.next(),
        last: had,
    };
    let events = &cluster.members[2].events;
    assert!(events.contains(&lost), "{lost:?}: {events:?}");
    let settled = cluster.settled(&[1, 2]);
    assert!(settled > had.plus(60), "{settled}");
    for tick in (has.number() - 10..=settled.number()).map(Tick::new) {
        let [one, other] = [1, 2].map(|index| {
            let simulation = cluster.members[index].driver.simulation();
            simulation.and_then(|it| it.footprint(tick)).cloned()
        });
        assert!(one.is_some() && one == other, "{tick}: {one:?} {other:?}");
    }
}

/// A host that is still heard is followed on, whatever its other player does.
#[test]
fn whoever_hears_the_host_goes_with_nobody_else() {
    let config = HostConfig::new(toy::game(), 2);
    let usual = JoinConfig::new(toy::game(), "member");
    let mut cluster: ClusterOf<Bot> = two_and_a_watcher(config, 0, &usual);
    cluster.run_us(6_000_000);
    cluster.cut.extend([(0, 1), (1, 0)]);
    cluster.run_us(20_000_000);
    let apart = cluster.node(1).session().session;
    assert_ne!(apart, cluster.node(0).session().session);
    assert_eq!(
        cluster.node(2).session().session,
        cluster.node(0).session().session
    );
    let behind = cluster.node(0).tick().since(cluster.node(2).settled_tick());
    assert!(behind < 30, "it is {behind} ticks behind");
    // Once that host is gone, it is out, or with the other one if its place there lasts.
    let is_told = |event: &Event| matches!(event, Event::Forked { .. });
    assert!(!cluster.members[2].events.iter().any(is_told));
}

#[test]
fn watchers_of_a_lockstep_session_stay() {
    let wait = Gate::Wait {
        limit_us: 4_000_000,
    };
    for gate in [Gate::Paced, wait] {
        for delay_ticks in [0, 90] {
            for how in [Change::Crash, Change::Handover] {
                let what = format!("{gate:?}, {delay_ticks} ticks, {how:?}");
                let config = HostConfig {
                    gate,
                    ..HostConfig::new(toy::game(), PLAYERS)
                };
                let conditions = Conditions::from_rtt(RTT_US, 0);
                let mut cluster: ClusterOf<Bot> =
                    ClusterOf::new(host(config, delay_ticks), conditions, 3);
                join(&mut cluster, &JoinConfig::new(toy::game(), ""));
                let shown = |it: &ClusterOf<Bot>| it.node(WATCHER).settled_tick();
                let longest_us = change(&mut cluster, how, delay_ticks, shown, &what);
                println!("{what}: nothing new for {} ms", longest_us / 1000);
                assert!(longest_us <= 500_000, "{what}: {longest_us}");
                for member in &cluster.members {
                    let desyncs = member.driver.node().statistics().desyncs;
                    assert_eq!(desyncs, 0, "{what}");
                }
            }
        }
    }
}

#[test]
fn watchers_of_a_state_sync_session_stay() {
    let plan = Plan {
        bodies: 100,
        is_lively: true,
        ..Plan::default()
    };
    for delay_ticks in [0, 90] {
        for how in [Change::Crash, Change::Handover] {
            let what = format!("state-sync, {delay_ticks} ticks, {how:?}");
            let config = HostConfig::new(yard::game(), PLAYERS);
            let conditions = Conditions::from_rtt(RTT_US, 0);
            let mut cluster: ClusterOf<Pusher> =
                ClusterOf::new(host(config, delay_ticks), conditions, 3);
            let usual = JoinConfig {
                prediction_ticks: 12,
                ..JoinConfig::new(yard::game(), "")
            };
            join(&mut cluster, &usual);
            for member in &mut cluster.members {
                member.driver.player_mut().plan = plan;
            }
            let shown = |it: &ClusterOf<Pusher>| {
                let newest = it.node(WATCHER).received().last();
                newest.map_or(Tick::ZERO, |newest| newest.tick)
            };
            let longest_us = change(&mut cluster, how, delay_ticks, shown, &what);
            println!("{what}: nothing new for {} ms", longest_us / 1000);
            assert!(longest_us <= 500_000, "{what}: {longest_us}");
            let told = cluster.node(WATCHER).state_sync().expect("a client");
            assert!(told.hashes > 2, "{what}: {told:?}");
            assert_eq!(told.hashes_wrong, 0, "{what}");
        }
    }
}
