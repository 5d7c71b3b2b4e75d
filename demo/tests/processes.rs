//! The programs as processes, over real sockets on loopback.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

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

const ARENA: &str = env!("CARGO_BIN_EXE_arena");
const ARENA_HOST: &str = env!("CARGO_BIN_EXE_arena-host");
const ARENA_REPLAY: &str = env!("CARGO_BIN_EXE_arena-replay");

/// No process needs as long as this, even on a busy machine.
const LIMIT: Duration = Duration::from_secs(90);

/// A running program, killed if its test ends before it.
struct Process {
    child: Child,
    stdout: Output,
    stderr: Output,
}

/// Lines of a pipe, taken by a thread so that the program never waits for us.
struct Output {
    lines: Arc<Mutex<Vec<String>>>,
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

    fn text(&self) -> String {
        self.lines.lock().unwrap().join("\n")
    }

    /// Waits until line `number` is there.
    fn line(&self, number: usize) -> String {
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
    fn start(program: &str, arguments: &[&str]) -> Self {
        Self::start_with(Command::new(program).args(arguments))
    }

    fn start_with(command: &mut Command) -> Self {
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
    fn finish(mut self) -> (ExitStatus, String, String) {
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
    fn succeed(self) -> Value {
        let (status, stdout, stderr) = self.finish();
        assert!(status.success(), "{stdout}\n{stderr}");
        serde_json::from_str(stdout.lines().next_back().unwrap()).unwrap()
    }

    /// Waits for its failure: its last line on stderr. A panic is no clean failure.
    fn fail(self) -> String {
        let (status, stdout, stderr) = self.finish();
        assert!(!status.success(), "{stdout}\n{stderr}");
        assert!(status.code().is_some_and(|code| code != 101), "{stderr}");
        assert!(!stderr.contains("panicked"), "{stderr}");
        stderr.lines().next_back().unwrap_or_default().to_owned()
    }

    /// Waits until these words are on stderr.
    fn wait_for(&self, words: &str) {
        let start = Instant::now();
        while !self.stderr.text().contains(words) {
            assert!(start.elapsed() < LIMIT, "{words}: {}", self.stderr.text());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The address in a host's first line.
    fn address(&self) -> SocketAddr {
        let line = self.stdout.line(0);
        line.strip_prefix("listening ").unwrap().parse().unwrap()
    }

    /// The join code in a host's line `number`, counted from 1.
    fn code(&self, number: usize) -> String {
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

fn host(arguments: &[&str]) -> Process {
    let common = ["--bind", "127.0.0.1:0", "--units", "300", "--json"];
    Process::start(ARENA_HOST, &[&common, arguments].concat())
}

fn join(arguments: &[&str]) -> Process {
    let common = ["join", "--bot", "--headless", "--units", "300", "--json"];
    Process::start(ARENA, &[&common, arguments].concat())
}

fn replay(arguments: &[&str]) -> Process {
    Process::start(ARENA_REPLAY, arguments)
}

/// A folder for one test, empty.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn assert_same_end(runs: &[Value], ticks: u32) {
    for run in runs {
        assert_eq!(run["state_hash"], runs[0]["state_hash"], "{runs:#?}");
        assert_eq!(run["state_hash"].as_str().unwrap().len(), 16);
        assert_eq!(run["ticks"], ticks);
        assert_eq!(run["desyncs"], 0);
        assert_eq!(run["mode"], runs[0]["mode"]);
    }
}

/// That all hold what the host wants them to, besides.
fn assert_converged(runs: &[Value]) {
    for run in runs {
        assert_eq!(run["mode"], "state-sync");
        assert_eq!(run["converged"], true, "{runs:#?}");
    }
}

const STATE_SYNC: [&str; 2] = ["--mode", "state-sync"];

fn host_of_states(arguments: &[&str]) -> Process {
    host(&[&STATE_SYNC, arguments].concat())
}

fn join_states(arguments: &[&str]) -> Process {
    join(&[&STATE_SYNC, arguments].concat())
}

/// Sends random datagrams to an address until it is dropped.
struct Noise {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<u32>>,
}

impl Noise {
    fn at(address: SocketAddr) -> Self {
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

    fn stop(mut self) -> u32 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

#[test]
fn separate_processes_end_in_one_state_and_its_replay_verifies() {
    let folder = folder("insecure");
    let file = folder.join("match.phx");
    let name = file.to_str().unwrap();
    let host = host(&[
        "--insecure",
        "--players",
        "2",
        "--ticks",
        "150",
        "--record",
        name,
    ]);
    let address = host.address().to_string();
    let noise = Noise::at(host.address());
    let clients = ["1", "2"].map(|seed| join(&[&address, "--insecure", "--seed", seed]));
    let mut runs: Vec<Value> = clients.into_iter().map(Process::succeed).collect();
    runs.push(host.succeed());
    assert!(noise.stop() > 0);
    assert_same_end(&runs, 150);
    // The noise, eight datagrams per client and tick, is counted apart from what clients cost.
    assert!(runs[2]["datagrams_refused"].as_u64().unwrap() > 0);
    let per_tick = runs[2]["datagrams_per_client_tick"].as_f64().unwrap();
    assert!((0.5..3.0).contains(&per_tick), "{per_tick}");
    assert_eq!(runs[2]["players"], 2);
    assert_eq!(runs[2]["replay_verified"], true);
    assert!(runs[0]["bytes_up_per_client_tick"].as_f64().unwrap() > 28.0);

    let (status, stdout, stderr) = replay(&["verify", name]).finish();
    assert!(status.success(), "{stderr}");
    assert!(stdout.contains("ticks 0 to 150"), "{stdout}");
    let (status, stdout, _) = replay(&["info", name]).finish();
    assert!(status.success() && stdout.contains("arena"), "{stdout}");
    let (status, stdout, _) = replay(&["dump", name, "--tick", "40"]).finish();
    assert!(status.success() && stdout.contains("Position"), "{stdout}");
    let (status, stdout, _) = replay(&["play", name, "--from", "140", "--speed", "50"]).finish();
    assert!(
        status.success() && stdout.contains("tick 150 of 150"),
        "{stdout}"
    );
    assert!(
        replay(&["play", name, "--from", "151"])
            .fail()
            .contains("151")
    );

    // A reader that has seen enough closes the pipe, as `head` does.
    for command in ["info", "dump"] {
        let mut child = Command::new(ARENA_REPLAY)
            .args([command, name])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && stderr.is_empty(), "{stderr}");
    }

    // A replay that was changed anywhere, or cut within its header, is not verified.
    let good = fs::read(&file).unwrap();
    let changed = folder.join("changed.phx");
    let changed_name = changed.to_str().unwrap();
    for place in [9, good.len() / 3, good.len() / 2, good.len() - 40] {
        let mut bytes = good.clone();
        bytes[place] ^= 0x10;
        fs::write(&changed, bytes).unwrap();
        replay(&["verify", changed_name]).fail();
    }
    fs::write(&changed, &good[..40]).unwrap();
    replay(&["verify", changed_name]).fail();
    fs::write(&changed, b"dear diary, today").unwrap();
    assert!(
        replay(&["info", changed_name])
            .fail()
            .contains("not a replay")
    );
    assert!(
        replay(&["verify", "no/such/file"])
            .fail()
            .contains("no/such/file")
    );
}

#[test]
fn join_codes_let_one_player_in_once() {
    let host = host(&["--players", "2", "--ticks", "120"]);
    let noise = Noise::at(host.address());
    let first = join(&[&host.code(1), "--seed", "1"]);
    // The first one is in once the host says so.
    host.wait_for("is here");
    let again = join(&[&host.code(1), "--seed", "2"]).fail();
    assert!(again.contains("already used"), "{again}");
    let address = host.address().to_string();
    let open = join(&[&address, "--insecure", "--timeout", "1"]).fail();
    assert!(open.contains("does not answer"), "{open}");

    let second = join(&[&host.code(2), "--seed", "2"]);
    let runs = [first, second, host].map(Process::succeed);
    noise.stop();
    assert_same_end(&runs, 120);
}

#[test]
fn token_files_work_and_expired_or_damaged_ones_are_refused() {
    let folder = folder("tokens");
    let folder_name = folder.to_str().unwrap();
    let host = host(&[
        "--players",
        "1",
        "--ticks",
        "60",
        "--token-dir",
        folder_name,
    ]);
    let file = host
        .stdout
        .line(1)
        .strip_prefix("token ")
        .unwrap()
        .to_owned();

    let mut code = fs::read_to_string(&file).unwrap().trim().to_owned();
    let last = code.pop().unwrap();
    let cut = join(&[&code]).fail();
    assert!(cut.contains("damaged"), "{cut}");
    code.push(if last == 'A' { 'B' } else { 'A' });
    join(&[&code]).fail();

    let runs = [join(&["--token", &file]), host].map(Process::succeed);
    assert_same_end(&runs, 60);

    let host = self::host(&["--players", "1", "--token-life", "1"]);
    let code = host.code(1);
    thread::sleep(Duration::from_millis(2100));
    let late = join(&[&code]).fail();
    assert!(late.contains("expired"), "{late}");
}

#[test]
fn what_cannot_work_is_said_in_one_sentence() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = folder("wrong");
    let config = folder.join("host.toml");
    fs::write(&config, "playrs = 2\n").unwrap();
    let cases: [(Process, &str); 11] = [
        (Process::start(ARENA_HOST, &["--bind", &address]), "busy"),
        (
            Process::start(ARENA_HOST, &["--config", config.to_str().unwrap()]),
            "playrs",
        ),
        (Process::start(ARENA_HOST, &["--players", "0"]), "--players"),
        (Process::start(ARENA, &["--loss", "101"]), "--loss"),
        (
            Process::start(ARENA, &["--record", "no/such/folder/x"]),
            "no/such/folder",
        ),
        // A socket that never answers.
        (
            join(&[&address, "--insecure", "--timeout", "1"]),
            "does not answer",
        ),
        (join(&[&address]), "--insecure"),
        (join(&["127.0.0.1", "--insecure"]), "address"),
        // A name that must not exist (RFC 6761).
        (
            join(&["nowhere.invalid:7777", "--insecure"]),
            "nowhere.invalid",
        ),
        (
            Process::start(ARENA_HOST, &["--bind", "nowhere.invalid:7777"]),
            "--bind: no address is known",
        ),
        (join(&["phx-nonsense"]), "join code"),
    ];
    for (process, words) in cases {
        let sentence = process.fail();
        assert!(sentence.contains(words), "{words}: {sentence}");
    }
    for arguments in [
        &["--nonsense"][..],
        &["--mode", "magic"],
        &["--players", "many"],
        &["host", "--bind", "7777"],
    ] {
        let (status, _, stderr) = Process::start(ARENA, arguments).finish();
        assert_eq!(status.code(), Some(2), "{stderr}");
        let option = arguments.iter().find(|word| word.starts_with("--"));
        assert!(stderr.contains(option.unwrap()), "{stderr}");
    }
}

#[test]
fn a_client_of_another_build_learns_what_differs() {
    let host = host(&["--insecure", "--players", "1"]);
    let address = host.address().to_string();
    let other = [
        "join",
        &address,
        "--insecure",
        "--bot",
        "--headless",
        "--units",
        "299",
    ];
    let refused = Process::start(ARENA, &other).fail();
    assert!(
        refused.contains("300 units") && refused.contains("299 units"),
        "{refused}"
    );
}

#[cfg(unix)]
#[test]
fn a_signal_ends_the_match_for_everyone_in_one_state() {
    let metrics = folder("signal").join("metrics.txt");
    let config = metrics.with_file_name("host.toml");
    fs::write(&config, "players = 1\ninsecure = true\nrtt = 20\n").unwrap();
    let host = host(&[
        "--config",
        config.to_str().unwrap(),
        "--metrics",
        metrics.to_str().unwrap(),
    ]);
    let client = join(&[&host.address().to_string(), "--insecure"]);
    host.wait_for("the match begins");
    thread::sleep(Duration::from_millis(500));
    signal(&host, "-TERM");
    let runs = [client, host].map(Process::succeed);
    assert_eq!(runs[0]["state_hash"], runs[1]["state_hash"], "{runs:#?}");
    assert_eq!(runs[0]["ticks"], runs[1]["ticks"]);
    let text = fs::read_to_string(&metrics).unwrap();
    assert!(text.contains("# TYPE arena_tick gauge"), "{text}");
}

#[test]
fn a_whole_session_on_this_machine_succeeds() {
    let file = folder("whole").join("match.phx");
    let name = file.to_str().unwrap();
    let run = Process::start(
        ARENA,
        &[
            "--ticks",
            "150",
            "--players",
            "3",
            "--units",
            "300",
            "--record",
            name,
            "--json",
        ],
    )
    .succeed();
    assert_eq!(run["ticks"], 150);
    assert_eq!(run["players"], 3);
    assert_eq!(run["desyncs"], 0);
    assert_eq!(run["hashes_equal"], true);
    assert_eq!(run["replay_verified"], true);
    assert_eq!(run["replay_file"], name);
    assert!(run["rtt_ms"].as_f64().unwrap() >= 50.0);
}

#[cfg(unix)]
#[test]
fn a_replay_that_nobody_named_is_verified_and_leaves_nothing_behind() {
    let folder = folder("temporary");
    let run = |arguments: &[&str]| {
        // Even the shortest match has a last hash to verify.
        let short = ["--ticks", "2", "--units", "30", "--headless"];
        let mut command = Command::new(ARENA);
        command.args(short).args(arguments).env("TMPDIR", &folder);
        Process::start_with(&mut command)
    };
    let (status, stdout, stderr) = run(&[]).finish();
    assert!(status.success(), "{stderr}");
    assert!(stdout.contains("verified: ticks 0 to 2"), "{stdout}");
    assert!(stdout.contains("temporary"), "{stdout}");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0, "{stdout}");

    // What the figures name is there.
    let figures = run(&["--json"]).succeed();
    assert_eq!(figures["ticks"], 2);
    assert_eq!(figures["replay_verified"], true);
    let file = Path::new(figures["replay_file"].as_str().unwrap());
    assert!(file.starts_with(&folder) && file.is_file(), "{figures}");

    let named = folder.join("named.phxr");
    let (status, stdout, _) = run(&["--record", named.to_str().unwrap()]).finish();
    assert!(status.success() && named.is_file(), "{stdout}");
    assert!(stdout.contains("named.phxr verified"), "{stdout}");
}

#[cfg(unix)]
#[test]
fn a_signal_ends_a_host_that_still_waits_for_players() {
    for with_client in [false, true] {
        let file = folder("lobby").join("match.phxr");
        let name = file.to_str().unwrap();
        let arguments = ["--bind", "127.0.0.1:0", "--units", "300", "--insecure"];
        let wanted = ["--players", "2", "--record", name];
        let host = Process::start(ARENA_HOST, &[&arguments[..], &wanted].concat());
        let address = host.address().to_string().replace("127.0.0.1", "localhost");
        let client = with_client.then(|| join(&[&address, "--insecure"]));
        if with_client {
            host.wait_for("is here");
        }
        signal(&host, "-TERM");
        let (status, stdout, stderr) = host.finish();
        assert!(status.success(), "{stdout}\n{stderr}");
        let here = usize::from(with_client);
        let sentence = format!("the match did not begin: {here} of 2 players were here");
        assert!(stdout.contains(&sentence), "{stdout}\n{stderr}");
        assert!(!stdout.contains("score points"), "{stdout}");
        assert!(!file.exists());
        if let Some(client) = client {
            let figures = client.succeed();
            assert_eq!(figures["ticks"], 0, "{figures}");
            assert_eq!(figures["ok"], true, "{figures}");
        }
    }
}

/// Sends a signal to a running program.
#[cfg(unix)]
fn signal(process: &Process, name: &str) {
    let id = process.child.id().to_string();
    let sent = Command::new("kill").args([name, &id]).status().unwrap();
    assert!(sent.success());
}

#[cfg(unix)]
#[test]
fn a_player_who_was_away_comes_back_into_the_same_slot() {
    let host = host(&[
        "--insecure",
        "--players",
        "2",
        "--ticks",
        "540",
        "--timeout",
        "2",
    ]);
    let address = host.address().to_string();
    let clients =
        ["1", "2"].map(|seed| join(&[&address, "--insecure", "--seed", seed, "--timeout", "2"]));
    a_player_goes_away_and_comes_back(host, clients);
}

#[cfg(unix)]
#[test]
fn a_player_with_a_join_code_comes_back_without_another() {
    let host = host(&["--players", "2", "--ticks", "540", "--timeout", "2"]);
    let clients = [1, 2].map(|number| {
        let (code, seed) = (host.code(number), number.to_string());
        join(&[&code, "--seed", &seed, "--timeout", "2"])
    });
    a_player_goes_away_and_comes_back(host, clients);
}

/// The second of two clients sleeps until its link is given up, and plays to the end after that.
#[cfg(unix)]
fn a_player_goes_away_and_comes_back(host: Process, clients: [Process; 2]) {
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

#[cfg(unix)]
#[test]
fn a_host_that_crashes_is_missed_by_its_clients() {
    let host = host(&["--insecure", "--players", "1"]);
    let address = host.address().to_string();
    let client = join(&[&address, "--insecure", "--timeout", "2"]);
    host.wait_for("the match begins");
    signal(&host, "-KILL");
    let lines = Arc::clone(&client.stderr.lines);
    let sentence = client.fail();
    assert!(sentence.contains("does not answer"), "{sentence}");
    // What stands still is said once.
    let lines = lines.lock().unwrap();
    let said_again = lines.windows(2).find(|pair| pair[0] == pair[1]);
    assert_eq!(said_again, None, "{lines:#?}");
}

#[test]
fn state_sync_clients_end_with_what_their_host_has() {
    let file = folder("states").join("match.phxr");
    let name = file.to_str().unwrap();
    let wanted = ["--players", "2", "--ticks", "240", "--record", name];
    let host = host_of_states(&[&["--insecure"], &wanted[..]].concat());
    let address = host.address().to_string();
    let bad = ["--rtt", "60", "--loss", "5"];
    let clients = ["1", "2"].map(|seed| {
        let own = [address.as_str(), "--insecure", "--seed", seed];
        join_states(&[&own[..], &bad].concat())
    });
    let mut runs: Vec<Value> = clients.into_iter().map(Process::succeed).collect();
    runs.push(host.succeed());
    assert_same_end(&runs, 240);
    assert_converged(&runs);
    for client in &runs[..2] {
        let down = client["bytes_down_per_client_tick"].as_f64().unwrap();
        let kbit_s = client["kbit_s_down"].as_f64().unwrap();
        assert!((kbit_s - down * 0.48).abs() < 0.1, "{kbit_s} from {down}");
        assert!(client["predictions"].as_u64().unwrap() > 10, "{client}");
        let error = client["shown_error_p99"].as_f64().unwrap();
        assert!((0.0..5.0).contains(&error), "{error}");
    }
    assert!(
        runs[2]["shown_error_p99"].is_null(),
        "a host shows the truth"
    );
    assert_eq!(runs[2]["replay_verified"], true);

    let (status, stdout, stderr) = replay(&["verify", name]).finish();
    assert!(
        status.success() && stdout.contains("to 240"),
        "{stdout}{stderr}"
    );
    let (status, stdout, _) = replay(&["play", name, "--from", "230", "--speed", "50"]).finish();
    assert!(status.success(), "{stdout}");
    // The armies are drawn, not only their figures.
    let drawn = stdout.lines().filter(|line| line.starts_with('|'));
    let of = |letter| drawn.clone().any(|line| line.contains(letter));
    assert!(of('a') && of('b'), "{stdout}");
}

#[test]
fn state_sync_works_with_join_codes_and_in_one_process() {
    let host = host_of_states(&["--players", "2", "--ticks", "150", "--view", "30"]);
    let clients = [1, 2].map(|number| {
        let (code, seed) = (host.code(number), number.to_string());
        join_states(&[&code, "--seed", &seed])
    });
    let [first, second] = clients.map(Process::succeed);
    let runs = [first, second, host.succeed()];
    assert_same_end(&runs, 150);
    assert_converged(&runs);

    let here = [
        "--ticks",
        "150",
        "--players",
        "3",
        "--units",
        "300",
        "--json",
    ];
    let run = Process::start(ARENA, &[&STATE_SYNC, &here[..]].concat()).succeed();
    assert_eq!(run["ticks"], 150);
    assert_eq!(run["hashes_equal"], true);
    assert_converged(std::slice::from_ref(&run));
    assert_eq!(run["replay_verified"], true);
    assert!(run["rtt_ms"].as_f64().unwrap() >= 50.0);
    assert!(run["shown_error_p99"].as_f64().unwrap() < 5.0, "{run}");
}

#[cfg(unix)]
#[test]
fn state_sync_takes_in_late_players_and_those_who_were_killed() {
    let host = host_of_states(&[
        "--insecure",
        "--players",
        "2",
        "--ticks",
        "600",
        "--timeout",
        "2",
        "--keep",
        "1",
    ]);
    let address = host.address().to_string();
    let client = |seed: &str| join_states(&[&address, "--insecure", "--seed", seed]);
    let (stays, dies) = (client("1"), client("2"));
    host.wait_for("the match begins");
    thread::sleep(Duration::from_millis(500));
    signal(&dies, "-KILL");
    host.wait_for("is not connected");
    // Its slot is kept for a second; then it is free for whoever comes late.
    thread::sleep(Duration::from_millis(1500));
    let late = client("3");
    let runs = [stays, late, host].map(Process::succeed);
    assert_same_end(&runs, 600);
    assert_converged(&runs);
    assert_eq!(runs[1]["players"], 2, "{}", runs[1]);
    drop(dies);
}

#[cfg(unix)]
#[test]
fn a_state_sync_player_who_was_away_comes_back_into_the_same_slot() {
    let common = ["--insecure", "--timeout", "2"];
    let wanted = ["--players", "2", "--ticks", "540"];
    let host = host_of_states(&[&common[..], &wanted].concat());
    let address = host.address().to_string();
    let clients = ["1", "2"].map(|seed| {
        let own = [address.as_str(), "--seed", seed];
        join_states(&[&common[..], &own].concat())
    });
    a_player_goes_away_and_comes_back(host, clients);
}

#[cfg(unix)]
#[test]
fn a_signal_ends_a_state_sync_match_for_everyone() {
    let host = host_of_states(&["--insecure", "--players", "1"]);
    let client = join_states(&[&host.address().to_string(), "--insecure"]);
    host.wait_for("the match begins");
    thread::sleep(Duration::from_millis(500));
    signal(&host, "-TERM");
    let runs = [client, host].map(Process::succeed);
    assert_eq!(runs[0]["state_hash"], runs[1]["state_hash"], "{runs:#?}");
    assert_eq!(runs[0]["ticks"], runs[1]["ticks"]);
    assert_converged(&runs);
}

#[test]
fn modes_that_differ_and_options_of_another_mode_are_refused() {
    let host = host_of_states(&["--insecure", "--players", "1"]);
    let refused = join(&[&host.address().to_string(), "--insecure"]).fail();
    assert!(
        refused.contains("state-sync") && refused.contains("lockstep"),
        "{refused}"
    );
    for (arguments, words) in [
        (&["--view", "20"][..], "--view"),
        (
            &["--mode", "state-sync", "--snapshots", "25"],
            "--snapshots",
        ),
        (&["--mode", "state-sync", "--budget", "1"], "--budget"),
        (&["--mode", "state-sync", "--gate", "wait"], "--gate"),
    ] {
        let sentence = Process::start(ARENA, arguments).fail();
        assert!(sentence.contains(words), "{words}: {sentence}");
    }
}
