//! lightyear over its netcode and UDP, on loopback.
//!
//! Its pings and timelines read the system's clock, so ticks last as long as they say: a run of 200
//! ticks at 20 Hz takes ten seconds.

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use bevy::prelude::*;
use bevy::state::app::StatesPlugin;
use bevy::time::TimeUpdateStrategy;
use lightyear::prelude::client::{ClientPlugins, NetcodeClient};
use lightyear::prelude::server::{NetcodeServer, ServerPlugins, ServerUdpIo, Start};
use lightyear::prelude::{
    AppComponentExt, Authentication, Client, Connect, LinkOf, LocalAddr, NetworkTarget, PeerAddr,
    Replicate, ReplicationReceiver, ReplicationSender, UdpIo, client, server,
};

use crate::components::{
    Health, PackedRotation, PackedVelocity, Position, Rotation, State, Velocity, advance, held,
    positions, spawn,
};
use crate::relay::{self, Relay};
use crate::scene::{Figures, Load, Scene, fresh};

const PROTOCOL: u64 = 7;
const KEY: [u8; 32] = [7; 32];

/// Ticks until every client must hold every entity.
const JOIN_TICKS_MAX: usize = 600;

pub fn run(load: Load) -> Result<Figures, Box<dyn Error>> {
    let mut scene = Scene::new(&load);
    let address = free_address()?;
    let mut relays = (0..load.clients)
        .map(|_| Relay::new(address))
        .collect::<Result<Vec<_>, _>>()?;
    let mut host = host(&load, address);
    let mut clients = Vec::new();
    for (relay, id) in relays.iter().zip(1..) {
        clients.push(client(&load, id, relay.address()?)?);
    }
    let entities = spawn(host.world_mut(), &scene, &load, || {
        Replicate::to_clients(NetworkTarget::All)
    });

    let mut clock = Clock {
        next: Instant::now(),
        tick: load.tick(),
    };
    let mut joined = 0;
    loop {
        step(&mut host, &mut clients, &mut relays, &mut clock)?;
        if clients
            .iter_mut()
            .all(|client| held(client.world_mut()).0 == load.entities)
        {
            break;
        }
        joined += 1;
        if joined == JOIN_TICKS_MAX {
            return Err("clients did not get the scene".into());
        }
    }
    // Acks of the join pass, and timelines synchronize.
    for _ in 0..load.rate {
        advance(host.world_mut(), &mut scene, &load, &entities);
        step(&mut host, &mut clients, &mut relays, &mut clock)?;
    }

    relay::reset(&mut relays);
    let mut times = Vec::with_capacity(load.ticks);
    let mut held_fresh = 0.0;
    for _ in 0..load.ticks {
        advance(host.world_mut(), &mut scene, &load, &entities);
        times.push(step(&mut host, &mut clients, &mut relays, &mut clock)?);
        if let Some(client) = clients.first_mut() {
            held_fresh += fresh(&scene, positions(client.world_mut()).into_iter());
        }
    }
    let counts = relay::totals(&relays);
    for _ in 0..10 {
        step(&mut host, &mut clients, &mut relays, &mut clock)?;
    }
    let expected = (load.entities, scene.sum());
    let converged = clients
        .iter_mut()
        .all(|client| held(client.world_mut()) == expected);
    Ok(Figures::new(&load, counts, times, held_fresh, converged))
}

/// When the next tick begins.
struct Clock {
    next: Instant,
    tick: Duration,
}

impl Clock {
    fn wait(&mut self) {
        let now = Instant::now();
        thread::sleep(self.next.saturating_duration_since(now));
        self.next = self.next.max(now) + self.tick;
    }
}

/// A tick of all; gives back what the host took.
fn step(
    host: &mut App,
    clients: &mut [App],
    relays: &mut [Relay],
    clock: &mut Clock,
) -> Result<Duration, Box<dyn Error>> {
    clock.wait();
    let started = Instant::now();
    host.update();
    let took = started.elapsed();
    relay::pump(relays)?;
    for client in clients {
        client.update();
    }
    relay::pump(relays)?;
    Ok(took)
}

fn app(load: &Load) -> App {
    let mut app = App::new();
    app.add_plugins((MinimalPlugins, StatesPlugin))
        .insert_resource(TimeUpdateStrategy::ManualDuration(load.tick()));
    app
}

/// After the plugins, before the connection's entity.
fn register(app: &mut App) {
    app.component::<Position>().replicate();
    app.component::<Rotation>().replicate();
    app.component::<Velocity>().replicate();
    app.component::<Health>().replicate();
    app.component::<State>().replicate();
    app.component::<PackedRotation>().replicate();
    app.component::<PackedVelocity>().replicate();
    app.finish();
    app.cleanup();
}

fn host(load: &Load, address: SocketAddr) -> App {
    let mut app = app(load);
    app.add_plugins(ServerPlugins {
        tick_duration: load.tick(),
    });
    app.add_observer(|link: On<Add<LinkOf>>, mut commands: Commands| {
        commands
            .entity(link.entity)
            .insert((ReplicationSender, ReplicationReceiver));
    });
    register(&mut app);
    let config = server::NetcodeConfig {
        max_clients: load.clients,
        protocol_id: PROTOCOL,
        private_key: KEY,
        // Tokens name the relays.
        server_addr_check: false,
        ..Default::default()
    };
    let entity = app
        .world_mut()
        .spawn((
            NetcodeServer::new(config),
            LocalAddr(address),
            ServerUdpIo::default(),
        ))
        .id();
    app.world_mut().trigger(Start { entity });
    app.world_mut().flush();
    app
}

fn client(load: &Load, id: u64, relay: SocketAddr) -> Result<App, Box<dyn Error>> {
    let mut app = app(load);
    app.add_plugins(ClientPlugins {
        tick_duration: load.tick(),
    });
    register(&mut app);
    let authentication = Authentication::Manual {
        server_addr: relay,
        client_id: id,
        private_key: KEY,
        protocol_id: PROTOCOL,
    };
    let netcode = NetcodeClient::new(authentication, client::NetcodeConfig::default())?;
    let entity = app
        .world_mut()
        .spawn((
            Client,
            netcode,
            LocalAddr(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
            PeerAddr(relay),
            UdpIo::default(),
            ReplicationSender,
            ReplicationReceiver,
        ))
        .id();
    app.world_mut().trigger(Connect { entity });
    app.world_mut().flush();
    Ok(app)
}

/// An address that nobody listens on: lightyear binds its own socket.
fn free_address() -> Result<SocketAddr, Box<dyn Error>> {
    Ok(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
