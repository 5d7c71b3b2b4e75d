//! Measuring time between nodes, and steering a node's own ticks.
//!
//! A clock is never set and never skips. It runs a little faster or slower until the node is where
//! it should be; only at the start, or when it is off by more than half a second, does it jump.

use crate::tick::{Tick, TickRate};
use crate::time::Time;

/// The last samples of a quantity, and their extremes.
#[derive(Clone, Debug)]
pub struct Samples<const N: usize> {
    ring: [i64; N],
    len: usize,
    next: usize,
}

impl<const N: usize> Default for Samples<N> {
    fn default() -> Self {
        Self {
            ring: [0; N],
            len: 0,
            next: 0,
        }
    }
}

impl<const N: usize> Samples<N> {
    /// Takes a sample; the oldest of `N` makes room.
    pub fn push(&mut self, sample: i64) {
        self.ring[self.next] = sample;
        self.next = (self.next + 1) % N;
        self.len = (self.len + 1).min(N);
    }

    /// Number of samples held.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether none is held.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The smallest sample.
    #[must_use]
    pub fn min(&self) -> Option<i64> {
        self.ring[..self.len].iter().copied().min()
    }

    /// The largest sample.
    #[must_use]
    pub fn max(&self) -> Option<i64> {
        self.ring[..self.len].iter().copied().max()
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.len = 0;
        self.next = 0;
    }
}

/// Round-trip time of a path.
#[derive(Clone, Debug, Default)]
pub struct Rtt {
    recent: Samples<64>,
    smoothed_us: Option<u64>,
    deviation_us: u64,
}

impl Rtt {
    /// Takes a measured round trip.
    ///
    /// Smoothing and deviation as RFC 6298 does it.
    pub fn sample(&mut self, us: u64) {
        self.recent.push(i64::try_from(us).unwrap_or(i64::MAX));
        match self.smoothed_us {
            None => {
                self.smoothed_us = Some(us);
                self.deviation_us = us / 2;
            }
            Some(smoothed) => {
                self.deviation_us = (3 * self.deviation_us + smoothed.abs_diff(us)) / 4;
                self.smoothed_us = Some((7 * smoothed + us) / 8);
            }
        }
    }

    /// Smoothed round trip in microseconds, if measured.
    #[must_use]
    pub const fn smoothed_us(&self) -> Option<u64> {
        self.smoothed_us
    }

    /// Smoothed deviation in microseconds.
    #[must_use]
    pub const fn deviation_us(&self) -> u64 {
        self.deviation_us
    }

    /// The smallest of the recent round trips in microseconds, if measured.
    #[must_use]
    pub fn min_us(&self) -> Option<u64> {
        self.recent.min().and_then(|us| u64::try_from(us).ok())
    }
}

/// When a node's ticks are due: tick T at `T / rate + offset`, and the offset slews.
#[derive(Clone, Debug)]
pub struct TickClock {
    rate: TickRate,
    offset_us: i64,
    target_us: i64,
    tick: Tick,
}

/// How far a clock may be off before it jumps, in microseconds.
const JUMP_US: u64 = 500_000;
/// How much of each tick's length a clock may gain or lose: 1/16, about 6 %.
const SLEW_DIVISOR: u64 = 16;

impl TickClock {
    /// A clock whose tick `tick` was due at `at`.
    #[must_use]
    pub fn new(rate: TickRate, tick: Tick, at: Time) -> Self {
        let offset_us = offset_of(rate, tick, at);
        Self {
            rate,
            offset_us,
            target_us: offset_us,
            tick,
        }
    }

    /// The newest tick that was due.
    #[must_use]
    pub const fn tick(&self) -> Tick {
        self.tick
    }

    /// When the next tick is due.
    #[must_use]
    pub fn next_due(&self) -> Time {
        self.due(self.tick.next())
    }

    /// When `tick` is due, as far as known now.
    #[must_use]
    pub fn due(&self, tick: Tick) -> Time {
        let us = i64::try_from(self.rate.micros_at(tick)).unwrap_or(i64::MAX);
        Time::from_micros(u64::try_from(us.saturating_add(self.offset_us)).unwrap_or(0))
    }

    /// Whether the next tick is due.
    #[must_use]
    pub fn is_due(&self, now: Time) -> bool {
        self.next_due() <= now
    }

    /// Counts the next tick as begun, and moves the offset a little towards where it should be.
    pub fn advance(&mut self) {
        self.tick = self.tick.next();
        let slew = i64::try_from(self.rate.tick_us() / SLEW_DIVISOR)
            .unwrap_or(1)
            .max(1);
        let off = self.target_us.saturating_sub(self.offset_us);
        self.offset_us = self.offset_us.saturating_add(off.clamp(-slew, slew));
    }

