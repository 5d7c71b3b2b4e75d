//! Options that all programs have in common, from the command line or a TOML file.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use phalanx::netcode::limits::{INPUT_DELAY_TICKS_MAX, PREDICTION_TICKS_MAX, SLOTS_MAX};
use phalanx::netcode::link::conditioner::Conditions;
use phalanx::netcode::link::udp::TOKEN_LIFE_S_MAX;
use phalanx::netcode::session::config::{Gate, InputDelay, Mode as SessionMode};
use phalanx::netcode::tick::Tick;
use serde::Deserialize;

use crate::arena::{UNITS_DEFAULT, UNITS_MAX};
use crate::place::Place;

/// How long a host that waits for everyone waits for one, in microseconds.
const WAIT_LIMIT_US: u64 = 3_000_000;

/// How long a join code is good for unless told otherwise, in seconds.
const TOKEN_LIFE_S: u64 = 3600;

/// Seconds by which spectators may be behind in either mode: a host that tells 60 states per second
/// keeps as many.
const SPECTATOR_DELAY_S_MAX: u32 = 10;

/// Options as they were given. What was not given is `None`.
#[derive(Args, Deserialize, Clone, Debug, Default)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Options {
    /// Ends the session after so many ticks (60 per second); a client leaves it then
    #[arg(long, allow_negative_numbers = true, value_name = "N")]
    pub ticks: Option<u32>,
    /// Seed of the field, the bots and the network that is added [default: 1]
    #[arg(long, allow_negative_numbers = true, value_name = "N")]
    pub seed: Option<u64>,
    /// Adds to the round trip time, in milliseconds
    #[arg(long, allow_negative_numbers = true, value_name = "MS")]
    pub rtt: Option<u32>,
    /// Adds up to this to each datagram's way, in milliseconds
    #[arg(long, allow_negative_numbers = true, value_name = "MS")]
    pub jitter: Option<u32>,
    /// Loses so many datagrams in each direction
    #[arg(long, allow_negative_numbers = true, value_name = "PERCENT")]
    pub loss: Option<f64>,
    /// Slots of a session that is hosted here; it starts when all are taken [default: 4]
    #[arg(long, allow_negative_numbers = true, value_name = "N")]
    pub players: Option<u32>,
    /// Records the session as a replay, and verifies it at the end
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// Prints the figures of the run as one JSON object, as the last line; README.md explains them
    #[arg(long)]
    pub json: bool,
    /// How state stays equal [default: lockstep]
    #[arg(long)]
    pub mode: Option<Mode>,
    /// State-sync: states per second that a session hosted here tells its clients [default: 20]
    #[arg(long, allow_negative_numbers = true, value_name = "HZ")]
    pub snapshots: Option<u32>,
    /// State-sync: state per client of a session hosted here, at most, in kbit/s [default: 400]
    #[arg(long, allow_negative_numbers = true, value_name = "KBIT")]
    pub budget: Option<u32>,
    /// State-sync: how far a hero sees in a session hosted here, in metres; 0 is everything
    /// [default: 50]
    #[arg(long, allow_negative_numbers = true, value_name = "METRES")]
    pub view: Option<u32>,
    /// Units of the game; must be the same for all [default: 3000]
    #[arg(long, allow_negative_numbers = true, value_name = "N")]
    pub units: Option<u32>,
    /// When the next tick runs, for a session that is hosted here [default: paced]
    #[arg(long)]
    pub gate: Option<GateOption>,
    /// Ticks between an input and its effect, or "auto" [default: auto]
    #[arg(long, allow_negative_numbers = true, value_name = "N|auto")]
    pub delay: Option<Delay>,
    /// Ticks to run ahead on guessed inputs; in state-sync mode, for the own hero
    /// [default: 0, state-sync: 12]
    #[arg(long, allow_negative_numbers = true, value_name = "N")]
    pub predict: Option<u32>,
    /// Seconds to wait for an answer, and of silence until a link is lost [default: 10]
    #[arg(long, allow_negative_numbers = true, value_name = "SECONDS")]
    pub timeout: Option<u32>,
    /// No join codes and no encryption: for development and trusted local networks
    #[arg(long)]
    pub insecure: bool,
    /// Hosting stays where it is: without its host, the session is over. A client with this option
    /// neither votes nor hosts
    #[arg(long)]
    pub no_migration: bool,
    /// Draws nothing; status lines go to stderr
    #[arg(long)]
    pub headless: bool,
}

