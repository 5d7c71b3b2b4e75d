//! Making deltas.

use core::cmp::Ordering;

use crate::wire::bytes::put_varint;

use super::bits::{BitWriter, cost, zigzag};
use super::{ChangedRows, Columns, DeltaCodec, DeltaHead, FORM, NOWHERE, Pace, RowForm, Word};
use super::{KindRows, Snapshot, extend, index_of, read};

/// Rows that are compared at once, before one by one.
const ROWS_AT_ONCE: usize = 64;

impl DeltaCodec {
    /// Appends what changes from `start` to `after`. The receiver is known to hold `start`, and
    /// `earlier` if it is given.
    ///
    /// # Panics
    /// If these are no states of the schema, or their ticks do not ascend.
    pub fn encode(
        &mut self,
        start: &Snapshot,
        earlier: Option<&Snapshot>,
        after: &Snapshot,
        out: &mut Vec<u8>,
    ) {
        let kinds = self.schema.kinds().len();
        assert!(
            start.kinds.len() == kinds && after.kinds.len() == kinds,
            "a snapshot has the kinds of its schema"
        );
        let head = DeltaHead {
            tick: after.tick,
            start: start.tick,
            earlier: earlier.map(|earlier| earlier.tick),
        };
        put_head(&head, out);
        let changes = out.len();
        out.resize(changes + kinds.div_ceil(8), 0);
        for (index, form) in self.forms.iter().enumerate() {
            let (before, now) = (&start.kinds[index], &after.kinds[index]);
            if before == now {
                continue;
            }
            out[changes + index / 8] |= 1 << (index % 8);
            find_changes(before, now, form, &mut self.rows);
            let past = head
                .pace()
                .zip(earlier.map(|earlier| &earlier.kinds[index]));
            let mut kind = KindChange {
                before,
                now,
                past: past.map(|(pace, rows)| Past { pace, rows }),
                rows: &mut self.rows,
                columns: &mut self.columns,
            };
            kind.put(form, out);
        }
    }
}

fn put_head(head: &DeltaHead, out: &mut Vec<u8>) {
    let ascend = "the states of a delta have ascending ticks";
    let distance = head.tick.number().checked_sub(head.start.number());
    out.push(FORM);
    out.extend_from_slice(&head.tick.number().to_le_bytes());
    put_varint(out, distance.expect(ascend).into());
    let earlier = head.earlier.map_or(0, |earlier| {
        let distance = head.start.number().checked_sub(earlier.number());
        distance.filter(|&ticks| ticks > 0).expect(ascend)
    });
    put_varint(out, earlier.into());
}

/// Finds the rows that differ.
fn find_changes(before: &KindRows, now: &KindRows, form: &RowForm, out: &mut ChangedRows) {
    out.clear();
    if before.ids == now.ids {
        match form {
            RowForm::Words { len, .. } => find_changed_words(before, now, *len, out),
            RowForm::Bytes => {
                for (index, (old, new)) in before.rows().zip(now.rows()).enumerate() {
                    if old != new {
                        out.changed.push((index_of(index), index_of(index)));
                    }
                }
            }
        }
        return;
    }
    let (mut old, mut new) = (before.rows().enumerate(), now.rows().enumerate());
    let (mut here, mut there) = (old.next(), new.next());
    loop {
        let order = match (&here, &there) {
            (None, None) => return,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((_, (old, _))), Some((_, (new, _)))) => old.cmp(new),
        };
        if let (Some((index, (_, row))), Some((now_index, (_, now_row))), Ordering::Equal) =
            (&here, &there, order)
            && row != now_row
        {
            out.changed.push((index_of(*index), index_of(*now_index)));
        }
        if order.is_le()
            && let Some((index, _)) = core::mem::replace(&mut here, old.next())
            && order.is_lt()
        {
            out.removed.push(index_of(index));
        }
        if order.is_ge()
            && let Some((index, _)) = core::mem::replace(&mut there, new.next())
            && order.is_gt()
        {
            out.added.push(index_of(index));
        }
    }
}

/// Finds rows of `len` bytes that differ, where both states have the same rows.
fn find_changed_words(before: &KindRows, now: &KindRows, len: usize, out: &mut ChangedRows) {
    if len == 0 {
        return;
    }
    let chunk = ROWS_AT_ONCE * len;
    let chunks = before.bytes.chunks(chunk).zip(now.bytes.chunks(chunk));
    for (number, (old, new)) in chunks.enumerate() {
        if old == new {
            continue;
        }
        let rows = old.chunks(len).zip(new.chunks(len)).enumerate();
        for (index, _) in rows.filter(|(_, (old, new))| old != new) {
            let index = index_of(number * ROWS_AT_ONCE + index);
            out.changed.push((index, index));
        }
    }
}

/// The earlier state of a kind.
struct Past<'a> {
    pace: Pace,
    rows: &'a KindRows,
}

