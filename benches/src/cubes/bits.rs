//! Plain bit packing, most significant bit first.

/// Appends bits to bytes.
#[derive(Debug)]
pub(super) struct BitWriter<'a> {
    bytes: &'a mut Vec<u8>,
    /// Pending bits, the youngest lowest.
    pending: u64,
    count: u32,
}

impl<'a> BitWriter<'a> {
    pub(super) fn new(bytes: &'a mut Vec<u8>) -> Self {
        Self {
            bytes,
            pending: 0,
            count: 0,
        }
    }

    /// Writes the lowest `bits` of `value`, at most 32.
    pub(super) fn write(&mut self, value: u32, bits: u32) {
        debug_assert!(bits <= 32 && u64::from(value) >> bits == 0);
        self.pending = self.pending << bits | u64::from(value);
        self.count += bits;
        if self.count >= 32 {
            self.count -= 32;
            let word = (self.pending >> self.count) & u64::from(u32::MAX);
            self.bytes.extend(&word.to_be_bytes()[4..]);
        }
    }

    pub(super) fn flag(&mut self, value: bool) {
        self.write(u32::from(value), 1);
    }

    /// Writes what is pending; the last byte is filled up with zeros.
    pub(super) fn finish(self) {
        let whole = self.pending << (64 - self.count - 1) << 1;
        let bytes = self.count.div_ceil(8) as usize;
        self.bytes.extend(&whole.to_be_bytes()[..bytes]);
    }
}

/// Takes bits from bytes. Beyond the end there are zeros; [`BitReader::finish`] tells.
#[derive(Debug)]
pub(super) struct BitReader<'a> {
    bytes: &'a [u8],
    next: usize,
    pending: u64,
    count: u32,
}

impl<'a> BitReader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            next: 0,
            pending: 0,
            count: 0,
        }
    }

    /// The next `bits`, at most 32.
    pub(super) fn read(&mut self, bits: u32) -> u32 {
        while self.count < bits {
            let byte = self.bytes.get(self.next).copied().unwrap_or(0);
            self.next += 1;
            self.pending = self.pending << 8 | u64::from(byte);
            self.count += 8;
        }
        self.count -= bits;
        let value = (self.pending >> self.count) & ((1 << bits) - 1);
        u32::try_from(value).unwrap_or(u32::MAX)
    }

    pub(super) fn flag(&mut self) -> bool {
        self.read(1) == 1
    }

    /// Whether exactly the given bytes were read.
    pub(super) fn finish(&self) -> bool {
        self.next == self.bytes.len()
    }
}
