//! A bad network in a box: loss, bursts, latency, jitter, duplication, reordering, rate, queue, MTU.
//!
//! A [`Conditioner`] models one direction of one route. It is pure: time is an argument and chance
//! comes from a seed, so equal calls give equal results. The virtual cluster runs on it, and
//! [`ConditionedLink`](super::conditioned::ConditionedLink) puts it into a running game.
//!
//! A datagram passes these stations in order: MTU, the queue and rate of the bottleneck, loss
//! (what is lost has used the bottleneck), duplication, then delay.
//!
//! Order is a choice of the caller. Jitter alone keeps it, as a real queue does: a datagram never
//! leaves before the one pushed before it, so strong jitter bunches datagrams. What
//! [`Conditions::reorder_per_million`] picks is held back further and is overtaken. For jitter in
//! which every datagram is delayed on its own, set it to 1 000 000.

use core::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::prng::Prng;
use crate::time::Time;

/// Longest time that a reordered datagram is held back beyond its latency and jitter, in
/// microseconds: three ticks at 60 per second, so that some neighbours overtake it.
pub const REORDER_HOLD_US_MAX: u64 = 50_000;

/// Datagrams in flight in one conditioner. Further ones are dropped and counted as queue drops.
pub const IN_FLIGHT_DATAGRAMS_MAX: usize = 1 << 16;

/// Bursts of loss after Gilbert and Elliott: a good and a bad state, a step per datagram.
///
/// Gilbert, "Capacity of a burst-noise channel" (1960); Elliott, "Estimates of error rates for
/// codes on burst-noise channels" (1963).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Burst {
    /// Probability that a datagram starts a burst.
    pub enter_per_million: u32,
    /// Probability that a datagram ends the burst and is itself outside of it.
    pub leave_per_million: u32,
    /// Probability that a datagram within a burst is lost.
    pub loss_within_per_million: u32,
}

impl Burst {
    /// Bursts that lose all datagrams within, of the mean length `length_datagrams` (at least 1),
    /// which add up to a mean loss of `loss_per_million` (below 1 000 000).
    ///
    /// Short bursts cannot make high loss: above `length / (length + 1)` it saturates there.
    #[must_use]
    pub fn from_mean(loss_per_million: u32, length_datagrams: u32) -> Self {
        let loss = u64::from(loss_per_million.min(999_999));
        let leave = 1_000_000 / u64::from(length_datagrams.max(1));
        // In the steady state loss = enter / (enter + leave).
        let enter = (leave * loss / (1_000_000 - loss)).min(1_000_000);
        Self {
            enter_per_million: u32::try_from(enter).unwrap_or(1_000_000),
            leave_per_million: u32::try_from(leave).unwrap_or(1_000_000),
            loss_within_per_million: 1_000_000,
        }
    }
}

/// What a [`Conditioner`] does to datagrams. The default does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conditions {
    /// Delay of every datagram, one way, in microseconds.
    pub latency_us: u64,
    /// Largest extra delay in microseconds; each datagram's is uniform from 0 up to it.
    pub jitter_us: u64,
    /// Independent loss; with [`Conditions::burst`], the loss outside of bursts.
    pub loss_per_million: u32,
    /// Bursts of loss.
    pub burst: Option<Burst>,
    /// Probability that a datagram arrives twice, each copy with its own delay.
    pub duplicate_per_million: u32,
    /// Probability that a datagram is held back, so that others overtake it.
    pub reorder_per_million: u32,
    /// Speed of the bottleneck in bytes per second; `None` is unlimited, 0 lets nothing pass.
    pub rate_bytes_per_s: Option<u64>,
    /// Bytes that may wait at the bottleneck; what comes on top is dropped.
    pub queue_bytes: usize,
    /// Largest datagram in bytes of payload; larger ones are dropped.
    pub mtu_bytes: usize,
}

impl Conditions {
    /// Nothing happens to a datagram.
    pub const PERFECT: Self = Self {
        latency_us: 0,
        jitter_us: 0,
        loss_per_million: 0,
        burst: None,
        duplicate_per_million: 0,
        reorder_per_million: 0,
        rate_bytes_per_s: None,
        queue_bytes: 64 << 10,
        mtu_bytes: 1472,
    };

    /// One direction of a route with this round trip time and independent loss.
    #[must_use]
    pub const fn from_rtt(rtt_us: u64, loss_per_million: u32) -> Self {
        Self {
            latency_us: rtt_us / 2,
            loss_per_million,
            ..Self::PERFECT
        }
    }
}

impl Default for Conditions {
    fn default() -> Self {
        Self::PERFECT
    }
}

