//! A client's side of a session.
//!
//! [`join`] gets it in, [`receive`] reads what its host sends, [`pace`] runs its ticks, [`state`] takes and gives states, and [`switch`]
//! goes over to another host. In state-sync mode [`follow`] takes the host's states instead,
//! [`predict`] runs ahead of them, and [`remain`] keeps them when the host changes.

mod decide;
mod follow;
pub(super) mod heir;
mod join;
mod pace;
mod predict;
mod receive;
pub(super) mod remain;
mod send;
mod state;
pub(super) mod switch;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::id::{MemberId, Path, SessionId, Slot, Term};
use crate::lockstep::{DelayControl, Exchange};
use crate::node::api::{DisconnectReason, Event, SessionInfo};
use crate::node::client::follow::Follower;
use crate::node::client::remain::Reigned;
use crate::node::client::switch::Prepared;
use crate::node::core::Core;
use crate::node::standby::Standby;
use crate::node::state_sync::{Received, StateSyncStatistics};
use crate::session::bulk::{BulkReceiver, BulkSender};
use crate::session::clock::Samples;
use crate::session::close::CloseReason;
use crate::session::config::{InputDelay, JoinConfig, ResumeToken};
use crate::session::control::{Control, Settings};
use crate::session::handshake::{self, Bye, ByeReason, Hello};
use crate::session::peer::Peer;
use crate::session::statistics::{Body, DropReason};
use crate::state::{Patch, Shapes, WireLayout};
use crate::tick::Tick;
use crate::time::Time;
use crate::wire::header::{TagKey, kind};

/// Microseconds between two Hellos.
const HELLO_US: u64 = 100_000;
/// Microseconds for which a nonce may be answered, then another one is tried: the host may have
/// lost the link that it opened before its welcome arrived, and opens none twice.
const NONCE_US: u64 = 2_000_000;
/// Copies of a goodbye: it is not acked.
const BYE_COPIES: u8 = 3;
/// Microseconds after the last tick in which others fetch what they lack.
const FAREWELL_US: u64 = 2_000_000;
/// Ticks sent after the last one, so that hashes and acks of it arrive.
const FAREWELL_TICKS: u64 = 16;

/// Where a client stands.
#[derive(Debug, PartialEq, Eq)]
enum Phase {
    /// Hello goes out until it is answered.
    Asking {
        since: Time,
        next_at: Time,
        nonce_until: Time,
    },
    /// Takes part.
    Inside,
    /// Over.
    Over,
}

/// A client's side of a session.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) config: JoinConfig,
    /// What is held of the host's state, in state-sync mode.
    follower: Option<Box<Follower>>,
    path: Path,
    /// The path that was closed last while another host could be elected, and why.
    closed: Option<Closed>,
    phase: Phase,
    hello: Hello,
    attempts: u64,
    resume: Option<ResumeToken>,
    pub(super) peer: Peer,
    exchange: Exchange,
    waits: bool,
    heal: bool,
    delay: DelayControl,
    /// When frames became known, as clock offsets.
    arrivals: Samples<256>,
    frames_upto: Tick,
    active_from: Option<Tick>,
    start_at_us: Option<u64>,
    running: bool,
    needs_state: bool,
    said_ready: bool,
    receiver: Option<(Tick, BulkReceiver)>,
    pub(super) state: Option<(Tick, Arc<[u8]>)>,
    /// What is held as a standby, in state-sync mode.
    pub(super) standby: Option<Box<Standby>>,
    /// Ticks between two states of the host that it was a client of last.
    pub(super) snapshot_ticks: u32,
    /// Whether the transfer that comes is for it.
    receives_standby: bool,
    diverged: Option<(Tick, Vec<String>)>,
    healing: bool,
    report: Option<BulkSender>,
    hashes_wanted: Option<(Tick, Tick)>,
    checked_own: Tick,
    stalled_at: Tick,
    due: bool,
    ended_at: Option<Time>,
    outgoing: VecDeque<Vec<u8>>,
    schema_parts: Vec<Option<Vec<u8>>>,
    pub(super) closing: VecDeque<Path>,
    /// What the host has said of the mesh, for the node to take at once.
    pub(super) introduced: VecDeque<Control>,
    /// Who hosts.
    pub(super) host: MemberId,
    /// What the next host must know, where hosting may move.
    pub(super) settings: Option<Settings>,
    /// The host that this node wants to follow next.
    prepared: Option<Prepared>,
    /// Whether it has promised its vote to another than the present host.
    renounces: bool,
    /// The session that another member has begun, and into which this one goes, until its host has told
    /// the settings.
    apart: Option<SessionId>,
    /// What members ask of this node as their next host, by path: see [`switch`].
    pub(super) returns: BTreeMap<Path, Vec<u8>>,
    /// Members that the present host has not named yet.
    unnamed: BTreeSet<MemberId>,
    /// Until when frames may come that the new host makes up for.
    recovers_until: Option<Time>,
    /// Up to this tick every input is sampled, though there was no time to do so one by one.
    samples_all_upto: Tick,
    /// Inputs that the new host does not want any more, until it is known what acted instead.
    abandoned: VecDeque<(Tick, Vec<u8>)>,
    /// What this node was as a host of state, until all of that is there.
    reigned: Option<Reigned>,
    /// Ticks by which its clock was ahead of the host's states, when it ceased to follow them.
    followed_ahead: Option<u32>,
}

