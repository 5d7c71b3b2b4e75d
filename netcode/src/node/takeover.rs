//! Another host: how a node becomes it, follows it, or makes room for it.
//!
//! The decision who hosts is taken elsewhere; here a node is told of it:
//!
//! 1. Whoever votes for a candidate, or hears that one will host, [prepares](Node::prepare_for).
//! 2. The candidate [takes in](Node::ingest_records) the frames that its voters hold beyond its own
//!    [position](Node::position), and then [takes over](Node::take_over). All that was ordered
//!    beyond that position is void: it is ordered anew.
//! 3. Whoever has prepared is answered at once, and goes on with what it sampled since.
//! 4. An old host that comes back [steps down](Node::step_down).
//!
//! A planned handover is the same, with an old host that orders up to an [agreed
//! tick](Node::hand_over_at) and members that take its frames until then.
//!
//! Messages of the game that were not acked when the host changed are lost, as with any lost link;
//! control messages begin anew with the welcome.

use std::collections::BTreeMap;

use super::{Node, Role};
use crate::id::{MemberId, Path, Term};
use crate::limits::INPUT_HISTORY_TICKS_MAX;
use crate::lockstep::{RecordsError, read_records, write_records};
use crate::node::client::Client;
use crate::node::core::Todo;
use crate::node::core::term_log::TermNews;
use crate::node::host::Host;
use crate::session::handshake::TermStart;
use crate::tick::Tick;
use crate::time::Time;

/// A path to a member that was there before it was needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Warm {
    /// The path.
    pub path: Path,
    /// Its round trip in microseconds, if measured.
    pub rtt_us: Option<u64>,
}

/// Whom a member follows next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prepare {
    /// Who will host.
    pub candidate: MemberId,
    /// In which term, or a later one.
    pub term: Term,
    /// How to reach it; `None` if it is this node.
    pub warm: Option<Warm>,
    /// Whether the present host is followed until then: in a planned handover. Otherwise nothing
    /// more is taken from it.
    pub keeps_frames: bool,
}

/// A term that this node hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakeOver {
    /// The term.
    pub term: Term,
    /// The last tick that stands: this node's position.
    pub base: Tick,
    /// Whether the old host has handed over.
    pub is_planned: bool,
    /// Over which paths members are known to be reached.
    pub paths: BTreeMap<MemberId, Warm>,
    /// Members that nobody need wait for, the old host first of all.
    pub lost: Vec<MemberId>,
}

/// Whom a host makes room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepDown {
    /// The new host.
    pub host: MemberId,
    /// How to reach it.
    pub warm: Warm,
    /// The term that it hosts.
    pub term: Term,
}

/// Why a node cannot host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TakeOverError {
    /// It is not in a session whose hosting may move, or in state-sync mode.
    #[error("hosting of this session cannot move to this node")]
    NotAllowed,
    /// It has no state yet, or has lost it.
    #[error("this node does not have the state of the session")]
    NoState,
    /// It does not hold all input frames up to the base, or is beyond it.
    #[error("this node is at tick {position}, the new term begins after tick {base}")]
    Position {
        /// Its newest final tick.
        position: Tick,
        /// The tick to begin after.
        base: Tick,
    },
    /// The term is not a later one.
    #[error("term {} is not after term {}", asked.0, present.0)]
    Term {
        /// The term to begin.
        asked: Term,
        /// That which this node is in.
        present: Term,
    },
}

impl Node {
    /// Who hosts, as far as this node follows.
    #[must_use]
    pub const fn host_member(&self) -> MemberId {
        match &self.role {
            Role::Host(_) => self.core.info.member,
            Role::Client(client) => client.host,
        }
    }

    /// The path to the host that this node follows; `None` on a host. A program that takes the
    /// session up again after that path is lost goes back over it, or to the address that it led to.
    #[must_use]
    pub fn host_path(&self) -> Option<Path> {
        match &self.role {
            Role::Host(_) => None,
            Role::Client(client) => Some(client.path()),
        }
    }

