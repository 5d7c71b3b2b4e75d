//! What the host of a state-sync session draws is its secret, and clients predict all the same.

use phalanx::EcsSimulation;
use phalanx::netcode::driver::Player;
use phalanx::netcode::hash::public_seed;
use phalanx::netcode::input::InputFrame;
use phalanx::netcode::link::conditioner::Conditions;
use phalanx::netcode::node::SessionInfo;
use phalanx::netcode::prng::Prng;
use phalanx::netcode::session::config::{HostConfig, JoinConfig, Mode, Role, Start};
use phalanx::netcode::simulation::Simulation as _;
use phalanx::prelude::*;
use phalanx::{NetIndex, SpawnKey};
use phalanx_tests::cluster::{ClusterOf, Index, Seeded};

const SEED: u64 = 0x1f3a_97c4_58e2_b06d;

/// What a slot shot.
#[derive(Component, Networked, Clone, Copy, Debug, PartialEq)]
struct Shot(u8);

/// What the host drew last.
#[derive(Resource, Networked, Clone, Copy, Debug, Default, PartialEq)]
#[networked(visibility = HostOnly)]
struct Luck(u64);

/// What every node makes by itself. It is no state.
#[derive(Resource, Clone, Copy, Debug, PartialEq, Eq)]
struct Landscape(u64);

fn fire(
    side: Res<Side>,
    inputs: Res<Inputs<u8>>,
    heroes: Query<&Owner, Without<SpawnKey>>,
    mut commands: NetCommands,
) {
    let mut slots: Vec<Slot> = heroes.iter().map(|owner| owner.0).collect();
    slots.sort();
    for slot in slots {
        if let (true, Some(&shot @ 1..)) = (side.computes(slot), inputs.get(slot)) {
            commands.spawn_predicted(slot, Shot(shot));
        }
    }
}

fn draw(mut rng: ResMut<TickRng>, mut luck: ResMut<Luck>) {
    luck.0 = rng.next_u64();
}

fn game() -> Game {
    Game::builder("seeds")
        .component::<Shot>()
        .resource::<Luck>()
        .input::<u8>()
        .systems(|| (fire, draw).chain())
        .setup(|world, setup| {
            world.insert_resource(Luck::default());
            world.insert_resource(Landscape(setup.public_seed));
            for slot in 0..setup.slots {
                world.spawn_networked(Owner(Slot(slot)));
            }
        })
        .build()
        .expect("the rules fit together")
}

/// Shoots now and then.
struct Gunner {
    prng: Prng,
    is_host: bool,
    /// Most entities that were there before the host told of them.
    ahead: usize,
    /// What the session's seed gives first.
    first_draw: u64,
}

impl Seeded for Gunner {
    fn seeded(seed: u64, stream: u64) -> Self {
        Self {
            prng: Prng::with_stream(seed, stream),
            is_host: stream == 0,
            ahead: 0,
            first_draw: 0,
        }
    }
}

impl Player for Gunner {
    type Simulation = EcsSimulation;

    fn begin(&mut self, session: &SessionInfo) -> EcsSimulation {
        self.first_draw = TickRng::new(session.seed).next_u64();
        let mut simulation = game().simulation_of(session);
        if !self.is_host {
            simulation.set_side(session.slot.map_or(Side::Spectating, Side::Predicting));
        }
        simulation
    }

    fn sample(&mut self, _tick: Tick, _simulation: &EcsSimulation, input: &mut [u8]) {
        let fires = self.prng.chance_per_million(100_000);
        input[0] = if fires {
            1 + self.prng.next_u32().to_le_bytes()[0] / 2
        } else {
            0
        };
    }

    fn stepped(&mut self, simulation: &EcsSimulation, frame: &InputFrame) {
        self.ahead = self.ahead.max(ids(simulation, true).len());
        if self.is_host && frame.tick() == Tick::new(1) {
            let luck = simulation.world().resource::<Luck>().0;
            assert_eq!(luck, self.first_draw, "the host draws from its seed");
        }
    }
}

