//! Standbys of a state-sync session: members that hold all of the host's state.
//!
//! A host [is told](super::Node::stream_to) which members these are. After each tick it asks its
//! driver for the hash of the state, and for the state itself where a standby needs it, and sends
//! what a [stream](crate::statesync::StandbyStream) makes of it. A standby runs the host's ticks in a second simulation beside
//! the one that it shows and predicts with, or holds states: see [`crate::statesync`].

mod authority;
mod extra;

use std::collections::BTreeMap;
use std::sync::Arc;

use self::extra::Extra;
use crate::id::{Slot, Term};
use crate::input::{InputFrame, InputHistory};
use crate::node::api::Request;
use crate::node::core::{Core, Todo};
use crate::session::statistics::DropReason;
use crate::state::{Schema, Snapshot, Visibility};
use crate::statesync::{
    Held, Publisher, PublisherConfig, StandbyError, StandbyMode, StandbyState, TickContext,
};
use crate::tick::Tick;
use crate::time::Time;
use crate::wire::header::kind;

pub(super) use self::authority::AuthorityStream;

/// Microseconds after which a standby says again what it holds, although nothing has come.
const ACK_US: u64 = 100_000;

/// Ticks whose inputs a standby hands on, at most.
pub(super) const FRAMES_MAX: usize = 64;

/// What a standby and its host have to do with each other, as counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StandbyStatistics {
    /// Of a standby: parts of ticks that it could not use.
    pub unusable: u64,
    /// Of a standby: ticks that it ran, and that were the host's.
    pub runs: u64,
    /// Of a standby: how it keeps up, and the newest tick that it holds.
    pub held: Option<(StandbyMode, Tick)>,
    /// Of a host: bytes to all standbys, without whole states.
    pub bytes: u64,
    /// Of a host: ticks to all standbys.
    pub ticks: u64,
    /// Of a host: whole states.
    pub wholes: u64,
}

/// The side of a member that stands by.
#[derive(Debug)]
pub(super) struct Standby {
    state: StandbyState,
    schema: Arc<Schema>,
    /// The snapshots that the host's clients hold: what this node goes on from, should it host.
    publisher: Option<Box<Publisher>>,
    publishes: PublisherConfig,
    slots: u8,
    input_bytes: u8,
    /// The next tick to run.
    frame: InputFrame,
    /// What players see of late, for that tick; before it is known, what they saw at the state that
    /// the first tick starts from.
    seen: Vec<(Slot, u32)>,
    /// A state was taken over, and no tick has run from there.
    starts: bool,
    /// The inputs of ticks that this node ran as a host, oldest first.
    earlier: Vec<InputFrame>,
    /// What acted on the ticks that ran here.
    acted: InputHistory,
    /// Ticks that may run before time moves on.
    spare_ticks: u32,
    /// What has come is to be told.
    ack_due: bool,
    acked_at: Time,
    statistics: StandbyStatistics,
}

impl Standby {
    pub(super) fn new(schema: &Arc<Schema>, core: &Core, publishes: PublisherConfig) -> Self {
        let (slots, input_bytes) = (core.info.slots, core.info.input_bytes);
        Self {
            state: StandbyState::new(schema, core.info.term),
            schema: Arc::clone(schema),
            publisher: None,
            publishes,
            slots,
            input_bytes,
            frame: InputFrame::empty(Tick::ZERO, slots, input_bytes),
            seen: Vec::new(),
            starts: false,
            earlier: Vec::new(),
            acted: InputHistory::new(slots, input_bytes),
            spare_ticks: 1,
            ack_due: true,
            acked_at: Time::ZERO,
            statistics: StandbyStatistics::default(),
        }
    }

