//! What a session is, and what a node wants of it.

use core::fmt;
use std::sync::Arc;

use crate::limits::{
    IMAGES_MAX, INPUT_BYTES_MAX, INPUT_DELAY_TICKS_MAX, INPUT_FRAME_BYTES_MAX, NAME_BYTES_MAX,
    PREDICTION_TICKS_MAX, SLOTS_MAX, SNAPSHOT_TICKS_MAX, SPECTATOR_DELAY_SNAPSHOTS_MAX,
};
use crate::session::hosting::{HostPolicy, PolicyError};
use crate::state::Schema;
use crate::tick::{Tick, TickRate};

/// How state stays equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Every node simulates; inputs travel.
    Lockstep,
    /// The host simulates, state travels.
    StateSync,
}

impl Mode {
    /// Number in handshakes and files.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Lockstep => 1,
            Self::StateSync => 2,
        }
    }

    /// The mode with this number.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Lockstep),
            2 => Some(Self::StateSync),
            _ => None,
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lockstep => "lockstep",
            Self::StateSync => "state-sync",
        })
    }
}

/// What both ends of a handshake must have in common.
#[derive(Clone, Debug)]
pub struct GameInfo {
    /// The game's name, for example `"arena"`.
    pub game: String,
    /// The build's name or version. Builds that differ play together only if the game says so by
    /// giving them the same text.
    pub build: String,
    /// The registered state.
    pub schema: Arc<Schema>,
    /// How state stays equal.
    pub mode: Mode,
    /// Ticks per second.
    pub tick_rate: TickRate,
    /// Bytes of one slot's input.
    pub input_bytes: u8,
}

/// When tick T may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// When the inputs of all present slots are there: everyone waits for the slowest, and no
    /// input is ever replaced. A slot that keeps the others waiting for `limit_us` departs.
    Wait {
        /// Microseconds.
        limit_us: u64,
    },
    /// On the host's time: an input that is late is replaced by the late policy, and its owner is
    /// told. Nobody waits for anybody.
    Paced,
}

/// What stands in for an input that missed its tick, under [`Gate::Paced`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LatePolicy {
    /// The slot's input of the tick before, for up to so many ticks; then zeros.
    #[default]
    Repeat,
    /// Zeros.
    Neutral,
}

/// Ticks between sampling an input and the tick on which it acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputDelay {
    /// Always this many.
    Fixed(u32),
    /// As many as the measured lateness asks for, within these limits.
    Adaptive {
        /// Never fewer.
        min: u32,
        /// Never more.
        max: u32,
    },
}

impl InputDelay {
    /// Limits for any connection on which one can play at all: inputs act as early as the measured
    /// lateness allows, and at least after a second. Of what is later than that, nothing acts.
    pub(crate) const fn adaptive(min: u32) -> Self {
        Self::Adaptive { min, max: 60 }
    }
}

impl Default for InputDelay {
    fn default() -> Self {
        Self::adaptive(1)
    }
}

/// When the first tick runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// As soon as so many players are there, the host's own slot included.
    Players(u8),
    /// When the host's driver calls [`Node::start`](crate::node::Node::start).
    Manual,
}

/// How desyncs are looked for and kept for the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DesyncPolicy {
    /// Ticks between two comparisons; 0 switches them off.
    pub interval_ticks: u32,
    /// Captured states that the driver keeps, one per tick. Enough to cover the interval plus two
    /// round trips lets the report name the first tick that differs.
    pub images: u32,
    /// Whether a client that diverged takes over a snapshot of the host and plays on.
    pub heal: bool,
    /// Whether a host that differs from the majority takes over the state of a member that agrees
    /// with it. Members who conspire could then rewrite the game: only among friends.
    pub heal_host: bool,
}

impl Default for DesyncPolicy {
    fn default() -> Self {
        Self {
            interval_ticks: 32,
            images: 64,
            heal: true,
            heal_host: false,
        }
    }
}

/// How a host in state-sync mode tells clients the state.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StateSyncConfig {
    /// Ticks between two snapshots, 1 to [`SNAPSHOT_TICKS_MAX`].
    pub snapshot_ticks: u32,
    /// Bytes of state per second and client, at most, while the path loses nothing; loss lowers
    /// it.
    pub budget_bytes_per_second: u32,
    /// Ticks behind the present that a member may claim to have seen, for lag compensation: later
    /// claims are cut to this many.
    pub rewind_ticks_max: u32,
}

