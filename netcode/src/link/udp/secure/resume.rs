//! The way back: tokens that a host hands to its clients over the encrypted session, so that one
//! whose session is lost can open another without a join code from outside.
//!
//! Such a token is like any other: it opens one session, as the same client, until it expires. A
//! client holds a few, since one that was tried in vain is spent. A new session brings new ones.

use core::net::SocketAddr;
use std::collections::{BTreeMap, VecDeque};

use super::CLIENTS_MAX;
use crate::id::Path;
use crate::link::udp::guard::{TAG_BYTES, TokenTag};
use crate::link::udp::token::JoinToken;
use crate::time::Time;

/// First byte of a payload by which a host hands over a token: its bytes follow.
pub(super) const OFFER: u8 = 0x10;

/// First byte of a payload by which a client says that it has a token: its tag follows.
pub(super) const TAKEN: u8 = 0x11;

/// Tokens that a client holds for one host: at 10 s for each attempt, they last for half a minute.
const HELD_MAX: usize = 3;

/// Time after which a token is handed over again if the client has not said that it has it.
const REPEAT_US: u64 = 500_000;

/// Whether a payload belongs to the link, not to the game.
pub(super) fn is_reserved(bytes: &[u8]) -> bool {
    matches!(bytes.first(), Some(&(OFFER | TAKEN)))
}

/// What a host has handed to one client.
#[derive(Debug, Default)]
pub(super) struct Offers {
    /// The payload that is under way, and the tag of its token.
    pending: Option<(Vec<u8>, TokenTag)>,
    /// Tokens that the client has taken of the present round.
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

    /// Takes a client's word that it has the token; a word on another one changes nothing. After
    /// the last one, the next round is due when half of their life of `life_us` is over.
    pub(super) fn handle_taken(&mut self, now: Time, payload: &[u8], life_us: u64) {
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

/// What hosts have handed to this end, by the path over which they did.
#[derive(Debug, Default)]
pub(super) struct WaysBack {
    held: BTreeMap<Path, VecDeque<JoinToken>>,
}

impl WaysBack {
    /// Keeps a token that came over `path` from the host at `address`, and gives the answer. `None`
    /// if it is no token for this client.
    pub(super) fn take(
        &mut self,
        path: Path,
        address: SocketAddr,
        (protocol_id, client_id): (u64, u64),
        payload: &[u8],
    ) -> Option<[u8; 1 + TAG_BYTES]> {
        let token = JoinToken::from_bytes(payload.get(1..)?).ok()?;
        if token.protocol_id() != protocol_id || token.client_id() != client_id {
            return None;
        }
        let mut answer = [TAKEN; 1 + TAG_BYTES];
        answer[1..].copy_from_slice(&token.tag());
        let held = self.held.entry(path).or_default();
        // The host repeats what was taken until it hears so.
        if held.iter().all(|known| known.tag() != token.tag()) {
            if held.len() >= HELD_MAX {
                held.pop_front();
            }
            held.push_back(token.with_address(address));
        }
        // Paths that are long gone go first.
        while self.held.len() > 2 * CLIENTS_MAX {
            self.held.pop_first();
        }
        Some(answer)
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
