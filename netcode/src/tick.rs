//! Ticks, tick rates and datagram sequence numbers.

use core::fmt;

use crate::limits::{TICK_RATE_HZ_MAX, TICK_RATE_HZ_MIN};

/// One fixed simulation step, and its number.
///
/// Tick 0 is the initial state: the first step leads to tick 1. Ticks are ordered and never wrap:
/// at 60 per second, 32 bits last 828 days.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tick(u32);

impl Tick {
    /// The initial state, before any step.
    pub const ZERO: Self = Self(0);
    /// The largest tick; a session ends before it.
    pub const MAX: Self = Self(u32::MAX);

    /// The tick with this number.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The tick's number.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }

    /// The tick after this one; saturates.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The tick before this one; saturates at 0.
    #[must_use]
    pub const fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// `count` ticks later; saturates.
    #[must_use]
    pub const fn plus(self, count: u32) -> Self {
        Self(self.0.saturating_add(count))
    }

    /// `count` ticks earlier; saturates at 0.
    #[must_use]
    pub const fn minus(self, count: u32) -> Self {
        Self(self.0.saturating_sub(count))
    }

    /// Ticks since `earlier`; 0 if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u32 {
        self.0.saturating_sub(earlier.0)
    }

    /// Ticks from `other` to `self`, negative if `other` is later.
    #[must_use]
    pub const fn distance_from(self, other: Self) -> i64 {
        self.0 as i64 - other.0 as i64
    }
}

impl fmt::Display for Tick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Ticks per second, agreed in the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TickRate(u16);

impl TickRate {
    /// 60 ticks per second.
    pub const DEFAULT: Self = Self(60);

    /// A rate of `hz` ticks per second, or `None` outside of
    /// [`TICK_RATE_HZ_MIN`] to [`TICK_RATE_HZ_MAX`].
    #[must_use]
    pub const fn new(hz: u16) -> Option<Self> {
        if hz >= TICK_RATE_HZ_MIN && hz <= TICK_RATE_HZ_MAX {
            Some(Self(hz))
        } else {
            None
        }
    }

    /// Ticks per second.
    #[must_use]
    pub const fn hz(self) -> u16 {
        self.0
    }

    /// Length of one tick in microseconds, rounded down.
    #[must_use]
    pub const fn tick_us(self) -> u64 {
        1_000_000 / self.0 as u64
    }

    /// Microseconds from tick 0 to `tick`, without accumulated rounding.
    #[must_use]
    pub const fn micros_at(self, tick: Tick) -> u64 {
        tick.0 as u64 * 1_000_000 / self.0 as u64
    }

    /// Ticks that `us` microseconds last, rounded up.
    #[must_use]
    pub const fn ticks_in_us_ceil(self, us: u64) -> u32 {
        let ticks = us.saturating_mul(self.0 as u64).div_ceil(1_000_000);
        if ticks > u32::MAX as u64 {
            u32::MAX
        } else {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "compared on the line above"
            )]
            {
                ticks as u32
            }
        }
    }
}

impl Default for TickRate {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Number of a datagram on one path in one direction.
///
/// Kept whole on both ends; the wire carries its low bits, and the receiver restores the rest as
/// the value nearest to the newest that it has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(u32);

impl Seq {
    /// The first datagram's number.
    pub const ZERO: Self = Self(0);

    /// The sequence number with this value.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The whole number.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }

    /// The number after this one; saturates (no session sends 4 billion datagrams to one peer).
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The number whose low 8 bits are `low` and that is nearest to `self`; ties go up.
    #[must_use]
    pub const fn nearest(self, low: u8) -> Self {
        let ahead = low.wrapping_sub(self.0.to_le_bytes()[0]);
        if ahead <= 128 {
            match self.0.checked_add(ahead as u32) {
                Some(number) => Self(number),
                None => Self(self.0 - (256 - ahead as u32)),
            }
        } else {
            let behind = 256 - ahead as u32;
            match self.0.checked_sub(behind) {
                Some(number) => Self(number),
                None => Self(self.0.saturating_add(ahead as u32)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixty_ticks_are_one_second_without_drift() {
        let rate = TickRate::DEFAULT;
        assert_eq!(rate.micros_at(Tick::new(60)), 1_000_000);
        assert_eq!(rate.micros_at(Tick::new(216_000)), 3_600_000_000);
        assert_eq!(rate.ticks_in_us_ceil(100_000), 6);
        assert_eq!(rate.ticks_in_us_ceil(100_001), 7);
    }

    #[test]
    fn nearest_restores_every_distance_within_half_a_window() {
        for newest in [0_u32, 5, 127, 128, 255, 256, 1000, 70_000] {
            for distance in -127_i64..=128 {
                let Ok(sent) = u32::try_from(i64::from(newest) + distance) else {
                    continue;
                };
                let restored = Seq::new(newest).nearest(sent.to_le_bytes()[0]);
                assert_eq!(
                    restored,
                    Seq::new(sent),
                    "newest {newest}, distance {distance}"
                );
            }
        }
    }
}
