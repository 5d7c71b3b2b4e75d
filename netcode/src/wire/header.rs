//! The datagram that travels every tick: its first bytes and its sections. See `docs/WIRE.md`.
//!
//! Everything that a steady link need not repeat is left out. Three bytes stay: a tag that binds
//! session, term and the upper bits of the sequence number; the low bits of the sequence number;
//! and those of the newest datagram that the sender has accepted. The tick of the newest input
//! follows from the sequence number as long as both grow together, one per tick.

use crate::hash::mix;
use crate::id::{SessionId, Term};
use crate::tick::{Seq, Tick};
use crate::wire::bytes::{DecodeError, Reader, put_counted, put_varint};

/// Kinds by first byte. The lower 64 values belong to links.
pub mod kind {
    /// `0x40..=0x7f`: tick datagram without sections. The low six bits are the tag.
    pub const PLAIN: u8 = 0x40;
    /// `0x80..=0xbf`: tick datagram with sections. The low six bits are the tag.
    pub const EXTENDED: u8 = 0x80;
    /// Mask of the bits that tell [`PLAIN`] and [`EXTENDED`] from the rest.
    pub const MASK: u8 = 0xc0;
    /// A client asks to join.
    pub const HELLO: u8 = 0xc0;
    /// The host accepts.
    pub const WELCOME: u8 = 0xc1;
    /// The host refuses, and says why.
    pub const REFUSE: u8 = 0xc2;
    /// A part of the host's schema, after a refusal because of it.
    pub const SCHEMA_PART: u8 = 0xc3;
    /// The sender leaves.
    pub const BYE: u8 = 0xc4;
    /// A member asks the next host to go on with it.
    pub const RETURN: u8 = 0xc5;
    /// The new host goes on with it.
    pub const BACK: u8 = 0xc6;
    /// A chunk of a transfer.
    pub const BULK: u8 = 0xc8;
    /// Which chunks arrived.
    pub const BULK_ACK: u8 = 0xc9;
    /// A part of what a standby is sent for a tick.
    pub const STANDBY: u8 = 0xd1;
    /// What a standby holds.
    pub const STANDBY_ACK: u8 = 0xd2;
    /// A member speaks to another one.
    pub const MESH: u8 = 0xd0;
}

/// Bits of the flags byte in an extended datagram; sections follow in this order.
mod flag {
    /// The tick of the newest input stands here in full, as a varint.
    pub(super) const TICK: u8 = 0x01;
    /// The sender has accepted no datagram yet; the ack byte is 0.
    pub(super) const NO_ACK: u8 = 0x02;
    /// Clock section.
    pub(super) const CLOCK: u8 = 0x04;
    /// State hash section.
    pub(super) const HASH: u8 = 0x08;
    /// Control messages.
    pub(super) const CONTROL: u8 = 0x10;
    /// A packet of the game's messages.
    pub(super) const MESSAGES: u8 = 0x20;
    /// Which datagrams before the acked one are missing.
    pub(super) const MISSING: u8 = 0x40;
    /// What a client says of the entities that it decides.
    pub(super) const CLAIMS: u8 = 0x80;
}

/// Binds a datagram to its session, term and part of the sequence.
///
/// The tag of a datagram is `(key + 5 * term + 11 * (sequence >> 8)) mod 64`, with the key taken
/// from the session id. A datagram of the term before, or one that was delayed for 256 others,
/// has another tag for certain: 5 and 11 are odd. A stray one passes in one of 64 cases, and then
/// meets the checks behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TagKey {
    key: u8,
    term: Term,
}

impl TagKey {
    /// The key of this session and term, on the link that the Hello with `nonce` opened.
    #[must_use]
    pub fn new(session: SessionId, term: Term, nonce: u64) -> Self {
        let [low, high] = [session.0 & u128::from(u64::MAX), session.0 >> 64]
            .map(|half| u64::try_from(half).unwrap_or(0));
        let key = mix(mix(low, high), nonce).to_le_bytes()[0] & 0x3f;
        Self { key, term }
    }

    /// The key of a link over a path that had another link before: no datagram of the first three
    /// epochs has a tag that `salt` was chosen to avoid.
    #[must_use]
    pub const fn salted(self, salt: u8) -> Self {
        Self {
            key: self.key.wrapping_add(salt) & 0x3f,
            term: self.term,
        }
    }

