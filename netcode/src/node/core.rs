//! What host and client have in common: the game's progress and what the driver must do for it.

pub(super) mod term_log;

use std::collections::{BTreeSet, VecDeque};

use self::term_log::{Shared, TermLog};
use crate::id::{MemberId, Path, SessionId, Slot, Term};
use crate::input::{InputFrame, InputHistory};
use crate::limits::{CATCH_UP_US_MAX, EVENTS_MAX, INPUT_HISTORY_TICKS_MAX};
use crate::lockstep::{Inputs, Timeline, Work};
use crate::node::api::{Event, SessionInfo};
use crate::node::desync::HashRing;
use crate::session::clock::TickClock;
use crate::session::handshake::TermStart;
use crate::session::roster::Roster;
use crate::session::statistics::NodeStatistics;
use crate::simulation::StepKind;
use crate::tick::{Tick, TickRate};
use crate::time::Time;

/// What an exported state is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ExportFor {
    /// Members that join or heal.
    Join,
    /// A desync report.
    Report,
}

/// A request that the driver has not seen yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Todo {
    Begin,
    Sample(Tick),
    Step(Tick, StepKind),
    Capture(Tick),
    Restore(Tick),
    Hash(Tick),
    Export(Tick, ExportFor),
    Import,
    Publish(Tick),
    PublishOwned(Tick, Slot),
    Patch,
    Seen(Slot, u32),
    PublishDecided(Tick, Slot),
    Overwrite(Tick),
    Claim(Tick),
    Authority(Tick),
    StandBy,
    Promote(Tick, Term),
}

/// Microseconds for which datagrams of a link that is no more may still come.
const STRAY_US: u64 = 10_000_000;

/// Links that are no more of which that is remembered.
const STRAYS_MAX: usize = 1024;

/// What may still come of a link that is no more.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stray {
    path: Path,
    at: Time,
    mask: u64,
}

/// Ticks of which the game was told that another input acted, at most.
const TOLD_MAX: usize = 1024;

/// Ticks of which a host said that another input acted, and this node has not sampled its own, at
/// most.
const AHEAD_MAX: usize = 256;

/// A host that is heard of a tick has told what did not act so many ticks before: it tells of 16 at a
/// time, and what is lost is sent again.
const UNSURE_TICKS: u32 = 48;

/// Ticks of which the game was told that another input acted: so that it is told once.
#[derive(Debug, Default)]
pub(super) struct Told {
    said: BTreeSet<Tick>,
    /// The host has said so before this node sampled: its clock is that far behind.
    ahead: BTreeSet<Tick>,
    /// The newest tick that a host was heard of, or that ran here.
    heard: Tick,
}

impl Told {
    /// Takes note of a tick; false if that was known.
    pub(super) fn note(&mut self, tick: Tick) -> bool {
        let is_new = self.said.insert(tick);
        if self.said.len() > TOLD_MAX {
            self.said.pop_first();
        }
        is_new
    }

    /// Takes note of a tick that the game is to be told of once it has submitted an input for it.
    pub(super) fn note_ahead(&mut self, tick: Tick) {
        if self.ahead.len() < AHEAD_MAX {
            self.ahead.insert(tick);
        }
    }

    /// A host was heard of `tick`, or it ran here: of what did not act long before, the game was told.
    pub(super) fn hear(&mut self, tick: Tick) {
        self.heard = self.heard.max(tick);
    }

    /// The newest tick up to which all was told that there was to tell.
    pub(super) fn sure_upto(&self) -> Tick {
        self.heard.minus(UNSURE_TICKS)
    }

    /// Forgets what a host has said of inputs that were not sampled yet: another one hosts.
    pub(super) fn forget_ahead(&mut self) {
        self.ahead.clear();
    }
}

