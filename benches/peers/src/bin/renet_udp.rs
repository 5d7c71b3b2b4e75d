//! Our UDP host and renet_netcode's under the same load, one after the other, several times.
//!
//! `cargo run --release --manifest-path benches/peers/Cargo.toml --bin renet_udp [CLIENTS [PAYLOAD
//! [TICKS [ROUNDS]]]]`, by default 64 clients, 100 bytes, 300 ticks, 3 rounds. Linux only. Each
//! tick, every client sends one unreliable payload and the host sends one to every client. What
//! counts is the CPU time of the host's threads; all clients run on one other thread and poll.

#[path = "../../../src/cpu.rs"]
mod cpu;
#[path = "../../../src/udp_load.rs"]
mod udp_load;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use phalanx_netcode::link::udp::Security;
use renet::{ConnectionConfig, DefaultChannel, RenetClient, RenetServer};
use renet_netcode::{
    ClientAuthentication, ConnectToken, NetcodeClientTransport, NetcodeServerTransport,
    ServerAuthentication, ServerConfig,
};
use udp_load::{Cost, Load, SETTLE_TICKS, TICK};

const PROTOCOL: u64 = 7;
const KEY: [u8; 32] = [7; 32];

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: u32| -> u32 {
        arguments
            .next()
            .and_then(|text| text.parse().ok())
            .unwrap_or(default)
    };
    let load = Load {
        clients: usize::try_from(number(64)).map_err(io::Error::other)?,
        payload: usize::try_from(number(100)).map_err(io::Error::other)?,
        ticks: number(300),
    };
    let rounds = number(3).max(1);
    println!("{load:?}");
    let mut ours = Vec::new();
    let mut theirs = Vec::new();
    for _ in 0..rounds {
        ours.push(report(
            "phalanx, encrypted",
            udp_load::run(load, Security::Secure)?,
        ));
        theirs.push(report("renet_netcode", renet(load)?));
        report("phalanx, plain", udp_load::run(load, Security::Insecure)?);
    }
    // A pair of neighbours sees the same machine, whatever else runs on it.
    let ratios: Vec<f64> = ours.iter().zip(&theirs).map(|(a, b)| a / b).collect();
    let least = |values: &[f64]| values.iter().copied().fold(f64::INFINITY, f64::min);
    println!(
        "least: {:.2} us, renet_netcode {:.2} us, ratio of a round {:.2}",
        least(&ours),
        least(&theirs),
        least(&ratios)
    );
    println!(
        "median: {:.2} us, renet_netcode {:.2} us, ratio of the rounds {:.2}",
        median(ours),
        median(theirs),
        median(ratios)
    );
    Ok(())
}

