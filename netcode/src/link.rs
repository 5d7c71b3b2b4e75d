//! Links: thin shells that move datagrams over paths. They decide nothing.
//!
//! [`memory`] joins links within a process, [`udp`] speaks UDP with or without encryption, and
//! [`conditioned`] puts the bad network of a [`conditioner`] around either. [`replay_file`] moves a
//! recording into a file, by the same rule: no call waits.

pub mod clock;
pub mod conditioned;
pub mod conditioner;
pub mod memory;
pub mod replay_file;
pub mod udp;

use crate::id::{MemberId, Path};

pub use crate::session::close::CloseReason;
pub use crate::session::mesh::{Address, Opening};

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
    /// The path is gone; nothing arrives from it any more. A path that this end closed gives no
    /// such event.
    Closed {
        /// The path.
        path: Path,
        /// Why.
        reason: CloseReason,
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

    /// Where the far end of `path` is, as this end sees it: another link of the same kind can open
    /// a path to there. `None` if the path is gone, or if such links do not reach each other.
    fn address(&self, path: Path) -> Option<Address> {
        let _ = path;
        None
    }

    /// Begins to open a path, besides those that there are; [`LinkEvent::Opened`] or
    /// [`LinkEvent::Closed`] says how it went. `None` if that cannot be tried, for example without
    /// an invitation where one is needed.
    fn open(&mut self, opening: &Opening) -> Option<Path> {
        let _ = opening;
        None
    }

    /// Begins to open another path to where `old` led, which has ended, whichever end had opened
    /// it; [`LinkEvent::Opened`] or [`LinkEvent::Closed`] says how it went. `None` if there is no way
    /// back.
    fn reopen(&mut self, old: Path) -> Option<Path> {
        let _ = old;
        None
    }

    /// The key to which others seal invitations for this link. `None` if it needs none to open a
    /// path.
    fn public_key(&self) -> Option<[u8; 32]> {
        None
    }

    /// Makes an invitation with which `member` may open one path to this link, and which only the
    /// owner of `public_key` can read. `None` if this link needs none, or the key is none.
    fn invite(&mut self, member: MemberId, public_key: &[u8]) -> Option<Vec<u8>> {
        let _ = (member, public_key);
        None
    }
}

impl<L: Link + ?Sized> Link for Box<L> {
    fn receive(&mut self) -> Option<LinkEvent<'_>> {
        (**self).receive()
    }

    fn send(&mut self, path: Path, bytes: &[u8]) {
        (**self).send(path, bytes);
    }

    fn flush(&mut self) {
        (**self).flush();
    }

    fn close(&mut self, path: Path) {
        (**self).close(path);
    }

    fn address(&self, path: Path) -> Option<Address> {
        (**self).address(path)
    }

    fn open(&mut self, opening: &Opening) -> Option<Path> {
        (**self).open(opening)
    }

    fn reopen(&mut self, old: Path) -> Option<Path> {
        (**self).reopen(old)
    }

    fn public_key(&self) -> Option<[u8; 32]> {
        (**self).public_key()
    }

    fn invite(&mut self, member: MemberId, public_key: &[u8]) -> Option<Vec<u8>> {
        (**self).invite(member, public_key)
    }
}

/// A random secret for [`HostConfig`](crate::session::config::HostConfig) and
/// [`JoinConfig`](crate::session::config::JoinConfig), from the operating system.
///
/// # Errors
/// If it has none to give.
pub fn random_secret() -> std::io::Result<u128> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| std::io::Error::other(error.to_string()))?;
    Ok(u128::from_le_bytes(bytes).max(1))
}
