//! Phalanx.
pub use phalanx_netcode as netcode;