/// What a [`Conditioner`] has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConditionerStatistics {
    /// Datagrams given to it.
    pub pushed: u64,
    /// Datagrams taken out of it, copies included.
    pub delivered: u64,
    /// Lost by chance, in bursts or not.
    pub lost: u64,
    /// Dropped because the queue was full.
    pub queue_full: u64,
    /// Dropped because they were larger than the MTU.
    pub oversized: u64,
    /// Extra copies made.
    pub duplicated: u64,
    /// Held back so that others overtake.
    pub reordered: u64,
}

/// One direction of a route under [`Conditions`]. `T` travels with the bytes, for example the
/// destination.
#[derive(Debug)]
pub struct Conditioner<T> {
    conditions: Conditions,
    prng: Prng,
    in_burst: bool,
    /// When the bottleneck has sent all that it has accepted.
    rate_free_at: Time,
    /// No datagram that keeps its order leaves before this.
    order_floor: Time,
    in_flight: BinaryHeap<InFlight<T>>,
    pushed_count: u64,
    /// Buffers of delivered datagrams, for the next ones.
    pool: Vec<Vec<u8>>,
    /// The datagram that the last `pop` lent out.
    lent: Vec<u8>,
    statistics: ConditionerStatistics,
}

impl<T: Clone> Conditioner<T> {
    /// A route under `conditions` whose chance depends on `seed` alone.
    #[must_use]
    pub fn new(conditions: Conditions, seed: u64) -> Self {
        Self {
            conditions,
            prng: Prng::new(seed),
            in_burst: false,
            rate_free_at: Time::ZERO,
            order_floor: Time::ZERO,
            in_flight: BinaryHeap::new(),
            pushed_count: 0,
            pool: Vec::new(),
            lent: Vec::new(),
            statistics: ConditionerStatistics::default(),
        }
    }

    /// Takes a datagram in at `now`. Times must not go back between calls.
    pub fn push(&mut self, now: Time, key: T, bytes: &[u8]) {
        self.statistics.pushed += 1;
        if bytes.len() > self.conditions.mtu_bytes {
            self.statistics.oversized += 1;
            return;
        }
        let Some(sent_at) = self.pass_bottleneck(now, bytes.len()) else {
            self.statistics.queue_full += 1;
            return;
        };
        if self.is_lost() {
            self.statistics.lost += 1;
            return;
        }
        if self.chance(self.conditions.duplicate_per_million) {
            self.statistics.duplicated += 1;
            self.launch(sent_at, key.clone(), bytes);
        }
        self.launch(sent_at, key, bytes);
    }

    /// Gives out the next datagram that has arrived by `now`. The bytes live until the next call.
    pub fn pop(&mut self, now: Time) -> Option<(T, &[u8])> {
        if self.in_flight.peek()?.due > now {
            return None;
        }
        let arrived = self.in_flight.pop()?;
        let mut used = core::mem::replace(&mut self.lent, arrived.bytes);
        if used.capacity() > 0 {
            used.clear();
            self.pool.push(used);
        }
        self.statistics.delivered += 1;
        Some((arrived.key, &self.lent))
    }

    /// When the next datagram arrives; `None` if none is under way.
    #[must_use]
    pub fn next_time(&self) -> Option<Time> {
        self.in_flight.peek().map(|next| next.due)
    }

    /// Datagrams under way.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// What has happened so far.
    #[must_use]
    pub const fn statistics(&self) -> ConditionerStatistics {
        self.statistics
    }

    /// The conditions in force.
    #[must_use]
    pub const fn conditions(&self) -> Conditions {
        self.conditions
    }

    /// Changes the conditions for what is pushed from now on.
    pub const fn set_conditions(&mut self, conditions: Conditions) {
        self.conditions = conditions;
    }

    /// Loses everything under way, as when a route breaks.
    pub fn clear(&mut self) {
        while let Some(mut lost) = self.in_flight.pop() {
            lost.bytes.clear();
            self.pool.push(lost.bytes);
            self.statistics.lost += 1;
        }
    }

    /// When the bottleneck is done with `bytes` more bytes, or `None` if its queue is full.
    fn pass_bottleneck(&mut self, now: Time, bytes: usize) -> Option<Time> {
        if self.in_flight.len() >= IN_FLIGHT_DATAGRAMS_MAX {
            return None;
        }
        let Some(rate) = self.conditions.rate_bytes_per_s else {
            return Some(now);
        };
        if rate == 0 {
            return None;
        }
        let bytes = bytes as u64;
        let waiting_us = self.rate_free_at.micros_since(now);
        let waiting_bytes = u128::from(waiting_us) * u128::from(rate) / 1_000_000;
        if waiting_bytes + u128::from(bytes) > self.conditions.queue_bytes as u128 {
            return None;
        }
        let start = self.rate_free_at.max(now);
        self.rate_free_at = start.plus_micros(bytes.saturating_mul(1_000_000).div_ceil(rate));
        Some(self.rate_free_at)
    }

