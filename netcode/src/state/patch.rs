//! A change of state that an authority asks for: what a state-sync client takes over.

use crate::id::NetId;
use crate::tick::Tick;
use crate::wire::bytes::DecodeError;

use super::quantized::{EntityRef, QuantizedSnapshot};
use super::schema::{Schema, Visibility};
use super::snapshot::{KindRows, Snapshot};
use super::wire_form::{Shapes, WireLayout};

/// Rows to overwrite and to remove, in the exact form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patch {
    /// The tick of the state after it.
    pub tick: Tick,
    /// Whether every entity that it does not mention goes: the first patch of a client.
    pub is_whole: bool,
    /// Entities that go, ascending.
    pub removed: Vec<NetId>,
    /// One entry per kind, in the order of the schema; empty for kinds that do not change.
    pub kinds: Vec<PatchRows>,
}

/// What changes in one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PatchRows {
    /// Rows that are inserted or overwritten. An entity that does not exist is spawned.
    pub rows: KindRows,
    /// Entities that lose this kind and stay, ascending.
    pub removed: Vec<NetId>,
}

impl Patch {
    /// Forgets everything and keeps the memory.
    fn clear(&mut self, tick: Tick, kinds: usize) {
        self.tick = tick;
        self.is_whole = false;
        self.removed.clear();
        self.kinds.resize_with(kinds, PatchRows::default);
        for kind in &mut self.kinds {
            kind.rows.clear();
            kind.removed.clear();
        }
    }

    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let is_empty = |kind: &PatchRows| kind.rows.is_empty() && kind.removed.is_empty();
        !self.is_whole && self.removed.is_empty() && self.kinds.iter().all(is_empty)
    }

    /// Makes `out` what leads from `before` to `after`, both quantized by `layout` with `shapes`:
    /// rows that differ, in the exact form that their quantized values stand for, and what is gone.
    /// Without `before` it is whole.
    ///
    /// # Errors
    /// If a row of `after` is none that [`KindLayout::quantize`](super::KindLayout::quantize)
    /// makes.
    ///
    /// # Panics
    /// If an entity has a shape that is none of `shapes` or a kind that is none of `layout`.
    pub fn between(
        layout: &WireLayout,
        shapes: &Shapes,
        before: Option<&QuantizedSnapshot>,
        after: &QuantizedSnapshot,
        out: &mut Self,
    ) -> Result<(), DecodeError> {
        out.clear(after.tick, layout.schema_kinds());
        out.is_whole = before.is_none();
        let none = QuantizedSnapshot::default();
        let mut olds = before.unwrap_or(&none).entities().peekable();
        for new in after.entities() {
            while let Some(old) = olds.next_if(|old| old.id < new.id) {
                out.remove(shapes, old);
            }
            let old = olds.next_if(|old| old.id == new.id);
            if old.is_none_or(|old| !old.same_value(&new)) {
                out.change(layout, shapes, old, new)?;
            }
        }
        for old in olds {
            out.remove(shapes, old);
        }
        Ok(())
    }

    /// Notes that an entity, or all resources, are gone.
    fn remove(&mut self, shapes: &Shapes, old: EntityRef<'_>) {
        if old.id.is_none() {
            for &kind in &shapes.get(old.shape).kinds {
                self.kinds[usize::from(kind)].removed.push(old.id);
            }
        } else {
            self.removed.push(old.id);
        }
    }

    /// Notes the rows in which an entity differs.
    fn change(
        &mut self,
        layout: &WireLayout,
        shapes: &Shapes,
        old: Option<EntityRef<'_>>,
        new: EntityRef<'_>,
    ) -> Result<(), DecodeError> {
        let mut olds = Parts::of(layout, shapes, old);
        let mut old_part = olds.next().transpose()?;
        for part in Parts::of(layout, shapes, Some(new)) {
            let part = part?;
            while let Some(old) = old_part.filter(|old| old.kind < part.kind) {
                self.kinds[usize::from(old.kind)].removed.push(new.id);
                old_part = olds.next().transpose()?;
            }
            let old = old_part.filter(|old| old.kind == part.kind);
            if old.is_some() {
                old_part = olds.next().transpose()?;
            }
            if old == Some(part) {
                continue;
            }
            let kind = layout.kind(part.kind).expect(HAS_LAYOUT);
            let mut result = Ok(());
            let rows = &mut self.kinds[usize::from(part.kind)].rows;
            rows.push(new.id, |out| {
                result = kind.dequantize(part.lanes, &mut { part.opaque }, out);
            });
            result?;
        }
        while let Some(old) = old_part {
            self.kinds[usize::from(old.kind)].removed.push(new.id);
            old_part = olds.next().transpose()?;
        }
        Ok(())
    }

    /// Changes `snapshot`, a state of `schema`, as the patch says.
    ///
    /// Kinds that clients do not get keep their rows, but for those of entities that go.
    pub fn apply_to(&self, schema: &Schema, snapshot: &mut Snapshot) {
        snapshot.tick = self.tick;
        let mut mentioned: Vec<NetId> = Vec::new();
        if self.is_whole {
            for kind in &self.kinds {
                mentioned.extend_from_slice(&kind.rows.ids);
            }
            mentioned.sort_unstable();
            mentioned.dedup();
        }
        let none = PatchRows::default();
        for (index, (rows, kind)) in snapshot.kinds.iter_mut().zip(schema.kinds()).enumerate() {
            let patch = self.kinds.get(index).unwrap_or(&none);
            let is_visible = kind.visibility == Visibility::Client;
            patch.apply_to(rows, |id| {
                if self.is_whole {
                    !is_visible && (id.is_none() || mentioned.binary_search(&id).is_ok())
                } else {
                    self.removed.binary_search(&id).is_err()
                }
            });
        }
    }
}

