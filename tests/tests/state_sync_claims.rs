//! What clients decide, through the engine: components, systems and the game's rules for claims.

use phalanx::EcsSimulation;
use phalanx::netcode::driver::Player;
use phalanx::netcode::input::InputFrame;
use phalanx::netcode::link::conditioner::Conditions;
use phalanx::netcode::link::memory::MemoryHub;
use phalanx::netcode::node::{Event, SessionInfo, StateSyncStatistics};
use phalanx::netcode::session::config::{HostConfig, JoinConfig, Mode, Role, Start};
use phalanx::prelude::*;
use phalanx::{NetIndex, Session, SessionError};
use phalanx_tests::cluster::{ClusterOf, Index, Seeded};

type Cluster = ClusterOf<Driver>;

/// Fastest that the rules allow, per claim: some ticks may lie between two.
const STRIDE_MAX: i32 = 40;
/// What a cheat jumps.
const JUMP: i32 = 5000;

#[derive(Component, Networked, Clone, Copy, Debug, PartialEq)]
struct Car {
    at: i32,
    /// Of no rule's concern.
    laps: u8,
}

/// The car drives where it is decided, and nowhere else.
fn drive(side: Res<Side>, inputs: Res<Inputs<u8>>, cars: Query<(&mut Car, &Authority)>) {
    for (mut car, decider) in cars {
        if side.predicting() != Some(decider.0) {
            continue;
        }
        match inputs.get(decider.0) {
            Some(1) => car.at += 3,
            Some(2) => car.at += JUMP,
            Some(_) | None => {}
        }
        car.laps = car.laps.wrapping_add(1);
    }
}

fn game() -> Game {
    Game::builder("claims")
        .component::<Car>()
        .input::<u8>()
        .systems(|| drive)
        .setup(|world, setup| {
            for slot in 0..setup.slots {
                let car = Car { at: 0, laps: 0 };
                world.spawn_networked((car, Owner(Slot(slot)), Authority(Slot(slot))));
            }
        })
        .validate_claims(|world, claim| {
            let entity = world.resource::<NetIndex>().get(claim.id());
            let before = entity.and_then(|entity| world.get::<Car>(entity));
            match (before, claim.get::<Car>()) {
                (Some(before), Some(after)) => (after.at - before.at).abs() <= STRIDE_MAX,
                (_, after) => after.is_none(),
            }
        })
        .build()
        .expect("the rules fit together")
}

/// Drives on, and cheats at one tick if it is one that does.
struct Driver {
    is_host: bool,
    cheats_at: Option<Tick>,
    /// On the host: the furthest that each car went in one tick.
    strides: [i32; 2],
    places: [i32; 2],
}

impl Seeded for Driver {
    fn seeded(_seed: u64, stream: u64) -> Self {
        Self {
            is_host: stream == 0,
            cheats_at: None,
            strides: [0; 2],
            places: [0; 2],
        }
    }
}

impl Player for Driver {
    type Simulation = EcsSimulation;

    fn begin(&mut self, session: &SessionInfo) -> EcsSimulation {
        let mut simulation = game().simulation_of(session);
        if !self.is_host {
            simulation.set_side(session.slot.map_or(Side::Spectating, Side::Predicting));
        }
        simulation
    }

    fn sample(&mut self, tick: Tick, _simulation: &EcsSimulation, input: &mut [u8]) {
        input[0] = if self.cheats_at == Some(tick) { 2 } else { 1 };
    }

    fn stepped(&mut self, simulation: &EcsSimulation, _frame: &InputFrame) {
        for slot in 0..2 {
            let at = car(simulation, Slot(slot)).map_or(0, |car| car.at);
            let slot = usize::from(slot);
            self.strides[slot] = self.strides[slot].max((at - self.places[slot]).abs());
            self.places[slot] = at;
        }
    }
}

fn car(simulation: &EcsSimulation, slot: Slot) -> Option<Car> {
    let world = simulation.world();
    let ids = world.resource::<NetIndex>().iter();
    ids.map(|(_, entity)| entity)
        .find(|&entity| world.get::<Owner>(entity) == Some(&Owner(slot)))
        .and_then(|entity| world.get::<Car>(entity).copied())
}

fn place(cluster: &mut Cluster, index: Index, slot: u8) -> Car {
    let simulation = cluster.driver(index).simulation().expect("a state");
    car(simulation, Slot(slot)).expect("it has a car")
}

fn statistics(cluster: &Cluster, index: Index) -> StateSyncStatistics {
    cluster.node(index).state_sync().expect("state-sync mode")
}

