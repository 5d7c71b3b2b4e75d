//! What happens in ticks, told to presentation once.
//!
//! A tick runs again when an input was guessed wrong, or when a snapshot of the host arrives. Its
//! events happen again too, and sounds must not. [`TickEvents`] remembers what it has told of each
//! recent tick and hands out only what is new: an event that a tick brings about for the first
//! time when it runs again, since only now its inputs are known, is told then.

use core::any::type_name;
use std::collections::VecDeque;

use bevy_ecs::resource::Resource;
use bevy_ecs::world::World;
use phalanx_netcode::tick::Tick;

/// Ticks whose events are remembered. A tick that runs again later than that tells nothing.
const TICKS: usize = 256;

/// Events that wait to be read; beyond that the oldest ones are dropped and counted.
const WAITING_MAX: usize = 16_384;

/// The events of one type: systems of the tick [`send`](TickEvents::send) them, presentation
/// [`drain`](TickEvents::drain)s them. Registered by
/// [`GameBuilder::event`](crate::GameBuilder::event).
///
/// It is no state, and does not travel: a node is told what its own ticks bring about. In state-sync
/// mode, what systems of the host alone send ([`on_authority`](crate::on_authority)) reaches nobody
/// else; tell others of it with a message, or by a change of the state. Two events are the same if they are equal and happen in the same tick; two
/// equal ones in one tick are told twice.
///
/// ```
/// use phalanx::prelude::*;
///
/// #[derive(Clone, Debug, PartialEq)]
/// struct Shot(Slot);
///
/// fn shoot(inputs: Res<Inputs<u8>>, mut shots: ResMut<TickEvents<Shot>>) {
///     for (slot, _) in inputs.iter().filter(|(_, trigger)| **trigger > 0) {
///         shots.send(Shot(slot));
///     }
/// }
///
/// # fn main() -> Result<(), GameError> {
/// let game = Game::builder("example")
///     .event::<Shot>()
///     .input::<u8>()
///     .systems(|| shoot)
///     .build()?;
/// let mut simulation = game.simulation(7, 1);
/// let mut frame = InputFrame::empty(Tick::new(1), 1, 1);
/// frame.set(Slot(0), &[1]);
/// simulation.step(&frame, StepKind::First);
/// let mut shots = simulation.world_mut().resource_mut::<TickEvents<Shot>>();
/// assert!(shots.drain().eq([(Tick::new(1), Shot(Slot(0)))]));
/// # Ok(())
/// # }
/// ```
#[derive(Resource, Debug)]
pub struct TickEvents<T: Send + Sync + 'static> {
    /// The tick that runs.
    tick: Tick,
    /// How many of the tick's `told` events have happened again in this run.
    again: Vec<bool>,
    /// By tick modulo [`TICKS`].
    told: Vec<Told<T>>,
    waiting: VecDeque<(Tick, T)>,
    dropped: u64,
}

#[derive(Debug)]
struct Told<T> {
    tick: Tick,
    events: Vec<T>,
}

impl<T: Send + Sync + 'static> Default for TickEvents<T> {
    fn default() -> Self {
        Self {
            tick: Tick::ZERO,
            again: Vec::new(),
            told: Vec::new(),
            waiting: VecDeque::new(),
            dropped: 0,
        }
    }
}

impl<T: Clone + PartialEq + Send + Sync + 'static> TickEvents<T> {
    /// Something happens in the running tick.
    pub fn send(&mut self, event: T) {
        let place = self.tick.number() as usize % TICKS;
        let Some(told) = self.told.get_mut(place) else {
            return;
        };
        if told.tick != self.tick {
            return;
        }
        let known = told.events.iter().zip(&mut self.again);
        for (told, again) in known {
            if !*again && *told == event {
                *again = true;
                return;
            }
        }
        told.events.push(event.clone());
        self.again.push(true);
        if self.waiting.len() >= WAITING_MAX {
            self.waiting.pop_front();
            self.dropped += 1;
        }
        self.waiting.push_back((self.tick, event));
    }

    /// Takes what has happened since the last call, with its ticks, in the order in which it
    /// became known.
    pub fn drain(&mut self) -> impl Iterator<Item = (Tick, T)> {
        self.waiting.drain(..)
    }

    /// How many events were dropped because nobody drained them.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// `tick` begins to run, for the first time or again.
    fn begin(&mut self, tick: Tick) {
        self.tick = tick;
        self.again.clear();
        if self.told.is_empty() {
            self.told.resize_with(TICKS, || Told {
                tick: Tick::ZERO,
                events: Vec::new(),
            });
        }
        let told = &mut self.told[tick.number() as usize % TICKS];
        if told.tick < tick {
            told.tick = tick;
            told.events.clear();
        }
        if told.tick == tick {
            self.again.resize(told.events.len(), false);
        }
    }
}

/// A registered type of events, its name erased.
#[derive(Clone, Copy)]
pub(crate) struct EventSource {
    /// The resource's type.
    pub(crate) resource: &'static str,
    pub(crate) init: fn(&mut World),
    pub(crate) begin: fn(&mut World, Tick),
    /// The events of the second world take the place of those of the first.
    pub(crate) succeed: fn(&mut World, &mut World),
}

impl EventSource {
    pub(crate) fn of<T: Clone + PartialEq + Send + Sync + 'static>() -> Self {
        Self {
            resource: type_name::<TickEvents<T>>(),
            init: |world| {
                world.init_resource::<TickEvents<T>>();
            },
            begin: |world, tick| {
                world.get_resource_or_init::<TickEvents<T>>().begin(tick);
            },
            succeed: |world, before| {
                if let Some(events) = before.remove_resource::<TickEvents<T>>() {
                    world.insert_resource(events);
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(events: &mut TickEvents<&'static str>, tick: u32, sent: &[&'static str]) {
        events.begin(Tick::new(tick));
        sent.iter().for_each(|event| events.send(event));
    }

    fn told(events: &mut TickEvents<&'static str>) -> Vec<(u32, &'static str)> {
        let drained = events.drain();
        drained
            .map(|(tick, event)| (tick.number(), event))
            .collect()
    }

    #[test]
    fn a_tick_that_runs_again_tells_only_what_is_new() {
        let mut events = TickEvents::default();
        run(&mut events, 1, &["shot", "shot"]);
        run(&mut events, 2, &["step"]);
        assert_eq!(told(&mut events), [(1, "shot"), (1, "shot"), (2, "step")]);
        // The same in another order, and one more.
        run(&mut events, 1, &["hit", "shot", "shot", "shot"]);
        run(&mut events, 2, &["step"]);
        run(&mut events, 3, &["step"]);
        assert_eq!(told(&mut events), [(1, "hit"), (1, "shot"), (3, "step")]);
        // A guess that comes and goes is told once.
        run(&mut events, 3, &[]);
        run(&mut events, 3, &["step"]);
        assert_eq!(told(&mut events), []);
    }

    #[test]
    fn ticks_of_long_ago_and_unread_events_are_bounded() {
        let mut events = TickEvents::default();
        let last = u32::try_from(TICKS).unwrap() + 1;
        for tick in 1..=last {
            run(&mut events, tick, &["a"]);
        }
        assert_eq!(told(&mut events).len(), TICKS + 1);
        run(&mut events, 1, &["a", "late"]);
        assert_eq!(told(&mut events), []);
        for tick in 1..=u32::try_from(WAITING_MAX).unwrap() + 5 {
            run(&mut events, last + tick, &["a"]);
        }
        assert_eq!(events.dropped(), 5);
        assert_eq!(told(&mut events).len(), WAITING_MAX);
    }
}
