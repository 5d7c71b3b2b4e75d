//! Two nodes play a short session, and a reader that was written from `docs/WIRE.md` alone tells
//! from the datagrams what they did. It shares no code with the crate's own decoding.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "wire_document/coder.rs"]
mod coder;
#[path = "wire_document/datagrams.rs"]
mod datagrams;
#[path = "wire_document/inputs.rs"]
mod inputs;
#[path = "wire_document/reader.rs"]
mod reader;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use phalanx_netcode::driver::{Driver, Player};
use phalanx_netcode::hash::mix;
use phalanx_netcode::id::{MemberId, NetId, Path};
use phalanx_netcode::input::InputFrame;
use phalanx_netcode::link::{Link, LinkEvent};
use phalanx_netcode::node::{Node, SessionInfo};
use phalanx_netcode::prng::Prng;
use phalanx_netcode::session::config::{
    GameInfo, Gate, HostConfig, InputDelay, JoinConfig, Mode, Start,
};
use phalanx_netcode::session::messages::Channel;
use phalanx_netcode::session::statistics::DropReason;
use phalanx_netcode::simulation::{Simulation, StepKind};
use phalanx_netcode::state::{
    ExactType, FieldSchema, ImportError, KindSchema, KindShape, Schema, Snapshot, StateHash,
    Visibility,
};
use phalanx_netcode::tick::{Tick, TickRate};
use phalanx_netcode::time::Time;

use reader::{Reader, toy_snapshot};

const INPUT_BYTES: u8 = 3;

fn schema() -> Arc<Schema> {
    let kind = KindSchema {
        name: "Sum".to_owned(),
        version: 1,
        shape: KindShape::Resource,
        visibility: Visibility::Client,
        fields: vec![FieldSchema::new("value", ExactType::U64)],
    };
    Arc::new(Schema::new(vec![kind]).unwrap())
}

fn game() -> GameInfo {
    GameInfo {
        game: "sum".to_owned(),
        build: "1".to_owned(),
        schema: schema(),
        mode: Mode::Lockstep,
        tick_rate: TickRate::DEFAULT,
        input_bytes: INPUT_BYTES,
    }
}

/// Its state is a fold of all inputs.
struct Toy {
    schema: Arc<Schema>,
    tick: Tick,
    value: u64,
}

impl Toy {
    fn snapshot(&self, &(tick, value): &(Tick, u64)) -> Snapshot {
        let mut snapshot = Snapshot {
            tick,
            kinds: vec![Default::default()],
        };
        snapshot.kinds[0].push(NetId::NONE, |out| out.extend(value.to_le_bytes()));
        snapshot
    }

    fn combined_hash(&self) -> u64 {
        let snapshot = self.snapshot(&(self.tick, self.value));
        snapshot.hash(&self.schema).combined()
    }
}

impl Simulation for Toy {
    type Image = (Tick, u64);

    fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    fn tick(&self) -> Tick {
        self.tick
    }

    fn step(&mut self, frame: &InputFrame, _kind: StepKind) {
        self.tick = frame.tick();
        for (slot, input) in frame.inputs() {
            for &byte in input {
                self.value = mix(self.value, u64::from(slot.0) << 8 | u64::from(byte));
            }
        }
    }

    fn hash(&mut self, out: &mut StateHash) {
        *out = self.snapshot(&(self.tick, self.value)).hash(&self.schema);
    }

    fn capture(&mut self, image: &mut Self::Image) {
        *image = (self.tick, self.value);
    }

    fn restore(&mut self, image: &Self::Image) {
        (self.tick, self.value) = *image;
    }

    fn hash_image(&self, image: &Self::Image, out: &mut StateHash) {
        *out = self.snapshot(image).hash(&self.schema);
    }

    fn export(&self, image: &Self::Image) -> Snapshot {
        self.snapshot(image)
    }

    fn import(&mut self, snapshot: &Snapshot) -> Result<(), ImportError> {
        snapshot.validate(&self.schema)?;
        let (_, row) = snapshot.kinds[0].rows().next().unwrap();
        self.tick = snapshot.tick;
        self.value = u64::from_le_bytes(row.try_into().unwrap());
        Ok(())
    }
}

/// A player who flips bits now and then, and a diary of what the node made of it.
struct Bot {
    prng: Prng,
    input: [u8; 3],
    sampled: BTreeMap<u32, Vec<u8>>,
    frames: BTreeMap<u32, InputFrame>,
    states: BTreeMap<u32, (u64, u64)>,
}

impl Player for Bot {
    type Simulation = Toy;

    fn begin(&mut self, session: &SessionInfo) -> Toy {
        Toy {
            schema: schema(),
            tick: Tick::ZERO,
            value: session.seed,
        }
    }

    fn sample(&mut self, tick: Tick, _simulation: &Toy, input: &mut [u8]) {
        match self.prng.below(12) {
            0..=2 => self.input[0] ^= 1 << self.prng.below(4),
            3 => self.input = self.prng.next_u32().to_le_bytes()[..3].try_into().unwrap(),
            _ => {}
        }
        self.sampled.insert(tick.number(), self.input.to_vec());
        input.copy_from_slice(&self.input);
    }

