//! Writes a replay chunk by chunk.

use std::io::{self, Write};
use std::sync::Arc;

use super::chunks::{ChunkRef, Hashes, TermChange, put_index_entry};
use super::format::{ChunkHeader, ChunkKind, Coding, encode_footer};
use super::header::{Header, HeaderError};
use super::inputs::InputRun;
use super::states::StateRun;
use crate::hash::digest;
use crate::input::InputFrame;
use crate::limits::{REPLAY_CHUNK_TICKS_MAX, REPLAY_INDEX_BYTES_MAX, REPLAY_KEYFRAME_BYTES_MAX};
use crate::session::config::Mode;
use crate::state::{ImportError, Schema, Snapshot};
use crate::tick::{Tick, TickRate};
use crate::wire::compress::compress;

/// Why something is not recorded.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The output refused bytes. Nothing more is written; what was written before plays.
    #[error("the replay cannot be written: {0}")]
    Io(#[from] io::Error),
    /// The header has impossible values.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// Sessions of this mode are recorded otherwise: in lockstep mode as frames, hashes and
    /// keyframes, in state-sync mode as states.
    #[error("sessions in {0} mode are recorded otherwise")]
    Mode(Mode),
    /// An input frame is not that of the next tick, or does not have the shape in the header.
    #[error("input frame {found} does not follow: the next is {expected}, in the session's shape")]
    Frame {
        /// The tick that would be next.
        expected: Tick,
        /// The frame's tick.
        found: Tick,
    },
    /// The ticks of hashes, keyframes or term changes must ascend, from the start tick on.
    #[error("a {kind} at tick {found} follows one at tick {newest}")]
    Order {
        /// What is out of order.
        kind: ChunkKind,
        /// The tick that it may not have.
        found: Tick,
        /// The newest tick of its kind.
        newest: Tick,
    },
    /// The first record must be a keyframe at the start tick: without it nobody can play.
    #[error("the replay does not begin with a keyframe at its start tick {0}")]
    NoFirstKeyframe(Tick),
    /// A snapshot is not one of the schema in the header.
    #[error(transparent)]
    Snapshot(#[from] ImportError),
    /// A snapshot is larger than [`REPLAY_KEYFRAME_BYTES_MAX`].
    #[error("the state at tick {0} is too large")]
    KeyframeTooLarge(Tick),
    /// The replay has as many chunks as its index can hold.
    #[error("the replay is full")]
    Full,
    /// An earlier write failed.
    #[error("the replay was given up after an earlier error")]
    Failed,
}

/// What a finished recording consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The tick of the first keyframe.
    pub first: Tick,
    /// The tick of the last input frame; `first` if there is none.
    pub last: Tick,
    /// States written, in state-sync mode.
    pub states: u32,
    /// Keyframes written.
    pub keyframes: u32,
    /// State hashes written.
    pub hashes: u32,
    /// Chunks written, without the index.
    pub chunks: u32,
    /// Bytes of the whole file.
    pub bytes: u64,
}

/// Turns a session into the bytes of a replay, and pushes each chunk as soon as it is complete.
///
/// The order of the calls in lockstep mode: a keyframe at the start tick first; then frames of consecutive ticks,
/// with hashes, keyframes and term changes by ascending tick between them; [`Writer::finish`] at
/// the end. In state-sync mode: [`Writer::state`] for each published state, the first at the start
/// tick, then `finish`. Without `finish` the file lacks its index, and what was not [flushed](Writer::flush).
/// Each chunk is one `write_all`, so an unbuffered output is right.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    schema: Arc<Schema>,
    start: Tick,
    pending: Pending,
    /// In state-sync mode: the states.
    states: Option<Box<StateRun>>,
    newest_keyframe: Option<Tick>,
    newest_takeover: Option<Tick>,
    /// Tick and digest of the newest input frame that is in a chunk.
    inputs: (Tick, u64),
    index: Vec<u8>,
    offset: u64,
    payload: Vec<u8>,
    packed: Vec<u8>,
    chunk: Vec<u8>,
    failed: bool,
    summary: Summary,
}

