//! Recordings of state-sync sessions: the host's, and what clients were shown.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use phalanx::netcode::link::conditioner::Conditions;
use phalanx::netcode::node::Event;
use phalanx::netcode::replay::{Completeness, Mode, Player, Reader, VerifyReport};
use phalanx::netcode::session::config::{HostConfig, JoinConfig, Role, Start};
use phalanx::netcode::tick::Tick;
use phalanx_tests::cluster::{ClusterOf, Index};
use phalanx_tests::yard::{self, Plan, Pusher, Yard};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// Opens a recording to play it on a fresh yard.
fn play(file: &Path) -> Player<Yard, BufReader<File>> {
    let reader = BufReader::new(File::open(file).expect("it was recorded"));
    let reader = Reader::open(reader).expect("a replay");
    assert_eq!(reader.header().mode, Mode::StateSync);
    assert_eq!(reader.completeness(), Completeness::Complete);
    let yard = Yard::new(77, reader.header().slots(), Plan::default(), None);
    Player::new(yard, reader).expect("it fits the yard")
}

fn verify(file: &Path) -> (Player<Yard, BufReader<File>>, VerifyReport) {
    let mut player = play(file);
    let report = player.verify(|_, _| ()).expect("it verifies");
    assert_eq!(report.hashes, report.states);
    (player, report)
}

#[test]
fn the_hosts_recording_and_those_of_clients_end_in_the_hosts_state() {
    let config = HostConfig {
        start: Start::Players(1),
        ..HostConfig::new(yard::game(), 2)
    };
    let conditions = Conditions::from_rtt(60_000, 50_000);
    let mut cluster = ClusterOf::<Pusher>::new(config, conditions, 5);
    cluster.driver(0).record(file("state_sync_host.phxr"));
    let player = cluster.join(JoinConfig {
        prediction_ticks: 16,
        ..JoinConfig::new(yard::game(), "player")
    });
    cluster
        .driver(player)
        .record(file("state_sync_player.phxr"));
    let spectator = cluster.join(JoinConfig {
        role: Role::Spectator,
        ..JoinConfig::new(yard::game(), "spectator")
    });
    let members = [player, spectator];
    let reached = cluster.run_while_not(60_000_000, |c| c.settled(&members) >= Tick::new(400));
    assert!(reached, "the session does not go on");
    // One that comes late records from there on.
    let late = cluster.join(JoinConfig {
        role: Role::Spectator,
        ..JoinConfig::new(yard::game(), "late")
    });
    cluster.driver(late).record(file("state_sync_late.phxr"));
    let reached = cluster.run_while_not(60_000_000, |c| c.settled(&[late]) >= Tick::new(900));
    assert!(reached, "the late one does not come");
    let last = cluster.node(0).tick().plus(50);
    cluster.driver(0).node_mut().end_at(last);
    cluster.run_us(4_000_000);
    let ended = |events: &[Event]| events.iter().any(|it| matches!(it, Event::Ended { .. }));
    assert!(cluster.members.iter().all(|member| ended(&member.events)));

    let finish = |cluster: &mut ClusterOf<Pusher>, index: Index| {
        let summary = cluster.driver(index).finish_recording();
        summary.expect("it recorded").expect("all was written")
    };
    let real = cluster.driver(0).simulation().expect("a state").clone();
    let mut hashes = Vec::new();
    for (index, name, first) in [
        (0, "state_sync_host.phxr", 0),
        (player, "state_sync_player.phxr", 0),
        (late, "state_sync_late.phxr", 400),
    ] {
        let summary = finish(&mut cluster, index);
        assert_eq!(summary.last, last, "{name}");
        assert!(summary.first.number() >= first, "{name}");
        let (mut player, report) = verify(&file(name));
        assert_eq!((report.first, report.last), (summary.first, last), "{name}");
        assert_eq!(report.states, summary.states, "{name}");
        assert_eq!(player.simulation().bodies(), real.bodies(), "{name}");
        assert_eq!(player.simulation().wind(), real.wind(), "{name}");
        let (shown, recorded) = player.hashes().expect("there is one");
        assert_eq!(Some(shown), recorded, "{name}");
        hashes.push(shown);
    }
    // All of them were shown everything, so all end with the same quantized state.
    assert_eq!((hashes[0], hashes[0]), (hashes[1], hashes[2]));

    let mut player = play(&file("state_sync_host.phxr"));
    assert_eq!(player.tick(), Tick::ZERO);
    let names = player.reader().header().roster.clone();
    assert_eq!(names[0], "player");
    player.seek(Tick::new(500)).expect("it is within");
    assert_eq!(player.tick(), Tick::new(500));
    let table = player.reader_mut().breakdown(|_, _| ()).expect("whole");
    assert_eq!(table.snapshots, u64::from(last.number().div_ceil(3)) + 1);
    assert_eq!(table.rows[0].kind, "Body", "{table}");
}
