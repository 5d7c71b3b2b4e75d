//! Part bodies: what is owed most comes first.

use core::ops::Range;

use crate::delta::{PART_REFERENCES_MAX, PartItem};
use crate::id::NetId;
use crate::limits::DATAGRAM_BYTES_MAX;
use crate::state::{EntityRef, QuantizedSnapshot, ShapeId};
use crate::tick::Tick;

use super::super::budget::Budget;
use super::super::head::{BODIES_MAX, Content, HEAD_BYTES_MAX, mark_last};
use super::super::publisher::Publisher;
use super::super::records::Record;
use super::super::ring::Ring;
use super::{Plan, Subscription};

/// Age in snapshots of the oldest value that serves as a reference. A client keeps older ones, for
/// a datagram may arrive when it knows of newer snapshots already.
const REFERENCE_AGE_MAX: u32 = 48;
/// Snapshots between the two references of an entity, at most: what was earlier misleads.
const GAP_MAX: u32 = 4;
/// Room that every datagram has for state, in bytes, but for those with many control messages. What
/// does not fit alone never will.
const ROOM_USUAL: usize = 1000;
/// Bytes that a body may take beyond the budget, so that it holds something.
const OVERDRAFT: usize = 128;
/// Bits that an entity takes, until there is experience.
const BITS_GUESS: u32 = 128;
/// Bits of the record of a removal.
const TOMBSTONE_BITS: u64 = 16;
/// Ticks without an answer after which something is sent again, until round trips are known.
const ANSWER_GUESS: u32 = 60;

/// Growth of the debt per snapshot.
mod weight {
    /// Of what the client owns, and of resources.
    pub(super) const OWN: u32 = 64;
    /// Of what it does not have at all, and of what it should forget.
    pub(super) const NEW: u32 = 16;
    /// Of the rest, for the nearest.
    pub(super) const NEAREST: u32 = 16;
    /// Of the rest, without or beyond all places.
    pub(super) const OTHER: u32 = 8;
}

/// One entity that waits.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    debt: u32,
    record: u32,
    /// Its present value has been sent, and there is no answer yet.
    in_flight: bool,
}

impl Waiting {
    /// The largest debt first, and what is under way last.
    const fn order(&self) -> (bool, u32, u32) {
        (self.in_flight, u32::MAX - self.debt, self.record)
    }
}

/// What waits to be sent of the newest snapshot.
#[derive(Debug)]
pub(super) struct Queue {
    /// Those with the largest debt first, from `at` on.
    waiting: Vec<Waiting>,
    at: usize,
    /// The one that did not fit last time.
    failed: Option<u32>,
    bits_per_entity: u32,
    /// What the present body tells of, ascending.
    pub(super) sent: Vec<NetId>,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            waiting: Vec::new(),
            at: 0,
            failed: None,
            bits_per_entity: BITS_GUESS,
            sent: Vec::new(),
        }
    }
}

impl Queue {
    /// What an entity of a part body has taken lately.
    pub(super) const fn bits_per_entity(&self) -> u32 {
        self.bits_per_entity
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.at == self.waiting.len()
    }

    /// The next entities for a body with `room` bytes, by id ascending: as many as may fit, and some
    /// more. One that did not fit behind others comes first.
    fn chunk(&mut self, room: usize) -> Range<usize> {
        let fitting = room * 8 / self.bits_per_entity as usize;
        let end = (self.at + fitting + fitting / 8 + 1).min(self.waiting.len());
        let failed = self.failed.unwrap_or(0);
        let chunk = &mut self.waiting[self.at..end];
        chunk.sort_unstable_by_key(|waiting| (waiting.record < failed, waiting.record));
        let count = chunk.partition_point(|waiting| waiting.record >= failed);
        self.at..self.at + count
    }

    fn note(&mut self, bytes: usize, entities: usize) {
        if entities >= 8 {
            let bits = u32::try_from(bytes * 8 / entities)
                .unwrap_or(u32::MAX)
                .max(1);
            self.bits_per_entity = (self.bits_per_entity / 4 * 3 + bits / 4).max(1);
        }
    }
}

