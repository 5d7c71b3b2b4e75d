//! What a node costs: CPU time of the protocol's core alone, per tick and node.
//!
//! `cargo run --release -p phalanx-benches --bin node_cpu [TICKS [RUNS [PLAYERS]]]`, by default 3000
//! ticks, 9 runs and all sessions, of which the medians and the least are printed (on a busy machine they differ). Time is virtual and datagrams take 50 ms, without loss;
//! what is measured is the calls into [`Node`]: what arrives, timeouts, requests and answers, and
//! what is sent. There is no game, no link, no simulator in it; a state hash is asked for every 32
//! ticks and answered with a constant. The cost of reading the clock is subtracted.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
use std::collections::VecDeque;
use std::time::Instant;

use phalanx::netcode::id::Path;
use phalanx::netcode::node::{Node, Request};
use phalanx::netcode::prng::Prng;
use phalanx::netcode::session::config::{Gate, HostConfig, InputDelay, JoinConfig};
use phalanx::netcode::state::StateHash;
use phalanx::netcode::time::Time;
use phalanx_tests::toy;

const LATENCY_US: u64 = 50_000;
const WARM_UP_US: u64 = 3_000_000;

/// A node, its player, and what it cost.
struct Member {
    node: Node,
    prng: Prng,
    input: u64,
    ns: u64,
    /// Times that the clock was read twice.
    spans: u64,
    /// Whether it was called since it sent.
    touched: bool,
}

struct Network {
    now: Time,
    members: Vec<Member>,
    /// What is under way; all takes the same time, so it stays in order.
    in_flight: VecDeque<(Time, usize, Path, Vec<u8>)>,
    spare: Vec<Vec<u8>>,
    out: Vec<u8>,
    hash: StateHash,
}

