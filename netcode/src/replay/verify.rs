//! Verifies a replay: plays it from its start and compares all that was recorded.

use std::io::{Read, Seek};

use super::inputs::chain_digest;
use super::player::{PlayError, Player};
use super::reader::{Completeness, Damage, ReadError};
use crate::simulation::{Simulation, StepKind};
use crate::state::{Difference, Snapshot};
use crate::tick::Tick;

/// What a verification found to be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifyReport {
    /// The first tick.
    pub first: Tick,
    /// The last tick.
    pub last: Tick,
    /// States that were decoded, in state-sync mode.
    pub states: u32,
    /// State hashes that were compared.
    pub hashes: u32,
    /// Keyframes that were compared with the simulated state, row by row. The first one is where
    /// the simulation starts.
    pub keyframes: u32,
    /// Whether this was all that was recorded. A cut replay verifies up to where it was cut.
    pub completeness: Completeness,
}

/// Why a replay is not verified.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The simulated state differs from the recorded one.
    #[error("tick {tick} is the first wrong one: {cause}")]
    Diverged {
        /// The first tick whose recorded hash differs.
        tick: Tick,
        /// The last tick whose recorded hash did not; `None` if there is none.
        good: Option<Tick>,
        /// The recorded hash.
        recorded: u64,
        /// The hash of the simulated state.
        simulated: u64,
        /// What differs.
        cause: Cause,
    },
    /// Input frames are not those that were recorded, and no hash shows it earlier.
    #[error("the inputs of a tick within {first} to {last} are not those that were recorded")]
    Inputs {
        /// First tick concerned.
        first: Tick,
        /// Last tick concerned.
        last: Tick,
    },
    /// A keyframe is not the state that the inputs lead to, though the hashes up to it agree.
    #[error("the keyframe at tick {tick} is wrong: {}", Differences(.differences))]
    Keyframe {
        /// Its tick.
        tick: Tick,
        /// The first values that differ: the first state is the keyframe.
        differences: Vec<Difference>,
    },
    /// The file is damaged behind its header.
    #[error("{0}")]
    Damaged(Damage),
    /// The replay holds neither a hash nor a second keyframe to compare with.
    #[error("the replay holds nothing to compare with")]
    NothingToCompare,
    /// The replay does not play to its end.
    #[error(transparent)]
    Play(#[from] PlayError),
}

impl From<ReadError> for VerifyError {
    fn from(error: ReadError) -> Self {
        Self::Play(PlayError::Read(error))
    }
}

/// What differs when a hash does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The input frames are those that were recorded, and lead to another state: other rules,
    /// a simulation that is not deterministic, or a changed hash or keyframe.
    State,
    /// The input frames are not those that were recorded.
    Inputs,
    /// The decoded state is not the one that the host hashed: another version of the codec, or a
    /// changed hash.
    Decoded,
    /// The replay does not say: it was cut before it did.
    Unknown,
}

impl core::fmt::Display for Cause {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::State => "the recorded inputs lead to another state",
            Self::Inputs => "the inputs are not those that were recorded",
            Self::Decoded => "the state is not the one that was recorded",
            Self::Unknown => "the state differs",
        })
    }
}

/// Shows the first of several differences.
struct Differences<'a>(&'a [Difference]);

impl core::fmt::Display for Differences<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.0.first() {
            Some(first) => first.labelled("recorded", "simulated").fmt(f),
            None => f.write_str("its form differs"),
        }
    }
}

/// Values that a report about a wrong keyframe names at most.
const DIFFERENCES_MAX: usize = 16;

/// Ticks between two calls of the progress function.
const PROGRESS_TICKS: u32 = 600;

/// The same in states.
const PROGRESS_STATES: u32 = 200;

impl<S: Simulation, R: Read + Seek> Player<S, R> {
    /// Simulates the whole replay from its first keyframe, and compares every recorded hash,
    /// every keyframe and the digests of the inputs, in the order of ticks. In state-sync mode it
    /// decodes every state, gives it to the simulation, and compares it with its hash and keyframe. `progress` is called
    /// now and then with the tick that was reached and the last one.
    ///
    /// # Errors
    /// The first difference, or the first damage: what concerns an earlier tick comes first.
    pub fn verify(
        &mut self,
        mut progress: impl FnMut(Tick, Tick),
    ) -> Result<VerifyReport, VerifyError> {
        let (first, last) = (self.reader.first_tick(), self.reader.last_tick());
        if self.shows_states() {
            return self.verify_states(progress);
        }
        // Restart even if the player is here already: someone may have touched the state.
        self.restart()?;
        let mut inputs = InputCheck {
            digests: self.reader.input_digests()?,
            next: 0,
            chain: 0,
            good: first,
            scratch: Vec::new(),
        };
        let mut report = self.blank_report();
        let mut good = None;
        loop {
            let tick = self.tick();
            if let Some(recorded) = self.reader.hash_at(tick)? {
                let simulated = self.combined_hash();
                if simulated != recorded {
                    return Err(VerifyError::Diverged {
                        tick,
                        good,
                        recorded,
                        simulated,
                        cause: self.cause(&mut inputs, tick),
                    });
                }
                good = Some(tick);
                report.hashes += 1;
            }
            if inputs.disagrees(tick) {
                return Err(VerifyError::Inputs {
                    first: inputs.good.next(),
                    last: tick,
                });
            }
            if tick > first
                && let Some(keyframe) = self.reader.keyframe_at(tick)?
            {
                self.compare(tick, &keyframe)?;
                report.keyframes += 1;
            }
            if tick.since(first).is_multiple_of(PROGRESS_TICKS) {
                progress(tick, last);
            }
            if let Some(frame) = self.reader.frame_at(tick.next())? {
                inputs.chain = chain_digest(inputs.chain, frame, &mut inputs.scratch);
            }
            if !self.step_as(StepKind::Again)? {
                break;
            }
        }
        progress(last, last);
        // What no tick above needed must be whole as well.
        self.reader.check_chunks()?;
        self.reader.term_changes()?;
        if let Completeness::Damaged(damage) = report.completeness {
            return Err(VerifyError::Damaged(damage));
        }
        if report.hashes == 0 && report.keyframes == 0 {
            return Err(VerifyError::NothingToCompare);
        }
        Ok(report)
    }

