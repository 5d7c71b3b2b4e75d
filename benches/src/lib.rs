//! Benchmarks of Phalanx.
