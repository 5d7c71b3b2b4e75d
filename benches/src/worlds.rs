//! Small worlds with what games have in them besides boxes: units that steer, vehicles, characters,
//! shots, health, ammunition, states. From a seed, the same on every machine.

use std::sync::Arc;

use phalanx_netcode::id::NetId;
use phalanx_netcode::prng::Prng;
use phalanx_netcode::state::{
    ExactType, FieldSchema, KindSchema, KindShape, QuantizedSnapshot, Schema, Shapes, Visibility,
    WireForm, WireLayout,
};
use phalanx_netcode::tick::Tick;

/// Snapshots of a world that follow each other.
#[derive(Debug)]
pub struct World {
    /// What it is.
    pub name: &'static str,
    /// Its layout.
    pub layout: Arc<WireLayout>,
    /// The shapes of its entities.
    pub shapes: Shapes,
    /// The snapshots, twenty per second.
    pub snapshots: Vec<QuantizedSnapshot>,
}

/// Seconds between snapshots.
const STEP: f32 = 0.05;
/// Half of the field's edge, in metres.
const FIELD: f32 = 60.0;

/// A body in the plane, or a little above it.
#[derive(Clone, Debug)]
struct Mover {
    id: u64,
    place: [f32; 3],
    velocity: [f32; 3],
    heading: f32,
    goal: [f32; 2],
    /// Ticks to stand still.
    rest: u32,
    health: i32,
    ammo: i32,
    state: i32,
    timer: i32,
}

impl Mover {
    fn new(prng: &mut Prng, id: u64) -> Self {
        let mut coordinate = || prng.range_f32(-FIELD, FIELD);
        Self {
            id,
            place: [coordinate(), coordinate(), 0.0],
            velocity: [0.0; 3],
            heading: 0.0,
            goal: [coordinate(), coordinate()],
            rest: 0,
            health: 100,
            ammo: 30,
            state: 0,
            timer: 0,
        }
    }

    /// Makes for its goal with a greatest speed and acceleration; stops there for a while.
    fn steer(&mut self, prng: &mut Prng, speed: f32, acceleration: f32) {
        let to = [self.goal[0] - self.place[0], self.goal[1] - self.place[1]];
        let distance = (to[0] * to[0] + to[1] * to[1]).sqrt();
        if self.rest > 0 {
            self.rest -= 1;
        } else if distance < 1.0 {
            self.goal = [0, 1].map(|_| prng.range_f32(-FIELD, FIELD));
            self.rest = u32::try_from(prng.below(60)).unwrap_or(0);
        }
        let wanted = if self.rest > 0 {
            0.0
        } else {
            speed.min(distance)
        };
        for (axis, to) in to.into_iter().enumerate() {
            let target = to / distance.max(0.1) * wanted;
            let change = (target - self.velocity[axis]).clamp(-acceleration, acceleration);
            let is_still = wanted == 0.0 && self.velocity[axis].abs() < 0.05;
            self.velocity[axis] = if is_still {
                0.0
            } else {
                self.velocity[axis] + change * STEP * 4.0
            };
            self.place[axis] += self.velocity[axis] * STEP;
        }
        if self.velocity[0] != 0.0 || self.velocity[1] != 0.0 {
            // A bearing in half turns, near enough: it only has to turn smoothly.
            let sum = self.velocity[0].abs() + self.velocity[1].abs();
            let side = self.velocity[1] / sum;
            self.heading = if self.velocity[0] < 0.0 {
                2.0 - side
            } else {
                side
            };
        }
    }

    /// Fights at times.
    fn fight(&mut self, prng: &mut Prng) {
        if self.state == 3 {
            self.timer -= 1;
            if self.timer <= 0 {
                self.ammo -= 1;
                self.timer = 4;
            }
            if self.ammo <= 0 {
                self.state = 4;
                self.timer = 30;
            }
        } else if self.state == 4 {
            self.timer -= 1;
            if self.timer <= 0 {
                self.ammo = 30;
                self.state = 1;
            }
        } else {
            self.state = i32::from(self.rest == 0);
            if prng.below(150) == 0 {
                self.state = 3;
                self.timer = 0;
            }
        }
        if prng.below(80) == 0 {
            self.health -= i32::try_from(prng.below(15)).unwrap_or(0);
            if self.health <= 0 {
                self.health = 100;
            }
        } else if self.health < 100 && prng.below(4) == 0 {
            self.health += 1;
        }
    }
}

