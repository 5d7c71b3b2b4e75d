//! Bytes on the wire: coders and packet layouts. See `docs/WIRE.md`.

pub mod bytes;
pub mod compress;
