//! The standby's side: states from parts.

mod run;

pub use run::{HeldRun, TickToRun};

use std::collections::VecDeque;
use std::sync::Arc;

use super::{ContentHead, PartHead, StandbyAck, StandbyMode};
use super::{parts_of, put_contexts, read_contexts};
use crate::id::Term;
use crate::limits::{STANDBY_ASSEMBLIES_MAX, STANDBY_RING_TICKS};
use crate::limits::{STANDBY_CONTENT_BYTES_MAX, STANDBY_HELD_BYTES_MAX, STANDBY_PART_BYTES};
use crate::state::{DeltaCodec, DeltaHead, Schema, Snapshot};
use crate::tick::Tick;
use crate::wire::bytes::{DecodeError, Reader};

use run::Run;

/// An exact state of the host, as a standby holds it.
#[derive(Clone, Debug, Default)]
pub struct Held {
    /// The state.
    pub state: Snapshot,
    /// Its combined hash.
    pub hash: u64,
    /// What the host says beside it.
    pub context: Vec<u8>,
}

/// Why a part or a whole state led nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StandbyError {
    /// The bytes are damaged. Only the sender's bug or a forgery makes them so.
    #[error("a state for a standby is malformed: {0}")]
    Malformed(#[from] DecodeError),
    /// It belongs to another term.
    #[error("a state for a standby is of another term")]
    OtherTerm,
    /// It starts from a state that is not held. The next ack asks for a whole one.
    #[error("a state for a standby starts from tick {0}, which is not held")]
    NoStart(Tick),
    /// The state that came out is not the host's. The next ack asks for a whole one.
    #[error("the state at tick {0} is not the host's")]
    WrongHash(Tick),
}

/// The states of the host that a standby holds.
#[derive(Debug)]
pub struct StandbyState {
    codec: DeltaCodec,
    term: Term,
    /// Oldest first.
    held: VecDeque<Held>,
    /// States that are not complete, oldest first.
    assemblies: VecDeque<Assembly>,
    /// Memory.
    spare: Held,
    /// Ticks that this node runs itself.
    run: Option<Run>,
    acks: u32,
    needs_whole: bool,
    has_diverged: bool,
}

/// Parts of a content.
#[derive(Debug, Default)]
struct Assembly {
    tick: Tick,
    bytes: Vec<u8>,
    /// Which parts have arrived.
    arrived: Vec<bool>,
    missing: usize,
}

impl StandbyState {
    /// A standby without a state, of a host in `term`.
    #[must_use]
    pub fn new(schema: &Arc<Schema>, term: Term) -> Self {
        Self {
            codec: DeltaCodec::new(schema),
            term,
            held: VecDeque::new(),
            assemblies: VecDeque::new(),
            spare: Held::default(),
            run: None,
            acks: 0,
            needs_whole: true,
            has_diverged: false,
        }
    }

    /// The newest tick that this node holds: as a state, or as the state of the simulation that
    /// runs the host's ticks.
    #[must_use]
    pub fn newest(&self) -> Option<Tick> {
        let held = self.held.back().map(|held| held.state.tick);
        held.max(self.run.as_ref().map(|run| run.newest().tick))
    }

    /// The combined hash of the state at the newest tick, and what the host says of that tick.
    #[must_use]
    pub fn newest_told(&self) -> Option<(u64, &[u8])> {
        if let Some(run) = &self.run {
            let newest = run.newest();
            return Some((newest.hash, &newest.context));
        }
        let held = self.held.back()?;
        Some((held.hash, &held.context))
    }

    /// The ticks that this node holds with what the host says of them, newest first. There may be
    /// gaps.
    pub fn told_newest_first(&self) -> impl Iterator<Item = (Tick, &[u8])> {
        let runs = self.run.iter().flat_map(Run::newest_first);
        let held = self.run.is_none().then_some(&self.held);
        let held = held.into_iter().flat_map(|held| held.iter().rev());
        runs.chain(held.map(|held| (held.state.tick, &*held.context)))
    }

    /// How this node keeps up.
    #[must_use]
    pub const fn mode(&self) -> StandbyMode {
        match self.run {
            Some(_) => StandbyMode::Runs,
            None => StandbyMode::Copies,
        }
    }

    /// The newest state that is held as such.
    #[must_use]
    pub fn newest_state(&self) -> Option<&Held> {
        self.held.back()
    }

