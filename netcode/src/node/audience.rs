//! What a host in state-sync mode tells its members: snapshots, and what each of them lacks.
//!
//! The [`Audience`] is the host's side of all of them together, a [`Listener`] that of one guest.

mod inspect;
mod late;

use crate::id::{MemberId, Slot};
use crate::lockstep::Shape;
use crate::node::core::Core;
use crate::node::desync::fold;
use crate::node::guest::Guest;
use crate::node::host::claims::Claimed;
use crate::node::state_sync::StateSyncStatistics;
use crate::session::config::{HostConfig, StateSyncConfig};
use crate::session::control::{Control, Purpose};
use crate::session::handshake::{BASELINES_MAX, Baseline};
use crate::session::peer::{Outcome, Peer};
use crate::state::Snapshot;
use crate::statesync::{Publisher, PublisherConfig, Subscription, Viewer};
use crate::tick::{Seq, Tick};
use crate::time::Time;

use late::Late;

pub use inspect::Inspection;

/// Ticks of a run of replaced inputs that one control message reports.
const REPLACED_TICKS: u32 = 16;

/// Bytes of a whole state from which on it travels as a transfer: fewer fit the datagrams between
/// two snapshots.
const KEYFRAME_BYTES_MIN: usize = 3000;

/// Microseconds after the end in which clients get the last state as any other.
const FINAL_US: u64 = 300_000;

/// Snapshots after which a member that plays is told that nothing has changed. It predicts for as
/// long as six snapshots without news, so one such datagram may be lost.
const CALM_SNAPSHOTS_PLAYING: u32 = 2;

/// The same for a member that only watches.
const CALM_SNAPSHOTS_WATCHING: u32 = 4;

/// A share of a second that passes without a datagram at most, to either.
const CALM_SHARE: u32 = 5;

/// Microseconds between two resets that a member gets: each costs the whole state.
const RESET_US: u64 = 500_000;

/// The host's side of all members.
#[derive(Debug)]
pub(super) struct Audience {
    pub(super) config: StateSyncConfig,
    pub(super) publisher: Publisher,
    /// For those who watch with a delay.
    late: Option<Box<Late>>,
    /// The newest tick that was published.
    published: Option<Tick>,
    /// The last tick of the session with the hash of the host's state, once it has run.
    last: Option<(Tick, u64)>,
    pub(super) statistics: StateSyncStatistics,
    pub(super) claimed: Claimed,
}

/// What one guest is told.
#[derive(Debug)]
pub(super) struct Listener {
    subscription: Subscription,
    /// Late inputs that it was not told of: the first tick, and a mask from there.
    replaced: Option<(Tick, u64)>,
    /// The newest datagram from it with claims.
    claimed: Option<Seq>,
    /// Ticks since the newest datagram to it.
    calm_ticks: u32,
    reset_at: Option<Time>,
    /// When it was told of the last tick; then, when it may get that state as a whole.
    final_at: Option<Time>,
    /// Where the account of what it is sent began, if someone looks.
    since: Option<inspect::Since>,
    /// Whether it watches with a delay.
    is_late: bool,
}

impl Audience {
    pub(super) fn new(config: &HostConfig) -> Self {
        let game = &config.game;
        let settings = PublisherConfig::new(&config.state_sync, game.tick_rate);
        let publisher = Publisher::new(&game.schema, settings);
        Self {
            config: config.state_sync,
            publisher,
            late: Late::new(config).map(Box::new),
            published: None,
            last: None,
            statistics: StateSyncStatistics::default(),
            claimed: Claimed::new(&game.schema),
        }
    }

    /// Goes on from the snapshots that another host published.
    pub(super) fn go_on(&mut self, publisher: Box<Publisher>) {
        self.published = publisher.newest();
        self.statistics.newest = self.published;
        self.publisher = *publisher;
        if let Some(late) = &mut self.late {
            late.keep_all(&self.publisher);
        }
    }

    /// What a member is told that may hold some of the snapshots here; the one that it goes on from.
    pub(super) fn take_up(
        &mut self,
        slot: Option<Slot>,
        member: MemberId,
        baselines: &[Baseline],
        upto: Tick,
    ) -> Option<(Listener, Tick)> {
        let mut listener = Listener::new(slot, member);
        if self.late.is_some() && listener.is_late {
            return None;
        }
        let epoch = baselines.first()?.epoch;
        let fits = |it: &&Baseline| it.epoch == epoch && it.tick <= upto.number();
        let claimed = baselines.iter().take(BASELINES_MAX).filter(fits);
        let claimed = claimed.map(|it| (Tick::new(it.tick), it.hash));
        let viewer = listener.subscription.viewer().clone();
        let (subscription, tick) =
            Subscription::holding(&mut self.publisher, viewer, epoch, claimed)?;
        listener.subscription = subscription;
        Some((listener, tick))
    }

