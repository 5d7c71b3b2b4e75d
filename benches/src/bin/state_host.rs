//! What a state-sync host costs: CPU time per tick of publishing and of writing to all clients.
//!
//! `cargo run --release -p phalanx-benches --bin state_host [SNAPSHOTS]`, by default 12 snapshots per
//! case after as many to warm up. Ticks come 60 times per second and snapshots every third; acks
//! arrive 6 ticks after what they ack, and nothing is lost; in rows marked `*` after 5 to 12 ticks,
//! by client, and one datagram in 20 is lost. There is no game, no node and no link in it. The
//! figures are one core's time per tick: the mean of publishing and of writing, and the worst tick
//! with both (the second worst of all, as a guard against chance). A tick lasts 16 667 µs.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::collections::VecDeque;
use std::time::Instant;

use phalanx::netcode::id::{MemberId, NetId, Slot, Term};
use phalanx::netcode::prng::Prng;
use phalanx::netcode::state::{
    ExactType, FieldSchema, KindRows, KindSchema, KindShape, Schema, Snapshot, Visibility, WireForm,
};
use phalanx::netcode::statesync::{Interest, Publisher, PublisherConfig, Subscription, Viewer};
use phalanx::netcode::tick::{Seq, Tick, TickRate};

/// Ticks between two snapshots.
const SNAPSHOT_TICKS: u32 = 3;
/// Ticks until an ack is there.
const ACK_TICKS: u32 = 6;
/// Bytes that a datagram has for state.
const ROOM: usize = 1100;
/// Half the width of the world.
const REACH: f32 = 500.0;

/// CPU time of this thread in microseconds, so that others on the machine do not count; where the
/// system does not tell, the time that passes.
fn cpu_us(started: Instant) -> f64 {
    // The account of a thread is brought up to date when it gives way.
    std::thread::yield_now();
    let told = std::fs::read_to_string("/proc/thread-self/schedstat");
    let ns = told.ok().and_then(|text| {
        let first = text.split_whitespace().next()?;
        first.parse::<f64>().ok()
    });
    ns.map_or_else(|| started.elapsed().as_secs_f64() * 1e6, |ns| ns / 1e3)
}

/// Entities with a place, a speed and health, of which some change at every snapshot.
struct Scene {
    schema: Schema,
    ids: Vec<NetId>,
    places: Vec<[f32; 3]>,
    speeds: Vec<[f32; 3]>,
    health: Vec<u16>,
    owners: usize,
    changing: usize,
    prng: Prng,
    snapshot: Snapshot,
}

fn kind(name: &str, field: FieldSchema) -> KindSchema {
    KindSchema {
        name: name.to_owned(),
        version: 1,
        shape: KindShape::Component,
        visibility: Visibility::Client,
        fields: vec![field],
    }
}

impl Scene {
    fn new(entities: usize, owners: usize, changing: usize) -> Self {
        let fixed = |max: i32, per_unit| WireForm::Fixed {
            min: -max,
            max,
            per_unit,
        };
        let vector = || FieldSchema::new("0", ExactType::Vec3);
        let schema = Schema::new(vec![
            kind("phalanx.owner", FieldSchema::new("0", ExactType::U8)),
            kind("place", vector().wire(fixed(512, 64)).position()),
            kind("speed", vector().wire(fixed(32, 32))),
            kind(
                "vigour",
                FieldSchema::new("0", ExactType::U16).wire(WireForm::Range { min: 0, max: 100 }),
            ),
        ])
        .expect("the schema is sound");
        let mut prng = Prng::new(7);
        let mut vector = |reach: f32| {
            [
                prng.range_f32(-reach, reach),
                prng.range_f32(-reach, reach),
                0.0,
            ]
        };
        Self {
            schema,
            ids: (1..)
                .take(entities)
                .map(|n| NetId::new(Term(1), n))
                .collect(),
            places: (0..entities).map(|_| vector(REACH)).collect(),
            speeds: (0..entities).map(|_| vector(0.2)).collect(),
            health: vec![100; entities],
            owners,
            changing,
            prng: Prng::new(8),
            snapshot: Snapshot {
                tick: Tick::ZERO,
                kinds: vec![KindRows::default(); 4],
            },
        }
    }