/// What an entity's shape lists is what a layout has.
const HAS_LAYOUT: &str = "the kinds of a shape are those of its layout";

impl PatchRows {
    /// Overwrites rows and drops those that go or that `keep` refuses.
    fn apply_to(&self, rows: &mut KindRows, keep: impl Fn(NetId) -> bool) {
        let stays = |id: NetId| keep(id) && self.removed.binary_search(&id).is_err();
        if self.rows.is_empty() && rows.ids.iter().all(|&id| stays(id)) {
            return;
        }
        let old = core::mem::take(rows);
        let mut olds = old.rows().filter(|&(id, _)| stays(id)).peekable();
        for (id, row) in self.rows.rows() {
            while let Some((old, row)) = olds.next_if(|&(old, _)| old < id) {
                rows.push(old, |out| out.extend_from_slice(row));
            }
            olds.next_if(|&(old, _)| old == id);
            rows.push(id, |out| out.extend_from_slice(row));
        }
        for (id, row) in olds {
            rows.push(id, |out| out.extend_from_slice(row));
        }
    }
}

/// One kind of an entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KindPart<'a> {
    /// Its number in the schema.
    pub kind: u16,
    /// Its lanes.
    pub lanes: &'a [i32],
    /// The exact bytes of those fields that have no lanes.
    pub opaque: &'a [u8],
}

/// The kinds of `entity`, one by one; an error where its bytes are no values.
///
/// # Panics
/// If it has a shape that is none of `shapes` or a kind that is none of `layout`.
pub fn parts_of<'a>(
    layout: &'a WireLayout,
    shapes: &'a Shapes,
    entity: EntityRef<'a>,
) -> impl Iterator<Item = Result<KindPart<'a>, DecodeError>> {
    Parts::of(layout, shapes, Some(entity))
}

/// The kinds of an entity, one by one.
struct Parts<'a> {
    layout: &'a WireLayout,
    kinds: &'a [u16],
    starts: &'a [u32],
    lanes: &'a [i32],
    opaque: &'a [u8],
}

impl<'a> Parts<'a> {
    fn of(layout: &'a WireLayout, shapes: &'a Shapes, entity: Option<EntityRef<'a>>) -> Self {
        let shape = entity.map(|entity| shapes.get(entity.shape));
        Self {
            layout,
            kinds: shape.map_or(&[], |shape| &shape.kinds),
            starts: shape.map_or(&[], |shape| &shape.starts),
            lanes: entity.map_or(&[], |entity| entity.lanes),
            opaque: entity.map_or(&[], |entity| entity.opaque),
        }
    }
}

impl<'a> Iterator for Parts<'a> {
    type Item = Result<KindPart<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (&kind, kinds) = self.kinds.split_first()?;
        self.kinds = kinds;
        let [start, end] = *self.starts.first_chunk::<2>()?;
        self.starts = &self.starts[1..];
        let layout = self.layout.kind(kind).expect(HAS_LAYOUT);
        let lanes = self.lanes.get(start as usize..end as usize);
        let part = lanes.ok_or(DecodeError::Truncated).and_then(|lanes| {
            let len = layout.opaque_len(self.opaque)?;
            let (opaque, rest) = self.opaque.split_at(len);
            self.opaque = rest;
            Ok(KindPart {
                kind,
                lanes,
                opaque,
            })
        });
        Some(part)
    }
}

#[cfg(test)]
mod tests;
