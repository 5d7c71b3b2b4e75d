#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "IO shell: owns the socket, and rests when it fails"
)]
//! The IO thread and what it shares with the game's thread: socket, endpoint, clock, counters.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;
use std::collections::VecDeque;
use std::io;
use std::net::UdpSocket;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, TrySendError};
use socket2::{Domain, Protocol, Socket, Type};

use super::endpoint::{Counts, Sink};
use super::plain::PlainEndpoint;
use super::secure::SecureEndpoint;
use super::{BindError, RECEIVE_BUFFER_BYTES, SEND_BUFFER_BYTES};
use crate::id::Path;
use crate::link::CloseReason;
use crate::time::Time;

/// Time between two looks at timers, and longest wait for a datagram.
const HOUSEKEEPING: Duration = Duration::from_millis(50);

/// Longest wait for room in the system's send buffer.
const SEND_WAIT: Duration = Duration::from_millis(1);

/// Rest between the first datagram of a burst and the rest of it. Waking up costs more than
/// receiving, so datagrams that arrive one by one are taken in groups.
const GATHER: Duration = Duration::from_micros(500);

/// Datagrams taken in one go, before timers get their turn.
const GROUP_DATAGRAMS_MAX: usize = 1024;

/// Errors of the socket in a row after which it is given up: a second of them.
const RECEIVE_ERRORS_MAX: u32 = 100;

/// Rest after an error, so that a broken socket does not burn a core.
const REST_AFTER_ERROR: Duration = Duration::from_millis(10);

/// Larger than any datagram that we accept; longer ones are cut to this and refused.
const RECEIVE_BYTES_MAX: usize = 2048;

/// What both threads use.
#[derive(Debug)]
pub(super) struct Shared {
    socket: UdpSocket,
    pub(super) local: SocketAddr,
    endpoint: Mutex<Endpoint>,
    start: Instant,
    stopped: AtomicBool,
    pub(super) counters: Counters,
}

impl Shared {
    pub(super) fn new(
        socket: UdpSocket,
        local: SocketAddr,
        endpoint: Mutex<Endpoint>,
        start: Instant,
    ) -> Self {
        Self {
            socket,
            local,
            endpoint,
            start,
            stopped: AtomicBool::new(false),
            counters: Counters::default(),
        }
    }

    pub(super) fn now(&self) -> Time {
        Time::ZERO + self.start.elapsed()
    }

    /// The endpoint. A thread that panicked within it has left it usable or not; our datagrams
    /// are refused either way, so a second panic helps nobody.
    pub(super) fn lock(&self) -> MutexGuard<'_, Endpoint> {
        self.endpoint.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends what `outbox` holds. Call it without the lock.
    pub(super) fn transmit(&self, outbox: &mut Outbox) {
        let counters = &self.counters;
        let mut start = 0;
        for &(to, end) in &outbox.datagrams {
            let datagram = &outbox.bytes[start..end];
            start = end;
            match self.socket.send_to(datagram, to) {
                Ok(sent) => {
                    add(&counters.datagrams_sent, 1);
                    add(&counters.bytes_sent, sent as u64);
                }
                Err(_lost) => add(&counters.send_errors, 1),
            }
        }
        outbox.datagrams.clear();
        outbox.bytes.clear();
    }

    /// Tells the IO thread to end, and wakes it with an empty datagram if it can be reached.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        let mut to = self.local;
        if to.ip().is_unspecified() {
            to.set_ip(match to {
                SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                SocketAddr::V6(_) => core::net::Ipv6Addr::LOCALHOST.into(),
            });
        }
        // Without it the thread sees the flag within its next wait.
        let _woken = self.socket.send_to(&[], to);
    }
}

/// Counts of both threads.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) datagrams_sent: AtomicU64,
    pub(super) bytes_sent: AtomicU64,
    pub(super) datagrams_received: AtomicU64,
    pub(super) bytes_received: AtomicU64,
    pub(super) send_errors: AtomicU64,
    pub(super) receive_errors: AtomicU64,
    pub(super) queue_full: AtomicU64,
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

/// Either mode.
#[derive(Debug)]
pub(super) enum Endpoint {
    Secure(Box<SecureEndpoint>),
    Plain(Box<PlainEndpoint>),
}

impl Endpoint {
    pub(super) const fn counts(&self) -> &Counts {
        match self {
            Self::Secure(secure) => secure.counts(),
            Self::Plain(plain) => plain.counts(),
        }
    }

    fn handle_datagram(
        &mut self,
        now: Time,
        from: SocketAddr,
        bytes: &mut [u8],
        outbox: &mut Outbox,
    ) {
        match self {
            Self::Secure(secure) => secure.handle_datagram(now, from, bytes, outbox),
            Self::Plain(plain) => plain.handle_datagram(now, from, bytes, outbox),
        }
    }

