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

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::BTreeMap;

use renetcode::{
    ClientAuthentication, DisconnectReason, NetcodeClient, NetcodeServer, ServerAuthentication,
    ServerConfig, ServerResult,
};

use super::endpoint::{ConnectError, Counts, RateLimit, SESSION_PAYLOADS_PER_S_MAX, Sink};
use super::guard::{self, DropCause, Kind, Refusal, Request, TokenTag};
use super::token::{self, JoinToken, TokenError, TokenMint};
use crate::id::Path;
use crate::limits::{DATAGRAM_BYTES_MAX, MEMBERS_MAX};
use crate::link::CloseReason;
use crate::time::Time;

/// Tokens whose use is remembered. With that many unexpired ones, further requests are refused.
const TOKENS_REMEMBERED_MAX: usize = 8192;

/// Challenges for one token. A client that needs more has asked for half a minute.
const CHALLENGES_PER_TOKEN_MAX: usize = 128;

/// Requests with unknown tokens that are looked into per second. Each costs up to 20 µs: a flood of
/// forged ones takes a tenth of a core at most.
const STRANGERS_PER_S_MAX: u64 = 5000;

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

/// What a [`SecureEndpoint`] depends on.
#[derive(Debug)]
pub(super) struct SecureConfig {
    pub(super) mint: TokenMint,
    /// Clients that the server side takes; 0 for none.
    pub(super) clients_max: usize,
    /// Unix time at [`Time::ZERO`].
    pub(super) unix_at_zero: Duration,
}

/// See the module.
#[derive(Debug)]
pub(super) struct SecureEndpoint {
    server: Option<Server>,
    clients: BTreeMap<SocketAddr, Client>,
    routes: BTreeMap<Path, Route>,
    /// Tokens that this end has connected with, and when they expire.
    tokens_spent: BTreeMap<TokenTag, u64>,
    mint: TokenMint,
    unix_at_zero: Duration,
    path_next: u32,
    counts: Counts,
}

