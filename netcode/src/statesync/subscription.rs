//! What one client is sent.
//!
//! Per snapshot a subscription chooses between two ways. A **whole body** says everything about the
//! client's view, against snapshots that the client is known to hold completely; the bytes are the
//! same for all clients with the same view and references, and made once. **Part bodies** say
//! something about chosen entities, each against values of its own that the client acked; they are
//! for views that do not fit the budget, and for clients that hold no complete snapshot.
//!
//! Everything that is sent is true: "at this snapshot the entity had this value", or "was not in
//! your view". What a client holds as of a snapshot is the newest that it was told up to then, so
//! old or repeated datagrams do no harm.
//!
//! # Invariants
//! - A snapshot is *known* if the client acked bodies that say, with what it acked before, all of
//!   its view. Only known snapshots are references of whole bodies.
//! - An entity is left out of a snapshot that claims to be complete only if its newest acked value
//!   is at least as new as its newest change and as its entry into the view. So a value that went
//!   from A to B and back is sent again, whether B arrived or not.
//! - A reference of an entity in a part body is a value that the client acked, or an equal one
//!   between that and its next change.
//! - While bodies are whole, every view since the newest known snapshot is remembered: they say what
//!   the client may hold when bodies become parts.

mod feedback;
mod parts;
mod plan;
mod sent;

use std::collections::VecDeque;
use std::sync::Arc;

use crate::delta::Tally;
use crate::id::NetId;
use crate::tick::{Seq, Tick};

use super::budget::Budget;
use super::head::{BODIES_MAX, Content, EPOCHS, HEAD_BYTES_MAX, Head};
use super::interest::{Outlook, Sight, Viewer};
use super::ledger::Ledger;
use super::publisher::Publisher;
use super::records::Records;
pub(super) use parts::GAP_MAX;
use parts::Queue;
use sent::{Sent, SentLog};

/// Snapshots after which an acked one serves no longer as base of whole bodies.
pub(super) const BASE_AGE_MAX: u32 = 32;
/// Snapshots with part bodies before whole ones are tried again, after they were too large.
const PARTS_AT_LEAST: u32 = 8;
/// Snapshots between two that a client with part bodies gets completely, on credit if need be, so that
/// whole bodies can follow.
const CREDIT_EVERY: u32 = 24;
/// Records of entities out of view, at most: a client that has acked nothing for so long that there
/// are more begins anew.
const GHOSTS_MAX: usize = 1 << 16;

/// A snapshot that the client was told of.
#[derive(Debug)]
struct Moment {
    number: u32,
    sight: Sight,
    /// The last body, once it was sent: together they say everything.
    last: Option<u8>,
    /// Bit per body.
    acked: u8,
    is_known: bool,
}

/// What is to be sent of the newest snapshot.
#[derive(Debug, Default)]
enum Plan {
    /// Nothing, or no more.
    #[default]
    Done,
    /// It equals the known snapshot that is so much older.
    Same { age: u8 },
    /// Whole bodies from the publisher's store.
    Whole {
        stored: usize,
        base: Option<u8>,
        others: u8,
    },
    /// Part bodies of what waits in the queue.
    Parts {
        /// Whether the queue has everything that the client is not known to hold.
        is_all: bool,
    },
}

/// A snapshot that equals the known one that is so much older.
#[derive(Clone, Copy, Debug)]
struct Unsaid {
    number: u32,
    age: u8,
}

/// A keyframe on its way to the client by other means than datagrams of state.
#[derive(Debug)]
struct Pending {
    number: u32,
    sight: Sight,
    /// The view, in case the snapshot leaves the ring before the client has it.
    ids: Vec<(NetId, u64)>,
    /// Where its bits go, if someone looks.
    tally: Option<Arc<Tally>>,
}

/// A complete snapshot to transfer.
#[derive(Clone, Debug)]
pub struct Keyframe {
    /// Its tick.
    pub tick: Tick,
    /// For [`Receiver::install_keyframe`](super::Receiver::install_keyframe); shared by all who
    /// get the same.
    pub bytes: Arc<[u8]>,
}

