//! Phalanx: a session's host and its spectators, over encrypted UDP on loopback.
//!
//! A game runs at 60 ticks per second; at a rate of 20 it publishes every third, whose state has three
//! datagrams to spread over, one per tick. The host's time is that of the ticks of a snapshot's
//! interval with all there is in them: what has arrived, the game's system that writes the entities
//! that change, reading them out of the ECS, quantizing, the clients' datagrams, encryption and the
//! socket. The sessions' clock is set by hand, as the one of bevy's is for the others.

use std::error::Error;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use phalanx::bevy_ecs::component::Mutable;
use phalanx::netcode::driver::{Driver, Player};
use phalanx::netcode::link::udp::{UdpConfig, UdpLink};
use phalanx::netcode::node::{Node, SessionInfo};
use phalanx::netcode::session::config::{
    GameInfo, HostConfig, JoinConfig, Mode, Role, Start, StateSyncConfig,
};
use phalanx::netcode::time::Time;
use phalanx::prelude::*;

use crate::relay::{self, Relay};
use crate::scene::{Figures, Form, Load, Row, Scene};

const PROTOCOL: u64 = 7;

/// Ticks per second of a game.
const TICK_RATE: u32 = 60;

/// Above what any of the scenes takes: the others' senders are not held back either.
const BYTES_PER_SECOND: u32 = 4_000_000;

/// Life of a join code.
const TOKEN_LIFE: Duration = Duration::from_secs(60);

/// Ticks until every client must hold every entity.
const JOIN_TICKS_MAX: usize = 4000;

/// Intervals before the measurement and after it.
const SETTLE: usize = 20;

/// Half a step of [`Position`]'s wire form: so far may a value be from the host's.
const HALF_STEP: f32 = 0.5 / 512.0;