impl<W: Write> Writer<W> {
    /// Writes the header, and prepares for chunks of two seconds.
    ///
    /// # Errors
    /// If the header is impossible or cannot be written.
    pub fn new(out: W, header: &Header) -> Result<Self, WriteError> {
        Self::with_chunk_ticks(out, header, chunk_ticks(header.tick_rate))
    }

    /// Writes the header. A chunk of inputs is complete after `chunk_ticks` ticks, between 1 and
    /// [`REPLAY_CHUNK_TICKS_MAX`]; a crash loses at most that many.
    ///
    /// # Errors
    /// If the header is impossible or cannot be written.
    pub fn with_chunk_ticks(
        mut out: W,
        header: &Header,
        chunk_ticks: u32,
    ) -> Result<Self, WriteError> {
        let states = match header.mode {
            Mode::Lockstep => None,
            Mode::StateSync => {
                let (rate, ticks) = (header.tick_rate, clamp_ticks(chunk_ticks));
                Some(Box::new(StateRun::new(&header.schema, rate, ticks)))
            }
        };
        let bytes = header.encode()?;
        out.write_all(&bytes)?;
        Ok(Self {
            out,
            schema: Arc::clone(&header.schema),
            start: header.start,
            pending: Pending::new(header, chunk_ticks),
            states,
            newest_keyframe: None,
            newest_takeover: None,
            inputs: (header.start, 0),
            index: Vec::new(),
            offset: bytes.len() as u64,
            payload: Vec::new(),
            packed: Vec::new(),
            chunk: Vec::new(),
            failed: false,
            summary: Summary {
                first: header.start,
                last: header.start,
                states: 0,
                keyframes: 0,
                hashes: 0,
                chunks: 0,
                bytes: bytes.len() as u64,
            },
        })
    }

    /// Records the inputs of the next tick: those that everyone agreed on, never predicted ones.
    ///
    /// # Errors
    /// If it is not the next tick's, or a chunk became complete and cannot be written.
    pub fn frame(&mut self, frame: &InputFrame) -> Result<(), WriteError> {
        self.begin_lockstep()?;
        self.pending.frame(frame)?;
        self.flush_full()
    }

    /// Records the combined state hash at `tick`.
    ///
    /// # Errors
    /// If hashes do not ascend, or a chunk became complete and cannot be written.
    pub fn hash(&mut self, tick: Tick, hash: u64) -> Result<(), WriteError> {
        self.begin_lockstep()?;
        self.pending.hash(tick, hash)?;
        self.flush_full()
    }

    /// Records the whole state at its tick, after all that was recorded before.
    ///
    /// # Errors
    /// If keyframes do not ascend from the start tick, or it is too large or cannot be written.
    pub fn keyframe(&mut self, snapshot: &Snapshot) -> Result<(), WriteError> {
        self.check_lockstep()?;
        let tick = snapshot.tick;
        match self.newest_keyframe {
            None if tick != self.start => return Err(WriteError::NoFirstKeyframe(self.start)),
            Some(newest) if tick <= newest => {
                let kind = ChunkKind::Keyframe;
                return Err(WriteError::Order {
                    kind,
                    found: tick,
                    newest,
                });
            }
            None | Some(_) => {}
        }
        snapshot.validate(&self.schema)?;
        self.write_keyframe(snapshot)
    }

