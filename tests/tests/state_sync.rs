//! Sessions in state-sync mode, in virtual time: what clients hold, show and predict.
//!
//! `SEEDS=n` runs more random sessions, `SEED=n cargo test -p phalanx-tests --test state_sync
//! one_seed -- --nocapture` one of them.

use std::panic::{AssertUnwindSafe, catch_unwind};

use phalanx::netcode::link::conditioner::{Burst, Conditions};
use phalanx::netcode::node::{DisconnectReason, Event};
use phalanx::netcode::prng::Prng;
use phalanx::netcode::session::config::{
    HostConfig, JoinConfig, MigrationConfig, Start, StateSyncConfig,
};
use phalanx::netcode::tick::Tick;
use phalanx_tests::cluster::Index;
use phalanx_tests::seeds;
use phalanx_tests::yard::{self, Cluster, Plan, host, player, spectator, statistics};

fn path(rtt_us: u64, loss_per_million: u32) -> Conditions {
    Conditions::from_rtt(rtt_us, loss_per_million)
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
    term_ticks: 0,
    spawns: true,
};

/// A yard in which only heroes may move, if there are players.
const EMPTY: Plan = Plan { bodies: 0, ..CALM };

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
    let one = cluster.join(JoinConfig {
        prediction_ticks: 0,
        ..JoinConfig::new(yard::game(), "one")
    });
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

#[test]
fn a_world_that_stands_still_costs_next_to_nothing_and_wakes_at_once() {
    let config = HostConfig {
        start: Start::Manual,
        ..host(1, 0)
    };
    let mut cluster = Cluster::new(config, path(60_000, 0), 12);
    cluster.driver(0).node_mut().start();
    let watcher = cluster.join(spectator("watcher"));
    plan(&mut cluster, EMPTY);
    reach(&mut cluster, &[watcher], 300);
    cluster.reset_traffic();
    let from = cluster.node(0).tick();
    cluster.run_us(10_000_000);
    let ticks = u64::from(cluster.node(0).tick().since(from));
    let (datagrams, bytes) = cluster.traffic[&(0, watcher)];
    let snapshots = ticks / 3;
    assert!(
        datagrams * 4 <= snapshots + 16,
        "{datagrams} in {snapshots} snapshots"
    );
    // A session with encryption adds 20 bytes to each.
    let wire_bytes = bytes + 20 * datagrams;
    assert!(
        wire_bytes <= 12 * snapshots,
        "{wire_bytes} bytes in {snapshots} snapshots"
    );
    let complete = statistics(&cluster, watcher).newest_complete;
    let behind = cluster.node(0).tick().since(complete.expect("a state"));
    assert!(behind <= 20, "the watcher is {behind} ticks behind");

    let one = cluster.join(player("one"));
    let now = cluster.node(0).tick().number();
    reach(&mut cluster, &[one], now + 100);
    let complete = statistics(&cluster, watcher).newest_complete;
    let behind = cluster.node(0).tick().since(complete.expect("a state"));
    assert!(behind <= 6, "the watcher is {behind} ticks behind");
    assert_eq!(cluster.node(one).statistics().stalls, 0);
    finish(&mut cluster, &[watcher, one]);
}

#[test]
fn a_player_who_does_nothing_in_a_still_world_never_stalls() {
    let mut cluster = Cluster::new(host(1, 1), path(80_000, 10_000), 13);
    let one = cluster.join(JoinConfig {
        prediction_ticks: 8,
        ..player("one")
    });
    plan(&mut cluster, EMPTY);
    cluster.driver(one).player_mut().stops = true;
    reach(&mut cluster, &[one], 300);
    cluster.reset_traffic();
    let before = cluster.node(one).statistics().stalls;
    let from = cluster.node(0).tick();
    cluster.run_us(20_000_000);
    let snapshots = u64::from(cluster.node(0).tick().since(from)) / 3;
    let (datagrams, bytes) = cluster.traffic[&(0, one)];
    assert_eq!(cluster.node(one).statistics().stalls, before);
    assert_eq!(cluster.node(one).statistics().inputs_replaced, 0);
    let wire_bytes = bytes + 20 * datagrams;
    assert!(
        wire_bytes <= 24 * snapshots,
        "{wire_bytes} bytes in {datagrams} datagrams, {snapshots} snapshots"
    );
    finish(&mut cluster, &[one]);
}