/// How state stays equal.
#[derive(ValueEnum, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Everyone simulates, inputs travel
    #[default]
    Lockstep,
    /// The host simulates, states travel
    StateSync,
}

impl Mode {
    /// The mode's name, as in options.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lockstep => "lockstep",
            Self::StateSync => "state-sync",
        }
    }

    /// The mode as the protocol knows it.
    #[must_use]
    pub const fn of_session(self) -> SessionMode {
        match self {
            Self::Lockstep => SessionMode::Lockstep,
            Self::StateSync => SessionMode::StateSync,
        }
    }
}

/// When the next tick runs.
#[derive(ValueEnum, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum GateOption {
    /// On time: an input that is late is replaced
    #[default]
    Paced,
    /// When all inputs are there
    Wait,
}

/// Ticks between an input and its effect.
#[derive(Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(try_from = "DelayValue")]
pub enum Delay {
    /// As many as the network asks for.
    #[default]
    Auto,
    /// Always so many.
    Ticks(u32),
}

impl FromStr for Delay {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        text.parse().map(Self::Ticks).map_err(|_not_a_number| {
            format!("\"{text}\" is neither a number of ticks nor \"auto\"")
        })
    }
}

/// A delay in a file: a number or a text.
#[derive(Deserialize)]
#[serde(untagged)]
enum DelayValue {
    Number(u32),
    Text(String),
}

impl TryFrom<DelayValue> for Delay {
    type Error = String;

    fn try_from(value: DelayValue) -> Result<Self, String> {
        match value {
            DelayValue::Number(ticks) => Ok(Self::Ticks(ticks)),
            DelayValue::Text(text) => text.parse(),
        }
    }
}

/// Options with defaults filled in, and within their limits.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The last tick, if there is one.
    pub ticks: Option<Tick>,
    /// The number on which the run depends.
    pub seed: u64,
    /// The added network, one way.
    pub conditions: Conditions,
    /// Slots of a session that is hosted here.
    pub players: u8,
    /// Where to record to.
    pub record: Option<PathBuf>,
    /// Whether to print JSON.
    pub json: bool,
    /// How state stays equal.
    pub mode: Mode,
    /// What a host in state-sync mode tells its clients.
    pub broadcast: Broadcast,
    /// Units of the game.
    pub units: u32,
    /// When the next tick runs.
    pub gate: Gate,
    /// Ticks between an input and its effect.
    pub delay: InputDelay,
    /// Ticks to run ahead on guessed inputs.
    pub predict: u32,
    /// Time to wait for an answer, and of silence until a link is lost.
    pub timeout: Duration,
    /// How long a host keeps the slot of a lost player.
    pub keep: Duration,
    /// Time between two tables of what clients are sent, if they are wanted.
    pub inspect: Option<Duration>,
    /// How far spectators of a session that is hosted here are behind.
    pub spectators_behind: Duration,
    /// Whether to do without join codes and encryption.
    pub insecure: bool,
    /// Whether hosting may move to another member, and to this one.
    pub migration: bool,
    /// What a node without a slot is there for.
    pub attends: Attendance,
    /// Whether to draw nothing.
    pub headless: bool,
}

/// What a node without a slot is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attendance {
    /// To watch; it neither votes nor hosts.
    Watches,
    /// To host next.
    StandsBy,
    /// To vote, and never to host.
    Votes,
}