    /// Records a state that was published in state-sync mode. Of kinds that clients do not get,
    /// nothing is recorded. With `is_keyframe`, and at the start tick, the state is recorded as a
    /// keyframe too: in the exact form, which needs no codec.
    ///
    /// # Errors
    /// If states do not ascend from the start tick, it is no state of the schema or too large, or
    /// a chunk became complete and cannot be written.
    pub fn state(&mut self, snapshot: &Snapshot, is_keyframe: bool) -> Result<(), WriteError> {
        self.check_alive()?;
        let Some(mut states) = self.states.take() else {
            return Err(WriteError::Mode(Mode::Lockstep));
        };
        let result = self.push_state(&mut states, snapshot, is_keyframe);
        self.states = Some(states);
        result?;
        let is_full = self.states.as_ref().is_some_and(|states| states.is_full());
        if is_full {
            self.flush()?;
        }
        self.flush_full()
    }

    /// Records that another host took over.
    ///
    /// # Errors
    /// If takeover ticks do not ascend, or it cannot be written.
    pub fn term_changed(&mut self, change: &TermChange) -> Result<(), WriteError> {
        self.begin()?;
        let (kind, found) = (ChunkKind::TermChanged, change.takeover);
        let newest = self.newest_takeover.unwrap_or(self.start);
        if found <= newest {
            return Err(WriteError::Order {
                kind,
                found,
                newest,
            });
        }
        self.flush()?;
        self.payload.clear();
        change.encode(&mut self.payload);
        self.write_chunk(kind, found, found)?;
        self.newest_takeover = Some(found);
        Ok(())
    }

