//! The authority stream: all of the host's state on every standby, every tick, bit for bit.
//!
//! The host's [`StandbyStream`] keeps its newest ticks, shared by all standbys. Per standby a
//! [`StandbyFeed`] sends each tick what is new since the newest state that the standby is known to
//! hold, cut into parts that fit datagrams. Nothing is sent again: if a part is lost, that tick is
//! lost for this standby, and the next one starts from the same acked state. A standby without a
//! state, or with one that does not fit, gets the whole state as a transfer first. On the standby, a
//! [`StandbyState`] puts all of it together, and compares each state with the host's hash.
//!
//! # Two ways to keep up
//! A standby that **runs** has the inputs of every tick, runs the tick itself beside what it shows,
//! and compares the hash: some hundred bytes a tick, whatever the size of the world, no copy of the
//! state on the host, and a successor that is warm. This is the default. It needs a game that
//! computes the same from the same inputs, which state-sync does not demand: at the first hash that
//! differs, or if the host changes its state by what is no input, the standby **copies** instead:
//! each tick brings what has changed in the state, bit for bit.
//!
//! ```text
//! hash, context (and exact Snapshot) -> StandbyStream -> StandbyFeed -> parts
//! parts -> StandbyState -> ticks to run, or exact Snapshots; StandbyAck -> StandbyFeed::on_ack
//! ```
//!
//! Beside the state, each tick has a **context** for whoever carries on from it: bytes whose meaning
//! belongs to the caller, such as [`TickContext`].
//!
//! # Bytes
//! | part | form |
//! |---|---|
//! | term | varint: the host's term |
//! | tick | u32 |
//! | size | varint: bytes of the content |
//! | index | varint: of this part |
//! | payload | [`STANDBY_PART_BYTES`] of the content, fewer in the last part |
//!
//! | content | form |
//! |---|---|
//! | hash | u64: combined hash of the state at the tick |
//! | context | varint length, bytes |
//! | way | u8: 0 runs, 1 copies |
//! | runs | contexts of the ticks before, from the first that the standby has not: varint count; compressed: per tick varint length, bytes |
//! | copies | a delta: see [`DeltaCodec`](crate::state::DeltaCodec) |
//!
//! A whole state is hash and context, then [`Snapshot::compress`](crate::state::Snapshot::compress).
//!
//! | ack | form |
//! |---|---|
//! | flags | u8: 1 holds a state, 2 needs a whole state, 4 what it ran was not what the host had; others are 0 |
//! | number | u32: grows with every ack |
//! | tick | u32: of the newest state that is held; 0 if none is |
//! | before | u32: bit n: the state at `tick - 1 - n` is held |

mod context;
mod feed;
mod receiver;
#[cfg(test)]
mod tests;

pub use context::{PendingInput, TickContext};
pub use feed::{StandbyConfig, StandbyFeed, StandbyFeedStatistics, StandbyStream, WholeState};
pub use receiver::{Held, HeldRun, StandbyError, StandbyState, TickToRun};

use crate::limits::{
    STANDBY_CONTENT_BYTES_MAX, STANDBY_CONTEXT_BYTES_MAX, STANDBY_HISTORY_TICKS, STANDBY_PART_BYTES,
};
use crate::tick::Tick;
use crate::wire::bytes::{DecodeError, Reader, put_counted, put_varint};
use crate::wire::compress::{compress, decompress};

/// How a standby keeps up with the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StandbyMode {
    /// It runs the host's ticks, and compares hashes.
    #[default]
    Runs,
    /// It gets what changes in the state.
    Copies,
}

impl StandbyMode {
    const fn code(self) -> u8 {
        match self {
            Self::Runs => 0,
            Self::Copies => 1,
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match reader.u8()? {
            0 => Ok(Self::Runs),
            1 => Ok(Self::Copies),
            _ => Err(DecodeError::Invalid("a standby keeps up in no such way")),
        }
    }
}

/// What a standby holds, in its own words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StandbyAck {
    /// Grows with every ack; older ones than the newest count for nothing.
    pub number: u32,
    /// The newest state that it holds.
    pub newest: Option<Tick>,
    /// Bit `n`: it holds the state at `newest - 1 - n` as well.
    pub before: u32,
    /// It cannot go on from what it holds.
    pub needs_whole: bool,
    /// What it ran itself was not what the host had.
    pub has_diverged: bool,
}

impl StandbyAck {
    const HOLDS: u8 = 1;
    const NEEDS_WHOLE: u8 = 2;
    const DIVERGED: u8 = 4;

