//! Columns of numbers in as few bits as their sizes ask for.
//!
//! A column is cut into blocks of [`BLOCK`] numbers. All numbers of a block take the width of its
//! largest; a block of zeros takes no bits but its width. Trailing zeros that all numbers of a
//! column have in common are left out.
//!
//! | part | bits |
//! |---|---|
//! | width | 7: bits of the largest number of the column, 0 to 64; 0: all are 0, and nothing follows |
//! | shift | 6: trailing zeros that are left out |
//! | per block: its width | as many as the column's width needs in binary |
//! | per block: its numbers | each as many as the block's width |
//!
//! Bits fill bytes from the lowest; a number's lowest bit comes first.

use crate::wire::bytes::DecodeError;

/// Numbers that share a width.
const BLOCK: usize = 16;

/// Appends bits to bytes.
pub(super) struct BitWriter<'a> {
    out: &'a mut Vec<u8>,
    pending: u128,
    count: u32,
}

impl<'a> BitWriter<'a> {
    pub(super) const fn new(out: &'a mut Vec<u8>) -> Self {
        Self {
            out,
            pending: 0,
            count: 0,
        }
    }

    /// Appends the lowest `width` bits of `value`, 64 at most; the others are 0.
    #[inline]
    fn put(&mut self, value: u64, width: u32) {
        debug_assert!(width <= 64 && bits_of(value) <= width);
        self.pending |= u128::from(value) << self.count;
        self.count += width;
        if self.count >= 64 {
            self.out.extend_from_slice(&self.pending.to_le_bytes()[..8]);
            self.pending >>= 64;
            self.count -= 64;
        }
    }

    /// Appends a flag.
    pub(super) fn flag(&mut self, flag: bool) {
        self.put(u64::from(flag), 1);
    }

    /// Appends a column of differences.
    pub(super) fn column(&mut self, differences: &[i64]) {
        let all = differences.iter().fold(0, |all, &one| all | one);
        let shift = if all == 0 { 0 } else { all.trailing_zeros() };
        let fold = |one: i64| zigzag(one >> shift);
        let width = bits_of(
            differences
                .iter()
                .fold(0, |widest, &one| widest | fold(one)),
        );
        self.put(u64::from(width), 7);
        if width == 0 {
            return;
        }
        self.put(u64::from(shift), 6);
        let width_bits = bits_of(u64::from(width));
        for block in differences.chunks(BLOCK) {
            let width = bits_of(block.iter().fold(0, |widest, &one| widest | fold(one)));
            self.put(u64::from(width), width_bits);
            if width > 0 {
                for &one in block {
                    self.put(fold(one), width);
                }
            }
        }
    }

    /// Fills the last byte with zeros.
    pub(super) fn finish(self) {
        let bytes = self.count.div_ceil(8) as usize;
        self.out
            .extend_from_slice(&self.pending.to_le_bytes()[..bytes]);
    }
}

/// Bits that `differences` take as a column, but for widths and shift.
pub(super) fn cost(differences: &[i64]) -> u64 {
    differences
        .iter()
        .map(|&one| u64::from(bits_of(zigzag(one))))
        .sum()
}

/// Takes bits from bytes.
pub(super) struct BitReader<'a> {
    bytes: &'a [u8],
    /// Bytes of which bits are pending or taken.
    read: usize,
    pending: u128,
    count: u32,
}