    /// Writes what was recorded and is not yet in a chunk.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn flush(&mut self) -> Result<(), WriteError> {
        self.check_alive()?;
        if let Some(mut states) = self.states.take() {
            let result = self.write_states(&mut states);
            self.states = Some(states);
            result?;
        }
        if self.pending.is_empty() {
            return Ok(());
        }
        let batch = self.pending.take();
        self.put_batch(&batch)
    }

    /// Writes the rest, the index and the footer.
    ///
    /// # Errors
    /// If that cannot be written; what was written before plays all the same.
    pub fn finish(mut self) -> Result<(W, Summary), WriteError> {
        self.begin()?;
        self.flush()?;
        let index_offset = self.offset;
        self.payload.clear();
        self.payload.append(&mut self.index);
        self.write_chunk(ChunkKind::Index, self.start, self.summary.last)?;
        self.out.write_all(&encode_footer(index_offset))?;
        self.out.flush()?;
        // The index does not count itself.
        self.summary.chunks -= 1;
        self.summary.bytes = self.offset + super::format::FOOTER_BYTES as u64;
        Ok((self.out, self.summary))
    }

    /// Writes what another thread collected; it continues what was written before.
    pub(crate) fn write_batch(&mut self, batch: &Batch) -> Result<(), WriteError> {
        self.check_lockstep()?;
        self.put_batch(batch)
    }

    fn put_batch(&mut self, batch: &Batch) -> Result<(), WriteError> {
        self.begin()?;
        if batch.run.ticks() > 0 {
            self.payload.clear();
            batch.run.encode(&mut self.payload);
            let last = batch.run.next_tick().previous();
            self.write_chunk(ChunkKind::Inputs, batch.run.first(), last)?;
            self.inputs = (last, batch.run.chain());
            self.summary.last = last;
        }
        if let (Some(first), Some(last)) = (batch.hashes.first(), batch.hashes.last()) {
            let (first, last) = (first.0, last.0);
            self.payload.clear();
            let hashes = Hashes {
                inputs_tick: self.inputs.0,
                inputs_chain: self.inputs.1,
                hashes: batch.hashes.clone(),
            };
            hashes.encode(&mut self.payload);
            self.write_chunk(ChunkKind::Hashes, first, last)?;
            // At most 2^32 ticks have a hash each.
            self.summary.hashes = self.summary.hashes.saturating_add(count_u32(&batch.hashes));
        }
        Ok(())
    }

    fn push_state(
        &mut self,
        states: &mut StateRun,
        snapshot: &Snapshot,
        is_keyframe: bool,
    ) -> Result<(), WriteError> {
        let found = snapshot.tick;
        match states.newest() {
            None if found != self.start => return Err(WriteError::NoFirstKeyframe(self.start)),
            Some(newest) if found <= newest => {
                let kind = ChunkKind::States;
                return Err(WriteError::Order {
                    kind,
                    found,
                    newest,
                });
            }
            None | Some(_) => {}
        }
        snapshot.validate(&self.schema)?;
        let quantized = states.quantize(snapshot);
        let begins_run = states.begins_run(&quantized);
        if begins_run || is_keyframe {
            self.write_states(states)?;
            self.flush()?;
        }
        if self.newest_keyframe.is_none() || is_keyframe {
            let exact = states
                .exact_of(&self.schema, &quantized)
                .expect("what was quantized stands for a state");
            self.write_keyframe(&exact)?;
        }
        let hash = states.hash(&quantized);
        states
            .push(quantized, begins_run)
            .map_err(|_too_large| WriteError::KeyframeTooLarge(found))?;
        self.pending.hash(found, hash)
    }

    /// Writes the states that wait as a chunk.
    fn write_states(&mut self, states: &mut StateRun) -> Result<(), WriteError> {
        if states.is_empty() {
            return Ok(());
        }
        self.payload.clear();
        let (kind, first, last, count) = states.take(&mut self.payload);
        self.write_chunk(kind, first, last)?;
        self.summary.last = last;
        self.summary.states = self.summary.states.saturating_add(count);
        Ok(())
    }

    fn write_keyframe(&mut self, snapshot: &Snapshot) -> Result<(), WriteError> {
        let tick = snapshot.tick;
        self.flush()?;
        self.payload.clear();
        snapshot.encode(&self.schema, &mut self.payload);
        if self.payload.len() > REPLAY_KEYFRAME_BYTES_MAX {
            return Err(WriteError::KeyframeTooLarge(tick));
        }
        self.write_chunk(ChunkKind::Keyframe, tick, tick)?;
        self.newest_keyframe = Some(tick);
        self.summary.keyframes += 1;
        Ok(())
    }

    fn flush_full(&mut self) -> Result<(), WriteError> {
        if self.pending.is_full() {
            self.flush()?;
        }
        Ok(())
    }

    fn check_alive(&self) -> Result<(), WriteError> {
        if self.failed {
            Err(WriteError::Failed)
        } else {
            Ok(())
        }
    }

    fn check_lockstep(&self) -> Result<(), WriteError> {
        self.check_alive()?;
        match self.states {
            Some(_) => Err(WriteError::Mode(Mode::StateSync)),
            None => Ok(()),
        }
    }

    fn begin_lockstep(&self) -> Result<(), WriteError> {
        self.check_lockstep()?;
        self.begin()
    }

    fn begin(&self) -> Result<(), WriteError> {
        self.check_alive()?;
        match self.newest_keyframe {
            Some(_) => Ok(()),
            None => Err(WriteError::NoFirstKeyframe(self.start)),
        }
    }

    /// Writes `self.payload` as a chunk, packed where that makes it smaller.
    fn write_chunk(&mut self, kind: ChunkKind, first: Tick, last: Tick) -> Result<(), WriteError> {
        self.packed.clear();
        compress(&self.payload, &mut self.packed);
        let (coding, stored) = if self.packed.len() < self.payload.len() {
            (Coding::Lz4, &self.packed)
        } else {
            (Coding::Plain, &self.payload)
        };
        let header = ChunkHeader {
            code: kind.code(),
            coding,
            first,
            last,
            stored_bytes: length_u32(stored)?,
            checksum: digest(stored),
        };
        if kind != ChunkKind::Index {
            let entry = ChunkRef {
                kind,
                first,
                last,
                offset: self.offset,
                bytes: header.chunk_bytes(),
            };
            // Room for the longest entry must stay, so that the index can always be written.
            if self.index.len() + INDEX_ENTRY_BYTES_MAX > REPLAY_INDEX_BYTES_MAX {
                return Err(WriteError::Full);
            }
            put_index_entry(&mut self.index, &entry);
        }
        self.chunk.clear();
        self.chunk.extend(header.encode());
        self.chunk.extend_from_slice(stored);
        // A chunk that was written in part must be the file's last.
        self.failed = true;
        self.out.write_all(&self.chunk)?;
        self.failed = false;
        self.offset += header.chunk_bytes();
        self.summary.chunks += 1;
        self.summary.bytes = self.offset;
        Ok(())
    }
}

