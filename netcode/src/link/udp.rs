#![expect(
    clippy::disallowed_methods,
    reason = "IO shell: reads the clock and starts the IO thread"
)]
//! UDP: one socket with a server side and any number of client sides, encrypted or not.
//!
//! An IO thread waits on the socket, decrypts what arrives and keeps sessions alive; what it has
//! for the game waits in a bounded queue. Sending happens on the caller's thread: [`Link::send`]
//! collects, [`Link::flush`] encrypts, under a lock that nobody holds during a system call, and
//! gives everything to the system, on Linux 64 datagrams per call. What travels in each mode is in
//! `docs/LINKS.md`.
//!
//! ```
//! use std::time::Duration;
//! use phalanx_netcode::link::udp::{JoinToken, UdpConfig, UdpLink};
//! use phalanx_netcode::link::{Link, LinkEvent};
//!
//! // Any number that says which game and version this is.
//! let config = UdpConfig::new(0x1234).with_bind("127.0.0.1:0".parse()?);
//! let mut host = UdpLink::bind(config)?;
//! let code = host.mint_token(1, host.likely_addr(), Duration::from_secs(60))?.to_text();
//!
//! let mut player = UdpLink::bind(config)?;
//! let path = player.join(&JoinToken::from_text(&code)?)?;
//! loop {
//!     match player.receive() {
//!         Some(LinkEvent::Opened { .. }) => break,
//!         Some(LinkEvent::Closed { reason, .. }) => return Err(reason.into()),
//!         Some(LinkEvent::Datagram { .. }) | None => std::thread::yield_now(),
//!     }
//! }
//! player.send(path, &[0x40, 1, 2, 3]);
//! player.flush();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod batch;
mod endpoint;
mod guard;
mod plain;
mod queue;
mod secure;
mod thread;
mod token;

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::hash::RandomState;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime};

pub use endpoint::ConnectError;
pub use guard::{DropCause, Drops};
pub use token::{JOIN_CODE_BYTES_MAX, JoinToken, TOKEN_LIFE_S_MAX, TokenError};

use self::endpoint::Counts;
use self::plain::{PlainConfig, PlainEndpoint};
use self::queue::{Event, Events};
use self::secure::{SecureConfig, SecureEndpoint};
use self::thread::{Endpoint, Outbox, Shared};
use self::token::TokenMint;
use super::{Address, CloseReason, Link, LinkEvent, Opening};
use crate::id::Path;
use crate::limits::{DATAGRAM_BYTES_MAX, MEMBERS_MAX};
use crate::wire::bytes::Reader;

/// Receive buffer that is asked of the system, in bytes. At 256 clients whose datagrams arrive in
/// one burst, the usual 208 KiB lose half of them.
pub const RECEIVE_BUFFER_BYTES: usize = 4 << 20;

/// Send buffer that is asked of the system, in bytes.
pub const SEND_BUFFER_BYTES: usize = 1 << 20;

/// Events that wait for the game, besides those that it has begun to take. Datagrams beyond are
/// dropped and counted.
pub const QUEUE_EVENTS_MAX: usize = 8192;

/// Datagrams that wait for [`Link::flush`] at most; one more sends them.
const UNSENT_DATAGRAMS_MAX: usize = batch::BATCH_DATAGRAMS_MAX;

/// Whether a link encrypts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// Join tokens, authentication, encryption.
    Secure,
    /// None of them: for the local network and development.
    Insecure,
}

/// What a [`UdpLink`] depends on.
#[derive(Clone, Copy, Debug)]
pub struct UdpConfig {
    /// Address of this machine to listen on; port 0 lets the system choose.
    pub bind: SocketAddr,
    /// Whether to encrypt. Both ends must agree.
    pub security: Security,
    /// Says which game and version this is: links with different ones do not connect.
    pub protocol_id: u64,
    /// Clients that the server side takes at once, at most [`MEMBERS_MAX`]; 0 switches it off.
    pub clients_max: usize,
    /// Silence after which a session is over, and time that connecting may take: 1 to 60 s.
    pub timeout: Duration,
    /// How long the tokens are valid with which clients of the secure server side may come back
    /// ([`UdpLink::rejoin`]), in whole seconds, at most 30 days; they are renewed when half of it is
    /// over. Zero lets nobody come back without a join token from outside.
    pub resume_life: Duration,
}