/// What a host in state-sync mode tells its clients.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Broadcast {
    /// Ticks between two snapshots.
    pub snapshot_ticks: u32,
    /// Bytes of state per second and client, at most.
    pub budget_bytes_per_second: u32,
    /// How far a hero sees, in metres; everything without.
    pub view_m: Option<f32>,
}

/// Ticks per second.
const TICKS_HZ: u32 = 60;

impl Broadcast {
    /// What these options say.
    fn of(options: &Options) -> Result<Self> {
        let hz = options.snapshots.unwrap_or(20);
        ensure!(
            (1..=TICKS_HZ).contains(&hz) && TICKS_HZ.is_multiple_of(hz),
            "--snapshots must divide {TICKS_HZ} evenly (60, 30, 20, 15, 12, 10 and so on), \
             it is {hz}"
        );
        let kbit = options.budget.unwrap_or(400);
        ensure!(
            (8..=100_000).contains(&kbit),
            "--budget must lie in 8 to 100000 kbit/s, it is {kbit}"
        );
        let view = options.view.unwrap_or(50);
        ensure!(
            view <= 1000,
            "--view must lie in 0 to 1000 metres, it is {view}"
        );
        Ok(Self {
            snapshot_ticks: TICKS_HZ / hz,
            budget_bytes_per_second: kbit * 125,
            view_m: (view > 0).then(|| f32::from(u16::try_from(view).unwrap_or(u16::MAX))),
        })
    }
}

impl Options {
    /// These options, and those of `other` where these say nothing.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            ticks: self.ticks.or(other.ticks),
            seed: self.seed.or(other.seed),
            rtt: self.rtt.or(other.rtt),
            jitter: self.jitter.or(other.jitter),
            loss: self.loss.or(other.loss),
            players: self.players.or(other.players),
            record: self.record.or(other.record),
            json: self.json || other.json,
            mode: self.mode.or(other.mode),
            snapshots: self.snapshots.or(other.snapshots),
            budget: self.budget.or(other.budget),
            view: self.view.or(other.view),
            units: self.units.or(other.units),
            gate: self.gate.or(other.gate),
            delay: self.delay.or(other.delay),
            predict: self.predict.or(other.predict),
            timeout: self.timeout.or(other.timeout),
            insecure: self.insecure || other.insecure,
            no_migration: self.no_migration || other.no_migration,
            headless: self.headless || other.headless,
        }
    }

    /// Fills in defaults and checks limits.
    ///
    /// # Errors
    /// Names the option that is out of its limits.
    pub fn resolve(self) -> Result<Settings> {
        let ticks = self.ticks.map(Tick::new);
        ensure!(ticks != Some(Tick::ZERO), "--ticks must be 1 or more");
        let players = self.players.unwrap_or(4);
        let slots = u8::try_from(players).unwrap_or(0);
        ensure!(
            (1..=SLOTS_MAX).contains(&usize::from(slots)),
            "--players must lie in 1 to {SLOTS_MAX}, it is {players}"
        );
        let units = self.units.unwrap_or(UNITS_DEFAULT);
        ensure!(
            units <= UNITS_MAX,
            "--units must lie in 0 to {UNITS_MAX}, it is {units}"
        );
        let mode = self.mode.unwrap_or_default();
        self.check_mode(mode)?;
        let broadcast = Broadcast::of(&self)?;
        let predict = self.predict.unwrap_or(match mode {
            Mode::Lockstep => 0,
            Mode::StateSync => 12,
        });
        ensure!(
            predict <= PREDICTION_TICKS_MAX,
            "--predict must lie in 0 to {PREDICTION_TICKS_MAX}, it is {predict}"
        );
        let timeout_s = u64::from(self.timeout.unwrap_or(10));
        ensure!(
            (1..=60).contains(&timeout_s),
            "--timeout must lie in 1 to 60 seconds, it is {timeout_s}"
        );
        let delay = match self.delay.unwrap_or_default() {
            Delay::Auto => InputDelay::default(),
            Delay::Ticks(ticks) => {
                ensure!(
                    ticks <= INPUT_DELAY_TICKS_MAX,
                    "--delay must lie in 0 to {INPUT_DELAY_TICKS_MAX}, it is {ticks}"
                );
                InputDelay::Fixed(ticks)
            }
        };
        Ok(Settings {
            ticks,
            seed: self.seed.unwrap_or(1),
            conditions: conditions(
                self.rtt.unwrap_or(0),
                self.jitter.unwrap_or(0),
                self.loss.unwrap_or(0.0),
            )?,
            players: slots,
            record: self.record,
            json: self.json,
            mode,
            broadcast,
            units,
            gate: match self.gate.unwrap_or_default() {
                GateOption::Paced => Gate::Paced,
                GateOption::Wait => Gate::Wait {
                    limit_us: WAIT_LIMIT_US,
                },
            },
            delay,
            predict,
            timeout: Duration::from_secs(timeout_s),
            keep: Hosting::default().keeps_slots_for(),
            inspect: None,
            spectators_behind: Duration::ZERO,
            insecure: self.insecure,
            migration: !self.no_migration,
            attends: Attendance::Watches,
            headless: self.headless,
        })
    }
}

