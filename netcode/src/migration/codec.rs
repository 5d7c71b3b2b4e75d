//! Bytes of a [`TermMessage`]: a kind, then its fields in order, nothing behind.
//!
//! Numbers are varints unless said otherwise. Counts are checked before anything is allocated,
//! and a roster that breaks its limits is no roster.

use crate::id::{MemberId, SessionId, Term};
use crate::limits::{
    SUSPECT_US_MAX, TERM_LINEAGE_MAX, TERM_MEMBERS_MAX, TERM_MESSAGE_BYTES_MAX,
    TERM_RECORDS_BYTES_MAX, TERM_STANDBYS_MAX, TERM_VOTERS_MAX,
};
use crate::migration::certificate::{CastVote, Certificate, ElectionKind};
use crate::migration::lineage::{Ancestor, Lineage, Position};
use crate::migration::message::TermMessage;
use crate::migration::roster::{TermMember, TermRoster};
use crate::tick::Tick;
use crate::wire::bytes::{DecodeError, Reader, put_counted, put_varint};

/// First bytes.
mod kind {
    pub(super) const HEARTBEAT: u8 = 0x01;
    pub(super) const ECHO: u8 = 0x02;
    pub(super) const REPORT: u8 = 0x03;
    pub(super) const SUSPECT: u8 = 0x04;
    pub(super) const VOTE_REQUEST: u8 = 0x05;
    pub(super) const VOTE: u8 = 0x06;
    pub(super) const NEW_TERM: u8 = 0x07;
    pub(super) const ROSTER_UPDATE: u8 = 0x08;
    pub(super) const STALE: u8 = 0x09;
    pub(super) const PREPARE: u8 = 0x0a;
    pub(super) const READY: u8 = 0x0b;
    pub(super) const COMMIT: u8 = 0x0c;
    pub(super) const ABORT: u8 = 0x0d;
    pub(super) const GOODBYE: u8 = 0x0e;
    pub(super) const FORKED: u8 = 0x0f;
}

/// Bits of a member's flags byte.
mod flag {
    pub(super) const CAN_HOST: u8 = 0x01;
    pub(super) const VOTER: u8 = 0x02;
    pub(super) const WANTS_VOTE: u8 = 0x04;
    pub(super) const ALL: u8 = CAN_HOST | VOTER | WANTS_VOTE;
}

