//! Encrypted sessions over one address: a server side and any number of client sides.
//!
//! A pure machine around `renetcode`: time and datagrams are arguments, what is to be sent and said
//! goes to a [`Sink`]. (Keys of tokens come from the operating system, within renetcode; they do
//! not change what happens.) What it adds:
//!
//! - Every datagram passes [`guard::inspect`] first, and is refused by address and token before
//!   renetcode sees it.
//! - A token opens one session, ever. Its tag is remembered until it expires.
//! - No nonce is used twice. renetcode numbers challenges per server and everything else per
//!   session, both from 0, under the same key; a session skips the numbers that its challenges had.
//! - A peer's path opens once the peer was heard with the session's key, so nothing is sent to who
//!   cannot read it yet.
//! - Ends are said ten times.

pub(super) mod resume;
mod server;

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::BTreeMap;

use self::resume::{Meeting, Offers, WaysBack};
use self::server::Server;
use crate::id::Path;
use crate::limits::{DATAGRAM_BYTES_MAX, MEMBERS_MAX};
use crate::link::CloseReason;
use crate::link::udp::endpoint::{
    ConnectError, Counts, RateLimit, SESSION_PAYLOADS_PER_S_MAX, Sink,
};
use crate::link::udp::guard::{self, DropCause, Kind, Refusal, TokenTag};
use crate::link::udp::token::{JoinToken, TokenError, TokenMint};
use crate::time::Time;
use renetcode::{ClientAuthentication, DisconnectReason, NetcodeClient, ServerResult};

/// Tokens whose use is remembered. With that many unexpired ones, further requests are refused.
const TOKENS_REMEMBERED_MAX: usize = 8192;

/// Challenges for one token. A client that needs more has asked for half a minute.
const CHALLENGES_PER_TOKEN_MAX: usize = 128;

/// How wrong a player's clock may be, in seconds. A token is thrown away unasked only if it expired
/// longer ago than this; otherwise the host is asked, whose clock counts.
const CLOCK_ERROR_S_MAX: u64 = 24 * 3600;

/// Outgoing connections of one endpoint.
pub(super) const CLIENTS_MAX: usize = 64;

/// How often an end is said: at 20 % loss, all ten are lost once in 10 million.
const DISCONNECTS: usize = 10;

/// Time between a refusal and giving up, in microseconds. Somebody on the way could have forged
/// the refusal; the host's challenge may still come.
const REFUSAL_PATIENCE_US: u64 = 1_000_000;

/// Tokens for ways back that are made per call of `handle_timeout`: a session of many clients that
/// begins at once shall not hold up its first ticks.
const OFFERS_PER_TIMEOUT_MAX: usize = 4;

/// What a [`SecureEndpoint`] depends on.
#[derive(Debug)]
pub(super) struct SecureConfig {
    pub(super) mint: TokenMint,
    /// Clients that the server side takes; 0 for none.
    pub(super) clients_max: usize,
    /// Unix time at [`Time::ZERO`].
    pub(super) unix_at_zero: Duration,
    /// How long tokens are valid that let the other ends of sessions come back to the server side,
    /// in seconds; 0 for none.
    pub(super) resume_life_s: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct SecureEndpoint {
    server: Option<Server>,
    clients: BTreeMap<SocketAddr, Client>,
    routes: BTreeMap<Path, Route>,
    /// Tokens that this end has connected with, and when they expire.
    tokens_spent: BTreeMap<TokenTag, u64>,
    ways_back: WaysBack,
    mint: TokenMint,
    unix_at_zero: Duration,
    resume_life_s: u64,
    path_next: u32,
    counts: Counts,
}

impl SecureEndpoint {
    pub(super) fn new(config: SecureConfig) -> Result<Self, TokenError> {
        let SecureConfig {
            mint,
            clients_max,
            unix_at_zero,
            resume_life_s,
        } = config;
        let server = match clients_max {
            0 => None,
            _ => Some(Server::new(
                &mint,
                clients_max.min(MEMBERS_MAX),
                unix_at_zero,
            )?),
        };
        Ok(Self {
            server,
            clients: BTreeMap::new(),
            routes: BTreeMap::new(),
            tokens_spent: BTreeMap::new(),
            ways_back: WaysBack::default(),
            mint,
            unix_at_zero,
            resume_life_s,
            path_next: 1,
            counts: Counts::default(),
        })
    }

