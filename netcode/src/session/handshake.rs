//! The handshake: Hello, then Welcome or Refuse. No state travels before a Welcome.
//!
//! The link has verified the address (and with tokens the identity) before a Hello arrives, so one
//! round trip is enough. A client repeats its Hello until it is answered; a host answers the same
//! Hello with the same Welcome.

use core::fmt;

use crate::id::Term;
use crate::limits::NAME_BYTES_MAX;
use crate::session::acted::Acted;
use crate::session::config::{GameInfo, Mode, Role};
use crate::tick::Tick;
use crate::wire::bytes::DecodeError;
use crate::wire::codec::{self, Decode, Encode};

/// The oldest protocol that this build speaks.
pub const PROTOCOL_VERSION_MIN: u16 = 1;
/// The newest protocol that this build speaks.
pub const PROTOCOL_VERSION: u16 = 1;

/// Bytes of a handshake body, at most.
const BODY_BYTES_MAX: usize = 1024;

/// A client asks to join.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Hello {
    /// Oldest protocol that the client speaks.
    pub protocol_min: u16,
    /// Newest protocol that the client speaks.
    pub protocol_max: u16,
    /// The game's name.
    pub game: String,
    /// The build's name.
    pub build: String,
    /// Digest of the schema.
    pub schema_hash: u64,
    /// Number of the mode.
    pub mode: u8,
    /// Ticks per second.
    pub tick_hz: u16,
    /// Bytes per input.
    pub input_bytes: u8,
    /// Wants to watch, not to play.
    pub spectator: bool,
    /// The member's name.
    pub name: String,
    /// Tells this attempt from others.
    pub nonce: u64,
    /// Proof of an earlier welcome to this session; 0 if there is none.
    pub resume: u64,
    /// The newest tick whose inputs are all known, where `resume` is given.
    pub confirmed: u32,
    /// Parts of the host's schema that the client still wants, after a refusal because of it.
    pub schema_parts_wanted: u32,
}

/// The host accepts.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Welcome {
    /// The nonce of the Hello.
    pub nonce: u64,
    /// Protocol spoken from here on.
    pub protocol: u16,
    /// The session.
    pub session: u128,
    /// Its hosting period.
    pub term: u32,
    /// The client's identity in the session.
    pub member: u64,
    /// The client's slot; 255 if it watches.
    pub slot: u8,
    /// Slots of the session.
    pub slots: u8,
    /// Seed of the game's state; in state-sync mode the public one.
    pub seed: u64,
    /// Gate: 0 paced, 1 wait.
    pub gate: u8,
    /// Ticks between two state hashes; 0 for none.
    pub desync_interval: u32,
    /// Captured states that a node keeps.
    pub images: u32,
    /// Whether a diverged node heals itself.
    pub heal: bool,
    /// Proof for a later Hello that this member was here.
    pub resume: u64,
    /// Tick from which input frames will come: the client needs the state at this tick. 0 is the
    /// initial state, which it makes itself.
    pub from: u32,
    /// Whether the client has the state at `from` already, because it resumes.
    pub resumed: bool,
    /// Ticks between two snapshots in state-sync mode; 0 in lockstep.
    pub snapshot_ticks: u32,
}

/// A member of the session asks its next host to go on with it, over a path that they had before.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Return {
    /// What it would ask any host, with the newest tick whose inputs it holds.
    pub hello: Hello,
    /// The terms that it has followed; what it holds is of the last one.
    pub followed: Followed,
    /// The oldest term that it follows from now on.
    pub wants: u32,
    /// The tick after which it has inputs to offer, if it takes part.
    pub offers: Option<u32>,
    /// The tick after which `inputs` begin.
    pub inputs_after: u32,
    /// Some of these inputs, one behind the other, so that the next host need not wait for them:
    /// at most [`RETURN_INPUTS_MAX`] of at most [`RETURN_INPUT_BYTES_MAX`] bytes in all.
    pub inputs: Vec<u8>,
    /// Mask of the tags that datagrams of an earlier link over this path may have which are still
    /// under way to it.
    pub avoids: u64,
    /// In state-sync mode, the newest snapshots that it holds as a whole, newest first; at most
    /// [`BASELINES_MAX`].
    pub baselines: Vec<Baseline>,
}

/// The terms that a member has followed, as far as it knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Followed {
    /// The one that it came in, or that came before those of `starts`.
    pub since: u32,
    /// Those after it, ascending; at most [`TERMS_MAX`].
    pub starts: Vec<TermBase>,
}

/// Where a term began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TermBase {
    /// The term.
    pub term: u32,
    /// The last tick that stands of the terms before.
    pub base: u32,
}

