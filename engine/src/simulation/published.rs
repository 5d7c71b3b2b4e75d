//! What was published of a component kind, so that the next time only changes are written.
//!
//! Bevy's change ticks say which values may have changed. A system that writes state around change
//! detection writes what clients of state-sync never see.

use std::sync::Arc;

use bevy_ecs::change_detection::Tick;
use bevy_ecs::world::World;
use phalanx_netcode::state::KindRows;

use super::structure::{NOWHERE, Structure, count};
use crate::net_id::{NetId, NetIndex};

/// Values are looked at in blocks of this many: most blocks have not changed at all.
const BLOCK: usize = 64;
/// A block with as many changes is written as a whole.
const MANY: usize = 16;

/// A moment of the world that is published.
pub(super) struct Moment<'a> {
    pub(super) world: &'a World,
    pub(super) structure: &'a Arc<Structure>,
    /// Of each place of the structure, how many entities have a smaller id.
    pub(super) ranks: &'a [u32],
    /// Values that have not changed after this are as they were published last; without it,
    /// nothing is known.
    pub(super) since: Option<Tick>,
    /// Now.
    pub(super) now: Tick,
}

/// The ranks of a structure's places, kept as long as the structure stays.
#[derive(Default)]
pub(super) struct Ranks {
    structure: Arc<Structure>,
    ranks: Vec<u32>,
}

impl Ranks {
    /// The ranks of `structure`, which is that of `world`.
    pub(super) fn of(&mut self, world: &World, structure: &Arc<Structure>) -> &[u32] {
        if !Arc::ptr_eq(&self.structure, structure) {
            self.structure = Arc::clone(structure);
            self.ranks.clear();
            self.ranks.resize(structure.ids().len(), 0);
            for (rank, (_id, entity)) in (0..).zip(world.resource::<NetIndex>().iter()) {
                self.ranks[structure.place(world, entity) as usize] = rank;
            }
        }
        &self.ranks
    }
}

/// The canonical rows of one kind as they were published last.
pub(super) struct Published {
    /// Bytes of every row, where that is the same for all values.
    row_bytes: Option<usize>,
    /// By id ascending.
    rows: KindRows,
    /// The structure that `targets` belongs to.
    structure: Option<Arc<Structure>>,
    /// Where each value stands in `rows`, in the order of the query.
    targets: Vec<u32>,
    /// Whether `targets` counts from 0 without gaps.
    is_in_order: bool,
    /// Rows in the order of the query, where they are not written in place.
    read: KindRows,
    /// Rows of one block, or memory for counting.
    block: Vec<u8>,
    counts: Vec<u32>,
}

impl Published {
    pub(super) fn new(row_bytes: Option<usize>) -> Self {
        Self {
            row_bytes,
            rows: KindRows::default(),
            structure: None,
            targets: Vec::new(),
            is_in_order: true,
            read: KindRows::default(),
            block: Vec::new(),
            counts: Vec::new(),
        }
    }

    /// Whether rows still lie where they lay last time.
    fn knows(&self, structure: &Arc<Structure>) -> bool {
        let known = self.structure.as_ref();
        known.is_some_and(|known| Arc::ptr_eq(known, structure))
    }

