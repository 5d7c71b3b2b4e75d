//! How long nodes stand still when hosting moves, measured over many sessions.

use std::fmt;

/// What a session without loss may stand still for when the host of eight players dies, by the aims
/// of the project: round trip and limit, both in milliseconds.
const AFTER_A_CRASH_MS: [(u64, u64); 3] = [(50, 420), (100, 620), (200, 1050)];

/// Gaps in milliseconds, ascending; at least one.
#[derive(Clone, Debug)]
pub struct Gaps(Vec<u64>);

impl Gaps {
    /// Those of `runs`.
    ///
    /// # Panics
    /// If there is none.
    pub fn of(runs: impl IntoIterator<Item = u64>) -> Self {
        let mut gaps: Vec<u64> = runs.into_iter().collect();
        assert!(!gaps.is_empty(), "no session has run");
        gaps.sort_unstable();
        Self(gaps)
    }

    /// The longest.
    #[must_use]
    pub fn longest(&self) -> u64 {
        self.0[self.0.len() - 1]
    }
}

impl fmt::Display for Gaps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (median, longest) = (self.0[self.0.len() / 2], self.longest());
        write!(f, "median {median} ms, longest {longest} ms")
    }
}

/// Prints the gaps after crashes, and compares them with the aims. `crash` runs a session of eight
/// players with this round trip, in microseconds, and this seed; returns its gap in milliseconds.
///
/// # Panics
/// If a gap is too long.
#[expect(clippy::print_stdout, reason = "figures for whoever asks for them")]
pub fn assert_short_after_crashes(seeds: &[u64], mut crash: impl FnMut(u64, u64) -> u64) {
    for (rtt_ms, limit_ms) in AFTER_A_CRASH_MS {
        let gaps = Gaps::of(seeds.iter().map(|&seed| crash(rtt_ms * 1000, seed)));
        println!("RTT {rtt_ms} ms: {gaps}");
        assert!(gaps.longest() <= limit_ms, "RTT {rtt_ms} ms: {gaps:?}");
    }
}
