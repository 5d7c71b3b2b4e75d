//! The arithmetic coder and the fixed tables, as chapters 8.1 and 10.5 of the document have them.

/// Why bytes do not read as the document says.
pub(super) type Wrong = &'static str;

/// `tables.bin`.
pub(super) struct Tables {
    shares: Vec<[u16; 69]>,
    chances: Vec<u16>,
    pub(super) courses: Vec<[i64; 3]>,
    pub(super) neighbours: Vec<[i64; 2]>,
}

impl Tables {
    pub(super) fn read(bytes: &[u8]) -> Self {
        assert_eq!(bytes.len(), 2 * (640 * 69 + 147 + 64 * 3 + 81 * 2));
        let mut words = bytes
            .chunks_exact(2)
            .map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
        let mut word = || words.next().unwrap();
        let shares: Vec<[u16; 69]> = (0..640).map(|_| [(); 69].map(|()| word())).collect();
        for shares in &shares {
            let sum: u32 = shares.iter().map(|&share| u32::from(share)).sum();
            assert!(sum == 32768 && !shares.contains(&0));
        }
        let chances = (0..147).map(|_| word()).collect();
        let mut signed = || i64::from(word().cast_signed());
        Self {
            shares,
            chances,
            courses: (0..64).map(|_| [(); 3].map(|()| signed())).collect(),
            neighbours: (0..81).map(|_| [(); 2].map(|()| signed())).collect(),
        }
    }
}

pub(super) struct Coder<'a> {
    bytes: &'a [u8],
    position: usize,
    range: u64,
    code: u64,
    tables: &'a Tables,
}

impl<'a> Coder<'a> {
    pub(super) fn new(bytes: &'a [u8], tables: &'a Tables) -> Self {
        let mut coder = Self {
            bytes,
            position: 0,
            range: u64::MAX,
            code: 0,
            tables,
        };
        coder.code = (0..8).fold(0, |code, _| code << 8 | coder.next());
        coder
    }

    fn next(&mut self) -> u64 {
        let byte = self.bytes.get(self.position).copied().unwrap_or(0);
        self.position += 1;
        u64::from(byte)
    }

    fn normalize(&mut self) {
        if self.range < 1 << 32 {
            self.range <<= 32;
            self.code = (0..4).fold(self.code, |code, _| code << 8 | self.next());
        }
    }

    pub(super) fn flag(&mut self, context: usize) -> bool {
        let ones = self.tables.chances[context].clamp(1, 65534);
        let split = (self.range >> 16) * (65536 - u64::from(ones));
        let is_one = self.code >= split;
        if is_one {
            self.code -= split;
            self.range -= split;
        } else {
            self.range = split;
        }
        self.normalize();
        is_one
    }

    pub(super) fn uniform(&mut self, bits: u32) -> u64 {
        self.range >>= bits;
        let value = (self.code / self.range).min((1 << bits) - 1);
        self.code -= value * self.range;
        self.normalize();
        value
    }

    /// Upper bits first where there are more than 16.
    pub(super) fn plain(&mut self, bits: u32) -> u64 {
        if bits > 16 {
            let upper = self.uniform(bits - 16);
            return upper << 16 | self.uniform(16);
        }
        if bits == 0 { 0 } else { self.uniform(bits) }
    }

    pub(super) fn symbol(&mut self, table: usize) -> u32 {
        self.range >>= 15;
        let place = (self.code / self.range).min(32767);
        let mut below = 0;
        let mut symbol = 0;
        for &share in &self.tables.shares[table] {
            let share = u64::from(share);
            if place < below + share {
                self.code -= below * self.range;
                self.range *= share;
                break;
            }
            below += share;
            symbol += 1;
        }
        self.normalize();
        symbol
    }

    pub(super) fn gamma(&mut self) -> u64 {
        let mut length = 0;
        while length < 63 && self.uniform(1) == 0 {
            length += 1;
        }
        let mut value: u64 = 1;
        let mut left = length;
        while left > 0 {
            let bits = left.min(16);
            value = value << bits | self.uniform(bits);
            left -= bits;
        }
        value - 1
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