    /// Begins a publication of a kind in tables. `runs` says at which places its runs of values
    /// start, in the order of the query; it is not asked if that is known.
    pub(super) fn begin<'a, R: Iterator<Item = (u32, &'a [NetId])>>(
        &mut self,
        moment: &Moment<'_>,
        runs: impl FnOnce() -> R,
    ) -> Writing<'_> {
        let is_known = self.knows(moment.structure);
        if !is_known {
            self.arrange(moment.ranks, runs());
            self.structure = Some(Arc::clone(moment.structure));
        }
        let since = moment.since.filter(|_| is_known);
        Writing {
            since,
            now: moment.now,
            first: 0,
            is_stale: since.is_none() && self.row_bytes.is_none(),
            published: self,
        }
    }

    fn arrange<'a>(&mut self, ranks: &[u32], runs: impl Iterator<Item = (u32, &'a [NetId])>) {
        self.targets.clear();
        self.read.ids.clear();
        for (start, ids) in runs {
            let start = start as usize;
            self.targets
                .extend_from_slice(&ranks[start..start + ids.len()]);
            self.read.ids.extend(ids.iter().map(|id| id.raw()));
        }
        if self.targets.len() < ranks.len() {
            // Ranks count entities without the kind too.
            self.counts.clear();
            self.counts.resize(ranks.len(), 0);
            for &rank in &self.targets {
                self.counts[rank as usize] = 1;
            }
            let mut before = 0;
            for count in &mut self.counts {
                before += core::mem::replace(count, before);
            }
            for target in &mut self.targets {
                *target = self.counts[*target as usize];
            }
        }
        self.place_ids();
        if let Some(len) = self.row_bytes {
            let rows = self.targets.len();
            self.rows.bytes.resize(rows * len, 0);
            self.rows.ends.clear();
            let ends = (1..=rows).map(|row| count(row * len));
            self.rows.ends.extend(ends);
        }
    }

    /// Brings the ids into the order of `targets`.
    fn place_ids(&mut self) {
        let targets = self.targets.iter().zip(0..);
        self.is_in_order = targets.fold(true, |all, (&target, place)| all & (target == place));
        self.rows.ids.clone_from(&self.read.ids);
        if !self.is_in_order {
            for (&target, &id) in self.targets.iter().zip(&self.read.ids) {
                self.rows.ids[target as usize] = id;
            }
        }
    }

    /// Reads all rows anew, in the order of the query, whatever that is.
    pub(super) fn read(&mut self) -> &mut KindRows {
        self.read.clear();
        &mut self.read
    }

    /// Brings rows that were read into canonical order, when [`Published::begin`] did not say which.
    pub(super) fn sort(&mut self) {
        self.structure = None;
        let mut order: Vec<u32> = (0..count(self.read.len())).collect();
        order.sort_by_key(|&row| self.read.ids[row as usize]);
        self.targets.clear();
        self.targets.resize(order.len(), 0);
        for (target, row) in (0..).zip(order) {
            self.targets[row as usize] = target;
        }
        self.place_ids();
    }

    /// Copies the rows that were read to their places.
    pub(super) fn place_read(&mut self) {
        if self.is_in_order {
            core::mem::swap(&mut self.rows, &mut self.read);
            return;
        }
        let order = &mut self.counts;
        order.clear();
        order.resize(self.targets.len(), NOWHERE);
        for (&target, row) in self.targets.iter().zip(0..) {
            order[target as usize] = row;
        }
        self.rows.clear();
        for &row in &*order {
            let (id, bytes) = (self.read.ids[row as usize], self.read.row(row as usize));
            self.rows.push(id, |out| out.extend_from_slice(bytes));
        }
    }

    /// Copies the rows into `out`, whose memory is used again.
    pub(super) fn copy_into(&self, out: &mut KindRows) {
        out.ids.clone_from(&self.rows.ids);
        out.ends.clone_from(&self.rows.ends);
        out.bytes.clone_from(&self.rows.bytes);
    }
}

/// A publication of a kind in tables.
pub(super) struct Writing<'a> {
    published: &'a mut Published,
    since: Option<Tick>,
    now: Tick,
    /// How many values came before, in the order of the query.
    first: usize,
    is_stale: bool,
}

impl Writing<'_> {
    /// Takes the next values, which changed last at `ticks`. `write` appends the bytes of one.
    pub(super) fn take<T>(
        &mut self,
        values: &[T],
        ticks: &[Tick],
        write: impl Fn(&T, &mut Vec<u8>),
    ) {
        let blocks = values.chunks(BLOCK).zip(ticks.chunks(BLOCK));
        for (values, ticks) in blocks {
            let changes = self.since.map_or(values.len(), |since| {
                let changed = ticks.iter();
                changed
                    .map(|tick| usize::from(tick.is_newer_than(since, self.now)))
                    .sum()
            });
            if changes > 0 {
                let Some(len) = self.published.row_bytes else {
                    // The rows behind it may move.
                    self.is_stale = true;
                    return;
                };
                if changes >= MANY.min(values.len()) {
                    self.write_all(values, len, &write);
                } else {
                    self.write_changed(values, ticks, len, &write);
                }
            }
            self.first += values.len();
        }
    }

    fn write_all<T>(&mut self, values: &[T], len: usize, write: impl Fn(&T, &mut Vec<u8>)) {
        let Published {
            rows,
            targets,
            is_in_order,
            block,
            ..
        } = &mut *self.published;
        block.clear();
        values.iter().for_each(|value| write(value, block));
        if *is_in_order {
            let start = self.first * len;
            rows.bytes[start..start + block.len()].copy_from_slice(block);
        } else if len > 0 {
            let targets = &targets[self.first..self.first + values.len()];
            for (row, &target) in block.chunks_exact(len).zip(targets) {
                let start = target as usize * len;
                rows.bytes[start..start + len].copy_from_slice(row);
            }
        }
    }

    fn write_changed<T>(
        &mut self,
        values: &[T],
        ticks: &[Tick],
        len: usize,
        write: impl Fn(&T, &mut Vec<u8>),
    ) {
        let Published {
            rows,
            targets,
            block,
            ..
        } = &mut *self.published;
        let targets = &targets[self.first..];
        for ((value, tick), &target) in values.iter().zip(ticks).zip(targets) {
            if self
                .since
                .is_none_or(|since| tick.is_newer_than(since, self.now))
            {
                block.clear();
                write(value, block);
                let start = target as usize * len;
                rows.bytes[start..start + len].copy_from_slice(block);
            }
        }
    }

    /// Whether rows must be read anew, since their lengths may have changed.
    pub(super) fn is_stale(&self) -> bool {
        self.is_stale
    }
}
