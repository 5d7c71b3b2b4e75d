//! Finds out whether a game is deterministic.
//!
//! The game runs twice on the same inputs. One simulation just goes from tick to tick. Its shadow
//! has a different history at every turn: it is rebuilt from a snapshot with its rows in random
//! order, it runs ahead on wrong inputs and rolls back, it repeats its last ticks, and entities
//! and components of a presentation get in between its rows. If the rules are a function of state
//! and inputs, none of this shows in the state hash; the first tick where it does is reported with
//! the entities and fields that differ.

use core::fmt;
use std::collections::VecDeque;

use bevy_ecs::component::Component;
use bevy_ecs::entity::Entity;
use phalanx_netcode::id::Slot;
use phalanx_netcode::input::InputFrame;
use phalanx_netcode::limits::SLOTS_MAX;
use phalanx_netcode::prng::Prng;
use phalanx_netcode::simulation::{Simulation, StepKind};
use phalanx_netcode::state::{Difference, Exact, ImportError};
use phalanx_netcode::tick::Tick;

use crate::game::Game;
use crate::net_id::NetIndex;
use crate::simulation::{EcsImage, EcsSimulation};

/// Ticks that the shadow rolls back at most.
const ROLLBACK_TICKS_MAX: u32 = 8;

/// Keeps the checker's numbers apart from those of the game.
const STREAM: u64 = 0x0063_6865_636b;

/// Differences that a report holds at most.
const DIFFERENCES_MAX: usize = 8;

/// Runs a game twice and compares.
///
/// ```
/// # use phalanx::prelude::*;
/// # fn main() -> Result<(), GameError> {
/// # let game = Game::builder("example").input::<u8>().build()?;
/// let report = Checker::new(&game)
///     .seed(7)
///     .ticks(200)
///     .inputs(|prng, _slot| prng.next_u32().to_le_bytes()[0] % 4)
///     .run();
/// assert!(report.is_ok(), "{}", report.unwrap_err());
/// # Ok(())
/// # }
/// ```
#[must_use]
pub struct Checker<'a> {
    game: &'a Game,
    seed: u64,
    slots: u8,
    ticks: u32,
    restore_every: u32,
    inputs: Box<InputSource<'a>>,
}

/// The bytes of a slot's input for a tick.
type InputSource<'a> = dyn FnMut(&mut Prng, Slot) -> Vec<u8> + 'a;

impl fmt::Debug for Checker<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checker")
            .field("game", &self.game.id())
            .field("seed", &self.seed)
            .field("slots", &self.slots)
            .field("ticks", &self.ticks)
            .field("restore_every", &self.restore_every)
            .finish_non_exhaustive()
    }
}

/// What a check did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Ticks that were compared.
    pub ticks: u32,
    /// How often the shadow was rebuilt from a snapshot.
    pub rebuilds: u32,
    /// How often the shadow was rolled back.
    pub rollbacks: u32,
    /// The largest number of entities at the end of a tick.
    pub entities_max: usize,
    /// Combined state hash of the last tick.
    pub hash: u64,
}

/// What the shadow did just before it differed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckStep {
    /// It took over a snapshot: the state does not survive its canonical form. Perhaps a
    /// component's `Exact` loses something, or a hook changes the state.
    Rebuild,
    /// It ran ahead on wrong inputs and was restored: saving and restoring loses something.
    /// Perhaps a hook changes the state, or a system changes what is not registered.
    Rollback,
    /// It made a step on the same state and inputs. A system depends on something that is not
    /// state: the order of rows, `Local`, `Changed`, an unregistered component or resource, a
    /// static, the clock.
    Tick,
}

/// Why a check failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// No game has so many slots, so nothing was checked.
    #[error("a check needs 1 to {SLOTS_MAX} slots, not {0}")]
    Slots(u8),
    /// No tick was to be run, so nothing was checked.
    #[error("a check needs at least 1 tick")]
    NoTicks,
    /// The same inputs gave another state.
    #[error("seed {seed}: the states differ at tick {tick} {}{}", after(*.step), list(.differences))]
    Differs {
        /// The seed of the check.
        seed: u64,
        /// The first tick with a difference.
        tick: Tick,
        /// What happened just before.
        step: CheckStep,
        /// Where the shadow (second) differs from the plain run (first); not all of it.
        differences: Vec<Difference>,
    },
    /// An entity without a NetId has a registered component: systems see it, snapshots do not.
    #[error(
        "seed {seed}: at tick {tick}, an entity without a NetId has the registered component \"{kind}\""
    )]
    Stray {
        /// The seed of the check.
        seed: u64,
        /// The tick.
        tick: Tick,
        /// The component.
        kind: String,
    },
    /// The game's own snapshot was refused.
    #[error("seed {seed}: the snapshot of tick {tick} was refused: {error}")]
    Import {
        /// The seed of the check.
        seed: u64,
        /// The tick.
        tick: Tick,
        /// Why.
        error: ImportError,
    },
}

