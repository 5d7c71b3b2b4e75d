//! Warm links: this node's paths to the other members, kept open and measured, so that hosting can
//! move without a handshake.
//!
//! The host introduces members to each other: [`Mesh::meet`] takes what it says. Of two members the
//! one with the lower id opens a path, over the link that the node has anyway; the other one learns
//! of it by the first datagram with a right mac. Host and client use the path of their tick
//! datagrams. Over each path goes a datagram four times per second, and at once when a message
//! waits. It echoes what was heard: so each end knows the round trip, and until when the other one
//! was certainly there.
//!
//! A mesh belongs to the node, not to its role: it goes on when hosting moves.
//!
//! Invariants: `paths` names exactly the paths of `peers`; a path leads to one member.

mod peer;

use std::collections::{BTreeMap, VecDeque};

use crate::id::{MemberId, Path};
use crate::limits::{MEMBERS_MAX, MESH_INBOX_MESSAGES_MAX, MESH_MESSAGE_BYTES_MAX};
use crate::session::control::Route;
use crate::session::mesh::{Address, MeshDatagram, Opening, PairKey};
use crate::session::statistics::{Body, DropReason};
use crate::time::Time;

use self::peer::MeshPeer;

pub(super) use self::peer::Invitation;

/// Bytes of a key to which invitations are sealed.
const PUBLIC_KEY_BYTES: usize = 32;

/// A message from a member, with what is known of its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Received {
    /// Who sent it.
    pub(super) from: MemberId,
    /// Its bytes.
    pub(super) bytes: Vec<u8>,
    /// When it arrived.
    pub(super) at: Time,
    /// Over which path.
    pub(super) path: Path,
}

/// What the mesh wants said to the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// An invitation from this member, sealed to this key.
    Invite(MemberId, [u8; PUBLIC_KEY_BYTES]),
    /// This invitation is for this member.
    Invitation(MemberId, Vec<u8>),
}

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum MeshError {
    /// There is no such member in the mesh.
    #[error("member {0} is not in the mesh")]
    NoPeer(MemberId),
    /// It is empty, or longer than [`MESH_MESSAGE_BYTES_MAX`].
    #[error("a message of the mesh has 1 to {MESH_MESSAGE_BYTES_MAX} B, not {0}")]
    Size(usize),
}

/// This node's paths to the other members; see the [module](self).
#[derive(Debug)]
pub(super) struct Mesh {
    own: MemberId,
    peers: BTreeMap<MemberId, MeshPeer>,
    paths: BTreeMap<Path, MemberId>,
    received: VecDeque<Received>,
    wishes: VecDeque<Wish>,
    closing: VecDeque<Path>,
}

impl Mesh {
    /// The mesh of member `own`, which knows nobody yet.
    pub(super) fn new(own: MemberId) -> Self {
        Self {
            own,
            peers: BTreeMap::new(),
            paths: BTreeMap::new(),
            received: VecDeque::new(),
            wishes: VecDeque::new(),
            closing: VecDeque::new(),
        }
    }

    // ---- getters ----

    /// Whose mesh it is.
    pub(super) const fn own(&self) -> MemberId {
        self.own
    }

    /// The members that it knows.
    pub(super) fn members(&self) -> impl Iterator<Item = MemberId> {
        self.peers.keys().copied()
    }

    /// What is known of the link to `member`.
    pub(super) fn peer(&self, member: MemberId) -> Option<&MeshPeer> {
        self.peers.get(&member)
    }

    /// When a datagram of the mesh came from `member` last.
    pub(super) fn heard(&self, member: MemberId) -> Option<Time> {
        self.peers.get(&member)?.heard_at
    }

    /// When the newest datagram of the mesh that `member` has echoed was sent.
    pub(super) fn echoed_at(&self, member: MemberId) -> Option<Time> {
        self.peers.get(&member)?.echoed_at
    }

    /// The smoothed round trip to `member` in microseconds.
    pub(super) fn rtt(&self, member: MemberId) -> Option<u64> {
        self.peers.get(&member)?.rtt.smoothed_us()
    }

    /// The path to `member`.
    pub(super) fn path(&self, member: MemberId) -> Option<Path> {
        self.peers.get(&member)?.path
    }

    /// Members that have shown at the other end of a path that they are who they are.
    pub(super) fn confirmed_paths(&self) -> impl Iterator<Item = (MemberId, Path)> {
        let confirmed = self.peers.iter().filter(|(_, peer)| peer.is_confirmed);
        confirmed.filter_map(|(&member, peer)| Some((member, peer.path?)))
    }