/// Microseconds from when no more ways back are looked for to giving up: who was found says at once
/// who hosts.
const FOUND_US: u64 = 1_000_000;

/// The end of a path to the host.
#[derive(Debug)]
struct Closed {
    path: Path,
    reason: CloseReason,
    at: Time,
    /// When a way back was last looked for.
    sought_at: Option<Time>,
    /// Whether the game knows that a way back is looked for.
    is_told: bool,
}

impl Client {
    pub(super) fn new(config: JoinConfig, path: Path, now: Time) -> (Self, Core) {
        let placeholder =
            SessionInfo::placeholder(config.game.tick_rate, 1, config.game.input_bytes);
        let core = Core::new(placeholder, 0, now);
        let key = TagKey::new(SessionId(0), Term(0), 0);
        let peer = Peer::new(path, MemberId(0), key, config.game.tick_rate, now);
        let hello = Hello::new(&config.game, &config.name, config.role, 0);
        let limits = lead_limits(&config);
        let mut client = Self {
            follower: None,
            path,
            phase: Phase::Over,
            hello,
            attempts: 0,
            resume: None,
            closed: None,
            peer,
            exchange: Exchange::new(1, config.game.input_bytes, 0, 0, Tick::ZERO),
            waits: false,
            heal: false,
            delay: DelayControl::new(limits),
            arrivals: Samples::default(),
            frames_upto: Tick::ZERO,
            active_from: None,
            start_at_us: None,
            running: false,
            needs_state: false,
            said_ready: false,
            receiver: None,
            state: None,
            standby: None,
            snapshot_ticks: 0,
            receives_standby: false,
            diverged: None,
            healing: false,
            report: None,
            hashes_wanted: None,
            checked_own: Tick::ZERO,
            stalled_at: Tick::ZERO,
            due: false,
            ended_at: None,
            outgoing: VecDeque::new(),
            schema_parts: Vec::new(),
            closing: VecDeque::new(),
            introduced: VecDeque::new(),
            host: MemberId::FIRST_HOST,
            settings: None,
            prepared: None,
            renounces: false,
            apart: None,
            returns: BTreeMap::new(),
            unnamed: BTreeSet::new(),
            recovers_until: None,
            samples_all_upto: Tick::ZERO,
            abandoned: VecDeque::new(),
            reigned: None,
            followed_ahead: None,
            config,
        };
        client.ask(now, Tick::ZERO);
        (client, core)
    }

    pub(super) fn own_slot(&self) -> Option<Slot> {
        self.peer.slot
    }

    pub(super) fn is_over(&self) -> bool {
        self.phase == Phase::Over && self.outgoing.is_empty()
    }

    /// The input delay in force.
    pub(super) fn input_delay(&self) -> u32 {
        self.delay.ticks() - self.ahead(self.config.prediction_ticks)
    }

    /// Counters of state-sync mode, if that is it.
    pub(super) fn state_sync(&self) -> Option<StateSyncStatistics> {
        self.follower.as_ref().map(|follower| follower.statistics)
    }

    /// The states that came last, oldest first.
    pub(super) fn received(&self) -> impl Iterator<Item = &Received> {
        self.follower
            .iter()
            .flat_map(|follower| follower.received())
    }

    /// How values lie in what was received.
    pub(super) fn wire_tables(&self) -> Option<(&Arc<WireLayout>, &Shapes)> {
        let receiver = &self.follower.as_ref()?.receiver;
        Some((receiver.layout(), receiver.shapes()))
    }

    /// What the simulation shall take over.
    pub(super) fn patch(&self) -> Option<&Patch> {
        self.follower.as_ref().map(|follower| &follower.patch)
    }

    /// A path that the link should close, once what was to be said over it is said.
    pub(super) fn poll_close(&mut self) -> Option<Path> {
        if self.outgoing.is_empty() {
            self.closing.pop_front()
        } else {
            None
        }
    }

