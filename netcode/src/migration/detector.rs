//! When silence is suspicious.
//!
//! A host sends at a steady pace, but paths have hiccups, and so have machines. The longest gaps
//! of about the last thousand arrivals are remembered, so that one that often pauses does not
//! cause elections ([`Detector`], on members), and so that a host whose members answer in fits and
//! starts, or that wakes in such itself, asks them for longer words ([`Pace`]).

use crate::time::Time;

/// Gaps in one window.
const WINDOW: u32 = 128;
/// Windows that are remembered beside the one that is being filled.
const WINDOWS: usize = 8;

/// The longest gaps among the last thousand or so.
#[derive(Clone, Debug, Default)]
struct Gaps {
    count: u32,
    /// The longest and the second longest of the window that is being filled.
    present: [u64; 2],
    before: [[u64; 2]; WINDOWS],
    next: usize,
}

impl Gaps {
    fn add(&mut self, us: u64) {
        Self::insert(&mut self.present, us);
        self.count += 1;
        if self.count == WINDOW {
            self.before[self.next] = self.present;
            self.next = (self.next + 1) % WINDOWS;
            (self.count, self.present) = (0, [0; 2]);
        }
    }

    /// The gap that about one in a thousand exceeds, in microseconds: the second longest. So two
    /// are enough to be expected, and one is an accident.
    fn usual_us(&self) -> u64 {
        let mut longest = self.present;
        for &us in self.before.iter().flatten() {
            Self::insert(&mut longest, us);
        }
        longest[1]
    }

    fn insert([first, second]: &mut [u64; 2], us: u64) {
        if us > *first {
            (*first, *second) = (us, *first);
        } else {
            *second = (*second).max(us);
        }
    }
}

/// The arrivals of one sender.
#[derive(Clone, Debug, Default)]
pub(super) struct Detector {
    heard_at: Time,
    gaps: Gaps,
}

impl Detector {
    /// Nothing is known of the sender's pace.
    pub(super) fn new(now: Time) -> Self {
        Self {
            heard_at: now,
            gaps: Gaps::default(),
        }
    }

    /// Something arrived. A silence that nobody would wait out, longer than `limit_us`, says
    /// nothing of the pace.
    pub(super) fn heard(&mut self, now: Time, limit_us: u64) {
        let gap_us = now.micros_since(self.heard_at);
        if gap_us <= limit_us {
            self.gaps.add(gap_us);
        }
        self.heard_at = self.heard_at.max(now);
    }

    /// Another pace begins: what was learned counts no more.
    pub(super) fn forget(&mut self) {
        self.gaps = Gaps::default();
    }

    /// The next arrival ends a silence that is no part of the usual pace.
    pub(super) fn skip(&mut self, now: Time) {
        self.heard_at = now;
    }

    /// When something arrived last.
    pub(super) const fn heard_at(&self) -> Time {
        self.heard_at
    }

    /// One and a half times the gap that about one in a thousand arrivals exceeds, in
    /// microseconds; 0 while too little is known.
    pub(super) fn patience_us(&self) -> u64 {
        self.gaps.usual_us() * 3 / 2
    }
}

/// How old the word of a host's voters becomes before there is a newer one.
///
/// That is the round trip, and what this node and the slowest voter that counts let pass on top
/// of it. It is looked at when an instant is over: of what arrives in one the order is no matter.
#[derive(Clone, Debug, Default)]
pub(super) struct Pace {
    /// The newest instant, and when what was answered by enough voters left, as known in it.
    seen_at: Time,
    sent: Time,
    /// The same at the end of the instant before, and how old that was at most.
    sent_before: Time,
    age_us: u64,
    gaps: Gaps,
}

impl Pace {
    /// At `now` enough voters have answered what left at `sent` or later. Ages above `limit_us`,
    /// beyond which no word reaches, say nothing of the pace.
    pub(super) fn see(&mut self, now: Time, sent: Time, limit_us: u64) {
        if now > self.seen_at {
            if self.sent > self.sent_before {
                if self.age_us <= limit_us {
                    self.gaps.add(self.age_us);
                }
                (self.sent_before, self.age_us) = (self.sent, 0);
            }
            self.age_us = self.age_us.max(self.seen_at.micros_since(self.sent));
            self.seen_at = now;
        }
        self.sent = sent;
    }

    /// The age that about one word in a thousand exceeds, in microseconds; 0 while too little is
    /// known.
    pub(super) fn usual_age_us(&self) -> u64 {
        self.gaps.usual_us()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT_US: u64 = 1_000_000;

    #[test]
    fn one_hiccup_is_forgiven_and_regular_ones_are_expected() {
        let mut now = Time::from_millis(5);
        let mut detector = Detector::new(now);
        let mut run = |arrivals: u32, pause_every: u32| {
            for arrival in 1..=arrivals {
                let pause = pause_every > 0 && arrival % pause_every == 0;
                now = now.plus_micros(if pause { 200_000 } else { 20_000 });
                detector.heard(now, LIMIT_US);
            }
            detector.patience_us()
        };
        assert_eq!(run(1, 0), 0, "too little is known");
        assert_eq!(run(1000, 0), 30_000);
        assert_eq!(run(200, 200), 30_000, "one pause is an accident");
        assert_eq!(run(100, 100), 300_000, "two are not");
        assert_eq!(run(1000, 100), 300_000, "the path pauses now and then");
        assert_eq!(run(2000, 0), 30_000, "and it recovers");
    }

    #[test]
    fn what_nobody_would_wait_for_is_not_remembered() {
        let mut now = Time::from_millis(5);
        let mut detector = Detector::new(now);
        for _ in 0..20 {
            now = now.plus_micros(LIMIT_US + 1);
            detector.heard(now, LIMIT_US);
            now = now.plus_micros(20_000);
            detector.heard(now, LIMIT_US);
        }
        assert_eq!(detector.patience_us(), 30_000);
    }

    /// A host that sends all `tick_us`, looks at what came all `wake_us`, and whose voters' answers
    /// take `way_us`.
    fn pace(tick_us: u64, wake_us: u64, way_us: u64) -> u64 {
        let mut pace = Pace::default();
        // It ticks only when it is awake.
        let step_us = wake_us.max(tick_us);
        for wake in 100..500 {
            let now = wake * wake_us;
            let sent = (now - way_us) / step_us * step_us;
            // Answers come one after the other, in one instant.
            for late in [2 * step_us, step_us, 0] {
                let sent = Time::from_micros(sent - late);
                pace.see(Time::from_micros(now), sent, LIMIT_US);
            }
        }
        pace.usual_age_us()
    }

    #[test]
    fn the_age_of_words_shows_who_wakes_late() {
        let calm_us = pace(16_000, 4_000, 50_000);
        assert!((60_000..=66_000).contains(&calm_us), "{calm_us}");
        // It sends when it wakes, and reads the answers when it wakes again.
        let uneven_us = pace(16_000, 150_000, 50_000);
        assert_eq!(uneven_us, 150_000);
    }
}
