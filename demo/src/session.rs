//! One node of a session over UDP, from its start to its end.
//!
//! A [`Session`] owns a driver and a link and runs on a thread of its own; a [`Board`] shows others
//! how it stands and takes their wish to stop. Everything that happens ends up in an [`Outcome`].

mod board;
mod changes;
mod figures;
mod link;
mod log;
mod opening;
mod outcome;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use phalanx::netcode::driver::Driver;
use phalanx::netcode::id::{Path, Term};
use phalanx::netcode::link::udp::UdpStatistics;
use phalanx::netcode::node::{DisconnectReason, Event};
use phalanx::netcode::tick::Tick;
use phalanx::netcode::time::Time;

pub use board::{Board, Status};
pub use changes::Migrations;
pub use link::{Destination, GameLink, Network, open_link};
pub use outcome::{End, HEADER_BYTES, Outcome, Traffic};

use self::figures::Recent;
use self::log::{Log, Moment};
use crate::eye::Eye;
use crate::inspector::Accounts;
use crate::play::Pilot;
use crate::view::Canvas;

/// Longest sleep between two looks at the link, in microseconds.
const NAP_US: u64 = 1000;
/// Time between two updates of the board.
const BOARD_PERIOD: Duration = Duration::from_millis(250);
/// Time for a session to end after it was asked to stop; a host may need it to hand over.
const STOP_LIMIT: Duration = Duration::from_secs(4);
/// Times that a client comes back after it lost its link.
const RETURNS_MAX: u32 = 3;

/// One node of a session, ready to run.
#[derive(Debug)]
pub struct Session {
    driver: Driver<Pilot>,
    link: GameLink,
    epoch: Instant,
    /// The path to the host that this node follows or followed last, and where it led.
    way: Option<(Path, SocketAddr)>,
    leave_at: Option<Tick>,
    recent: Recent,
    /// What a host does that is asked to stop.
    farewell: Farewell,
    /// When to vanish without a word.
    dies_at: Option<Tick>,
    /// Whether it began as the host.
    is_founder: bool,
    has_changed_role: bool,
    baseline: Option<Baseline>,
    /// The term of which was said that another member can take over.
    told_term: Option<Term>,
    record: Option<PathBuf>,
    /// What a client in state-sync mode shows.
    eye: Option<Eye>,
    /// Whether to draw the field for the board.
    draws: Option<Canvas>,
    inspector: Option<Inspector>,
    log: Log,
}

/// What a host does that is asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Farewell {
    /// It ends the match for everyone, in one state.
    EndMatch,
    /// It leaves the match to another member, if one can host; else it ends it.
    HandOver,
}

/// Who looks at what clients are sent.
#[derive(Debug)]
struct Inspector {
    accounts: Accounts,
    period: Duration,
    told_at: Instant,
}

impl Inspector {
    /// The next table, if it is time.
    fn poll_table(&mut self, names: &[String]) -> Option<String> {
        if self.told_at.elapsed() < self.period {
            return None;
        }
        self.told_at = Instant::now();
        let table = self.accounts.table(names);
        (!table.is_empty()).then_some(table)
    }
}

/// Counters when the first tick had run.
#[derive(Clone, Copy, Debug)]
struct Baseline {
    tick: Tick,
    udp: UdpStatistics,
}

