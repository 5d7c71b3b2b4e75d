//! Reads a replay chunk by chunk, whole or cut, from a source that nobody vouches for.

mod cursor;

use std::io::{self, Read, Seek, SeekFrom};

use super::chunks::{ChunkRef, Hashes, IndexError, TermChange, decode_index};
use super::format::{
    CHUNK_HEADER_BYTES, ChunkHeader, ChunkKind, Coding, FOOTER_BYTES, decode_footer,
};
use super::header::{Header, OpenError};
use super::inputs::decode_run;
use super::scan::scan;
use crate::hash::digest;
use crate::input::InputFrame;
use crate::limits::REPLAY_CHUNK_TICKS_MAX;
use crate::session::config::Mode;
use crate::state::Snapshot;
use crate::tick::Tick;
use crate::wire::bytes::DecodeError;
use crate::wire::compress::decompress;
use cursor::StateCursor;

/// Why a part of a replay cannot be read. Other parts may be fine.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The source failed.
    #[error("the replay cannot be read: {0}")]
    Io(#[from] io::Error),
    /// A chunk does not have the checksum it should have.
    #[error("the chunk of {kind} for ticks {first} to {last} is damaged")]
    Damaged {
        /// What the chunk holds.
        kind: ChunkKind,
        /// First tick concerned.
        first: Tick,
        /// Last tick concerned.
        last: Tick,
    },
    /// A chunk is as it was written, and still makes no sense.
    #[error("the chunk of {kind} for ticks {first} to {last} makes no sense: {error}")]
    Undecodable {
        /// What the chunk holds.
        kind: ChunkKind,
        /// First tick concerned.
        first: Tick,
        /// Last tick concerned.
        last: Tick,
        /// What is wrong.
        error: DecodeError,
    },
    /// No chunk holds the inputs or states of these ticks, though later ones exist.
    #[error("what happened in ticks {first} to {last} is missing")]
    Missing {
        /// First tick concerned.
        first: Tick,
        /// Last tick concerned.
        last: Tick,
    },
    /// There is no keyframe at this tick or before.
    #[error("there is no keyframe at tick {0} or before")]
    NoKeyframe(Tick),
}

/// Whether a replay is all that was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completeness {
    /// It was finished, and its index is sound.
    Complete,
    /// Its end is missing, as after a crash. What was found plays.
    Cut {
        /// Bytes at the end that belong to no whole chunk.
        lost_bytes: u64,
    },
    /// Something other than the end is damaged.
    Damaged(Damage),
}

/// What is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// The index or the footer. All else plays.
    Index,
    /// Chunks about ticks within this range.
    Ticks {
        /// First tick concerned.
        first: Tick,
        /// Last tick concerned.
        last: Tick,
    },
}

impl core::fmt::Display for Completeness {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Complete => f.write_str("complete"),
            Self::Cut { lost_bytes } => write!(
                f,
                "cut off: its end is missing, and {lost_bytes} bytes before that cannot be used"
            ),
            Self::Damaged(damage) => damage.fmt(f),
        }
    }
}

impl core::fmt::Display for Damage {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Index => f.write_str("the index is damaged"),
            Self::Ticks { first, last } => write!(f, "ticks {first} to {last} are damaged"),
        }
    }
}

/// A replay that is read chunk by chunk; at most one chunk of each kind is in memory.
#[derive(Debug)]
pub struct Reader<R> {
    source: R,
    file_bytes: u64,
    header: Header,
    completeness: Completeness,
    chunks: Chunks,
    frames: Option<(u64, Vec<InputFrame>)>,
    hashes: Option<(u64, Hashes)>,
    states: Option<Box<StateCursor>>,
}