    /// The salt with which datagrams of the first three epochs have none of the tags in `avoids`,
    /// a mask; the least bad one, 0, if there is none.
    #[must_use]
    pub fn salt_clear_of(self, avoids: u64) -> u8 {
        let is_clear = |salt: &u8| {
            let key = self.salted(*salt);
            (0..3).all(|epoch| avoids & (1 << key.tag(Seq::new(epoch << 8))) == 0)
        };
        (0..64).find(is_clear).unwrap_or(0)
    }

    /// The tag of the datagram with number `seq`.
    #[must_use]
    pub const fn tag(self, seq: Seq) -> u8 {
        let sum = (self.key as u32)
            .wrapping_add(self.term.0.wrapping_mul(5))
            .wrapping_add((seq.number() >> 8).wrapping_mul(11));
        sum.to_le_bytes()[0] & 0x3f
    }
}

/// What a node tells its peer about time, now and then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClockSection {
    /// The sender's time when it sent this, in microseconds.
    pub sent_us: u64,
    /// When tick 0 was due on the sender's clock, in microseconds, as far as its ticks have not
    /// been held since.
    pub zero_us: u64,
    /// How long the acked datagram had waited for this one, in microseconds.
    pub ack_delay_us: u32,
    /// How long before they were needed the peer's inputs arrived: a low quantile over the last
    /// seconds, in 1/16 tick; negative if late. `None` if there was nothing to measure.
    pub margin: Option<i16>,
    /// Datagrams of the peer that did not arrive, in 1/256 of those sent.
    pub loss: u8,
}

/// The state hash at a tick, folded to 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashSection {
    /// The tick.
    pub tick: Tick,
    /// Fold of the combined hash.
    pub hash: u32,
}

/// A tick datagram, before or after the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TickHeader<'a> {
    /// Newest datagram that the sender accepted.
    pub ack: Option<Seq>,
    /// Tick of the newest input, where it stands in full.
    pub tick: Option<Tick>,
    /// Clock section.
    pub clock: Option<ClockSection>,
    /// State hash section.
    pub hash: Option<HashSection>,
    /// Control messages, for [`Inbox::read`](crate::session::outbox::Inbox::read).
    pub control: Option<&'a [u8]>,
    /// A packet of the game's messages.
    pub messages: Option<&'a [u8]>,
    /// The numbers before `ack` that did not arrive: bit `i` stands for `ack - 1 - i`. A sender
    /// leaves out those that it told long enough ago. Written only if one is missing.
    pub missing: u64,
    /// What a client says of the entities that it decides, for
    /// [`read_claims`](crate::statesync::read_claims).
    pub claims: Option<&'a [u8]>,
}

/// Bytes before the sections and the batch of a plain datagram.
pub const PLAIN_BYTES: usize = 3;

impl TickHeader<'_> {
    /// Appends the datagram up to where its input batch starts.
    pub fn encode(&self, key: TagKey, seq: Seq, out: &mut Vec<u8>) {
        let tag = key.tag(seq);
        let seq_low = seq.number().to_le_bytes()[0];
        let ack_low = self.ack.unwrap_or_default().number().to_le_bytes()[0];
        let mut flags = 0;
        let mut set = |there: bool, bit: u8| flags |= if there { bit } else { 0 };
        set(self.tick.is_some(), flag::TICK);
        set(self.ack.is_none(), flag::NO_ACK);
        set(self.clock.is_some(), flag::CLOCK);
        set(self.hash.is_some(), flag::HASH);
        set(self.control.is_some(), flag::CONTROL);
        set(self.messages.is_some(), flag::MESSAGES);
        set(self.missing != 0, flag::MISSING);
        set(self.claims.is_some(), flag::CLAIMS);
        if flags == 0 {
            out.extend_from_slice(&[kind::PLAIN | tag, seq_low, ack_low]);
            return;
        }
        out.extend_from_slice(&[kind::EXTENDED | tag, seq_low, ack_low, flags]);
        if let Some(tick) = self.tick {
            put_varint(out, u64::from(tick.number()));
        }
        if let Some(clock) = self.clock {
            put_varint(out, clock.sent_us);
            put_varint(out, clock.zero_us);
            put_varint(out, u64::from(clock.ack_delay_us));
            // 0x8000 stands for "nothing measured".
            out.extend_from_slice(&clock.margin.unwrap_or(i16::MIN).to_le_bytes());
            out.push(clock.loss);
        }
        if let Some(hash) = self.hash {
            put_varint(out, u64::from(hash.tick.number()));
            out.extend_from_slice(&hash.hash.to_le_bytes());
        }
        if let Some(control) = self.control {
            put_counted(out, control);
        }
        if let Some(messages) = self.messages {
            put_counted(out, messages);
        }
        if self.missing != 0 {
            put_varint(out, self.missing);
        }
        if let Some(claims) = self.claims {
            put_counted(out, claims);
        }
    }
}

