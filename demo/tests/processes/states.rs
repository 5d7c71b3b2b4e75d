//! The same programs in state-sync mode.

use super::*;

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
    assert_converged(&a_signal_ends_the_match(host, client));
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

#[test]
fn a_host_tells_what_each_client_is_sent_by_field() {
    let metrics = folder("inspect").join("metrics.txt");
    let host = host_of_states(&[
        "--insecure",
        "--players",
        "2",
        "--ticks",
        "200",
        "--inspect",
        "1",
        "--metrics",
        metrics.to_str().unwrap(),
    ]);
    let address = host.address().to_string();
    let clients = ["1", "2"].map(|seed| join_states(&[&address, "--insecure", "--seed", seed]));
    // The table, in the log.
    host.wait_for("bit/s at tick");
    host.wait_for("Position.0");
    let clients = clients.map(Process::succeed);
    let run = host.succeed();
    let accounts = run["inspected"].as_array().unwrap();
    assert_eq!(accounts.len(), 2, "{run}");
    let mut sent = 0.0;
    for account in accounts {
        let bits = account["bits"].as_object().unwrap();
        let sum: f64 = bits.values().map(|bits| bits.as_f64().unwrap()).sum();
        let bytes = account["bytes"].as_f64().unwrap();
        assert!((sum - bytes * 8.0).abs() < 1.0, "{sum} of {account}");
        let of = |name: &str| bits.get(name).and_then(Value::as_f64).unwrap_or(0.0);
        assert!(of("Position.0") > 1000.0, "{account}");
        assert!(of("(header)") > 1000.0, "{account}");
        sent += bytes;
    }
    // The clients counted what arrived between the first tick and the last, with headers of 28 B;
    // before that each was told the whole state once, at most 5 kB.
    let received: f64 = clients
        .iter()
        .map(|run| {
            let of = |name: &str| run[name].as_f64().unwrap();
            let headers = 28.0 * of("datagrams_per_client_tick");
            (of("bytes_down_per_client_tick") - headers) * of("ticks")
        })
        .sum();
    assert!(
        (received * 0.8..received * 1.1 + 10_000.0).contains(&sent),
        "{sent} for {received}"
    );

    let text = fs::read_to_string(&metrics).unwrap();
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("arena_state_bits_total{member="))
        .collect();
    assert!(
        lines.iter().any(|line| line.contains("kind=\"Position\"")),
        "{text}"
    );
    let types = text
        .lines()
        .filter(|line| line.starts_with("# TYPE arena_state_bits_total"));
    assert_eq!(types.count(), 1, "{text}");
}

#[test]
fn an_inspector_has_nothing_to_see_in_lockstep() {
    let error = host(&["--insecure", "--inspect"]).fail();
    assert!(error.contains("--mode state-sync"), "{error}");
}