    pub(super) fn leave(&mut self, core: &mut Core) {
        if self.phase == Phase::Inside {
            self.say_bye(core, ByeReason::Left);
        }
        self.end(core, DisconnectReason::Left);
    }

    fn say_bye(&mut self, core: &Core, reason: ByeReason) {
        let bye = Bye {
            session_low: session_low(core),
            reason,
        };
        for _ in 0..BYE_COPIES {
            let mut bytes = Vec::new();
            handshake::write(kind::BYE, &bye, &mut bytes);
            self.outgoing.push_back(bytes);
        }
    }

    /// Gives up joining.
    fn fail(&mut self, core: &mut Core, reason: CloseReason) {
        if self.phase != Phase::Over {
            self.phase = Phase::Over;
            self.closing.push_back(self.path);
            core.report(Event::JoinFailed { reason });
        }
    }

    pub(super) fn end(&mut self, core: &mut Core, reason: DisconnectReason) {
        if self.phase != Phase::Over {
            self.phase = Phase::Over;
            self.closing.push_back(self.path);
            core.awaited = None;
            core.report(Event::Disconnected { reason });
        }
    }

    pub(super) fn handle_datagram(&mut self, core: &mut Core, now: Time, path: Path, bytes: &[u8]) {
        let result = match bytes.first() {
            Some(&kind::RETURN) => self.keep_return(path, &bytes[1..]),
            Some(&kind::BACK) => self.handle_back(core, now, path, &bytes[1..]),
            _ if path != self.path => Err(DropReason::UnknownPath),
            Some(&kind::WELCOME) => self.handle_welcome(core, now, &bytes[1..]),
            Some(&kind::REFUSE) => self.handle_refuse(core, &bytes[1..]),
            Some(&kind::SCHEMA_PART) => self.handle_schema_part(core, &bytes[1..]),
            Some(&kind::BYE) => self.handle_bye(core, &bytes[1..]),
            Some(&kind::BULK) => self.handle_chunk(core, now, &bytes[1..]),
            Some(&kind::BULK_ACK) => self.handle_bulk_ack(now, &bytes[1..]),
            Some(&kind::STANDBY) => self.handle_standby(core, now, &bytes[1..]),
            Some(_) => self.handle_tick(core, now, bytes),
            None => Err(DropReason::Malformed),
        };
        match result {
            Ok(()) => {
                core.statistics.datagrams_received += 1;
                core.statistics.bytes_received += bytes.len() as u64;
                if let Some(body) = bytes.first().and_then(|&first| Body::of_kind(first)) {
                    self.peer.statistics.count_received(body, bytes.len());
                }
            }
            Err(reason) => {
                core.statistics.drops.count(reason);
                self.peer.statistics.drops.count(reason);
                if self.phase == Phase::Inside && self.peer.is_beyond_repair(reason) {
                    self.rejoin(core, now, self.path);
                }
            }
        }
    }

    /// Does what is due. `seeks` says that the paths to other members were lost as well, and the link
    /// may find a way back.
    pub(super) fn handle_timeout(&mut self, core: &mut Core, now: Time, seeks: bool) {
        if let Some(standby) = &mut self.standby {
            standby.allow(core, self.config.catch_up_ticks.max(1));
        }
        if seeks && let Some(closed) = &mut self.closed {
            closed.sought_at = Some(now);
        }
        let is_sought = |closed: &Closed| {
            let since = |at: Time| now.micros_since(at);
            closed.sought_at.is_some_and(|at| since(at) <= FOUND_US)
        };
        let seeks = self.closed.as_ref().is_some_and(is_sought);
        if let Phase::Asking { .. } = self.phase
            && !seeks
            && self.prepared.is_none()
            && let Some(closed) = self.closed.take_if(|it| it.path == self.path)
        {
            self.handle_path_closed(core, closed.path, closed.reason);
            return;
        }
        match &mut self.phase {
            Phase::Asking {
                since,
                next_at,
                nonce_until,
            } => {
                let never_inside = self.resume.is_none();
                let limit_us = if never_inside {
                    self.config.join_us
                } else {
                    self.config.resume_us
                };
                if now.micros_since(*since) > limit_us {
                    if never_inside {
                        self.fail(core, CloseReason::NoAnswer);
                    } else {
                        self.end(core, DisconnectReason::Silence);
                    }
                } else if *next_at <= now && self.prepared.is_some() {
                    // Its Returns ask for more than a Hello: whoever has both lets it in twice.
                    *next_at = now.plus_micros(HELLO_US);
                } else if *next_at <= now {
                    *next_at = now.plus_micros(HELLO_US);
                    if *nonce_until <= now {
                        *nonce_until = now.plus_micros(NONCE_US);
                        self.renew_nonce(now);
                    }
                    let mut bytes = Vec::new();
                    handshake::write(kind::HELLO, &self.hello, &mut bytes);
                    self.outgoing.push_back(bytes);
                }
            }
            Phase::Inside => {
                let silent_us = now.micros_since(self.peer.heard_at);
                if self.has_waited_for_long(now) {
                    self.end(core, DisconnectReason::Silence);
                    return;
                }
                let may_rejoin = self.prepared.is_none() || self.asks_again(core);
                if may_rejoin && silent_us > self.config.silence_us {
                    self.prepared = None;
                    let Some(closed) = self.closed.as_mut().filter(|it| it.path == self.path)
                    else {
                        // The host may keep the slot: ask it.
                        self.rejoin(core, now, self.path);
                        return;
                    };
                    if !seeks || now.micros_since(closed.at) > self.config.resume_us {
                        let reason = closed.reason;
                        self.end(core, DisconnectReason::PathClosed(reason));
                        return;
                    }
                    if !core::mem::replace(&mut closed.is_told, true) {
                        core.report(Event::HostLost { member: self.host });
                    }
                }
                self.try_run(core, now);
                self.advance(core, now);
                self.answer_hashes(core);
                self.say_farewell(core, now);
            }
            Phase::Over => {}
        }
    }

