//! Applying deltas, which come from elsewhere.

use crate::id::NetId;
use crate::limits::{ENTITIES_MAX, SNAPSHOT_BYTES_MAX};
use crate::state::KindSchema;
use crate::state::KindShape;
use crate::state::walk::check_fields;
use crate::wire::bytes::{DecodeError, Reader};

use super::bits::{BitReader, unzigzag};
use super::{ChangedRows, Columns, DeltaCodec, DeltaHead, NOWHERE, Pace, RowForm, Word};
use super::{KindRows, Snapshot, index_of, read, write};
use crate::state::snapshot::memory_per_row;

const TOO_LARGE: DecodeError = DecodeError::Invalid("a delta leads to a state beyond the limit");
const NO_ID: DecodeError = DecodeError::Invalid("a delta adds a row that cannot be");
const NO_ROW: DecodeError = DecodeError::Invalid("a delta is about a row that is not there");

impl DeltaCodec {
    /// Writes into `out`, whose memory it uses again, what comes out of `start` by the delta in
    /// `bytes`. `start` and `earlier` are valid states of the schema, those that [`DeltaHead::peek`]
    /// names; then the result is one, too.
    ///
    /// # Errors
    /// If the bytes are no delta between such states, or lead to what is no state of the schema or
    /// exceeds a limit. Then `out` is worthless. Nothing is allocated that bytes or the start do not
    /// justify, up to [`SNAPSHOT_BYTES_MAX`].
    pub fn apply(
        &mut self,
        start: &Snapshot,
        earlier: Option<&Snapshot>,
        bytes: &[u8],
        out: &mut Snapshot,
    ) -> Result<(), DecodeError> {
        let mut reader = Reader::new(bytes);
        let head = DeltaHead::read(&mut reader)?;
        if head.start != start.tick || head.earlier != earlier.map(|earlier| earlier.tick) {
            return Err(DecodeError::Invalid("a delta starts from another state"));
        }
        let kinds = self.schema.kinds();
        if start.kinds.len() != kinds.len() {
            return Err(DecodeError::Invalid("a state has other kinds"));
        }
        let changes = reader.bytes(kinds.len().div_ceil(8))?;
        if !kinds.len().is_multiple_of(8)
            && let Some(last) = changes.last()
            && last >> (kinds.len() % 8) != 0
        {
            return Err(DecodeError::Invalid("padding is not zero"));
        }
        out.tick = head.tick;
        out.kinds.resize_with(kinds.len(), KindRows::default);
        let mut budget = SNAPSHOT_BYTES_MAX;
        for (index, kind) in kinds.iter().enumerate() {
            let (before, now) = (&start.kinds[index], &mut out.kinds[index]);
            if changes[index / 8] & (1 << (index % 8)) == 0 {
                now.ids.clone_from(&before.ids);
                now.ends.clone_from(&before.ends);
                now.bytes.clone_from(&before.bytes);
            } else if kind.visibility.in_snapshots() {
                let past = head.pace().zip(earlier);
                let past = past.map(|(pace, earlier)| (pace, &earlier.kinds[index]));
                let mut change = KindChange {
                    kind,
                    before,
                    past,
                    rows: &mut self.rows,
                    columns: &mut self.columns,
                };
                change.read(&mut reader, &self.forms[index], budget, now)?;
            } else {
                return Err(DecodeError::Invalid("a delta is about a kind without rows"));
            }
            let memory = memory_per_row(kind).saturating_mul(now.len());
            budget = budget
                .checked_sub(memory.saturating_add(now.bytes.len()))
                .ok_or(TOO_LARGE)?;
        }
        reader.finish()
    }
}

/// The change of one kind.
struct KindChange<'a> {
    kind: &'a KindSchema,
    before: &'a KindRows,
    past: Option<(Pace, &'a KindRows)>,
    rows: &'a mut ChangedRows,
    columns: &'a mut Columns,
}

