//! A host on a real loopback socket under the load of many clients.
//!
//! Each tick, every client sends one payload and the host sends one to every client. Clients are
//! bare sockets on one thread that is not measured, which poll like renet's do: a host does not pay
//! for waking its clients in reality either. What is measured is the CPU time of the host's two
//! threads, system calls included.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use phalanx_netcode::id::Path;
use phalanx_netcode::link::udp::{Security, UdpConfig, UdpLink};
use phalanx_netcode::link::{Link, LinkEvent};
use renetcode::{ClientAuthentication, ConnectToken, NetcodeClient};

use super::cpu;

const PROTOCOL: u64 = 7;

/// Time of one tick at 60 per second.
pub const TICK: Duration = Duration::from_nanos(16_666_667);

/// Ticks from the last connection to the measurement: by then a host has handed all clients what they
/// come back with.
pub const SETTLE_TICKS: u32 = 200;

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Number of clients.
    pub clients: usize,
    /// Bytes of each payload.
    pub payload: usize,
    /// Ticks that are measured, after all clients are connected.
    pub ticks: u32,
}

/// What a host needed.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// CPU time of the host per client and tick, in microseconds.
    pub us_per_client_tick: f64,
    /// The part of it that runs on the game's thread.
    pub us_on_game_thread: f64,
    /// Payloads that the host received, of those that were sent; what is under way at either end
    /// of the measurement may move it by a tick's worth.
    pub received: f64,
    /// Bytes that the host sent per client and tick, as UDP payload.
    pub bytes_sent: f64,
    /// Datagrams that the host sent per client and tick.
    pub datagrams_sent: f64,
}

/// Runs our host under `load`.
///
/// # Errors
/// If sockets or clients fail.
pub fn run(load: Load, security: Security) -> io::Result<Cost> {
    let host_thread = thread::Builder::new()
        .name("bench-host".into())
        .spawn(move || host(load, security))?;
    host_thread
        .join()
        .unwrap_or_else(|_panic| Err(io::Error::other("the host's thread panicked")))
}

