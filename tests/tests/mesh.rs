//! Warm links between the members of a session in which hosting may move.

use phalanx::netcode::id::MemberId;
use phalanx::netcode::link::conditioner::Conditions;
use phalanx::netcode::node::MeshLink;
use phalanx::netcode::session::config::{
    Gate, HostConfig, JoinConfig, MigrationConfig, Role, Start,
};
use phalanx::netcode::session::statistics::DropReason;
use phalanx::netcode::tick::Tick;
use phalanx::netcode::wire::header::kind;
use phalanx_tests::cluster::{Cluster, Index};
use phalanx_tests::toy;

fn host(slots: u8, gate: Gate) -> HostConfig {
    HostConfig {
        plays: true,
        gate,
        start: Start::Players(slots),
        migration: MigrationConfig::COMMANDED,
        ..HostConfig::new(toy::game(), slots)
    }
}

fn player(name: &str) -> JoinConfig {
    JoinConfig::new(toy::game(), name)
}

/// A session of `members`, with the host.
fn session(members: u8, conditions: Conditions, seed: u64) -> Cluster {
    let mut cluster = Cluster::new(host(members, Gate::Paced), conditions, seed);
    for index in 1..members {
        cluster.join(player(&format!("player {index}")));
    }
    cluster
}

fn member(cluster: &Cluster, index: Index) -> MemberId {
    cluster.node(index).session().member
}

/// What `from` knows of its link to `to`.
fn link(cluster: &Cluster, from: Index, to: Index) -> Option<MeshLink> {
    let to = member(cluster, to);
    let mut links = cluster.node(from).mesh_links();
    links.find(|link| link.member == to)
}

/// Whether all of `indices` hear each other over confirmed paths, and nobody else is in their
/// meshes.
fn is_full(cluster: &Cluster, indices: &[Index]) -> bool {
    indices.iter().all(|&from| {
        let others = indices.iter().filter(|&&to| to != from);
        cluster.node(from).mesh_links().count() == indices.len() - 1
            && others
                .map(|&to| link(cluster, from, to))
                .all(|link| link.is_some_and(|link| link.is_confirmed))
    })
}

#[track_caller]
fn build(cluster: &mut Cluster, indices: &[Index], within_us: u64) {
    let done = cluster.run_while_not(within_us, |cluster| is_full(cluster, indices));
    let links: Vec<Vec<MeshLink>> = indices
        .iter()
        .map(|&index| cluster.node(index).mesh_links().collect())
        .collect();
    assert!(done, "the mesh is not full: {links:#?}");
}

#[test]
fn five_members_build_a_full_mesh_through_loss() {
    for seed in 0..8 {
        let lossy = Conditions::from_rtt(80_000, 200_000);
        let mut cluster = session(5, lossy, seed);
        build(&mut cluster, &[0, 1, 2, 3, 4], 4_000_000);
        // It does not disturb the session.
        cluster.run_us(10_000_000);
        assert!(is_full(&cluster, &[0, 1, 2, 3, 4]), "seed {seed}");
        assert!(
            cluster.settled(&[0, 1, 2, 3, 4]) > Tick::new(300),
            "seed {seed}"
        );
        for index in 0..5 {
            let drops = cluster.node(index).statistics().drops;
            assert_eq!(drops.of(DropReason::Malformed), 0, "seed {seed}");
            // A client that had to ask with another nonce has another secret than its first.
            let other = drops.of(DropReason::NotAuthentic);
            assert!(other < 10, "seed {seed}: {other}");
        }
    }
}

#[test]
fn the_round_trip_of_each_pair_is_that_of_its_route() {
    let mut config = host(4, Gate::Paced);
    config.start = Start::Players(2);
    let mut cluster = Cluster::new(config, Conditions::PERFECT, 3);
    cluster.join(player("near"));
    // Clocks whose epochs are hours apart, and which drift.
    cluster.join_drifting(player("ahead"), 7_200_000_000, 500);
    cluster.join_drifting(player("slow"), 60_000_000, -500);
    let trip_us = |a: Index, b: Index| 10_000 * (1 + a + 2 * b) as u64;
    for a in 0..4 {
        for b in a + 1..4 {
            let conditions = Conditions::from_rtt(trip_us(a, b), 0);
            cluster.set_route(a, b, conditions);
            cluster.set_route(b, a, conditions);
        }
    }
    build(&mut cluster, &[0, 1, 2, 3], 3_000_000);
    cluster.run_us(10_000_000);
    for a in 0..4 {
        for b in a + 1..4 {
            for (from, to) in [(a, b), (b, a)] {
                let found = link(&cluster, from, to).unwrap().rtt_us.unwrap();
                let off = found.abs_diff(trip_us(a, b));
                // Ticks are sent and taken at their own times: a millisecond is lost there.
                assert!(
                    off <= 1_500,
                    "{from} to {to}: {found} not {}",
                    trip_us(a, b)
                );
            }
        }
    }
}

