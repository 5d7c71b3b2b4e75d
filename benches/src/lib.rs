//! Benchmarks of Phalanx.

pub mod cpu;
pub mod cubes;
pub mod lockstep;
pub mod udp_load;
pub mod worlds;
