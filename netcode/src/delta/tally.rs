//! Where the bits of bodies go.

use std::collections::BTreeMap;

/// Bits spent on what belongs to no field: flags of entities, ids, shapes.
pub const STRUCTURE: (u16, u16) = (u16::MAX, 0);

/// Bits by kind and field (both by their number in the schema), and under [`STRUCTURE`].
#[derive(Clone, Debug, Default, PartialEq)]
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