/// The chunks by kind, each list by tick.
#[derive(Debug)]
pub(super) struct Chunks {
    start: Tick,
    mode: Mode,
    pub(super) states: Vec<ChunkRef>,
    pub(super) inputs: Vec<ChunkRef>,
    pub(super) hashes: Vec<ChunkRef>,
    pub(super) keyframes: Vec<ChunkRef>,
    pub(super) terms: Vec<ChunkRef>,
    pub(super) skipped: Vec<ChunkRef>,
}

impl Chunks {
    /// No chunks yet, of a file with this header.
    pub(super) fn new(header: &Header) -> Self {
        Self {
            start: header.start,
            mode: header.mode,
            states: Vec::new(),
            inputs: Vec::new(),
            hashes: Vec::new(),
            keyframes: Vec::new(),
            terms: Vec::new(),
            skipped: Vec::new(),
        }
    }

    /// Adds a chunk; gives it back if its ticks do not follow those of its kind, or the file's mode
    /// has none of that kind.
    pub(super) fn push(&mut self, chunk: ChunkRef) -> Result<(), ChunkRef> {
        let start = self.start;
        let single = chunk.first == chunk.last;
        let (list, fits) = match chunk.kind {
            ChunkKind::Inputs => {
                let short = chunk.last.since(chunk.first) < REPLAY_CHUNK_TICKS_MAX;
                let fits = chunk.first > start && self.mode == Mode::Lockstep;
                (&mut self.inputs, fits && short)
            }
            ChunkKind::States | ChunkKind::MoreStates => {
                // The first chunk begins the first run.
                let begins = chunk.kind == ChunkKind::States || !self.states.is_empty();
                let fits = chunk.first >= start && self.mode == Mode::StateSync;
                (&mut self.states, fits && begins)
            }
            ChunkKind::Hashes => (&mut self.hashes, chunk.first >= start),
            ChunkKind::Keyframe => (&mut self.keyframes, chunk.first >= start && single),
            ChunkKind::TermChanged => (&mut self.terms, chunk.first > start && single),
            ChunkKind::Skipped(_) => {
                self.skipped.push(chunk);
                return Ok(());
            }
            // An index lists chunks, it is not listed.
            ChunkKind::Index => return Err(chunk),
        };
        if !fits || list.last().is_some_and(|before| before.last >= chunk.first) {
            return Err(chunk);
        }
        list.push(chunk);
        Ok(())
    }

    /// All chunks, kind by kind.
    pub(super) fn all(&self) -> impl Iterator<Item = &ChunkRef> {
        [
            &self.inputs,
            &self.states,
            &self.hashes,
            &self.keyframes,
            &self.terms,
            &self.skipped,
        ]
        .into_iter()
        .flatten()
    }
}

impl<R: Read + Seek> Reader<R> {
    /// Opens a replay: reads its header, then its index, or all chunks if there is none.
    ///
    /// # Errors
    /// If the source is no replay, of another version, or damaged within its header. Damage
    /// behind the header is no error here: see [`Reader::completeness`].
    pub fn open(mut source: R) -> Result<Self, OpenError> {
        source.rewind()?;
        let header = Header::read(&mut source)?;
        let start = source.stream_position()?;
        let file_bytes = source.seek(SeekFrom::End(0))?;
        let mut reader = Self {
            source,
            file_bytes,
            chunks: Chunks::new(&header),
            header,
            completeness: Completeness::Complete,
            frames: None,
            hashes: None,
            states: None,
        };
        match reader.read_index(start) {
            Ok(Some(chunks)) => reader.chunks = chunks,
            Ok(None) => {
                let found = scan(&mut reader.source, &reader.header, start, file_bytes)?;
                (reader.chunks, reader.completeness) = found;
            }
            Err(IndexError::UnknownChunk(code)) => return Err(OpenError::UnknownChunk(code)),
            Err(IndexError::Decode(_)) => {
                let found = scan(&mut reader.source, &reader.header, start, file_bytes)?;
                reader.chunks = found.0;
                reader.completeness = match found.1 {
                    damage @ Completeness::Damaged(_) => damage,
                    Completeness::Complete | Completeness::Cut { .. } => {
                        Completeness::Damaged(Damage::Index)
                    }
                };
            }
        }
        Ok(reader)
    }

