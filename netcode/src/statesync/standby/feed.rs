//! The host's side: states that are shared by all standbys, and what each of them is sent.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{ContentHead, PartHead, StandbyAck, StandbyMode, parts_of, put_contexts};
use crate::id::Term;
use crate::limits::{
    STANDBY_CONTENT_BYTES_MAX, STANDBY_CONTEXT_BYTES_MAX, STANDBY_HISTORY_TICKS,
    STANDBY_PART_BYTES, STANDBY_RING_TICKS,
};
use crate::state::{DeltaCodec, Schema, Snapshot};
use crate::tick::{Tick, TickRate};

/// Acks after a whole state has arrived that may still ask for it, since they were sent before.
const ACKS_LATE_MAX: u32 = 64;

/// How much standbys are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StandbyConfig {
    /// Ticks per second.
    pub rate: TickRate,
    /// Bytes per second to one standby on average, or `None`: a state for every tick, whatever it
    /// takes. Beyond it ticks are left out, so that a standby is some ticks behind.
    pub budget_bytes_per_second: Option<u32>,
    /// How a standby keeps up at first.
    pub mode: StandbyMode,
}

/// A tick of the host.
#[derive(Debug, Default)]
struct Moment {
    tick: Tick,
    /// `None` where nobody needed it.
    state: Option<Snapshot>,
    hash: u64,
    context: Vec<u8>,
}

/// The newest states of the host, for all standbys.
#[derive(Debug)]
pub struct StandbyStream {
    codec: DeltaCodec,
    term: Term,
    config: StandbyConfig,
    /// Oldest first, at most [`STANDBY_HISTORY_TICKS`]; states in the newest [`STANDBY_RING_TICKS`].
    ring: VecDeque<Arc<Moment>>,
    /// Contents of the newest state, by the states that they start from. `None`: too large.
    contents: Vec<(Starts, Option<Arc<[u8]>>)>,
    whole: Option<WholeState>,
    /// Memory of a state.
    spare: Option<Snapshot>,
}

/// What a content starts from: how, the state, and an earlier one.
type Starts = (StandbyMode, Tick, Option<Tick>);

/// A whole state for a standby that has none, as the payload of a transfer.
#[derive(Clone, Debug)]
pub struct WholeState {
    /// The tick of the state.
    pub tick: Tick,
    /// For [`StandbyState::install_whole`](super::StandbyState::install_whole).
    pub bytes: Arc<[u8]>,
}

impl StandbyStream {
    /// A stream of states of `schema`, of a host in `term`.
    #[must_use]
    pub fn new(schema: &Arc<Schema>, term: Term, config: StandbyConfig) -> Self {
        Self {
            codec: DeltaCodec::new(schema),
            term,
            config,
            ring: VecDeque::new(),
            contents: Vec::new(),
            whole: None,
            spare: None,
        }
    }

    /// Takes a tick that ran: the combined hash of its state (that of a snapshot: without derived
    /// kinds), its context, and the state if one of the feeds needs it; see
    /// [`StandbyFeed::needs_state`]. An older state is left in its place, whose memory may be used
    /// again. A context beyond [`STANDBY_CONTEXT_BYTES_MAX`] is left out.
    ///
    /// # Panics
    /// If the ticks do not ascend.
    pub fn push(&mut self, tick: Tick, hash: u64, state: Option<&mut Snapshot>, context: &[u8]) {
        assert!(
            self.newest().is_none_or(|newest| newest < tick),
            "states come by tick"
        );
        // A feed of a standby that is far behind may hold on to a state.
        let aged = self.ring.len().checked_sub(STANDBY_RING_TICKS as usize);
        let aged = aged.and_then(|index| Arc::get_mut(&mut self.ring[index]));
        if let Some(old) = aged.and_then(|moment| moment.state.take()) {
            self.spare = Some(old);
        }
        let is_full = self.ring.len() >= STANDBY_HISTORY_TICKS as usize;
        let oldest = if is_full { self.ring.pop_front() } else { None };
        let mut moment = oldest.and_then(Arc::into_inner).unwrap_or_default();
        moment.tick = tick;
        moment.hash = hash;
        moment.state = state.map(|state| {
            debug_assert_eq!(state.tick, tick, "the state is that of the tick");
            core::mem::replace(state, self.spare.take().unwrap_or_default())
        });
        moment.context.clear();
        if context.len() <= STANDBY_CONTEXT_BYTES_MAX {
            moment.context.extend_from_slice(context);
        }
        self.ring.push_back(Arc::new(moment));
        self.contents.clear();
    }

