//! Lag compensation: what a player saw when it acted.
//!
//! A player of a state-sync session aims at what it is shown, which is older than the host's
//! present. The host remembers the values of kinds that the game registers with
//! [`GameBuilder::rewindable`](crate::GameBuilder::rewindable), tick by tick, and [`Rewind`] gives
//! a system the values of the tick that a slot's player saw, as far back as the game allows.
//!
//! In lockstep everyone sees the present, and a client predicts against what it has: there a
//! [`Rewind`] is the present.

use core::any::type_name;
use std::collections::VecDeque;
use std::fmt;

use bevy_ecs::component::Component;
use bevy_ecs::query::QueryState;
use bevy_ecs::resource::Resource;
use bevy_ecs::system::{Query, Res, SystemParam};
use bevy_ecs::world::World;
use phalanx_netcode::id::Slot;
use phalanx_netcode::limits::SLOTS_MAX;
use phalanx_netcode::tick::Tick;

use crate::input::CurrentTick;
use crate::net_id::{NetId, NetIndex};

/// How many ticks behind the present each slot's player sees others.
#[derive(Resource, Debug)]
pub(crate) struct SeenTicks {
    behind: [Option<u32>; SLOTS_MAX],
}

impl Default for SeenTicks {
    fn default() -> Self {
        Self {
            behind: [None; SLOTS_MAX],
        }
    }
}

impl SeenTicks {
    pub(crate) fn set(&mut self, slot: Slot, behind: u32) {
        if let Some(place) = self.behind.get_mut(slot.index()) {
            *place = Some(behind);
        }
    }

    /// The tick that the player in `slot` saw when it made the input that acts at `now`.
    fn get(&self, slot: Slot, now: Tick) -> Option<Tick> {
        let behind = self.behind.get(slot.index()).copied().flatten()?;
        Some(Tick::new(now.number().saturating_sub(behind)))
    }

    pub(crate) fn is_used(&self) -> bool {
        self.behind.iter().any(Option::is_some)
    }
}

/// The values of `T` at past ticks, on the host of a state-sync session.
///
/// [`Rewind::at`] gives them as a slot's player saw them.
#[derive(SystemParam)]
pub struct Rewind<'w, 's, T: Component + Clone> {
    history: Res<'w, History<T>>,
    seen: Res<'w, SeenTicks>,
    tick: Res<'w, CurrentTick>,
    index: Res<'w, NetIndex>,
    present: Query<'w, 's, (&'static NetId, &'static T)>,
}

impl<T: Component + Clone> fmt::Debug for Rewind<'_, '_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rewind").finish_non_exhaustive()
    }
}

impl<'w, 's, T: Component + Clone> Rewind<'w, 's, T> {
    /// The values that the player in `slot` saw when it made the input that acts in this tick. A
    /// player that sees further back than the game's limit gets the values at the limit; a slot
    /// about which nothing is known gets the present.
    #[must_use]
    pub fn at(&self, slot: Slot) -> RewindAt<'_, 'w, 's, T> {
        let seen = self.seen.get(slot, self.tick.0);
        RewindAt {
            rewind: self,
            then: seen.and_then(|seen| self.history.find(seen, self.tick.0)),
        }
    }
}

/// The values of a kind at one tick, past or present; see [`Rewind::at`].
pub struct RewindAt<'a, 'w, 's, T: Component + Clone> {
    rewind: &'a Rewind<'w, 's, T>,
    then: Option<&'a Then<T>>,
}

impl<T: Component + Clone> fmt::Debug for RewindAt<'_, '_, '_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RewindAt")
            .field("tick", &self.tick())
            .finish_non_exhaustive()
    }
}

impl<'a, T: Component + Clone> RewindAt<'a, '_, '_, T> {
    /// The tick at whose end the values were these; the running tick for the present.
    #[must_use]
    pub fn tick(&self) -> Tick {
        self.then.map_or(self.rewind.tick.0, |then| then.tick)
    }

