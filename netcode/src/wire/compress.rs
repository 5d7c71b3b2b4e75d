//! Compressed bytes: their length, then one LZ4 block.
//!
//! The only file that names `lz4_flex`. Both directions use its safe variants: blocks come from
//! peers and files. Equal input gives equal output within one build only, so compressed bytes are
//! never hashed or compared.
//!
//! | part | form |
//! |---|---|
//! | length | varint: bytes after decompression |
//! | block | LZ4 block format, to the end |

use super::bytes::{DecodeError, Reader, put_varint};

/// A byte of an LZ4 block adds at most this many bytes to a match or literal.
const GROWTH_MAX: usize = 255;

/// Appends `bytes` in compressed form. They take at most a few per mille more than before.
pub fn compress(bytes: &[u8], out: &mut Vec<u8>) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(&lz4_flex::block::compress(bytes));
}

/// The bytes that were compressed.
///
/// # Errors
/// If they would be more than `max_len`, or `bytes` is not what [`compress`] gives. Nothing is
/// allocated before the length has been compared with `max_len` and with what a block of this
/// size can hold.
pub fn decompress(bytes: &[u8], max_len: usize) -> Result<Vec<u8>, DecodeError> {
    let mut reader = Reader::new(bytes);
    let len = usize::try_from(reader.varint()?).unwrap_or(usize::MAX);
    if len > max_len {
        return Err(DecodeError::Invalid(
            "compressed data exceeds its limit when decompressed",
        ));
    }
    if len > reader.len().saturating_mul(GROWTH_MAX) {
        return Err(DecodeError::Truncated);
    }
    let mut out = vec![0; len];
    let written = lz4_flex::block::decompress_into(reader.rest(), &mut out)
        .map_err(|_bad_block| DecodeError::Invalid("compressed data is damaged"))?;
    if written == len {
        Ok(out)
    } else {
        Err(DecodeError::Invalid(
            "compressed data is shorter than it says",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prng::Prng;

    fn sample(prng: &mut Prng) -> Vec<u8> {
        let len = prng.below(600);
        let noise = prng.below(4) == 0;
        (0..len)
            .map(|n| {
                if noise {
                    prng.next_u64().to_le_bytes()[0]
                } else {
                    (n / 19).to_le_bytes()[0]
                }
            })
            .collect()
    }

    #[test]
    fn what_was_compressed_comes_back() {
        for seed in 0..500 {
            let bytes = sample(&mut Prng::new(seed));
            let mut packed = vec![9];
            compress(&bytes, &mut packed);
            assert_eq!(
                decompress(&packed[1..], bytes.len()),
                Ok(bytes.clone()),
                "seed {seed}"
            );
            if !bytes.is_empty() {
                assert!(decompress(&packed[1..], bytes.len() - 1).is_err());
            }
        }
    }

    #[test]
    fn the_best_case_is_not_taken_for_hostile() {
        let bytes = vec![7; 1 << 20];
        let mut packed = Vec::new();
        compress(&bytes, &mut packed);
        assert!(packed.len() < 5000, "{}", packed.len());
        assert_eq!(decompress(&packed, 1 << 20), Ok(bytes));
    }

    #[test]
    fn damaged_blocks_are_refused_or_keep_the_length_they_state() {
        for seed in 0..20_000 {
            let mut prng = Prng::with_stream(seed, 1);
            let mut packed = Vec::new();
            compress(&sample(&mut prng), &mut packed);
            for _ in 0..=prng.below(4) {
                let at = usize::try_from(prng.below(packed.len() as u64)).unwrap();
                packed[at] = prng.next_u64().to_le_bytes()[0];
            }
            packed.truncate(usize::try_from(prng.below(packed.len() as u64 + 1)).unwrap());
            if let Ok(bytes) = decompress(&packed, 1000) {
                assert!(bytes.len() <= 1000, "seed {seed}");
            }
        }
    }

    #[test]
    fn a_bomb_is_refused_before_it_is_allocated() {
        let mut bomb = Vec::new();
        put_varint(&mut bomb, 1 << 40);
        bomb.extend_from_slice(&[0; 8]);
        assert!(decompress(&bomb, 1 << 20).is_err());
        assert_eq!(decompress(&bomb, usize::MAX), Err(DecodeError::Truncated));
    }
}
