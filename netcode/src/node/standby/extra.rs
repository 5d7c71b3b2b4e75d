//! What the context of a tick says beside its inputs.

use crate::id::Slot;
use crate::limits::SLOTS_MAX;
use crate::statesync::Interest;
use crate::wire::bytes::{DecodeError, Reader, put_varint};

/// As bytes: varint count of players, per player the slot
/// (u8) and how far behind it saw (varint ticks); then 0, or 1 where clients see everything, or 2 and
/// two f32, how far they see and where entities leave their view.
#[derive(Debug, Default)]
pub(super) struct Extra {
    pub(super) seen: Vec<(Slot, u32)>,
    /// How far clients see, where it is told.
    pub(super) interest: Option<Option<Interest>>,
}

impl Extra {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_varint(&mut out, self.seen.len() as u64);
        for &(slot, behind_ticks) in &self.seen {
            out.push(slot.0);
            put_varint(&mut out, behind_ticks.into());
        }
        match self.interest {
            None => out.push(0),
            Some(None) => out.push(1),
            Some(Some(interest)) => {
                out.push(2);
                out.extend_from_slice(&interest.radius.to_le_bytes());
                out.extend_from_slice(&interest.leave_radius.to_le_bytes());
            }
        }
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let count = usize::try_from(reader.varint()?).unwrap_or(usize::MAX);
        if count > SLOTS_MAX {
            return Err(DecodeError::Invalid("more players than slots"));
        }
        let mut seen = Vec::with_capacity(count);
        for _ in 0..count {
            let slot = Slot(reader.u8()?);
            if slot.index() >= SLOTS_MAX {
                return Err(DecodeError::Invalid(
                    "an input is of no slot of the session",
                ));
            }
            seen.push((slot, reader.varint_u32()?));
        }
        let interest = match reader.u8()? {
            0 => None,
            1 => Some(None),
            2 => {
                let mut distance = || Ok(f32::from_bits(reader.u32()?));
                let (radius, leave_radius): (f32, f32) = (distance()?, distance()?);
                if !(radius >= 0.0 && leave_radius >= radius) {
                    return Err(DecodeError::Invalid("nobody sees so far"));
                }
                Some(Some(Interest {
                    radius,
                    leave_radius,
                }))
            }
            _ => return Err(DecodeError::Invalid("no such interest")),
        };
        reader.finish()?;
        Ok(Self { seen, interest })
    }
}
