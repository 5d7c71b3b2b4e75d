//! The demo game in state-sync mode: what clients get, what they show, how fast they join.
//!
//! `cargo run --release -p phalanx-benches --bin arena_state [-- [--ticks N] [--seed N]
//! [--skip-join]]`
//!
//! The first table is exact and the same everywhere: sessions in virtual time with a round trip of
//! 100 ms and 20 snapshots per second. Bytes are UDP payload plus 28 B per datagram, without
//! encryption, without the first five seconds. Shown places are compared with the host's at
//! the moment that is shown, every 130 ms. Then what a member costs while nothing changes. The last figure is measured: 16 clients join a running
//! session of 10 000 units over UDP on loopback, all at once.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::error::Error;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use phalanx_demo::arena;
use phalanx_demo::eye::Eye;
use phalanx_demo::play::{Hands, Pilot};
use phalanx_demo::truth::{ShownErrors, Truth};
use phalanx_netcode::driver::{Driver, Player};
use phalanx_netcode::input::InputFrame;
use phalanx_netcode::link::clock::Clock;
use phalanx_netcode::link::conditioner::Conditions;
use phalanx_netcode::link::udp::{UdpConfig, UdpLink};
use phalanx_netcode::node::{Node, SessionInfo};
use phalanx_netcode::session::config::{
    GameInfo, HostConfig, JoinConfig, Mode, Role, Start, StateSyncConfig,
};
use phalanx_netcode::statesync::Interest;
use phalanx_netcode::tick::Tick;
use phalanx_tests::cluster::{ClusterOf, Seeded};
use phalanx_tests::yard::{self, Plan, Pusher};

const PLAYERS: u8 = 4;
const WARM_UP_TICKS: u32 = 300;
const JOINERS: usize = 16;
const JOIN_UNITS: u32 = 10_000;
const JOIN_RUNS: usize = 9;

fn main() -> Result<(), Box<dyn Error>> {
    let (mut ticks, mut seed, mut joins) = (3600, 1, true);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || -> Result<u32, String> {
            let value = arguments.next().and_then(|text| text.parse().ok());
            value.ok_or_else(|| format!("{argument} needs a number"))
        };
        match argument.as_str() {
            "--ticks" => ticks = number()?,
            "--seed" => seed = u64::from(number()?),
            "--skip-join" => joins = false,
            other => return Err(format!("unknown argument {other:?}").into()),
        }
    }
    println!(
        "{:<34} {:>4} {:>6} {:>7} {:>6} | {:>6} {:>6} {:>6} | {:>6} {:>6}",
        "session",
        "loss",
        "kbit/s",
        "B/tick",
        "B up",
        "mean m",
        "p99 m",
        "max m",
        "predic",
        "correc"
    );
    for (name, view, kbit) in [
        ("1000 units, all in view", None, 1000),
        ("the same, 250 kbit/s", None, 250),
        ("the same, heroes see 50 m", Some(50.0), 1000),
    ] {
        for loss in [0, 5] {
            let scenario = Scenario {
                view,
                kbit,
                loss,
                ticks,
                seed,
            };
            let figures = play(&scenario)?;
            let errors = &figures.errors;
            println!(
                "{name:<34} {loss:>3}% {:>6.0} {:>7.1} {:>6.1} | {:>6.3} {:>6.3} {:>6.2} | {:>6} {:>6}",
                figures.bytes_down * 0.48,
                figures.bytes_down,
                figures.bytes_up,
                errors.mean().unwrap_or(f64::NAN),
                errors.percentile(99).unwrap_or(f64::NAN),
                errors.max().unwrap_or(f64::NAN),
                figures.predictions,
                figures.corrections,
            );
        }
    }
    println!("a world that stands still, 20 snapshots per second, no loss, with encryption:");
    for (name, plays) in [("to a player", true), ("to a spectator", false)] {
        let (datagrams, bytes) = stand_still(plays)?;
        println!(
            "{name:<34} {datagrams:>5.2} datagrams, {bytes:>5.1} B of UDP payload per snapshot"
        );
    }
    if joins {
        let mut runs = (0..JOIN_RUNS)
            .map(|_| join_late())
            .collect::<Result<Vec<Joined>, _>>()?;
        runs.sort_unstable_by_key(|run| run.all);
        let list = |of: fn(&Joined) -> Duration| -> String {
            let ms = runs.iter().map(|run| of(run).as_millis().to_string());
            ms.collect::<Vec<_>>().join(", ")
        };
        println!(
            "late join of {JOIN_UNITS} units to {JOINERS} clients at once, loopback UDP, in ms:"
        );
        println!(
            "  until the last one holds the world:  {}",
            list(|run| run.all)
        );
        println!(
            "  until the first one does:            {}",
            list(|run| run.first)
        );
        println!(
            "  of that, the clients' shared thread: {}",
            list(|run| run.clients)
        );
    }
    Ok(())
}