impl TermMessage {
    /// Appends its bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Heartbeat {
                term,
                seq,
                suspect_ms,
                is_frozen,
                tick,
                safe,
            } => {
                out.push(kind::HEARTBEAT);
                put_term(out, *term);
                put_u32(out, *seq);
                put_u32(out, u32::from(*suspect_ms));
                out.push(u8::from(*is_frozen));
                put_tick(out, *tick);
                // What is safe is close behind, and never ahead.
                put_u32(out, tick.since(*safe));
            }
            Self::Echo {
                term,
                seq,
                position,
                version,
            } => {
                out.push(kind::ECHO);
                put_term(out, *term);
                put_u32(out, *seq);
                put_position(out, *position);
                put_u32(out, *version);
            }
            Self::Report {
                reached,
                median_us,
                p95_us,
                stalls,
                tick_us,
            } => {
                out.push(kind::REPORT);
                put_count(out, reached.len());
                for &id in reached {
                    put_member(out, id);
                }
                put_u32(out, *median_us);
                put_u32(out, *p95_us);
                put_u32(out, u32::from(*stalls));
                put_u32(out, *tick_us);
            }
            Self::Suspect {
                promised,
                position,
                roster,
            } => {
                out.push(kind::SUSPECT);
                put_term(out, *promised);
                put_position(out, *position);
                put_roster(out, roster);
            }
            Self::VoteRequest {
                term,
                seq,
                suspect_ms,
                kind,
                position,
                roster,
            } => {
                out.push(kind::VOTE_REQUEST);
                put_term(out, *term);
                put_u32(out, *seq);
                put_u32(out, u32::from(*suspect_ms));
                out.push(kind.number());
                put_position(out, *position);
                put_roster(out, roster);
            }
            Self::Vote {
                term,
                seq,
                position,
                shown,
                upto,
                records,
            } => {
                out.push(kind::VOTE);
                put_term(out, *term);
                put_u32(out, *seq);
                put_position(out, *position);
                put_tick(out, *shown);
                put_tick(out, *upto);
                put_counted(out, records);
            }
            Self::NewTerm {
                seq,
                suspect_ms,
                certificate,
                roster,
            } => {
                out.push(kind::NEW_TERM);
                put_u32(out, *seq);
                put_u32(out, u32::from(*suspect_ms));
                put_certificate(out, certificate);
                put_roster(out, roster);
            }
            Self::RosterUpdate { roster } => {
                out.push(kind::ROSTER_UPDATE);
                put_roster(out, roster);
            }
            Self::Stale { promised } => {
                out.push(kind::STALE);
                put_term(out, *promised);
            }
            Self::Prepare {
                term,
                target,
                switch,
            } => {
                out.push(kind::PREPARE);
                put_term(out, *term);
                put_member(out, *target);
                put_tick(out, *switch);
            }
            Self::Ready { term } => {
                out.push(kind::READY);
                put_term(out, *term);
            }
            Self::Commit {
                term,
                target,
                last,
                hash,
                upto,
                records,
            } => {
                out.push(kind::COMMIT);
                put_term(out, *term);
                put_member(out, *target);
                put_tick(out, *last);
                out.extend_from_slice(&hash.to_le_bytes());
                put_tick(out, *upto);
                put_counted(out, records);
            }
            Self::Abort { term } => {
                out.push(kind::ABORT);
                put_term(out, *term);
            }
            Self::Goodbye {
                term,
                successor,
                position,
                shown,
            } => {
                out.push(kind::GOODBYE);
                put_term(out, *term);
                out.push(u8::from(successor.is_some()));
                if let Some(successor) = successor {
                    put_member(out, *successor);
                }
                put_position(out, *position);
                put_tick(out, *shown);
            }
            Self::Forked { session, last } => {
                out.push(kind::FORKED);
                out.extend_from_slice(&session.0.to_le_bytes());
                put_tick(out, *last);
            }
        }
    }

    /// Its bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.encode(&mut bytes);
        bytes
    }

    /// Reads a message that takes all of `bytes`.
    ///
    /// # Errors
    /// If the bytes are not exactly one message within the limits.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > TERM_MESSAGE_BYTES_MAX {
            return Err(DecodeError::Invalid("a term message is too long"));
        }
        let mut reader = Reader::new(bytes);
        let message = match reader.u8()? {
            kind::HEARTBEAT => {
                let (term, seq) = (term(&mut reader)?, reader.varint_u32()?);
                let (suspect_ms, is_frozen) = (suspect(&mut reader)?, reader.bool()?);
                let tick = tick(&mut reader)?;
                let behind = reader.varint_u32()?;
                if behind > tick.number() {
                    return Err(DecodeError::Invalid("a tick before the first is safe"));
                }
                Self::Heartbeat {
                    term,
                    seq,
                    suspect_ms,
                    is_frozen,
                    tick,
                    safe: tick.minus(behind),
                }
            }
            kind::ECHO => Self::Echo {
                term: term(&mut reader)?,
                seq: reader.varint_u32()?,
                position: position(&mut reader)?,
                version: reader.varint_u32()?,
            },
            kind::REPORT => Self::Report {
                reached: members(&mut reader)?,
                median_us: reader.varint_u32()?,
                p95_us: reader.varint_u32()?,
                stalls: small(&mut reader)?,
                tick_us: reader.varint_u32()?,
            },
            kind::SUSPECT => Self::Suspect {
                promised: term(&mut reader)?,
                position: position(&mut reader)?,
                roster: roster(&mut reader)?,
            },
            kind::VOTE_REQUEST => Self::VoteRequest {
                term: term(&mut reader)?,
                seq: reader.varint_u32()?,
                suspect_ms: suspect(&mut reader)?,
                kind: election(&mut reader)?,
                position: position(&mut reader)?,
                roster: roster(&mut reader)?,
            },
            kind::VOTE => Self::Vote {
                term: term(&mut reader)?,
                seq: reader.varint_u32()?,
                position: position(&mut reader)?,
                shown: tick(&mut reader)?,
                upto: tick(&mut reader)?,
                records: reader.counted(TERM_RECORDS_BYTES_MAX)?.to_vec(),
            },
            kind::NEW_TERM => Self::NewTerm {
                seq: reader.varint_u32()?,
                suspect_ms: suspect(&mut reader)?,
                certificate: certificate(&mut reader)?,
                roster: roster(&mut reader)?,
            },
            kind::ROSTER_UPDATE => Self::RosterUpdate {
                roster: roster(&mut reader)?,
            },
            kind::STALE => Self::Stale {
                promised: term(&mut reader)?,
            },
            kind::PREPARE => Self::Prepare {
                term: term(&mut reader)?,
                target: member(&mut reader)?,
                switch: tick(&mut reader)?,
            },
            kind::READY => Self::Ready {
                term: term(&mut reader)?,
            },
            kind::COMMIT => Self::Commit {
                term: term(&mut reader)?,
                target: member(&mut reader)?,
                last: tick(&mut reader)?,
                hash: reader.u64()?,
                upto: tick(&mut reader)?,
                records: reader.counted(TERM_RECORDS_BYTES_MAX)?.to_vec(),
            },
            kind::ABORT => Self::Abort {
                term: term(&mut reader)?,
            },
            kind::GOODBYE => Self::Goodbye {
                term: term(&mut reader)?,
                successor: if reader.bool()? {
                    Some(member(&mut reader)?)
                } else {
                    None
                },
                position: position(&mut reader)?,
                shown: tick(&mut reader)?,
            },
            kind::FORKED => Self::Forked {
                session: SessionId(reader.u128()?),
                last: tick(&mut reader)?,
            },
            _ => return Err(DecodeError::Invalid("no such term message")),
        };
        reader.finish()?;
        Ok(message)
    }
}

