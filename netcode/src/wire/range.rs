//! A binary arithmetic coder: the hot bodies of datagrams are one number in an interval.
//!
//! Every decision is a bit with a 16-bit probability; the interval `[low, low + range)` shrinks to
//! the part of the bit that was taken. The coder keeps 64 bits of it and moves 32 at a time, as in
//! Subbotin's and Schindler's range coders; carries are resolved before bytes reach the output, so
//! bytes that were written never change and [`Encoder::restore`] is a truncation.
//!
//! The end costs nothing but rounding: a decoder reads zeros beyond the last byte, so the encoder
//! ends with the shortest bytes that lie inside the final interval. A stream of likely zero bits
//! is empty.
//!
//! Probabilities adapt only when the caller says so ([`Bit::update`]), because a datagram may be
//! lost: both ends train on what was acked.

use super::bytes::DecodeError;

mod symbols;

pub use symbols::{SYMBOL_BITS, Symbols};

/// Bits that [`Encoder::uniform`] takes at once.
pub const UNIFORM_BITS_MAX: u32 = 16;

/// The rate of learning never falls below 1 / (this + 2), so that a habit can change.
const SEEN_MAX: u16 = 126;

/// `RATES[n]` is 65536 / (n + 2): the Krichevsky-Trofimov estimator until [`SEEN_MAX`].
const RATES: [u16; SEEN_MAX as usize + 1] = {
    let mut rates = [0; SEEN_MAX as usize + 1];
    let mut n = 0;
    while n <= SEEN_MAX {
        #[expect(clippy::cast_possible_truncation, reason = "at most half of 65536")]
        let rate = (65536 / (n as u32 + 2)) as u16;
        rates[n as usize] = rate;
        n += 1;
    }
    rates
};

/// The chance that a bit is one, learned from those seen before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bit {
    /// Chance of a one in 65536ths, 1 to 65534.
    ones: u16,
    /// Weight of what was learned, up to [`SEEN_MAX`].
    seen: u16,
}

impl Bit {
    /// A bit that is one with a chance of `per_65536`, believed as much as two sightings.
    ///
    /// The chance is kept away from 0 and 1, where a bit would have no code.
    #[must_use]
    pub const fn new(per_65536: u16) -> Self {
        let ones = match per_65536 {
            0 => 1,
            u16::MAX => u16::MAX - 1,
            inside => inside,
        };
        Self { ones, seen: 2 }
    }

    /// A bit that is one with a chance of 1 in `n`, where `n` is at least 2.
    #[must_use]
    pub const fn one_in(n: u16) -> Self {
        let n = if n < 2 { 2 } else { n };
        #[expect(clippy::cast_possible_truncation, reason = "at most half of 65536")]
        Self::new((65536 / n as u32) as u16)
    }

    /// The chance of a one, in 65536ths.
    #[must_use]
    pub const fn per_65536(self) -> u16 {
        self.ones
    }

    /// Learns from one more bit.
    #[inline]
    pub fn update(&mut self, bit: bool) {
        let rate = u32::from(RATES[usize::from(self.seen)]);
        // A step is at most half of the distance, so the chance never reaches 0 or 65535.
        if bit {
            self.ones += high_half(u32::from(u16::MAX - self.ones) * rate);
        } else {
            self.ones -= high_half(u32::from(self.ones) * rate);
        }
        if self.seen < SEEN_MAX {
            self.seen += 1;
        }
    }
}

const fn high_half(product: u32) -> u16 {
    (product >> 16) as u16
}

/// What an [`Encoder`] can return to.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    low: u64,
    range: u64,
    /// The newest unit but for `run`, held back because a carry may still add one to it.
    held: Option<u32>,
    /// Units of all ones after `held`, which a carry would turn into zeros.
    run: u32,
    /// Length of the output.
    len: usize,
}

/// Writes decisions into a growing buffer.
#[derive(Debug)]
pub struct Encoder<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    low: u64,
    range: u64,
    held: Option<u32>,
    run: u32,
}

