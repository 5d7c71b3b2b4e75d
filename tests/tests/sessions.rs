//! Joining, leaving, coming back, watching, talking: a session as its members see it.

use std::sync::Arc;

use phalanx::netcode::id::MemberId;
use phalanx::netcode::link::CloseReason;
use phalanx::netcode::link::conditioner::Conditions;
use phalanx::netcode::node::{DisconnectReason, Event};
use phalanx::netcode::session::config::{DesyncPolicy, Gate, HostConfig, JoinConfig, Role, Start};
use phalanx::netcode::session::handshake::ByeReason;
use phalanx::netcode::session::messages::Channel;
use phalanx::netcode::state::{ExactType, FieldSchema, Schema};
use phalanx::netcode::tick::{Tick, TickRate};
use phalanx_tests::cluster::{Cluster, Index};
use phalanx_tests::toy;

fn host(slots: u8, players: u8) -> HostConfig {
    HostConfig {
        start: Start::Players(players),
        ..HostConfig::new(toy::game(), slots)
    }
}

fn strict(slots: u8, players: u8) -> HostConfig {
    HostConfig {
        gate: Gate::Wait {
            limit_us: 2_000_000,
        },
        plays: true,
        ..host(slots, players)
    }
}

fn player(name: &str) -> JoinConfig {
    JoinConfig::new(toy::game(), name)
}

fn spectator(name: &str) -> JoinConfig {
    JoinConfig {
        role: Role::Spectator,
        ..player(name)
    }
}

fn calm() -> Conditions {
    Conditions::from_rtt(60_000, 20_000)
}

/// Runs until all of `indices` have settled tick `tick`, then compares their states there.
#[track_caller]
fn reach(cluster: &mut Cluster, indices: &[Index], tick: u32) {
    let tick = Tick::new(tick);
    let reached = cluster.run_while_not(120_000_000, |c| c.settled(indices) >= tick);
    let places: Vec<String> = indices
        .iter()
        .map(|&index| {
            let (node, events) = (cluster.node(index), events(cluster, index));
            let last = &events[events.len().saturating_sub(4)..];
            format!(
                "\nnode {index} at {}: {:?} {last:?}",
                node.tick(),
                node.statistics()
            )
        })
        .collect();
    assert!(reached, "tick {tick} was not reached:{}", places.concat());
    assert_no_desync(cluster);
}

#[track_caller]
fn assert_no_desync(cluster: &Cluster) {
    for (index, member) in cluster.members.iter().enumerate() {
        for event in &member.events {
            assert!(
                !matches!(event, Event::Desync(_)),
                "node {index}: {event:?}"
            );
        }
    }
}

/// Lets the host end the session, and compares the final states.
#[track_caller]
fn finish(cluster: &mut Cluster, indices: &[Index]) {
    let soon = cluster.node(0).tick().plus(60);
    cluster.driver(0).node_mut().end_at(soon);
    cluster.run_us(4_000_000);
    for &index in indices {
        let ended = cluster.members[index]
            .events
            .iter()
            .any(|e| matches!(e, Event::Ended { .. }));
        assert!(
            ended,
            "node {index} did not end: {:?}",
            cluster.node(index).statistics()
        );
    }
    assert!(cluster.agree(indices), "final states differ");
    assert_no_desync(cluster);
}

fn events(cluster: &Cluster, index: Index) -> &[Event] {
    &cluster.members[index].events
}

#[test]
fn a_player_joins_late_and_plays() {
    for (seed, config) in [(1, host(3, 1)), (2, strict(3, 2))] {
        let mut cluster = Cluster::new(config, calm(), seed);
        cluster.join(player("early"));
        cluster.run_us(5_000_000);
        let late = cluster.join(player("late"));
        reach(&mut cluster, &[0, 1, late], 600);
        let slot = cluster
            .node(late)
            .session()
            .slot
            .expect("a player has a slot");
        let present = |cluster: &mut Cluster, index: Index| {
            let toy = cluster.driver(index).simulation().expect("it runs");
            toy.traces()[slot.index()].present
        };
        assert!(
            present(&mut cluster, 0) > 100,
            "the late player's inputs act"
        );
        assert!(
            events(&cluster, late)
                .iter()
                .any(|e| matches!(e, Event::Activated { .. }))
        );
        finish(&mut cluster, &[0, 1, late]);
        assert_eq!(present(&mut cluster, 0), present(&mut cluster, late));
    }
}

