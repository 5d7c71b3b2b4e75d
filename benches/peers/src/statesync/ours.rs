//! Phalanx: the publisher, a subscription per client, and the receivers.
//!
//! The host's part that is timed: rows into a canonical snapshot, quantizing it, and the state bodies
//! of all clients' datagrams. What a datagram carries besides is added to the bytes: [`FRAME_BYTES`].
//! Sockets, encryption and inputs are not in the time; they are measured by the benchmark of the UDP
//! host. A game runs at 60 ticks per second and publishes every third at a rate of 20: then a snapshot
//! has three datagrams to spread over, one per tick, as a node does it.

use std::error::Error;
use std::time::{Duration, Instant};

use phalanx_netcode::id::{MemberId, NetId, Term};
use phalanx_netcode::state::{
    ExactType, FieldSchema, KindRows, KindSchema, KindShape, Schema, Snapshot, Visibility, WireForm,
};
use phalanx_netcode::statesync::{Publisher, PublisherConfig, Receiver, Subscription, Viewer};
use phalanx_netcode::tick::{Seq, Tick, TickRate};

use crate::scene::{Count, Figures, Form, Load, Scene};

/// Around a state body: header with tick and acks (4 bytes), sequence and tag of the encrypted link
/// (18 bytes), as `BENCHMARKS.md` measures them in lockstep mode.
const FRAME_BYTES: u64 = 22;

/// Room for the state body in a datagram.
const ROOM: usize = 1100;

/// Ticks per second of a game.
const TICK_RATE: u32 = 60;

/// Above what any of the scenes takes: the others' senders are not held back either.
const BYTES_PER_SECOND: u32 = 4_000_000;

const KINDS: [&str; 5] = ["position", "rotation", "velocity", "health", "state"];

/// Snapshots after which a node says to a member that only watches that nothing has changed.
const CALM_SNAPSHOTS: u32 = 4;

/// Snapshots until every client must hold every entity.
const JOIN_SNAPSHOTS_MAX: usize = 2000;

pub fn run(load: Load) -> Result<Figures, Box<dyn Error>> {
    let mut scene = Scene::new(&load);
    let mut session = Session::new(&load)?;
    let mut joined = 0;
    while !session.converged() {
        session.step(&scene)?;
        joined += 1;
        if joined == JOIN_SNAPSHOTS_MAX {
            return Err("clients did not get the scene".into());
        }
    }
    for _ in 0..20 {
        advance(&mut scene, &load);
        session.step(&scene)?;
    }
    session.down = Count::default();
    let mut times = Vec::with_capacity(load.ticks);
    let mut held_fresh = 0.0;
    for _ in 0..load.ticks {
        advance(&mut scene, &load);
        times.push(session.step(&scene)?);
        held_fresh += session.fresh();
    }
    let counts = (session.down, Count::default());
    let mut settled = 0;
    while settled < JOIN_SNAPSHOTS_MAX && !session.converged() {
        session.step(&scene)?;
        settled += 1;
    }
    let converged = session.converged();
    Ok(Figures::new(&load, counts, times, held_fresh, converged))
}

fn advance(scene: &mut Scene, load: &Load) {
    for number in 0..load.entities {
        if load.changes(number) {
            scene.advance(number);
        }
    }
}

struct Session {
    publisher: Publisher,
    clients: Vec<Client>,
    places: [usize; 5],
    snapshot: Snapshot,
    snapshot_ticks: u32,
    tick: u32,
    down: Count,
}

struct Client {
    subscription: Subscription,
    receiver: Receiver,
    seq: u32,
    /// Whether a datagram went out at this tick, and when the newest one did.
    is_due: bool,
    sent_at: u32,
}

impl Session {
    fn new(load: &Load) -> Result<Self, Box<dyn Error>> {
        let schema = schema(load.form)?;
        let snapshot_ticks = TICK_RATE / load.rate;
        let config = PublisherConfig {
            snapshot_ticks,
            rate: TickRate::DEFAULT,
            budget_bytes_per_second: BYTES_PER_SECOND,
        };
        let mut places = [0; 5];
        for (place, name) in places.iter_mut().zip(KINDS) {
            *place = schema.kind_index(name).ok_or("a kind is missing")?;
        }
        let clients = (0..load.clients)
            .map(|number| {
                let member = MemberId(u16::try_from(number + 1).unwrap_or(u16::MAX));
                Client {
                    subscription: Subscription::new(Viewer {
                        member,
                        ..Viewer::default()
                    }),
                    receiver: Receiver::new(&schema, snapshot_ticks),
                    seq: 0,
                    is_due: false,
                    sent_at: 0,
                }
            })
            .collect();
        Ok(Self {
            publisher: Publisher::new(&schema, config),
            clients,
            places,
            snapshot: Snapshot {
                tick: Tick::new(0),
                kinds: vec![KindRows::default(); schema.kinds().len()],
            },
            snapshot_ticks,
            tick: 0,
            down: Count::default(),
        })
    }

