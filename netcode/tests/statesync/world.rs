//! A world whose entities move, toggle, change their components, come, go and come again.

use std::collections::BTreeMap;

use phalanx_netcode::id::{NetId, Term};
use phalanx_netcode::prng::Prng;
use phalanx_netcode::state::{
    ExactType, FieldSchema, KindRows, KindSchema, KindShape, Schema, Snapshot, Visibility, WireForm,
};
use phalanx_netcode::tick::Tick;

/// Whether entities have rooms.
pub(crate) const HAS_ROOMS: bool = true;

/// Half the width of the world.
const REACH: f32 = 60.0;

#[derive(Clone, Debug, Default)]
struct Thing {
    owner: Option<u8>,
    room: Option<i32>,
    place: Option<[f32; 3]>,
    speed: [f32; 3],
    health: Option<u16>,
    armed: Option<bool>,
    title: Option<String>,
    target: Option<u64>,
}

pub(crate) struct World {
    kinds: [usize; 8],
    things: BTreeMap<NetId, Thing>,
    score: u32,
    next: u32,
    size: usize,
    prng: Prng,
    moving_per_million: u32,
    toggling_per_million: u32,
    churn_per_million: u32,
    is_frozen: bool,
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

pub(crate) fn schema() -> Schema {
    let field = |exact| FieldSchema::new("0", exact);
    Schema::new(vec![
        kind("phalanx.owner", vec![field(ExactType::U8)]),
        kind("phalanx.room", vec![field(ExactType::I32)]),
        kind(
            "place",
            vec![
                field(ExactType::Vec3)
                    .wire(WireForm::Fixed {
                        min: -64,
                        max: 64,
                        per_unit: 128,
                    })
                    .position(),
            ],
        ),
        kind(
            "health",
            vec![field(ExactType::U16).wire(WireForm::Range { min: 0, max: 100 })],
        ),
        kind("armed", vec![field(ExactType::Bool)]),
        kind("title", vec![field(ExactType::Text)]),
        kind("target", vec![field(ExactType::NetId)]),
        KindSchema {
            shape: KindShape::Resource,
            ..kind("score", vec![field(ExactType::U32)])
        },
    ])
    .unwrap()
}

pub(crate) fn place(prng: &mut Prng) -> [f32; 3] {
    [
        prng.range_f32(-REACH, REACH),
        prng.range_f32(-REACH, REACH),
        prng.range_f32(-5.0, 5.0),
    ]
}

impl World {
    pub(crate) fn new(schema: &Schema, mut prng: Prng, size: usize) -> Self {
        let names = [
            "phalanx.owner",
            "phalanx.room",
            "place",
            "health",
            "armed",
            "title",
            "target",
            "score",
        ];
        let kinds = names.map(|name| schema.kind_index(name).unwrap());
        let size = size / 2 + usize::try_from(prng.below(size as u64)).unwrap();
        let mut world = Self {
            kinds,
            things: BTreeMap::new(),
            score: 0,
            next: 1,
            size,
            prng,
            moving_per_million: 200_000,
            toggling_per_million: 10_000,
            churn_per_million: 2_000,
            is_frozen: false,
        };
        for _ in 0..size {
            world.spawn();
        }
        world
    }

    /// How much happens from here on.
    pub(crate) fn draw_habits(&mut self) {
        let pick =
            |prng: &mut Prng, choices: [u32; 4]| choices[usize::try_from(prng.below(4)).unwrap()];
        self.moving_per_million = pick(&mut self.prng, [0, 20_000, 300_000, 1_000_000]);
        self.toggling_per_million = pick(&mut self.prng, [0, 1_000, 20_000, 200_000]);
        self.churn_per_million = pick(&mut self.prng, [0, 500, 5_000, 30_000]);
    }

    pub(crate) fn freeze(&mut self) {
        self.is_frozen = true;
    }

    /// Where things are, with their rooms.
    pub(crate) fn places(&self) -> impl Iterator<Item = (NetId, [f32; 3], Option<i32>)> {
        self.things
            .iter()
            .filter_map(|(&id, thing)| Some((id, thing.place?, thing.room)))
    }

