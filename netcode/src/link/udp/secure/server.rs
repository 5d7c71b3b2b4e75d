//! The server side of a secure address: its sessions, and which tokens have been used.

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::BTreeMap;

use super::resume::Offers;
use super::{CHALLENGES_PER_TOKEN_MAX, Route, TOKENS_REMEMBERED_MAX, next_path};
use crate::id::Path;
use crate::link::CloseReason;
use crate::link::udp::endpoint::{Counts, ENDS_SAID, RateLimit, SESSION_PAYLOADS_PER_S_MAX, Sink};
use crate::link::udp::guard::{self, DropCause, Kind, Refusal, Request, TokenTag};
use crate::link::udp::token::{self, TokenError, TokenMint};
use crate::time::Time;
use renetcode::{
    ClientAuthentication, NetcodeClient, NetcodeServer, ServerAuthentication, ServerConfig,
    ServerResult,
};

/// Requests with unknown tokens that are looked into per second. Each costs up to 20 µs: a flood of
/// forged ones takes a tenth of a core at most.
const STRANGERS_PER_S_MAX: u64 = 5000;

/// This end as a host: renetcode's server and what we must know beside it.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) netcode: Box<NetcodeServer>,
    pub(super) protocol_id: u64,
    /// Connected clients. renetcode has the same ones.
    pub(super) peers: BTreeMap<SocketAddr, Peer>,
    /// Addresses that were challenged, with their token. renetcode binds an address to the keys of
    /// the first token that came from it.
    pub(super) pending: BTreeMap<SocketAddr, TokenTag>,
    pub(super) tokens: BTreeMap<TokenTag, TokenUse>,
    pub(super) strangers: RateLimit,
}

impl Server {
    pub(super) fn new(
        mint: &TokenMint,
        clients_max: usize,
        unix: Duration,
    ) -> Result<Self, TokenError> {
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
    pub(super) fn advance(&mut self, unix: Duration) {
        let elapsed = unix.saturating_sub(self.netcode.current_time());
        self.netcode.update(elapsed.max(Duration::from_nanos(1)));
    }

    pub(super) fn handle_request(
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

    pub(super) fn handle_response(
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
                    offers: Offers::default(),
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

    pub(super) fn send(
        &mut self,
        address: SocketAddr,
        bytes: &[u8],
        counts: &mut Counts,
        sink: &mut impl Sink,
    ) -> bool {
        let peer = self.peers.get_mut(&address);
        peer.is_some_and(|peer| peer.send(&mut self.netcode, bytes, counts, sink))
    }

    pub(super) fn disconnect(
        &mut self,
        address: SocketAddr,
        counts: &mut Counts,
        sink: &mut impl Sink,
    ) {
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
            (0..ENDS_SAID).for_each(|_| sink.transmit(addr, datagram));
        }
    }

    pub(super) fn handle_timeout(
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
                        (0..ENDS_SAID).for_each(|_| sink.transmit(addr, datagram));
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
pub(super) struct Peer {
    pub(super) client_id: u64,
    /// Its path, once it was heard.
    pub(super) path: Option<Path>,
    /// The number that renetcode gives to the next datagram of this session.
    pub(super) sequence_next: u64,
    /// Nonces that challenges of this session have used, ascending.
    pub(super) challenges: Vec<u64>,
    pub(super) payloads: RateLimit,
    pub(super) offers: Offers,
}

impl Peer {
    /// The client has proved that it can read us.
    pub(super) fn hear(
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

    /// Sends a payload; `false` if renetcode does not know the client.
    pub(super) fn send(
        &mut self,
        netcode: &mut NetcodeServer,
        bytes: &[u8],
        counts: &mut Counts,
        sink: &mut impl Sink,
    ) -> bool {
        loop {
            match netcode.generate_payload_packet(self.client_id, bytes) {
                Ok((to, datagram)) => {
                    if self.may_emit(datagram, counts) {
                        sink.transmit(to, datagram);
                        return true;
                    }
                }
                Err(_not_connected) => return false,
            }
        }
    }

    pub(super) fn is_burned(&self, sequence: u64) -> bool {
        self.challenges.last().is_some_and(|&last| sequence <= last)
            && self.challenges.binary_search(&sequence).is_ok()
    }

    /// Notes that renetcode has made this datagram, and says whether it may go out.
    pub(super) fn may_emit(&mut self, datagram: &[u8], counts: &mut Counts) -> bool {
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
pub(super) struct TokenUse {
    /// The only address that it is accepted from.
    pub(super) address: SocketAddr,
    pub(super) expires_unix_s: u64,
    /// It has opened its session.
    pub(super) spent: bool,
    /// Nonces of the challenges (and denials) sent under its key; ascending, as renetcode counts.
    pub(super) challenges: Vec<u64>,
}

impl TokenUse {
    pub(super) const fn is_spent(&self) -> bool {
        self.spent
    }

    pub(super) fn spend(&mut self) -> Vec<u64> {
        self.spent = true;
        core::mem::take(&mut self.challenges)
    }
}
