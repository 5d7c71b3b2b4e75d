//! A path that loses, delays, repeats and reorders, from a seed.

use phalanx_netcode::prng::Prng;

/// What is wrong with a path.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    /// Per million.
    pub(crate) loss: u32,
    /// Per million: a burst begins.
    pub(crate) burst_begins: u32,
    /// Per million: it ends.
    pub(crate) burst_ends: u32,
    /// Per million.
    pub(crate) duplicates: u32,
    /// Ticks of additional delay, at most.
    pub(crate) jitter: u64,
    /// Nothing arrives.
    pub(crate) is_cut: bool,
}

impl Faults {
    /// Random ones; sometimes none.
    pub(crate) fn draw(prng: &mut Prng) -> Self {
        match prng.below(6) {
            0 => Self::default(),
            1 => Self {
                is_cut: true,
                ..Self::default()
            },
            _ => Self {
                loss: u32::try_from(prng.below(200_000)).unwrap(),
                burst_begins: u32::try_from(prng.below(40_000)).unwrap(),
                burst_ends: 100_000,
                duplicates: u32::try_from(prng.below(100_000)).unwrap(),
                jitter: prng.below(8),
                is_cut: false,
            },
        }
    }
}

/// One direction of a path.
pub(crate) struct Channel<T> {
    pub(crate) faults: Faults,
    prng: Prng,
    latency: u32,
    in_burst: bool,
    under_way: Vec<(u32, T)>,
}

impl<T: Clone> Channel<T> {
    pub(crate) fn new(seed: u64, latency: u32) -> Self {
        Self {
            faults: Faults::default(),
            prng: Prng::new(seed),
            latency,
            in_burst: false,
            under_way: Vec::new(),
        }
    }

    pub(crate) fn send(&mut self, now: u32, item: T) {
        let Faults {
            loss,
            burst_begins,
            burst_ends,
            duplicates,
            jitter,
            is_cut,
        } = self.faults;
        self.in_burst = if self.in_burst {
            !self.prng.chance_per_million(burst_ends)
        } else {
            self.prng.chance_per_million(burst_begins)
        };
        if is_cut || self.in_burst || self.prng.chance_per_million(loss) {
            return;
        }
        for _ in 0..1 + u32::from(self.prng.chance_per_million(duplicates)) {
            let extra = u32::try_from(self.prng.below(jitter + 1)).unwrap();
            self.under_way
                .push((now + self.latency + extra, item.clone()));
        }
    }

    /// What arrives now, in any order.
    pub(crate) fn take(&mut self, now: u32) -> Vec<T> {
        let mut due = Vec::new();
        let mut at = 0;
        while at < self.under_way.len() {
            if self.under_way[at].0 <= now {
                due.push(self.under_way.swap_remove(at).1);
            } else {
                at += 1;
            }
        }
        due
    }

    /// The faults are over: what is under way arrives without further delay.
    pub(crate) fn settle(&mut self, now: u32) {
        self.in_burst = false;
        for (due, _) in &mut self.under_way {
            *due = (*due).min(now + self.latency);
        }
    }
}
