//! The demo game of Phalanx, and what its programs share.

pub mod arena;
