#![expect(
    clippy::disallowed_methods,
    reason = "IO shell: reads the clock and starts the IO thread"
)]
//! UDP: one socket with a server side and any number of client sides, encrypted or not.
//!
//! [`Link::receive`] takes what has arrived from the socket and decrypts it. An IO thread keeps
//! sessions alive, and does the same for a caller that is busy elsewhere: then what it has for the
//! game waits in a bounded queue. Sending happens on the caller's thread: [`Link::send`] collects,
//! [`Link::flush`] encrypts, under a lock that nobody holds during a system call. On Linux, 64
//! datagrams go to or come from the system in one call. What travels in each mode is in
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
mod config;
mod endpoint;
mod guard;
mod invitation;
mod plain;
mod queue;
mod secure;
mod thread;
mod token;

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::hash::RandomState;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime};

pub use config::{BindError, Security, UdpConfig, UdpStatistics};
pub use endpoint::ConnectError;
pub use guard::{DropCause, Drops};
pub use token::{JOIN_CODE_BYTES_MAX, JoinToken, TOKEN_LIFE_S_MAX, TokenError};

use self::endpoint::Counts;
use self::invitation::Invitations;
use self::plain::{PlainConfig, PlainEndpoint};
use self::queue::{Event, Events};
use self::secure::{SecureConfig, SecureEndpoint, resume};
use self::thread::{Endpoint, Outbox, Shared};
use self::token::TokenMint;
use super::{Address, CloseReason, Link, LinkEvent, Opening};
use crate::id::{MemberId, Path};
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

/// How long an invitation made by [`Link::invite`] is good for. It is used a round trip after it was
/// made, or never.
const INVITATION_LIFE: Duration = Duration::from_secs(60);