fn report(name: &str, cost: Cost) -> f64 {
    println!(
        "{name}: {:.2} us per client and tick ({:.2} on the game's thread), {:.1} % received",
        cost.us_per_client_tick,
        cost.us_on_game_thread,
        cost.received * 100.0
    );
    if cost.bytes_sent.is_finite() {
        println!(
            "    sends {:.1} B in {:.2} datagrams per client and tick",
            cost.bytes_sent, cost.datagrams_sent
        );
    }
    cost.us_per_client_tick
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// renet's host under `load`.
fn renet(load: Load) -> io::Result<Cost> {
    thread::Builder::new()
        .name("renet-host".into())
        .spawn(move || renet_host(load))?
        .join()
        .unwrap_or_else(|_panic| Err(io::Error::other("renet's host panicked")))
}

fn renet_host(load: Load) -> io::Result<Cost> {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_err(io::Error::other)?;
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = socket.local_addr()?;
    let mut server = RenetServer::new(ConnectionConfig::default());
    let config = ServerConfig {
        current_time: now,
        max_clients: load.clients,
        protocol_id: PROTOCOL,
        public_addresses: vec![address],
        authentication: ServerAuthentication::Secure { private_key: KEY },
    };
    let mut transport = NetcodeServerTransport::new(config, socket)?;
    let mut clients = Vec::new();
    for id in 1..=load.clients as u64 {
        clients.push(RenetPair::new(now, id, address)?);
    }
    let stop = Arc::new(AtomicBool::new(false));
    let sent_by_clients = Arc::new(AtomicU64::new(0));
    let crowd = thread::Builder::new().name("bench-clients".into()).spawn({
        let (stop, sent) = (Arc::clone(&stop), Arc::clone(&sent_by_clients));
        move || crowd(clients, load.payload, &stop, &sent)
    })?;

    let payload = vec![0x55; load.payload];
    let missing = || io::Error::other("this system does not tell the CPU time of threads");
    let mut start: Option<(u64, u64, u64)> = None;
    let mut received = 0_u64;
    let mut next = Instant::now();
    let deadline = next + Duration::from_secs(60);
    let (mut settle, mut left) = (SETTLE_TICKS, load.ticks);
    while left > 0 {
        server.update(TICK);
        transport
            .update(TICK, &mut server)
            .map_err(io::Error::other)?;
        let ids = server.clients_id();
        for &id in &ids {
            while server
                .receive_message(id, DefaultChannel::Unreliable)
                .is_some()
            {
                received += 1;
            }
            server.send_message(id, DefaultChannel::Unreliable, payload.clone());
        }
        transport.send_packets(&mut server);
        if ids.len() == load.clients {
            if settle > 0 {
                settle -= 1;
            } else if start.is_none() {
                let cpu_ns = cpu::thread_ns("renet-host").ok_or_else(missing)?;
                start = Some((cpu_ns, received, sent_by_clients.load(Ordering::Relaxed)));
            } else {
                left -= 1;
            }
        } else if Instant::now() > deadline {
            return Err(io::Error::other("renet's clients did not connect"));
        }
        next += TICK;
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    let cpu_ns = cpu::thread_ns("renet-host").ok_or_else(missing)?;
    let sent = sent_by_clients.load(Ordering::Relaxed);
    stop.store(true, Ordering::Relaxed);
    let _sockets_only = crowd.join();
    let (cpu_before, received_before, sent_before) = start.ok_or_else(missing)?;
    let client_ticks = load.clients as f64 * f64::from(load.ticks);
    let us = (cpu_ns - cpu_before) as f64 / client_ticks / 1000.0;
    Ok(Cost {
        us_per_client_tick: us,
        us_on_game_thread: us,
        received: (received - received_before) as f64 / (sent - sent_before) as f64,
        // renet_netcode does not count what it sends.
        bytes_sent: f64::NAN,
        datagrams_sent: f64::NAN,
    })
}

/// Runs all clients until `stop`; counts their payloads.
fn crowd(mut clients: Vec<RenetPair>, payload: usize, stop: &AtomicBool, sent: &AtomicU64) {
    let payload = vec![0x66; payload];
    let mut next = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        for RenetPair { client, transport } in &mut clients {
            client.update(TICK);
            // A client that fails is missed by the host, which then reports it.
            let _updated = transport.update(TICK, client);
            while client.receive_message(DefaultChannel::Unreliable).is_some() {}
            if client.is_connected() {
                client.send_message(DefaultChannel::Unreliable, payload.clone());
                if transport.send_packets(client).is_ok() {
                    sent.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        next += TICK;
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

struct RenetPair {
    client: RenetClient,
    transport: NetcodeClientTransport,
}

impl RenetPair {
    fn new(now: Duration, id: u64, host: SocketAddr) -> io::Result<Self> {
        let connect_token =
            ConnectToken::generate(now, PROTOCOL, 60, id, 15, vec![host], None, &KEY)
                .map_err(io::Error::other)?;
        let authentication = ClientAuthentication::Secure { connect_token };
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        Ok(Self {
            client: RenetClient::new(ConnectionConfig::default()),
            transport: NetcodeClientTransport::new(now, authentication, socket)
                .map_err(io::Error::other)?,
        })
    }
}
