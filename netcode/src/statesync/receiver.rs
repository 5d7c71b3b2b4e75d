//! The client's side: bodies become the state that the host meant.
//!
//! Every body adds facts: an entity had this value at a snapshot, or was not in view. What is held
//! *as of* a snapshot is, per entity, the newest fact up to it. The receiver keeps what is held as
//! of each of the last [`STATE_RING_SNAPSHOTS`] snapshots of which it heard, because the host may
//! refer to them.
//!
//! # Bounds
//! At most [`STATE_RING_SNAPSHOTS`] + 1 snapshots are held, each with [`ENTITIES_MAX`] entities at
//! most, and all together with [`STATE_HELD_BYTES_MAX`]. A body that would exceed this is refused.

mod held;

use core::cell::Cell;
use std::collections::VecDeque;
use std::sync::Arc;

use crate::delta::{Decoder, PartState, Reference, View};
use crate::id::NetId;
use crate::limits::{ENTITIES_MAX, STATE_HELD_BYTES_MAX, STATE_RING_SNAPSHOTS};
use crate::state::{EntityRef, QuantizedSnapshot, Schema, ShapeId, Shapes, WireLayout};
use crate::tick::Tick;
use crate::wire::bytes::{DecodeError, Reader};

use super::head::{BODY_REFERENCES_MAX, Content, EPOCHS, Head, REFERENCE_DISTANCES};
use super::publisher::Publisher;
use super::rows::hash_all;
use held::{Held, RangeFact};

/// Refused bodies in a row after which the client should ask for a reset.
const REFUSED_MAX: u32 = 16;

/// Snapshots that a host takes along when it becomes a client.
const SEEDED_MAX: usize = 8;

/// What a body brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadReport {
    /// The tick of its snapshot.
    pub tick: Tick,
    /// Whether no newer snapshot is known of.
    pub is_newest: bool,
    /// Whether with it the snapshot became complete.
    pub completes: bool,
    /// Whether it was there already.
    pub is_known: bool,
}

/// Why a body was refused. Nothing has changed then; its datagram must not be acked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// It is malformed, or does not fit what it refers to.
    #[error("a state body is malformed: {0}")]
    Malformed(#[from] DecodeError),
    /// It refers to a snapshot that is not held.
    #[error("a state body refers to a snapshot that is not held")]
    NoReference,
    /// It was sent before the state began anew.
    #[error("a state body is of an epoch that is over")]
    OldEpoch,
    /// Its snapshot is older than those that are held.
    #[error("a state body is of a snapshot that is too old")]
    TooOld,
    /// The state would exceed [`STATE_HELD_BYTES_MAX`] or [`ENTITIES_MAX`].
    #[error("the state is larger than {STATE_HELD_BYTES_MAX} bytes or {ENTITIES_MAX} entities")]
    TooLarge,
}

/// Holds what the host has told.
#[derive(Debug)]
pub struct Receiver {
    layout: Arc<WireLayout>,
    shapes: Shapes,
    decoder: Decoder,
    snapshot_ticks: u32,
    epoch: Option<u8>,
    /// By number, ascending. The first is what everything else builds on.
    held: VecDeque<Held>,
    /// Bodies refused since the last one that was not.
    refused: u32,
}

impl Receiver {
    /// A receiver that holds nothing, of states of `schema` at every `snapshot_ticks`-th tick.
    #[must_use]
    pub fn new(schema: &Schema, snapshot_ticks: u32) -> Self {
        let layout = Arc::new(WireLayout::new(schema));
        Self {
            decoder: Decoder::new(Arc::clone(&layout)),
            layout,
            shapes: Shapes::default(),
            snapshot_ticks: snapshot_ticks.max(1),
            epoch: None,
            held: VecDeque::new(),
            refused: 0,
        }
    }

    /// Takes in a state body of a datagram that was sent when the host had run tick `sent_at`.
    ///
    /// # Errors
    /// Why it is refused. Do not ack its datagram then.
    pub fn read(&mut self, sent_at: Tick, body: &[u8]) -> Result<ReadReport, ReadError> {
        let result = self.take_body(sent_at, body);
        match result {
            Ok(_) => self.refused = 0,
            // Those cross a new beginning, or are late: no sign that the ends differ.
            Err(ReadError::OldEpoch | ReadError::TooOld) => {}
            Err(ReadError::Malformed(_) | ReadError::NoReference | ReadError::TooLarge) => {
                self.refused = self.refused.saturating_add(1);
            }
        }
        result
    }