    fn verify_states(
        &mut self,
        mut progress: impl FnMut(Tick, Tick),
    ) -> Result<VerifyReport, VerifyError> {
        let (first, last) = (self.reader.first_tick(), self.reader.last_tick());
        self.restart()?;
        let mut hashes = self.reader.all_hashes()?.into_iter().peekable();
        let mut report = self.blank_report();
        let mut good = None;
        let mut next = Some(first);
        while let Some(tick) = next {
            self.seek(tick)?;
            report.states += 1;
            if let Some(&(missing, _)) = hashes.peek()
                && missing < tick
            {
                // The host hashed a state that is not here.
                return Err(ReadError::Missing {
                    first: missing,
                    last: missing,
                }
                .into());
            }
            if let Some((_, recorded)) = hashes.next_if(|hash| hash.0 == tick) {
                let simulated = self.combined_hash();
                if simulated != recorded {
                    return Err(VerifyError::Diverged {
                        tick,
                        good,
                        recorded,
                        simulated,
                        cause: Cause::Decoded,
                    });
                }
                good = Some(tick);
                report.hashes += 1;
            }
            if let Some(keyframe) = self.reader.keyframe_at(tick)? {
                self.compare(tick, &keyframe)?;
                report.keyframes += 1;
            }
            if report.states.is_multiple_of(PROGRESS_STATES) {
                progress(tick, last);
            }
            next = self.reader.next_state()?;
        }
        if let Some((missing, _)) = hashes.next() {
            return Err(ReadError::Missing {
                first: missing,
                last: missing,
            }
            .into());
        }
        progress(last, last);
        self.reader.check_chunks()?;
        if let Completeness::Damaged(damage) = report.completeness {
            return Err(VerifyError::Damaged(damage));
        }
        if report.hashes == 0 {
            return Err(VerifyError::NothingToCompare);
        }
        Ok(report)
    }

    /// A report of this replay in which nothing is compared yet.
    fn blank_report(&self) -> VerifyReport {
        VerifyReport {
            first: self.reader.first_tick(),
            last: self.reader.last_tick(),
            states: 0,
            hashes: 0,
            keyframes: 0,
            completeness: self.reader.completeness(),
        }
    }

    /// Compares the present state, which is that of `tick`, with its keyframe.
    fn compare(&mut self, tick: Tick, keyframe: &Snapshot) -> Result<(), VerifyError> {
        let present = self.snapshot();
        if present != *keyframe {
            let schema = self.simulation.schema();
            let differences = keyframe.differences(&present, schema, DIFFERENCES_MAX);
            return Err(VerifyError::Keyframe { tick, differences });
        }
        Ok(())
    }

    /// Whether the inputs up to `tick` are the recorded ones: by the first digest at or after it.
    fn cause(&mut self, inputs: &mut InputCheck, mut tick: Tick) -> Cause {
        loop {
            if inputs.disagrees(tick) {
                return Cause::Inputs;
            }
            if inputs.good >= tick {
                return Cause::State;
            }
            tick = tick.next();
            match self.reader.frame_at(tick) {
                Ok(Some(frame)) => {
                    inputs.chain = chain_digest(inputs.chain, frame, &mut inputs.scratch);
                }
                Ok(None) | Err(_) => return Cause::Unknown,
            }
        }
    }
}

/// Compares the inputs with their recorded digests.
struct InputCheck {
    /// Recorded digests, by tick.
    digests: Vec<(Tick, u64)>,
    /// Number of those that were compared.
    next: usize,
    /// Digest of the inputs up to the current tick.
    chain: u64,
    /// The newest tick whose digest agreed.
    good: Tick,
    scratch: Vec<u8>,
}

impl InputCheck {
    /// Whether a digest of `tick` was recorded and the inputs have another.
    fn disagrees(&mut self, tick: Tick) -> bool {
        while let Some(&(digest_tick, digest)) = self.digests.get(self.next) {
            if digest_tick > tick {
                return false;
            }
            // One from before this tick that was not met at its own is out of order.
            if digest_tick < tick || digest != self.chain {
                return true;
            }
            self.good = tick;
            self.next += 1;
        }
        false
    }
}