    /// The member at the other end of `path`.
    pub(super) fn member_of(&self, path: Path) -> Option<MemberId> {
        self.paths.get(&path).copied()
    }

    /// Whether `member` is heard over its path, and hears this node.
    pub(super) fn is_confirmed(&self, member: MemberId) -> bool {
        self.peers.get(&member).is_some_and(|it| it.is_confirmed)
    }

    /// Whether this node and `member` never had a path to each other.
    pub(super) fn is_stranger(&self, member: MemberId) -> bool {
        let peer = self.peers.get(&member);
        peer.is_none_or(|peer| !peer.has_met && !peer.carries_ticks && !peer.is_sought())
    }

    /// The neighbour by whose word `member` is to be met; `None` if it is the host's, or they have met.
    pub(super) fn introducer(&self, member: MemberId) -> Option<MemberId> {
        self.peers.get(&member)?.introducer
    }

    // ---- who there is ----

    /// Takes notice of a member, or of a new secret or route to one that is known. A path that is
    /// there stays. A member beyond the limit of a session is not taken notice of.
    pub(super) fn meet(&mut self, now: Time, member: MemberId, key: PairKey, route: &Route) {
        if member == self.own || *route == Route::Apart {
            self.forget(member);
            return;
        }
        if let Some(peer) = self.peers.get_mut(&member) {
            peer.renew(now, key);
        } else if self.peers.len() < MEMBERS_MAX {
            let peer = MeshPeer::new(self.own, member, key, now);
            self.peers.insert(member, peer);
        }
        let Some(peer) = self.peers.get_mut(&member) else {
            return;
        };
        peer.introducer = None;
        match route {
            Route::Opens(address) => peer.opens(now, Address::new(address)),
            Route::Accepts(_) => peer.accepts(),
            Route::Here | Route::Apart => peer.carries_ticks = true,
        }
    }

    /// Takes notice of a member that this node has not met, by the word of a neighbour.
    pub(super) fn meet_stranger(
        &mut self,
        now: Time,
        neighbour: MemberId,
        member: MemberId,
        key: PairKey,
        address: Address,
    ) {
        let route = if self.own < member {
            Route::Opens(address.as_bytes().to_vec())
        } else {
            Route::Accepts(address.as_bytes().to_vec())
        };
        self.meet(now, member, key, &route);
        if let Some(peer) = self.peers.get_mut(&member) {
            peer.introducer = Some(neighbour);
            peer.hurry(now);
        }
    }

    /// Forgets a member, and closes the path to it if it was only the mesh's.
    pub(super) fn forget(&mut self, member: MemberId) {
        if let Some(peer) = self.peers.remove(&member)
            && let Some(path) = peer.path
        {
            self.paths.remove(&path);
            if !peer.carries_ticks {
                self.closing.push_back(path);
            }
        }
    }

    /// Forgets all members but those that `keep` names.
    pub(super) fn retain(&mut self, keep: impl Fn(MemberId) -> bool) {
        let gone: Vec<MemberId> = self.members().filter(|&member| !keep(member)).collect();
        for member in gone {
            self.forget(member);
        }
    }

    /// The path of `member` is the one over which the role talks to it; `None` if it has none now.
    /// No other member is reached over it.
    pub(super) fn set_path(&mut self, now: Time, member: MemberId, path: Option<Path>) {
        let Some(peer) = self.peers.get_mut(&member) else {
            return;
        };
        peer.carries_ticks = path.is_some();
        if peer.path == path {
            return;
        }
        self.closing.extend(peer.attempt());
        if let Some(old) = peer.path {
            self.paths.remove(&old);
        }
        peer.set_path(now, path);
        if let Some(path) = path
            && let Some(other) = self.paths.insert(path, member)
            && let Some(other) = self.peers.get_mut(&other)
        {
            other.set_path(now, None);
        }
        self.invariants();
    }

    /// Of all members, these are those over whose path tick datagrams go.
    pub(super) fn keep_ticks(&mut self, keep: impl Fn(MemberId) -> bool) {
        for (member, peer) in &mut self.peers {
            peer.carries_ticks &= keep(*member);
        }
    }

    /// Ends it: all paths that are only the mesh's are to be closed.
    pub(super) fn stop(&mut self) {
        self.retain(|_| false);
        self.received.clear();
        self.wishes.clear();
    }

