//! What a replay consists of, for people.

use core::fmt;
use std::io::{Read, Seek};

use super::chunks::{ChunkRef, TermCause, TermChange};
use super::format::{ChunkKind, FORMAT_VERSION};
use super::header::Header;
use super::reader::{Completeness, ReadError, Reader};
use crate::session::config::Mode;
use crate::tick::Tick;

/// What a replay consists of; shown as several lines of text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// The version of its format.
    pub format_version: u16,
    /// What it says about itself.
    pub header: Header,
    /// Whether it is all that was recorded.
    pub completeness: Completeness,
    /// Bytes of the whole file.
    pub file_bytes: u64,
    /// The tick of the first keyframe.
    pub first: Tick,
    /// The tick of the last input frame.
    pub last: Tick,
    /// Chunks of input frames.
    pub inputs: ChunkTotal,
    /// Chunks of states.
    pub states: ChunkTotal,
    /// Chunks of state hashes.
    pub hashes: ChunkTotal,
    /// Keyframes.
    pub keyframes: ChunkTotal,
    /// The largest number of ticks between two keyframes, or between the last one and the end:
    /// a seek simulates at most that many. In state-sync mode, between the beginnings of runs.
    pub keyframe_distance_max: u32,
    /// Changes of host, by takeover tick.
    pub term_changes: Vec<TermChange>,
}

/// Number and size of chunks of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChunkTotal {
    /// How many there are.
    pub chunks: usize,
    /// Their bytes in the file.
    pub bytes: u64,
}

impl ChunkTotal {
    fn of(chunks: &[ChunkRef]) -> Self {
        Self {
            chunks: chunks.len(),
            bytes: chunks.iter().map(|chunk| chunk.bytes).sum(),
        }
    }
}

impl Info {
    /// Milliseconds of play.
    #[must_use]
    pub fn duration_ms(&self) -> u64 {
        let ticks = Tick::new(self.last.since(self.first));
        self.header.tick_rate.micros_at(ticks) / 1000
    }
}

impl<R: Read + Seek> Reader<R> {
    /// What the replay consists of.
    ///
    /// # Errors
    /// If a record of a term change is damaged.
    pub fn info(&mut self) -> Result<Info, ReadError> {
        let term_changes = self.term_changes()?;
        let chunks = self.chunks();
        let runs = chunks.states.iter();
        let runs = runs.filter(|chunk| chunk.kind == ChunkKind::States);
        let places: Vec<Tick> = match self.header().mode {
            Mode::Lockstep => self.keyframe_ticks().collect(),
            Mode::StateSync => runs.map(|chunk| chunk.first).collect(),
        };
        let keyframes: Vec<Tick> = places.into_iter().chain([self.last_tick()]).collect();
        let distances = keyframes.windows(2).map(|pair| pair[1].since(pair[0]));
        Ok(Info {
            format_version: FORMAT_VERSION,
            header: self.header().clone(),
            completeness: self.completeness(),
            file_bytes: self.file_bytes(),
            first: self.first_tick(),
            last: self.last_tick(),
            inputs: ChunkTotal::of(&chunks.inputs),
            states: ChunkTotal::of(&chunks.states),
            hashes: ChunkTotal::of(&chunks.hashes),
            keyframes: ChunkTotal::of(&chunks.keyframes),
            keyframe_distance_max: distances.max().unwrap_or(0),
            term_changes,
        })
    }
}

impl fmt::Display for Info {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = &self.header;
        // Texts come from whoever made the file; what would steer a terminal is escaped.
        let (game, build) = (header.game.escape_debug(), header.build.escape_debug());
        writeln!(f, "game       {game} (build {build})")?;
        writeln!(
            f,
            "format     {}, {}",
            self.format_version, self.completeness
        )?;
        writeln!(f, "session    {}, seed {}", header.session, header.seed)?;
        writeln!(
            f,
            "mode       {}, {} ticks per second",
            header.mode,
            header.tick_rate.hz()
        )?;
        let seconds = self.duration_ms() / 1000;
        writeln!(
            f,
            "ticks      {} to {} ({}:{:02}:{:02}.{:03})",
            self.first,
            self.last,
            seconds / 3600,
            seconds / 60 % 60,
            seconds % 60,
            self.duration_ms() % 1000,
        )?;
        let kinds = header.schema.kinds().len();
        writeln!(f, "schema     {:016x}, {kinds} kinds", header.schema.hash())?;
        let (slots, size) = (header.slots(), header.input_bytes);
        writeln!(f, "inputs     {slots} slots of {size} bytes")?;
        for (slot, name) in header.roster.iter().enumerate() {
            let name = if name.is_empty() { "(free)" } else { name };
            writeln!(f, "  slot {slot:<2}  {}", name.escape_debug())?;
        }
        for change in &self.term_changes {
            let cause = match change.cause {
                TermCause::Handover => "handover",
                TermCause::Failover => "failover",
            };
            let (tick, term, host) = (change.takeover, change.term.0, change.host.0);
            writeln!(f, "term {term:<5} from tick {tick}, host {host} ({cause})")?;
        }
        writeln!(f, "file       {} bytes", self.file_bytes)?;
        for (name, total) in [
            ("inputs", self.inputs),
            ("states", self.states),
            ("hashes", self.hashes),
            ("keyframes", self.keyframes),
        ] {
            if total.chunks == 0 {
                continue;
            }
            writeln!(
                f,
                "  {name:<9} {} bytes in {} chunks",
                total.bytes, total.chunks
            )?;
        }
        write!(
            f,
            "seek       at most {} ticks from a {}",
            self.keyframe_distance_max,
            match header.mode {
                Mode::Lockstep => "keyframe",
                Mode::StateSync => "whole state",
            }
        )
    }
}
