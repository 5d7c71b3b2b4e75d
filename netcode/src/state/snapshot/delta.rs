//! What has changed from one exact state to another: for nodes that hold all of the host's state.
//!
//! A delta names the state that it starts from, and gives the later one bit for bit, all kinds of
//! [`Snapshot`] included. Where a second, earlier state is named too, numbers are foretold from how
//! they moved between the two: what moves evenly costs next to nothing.
//!
//! | part | form |
//! |---|---|
//! | form | u8: 1 |
//! | tick | u32: of the state that comes out |
//! | start | varint: ticks from the state that it starts from to that one |
//! | earlier | varint: ticks from the earlier state to the one that it starts from; 0: none is used |
//! | kinds | bits, the first the lowest: which kinds of the schema change; filled with zeros |
//! | changes | per kind that changes |
//!
//! The changes of a kind:
//!
//! | part | form |
//! |---|---|
//! | removed, changed, added | three varints: numbers of rows |
//! | ids | per added row, a varint: the first id less the last one of the start (zigzag), then each id's distance to the one before less 1 |
//! | columns | bits: columns as below, filled with zeros to a byte |
//! | rows | kinds whose rows are no words: the new rows |
//!
//! Columns are, in this order: the removed rows, the changed rows (each row's index in the start,
//! less the one before and 1), and per word of a row its flag (1 bit, 1: foretold; only where an
//! earlier state is used and rows have changed) and the numbers: of changed rows their difference
//! to what was expected, then of added rows that to the added row before. What is expected of a row
//! is the start's word `s`; where the flag says foretold and the earlier state has the row, it is
//! `s + (s - e) * start / earlier`, where `e` is the earlier state's word, all in wrapping numbers
//! of 64 bits, `s - e` sign-extended from the word's width. Only the lowest bits of a difference
//! count, as many as the word has.
//!
//! New rows of the other kinds go by id, each as three varints and bytes: bytes that it has in
//! common with the row in the start at the front and at the end (0 for added rows), bytes between.

mod apply;
mod bits;
mod encode;
mod layout;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::tick::Tick;
use crate::wire::bytes::{DecodeError, Reader};

use super::{KindRows, Schema, Snapshot};
use layout::{RowForm, Word};

/// Version of this form.
const FORM: u8 = 1;

/// Makes and applies deltas between states of one schema; keeps memory for both.
#[derive(Debug)]
pub struct DeltaCodec {
    schema: Arc<Schema>,
    forms: Vec<RowForm>,
    rows: ChangedRows,
    columns: Columns,
}

/// Which states a delta is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeltaHead {
    /// The state that comes out.
    pub tick: Tick,
    /// The state that it starts from.
    pub start: Tick,
    /// The earlier state that it uses as well.
    pub earlier: Option<Tick>,
}

impl DeltaHead {
    /// Reads which states the delta in `bytes` is about.
    ///
    /// # Errors
    /// If the bytes end too early, or name ticks below 0 or another form.
    pub fn peek(bytes: &[u8]) -> Result<Self, DecodeError> {
        Self::read(&mut Reader::new(bytes))
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        if reader.u8()? != FORM {
            return Err(DecodeError::Invalid("a delta has an unknown form"));
        }
        let tick = reader.u32()?;
        let below = DecodeError::Invalid("a delta is about a tick below 0");
        let start = tick.checked_sub(reader.varint_u32()?).ok_or(below)?;
        let distance = reader.varint_u32()?;
        let earlier = match distance {
            0 => None,
            distance => Some(Tick::new(start.checked_sub(distance).ok_or(below)?)),
        };
        Ok(Self {
            tick: Tick::new(tick),
            start: Tick::new(start),
            earlier,
        })
    }

    /// How far movement from the earlier state to the start goes on: by this factor and divisor.
    fn pace(&self) -> Option<Pace> {
        let earlier = self.earlier?;
        Some(Pace {
            factor: i64::from(self.tick.number() - self.start.number()),
            divisor: i64::from(self.start.number() - earlier.number()),
        })
    }
}

