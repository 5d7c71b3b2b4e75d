//! The canonical state at one tick.

mod code;
mod compare;
mod delta;
mod dump;

pub use compare::Difference;
pub use delta::{DeltaCodec, DeltaHead};

use crate::hash::ValueHasher;
use crate::id::NetId;
use crate::limits::{ENTITIES_MAX, SNAPSHOT_BYTES_MAX};
use crate::tick::Tick;
use crate::wire::bytes::Reader;

use super::hash::{KindHasher, StateHash};
use super::schema::{ExactType, KindSchema, KindShape, Schema};
use super::walk::check_fields;

/// The canonical state at one tick: one block of rows per kind of the schema.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The tick of the state.
    pub tick: Tick,
    /// One entry per kind, in the order of the schema. Kinds that are `Derived` or `Local` are
    /// empty.
    pub kinds: Vec<KindRows>,
}

impl Snapshot {
    /// Checks that this is a state of `schema`: every row is the one form of a value, rows are in
    /// canonical order, and the limits hold.
    ///
    /// # Errors
    /// The first thing that is not so.
    pub fn validate(&self, schema: &Schema) -> Result<(), ImportError> {
        if self.kinds.len() != schema.kinds().len() {
            return Err(ImportError::KindCount {
                found: self.kinds.len(),
                expected: schema.kinds().len(),
            });
        }
        let mut bytes = 0_usize;
        for (rows, kind) in self.kinds.iter().zip(schema.kinds()) {
            rows.validate(kind)?;
            bytes = bytes
                .saturating_add(memory_per_row(kind).saturating_mul(rows.len()))
                .saturating_add(rows.bytes.len());
        }
        if bytes > SNAPSHOT_BYTES_MAX {
            return Err(ImportError::TooLarge { bytes });
        }
        Ok(())
    }

    /// The state hash, equal to that of the simulation but for `Derived` kinds, which have no rows
    /// in snapshots. [`StateHash::without_derived`] makes a simulation's hash comparable.
    ///
    /// The snapshot is one of `schema`; see [`Snapshot::validate`].
    #[must_use]
    pub fn hash(&self, schema: &Schema) -> StateHash {
        let mut hash = StateHash::default();
        hash.reset(schema.kinds().len());
        for (index, (rows, kind)) in self.kinds.iter().zip(schema.kinds()).enumerate() {
            hash.set(index, rows.hash(kind));
        }
        hash
    }
}

/// The rows of one kind, by NetId ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KindRows {
    /// Whose rows these are, strictly ascending. A resource has one, [`NetId::NONE`], or none
    /// where it was not inserted.
    pub ids: Vec<NetId>,
    /// `ends[n]` is where row `n` ends in `bytes`; row 0 starts at 0.
    pub ends: Vec<u32>,
    /// The rows in their exact form, one after the other.
    pub bytes: Vec<u8>,
}

impl KindRows {
    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Forgets the rows and keeps their memory.
    pub fn clear(&mut self) {
        self.ids.clear();
        self.ends.clear();
        self.bytes.clear();
    }

