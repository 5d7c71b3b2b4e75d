//! The demo game of Phalanx.
