//! What members of a mesh say to introduce each other: messages of the mesh beside those of terms.
//!
//! ```text
//! Ask         20 member(varint) key(16)
//! Meet        21 member(varint) key(16) address
//! Invite      22 member(varint) public_key(32)
//! Invitation  23 member(varint) part(1) parts(1) bytes
//! ```

use crate::id::MemberId;
use crate::limits::INVITATION_PART_BYTES_MAX;
use crate::session::mesh::{Address, PairKey};
use crate::wire::bytes::{DecodeError, Reader, put_varint};

const ASK: u8 = 0x20;
const MEET: u8 = 0x21;
const INVITE: u8 = 0x22;
const INVITATION: u8 = 0x23;

/// A word of an introduction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Introduction {
    /// To a neighbour: introduce the sender and this member to each other, with this secret.
    Ask {
        /// Whom the sender wants to meet.
        member: MemberId,
        /// The secret of the two.
        key: PairKey,
    },
    /// From a neighbour: this is how to reach this member, who is told the same of the receiver. Of the
    /// two the one with the lower id opens the path.
    Meet {
        /// Who.
        member: MemberId,
        /// The secret of the two.
        key: PairKey,
        /// Where it is, as the neighbour sees it.
        address: Address,
    },
    /// To the neighbour that introduced: the sender needs an invitation from this member. From it:
    /// this member needs one.
    Invite {
        /// Whom it is asked of, or who asks.
        member: MemberId,
        /// The key to which it shall be sealed.
        public_key: [u8; 32],
    },
    /// A part of an invitation, for this member; from the neighbour: from this member.
    Invitation {
        /// For whom, or from whom.
        member: MemberId,
        /// Which part, from 0.
        part: u8,
        /// Number of parts.
        parts: u8,
        /// Its bytes, 1 to [`INVITATION_PART_BYTES_MAX`].
        bytes: Vec<u8>,
    },
}

impl Introduction {
    /// Whether a message of the mesh says that it is one of these.
    #[must_use]
    pub fn is_one(message: &[u8]) -> bool {
        matches!(message.first(), Some(&(ASK..=INVITATION)))
    }

    /// Its bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut begin = |kind: u8, member: MemberId| {
            out.push(kind);
            put_varint(&mut out, member.0);
        };
        match self {
            Self::Ask { member, key } => {
                begin(ASK, *member);
                out.extend_from_slice(&key.0.to_le_bytes());
            }
            Self::Meet {
                member,
                key,
                address,
            } => {
                begin(MEET, *member);
                out.extend_from_slice(&key.0.to_le_bytes());
                out.extend_from_slice(address.as_bytes());
            }
            Self::Invite { member, public_key } => {
                begin(INVITE, *member);
                out.extend_from_slice(public_key);
            }
            Self::Invitation {
                member,
                part,
                parts,
                bytes,
            } => {
                begin(INVITATION, *member);
                out.extend_from_slice(&[*part, *parts]);
                out.extend_from_slice(bytes);
            }
        }
        out
    }

    /// Reads one.
    ///
    /// # Errors
    /// If the bytes are not exactly one.
    pub fn decode(message: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(message);
        let kind = reader.u8()?;
        let member = MemberId(reader.varint()?);
        let word = match kind {
            ASK => Self::Ask {
                member,
                key: PairKey(reader.u128()?),
            },
            MEET => {
                let key = PairKey(reader.u128()?);
                let address = Address::new(reader.bytes(reader.len())?);
                let address = address.ok_or(DecodeError::Invalid("an address of that length"))?;
                Self::Meet {
                    member,
                    key,
                    address,
                }
            }
            INVITE => Self::Invite {
                member,
                public_key: reader.array()?,
            },
            INVITATION => {
                let (part, parts) = (reader.u8()?, reader.u8()?);
                let bytes = reader.bytes(reader.len())?;
                if part >= parts || !(1..=INVITATION_PART_BYTES_MAX).contains(&bytes.len()) {
                    return Err(DecodeError::Invalid("no part of an invitation"));
                }
                Self::Invitation {
                    member,
                    part,
                    parts,
                    bytes: bytes.to_vec(),
                }
            }
            _ => return Err(DecodeError::Invalid("no word of an introduction")),
        };
        reader.finish()?;
        Ok(word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Term;
    use crate::prng::Prng;

    fn words() -> [Introduction; 4] {
        let member = MemberId::new(Term(3), 2);
        let key = PairKey(1 << 100 | 7);
        [
            Introduction::Ask { member, key },
            Introduction::Meet {
                member: MemberId(1),
                key,
                address: Address::new(&[127, 0, 0, 1, 9]).unwrap(),
            },
            Introduction::Invite {
                member,
                public_key: [8; 32],
            },
            Introduction::Invitation {
                member,
                part: 6,
                parts: 7,
                bytes: vec![9; INVITATION_PART_BYTES_MAX],
            },
        ]
    }

    #[test]
    fn words_survive_the_wire_whole_only() {
        for word in words() {
            let bytes = word.to_bytes();
            assert!(Introduction::is_one(&bytes));
            assert_eq!(Introduction::decode(&bytes).as_ref(), Ok(&word));
            for cut in 0..bytes.len() {
                let read = Introduction::decode(&bytes[..cut]);
                assert_ne!(read.as_ref(), Ok(&word), "{cut}");
            }
            // Where the rest is bytes, one more is another word, or one too many.
            let longer = [&bytes[..], &[0]].concat();
            let read = Introduction::decode(&longer);
            let has_tail = matches!(word, Introduction::Meet { .. });
            assert_eq!(read.is_ok(), has_tail, "{read:?}");
        }
    }

    #[test]
    fn limits_hold() {
        let [_, meet, _, part] = words().map(|word| word.to_bytes());
        let address = |len: usize| Introduction::decode(&[&meet[..18], &vec![1; len]].concat());
        assert!(address(0).is_err() && address(33).is_err());
        assert!(address(1).is_ok() && address(32).is_ok());
        let head = part.len() - INVITATION_PART_BYTES_MAX;
        assert!(Introduction::decode(&part[..head]).is_err(), "no bytes");
        let mut wrong = part;
        wrong[head - 2] = 7;
        assert!(Introduction::decode(&wrong).is_err(), "part 7 of 7");
        for kind in [0, 1, 0x0e, 0x1f, 0x24, 0xff] {
            assert!(!Introduction::is_one(&[kind, 1]));
            assert!(Introduction::decode(&[kind, 1]).is_err());
        }
        assert!(!Introduction::is_one(&[]));
    }

    #[test]
    fn hostile_bytes_are_words_or_errors() {
        let seed = 21;
        let mut prng = Prng::new(seed);
        let mut read = 0;
        for _ in 0..100_000 {
            let words = words();
            let word = &words[usize::try_from(prng.below(4)).unwrap()];
            let mut bytes = word.to_bytes();
            for _ in 0..prng.below(4) {
                let place = usize::try_from(prng.below(bytes.len() as u64)).unwrap();
                match prng.below(3) {
                    0 => bytes[place] ^= 1 << prng.below(8),
                    1 => bytes.truncate(place.max(1)),
                    _ => bytes.insert(place, prng.next_u64().to_le_bytes()[0]),
                }
            }
            if let Ok(word) = Introduction::decode(&bytes) {
                read += 1;
                assert_eq!(word.to_bytes(), bytes, "seed {seed}: one form each");
            }
        }
        assert!((10_000..100_000).contains(&read), "{read}");
    }
}
