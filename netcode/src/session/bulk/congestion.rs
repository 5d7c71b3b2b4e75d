//! How many chunks may be in flight.
//!
//! The window doubles per round trip until a queue forms, then grows by one chunk per round. A
//! queue of more than [`QUEUE_US_MAX`] shrinks it in proportion, before anything is lost: a tick's
//! datagrams stand in the same queue. A round with losses halves it, except for losses that are not
//! its own: when half the window loses as large a share as the whole one did, the path loses by
//! itself (radio does), the cut is undone, and that share is tolerated from then on.

/// Chunks in flight at the start.
const START: u64 = 32;
/// Chunks that are always allowed.
const FLOOR: u64 = 8;
/// Chunks that are never exceeded.
const CEILING: u64 = 2048;
/// Outcomes that make a round's share of losses worth judging.
const SAMPLES_MIN: u32 = 16;
/// Waiting time in the path's queues above which the window shrinks.
const QUEUE_US_MAX: u64 = 30_000;
/// Round trips of which the shortest tells whether a queue forms.
const RECENT: usize = 8;
/// Share of losses (per mille) above the tolerated one that is taken for congestion.
const EXCESS_PER_MILLE: u32 = 60;
/// Largest tolerated share.
const TOLERANCE_PER_MILLE_MAX: u32 = 450;

/// Round-trip time as RFC 6298 smooths it.
#[derive(Clone, Copy, Debug)]
pub(super) struct RoundTrip {
    smooth_us: u64,
    variation_us: u64,
    min_us: Option<u64>,
    latest_us: u64,
    /// Difference between successive samples, smoothed. A growing queue hardly moves it.
    jitter_us: u64,
}

impl RoundTrip {
    pub(super) const fn new(initial_us: u64) -> Self {
        Self {
            smooth_us: initial_us,
            variation_us: initial_us / 2,
            min_us: None,
            latest_us: initial_us,
            jitter_us: 0,
        }
    }

    pub(super) fn sample(&mut self, us: u64) {
        let Some(min_us) = self.min_us else {
            *self = Self {
                smooth_us: us,
                variation_us: us / 2,
                min_us: Some(us),
                latest_us: us,
                jitter_us: 0,
            };
            return;
        };
        self.jitter_us = (7 * self.jitter_us + self.latest_us.abs_diff(us)) / 8;
        self.latest_us = us;
        self.min_us = Some(min_us.min(us));
        self.variation_us = (3 * self.variation_us + self.smooth_us.abs_diff(us)) / 4;
        self.smooth_us = (7 * self.smooth_us + us) / 8;
    }

    /// Time after which a chunk is lost if a later one has arrived.
    pub(super) fn loss_us(&self) -> u64 {
        let slack = (self.smooth_us / 8).max(3 * self.variation_us).max(1000);
        self.smooth_us.max(self.latest_us) + slack
    }

    /// Time without an ack after which the last chunks are probed.
    pub(super) fn probe_us(&self) -> u64 {
        self.smooth_us + (4 * self.variation_us).max(5000)
    }
}

/// The window.
#[derive(Clone, Debug)]
pub(super) struct Congestion {
    /// Window in thousandths of a chunk.
    window_milli: u64,
    /// Window below which it doubles per round.
    threshold_milli: u64,
    /// Whether the window, and not the pace or the end of the payload, held chunks back.
    limited: bool,
    /// Transmissions before this one were in flight at the last cut and are not judged.
    judged_from: u32,
    /// The round ends when this transmission or a later one has arrived.
    round_end: u32,
    arrived: u32,
    lost: u32,
    round_rtt_min_us: u64,
    /// The latest round trips; while the window doubles, a round is too long to wait for.
    recent_us: [u64; RECENT],
    recent_next: usize,
    tolerance_per_mille: u32,
    /// Share of losses, window and threshold before the last cut, until the next round is judged.
    cut: Option<(u32, u64, u64)>,
}

impl Congestion {
    pub(super) const fn new() -> Self {
        Self {
            window_milli: START * 1000,
            threshold_milli: CEILING * 1000,
            limited: false,
            judged_from: 0,
            round_end: 0,
            arrived: 0,
            lost: 0,
            round_rtt_min_us: u64::MAX,
            recent_us: [0; RECENT],
            recent_next: 0,
            tolerance_per_mille: 0,
            cut: None,
        }
    }

    /// Chunks that may be in flight.
    pub(super) const fn window(&self) -> u64 {
        self.window_milli / 1000
    }