impl Session {
    /// Runs the session to its end.
    #[must_use]
    pub fn run(mut self, board: &Board) -> Outcome {
        let mut shown_at = Instant::now();
        let mut stopped_at = None;
        loop {
            let now = self.now();
            let is_host = self.driver.node().is_host();
            self.driver.player_mut().set_hosting(is_host);
            self.driver.pump(now, &mut self.link);
            while let Some(event) = self.driver.poll_event() {
                self.take(now, event);
            }
            let node = self.driver.node();
            // A client whose view is beyond its budget seldom holds a state as a whole.
            let states = node.state_sync().filter(|_| !is_host);
            let told = states.and_then(|states| states.newest);
            let settled = told.unwrap_or(node.settled_tick());
            self.log.changes.advance(now, settled, node.host_member());
            self.count_traffic();
            self.note_way();
            if let Some(eye) = &mut self.eye {
                let sampled = self.driver.player().sampled();
                eye.follow(now, &mut self.driver, sampled);
            }
            self.tell_if_replaceable();
            if self.is_to_die() {
                self.log.end = Some(End::Killed);
                let tick = self.driver.node().tick();
                let who = self.log.who(self.driver.node().session().member);
                self.log
                    .say(format!("killed the host, {who}, after tick {tick}"));
                break;
            }
            if self.driver.player().wants_to_quit() {
                board.stop();
            }
            if stopped_at.is_none() && (board.is_stopped() || self.has_enough()) {
                stopped_at = Some(Instant::now());
                self.stop();
                // A node that leaves is over at once; its goodbye must still go out.
                let now = self.now();
                self.driver.transmit(now, &mut self.link);
            }
            if stopped_at.is_some_and(|at| at.elapsed() > STOP_LIMIT) {
                self.log.end.get_or_insert(End::Left);
                self.driver.node_mut().leave();
                let now = self.now();
                self.driver.transmit(now, &mut self.link);
                break;
            }
            if self.driver.node().is_over() {
                break;
            }
            if shown_at.elapsed() >= BOARD_PERIOD || !self.log.news.is_empty() {
                shown_at = Instant::now();
                self.show(board);
            }
            self.nap();
        }
        self.judge_end();
        self.show(board);
        self.outcome()
    }

    /// Who is left alone has not ended well, although it was asked to stop or came to the last tick.
    fn judge_end(&mut self) {
        let is_finished = self.log.end == Some(End::Finished);
        if !is_finished && !matches!(self.log.end, None | Some(End::Left)) {
            return;
        }
        let node = self.driver.node();
        let is_cut_off = node.is_frozen() || node.quorum().is_some_and(|it| !it.is_there());
        // A host that has run the last tick needs nobody any more.
        let failure = if is_cut_off && !is_finished {
            "too few members were heard at the end, and may have gone on without this node"
                .to_owned()
        } else if let Some((member, last)) = self.log.other {
            let who = self.log.who(member);
            format!(
                "the match was played twice: since tick {last} also by {who}, in another session"
            )
        } else if self.log.is_apart {
            "went on alone, in a session of its own, without others that may have gone on"
                .to_owned()
        } else {
            return;
        };
        self.log.end = Some(End::Failed(failure));
    }

    fn now(&self) -> Time {
        Time::ZERO + self.epoch.elapsed()
    }

    fn nap(&self) {
        let until = self.driver.poll_timeout();
        let us = until.micros_since(self.now()).min(NAP_US);
        if us > 0 {
            thread::sleep(Duration::from_micros(us));
        }
    }

    /// Whether this node hosts and all others could go on without it: they have met, so that every
    /// player that is here has a vote, and somebody holds all that was promised.
    fn is_replaceable(&self) -> bool {
        let node = self.driver.node();
        let is_ready = node.terms().is_some_and(|terms| {
            let voters = terms.roster().voter_count();
            voters >= node.roster().players() && terms.safe_tick() > Tick::ZERO
        });
        is_ready && node.is_replaceable()
    }

    /// Says so, once per term.
    fn tell_if_replaceable(&mut self) {
        let term = self.driver.node().session().term;
        if self.told_term != Some(term) && self.is_replaceable() {
            self.told_term = Some(term);
            self.log
                .say("another member can take over, should this one be gone");
        }
    }

    /// Whether it is time to vanish.
    fn is_to_die(&self) -> bool {
        let tick = self.driver.node().tick();
        let is_due = self.dies_at.is_some_and(|at| tick >= at);
        is_due && self.log.end.is_none() && self.is_replaceable()
    }

