//! What the engine promises stays true when the host of a state-sync session changes: events are
//! told once, spawns that clients predict find the host's, and queries for what a player saw are
//! answered. Through components and systems, on whole nodes in virtual time.

use std::collections::{BTreeMap, BTreeSet};

use phalanx::EcsSimulation;
use phalanx::netcode::driver::Player;
use phalanx::netcode::id::MemberId;
use phalanx::netcode::link::conditioner::Conditions;
use phalanx::netcode::node::{Event, SessionInfo};
use phalanx::netcode::prng::Prng;
use phalanx::netcode::session::config::{HostConfig, JoinConfig, MigrationConfig, Mode, Start};
use phalanx::netcode::statesync::StandbyMode;
use phalanx::prelude::*;
use phalanx_tests::cluster::{ClusterOf, Index, Seeded};

const PLAYERS: u8 = 4;
const RTT_US: u64 = 50_000;
/// How far behind each player sees the others.
const BEHIND: u32 = 10;
const WALKS: u8 = 1;
const FIRES: u8 = 2;

#[derive(Component, Networked, Clone, Copy, Debug, PartialEq)]
struct Hero {
    at: i32,
}

#[derive(Component, Networked, Clone, Copy, Debug, PartialEq)]
struct Shell {
    left: u8,
}

/// Something that its player decides: what no input tells.
#[derive(Component, Networked, Clone, Copy, Debug, PartialEq)]
struct Dial {
    turns: u32,
}

#[derive(Clone, Debug, PartialEq)]
struct Shot(Slot);

/// Where the authority says that the shooter saw the hero of slot 0, and when.
#[derive(Clone, Debug, PartialEq)]
struct Aim {
    slot: Slot,
    seen: Tick,
    at: i32,
}

fn walk(inputs: Res<Inputs<u8>>, heroes: Query<(&mut Hero, &Owner)>) {
    for (mut hero, owner) in heroes {
        if let Some(&input) = inputs.get(owner.0) {
            hero.at += if input == WALKS { 3 } else { 1 };
        }
    }
}

fn turn(side: Res<Side>, dials: Query<(&mut Dial, &Authority)>) {
    for (mut dial, decider) in dials {
        if side.predicting() == Some(decider.0) {
            dial.turns += 1;
        }
    }
}

fn fire(
    side: Res<Side>,
    inputs: Res<Inputs<u8>>,
    rewind: Rewind<Hero>,
    heroes: Query<(&NetId, &Owner), With<Hero>>,
    mut commands: NetCommands,
    mut shots: ResMut<TickEvents<Shot>>,
    mut aims: ResMut<TickEvents<Aim>>,
) {
    let target = heroes.iter().find(|(_, owner)| owner.0 == Slot(0));
    for (slot, _) in inputs.iter().filter(|(_, input)| **input == FIRES) {
        commands.spawn_predicted(slot, Shell { left: 90 });
        shots.send(Shot(slot));
        let then = rewind.at(slot);
        if side.is_authority()
            && let Some(hero) = target.and_then(|(&id, _)| then.get(id))
        {
            let (seen, at) = (then.tick(), hero.at);
            aims.send(Aim { slot, seen, at });
        }
    }
}

fn fly(shells: Query<(&NetId, &mut Shell)>, mut commands: NetCommands) {
    for (&id, mut shell) in shells {
        shell.left = shell.left.saturating_sub(1);
        if shell.left == 0 {
            commands.despawn(id);
        }
    }
}

fn game(decides: bool) -> Game {
    Game::builder("promises")
        .component::<Hero>()
        .component::<Shell>()
        .component::<Dial>()
        .event::<Shot>()
        .event::<Aim>()
        .rewindable::<Hero>(BEHIND + 5)
        .input::<u8>()
        .systems(|| (walk, fire, fly, turn).chain())
        .setup(move |world, setup| {
            for slot in (0..setup.slots).map(Slot) {
                world.spawn_networked((Hero { at: 0 }, Owner(slot)));
            }
            if decides {
                world.spawn_networked((Dial { turns: 0 }, Owner(Slot(1)), Authority(Slot(1))));
            }
        })
        .validate_claims(|_world, claim| claim.get::<Dial>().is_some())
        .build()
        .expect("the rules fit together")
}

/// Walks, and fires now and then.
struct Shooter {
    prng: Prng,
    decides: bool,
    slot: Option<Slot>,
    /// Ticks for which it fired.
    fired: BTreeSet<Tick>,
    /// On a host: where the hero of slot 0 was after a tick.
    places: BTreeMap<Tick, i32>,
}

impl Seeded for Shooter {
    fn seeded(seed: u64, stream: u64) -> Self {
        Self {
            prng: Prng::with_stream(seed, stream),
            // An odd seed plays with something that a client decides.
            decides: seed % 2 == 1,
            slot: None,
            fired: BTreeSet::new(),
            places: BTreeMap::new(),
        }
    }
}