    /// The value of `id`. Entities that have been despawned since are among the past.
    #[must_use]
    pub fn get(&self, id: NetId) -> Option<&'a T> {
        match self.then {
            Some(then) => then.get(id),
            None => {
                let entity = self.rewind.index.get(id)?;
                let present = self.rewind.present.get(entity);
                present.ok().map(|(_id, value)| value)
            }
        }
    }

    /// All values of the past by NetId ascending; of the present in no particular order.
    pub fn for_each(&self, mut visit: impl FnMut(NetId, &T)) {
        match self.then {
            Some(then) => {
                let all = then.ids.iter().zip(&then.values);
                all.for_each(|(&id, value)| visit(id, value));
            }
            None => {
                let all = self.rewind.present.iter();
                all.for_each(|(&id, value)| visit(id, value));
            }
        }
    }
}

/// What a kind's values were at past ticks.
#[derive(Resource, Debug)]
pub(crate) struct History<T: Component + Clone> {
    ticks_max: u32,
    /// By tick ascending.
    ticks: VecDeque<Then<T>>,
    query: Option<QueryState<(&'static NetId, &'static T)>>,
}

/// The values at the end of a tick, by NetId ascending.
#[derive(Debug)]
struct Then<T> {
    tick: Tick,
    ids: Vec<NetId>,
    values: Vec<T>,
}

impl<T> Then<T> {
    fn get(&self, id: NetId) -> Option<&T> {
        self.values.get(self.ids.binary_search(&id).ok()?)
    }
}

impl<T: Component + Clone> History<T> {
    /// The values at `seen`, or as near to it as the limit allows, for the running tick `now`.
    fn find(&self, seen: Tick, now: Tick) -> Option<&Then<T>> {
        let newest = now.number().saturating_sub(1);
        let oldest = newest.saturating_sub(self.ticks_max);
        // Nobody has seen the future.
        let wanted = Tick::new(seen.number().clamp(oldest, newest));
        let after = self.ticks.partition_point(|then| then.tick <= wanted);
        self.ticks.get(after.saturating_sub(1))
    }

    fn record(&mut self, world: &mut World, tick: Tick) {
        let query = self.query.get_or_insert_with(|| world.query());
        let keep = usize::try_from(self.ticks_max).unwrap_or(usize::MAX);
        // A state that was taken over anew has another past.
        while self.ticks.back().is_some_and(|then| then.tick >= tick) {
            self.ticks.pop_back();
        }
        let recycled = if self.ticks.len() > keep {
            self.ticks.pop_front()
        } else {
            None
        };
        let mut then = recycled.unwrap_or(Then {
            tick,
            ids: Vec::new(),
            values: Vec::new(),
        });
        then.tick = tick;
        then.ids.clear();
        let mut filled = 0;
        for (&id, value) in query.iter(world) {
            then.ids.push(id);
            match then.values.get_mut(filled) {
                Some(place) => place.clone_from(value),
                None => then.values.push(value.clone()),
            }
            filled += 1;
        }
        then.values.truncate(filled);
        if !then.ids.is_sorted() {
            let mut order: Vec<usize> = (0..filled).collect();
            order.sort_by_key(|&row| then.ids[row]);
            then.values = order.iter().map(|&row| then.values[row].clone()).collect();
            then.ids.sort();
        }
        self.ticks.push_back(then);
    }
}

/// A registered kind with a past, its name erased.
#[derive(Clone, Copy)]
pub(crate) struct RewindSource {
    /// The resource's type.
    pub(crate) resource: &'static str,
    ticks_max: u32,
    init: fn(&mut World, u32),
    record: fn(&mut World, Tick),
}

impl RewindSource {
    pub(crate) fn of<T: Component + Clone>(ticks_max: u32) -> Self {
        Self {
            resource: type_name::<History<T>>(),
            ticks_max,
            init: |world, ticks_max| {
                world.insert_resource(History::<T> {
                    ticks_max,
                    ticks: VecDeque::new(),
                    query: None,
                });
            },
            record: |world, tick| {
                if let Some(mut history) = world.remove_resource::<History<T>>() {
                    history.record(world, tick);
                    world.insert_resource(history);
                }
            },
        }
    }

    pub(crate) fn init(&self, world: &mut World) {
        (self.init)(world, self.ticks_max);
    }

    /// Remembers the values at the end of `tick`.
    pub(crate) fn record(&self, world: &mut World, tick: Tick) {
        (self.record)(world, tick);
    }
}