    /// Says where the offset should be: that of a clock whose tick 0 was due at `us`, which may
    /// follow from a peer's word and be any number.
    pub fn steer(&mut self, us: i64) {
        self.target_us = us;
        if us.saturating_sub(self.offset_us).unsigned_abs() > JUMP_US {
            self.offset_us = us;
        }
    }

    /// Waited until `now` for what the next tick needs: later ticks are due as much later.
    pub fn hold(&mut self, now: Time) {
        let late = now.micros_from(self.next_due());
        if late > 0 {
            self.offset_us = self.offset_us.saturating_add(late);
            self.target_us = self.target_us.saturating_add(late);
        }
    }

    /// Leaves out ticks that were due more than `us` before `now`; later ones are due as before.
    pub fn skip(&mut self, now: Time, us: u64) {
        let late = now.micros_since(self.next_due());
        let ticks = late.saturating_sub(us) / self.rate.tick_us().max(1);
        self.tick = self.tick.plus(u32::try_from(ticks).unwrap_or(u32::MAX));
    }

    /// Goes on from `tick`, which is due at `now`.
    pub fn jump(&mut self, tick: Tick, now: Time) {
        *self = Self::new(self.rate, tick, now);
    }

    /// How much faster than real time the clock runs, in parts per million; negative if slower.
    #[must_use]
    pub fn dilation_ppm(&self) -> i64 {
        let tick_us = i64::try_from(self.rate.tick_us()).unwrap_or(1).max(1);
        let slew = i64::try_from(self.rate.tick_us() / SLEW_DIVISOR)
            .unwrap_or(1)
            .max(1);
        let off = self.target_us.saturating_sub(self.offset_us);
        -off.clamp(-slew, slew) * 1_000_000 / tick_us
    }
}

/// The offset of a clock whose tick `tick` is due at `at`, in microseconds.
#[must_use]
pub fn offset_of(rate: TickRate, tick: Tick, at: Time) -> i64 {
    at.micros_from(Time::from_micros(rate.micros_at(tick)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extremes_are_of_the_last_samples_only() {
        let mut samples = Samples::<10>::default();
        assert_eq!(samples.max(), None);
        (0..100).for_each(|sample| samples.push(sample));
        assert_eq!((samples.min(), samples.max()), (Some(90), Some(99)));
        (0..10).rev().for_each(|sample| samples.push(sample));
        assert_eq!((samples.min(), samples.max()), (Some(0), Some(9)));
    }

    #[test]
    fn a_clock_slews_by_a_sixteenth_and_arrives() {
        let mut clock = TickClock::new(TickRate::DEFAULT, Tick::ZERO, Time::from_millis(100));
        clock.steer(110_000);
        let mut ticks = 0;
        let mut before = clock.due(Tick::ZERO);
        while clock.dilation_ppm() != 0 {
            assert!(clock.dilation_ppm() < 0, "it must run slower");
            clock.advance();
            let now = clock.due(clock.tick());
            assert!(now.micros_since(before) <= 16_667 + 1042, "a skip");
            before = now;
            ticks += 1;
        }
        assert_eq!(ticks, 10);
        assert_eq!(clock.due(Tick::ZERO), Time::from_millis(110));
    }

    #[test]
    fn a_clock_takes_any_number_for_its_offset() {
        for wild in [i64::MIN, i64::MIN + 1, -1, i64::MAX] {
            let mut clock = TickClock::new(TickRate::DEFAULT, Tick::ZERO, Time::from_millis(9));
            for us in [wild, 0, i64::MAX, wild, i64::MIN] {
                clock.steer(us);
                clock.advance();
                clock.hold(Time::from_millis(10));
                let _ = (clock.dilation_ppm(), clock.due(Tick::MAX));
            }
            clock.steer(7);
            assert_eq!(clock.due(Tick::ZERO), Time::from_micros(7));
        }
    }

    #[test]
    fn a_clock_that_skips_is_where_it_would_be() {
        let mut clock = TickClock::new(TickRate::DEFAULT, Tick::ZERO, Time::ZERO);
        let due = clock.due(Tick::new(300));
        clock.skip(due, 2_000_000);
        assert!(
            clock.tick().number().abs_diff(180) <= 1,
            "{:?}",
            clock.tick()
        );
        assert_eq!(clock.due(Tick::new(300)), due);
        let tick = clock.tick();
        clock.skip(due, 2_000_000);
        assert_eq!(clock.tick(), tick);
    }

    #[test]
    fn a_held_clock_loses_what_it_waited_for() {
        let mut clock = TickClock::new(TickRate::DEFAULT, Tick::ZERO, Time::ZERO);
        clock.hold(Time::from_micros(20_000));
        assert_eq!(clock.next_due(), Time::from_micros(20_000));
        clock.hold(Time::from_micros(5));
        assert_eq!(clock.next_due(), Time::from_micros(20_000));
    }
}