#[test]
fn spectators_watch_with_delay_and_end_with_the_same_state() {
    let config = HostConfig {
        spectator_delay_ticks: 120,
        ..host(2, 2)
    };
    let mut cluster = Cluster::new(config, calm(), 3);
    let players = [cluster.join(player("a")), cluster.join(player("b"))];
    cluster.run_us(4_000_000);
    let watcher = cluster.join(spectator("watcher"));
    cluster.run_us(6_000_000);
    let (live, seen) = (cluster.node(0).tick(), cluster.node(watcher).tick());
    assert!(seen > Tick::ZERO, "the spectator sees nothing");
    let behind = live.since(seen);
    assert!((120..140).contains(&behind), "{behind} ticks behind");
    let soon = cluster.node(0).tick().plus(60);
    cluster.driver(0).node_mut().end_at(soon);
    cluster.run_us(4_500_000);
    assert!(cluster.agree(&[0, players[0], players[1], watcher]));
}

#[test]
fn a_player_whose_link_breaks_comes_back_to_its_slot() {
    for (seed, config, away_us) in [
        (4, host(2, 2), 7_000_000),
        (5, host(2, 2), 25_000_000),
        (6, strict(3, 3), 8_000_000),
    ] {
        let mut cluster = Cluster::new(config, calm(), seed);
        let (a, b) = (cluster.join(player("a")), cluster.join(player("b")));
        reach(&mut cluster, &[0, a, b], 100);
        let slot = cluster.node(b).session().slot;
        cluster.isolate(b);
        cluster.run_us(away_us);
        cluster.cut.clear();
        cluster.run_us(4_000_000);
        assert_eq!(
            cluster.node(b).session().slot,
            slot,
            "seed {seed}: another slot"
        );
        let tick = cluster.node(0).tick().number() + 60;
        reach(&mut cluster, &[0, a, b], tick);
        finish(&mut cluster, &[0, a, b]);
    }
}

#[test]
fn inputs_of_the_last_holder_of_a_slot_are_not_taken_for_the_next_ones() {
    let config = HostConfig {
        resume_us: 0,
        silence_us: 1_000_000,
        ..host(2, 2)
    };
    let mut cluster = Cluster::new(config, Conditions::from_rtt(60_000, 0), 11);
    let (a, b) = (cluster.join(player("a")), cluster.join(player("b")));
    reach(&mut cluster, &[0, a, b], 100);
    let slot = cluster.node(b).session().slot;
    // While b believes to play on, c plays in its slot; then b gets that slot once more.
    cluster.isolate(b);
    cluster.run_us(1_100_000);
    let c = cluster.join(player("c"));
    cluster.run_us(1_500_000);
    assert_eq!(cluster.node(c).session().slot, slot);
    cluster.driver(c).node_mut().leave();
    cluster.mend(b);
    cluster.run_us(6_000_000);
    assert_eq!(cluster.node(b).session().slot, slot);
    let tick = cluster.node(0).tick().number() + 60;
    reach(&mut cluster, &[0, a, b], tick);
    assert_eq!(cluster.node(b).statistics().desyncs, 0);
    finish(&mut cluster, &[0, a, b]);
}

#[test]
fn a_client_without_the_image_to_return_to_gets_a_new_state() {
    for (seed, config) in [(12, host(2, 2)), (13, strict(3, 3))] {
        let mut cluster = Cluster::new(config, calm(), seed);
        let (a, b) = (cluster.join(player("a")), cluster.join(player("b")));
        reach(&mut cluster, &[0, a, b], 100);
        let slot = cluster.node(b).session().slot;
        let now = cluster.now_of(b);
        cluster.driver(b).node_mut().commit_restore(now, false);
        cluster.run_us(3_000_000);
        assert_eq!(cluster.node(b).session().slot, slot, "seed {seed}");
        let welcomes = events(&cluster, b)
            .iter()
            .filter(|event| matches!(event, Event::Welcomed { .. }));
        assert_eq!(welcomes.count(), 2, "seed {seed}");
        let tick = cluster.node(0).tick().number() + 60;
        reach(&mut cluster, &[0, a, b], tick);
        finish(&mut cluster, &[0, a, b]);
    }
}

