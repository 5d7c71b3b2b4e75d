//! The seeds that a test runs, as its environment wants it.

use std::ops::Range;

/// The number that the environment gives `name`, if any.
#[must_use]
pub fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// `SEED` alone; without it as many as `SEEDS` says, or `usual`, from `first` on.
#[must_use]
pub fn chosen(first: u64, usual: u64) -> Vec<u64> {
    match number("SEED") {
        Some(seed) => vec![seed],
        None => (first..first + number("SEEDS").unwrap_or(usual)).collect(),
    }
}

/// As many as `SEEDS` says, or `usual`, from `FIRST` on, or 0.
#[must_use]
pub fn range(usual: u64) -> Range<u64> {
    let first = number("FIRST").unwrap_or(0);
    first..first + number("SEEDS").unwrap_or(usual)
}
