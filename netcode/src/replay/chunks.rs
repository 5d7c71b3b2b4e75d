//! Payloads other than input frames and keyframes: hashes, term changes, the index.

use super::format::{CHUNK_HEADER_BYTES, ChunkKind};
use crate::id::{MemberId, Term};
use crate::limits::REPLAY_CHUNK_TICKS_MAX;
use crate::tick::Tick;
use crate::wire::bytes::{DecodeError, Reader, put_varint};

/// State hashes, and the digest of the inputs that were recorded up to some tick.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hashes {
    /// The tick of the newest input frame when this chunk was written.
    pub(super) inputs_tick: Tick,
    /// The chained digest of all input frames up to it.
    pub(super) inputs_chain: u64,
    /// Combined state hashes, by tick ascending; never empty.
    pub(super) hashes: Vec<(Tick, u64)>,
}

impl Hashes {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend(self.inputs_tick.number().to_le_bytes());
        out.extend(self.inputs_chain.to_le_bytes());
        put_varint(out, self.hashes.len() as u64);
        for pair in self.hashes.windows(2) {
            put_varint(out, u64::from(pair[1].0.since(pair[0].0)));
        }
        for (_tick, hash) in &self.hashes {
            out.extend(hash.to_le_bytes());
        }
    }

    pub(super) fn decode(bytes: &[u8], first: Tick, last: Tick) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let inputs_tick = Tick::new(reader.u32()?);
        let inputs_chain = reader.u64()?;
        let count = reader.varint_u32()?;
        if count == 0 || count > REPLAY_CHUNK_TICKS_MAX {
            return Err(DecodeError::Invalid("a chunk has no hashes or too many"));
        }
        let mut tick = first;
        let mut hashes = vec![(first, 0)];
        for _ in 1..count {
            let distance = reader.varint_u32()?;
            let next = tick.number().checked_add(distance).map(Tick::new);
            tick = next
                .filter(|&next| next > tick)
                .ok_or(DecodeError::Invalid("the ticks of hashes do not ascend"))?;
            hashes.push((tick, 0));
        }
        if tick != last {
            return Err(DecodeError::Invalid("hashes do not span their chunk"));
        }
        for (_tick, hash) in &mut hashes {
            *hash = reader.u64()?;
        }
        reader.finish()?;
        Ok(Self {
            inputs_tick,
            inputs_chain,
            hashes,
        })
    }
}

/// Why another host took over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TermCause {
    /// Planned: the old host handed over.
    Handover,
    /// Unplanned: the old host was lost.
    Failover,
}

/// Another host took over while the recording ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TermChange {
    /// First tick of the new term.
    pub takeover: Tick,
    /// The new term.
    pub term: Term,
    /// Who hosts it.
    pub host: MemberId,
    /// Why the host changed.
    pub cause: TermCause,
}

impl TermChange {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, u64::from(self.term.0));
        put_varint(out, self.host.0);
        out.push(match self.cause {
            TermCause::Handover => 1,
            TermCause::Failover => 2,
        });
    }

    pub(super) fn decode(bytes: &[u8], takeover: Tick) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let term = Term(reader.varint_u32()?);
        let host = MemberId(reader.varint()?);
        let cause = match reader.u8()? {
            1 => TermCause::Handover,
            2 => TermCause::Failover,
            _ => return Err(DecodeError::Invalid("unknown cause of a term change")),
        };
        reader.finish()?;
        Ok(Self {
            takeover,
            term,
            host,
            cause,
        })
    }
}

/// Where a chunk is and what it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ChunkRef {
    pub(super) kind: ChunkKind,
    pub(super) first: Tick,
    pub(super) last: Tick,
    /// Offset of its header in the file.
    pub(super) offset: u64,
    /// Its bytes in the file, with the header.
    pub(super) bytes: u64,
}

/// Appends the index entry of a chunk. Offsets follow from the lengths.
pub(super) fn put_index_entry(out: &mut Vec<u8>, chunk: &ChunkRef) {
    out.push(chunk.kind.code());
    put_varint(out, u64::from(chunk.first.number()));
    put_varint(out, u64::from(chunk.last.since(chunk.first)));
    put_varint(out, chunk.bytes);
}

/// Decodes the index of chunks that fill the file from `start` to `end` without a gap.
///
/// # Errors
/// If it is not such an index. A kind that must be understood and is not comes as its number.
pub(super) fn decode_index(
    bytes: &[u8],
    start: u64,
    end: u64,
) -> Result<Vec<ChunkRef>, IndexError> {
    let mut reader = Reader::new(bytes);
    let mut chunks = Vec::new();
    let mut offset = start;
    while !reader.is_empty() {
        let code = reader.u8()?;
        let kind = ChunkKind::from_code(code).ok_or(IndexError::UnknownChunk(code))?;
        let first = Tick::new(reader.varint_u32()?);
        let span = reader.varint_u32()?;
        let last = first.number().checked_add(span).map(Tick::new);
        let length = reader.varint()?;
        let next = offset.checked_add(length);
        let (Some(last), Some(next)) = (last, next) else {
            return Err(IndexError::Decode(DecodeError::Invalid(
                "an index entry overflows",
            )));
        };
        if length < CHUNK_HEADER_BYTES as u64 || next > end {
            return Err(IndexError::Decode(DecodeError::Invalid(
                "an index entry leaves the file",
            )));
        }
        chunks.push(ChunkRef {
            kind,
            first,
            last,
            offset,
            bytes: length,
        });
        offset = next;
    }
    if offset != end {
        return Err(IndexError::Decode(DecodeError::Invalid(
            "the index leaves a gap",
        )));
    }
    Ok(chunks)
}

/// Why an index is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IndexError {
    Decode(DecodeError),
    UnknownChunk(u8),
}

impl From<DecodeError> for IndexError {
    fn from(error: DecodeError) -> Self {
        Self::Decode(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_come_back_and_refuse_other_ticks() {
        let chunk = Hashes {
            inputs_tick: Tick::new(40),
            inputs_chain: 9,
            hashes: [(10, 1), (11, 2), (40, 3)]
                .map(|(tick, hash)| (Tick::new(tick), hash))
                .to_vec(),
        };
        let mut bytes = Vec::new();
        chunk.encode(&mut bytes);
        let decode = |first, last| Hashes::decode(&bytes, Tick::new(first), Tick::new(last));
        assert_eq!(decode(10, 40), Ok(chunk));
        assert!(decode(10, 41).is_err());
        assert!(decode(u32::MAX, u32::MAX).is_err());
    }

    #[test]
    fn an_index_must_fill_its_span() {
        let entry = |offset, bytes| ChunkRef {
            kind: ChunkKind::Inputs,
            first: Tick::new(1),
            last: Tick::new(120),
            offset,
            bytes,
        };
        let chunks = [entry(100, 50), entry(150, 500)];
        let mut bytes = Vec::new();
        chunks
            .iter()
            .for_each(|chunk| put_index_entry(&mut bytes, chunk));
        assert_eq!(decode_index(&bytes, 100, 650).as_deref(), Ok(&chunks[..]));
        assert!(decode_index(&bytes, 100, 651).is_err());
        assert!(decode_index(&bytes, 100, 649).is_err());
        let mut unknown = bytes.clone();
        unknown[0] = 0x1f;
        assert_eq!(
            decode_index(&unknown, 100, 650),
            Err(IndexError::UnknownChunk(0x1f))
        );
    }
}