impl Player for Shooter {
    type Simulation = EcsSimulation;

    fn begin(&mut self, session: &SessionInfo) -> EcsSimulation {
        self.slot = session.slot;
        let mut simulation = game(self.decides).simulation_of(session);
        if !session.hosts {
            simulation.set_side(session.slot.map_or(Side::Spectating, Side::Predicting));
        }
        simulation
    }

    fn sample(&mut self, tick: Tick, _simulation: &EcsSimulation, input: &mut [u8]) {
        let fires = self.prng.below(9) == 0;
        input[0] = if fires { FIRES } else { WALKS };
        if fires {
            self.fired.insert(tick);
        }
    }

    fn stepped(&mut self, simulation: &EcsSimulation, frame: &InputFrame) {
        if simulation.side().is_authority()
            && let Some(hero) = hero(simulation)
        {
            self.places.insert(frame.tick(), hero.at);
        }
    }
}

fn hero(simulation: &EcsSimulation) -> Option<Hero> {
    let world = simulation.world();
    let ids = world.resource::<NetIndex>().iter();
    let entities = ids.map(|(_, entity)| entity);
    let mut heroes = entities.filter_map(|entity| {
        let is_first = world.get::<Owner>(entity) == Some(&Owner(Slot(0)));
        world.get::<Hero>(entity).filter(|_| is_first).copied()
    });
    heroes.next()
}

/// The keys of predicted spawns that a node has, with their ids.
fn shells(simulation: &EcsSimulation) -> Vec<(SpawnKey, NetId)> {
    let world = simulation.world();
    let ids = world.resource::<NetIndex>().iter();
    ids.filter_map(|(id, entity)| Some((*world.get::<SpawnKey>(entity)?, id)))
        .collect()
}

/// What a node's presentation was told.
#[derive(Default)]
struct Told {
    shots: BTreeMap<(Tick, u8), u32>,
    aims: Vec<(Tick, Aim)>,
    /// Ids of shells in its slot, by key; those of hosts.
    shells: BTreeMap<SpawnKey, NetId>,
}

struct Match {
    cluster: ClusterOf<Shooter>,
    told: Vec<Told>,
    seed: u64,
}

impl Match {
    fn new(seed: u64) -> Self {
        let info = game(seed % 2 == 1).info_for("1", Mode::StateSync);
        let host = HostConfig {
            plays: true,
            start: Start::Players(PLAYERS),
            migration: MigrationConfig::ELECTED,
            ..HostConfig::new(info.clone(), PLAYERS)
        };
        let conditions = Conditions::from_rtt(RTT_US, 0);
        let mut cluster: ClusterOf<Shooter> = ClusterOf::new(host, conditions, seed);
        for number in 1..PLAYERS {
            cluster.join(JoinConfig {
                prediction_ticks: 12,
                ..JoinConfig::new(info.clone(), &format!("{number}"))
            });
        }
        let told = (0..PLAYERS).map(|_| Told::default()).collect();
        let mut game = Self {
            cluster,
            told,
            seed,
        };
        game.run(9_000_000);
        assert!(
            game.cluster.node(0).safe_tick().is_some(),
            "seed {seed}: {:?}",
            game.cluster.node(0).standby_statistics()
        );
        game
    }

    fn alive(&self) -> Vec<Index> {
        let all = 0..self.cluster.members.len();
        all.filter(|&index| !self.cluster.members[index].crashed)
            .collect()
    }

    fn run(&mut self, us: u64) {
        for _ in 0..us / 5000 {
            self.cluster.run_us(5000);
            for index in self.alive() {
                self.look(index);
            }
        }
    }

    fn look(&mut self, index: Index) {
        let now = self.cluster.now_of(index);
        let driver = self.cluster.driver(index);
        driver.node_mut().show_behind(now, BEHIND);
        let slot = driver.node().session().slot;
        let Some(simulation) = driver.simulation_mut() else {
            return;
        };
        let told = &mut self.told[index];
        for (tick, Shot(slot)) in simulation.drain_events::<Shot>() {
            *told.shots.entry((tick, slot.0)).or_default() += 1;
        }
        told.aims.extend(simulation.drain_events::<Aim>());
        let shells = shells(simulation);
        let keys: BTreeSet<SpawnKey> = shells.iter().map(|(key, _)| *key).collect();
        assert_eq!(
            keys.len(),
            shells.len(),
            "seed {}: {index} has a shell twice",
            self.seed
        );
        let of_hosts = shells.into_iter().filter(|(key, id)| {
            let is_own = Some(key.slot) == slot;
            is_own && !id.is_predicted()
        });
        told.shells.extend(of_hosts);
    }