    /// Whether the state after `tick` goes to clients.
    pub(super) fn is_snapshot(&self, core: &Core, tick: Tick) -> bool {
        tick.number().is_multiple_of(self.config.snapshot_ticks) || core.last_tick == Some(tick)
    }

    /// Takes a snapshot, and sees to those for whom it is time.
    pub(super) fn publish<'a>(
        &mut self,
        core: &mut Core,
        snapshot: &Snapshot,
        guests: impl Iterator<Item = &'a mut Guest>,
    ) {
        // A driver that answers twice, or late, changes nothing.
        if self.published.is_some_and(|newest| snapshot.tick <= newest) {
            return;
        }
        self.published = Some(snapshot.tick);
        self.publisher.publish(snapshot);
        if let Some(late) = &mut self.late {
            late.keep_newest(&self.publisher);
        }
        self.statistics.snapshots += 1;
        self.statistics.newest = Some(snapshot.tick);
        let hz = u32::from(core.rate.hz());
        let turn = snapshot.tick.number() / self.config.snapshot_ticks;
        let turns = (hz / self.config.snapshot_ticks).max(1);
        for guest in guests {
            let listener = guest.listener.as_ref();
            if listener.is_some_and(|it| it.subscription.needs_keyframe()) {
                self.send_keyframe(guest, 0);
            }
            // Once per second each, not all at the same snapshot.
            let is_turn = (u64::from(turn) + guest.peer.member.0).is_multiple_of(u64::from(turns));
            if let Some(listener) = &mut guest.listener
                && is_turn
                && let publisher = listener.publisher(&mut self.publisher, &mut self.late)
                && let Some((tick, hash)) = listener.subscription.interest_hash(publisher)
            {
                guest.peer.hash_due = Some(fold(tick, hash));
            }
            if is_turn {
                self.tell_inspection(core, guest);
            }
        }
    }

    /// Gives a guest that holds nothing all of the state: by a transfer if it is large, else with
    /// the next datagrams.
    pub(super) fn begin(&mut self, guest: &mut Guest) {
        if let Some(listener) = &mut guest.listener {
            self.inspect_new(listener);
        }
        self.send_keyframe(guest, KEYFRAME_BYTES_MIN);
    }

    /// Begins to tell a guest that holds a snapshot.
    pub(super) fn begin_with(&self, guest: &mut Guest) {
        if let Some(listener) = &mut guest.listener {
            self.inspect_new(listener);
        }
    }

    /// Begins the transfer of the whole state to `guest`, if it has at least so many bytes.
    fn send_keyframe(&mut self, guest: &mut Guest, bytes_min: usize) {
        let Some(listener) = &mut guest.listener else {
            return;
        };
        let publisher = listener.publisher(&mut self.publisher, &mut self.late);
        let Some(keyframe) = listener.subscription.keyframe(publisher) else {
            return;
        };
        let bytes = keyframe.bytes.len();
        if bytes >= bytes_min {
            guest.begin_transfer(Purpose::Join, keyframe.tick, &keyframe.bytes);
        }
        if guest.transfer.is_some() {
            self.statistics.keyframes += 1;
            self.statistics.keyframe_bytes += bytes as u64;
        } else if let Some(listener) = &mut guest.listener {
            listener.subscription.keyframe_cancelled();
        }
    }

    /// Takes notice of the hash of the last state.
    pub(super) fn end(&mut self, tick: Tick, hash: u64) {
        self.last = Some((tick, hash));
        self.statistics.authority = self.last;
        self.statistics.converged = Some(true);
    }

    /// Tells `guest` what it has to know at the end, once. Whom the datagrams of a tight budget have
    /// not brought up to date some time later gets the last state in one piece: no further snapshot
    /// will carry on with it.
    pub(super) fn tell_final(&mut self, guest: &mut Guest, now: Time) {
        let (Some((tick, state)), Some(listener)) = (self.last, &mut guest.listener) else {
            return;
        };
        let publisher = listener.publisher(&mut self.publisher, &mut self.late);
        if let Some(at) = listener.final_at {
            let is_due = at <= now && guest.transfer.is_none();
            if is_due && listener.subscription.known(publisher) != Some(tick) {
                listener.final_at = Some(now.plus_micros(FINAL_US));
                self.send_keyframe(guest, 0);
            }
            return;
        }
        if let Some((at, interest)) = listener.subscription.interest_hash(publisher)
            && at == tick
        {
            let rtt_us = guest.peer.rtt.smoothed_us().unwrap_or(0);
            listener.final_at = Some(now.plus_micros(FINAL_US + 2 * rtt_us));
            guest.tell(&Control::Final {
                tick: tick.number(),
                state,
                interest,
            });
        }
    }

    /// Whether `guest` gets a datagram this tick: if there is something to say, and else from time
    /// to time, for its clock, its inputs' acks, and so that it knows that nothing has changed.
    pub(super) fn is_due(&mut self, guest: &mut Guest, core: &Core) -> bool {
        let Some(listener) = &mut guest.listener else {
            return false;
        };
        if listener.subscription.has_more() {
            return true;
        }
        listener.hear(&mut guest.peer);
        let publisher = listener.publisher(&mut self.publisher, &mut self.late);
        let has_news = listener.subscription.begin_tick(publisher);
        listener.calm_ticks += 1;
        let snapshots = match guest.peer.slot {
            Some(_) => CALM_SNAPSHOTS_PLAYING,
            None => CALM_SNAPSHOTS_WATCHING,
        };
        let ticks = self.config.snapshot_ticks;
        let calm_ticks = (snapshots * ticks).min(u32::from(core.rate.hz()) / CALM_SHARE);
        // At the end everyone waits for the last state. A voter's ack of each tick is its word; to ask
        // for that by heartbeats would cost more.
        has_news
            || core.is_over()
            || guest.votes
            || guest.peer.has_word()
            || listener.calm_ticks >= calm_ticks
    }

    /// Writes the next datagram to `guest`.
    pub(super) fn write(
        &mut self,
        guest: &mut Guest,
        core: &mut Core,
        now: Time,
        since_end: u32,
        out: &mut Vec<u8>,
    ) {
        let reference = self.present(guest, core.timeline.simulated(), since_end);
        let Some(listener) = &mut guest.listener else {
            return;
        };
        listener.calm_ticks = 0;
        let shape = Shape {
            reference,
            uneven: false,
            own: None,
        };
        let (exchange, known) = (&mut guest.exchange, &core.known);
        let publisher = listener.publisher(&mut self.publisher, &mut self.late);
        let statistics = &mut self.statistics;
        guest.peer.pack(
            now,
            core.clock.due(Tick::ZERO),
            Some(reference),
            |seq, room, out| {
                // No inputs go out; but which of theirs were here when this left is noted.
                let noted = exchange.write(seq, shape, known, room, out);
                debug_assert_eq!(noted, Ok(()), "nothing goes out");
                let before = out.len();
                listener.subscription.write(publisher, seq, room, out);
                statistics.state_bytes += (out.len() - before) as u64;
            },
            out,
        );
        let listener = guest.listener.as_ref();
        guest.due = listener.is_some_and(|it| it.subscription.has_more());
    }
}