#[test]
fn each_end_knows_until_when_the_other_one_was_there() {
    let mut cluster = session(3, Conditions::from_rtt(40_000, 0), 4);
    build(&mut cluster, &[0, 1, 2], 3_000_000);
    cluster.run_us(2_000_000);
    let cut_at = cluster.now();
    cluster.isolate(2);
    cluster.run_us(3_000_000);
    for from in [0, 1] {
        let link = link(&cluster, from, 2).unwrap();
        // Nothing was heard of after what was under way, and no echo says that it was there since.
        let heard = link.heard_at.unwrap();
        assert!(heard <= cut_at.plus_micros(20_000) && heard.plus_micros(300_000) > cut_at);
        assert!(link.echoed_at.unwrap() < cut_at);
    }
    assert!(link(&cluster, 0, 1).unwrap().echoed_at.unwrap() > cut_at.plus_micros(2_600_000));
    cluster.mend(2);
    cluster.run_us(1_000_000);
    assert!(link(&cluster, 1, 2).unwrap().heard_at.unwrap() > cut_at.plus_micros(3_000_000));
}

#[test]
fn who_leaves_is_forgotten_and_who_joins_is_met() {
    let mut config = host(4, Gate::Paced);
    config.start = Start::Players(3);
    let mut cluster = Cluster::new(config, Conditions::from_rtt(60_000, 50_000), 5);
    cluster.join(player("stays"));
    cluster.join(player("leaves"));
    build(&mut cluster, &[0, 1, 2], 4_000_000);
    cluster.driver(2).node_mut().leave();
    let gone = member(&cluster, 2);
    assert!(cluster.run_while_not(1_000_000, |cluster| is_full(cluster, &[0, 1])));
    assert_eq!(cluster.node(2).mesh_links().count(), 0);
    let late = cluster.join(player("joins"));
    build(&mut cluster, &[0, 1, late], 4_000_000);
    assert_ne!(member(&cluster, late), gone);
    let watcher = cluster.join(JoinConfig {
        role: Role::Spectator,
        ..player("watches")
    });
    build(&mut cluster, &[0, 1, late, watcher], 4_000_000);
}

#[test]
fn a_crashed_member_that_starts_again_is_met_anew() {
    let mut cluster = session(4, Conditions::from_rtt(60_000, 50_000), 6);
    build(&mut cluster, &[0, 1, 2, 3], 4_000_000);
    cluster.crash(2);
    cluster.run_us(6_000_000);
    // Its link to the host is lost; the others keep what they had, it might only be slow.
    assert!(link(&cluster, 1, 2).is_some());
    assert_eq!(link(&cluster, 0, 2).map(|link| link.path), Some(None));
    // Then its seat is free.
    build(&mut cluster, &[0, 1, 3], 40_000_000);
    cluster.restart(2, 0, player("again"));
    build(&mut cluster, &[0, 1, 2, 3], 4_000_000);
    assert_eq!(link(&cluster, 1, 2).unwrap().path, Some(cluster.path_to(2)));
}

#[test]
fn a_member_that_comes_back_keeps_its_warm_links() {
    let mut cluster = session(4, Conditions::from_rtt(60_000, 0), 7);
    build(&mut cluster, &[0, 1, 2, 3], 3_000_000);
    cluster.run_us(1_000_000);
    // Only the host does not hear it, until it asks anew: with another nonce, so with new secrets.
    cluster.cut.push((2, 0));
    cluster.cut.push((0, 2));
    let since = cluster.now();
    cluster.run_us(7_000_000);
    for other in [1, 3] {
        assert!(link(&cluster, other, 2).unwrap().is_confirmed);
        assert!(link(&cluster, other, 2).unwrap().heard_at.unwrap() > since.plus_micros(6_500_000));
    }
    cluster.mend(2);
    build(&mut cluster, &[0, 1, 2, 3], 3_000_000);
    for _ in 0..40 {
        cluster.run_us(100_000);
        for other in [1, 3] {
            let quiet = cluster
                .now()
                .micros_since(link(&cluster, other, 2).unwrap().heard_at.unwrap());
            assert!(quiet <= 290_000, "a gap of {quiet} us while secrets change");
        }
    }
    let drops = cluster.node(1).statistics().drops;
    assert_eq!(drops.of(DropReason::NotAuthentic), 0);
}

