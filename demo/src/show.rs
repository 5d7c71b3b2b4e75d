//! Shows running sessions: the field on a terminal, or a line per second.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::options::Settings;
use crate::session::{Board, Outcome, Session, Status};
use crate::view::{Canvas, STANDINGS_HEAD};

/// Time between two drawings.
const DRAW_PERIOD: Duration = Duration::from_millis(250);
/// Time between two status lines.
const LINE_PERIOD: Duration = Duration::from_secs(1);
/// News that stay below a drawing.
const NEWS_LINES: usize = 4;

/// How to show a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Display {
    /// The field, drawn anew on stdout, which is a terminal.
    Field,
    /// A line per second on stderr, when it says something new.
    Lines,
}

impl Display {
    /// What suits these settings and stdout.
    #[must_use]
    pub fn choose(settings: &Settings) -> Self {
        if settings.headless || settings.json || !io::stdout().is_terminal() {
            Self::Lines
        } else {
            Self::Field
        }
    }

    /// The session, drawing if it is to be drawn.
    #[must_use]
    pub fn prepare(self, session: Session) -> Session {
        match self {
            Self::Field => session.drawing(Canvas::new(std::env::var_os("NO_COLOR").is_none())),
            Self::Lines => session,
        }
    }

    /// Shows what `look` finds until `is_over`; `each` sees every status.
    ///
    /// # Errors
    /// If the output cannot be written, for example because a pipe was closed.
    pub fn follow(
        self,
        mut look: impl FnMut() -> Status,
        is_over: impl Fn() -> bool,
        mut each: impl FnMut(&Status),
    ) -> Result<()> {
        let mut shown_at: Option<Instant> = None;
        let mut news: Vec<String> = Vec::new();
        let mut said = String::new();
        let period = match self {
            Self::Field => DRAW_PERIOD,
            Self::Lines => LINE_PERIOD,
        };
        loop {
            let over = is_over();
            if over || shown_at.is_none_or(|at| at.elapsed() >= period) {
                shown_at = Some(Instant::now());
                let status = look();
                each(&status);
                news.extend(status.news.iter().cloned());
                match self {
                    Self::Field => {
                        let old = news.len().saturating_sub(NEWS_LINES);
                        news.drain(..old);
                        draw(&status, &news)?;
                    }
                    Self::Lines => {
                        let mut stderr = io::stderr().lock();
                        for line in news.drain(..) {
                            writeln!(stderr, "{line}")?;
                        }
                        // A match that stands still, or waits for players, is told once.
                        if status.line != said {
                            writeln!(stderr, "{}", status.line)?;
                            said.clone_from(&status.line);
                        }
                    }
                }
            }
            if over {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Runs one session to its end and shows it meanwhile. SIGINT and SIGTERM end it cleanly.
///
/// # Errors
/// If signals cannot be handled or the output fails; how the session went is in the outcome.
pub fn run(session: Session, settings: &Settings, each: impl FnMut(&Status)) -> Result<Outcome> {
    let display = Display::choose(settings);
    let board = Arc::new(Board::default());
    stop_on_signals(&board)?;
    let thread = spawn(display.prepare(session), Arc::clone(&board))?;
    let shown = display.follow(|| board.look(), || thread.is_finished(), each);
    if shown.is_err() {
        // Nobody sees it any more; end it as if by a signal.
        board.stop();
    }
    let outcome = wait(thread)?;
    shown?;
    Ok(outcome)
}

/// Runs a session on a thread of its own.
///
/// # Errors
/// If the system starts no thread.
pub fn spawn(session: Session, board: Arc<Board>) -> Result<JoinHandle<Outcome>> {
    std::thread::Builder::new()
        .name("arena-session".to_owned())
        .spawn(move || session.run(&board))
        .context("cannot start a thread")
}

/// Waits for a session's thread.
///
/// # Errors
/// If it panicked.
pub fn wait(thread: JoinHandle<Outcome>) -> Result<Outcome> {
    thread
        .join()
        .map_err(|_panic| anyhow!("a session ended unexpectedly, which is a bug"))
}

/// Lets SIGINT and SIGTERM stop what looks at `board`; a second signal ends the process.
///
/// # Errors
/// If the system does not allow it.
pub fn stop_on_signals(board: &Board) -> Result<()> {
    for signal in [SIGINT, SIGTERM] {
        let flag = board.stop_flag();
        signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&flag))
            .and_then(|_id| signal_hook::flag::register(signal, flag))
            .context("cannot handle signals")?;
    }
    Ok(())
}

fn draw(status: &Status, news: &[String]) -> io::Result<()> {
    // Home, then line by line, each erased to its end: no flicker.
    let mut text = String::from("\x1b[H");
    let mut line = |content: &str| {
        text.push_str(content);
        text.push_str("\x1b[K\n");
    };
    let mut field_is_open = false;
    let mut edges = 0;
    for row in status.view.lines() {
        if edges == 2 && !field_is_open {
            line(STANDINGS_HEAD);
            field_is_open = true;
        }
        edges += usize::from(row.starts_with("+-"));
        line(row);
    }
    line(&status.line);
    for item in news {
        line(item);
    }
    text.push_str("\x1b[J");
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}
