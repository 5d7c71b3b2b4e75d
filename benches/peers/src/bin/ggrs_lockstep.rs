//! ggrs and Phalanx on the same simulated network, with the same inputs, in one run.
//!
//! `cargo run --release --manifest-path benches/peers/Cargo.toml --bin ggrs_lockstep [SECONDS]`, by
//! default 60 measured seconds after 10 of warm-up, all in virtual time: ggrs reads its clock
//! through the crate `instant`, which this package replaces by one that the benchmark sets. Only its
//! pings use the system's clock; they tell ggrs a round trip of almost nothing, alike at all peers,
//! and its advice to wait is not followed.
//!
//! 60 ticks per second, 50 ms one way, inputs of 8 bytes of which one of 16 bits flips with p = 0.1
//! per tick. Each datagram passes our conditioner; sizes are those of ggrs's own socket (bincode 1).
//! Bytes are per tick time and directed link: of all pairs in ggrs's mesh, of client and host in our
//! star, where a paced session has a host without a player. CPU time is that of this thread as Linux
//! counts it, for all of a run: sessions, a toy game, and the simulated network of either.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::error::Error;
use std::rc::Rc;
use std::time::Duration;

use ggrs::{
    Config, GgrsError, GgrsEvent, GgrsRequest, Message, NonBlockingSocket, P2PSession, PlayerType,
    PredictRepeatLast, SessionBuilder, SessionState,
};
use phalanx_netcode::link::conditioner::{Conditioner, Conditions};
use phalanx_netcode::prng::Prng;
use phalanx_netcode::time::Time;
use serde::{Deserialize, Serialize};

#[path = "../../../src/cpu.rs"]
mod cpu;
#[path = "../../../src/lockstep.rs"]
#[expect(dead_code, reason = "shared with a benchmark that prints more")]
mod lockstep;

use lockstep::{Pace, Scenario};

const WARM_UP_TICKS: u64 = 600;
const TICK_US: f64 = 1_000_000.0 / 60.0;
const START: Time = Time::from_millis(10_000);

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Input(u64);

struct Words;

impl Config for Words {
    type Input = Input;
    type InputPredictor = PredictRepeatLast;
    type State = [u64; 8];
    type Address = usize;
}

/// The network of all sessions of a run.
struct Mesh {
    now: Time,
    flight: Conditioner<(usize, usize)>,
    inboxes: Vec<VecDeque<(usize, Vec<u8>)>>,
    datagrams: u64,
    bytes: u64,
}

struct Socket {
    own: usize,
    mesh: Rc<RefCell<Mesh>>,
}

impl NonBlockingSocket<usize> for Socket {
    fn send_to(&mut self, message: &Message, to: &usize) {
        let bytes = bincode_1::serialize(message).expect("ggrs's messages have a form");
        let mut mesh = self.mesh.borrow_mut();
        mesh.datagrams += 1;
        mesh.bytes += bytes.len() as u64;
        let now = mesh.now;
        mesh.flight.push(now, (self.own, *to), &bytes);
    }

    fn receive_all_messages(&mut self) -> Vec<(usize, Message)> {
        let mut mesh = self.mesh.borrow_mut();
        let datagrams = mesh.inboxes[self.own].drain(..);
        datagrams
            .filter_map(|(from, bytes)| Some((from, bincode_1::deserialize(&bytes).ok()?)))
            .collect()
    }
}

struct Peer {
    session: P2PSession<Words>,
    prng: Prng,
    input: u64,
    state: [u64; 8],
    frame: i32,
    /// Newest frame that ever ran.
    newest: i32,
    waited: u64,
    longest: u64,
    ticks: u64,
    stalled: u64,
}

/// One line of the table.
struct Row {
    name: String,
    ticks_per_s: f64,
    stalled_percent: f64,
    freeze_ms: f64,
    payload: f64,
    wire: f64,
    up_kbit: f64,
    cpu_us: f64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let seconds: u64 = match std::env::args().nth(1) {
        Some(text) => text.parse()?,
        None => 60,
    };
    let ticks = seconds * 60;
    println!(
        "{:<28} {:>4} | {:>6} {:>7} {:>7} | {:>7} {:>7} {:>7} | {:>7}",
        "session", "loss", "tick/s", "stall %", "freeze", "payload", "wire", "kbit/s", "us/tick"
    );
    for players in [2_u8, 4, 8] {
        for (prediction, delay) in [(0, 4), (8, 0)] {
            for loss in [0, 5, 20] {
                let row = ggrs(usize::from(players), prediction, delay, loss, ticks)?;
                print(&row, loss);
            }
        }
        let paces = if players == 2 {
            vec![
                Pace::Strict { delay: 4 },
                Pace::Strict { delay: 8 },
                Pace::Paced { prediction: 12 },
            ]
        } else {
            vec![
                Pace::Paced { prediction: 0 },
                Pace::Paced { prediction: 12 },
            ]
        };
        for pace in paces {
            for loss in [0, 5, 20] {
                print(&ours(players, pace, loss, ticks)?, loss);
            }
        }
    }
    println!(
        "freeze in ms; payload and wire (+ 28 B per datagram) in bytes per tick time and directed \
         link;\nkbit/s: up, per player, wire; us/tick: CPU per tick that ran and node, with its share of the simulated network."
    );
    Ok(())
}