    fn spawn(&mut self) {
        // Ids are never given again in a session, but the protocol does not depend on it.
        let id = if self.next > 4 && self.prng.below(4) == 0 {
            1 + u32::try_from(self.prng.below(u64::from(self.next))).unwrap()
        } else {
            self.next += 1 + u32::try_from(self.prng.below(3)).unwrap();
            self.next
        };
        let prng = &mut self.prng;
        let mut one_in = |n: u64| prng.below(n) == 0;
        let thing = Thing {
            owner: one_in(8).then_some(id.to_le_bytes()[0] % 4),
            room: one_in(3).then_some((id % 2).cast_signed()),
            place: (!one_in(10)).then_some([0.0; 3]),
            speed: [0.0; 3],
            health: one_in(2).then_some(100),
            armed: one_in(2).then_some(false),
            title: one_in(12).then(|| format!("thing {id}")),
            target: one_in(4).then_some(u64::from(id + 1)),
        };
        let thing = Thing {
            place: thing.place.map(|_| place(&mut self.prng)),
            speed: [0, 1, 2].map(|_| self.prng.range_f32(-0.3, 0.3)),
            ..thing
        };
        self.things.insert(NetId::new(Term(1), id), thing);
    }

    pub(crate) fn step(&mut self) {
        if self.is_frozen {
            return;
        }
        let prng = &mut self.prng;
        let mut spawns = 0;
        let ids: Vec<NetId> = self.things.keys().copied().collect();
        for id in ids {
            if prng.chance_per_million(self.churn_per_million) {
                self.things.remove(&id);
                spawns += 1;
                continue;
            }
            let Some(thing) = self.things.get_mut(&id) else {
                continue;
            };
            if let Some(place) = &mut thing.place
                && prng.chance_per_million(self.moving_per_million)
            {
                for (place, speed) in place.iter_mut().zip(&mut thing.speed) {
                    *place += *speed;
                    if place.abs() > REACH {
                        *speed = -*speed;
                        *place = place.clamp(-REACH, REACH);
                    }
                }
            }
            if prng.chance_per_million(self.toggling_per_million) {
                match prng.below(7) {
                    0..3 => thing.armed = thing.armed.map(|armed| !armed),
                    3 => thing.health = thing.health.map(|health| (health + 93) % 101),
                    4 => {
                        thing.health = match thing.health {
                            Some(_) => None,
                            None => Some(50),
                        };
                    }
                    5 => {
                        thing.title = match thing.title.take() {
                            Some(_) => None,
                            None => Some(format!("again {}", prng.below(1000))),
                        };
                    }
                    _ => thing.target = thing.target.map(|_| 1 << 32 | prng.below(50)),
                }
            }
            if prng.chance_per_million(self.toggling_per_million / 20) {
                thing.owner = match thing.owner {
                    Some(_) => None,
                    None => Some(prng.below(4).to_le_bytes()[0]),
                };
                thing.room = thing.room.map(|room| 1 - room);
            }
        }
        if prng.chance_per_million(self.toggling_per_million) {
            self.score += 1;
        }
        while self.things.len() + 5 < self.size {
            spawns += 1;
            self.spawn();
        }
        if spawns > 0 && self.things.len() < self.size + 20 {
            self.spawn();
        }
    }

    /// The world in its exact form.
    pub(crate) fn snapshot(&self, tick: Tick) -> Snapshot {
        let mut kinds = vec![KindRows::default(); self.kinds.len()];
        let [owner, room, place, health, armed, title, target, score] = self.kinds;
        for (&id, thing) in &self.things {
            let mut put = |kind: usize, bytes: Option<Vec<u8>>| {
                if let Some(bytes) = bytes {
                    kinds[kind].push(id, |out| out.extend_from_slice(&bytes));
                }
            };
            put(owner, thing.owner.map(|owner| vec![owner]));
            put(room, thing.room.map(|room| room.to_le_bytes().to_vec()));
            let parts = thing
                .place
                .map(|place| place.map(f32::to_le_bytes).concat());
            put(place, parts);
            put(
                health,
                thing.health.map(|health| health.to_le_bytes().to_vec()),
            );
            put(armed, thing.armed.map(|armed| vec![u8::from(armed)]));
            let text = thing.title.as_ref().map(|title| {
                let mut bytes = u32::try_from(title.len()).unwrap().to_le_bytes().to_vec();
                bytes.extend_from_slice(title.as_bytes());
                bytes
            });
            put(title, text);
            put(
                target,
                thing.target.map(|target| target.to_le_bytes().to_vec()),
            );
        }
        kinds[score].push(NetId::NONE, |out| {
            out.extend_from_slice(&self.score.to_le_bytes());
        });
        Snapshot { tick, kinds }
    }
}