fn after(step: CheckStep) -> &'static str {
    match step {
        CheckStep::Rebuild => "after the shadow took over a snapshot",
        CheckStep::Rollback => "after the shadow was rolled back",
        CheckStep::Tick => "after a step on the same state and inputs",
    }
}

fn list(differences: &[Difference]) -> String {
    let lines = differences
        .iter()
        .map(|difference| format!("\n  {}", difference.labelled("plain", "in the shadow")));
    lines.collect()
}

/// Presentation that the shadow has and the plain run has not: it splits archetypes and moves rows.
#[derive(Component)]
struct Noise;

/// The same, in the other storage.
#[derive(Component)]
#[component(storage = "SparseSet")]
struct SparseNoise;

impl<'a> Checker<'a> {
    /// A check of `game`: 300 ticks, 4 slots, random bytes as inputs.
    pub fn new(game: &'a Game) -> Self {
        let size = usize::from(game.input_bytes());
        Self {
            game,
            seed: 1,
            slots: 4,
            ticks: 300,
            restore_every: 16,
            inputs: Box::new(move |prng, _slot| {
                (0..size)
                    .map(|_| prng.next_u64().to_le_bytes()[0])
                    .collect()
            }),
        }
    }

    /// Sets the seed of the session, of the inputs and of everything that the shadow does.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Sets the number of slots, 1 to 64. They join and leave at random.
    pub fn slots(mut self, slots: u8) -> Self {
        self.slots = slots;
        self
    }

    /// Sets the number of ticks, at least 1.
    pub fn ticks(mut self, ticks: u32) -> Self {
        self.ticks = ticks;
        self
    }

    /// Sets after how many ticks the shadow is rebuilt from a snapshot; at least 1.
    pub fn restore_every(mut self, ticks: u32) -> Self {
        self.restore_every = ticks.max(1);
        self
    }

