//! Benchmarks of Phalanx.

pub mod cpu;
pub mod udp_load;
