//! What a new host needs beside the state to carry on from a tick.

use crate::id::{Slot, Term};
use crate::input::InputFrame;
use crate::limits::{INPUT_BYTES_MAX, SLOTS_MAX, STANDBY_CONTEXT_BYTES_MAX};
use crate::limits::{INPUT_DELAY_TICKS_MAX, PREDICTION_TICKS_MAX};
use crate::tick::Tick;
use crate::wire::bytes::{DecodeError, Reader, put_counted, put_varint};

/// Pending inputs in a context, at most: more ticks ahead than any client may be.
const PENDING_MAX: usize = SLOTS_MAX * 2 * (INPUT_DELAY_TICKS_MAX + PREDICTION_TICKS_MAX) as usize;

/// The input of a slot for a tick that has not run yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingInput {
    /// Whose input it is.
    pub slot: Slot,
    /// When it acts.
    pub tick: Tick,
    /// The input.
    pub bytes: Vec<u8>,
}

/// What a new host needs beside the state to carry on from a tick.
///
/// | part | form |
/// |---|---|
/// | roster | two varints: term and version of the newest roster |
/// | frame | u64: mask of the present slots; then per present slot the input |
/// | pending | varint count; then per input: slot (u8), ticks after this one (varint), the input |
/// | extra | varint length, bytes: the caller's own |
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TickContext {
    /// The newest roster that the host knows: its term and version.
    pub roster: (Term, u32),
    /// The inputs with which the tick ran.
    pub frame: InputFrame,
    /// Inputs for later ticks that the host has, by slot and tick.
    pub pending: Vec<PendingInput>,
    /// What else the host wants a successor to know.
    pub extra: Vec<u8>,
}

impl TickContext {
    /// Appends the bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.roster.0.0.into());
        put_varint(out, self.roster.1.into());
        out.extend_from_slice(&self.frame.present().to_le_bytes());
        for (_, input) in self.frame.inputs() {
            out.extend_from_slice(input);
        }
        put_varint(out, self.pending.len() as u64);
        let now = self.frame.tick();
        for input in &self.pending {
            out.push(input.slot.0);
            let ahead = input.tick.number().saturating_sub(now.number());
            put_varint(out, ahead.into());
            out.extend_from_slice(&input.bytes);
        }
        put_counted(out, &self.extra);
    }

    /// Reads the context of `tick` in a session of `slots` slots with inputs of `input_bytes`;
    /// `bytes` are exactly one.
    ///
    /// # Errors
    /// If they are not, or name slots or ticks that cannot be.
    pub fn decode(
        bytes: &[u8],
        tick: Tick,
        slots: u8,
        input_bytes: u8,
    ) -> Result<Self, DecodeError> {
        if usize::from(slots) > SLOTS_MAX || usize::from(input_bytes) > INPUT_BYTES_MAX {
            return Err(DecodeError::Invalid("no session has such inputs"));
        }
        let mut reader = Reader::new(bytes);
        let roster = (Term(reader.varint_u32()?), reader.varint_u32()?);
        let mut frame = InputFrame::empty(tick, slots, input_bytes);
        let present = reader.u64()?;
        for slot in (0..64).map(Slot).filter(|slot| present & slot.bit() != 0) {
            if slot.0 >= slots {
                return Err(NO_SLOT);
            }
            frame.set(slot, reader.bytes(input_bytes.into())?);
        }
        let count = usize::try_from(reader.varint()?).unwrap_or(usize::MAX);
        if count > PENDING_MAX {
            return Err(DecodeError::Invalid("too many inputs are pending"));
        }
        if count.saturating_mul(2 + usize::from(input_bytes)) > reader.len() {
            return Err(DecodeError::Truncated);
        }
        let mut pending = Vec::with_capacity(count);
        for _ in 0..count {
            let slot = Slot(reader.u8()?);
            if slot.0 >= slots {
                return Err(NO_SLOT);
            }
            let at = tick.number().checked_add(reader.varint_u32()?);
            let at = at.ok_or(DecodeError::Invalid("an input is pending for no tick"))?;
            pending.push(PendingInput {
                slot,
                tick: Tick::new(at),
                bytes: reader.bytes(input_bytes.into())?.to_vec(),
            });
        }
        let extra = reader.counted(STANDBY_CONTEXT_BYTES_MAX)?.to_vec();
        reader.finish()?;
        Ok(Self {
            roster,
            frame,
            pending,
            extra,
        })
    }
}

const NO_SLOT: DecodeError = DecodeError::Invalid("an input is of no slot of the session");
