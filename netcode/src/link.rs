//! Links: thin shells that move datagrams over paths. They decide nothing.

use crate::id::Path;

/// What a link has to say.
#[derive(Debug, PartialEq, Eq)]
pub enum LinkEvent<'a> {
    /// A path may be used from now on: a peer connected, or this end's connection came up.
    Opened {
        /// The path.
        path: Path,
        /// Identity that the link has verified, for example from a connect token; 0 if none.
        client_id: u64,
    },
    /// A datagram arrived.
    Datagram {
        /// Where from.
        path: Path,
        /// Its payload, without what the link added.
        bytes: &'a [u8],
    },
    /// The path is gone; nothing arrives from it any more.
    Closed {
        /// The path.
        path: Path,
    },
}

/// Moves datagrams. Loss, reordering and duplication are allowed; corruption is not.
pub trait Link {
    /// Takes the next event that has arrived, or `None`. Never waits. The bytes live until the next
    /// call.
    fn receive(&mut self) -> Option<LinkEvent<'_>>;

    /// Sends `bytes` (at most [`DATAGRAM_BYTES_MAX`](crate::limits::DATAGRAM_BYTES_MAX)) over
    /// `path`. Never waits. A datagram that cannot be sent is lost, and counted by the link.
    fn send(&mut self, path: Path, bytes: &[u8]);

    /// Hands what was sent since the last call to the network, and closes `path`s that
    /// [`Link::close`] named. A link that sends at once does nothing here.
    fn flush(&mut self) {}

    /// Ends a path: tells the far end, then forgets it.
    fn close(&mut self, path: Path);
}
