//! One description of a body for both directions.
//!
//! The model says what comes next and with which chances; a [`Coder`] writes it or reads it. So
//! encoder and decoder cannot disagree about the order of things.

use crate::wire::range::{Decoder, Encoder};

use super::tables::Tables;

/// A direction: each call takes what an encoder has to say and returns what both ends know then.
pub(super) trait Coder {
    /// Whether values come from bytes: what the caller passes has no meaning then.
    const READS: bool;

    /// Whether [`Coder::learn`] does anything.
    const LEARNS: bool = false;

    /// A decision with the chance of flag context `context`.
    fn flag(&mut self, context: usize, bit: bool) -> bool;

    /// Flags of these contexts, of which the first `unset` are not set. Ends with the first one that
    /// is, or with the last; returns how many before it are not.
    #[inline]
    fn flags(&mut self, contexts: impl Iterator<Item = usize>, unset: usize) -> usize {
        let mut count = 0;
        for context in contexts {
            if self.flag(context, count == unset) {
                break;
            }
            count += 1;
        }
        count
    }

    /// A symbol of residual table `table`.
    fn symbol(&mut self, table: usize, symbol: usize) -> usize;

    /// At most 16 bits, all values alike.
    fn raw(&mut self, value: u32, bits: u32) -> u32;

    /// The fixed numbers.
    fn tables(&self) -> &Tables;

    /// A lesson for the tables; who writes or reads learns nothing.
    #[inline]
    fn learn(&mut self, _lesson: &Lesson) {}

    /// What was coded since the last note belongs to this field of this kind.
    fn note(&mut self, _kind: u16, _field: u16) {}
}

/// What one value teaches about guesses.
#[derive(Clone, Copy, Debug)]
pub(super) enum Lesson {
    /// A value with a past.
    Course {
        /// Course family and class of its bend.
        family: usize,
        bend: usize,
        /// What the newest velocity alone would give; the change of velocity would add `change`.
        /// `None` if only one velocity is known.
        velocity: f32,
        change: Option<f32>,
        actual: f32,
    },
    /// A value with neighbours.
    Neighbours {
        /// Classes of their distances.
        classes: [usize; 2],
        /// Their residuals.
        theirs: [f32; 2],
        actual: f32,
    },
}

/// At most 32 bits, all values alike.
#[inline]
pub(super) fn raw_wide<C: Coder>(coder: &mut C, value: u32, bits: u32) -> u32 {
    if bits <= 16 {
        return coder.raw(value, bits);
    }
    let high = coder.raw(value >> 16, bits - 16);
    let low = coder.raw(value & 0xffff, 16);
    high << 16 | low
}

/// A number from 0, in 2 log2 (n + 1) + 1 bits: its length in zeros, a one, and its lower bits.
///
/// As it sets a bit, the bytes of a body bound how many numbers it has: trailing zeros are left
/// out, this is not.
pub(super) fn number<C: Coder>(coder: &mut C, value: u64) -> u64 {
    let mut length = 0;
    // The lengths of a u64 plus one, which saturates.
    let plus_one = value.saturating_add(1);
    let own = plus_one.ilog2();
    while length < 63 && coder.raw(u32::from(length == own), 1) == 0 {
        length += 1;
    }
    let mut low = 0;
    let mut left = length;
    while left > 0 {
        let bits = left.min(16);
        left -= bits;
        let part = u32::try_from(plus_one >> left & ((1 << bits) - 1)).unwrap_or(0);
        low = low << bits | u64::from(coder.raw(part, bits));
    }
    ((1_u64 << length) | low) - 1
}

/// Writes.
#[derive(Debug)]
pub(super) struct Writer<'a, 'b> {
    pub(super) tables: &'a Tables,
    pub(super) coder: Encoder<'b>,
    pub(super) tally: Option<&'a mut super::tally::Meter>,
}

impl Coder for Writer<'_, '_> {
    const READS: bool = false;

    #[inline]
    fn tables(&self) -> &Tables {
        self.tables
    }

    #[inline]
    fn flag(&mut self, context: usize, bit: bool) -> bool {
        self.coder.bit(bit, self.tables.flag(context));
        bit
    }

    #[inline]
    fn flags(&mut self, mut contexts: impl Iterator<Item = usize>, unset: usize) -> usize {
        let tables = self.tables;
        let zeros = contexts.by_ref().take(unset);
        self.coder.zeros(zeros.map(|context| tables.flag(context)));
        if let Some(context) = contexts.next() {
            self.flag(context, true);
        }
        unset
    }

    #[inline]
    fn symbol(&mut self, table: usize, symbol: usize) -> usize {
        self.coder.symbol(symbol, self.tables.residual(table));
        symbol
    }

    #[inline]
    fn raw(&mut self, value: u32, bits: u32) -> u32 {
        self.coder.uniform(value, bits);
        value
    }

    #[inline]
    fn note(&mut self, kind: u16, field: u16) {
        if let Some(meter) = &mut self.tally {
            meter.note(kind, field, self.coder.fine_bits());
        }
    }
}

/// Reads.
#[derive(Debug)]
pub(super) struct Reader<'a, 'b> {
    pub(super) tables: &'a Tables,
    pub(super) coder: Decoder<'b>,
}

impl Coder for Reader<'_, '_> {
    const READS: bool = true;

    #[inline]
    fn tables(&self) -> &Tables {
        self.tables
    }

    #[inline]
    fn flag(&mut self, context: usize, _bit: bool) -> bool {
        self.coder.likely_bit(self.tables.flag(context))
    }

    #[inline]
    fn flags(&mut self, contexts: impl Iterator<Item = usize>, _unset: usize) -> usize {
        let tables = self.tables;
        self.coder
            .zeros(contexts.map(|context| tables.flag(context)))
    }

    #[inline]
    fn symbol(&mut self, table: usize, _symbol: usize) -> usize {
        self.coder.symbol(self.tables.residual(table))
    }

    #[inline]
    fn raw(&mut self, _value: u32, bits: u32) -> u32 {
        self.coder.uniform(bits)
    }
}