#[test]
fn whoever_joins_a_large_world_gets_it_in_one_piece() {
    let mut cluster = Cluster::new(host(4, 1), path(40_000, 10_000), 9);
    cluster.join(player("early"));
    plan(
        &mut cluster,
        Plan {
            bodies: 3000,
            ..CALM
        },
    );
    cluster.run_us(3_000_000);
    let late: Vec<Index> = (0..3).map(|_| cluster.join(player("late"))).collect();
    let since = cluster.now();
    let is_there = |c: &Cluster| {
        late.iter()
            .all(|&at| c.node(at).received().next().is_some())
    };
    assert!(
        cluster.run_while_not(10_000_000, is_there),
        "{}",
        places(&cluster)
    );
    let took_us = cluster.now().micros_since(since);
    assert!(took_us < 1_500_000, "{took_us} us");
    for &index in &late {
        let held = cluster.node(index).received().last().expect("a state");
        assert!(held.snapshot.len() >= 3000, "{}", held.snapshot.len());
        assert_eq!(statistics(&cluster, index).keyframes, 1);
    }
    finish(&mut cluster, &[1, 2, 3, 4]);
}

#[test]
fn a_tight_budget_over_a_long_way_ends_in_the_same_state_soon() {
    let (still, moving) = (MigrationConfig::default(), MigrationConfig::ELECTED);
    for (seed, rtt_us, migration) in [
        (1, 300_000, still),
        (2, 500_000, still),
        (3, 200_000, moving),
        (4, 300_000, moving),
    ] {
        let config = HostConfig {
            migration,
            state_sync: StateSyncConfig {
                budget_bytes_per_second: 20_000,
                ..HostConfig::new(yard::game(), 3).state_sync
            },
            last_tick: Some(Tick::new(400)),
            ..host(3, 3)
        };
        let mut cluster = Cluster::new(config, path(rtt_us, 0), seed);
        let members = [0, 1, 2].map(|_| cluster.join(player("one")));
        plan(
            &mut cluster,
            Plan {
                bodies: 800,
                is_lively: true,
                ..CALM
            },
        );
        let is_at_end = |c: &Cluster| c.node(0).tick() == Tick::new(400);
        assert!(cluster.run_while_not(60_000_000, is_at_end));
        let since = cluster.now();
        let is_over = |c: &Cluster| (0..4).all(|index| c.node(index).is_over());
        let ends = cluster.run_while_not(20_000_000, is_over);
        let took_us = cluster.now().micros_since(since);
        assert!(ends, "{}", places(&cluster));
        for index in members {
            let converged = statistics(&cluster, index).converged;
            assert_eq!(converged, Some(true), "node {index}, seed {seed}");
        }
        assert!(took_us < 2_500_000, "{took_us} µs");
    }
}

/// Seeds of a default run.
const SEEDS: u64 = 20;
/// Seeds that found something once.
const REGRESSIONS: [u64; 0] = [];

/// A random session: faults, then calm; what each client holds must soon be what the host has.
struct Trial {
    seed: u64,
    cluster: Cluster,
    prng: Prng,
    /// Round trip of the calm paths, in microseconds.
    rtt_us: u64,
    snapshot_ticks: u32,
    /// Whether the budget may not suffice for all that changes.
    is_scarce: bool,
}

impl Trial {
    fn new(seed: u64) -> Self {
        let mut prng = Prng::with_stream(seed, 7);
        let rtt_us = 20_000 + prng.below(200_000);
        let mut config = host(4, 2);
        config.state_sync.snapshot_ticks = 1 + below(&mut prng, 6);
        let is_scarce = prng.below(4) == 0;
        config.state_sync.budget_bytes_per_second = if is_scarce {
            2_000 + below(&mut prng, 10_000)
        } else {
            200_000
        };
        let snapshot_ticks = config.state_sync.snapshot_ticks;
        let mut cluster = Cluster::new(config, path(rtt_us, 0), seed);
        for index in 0..2 + prng.below(3) {
            let prediction = [0, 4, 16][usize::try_from(prng.below(3)).expect("small")];
            let mut config = JoinConfig {
                prediction_ticks: prediction,
                ..player("player")
            };
            if index >= 2 && prng.below(2) == 0 {
                config = spectator("spectator");
            }
            cluster.join_ahead(config, prng.below(1_000_000_000));
        }
        let bodies = [3, 20, 150][usize::try_from(prng.below(3)).expect("small")];
        plan(
            &mut cluster,
            Plan {
                bodies,
                is_lively: prng.below(4) != 0,
                gust_ticks: below(&mut prng, 200),
                term_ticks: 0,
                spawns: true,
            },
        );
        Self {
            seed,
            cluster,
            prng,
            rtt_us,
            snapshot_ticks,
            is_scarce,
        }
    }

    fn bad_path(&mut self) -> Conditions {
        let prng = &mut self.prng;
        Conditions {
            latency_us: self.rtt_us / 2,
            jitter_us: prng.below(60_000),
            loss_per_million: below(prng, 300_000),
            burst: (prng.below(2) == 0).then(|| Burst {
                enter_per_million: below(prng, 30_000),
                leave_per_million: 20_000 + below(prng, 300_000),
                loss_within_per_million: 500_000 + below(prng, 500_000),
            }),
            duplicate_per_million: below(prng, 100_000),
            reorder_per_million: below(prng, 100_000),
            ..Conditions::PERFECT
        }
    }

