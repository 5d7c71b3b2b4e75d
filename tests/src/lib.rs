//! Test tools of Phalanx.
