//! A node and its [mesh](super::mesh): what the host says of members, what the link is asked, and
//! what role and mesh together know of a member.

use super::mesh::{Invitation, Mesh, Wish};
use super::strangers::parts_of;
use super::{Node, Role};
use crate::id::{MemberId, Path};
use crate::limits::{INVITATION_BYTES_MAX, INVITATION_PART_BYTES_MAX};
use crate::session::control::{Control, Route};
use crate::session::introduction::Introduction;
use crate::session::mesh::{Address, Opening, PairKey};
use crate::session::peer::Peer;
use crate::session::statistics::{DropReason, PeerStatistics};
use crate::time::Time;

/// A path of the mesh: the link to one other member, where hosting may move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MeshLink {
    /// Who is at the other end.
    pub member: MemberId,
    /// The path, if there is one.
    pub path: Option<Path>,
    /// Whether both ends hear each other over it.
    pub is_confirmed: bool,
    /// Smoothed round trip in microseconds, if measured.
    pub rtt_us: Option<u64>,
    /// Its deviation in microseconds.
    pub jitter_us: u64,
    /// When something was heard last.
    pub heard_at: Option<Time>,
    /// When the newest datagram was sent that the other end has echoed: it was there after that.
    pub echoed_at: Option<Time>,
    /// Share of its datagrams that did not arrive here, in 1/256.
    pub loss: u8,
    /// Counters of the mesh's own datagrams.
    pub statistics: PeerStatistics,
}

impl Node {
    /// The links of the mesh. None where hosting does not move.
    pub fn mesh_links(&self) -> impl Iterator<Item = MeshLink> {
        let mesh = self.mesh.as_deref();
        mesh.into_iter().flat_map(move |mesh| {
            mesh.members().filter_map(move |member| {
                let peer = mesh.peer(member)?;
                Some(MeshLink {
                    member,
                    path: peer.path,
                    is_confirmed: peer.is_confirmed,
                    rtt_us: self.rtt(member),
                    jitter_us: peer.rtt.deviation_us(),
                    heard_at: self.heard(member),
                    echoed_at: self.echoed_at(member),
                    loss: peer.loss,
                    statistics: peer.statistics,
                })
            })
        })
    }

    /// When anything came from `member` last, over the mesh or with ticks.
    pub(super) fn heard(&self, member: MemberId) -> Option<Time> {
        let mesh = self.mesh.as_ref().and_then(|mesh| mesh.heard(member));
        mesh.max(self.tick_peer(member).map(|peer| peer.heard_at))
    }

    /// When the newest datagram that `member` has echoed or acked was sent: it was there after
    /// that.
    pub(super) fn echoed_at(&self, member: MemberId) -> Option<Time> {
        let mesh = self.mesh.as_ref().and_then(|mesh| mesh.echoed_at(member));
        mesh.max(self.tick_peer(member).and_then(|peer| peer.echoed_at))
    }

    /// The round trip to `member` in microseconds, by tick datagrams where there are any.
    pub(super) fn rtt(&self, member: MemberId) -> Option<u64> {
        let peer = self.tick_peer(member);
        peer.and_then(|peer| peer.rtt.smoothed_us())
            .or_else(|| self.mesh.as_ref()?.rtt(member))
    }

    /// The role's end of the link to `member`, if they exchange ticks.
    fn tick_peer(&self, member: MemberId) -> Option<&Peer> {
        match &self.role {
            Role::Host(host) => {
                let guest = host.guests.get(&self.mesh.as_ref()?.path(member)?);
                guest
                    .map(|guest| &guest.peer)
                    .filter(|peer| peer.member == member)
            }
            Role::Client(client) => {
                let is_host = self.mesh.as_ref()?.path(member)? == client.path();
                is_host.then_some(&client.peer)
            }
        }
    }

    /// The mesh of the session, and that of the one before a fork.
    pub(super) fn meshes(&mut self) -> impl Iterator<Item = &mut Mesh> {
        let own = self.mesh.as_deref_mut();
        let former = self.former.as_mut().map(|former| &mut *former.mesh);
        own.into_iter().chain(former)
    }

