//! Members that have not met, after a change of host: neighbours introduce them.
//!
//! As long as a host lives, it introduces the members to each other (`host/introduce.rs`). When it dies
//! before two have met and one of them hosts next, both look for a neighbour that has met the other: the
//! new host for all members that it has no path to, a member for the host that the others follow, or
//! that the old one is about to hand over to.
//!
//! 1. Who seeks [asks](Introduction::Ask) its neighbours, and says with which secret.
//! 2. Whoever of them has met both asks its link where they are, and [tells](Introduction::Meet) both.
//! 3. The one with the lower id opens a path. Where the link needs an invitation, the neighbour passes
//!    [it](Introduction::Invitation) and the [request](Introduction::Invite) on.
//!
//! Then the two have met, and go on as all others do. Nothing of this happens between members that had a
//! path in the mesh before, nor between two of whom none hosts: a neighbour that lies can stand between
//! two strangers, as a host can from the beginning, and no more.
//!
//! All that is remembered has a limit and a time: a neighbour introduces a pair once per second, for each
//! of the two that asks.

use std::collections::{BTreeMap, VecDeque};

use super::mesh::{Invitation, Mesh, Received};
use super::{Node, Role};
use crate::hash::keyed;
use crate::id::{MemberId, Path};
use crate::limits::INVITATION_PART_BYTES_MAX;
use crate::migration::Terms;
use crate::session::bucket::Bucket;
use crate::session::introduction::Introduction;
use crate::session::mesh::{Address, PairKey};
use crate::session::statistics::DropReason;
use crate::time::Time;

/// Microseconds between two requests for the same member: a little more than neighbours want. After
/// some in vain it doubles: two may be kept apart by what no introduction helps against.
const ASK_US: u64 = 1_100_000;
/// Requests before it doubles, and doublings of it.
const ASKS_SOON: u32 = 4;
const DOUBLINGS_MAX: u32 = 3;
/// Microseconds for which a path that is there is waited for before anybody is asked.
const GRACE_US: u64 = 500_000;
/// Neighbours that are asked at once, and members that are asked for at once.
const NEIGHBOURS_MAX: usize = 8;
const SOUGHT_MAX: usize = 4;
/// A neighbour that was not heard for so long, in microseconds, is not asked.
const SILENT_US: u64 = 1_000_000;
/// A member whose host is silent for so long, in microseconds, takes introductions that it has not
/// asked for. Hosts are not suspected sooner.
const UNHEARD_US: u64 = 100_000;

/// Microseconds between two introductions of the same pair for which the same one asks.
const PAIR_US: u64 = 1_000_000;
/// Microseconds for which a neighbour passes on what two say that it has introduced.
const PAIR_LIFE_US: u64 = 30_000_000;
/// Pairs that a neighbour introduces, in that time.
const PAIRS_MAX: usize = 64;
/// Introductions that wait for the link, at most.
const WAITING_MAX: usize = 32;
/// Microseconds between two introductions to the same member by the same neighbour that are taken.
const TAKE_US: u64 = 500_000;
/// Introductions of that time that are remembered; more are not taken.
const TAKEN_MAX: usize = 256;

/// What a member remembers of introductions by members.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    /// Whom this node wants to meet.
    sought: BTreeMap<MemberId, Sought>,
    /// Pairs that this node has introduced, lower id first.
    pairs: BTreeMap<(MemberId, MemberId), Pair>,
    /// Introductions for which the link has to say where the two are.
    waiting: VecDeque<Waiting>,
    /// When a member was introduced to this node, and by whom.
    taken: BTreeMap<(MemberId, MemberId), Time>,
}

#[derive(Debug)]
struct Sought {
    since: Time,
    ask_at: Time,
    asks: u32,
    /// Neighbours that were asked already.
    asked: usize,
}

#[derive(Debug)]
struct Pair {
    /// The secret of whoever asked first: there is one, also where both ask.
    key: PairKey,
    /// When the two were introduced last because the lower one, and because the higher one asked.
    asked_at: [Option<Time>; 2],
    words: Bucket,
}

impl Pair {
    fn is_over(&self, now: Time) -> bool {
        let newest = self.asked_at.iter().flatten().max();
        newest.is_none_or(|at| now.micros_since(*at) >= PAIR_LIFE_US)
    }
}

#[derive(Debug)]
struct Waiting {
    ends: [End; 2],
    key: PairKey,
}