#[test]
fn a_host_without_the_image_to_return_to_ends_the_session() {
    let mut cluster = Cluster::new(host(1, 1), calm(), 14);
    let a = cluster.join(player("a"));
    reach(&mut cluster, &[0, a], 100);
    let now = cluster.now_of(0);
    cluster.driver(0).node_mut().commit_restore(now, false);
    cluster.run_us(1_000_000);
    assert!(cluster.node(0).is_over());
    let stopped = |event: &Event| matches!(event, Event::Disconnected { reason } if *reason == DisconnectReason::Bye(ByeReason::HostStops));
    assert!(events(&cluster, a).iter().any(stopped));
}

#[test]
fn who_leaves_is_absent_for_all_from_the_same_tick_on() {
    for (seed, config) in [(7, host(3, 3)), (8, strict(4, 4))] {
        let mut cluster = Cluster::new(config, calm(), seed);
        let ids = [
            cluster.join(player("a")),
            cluster.join(player("b")),
            cluster.join(player("c")),
        ];
        reach(&mut cluster, &[0, 1, 2, 3], 100);
        let slot = cluster.node(ids[1]).session().slot.expect("a player");
        cluster.driver(ids[1]).node_mut().leave();
        reach(&mut cluster, &[0, ids[0], ids[2]], 300);
        for index in [0, ids[0], ids[2]] {
            let left = events(&cluster, index).iter().any(
                |event| matches!(event, Event::Left { member, .. } if member.slot == Some(slot)),
            );
            assert!(left, "seed {seed}: node {index} does not know");
        }
        finish(&mut cluster, &[0, ids[0], ids[2]]);
    }
}

#[test]
fn who_keeps_all_waiting_is_let_go_after_the_limit() {
    let mut cluster = Cluster::new(strict(3, 3), calm(), 9);
    let (a, b) = (cluster.join(player("a")), cluster.join(player("b")));
    reach(&mut cluster, &[0, a, b], 100);
    cluster.members[b].paused = true;
    reach(&mut cluster, &[0, a], 250);
    let stalls: Vec<_> = events(&cluster, 0)
        .iter()
        .filter(|e| matches!(e, Event::Resumed { .. }))
        .collect();
    let longest = cluster.node(0).statistics().longest_stall_us;
    assert!(
        (1_900_000..2_300_000).contains(&longest),
        "{longest} us, {stalls:?}"
    );
    finish(&mut cluster, &[0, a]);
}

#[test]
fn prediction_runs_ahead_and_ends_with_the_same_state() {
    for (seed, config, ticks) in [
        (10, host(4, 4), 8),
        (11, strict(3, 3), 8),
        (12, strict(2, 2), 16),
    ] {
        let config = HostConfig {
            prediction_ticks: ticks,
            ..config
        };
        let players = usize::from(config.slots) - usize::from(config.plays);
        let mut cluster = Cluster::new(config, Conditions::from_rtt(100_000, 50_000), seed);
        let indices: Vec<Index> = (0..players)
            .map(|n| {
                cluster.join(JoinConfig {
                    prediction_ticks: ticks,
                    ..player(&format!("p{n}"))
                })
            })
            .collect();
        let all: Vec<Index> = core::iter::once(0).chain(indices.iter().copied()).collect();
        reach(&mut cluster, &all, 900);
        let again: u64 = indices
            .iter()
            .map(|&i| cluster.node(i).statistics().ticks_again)
            .sum();
        assert!(
            again > 100,
            "seed {seed}: {again} ticks ran again, so nothing was predicted"
        );
        for &index in &indices {
            let node = cluster.node(index);
            assert!(
                node.input_delay() <= 6,
                "seed {seed}: delay {}",
                node.input_delay()
            );
            assert!(node.tick() > node.settled_tick(), "seed {seed}: not ahead");
        }
        finish(&mut cluster, &all);
    }
}