    /// The schema of the states.
    #[must_use]
    pub const fn schema(&self) -> &Arc<Schema> {
        self.codec.schema()
    }

    /// The newest tick.
    #[must_use]
    pub fn newest(&self) -> Option<Tick> {
        self.ring.back().map(|moment| moment.tick)
    }

    /// The hash at `tick`, if it is among the newest [`STANDBY_HISTORY_TICKS`].
    #[must_use]
    pub fn hash_at(&self, tick: Tick) -> Option<u64> {
        self.find(tick).map(|moment| moment.hash)
    }

    fn find(&self, tick: Tick) -> Option<&Arc<Moment>> {
        let place = self.ring.binary_search_by_key(&tick, |moment| moment.tick);
        self.ring.get(place.ok()?)
    }

    /// The newest tick for a standby that holds `start`, and `earlier`.
    fn content(
        &mut self,
        mode: StandbyMode,
        start: &Moment,
        earlier: Option<&Moment>,
    ) -> Result<Arc<[u8]>, NoContent> {
        let earlier = match mode {
            StandbyMode::Copies => earlier.filter(|earlier| earlier.state.is_some()),
            StandbyMode::Runs => None,
        };
        let starts = (mode, start.tick, earlier.map(|earlier| earlier.tick));
        let known = self.contents.iter().find(|(known, _)| *known == starts);
        if let Some((_, known)) = known {
            return known.clone().ok_or(NoContent::TooLarge);
        }
        let now = self.ring.back().ok_or(NoContent::NoState)?;
        let mut bytes = Vec::new();
        now.head().encode(&mut bytes);
        bytes.push(mode.code());
        match mode {
            StandbyMode::Copies => {
                let (Some(start), Some(after)) = (&start.state, &now.state) else {
                    return Err(NoContent::NoState);
                };
                let earlier = earlier.and_then(|earlier| earlier.state.as_ref());
                self.codec.encode(start, earlier, after, &mut bytes);
            }
            StandbyMode::Runs => {
                let first = self
                    .ring
                    .partition_point(|moment| moment.tick <= start.tick);
                let between = self.ring.range(first..self.ring.len() - 1);
                let count = u32::try_from(between.len()).unwrap_or(u32::MAX);
                if start.tick.number().checked_add(count + 1) != Some(now.tick.number()) {
                    return Err(NoContent::NoState);
                }
                put_contexts(between.map(|moment| &*moment.context), &mut bytes);
            }
        }
        let fits = bytes.len() <= STANDBY_CONTENT_BYTES_MAX;
        let content = fits.then(|| Arc::from(bytes));
        self.contents.push((starts, content.clone()));
        content.ok_or(NoContent::TooLarge)
    }

    /// The newest state as a whole, made once for all who ask at the same tick.
    fn whole(&mut self) -> Option<(WholeState, Arc<Moment>)> {
        let now = self.ring.back()?;
        let (tick, state) = (now.tick, now.state.as_ref()?);
        if self.whole.as_ref().is_none_or(|whole| whole.tick != tick) {
            let mut bytes = Vec::new();
            now.head().encode(&mut bytes);
            state.compress(self.codec.schema(), &mut bytes);
            self.whole = Some(WholeState {
                tick,
                bytes: bytes.into(),
            });
        }
        Some((self.whole.clone()?, Arc::clone(now)))
    }
}

