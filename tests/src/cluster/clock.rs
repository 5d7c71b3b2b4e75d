//! Clocks that differ.

use phalanx::netcode::time::Time;

/// A member's clock, as it differs from the cluster's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    /// Microseconds by which it is ahead at `since`.
    pub(super) ahead_us: u64,
    /// Millionths by which it is faster; negative if it is slower.
    pub(super) drift_ppm: i32,
    pub(super) since: Time,
}

impl Clock {
    /// What it shows at the cluster's time `now`.
    pub(super) fn shows(self, now: Time) -> Time {
        let run_us = i128::from(now.micros_since(self.since));
        let gained_us = run_us * i128::from(self.drift_ppm) / 1_000_000;
        let us = i128::from(now.micros()) + i128::from(self.ahead_us) + gained_us;
        Time::from_micros(u64::try_from(us).expect("drift is small"))
    }

    /// The cluster's time at which it shows `time` or a little more.
    pub(super) fn when(self, time: Time) -> Time {
        if self.drift_ppm == 0 || time == Time::FAR {
            return Time::from_micros(time.micros().saturating_sub(self.ahead_us));
        }
        let start = self.since.plus_micros(self.ahead_us);
        let run_us = i128::from(time.micros_since(start));
        let us = run_us * 1_000_000 / (1_000_000 + i128::from(self.drift_ppm));
        let us = u64::try_from(us).expect("drift is small");
        let mut at = self.since.plus_micros(us);
        while self.shows(at) < time {
            at = at.plus_micros(1);
        }
        at
    }
}