impl UdpConfig {
    /// A secure link on any address and port, which takes 64 clients and 10 s of silence, and lets
    /// them come back for 10 minutes.
    #[must_use]
    pub const fn new(protocol_id: u64) -> Self {
        Self {
            bind: SocketAddr::new(core::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
            security: Security::Secure,
            protocol_id,
            clients_max: 64,
            timeout: Duration::from_secs(10),
            resume_life: Duration::from_secs(600),
        }
    }

    /// The same on this address of this machine.
    #[must_use]
    pub const fn with_bind(mut self, bind: SocketAddr) -> Self {
        self.bind = bind;
        self
    }

    /// The same without encryption.
    #[must_use]
    pub const fn insecure(mut self) -> Self {
        self.security = Security::Insecure;
        self
    }

    /// The same with this many clients.
    #[must_use]
    pub const fn with_clients_max(mut self, clients_max: usize) -> Self {
        self.clients_max = clients_max;
        self
    }
}

/// Why a link cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Another program has the port.
    #[error("UDP port {} is busy: another program uses it (perhaps another host); choose another or 0", .0.port())]
    PortBusy(SocketAddr),
    /// The address is not one of this machine's.
    #[error("this machine has no address {}", .0.ip())]
    AddressNotHere(SocketAddr),
    /// The system forbids it.
    #[error("this program may not use UDP port {}", .0.port())]
    Forbidden(SocketAddr),
    /// Any other failure of the socket.
    #[error("the UDP socket cannot be opened on {0}: {1}")]
    Socket(SocketAddr, #[source] io::Error),
    /// The operating system gives no random numbers, or its clock is before 1970.
    #[error("keys for the UDP link cannot be made: {0}")]
    Keys(String),
}

/// What a [`UdpLink`] has done so far.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct UdpStatistics {
    /// Datagrams given to the network, the link's own included.
    pub datagrams_sent: u64,
    /// Their bytes, without IP and UDP headers.
    pub bytes_sent: u64,
    /// Datagrams taken from the network, those that were refused included.
    pub datagrams_received: u64,
    /// Their bytes, without IP and UDP headers.
    pub bytes_received: u64,
    /// Datagrams that the system refused to send.
    pub send_errors: u64,
    /// Errors of the socket while receiving.
    pub receive_errors: u64,
    /// Payloads dropped because the game did not take its events.
    pub queue_full: u64,
    /// Sends over a path that is not open.
    pub unknown_path: u64,
    /// Payloads that are empty, too large, or begin with a byte that the link reserves.
    pub unsendable: u64,
    /// Sequence numbers left out because a challenge had used them.
    pub sequences_burned: u64,
    /// Received datagrams that were refused, by cause.
    pub drops: Drops,
    /// Bytes of these, without IP and UDP headers.
    pub bytes_refused: u64,
}

/// A UDP socket as a [`Link`].
#[derive(Debug)]
pub struct UdpLink {
    shared: Arc<Shared>,
    /// Events for the game, taken out of the queue together.
    events: Events,
    /// Payloads that wait for `flush`: path and end within `unsent_bytes`.
    unsent: Vec<(Path, usize)>,
    unsent_bytes: Vec<u8>,
    /// What the endpoint wants to send, filled under its lock and sent after it.
    outbox: Outbox,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl UdpLink {
    /// Opens the socket and starts the IO thread.
    ///
    /// # Errors
    /// If the address cannot be used or the system fails. The texts are for people.
    pub fn bind(config: UdpConfig) -> Result<Self, BindError> {
        let socket = thread::open_socket(config.bind)?;
        let local = socket
            .local_addr()
            .map_err(|error| BindError::Socket(config.bind, error))?;
        let endpoint = new_endpoint(&config)?;
        let shared = Arc::new(Shared::new(socket, local, endpoint, Instant::now()));
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("phalanx-udp".into())
            .spawn(move || thread::run(&for_thread))
            .map_err(|error| BindError::Socket(config.bind, error))?;
        Ok(Self {
            shared,
            events: Events::default(),
            unsent: Vec::new(),
            unsent_bytes: Vec::new(),
            outbox: Outbox::default(),
            thread: Some(thread),
        })
    }

    /// Where the socket listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.shared.local
    }

