//! The container: magic numbers, chunk headers and the footer, as `docs/REPLAY.md` lays them out.

use crate::hash::digest;
use crate::limits::{REPLAY_CHUNK_TICKS_MAX, REPLAY_INDEX_BYTES_MAX, REPLAY_KEYFRAME_BYTES_MAX};
use crate::tick::Tick;

/// The version of the format that this crate writes, and the only one that it reads.
pub const FORMAT_VERSION: u16 = 1;

/// The first bytes of every replay.
pub(super) const MAGIC: [u8; 8] = *b"PHXREPL\n";
/// The last bytes of every finished replay.
pub(super) const FOOTER_MAGIC: [u8; 8] = *b"PHXRDONE";
/// Magic, version, reserved, length of the header's body.
pub(super) const PREAMBLE_BYTES: usize = 16;
/// Offset of the index, checksum, magic.
pub(super) const FOOTER_BYTES: usize = 24;
/// The first bytes of every chunk; a reader that lost its way looks for them.
pub(super) const CHUNK_MARKER: [u8; 2] = [0xc7, 0x4b];
/// Bytes before a chunk's payload.
pub(super) const CHUNK_HEADER_BYTES: usize = 28;

/// Kinds below this one must be understood; others may be skipped.
const SKIPPABLE_KIND_MIN: u8 = 0x80;

/// What a chunk holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChunkKind {
    /// `0x01`: input frames of consecutive ticks.
    Inputs,
    /// `0x02`: state hashes, and a digest of all inputs so far.
    Hashes,
    /// `0x03`: the whole state at one tick.
    Keyframe,
    /// `0x04`: another host took over.
    TermChanged,
    /// `0x10`: quantized states that follow each other; the first needs no other.
    States,
    /// `0x11`: states that follow those of the chunk of states before.
    MoreStates,
    /// `0x7f`: where all other chunks are.
    Index,
    /// `0x80` and above: an addition that readers of this version pass over.
    Skipped(u8),
}

impl ChunkKind {
    /// The kind's number in files.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Inputs => 0x01,
            Self::Hashes => 0x02,
            Self::Keyframe => 0x03,
            Self::TermChanged => 0x04,
            Self::States => 0x10,
            Self::MoreStates => 0x11,
            Self::Index => 0x7f,
            Self::Skipped(code) => code,
        }
    }

    /// The kind with this number, or `None` where this version must understand it and cannot.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0x01 => Some(Self::Inputs),
            0x02 => Some(Self::Hashes),
            0x03 => Some(Self::Keyframe),
            0x04 => Some(Self::TermChanged),
            0x10 => Some(Self::States),
            0x11 => Some(Self::MoreStates),
            0x7f => Some(Self::Index),
            SKIPPABLE_KIND_MIN.. => Some(Self::Skipped(code)),
            _ => None,
        }
    }

    /// The most that a payload of this kind decodes to, in bytes.
    pub(super) const fn decoded_bytes_max(self) -> usize {
        match self {
            // Per tick at most 576 B of values, and 64 slots x 11 bits of gaps.
            Self::Inputs => REPLAY_CHUNK_TICKS_MAX as usize * 1024,
            Self::Hashes => REPLAY_CHUNK_TICKS_MAX as usize * 18 + 32,
            Self::TermChanged => 64,
            Self::Index => REPLAY_INDEX_BYTES_MAX,
            Self::Keyframe | Self::States | Self::MoreStates | Self::Skipped(_) => {
                REPLAY_KEYFRAME_BYTES_MAX
            }
        }
    }
}

impl core::fmt::Display for ChunkKind {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Inputs => f.write_str("inputs"),
            Self::Hashes => f.write_str("hashes"),
            Self::Keyframe => f.write_str("keyframe"),
            Self::TermChanged => f.write_str("term change"),
            Self::States | Self::MoreStates => f.write_str("states"),
            Self::Index => f.write_str("index"),
            Self::Skipped(code) => write!(f, "skipped kind {code:#04x}"),
        }
    }
}

/// How a payload is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    /// As it is.
    Plain,
    /// In the form of [`crate::wire::compress`]: its length, then one LZ4 block.
    Lz4,
}

/// What stands before a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ChunkHeader {
    /// The kind's number; it may be unknown to this version.
    pub(super) code: u8,
    pub(super) coding: Coding,
    /// First tick that the chunk is about.
    pub(super) first: Tick,
    /// Last tick that the chunk is about.
    pub(super) last: Tick,
    /// Bytes of the payload in the file.
    pub(super) stored_bytes: u32,
    /// XXH3-64 of the payload as it is stored.
    pub(super) checksum: u64,
}

