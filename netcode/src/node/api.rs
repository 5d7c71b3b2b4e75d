//! What a node asks of its driver, and what it tells the game.

use crate::id::{MemberId, NetId, SessionId, Slot, Term};
use crate::input::InputFrame;
use crate::migration::{HandoverFailure, Quorum};
use crate::node::audience::Inspection;
use crate::session::close::CloseReason;
use crate::session::config::ResumeToken;
use crate::session::handshake::ByeReason;
use crate::session::messages::Channel;
use crate::session::roster::Member;
use crate::simulation::StepKind;
use crate::state::{Patch, Snapshot};
use crate::tick::{Tick, TickRate};

/// The session that a node takes part in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionInfo {
    /// Its identity.
    pub session: SessionId,
    /// Its hosting period.
    pub term: Term,
    /// This node's identity in it.
    pub member: MemberId,
    /// This node's slot, if it plays.
    pub slot: Option<Slot>,
    /// Whether this node hosts. In state-sync mode only the host's state is the session's own.
    pub hosts: bool,
    /// Slots of the session.
    pub slots: u8,
    /// Seed of the state that this node begins with. On a client in state-sync mode it is
    /// `public_seed`: the host keeps its own to itself, so that nobody can foresee what it draws.
    pub seed: u64,
    /// A number that all nodes of the session know. It follows from the host's seed by
    /// [`public_seed`](crate::hash::public_seed), one way.
    pub public_seed: u64,
    /// Bytes of one input.
    pub input_bytes: u8,
    /// Ticks per second.
    pub tick_rate: TickRate,
    /// Captured states that the driver keeps.
    pub images: u32,
    /// Ticks between two state hashes; 0 for none.
    pub desync_interval: u32,
}