    fn stepped(&mut self, simulation: &Toy, frame: &InputFrame) {
        let tick = frame.tick().number();
        self.frames.insert(tick, frame.clone());
        let state = (simulation.value, simulation.combined_hash());
        self.states.insert(tick, state);
    }
}

#[derive(Default)]
struct Wire {
    inbox: VecDeque<(Path, Vec<u8>)>,
    current: Vec<u8>,
    outbox: Vec<(Path, Vec<u8>)>,
}

impl Link for Wire {
    fn receive(&mut self) -> Option<LinkEvent<'_>> {
        let (path, bytes) = self.inbox.pop_front()?;
        self.current = bytes;
        let bytes = &self.current;
        Some(LinkEvent::Datagram { path, bytes })
    }

    fn send(&mut self, path: Path, bytes: &[u8]) {
        self.outbox.push((path, bytes.to_vec()));
    }

    fn close(&mut self, _path: Path) {}
}

struct Seat {
    driver: Driver<Bot>,
    wire: Wire,
}

fn seat(node: Node, seed: u64) -> Seat {
    let bot = Bot {
        prng: Prng::new(seed),
        input: [0; 3],
        sampled: BTreeMap::new(),
        frames: BTreeMap::new(),
        states: BTreeMap::new(),
    };
    Seat {
        driver: Driver::new(node, game(), bot),
        wire: Wire::default(),
    }
}

/// A session of a host and up to two clients, all of whose datagrams are read.
struct Session {
    host: Seat,
    clients: Vec<(Seat, Reader)>,
    /// Arrival, client, whether it goes to the host, and the datagram.
    underway: VecDeque<(u64, usize, bool, Vec<u8>)>,
    now_us: u64,
    prng: Prng,
    loss_percent: u64,
    lost: u32,
}

const LATENCY_US: u64 = 30_000;

impl Session {
    fn new(config: HostConfig, seed: u64, loss_percent: u64) -> Self {
        let now_us = 5_000_000;
        let node = Node::host(config, Time::from_micros(now_us)).unwrap();
        Self {
            host: seat(node, seed),
            clients: Vec::new(),
            underway: VecDeque::new(),
            now_us,
            prng: Prng::with_stream(seed, 1),
            loss_percent,
            lost: 0,
        }
    }

    fn join(&mut self, name: &str, config: impl FnOnce(JoinConfig) -> JoinConfig) {
        let secret = self.clients.len() as u128 + 1;
        let config = config(JoinConfig {
            secret,
            ..JoinConfig::new(game(), name)
        });
        let node = Node::join(config, Path(0), Time::from_micros(self.now_us)).unwrap();
        let seed = 100 + self.clients.len() as u64;
        self.clients.push((seat(node, seed), Reader::default()));
    }

    fn run(&mut self, ms: u64) {
        for _ in 0..ms {
            self.now_us += 1000;
            let now = Time::from_micros(self.now_us);
            while let Some((_, index, to_host, bytes)) =
                self.underway.pop_front_if(|(at, ..)| *at <= now.micros())
            {
                let (client, reader) = &mut self.clients[index];
                reader
                    .arrived(to_host, &bytes)
                    .unwrap_or_else(|wrong| panic!("{wrong}: {bytes:02x?}"));
                if to_host {
                    let path = Path(u32::try_from(index).unwrap());
                    self.host.wire.inbox.push_back((path, bytes));
                } else {
                    client.wire.inbox.push_back((Path(0), bytes));
                }
            }
            self.host.driver.pump(now, &mut self.host.wire);
            let mut sent: Vec<(usize, bool, Vec<u8>)> = Vec::new();
            for (path, bytes) in self.host.wire.outbox.drain(..) {
                sent.push((usize::try_from(path.0).unwrap(), false, bytes));
            }
            for (index, (client, _)) in self.clients.iter_mut().enumerate() {
                client.driver.pump(now, &mut client.wire);
                for (_, bytes) in client.wire.outbox.drain(..) {
                    sent.push((index, true, bytes));
                }
            }
            for (index, to_host, bytes) in sent {
                let reader = &mut self.clients[index].1;
                reader
                    .sent(!to_host, &bytes, self.now_us)
                    .unwrap_or_else(|wrong| panic!("{wrong}: {bytes:02x?}"));
                let is_handshake = bytes[0] >= 0xc0;
                if !is_handshake && self.prng.below(100) < self.loss_percent {
                    self.lost += 1;
                    continue;
                }
                let at = self.now_us + LATENCY_US;
                self.underway.push_back((at, index, to_host, bytes));
            }
        }
    }