impl KindChange<'_> {
    fn read(
        &mut self,
        reader: &mut Reader<'_>,
        form: &RowForm,
        budget: usize,
        now: &mut KindRows,
    ) -> Result<(), DecodeError> {
        let mut count = |max: usize| {
            let count = usize::try_from(reader.varint()?).unwrap_or(usize::MAX);
            if count > max { Err(NO_ROW) } else { Ok(count) }
        };
        let removed = count(self.before.len())?;
        let changed = count(self.before.len() - removed)?;
        let added = count(ENTITIES_MAX)?;
        self.rows.clear();
        self.read_ids(reader, removed, added, budget, now)?;
        let mut bits = BitReader::new(reader.rest());
        self.read_indexes(removed, changed, &mut bits)?;
        match form {
            RowForm::Words {
                len,
                words,
                needs_check,
            } => {
                self.arrange(*len, now)?;
                if let Some((_, earlier)) = self.past {
                    self.rows.find_earlier(self.before, earlier);
                }
                for word in words {
                    self.read_word(word, *len, &mut bits, &mut now.bytes)?;
                }
                reader.bytes(bits.finish()?)?;
                if *needs_check {
                    let changed = self.rows.changed.iter().map(|&(_, index)| index);
                    for index in changed.chain(self.rows.added.iter().copied()) {
                        self.check(now.row(index as usize))?;
                    }
                }
                Ok(())
            }
            RowForm::Bytes => {
                reader.bytes(bits.finish()?)?;
                self.read_rows(reader, budget, now)
            }
        }
    }

    fn check(&self, row: &[u8]) -> Result<(), DecodeError> {
        let mut reader = Reader::new(row);
        check_fields(&self.kind.fields, &mut reader)?;
        reader.finish()
    }

    /// Reads the ids of added rows, into `now`.
    fn read_ids(
        &self,
        reader: &mut Reader<'_>,
        removed: usize,
        added: usize,
        budget: usize,
        now: &mut KindRows,
    ) -> Result<(), DecodeError> {
        let rows = self.before.len() - removed + added;
        let per_row = memory_per_row(self.kind).saturating_add(self.kind.min_len());
        if rows > ENTITIES_MAX || rows.saturating_mul(per_row) > budget {
            return Err(TOO_LARGE);
        }
        if self.kind.shape == KindShape::Resource && rows > 1 {
            return Err(NO_ID);
        }
        if added > reader.len() {
            return Err(DecodeError::Truncated);
        }
        now.clear();
        let mut last = None;
        for _ in 0..added {
            let distance = reader.varint()?;
            let bits = match last {
                None => {
                    let from = self.before.ids.last().map_or(0, |id| id.bits());
                    from.wrapping_add(unzigzag(distance).cast_unsigned())
                }
                Some(last) => u64::checked_add(last, distance)
                    .and_then(|bits| bits.checked_add(1))
                    .ok_or(NO_ID)?,
            };
            if (bits == 0) != (self.kind.shape == KindShape::Resource) {
                return Err(NO_ID);
            }
            now.ids.push(NetId::from_bits(bits));
            last = Some(bits);
        }
        Ok(())
    }

    /// Reads which rows go, and which change.
    fn read_indexes(
        &mut self,
        removed: usize,
        changed: usize,
        bits: &mut BitReader<'_>,
    ) -> Result<(), DecodeError> {
        let memory = &mut self.columns.plain;
        let rows = self.before.len();
        bits.column(removed, memory)?;
        read_indexes(memory, rows, |index| self.rows.removed.push(index))?;
        bits.column(changed, memory)?;
        // Where they come to lie is not known yet.
        read_indexes(memory, rows, |index| {
            self.rows.changed.push((index, NOWHERE));
        })
    }

    /// Puts the ids of `now` in order, which has the added ones, and finds where changed and added
    /// rows come to lie.
    fn merge_ids(&mut self, now: &mut KindRows) -> Result<(), DecodeError> {
        let added_ids = core::mem::take(&mut now.ids);
        let mut added = added_ids.iter().peekable();
        let mut removed = self.rows.removed.iter().peekable();
        let mut changed = self.rows.changed.iter_mut().peekable();
        let mut ids = Vec::with_capacity(self.before.len() + added_ids.len());
        for (index, &id) in self.before.ids.iter().enumerate() {
            let index = index_of(index);
            while let Some(&other) = added.next_if(|&&other| other < id) {
                self.rows.added.push(index_of(ids.len()));
                ids.push(other);
            }
            if added.peek() == Some(&&id) {
                return Err(NO_ID);
            }
            let goes = removed.next_if(|&&other| other == index).is_some();
            if let Some(row) = changed.next_if(|row| row.0 == index) {
                if goes {
                    return Err(NO_ROW);
                }
                row.1 = index_of(ids.len());
            }
            if !goes {
                ids.push(id);
            }
        }
        for &other in added {
            self.rows.added.push(index_of(ids.len()));
            ids.push(other);
        }
        now.ids = ids;
        Ok(())
    }

    /// Writes rows of `len` bytes: those that stay as they were, added ones all zeros.
    fn arrange(&mut self, len: usize, now: &mut KindRows) -> Result<(), DecodeError> {
        if self.rows.removed.is_empty() && now.ids.is_empty() {
            for row in &mut self.rows.changed {
                row.1 = row.0;
            }
            now.ids.clone_from(&self.before.ids);
            now.ends.clone_from(&self.before.ends);
            now.bytes.clone_from(&self.before.bytes);
            return Ok(());
        }
        self.merge_ids(now)?;
        let mut added = self.rows.added.iter().peekable();
        let mut removed = self.rows.removed.iter().peekable();
        let mut old = 0;
        for index in 0..now.ids.len() {
            if added.next_if(|&&other| other as usize == index).is_some() {
                now.bytes.resize(now.bytes.len() + len, 0);
            } else {
                while removed.next_if(|&&other| other as usize == old).is_some() {
                    old += 1;
                }
                now.bytes
                    .extend_from_slice(&self.before.bytes[old * len..(old + 1) * len]);
                old += 1;
            }
            now.ends.push(index_of(now.bytes.len()));
        }
        Ok(())
    }

    /// Reads the column of `word` into rows of `len` bytes.
    fn read_word(
        &mut self,
        word: &Word,
        len: usize,
        bits: &mut BitReader<'_>,
        now: &mut [u8],
    ) -> Result<(), DecodeError> {
        let changed = &self.rows.changed;
        let past = match self.past {
            Some((pace, rows)) if !changed.is_empty() && bits.flag()? => Some((pace, rows)),
            Some(_) | None => None,
        };
        let differences = &mut self.columns.plain;
        bits.column(changed.len() + self.rows.added.len(), differences)?;
        let mask = u64::MAX >> (64 - 8 * word.len);
        for (place, (&(old, new), &difference)) in changed.iter().zip(&*differences).enumerate() {
            let before = read(&self.before.bytes, old as usize * len, word);
            let earlier = past.map(|(pace, rows)| (pace, rows, self.rows.earlier[place]));
            let expected = match earlier {
                Some((pace, rows, earlier)) if earlier != NOWHERE => {
                    let earlier = read(&rows.bytes, earlier as usize * len, word);
                    pace.foretell(earlier, before, word.len)
                }
                Some(_) | None => before,
            };
            let number = expected.wrapping_add(difference.cast_unsigned()) & mask;
            word.values.check(number)?;
            write(now, new as usize * len, word, number);
        }
        let mut last = 0;
        let added = self.rows.added.iter().zip(&differences[changed.len()..]);
        for (&new, &difference) in added {
            let number = u64::wrapping_add(last, difference.cast_unsigned()) & mask;
            word.values.check(number)?;
            write(now, new as usize * len, word, number);
            last = number;
        }
        Ok(())
    }

    /// Reads rows as bytes.
    fn read_rows(
        &mut self,
        reader: &mut Reader<'_>,
        budget: usize,
        now: &mut KindRows,
    ) -> Result<(), DecodeError> {
        self.merge_ids(now)?;
        let mut added = self.rows.added.iter().peekable();
        let mut removed = self.rows.removed.iter().peekable();
        let mut changed = self.rows.changed.iter().peekable();
        let mut old = 0;
        for index in 0..now.ids.len() {
            let start = now.bytes.len();
            let is_added = added.next_if(|&&other| other as usize == index).is_some();
            let before: &[u8] = if is_added {
                &[]
            } else {
                while removed.next_if(|&&other| other as usize == old).is_some() {
                    old += 1;
                }
                old += 1;
                self.before.row(old - 1)
            };
            let is_changed = changed
                .next_if(|&&(_, other)| other as usize == index)
                .is_some();
            if is_added || is_changed {
                read_row(reader, before, &mut now.bytes)?;
                self.check(&now.bytes[start..])?;
            } else {
                now.bytes.extend_from_slice(before);
            }
            if now.bytes.len() > budget {
                return Err(TOO_LARGE);
            }
            now.ends.push(index_of(now.bytes.len()));
        }
        Ok(())
    }
}

/// Reads a row that resembles `old`.
fn read_row(reader: &mut Reader<'_>, old: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let mut len = || {
        reader
            .varint()
            .map(|len| usize::try_from(len).unwrap_or(usize::MAX))
    };
    let (front, end, between) = (len()?, len()?, len()?);
    if front.saturating_add(end) > old.len() {
        return Err(DecodeError::Invalid(
            "a row has more of the old one than there is",
        ));
    }
    let between = reader.bytes(between)?;
    out.extend_from_slice(&old[..front]);
    out.extend_from_slice(between);
    out.extend_from_slice(&old[old.len() - end..]);
    Ok(())
}

/// Indexes of rows from their distances.
fn read_indexes(gaps: &[i64], rows: usize, mut take: impl FnMut(u32)) -> Result<(), DecodeError> {
    let mut next = 0_u32;
    for &gap in gaps {
        let index = u32::try_from(gap)
            .ok()
            .and_then(|gap| next.checked_add(gap))
            .filter(|&index| (index as usize) < rows)
            .ok_or(NO_ROW)?;
        take(index);
        next = index + 1;
    }
    Ok(())
}
