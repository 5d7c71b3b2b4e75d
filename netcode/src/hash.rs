//! Hashes that are equal on every platform.
//!
//! [`mix`] and [`ValueHasher`] are for state: fast, and good enough that an accident does not
//! collide. [`digest`] (XXH3-64) is for files and schemas. None of them resists an adversary who
//! chooses the values; the handshake and the links authenticate peers.

/// Odd constants: digits of the golden ratio and of pi.
const K0: u64 = 0x9e37_79b9_7f4a_7c15;
const K1: u64 = 0x243f_6a88_85a3_08d3;

/// Mixes two words into one: both halves of a 128-bit product, folded.
#[must_use]
pub const fn mix(a: u64, b: u64) -> u64 {
    let product = (a ^ K0) as u128 * (b ^ K1) as u128;
    (product & 0xffff_ffff_ffff_ffff) as u64 ^ ((product >> 64) as u64)
}

/// XXH3-64 of `bytes`.
#[must_use]
pub fn digest(bytes: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(bytes)
}

/// A pseudo-random function of `secret` and `data`: `SipHash`-2-4 (Aumasson and Bernstein, 2012).
///
/// Resume tokens come from it: whoever sees some of them learns nothing about others.
#[must_use]
pub fn keyed(secret: u128, data: &[u8]) -> u64 {
    let [k0, k1] = [secret & u128::from(u64::MAX), secret >> 64]
        .map(|half| u64::try_from(half).unwrap_or_default());
    let mut v = [
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ];
    let mut take = |word: u64| {
        v[3] ^= word;
        sip_round(&mut v);
        sip_round(&mut v);
        v[0] ^= word;
    };
    let mut chunks = data.chunks_exact(8);
    for chunk in &mut chunks {
        let mut word = [0; 8];
        word.copy_from_slice(chunk);
        take(u64::from_le_bytes(word));
    }
    let mut last = [0; 8];
    last[..chunks.remainder().len()].copy_from_slice(chunks.remainder());
    last[7] = data.len().to_le_bytes()[0];
    take(u64::from_le_bytes(last));
    v[2] ^= 0xff;
    for _ in 0..4 {
        sip_round(&mut v);
    }
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

/// The number that everyone may know of a session whose seed is `seed`: who has it learns nothing
/// about the seed but by trying seeds, and a seed of 64 random bits outlasts that. One that is
/// guessed is known, whatever is derived from it.
#[must_use]
pub fn public_seed(seed: u64) -> u64 {
    keyed(u128::from(seed), b"public seed")
}

const fn sip_round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[2] = v[2].rotate_left(32);
}

/// Hashes one value, given as a stream of little-endian bytes.
///
/// The stream is cut into words of 8 bytes, whatever the calls that delivered it: two `u32` cost
/// as much as one `u64`, and [`ValueHasher::raw`] over a value's exact bytes gives the same as its
/// fields one by one. The last word is filled with zeros, so the streams that are compared must
/// be self-delimiting (none the beginning of another), as exact forms are.
#[derive(Clone, Copy, Debug)]
pub struct ValueHasher {
    state: u64,
    /// Bytes that do not fill a word yet, from the lowest up.
    pending: u64,
    /// Bits in `pending`: below 64, a multiple of 8.
    filled: u32,
}

impl ValueHasher {
    /// A hasher whose result depends on `salt`, for example a component kind.
    #[must_use]
    pub const fn new(salt: u64) -> Self {
        Self {
            state: salt,
            pending: 0,
            filled: 0,
        }
    }

    /// Takes the low `bits` (8 to 64, whole bytes) of `value`; the others must be zero.
    ///
    /// Always inlined: where the layout is known, `filled` is a constant and the branches go.
    #[inline(always)]
    const fn push(&mut self, value: u64, bits: u32) {
        let word = self.pending | (value << self.filled);
        let total = self.filled + bits;
        if total < 64 {
            self.pending = word;
            self.filled = total;
            return;
        }
        self.state = mix(self.state.rotate_left(23), word);
        self.pending = if self.filled == 0 {
            0
        } else {
            value >> (64 - self.filled)
        };
        self.filled = total - 64;
    }

    /// Takes one byte.
    #[inline(always)]
    pub const fn u8(&mut self, value: u8) {
        self.push(value as u64, 8);
    }

