//! Introducing members to each other, where hosting may move: the host tells each pair its secret,
//! and who opens a path to whom.
//!
//! Up to [`MESH_FULL_MEMBERS_MAX`] members all pairs are introduced, above only those with one of
//! the members that may host next. A member that comes back over another link is introduced anew,
//! with new secrets: whoever has the old ones may be its last life.

use std::collections::{BTreeMap, BTreeSet};

use super::Host;
use crate::hash::keyed;
use crate::id::{MemberId, Path};
use crate::limits::MESH_FULL_MEMBERS_MAX;
use crate::node::core::Core;
use crate::node::mesh::Mesh;
use crate::session::control::{Control, Route};
use crate::session::mesh::{Address, PairKey};
use crate::session::statistics::DropReason;
use crate::time::Time;

/// Members to whom all others are introduced, at least: those with the lowest ids count as if they
/// might host next, where fewer do.
const HUBS_MIN: usize = 3;

/// Parts of invitations and requests for them that a member may have passed on at once.
const RELAYS_MAX: u16 = 256;
/// Microseconds after which it may have one more passed on.
const RELAY_US: u64 = 50_000;

/// Who was introduced to whom.
#[derive(Debug, Default)]
pub(in crate::node) struct Introductions {
    /// Members with a link.
    links: BTreeMap<MemberId, Introduced>,
    /// Pairs that were introduced, lower id first, with the nonces of their links.
    pairs: BTreeMap<(MemberId, MemberId), (u64, u64)>,
    /// The members that may host next, as far as that was said.
    hubs: Vec<MemberId>,
    /// Whether something has changed since pairs were looked at.
    is_due: bool,
    /// Members when links were looked at.
    members: usize,
}

/// A member's link.
#[derive(Debug)]
struct Introduced {
    path: Path,
    nonce: u64,
    address: Wanted,
    relays: u16,
    relays_at: Time,
}

/// Where a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    /// The link is to be asked.
    Unasked,
    /// It was asked.
    Asked,
    /// What it said.
    Known(Option<Address>),
}

impl Introductions {
    /// Sets the members that may host next.
    pub(in crate::node) fn set_hubs(&mut self, hubs: &[MemberId]) {
        if self.hubs != hubs {
            self.hubs = hubs.to_vec();
            self.is_due = true;
        }
    }

    /// The next path of which the link should tell the far end's address.
    pub(in crate::node) fn poll_address(&mut self) -> Option<Path> {
        let mut links = self.links.values_mut();
        let link = links.find(|link| link.address == Wanted::Unasked)?;
        link.address = Wanted::Asked;
        Some(link.path)
    }

    pub(in crate::node) fn handle_address(&mut self, path: Path, address: Option<Address>) {
        if let Some(link) = self.links.values_mut().find(|link| link.path == path) {
            link.address = Wanted::Known(address);
            self.is_due = true;
        }
    }

    fn address(&self, member: MemberId) -> Option<Address> {
        match self.links.get(&member)?.address {
            Wanted::Known(address) => address,
            Wanted::Unasked | Wanted::Asked => None,
        }
    }

    /// The pairs that shall have a path, lower id first.
    fn wanted(&self) -> BTreeSet<(MemberId, MemberId)> {
        let reachable: Vec<MemberId> = self
            .links
            .keys()
            .copied()
            .filter(|&member| self.address(member).is_some())
            .collect();
        let hubs: BTreeSet<MemberId> = if self.links.len() < MESH_FULL_MEMBERS_MAX {
            reachable.iter().copied().collect()
        } else {
            let others = reachable
                .iter()
                .filter(|member| !self.hubs.contains(member));
            let missing = HUBS_MIN.saturating_sub(self.hubs.len());
            self.hubs
                .iter()
                .chain(others.take(missing))
                .copied()
                .collect()
        };
        let mut wanted = BTreeSet::new();
        for &hub in hubs.iter().filter(|hub| reachable.contains(hub)) {
            for &other in reachable.iter().filter(|&&other| other != hub) {
                wanted.insert((hub.min(other), hub.max(other)));
            }
        }
        wanted
    }

    /// Whether `from` may have one more message passed on to `to`.
    fn may_relay(&mut self, now: Time, from: MemberId, to: MemberId) -> bool {
        if !self.pairs.contains_key(&(from.min(to), from.max(to))) {
            return false;
        }
        let Some(link) = self.links.get_mut(&from) else {
            return false;
        };
        let gained = now.micros_since(link.relays_at) / RELAY_US;
        if gained > 0 {
            let gained = u16::try_from(gained).unwrap_or(RELAYS_MAX);
            link.relays = link.relays.saturating_add(gained).min(RELAYS_MAX);
            link.relays_at = now;
        }
        let may = link.relays > 0;
        link.relays = link.relays.saturating_sub(1);
        may
    }
}

impl Host {
    /// Introduces whom there is news of. `mesh` is this node's own.
    pub(in crate::node) fn introduce(&mut self, core: &Core, mesh: &mut Mesh, now: Time) {
        let introductions = &self.introductions;
        let is_known = |path: &Path, nonce: u64, member: MemberId| {
            introductions
                .links
                .get(&member)
                .is_some_and(|link| link.path == *path && link.nonce == nonce)
        };
        let same = introductions.members == core.roster.members().len()
            && introductions.links.len() == self.guests.len()
            && self
                .guests
                .iter()
                .all(|(path, guest)| is_known(path, guest.nonce, guest.peer.member));
        if !same {
            self.introduce_links(core, mesh, now);
        }
        if core::mem::take(&mut self.introductions.is_due) {
            self.introduce_pairs(core);
        }
    }

