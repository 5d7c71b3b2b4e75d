//! What members tell each other about hosting. The bytes are in `codec.rs` and `docs/WIRE.md`.

use crate::id::{MemberId, SessionId, Term};
use crate::migration::certificate::{Certificate, ElectionKind};
use crate::migration::lineage::Position;
use crate::migration::roster::TermRoster;
use crate::tick::Tick;

/// A message between two members; at most
/// [`TERM_MESSAGE_BYTES_MAX`](crate::limits::TERM_MESSAGE_BYTES_MAX) bytes. All are repeated or
/// may be lost; none needs an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TermMessage {
    /// Host to all: it is there.
    Heartbeat {
        /// Its term.
        term: Term,
        /// Number of this heartbeat, vote request or announcement of the sender.
        seq: u32,
        /// How long whoever echoes this will not vote for another, less a margin, in
        /// milliseconds.
        suspect_ms: u16,
        /// Whether the sender may not act: it lacks a lease.
        is_frozen: bool,
        /// The newest tick that it ran.
        tick: Tick,
        /// The newest tick that is safe.
        safe: Tick,
    },
    /// Answer to a heartbeat or an announcement.
    Echo {
        /// The term of the host.
        term: Term,
        /// The number of what it answers.
        seq: u32,
        /// What the sender holds.
        position: Position,
        /// The version of the term's roster that it holds.
        version: u32,
    },
    /// To the host, each second and when others came into reach: how well the sender would host.
    Report {
        /// The members besides the host that it hears and that hear it, over warm links, lately; by
        /// identity. Those that neither vote nor host nor want to are left out.
        reached: Vec<MemberId>,
        /// Median of its round trips to the others, in microseconds.
        median_us: u32,
        /// 95th percentile of them, in microseconds.
        p95_us: u32,
        /// Times that it stalled in the last minute.
        stalls: u16,
        /// Mean time that a tick takes it, in microseconds.
        tick_us: u32,
    },
    /// To all voters and standbys: the host of the roster is silent.
    Suspect {
        /// The highest term that the sender has promised anything for.
        promised: Term,
        /// What it holds.
        position: Position,
        /// The newest roster that it knows.
        roster: TermRoster,
    },
    /// To all voters: elect the sender.
    VoteRequest {
        /// For this term.
        term: Term,
        /// Number among the sender's, as in a heartbeat.
        seq: u32,
        /// As in a heartbeat.
        suspect_ms: u16,
        /// What the election is about.
        kind: ElectionKind,
        /// What the sender holds.
        position: Position,
        /// The newest roster that it knows.
        roster: TermRoster,
    },
    /// Answer to a vote request: granted.
    Vote {
        /// The term asked for.
        term: Term,
        /// The number of the request.
        seq: u32,
        /// What the voter holds.
        position: Position,
        /// The highest tick that it has shown.
        shown: Tick,
        /// How far the records bring the candidate.
        upto: Tick,
        /// What the voter holds beyond the candidate's position, as far as it fits.
        records: Vec<u8>,
    },
    /// The host of a term to all, until they echo; and anybody to who is behind.
    NewTerm {
        /// Number among the host's, as in a heartbeat; 0 from anybody else.
        seq: u32,
        /// As in a heartbeat.
        suspect_ms: u16,
        /// Why.
        certificate: Certificate,
        /// The term's newest roster.
        roster: TermRoster,
    },
    /// A newer roster of the same term.
    RosterUpdate {
        /// The roster.
        roster: TermRoster,
    },
    /// Answer to what is of an older term than the sender has promised to.
    Stale {
        /// The highest term that the sender has promised anything for.
        promised: Term,
    },
    /// Host to all, repeated: it wants to hand over.
    Prepare {
        /// The term of the target.
        term: Term,
        /// Who takes over.
        target: MemberId,
        /// The first tick of the new term, as planned; it may move.
        switch: Tick,
    },
    /// Target to host, repeated: a quorum has granted, and it is up to date.
    Ready {
        /// The term of the target.
        term: Term,
    },
    /// Host to all, repeated: it has stopped for ever, and the target hosts.
    Commit {
        /// The term of the target.
        term: Term,
        /// Who takes over.
        target: MemberId,
        /// The last tick of the term that ends.
        last: Tick,
        /// The state hash at that tick; 0 if none is known.
        hash: u64,
        /// How far the records bring the target.
        upto: Tick,
        /// To the target: what it may lack of the last ticks, as in a vote.
        records: Vec<u8>,
    },
    /// The handover will not be; or the sender stands no more, and will never host the term.
    Abort {
        /// The term that the target, or the sender, would have had.
        term: Term,
    },
    /// The sender leaves. A host that leaves so has stopped for ever in its term.
    Goodbye {
        /// The term that it was in.
        term: Term,
        /// For whom the sender votes in the term after, if it was the host.
        successor: Option<MemberId>,
        /// What it held.
        position: Position,
        /// The highest tick that it had shown.
        shown: Tick,
    },
    /// The sender goes on alone. Terms do not care: the node tells its game.
    Forked {
        /// In this session.
        session: SessionId,
        /// The last tick that it has in common with the one that it was in.
        last: Tick,
    },
}

impl TermMessage {
    /// Its name, for logs.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Heartbeat { .. } => "Heartbeat",
            Self::Echo { .. } => "Echo",
            Self::Report { .. } => "Report",
            Self::Suspect { .. } => "Suspect",
            Self::VoteRequest { .. } => "VoteRequest",
            Self::Vote { .. } => "Vote",
            Self::NewTerm { .. } => "NewTerm",
            Self::RosterUpdate { .. } => "RosterUpdate",
            Self::Stale { .. } => "Stale",
            Self::Prepare { .. } => "Prepare",
            Self::Ready { .. } => "Ready",
            Self::Commit { .. } => "Commit",
            Self::Abort { .. } => "Abort",
            Self::Goodbye { .. } => "Goodbye",
            Self::Forked { .. } => "Forked",
        }
    }
}