    /// Whether the host seems to think that more is held here than is: ask it for a reset.
    #[must_use]
    pub const fn needs_reset(&self) -> bool {
        self.refused >= REFUSED_MAX
    }

    /// Takes in a keyframe. If it is of a new epoch, everything else is forgotten.
    ///
    /// # Errors
    /// As [`Receiver::read`].
    pub fn install_keyframe(&mut self, bytes: &[u8]) -> Result<Tick, ReadError> {
        let mut reader = Reader::new(bytes);
        let epoch = reader.u8()?;
        let tick = Tick::new(reader.varint_u32()?);
        if epoch >= EPOCHS {
            return Err(DecodeError::Invalid("no such epoch").into());
        }
        let begins = self.begins(epoch)?;
        let mut snapshot = QuantizedSnapshot::default();
        let span =
            self.decoder
                .decode_whole(&mut self.shapes, tick, &[], reader.rest(), &mut snapshot)?;
        if !span.from.is_none() || span.next.is_some() {
            return Err(DecodeError::Invalid("a keyframe is not whole").into());
        }
        check_size(&snapshot, if begins { 0 } else { self.memory() })?;
        if begins {
            self.begin(epoch);
        }
        let number = tick.number().div_ceil(self.snapshot_ticks);
        if self.is_too_old(number) {
            return Err(ReadError::TooOld);
        }
        let at = self.place(number, tick);
        self.held[at].complete(Arc::new(snapshot));
        self.rebuild(at + 1);
        self.forget_old();
        self.refused = 0;
        Ok(tick)
    }

    /// Holds the newest snapshots of `publisher`, as a client that sees all of them. For a receiver
    /// that holds nothing.
    pub(crate) fn seed(&mut self, publisher: &Publisher) {
        self.shapes.clone_from(publisher.shapes());
        self.epoch = Some(0);
        let snapshots: Vec<_> = publisher.slots_newest_first().take(SEEDED_MAX).collect();
        for (number, tick, snapshot) in snapshots.into_iter().rev() {
            let mut held = Held::new(number, tick);
            held.complete(Arc::clone(snapshot));
            self.held.push_back(held);
        }
    }

    /// The epoch of what is held.
    #[must_use]
    pub const fn epoch(&self) -> Option<u8> {
        self.epoch
    }

    /// Forgets the snapshots after `tick`: they are void.
    pub fn rewind(&mut self, tick: Tick) {
        while self.held.pop_back_if(|held| held.tick > tick).is_some() {}
        self.refused = 0;
    }

    /// Forgets everything: what comes next needs nothing of it. Combinations of components stay as
    /// they are numbered.
    pub fn forget(&mut self) {
        self.held.clear();
        self.epoch = None;
        self.refused = 0;
    }

    /// Tick of the newest snapshot before `tick` of which everything in view is known.
    #[must_use]
    pub fn complete_before(&self, tick: Tick) -> Option<Tick> {
        let mut newest_first = self.held.iter().rev();
        let complete = newest_first.find(|held| held.is_complete && held.tick < tick);
        complete.map(|held| held.tick)
    }

    /// How rows are quantized.
    #[must_use]
    pub const fn layout(&self) -> &Arc<WireLayout> {
        &self.layout
    }

    /// The combinations of components that were received.
    #[must_use]
    pub const fn shapes(&self) -> &Shapes {
        &self.shapes
    }

    /// Tick of the newest snapshot of which something is known.
    #[must_use]
    pub fn newest(&self) -> Option<Tick> {
        self.held.back().map(|held| held.tick)
    }

    /// Tick of the newest snapshot of which everything in view is known.
    #[must_use]
    pub fn newest_complete(&self) -> Option<Tick> {
        let complete = self.held.iter().rev().find(|held| held.is_complete);
        complete.map(|held| held.tick)
    }

    /// What is held as of the snapshot at `tick`, one of which something is known. An entity's
    /// `changed` is the tick of the snapshot that brought its value. The snapshot's own tick is
    /// older where nothing has changed since.
    #[must_use]
    pub fn at(&self, tick: Tick) -> Option<&Arc<QuantizedSnapshot>> {
        self.find(tick).map(|held| &held.view)
    }