/// One of two that are introduced.
#[derive(Clone, Copy, Debug)]
struct End {
    member: MemberId,
    path: Path,
    place: Place,
}

/// Where a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// The link is to be asked.
    Unasked,
    /// It was asked.
    Asked,
    /// What it said.
    Known(Option<Address>),
}

impl Strangers {
    /// The next path of which the link should tell the far end's address.
    pub(super) fn poll_address(&mut self) -> Option<Path> {
        let mut ends = self.waiting.iter_mut().flat_map(|it| &mut it.ends);
        let end = ends.find(|end| end.place == Place::Unasked)?;
        end.place = Place::Asked;
        Some(end.path)
    }

    fn handle_address(&mut self, path: Path, address: Option<Address>) {
        for end in self.waiting.iter_mut().flat_map(|it| &mut it.ends) {
            if end.path == path && end.place == Place::Asked {
                end.place = Place::Known(address);
            }
        }
    }

    /// The secret of the two, if this node may introduce them now because `from` asks; it is noted.
    fn introduce(
        &mut self,
        now: Time,
        from: MemberId,
        member: MemberId,
        key: PairKey,
    ) -> Option<PairKey> {
        self.pairs.retain(|_, known| !known.is_over(now));
        let pair = pair(from, member);
        if self.pairs.len() >= PAIRS_MAX && !self.pairs.contains_key(&pair) {
            return None;
        }
        let known = self.pairs.entry(pair).or_insert(Pair {
            key,
            asked_at: [None; 2],
            words: Bucket::default(),
        });
        let asked_at = &mut known.asked_at[usize::from(from > member)];
        let may = asked_at.is_none_or(|at| now.micros_since(at) >= PAIR_US);
        may.then(|| {
            *asked_at = Some(now);
            known.key
        })
    }

    /// Whether this node may pass on one more word between the two.
    fn may_pass_on(&mut self, now: Time, pair: (MemberId, MemberId)) -> bool {
        let known = self.pairs.get_mut(&pair);
        known.is_some_and(|known| !known.is_over(now) && known.words.take(now))
    }

    /// Whether an introduction to `member` by `neighbour` may be taken now; it is noted.
    fn may_take(&mut self, now: Time, member: MemberId, neighbour: MemberId) -> bool {
        self.taken.retain(|_, at| now.micros_since(*at) < TAKE_US);
        let is_new = !self.taken.contains_key(&(member, neighbour));
        let may = is_new && self.taken.len() < TAKEN_MAX;
        if may {
            self.taken.insert((member, neighbour), now);
        }
        may
    }
}

impl Node {
    /// Asks neighbours for those whom this node has not met and should.
    pub(super) fn seek_strangers(&mut self, now: Time) {
        let sought = self.strangers_to_meet();
        if sought.is_empty() {
            self.strangers.sought.clear();
            return;
        }
        let secret = self.secret();
        let (own, session) = (self.core.info.member, self.core.info.session);
        let strangers = &mut self.strangers;
        strangers.sought.retain(|id, _| sought.contains(id));
        let Some(mesh) = &mut self.mesh else {
            return;
        };
        let is_awake = |mesh: &Mesh, id: MemberId| {
            let heard_at = mesh.heard(id);
            mesh.is_confirmed(id) && heard_at.is_some_and(|at| now.micros_since(at) < SILENT_US)
        };
        let neighbours: Vec<MemberId> = mesh.members().filter(|&id| is_awake(mesh, id)).collect();
        let mut asks = 0;
        for member in sought {
            let one = strangers.sought.entry(member).or_insert(Sought {
                since: now,
                ask_at: now,
                asks: 0,
                asked: 0,
            });
            let is_under_way = mesh.path(member).is_some();
            let is_early = is_under_way && now.micros_since(one.since) < GRACE_US;
            if is_early || now < one.ask_at || neighbours.is_empty() {
                continue;
            }
            if asks >= SOUGHT_MAX {
                break;
            }
            asks += 1;
            one.asks = one.asks.saturating_add(1);
            let doublings = one.asks.saturating_sub(ASKS_SOON).min(DOUBLINGS_MAX);
            one.ask_at = now.plus_micros(ASK_US << doublings);
            let half = |which: u8| {
                let mut seed = b"meet".to_vec();
                seed.push(which);
                seed.extend_from_slice(&session.0.to_le_bytes());
                seed.extend_from_slice(&own.0.to_le_bytes());
                seed.extend_from_slice(&member.0.to_le_bytes());
                seed.extend_from_slice(&one.since.micros().to_le_bytes());
                u128::from(keyed(secret, &seed))
            };
            let key = PairKey(half(1) << 64 | half(0));
            let word = Introduction::Ask { member, key }.to_bytes();
            let count = neighbours.len().min(NEIGHBOURS_MAX);
            for turn in 0..count {
                let to = neighbours[(one.asked + turn) % neighbours.len()];
                // It was in the mesh just now.
                let _sent = mesh.send(to, word.clone());
            }
            one.asked = (one.asked + count) % neighbours.len();
        }
    }

