//! Arena: plays a whole session on this machine, hosts one, or joins one.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail, ensure};
use clap::{Args, Parser, Subcommand};
use phalanx::netcode::limits::SLOTS_MAX;
use phalanx_demo::local;
use phalanx_demo::options::{Hosting, Options, Settings};
use phalanx_demo::play::{Hands, Keyboard};
use phalanx_demo::session::{Destination, Network, Session, open_link};
use phalanx_demo::show;
use phalanx_demo::summary::{self, Summary};
use phalanx_demo::tokens::{self, Guests};

const PROGRAM: &str = "arena";

/// A top-down skirmish of thousands of units, in lockstep or in state-sync mode. Without a command,
/// it plays a session of bots on this machine, each on a node of its own, kills the host in the middle
/// of the match, records it all and verifies the replay: 1200 ticks over a network of 50 ms round trip
/// and 2 % loss, unless options say otherwise.
#[derive(Parser, Debug)]
#[command(name = PROGRAM, version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(flatten)]
    options: Options,
    /// Lets the host live; otherwise it is killed in the middle of the match, and another node hosts
    #[arg(long)]
    keep_host: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Hosts a session and plays in it
    Host(HostCommand),
    /// Joins a session
    Join(JoinCommand),
}

/// What a player without `--bot` types.
const CONTROLS: &str = "\
To play without --bot, type lines: n, ne, e, se, s, sw, w, nw or stop moves the hero; strike and \
rest begin and end its strikes; seek, hold, follow or \"go X Y\" (0 to 200 each) orders the units; \
quit leaves.";

#[derive(Args, Debug)]
#[command(after_help = CONTROLS)]
struct HostCommand {
    #[command(flatten)]
    hosting: Hosting,
    #[command(flatten)]
    options: Options,
    /// Lets a bot play
    #[arg(long)]
    bot: bool,
    /// Name that others see
    #[arg(long, default_value = "host")]
    name: String,
}

#[derive(Args, Debug)]
#[command(after_help = CONTROLS)]
struct JoinCommand {
    /// Join code, or with --insecure the address of the host
    #[arg(value_name = "ADDR|CODE", required_unless_present = "token")]
    to: Option<String>,
    /// Reads the join code from this file
    #[arg(long, value_name = "FILE", conflicts_with = "to")]
    token: Option<PathBuf>,
    #[command(flatten)]
    options: Options,
    /// Lets a bot play
    #[arg(long, conflicts_with = "spectate")]
    bot: bool,
    /// Watches instead of playing
    #[arg(long)]
    spectate: bool,
    /// Name that others see
    #[arg(long, default_value = "player")]
    name: String,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    summary::main(PROGRAM, || match cli.command {
        None => local::play(cli.options, cli.keep_host, PROGRAM),
        Some(Command::Host(command)) => host(command),
        Some(Command::Join(command)) => join(command),
    })
}

/// Hosts a session for players elsewhere, and plays.
fn host(command: HostCommand) -> Result<ExitCode> {
    let settings = command.options.resolve()?;
    let settings = Settings {
        keep: command.hosting.keeps_slots_for(),
        spectators_behind: command.hosting.spectators_are_behind()?,
        inspect: command.hosting.inspects_every(settings.mode)?,
        ..settings
    };
    let link = open_link(
        tokens::bind_of(&command.hosting)?,
        &settings,
        usize::from(settings.players),
        Network::BothWays,
        0,
    )?;
    let guests = Guests {
        players: settings.players - 1,
        others: if settings.migration {
            &["arbiter"]
        } else {
            &[]
        },
    };
    tokens::announce(&link, &command.hosting, &settings, Some(guests))?;
    let session = Session::host(
        &settings,
        &command.name,
        hands(&settings, command.bot),
        link,
    )?
    .handing_over();
    let outcome = show::run(session, &settings, |_status| {})?;
    Ok(Summary::new(settings, vec![outcome]).report(PROGRAM)?)
}

/// Joins a session elsewhere.
fn join(command: JoinCommand) -> Result<ExitCode> {
    let settings = command.options.resolve()?;
    let to = match (&command.to, &command.token) {
        (Some(to), _) => Destination::from_text(to, settings.insecure)?,
        (None, Some(file)) => {
            ensure!(
                !settings.insecure,
                "--insecure goes with an address, not with a join code"
            );
            Destination::from_file(file)?
        }
        (None, None) => bail!("say where to: a join code, or --insecure and an address"),
    };
    let bind = to.bind();
    // Members connect to each other, those who watch included: so all find the next host.
    let members = if settings.migration { SLOTS_MAX } else { 0 };
    let link = open_link(bind, &settings, members, Network::BothWays, 1)?;
    let hands = if command.spectate {
        Hands::None
    } else {
        hands(&settings, command.bot)
    };
    let session = Session::join(&settings, &command.name, hands, link, &to)?.handing_over();
    let outcome = show::run(session, &settings, |_status| {})?;
    Ok(Summary::new(settings, vec![outcome]).report(PROGRAM)?)
}

fn hands(settings: &Settings, bot: bool) -> Hands {
    if bot {
        return Hands::Bot(settings.seed);
    }
    let keyboard = Keyboard::default();
    keyboard.listen();
    Hands::Keyboard(keyboard)
}