impl<'a> BitReader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            read: 0,
            pending: 0,
            count: 0,
        }
    }

    /// Takes 64 bits at most.
    #[inline]
    fn take(&mut self, width: u32) -> Result<u64, DecodeError> {
        while self.count < width {
            let rest = &self.bytes[self.read..];
            if let Some(word) = rest.first_chunk::<8>() {
                self.pending |= u128::from(u64::from_le_bytes(*word)) << self.count;
                self.count += 64;
                self.read += 8;
            } else {
                let &byte = rest.first().ok_or(DecodeError::Truncated)?;
                self.pending |= u128::from(byte) << self.count;
                self.count += 8;
                self.read += 1;
            }
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the lowest 64 bits are meant"
        )]
        let low = self.pending as u64;
        self.pending >>= width;
        self.count -= width;
        let above = 64 - width;
        Ok(if above == 64 {
            0
        } else {
            low << above >> above
        })
    }

    /// Reads a flag.
    pub(super) fn flag(&mut self) -> Result<bool, DecodeError> {
        Ok(self.take(1)? == 1)
    }

    /// Reads a column of `count` differences into `out`, which it clears. The caller vouches for
    /// the memory of so many.
    pub(super) fn column(&mut self, count: usize, out: &mut Vec<i64>) -> Result<(), DecodeError> {
        out.clear();
        let width = self.take(7)?;
        if width > 64 {
            return Err(DecodeError::Invalid("a column is wider than 64 bits"));
        }
        if width == 0 {
            out.resize(count, 0);
            return Ok(());
        }
        let shift = self.take(6)?;
        let width_bits = bits_of(width);
        while out.len() < count {
            let len = BLOCK.min(count - out.len());
            let block_width = self.take(width_bits)?;
            if block_width > width {
                return Err(DecodeError::Invalid("a block is wider than its column"));
            }
            if block_width == 0 {
                out.resize(out.len() + len, 0);
                continue;
            }
            let block_width = u32::try_from(block_width).unwrap_or(64);
            for _ in 0..len {
                let one = unzigzag(self.take(block_width)?);
                out.push(one << shift);
            }
        }
        Ok(())
    }

    /// Bytes of which bits were taken; the rest of the last one is zeros.
    pub(super) fn finish(self) -> Result<usize, DecodeError> {
        let padding = self.count % 8;
        if self.pending & ((1 << padding) - 1) != 0 {
            return Err(DecodeError::Invalid("padding is not zero"));
        }
        Ok(self.read - (self.count / 8) as usize)
    }
}

/// Bits that `value` needs.
#[inline]
const fn bits_of(value: u64) -> u32 {
    64 - value.leading_zeros()
}

/// Small numbers of either sign as small numbers: 0, -1, 1, -2 …
#[inline]
pub(super) const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

#[inline]
pub(super) const fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prng::Prng;

    #[test]
    fn columns_come_back() {
        for seed in 0..2000 {
            let mut prng = Prng::new(seed);
            let columns: Vec<Vec<i64>> = (0..4)
                .map(|_| {
                    let (down, up) = (prng.below(64), prng.below(8));
                    (0..prng.below(70))
                        .map(|_| {
                            let one = prng.next_u64().cast_signed() >> down << up;
                            if prng.below(3) > 0 { one } else { 0 }
                        })
                        .collect()
                })
                .collect();
            let mut bytes = Vec::new();
            let mut writer = BitWriter::new(&mut bytes);
            columns.iter().for_each(|column| writer.column(column));
            writer.finish();
            let len = bytes.len();
            bytes.extend([0xff; 9]);
            let mut reader = BitReader::new(&bytes);
            let mut found = Vec::new();
            for column in &columns {
                reader.column(column.len(), &mut found).unwrap();
                assert_eq!(&found, column, "seed {seed}");
            }
            assert_eq!(reader.finish(), Ok(len), "seed {seed}");
        }
    }

    #[test]
    fn a_column_takes_the_bits_of_its_numbers() {
        let bytes_of = |column: &[i64]| {
            let mut bytes = Vec::new();
            let mut writer = BitWriter::new(&mut bytes);
            writer.column(column);
            writer.finish();
            bytes
        };
        assert_eq!(bytes_of(&[0; 1000]), [0], "width 0");
        // From the lowest bit on: width 2, shift 3, a block of width 2, and -1 and 1 as 1 and 2.
        let bits = 2 | 3 << 7 | 2 << 13 | 1 << 15 | 2 << 17;
        assert_eq!(bytes_of(&[-8, 8]), u32::to_le_bytes(bits)[..3]);
    }

    #[test]
    fn bad_columns_are_refused() {
        let read = |bytes: &[u8], count| {
            let mut reader = BitReader::new(bytes);
            reader.column(count, &mut Vec::new())?;
            reader.finish()
        };
        let invalid = |bytes: &[u8]| matches!(read(bytes, 4), Err(DecodeError::Invalid(_)));
        assert!(invalid(&[65]), "too wide");
        assert!(
            invalid(&[0x82, 0x61, 0xff]),
            "a block wider than its column"
        );
        assert!(invalid(&[0x80]), "padding");
        assert_eq!(read(&[0x82, 0x41], 4), Err(DecodeError::Truncated));
        assert_eq!(read(&[], 0), Err(DecodeError::Truncated));
    }
}