    /// Holds what this node ran itself as a host: `frames` are the inputs of the newest ticks, `acted`
    /// those of all that it remembers.
    pub(super) fn hold(
        &mut self,
        state: Snapshot,
        hash: u64,
        acted: InputHistory,
        mut frames: Vec<InputFrame>,
        publisher: Option<Box<Publisher>>,
    ) {
        let Some(frame) = frames.pop().filter(|it| it.tick() == state.tick) else {
            return;
        };
        let context = TickContext {
            roster: (Term(0), 0),
            frame,
            pending: Vec::new(),
            extra: Extra::default().encode(),
        };
        let mut bytes = Vec::new();
        context.encode(&mut bytes);
        self.state.hold(Held {
            state,
            hash,
            context: bytes,
        });
        (self.acted, self.earlier, self.publisher) = (acted, frames, publisher);
    }

    /// The newest tick that it holds.
    pub(super) fn held(&self) -> Option<Tick> {
        self.state.newest()
    }

    /// Appends what brings a standby that holds the state at `after` nearer to what is held here; says
    /// how near.
    pub(super) fn records_after(&self, after: Tick, room: usize, out: &mut Vec<u8>) -> Tick {
        let reached = self.state.records_after(after, room, out);
        reached.unwrap_or(after)
    }

    /// Takes in what another standby holds beyond this one.
    pub(super) fn take_records(&mut self, core: &mut Core, bytes: &[u8]) {
        let taken = self.state.take_records(bytes);
        // If it cannot be used, this node goes on from what it holds.
        let _counted = self.note(core, taken.map(drop));
    }

    /// Whether ticks are known that this node has still to run.
    pub(super) fn has_to_run(&self) -> bool {
        self.state.to_import().is_some() || self.state.to_run().is_some()
    }

    /// The hash of the host's state after `tick`, if it is the newest that is held.
    pub(super) fn hash_at(&self, tick: Tick) -> Option<u64> {
        let (hash, _) = self.state.newest_told()?;
        (self.held() == Some(tick)).then_some(hash)
    }

    /// The inputs with which the newest ticks ran that it holds, without a gap, oldest first.
    pub(super) fn newest_frames(&self) -> Vec<InputFrame> {
        let mut frames: Vec<InputFrame> = Vec::new();
        for (tick, context) in self.state.told_newest_first().take(FRAMES_MAX) {
            let follows = frames.last().is_none_or(|last| last.tick() == tick.next());
            let context = TickContext::decode(context, tick, self.slots, self.input_bytes);
            let Some(context) = context.ok().filter(|_| follows) else {
                break;
            };
            frames.push(context.frame);
        }
        let first = frames.last().map(InputFrame::tick);
        let earlier = self.earlier.iter().rev();
        let mut earlier = earlier.skip_while(|frame| Some(frame.tick()) >= first);
        while let Some(frame) = earlier.next()
            && frames.len() < FRAMES_MAX
            && frames.last().map(InputFrame::tick) == Some(frame.tick().next())
        {
            frames.push(frame.clone());
        }
        frames.reverse();
        frames
    }

    /// What acted up to the last of `frames`, which are all that this node holds of the newest ticks.
    pub(super) fn take_acted(&mut self, frames: &[InputFrame]) -> InputHistory {
        let mut acted = core::mem::replace(&mut self.acted, InputHistory::new(0, 0));
        for frame in frames {
            note_acted(&mut acted, frame, self.slots);
        }
        acted
    }

    /// How far behind players see, as far as what is held tells.
    pub(super) fn newest_seen(&self) -> Vec<(Slot, u32)> {
        let mut newest: BTreeMap<Slot, u32> = BTreeMap::new();
        for (tick, context) in self.state.told_newest_first().take(FRAMES_MAX) {
            let context = TickContext::decode(context, tick, self.slots, self.input_bytes);
            let extra = context.and_then(|context| Extra::decode(&context.extra));
            let seen = extra.map(|extra| extra.seen).unwrap_or_default();
            for (slot, ticks) in seen {
                newest.entry(slot).or_insert(ticks);
            }
        }
        newest.into_iter().collect()
    }

    /// The snapshots that clients may hold of the host.
    pub(super) fn take_publisher(&mut self) -> Option<Box<Publisher>> {
        if self.state.mode() == StandbyMode::Copies {
            self.publish_copies();
        }
        self.publisher.take()
    }