    pub(super) const fn counts(&self) -> &Counts {
        &self.counts
    }

    /// A token for a client of this end's server side.
    pub(super) fn mint(
        &self,
        now: Time,
        client_id: u64,
        address: SocketAddr,
        life_s: u64,
    ) -> Result<JoinToken, TokenError> {
        self.mint.mint(client_id, address, self.unix(now), life_s)
    }

    /// Starts a session with the host at `address`, which the token names.
    pub(super) fn connect(
        &mut self,
        now: Time,
        token: &JoinToken,
        address: SocketAddr,
        sink: &mut impl Sink,
    ) -> Result<Path, ConnectError> {
        if token.protocol_id() != self.mint.protocol_id() {
            return Err(ConnectError::OtherGame);
        }
        let unix = self.unix(now);
        let surely_expired = unix.as_secs().saturating_sub(CLOCK_ERROR_S_MAX);
        if token.expires_unix_s() <= surely_expired {
            return Err(ConnectError::TokenExpired);
        }
        if self.tokens_spent.contains_key(&token.tag()) {
            return Err(ConnectError::TokenUsed);
        }
        if self.clients.contains_key(&address) {
            return Err(ConnectError::AlreadyConnected);
        }
        self.tokens_spent
            .retain(|_tag, expires| *expires > surely_expired);
        if self.clients.len() >= CLIENTS_MAX || self.tokens_spent.len() >= TOKENS_REMEMBERED_MAX {
            return Err(ConnectError::Full);
        }
        let mut connect_token = token.to_renetcode();
        connect_token.server_addresses[0] = Some(address);
        let netcode = NetcodeClient::new(unix, ClientAuthentication::Secure { connect_token })
            .map_err(|_unsecure_only| ConnectError::Address)?;
        self.tokens_spent
            .insert(token.tag(), token.expires_unix_s());
        let path = next_path(&mut self.path_next);
        let mut client = Client {
            netcode: Box::new(netcode),
            path,
            tag: token.tag(),
            client_id: token.client_id(),
            opened: false,
            refused: None,
            payloads: RateLimit::new(SESSION_PAYLOADS_PER_S_MAX),
            offers: Offers::default(),
        };
        client.advance(unix, sink);
        self.clients.insert(address, client);
        self.routes.insert(path, Route::ToHost(address));
        Ok(path)
    }

    /// Starts another session with the end that `old` led to, with a token that came over it.
    pub(super) fn rejoin(
        &mut self,
        now: Time,
        old: Path,
        sink: &mut impl Sink,
    ) -> Result<Path, ConnectError> {
        if self.routes.contains_key(&old) {
            return Err(ConnectError::AlreadyConnected);
        }
        let address = self.ways_back.address(old);
        // A token that is not tried is not spent.
        if address.is_some_and(|address| self.clients.contains_key(&address)) {
            return Err(ConnectError::AlreadyConnected);
        }
        let token = self.ways_back.next(old).ok_or(ConnectError::NoWayBack)?;
        let path = self.connect(now, &token, token.address(), sink)?;
        self.ways_back.inherit(old, path);
        Ok(path)
    }

    /// The path that leads where `old` led before it ended, opened by this end.
    pub(super) fn path_instead(&self, old: Path) -> Option<Path> {
        self.path_to_host(self.ways_back.address(old)?)
    }

