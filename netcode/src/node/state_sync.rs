//! What a node tells of a session in state-sync mode.

use std::sync::Arc;

use crate::state::QuantizedSnapshot;
use crate::tick::Tick;
use crate::time::Time;

/// Counters of a node in state-sync mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateSyncStatistics {
    /// Snapshots that a host published, or a client took over.
    pub snapshots: u64,
    /// Bytes of state in datagrams, sent to all clients or read from the host.
    pub state_bytes: u64,
    /// Whole states that travelled as transfers: begun by a host, taken over by a client.
    pub keyframes: u64,
    /// Their bytes.
    pub keyframe_bytes: u64,
    /// Datagrams whose state could not be read.
    pub unreadable: u64,
    /// Times that the whole state was asked for again: by this client, or of this host.
    pub resets: u64,
    /// Of a client: own entities, predicted for a snapshot and compared with the host's.
    pub predictions: u64,
    /// Of a client: those of them that differed.
    pub corrections: u64,
    /// Of a client: complete snapshots whose hash was compared with the host's.
    pub hashes: u64,
    /// Of a client: those of them that differed.
    pub hashes_wrong: u64,
    /// Of a host: viewing delays that were cut to `rewind_ticks_max`.
    pub views_cut: u64,
    /// Of a host: claims of clients about entities that they decide, taken over.
    pub claims: u64,
    /// Of a host: claims about entities that the client does not decide. Ignored.
    pub claims_foreign: u64,
    /// Of a host: claims about entities that were the client's until lately, or have other kinds by
    /// now, or that were too many at once. Ignored.
    pub claims_late: u64,
    /// Of a host: claims that the game's rules forbid. Ignored.
    pub claims_forbidden: u64,
    /// Of a client: entities that it decides and that are too large to tell, once per tick.
    pub claims_unsent: u64,
    /// Of a client: times that the host told it of claims that it ignored.
    pub claims_denied: u64,
    /// The newest snapshot that was published, or that anything is known of.
    pub newest: Option<Tick>,
    /// Of a client: the newest snapshot that it holds as a whole.
    pub newest_complete: Option<Tick>,
    /// The last tick of the session with the combined hash of the host's state; once it has run.
    pub authority: Option<(Tick, u64)>,
    /// Whether what this client holds of the last tick is what it shall hold, by the host's word;
    /// once that is known. A host agrees with itself.
    pub converged: Option<bool>,
}

/// A state that came from the host, as a client holds it.
#[derive(Clone, Debug)]
pub struct Received {
    /// The tick of the snapshot.
    pub tick: Tick,
    /// When the first of it arrived.
    pub arrived_at: Time,
    /// Its values. Where `is_complete` is false, those that have not arrived yet are older.
    pub snapshot: Arc<QuantizedSnapshot>,
    /// Whether all of it has arrived.
    pub is_complete: bool,
}
