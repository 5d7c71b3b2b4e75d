//! Numbers, texts and the arithmetic coder, as chapters 1 and 8 of the document have them.

/// Why bytes do not read as the document says.
pub(super) type Wrong = &'static str;

/// A cursor over bytes.
#[derive(Clone, Copy)]
pub(super) struct Bytes<'a>(pub(super) &'a [u8]);

impl<'a> Bytes<'a> {
    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], Wrong> {
        let (head, rest) = self.0.split_at_checked(count).ok_or("too short")?;
        self.0 = rest;
        Ok(head)
    }

    /// Little-endian number of `count` bytes.
    pub(super) fn fixed(&mut self, count: usize) -> Result<u128, Wrong> {
        let bytes = self.take(count)?;
        Ok(bytes
            .iter()
            .rev()
            .fold(0, |value, &byte| value << 8 | u128::from(byte)))
    }

    pub(super) fn byte(&mut self) -> Result<u8, Wrong> {
        Ok(self.take(1)?[0])
    }

    /// LEB128 in its shortest form.
    pub(super) fn varint(&mut self) -> Result<u64, Wrong> {
        let mut value = 0_u128;
        for place in 0..10 {
            let byte = self.byte()?;
            value |= u128::from(byte & 0x7f) << (7 * place);
            if byte < 0x80 {
                if byte == 0 && place > 0 {
                    return Err("a longer form of a varint");
                }
                return u64::try_from(value).map_err(|_| "a varint beyond 64 bits");
            }
        }
        Err("a varint beyond 64 bits")
    }

    /// The variable integers of handshake bodies and control messages.
    pub(super) fn marked(&mut self) -> Result<u128, Wrong> {
        match self.byte()? {
            251 => self.fixed(2),
            252 => self.fixed(4),
            253 => self.fixed(8),
            254 => self.fixed(16),
            255 => Err("a reserved mark"),
            small => Ok(u128::from(small)),
        }
    }

    pub(super) fn text(&mut self) -> Result<String, Wrong> {
        let count = usize::try_from(self.marked()?).map_err(|_| "a long text")?;
        String::from_utf8(self.take(count)?.to_vec()).map_err(|_| "a text that is not UTF-8")
    }

    pub(super) fn flag(&mut self) -> Result<bool, Wrong> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err("a flag beyond 1"),
        }
    }

    /// The variable integers of QUIC.
    pub(super) fn quic(&mut self) -> Result<u64, Wrong> {
        let first = self.byte()?;
        let more = self.take((1 << (first >> 6)) - 1)?;
        Ok(more.iter().fold(u64::from(first & 0x3f), |value, &byte| {
            value << 8 | u64::from(byte)
        }))
    }

    pub(super) fn end(self) -> Result<(), Wrong> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err("bytes left over")
        }
    }
}

/// A chance of a one in 65536ths, and how firmly it is believed.
#[derive(Clone, Copy)]
pub(super) struct Chance {
    pub(super) ones: u16,
    seen: u32,
}

impl Chance {
    pub(super) const fn new(ones: u16) -> Self {
        Self { ones, seen: 2 }
    }

    pub(super) fn one_in(k: u32) -> Self {
        Self::new(u16::try_from(65536 / k).unwrap())
    }

    pub(super) fn learn(&mut self, bit: bool) {
        let rate = 65536 / (self.seen + 2);
        let ones = u32::from(self.ones);
        let ones = if bit {
            ones + (((65535 - ones) * rate) >> 16)
        } else {
            ones - ((ones * rate) >> 16)
        };
        self.ones = u16::try_from(ones).unwrap();
        self.seen = (self.seen + 1).min(126);
    }
}

/// The arithmetic decoder.
pub(super) struct Stream<'a> {
    bytes: &'a [u8],
    position: usize,
    range: u64,
    code: u64,
}

impl<'a> Stream<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        let mut stream = Self {
            bytes,
            position: 0,
            range: u64::MAX,
            code: 0,
        };
        stream.code = stream.four() << 32 | stream.four();
        stream
    }

    fn four(&mut self) -> u64 {
        let at = self.position;
        self.position += 4;
        (at..at + 4).fold(0, |value, at| {
            value << 8 | u64::from(self.bytes.get(at).copied().unwrap_or(0))
        })
    }

    fn normalize(&mut self) {
        if self.range < 1 << 32 {
            self.range <<= 32;
            self.code = self.code << 32 | self.four();
        }
    }

    pub(super) fn bit(&mut self, chance: Chance) -> bool {
        let split = (self.range >> 16) * (65536 - u64::from(chance.ones));
        let bit = self.code >= split;
        if bit {
            self.code -= split;
            self.range -= split;
        } else {
            self.range = split;
        }
        self.normalize();
        bit
    }

    pub(super) fn uniform(&mut self, bits: u32) -> u32 {
        self.range >>= bits;
        let value = (self.code / self.range).min((1 << bits) - 1);
        self.code -= value * self.range;
        self.normalize();
        u32::try_from(value).unwrap()
    }

    pub(super) fn number(&mut self, chances: &[Chance]) -> u32 {
        let mut length = 0;
        for &chance in chances {
            if !self.bit(chance) {
                break;
            }
            length += 1;
        }
        (1 << length) - 1 + self.uniform(length)
    }

    pub(super) fn end(self) -> Result<(), Wrong> {
        if self.bytes.len() > self.position {
            return Err("bytes behind the stream");
        }
        if self.bytes.last() == Some(&0) {
            return Err("a zero at the end of the stream");
        }
        if self.code >= self.range {
            return Err("a stream beyond its interval");
        }
        Ok(())
    }
}