/// Datagrams that wait for [`Link::flush`] at most; one more sends them.
const UNSENT_DATAGRAMS_MAX: usize = batch::BATCH_DATAGRAMS_MAX;

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
    /// Groups that may still be taken from the socket before [`Link::receive`] says that there is
    /// nothing: its caller shall come to an end.
    groups_left: usize,
    /// `None` on an insecure link.
    invitations: Option<Invitations>,
    thread: Option<std::thread::JoinHandle<()>>,
    /// Whether the other ends are told nothing of the end.
    is_abandoned: bool,
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
        let invitations = match config.security {
            Security::Secure => Some(Invitations::new(random_key()?)),
            Security::Insecure => None,
        };
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
            groups_left: thread::BURST_GROUPS_MAX,
            invitations,
            thread: Some(thread),
            is_abandoned: false,
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
        let nonce = random_nonce()?;
        self.with_endpoint(|now, endpoint, outbox| match endpoint {
            Endpoint::Plain(plain) => plain.connect(now, address, nonce, outbox),
            Endpoint::Secure(_) => Err(ConnectError::NeedsToken),
        })
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

    /// Connects again to the link that `old` led to, after that path was closed, whichever end had
    /// opened it. On a secure link, the other end has handed over the right to do so while the old
    /// session lasted, if it takes clients; it is good for a few attempts, each of which takes as long
    /// as [`UdpLink::join`] may. Who joined keeps the client id that it had.
    ///
    /// # Errors
    /// If it cannot be tried: [`ConnectError::NoWayBack`] without that right, or if the path is
    /// long gone, and [`ConnectError::AlreadyConnected`] while it is open, or another one to there.
    pub fn rejoin(&mut self, old: Path) -> Result<Path, ConnectError> {
        let nonce = random_nonce()?;
        self.with_endpoint(|now, endpoint, outbox| match endpoint {
            Endpoint::Secure(secure) => secure.rejoin(now, old, outbox),
            Endpoint::Plain(plain) => plain.rejoin(now, old, nonce, outbox),
        })
    }

    /// Makes a token with which one client, once, joins this link's server side at `address`
    /// within `life`. `client_id` arrives with the client's [`LinkEvent::Opened`]. Two clients with
    /// one id are never connected at the same time, so take a new id for each token.
    ///
    /// # Errors
    /// If the link is insecure or `address` or `life` cannot be, or `client_id` is one of those of
    /// [`UdpLink::invited_member`].
    pub fn mint_token(
        &self,
        client_id: u64,
        address: SocketAddr,
        life: Duration,
    ) -> Result<JoinToken, TokenError> {
        if invitation::is_reserved(client_id) || resume::is_reserved_id(client_id) {
            return Err(TokenError::ReservedId);
        }
        self.mint(client_id, address, life)
    }

    /// The key to which others seal invitations for this link; `None` if the link is insecure. Its
    /// private half never leaves the link and dies with it.
    #[must_use]
    pub fn public_key(&self) -> Option<[u8; 32]> {
        self.invitations.as_ref().map(Invitations::public_key)
    }

    /// Makes an invitation with which the member that owns `public_key` opens one path to this link
    /// at `address` within `life`. Anyone may carry it; it has about 1230 bytes. The path comes up
    /// here with a client id of which [`UdpLink::invited_member`] gives `member`.
    ///
    /// # Errors
    /// If the link is insecure or takes no clients, if `public_key`, `address` or `life` cannot be,
    /// or after 64 invitations in a second.
    pub fn mint_for(
        &mut self,
        member: MemberId,
        public_key: &[u8],
        address: SocketAddr,
        life: Duration,
    ) -> Result<Vec<u8>, TokenError> {
        match &*self.shared.lock() {
            Endpoint::Secure(secure) if secure.has_server() => {}
            Endpoint::Secure(_) => return Err(TokenError::NoClients),
            Endpoint::Plain(_) => return Err(TokenError::Insecure),
        }
        let now = self.shared.now();
        let invitations = self.invitations.as_mut().ok_or(TokenError::Insecure)?;
        let client_id = invitations.client_id(now, member)?;
        invitation::seal(&self.mint(client_id, address, life)?, public_key)
    }

    /// The member that a client id of a path means, if that path was opened with one of the last 2048
    /// invitations of this link. What has such an id has shown that it is this member: nobody else
    /// could read the invitation.
    #[must_use]
    pub fn invited_member(&self, client_id: u64) -> Option<MemberId> {
        self.invitations.as_ref()?.invited_member(client_id)
    }

    /// Opens a path to the member that made an invitation for this link, at `address` if it is
    /// given, else where the invitation says. As [`UdpLink::connect`]. It may be called at any time,
    /// whatever other paths there are, in either direction.
    ///
    /// # Errors
    /// If it cannot be tried. Invitations that are damaged, sealed to another key, for another game,
    /// used or long expired are counted (`UdpStatistics::invitations_refused`).
    pub fn open_invitation(
        &mut self,
        sealed: &[u8],
        address: Option<SocketAddr>,
    ) -> Result<Path, ConnectError> {
        let invitations = self.invitations.as_mut();
        if sealed.is_empty() && invitations.is_some() {
            return Err(ConnectError::NeedsToken);
        }
        // Outside of the lock: curves take long.
        let invitations = invitations.ok_or(ConnectError::NeedsAddress)?;
        let token = invitations.unseal(sealed).ok_or(ConnectError::Invitation)?;
        let address = self.reachable(address.unwrap_or(token.address()))?;
        let token = token.with_address(address);
        let opened = self.join(&token);
        let worthless = matches!(
            opened,
            Err(ConnectError::TokenUsed | ConnectError::TokenExpired | ConnectError::OtherGame)
        );
        if let Some(invitations) = &mut self.invitations
            && worthless
        {
            invitations.count_refused();
        }
        opened
    }

    fn mint(
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

    /// Closes the socket without a word to anyone, as a process that is killed does: the other ends
    /// find out by the silence. For tests and shows of failure.
    pub fn abandon(mut self) {
        self.is_abandoned = true;
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
            invitations_refused: self.invitations.as_ref().map_or(0, Invitations::refused),
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
        while self.events.is_empty() && self.groups_left > 0 {
            self.groups_left -= 1;
            let shared = &self.shared;
            if !shared.receive_for_game(&mut self.events, &mut self.outbox) {
                self.groups_left = 0;
            }
        }
        if self.events.is_empty() {
            self.groups_left = thread::BURST_GROUPS_MAX;
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

    /// A path that there is already is that path. Else a secure link needs an invitation.
    fn open(&mut self, opening: &Opening) -> Option<Path> {
        let address = self.reachable(socket_addr_of(&opening.address)?).ok()?;
        if self.invitations.is_some() {
            return match self.open_invitation(&opening.invitation, Some(address)) {
                Ok(path) => Some(path),
                Err(ConnectError::AlreadyConnected) => match &*self.shared.lock() {
                    Endpoint::Secure(secure) => secure.path_to_host(address),
                    Endpoint::Plain(_) => None,
                },
                Err(_) => None,
            };
        }
        let nonce = random_nonce().ok()?;
        self.with_endpoint(|now, endpoint, outbox| match endpoint {
            Endpoint::Plain(plain) => plain
                .path_to(address)
                .or_else(|| plain.connect(now, address, nonce, outbox).ok()),
            Endpoint::Secure(_) => None,
        })
    }

    /// A path that leads there already is that path.
    fn reopen(&mut self, old: Path) -> Option<Path> {
        match self.rejoin(old) {
            Ok(path) => Some(path),
            Err(ConnectError::AlreadyConnected) => match &*self.shared.lock() {
                Endpoint::Secure(secure) => secure.path_instead(old),
                Endpoint::Plain(plain) => plain.path_instead(old),
            },
            Err(_) => None,
        }
    }

    fn public_key(&self) -> Option<[u8; 32]> {
        self.public_key()
    }

    fn invite(&mut self, member: MemberId, public_key: &[u8]) -> Option<Vec<u8>> {
        // Who opens sets the address at which the host sees this link.
        let address = self.likely_addr();
        self.mint_for(member, public_key, address, INVITATION_LIFE)
            .ok()
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
    /// Ends all paths and stops the IO thread.
    fn drop(&mut self) {
        if !self.is_abandoned {
            self.close_all();
        }
        self.shared.stop();
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It has nothing left to say, and a panic of its own was printed.
            let _ended = thread.join();
        }
    }
}

fn random_nonce() -> Result<u64, ConnectError> {
    let mut nonce = [0; 8];
    getrandom::fill(&mut nonce).map_err(|_no_random| ConnectError::Random)?;
    Ok(u64::from_le_bytes(nonce))
}

fn random_key() -> Result<[u8; 32], BindError> {
    let mut key = [0; 32];
    getrandom::fill(&mut key).map_err(|error| BindError::Keys(error.to_string()))?;
    Ok(key)
}

fn new_endpoint(config: &UdpConfig) -> Result<Mutex<Endpoint>, BindError> {
    let timeout_s = config.timeout.as_secs().clamp(1, 60);
    let clients_max = config.clients_max.min(MEMBERS_MAX);
    let endpoint = match config.security {
        Security::Secure => {
            let key = random_key()?;
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