    /// Whether everything in view is known of the snapshot at `tick`.
    #[must_use]
    pub fn is_complete(&self, tick: Tick) -> bool {
        self.find(tick).is_some_and(|held| held.is_complete)
    }

    /// The ticks of the snapshots that are held, ascending.
    pub fn ticks(&self) -> impl DoubleEndedIterator<Item = Tick> {
        self.held.iter().map(|held| held.tick)
    }

    /// The newest snapshot up to `tick` that told of entity number `index` of [`Receiver::at`]: its
    /// value was certainly true then.
    #[must_use]
    pub fn told_at(&self, tick: Tick, index: usize) -> Option<Tick> {
        let held = self.find(tick)?;
        if held.is_complete {
            return (index < held.view.len()).then_some(held.tick);
        }
        held.told.get(index).copied()
    }

    /// The hash of what is held as of the snapshot at `tick`; it equals that of
    /// [`Subscription::interest_hash`](super::Subscription::interest_hash) if the host's state
    /// within the interest is the same.
    #[must_use]
    pub fn hash_at(&self, tick: Tick) -> Option<u64> {
        let view = self.at(tick)?;
        Some(hash_all(&self.shapes, view))
    }

    /// Bytes that all held snapshots take.
    #[must_use]
    pub fn memory(&self) -> usize {
        let mut bytes = 0_usize;
        let mut before: Option<&Arc<QuantizedSnapshot>> = None;
        for held in &self.held {
            if before.is_none_or(|before| !Arc::ptr_eq(before, &held.view)) {
                bytes += held.view.memory();
            }
            bytes += held.facts_memory();
            before = Some(&held.view);
        }
        bytes
    }

    fn find(&self, tick: Tick) -> Option<&Held> {
        let index = self.held.binary_search_by_key(&tick, |held| held.tick);
        self.held.get(index.ok()?)
    }
}

/// Reading.
impl Receiver {
    fn take_body(&mut self, sent_at: Tick, body: &[u8]) -> Result<ReadReport, ReadError> {
        let mut reader = Reader::new(body);
        let head = Head::read(&mut reader)?;
        let begins = self.begins(head.epoch)?;
        let (number, tick) = self.number(sent_at, head.number_low)?;
        if !begins && self.is_too_old(number) {
            return Err(ReadError::TooOld);
        }
        let known = self.index_of(number).filter(|_| !begins);
        if let Some(known) = known {
            let held = &self.held[known];
            let is_known = held.is_complete || held.bodies & 1 << head.index != 0;
            if is_known {
                return Ok(ReadReport {
                    tick,
                    is_newest: known + 1 == self.held.len(),
                    completes: false,
                    is_known: true,
                });
            }
            if held
                .last
                .is_some_and(|last| head.index > last || head.is_last)
            {
                return Err(DecodeError::Invalid("a body behind the last one").into());
            }
        }
        if begins {
            // Nothing of what is held may serve as a reference.
            let kept = core::mem::take(&mut self.held);
            let facts = self.decode(&head, number, tick, reader.rest());
            self.held = kept;
            let facts = facts?;
            self.begin(head.epoch);
            return Ok(self.add(&head, number, tick, facts));
        }
        let facts = self.decode(&head, number, tick, reader.rest())?;
        if let Some(known) = known
            && !self.held[known].agrees_with(&facts)
        {
            return Err(DecodeError::Invalid("two bodies of a snapshot do not go together").into());
        }
        Ok(self.add(&head, number, tick, facts))
    }

    /// Whether `epoch` is a new one.
    fn begins(&self, epoch: u8) -> Result<bool, ReadError> {
        let Some(present) = self.epoch else {
            return Ok(true);
        };
        // Half of the circle lies ahead. Datagrams do not live long enough to be older than that.
        match (epoch + EPOCHS - present) % EPOCHS {
            0 => Ok(false),
            1 | 2 => Ok(true),
            _ => Err(ReadError::OldEpoch),
        }
    }

    fn begin(&mut self, epoch: u8) {
        self.epoch = Some(epoch);
        self.held.clear();
    }

    /// The whole number of a snapshot, and its tick: the newest up to `sent_at` that fits.
    fn number(&self, sent_at: Tick, low: u8) -> Result<(u32, Tick), ReadError> {
        let newest = sent_at.number().div_ceil(self.snapshot_ticks);
        let behind = newest.to_le_bytes()[0].wrapping_sub(low);
        let number = newest
            .checked_sub(u32::from(behind))
            .ok_or(DecodeError::Invalid("a snapshot before the first tick"))?;
        // The last snapshot of a session may come before its time.
        let tick = number
            .saturating_mul(self.snapshot_ticks)
            .min(sent_at.number());
        Ok((number, Tick::new(tick)))
    }

