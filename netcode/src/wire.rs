//! Bytes on the wire: coders and packet layouts. See `docs/WIRE.md`.

pub mod bytes;
pub mod codec;
pub mod compress;
pub mod header;
pub mod range;