    /// Where others in this network probably reach the socket. A socket that listens on every
    /// address of the machine does not know which one others use; this is the one from which the
    /// machine would send to the internet, or the loopback address if it has no route there.
    /// Nothing is sent to find out.
    #[must_use]
    pub fn likely_addr(&self) -> SocketAddr {
        let local = self.local_addr();
        if !local.ip().is_unspecified() {
            return local;
        }
        SocketAddr::new(thread::outgoing_ip(local.is_ipv6()), local.port())
    }

    /// Connects an insecure link to the host at `address`. The path may be used once
    /// [`LinkEvent::Opened`] names it; if the host does not answer, [`LinkEvent::Closed`] will.
    ///
    /// # Errors
    /// If it cannot be tried.
    pub fn connect(&mut self, address: SocketAddr) -> Result<Path, ConnectError> {
        let address = self.reachable(address)?;
        let mut nonce = [0; 8];
        getrandom::fill(&mut nonce).map_err(|_no_random| ConnectError::Random)?;
        let nonce = u64::from_le_bytes(nonce);
        let path = self.with_endpoint(|now, endpoint, outbox| match endpoint {
            Endpoint::Plain(plain) => plain.connect(now, address, nonce, outbox),
            Endpoint::Secure(_) => Err(ConnectError::NeedsToken),
        })?;
        Ok(path)
    }

    /// Connects a secure link to the host that the token names. As [`UdpLink::connect`].
    ///
    /// # Errors
    /// If it cannot be tried.
    pub fn join(&mut self, token: &JoinToken) -> Result<Path, ConnectError> {
        let address = self.reachable(token.address())?;
        self.with_endpoint(|now, endpoint, outbox| match endpoint {
            Endpoint::Secure(secure) => secure.connect(now, token, address, outbox),
            Endpoint::Plain(_) => Err(ConnectError::NeedsAddress),
        })
    }

    /// Connects again to the host that `old` led to, after that path was closed. On a secure link,
    /// the host has handed over the right to do so while the old session lasted; it is good for a
    /// few attempts, each of which takes as long as [`UdpLink::join`] may. The client keeps its id.
    ///
    /// # Errors
    /// If it cannot be tried: [`ConnectError::NoWayBack`] without that right,
    /// [`ConnectError::AlreadyConnected`] while the path is open, and
    /// [`ConnectError::NeedsAddress`] on an insecure link, which just connects to the address again.
    pub fn rejoin(&mut self, old: Path) -> Result<Path, ConnectError> {
        self.with_endpoint(|now, endpoint, outbox| match endpoint {
            Endpoint::Secure(secure) => secure.rejoin(now, old, outbox),
            Endpoint::Plain(_) => Err(ConnectError::NeedsAddress),
        })
    }

    /// Makes a token with which one client, once, joins this link's server side at `address`
    /// within `life`. `client_id` arrives with the client's [`LinkEvent::Opened`]. Two clients with
    /// one id are never connected at the same time, so take a new id for each token.
    ///
    /// # Errors
    /// If the link is insecure or `address` or `life` cannot be.
    pub fn mint_token(
        &self,
        client_id: u64,
        address: SocketAddr,
        life: Duration,
    ) -> Result<JoinToken, TokenError> {
        match &*self.shared.lock() {
            Endpoint::Secure(secure) => {
                secure.mint(self.shared.now(), client_id, address, life.as_secs())
            }
            Endpoint::Plain(_) => Err(TokenError::Insecure),
        }
    }

    /// Address of the other end of `path`, as this end sees it; `None` if the path is gone.
    #[must_use]
    pub fn remote_addr(&self, path: Path) -> Option<SocketAddr> {
        match &*self.shared.lock() {
            Endpoint::Secure(secure) => secure.remote(path),
            Endpoint::Plain(plain) => plain.remote(path),
        }
    }

