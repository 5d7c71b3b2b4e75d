//! Hosting that moves between processes, over real sockets on loopback.
//!
//! `RUNS=50 cargo test --release -p phalanx-demo --test migration the_others_go_on -- --nocapture`
//! kills that many hosts per mode and prints how long the players stood still.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "processes/running.rs"]
mod running;

use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use running::*;

/// A mode with the options that choose it.
#[derive(Clone, Copy, Debug)]
struct Mode(&'static [&'static str]);

const LOCKSTEP: Mode = Mode(&[]);
const STATE_SYNC: Mode = Mode(&["--mode", "state-sync"]);

/// A player that hosts for so many others. It listens without encryption.
fn host_that_plays(mode: Mode, players: &str, ticks: &str) -> Process {
    let arguments = [
        "host",
        "--bot",
        "--headless",
        "--units",
        "300",
        "--json",
        "--insecure",
        "--bind",
        "127.0.0.1:0",
        "--name",
        "founder",
        "--players",
        players,
        "--ticks",
        ticks,
    ];
    Process::start(ARENA, &[&arguments, mode.0].concat())
}

/// Players that join it.
fn players(mode: Mode, host: &Process, count: u8) -> Vec<Process> {
    let address = host.address().to_string();
    let one = |number: u8| {
        let (seed, name) = (number.to_string(), format!("player {number}"));
        let own = [
            address.as_str(),
            "--insecure",
            "--seed",
            &seed,
            "--name",
            &name,
        ];
        join(&[&own, mode.0].concat())
    };
    (1..=count).map(one).collect()
}

const READY: &str = "another member can take over";

/// All ended at the last tick in one state, with the same host in the same term.
fn assert_agreement(runs: &[Value], ticks: u32) {
    assert_same_end(runs, ticks);
    for run in runs {
        for figure in ["host", "term"] {
            assert_eq!(run[figure], runs[0][figure], "{runs:#?}");
        }
        assert_eq!(run["ok"], true, "{run:#}");
        assert_eq!(run["unclean"], false, "{run:#}");
        if run["mode"] == "state-sync" {
            assert_eq!(run["converged"], true, "{run:#}");
        }
    }
}

/// As [`assert_agreement`], and hosting has moved so often.
fn assert_moves(runs: &[Value], ticks: u32, moves: u32) {
    assert_agreement(runs, ticks);
    for run in runs {
        assert_eq!(run["migrations"], moves, "{run:#}");
        assert_eq!(run["forked"], false, "{run:#}");
        assert_eq!(run["session"], runs[0]["session"], "{runs:#?}");
    }
}

/// As [`assert_moves`], once.
fn assert_one_move(runs: &[Value], ticks: u32) {
    assert_moves(runs, ticks, 1);
}

/// A host that is told to go hands over, and ends well.
fn leave(host: Process) {
    signal(&host, "-TERM");
    let left = host.succeed();
    assert_eq!(left["ok"], true, "{left:#}");
}

/// As [`assert_moves`] of those who stay, and no input of theirs was lost.
fn assert_handed_over(others: Vec<Process>, ticks: u32, moves: u32) -> Vec<Value> {
    let runs: Vec<Value> = others.into_iter().map(Process::succeed).collect();
    assert_moves(&runs, ticks, moves);
    for run in &runs {
        assert_eq!(run["inputs_lost"], 0, "{run:#}");
    }
    runs
}

/// A match of so many players in which another one could take over: its host, and the others.
fn ready_match(mode: Mode, count: u8, ticks: &str) -> (Process, Vec<Process>) {
    let host = host_that_plays(mode, &count.to_string(), ticks);
    let others = players(mode, &host, count - 1);
    host.wait_for(READY);
    (host, others)
}

/// Kills the host of five players in the middle of the match, at another moment in each run. How
/// long the others stood still, in milliseconds.
fn kill_the_host(mode: Mode, run: u64) -> Vec<f64> {
    let (host, others) = ready_match(mode, 5, "240");
    thread::sleep(Duration::from_millis(1200 + run * 37 % 400));
    signal(&host, "-KILL");
    let runs: Vec<Value> = others.into_iter().map(Process::succeed).collect();
    assert_one_move(&runs, 240);
    for run in &runs {
        assert_eq!(run["ticks_lost"], 0, "{run:#}");
    }
    let blackout = |run: &Value| run["blackout_ms"].as_f64().unwrap();
    runs.iter().map(blackout).collect()
}

