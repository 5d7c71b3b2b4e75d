//! Structured values as bytes, for control bodies, file headers and messages of the game.
//!
//! This is the only file that names the crate behind it, so that another can take its place. Its
//! numbers have more than one form, so received bytes are never hashed or compared; the values are.
//! Enum tags follow the order of declaration: only append variants.
//!
//! Within this crate `#[derive(Encode, Decode)]` with the names from here is all that a type needs.
//! Another crate that does not depend on the format itself adds the attribute
//! `#[bincode(crate = "phalanx_netcode::wire::codec::format")]`.

use super::bytes::DecodeError;

pub use bincode as format;
pub use bincode::{Decode, Encode};

/// Bytes that [`decode`] may read or allocate for one value.
pub const CODEC_BYTES_MAX: usize = 64 << 10;

/// Appends `value` to `out`.
///
/// # Panics
/// If `value` holds something that cannot be encoded, such as a borrowed `RefCell`; plain data
/// always can.
pub fn encode<T: Encode>(value: &T, out: &mut Vec<u8>) {
    bincode::encode_into_std_write(value, out, bincode::config::standard())
        .expect("plain data encodes, and a vector takes every byte");
}

/// The value that `bytes` hold, all of them, within [`CODEC_BYTES_MAX`].
///
/// # Errors
/// If they end too early, are too many, or mean nothing.
pub fn decode<T: Decode<()>>(bytes: &[u8]) -> Result<T, DecodeError> {
    decode_within::<T, CODEC_BYTES_MAX>(bytes)
}

/// As [`decode`], with `LIMIT` bytes to read or allocate.
///
/// # Errors
/// As [`decode`].
pub fn decode_within<T: Decode<()>, const LIMIT: usize>(bytes: &[u8]) -> Result<T, DecodeError> {
    let config = bincode::config::standard().with_limit::<LIMIT>();
    let (value, consumed) = bincode::decode_from_slice(bytes, config).map_err(translate)?;
    match bytes.len() - consumed {
        0 => Ok(value),
        left => Err(DecodeError::Trailing(left)),
    }
}

fn translate(error: bincode::error::DecodeError) -> DecodeError {
    use bincode::error::DecodeError as Cause;
    if matches!(error, Cause::UnexpectedEnd { .. }) {
        DecodeError::Truncated
    } else if matches!(error, Cause::LimitExceeded) {
        DecodeError::Invalid("a value exceeds its limit in bytes")
    } else if matches!(error, Cause::UnexpectedVariant { .. }) {
        DecodeError::Invalid("an enum has no such variant")
    } else if matches!(error, Cause::Utf8 { .. }) {
        DecodeError::Invalid("a text is not UTF-8")
    } else {
        DecodeError::Invalid("a value has no meaning")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prng::Prng;

    #[derive(Debug, PartialEq, Encode, Decode)]
    enum Body {
        Empty,
        Named { name: String, numbers: Vec<u64> },
    }

    fn bytes_of(body: &Body) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(body, &mut bytes);
        bytes
    }

    #[test]
    fn values_come_back_and_every_cut_or_addition_is_an_error() {
        let body = Body::Named {
            name: "arena".into(),
            numbers: vec![1, 300, u64::MAX],
        };
        let bytes = bytes_of(&body);
        assert_eq!(decode::<Body>(&bytes), Ok(body));
        assert_eq!(decode::<Body>(&bytes_of(&Body::Empty)), Ok(Body::Empty));
        for cut in 0..bytes.len() {
            assert!(decode::<Body>(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        let mut longer = bytes;
        longer.extend([0, 0]);
        assert_eq!(decode::<Body>(&longer), Err(DecodeError::Trailing(2)));
    }

    #[test]
    fn hostile_counts_do_not_allocate() {
        // A vector that claims 2^40 numbers.
        let mut bytes = vec![1, 0, 253];
        bytes.extend((1_u64 << 40).to_le_bytes());
        assert_eq!(
            decode::<Body>(&bytes),
            Err(DecodeError::Invalid("a value exceeds its limit in bytes"))
        );
        let body = Body::Named {
            name: "n".repeat(100),
            numbers: vec![],
        };
        assert!(decode_within::<Body, 64>(&bytes_of(&body)).is_err());
        assert!(decode_within::<Body, 256>(&bytes_of(&body)).is_ok());
    }

    #[test]
    fn random_bytes_never_panic() {
        let mut prng = Prng::new(11);
        for _ in 0..20_000 {
            let bytes: Vec<u8> = (0..prng.below(24))
                .map(|_| prng.next_u64().to_le_bytes()[0])
                .collect();
            if let Ok(body) = decode::<Body>(&bytes) {
                assert_eq!(decode::<Body>(&bytes_of(&body)), Ok(body));
            }
        }
    }
}
