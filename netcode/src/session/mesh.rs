//! The mesh on the wire: datagrams between any two members, with a proof of origin each, and the
//! addresses and invitations with which members reach each other.
//!
//! ```text
//! kind(1) mac(8) from(varint) counter(4) flags(1) [echo(4) held(varint)]
//! messages: length(varint) bytes
//! ```
//!
//! The mac is `SipHash`-2-4 of all that stands behind it, under a key that only the two members and
//! the host which introduced them know; each direction has a key of its own, so nothing comes back
//! as if the other had said it. The counter only grows, so nothing counts twice.

use crate::hash::keyed;
use crate::id::MemberId;
use crate::limits::{ADDRESS_BYTES_MAX, DATAGRAM_BYTES_MAX, MESH_MESSAGE_BYTES_MAX};
use crate::session::statistics::DropReason;
use crate::wire::bytes::{DecodeError, Reader, put_counted, put_varint};
use crate::wire::header::kind;

/// Bytes before the echo, at least.
pub const HEADER_BYTES: usize = 15;
/// Bytes of a header with an echo, at most: an id has up to ten.
pub const HEADER_BYTES_MAX: usize = HEADER_BYTES + 9 + 4 + 5;
/// Where the mac begins, and where what it covers begins.
const MAC: core::ops::Range<usize> = 1..9;

/// The echo stands behind the flags.
const FLAG_ECHO: u8 = 0x01;

/// Where a link reaches another one: bytes that only links of the same kind understand.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Address {
    bytes: [u8; ADDRESS_BYTES_MAX],
    len: u8,
}

impl Address {
    /// An address of these bytes; `None` if there are none, or more than [`ADDRESS_BYTES_MAX`].
    #[must_use]
    pub fn new(address: &[u8]) -> Option<Self> {
        let len = u8::try_from(address.len()).ok().filter(|&len| len > 0)?;
        let mut bytes = [0; ADDRESS_BYTES_MAX];
        bytes.get_mut(..address.len())?.copy_from_slice(address);
        Some(Self { bytes, len })
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl core::fmt::Debug for Address {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Address({:02x?})", self.as_bytes())
    }
}

/// What a link needs to open a path to a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// Who is there.
    pub member: MemberId,
    /// Where.
    pub address: Address,
    /// What the member's own link made for this purpose, at most
    /// [`INVITATION_BYTES_MAX`](crate::limits::INVITATION_BYTES_MAX); empty if there is none yet.
    pub invitation: Vec<u8>,
}

/// The secret of two members.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PairKey(pub u128);

impl core::fmt::Debug for PairKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("PairKey(..)")
    }
}

impl PairKey {
    /// The key under which `from` speaks to `to`.
    #[must_use]
    pub fn direction(self, from: MemberId, to: MemberId) -> MacKey {
        let half = |which: u8| {
            let mut seed = [0; 19];
            seed[..3].copy_from_slice(&[b'm', b'e', which]);
            seed[3..11].copy_from_slice(&from.0.to_le_bytes());
            seed[11..].copy_from_slice(&to.0.to_le_bytes());
            u128::from(keyed(self.0, &seed))
        };
        MacKey(half(1) << 64 | half(0))
    }
}

/// The key of one direction; see [`PairKey::direction`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct MacKey(u128);

impl core::fmt::Debug for MacKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("MacKey(..)")
    }
}

/// The newest datagram that the sender of this one has accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Echo {
    /// Its counter.
    pub counter: u32,
    /// How long it was there before this one left, in microseconds.
    pub held_us: u32,
}

/// A datagram of the mesh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MeshDatagram<'a> {
    /// Who sent it.
    pub from: MemberId,
    /// Its number.
    pub counter: u32,
    /// What the sender has heard.
    pub echo: Option<Echo>,
    /// The messages in it, each behind its length.
    messages: &'a [u8],
}