impl Followed {
    /// The first of them.
    #[must_use]
    pub const fn since(&self) -> Term {
        Term(self.since)
    }

    /// Those after it, with their bases.
    #[must_use]
    pub fn starts(&self) -> Vec<(Term, Tick)> {
        let starts = self.starts.iter();
        starts
            .map(|start| (Term(start.term), Tick::new(start.base)))
            .collect()
    }

    /// The last of them.
    #[must_use]
    pub fn newest(&self) -> Term {
        Term(self.starts.last().map_or(self.since, |last| last.term))
    }

    /// Whether they ascend, and are not too many.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        let terms = || self.starts.iter().map(|start| start.term);
        let mut ascends = core::iter::once(self.since).chain(terms()).zip(terms());
        self.starts.len() <= TERMS_MAX && ascends.all(|(one, next)| one < next)
    }
}

/// Snapshots that one [`Return`] tells of, at most.
pub const BASELINES_MAX: usize = 4;

/// A snapshot that a client holds as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Baseline {
    /// Its tick.
    pub tick: u32,
    /// The hash of what the client holds of it.
    pub hash: u64,
    /// The epoch of the state bodies that brought it.
    pub epoch: u8,
}

/// The new host goes on with a member.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Back {
    /// What it would tell whoever joins.
    pub welcome: Welcome,
    /// The newest term that both have followed; nothing if none is known.
    pub shared: Option<u32>,
    /// The terms since the shared one, ascending, the present one last; at most [`TERMS_MAX`].
    pub terms: Vec<TermStart>,
    /// The tick after which it expects the member's inputs; without one it is absent until it has
    /// said that it is ready.
    pub inputs_after: Option<u32>,
    /// What is added to the key of the tag, so that nothing of an earlier link over this path is
    /// taken for something of the new one.
    pub salt: u8,
    /// In state-sync mode, the snapshot from which the host goes on: one of the Return's. Without
    /// one the member forgets what it holds, and is told all of the state.
    pub baseline: Option<u32>,
    /// In state-sync mode, what acted in the member's slot lately.
    pub acted: Option<Acted>,
}

/// Inputs in one [`Return`], at most.
pub const RETURN_INPUTS_MAX: usize = 64;

/// Bytes of the inputs in one [`Return`], at most.
pub const RETURN_INPUT_BYTES_MAX: usize = 512;

/// Terms that one [`Back`] tells of, at most.
pub const TERMS_MAX: usize = 16;

/// How a term began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TermStart {
    /// The term.
    pub term: u32,
    /// The last tick that stands of the terms before.
    pub base: u32,
    /// Who hosts it.
    pub host: u64,
    /// Whether the old host handed over.
    pub is_planned: bool,
}

/// Why a host refuses.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Refusal {
    /// No protocol version is spoken by both.
    Protocol {
        /// Oldest that the host speaks.
        min: u16,
        /// Newest that the host speaks.
        max: u16,
    },
    /// Another game.
    Game {
        /// The host's game.
        host: String,
    },
    /// Another build.
    Build {
        /// The host's build.
        host: String,
    },
    /// The registered state differs. The host's schema follows in parts.
    Schema {
        /// Digest of the host's schema.
        host: u64,
        /// Number of parts.
        parts: u8,
    },
    /// Another mode.
    Mode {
        /// Number of the host's mode.
        host: u8,
    },
    /// Another tick rate.
    TickRate {
        /// Ticks per second on the host.
        host: u16,
    },
    /// Inputs of another size.
    InputBytes {
        /// Bytes per input on the host.
        host: u8,
    },
    /// All slots are taken.
    Full {
        /// Slots of the session.
        slots: u8,
    },
    /// No more spectators are let in.
    SpectatorsFull {
        /// Spectators at once.
        limit: u16,
    },
    /// The name is empty or too long.
    Name,
    /// The session is over.
    Ended,
}

/// A refusal, with the nonce of the Hello that it answers.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Refuse {
    /// The nonce of the Hello.
    pub nonce: u64,
    /// Why.
    pub refusal: Refusal,
}

/// A part of the host's schema.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SchemaPart {
    /// The nonce of the Hello.
    pub nonce: u64,
    /// Which part.
    pub part: u8,
    /// Its bytes; together an lz4 block of the encoded schema.
    pub bytes: Vec<u8>,
}

/// Why a member is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum ByeReason {
    /// It left.
    Left,
    /// The session has reached its last tick.
    Ended,
    /// The host stops.
    HostStops,
    /// It kept the others waiting for too long.
    TooSlow,
    /// It broke the protocol.
    Fault,
    /// It took part from another path.
    Replaced,
}

