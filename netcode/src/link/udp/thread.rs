#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "IO shell: owns the socket, and rests when it fails"
)]
//! The IO thread and what it shares with the game's thread: socket, endpoint, clock, counters.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;
use std::io;
use std::net::UdpSocket;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use socket2::{Domain, Protocol, Socket, Type};

use super::batch;
use super::endpoint::{Counts, Sink};
use super::plain::PlainEndpoint;
use super::queue::{Event, Events, Queue};
use super::secure::SecureEndpoint;
use super::{BindError, QUEUE_EVENTS_MAX, RECEIVE_BUFFER_BYTES, SEND_BUFFER_BYTES};
use crate::id::Path;
use crate::link::CloseReason;
use crate::time::Time;

/// Time between two looks at timers, and longest wait for a datagram.
const HOUSEKEEPING: Duration = Duration::from_millis(50);

/// Longest wait for room in the system's send buffer. Where many datagrams go in one call, the rest
/// of a flush does not wait again once one has waited in vain.
const SEND_WAIT: Duration = Duration::from_millis(1);

/// Rest between the first datagram of a burst and the rest of it. Waking up costs more than
/// receiving, so datagrams that arrive one by one are taken in groups.
const GATHER: Duration = Duration::from_micros(500);

/// Datagrams taken in one go, before timers get their turn.
const BURST_DATAGRAMS_MAX: usize = 1024;

/// Datagrams that go through the endpoint under one lock: some 30 µs of decryption, for which the
/// game's thread may have to wait.
const GROUP_DATAGRAMS_MAX: usize = 32;

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
    pub(super) queue: Queue,
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
            queue: Queue::new(QUEUE_EVENTS_MAX),
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
        if outbox.datagrams.is_empty() {
            return;
        }
        let sent = batch::send(&self.socket, &outbox.datagrams, &outbox.bytes);
        add(&self.counters.datagrams_sent, sent.datagrams);
        add(&self.counters.bytes_sent, sent.bytes);
        add(&self.counters.send_errors, sent.errors);
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

    /// Sends a payload over an open path.
    pub(super) fn send(&mut self, now: Time, path: Path, bytes: &[u8], outbox: &mut Outbox) {
        match self {
            Self::Secure(secure) => secure.send(path, bytes, outbox),
            Self::Plain(plain) => plain.send(now, path, bytes, outbox),
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

/// What an endpoint wants, kept until its lock is free. Datagrams lie end to end in one buffer.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    datagrams: Vec<(SocketAddr, usize)>,
    bytes: Vec<u8>,
    events: Events,
}

impl Sink for Outbox {
    fn transmit(&mut self, to: SocketAddr, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.datagrams.push((to, self.bytes.len()));
    }

    fn opened(&mut self, path: Path, client_id: u64) {
        self.events.push(Event::Opened { path, client_id });
    }

    fn datagram(&mut self, path: Path, payload: &[u8]) {
        self.events.push_datagram(path, payload);
    }

    fn closed(&mut self, path: Path, reason: CloseReason) {
        self.events.push(Event::Closed { path, reason });
    }
}

/// Runs the IO thread until [`Shared::stop`].
pub(super) fn run(shared: &Shared) {
    // Should this thread panic, the game's thread hears of it.
    let _end = EndOnDrop(&shared.queue);
    let mut io = IoThread {
        shared,
        group: Group::default(),
        outbox: Outbox::default(),
        errors: 0,
    };
    let mut housekeeping_due = Time::ZERO;
    while !shared.stopped.load(Ordering::Acquire) {
        // Wait for one datagram, then take what came with it.
        if io.receive(Wait::Yes) {
            io.handle_group();
            std::thread::sleep(GATHER);
            io.receive_burst();
        }
        let now = shared.now();
        if now >= housekeeping_due {
            housekeeping_due = now + HOUSEKEEPING;
            shared.lock().handle_timeout(now, &mut io.outbox);
            io.hand_over();
        }
    }
}

struct EndOnDrop<'a>(&'a Queue);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Datagrams as they came.
#[derive(Debug)]
struct Group {
    /// [`RECEIVE_BYTES_MAX`] for each.
    bytes: Box<[u8]>,
    /// Lengths and senders of those that have come.
    datagrams: Vec<(usize, SocketAddr)>,
}

impl Default for Group {
    fn default() -> Self {
        Self {
            bytes: vec![0; GROUP_DATAGRAMS_MAX * RECEIVE_BYTES_MAX].into_boxed_slice(),
            datagrams: Vec::with_capacity(GROUP_DATAGRAMS_MAX),
        }
    }
}

impl Group {
    fn is_full(&self) -> bool {
        self.datagrams.len() == GROUP_DATAGRAMS_MAX
    }

    /// Room for the next datagram; empty if there is none.
    fn room(&mut self) -> &mut [u8] {
        let start = self.datagrams.len() * RECEIVE_BYTES_MAX;
        let end = (start + RECEIVE_BYTES_MAX).min(self.bytes.len());
        &mut self.bytes[start..end]
    }
}

/// Whether to wait for a datagram.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wait {
    Yes,
    No,
}

/// What the IO thread has for itself.
struct IoThread<'a> {
    shared: &'a Shared,
    group: Group,
    outbox: Outbox,
    /// Errors of the socket in a row.
    errors: u32,
}

impl IoThread<'_> {
    /// Takes one datagram into the group, which has room; `false` if there was none.
    fn receive(&mut self, wait: Wait) -> bool {
        let shared = self.shared;
        let received = match wait {
            Wait::Yes => shared.socket.recv_from(self.group.room()),
            Wait::No => batch::try_receive(&shared.socket, self.group.room()),
        };
        match received {
            Ok(datagram) => {
                self.errors = 0;
                self.group.datagrams.push(datagram);
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

    /// Takes what has come, a group at a time.
    fn receive_burst(&mut self) {
        for _group in 0..BURST_DATAGRAMS_MAX / GROUP_DATAGRAMS_MAX {
            while !self.group.is_full() && self.receive(Wait::No) {}
            let more = self.group.is_full();
            self.handle_group();
            if !more {
                break;
            }
        }
    }

    /// Takes the group through the endpoint.
    fn handle_group(&mut self) {
        let group = &mut self.group;
        if group.datagrams.is_empty() {
            return;
        }
        let shared = self.shared;
        let now = shared.now();
        let mut bytes_received = 0;
        let mut endpoint = shared.lock();
        let buffers = group.bytes.chunks_exact_mut(RECEIVE_BYTES_MAX);
        for (&(len, from), buffer) in group.datagrams.iter().zip(buffers) {
            endpoint.handle_datagram(now, from, &mut buffer[..len], &mut self.outbox);
            bytes_received += len as u64;
        }
        drop(endpoint);
        let counters = &shared.counters;
        add(&counters.datagrams_received, group.datagrams.len() as u64);
        add(&counters.bytes_received, bytes_received);
        group.datagrams.clear();
        self.hand_over();
    }

    /// Sends what the endpoint wants sent, and gives the game its events.
    fn hand_over(&mut self) {
        let shared = self.shared;
        shared.transmit(&mut self.outbox);
        let dropped = shared.queue.append(&mut self.outbox.events);
        if dropped > 0 {
            add(&shared.counters.queue_full, dropped);
        }
    }

    /// The socket has been broken for long: every path ends.
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
