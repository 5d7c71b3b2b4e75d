//! A token bucket: so many at once, and so many per second after that.

use crate::time::Time;

/// Tokens at once.
const BURST: u64 = 64;
/// Microseconds after which a token comes back: 50 per second.
const REFILL_US: u64 = 20_000;

/// Limits how often something costly is done for others.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bucket {
    /// When the bucket will be full again.
    full_at: Time,
}

impl Bucket {
    /// Takes a token; false if none is there.
    pub fn take(&mut self, now: Time) -> bool {
        let from = self.full_at.max(now);
        if from.micros_since(now) > (BURST - 1) * REFILL_US {
            return false;
        }
        self.full_at = from.plus_micros(REFILL_US);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_fifty_per_second() {
        let mut bucket = Bucket::default();
        let start = Time::from_millis(1000);
        let burst = (0..1000).filter(|_| bucket.take(start)).count();
        assert_eq!(burst, 64);
        let later = (0..10_000_u64)
            .filter(|ms| bucket.take(start.plus_micros(ms * 1000)))
            .count();
        assert!((499..=501).contains(&later), "{later} in ten seconds");
    }
}
