//! Reading hostile bytes, and writing ours.
//!
//! A [`Reader`] never panics and never allocates more than the bytes at hand justify. Numbers are
//! little-endian; varints are LEB128 and must be canonical, so that one value has one form.

/// Why bytes are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end too early.
    #[error("the data ends too early")]
    Truncated,
    /// Bytes are left over.
    #[error("{0} bytes are left over")]
    Trailing(usize),
    /// A value has no meaning, or breaks a limit; the text says which.
    #[error("{0}")]
    Invalid(&'static str),
}

/// A cursor over bytes that nobody vouches for.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader of `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What was not read yet.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Number of bytes not read yet.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.rest.len()
    }

    /// Whether all was read.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next `count` bytes.
    ///
    /// # Errors
    /// If fewer are left.
    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (bytes, rest) = self
            .rest
            .split_at_checked(count)
            .ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(bytes)
    }

    /// The next `N` bytes.
    ///
    /// # Errors
    /// If fewer are left.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (bytes, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(*bytes)
    }

    /// One byte.
    ///
    /// # Errors
    /// If none is left.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.array::<1>()?[0])
    }

    /// A byte that must be 0 or 1.
    ///
    /// # Errors
    /// If none is left or it is another.
    pub fn bool(&mut self) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::Invalid("a boolean is neither 0 nor 1")),
        }
    }

    /// Two bytes.
    ///
    /// # Errors
    /// If fewer are left.
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// Four bytes.
    ///
    /// # Errors
    /// If fewer are left.
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Eight bytes.
    ///
    /// # Errors
    /// If fewer are left.
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Sixteen bytes.
    ///
    /// # Errors
    /// If fewer are left.
    pub fn u128(&mut self) -> Result<u128, DecodeError> {
        Ok(u128::from_le_bytes(self.array()?))
    }

    /// A LEB128 number in its shortest form.
    ///
    /// # Errors
    /// If it ends too early, is longer than needed, or exceeds 64 bits.
    pub fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let part = u64::from(byte & 0x7f);
            if shift == 63 && part > 1 {
                return Err(DecodeError::Invalid("a varint exceeds 64 bits"));
            }
            value |= part << shift;
            if byte & 0x80 == 0 {
                if part == 0 && shift > 0 {
                    return Err(DecodeError::Invalid("a varint is longer than needed"));
                }
                return Ok(value);
            }
        }
        Err(DecodeError::Invalid("a varint exceeds 64 bits"))
    }

    /// A varint that fits 32 bits.
    ///
    /// # Errors
    /// As [`Reader::varint`], or if it is larger.
    pub fn varint_u32(&mut self) -> Result<u32, DecodeError> {
        u32::try_from(self.varint()?)
            .map_err(|_too_large| DecodeError::Invalid("a number exceeds 32 bits"))
    }

    /// Bytes after their count (a varint), at most `max`.
    ///
    /// # Errors
    /// If the count exceeds `max` or the bytes at hand.
    pub fn counted(&mut self, max: usize) -> Result<&'a [u8], DecodeError> {
        let count = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
        if count > max {
            return Err(DecodeError::Invalid("a length exceeds its limit"));
        }
        self.bytes(count)
    }

    /// UTF-8 text after its count of bytes, at most `max`.
    ///
    /// # Errors
    /// As [`Reader::counted`], or if it is not UTF-8.
    pub fn text(&mut self, max: usize) -> Result<&'a str, DecodeError> {
        core::str::from_utf8(self.counted(max)?)
            .map_err(|_not_utf8| DecodeError::Invalid("a text is not UTF-8"))
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// If bytes are left over.
    pub const fn finish(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::Trailing(self.rest.len()))
        }
    }
}

/// Appends `value` as LEB128 in its shortest form.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    loop {
        let low = value.to_le_bytes()[0] & 0x7f;
        value >>= 7;
        if value == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

/// Appends `bytes` after their count.
pub fn put_counted(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_have_one_form() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            let mut reader = Reader::new(&bytes);
            assert_eq!(reader.varint(), Ok(value));
            assert_eq!(reader.finish(), Ok(()));
        }
        assert!(
            Reader::new(&[0x80, 0x00]).varint().is_err(),
            "longer than needed"
        );
        assert!(Reader::new(&[0xff; 10]).varint().is_err(), "beyond 64 bits");
        assert_eq!(Reader::new(&[0x80]).varint(), Err(DecodeError::Truncated));
    }

    #[test]
    fn a_hostile_length_does_not_allocate_or_panic() {
        let mut bytes = Vec::new();
        put_varint(&mut bytes, u64::MAX);
        assert!(Reader::new(&bytes).counted(1 << 30).is_err());
        assert_eq!(
            Reader::new(&[5, 1]).counted(10),
            Err(DecodeError::Truncated)
        );
    }
}