impl Options {
    /// Checks that nothing is said that means nothing in this mode.
    fn check_mode(&self, mode: Mode) -> Result<()> {
        match mode {
            Mode::Lockstep => {
                let given = [
                    ("--snapshots", self.snapshots.is_some()),
                    ("--budget", self.budget.is_some()),
                    ("--view", self.view.is_some()),
                ];
                for (name, is_given) in given {
                    ensure!(!is_given, "{name} needs --mode state-sync");
                }
            }
            Mode::StateSync => ensure!(
                self.gate != Some(GateOption::Wait),
                "--gate wait needs --mode lockstep: a host that tells the state waits for nobody"
            ),
        }
        Ok(())
    }
}

/// A network in one direction.
fn conditions(rtt_ms: u32, jitter_ms: u32, loss_percent: f64) -> Result<Conditions> {
    ensure!(
        rtt_ms <= 10_000,
        "--rtt must lie in 0 to 10000 ms, it is {rtt_ms}"
    );
    ensure!(
        jitter_ms <= 10_000,
        "--jitter must lie in 0 to 10000 ms, it is {jitter_ms}"
    );
    ensure!(
        (0.0..=100.0).contains(&loss_percent),
        "--loss must lie in 0 to 100 percent, it is {loss_percent}"
    );
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "0 to 1 000 000 by the check above"
    )]
    let loss_per_million = (loss_percent * 10_000.0) as u32;
    Ok(Conditions {
        jitter_us: u64::from(jitter_ms) * 1000,
        ..Conditions::from_rtt(u64::from(rtt_ms) * 1000, loss_per_million)
    })
}

/// What a file for `arena-host` holds: these keys, and those of [`Options`].
#[derive(Args, Deserialize, Clone, Debug, Default)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Hosting {
    /// Address to listen on; port 0 lets the system choose [default: 0.0.0.0:7777]
    #[arg(long, value_name = "ADDR")]
    pub bind: Option<Place>,
    /// Address that players reach this host at, for join codes [default: where it listens]
    #[arg(long, value_name = "ADDR")]
    pub public: Option<Place>,
    /// Writes one join code per player into this folder instead of printing it
    #[arg(long, value_name = "DIR")]
    pub token_dir: Option<PathBuf>,
    /// Seconds for which join codes are valid [default: 3600]
    #[arg(long, allow_negative_numbers = true, value_name = "SECONDS")]
    pub token_life: Option<u64>,
    /// Join codes for players; spare ones are for those who start anew [default: as many as slots]
    #[arg(long, allow_negative_numbers = true, value_name = "N")]
    pub tokens: Option<u16>,
    /// Seconds for which the slot of a lost player is kept; then another may take it [default: 30]
    #[arg(long, allow_negative_numbers = true, value_name = "SECONDS")]
    pub keep: Option<u16>,
    /// State-sync: tells every so many seconds what each client is sent, by component and field; it
    /// costs some of the host's time [without a number: 5]
    #[arg(long, allow_negative_numbers = true, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "5")]
    pub inspect: Option<u32>,
    /// Seconds by which spectators are behind the match, so that nobody learns of it from them
    /// [default: 0]
    #[arg(long, allow_negative_numbers = true, value_name = "SECONDS")]
    pub spectator_delay: Option<u32>,
}

