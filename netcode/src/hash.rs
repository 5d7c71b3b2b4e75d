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

/// Hashes one value, word by word, in the order of its fields.
#[derive(Clone, Copy, Debug)]
pub struct ValueHasher {
    state: u64,
}

impl ValueHasher {
    /// A hasher whose result depends on `salt`, for example a component kind.
    #[must_use]
    pub const fn new(salt: u64) -> Self {
        Self { state: salt }
    }

    /// Takes one word. Order matters.
    #[inline]
    pub const fn word(&mut self, word: u64) {
        self.state = mix(self.state.rotate_left(23), word);
    }

    /// Takes a float by its bits, with all NaNs as one: their sign differs between platforms.
    #[inline]
    pub const fn float32(&mut self, value: f32) {
        self.word(canonical_f32_bits(value) as u64);
    }

    /// Takes a float by its bits, with all NaNs as one.
    #[inline]
    pub const fn float64(&mut self, value: f64) {
        self.word(canonical_f64_bits(value));
    }

    /// Takes bytes, with their length.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.word(bytes.len() as u64);
        let mut chunks = bytes.chunks_exact(8);
        for chunk in &mut chunks {
            let mut word = [0; 8];
            word.copy_from_slice(chunk);
            self.word(u64::from_le_bytes(word));
        }
        let rest = chunks.remainder();
        if !rest.is_empty() {
            let mut word = [0; 8];
            word[..rest.len()].copy_from_slice(rest);
            self.word(u64::from_le_bytes(word));
        }
    }

    /// The hash of all that was taken.
    #[inline]
    #[must_use]
    pub const fn finish(&self) -> u64 {
        mix(self.state, K0)
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
    fn every_nan_is_one_and_zeros_keep_their_sign() {
        assert_eq!(canonical_f32_bits(f32::NAN), canonical_f32_bits(-f32::NAN));
        assert_ne!(canonical_f32_bits(0.0), canonical_f32_bits(-0.0));
    }
}