impl ChunkHeader {
    /// The header's bytes.
    pub(super) fn encode(&self) -> [u8; CHUNK_HEADER_BYTES] {
        let mut bytes = [0; CHUNK_HEADER_BYTES];
        bytes[..2].copy_from_slice(&CHUNK_MARKER);
        bytes[2] = self.code;
        bytes[3] = match self.coding {
            Coding::Plain => 0,
            Coding::Lz4 => 1,
        };
        bytes[4..8].copy_from_slice(&self.first.number().to_le_bytes());
        bytes[8..12].copy_from_slice(&self.last.number().to_le_bytes());
        bytes[12..16].copy_from_slice(&self.stored_bytes.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.checksum.to_le_bytes());
        let check = header_check(&bytes);
        bytes[24..].copy_from_slice(&check);
        bytes
    }

    /// Reads a header, or `None` if these bytes are none: wrong marker, wrong check, or values
    /// that no writer gives.
    pub(super) fn decode(bytes: &[u8; CHUNK_HEADER_BYTES]) -> Option<Self> {
        if bytes[..2] != CHUNK_MARKER || bytes[24..] != header_check(bytes) {
            return None;
        }
        let word = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let coding = match bytes[3] {
            0 => Coding::Plain,
            1 => Coding::Lz4,
            _ => return None,
        };
        let header = Self {
            code: bytes[2],
            coding,
            first: Tick::new(word(4)),
            last: Tick::new(word(8)),
            stored_bytes: word(12),
            checksum: u64::from(word(16)) | u64::from(word(20)) << 32,
        };
        header.is_plausible().then_some(header)
    }

    /// Whether length and ticks respect the limits of the kind. Packed payloads are shorter than
    /// plain ones, else they are not packed.
    fn is_plausible(&self) -> bool {
        let limit = ChunkKind::from_code(self.code)
            .map_or(REPLAY_KEYFRAME_BYTES_MAX, ChunkKind::decoded_bytes_max);
        self.stored_bytes as usize <= limit && self.first <= self.last
    }

    /// Bytes of the chunk in the file, its header included.
    pub(super) fn chunk_bytes(&self) -> u64 {
        CHUNK_HEADER_BYTES as u64 + u64::from(self.stored_bytes)
    }
}

/// The low half of the XXH3-64 of all but the last four bytes.
fn header_check(bytes: &[u8; CHUNK_HEADER_BYTES]) -> [u8; 4] {
    let sum = digest(&bytes[..CHUNK_HEADER_BYTES - 4]).to_le_bytes();
    [sum[0], sum[1], sum[2], sum[3]]
}

/// The last bytes of a finished replay, which say where its index is.
pub(super) fn encode_footer(index_offset: u64) -> [u8; FOOTER_BYTES] {
    let mut bytes = [0; FOOTER_BYTES];
    bytes[..8].copy_from_slice(&index_offset.to_le_bytes());
    bytes[8..16].copy_from_slice(&digest(&index_offset.to_le_bytes()).to_le_bytes());
    bytes[16..].copy_from_slice(&FOOTER_MAGIC);
    bytes
}

/// Where the index is, or `None` if these bytes are no footer.
pub(super) fn decode_footer(bytes: &[u8; FOOTER_BYTES]) -> Option<u64> {
    let (offset, _rest) = bytes.split_first_chunk::<8>()?;
    let index_offset = u64::from_le_bytes(*offset);
    (*bytes == encode_footer(index_offset)).then_some(index_offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_header_survives_and_no_flipped_bit_does() {
        let header = ChunkHeader {
            code: ChunkKind::Inputs.code(),
            coding: Coding::Lz4,
            first: Tick::new(7),
            last: Tick::new(126),
            stored_bytes: 300,
            checksum: 0x0123_4567_89ab_cdef,
        };
        let bytes = header.encode();
        assert_eq!(ChunkHeader::decode(&bytes), Some(header));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(ChunkHeader::decode(&flipped), None, "bit {bit}");
        }
    }

    #[test]
    fn impossible_lengths_and_ticks_are_no_header() {
        let good = ChunkHeader {
            code: ChunkKind::Keyframe.code(),
            coding: Coding::Lz4,
            first: Tick::new(7),
            last: Tick::new(7),
            stored_bytes: 10,
            checksum: 0,
        };
        let decode = |header: ChunkHeader| ChunkHeader::decode(&header.encode());
        assert!(decode(good).is_some());
        assert_eq!(
            decode(ChunkHeader {
                last: Tick::new(6),
                ..good
            }),
            None
        );
        assert_eq!(
            decode(ChunkHeader {
                stored_bytes: u32::MAX,
                ..good
            }),
            None
        );
    }

    #[test]
    fn a_footer_survives_and_no_flipped_bit_does() {
        let bytes = encode_footer(123_456);
        assert_eq!(decode_footer(&bytes), Some(123_456));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode_footer(&flipped), None, "bit {bit}");
        }
    }
}
