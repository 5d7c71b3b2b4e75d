//! Ways back: tokens that both ends of an encrypted session hand to each other over it, so that
//! either can open another one without a join code from outside when this one is lost.
//!
//! Such a token is like any other: it opens one session, until it expires. An end holds a few, since
//! one that was tried in vain is spent. A new session brings new ones. A client gets tokens for the
//! id that it has; a host gets tokens for an id that names the session over which it got them. An end
//! without a server side has none to hand over.

use core::net::SocketAddr;
use std::collections::{BTreeMap, VecDeque};

use super::CLIENTS_MAX;
use crate::id::Path;
use crate::limits::MEMBERS_MAX;
use crate::link::udp::guard::{DropCause, TAG_BYTES, TokenTag};
use crate::link::udp::token::JoinToken;
use crate::time::Time;

/// First byte of a payload by which an end hands over a token: its bytes follow.
pub(super) const OFFER: u8 = 0x10;

/// First byte of a payload by which an end says that it has a token: its tag follows.
pub(super) const TAKEN: u8 = 0x11;

/// Tokens that an end holds for one path: at 10 s for each attempt, they last for half a minute.
const HELD_MAX: usize = 3;

/// Paths for which tokens are held: as many as there may be, in either direction.
pub(in crate::link::udp) const PATHS_MAX: usize = CLIENTS_MAX + MEMBERS_MAX;

/// Time after which a token is handed over again if the other end has not said that it has it.
const REPEAT_US: u64 = 500_000;

/// The upper 16 bits of the ids as which hosts come back to those that were their clients. The
/// number of the path over which they got the token follows, which is another one each time.
const MARK: u64 = 0x6d64;

/// Whether a client id can only be that of a host that comes back to its client.
pub(in crate::link::udp) const fn is_reserved_id(client_id: u64) -> bool {
    client_id >> 48 == MARK
}

/// The id as which the host at the other end of `path` comes back.
pub(super) fn id_over(path: Path) -> u64 {
    MARK << 48 | u64::from(path.0)
}

/// Whether a payload belongs to the link, not to the game.
pub(super) fn is_reserved(bytes: &[u8]) -> bool {
    matches!(bytes.first(), Some(&(OFFER | TAKEN)))
}

/// What this end has handed to the other one of a session.
#[derive(Debug, Default)]
pub(super) struct Offers {
    /// The payload that is under way, and the tag of its token.
    pending: Option<(Vec<u8>, TokenTag)>,
    /// Tokens that the other end has taken of the present round.
    taken: usize,
    due_at: Time,
}

impl Offers {
    /// Whether something is to be sent at `now`.
    pub(super) fn is_due(&self, now: Time) -> bool {
        now >= self.due_at
    }

    /// Whether what is due needs a new token.
    pub(super) const fn needs_token(&self) -> bool {
        self.pending.is_none()
    }

    /// Hands over `token` next.
    pub(super) fn put(&mut self, token: &JoinToken) {
        let mut payload = vec![OFFER];
        payload.extend_from_slice(&token.to_bytes());
        self.pending = Some((payload, token.tag()));
    }

    /// The payload to send now.
    pub(super) fn next(&mut self, now: Time) -> Option<&[u8]> {
        let (payload, _tag) = self.pending.as_ref()?;
        self.due_at = now.plus_micros(REPEAT_US);
        Some(payload)
    }

    /// Takes the other end's word that it has the token; a word on another one changes nothing.
    /// After the last one, the next round is due when half of their life of `life_us` is over.
    fn handle_taken(&mut self, now: Time, payload: &[u8], life_us: u64) {
        let is_it = self
            .pending
            .as_ref()
            .is_some_and(|(_, tag)| payload.get(1..) == Some(&tag[..]));
        if is_it {
            self.pending = None;
            self.taken += 1;
            self.due_at = now;
            if self.taken >= HELD_MAX {
                self.taken = 0;
                self.due_at = now.plus_micros(life_us / 2);
            }
        }
    }
}

/// A session of which an end takes the payloads that are the link's own.
pub(super) struct Meeting<'a> {
    /// Its path.
    pub(super) path: Path,
    /// Where the other end is.
    pub(super) address: SocketAddr,
    /// The game that this end plays.
    pub(super) protocol_id: u64,
    /// The id that this end has as the client; `None` if the other end is the client.
    pub(super) own_id: Option<u64>,
    /// What this end has handed over.
    pub(super) offers: &'a mut Offers,
    /// How long such tokens live, in microseconds.
    pub(super) life_us: u64,
}

/// What the other ends of sessions have handed to this one, by the path over which they did.
#[derive(Debug, Default)]
pub(super) struct WaysBack {
    held: BTreeMap<Path, VecDeque<JoinToken>>,
}

impl WaysBack {
    /// Takes a payload of the link's own, and gives the answer if there is one. `is_open` says which
    /// paths there are: what came over others makes room first.
    pub(super) fn handle(
        &mut self,
        now: Time,
        meeting: Meeting<'_>,
        payload: &[u8],
        is_open: impl Fn(&Path) -> bool,
    ) -> Result<Option<[u8; 1 + TAG_BYTES]>, DropCause> {
        if payload.first() == Some(&OFFER) {
            let answer = self.take(&meeting, payload, is_open);
            return answer.map(Some).ok_or(DropCause::Kind);
        }
        // What was taken twice is known already; only foreign words are refused.
        if payload.first() != Some(&TAKEN) || payload.len() != 1 + TAG_BYTES {
            return Err(DropCause::Kind);
        }
        let Meeting {
            offers, life_us, ..
        } = meeting;
        offers.handle_taken(now, payload, life_us);
        Ok(None)
    }

    /// Keeps a token, and gives the answer. `None` if it is no token for this end.
    fn take(
        &mut self,
        meeting: &Meeting<'_>,
        payload: &[u8],
        is_open: impl Fn(&Path) -> bool,
    ) -> Option<[u8; 1 + TAG_BYTES]> {
        let token = JoinToken::from_bytes(payload.get(1..)?).ok()?;
        let id = token.client_id();
        let is_ours = meeting
            .own_id
            .map_or(is_reserved_id(id), |own_id| id == own_id);
        if token.protocol_id() != meeting.protocol_id || !is_ours {
            return None;
        }
        let mut answer = [TAKEN; 1 + TAG_BYTES];
        answer[1..].copy_from_slice(&token.tag());
        let held = self.held.entry(meeting.path).or_default();
        // The other end repeats what was taken until it hears so.
        if held.iter().all(|known| known.tag() != token.tag()) {
            if held.len() >= HELD_MAX {
                held.pop_front();
            }
            held.push_back(token.with_address(meeting.address));
        }
        while self.held.len() > PATHS_MAX {
            let gone = self.held.keys().find(|path| !is_open(path)).copied();
            let oldest = self.held.keys().next().copied();
            if let Some(path) = gone.or(oldest) {
                self.held.remove(&path);
            }
        }
        Some(answer)
    }

    /// Where the tokens lead that came over `path`, if there are any.
    pub(super) fn address(&self, path: Path) -> Option<SocketAddr> {
        Some(self.held.get(&path)?.front()?.address())
    }

    /// The next token of those that came over `path`.
    pub(super) fn next(&mut self, path: Path) -> Option<JoinToken> {
        self.held.get_mut(&path)?.pop_front()
    }

    /// What is left from `old` may be used after `new`.
    pub(super) fn inherit(&mut self, old: Path, new: Path) {
        if let Some(rest) = self.held.remove(&old) {
            self.held.insert(new, rest);
        }
    }
}
