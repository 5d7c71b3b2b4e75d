//! Paths between nodes in virtual time: loss, bursts, delay, duplication, partitions.

use std::collections::BTreeMap;

use phalanx_netcode::prng::Prng;

/// How paths behave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quality {
    pub(crate) rtt_us: u64,
    pub(crate) jitter_us: u64,
    pub(crate) loss_ppm: u32,
    pub(crate) duplicate_ppm: u32,
    /// Chance that a datagram arrives seconds later.
    pub(crate) stale_ppm: u32,
    /// Chance per datagram that a burst of losses begins.
    pub(crate) burst_ppm: u32,
}

/// All paths.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) quality: Quality,
    prng: Prng,
    /// What is added to each delay, and until when.
    pub(crate) spike: Option<(u64, u64)>,
    blocked: BTreeMap<(u64, u64), u64>,
    bursts: BTreeMap<(u64, u64), u64>,
    /// Nodes whose records arrive late, and by how much.
    pub(crate) slow: BTreeMap<u64, u64>,
    /// What takes longer from one node to another, and by how much.
    pub(crate) far: BTreeMap<(u64, u64), u64>,
}

impl Network {
    pub(crate) fn new(quality: Quality, prng: Prng) -> Self {
        Self {
            quality,
            prng,
            spike: None,
            blocked: BTreeMap::new(),
            bursts: BTreeMap::new(),
            slow: BTreeMap::new(),
            far: BTreeMap::new(),
        }
    }

    /// Nothing passes from `from` to `to` until then.
    pub(crate) fn block(&mut self, from: u64, to: u64, until_us: u64) {
        let until = self.blocked.entry((from, to)).or_default();
        *until = (*until).max(until_us);
    }

    /// All partitions end.
    pub(crate) fn blocked_clear(&mut self) {
        self.blocked.clear();
    }

    pub(crate) fn heal(&mut self) {
        self.blocked.clear();
        self.slow.clear();
        self.far.clear();
        self.spike = None;
        self.quality.loss_ppm = self.quality.loss_ppm.min(10_000);
        (self.quality.stale_ppm, self.quality.burst_ppm) = (0, 0);
    }

    /// When copies of a datagram arrive.
    pub(crate) fn route(
        &mut self,
        now: u64,
        from: u64,
        to: u64,
        is_record: bool,
    ) -> [Option<u64>; 2] {
        let quality = self.quality;
        if self
            .blocked
            .get(&(from, to))
            .is_some_and(|until| *until > now)
        {
            return [None, None];
        }
        if self.prng.chance_per_million(quality.burst_ppm) {
            let until = now + 20_000 + self.prng.below(200_000);
            self.bursts.insert((from, to), until);
        }
        if self
            .bursts
            .get(&(from, to))
            .is_some_and(|until| *until > now)
        {
            return [None, None];
        }
        let mut one = || {
            if self.prng.chance_per_million(quality.loss_ppm) {
                return None;
            }
            let mut delay = quality.rtt_us / 2 + self.prng.below(quality.jitter_us + 1);
            delay += self.far.get(&(from, to)).copied().unwrap_or(0);
            if let Some((more, until)) = self.spike
                && until > now
            {
                delay += self.prng.below(more);
            }
            if is_record {
                delay += self.slow.get(&to).copied().unwrap_or(0);
            }
            if self.prng.chance_per_million(quality.stale_ppm) {
                delay += 500_000 + self.prng.below(4_000_000);
            }
            Some(now + delay)
        };
        let first = one();
        let second = one();
        let twice = self.prng.chance_per_million(quality.duplicate_ppm);
        [first, second.filter(|_| twice)]
    }
}
