//! Counters: what arrived, what was dropped and why, what it cost.

use crate::wire::header::kind;

/// Why a datagram was ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum DropReason {
    /// Its bytes are no packet.
    Malformed,
    /// Its tag is of another session, term or time.
    WrongTag,
    /// It arrived before.
    Duplicate,
    /// It is older than the window.
    TooOld,
    /// The tick of its inputs cannot be told.
    UnknownTick,
    /// Its inputs do not follow from what is known here.
    BadBatch,
    /// Its control or message section is malformed.
    BadSection,
    /// It came over a path that takes no part.
    UnknownPath,
    /// Its kind does not belong here.
    Unexpected,
    /// It asks for more than is allowed in a time.
    RateLimited,
    /// Its state cannot be read with what is held here.
    BadState,
    /// It is not from the member that it names.
    NotAuthentic,
}

impl DropReason {
    /// Number of reasons.
    pub const COUNT: usize = 12;

    /// All reasons.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Malformed,
        Self::WrongTag,
        Self::Duplicate,
        Self::TooOld,
        Self::UnknownTick,
        Self::BadBatch,
        Self::BadSection,
        Self::UnknownPath,
        Self::Unexpected,
        Self::RateLimited,
        Self::BadState,
        Self::NotAuthentic,
    ];

    /// A name for tables and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::WrongTag => "wrong_tag",
            Self::Duplicate => "duplicate",
            Self::TooOld => "too_old",
            Self::UnknownTick => "unknown_tick",
            Self::BadBatch => "bad_batch",
            Self::BadSection => "bad_section",
            Self::UnknownPath => "unknown_path",
            Self::Unexpected => "unexpected",
            Self::RateLimited => "rate_limited",
            Self::BadState => "bad_state",
            Self::NotAuthentic => "not_authentic",
        }
    }
}

/// Dropped datagrams by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drops {
    counts: [u64; DropReason::COUNT],
}

impl Drops {
    /// Counts one.
    pub const fn count(&mut self, reason: DropReason) {
        self.counts[reason as usize] += 1;
    }

    /// How many were dropped for `reason`.
    #[must_use]
    pub const fn of(&self, reason: DropReason) -> u64 {
        self.counts[reason as usize]
    }

    /// How many were dropped in all.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// What the bytes of a datagram are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Body {
    /// Hello, Welcome, Refuse, parts of a schema, Bye.
    Handshake,
    /// What opens a tick datagram: sequence numbers, acks, ticks, clocks, hashes, lengths.
    Header,
    /// Input batches.
    Inputs,
    /// Control messages.
    Control,
    /// The game's own messages.
    Messages,
    /// State in state-sync mode.
    State,
    /// Chunks of transfers, and their acks.
    Bulk,
    /// What members say to each other besides, where hosting may move.
    Mesh,
}

impl Body {
    /// Number of bodies.
    pub const COUNT: usize = 8;

    /// All bodies.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Handshake,
        Self::Header,
        Self::Inputs,
        Self::Control,
        Self::Messages,
        Self::State,
        Self::Bulk,
        Self::Mesh,
    ];

    /// A name for tables and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::Header => "header",
            Self::Inputs => "inputs",
            Self::Control => "control",
            Self::Messages => "messages",
            Self::State => "state",
            Self::Bulk => "bulk",
            Self::Mesh => "mesh",
        }
    }

    /// What the whole of a datagram with this first byte is; `None` for a tick datagram, whose
    /// parts are counted one by one.
    pub(crate) const fn of_kind(first: u8) -> Option<Self> {
        match first {
            kind::BULK | kind::BULK_ACK => Some(Self::Bulk),
            kind::MESH | kind::STANDBY | kind::STANDBY_ACK => Some(Self::Mesh),
            _ if first & kind::MASK == kind::MASK => Some(Self::Handshake),
            _ => None,
        }
    }
}

/// Bytes by what they are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BodyBytes {
    counts: [u64; Body::COUNT],
}

impl BodyBytes {
    /// Adds `bytes` to those of `body`.
    pub const fn count(&mut self, body: Body, bytes: usize) {
        self.counts[body as usize] += bytes as u64;
    }

    /// Bytes of `body`.
    #[must_use]
    pub const fn of(&self, body: Body) -> u64 {
        self.counts[body as usize]
    }

    /// The bytes since this account stood at `older`.
    #[must_use]
    pub fn since(&self, older: &Self) -> Self {
        let mut since = *self;
        for (count, before) in since.counts.iter_mut().zip(&older.counts) {
            *count = count.saturating_sub(*before);
        }
        since
    }

    /// Bytes in all.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// Counters of one peer, since its link was accepted; a client's host, since the client began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerStatistics {
    /// Datagrams sent to it.
    pub datagrams_sent: u64,
    /// Bytes of UDP payload sent to it.
    pub bytes_sent: u64,
    /// The same bytes by what they are for.
    pub sent: BodyBytes,
    /// Datagrams accepted from it.
    pub datagrams_received: u64,
    /// Bytes of UDP payload accepted from it.
    pub bytes_received: u64,
    /// The same bytes by what they are for.
    pub received: BodyBytes,
    /// Datagrams from it that were dropped.
    pub drops: Drops,
    /// Our datagrams that it missed, in 1/256, by its own word.
    pub loss_sent: u8,
    /// Inputs of it that were replaced because they were late.
    pub inputs_late: u64,
    /// Stalls of this node during which something of it was missing.
    pub stalls: u64,
}

impl PeerStatistics {
    /// Counts a datagram to the peer that is all of one body.
    pub(crate) fn count_sent(&mut self, body: Body, bytes: usize) {
        self.datagrams_sent += 1;
        self.bytes_sent += bytes as u64;
        self.sent.count(body, bytes);
    }

    /// Counts an accepted datagram that is all of one body.
    pub(crate) fn count_received(&mut self, body: Body, bytes: usize) {
        self.datagrams_received += 1;
        self.bytes_received += bytes as u64;
        self.received.count(body, bytes);
    }
}

/// Counters of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeStatistics {
    /// Ticks that ran for the first time.
    pub ticks: u64,
    /// Ticks that could not run when they were due.
    pub stalls: u64,
    /// Longest time that a tick was late, in microseconds.
    pub longest_stall_us: u64,
    /// Ticks that ran again after a wrong guess.
    pub ticks_again: u64,
    /// Rollbacks.
    pub rollbacks: u64,
    /// Inputs of this node that came too late and were replaced.
    pub inputs_replaced: u64,
    /// Desyncs that were found.
    pub desyncs: u64,
    /// Datagrams sent.
    pub datagrams_sent: u64,
    /// Bytes of UDP payload sent.
    pub bytes_sent: u64,
    /// Datagrams accepted.
    pub datagrams_received: u64,
    /// Bytes of UDP payload accepted.
    pub bytes_received: u64,
    /// Datagrams dropped.
    pub drops: Drops,
}
