//! Seats: who plays in which slot, on the host.

use crate::id::Slot;
use crate::id::{MemberId, Path};
use crate::input::InputHistory;
use crate::limits::INPUT_BYTES_MAX;
use crate::session::config::{Gate, LatePolicy};
use crate::session::handshake::{RETURN_INPUT_BYTES_MAX, RETURN_INPUTS_MAX};
use crate::tick::Tick;
use crate::time::Time;

/// Ticks for which a late input is replaced by the one before; then by zeros, so that a hero whose
/// player has vanished does not run on for ever.
const REPEAT_TICKS_MAX: u32 = 30;

/// A slot, as the host sees it.
#[derive(Clone, Debug, Default)]
pub(super) struct Seat {
    pub(super) holder: Option<Holder>,
}

/// The member that holds a seat.
#[derive(Clone, Debug)]
pub(super) struct Holder {
    pub(super) member: MemberId,
    pub(super) resume: u64,
    /// Its path; `None` for the host's own slot and for a member whose link is lost.
    pub(super) path: Option<Path>,
    /// First tick on which the slot is present; `None` before the member has caught up.
    pub(super) from: Option<Tick>,
    /// First tick whose input comes from the member's present link.
    pub(super) inputs_from: Tick,
    /// Since when its link is lost.
    pub(super) lost_at: Option<Time>,
    /// Consecutive ticks with a replaced input.
    pub(super) replaced: u32,
    /// Inputs that the member sent before it had a link.
    pub(super) early: Early,
}

/// Inputs that came with a Return, for ticks whose inputs the link has not brought yet. They are
/// kept apart from what links bring, since both ends count what that was.
#[derive(Clone, Debug, Default)]
pub(super) struct Early {
    after: Tick,
    inputs: Vec<u8>,
    input_bytes: usize,
}

impl Early {
    /// These inputs, one behind the other; `None` if they are more than a Return may bring, or not
    /// whole.
    pub(super) fn new(after: Tick, inputs: &[u8], input_bytes: usize) -> Option<Self> {
        let count = inputs.len().checked_div(input_bytes).unwrap_or(0);
        let fits = count <= RETURN_INPUTS_MAX
            && inputs.len() <= RETURN_INPUT_BYTES_MAX
            && count * input_bytes == inputs.len();
        fits.then(|| Self {
            after,
            inputs: inputs.to_vec(),
            input_bytes,
        })
    }

    /// The newest tick whose input it has; some tick before all that it has if there is none.
    pub(super) fn newest(&self) -> Tick {
        let count = self.inputs.len().checked_div(self.input_bytes).unwrap_or(0);
        self.after.plus(u32::try_from(count).unwrap_or(0))
    }

    pub(super) fn get(&self, tick: Tick) -> Option<&[u8]> {
        let index = usize::try_from(tick.since(self.after))
            .ok()?
            .checked_sub(1)?;
        let at = index.checked_mul(self.input_bytes)?;
        self.inputs
            .get(at..at.checked_add(self.input_bytes)?)
            .filter(|input| !input.is_empty())
    }
}

/// Where the input of a tick came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The slot is absent.
    Absent,
    /// From its member.
    Member,
    /// From the late policy.
    Replaced,
}

impl Holder {
    /// Its link is gone. A paced session goes on with replaced inputs; where all wait for all, the
    /// slot is absent from the next tick on.
    pub(super) fn lose(&mut self, now: Time, gate: Gate) {
        self.path = None;
        self.early = Early::default();
        self.lost_at = Some(now);
        self.inputs_from = Tick::MAX;
        if gate != Gate::Paced {
            self.from = None;
        }
    }
}

impl Seat {
    /// Settles the input of `slot` at `tick`: pushes it into `known`, the final inputs.
    pub(super) fn finalize(
        &mut self,
        slot: Slot,
        tick: Tick,
        policy: LatePolicy,
        received: &InputHistory,
        known: &mut InputHistory,
    ) -> Source {
        let Some(holder) = &mut self.holder else {
            known.push(slot, tick, None);
            return Source::Absent;
        };
        if holder.from.is_none_or(|from| tick < from) {
            known.push(slot, tick, None);
            return Source::Absent;
        }
        if tick >= holder.inputs_from {
            let early = || holder.early.get(tick);
            if let Some(input) = received.get(slot, tick).bytes().or_else(early) {
                holder.replaced = 0;
                known.push(slot, tick, Some(input));
                return Source::Member;
            }
        }
        holder.replaced = holder.replaced.saturating_add(1);
        let mut input = [0; INPUT_BYTES_MAX];
        let input = &mut input[..known.input_bytes()];
        let repeats = policy == LatePolicy::Repeat && holder.replaced <= REPEAT_TICKS_MAX;
        if repeats && let Some(last) = known.get(slot, tick.previous()).bytes() {
            input.copy_from_slice(last);
        }
        known.push(slot, tick, Some(input));
        Source::Replaced
    }
}
