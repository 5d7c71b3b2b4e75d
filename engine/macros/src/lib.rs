//! Derive macros of Phalanx.