    /// Whether this client was to leave at the present tick.
    fn has_enough(&self) -> bool {
        let settled = self.driver.node().settled_tick();
        self.leave_at.is_some_and(|tick| settled >= tick) && self.log.end.is_none()
    }

    /// Ends the session or leaves it.
    fn stop(&mut self) {
        let now = self.now();
        let is_host = self.driver.node().is_host();
        // Whoever was to play so many ticks is not alone in that: they end in one state.
        let hands_over = is_host && self.farewell == Farewell::HandOver && !self.has_enough();
        let node = self.driver.node_mut();
        if hands_over && let Ok(target) = node.request_handover(now, None) {
            // It goes once that one hosts.
            node.leave();
            self.log.end.get_or_insert(End::Left);
            let who = self.log.who(target);
            self.log.say(format!("leaving the match to {who}"));
        } else if node.is_frozen() {
            // The others may be heard again before it gives up.
            node.leave();
        } else if node.is_host() && node.tick() > Tick::ZERO {
            // Everyone runs the same last tick.
            let tick = node.tick();
            node.end_at(tick);
        } else {
            self.log.end.get_or_insert(End::Left);
            node.leave();
        }
    }

    fn take(&mut self, now: Time, event: Event) {
        if let Event::Disconnected { reason } = event
            && self.comes_back(reason)
        {
            return;
        }
        let hosts = self.driver.node().is_host();
        // Where nobody else may host, nobody elects.
        let terms = self.driver.node().terms().filter(|terms| terms.has_heir());
        let electors = terms.map(|terms| terms.roster().voter_count());
        let heirs = terms.map_or(0, |terms| {
            let members = terms.roster().members.iter();
            members.filter(|one| one.can_host).count().saturating_sub(1)
        });
        let players = self.driver.node().roster().players();
        let moment = Moment {
            now,
            electors,
            own: self.driver.node().session().member,
            given: self.driver.player().sampled(),
            address: self.host_address(),
            players,
            host: self.driver.node().host_member(),
            may_be_left: hosts && heirs == 1 && electors.is_some_and(|voters| voters <= 2),
        };
        if let Event::Inspected(inspection) = event {
            if let Some(inspector) = &mut self.inspector {
                inspector.accounts.take(*inspection);
            }
            return;
        }
        self.log.take(moment, event);
    }

    /// Takes the session up again if the link was lost and this node may connect once more. Where
    /// the link is encrypted, the host has given it the right to.
    fn comes_back(&mut self, reason: DisconnectReason) -> bool {
        let lost = matches!(
            reason,
            DisconnectReason::Silence | DisconnectReason::PathClosed(_)
        );
        let Some((old, address)) = self.way else {
            return false;
        };
        if !lost || self.log.end.is_some() || self.log.returns >= RETURNS_MAX {
            return false;
        }
        let now = self.now();
        // The old path closes first.
        self.driver.transmit(now, &mut self.link);
        let Ok(path) = self.link.inner_mut().rejoin(old) else {
            return false;
        };
        self.way = Some((path, address));
        self.log.returns += 1;
        self.log.news.push(format!(
            "lost the host; coming back (attempt {} of {RETURNS_MAX})",
            self.log.returns
        ));
        self.driver.node_mut().rejoin(now, path);
        true
    }

    /// Remembers how the present host is reached: the way back, should that path be lost.
    fn note_way(&mut self) {
        let path = self.driver.node().host_path();
        if let Some(path) = path.filter(|&path| self.way.is_none_or(|(known, _)| known != path))
            && let Some(address) = self.link.inner().remote_addr(path)
        {
            self.way = Some((path, address));
        }
    }

    fn host_address(&self) -> Option<SocketAddr> {
        self.way.map(|(_, address)| address)
    }
}

/// A file in the system's folder for temporary files, for a replay that nobody named.
#[must_use]
pub fn temporary_replay(seed: u64) -> PathBuf {
    let name = format!("arena-{seed}-{}.phxr", std::process::id());
    std::env::temp_dir().join(name)
}
