//! Programs that run, and what tests ask of them.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use phalanx::netcode::prng::Prng;
use serde_json::Value;

pub(crate) const ARENA: &str = env!("CARGO_BIN_EXE_arena");
pub(crate) const ARENA_HOST: &str = env!("CARGO_BIN_EXE_arena-host");
pub(crate) const ARENA_REPLAY: &str = env!("CARGO_BIN_EXE_arena-replay");

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

    /// Waits for its failure: its last line on stderr. A panic is no clean failure.
    pub(crate) fn fail(self) -> String {
        let (status, stdout, stderr) = self.finish();
        assert!(!status.success(), "{stdout}\n{stderr}");
        assert!(status.code().is_some_and(|code| code != 101), "{stderr}");
        assert!(!stderr.contains("panicked"), "{stderr}");
        stderr.lines().next_back().unwrap_or_default().to_owned()
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

pub(crate) fn replay(arguments: &[&str]) -> Process {
    Process::start(ARENA_REPLAY, arguments)
}

/// A folder for one test, empty.
pub(crate) fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
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

/// Sends random datagrams to an address until it is dropped.
pub(crate) struct Noise {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<u32>>,
}

impl Noise {
    pub(crate) fn at(address: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            let mut prng = Prng::new(99);
            let mut sent = 0;
            while !stopped.load(Ordering::Relaxed) {
                let length = usize::try_from(prng.below(1300)).unwrap();
                let mut bytes: Vec<u8> = (0..length)
                    .map(|_| prng.next_u32().to_le_bytes()[0])
                    .collect();
                // Half of them begin like something that a link or a node knows.
                if let Some(first) = bytes.first_mut().filter(|first| **first < 128) {
                    *first = [0x00, 0x01, 0x14, 0x40, 0x41, 0x42, 0x50, 0x53][sent % 8];
                }
                // The host may be gone by now.
                let _ = socket.send_to(&bytes, address);
                sent += 1;
                thread::sleep(Duration::from_millis(1));
            }
            u32::try_from(sent).unwrap()
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }

    pub(crate) fn stop(mut self) -> u32 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

/// Sends a signal to a running program.
#[cfg(unix)]
pub(crate) fn signal(process: &Process, name: &str) {
    let id = process.child.id().to_string();
    let sent = Command::new("kill").args([name, &id]).status().unwrap();
    assert!(sent.success());
}

/// The second of two clients sleeps until its link is given up, and plays to the end after that.
#[cfg(unix)]
pub(crate) fn a_player_goes_away_and_comes_back(host: Process, clients: [Process; 2]) {
    clients
        .iter()
        .for_each(|client| client.wait_for("joined the session"));
    host.wait_for("the match begins");
    // Longer than the two seconds of silence after which the host gives up a link.
    signal(&clients[1], "-STOP");
    host.wait_for("is not connected");
    thread::sleep(Duration::from_millis(1000));
    signal(&clients[1], "-CONT");
    clients[1].wait_for("coming back");
    let [stayed, returned] = clients.map(Process::succeed);
    let runs = [stayed, returned, host.succeed()];
    assert_same_end(&runs, 540);
}
