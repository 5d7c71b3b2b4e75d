//! Time as the protocol sees it: microseconds since an epoch that the driver chose.
//!
//! Nothing in the core reads a clock. A driver passes [`Time`] into every call, so a simulator can
//! run an hour of play in a second, and the same calls give the same bytes.

use core::ops::{Add, AddAssign, Sub};
use core::time::Duration;

/// A moment: microseconds since the driver's epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

impl Time {
    /// The epoch.
    pub const ZERO: Self = Self(0);
    /// Later than every moment that a session reaches.
    pub const FAR: Self = Self(u64::MAX);

    /// The moment `us` microseconds after the epoch.
    #[must_use]
    pub const fn from_micros(us: u64) -> Self {
        Self(us)
    }

    /// The moment `ms` milliseconds after the epoch.
    #[must_use]
    pub const fn from_millis(ms: u64) -> Self {
        Self(ms.saturating_mul(1000))
    }

    /// Microseconds since the epoch.
    #[must_use]
    pub const fn micros(self) -> u64 {
        self.0
    }

    /// Microseconds since `earlier`; 0 if `earlier` is later.
    #[must_use]
    pub const fn micros_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Microseconds from `other` to `self`, negative if `other` is later.
    #[must_use]
    pub const fn micros_from(self, other: Self) -> i64 {
        // Both lie within the same run; a difference beyond 292 000 years saturates.
        if self.0 >= other.0 {
            let ahead = self.0 - other.0;
            if ahead > i64::MAX as u64 {
                i64::MAX
            } else {
                ahead.cast_signed()
            }
        } else {
            let behind = other.0 - self.0;
            if behind > i64::MAX as u64 {
                i64::MIN
            } else {
                -behind.cast_signed()
            }
        }
    }

    /// The moment `us` microseconds later; saturates at [`Time::FAR`].
    #[must_use]
    pub const fn plus_micros(self, us: u64) -> Self {
        Self(self.0.saturating_add(us))
    }
}

impl Add<Duration> for Time {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        self.plus_micros(u64::try_from(span.as_micros()).unwrap_or(u64::MAX))
    }
}

impl AddAssign<Duration> for Time {
    fn add_assign(&mut self, span: Duration) {
        *self = *self + span;
    }
}

impl Sub for Time {
    type Output = Duration;

    /// The span since `earlier`; zero if `earlier` is later.
    fn sub(self, earlier: Self) -> Duration {
        Duration::from_micros(self.micros_since(earlier))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_have_a_sign_and_saturate() {
        let (early, late) = (Time::from_micros(10), Time::from_millis(1));
        assert_eq!(late.micros_from(early), 990);
        assert_eq!(early.micros_from(late), -990);
        assert_eq!(early - late, Duration::ZERO);
        assert_eq!(Time::FAR.micros_from(Time::ZERO), i64::MAX);
        assert_eq!(Time::ZERO.micros_from(Time::FAR), i64::MIN);
        assert_eq!(Time::FAR + Duration::from_secs(1), Time::FAR);
    }
}
