#![expect(clippy::disallowed_types, reason = "IO shell: owns the socket")]
//! The IO thread and what it shares with the game's thread: socket, endpoint, clock, counters.
//!
//! Whichever thread is awake takes datagrams from the socket. While the game's thread looks for
//! events, it takes them itself: a thread woken for each burst costs two switches, and the state of
//! every session would move between two cores each tick. When the game's thread has not looked for
//! [`TAKE_OVER`], the IO thread takes what has come, answers handshakes, and keeps payloads for it.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;
use std::io;
use std::net::UdpSocket;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
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

/// Time between two looks at timers.
const HOUSEKEEPING: Duration = Duration::from_millis(50);

/// Time without a look at the link by the game's thread after which the IO thread takes datagrams
/// in its stead: more than a tick, and too short for a socket's buffer to fill.
const TAKE_OVER: Duration = Duration::from_millis(25);

/// Longest wait for room in the system's send buffer. Where many datagrams go in one call, the rest
/// of a flush does not wait again once one has waited in vain.
const SEND_WAIT: Duration = Duration::from_millis(1);

/// Groups of datagrams taken in one go, before timers or the game get their turn.
pub(super) const BURST_GROUPS_MAX: usize = 16;

/// Time of nothing but errors after which a socket is given up.
const FAILING_MAX: Duration = Duration::from_secs(1);

/// What both threads use.
#[derive(Debug)]
pub(super) struct Shared {
    socket: UdpSocket,
    pub(super) local: SocketAddr,
    endpoint: Mutex<Endpoint>,
    /// Held while datagrams are taken and until their events are where they belong, so that those
    /// keep the order of arrival.
    receiver: Mutex<Receiver>,
    pub(super) queue: Queue,
    /// The game's thread has looked for events since the IO thread last asked.
    polled: AtomicBool,
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
            receiver: Mutex::new(Receiver {
                received: batch::Received::new(local),
                failing_since: None,
            }),
            polled: AtomicBool::new(false),
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

    /// Takes one group of datagrams on the game's thread, behind which its next look should return
    /// at once if `false`. Events are appended to those of `outbox`, after all that wait in the
    /// queue.
    pub(super) fn receive_for_game(&self, events: &mut Events, outbox: &mut Outbox) -> bool {
        self.polled.store(true, Ordering::Relaxed);
        let mut receiver = match self.receiver.try_lock() {
            Ok(receiver) => receiver,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // The IO thread has just taken over; what it takes will be in the queue.
            Err(TryLockError::WouldBlock) => return false,
        };
        // The IO thread may have put something there before it let go.
        self.queue.exchange(events);
        if !events.is_empty() {
            return true;
        }
        let more = receiver.take_group(self, outbox);
        self.transmit(outbox);
        events.exchange(&mut outbox.events);
        more
    }

    /// Tells the IO thread to end; it must be woken to see it soon.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
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
    let mut outbox = Outbox::default();
    let mut housekeeping_due = Time::ZERO;
    while !shared.stopped.load(Ordering::Acquire) {
        std::thread::park_timeout(TAKE_OVER);
        if !shared.polled.swap(false, Ordering::Relaxed) {
            let mut receiver = shared
                .receiver
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            for _group in 0..BURST_GROUPS_MAX {
                let more = receiver.take_group(shared, &mut outbox);
                shared.hand_over(&mut outbox);
                if !more {
                    break;
                }
            }
        }
        let now = shared.now();
        if now >= housekeeping_due {
            housekeeping_due = now + HOUSEKEEPING;
            shared.lock().handle_timeout(now, &mut outbox);
            shared.hand_over(&mut outbox);
        }
    }
}

struct EndOnDrop<'a>(&'a Queue);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Takes datagrams from the socket.
#[derive(Debug)]
struct Receiver {
    received: batch::Received,
    /// When the first of an unbroken row of errors was.
    failing_since: Option<Time>,
}

impl Receiver {
    /// Takes what has come, at most a group, through the endpoint, and returns whether there may be
    /// more. What the endpoint wants is in `outbox` then.
    fn take_group(&mut self, shared: &Shared, outbox: &mut Outbox) -> bool {
        let result = batch::try_receive(&shared.socket, &mut self.received);
        let now = shared.now();
        match result {
            Err(error) if !is_harmless(&error) => {
                add(&shared.counters.receive_errors, 1);
                let since = *self.failing_since.get_or_insert(now);
                if now - since >= FAILING_MAX {
                    self.failing_since = None;
                    shared.fail(outbox);
                }
                return false;
            }
            Ok(()) | Err(_) => self.failing_since = None,
        }
        if self.received.count() == 0 {
            return false;
        }
        let mut bytes_received = 0;
        let mut endpoint = shared.lock();
        for (from, bytes) in self.received.iter_mut() {
            bytes_received += bytes.len() as u64;
            endpoint.handle_datagram(now, from, bytes, outbox);
        }
        drop(endpoint);
        let counters = &shared.counters;
        add(&counters.datagrams_received, self.received.count() as u64);
        add(&counters.bytes_received, bytes_received);
        self.received.count() == batch::BATCH_DATAGRAMS_MAX
    }
}

impl Shared {
    /// Sends what the endpoint wants sent, and keeps its events for the game.
    fn hand_over(&self, outbox: &mut Outbox) {
        self.transmit(outbox);
        let dropped = self.queue.append(&mut outbox.events);
        if dropped > 0 {
            add(&self.counters.queue_full, dropped);
        }
    }

    /// The socket has been broken for long: every path ends.
    fn fail(&self, outbox: &mut Outbox) {
        let mut unsent = Outbox::default();
        let paths = match &mut *self.lock() {
            Endpoint::Secure(secure) => secure.close_all(&mut unsent),
            Endpoint::Plain(plain) => plain.close_all(&mut unsent),
        };
        for path in paths {
            outbox.closed(path, CloseReason::Socket);
        }
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
    socket.set_write_timeout(Some(SEND_WAIT)).map_err(fail)?;
    Ok(socket)
}