    /// Takes a datagram from the socket; it is decrypted in place.
    pub(super) fn handle_datagram(
        &mut self,
        now: Time,
        from: SocketAddr,
        bytes: &mut [u8],
        sink: &mut impl Sink,
    ) {
        if let Err(cause) = self.sort_datagram(now, from, bytes, sink) {
            self.counts.drops.count(cause);
            self.counts.bytes_refused += bytes.len() as u64;
        }
    }

    fn sort_datagram(
        &mut self,
        now: Time,
        from: SocketAddr,
        bytes: &mut [u8],
        sink: &mut impl Sink,
    ) -> Result<(), DropCause> {
        let kind = guard::inspect(bytes)?;
        match kind {
            Kind::Request => self.handle_request(now, from, bytes, sink),
            Kind::Response => self.handle_response(now, from, bytes, sink),
            Kind::Denied | Kind::Challenge | Kind::Refusal => {
                self.handle_as_client(now, from, kind, bytes, sink)
            }
            Kind::KeepAlive | Kind::Payload | Kind::Disconnect => {
                if !self.clients.contains_key(&from) {
                    return self.handle_as_server(now, from, kind, bytes, sink);
                }
                // Two hosts that have joined each other share one pair of addresses. The wrong
                // side's key does not fit, and what does not fit is left as it was.
                match self.handle_as_client(now, from, kind, bytes, sink) {
                    Err(DropCause::NotAuthentic) if self.is_peer(from) => {
                        self.handle_as_server(now, from, kind, bytes, sink)
                    }
                    done => done,
                }
            }
        }
    }

    fn is_peer(&self, address: SocketAddr) -> bool {
        self.server
            .as_ref()
            .is_some_and(|server| server.peers.contains_key(&address))
    }

    /// Whether clients are taken.
    pub(super) const fn has_server(&self) -> bool {
        self.server.is_some()
    }

    /// The path to the host at this address, if there is one or it is under way.
    pub(super) fn path_to_host(&self, address: SocketAddr) -> Option<Path> {
        Some(self.clients.get(&address)?.path)
    }

    /// Where the other end of a path is.
    pub(super) fn remote(&self, path: Path) -> Option<SocketAddr> {
        match *self.routes.get(&path)? {
            Route::ToHost(address) | Route::ToClient(address) => Some(address),
        }
    }

    /// Sends a payload over an open path.
    pub(super) fn send(&mut self, path: Path, bytes: &[u8], sink: &mut impl Sink) {
        if bytes.is_empty() || bytes.len() > DATAGRAM_BYTES_MAX || resume::is_reserved(bytes) {
            self.counts.unsendable += 1;
            return;
        }
        let sent = match self.routes.get(&path) {
            Some(Route::ToHost(address)) => {
                let client = self.clients.get_mut(address);
                client.is_some_and(|client| client.send(bytes, sink))
            }
            Some(Route::ToClient(address)) => self
                .server
                .as_mut()
                .is_some_and(|server| server.send(*address, bytes, &mut self.counts, sink)),
            None => false,
        };
        if !sent {
            self.counts.unknown_path += 1;
        }
    }

    /// Ends a path, whatever its phase.
    pub(super) fn close(&mut self, path: Path, sink: &mut impl Sink) {
        match self.routes.remove(&path) {
            Some(Route::ToHost(address)) => {
                if let Some(mut client) = self.clients.remove(&address)
                    && let Ok((to, datagram)) = client.netcode.disconnect()
                {
                    (0..DISCONNECTS).for_each(|_| sink.transmit(to, datagram));
                }
            }
            Some(Route::ToClient(address)) => {
                if let Some(server) = &mut self.server {
                    server.disconnect(address, &mut self.counts, sink);
                }
            }
            None => {}
        }
    }

    /// Ends all paths, and says which they were.
    pub(super) fn close_all(&mut self, sink: &mut impl Sink) -> Vec<Path> {
        let paths: Vec<Path> = self.routes.keys().copied().collect();
        for &path in &paths {
            self.close(path, sink);
        }
        paths
    }