impl fmt::Display for ByeReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Left => "left",
            Self::Ended => "the session ended",
            Self::HostStops => "the host stopped",
            Self::TooSlow => "kept the others waiting for too long",
            Self::Fault => "broke the protocol",
            Self::Replaced => "joined again over another path",
        })
    }
}

/// A goodbye.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Bye {
    /// Low half of the session id: a stray goodbye ends nothing.
    pub session_low: u64,
    /// Why.
    pub reason: ByeReason,
}

impl Hello {
    /// What `game` asks for.
    #[must_use]
    pub fn new(game: &GameInfo, name: &str, role: Role, nonce: u64) -> Self {
        Self {
            protocol_min: PROTOCOL_VERSION_MIN,
            protocol_max: PROTOCOL_VERSION,
            game: game.game.clone(),
            build: game.build.clone(),
            schema_hash: game.schema.hash(),
            mode: game.mode.number(),
            tick_hz: game.tick_rate.hz(),
            input_bytes: game.input_bytes,
            spectator: role == Role::Spectator,
            name: name.to_owned(),
            nonce,
            resume: 0,
            confirmed: 0,
            schema_parts_wanted: 0,
        }
    }

    /// The protocol that both ends speak, or what differs from `game`.
    ///
    /// # Errors
    /// The first difference, in the order of a developer's interest.
    pub fn compare(&self, game: &GameInfo) -> Result<u16, Refusal> {
        let protocol = self.protocol_max.min(PROTOCOL_VERSION);
        if protocol < self.protocol_min.max(PROTOCOL_VERSION_MIN) {
            return Err(Refusal::Protocol {
                min: PROTOCOL_VERSION_MIN,
                max: PROTOCOL_VERSION,
            });
        }
        if self.name.is_empty() || self.name.len() > NAME_BYTES_MAX {
            return Err(Refusal::Name);
        }
        if self.game != game.game {
            return Err(Refusal::Game {
                host: game.game.clone(),
            });
        }
        if self.build != game.build {
            return Err(Refusal::Build {
                host: game.build.clone(),
            });
        }
        if self.mode != game.mode.number() {
            return Err(Refusal::Mode {
                host: game.mode.number(),
            });
        }
        if self.tick_hz != game.tick_rate.hz() {
            return Err(Refusal::TickRate {
                host: game.tick_rate.hz(),
            });
        }
        if self.input_bytes != game.input_bytes {
            return Err(Refusal::InputBytes {
                host: game.input_bytes,
            });
        }
        if self.schema_hash != game.schema.hash() {
            return Err(Refusal::Schema {
                host: game.schema.hash(),
                parts: 0,
            });
        }
        Ok(protocol)
    }
}

impl Refusal {
    /// A sentence for the one who was refused; `you` is what it asked with.
    #[must_use]
    pub fn sentence(&self, you: &GameInfo) -> String {
        match self {
            Self::Protocol { min, max } => format!(
                "the host speaks protocol {min} to {max}, you {PROTOCOL_VERSION_MIN} to \
                 {PROTOCOL_VERSION}"
            ),
            Self::Game { host } => format!("the host plays \"{host}\", you \"{}\"", you.game),
            Self::Build { host } => format!("the host runs build {host}, you {}", you.build),
            Self::Schema { host, .. } => format!(
                "the host's components differ from yours (schema {host:016x}, yours {:016x})",
                you.schema.hash()
            ),
            Self::Mode { host } => format!(
                "the host plays in {} mode, you in {} mode",
                Mode::from_number(*host)
                    .map_or_else(|| "another".to_owned(), |mode| mode.to_string()),
                you.mode
            ),
            Self::TickRate { host } => {
                format!(
                    "the host runs {host} ticks per second, you {}",
                    you.tick_rate.hz()
                )
            }
            Self::InputBytes { host } => {
                format!(
                    "an input has {host} bytes on the host, {} on yours",
                    you.input_bytes
                )
            }
            Self::Full { slots } => format!("all {slots} slots are taken"),
            Self::SpectatorsFull { limit } => format!("{limit} spectators are watching already"),
            Self::Name => format!("a name must have 1 to {NAME_BYTES_MAX} bytes"),
            Self::Ended => "the session has ended".to_owned(),
        }
    }
}

/// Writes a handshake datagram: its kind, then its body.
pub fn write<T: Encode>(kind: u8, body: &T, out: &mut Vec<u8>) {
    out.push(kind);
    codec::encode(body, out);
}

/// Reads the body of a handshake datagram.
///
/// # Errors
/// If it is not exactly one.
pub fn read<T: Decode<()>>(body: &[u8]) -> Result<T, DecodeError> {
    codec::decode_within::<T, BODY_BYTES_MAX>(body)
}
