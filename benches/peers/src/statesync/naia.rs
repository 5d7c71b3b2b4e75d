//! naia over its in-memory transport, in simulated time.
//!
//! Its clock counts whole milliseconds, so 60 Hz are ticks of 16 ms. The default cap of 64 kB/s and
//! client is lifted: a capped sender would look small by being late.

#[path = "naia/world.rs"]
mod world;

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant as WallInstant};

use naia_client::transport::local::{LocalAddrCell, LocalClientSocket, Socket as ClientSocket};
use naia_client::{Client, ClientConfig};
use naia_server::transport::local::{LocalServerSocket, Socket as ServerSocket};
use naia_server::transport::{
    ListenResult, PacketReceiver, PacketSender, RecvError, SendError, Socket,
};
use naia_server::{ConnectEvent, RoomKey, Server, ServerConfig};
use naia_shared::transport::local::{FAKE_SERVER_ADDR, LocalTransportHub};
use naia_shared::{Instant, Message, Property, Protocol, Replicate, TestClock};
use parking_lot::Mutex;

use crate::scene::{Count, Figures, Form, Load, Row, Scene, fresh, sum_of};
use world::{Id, Reader, World, Writer};

/// Ticks until every client must hold every entity.
const JOIN_TICKS_MAX: usize = 4000;

#[derive(Message)]
struct Hello;

#[derive(Replicate)]
struct Position {
    x: Property<f32>,
    y: Property<f32>,
    z: Property<f32>,
}

#[derive(Replicate)]
struct Rotation {
    x: Property<f32>,
    y: Property<f32>,
    z: Property<f32>,
    w: Property<f32>,
}

#[derive(Replicate)]
struct Velocity {
    x: Property<f32>,
    y: Property<f32>,
    z: Property<f32>,
}

#[derive(Replicate)]
struct Health {
    value: Property<u16>,
}

#[derive(Replicate)]
struct State {
    value: Property<u8>,
}

#[derive(Replicate)]
struct PackedRotation {
    value: Property<u32>,
}

#[derive(Replicate)]
struct PackedVelocity {
    x: Property<i16>,
    y: Property<i16>,
    z: Property<i16>,
}

pub fn run(load: Load) -> Result<Figures, Box<dyn Error>> {
    TestClock::init(0);
    let mut scene = Scene::new(&load);
    let mut session = Session::new(&load)?;
    let entities: Vec<Id> = scene
        .rows
        .iter()
        .map(|row| session.spawn(row, &load))
        .collect();
    let mut joined = 0;
    while !session
        .clients
        .iter()
        .all(|(_, world)| world.count::<State>() == load.entities)
    {
        session.step();
        joined += 1;
        if joined == JOIN_TICKS_MAX {
            return Err("clients did not get the scene".into());
        }
    }
    for _ in 0..20 {
        session.advance(&mut scene, &load, &entities);
        session.step();
    }

    session.counts.reset();
    let mut times = Vec::with_capacity(load.ticks);
    let mut held_fresh = 0.0;
    for _ in 0..load.ticks {
        session.advance(&mut scene, &load, &entities);
        times.push(session.step());
        if let Some((_, world)) = session.clients.first() {
            let positions = world.all::<Position>();
            let positions = positions.map(|position| [*position.x, *position.y, *position.z]);
            held_fresh += fresh(&scene, positions);
        }
    }
    let counts = (session.counts.down(), session.counts.up());
    for _ in 0..10 {
        session.step();
    }
    let expected = scene.sum();
    let converged = session.clients.iter().all(|(_, world)| {
        let sum = world
            .all::<Position>()
            .map(|position| sum_of([*position.x, *position.y, *position.z]))
            .fold(0, u64::wrapping_add);
        sum == expected
    });
    Ok(Figures::new(&load, counts, times, held_fresh, converged))
}

/// A host, its clients and the network between them.
struct Session {
    hub: LocalTransportHub,
    server: Server<Id>,
    world: World,
    room: RoomKey,
    clients: Vec<(Client<Id>, World)>,
    counts: Arc<Counts>,
    tick: Duration,
}