/// What the driver must do, in order.
#[derive(Debug)]
pub enum Request<'a> {
    /// Make the initial state of this session (tick 0).
    Begin(&'a SessionInfo),
    /// Sample the local input; answer with [`Node::submit_input`](crate::node::Node::submit_input).
    Sample {
        /// The tick on which the input will act.
        tick: Tick,
    },
    /// Run one tick.
    Step {
        /// Its inputs.
        frame: &'a InputFrame,
        /// Whether it runs for the first time.
        kind: StepKind,
    },
    /// Save the current state as that of `tick`, for up to `images` ticks.
    Capture {
        /// The current tick.
        tick: Tick,
    },
    /// Return to the state that was saved for `tick`. If it is not there, answer with
    /// [`Node::commit_restore`](crate::node::Node::commit_restore); the steps that follow would run
    /// on a wrong state.
    Restore {
        /// The tick.
        tick: Tick,
    },
    /// Hash the state at `tick`, current or saved; answer with
    /// [`Node::commit_hash`](crate::node::Node::commit_hash).
    Hash {
        /// The tick.
        tick: Tick,
    },
    /// Export the state at `tick`, current or saved, as an encoded snapshot; answer with
    /// [`Node::commit_snapshot`](crate::node::Node::commit_snapshot).
    Export {
        /// The tick.
        tick: Tick,
    },
    /// Take over this encoded snapshot; answer with
    /// [`Node::commit_import`](crate::node::Node::commit_import).
    Import {
        /// The encoded snapshot.
        bytes: &'a [u8],
    },
    /// State-sync: publish the current state; answer with
    /// [`Node::commit_publish`](crate::node::Node::commit_publish).
    Publish {
        /// The current tick.
        tick: Tick,
    },
    /// State-sync: publish the entities of `slot` in the current state, which is predicted; answer
    /// with [`Node::commit_owned`](crate::node::Node::commit_owned).
    PublishOwned {
        /// The current tick.
        tick: Tick,
        /// Whose entities.
        slot: Slot,
    },
    /// State-sync: take over what the host says has changed; answer with
    /// [`Node::commit_patch`](crate::node::Node::commit_patch).
    Patch(&'a Patch),
    /// State-sync, on a host with standbys: hash the current state, and capture all of it if that
    /// is asked for; answer with [`Node::commit_authority`](crate::node::Node::commit_authority).
    Authority {
        /// The current tick.
        tick: Tick,
        /// Whether the state itself is needed.
        needs_state: bool,
    },
    /// State-sync, on a standby: a second simulation, which is an authority over all of the state,
    /// takes over this state of the host; answer with
    /// [`Node::commit_stand_by`](crate::node::Node::commit_stand_by).
    StandByFrom(&'a Snapshot),
    /// State-sync, on a standby: the second simulation runs the host's next tick; answer with
    /// [`Node::commit_stand_by_step`](crate::node::Node::commit_stand_by_step).
    StandByStep {
        /// The tick's inputs.
        frame: &'a InputFrame,
        /// What players saw, for queries that the host answers for them: see
        /// [`Simulation::seen`](crate::simulation::Simulation::seen).
        seen: &'a [(Slot, u32)],
        /// Whether the hash of the state is needed.
        wants_hash: bool,
        /// Whether the host tells clients of this state: if it is the host's, answer also with
        /// [`Node::commit_stand_by_publish`](crate::node::Node::commit_stand_by_publish).
        publishes: bool,
    },
    /// State-sync, on a standby that becomes the host: the second simulation, or the newest state of
    /// the host, is the state of the session from now on. If it is not there, answer with
    /// [`Node::commit_restore`](crate::node::Node::commit_restore).
    Promote {
        /// The tick of the state.
        tick: Tick,
        /// The term that begins.
        term: Term,
        /// The state, if no second simulation runs.
        state: Option<&'a Snapshot>,
        /// The states before it, oldest first, as far as clients may see back: to be imported before,
        /// so that queries for what players saw have an answer.
        past: Vec<&'a Snapshot>,
    },
    /// State-sync: the player of `slot` sees others as they were so many ticks before its inputs
    /// act.
    Seen {
        /// The player.
        slot: Slot,
        /// Ticks, at most the session's `rewind_ticks_max`.
        behind_ticks: u32,
    },
    /// State-sync: publish the entities that `slot` decides in the current state; answer with
    /// [`Node::commit_decided`](crate::node::Node::commit_decided).
    PublishDecided {
        /// The current tick.
        tick: Tick,
        /// Who decides.
        slot: Slot,
    },
    /// State-sync: overwrite these rows in the current state, by
    /// [`Simulation::overwrite`](crate::simulation::Simulation::overwrite).
    Overwrite(&'a Patch),
    /// State-sync: a client claims this of an entity that it decides; answer with
    /// [`Node::commit_claim`](crate::node::Node::commit_claim).
    Claim {
        /// Who claims.
        slot: Slot,
        /// The entity.
        id: NetId,
        /// Its rows.
        patch: &'a Patch,
    },
}

/// What happened. A game may ignore all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// This client is in the session from now on, or again: with a new link to its host. Messages
    /// that the link before had not brought are lost.
    Welcomed {
        /// The session.
        info: SessionInfo,
        /// Proof for a later join that this member was here.
        resume: ResumeToken,
    },
    /// The host did not accept this client.
    Refused {
        /// Why, as a sentence for people.
        reason: String,
        /// What differs in the registered components, line by line, where that was the reason.
        differences: Vec<String>,
    },
    /// This client never got in: the host did not answer, or the path did not come up.
    JoinFailed {
        /// Why.
        reason: CloseReason,
    },
    /// A member joined, or something about it changed.
    Member(Member),
    /// A member is gone.
    Left {
        /// Who.
        member: Member,
        /// Why.
        reason: ByeReason,
    },
    /// The first tick is about to run.
    Started,
    /// This node's slot takes part from this tick on.
    Activated {
        /// The tick.
        tick: Tick,
    },
    /// The next tick cannot run: inputs of these slots are missing.
    Stalled {
        /// The tick.
        tick: Tick,
        /// Mask of the slots.
        slots: u64,
    },
    /// Ticks run again after a stall.
    Resumed {
        /// How long it lasted, in microseconds.
        stalled_us: u64,
    },
    /// An input of this node came too late; another one acted in its place.
    InputReplaced {
        /// The tick on which it should have acted.
        tick: Tick,
    },
    /// A client said something of an entity, and the host ignored it: told at the host, and to the
    /// client. At most once per slot and second; the host's statistics count all.
    ClaimRefused {
        /// Whose client.
        slot: Slot,
        /// The entity.
        entity: NetId,
        /// Whether the client does not decide the entity; else the game's rules forbid the values.
        is_foreign: bool,
    },
    /// What a client was sent, while [`Node::inspect`](crate::node::Node::inspect) is on: once per
    /// second, and when its link ends.
    Inspected(Box<Inspection>),
    /// A message of the game.
    Message {
        /// Who sent it.
        from: MemberId,
        /// Over which channel.
        channel: Channel,
        /// Its bytes.
        bytes: Vec<u8>,
    },
    /// The host is silent for longer than it should be. If enough members find that, they elect
    /// another.
    HostSuspected {
        /// The host.
        member: MemberId,
    },
    /// The host was only late.
    HostHeardAgain {
        /// The host.
        member: MemberId,
    },
    /// The path to the host has ended, and no other host is known. Where hosting may move, the link
    /// looks for a way back to any member: [`Welcomed`](Event::Welcomed) or
    /// [`HostChanged`](Event::HostChanged) says that it has found one,
    /// [`Disconnected`](Event::Disconnected) that it has not.
    HostLost {
        /// The host.
        member: MemberId,
    },
    /// This node wants to host, or has voted for a member that does.
    Electing {
        /// Who would host.
        member: MemberId,
        /// In which term.
        term: Term,
    },
    /// This host hears too few members, and does nothing in the session's name until it hears them
    /// again: they may be about to elect another.
    Frozen,
    /// This node hears no host that may act, and too few of those who vote to have one: the session
    /// stands still until more are heard. Told after a second and a half without a host, and again
    /// when the numbers change; [`Node::quorum`](crate::node::Node::quorum) has them at any time. After
    /// [`HostPolicy::give_up_after_us`](crate::session::hosting::HostPolicy::give_up_after_us) this
    /// node gives up.
    NoMajority(Quorum),
    /// The host is silent, and nobody else in the session may host: it stands still until the host is
    /// heard again, which may only have slept. Told as [`NoMajority`](Event::NoMajority) is, with the
    /// same patience before this node gives up.
    NobodyMayHost {
        /// Who is waited for.
        host: MemberId,
    },
    /// This host goes on.
    Thawed,
    /// This host stays, although it was to hand over.
    HandoverAborted {
        /// To whom.
        member: MemberId,
        /// Why.
        reason: HandoverFailure,
    },
    /// A host was elected, but those who held all that was promised to be safe are gone: some of it
    /// may be lost. Every member that follows is told; [`HostChanged`](Event::HostChanged) says whom.
    DataLossPossible {
        /// The term.
        term: Term,
    },
    /// This node goes on in a session apart from the one that it was in: alone, as its host, or along with
    /// a member that does, if it has no vote and heard nobody else. [`HostChanged`](Event::HostChanged)
    /// says with whom.
    Forked {
        /// The new session.
        session: SessionId,
    },
    /// This member plays on in another session: since a fork there are two. Told to those who fork
    /// when they hear the others, and to the others when they hear that, once per member; only while
    /// both keep the other's place (`resume_us`), so that who sleeps for longer is not told.
    Apart {
        /// Who.
        member: MemberId,
        /// Its session.
        session: SessionId,
        /// The last tick that both sessions have.
        last: Tick,
    },
    /// Another member hosts from now on, or the host has begun a new term.
    HostChanged {
        /// Who hosts.
        member: MemberId,
        /// The term.
        term: Term,
    },
    /// These ticks ran here on the word of a host of an earlier term, and were ordered anew since:
    /// they did not happen.
    LostTicks {
        /// The first.
        first: Tick,
        /// The last.
        last: Tick,
    },
    /// Two nodes have different states at the same tick.
    Desync(DesyncReport),
    /// This node has taken over the session's state after it had diverged.
    Healed {
        /// The tick of that state.
        tick: Tick,
    },
    /// The last tick has run.
    Ended {
        /// The tick.
        tick: Tick,
    },
    /// The session is over for this node.
    Disconnected {
        /// Why.
        reason: DisconnectReason,
    },
}

/// What differs, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesyncReport {
    /// The first tick that differs; the first compared one where the one before is known no more.
    pub tick: Tick,
    /// Who diverged: the minority, or the one that is not the host where there is none.
    pub member: MemberId,
    /// Components, entities, fields and both values, line by line; the host's value first. Empty
    /// where the state at that tick is known no more.
    pub differences: Vec<String>,
}

/// Why a node is not in a session any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DisconnectReason {
    /// The host said goodbye.
    #[error("{0}")]
    Bye(ByeReason),
    /// Nothing was heard for too long.
    #[error("nothing was heard from the host for too long")]
    Silence,
    /// This node hosted, and heard too few of those who may elect another host for so long that they
    /// do without it.
    #[error("this node hosted, and heard too few others for too long")]
    Abandoned,
    /// Too few of those who elect a host were heard for as long as this node's policy waits.
    #[error(
        "of {} members that elect a host {} were heard, and it takes {}",
        .0.voters, .0.heard, .0.needed
    )]
    NoMajority(Quorum),
    /// The host was silent for as long as this node's policy waits, and nobody else may host.
    #[error("the host was not heard for too long, and nobody else here may host")]
    NobodyMayHost,
    /// The path is gone.
    #[error("{0}")]
    PathClosed(CloseReason),
    /// The state that the host sent cannot be used.
    #[error("the state that the host sent cannot be used")]
    BadState,
    /// This node left.
    #[error("left")]
    Left,
}