impl Default for StateSyncConfig {
    fn default() -> Self {
        Self {
            snapshot_ticks: 3,
            budget_bytes_per_second: 32_000,
            rewind_ticks_max: 15,
        }
    }
}

impl StateSyncConfig {
    fn check(&self) -> Result<(), ConfigError> {
        if !(1..=SNAPSHOT_TICKS_MAX).contains(&self.snapshot_ticks) {
            return Err(ConfigError::SnapshotTicks(self.snapshot_ticks));
        }
        Ok(())
    }
}

/// Whether and how hosting may move to another member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MigrationConfig {
    /// Whether it may: then members hold paths to each other.
    pub allows: bool,
    /// Whether members elect who hosts when the host is gone, and hand over as planned. Otherwise
    /// something outside of the session decides.
    pub elects: bool,
}

impl MigrationConfig {
    /// Hosting moves: members elect another host when theirs is gone.
    pub const ELECTED: Self = Self {
        allows: true,
        elects: true,
    };
    /// Hosting moves where something outside of the session says so.
    pub const COMMANDED: Self = Self {
        allows: true,
        elects: false,
    };
}

/// A host's settings.
#[derive(Clone, Debug)]
pub struct HostConfig {
    /// The game.
    pub game: GameInfo,
    /// Name of the host's member, shown to others.
    pub name: String,
    /// Whether the host has a slot and plays; a dedicated host has none.
    pub plays: bool,
    /// Slots of the session.
    pub slots: u8,
    /// Seed of the game's state. In state-sync mode clients do not get it; for what the host draws to
    /// be a secret, it has to be a random number that nobody guesses.
    pub seed: u64,
    /// When tick T may run.
    pub gate: Gate,
    /// What stands in for a late input.
    pub late_policy: LatePolicy,
    /// The host's own input delay, under [`Gate::Wait`]; paced hosts need none.
    pub input_delay: InputDelay,
    /// Ticks that the host may run ahead on guessed inputs, under [`Gate::Wait`]; 0 to wait.
    pub prediction_ticks: u32,
    /// When the first tick runs.
    pub start: Start,
    /// The last tick, if the session has one.
    pub last_tick: Option<Tick>,
    /// Desync detection, in lockstep mode.
    pub desync: DesyncPolicy,
    /// What clients are told, in state-sync mode.
    pub state_sync: StateSyncConfig,
    /// How long a slot is kept for a member that lost its link, in microseconds.
    pub resume_us: u64,
    /// How long a silent link counts as alive, in microseconds.
    pub silence_us: u64,
    /// Ticks by which spectators are behind; in state-sync mode, up to the next snapshot.
    pub spectator_delay_ticks: u32,
    /// Spectators that may watch at once.
    pub spectators: u16,
    /// Whether hosting may move.
    pub migration: MigrationConfig,
    /// How hosting is watched over, and whether this node may host again.
    pub hosting: HostPolicy,
    /// Secret from which session id, resume tokens and the secrets of pairs follow. From the
    /// operating system in a real session, from the seed in a simulated one.
    pub secret: u128,
}

/// Role that a member has, or asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Has a slot and plays.
    Player,
    /// Watches.
    Spectator,
    /// Orders inputs and has no slot.
    DedicatedHost,
}

/// Proof that a member was here before: the host gave it with the welcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResumeToken(pub u64);

/// A client's settings.
#[derive(Clone, Debug)]
pub struct JoinConfig {
    /// The game.
    pub game: GameInfo,
    /// Name of the member, shown to others.
    pub name: String,
    /// Player or spectator.
    pub role: Role,
    /// Ticks between sampling an input and the tick on which it acts.
    pub input_delay: InputDelay,
    /// Ticks that this node may run ahead of the confirmed tick on guessed inputs; 0 for none. In
    /// state-sync mode a client with 0 runs no tick at all: it only shows what the host says, and
    /// entities that the host lets it decide stay as they are, for a claim is what a tick that ran
    /// here left.
    pub prediction_ticks: u32,
    /// Ticks that may run in one tick's time to catch up.
    pub catch_up_ticks: u32,
    /// How long to go on asking for an answer, in microseconds.
    pub join_us: u64,
    /// How long to try to come back after the link is lost, in microseconds.
    pub resume_us: u64,
    /// How long a silent link counts as alive, in microseconds.
    pub silence_us: u64,
    /// Whether this node may host and votes, where hosting moves, and when it suspects a host.
    pub hosting: HostPolicy,
    /// Secret from which nonces follow. From the operating system in a real session.
    pub secret: u128,
}

