//! Part bodies: what is owed most comes first.

use core::ops::Range;

use crate::delta::{PART_REFERENCES_MAX, PartItem};
use crate::id::NetId;
use crate::limits::DATAGRAM_BYTES_MAX;
use crate::state::{EntityRef, QuantizedSnapshot, ShapeId};
use crate::tick::Tick;

use super::super::budget::Budget;
use super::super::head::{BODIES_MAX, Content, HEAD_BYTES_MAX, mark_last};
use super::super::interest::Sight;
use super::super::publisher::{BITS_GUESS, PartTools, Publisher};
use super::super::records::Record;
use super::super::ring::Ring;
use super::{CREDIT_EVERY, Plan, Subscription};

/// Age in snapshots of the oldest value that serves as a reference. A client keeps older ones, for
/// a datagram may arrive when it knows of newer snapshots already.
const REFERENCE_AGE_MAX: u32 = 48;
/// Snapshots between the two references of an entity, at most: what was earlier misleads.
pub(in super::super) const GAP_MAX: u32 = 4;
/// Room that every datagram has for state, in bytes, but for those with many control messages. What
/// does not fit alone never will.
const ROOM_USUAL: usize = 1000;
/// Bytes that a body may take beyond the budget, so that it holds something.
const OVERDRAFT: usize = 128;
/// Room of bodies that clients share, and the steps in which smaller ones shrink: they differ by what
/// else is in a datagram.
const ROOM_SHARED: usize = 1040;
const ROOM_STEP: usize = 64;
/// Budget per snapshot, in bytes, from which on a client takes part in the rotation.
const ROTATION_BYTES_MIN: u64 = 512;
/// Bits of the record of a removal.
const TOMBSTONE_BITS: u64 = 16;
/// Attempts at a body, so that what is owed most is in it.
const TRIES_MAX: u32 = 4;
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
    /// It does not wait for its place in the rotation.
    is_urgent: bool,
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
    /// Where in `waiting` what follows the rotation begins; the end if nothing does.
    rotation: usize,
    /// Bodies of the rotation that are due at this snapshot.
    due: u32,
    /// Working memory.
    rest: Vec<Waiting>,
    open: Vec<u32>,
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
            rotation: 0,
            due: 0,
            rest: Vec::new(),
            open: Vec::new(),
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

    /// Whether what comes next is of the rotation.
    fn rotates(&self) -> bool {
        self.at >= self.rotation
    }

    /// How many entities may fit into a body with `room` bytes, and some more.
    fn guess(&self, room: usize) -> usize {
        let fitting = room * 8 / self.bits_per_entity as usize;
        fitting + fitting / 8 + 1
    }

    /// The next entities for a body, at most so many, by id ascending. One that did not fit behind
    /// others comes first.
    fn chunk(&mut self, most: usize) -> Range<usize> {
        let end = (self.at + most).min(self.waiting.len());
        if self.rotates() {
            // In order already, but for a body that goes round the end of the ids.
            self.waiting[self.at..end].sort_unstable_by_key(|waiting| waiting.record);
            return self.at..end;
        }
        let end = end.min(self.rotation);
        let failed = self.failed.unwrap_or(0);
        let chunk = &mut self.waiting[self.at..end];
        chunk.sort_unstable_by_key(|waiting| (waiting.record < failed, waiting.record));
        let count = chunk.partition_point(|waiting| waiting.record >= failed);
        self.at..self.at + count
    }

    /// Whether one that is owed much stays behind in a body that holds the first `pushed` of a chunk,
    /// for it was taken for larger than it is: by id, others come before it. Brings the largest debts
    /// to the front then, so that fewer can be tried.
    fn is_unfair(&mut self, chunk: &Range<usize>, pushed: usize) -> bool {
        if chunk.start >= self.rotation {
            return false;
        }
        let chunk = &mut self.waiting[chunk.clone()];
        let (told, left) = chunk.split_at(pushed);
        let debt = |one: &Waiting| if one.in_flight { 0 } else { one.debt };
        let owed = left.iter().map(debt).max().unwrap_or(0);
        let is_unfair = told.iter().any(|one| debt(one) + weight::NEAREST < owed);
        if is_unfair {
            chunk.sort_unstable_by_key(Waiting::order);
        }
        is_unfair
    }

    /// Puts what is not urgent into the order of the rotation, from record `start` on, behind what
    /// is; at most `most` of each.
    fn rotate(&mut self, start: u32, most: usize) {
        let (waiting, rest) = (&mut self.waiting, &mut self.rest);
        rest.clear();
        waiting.retain(|&one| {
            if !one.is_urgent {
                rest.push(one);
            }
            one.is_urgent
        });
        order(waiting, most);
        self.rotation = waiting.len();
        let before = rest.partition_point(|one| one.record < start);
        rest.rotate_left(before);
        waiting.extend(rest.iter().take(most));
    }

    /// Remembers which one did not fit behind the first `pushed` of a chunk.
    fn note_failed(&mut self, chunk: &Range<usize>, pushed: usize) {
        let failed = self.waiting.get(chunk.start + pushed);
        let failed = failed.filter(|_| pushed < chunk.len() && chunk.start < self.rotation);
        self.failed = failed.map(|waiting| waiting.record);
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

/// Brings the largest debts to the front, at most so many.
fn order(waiting: &mut Vec<Waiting>, most: usize) {
    if waiting.len() > most && most > 0 {
        waiting.select_nth_unstable_by_key(most, Waiting::order);
        waiting.truncate(most);
    }
    waiting.sort_unstable_by_key(Waiting::order);
}

/// Bodies of the rotation at snapshot `number`: the same for all clients with the same budget, and in
/// the mean a little less than it, for what is urgent.
fn bodies_due(number: u32, bytes_per_snapshot: u64) -> u32 {
    let bytes = bytes_per_snapshot - bytes_per_snapshot / 32;
    let upto = |number: u64| number * bytes / ROOM_SHARED as u64;
    let number = u64::from(number);
    u32::try_from(upto(number + 1) - upto(number)).unwrap_or(u32::MAX)
}

impl Subscription {
    /// Lines up what the client is not known to hold.
    pub(super) fn plan_parts(&mut self, publisher: &mut Publisher, number: u32) {
        let answer_after = self.round_trip.map_or(ANSWER_GUESS, |trip| {
            trip + trip / 2 + 2 * self.snapshot_ticks + 1
        });
        let is_adrift = self.base().is_none();
        publisher.index_newest();
        publisher.note_look(
            self.records
                .as_ref()
                .map_or(0, |records| records.rows().len()),
        );
        let (Some(records), Some(snapshot)) = (&mut self.records, publisher.snapshot(number))
        else {
            return;
        };
        let index = publisher.index();
        let center = self.outlook.center(&self.viewer);
        self.queue.waiting.clear();
        self.queue.at = 0;
        self.queue.failed = None;
        let moment = self.moments.back();
        let sees_all = moment.is_some_and(|moment| matches!(moment.sight, Sight::All));
        if sees_all {
            self.queue.bits_per_entity = publisher.part_bits();
        }
        let mut ghosts = 0;
        let mut is_owing = false;
        let mut open = core::mem::take(&mut self.queue.open);
        records.list_open(publisher.changes(), &mut open);
        for &at in &open {
            let record = &mut records.rows_mut()[at as usize];
            let changed = changed(record, snapshot);
            if record.is_clean(changed) {
                records.close(at);
                continue;
            }
            let is_sent = record.flight.is_some_and(|flight| flight >= changed);
            let in_flight = is_sent && self.ticks.wrapping_sub(record.flight_at) < answer_after;
            let mut is_urgent = false;
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
                is_owing |= record.debt > 0;
                record.debt = record.debt.saturating_add(growth);
                let is_new = record.acked.is_none() && record.flight.is_none();
                is_urgent = is_own || record.is_ghost || is_new || is_sent || record.is_lost;
            }
            ghosts += u64::from(record.is_ghost);
            self.queue.waiting.push(Waiting {
                debt: record.debt,
                record: at,
                in_flight,
                is_urgent,
            });
        }
        self.queue.open = open;
        let waiting = &mut self.queue.waiting;
        let bits_per_entity = u64::from(self.queue.bits_per_entity);
        let live = waiting.len() as u64 - ghosts;
        let bits = live * bits_per_entity + ghosts * TOMBSTONE_BITS;
        let bodies = u64::from(self.snapshot_ticks.min(u32::from(BODIES_MAX)));
        let tokens = self.budget.as_ref().map_or(0, Budget::tokens);
        let mut is_all = bits / 8 <= u64::try_from(tokens).unwrap_or(0).max(1)
            && bits / 8 <= bodies * ROOM_USUAL as u64;
        // Only so many can be sent of this snapshot; the rest need no order.
        let most = bodies * DATAGRAM_BYTES_MAX as u64 * 8 / bits_per_entity;
        let most = usize::try_from(most)
            .unwrap_or(usize::MAX)
            .saturating_mul(2)
            .max(1);
        let per_snapshot = self.budget.as_ref().map_or(0, |budget| {
            u64::try_from(budget.per_snapshot()).unwrap_or(0)
        });
        // Where it nearly fits, all of it is told now and then: whole bodies take less, and need that.
        let takes_credit = !is_all
            && is_adrift
            && number - self.credit_at.max(self.parts_since) >= CREDIT_EVERY
            && bits / 8 <= per_snapshot + per_snapshot / 2
            && bits / 8 <= bodies * ROOM_USUAL as u64;
        if takes_credit {
            self.credit_at = number;
            is_all = true;
        }
        let waiting = &mut self.queue.waiting;
        let has_share = self.budget.as_ref().is_some_and(Budget::is_whole);
        self.queue.due = 0;
        if is_all && !is_owing && sees_all && waiting.len() <= most {
            // All of it should go out: by id, as for anyone else who lacks the same. Whoever stays
            // behind all the same comes first next time, or the last by id would wait for ever.
            self.queue.rotation = 0;
            self.queue.due = u32::MAX;
        } else if sees_all
            && !takes_credit
            && publisher.is_crowded()
            && has_share
            && per_snapshot >= ROTATION_BYTES_MIN
            // One datagram is for what is urgent.
            && per_snapshot <= (bodies - 1) * ROOM_SHARED as u64
        {
            waiting.retain(|waiting| !waiting.in_flight);
            // Whoever had no bytes when it was its turn comes before its next turn after next.
            let round = waiting.len() as u64 * bits_per_entity / 8 / per_snapshot + 2;
            let late = u32::try_from(2 * round).unwrap_or(u32::MAX);
            for one in waiting.iter_mut().filter(|one| !one.is_urgent) {
                one.is_urgent = one.debt > late.saturating_mul(weight::OTHER);
            }
            let start = publisher.rotation();
            let start = records.rows().partition_point(|record| record.id < start);
            let start = u32::try_from(start).unwrap_or(u32::MAX);
            self.queue.rotate(start, most);
            self.queue.due = bodies_due(number, per_snapshot);
            is_all = false;
        } else {
            if !is_all {
                waiting.retain(|waiting| !waiting.in_flight);
            }
            is_all &= waiting.len() <= most;
            order(waiting, most);
            self.queue.rotation = waiting.len();
        }
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
        let sees_all = self.moments.back();
        let sees_all = sees_all.is_some_and(|moment| matches!(moment.sight, Sight::All));
        let rotates = queue.rotates() && !is_all;
        if rotates && queue.due == 0 {
            self.plan = Plan::Done;
            return None;
        }
        // A body of the rotation is full, on credit if need be, so that it is the same for all.
        let allowed = if rotates {
            room
        } else {
            room.min(tokens.max(OVERDRAFT))
        };
        let payload_room = match allowed.checked_sub(HEAD_BYTES_MAX)? {
            room if !sees_all => room,
            ROOM_SHARED.. => ROOM_SHARED,
            room @ ..ROOM_STEP => room,
            room => room - room % ROOM_STEP,
        };
        let tick = publisher.stamp(number);
        let PartTools {
            encoder,
            shapes,
            ring,
            mut shared,
        } = publisher.part_tools(number);
        let snapshot = ring.get(number)?;
        let start = out.len();
        head.write(out);
        let payload_start = out.len();
        let mut is_shared = false;
        let mut tries = TRIES_MAX;
        let mut most = queue.guess(payload_room);
        let pushed = loop {
            let chunk = queue.chunk(most);
            tries -= 1;
            let record = |waiting: &Waiting| &records.rows()[waiting.record as usize];
            let mut keeps = None;
            if let Some(shared) = shared.as_deref_mut().filter(|_| sees_all) {
                let asked = queue.waiting[chunk.clone()].iter().map(record);
                if let Some((bytes, pushed)) = shared.find(payload_room, asked) {
                    if tries > 0 && queue.is_unfair(&chunk, pushed) {
                        most = pushed;
                        continue;
                    }
                    out.extend_from_slice(bytes);
                    is_shared = true;
                    queue.note_failed(&chunk, pushed);
                    break pushed;
                }
                keeps = Some(shared);
            }
            encoder.begin_part(payload_room);
            let mut pushed = 0;
            for waiting in &queue.waiting[chunk.clone()] {
                let record = record(waiting);
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
                encoder.finish_part(out);
                if let Some(shared) = keeps {
                    shared.keep(&out[payload_start..], pushed);
                }
                if tries > 0 && queue.is_unfair(&chunk, pushed) {
                    most = pushed;
                    out.truncate(payload_start);
                    encoder.take_tally();
                    continue;
                }
                queue.note_failed(&chunk, pushed);
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
            queue.rotation = queue.rotation.min(queue.waiting.len());
            queue.failed = None;
            if queue.at == queue.waiting.len() {
                out.truncate(start);
                self.plan = Plan::Done;
                return None;
            }
        };
        for waiting in &queue.waiting[queue.at..queue.at + pushed] {
            let record = &mut records.rows_mut()[waiting.record as usize];
            record.flight = Some(tick);
            record.flight_at = self.ticks;
            record.staked = record.staked.saturating_add(record.debt);
            record.debt = 0;
            record.is_touched = true;
            record.is_lost = false;
            queue.sent.push(record.id);
        }
        self.statistics.part_entities += pushed as u64;
        queue.at += pushed;
        queue.note(out.len() - start, pushed);
        publisher.note_part(is_shared, pushed);
        if sees_all {
            publisher.note_part_bits(queue.bits_per_entity);
        }
        if rotates {
            queue.due -= 1;
            publisher.note_rotation(number, &queue.sent);
        }
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