#[expect(clippy::print_stdout, reason = "figures for whoever asks for them")]
fn kill_hosts(mode: Mode) {
    let runs = std::env::var("RUNS").map_or(1, |runs| runs.parse::<u64>().unwrap());
    // The player that stood still for longest speaks for its match.
    let worst = |all: Vec<f64>| all.into_iter().fold(0.0, f64::max);
    let mut gaps: Vec<f64> = (0..runs)
        .map(|run| worst(kill_the_host(mode, run)))
        .collect();
    gaps.sort_by(f64::total_cmp);
    let at = |percent: usize| gaps[(gaps.len() * percent).div_ceil(100).max(1) - 1];
    println!(
        "{runs} hosts killed, {mode:?}: p50 {} ms, p99 {} ms, longest {} ms",
        at(50),
        at(99),
        at(100)
    );
}

#[test]
fn the_others_go_on_when_the_host_is_killed() {
    kill_hosts(LOCKSTEP);
}

#[test]
fn the_others_go_on_in_state_sync_when_the_host_is_killed() {
    kill_hosts(STATE_SYNC);
}

/// Pauses the host until the others have another one, and wakes it up again.
fn pause_the_host(mode: Mode) {
    let (host, others) = ready_match(mode, 4, "420");
    signal(&host, "-STOP");
    others
        .iter()
        .for_each(|player| player.wait_for("hosts from now on, in term"));
    signal(&host, "-CONT");
    host.wait_for("hosts from now on, in term");
    let mut runs: Vec<Value> = others.into_iter().map(Process::succeed).collect();
    runs.push(host.succeed());
    assert_one_move(&runs, 420);
}

#[test]
fn a_host_that_slept_follows_the_next_one() {
    pause_the_host(LOCKSTEP);
}

#[test]
fn a_host_of_states_that_slept_follows_the_next_one() {
    pause_the_host(STATE_SYNC);
}

/// How long a machine sleeps, in seconds: longer than a link is silent before it ends, which is the
/// second number.
fn sleep_of_machine() -> (u64, String) {
    match std::env::var("SLEEP") {
        Ok(seconds) => (seconds.parse().unwrap(), "10".to_owned()),
        Err(_unset) => (4, "2".to_owned()),
    }
}

/// A player that hosts for three others, and those, with join codes. The match goes on for longer than
/// a machine sleeps. Its last tick.
fn encrypted_match(mode: Mode) -> (Process, Vec<Process>, u32) {
    let (sleep, timeout) = sleep_of_machine();
    let ticks = u32::try_from(60 * (sleep + 16)).unwrap();
    let number = ticks.to_string();
    let common = ["--timeout", &timeout, "--units", "300", "--json"];
    let arguments = [
        "host",
        "--bot",
        "--headless",
        "--bind",
        "127.0.0.1:0",
        "--name",
        "founder",
        "--players",
        "4",
        "--keep",
        "60",
        "--ticks",
        &number,
    ];
    let host = Process::start(ARENA, &[&arguments[..], &common, mode.0].concat());
    let one = |number: usize| {
        let (code, seed, name) = (
            host.code(number),
            number.to_string(),
            format!("player {number}"),
        );
        let own = ["join", &code, "--bot", "--headless"];
        let who = ["--seed", &seed, "--name", &name];
        Process::start(ARENA, &[&own[..], &who, &common, mode.0].concat())
    };
    let others: Vec<Process> = (1..=3).map(one).collect();
    (host, others, ticks)
}

/// A host's machine sleeps until all its links have ended, and wakes up: it finds back into the game
/// that went on, and plays on in its slot.
fn put_the_host_to_sleep(mode: Mode) {
    let (sleep, _) = sleep_of_machine();
    let (host, others, ticks) = encrypted_match(mode);
    host.wait_for(READY);
    signal(&host, "-STOP");
    thread::sleep(Duration::from_secs(sleep));
    others
        .iter()
        .for_each(|player| player.wait_for("hosts from now on, in term"));
    signal(&host, "-CONT");
    host.wait_for("hosts from now on, in term");
    let mut runs: Vec<Value> = others.into_iter().map(Process::succeed).collect();
    runs.push(host.succeed());
    assert_one_move(&runs, ticks);
    for run in &runs {
        assert_eq!(run["players"], 4, "{run:#}");
    }
}

#[test]
fn a_host_that_slept_until_its_links_had_ended_comes_back() {
    put_the_host_to_sleep(LOCKSTEP);
}

#[test]
fn a_host_of_states_that_slept_until_its_links_had_ended_comes_back() {
    put_the_host_to_sleep(STATE_SYNC);
}

/// A player's machine sleeps, and the host dies meanwhile. Whoever hosts then had no path to the player
/// of which that knew, but both have ways back.
fn put_a_player_to_sleep(mode: Mode) {
    let (sleep, _) = sleep_of_machine();
    let (host, mut others, ticks) = encrypted_match(mode);
    host.wait_for(READY);
    let sleeper = others.remove(1);
    signal(&sleeper, "-STOP");
    // A majority of four without two of them there is only once the sleeper has lost its vote.
    thread::sleep(Duration::from_secs(sleep));
    signal(&host, "-KILL");
    others
        .iter()
        .for_each(|player| player.wait_for("hosts from now on, in term"));
    signal(&sleeper, "-CONT");
    sleeper.wait_for("hosts from now on, in term");
    others.push(sleeper);
    let runs: Vec<Value> = others.into_iter().map(Process::succeed).collect();
    assert_one_move(&runs, ticks);
}

