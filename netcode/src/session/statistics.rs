//! Counters: what arrived, what was dropped and why, what it cost.

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
}

impl DropReason {
    /// Number of reasons.
    pub const COUNT: usize = 10;

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

/// Counters of one peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerStatistics {
    /// Datagrams sent to it.
    pub datagrams_sent: u64,
    /// Bytes of UDP payload sent to it.
    pub bytes_sent: u64,
    /// Datagrams accepted from it.
    pub datagrams_received: u64,
    /// Bytes of UDP payload accepted from it.
    pub bytes_received: u64,
    /// Datagrams from it that were dropped.
    pub drops: Drops,
    /// Our datagrams that it missed, in 1/256, by its own word.
    pub loss_sent: u8,
    /// Inputs of it that were replaced because they were late.
    pub inputs_late: u64,
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
