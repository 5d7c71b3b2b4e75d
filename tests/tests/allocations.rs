//! The steady tick allocates nothing: neither where datagrams are made, nor in the rest of a node.
//!
//! The nodes run here without links and without a simulation, so that only they are counted.

use phalanx::netcode::id::{NetId, Path};
use phalanx::netcode::limits::DATAGRAM_BYTES_MAX;
use phalanx::netcode::node::{Node, Request};
use phalanx::netcode::session::config::{GameInfo, Gate, HostConfig, JoinConfig};
use phalanx::netcode::state::{KindRows, Snapshot, StateHash};
use phalanx::netcode::tick::Tick;
use phalanx::netcode::time::Time;
use phalanx_tests::counting::{Counting, allocations};
use phalanx_tests::{toy, yard};

/// Ticks in which buffers find their size.
const WARM_UP_TICKS: u32 = 1500;
/// Ticks that are counted.
const COUNTED_TICKS: u32 = 1200;
/// Microseconds of virtual time in one round of the loop; a quarter of a tick.
const ROUND_US: u64 = 4_167;
/// Rounds that a datagram is on its way: some 33 ms.
const ROUNDS_ON_THE_WAY: usize = 8;

#[global_allocator]
static COUNTING: Counting = Counting;

/// A datagram on its way, in a buffer that is used again.
#[derive(Default)]
struct InFlight {
    from: usize,
    to: usize,
    bytes: Vec<u8>,
}

/// Allocations by what was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    sending: u64,
    receiving: u64,
    time: u64,
    requests: u64,
    rest: u64,
}

/// A host (the first) and its clients.
struct Session {
    nodes: Vec<Node>,
    now: Time,
    /// By round in which they arrive.
    flights: Vec<Vec<InFlight>>,
    spare: Vec<Vec<u8>>,
    out: Vec<u8>,
    round: usize,
    counts: Vec<Counts>,
    hash: StateHash,
    samples: u64,
    /// What the host publishes, in state-sync mode; a part of it changes all the time.
    yard: Snapshot,
}

impl Session {
    fn new(gate: Gate, clients: u8, plays: bool, prediction_ticks: u32) -> Self {
        Self::of(toy::game(), gate, clients, plays, prediction_ticks)
    }

    fn of(game: GameInfo, gate: Gate, clients: u8, plays: bool, prediction_ticks: u32) -> Self {
        let now = Time::from_millis(10_000);
        let host = HostConfig {
            gate,
            plays,
            prediction_ticks,
            ..HostConfig::new(game.clone(), clients + u8::from(plays))
        };
        let mut nodes = vec![Node::host(host, now).expect("usable settings")];
        for client in 0..clients {
            let config = JoinConfig {
                prediction_ticks,
                secret: u128::from(client) + 1,
                ..JoinConfig::new(game.clone(), &format!("client {client}"))
            };
            nodes.push(Node::join(config, Path(0), now).expect("usable settings"));
        }
        Self {
            counts: vec![Counts::default(); nodes.len()],
            nodes,
            now,
            flights: (0..ROUNDS_ON_THE_WAY)
                .map(|_| Vec::with_capacity(256))
                .collect(),
            spare: (0..2048)
                .map(|_| Vec::with_capacity(DATAGRAM_BYTES_MAX))
                .collect(),
            out: Vec::with_capacity(DATAGRAM_BYTES_MAX),
            round: 0,
            hash: StateHash::default(),
            samples: 0,
            yard: yard(),
        }
    }

    fn run(&mut self, until: Tick) {
        while self.nodes[0].tick() < until {
            self.round();
        }
    }

    fn round(&mut self) {
        self.now = self.now.plus_micros(ROUND_US);
        self.round += 1;
        let at = self.round % ROUNDS_ON_THE_WAY;
        let mut arrivals = core::mem::take(&mut self.flights[at]);
        for flight in arrivals.drain(..) {
            let path = match flight.to {
                0 => Path(u32::try_from(flight.from).expect("few nodes")),
                _ => Path(0),
            };
            let before = allocations();
            self.nodes[flight.to].handle_datagram(self.now, path, &flight.bytes);
            self.counts[flight.to].receiving += allocations() - before;
            self.obey(flight.to);
            self.spare.push(flight.bytes);
        }
        self.flights[at] = arrivals;
        for index in 0..self.nodes.len() {
            let before = allocations();
            self.nodes[index].handle_timeout(self.now);
            self.counts[index].time += allocations() - before;
            self.obey(index);
            self.send(index, at);
            let before = allocations();
            while self.nodes[index].poll_event().is_some() {}
            while self.nodes[index].poll_close().is_some() {}
            let _next = self.nodes[index].poll_timeout();
            self.counts[index].rest += allocations() - before;
        }
    }

