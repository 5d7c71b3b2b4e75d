//! Sessions in state-sync mode, in virtual time: what clients hold, show and predict.

use phalanx::netcode::link::conditioner::{Burst, Conditions};
use phalanx::netcode::node::{DisconnectReason, Event, StateSyncStatistics};
use phalanx::netcode::session::config::{HostConfig, InputDelay, JoinConfig, Role, Start};
use phalanx::netcode::tick::Tick;
use phalanx_tests::cluster::{ClusterOf, Index};
use phalanx_tests::yard::{self, Plan, Pusher};

type Cluster = ClusterOf<Pusher>;

fn host(slots: u8, players: u8) -> HostConfig {
    HostConfig {
        start: Start::Players(players),
        ..HostConfig::new(yard::game(), slots)
    }
}

/// A player that predicts, and whose hero reacts at once.
fn player(name: &str) -> JoinConfig {
    JoinConfig {
        prediction_ticks: 16,
        input_delay: InputDelay::Adaptive { min: 0, max: 30 },
        ..JoinConfig::new(yard::game(), name)
    }
}

fn spectator(name: &str) -> JoinConfig {
    JoinConfig {
        role: Role::Spectator,
        ..JoinConfig::new(yard::game(), name)
    }
}

fn path(rtt_us: u64, loss_per_million: u32) -> Conditions {
    Conditions::from_rtt(rtt_us, loss_per_million)
}

fn statistics(cluster: &Cluster, index: Index) -> StateSyncStatistics {
    cluster.node(index).state_sync().expect("state-sync mode")
}

fn events(cluster: &Cluster, index: Index) -> &[Event] {
    &cluster.members[index].events
}

/// Runs until all of `indices` hold the state of tick `tick`, or a later one.
#[track_caller]
fn reach(cluster: &mut Cluster, indices: &[Index], tick: u32) {
    let tick = Tick::new(tick);
    let reached = cluster.run_while_not(120_000_000, |c| c.settled(indices) >= tick);
    assert!(reached, "tick {tick} was not reached:{}", places(cluster));
}

fn places(cluster: &Cluster) -> String {
    let mut text = String::new();
    for index in 0..cluster.members.len() {
        let (node, events) = (cluster.node(index), events(cluster, index));
        let last = &events[events.len().saturating_sub(4)..];
        text += &format!(
            "\nnode {index} at {} ({}): {:?} {:?} {last:?}",
            node.tick(),
            node.settled_tick(),
            node.state_sync(),
            node.statistics()
        );
    }
    text
}

/// Lets the host end the session; what all of `indices` hold then is what they shall hold.
#[track_caller]
fn finish(cluster: &mut Cluster, indices: &[Index]) {
    let soon = cluster.node(0).tick().plus(50);
    cluster.driver(0).node_mut().end_at(soon);
    cluster.run_us(4_000_000);
    let hash = cluster.driver(0).state_hash().expect("a host has a state");
    for &index in indices {
        let ended = events(cluster, index)
            .iter()
            .any(|event| matches!(event, Event::Ended { .. }));
        assert!(ended, "node {index} did not end:{}", places(cluster));
        let statistics = statistics(cluster, index);
        assert_eq!(statistics.converged, Some(true), "node {index}");
        let last = statistics.authority.expect("the host has told");
        assert_eq!(last, (cluster.node(0).tick(), hash), "node {index}");
        assert_eq!(statistics.hashes_wrong, 0, "node {index}");
        assert_same_world(cluster, index);
    }
}

/// What the simulation of `index` shows is what the host has.
#[track_caller]
fn assert_same_world(cluster: &mut Cluster, index: Index) {
    let real = cluster.driver(0).simulation().expect("a state").clone();
    let shown = cluster.driver(index).simulation().expect("a state");
    assert_eq!(shown.bodies(), real.bodies(), "node {index}");
    assert_eq!(shown.wind(), real.wind(), "node {index}");
}