    /// Moves what changes: always the same ones, spread over all, as units that walk do.
    fn advance(&mut self, tick: Tick) {
        let step = self
            .ids
            .len()
            .checked_div(self.changing)
            .unwrap_or(usize::MAX);
        for at in (0..self.ids.len()).step_by(step.max(1)) {
            if self.changing == 0 {
                break;
            }
            for axis in 0..2 {
                if self.prng.below(16) == 0 {
                    self.speeds[at][axis] = self.prng.range_f32(-0.2, 0.2);
                }
                let next = self.places[at][axis] + self.speeds[at][axis];
                self.places[at][axis] = next.clamp(-REACH, REACH);
            }
            if self.prng.below(64) == 0 {
                self.health[at] = (self.health[at] + 99) % 101;
            }
        }
        let [owner, place, speed, health] = &mut self.snapshot.kinds[..] else {
            return;
        };
        for rows in [&mut *owner, &mut *place, &mut *speed, &mut *health] {
            rows.clear();
        }
        for (at, &id) in self.ids.iter().enumerate() {
            if at < self.owners {
                owner.push(id, |out| out.push(u8::try_from(at % 64).unwrap_or(0)));
            }
            let put = |rows: &mut KindRows, parts: [f32; 3]| {
                rows.push(id, |out| {
                    parts
                        .iter()
                        .for_each(|part| out.extend_from_slice(&part.to_le_bytes()));
                });
            };
            put(place, self.places[at]);
            put(speed, self.speeds[at]);
            health.push(id, |out| {
                out.extend_from_slice(&self.health[at].to_le_bytes());
            });
        }
        self.snapshot.tick = tick;
    }
}

#[derive(Default)]
struct Cost {
    publish_us: f64,
    write_us: f64,
    worst_us: f64,
    bytes: u64,
    made: u64,
    shared: u64,
    parts: u64,
    parts_shared: u64,
}

/// How clients differ.
#[derive(Clone, Copy, PartialEq)]
enum Paths {
    /// Not at all.
    Even,
    /// In round trips and in what they lose.
    Uneven,
}

fn measure(
    scene: &mut Scene,
    clients: usize,
    budget: u32,
    radius: Option<f32>,
    paths: Paths,
    snapshots: u32,
) -> Cost {
    let mut publisher = Publisher::new(
        &scene.schema,
        PublisherConfig {
            snapshot_ticks: SNAPSHOT_TICKS,
            rate: TickRate::DEFAULT,
            budget_bytes_per_second: budget,
        },
    );
    publisher.set_interest(radius.map(Interest::within));
    let mut subscriptions: Vec<Subscription> = (0..clients)
        .map(|at| {
            Subscription::new(Viewer {
                member: MemberId(at as u64),
                slot: (scene.owners > 0).then(|| Slot(u8::try_from(at % 64).unwrap_or(0))),
                ..Viewer::default()
            })
        })
        .collect();
    // All hold the first snapshot.
    scene.advance(Tick::ZERO);
    publisher.publish(&scene.snapshot);
    for subscription in &mut subscriptions {
        let keyframe = subscription.keyframe(&mut publisher);
        assert!(keyframe.is_some(), "there is a snapshot");
        subscription.keyframe_held(&publisher);
    }
    let mut cost = Cost::default();
    let mut under_way: Vec<VecDeque<(u32, Seq, bool)>> = vec![VecDeque::new(); clients];
    let mut prng = Prng::new(9);
    let mut body = Vec::new();
    let mut before = *publisher.statistics();
    let warm_up = snapshots * SNAPSHOT_TICKS;
    let mut ticks_us = Vec::new();
    let started = Instant::now();
    for tick in 1..=2 * warm_up {
        let counts = tick > warm_up;
        if tick == warm_up + 1 {
            before = *publisher.statistics();
        }
        let mut publish_us = 0.0;
        if tick.is_multiple_of(SNAPSHOT_TICKS) {
            scene.advance(Tick::new(tick));
            let from = cpu_us(started);
            publisher.publish(&scene.snapshot);
            publish_us = cpu_us(started) - from;
        }
        let from = cpu_us(started);
        for (subscription, under_way) in subscriptions.iter_mut().zip(&mut under_way) {
            let mut is_due = subscription.begin_tick(&mut publisher);
            while is_due {
                body.clear();
                let seq = Seq::new(tick);
                subscription.write(&mut publisher, seq, ROOM, &mut body);
                let is_lost = paths == Paths::Uneven && prng.below(20) == 0;
                under_way.push_back((tick, seq, is_lost));
                if counts {
                    cost.bytes += body.len() as u64;
                }
                is_due = subscription.has_more();
            }
        }
        for (at, (subscription, under_way)) in
            (0_u32..).zip(subscriptions.iter_mut().zip(&mut under_way))
        {
            let ack_ticks = match paths {
                Paths::Even => ACK_TICKS,
                Paths::Uneven => 5 + at % 8,
            };
            while let Some((_, seq, is_lost)) =
                under_way.pop_front_if(|(sent, ..)| *sent + ack_ticks <= tick)
            {
                if is_lost {
                    subscription.on_lost(seq);
                } else {
                    subscription.on_ack(seq);
                }
            }
        }
        if counts {
            let write_us = cpu_us(started) - from;
            cost.publish_us += publish_us;
            cost.write_us += write_us;
            ticks_us.push(publish_us + write_us);
        }
    }
    ticks_us.sort_by(f64::total_cmp);
    cost.worst_us = ticks_us.iter().rev().nth(1).copied().unwrap_or(0.0);
    let ticks = f64::from(warm_up);
    cost.publish_us /= ticks;
    cost.write_us /= ticks;
    let after = publisher.statistics();
    cost.made = after.bodies_made - before.bodies_made;
    cost.shared = after.bodies_shared - before.bodies_shared;
    cost.parts = after.parts_made - before.parts_made;
    cost.parts_shared = after.parts_shared - before.parts_shared;
    cost
}

