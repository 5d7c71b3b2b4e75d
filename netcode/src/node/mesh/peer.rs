//! One other member of the mesh: its path, its secrets, and what was heard.

use std::collections::VecDeque;

use crate::id::{MemberId, Path};
use crate::limits::{INVITATION_BYTES_MAX, INVITATION_PART_BYTES_MAX, MESH_OUTBOX_MESSAGES_MAX};
use crate::session::clock::Rtt;
use crate::session::mesh::{self, Address, Echo, MacKey, MeshDatagram, Opening, PairKey};
use crate::session::statistics::{Body, DropReason, PeerStatistics};
use crate::time::Time;

/// Microseconds between two datagrams while there is nothing to say.
const IDLE_US: u64 = 250_000;
/// The same over a path that carries tick datagrams, which tell more.
const IDLE_TICKS_US: u64 = 1_000_000;
/// Microseconds between two datagrams until the path is confirmed.
const GREETING_US: u64 = 50_000;
/// Microseconds after a path came up in which greetings are that close.
const GREETING_SPAN_US: u64 = 3_000_000;
/// Microseconds from the end of a path to the first attempt at another, and to an attempt that
/// could not be made. It doubles with each.
const RETRY_US: u64 = 250_000;
/// Doublings of it.
const RETRY_DOUBLINGS_MAX: u32 = 5;
/// Microseconds from the end of a path to the first attempt to go back by the member with the higher
/// id: the other one goes first, so that they do not cross.
const YIELD_US: u64 = 2_000_000;
/// Attempts to go back, one after the other, of a member that can open a path otherwise.
const RETURNS_MAX: u32 = 3;
/// Microseconds for which the secret before the present one is still accepted after the other
/// member was heard under the new one.
const OLD_KEY_US: u64 = 2_000_000;
/// Microseconds for which the new secret waits for the other member to hear of it. Then it is tried
/// in turn with those before: the other one may learn of it only by what comes under an old one.
const NEW_KEY_US: u64 = 1_000_000;
/// Microseconds between two invitations for a member that neighbours ask for.
const INVITE_US: u64 = 250_000;
/// Secrets before the present one that are kept.
const OLD_KEYS_MAX: usize = 4;
/// Datagrams whose time of sending is remembered for their echo.
const SENT_MAX: usize = 128;
/// Counters before the newest one that are told apart.
const SEEN: u32 = 64;
/// Datagrams over which loss is measured: eight seconds of an idle path.
const LOSS_WINDOW: u32 = 32;

/// A part of an invitation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::node) struct Invitation<'a> {
    /// Which one, from 0.
    pub(in crate::node) part: u8,
    /// Number of parts.
    pub(in crate::node) parts: u8,
    /// Its bytes.
    pub(in crate::node) bytes: &'a [u8],
}

/// Who brings about the path.
#[derive(Debug)]
enum Origin {
    /// The role has it.
    Role,
    /// This node opens it.
    Opens(Opener),
    /// The other member opens it.
    Accepts,
}

/// A path that has ended without this node's doing, to which the link may know a way back.
#[derive(Debug)]
struct WayBack {
    path: Path,
    /// When to try; `None` while the link is asked, or tries.
    try_at: Option<Time>,
    tries: u32,
}

/// What is needed to open a path.
#[derive(Debug)]
struct Opener {
    address: Address,
    invitation: Vec<u8>,
    /// Parts of the next invitation that have come, in order.
    parts: u8,
    coming: Vec<u8>,
    /// When to try; `None` while the link is asked.
    try_at: Option<Time>,
    tries: u32,
}

/// Another member.
#[derive(Debug)]
pub(in crate::node) struct MeshPeer {
    own: MemberId,
    member: MemberId,
    pub(in crate::node) path: Option<Path>,
    /// Whether the link has said that the path may be used. Over one that it does not speak of, a
    /// greeting is tried now and then.
    pub(in crate::node) is_up: bool,
    /// Whether the path is that of tick datagrams, and so not the mesh's to close.
    pub(in crate::node) carries_ticks: bool,
    /// Whether the other member is heard over the path and hears this one.
    pub(in crate::node) is_confirmed: bool,
    /// Whether that was ever so.
    pub(in crate::node) has_met: bool,
    /// The neighbour that has introduced the member, if no host has and they have not met yet.
    pub(in crate::node) introducer: Option<MemberId>,
    pub(in crate::node) heard_at: Option<Time>,
    /// When the newest datagram that the other member has echoed was sent.
    pub(in crate::node) echoed_at: Option<Time>,
    pub(in crate::node) rtt: Rtt,
    /// Share of its datagrams that did not arrive, in 1/256.
    pub(in crate::node) loss: u8,
    pub(in crate::node) statistics: PeerStatistics,
    /// The key of the member, if it asks for an invitation.
    pub(in crate::node) invites: Option<[u8; super::PUBLIC_KEY_BYTES]>,
    invited_at: Option<Time>,
    pub(in crate::node) next_at: Time,
    origin: Origin,
    back: Option<WayBack>,
    keys: Secret,
    /// The secrets before the present one, the newest first.
    old_keys: Vec<OldSecret>,
    /// Number of the next datagram.
    counter: u32,
    /// Number of the first datagram over the present path.
    path_counter: u32,
    path_since: Time,
    sent: Vec<(u32, Time)>,
    echoed: Option<u32>,
    loss_window: (u32, u32),
    outbox: VecDeque<Vec<u8>>,
}