    /// Takes notice of links that came and went, and introduces this host itself to new ones.
    fn introduce_links(&mut self, core: &Core, mesh: &mut Mesh, now: Time) {
        let own = core.info.member;
        let mut present = BTreeSet::new();
        for (path, guest) in &mut self.guests {
            let member = guest.peer.member;
            present.insert(member);
            let known = self.introductions.links.get(&member);
            if known.is_some_and(|link| link.path == *path && link.nonce == guest.nonce) {
                continue;
            }
            let key = pair_key(self.config.secret, core, (own, 0), (member, guest.nonce));
            guest.tell(&Control::Peer {
                member: own.0,
                key: key.0,
                route: Route::Here,
            });
            mesh.meet(now, member, key, &Route::Here);
            mesh.set_path(now, member, Some(*path));
            let link = Introduced {
                path: *path,
                nonce: guest.nonce,
                address: Wanted::Unasked,
                relays: RELAYS_MAX,
                relays_at: now,
            };
            self.introductions.links.insert(member, link);
        }
        let introductions = &mut self.introductions;
        introductions
            .links
            .retain(|member, _| present.contains(member));
        introductions.members = core.roster.members().len();
        introductions.is_due = true;
        // Others may be reached over a path that is only the mesh's: a host that has just taken over
        // has such members.
        mesh.keep_ticks(|member| present.contains(&member));
        let is_member = |member| core.roster.member(member).is_some();
        mesh.retain(is_member);
        // Whoever is gone for good is forgotten by all with its Gone.
        introductions
            .pairs
            .retain(|&(low, high), _| is_member(low) && is_member(high));
    }

    /// Tells pairs of each other.
    fn introduce_pairs(&mut self, core: &Core) {
        let wanted = self.introductions.wanted();
        let apart: Vec<(MemberId, MemberId)> = self
            .introductions
            .pairs
            .keys()
            .copied()
            .filter(|&(low, high)| {
                let links = &self.introductions.links;
                let is_settled = |member: MemberId| {
                    links
                        .get(&member)
                        .is_some_and(|link| matches!(link.address, Wanted::Known(_)))
                };
                // A member without a link for the moment may be reached by others, and where one is
                // whose link is new will be known soon: a pair that is parted loses its secrets.
                is_settled(low) && is_settled(high) && !wanted.contains(&(low, high))
            })
            .collect();
        for (low, high) in apart {
            self.introductions.pairs.remove(&(low, high));
            self.tell_of(low, high, PairKey(0), Route::Apart);
            self.tell_of(high, low, PairKey(0), Route::Apart);
        }
        for (low, high) in wanted {
            let links = &self.introductions.links;
            let (Some(first), Some(second)) = (links.get(&low), links.get(&high)) else {
                continue;
            };
            let nonces = (first.nonce, second.nonce);
            if self.introductions.pairs.get(&(low, high)) == Some(&nonces) {
                continue;
            }
            let (Some(to_low), Some(to_high)) = (
                self.introductions.address(low),
                self.introductions.address(high),
            ) else {
                continue;
            };
            let key = pair_key(self.config.secret, core, (low, nonces.0), (high, nonces.1));
            self.introductions.pairs.insert((low, high), nonces);
            let opens = Route::Opens(to_high.as_bytes().to_vec());
            let accepts = Route::Accepts(to_low.as_bytes().to_vec());
            self.tell_of(low, high, key, opens);
            self.tell_of(high, low, key, accepts);
        }
    }

    fn tell_of(&mut self, to: MemberId, of: MemberId, key: PairKey, route: Route) {
        let control = Control::Peer {
            member: of.0,
            key: key.0,
            route,
        };
        self.tell_member(to, &control);
    }

    fn tell_member(&mut self, to: MemberId, control: &Control) {
        if let Some(link) = self.introductions.links.get(&to)
            && let Some(guest) = self.guests.get_mut(&link.path)
        {
            guest.tell(control);
        }
    }

    /// Passes a member's word for the member `to` on: what `control` makes of the member's identity.
    /// Control messages are short, so nothing in it need be measured again.
    pub(super) fn relay(
        &mut self,
        now: Time,
        path: Path,
        to: u64,
        control: impl FnOnce(u64) -> Control,
    ) -> Result<(), DropReason> {
        let guest = self.guests.get(&path).ok_or(DropReason::UnknownPath)?;
        let (from, to) = (guest.peer.member, MemberId(to));
        let control = control(from.0);
        // They may have been parted meanwhile.
        if self.introductions.may_relay(now, from, to) {
            self.tell_member(to, &control);
        }
        Ok(())
    }
}

/// The secret of two members, for as long as both keep their links.
fn pair_key(secret: u128, core: &Core, low: (MemberId, u64), high: (MemberId, u64)) -> PairKey {
    let half = |which: u8| {
        let mut seed = b"pair".to_vec();
        seed.push(which);
        seed.extend_from_slice(&core.info.session.0.to_le_bytes());
        for (member, nonce) in [low, high] {
            seed.extend_from_slice(&member.0.to_le_bytes());
            seed.extend_from_slice(&nonce.to_le_bytes());
        }
        u128::from(keyed(secret, &seed))
    };
    PairKey(half(1) << 64 | half(0))
}