#[test]
fn wrong_macs_replays_and_foreign_paths_are_dropped_and_nothing_is_lost() {
    let mut cluster = session(4, Conditions::from_rtt(40_000, 0), 8);
    build(&mut cluster, &[0, 1, 2, 3], 3_000_000);
    cluster.tapped = 4000;
    cluster.run_us(2_000_000);
    let from_one: Vec<Vec<u8>> = cluster
        .tap
        .iter()
        .filter(|(from, to, bytes)| (*from, *to, bytes[0]) == (1, 2, kind::MESH))
        .map(|(_, _, bytes)| bytes.clone())
        .collect();
    assert!(from_one.len() >= 7);
    let before = cluster.node(2).statistics().drops;
    let path_before = link(&cluster, 2, 1).unwrap().path;
    for bytes in &from_one {
        cluster.inject(1, 2, bytes);
        cluster.inject(3, 2, bytes);
        cluster.inject_over(phalanx::netcode::id::Path(77), 2, bytes);
        let mut forged = bytes.clone();
        // Kind, mac, sender, counter.
        forged[10] = forged[10].wrapping_add(100);
        cluster.inject(1, 2, &forged);
        let mut other = bytes.clone();
        other[9] = 3;
        cluster.inject(3, 2, &other);
    }
    cluster.run_us(3_000_000);
    let count = from_one.len() as u64;
    let dropped = |reason| cluster.node(2).statistics().drops.of(reason) - before.of(reason);
    assert_eq!(dropped(DropReason::Duplicate), 2 * count);
    assert_eq!(dropped(DropReason::UnknownPath), count);
    assert_eq!(dropped(DropReason::NotAuthentic), 2 * count);
    assert_eq!(link(&cluster, 2, 1).unwrap().path, path_before);
    assert!(is_full(&cluster, &[0, 1, 2, 3]));
    assert_eq!(
        link(&cluster, 2, 1).unwrap().loss,
        0,
        "nothing else was lost"
    );
}

#[test]
fn mutated_datagrams_of_the_mesh_never_pass() {
    let mut cluster = session(4, Conditions::from_rtt(40_000, 0), 9);
    build(&mut cluster, &[0, 1, 2, 3], 3_000_000);
    cluster.mutate = Some(|prng, bytes| {
        if bytes.first() == Some(&kind::MESH) && prng.chance_per_million(500_000) {
            let at = usize::try_from(prng.below(bytes.len() as u64)).expect("a length");
            bytes[at] ^= 1 << prng.below(8);
            if prng.chance_per_million(100_000) {
                bytes.truncate(at);
            }
        }
    });
    cluster.run_us(20_000_000);
    assert!(is_full(&cluster, &[0, 1, 2, 3]));
    let dropped: u64 = (0..4)
        .map(|index| {
            cluster
                .node(index)
                .statistics()
                .drops
                .of(DropReason::NotAuthentic)
        })
        .sum();
    assert!(dropped > 100, "{dropped}");
    for from in 1..4 {
        for to in (1..4).filter(|&to| to != from) {
            let rtt_us = link(&cluster, from, to).unwrap().rtt_us.unwrap();
            assert!(rtt_us.abs_diff(40_000) < 1_500, "{rtt_us}");
        }
    }
}

#[test]
fn eight_idle_members_send_less_than_a_kilobyte_per_second_each() {
    let mut cluster = session(8, Conditions::from_rtt(50_000, 0), 10);
    let all: Vec<Index> = (0..8).collect();
    build(&mut cluster, &all, 4_000_000);
    cluster.run_us(5_000_000);
    let sent = |cluster: &Cluster, index| -> u64 {
        let links = cluster.node(index).mesh_links();
        links.map(|link| link.statistics.bytes_sent).sum()
    };
    let before: Vec<u64> = all.iter().map(|&index| sent(&cluster, index)).collect();
    cluster.run_us(60_000_000);
    for &index in &all {
        let per_second = (sent(&cluster, index) - before[index]) / 60;
        println!("member {index}: {per_second} B/s");
        assert!(per_second <= 1000, "member {index} sends {per_second} B/s");
        assert!(per_second >= 100, "member {index} sends {per_second} B/s");
    }
}

