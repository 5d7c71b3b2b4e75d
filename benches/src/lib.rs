//! Benchmarks of Phalanx.

pub mod cpu;
pub mod lockstep;
pub mod udp_load;