fn host(load: Load, security: Security) -> io::Result<Cost> {
    let config = UdpConfig {
        security,
        ..UdpConfig::new(PROTOCOL)
    }
    .with_bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
    .with_clients_max(load.clients);
    let mut link = UdpLink::bind(config).map_err(io::Error::other)?;
    let address = link.local_addr();
    let mut clients = Vec::new();
    for number in 0..load.clients {
        let token = match security {
            Security::Secure => {
                let life = Duration::from_secs(60);
                let token = link
                    .mint_token(number as u64 + 1, address, life)
                    .map_err(io::Error::other)?;
                Some(token.to_connect_token_bytes())
            }
            Security::Insecure => None,
        };
        clients.push(Client::new(address, token.as_deref())?);
    }
    let stop = Arc::new(AtomicBool::new(false));
    let sent_by_clients = Arc::new(AtomicU64::new(0));
    let crowd = thread::Builder::new().name("bench-clients".into()).spawn({
        let (stop, sent) = (Arc::clone(&stop), Arc::clone(&sent_by_clients));
        move || crowd(clients, load.payload, &stop, &sent)
    })?;

    let payload = vec![0x55; load.payload];
    let mut paths: Vec<Path> = Vec::new();
    let mut measured: Option<Measured> = None;
    let mut received = 0_u64;
    let mut next = Instant::now();
    let deadline = next + Duration::from_secs(60);
    let mut settle = SETTLE_TICKS;
    let mut left = load.ticks;
    while left > 0 {
        while let Some(event) = link.receive() {
            match event {
                LinkEvent::Opened { path, .. } => paths.push(path),
                LinkEvent::Datagram { .. } => received += 1,
                LinkEvent::Closed { reason, .. } => return Err(io::Error::other(reason)),
            }
        }
        for &path in &paths {
            link.send(path, &payload);
        }
        link.flush();
        if paths.len() == load.clients {
            if settle > 0 {
                settle -= 1;
            } else if measured.is_none() {
                measured = Some(Measured::now(&link, received, &sent_by_clients)?);
            } else {
                left -= 1;
            }
        } else if Instant::now() > deadline {
            return Err(io::Error::other("the clients did not connect"));
        }
        next += TICK;
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    let end = Measured::now(&link, received, &sent_by_clients)?;
    stop.store(true, Ordering::Relaxed);
    let _sockets_only = crowd.join();
    let start = measured.ok_or_else(|| io::Error::other("no tick was measured"))?;
    let client_ticks = load.clients as f64 * f64::from(load.ticks);
    let per = |from: u64, to: u64| (to - from) as f64 / client_ticks;
    Ok(Cost {
        us_per_client_tick: per(start.cpu_ns, end.cpu_ns) / 1000.0,
        us_on_game_thread: per(start.game_ns, end.game_ns) / 1000.0,
        received: (end.received - start.received) as f64 / (end.sent_to - start.sent_to) as f64,
        bytes_sent: per(start.bytes, end.bytes),
        datagrams_sent: per(start.datagrams, end.datagrams),
    })
}

struct Measured {
    cpu_ns: u64,
    game_ns: u64,
    received: u64,
    sent_to: u64,
    bytes: u64,
    datagrams: u64,
}

impl Measured {
    fn now(link: &UdpLink, received: u64, sent_to: &AtomicU64) -> io::Result<Self> {
        let missing = || io::Error::other("this system does not tell the CPU time of threads");
        let game_ns = cpu::thread_ns("bench-host").ok_or_else(missing)?;
        let io_ns = cpu::thread_ns("phalanx-udp").ok_or_else(missing)?;
        let done = link.statistics();
        Ok(Self {
            cpu_ns: game_ns + io_ns,
            game_ns,
            received,
            sent_to: sent_to.load(Ordering::Relaxed),
            bytes: done.bytes_sent,
            datagrams: done.datagrams_sent,
        })
    }
}

/// Runs all clients until `stop`; counts their payloads.
fn crowd(mut clients: Vec<Client>, payload: usize, stop: &AtomicBool, sent: &AtomicU64) {
    let payload = vec![0x66; payload];
    let mut next = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        for client in &mut clients {
            // A client that fails is missed by the host, which then reports it.
            if let Ok(true) = client.tick(&payload) {
                sent.fetch_add(1, Ordering::Relaxed);
            }
        }
        next += TICK;
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

/// A client without our link.
struct Client {
    socket: UdpSocket,
    session: Session,
}

enum Session {
    Secure(Box<NetcodeClient>),
    /// The phases of the plain handshake: see `docs/LINKS.md`.
    Plain {
        nonce: u64,
        cookie: u64,
        open: bool,
    },
}

impl Client {
    fn new(host: SocketAddr, token: Option<&[u8]>) -> io::Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.connect(host)?;
        socket.set_nonblocking(true)?;
        let session = match token {
            Some(mut bytes) => {
                let connect_token = ConnectToken::read(&mut bytes).map_err(io::Error::other)?;
                let now = Duration::from_secs(connect_token.create_timestamp);
                let authentication = ClientAuthentication::Secure { connect_token };
                let client = NetcodeClient::new(now, authentication).map_err(io::Error::other)?;
                Session::Secure(Box::new(client))
            }
            None => Session::Plain {
                nonce: u64::from(socket.local_addr()?.port()),
                cookie: 0,
                open: false,
            },
        };
        Ok(Self { socket, session })
    }

    /// Reads what has come and sends one payload; whether it could.
    fn tick(&mut self, payload: &[u8]) -> io::Result<bool> {
        let mut buffer = [0; 2048];
        while let Ok(len) = self.socket.recv(&mut buffer) {
            let bytes = &mut buffer[..len];
            match &mut self.session {
                Session::Secure(client) => {
                    // What a host hands over to come back with is taken, as a real client does;
                    // else it would be sent again and again.
                    if let Some([0x10, token @ ..]) = client.process_packet(bytes)
                        && let Some(start) = token.len().checked_sub(4 + 16)
                    {
                        let mut taken = [0x11; 17];
                        taken[1..].copy_from_slice(&token[start..start + 16]);
                        if let Ok((_to, answer)) = client.generate_payload_packet(&taken) {
                            self.socket.send(answer)?;
                        }
                    }
                }
                Session::Plain { cookie, open, .. } => match bytes {
                    [2, rest @ ..] => {
                        if let Some(word) = rest.last_chunk::<8>() {
                            *cookie = u64::from_le_bytes(*word);
                        }
                    }
                    [3, ..] => *open = true,
                    _ => {}
                },
            }
        }
        match &mut self.session {
            Session::Secure(client) => {
                if let Some((bytes, _to)) = client.update(TICK) {
                    self.socket.send(bytes)?;
                }
                match client.generate_payload_packet(payload) {
                    Ok((_to, bytes)) => self.socket.send(bytes).map(|_| true),
                    Err(_not_connected) => Ok(false),
                }
            }
            Session::Plain { open: true, .. } => self.socket.send(payload).map(|_| true),
            Session::Plain { nonce, cookie, .. } => {
                let mut request = vec![1];
                for word in [PROTOCOL, *nonce, *cookie] {
                    request.extend_from_slice(&word.to_le_bytes());
                }
                self.socket.send(&request).map(|_| false)
            }
        }
    }
}