impl Moment {
    fn head(&self) -> ContentHead<'_> {
        ContentHead {
            hash: self.hash,
            context: &self.context,
        }
    }
}

/// Why there is no content for a standby.
enum NoContent {
    TooLarge,
    /// States or ticks that it needs are not there.
    NoState,
}

/// What one standby was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StandbyFeedStatistics {
    /// Ticks that were sent.
    pub ticks: u64,
    /// Parts of them.
    pub parts: u64,
    /// Bytes of the parts.
    pub bytes: u64,
    /// Ticks that were left out, since the budget was used up.
    pub over_budget: u64,
    /// Ticks that were left out, since they exceeded [`STANDBY_CONTENT_BYTES_MAX`].
    pub too_large: u64,
    /// Whole states.
    pub wholes: u64,
    /// Acks of states that are not known any more.
    pub acks_unknown: u64,
}

/// What one standby is sent, on the host.
#[derive(Debug)]
pub struct StandbyFeed {
    mode: StandbyMode,
    ack: u32,
    /// The newest state that the standby holds.
    held: Option<Arc<Moment>>,
    /// The newest one before that it holds as well.
    earlier: Option<Arc<Moment>>,
    /// The whole state that is on its way.
    whole: Option<Arc<Moment>>,
    /// Number of the newest ack when it had arrived.
    arrived: Option<u32>,
    /// The standby has said that it needs one, or fell too far behind.
    wants_whole: bool,
    /// Bytes that may be sent before ticks are left out.
    credit: i64,
    sending: Option<Sending>,
    statistics: StandbyFeedStatistics,
}

/// A content on its way out.
#[derive(Debug)]
struct Sending {
    head: PartHead,
    content: Arc<[u8]>,
}

impl StandbyFeed {
    /// A feed of a standby that holds nothing.
    #[must_use]
    pub fn new(stream: &StandbyStream) -> Self {
        Self {
            mode: stream.config.mode,
            ack: 0,
            held: None,
            earlier: None,
            whole: None,
            arrived: None,
            wants_whole: false,
            credit: 0,
            sending: None,
            statistics: StandbyFeedStatistics::default(),
        }
    }

    /// The newest state that the standby is known to hold.
    #[must_use]
    pub fn held(&self) -> Option<Tick> {
        self.held.as_ref().map(|moment| moment.tick)
    }

    /// How the standby keeps up.
    #[must_use]
    pub const fn mode(&self) -> StandbyMode {
        self.mode
    }

    /// Whether the states of the coming ticks are needed, not just their hashes.
    #[must_use]
    pub fn needs_state(&self) -> bool {
        self.needs_whole() || self.mode == StandbyMode::Copies
    }

    /// Sends states from now on, since the host does what its frames do not tell.
    pub fn send_copies(&mut self) {
        if self.mode == StandbyMode::Runs {
            self.mode = StandbyMode::Copies;
            self.whole = None;
            self.fall_behind();
        }
    }

    /// What was sent.
    #[must_use]
    pub const fn statistics(&self) -> StandbyFeedStatistics {
        self.statistics
    }

    /// Whether the standby needs a whole state, and none is on its way.
    #[must_use]
    pub const fn needs_whole(&self) -> bool {
        self.wants_whole && self.whole.is_none()
    }

    /// The newest state as a whole, to be transferred. `None` if it is not there yet.
    pub fn whole(&mut self, stream: &mut StandbyStream) -> Option<WholeState> {
        let (whole, moment) = stream.whole()?;
        self.whole = Some(moment);
        self.arrived = None;
        self.wants_whole = false;
        self.statistics.wholes += 1;
        Some(whole)
    }

    /// The standby gets a whole state, whether it asked for one or not.
    pub fn ask_whole(&mut self) {
        if self.whole.is_none() {
            self.fall_behind();
        }
    }