#[test]
fn messages_arrive_once_and_in_order_both_ways() {
    let mut cluster = Cluster::new(host(2, 2), Conditions::from_rtt(100_000, 200_000), 13);
    let (a, b) = (cluster.join(player("a")), cluster.join(player("b")));
    reach(&mut cluster, &[0, a, b], 60);
    let member = cluster.node(a).session().member;
    for number in 0..100_u32 {
        let text = format!("to the host {number}");
        let node = cluster.driver(a).node_mut();
        node.send_message(MemberId::FIRST_HOST, Channel::Reliable, text.as_bytes())
            .unwrap();
        let big = vec![number.to_le_bytes()[0]; 900];
        cluster
            .driver(0)
            .node_mut()
            .send_message(member, Channel::Reliable, &big)
            .unwrap();
        cluster.run_us(30_000);
    }
    cluster.run_us(10_000_000);
    let received = |index: Index| -> Vec<Vec<u8>> {
        let messages = events(&cluster, index).iter().filter_map(|event| {
            if let Event::Message { bytes, .. } = event {
                Some(bytes.clone())
            } else {
                None
            }
        });
        messages.collect()
    };
    let wanted: Vec<Vec<u8>> = (0..100)
        .map(|n| format!("to the host {n}").into_bytes())
        .collect();
    assert_eq!(received(0), wanted);
    let wanted: Vec<Vec<u8>> = (0..100_u8).map(|n| vec![n; 900]).collect();
    assert_eq!(received(a), wanted);
    assert!(received(b).is_empty());
}

#[test]
fn refusals_name_what_differs_and_the_session_goes_on() {
    let mut cluster = Cluster::new(host(1, 1), calm(), 14);
    let a = cluster.join(player("a"));
    reach(&mut cluster, &[0, a], 30);

    let mut kinds = toy::game().schema.kinds().to_vec();
    kinds[1].fields[1] = FieldSchema::new("present", ExactType::U16);
    let schema = Arc::new(Schema::new(kinds).unwrap());
    let other = |change: &dyn Fn(&mut JoinConfig)| {
        let mut config = player("other");
        change(&mut config);
        config
    };
    let cases: [(JoinConfig, &str); 6] = [
        (
            other(&|c| c.game.game = "chess".into()),
            "the host plays \"toy\", you \"chess\"",
        ),
        (
            other(&|c| c.game.build = "2".into()),
            "the host runs build 1, you 2",
        ),
        (
            other(&|c| c.game.tick_rate = TickRate::new(30).unwrap()),
            "the host runs 60 ticks per second, you 30",
        ),
        (
            other(&|c| c.game.input_bytes = 4),
            "an input has 8 bytes on the host, 4 on yours",
        ),
        (
            other(&|c| c.game.schema = Arc::clone(&schema)),
            "the host's components differ from yours",
        ),
        (other(&|_| {}), "all 1 slots are taken"),
    ];
    for (config, sentence) in cases {
        let index = cluster.join(config);
        cluster.run_us(3_000_000);
        let Some(Event::Refused {
            reason,
            differences,
        }) = events(&cluster, index).first()
        else {
            panic!("not refused: {:?}", events(&cluster, index));
        };
        assert_eq!(reason, sentence);
        if sentence.contains("components") {
            let text = differences.join("\n");
            assert!(text.contains("Trace") && text.contains("present"), "{text}");
            assert!(text.contains("u32") && text.contains("u16"), "{text}");
        }
        assert!(cluster.node(index).is_over());
    }
    finish(&mut cluster, &[0, a]);
}

#[test]
fn a_host_that_does_not_answer_is_reported() {
    let mut cluster = Cluster::new(host(1, 1), calm(), 15);
    let a = cluster.join(player("a"));
    cluster.isolate(a);
    cluster.run_us(11_000_000);
    assert_eq!(
        events(&cluster, a),
        [Event::JoinFailed {
            reason: CloseReason::NoAnswer
        }]
    );
}

#[test]
fn a_host_that_stops_says_goodbye() {
    let mut cluster = Cluster::new(host(1, 1), calm(), 16);
    let a = cluster.join(player("a"));
    reach(&mut cluster, &[0, a], 30);
    cluster.driver(0).node_mut().leave();
    cluster.run_us(1_000_000);
    let reason = DisconnectReason::Bye(ByeReason::HostStops);
    assert!(events(&cluster, a).contains(&Event::Disconnected { reason }));
    assert!(cluster.node(0).is_over() && cluster.node(a).is_over());
}

