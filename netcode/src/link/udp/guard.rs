//! What stands between the socket and `renetcode`: hostile datagrams end here, with a reason.
//!
//! `renetcode` expects datagrams that its own encoder made. [`inspect`] lets through only what
//! such an encoder can have made: known kind, shortest sequence number, exact body size. What needs
//! memory (tokens that were used, who is connected) is refused in [`secure`](super::secure), with
//! reasons from the same list.

use core::fmt;

use crate::limits::DATAGRAM_BYTES_MAX;

/// Bytes of an authentication tag at the end of every sealed datagram.
pub(super) const TAG_BYTES: usize = 16;

/// Bytes of a connection request: prefix, version, protocol, expiry, nonce, sealed token.
pub(super) const REQUEST_BYTES: usize = 1 + 13 + 8 + 8 + 24 + 1024;

/// Bytes of the body of a challenge and of its response.
const CHALLENGE_BODY_BYTES: usize = 8 + 300;

/// Bytes of the body of a keep-alive.
const KEEP_ALIVE_BODY_BYTES: usize = 8;

/// First byte of a refusal, a datagram of ours: a prefix that renetcode never makes.
const REFUSAL_PREFIX: u8 = 0x0f;

/// Bytes of a refusal: prefix, code, tag of the refused token.
const REFUSAL_BYTES: usize = 1 + 1 + TAG_BYTES;

/// Sequence numbers from here on are refused: no session gets there in 10 000 years, and sums with
/// them overflow.
const SEQUENCE_MAX: u64 = 1 << 48;

/// The version text of every request.
const VERSION: &[u8; 13] = b"NETCODE 1.02\0";

/// Why a received datagram was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[non_exhaustive]
pub enum DropCause {
    /// Shorter than its kind allows.
    #[error("too short")]
    TooShort,
    /// Longer than any datagram of ours.
    #[error("too long")]
    TooLong,
    /// The sequence number is longer than 8 bytes or than it needs to be.
    #[error("malformed sequence number")]
    SequenceForm,
    /// The sequence number is higher than a session can reach.
    #[error("sequence number out of range")]
    SequenceRange,
    /// The kind is unknown, or makes no sense at this end.
    #[error("unknown kind")]
    Kind,
    /// The body has not the size of its kind.
    #[error("wrong body size")]
    BodySize,
    /// No session with this address.
    #[error("unknown sender")]
    UnknownSender,
    /// Forged, damaged, repeated, or out of its time.
    #[error("not authentic or repeated")]
    NotAuthentic,
    /// Meant for another game or version.
    #[error("another protocol")]
    OtherProtocol,
    /// A connection request from an address that is connected; it proves nothing.
    #[error("request from a connected address")]
    RequestFromConnected,
    /// A connection request from an address that is busy with another token.
    #[error("request from an address with another token under way")]
    AddressBusy,
    /// The token was used before, or comes from a second address.
    #[error("token was already used")]
    TokenUsed,
    /// The token's time is over.
    #[error("token has expired")]
    TokenExpired,
    /// The token was not minted here, or its client is connected already.
    #[error("token refused")]
    TokenRefused,
    /// Too many tokens are valid at once; none may be forgotten before it expires.
    #[error("token memory is full")]
    TokenMemoryFull,
    /// Too many requests, from one token or altogether, or too many payloads in one session.
    #[error("too many at once")]
    Flood,
    /// The identity in the challenge is not the one in the token.
    #[error("identity mismatch")]
    IdentityMismatch,
    /// The answer to a challenge is wrong or too old.
    #[error("wrong cookie")]
    Cookie,
    /// No place for another client.
    #[error("no free place")]
    Full,
}