/// The cheap part of a received tick datagram: enough to refuse it.
#[derive(Clone, Copy, Debug)]
pub struct Prefix<'a> {
    /// Its tag.
    pub tag: u8,
    /// Low bits of its number.
    pub seq_low: u8,
    ack_low: u8,
    extended: bool,
    rest: &'a [u8],
}

impl<'a> Prefix<'a> {
    /// Reads the first three bytes of a tick datagram, or `None` if it is none.
    #[must_use]
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        let ([first, seq_low, ack_low], rest) = bytes.split_first_chunk::<PLAIN_BYTES>()?;
        let extended = match first & kind::MASK {
            kind::PLAIN => false,
            kind::EXTENDED => true,
            _ => return None,
        };
        let tag = first & !kind::MASK;
        Some(Self {
            tag,
            seq_low: *seq_low,
            ack_low: *ack_low,
            extended,
            rest,
        })
    }

    /// Reads the rest: the sections, and the bytes of the input batch behind them.
    ///
    /// `newest_sent` restores the ack: it is the last datagram that the reader of this sent.
    ///
    /// # Errors
    /// If a section is malformed, or acks what was never sent.
    pub fn sections(
        self,
        newest_sent: Option<Seq>,
    ) -> Result<(TickHeader<'a>, &'a [u8]), DecodeError> {
        let mut header = TickHeader::default();
        let mut reader = Reader::new(self.rest);
        let flags = if self.extended { reader.u8()? } else { 0 };
        if self.extended && flags == 0 {
            return Err(DecodeError::Invalid("section flags are empty"));
        }
        if flags & flag::NO_ACK == 0 {
            let newest = newest_sent.ok_or(DecodeError::Invalid("an ack of nothing"))?;
            header.ack = Some(restore_ack(newest, self.ack_low)?);
        } else if self.ack_low != 0 {
            return Err(DecodeError::Invalid("an ack byte without an ack"));
        }
        if flags & flag::TICK != 0 {
            header.tick = Some(Tick::new(reader.varint_u32()?));
        }
        if flags & flag::CLOCK != 0 {
            let sent_us = reader.varint()?;
            let zero_us = reader.varint()?;
            let ack_delay_us = reader.varint_u32()?;
            let margin = i16::from_le_bytes(reader.array()?);
            let margin = (margin != i16::MIN).then_some(margin);
            header.clock = Some(ClockSection {
                sent_us,
                zero_us,
                ack_delay_us,
                margin,
                loss: reader.u8()?,
            });
        }
        if flags & flag::HASH != 0 {
            let tick = Tick::new(reader.varint_u32()?);
            header.hash = Some(HashSection {
                tick,
                hash: reader.u32()?,
            });
        }
        if flags & flag::CONTROL != 0 {
            header.control = Some(reader.counted(crate::limits::DATAGRAM_BYTES_MAX)?);
        }
        if flags & flag::MESSAGES != 0 {
            header.messages = Some(reader.counted(crate::limits::DATAGRAM_BYTES_MAX)?);
        }
        if flags & flag::MISSING != 0 {
            header.missing = reader.varint()?;
            if header.missing == 0 || header.ack.is_none() {
                return Err(DecodeError::Invalid("nothing is missing"));
            }
        }
        if flags & flag::CLAIMS != 0 {
            header.claims = Some(reader.counted(crate::limits::CLAIM_BYTES_MAX)?);
        }
        Ok((header, reader.rest()))
    }
}