    fn obey(&mut self, index: usize) {
        let before = allocations();
        let node = &mut self.nodes[index];
        loop {
            enum Answer {
                None,
                Input,
                Hash(Tick),
                Publish(Tick),
                Owned(Tick),
                Patch,
            }
            let answer = match node.poll_request() {
                None => break,
                Some(Request::Sample { .. }) => Answer::Input,
                Some(Request::Hash { tick }) => Answer::Hash(tick),
                Some(Request::Publish { tick }) => Answer::Publish(tick),
                Some(Request::PublishOwned { tick, .. }) => Answer::Owned(tick),
                Some(Request::Patch(_)) => Answer::Patch,
                // The others need no answer.
                Some(_) => Answer::None,
            };
            match answer {
                Answer::None => {}
                Answer::Input => {
                    self.samples += 1;
                    let input = (self.samples / 40 * index as u64).to_le_bytes();
                    let bytes = usize::from(node.session().input_bytes);
                    node.submit_input(self.now, &input[..bytes])
                        .expect("it asked");
                }
                Answer::Hash(tick) => node.commit_hash(tick, Some(&self.hash)),
                Answer::Publish(tick) => {
                    stir(&mut self.yard, tick);
                    node.commit_publish(&self.yard);
                }
                Answer::Owned(tick) => {
                    self.yard.tick = tick;
                    node.commit_owned(&self.yard);
                }
                Answer::Patch => node.commit_patch(self.now, true),
            }
        }
        while node.poll_confirmed().is_some() {}
        self.counts[index].requests += allocations() - before;
    }

    fn send(&mut self, from: usize, at: usize) {
        loop {
            let before = allocations();
            let path = self.nodes[from].poll_transmit(self.now, &mut self.out);
            self.counts[from].sending += allocations() - before;
            let Some(path) = path else { break };
            let to = if from == 0 { path.0 as usize } else { 0 };
            let mut bytes = self.spare.pop().expect("enough buffers");
            bytes.clear();
            bytes.extend_from_slice(&self.out);
            self.flights[at].push(InFlight { from, to, bytes });
        }
    }
}

/// Allocations of host and first client while `COUNTED_TICKS` ran.
fn counted(gate: Gate, clients: u8, plays: bool, prediction: u32) -> (Counts, Counts) {
    let mut session = Session::new(gate, clients, plays, prediction);
    session.run(Tick::new(WARM_UP_TICKS));
    session.counts.fill(Counts::default());
    let sent = session.nodes[0].statistics().datagrams_sent;
    session.run(Tick::new(WARM_UP_TICKS + COUNTED_TICKS));
    let sent = session.nodes[0].statistics().datagrams_sent - sent;
    let expected = u64::from(COUNTED_TICKS) * u64::from(clients);
    assert!(sent.abs_diff(expected) < expected / 100, "{sent} datagrams");
    for node in &session.nodes {
        let behind = WARM_UP_TICKS + COUNTED_TICKS - 60;
        assert!(node.settled_tick() > Tick::new(behind), "it did not run");
        assert_eq!(node.statistics().desyncs, 0);
    }
    (session.counts[0], session.counts[1])
}

/// A state of the yard with a hundred bodies.
fn yard() -> Snapshot {
    let kinds = yard::game().schema.kinds().len();
    let mut snapshot = Snapshot {
        tick: Tick::ZERO,
        kinds: vec![KindRows::default(); kinds],
    };
    for id in 1..=100 {
        snapshot.kinds[0].push(NetId::from_bits(id), |out| out.extend([0; 16]));
    }
    snapshot
}

/// Moves half of the bodies.
fn stir(snapshot: &mut Snapshot, tick: Tick) {
    snapshot.tick = tick;
    for (index, row) in snapshot.kinds[0].bytes.chunks_mut(16).enumerate() {
        if index % 2 == 0 {
            let near = u16::try_from(tick.number() % 100).expect("small");
            row[..4].copy_from_slice(&(f32::from(near) / 64.0).to_le_bytes());
        }
    }
}

#[test]
fn a_steady_tick_that_tells_the_state_allocates_nothing_to_send() {
    for prediction in [0, 6] {
        let mut session = Session::of(yard::game(), Gate::Paced, 6, false, prediction);
        session.run(Tick::new(WARM_UP_TICKS));
        session.counts.fill(Counts::default());
        let told = |session: &Session| session.nodes[0].state_sync().expect("its mode");
        let before = told(&session);
        session.run(Tick::new(WARM_UP_TICKS + COUNTED_TICKS));
        let after = told(&session);
        let bytes = after.state_bytes - before.state_bytes;
        assert!(bytes > 6 * 20 * 50, "only {bytes} bytes of state");
        for (index, node) in session.nodes.iter().enumerate() {
            let behind = WARM_UP_TICKS + COUNTED_TICKS - 60;
            assert!(node.settled_tick() > Tick::new(behind), "it did not run");
            let counts = session.counts[index];
            assert_eq!(
                (counts.sending, counts.rest),
                (0, 0),
                "node {index}: {counts:?}"
            );
        }
        let host = session.counts[0];
        assert_eq!((host.time, host.receiving), (0, 0), "{host:?}");
    }
}

const WAIT: Gate = Gate::Wait {
    limit_us: 5_000_000,
};

#[test]
fn a_steady_tick_allocates_nothing() {
    let nothing = (Counts::default(), Counts::default());
    assert_eq!(counted(Gate::Paced, 8, false, 0), nothing, "paced");
    assert_eq!(counted(WAIT, 7, true, 0), nothing, "wait");
    assert_eq!(counted(Gate::Paced, 4, true, 6), nothing, "predicting");
}

#[test]
fn allocations_are_counted() {
    let before = allocations();
    let boxed = std::hint::black_box(Box::new(5));
    assert_eq!(allocations() - before, 1);
    drop(boxed);
}
