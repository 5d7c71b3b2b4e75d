//! What the IO thread has for the game, in order: openings, payloads, closings.
//!
//! [`Events`] is a list whose payloads lie end to end in one buffer. Both threads have one, and a
//! third waits between them in the [`Queue`], under a lock: the IO thread appends a group at a time,
//! the game's thread exchanges its empty list for what waits. So nothing is allocated once the
//! lists are large enough, and a datagram costs a copy.

use core::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::id::Path;
use crate::link::CloseReason;

/// What goes to the game's thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Opened {
        path: Path,
        client_id: u64,
    },
    /// A payload of so many bytes.
    Datagram {
        path: Path,
        len: usize,
    },
    Closed {
        path: Path,
        reason: CloseReason,
    },
}

/// Events in order, and how far they were taken.
#[derive(Debug, Default)]
pub(super) struct Events {
    events: Vec<Event>,
    bytes: Vec<u8>,
    events_taken: usize,
    bytes_taken: usize,
}

impl Events {
    /// Adds what is not a payload.
    pub(super) fn push(&mut self, event: Event) {
        debug_assert!(!matches!(event, Event::Datagram { .. }));
        self.events.push(event);
    }

    /// Adds a payload.
    pub(super) fn push_datagram(&mut self, path: Path, payload: &[u8]) {
        self.bytes.extend_from_slice(payload);
        let len = payload.len();
        self.events.push(Event::Datagram { path, len });
    }

    /// Takes the next event, with its payload if it has one.
    pub(super) fn pop(&mut self) -> Option<(Event, &[u8])> {
        let event = *self.events.get(self.events_taken)?;
        self.events_taken += 1;
        let start = self.bytes_taken;
        if let Event::Datagram { len, .. } = event {
            self.bytes_taken += len;
        }
        Some((event, &self.bytes[start..self.bytes_taken]))
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.events_taken == self.events.len()
    }

    /// Takes all of `others` in exchange for an empty list; this one is all taken.
    pub(super) fn exchange(&mut self, others: &mut Self) {
        debug_assert!(self.is_empty());
        self.clear();
        core::mem::swap(self, others);
    }

    fn clear(&mut self) {
        self.events.clear();
        self.bytes.clear();
        (self.events_taken, self.bytes_taken) = (0, 0);
    }
}

/// Events on their way between the threads.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: Mutex<Events>,
    /// Nothing more will come.
    ended: AtomicBool,
    events_max: usize,
}

impl Queue {
    /// A queue that takes payloads only while fewer than `events_max` events wait in it.
    pub(super) const fn new(events_max: usize) -> Self {
        Self {
            waiting: Mutex::new(Events {
                events: Vec::new(),
                bytes: Vec::new(),
                events_taken: 0,
                bytes_taken: 0,
            }),
            ended: AtomicBool::new(false),
            events_max,
        }
    }

    /// Moves `events` behind those that wait, and returns how many payloads were dropped because
    /// too many wait. What opens and closes paths is never dropped.
    pub(super) fn append(&self, events: &mut Events) -> u64 {
        if events.is_empty() {
            return 0;
        }
        let mut dropped = 0;
        let mut waiting = self.lock();
        if waiting.is_empty() && events.events.len() <= self.events_max {
            waiting.clear();
            core::mem::swap(&mut *waiting, events);
            return 0;
        }
        while let Some((event, payload)) = events.pop() {
            match event {
                Event::Datagram { .. } if waiting.events.len() >= self.events_max => dropped += 1,
                Event::Datagram { path, .. } => waiting.push_datagram(path, payload),
                Event::Opened { .. } | Event::Closed { .. } => waiting.push(event),
            }
        }
        events.clear();
        dropped
    }

    /// Gives all that waits, in exchange for a list that is all taken.
    pub(super) fn exchange(&self, taken: &mut Events) {
        taken.exchange(&mut self.lock());
    }

    /// Says that nothing more will come.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    /// Whether nothing more will come than what waits now.
    pub(super) fn is_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// A list is consistent between any two of its changes, so a panic under the lock, of which
    /// there is none but for memory, does no harm.
    fn lock(&self) -> MutexGuard<'_, Events> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(events: &mut Events) -> Vec<String> {
        let mut texts = Vec::new();
        while let Some((event, bytes)) = events.pop() {
            texts.push(match event {
                Event::Opened { path, .. } => format!("open {}", path.0),
                Event::Datagram { path, len } => {
                    assert_eq!(bytes.len(), len);
                    format!("{} {bytes:?}", path.0)
                }
                Event::Closed { path, .. } => format!("close {}", path.0),
            });
        }
        texts
    }

    fn open(events: &mut Events, path: Path) {
        events.push(Event::Opened { path, client_id: 0 });
    }

    fn close(events: &mut Events, path: Path) {
        let reason = CloseReason::Remote;
        events.push(Event::Closed { path, reason });
    }

    #[test]
    fn a_full_queue_drops_payloads_and_keeps_openings_and_closings() {
        // In one group and one by one.
        for group in [1, 100] {
            let queue = Queue::new(4);
            let mut events = Events::default();
            let mut dropped = 0;
            for number in 0..14 {
                match number {
                    0 => open(&mut events, Path(1)),
                    11 => close(&mut events, Path(1)),
                    12 => open(&mut events, Path(2)),
                    13 => events.push_datagram(Path(2), &[99]),
                    _ => events.push_datagram(Path(1), &[number]),
                }
                if number % group == 0 {
                    dropped += queue.append(&mut events);
                }
            }
            dropped += queue.append(&mut events);
            let mut taken = Events::default();
            queue.exchange(&mut taken);
            assert_eq!(
                drain(&mut taken),
                ["open 1", "1 [1]", "1 [2]", "1 [3]", "close 1", "open 2"],
                "in order, payloads beyond the queue left out"
            );
            assert_eq!(dropped, 8);
            // There is room again.
            events.push_datagram(Path(2), &[100, 101]);
            assert_eq!(queue.append(&mut events), 0);
            queue.exchange(&mut taken);
            assert_eq!(drain(&mut taken), ["2 [100, 101]"]);
        }
    }

    #[test]
    fn groups_keep_their_order_whether_they_are_appended_or_exchanged() {
        let queue = Queue::new(100);
        let (mut events, mut taken) = (Events::default(), Events::default());
        let (mut seen, mut expected) = (Vec::new(), Vec::new());
        for round in 0..50_u8 {
            for number in 0..round % 4 {
                let payload = vec![number; usize::from(round % 7)];
                events.push_datagram(Path(round.into()), &payload);
                expected.push(format!("{round} {payload:?}"));
            }
            assert_eq!(queue.append(&mut events), 0);
            assert!(events.is_empty());
            if round % 3 == 0 {
                queue.exchange(&mut taken);
                seen.extend(drain(&mut taken));
            }
        }
        queue.exchange(&mut taken);
        seen.extend(drain(&mut taken));
        assert_eq!(seen, expected);
        queue.exchange(&mut taken);
        assert!(taken.is_empty() && !queue.is_ended());
        queue.end();
        assert!(queue.is_ended());
    }
}
