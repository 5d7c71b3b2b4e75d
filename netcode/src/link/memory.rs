//! Links within one process, over channels: for tests, tools and a player who hosts for himself.
//!
//! A [`MemoryHub`] gives each of its links an address; any of them connects to any other. Nothing
//! is lost unless a receiver stops reading: a link holds [`QUEUE_DATAGRAMS_MAX`] unread messages,
//! then drops and counts what comes on top. Buffers go back to their sender.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use super::{Address, CloseReason, Link, LinkEvent, Opening};
use crate::id::Path;

/// Messages that wait unread at one link.
pub const QUEUE_DATAGRAMS_MAX: usize = 4096;

/// Where a [`MemoryLink`] of a hub is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemoryAddress(u32);

/// What the links of one process have in common.
#[derive(Clone, Debug, Default)]
pub struct MemoryHub {
    doors: Arc<Mutex<Vec<Door>>>,
}

impl MemoryHub {
    /// A hub without links.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A new link with an address of its own.
    #[must_use]
    pub fn link(&self) -> MemoryLink {
        let (messages_in, messages) = bounded(QUEUE_DATAGRAMS_MAX);
        let (spares_in, spares) = bounded(QUEUE_DATAGRAMS_MAX);
        let mut doors = self.doors.lock().unwrap_or_else(PoisonError::into_inner);
        let address = MemoryAddress(u32::try_from(doors.len()).unwrap_or(u32::MAX));
        doors.push(Door {
            messages: messages_in,
            spares: spares_in,
        });
        MemoryLink {
            hub: self.clone(),
            address,
            messages,
            spares,
            peers: BTreeMap::new(),
            path_by_address: BTreeMap::new(),
            path_next: 1,
            lent: None,
            opened: Vec::new(),
            dropped: 0,
        }
    }

    fn door(&self, address: MemoryAddress) -> Option<Door> {
        let doors = self.doors.lock().unwrap_or_else(PoisonError::into_inner);
        doors.get(usize::try_from(address.0).ok()?).cloned()
    }
}

/// Two links that are connected already: both report their path as opened.
#[must_use]
pub fn pair() -> (MemoryLink, MemoryLink) {
    let hub = MemoryHub::new();
    let mut a = hub.link();
    let b = hub.link();
    a.connect(b.address());
    (a, b)
}

/// A link of a [`MemoryHub`].
#[derive(Debug)]
pub struct MemoryLink {
    hub: MemoryHub,
    address: MemoryAddress,
    messages: Receiver<Message>,
    spares: Receiver<Vec<u8>>,
    peers: BTreeMap<Path, Peer>,
    path_by_address: BTreeMap<MemoryAddress, Path>,
    path_next: u32,
    /// The datagram that the last `receive` lent out, and whom its buffer belongs to.
    lent: Option<(Path, Vec<u8>)>,
    /// Paths that `connect` opened and `receive` has not reported yet.
    opened: Vec<Path>,
    dropped: u64,
}

impl MemoryLink {
    /// Where others reach this link.
    #[must_use]
    pub const fn address(&self) -> MemoryAddress {
        self.address
    }

    /// Connects to another link of the hub; both ends see the path open. Gives the existing path if
    /// there is one.
    pub fn connect(&mut self, to: MemoryAddress) -> Path {
        if let Some(&path) = self.path_by_address.get(&to) {
            return path;
        }
        let path = self.open(to);
        self.opened.push(path);
        self.post(path, MessageKind::Open);
        path
    }

    /// Datagrams that were lost because a receiver's queue was full or its link is gone.
    #[must_use]
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }

    fn open(&mut self, address: MemoryAddress) -> Path {
        let path = Path(self.path_next);
        self.path_next += 1;
        let door = self.hub.door(address);
        self.peers.insert(path, Peer { address, door });
        self.path_by_address.insert(address, path);
        path
    }

    fn forget(&mut self, path: Path) {
        if let Some(peer) = self.peers.remove(&path) {
            self.path_by_address.remove(&peer.address);
        }
    }

    fn post(&mut self, path: Path, kind: MessageKind) {
        let Some(door) = self.peers.get(&path).and_then(|peer| peer.door.as_ref()) else {
            self.dropped += 1;
            return;
        };
        let message = Message {
            from: self.address,
            kind,
        };
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            door.messages.try_send(message)
        {
            self.dropped += 1;
        }
    }

    fn give_back_lent(&mut self) {
        if let Some((path, mut bytes)) = self.lent.take()
            && let Some(door) = self.peers.get(&path).and_then(|peer| peer.door.as_ref())
        {
            bytes.clear();
            // A sender without room for its buffers has enough of them.
            let _kept = door.spares.try_send(bytes);
        }
    }
}

impl Link for MemoryLink {
    fn receive(&mut self) -> Option<LinkEvent<'_>> {
        self.give_back_lent();
        if let Some(path) = self.opened.pop() {
            return Some(LinkEvent::Opened { path, client_id: 0 });
        }
        loop {
            let message = self.messages.try_recv().ok()?;
            let known = self.path_by_address.get(&message.from).copied();
            match (message.kind, known) {
                (MessageKind::Open, None) => {
                    let path = self.open(message.from);
                    return Some(LinkEvent::Opened { path, client_id: 0 });
                }
                // Both connected to each other at the same time.
                (MessageKind::Open, Some(_)) => {}
                (MessageKind::Datagram(bytes), Some(path)) => {
                    let (_, bytes) = self.lent.insert((path, bytes));
                    return Some(LinkEvent::Datagram { path, bytes });
                }
                (MessageKind::Close, Some(path)) => {
                    self.forget(path);
                    let reason = CloseReason::Remote;
                    return Some(LinkEvent::Closed { path, reason });
                }
                (MessageKind::Datagram(_) | MessageKind::Close, None) => {}
            }
        }
    }

    fn send(&mut self, path: Path, bytes: &[u8]) {
        let mut buffer = self.spares.try_recv().unwrap_or_default();
        buffer.extend_from_slice(bytes);
        self.post(path, MessageKind::Datagram(buffer));
    }

    fn close(&mut self, path: Path) {
        self.post(path, MessageKind::Close);
        self.forget(path);
    }

    fn address(&self, path: Path) -> Option<Address> {
        Address::new(&self.peers.get(&path)?.address.0.to_le_bytes())
    }

    fn open(&mut self, opening: &Opening) -> Option<Path> {
        let address = u32::from_le_bytes(opening.address.as_bytes().try_into().ok()?);
        self.hub.door(MemoryAddress(address))?;
        (address != self.address.0).then(|| self.connect(MemoryAddress(address)))
    }
}