fn put_u32(out: &mut Vec<u8>, number: u32) {
    put_varint(out, u64::from(number));
}

fn put_term(out: &mut Vec<u8>, term: Term) {
    put_u32(out, term.0);
}

fn put_tick(out: &mut Vec<u8>, tick: Tick) {
    put_u32(out, tick.number());
}

fn put_member(out: &mut Vec<u8>, id: MemberId) {
    put_varint(out, id.0);
}

/// A member of an ascending list: how far it is from the one before. A list that does not ascend
/// is refused by its reader.
fn put_next_member(out: &mut Vec<u8>, before: &mut Option<MemberId>, id: MemberId) {
    put_varint(out, id.0.wrapping_sub(before.map_or(0, |before| before.0)));
    *before = Some(id);
}

fn put_position(out: &mut Vec<u8>, position: Position) {
    put_term(out, position.term);
    put_tick(out, position.tick);
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    put_varint(out, count as u64);
}

fn put_certificate(out: &mut Vec<u8>, certificate: &Certificate) {
    put_count(out, certificate.votes.len());
    let mut before = None;
    for vote in &certificate.votes {
        put_next_member(out, &mut before, vote.voter);
        put_position(out, vote.position);
        put_tick(out, vote.shown);
    }
}

fn put_roster(out: &mut Vec<u8>, roster: &TermRoster) {
    put_term(out, roster.term);
    put_u32(out, roster.version);
    out.push(roster.kind.number());
    put_member(out, roster.host);
    put_tick(out, roster.start);
    put_position(out, roster.floor);
    put_count(out, roster.lineage.ancestors().len());
    for ancestor in roster.lineage.ancestors() {
        put_term(out, ancestor.term);
        put_tick(out, ancestor.base);
    }
    put_count(out, roster.members.len());
    let mut before = None;
    for one in &roster.members {
        put_next_member(out, &mut before, one.id);
        let mut flags = 0;
        let mut set = |is_set: bool, bit: u8| flags |= if is_set { bit } else { 0 };
        set(one.can_host, flag::CAN_HOST);
        set(one.is_voter, flag::VOTER);
        set(one.wants_vote, flag::WANTS_VOTE);
        out.push(flags);
        out.extend_from_slice(&one.incarnation.to_le_bytes());
    }
    put_count(out, roster.standbys.len());
    for standby in &roster.standbys {
        put_member(out, *standby);
    }
}

fn term(reader: &mut Reader<'_>) -> Result<Term, DecodeError> {
    let number = reader.varint_u32()?;
    // So that the next ones can always be counted.
    if number > u32::MAX / 2 {
        return Err(DecodeError::Invalid("a term is too large"));
    }
    Ok(Term(number))
}

fn tick(reader: &mut Reader<'_>) -> Result<Tick, DecodeError> {
    Ok(Tick::new(reader.varint_u32()?))
}

fn small(reader: &mut Reader<'_>) -> Result<u16, DecodeError> {
    u16::try_from(reader.varint_u32()?)
        .map_err(|_too_large| DecodeError::Invalid("a number exceeds 16 bits"))
}

fn member(reader: &mut Reader<'_>) -> Result<MemberId, DecodeError> {
    Ok(MemberId(reader.varint()?))
}