    /// Takes a datagram of either.
    pub(super) fn take_mesh_datagram(
        &mut self,
        now: Time,
        path: Path,
        bytes: &[u8],
    ) -> Result<(), DropReason> {
        let mut result = Err(DropReason::Unexpected);
        for mesh in self.meshes() {
            result = mesh.handle_datagram(now, path, bytes);
            if result.is_ok() {
                break;
            }
        }
        result
    }

    // ---- what the link is asked ----

    /// The next path that the link should open; answer with [`Node::handle_path_open`].
    pub fn poll_open(&mut self, now: Time) -> Option<Opening> {
        self.mesh.as_mut()?.poll_open(now)
    }

    /// Answers [`Node::poll_open`]: the path to `member` under way, or `None` if the link could not
    /// even try. A link with a `public_key` needs invitations that are sealed to it: if it could
    /// not try, another one is asked for.
    pub fn handle_path_open(
        &mut self,
        now: Time,
        member: MemberId,
        path: Option<Path>,
        public_key: Option<[u8; 32]>,
    ) {
        if let Some(mesh) = &mut self.mesh {
            mesh.handle_path_open(now, member, path, public_key);
        }
        self.grant_wishes();
    }

    /// The next member to whom the path has ended, and that path: the link should open another one to
    /// where it led; answer with [`Node::handle_path_reopen`].
    pub fn poll_reopen(&mut self, now: Time) -> Option<(MemberId, Path)> {
        self.meshes().find_map(|mesh| mesh.poll_reopen(now))
    }

    /// Answers [`Node::poll_reopen`]: the path to `member` under way, or `None` if there is no way
    /// back.
    pub fn handle_path_reopen(&mut self, now: Time, member: MemberId, path: Option<Path>) {
        let of_member = self.meshes().position(|mesh| mesh.peer(member).is_some());
        // Where nobody wants the path any more, either closes it.
        if let Some(mesh) = self.meshes().nth(of_member.unwrap_or(0)) {
            mesh.handle_path_reopen(now, member, path);
        }
    }

    /// Takes notice that `path` may be used from now on.
    pub fn handle_path_opened(&mut self, now: Time, path: Path) {
        for mesh in self.meshes() {
            mesh.handle_path_opened(now, path);
        }
    }

    /// The next path of which the link should say where its far end is; answer with
    /// [`Node::handle_address`].
    pub fn poll_address(&mut self) -> Option<Path> {
        let path = match &mut self.role {
            Role::Host(host) => host.introductions.poll_address(),
            Role::Client(_) => None,
        };
        path.or_else(|| self.strangers.poll_address())
    }

    /// Answers [`Node::poll_address`].
    pub fn handle_address(&mut self, now: Time, path: Path, address: Option<Address>) {
        if let Role::Host(host) = &mut self.role {
            host.introductions.handle_address(path, address);
        }
        self.introduce_waiting(path, address);
        self.tend_mesh(now);
    }

    /// The next member that the link should invite, and the key to which the invitation is sealed;
    /// answer with [`Node::handle_invitation`].
    pub fn poll_invite(&mut self) -> Option<(MemberId, [u8; 32])> {
        self.mesh.as_mut()?.poll_invite()
    }

    /// Answers [`Node::poll_invite`]: an invitation for `member`, or `None` if it needs none.
    pub fn handle_invitation(&mut self, member: MemberId, invitation: Option<Vec<u8>>) {
        if let Some(mesh) = &mut self.mesh {
            mesh.handle_invitation(member, invitation);
        }
        self.grant_wishes();
    }

    // ---- what the host says ----

    /// Brings the mesh up to what the role knows.
    pub(super) fn tend_mesh(&mut self, now: Time) {
        match &mut self.role {
            Role::Host(host) => {
                if !host.config.migration.allows {
                    return;
                }
                let own = self.core.info.member;
                let mesh = self.mesh.get_or_insert_with(|| Box::new(Mesh::new(own)));
                host.introduce(&self.core, mesh, now);
                if host.is_over(&self.core) {
                    mesh.stop();
                }
            }
            Role::Client(client) => {
                if client.has_ended() {
                    client.introduced.clear();
                    if let Some(mesh) = &mut self.mesh {
                        mesh.stop();
                    }
                    return;
                }
                let path = client.path();
                while let Some(control) = client.introduced.pop_front() {
                    take_introduction(&mut self.mesh, self.core.info.member, now, path, control);
                }
                if let Some(mesh) = &mut self.mesh {
                    let host = mesh.member_of(path);
                    mesh.keep_ticks(|member| Some(member) == host);
                    if let Some(host) = host {
                        mesh.set_path(now, host, Some(path));
                    }
                }
            }
        }
        self.grant_wishes();
    }