/// The secret of this node and the other member, and what came under it.
#[derive(Clone, Debug)]
struct Secret {
    key: PairKey,
    to_peer: MacKey,
    from_peer: MacKey,
    newest: Option<u32>,
    newest_at: Time,
    /// Bit i: `newest - 1 - i` has come.
    seen: u64,
}

/// A secret that another one has followed.
#[derive(Clone, Debug)]
struct OldSecret {
    secret: Secret,
    since: Time,
    /// Until when it is accepted, once the other member was heard under the new one.
    until: Option<Time>,
}

impl OldSecret {
    fn is_good(&self, now: Time) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

impl Secret {
    fn new(key: PairKey, own: MemberId, member: MemberId) -> Self {
        Self {
            key,
            to_peer: key.direction(own, member),
            from_peer: key.direction(member, own),
            newest: None,
            newest_at: Time::ZERO,
            seen: 0,
        }
    }

    /// When the newest datagram under it came.
    fn heard_at(&self) -> Option<Time> {
        self.newest.map(|_| self.newest_at)
    }

    fn check_new(&self, counter: u32) -> Result<(), DropReason> {
        match self.newest {
            Some(newest) if counter <= newest => match newest - counter {
                0 => Err(DropReason::Duplicate),
                age if age > SEEN => Err(DropReason::TooOld),
                age if self.seen & (1 << (age - 1)) != 0 => Err(DropReason::Duplicate),
                _ => Ok(()),
            },
            Some(_) | None => Ok(()),
        }
    }

    /// Marks a counter that is new; says by how much it is ahead of the newest one before.
    fn mark(&mut self, now: Time, counter: u32) -> u32 {
        let Some(newest) = self.newest else {
            self.newest = Some(counter);
            self.newest_at = now;
            return 1;
        };
        if counter <= newest {
            self.seen |= 1 << (newest - counter).clamp(1, SEEN).saturating_sub(1);
            return 0;
        }
        let ahead = counter - newest;
        self.seen =
            self.seen.checked_shl(ahead).unwrap_or(0) | 1_u64.checked_shl(ahead - 1).unwrap_or(0);
        self.newest = Some(counter);
        self.newest_at = now;
        ahead
    }
}

impl MeshPeer {
    pub(super) fn new(own: MemberId, member: MemberId, key: PairKey, now: Time) -> Self {
        Self {
            own,
            member,
            path: None,
            is_up: false,
            carries_ticks: false,
            is_confirmed: false,
            has_met: false,
            introducer: None,
            heard_at: None,
            echoed_at: None,
            rtt: Rtt::default(),
            loss: 0,
            statistics: PeerStatistics::default(),
            invites: None,
            invited_at: None,
            next_at: now,
            origin: Origin::Role,
            back: None,
            keys: Secret::new(key, own, member),
            old_keys: Vec::new(),
            counter: 0,
            path_counter: 0,
            path_since: now,
            sent: vec![(u32::MAX, Time::ZERO); SENT_MAX],
            echoed: None,
            loss_window: (0, 0),
            outbox: VecDeque::new(),
        }
    }

    /// Takes another secret. The one before stays in use until the other member has it, too.
    pub(super) fn renew(&mut self, now: Time, key: PairKey) {
        if self.keys.key == key {
            return;
        }
        // One that comes back keeps its counters: what came under it does not count again.
        let again = self.old_keys.iter().position(|old| old.secret.key == key);
        let keys = match again {
            Some(index) => self.old_keys.remove(index).secret,
            None => Secret::new(key, self.own, self.member),
        };
        let secret = core::mem::replace(&mut self.keys, keys);
        // The two may have been told different ones lately, so that only an older one is common:
        // surely the one that the other was heard under last.
        self.old_keys.retain(|old| old.is_good(now));
        if self.old_keys.len() >= OLD_KEYS_MAX {
            let heard_last = self.old_keys.iter().map(|old| old.secret.heard_at()).max();
            let is_kept = |old: &OldSecret| old.secret.heard_at() == heard_last.unwrap_or(None);
            let oldest = self.old_keys.iter().rposition(|old| !is_kept(old));
            self.old_keys.remove(oldest.unwrap_or(OLD_KEYS_MAX - 1));
        }
        let old = OldSecret {
            secret,
            since: now,
            until: None,
        };
        self.old_keys.insert(0, old);
    }

