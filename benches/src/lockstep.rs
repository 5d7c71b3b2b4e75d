//! Lockstep sessions on the virtual cluster, measured in steady state.
//!
//! Time is virtual, so every figure but the run time is exact and the same on every machine. All
//! datagrams pass a conditioner; inputs are the bots' of the cluster: 8 bytes, of which one of 16
//! bits flips with p = 0.1 per tick.

use phalanx::netcode::link::conditioner::{Burst, Conditions};
use phalanx::netcode::node::Event;
use phalanx::netcode::session::config::{Gate, HostConfig, InputDelay, JoinConfig};
use phalanx_tests::cluster::Cluster;
use phalanx_tests::toy;

/// Bytes of an IPv4 and a UDP header.
pub const IP_UDP_BYTES: f64 = 28.0;

/// Virtual time before the measurement, in microseconds.
const WARM_UP_US: u64 = 10_000_000;

/// Time of one tick in microseconds.
const TICK_US: u64 = 16_667;

/// Ticks of one stretch, after which events are taken.
const STRETCH_TICKS: u64 = 600;

/// Who waits for whom.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// All wait for all; the host plays.
    Strict {
        /// Input delay of all, in ticks.
        delay: u32,
    },
    /// The host paces and has no slot.
    Paced {
        /// Ticks that clients predict.
        prediction: u32,
    },
}

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Slots, all of them with a player.
    pub players: u8,
    /// Who waits for whom.
    pub pace: Pace,
    /// Every route.
    pub conditions: Conditions,
    /// Both routes of the first client, if they differ.
    pub first_client: Option<Conditions>,
    /// Ticks to measure.
    pub ticks: u64,
    /// Of loss and inputs.
    pub seed: u64,
}

impl Scenario {
    /// A scenario with a round trip of 100 ms and independent loss.
    #[must_use]
    pub fn new(players: u8, pace: Pace, loss_percent: u32, ticks: u64) -> Self {
        Self {
            players,
            pace,
            conditions: Conditions::from_rtt(100_000, loss_percent * 10_000),
            first_client: None,
            ticks,
            seed: 1,
        }
    }

    /// The same with 5 % loss in bursts of 5 on both routes of the first client only.
    #[must_use]
    pub fn with_a_bad_client(self) -> Self {
        Self {
            first_client: Some(Conditions {
                burst: Some(Burst::from_mean(50_000, 5)),
                ..self.conditions
            }),
            ..self
        }
    }
}

/// What one direction between host and client carried, per tick.
#[derive(Clone, Copy, Debug, Default)]
pub struct Direction {
    /// Bytes of UDP payload.
    pub payload_bytes: f64,
    /// Datagrams.
    pub datagrams: f64,
}

impl Direction {
    /// Bytes on the wire, with `overhead_bytes` of encryption per datagram.
    #[must_use]
    pub fn wire_bytes(self, overhead_bytes: f64) -> f64 {
        self.payload_bytes + self.datagrams * (IP_UDP_BYTES + overhead_bytes)
    }
}

/// What one or more nodes did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Waits {
    /// Ticks that ran.
    pub ticks: u64,
    /// Tick times that passed without a tick because one could not run.
    pub stalled: u64,
    /// Longest time between two ticks, in microseconds.
    pub longest_freeze_us: u64,
    /// Inputs in whose place others acted, as their owners were told.
    pub replaced: u64,
    /// Ticks that ran again after a wrong guess.
    pub again: u64,
}

impl Waits {
    /// Stalled tick times in percent.
    #[must_use]
    pub fn stalled_percent(&self) -> f64 {
        100.0 * self.stalled as f64 / (self.ticks + self.stalled).max(1) as f64
    }

    fn add(&mut self, other: &Self) {
        self.ticks += other.ticks;
        self.stalled += other.stalled;
        self.longest_freeze_us = self.longest_freeze_us.max(other.longest_freeze_us);
        self.replaced += other.replaced;
        self.again += other.again;
    }
}

/// What a run came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    /// Ticks per second of the slowest node.
    pub ticks_per_s: f64,
    /// From a client to the host, mean over clients.
    pub up: Direction,
    /// From the host to a client, mean over clients.
    pub down: Direction,
    /// All nodes but the first client, if that has conditions of its own.
    pub waits: Waits,
    /// The first client, if it has conditions of its own.
    pub first_client: Waits,
    /// Inputs that the host replaced because they were late.
    pub late: u64,
}