    fn is_lost(&mut self) -> bool {
        if let Some(burst) = self.conditions.burst {
            let step = if self.in_burst {
                burst.leave_per_million
            } else {
                burst.enter_per_million
            };
            if self.chance(step) {
                self.in_burst = !self.in_burst;
            }
            if self.in_burst {
                return self.chance(burst.loss_within_per_million);
            }
        }
        self.chance(self.conditions.loss_per_million)
    }

    /// Draws nothing where the outcome is certain: the other draws of a run stay as they are.
    const fn chance(&mut self, per_million: u32) -> bool {
        per_million > 0 && self.prng.chance_per_million(per_million)
    }

    fn launch(&mut self, sent_at: Time, key: T, bytes: &[u8]) {
        let jitter = self.prng.below(self.conditions.jitter_us.saturating_add(1));
        let mut due = sent_at
            .plus_micros(self.conditions.latency_us)
            .plus_micros(jitter);
        if self.chance(self.conditions.reorder_per_million) {
            self.statistics.reordered += 1;
            due = due.plus_micros(self.prng.below(REORDER_HOLD_US_MAX) + 1);
        } else {
            due = due.max(self.order_floor);
            self.order_floor = due;
        }
        let mut buffer = self.pool.pop().unwrap_or_default();
        buffer.extend_from_slice(bytes);
        self.pushed_count += 1;
        self.in_flight.push(InFlight {
            due,
            order: self.pushed_count,
            key,
            bytes: buffer,
        });
    }
}

/// A datagram under way. The greatest of them is due first, and among equals the older one.
#[derive(Debug)]
struct InFlight<T> {
    due: Time,
    order: u64,
    key: T,
    bytes: Vec<u8>,
}

impl<T> Ord for InFlight<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.due, other.order).cmp(&(self.due, self.order))
    }
}

impl<T> PartialOrd for InFlight<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for InFlight<T> {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl<T> Eq for InFlight<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK_US: u64 = 16_667;

    /// Pushes `count` numbered datagrams, one per tick, and returns (number, delay) as they arrive.
    fn run(conditions: Conditions, seed: u64, count: u64) -> Vec<(u64, u64)> {
        let mut conditioner = Conditioner::new(conditions, seed);
        let mut arrived = Vec::new();
        for number in 0..count {
            let now = Time::from_micros(number * TICK_US);
            while let Some(at) = conditioner.next_time().filter(|&at| at <= now) {
                let (key, bytes) = conditioner.pop(at).unwrap();
                assert_eq!(bytes, u64::to_le_bytes(key));
                arrived.push((key, at.micros() - key * TICK_US));
            }
            conditioner.push(now, number, &number.to_le_bytes());
        }
        while let Some(at) = conditioner.next_time() {
            let (key, _bytes) = conditioner.pop(at).unwrap();
            arrived.push((key, at.micros() - key * TICK_US));
        }
        let done = conditioner.statistics();
        assert_eq!(done.delivered, arrived.len() as u64);
        assert_eq!(
            done.pushed + done.duplicated,
            done.delivered + done.lost + done.queue_full + done.oversized
        );
        arrived
    }

    #[test]
    fn perfect_conditions_change_nothing() {
        let arrived = run(Conditions::PERFECT, 1, 1000);
        assert!(arrived.iter().copied().eq((0..1000).map(|n| (n, 0))));
    }

    #[test]
    fn same_seed_same_fate() {
        let conditions = Conditions {
            jitter_us: 20_000,
            loss_per_million: 100_000,
            duplicate_per_million: 50_000,
            reorder_per_million: 50_000,
            ..Conditions::from_rtt(100_000, 0)
        };
        assert_eq!(run(conditions, 7, 5000), run(conditions, 7, 5000));
        assert_ne!(run(conditions, 7, 5000), run(conditions, 8, 5000));
    }

    #[test]
    fn independent_loss_has_its_rate_and_short_runs() {
        let count = 200_000;
        let arrived = run(Conditions::from_rtt(0, 50_000), 3, count);
        let lost = count - arrived.len() as u64;
        // 10 000 expected, standard deviation 97; five of them either way.
        assert!((9_500..10_500).contains(&lost), "lost {lost}");
        let mean = mean_gap(&arrived);
        assert!((1.03..1.08).contains(&mean), "mean run of losses {mean}");
    }

