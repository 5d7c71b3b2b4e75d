//! Exact snapshots to quantized ones.

use core::ops::Range;

use crate::id::NetId;
use crate::state::snapshot::{KindRows, Snapshot};
use crate::state::wire_form::{KindLayout, Shapes, WireLayout};

use super::{EntityRef, QuantizedSnapshot, ShapeId};

/// Merges the rows of a snapshot's kinds into one row of lanes per entity.
///
/// It has no state but scratch memory: what it makes depends on its arguments only. In a steady
/// session it allocates nothing.
#[derive(Debug, Default)]
pub struct Quantizer {
    columns: Vec<Column>,
    /// The rows of the present entity, and their kinds.
    rows: Vec<Row>,
    kinds: Vec<u16>,
    /// The lanes of one row.
    lanes: Vec<i32>,
}

/// Rows that are compared at once.
const BLOCK: usize = 16;

/// What [`Quantizer::quantize`] found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuantizeReport {
    /// Entities that are new or have another value than before. If this and `removed` are 0, both
    /// snapshots have the same entities with the same values.
    pub changed: usize,
    /// Entities that were there before.
    pub removed: usize,
    /// Values beyond the bounds of their wire form, in rows that were quantized anew.
    pub clamped: u64,
    /// Entities left out, because the table of shapes is full.
    pub left_out: usize,
}

/// Where the merge is in the rows of one kind.
#[derive(Clone, Copy, Debug)]
struct Column {
    kind: u16,
    /// Whether all rows are as before.
    is_same: bool,
    has_opaque: bool,
    /// The next row, and how many there are.
    next: usize,
    len: usize,
    /// Whose row the next one is; the greatest id at the end.
    key: NetId,
    /// The first row of the snapshot before that is not behind `key`.
    old: usize,
}

/// A row of the present entity.
#[derive(Clone, Copy, Debug)]
struct Row {
    index: usize,
    /// Whether its lanes can be taken from the snapshot before.
    is_same: bool,
    /// Whether it has lanes only, and the rest of the above holds.
    can_copy: bool,
}

/// The id that stands for the end of a column.
const END: NetId = NetId::from_bits(u64::MAX);

impl Quantizer {
    /// Makes `out` the quantized form of `now`, a state of the schema that `layout` is of.
    ///
    /// `before` is an earlier snapshot with its quantized form in the same `shapes`. Rows that did
    /// not change since then are copied; entities whose quantized value did not change keep their
    /// [`EntityHead::changed`](super::EntityHead::changed).
    ///
    /// # Panics
    /// If `now` is no state of the schema; see [`Snapshot::validate`].
    pub fn quantize(
        &mut self,
        layout: &WireLayout,
        shapes: &mut Shapes,
        now: &Snapshot,
        before: Option<(&Snapshot, &QuantizedSnapshot)>,
        out: &mut QuantizedSnapshot,
    ) -> QuantizeReport {
        self.start(layout, now, before.map(|(exact, _)| exact));
        if let Some((exact, quantized)) = before
            && let Some(report) = self.revise(layout, shapes, now, (exact, quantized), out)
        {
            return report;
        }
        out.clear(now.tick);
        let none = QuantizedSnapshot::default();
        let (old_exact, old) =
            before.map_or((None, &none), |(exact, quantized)| (Some(exact), quantized));
        let mut report = QuantizeReport::default();
        let mut old_entities = old.entities().peekable();
        let mut last_shape = None;
        while let Some(id) = self.next_entity(now, old_exact) {
            while old_entities.next_if(|old| old.id < id).is_some() {
                report.removed += 1;
            }
            let old = old_entities.next_if(|old| old.id == id);
            let near = old.map(|old| old.shape).or(last_shape);
            let Some(shape) = self.shape(layout, shapes, near) else {
                report.left_out += 1;
                report.removed += usize::from(old.is_some());
                continue;
            };
            last_shape = Some(shape);
            match old.filter(|old| old.shape == shape) {
                Some(old) if self.rows.iter().all(|row| row.is_same) => out.push_entity(old),
                alike => {
                    let starts = &shapes.get(shape).starts;
                    self.write(layout, starts, now, alike, (id, shape), out, &mut report);
                }
            }
        }
        report.removed += old_entities.count();
        report
    }

    /// All of [`Quantizer::quantize`] where entities have the same kinds as before, in rows that are
    /// as long: a copy of the quantized form, and the rows that differ. Otherwise `None`; then `out`
    /// has no meaning.
    fn revise(
        &mut self,
        layout: &WireLayout,
        shapes: &Shapes,
        now: &Snapshot,
        (before, quantized): (&Snapshot, &QuantizedSnapshot),
        out: &mut QuantizedSnapshot,
    ) -> Option<QuantizeReport> {
        let alike = |column: &Column| {
            let kind = usize::from(column.kind);
            let (now, before) = (&now.kinds[kind], &before.kinds[kind]);
            !column.has_opaque && now.ids == before.ids && now.ends == before.ends
        };
        let mut columns = self.columns.iter().filter(|column| !column.is_same);
        if !columns.all(alike) {
            return None;
        }
        out.clone_from(quantized);
        out.tick = now.tick;
        let mut report = QuantizeReport::default();
        for column in self.columns.iter().filter(|column| !column.is_same) {
            let kind = usize::from(column.kind);
            let (rows, before) = (&now.kinds[kind], &before.kinds[kind]);
            let layout: &KindLayout = layout.kind(column.kind)?;
            let mut index = 0;
            let mut start: Option<(ShapeId, usize)> = None;
            for row in differing(rows, before) {
                let id = rows.ids[row];
                index += out.ids[index..]
                    .iter()
                    .position(|&other| other == id.bits())?;
                let shape = out.heads[index].shape;
                let first = match start {
                    Some((known, first)) if known == shape => first,
                    _ => {
                        let shape = shapes.get(shape);
                        let place = shape.kinds.binary_search(&column.kind).ok()?;
                        shape.starts[place] as usize
                    }
                };
                start = Some((shape, first));
                self.lanes.clear();
                layout
                    .quantize(
                        rows.row(row),
                        &mut self.lanes,
                        &mut out.opaque,
                        &mut report.clamped,
                    )
                    .expect("the rows of a state are those of its schema");
                let first = out.lanes_of(index).start + first;
                let lanes = out.lanes.get_mut(first..first + self.lanes.len())?;
                if *lanes != *self.lanes {
                    lanes.copy_from_slice(&self.lanes);
                    let changed = &mut out.heads[index].changed;
                    report.changed += usize::from(*changed != now.tick);
                    *changed = now.tick;
                }
            }
        }
        Some(report)
    }