    /// Repeats, keeps alive and gives up. Call it 10 to 50 times per second.
    pub(super) fn handle_timeout(&mut self, now: Time, sink: &mut impl Sink) {
        let unix = self.unix(now);
        let routes = &mut self.routes;
        self.clients.retain(|_address, client| {
            client.advance(unix, sink);
            match client.end(unix) {
                None => true,
                Some(reason) => {
                    routes.remove(&client.path);
                    sink.closed(client.path, reason);
                    false
                }
            }
        });
        if let Some(server) = &mut self.server {
            server.handle_timeout(unix, routes, &mut self.counts, sink);
        }
        if self.resume_life_s > 0 {
            self.offer_ways_back(now, sink);
        }
    }

    /// Hands tokens to the other ends that were heard, and again to those that have not taken them.
    fn offer_ways_back(&mut self, now: Time, sink: &mut impl Sink) {
        let Some(server) = &mut self.server else {
            return;
        };
        let (unix, life_s) = (self.unix_at_zero + (now - Time::ZERO), self.resume_life_s);
        let mut budget = OFFERS_PER_TIMEOUT_MAX;
        let mint = &self.mint;
        // The address is for the token's form only: who takes it knows the way it came.
        let mut next = |offers: &mut Offers, id, address| {
            if !offers.is_due(now) {
                return None;
            }
            if offers.needs_token() {
                budget = budget.checked_sub(1)?;
                offers.put(&mint.mint(id, address, unix, life_s).ok()?);
            }
            offers.next(now).map(<[u8]>::to_vec)
        };
        for (address, peer) in &mut server.peers {
            if peer.path.is_some()
                && let Some(payload) = next(&mut peer.offers, peer.client_id, *address)
            {
                peer.send(&mut server.netcode, &payload, &mut self.counts, sink);
            }
        }
        for (address, client) in &mut self.clients {
            let id = resume::id_over(client.path);
            if client.opened
                && let Some(payload) = next(&mut client.offers, id, *address)
            {
                client.send(&payload, sink);
            }
        }
    }

    fn handle_as_client(
        &mut self,
        now: Time,
        from: SocketAddr,
        kind: Kind,
        bytes: &mut [u8],
        sink: &mut impl Sink,
    ) -> Result<(), DropCause> {
        let unix = self.unix(now);
        let client = self
            .clients
            .get_mut(&from)
            .ok_or(DropCause::UnknownSender)?;
        if kind == Kind::Refusal {
            let refusal = Refusal::decode(bytes, client.tag).ok_or(DropCause::NotAuthentic)?;
            client.refused.get_or_insert((refusal, unix));
            return Ok(());
        }
        client.advance(unix, sink);
        if let Some(payload) = client.netcode.process_packet(bytes) {
            if !client.payloads.allow(now) {
                return Err(DropCause::Flood);
            }
            if resume::is_reserved(payload) {
                let meeting = Meeting {
                    path: client.path,
                    address: from,
                    protocol_id: self.mint.protocol_id(),
                    own_id: Some(client.client_id),
                    offers: &mut client.offers,
                    life_us: self.resume_life_s.saturating_mul(1_000_000),
                };
                let routes = &self.routes;
                let is_open = |path: &Path| routes.contains_key(path);
                let answer = self.ways_back.handle(now, meeting, payload, is_open)?;
                if let Some(answer) = answer {
                    client.send(&answer, sink);
                }
            } else if !payload.is_empty() {
                sink.datagram(client.path, payload);
            }
            return Ok(());
        }
        // `advance` moved renetcode's clock, so only what it accepted was heard just now.
        if !client.netcode.time_since_last_received_packet().is_zero() {
            return Err(DropCause::NotAuthentic);
        }
        // Answer a challenge now, not at the next timeout.
        client.advance(unix, sink);
        if client.netcode.is_connected() && !client.opened {
            client.opened = true;
            sink.opened(client.path, client.client_id);
        }
        if let Some(reason) = client.end(unix) {
            let path = client.path;
            self.clients.remove(&from);
            self.routes.remove(&path);
            sink.closed(path, reason);
        }
        Ok(())
    }

