//! Hosting of a state-sync session moves by itself: members elect another host when theirs is gone,
//! and a host that hands over loses nothing. Whole nodes, bytes and all, in virtual time.
//!
//! `SEEDS=n` runs more seeds, `SEED=n` one.

use phalanx::netcode::id::Term;
use phalanx::netcode::link::conditioner::Conditions;
use phalanx::netcode::node::Event;
use phalanx::netcode::session::config::HostConfig;
use phalanx::netcode::statesync::Interest;
use phalanx::netcode::tick::Tick;
use phalanx_tests::cluster::Index;
use phalanx_tests::gaps::{self, Gaps};
use phalanx_tests::reign::Reign;
use phalanx_tests::seeds;
use phalanx_tests::yard::{self, Plan};

fn open(plan: Plan, players: u8, conditions: Conditions, seed: u64, test: &str) -> Reign {
    let repeat =
        format!("SEED={seed} cargo test -p phalanx-tests --test state_sync_elections {test}");
    Reign::new(plan, players, conditions, seed, &repeat)
}

fn lively() -> Plan {
    Plan {
        bodies: 100,
        is_lively: true,
        ..Plan::default()
    }
}

/// The same session runs twice, once with a handover: nothing that happens depends on it.
#[test]
fn a_handover_changes_nothing() {
    for seed in seeds::chosen(1, 4) {
        let players = 3 + u8::try_from(seed % 3).expect("small");
        let test = "a_handover_changes_nothing";
        let plan = Plan {
            spawns: false,
            ..lively()
        };
        let conditions = Conditions::from_rtt(50_000, 0);
        let mut calm = open(plan, players, conditions, seed, test);
        let mut moved = open(plan, players, conditions, seed, test);
        calm.run(8_000_000);
        moved.run(1_000_000);
        let before = moved.losses();
        moved.move_host();
        moved.assert_recovers(4_000_000);
        let replaced: Vec<_> = moved.alive().iter().map(|&it| moved.replaced(it)).collect();
        let terms = moved.terms();
        assert_eq!(
            moved.losses(),
            before,
            "{}: {replaced:?}; {terms:?}",
            moved.seed
        );
        let (calm, there) = (calm.history(), moved.history());
        let last = *there.keys().next_back().expect("ticks ran");
        assert!(last > Tick::new(400), "{}: {last}", moved.seed);
        let mut compared = 0;
        for (tick, ran) in &there {
            let Some(other) = calm.get(tick) else {
                continue;
            };
            assert_eq!(other.inputs, ran.inputs, "{}: inputs at {tick}", moved.seed);
            assert_eq!(other.bodies, ran.bodies, "{}: bodies at {tick}", moved.seed);
            compared += 1;
        }
        assert!(compared > 350, "{}: {compared}", moved.seed);
    }
}

/// Milliseconds between two snapshots, when nothing happens.
const INTERVAL_MS: u64 = 50;
const TICK_MS: u64 = 17;
/// Milliseconds by which a host's part of a gap is measured too long.
const LOOK_MS: u64 = 5;

/// How long nobody gets a new state when hosting moves as planned: the time between the arrivals of
/// two newer states. For clients also what of it is beyond the time between two snapshots, which is
/// there anyway; the former host shows each tick until then, so it is measured from its last one.
#[test]
fn a_handover_stops_nobody_for_longer_than_a_round_trip_and_a_tick() {
    for rtt_ms in [50, 100, 200] {
        let mut gaps: Vec<u64> = Vec::new();
        let mut of_clients: Vec<u64> = Vec::new();
        for seed in seeds::chosen(1, 6) {
            let players = 3 + u8::try_from(seed % 6).expect("small");
            let test = "a_handover_stops_nobody_for_longer_than_a_round_trip_and_a_tick";
            let conditions = Conditions::from_rtt(rtt_ms * 1000, 0);
            let mut session = open(lively(), players, conditions, seed, test);
            session.run(1_000_000 + seed * 7_919 % 100_000);
            let before = session.losses();
            gaps.push(session.gap_ms(|it| {
                it.move_host();
                it.assert_recovers(4_000_000);
            }));
            let host = session.host();
            let clients = (1..usize::from(players)).filter(|&index| Some(index) != host);
            of_clients.extend(clients.map(|index| session.gap_us(index) / 1000));
            assert_eq!(session.losses(), before);
        }
        let (gaps, of_clients) = (Gaps::of(gaps), Gaps::of(of_clients).longest());
        let beyond = of_clients.saturating_sub(INTERVAL_MS);
        println!("RTT {rtt_ms} ms: {gaps}; of clients {of_clients} ms, {beyond} beyond usual");
        assert!(
            gaps.longest() <= rtt_ms + TICK_MS + LOOK_MS,
            "RTT {rtt_ms} ms: {gaps:?}"
        );
        assert!(
            beyond <= rtt_ms / 2,
            "RTT {rtt_ms} ms: {of_clients} of clients"
        );
    }
}

