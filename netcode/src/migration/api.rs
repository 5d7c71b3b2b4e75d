//! What the term machine asks of its node, and what it tells it.

use crate::id::{MemberId, Term};
use crate::migration::certificate::{Certificate, ElectionKind};
use crate::tick::Tick;

/// What this node holds of the session, as the term machine must know it.
///
/// All answers are about the history of the term that this node was last told to follow or host.
/// Decisions must be carried out before the next call that asks.
pub trait Authority {
    /// The newest tick whose record is held, with all before it; on the host the newest tick that
    /// ran. A record is what a new host needs of a tick: in lockstep the final input frame, in
    /// state-sync a state of the authority stream.
    fn newest(&self) -> Tick;

    /// Whether this node could host: it has a state to go on from. Whoever has none stands in no
    /// election, however long nobody else does.
    fn may_host(&self) -> bool {
        true
    }

    /// The highest tick that was shown to this node's player, or sent to others as authoritative.
    fn shown(&self) -> Tick;

    /// Appends to `out` at most `room` bytes that bring a holder of the records up to `after` as
    /// far as they can, and says how far: a tick from `after` to [`Authority::newest`].
    fn records_after(&self, after: Tick, room: usize, out: &mut Vec<u8>) -> Tick;

    /// The combined state hash after `tick`, if it is known. A target of a handover that finds
    /// another than the host's refuses.
    fn hash(&self, tick: Tick) -> Option<u64>;
}

/// What a node that was elected begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Takeover {
    /// The new term.
    pub term: Term,
    /// How it came to be.
    pub kind: ElectionKind,
    /// Who hosted before; this node itself if it stood again.
    pub before: MemberId,
    /// The last tick of the history so far that counts. This node holds it already, or does with
    /// `records`.
    pub base: Tick,
    /// The first tick that may be shown and sent as authoritative. Ticks from `base` to there are
    /// run before, from inputs that are sent again.
    pub start: Tick,
    /// Bytes by [`Authority::records_after`] of a voter that held more than this node; else empty.
    /// If they cannot be used, [`Authority::newest`] stays below `base`, or
    /// [`Authority::may_host`] says no, and the machine gives the term up.
    pub records: Vec<u8>,
    /// Who gave them.
    pub records_from: Option<MemberId>,
    /// The votes.
    pub certificate: Certificate,
    /// Whether what was promised to be safe may be lost: no standby was left.
    pub data_loss_possible: bool,
}

/// What the node must do, in order, before anything else is asked of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Host. If this node hosts already ([`ElectionKind::Incumbent`]), only the term changes.
    /// Then call [`Terms::handle_timeout`](super::Terms::handle_timeout) at once: it announces.
    BecomeHost(Box<Takeover>),
    /// Follow this host. Records beyond `keep` are no part of the history: drop them.
    Follow {
        /// The term.
        term: Term,
        /// Its host.
        host: MemberId,
        /// How it came to be.
        kind: ElectionKind,
        /// The last tick that the term took over.
        base: Tick,
        /// The first tick that it shows.
        start: Tick,
        /// The newest tick of this node's records that the term's history has, too, or `None` if
        /// nobody can tell: then none counts.
        keep: Option<Tick>,
    },
    /// Host: emit nothing authoritative: no state, no input frames, no acks of inputs.
    Freeze,
    /// Host: go on.
    Thaw,
    /// This node hosts no more, for ever in this term: another does, or it has handed over. A
    /// [`Decision::Follow`] comes as soon as it is known to whom.
    StepDown {
        /// The term that is over for this node.
        term: Term,
        /// The last tick of it that counts, if that is known now: after a handover all.
        last: Option<Tick>,
    },
    /// No host can be elected, and the policy says to go on alone: in a new session, with a new
    /// session id. The machine is over; the new session needs a new one.
    Fork {
        /// The term to begin with.
        term: Term,
        /// The last tick that both sessions have in common.
        base: Tick,
        /// The first tick to show.
        start: Tick,
    },
}

/// What happened. A game may ignore all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TermEvent {
    /// The host is silent.
    HostSuspected {
        /// Who.
        host: MemberId,
    },
    /// It was only late.
    SuspicionEnded {
        /// Who.
        host: MemberId,
    },
    /// This node asks for votes, or gave its vote.
    Electing {
        /// For whom.
        candidate: MemberId,
        /// For which term.
        term: Term,
    },
    /// Another term began.
    HostChanged {
        /// The term.
        term: Term,
        /// Its host; the same as before if it stood again.
        host: MemberId,
        /// Who hosted before.
        before: MemberId,
        /// How it came to be.
        kind: ElectionKind,
        /// Whether what was promised to be safe may be lost.
        data_loss_possible: bool,
    },
    /// Ticks that this node held are no part of the history.
    LostTicks {
        /// The first.
        first: Tick,
        /// The last.
        last: Tick,
    },
    /// This host may not act: too few voters answer.
    Frozen,
    /// This host acts again.
    Resumed,
    /// The handover will not be; the host stays.
    HandoverAborted {
        /// To whom.
        target: MemberId,
        /// Why.
        reason: HandoverFailure,
    },
    /// Host: a silent voter has lost its vote.
    Evicted {
        /// Who.
        member: MemberId,
    },
    /// The standbys have changed.
    Standbys {
        /// Who succeeds, in order.
        standbys: Vec<MemberId>,
    },
    /// This node goes on in a session of its own.
    Forked,
}

/// Who is there of those who elect a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quorum {
    /// Members that vote.
    pub voters: u16,
    /// Those that were heard lately, this node included if it votes.
    pub heard: u16,
    /// As many it takes: to elect a host, or on a host to go on as such.
    pub needed: u16,
}

impl Quorum {
    /// Whether enough are there.
    #[must_use]
    pub const fn is_there(&self) -> bool {
        self.heard >= self.needed
    }
}

/// Why a handover cannot begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandoverError {
    /// This node does not host, or may not act now.
    #[error("this node does not host, or may not act now")]
    NotHost,
    /// The member is not in the roster, or cannot host.
    #[error("member {} cannot host", .0.0)]
    CannotHost(MemberId),
    /// There is nobody who could take over.
    #[error("nobody can take over")]
    Nobody,
    /// Another handover is under way.
    #[error("a handover is under way")]
    UnderWay,
}

/// Why a handover came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandoverFailure {
    /// The target did not become ready in time.
    #[error("the target did not become ready in time")]
    NotReady,
    /// The target refused: its state differs, or it left.
    #[error("the target refused")]
    Refused,
    /// This host lost its lease or its term before.
    #[error("the host lost its lease before")]
    LostLease,
    /// The game called it off.
    #[error("called off")]
    CalledOff,
}

/// Counters of a term machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TermsStatistics {
    /// Messages that were handled.
    pub handled: u64,
    /// Messages that were ignored: of nobody known, of an older term, or out of place.
    pub ignored: u64,
    /// Messages that were given to be sent.
    pub sent: u64,
    /// Messages that were dropped because too many waited.
    pub overflowed: u64,
    /// Elections that this node stood for.
    pub stood: u64,
    /// Votes that it gave.
    pub voted: u64,
    /// Terms that it has seen begin.
    pub terms: u64,
    /// Times that it froze as host.
    pub frozen: u64,
}
