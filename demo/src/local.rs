//! A whole session in one process: a host and clients as separate nodes over loopback.
//!
//! The host is killed in the middle of the match: its socket closes and nobody is told. The others
//! elect one of them, and the match goes on to its last tick. One that stays records all of it.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use phalanx::netcode::tick::Tick;

use crate::options::{Options, Settings};
use crate::play::Hands;
use crate::session::{
    Board, Destination, End, Network, Outcome, Session, Status, open_link, temporary_replay,
};
use crate::show::{self, Display};
use crate::summary::Summary;
use crate::truth::Truth;

/// Ticks of a match that must be left when its host is killed.
const AFTER_TICKS_MIN: u32 = 60;
/// Players that it takes to elect another host when one is gone.
const KILL_PLAYERS_MIN: u8 = 3;
/// Time for everyone to end after the first node did.
const END_LIMIT: Duration = Duration::from_secs(8);

/// Plays the session that `options` describe, and says how it went.
///
/// # Errors
/// If it cannot be set up or shown.
pub fn play(options: Options, keep_host: bool, program: &str) -> Result<ExitCode> {
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
    let recording = Settings {
        record: Some(file),
        ..settings.clone()
    };
    let dies_at = death(&settings).filter(|_| !keep_host);

    let sessions = sessions(&settings, &recording, dies_at)?;
    let troupe = Troupe::start(sessions.into_iter().map(|it| display.prepare(it)))?;
    show::stop_on_signals(&troupe.wishes)?;
    let mut stage = Stage::default();
    let shown = display.follow(|| stage.look(&troupe), || troupe.is_over(), |_status| {});
    if shown.is_err() {
        troupe.stop_all();
    }
    let is_cut_short = troupe.wishes.is_stopped();
    let nodes = troupe.outcomes()?;
    shown?;

    let is_whole = |node: &Outcome| matches!(node.end, End::Finished | End::Killed);
    let early = nodes.iter().find(|node| !is_whole(node));
    let early = early.map(|node| format!("a node stopped at tick {}: {:?}", node.tick, node.end));
    let is_killed = nodes.iter().any(|node| node.end == End::Killed);
    let mut summary = Summary::new(recording, nodes);
    if !is_named {
        summary = summary.of_temporary_replay();
    }
    let code = summary.report(program)?;
    if let (Some(early), true) = (early, code == ExitCode::SUCCESS) {
        bail!(early);
    }
    ensure!(
        is_killed || is_cut_short || dies_at.is_none() || code != ExitCode::SUCCESS,
        "the host was not killed: nobody was ready to take over before the match was over"
    );
    Ok(code)
}

/// When the host is killed, if others can go on: in the middle, or as soon as it says that another
/// can take over.
fn death(settings: &Settings) -> Option<Tick> {
    let last = settings.ticks?.number();
    let tick = last / 2;
    let can_go_on = settings.migration && settings.players >= KILL_PLAYERS_MIN;
    (can_go_on && tick + AFTER_TICKS_MIN <= last).then(|| Tick::new(tick))
}

/// The nodes of the session, the host first.
fn sessions(
    settings: &Settings,
    recording: &Settings,
    dies_at: Option<Tick>,
) -> Result<Vec<Session>> {
    let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let players = usize::from(settings.players);
    let link = open_link(loopback, settings, players, Network::Incoming, 0)?;
    let mut destinations = Vec::new();
    for number in 1..u64::from(settings.players) {
        let address = link.inner().local_addr();
        destinations.push(if settings.insecure {
            Destination::Address(address)
        } else {
            let life = Duration::from_secs(60);
            Destination::Token(Box::new(link.inner().mint_token(number, address, life)?))
        });
    }
    let truth = Truth::default();
    let hands = || Hands::Bot(settings.seed);
    // Somebody who stays records the match.
    let recorder = usize::from(dies_at.is_some());
    let settings_of = |index: usize| {
        if index == recorder {
            recording
        } else {
            settings
        }
    };
    let mut host = Session::host(settings_of(0), "bot 1", hands(), link)?;
    if let Some(tick) = dies_at {
        host = host.dying_at(tick);
    }
    let mut sessions = vec![host.in_view_of(&truth)];
    for (index, to) in (1..).zip(&destinations) {
        let members = if settings.migration { players } else { 0 };
        let stream = u64::try_from(index).unwrap_or(u64::MAX);
        let link = open_link(loopback, settings, members, Network::Incoming, stream)?;
        // The host says when it is over.
        let endless = Settings {
            ticks: None,
            ..settings_of(index).clone()
        };
        let name = format!("bot {}", index + 1);
        let session = Session::join(&endless, &name, hands(), link, to)?;
        sessions.push(session.in_view_of(&truth));
    }
    Ok(sessions)
}

/// Nodes that run, each on a thread of its own with a board of its own.
struct Troupe {
    nodes: Vec<(JoinHandle<Outcome>, Arc<Board>)>,
    /// What whoever watches wants.
    wishes: Board,
}

impl Troupe {
    fn start(sessions: impl Iterator<Item = Session>) -> Result<Self> {
        let nodes = sessions.map(|session| {
            let board = Arc::<Board>::default();
            Ok((show::spawn(session, Arc::clone(&board))?, board))
        });
        Ok(Self {
            nodes: nodes.collect::<Result<_>>()?,
            wishes: Board::default(),
        })
    }

    fn is_over(&self) -> bool {
        self.nodes.iter().all(|(thread, _)| thread.is_finished())
    }

    fn stop_all(&self) {
        self.nodes.iter().for_each(|(_, board)| board.stop());
    }

    fn outcomes(self) -> Result<Vec<Outcome>> {
        let threads = self.nodes.into_iter().map(|(thread, _)| thread);
        threads.map(show::wait).collect()
    }
}

/// Which node is looked at.
#[derive(Default)]
struct Stage {
    shown: usize,
    /// When the first node had ended that was not killed.
    ended_at: Option<Instant>,
}

impl Stage {
    /// How the session stands, as its host says, and does what has to be done about it.
    fn look(&mut self, troupe: &Troupe) -> Status {
        let mut all: Vec<(bool, Status)> = troupe
            .nodes
            .iter()
            // Finished first: a status after that is the last one.
            .map(|(thread, board)| (thread.is_finished(), board.look()))
            .collect();
        let lives = |(is_finished, status): &(bool, Status)| !is_finished && !status.is_killed;
        let rank = |index: &usize| {
            let (_, status) = &all[*index];
            (lives(&all[*index]), status.is_host, status.term)
        };
        let host = (0..all.len()).rev().max_by_key(rank).unwrap_or(0);
        self.direct(troupe, &all, host);
        let mut news = Vec::new();
        if host != self.shown {
            // The last words of the one before.
            news.append(&mut all[self.shown].1.news);
            self.shown = host;
        }
        let (_, mut status) = all.swap_remove(host);
        news.append(&mut status.news);
        status.news = news;
        status
    }

    /// Stops what has to stop. The others of a host that ends the match end with it.
    fn direct(&mut self, troupe: &Troupe, all: &[(bool, Status)], host: usize) {
        let ended = |(is_finished, status): &(bool, Status)| *is_finished && !status.is_killed;
        // One that cannot join would let the others wait for ever.
        let has_failed = all.iter().any(ended) && all[host].1.tick == 0;
        if has_failed || troupe.wishes.is_stopped() {
            troupe.nodes[host].1.stop();
        }
        if all.iter().any(ended) {
            let since = self.ended_at.get_or_insert_with(Instant::now);
            if since.elapsed() > END_LIMIT {
                troupe.stop_all();
            }
        }
    }
}