/// The change of one kind.
struct KindChange<'a> {
    before: &'a KindRows,
    now: &'a KindRows,
    past: Option<Past<'a>>,
    rows: &'a mut ChangedRows,
    columns: &'a mut Columns,
}

impl KindChange<'_> {
    fn put(&mut self, form: &RowForm, out: &mut Vec<u8>) {
        for len in [
            self.rows.removed.len(),
            self.rows.changed.len(),
            self.rows.added.len(),
        ] {
            put_varint(out, len as u64);
        }
        self.put_ids(out);
        let mut bits = BitWriter::new(out);
        let removed = self.rows.removed.iter().copied();
        put_indexes(removed, &mut self.columns.plain, &mut bits);
        let changed = self.rows.changed.iter().map(|&(index, _)| index);
        put_indexes(changed, &mut self.columns.plain, &mut bits);
        match form {
            RowForm::Words { len, words, .. } => {
                if let Some(past) = &self.past {
                    self.rows.find_earlier(self.before, past.rows);
                }
                for word in words {
                    self.put_word(word, *len, &mut bits);
                }
                bits.finish();
            }
            RowForm::Bytes => {
                bits.finish();
                self.put_rows(out);
            }
        }
    }

    fn put_ids(&self, out: &mut Vec<u8>) {
        let mut last = None;
        for &index in &self.rows.added {
            let bits = self.now.ids[index as usize].bits();
            put_varint(
                out,
                match last {
                    None => {
                        let from = self.before.ids.last().map_or(0, |id| id.bits());
                        zigzag(bits.wrapping_sub(from).cast_signed())
                    }
                    Some(last) => bits - last - 1,
                },
            );
            last = Some(bits);
        }
    }

    /// Appends the column of `word`.
    fn put_word(&mut self, word: &Word, len: usize, bits: &mut BitWriter<'_>) {
        let (before, now) = (&self.before.bytes, &self.now.bytes);
        let changed = &self.rows.changed;
        let plain = &mut self.columns.plain;
        plain.clear();
        plain.extend(changed.iter().map(|&(old, new)| {
            let old = read(before, old as usize * len, word);
            let new = read(now, new as usize * len, word);
            extend(new.wrapping_sub(old), word.len)
        }));
        let mut best = &mut *plain;
        if let Some(past) = &self.past
            && !changed.is_empty()
        {
            let foretold = &mut self.columns.foretold;
            foretold.clear();
            let rows = changed.iter().zip(&self.rows.earlier);
            foretold.extend(rows.map(|(&(old, new), &earlier)| {
                let old = read(before, old as usize * len, word);
                let new = read(now, new as usize * len, word);
                let expected = if earlier == NOWHERE {
                    old
                } else {
                    let earlier = read(&past.rows.bytes, earlier as usize * len, word);
                    past.pace.foretell(earlier, old, word.len)
                };
                extend(new.wrapping_sub(expected), word.len)
            }));
            let is_better = cost(foretold) < cost(best);
            bits.flag(is_better);
            if is_better {
                best = foretold;
            }
        }
        let mut last = 0;
        for &index in &self.rows.added {
            let new = read(now, index as usize * len, word);
            best.push(extend(new.wrapping_sub(last), word.len));
            last = new;
        }
        bits.column(best);
    }

    /// Appends new rows as bytes, by id.
    fn put_rows(&self, out: &mut Vec<u8>) {
        let mut added = self.rows.added.iter().peekable();
        for &(old, new) in &self.rows.changed {
            while let Some(&index) = added.next_if(|&&index| index < new) {
                put_row(&[], self.now.row(index as usize), out);
            }
            let old = self.before.row(old as usize);
            put_row(old, self.now.row(new as usize), out);
        }
        for &index in added {
            put_row(&[], self.now.row(index as usize), out);
        }
    }
}

/// Appends what `new` has beyond `old`.
fn put_row(old: &[u8], new: &[u8], out: &mut Vec<u8>) {
    let pairs = old.iter().zip(new);
    let front = pairs.take_while(|(old, new)| old == new).count();
    let (old, new) = (&old[front..], &new[front..]);
    let pairs = old.iter().rev().zip(new.iter().rev());
    let end = pairs.take_while(|(old, new)| old == new).count();
    let between = &new[..new.len() - end];
    for len in [front, end, between.len()] {
        put_varint(out, len as u64);
    }
    out.extend_from_slice(between);
}

/// Appends indexes, which ascend.
fn put_indexes(
    indexes: impl Iterator<Item = u32>,
    memory: &mut Vec<i64>,
    bits: &mut BitWriter<'_>,
) {
    memory.clear();
    let mut next = 0;
    memory.extend(indexes.map(|index| {
        let gap = i64::from(index - next);
        next = index + 1;
        gap
    }));
    bits.column(memory);
}