    /// Appends the bytes: 13 of them.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let holds = if self.newest.is_some() {
            Self::HOLDS
        } else {
            0
        };
        let needs = if self.needs_whole {
            Self::NEEDS_WHOLE
        } else {
            0
        };
        let diverged = if self.has_diverged { Self::DIVERGED } else { 0 };
        out.push(holds | needs | diverged);
        out.extend_from_slice(&self.number.to_le_bytes());
        let newest = self.newest.unwrap_or(Tick::ZERO).number();
        out.extend_from_slice(&newest.to_le_bytes());
        out.extend_from_slice(&self.before.to_le_bytes());
    }

    /// Reads an ack; `bytes` are exactly one.
    ///
    /// # Errors
    /// If they are not.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let flags = reader.u8()?;
        let number = reader.u32()?;
        let tick = reader.u32()?;
        let before = reader.u32()?;
        reader.finish()?;
        let holds = flags & Self::HOLDS != 0;
        let is_known = flags & !(Self::HOLDS | Self::NEEDS_WHOLE | Self::DIVERGED) == 0;
        if !is_known || (!holds && (tick != 0 || before != 0)) {
            return Err(DecodeError::Invalid("an ack of a standby has unknown bits"));
        }
        Ok(Self {
            number,
            newest: holds.then_some(Tick::new(tick)),
            before,
            needs_whole: flags & Self::NEEDS_WHOLE != 0,
            has_diverged: flags & Self::DIVERGED != 0,
        })
    }

    /// The ticks of the states that it names, newest first.
    pub fn ticks(&self) -> impl Iterator<Item = Tick> {
        let newest = self.newest.map(|tick| tick.number());
        let before = (0..u32::BITS)
            .filter(|bit| self.before & (1 << bit) != 0)
            .filter_map(move |bit| newest?.checked_sub(1 + bit));
        newest.into_iter().chain(before).map(Tick::new)
    }
}

/// What stands before a part's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PartHead {
    term: u32,
    tick: Tick,
    /// Bytes of the content.
    size: usize,
    index: usize,
}

impl PartHead {
    fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.term.into());
        out.extend_from_slice(&self.tick.number().to_le_bytes());
        put_varint(out, self.size as u64);
        put_varint(out, self.index as u64);
    }

    /// Reads a head; what is left in `reader` is a payload of the right size.
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let term = reader.varint_u32()?;
        let tick = Tick::new(reader.u32()?);
        let number = |reader: &mut Reader<'_>| {
            let number = reader.varint()?;
            Ok(usize::try_from(number).unwrap_or(usize::MAX))
        };
        let head = Self {
            term,
            tick,
            size: number(reader)?,
            index: number(reader)?,
        };
        if head.size > STANDBY_CONTENT_BYTES_MAX || head.index >= parts_of(head.size) {
            return Err(DecodeError::Invalid("a part is beyond its content"));
        }
        let payload = head.size - head.index * STANDBY_PART_BYTES;
        if reader.len() != payload.min(STANDBY_PART_BYTES) {
            return Err(DecodeError::Invalid("a part has another size"));
        }
        Ok(head)
    }
}

/// Parts of a content of `size` bytes.
const fn parts_of(size: usize) -> usize {
    size.div_ceil(STANDBY_PART_BYTES)
}

/// What all contents begin with.
struct ContentHead<'a> {
    hash: u64,
    context: &'a [u8],
}

impl<'a> ContentHead<'a> {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.hash.to_le_bytes());
        put_counted(out, self.context);
    }

    fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            hash: reader.u64()?,
            context: reader.counted(STANDBY_CONTENT_BYTES_MAX)?,
        })
    }
}

/// Appends the contexts of several ticks.
fn put_contexts<'a>(contexts: impl ExactSizeIterator<Item = &'a [u8]>, out: &mut Vec<u8>) {
    put_varint(out, contexts.len() as u64);
    let mut bytes = Vec::new();
    contexts.for_each(|context| put_counted(&mut bytes, context));
    // Players repeat their inputs from tick to tick.
    compress(&bytes, out);
}

/// Reads what [`put_contexts`] wrote, which is all that is left.
fn read_contexts(reader: &Reader<'_>) -> Result<Vec<Vec<u8>>, DecodeError> {
    let mut reader = reader.clone();
    let count = usize::try_from(reader.varint()?).unwrap_or(usize::MAX);
    if count > STANDBY_HISTORY_TICKS as usize {
        return Err(DecodeError::Invalid("too many ticks at once"));
    }
    let bytes = decompress(reader.rest(), STANDBY_CONTENT_BYTES_MAX)?;
    let mut reader = Reader::new(&bytes);
    let mut contexts = Vec::with_capacity(count);
    for _ in 0..count {
        contexts.push(reader.counted(STANDBY_CONTEXT_BYTES_MAX)?.to_vec());
    }
    reader.finish()?;
    Ok(contexts)
}
