//! Verifies a replay: simulates it from its start and compares all that was recorded.

use std::io::{Read, Seek};

use super::inputs::chain_digest;
use super::player::{PlayError, Player};
use super::reader::{Completeness, Damage, ReadError};
use crate::id::NetId;
use crate::simulation::Simulation;
use crate::state::Snapshot;
use crate::tick::Tick;

/// What a verification found to be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifyReport {
    /// The first tick.
    pub first: Tick,
    /// The last tick.
    pub last: Tick,
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
    #[error("the keyframe at tick {tick} is wrong: \"{kind}\" of entity {id} differs")]
    Keyframe {
        /// Its tick.
        tick: Tick,
        /// The first kind that differs, in the order of the schema.
        kind: String,
        /// The first entity that differs in it.
        id: NetId,
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
    /// The replay does not say: it was cut before it did.
    Unknown,
}

impl core::fmt::Display for Cause {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::State => "the recorded inputs lead to another state",
            Self::Inputs => "the inputs are not those that were recorded",
            Self::Unknown => "the state differs",
        })
    }
}

/// Ticks between two calls of the progress function.
const PROGRESS_TICKS: u32 = 600;

impl<S: Simulation, R: Read + Seek> Player<S, R> {
    /// Simulates the whole replay from its first keyframe, and compares every recorded hash,
    /// every keyframe and the digests of the inputs, in the order of ticks. `progress` is called
    /// now and then with the tick that was reached and the last one.
    ///
    /// # Errors
    /// The first difference, or the first damage: what concerns an earlier tick comes first.
    pub fn verify(
        &mut self,
        mut progress: impl FnMut(Tick, Tick),
    ) -> Result<VerifyReport, VerifyError> {
        let (first, last) = (self.reader.first_tick(), self.reader.last_tick());
        // Restart even if the player is here already: someone may have touched the state.
        self.restart()?;
        let mut inputs = InputCheck {
            digests: self.reader.input_digests()?,
            next: 0,
            chain: 0,
            good: first,
            scratch: Vec::new(),
        };
        let mut report = VerifyReport {
            first,
            last,
            hashes: 0,
            keyframes: 0,
            completeness: self.reader.completeness(),
        };
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
                let simulated = self.snapshot();
                if simulated != keyframe {
                    let (kind, id) = first_difference(&keyframe, &simulated);
                    let kinds = self.simulation.schema().kinds();
                    let kind = kinds.get(kind).map(|kind| kind.name.clone());
                    return Err(VerifyError::Keyframe {
                        tick,
                        kind: kind.unwrap_or_default(),
                        id,
                    });
                }
                report.keyframes += 1;
            }
            if tick.since(first).is_multiple_of(PROGRESS_TICKS) {
                progress(tick, last);
            }
            if let Some(frame) = self.reader.frame_at(tick.next())? {
                inputs.chain = chain_digest(inputs.chain, frame, &mut inputs.scratch);
            }
            if !self.step()? {
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

/// The number of the first kind in which two snapshots differ, and the first such entity.
fn first_difference(a: &Snapshot, b: &Snapshot) -> (usize, NetId) {
    for (number, (a, b)) in a.kinds.iter().zip(&b.kinds).enumerate() {
        if a != b {
            // Rows are by id, so at the first pair that differs the lower id is the one.
            let pair = a.rows().zip(b.rows()).find(|(a, b)| a != b);
            let longer = || a.ids.iter().max().max(b.ids.iter().max()).copied();
            let id = pair.map(|((a, _), (b, _))| a.min(b)).or_else(longer);
            return (number, id.unwrap_or(NetId::NONE));
        }
    }
    (a.kinds.len(), NetId::NONE)
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