    /// Time between two chunks, so that a window does not leave as one burst that overflows a short
    /// queue: half of what would spread it over the round trip while it doubles, else four fifths.
    pub(super) const fn interval_us(&self, round_trip: &RoundTrip) -> u64 {
        let spread_us = round_trip.smooth_us * 1000 / self.window_milli;
        if self.window_milli < self.threshold_milli {
            spread_us / 2
        } else {
            spread_us * 4 / 5
        }
    }

    /// Takes note that the window held a chunk back.
    pub(super) const fn note_limited(&mut self) {
        self.limited = true;
    }

    pub(super) const fn on_arrived(&mut self, transmission: u32) {
        if transmission >= self.judged_from {
            self.arrived += 1;
        }
        if self.limited {
            self.window_milli += if self.window_milli < self.threshold_milli {
                1000
            } else {
                1_000_000 / self.window_milli
            };
            if self.window_milli > CEILING * 1000 {
                self.window_milli = CEILING * 1000;
            }
        }
    }

    pub(super) const fn on_lost(&mut self, transmission: u32) {
        if transmission >= self.judged_from {
            self.lost += 1;
        }
    }

    /// Nothing has arrived for several probes.
    pub(super) fn on_silence(&mut self) {
        self.threshold_milli = (self.window_milli / 2).max(FLOOR * 1000);
        self.window_milli = FLOOR * 1000;
    }

    /// Judges the round, if it has ended with the arrival of `newest`; `next` is the transmission
    /// that will be sent next.
    pub(super) fn on_ack(&mut self, round_trip: &RoundTrip, newest: u32, next: u32) {
        self.round_rtt_min_us = self.round_rtt_min_us.min(round_trip.latest_us);
        let base_us = round_trip.min_us.unwrap_or(round_trip.latest_us);
        self.recent_us[self.recent_next] = round_trip.latest_us;
        self.recent_next = (self.recent_next + 1) % RECENT;
        let recent_us = self.recent_us.iter().copied().min().unwrap_or(0);
        if self.window_milli < self.threshold_milli
            && recent_us > base_us + queue_forms_us(base_us) + 2 * round_trip.jitter_us
        {
            // No more doubling, and no more in flight than the path holds.
            self.shrink_to(base_us, recent_us);
            self.round_end = next;
            self.round_rtt_min_us = u64::MAX;
            return;
        }
        let samples = self.arrived + self.lost;
        if newest < self.round_end || samples < SAMPLES_MIN {
            return;
        }
        let queue_us = self
            .round_rtt_min_us
            .saturating_sub(base_us + round_trip.jitter_us);
        let share = self.lost * 1000 / samples;
        // Two standard deviations of the tolerated share, as so many samples measure it.
        let tolerated = self.tolerance_per_mille;
        let noise = 2 * (tolerated * (1000 - tolerated) / samples).isqrt();
        let excess = EXCESS_PER_MILLE + noise;
        let previous_cut = self.cut.take();
        if let Some((share_before, window_milli, threshold_milli)) = previous_cut
            && share * 4 >= share_before * 3
            && queue_us < QUEUE_US_MAX / 4
        {
            self.tolerance_per_mille = share.max(share_before).min(TOLERANCE_PER_MILLE_MAX);
            self.window_milli = self.window_milli.max(window_milli);
            self.threshold_milli = threshold_milli;
        } else if share > self.tolerance_per_mille + excess
            || (self.lost > 0 && queue_us > QUEUE_US_MAX / 2 && share > self.tolerance_per_mille)
        {
            self.cut = Some((share, self.window_milli, self.threshold_milli));
            self.window_milli = (self.window_milli / 2).max(FLOOR * 1000);
            self.threshold_milli = self.window_milli;
            self.judged_from = next;
        } else if queue_us > QUEUE_US_MAX {
            self.shrink_to(base_us, self.round_rtt_min_us);
        }
        self.tolerance_per_mille -= self.tolerance_per_mille.saturating_sub(share) / 8;
        self.round_end = next;
        self.arrived = 0;
        self.lost = 0;
        self.limited = false;
        self.round_rtt_min_us = u64::MAX;
    }

    /// Lowers the window to what the path holds with a short queue.
    fn shrink_to(&mut self, base_us: u64, round_trip_us: u64) {
        let kept_us = (base_us + QUEUE_US_MAX / 2).min(round_trip_us);
        let window_milli = self.window_milli * kept_us / round_trip_us.max(1);
        self.window_milli = window_milli.max(FLOOR * 1000);
        self.threshold_milli = self.window_milli;
    }
}

/// Rise of the round trip above its base that tells of a queue, and not of chance.
fn queue_forms_us(base_us: u64) -> u64 {
    (base_us / 8).clamp(5000, QUEUE_US_MAX / 2)
}
