//! Control messages: what host and client tell each other now and then, in order, exactly once.

use crate::limits::CONTROL_BYTES_MAX;
use crate::session::roster::MemberRecord;
use crate::wire::bytes::DecodeError;
use crate::wire::codec::{self, Decode, Encode};

/// Hashes that one control message carries, at most.
pub const HASHES_MAX: usize = 40;

/// A control message.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Control {
    /// Host: this member is there, or changed.
    Member(MemberRecord),
    /// Host: this member is gone.
    Gone(u64),
    /// Host: tick 1 is due at this time of the host's clock, in microseconds.
    Start(u64),
    /// Host: the last tick of the session.
    LastTick(u32),
    /// Client: it has the state that it needed, has caught up, and can play.
    Ready,
    /// Host: the client's slot takes part from this tick on.
    Activate(u32),
    /// Host: a transfer begins: number, purpose, tick, bytes, digest.
    Transfer {
        /// Its number.
        id: u16,
        /// What it is for.
        purpose: Purpose,
        /// The tick of the state in it.
        tick: u32,
        /// Its bytes.
        bytes: u32,
        /// XXH3-64 of them.
        digest: u64,
    },
    /// Either end: folded hashes of the ticks after `after`, oldest first, 0 where one is not
    /// known; empty to ask for them up to `upto`.
    Hashes {
        /// The tick before the first.
        after: u32,
        /// The last tick.
        upto: u32,
        /// The hashes.
        hashes: Vec<u32>,
    },
    /// Host: the client's state differs from this tick on; it shall send its state at that tick.
    Diverged {
        /// First tick that differs, as far as known.
        tick: u32,
        /// Whether a state for healing follows.
        heal: bool,
    },
    /// Host: a line of the desync report.
    Difference(String),
    /// Client, in state-sync mode: it cannot make use of what comes; it needs all of the state.
    Reset,
    /// Host, in state-sync mode: inputs of the client came too late. Bit i of `ticks` stands for
    /// the tick `first + i`; bit 0 is set.
    Replaced {
        /// The first tick.
        first: u32,
        /// Mask of the ticks.
        ticks: u64,
    },
    /// Host, in state-sync mode: the last tick has run.
    Final {
        /// The last tick.
        tick: u32,
        /// The combined hash of the host's state.
        state: u64,
        /// The hash of what the client shall hold then.
        interest: u64,
    },
    /// Client, in state-sync mode: its player sees others as they were so many ticks before its
    /// inputs act.
    Behind(u32),
    /// Host, where hosting may move: how to reach a member, or the host itself.
    Peer {
        /// Who.
        member: u64,
        /// The secret of the two: see [`PairKey`](crate::session::mesh::PairKey).
        key: u128,
        /// Over which path.
        route: Route,
    },
    /// Client: it cannot open a path to this member without an invitation. Host: this member asks
    /// for one.
    Invite {
        /// Whom it is asked of, or who asks.
        member: u64,
        /// The key to which it shall be sealed: 32 bytes.
        public_key: Vec<u8>,
    },
    /// A part of an invitation. Client: for this member. Host: from this member.
    Invitation {
        /// For whom, or from whom.
        member: u64,
        /// Which part, from 0.
        part: u8,
        /// Number of parts.
        parts: u8,
        /// Its bytes.
        bytes: Vec<u8>,
    },
    /// Host, in state-sync mode: it ignored what the client said of this entity.
    Denied {
        /// The entity.
        entity: u64,
        /// Whether the client does not decide the entity; else the game's rules forbid the values.
        is_foreign: bool,
    },
    /// Host, where hosting may move: what the next host must know. It follows the members.
    Settings(Settings),
    /// Client, where hosting may move: whether it could host, and votes.
    Stand(Stand),
}

/// What a member says of itself where hosting may move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Stand {
    /// Number of its process: a process that is started anew has another.
    pub incarnation: u32,
    /// Whether it may host.
    pub can_host: bool,
    /// Whether it votes on who hosts.
    pub votes: bool,
}

/// Over which path a member reaches another one.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Route {
    /// It is the sender of this message, over this path.
    Here,
    /// The receiver opens a path to this address.
    Opens(Vec<u8>),
    /// The member will open a path from this address.
    Accepts(Vec<u8>),
    /// None any more: the two need no path.
    Apart,
}

/// What a host of this session does by its settings, where a Welcome does not tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Settings {
    /// The host's identity.
    pub host: u64,
    /// Late policy: 0 repeats, 1 neutral.
    pub late_policy: u8,
    /// Under gate wait, how long a slot may keep the others waiting, in microseconds.
    pub limit_us: u64,
    /// How long a slot is kept for a member that lost its link, in microseconds.
    pub resume_us: u64,
    /// How long a silent link counts as alive, in microseconds.
    pub silence_us: u64,
    /// Ticks by which spectators are behind.
    pub spectator_delay_ticks: u32,
    /// Spectators that may watch at once.
    pub spectators: u16,
    /// Whether a host that differs from the majority takes over its state.
    pub heal_host: bool,
    /// Players with whom the session starts; 0 where the host's driver decides.
    pub players: u8,
    /// Whether members elect the next host; else something outside of the session says who it is.
    pub elects: bool,
    /// In state-sync mode: bytes of state per second and client; 0 in lockstep.
    pub budget_bytes_per_second: u32,
    /// In state-sync mode: ticks that lag compensation goes back, at most; 0 in lockstep.
    pub rewind_ticks_max: u32,
}

/// What a transfer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Purpose {
    /// The state that a client needs to take part.
    Join,
    /// The state of a diverged client, for the report.
    Report,
    /// All of the host's state, for a standby.
    Standby,
}

impl Control {
    /// Its bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        codec::encode(self, &mut bytes);
        bytes
    }

    /// Reads one.
    ///
    /// # Errors
    /// If the bytes are not exactly one.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        codec::decode_within::<Self, CONTROL_BYTES_MAX>(bytes)
    }
}