/// Why settings cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A name is empty or longer than the limit.
    #[error("the {what} must have 1 to {NAME_BYTES_MAX} bytes, it has {bytes}")]
    Name {
        /// Which name.
        what: &'static str,
        /// Its length.
        bytes: usize,
    },
    /// Inputs are empty or larger than the limit.
    #[error("an input must have 1 to {INPUT_BYTES_MAX} bytes, it has {0}")]
    InputBytes(u8),
    /// There are no slots, or more than the limit.
    #[error("a session must have 1 to {SLOTS_MAX} slots, this one has {0}")]
    Slots(u8),
    /// The inputs of all slots for one tick do not fit a datagram.
    #[error(
        "{slots} slots with {input_bytes} B each do not fit one datagram: \
         at most {INPUT_FRAME_BYTES_MAX} B together"
    )]
    FrameBytes {
        /// Slots.
        slots: u8,
        /// Bytes per input.
        input_bytes: u8,
    },
    /// An input delay is beyond the limit, or its minimum beyond its maximum.
    #[error("an input delay must lie in 0 to {INPUT_DELAY_TICKS_MAX} ticks, minimum first")]
    InputDelay,
    /// The prediction is beyond the limit.
    #[error("prediction must lie in 0 to {PREDICTION_TICKS_MAX} ticks, it is {0}")]
    Prediction(u32),
    /// More captured states are needed than are kept.
    #[error("prediction of {prediction} ticks needs as many images, only {images} are kept")]
    Images {
        /// Ticks of prediction.
        prediction: u32,
        /// Images kept.
        images: u32,
    },
    /// More captured states than the limit.
    #[error("at most {IMAGES_MAX} images can be kept, not {0}")]
    TooManyImages(u32),
    /// In state-sync mode the host waits for nobody.
    #[error("a host in state-sync mode is paced by its own clock: its gate must be Paced")]
    StateSyncGate,
    /// The distance of snapshots is 0 or beyond the limit.
    #[error("snapshots must be 1 to {SNAPSHOT_TICKS_MAX} ticks apart, not {0}")]
    SnapshotTicks(u32),
    /// The hosting policy contradicts itself.
    #[error(transparent)]
    Hosting(#[from] PolicyError),
    /// Spectators would be further behind than a host in state-sync mode keeps snapshots for.
    #[error(
        "spectators of a state-sync session may be at most {max} ticks behind, not {ticks}: the host \
         keeps {SPECTATOR_DELAY_SNAPSHOTS_MAX} snapshots for them"
    )]
    SpectatorDelay {
        /// The delay asked for.
        ticks: u32,
        /// The longest.
        max: u32,
    },
    /// A role that cannot be asked for.
    #[error("a client joins as player or as spectator")]
    Role,
}

impl GameInfo {
    fn check(&self) -> Result<(), ConfigError> {
        check_name("name of the game", &self.game)?;
        check_name("name of the build", &self.build)?;
        if self.input_bytes == 0 || usize::from(self.input_bytes) > INPUT_BYTES_MAX {
            return Err(ConfigError::InputBytes(self.input_bytes));
        }
        Ok(())
    }
}

impl InputDelay {
    /// The fewest ticks.
    #[must_use]
    pub const fn min(self) -> u32 {
        match self {
            Self::Fixed(ticks) => ticks,
            Self::Adaptive { min, .. } => min,
        }
    }

    /// The most ticks.
    #[must_use]
    pub const fn max(self) -> u32 {
        match self {
            Self::Fixed(ticks) => ticks,
            Self::Adaptive { max, .. } => max,
        }
    }