    /// Runs until one hosts whom all follow that is not node 0.
    fn run_until_succeeded(&mut self) -> Index {
        for _ in 0..1000 {
            self.run(5000);
            let host = self.cluster.host_of(&self.alive());
            if let Some(host) = host.filter(|&host| host != 0) {
                return host;
            }
        }
        panic!("seed {}: nobody hosts", self.seed);
    }

    /// Own shots were told once each, and nothing else twice.
    fn assert_events(&self, index: Index) {
        let player = self.cluster.members[index].driver.player();
        let slot = player.slot.expect("it plays").0;
        let told = &self.told[index].shots;
        let twice: Vec<_> = told.iter().filter(|(_, count)| **count > 1).collect();
        assert!(twice.is_empty(), "seed {}: {index}: {twice:?}", self.seed);
        let upto = self.cluster.node(index).tick();
        let missing: Vec<&Tick> = player
            .fired
            .iter()
            .filter(|&&tick| tick <= upto && !told.contains_key(&(tick, slot)))
            .collect();
        assert!(
            missing.is_empty(),
            "seed {}: {index} was not told of its shots at {missing:?}",
            self.seed
        );
    }

    /// Each own shot has become a shell of a host, or the player was told that it did not act.
    fn assert_shells(&self, index: Index) {
        let member = &self.cluster.members[index];
        let player = member.driver.player();
        let slot = player.slot.expect("it plays");
        let is_told = |tick: Tick| {
            let replaced = Event::InputReplaced { tick };
            member.events.contains(&replaced)
        };
        let upto = self.cluster.node(index).tick().minus(60);
        for &tick in player.fired.range(..=upto) {
            let ordinal = 0;
            let key = SpawnKey {
                slot,
                tick,
                ordinal,
            };
            assert!(
                self.told[index].shells.contains_key(&key) || is_told(tick),
                "seed {}: {index} has no shell of its shot at {tick}",
                self.seed
            );
        }
    }
}

#[test]
fn events_are_told_once_and_spawns_find_the_hosts_after_a_crash() {
    for seed in [1, 2, 4] {
        let mut game = Match::new(seed);
        game.cluster.crash(0);
        let host = game.run_until_succeeded();
        let base = game.cluster.node(host).tick();
        game.run(2_000_000);
        for index in game.alive() {
            game.assert_events(index);
            game.assert_shells(index);
        }
        // It was a client, and is told what others did from the change on, nothing before.
        let own = game.cluster.members[host].driver.player().slot;
        let of_others = game.told[host].shots.keys();
        let of_others: Vec<Tick> = of_others
            .filter(|(_, slot)| Some(Slot(*slot)) != own)
            .map(|(tick, _)| *tick)
            .collect();
        let first = of_others.iter().min().expect("others fire");
        assert!(
            first.plus(64) > base,
            "seed {seed}: the first of {first}, it hosts at {base}"
        );
    }
}

#[test]
fn events_are_told_once_and_spawns_find_the_hosts_after_a_handover() {
    for seed in [1, 2, 4] {
        let mut game = Match::new(seed);
        let now = game.cluster.now_of(0);
        let node = game.cluster.driver(0).node_mut();
        let target: MemberId = node.request_handover(now, None).expect("a standby");
        let host = game.run_until_succeeded();
        let member = game.cluster.node(host).session().member;
        assert_eq!(member, target, "seed {seed}");
        game.run(2_000_000);
        for index in game.alive() {
            game.assert_events(index);
            game.assert_shells(index);
        }
    }
}

/// Whether the new host ran the ticks or copied states, it knows what players saw before it hosted.
#[test]
fn a_new_host_knows_what_players_saw() {
    for (seed, mode) in [(1, StandbyMode::Copies), (2, StandbyMode::Runs)] {
        let mut game = Match::new(seed);
        let standby = (1..usize::from(PLAYERS)).find_map(|index| {
            let counted = game.cluster.node(index).standby_statistics()?;
            counted.held.map(|(mode, _)| mode)
        });
        assert_eq!(standby, Some(mode), "seed {seed}");
        game.cluster.crash(0);
        let host = game.run_until_succeeded();
        game.run(1_000_000);
        let before = &game.cluster.members[0].driver.player().places;
        let (&last, _) = before.last_key_value().expect("it hosted");
        let after = &game.cluster.members[host].driver.player().places;
        let mut of_the_past = 0;
        for (tick, aim) in &game.told[host].aims {
            // Each says anew how far behind it sees, which takes some ticks.
            if aim.seen != tick.minus(BEHIND) {
                continue;
            }
            let place = after.get(&aim.seen).or(before.get(&aim.seen));
            assert_eq!(place, Some(&aim.at), "seed {seed}: {aim:?} at {tick}");
            of_the_past += u32::from(aim.seen <= last);
        }
        assert!(
            of_the_past > 0,
            "seed {seed}: nobody has shot into the past"
        );
    }
}