/// The ids that a client gave, or those of the host.
fn ids(simulation: &EcsSimulation, predicted: bool) -> Vec<NetId> {
    let ids = simulation.world().resource::<NetIndex>().iter();
    ids.map(|(id, _)| id)
        .filter(|id| id.is_predicted() == predicted)
        .collect()
}

fn simulation(cluster: &mut ClusterOf<Gunner>, index: Index) -> &EcsSimulation {
    cluster.driver(index).simulation().expect("it has a state")
}

#[test]
fn clients_get_another_seed_and_their_spawns_match() {
    let info = game().info_for("1", Mode::StateSync);
    let config = HostConfig {
        start: Start::Players(2),
        last_tick: Some(Tick::new(400)),
        ..HostConfig::new(info.clone(), 2)
    };
    let mut cluster = ClusterOf::<Gunner>::new(config, Conditions::from_rtt(70_000, 20_000), SEED);
    cluster.tapped = usize::MAX;
    let player = |name| JoinConfig {
        prediction_ticks: 12,
        ..JoinConfig::new(info.clone(), name)
    };
    cluster.join(player("one"));
    cluster.join(player("two"));
    cluster.join(JoinConfig {
        role: Role::Spectator,
        ..JoinConfig::new(info.clone(), "three")
    });
    cluster.run_us(12_000_000);

    assert_eq!(cluster.node(0).session().seed, SEED);
    assert_eq!(cluster.node(0).session().public_seed, public_seed(SEED));
    let landscape = *simulation(&mut cluster, 0).world().resource::<Landscape>();
    let shots = ids(simulation(&mut cluster, 0), false);
    assert!(shots.len() > 2 + 40, "{}", shots.len());
    for index in 1..4 {
        let session = cluster.node(index).session().clone();
        assert_eq!(session.seed, public_seed(SEED), "node {index}");
        assert_eq!(session.public_seed, public_seed(SEED), "node {index}");
        let draws = [0, index].map(|at| cluster.driver(at).player_mut().first_draw);
        assert_ne!(draws[0], draws[1], "node {index}");
        let client = simulation(&mut cluster, index);
        assert_eq!(*client.world().resource::<Landscape>(), landscape);
        // What a client knows does not lead to the host's luck.
        let known = client.world().resource::<Luck>().0;
        let host = simulation(&mut cluster, 0).world().resource::<Luck>().0;
        assert_ne!(known, host, "node {index}");
        let statistics = cluster.node(index).state_sync().expect("state-sync mode");
        assert_eq!(statistics.converged, Some(true), "node {index}");
        // Every shot has come by its real id, and none is left under a predicted one.
        assert_eq!(ids(simulation(&mut cluster, index), false), shots);
        assert!(ids(simulation(&mut cluster, index), true).is_empty());
        let ahead = cluster.driver(index).player_mut().ahead;
        assert_eq!(ahead > 0, index < 3, "node {index}: {ahead}");
    }
    // Nobody who listens gets the seed, either.
    let bytes = SEED.to_le_bytes();
    let reversed = SEED.to_be_bytes();
    assert!(cluster.tap.len() > 1000);
    for (from, to, datagram) in &cluster.tap {
        let leaks = datagram
            .windows(8)
            .any(|window| window == bytes || window == reversed);
        assert!(!leaks, "from {from} to {to}");
    }
}

#[test]
fn in_lockstep_everyone_has_the_seed() {
    let info = game().info("1");
    let config = HostConfig {
        start: Start::Players(1),
        ..HostConfig::new(info.clone(), 1)
    };
    let mut cluster = ClusterOf::<Gunner>::new(config, Conditions::from_rtt(20_000, 0), SEED);
    cluster.driver(0).player_mut().is_host = true;
    let index = cluster.join(JoinConfig::new(info, "one"));
    // Everyone computes everything.
    cluster.driver(index).player_mut().is_host = true;
    cluster.run_us(1_000_000);
    let session = cluster.node(index).session();
    assert_eq!(
        (session.seed, session.public_seed),
        (SEED, public_seed(SEED))
    );
    assert!(cluster.node(index).tick() > Tick::new(30));
    let host = cluster.driver(0).state_hash();
    assert!(host.is_some() && simulation(&mut cluster, 0).tick() > Tick::new(30));
}