/// The game's progress.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) info: SessionInfo,
    pub(super) rate: TickRate,
    pub(super) clock: TickClock,
    pub(super) timeline: Timeline,
    /// Final inputs.
    pub(super) known: InputHistory,
    /// Inputs that this node submitted, or a host received, before they are final.
    pub(super) submitted: InputHistory,
    pub(super) roster: Roster,
    pub(super) todo: VecDeque<Todo>,
    pub(super) events: VecDeque<Event>,
    pub(super) statistics: NodeStatistics,
    pub(super) hashes: HashRing,
    pub(super) last_tick: Option<Tick>,
    /// The tick for which an input was asked and not given yet.
    pub(super) awaited: Option<Tick>,
    /// Since when the next tick cannot run although it is due.
    pub(super) stalled_since: Option<Time>,
    pub(super) transmitted_at: Time,
    /// Whether the state comes from a host, and ticks run here on this node's own inputs only.
    pub(super) follows: bool,
    /// The terms that this node has followed.
    pub(super) terms: TermLog,
    /// Links that are no more.
    pub(super) strays: Vec<Stray>,
    /// In state-sync mode: ticks on which another input acted than this node's.
    pub(super) told: Told,
    frame: InputFrame,
    /// Newest tick handed out by [`Core::confirmed_frame`].
    reported: Tick,
}

impl Core {
    pub(super) fn new(info: SessionInfo, prediction: u32, now: Time) -> Self {
        let (slots, input_bytes) = (info.slots, info.input_bytes);
        Self {
            rate: info.tick_rate,
            clock: TickClock::new(info.tick_rate, Tick::ZERO, now),
            timeline: Timeline::new(slots, input_bytes, prediction, Tick::ZERO),
            known: InputHistory::new(slots, input_bytes),
            submitted: InputHistory::new(slots, input_bytes),
            roster: Roster::default(),
            todo: VecDeque::with_capacity(64),
            events: VecDeque::with_capacity(64),
            statistics: NodeStatistics::default(),
            hashes: HashRing::new(info.desync_interval),
            last_tick: None,
            awaited: None,
            stalled_since: None,
            transmitted_at: now,
            follows: false,
            terms: TermLog::new(info.term),
            strays: Vec::new(),
            told: Told::default(),
            frame: InputFrame::empty(Tick::ZERO, slots, input_bytes),
            reported: Tick::ZERO,
            info,
        }
    }

    pub(super) fn slots(&self) -> impl Iterator<Item = Slot> + use<> {
        (0..self.info.slots).map(Slot)
    }

    /// Goes on from the state at `tick`, which comes from elsewhere.
    pub(super) fn jump(&mut self, tick: Tick) {
        self.timeline.jump(tick);
        self.reported = self.reported.max(tick);
        self.hashes.forget_after(tick);
    }

    /// Goes on from an own state at `tick`: what ran since is void.
    pub(super) fn go_back(&mut self, tick: Tick) {
        self.timeline.jump(tick);
        self.hashes.forget_after(tick);
    }

    /// Histories begin after `tick`.
    pub(super) fn begin_after(&mut self, tick: Tick) {
        for slot in self.slots() {
            self.known.start(slot, tick);
        }
        self.reported = tick;
    }

    /// The newest tick that the recorder has seen.
    pub(super) const fn reported(&self) -> Tick {
        self.reported
    }

    /// The recorder has seen all up to `tick` already.
    pub(super) fn skip_reports(&mut self, tick: Tick) {
        self.reported = self.reported.max(tick);
    }

    // ---- terms ----

    /// A link over `path` is no more; datagrams with the tags in `mask` may still come of it.
    pub(super) fn note_strays(&mut self, now: Time, path: Path, mask: u64) {
        self.strays
            .retain(|stray| now.micros_since(stray.at) < STRAY_US);
        if self.strays.len() < STRAYS_MAX {
            self.strays.push(Stray {
                path,
                at: now,
                mask,
            });
        }
    }

    /// The tags that datagrams of earlier links over `path` may have.
    pub(super) fn stray_tags(&self, now: Time, path: Path) -> u64 {
        let recent = self
            .strays
            .iter()
            .filter(|stray| stray.path == path && now.micros_since(stray.at) < STRAY_US);
        recent.fold(0, |mask, stray| mask | stray.mask)
    }

    /// A new term begins; what was ordered beyond its base is void.
    pub(super) fn begin_term(&mut self, start: TermStart) {
        self.info.term = Term(start.term);
        self.terms.begin(start);
    }

    /// Terms after the shared one give way to others.
    pub(super) fn change_terms(&mut self, shared: Shared, starts: &[TermStart]) {
        self.terms.go_back(shared);
        for start in starts {
            self.begin_term(*start);
        }
    }