/// Counters of one client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SubscriptionStatistics {
    /// Snapshots that were said to equal an older one.
    pub same: u64,
    /// Whole bodies.
    pub whole: u64,
    /// Part bodies.
    pub parts: u64,
    /// Values and tombstones in part bodies.
    pub part_entities: u64,
    /// Bytes of bodies.
    pub bytes: u64,
    /// Keyframes.
    pub keyframes: u64,
    /// Times that the client had to forget everything.
    pub resets: u64,
    /// Entities that do not fit a datagram.
    pub too_large: u64,
    /// Acks and losses of numbers that carried no state, or that were forgotten.
    pub unknown_acks: u64,
    /// Entities in view.
    pub in_view: u32,
}

/// What the host knows of one client, and what it sends it.
#[derive(Debug)]
pub struct Subscription {
    viewer: Viewer,
    outlook: Outlook,
    epoch: u8,
    moments: VecDeque<Moment>,
    /// There while bodies are parts.
    records: Option<Records>,
    parts_since: u32,
    /// The newest snapshot that was told completely although there were too few bytes for it.
    credit_at: u32,
    pending: Option<Pending>,
    sent: SentLog,
    queue: Queue,
    plan: Plan,
    /// The newest snapshot that was looked at.
    planned: Option<u32>,
    snapshot_ticks: u32,
    next_body: u8,
    /// What is planned says no more than that what the client is known to hold still stands.
    is_calm: bool,
    /// The snapshot before the newest, if it was calm and nobody said so.
    unsaid: Option<Unsaid>,
    /// Whether the newest datagram spoke of the snapshot before.
    has_more: bool,
    /// A snapshot that waits for its turn, and since when.
    noticed: Option<(u32, u32)>,
    /// Whether the newest plan was for this client alone.
    is_costly: bool,
    budget: Option<Budget>,
    /// Ticks so far.
    ticks: u32,
    /// Whether this tick is counted already.
    is_counted: bool,
    /// Ticks between sending and ack, smoothed.
    round_trip: Option<u32>,
    wants_keyframe: bool,
    statistics: SubscriptionStatistics,
    /// There while someone looks.
    ledger: Option<Box<Ledger>>,
}

impl Subscription {
    /// A client that holds nothing.
    #[must_use]
    pub fn new(viewer: Viewer) -> Self {
        Self {
            viewer,
            outlook: Outlook::default(),
            epoch: 0,
            moments: VecDeque::new(),
            records: None,
            parts_since: 0,
            credit_at: 0,
            pending: None,
            sent: SentLog::default(),
            queue: Queue::default(),
            plan: Plan::Done,
            planned: None,
            snapshot_ticks: 1,
            next_body: 0,
            is_calm: false,
            unsaid: None,
            has_more: false,
            noticed: None,
            is_costly: false,
            budget: None,
            ticks: 0,
            is_counted: false,
            round_trip: None,
            wants_keyframe: false,
            statistics: SubscriptionStatistics::default(),
            ledger: None,
        }
    }

    /// A client that holds one of `claimed` (tick and hash, newest first), which bodies of `epoch`
    /// brought, and nothing else; says which. `None` if none of them is what it would have been told
    /// here, or is known no more.
    #[must_use]
    pub fn holding(
        publisher: &mut Publisher,
        viewer: Viewer,
        epoch: u8,
        claimed: impl Iterator<Item = (Tick, u64)>,
    ) -> Option<(Self, Tick)> {
        let snapshot_ticks = publisher.config().snapshot_ticks;
        let newest = publisher.newest_number()?;
        if epoch >= EPOCHS {
            return None;
        }
        for (tick, hash) in claimed {
            let number = tick.number().div_ceil(snapshot_ticks);
            let is_recent = newest.saturating_sub(number) < BASE_AGE_MAX;
            if !is_recent || publisher.tick(number) != Some(tick) {
                continue;
            }
            let mut outlook = Outlook::default();
            let seen = publisher.look_back(&viewer, &mut outlook, number);
            let Some((sight, _)) = seen.filter(|(_, known)| *known == hash) else {
                continue;
            };
            let mut subscription = Self::new(viewer);
            subscription.outlook = outlook;
            subscription.epoch = epoch;
            subscription.snapshot_ticks = snapshot_ticks;
            subscription.moments.push_back(Moment {
                number,
                sight,
                last: Some(0),
                acked: 1,
                is_known: true,
            });
            return Some((subscription, tick));
        }
        None
    }

    /// Who looks.
    #[must_use]
    pub const fn viewer(&self) -> &Viewer {
        &self.viewer
    }