    /// The path is closed. The driver may open another one and call [`Client::rejoin`].
    pub(super) fn handle_path_closed(&mut self, core: &mut Core, path: Path, reason: CloseReason) {
        if path != self.path {
            return;
        }
        if self.resume.is_none() {
            self.fail(core, reason);
        } else {
            self.end(core, DisconnectReason::PathClosed(reason));
        }
    }

    /// The path is closed, and another host may be elected meanwhile. If not, that was the end.
    /// Nor if it was inside, and the link may find a way back, to whoever hosts by then.
    pub(super) fn note_path_closed(
        &mut self,
        core: &mut Core,
        now: Time,
        path: Path,
        reason: CloseReason,
        seeks: bool,
    ) {
        if path != self.path {
            return;
        }
        let is_asking = matches!(self.phase, Phase::Asking { .. });
        if is_asking && self.prepared.is_none() && (!seeks || self.resume.is_none()) {
            self.handle_path_closed(core, path, reason);
        }
        let is_told = is_asking && seeks;
        if is_told && self.phase != Phase::Over {
            core.report(Event::HostLost { member: self.host });
        }
        self.closed = Some(Closed {
            path,
            reason,
            at: now,
            sought_at: seeks.then_some(now),
            is_told,
        });
    }

    /// `path` leads to the host, and both ends hear each other: if the path before has ended, the
    /// session is taken up again over this one.
    pub(super) fn take_up(&mut self, core: &Core, now: Time, path: Path) {
        let is_lost = self.closed.as_ref().is_some_and(|it| it.path == self.path);
        let was_inside = self.resume.is_some() && self.phase != Phase::Over;
        if is_lost && was_inside && (self.prepared.is_none() || self.asks_again(core)) {
            self.prepared = None;
            self.rejoin(core, now, path);
        }
    }

    /// The path to the host.
    pub(super) const fn path(&self) -> Path {
        self.path
    }

    /// Whether nothing more comes of this client, unless it rejoins.
    pub(super) fn has_ended(&self) -> bool {
        self.phase == Phase::Over
    }

    pub(super) fn tell(&mut self, control: &Control) {
        // A full outbox means a host that acks nothing; silence ends it soon.
        let _full = self.peer.outbox.push(control.to_bytes());
    }

    fn say_farewell(&mut self, core: &mut Core, now: Time) {
        let Some(at) = self.ended_at else { return };
        let after = now.micros_since(at);
        let last = core.timeline.settled();
        let is_heard = self.exchange.is_all_known(last, &core.submitted);
        let is_patient = after > FAREWELL_TICKS * core.rate.tick_us();
        if is_patient && is_heard && self.peer.outbox.is_idle() || after > FAREWELL_US {
            self.say_bye(core, ByeReason::Ended);
            self.end(core, DisconnectReason::Bye(ByeReason::Ended));
        }
    }
}

/// The lead is steered within these limits: what prediction covers, and the input delay.
fn lead_limits(config: &JoinConfig) -> InputDelay {
    let delay = config.input_delay;
    InputDelay::Adaptive {
        min: delay.min(),
        max: delay.max() + config.prediction_ticks,
    }
}

fn session_low(core: &Core) -> u64 {
    u64::try_from(core.info.session.0 & u128::from(u64::MAX)).unwrap_or(0)
}