impl<'a> MeshDatagram<'a> {
    /// Appends a datagram without messages to `out`; [`put_message`] adds them, [`seal`] ends it.
    pub fn begin(from: MemberId, counter: u32, echo: Option<Echo>, out: &mut Vec<u8>) {
        out.push(kind::MESH);
        out.extend_from_slice(&[0; 8]);
        put_varint(out, from.0);
        out.extend_from_slice(&counter.to_le_bytes());
        out.push(if echo.is_some() { FLAG_ECHO } else { 0 });
        if let Some(echo) = echo {
            out.extend_from_slice(&echo.counter.to_le_bytes());
            put_varint(out, u64::from(echo.held_us));
        }
    }

    /// The member that a datagram says it is from; nothing vouches for that yet. `None` if it
    /// cannot be one of the mesh.
    #[must_use]
    pub fn sender(bytes: &[u8]) -> Option<MemberId> {
        let has_size = (HEADER_BYTES..=DATAGRAM_BYTES_MAX).contains(&bytes.len());
        if !has_size || bytes.first() != Some(&kind::MESH) {
            return None;
        }
        let mut reader = Reader::new(bytes.get(MAC.end..)?);
        reader.varint().ok().map(MemberId)
    }

    /// Checks and reads a datagram that was sealed with `key`.
    ///
    /// # Errors
    /// [`DropReason::Malformed`] if it is no datagram of the mesh,
    /// [`DropReason::NotAuthentic`] if another key sealed it or something was changed.
    pub fn read(bytes: &'a [u8], key: MacKey) -> Result<Self, DropReason> {
        Self::sender(bytes).ok_or(DropReason::Malformed)?;
        if bytes[MAC] != mac(key, &bytes[MAC.end..]) {
            return Err(DropReason::NotAuthentic);
        }
        Self::read_body(&bytes[MAC.end..]).map_err(|_error| DropReason::Malformed)
    }

    fn read_body(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let from = MemberId(reader.varint()?);
        let counter = reader.u32()?;
        let echo = match reader.u8()? {
            0 => None,
            FLAG_ECHO => Some(Echo {
                counter: reader.u32()?,
                held_us: reader.varint_u32()?,
            }),
            _ => return Err(DecodeError::Invalid("reserved flags are set")),
        };
        let messages = reader.rest();
        while !reader.is_empty() {
            if reader.counted(MESH_MESSAGE_BYTES_MAX)?.is_empty() {
                return Err(DecodeError::Invalid("a message is empty"));
            }
        }
        Ok(Self {
            from,
            counter,
            echo,
            messages,
        })
    }

    /// The messages in it, in order.
    pub fn messages(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut reader = Reader::new(self.messages);
        // All of them were read before.
        core::iter::from_fn(move || reader.counted(MESH_MESSAGE_BYTES_MAX).ok())
    }
}

/// Adds a message to a datagram that was begun, if it still fits.
#[must_use]
pub fn put_message(message: &[u8], out: &mut Vec<u8>) -> bool {
    let length_bytes = if message.len() < 128 { 1 } else { 2 };
    if out.len() + length_bytes + message.len() > DATAGRAM_BYTES_MAX {
        return false;
    }
    put_counted(out, message);
    true
}

/// Ends a datagram that was begun at the start of `out`.
///
/// # Panics
/// If none was.
pub fn seal(key: MacKey, out: &mut [u8]) {
    let mac = mac(key, &out[MAC.end..]);
    out[MAC].copy_from_slice(&mac);
}

