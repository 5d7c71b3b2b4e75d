//! Who plays in the yard.

use std::collections::BTreeMap;

use phalanx::netcode::driver::Player;
use phalanx::netcode::id::Slot;
use phalanx::netcode::input::InputFrame;
use phalanx::netcode::node::SessionInfo;
use phalanx::netcode::prng::Prng;
use phalanx::netcode::tick::Tick;

use super::{Body, Plan, STOP, Yard};
use crate::cluster::Seeded;

/// A player whose hero is pushed to and fro.
#[derive(Debug)]
pub struct Pusher {
    prng: Prng,
    push: u8,
    /// What the yard is made with.
    pub plan: Plan,
    /// Changes of the push per million ticks.
    pub turns_per_million: u32,
    /// It makes its hero stand still instead.
    pub stops: bool,
    /// What it pushed, by tick.
    pub pushed: BTreeMap<Tick, u8>,
    /// The hero of the own slot, as it was after a tick ran for the first time.
    pub shown: BTreeMap<Tick, Body>,
    /// The first body, after each tick that ran for the first time.
    pub first: BTreeMap<Tick, Body>,
    /// On the host: the newest worlds, by tick.
    pub worlds: BTreeMap<Tick, BTreeMap<u64, Body>>,
    /// On the host: what acted on a tick, by slot.
    pub acted: BTreeMap<Tick, Vec<Option<u8>>>,
    /// What it pushes depends on the tick alone, not on what it was asked before.
    pub is_steady: bool,
    slot: Option<u8>,
}

/// Worlds that a host's player remembers.
const WORLDS_MAX: usize = 512;

impl Player for Pusher {
    type Simulation = Yard;

    fn begin(&mut self, session: &SessionInfo) -> Yard {
        self.slot = session.slot.map(|slot| slot.0);
        let predicts = if session.hosts {
            None
        } else {
            Some(self.slot.unwrap_or(u8::MAX))
        };
        Yard::new(session.seed, session.slots, self.plan, predicts)
    }

    fn sample(&mut self, tick: Tick, _yard: &Yard, input: &mut [u8]) {
        if self.prng.chance_per_million(self.turns_per_million) {
            self.push = u8::try_from(self.prng.below(4)).expect("small");
        }
        if self.is_steady {
            let (slot, turn) = (self.slot.unwrap_or_default(), tick.number() / 20);
            let mut prng = Prng::with_stream(u64::from(turn), u64::from(slot));
            self.push = u8::try_from(prng.below(4)).expect("small");
        }
        if self.stops {
            self.push = STOP;
        }
        self.pushed.insert(tick, self.push);
        input[0] = self.push;
    }

    fn stepped(&mut self, yard: &Yard, frame: &InputFrame) {
        if let Some(hero) = self.slot.and_then(|slot| yard.hero(slot)) {
            self.shown.insert(frame.tick(), hero.clone());
        }
        if let Some(first) = yard.bodies().get(&100) {
            self.first.insert(frame.tick(), first.clone());
        }
        if yard.is_authority() {
            self.worlds.insert(frame.tick(), yard.bodies().clone());
            if self.worlds.len() > WORLDS_MAX {
                self.worlds.pop_first();
            }
            let slots = (0..frame.slots()).map(Slot);
            let inputs = slots.map(|slot| frame.input(slot).map(|bytes| bytes[0]));
            self.acted.insert(frame.tick(), inputs.collect());
            if self.acted.len() > WORLDS_MAX {
                self.acted.pop_first();
            }
        }
    }
}

impl Seeded for Pusher {
    fn seeded(seed: u64, stream: u64) -> Self {
        Self {
            prng: Prng::with_stream(seed, stream),
            push: 0,
            plan: Plan::default(),
            turns_per_million: 50_000,
            stops: false,
            pushed: BTreeMap::new(),
            shown: BTreeMap::new(),
            first: BTreeMap::new(),
            worlds: BTreeMap::new(),
            acted: BTreeMap::new(),
            is_steady: false,
            slot: None,
        }
    }
}
