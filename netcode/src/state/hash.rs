//! The state hash: per kind and combined, the same for every row order.

use crate::hash::mix;
use crate::id::NetId;

use super::schema::Schema;

/// Hash of the canonical state at a tick.
///
/// A kind's hash is the wrapping sum over its rows of `mix(value hash, NetId)`: no sorting is
/// needed, and two entities that swap their values still change it, which a XOR without identity
/// would not see. The combined hash folds the kinds in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateHash {
    kinds: Vec<u64>,
}

impl StateHash {
    /// Forgets all, and makes room for `kinds` kinds.
    pub fn reset(&mut self, kinds: usize) {
        self.kinds.clear();
        self.kinds.resize(kinds, 0);
    }

    /// Sets the hash of kind number `kind`.
    ///
    /// # Panics
    /// If [`StateHash::reset`] made no room for it.
    pub fn set(&mut self, kind: usize, hash: u64) {
        self.kinds[kind] = hash;
    }

    /// The hashes per kind, in the order of the schema.
    #[must_use]
    pub fn kinds(&self) -> &[u64] {
        &self.kinds
    }

    /// The hash with [`KindHasher::NO_ROWS`] for all kinds that snapshots lack, so that a
    /// simulation's hash compares with [`Snapshot::hash`](super::Snapshot::hash).
    #[must_use]
    pub fn without_derived(&self, schema: &Schema) -> Self {
        let kinds = self.kinds.iter().zip(schema.kinds());
        Self {
            kinds: kinds
                .map(|(&hash, kind)| {
                    if kind.visibility.in_snapshots() {
                        hash
                    } else {
                        KindHasher::NO_ROWS
                    }
                })
                .collect(),
        }
    }

    /// Numbers of the kinds whose hashes differ, ascending.
    pub fn differing_kinds(&self, other: &Self) -> impl Iterator<Item = usize> {
        let kinds = self.kinds.iter().zip(&other.kinds).enumerate();
        kinds.filter_map(|(index, (a, b))| (a != b).then_some(index))
    }

    /// One number for the whole state.
    #[must_use]
    pub fn combined(&self) -> u64 {
        self.kinds
            .iter()
            .fold(self.kinds.len() as u64, |hash, &kind| mix(hash, kind))
    }
}

/// Sums up the rows of one kind, in any order.
#[derive(Clone, Copy, Debug, Default)]
pub struct KindHasher {
    sum: u64,
    rows: u64,
}

impl KindHasher {
    /// The hash of a kind without rows; also of kinds that the hash does not cover.
    pub const NO_ROWS: u64 = Self { sum: 0, rows: 0 }.finish();

    /// Takes the row of entity `id`, whose value hashes to `value`.
    #[inline]
    pub const fn row(&mut self, id: NetId, value: u64) {
        self.sum = self.sum.wrapping_add(mix(value, mix(id.bits(), value)));
        self.rows = self.rows.wrapping_add(1);
    }

    /// The kind's hash.
    #[must_use]
    pub const fn finish(&self) -> u64 {
        mix(self.sum, self.rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_order_does_not_matter_and_swapped_values_do() {
        let of = |rows: &[(u64, u64)]| {
            let mut hasher = KindHasher::default();
            rows.iter()
                .for_each(|&(id, value)| hasher.row(NetId::from_bits(id), value));
            hasher.finish()
        };
        assert_eq!(of(&[(1, 10), (2, 20)]), of(&[(2, 20), (1, 10)]));
        assert_ne!(of(&[(1, 10), (2, 20)]), of(&[(1, 20), (2, 10)]));
        assert_ne!(of(&[]), of(&[(0, 0)]));
    }
}
