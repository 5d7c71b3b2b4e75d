//! The receiving end of a transfer.

use super::{BulkTooLarge, Progress, chunks_of, offset};
use crate::hash::digest;
use crate::limits::{BULK_CHUNK_BYTES, BULK_WINDOW_CHUNKS_MAX};
use crate::time::Time;
use crate::wire::bytes::{DecodeError, Reader, put_counted, put_varint};

/// Chunks after which an ack is due.
const ACK_CHUNKS: u32 = 8;
/// Time after which an ack of fewer is due.
const ACK_US: u64 = 2000;

/// Why there is no payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BulkFinishError {
    /// Chunks are missing, or the payload was taken before.
    #[error("the transfer is not complete")]
    Incomplete,
    /// The bytes are not those that were announced.
    #[error("the transfer's bytes do not match their digest")]
    DigestMismatch,
}

/// Receives one payload; see the [module](super).
#[derive(Debug)]
pub struct BulkReceiver {
    id: u16,
    total_bytes: u64,
    chunk_count: u32,
    digest: u64,
    /// The payload as far as the furthest chunk that has arrived.
    buffer: Vec<u8>,
    /// A bit per chunk that has arrived, as far as `buffer`.
    arrived: Vec<u64>,
    /// Index of the first chunk that has not arrived.
    next: u32,
    /// Index after the furthest that has.
    end: u32,
    bytes: u64,
    /// Newest transmission, and when it arrived.
    newest: Option<(u32, Time)>,
    unacked: u32,
    unacked_since: Option<Time>,
    taken: bool,
}

impl BulkReceiver {
    /// A receiver of the transfer `id`, of which `total_bytes` and `digest`
    /// ([`crate::hash::digest`]) were announced. Memory is taken as chunks arrive.
    ///
    /// # Errors
    /// If `total_bytes` exceeds `max_bytes` or any snapshot.
    pub fn new(
        id: u16,
        total_bytes: u64,
        digest: u64,
        max_bytes: usize,
    ) -> Result<Self, BulkTooLarge> {
        Ok(Self {
            id,
            total_bytes,
            chunk_count: chunks_of(total_bytes, max_bytes)?,
            digest,
            buffer: Vec::new(),
            arrived: Vec::new(),
            next: 0,
            end: 0,
            bytes: 0,
            newest: None,
            unacked: 0,
            unacked_since: None,
            taken: false,
        })
    }

    /// Number of the transfer.
    #[must_use]
    pub const fn id(&self) -> u16 {
        self.id
    }

