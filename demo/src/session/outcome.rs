//! What one node went through.

use phalanx::netcode::id::{MemberId, SessionId, Slot, Term};
use phalanx::netcode::node::{DesyncReport, StateSyncStatistics};
use phalanx::netcode::session::statistics::NodeStatistics;
use phalanx::netcode::tick::Tick;

use super::changes::Migrations;
use crate::arena::Standing;
use crate::inspector::Accounts;
use crate::truth::ShownErrors;

/// Bytes of IPv4 and UDP headers around every datagram.
pub const HEADER_BYTES: u64 = 28;

/// How a session ended for one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// At its last tick.
    Finished,
    /// This node left, as it was told.
    Left,
    /// The host stopped the session.
    HostStopped,
    /// This node vanished without a word, as it was told.
    Killed,
    /// Otherwise; the sentence is for people.
    Failed(String),
}

/// What one node went through.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How it ended.
    pub end: End,
    /// Its slot, if it played.
    pub slot: Option<Slot>,
    /// Whether it opened the session.
    pub is_founder: bool,
    /// Whether it hosted at the end.
    pub hosts: bool,
    /// Who hosted at the end, for people.
    pub host: String,
    /// Its name, if it is known.
    pub host_name: Option<String>,
    /// Who hosted at the end.
    pub host_member: MemberId,
    /// In which term.
    pub term: Term,
    /// The session that it was in at the end.
    pub session: SessionId,
    /// What changes of host have cost it.
    pub migrations: Migrations,
    /// Players at the end, or at the beginning if more.
    pub players: usize,
    /// The last tick.
    pub tick: Tick,
    /// Whether it ever had a state.
    pub took_part: bool,
    /// The state's hash at the last tick; in state-sync mode the host's, which it tells everyone.
    pub state_hash: Option<u64>,
    /// Counters of state-sync mode.
    pub sync: Option<StateSyncStatistics>,
    /// How far off what a client in that mode showed was.
    pub shown: Option<ShownErrors>,
    /// The node's counters.
    pub statistics: NodeStatistics,
    /// Differences that were found.
    pub desyncs: Vec<DesyncReport>,
    /// Round trip, mean over the node's links.
    pub rtt_us: Option<u64>,
    /// Datagrams and bytes from the first tick to the last.
    pub traffic: Traffic,
    /// How the armies stand.
    pub standings: Vec<Standing>,
    /// What clients were sent, if someone looked.
    pub accounts: Option<Accounts>,
    /// Names of the players, by slot.
    pub names: Vec<String>,
    /// Whether recording worked, if it was asked for.
    pub recording: Option<Result<(), String>>,
}

/// Datagrams and bytes of one node, link and UDP and IP headers included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// The last tick that was counted.
    pub until: Tick,
    /// Ticks for which these counts stand, summed over the nodes at the other ends.
    pub link_ticks: u64,
    /// Datagrams sent.
    pub datagrams_sent: u64,
    /// Bytes sent.
    pub bytes_sent: u64,
    /// Datagrams received and not refused.
    pub datagrams_received: u64,
    /// Their bytes.
    pub bytes_received: u64,
    /// Datagrams that the link refused: foreign, damaged, or of an earlier connection.
    pub datagrams_refused: u64,
}