impl Hosting {
    /// These options, and those of `other` where these say nothing.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            bind: self.bind.or(other.bind),
            public: self.public.or(other.public),
            token_dir: self.token_dir.or(other.token_dir),
            token_life: self.token_life.or(other.token_life),
            tokens: self.tokens.or(other.tokens),
            keep: self.keep.or(other.keep),
            inspect: self.inspect.or(other.inspect),
            spectator_delay: self.spectator_delay.or(other.spectator_delay),
        }
    }
}

impl Hosting {
    /// How long the slot of a lost player is kept.
    #[must_use]
    pub fn keeps_slots_for(&self) -> Duration {
        Duration::from_secs(u64::from(self.keep.unwrap_or(30)))
    }

    /// How long a join code is good for.
    ///
    /// # Errors
    /// If that is no time, or too long.
    pub fn codes_live_for(&self) -> Result<Duration> {
        let seconds = self.token_life.unwrap_or(TOKEN_LIFE_S);
        ensure!(
            (1..=TOKEN_LIFE_S_MAX).contains(&seconds),
            "--token-life must lie in 1 to {TOKEN_LIFE_S_MAX} seconds, it is {seconds}"
        );
        Ok(Duration::from_secs(seconds))
    }

    /// How far spectators are behind.
    ///
    /// # Errors
    /// If a host does not remember that much.
    pub fn spectators_are_behind(&self) -> Result<Duration> {
        let seconds = self.spectator_delay.unwrap_or(0);
        ensure!(
            seconds <= SPECTATOR_DELAY_S_MAX,
            "--spectator-delay must lie in 0 to {SPECTATOR_DELAY_S_MAX} seconds, it is {seconds}"
        );
        Ok(Duration::from_secs(seconds.into()))
    }

    /// Time between two tables of what clients are sent, if they are wanted.
    ///
    /// # Errors
    /// If there is nothing to tell in this mode, or the time is none.
    pub fn inspects_every(&self, mode: Mode) -> Result<Option<Duration>> {
        let Some(seconds) = self.inspect else {
            return Ok(None);
        };
        ensure!(mode == Mode::StateSync, "--inspect needs --mode state-sync");
        ensure!(
            (1..=3600).contains(&seconds),
            "--inspect must lie in 1 to 3600 seconds, it is {seconds}"
        );
        Ok(Some(Duration::from_secs(u64::from(seconds))))
    }
}

/// What only a program without a player does, on the command line or in a file for `arena-host`.
#[derive(Args, Deserialize, Clone, Debug, Default)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Dedicated {
    /// Stands by for this host, without a slot: hosts when that one leaves or is gone. A join code
    /// of the host or a file that holds one; with --insecure, the host's address
    #[arg(long, value_name = "ADDR|CODE|FILE", conflicts_with = "arbiter_of")]
    pub standby_of: Option<String>,
    /// Votes in the session of this host, without a slot, and never hosts: with it, one of two
    /// players goes on in the same session when the other is gone. Said as for --standby-of
    #[arg(long, value_name = "ADDR|CODE|FILE")]
    pub arbiter_of: Option<String>,
    /// Name that others see [default: "host"; "standby" or "arbiter" and four letters]
    #[arg(long)]
    pub name: Option<String>,
    /// Writes figures in Prometheus' text format into this file, every few seconds
    #[arg(long, value_name = "FILE")]
    pub metrics: Option<PathBuf>,
}

