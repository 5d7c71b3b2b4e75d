//! The clock of a real session: the only one that [`Time`] comes from outside of simulators.
#![expect(
    clippy::disallowed_methods,
    reason = "IO shell: this is where time enters"
)]

use std::thread;
use std::time::{Duration, Instant};

use crate::time::Time;

/// Longest sleep between two looks at a link. Links do not wake the game's thread, so this bounds
/// how long a datagram waits; a tick of 60 Hz is 17 times as long.
const NAP: Duration = Duration::from_millis(1);

/// A monotone clock whose epoch is its creation.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    epoch: Instant,
}

impl Clock {
    /// A clock that begins now.
    #[must_use]
    pub fn new() -> Self {
        Self {
            epoch: Instant::now(),
        }
    }

    /// The present.
    #[must_use]
    pub fn now(&self) -> Time {
        Time::ZERO + self.epoch.elapsed()
    }

    /// Sleeps until `time`, at most a millisecond.
    pub fn nap_until(&self, time: Time) {
        let left = time - self.now();
        if !left.is_zero() {
            thread::sleep(left.min(NAP));
        }
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}