/// At the end members leave as soon as they have all of it. The host, which is heard by fewer and
/// fewer voters, sees to the last of them.
#[test]
fn nobody_is_left_behind_at_the_end() {
    for seed in seeds::chosen(1, 6) {
        let host = HostConfig {
            last_tick: Some(Tick::new(500)),
            ..Reign::host_config(6)
        };
        let test = "nobody_is_left_behind_at_the_end";
        let conditions = Conditions::from_rtt(80_000, 100_000);
        let mut cluster = yard::cluster(host, lively(), conditions, 250, seed);
        let is_over = cluster.run_while_not(40_000_000, |it| {
            it.members
                .iter()
                .all(|member| member.driver.node().is_over())
        });
        assert!(is_over, "SEED={seed}, {test}");
        let events = &cluster.members[0].events;
        let ended = events
            .iter()
            .position(|it| matches!(it, Event::Ended { .. }));
        let after = &events[ended.expect("it has ended")..];
        let froze = after.iter().any(|event| matches!(event, Event::Frozen));
        assert!(!froze, "SEED={seed}, {test}: {after:?}");
        for index in 1..6 {
            let told = cluster.node(index).state_sync().expect("a client");
            assert_eq!(
                told.converged,
                Some(true),
                "SEED={seed}, {test}: {index}: {told:?}"
            );
        }
    }
}

/// How long clients get no new state when their host dies: of eight players, at any moment, without
/// loss.
#[test]
fn the_gap_after_a_crash_is_short() {
    gaps::assert_short_after_crashes(&seeds::chosen(1, 4), |rtt_us, seed| {
        let test = "the_gap_after_a_crash_is_short";
        let conditions = Conditions::from_rtt(rtt_us, 0);
        let mut session = open(lively(), 8, conditions, seed, test);
        session.run(1_000_000 + seed * 7_919 % 100_000);
        session.gap_ms(|it| {
            it.cluster.crash(0);
            it.assert_recovers(5_000_000);
        })
    });
}

/// Two standbys, of which one has heard less: nothing is lost that either of them held.
#[test]
fn the_newest_state_that_a_standby_holds_is_gone_on_from() {
    for seed in seeds::chosen(1, 4) {
        let test = "the_newest_state_that_a_standby_holds_is_gone_on_from";
        let conditions = Conditions::from_rtt(50_000, 0);
        let mut session = open(lively(), 5, conditions, seed, test);
        session.run(1_000_000);
        let standbys: Vec<Index> = (1..5)
            .filter(|&index| session.cluster.node(index).standby_held().is_some())
            .collect();
        assert_eq!(standbys.len(), 2, "{}", session.seed);
        // The one hears nothing of the host in its last moments, or the other.
        let deaf = standbys[usize::try_from(seed % 2).expect("small")];
        session.cluster.cut.push((0, deaf));
        session.run(80_000);
        session.cluster.crash(0);
        session.run(60_000);
        let held = |it: &Reign, index| it.cluster.node(index).standby_held().expect("it stands by");
        let newest = standbys.iter().map(|&index| held(&session, index)).max();
        let newest = newest.expect("there are two");
        assert!(held(&session, deaf) < newest, "{}", session.seed);
        session.assert_recovers(5_000_000);
        let (first, _) = session.terms()[1];
        assert!(
            first > newest,
            "{}: {first}, {newest} was held",
            session.seed
        );
    }
}