    fn is_too_old(&self, number: u32) -> bool {
        self.held
            .back()
            .is_some_and(|newest| newest.number.saturating_sub(number) >= STATE_RING_SNAPSHOTS)
    }

    fn index_of(&self, number: u32) -> Option<usize> {
        self.held
            .binary_search_by_key(&number, |held| held.number)
            .ok()
    }

    /// Reads what is behind the head. Changes nothing but the table of shapes.
    fn decode(
        &mut self,
        head: &Head,
        number: u32,
        tick: Tick,
        bytes: &[u8],
    ) -> Result<Facts, ReadError> {
        match head.content {
            Content::Same { age } => {
                if !bytes.is_empty() {
                    return Err(DecodeError::Trailing(bytes.len()).into());
                }
                let base = reference(&self.held, number, u32::from(age))?;
                Ok(Facts::Same(Arc::clone(&base.view)))
            }
            Content::Whole { base, others } => self.decode_whole(number, tick, base, others, bytes),
            Content::Part => self.decode_part(number, tick, bytes),
        }
    }

    fn decode_whole(
        &mut self,
        number: u32,
        tick: Tick,
        base: Option<u8>,
        others: u8,
        bytes: &[u8],
    ) -> Result<Facts, ReadError> {
        let mut ages = [0; BODY_REFERENCES_MAX];
        let mut count = 0;
        if let Some(base) = base {
            ages[0] = u32::from(base);
            count = 1;
            for (at, distance) in REFERENCE_DISTANCES.into_iter().enumerate() {
                if others & 1 << at != 0 && count < ages.len() {
                    ages[count] = u32::from(base) + distance;
                    count += 1;
                }
            }
        }
        let mut rows = QuantizedSnapshot::default();
        let empty = QuantizedSnapshot::default();
        let mut references = [Reference {
            age: 0,
            view: View::all(&empty),
        }; BODY_REFERENCES_MAX];
        for (to, &age) in references.iter_mut().zip(&ages[..count]) {
            *to = Reference {
                age,
                view: View::all(&reference(&self.held, number, age)?.view),
            };
        }
        // The references borrow what is held, and the table of shapes is another part of it.
        let span = self.decoder.decode_whole(
            &mut self.shapes,
            tick,
            &references[..count],
            bytes,
            &mut rows,
        )?;
        check_size(&rows, self.memory())?;
        if span.next.is_some_and(|next| next <= span.from) {
            return Err(DecodeError::Invalid("a range ends before it begins").into());
        }
        Ok(Facts::Range(RangeFact {
            from: span.from,
            next: span.next,
            rows,
        }))
    }

    fn decode_part(&mut self, number: u32, tick: Tick, bytes: &[u8]) -> Result<Facts, ReadError> {
        let mut sink = PartSink {
            held: &self.held,
            number,
            tick,
            rows: QuantizedSnapshot::new(tick),
            gone: Vec::new(),
            lacks_reference: Cell::new(false),
        };
        // Nothing behind the head: nothing has changed that is not known already.
        if !bytes.is_empty() {
            let decoded = self.decoder.decode_part(&mut self.shapes, bytes, &mut sink);
            if sink.lacks_reference.get() {
                return Err(ReadError::NoReference);
            }
            decoded?;
        }
        let (rows, gone) = (sink.rows, sink.gone);
        check_size(&rows, self.memory())?;
        Ok(Facts::Some { rows, gone })
    }

    /// Adds what a body said.
    fn add(&mut self, head: &Head, number: u32, tick: Tick, facts: Facts) -> ReadReport {
        let at = self.place(number, tick);
        let held = &mut self.held[at];
        held.bodies |= 1 << head.index;
        if head.is_last {
            held.last = Some(head.index);
        }
        match facts {
            Facts::Same(view) => held.complete(view),
            Facts::Range(range) if range.from.is_none() && range.next.is_none() => {
                let mut rows = range.rows;
                rows.tick = tick;
                held.complete(Arc::new(rows));
            }
            Facts::Range(range) => held.ranges.push(range),
            Facts::Some { rows, gone } => held.tell(rows, &gone),
        }
        let from = if held.is_complete { at + 1 } else { at };
        self.rebuild(from);
        let completes = self.held[at].is_complete;
        self.forget_old();
        ReadReport {
            tick,
            is_newest: self.held.back().is_none_or(|held| held.number == number),
            completes,
            is_known: false,
        }
    }