/// A bot of the demo game.
struct Gamer(Pilot);

impl Gamer {
    fn new(units: u32, seed: u64) -> Self {
        let game = arena::game(units).expect("the rules fit together, as tests say");
        Self(Pilot::new(game, Hands::Bot(seed)).taking_states())
    }
}

impl Seeded for Gamer {
    fn seeded(seed: u64, _stream: u64) -> Self {
        Self::new(1000, seed)
    }
}

impl Player for Gamer {
    type Simulation = phalanx::EcsSimulation;

    fn begin(&mut self, session: &SessionInfo) -> Self::Simulation {
        self.0.begin(session)
    }

    fn sample(&mut self, tick: Tick, simulation: &Self::Simulation, input: &mut [u8]) {
        self.0.sample(tick, simulation, input);
    }

    fn stepped(&mut self, simulation: &Self::Simulation, frame: &InputFrame) {
        self.0.stepped(simulation, frame);
    }
}

fn info(units: u32) -> Result<GameInfo, Box<dyn Error>> {
    let game = arena::game(units)?;
    Ok(game.info_for(&arena::build_name(units), Mode::StateSync))
}

struct Scenario {
    view: Option<f32>,
    kbit: u32,
    loss: u32,
    ticks: u32,
    seed: u64,
}

struct Figures {
    /// Per client and tick.
    bytes_down: f64,
    bytes_up: f64,
    errors: ShownErrors,
    predictions: u64,
    corrections: u64,
}

fn play(scenario: &Scenario) -> Result<Figures, Box<dyn Error>> {
    let info = info(1000)?;
    let config = HostConfig {
        start: Start::Players(PLAYERS),
        state_sync: StateSyncConfig {
            snapshot_ticks: 3,
            budget_bytes_per_second: scenario.kbit * 125,
            ..StateSyncConfig::default()
        },
        ..HostConfig::new(info.clone(), PLAYERS)
    };
    let network = Conditions::from_rtt(100_000, scenario.loss * 10_000);
    let mut cluster: ClusterOf<Gamer> = ClusterOf::new(config, network, scenario.seed);
    if let Some(publisher) = cluster.driver(0).node_mut().publisher_mut() {
        publisher.set_interest(scenario.view.map(Interest::within));
    }
    let truth = Truth::default();
    let host = &mut cluster.driver(0).player_mut().0;
    host.set_hosting(true);
    host.note_into(truth.clone());
    let game = arena::game(1000)?;
    let mut clients = Vec::new();
    for number in 1..=PLAYERS {
        let name = format!("bot {number}");
        let config = JoinConfig {
            prediction_ticks: 16,
            ..JoinConfig::new(info.clone(), &name)
        };
        let eye = Eye::new(&game).judged_by(truth.clone());
        clients.push((cluster.join(config), eye));
    }
    // In steps of a fast display.
    let mut run = |cluster: &mut ClusterOf<Gamer>, until: u32| {
        for _ in 0..until * 4 {
            if cluster.node(0).tick() >= Tick::new(until) {
                return true;
            }
            cluster.run_us(8000);
            for (index, eye) in &mut clients {
                let now = cluster.now_of(*index);
                let driver = cluster.driver(*index);
                let sampled = driver.player().0.sampled();
                eye.follow(now, driver, sampled);
            }
        }
        false
    };
    let is_warm = run(&mut cluster, WARM_UP_TICKS);
    let before = traffic(&cluster);
    let is_done = run(&mut cluster, WARM_UP_TICKS + scenario.ticks);
    if !(is_warm && is_done) {
        return Err("the session does not get on".into());
    }
    let after = traffic(&cluster);
    let per_tick = |bytes: u64| bytes as f64 / f64::from(scenario.ticks) / f64::from(PLAYERS);
    let mut figures = Figures {
        bytes_down: per_tick(after.0 - before.0),
        bytes_up: per_tick(after.1 - before.1),
        errors: ShownErrors::default(),
        predictions: 0,
        corrections: 0,
    };
    for (index, eye) in &clients {
        let sync = cluster.node(*index).state_sync().unwrap_or_default();
        figures.predictions += sync.predictions;
        figures.corrections += sync.corrections;
        figures.errors.merge(eye.errors());
    }
    Ok(figures)
}

/// Bytes down and up so far, with headers.
fn traffic(cluster: &ClusterOf<Gamer>) -> (u64, u64) {
    let (mut down, mut up) = (0, 0);
    for (&(from, _), &(datagrams, bytes)) in &cluster.traffic {
        let sum = if from == 0 { &mut down } else { &mut up };
        *sum += bytes + 28 * datagrams;
    }
    (down, up)
}

