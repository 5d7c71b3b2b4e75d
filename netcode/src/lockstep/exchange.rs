//! Input batches to and from one peer.
//!
//! Every datagram carries all inputs that the peer has not acked. What it has acked follows from
//! the datagram numbers: each number remembers which inputs its datagram held, and which of the
//! peer's inputs were held here when it left, so that neither bases nor acks of inputs are spelled
//! out on the wire.

use crate::id::Slot;
use crate::input::{BatchDecoder, BatchEncoder, BatchError, BatchPlan, BatchReport, InputHistory};
use crate::tick::{Seq, Tick};
use crate::wire::bytes::DecodeError;

/// Datagrams that are remembered.
const RING: usize = 256;

/// Input batches to and from one peer.
#[derive(Debug)]
pub struct Exchange {
    slots: usize,
    encoder: BatchEncoder,
    decoder: BatchDecoder,
    /// Slots in our batches.
    outgoing: u64,
    /// Slots in the peer's batches.
    incoming: u64,
    /// Number of the datagram that each place of the rings is about.
    seqs: Vec<Option<Seq>>,
    /// Per datagram and slot: newest input in it.
    sent: Vec<Tick>,
    /// Per datagram and slot: newest input of the peer that was here when it left.
    held: Vec<Tick>,
    /// Per slot: newest input in the datagram that the peer's newest datagram acks.
    acked: Vec<Tick>,
    /// Per slot: the tick after which it begins.
    begin: Vec<Tick>,
}

/// Whose inputs a batch holds, and how they lie.
#[derive(Clone, Copy, Debug)]
pub struct Shape<'a> {
    /// Tick of the newest input.
    pub reference: Tick,
    /// Whether slots have different newest ticks.
    pub uneven: bool,
    /// The receiver's own slot with what it submitted: accepted inputs are not sent back.
    pub own: Option<(Slot, &'a InputHistory)>,
}

impl Exchange {
    /// An exchange in a session of this shape, after `from` on all slots.
    #[must_use]
    pub fn new(slots: u8, input_bytes: u8, outgoing: u64, incoming: u64, from: Tick) -> Self {
        let count = usize::from(slots);
        let mut exchange = Self {
            slots: count,
            encoder: BatchEncoder::new(slots, input_bytes),
            decoder: BatchDecoder::new(slots, input_bytes),
            outgoing,
            incoming,
            seqs: vec![None; RING],
            sent: vec![from; RING * count],
            held: vec![from; RING * count],
            acked: vec![from; count],
            begin: vec![from; count],
        };
        for slot in (0..slots).map(Slot) {
            exchange.encoder.start(slot, from);
            exchange.decoder.start(slot, from);
        }
        exchange
    }

    /// Adds `slot` to what comes in, beginning after `from`.
    pub fn expect(&mut self, slot: Slot, from: Tick) {
        self.incoming |= slot.bit();
        self.decoder.start(slot, from);
        for at in 0..RING {
            self.held[at * self.slots + slot.index()] = from;
        }
        self.begin[slot.index()] = from;
    }

    /// Adds `slot` to what goes out, beginning after `from`.
    pub fn offer(&mut self, slot: Slot, from: Tick) {
        self.outgoing |= slot.bit();
        self.encoder.start(slot, from);
        for at in 0..RING {
            self.sent[at * self.slots + slot.index()] = from;
        }
        self.acked[slot.index()] = from;
    }

    /// Whether batches of `slot` come in.
    #[must_use]
    pub const fn expects(&self, slot: Slot) -> bool {
        self.incoming & slot.bit() != 0
    }