#[derive(Clone, Copy, Default)]
struct Cost {
    host_ns: f64,
    client_ns: f64,
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: u64| -> u64 {
        let text = arguments.next();
        text.and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let (ticks, runs, only) = (number(3000), number(9).max(1), number(0));
    let overhead = clock_ns();
    println!("ns per tick and node, median of {runs} runs of {ticks} ticks");
    println!(
        "{:<34} {:>8} {:>8} {:>8} {:>8}",
        "session", "host", "client", "least h", "least c"
    );
    let mut results = Vec::new();
    for (name, players, strict, prediction) in [
        ("2 players, strict, playing host", 2, true, 0),
        ("2 players, paced", 2, false, 0),
        ("2 players, paced, predicts 12", 2, false, 12),
        ("8 players, paced", 8, false, 0),
        ("8 players, paced, predicts 12", 8, false, 12),
        ("64 players, paced", 64, false, 0),
    ] {
        if only != 0 && only != u64::from(players) {
            continue;
        }
        let ticks = if players > 8 { ticks / 8 } else { ticks };
        let costs: Vec<Cost> = (0..runs)
            .map(|run| measure(players, strict, prediction, ticks, run, overhead))
            .collect();
        let ranked = |pick: fn(&Cost) -> f64, rank: usize| {
            let mut values: Vec<f64> = costs.iter().map(pick).collect();
            values.sort_by(f64::total_cmp);
            values[rank]
        };
        let of_rank = |rank| Cost {
            host_ns: ranked(|cost| cost.host_ns, rank),
            client_ns: ranked(|cost| cost.client_ns, rank),
        };
        let (cost, least) = (of_rank(costs.len() / 2), of_rank(0));
        println!(
            "{name:<34} {:>8.0} {:>8.0} {:>8.0} {:>8.0}",
            cost.host_ns, cost.client_ns, least.host_ns, least.client_ns
        );
        results.push((players, least));
    }
    for (players, limit) in [(2, 2000.0), (8, 10_000.0)] {
        let of_players = results.iter().filter(|(count, _)| *count == players);
        let worst = of_players
            .map(|(_, cost)| cost.host_ns.max(cost.client_ns))
            .fold(0.0, f64::max);
        let word = if worst <= limit { "met" } else { "NOT MET" };
        println!(
            "{players} players: {worst:.0} ns at worst (least of the runs), at most {limit}: {word}"
        );
    }
}

/// Nanoseconds between two readings of the clock with nothing between them.
fn clock_ns() -> f64 {
    let mut samples: Vec<u64> = (0..10_001)
        .map(|_| u64::try_from(Instant::now().elapsed().as_nanos()).unwrap_or(u64::MAX))
        .collect();
    samples.sort_unstable();
    samples[samples.len() / 2] as f64
}

fn measure(
    players: u8,
    strict: bool,
    prediction: u32,
    ticks: u64,
    seed: u64,
    overhead: f64,
) -> Cost {
    let mut network = network(players, strict, prediction, seed);
    network.run_us(WARM_UP_US);
    let before: Vec<u64> = network
        .members
        .iter_mut()
        .map(|member| {
            (member.ns, member.spans) = (0, 0);
            member.node.statistics().ticks
        })
        .collect();
    network.run_us(ticks * 1_000_000 / 60);
    let per_tick: Vec<f64> = network
        .members
        .iter()
        .zip(&before)
        .map(|(member, before)| {
            let ticks = member.node.statistics().ticks - before;
            (member.ns as f64 - member.spans as f64 * overhead) / ticks.max(1) as f64
        })
        .collect();
    let clients = &per_tick[1..];
    Cost {
        host_ns: per_tick[0],
        client_ns: clients.iter().sum::<f64>() / clients.len() as f64,
    }
}

fn network(players: u8, strict: bool, prediction: u32, seed: u64) -> Network {
    let now = Time::from_millis(10_000);
    let mut host = HostConfig::new(toy::game(), players);
    let mut delay = InputDelay::default();
    host.secret = u128::from(seed) + 1;
    if strict {
        delay = InputDelay::Fixed(4);
        host.gate = Gate::Wait {
            limit_us: 5_000_000,
        };
        host.plays = true;
        host.input_delay = delay;
    }
    let member = |node, stream| Member {
        node,
        prng: Prng::with_stream(seed, stream),
        input: 0,
        ns: 0,
        spans: 0,
        touched: true,
    };
    let node = Node::host(host, now).expect("the settings can be used");
    let mut members = vec![member(node, 0)];
    for player in u8::from(strict)..players {
        let mut config = JoinConfig::new(toy::game(), &format!("player {player}"));
        config.input_delay = delay;
        config.prediction_ticks = prediction;
        config.secret = (u128::from(seed) << 32) + u128::from(player) + 1;
        let node = Node::join(config, Path(0), now).expect("the settings can be used");
        members.push(member(node, u64::from(player) + 1));
    }
    let mut hash = StateHash::default();
    hash.reset(2);
    Network {
        now,
        members,
        in_flight: VecDeque::new(),
        spare: Vec::new(),
        out: Vec::with_capacity(2048),
        hash,
    }
}

impl Network {
    fn run_us(&mut self, us: u64) {
        let end = self.now.plus_micros(us);
        while self.now < end {
            let arrival = self.in_flight.front().map_or(Time::FAR, |flight| flight.0);
            let timeouts = self.members.iter().map(|member| member.node.poll_timeout());
            let timeout = timeouts.min().unwrap_or(Time::FAR);
            self.now = arrival.min(timeout).max(self.now).min(end);
            while let Some((at, to, path, bytes)) = self.in_flight.pop_front() {
                if at > self.now {
                    self.in_flight.push_front((at, to, path, bytes));
                    break;
                }
                let now = self.now;
                self.call(to, |node| node.handle_datagram(now, path, &bytes));
                self.spare.push(bytes);
            }
            for index in 0..self.members.len() {
                if self.members[index].node.poll_timeout() <= self.now {
                    let now = self.now;
                    self.call(index, |node| node.handle_timeout(now));
                }
                if core::mem::take(&mut self.members[index].touched) {
                    self.transmit(index);
                }
            }
        }
    }

    /// One call into a node, and all that it asks for.
    fn call(&mut self, index: usize, call: impl FnOnce(&mut Node)) {
        let (now, hash) = (self.now, &self.hash);
        let member = &mut self.members[index];
        member.touched = true;
        let mut input = member.input;
        if member.prng.chance_per_million(100_000) {
            input ^= 1 << member.prng.below(16);
        }
        let node = &mut member.node;
        let start = Instant::now();
        call(node);
        while let Some(request) = node.poll_request() {
            // The others need no answer.
            if let Request::Sample { .. } = request {
                member.input = input;
                node.submit_input(now, &input.to_le_bytes())
                    .expect("the node has just asked");
            } else if let Request::Hash { tick } = request {
                node.commit_hash(tick, Some(hash));
            }
        }
        while node.poll_confirmed().is_some() {}
        while node.poll_event().is_some() {}
        member.ns += nanos(start);
        member.spans += 1;
    }

    fn transmit(&mut self, index: usize) {
        loop {
            let member = &mut self.members[index];
            let start = Instant::now();
            let path = member.node.poll_transmit(self.now, &mut self.out);
            member.ns += nanos(start);
            member.spans += 1;
            let Some(path) = path else { return };
            let (to, from) = if index == 0 {
                (path.0 as usize, Path(0))
            } else {
                (0, Path(u32::try_from(index).unwrap_or(u32::MAX)))
            };
            let mut bytes = self.spare.pop().unwrap_or_default();
            bytes.clear();
            bytes.extend_from_slice(&self.out);
            let at = self.now.plus_micros(LATENCY_US);
            self.in_flight.push_back((at, to, from, bytes));
        }
    }
}

fn nanos(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
}
