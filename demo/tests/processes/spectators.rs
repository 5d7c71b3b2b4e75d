//! Spectators that watch later than the match is played.

use std::time::Instant;

use super::*;

/// The newest tick that a process has told of.
fn tick_of(process: &Process) -> u32 {
    let text = process.stderr.text();
    let told = text
        .lines()
        .rev()
        .find_map(|line| line.strip_prefix("tick "));
    let number = told.and_then(|rest| rest.split_whitespace().next());
    number.map_or(0, |number| number.parse().unwrap())
}

/// A match of some seconds with a player and a spectator, who is two seconds behind.
fn a_spectator_is_behind(mode: &str) {
    let common = ["--insecure", "--mode", mode];
    let wanted = ["--players", "1", "--ticks", "360", "--spectator-delay", "2"];
    let host = host(&[&common[..], &wanted].concat());
    let address = host.address().to_string();
    let watch = [
        "join",
        &address,
        "--spectate",
        "--headless",
        "--units",
        "300",
        "--json",
    ];
    let spectator = Process::start(ARENA, &[&watch[..], &common].concat());
    let player = join(&[&[address.as_str()][..], &common].concat());
    // Each says where it is once per second, at moments of its own: without a delay what the
    // spectator said last is at most a second older.
    let start = Instant::now();
    loop {
        let seen = tick_of(&spectator);
        let played = tick_of(&host);
        if seen > 0 && played >= seen + 100 {
            break;
        }
        assert!(start.elapsed() < LIMIT, "{seen} of {played}");
        thread::sleep(Duration::from_millis(5));
    }
    let runs = [player, spectator, host].map(Process::succeed);
    assert_same_end(&runs, 360);
}

#[test]
fn spectators_are_behind_in_lockstep() {
    a_spectator_is_behind("lockstep");
}

#[test]
fn spectators_are_behind_in_state_sync() {
    a_spectator_is_behind("state-sync");
}

#[test]
fn nobody_is_behind_further_than_a_host_remembers() {
    let error = host(&["--insecure", "--spectator-delay", "11"]).fail();
    assert!(error.contains("0 to 10 seconds"), "{error}");
}