#[test]
fn above_sixteen_members_only_those_who_may_host_next_are_linked_to_all() {
    let mut config = host(20, Gate::Paced);
    config.start = Start::Players(2);
    let mut cluster = Cluster::new(config, Conditions::from_rtt(30_000, 0), 11);
    for index in 1..16 {
        cluster.join(player(&format!("player {index}")));
    }
    let all: Vec<Index> = (0..16).collect();
    build(&mut cluster, &all, 6_000_000);
    cluster.join(player("one more"));
    cluster.run_us(6_000_000);
    for index in 0..17 {
        let links = cluster.node(index).mesh_links().count();
        // The host, and three others until it is said who hosts next.
        let expected = if index < 4 { 16 } else { 4 };
        assert_eq!(links, expected, "member {index}");
        assert!(
            cluster
                .node(index)
                .mesh_links()
                .all(|link| link.is_confirmed)
        );
    }
}

#[test]
fn who_may_host_next_is_linked_to_all_however_many_there_are() {
    let mut config = host(20, Gate::Paced);
    config.start = Start::Players(2);
    config.migration = MigrationConfig::ELECTED;
    let mut cluster = Cluster::new(config, Conditions::from_rtt(30_000, 0), 14);
    for index in 1..18 {
        cluster.join(player(&format!("player {index}")));
    }
    let standbys = |cluster: &Cluster| {
        let terms = cluster.node(0).terms().expect("hosting moves by election");
        terms.roster().standbys.clone()
    };
    let confirmed = |cluster: &Cluster, index| -> Vec<MemberId> {
        let links = cluster.node(index).mesh_links();
        let confirmed = links.filter(|link| link.is_confirmed);
        confirmed.map(|link| link.member).collect()
    };
    let linked = cluster.run_while_not(20_000_000, |cluster| {
        let standbys = standbys(cluster);
        let with_all = (1..18).filter(|&index| confirmed(cluster, index).len() > 5);
        !standbys.is_empty()
            && with_all.count() == 3
            && (1..18).all(|index| {
                let (own, linked) = (member(cluster, index), confirmed(cluster, index));
                let mut standbys = standbys.iter();
                standbys.all(|standby| *standby == own || linked.contains(standby))
            })
    });
    assert!(linked, "standbys {:?}", standbys(&cluster));
}

#[test]
fn a_link_that_opens_nothing_leaves_the_session_as_it_is() {
    let mut cluster = session(3, Conditions::from_rtt(30_000, 0), 12);
    cluster.set_opens(1, false);
    cluster.run_us(5_000_000);
    assert_eq!(link(&cluster, 1, 2).unwrap().path, None);
    assert_eq!(link(&cluster, 2, 1).unwrap().path, None);
    assert!(link(&cluster, 0, 1).unwrap().is_confirmed);
    assert!(cluster.settled(&[0, 1, 2]) > Tick::new(200));
    // It is tried again.
    cluster.set_opens(1, true);
    build(&mut cluster, &[0, 1, 2], 9_000_000);
}

#[test]
fn where_hosting_stays_there_is_no_mesh() {
    for gate in [
        Gate::Paced,
        Gate::Wait {
            limit_us: 2_000_000,
        },
    ] {
        let mut config = host(4, gate);
        config.migration.allows = false;
        let mut cluster = Cluster::new(config, Conditions::from_rtt(30_000, 10_000), 13);
        cluster.tapped = 100_000;
        for name in ["a", "b", "c"] {
            cluster.join(player(name));
        }
        cluster.run_us(10_000_000);
        assert!(cluster.settled(&[0, 1, 2, 3]) > Tick::new(400));
        assert!(
            cluster
                .tap
                .iter()
                .all(|(_, _, bytes)| bytes[0] != kind::MESH)
        );
        assert!(
            cluster
                .tap
                .iter()
                .all(|(from, to, _)| *from == 0 || *to == 0)
        );
        for index in 0..4 {
            assert_eq!(cluster.node(index).mesh_links().count(), 0);
        }
    }
}
