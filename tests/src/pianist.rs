//! A player whose inputs are a function of the tick, so that runs compare.

use std::collections::BTreeMap;

use phalanx::netcode::driver::Player;
use phalanx::netcode::hash::mix;
use phalanx::netcode::node::SessionInfo;
use phalanx::netcode::tick::Tick;

use crate::cluster::Seeded;
use crate::toy::Toy;

/// Plays the toy by heart: what it submits depends on the tick alone.
#[derive(Debug)]
pub struct Pianist {
    seed: u64,
    /// What it submitted, by tick.
    pub submitted: BTreeMap<Tick, u64>,
}

impl Player for Pianist {
    type Simulation = Toy;

    fn begin(&mut self, session: &SessionInfo) -> Toy {
        Toy::new(session.seed, session.slots)
    }

    fn sample(&mut self, tick: Tick, _simulation: &Toy, input: &mut [u8]) {
        // Held for some ticks, as keys are.
        let key = mix(self.seed, u64::from(tick.number() / 3)) & 0xffff;
        self.submitted.insert(tick, key);
        input.copy_from_slice(&key.to_le_bytes());
    }
}

impl Seeded for Pianist {
    fn seeded(seed: u64, stream: u64) -> Self {
        Self {
            seed: mix(seed, stream),
            submitted: BTreeMap::new(),
        }
    }
}