impl DeltaCodec {
    /// A codec for states of `schema`.
    #[must_use]
    pub fn new(schema: &Arc<Schema>) -> Self {
        Self {
            schema: Arc::clone(schema),
            forms: schema.kinds().iter().map(RowForm::of).collect(),
            rows: ChangedRows::default(),
            columns: Columns::default(),
        }
    }

    /// The schema of the states.
    #[must_use]
    pub const fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }
}

/// Rows by their indexes: in the state that a delta starts from, and in the one that comes out.
#[derive(Debug, Default)]
struct ChangedRows {
    /// In the start.
    removed: Vec<u32>,
    /// In the start, and in what comes out.
    changed: Vec<(u32, u32)>,
    /// In what comes out.
    added: Vec<u32>,
    /// Of the changed rows, in the earlier state; [`NOWHERE`] if it lacks the row.
    earlier: Vec<u32>,
}

/// Index of a row that is not there.
const NOWHERE: u32 = u32::MAX;

impl ChangedRows {
    fn clear(&mut self) {
        self.removed.clear();
        self.changed.clear();
        self.added.clear();
        self.earlier.clear();
    }

    /// Finds the changed rows in the earlier state.
    fn find_earlier(&mut self, start: &KindRows, earlier: &KindRows) {
        self.earlier.clear();
        if start.ids == earlier.ids {
            let same = self.changed.iter().map(|&(index, _)| index);
            self.earlier.extend(same);
            return;
        }
        let mut at = 0;
        for &(index, _) in &self.changed {
            let id = start.ids[index as usize];
            // Both ascend.
            while earlier.ids.get(at).is_some_and(|&other| other < id) {
                at += 1;
            }
            let is_there = earlier.ids.get(at) == Some(&id);
            self.earlier
                .push(if is_there { index_of(at) } else { NOWHERE });
        }
    }
}

/// Memory for columns.
#[derive(Debug, Default)]
struct Columns {
    /// Differences to the start.
    plain: Vec<i64>,
    /// Differences to what was foretold.
    foretold: Vec<i64>,
}

/// How far a movement goes on.
#[derive(Clone, Copy, Debug)]
struct Pace {
    factor: i64,
    divisor: i64,
}

impl Pace {
    /// Where a word of `len` bytes that went from `earlier` to `start` is expected.
    #[inline]
    fn foretell(self, earlier: u64, start: u64, len: usize) -> u64 {
        let moved = extend(start.wrapping_sub(earlier), len);
        let on = if self.divisor == 1 {
            moved.wrapping_mul(self.factor)
        } else {
            moved.wrapping_mul(self.factor) / self.divisor
        };
        start.wrapping_add(on.cast_unsigned())
    }
}

/// The lowest `len` bytes of `difference` as a signed number.
#[inline]
fn extend(difference: u64, len: usize) -> i64 {
    let unused = match len {
        1 => 56,
        2 => 48,
        4 => 32,
        _ => 0,
    };
    (difference << unused).cast_signed() >> unused
}

/// The number of `word` in the row that begins at `row`.
#[inline]
fn read(bytes: &[u8], row: usize, word: &Word) -> u64 {
    let at = row + word.at;
    let mut number = [0; 8];
    // Copies of a length that is known compile to single loads.
    match word.len {
        1 => number[0] = bytes[at],
        2 => number[..2].copy_from_slice(&bytes[at..at + 2]),
        4 => number[..4].copy_from_slice(&bytes[at..at + 4]),
        _ => number.copy_from_slice(&bytes[at..at + 8]),
    }
    u64::from_le_bytes(number)
}

/// Writes the number of `word` into the row that begins at `row`.
#[inline]
fn write(bytes: &mut [u8], row: usize, word: &Word, number: u64) {
    let at = row + word.at;
    let number = number.to_le_bytes();
    match word.len {
        1 => bytes[at] = number[0],
        2 => bytes[at..at + 2].copy_from_slice(&number[..2]),
        4 => bytes[at..at + 4].copy_from_slice(&number[..4]),
        _ => bytes[at..at + 8].copy_from_slice(&number),
    }
}

/// An index of a row; [`ENTITIES_MAX`](crate::limits::ENTITIES_MAX) is far below 2^32.
fn index_of(index: usize) -> u32 {
    u32::try_from(index).expect("a snapshot has fewer than 2^32 rows")
}
