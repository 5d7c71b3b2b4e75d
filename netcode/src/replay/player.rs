//! Plays a replay on a simulation: step by step, from any tick.

use core::fmt;
use std::io::{Read, Seek};

use super::reader::{ReadError, Reader};
use crate::simulation::{Simulation, StepKind};
use crate::state::{ImportError, SchemaDifference, Snapshot, StateHash};
use crate::tick::Tick;

/// Why a replay does not play on.
#[derive(Debug, thiserror::Error)]
pub enum PlayError {
    /// The replay was recorded by a game with other rules about its state.
    #[error("the replay does not fit this game: {}", Differences(.0))]
    Schema(Vec<SchemaDifference>),
    /// A part of the replay cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A keyframe is no state of this game.
    #[error("the keyframe at tick {tick} does not fit this game: {error}")]
    Keyframe {
        /// The keyframe's tick.
        tick: Tick,
        /// What does not fit.
        error: ImportError,
    },
    /// The tick lies outside of the replay.
    #[error("tick {tick} lies outside of the replay, which has {first} to {last}")]
    OutOfRange {
        /// The tick that was asked for.
        tick: Tick,
        /// The replay's first tick.
        first: Tick,
        /// Its last.
        last: Tick,
    },
}

/// Shows differences of schemas, named from the point of view of a player.
struct Differences<'a>(&'a [SchemaDifference]);

impl fmt::Display for Differences<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, difference) in self.0.iter().enumerate() {
            let separator = if number == 0 { "" } else { "; " };
            let difference = difference.labelled("the replay", "this game");
            write!(f, "{separator}{difference}")?;
        }
        Ok(())
    }
}

/// Plays a replay on a simulation that has the same rules; its setup comes from the replay.
#[derive(Debug)]
pub struct Player<S: Simulation, R> {
    pub(super) simulation: S,
    pub(super) reader: Reader<R>,
    pub(super) hash: StateHash,
    image: S::Image,
    /// Whether the simulation is at a tick of this replay: not after a failed import.
    placed: bool,
}

impl<S: Simulation, R: Read + Seek> Player<S, R> {
    /// Puts the simulation at the replay's first tick.
    ///
    /// # Errors
    /// If the schemas differ, or the first keyframe cannot be used. A later one may be: then
    /// [`Player::open_at`] works.
    pub fn new(simulation: S, reader: Reader<R>) -> Result<Self, PlayError> {
        let first = reader.first_tick();
        Self::open_at(simulation, reader, first)
    }

    /// Puts the simulation at `tick`.
    ///
    /// # Errors
    /// If the schemas differ, or `tick` cannot be reached.
    pub fn open_at(simulation: S, reader: Reader<R>, tick: Tick) -> Result<Self, PlayError> {
        let (recorded, ours) = (&reader.header().schema, simulation.schema());
        if recorded.hash() != ours.hash() {
            return Err(PlayError::Schema(recorded.compare(ours)));
        }
        let mut player = Self {
            simulation,
            reader,
            hash: StateHash::default(),
            image: S::Image::default(),
            placed: false,
        };
        player.seek(tick)?;
        Ok(player)
    }

    /// The tick of the current state.
    pub fn tick(&self) -> Tick {
        self.simulation.tick()
    }

    /// The replay.
    pub fn reader(&self) -> &Reader<R> {
        &self.reader
    }

    /// The replay, to read from it directly.
    pub fn reader_mut(&mut self) -> &mut Reader<R> {
        &mut self.reader
    }

    /// The simulation.
    pub fn simulation(&self) -> &S {
        &self.simulation
    }

    /// The simulation, for example to draw it. Whoever changes its state must [seek](Self::seek)
    /// backward before going on.
    pub fn simulation_mut(&mut self) -> &mut S {
        &mut self.simulation
    }

    /// Gives both back.
    pub fn into_parts(self) -> (S, Reader<R>) {
        (self.simulation, self.reader)
    }

    /// Plays one tick, as [`StepKind::First`]; `false` at the end of the replay. Seeks and
    /// verifications are [`StepKind::Again`], so they make no sound.
    ///
    /// # Errors
    /// If the next tick's inputs cannot be read; the state is then unchanged. A seek behind the
    /// damage may work.
    pub fn step(&mut self) -> Result<bool, PlayError> {
        self.step_as(StepKind::First)
    }

    /// Goes to `tick`: from the nearest keyframe before it, or from here if that is nearer.
    ///
    /// # Errors
    /// If `tick` lies outside of the replay, or what leads to it cannot be read; the player then
    /// stands where it was, or at the last tick before the damage.
    pub fn seek(&mut self, tick: Tick) -> Result<(), PlayError> {
        let (first, last) = (self.reader.first_tick(), self.reader.last_tick());
        if tick < first || tick > last {
            return Err(PlayError::OutOfRange { tick, first, last });
        }
        let keyframe = self.reader.keyframe_tick_before(tick);
        let here = self.placed && self.tick() <= tick;
        if !here || keyframe.is_some_and(|keyframe| keyframe > self.tick()) {
            let snapshot = self.reader.keyframe_before(tick)?;
            // An older keyframe than hoped for is no reason to leave a nearer place.
            if !here || snapshot.tick > self.tick() {
                self.place(&snapshot)?;
            }
        }
        while self.tick() < tick {
            if !self.step_as(StepKind::Again)? {
                break;
            }
        }
        Ok(())
    }

    /// Goes back to the first tick, and trusts nothing of the current state.
    pub(super) fn restart(&mut self) -> Result<(), PlayError> {
        let first = self.reader.first_tick();
        let snapshot = self.reader.keyframe_before(first)?;
        self.place(&snapshot)
    }

    /// The current state, for other nodes, files and people.
    pub fn snapshot(&mut self) -> Snapshot {
        self.simulation.capture(&mut self.image);
        self.simulation.export(&self.image)
    }

    /// The combined hash of the current state, and the recorded one if there is one.
    ///
    /// # Errors
    /// If the recorded one cannot be read.
    pub fn hashes(&mut self) -> Result<(u64, Option<u64>), ReadError> {
        let recorded = self.reader.hash_at(self.simulation.tick())?;
        Ok((self.combined_hash(), recorded))
    }

    pub(super) fn combined_hash(&mut self) -> u64 {
        self.simulation.hash(&mut self.hash);
        self.hash.combined()
    }

    /// Takes over a keyframe.
    fn place(&mut self, snapshot: &Snapshot) -> Result<(), PlayError> {
        self.placed = false;
        self.simulation
            .import(snapshot)
            .map_err(|error| PlayError::Keyframe {
                tick: snapshot.tick,
                error,
            })?;
        self.placed = true;
        Ok(())
    }

    pub(super) fn step_as(&mut self, kind: StepKind) -> Result<bool, PlayError> {
        match self.reader.frame_at(self.simulation.tick().next())? {
            Some(frame) => {
                self.simulation.step(frame, kind);
                Ok(true)
            }
            None => Ok(false),
        }
    }
}