/// All worlds, from a seed.
#[must_use]
pub fn all(seed: u64) -> Vec<World> {
    vec![units(seed), characters(seed + 1), vehicles(seed + 2)]
}

fn kind(name: &str, fields: Vec<FieldSchema>) -> KindSchema {
    KindSchema {
        name: name.to_owned(),
        version: 1,
        shape: KindShape::Component,
        visibility: Visibility::Client,
        fields,
    }
}

fn metres(per_unit: u32) -> WireForm {
    WireForm::Fixed {
        min: -128,
        max: 128,
        per_unit,
    }
}

fn states(count: u8) -> ExactType {
    let names = ["Idle", "Moving", "Falling", "Fighting", "Loading", "Dead"];
    let states = (0..count).zip(names);
    ExactType::Enum(
        states
            .map(|(tag, name)| (tag, name.to_owned(), vec![]))
            .collect(),
    )
}

/// Collects snapshots.
struct Recorder {
    world: World,
    tick: u32,
}

impl Recorder {
    fn new(name: &'static str, kinds: Vec<KindSchema>) -> Self {
        let schema = Schema::new(kinds).expect("a schema of a few kinds");
        Self {
            world: World {
                name,
                layout: Arc::new(WireLayout::new(&schema)),
                shapes: Shapes::default(),
                snapshots: Vec::new(),
            },
            tick: 0,
        }
    }

    /// The next snapshot: ids ascending, kinds, exact rows one after the other.
    fn record(&mut self, rows: impl Iterator<Item = (u64, Vec<(u16, Vec<u8>)>)>) {
        self.tick += 3;
        let world = &mut self.world;
        let mut snapshot = QuantizedSnapshot::new(Tick::new(self.tick));
        let mut clamped = 0;
        for (id, rows) in rows {
            let kinds: Vec<u16> = rows.iter().map(|(kind, _)| *kind).collect();
            let shape = world
                .shapes
                .intern(&world.layout, &kinds)
                .expect("few shapes");
            let tick = Tick::new(self.tick);
            snapshot.push(NetId::from_bits(id), shape, tick, |lanes, opaque| {
                for (kind, row) in &rows {
                    let layout = world.layout.kind(*kind).expect("a kind of the layout");
                    layout
                        .quantize(row, lanes, opaque, &mut clamped)
                        .expect("the row is one of its kind");
                }
            });
        }
        world.snapshots.push(snapshot);
    }
}

