//! A toy game: small, and sensitive to every input, tick and presence.

use std::sync::Arc;

use phalanx::netcode::hash::mix;
use phalanx::netcode::id::NetId;
use phalanx::netcode::input::InputFrame;
use phalanx::netcode::session::config::{GameInfo, Mode};
use phalanx::netcode::simulation::{Simulation, StepKind};
use phalanx::netcode::state::{
    ExactType, FieldSchema, ImportError, KindSchema, KindShape, Schema, Snapshot, StateHash,
    Visibility,
};
use phalanx::netcode::tick::{Tick, TickRate};

/// Bytes of an input of the toy game.
pub const INPUT_BYTES: u8 = 8;

/// The toy game's description.
///
/// # Panics
/// Never: its schema is fixed and fits the limits.
#[must_use]
pub fn game() -> GameInfo {
    let schema = Schema::new(vec![
        KindSchema {
            name: "Trace".to_owned(),
            version: 1,
            shape: KindShape::Component,
            visibility: Visibility::Client,
            fields: vec![
                FieldSchema::new("sum", ExactType::U64),
                FieldSchema::new("present", ExactType::U32),
            ],
        },
        KindSchema {
            name: "Clock".to_owned(),
            version: 1,
            shape: KindShape::Resource,
            visibility: Visibility::Client,
            fields: vec![FieldSchema::new("tick", ExactType::U32)],
        },
    ]);
    GameInfo {
        game: "toy".to_owned(),
        build: "1".to_owned(),
        schema: Arc::new(schema.expect("the toy's schema fits the limits")),
        mode: Mode::Lockstep,
        tick_rate: TickRate::DEFAULT,
        input_bytes: INPUT_BYTES,
    }
}

/// One slot's trace: folds every input that it ever had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// Fold of the inputs.
    pub sum: u64,
    /// Ticks on which the slot was present.
    pub present: u32,
}

/// Ticks that a [`Toy`] remembers.
pub const TRAIL_TICKS: usize = 1024;

/// What a tick was run on, and what came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// The tick.
    pub tick: Tick,
    /// Fold of the state after it.
    pub state: u64,
    /// Mask of the slots that were present.
    pub present: u64,
    /// The inputs by slot, 0 where absent.
    pub inputs: Vec<u64>,
}

/// The toy game's state.
#[derive(Clone, Debug)]
pub struct Toy {
    schema: Arc<Schema>,
    tick: Tick,
    traces: Vec<Trace>,
    /// From this tick on every step computes something wrong, to provoke a desync.
    pub wrong_from: Option<Tick>,
    /// The last tick that computes something wrong; for ever without one.
    pub wrong_until: Option<Tick>,
    /// Every frame that was stepped for good, folded, by tick: for tests that compare runs.
    pub steps: u64,
    /// The last ticks that ran, by tick modulo its length.
    trail: Vec<Footprint>,
}

impl Toy {
    /// The initial state for a session of `slots` slots.
    #[must_use]
    pub fn new(seed: u64, slots: u8) -> Self {
        let traces = (0..u64::from(slots))
            .map(|slot| Trace {
                sum: mix(seed, slot),
                present: 0,
            })
            .collect();
        let footprint = Footprint {
            inputs: vec![0; usize::from(slots)],
            ..Footprint::default()
        };
        Self {
            schema: game().schema,
            tick: Tick::ZERO,
            traces,
            wrong_from: None,
            wrong_until: None,
            steps: 0,
            trail: vec![footprint; TRAIL_TICKS],
        }
    }

    /// What `tick` was run on last, if this toy ran it and remembers.
    #[must_use]
    pub fn footprint(&self, tick: Tick) -> Option<&Footprint> {
        let place = &self.trail[tick.number() as usize % TRAIL_TICKS];
        // What ran before it went back may not have run again.
        let has_run = tick > Tick::ZERO && tick <= self.tick;
        (place.tick == tick && has_run).then_some(place)
    }

    /// The slots' traces.
    #[must_use]
    pub fn traces(&self) -> &[Trace] {
        &self.traces
    }

    fn snapshot(&self, tick: Tick, traces: &[Trace]) -> Snapshot {
        let mut snapshot = Snapshot {
            tick,
            kinds: vec![Default::default(); 2],
        };
        // By name: Clock, Trace.
        snapshot.kinds[0].push(NetId::NONE, |out| out.extend(tick.number().to_le_bytes()));
        for (index, trace) in (1..).zip(traces) {
            snapshot.kinds[1].push(NetId::from_bits(index), |out| {
                out.extend(trace.sum.to_le_bytes());
                out.extend(trace.present.to_le_bytes());
            });
        }
        snapshot
    }
}

/// A saved state of the toy.
#[derive(Clone, Debug, Default)]
pub struct ToyImage {
    tick: Tick,
    traces: Vec<Trace>,
}

impl Simulation for Toy {
    type Image = ToyImage;

    fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    fn tick(&self) -> Tick {
        self.tick
    }

    fn step(&mut self, frame: &InputFrame, _kind: StepKind) {
        assert_eq!(frame.tick(), self.tick.next(), "ticks come in order");
        self.tick = frame.tick();
        self.steps += 1;
        let footprint = &mut self.trail[self.tick.number() as usize % TRAIL_TICKS];
        footprint.tick = self.tick;
        footprint.present = 0;
        for (slot, trace) in (0..).zip(&mut self.traces) {
            let slot = phalanx::netcode::id::Slot(slot);
            footprint.inputs[slot.index()] = 0;
            if let Some(input) = frame.input(slot) {
                let mut word = [0; 8];
                word.copy_from_slice(input);
                let word = u64::from_le_bytes(word);
                trace.sum = mix(trace.sum, word);
                trace.present += 1;
                footprint.present |= slot.bit();
                footprint.inputs[slot.index()] = word;
            }
        }
        let from = self.wrong_from.is_some_and(|from| self.tick >= from);
        if from && self.wrong_until.is_none_or(|until| self.tick <= until) {
            self.traces[0].sum ^= 1;
        }
        footprint.state = self.traces.iter().fold(0, |fold, trace| {
            mix(mix(fold, trace.sum), u64::from(trace.present))
        });
    }

    fn hash(&mut self, out: &mut StateHash) {
        *out = self.snapshot(self.tick, &self.traces).hash(&self.schema);
    }

    fn capture(&mut self, image: &mut ToyImage) {
        image.tick = self.tick;
        image.traces.clone_from(&self.traces);
    }

    fn restore(&mut self, image: &ToyImage) {
        self.tick = image.tick;
        self.traces.clone_from(&image.traces);
    }

    fn hash_image(&self, image: &ToyImage, out: &mut StateHash) {
        *out = self.snapshot(image.tick, &image.traces).hash(&self.schema);
    }

    fn export(&self, image: &ToyImage) -> Snapshot {
        self.snapshot(image.tick, &image.traces)
    }

    fn import(&mut self, snapshot: &Snapshot) -> Result<(), ImportError> {
        snapshot.validate(&self.schema)?;
        // What ran here before may have been guesses that nobody has set right.
        self.trail
            .iter_mut()
            .for_each(|place| place.tick = Tick::ZERO);
        self.tick = snapshot.tick;
        self.traces = snapshot.kinds[1]
            .rows()
            .map(|(_, row)| {
                let (sum, present) = row.split_at(8);
                let word = |bytes: &[u8]| bytes.iter().rev().fold(0, |w, &b| w << 8 | u64::from(b));
                Trace {
                    sum: word(sum),
                    present: u32::try_from(word(present)).unwrap_or(0),
                }
            })
            .collect();
        Ok(())
    }
}