impl Session {
    fn new(load: &Load) -> Result<Self, Box<dyn Error>> {
        let tick = Duration::from_millis(1000 / u64::from(load.rate));
        let mut protocol = Protocol::builder();
        protocol
            .tick_interval(tick)
            .add_message::<Hello>()
            .add_component::<Position>()
            .add_component::<Rotation>()
            .add_component::<Velocity>()
            .add_component::<Health>()
            .add_component::<State>()
            .add_component::<PackedRotation>()
            .add_component::<PackedVelocity>();
        let protocol = protocol.build();
        let hub = LocalTransportHub::new(FAKE_SERVER_ADDR.parse()?);
        let counts = Arc::new(Counts::default());
        let mut config = ServerConfig::default();
        config.connection.bandwidth.target_bytes_per_sec = u32::MAX;
        let mut server = Server::new(config, protocol.clone());
        let socket: Box<dyn Socket> = Box::new(CountingSocket {
            inner: ServerSocket::new(LocalServerSocket::new(hub.clone()), None),
            counts: Arc::clone(&counts),
        });
        server.listen(socket);
        let room = server.create_room().key();

        let mut clients = Vec::new();
        for _ in 0..load.clients {
            let mut client = Client::new(ClientConfig::default(), protocol.clone());
            let (address, requests, responses, sender, receiver) = hub.register_client();
            let host = LocalAddrCell::new();
            host.set_sync(hub.server_addr());
            let socket = LocalClientSocket::new_with_tokens(
                address,
                hub.server_addr(),
                requests,
                responses,
                sender,
                receiver,
                host,
                Arc::new(Mutex::new(None)),
                Arc::new(Mutex::new(None)),
            );
            client.auth(Hello);
            client.connect(ClientSocket::new(socket, None));
            clients.push((client, World::default()));
        }
        Ok(Self {
            hub,
            server,
            world: World::default(),
            room,
            clients,
            counts,
            tick,
        })
    }

    fn spawn(&mut self, row: &Row, load: &Load) -> Id {
        let mut entity = self.server.spawn_entity(Writer(&mut self.world));
        let id = entity.id();
        let [x, y, z] = row.position;
        entity
            .insert_component(Position::new_complete(x, y, z))
            .insert_component(Health::new_complete(row.health))
            .insert_component(State::new_complete(row.state));
        match load.form {
            Form::Plain => {
                let ([a, b, c, d], [x, y, z]) = (row.rotation, row.velocity);
                entity
                    .insert_component(Rotation::new_complete(a, b, c, d))
                    .insert_component(Velocity::new_complete(x, y, z));
            }
            Form::Packed => {
                let [x, y, z] = row.packed_velocity();
                entity
                    .insert_component(PackedRotation::new_complete(row.packed_rotation()))
                    .insert_component(PackedVelocity::new_complete(x, y, z));
            }
        }
        self.server.room_mut(&self.room).add_entity(&id);
        id
    }

    /// One tick of the game.
    fn advance(&mut self, scene: &mut Scene, load: &Load, entities: &[Id]) {
        for (number, id) in entities.iter().enumerate() {
            if !load.changes(number) {
                continue;
            }
            scene.advance(number);
            let row = scene.rows[number];
            let mut entity = self.server.entity_mut(Writer(&mut self.world), id);
            if let Some(mut position) = entity.component::<Position>() {
                [*position.x, *position.y, *position.z] = row.position;
            }
            if let Some(mut health) = entity.component::<Health>() {
                *health.value = row.health;
            }
            if let Some(mut state) = entity.component::<State>() {
                *state.value = row.state;
            }
            if let Some(mut rotation) = entity.component::<Rotation>() {
                [*rotation.x, *rotation.y, *rotation.z, *rotation.w] = row.rotation;
            }
            if let Some(mut velocity) = entity.component::<Velocity>() {
                [*velocity.x, *velocity.y, *velocity.z] = row.velocity;
            }
            if let Some(mut rotation) = entity.component::<PackedRotation>() {
                *rotation.value = row.packed_rotation();
            }
            if let Some(mut velocity) = entity.component::<PackedVelocity>() {
                [*velocity.x, *velocity.y, *velocity.z] = row.packed_velocity();
            }
        }
    }