impl SecureEndpoint {
    pub(super) fn new(config: SecureConfig) -> Result<Self, TokenError> {
        let SecureConfig {
            mint,
            clients_max,
            unix_at_zero,
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
            mint,
            unix_at_zero,
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
        };
        client.advance(unix, sink);
        self.clients.insert(address, client);
        self.routes.insert(path, Route::ToHost(address));
        Ok(path)
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

    /// Where the other end of a path is.
    pub(super) fn remote(&self, path: Path) -> Option<SocketAddr> {
        match *self.routes.get(&path)? {
            Route::ToHost(address) | Route::ToClient(address) => Some(address),
        }
    }

    /// Sends a payload over an open path.
    pub(super) fn send(&mut self, path: Path, bytes: &[u8], sink: &mut impl Sink) {
        if bytes.is_empty() || bytes.len() > DATAGRAM_BYTES_MAX {
            self.counts.unsendable += 1;
            return;
        }
        let sent = match self.routes.get(&path) {
            Some(Route::ToHost(address)) => self.clients.get_mut(address).is_some_and(|client| {
                match client.netcode.generate_payload_packet(bytes) {
                    Ok((to, datagram)) => {
                        sink.transmit(to, datagram);
                        true
                    }
                    Err(_not_connected) => false,
                }
            }),
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
            if !payload.is_empty() {
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
                if !payload.is_empty() {
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

/// This end as a host: renetcode's server and what we must know beside it.
#[derive(Debug)]
struct Server {
    netcode: Box<NetcodeServer>,
    protocol_id: u64,
    /// Connected clients. renetcode has the same ones.
    peers: BTreeMap<SocketAddr, Peer>,
    /// Addresses that were challenged, with their token. renetcode binds an address to the keys of
    /// the first token that came from it.
    pending: BTreeMap<SocketAddr, TokenTag>,
    tokens: BTreeMap<TokenTag, TokenUse>,
    strangers: RateLimit,
}

impl Server {
    fn new(mint: &TokenMint, clients_max: usize, unix: Duration) -> Result<Self, TokenError> {
        let mut netcode = NetcodeServer::new(ServerConfig {
            current_time: unix,
            max_clients: clients_max,
            protocol_id: mint.protocol_id(),
            public_addresses: vec![token::SEALED_ADDRESS],
            authentication: ServerAuthentication::Secure {
                private_key: mint.key(),
            },
        });
        burn_first_challenge(&mut netcode, mint, unix)?;
        Ok(Self {
            netcode: Box::new(netcode),
            protocol_id: mint.protocol_id(),
            peers: BTreeMap::new(),
            pending: BTreeMap::new(),
            tokens: BTreeMap::new(),
            strangers: RateLimit::new(STRANGERS_PER_S_MAX),
        })
    }

    /// Moves renetcode's clock, always by something: see [`SecureEndpoint::handle_as_server`].
    fn advance(&mut self, unix: Duration) {
        let elapsed = unix.saturating_sub(self.netcode.current_time());
        self.netcode.update(elapsed.max(Duration::from_nanos(1)));
    }

    fn handle_request(
        &mut self,
        now: Time,
        unix: Duration,
        from: SocketAddr,
        bytes: &mut [u8],
        sink: &mut impl Sink,
    ) -> Result<(), DropCause> {
        let request = Request::read(bytes, self.protocol_id)?;
        if self.peers.contains_key(&from) {
            return Err(DropCause::RequestFromConnected);
        }
        if request.expires_unix_s <= unix.as_secs() {
            sink.transmit(from, &Refusal::Expired.encode(request.tag));
            return Err(DropCause::TokenExpired);
        }
        match self.tokens.get(&request.tag) {
            Some(token) if token.is_spent() || token.address != from => {
                sink.transmit(from, &Refusal::Used.encode(request.tag));
                return Err(DropCause::TokenUsed);
            }
            Some(token) if token.challenges.len() >= CHALLENGES_PER_TOKEN_MAX => {
                return Err(DropCause::Flood);
            }
            Some(_) => {}
            None if self.tokens.len() >= TOKENS_REMEMBERED_MAX => {
                return Err(DropCause::TokenMemoryFull);
            }
            None if !self.strangers.allow(now) => return Err(DropCause::Flood),
            None => {}
        }
        if self
            .pending
            .get(&from)
            .is_some_and(|tag| *tag != request.tag)
        {
            return Err(DropCause::AddressBusy);
        }

        self.advance(unix);
        // Anything but an answer means that the token is not ours, or its client is connected.
        let ServerResult::PacketToSend { addr, payload } = self.netcode.process_packet(from, bytes)
        else {
            return Err(DropCause::TokenRefused);
        };
        let nonce = guard::sequence_of(payload).ok_or(DropCause::TokenRefused)?;
        let denied = guard::inspect(payload) == Ok(Kind::Denied);
        self.tokens
            .entry(request.tag)
            .or_insert_with(|| TokenUse {
                address: from,
                expires_unix_s: request.expires_unix_s,
                spent: false,
                challenges: Vec::new(),
            })
            .challenges
            .push(nonce);
        sink.transmit(addr, payload);
        if denied {
            self.pending.remove(&from);
            return Err(DropCause::Full);
        }
        self.pending.insert(from, request.tag);
        Ok(())
    }

    fn handle_response(
        &mut self,
        unix: Duration,
        from: SocketAddr,
        bytes: &mut [u8],
        counts: &mut Counts,
        sink: &mut impl Sink,
    ) -> Result<(), DropCause> {
        self.advance(unix);
        if let Some(peer) = self.peers.get(&from) {
            // The client has not heard yet that it is connected; the keep-alives go on until it has.
            self.netcode.process_packet(from, bytes);
            let silence = self.netcode.time_since_last_received_packet(peer.client_id);
            return if silence == Some(Duration::ZERO) {
                Ok(())
            } else {
                Err(DropCause::NotAuthentic)
            };
        }
        let tag = *self.pending.get(&from).ok_or(DropCause::UnknownSender)?;
        match self.netcode.process_packet(from, bytes) {
            ServerResult::ClientConnected {
                client_id,
                addr,
                user_data,
                payload,
            } => {
                self.pending.remove(&from);
                let challenges = self
                    .tokens
                    .get_mut(&tag)
                    .map(TokenUse::spend)
                    .unwrap_or_default();
                let mut peer = Peer {
                    client_id,
                    path: None,
                    sequence_next: 0,
                    challenges,
                    payloads: RateLimit::new(SESSION_PAYLOADS_PER_S_MAX),
                };
                let bound = *user_data == token::user_data(client_id);
                if bound && peer.may_emit(payload, counts) {
                    sink.transmit(addr, payload);
                }
                self.peers.insert(from, peer);
                if bound {
                    Ok(())
                } else {
                    self.disconnect(from, counts, sink);
                    Err(DropCause::IdentityMismatch)
                }
            }
            ServerResult::PacketToSend { addr, payload } => {
                // Denied. Its nonce counts as one of the token's challenges.
                let nonce = guard::sequence_of(payload).ok_or(DropCause::NotAuthentic)?;
                sink.transmit(addr, payload);
                if let Some(token) = self.tokens.get_mut(&tag) {
                    token.challenges.push(nonce);
                }
                self.pending.remove(&from);
                Err(DropCause::Full)
            }
            ServerResult::None
            | ServerResult::Payload { .. }
            | ServerResult::ClientDisconnected { .. } => Err(DropCause::NotAuthentic),
        }
    }

    fn send(
        &mut self,
        address: SocketAddr,
        bytes: &[u8],
        counts: &mut Counts,
        sink: &mut impl Sink,
    ) -> bool {
        let Some(peer) = self.peers.get_mut(&address) else {
            return false;
        };
        loop {
            match self.netcode.generate_payload_packet(peer.client_id, bytes) {
                Ok((to, datagram)) => {
                    if peer.may_emit(datagram, counts) {
                        sink.transmit(to, datagram);
                        return true;
                    }
                }
                Err(_not_connected) => return false,
            }
        }
    }

    fn disconnect(&mut self, address: SocketAddr, counts: &mut Counts, sink: &mut impl Sink) {
        let Some(mut peer) = self.peers.remove(&address) else {
            return;
        };
        // renetcode numbers the disconnect next; move it past the challenges.
        while peer.is_burned(peer.sequence_next) {
            match self.netcode.generate_payload_packet(peer.client_id, &[]) {
                Ok((_, datagram)) => peer.may_emit(datagram, counts),
                Err(_not_connected) => break,
            };
        }
        if let ServerResult::ClientDisconnected {
            addr,
            payload: Some(datagram),
            ..
        } = self.netcode.disconnect(peer.client_id)
            && peer.may_emit(datagram, counts)
        {
            (0..DISCONNECTS).for_each(|_| sink.transmit(addr, datagram));
        }
    }

    fn handle_timeout(
        &mut self,
        unix: Duration,
        routes: &mut BTreeMap<Path, Route>,
        counts: &mut Counts,
        sink: &mut impl Sink,
    ) {
        self.advance(unix);
        let netcode = &mut self.netcode;
        self.peers.retain(
            |_address, peer| match netcode.update_client(peer.client_id) {
                ServerResult::PacketToSend { addr, payload } => {
                    // A keep-alive with a burned number is left out; the next one follows.
                    if peer.may_emit(payload, counts) {
                        sink.transmit(addr, payload);
                    }
                    true
                }
                ServerResult::ClientDisconnected { addr, payload, .. } => {
                    if let Some(datagram) = payload
                        && peer.may_emit(datagram, counts)
                    {
                        (0..DISCONNECTS).for_each(|_| sink.transmit(addr, datagram));
                    }
                    if let Some(path) = peer.path {
                        routes.remove(&path);
                        sink.closed(path, CloseReason::TimedOut);
                    }
                    false
                }
                ServerResult::None
                | ServerResult::Payload { .. }
                | ServerResult::ClientConnected { .. } => true,
            },
        );
        // Expired tokens are refused for being expired; renetcode forgets their handshakes too.
        self.tokens
            .retain(|_tag, token| token.expires_unix_s >= unix.as_secs());
        let tokens = &self.tokens;
        self.pending
            .retain(|_address, tag| tokens.contains_key(tag));
    }
}

/// renetcode's first challenge has the number 0, like the first datagram of every session. This
/// sends it to nobody, so that no session's first datagram is ever one of its challenges.
fn burn_first_challenge(
    netcode: &mut NetcodeServer,
    mint: &TokenMint,
    unix: Duration,
) -> Result<(), TokenError> {
    let nobody = SocketAddr::from(([0, 0, 0, 0], 1));
    let somewhere = SocketAddr::from(([127, 0, 0, 1], 1));
    let connect_token = mint.mint(0, somewhere, unix, 1)?.to_renetcode();
    let failed = || TokenError::Mint("renetcode refuses its own token".into());
    let mut client = NetcodeClient::new(unix, ClientAuthentication::Secure { connect_token })
        .map_err(|_invalid| failed())?;
    let (request, _to) = client.update(Duration::ZERO).ok_or_else(failed)?;
    match netcode.process_packet(nobody, request) {
        ServerResult::PacketToSend { .. } => Ok(()),
        ServerResult::None
        | ServerResult::Payload { .. }
        | ServerResult::ClientConnected { .. }
        | ServerResult::ClientDisconnected { .. } => Err(failed()),
    }
}

/// A client of this end's server side.
#[derive(Debug)]
struct Peer {
    client_id: u64,
    /// Its path, once it was heard.
    path: Option<Path>,
    /// The number that renetcode gives to the next datagram of this session.
    sequence_next: u64,
    /// Nonces that challenges of this session have used, ascending.
    challenges: Vec<u64>,
    payloads: RateLimit,
}

impl Peer {
    /// The client has proved that it can read us.
    fn hear(
        &mut self,
        from: SocketAddr,
        path_next: &mut u32,
        routes: &mut BTreeMap<Path, Route>,
        sink: &mut impl Sink,
    ) -> Path {
        match self.path {
            Some(path) => path,
            None => {
                let path = next_path(path_next);
                self.path = Some(path);
                routes.insert(path, Route::ToClient(from));
                sink.opened(path, self.client_id);
                path
            }
        }
    }

    fn is_burned(&self, sequence: u64) -> bool {
        self.challenges.last().is_some_and(|&last| sequence <= last)
            && self.challenges.binary_search(&sequence).is_ok()
    }

    /// Notes that renetcode has made this datagram, and says whether it may go out.
    fn may_emit(&mut self, datagram: &[u8], counts: &mut Counts) -> bool {
        let Some(sequence) = guard::sequence_of(datagram) else {
            return false;
        };
        self.sequence_next = sequence + 1;
        let burned = self.is_burned(sequence);
        counts.burned += u64::from(burned);
        !burned
    }
}

/// What is known about a token that was shown to us and is authentic.
#[derive(Debug)]
struct TokenUse {
    /// The only address that it is accepted from.
    address: SocketAddr,
    expires_unix_s: u64,
    /// It has opened its session.
    spent: bool,
    /// Nonces of the challenges (and denials) sent under its key; ascending, as renetcode counts.
    challenges: Vec<u64>,
}

impl TokenUse {
    const fn is_spent(&self) -> bool {
        self.spent
    }

    fn spend(&mut self) -> Vec<u64> {
        self.spent = true;
        core::mem::take(&mut self.challenges)
    }
}

#[cfg(test)]
mod tests;