fn print(row: &Row, loss: u32) {
    println!(
        "{:<28} {:>3}% | {:>6.1} {:>7.3} {:>7.0} | {:>7.1} {:>7.1} {:>7.1} | {:>7.2}",
        row.name,
        loss,
        row.ticks_per_s,
        row.stalled_percent,
        row.freeze_ms,
        row.payload,
        row.wire,
        row.up_kbit,
        row.cpu_us
    );
}

fn ours(players: u8, pace: Pace, loss: u32, ticks: u64) -> Result<Row, Box<dyn Error>> {
    let scenario = Scenario::new(players, pace, loss, ticks);
    let before = cpu_ns()?;
    let figures = lockstep::run(&scenario)?;
    let spent_ns = cpu_ns()? - before;
    let (up, down) = (figures.up, figures.down);
    let nodes = match pace {
        Pace::Strict { .. } => f64::from(players),
        Pace::Paced { .. } => f64::from(players) + 1.0,
    };
    Ok(Row {
        name: match pace {
            Pace::Strict { delay } => format!("Phalanx {players}, strict, delay {delay}"),
            Pace::Paced { prediction: 0 } => format!("Phalanx {players}, paced"),
            Pace::Paced { prediction } => {
                format!("Phalanx {players}, paced, predict {prediction}")
            }
        },
        ticks_per_s: figures.ticks_per_s,
        stalled_percent: figures.waits.stalled_percent(),
        freeze_ms: figures.waits.longest_freeze_us as f64 / 1000.0,
        payload: (up.payload_bytes + down.payload_bytes) / 2.0,
        wire: (up.wire_bytes(0.0) + down.wire_bytes(0.0)) / 2.0,
        up_kbit: up.wire_bytes(0.0) * 60.0 * 8.0 / 1000.0,
        // The warm-up is part of the time.
        cpu_us: spent_ns as f64 / 1000.0 / nodes / (ticks + WARM_UP_TICKS) as f64,
    })
}

fn ggrs(
    players: usize,
    prediction: usize,
    delay: usize,
    loss: u32,
    ticks: u64,
) -> Result<Row, Box<dyn Error>> {
    set_time(START);
    let conditions = Conditions::from_rtt(100_000, loss * 10_000);
    let mesh = Rc::new(RefCell::new(Mesh {
        now: START,
        flight: Conditioner::new(conditions, 1),
        inboxes: vec![VecDeque::new(); players],
        datagrams: 0,
        bytes: 0,
    }));
    let mut peers = Vec::new();
    for own in 0..players {
        peers.push(peer(own, players, prediction, delay, &mesh)?);
    }
    let mut tick = 0;
    // Peers synchronize, and then warm up.
    while !peers
        .iter()
        .all(|peer| peer.session.current_state() == SessionState::Running)
    {
        step(&mut peers, &mesh, tick)?;
        tick += 1;
        if tick > 6000 {
            return Err("ggrs did not synchronize".into());
        }
    }
    for _ in 0..WARM_UP_TICKS {
        step(&mut peers, &mesh, tick)?;
        tick += 1;
    }
    for peer in &mut peers {
        (peer.ticks, peer.stalled, peer.longest) = (0, 0, 0);
    }
    (mesh.borrow_mut().datagrams, mesh.borrow_mut().bytes) = (0, 0);
    let before = cpu_ns()?;
    for _ in 0..ticks {
        step(&mut peers, &mesh, tick)?;
        tick += 1;
    }
    let spent_ns = cpu_ns()? - before;
    let mesh = mesh.borrow();
    let links = (players * (players - 1)) as f64;
    let per_link = |count: u64| count as f64 / links / ticks as f64;
    let payload = per_link(mesh.bytes);
    let wire = payload + per_link(mesh.datagrams) * lockstep::IP_UDP_BYTES;
    let ran: u64 = peers.iter().map(|peer| peer.ticks).sum();
    let stalled: u64 = peers.iter().map(|peer| peer.stalled).sum();
    let slowest = peers.iter().map(|peer| peer.ticks).min().unwrap_or(0);
    let longest = peers.iter().map(|peer| peer.longest).max().unwrap_or(0);
    Ok(Row {
        name: if prediction == 0 {
            format!("ggrs {players}, lockstep, delay {delay}")
        } else {
            format!("ggrs {players}, rollback {prediction}")
        },
        ticks_per_s: slowest as f64 * 60.0 / ticks as f64,
        stalled_percent: 100.0 * stalled as f64 / (players as u64 * ticks) as f64,
        freeze_ms: (longest + 1) as f64 * TICK_US / 1000.0,
        payload,
        wire,
        up_kbit: wire * (players - 1) as f64 * 60.0 * 8.0 / 1000.0,
        cpu_us: spent_ns as f64 / 1000.0 / ran.max(1) as f64,
    })
}