    /// Whom this node has not met and should: on a host all members, on another node the host that it
    /// follows.
    fn strangers_to_meet(&self) -> Vec<MemberId> {
        let (Some(hosting), Some(mesh)) = (&self.hosting, &self.mesh) else {
            return Vec::new();
        };
        let terms = hosting.terms();
        let own = self.core.info.member;
        let is_stranger = |&id: &MemberId| id != own && mesh.is_stranger(id);
        let policy = match &self.role {
            Role::Host(host) => &host.config.hosting,
            Role::Client(client) => &client.config.hosting,
        };
        if policy.ablation.no_introductions {
            return Vec::new();
        }
        match &self.role {
            Role::Host(host) => {
                if !terms.is_host() || host.is_over(&self.core) {
                    return Vec::new();
                }
                let members = self.core.roster.members().iter().map(|member| member.id);
                members.filter(is_stranger).collect()
            }
            Role::Client(client) => {
                let follows = !client.has_ended() && terms.fence() == terms.term();
                let host = terms.host().filter(|_| follows);
                let target = terms.handover_target().map(|(target, _)| target);
                let target = target.filter(|target| Some(*target) != host);
                let both = host.into_iter().chain(target);
                both.filter(is_stranger).collect()
            }
        }
    }

    fn secret(&self) -> u128 {
        match &self.role {
            Role::Host(host) => host.config.secret,
            Role::Client(client) => client.config.secret,
        }
    }

    /// Takes a word of an introduction from a member.
    pub(super) fn take_introduction(
        &mut self,
        now: Time,
        received: &Received,
    ) -> Result<(), DropReason> {
        let word = Introduction::decode(&received.bytes);
        let word = word.map_err(|_error| DropReason::BadSection)?;
        let from = received.from;
        let Some(mesh) = &mut self.mesh else {
            return Err(DropReason::Unexpected);
        };
        if !mesh.is_confirmed(from) {
            return Err(DropReason::UnknownPath);
        }
        match word {
            Introduction::Ask { member, key } => self.introduce_members(now, from, member, key),
            Introduction::Meet {
                member,
                key,
                address,
            } => self.meet_stranger(now, from, member, key, address),
            Introduction::Invite { member, public_key } => {
                if mesh.is_stranger(member) {
                    return mesh.invite_stranger(now, from, member, public_key);
                }
                let word = Introduction::Invite {
                    member: from,
                    public_key,
                };
                self.pass_on(now, from, member, &word)
            }
            Introduction::Invitation {
                member,
                part,
                parts,
                bytes,
            } => {
                if mesh.is_stranger(member) {
                    let part = Invitation {
                        part,
                        parts,
                        bytes: &bytes,
                    };
                    mesh.take_invitation(member, &part, now);
                    return Ok(());
                }
                let word = Introduction::Invitation {
                    member: from,
                    part,
                    parts,
                    bytes,
                };
                self.pass_on(now, from, member, &word)
            }
        }
    }

    /// Passes a word of `from` on to `to`, if this node has introduced the two.
    fn pass_on(
        &mut self,
        now: Time,
        from: MemberId,
        to: MemberId,
        word: &Introduction,
    ) -> Result<(), DropReason> {
        if !self.strangers.may_pass_on(now, pair(from, to)) {
            return Err(DropReason::Unexpected);
        }
        if let Some(mesh) = &mut self.mesh {
            // Whoever has left meanwhile needs it no more.
            let _sent = mesh.send(to, word.to_bytes());
        }
        Ok(())
    }