    /// The index of snapshot `number`, which is made if nothing was known of it.
    fn place(&mut self, number: u32, tick: Tick) -> usize {
        match self.held.binary_search_by_key(&number, |held| held.number) {
            Ok(at) => at,
            Err(at) => {
                self.held.insert(at, Held::new(number, tick));
                at
            }
        }
    }

    /// Computes anew what is held from index `from` on, up to the next complete snapshot.
    fn rebuild(&mut self, from: usize) {
        for at in from..self.held.len() {
            if self.held[at].is_complete {
                return;
            }
            let before = at.checked_sub(1);
            let (older, newer) = self.held.make_contiguous().split_at_mut(at);
            let before = before.map(|before| &older[before]);
            newer[0].build_on(before);
        }
    }

    /// Forgets snapshots that the host refers to no longer. The newest of them stays, for what is
    /// held as of later ones builds on it.
    fn forget_old(&mut self) {
        let Some(newest) = self.held.back() else {
            return;
        };
        let oldest = (newest.number + 1).saturating_sub(STATE_RING_SNAPSHOTS);
        while self
            .held
            .get(1)
            .is_some_and(|second| second.number <= oldest)
        {
            self.held.pop_front();
        }
    }
}

/// A complete snapshot that is `age` older than `number`.
fn reference(held: &VecDeque<Held>, number: u32, age: u32) -> Result<&Held, ReadError> {
    let number = number.checked_sub(age).ok_or(ReadError::NoReference)?;
    let index = held.binary_search_by_key(&number, |held| held.number);
    let held = index.ok().map(|index| &held[index]);
    held.filter(|held| held.is_complete)
        .ok_or(ReadError::NoReference)
}

/// What a body says.
#[derive(Debug)]
enum Facts {
    /// The snapshot equals this one.
    Same(Arc<QuantizedSnapshot>),
    /// All about a range.
    Range(RangeFact),
    /// Something about some.
    Some {
        rows: QuantizedSnapshot,
        gone: Vec<NetId>,
    },
}

/// Takes in a part body.
struct PartSink<'a> {
    held: &'a VecDeque<Held>,
    number: u32,
    tick: Tick,
    rows: QuantizedSnapshot,
    gone: Vec<NetId>,
    lacks_reference: Cell<bool>,
}

impl PartState for PartSink<'_> {
    fn reference(&self, id: NetId, age: u32) -> Option<EntityRef<'_>> {
        let found = self.number.checked_sub(age).and_then(|number| {
            let after = self.held.partition_point(|held| held.number <= number);
            self.held.get(after.checked_sub(1)?)?.view.find(id)
        });
        if found.is_none() {
            self.lacks_reference.set(true);
        }
        found
    }

    fn take(
        &mut self,
        id: NetId,
        value: Option<(ShapeId, &[i32], &[u8])>,
    ) -> Result<(), DecodeError> {
        let newest = self.rows.heads().last().map(|head| head.id);
        let is_behind = newest.max(self.gone.last().copied()) >= Some(id);
        if is_behind && !(newest.is_none() && self.gone.is_empty()) {
            return Err(DecodeError::Invalid("entities do not come by id ascending"));
        }
        match value {
            Some((shape, lanes, opaque)) => {
                self.rows.push(id, shape, self.tick, |to_lanes, to_opaque| {
                    to_lanes.extend_from_slice(lanes);
                    to_opaque.extend_from_slice(opaque);
                });
            }
            None => self.gone.push(id),
        }
        Ok(())
    }
}

/// Checks that there is room for `rows` next to `held` bytes: three times, as facts, as what is held
/// now, and as what is held once they are folded.
fn check_size(rows: &QuantizedSnapshot, held: usize) -> Result<(), ReadError> {
    let is_too_large = rows.len() > ENTITIES_MAX
        || rows.memory().saturating_mul(3).saturating_add(held) > STATE_HELD_BYTES_MAX;
    if is_too_large {
        Err(ReadError::TooLarge)
    } else {
        Ok(())
    }
}
