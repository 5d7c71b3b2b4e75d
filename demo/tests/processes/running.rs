//! Programs that run, and what tests ask of them.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;

pub(crate) const ARENA: &str = env!("CARGO_BIN_EXE_arena");
pub(crate) const ARENA_HOST: &str = env!("CARGO_BIN_EXE_arena-host");

/// No process needs as long as this, even on a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(90);

/// A running program, killed if its test ends before it.
pub(crate) struct Process {
    pub(crate) child: Child,
    pub(crate) stdout: Output,
    pub(crate) stderr: Output,
}

/// Lines of a pipe, taken by a thread so that the program never waits for us.
pub(crate) struct Output {
    pub(crate) lines: Arc<Mutex<Vec<String>>>,
    thread: Option<JoinHandle<()>>,
}

impl Output {
    fn of(pipe: impl Read + Send + 'static) -> Self {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&lines);
        let thread = thread::spawn(move || {
            for line in BufReader::new(pipe).lines() {
                shared.lock().unwrap().push(line.unwrap());
            }
        });
        Self {
            lines,
            thread: Some(thread),
        }
    }

    pub(crate) fn text(&self) -> String {
        self.lines.lock().unwrap().join("\n")
    }

    /// Waits until line `number` is there.
    pub(crate) fn line(&self, number: usize) -> String {
        let start = Instant::now();
        loop {
            if let Some(line) = self.lines.lock().unwrap().get(number) {
                return line.clone();
            }
            assert!(start.elapsed() < LIMIT, "only: {}", self.text());
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Process {
    pub(crate) fn start(program: &str, arguments: &[&str]) -> Self {
        Self::start_with(Command::new(program).args(arguments))
    }

    pub(crate) fn start_with(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = Output::of(child.stdout.take().unwrap());
        let stderr = Output::of(child.stderr.take().unwrap());
        Self {
            child,
            stdout,
            stderr,
        }
    }

    /// Waits for its end: status, stdout, stderr.
    pub(crate) fn finish(mut self) -> (ExitStatus, String, String) {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(start.elapsed() < LIMIT, "it hangs: {}", self.stderr.text());
            thread::sleep(Duration::from_millis(5));
        };
        for output in [&mut self.stdout, &mut self.stderr] {
            output.thread.take().unwrap().join().unwrap();
        }
        (status, self.stdout.text(), self.stderr.text())
    }

    /// Waits for its success: the JSON object in its last line.
    pub(crate) fn succeed(self) -> Value {
        let (status, stdout, stderr) = self.finish();
        assert!(status.success(), "{stdout}\n{stderr}");
        serde_json::from_str(stdout.lines().next_back().unwrap()).unwrap()
    }

    /// Waits until these words are on stderr.
    pub(crate) fn wait_for(&self, words: &str) {
        let start = Instant::now();
        while !self.stderr.text().contains(words) {
            assert!(start.elapsed() < LIMIT, "{words}: {}", self.stderr.text());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The address in a host's first line.
    pub(crate) fn address(&self) -> SocketAddr {
        let line = self.stdout.line(0);
        line.strip_prefix("listening ").unwrap().parse().unwrap()
    }

    /// The join code in a host's line `number`, counted from 1.
    pub(crate) fn code(&self, number: usize) -> String {
        let line = self.stdout.line(number);
        line.strip_prefix("join ").unwrap().to_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It has ended, or its test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn host(arguments: &[&str]) -> Process {
    let common = ["--bind", "127.0.0.1:0", "--units", "300", "--json"];
    Process::start(ARENA_HOST, &[&common, arguments].concat())
}

pub(crate) fn join(arguments: &[&str]) -> Process {
    let common = ["join", "--bot", "--headless", "--units", "300", "--json"];
    Process::start(ARENA, &[&common, arguments].concat())
}

pub(crate) fn assert_same_end(runs: &[Value], ticks: u32) {
    for run in runs {
        assert_eq!(run["state_hash"], runs[0]["state_hash"], "{runs:#?}");
        assert_eq!(run["state_hash"].as_str().unwrap().len(), 16);
        assert_eq!(run["ticks"], ticks);
        assert_eq!(run["desyncs"], 0);
        assert_eq!(run["mode"], runs[0]["mode"]);
    }
}

/// Sends a signal to a running program.
#[cfg(unix)]
pub(crate) fn signal(process: &Process, name: &str) {
    let id = process.child.id().to_string();
    let sent = Command::new("kill").args([name, &id]).status().unwrap();
    assert!(sent.success());
}