/// Datagrams and bytes per snapshot to one member of a session in which nothing changes.
fn stand_still(plays: bool) -> Result<(f64, f64), Box<dyn Error>> {
    const SNAPSHOTS: u32 = 1200;
    let config = HostConfig {
        start: Start::Manual,
        ..HostConfig::new(yard::game(), 1)
    };
    let mut cluster: ClusterOf<Pusher> = ClusterOf::new(config, Conditions::from_rtt(60_000, 0), 1);
    cluster.driver(0).node_mut().start();
    let role = if plays { Role::Player } else { Role::Spectator };
    let one = cluster.join(JoinConfig {
        role,
        prediction_ticks: 16,
        ..JoinConfig::new(yard::game(), "one")
    });
    for member in &mut cluster.members {
        let player = member.driver.player_mut();
        player.stops = true;
        player.plan = Plan {
            bodies: 0,
            is_lively: false,
            ..Plan::default()
        };
    }
    cluster.run_us(u64::from(WARM_UP_TICKS) * 1_000_000 / 60);
    cluster.reset_traffic();
    cluster.run_us(u64::from(SNAPSHOTS) * 50_000);
    let traffic = cluster.traffic.get(&(0, one));
    let &(datagrams, bytes) = traffic.ok_or("nothing was sent")?;
    let per_snapshot = |count: u64| count as f64 / f64::from(SNAPSHOTS);
    Ok((
        per_snapshot(datagrams),
        per_snapshot(bytes + 20 * datagrams),
    ))
}

/// How long a late join took, from the first joiner's request on.
struct Joined {
    /// Until the last one holds a whole state of the running session.
    all: Duration,
    /// Until the first one does.
    first: Duration,
    /// What the thread with all clients spent in their drivers: reading, decoding, making worlds.
    clients: Duration,
}

/// All clients of a running session join at once.
fn join_late() -> Result<Joined, Box<dyn Error>> {
    let info = info(JOIN_UNITS)?;
    let config = HostConfig {
        start: Start::Manual,
        ..HostConfig::new(info.clone(), 32)
    };
    let udp = UdpConfig::new(7)
        .with_bind((Ipv4Addr::LOCALHOST, 0).into())
        .insecure();
    let mut link = UdpLink::bind(udp.with_clients_max(JOINERS))?;
    let address = link.local_addr();
    let clock = Clock::new();
    let mut node = Node::host(config, clock.now())?;
    node.start();
    let mut host = Driver::new(node, info.clone(), Gamer::new(JOIN_UNITS, 1));
    let stop = Arc::new(AtomicBool::new(false));
    let is_stopped = Arc::clone(&stop);
    let thread = thread::spawn(move || {
        while !is_stopped.load(Ordering::Relaxed) {
            host.pump(clock.now(), &mut link);
            clock.nap_until(host.poll_timeout());
        }
        host.node().tick()
    });
    // The world is in motion by then.
    thread::sleep(Duration::from_secs(1));
    let mut clients = Vec::new();
    for number in 0..JOINERS {
        let mut link = UdpLink::bind(udp.with_clients_max(0))?;
        let path = link.connect(address)?;
        let config = JoinConfig {
            role: Role::Player,
            secret: number as u128 + 1,
            ..JoinConfig::new(info.clone(), &format!("late {number}"))
        };
        // What it begins with is replaced by what it is told.
        clients.push((link, path, config, Gamer::new(0, 1)));
    }
    let start = Instant::now();
    let mut waiting = Vec::new();
    for (link, path, config, gamer) in clients {
        let clock = Clock::new();
        let node = Node::join(config, path, clock.now())?;
        waiting.push((clock, link, Driver::new(node, info.clone(), gamer)));
    }
    let (mut joined, mut first) = (None, None);
    let mut spent = Duration::ZERO;
    while joined.is_none() && start.elapsed() < Duration::from_secs(20) {
        let from = Instant::now();
        for (clock, link, driver) in &mut waiting {
            driver.pump(clock.now(), link);
        }
        spent += from.elapsed();
        let holds = |driver: &Driver<Gamer>| {
            let sync = driver.node().state_sync();
            sync.is_some_and(|sync| sync.newest_complete > Some(Tick::ZERO))
        };
        if first.is_none() && waiting.iter().any(|(_, _, driver)| holds(driver)) {
            first = Some(start.elapsed());
        }
        if waiting.iter().all(|(_, _, driver)| holds(driver)) {
            joined = Some(start.elapsed());
        }
        thread::sleep(Duration::from_micros(200));
    }
    stop.store(true, Ordering::Relaxed);
    let tick = thread.join().map_err(|_panic| "the host panicked")?;
    if tick < Tick::new(30) {
        return Err("the host's session did not run".into());
    }
    let all = joined.ok_or("not all have joined after 20 s")?;
    Ok(Joined {
        all,
        first: first.unwrap_or(all),
        clients: spent,
    })
}