    /// Everything that was ordered beyond `base` is void.
    pub(super) fn void_after(&mut self, base: Tick) {
        for slot in self.slots() {
            if self.known.newest(slot) > base && self.known.oldest(slot) <= base {
                self.known.rewind(slot, base);
            }
        }
    }

    /// The tick up to which the inputs of all slots are known.
    pub(super) fn final_tick(&self) -> Tick {
        self.slots()
            .map(|slot| self.known.newest(slot))
            .min()
            .unwrap_or(Tick::ZERO)
    }

    /// Runs the next tick.
    pub(super) fn step(&mut self, confirmed: Tick, own: Option<Slot>) {
        let inputs = Inputs {
            known: &self.known,
            own: own.map(|slot| (slot, &self.submitted)),
        };
        let work = self.timeline.step(confirmed, &inputs);
        queue(work, self.info.images, &mut self.statistics, &mut self.todo);
        self.hash_settled();
    }

    /// Compares guesses with what became final, and queues what must run again.
    pub(super) fn settle(&mut self, confirmed: Tick, own: Option<Slot>) {
        let inputs = Inputs {
            known: &self.known,
            own: own.map(|slot| (slot, &self.submitted)),
        };
        let (images, statistics, todo) = (self.info.images, &mut self.statistics, &mut self.todo);
        self.timeline.settle(confirmed, &inputs, |work| {
            queue(work, images, statistics, todo);
        });
        // Only now: a settled tick may be one that runs again.
        self.hash_settled();
    }

    fn hash_settled(&mut self) {
        while let Some(tick) = self.hashes.next_due(self.timeline.settled()) {
            self.todo.push_back(Todo::Hash(tick));
        }
    }

    /// The frame on which `tick` runs.
    pub(super) fn frame(&mut self, tick: Tick, own: Option<Slot>) -> &InputFrame {
        if self.follows {
            self.own_frame(tick, own);
            return &self.frame;
        }
        let inputs = Inputs {
            known: &self.known,
            own: own.map(|slot| (slot, &self.submitted)),
        };
        self.timeline.frame(tick, &inputs, &mut self.frame);
        &self.frame
    }

    /// The frame of `tick` with this node's own input only: that is all a client that predicts
    /// knows.
    fn own_frame(&mut self, tick: Tick, own: Option<Slot>) {
        self.frame.set_tick(tick);
        for slot in (0..self.frame.slots()).map(Slot) {
            self.frame.clear(slot);
        }
        if let Some(slot) = own
            && let Some(input) = self.submitted.get(slot, tick).bytes()
        {
            self.frame.set(slot, input);
        }
    }

    /// The next final frame that ran and was not handed out yet, up to `limit`; or beyond, before it
    /// is forgotten here.
    pub(super) fn confirmed_frame(
        &mut self,
        own: Option<Slot>,
        limit: Tick,
    ) -> Option<&InputFrame> {
        let tick = self.reported.next();
        let settled = self.timeline.settled();
        let waits = tick > limit && settled.since(tick) < INPUT_HISTORY_TICKS_MAX / 2;
        if tick > settled || self.follows || waits {
            return None;
        }
        self.reported = tick;
        let inputs = Inputs {
            known: &self.known,
            own: own.map(|slot| (slot, &self.submitted)),
        };
        inputs.fill(tick, &mut self.frame);
        Some(&self.frame)
    }

    /// Notes that the tick that is due cannot run.
    pub(super) fn stall(&mut self, now: Time, due: Time) {
        if self.stalled_since.is_none() {
            self.stalled_since = Some(due.min(now));
            self.statistics.stalls += 1;
        }
    }

    /// Notes that ticks run again.
    pub(super) fn unstall(&mut self, now: Time) -> bool {
        let Some(since) = self.stalled_since.take() else {
            return false;
        };
        let longest = self
            .statistics
            .longest_stall_us
            .max(now.micros_since(since));
        self.statistics.longest_stall_us = longest;
        true
    }

    /// Ticks that a sleep has held up for too long are not made up for: later ones are due as much
    /// later.
    pub(super) fn forgive(&mut self, now: Time) {
        if now.micros_since(self.clock.next_due()) > CATCH_UP_US_MAX {
            self.clock.hold(now);
        }
    }

