//! Two servers, and players behind them that neither host nor vote: when one server dies the other one
//! goes on in a session of its own, and the players go along, each in its slot.

use phalanx::netcode::link::conditioner::Conditions;
use phalanx::netcode::migration::HostPolicy;
use phalanx::netcode::node::Event;
use phalanx::netcode::session::config::{
    Gate, HostConfig, JoinConfig, MigrationConfig, Role, Start,
};
use phalanx::netcode::tick::Tick;
use phalanx_tests::cluster::{Bot, ClusterOf, Index, Seeded};
use phalanx_tests::seeds;
use phalanx_tests::toy;
use phalanx_tests::yard;
use phalanx_tests::yard::Pusher;

const STANDBY: Index = 1;
const PLAYERS: [Index; 2] = [2, 3];

/// A server, its standby, and two players.
fn servers<P: Seeded>(
    config: HostConfig,
    usual: &JoinConfig,
    loss: u32,
    seed: u64,
) -> ClusterOf<P> {
    let host = HostConfig {
        plays: false,
        start: Start::Players(2),
        migration: MigrationConfig::ELECTED,
        spectators: 1,
        ..config
    };
    let conditions = Conditions {
        loss_per_million: loss,
        ..Conditions::from_rtt(50_000, 5_000)
    };
    let mut cluster = ClusterOf::new(host, conditions, seed);
    cluster.join(JoinConfig {
        role: Role::Spectator,
        name: "standby".to_owned(),
        ..usual.clone()
    });
    for number in PLAYERS {
        cluster.join(JoinConfig {
            name: format!("player {number}"),
            hosting: HostPolicy::bystander(),
            ..usual.clone()
        });
    }
    cluster
}

/// Lets the server die, and checks that all are together again with the other one.
fn play_on<P: Seeded>(cluster: &mut ClusterOf<P>, what: &str) {
    cluster.run_us(6_000_000);
    let before: Vec<_> = PLAYERS
        .iter()
        .map(|&it| cluster.node(it).session().slot)
        .collect();
    assert!(before.iter().all(Option::is_some), "{what}: {before:?}");
    let ran = cluster.node(STANDBY).tick();
    assert!(ran > Tick::new(100), "{what}: {ran}");
    cluster.crash(0);
    cluster.run_us(5_000_000);
    let apart = cluster.node(STANDBY).session().session;
    assert!(cluster.node(STANDBY).is_host(), "{what}");
    let standby = cluster.node(STANDBY).session().member;
    for (&player, &slot) in PLAYERS.iter().zip(&before) {
        let node = cluster.node(player);
        assert_eq!(node.session().session, apart, "{what}: {player}");
        assert_eq!(node.host_member(), standby, "{what}: {player}");
        assert_eq!(node.session().slot, slot, "{what}: {player}");
    }
    cluster.run_us(4_000_000);
    for &player in &PLAYERS {
        let is_out = |event: &Event| matches!(event, Event::Disconnected { .. });
        let events = &cluster.members[player].events;
        assert!(!events.iter().any(is_out), "{what}: {player}");
        let desyncs = cluster.node(player).statistics().desyncs;
        assert_eq!(desyncs, 0, "{what}: {player}");
    }
    let roster = cluster.node(STANDBY).roster();
    for &player in &PLAYERS {
        let member = roster.member(cluster.node(player).session().member);
        assert!(member.is_some_and(|it| it.connected), "{what}: {player}");
    }
}

#[test]
fn players_behind_two_servers_play_on_with_the_other_one_in_lockstep() {
    let wait = Gate::Wait {
        limit_us: 4_000_000,
    };
    for gate in [Gate::Paced, wait] {
        for seed in seeds::range(5) {
            let what = format!("{gate:?}, seed {seed}");
            let config = HostConfig {
                gate,
                ..HostConfig::new(toy::game(), 2)
            };
            let usual = JoinConfig::new(toy::game(), "");
            let loss = if seed % 2 == 0 { 50_000 } else { 0 };
            let mut cluster: ClusterOf<Bot> = servers(config, &usual, loss, seed);
            play_on(&mut cluster, &what);
            // What players do acts.
            for player in PLAYERS {
                cluster.members[player].events.clear();
            }
            cluster.run_us(2_000_000);
            let host = cluster.node(STANDBY).tick();
            let settled = cluster.node(STANDBY).settled_tick();
            let simulation = cluster.members[STANDBY].driver.simulation();
            let ran = simulation.and_then(|it| it.footprint(settled));
            assert_eq!(ran.map(|it| it.present), Some(0b11), "{what}: {settled}");
            for player in PLAYERS {
                let submitted = &cluster.driver(player).player_mut().submitted;
                let newest = submitted.last_key_value().map(|(tick, _)| *tick);
                assert!(newest > Some(host), "{what}: {newest:?} at {host}");
                let is_replaced = |event: &Event| matches!(event, Event::InputReplaced { .. });
                let events = &cluster.members[player].events;
                assert!(loss > 0 || !events.iter().any(is_replaced), "{what}");
            }
        }
    }
}

#[test]
fn players_behind_two_servers_play_on_with_the_other_one_in_state_sync() {
    for seed in seeds::range(3) {
        let what = format!("state-sync, seed {seed}");
        let config = HostConfig::new(yard::game(), 2);
        let usual = JoinConfig {
            prediction_ticks: 12,
            ..JoinConfig::new(yard::game(), "")
        };
        let loss = if seed % 2 == 0 { 50_000 } else { 0 };
        let mut cluster: ClusterOf<Pusher> = servers(config, &usual, loss, seed);
        play_on(&mut cluster, &what);
        for player in PLAYERS {
            let told = cluster.node(player).state_sync().expect("a client");
            assert!(told.hashes > 2, "{what}: {told:?}");
            assert_eq!(told.hashes_wrong, 0, "{what}");
        }
    }
}
