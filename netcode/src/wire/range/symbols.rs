//! Fixed chances of the symbols of an alphabet.

/// All symbols of a table together have 2^this shares.
pub const SYMBOL_BITS: u32 = 15;

const TOTAL: u16 = 1 << SYMBOL_BITS;
/// Places per entry of the index: a decoder starts to look there.
const STRIDE_BITS: u32 = 9;
const STRIDES: usize = 1 << (SYMBOL_BITS - STRIDE_BITS);
/// Symbols that a decoder looks at together: one vector of them.
const LOT: usize = 8;
/// Room for the symbols of a table, for its end, and for a lot that begins at its last symbol.
const ROOM: usize = 88;
/// Symbols of a table at most.
const SYMBOLS_MAX: usize = ROOM - LOT - 1;

/// The chances of `N` symbols, at most 79.
///
/// A cache line for the index, and one for the first symbols, which are the likely ones.
#[derive(Clone, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Symbols<const N: usize> {
    /// The symbol at each start of a stride.
    index: [u8; STRIDES],
    /// `lows[n]` is the sum of the shares before symbol `n`; the total from `N` on.
    lows: [u16; ROOM],
}

impl<const N: usize> Symbols<N> {
    /// A table of these shares, each at least 1; `None` if they are not, or their sum is not
    /// 2^[`SYMBOL_BITS`].
    #[must_use]
    pub fn new(shares: &[u16; N]) -> Option<Self> {
        const { assert!(N > 0 && N <= SYMBOLS_MAX, "tables have room for so many") };
        let mut table = Self {
            lows: [TOTAL; ROOM],
            index: [0; STRIDES],
        };
        let mut sum = 0_u16;
        for (symbol, (low, &share)) in (0..=u8::MAX).zip(table.lows.iter_mut().zip(shares)) {
            *low = sum;
            let next = sum.checked_add(share).filter(|&next| next <= TOTAL)?;
            if share == 0 {
                return None;
            }
            let first = usize::from(sum).div_ceil(1 << STRIDE_BITS);
            let end = usize::from(next).div_ceil(1 << STRIDE_BITS);
            table.index[first..end].fill(symbol);
            sum = next;
        }
        (sum == TOTAL).then_some(table)
    }

    /// What lies before a symbol, and its share.
    #[inline]
    pub(super) fn share(&self, symbol: usize) -> (u32, u32) {
        assert!(symbol < N, "the table has such a symbol");
        let low = u32::from(self.lows[symbol]);
        (low, u32::from(self.lows[symbol + 1]).wrapping_sub(low))
    }

    /// The symbol at a place below 2^[`SYMBOL_BITS`], what lies before it, and its share.
    #[inline]
    pub(super) fn find(&self, place: u32) -> (usize, u32, u32) {
        let stride = (place >> STRIDE_BITS) as usize % STRIDES;
        #[expect(clippy::cast_possible_truncation, reason = "below 2^15")]
        let place = place as u16;
        let mut symbol = usize::from(self.index[stride]);
        // Without a branch per symbol, which nobody could predict. One lot does most of the time.
        while let Some(lot) = self
            .lows
            .get(symbol + 1..)
            .and_then(|lows| lows.first_chunk::<LOT>())
        {
            let before: u16 = lot.iter().map(|&low| u16::from(low <= place)).sum();
            symbol += usize::from(before);
            if usize::from(before) < LOT {
                break;
            }
        }
        let symbol = symbol.min(N - 1);
        let (low, share) = self.share(symbol);
        (symbol, low, share)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Decoder, Encoder};
    use super::*;
    use crate::prng::Prng;

    /// Random shares with the right sum; most symbols get the least.
    fn random_shares<const N: usize>(prng: &mut Prng) -> [u16; N] {
        let mut shares = [1_u16; N];
        let mut left = TOTAL - u16::try_from(N).unwrap();
        while left > 0 {
            let part = u16::try_from(prng.below(u64::from(left)) + 1).unwrap();
            shares[usize::try_from(prng.below(N as u64)).unwrap()] += part;
            left -= part;
        }
        shares
    }

    #[test]
    fn symbols_come_back_between_bits() {
        for seed in 0..300 {
            let mut prng = Prng::new(seed);
            let table = Symbols::<69>::new(&random_shares(&mut prng)).expect("the sum is right");
            let count = prng.below(60);
            let symbols: Vec<usize> = (0..count)
                .map(|_| {
                    // Likely ones mostly, any at times.
                    if prng.below(4) == 0 {
                        usize::try_from(prng.below(69)).unwrap()
                    } else {
                        table.find(u32::try_from(prng.below(1 << 15)).unwrap()).0
                    }
                })
                .collect();
            let mut bytes = Vec::new();
            let mut coder = Encoder::new(&mut bytes);
            for &symbol in &symbols {
                coder.symbol(symbol, &table);
                coder.uniform(5, 3);
            }
            let bits = coder.fine_bits() / 1024;
            let len = coder.finish();
            assert!(len <= usize::try_from(bits).unwrap() / 8 + 2, "seed {seed}");
            let mut decoder = Decoder::new(&bytes);
            for &symbol in &symbols {
                assert_eq!(decoder.symbol(&table), symbol, "seed {seed}");
                assert_eq!(decoder.uniform(3), 5, "seed {seed}");
            }
            assert_eq!(decoder.finish(), Ok(()), "seed {seed}");
        }
    }

    #[test]
    fn every_place_has_its_symbol_and_wrong_sums_are_refused() {
        let table = Symbols::<4>::new(&[1, 511, 1, 32_255]).expect("the sum is right");
        for place in 0..u32::from(TOTAL) {
            let expected = match place {
                0 => 0,
                1..512 => 1,
                512 => 2,
                _ => 3,
            };
            assert_eq!(table.find(place).0, expected, "{place}");
        }
        assert_eq!(Symbols::<2>::new(&[0, TOTAL]), None);
        assert_eq!(Symbols::<2>::new(&[1, TOTAL]), None);
        assert_eq!(Symbols::<2>::new(&[1, 1]), None);
        assert_eq!(Symbols::<3>::new(&[40_000, 40_000, 1]), None);
    }
}