/// Runs `scenario`, and measures it after ten virtual seconds.
///
/// # Errors
/// If the session does not start, a node is lost, or states differ.
pub fn run(scenario: &Scenario) -> Result<Figures, String> {
    let mut cluster = cluster(scenario);
    cluster.run_us(WARM_UP_US);
    let nodes = cluster.members.len();
    for index in 0..nodes {
        if cluster.node(index).settled_tick().number() == 0 {
            return Err(format!("node {index} of {scenario:?} did not start"));
        }
        cluster.members[index].events.clear();
    }
    cluster.reset_traffic();
    let before: Vec<_> = (0..nodes).map(|n| *cluster.node(n).statistics()).collect();
    let late_before = late(&cluster);
    let mut waits = vec![Waits::default(); nodes];
    let mut left = scenario.ticks;
    while left > 0 {
        let ticks = left.min(STRETCH_TICKS);
        left -= ticks;
        cluster.run_us(ticks * 1_000_000 / 60);
        for (member, waits) in cluster.members.iter_mut().zip(&mut waits) {
            for event in member.events.drain(..) {
                #[expect(clippy::wildcard_enum_match_arm, reason = "only these count here")]
                match event {
                    Event::Resumed { stalled_us } => {
                        waits.stalled += stalled_us.div_ceil(TICK_US);
                        waits.longest_freeze_us = waits.longest_freeze_us.max(stalled_us);
                    }
                    Event::Desync(report) => {
                        return Err(format!("{scenario:?}: desync: {report:?}"));
                    }
                    Event::Disconnected { reason } => {
                        return Err(format!("{scenario:?}: lost: {reason}"));
                    }
                    _ => {}
                }
            }
        }
    }
    let mut figures = Figures {
        ticks_per_s: f64::INFINITY,
        late: late(&cluster) - late_before,
        ..Figures::default()
    };
    let seconds = scenario.ticks as f64 / 60.0;
    for (index, (before, waits)) in before.iter().zip(&mut waits).enumerate() {
        let after = cluster.node(index).statistics();
        waits.ticks = after.ticks - before.ticks;
        waits.replaced = after.inputs_replaced - before.inputs_replaced;
        waits.again = after.ticks_again - before.ticks_again;
        waits.longest_freeze_us += TICK_US;
        let ticks_per_s = waits.ticks as f64 / seconds;
        figures.ticks_per_s = figures.ticks_per_s.min(ticks_per_s);
        if index == 1 && scenario.first_client.is_some() {
            figures.first_client = *waits;
        } else {
            figures.waits.add(waits);
        }
    }
    let clients = (nodes - 1) as f64;
    for (&(from, _to), &(datagrams, bytes)) in &cluster.traffic {
        let direction = if from == 0 {
            &mut figures.down
        } else {
            &mut figures.up
        };
        // Per tick of the session's rate, so that a stalled session does not look cheap.
        direction.datagrams += datagrams as f64 / clients / scenario.ticks as f64;
        direction.payload_bytes += bytes as f64 / clients / scenario.ticks as f64;
    }
    Ok(figures)
}

/// The session of `scenario`, before its first tick.
fn cluster(scenario: &Scenario) -> Cluster {
    let (gate, plays, delay, prediction) = match scenario.pace {
        Pace::Strict { delay } => {
            let gate = Gate::Wait {
                limit_us: 5_000_000,
            };
            (gate, true, InputDelay::Fixed(delay), 0)
        }
        Pace::Paced { prediction: 0 } => (Gate::Paced, false, InputDelay::default(), 0),
        Pace::Paced { prediction } => {
            let delay = InputDelay::Adaptive { min: 0, max: 30 };
            (Gate::Paced, false, delay, prediction)
        }
    };
    let host = HostConfig {
        gate,
        plays,
        input_delay: delay,
        ..HostConfig::new(toy::game(), scenario.players)
    };
    let mut cluster = Cluster::new(host, scenario.conditions, scenario.seed);
    for player in u8::from(plays)..scenario.players {
        let index = cluster.join(JoinConfig {
            input_delay: delay,
            prediction_ticks: prediction,
            ..JoinConfig::new(toy::game(), &format!("player {player}"))
        });
        if let (1, Some(conditions)) = (index, scenario.first_client) {
            cluster.set_route(1, 0, conditions);
            cluster.set_route(0, 1, conditions);
        }
    }
    for member in &mut cluster.members {
        member.driver.player_mut().remembers = false;
    }
    cluster
}

fn late(cluster: &Cluster) -> u64 {
    let links = cluster.node(0).links();
    links.map(|link| link.statistics.inputs_late).sum()
}
