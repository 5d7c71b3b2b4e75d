//! The host's side: what its standbys are sent of each tick.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::StandbyStatistics;
use super::extra::Extra;
use crate::id::{MemberId, Path, Slot, Term};
use crate::input::InputFrame;
use crate::node::core::Core;
use crate::node::guest::Guest;
use crate::session::control::Purpose;
use crate::session::statistics::DropReason;
use crate::state::{Schema, Snapshot};
use crate::statesync::{
    Interest, StandbyAck, StandbyConfig, StandbyFeed, StandbyMode, StandbyStream, TickContext,
};
use crate::tick::Tick;
use crate::wire::header::kind;

/// Ticks without a word from a standby after which it gets a whole state unasked.
const SILENT_TICKS_MAX: u32 = 30;

/// Ticks after which standbys are told again how far clients see, and what players saw.
const INTEREST_TICKS: u32 = 16;

/// What goes to all standbys.
#[derive(Debug)]
pub(in crate::node) struct AuthorityStream {
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
    pub(in crate::node) fn new(schema: &Arc<Schema>, core: &Core) -> Self {
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
    pub(in crate::node) fn send_to(&mut self, members: &[MemberId]) {
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
    pub(in crate::node) fn hash_at(&self, tick: Tick) -> Option<u64> {
        self.stream.hash_at(tick)
    }

    pub(in crate::node) fn is_wanted(&self) -> bool {
        !self.feeds.is_empty()
    }

    /// Whether the state itself is needed, not just its hash.
    pub(in crate::node) fn needs_state(&self) -> bool {
        self.feeds.values().any(|feed| feed.feed.needs_state())
    }

    /// The newest tick that all standbys hold.
    pub(in crate::node) fn safe_tick(&self) -> Option<Tick> {
        let held = self.feeds.values().map(|feed| feed.feed.held());
        held.min().flatten()
    }

    pub(in crate::node) fn statistics(&self) -> StandbyStatistics {
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
    pub(in crate::node) fn note_seen(&mut self, slot: Slot, behind_ticks: u32) {
        self.seen.insert(slot, (behind_ticks, true));
    }

    /// The simulation takes over what a client decides: no input tells that.
    pub(in crate::node) fn note_claim(&mut self) {
        for feed in self.feeds.values_mut() {
            feed.feed.send_copies();
        }
    }

    /// A tick has run: what goes to the standbys.
    pub(in crate::node) fn push(
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
    pub(in crate::node) fn repeat(&mut self, guests: &mut BTreeMap<Path, Guest>) {
        for guest in guests.values_mut() {
            if let Some(feed) = self.feeds.get_mut(&guest.peer.member) {
                feed.tick(&mut self.stream, guest);
            }
        }
    }

    /// The same, where this node hosts no more: the datagrams for `member`.
    pub(in crate::node) fn repeat_for(&mut self, member: MemberId) -> Vec<Vec<u8>> {
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
    pub(in crate::node) fn held_by(&self, member: MemberId) -> Option<Tick> {
        self.feeds.get(&member)?.feed.held()
    }

    pub(in crate::node) fn handle_ack(
        &mut self,
        member: MemberId,
        body: &[u8],
    ) -> Result<(), DropReason> {
        let ack = StandbyAck::decode(body).map_err(|_error| DropReason::Malformed)?;
        let feed = self.feeds.get_mut(&member).ok_or(DropReason::Unexpected)?;
        feed.silent_ticks = 0;
        feed.feed.on_ack(&self.stream, &ack);
        Ok(())
    }

    /// A transfer to `member` is complete.
    pub(in crate::node) fn transfer_arrived(&mut self, member: MemberId, id: u16) {
        if let Some(feed) = self.feeds.get_mut(&member)
            && feed.transfer.take_if(|known| *known == id).is_some()
        {
            feed.feed.whole_arrived();
        }
    }

    /// Writes the next datagram to `member`; false if there is none.
    pub(in crate::node) fn write(&mut self, member: MemberId, out: &mut Vec<u8>) -> bool {
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