/// A host that is elected again goes on to keep its state safe.
#[test]
fn a_host_that_is_elected_again_has_a_standby() {
    let test = "a_host_that_is_elected_again_has_a_standby";
    let mut session = open(lively(), 3, Conditions::from_rtt(50_000, 0), 1, test);
    // Nobody hears anybody, and then all hear the host again, but not each other.
    session.cluster.isolate(0);
    session.cluster.cut.extend([(1, 2), (2, 1)]);
    session.run(500_000);
    session.cluster.mend(0);
    session.run_until(3_000_000, |it| {
        it.host() == Some(0) && it.cluster.node(0).session().term > Term(1)
    });
    session.cluster.cut.clear();
    session.run(2_000_000);
    let node = session.cluster.node(0);
    let safe = node.safe_tick().unwrap_or_default();
    assert!(
        node.tick().since(safe) < 10,
        "{}: tick {}, safe {safe}",
        session.seed,
        node.tick()
    );
    session.cluster.crash(0);
    session.assert_recovers(5_000_000);
}

/// What a host was set up with goes over to the next one.
#[test]
fn settings_of_what_clients_see_go_over_to_the_next_host() {
    let test = "settings_of_what_clients_see_go_over_to_the_next_host";
    let mut host = Reign::host_config(4);
    host.state_sync.budget_bytes_per_second = 20_000;
    host.state_sync.rewind_ticks_max = 5;
    let conditions = Conditions::from_rtt(50_000, 10_000);
    let mut session = Reign::with_host(host, lively(), conditions, 1, test);
    let publisher = session.cluster.driver(0).node_mut().publisher_mut();
    let interest = Some(Interest::within(60.0));
    publisher.expect("it hosts").set_interest(interest);
    session.run(2_000_000);
    session.cluster.crash(0);
    session.run_until(3_000_000, |it| it.host().is_some());
    let host = session.host().expect("one hosts");
    let node = session.cluster.driver(host).node_mut();
    let publisher = node.publisher_mut().expect("it hosts");
    assert_eq!(publisher.interest(), interest);
    assert_eq!(publisher.config().budget_bytes_per_second, 20_000);
    let client = session.alive().into_iter().find(|&index| index != host);
    let client = client.expect("others are there");
    for behind in [6, 7] {
        let now = session.cluster.now_of(client);
        session
            .cluster
            .driver(client)
            .node_mut()
            .show_behind(now, behind);
        session.run(300_000);
    }
    let cut = session
        .cluster
        .node(host)
        .state_sync()
        .map(|it| it.views_cut);
    assert_eq!(cut, Some(2), "views are cut to 5 ticks");
    let newest = session.cluster.node(client).received().last();
    let seen = newest.expect("it sees something").snapshot.len();
    assert!(seen < 80, "{seen} of more than 100 are within 60 m");
    session.assert_recovers(3_000_000);
}

/// Clients go on from what they hold: a change of host costs no second telling of the world.
#[test]
fn a_change_of_host_does_not_tell_the_world_again() {
    let test = "a_change_of_host_does_not_tell_the_world_again";
    let mut host = Reign::host_config(4);
    host.state_sync.budget_bytes_per_second = 1_000_000;
    host.spectators = 1;
    let plan = Plan {
        bodies: 1000,
        ..lively()
    };
    let conditions = Conditions::from_rtt(50_000, 0);
    let mut session = Reign::with_host(host, plan, conditions, 1, test);
    session.run(1_000_000);
    let told = |it: &Reign, index| {
        let told = it.cluster.node(index).state_sync().expect("state-sync");
        (told.state_bytes, told.keyframe_bytes)
    };
    let before = told(&session, 0);
    session.run(1_000_000);
    let usual = told(&session, 0).0 - before.0;
    session.cluster.crash(0);
    session.run_until(3_000_000, |it| it.host().is_some());
    let host = session.host().expect("one hosts");
    session.run(1_000_000);
    let (bytes, keyframes) = told(&session, host);
    // One client fewer than before.
    println!(
        "per client, in the second after: {} B, {keyframes} B in keyframes; {} B in a usual second",
        bytes / 2,
        usual / 3
    );
    assert_eq!(keyframes, 0);
    // Some of the snapshots make up for the time without a host.
    assert!(
        bytes / 2 < usual / 3 * 7 / 4,
        "{bytes} of two, {usual} of three"
    );
    session.assert_recovers(3_000_000);
}