    /// Sets what players do: the input of a slot for a tick. It should reach all of the rules.
    ///
    /// # Panics
    /// In [`Checker::run`], if `T` is not the game's input type.
    pub fn inputs<T: Exact + 'static>(
        mut self,
        mut inputs: impl FnMut(&mut Prng, Slot) -> T + 'a,
    ) -> Self {
        let game = self.game;
        self.inputs = Box::new(move |prng, slot| game.encode_input(&inputs(prng, slot)));
        self
    }

    /// Runs the check.
    ///
    /// # Errors
    /// The first difference, with the entities and fields where it shows. Also if there is nothing
    /// to run: a check that looks at nothing must not pass.
    pub fn run(mut self) -> Result<CheckReport, CheckError> {
        if !(1..=SLOTS_MAX).contains(&usize::from(self.slots)) {
            return Err(CheckError::Slots(self.slots));
        }
        if self.ticks == 0 {
            return Err(CheckError::NoTicks);
        }
        let mut prng = Prng::with_stream(self.seed, STREAM);
        let mut plain = self.game.simulation(self.seed, self.slots);
        let mut shadow = self.rebuilt(&mut plain, &mut prng)?;
        let mut past: VecDeque<(EcsImage, InputFrame)> = VecDeque::new();
        let mut present = (1_u64 << self.slots.min(63)) - 1;
        let mut report = CheckReport {
            rebuilds: 1,
            ..CheckReport::default()
        };
        for number in 1..=self.ticks {
            let tick = Tick::new(number);
            if number % self.restore_every == 0 {
                shadow = self.rebuilt(&mut plain, &mut prng)?;
                past.clear();
                report.rebuilds += 1;
            }
            make_noise(&mut shadow, &mut prng);
            let first_run = prng.below(2) == 0;
            if !first_run {
                self.run_ahead(&mut shadow, present, &mut prng);
                self.compare(&mut plain, &mut shadow, CheckStep::Rollback)?;
                report.rollbacks += 1;
            }
            if prng.below(4) == 0 {
                repeat(&mut shadow, &past, &mut prng);
                self.compare(&mut plain, &mut shadow, CheckStep::Rollback)?;
                report.rollbacks += 1;
            }

            if prng.below(30) == 0 {
                present ^= Slot(below(&mut prng, self.slots)).bit();
            }
            let frame = self.frame(tick, present, &mut prng);
            let mut image = EcsImage::default();
            shadow.capture(&mut image);
            past.push_back((image, frame.clone()));
            if past.len() > ROLLBACK_TICKS_MAX as usize {
                past.pop_front();
            }

            plain.step(&frame, StepKind::First);
            let kind = if first_run {
                StepKind::First
            } else {
                StepKind::Again
            };
            shadow.step(&frame, kind);
            self.compare(&mut plain, &mut shadow, CheckStep::Tick)?;
            if let Some(kind) = plain.stray_component() {
                return Err(CheckError::Stray {
                    seed: self.seed,
                    tick,
                    kind: kind.to_owned(),
                });
            }
            let entities = plain.world().resource::<NetIndex>().len();
            report.entities_max = report.entities_max.max(entities);
        }
        report.ticks = self.ticks;
        report.hash = plain.state_hash().combined();
        Ok(report)
    }

    /// A new simulation that took over the state of `plain`, with rows in random order.
    fn rebuilt(
        &self,
        plain: &mut EcsSimulation,
        prng: &mut Prng,
    ) -> Result<EcsSimulation, CheckError> {
        let snapshot = plain.snapshot();
        // Another seed: whatever the setup made must be gone afterwards.
        let mut shadow = self.game.simulation(!self.seed, self.slots);
        make_noise(&mut shadow, prng);
        shadow
            .import_shuffled(&snapshot, |ids| {
                for index in (1..ids.len()).rev() {
                    ids.swap(index, below(prng, index + 1));
                }
            })
            .map_err(|error| CheckError::Import {
                seed: self.seed,
                tick: snapshot.tick,
                error,
            })?;
        self.compare(plain, &mut shadow, CheckStep::Rebuild)?;
        Ok(shadow)
    }

    /// Steps on inputs that turn out wrong, and goes back.
    fn run_ahead(&mut self, shadow: &mut EcsSimulation, present: u64, prng: &mut Prng) {
        let mut image = EcsImage::default();
        shadow.capture(&mut image);
        for _ in 0..=prng.below(u64::from(ROLLBACK_TICKS_MAX)) {
            let frame = self.frame(shadow.tick().next(), present, prng);
            shadow.step(&frame, StepKind::First);
            make_noise(shadow, prng);
        }
        shadow.restore(&image);
    }

    fn frame(&mut self, tick: Tick, present: u64, prng: &mut Prng) -> InputFrame {
        let mut frame = InputFrame::empty(tick, self.slots, self.game.input_bytes());
        for slot in (0..self.slots).map(Slot) {
            // Drawn for absent slots too, so that presence does not shift the numbers.
            let input = (self.inputs)(prng, slot);
            if present & slot.bit() != 0 {
                frame.set(slot, &input);
            }
        }
        frame
    }

    fn compare(
        &self,
        plain: &mut EcsSimulation,
        shadow: &mut EcsSimulation,
        step: CheckStep,
    ) -> Result<(), CheckError> {
        if plain.state_hash() == shadow.state_hash() && plain.tick() == shadow.tick() {
            return Ok(());
        }
        let (first, second) = (plain.snapshot(), shadow.snapshot());
        Err(CheckError::Differs {
            seed: self.seed,
            tick: plain.tick(),
            step,
            differences: first.differences(&second, self.game.schema(), DIFFERENCES_MAX),
        })
    }
}

/// Goes back to a tick in the past and takes the same steps again.
fn repeat(shadow: &mut EcsSimulation, past: &VecDeque<(EcsImage, InputFrame)>, prng: &mut Prng) {
    if past.is_empty() {
        return;
    }
    let first = below(prng, past.len());
    shadow.restore(&past[first].0);
    for (_image, frame) in past.iter().skip(first) {
        shadow.step(frame, StepKind::Again);
    }
}

/// Adds and removes presentation, and thereby moves rows.
fn make_noise(shadow: &mut EcsSimulation, prng: &mut Prng) {
    let world = shadow.world_mut();
    let index = world.resource::<NetIndex>().iter();
    let networked: Vec<Entity> = index.map(|(_id, entity)| entity).collect();
    for _ in 0..1 + networked.len() / 16 {
        world.spawn(Noise);
        if networked.is_empty() {
            continue;
        }
        let mut entity = world.entity_mut(networked[below(prng, networked.len())]);
        match prng.below(4) {
            0 => entity.insert(Noise),
            1 => entity.remove::<Noise>(),
            2 => entity.insert(SparseNoise),
            _ => entity.remove::<SparseNoise>(),
        };
    }
}

/// A number in `0..bound`, or 0.
fn below<N: Copy + TryInto<u64> + TryFrom<u64> + Default>(prng: &mut Prng, bound: N) -> N {
    let drawn = prng.below(bound.try_into().unwrap_or(0));
    N::try_from(drawn).unwrap_or_default()
}