    /// The term that this node is in, and the newest tick whose input frame it holds, as it holds
    /// all before. Of a client in state-sync mode, the newest tick whose state it holds as a standby.
    #[must_use]
    pub fn position(&self) -> (Term, Tick) {
        let tick = match &self.role {
            Role::Client(client) if self.core.follows => client.standby_position(),
            Role::Client(_) | Role::Host(_) => self.core.final_tick(),
        };
        (self.core.info.term, tick)
    }

    /// Whether this node could host: it has the state, and knows the session's settings.
    #[must_use]
    pub fn can_host(&self) -> bool {
        match &self.role {
            Role::Host(host) => host.may_move(),
            Role::Client(client) => client.may_host(&self.core).is_ok(),
        }
    }

    /// Makes this member follow another host as soon as that one answers, or keep still if it is
    /// the candidate itself. Without effect on a host, and where this node follows it already.
    pub fn prepare_for(&mut self, now: Time, prepare: Prepare) {
        if let Role::Client(client) = &mut self.role {
            client.prepare_for(&mut self.core, now, prepare);
        }
    }

    /// Takes [`Node::prepare_for`] back: the present host stays.
    pub fn withdraw(&mut self, now: Time) {
        if let Role::Client(client) = &mut self.role {
            client.withdraw(now);
        }
    }

    /// Appends the input frames after `after` that this node holds, at most `room` bytes, and says
    /// up to which tick they reach: if that is not this node's position, the rest is another piece.
    ///
    /// # Errors
    /// If they are known no more, or none fits.
    pub fn records_after(
        &self,
        after: Tick,
        room: usize,
        out: &mut Vec<u8>,
    ) -> Result<Tick, RecordsError> {
        if self.core.follows {
            return Err(RecordsError::NoFrames);
        }
        let (term, newest) = self.position();
        write_records(term, after, newest, &self.core.known, room, out)
    }

    /// Takes in what [`Node::records_after`] wrote on a member of the same term, and says up to
    /// which tick this node holds all input frames now. In state-sync mode, what a standby held; its
    /// ticks run afterwards. Whatever the bytes are.
    ///
    /// # Errors
    /// If they are of another term, do not connect to what is here, or mean nothing.
    pub fn ingest_records(&mut self, now: Time, bytes: &[u8]) -> Result<Tick, RecordsError> {
        let Role::Client(client) = &mut self.role else {
            return Err(RecordsError::NoFrames);
        };
        if self.core.follows {
            let standby = client.standby.as_mut().ok_or(RecordsError::NoFrames)?;
            standby.take_records(&mut self.core, bytes);
            return Ok(client.standby_position());
        }
        // As with frames of a host: what has not run must not be pushed out of history.
        let settled = self.core.timeline.settled();
        let newest_max = settled.plus(INPUT_HISTORY_TICKS_MAX - 64);
        read_records(self.core.info.term, bytes, newest_max, &mut self.core.known)?;
        client.advance(&mut self.core, now);
        Ok(self.core.final_tick())
    }

