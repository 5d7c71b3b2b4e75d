//! Phalanx.

// Derived code names its traits by `::phalanx::netcode`; this makes that path work in here too.
extern crate self as phalanx;

pub use phalanx_macros::{Exact, Networked};
pub use phalanx_netcode as netcode;
pub use phalanx_netcode::state::{Exact, Networked};