#[test]
fn players_and_spectators_hold_what_the_host_has() {
    let mut cluster = Cluster::new(host(3, 2), path(80_000, 20_000), 1);
    let members = [
        cluster.join(player("one")),
        cluster.join(player("two")),
        cluster.join(spectator("three")),
    ];
    reach(&mut cluster, &members, 300);
    let late = [
        cluster.join(player("late")),
        cluster.join(spectator("later")),
    ];
    reach(&mut cluster, &late, 600);
    finish(&mut cluster, &[1, 2, 3, 4, 5]);
    let watched = cluster.driver(3).simulation().expect("a state").steps;
    assert_eq!(watched, [0, 0], "a spectator runs no ticks");
}

/// Makes the yards of all members with `plan`. Before anything runs.
fn plan(cluster: &mut Cluster, plan: Plan) {
    for member in &mut cluster.members {
        member.driver.player_mut().plan = plan;
    }
}

const CALM: Plan = Plan {
    bodies: 6,
    is_lively: false,
    gust_ticks: 0,
};

#[test]
fn an_own_hero_reacts_in_the_tick_of_its_input() {
    let mut cluster = Cluster::new(host(2, 2), path(100_000, 0), 2);
    cluster.join(player("one"));
    cluster.join(player("two"));
    plan(&mut cluster, CALM);
    reach(&mut cluster, &[1, 2], 600);
    for index in [1, 2] {
        let lead = cluster.node(index).tick().since(cluster.node(0).tick());
        assert!(
            lead >= 3,
            "node {index} is only {lead} ticks ahead of the host"
        );
        assert_eq!(cluster.node(index).input_delay(), 0, "node {index}");
        let bot = cluster.driver(index).player();
        let mut moved = 0;
        for (tick, hero) in bot.shown.range(Tick::new(200)..) {
            let before = &bot.shown[&tick.previous()];
            let push = bot.pushed[tick];
            for axis in 0..2 {
                let step = if push & (1 << axis) == 0 { -1 } else { 1 };
                let edge = hero.speed[axis].signum() == -before.speed[axis].signum();
                let expected = (before.speed[axis] + step).clamp(-64, 64);
                assert!(
                    hero.speed[axis] == expected || edge,
                    "node {index}, {tick}: {before:?} pushed by {push} is {hero:?}"
                );
                moved += u32::from(hero.speed[axis] != before.speed[axis]);
            }
        }
        assert!(moved > 100, "node {index} hardly moved");
        let judged = statistics(&cluster, index);
        assert!(judged.predictions > 100, "{judged:?}");
        assert_eq!(judged.corrections, 0, "{judged:?}");
    }
    finish(&mut cluster, &[1, 2]);
}

#[test]
fn corrections_are_as_many_as_there_is_cause_for() {
    let mut cluster = Cluster::new(host(2, 2), path(100_000, 50_000), 3);
    cluster.join(player("one"));
    cluster.join(player("two"));
    let gust_ticks = 120;
    plan(&mut cluster, Plan { gust_ticks, ..CALM });
    reach(&mut cluster, &[1, 2], 3600);
    finish(&mut cluster, &[1, 2]);
    let gusts = u64::from(cluster.node(0).tick().number() / gust_ticks);
    for index in [1, 2] {
        let judged = statistics(&cluster, index);
        let late = cluster.node(index).statistics().inputs_replaced;
        assert!(judged.corrections >= gusts / 2, "{judged:?}");
        // A gust or a late input shows in one snapshot; what follows is predicted from it.
        let causes = gusts + late + 4;
        assert!(judged.corrections <= 2 * causes, "{judged:?}, {late} late");
        assert!(late < 60, "{late} of 3600 inputs were late at 5 % loss");
        assert!(
            judged.corrections * 10 < judged.predictions,
            "{judged:?}, {late} late"
        );
    }
}