    fn handle_timeout(&mut self, now: Time, outbox: &mut Outbox) {
        match self {
            Self::Secure(secure) => secure.handle_timeout(now, outbox),
            Self::Plain(plain) => plain.handle_timeout(now, outbox),
        }
    }
}

/// What goes to the game's thread.
#[derive(Debug)]
pub(super) enum Event {
    Opened { path: Path, client_id: u64 },
    Datagram { path: Path, bytes: Vec<u8> },
    Closed { path: Path, reason: CloseReason },
}

/// What an endpoint wants, kept until its lock is free. Datagrams lie end to end in one buffer.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    datagrams: Vec<(SocketAddr, usize)>,
    bytes: Vec<u8>,
    events: VecDeque<Event>,
    /// Empty buffers for payloads.
    spares: Vec<Vec<u8>>,
}

impl Sink for Outbox {
    fn transmit(&mut self, to: SocketAddr, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.datagrams.push((to, self.bytes.len()));
    }

    fn opened(&mut self, path: Path, client_id: u64) {
        self.events.push_back(Event::Opened { path, client_id });
    }

    fn datagram(&mut self, path: Path, payload: &[u8]) {
        let mut bytes = self.spares.pop().unwrap_or_default();
        bytes.extend_from_slice(payload);
        self.events.push_back(Event::Datagram { path, bytes });
    }

    fn closed(&mut self, path: Path, reason: CloseReason) {
        self.events.push_back(Event::Closed { path, reason });
    }
}

/// Runs the IO thread until [`Shared::stop`].
pub(super) fn run(shared: &Shared, events: &Sender<Event>, spares: &Receiver<Vec<u8>>) {
    let mut receiver = IoThread {
        shared,
        events,
        spares,
        buffer: [0; RECEIVE_BYTES_MAX],
        outbox: Outbox::default(),
        errors: 0,
    };
    let mut housekeeping_due = Time::ZERO;
    while !shared.stopped.load(Ordering::Acquire) {
        // Wait for one datagram, then take what came with it.
        if receiver.receive() {
            std::thread::sleep(GATHER);
            if shared.socket.set_nonblocking(true).is_ok() {
                let mut left = GROUP_DATAGRAMS_MAX;
                while left > 0 && receiver.receive() {
                    left -= 1;
                }
                if shared.socket.set_nonblocking(false).is_err() {
                    receiver.fail();
                    return;
                }
            }
        }
        let now = shared.now();
        if now >= housekeeping_due {
            housekeeping_due = now + HOUSEKEEPING;
            shared.lock().handle_timeout(now, &mut receiver.outbox);
            receiver.hand_over();
        }
    }
}

/// What the IO thread has for itself.
struct IoThread<'a> {
    shared: &'a Shared,
    events: &'a Sender<Event>,
    spares: &'a Receiver<Vec<u8>>,
    buffer: [u8; RECEIVE_BYTES_MAX],
    outbox: Outbox,
    /// Errors of the socket in a row.
    errors: u32,
}

impl IoThread<'_> {
    /// Takes one datagram through the endpoint; `false` if there was none.
    fn receive(&mut self) -> bool {
        if self.outbox.spares.is_empty()
            && let Ok(mut spare) = self.spares.try_recv()
        {
            spare.clear();
            self.outbox.spares.push(spare);
        }
        let shared = self.shared;
        match shared.socket.recv_from(&mut self.buffer) {
            Ok((len, from)) => {
                self.errors = 0;
                add(&shared.counters.datagrams_received, 1);
                add(&shared.counters.bytes_received, len as u64);
                let now = shared.now();
                shared
                    .lock()
                    .handle_datagram(now, from, &mut self.buffer[..len], &mut self.outbox);
                self.hand_over();
                true
            }
            Err(error) if is_harmless(&error) => {
                self.errors = 0;
                false
            }
            Err(_) => {
                self.errors += 1;
                add(&shared.counters.receive_errors, 1);
                if self.errors == RECEIVE_ERRORS_MAX {
                    self.fail();
                }
                std::thread::sleep(REST_AFTER_ERROR);
                false
            }
        }
    }

    /// Sends what the endpoint wants sent and moves events into the channel. Where it is full,
    /// payloads are dropped; what opens and closes paths waits, and nothing overtakes it.
    fn hand_over(&mut self) {
        self.shared.transmit(&mut self.outbox);
        let outbox = &mut self.outbox;
        while let Some(event) = outbox.events.pop_front() {
            match self.events.try_send(event) {
                Ok(()) => {}
                Err(TrySendError::Full(Event::Datagram { mut bytes, .. })) => {
                    add(&self.shared.counters.queue_full, 1);
                    bytes.clear();
                    outbox.spares.push(bytes);
                }
                Err(TrySendError::Full(event)) => {
                    outbox.events.push_front(event);
                    let before = outbox.events.len();
                    outbox
                        .events
                        .retain(|event| !matches!(event, Event::Datagram { .. }));
                    let dropped = before - outbox.events.len();
                    add(&self.shared.counters.queue_full, dropped as u64);
                    return;
                }
                // The link is being dropped.
                Err(TrySendError::Disconnected(_)) => return,
            }
        }
    }

    /// The socket is broken for good: every path ends.
    fn fail(&mut self) {
        let mut unsent = Outbox::default();
        let paths = match &mut *self.shared.lock() {
            Endpoint::Secure(secure) => secure.close_all(&mut unsent),
            Endpoint::Plain(plain) => plain.close_all(&mut unsent),
        };
        for path in paths {
            self.outbox.closed(path, CloseReason::Socket);
        }
        self.hand_over();
    }
}