    fn handle_request(
        &mut self,
        now: Time,
        from: SocketAddr,
        bytes: &mut [u8],
        sink: &mut impl Sink,
    ) -> Result<(), DropCause> {
        let unix = self.unix(now);
        let server = self.server.as_mut().ok_or(DropCause::Kind)?;
        server.handle_request(now, unix, from, bytes, sink)
    }

    fn handle_response(
        &mut self,
        now: Time,
        from: SocketAddr,
        bytes: &mut [u8],
        sink: &mut impl Sink,
    ) -> Result<(), DropCause> {
        let unix = self.unix(now);
        let server = self.server.as_mut().ok_or(DropCause::Kind)?;
        server.handle_response(unix, from, bytes, &mut self.counts, sink)
    }

    fn handle_as_server(
        &mut self,
        now: Time,
        from: SocketAddr,
        kind: Kind,
        bytes: &mut [u8],
        sink: &mut impl Sink,
    ) -> Result<(), DropCause> {
        let unix = self.unix(now);
        let server = self.server.as_mut().ok_or(DropCause::UnknownSender)?;
        server.advance(unix);
        let peer = server
            .peers
            .get_mut(&from)
            .ok_or(DropCause::UnknownSender)?;
        match server.netcode.process_packet(from, bytes) {
            ServerResult::Payload { payload, .. } => {
                let path = peer.hear(from, &mut self.path_next, &mut self.routes, sink);
                if !peer.payloads.allow(now) {
                    return Err(DropCause::Flood);
                }
                if resume::is_reserved(payload) {
                    let meeting = Meeting {
                        path,
                        address: from,
                        protocol_id: self.mint.protocol_id(),
                        own_id: None,
                        offers: &mut peer.offers,
                        life_us: self.resume_life_s.saturating_mul(1_000_000),
                    };
                    let routes = &self.routes;
                    let is_open = |path: &Path| routes.contains_key(path);
                    let answer = self.ways_back.handle(now, meeting, payload, is_open)?;
                    if let Some(answer) = answer {
                        peer.send(&mut server.netcode, &answer, &mut self.counts, sink);
                    }
                } else if !payload.is_empty() {
                    sink.datagram(path, payload);
                }
                Ok(())
            }
            ServerResult::ClientDisconnected { .. } => {
                let path = peer.path;
                server.peers.remove(&from);
                if let Some(path) = path {
                    self.routes.remove(&path);
                    sink.closed(path, CloseReason::Remote);
                }
                Ok(())
            }
            ServerResult::None => {
                // `advance` moved renetcode's clock, so only what it accepted was heard just now.
                let silence = server
                    .netcode
                    .time_since_last_received_packet(peer.client_id);
                if kind == Kind::KeepAlive && silence == Some(Duration::ZERO) {
                    peer.hear(from, &mut self.path_next, &mut self.routes, sink);
                    Ok(())
                } else {
                    Err(DropCause::NotAuthentic)
                }
            }
            ServerResult::PacketToSend { .. } | ServerResult::ClientConnected { .. } => {
                Err(DropCause::NotAuthentic)
            }
        }
    }