    /// Gives the source back.
    pub fn into_source(self) -> R {
        self.source
    }

    /// What the replay says about itself.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Whether the replay is all that was recorded.
    #[must_use]
    pub fn completeness(&self) -> Completeness {
        self.completeness
    }

    /// Bytes of the whole file.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// The first tick: that of the first keyframe. The first input frame is the next tick's.
    #[must_use]
    pub fn first_tick(&self) -> Tick {
        self.header.start
    }

    /// The tick of the last input frame or, in state-sync mode, of the last state; the first tick
    /// if there is none.
    #[must_use]
    pub fn last_tick(&self) -> Tick {
        let last = match self.header.mode {
            Mode::Lockstep => self.chunks.inputs.last(),
            Mode::StateSync => self.chunks.states.last(),
        };
        last.map_or(self.header.start, |chunk| chunk.last)
    }

    /// The ticks of all keyframes, ascending.
    pub fn keyframe_ticks(&self) -> impl Iterator<Item = Tick> {
        self.chunks.keyframes.iter().map(|chunk| chunk.first)
    }

    /// The input frame of `tick`, or `None` outside of the replay. Going forward tick by tick
    /// reads each chunk once.
    ///
    /// # Errors
    /// If its chunk is damaged or missing.
    pub fn frame_at(&mut self, tick: Tick) -> Result<Option<&InputFrame>, ReadError> {
        if tick <= self.first_tick() || tick > self.last_tick() {
            return Ok(None);
        }
        let at = self
            .chunks
            .inputs
            .partition_point(|chunk| chunk.last < tick);
        let Some(&chunk) = self.chunks.inputs.get(at) else {
            return Ok(None);
        };
        if chunk.first > tick {
            let before = at
                .checked_sub(1)
                .map(|before| self.chunks.inputs[before].last);
            return Err(ReadError::Missing {
                first: before.unwrap_or(self.first_tick()).next(),
                last: chunk.first.previous(),
            });
        }
        if self
            .frames
            .as_ref()
            .is_none_or(|(offset, _)| *offset != chunk.offset)
        {
            self.frames = None;
            let bytes = self.load(&chunk)?;
            let (slots, size) = (self.header.slots(), self.header.input_bytes);
            let frames = decode_run(&bytes, slots, size, chunk.first, chunk.last)
                .map_err(|error| undecodable(&chunk, error))?;
            self.frames = Some((chunk.offset, frames));
        }
        let index = tick.since(chunk.first) as usize;
        Ok(self
            .frames
            .as_ref()
            .and_then(|(_, frames)| frames.get(index)))
    }

    /// The combined state hash that was recorded at `tick`, if one was.
    ///
    /// # Errors
    /// If its chunk is damaged.
    pub fn hash_at(&mut self, tick: Tick) -> Result<Option<u64>, ReadError> {
        let at = self
            .chunks
            .hashes
            .partition_point(|chunk| chunk.last < tick);
        let Some(&chunk) = self.chunks.hashes.get(at) else {
            return Ok(None);
        };
        if chunk.first > tick {
            return Ok(None);
        }
        if self
            .hashes
            .as_ref()
            .is_none_or(|(offset, _)| *offset != chunk.offset)
        {
            self.hashes = None;
            let hashes = self.load_hashes(&chunk)?;
            self.hashes = Some((chunk.offset, hashes));
        }
        let Some((_, chunk)) = &self.hashes else {
            return Ok(None);
        };
        let found = chunk.hashes.binary_search_by_key(&tick, |&(tick, _)| tick);
        Ok(found.ok().map(|index| chunk.hashes[index].1))
    }

