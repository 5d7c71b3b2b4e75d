//! What one client is known to hold, entity by entity.
//!
//! # Invariants
//! An entity that the client may hold has a record, also after it left the client's interest (a
//! ghost), until the client is known to know that it is gone. What the client acked counts only
//! from when the entity last entered its interest.

use crate::id::NetId;
use crate::state::QuantizedSnapshot;
use crate::tick::Tick;

use super::interest::Sight;

/// Acked snapshots that a record remembers before the newest.
const ACKS: u32 = 32;

/// One entity as one client has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) id: NetId,
    /// Kinds that the client does not get.
    pub(super) hidden: u64,
    /// Index in the newest snapshot; meaningless for a ghost.
    pub(super) index: u32,
    /// When it came into view, or for a ghost when it left.
    pub(super) entered: Tick,
    /// Snapshot tick of the newest acked value, or tombstone.
    pub(super) acked: Option<Tick>,
    /// Bit `n`: the value of the snapshot `n + 1` before the newest acked one is acked too.
    pub(super) acks: u32,
    /// Snapshot tick of the newest value sent that is neither acked nor lost.
    pub(super) flight: Option<Tick>,
    /// When that was sent, in ticks.
    pub(super) flight_at: u32,
    /// What it is owed: grows while it waits to be sent.
    pub(super) debt: u32,
    /// What it was owed when it was sent, due again if that is lost.
    pub(super) staked: u32,
    /// Whether it is out of view.
    pub(super) is_ghost: bool,
    /// Whether the client may hold something of it.
    pub(super) is_touched: bool,
    /// Whether it was sent last in a datagram that is lost.
    pub(super) is_lost: bool,
}

impl Record {
    fn new(id: NetId, hidden: u64, index: u32, entered: Tick) -> Self {
        Self {
            id,
            hidden,
            index,
            entered,
            acked: None,
            acks: 0,
            flight: None,
            flight_at: 0,
            debt: 0,
            staked: 0,
            is_ghost: false,
            is_touched: false,
            is_lost: false,
        }
    }

    /// Whether the client is known to hold what was last true since `changed`.
    pub(super) fn is_clean(&self, changed: Tick) -> bool {
        self.acked.is_some_and(|acked| acked >= changed)
    }

    /// One more than the tick up to which the client is known to hold what is true, if that is all
    /// there is to know; 0 if it is not.
    fn standing(&self) -> u32 {
        match self.acked {
            Some(acked) if !self.is_ghost && self.debt == 0 && !self.is_lost => stands(acked),
            Some(_) | None => 0,
        }
    }

    /// It enters or leaves the view: what was acked before does not count.
    fn restart(&mut self, now: Tick) {
        self.entered = now;
        self.acked = None;
        self.acks = 0;
        self.flight = None;
        self.debt = 0;
        self.staked = 0;
        self.is_lost = false;
    }

    /// The value of snapshot `tick` arrived.
    fn ack(&mut self, tick: Tick, snapshot_ticks: u32) {
        if tick < self.entered {
            return;
        }
        let behind = |newest: Tick, older: Tick| newest.since(older) / snapshot_ticks;
        match self.acked {
            Some(acked) if tick > acked => {
                let ahead = behind(tick, acked);
                self.acks = match ahead {
                    0..ACKS => self.acks << ahead | 1 << (ahead - 1),
                    ACKS => 1 << (ACKS - 1),
                    _ => 0,
                };
                self.acked = Some(tick);
            }
            Some(acked) => {
                let older = behind(acked, tick);
                if (1..=ACKS).contains(&older) {
                    self.acks |= 1 << (older - 1);
                }
            }
            None => self.acked = Some(tick),
        }
        if self.flight.is_some_and(|flight| flight <= tick) {
            self.flight = None;
            self.staked = 0;
        }
    }
}

/// A tick as [`Record::standing`] has it.
pub(super) const fn stands(tick: Tick) -> u32 {
    tick.number().saturating_add(1)
}

/// All records of one client, by NetId ascending.
#[derive(Clone, Debug, Default)]
pub(super) struct Records {
    rows: Vec<Record>,
    spare: Vec<Record>,
    /// Number of a snapshot of which every entity has a record, in order, and nothing else has.
    aligned: Option<u32>,
    /// While there is one: per record what [`Record::standing`] says, so that looking for what
    /// changed takes a few bytes of memory per entity.
    standing: Vec<u32>,
}

impl Records {
    /// Records of a client that is known to hold exactly `held` as of `tick`.
    pub(super) fn holding(held: impl Iterator<Item = (NetId, u64)>, tick: Tick) -> Self {
        let rows = held.map(|(id, hidden)| Record {
            acked: Some(tick),
            is_touched: true,
            ..Record::new(id, hidden, 0, tick)
        });
        Self {
            rows: rows.collect(),
            ..Self::default()
        }
    }

    pub(super) fn rows(&self) -> &[Record] {
        &self.rows
    }

    pub(super) fn rows_mut(&mut self) -> &mut [Record] {
        &mut self.rows
    }

    /// Takes in that the client sees all of snapshot `number`, in which the same entities are as in
    /// those from `same_since` on, if it saw all of one of these: then there is nothing to do.
    pub(super) fn is_aligned(&mut self, number: u32, same_since: u32) -> bool {
        let is_aligned = self.aligned.is_some_and(|aligned| aligned >= same_since);
        if is_aligned {
            self.aligned = Some(number);
        }
        is_aligned
    }

