//! The canonical state at one tick.

use crate::id::NetId;
use crate::tick::Tick;

/// The canonical state at one tick: one block of rows per kind of the schema.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The tick of the state.
    pub tick: Tick,
    /// One entry per kind, in the order of the schema. Kinds that are `Derived` or `Local` are
    /// empty.
    pub kinds: Vec<KindRows>,
}

/// The rows of one kind, by NetId ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KindRows {
    /// Whose rows these are, strictly ascending. A resource has one, [`NetId::NONE`].
    pub ids: Vec<NetId>,
    /// `ends[n]` is where row `n` ends in `bytes`; row 0 starts at 0.
    pub ends: Vec<u32>,
    /// The rows in their exact form, one after the other.
    pub bytes: Vec<u8>,
}

impl KindRows {
    /// The bytes of row `index`.
    ///
    /// # Panics
    /// If there is no such row.
    #[must_use]
    pub fn row(&self, index: usize) -> &[u8] {
        let start = if index == 0 {
            0
        } else {
            self.ends[index - 1] as usize
        };
        &self.bytes[start..self.ends[index] as usize]
    }

    /// The row of entity `id`.
    #[must_use]
    pub fn find(&self, id: NetId) -> Option<&[u8]> {
        self.ids
            .binary_search(&id)
            .ok()
            .map(|index| self.row(index))
    }
}

/// Why a snapshot is not a state of this schema.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// The number of kinds differs.
    #[error("the snapshot has {found} kinds, the schema {expected}")]
    KindCount {
        /// Kinds in the snapshot.
        found: usize,
        /// Kinds in the schema.
        expected: usize,
    },
    /// A row's bytes are not a value of its kind.
    #[error("component \"{kind}\" of entity {id} does not decode")]
    BadRow {
        /// The kind.
        kind: String,
        /// The entity.
        id: NetId,
    },
    /// Rows are not strictly ascending by NetId, or their bounds are inconsistent.
    #[error("the rows of \"{kind}\" are not in canonical order")]
    NotCanonical {
        /// The kind.
        kind: String,
    },
}