    /// Who looks, to change its viewpoints and rooms; the next snapshot follows them.
    pub const fn viewer_mut(&mut self) -> &mut Viewer {
        &mut self.viewer
    }

    /// Counters.
    #[must_use]
    pub const fn statistics(&self) -> &SubscriptionStatistics {
        &self.statistics
    }

    /// What the client was sent since [`Publisher::set_tally`] was switched on; `None` while it is
    /// off, and before the first body.
    #[must_use]
    pub fn ledger(&self) -> Option<&Ledger> {
        self.ledger.as_deref()
    }

    /// Bytes per second that the client may get now: its budget, less what loss took away.
    #[must_use]
    pub fn bytes_per_second(&self, publisher: &Publisher) -> u32 {
        let config = publisher.config();
        let per_snapshot = self.budget.as_ref().map_or_else(
            || i64::from(config.bytes_per_snapshot()),
            Budget::per_snapshot,
        );
        let per_second =
            per_snapshot * i64::from(config.rate.hz()) / i64::from(config.snapshot_ticks);
        u32::try_from(per_second).unwrap_or(u32::MAX)
    }

    /// Snapshot tick of the newest snapshot that the client is known to hold completely.
    #[must_use]
    pub fn known(&self, publisher: &Publisher) -> Option<Tick> {
        let base = self.base()?;
        publisher.tick(self.moments[base].number)
    }

    /// Begins a tick: whether there is something to say that the client is not known to hold. If
    /// not, its datagram can be left out; one that goes out now and then all the same tells the
    /// client that all is as it was.
    pub fn begin_tick(&mut self, publisher: &mut Publisher) -> bool {
        self.ticks = self.ticks.wrapping_add(1);
        self.is_counted = true;
        self.has_more = false;
        let Some(number) = publisher.newest_number() else {
            return false;
        };
        if self.pending.is_some() {
            return false;
        }
        if self.is_turn(publisher, number) {
            self.look_at(publisher, number);
        }
        if self.is_calm || self.next_body >= BODIES_MAX {
            return false;
        }
        match self.plan {
            Plan::Done => false,
            Plan::Same { .. } | Plan::Whole { .. } => true,
            Plan::Parts { is_all } => {
                if self.queue.is_empty() {
                    is_all
                } else {
                    self.has_credit(number)
                        || self.budget.as_ref().is_some_and(|it| it.tokens() > 0)
                }
            }
        }
    }

    /// Whether it is time to look at snapshot `number`. Where there is much to do for single clients,
    /// they take turns in the ticks until the next one.
    fn is_turn(&mut self, publisher: &Publisher, number: u32) -> bool {
        let Some(planned) = self.planned.filter(|&planned| planned != number) else {
            return self.planned.is_none();
        };
        if !publisher.is_busy() || !self.is_costly || number - planned > 1 {
            return true;
        }
        let since = match self.noticed {
            Some((noticed, since)) if noticed == number => since,
            Some(_) | None => {
                self.noticed = Some((number, self.ticks));
                self.ticks
            }
        };
        let turn = self.viewer.member.0 % u64::from(self.snapshot_ticks);
        u64::from(self.ticks.wrapping_sub(since)) >= turn
    }

    /// Whether another datagram should follow at once: the last one only said that until the
    /// snapshot before nothing had changed, so that the client does not take the time without
    /// datagrams for one in which things moved.
    #[must_use]
    pub const fn has_more(&self) -> bool {
        self.has_more
    }