    /// Appends the batch of datagram `seq` with inputs of `history`, at most `room` bytes, and
    /// notes what of the peer's inputs is here.
    ///
    /// # Errors
    /// If the peer is too far behind for `history`.
    pub fn write(
        &mut self,
        seq: Seq,
        shape: Shape<'_>,
        history: &InputHistory,
        room: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), BatchError> {
        let at = seq.number() as usize % RING;
        self.seqs[at] = Some(seq);
        for slot in 0..self.slots {
            let id = Slot(u8::try_from(slot).unwrap_or(u8::MAX));
            // What came from elsewhere, the peer does not know to be here.
            self.held[at * self.slots + slot] = if self.incoming & id.bit() == 0 {
                Tick::ZERO
            } else {
                self.decoder.told(id)
            };
            self.sent[at * self.slots + slot] = self.encoder.base(id);
        }
        if self.outgoing == 0 {
            return Ok(());
        }
        let plan = BatchPlan {
            slots: self.outgoing,
            reference: shape.reference,
            uneven: shape.uneven,
            expected: Some(&self.acked),
            own: shape.own,
        };
        let span = self.encoder.encode(&plan, history, room, out)?;
        for slot in slots_of(self.outgoing) {
            let base = self.encoder.base(slot);
            let newest = history
                .newest(slot)
                .min(shape.reference)
                .min(base.plus(span.ticks));
            self.sent[at * self.slots + slot.index()] = newest.max(base);
        }
        Ok(())
    }

    /// The newest tick that the peer has acked of any slot that goes out: no batch refers to an
    /// earlier one.
    #[must_use]
    pub fn newest_base(&self) -> Tick {
        slots_of(self.outgoing)
            .map(|slot| self.encoder.base(slot))
            .max()
            .unwrap_or_default()
    }

    /// The newest tick up to which the peer has acked all inputs; `None` if none go out.
    #[must_use]
    pub fn peer_holds(&self) -> Option<Tick> {
        slots_of(self.outgoing)
            .map(|slot| self.encoder.base(slot))
            .min()
    }

    /// Whether the peer has all inputs up to `reference`.
    #[must_use]
    pub fn is_all_known(&self, reference: Tick, history: &InputHistory) -> bool {
        slots_of(self.outgoing)
            .all(|slot| self.encoder.base(slot) >= history.newest(slot).min(reference))
    }

    /// Takes notice that the peer has accepted datagram `seq`.
    ///
    /// # Errors
    /// If the peer is too far behind for `history`.
    pub fn on_ack(&mut self, seq: Seq, history: &InputHistory) -> Result<(), BatchError> {
        let at = seq.number() as usize % RING;
        if self.seqs[at] != Some(seq) {
            return Ok(());
        }
        for slot in slots_of(self.outgoing) {
            let newest = self.sent[at * self.slots + slot.index()];
            self.acked[slot.index()] = newest;
            self.encoder.rebase(slot, newest, history)?;
        }
        Ok(())
    }

    /// Reads a batch whose datagram acked `ack`, into `history`.
    ///
    /// # Errors
    /// If it is no batch, or builds on what is not here.
    pub fn read(
        &mut self,
        ack: Option<Seq>,
        shape: Shape<'_>,
        newest_max: Tick,
        batch: &[u8],
        history: &mut InputHistory,
    ) -> Result<BatchReport, DecodeError> {
        // An empty batch is not nothing: likely inputs take no byte at all.
        if self.incoming == 0 {
            return Ok(BatchReport::default());
        }
        let held = match ack {
            None => &self.begin[..],
            Some(ack) => {
                let at = ack.number() as usize % RING;
                if self.seqs[at] != Some(ack) {
                    return Err(DecodeError::Invalid("an ack of a forgotten datagram"));
                }
                &self.held[at * self.slots..][..self.slots]
            }
        };
        let plan = BatchPlan {
            slots: self.incoming,
            reference: shape.reference,
            uneven: shape.uneven,
            expected: Some(held),
            own: shape.own,
        };
        self.decoder.decode(&plan, newest_max, batch, history)
    }
}

/// The slots in a mask, in order.
pub fn slots_of(mask: u64) -> impl Iterator<Item = Slot> {
    (0..64).map(Slot).filter(move |slot| mask & slot.bit() != 0)
}