    /// What has happened so far.
    #[must_use]
    pub fn statistics(&self) -> UdpStatistics {
        let counts: Counts = *self.shared.lock().counts();
        let counters = &self.shared.counters;
        let of = |counter: &core::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        UdpStatistics {
            datagrams_sent: of(&counters.datagrams_sent),
            bytes_sent: of(&counters.bytes_sent),
            datagrams_received: of(&counters.datagrams_received),
            bytes_received: of(&counters.bytes_received),
            send_errors: of(&counters.send_errors),
            receive_errors: of(&counters.receive_errors),
            queue_full: of(&counters.queue_full),
            unknown_path: counts.unknown_path,
            unsendable: counts.unsendable,
            sequences_burned: counts.burned,
            drops: counts.drops,
            bytes_refused: counts.bytes_refused,
        }
    }

    /// The form of `address` that the socket can send to and will see as a sender.
    fn reachable(&self, address: SocketAddr) -> Result<SocketAddr, ConnectError> {
        if address.port() == 0 || address.ip().is_unspecified() || address.ip().is_multicast() {
            return Err(ConnectError::Address);
        }
        match (self.shared.local, address) {
            (SocketAddr::V4(_), SocketAddr::V6(v6)) => match v6.ip().to_ipv4_mapped() {
                Some(ip) => Ok(SocketAddr::from((ip, v6.port()))),
                None => Err(ConnectError::AddressFamily),
            },
            (SocketAddr::V6(_), SocketAddr::V4(v4)) => {
                Ok(SocketAddr::from((v4.ip().to_ipv6_mapped(), v4.port())))
            }
            (SocketAddr::V4(_), SocketAddr::V4(_)) | (SocketAddr::V6(_), SocketAddr::V6(_)) => {
                Ok(address)
            }
        }
    }

    /// Fills `events` if it is empty.
    fn refill(&mut self) {
        if !self.events.is_empty() {
            return;
        }
        // Read before the queue: what the IO thread says before its end is in it then.
        let ended = self.shared.queue.is_ended();
        self.shared.queue.exchange(&mut self.events);
        if ended && self.events.is_empty() {
            // The IO thread is dead, so every path is.
            for path in self.close_all() {
                let reason = CloseReason::Socket;
                self.events.push(Event::Closed { path, reason });
            }
        }
    }

    fn close_all(&mut self) -> Vec<Path> {
        self.with_endpoint(|_now, endpoint, outbox| match endpoint {
            Endpoint::Secure(secure) => secure.close_all(outbox),
            Endpoint::Plain(plain) => plain.close_all(outbox),
        })
    }

    /// Sends what waits for [`Link::flush`], then runs `act` under the lock and sends what it wants
    /// sent.
    fn with_endpoint<R>(
        &mut self,
        act: impl FnOnce(crate::time::Time, &mut Endpoint, &mut Outbox) -> R,
    ) -> R {
        self.flush();
        let now = self.shared.now();
        let result = act(now, &mut self.shared.lock(), &mut self.outbox);
        self.shared.transmit(&mut self.outbox);
        result
    }
}