    /// Tables that describe the same sessions agree.
    #[cfg(test)]
    fn invariants(&self) {
        let (mut to_hosts, mut to_clients) = (0, 0);
        for (path, route) in &self.routes {
            assert!(path.0 < self.path_next);
            match route {
                Route::ToHost(address) => {
                    to_hosts += 1;
                    assert_eq!(self.clients[address].path, *path);
                }
                Route::ToClient(address) => {
                    to_clients += 1;
                    let server = self.server.as_ref().expect("a client has a server");
                    assert_eq!(server.peers[address].path, Some(*path));
                }
            }
        }
        assert_eq!(to_hosts, self.clients.len());
        assert!(self.clients.len() <= CLIENTS_MAX);
        let Some(server) = &self.server else {
            assert_eq!(to_clients, 0);
            return;
        };
        let heard = server.peers.values().filter(|peer| peer.path.is_some());
        assert_eq!(to_clients, heard.count());
        assert_eq!(server.netcode.connected_clients(), server.peers.len());
        for (address, peer) in &server.peers {
            assert_eq!(server.netcode.client_addr(peer.client_id), Some(*address));
            assert!(peer.challenges.is_sorted());
        }
        for (address, tag) in &server.pending {
            assert_eq!(server.tokens[tag].address, *address);
            assert!(!server.peers.contains_key(address));
        }
        assert!(server.tokens.len() <= TOKENS_REMEMBERED_MAX);
        for token in server.tokens.values() {
            assert!(token.challenges.len() <= CHALLENGES_PER_TOKEN_MAX + 1);
        }
    }

    fn unix(&self, now: Time) -> Duration {
        self.unix_at_zero + (now - Time::ZERO)
    }
}

/// Paths are never used again within one endpoint.
const fn next_path(next: &mut u32) -> Path {
    let path = Path(*next);
    *next = next.saturating_add(1);
    path
}

/// Which session a path belongs to.
#[derive(Clone, Copy, Debug)]
enum Route {
    /// This end is the client of the host at this address.
    ToHost(SocketAddr),
    /// This end's server side has a client at this address.
    ToClient(SocketAddr),
}

/// This end as the client of one host.
#[derive(Debug)]
struct Client {
    netcode: Box<NetcodeClient>,
    path: Path,
    tag: TokenTag,
    client_id: u64,
    opened: bool,
    /// What the host said about the token, and when first.
    refused: Option<(Refusal, Duration)>,
    payloads: RateLimit,
    offers: Offers,
}

impl Client {
    /// Moves renetcode's clock, always by something, and sends what it wants to.
    fn advance(&mut self, unix: Duration, sink: &mut impl Sink) {
        let elapsed = unix.saturating_sub(self.netcode.current_time());
        let elapsed = elapsed.max(Duration::from_nanos(1));
        if let Some((datagram, to)) = self.netcode.update(elapsed) {
            sink.transmit(to, datagram);
        }
    }

    /// Sends a payload; `false` while there is no session.
    fn send(&mut self, bytes: &[u8], sink: &mut impl Sink) -> bool {
        match self.netcode.generate_payload_packet(bytes) {
            Ok((to, datagram)) => {
                sink.transmit(to, datagram);
                true
            }
            Err(_not_connected) => false,
        }
    }

    /// Why the session is over, if it is.
    fn end(&self, unix: Duration) -> Option<CloseReason> {
        let refused = self.refused.map(|(refusal, since)| {
            let reason = match refusal {
                Refusal::Used => CloseReason::TokenUsed,
                Refusal::Expired => CloseReason::TokenExpired,
            };
            (reason, since)
        });
        if self.netcode.is_connecting()
            && let Some((reason, since)) = refused
            && unix.saturating_sub(since) >= Duration::from_micros(REFUSAL_PATIENCE_US)
        {
            return Some(reason);
        }
        Some(match self.netcode.disconnect_reason()? {
            DisconnectReason::ConnectTokenExpired => CloseReason::TokenExpired,
            DisconnectReason::ConnectionTimedOut => CloseReason::TimedOut,
            DisconnectReason::ConnectionRequestTimedOut
            | DisconnectReason::ConnectionResponseTimedOut => {
                refused.map_or(CloseReason::NoAnswer, |(reason, _since)| reason)
            }
            DisconnectReason::ConnectionDenied => CloseReason::Full,
            DisconnectReason::DisconnectedByClient | DisconnectReason::DisconnectedByServer => {
                CloseReason::Remote
            }
        })
    }
}

#[cfg(test)]
mod tests;