    // ---- the path ----

    /// This node opens the path, to `address`; one that is there stays.
    pub(super) fn opens(&mut self, now: Time, address: Option<Address>) {
        let Some(address) = address else {
            return;
        };
        if let Origin::Opens(opener) = &mut self.origin {
            if opener.address != address {
                opener.address = address;
                opener.tries = 0;
                opener.try_at = opener.try_at.map(|_later| now);
            }
            return;
        }
        self.origin = Origin::Opens(Opener {
            address,
            invitation: Vec::new(),
            parts: 0,
            coming: Vec::new(),
            try_at: Some(now),
            tries: 0,
        });
    }

    /// Tries to open the path now, if this node is the one that opens it and waits.
    pub(super) fn hurry(&mut self, now: Time) {
        if let Origin::Opens(opener) = &mut self.origin {
            opener.try_at = opener.try_at.map(|later| later.min(now));
        }
    }

    /// Whether the member may have an invitation made now that a neighbour asks for; it is noted.
    pub(super) fn may_invite(&mut self, now: Time) -> bool {
        let may = self
            .invited_at
            .is_none_or(|at| now.micros_since(at) >= INVITE_US);
        if may {
            self.invited_at = Some(now);
        }
        may
    }

    /// The other member opens the path.
    pub(super) fn accepts(&mut self) {
        self.origin = Origin::Accepts;
    }

    /// Whether the other member is the one that opens the path.
    pub(super) const fn is_accepting(&self) -> bool {
        matches!(self.origin, Origin::Accepts) && !self.carries_ticks
    }

    /// What the link needs to open the path, if it is time for that.
    pub(super) fn poll_open(&mut self, now: Time) -> Option<Opening> {
        let Origin::Opens(opener) = &mut self.origin else {
            return None;
        };
        let waits = opener.try_at.is_none_or(|at| now < at) || self.back.is_some();
        if self.path.is_some() || waits {
            return None;
        }
        opener.try_at = None;
        Some(Opening {
            member: self.member,
            address: opener.address,
            invitation: opener.invitation.clone(),
        })
    }

    /// The path has ended, and not because this node wanted it to.
    pub(super) fn seek(&mut self, now: Time, path: Path) {
        let tries = self.back.as_ref().map_or(0, |back| back.tries);
        let has_other_way = matches!(self.origin, Origin::Opens(_));
        if has_other_way && tries >= RETURNS_MAX {
            self.back = None;
            return;
        }
        let wait_us = if tries == 0 && self.own > self.member {
            YIELD_US
        } else {
            RETRY_US << tries.min(RETRY_DOUBLINGS_MAX)
        };
        self.back = Some(WayBack {
            path,
            try_at: Some(now.plus_micros(wait_us)),
            tries,
        });
    }

    /// Whether a path to this member was lost, and the link may find a way back.
    pub(super) const fn is_sought(&self) -> bool {
        self.back.is_some()
    }

    /// The path to where the link should go back, if it is time for that.
    pub(super) fn poll_reopen(&mut self, now: Time) -> Option<Path> {
        let back = self.back.as_mut()?;
        if self.path.is_some() || back.try_at.is_none_or(|at| now < at) {
            return None;
        }
        back.try_at = None;
        back.tries = back.tries.saturating_add(1);
        Some(back.path)
    }

    /// There is no way back.
    pub(super) fn give_up_way_back(&mut self) {
        self.back = None;
    }

    /// The present path, if it leads back and has not come up: of no use as soon as there is another.
    pub(super) fn attempt(&self) -> Option<Path> {
        self.path.filter(|_| self.back.is_some() && !self.is_up)
    }

    /// The link could not try: later, or when an invitation has come.
    pub(super) fn cannot_open(&mut self, now: Time) {
        if let Origin::Opens(opener) = &mut self.origin {
            // An invitation takes a round trip and a half by way of the host.
            opener.tries = opener.tries.max(2);
            opener.retry(now);
        }
    }