    /// Takes a part of an invitation from `member`.
    pub(super) fn take_invitation(&mut self, member: MemberId, part: &Invitation<'_>, now: Time) {
        if let Some(peer) = self.peers.get_mut(&member) {
            peer.take_invitation(part, now);
        }
    }

    /// `member` asks for an invitation that is sealed to its key.
    pub(super) fn invite(&mut self, member: MemberId, public_key: &[u8]) {
        if let Some(peer) = self.peers.get_mut(&member)
            && peer.is_accepting()
        {
            peer.invites = public_key.try_into().ok();
        }
    }

    /// `member`, which this node has not met, asks for an invitation by way of a neighbour.
    pub(super) fn invite_stranger(
        &mut self,
        now: Time,
        neighbour: MemberId,
        member: MemberId,
        public_key: [u8; PUBLIC_KEY_BYTES],
    ) -> Result<(), DropReason> {
        let peer = self.peers.get_mut(&member);
        let peer = peer.filter(|peer| peer.introducer.is_some() && peer.is_accepting());
        let peer = peer.ok_or(DropReason::Unexpected)?;
        if !peer.may_invite(now) {
            return Err(DropReason::RateLimited);
        }
        peer.introducer = Some(neighbour);
        peer.invites = Some(public_key);
        Ok(())
    }

    // ---- paths ----

    /// The next path that the link should open; answer with [`Mesh::handle_path_open`].
    pub(super) fn poll_open(&mut self, now: Time) -> Option<Opening> {
        self.peers.values_mut().find_map(|peer| peer.poll_open(now))
    }

    /// The path to `member` is under way; `None` if the link could not even try. A link with a
    /// public key needs an invitation that is sealed to it.
    pub(super) fn handle_path_open(
        &mut self,
        now: Time,
        member: MemberId,
        path: Option<Path>,
        public_key: Option<[u8; PUBLIC_KEY_BYTES]>,
    ) {
        let Some(peer) = self.peers.get_mut(&member) else {
            self.closing.extend(path);
            return;
        };
        match path {
            // A link never has one path for two.
            Some(path) if !self.paths.contains_key(&path) => {
                if let Some(old) = peer.path {
                    self.paths.remove(&old);
                }
                peer.set_path(now, Some(path));
                peer.is_up = false;
                self.paths.insert(path, member);
            }
            Some(_) | None => {
                peer.cannot_open(now);
                if let Some(key) = public_key {
                    self.wishes.push_back(Wish::Invite(member, key));
                }
            }
        }
        self.invariants();
    }

    /// The path may be used from now on.
    pub(super) fn handle_path_opened(&mut self, now: Time, path: Path) {
        if let Some(member) = self.paths.get(&path)
            && let Some(peer) = self.peers.get_mut(member)
        {
            peer.is_up = true;
            peer.next_at = now;
        }
    }

    /// Nothing comes over the path any more: the other end or the link has ended it. The link is
    /// asked for a way back.
    pub(super) fn handle_path_closed(&mut self, now: Time, path: Path) {
        if let Some(member) = self.leave_path(now, path)
            && let Some(peer) = self.peers.get_mut(&member)
        {
            peer.seek(now, path);
        }
    }

    /// This node does without the path: it is closed, or will be.
    pub(super) fn leave_path(&mut self, now: Time, path: Path) -> Option<MemberId> {
        self.closing.retain(|closing| *closing != path);
        let member = self.paths.remove(&path)?;
        if let Some(peer) = self.peers.get_mut(&member) {
            peer.set_path(now, None);
        }
        Some(member)
    }

    /// Whether paths to members were lost to which the link may find a way back.
    pub(super) fn is_seeking(&self) -> bool {
        self.peers.values().any(MeshPeer::is_sought)
    }

    /// The next member to whom the link should go back, and the path that led there; answer with
    /// [`Mesh::handle_path_reopen`].
    pub(super) fn poll_reopen(&mut self, now: Time) -> Option<(MemberId, Path)> {
        let mut peers = self.peers.iter_mut();
        peers.find_map(|(member, peer)| Some((*member, peer.poll_reopen(now)?)))
    }

    /// The path to `member` is under way; `None` if there is no way back.
    pub(super) fn handle_path_reopen(&mut self, now: Time, member: MemberId, path: Option<Path>) {
        let Some(peer) = self.peers.get_mut(&member) else {
            self.closing.extend(path);
            return;
        };
        match path {
            Some(path) if !self.paths.contains_key(&path) => {
                peer.set_path(now, Some(path));
                peer.is_up = false;
                self.paths.insert(path, member);
            }
            Some(_) | None => peer.give_up_way_back(),
        }
        self.invariants();
    }

