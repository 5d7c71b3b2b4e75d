//! How a run went: text for people, one JSON object for programs, an exit code for shells.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use phalanx::netcode::node::StateSyncStatistics;
use phalanx::netcode::replay::VerifyReport;
use phalanx::netcode::tick::Tick;
use serde_json::{Value, json};

use crate::options::{Mode, Settings};
use crate::session::{End, Migrations, Outcome, Traffic};
use crate::truth::ShownErrors;
use crate::view::{STANDINGS_HEAD, standing_line};

/// What there is to say about a run of one or more nodes.
#[derive(Debug)]
pub struct Summary {
    /// The settings of the run.
    pub settings: Settings,
    /// What the nodes of this process went through; first the one that speaks for the run, which
    /// is the host at the end, if it is here.
    pub nodes: Vec<Outcome>,
    /// The replay, if one was recorded.
    pub replay: Option<Replay>,
}

/// A recorded replay.
#[derive(Debug)]
pub struct Replay {
    /// Its file.
    pub file: PathBuf,
    /// What its verification gave.
    pub verified: Result<VerifyReport>,
    /// Whether nobody asked for the file: it goes once it has been verified.
    pub is_temporary: bool,
}

impl Summary {
    /// Verifies the replay that a node recorded, if one did.
    #[must_use]
    pub fn new(settings: Settings, mut nodes: Vec<Outcome>) -> Self {
        // Who was killed speaks last, and the host first.
        nodes.sort_by_key(|node| (node.end == End::Killed, !node.hosts));
        let recording = nodes.iter().find_map(|node| node.recording.as_ref());
        let replay = match (&settings.record, recording) {
            (Some(file), Some(Ok(()))) => Some(Replay {
                file: file.clone(),
                verified: crate::replay::verify(file, |_tick, _last| {}),
                is_temporary: false,
            }),
            (Some(file), Some(Err(error))) => Some(Replay {
                file: file.clone(),
                verified: Err(anyhow::anyhow!("{} is not whole: {error}", file.display())),
                is_temporary: false,
            }),
            (_, None) | (None, _) => None,
        };
        Self {
            settings,
            nodes,
            replay,
        }
    }

    /// The same, of a run that recorded only in order to verify. The replay is removed if it was
    /// right, but for `--json`: a file that the figures name is there.
    #[must_use]
    pub fn of_temporary_replay(mut self) -> Self {
        if let Some(replay) = &mut self.replay
            && replay.verified.is_ok()
            && !self.settings.json
        {
            // If it cannot be removed, its name is still printed.
            replay.is_temporary = std::fs::remove_file(&replay.file).is_ok();
        }
        self
    }

