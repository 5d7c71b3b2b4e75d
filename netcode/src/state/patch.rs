//! A change of state that an authority asks for: what a state-sync client takes over.

use crate::id::NetId;
use crate::tick::Tick;

use super::snapshot::KindRows;

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