#[test]
fn late_inputs_are_reported_to_their_owner() {
    let mut cluster = Cluster::new(host(1, 1), path(60_000, 0), 4);
    let one = cluster.join(player("one"));
    plan(&mut cluster, CALM);
    reach(&mut cluster, &[one], 300);
    cluster.set_conditions(one, path(260_000, 0));
    cluster.run_us(1_000_000);
    cluster.set_conditions(one, path(60_000, 0));
    cluster.run_us(2_000_000);
    let late = cluster
        .node(0)
        .links()
        .next()
        .map(|link| link.statistics.inputs_late);
    let late = late.expect("a link");
    let told = cluster.node(one).statistics().inputs_replaced;
    assert!(late > 0, "nothing was late");
    assert!(
        told <= late && told + 2 >= late,
        "{late} were late, and {told} reported"
    );
    let events = events(&cluster, one).iter();
    let replaced = events.filter(|event| matches!(event, Event::InputReplaced { .. }));
    assert_eq!(replaced.count() as u64, told);
    finish(&mut cluster, &[one]);
}

#[test]
fn a_member_that_was_cut_off_comes_back_to_its_slot() {
    let mut cluster = Cluster::new(host(2, 2), path(60_000, 10_000), 5);
    cluster.join(player("one"));
    cluster.join(player("two"));
    reach(&mut cluster, &[1, 2], 200);
    let slot = cluster.node(1).session().slot;
    cluster.isolate(1);
    cluster.run_us(8_000_000);
    let frozen = cluster.node(1).tick();
    cluster.run_us(1_000_000);
    assert_eq!(cluster.node(1).tick(), frozen, "prediction ran away");
    cluster.mend(1);
    let now = cluster.node(0).tick().number();
    reach(&mut cluster, &[1, 2], now + 300);
    assert_eq!(cluster.node(1).session().slot, slot);
    finish(&mut cluster, &[1, 2]);
}

#[test]
fn without_a_host_a_client_holds_and_then_gives_up() {
    let mut cluster = Cluster::new(host(1, 1), path(60_000, 0), 6);
    let one = cluster.join(JoinConfig {
        resume_us: 3_000_000,
        ..player("one")
    });
    reach(&mut cluster, &[one], 200);
    cluster.members[0].paused = true;
    cluster.run_us(1_500_000);
    let held = cluster.node(one).tick();
    assert!(
        events(&cluster, one)
            .iter()
            .any(|event| matches!(event, Event::Stalled { .. })),
        "{}",
        places(&cluster)
    );
    cluster.run_us(2_000_000);
    assert_eq!(cluster.node(one).tick(), held, "prediction ran away");
    cluster.run_us(8_000_000);
    let gone = Event::Disconnected {
        reason: DisconnectReason::Silence,
    };
    assert!(
        events(&cluster, one).contains(&gone),
        "{}",
        places(&cluster)
    );
}

#[test]
fn a_client_that_predicts_nothing_shows_the_host_s_states() {
    let mut cluster = Cluster::new(host(1, 1), path(60_000, 20_000), 7);
    let one = cluster.join(JoinConfig::new(yard::game(), "one"));
    reach(&mut cluster, &[one], 400);
    assert!(
        cluster.node(one).input_delay() >= 3,
        "inputs need their time"
    );
    let pushed = cluster.driver(one).player().pushed.clone();
    finish(&mut cluster, &[one]);
    let steps = cluster.driver(one).simulation().expect("a state").steps;
    assert_eq!(steps, [0, 0]);
    let late = cluster.node(one).statistics().inputs_replaced;
    assert!(
        late * 20 < pushed.len() as u64,
        "{late} of {}",
        pushed.len()
    );
}

#[test]
fn what_a_player_sees_is_told_within_bounds() {
    let mut cluster = Cluster::new(host(2, 2), path(60_000, 20_000), 8);
    cluster.join(player("one"));
    cluster.join(player("two"));
    reach(&mut cluster, &[1, 2], 100);
    for (index, behind) in [(1, 9), (2, 4_000_000_000)] {
        let now = cluster.now_of(index);
        cluster.driver(index).node_mut().show_behind(now, behind);
    }
    cluster.run_us(1_000_000);
    let seen = &cluster.driver(0).simulation().expect("a state").seen;
    let limit = HostConfig::new(yard::game(), 2).state_sync.rewind_ticks_max;
    assert_eq!(seen.get(&0), Some(&9));
    assert_eq!(seen.get(&1), Some(&limit));
    assert_eq!(statistics(&cluster, 0).views_cut, 1);
}