impl<'a> Encoder<'a> {
    /// A coder that appends to `out`.
    #[must_use]
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        let start = out.len();
        Self {
            out,
            start,
            low: 0,
            range: u64::MAX,
            held: None,
            run: 0,
        }
    }

    /// Goes on where an encoder of the same `out`, which began at `start`, gave `mark`.
    #[must_use]
    pub fn resume(out: &'a mut Vec<u8>, start: usize, mark: &Mark) -> Self {
        out.truncate(mark.len);
        Self {
            out,
            start,
            low: mark.low,
            range: mark.range,
            held: mark.held,
            run: mark.run,
        }
    }

    /// Codes one of the symbols of `table`.
    ///
    /// # Panics
    /// If the table has no such symbol.
    #[inline]
    pub fn symbol<const N: usize>(&mut self, symbol: usize, table: &Symbols<N>) {
        let (low, share) = table.share(symbol);
        let unit = self.range >> SYMBOL_BITS;
        // Products of 49 and 15 bits.
        self.add(u64::from(low).wrapping_mul(unit));
        self.range = u64::from(share).wrapping_mul(unit);
        self.normalize();
    }

    /// Codes `bit` with the chance that `model` gives it; `model` does not learn from it.
    #[inline]
    pub fn bit(&mut self, bit: bool, model: Bit) {
        let split = zeros_share(self.range, model);
        // Without a branch on what nobody could predict.
        self.add(if bit { split } else { 0 });
        self.range = if bit {
            self.range.wrapping_sub(split)
        } else {
            split
        };
        self.normalize();
    }

    /// Codes a zero with the chance that each of `models` gives it, as [`Encoder::bit`] does.
    #[inline]
    pub fn zeros(&mut self, models: impl Iterator<Item = Bit>) {
        let mut range = self.range;
        for model in models {
            range = zeros_share(range, model);
            if range < 1 << 32 {
                self.range = range;
                self.shift();
                range = self.range;
            }
        }
        self.range = range;
    }

    /// Codes the lowest `bits` bits of `value`, all values alike.
    ///
    /// # Panics
    /// If `bits` exceeds [`UNIFORM_BITS_MAX`] or `value` has more bits.
    #[inline]
    pub fn uniform(&mut self, value: u32, bits: u32) {
        assert!(
            bits <= UNIFORM_BITS_MAX && value >> bits == 0,
            "{value} in {bits} bits"
        );
        self.range >>= bits;
        self.add(u64::from(value).wrapping_mul(self.range));
        self.normalize();
    }

    /// Codes a number as the length of `value + 1`, a step at a time with `lengths`, and its lower
    /// bits as they are (Elias gamma). Each of `lengths` is the chance that it is longer.
    ///
    /// # Panics
    /// If `value` exceeds [`number_max`].
    pub fn number(&mut self, value: u32, lengths: &[Bit]) {
        assert!(value <= number_max(lengths), "{value} is too large to code");
        let length = (value + 1).ilog2();
        for (step, &model) in (0..).zip(lengths) {
            self.bit(step < length, model);
            if step == length {
                break;
            }
        }
        self.uniform(value + 1 - (1 << length), length);
    }

    /// Information coded so far, in bits, rounded down.
    #[must_use]
    #[inline]
    pub fn bits(&self) -> usize {
        let units = u32::from(self.held.is_some()) + self.run;
        (self.out.len() - self.start) * 8 + (units * 32 + self.range.leading_zeros()) as usize
    }

    /// Information coded so far, in 1024ths of a bit: for statistics.
    #[must_use]
    pub fn fine_bits(&self) -> u64 {
        let lost = self.range.leading_zeros();
        // Between powers of two by a chord; it lies below the logarithm by 0.09 bit at most.
        let top = (self.range << lost) >> 53;
        let units = u64::from(u32::from(self.held.is_some()) + self.run);
        let bytes = (self.out.len() - self.start) as u64;
        ((bytes * 8 + units * 32 + u64::from(lost) + 1) << 10) - (top - 1024)
    }

    /// Bytes that [`Encoder::finish`] would append now; never more, fewer if the last are zero.
    #[must_use]
    pub fn len(&self) -> usize {
        let units = u32::from(self.held.is_some()) + self.run;
        self.out.len() - self.start + units as usize * 4 + self.last_bytes().0
    }

    /// Whether [`Encoder::finish`] would append nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The state to return to with [`Encoder::restore`].
    #[must_use]
    pub fn mark(&self) -> Mark {
        Mark {
            low: self.low,
            range: self.range,
            held: self.held,
            run: self.run,
            len: self.out.len(),
        }
    }

    /// Forgets everything since `mark`, which this encoder gave.
    pub fn restore(&mut self, mark: &Mark) {
        self.low = mark.low;
        self.range = mark.range;
        self.held = mark.held;
        self.run = mark.run;
        self.out.truncate(mark.len);
    }

    /// Ends the stream and returns how many bytes it has.
    pub fn finish(mut self) -> usize {
        let (count, distance) = self.last_bytes();
        self.add(distance);
        self.release();
        self.out.extend_from_slice(&self.low.to_be_bytes()[..count]);
        while self.out.len() > self.start && self.out.last() == Some(&0) {
            self.out.pop();
        }
        self.out.len() - self.start
    }

    /// The fewest bytes that end the stream inside the interval, and their distance from `low`.
    fn last_bytes(&self) -> (usize, u64) {
        let mut below = u64::MAX;
        let mut count = 0;
        loop {
            // Up to the next number whose bytes after `count` are zero.
            let distance = self.low.wrapping_neg() & below;
            if distance < self.range {
                return (count, distance);
            }
            // After eight bytes the distance is zero.
            below >>= 8;
            count += 1;
        }
    }

    #[inline]
    fn add(&mut self, distance: u64) {
        let (low, carry) = self.low.overflowing_add(distance);
        self.low = low;
        if carry {
            self.carry();
        }
    }

    #[cold]
    fn carry(&mut self) {
        let held = self
            .held
            .expect("the whole interval ends below 1, so a carry has a unit to go to");
        self.held = Some(held + 1);
        if self.run > 0 {
            let zeros = self.run - 1;
            self.run = 0;
            self.release();
            for _ in 0..zeros {
                self.out.extend_from_slice(&[0; 4]);
            }
            self.held = Some(0);
        }
    }

    #[inline]
    fn normalize(&mut self) {
        // One step is enough: no decision takes more than 16 bits.
        if self.range < 1 << 32 {
            self.shift();
        }
    }

    fn shift(&mut self) {
        let unit = (self.low >> 32) as u32;
        self.low <<= 32;
        self.range <<= 32;
        if unit == u32::MAX && self.held.is_some() {
            self.run += 1;
        } else {
            self.release();
            self.held = Some(unit);
        }
    }

    /// Writes the units that a carry cannot reach any more.
    fn release(&mut self) {
        if let Some(held) = self.held.take() {
            self.out.extend_from_slice(&held.to_be_bytes());
        }
        for _ in 0..self.run {
            self.out.extend_from_slice(&[0xff; 4]);
        }
        self.run = 0;
    }
}