    /// Whether all has arrived.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.next == self.chunk_count
    }

    /// What has arrived.
    #[must_use]
    pub const fn progress(&self) -> Progress {
        Progress {
            bytes: self.bytes,
            total_bytes: self.total_bytes,
        }
    }

    /// Takes a chunk. One that came before is only acked again.
    ///
    /// # Errors
    /// If it does not belong to this transfer as announced; nothing has changed then.
    pub fn handle_chunk(&mut self, now: Time, bytes: &[u8]) -> Result<Progress, DecodeError> {
        let mut reader = Reader::new(bytes);
        if reader.u16()? != self.id {
            return Err(DecodeError::Invalid("a chunk is of another transfer"));
        }
        let transmission = reader.u32()?;
        let index = reader.u32()?;
        let payload = reader.rest();
        if index >= self.chunk_count {
            return Err(DecodeError::Invalid("a chunk is beyond the transfer's end"));
        }
        if index.saturating_sub(self.next) >= BULK_WINDOW_CHUNKS_MAX {
            return Err(DecodeError::Invalid("a chunk is beyond the window"));
        }
        let start = offset(index, self.total_bytes);
        let end = offset(index + 1, self.total_bytes);
        if payload.len() as u64 != end - start {
            return Err(DecodeError::Invalid("a chunk has a wrong size"));
        }
        self.unacked = self.unacked.saturating_add(1);
        self.unacked_since.get_or_insert(now);
        if self.newest.is_none_or(|(newest, _)| transmission > newest) {
            self.newest = Some((transmission, now));
        }
        if !self.has(index) {
            self.store(index, start, payload);
        }
        Ok(self.progress())
    }

    /// Appends an ack to `out` if one is due, and says whether it did: after some chunks, after a
    /// short time, or when all has arrived. Keep asking for a while after the end: if the last ack
    /// is lost, the sender repeats chunks until it gets another.
    pub fn write_ack(&mut self, now: Time, out: &mut Vec<u8>) -> bool {
        let due = self.unacked >= ACK_CHUNKS || self.next_ack_time().is_some_and(|at| now >= at);
        let Some((newest, newest_at)) = self.newest.filter(|_| due) else {
            return false;
        };
        let delay_us = u32::try_from(now.micros_since(newest_at)).unwrap_or(u32::MAX);
        out.extend(self.id.to_le_bytes());
        out.extend(newest.to_le_bytes());
        put_varint(out, u64::from(delay_us));
        put_varint(out, u64::from(self.next));
        let mut bitmap = Vec::new();
        for (bit, index) in (self.next.saturating_add(1)..self.end).enumerate() {
            if bit % 8 == 0 {
                bitmap.push(0);
            }
            if self.has(index)
                && let Some(byte) = bitmap.last_mut()
            {
                *byte |= 1_u8 << (bit % 8);
            }
        }
        put_counted(out, &bitmap);
        self.unacked = 0;
        self.unacked_since = None;
        true
    }

    /// When [`BulkReceiver::write_ack`] should be called, if no chunk comes before; `None` when
    /// nothing waits for an ack.
    #[must_use]
    pub fn next_ack_time(&self) -> Option<Time> {
        let us = if self.is_complete() { 0 } else { ACK_US };
        self.unacked_since.map(|since| since.plus_micros(us))
    }

    /// The payload, once. The receiver goes on to ack chunks that come again.
    ///
    /// # Errors
    /// If it is not complete, or not what was announced.
    pub fn finish(&mut self) -> Result<Vec<u8>, BulkFinishError> {
        if !self.is_complete() || self.taken {
            return Err(BulkFinishError::Incomplete);
        }
        if digest(&self.buffer) != self.digest {
            return Err(BulkFinishError::DigestMismatch);
        }
        self.taken = true;
        Ok(core::mem::take(&mut self.buffer))
    }

    #[cfg(test)]
    pub(super) const fn buffer_capacity(&self) -> usize {
        self.buffer.capacity()
    }

    fn has(&self, index: u32) -> bool {
        index < self.next
            || self
                .arrived
                .get(index as usize / 64)
                .is_some_and(|word| word & (1 << (index % 64)) != 0)
    }

    fn store(&mut self, index: u32, start: u64, payload: &[u8]) {
        // The window bounds how far a chunk may lie beyond what has arrived.
        let start = usize::try_from(start).unwrap_or(usize::MAX);
        let end = start + payload.len();
        if self.buffer.len() < end {
            self.grow(end);
            self.buffer.resize(end, 0);
        }
        self.buffer[start..end].copy_from_slice(payload);
        let word = index as usize / 64;
        if self.arrived.len() <= word {
            self.arrived.resize(word + 1, 0);
        }
        self.arrived[word] |= 1 << (index % 64);
        self.bytes += payload.len() as u64;
        self.end = self.end.max(index + 1);
        while self.next < self.end && self.arrived_at(self.next) {
            self.next += 1;
        }
        debug_assert!(self.bytes <= self.total_bytes);
        debug_assert!(self.end - self.next <= BULK_WINDOW_CHUNKS_MAX);
        debug_assert!(self.buffer.len() <= self.end as usize * BULK_CHUNK_BYTES);
    }

    fn arrived_at(&self, index: u32) -> bool {
        self.arrived[index as usize / 64] & (1 << (index % 64)) != 0
    }

    /// Makes room for `bytes`, and for as many again, but never for more than was announced.
    fn grow(&mut self, bytes: usize) {
        if bytes > self.buffer.capacity() {
            let total = usize::try_from(self.total_bytes).unwrap_or(usize::MAX);
            let wanted = (2 * bytes).min(total).max(bytes);
            self.buffer.reserve_exact(wanted - self.buffer.len());
        }
    }
}