/// Nothing to read yet, or news about a datagram that we sent to nobody.
fn is_harmless(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock
            | io::ErrorKind::TimedOut
            | io::ErrorKind::Interrupted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}

/// Address from which this machine would send to the internet. IPv4 is preferred: a socket for all
/// addresses serves both.
pub(super) fn outgoing_ip(socket_is_ipv6: bool) -> IpAddr {
    // Addresses reserved for documentation; connecting a UDP socket sends nothing.
    let probe = |from: &str, to: &str| -> io::Result<IpAddr> {
        let socket = UdpSocket::bind(from)?;
        socket.connect(to)?;
        Ok(socket.local_addr()?.ip())
    };
    let v4 = probe("0.0.0.0:0", "192.0.2.1:9");
    let found = match v4 {
        Err(_) if socket_is_ipv6 => probe("[::]:0", "[2001:db8::1]:9"),
        other => other,
    };
    found.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

/// A bound socket with its buffers and waits set.
pub(super) fn open_socket(bind: SocketAddr) -> Result<UdpSocket, BindError> {
    let fail = |error: io::Error| {
        let kind = error.kind();
        if kind == io::ErrorKind::AddrInUse {
            BindError::PortBusy(bind)
        } else if kind == io::ErrorKind::AddrNotAvailable {
            BindError::AddressNotHere(bind)
        } else if kind == io::ErrorKind::PermissionDenied {
            BindError::Forbidden(bind)
        } else {
            BindError::Socket(bind, error)
        }
    };
    let socket =
        Socket::new(Domain::for_address(bind), Type::DGRAM, Some(Protocol::UDP)).map_err(fail)?;
    if bind.is_ipv6() {
        // One socket for both families where the system can; where not, IPv6 alone still works.
        let _dual = socket.set_only_v6(false);
    }
    // The system may grant less; then bursts of hundreds of clients lose datagrams, as before.
    let _granted = socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES);
    let _granted = socket.set_send_buffer_size(SEND_BUFFER_BYTES);
    socket.bind(&bind.into()).map_err(fail)?;
    let socket = UdpSocket::from(socket);
    socket.set_read_timeout(Some(HOUSEKEEPING)).map_err(fail)?;
    socket.set_write_timeout(Some(SEND_WAIT)).map_err(fail)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::bounded;

    use super::*;
    use crate::link::udp::{Security, UdpConfig, new_endpoint};

    #[test]
    fn a_full_queue_drops_payloads_and_keeps_openings_and_closings() {
        let bind = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let config = UdpConfig {
            security: Security::Insecure,
            ..UdpConfig::new(1).with_bind(bind)
        };
        let socket = open_socket(bind).unwrap();
        let endpoint = new_endpoint(&config).unwrap();
        let shared = Shared::new(socket, bind, endpoint, Instant::now());
        let (events_in, events) = bounded(4);
        let (_spares_in, spares) = bounded(4);
        let mut io = IoThread {
            shared: &shared,
            events: &events_in,
            spares: &spares,
            buffer: [0; RECEIVE_BYTES_MAX],
            outbox: Outbox::default(),
            errors: 0,
        };
        let path = Path(1);
        io.outbox.opened(path, 0);
        for number in 0..10 {
            io.outbox.datagram(path, &[number]);
        }
        io.outbox.closed(path, CloseReason::Remote);
        io.outbox.opened(Path(2), 0);
        io.outbox.datagram(Path(2), &[99]);
        io.hand_over();
        let mut seen = Vec::new();
        while let Ok(event) = events.try_recv() {
            seen.push(event);
            io.hand_over();
        }
        let text: Vec<String> = seen
            .iter()
            .map(|event| match event {
                Event::Opened { path, .. } => format!("open {}", path.0),
                Event::Datagram { bytes, .. } => format!("{bytes:?}"),
                Event::Closed { path, .. } => format!("close {}", path.0),
            })
            .collect();
        assert_eq!(
            text,
            ["open 1", "[0]", "[1]", "[2]", "close 1", "open 2"],
            "in order, payloads beyond the queue left out"
        );
        let dropped = shared.counters.queue_full.load(Ordering::Relaxed);
        assert_eq!(dropped, 8);
        // The buffers of dropped payloads serve the next ones.
        assert!(!io.outbox.spares.is_empty());
    }
}