    /// A snapshot and the ticks until the next one; gives back what the host took.
    fn step(&mut self, scene: &Scene) -> Result<Duration, Box<dyn Error>> {
        let started = Instant::now();
        self.snapshot.tick = Tick::new(self.tick);
        export(&mut self.snapshot, self.places, scene);
        self.publisher.publish(&self.snapshot);
        let mut took = started.elapsed();
        let mut bodies = vec![Vec::new(); self.clients.len()];
        for _ in 0..self.snapshot_ticks {
            let started = Instant::now();
            for (client, body) in self.clients.iter_mut().zip(&mut bodies) {
                body.clear();
                client.is_due = client.subscription.begin_tick(&mut self.publisher)
                    || self.tick >= client.sent_at + CALM_SNAPSHOTS * self.snapshot_ticks;
                if !client.is_due {
                    continue;
                }
                client.sent_at = self.tick;
                let seq = Seq::new(client.seq);
                client
                    .subscription
                    .write(&mut self.publisher, seq, ROOM, body);
            }
            took += started.elapsed();
            for (client, body) in self.clients.iter_mut().zip(&bodies) {
                if !client.is_due {
                    continue;
                }
                self.down.bytes += body.len() as u64 + FRAME_BYTES;
                self.down.datagrams += 1;
                if !body.is_empty() {
                    client
                        .receiver
                        .read(Tick::new(self.tick), body)
                        .map_err(|error| format!("a body was refused: {error:?}"))?;
                }
            }
            // All arrives within the tick, as on the others' loopback.
            let started = Instant::now();
            for client in &mut self.clients {
                client.subscription.on_ack(Seq::new(client.seq));
                client.seq += 1;
                if client.subscription.needs_keyframe()
                    && let Some(keyframe) = client.subscription.keyframe(&mut self.publisher)
                {
                    self.down.bytes += keyframe.bytes.len() as u64;
                    client
                        .receiver
                        .install_keyframe(&keyframe.bytes)
                        .map_err(|error| format!("a keyframe was refused: {error:?}"))?;
                    client.subscription.keyframe_held(&self.publisher);
                }
            }
            took += started.elapsed();
            self.tick += 1;
        }
        Ok(took)
    }

    /// Share of the entities of which the first client holds what the newest snapshot says.
    fn fresh(&self) -> f64 {
        let held = self.clients.first().and_then(|client| {
            let tick = self.publisher.newest()?;
            let newest = self.publisher.at(tick)?;
            let held = client.receiver.at(client.receiver.newest()?)?;
            let fresh = newest.entities().filter(|entity| {
                held.find(entity.id)
                    .is_some_and(|own| own.lanes == entity.lanes)
            });
            Some(fresh.count() as f64 / newest.entities().len() as f64)
        });
        held.unwrap_or(0.0)
    }

    /// Whether every client holds the newest snapshot.
    fn converged(&mut self) -> bool {
        let publisher = &mut self.publisher;
        self.clients.iter_mut().all(|client| {
            let Some((tick, hash)) = client.subscription.interest_hash(publisher) else {
                return false;
            };
            client.receiver.newest_complete() == Some(tick)
                && client.receiver.hash_at(tick) == Some(hash)
        })
    }
}

fn export(snapshot: &mut Snapshot, places: [usize; 5], scene: &Scene) {
    for rows in &mut snapshot.kinds {
        rows.clear();
    }
    for (row, counter) in scene.rows.iter().zip(1..) {
        let id = NetId::new(Term(0), counter);
        let [position, rotation, velocity, health, state] = places;
        let floats = |out: &mut Vec<u8>, values: &[f32]| {
            for value in values {
                out.extend_from_slice(&value.to_le_bytes());
            }
        };
        let kinds = &mut snapshot.kinds;
        kinds[position].push(id, |out| floats(out, &row.position));
        kinds[rotation].push(id, |out| floats(out, &row.rotation));
        kinds[velocity].push(id, |out| floats(out, &row.velocity));
        kinds[health].push(id, |out| out.extend_from_slice(&row.health.to_le_bytes()));
        kinds[state].push(id, |out| out.push(row.state));
    }
}

/// Plain: every bit of every float. Packed: what a game declares.
fn schema(form: Form) -> Result<Schema, Box<dyn Error>> {
    let declared = |field: FieldSchema, wire: WireForm| match form {
        Form::Plain => field,
        Form::Packed => field.wire(wire),
    };
    let field = |exact| FieldSchema::new("0", exact);
    let meters = WireForm::Fixed {
        min: -256,
        max: 256,
        per_unit: 512,
    };
    let speed = WireForm::Fixed {
        min: -32,
        max: 32,
        per_unit: 100,
    };
    let fields = [
        declared(field(ExactType::Vec3), meters).position(),
        declared(field(ExactType::Quat), WireForm::Rotation { bits: 10 }),
        declared(field(ExactType::Vec3), speed),
        declared(field(ExactType::U16), WireForm::Range { min: 0, max: 1000 }),
        field(ExactType::U8),
    ];
    let kinds = KINDS.iter().zip(fields).map(|(name, field)| KindSchema {
        name: (*name).to_owned(),
        version: 1,
        shape: KindShape::Component,
        visibility: Visibility::Client,
        fields: vec![field],
    });
    Ok(Schema::new(kinds.collect())?)
}