    /// The state to import before the next tick can run. [`StandbyState::imported`] answers.
    #[must_use]
    pub fn to_import(&self) -> Option<&Held> {
        let run = self.run.as_ref().filter(|run| run.wants_import)?;
        self.at(run.newest().tick)
    }

    /// The state has been imported, or does not fit.
    pub fn imported(&mut self, is_imported: bool) {
        if !is_imported {
            self.run = None;
            self.has_diverged = true;
            self.needs_whole = true;
        } else if let Some(run) = &mut self.run {
            run.wants_import = false;
        }
    }

    /// The next tick to run. [`StandbyState::ran`] answers.
    #[must_use]
    pub fn to_run(&self) -> Option<&TickToRun> {
        self.run.as_ref()?.next()
    }

    /// The next tick ran; `hash` is the combined hash of the state after it, without derived kinds,
    /// where [`TickToRun::hash`] has one to compare. Says whether it was the host's. If not, the
    /// simulation goes back to the [newest](StandbyState::newest) tick, so that this node holds that
    /// one still, and states are copied from now on.
    pub fn ran(&mut self, hash: Option<u64>) -> bool {
        let is_the_hosts = self.run.as_mut().is_none_or(|run| run.ran(hash));
        if !is_the_hosts {
            self.has_diverged = true;
            self.needs_whole = true;
        }
        is_the_hosts
    }

    /// The next tick cannot run: its context means nothing here.
    pub fn cannot_run(&mut self) {
        if let Some(run) = &mut self.run {
            run.stop();
            self.has_diverged = true;
            self.needs_whole = true;
        }
    }

    /// The state at `tick`, if it is held.
    #[must_use]
    pub fn at(&self, tick: Tick) -> Option<&Held> {
        let place = self
            .held
            .binary_search_by_key(&tick, |held| held.state.tick);
        self.held.get(place.ok()?)
    }

    /// The states that are held, oldest first: at most the newest [`STANDBY_RING_TICKS`], and no
    /// more than [`STANDBY_HELD_BYTES_MAX`].
    pub fn states(&self) -> impl Iterator<Item = &Held> {
        self.held.iter()
    }

    /// Holds a state that this node computed itself, as the host that it was.
    pub fn hold(&mut self, held: Held) {
        self.held.clear();
        self.run = None;
        self.needs_whole = false;
        self.push(held);
    }

    /// What the host is told next.
    pub fn ack(&mut self) -> StandbyAck {
        self.acks += 1;
        let newest = self.newest();
        let before = newest.map_or(0, |newest| {
            let ticks = self.held.iter().rev().map(|held| held.state.tick);
            let before = ticks.filter(|&tick| tick < newest);
            before
                .map(|tick| newest.number() - tick.number())
                .take_while(|&distance| distance <= u32::BITS)
                .fold(0, |mask, distance| mask | 1 << (distance - 1))
        });
        StandbyAck {
            number: self.acks,
            newest,
            before,
            needs_whole: self.needs_whole,
            has_diverged: self.has_diverged,
        }
    }

    /// Follows the host of `term`, whose states go on from that at `keep`: later ones are dropped.
    pub fn begin_term(&mut self, term: Term, keep: Tick) {
        self.term = term;
        self.held.retain(|held| held.state.tick <= keep);
        self.assemblies.clear();
        self.run.take_if(|run| !run.keep(keep));
        self.needs_whole = self.held.is_empty() && self.run.is_none();
    }

    /// The newest tick of which all is here.
    fn known_upto(&self) -> Option<Tick> {
        let run = self.run.as_ref().map(Run::known_upto);
        self.newest().max(run)
    }

    /// Takes in a part; says which tick it completed, as a state or as one to run. Parts of states that are no newer than what
    /// is held, or that arrived before, change nothing.
    ///
    /// # Errors
    /// See [`StandbyError`]; what was held before is still there.
    pub fn handle_part(&mut self, body: &[u8]) -> Result<Option<Tick>, StandbyError> {
        let mut reader = Reader::new(body);
        let head = PartHead::decode(&mut reader)?;
        if head.term != self.term.0 {
            return Err(StandbyError::OtherTerm);
        }
        if self.known_upto().is_some_and(|known| head.tick <= known) {
            return Ok(None);
        }
        let Some(place) = self.assembly(&head)? else {
            return Ok(None);
        };
        let assembly = &mut self.assemblies[place];
        if core::mem::replace(&mut assembly.arrived[head.index], true) {
            return Ok(None);
        }
        let from = head.index * STANDBY_PART_BYTES;
        assembly.bytes[from..from + reader.len()].copy_from_slice(reader.rest());
        assembly.missing -= 1;
        if assembly.missing > 0 {
            return Ok(None);
        }
        let complete = self.assemblies.remove(place).unwrap_or_default();
        self.apply(complete.tick, &complete.bytes)?;
        self.assemblies.retain(|other| other.tick > complete.tick);
        Ok(Some(complete.tick))
    }

