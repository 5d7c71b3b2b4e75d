//! Those who watch with a delay: what they are shown is published once more, that much later.
//!
//! Snapshots wait in the form in which clients get them, shared with the ring of those who play;
//! only what has left that ring takes memory of its own. The delayed publisher has a ring, views
//! and bodies of its own, so whoever watches late costs the others nothing.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Audience, Listener};
use crate::node::guest::Guest;
use crate::session::config::HostConfig;
use crate::state::QuantizedSnapshot;
use crate::statesync::{Publisher, PublisherConfig};
use crate::tick::Tick;

/// What those get who watch with a delay.
#[derive(Debug)]
pub(super) struct Late {
    pub(super) publisher: Publisher,
    delay_ticks: u32,
    /// What is not due yet, by tick ascending. The settings bound it:
    /// [`SPECTATOR_DELAY_SNAPSHOTS_MAX`](crate::limits::SPECTATOR_DELAY_SNAPSHOTS_MAX).
    waiting: VecDeque<(Tick, Arc<QuantizedSnapshot>)>,
}

impl Late {
    /// `None` if nobody watches with a delay.
    pub(super) fn new(config: &HostConfig) -> Option<Self> {
        let game = &config.game;
        let settings = PublisherConfig::new(&config.state_sync, game.tick_rate);
        (config.spectator_delay_ticks > 0).then(|| Self {
            publisher: Publisher::new(&game.schema, settings),
            delay_ticks: config.spectator_delay_ticks,
            waiting: VecDeque::new(),
        })
    }

    /// The newest snapshot of `main` waits from here on.
    pub(super) fn keep_newest(&mut self, main: &Publisher) {
        if let Some(tick) = main.newest()
            && let Some(snapshot) = main.at(tick)
        {
            self.waiting.push_back((tick, Arc::clone(snapshot)));
        }
    }

    /// All snapshots that `main` still has wait from here on: another host published them.
    pub(super) fn keep_all(&mut self, main: &Publisher) {
        let newest_first = main.slots_newest_first();
        let newest_first = newest_first.map(|(_, tick, snapshot)| (tick, Arc::clone(snapshot)));
        self.waiting = newest_first.collect();
        self.waiting.make_contiguous().reverse();
    }

    /// Publishes what is due `since_end` ticks after `newest` ran; says whether it was the first.
    fn release(&mut self, main: &Publisher, newest: Tick, since_end: u32) -> bool {
        let was_empty = self.publisher.newest().is_none();
        let now = newest.plus(since_end);
        while let Some((tick, snapshot)) = self.waiting.front() {
            if now < tick.plus(self.delay_ticks) {
                break;
            }
            self.publisher.publish_from(main, *tick, snapshot);
            self.waiting.pop_front();
        }
        was_empty && self.publisher.newest().is_some()
    }
}

impl Listener {
    /// What it is told from.
    pub(super) fn publisher<'a>(
        &self,
        main: &'a mut Publisher,
        late: &'a mut Option<Box<Late>>,
    ) -> &'a mut Publisher {
        match late {
            Some(late) if self.is_late => &mut late.publisher,
            Some(_) | None => main,
        }
    }
}

impl Audience {
    /// The tick that is the present for `guest`, `since_end` ticks after the last one ran.
    pub(super) fn present(&self, guest: &Guest, newest: Tick, since_end: u32) -> Tick {
        match (&self.late, &guest.listener) {
            (Some(late), Some(listener)) if listener.is_late => {
                newest.minus(late.delay_ticks.saturating_sub(since_end))
            }
            (_, _) => newest,
        }
    }

    /// Shows those who watch with a delay what is due, `since_end` ticks after `newest` ran.
    pub(in crate::node) fn release<'a>(
        &mut self,
        newest: Tick,
        since_end: u32,
        guests: impl Iterator<Item = &'a mut Guest>,
    ) {
        let Some(late) = &mut self.late else {
            return;
        };
        if !late.release(&self.publisher, newest, since_end) {
            return;
        }
        for guest in guests {
            let listener = guest.listener.as_ref();
            if listener.is_some_and(|listener| listener.is_late) {
                self.begin(guest);
            }
        }
    }
}
