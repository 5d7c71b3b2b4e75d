//! What is held as of one snapshot.

use std::sync::Arc;

use super::Facts;
use crate::id::NetId;
use crate::state::{EntityRef, QuantizedSnapshot};
use crate::tick::Tick;

/// How all entities of a range are.
#[derive(Debug)]
pub(super) struct RangeFact {
    /// Where it begins; [`NetId::NONE`] at the beginning of all.
    pub(super) from: NetId,
    /// Where the next begins; `None` at the end of all.
    pub(super) next: Option<NetId>,
    pub(super) rows: QuantizedSnapshot,
}

/// One snapshot: the facts about it, and what is held as of it.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) number: u32,
    pub(super) tick: Tick,
    /// Which bodies came, one bit each.
    pub(super) bodies: u8,
    /// The last body, once it came.
    pub(super) last: Option<u8>,
    /// Whether everything in view is known. Then there are no facts left, and older snapshots do
    /// not matter to this one.
    pub(super) is_complete: bool,
    pub(super) ranges: Vec<RangeFact>,
    rows: QuantizedSnapshot,
    gone: Vec<NetId>,
    /// What is held.
    pub(super) view: Arc<QuantizedSnapshot>,
    /// Which snapshot told of each entity last; empty if this one told of all.
    pub(super) told: Vec<Tick>,
}

impl Held {
    /// A snapshot of which nothing is known yet.
    pub(super) fn new(number: u32, tick: Tick) -> Self {
        Self {
            number,
            tick,
            bodies: 0,
            last: None,
            is_complete: false,
            ranges: Vec::new(),
            rows: QuantizedSnapshot::default(),
            gone: Vec::new(),
            view: Arc::default(),
            told: Vec::new(),
        }
    }

    /// All of it is known.
    pub(super) fn complete(&mut self, view: Arc<QuantizedSnapshot>) {
        self.view = view;
        self.told = Vec::new();
        self.forget_facts();
    }

    /// Whether `facts` may come next to those that are there: all of one kind, and no entity in two
    /// ranges.
    pub(super) fn agrees_with(&self, facts: &Facts) -> bool {
        match facts {
            Facts::Same(_) => true,
            Facts::Some { .. } => self.ranges.is_empty(),
            Facts::Range(new) => {
                let is_apart = |old: &RangeFact| {
                    old.next.is_some_and(|next| next <= new.from)
                        || new.next.is_some_and(|next| next <= old.from)
                };
                self.rows.is_empty() && self.gone.is_empty() && self.ranges.iter().all(is_apart)
            }
        }
    }

    fn forget_facts(&mut self) {
        self.is_complete = true;
        self.ranges = Vec::new();
        self.rows = QuantizedSnapshot::default();
        self.gone = Vec::new();
    }

    /// Some entities are like `rows`, and those of `gone` are not in view; both ascend.
    pub(super) fn tell(&mut self, rows: QuantizedSnapshot, gone: &[NetId]) {
        self.gone.extend_from_slice(gone);
        self.gone.sort_unstable();
        self.gone.dedup();
        if self.rows.is_empty() {
            self.rows = rows;
            return;
        }
        let mut both = QuantizedSnapshot::new(self.tick);
        let mut olds = self.rows.entities().peekable();
        for row in rows.entities() {
            while let Some(old) = olds.next_if(|old| old.id < row.id) {
                both.push_entity(old);
            }
            olds.next_if(|old| old.id == row.id);
            both.push_entity(row);
        }
        for old in olds {
            both.push_entity(old);
        }
        self.rows = both;
    }

    /// Bytes that facts and bookkeeping take.
    pub(super) fn facts_memory(&self) -> usize {
        let ranges: usize = self.ranges.iter().map(|range| range.rows.memory()).sum();
        ranges + self.rows.memory() + size_of_val(&*self.gone) + size_of_val(&*self.told)
    }

    /// Computes what is held from what was held as of the snapshot before, and from the facts.
    pub(super) fn build_on(&mut self, before: Option<&Self>) {
        let mut build = Build {
            tick: self.tick,
            view: QuantizedSnapshot::new(self.tick),
            told: Vec::with_capacity(before.map_or(0, |before| before.view.len())),
        };
        self.ranges.sort_unstable_by_key(|range| range.from);
        let mut rows = self.rows.entities().peekable();
        let mut gone = self.gone.iter().copied().peekable();
        let mut ranges = self.ranges.iter().peekable();
        let mut new_rows = ranges.peek().map(|range| range.rows.entities().peekable());
        let count = before.map_or(0, |before| before.view.len());
        for at in 0..count {
            let Some(before) = before else { break };
            let old = before.view.entity(at);
            let told = if before.told.is_empty() {
                before.tick
            } else {
                before.told[at]
            };
            // Ranges that end before this entity.
            while let Some(range) = ranges.next_if(|range| range.next.is_some_and(|n| n <= old.id))
            {
                let rest = new_rows.take();
                rest.into_iter()
                    .flatten()
                    .for_each(|row| build.fact(row, None));
                let _ = range;
                new_rows = ranges.peek().map(|range| range.rows.entities().peekable());
            }
            if let Some(range) = ranges.peek()
                && range.from <= old.id
            {
                let Some(new_rows) = &mut new_rows else {
                    continue;
                };
                while let Some(row) = new_rows.next_if(|row| row.id < old.id) {
                    build.fact(row, None);
                }
                if let Some(row) = new_rows.next_if(|row| row.id == old.id) {
                    build.fact(row, Some(old));
                }
                continue;
            }
            while let Some(row) = rows.next_if(|row| row.id < old.id) {
                build.fact(row, None);
            }
            while gone.next_if(|&id| id < old.id).is_some() {}
            if let Some(row) = rows.next_if(|row| row.id == old.id) {
                build.fact(row, Some(old));
            } else if gone.next_if(|&id| id == old.id).is_none() {
                build.view.push_entity(old);
                build.told.push(told);
            }
        }
        rows.for_each(|row| build.fact(row, None));
        new_rows
            .into_iter()
            .flatten()
            .for_each(|row| build.fact(row, None));
        ranges.skip(1).for_each(|range| {
            range.rows.entities().for_each(|row| build.fact(row, None));
        });
        self.view = Arc::new(build.view);
        self.told = build.told;
        if self.is_all_told() {
            self.told = Vec::new();
            self.forget_facts();
        }
    }

    /// Whether all bodies came, and together say everything.
    fn is_all_told(&self) -> bool {
        let Some(last) = self.last else {
            return false;
        };
        let all = u8::MAX >> (u8::BITS - 1 - u32::from(last.min(7)));
        if self.bodies & all != all {
            return false;
        }
        let mut from = Some(NetId::NONE);
        for range in &self.ranges {
            if Some(range.from) != from {
                return false;
            }
            from = range.next;
        }
        self.ranges.is_empty() || from.is_none()
    }
}

/// A view in the making.
struct Build {
    tick: Tick,
    view: QuantizedSnapshot,
    told: Vec<Tick>,
}

impl Build {
    /// An entity is like `row`; it was like `old`.
    fn fact(&mut self, row: EntityRef<'_>, old: Option<EntityRef<'_>>) {
        let changed = match old {
            Some(old) if old.same_value(&row) => old.changed,
            Some(_) | None => self.tick,
        };
        self.view.push_entity(EntityRef { changed, ..row });
        self.told.push(self.tick);
    }
}