    /// The transfer of the whole state is complete.
    pub const fn whole_arrived(&mut self) {
        self.arrived = Some(self.ack);
    }

    /// The transfer of the whole state came to nothing.
    pub fn whole_cancelled(&mut self) {
        self.whole = None;
        self.fall_behind();
    }

    /// Takes in what the standby says that it holds.
    pub fn on_ack(&mut self, stream: &StandbyStream, ack: &StandbyAck) {
        if ack.number <= self.ack {
            return;
        }
        self.ack = ack.number;
        if ack.has_diverged {
            self.send_copies();
        }
        if ack.needs_whole {
            // Acks from before the state arrived may be late.
            let is_useless = |since: u32| ack.number > since.saturating_add(ACKS_LATE_MAX);
            if self.arrived.is_some_and(is_useless) {
                self.whole = None;
            }
            // What it holds is of no use to it.
            self.fall_behind();
            return;
        }
        let Some(newest) = ack.newest else { return };
        let known = |tick: Tick| {
            let kept = [&self.held, &self.earlier, &self.whole].into_iter();
            let mut kept = kept.flatten();
            let kept = kept.find(|moment| moment.tick == tick);
            kept.or_else(|| stream.find(tick)).cloned()
        };
        let Some(held) = known(newest) else {
            self.statistics.acks_unknown += 1;
            self.fall_behind();
            return;
        };
        self.earlier = ack.ticks().skip(1).find_map(known);
        self.whole.take_if(|whole| whole.tick <= newest);
        self.held = Some(held);
        self.wants_whole = false;
    }

    /// The standby gets a whole state, unless one is on its way.
    fn fall_behind(&mut self) {
        self.held = None;
        self.earlier = None;
        self.wants_whole = true;
    }

    /// Begins to send the newest state; [`StandbyFeed::next_part`] has the parts of it. What was
    /// not sent of the one before is dropped. Once per tick.
    pub fn begin_tick(&mut self, stream: &mut StandbyStream) {
        self.sending = None;
        let Some(held) = &self.held else { return };
        let Some(tick) = stream.newest() else { return };
        if held.tick >= tick {
            return;
        }
        if let Some(budget) = stream.config.budget_bytes_per_second {
            let hz = i64::from(stream.config.rate.hz()).max(1);
            let budget = i64::from(budget);
            // A quarter of a second's worth may be saved up.
            self.credit = (self.credit + budget / hz).min(budget / 4);
            if self.credit < 0 {
                self.statistics.over_budget += 1;
                return;
            }
        }
        let content = match stream.content(self.mode, held, self.earlier.as_deref()) {
            Ok(content) => content,
            Err(NoContent::TooLarge) => {
                self.statistics.too_large += 1;
                return;
            }
            Err(NoContent::NoState) => {
                // It has fallen too far behind.
                self.fall_behind();
                return;
            }
        };
        self.statistics.ticks += 1;
        self.sending = Some(Sending {
            head: PartHead {
                term: stream.term.0,
                tick,
                size: content.len(),
                index: 0,
            },
            content,
        });
    }

    /// Appends the next part to `out`; false if there is none.
    pub fn next_part(&mut self, out: &mut Vec<u8>) -> bool {
        let Some(Sending { head, content }) = &mut self.sending else {
            return false;
        };
        let start = out.len();
        head.encode(out);
        let from = head.index * STANDBY_PART_BYTES;
        let upto = content.len().min(from + STANDBY_PART_BYTES);
        out.extend_from_slice(&content[from..upto]);
        head.index += 1;
        if head.index == parts_of(content.len()) {
            self.sending = None;
        }
        let bytes = out.len() - start;
        self.statistics.parts += 1;
        self.statistics.bytes += bytes as u64;
        self.credit = self
            .credit
            .saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
        true
    }
}
