//! Unencrypted sessions, for the local network and development.
//!
//! A pure machine like [`secure`](super::secure). The game's datagrams travel as they are: their
//! first byte is 0x40 or higher, and what is below is ours. A session is an address; whoever can
//! send from it (or pretend to, on a network that lets him) can speak for it. What is protected:
//! nobody gets a session, or an answer larger than his question, without receiving at the address
//! that he claims; and nobody who does not see the traffic can end a session.
//!
//! ```text
//! client                                       host
//! Request{protocol, nonce, cookie 0}  ->
//!                                     <-  Cookie{nonce, cookie}    keeps no memory of it
//! Request{protocol, nonce, cookie}    ->
//!                                     <-  Accept{nonce}            opens the path
//! opens the path
//! ```

use core::hash::BuildHasher as _;
use core::net::SocketAddr;
use std::collections::BTreeMap;
use std::hash::RandomState;

use super::endpoint::{ConnectError, Counts, RateLimit, SESSION_PAYLOADS_PER_S_MAX, Sink};
use super::guard::DropCause;
use super::secure::CLIENTS_MAX;
use super::secure::resume::PATHS_MAX;
use crate::id::Path;
use crate::limits::{DATAGRAM_BYTES_MAX, MEMBERS_MAX};
use crate::link::CloseReason;
use crate::time::Time;
use crate::wire::bytes::{DecodeError, Reader};

/// First byte of the lowest datagram that is the game's.
const PAYLOAD_FIRST_BYTE: u8 = 0x40;

/// Time between two requests, in microseconds.
const REQUEST_INTERVAL_US: u64 = 250_000;

/// Time between sends after which a keep-alive goes out, in microseconds.
const KEEP_ALIVE_INTERVAL_US: u64 = 1_000_000;

/// How long a cookie is good for, in microseconds, at least; twice that at most.
const COOKIE_LIFE_US: u64 = 10_000_000;

/// Cookies given out per second, to whoever asks.
const COOKIES_PER_S_MAX: u64 = 2000;

/// Paths opened per second.
const NEW_PATHS_PER_S_MAX: u64 = 100;

/// How often an end is said.
const CLOSES: usize = 10;

/// What a [`PlainEndpoint`] depends on.
#[derive(Debug)]
pub(super) struct PlainConfig {
    pub(super) protocol_id: u64,
    /// Clients that the server side takes; 0 for none.
    pub(super) clients_max: usize,
    /// Silence after which a session is over, in microseconds.
    pub(super) timeout_us: u64,
    /// Key of the cookies.
    pub(super) cookie_key: RandomState,
}

/// See the module.
#[derive(Debug)]
pub(super) struct PlainEndpoint {
    config: PlainConfig,
    sessions: BTreeMap<SocketAddr, Session>,
    routes: BTreeMap<Path, SocketAddr>,
    /// Where paths led that have ended, the newest ones.
    ended: BTreeMap<Path, SocketAddr>,
    incoming_count: usize,
    path_next: u32,
    cookies: RateLimit,
    new_paths: RateLimit,
    counts: Counts,
}

impl PlainEndpoint {
    pub(super) fn new(config: PlainConfig) -> Self {
        Self {
            config,
            sessions: BTreeMap::new(),
            routes: BTreeMap::new(),
            ended: BTreeMap::new(),
            incoming_count: 0,
            path_next: 1,
            cookies: RateLimit::new(COOKIES_PER_S_MAX),
            new_paths: RateLimit::new(NEW_PATHS_PER_S_MAX),
            counts: Counts::default(),
        }
    }

    pub(super) const fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Starts a session with the host at `address`. `nonce` must be random: it is all that tells
    /// the host's answers from forged ones.
    pub(super) fn connect(
        &mut self,
        now: Time,
        address: SocketAddr,
        nonce: u64,
        sink: &mut impl Sink,
    ) -> Result<Path, ConnectError> {
        if self.sessions.contains_key(&address) {
            return Err(ConnectError::AlreadyConnected);
        }
        if self.sessions.len() - self.incoming_count >= CLIENTS_MAX {
            return Err(ConnectError::Full);
        }
        let path = self.add(now, address, nonce, Phase::Connecting { cookie: 0 }, false);
        self.request(now, address, sink);
        Ok(path)
    }

    /// Starts another session with the end that `old` led to.
    pub(super) fn rejoin(
        &mut self,
        now: Time,
        old: Path,
        nonce: u64,
        sink: &mut impl Sink,
    ) -> Result<Path, ConnectError> {
        if self.routes.contains_key(&old) {
            return Err(ConnectError::AlreadyConnected);
        }
        let address = *self.ended.get(&old).ok_or(ConnectError::NoWayBack)?;
        self.connect(now, address, nonce, sink)
    }