impl Subscription {
    /// Lines up what the client is not known to hold.
    pub(super) fn plan_parts(&mut self, publisher: &mut Publisher, number: u32) {
        let answer_after = self.round_trip.map_or(ANSWER_GUESS, |trip| {
            trip + trip / 2 + 2 * self.snapshot_ticks + 1
        });
        publisher.index_newest();
        let (Some(records), Some(snapshot)) = (&mut self.records, publisher.snapshot(number))
        else {
            return;
        };
        let index = publisher.index();
        let center = self.outlook.center(&self.viewer);
        self.queue.waiting.clear();
        self.queue.at = 0;
        self.queue.failed = None;
        let mut ghosts = 0;
        for (at, record) in (0_u32..).zip(records.rows_mut()) {
            let changed = changed(record, snapshot);
            if record.is_clean(changed) {
                record.debt = 0;
                continue;
            }
            let in_flight = record.flight.is_some_and(|flight| flight >= changed)
                && self.ticks.wrapping_sub(record.flight_at) < answer_after;
            if !in_flight {
                let is_own = !record.is_ghost
                    && (record.id.is_none()
                        || self.viewer.slot.is_some()
                            && index.owner(record.index) == self.viewer.slot);
                let growth = if is_own {
                    weight::OWN
                } else if record.acked.is_none() {
                    weight::NEW
                } else {
                    match (center, index.place(record.index)) {
                        (Some((point, reach)), Some(place)) => nearness(point, place, reach),
                        _ => weight::OTHER,
                    }
                };
                record.debt = record.debt.saturating_add(growth);
            }
            ghosts += u64::from(record.is_ghost);
            self.queue.waiting.push(Waiting {
                debt: record.debt,
                record: at,
                in_flight,
            });
        }
        let live = self.queue.waiting.len() as u64 - ghosts;
        let bits = live * u64::from(self.queue.bits_per_entity) + ghosts * TOMBSTONE_BITS;
        let bodies = u64::from(self.snapshot_ticks.min(u32::from(BODIES_MAX)));
        let tokens = self.budget.as_ref().map_or(0, Budget::tokens);
        let mut is_all = bits / 8 <= u64::try_from(tokens).unwrap_or(0).max(1)
            && bits / 8 <= bodies * ROOM_USUAL as u64;
        if !is_all {
            self.queue.waiting.retain(|waiting| !waiting.in_flight);
        }
        // Only so many can be sent of this snapshot; the rest need no order.
        let most = bodies * DATAGRAM_BYTES_MAX as u64 * 8 / u64::from(self.queue.bits_per_entity);
        let most = usize::try_from(most)
            .unwrap_or(usize::MAX)
            .saturating_mul(2);
        let waiting = &mut self.queue.waiting;
        if waiting.len() > most && most > 0 {
            waiting.select_nth_unstable_by_key(most, Waiting::order);
            waiting.truncate(most);
            is_all = false;
        }
        waiting.sort_unstable_by_key(Waiting::order);
        self.plan = Plan::Parts { is_all };
    }

    /// Appends one part body; says whether it completes the snapshot, or `None` if there is nothing
    /// to say or no room to say it.
    pub(super) fn write_part(
        &mut self,
        publisher: &mut Publisher,
        number: u32,
        room: usize,
        tokens: usize,
        mut is_all: bool,
        out: &mut Vec<u8>,
    ) -> Option<bool> {
        let records = self.records.as_mut()?;
        let queue = &mut self.queue;
        let head = super::Head {
            epoch: self.epoch,
            number_low: number.to_le_bytes()[0],
            index: self.next_body,
            is_last: false,
            content: Content::Part,
        };
        if queue.at == queue.waiting.len() {
            if !is_all || room < HEAD_BYTES_MAX {
                return None;
            }
            let head = super::Head {
                is_last: true,
                ..head
            };
            head.write(out);
            return Some(true);
        }
        if tokens == 0 {
            return None;
        }
        let allowed = room.min(tokens.max(OVERDRAFT));
        let payload_room = allowed.checked_sub(HEAD_BYTES_MAX)?;
        let tick = publisher.stamp(number);
        let (encoder, shapes, ring) = publisher.part_tools();
        let snapshot = ring.get(number)?;
        let start = out.len();
        head.write(out);
        let pushed = loop {
            let chunk = queue.chunk(payload_room);
            encoder.begin_part(payload_room);
            let mut pushed = 0;
            for &waiting in &queue.waiting[chunk.clone()] {
                let record = &records.rows()[waiting.record as usize];
                let (references, count) = references(ring, record, number, self.snapshot_ticks);
                let value = (!record.is_ghost)
                    .then(|| (snapshot.entity(record.index as usize), record.hidden));
                let item = PartItem {
                    id: record.id,
                    value,
                    references: &references[..count],
                };
                if !encoder.push_part(shapes, &item) {
                    break;
                }
                pushed += 1;
            }
            if pushed > 0 {
                queue.failed = queue
                    .waiting
                    .get(chunk.start + pushed)
                    .filter(|_| pushed < chunk.len())
                    .map(|waiting| waiting.record);
                break pushed;
            }
            if allowed < room {
                // It waits until there are more bytes for it.
                self.plan = Plan::Done;
            }
            if room < ROOM_USUAL || allowed < room {
                out.truncate(start);
                return None;
            }
            // It fits no datagram: a keyframe has to bring it.
            self.statistics.too_large += 1;
            self.wants_keyframe = true;
            is_all = false;
            self.plan = Plan::Parts { is_all };
            queue.waiting.remove(chunk.start);
            queue.failed = None;
            if queue.at == queue.waiting.len() {
                out.truncate(start);
                self.plan = Plan::Done;
                return None;
            }
        };
        encoder.finish_part(out);
        for waiting in &queue.waiting[queue.at..queue.at + pushed] {
            let record = &mut records.rows_mut()[waiting.record as usize];
            record.flight = Some(tick);
            record.flight_at = self.ticks;
            record.staked = record.staked.saturating_add(record.debt);
            record.debt = 0;
            record.is_touched = true;
            queue.sent.push(record.id);
        }
        self.statistics.part_entities += pushed as u64;
        queue.at += pushed;
        queue.note(out.len() - start, pushed);
        let is_last = is_all && queue.at == queue.waiting.len();
        if is_last {
            mark_last(&mut out[start]);
        }
        Some(is_last)
    }
}