    /// Appends the state body of datagram `seq`, at most `room` bytes, to `out`. Call it for every
    /// datagram to the client: one per tick, or fewer and [`Subscription::begin_tick`] at each.
    pub fn write(&mut self, publisher: &mut Publisher, seq: Seq, room: usize, out: &mut Vec<u8>) {
        let was_counted = core::mem::take(&mut self.is_counted) || self.has_more;
        if !was_counted {
            self.ticks = self.ticks.wrapping_add(1);
        }
        self.has_more = false;
        let Some(number) = publisher.newest_number() else {
            return;
        };
        if self.pending.is_some() {
            return;
        }
        if !was_counted && self.planned != Some(number) {
            self.look_at(publisher, number);
        }
        let Some(number) = self.planned else { return };
        if self.write_unsaid(seq, room, out) || self.next_body >= BODIES_MAX {
            return;
        }
        let start = out.len();
        self.queue.sent.clear();
        let tokens = if self.has_credit(number) {
            room
        } else {
            usize::try_from(self.budget.as_ref().map_or(0, Budget::tokens)).unwrap_or(0)
        };
        let is_last = match &self.plan {
            Plan::Done => return,
            &Plan::Same { age } => {
                if room < HEAD_BYTES_MAX {
                    return;
                }
                self.head(number, true, Content::Same { age }).write(out);
                self.statistics.same += 1;
                true
            }
            &Plan::Whole {
                stored,
                base,
                others,
            } => {
                let body = publisher.stored_body(number, stored, self.next_body);
                let Some((body, is_last)) = body else {
                    self.plan = Plan::Done;
                    return;
                };
                if HEAD_BYTES_MAX + body.len() > room {
                    return;
                }
                self.head(number, is_last, Content::Whole { base, others })
                    .write(out);
                out.extend_from_slice(body);
                self.statistics.whole += 1;
                is_last
            }
            &Plan::Parts { is_all } => {
                let Some(is_last) = self.write_part(publisher, number, room, tokens, is_all, out)
                else {
                    return;
                };
                self.statistics.parts += 1;
                is_last
            }
        };
        let bytes = out.len() - start;
        self.keep_account(publisher, bytes);
        self.note_sent(seq, number, self.next_body, bytes);
        if let Some(moment) = self.moments.back_mut()
            && is_last
        {
            moment.last = Some(self.next_body);
        }
        self.next_body += 1;
        if is_last {
            self.plan = Plan::Done;
        }
    }

    /// Says, after snapshots without a datagram, that nothing had changed up to the one before.
    fn write_unsaid(&mut self, seq: Seq, room: usize, out: &mut Vec<u8>) -> bool {
        let Some(unsaid) = self.unsaid.take().filter(|_| room >= HEAD_BYTES_MAX) else {
            return false;
        };
        let is_it = |moment: &&mut Moment| moment.number == unsaid.number;
        let Some(moment) = self.moments.iter_mut().rev().find(is_it) else {
            return false;
        };
        moment.last = Some(0);
        self.queue.sent.clear();
        let start = out.len();
        let content = Content::Same { age: unsaid.age };
        let head = Head {
            index: 0,
            ..self.head(unsaid.number, true, content)
        };
        head.write(out);
        self.statistics.same += 1;
        let bytes = out.len() - start;
        if let Some(ledger) = &mut self.ledger {
            ledger.note(bytes, None);
        }
        self.note_sent(seq, unsaid.number, 0, bytes);
        self.has_more = true;
        true
    }

    /// Takes note of a body that was written, with what `queue.sent` says of entities.
    fn note_sent(&mut self, seq: Seq, number: u32, index: u8, bytes: usize) {
        self.statistics.bytes += bytes as u64;
        if let Some(budget) = &mut self.budget {
            budget.spend(bytes);
        }
        let sent = Sent {
            seq,
            number,
            index,
            at: self.ticks,
        };
        // What stands in the way had no answer for so long that it is lost.
        self.on_stale(seq);
        self.sent.push(sent, &self.queue.sent);
    }

    /// Notes where the bits of the body went that was just written, if someone looks.
    fn keep_account(&mut self, publisher: &mut Publisher, bytes: usize) {
        if publisher.tally().is_none() {
            self.ledger = None;
            return;
        }
        let ledger = self.ledger.get_or_insert_default();
        match self.plan {
            Plan::Whole { stored, .. } => {
                let number = self.planned.unwrap_or_default();
                let tally = publisher.stored_tally(number, stored, self.next_body);
                ledger.note(bytes, tally);
            }
            Plan::Done | Plan::Same { .. } | Plan::Parts { .. } => {
                ledger.note(bytes, publisher.take_tally().as_ref());
            }
        }
    }

    /// Whether snapshot `number` is told completely, however few bytes there are.
    fn has_credit(&self, number: u32) -> bool {
        self.credit_at == number && matches!(self.plan, Plan::Parts { is_all: true })
    }

    fn head(&self, number: u32, is_last: bool, content: Content) -> Head {
        Head {
            epoch: self.epoch,
            number_low: number.to_le_bytes()[0],
            index: self.next_body,
            is_last,
            content,
        }
    }
}