    /// The newest keyframe at `tick` or before. Damaged ones are passed over.
    ///
    /// # Errors
    /// If there is none; if that is because of damage, the error of the newest.
    pub fn keyframe_before(&mut self, tick: Tick) -> Result<Snapshot, ReadError> {
        let end = self
            .chunks
            .keyframes
            .partition_point(|chunk| chunk.first <= tick);
        let mut newest_error = None;
        for at in (0..end).rev() {
            let chunk = self.chunks.keyframes[at];
            match self.load_keyframe(&chunk) {
                Ok(snapshot) => return Ok(snapshot),
                Err(error) => newest_error = newest_error.or(Some(error)),
            }
        }
        Err(newest_error.unwrap_or(ReadError::NoKeyframe(tick)))
    }

    /// The tick of the newest keyframe at `tick` or before, damaged or not.
    pub(super) fn keyframe_tick_before(&self, tick: Tick) -> Option<Tick> {
        let end = self
            .chunks
            .keyframes
            .partition_point(|chunk| chunk.first <= tick);
        Some(self.chunks.keyframes.get(end.checked_sub(1)?)?.first)
    }

    /// The keyframe at exactly `tick`, if there is one.
    ///
    /// # Errors
    /// If it is damaged.
    pub fn keyframe_at(&mut self, tick: Tick) -> Result<Option<Snapshot>, ReadError> {
        let found = self
            .chunks
            .keyframes
            .binary_search_by_key(&tick, |chunk| chunk.first);
        match found {
            Ok(at) => {
                let chunk = self.chunks.keyframes[at];
                Ok(Some(self.load_keyframe(&chunk)?))
            }
            Err(_no_such) => Ok(None),
        }
    }

    /// All hashes, by tick.
    pub(super) fn all_hashes(&mut self) -> Result<Vec<(Tick, u64)>, ReadError> {
        let mut all = Vec::new();
        for at in 0..self.chunks.hashes.len() {
            let chunk = self.chunks.hashes[at];
            all.extend(self.load_hashes(&chunk)?.hashes);
        }
        Ok(all)
    }

    /// The changes of host, by takeover tick.
    ///
    /// # Errors
    /// If one is damaged.
    pub fn term_changes(&mut self) -> Result<Vec<TermChange>, ReadError> {
        let chunks = self.chunks.terms.clone();
        chunks
            .iter()
            .map(|chunk| {
                let bytes = self.load(chunk)?;
                TermChange::decode(&bytes, chunk.first).map_err(|error| undecodable(chunk, error))
            })
            .collect()
    }

    /// Reads every chunk and checks that it is whole.
    ///
    /// # Errors
    /// The first damage found, kind by kind.
    pub fn check_chunks(&mut self) -> Result<(), ReadError> {
        let chunks: Vec<ChunkRef> = self.chunks.all().copied().collect();
        for chunk in &chunks {
            self.load(chunk)?;
        }
        Ok(())
    }

    /// Where the chunks are.
    pub(super) fn chunks(&self) -> &Chunks {
        &self.chunks
    }

    /// Digests of the inputs up to some ticks, by tick. Damaged chunks are passed over.
    pub(super) fn input_digests(&mut self) -> Result<Vec<(Tick, u64)>, ReadError> {
        let mut digests = Vec::new();
        for at in 0..self.chunks.hashes.len() {
            let chunk = self.chunks.hashes[at];
            match self.load_hashes(&chunk) {
                Ok(hashes) => digests.push((hashes.inputs_tick, hashes.inputs_chain)),
                Err(error @ ReadError::Io(_)) => return Err(error),
                // Whoever asks for a hash of that chunk is told.
                Err(_damaged) => {}
            }
        }
        Ok(digests)
    }

    fn load_hashes(&mut self, chunk: &ChunkRef) -> Result<Hashes, ReadError> {
        let bytes = self.load(chunk)?;
        Hashes::decode(&bytes, chunk.first, chunk.last).map_err(|error| undecodable(chunk, error))
    }

