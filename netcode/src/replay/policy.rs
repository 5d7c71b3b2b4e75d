//! When to write a keyframe.

use crate::tick::{Tick, TickRate};

/// When to write a keyframe.
///
/// A seek restores the nearest keyframe before its goal and simulates the rest, so it costs at
/// most `import + distance x step`, plus the decoding of those ticks' inputs (some microseconds
/// per chunk). For seeks within 100 ms:
///
/// | step | import | distance at most | at 60 Hz |
/// |---|---|---|---|
/// | 20 µs | 1 ms | 4950 ticks | 82 s |
/// | 100 µs | 5 ms | 950 ticks | 15 s |
/// | 150 µs | 10 ms | 600 ticks | 10 s |
/// | 1 ms | 10 ms | 90 ticks | 1.5 s |
///
/// The price is size: an hour at a fixed distance of 5 s holds 721 keyframes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyframePolicy {
    /// Every `ticks` ticks: every seek costs the same, the file grows with time.
    Fixed {
        /// Distance between keyframes.
        ticks: u32,
    },
    /// The distance grows with the age of the recording: an eighth of it, but at least `ticks_min`
    /// and at most `ticks_max`. Long recordings get few keyframes; seeks to late ticks take longer.
    Growing {
        /// Distance at the beginning.
        ticks_min: u32,
        /// Distance that is never exceeded.
        ticks_max: u32,
    },
}

impl KeyframePolicy {
    /// Every so many seconds. Five seconds, the default of recordings, keep seeks below 100 ms
    /// at 60 Hz for games whose step takes up to 300 µs.
    #[must_use]
    pub const fn every_seconds(rate: TickRate, seconds: u32) -> Self {
        Self::Fixed {
            ticks: (rate.hz() as u32).saturating_mul(seconds),
        }
    }

    /// The largest fixed distance at which a seek stays within `seek_us`, when restoring a
    /// keyframe takes `import_us` and a step `step_us` (all in microseconds); at least one tick.
    #[must_use]
    pub fn within_budget(seek_us: u64, import_us: u64, step_us: u64) -> Self {
        let ticks = seek_us.saturating_sub(import_us) / step_us.max(1);
        Self::Fixed {
            ticks: u32::try_from(ticks).unwrap_or(u32::MAX).max(1),
        }
    }

    /// Whether `tick` gets a keyframe, in a recording from `start` whose newest is at `newest`.
    #[must_use]
    pub const fn is_due(self, start: Tick, newest: Tick, tick: Tick) -> bool {
        let distance = match self {
            Self::Fixed { ticks } => ticks,
            Self::Growing {
                ticks_min,
                ticks_max,
            } => {
                let grown = newest.since(start) / 8;
                if grown >= ticks_max {
                    ticks_max
                } else if grown < ticks_min {
                    ticks_min
                } else {
                    grown
                }
            }
        };
        tick.number() > newest.number() && tick.since(newest) >= distance
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyframes(policy: KeyframePolicy, ticks: u32) -> Vec<u32> {
        let mut newest = Tick::ZERO;
        let mut all = vec![0];
        for tick in 1..=ticks {
            if policy.is_due(Tick::ZERO, newest, Tick::new(tick)) {
                newest = Tick::new(tick);
                all.push(tick);
            }
        }
        all
    }

    #[test]
    fn a_fixed_policy_keeps_its_distance() {
        let policy = KeyframePolicy::every_seconds(TickRate::DEFAULT, 5);
        assert_eq!(keyframes(policy, 216_000).len(), 721);
        let budget = KeyframePolicy::within_budget(100_000, 10_000, 150);
        assert_eq!(budget, KeyframePolicy::Fixed { ticks: 600 });
        let hopeless = KeyframePolicy::within_budget(1000, 10_000, 0);
        assert_eq!(hopeless, KeyframePolicy::Fixed { ticks: 1 });
    }

    #[test]
    fn a_growing_policy_stays_between_its_limits() {
        let policy = KeyframePolicy::Growing {
            ticks_min: 60,
            ticks_max: 3600,
        };
        let all = keyframes(policy, 216_000);
        let distances: Vec<u32> = all.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(distances.is_sorted());
        assert_eq!(distances.first(), Some(&60));
        assert_eq!(distances.last(), Some(&3600));
        assert!(all.len() < 110, "{} keyframes in an hour", all.len());
    }
}