#[derive(Component, Networked, Clone, Copy, Debug)]
struct Position(#[networked(range(-256..=256), per_unit = 512, position)] Vec3);

#[derive(Component, Networked, Clone, Copy, Debug)]
struct Rotation(#[networked(rotation = 10)] Quat);

#[derive(Component, Networked, Clone, Copy, Debug)]
struct Velocity(#[networked(range(-32..=32), per_unit = 100)] Vec3);

#[derive(Component, Networked, Clone, Copy, Debug)]
struct Health(#[networked(range(0..=1000))] u16);

#[derive(Component, Networked, Clone, Copy, Debug)]
struct State(u8);

#[derive(Component, Networked, Clone, Copy, Debug)]
struct PlainPosition(#[networked(position)] Vec3);

#[derive(Component, Networked, Clone, Copy, Debug)]
struct PlainRotation(Quat);

#[derive(Component, Networked, Clone, Copy, Debug)]
struct PlainVelocity(Vec3);

#[derive(Component, Networked, Clone, Copy, Debug)]
struct PlainHealth(u16);

/// What stands in a component for an entity of the scene.
trait Value: Component<Mutability = Mutable> + Networked + Clone {
    fn of(row: &Row) -> Self;
}

/// Where a component says that its entity is.
trait Place: Value {
    fn position(&self) -> Vec3;
}

macro_rules! values {
    ($($kind:ident => |$row:ident| $value:expr;)*) => {$(
        impl Value for $kind {
            fn of($row: &Row) -> Self {
                Self($value)
            }
        }
    )*};
}

values! {
    Position => |row| Vec3::from_array(row.position);
    Rotation => |row| Quat::from_array(row.rotation);
    Velocity => |row| Vec3::from_array(row.velocity);
    Health => |row| row.health;
    State => |row| row.state;
    PlainPosition => |row| Vec3::from_array(row.position);
    PlainRotation => |row| Quat::from_array(row.rotation);
    PlainVelocity => |row| Vec3::from_array(row.velocity);
    PlainHealth => |row| row.health;
}

impl Place for Position {
    fn position(&self) -> Vec3 {
        self.0
    }
}

impl Place for PlainPosition {
    fn position(&self) -> Vec3 {
        self.0
    }
}

pub fn run(load: Load) -> Result<Figures, Box<dyn Error>> {
    match load.form {
        Form::Plain => {
            run_with::<PlainPosition, PlainRotation, PlainVelocity, PlainHealth>(load, 0.0)
        }
        Form::Packed => run_with::<Position, Rotation, Velocity, Health>(load, HALF_STEP),
    }
}

/// The scene as the game's system moves it.
struct Mover {
    scene: Scene,
    moves: bool,
    /// Snapshots for which it moved.
    moved: usize,
    /// Time that moving took, which is not the host's.
    spent: Duration,
}

type Shared = Arc<Mutex<Mover>>;

fn lock(mover: &Shared) -> MutexGuard<'_, Mover> {
    mover.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The kinds of a game whose places are `P`'s.
fn run_with<P, R, V, H>(load: Load, tolerance: f32) -> Result<Figures, Box<dyn Error>>
where
    P: Place,
    R: Value,
    V: Value,
    H: Value,
{
    let mover = Arc::new(Mutex::new(Mover {
        scene: Scene::new(&load),
        moves: false,
        moved: 0,
        spent: Duration::ZERO,
    }));
    let game = game::<P, R, V, H>(&load, &mover)?;
    let mut crowd = Crowd::new(&game, &load)?;
    let holds = |crowd: &Crowd, mover: &Shared| crowd.hold::<P>(&lock(mover).scene, tolerance);
    let mut joined = 0;
    while !holds(&crowd, &mover).iter().all(|share| *share == 1.0) {
        crowd.tick(&mover)?;
        // Links make their keys on the system's clock.
        thread::sleep(Duration::from_millis(1));
        joined += 1;
        if joined == JOIN_TICKS_MAX {
            return Err("clients did not get the scene".into());
        }
    }
    lock(&mover).moves = true;
    for _ in 0..SETTLE {
        crowd.interval(&mover)?;
    }
    relay::reset(&mut crowd.relays);
    let mut times = Vec::with_capacity(load.ticks);
    let mut held_fresh = 0.0;
    for _ in 0..load.ticks {
        times.push(crowd.interval(&mover)?);
        held_fresh += holds(&crowd, &mover).first().copied().unwrap_or(0.0);
    }
    let counts = relay::totals(&crowd.relays);
    lock(&mover).moves = false;
    for _ in 0..SETTLE {
        crowd.interval(&mover)?;
    }
    let converged = holds(&crowd, &mover).iter().all(|share| *share == 1.0);
    Ok(Figures::new(&load, counts, times, held_fresh, converged))
}

fn game<P, R, V, H>(load: &Load, mover: &Shared) -> Result<Game, GameError>
where
    P: Place,
    R: Value,
    V: Value,
    H: Value,
{
    let (load, every) = (*load, TICK_RATE / load.rate);
    let (moving, spawning) = (Arc::clone(mover), Arc::clone(mover));
    Game::builder("scene")
        .component::<P>()
        .component::<R>()
        .component::<V>()
        .component::<H>()
        .component::<State>()
        .input::<u8>()
        .systems(move || {
            let mover = Arc::clone(&moving);
            let system = move |tick: Res<CurrentTick>,
                               rows: Query<(
                &NetId,
                &mut P,
                &mut R,
                &mut V,
                &mut H,
                &mut State,
            )>| {
                let mut mover = lock(&mover);
                if tick.0.number() % every != 0 {
                    return;
                }
                mover.moved += 1;
                if !mover.moves {
                    return;
                }
                let started = Instant::now();
                for number in (0..load.entities).filter(|number| load.changes(*number)) {
                    mover.scene.advance(number);
                }
                mover.spent += started.elapsed();
                for (id, mut place, mut rotation, mut velocity, mut health, mut state) in rows {
                    let number = id.raw().counter() as usize - 1;
                    if load.changes(number) {
                        let row = &mover.scene.rows[number];
                        *place = P::of(row);
                        *rotation = R::of(row);
                        *velocity = V::of(row);
                        *health = H::of(row);
                        *state = State::of(row);
                    }
                }
            };
            system.run_if(on_authority)
        })
        .setup(move |world, _| {
            for row in &lock(&spawning).scene.rows {
                world.spawn_networked((
                    P::of(row),
                    R::of(row),
                    V::of(row),
                    H::of(row),
                    State::of(row),
                ));
            }
        })
        .build()
}

/// A node of the scene's game, without a player.
struct Seat {
    game: Game,
    side: Side,
}

impl Player for Seat {
    type Simulation = EcsSimulation;

    fn begin(&mut self, session: &SessionInfo) -> EcsSimulation {
        let mut simulation = self.game.simulation_of(session);
        simulation.set_side(self.side);
        simulation
    }

    fn sample(&mut self, _tick: Tick, _simulation: &EcsSimulation, _input: &mut [u8]) {}
}

/// A node and its link.
struct Member {
    driver: Driver<Seat>,
    link: UdpLink,
}

impl Member {
    fn update(&mut self, now: Time) {
        self.driver.pump(now, &mut self.link);
        while self.driver.poll_event().is_some() {}
    }
}

/// A host and its spectators.
struct Crowd {
    host: Member,
    clients: Vec<Member>,
    relays: Vec<Relay>,
    ticks: u64,
}

impl Crowd {
    fn new(game: &Game, load: &Load) -> Result<Self, Box<dyn Error>> {
        let info: GameInfo = game.info_for("1", Mode::StateSync);
        let member = |node: Node, link: UdpLink, side: Side| Member {
            driver: Driver::new(
                node,
                info.clone(),
                Seat {
                    game: game.clone(),
                    side,
                },
            ),
            link,
        };
        let start = Time::from_micros(0);
        let local = UdpConfig::new(PROTOCOL).with_bind((Ipv4Addr::LOCALHOST, 0).into());
        let link = UdpLink::bind(local)?;
        let address = link.local_addr();
        let relays = (0..load.clients)
            .map(|_| Relay::new(address))
            .collect::<Result<Vec<_>, _>>()?;
        let mut clients = Vec::new();
        for (relay, number) in relays.iter().zip(1..) {
            let token = link.mint_token(number, relay.address()?, TOKEN_LIFE)?;
            let mut link = UdpLink::bind(local)?;
            let path = link.join(&token)?;
            let config = JoinConfig {
                role: Role::Spectator,
                secret: number.into(),
                ..JoinConfig::new(info.clone(), "watcher")
            };
            let node = Node::join(config, path, start)?;
            clients.push(member(node, link, Side::Spectating));
        }
        let config = HostConfig {
            start: Start::Manual,
            state_sync: StateSyncConfig {
                snapshot_ticks: TICK_RATE / load.rate,
                budget_bytes_per_second: BYTES_PER_SECOND,
                ..StateSyncConfig::default()
            },
            secret: u128::MAX,
            ..HostConfig::new(info.clone(), 1)
        };
        let mut node = Node::host(config, start)?;
        node.start();
        Ok(Self {
            host: member(node, link, Side::Authority),
            clients,
            relays,
            ticks: 0,
        })
    }

    /// The ticks from one snapshot up to the next; gives back what the host took.
    fn interval(&mut self, mover: &Shared) -> Result<Duration, Box<dyn Error>> {
        let moved = lock(mover).moved;
        let mut took = Duration::ZERO;
        while lock(mover).moved == moved {
            took += self.tick(mover)?;
        }
        Ok(took)
    }

    /// A sixtieth of a second of all; gives back what the host took.
    fn tick(&mut self, mover: &Shared) -> Result<Duration, Box<dyn Error>> {
        self.ticks += 1;
        let now = Time::from_micros(self.ticks * 1_000_000 / u64::from(TICK_RATE));
        let spent = lock(mover).spent;
        let started = Instant::now();
        self.host.update(now);
        let took = started.elapsed();
        let took = took.saturating_sub(lock(mover).spent - spent);
        relay::pump(&mut self.relays)?;
        for client in &mut self.clients {
            client.update(now);
        }
        relay::pump(&mut self.relays)?;
        Ok(took)
    }

    /// Per client, the share of the entities that it holds where `scene` has them.
    fn hold<P: Place>(&self, scene: &Scene, tolerance: f32) -> Vec<f64> {
        let share = |client: &Member| {
            let Some(world) = client.driver.simulation().map(EcsSimulation::world) else {
                return 0.0;
            };
            let Some(mut query) = world.try_query::<(&NetId, &P)>() else {
                return 0.0;
            };
            let held = query.iter(world).filter(|(id, place)| {
                let row = scene.rows.get(id.raw().counter() as usize - 1);
                row.is_some_and(|row| {
                    let apart = (place.position() - Vec3::from_array(row.position)).abs();
                    apart.max_element() <= tolerance
                })
            });
            held.count() as f64 / scene.rows.len() as f64
        };
        self.clients.iter().map(share).collect()
    }
}