    /// A tick of all; gives back what the host took.
    fn step(&mut self) -> Duration {
        TestClock::advance(u64::try_from(self.tick.as_millis()).unwrap_or(u64::MAX));
        let now = Instant::now();
        self.hub.process_time_queues();
        let started = WallInstant::now();
        self.server.receive_all_packets();
        self.server
            .process_all_packets(Writer(&mut self.world), &now);
        let mut events = self.server.take_world_events();
        for (_, requests) in events.take_auths() {
            for (user, _) in requests {
                self.server.accept_connection(&user);
            }
        }
        for user in events.read::<ConnectEvent>() {
            self.server.room_mut(&self.room).add_user(&user);
        }
        let _ = self.server.take_tick_events(&now);
        self.server.send_all_packets(Reader(&self.world));
        let took = started.elapsed();
        for (client, world) in &mut self.clients {
            client.receive_all_packets();
            client.process_all_packets(Writer(world), &now);
            let _ = client.take_world_events();
            let _ = client.take_tick_events(&now);
            client.send_all_packets(Reader(world));
        }
        took
    }
}

/// Payloads that passed the host's socket.
#[derive(Default)]
struct Counts {
    bytes_down: AtomicU64,
    datagrams_down: AtomicU64,
    bytes_up: AtomicU64,
    datagrams_up: AtomicU64,
}

impl Counts {
    fn reset(&self) {
        for count in [
            &self.bytes_down,
            &self.datagrams_down,
            &self.bytes_up,
            &self.datagrams_up,
        ] {
            count.store(0, Ordering::Relaxed);
        }
    }

    fn down(&self) -> Count {
        Count {
            bytes: self.bytes_down.load(Ordering::Relaxed),
            datagrams: self.datagrams_down.load(Ordering::Relaxed),
        }
    }

    fn up(&self) -> Count {
        Count {
            bytes: self.bytes_up.load(Ordering::Relaxed),
            datagrams: self.datagrams_up.load(Ordering::Relaxed),
        }
    }
}

/// The host's in-memory socket, counting.
struct CountingSocket {
    inner: ServerSocket,
    counts: Arc<Counts>,
}

impl Socket for CountingSocket {
    fn listen(self: Box<Self>) -> ListenResult {
        let Self { inner, counts } = *self;
        let inner: Box<dyn Socket> = Box::new(inner);
        let (accept, requests, sender, receiver) = inner.listen();
        let sender = CountingSender {
            inner: sender,
            counts: Arc::clone(&counts),
        };
        let receiver = CountingReceiver {
            inner: receiver,
            counts,
        };
        (accept, requests, Box::new(sender), Box::new(receiver))
    }
}

#[derive(Clone)]
struct CountingSender {
    inner: Box<dyn PacketSender>,
    counts: Arc<Counts>,
}

impl PacketSender for CountingSender {
    fn send(&self, address: &SocketAddr, payload: &[u8]) -> Result<(), SendError> {
        self.counts
            .bytes_down
            .fetch_add(payload.len() as u64, Ordering::Relaxed);
        self.counts.datagrams_down.fetch_add(1, Ordering::Relaxed);
        self.inner.send(address, payload)
    }
}

#[derive(Clone)]
struct CountingReceiver {
    inner: Box<dyn PacketReceiver>,
    counts: Arc<Counts>,
}

impl PacketReceiver for CountingReceiver {
    fn receive(&mut self) -> Result<Option<(SocketAddr, &[u8])>, RecvError> {
        let received = self.inner.receive()?;
        if let Some((_, payload)) = &received {
            self.counts
                .bytes_up
                .fetch_add(payload.len() as u64, Ordering::Relaxed);
            self.counts.datagrams_up.fetch_add(1, Ordering::Relaxed);
        }
        Ok(received)
    }
}