    /// What went wrong, one sentence each; empty if the run did what it was asked to.
    #[must_use]
    pub fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        for node in &self.nodes {
            // All clients of a host that is gone say the same.
            if let End::Failed(sentence) = &node.end
                && !failures.contains(sentence)
            {
                failures.push(sentence.clone());
            }
            for report in &node.desyncs {
                let mut sentence = format!(
                    "desync: member {} differs since tick {}",
                    report.member, report.tick
                );
                for difference in report.differences.iter().take(8) {
                    let _ = write!(sentence, "; {difference}");
                }
                failures.push(sentence);
            }
        }
        if failures.is_empty() && !self.hashes_equal() {
            failures.push("the nodes ended in different states".to_owned());
        }
        if failures.is_empty() && self.converged() == Some(false) {
            failures.push("what a client holds differs from the host's state".to_owned());
        }
        let has_played = self
            .nodes
            .first()
            .is_some_and(|node| node.tick > Tick::ZERO);
        if has_played && self.settings.record.is_some() && self.replay.is_none() {
            failures.push("the session was not recorded".to_owned());
        }
        if let Some(Replay {
            verified: Err(error),
            ..
        }) = &self.replay
        {
            failures.push(sentence(error));
        }
        failures
    }

    /// The nodes that were not killed.
    fn survivors(&self) -> impl Iterator<Item = &Outcome> {
        self.nodes.iter().filter(|node| node.end != End::Killed)
    }

    /// Whether all nodes of this process that ended at the same tick have the same state. A node
    /// that never got into the session has none, and that of one that was killed does not count.
    #[must_use]
    pub fn hashes_equal(&self) -> bool {
        let Some(first) = self.survivors().next() else {
            return true;
        };
        self.nodes_with_state()
            .all(|node| node.tick != first.tick || node.state_hash == first.state_hash)
    }

    /// Whether what every client of this process holds equals what its host wants it to hold; `None`
    /// in lockstep and where no client got that far. A client that left before the end goes by the
    /// states that it compared until then.
    #[must_use]
    pub fn converged(&self) -> Option<bool> {
        let nodes = self.survivors();
        let known = nodes.filter_map(|node| {
            let sync = node.sync.filter(|_| node.tick > Tick::ZERO)?;
            match node.end {
                End::Finished => Some(sync.converged.unwrap_or(false)),
                End::Left | End::HostStopped | End::Killed | End::Failed(_) => sync
                    .converged
                    .or((sync.hashes > 0).then_some(sync.hashes_wrong == 0)),
            }
        });
        known.reduce(|all, node| all && node)
    }

    /// The figures of state-sync mode.
    fn sync_json(&self, per_client: &PerClient) -> Value {
        let errors = self.shown_errors();
        let metres = |value: Option<f64>| value.map(|metres| (metres * 1000.0).round() / 1000.0);
        let guests = || self.nodes.iter().filter(|node| node.shown.is_some());
        let sum = |of: fn(&StateSyncStatistics) -> u64| -> Option<u64> {
            guests().map(|node| node.sync.as_ref().map(of)).sum()
        };
        let of_guests = |value: Option<u64>| value.filter(|_| guests().next().is_some());
        json!({
            "converged": self.converged(),
            "kbit_s_down": (per_client.kbit_s_down() * 100.0).round() / 100.0,
            "predictions": of_guests(sum(|sync| sync.predictions)),
            "corrections": of_guests(sum(|sync| sync.corrections)),
            "keyframes": of_guests(sum(|sync| sync.keyframes)),
            "shown_error_mean": metres(errors.mean()),
            "shown_error_p99": metres(errors.percentile(99)),
            "shown_error_max": metres(errors.max()),
            "snapshot_hz": f64::from(60 / self.settings.broadcast.snapshot_ticks),
        })
    }

    /// How far off what the clients of this process showed was.
    fn shown_errors(&self) -> ShownErrors {
        let mut all = ShownErrors::default();
        for node in &self.nodes {
            if let Some(errors) = &node.shown {
                all.merge(errors);
            }
        }
        all
    }

    /// The figures of state-sync mode, for people.
    fn sync_text(&self, per_client: &PerClient) -> String {
        let mut text = String::new();
        let guests = || self.nodes.iter().filter(|node| node.shown.is_some());
        let sum = |of: fn(&StateSyncStatistics) -> u64| -> u64 {
            guests().map(|node| node.sync.as_ref().map_or(0, of)).sum()
        };
        let _ = write!(text, "{:.1} kbit/s per client", per_client.kbit_s_down());
        if guests().next().is_some() {
            let _ = write!(
                text,
                ", corrections {} of {} predictions",
                sum(|sync| sync.corrections),
                sum(|sync| sync.predictions)
            );
        }
        let errors = self.shown_errors();
        if let (Some(mean), Some(p99)) = (errors.mean(), errors.percentile(99)) {
            let _ = write!(
                text,
                "\nshown places are off by {mean:.3} m on average, {p99:.3} m at the 99th percentile"
            );
        }
        text.push('\n');
        match (self.converged(), guests().count()) {
            (Some(true), 1..) => text.push_str("clients hold what the host wants them to\n"),
            (Some(false), _) => text.push_str("clients DO NOT hold what the host wants them to\n"),
            (None | Some(true), _) => {}
        }
        text
    }

    fn nodes_with_state(&self) -> impl Iterator<Item = &Outcome> {
        self.survivors().filter(|node| node.state_hash.is_some())
    }

    /// Desyncs that any node saw.
    fn desyncs(&self) -> u64 {
        let seen = |node: &Outcome| {
            let reports = u64::try_from(node.desyncs.len()).unwrap_or(u64::MAX);
            let wrong = node.sync.map_or(0, |sync| sync.hashes_wrong);
            node.statistics.desyncs.max(reports).max(wrong)
        };
        self.nodes.iter().map(seen).max().unwrap_or(0)
    }

    /// What changes of host have cost, at the node that they cost most.
    fn migrations(&self) -> Migrations {
        let each = self.survivors().map(|node| node.migrations);
        let worst = |one: Migrations, other: Migrations| Migrations {
            count: one.count.max(other.count),
            blackout_us: one.blackout_us.max(other.blackout_us),
            ticks_lost: one.ticks_lost.max(other.ticks_lost),
            inputs_lost: one.inputs_lost.max(other.inputs_lost),
            is_unclean: one.is_unclean || other.is_unclean,
            is_forked: one.is_forked || other.is_forked,
        };
        each.reduce(worst).unwrap_or_default()
    }

    /// What changes of host have cost, for people; nothing where there was none.
    fn migrations_text(&self, first: &Outcome) -> String {
        let migrations = self.migrations();
        if migrations.is_forked {
            return format!(
                "the session forked: others may have played on, or did, without {}\n",
                first.host
            );
        }
        if migrations.count == 0 {
            let still_ms = migrations.blackout_us.map(|us| us / 1000);
            return still_ms.map_or_else(String::new, |ms| {
                format!("the host was missed, and stayed: {ms} ms without a tick at most\n")
            });
        }
        let times = match migrations.count {
            1 => "once".to_owned(),
            count => format!("{count} times"),
        };
        let blackout_ms = migrations.blackout_us.unwrap_or(0) / 1000;
        let mut text = format!(
            "the host changed {times}: {blackout_ms} ms without a tick at most, ticks lost {}, \
             inputs lost {}; host at the end {}, term {}\n",
            migrations.ticks_lost, migrations.inputs_lost, first.host, first.term.0,
        );
        if migrations.is_unclean {
            text.push_str("a host went on without those who held everything, or all alone\n");
        }
        text
    }

    fn total(&self, of: impl Fn(&Outcome) -> u64) -> u64 {
        self.nodes.iter().map(of).sum()
    }

    /// Traffic between clients and host, as one client has it on average.
    fn per_client(&self) -> PerClient {
        // Clients count exactly their own; a host alone divides its sum.
        let joined: Vec<&Outcome> = self.nodes.iter().filter(|node| !node.is_founder).collect();
        let at_host = joined.is_empty();
        let clients = if at_host {
            self.nodes.iter().collect()
        } else {
            joined
        };
        let mut sum = PerClient::default();
        for node in &clients {
            let per_tick = PerClient::of(&node.traffic, at_host);
            sum.up += per_tick.up;
            sum.down += per_tick.down;
            sum.datagrams += per_tick.datagrams;
        }
        #[expect(clippy::cast_precision_loss, reason = "a handful of clients")]
        let count = clients.len().max(1) as f64;
        PerClient {
            up: sum.up / count,
            down: sum.down / count,
            datagrams: sum.datagrams / count,
        }
    }

    /// The figures of the run as one JSON object.
    #[must_use]
    pub fn json(&self) -> Value {
        let traffic = self.per_client();
        let first = self.nodes.first();
        let rounded = |value: f64| (value * 100.0).round() / 100.0;
        let rtts: Vec<u64> = self.nodes.iter().filter_map(|node| node.rtt_us).collect();
        let rtt_us = rtts
            .iter()
            .sum::<u64>()
            .checked_div(u64::try_from(rtts.len()).unwrap_or(0));
        #[expect(clippy::cast_precision_loss, reason = "a round trip in microseconds")]
        let rtt_ms = rtt_us.map(|us| rounded(us as f64 / 1000.0));
        let migrations = self.migrations();
        #[expect(clippy::cast_precision_loss, reason = "a time in microseconds")]
        let blackout_ms = migrations.blackout_us.map(|us| rounded(us as f64 / 1000.0));
        let mut figures = json!({
            "mode": self.settings.mode.name(),
            "ticks": first.map_or(0, |node| node.tick.number()),
            "players": first.map_or(0, |node| node.players),
            "units": self.settings.units,
            "seed": self.settings.seed,
            "desyncs": self.desyncs(),
            "stalls": self.total(|node| node.statistics.stalls),
            "state_hash": first.and_then(|node| node.state_hash).map(|hash| format!("{hash:016x}")),
            "hashes_equal": self.hashes_equal(),
            "bytes_up_per_client_tick": rounded(traffic.up),
            "bytes_down_per_client_tick": rounded(traffic.down),
            "datagrams_per_client_tick": rounded(traffic.datagrams),
            "datagrams_refused": self.total(|node| node.traffic.datagrams_refused),
            "inputs_replaced": self.total(|node| node.statistics.inputs_replaced),
            "rollbacks": self.total(|node| node.statistics.rollbacks),
            "rtt_ms": rtt_ms,
            "migrations": migrations.count,
            "blackout_ms": blackout_ms,
            "ticks_lost": migrations.ticks_lost,
            "inputs_lost": migrations.inputs_lost,
            "term": first.map_or(0, |node| node.term.0),
            "host": first.map(|node| node.host_member.0),
            "host_name": first.and_then(|node| node.host_name.clone()),
            "unclean": migrations.is_unclean,
            "forked": migrations.is_forked,
            "session": first.map(|node| format!("{:032x}", node.session.0)),
            "replay_file": self.replay.as_ref().map(|replay| replay.file.display().to_string()),
            "replay_verified": self.replay.as_ref().map(|replay| replay.verified.is_ok()),
            "ok": self.failures().is_empty(),
        });
        if self.settings.mode == Mode::StateSync
            && let (Value::Object(all), Value::Object(more)) =
                (&mut figures, self.sync_json(&traffic))
        {
            all.extend(more);
            if let Some(accounts) = first.and_then(|node| node.accounts.as_ref()) {
                all.insert("inspected".to_owned(), accounts.json());
            }
        }
        figures
    }

    /// Why no tick has run.
    fn why_not_begun(&self, first: &Outcome) -> String {
        let replay = if self.settings.record.is_some() {
            "; there is nothing to record"
        } else {
            ""
        };
        if first.is_founder {
            let wanted = self.settings.players;
            let here = first.players;
            format!("the match did not begin: {here} of {wanted} players were here{replay}")
        } else {
            let why = match first.end {
                End::HostStopped => "the host stopped it",
                End::Finished | End::Left | End::Killed | End::Failed(_) => "this player left",
            };
            format!("the match had not begun when {why}{replay}")
        }
    }

    /// The run for people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        let Some(first) = self.nodes.first() else {
            return text;
        };
        let traffic = self.per_client();
        let settings = &self.settings;
        let _ = writeln!(
            text,
            "{} ticks of {}, {} players, {} units, {}",
            first.tick,
            settings.mode.name(),
            first.players,
            settings.units,
            if settings.insecure {
                "not encrypted"
            } else {
                "encrypted"
            },
        );
        if first.tick == Tick::ZERO {
            let _ = writeln!(text, "{}", self.why_not_begun(first));
            return text;
        }
        let _ = writeln!(text, "{STANDINGS_HEAD}");
        for standing in &first.standings {
            let _ = writeln!(text, "{}", standing_line(standing, &first.names, false));
        }
        let _ = writeln!(
            text,
            "per client and tick: {:.1} B up, {:.1} B down, {:.2} datagrams (with UDP and IP headers)",
            traffic.up, traffic.down, traffic.datagrams,
        );
        let refused = self.total(|node| node.traffic.datagrams_refused);
        if refused > 0 {
            let _ = writeln!(
                text,
                "datagrams refused (foreign, damaged, or of links that had ended): {refused}"
            );
        }
        for node in &self.nodes {
            let (replaced, ticks) = (node.statistics.inputs_replaced, node.statistics.ticks);
            if replaced > ticks / 2 {
                let _ = writeln!(
                    text,
                    "{replaced} inputs of this connection came too late to act, in {ticks} ticks: \
                     its round trip is beyond what the input delay covers"
                );
            }
        }
        let _ = writeln!(
            text,
            "stalls {}, inputs replaced {}, rollbacks {}, desyncs {}",
            self.total(|node| node.statistics.stalls),
            self.total(|node| node.statistics.inputs_replaced),
            self.total(|node| node.statistics.rollbacks),
            self.desyncs(),
        );
        text.push_str(&self.migrations_text(first));
        if settings.mode == Mode::StateSync {
            text.push_str(&self.sync_text(&traffic));
        }
        if let Some(hash) = first.state_hash {
            let nodes = self.nodes_with_state().count();
            let whose = match settings.mode {
                Mode::Lockstep => "state hash",
                Mode::StateSync => "state hash of the host",
            };
            let _ = match (nodes, self.hashes_equal()) {
                (1, _) => writeln!(text, "{whose} {hash:016x}"),
                (_, true) => writeln!(text, "{whose} {hash:016x} on all {nodes} nodes"),
                (_, false) => writeln!(text, "state hashes DIFFER between the {nodes} nodes"),
            };
        }
        match &self.replay {
            Some(Replay {
                file,
                verified: Ok(report),
                is_temporary,
            }) => {
                let (name, note) = if *is_temporary {
                    (
                        String::new(),
                        " (it was temporary; --record FILE keeps one)",
                    )
                } else {
                    (format!(" {}", file.display()), "")
                };
                let _ = writeln!(
                    text,
                    "replay{name} verified: ticks {} to {}, {} hashes, {} keyframes{note}",
                    report.first, report.last, report.hashes, report.keyframes,
                );
            }
            Some(Replay { file, .. }) => {
                let _ = writeln!(text, "replay {} NOT verified", file.display());
            }
            None => {}
        }
        text
    }

    /// Prints the summary on stdout and failures on stderr, and gives the exit code: success only
    /// if the run did what it was asked to.
    ///
    /// # Errors
    /// If stdout or stderr cannot be written.
    pub fn report(&self, program: &str) -> io::Result<ExitCode> {
        let mut stdout = io::stdout().lock();
        if self.settings.json {
            writeln!(stdout, "{}", self.json())?;
        } else if self.nodes.iter().any(|node| node.took_part) {
            stdout.write_all(self.text().as_bytes())?;
        }
        stdout.flush()?;
        let failures = self.failures();
        for failure in &failures {
            // Parts of it may be words of another node.
            let failure: String = failure
                .chars()
                .filter(|letter| !letter.is_control())
                .collect();
            writeln!(io::stderr(), "{program}: {failure}")?;
        }
        Ok(if failures.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}

/// Traffic of one client and tick.
#[derive(Clone, Copy, Debug, Default)]
struct PerClient {
    up: f64,
    down: f64,
    datagrams: f64,
}

impl PerClient {
    /// What a client receives, in kbit/s: 60 ticks per second of 8-bit bytes.
    fn kbit_s_down(&self) -> f64 {
        self.down * 60.0 * 8.0 / 1000.0
    }

    fn of(traffic: &Traffic, at_host: bool) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
        let per_tick = |count: u64| count as f64 / traffic.link_ticks.max(1) as f64;
        let (sent, received) = (
            per_tick(traffic.bytes_sent),
            per_tick(traffic.bytes_received),
        );
        if at_host {
            Self {
                up: received,
                down: sent,
                datagrams: per_tick(traffic.datagrams_received),
            }
        } else {
            Self {
                up: sent,
                down: received,
                datagrams: per_tick(traffic.datagrams_sent),
            }
        }
    }
}

/// Runs a program: its error becomes one sentence on stderr and a failure.
pub fn main(program: &str, run: impl FnOnce() -> Result<ExitCode>) -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            // If stderr is closed, the exit code has to say it.
            let _ = writeln!(io::stderr(), "{program}: {}", sentence(&error));
            ExitCode::FAILURE
        }
    }
}

/// Whether an output could not be written because nobody reads it any more.
#[must_use]
pub fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}

/// An error and its causes in one line. Some errors end with the words of their cause already.
fn sentence(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if text.is_empty() {
            text = cause;
        } else if !text.ends_with(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_said_once() {
        let error = anyhow::anyhow!("no such file").context("cannot read: no such file");
        assert_eq!(sentence(&error), "cannot read: no such file");
        let error = error.context("cannot start");
        assert_eq!(sentence(&error), "cannot start: cannot read: no such file");
    }
}