/// See [`put_next_member`].
fn next_member(
    reader: &mut Reader<'_>,
    before: &mut Option<MemberId>,
) -> Result<MemberId, DecodeError> {
    let ahead = reader.varint()?;
    let id = match *before {
        Some(before) if ahead > 0 => before.0.checked_add(ahead),
        Some(_) => None,
        None => Some(ahead),
    };
    let id = MemberId(id.ok_or(DecodeError::Invalid("members are out of order"))?);
    *before = Some(id);
    Ok(id)
}

fn members(reader: &mut Reader<'_>) -> Result<Vec<MemberId>, DecodeError> {
    let count = count(reader, TERM_MEMBERS_MAX)?;
    let mut members = Vec::with_capacity(count);
    for _ in 0..count {
        members.push(member(reader)?);
    }
    if members.windows(2).any(|pair| pair[0] >= pair[1]) {
        return Err(DecodeError::Invalid("members are out of order"));
    }
    Ok(members)
}

fn suspect(reader: &mut Reader<'_>) -> Result<u16, DecodeError> {
    let ms = small(reader)?;
    if u64::from(ms) * 1000 > SUSPECT_US_MAX {
        return Err(DecodeError::Invalid("a suspicion time is too long"));
    }
    Ok(ms)
}

fn election(reader: &mut Reader<'_>) -> Result<ElectionKind, DecodeError> {
    ElectionKind::from_number(reader.u8()?).ok_or(DecodeError::Invalid("no such election"))
}

fn position(reader: &mut Reader<'_>) -> Result<Position, DecodeError> {
    Ok(Position {
        term: term(reader)?,
        tick: tick(reader)?,
    })
}

fn count(reader: &mut Reader<'_>, max: usize) -> Result<usize, DecodeError> {
    let count = usize::try_from(reader.varint()?).unwrap_or(usize::MAX);
    if count > max {
        return Err(DecodeError::Invalid("a list exceeds its limit"));
    }
    // Every entry takes a byte at least.
    if count > reader.len() {
        return Err(DecodeError::Truncated);
    }
    Ok(count)
}

fn certificate(reader: &mut Reader<'_>) -> Result<Certificate, DecodeError> {
    let count = count(reader, TERM_VOTERS_MAX)?;
    let mut votes = Vec::with_capacity(count);
    let mut before = None;
    for _ in 0..count {
        votes.push(CastVote {
            voter: next_member(reader, &mut before)?,
            position: position(reader)?,
            shown: tick(reader)?,
        });
    }
    Ok(Certificate { votes })
}

fn roster(reader: &mut Reader<'_>) -> Result<TermRoster, DecodeError> {
    let term_of = term(reader)?;
    let version = reader.varint_u32()?;
    let kind = election(reader)?;
    let (host, start) = (member(reader)?, tick(reader)?);
    let floor = position(reader)?;
    let terms = count(reader, TERM_LINEAGE_MAX)?;
    let mut ancestors = Vec::with_capacity(terms);
    for _ in 0..terms {
        ancestors.push(Ancestor {
            term: term(reader)?,
            base: tick(reader)?,
        });
    }
    let lineage =
        Lineage::new(ancestors).ok_or(DecodeError::Invalid("a history goes back in time"))?;
    let listed = count(reader, TERM_MEMBERS_MAX)?;
    let mut members = Vec::with_capacity(listed);
    let mut before = None;
    for _ in 0..listed {
        let id = next_member(reader, &mut before)?;
        let flags = reader.u8()?;
        if flags & !flag::ALL != 0 {
            return Err(DecodeError::Invalid("reserved bits are set"));
        }
        members.push(TermMember {
            id,
            incarnation: reader.u32()?,
            can_host: flags & flag::CAN_HOST != 0,
            is_voter: flags & flag::VOTER != 0,
            wants_vote: flags & flag::WANTS_VOTE != 0,
        });
    }
    let succeeding = count(reader, TERM_STANDBYS_MAX)?;
    let mut standbys = Vec::with_capacity(succeeding);
    for _ in 0..succeeding {
        standbys.push(member(reader)?);
    }
    let roster = TermRoster {
        term: term_of,
        version,
        kind,
        host,
        start,
        floor,
        lineage,
        members,
        standbys,
    };
    if !roster.is_sound() {
        return Err(DecodeError::Invalid("a roster contradicts itself"));
    }
    Ok(roster)
}

#[cfg(test)]
#[path = "codec/tests.rs"]
mod tests;
