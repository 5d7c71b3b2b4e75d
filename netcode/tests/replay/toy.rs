//! A game without an ECS for the tests of replays: units that walk, fight, die and spawn.

use std::collections::BTreeMap;
use std::sync::Arc;

use phalanx_netcode::hash::ValueHasher;
use phalanx_netcode::id::{NetId, Slot, Term};
use phalanx_netcode::input::InputFrame;
use phalanx_netcode::prng::Prng;
use phalanx_netcode::simulation::{Simulation, StepKind};
use phalanx_netcode::state::{
    ExactType, FieldSchema, ImportError, KindHasher, KindRows, KindSchema, KindShape, Schema,
    Snapshot, StateHash, Visibility,
};
use phalanx_netcode::tick::Tick;
use phalanx_netcode::wire::bytes::{DecodeError, Reader};

/// Numbers of the kinds: the schema sorts them by name.
const DICE: usize = 0;
const UNIT: usize = 1;

/// One unit of the toy game.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Unit {
    x: i32,
    y: i32,
    health: u16,
}

/// The state of the toy game at one tick.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    tick: Tick,
    dice: u64,
    born: u32,
    units: BTreeMap<NetId, Unit>,
}

/// The toy game: each input's bytes push the unit of its slot; the dice do the rest.
#[derive(Clone, Debug)]
pub(crate) struct Toy {
    schema: Arc<Schema>,
    state: State,
    /// How far a push moves a unit: part of the rules, so another value makes another game.
    pub(crate) stride: i32,
}

impl Toy {
    /// A game with `units` units at tick `start`.
    pub(crate) fn new(seed: u64, units: u32, start: Tick) -> Self {
        let kind = |name: &str, shape, fields| KindSchema {
            name: name.to_owned(),
            version: 1,
            shape,
            visibility: Visibility::Client,
            fields,
        };
        let schema = Schema::new(vec![
            kind(
                "Unit",
                KindShape::Component,
                vec![
                    FieldSchema::new("x", ExactType::I32),
                    FieldSchema::new("y", ExactType::I32),
                    FieldSchema::new("health", ExactType::U16),
                ],
            ),
            kind(
                "Dice",
                KindShape::Resource,
                vec![
                    FieldSchema::new("state", ExactType::U64),
                    FieldSchema::new("born", ExactType::U32),
                ],
            ),
        ])
        .unwrap();
        let mut toy = Self {
            schema: Arc::new(schema),
            state: State {
                tick: start,
                dice: seed,
                ..State::default()
            },
            stride: 3,
        };
        for _ in 0..units {
            toy.spawn();
        }
        toy
    }

    /// The whole state, to compare.
    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    fn spawn(&mut self) {
        let mut dice = Prng::new(self.state.dice);
        self.state.born += 1;
        let unit = Unit {
            x: i32::from_le_bytes(dice.next_u32().to_le_bytes()) >> 20,
            y: i32::from_le_bytes(dice.next_u32().to_le_bytes()) >> 20,
            health: 100,
        };
        self.state
            .units
            .insert(NetId::new(Term(0), self.state.born), unit);
        self.state.dice = dice.state();
    }

    fn hash_state(state: &State, out: &mut StateHash) {
        out.reset(2);
        let mut value = ValueHasher::new(0xd1ce);
        value.word(state.dice);
        value.word(u64::from(state.born));
        let mut hasher = KindHasher::default();
        hasher.row(NetId::NONE, value.finish());
        out.set(DICE, hasher.finish());
        let mut hasher = KindHasher::default();
        for (&id, unit) in &state.units {
            let mut value = ValueHasher::new(0x0417);
            value.word(u64::from(unit.x.cast_unsigned()));
            value.word(u64::from(unit.y.cast_unsigned()));
            value.word(u64::from(unit.health));
            hasher.row(id, value.finish());
        }
        out.set(UNIT, hasher.finish());
    }
}

impl Simulation for Toy {
    type Image = State;

    fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    fn tick(&self) -> Tick {
        self.state.tick
    }

    fn step(&mut self, frame: &InputFrame, _kind: StepKind) {
        assert_eq!(frame.tick(), self.state.tick.next(), "frames come in order");
        self.state.tick = frame.tick();
        let mut pushes = [(0, 0); 64];
        for (slot, input) in frame.inputs() {
            let byte = |index: usize| i32::from(input.get(index).copied().unwrap_or(0));
            pushes[slot.index()] = ((byte(0) - 128) * self.stride, (byte(1) - 128) * self.stride);
        }
        let slots = u32::from(frame.slots().max(1));
        let mut dice = Prng::new(self.state.dice);
        for (id, unit) in &mut self.state.units {
            let slot = Slot(u8::try_from(id.counter() % slots).unwrap());
            let (push_x, push_y) = pushes[slot.index()];
            unit.x = unit.x.wrapping_add(push_x).wrapping_mul(31) >> 5;
            unit.y = unit.y.wrapping_add(push_y).wrapping_mul(29) >> 5;
            if dice.chance_per_million(10_000) {
                unit.health = unit.health.saturating_sub(25);
            }
        }
        self.state.dice = dice.state();
        let before = self.state.units.len();
        self.state.units.retain(|_, unit| unit.health > 0);
        for _ in self.state.units.len()..before {
            self.spawn();
        }
    }

    fn hash(&mut self, out: &mut StateHash) {
        Self::hash_state(&self.state, out);
    }

    fn capture(&mut self, image: &mut State) {
        image.clone_from(&self.state);
    }

    fn restore(&mut self, image: &State) {
        self.state.clone_from(image);
    }

    fn hash_image(&self, image: &State, out: &mut StateHash) {
        Self::hash_state(image, out);
    }

    fn export(&self, image: &State) -> Snapshot {
        let mut dice = KindRows::default();
        dice.push(NetId::NONE, |out| {
            out.extend(image.dice.to_le_bytes());
            out.extend(image.born.to_le_bytes());
        });
        let mut units = KindRows::default();
        for (&id, unit) in &image.units {
            units.push(id, |out| {
                out.extend(unit.x.to_le_bytes());
                out.extend(unit.y.to_le_bytes());
                out.extend(unit.health.to_le_bytes());
            });
        }
        Snapshot {
            tick: image.tick,
            kinds: vec![dice, units],
        }
    }

    fn import(&mut self, snapshot: &Snapshot) -> Result<(), ImportError> {
        snapshot.validate(&self.schema)?;
        let bad = |kind: usize, id| ImportError::BadRow {
            kind: self.schema.kinds()[kind].name.clone(),
            id,
        };
        let row = snapshot.kinds[DICE].find(NetId::NONE);
        let (dice, born) = row
            .and_then(|row| read_dice(row).ok())
            .ok_or_else(|| bad(DICE, NetId::NONE))?;
        let units = snapshot.kinds[UNIT]
            .rows()
            .map(|(id, row)| Ok((id, read_unit(row).map_err(|_error| bad(UNIT, id))?)))
            .collect::<Result<_, ImportError>>()?;
        self.state = State {
            tick: snapshot.tick,
            dice,
            born,
            units,
        };
        Ok(())
    }
}

fn read_dice(row: &[u8]) -> Result<(u64, u32), DecodeError> {
    let mut reader = Reader::new(row);
    Ok((reader.u64()?, reader.u32()?))
}

fn read_unit(row: &[u8]) -> Result<Unit, DecodeError> {
    let mut reader = Reader::new(row);
    Ok(Unit {
        x: i32::from_le_bytes(reader.array()?),
        y: i32::from_le_bytes(reader.array()?),
        health: reader.u16()?,
    })
}