    /// Compares what the reader has understood with what the nodes did.
    fn check(&self, index: usize, ticks_min: u32) {
        let (client, reader) = &self.clients[index];
        let node = client.driver.node();
        let slot = node.session().slot.unwrap();

        // What the client sampled is what the reader found in its datagrams.
        let history = &reader.host.histories[slot.index()];
        assert!(history.newest > ticks_min, "only {}", history.newest);
        let sampled = &client.driver.player().sampled;
        let mut found = 0;
        for (tick, input) in &history.inputs {
            if let Some(sampled) = sampled.get(tick) {
                assert_eq!(input.as_ref(), Some(sampled), "tick {tick}");
                found += 1;
            }
        }
        assert!(found > ticks_min / 2, "only {found} samples");

        // The frames in the host's datagrams are those on which the host ran.
        let frames = &self.host.driver.player().frames;
        let mut found = 0;
        for (tick, frame) in frames {
            let histories = &reader.client.histories;
            let known = histories
                .iter()
                .all(|history| history.inputs.contains_key(tick));
            if !known {
                continue;
            }
            for (slot, history) in (0..).zip(histories) {
                let input = frame.input(phalanx_netcode::id::Slot(slot));
                assert_eq!(history.inputs[tick].as_deref(), input, "tick {tick}");
            }
            found += 1;
        }
        assert!(found > ticks_min, "only {found} frames");

        // The hashes are those of the client's states, folded.
        let states = &client.driver.player().states;
        assert!(reader.host.hashes.len() >= 3);
        for (tick, hash) in &reader.host.hashes {
            let (_, combined) = states[tick];
            let folded = (combined ^ combined >> 32) & 0xffff_ffff;
            assert_eq!(u64::from(*hash), folded, "tick {tick}");
        }
        assert!(reader.client.clocks > 20 && reader.host.clocks > 20);
        assert!(reader.client.batches > ticks_min && reader.client.plain > ticks_min / 2);
        assert_eq!(node.statistics().desyncs, 0);
        let drops = node.statistics().drops;
        // What arrives after the goodbye has no place.
        let late = drops.of(DropReason::Unexpected);
        assert_eq!(drops.total(), late, "{drops:?}");
    }
}

#[test]
fn a_paced_session_reads_as_the_document_says() {
    for (seed, loss_percent) in [(1, 0), (2, 8)] {
        let config = HostConfig {
            start: Start::Players(1),
            seed,
            secret: 7,
            ..HostConfig::new(game(), 3)
        };
        let mut session = Session::new(config, seed, loss_percent);
        session.join("Ada", |config| config);
        session.run(3000);
        // A late one, who gets the state.
        session.join("Grace", |config| config);
        session.run(3000);
        for (index, text) in [(0, b"hello"), (1, b"there")] {
            let client = session.clients[index].0.driver.node_mut();
            let to = MemberId::FIRST_HOST;
            client.send_message(to, Channel::Reliable, text).unwrap();
        }
        let host = session.host.driver.node_mut();
        let grace = host.roster().members().last().unwrap().id;
        host.send_message(grace, Channel::Unreliable, b"news")
            .unwrap();
        host.end_at(Tick::ZERO);
        session.run(4000);

        session.check(0, 300);
        session.check(1, 150);
        let readers: Vec<&Reader> = session.clients.iter().map(|(_, reader)| reader).collect();
        assert_eq!(readers[0].client_name, "Ada");
        assert!(readers[0].members.iter().any(|name| name == "Grace"));
        assert!(readers[0].host.messages.contains(&b"hello".to_vec()));
        assert!(readers[1].host.messages.contains(&b"there".to_vec()));
        if loss_percent == 0 {
            assert_eq!(readers[1].client.messages, [b"news".to_vec()]);
        } else {
            assert!(session.lost > 50);
        }
        assert!(readers[0].state.is_none(), "who was there made the state");
        let (tick, bytes) = readers[1].state.as_ref().unwrap();
        let (value, _) = session.host.driver.player().states[tick];
        assert_eq!(toy_snapshot(bytes, schema().hash()), Ok((*tick, value)));
        for reader in readers {
            let last = session.host.driver.node().settled_tick().number();
            assert_eq!(reader.last_tick, Some(last));
            assert_eq!(reader.bye, Some(1), "ended");
        }
    }
}

#[test]
fn a_waiting_session_reads_as_the_document_says() {
    for (seed, loss_percent) in [(3, 0), (4, 8)] {
        let config = HostConfig {
            plays: true,
            gate: Gate::Wait {
                limit_us: 5_000_000,
            },
            input_delay: InputDelay::Fixed(5),
            seed,
            secret: 9,
            ..HostConfig::new(game(), 2)
        };
        let mut session = Session::new(config, seed, loss_percent);
        session.join("Ada", |config| JoinConfig {
            input_delay: InputDelay::Fixed(5),
            ..config
        });
        session.run(6000);
        session.check(0, 200);
        // The host's own inputs came over, too.
        let frames = &session.clients[0].1.client.histories[0].inputs;
        for (tick, input) in frames {
            if let Some(sampled) = session.host.driver.player().sampled.get(tick) {
                assert_eq!(input.as_ref(), Some(sampled), "tick {tick}");
            }
        }
    }
}
