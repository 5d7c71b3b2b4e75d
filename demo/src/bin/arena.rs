//! Arena: plays a whole session on this machine, hosts one, or joins one.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Parser, Subcommand};
use phalanx::netcode::link::udp::JoinToken;
use phalanx_demo::options::{Hosting, Options, Settings};
use phalanx_demo::place::Place;
use phalanx_demo::play::{Hands, Keyboard};
use phalanx_demo::session::{
    Board, Destination, End, Network, Outcome, Session, open_link, temporary_replay,
};
use phalanx_demo::show::{self, Display};
use phalanx_demo::summary::{self, Summary};
use phalanx_demo::tokens;
use phalanx_demo::truth::Truth;

const PROGRAM: &str = "arena";

/// A top-down skirmish of thousands of units, in lockstep or in state-sync mode. Without a command,
/// it plays a session of bots on this machine, each on a node of its own, records it and verifies the
/// replay: 1200 ticks over a network of 50 ms round trip and 2 % loss, unless options say otherwise.
#[derive(Parser, Debug)]
#[command(name = PROGRAM, version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(flatten)]
    options: Options,
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
rest begin and end its strikes; seek, hold, follow or \"go X Y\" (0 to 200 each) orders the units.";

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
        None => play_here(cli.options),
        Some(Command::Host(command)) => host(command),
        Some(Command::Join(command)) => join(command),
    })
}

/// Hosts a session for players elsewhere, and plays.
fn host(command: HostCommand) -> Result<ExitCode> {
    let settings = Settings {
        keep: command.hosting.keeps_slots_for(),
        spectators_behind: command.hosting.spectators_are_behind()?,
        ..command.options.resolve()?
    };
    let link = open_link(
        tokens::bind_of(&command.hosting)?,
        &settings,
        usize::from(settings.players),
        Network::BothWays,
        0,
    )?;
    tokens::announce(&link, &command.hosting, &settings, settings.players - 1)?;
    let session = Session::host(
        &settings,
        &command.name,
        hands(&settings, command.bot),
        link,
    )?;
    let outcome = show::run(session, &settings, |_status| {})?;
    Ok(Summary::new(settings, vec![outcome], true).report(PROGRAM)?)
}

/// Joins a session elsewhere.
fn join(command: JoinCommand) -> Result<ExitCode> {
    let settings = command.options.resolve()?;
    let to = match (&command.to, &command.token) {
        (Some(to), _) => destination(to, &settings)?,
        (None, Some(file)) => {
            ensure!(
                !settings.insecure,
                "--insecure goes with an address, not with a join code"
            );
            let token = JoinToken::read_file(file)
                .with_context(|| format!("cannot use {}", file.display()))?;
            Destination::Token(Box::new(token))
        }
        (None, None) => bail!("say where to: a join code, or --insecure and an address"),
    };
    let bind = any_address_towards(to.address());
    let link = open_link(bind, &settings, 0, Network::BothWays, 1)?;
    let hands = if command.spectate {
        Hands::None
    } else {
        hands(&settings, command.bot)
    };
    let session = Session::join(&settings, &command.name, hands, link, &to)?;
    let outcome = show::run(session, &settings, |_status| {})?;
    Ok(Summary::new(settings, vec![outcome], false).report(PROGRAM)?)
}

fn destination(to: &str, settings: &Settings) -> Result<Destination> {
    match (to.parse::<Place>(), settings.insecure) {
        (Ok(place), true) => return Ok(Destination::Address(place.resolve("--insecure")?)),
        (Ok(place), false) => {
            bail!(
                "{place} is an address: joining it needs --insecure, or a join code from the host"
            )
        }
        (Err(error), true) => bail!("--insecure needs an address: {error}"),
        (Err(_error), false) => {}
    }
    let token = JoinToken::from_text(to).context("cannot join")?;
    Ok(Destination::Token(Box::new(token)))
}

fn any_address_towards(host: SocketAddr) -> SocketAddr {
    if host.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (std::net::Ipv6Addr::UNSPECIFIED, 0).into()
    }
}

fn hands(settings: &Settings, bot: bool) -> Hands {
    if bot {
        return Hands::Bot(settings.seed);
    }
    let keyboard = Keyboard::default();
    keyboard.listen();
    Hands::Keyboard(keyboard)
}

/// Plays a whole session on this machine: a host and clients as separate nodes over loopback.
fn play_here(options: Options) -> Result<ExitCode> {
    let defaults = Options {
        ticks: Some(1200),
        rtt: Some(50),
        loss: Some(2.0),
        ..Options::default()
    };
    let mut settings = options.or(defaults).resolve()?;
    let display = Display::choose(&settings);
    let named = settings.record.take();
    let is_named = named.is_some();
    let file = named.unwrap_or_else(|| temporary_replay(settings.seed));

    let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let clients = settings.players - 1;
    let link = open_link(
        loopback,
        &settings,
        usize::from(clients),
        Network::Incoming,
        0,
    )?;
    let mut destinations = Vec::new();
    for number in 1..=u64::from(clients) {
        let address = link.inner().local_addr();
        destinations.push(if settings.insecure {
            Destination::Address(address)
        } else {
            let life = Duration::from_secs(60);
            Destination::Token(Box::new(link.inner().mint_token(number, address, life)?))
        });
    }

    let board = Arc::new(Board::default());
    show::stop_on_signals(&board)?;
    let hosted = Settings {
        record: Some(file),
        ..settings.clone()
    };
    let truth = Truth::default();
    let host = Session::host(&hosted, "bot 1", Hands::Bot(settings.seed), link)?;
    let host = host.in_view_of(&truth);
    let mut sessions = Vec::new();
    for (number, to) in (1..).zip(&destinations) {
        let link = open_link(loopback, &settings, 0, Network::Incoming, number)?;
        let name = format!("bot {}", number + 1);
        // The host says when it is over.
        let endless = Settings {
            ticks: None,
            ..settings.clone()
        };
        let hands = Hands::Bot(settings.seed);
        let session = Session::join(&endless, &name, hands, link, to)?;
        sessions.push(session.in_view_of(&truth));
    }

    let host = show::spawn(display.prepare(host), Arc::clone(&board))?;
    // Clients stop when their host does, so each has a board that nobody stops.
    let boards: Vec<Arc<Board>> = sessions.iter().map(|_| Arc::default()).collect();
    let clients: Vec<JoinHandle<Outcome>> = sessions
        .into_iter()
        .zip(&boards)
        .map(|(session, board)| show::spawn(session, Arc::clone(board)))
        .collect::<Result<_>>()?;
    let over = || host.is_finished() && clients.iter().all(JoinHandle::is_finished);
    let shown = display.follow(&board, over, |status| {
        // A client that cannot join would let the others wait for ever.
        let lost_one = clients.iter().any(JoinHandle::is_finished);
        if lost_one && status.tick == 0 {
            board.stop();
        }
        if host.is_finished() {
            boards.iter().for_each(|board| board.stop());
        }
    });
    if shown.is_err() {
        board.stop();
    }
    let mut nodes = vec![show::wait(host)?];
    for client in clients {
        nodes.push(show::wait(client)?);
    }
    shown?;
    let cut_short = nodes[0].end != End::Finished;
    let mut summary = Summary::new(hosted, nodes, true);
    if !is_named {
        summary = summary.of_temporary_replay();
    }
    let code = summary.report(PROGRAM)?;
    Ok(if cut_short { ExitCode::FAILURE } else { code })
}