    /// Hosts the session from now on: as a client, or as a host that was elected again. All that
    /// was ordered beyond the base is void; members that have prepared are answered.
    ///
    /// # Errors
    /// If this node cannot; nothing has changed then.
    pub fn take_over(&mut self, now: Time, take_over: &TakeOver) -> Result<(), TakeOverError> {
        let present = self.core.info.term;
        if take_over.term <= present {
            return Err(TakeOverError::Term {
                asked: take_over.term,
                present,
            });
        }
        let base = take_over.base;
        let (_, position) = self.position();
        // A host that stood still took in inputs that nobody has seen in a frame; it orders them anew.
        let is_unseen = self.is_host() && self.core.timeline.settled() <= base;
        if position < base || position > base && !is_unseen {
            return Err(TakeOverError::Position { position, base });
        }
        match &mut self.role {
            Role::Host(host) => {
                if !host.may_move() {
                    return Err(TakeOverError::NotAllowed);
                }
                begin(&mut self.core, take_over);
                host.renew(&mut self.core, now, take_over);
            }
            Role::Client(client) => {
                client.may_host(&self.core)?;
                if self.core.follows {
                    client.leave_following(&mut self.core, base)?;
                    self.promoted = client.standby.take();
                    let todo = &mut self.core.todo;
                    todo.push_back(Todo::Promote(base, take_over.term));
                    // Where ticks ran here, that is known already.
                    let seen = self.promoted.as_ref().map(|standby| standby.newest_seen());
                    let seen = seen.into_iter().flatten();
                    todo.extend(seen.map(|(slot, ticks)| Todo::Seen(slot, ticks)));
                }
                begin(&mut self.core, take_over);
                let host = Host::succeed(client, &mut self.core, now, take_over);
                self.role = Role::Host(Box::new(host));
            }
        }
        self.core.report(crate::node::api::Event::HostChanged {
            member: self.core.info.member,
            term: take_over.term,
        });
        self.core.info.hosts = true;
        if let Role::Host(host) = &mut self.role {
            if let (Some(audience), Some(standby)) = (&mut host.audience, &mut self.promoted)
                && let Some(publisher) = standby.take_publisher()
            {
                audience.go_on(publisher);
            }
            host.answer_returns(&mut self.core, now);
            host.advance(&mut self.core, now);
        }
        Ok(())
    }

    /// Makes room for another host, and follows it. Without effect on a client.
    pub fn step_down(&mut self, now: Time, step_down: StepDown) {
        let Role::Host(host) = &mut self.role else {
            return;
        };
        if !host.may_move() {
            return;
        }
        let mut client = Client::after_hosting(host, &mut self.core, now, &step_down);
        client.prepare_for(
            &mut self.core,
            now,
            Prepare {
                candidate: step_down.host,
                term: step_down.term,
                warm: Some(step_down.warm),
                keeps_frames: false,
            },
        );
        self.core.info.hosts = false;
        self.role = Role::Client(Box::new(client));
    }

    /// Orders input frames up to a tick and then none any more in this term, so that another
    /// member can host from there. Returns the tick: `tick`, or the first that nobody may have
    /// settled yet. `None` on a client.
    pub fn hand_over_at(&mut self, tick: Tick) -> Option<Tick> {
        match &mut self.role {
            Role::Host(host) => Some(host.hand_over_at(&self.core, tick)),
            Role::Client(_) => None,
        }
    }

    /// The last tick that this host orders, once all up to it is ordered.
    #[must_use]
    pub fn has_handed_over(&self) -> Option<Tick> {
        match &self.role {
            Role::Host(host) => host
                .hands_over_at()
                .filter(|&at| self.core.final_tick() >= at),
            Role::Client(_) => None,
        }
    }

    /// Goes on ordering input frames: the handover is off.
    pub fn cancel_handover(&mut self) {
        if let Role::Host(host) = &mut self.role {
            host.cancel_handover();
        }
    }

    /// Tells a host over which path a member will ask it, should it have lost its link. Without
    /// effect on a client.
    pub fn meet(&mut self, member: MemberId, warm: Warm) {
        if let Role::Host(host) = &mut self.role {
            host.meet(member, warm.path);
        }
    }

    /// Keeps a host from saying anything with authority, or lets it go on. Time that is lost so is
    /// made up for within the limits of catching up.
    pub const fn freeze(&mut self, is_frozen: bool) {
        if let Role::Host(host) = &mut self.role {
            host.freeze(is_frozen);
        }
    }

    /// What the recorder has not seen yet of terms.
    pub(crate) fn poll_term_news(&mut self) -> Option<TermNews> {
        self.core.terms.poll_news()
    }
}

/// The new term begins.
fn begin(core: &mut crate::node::core::Core, take_over: &TakeOver) {
    core.void_after(take_over.base);
    core.begin_term(TermStart {
        term: take_over.term.0,
        base: take_over.base.number(),
        host: core.info.member.0,
        is_planned: take_over.is_planned,
    });
}