impl DropCause {
    /// Every cause, in the order of their numbers.
    pub const ALL: [Self; 19] = [
        Self::TooShort,
        Self::TooLong,
        Self::SequenceForm,
        Self::SequenceRange,
        Self::Kind,
        Self::BodySize,
        Self::UnknownSender,
        Self::NotAuthentic,
        Self::OtherProtocol,
        Self::RequestFromConnected,
        Self::AddressBusy,
        Self::TokenUsed,
        Self::TokenExpired,
        Self::TokenRefused,
        Self::TokenMemoryFull,
        Self::Flood,
        Self::IdentityMismatch,
        Self::Cookie,
        Self::Full,
    ];
}

/// How many received datagrams were dropped, by cause.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Drops {
    counts: [u64; DropCause::ALL.len()],
}

impl Drops {
    /// Datagrams dropped for `cause`.
    #[must_use]
    pub const fn of(&self, cause: DropCause) -> u64 {
        self.counts[cause as usize]
    }

    /// Datagrams dropped for any cause.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The causes that have occurred, with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (DropCause, u64)> + '_ {
        DropCause::ALL
            .into_iter()
            .zip(self.counts)
            .filter(|&(_, count)| count > 0)
    }

    pub(super) const fn count(&mut self, cause: DropCause) {
        self.counts[cause as usize] += 1;
    }
}

impl fmt::Debug for Drops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// What a datagram claims to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Request,
    Denied,
    Challenge,
    Response,
    KeepAlive,
    Payload,
    Disconnect,
    /// Ours, not renetcode's: tells a client early why its token will never work.
    Refusal,
}

/// The kind of a well-formed datagram.
///
/// # Errors
/// The reason to drop it. Nothing behind this function sees such a datagram.
pub(super) fn inspect(bytes: &[u8]) -> Result<Kind, DropCause> {
    let &prefix = bytes.first().ok_or(DropCause::TooShort)?;
    if prefix == REFUSAL_PREFIX {
        return if bytes.len() == REFUSAL_BYTES {
            Ok(Kind::Refusal)
        } else {
            Err(DropCause::BodySize)
        };
    }
    let kind = match prefix & 0x0f {
        0 => Kind::Request,
        1 => Kind::Denied,
        2 => Kind::Challenge,
        3 => Kind::Response,
        4 => Kind::KeepAlive,
        5 => Kind::Payload,
        6 => Kind::Disconnect,
        _ => return Err(DropCause::Kind),
    };
    if kind == Kind::Request {
        if prefix != 0 {
            return Err(DropCause::SequenceForm);
        }
        return if bytes.len() == REQUEST_BYTES {
            Ok(kind)
        } else {
            Err(DropCause::BodySize)
        };
    }

    let (sequence, rest) = read_sequence(bytes)?;
    if sequence >= SEQUENCE_MAX {
        return Err(DropCause::SequenceRange);
    }
    let body_bytes = rest
        .len()
        .checked_sub(TAG_BYTES)
        .ok_or(DropCause::TooShort)?;
    let expected = match kind {
        Kind::Challenge | Kind::Response => CHALLENGE_BODY_BYTES,
        Kind::KeepAlive => KEEP_ALIVE_BODY_BYTES,
        Kind::Denied | Kind::Disconnect | Kind::Request | Kind::Refusal => 0,
        Kind::Payload if body_bytes > DATAGRAM_BYTES_MAX => return Err(DropCause::TooLong),
        Kind::Payload => body_bytes,
    };
    if body_bytes != expected {
        return Err(DropCause::BodySize);
    }
    // renetcode refuses less than a prefix, one byte and a tag, which an empty body has only with
    // a sequence number above 0; such a datagram is of no use to it.
    if bytes.len() < 2 + TAG_BYTES {
        return Err(DropCause::TooShort);
    }
    Ok(kind)
}

/// The sequence number of a sealed datagram, which may be one of ours.
pub(super) fn sequence_of(bytes: &[u8]) -> Option<u64> {
    read_sequence(bytes).ok().map(|(sequence, _rest)| sequence)
}