    #[test]
    fn bursts_have_their_loss_and_their_length() {
        let count = 400_000;
        let conditions = Conditions {
            burst: Some(Burst::from_mean(50_000, 5)),
            ..Conditions::PERFECT
        };
        let arrived = run(conditions, 4, count);
        let lost = count - arrived.len() as u64;
        // 20 000 expected in 4 000 bursts; standard deviation about 420.
        assert!((17_900..22_100).contains(&lost), "lost {lost}");
        let mean = mean_gap(&arrived);
        assert!((4.6..5.4).contains(&mean), "mean burst {mean}");
    }

    /// Mean length of the runs of missing numbers.
    fn mean_gap(arrived: &[(u64, u64)]) -> f64 {
        let gaps: Vec<u64> = arrived
            .windows(2)
            .map(|pair| pair[1].0 - pair[0].0 - 1)
            .filter(|&gap| gap > 0)
            .collect();
        gaps.iter().sum::<u64>() as f64 / gaps.len() as f64
    }

    #[test]
    fn latency_and_jitter_have_their_range_and_mean() {
        let conditions = Conditions {
            latency_us: 50_000,
            jitter_us: 10_000,
            ..Conditions::PERFECT
        };
        let arrived = run(conditions, 5, 50_000);
        assert!(
            arrived
                .iter()
                .all(|&(_, delay)| (50_000..=60_000).contains(&delay))
        );
        let mean = arrived.iter().map(|&(_, delay)| delay).sum::<u64>() / 50_000;
        assert!((54_800..55_200).contains(&mean), "mean {mean}");
        assert!(arrived.iter().any(|&(_, delay)| delay < 50_100));
        assert!(arrived.iter().any(|&(_, delay)| delay > 59_900));
    }

    #[test]
    fn jitter_keeps_the_order_and_reorder_breaks_it() {
        let jitter = Conditions {
            jitter_us: 100_000,
            ..Conditions::PERFECT
        };
        assert!(run(jitter, 6, 10_000).is_sorted_by_key(|&(number, _)| number));

        let reorder = Conditions {
            reorder_per_million: 100_000,
            ..Conditions::PERFECT
        };
        let arrived = run(reorder, 6, 10_000);
        let overtaken = arrived.windows(2).filter(|w| w[1].0 < w[0].0).count();
        // One in ten is held back by 25 ms on average; two thirds of those beyond the next tick.
        assert!(
            (400..1000).contains(&overtaken),
            "{overtaken} were overtaken"
        );
        assert!(
            arrived
                .iter()
                .all(|&(_, delay)| delay <= REORDER_HOLD_US_MAX)
        );
    }

    #[test]
    fn duplicates_come_at_their_rate() {
        let conditions = Conditions {
            duplicate_per_million: 100_000,
            ..Conditions::PERFECT
        };
        let extra = run(conditions, 9, 50_000).len() - 50_000;
        assert!((4_600..5_400).contains(&extra), "{extra} copies");
    }

    #[test]
    fn the_bottleneck_spaces_queues_and_drops() {
        let conditions = Conditions {
            rate_bytes_per_s: Some(100_000),
            queue_bytes: 1000,
            ..Conditions::PERFECT
        };
        let mut conditioner = Conditioner::new(conditions, 1);
        for number in 0..20 {
            conditioner.push(Time::ZERO, number, &[0; 100]);
        }
        assert_eq!(conditioner.statistics().queue_full, 10);
        let mut at = Vec::new();
        while let Some(time) = conditioner.next_time() {
            conditioner.pop(time).unwrap();
            at.push(time.micros());
        }
        assert!(at.iter().copied().eq((1..=10).map(|n| n * 1000)));
        conditioner.push(Time::from_micros(10_000), 21, &[0; 100]);
        assert_eq!(conditioner.next_time(), Some(Time::from_micros(11_000)));
    }

    #[test]
    fn oversized_datagrams_and_a_broken_route_lose() {
        let mut conditioner = Conditioner::new(Conditions::PERFECT, 1);
        conditioner.push(Time::ZERO, (), &[0; 1473]);
        assert_eq!(conditioner.statistics().oversized, 1);
        conditioner.push(Time::ZERO, (), &[0; 1472]);
        assert_eq!(conditioner.in_flight(), 1);
        conditioner.clear();
        assert_eq!(conditioner.statistics().lost, 1);
        assert!(conditioner.pop(Time::FAR).is_none());
    }

    #[test]
    fn buffers_come_back() {
        let mut conditioner = Conditioner::new(Conditions::from_rtt(100_000, 0), 1);
        let mut now = Time::ZERO;
        for round in 0..1000_u64 {
            conditioner.push(now, round, &[7; 100]);
            while conditioner.pop(now).is_some() {}
            now = now.plus_micros(TICK_US);
        }
        let buffers = conditioner.pool.len() + conditioner.in_flight();
        assert!(buffers <= 5, "{buffers} buffers for 3 datagrams in flight");
    }
}