/// Since when what is to say about the entity of a record is true.
fn changed(record: &Record, snapshot: &QuantizedSnapshot) -> Tick {
    if record.is_ghost {
        return record.entered;
    }
    let head = snapshot.heads()[record.index as usize];
    head.changed.max(record.entered)
}

/// Up to two older values of an entity that its client holds, newest first.
///
/// What the client acked holds until the next change. So if the snapshot before the present one
/// still has that value, it stands for it: the entity has only now begun to change.
fn references<'a>(
    ring: &'a Ring,
    record: &Record,
    number: u32,
    snapshot_ticks: u32,
) -> ([(u32, EntityRef<'a>, u64); PART_REFERENCES_MAX], usize) {
    let nothing = EntityRef {
        id: record.id,
        shape: ShapeId::default(),
        changed: Tick::ZERO,
        lanes: &[],
        opaque: &[],
    };
    let mut found = [(0, nothing, 0); PART_REFERENCES_MAX];
    let Some(acked) = record.acked.filter(|_| !record.is_ghost) else {
        return (found, 0);
    };
    let at = |reference: u32| {
        let entity = near(ring.get(reference)?, record.id, record.index)?;
        Some((number - reference, entity, record.hidden))
    };
    let acked_number = acked.number() / snapshot_ticks;
    if let Some(before) = number
        .checked_sub(1)
        .filter(|&before| before > acked_number)
        && let Some(reference) = at(before)
        && reference.1.changed <= acked
    {
        found[0] = reference;
        return (found, 1);
    }
    if number.saturating_sub(acked_number) > REFERENCE_AGE_MAX || acked_number >= number {
        return (found, 0);
    }
    let Some(newest) = at(acked_number) else {
        return (found, 0);
    };
    found[0] = newest;
    if record.acks == 0 {
        return (found, 1);
    }
    let gap = record.acks.trailing_zeros() + 1;
    match acked_number
        .checked_sub(gap)
        .filter(|&second| gap <= GAP_MAX && number - second <= REFERENCE_AGE_MAX)
        .and_then(at)
    {
        Some(older) => {
            found[1] = older;
            (found, 2)
        }
        None => (found, 1),
    }
}

/// The entity `id`, which is probably near index `guess`.
fn near(snapshot: &QuantizedSnapshot, id: NetId, guess: u32) -> Option<EntityRef<'_>> {
    let guess = guess as usize;
    match snapshot.heads().get(guess) {
        Some(head) if head.id == id => Some(snapshot.entity(guess)),
        _ => snapshot.find(id),
    }
}

/// Growth of the debt by distance: from the nearest weight to that of everything else.
fn nearness(point: [f32; 3], place: [f32; 3], reach: f32) -> u32 {
    let [x, y, z] = [0, 1, 2].map(|axis| point[axis] - place[axis]);
    let squared = x * x + y * y + z * z;
    if squared * 16.0 <= reach * reach {
        weight::NEAREST
    } else if squared * 4.0 <= reach * reach {
        (weight::NEAREST + weight::OTHER) / 2
    } else {
        weight::OTHER
    }
}