fn mac(key: MacKey, body: &[u8]) -> [u8; 8] {
    keyed(key.0, body).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Term;
    use crate::prng::Prng;

    const KEY: PairKey = PairKey(7 << 64 | 9);
    const LATER: MemberId = MemberId::new(Term(2), 0);

    fn key() -> MacKey {
        KEY.direction(MemberId(3), LATER)
    }

    fn datagram(echo: Option<Echo>, messages: &[&[u8]]) -> Vec<u8> {
        let mut bytes = Vec::new();
        MeshDatagram::begin(MemberId(3), 70_000, echo, &mut bytes);
        for message in messages {
            assert!(put_message(message, &mut bytes));
        }
        seal(key(), &mut bytes);
        bytes
    }

    #[test]
    fn a_datagram_survives_the_wire() {
        let echo = Echo {
            counter: 9,
            held_us: 250_000,
        };
        let bytes = datagram(Some(echo), &[b"vote", &[7; 200]]);
        assert_eq!(MeshDatagram::sender(&bytes), Some(MemberId(3)));
        let read = MeshDatagram::read(&bytes, key()).unwrap();
        assert_eq!(
            (read.from, read.counter, read.echo),
            (MemberId(3), 70_000, Some(echo))
        );
        let messages: Vec<&[u8]> = read.messages().collect();
        assert_eq!(messages, [&b"vote"[..], &[7; 200]]);
        let idle = datagram(None, &[]);
        assert_eq!(idle.len(), HEADER_BYTES);
        let mut later = Vec::new();
        MeshDatagram::begin(LATER, 1, None, &mut later);
        assert_eq!(MeshDatagram::sender(&later), Some(LATER));
        assert_eq!(MeshDatagram::read(&idle, key()).unwrap().echo, None);
    }

    #[test]
    fn every_changed_bit_shows() {
        let bytes = datagram(None, &[b"hello"]);
        // A sender that cannot be read has no key.
        let is_sender = |bit: usize| bit / 8 == MAC.end;
        for bit in (8..bytes.len() * 8).filter(|&bit| !is_sender(bit)) {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let read = MeshDatagram::read(&changed, key());
            assert_eq!(read, Err(DropReason::NotAuthentic), "bit {bit}");
        }
        for cut in 0..bytes.len() {
            assert!(MeshDatagram::read(&bytes[..cut], key()).is_err(), "{cut}");
        }
        let back = KEY.direction(LATER, MemberId(3));
        assert_eq!(
            MeshDatagram::read(&bytes, back),
            Err(DropReason::NotAuthentic)
        );
    }

    #[test]
    fn a_member_that_seals_nonsense_is_refused() {
        let mut prng = Prng::new(5);
        let nonsense: [&[u8]; 5] = [&[2], &[1, 1, 2], &[0, 0], &[0, 9, 1], &[0, 0x80]];
        for body in nonsense {
            let mut bytes = vec![kind::MESH];
            bytes.extend_from_slice(&[0; 8]);
            bytes.extend_from_slice(&[3, 1, 0, 0, 0]);
            bytes.extend_from_slice(body);
            seal(key(), &mut bytes);
            let read = MeshDatagram::read(&bytes, key());
            assert_eq!(read, Err(DropReason::Malformed), "{body:?}");
        }
        for _ in 0..20_000 {
            let mut bytes = vec![kind::MESH];
            let length = 13 + usize::try_from(prng.below(60)).unwrap();
            bytes.extend((0..length).map(|_| prng.next_u64().to_le_bytes()[0] & 0x8f));
            seal(key(), &mut bytes);
            if let Ok(read) = MeshDatagram::read(&bytes, key()) {
                assert!(read.messages().all(|message| !message.is_empty()));
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_not_put() {
        let mut bytes = Vec::new();
        MeshDatagram::begin(MemberId(3), 1, None, &mut bytes);
        assert!(put_message(&[1; MESH_MESSAGE_BYTES_MAX], &mut bytes));
        assert!(!put_message(&[1; 100], &mut bytes));
        assert!(put_message(&[1; 10], &mut bytes));
        assert!(bytes.len() <= DATAGRAM_BYTES_MAX);
    }

    #[test]
    fn addresses_have_one_to_thirty_two_bytes() {
        assert_eq!(Address::new(&[]), None);
        assert_eq!(Address::new(&[1; ADDRESS_BYTES_MAX + 1]), None);
        for len in 1..=ADDRESS_BYTES_MAX {
            let address = Address::new(&vec![8; len]).unwrap();
            assert_eq!(address.as_bytes(), vec![8; len]);
        }
    }
}