    /// Some seconds of bad paths, and partitions of some clients.
    fn suffer(&mut self) {
        let clients = self.cluster.members.len();
        for client in 1..clients {
            let (up, down) = (self.bad_path(), self.bad_path());
            self.cluster.set_route(client, 0, up);
            self.cluster.set_route(0, client, down);
        }
        for _ in 0..1 + self.prng.below(6) {
            self.cluster.run_us(self.prng.below(1_500_000));
            let client = 1 + usize::try_from(self.prng.below(clients as u64 - 1)).expect("small");
            if self.prng.below(3) == 0 {
                // One way only, or both, and shorter than it takes to be given up.
                match self.prng.below(3) {
                    0 => self.cluster.cut.push((0, client)),
                    1 => self.cluster.cut.push((client, 0)),
                    _ => self.cluster.isolate(client),
                }
                self.cluster.run_us(self.prng.below(3_000_000));
                self.cluster.mend(client);
            }
        }
    }

    /// From here on nothing befalls datagrams; what is under way arrives.
    fn calm(&mut self) {
        for client in 1..self.cluster.members.len() {
            self.cluster.set_route(client, 0, path(self.rtt_us, 0));
            self.cluster.set_route(0, client, path(self.rtt_us, 0));
        }
    }

    /// What `index` holds of the others is what the host had at that tick.
    fn check(&mut self, index: Index) {
        let tick = self.cluster.node(index).settled_tick();
        let held = self.cluster.node(index).received().last().expect("a state");
        assert!(
            held.is_complete,
            "node {index} holds a part of {}",
            held.tick
        );
        assert_eq!(held.tick, tick);
        let real = self.cluster.driver(0).player().worlds.get(&tick).cloned();
        let Some(real) = real else { return };
        let own = self.cluster.node(index).session().slot.map(|slot| slot.0);
        let shown = self.cluster.driver(index).simulation().expect("a state");
        let others = |bodies: &std::collections::BTreeMap<u64, yard::Body>| {
            let mut bodies = bodies.clone();
            bodies.retain(|_, body| body.owner.is_none() || body.owner != own);
            bodies
        };
        assert_eq!(
            others(shown.bodies()),
            others(&real),
            "node {index} at {tick}"
        );
    }

    fn run(&mut self) {
        self.cluster.run_us(3_000_000);
        self.suffer();
        self.calm();
        let since = self.cluster.node(0).tick();
        let clients: Vec<Index> = (1..self.cluster.members.len()).collect();
        let interval_us = u64::from(self.snapshot_ticks) * 16_667;
        // One tick more: nothing is sent or looked at between ticks.
        let limit_us = 2 * self.rtt_us + 2 * interval_us + 2 * 16_667;
        let is_there = |cluster: &Cluster| {
            clients.iter().all(|&index| {
                let held = cluster.node(index).received().last();
                held.is_some_and(|held| held.is_complete && held.tick >= since)
            })
        };
        let start = self.cluster.now();
        // What changes faster than the budget allows is never there as a whole before the end.
        if !self.is_scarce {
            let converged = self.cluster.run_while_not(20_000_000, is_there);
            let took_us = self.cluster.now().micros_since(start);
            assert!(
                converged && took_us <= limit_us,
                "{took_us} us instead of {limit_us} from tick {since} on:{}",
                places(&self.cluster)
            );
            for &index in &clients {
                self.check(index);
            }
        }
        self.cluster.run_us(2_000_000);
        finish(&mut self.cluster, &clients);
        for &index in &clients {
            let events = events(&self.cluster, index).iter();
            let links = events.filter(|event| matches!(event, Event::Welcomed { .. }));
            assert!(links.count() <= 2, "node {index} of seed {}", self.seed);
        }
    }
}

fn below(prng: &mut Prng, limit: u32) -> u32 {
    u32::try_from(prng.below(u64::from(limit))).expect("below a u32")
}

#[test]
fn after_faults_all_hold_what_the_host_has_soon() {
    let count = seeds::number("SEEDS").unwrap_or(SEEDS);
    let mut failed = Vec::new();
    for seed in REGRESSIONS.into_iter().chain(0..count) {
        if catch_unwind(AssertUnwindSafe(|| Trial::new(seed).run())).is_err() {
            println!(
                "repeat with: SEED={seed} cargo test -p phalanx-tests --test state_sync one_seed \
                 -- --nocapture"
            );
            failed.push(seed);
        }
    }
    assert!(failed.is_empty(), "seeds {failed:?} failed");
}

#[test]
fn one_seed() {
    if let Some(seed) = seeds::number("SEED") {
        Trial::new(seed).run();
    }
}