/// Of which entities' claims `index` was told that they were ignored.
fn refusals(cluster: &Cluster, index: Index) -> Vec<(Slot, bool)> {
    let events = cluster.members[index].events.iter();
    events
        .filter_map(|event| {
            let Event::ClaimRefused {
                slot, is_foreign, ..
            } = event
            else {
                return None;
            };
            Some((*slot, *is_foreign))
        })
        .collect()
}

fn cluster(seed: u64) -> Cluster {
    let info = game().info_for("1", Mode::StateSync);
    let config = HostConfig {
        start: Start::Players(2),
        ..HostConfig::new(info.clone(), 2)
    };
    let mut cluster = Cluster::new(config, Conditions::from_rtt(80_000, 30_000), seed);
    for name in ["one", "two"] {
        cluster.join(JoinConfig {
            prediction_ticks: 12,
            ..JoinConfig::new(info.clone(), name)
        });
    }
    cluster
}

#[test]
fn the_host_takes_over_what_clients_decide_and_everyone_sees_it() {
    let mut cluster = cluster(31);
    cluster.run_us(6_000_000);
    for (index, slot) in [(1, 0), (2, 1)] {
        let own = place(&mut cluster, index, slot);
        let host = place(&mut cluster, 0, slot);
        let other = place(&mut cluster, 3 - index, slot);
        // 3 per tick, for about five seconds.
        assert!(host.at > 600, "slot {slot}: {host:?}");
        let behind = own.at - host.at;
        assert!((0..=60).contains(&behind), "slot {slot}: {own:?}, {host:?}");
        assert!(own.at - other.at < 100, "slot {slot}: {own:?}, {other:?}");
        assert!(host.laps > 0, "all of the row travels");
        assert!(refusals(&cluster, index).is_empty());
    }
    let told = statistics(&cluster, 0);
    assert!(told.claims > 200, "{told:?}");
    assert_eq!((told.claims_forbidden, told.claims_foreign), (0, 0));
    // Nobody decides for another one: what ran again did not move the own car back.
    let last = cluster.node(0).tick().plus(30);
    cluster.driver(0).node_mut().end_at(last);
    cluster.run_us(4_000_000);
    for index in [1, 2] {
        let converged = statistics(&cluster, index).converged;
        assert_eq!(converged, Some(true), "node {index}");
    }
}

#[test]
fn what_the_rules_forbid_does_not_pass_and_the_client_hears_of_it() {
    let mut cluster = cluster(32);
    cluster.run_us(3_000_000);
    let cheats_at = cluster.node(1).tick().plus(30);
    cluster.driver(1).player_mut().cheats_at = Some(cheats_at);
    cluster.run_us(4_000_000);
    let cheat = place(&mut cluster, 1, 0);
    assert!(cheat.at > JUMP, "it shows itself what it likes: {cheat:?}");
    let host = place(&mut cluster, 0, 0);
    assert!((100..JUMP / 2).contains(&host.at), "{host:?}");
    let stride = cluster.driver(0).player_mut().strides;
    assert!(
        stride.iter().all(|&stride| stride <= STRIDE_MAX),
        "{stride:?}"
    );
    // The honest one goes on.
    let honest = place(&mut cluster, 0, 1);
    assert!(honest.at > host.at + 200, "{honest:?}");
    let told = statistics(&cluster, 0);
    assert!(told.claims_forbidden > 50, "{told:?}");
    assert_eq!(told.claims_foreign, 0, "{told:?}");
    let at_host = refusals(&cluster, 0);
    assert!(
        (2..=6).contains(&at_host.len()),
        "once a second: {at_host:?}"
    );
    assert!(at_host.iter().all(|refusal| *refusal == (Slot(0), false)));
    assert_eq!(
        refusals(&cluster, 1),
        at_host,
        "the client is told the same"
    );
    let denied = statistics(&cluster, 1).claims_denied;
    assert_eq!(denied, at_host.len() as u64);
    assert!(refusals(&cluster, 2).is_empty());
}

#[test]
fn a_client_that_runs_no_tick_cannot_join_a_game_of_claims() {
    let game = game();
    let hub = MemoryHub::new();
    let join = |role, prediction_ticks| {
        let mut link = hub.link();
        let address = hub.link().address();
        let path = link.connect(address);
        let config = JoinConfig {
            role,
            prediction_ticks,
            ..JoinConfig::new(game.info_for("1", Mode::StateSync), "one")
        };
        Session::join(&game, config, link, path, |_, _: &World| 0_u8).map(drop)
    };
    let error = join(Role::Player, 0).expect_err("it decides nothing");
    assert!(matches!(error, SessionError::DecidesWithoutTicks));
    assert!(error.to_string().contains("prediction_ticks"), "{error}");
    assert!(join(Role::Player, 1).is_ok());
    assert!(join(Role::Spectator, 0).is_ok());
}
