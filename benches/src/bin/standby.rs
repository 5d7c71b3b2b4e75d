//! What a standby costs the host of a state-sync session: bytes, and time per tick.
//!
//! `cargo run --release -p phalanx-benches --bin standby [-- PAIRS]`, by default 40 pairs.
//!
//! Two sessions of the demo game run side by side in virtual time, with 4 bots and 1000 units, all in
//! view: one without a standby, one with. A pair is 60 ticks of the one, then 60 of the other; of each
//! only the host's driver is timed, all of it: node, game, link in memory. What a whole state costs
//! that a standby begins with is not in it. The figure is the median of the pairs' ratios, with the
//! quarters, so that what else runs on the machine falls on both alike.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::error::Error;
use std::time::Instant;

use phalanx_demo::arena;
use phalanx_demo::play::{Hands, Pilot};
use phalanx_netcode::driver::Driver;
use phalanx_netcode::id::MemberId;
use phalanx_netcode::link::memory::{MemoryHub, MemoryLink};
use phalanx_netcode::node::Node;
use phalanx_netcode::session::config::{
    HostConfig, JoinConfig, MigrationConfig, Mode, Start, StateSyncConfig,
};
use phalanx_netcode::time::Time;

const UNITS: u32 = 1000;
const PLAYERS: u8 = 4;
const TICK_US: u64 = 16_667;
const PAIR_TICKS: u32 = 60;
const WARM_UP_TICKS: u32 = 240;
/// IP and UDP headers, and the byte that says what a datagram is.
const DATAGRAM_BYTES: f64 = 29.0;

struct Party {
    driver: Driver<Pilot>,
    link: MemoryLink,
}

/// A session, its host first.
struct Table {
    parties: Vec<Party>,
    now: Time,
}

impl Table {
    fn new() -> Result<Self, Box<dyn Error>> {
        let game = arena::game(UNITS)?;
        let info = game.info_for(&arena::build_name(UNITS), Mode::StateSync);
        let hub = MemoryHub::new();
        let now = Time::from_millis(1000);
        let pilot = |seed| Pilot::new(game.clone(), Hands::Bot(seed)).taking_states();
        let host = HostConfig {
            plays: true,
            start: Start::Players(PLAYERS),
            migration: MigrationConfig::COMMANDED,
            state_sync: StateSyncConfig {
                budget_bytes_per_second: 1_000_000,
                ..StateSyncConfig::default()
            },
            secret: 1,
            seed: 1,
            ..HostConfig::new(info.clone(), PLAYERS)
        };
        let link = hub.link();
        let address = link.address();
        let mut parties = vec![Party {
            driver: Driver::new(Node::host(host, now)?, info.clone(), pilot(1)),
            link,
        }];
        for number in 1..PLAYERS {
            let config = JoinConfig {
                prediction_ticks: 12,
                secret: u128::from(number) + 1,
                ..JoinConfig::new(info.clone(), &format!("bot {number}"))
            };
            let mut link = hub.link();
            let path = link.connect(address);
            parties.push(Party {
                driver: Driver::new(
                    Node::join(config, path, now)?,
                    info.clone(),
                    pilot(u64::from(number) + 1),
                ),
                link,
            });
        }
        Ok(Self { parties, now })
    }

    /// Runs so many ticks; says how long the host's took, in microseconds.
    fn run(&mut self, ticks: u32) -> f64 {
        let mut spent = 0.0;
        for _ in 0..ticks {
            self.now = self.now.plus_micros(TICK_US);
            for (index, party) in self.parties.iter_mut().enumerate() {
                let started = Instant::now();
                party.driver.pump(self.now, &mut party.link);
                if index == 0 {
                    spent += started.elapsed().as_secs_f64() * 1e6;
                }
                while party.driver.poll_event().is_some() {}
            }
        }
        spent
    }

    fn host(&self) -> &Node {
        self.parties[0].driver.node()
    }
}

/// The lower quarter, the median and the upper quarter.
fn quarters(values: &mut [f64]) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    let at = |share: usize| values[(values.len() - 1) * share / 4];
    [at(1), at(2), at(3)]
}

fn main() -> Result<(), Box<dyn Error>> {
    let pairs: usize = match std::env::args().nth(1) {
        Some(text) => text.parse()?,
        None => 40,
    };
    let (mut without, mut with) = (Table::new()?, Table::new()?);
    for table in [&mut without, &mut with] {
        table.run(WARM_UP_TICKS);
    }
    let host = with.parties[0].driver.node_mut();
    host.stream_to(&[MemberId(1)]);
    for table in [&mut without, &mut with] {
        table.run(WARM_UP_TICKS);
    }
    let standby = |table: &Table| table.host().standby_statistics().unwrap_or_default();
    let state = |table: &Table| table.host().state_sync().unwrap_or_default().state_bytes;
    let held = |table: &Table| {
        let counted = table.parties[1].driver.node().standby_statistics();
        counted.unwrap_or_default().held
    };
    if held(&with).is_none() {
        return Err("the standby holds nothing".into());
    }
    let (stream_before, state_before) = (standby(&with), state(&with));
    let tick_before = with.host().tick();
    let (mut ratios, mut alone_us, mut both_us) = (Vec::new(), Vec::new(), Vec::new());
    for pair in 0..pairs {
        // Neither always goes first.
        let (alone, both) = if pair % 2 == 0 {
            let alone = without.run(PAIR_TICKS);
            (alone, with.run(PAIR_TICKS))
        } else {
            let both = with.run(PAIR_TICKS);
            (without.run(PAIR_TICKS), both)
        };
        ratios.push(both / alone);
        alone_us.push(alone / f64::from(PAIR_TICKS));
        both_us.push(both / f64::from(PAIR_TICKS));
    }
    let stream = standby(&with);
    let ticks = f64::from(with.host().tick().since(tick_before));
    let clients = f64::from(PLAYERS - 1);
    let per_tick = |bytes: u64| bytes as f64 / ticks;
    let datagrams = (stream.ticks - stream_before.ticks) as f64 / ticks;
    let of_standby = per_tick(stream.bytes - stream_before.bytes) + datagrams * DATAGRAM_BYTES;
    // A snapshot every third tick, in as many datagrams as it takes.
    let of_client = per_tick(state(&with) - state_before) / clients;
    let [low, median, high] = quarters(&mut ratios);
    let (alone, both) = (quarters(&mut alone_us)[1], quarters(&mut both_us)[1]);
    println!("{UNITS} units, {PLAYERS} players, all in view; {pairs} pairs of {PAIR_TICKS} ticks");
    println!(
        "a standby: {of_standby:.0} B per tick with headers, {:?}",
        held(&with).map(|it| it.0)
    );
    println!("a client with all in view: {of_client:.0} B per tick of state alone");
    println!("ratio: {:.2}", of_standby / of_client);
    println!("host per tick: {alone:.0} µs without a standby, {both:.0} µs with one (medians)");
    println!("ratio: {median:.3} (quarters {low:.3} and {high:.3})");
    Ok(())
}