    pub(super) fn take_invitation(&mut self, part: &Invitation<'_>, now: Time) {
        let Origin::Opens(opener) = &mut self.origin else {
            return;
        };
        if part.part == 0 {
            opener.parts = 0;
            opener.coming.clear();
        }
        let fits = part.bytes.len() <= INVITATION_PART_BYTES_MAX
            && opener.coming.len() + part.bytes.len() <= INVITATION_BYTES_MAX;
        if part.part != opener.parts || part.part >= part.parts || !fits {
            return;
        }
        opener.coming.extend_from_slice(part.bytes);
        opener.parts += 1;
        if opener.parts == part.parts {
            opener.invitation = core::mem::take(&mut opener.coming);
            opener.parts = 0;
            // While the link is asked, its answer decides.
            opener.try_at = opener.try_at.map(|_later| now);
        }
    }

    /// From now on this is the path.
    pub(super) fn set_path(&mut self, now: Time, path: Option<Path>) {
        self.path = path;
        self.is_up = path.is_some();
        self.is_confirmed = false;
        self.path_counter = self.counter;
        self.path_since = now;
        self.next_at = now;
        if let Origin::Opens(opener) = &mut self.origin
            && path.is_none()
        {
            // What opened the last path opens no other.
            opener.invitation.clear();
            opener.retry(now);
        }
    }

    /// Whether a datagram with a right mac may come over `path`, which leads to nobody else. Tick
    /// datagrams have their path, and the mesh uses no other.
    pub(super) fn may_come_over(&self, path: Path) -> bool {
        self.path == Some(path) || !self.carries_ticks
    }

    // ---- arrivals ----

    /// Checks a datagram, and says whether it came under the secret before the present one. Nothing
    /// has changed yet.
    pub(super) fn read<'a>(
        &self,
        now: Time,
        path: Path,
        bytes: &'a [u8],
    ) -> Result<(MeshDatagram<'a>, usize), DropReason> {
        let olds = self.old_keys.iter().filter(|old| old.is_good(now));
        let olds = olds.map(|old| &old.secret);
        let mut read = Err(DropReason::NotAuthentic);
        let mut keys = &self.keys;
        let mut under = 0;
        for (index, secret) in [&self.keys].into_iter().chain(olds).enumerate() {
            read = MeshDatagram::read(bytes, secret.from_peer);
            (keys, under) = (secret, index);
            if !matches!(read, Err(DropReason::NotAuthentic)) {
                break;
            }
        }
        let datagram = read?;
        keys.check_new(datagram.counter)?;
        // Of two paths the one that is used now counts; what comes late over the other one is no
        // reason to change.
        let is_newest = keys.newest.is_none_or(|newest| datagram.counter > newest);
        if self.path.is_some_and(|known| known != path) && !is_newest {
            return Err(DropReason::UnknownPath);
        }
        // An echo of what was never sent.
        if datagram
            .echo
            .is_some_and(|echo| echo.counter >= self.counter)
        {
            return Err(DropReason::Malformed);
        }
        Ok((datagram, under))
    }

    /// Takes in a datagram that [`MeshPeer::read`] has passed, over the path.
    pub(super) fn accept(&mut self, now: Time, datagram: &MeshDatagram<'_>, under: usize) {
        self.old_keys.retain(|old| old.is_good(now));
        // Secrets before the one that the other member uses are done with.
        for old in self.old_keys.iter_mut().skip(under) {
            old.until.get_or_insert(now.plus_micros(OLD_KEY_US));
        }
        let used = under.checked_sub(1);
        let used = used.and_then(|index| self.old_keys.get_mut(index));
        let used = used.map_or(&mut self.keys, |old| &mut old.secret);
        let ahead = used.mark(now, datagram.counter);
        self.heard_at = Some(now);
        self.count_loss(ahead);
        let was_confirmed = self.is_confirmed;
        if let Some(echo) = datagram.echo {
            self.take_echo(now, echo);
        }
        // Whoever does not know yet that it is heard is told at once.
        if !self.is_confirmed || !was_confirmed || datagram.echo.is_none() {
            self.next_at = now;
        }
    }

    fn take_echo(&mut self, now: Time, echo: Echo) {
        self.is_confirmed |= echo.counter >= self.path_counter;
        if self.is_confirmed {
            self.has_met = true;
            self.introducer = None;
            self.back = None;
        }
        if self.echoed.is_some_and(|newest| echo.counter <= newest) {
            return;
        }
        self.echoed = Some(echo.counter);
        let (counter, at) = self.sent[echo.counter as usize % SENT_MAX];
        if counter != echo.counter {
            return;
        }
        self.echoed_at = self.echoed_at.max(Some(at));
        // Both clocks measure a span, so their epochs do not matter, and their drift hardly.
        let trip_us = now.micros_since(at);
        if let Some(us) = trip_us.checked_sub(u64::from(echo.held_us)) {
            self.rtt.sample(us);
        }
    }