    fn check(self) -> Result<(), ConfigError> {
        let fits = self.min() <= self.max() && self.max() <= INPUT_DELAY_TICKS_MAX;
        if fits {
            Ok(())
        } else {
            Err(ConfigError::InputDelay)
        }
    }
}

impl HostConfig {
    /// A host-paced session of `slots` players on a dedicated host, with the defaults of the field.
    #[must_use]
    pub fn new(game: GameInfo, slots: u8) -> Self {
        Self {
            game,
            name: "host".to_owned(),
            plays: false,
            slots,
            seed: 0,
            gate: Gate::Paced,
            late_policy: LatePolicy::Repeat,
            input_delay: InputDelay::default(),
            prediction_ticks: 0,
            start: Start::Players(slots),
            last_tick: None,
            desync: DesyncPolicy::default(),
            state_sync: StateSyncConfig::default(),
            resume_us: 30_000_000,
            silence_us: 5_000_000,
            spectator_delay_ticks: 0,
            spectators: 32,
            migration: MigrationConfig::default(),
            hosting: HostPolicy::default(),
            secret: 0,
        }
    }

    /// Whether these settings can be used.
    ///
    /// # Errors
    /// The first that cannot.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.game.check()?;
        self.hosting.check()?;
        check_name("name of the member", &self.name)?;
        if self.slots == 0 || usize::from(self.slots) > SLOTS_MAX {
            return Err(ConfigError::Slots(self.slots));
        }
        if usize::from(self.slots) * usize::from(self.game.input_bytes) > INPUT_FRAME_BYTES_MAX {
            let input_bytes = self.game.input_bytes;
            return Err(ConfigError::FrameBytes {
                slots: self.slots,
                input_bytes,
            });
        }
        self.input_delay.check()?;
        if self.desync.images > IMAGES_MAX {
            return Err(ConfigError::TooManyImages(self.desync.images));
        }
        if self.game.mode == Mode::StateSync {
            if self.gate != Gate::Paced {
                return Err(ConfigError::StateSyncGate);
            }
            self.state_sync.check()?;
            let max = SPECTATOR_DELAY_SNAPSHOTS_MAX * self.state_sync.snapshot_ticks;
            if self.spectator_delay_ticks > max {
                let ticks = self.spectator_delay_ticks;
                return Err(ConfigError::SpectatorDelay { ticks, max });
            }
        }
        check_prediction(self.prediction_ticks, self.desync.images)
    }
}

impl JoinConfig {
    /// A player's settings with the defaults of the field. In state-sync mode a client predicts
    /// up to 12 ticks, which cover a round trip of 200 ms at 60 ticks per second, and its own
    /// input acts at once.
    #[must_use]
    pub fn new(game: GameInfo, name: &str) -> Self {
        let (prediction_ticks, input_delay) = match game.mode {
            Mode::Lockstep => (0, InputDelay::default()),
            Mode::StateSync => (12, InputDelay::adaptive(0)),
        };
        Self {
            game,
            name: name.to_owned(),
            role: Role::Player,
            input_delay,
            prediction_ticks,
            catch_up_ticks: 8,
            join_us: 10_000_000,
            resume_us: 30_000_000,
            silence_us: 5_000_000,
            hosting: HostPolicy::default(),
            secret: 0,
        }
    }

    /// Whether these settings can be used.
    ///
    /// # Errors
    /// The first that cannot.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.game.check()?;
        self.hosting.check()?;
        check_name("name of the member", &self.name)?;
        self.input_delay.check()?;
        if self.role == Role::DedicatedHost {
            return Err(ConfigError::Role);
        }
        check_prediction(self.prediction_ticks, u32::MAX)
    }
}

fn check_name(what: &'static str, name: &str) -> Result<(), ConfigError> {
    let bytes = name.len();
    if bytes == 0 || bytes > NAME_BYTES_MAX {
        return Err(ConfigError::Name { what, bytes });
    }
    Ok(())
}

fn check_prediction(prediction: u32, images: u32) -> Result<(), ConfigError> {
    if prediction > PREDICTION_TICKS_MAX {
        return Err(ConfigError::Prediction(prediction));
    }
    if prediction > 0 && prediction >= images {
        return Err(ConfigError::Images { prediction, images });
    }
    Ok(())
}