/// Reads decisions from bytes that nobody vouches for: wrong bytes give wrong decisions, at no
/// more cost than right ones.
#[derive(Clone, Debug)]
pub struct Decoder<'a> {
    bytes: &'a [u8],
    position: usize,
    /// The coded number minus `low`.
    code: u64,
    range: u64,
}

impl<'a> Decoder<'a> {
    /// A decoder of the whole of `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        let mut decoder = Self {
            bytes,
            position: 0,
            code: 0,
            range: u64::MAX,
        };
        decoder.code = u64::from(decoder.unit()) << 32;
        decoder.code |= u64::from(decoder.unit());
        decoder
    }

    /// The symbol that [`Encoder::symbol`] coded.
    #[inline]
    pub fn symbol<const N: usize>(&mut self, table: &Symbols<N>) -> usize {
        self.range >>= SYMBOL_BITS;
        // Bytes that no encoder writes may lie beyond the last symbol.
        let place = (self.code / self.range).min((1 << SYMBOL_BITS) - 1);
        let (symbol, low, share) = table.find(place as u32);
        self.code = self
            .code
            .wrapping_sub(u64::from(low).wrapping_mul(self.range));
        self.range = self.range.wrapping_mul(u64::from(share));
        self.normalize();
        symbol
    }

    /// The bit that [`Encoder::bit`] coded.
    #[inline]
    pub fn bit(&mut self, model: Bit) -> bool {
        let split = zeros_share(self.range, model);
        let bit = self.code >= split;
        self.code = self.code.wrapping_sub(if bit { split } else { 0 });
        self.range = if bit {
            self.range.wrapping_sub(split)
        } else {
            split
        };
        self.normalize();
        bit
    }

    /// The same for a bit that can be foreseen most of the time: what follows does not wait for it.
    #[inline]
    pub fn likely_bit(&mut self, model: Bit) -> bool {
        let split = zeros_share(self.range, model);
        let bit = self.code >= split;
        if bit {
            self.code = self.code.wrapping_sub(split);
            self.range = self.range.wrapping_sub(split);
        } else {
            self.range = split;
        }
        self.normalize();
        bit
    }

    /// Reads bits with the chances that `models` give them, up to the first one and with it. Returns
    /// how many zeros there were.
    #[inline]
    pub fn zeros(&mut self, models: impl Iterator<Item = Bit>) -> usize {
        let (mut range, mut code) = (self.range, self.code);
        let mut zeros = 0;
        for model in models {
            let split = zeros_share(range, model);
            let bit = code >= split;
            if bit {
                code = code.wrapping_sub(split);
                range = range.wrapping_sub(split);
            } else {
                range = split;
                zeros += 1;
            }
            if range < 1 << 32 {
                range <<= 32;
                code = (code << 32) | u64::from(self.unit());
            }
            if bit {
                break;
            }
        }
        (self.range, self.code) = (range, code);
        zeros
    }

    /// The value that [`Encoder::uniform`] coded.
    ///
    /// # Panics
    /// If `bits` exceeds [`UNIFORM_BITS_MAX`].
    #[inline]
    pub fn uniform(&mut self, bits: u32) -> u32 {
        assert!(bits <= UNIFORM_BITS_MAX, "{bits} bits at once");
        self.range >>= bits;
        // Bytes that no encoder writes may lie beyond the last value.
        let value = (self.code / self.range).min((1 << bits) - 1);
        self.code = self.code.wrapping_sub(value.wrapping_mul(self.range));
        self.normalize();
        #[expect(clippy::cast_possible_truncation, reason = "has at most 16 bits")]
        {
            value as u32
        }
    }

    /// The value that [`Encoder::number`] coded; never more than [`number_max`].
    pub fn number(&mut self, lengths: &[Bit]) -> u32 {
        let mut length = 0;
        for &model in lengths {
            if !self.bit(model) {
                break;
            }
            length += 1;
        }
        (1 << length) - 1 + self.uniform(length)
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// If bytes are left over, or end in zeros that the encoder would have left out.
    pub fn finish(self) -> Result<(), DecodeError> {
        if self.position < self.bytes.len() {
            return Err(DecodeError::Trailing(self.bytes.len() - self.position));
        }
        if self.bytes.last() == Some(&0) || self.code >= self.range {
            return Err(DecodeError::Invalid("no coder ends like this"));
        }
        Ok(())
    }

    #[inline]
    fn normalize(&mut self) {
        if self.range < 1 << 32 {
            self.range <<= 32;
            self.code = (self.code << 32) | u64::from(self.unit());
        }
    }

    /// The next four bytes, zeros beyond the end.
    #[inline]
    fn unit(&mut self) -> u32 {
        let rest = self.bytes.get(self.position..).unwrap_or_default();
        self.position = self.position.saturating_add(4);
        match rest.first_chunk::<4>() {
            Some(unit) => u32::from_be_bytes(*unit),
            None => last_unit(rest),
        }
    }
}

/// Fewer than four bytes, and zeros.
#[cold]
fn last_unit(rest: &[u8]) -> u32 {
    let mut unit = [0; 4];
    for (to, from) in unit.iter_mut().zip(rest) {
        *to = *from;
    }
    u32::from_be_bytes(unit)
}

/// The largest value that [`Encoder::number`] codes with `lengths`.
///
/// # Panics
/// If there are more than 16 lengths.
#[must_use]
pub const fn number_max(lengths: &[Bit]) -> u32 {
    assert!(
        lengths.len() <= UNIFORM_BITS_MAX as usize,
        "at most 16 lengths"
    );
    (2 << lengths.len()) - 2
}

/// The part of `range` that belongs to a zero. It and the rest are at least 2^16, as `range` is at
/// least 2^32.
#[inline]
fn zeros_share(range: u64, model: Bit) -> u64 {
    (range >> 16).wrapping_mul(65536_u64.wrapping_sub(u64::from(model.ones)))
}

#[cfg(test)]
mod tests;