/// The newest number that ends in `low` and is not beyond `newest`.
fn restore_ack(newest: Seq, low: u8) -> Result<Seq, DecodeError> {
    let behind = newest.number().to_le_bytes()[0].wrapping_sub(low);
    newest
        .number()
        .checked_sub(u32::from(behind))
        .map(Seq::new)
        .ok_or(DecodeError::Invalid("an ack of what was never sent"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> TagKey {
        TagKey::new(SessionId(7 << 70 | 99), Term(3), 1)
    }

    #[test]
    fn a_steady_datagram_has_three_bytes_before_its_batch() {
        let mut bytes = Vec::new();
        let header = TickHeader {
            ack: Some(Seq::new(300)),
            ..TickHeader::default()
        };
        header.encode(key(), Seq::new(513), &mut bytes);
        assert_eq!(bytes.len(), PLAIN_BYTES);
        let prefix = Prefix::read(&bytes).unwrap();
        assert_eq!(prefix.tag, key().tag(Seq::new(513)));
        assert_eq!(prefix.seq_low, 1);
        let (read, batch) = prefix.sections(Some(Seq::new(301))).unwrap();
        assert_eq!((read, batch), (header, &[][..]));
    }

    #[test]
    fn sections_survive_the_wire_in_every_combination() {
        for choice in 0..=255_u8 {
            let has = |bit: u8| choice & bit != 0;
            let header = TickHeader {
                ack: has(1).then_some(Seq::new(40)),
                tick: has(2).then_some(Tick::new(70_000)),
                clock: has(4).then_some(ClockSection {
                    sent_us: 1 << 40,
                    zero_us: 5,
                    ack_delay_us: 900,
                    margin: has(1).then_some(-3),
                    loss: 9,
                }),
                hash: has(8).then_some(HashSection {
                    tick: Tick::new(64),
                    hash: 0xdead_beef,
                }),
                control: has(16).then_some(&[1, 2, 3]),
                messages: has(32).then_some(&[4]),
                missing: if has(64) && has(1) { 1 << 63 | 1 } else { 0 },
                claims: has(128).then_some(&[7, 8]),
            };
            let mut bytes = Vec::new();
            header.encode(key(), Seq::new(9), &mut bytes);
            bytes.extend_from_slice(&[0xaa, 0xbb]);
            let (read, batch) = Prefix::read(&bytes)
                .unwrap()
                .sections(Some(Seq::new(41)))
                .unwrap();
            assert_eq!((read, batch), (header, &[0xaa, 0xbb][..]));
        }
    }

    #[test]
    fn neighbours_in_term_and_sequence_never_share_a_tag() {
        let session = SessionId(5);
        for seq in [0, 77, 256, 5000] {
            let of = |term, epoch: u32| {
                TagKey::new(session, Term(term), 0).tag(Seq::new(seq + 256 * epoch))
            };
            for step in 1..64 {
                assert_ne!(of(9, 0), of(9, step), "{step} epochs later");
                assert_ne!(of(9, 0), of(9 + step, 0), "{step} terms later");
            }
        }
    }

    #[test]
    fn an_ack_of_what_was_never_sent_is_refused() {
        assert!(restore_ack(Seq::new(3), 4).is_err());
        assert_eq!(restore_ack(Seq::new(258), 255), Ok(Seq::new(255)));
        let bytes = [kind::PLAIN, 0, 0];
        assert!(Prefix::read(&bytes).unwrap().sections(None).is_err());
    }

    #[test]
    fn a_missing_section_needs_an_ack_and_a_number() {
        let read = |bytes: &[u8]| {
            let (header, _) = Prefix::read(bytes).unwrap().sections(Some(Seq::new(9)))?;
            Ok::<_, DecodeError>(header.missing)
        };
        assert_eq!(read(&[kind::EXTENDED, 0, 9, 0x40, 0x05]), Ok(5));
        assert!(
            read(&[kind::EXTENDED, 0, 9, 0x40, 0]).is_err(),
            "none is missing"
        );
        assert!(
            read(&[kind::EXTENDED, 0, 0, 0x42, 5]).is_err(),
            "nothing is acked"
        );
        assert!(
            read(&[kind::EXTENDED, 0, 9, 0xc0, 5, 2, 1]).is_err(),
            "claims that end too early"
        );
    }
}
