//! Desync detection: hashes of the same tick, compared.

use crate::tick::Tick;
use crate::wire::header::HashSection;

/// Hashes that a node remembers.
const RING: usize = 128;

/// The combined state hashes of the last compared ticks.
#[derive(Debug)]
pub(super) struct HashRing {
    interval: u32,
    asked: Tick,
    ring: Vec<Option<(Tick, u64)>>,
}

impl HashRing {
    pub(super) fn new(interval: u32) -> Self {
        Self {
            interval,
            asked: Tick::ZERO,
            ring: vec![None; RING],
        }
    }

    /// The next tick to hash once all up to `settled` are final.
    pub(super) fn next_due(&mut self, settled: Tick) -> Option<Tick> {
        let steps = self.asked.number().checked_div(self.interval)?;
        let tick = Tick::new((steps + 1).saturating_mul(self.interval));
        if tick > settled || tick <= self.asked {
            return None;
        }
        self.asked = tick;
        Some(tick)
    }

    /// Goes on behind `tick`; later hashes are of another past.
    pub(super) fn forget_after(&mut self, tick: Tick) {
        self.asked = tick;
        for place in &mut self.ring {
            if place.is_some_and(|(known, _)| known > tick) {
                *place = None;
            }
        }
    }

    pub(super) fn put(&mut self, tick: Tick, hash: u64) {
        self.ring[tick.number() as usize % RING] = Some((tick, hash));
    }

    pub(super) fn at(&self, tick: Tick) -> Option<u64> {
        self.ring[tick.number() as usize % RING]
            .filter(|&(known, _)| known == tick)
            .map(|(_, hash)| hash)
    }

    pub(super) fn is_compared(&self, tick: Tick) -> bool {
        self.interval > 0 && tick.number().is_multiple_of(self.interval)
    }
}

/// A hash as it travels: the halves of the combined hash, folded.
pub(super) fn fold(tick: Tick, hash: u64) -> HashSection {
    let [a, b, c, d, e, f, g, h] = hash.to_le_bytes();
    HashSection {
        tick,
        hash: u32::from_le_bytes([a ^ e, b ^ f, c ^ g, d ^ h]),
    }
}