    fn count_loss(&mut self, ahead: u32) {
        let (sent, came) = &mut self.loss_window;
        *sent = sent.saturating_add(ahead);
        *came += 1;
        if *sent >= LOSS_WINDOW {
            let lost = u64::from(sent.saturating_sub(*came));
            self.loss = u8::try_from(lost * 256 / u64::from(*sent)).unwrap_or(u8::MAX);
            self.loss_window = (0, 0);
        }
    }

    // ---- sending ----

    /// Queues a message.
    pub(super) fn push(&mut self, message: Vec<u8>) {
        if self.outbox.len() >= MESH_OUTBOX_MESSAGES_MAX {
            self.outbox.pop_front();
        }
        self.outbox.push_back(message);
    }

    /// Writes a datagram into `out` if one is due, and says where it goes.
    pub(super) fn write(&mut self, now: Time, out: &mut Vec<u8>) -> Option<Path> {
        let path = self.path?;
        let has_news = self.is_up && !self.outbox.is_empty();
        if !has_news && now < self.next_at || self.counter == u32::MAX {
            return None;
        }
        let keys = self.keys_to_send(now);
        let to_peer = keys.to_peer;
        let echo = keys.newest.map(|counter| Echo {
            counter,
            held_us: u32::try_from(now.micros_since(keys.newest_at)).unwrap_or(u32::MAX),
        });
        let counter = self.counter;
        self.counter += 1;
        MeshDatagram::begin(self.own, counter, echo, out);
        while let Some(message) = self.outbox.front()
            && mesh::put_message(message, out)
        {
            self.outbox.pop_front();
        }
        mesh::seal(to_peer, out);
        self.sent[counter as usize % SENT_MAX] = (counter, now);
        self.next_at = now.plus_micros(self.pause_us(now));
        self.statistics.count_sent(Body::Mesh, out.len());
        Some(path)
    }

    /// The secret to send under: the new one, as soon as the other member is known to have it. Until
    /// then the one that it was heard under last, and when it has had time to hear of the new one, every
    /// other datagram; the others go under all that may be common, in turn.
    fn keys_to_send(&self, now: Time) -> &Secret {
        let usable = || {
            let olds = self.old_keys.iter().filter(|old| old.until.is_none());
            core::iter::once(&self.keys).chain(olds.map(|old| &old.secret))
        };
        let since = self.old_keys.first().map(|old| old.since);
        let waits =
            self.is_confirmed && since.is_some_and(|since| now.micros_since(since) < NEW_KEY_US);
        let heard = usable().filter(|secret| secret.newest.is_some());
        // Of two that were heard at once the newer one.
        let heard = heard.reduce(|newest, secret| {
            if secret.newest_at > newest.newest_at {
                secret
            } else {
                newest
            }
        });
        if let Some(secret) = heard.filter(|_| waits || self.counter.is_multiple_of(2)) {
            return secret;
        }
        let turn = self.counter as usize / 2 % usable().count().max(1);
        usable().nth(turn).unwrap_or(&self.keys)
    }

    fn pause_us(&self, now: Time) -> u64 {
        let is_greeting = self.is_up
            && !self.is_confirmed
            && now.micros_since(self.path_since) < GREETING_SPAN_US;
        if is_greeting {
            GREETING_US
        } else if self.carries_ticks {
            IDLE_TICKS_US
        } else {
            IDLE_US
        }
    }

    /// When something is due.
    pub(super) fn next_time(&self) -> Time {
        match (&self.path, &self.origin) {
            (Some(_), _) if self.is_up && !self.outbox.is_empty() => Time::ZERO,
            (Some(_), _) => self.next_at,
            (None, _) if self.back.is_some() => {
                let try_at = self.back.as_ref().and_then(|back| back.try_at);
                try_at.unwrap_or(Time::FAR)
            }
            (None, Origin::Opens(opener)) => opener.try_at.unwrap_or(Time::FAR),
            (None, Origin::Accepts | Origin::Role) => Time::FAR,
        }
    }
}

impl Opener {
    fn retry(&mut self, now: Time) {
        let wait_us = RETRY_US << self.tries.min(RETRY_DOUBLINGS_MAX);
        self.tries = self.tries.saturating_add(1);
        self.try_at = Some(now.plus_micros(wait_us));
    }
}
