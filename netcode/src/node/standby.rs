//! Standbys of a state-sync session: members that hold all of the host's state.
//!
//! A host [is told](super::Node::stream_to) which members these are. After each tick it asks its
//! driver for the hash of the state, and for the state itself where a standby needs it, and sends
//! what [`StandbyStream`] makes of it. A standby runs the host's ticks in a second simulation beside
//! the one that it shows and predicts with, or holds states: see [`crate::statesync`].

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::id::{MemberId, Path, Slot, Term};
use crate::input::InputFrame;
use crate::limits::SLOTS_MAX;
use crate::node::api::Request;
use crate::node::core::{Core, Todo};
use crate::node::guest::Guest;
use crate::session::control::Purpose;
use crate::session::statistics::DropReason;
use crate::state::{Schema, Snapshot, Visibility};
use crate::statesync::{
    Held, Interest, Publisher, PublisherConfig, StandbyAck, StandbyConfig, StandbyError,
    StandbyFeed, StandbyMode, StandbyState, StandbyStream, TickContext,
};
use crate::tick::Tick;
use crate::time::Time;
use crate::wire::bytes::{DecodeError, Reader, put_varint};
use crate::wire::header::kind;

/// Ticks without a word from a standby after which it gets a whole state unasked.
const SILENT_TICKS_MAX: u32 = 30;

/// Microseconds after which a standby says again what it holds, although nothing has come.
const ACK_US: u64 = 100_000;

/// Ticks after which standbys are told again how far clients see, and what players saw.
const INTEREST_TICKS: u32 = 16;

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

/// The host's side.
#[derive(Debug)]
pub(super) struct AuthorityStream {
    stream: StandbyStream,
    feeds: BTreeMap<MemberId, Feed>,
    /// How far behind players see, as the simulation was told last, and whether that is news to
    /// standbys.
    seen: BTreeMap<Slot, (u32, bool)>,
    /// How far clients see, as it was told last.
    interest: Option<Interest>,
    context: Vec<u8>,
}

/// What one standby is sent.
#[derive(Debug)]
struct Feed {
    feed: StandbyFeed,
    /// Number of the transfer with a whole state.
    transfer: Option<u16>,
    silent_ticks: u32,
}

impl AuthorityStream {
    pub(super) fn new(schema: &Arc<Schema>, core: &Core) -> Self {
        let config = StandbyConfig {
            rate: core.rate,
            budget_bytes_per_second: None,
            mode: StandbyMode::default(),
        };
        Self {
            stream: StandbyStream::new(schema, core.info.term, config),
            feeds: BTreeMap::new(),
            seen: BTreeMap::new(),
            interest: None,
            context: Vec::new(),
        }
    }

    /// Sends to these members and no others.
    pub(super) fn send_to(&mut self, members: &[MemberId]) {
        self.feeds.retain(|member, _| members.contains(member));
        for &member in members {
            self.feeds.entry(member).or_insert_with(|| Feed {
                feed: StandbyFeed::new(&self.stream),
                transfer: None,
                silent_ticks: 0,
            });
        }
    }

    /// The hash after `tick`.
    pub(super) fn hash_at(&self, tick: Tick) -> Option<u64> {
        self.stream.hash_at(tick)
    }

    pub(super) fn is_wanted(&self) -> bool {
        !self.feeds.is_empty()
    }

    /// Whether the state itself is needed, not just its hash.
    pub(super) fn needs_state(&self) -> bool {
        self.feeds.values().any(|feed| feed.feed.needs_state())
    }

    /// The newest tick that all standbys hold.
    pub(super) fn safe_tick(&self) -> Option<Tick> {
        let held = self.feeds.values().map(|feed| feed.feed.held());
        held.min().flatten()
    }