    /// Adds a row whose bytes `write` appends. Rows come by NetId ascending.
    ///
    /// # Panics
    /// If all rows together exceed 4 GiB.
    pub fn push(&mut self, id: NetId, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.bytes);
        let end = u32::try_from(self.bytes.len()).expect("the rows of a kind exceed 4 GiB");
        self.ids.push(id);
        self.ends.push(end);
    }

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

    /// The rows with their ids. Bounds that are out of order give empty rows.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = (NetId, &[u8])> {
        let mut start = 0;
        self.ids.iter().zip(&self.ends).map(move |(&id, &end)| {
            let end = end as usize;
            let row = self.bytes.get(start..end).unwrap_or_default();
            start = end;
            (id, row)
        })
    }

    /// The row of entity `id`.
    #[must_use]
    pub fn find(&self, id: NetId) -> Option<&[u8]> {
        self.ids
            .binary_search(&id)
            .ok()
            .map(|index| self.row(index))
    }

    /// The hash of the rows as those of `kind`.
    #[must_use]
    pub fn hash(&self, kind: &KindSchema) -> u64 {
        let salted = ValueHasher::new(kind.salt());
        let mut sum = KindHasher::default();
        for (id, row) in self.rows() {
            let mut hasher = salted;
            hasher.raw(row);
            sum.row(id, hasher.finish());
        }
        sum.finish()
    }

    fn validate(&self, kind: &KindSchema) -> Result<(), ImportError> {
        let name = || kind.name.clone();
        if !kind.visibility.in_snapshots() && !self.is_empty() {
            return Err(ImportError::NotInSnapshots { kind: name() });
        }
        let in_order = self.ids.is_sorted_by(|a, b| a < b)
            && self.ends.is_sorted()
            && self.ids.len() == self.ends.len()
            && self.ends.last().copied().unwrap_or(0) as usize == self.bytes.len();
        let ids_fit = match kind.shape {
            KindShape::Component => self.ids.first().is_none_or(|id| !id.is_none()),
            KindShape::Resource => self.ids.iter().all(|id| id.is_none()),
        };
        if !in_order || !ids_fit || self.ids.len() > ENTITIES_MAX {
            return Err(ImportError::NotCanonical { kind: name() });
        }
        for (id, row) in self.rows() {
            let mut reader = Reader::new(row);
            check_fields(&kind.fields, &mut reader)
                .and_then(|()| reader.finish())
                .map_err(|_broken| ImportError::BadRow { kind: name(), id })?;
        }
        Ok(())
    }
}