    fn start(&mut self, layout: &WireLayout, now: &Snapshot, before: Option<&Snapshot>) {
        self.columns.clear();
        self.columns.extend(layout.kinds().map(|kind| {
            let rows = &now.kinds[usize::from(kind.kind)];
            Column {
                kind: kind.kind,
                is_same: before.is_some_and(|old| old.kinds[usize::from(kind.kind)] == *rows),
                has_opaque: kind.has_opaque(),
                next: 0,
                len: rows.len(),
                key: rows.ids.first().copied().unwrap_or(END),
                old: 0,
            }
        }));
    }

    /// The next entity by NetId. Its rows are taken from the columns.
    fn next_entity(&mut self, now: &Snapshot, before: Option<&Snapshot>) -> Option<NetId> {
        let id = self.columns.iter().map(|column| column.key).min()?;
        self.rows.clear();
        self.kinds.clear();
        for column in &mut self.columns {
            if column.key != id || column.next == column.len {
                continue;
            }
            let kind = usize::from(column.kind);
            let rows = &now.kinds[kind];
            let is_same = column.is_same
                || before.is_some_and(|before| {
                    column.skip_old(&before.kinds[kind], id)
                        && before.kinds[kind].row(column.old) == rows.row(column.next)
                });
            self.kinds.push(column.kind);
            self.rows.push(Row {
                index: column.next,
                is_same,
                can_copy: is_same && !column.has_opaque,
            });
            column.next += 1;
            column.key = rows.ids.get(column.next).copied().unwrap_or(END);
        }
        (!self.rows.is_empty()).then_some(id)
    }

    /// The shape of the present entity, which is probably `near`.
    fn shape(
        &self,
        layout: &WireLayout,
        shapes: &mut Shapes,
        near: Option<ShapeId>,
    ) -> Option<ShapeId> {
        if let Some(near) = near
            && *shapes.get(near).kinds == *self.kinds
        {
            return Some(near);
        }
        shapes.intern(layout, &self.kinds).ok()
    }

    /// Adds the present entity. `old` is the same entity before, if it had the same kinds.
    #[expect(clippy::too_many_arguments, reason = "the parts of one merge")]
    fn write(
        &self,
        layout: &WireLayout,
        starts: &[u32],
        now: &Snapshot,
        old: Option<EntityRef<'_>>,
        (id, shape): (NetId, ShapeId),
        out: &mut QuantizedSnapshot,
        report: &mut QuantizeReport,
    ) {
        out.push(id, shape, now.tick, |lanes, opaque| {
            let parts = starts.windows(2).zip(self.kinds.iter().zip(&self.rows));
            for (range, (&kind, row)) in parts {
                if let Some(old) = old
                    && row.can_copy
                {
                    lanes.extend_from_slice(&old.lanes[range[0] as usize..range[1] as usize]);
                    continue;
                }
                let layout: &KindLayout = layout.kind(kind).expect("a column's kind has a layout");
                let row = now.kinds[usize::from(kind)].row(row.index);
                layout
                    .quantize(row, lanes, opaque, &mut report.clamped)
                    .expect("the rows of a state are those of its schema");
            }
        });
        let index = out.len() - 1;
        match old {
            Some(old) if old.same_value(&out.entity(index)) => {
                out.heads[index].changed = old.changed;
            }
            _ => report.changed += 1,
        }
    }
}

/// The rows of `now` that differ from those of `before`, which have the same ends.
fn differing(now: &KindRows, before: &KindRows) -> impl Iterator<Item = usize> {
    let start = |row: usize| row.checked_sub(1).map_or(0, |last| now.ends[last] as usize);
    let differs = move |rows: &Range<usize>| {
        let bytes = start(rows.start)..start(rows.end);
        now.bytes[bytes.clone()] != before.bytes[bytes]
    };
    let blocks = (0..now.len()).step_by(BLOCK);
    blocks
        .map(|first| first..(first + BLOCK).min(now.len()))
        .filter(differs)
        .flatten()
        .filter(move |&row| differs(&(row..row + 1)))
}

impl Column {
    /// Goes on to the row of `id` in the snapshot before; whether there is one.
    fn skip_old(&mut self, before: &KindRows, id: NetId) -> bool {
        while before.ids.get(self.old).is_some_and(|&old| old < id) {
            self.old += 1;
        }
        before.ids.get(self.old) == Some(&id)
    }
}

#[cfg(test)]
mod tests;