fn main() {
    let snapshots = std::env::args()
        .nth(1)
        .and_then(|text| text.parse().ok())
        .unwrap_or(12);
    println!(
        "{:>8} {:>8} {:>9} {:>10} {:>10} {:>10} {:>12} {:>8} {:>6} {:>6} {:>6} {:>6}",
        "entities",
        "changing",
        "clients",
        "publish µs",
        "write µs",
        "worst µs",
        "ns/client",
        "kbit/s",
        "made",
        "shared",
        "parts",
        "shared"
    );
    let row = |name: &str, changing: usize, clients: usize, paths: Paths, cost: &Cost| {
        let mark = if paths == Paths::Uneven { "*" } else { " " };
        let seconds = f64::from(snapshots * SNAPSHOT_TICKS) / 60.0;
        #[expect(clippy::cast_precision_loss, reason = "a figure to read")]
        let (count, bytes) = (clients as f64, cost.bytes as f64);
        println!(
            "{name:>8} {changing:>8} {clients:>8}{mark} {:>10.1} {:>10.1} {:>10.1} {:>12.0} {:>8.1} {:>6} {:>6} {:>6} {:>6}",
            cost.publish_us,
            cost.write_us,
            cost.worst_us,
            cost.write_us * 1000.0 / count,
            bytes * 8.0 / 1000.0 / seconds / count,
            cost.made,
            cost.shared,
            cost.parts,
            cost.parts_shared,
        );
    };
    println!("32 000 B/s per client, everyone sees everything; µs per tick of 60 Hz");
    for entities in [1000, 10_000] {
        for changing in [0, entities / 100, entities / 10, entities] {
            for (clients, paths) in [
                (1, Paths::Even),
                (16, Paths::Even),
                (64, Paths::Even),
                (256, Paths::Even),
                (64, Paths::Uneven),
            ] {
                let mut scene = Scene::new(entities, 0, changing);
                let cost = measure(&mut scene, clients, 32_000, None, paths, snapshots);
                row(&entities.to_string(), changing, clients, paths, &cost);
            }
        }
    }
    println!("300 moving players, 100 000 B/s each: everyone sees everyone, then within a radius");
    for paths in [Paths::Even, Paths::Uneven] {
        for radius in [None, Some(300.0), Some(150.0), Some(75.0)] {
            let mut scene = Scene::new(300, 300, 300);
            let cost = measure(&mut scene, 300, 100_000, radius, paths, snapshots);
            let name = radius.map_or_else(|| "all".to_owned(), |radius| format!("{radius}"));
            row(&name, 300, 300, paths, &cost);
        }
    }
}
