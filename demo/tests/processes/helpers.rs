//! What the tests of the programs need besides running them.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use phalanx::netcode::prng::Prng;
use serde_json::Value;

use crate::running::*;

pub(crate) const ARENA_REPLAY: &str = env!("CARGO_BIN_EXE_arena-replay");

impl Process {
    /// Waits for its failure: its last line on stderr. A panic is no clean failure.
    pub(crate) fn fail(self) -> String {
        let (status, stdout, stderr) = self.finish();
        assert!(!status.success(), "{stdout}\n{stderr}");
        assert!(status.code().is_some_and(|code| code != 101), "{stderr}");
        assert!(!stderr.contains("panicked"), "{stderr}");
        stderr.lines().next_back().unwrap_or_default().to_owned()
    }
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

/// A signal to the host ends the match for both, in one state. Returns what the client and the host
/// say of it.
#[cfg(unix)]
pub(crate) fn a_signal_ends_the_match(host: Process, client: Process) -> [Value; 2] {
    host.wait_for("the match begins");
    thread::sleep(Duration::from_millis(500));
    signal(&host, "-TERM");
    let runs = [client, host].map(Process::succeed);
    assert_eq!(runs[0]["state_hash"], runs[1]["state_hash"], "{runs:#?}");
    assert_eq!(runs[0]["ticks"], runs[1]["ticks"]);
    runs
}
