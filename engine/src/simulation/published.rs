//! What was published of a component kind, so that the next time only changes are written.
//!
//! Bevy's change ticks say which values may have changed. A system that writes state around change
//! detection writes what clients of state-sync never see.

use std::sync::Arc;

use bevy_ecs::change_detection::Tick;
use phalanx_netcode::id::NetId;
use phalanx_netcode::state::KindRows;

use super::structure::{Structure, count};

/// Values are looked at in blocks of this many: most blocks have not changed at all.
const BLOCK: usize = 64;

/// The canonical rows of one kind as they were published last.
pub(super) struct Published {
    /// Bytes of every row, where that is the same for all values.
    row_bytes: Option<usize>,
    /// By id ascending.
    rows: KindRows,
    /// The ids in the order of the query.
    ids: Vec<NetId>,
    /// Where each of `ids` stands in `rows`; empty where the query goes by id anyway.
    targets: Vec<u32>,
    /// The inverse of `targets`.
    order: Vec<u32>,
    /// The structure that `ids` belongs to.
    structure: Option<Arc<Structure>>,
    /// Rows in the order of the query, while they are read.
    read: KindRows,
    /// One row.
    row: Vec<u8>,
}

impl Published {
    pub(super) fn new(row_bytes: Option<usize>) -> Self {
        Self {
            row_bytes,
            rows: KindRows::default(),
            ids: Vec::new(),
            targets: Vec::new(),
            order: Vec::new(),
            structure: None,
            read: KindRows::default(),
            row: Vec::new(),
        }
    }

    /// Writes changes only, if the same entities lie in the same rows as last time.
    pub(super) fn changes(
        &mut self,
        structure: &Arc<Structure>,
        since: Option<Tick>,
    ) -> Option<Changes<'_>> {
        let since = since?;
        let is_same = self
            .structure
            .as_ref()
            .is_some_and(|known| Arc::ptr_eq(known, structure));
        is_same.then_some(Changes {
            published: self,
            since,
            first: 0,
            are_written: true,
        })
    }

    /// Takes all rows anew: they are pushed in the order of the query, whatever that is.
    pub(super) fn begin(&mut self) -> &mut KindRows {
        self.structure = None;
        self.read.clear();
        &mut self.read
    }

    /// Brings the rows that were read into canonical order. `structure` says where they lie, if it
    /// tells when that changes.
    pub(super) fn finish(&mut self, structure: Option<&Arc<Structure>>) {
        if self.ids != self.read.ids {
            self.ids.clone_from(&self.read.ids);
            self.targets.clear();
            self.order.clear();
            if !self.ids.is_sorted() {
                self.order.extend(0..count(self.ids.len()));
                // Tables are sorted mostly, and a stable sort makes use of that.
                self.order.sort_by_key(|&row| self.ids[row as usize]);
                self.targets.resize(self.ids.len(), 0);
                for (target, &row) in (0..).zip(&self.order) {
                    self.targets[row as usize] = target;
                }
            }
        }
        if self.order.is_empty() {
            core::mem::swap(&mut self.rows, &mut self.read);
        } else {
            self.rows.clear();
            for &row in &self.order {
                let row = row as usize;
                let bytes = self.read.row(row);
                self.rows
                    .push(self.ids[row], |out| out.extend_from_slice(bytes));
            }
        }
        self.structure = structure.cloned();
    }

    /// Copies the rows into `out`, whose memory is used again.
    pub(super) fn copy_into(&self, out: &mut KindRows) {
        out.ids.clone_from(&self.rows.ids);
        out.ends.clone_from(&self.rows.ends);
        out.bytes.clone_from(&self.rows.bytes);
    }
}

/// Writes what changed since the last time.
pub(super) struct Changes<'a> {
    published: &'a mut Published,
    since: Tick,
    /// How many values came before, in the order of the query.
    first: usize,
    are_written: bool,
}

impl Changes<'_> {
    /// Takes the next values, which changed last at `ticks`. `write` appends the bytes of one.
    pub(super) fn take(&mut self, ticks: &[Tick], now: Tick, write: impl Fn(usize, &mut Vec<u8>)) {
        let Published {
            row_bytes,
            rows,
            targets,
            row,
            ..
        } = &mut *self.published;
        for (block, ticks) in ticks.chunks(BLOCK).enumerate() {
            let is_changed = ticks.iter().fold(false, |changed, tick| {
                changed | tick.is_newer_than(self.since, now)
            });
            if !is_changed {
                continue;
            }
            let Some(len) = *row_bytes else {
                // The rows behind it may move.
                self.are_written = false;
                return;
            };
            for (place, tick) in ticks.iter().enumerate() {
                if tick.is_newer_than(self.since, now) {
                    let place = block * BLOCK + place;
                    row.clear();
                    write(place, row);
                    let place = self.first + place;
                    let target = targets.get(place).map_or(place, |&target| target as usize);
                    rows.bytes[target * len..(target + 1) * len].copy_from_slice(row);
                }
            }
        }
        self.first += ticks.len();
    }

    /// Whether every change is written; otherwise all rows must be read anew.
    pub(super) fn are_written(&self) -> bool {
        self.are_written
    }
}