impl Drop for MemoryLink {
    fn drop(&mut self) {
        let paths: Vec<Path> = self.peers.keys().copied().collect();
        for path in paths {
            self.close(path);
        }
    }
}

/// How to reach a link: its queue, and where its used buffers go.
#[derive(Clone, Debug)]
struct Door {
    messages: Sender<Message>,
    spares: Sender<Vec<u8>>,
}

#[derive(Debug)]
struct Peer {
    address: MemoryAddress,
    /// `None` if no link has this address.
    door: Option<Door>,
}

#[derive(Debug)]
struct Message {
    from: MemoryAddress,
    kind: MessageKind,
}

#[derive(Debug)]
enum MessageKind {
    Open,
    Datagram(Vec<u8>),
    Close,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(link: &mut MemoryLink) -> Path {
        match link.receive() {
            Some(LinkEvent::Opened { path, client_id: 0 }) => path,
            other => panic!("expected an opened path, not {other:?}"),
        }
    }

    #[test]
    fn a_pair_talks_both_ways_and_closes() {
        let (mut a, mut b) = pair();
        let (to_b, to_a) = (opened(&mut a), opened(&mut b));
        for round in 0..100_u8 {
            a.send(to_b, &[round; 10]);
            b.send(to_a, &[round; 20]);
            let bytes: &[u8] = &[round; 10];
            assert_eq!(b.receive(), Some(LinkEvent::Datagram { path: to_a, bytes }));
            let bytes: &[u8] = &[round; 20];
            assert_eq!(a.receive(), Some(LinkEvent::Datagram { path: to_b, bytes }));
            assert_eq!(a.receive(), None);
            assert_eq!(b.receive(), None);
        }
        a.close(to_b);
        let reason = CloseReason::Remote;
        assert_eq!(b.receive(), Some(LinkEvent::Closed { path: to_a, reason }));
        b.send(to_a, &[1]);
        assert_eq!(b.dropped(), 1, "the path is gone");
    }

    #[test]
    fn crossed_connects_open_one_path_each() {
        let hub = MemoryHub::new();
        let (mut a, mut b) = (hub.link(), hub.link());
        let to_b = a.connect(b.address());
        let to_a = b.connect(a.address());
        assert_eq!(a.connect(b.address()), to_b);
        assert_eq!((opened(&mut a), opened(&mut b)), (to_b, to_a));
        assert_eq!((a.receive(), b.receive()), (None, None));
    }

    #[test]
    fn one_link_tells_another_where_a_third_is() {
        let hub = MemoryHub::new();
        let (mut a, mut b, mut c) = (hub.link(), hub.link(), hub.link());
        let to_b = a.connect(b.address());
        a.connect(c.address());
        let address = Link::address(&a, to_b).expect("the path is there");
        let opening = |address| Opening {
            member: crate::id::MemberId(2),
            address,
            invitation: Vec::new(),
        };
        opened(&mut c);
        let path = Link::open(&mut c, &opening(address)).expect("b has a door");
        assert_eq!(opened(&mut c), path);
        opened(&mut b);
        let from_c = opened(&mut b);
        assert_eq!(
            Link::address(&b, from_c).map(|it| it.as_bytes().to_vec()),
            Some(vec![2, 0, 0, 0])
        );
        let nobody = Address::new(&[9, 0, 0, 0]).unwrap();
        let own = Address::new(&[2, 0, 0, 0]).unwrap();
        let other_kind = Address::new(&[1]).unwrap();
        for address in [nobody, own, other_kind] {
            assert_eq!(Link::open(&mut c, &opening(address)), None);
        }
    }

    #[test]
    fn a_dropped_link_closes_its_paths() {
        let (mut a, b) = pair();
        let path = opened(&mut a);
        drop(b);
        // `b` never read its queue, so it never knew of the path: sends vanish and are counted.
        a.send(path, &[1]);
        assert_eq!(a.dropped(), 1);

        let (mut a, mut b) = pair();
        let path = opened(&mut a);
        opened(&mut b);
        drop(b);
        let reason = CloseReason::Remote;
        assert_eq!(a.receive(), Some(LinkEvent::Closed { path, reason }));
    }

    #[test]
    fn a_reader_who_sleeps_loses_what_is_beyond_the_queue() {
        let (mut a, mut b) = pair();
        let path = opened(&mut a);
        for _ in 0..QUEUE_DATAGRAMS_MAX + 10 {
            a.send(path, &[1]);
        }
        // One place is taken by the message that opened the path.
        assert_eq!(a.dropped(), 11);
        opened(&mut b);
        let mut received = 0;
        while b.receive().is_some() {
            received += 1;
        }
        assert_eq!(received, QUEUE_DATAGRAMS_MAX - 1);
    }
}
