//! bevy_replicon with its renet backend: netcode over UDP on loopback, without encryption keys of
//! its own making (what is on the wire is encrypted all the same).

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant, SystemTime};

use bevy::prelude::*;
use bevy::state::app::StatesPlugin;
use bevy::time::TimeUpdateStrategy;
use bevy_replicon::prelude::*;
use bevy_replicon_renet::netcode::{
    ClientAuthentication, NetcodeClientTransport, NetcodeServerTransport, ServerAuthentication,
    ServerConfig,
};
use bevy_replicon_renet::renet::ConnectionConfig;
use bevy_replicon_renet::{RenetChannelsExt, RenetClient, RenetServer, RepliconRenetPlugins};

use crate::components::{
    Health, PackedRotation, PackedVelocity, Position, Rotation, State, Velocity, advance, held,
    positions, spawn,
};
use crate::relay::{self, Relay};
use crate::scene::{Figures, Load, Scene, fresh};

const PROTOCOL: u64 = 7;

/// Ticks until every client must hold every entity.
const JOIN_TICKS_MAX: usize = 2000;

pub fn run(load: Load) -> Result<Figures, Box<dyn Error>> {
    let mut scene = Scene::new(&load);
    let mut host = app(&load);
    let address = listen(&mut host, load.clients)?;
    let mut relays = (0..load.clients)
        .map(|_| Relay::new(address))
        .collect::<Result<Vec<_>, _>>()?;
    let mut clients = Vec::new();
    for (relay, id) in relays.iter().zip(1..) {
        let mut client = app(&load);
        connect(&mut client, id, relay.address()?)?;
        clients.push(client);
    }
    let entities = spawn(host.world_mut(), &scene, &load, || Replicated);

    let mut joined = 0;
    loop {
        step(&mut host, &mut clients, &mut relays)?;
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
    // Acks of the join pass, and what only the first change costs.
    for _ in 0..20 {
        advance(host.world_mut(), &mut scene, &load, &entities);
        step(&mut host, &mut clients, &mut relays)?;
    }

    relay::reset(&mut relays);
    let mut times = Vec::with_capacity(load.ticks);
    let mut held_fresh = 0.0;
    for _ in 0..load.ticks {
        advance(host.world_mut(), &mut scene, &load, &entities);
        times.push(step(&mut host, &mut clients, &mut relays)?);
        if let Some(client) = clients.first_mut() {
            held_fresh += fresh(&scene, positions(client.world_mut()).into_iter());
        }
    }
    let counts = relay::totals(&relays);
    for _ in 0..10 {
        step(&mut host, &mut clients, &mut relays)?;
    }
    let expected = (load.entities, scene.sum());
    let converged = clients
        .iter_mut()
        .all(|client| held(client.world_mut()) == expected);
    Ok(Figures::new(&load, counts, times, held_fresh, converged))
}

/// A tick of all; gives back what the host took.
fn step(
    host: &mut App,
    clients: &mut [App],
    relays: &mut [Relay],
) -> Result<Duration, Box<dyn Error>> {
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
    app.add_plugins((
        MinimalPlugins,
        StatesPlugin,
        RepliconPlugins.set(ServerPlugin::new(PostUpdate)),
        RepliconRenetPlugins,
    ))
    .insert_resource(TimeUpdateStrategy::ManualDuration(load.tick()))
    .replicate::<Position>()
    .replicate::<Rotation>()
    .replicate::<Velocity>()
    .replicate::<Health>()
    .replicate::<State>()
    .replicate::<PackedRotation>()
    .replicate::<PackedVelocity>();
    app.finish();
    app
}

fn config(app: &App) -> ConnectionConfig {
    let channels = app.world().resource::<RepliconChannels>();
    ConnectionConfig {
        server_channels_config: channels.server_configs(),
        client_channels_config: channels.client_configs(),
        ..Default::default()
    }
}

fn now() -> Result<Duration, Box<dyn Error>> {
    Ok(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?)
}

fn listen(app: &mut App, clients: usize) -> Result<SocketAddr, Box<dyn Error>> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = socket.local_addr()?;
    let server = RenetServer::new(config(app));
    let transport = NetcodeServerTransport::new(
        ServerConfig {
            current_time: now()?,
            max_clients: clients,
            protocol_id: PROTOCOL,
            public_addresses: vec![address],
            authentication: ServerAuthentication::Unsecure,
        },
        socket,
    )?;
    app.insert_resource(server).insert_resource(transport);
    Ok(address)
}

fn connect(app: &mut App, id: u64, address: SocketAddr) -> Result<(), Box<dyn Error>> {
    let client = RenetClient::new(config(app));
    let transport = NetcodeClientTransport::new(
        now()?,
        ClientAuthentication::Unsecure {
            client_id: id,
            protocol_id: PROTOCOL,
            server_addr: address,
            user_data: None,
        },
        UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?,
    )?;
    app.insert_resource(client).insert_resource(transport);
    Ok(())
}
