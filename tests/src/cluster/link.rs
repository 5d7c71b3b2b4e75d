//! The link of a simulated process: what came, and what goes out.

use std::collections::VecDeque;

use phalanx::netcode::id::Path;
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
        self.opens.then(|| {
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
}
