//! Transfers: byte strings too large for a message, in datagrams of their own.
//!
//! Join snapshots, desync dumps and files travel as chunks of [`BULK_CHUNK_BYTES`] beside the
//! tick's datagram, so they never take its room. The receiver learns id, size and digest from a
//! control message first; it acks with everything it has, so a lost ack costs nothing; the sender
//! resends exactly what is missing, and keeps the queue of the path short, so that inputs do not
//! wait behind a transfer.
//!
//! | chunk | bytes | |
//! |---|---|---|
//! | id | 2 | of the transfer |
//! | transmission | 4 | grows with every chunk sent, also one sent again |
//! | index | 4 | of the chunk |
//! | payload | rest | [`BULK_CHUNK_BYTES`], the last chunk fewer |
//!
//! | ack | bytes | |
//! |---|---|---|
//! | id | 2 | of the transfer |
//! | transmission | 4 | the newest that arrived |
//! | delay | varint | microseconds since it arrived |
//! | next | varint | all chunks before this index have arrived, this one has not |
//! | bitmap | varint count, bytes | bit `i`: chunk `next + 1 + i` has arrived; last byte not 0 |

mod congestion;
mod receiver;
mod sender;

pub use receiver::{BulkFinishError, BulkReceiver};
pub use sender::{BulkConfig, BulkSender};

use crate::limits::{BULK_CHUNK_BYTES, SNAPSHOT_BYTES_MAX};

/// A payload, or the claim of one, is larger than allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a transfer of {bytes} B exceeds {max} B")]
pub struct BulkTooLarge {
    /// Its size.
    pub bytes: u64,
    /// What is allowed.
    pub max: u64,
}

/// How far a transfer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that have arrived, as far as this end knows.
    pub bytes: u64,
    /// Bytes of the whole.
    pub total_bytes: u64,
}

impl Progress {
    /// Whether all has arrived.
    #[must_use]
    pub const fn is_complete(self) -> bool {
        self.bytes == self.total_bytes
    }
}

/// Number of chunks of `total` bytes, or an error if they are more than `max` or than a snapshot.
fn chunks_of(total: u64, max: usize) -> Result<u32, BulkTooLarge> {
    let max = max.min(SNAPSHOT_BYTES_MAX) as u64;
    let too_large = BulkTooLarge { bytes: total, max };
    if total > max {
        return Err(too_large);
    }
    u32::try_from(total.div_ceil(BULK_CHUNK_BYTES as u64)).map_err(|_too_many| too_large)
}

/// Bytes of `total` before chunk `index`.
fn offset(index: u32, total: u64) -> u64 {
    (u64::from(index) * BULK_CHUNK_BYTES as u64).min(total)
}

#[cfg(test)]
mod tests;