    fn load_keyframe(&mut self, chunk: &ChunkRef) -> Result<Snapshot, ReadError> {
        let bytes = self.load(chunk)?;
        let snapshot = Snapshot::decode(&bytes, &self.header.schema)
            .map_err(|error| undecodable(chunk, error))?;
        if snapshot.tick != chunk.first {
            let error = DecodeError::Invalid("the snapshot is of another tick");
            return Err(undecodable(chunk, error));
        }
        Ok(snapshot)
    }

    /// The chunks by the index; `None` if there is no footer that leads to one.
    fn read_index(&mut self, start: u64) -> Result<Option<Chunks>, IndexError> {
        let Some(footer_offset) = self.file_bytes.checked_sub(FOOTER_BYTES as u64) else {
            return Ok(None);
        };
        let mut footer = [0; FOOTER_BYTES];
        let read = self
            .source
            .seek(SeekFrom::Start(footer_offset))
            .and_then(|_offset| self.source.read_exact(&mut footer));
        let (Ok(()), Some(offset)) = (read, decode_footer(&footer)) else {
            return Ok(None);
        };
        let bytes = footer_offset.checked_sub(offset);
        let Some(bytes) = bytes.filter(|_| offset >= start) else {
            return Err(DecodeError::Invalid("the index lies outside of the file").into());
        };
        let payload = self.load_at(ChunkKind::Index, offset, bytes, |_header| true);
        let payload = payload
            .ok()
            .flatten()
            .ok_or(DecodeError::Invalid("the index is damaged"))?;
        let mut chunks = Chunks::new(&self.header);
        for chunk in decode_index(&payload, start, offset)? {
            chunks
                .push(chunk)
                .map_err(|_chunk| DecodeError::Invalid("the ticks of chunks do not ascend"))?;
        }
        Ok(Some(chunks))
    }

    /// The unpacked payload of a chunk.
    fn load(&mut self, chunk: &ChunkRef) -> Result<Vec<u8>, ReadError> {
        let payload = self.load_at(chunk.kind, chunk.offset, chunk.bytes, |header| {
            header.first == chunk.first && header.last == chunk.last
        })?;
        payload.ok_or(ReadError::Damaged {
            kind: chunk.kind,
            first: chunk.first,
            last: chunk.last,
        })
    }

    /// The unpacked payload of the chunk of `bytes` bytes at `offset`, or `None` if there is no
    /// whole one that is as expected. The caller has checked that it lies within the file, so its
    /// length is safe to allocate.
    fn load_at(
        &mut self,
        kind: ChunkKind,
        offset: u64,
        bytes: u64,
        is_expected: impl FnOnce(&ChunkHeader) -> bool,
    ) -> Result<Option<Vec<u8>>, ReadError> {
        let mut header = [0; CHUNK_HEADER_BYTES];
        self.source.seek(SeekFrom::Start(offset))?;
        if !read_all(&mut self.source, &mut header)? {
            return Ok(None);
        }
        let Some(header) = ChunkHeader::decode(&header) else {
            return Ok(None);
        };
        if header.code != kind.code() || header.chunk_bytes() != bytes || !is_expected(&header) {
            return Ok(None);
        }
        let mut stored = vec![0; header.stored_bytes as usize];
        if !read_all(&mut self.source, &mut stored)? || digest(&stored) != header.checksum {
            return Ok(None);
        }
        Ok(match header.coding {
            Coding::Plain => Some(stored),
            Coding::Lz4 => decompress(&stored, kind.decoded_bytes_max()).ok(),
        })
    }
}

/// Fills `bytes`; `false` if the source ends before.
pub(super) fn read_all(source: &mut impl Read, bytes: &mut [u8]) -> Result<bool, io::Error> {
    match source.read_exact(bytes) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn undecodable(chunk: &ChunkRef, error: DecodeError) -> ReadError {
    ReadError::Undecodable {
        kind: chunk.kind,
        first: chunk.first,
        last: chunk.last,
        error,
    }
}