    /// `from` wants to meet `member`: the link is asked where both are.
    fn introduce_members(
        &mut self,
        now: Time,
        from: MemberId,
        member: MemberId,
        key: PairKey,
    ) -> Result<(), DropReason> {
        let (Some(hosting), Some(mesh)) = (&self.hosting, &self.mesh) else {
            return Err(DropReason::Unexpected);
        };
        let terms = hosting.terms();
        let is_with_host = hosts(terms, from) || hosts(terms, member);
        let is_known = |id: MemberId| self.core.roster.member(id).is_some();
        if self.is_host() || !is_with_host || from == member || !is_known(from) || !is_known(member)
        {
            return Err(DropReason::Unexpected);
        }
        let end = |member: MemberId| {
            let path = mesh.path(member).filter(|_| mesh.is_confirmed(member))?;
            Some(End {
                member,
                path,
                place: Place::Unasked,
            })
        };
        // It may well not have met the one, as others have that were asked, too.
        let (Some(asks), Some(other)) = (end(from), end(member)) else {
            return Ok(());
        };
        let strangers = &mut self.strangers;
        let key = strangers.introduce(now, from, member, key);
        let key = key.ok_or(DropReason::RateLimited)?;
        if strangers.waiting.len() >= WAITING_MAX {
            strangers.waiting.pop_front();
        }
        strangers.waiting.push_back(Waiting {
            ends: [asks, other],
            key,
        });
        Ok(())
    }

    /// The link has said where somebody is: whoever waits for that is introduced.
    pub(super) fn introduce_waiting(&mut self, path: Path, address: Option<Address>) {
        self.strangers.handle_address(path, address);
        let Some(mesh) = &mut self.mesh else {
            self.strangers.waiting.clear();
            return;
        };
        self.strangers.waiting.retain(|waiting| {
            let [one, other] = waiting.ends;
            let (Place::Known(at_one), Place::Known(at_other)) = (one.place, other.place) else {
                return true;
            };
            if let (Some(at_one), Some(at_other)) = (at_one, at_other) {
                for (to, of, address) in [
                    (one.member, other.member, at_other),
                    (other.member, one.member, at_one),
                ] {
                    let word = Introduction::Meet {
                        member: of,
                        key: waiting.key,
                        address,
                    };
                    // Whoever has left meanwhile needs it no more.
                    let _sent = mesh.send(to, word.to_bytes());
                }
            }
            false
        });
    }

    /// A neighbour introduces `member`.
    fn meet_stranger(
        &mut self,
        now: Time,
        from: MemberId,
        member: MemberId,
        key: PairKey,
        address: Address,
    ) -> Result<(), DropReason> {
        let own = self.core.info.member;
        let is_known = |id: MemberId| self.core.roster.member(id).is_some();
        if from == member || member == own || !is_known(from) || !is_known(member) {
            return Err(DropReason::Unexpected);
        }
        let terms = self.hosting.as_ref().map(|hosting| hosting.terms());
        let is_wanted = match &self.role {
            Role::Host(_) => terms.is_some_and(|terms| terms.is_host()),
            // It may not have heard yet who hosts.
            Role::Client(client) => {
                let hosts = terms.is_some_and(|terms| hosts(terms, member));
                let silent_us = now.micros_since(client.peer.heard_at);
                !client.has_ended() && (hosts || silent_us >= UNHEARD_US)
            }
        };
        if !is_wanted {
            return Err(DropReason::Unexpected);
        }
        let Some(mesh) = &mut self.mesh else {
            return Err(DropReason::Unexpected);
        };
        // Several neighbours introduce, and the others may have been faster.
        if !mesh.is_stranger(member) {
            return Ok(());
        }
        if !self.strangers.may_take(now, member, from) {
            return Err(DropReason::RateLimited);
        }
        mesh.meet_stranger(now, from, member, key, address);
        Ok(())
    }
}

/// Whether `member` hosts by what this node knows, or is about to by the word of the host.
fn hosts(terms: &Terms, member: MemberId) -> bool {
    let target = terms.handover_target().map(|(target, _)| target);
    terms.host() == Some(member) || target == Some(member)
}

/// Words in which an invitation for `member` travels.
pub(super) fn parts_of(member: MemberId, invitation: &[u8]) -> impl Iterator<Item = Introduction> {
    let chunks = invitation.chunks(INVITATION_PART_BYTES_MAX);
    let parts = u8::try_from(chunks.len()).unwrap_or(u8::MAX);
    (0..)
        .zip(chunks)
        .map(move |(part, bytes)| Introduction::Invitation {
            member,
            part,
            parts,
            bytes: bytes.to_vec(),
        })
}

fn pair(one: MemberId, other: MemberId) -> (MemberId, MemberId) {
    (one.min(other), one.max(other))
}

#[cfg(test)]
mod tests;
