//! Looks at a renet packet before renet does.
//!
//! renet 2.0.1 trusts an authenticated peer too much: slices with a wrong index panic it, empty
//! messages pass its memory limit, one bad byte disconnects it. Here every packet is parsed in full
//! first, and only the three kinds that our own sender makes get through. Numbers are big-endian,
//! and varints are those of QUIC (RFC 9000, section 16).

use core::ops::RangeInclusive;

use super::MessageFault;
use crate::limits::MESSAGE_BYTES_MAX;
use crate::wire::bytes::{DecodeError, Reader};

/// Messages in one packet.
const COUNT_MAX: u16 = 1200;

/// Ranges in one ack. An honest sender keeps 64 at rest and a few more while it sorts.
const RANGES_MAX: u64 = 128;

pub(super) const KIND_RELIABLE: u8 = 0;
pub(super) const KIND_UNRELIABLE: u8 = 1;
pub(super) const KIND_ACK: u8 = 4;

/// What a sound packet holds, as far as flow control needs to know.
#[derive(Debug)]
pub(super) enum Packet {
    /// Messages that must arrive: number and bytes of each.
    Reliable {
        seq: u64,
        messages: Vec<(u64, usize)>,
    },
    /// Messages that may be lost.
    Unreliable { seq: u64 },
    /// Numbers of packets that arrived; ranges descend and do not touch.
    Ack {
        seq: u64,
        ranges: Vec<RangeInclusive<u64>>,
    },
}

impl Packet {
    pub(super) const fn seq(&self) -> u64 {
        match self {
            Self::Reliable { seq, .. } | Self::Unreliable { seq } | Self::Ack { seq, .. } => *seq,
        }
    }
}

/// Reads all of `packet`.
pub(super) fn parse(packet: &[u8]) -> Result<Packet, MessageFault> {
    let mut reader = Reader::new(packet);
    let kind = reader.u8()?;
    if !matches!(kind, KIND_RELIABLE | KIND_UNRELIABLE | KIND_ACK) {
        return Err(MessageFault::Kind(kind));
    }
    let seq = varint(&mut reader)?;
    let parsed = if kind == KIND_ACK {
        let ranges = ranges(&mut reader)?;
        Packet::Ack { seq, ranges }
    } else {
        let messages = messages(&mut reader, kind)?;
        if kind == KIND_RELIABLE {
            Packet::Reliable { seq, messages }
        } else {
            Packet::Unreliable { seq }
        }
    };
    reader.finish()?;
    Ok(parsed)
}

/// Kind and number of a packet that our own renet made.
pub(super) fn head(packet: &[u8]) -> Option<(u8, u64)> {
    let mut reader = Reader::new(packet);
    Some((reader.u8().ok()?, varint(&mut reader).ok()?))
}

/// Bytes that `value` takes as a varint.
pub(super) const fn varint_bytes(value: u64) -> usize {
    match value {
        0..=0x3f => 1,
        0x40..=0x3fff => 2,
        0x4000..=0x3fff_ffff => 4,
        _ => 8,
    }
}

fn messages(reader: &mut Reader<'_>, kind: u8) -> Result<Vec<(u64, usize)>, MessageFault> {
    let channel = reader.u8()?;
    // A channel has the number of the packet kind that carries it.
    if channel != kind {
        return Err(MessageFault::Channel(channel));
    }
    let count = u16::from_be_bytes(reader.array()?);
    if count == 0 || count > COUNT_MAX {
        return Err(MessageFault::Count(count));
    }
    let mut messages = Vec::new();
    for _ in 0..count {
        let id = if kind == KIND_RELIABLE {
            varint(reader)?
        } else {
            0
        };
        let bytes = usize::try_from(varint(reader)?).unwrap_or(usize::MAX);
        if bytes == 0 || bytes > MESSAGE_BYTES_MAX {
            return Err(MessageFault::Size(bytes));
        }
        reader.bytes(bytes)?;
        messages.push((id, bytes));
    }
    Ok(messages)
}

fn ranges(reader: &mut Reader<'_>) -> Result<Vec<RangeInclusive<u64>>, MessageFault> {
    let broken = MessageFault::Malformed(DecodeError::Invalid("an ack range starts below zero"));
    let mut end = varint(reader)?;
    let mut start = end.checked_sub(varint(reader)?).ok_or(broken)?;
    let more = varint(reader)?;
    if more >= RANGES_MAX {
        return Err(MessageFault::AckRanges(more));
    }
    let mut ranges = vec![start..=end];
    for _ in 0..more {
        let gap = varint(reader)?;
        end = start.checked_sub(gap + 2).ok_or(broken)?;
        start = end.checked_sub(varint(reader)?).ok_or(broken)?;
        ranges.push(start..=end);
    }
    Ok(ranges)
}

/// One, two, four or eight bytes; the two highest bits of the first say how many.
fn varint(reader: &mut Reader<'_>) -> Result<u64, DecodeError> {
    let first = reader.u8()?;
    let mut value = u64::from(first & 0x3f);
    for &byte in reader.bytes((1 << (first >> 6)) - 1)? {
        value = value << 8 | u64::from(byte);
    }
    Ok(value)
}