fn read_sequence(bytes: &[u8]) -> Result<(u64, &[u8]), DropCause> {
    let (&prefix, rest) = bytes.split_first().ok_or(DropCause::TooShort)?;
    let length = usize::from(prefix >> 4);
    if length > 8 {
        return Err(DropCause::SequenceForm);
    }
    let (low, rest) = rest.split_at_checked(length).ok_or(DropCause::TooShort)?;
    if low.last() == Some(&0) {
        return Err(DropCause::SequenceForm);
    }
    let mut word = [0; 8];
    word[..length].copy_from_slice(low);
    Ok((u64::from_le_bytes(word), rest))
}

/// Tag of a sealed token: its identity.
pub(super) type TokenTag = [u8; TAG_BYTES];

/// The plain part of a connection request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// Unix time in seconds at which the token ends; sealed together with it.
    pub(super) expires_unix_s: u64,
    pub(super) tag: TokenTag,
}

impl Request {
    /// Reads what [`inspect`] called a request.
    ///
    /// # Errors
    /// If it is not for `protocol_id`.
    pub(super) fn read(bytes: &[u8], protocol_id: u64) -> Result<Self, DropCause> {
        let mut reader = crate::wire::bytes::Reader::new(bytes);
        let short = |_truncated| DropCause::TooShort;
        let _prefix = reader.u8().map_err(short)?;
        if reader.array::<13>().map_err(short)? != *VERSION
            || reader.u64().map_err(short)? != protocol_id
        {
            return Err(DropCause::OtherProtocol);
        }
        let expires_unix_s = reader.u64().map_err(short)?;
        let tag = *reader
            .rest()
            .last_chunk::<TAG_BYTES>()
            .ok_or(DropCause::TooShort)?;
        Ok(Self {
            expires_unix_s,
            tag,
        })
    }
}

/// Why a host will never accept a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Used,
    Expired,
}

impl Refusal {
    /// The datagram for the holder of the token with this tag. Only who saw the request knows the
    /// tag, so nobody else can make one. It is 60 times smaller than what it answers.
    pub(super) fn encode(self, tag: TokenTag) -> [u8; REFUSAL_BYTES] {
        let mut bytes = [0; REFUSAL_BYTES];
        bytes[0] = REFUSAL_PREFIX;
        bytes[1] = match self {
            Self::Used => 1,
            Self::Expired => 2,
        };
        bytes[2..].copy_from_slice(&tag);
        bytes
    }