fn floats(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

/// The low byte of a small number.
fn byte(value: i32) -> u8 {
    value.to_le_bytes()[0]
}

/// Two hundred units that steer in the plane, as in the demo game; a few shots between them.
fn units(seed: u64) -> World {
    let position = FieldSchema::new("position", ExactType::Vec2).wire(metres(64));
    let velocity = FieldSchema::new("velocity", ExactType::Vec2).wire(WireForm::Fixed {
        min: -16,
        max: 16,
        per_unit: 64,
    });
    let kinds = vec![
        kind("a.body", vec![position.position(), velocity]),
        kind(
            "b.unit",
            vec![
                FieldSchema::new("health", ExactType::I16)
                    .wire(WireForm::Range { min: 0, max: 100 }),
                FieldSchema::new("state", states(6)),
                FieldSchema::new("target", ExactType::NetId),
            ],
        ),
        kind("c.shot", vec![FieldSchema::new("left", ExactType::U8)]),
    ];
    let mut recorder = Recorder::new("units", kinds);
    let mut prng = Prng::new(seed);
    let mut units: Vec<Mover> = (1..=200).map(|id| Mover::new(&mut prng, id)).collect();
    let mut shots: Vec<Mover> = Vec::new();
    let mut next = 201;
    for _ in 0..900 {
        for unit in &mut units {
            unit.steer(&mut prng, 4.0, 3.0);
            unit.fight(&mut prng);
        }
        if prng.below(3) == 0 {
            let from = usize::try_from(prng.below(200)).unwrap_or(0);
            let mut shot = units[from].clone();
            shot.id = next;
            next += 1;
            shot.velocity = [
                prng.range_f32(-12.0, 12.0),
                prng.range_f32(-12.0, 12.0),
                0.0,
            ];
            shot.timer = 30;
            shots.push(shot);
        }
        for shot in &mut shots {
            shot.timer -= 1;
            for axis in 0..2 {
                shot.place[axis] += shot.velocity[axis] * STEP;
            }
        }
        shots.retain(|shot| shot.timer > 0 && prng.below(60) > 0);
        let unit_rows = units.iter().map(|unit| {
            let mut row = Vec::new();
            row.extend(i16::try_from(unit.health).unwrap_or(0).to_le_bytes());
            row.push(byte(unit.state));
            let target = if unit.state == 3 {
                unit.id % 200 + 1
            } else {
                0
            };
            row.extend(target.to_le_bytes());
            (unit.id, vec![(0, body(unit)), (1, row)])
        });
        let shot_rows = shots
            .iter()
            .map(|shot| (shot.id, vec![(0, body(shot)), (2, vec![byte(shot.timer)])]));
        recorder.record(unit_rows.chain(shot_rows));
    }
    recorder.world
}

fn body(mover: &Mover) -> Vec<u8> {
    floats(&[
        mover.place[0],
        mover.place[1],
        mover.velocity[0],
        mover.velocity[1],
    ])
}

/// Forty characters that run, jump and fight.
fn characters(seed: u64) -> World {
    let kinds = vec![kind(
        "character",
        vec![
            FieldSchema::new("position", ExactType::Vec3)
                .wire(metres(256))
                .position(),
            FieldSchema::new("velocity", ExactType::Vec3).wire(WireForm::Fixed {
                min: -20,
                max: 20,
                per_unit: 64,
            }),
            FieldSchema::new("yaw", ExactType::F32).wire(WireForm::Fixed {
                min: -4,
                max: 4,
                per_unit: 256,
            }),
            FieldSchema::new("health", ExactType::I16).wire(WireForm::Range { min: 0, max: 100 }),
            FieldSchema::new("ammo", ExactType::U8),
            FieldSchema::new("state", states(6)),
            FieldSchema::new("timer", ExactType::U16).wire(WireForm::Varint),
        ],
    )];
    let mut recorder = Recorder::new("characters", kinds);
    let mut prng = Prng::new(seed);
    let mut all: Vec<Mover> = (1..=40).map(|id| Mover::new(&mut prng, id * 3)).collect();
    for _ in 0..1500 {
        for one in &mut all {
            one.steer(&mut prng, 6.0, 8.0);
            one.fight(&mut prng);
            if one.place[2] <= 0.0 && prng.below(40) == 0 {
                one.velocity[2] = 5.0;
            }
            one.place[2] += one.velocity[2] * STEP;
            one.velocity[2] -= 9.8 * STEP;
            if one.place[2] <= 0.0 {
                one.place[2] = 0.0;
                one.velocity[2] = 0.0;
            }
        }
        recorder.record(all.iter().map(|one| {
            let [x, y, z] = one.place;
            let [u, v, w] = one.velocity;
            let mut row = floats(&[x, y, z, u, v, w, one.heading]);
            row.extend(i16::try_from(one.health).unwrap_or(0).to_le_bytes());
            row.push(byte(one.ammo));
            row.push(byte(one.state));
            row.extend(u16::try_from(one.timer.max(0)).unwrap_or(0).to_le_bytes());
            (one.id, vec![(0, row)])
        }));
    }
    recorder.world
}

/// Sixty vehicles on suspensions: positions, full rotations, wheels, fuel.
fn vehicles(seed: u64) -> World {
    let kinds = vec![kind(
        "vehicle",
        vec![
            FieldSchema::new("position", ExactType::Vec3)
                .wire(metres(256))
                .position(),
            FieldSchema::new("rotation", ExactType::Quat).wire(WireForm::Rotation { bits: 10 }),
            FieldSchema::new("velocity", ExactType::Vec3).wire(WireForm::Half),
            FieldSchema::new("fuel", ExactType::F32),
            FieldSchema::new("gear", ExactType::I8).wire(WireForm::Range { min: -1, max: 6 }),
        ],
    )];
    let mut recorder = Recorder::new("vehicles", kinds);
    let mut prng = Prng::new(seed);
    let mut all: Vec<Mover> = (1..=60).map(|id| Mover::new(&mut prng, id)).collect();
    let mut fuel = vec![50.0_f32; all.len()];
    for _ in 0..1000 {
        for (one, fuel) in all.iter_mut().zip(&mut fuel) {
            one.steer(&mut prng, 15.0, 4.0);
            one.place[2] = 0.5 + 0.02 * prng.unit_f32() * one.velocity[0].abs().min(4.0);
            if one.rest == 0 {
                *fuel -= 0.003;
            }
        }
        recorder.record(all.iter().zip(&fuel).map(|(one, &fuel)| {
            let [x, y, z] = one.place;
            let [u, v, w] = one.velocity;
            // About z by the bearing, and a little about x by the load.
            let half = one.heading * 0.785;
            let (sine, cosine) = turn(half);
            let lean = u * 0.004;
            let norm = (1.0 + lean * lean).sqrt();
            let rotation = [lean * cosine, lean * sine, sine, cosine].map(|part| part / norm);
            let mut row = floats(&[x, y, z]);
            row.extend(floats(&rotation));
            row.extend(floats(&[u, v, w, fuel]));
            let speed = (u * u + v * v).sqrt();
            #[expect(clippy::cast_possible_truncation, reason = "0 to 5")]
            row.push(byte((speed / 3.0) as i32));
            (one.id, vec![(0, row)])
        }));
    }
    recorder.world
}

/// Sine and cosine of an angle from -1 to 3, near enough.
fn turn(angle: f32) -> (f32, f32) {
    let half = angle * 0.25;
    let square = half * half;
    let mut sine = half * (1.0 - square / 6.0 + square * square / 120.0);
    let mut cosine = (1.0 - sine * sine).sqrt();
    for _ in 0..2 {
        (sine, cosine) = (2.0 * sine * cosine, cosine * cosine - sine * sine);
    }
    (sine, cosine)
}

/// A crowd whose every field changes in every snapshot: position, rotation, velocity, health, state.
#[must_use]
pub fn crowd(count: u64, snapshots: usize, seed: u64) -> World {
    let kinds = vec![kind(
        "fighter",
        vec![
            FieldSchema::new("position", ExactType::Vec3)
                .wire(WireForm::Fixed {
                    min: -64,
                    max: 64,
                    per_unit: 128,
                })
                .position(),
            FieldSchema::new("rotation", ExactType::Quat).wire(WireForm::Rotation { bits: 9 }),
            FieldSchema::new("velocity", ExactType::Vec3).wire(WireForm::Fixed {
                min: -16,
                max: 16,
                per_unit: 32,
            }),
            FieldSchema::new("health", ExactType::I16).wire(WireForm::Range { min: 0, max: 100 }),
            FieldSchema::new("state", states(6)),
        ],
    )];
    let mut recorder = Recorder::new("crowd", kinds);
    let mut prng = Prng::new(seed);
    let mut all: Vec<Mover> = (1..=count).map(|id| Mover::new(&mut prng, id)).collect();
    for tick in 0..snapshots {
        for one in &mut all {
            one.steer(&mut prng, 6.0, 8.0);
            one.rest = 0;
            one.heading += 0.03;
            one.place[2] = 1.0 + one.place[0].abs() * 0.02 + prng.unit_f32() * 0.2;
            one.velocity[2] = prng.range_f32(-1.0, 1.0);
            one.health = 1 + (one.health + 1) % 100;
            one.state = i32::try_from((tick as u64 + one.id) % 6).unwrap_or(0);
        }
        recorder.record(all.iter().map(|one| {
            let (sine, cosine) = turn(one.heading.clamp(-0.9, 2.9) * 0.785);
            let lean = one.velocity[0] * 0.02;
            let norm = (1.0 + lean * lean).sqrt();
            let rotation = [lean * cosine, lean * sine, sine, cosine].map(|part| part / norm);
            let mut row = floats(&one.place);
            row.extend(floats(&rotation));
            row.extend(floats(&one.velocity));
            row.extend(i16::try_from(one.health).unwrap_or(0).to_le_bytes());
            row.push(byte(one.state));
            (one.id, vec![(0, row)])
        }));
    }
    recorder.world
}

/// One snapshot of many characters.
#[must_use]
pub fn many_idle(count: u64) -> World {
    crowd(count, 1, 3)
}
