//! The input delay follows the measured lateness of inputs, not the mean loss.
//!
//! Whoever needs a node's inputs reports how long before their deadline the latest of the last 64
//! arrived. Bursts of loss, jitter and a slow clock all show in this one number. The delay grows at
//! once when an input was late or nearly so, and shrinks by one tick after eight calm seconds.

use crate::session::config::InputDelay;
use crate::tick::TickRate;
use crate::time::Time;

/// Sixteenths of a tick by which the latest input shall be early, at least.
const MARGIN_MIN: i32 = 4;
/// Sixteenths of a tick beyond which the delay could be a tick shorter, with some to spare.
const MARGIN_CALM: i32 = MARGIN_MIN + 16 + 6;
/// Microseconds of calm before the delay shrinks.
const CALM_US: u64 = 8_000_000;
/// Reports that must have aged out of the measuring window before a new delay is judged.
const WINDOW_TICKS: u64 = 64;

/// Steers one node's input delay, or its lead.
#[derive(Clone, Debug)]
pub struct DelayControl {
    limits: InputDelay,
    ticks: u32,
    changed_at: Option<Time>,
    calm_since: Option<Time>,
}

impl DelayControl {
    /// Begins with the fewest ticks that are allowed.
    #[must_use]
    pub const fn new(limits: InputDelay) -> Self {
        Self {
            limits,
            ticks: limits.min(),
            changed_at: None,
            calm_since: None,
        }
    }

    /// The delay in ticks.
    #[must_use]
    pub const fn ticks(&self) -> u32 {
        self.ticks
    }

    /// Takes a first guess, from the round trip. Not after a report.
    pub fn guess(&mut self, ticks: u32) {
        if self.changed_at.is_none() {
            self.ticks = ticks.clamp(self.limits.min(), self.limits.max());
        }
    }

    /// Makes the delay at least `ticks`, within the limits; true if it grew. The reports that led to
    /// the present one are of another path.
    pub fn raise(&mut self, ticks: u32) -> bool {
        let ticks = ticks.clamp(self.limits.min(), self.limits.max());
        let grows = ticks > self.ticks;
        self.ticks = self.ticks.max(ticks);
        grows
    }

    /// Takes a report: the smallest margin of the last inputs, in 1/16 tick.
    pub fn report(&mut self, now: Time, rate: TickRate, rtt_us: u64, margin: i16) {
        let margin = i32::from(margin);
        let settled = self
            .changed_at
            .is_none_or(|at| now.micros_since(at) > WINDOW_TICKS * rate.tick_us() + rtt_us);
        if margin < MARGIN_MIN {
            self.calm_since = None;
            // Before the change could show, more of the same says nothing new.
            if settled {
                let missing = u32::try_from((MARGIN_MIN - margin + 15) / 16).unwrap_or(1);
                self.set(now, self.ticks.saturating_add(missing));
            }
        } else if margin > MARGIN_CALM {
            let since = *self.calm_since.get_or_insert(now);
            if settled && now.micros_since(since) > CALM_US {
                self.calm_since = None;
                self.set(now, self.ticks.saturating_sub(1));
            }
        } else {
            self.calm_since = None;
        }
    }

    fn set(&mut self, now: Time, ticks: u32) {
        let ticks = ticks.clamp(self.limits.min(), self.limits.max());
        if ticks != self.ticks {
            self.ticks = ticks;
            self.changed_at = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_inputs_raise_the_delay_once_and_calm_lowers_it_slowly() {
        let mut control = DelayControl::new(InputDelay::Adaptive { min: 1, max: 10 });
        control.guess(3);
        let report = |control: &mut DelayControl, ms, margin| {
            control.report(Time::from_millis(ms), TickRate::DEFAULT, 100_000, margin);
            control.ticks()
        };
        assert_eq!(
            report(&mut control, 1000, 8),
            3,
            "half a tick early is fine"
        );
        assert_eq!(
            report(&mut control, 1100, -20),
            5,
            "1.25 ticks late, plus the margin"
        );
        assert_eq!(
            report(&mut control, 1200, -20),
            5,
            "still the inputs of before"
        );
        assert_eq!(report(&mut control, 3000, -1), 6);
        assert_eq!(report(&mut control, 5000, 40), 6);
        assert_eq!(report(&mut control, 12_900, 40), 6);
        assert_eq!(report(&mut control, 13_100, 40), 5);
        assert_eq!(
            report(&mut control, 60_000, -2000),
            10,
            "never beyond the limit"
        );
    }
}