    /// A client whose path to the host has ended takes the session up again over the one that the mesh
    /// has found. Says whether the mesh still looks for ways back.
    pub(super) fn go_back(&mut self, now: Time) -> bool {
        let (Some(mesh), Role::Client(client)) = (&self.mesh, &mut self.role) else {
            return false;
        };
        if self.hosting.is_none() {
            return false;
        }
        let again = mesh.peer(client.host).filter(|peer| peer.is_confirmed);
        if let Some(again) = again.and_then(|peer| peer.path) {
            client.take_up(&self.core, now, again);
        }
        mesh.is_seeking()
    }

    /// Tells the host what the mesh wants of it, and neighbours what they pass on.
    fn grant_wishes(&mut self) {
        let Some(mesh) = &mut self.mesh else {
            return;
        };
        while let Some(wish) = mesh.poll_wish() {
            let (Wish::Invite(member, _) | Wish::Invitation(member, _)) = &wish;
            if let Some(neighbour) = mesh.introducer(*member) {
                for word in words_of(wish) {
                    // Where it is gone meanwhile another one will introduce.
                    let _sent = mesh.send(neighbour, word.to_bytes());
                }
                continue;
            }
            let Role::Client(client) = &mut self.role else {
                // A host has nobody to tell: members that it has not met come by themselves.
                continue;
            };
            match wish {
                Wish::Invite(member, public_key) => client.tell(&Control::Invite {
                    member: member.0,
                    public_key: public_key.to_vec(),
                }),
                Wish::Invitation(member, bytes) => {
                    if bytes.is_empty() || bytes.len() > INVITATION_BYTES_MAX {
                        continue;
                    }
                    let parts = bytes.chunks(INVITATION_PART_BYTES_MAX);
                    let count = u8::try_from(parts.len()).unwrap_or(u8::MAX);
                    for (part, bytes) in (0..).zip(parts) {
                        client.tell(&Control::Invitation {
                            member: member.0,
                            part,
                            parts: count,
                            bytes: bytes.to_vec(),
                        });
                    }
                }
            }
        }
    }
}

/// What a neighbour shall pass on.
fn words_of(wish: Wish) -> Vec<Introduction> {
    match wish {
        Wish::Invite(member, public_key) => vec![Introduction::Invite { member, public_key }],
        Wish::Invitation(_, bytes) if bytes.len() > INVITATION_BYTES_MAX => Vec::new(),
        Wish::Invitation(member, bytes) => parts_of(member, &bytes).collect(),
    }
}

/// Takes what the host has said of the mesh.
fn take_introduction(
    place: &mut Option<Box<Mesh>>,
    own: MemberId,
    now: Time,
    path: Path,
    control: Control,
) {
    if let Control::Peer { member, key, route } = control {
        // Another member of another session has nothing to do with those of this mesh.
        place.take_if(|mesh| mesh.own() != own);
        let mesh = place.get_or_insert_with(|| Box::new(Mesh::new(own)));
        let member = MemberId(member);
        mesh.meet(now, member, PairKey(key), &route);
        if route == Route::Here {
            mesh.set_path(now, member, Some(path));
        }
        return;
    }
    let Some(mesh) = place else {
        return;
    };
    if let Control::Gone(member) = control {
        mesh.forget(MemberId(member));
    } else if let Control::Invite { member, public_key } = control {
        mesh.invite(MemberId(member), &public_key);
    } else if let Control::Invitation {
        member,
        part,
        parts,
        bytes,
    } = control
    {
        let part = Invitation {
            part,
            parts,
            bytes: &bytes,
        };
        mesh.take_invitation(MemberId(member), &part, now);
    }
}