fn peer(
    own: usize,
    players: usize,
    prediction: usize,
    delay: usize,
    mesh: &Rc<RefCell<Mesh>>,
) -> Result<Peer, GgrsError> {
    let mut builder = SessionBuilder::<Words>::new()
        .with_num_players(players)?
        .with_max_prediction_window(prediction)
        .with_input_delay(delay);
    for player in 0..players {
        let kind = if player == own {
            PlayerType::Local
        } else {
            PlayerType::Remote(player)
        };
        builder = builder.add_player(kind, player)?;
    }
    let mesh = Rc::clone(mesh);
    Ok(Peer {
        session: builder.start_p2p_session(Socket { own, mesh })?,
        prng: Prng::with_stream(1, own as u64),
        input: 0,
        state: [0; 8],
        frame: 0,
        newest: 0,
        waited: 0,
        longest: 0,
        ticks: 0,
        stalled: 0,
    })
}

/// One tick time of all peers; each at its own moment within it, as in reality.
fn step(peers: &mut [Peer], mesh: &Rc<RefCell<Mesh>>, tick: u64) -> Result<(), GgrsError> {
    let count = peers.len() as f64;
    for (own, peer) in peers.iter_mut().enumerate() {
        let us = (tick as f64 + own as f64 / count) * TICK_US;
        let now = START.plus_micros(us as u64);
        set_time(now);
        {
            let mut mesh = mesh.borrow_mut();
            mesh.now = now;
            let Mesh {
                flight, inboxes, ..
            } = &mut *mesh;
            while let Some(((from, to), bytes)) = flight.pop(now) {
                inboxes[to].push_back((from, bytes.to_vec()));
            }
        }
        peer.tick(own)?;
    }
    Ok(())
}

impl Peer {
    fn tick(&mut self, own: usize) -> Result<(), GgrsError> {
        self.session.poll_remote_clients();
        let lost = self
            .session
            .events()
            .find(|event| matches!(event, GgrsEvent::Disconnected { .. }));
        if lost.is_some() {
            return Err(GgrsError::InvalidRequest {
                info: "a peer was lost".to_owned(),
            });
        }
        if self.session.current_state() != SessionState::Running {
            return Ok(());
        }
        if self.prng.chance_per_million(100_000) {
            self.input ^= 1 << self.prng.below(16);
        }
        self.session.add_local_input(own, Input(self.input))?;
        let before = self.newest;
        match self.session.advance_frame() {
            Ok(requests) => {
                for request in requests {
                    self.obey(request);
                }
            }
            Err(GgrsError::PredictionThreshold) => {}
            Err(error) => return Err(error),
        }
        if self.newest > before {
            self.ticks += 1;
            self.waited = 0;
        } else {
            self.stalled += 1;
            self.waited += 1;
            self.longest = self.longest.max(self.waited);
        }
        Ok(())
    }

    fn obey(&mut self, request: GgrsRequest<Words>) {
        match request {
            GgrsRequest::SaveGameState { cell, frame } => {
                cell.save(frame, Some(self.state), None);
            }
            GgrsRequest::LoadGameState { cell, frame } => {
                self.state = cell.load().unwrap_or_default();
                self.frame = frame;
            }
            GgrsRequest::AdvanceFrame { inputs } => {
                for (word, (input, _status)) in self.state.iter_mut().zip(inputs) {
                    *word = word.wrapping_mul(31).wrapping_add(input.0);
                }
                self.frame += 1;
                self.newest = self.newest.max(self.frame);
            }
        }
    }
}

/// CPU time of this thread.
fn cpu_ns() -> Result<u64, Box<dyn Error>> {
    let ns = cpu::thread_ns("ggrs_lockstep");
    ns.ok_or_else(|| "this system does not tell the CPU time of threads".into())
}

fn set_time(now: Time) {
    instant::set_now(Duration::from_micros(now.micros()));
}
