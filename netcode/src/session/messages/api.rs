//! What the game says to a link's messages, and what it hears from them.

use super::filter;
use crate::limits::MESSAGE_BYTES_MAX;
use crate::wire::bytes::DecodeError;

/// How a message travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Channel {
    /// Arrives once, in the order of sending among its kind.
    Reliable,
    /// May be lost or arrive out of order; never waits for another.
    Unreliable,
}

impl Channel {
    /// renet's number of the channel; the filter relies on it being that of the packet kind.
    pub(super) const fn number(self) -> u8 {
        match self {
            Self::Reliable => filter::KIND_RELIABLE,
            Self::Unreliable => filter::KIND_UNRELIABLE,
        }
    }
}

/// Sizes and times of one link's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessagesConfig {
    /// Microseconds after which an unacked packet is sent again.
    pub resend_us: u64,
    /// Bytes of messages that may wait for sending, per channel.
    pub send_bytes_max: usize,
    /// Bytes of messages that may wait for the game to take them. Up to as many again may wait for
    /// a lost one before them.
    pub receive_bytes_max: usize,
}

impl Default for MessagesConfig {
    fn default() -> Self {
        Self {
            resend_us: 100_000,
            send_bytes_max: 256 << 10,
            receive_bytes_max: 256 << 10,
        }
    }
}

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// It is longer than [`MESSAGE_BYTES_MAX`].
    #[error("a message of {bytes} B exceeds {MESSAGE_BYTES_MAX} B; send it as a transfer")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// It has no bytes, and would not be seen to arrive.
    #[error("a message must have at least one byte")]
    Empty,
    /// Too much waits for sending.
    #[error("messages of {waiting} B already wait for sending, of {max} B at most")]
    Full {
        /// Bytes that wait.
        waiting: usize,
        /// The limit in the configuration.
        max: usize,
    },
    /// The link's messages ended with a fault.
    #[error("the peer broke the rules of the message channels")]
    Ended,
}

/// A peer's breach of the rules; the link's messages end with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageFault {
    /// A packet cannot be read.
    #[error("a message packet is malformed: {0}")]
    Malformed(#[from] DecodeError),
    /// A packet is of a kind that is not used.
    #[error("message packets of kind {0} are not used")]
    Kind(u8),
    /// A packet names a channel that does not exist, or not for its kind.
    #[error("a message packet names channel {0}")]
    Channel(u8),
    /// A packet holds no messages, or too many.
    #[error("a message packet holds {0} messages")]
    Count(u16),
    /// A message is empty or too long.
    #[error("a message has {0} B")]
    Size(usize),
    /// An ack holds too many ranges.
    #[error("an ack holds {0} ranges after the first")]
    AckRanges(u64),
    /// A reliable message is too far ahead of the next one.
    #[error("reliable message {0} is too far ahead")]
    Ahead(u64),
    /// The peer numbered its packets so that their ack fits no datagram.
    #[error("the ack of the peer's packets has {0} B")]
    AckTooLarge(usize),
    /// renet refused what the filter let through.
    #[error("the message channels were closed")]
    Closed,
}

/// Counters of one link's messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessageStats {
    /// Packets that [`Messages::pump`](super::Messages::pump) gave.
    pub packets_sent: u64,
    /// Packets that were sent again.
    pub packets_resent: u64,
    /// Packets that were refused because the game did not take its messages, or that came too late.
    pub packets_refused: u64,
}
