//! What the datagrams of the last seconds said.

use crate::id::NetId;
use crate::tick::Seq;

/// Datagrams that are remembered: twice what acks reach back.
const SENT_MAX: usize = 128;

/// A datagram with a state body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) seq: Seq,
    pub(super) number: u32,
    pub(super) index: u8,
    /// When it was sent, in ticks.
    pub(super) at: u32,
}

#[derive(Debug, Default)]
struct Slot {
    sent: Option<Sent>,
    /// The entities of a part body, ascending.
    ids: Vec<NetId>,
}

/// The newest [`SENT_MAX`] numbers.
#[derive(Debug, Default)]
pub(super) struct SentLog {
    slots: Vec<Slot>,
    /// Entities that a slot has room for: a power of two that was enough so far.
    most: usize,
}

impl SentLog {
    /// What stood in the place of datagram `seq` without an answer until now.
    pub(super) fn stale(&mut self, seq: Seq) -> Option<(Sent, &[NetId])> {
        let slot = self.slots.get_mut(place(seq))?;
        let sent = slot.sent.take()?;
        Some((sent, &slot.ids))
    }

    /// Remembers a datagram that told of `ids`.
    pub(super) fn push(&mut self, sent: Sent, ids: &[NetId]) {
        if self.slots.is_empty() {
            self.slots.resize_with(SENT_MAX, Slot::default);
        }
        self.most = self.most.max(ids.len().next_power_of_two());
        let slot = &mut self.slots[place(sent.seq)];
        slot.sent = Some(sent);
        slot.ids.clear();
        slot.ids.reserve(self.most);
        slot.ids.extend_from_slice(ids);
    }

    /// Datagram `seq`, if it is remembered and has had no answer.
    pub(super) fn take(&mut self, seq: Seq) -> Option<(Sent, &[NetId])> {
        let slot = self.slots.get_mut(place(seq))?;
        slot.sent.filter(|sent| sent.seq == seq)?;
        let sent = slot.sent.take()?;
        Some((sent, &slot.ids))
    }

    pub(super) fn clear(&mut self) {
        for slot in &mut self.slots {
            slot.sent = None;
        }
    }
}

fn place(seq: Seq) -> usize {
    seq.number() as usize % SENT_MAX
}