impl Dedicated {
    /// These options, and those of `other` where these say nothing. To stand by and to vote are two
    /// ways to say the same.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        let is_said = self.standby_of.is_some() || self.arbiter_of.is_some();
        let (standby_of, arbiter_of) = if is_said {
            (self.standby_of, self.arbiter_of)
        } else {
            (other.standby_of, other.arbiter_of)
        };
        Self {
            standby_of,
            arbiter_of,
            name: self.name.or(other.name),
            metrics: self.metrics.or(other.metrics),
        }
    }

    /// To whose session this node goes, and what for; `None` if it opens one.
    ///
    /// # Errors
    /// If it is said twice, or hosting does not move.
    pub fn place(&self, settings: &Settings) -> Result<Option<(&str, Attendance)>> {
        let (option, place) = match (&self.standby_of, &self.arbiter_of) {
            (None, None) => return Ok(None),
            (Some(_), Some(_)) => bail!("--standby-of and --arbiter-of contradict each other"),
            (Some(to), None) => ("--standby-of", (to.as_str(), Attendance::StandsBy)),
            (None, Some(to)) => ("--arbiter-of", (to.as_str(), Attendance::Votes)),
        };
        ensure!(
            settings.migration,
            "{option} and --no-migration contradict each other"
        );
        Ok(Some(place))
    }
}

/// Names of the keys of [`Dedicated`].
const DEDICATED_KEYS: [&str; 4] = ["standby-of", "arbiter-of", "name", "metrics"];

/// Names of the keys of [`Hosting`].
const HOSTING_KEYS: [&str; 8] = [
    "bind",
    "public",
    "token-dir",
    "token-life",
    "tokens",
    "keep",
    "inspect",
    "spectator-delay",
];

/// Reads a TOML file with the options' names as keys.
///
/// # Errors
/// If it cannot be read, or a key or value is unknown.
pub fn read_file(path: &std::path::Path) -> Result<(Options, Hosting, Dedicated)> {
    let name = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
    parse_file(&text).with_context(|| format!("{name} cannot be used"))
}

fn parse_file(text: &str) -> Result<(Options, Hosting, Dedicated)> {
    let mut common: toml::Table = text.parse()?;
    let hosting = take_keys(&mut common, &HOSTING_KEYS);
    let dedicated = take_keys(&mut common, &DEDICATED_KEYS);
    Ok((
        common.try_into()?,
        hosting.try_into()?,
        dedicated.try_into()?,
    ))
}