    /// Whether the driver has still to give the state after a tick to those who stand by.
    pub(super) fn awaits_authority(&self) -> bool {
        let mut todo = self.todo.iter();
        todo.any(|todo| matches!(todo, Todo::Authority(_)))
    }

    /// Queues an event for the game.
    pub(super) fn report(&mut self, event: Event) {
        if self.events.len() >= EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    /// Whether messages may be handed to the game. They wait in their link otherwise, which then
    /// holds the peer back.
    pub(super) fn has_room_for_messages(&self) -> bool {
        self.events.len() < EVENTS_MAX / 2
    }

    /// Whether the last tick has run on final inputs.
    pub(super) fn is_over(&self) -> bool {
        self.last_tick
            .is_some_and(|last| self.timeline.settled() >= last)
    }

    /// Whether `tick` lies within the session.
    pub(super) fn is_within(&self, tick: Tick) -> bool {
        self.last_tick.is_none_or(|last| tick <= last)
    }

    /// Submits neutral inputs up to `upto`: nobody can have sampled for the first ticks.
    pub(super) fn prefill(&mut self, slot: Slot, upto: Tick) {
        let neutral = [0; crate::limits::INPUT_BYTES_MAX];
        let neutral = &neutral[..usize::from(self.info.input_bytes)];
        while self.submitted.newest(slot) < upto {
            let next = self.submitted.newest(slot).next();
            self.submitted.push(slot, next, Some(neutral));
        }
    }

    /// Adds `bytes` as the input for the awaited tick, and for those before it that have none.
    ///
    /// A delay that grew by one tick leaves one without a sample: it repeats the one before, so
    /// that a held button stays held. A longer gap is a beginning, and neutral.
    pub(super) fn submit(&mut self, slot: Slot, bytes: &[u8]) -> Option<Tick> {
        let tick = self.awaited.take()?;
        let newest = self.submitted.newest(slot);
        let is_gap = tick.since(newest) > 3;
        let mut filler = [0; crate::limits::INPUT_BYTES_MAX];
        let filler = &mut filler[..bytes.len()];
        if !is_gap && let Some(last) = self.submitted.get(slot, newest).bytes() {
            filler.copy_from_slice(last);
        }
        for number in newest.number() + 1..=tick.number() {
            let value = if number == tick.number() {
                bytes
            } else {
                &*filler
            };
            self.submitted.push(slot, Tick::new(number), Some(value));
        }
        while self.told.ahead.first().is_some_and(|&first| first <= tick) {
            if let Some(late) = self.told.ahead.pop_first()
                && self.submitted.get(slot, late).bytes().is_some()
            {
                self.tell_replaced(late);
            }
        }
        Some(tick)
    }

    /// Tells the game, once, that another input acted than its own at `tick`.
    pub(super) fn tell_replaced(&mut self, tick: Tick) {
        if self.told.note(tick) {
            self.statistics.inputs_replaced += 1;
            self.report(Event::InputReplaced { tick });
        }
    }
}

/// Queues what the timeline asks for, with captures where they are kept.
fn queue(work: Work, images: u32, statistics: &mut NodeStatistics, todo: &mut VecDeque<Todo>) {
    match work {
        Work::Restore(tick) => {
            statistics.rollbacks += 1;
            todo.push_back(Todo::Restore(tick));
        }
        Work::Step(tick, kind) => {
            match kind {
                StepKind::First => statistics.ticks += 1,
                StepKind::Again => statistics.ticks_again += 1,
            }
            todo.push_back(Todo::Step(tick, kind));
            if images > 0 {
                todo.push_back(Todo::Capture(tick));
            }
        }
    }
}

impl SessionInfo {
    /// What a session is before anyone has joined.
    pub(super) fn placeholder(rate: TickRate, slots: u8, input_bytes: u8) -> Self {
        Self {
            session: SessionId::default(),
            term: Term::default(),
            member: MemberId::default(),
            slot: None,
            hosts: false,
            slots,
            seed: 0,
            public_seed: 0,
            input_bytes,
            tick_rate: rate,
            images: 0,
            desync_interval: 0,
        }
    }
}