    pub(super) fn statistics(&self) -> StandbyStatistics {
        let mut sum = StandbyStatistics::default();
        for feed in self.feeds.values() {
            let one = feed.feed.statistics();
            sum.bytes += one.bytes;
            sum.ticks += one.ticks;
            sum.wholes += one.wholes;
        }
        sum
    }

    /// The simulation takes notice of what a player sees.
    pub(super) fn note_seen(&mut self, slot: Slot, behind_ticks: u32) {
        self.seen.insert(slot, (behind_ticks, true));
    }

    /// The simulation takes over what a client decides: no input tells that.
    pub(super) fn note_claim(&mut self) {
        for feed in self.feeds.values_mut() {
            feed.feed.send_copies();
        }
    }

    /// A tick has run: what goes to the standbys.
    pub(super) fn push(
        &mut self,
        frame: &InputFrame,
        hash: u64,
        state: Option<&mut Snapshot>,
        interest: Option<Interest>,
        guests: &mut BTreeMap<Path, Guest>,
    ) {
        let tick = frame.tick();
        if self.stream.newest().is_some_and(|newest| newest >= tick) {
            return;
        }
        let tells_all = tick.number().is_multiple_of(INTEREST_TICKS);
        let tells = interest != self.interest || tells_all;
        self.interest = interest;
        // Whoever begins with the state of this tick has heard nothing of players yet.
        let tells_all = tells_all || self.feeds.values().any(|feed| feed.feed.needs_whole());
        let seen = self
            .seen
            .iter_mut()
            .filter_map(|(&slot, (ticks, is_news))| {
                let is_told = core::mem::take(is_news) || tells_all;
                is_told.then_some((slot, *ticks))
            });
        let extra = Extra {
            seen: seen.collect(),
            interest: tells.then_some(interest),
        }
        .encode();
        let context = TickContext {
            roster: (Term(0), 0),
            frame: frame.clone(),
            pending: Vec::new(),
            extra,
        };
        self.context.clear();
        context.encode(&mut self.context);
        self.stream.push(tick, hash, state, &self.context);
        for guest in guests.values_mut() {
            if let Some(feed) = self.feeds.get_mut(&guest.peer.member) {
                feed.tick(&mut self.stream, guest);
            }
        }
    }

    /// No tick follows for now: what standbys have not acked of the newest one goes out again.
    pub(super) fn repeat(&mut self, guests: &mut BTreeMap<Path, Guest>) {
        for guest in guests.values_mut() {
            if let Some(feed) = self.feeds.get_mut(&guest.peer.member) {
                feed.tick(&mut self.stream, guest);
            }
        }
    }

    /// The same, where this node hosts no more: the datagrams for `member`.
    pub(super) fn repeat_for(&mut self, member: MemberId) -> Vec<Vec<u8>> {
        let mut datagrams = Vec::new();
        if let Some(feed) = self.feeds.get_mut(&member) {
            feed.feed.begin_tick(&mut self.stream);
        }
        let mut out = Vec::new();
        while self.write(member, &mut out) {
            datagrams.push(core::mem::take(&mut out));
        }
        datagrams
    }

    /// The newest tick that `member` is known to hold.
    pub(super) fn held_by(&self, member: MemberId) -> Option<Tick> {
        self.feeds.get(&member)?.feed.held()
    }

    pub(super) fn handle_ack(&mut self, member: MemberId, body: &[u8]) -> Result<(), DropReason> {
        let ack = StandbyAck::decode(body).map_err(|_error| DropReason::Malformed)?;
        let feed = self.feeds.get_mut(&member).ok_or(DropReason::Unexpected)?;
        feed.silent_ticks = 0;
        feed.feed.on_ack(&self.stream, &ack);
        Ok(())
    }

    /// A transfer to `member` is complete.
    pub(super) fn transfer_arrived(&mut self, member: MemberId, id: u16) {
        if let Some(feed) = self.feeds.get_mut(&member)
            && feed.transfer.take_if(|known| *known == id).is_some()
        {
            feed.feed.whole_arrived();
        }
    }

