//! Hosts Arena without playing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use phalanx::netcode::link::random_secret;
use phalanx_demo::options::{self, Attendance, Dedicated, Hosting, Options, Settings};
use phalanx_demo::play::Hands;
use phalanx_demo::session::{Destination, Network, Session, Status, open_link};
use phalanx_demo::show;
use phalanx_demo::summary::{self, Summary};
use phalanx_demo::tokens::{self, Guests};

const PROGRAM: &str = "arena-host";

/// Time between two writes of the metrics' file.
const METRICS_PERIOD: Duration = Duration::from_secs(5);

/// Hosts a session of Arena for players elsewhere. Prints where it listens, then one join code per
/// player, one for a standby and one for an arbiter. SIGINT and SIGTERM hand over to the standby;
/// without one, they end the session with a goodbye.
#[derive(Parser, Debug)]
#[command(name = PROGRAM, version)]
struct Cli {
    #[command(flatten)]
    hosting: Hosting,
    #[command(flatten)]
    dedicated: Dedicated,
    #[command(flatten)]
    options: Options,
    /// Reads options from a TOML file, with their names as keys; the command line wins
    #[arg(long, value_name = "FILE.toml")]
    config: Option<PathBuf>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    summary::main(PROGRAM, || run(cli))
}

fn run(cli: Cli) -> Result<ExitCode> {
    let (from_file, hosting_from_file, dedicated_from_file) = match &cli.config {
        Some(file) => options::read_file(file)?,
        None => <(Options, Hosting, Dedicated)>::default(),
    };
    let hosting = cli.hosting.or(hosting_from_file);
    let dedicated = cli.dedicated.or(dedicated_from_file);
    let settings = cli.options.or(from_file).resolve()?;
    // Before anything is heard on a socket: whoever says nonsense has opened none.
    let place = dedicated.place(&settings)?;
    let attends = place.map_or(Attendance::Watches, |(_, attends)| attends);
    let to = place.map(|(to, _)| destination(to, settings.insecure));
    let to = to.transpose()?;
    let settings = Settings {
        headless: true,
        keep: hosting.keeps_slots_for(),
        inspect: hosting.inspects_every(settings.mode)?,
        spectators_behind: hosting.spectators_are_behind()?,
        attends,
        ..settings
    };
    let name = dedicated.name.map_or_else(|| name_of(attends), Ok)?;
    let bind = tokens::bind_of(&hosting)?;
    hosting.codes_live_for()?;
    let players = usize::from(settings.players);
    let link = open_link(bind, &settings, players, Network::BothWays, 0)?;
    let guests = match attends {
        // Nobody ever joins it.
        Attendance::Votes => None,
        Attendance::Watches | Attendance::StandsBy => Some(Guests {
            players: settings.players,
            others: if settings.migration {
                &["standby", "arbiter"]
            } else {
                &[]
            },
        }),
    };
    tokens::announce(&link, &hosting, &settings, guests)?;
    let session = match &to {
        None => Session::host(&settings, &name, Hands::None, link)?,
        Some(to) => Session::join(&settings, &name, Hands::None, link, to)?,
    };
    let session = session.handing_over();

    let mut metrics = dedicated.metrics.map(Metrics::new);
    if let Some(metrics) = &mut metrics {
        metrics.write(&Status::default())?;
    }
    let outcome = show::run(session, &settings, |status| {
        if let Some(metrics) = &mut metrics {
            metrics.update(status);
        }
    })?;
    if let Some(metrics) = &mut metrics {
        metrics.finish();
    }
    Ok(Summary::new(settings, vec![outcome]).report(PROGRAM)?)
}

/// The name of one that was given none: of several that attend to one host each has another.
fn name_of(attends: Attendance) -> Result<String> {
    let kind = match attends {
        Attendance::Watches => return Ok("host".to_owned()),
        Attendance::StandsBy => "standby",
        Attendance::Votes => "arbiter",
    };
    let mut random = random_secret()?;
    let letters = (0..4).map(|_| {
        let letter = b'a' + u8::try_from(random % 26).unwrap_or(0);
        random /= 26;
        char::from(letter)
    });
    Ok(format!("{kind} {}", letters.collect::<String>()))
}

/// The host to attend to.
fn destination(to: &str, insecure: bool) -> Result<Destination> {
    let file = Path::new(to);
    if !insecure && file.is_file() {
        return Destination::from_file(file);
    }
    Destination::from_text(to, insecure)
}

/// A file of figures in Prometheus' text format.
struct Metrics {
    file: PathBuf,
    written_at: Option<Instant>,
    /// What was not written yet, since it was too soon.
    newest: Option<Status>,
}

impl Metrics {
    fn new(file: PathBuf) -> Self {
        Self {
            file,
            written_at: None,
            newest: None,
        }
    }

    /// Writes the file if it is time. A disk that fails later does not end the match.
    fn update(&mut self, status: &Status) {
        let is_due = self
            .written_at
            .is_none_or(|at| at.elapsed() >= METRICS_PERIOD);
        if is_due {
            self.newest = None;
            self.try_write(status);
        } else {
            self.newest = Some(status.clone());
        }
    }

    /// Writes how it ended.
    fn finish(&mut self) {
        if let Some(status) = self.newest.take() {
            self.try_write(&status);
        }
    }

    fn try_write(&mut self, status: &Status) {
        if let Err(error) = self.write(status) {
            // Said once per period, in the log of status lines.
            let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("{error:#}\n"));
            self.written_at = Some(Instant::now());
        }
    }

    fn write(&mut self, status: &Status) -> Result<()> {
        let text = prometheus(status);
        let partial = partial_of(&self.file);
        // Readers see the old file or the new one, nothing in between.
        fs::write(&partial, text)
            .and_then(|()| fs::rename(&partial, &self.file))
            .with_context(|| format!("cannot write {}", self.file.display()))?;
        self.written_at = (!status.figures.is_empty()).then(Instant::now);
        Ok(())
    }
}

fn partial_of(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

fn prometheus(status: &Status) -> String {
    let mut text = String::new();
    let plain = status.figures.iter();
    let plain = plain.map(|(name, value)| (name, "", value));
    let labelled = status.accounts.iter();
    let labelled = labelled.map(|(name, labels, value)| (name, labels.as_str(), value));
    let mut told = "";
    for (name, labels, value) in plain.chain(labelled) {
        let kind = if name.ends_with("_total") {
            "counter"
        } else {
            "gauge"
        };
        if *name != told {
            text.push_str(&format!("# TYPE arena_{name} {kind}\n"));
            told = name;
        }
        text.push_str(&format!("arena_{name}{labels} {value}\n"));
    }
    text
}
