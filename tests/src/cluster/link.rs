//! The link of a simulated process: what came, and what goes out.

use std::collections::{BTreeSet, VecDeque};

use phalanx::netcode::id::{MemberId, Path};
use phalanx::netcode::link::{Address, CloseReason, Link, LinkEvent, Opening};

#[derive(Debug, Default)]
pub(super) struct SimLink {
    pub(super) opened: VecDeque<Path>,
    /// Paths that are gone, which the node has not been told yet.
    pub(super) closed: VecDeque<(Path, CloseReason)>,
    /// Paths that the node has closed or opened lately.
    pub(super) ends: Vec<Path>,
    pub(super) begins: Vec<Path>,
    pub(super) inbox: VecDeque<(Path, Vec<u8>)>,
    pub(super) current: Vec<u8>,
    pub(super) outbox: Vec<(Path, Vec<u8>)>,
    pub(super) spare: Vec<Vec<u8>>,
    /// Whether paths to others can be opened.
    pub(super) opens: bool,
    /// Whether there is a way back over paths that have ended.
    pub(super) reopens: bool,
    /// Paths that are not opened, and lead to those who are not invited.
    pub(super) refuses: BTreeSet<Path>,
    /// How others reach this link, if paths need invitations, as with encrypted links.
    pub(super) sealed: Option<Path>,
}

/// Bytes of an invitation: as many as real ones have.
const INVITATION_BYTES: usize = 1250;

/// The key of the link behind `path`.
fn key_of(path: Path) -> [u8; 32] {
    let mut key = [7; 32];
    key[..4].copy_from_slice(&path.0.to_le_bytes());
    key
}

impl SimLink {
    pub(super) fn has_news(&self) -> bool {
        !self.inbox.is_empty() || !self.opened.is_empty() || !self.closed.is_empty()
    }
}

impl Link for SimLink {
    fn receive(&mut self) -> Option<LinkEvent<'_>> {
        if let Some(path) = self.opened.pop_front() {
            return Some(LinkEvent::Opened { path, client_id: 0 });
        }
        if self.inbox.is_empty()
            && let Some((path, reason)) = self.closed.pop_front()
        {
            return Some(LinkEvent::Closed { path, reason });
        }
        let (path, bytes) = self.inbox.pop_front()?;
        self.spare
            .push(core::mem::replace(&mut self.current, bytes));
        Some(LinkEvent::Datagram {
            path,
            bytes: &self.current,
        })
    }

    fn send(&mut self, path: Path, bytes: &[u8]) {
        let mut copy = self.spare.pop().unwrap_or_default();
        copy.clear();
        copy.extend_from_slice(bytes);
        self.outbox.push((path, copy));
    }

    fn close(&mut self, path: Path) {
        self.ends.push(path);
    }

    fn address(&self, path: Path) -> Option<Address> {
        Address::new(&path.0.to_le_bytes())
    }

    /// Every member reaches every other one: its address is the number of the path to it.
    fn open(&mut self, opening: &Opening) -> Option<Path> {
        let bytes = opening.address.as_bytes().try_into().ok()?;
        let path = Path(u32::from_le_bytes(bytes));
        let is_invited = self.sealed.is_none_or(|own| {
            let invitation = &opening.invitation;
            invitation.len() == INVITATION_BYTES
                && invitation[..32] == key_of(own)
                && invitation[32..64] == key_of(path)
        });
        let may = self.opens && is_invited && !self.refuses.contains(&path);
        may.then(|| {
            self.opened.push_back(path);
            self.begins.push(path);
            path
        })
    }

    fn reopen(&mut self, old: Path) -> Option<Path> {
        self.reopens.then(|| {
            self.opened.push_back(old);
            self.begins.push(old);
            old
        })
    }

    fn public_key(&self) -> Option<[u8; 32]> {
        self.sealed.map(key_of)
    }

    fn invite(&mut self, _member: MemberId, public_key: &[u8]) -> Option<Vec<u8>> {
        let own = self.sealed?;
        if self.refuses.iter().any(|&path| key_of(path) == *public_key) {
            return None;
        }
        let mut invitation = [public_key, &key_of(own)].concat();
        invitation.resize(INVITATION_BYTES, 1);
        Some(invitation)
    }
}