    /// Reads what [`inspect`] called a refusal, if it is about this token.
    pub(super) fn decode(bytes: &[u8], tag: TokenTag) -> Option<Self> {
        let [REFUSAL_PREFIX, code, rest @ ..] = bytes else {
            return None;
        };
        match code {
            1 if rest == tag => Some(Self::Used),
            2 if rest == tag => Some(Self::Expired),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(kind: u8, sequence: &[u8], body: usize) -> Vec<u8> {
        let mut bytes = vec![kind | u8::try_from(sequence.len() << 4).unwrap()];
        bytes.extend_from_slice(sequence);
        bytes.resize(bytes.len() + body + TAG_BYTES, 7);
        bytes
    }

    #[test]
    fn what_the_encoder_makes_passes() {
        assert_eq!(inspect(&[0; REQUEST_BYTES]), Ok(Kind::Request));
        for (number, body, kind) in [
            (1, 0, Kind::Denied),
            (2, 308, Kind::Challenge),
            (3, 308, Kind::Response),
            (4, 8, Kind::KeepAlive),
            (5, 1, Kind::Payload),
            (5, DATAGRAM_BYTES_MAX, Kind::Payload),
            (6, 0, Kind::Disconnect),
        ] {
            assert_eq!(inspect(&sealed(number, &[1], body)), Ok(kind));
            assert_eq!(inspect(&sealed(number, &[0, 0, 9], body)), Ok(kind));
        }
        assert_eq!(inspect(&sealed(5, &[], 1)), Ok(Kind::Payload));
        assert_eq!(inspect(&Refusal::Used.encode([3; 16])), Ok(Kind::Refusal));
    }

    #[test]
    fn every_malformed_datagram_has_its_cause() {
        let cases: &[(&[u8], DropCause)] = &[
            (&[], DropCause::TooShort),
            (&[0; 1077], DropCause::BodySize),
            (&[0; 1079], DropCause::BodySize),
            (&[0x10; REQUEST_BYTES], DropCause::SequenceForm),
            (&sealed(7, &[1], 8), DropCause::Kind),
            (&sealed(14, &[1], 8), DropCause::Kind),
            (&sealed(5, &[1; 9], 8), DropCause::SequenceForm),
            (&sealed(5, &[1; 15], 8), DropCause::SequenceForm),
            (&sealed(5, &[1, 0], 8), DropCause::SequenceForm),
            (&sealed(5, &[1; 8], 8), DropCause::SequenceRange),
            (&sealed(5, &[255; 8], 8), DropCause::SequenceRange),
            (&sealed(5, &[1], 8)[..17], DropCause::TooShort),
            (&[0x85, 1, 1], DropCause::TooShort),
            (&sealed(5, &[], 0), DropCause::TooShort),
            (&sealed(5, &[1], DATAGRAM_BYTES_MAX + 1), DropCause::TooLong),
            (&sealed(1, &[1], 1), DropCause::BodySize),
            (&sealed(2, &[1], 307), DropCause::BodySize),
            (&sealed(3, &[1], 309), DropCause::BodySize),
            (&sealed(4, &[1], 7), DropCause::BodySize),
            (&sealed(6, &[1], 1), DropCause::BodySize),
            (&[0x0f; 17], DropCause::BodySize),
        ];
        for (bytes, cause) in cases {
            assert_eq!(inspect(bytes), Err(*cause), "{} bytes", bytes.len());
        }
    }

    #[test]
    fn requests_name_their_protocol_expiry_and_tag() {
        let mut bytes = vec![0; REQUEST_BYTES];
        bytes[1..14].copy_from_slice(VERSION);
        bytes[14..22].copy_from_slice(&77_u64.to_le_bytes());
        bytes[22..30].copy_from_slice(&1234_u64.to_le_bytes());
        bytes[REQUEST_BYTES - TAG_BYTES..].fill(9);
        let expected = Request {
            expires_unix_s: 1234,
            tag: [9; 16],
        };
        assert_eq!(Request::read(&bytes, 77), Ok(expected));
        assert_eq!(Request::read(&bytes, 78), Err(DropCause::OtherProtocol));
        bytes[1] = b'X';
        assert_eq!(Request::read(&bytes, 77), Err(DropCause::OtherProtocol));
    }

    #[test]
    fn refusals_are_for_one_token() {
        let golden = [0x0f, 1, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8];
        assert_eq!(Refusal::Used.encode([8; 16]), golden);
        assert_eq!(Refusal::Expired.encode([8; 16])[1], 2);
        for refusal in [Refusal::Used, Refusal::Expired] {
            let bytes = refusal.encode([5; 16]);
            assert_eq!(Refusal::decode(&bytes, [5; 16]), Some(refusal));
            assert_eq!(Refusal::decode(&bytes, [6; 16]), None);
        }
        let mut unknown = Refusal::Used.encode([5; 16]);
        unknown[1] = 9;
        assert_eq!(Refusal::decode(&unknown, [5; 16]), None);
    }

    #[test]
    fn causes_are_numbered_in_order_and_counted_apart() {
        let mut drops = Drops::default();
        for (number, cause) in DropCause::ALL.into_iter().enumerate() {
            assert_eq!(cause as usize, number);
            for _ in 0..=number {
                drops.count(cause);
            }
        }
        assert_eq!(drops.of(DropCause::TooLong), 2);
        assert_eq!(drops.total(), (1..=DropCause::ALL.len() as u64).sum());
    }
}