    /// The next path that the link should close.
    pub(super) fn poll_close(&mut self) -> Option<Path> {
        self.closing.pop_front()
    }

    /// The next member that the link should invite, and its key; answer with
    /// [`Mesh::handle_invitation`].
    pub(super) fn poll_invite(&mut self) -> Option<(MemberId, [u8; PUBLIC_KEY_BYTES])> {
        let mut peers = self.peers.iter_mut();
        peers.find_map(|(member, peer)| Some((*member, peer.invites.take()?)))
    }

    /// The link has made an invitation for `member`; `None` if it needs none.
    pub(super) fn handle_invitation(&mut self, member: MemberId, invitation: Option<Vec<u8>>) {
        if let Some(invitation) = invitation
            && self.peers.contains_key(&member)
        {
            self.wishes.push_back(Wish::Invitation(member, invitation));
        }
    }

    /// What to say to the host next.
    pub(super) fn poll_wish(&mut self) -> Option<Wish> {
        self.wishes.pop_front()
    }

    // ---- datagrams ----

    /// Takes a datagram: in the order of its checks, it is refused or used.
    pub(super) fn handle_datagram(
        &mut self,
        now: Time,
        path: Path,
        bytes: &[u8],
    ) -> Result<(), DropReason> {
        let from = MeshDatagram::sender(bytes).ok_or(DropReason::Malformed)?;
        let is_foreign = self.member_of(path).is_some_and(|member| member != from);
        let peer = self.peers.get_mut(&from).ok_or(DropReason::UnknownPath)?;
        let result = if is_foreign || !peer.may_come_over(path) {
            Err(DropReason::UnknownPath)
        } else {
            peer.read(now, path, bytes)
        };
        let (datagram, under) = match result {
            Ok(read) => read,
            Err(reason) => {
                peer.statistics.drops.count(reason);
                return Err(reason);
            }
        };
        peer.statistics.count_received(Body::Mesh, bytes.len());
        if peer.path != Some(path) {
            self.closing.extend(peer.attempt());
            if let Some(old) = peer.path {
                self.paths.remove(&old);
            }
            peer.set_path(now, Some(path));
            self.paths.insert(path, from);
        }
        peer.accept(now, &datagram, under);
        for message in datagram.messages() {
            if self.received.len() >= MESH_INBOX_MESSAGES_MAX {
                self.received.pop_front();
            }
            self.received.push_back(Received {
                from,
                bytes: message.to_vec(),
                at: now,
                path,
            });
        }
        self.invariants();
        Ok(())
    }

    /// The next message that has arrived.
    pub(super) fn poll_received(&mut self) -> Option<Received> {
        self.received.pop_front()
    }

    /// Sends a message to `member` with the next datagram, which leaves at once if a path is there.
    /// It may be lost. While many wait, the oldest make room.
    pub(super) fn send(&mut self, member: MemberId, message: Vec<u8>) -> Result<(), MeshError> {
        if !(1..=MESH_MESSAGE_BYTES_MAX).contains(&message.len()) {
            return Err(MeshError::Size(message.len()));
        }
        let peer = self.peers.get_mut(&member);
        peer.ok_or(MeshError::NoPeer(member))?.push(message);
        Ok(())
    }

    /// Writes the next datagram into `out` and says where it goes.
    pub(super) fn poll_transmit(&mut self, now: Time, out: &mut Vec<u8>) -> Option<Path> {
        self.peers
            .values_mut()
            .find_map(|peer| peer.write(now, out))
    }

    /// When something is due next, without what the link has to do first.
    pub(super) fn poll_timeout(&self) -> Time {
        let times = self.peers.values().map(MeshPeer::next_time);
        times.min().unwrap_or(Time::FAR)
    }

    fn invariants(&self) {
        debug_assert!(
            self.paths.iter().all(|(path, member)| {
                self.peers
                    .get(member)
                    .is_some_and(|peer| peer.path == Some(*path))
            }),
            "a path leads to the member that has it"
        );
        let with_path = self.peers.values().filter(|peer| peer.path.is_some());
        debug_assert_eq!(with_path.count(), self.paths.len());
    }
}

#[cfg(test)]
mod tests;