/// What a row of `kind` takes next to its bytes, in the snapshot and while it is decoded: its id,
/// its end, and the end of each value whose length varies.
fn memory_per_row(kind: &KindSchema) -> usize {
    let varying = kind
        .fields
        .iter()
        .filter(|field| field.exact.fixed_len().is_none())
        .count();
    size_of::<NetId>() + (1 + varying) * size_of::<u32>()
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
    /// A kind that is `Derived` or `Local` has rows.
    #[error("\"{kind}\" has rows, but its visibility keeps it out of snapshots")]
    NotInSnapshots {
        /// The kind.
        kind: String,
    },
    /// The snapshot exceeds [`SNAPSHOT_BYTES_MAX`].
    #[error("the snapshot takes {bytes} bytes in memory, at most {SNAPSHOT_BYTES_MAX} fit")]
    TooLarge {
        /// What it takes.
        bytes: usize,
    },
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::prng::Prng;
    use crate::state::schema::tests::{below, component, random_schema};
    use crate::state::walk::tests::random_value;
    use crate::state::{FieldSchema, Visibility};

    /// A random row of `kind`.
    pub(in crate::state) fn random_row(kind: &KindSchema, prng: &mut Prng) -> Vec<u8> {
        let mut row = Vec::new();
        for field in &kind.fields {
            random_value(&field.exact, prng, &mut row);
        }
        row
    }

    pub(in crate::state) fn random_snapshot(schema: &Schema, prng: &mut Prng) -> Snapshot {
        let mut snapshot = Snapshot {
            tick: Tick::new(prng.next_u32()),
            kinds: Vec::new(),
        };
        for kind in schema.kinds() {
            let mut rows = KindRows::default();
            let (count, mut id) = match kind.shape {
                KindShape::Component => (below(prng, 8), 0),
                KindShape::Resource => (below(prng, 2), u64::MAX),
            };
            for _ in 0..if kind.visibility.in_snapshots() {
                count
            } else {
                0
            } {
                id = id.wrapping_add(1 + prng.below(3));
                let row = random_row(kind, prng);
                rows.push(
                    match kind.shape {
                        KindShape::Component => NetId::from_bits(id),
                        KindShape::Resource => NetId::NONE,
                    },
                    |out| out.extend_from_slice(&row),
                );
            }
            snapshot.kinds.push(rows);
        }
        snapshot
    }

    #[test]
    fn random_snapshots_are_valid() {
        for seed in 0..2000 {
            let mut prng = Prng::new(seed);
            let schema = random_schema(&mut prng);
            let snapshot = random_snapshot(&schema, &mut prng);
            assert_eq!(snapshot.validate(&schema), Ok(()), "seed {seed}");
        }
    }

    fn one(kind: KindSchema, rows: KindRows) -> Result<(), ImportError> {
        let snapshot = Snapshot {
            tick: Tick::ZERO,
            kinds: vec![rows],
        };
        snapshot.validate(&Schema::new(vec![kind]).unwrap())
    }

    fn flags(ids: &[u64], bytes: &[u8]) -> KindRows {
        KindRows {
            ids: ids.iter().map(|&id| NetId::from_bits(id)).collect(),
            ends: (1..=u32::try_from(ids.len()).unwrap()).collect(),
            bytes: bytes.to_vec(),
        }
    }

    #[test]
    fn what_is_not_canonical_is_named() {
        let kind = || component("Flag", vec![FieldSchema::new("0", ExactType::Bool)]);
        let name = || "Flag".to_owned();
        let not_canonical = Err(ImportError::NotCanonical { kind: name() });
        assert_eq!(one(kind(), flags(&[1, 2], &[0, 1])), Ok(()));
        assert_eq!(
            one(kind(), flags(&[1, 2], &[0, 2])),
            Err(ImportError::BadRow {
                kind: name(),
                id: NetId::from_bits(2)
            })
        );
        assert_eq!(one(kind(), flags(&[2, 2], &[0, 1])), not_canonical);
        assert_eq!(one(kind(), flags(&[0, 2], &[0, 1])), not_canonical);
        assert_eq!(one(kind(), flags(&[1, 2], &[0, 1, 1])), not_canonical);
        let mut crossed = flags(&[1, 2], &[0, 1]);
        crossed.ends = vec![3, 2];
        assert_eq!(one(kind(), crossed), not_canonical);
        let resource = KindSchema {
            shape: KindShape::Resource,
            ..kind()
        };
        assert_eq!(one(resource.clone(), flags(&[0], &[1])), Ok(()));
        assert_eq!(one(resource.clone(), flags(&[], &[])), Ok(()));
        assert_eq!(one(resource, flags(&[3], &[1])), not_canonical);
        let derived = KindSchema {
            visibility: Visibility::Derived,
            ..kind()
        };
        assert_eq!(
            one(derived, flags(&[1], &[1])),
            Err(ImportError::NotInSnapshots { kind: name() })
        );
    }

    #[test]
    fn the_hash_sees_values_ids_and_kinds() {
        let schema = Schema::new(vec![
            component("A", vec![FieldSchema::new("0", ExactType::Bool)]),
            component("B", vec![FieldSchema::new("0", ExactType::Bool)]),
        ])
        .unwrap();
        let of = |a: KindRows, b: KindRows| {
            let snapshot = Snapshot {
                tick: Tick::ZERO,
                kinds: vec![a, b],
            };
            snapshot.hash(&schema)
        };
        let none = || flags(&[], &[]);
        let base = of(flags(&[1, 2], &[0, 1]), none());
        for other in [
            of(flags(&[1, 2], &[1, 0]), none()),
            of(flags(&[1, 3], &[0, 1]), none()),
            of(flags(&[1], &[0]), none()),
        ] {
            assert_eq!(base.differing_kinds(&other).collect::<Vec<_>>(), [0]);
            assert_ne!(base.combined(), other.combined());
        }
        let swapped = of(none(), flags(&[1, 2], &[0, 1]));
        assert_eq!(base.differing_kinds(&swapped).collect::<Vec<_>>(), [0, 1]);
        assert_ne!(base.kinds()[0], swapped.kinds()[1]);
    }
}