    /// The path that leads where `old` led before it ended.
    pub(super) fn path_instead(&self, old: Path) -> Option<Path> {
        self.path_to(*self.ended.get(&old)?)
    }

    /// Takes a datagram from the socket.
    pub(super) fn handle_datagram(
        &mut self,
        now: Time,
        from: SocketAddr,
        bytes: &[u8],
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
        bytes: &[u8],
        sink: &mut impl Sink,
    ) -> Result<(), DropCause> {
        let first = *bytes.first().ok_or(DropCause::TooShort)?;
        if bytes.len() > DATAGRAM_BYTES_MAX {
            return Err(DropCause::TooLong);
        }
        if first >= PAYLOAD_FIRST_BYTE {
            let session = self
                .sessions
                .get_mut(&from)
                .filter(|session| session.phase == Phase::Open)
                .ok_or(DropCause::UnknownSender)?;
            session.received_at = now;
            if !session.payloads.allow(now) {
                return Err(DropCause::Flood);
            }
            sink.datagram(session.path, bytes);
            return Ok(());
        }
        match Control::decode(bytes)? {
            Control::Request {
                protocol_id,
                nonce,
                cookie,
            } => self.handle_request(now, from, protocol_id, nonce, cookie, sink),
            Control::Cookie { nonce, cookie } => {
                let session = self.session(from, nonce)?;
                match &mut session.phase {
                    Phase::Connecting { cookie: known } if *known != cookie => *known = cookie,
                    Phase::Connecting { .. } | Phase::Open => return Err(DropCause::NotAuthentic),
                }
                self.request(now, from, sink);
                Ok(())
            }
            Control::Accept { nonce } => {
                let session = self.session(from, nonce)?;
                session.received_at = now;
                if session.phase != Phase::Open {
                    session.phase = Phase::Open;
                    sink.opened(session.path, 0);
                }
                Ok(())
            }
            Control::Deny { nonce, reason } => {
                let session = self.session(from, nonce)?;
                if session.phase == Phase::Open {
                    return Err(DropCause::NotAuthentic);
                }
                self.end(from, reason, sink);
                Ok(())
            }
            Control::KeepAlive { nonce } => {
                self.session(from, nonce)?.received_at = now;
                Ok(())
            }
            Control::Close { nonce } => {
                self.session(from, nonce)?;
                self.end(from, CloseReason::Remote, sink);
                Ok(())
            }
        }
    }

    fn handle_request(
        &mut self,
        now: Time,
        from: SocketAddr,
        protocol_id: u64,
        nonce: u64,
        cookie: u64,
        sink: &mut impl Sink,
    ) -> Result<(), DropCause> {
        if self.config.clients_max == 0 {
            return Err(DropCause::Kind);
        }
        let period = now.micros() / COOKIE_LIFE_US;
        let expected = self.cookie(from, nonce, period);
        let proven = cookie == expected
            || period
                .checked_sub(1)
                .is_some_and(|before| cookie == self.cookie(from, nonce, before));
        if !proven {
            if !self.cookies.allow(now) {
                return Err(DropCause::Flood);
            }
            let (asked, cookie) = (cookie, expected);
            sink.transmit(from, &Control::Cookie { nonce, cookie }.encode());
            // A first request has none; any other one is guessed, or older than its life.
            return if asked == 0 {
                Ok(())
            } else {
                Err(DropCause::Cookie)
            };
        }
        if protocol_id != self.config.protocol_id {
            let reason = CloseReason::OtherGame;
            sink.transmit(from, &Control::Deny { nonce, reason }.encode());
            return Err(DropCause::OtherProtocol);
        }
        match self.sessions.get_mut(&from) {
            Some(session) if session.nonce == nonce => {
                // Our acceptance was lost.
                session.received_at = now;
            }
            Some(session) if session.phase != Phase::Open => {
                // Both ends connect to each other at the same time: one path is enough. The client
                // with the smaller number gives way, and both agree on which that is.
                if session.nonce < nonce {
                    session.nonce = nonce;
                    session.phase = Phase::Open;
                    session.received_at = now;
                    sink.opened(session.path, 0);
                } else {
                    return Ok(());
                }
            }
            known => {
                let replaces = known.is_some();
                if !replaces && self.incoming_count >= self.config.clients_max.min(MEMBERS_MAX) {
                    let reason = CloseReason::Full;
                    sink.transmit(from, &Control::Deny { nonce, reason }.encode());
                    return Err(DropCause::Full);
                }
                if !self.new_paths.allow(now) {
                    return Err(DropCause::Flood);
                }
                if replaces {
                    // The program at this address has started anew.
                    self.end(from, CloseReason::Remote, sink);
                }
                let path = self.add(now, from, nonce, Phase::Open, true);
                sink.opened(path, 0);
            }
        }
        sink.transmit(from, &Control::Accept { nonce }.encode());
        Ok(())
    }

