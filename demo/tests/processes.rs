//! The programs as processes, over real sockets on loopback.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "processes/helpers.rs"]
mod helpers;
#[path = "processes/running.rs"]
mod running;
#[path = "processes/spectators.rs"]
mod spectators;
#[path = "processes/states.rs"]
mod states;

use std::fs;
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use helpers::*;
use running::*;

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
    let cases: [(Process, &str); 14] = [
        (Process::start(ARENA_HOST, &["--bind", &address]), "busy"),
        (
            Process::start(ARENA_HOST, &["--config", config.to_str().unwrap()]),
            "playrs",
        ),
        (Process::start(ARENA_HOST, &["--players", "0"]), "--players"),
        (
            Process::start(ARENA, &["--players", "1000"]),
            "--players must lie in 1 to 64",
        ),
        // Said before anything listens: that address is taken.
        (
            Process::start(
                ARENA_HOST,
                &["--bind", &address, "--standby-of", "NONSENSE"],
            ),
            "join code",
        ),
        (
            Process::start(
                ARENA_HOST,
                &["--bind", &address, "--arbiter-of", "x", "--no-migration"],
            ),
            "--arbiter-of and --no-migration contradict each other",
        ),
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
        &["host", "--standby-of", "127.0.0.1:7777"],
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
    a_signal_ends_the_match(host, client);
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
    assert!(sentence.contains("nobody else here may host"), "{sentence}");
    // What stands still is said once.
    let lines = lines.lock().unwrap();
    let said_again = lines.windows(2).find(|pair| pair[0] == pair[1]);
    assert_eq!(said_again, None, "{lines:#?}");
}