    /// Where the parts of a state are put together; `None` if newer ones take all places.
    fn assembly(&mut self, head: &PartHead) -> Result<Option<usize>, StandbyError> {
        let place = self
            .assemblies
            .binary_search_by_key(&head.tick, |assembly| assembly.tick);
        match place {
            Ok(place) if self.assemblies[place].bytes.len() == head.size => Ok(Some(place)),
            Ok(_) => Err(DecodeError::Invalid("parts of one state disagree on its size").into()),
            Err(0) if self.assemblies.len() == STANDBY_ASSEMBLIES_MAX => Ok(None),
            Err(mut place) => {
                if self.assemblies.len() == STANDBY_ASSEMBLIES_MAX {
                    self.assemblies.pop_front();
                    place -= 1;
                }
                let parts = parts_of(head.size);
                let assembly = Assembly {
                    tick: head.tick,
                    bytes: vec![0; head.size],
                    arrived: vec![false; parts],
                    missing: parts,
                };
                self.assemblies.insert(place, assembly);
                Ok(Some(place))
            }
        }
    }

    /// Takes over a whole state; says at which tick. An older one than what is held changes
    /// nothing, but that it is not asked for again.
    ///
    /// # Errors
    /// See [`StandbyError`].
    pub fn install_whole(&mut self, bytes: &[u8]) -> Result<Tick, StandbyError> {
        let mut reader = Reader::new(bytes);
        let head = ContentHead::decode(&mut reader)?;
        let schema = Arc::clone(self.codec.schema());
        let state = Snapshot::decompress(reader.rest(), &schema)?;
        let tick = state.tick;
        if state.hash(&schema).combined() != head.hash {
            return Err(StandbyError::WrongHash(tick));
        }
        // What is held cannot be gone on from, or there would be no whole state.
        if self.needs_whole {
            self.held.clear();
            self.run = None;
        }
        self.needs_whole = false;
        if self.newest().is_none_or(|newest| newest < tick) {
            self.run = None;
            self.push(Held {
                state,
                hash: head.hash,
                context: head.context.to_vec(),
            });
        }
        Ok(tick)
    }

    /// What brings a standby that holds the state at `after` nearer to the newest one, for
    /// [`StandbyState::take_records`]: says how near, if `room` bytes are enough for a tick.
    pub fn records_after(&self, after: Tick, room: usize, out: &mut Vec<u8>) -> Option<Tick> {
        let begin = out.len();
        let tick = match &self.run {
            Some(run) => run_records(run, after, room, out),
            None => self.copy_records(after, out),
        };
        if tick.is_none() || out.len() - begin > room {
            out.truncate(begin);
            return None;
        }
        tick
    }

    fn copy_records(&self, after: Tick, out: &mut Vec<u8>) -> Option<Tick> {
        let place = self
            .held
            .binary_search_by_key(&after, |held| held.state.tick);
        let (start, now) = (self.held.get(place.ok()?)?, self.held.back()?);
        let tick = now.state.tick;
        if start.state.tick == tick {
            return None;
        }
        put_records_head(tick, now.hash, &now.context, StandbyMode::Copies, out);
        let mut codec = DeltaCodec::new(self.codec.schema());
        codec.encode(&start.state, None, &now.state, out);
        Some(tick)
    }

    /// Takes over what [`StandbyState::records_after`] of another standby gave; says up to which
    /// tick. Of a node that runs the host's ticks they are to be run then.
    ///
    /// # Errors
    /// See [`StandbyError`].
    pub fn take_records(&mut self, bytes: &[u8]) -> Result<Tick, StandbyError> {
        let mut reader = Reader::new(bytes);
        let tick = Tick::new(reader.u32()?);
        if self.known_upto().is_none_or(|known| known < tick) {
            self.apply(tick, reader.rest())?;
        }
        Ok(tick)
    }