    /// Writes the next datagram to `member`; false if there is none.
    pub(super) fn write(&mut self, member: MemberId, out: &mut Vec<u8>) -> bool {
        let Some(feed) = self.feeds.get_mut(&member) else {
            return false;
        };
        out.push(kind::STANDBY);
        if feed.feed.next_part(out) {
            return true;
        }
        out.clear();
        false
    }
}

impl Feed {
    fn tick(&mut self, stream: &mut StandbyStream, guest: &mut Guest) {
        // Another transfer may have taken its place.
        let present = guest
            .transfer
            .as_ref()
            .map(crate::session::bulk::BulkSender::id);
        if self.transfer.take_if(|id| Some(*id) != present).is_some() {
            self.feed.whole_cancelled();
        }
        self.silent_ticks += 1;
        if self.silent_ticks >= SILENT_TICKS_MAX && self.transfer.is_none() {
            self.silent_ticks = 0;
            self.feed.ask_whole();
        }
        if self.feed.needs_whole()
            && guest.transfer.is_none()
            && let Some(whole) = self.feed.whole(stream)
        {
            guest.begin_transfer(Purpose::Standby, whole.tick, &whole.bytes);
            self.transfer = guest
                .transfer
                .as_ref()
                .map(crate::session::bulk::BulkSender::id);
        }
        self.feed.begin_tick(stream);
    }
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
            spare_ticks: 1,
            ack_due: true,
            acked_at: Time::ZERO,
            statistics: StandbyStatistics::default(),
        }
    }

    /// Holds what this node ran itself as a host: `frames` are the inputs of the newest ticks.
    pub(super) fn hold(
        &mut self,
        state: Snapshot,
        hash: u64,
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
        (self.earlier, self.publisher) = (frames, publisher);
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

/// What the context of a tick says beside its inputs: varint count of players, per player the slot
/// (u8) and how far behind it saw (varint ticks); then 0, or 1 where clients see everything, or 2 and
/// two f32, how far they see and where entities leave their view.
#[derive(Debug, Default)]
struct Extra {
    seen: Vec<(Slot, u32)>,
    /// How far clients see, where it is told.
    interest: Option<Option<Interest>>,
}

impl Extra {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_varint(&mut out, self.seen.len() as u64);
        for &(slot, behind_ticks) in &self.seen {
            out.push(slot.0);
            put_varint(&mut out, behind_ticks.into());
        }
        match self.interest {
            None => out.push(0),
            Some(None) => out.push(1),
            Some(Some(interest)) => {
                out.push(2);
                out.extend_from_slice(&interest.radius.to_le_bytes());
                out.extend_from_slice(&interest.leave_radius.to_le_bytes());
            }
        }
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let count = usize::try_from(reader.varint()?).unwrap_or(usize::MAX);
        if count > SLOTS_MAX {
            return Err(DecodeError::Invalid("more players than slots"));
        }
        let mut seen = Vec::with_capacity(count);
        for _ in 0..count {
            let slot = Slot(reader.u8()?);
            if slot.index() >= SLOTS_MAX {
                return Err(DecodeError::Invalid(
                    "an input is of no slot of the session",
                ));
            }
            seen.push((slot, reader.varint_u32()?));
        }
        let interest = match reader.u8()? {
            0 => None,
            1 => Some(None),
            2 => {
                let mut distance = || Ok(f32::from_bits(reader.u32()?));
                let (radius, leave_radius): (f32, f32) = (distance()?, distance()?);
                if !(radius >= 0.0 && leave_radius >= radius) {
                    return Err(DecodeError::Invalid("nobody sees so far"));
                }
                Some(Some(Interest {
                    radius,
                    leave_radius,
                }))
            }
            _ => return Err(DecodeError::Invalid("no such interest")),
        };
        reader.finish()?;
        Ok(Self { seen, interest })
    }
}
