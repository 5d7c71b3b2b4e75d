//! A change of state that an authority asks for: what a state-sync client takes over.

use crate::id::NetId;
use crate::tick::Tick;

use super::schema::{Schema, Visibility};
use super::snapshot::{KindRows, Snapshot};

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
    /// Changes `snapshot`, a state of `schema`, as this patch asks. Kinds that clients do not get
    /// keep their rows, but for entities that go.
    ///
    /// The rows are not looked at: [`Snapshot::validate`] does that.
    pub fn apply_to(&self, schema: &Schema, snapshot: &mut Snapshot) {
        let none = PatchRows::default();
        for (index, kind) in schema.kinds().iter().enumerate() {
            let Some(rows) = snapshot.kinds.get_mut(index) else {
                break;
            };
            let change = self.kinds.get(index).unwrap_or(&none);
            let is_told = kind.visibility == Visibility::Client;
            *rows = self.merged(rows, change, |id| {
                if is_told {
                    !self.is_whole
                } else {
                    !self.is_whole || id == NetId::NONE || self.mentions(id)
                }
            });
        }
        snapshot.tick = self.tick;
    }

    /// The rows of a kind after `change`; those that it does not name stay if `keeps` says so.
    fn merged(
        &self,
        rows: &KindRows,
        change: &PatchRows,
        keeps: impl Fn(NetId) -> bool,
    ) -> KindRows {
        let mut merged = KindRows::default();
        let mut new = change.rows.rows().peekable();
        for (id, row) in rows.rows() {
            while let Some((other, row)) = new.next_if(|&(other, _)| other < id) {
                merged.push(other, |out| out.extend_from_slice(row));
            }
            if let Some((_, row)) = new.next_if(|&(other, _)| other == id) {
                merged.push(id, |out| out.extend_from_slice(row));
                continue;
            }
            let goes = change.removed.binary_search(&id).is_ok()
                || self.removed.binary_search(&id).is_ok();
            if !goes && keeps(id) {
                merged.push(id, |out| out.extend_from_slice(row));
            }
        }
        for (id, row) in new {
            merged.push(id, |out| out.extend_from_slice(row));
        }
        merged
    }

    fn mentions(&self, id: NetId) -> bool {
        let mut kinds = self.kinds.iter();
        kinds.any(|change| change.rows.ids.binary_search(&id).is_ok())
    }
}
