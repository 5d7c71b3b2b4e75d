//! Where the bits of bodies go.

use std::collections::BTreeMap;

/// Bits spent on what belongs to no field: flags of entities, ids, shapes.
pub const STRUCTURE: (u16, u16) = (u16::MAX, 0);

/// Bits around bodies: their heads, and what rounding to bytes takes.
pub const HEADS: (u16, u16) = (u16::MAX, 1);

/// Bits by kind and field (both by their number in the schema), and under [`STRUCTURE`] and
/// [`HEADS`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// In 1024ths of a bit.
    by_field: BTreeMap<(u16, u16), u64>,
}

impl Tally {
    /// Bits spent on a field of a kind, or on [`STRUCTURE`].
    #[must_use]
    pub fn bits(&self, (kind, field): (u16, u16)) -> f64 {
        self.by_field
            .get(&(kind, field))
            .map_or(0.0, |&fine| in_bits(fine))
    }

    /// All that was counted: (kind, field) and bits.
    pub fn iter(&self) -> impl Iterator<Item = ((u16, u16), f64)> {
        self.by_field
            .iter()
            .map(|(&key, &fine)| (key, in_bits(fine)))
    }

    /// Bits of all that was counted.
    #[must_use]
    pub fn bits_all(&self) -> f64 {
        in_bits(self.by_field.values().sum())
    }

    /// Counts what `other` did, too.
    pub fn add(&mut self, other: &Self) {
        for (&key, &fine) in &other.by_field {
            *self.by_field.entry(key).or_default() += fine;
        }
    }

    /// What was counted since this tally stood at `older`.
    #[must_use]
    pub fn since(&self, older: &Self) -> Self {
        let grown = |(&key, &fine): (&(u16, u16), &u64)| {
            let before = older.by_field.get(&key).copied().unwrap_or(0);
            (key, fine.saturating_sub(before))
        };
        let by_field = self.by_field.iter().map(grown);
        Self {
            by_field: by_field.filter(|&(_, fine)| fine > 0).collect(),
        }
    }

    /// Puts under [`HEADS`] what `bytes` have beyond the rest, so that all is as much as they are.
    pub(crate) fn fill_up(&mut self, bytes: u64) {
        self.by_field.remove(&HEADS);
        let counted: u64 = self.by_field.values().sum();
        let heads = (bytes * 8 * 1024).saturating_sub(counted);
        self.by_field.insert(HEADS, heads);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.by_field.clear();
    }
}

#[expect(clippy::cast_precision_loss, reason = "a statistic")]
fn in_bits(fine: u64) -> f64 {
    fine as f64 / 1024.0
}

/// Fills a [`Tally`] while a body is written.
#[derive(Debug, Default)]
pub(super) struct Meter {
    pub(super) tally: Tally,
    /// What was written, until it is known that it stays.
    pending: Vec<((u16, u16), u64)>,
    before: u64,
}

impl Meter {
    /// A body begins or goes on, with so many 1024ths of a bit written.
    pub(super) fn begin(&mut self, fine_bits: u64) {
        self.pending.clear();
        self.before = fine_bits;
    }

    pub(super) fn note(&mut self, kind: u16, field: u16, fine_bits: u64) {
        let spent = fine_bits.saturating_sub(self.before);
        self.pending.push(((kind, field), spent));
        self.before = fine_bits;
    }

    /// What was noted stays.
    pub(super) fn commit(&mut self) {
        for (key, spent) in self.pending.drain(..) {
            *self.tally.by_field.entry(key).or_default() += spent;
        }
    }
}