    /// What this node would publish with as a host, once there is something.
    pub(super) fn dormant_publisher(&mut self) -> Option<&mut Publisher> {
        self.publisher.as_deref_mut()
    }

    fn publisher_mut(&mut self) -> &mut Publisher {
        let (schema, config) = (&self.schema, self.publishes);
        let new = || Box::new(Publisher::new(schema, config));
        self.publisher.get_or_insert_with(new)
    }

    /// Publishes the states that are held as such.
    fn publish_copies(&mut self) {
        let ticks = self.publishes.snapshot_ticks;
        let is_due = |state: &&Snapshot| state.tick.number().is_multiple_of(ticks);
        let held = self.state.states().map(|held| &held.state);
        let states: Vec<Snapshot> = held.filter(is_due).cloned().collect();
        let told = self.state.told_newest_first().find_map(|(tick, context)| {
            let context = TickContext::decode(context, tick, self.slots, self.input_bytes);
            Extra::decode(&context.ok()?.extra).ok()?.interest
        });
        if let Some(interest) = told {
            self.publisher_mut().set_interest(interest);
        }
        let schema = Arc::clone(&self.schema);
        for mut state in states {
            for (rows, kind) in state.kinds.iter_mut().zip(schema.kinds()) {
                if kind.visibility != Visibility::Client {
                    rows.clear();
                }
            }
            self.commit_publish(&state);
        }
    }

    /// What clients may see of the state that was run last, where the host publishes it. Says whether
    /// it is the first.
    pub(super) fn commit_publish(&mut self, snapshot: &Snapshot) -> bool {
        let publisher = self.publisher_mut();
        let newest = publisher.newest();
        if newest.is_none_or(|newest| newest < snapshot.tick) {
            publisher.publish(snapshot);
        }
        newest.is_none()
    }

    /// The state at `tick`, if it is held as such and not run.
    pub(super) fn state_at(&self, tick: Tick) -> Option<&Snapshot> {
        match self.state.mode() {
            StandbyMode::Runs if self.state.to_import().is_none() => None,
            StandbyMode::Runs | StandbyMode::Copies => self.state.at(tick).map(|held| &held.state),
        }
    }

    /// The states of at most `ticks` ticks up to the one before `tick`, oldest first, where states are
    /// held: what a simulation that takes over at `tick` would remember, had it run.
    pub(super) fn past(&self, tick: Tick, ticks: u32) -> Vec<&Snapshot> {
        if self.state_at(tick).is_none() {
            return Vec::new();
        }
        let held = self.state.states().map(|held| &held.state);
        held.filter(|state| state.tick < tick && tick.since(state.tick) <= ticks)
            .collect()
    }

    /// Stands by for the host of another term, which goes on after `base`.
    pub(super) fn begin_term(&mut self, term: Term, base: Tick) {
        self.state.begin_term(term, base);
        for slot in (0..self.slots).map(Slot) {
            if self.acted.oldest(slot) <= base && base < self.acted.newest(slot) {
                self.acted.rewind(slot, base);
            }
        }
        let newest = self.publisher.as_ref().and_then(|it| it.newest());
        if newest.is_some_and(|newest| newest > base) {
            self.publisher = None;
        }
        self.ack_due = true;
    }

    pub(super) fn statistics(&self) -> StandbyStatistics {
        StandbyStatistics {
            held: self.held().map(|tick| (self.state.mode(), tick)),
            ..self.statistics
        }
    }

    pub(super) fn handle_part(&mut self, core: &mut Core, body: &[u8]) -> Result<(), DropReason> {
        let taken = self.state.handle_part(body);
        self.note(core, taken.map(drop))
    }

    pub(super) fn install_whole(
        &mut self,
        core: &mut Core,
        bytes: &[u8],
    ) -> Result<(), DropReason> {
        let taken = self.state.install_whole(bytes);
        self.note(core, taken.map(drop))
    }