    /// Makes use of a complete content.
    fn apply(&mut self, tick: Tick, content: &[u8]) -> Result<(), StandbyError> {
        let mut reader = Reader::new(content);
        let head = ContentHead::decode(&mut reader)?;
        match StandbyMode::decode(&mut reader)? {
            StandbyMode::Runs => self.take_runs(tick, &head, &reader),
            StandbyMode::Copies => self.copy(tick, &head, reader.rest()),
        }
    }

    fn take_runs(
        &mut self,
        tick: Tick,
        head: &ContentHead<'_>,
        reader: &Reader<'_>,
    ) -> Result<(), StandbyError> {
        let contexts = read_contexts(reader)?;
        let last = TickToRun {
            tick,
            context: head.context.to_vec(),
            hash: Some(head.hash),
        };
        let from = self.held.back().map(|held| HeldRun {
            tick: held.state.tick,
            hash: held.hash,
            context: held.context.clone(),
        });
        let run = match (&mut self.run, from) {
            (Some(run), _) => run,
            (none, Some(from)) => none.insert(Run::new(from)),
            (None, None) => {
                self.needs_whole = true;
                return Err(StandbyError::NoStart(tick));
            }
        };
        let known = run.known_upto();
        if run.take(contexts, last) {
            Ok(())
        } else {
            self.needs_whole = true;
            Err(StandbyError::NoStart(known))
        }
    }

    /// Makes the state of a delta.
    fn copy(
        &mut self,
        tick: Tick,
        head: &ContentHead<'_>,
        delta: &[u8],
    ) -> Result<(), StandbyError> {
        let about = DeltaHead::peek(delta)?;
        if about.tick != tick {
            return Err(DecodeError::Invalid("a state is of another tick than it says").into());
        }
        let find = |tick: Tick| {
            let place = self
                .held
                .binary_search_by_key(&tick, |held| held.state.tick);
            place.map(|place| &self.held[place].state)
        };
        let (Ok(start), Ok(earlier)) = (find(about.start), about.earlier.map(find).transpose())
        else {
            self.needs_whole = true;
            return Err(StandbyError::NoStart(about.start));
        };
        let mut next = core::mem::take(&mut self.spare);
        let applied = self.codec.apply(start, earlier, delta, &mut next.state);
        if let Err(error) = applied {
            self.needs_whole = true;
            return Err(error.into());
        }
        next.hash = next.state.hash(self.codec.schema()).combined();
        if next.hash != head.hash {
            self.spare = next;
            self.needs_whole = true;
            return Err(StandbyError::WrongHash(tick));
        }
        next.context.clear();
        next.context.extend_from_slice(head.context);
        // Whoever copies does not run.
        self.run = None;
        self.push(next);
        Ok(())
    }

    /// Adds the newest state, and drops old ones.
    fn push(&mut self, next: Held) {
        self.held.push_back(next);
        let mut bytes: usize = self.held.iter().map(Held::bytes).sum();
        // The newest and the one before are needed to go on.
        while self.held.len() > STANDBY_RING_TICKS as usize
            || (self.held.len() > 2 && bytes > STANDBY_HELD_BYTES_MAX)
        {
            if let Some(oldest) = self.held.pop_front() {
                bytes -= oldest.bytes();
                self.spare = oldest;
            }
        }
    }
}

/// The ticks after `after` that `room` has place for, as far as the last hash among them.
fn run_records(run: &Run, after: Tick, room: usize, out: &mut Vec<u8>) -> Option<Tick> {
    let runs = run.after(after)?;
    let begin = out.len();
    for count in (1..=runs.len()).rev() {
        let (last, before) = runs[..count].split_last()?;
        let Some(hash) = last.hash else { continue };
        put_records_head(last.tick, hash, &last.context, StandbyMode::Runs, out);
        put_contexts(before.iter().map(|run| &*run.context), out);
        if out.len() - begin <= room {
            return Some(last.tick);
        }
        out.truncate(begin);
    }
    None
}

fn put_records_head(tick: Tick, hash: u64, context: &[u8], mode: StandbyMode, out: &mut Vec<u8>) {
    out.extend_from_slice(&tick.number().to_le_bytes());
    ContentHead { hash, context }.encode(out);
    out.push(mode.code());
}

impl Held {
    fn bytes(&self) -> usize {
        let kinds = self.state.kinds.iter();
        kinds
            .map(|rows| rows.bytes.len() + 12 * rows.len())
            .sum::<usize>()
            + self.context.len()
    }
}

const _: () = assert!(STANDBY_CONTENT_BYTES_MAX < u32::MAX as usize);