fn take_keys(from: &mut toml::Table, keys: &[&str]) -> toml::Table {
    let taken = keys.iter().filter_map(|&key| {
        let value = from.remove(key)?;
        Some((key.to_owned(), value))
    });
    taken.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_what_options_say_and_options_win() {
        let text =
            "players = 3\nloss = 2\ndelay = \"auto\"\nbind = \"127.0.0.1:0\"\ngate = \"wait\"";
        let (file, hosting, _) = parse_file(text).unwrap();
        assert_eq!(hosting.bind.unwrap().to_string(), "127.0.0.1:0");
        let given = Options {
            players: Some(5),
            ..Options::default()
        };
        let settings = given.or(file).resolve().unwrap();
        assert_eq!(settings.players, 5);
        assert_eq!(settings.conditions.loss_per_million, 20_000);
        assert!(matches!(settings.gate, Gate::Wait { .. }));
        assert_eq!(settings.units, UNITS_DEFAULT);
    }

    #[test]
    fn state_sync_has_options_of_its_own() {
        let text = "mode = \"state-sync\"\nsnapshots = 30\nbudget = 64\nview = 40";
        let (file, ..) = parse_file(text).unwrap();
        let settings = file.resolve().unwrap();
        assert_eq!(settings.mode, Mode::StateSync);
        let expected = Broadcast {
            snapshot_ticks: 2,
            budget_bytes_per_second: 8000,
            view_m: Some(40.0),
        };
        assert_eq!(settings.broadcast, expected);
        assert!(settings.predict > 0, "the own hero reacts at once");
    }

    #[test]
    fn an_inspector_needs_states_to_look_at() {
        let (_, hosting, _) = parse_file("inspect = 2").unwrap();
        let every = hosting.inspects_every(Mode::StateSync).unwrap();
        assert_eq!(every, Some(Duration::from_secs(2)));
        let error = hosting.inspects_every(Mode::Lockstep).unwrap_err();
        assert!(error.to_string().contains("state-sync"), "{error}");
        let none = Hosting::default().inspects_every(Mode::Lockstep).unwrap();
        assert_eq!(none, None);
    }

    #[test]
    fn spectators_may_be_behind_as_far_as_a_host_remembers() {
        let (_, hosting, _) = parse_file("spectator-delay = 10").unwrap();
        let behind = hosting.spectators_are_behind().unwrap();
        assert_eq!(behind, Duration::from_secs(10));
        let (_, hosting, _) = parse_file("spectator-delay = 11").unwrap();
        let error = hosting.spectators_are_behind().unwrap_err();
        assert!(error.to_string().contains("0 to 10 seconds"), "{error}");
    }

    #[test]
    fn whoever_attends_does_one_thing_and_the_command_line_wins() {
        let (options, _, file) = parse_file("standby-of = \"A\"\nname = \"s\"").unwrap();
        let mut settings = options.resolve().unwrap();
        assert_eq!(
            file.place(&settings).unwrap(),
            Some(("A", Attendance::StandsBy))
        );
        let given = Dedicated {
            arbiter_of: Some("B".to_owned()),
            ..Dedicated::default()
        };
        let both = given.or(file);
        assert_eq!(both.name.as_deref(), Some("s"));
        assert_eq!(
            both.place(&settings).unwrap(),
            Some(("B", Attendance::Votes))
        );
        settings.migration = false;
        let error = both.place(&settings).unwrap_err().to_string();
        assert!(error.contains("--arbiter-of"), "{error}");
        let (_, _, file) = parse_file("standby-of = \"A\"\narbiter-of = \"B\"").unwrap();
        assert!(file.place(&settings).is_err());
        assert_eq!(Dedicated::default().place(&settings).unwrap(), None);
    }

    #[test]
    fn unknown_keys_and_values_out_of_limits_are_refused() {
        for text in [
            "playrs = 3",
            "delay = \"soon\"",
            "mode = \"magic\"",
            "bind = 7",
            "x",
        ] {
            assert!(parse_file(text).is_err(), "{text}");
        }
        let bad: [fn(&mut Options); 14] = [
            |options| options.players = Some(0),
            |options| options.players = Some(65),
            |options| options.players = Some(1000),
            |options| options.ticks = Some(0),
            |options| options.loss = Some(f64::NAN),
            |options| options.predict = Some(17),
            |options| options.delay = Some(Delay::Ticks(65)),
            |options| options.units = Some(UNITS_MAX + 1),
            |options| options.snapshots = Some(0),
            |options| options.snapshots = Some(25),
            |options| options.budget = Some(7),
            |options| options.view = Some(1001),
            |options| options.gate = Some(GateOption::Wait),
            // Said for another mode than it is for.
            |options| (options.mode, options.view) = (None, Some(20)),
        ];
        for (number, spoil) in bad.iter().enumerate() {
            let mut options = Options {
                mode: Some(Mode::StateSync),
                ..Options::default()
            };
            spoil(&mut options);
            assert!(options.resolve().is_err(), "{number}");
        }
    }
}
