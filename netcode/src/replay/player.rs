//! Plays a replay on a simulation: step by step, from any tick.

use core::fmt;
use std::io::{Read, Seek};

use super::format::ChunkKind;
use super::reader::{ReadError, Reader};
use super::states::exact_of;
use crate::session::config::Mode;
use crate::simulation::{Simulation, StepKind};
use crate::state::{ImportError, Patch, QuantizedSnapshot, SchemaDifference, Snapshot, StateHash};
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
    /// A recorded state is no state of this game.
    #[error("the state at tick {tick} does not fit this game: {error}")]
    State {
        /// The state's tick.
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
///
/// In state-sync mode the simulation is shown the recorded states: it stands at the newest one at
/// or before [`Player::tick`], and never steps.
#[derive(Debug)]
pub struct Player<S: Simulation, R> {
    pub(super) simulation: S,
    pub(super) reader: Reader<R>,
    pub(super) hash: StateHash,
    image: S::Image,
    /// In state-sync mode: what the simulation shows.
    shown: Shown,
    /// Whether the simulation is at a tick of this replay: not after a failed import.
    placed: bool,
}

/// Where a player is among recorded states.
#[derive(Debug, Default)]
struct Shown {
    /// The tick that was played up to.
    tick: Tick,
    /// The state that the simulation was given last, in the shapes of the reader.
    state: Option<QuantizedSnapshot>,
    patch: Patch,
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
            shown: Shown::default(),
            placed: false,
        };
        player.seek(tick)?;
        Ok(player)
    }

    /// The tick that is played. The state of the simulation is that of this tick or, in state-sync
    /// mode, the newest recorded one up to it.
    pub fn tick(&self) -> Tick {
        if self.shows_states() {
            self.shown.tick
        } else {
            self.simulation.tick()
        }
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
        if self.shows_states() {
            return self.show(tick);
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
        if self.shows_states() {
            self.shown.state = None;
            return self.show(first);
        }
        let snapshot = self.reader.keyframe_before(first)?;
        self.place(&snapshot)
    }

    /// The current state, for other nodes, files and people.
    ///
    /// In state-sync mode it is the recorded one: kinds that clients do not get have no rows.
    pub fn snapshot(&mut self) -> Snapshot {
        if let Some(recorded) = self.recorded_state() {
            return recorded;
        }
        self.simulation.capture(&mut self.image);
        self.simulation.export(&self.image)
    }

    /// The combined hash of the current state, and the recorded one if there is one.
    ///
    /// # Errors
    /// If the recorded one cannot be read.
    pub fn hashes(&mut self) -> Result<(u64, Option<u64>), ReadError> {
        let shown = self.shown.state.as_ref().map(|state| state.tick);
        let tick = shown.unwrap_or(self.simulation.tick());
        let recorded = self.reader.hash_at(tick)?;
        Ok((self.combined_hash(), recorded))
    }

    /// Whether the replay holds states, which the simulation is given.
    pub(super) fn shows_states(&self) -> bool {
        self.reader.header().mode == Mode::StateSync
    }

    /// Gives the simulation the newest state at `tick` or before.
    fn show(&mut self, tick: Tick) -> Result<(), PlayError> {
        self.reader.seek_state(tick)?;
        let (state, shapes, layout) = self.reader.state().ok_or(ReadError::NoKeyframe(tick))?;
        // Going back trusts nothing of what the simulation holds.
        let before = self.shown.state.as_ref();
        let before = before.filter(|_| self.placed && tick >= self.shown.tick);
        if before.is_none_or(|before| before.tick != state.tick) {
            let patch = &mut self.shown.patch;
            Patch::between(layout, shapes, before, state, patch).map_err(|error| {
                ReadError::Undecodable {
                    kind: ChunkKind::States,
                    first: state.tick,
                    last: state.tick,
                    error,
                }
            })?;
            self.placed = false;
            let tick = state.tick;
            self.simulation
                .patch(patch)
                .map_err(|error| PlayError::State { tick, error })?;
            self.shown.state.get_or_insert_default().clone_from(state);
        }
        self.placed = true;
        self.shown.tick = tick;
        Ok(())
    }

    /// The exact form of the state that is shown, if the replay holds states.
    fn recorded_state(&self) -> Option<Snapshot> {
        let state = self.shown.state.as_ref()?;
        let (_newest, shapes, layout) = self.reader.state_tables()?;
        exact_of(&self.reader.header().schema, layout, shapes, state).ok()
    }

    pub(super) fn combined_hash(&mut self) -> u64 {
        if let Some(state) = &self.shown.state
            && let Some((_newest, shapes, _layout)) = self.reader.state_tables()
        {
            return state.hash(shapes);
        }
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
        if self.shows_states() {
            let next = self.shown.tick.next();
            let goes_on = next <= self.reader.last_tick();
            if goes_on {
                self.show(next)?;
            }
            return Ok(goes_on);
        }
        match self.reader.frame_at(self.simulation.tick().next())? {
            Some(frame) => {
                self.simulation.step(frame, kind);
                Ok(true)
            }
            None => Ok(false),
        }
    }
}