impl Listener {
    pub(super) fn new(slot: Option<Slot>, member: MemberId) -> Self {
        Self {
            subscription: Subscription::new(Viewer {
                member,
                slot,
                viewpoints: Vec::new(),
                rooms: Vec::new(),
            }),
            replaced: None,
            claimed: None,
            calm_ticks: 0,
            reset_at: None,
            final_at: None,
            since: None,
            is_late: slot.is_none(),
        }
    }

    /// Takes in what became of the datagrams to it.
    pub(super) fn hear(&mut self, peer: &mut Peer) {
        for (seq, outcome) in peer.take_outcomes() {
            match outcome {
                Outcome::Acked => self.subscription.on_ack(seq),
                Outcome::Lost => self.subscription.on_lost(seq),
            }
        }
    }

    /// Whether no later datagram than `seq` with claims was here before: the newest wins.
    pub(super) fn is_newest_claim(&mut self, seq: Seq) -> bool {
        let is_newest = self.claimed.is_none_or(|newest| newest < seq);
        if is_newest {
            self.claimed = Some(seq);
        }
        is_newest
    }

    /// The whole state that it was sent has arrived.
    pub(super) fn keyframe_held(&mut self, audience: &Audience) {
        let publisher = match &audience.late {
            Some(late) if self.is_late => &late.publisher,
            Some(_) | None => &audience.publisher,
        };
        self.subscription.keyframe_held(publisher);
    }

    /// It asks for all of the state; false if it asks too often.
    pub(super) fn reset(&mut self, now: Time) -> bool {
        if self
            .reset_at
            .is_some_and(|at| now.micros_since(at) < RESET_US)
        {
            return false;
        }
        self.reset_at = Some(now);
        self.subscription.reset();
        true
    }

    /// Notes that its input for `tick` came too late; gives what it has to be told, if it is time.
    pub(super) fn replace(&mut self, tick: Tick) -> Option<Control> {
        let (first, mask) = self.replaced.unwrap_or((tick, 0));
        let after = tick.since(first);
        if after < REPLACED_TICKS {
            self.replaced = Some((first, mask | 1 << after));
            return None;
        }
        self.replaced = Some((tick, 1));
        Some(replaced(first, mask))
    }

    /// What it has to be told of late inputs, once the first of them is `REPLACED_TICKS` old.
    pub(super) fn poll_replaced(&mut self, tick: Tick) -> Option<Control> {
        let due = |&mut (first, _): &mut (Tick, u64)| tick.since(first) >= REPLACED_TICKS;
        let (first, mask) = self.replaced.take_if(due)?;
        Some(replaced(first, mask))
    }
}

fn replaced(first: Tick, mask: u64) -> Control {
    Control::Replaced {
        first: first.number(),
        ticks: mask,
    }
}