#[test]
fn a_diverged_client_is_named_down_to_the_field_and_healed() {
    for seed in 17..20 {
        let mut cluster = Cluster::new(host(3, 3), calm(), seed);
        let ids = [
            cluster.join(player("a")),
            cluster.join(player("b")),
            cluster.join(player("c")),
        ];
        reach(&mut cluster, &[0, 1, 2, 3], 90);
        let wrong = cluster.node(ids[1]).tick().next();
        let toy = cluster.driver(ids[1]).simulation_mut().expect("it runs");
        toy.wrong_from = Some(wrong);
        toy.wrong_until = Some(wrong);
        cluster.run_us(6_000_000);
        let member = cluster.node(ids[1]).session().member;
        let report = |cluster: &Cluster, index: Index| {
            events(cluster, index).iter().find_map(|event| {
                if let Event::Desync(report) = event {
                    Some(report.clone())
                } else {
                    None
                }
            })
        };
        let found = report(&cluster, 0).expect("the host reports it");
        assert_eq!(
            (found.member, found.tick),
            (member, wrong),
            "seed {seed}: {found:?}"
        );
        let text = found.differences.join("\n");
        assert!(text.contains("Trace") && text.contains("sum"), "{text}");
        let told = report(&cluster, ids[1]).expect("the diverged client is told");
        assert_eq!((told.member, told.tick), (member, wrong));
        assert!(
            told.differences.iter().any(|line| line.contains("sum")),
            "{told:?}"
        );
        let healed = |e: &Event| matches!(e, Event::Healed { .. });
        assert!(
            events(&cluster, ids[1]).iter().any(healed),
            "seed {seed}: not healed"
        );
        let soon = cluster.node(0).tick().plus(60);
        cluster.driver(0).node_mut().end_at(soon);
        cluster.run_us(4_000_000);
        assert!(
            cluster.agree(&[0, 1, 2, 3]),
            "seed {seed}: healed, and different still"
        );
    }
}

#[test]
fn a_diverged_host_is_named_by_the_majority_and_healed() {
    let desync = DesyncPolicy {
        heal_host: true,
        ..DesyncPolicy::default()
    };
    let config = HostConfig {
        desync,
        ..host(3, 3)
    };
    let mut cluster = Cluster::new(config, calm(), 21);
    let ids = [
        cluster.join(player("a")),
        cluster.join(player("b")),
        cluster.join(player("c")),
    ];
    reach(&mut cluster, &[0, 1, 2, 3], 90);
    let wrong = cluster.node(0).tick().next();
    let toy = cluster.driver(0).simulation_mut().expect("it runs");
    toy.wrong_from = Some(wrong);
    toy.wrong_until = Some(wrong);
    cluster.run_us(8_000_000);
    let report = events(&cluster, 0).iter().find_map(|event| {
        if let Event::Desync(report) = event {
            Some(report)
        } else {
            None
        }
    });
    assert_eq!(
        report.expect("the host reports it").member,
        MemberId::FIRST_HOST
    );
    let soon = cluster.node(0).tick().plus(60);
    cluster.driver(0).node_mut().end_at(soon);
    cluster.run_us(4_000_000);
    assert!(cluster.agree(&[0, ids[0], ids[1], ids[2]]));
}

#[test]
fn one_bad_link_stalls_nobody_else() {
    let mut cluster = Cluster::new(host(8, 8), Conditions::from_rtt(100_000, 0), 22);
    let ids: Vec<Index> = (0..8)
        .map(|n| cluster.join(player(&format!("p{n}"))))
        .collect();
    let bad = ids[3];
    let burst = phalanx::netcode::link::conditioner::Burst::from_mean(50_000, 10);
    cluster.set_conditions(
        bad,
        Conditions {
            burst: Some(burst),
            jitter_us: 40_000,
            ..Conditions::from_rtt(100_000, 50_000)
        },
    );
    cluster.run_us(10_000_000);
    let before: Vec<u64> = ids
        .iter()
        .map(|&i| cluster.node(i).statistics().stalls)
        .collect();
    cluster.run_us(60_000_000);
    for (&index, before) in ids.iter().zip(before) {
        if index != bad {
            assert_eq!(
                cluster.node(index).statistics().stalls,
                before,
                "node {index} stalled"
            );
            assert_eq!(
                cluster.node(index).statistics().inputs_replaced,
                0,
                "node {index}"
            );
        }
    }
    // Nothing is lost silently: what was replaced is reported, tick by tick.
    let replaced = cluster.node(bad).statistics().inputs_replaced;
    let reported = events(&cluster, bad)
        .iter()
        .filter(|e| matches!(e, Event::InputReplaced { .. }))
        .count();
    assert_eq!(replaced, reported as u64);
    assert_no_desync(&cluster);
}