#[test]
fn a_player_that_slept_while_the_host_died_comes_back() {
    put_a_player_to_sleep(LOCKSTEP);
}

#[test]
fn a_player_of_states_that_slept_while_the_host_died_comes_back() {
    put_a_player_to_sleep(STATE_SYNC);
}

/// Ends the host's process politely: it hands over, and nothing is lost.
fn ask_the_host_to_go(mode: Mode) {
    let (host, others) = ready_match(mode, 4, "300");
    leave(host);
    for run in assert_handed_over(others, 300, 1) {
        assert_eq!(run["ticks_lost"], 0, "{run:#}");
    }
}

#[test]
fn a_host_that_leaves_hands_over() {
    ask_the_host_to_go(LOCKSTEP);
}

#[test]
fn a_host_of_states_that_leaves_hands_over() {
    ask_the_host_to_go(STATE_SYNC);
}

/// Ends the founder's process politely, and that of the player who hosts then.
fn ask_two_hosts_to_go(mode: Mode) {
    let (host, mut others) = ready_match(mode, 4, "600");
    leave(host);
    let start = Instant::now();
    let next = loop {
        let can_go = |player: &Process| player.stderr.text().contains(READY);
        if let Some(index) = others.iter().position(can_go) {
            break others.remove(index);
        }
        assert!(start.elapsed() < Duration::from_secs(30), "nobody hosts");
        thread::sleep(Duration::from_millis(5));
    };
    leave(next);
    assert_handed_over(others, 600, 2);
}

#[test]
fn a_player_that_joined_and_hosts_hands_over_as_well() {
    ask_two_hosts_to_go(LOCKSTEP);
}

#[test]
fn a_player_of_states_that_joined_and_hosts_hands_over_as_well() {
    ask_two_hosts_to_go(STATE_SYNC);
}

/// A dedicated host, its standby and two players with join codes; `name` is the signal that the
/// host gets.
fn replace_a_dedicated_host(mode: Mode, name: &str) {
    let host = host(&[&["--players", "2", "--ticks", "300"], mode.0].concat());
    let code = host.stdout.line(3);
    let code = code.strip_prefix("standby ").unwrap();
    let standing_by = ["--standby-of", code, "--name", "standby"];
    let standby = self::host(&[&standing_by, mode.0].concat());
    let others: Vec<Process> = [1, 2]
        .map(|number| {
            let (code, seed) = (host.code(number), number.to_string());
            join(&[&[&code, "--seed", &seed], mode.0].concat())
        })
        .into();
    host.wait_for(READY);
    if name == "-TERM" {
        leave(host);
    } else {
        signal(&host, name);
    }
    standby.wait_for("this node, \"standby\", hosts from now on");
    let mut runs: Vec<Value> = others.into_iter().map(Process::succeed).collect();
    runs.push(standby.succeed());
    assert_one_move(&runs, 300);
    for run in &runs {
        assert_eq!(run["players"], 2, "{run:#}");
    }
}

#[test]
fn a_standby_takes_over_from_a_dedicated_host_that_is_killed() {
    replace_a_dedicated_host(LOCKSTEP, "-KILL");
}

#[test]
fn a_dedicated_host_hands_over_to_its_standby() {
    replace_a_dedicated_host(LOCKSTEP, "-TERM");
}

#[test]
fn a_dedicated_host_of_states_that_is_killed_has_a_standby() {
    replace_a_dedicated_host(STATE_SYNC, "-KILL");
}

#[test]
fn a_dedicated_host_of_states_hands_over_to_its_standby() {
    replace_a_dedicated_host(STATE_SYNC, "-TERM");
}

/// Two players, and a member that only votes: one of the players goes on in the same session when the
/// other one is gone.
fn two_players_and_an_arbiter(mode: Mode) {
    let host = host_that_plays(mode, "2", "420");
    let address = host.address().to_string();
    let voting = ["--insecure", "--arbiter-of", &address];
    let arbiter = self::host(&[&voting, mode.0].concat());
    arbiter.wait_for("watching the session");
    let mut others = players(mode, &host, 1);
    host.wait_for(READY);
    signal(&host, "-KILL");
    others[0].wait_for("this node, \"player 1\", hosts from now on");
    others.push(arbiter);
    let runs: Vec<Value> = others.into_iter().map(Process::succeed).collect();
    assert_one_move(&runs, 420);
    for run in &runs {
        assert_eq!(run["host_name"], "player 1", "{run:#}");
    }
}