    fn note(&mut self, core: &mut Core, taken: Result<(), StandbyError>) -> Result<(), DropReason> {
        self.ack_due = true;
        self.tend(core);
        taken.map_err(|error| {
            self.statistics.unusable += 1;
            match error {
                StandbyError::Malformed(_) => DropReason::Malformed,
                StandbyError::OtherTerm => DropReason::WrongTag,
                StandbyError::NoStart(_) | StandbyError::WrongHash(_) => DropReason::BadState,
            }
        })
    }

    /// Time has moved on: so many ticks may run. After a whole state there are many of them, and
    /// while they run this node hears and says nothing.
    pub(super) fn allow(&mut self, core: &mut Core, ticks: u32) {
        self.spare_ticks = ticks;
        self.tend(core);
    }

    /// Asks the driver for what is to be done.
    fn tend(&mut self, core: &mut Core) {
        let may_run = self.spare_ticks > 0 && self.state.to_run().is_some();
        let has_work = self.state.to_import().is_some() || may_run;
        if has_work && !core.todo.contains(&Todo::StandBy) {
            core.todo.push_back(Todo::StandBy);
        }
    }

    /// What the driver shall do.
    pub(super) fn request(&mut self) -> Option<Request<'_>> {
        if self.state.to_import().is_some() {
            let held = self.state.to_import()?;
            return Some(Request::StandByFrom(&held.state));
        }
        self.spare_ticks = self.spare_ticks.checked_sub(1)?;
        let run = self.state.to_run()?;
        let (slots, input_bytes) = (self.slots, self.input_bytes);
        let context = TickContext::decode(&run.context, run.tick, slots, input_bytes);
        let wants_hash = run.hash.is_some();
        let told = context.and_then(|context| {
            let extra = Extra::decode(&context.extra)?;
            Ok((context.frame, extra))
        });
        let Ok((frame, extra)) = told else {
            self.state.cannot_run();
            self.ack_due = true;
            return None;
        };
        self.frame = frame;
        if !self.starts {
            self.seen.clear();
        }
        self.starts = false;
        self.seen.extend(extra.seen);
        if let Some(interest) = extra.interest {
            self.publisher_mut().set_interest(interest);
        }
        let number = self.frame.tick().number();
        Some(Request::StandByStep {
            frame: &self.frame,
            seen: &self.seen,
            wants_hash,
            publishes: number.is_multiple_of(self.publishes.snapshot_ticks),
        })
    }

    pub(super) fn commit_from(&mut self, core: &mut Core, is_imported: bool) {
        (self.seen, self.starts) = (self.newest_seen(), true);
        self.state.imported(is_imported);
        self.ack_due = true;
        self.tend(core);
    }

    pub(super) fn commit_step(&mut self, core: &mut Core, hash: Option<u64>) -> bool {
        let is_the_hosts = self.state.ran(hash);
        self.statistics.runs += u64::from(is_the_hosts);
        if is_the_hosts {
            note_acted(&mut self.acted, &self.frame, self.slots);
        }
        if !is_the_hosts {
            // Nor may be what was published before this came out.
            self.publisher = None;
        }
        self.ack_due = true;
        self.tend(core);
        is_the_hosts
    }

    /// Writes the ack that is due; false if none is.
    pub(super) fn write_ack(&mut self, now: Time, out: &mut Vec<u8>) -> bool {
        // The host may not have heard the one before, and waits.
        let is_old = now.micros_since(self.acked_at) >= ACK_US;
        let is_due = core::mem::take(&mut self.ack_due) || is_old;
        if is_due {
            self.acked_at = now;
            out.push(kind::STANDBY_ACK);
            self.state.ack().encode(out);
        }
        is_due
    }
}

/// Adds `frame` to what acted; what does not lead up to it, or is of another history, is forgotten.
fn note_acted(acted: &mut InputHistory, frame: &InputFrame, slots: u8) {
    let before = frame.tick().previous();
    for slot in (0..slots).map(Slot) {
        if acted.oldest(slot) <= before && before < acted.newest(slot) {
            acted.rewind(slot, before);
        }
        if acted.newest(slot) != before {
            acted.start(slot, before);
        }
        acted.push(slot, frame.tick(), frame.input(slot));
    }
}