    /// Takes two bytes.
    #[inline(always)]
    pub const fn u16(&mut self, value: u16) {
        self.push(value as u64, 16);
    }

    /// Takes four bytes.
    #[inline(always)]
    pub const fn u32(&mut self, value: u32) {
        self.push(value as u64, 32);
    }

    /// Takes eight bytes.
    #[inline(always)]
    pub const fn word(&mut self, word: u64) {
        self.push(word, 64);
    }

    /// Takes a float by its bits, with all NaNs as one: their sign differs between platforms.
    #[inline(always)]
    pub const fn float32(&mut self, value: f32) {
        self.u32(canonical_f32_bits(value));
    }

    /// Takes a float by its bits, with all NaNs as one.
    #[inline(always)]
    pub const fn float64(&mut self, value: f64) {
        self.word(canonical_f64_bits(value));
    }

    /// Takes bytes without their length.
    #[inline]
    pub fn raw(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.word(u64::from_le_bytes(*word));
        }
        for &byte in rest {
            self.u8(byte);
        }
    }

    /// Takes bytes, after their length as one word.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.word(bytes.len() as u64);
        self.raw(bytes);
    }

    /// The hash of all that was taken.
    #[inline]
    #[must_use]
    pub const fn finish(&self) -> u64 {
        if self.filled == 0 {
            self.state
        } else {
            mix(self.state.rotate_left(23), self.pending)
        }
    }
}

/// Bits of `value`, one pattern for every NaN.
#[inline]
#[must_use]
pub const fn canonical_f32_bits(value: f32) -> u32 {
    if value.is_nan() {
        0x7fc0_0000
    } else {
        value.to_bits()
    }
}

/// Bits of `value`, one pattern for every NaN.
#[inline]
#[must_use]
pub const fn canonical_f64_bits(value: f64) -> u64 {
    if value.is_nan() {
        0x7ff8_0000_0000_0000
    } else {
        value.to_bits()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keyed_hash_is_siphash() {
        // The first test vectors of the reference implementation: key 00..0f, data 00..n.
        let secret = u128::from_le_bytes(core::array::from_fn(|i| i.to_le_bytes()[0]));
        assert_eq!(keyed(secret, &[]), 0x726f_db47_dd0e_0e31);
        assert_eq!(keyed(secret, &[0]), 0x74f8_39c5_93dc_67fd);
        let data: Vec<u8> = (0..15).collect();
        assert_eq!(keyed(secret, &data), 0xa129_ca61_49be_45e5);
    }

    #[test]
    fn value_hash_depends_on_order_salt_and_length() {
        let of = |salt, words: &[u64]| {
            let mut hasher = ValueHasher::new(salt);
            words.iter().for_each(|&word| hasher.word(word));
            hasher.finish()
        };
        assert_ne!(of(0, &[1, 2]), of(0, &[2, 1]));
        assert_ne!(of(0, &[1]), of(1, &[1]));
        assert_ne!(of(0, &[0]), of(0, &[0, 0]));
        let mut a = ValueHasher::new(0);
        a.bytes(&[0]);
        let mut b = ValueHasher::new(0);
        b.bytes(&[0, 0]);
        assert_ne!(a.finish(), b.finish());
    }

    #[test]
    fn how_the_stream_is_cut_does_not_matter() {
        let bytes: Vec<u8> = (1..=29).collect();
        let mut whole = ValueHasher::new(3);
        whole.raw(&bytes);
        for cut in 0..bytes.len() {
            let mut parts = ValueHasher::new(3);
            parts.raw(&bytes[..cut]);
            parts.raw(&bytes[cut..]);
            assert_eq!(parts.finish(), whole.finish(), "cut at {cut}");
        }
        let mut typed = ValueHasher::new(3);
        typed.u8(1);
        typed.u16(0x0302);
        typed.u32(0x0706_0504);
        typed.word(0x0f0e_0d0c_0b0a_0908);
        typed.raw(&bytes[15..]);
        assert_eq!(typed.finish(), whole.finish());
    }

    #[test]
    fn every_nan_is_one_and_zeros_keep_their_sign() {
        assert_eq!(canonical_f32_bits(f32::NAN), canonical_f32_bits(-f32::NAN));
        assert_ne!(canonical_f32_bits(0.0), canonical_f32_bits(-0.0));
    }
}
