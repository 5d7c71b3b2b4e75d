//! When silence is suspicious.
//!
//! A host sends at a steady pace, but paths have hiccups. The detector remembers the longest gaps
//! between arrivals, so that a path that often pauses does not cause elections.

use crate::time::Time;

/// Arrivals in one window.
const WINDOW: u32 = 128;
/// Windows that are remembered. Of their arrivals about one in a thousand had a gap longer than
/// the second longest of the windows' maxima.
const WINDOWS: usize = 8;

/// The arrivals of one sender.
#[derive(Clone, Debug, Default)]
pub(super) struct Detector {
    heard_at: Option<Time>,
    count: u32,
    longest_us: u64,
    maxima: [u64; WINDOWS],
    next: usize,
}

impl Detector {
    /// Something arrived.
    pub(super) fn heard(&mut self, now: Time) {
        if let Some(before) = self.heard_at {
            self.longest_us = self.longest_us.max(now.micros_since(before));
            self.count += 1;
        }
        self.heard_at = Some(self.heard_at.map_or(now, |before| before.max(now)));
        if self.count == WINDOW {
            self.maxima[self.next] = self.longest_us;
            self.next = (self.next + 1) % WINDOWS;
            (self.count, self.longest_us) = (0, 0);
        }
    }

    /// Another sender, or the same after a pause: nothing is known of its pace.
    pub(super) fn restart(&mut self, now: Time) {
        *self = Self::default();
        self.heard_at = Some(now);
    }

    /// Another pace begins: what was learned counts no more.
    pub(super) fn forget(&mut self) {
        let heard_at = self.heard_at;
        *self = Self::default();
        self.heard_at = heard_at;
    }

    /// The next arrival ends a silence that is no part of the usual pace.
    pub(super) fn skip(&mut self, now: Time) {
        self.heard_at = Some(now);
    }

    /// When something arrived last.
    pub(super) fn heard_at(&self) -> Time {
        self.heard_at.unwrap_or_default()
    }

    /// One and a half times the gap that about one in a thousand arrivals exceeds, in
    /// microseconds; 0 while too little is known.
    pub(super) fn patience_us(&self) -> u64 {
        let (mut first, mut second) = (0, 0);
        for &gap in &self.maxima {
            if gap > first {
                second = first;
                first = gap;
            } else {
                second = second.max(gap);
            }
        }
        second.saturating_mul(3) / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_hiccup_is_forgiven_and_regular_ones_are_expected() {
        let mut detector = Detector::default();
        let mut now = Time::from_millis(5);
        let mut run = |arrivals: u32, pause_every: u32| {
            for arrival in 1..=arrivals {
                let pause = pause_every > 0 && arrival % pause_every == 0;
                now = now.plus_micros(if pause { 200_000 } else { 20_000 });
                detector.heard(now);
            }
            detector.patience_us()
        };
        assert_eq!(run(100, 0), 0, "too little is known");
        assert_eq!(run(1000, 0), 30_000);
        assert_eq!(run(200, 200), 30_000, "one pause is an accident");
        assert_eq!(run(1000, 100), 300_000, "the path pauses now and then");
        assert_eq!(run(2000, 0), 30_000, "and it recovers");
    }
}
