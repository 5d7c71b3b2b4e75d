//! What the secure and the plain endpoint have in common: their surroundings, and small parts.

use core::net::SocketAddr;

use super::guard::Drops;
use crate::id::Path;
use crate::link::CloseReason;
use crate::time::Time;

/// What an endpoint asks of its shell. Each call is obeyed at once, in order.
pub(super) trait Sink {
    /// Send this datagram.
    fn transmit(&mut self, to: SocketAddr, bytes: &[u8]);
    /// Tell the game that a path opened.
    fn opened(&mut self, path: Path, client_id: u64);
    /// Hand a payload to the game.
    fn datagram(&mut self, path: Path, bytes: &[u8]);
    /// Tell the game that a path is gone.
    fn closed(&mut self, path: Path, reason: CloseReason);
}

/// What an endpoint counts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) drops: Drops,
    /// Bytes of what was dropped.
    pub(super) bytes_refused: u64,
    /// Sends over paths that are not open.
    pub(super) unknown_path: u64,
    /// Payloads that were too large, empty or of a reserved kind.
    pub(super) unsendable: u64,
    /// Sequence numbers that were skipped because a challenge had used them.
    pub(super) burned: u64,
}

/// Why a connection cannot even be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// There is a connection to this address, or one is under way.
    #[error("there is already a connection to this address")]
    AlreadyConnected,
    /// The token was used by this process before.
    #[error("the join code was already used; ask the host for a new one")]
    TokenUsed,
    /// The token's time is over.
    #[error("the join code has expired; ask the host for a new one")]
    TokenExpired,
    /// The token is for another game or version.
    #[error("the join code is for another game or version")]
    OtherGame,
    /// This link is secure: it connects with join tokens only.
    #[error("this link is secure: it connects with a join code, not with an address")]
    NeedsToken,
    /// This link is insecure: it connects to addresses only.
    #[error("this link is insecure: it connects to an address, not with a join code")]
    NeedsAddress,
    /// The invitation is damaged, or sealed to another link's key.
    #[error("the invitation is damaged or meant for somebody else")]
    Invitation,
    /// The other end has handed over no token to come back with, or all of them were used; or the
    /// connection is long gone.
    #[error("the other end gave no right to come back over this connection")]
    NoWayBack,
    /// Too many connections are open or under way.
    #[error("too many connections")]
    Full,
    /// The address is IPv6, the socket is IPv4.
    #[error("this link has an IPv4 socket and cannot reach an IPv6 address")]
    AddressFamily,
    /// Nobody can be at this address.
    #[error("nobody can be at this address")]
    Address,
    /// The operating system gives no random numbers.
    #[error("the operating system gives no random numbers")]
    Random,
}

/// Payloads per second that are taken from one session, with a burst of as many: the core needs 60
/// to 240 and paces its bulk data below 5 MB/s. One flooding peer leaves room for the others in the
/// queue to the game.
pub(super) const SESSION_PAYLOADS_PER_S_MAX: u64 = 4096;

/// Lets a number of events per second through, and a burst of as many as one second's.
#[derive(Clone, Copy, Debug)]
pub(super) struct RateLimit {
    per_s: u64,
    /// Millionths of an event.
    level: u64,
    at: Time,
}

impl RateLimit {
    pub(super) const fn new(per_s: u64) -> Self {
        Self {
            per_s,
            level: per_s * 1_000_000,
            at: Time::ZERO,
        }
    }

    /// Whether one more event may pass at `now`.
    pub(super) fn allow(&mut self, now: Time) -> bool {
        let gained = now.micros_since(self.at).saturating_mul(self.per_s);
        self.level = self
            .level
            .saturating_add(gained)
            .min(self.per_s * 1_000_000);
        self.at = self.at.max(now);
        if self.level < 1_000_000 {
            return false;
        }
        self.level -= 1_000_000;
        true
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// What a sink was asked for, kept.
    #[derive(Debug, PartialEq, Eq)]
    pub(crate) enum Said {
        Opened(Path, u64),
        Datagram(Path, Vec<u8>),
        Closed(Path, CloseReason),
    }

    /// A sink that remembers.
    #[derive(Debug, Default)]
    pub(crate) struct Memory {
        pub(crate) sent: Vec<(SocketAddr, Vec<u8>)>,
        pub(crate) said: Vec<Said>,
    }

    impl Sink for Memory {
        fn transmit(&mut self, to: SocketAddr, bytes: &[u8]) {
            self.sent.push((to, bytes.to_vec()));
        }

        fn opened(&mut self, path: Path, client_id: u64) {
            self.said.push(Said::Opened(path, client_id));
        }

        fn datagram(&mut self, path: Path, bytes: &[u8]) {
            self.said.push(Said::Datagram(path, bytes.to_vec()));
        }

        fn closed(&mut self, path: Path, reason: CloseReason) {
            self.said.push(Said::Closed(path, reason));
        }
    }

    #[test]
    fn a_rate_limit_allows_a_burst_then_its_rate() {
        let mut limit = RateLimit::new(10);
        let passed = (0..100).filter(|_| limit.allow(Time::ZERO)).count();
        assert_eq!(passed, 10);
        assert!(!limit.allow(Time::from_millis(99)));
        assert!(limit.allow(Time::from_millis(100)));
        assert!(!limit.allow(Time::from_millis(100)));
        let passed = (0..1000)
            .filter(|&ms| limit.allow(Time::from_millis(1000 + ms)))
            .count();
        assert!((18..=20).contains(&passed), "{passed}");
    }
}