/// Kind, two ticks, a length of at most 37 bits.
const INDEX_ENTRY_BYTES_MAX: usize = 1 + 5 + 5 + 6;

/// Ticks of a chunk by default: two seconds, which is what a crash may cost.
pub(crate) fn chunk_ticks(rate: TickRate) -> u32 {
    u32::from(rate.hz()) * 2
}

/// Frames and hashes that wait to become chunks. Checks them, so that what follows cannot fail
/// for another reason than the output.
#[derive(Debug)]
pub(crate) struct Pending {
    start: Tick,
    chunk_ticks: u32,
    batch: Batch,
    newest_hash: Option<Tick>,
}

/// What goes into one pair of chunks.
#[derive(Debug)]
pub(crate) struct Batch {
    run: InputRun,
    hashes: Vec<(Tick, u64)>,
}

impl Pending {
    pub(crate) fn new(header: &Header, chunk_ticks: u32) -> Self {
        let run = InputRun::new(header.slots(), header.input_bytes, header.start.next(), 0);
        Self {
            start: header.start,
            chunk_ticks: clamp_ticks(chunk_ticks),
            batch: Batch {
                run,
                hashes: Vec::new(),
            },
            newest_hash: None,
        }
    }

    pub(crate) fn frame(&mut self, frame: &InputFrame) -> Result<(), WriteError> {
        if !self.batch.run.accepts(frame) {
            return Err(WriteError::Frame {
                expected: self.batch.run.next_tick(),
                found: frame.tick(),
            });
        }
        self.batch.run.push(frame);
        Ok(())
    }

    pub(crate) fn hash(&mut self, tick: Tick, hash: u64) -> Result<(), WriteError> {
        let follows = match self.newest_hash {
            Some(newest) => tick > newest,
            None => tick >= self.start,
        };
        if !follows {
            return Err(WriteError::Order {
                kind: ChunkKind::Hashes,
                found: tick,
                newest: self.newest_hash.unwrap_or(self.start),
            });
        }
        self.newest_hash = Some(tick);
        self.batch.hashes.push((tick, hash));
        Ok(())
    }

    /// Whether a chunk's worth is here. The caller then calls [`Pending::take`].
    pub(crate) fn is_full(&self) -> bool {
        self.batch.run.ticks() >= self.chunk_ticks
            || self.batch.hashes.len() >= REPLAY_CHUNK_TICKS_MAX as usize
    }

    /// Whether there is nothing to take.
    pub(crate) fn is_empty(&self) -> bool {
        self.batch.run.ticks() == 0 && self.batch.hashes.is_empty()
    }

    /// Hands out what has collected, and goes on empty.
    pub(crate) fn take(&mut self) -> Batch {
        let empty = Batch {
            run: self.batch.run.next_run(),
            hashes: Vec::with_capacity(self.batch.hashes.len()),
        };
        core::mem::replace(&mut self.batch, empty)
    }
}

fn clamp_ticks(chunk_ticks: u32) -> u32 {
    chunk_ticks.clamp(1, REPLAY_CHUNK_TICKS_MAX)
}

fn length_u32(bytes: &[u8]) -> Result<u32, WriteError> {
    u32::try_from(bytes.len()).map_err(|_too_long| WriteError::Full)
}

fn count_u32<T>(items: &[T]) -> u32 {
    u32::try_from(items.len()).unwrap_or(u32::MAX)
}