    /// Takes in what [`Records::merge`] made of all of snapshot `number`.
    pub(super) fn align(&mut self, number: u32, snapshot: &QuantizedSnapshot) {
        let is_aligned = self.rows.len() == snapshot.len()
            && self
                .rows
                .iter()
                .all(|record| !record.is_ghost && record.hidden == 0);
        self.aligned = is_aligned.then_some(number);
        self.standing.clear();
        if is_aligned {
            self.standing.extend(self.rows.iter().map(Record::standing));
        }
    }

    /// Lists the records that are about more than what the client is known to hold, and maybe some
    /// others; `changes` says when each entity of the newest snapshot changed, as
    /// [`stands`] has it. All of them if they are not those of its entities.
    pub(super) fn list_open(&self, changes: &[u32], open: &mut Vec<u32>) {
        const LOT: usize = 8;
        open.clear();
        if self.aligned.is_none() || self.standing.len() != changes.len() {
            open.extend((0..).zip(&self.rows).map(|(at, _)| at));
            return;
        }
        let (standing, rest) = self.standing.as_chunks::<LOT>();
        let (changes, rest_changes) = changes.as_chunks::<LOT>();
        let mut at = 0;
        for (standing, changes) in standing.iter().zip(changes) {
            let mut is_open = [false; LOT];
            for ((is_open, standing), changes) in is_open.iter_mut().zip(standing).zip(changes) {
                *is_open = standing < changes;
            }
            if is_open != [false; LOT] {
                open.extend((at..).zip(is_open).filter_map(|(at, is)| is.then_some(at)));
            }
            at += 8;
        }
        let rest = (at..).zip(rest.iter().zip(rest_changes));
        open.extend(
            rest.filter_map(|(at, (standing, changes))| (standing < changes).then_some(at)),
        );
    }

    /// The record at a place turned out to be of something that the client holds.
    pub(super) fn close(&mut self, at: u32) {
        let record = &mut self.rows[at as usize];
        record.debt = 0;
        record.is_lost = false;
        if let Some(standing) = self.standing.get_mut(at as usize) {
            *standing = record.standing();
        }
    }

    /// Takes in what the client sees of the snapshot at `now`.
    pub(super) fn merge(&mut self, snapshot: &QuantizedSnapshot, sight: &Sight, now: Tick) {
        self.aligned = None;
        self.standing.clear();
        let mut old = core::mem::replace(&mut self.rows, core::mem::take(&mut self.spare));
        self.rows.clear();
        let heads = snapshot.heads();
        let mut rest = old.drain(..).peekable();
        for entry in sight.entries(snapshot) {
            let id = heads[entry.index as usize].id;
            while let Some(gone) = rest.next_if(|record| record.id < id) {
                self.rows.extend(without_sight(gone, now));
            }
            let mut record = rest
                .next_if(|record| record.id == id)
                .unwrap_or_else(|| Record::new(id, entry.hidden, entry.index, now));
            if record.is_ghost || record.hidden != entry.hidden {
                record.restart(now);
                record.is_ghost = false;
                record.hidden = entry.hidden;
            }
            record.index = entry.index;
            self.rows.push(record);
        }
        for gone in rest {
            self.rows.extend(without_sight(gone, now));
        }
        self.spare = old;
    }

    /// Everything that is in view may have been sent.
    pub(super) fn touch_all(&mut self) {
        for record in &mut self.rows {
            record.is_touched = true;
        }
    }

    /// The values of snapshot `tick` of these entities, ascending, arrived.
    pub(super) fn ack(&mut self, ids: &[NetId], tick: Tick, snapshot_ticks: u32) {
        self.each(ids, |record| record.ack(tick, snapshot_ticks));
    }

    /// What was sent of these entities at snapshot `tick` is lost.
    pub(super) fn lose(&mut self, ids: &[NetId], tick: Tick) {
        self.each(ids, |record| {
            if record.flight == Some(tick) {
                record.flight = None;
                record.debt = record.debt.saturating_add(record.staked);
                record.staked = 0;
                record.is_lost = true;
            }
        });
    }

    fn each(&mut self, ids: &[NetId], mut act: impl FnMut(&mut Record)) {
        let mut from = 0;
        for &id in ids {
            // The next is near: twice as far each time, then between the last two places.
            let rest = &self.rows[from..];
            let mut end = 1;
            while rest.get(end - 1).is_some_and(|record| record.id < id) {
                end *= 2;
            }
            let window = end / 2..end.min(rest.len());
            let start = from + window.start;
            match rest[window].binary_search_by_key(&id, |record| record.id) {
                Ok(at) => {
                    let record = &mut self.rows[start + at];
                    act(record);
                    if let Some(standing) = self.standing.get_mut(start + at) {
                        *standing = record.standing();
                    }
                    from = start + at + 1;
                }
                Err(at) => from = start + at,
            }
        }
    }
}

/// What becomes of a record whose entity is not in view.
fn without_sight(mut record: Record, now: Tick) -> Option<Record> {
    if record.is_ghost {
        // Once the client knows that it is gone, there is nothing left to tell.
        return record.acked.is_none().then_some(record);
    }
    record.restart(now);
    record.is_ghost = true;
    record.is_touched.then_some(record)
}