impl Link for UdpLink {
    fn receive(&mut self) -> Option<LinkEvent<'_>> {
        self.refill();
        let (event, bytes) = self.events.pop()?;
        Some(match event {
            Event::Opened { path, client_id } => LinkEvent::Opened { path, client_id },
            Event::Datagram { path, .. } => LinkEvent::Datagram { path, bytes },
            Event::Closed { path, reason } => LinkEvent::Closed { path, reason },
        })
    }

    fn send(&mut self, path: Path, bytes: &[u8]) {
        if self.unsent.len() == UNSENT_DATAGRAMS_MAX {
            self.flush();
        }
        // What is too long is only counted, so it need not be whole.
        let kept = bytes.len().min(DATAGRAM_BYTES_MAX + 1);
        self.unsent_bytes.extend_from_slice(&bytes[..kept]);
        self.unsent.push((path, self.unsent_bytes.len()));
    }

    fn flush(&mut self) {
        if self.unsent.is_empty() {
            return;
        }
        let now = self.shared.now();
        let mut endpoint = self.shared.lock();
        let mut start = 0;
        for &(path, end) in &self.unsent {
            endpoint.send(now, path, &self.unsent_bytes[start..end], &mut self.outbox);
            start = end;
        }
        drop(endpoint);
        self.unsent.clear();
        self.unsent_bytes.clear();
        self.shared.transmit(&mut self.outbox);
    }

    fn close(&mut self, path: Path) {
        self.with_endpoint(|_now, endpoint, outbox| match endpoint {
            Endpoint::Secure(secure) => secure.close(path, outbox),
            Endpoint::Plain(plain) => plain.close(path, outbox),
        });
    }

    fn address(&self, path: Path) -> Option<Address> {
        self.remote_addr(path).and_then(address_of)
    }

    /// An insecure link needs no invitation. A path that there is already is that path.
    fn open(&mut self, opening: &Opening) -> Option<Path> {
        let address = self.reachable(socket_addr_of(&opening.address)?).ok()?;
        let mut nonce = [0; 8];
        getrandom::fill(&mut nonce).ok()?;
        let nonce = u64::from_le_bytes(nonce);
        self.with_endpoint(|now, endpoint, outbox| match endpoint {
            Endpoint::Plain(plain) => plain
                .path_to(address)
                .or_else(|| plain.connect(now, address, nonce, outbox).ok()),
            Endpoint::Secure(_) => None,
        })
    }
}

/// The address of a socket as other links of this kind understand it: 4 or 6, IP, port.
fn address_of(address: SocketAddr) -> Option<Address> {
    let mut bytes = Vec::with_capacity(19);
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => {
            bytes.push(4);
            bytes.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            bytes.push(6);
            bytes.extend_from_slice(&ip.octets());
        }
    }
    bytes.extend_from_slice(&address.port().to_le_bytes());
    Address::new(&bytes)
}

fn socket_addr_of(address: &Address) -> Option<SocketAddr> {
    let mut reader = Reader::new(address.as_bytes());
    let ip = match reader.u8().ok()? {
        4 => IpAddr::from(reader.array::<4>().ok()?),
        6 => IpAddr::from(reader.array::<16>().ok()?),
        _ => return None,
    };
    let port = reader.u16().ok()?;
    reader.finish().ok()?;
    Some(SocketAddr::new(ip, port))
}

impl Drop for UdpLink {
    /// Ends all paths and stops the IO thread; takes up to 50 ms.
    fn drop(&mut self) {
        self.close_all();
        self.shared.stop();
        if let Some(thread) = self.thread.take() {
            // It has nothing left to say, and a panic of its own was printed.
            let _ended = thread.join();
        }
    }
}

fn new_endpoint(config: &UdpConfig) -> Result<Mutex<Endpoint>, BindError> {
    let timeout_s = config.timeout.as_secs().clamp(1, 60);
    let clients_max = config.clients_max.min(MEMBERS_MAX);
    let endpoint = match config.security {
        Security::Secure => {
            let mut key = [0; 32];
            getrandom::fill(&mut key).map_err(|error| BindError::Keys(error.to_string()))?;
            let unix_at_zero = SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .map_err(|error| BindError::Keys(error.to_string()))?;
            let timeout_s = u32::try_from(timeout_s).unwrap_or(60);
            let secure = SecureEndpoint::new(SecureConfig {
                mint: TokenMint::new(key, config.protocol_id, timeout_s),
                clients_max,
                unix_at_zero,
                resume_life_s: config.resume_life.as_secs(),
            })
            .map_err(|error| BindError::Keys(error.to_string()))?;
            Endpoint::Secure(Box::new(secure))
        }
        Security::Insecure => Endpoint::Plain(Box::new(PlainEndpoint::new(PlainConfig {
            protocol_id: config.protocol_id,
            clients_max,
            timeout_us: timeout_s * 1_000_000,
            cookie_key: RandomState::new(),
        }))),
    };
    Ok(Mutex::new(endpoint))
}