    /// The path to this address, if there is one or one is under way.
    pub(super) fn path_to(&self, address: SocketAddr) -> Option<Path> {
        self.sessions.get(&address).map(|session| session.path)
    }

    /// Where the other end of a path is.
    pub(super) fn remote(&self, path: Path) -> Option<SocketAddr> {
        self.routes.get(&path).copied()
    }

    /// Sends a payload over an open path.
    pub(super) fn send(&mut self, now: Time, path: Path, bytes: &[u8], sink: &mut impl Sink) {
        let reserved = bytes
            .first()
            .is_none_or(|&first| first < PAYLOAD_FIRST_BYTE);
        if reserved || bytes.len() > DATAGRAM_BYTES_MAX {
            self.counts.unsendable += 1;
            return;
        }
        let session = self
            .routes
            .get(&path)
            .and_then(|address| Some((*address, self.sessions.get_mut(address)?)));
        match session {
            Some((address, session)) if session.phase == Phase::Open => {
                session.sent_at = now;
                sink.transmit(address, bytes);
            }
            Some(_) | None => self.counts.unknown_path += 1,
        }
    }

    /// Ends a path, whatever its phase.
    pub(super) fn close(&mut self, path: Path, sink: &mut impl Sink) {
        let Some(&address) = self.routes.get(&path) else {
            return;
        };
        if let Some(session) = self.remove(address) {
            let nonce = session.nonce;
            let datagram = Control::Close { nonce }.encode();
            (0..CLOSES).for_each(|_| sink.transmit(address, &datagram));
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
        let mut ended = Vec::new();
        let mut requesting = Vec::new();
        for (&address, session) in &mut self.sessions {
            let silent = now.micros_since(session.received_at) >= self.config.timeout_us;
            match session.phase {
                Phase::Connecting { .. } if silent => ended.push((address, CloseReason::NoAnswer)),
                Phase::Open if silent => ended.push((address, CloseReason::TimedOut)),
                Phase::Connecting { .. } => {
                    if now.micros_since(session.sent_at) >= REQUEST_INTERVAL_US {
                        requesting.push(address);
                    }
                }
                Phase::Open => {
                    if now.micros_since(session.sent_at) >= KEEP_ALIVE_INTERVAL_US {
                        session.sent_at = now;
                        let nonce = session.nonce;
                        sink.transmit(address, &Control::KeepAlive { nonce }.encode());
                    }
                }
            }
        }
        for address in requesting {
            self.request(now, address, sink);
        }
        for (address, reason) in ended {
            self.end(address, reason, sink);
        }
    }

    /// The session with this address, if the other end knows its number.
    fn session(&mut self, from: SocketAddr, nonce: u64) -> Result<&mut Session, DropCause> {
        let session = self
            .sessions
            .get_mut(&from)
            .ok_or(DropCause::UnknownSender)?;
        if session.nonce == nonce {
            Ok(session)
        } else {
            Err(DropCause::NotAuthentic)
        }
    }

    fn request(&mut self, now: Time, address: SocketAddr, sink: &mut impl Sink) {
        if let Some(session) = self.sessions.get_mut(&address)
            && let Phase::Connecting { cookie } = session.phase
        {
            session.sent_at = now;
            let request = Control::Request {
                protocol_id: self.config.protocol_id,
                nonce: session.nonce,
                cookie,
            };
            sink.transmit(address, &request.encode());
        }
    }

    fn add(
        &mut self,
        now: Time,
        address: SocketAddr,
        nonce: u64,
        phase: Phase,
        incoming: bool,
    ) -> Path {
        let path = Path(self.path_next);
        self.path_next = self.path_next.saturating_add(1);
        self.incoming_count += usize::from(incoming);
        self.routes.insert(path, address);
        self.sessions.insert(
            address,
            Session {
                path,
                nonce,
                phase,
                incoming,
                received_at: now,
                sent_at: now,
                payloads: RateLimit::new(SESSION_PAYLOADS_PER_S_MAX),
            },
        );
        path
    }

    fn remove(&mut self, address: SocketAddr) -> Option<Session> {
        let session = self.sessions.remove(&address)?;
        self.routes.remove(&session.path);
        self.incoming_count -= usize::from(session.incoming);
        self.ended.insert(session.path, address);
        if self.ended.len() > PATHS_MAX {
            self.ended.pop_first();
        }
        Some(session)
    }

    fn end(&mut self, address: SocketAddr, reason: CloseReason, sink: &mut impl Sink) {
        if let Some(session) = self.remove(address) {
            sink.closed(session.path, reason);
        }
    }

    /// `SipHash` under a key that only this process has; never 0, which says "none yet".
    fn cookie(&self, from: SocketAddr, nonce: u64, period: u64) -> u64 {
        self.config
            .cookie_key
            .hash_one((from, nonce, period))
            .max(1)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// This end asks; the cookie is 0 until the host has given one.
    Connecting { cookie: u64 },
    /// Payloads flow.
    Open,
}

#[derive(Debug)]
struct Session {
    path: Path,
    /// Random number of the client, known to both ends only.
    nonce: u64,
    phase: Phase,
    /// Whether the other end is the client.
    incoming: bool,
    received_at: Time,
    sent_at: Time,
    payloads: RateLimit,
}

/// Datagrams of the link itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Control {
    Request {
        protocol_id: u64,
        nonce: u64,
        cookie: u64,
    },
    Cookie {
        nonce: u64,
        cookie: u64,
    },
    Accept {
        nonce: u64,
    },
    Deny {
        nonce: u64,
        reason: CloseReason,
    },
    KeepAlive {
        nonce: u64,
    },
    Close {
        nonce: u64,
    },
}

impl Control {
    fn encode(self) -> ControlBytes {
        let mut out = ControlBytes::default();
        match self {
            Self::Request {
                protocol_id,
                nonce,
                cookie,
            } => {
                out.put(&[0x01]);
                out.put(&protocol_id.to_le_bytes());
                out.put(&nonce.to_le_bytes());
                out.put(&cookie.to_le_bytes());
            }
            Self::Cookie { nonce, cookie } => {
                out.put(&[0x02]);
                out.put(&nonce.to_le_bytes());
                out.put(&cookie.to_le_bytes());
            }
            Self::Accept { nonce } => {
                out.put(&[0x03]);
                out.put(&nonce.to_le_bytes());
            }
            Self::Deny { nonce, reason } => {
                out.put(&[0x04]);
                out.put(&nonce.to_le_bytes());
                out.put(&[u8::from(reason == CloseReason::OtherGame)]);
            }
            Self::KeepAlive { nonce } => {
                out.put(&[0x05]);
                out.put(&nonce.to_le_bytes());
            }
            Self::Close { nonce } => {
                out.put(&[0x06]);
                out.put(&nonce.to_le_bytes());
            }
        }
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, DropCause> {
        let cause = |error| match error {
            DecodeError::Truncated => DropCause::TooShort,
            DecodeError::Trailing(_) | DecodeError::Invalid(_) => DropCause::BodySize,
        };
        let mut reader = Reader::new(bytes);
        let control = match reader.u8().map_err(cause)? {
            0x01 => Self::Request {
                protocol_id: reader.u64().map_err(cause)?,
                nonce: reader.u64().map_err(cause)?,
                cookie: reader.u64().map_err(cause)?,
            },
            0x02 => Self::Cookie {
                nonce: reader.u64().map_err(cause)?,
                cookie: reader.u64().map_err(cause)?,
            },
            0x03 => Self::Accept {
                nonce: reader.u64().map_err(cause)?,
            },
            0x04 => Self::Deny {
                nonce: reader.u64().map_err(cause)?,
                reason: if reader.bool().map_err(cause)? {
                    CloseReason::OtherGame
                } else {
                    CloseReason::Full
                },
            },
            0x05 => Self::KeepAlive {
                nonce: reader.u64().map_err(cause)?,
            },
            0x06 => Self::Close {
                nonce: reader.u64().map_err(cause)?,
            },
            _ => return Err(DropCause::Kind),
        };
        reader.finish().map_err(cause)?;
        Ok(control)
    }
}

/// Bytes of one [`Control`], without a heap.
#[derive(Clone, Copy, Debug, Default)]
struct ControlBytes {
    bytes: [u8; 25],
    len: usize,
}

impl ControlBytes {
    fn put(&mut self, part: &[u8]) {
        self.bytes[self.len..self.len + part.len()].copy_from_slice(part);
        self.len += part.len();
    }
}

impl core::ops::Deref for ControlBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

#[cfg(test)]
mod tests;