#[test]
fn one_of_two_players_goes_on_with_an_arbiter() {
    two_players_and_an_arbiter(LOCKSTEP);
}

#[test]
fn one_of_two_players_of_states_goes_on_with_an_arbiter() {
    two_players_and_an_arbiter(STATE_SYNC);
}

/// Two players without an arbiter, of whom one hosts.
fn two_players(mode: Mode, ticks: &str) -> (Process, Process) {
    let host = host_that_plays(mode, "2", ticks);
    let other = players(mode, &host, 1).remove(0);
    host.wait_for("tick ");
    other.wait_for("tick ");
    (host, other)
}

/// What a run says that has failed, and why.
fn failed(process: Process) -> (Value, String) {
    let (status, stdout, stderr) = process.finish();
    assert!(!status.success(), "{stdout}\n{stderr}");
    let last = stdout.lines().next_back().unwrap();
    let run: Value = serde_json::from_str(last).unwrap();
    assert_eq!(run["ok"], false, "{run:#}");
    (run, stderr)
}

/// The host sleeps, and the other player goes on alone: when they hear each other again both are told
/// that the match is played twice, and neither says that all is well.
fn put_one_of_two_to_sleep(mode: Mode) {
    let (host, other) = two_players(mode, "900");
    signal(&host, "-STOP");
    other.wait_for("alone in a session of its own");
    signal(&host, "-CONT");
    let words = "since tick";
    host.wait_for(words);
    other.wait_for(words);
    let (first, why) = failed(host);
    assert!(why.contains("played twice"), "{why}");
    assert!(
        why.contains("\"player 1\" plays on in a session of its own"),
        "{why}"
    );
    let (second, why) = failed(other);
    assert!(
        why.contains("\"founder\" plays on in a session of its own"),
        "{why}"
    );
    assert_ne!(first["session"], second["session"]);
    for run in [first, second] {
        assert_eq!(run["forked"], true, "{run:#}");
        assert_eq!(run["unclean"], true, "{run:#}");
    }
}

#[test]
fn both_of_two_players_know_that_the_match_forked() {
    put_one_of_two_to_sleep(LOCKSTEP);
}

#[test]
fn both_of_two_players_of_states_know_that_the_match_forked() {
    put_one_of_two_to_sleep(STATE_SYNC);
}

/// The other one is dead: as far as anybody knows there is one match.
#[test]
fn one_of_two_players_goes_on_alone_and_says_so() {
    let (host, other) = two_players(LOCKSTEP, "400");
    signal(&host, "-KILL");
    let run = other.succeed();
    assert_eq!(run["ok"], true, "{run:#}");
    assert_eq!(run["forked"], true, "{run:#}");
    assert_eq!(run["ticks"], 400, "{run:#}");
}

/// A dedicated host without a standby: its players may not host, and are told so.
#[test]
fn where_nobody_else_may_host_players_are_told() {
    let host = host(&["--insecure", "--players", "2", "--ticks", "900"]);
    let address = host.address().to_string();
    let common = [address.as_str(), "--insecure"];
    let others = ["1", "2"].map(|seed| join(&[&common[..], &["--seed", seed]].concat()));
    others.iter().for_each(|player| player.wait_for("tick "));
    // One that only sleeps is waited for.
    signal(&host, "-STOP");
    let words = "\"host\" hosts, and nobody else here may: waiting for it";
    others.iter().for_each(|player| player.wait_for(words));
    signal(&host, "-CONT");
    let mut runs: Vec<Value> = others.into_iter().map(Process::succeed).collect();
    runs.push(host.succeed());
    assert_moves(&runs, 900, 0);
    for run in &runs[..2] {
        assert!(run["blackout_ms"].as_f64().unwrap() > 0.0, "{run:#}");
    }
}

/// Where hosting does not move, the match is over with its host.
#[test]
fn without_migration_nobody_goes_on() {
    let arguments = [
        "host",
        "--bot",
        "--headless",
        "--units",
        "300",
        "--json",
        "--insecure",
        "--bind",
        "127.0.0.1:0",
        "--players",
        "3",
        "--no-migration",
    ];
    let host = Process::start(ARENA, &arguments);
    let others = players(LOCKSTEP, &host, 2);
    host.wait_for("the match begins");
    signal(&host, "-TERM");
    let mut runs: Vec<Value> = others.into_iter().map(Process::succeed).collect();
    runs.push(host.succeed());
    for run in &runs {
        assert_eq!(run["state_hash"], runs[0]["state_hash"], "{runs:#?}");
        assert_eq!(run["migrations"], 0, "{run:#}");
        assert!(run["blackout_ms"].is_null(), "{run:#}");
    }
}
