//! What lockstep sessions send and how often they wait, exactly: in virtual time.
//!
//! `cargo run --release -p phalanx-benches --bin lockstep [-- [--ticks N] [--seed N] [--long]
//! [--json]]`
//!
//! 60 ticks per second, a round trip of 100 ms, inputs of 8 bytes of which one of 16 bits flips with
//! p = 0.1 per tick. The first ten seconds are not measured. Wire bytes are UDP payload plus 28 B
//! per datagram; the figures with encryption add what the real link adds, as measured on it here.
//! `--long` runs the two strict sessions for a million ticks instead, and fails if any tick stalls.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::process::ExitCode;

use phalanx_benches::lockstep::{Figures, Pace, Scenario, run};
use phalanx_benches::udp_load::{self, Load};
use phalanx_netcode::link::udp::Security;

const LONG_TICKS: u64 = 1_000_000;

/// Bytes by which the number of an encrypted datagram is longer in a long session than in the short
/// one that is measured.
const NUMBER_GROWTH_BYTES: f64 = 2.0;

struct Row {
    name: String,
    loss_percent: u32,
    players: u8,
    figures: Figures,
}

fn main() -> ExitCode {
    match bench() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("failed: {error}");
            ExitCode::FAILURE
        }
    }
}

fn bench() -> Result<bool, String> {
    let (mut ticks, mut long, mut json, mut seed) = (None, false, false, 1);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--long" => long = true,
            "--json" => json = true,
            "--ticks" => ticks = Some(number(&argument, arguments.next())?),
            "--seed" => seed = number(&argument, arguments.next())?,
            other => return Err(format!("unknown argument {other:?}")),
        }
    }
    if long {
        return long_runs(ticks.unwrap_or(LONG_TICKS), seed, json);
    }
    let overhead = encryption_bytes()?;
    let rows = all(ticks.unwrap_or(3600), seed)?;
    if json {
        println!("{}", to_json(&rows, overhead));
        return Ok(true);
    }
    print(&rows, overhead);
    Ok(verdict(&rows, overhead))
}

fn number(option: &str, value: Option<String>) -> Result<u64, String> {
    let value = value.and_then(|text| text.parse().ok());
    value.ok_or_else(|| format!("{option} needs a number"))
}

fn all(ticks: u64, seed: u64) -> Result<Vec<Row>, String> {
    let mut rows = Vec::new();
    let mut add = |name: String, loss_percent, scenario: Scenario| {
        run(&Scenario { seed, ..scenario }).map(|figures| {
            rows.push(Row {
                name,
                loss_percent,
                players: scenario.players,
                figures,
            });
        })
    };
    for delay in [4, 8] {
        for loss in [0, 5, 20] {
            let scenario = Scenario::new(2, Pace::Strict { delay }, loss, ticks);
            add(format!("strict, delay {delay}"), loss, scenario)?;
        }
    }
    for prediction in [0, 12] {
        for players in 2..=8 {
            for loss in [0, 5, 20] {
                if loss != 0 && ![2, 4, 8].contains(&players) {
                    continue;
                }
                let scenario = Scenario::new(players, Pace::Paced { prediction }, loss, ticks);
                let name = match prediction {
                    0 => "paced".to_owned(),
                    _ => format!("paced, predicts {prediction}"),
                };
                add(name, loss, scenario)?;
            }
        }
    }
    let bad = Scenario::new(8, Pace::Paced { prediction: 0 }, 0, ticks).with_a_bad_client();
    add("paced, one bad client".to_owned(), 0, bad)?;
    Ok(rows)
}

/// Bytes that encryption adds to a datagram, measured on a real link over loopback: kind and tag, and
/// a number that takes one byte there, two from 256 datagrams on, and three from 65 536 on.
fn encryption_bytes() -> Result<f64, String> {
    let load = Load {
        clients: 1,
        payload: 40,
        ticks: 60,
    };
    let cost = udp_load::run(load, Security::Secure).map_err(|error| error.to_string())?;
    let measured = (cost.bytes_sent - load.payload as f64) / cost.datagrams_sent;
    Ok(measured + NUMBER_GROWTH_BYTES)
}

fn print(rows: &[Row], overhead: f64) {
    println!(
        "{:<22} {:>2} {:>4} | {:>5} {:>6} {:>6} {:>6} | {:>5} {:>5} {:>5} {:>5} | {:>4} {:>4} | \
         {:>5} {:>5} | {:>5} {:>5} {:>5} {:>5}",
        "session",
        "pl",
        "loss",
        "tick/s",
        "stall%",
        "freeze",
        "replac",
        "pay.u",
        "pay.d",
        "wir.u",
        "wir.d",
        "dg.u",
        "dg.d",
        "kb/s u",
        "kb/s d",
        "enc.u",
        "enc.d",
        "kb/s u",
        "kb/s d"
    );
    for row in rows {
        let figures = &row.figures;
        let (up, down) = (figures.up, figures.down);
        println!(
            "{:<22} {:>2} {:>3}% | {:>6.2} {:>6.3} {:>6.0} {:>6} | {:>5.2} {:>5.2} {:>5.1} {:>5.1} \
             | {:>4.2} {:>4.2} | {:>6.2} {:>6.2} | {:>5.1} {:>5.1} {:>6.2} {:>6.2}",
            row.name,
            row.players,
            row.loss_percent,
            figures.ticks_per_s,
            figures.waits.stalled_percent(),
            figures.waits.longest_freeze_us as f64 / 1000.0,
            figures.waits.replaced + figures.first_client.replaced,
            up.payload_bytes,
            down.payload_bytes,
            up.wire_bytes(0.0),
            down.wire_bytes(0.0),
            up.datagrams,
            down.datagrams,
            kbit(up.wire_bytes(0.0)),
            kbit(down.wire_bytes(0.0)),
            up.wire_bytes(overhead),
            down.wire_bytes(overhead),
            kbit(up.wire_bytes(overhead)),
            kbit(down.wire_bytes(overhead)),
        );
    }
    println!(
        "u: client to host, d: host to client, mean per tick and link; freeze in ms; the last four \
         columns\nwith encryption: {overhead:.2} B per datagram, as measured on the real link plus \
         {NUMBER_GROWTH_BYTES} B, because\nthe number that was one byte there takes three from \
         65 536 datagrams on (18 minutes)."
    );
}

/// Prints what was to be reached; true if it was.
fn verdict(rows: &[Row], overhead: f64) -> bool {
    let mut all = true;
    let mut check = |what: &str, value: f64, limit: f64| {
        let met = value <= limit;
        all &= met;
        let word = if met { "met" } else { "NOT MET" };
        println!("{what}: {value:.2}, at most {limit}: {word}");
    };
    let find = |name: &str, players| {
        rows.iter()
            .find(|row| row.name == name && row.players == players && row.loss_percent == 0)
    };
    if let Some(row) = find("strict, delay 4", 2) {
        let worst = |over| {
            let figures = &row.figures;
            figures
                .up
                .wire_bytes(over)
                .max(figures.down.wire_bytes(over))
        };
        check("2 players, wire bytes per tick and link", worst(0.0), 36.0);
        check("the same with encryption", worst(overhead), 56.0);
        check(
            "stalled ticks, no loss, delay 4",
            row.figures.waits.stalled as f64,
            0.0,
        );
    }
    if let Some(row) = find("paced", 8) {
        let (up, down) = (row.figures.up, row.figures.down);
        check("client of 8, kbit/s up", kbit(up.wire_bytes(0.0)), 16.0);
        check("client of 8, kbit/s down", kbit(down.wire_bytes(0.0)), 20.0);
        let extra = (up.datagrams - 1.0).abs().max((down.datagrams - 1.0).abs());
        check("datagrams per tick, distance from 1", extra, 0.005);
    }
    if let Some(row) = find("paced, one bad client", 8) {
        let (others, bad) = (row.figures.waits, row.figures.first_client);
        check(
            "one client with bursts: stalled ticks of the others",
            others.stalled as f64,
            0.0,
        );
        println!(
            "    it waited {:.2} % of its ticks (longest freeze {:.0} ms); the host replaced {} \
             inputs,\n    and it was told of {} (others had equal bytes, or the word is still on its way)",
            bad.stalled_percent(),
            bad.longest_freeze_us as f64 / 1000.0,
            row.figures.late,
            bad.replaced
        );
    }
    all
}

fn long_runs(ticks: u64, seed: u64, json: bool) -> Result<bool, String> {
    let mut stalled = 0;
    for (loss, delay) in [(0, 4), (5, 8)] {
        let scenario = Scenario::new(2, Pace::Strict { delay }, loss, ticks);
        let figures = run(&Scenario { seed, ..scenario })?;
        stalled += figures.waits.stalled;
        let (waits, up, down) = (figures.waits, figures.up, figures.down);
        if json {
            println!(
                "{{\"loss_percent\":{loss},\"delay\":{delay},\"ticks\":{ticks},\"stalled\":{}}}",
                waits.stalled
            );
        } else {
            println!(
                "strict, delay {delay}, {loss} % loss, {ticks} ticks: {} stalled on both nodes, \
                 wire {:.2} B up, {:.2} B down",
                waits.stalled,
                up.wire_bytes(0.0),
                down.wire_bytes(0.0)
            );
        }
    }
    Ok(stalled == 0)
}

fn to_json(rows: &[Row], overhead: f64) -> String {
    let rows: Vec<String> = rows
        .iter()
        .map(|row| {
            let figures = &row.figures;
            format!(
                "{{\"session\":\"{}\",\"players\":{},\"loss_percent\":{},\"ticks_per_s\":{:.3},\
                 \"stalled_percent\":{:.5},\"longest_freeze_us\":{},\"late\":{},\
                 \"payload_up\":{:.3},\"payload_down\":{:.3},\"wire_up\":{:.3},\"wire_down\":{:.3},\
                 \"datagrams_up\":{:.4},\"datagrams_down\":{:.4}}}",
                row.name,
                row.players,
                row.loss_percent,
                figures.ticks_per_s,
                figures.waits.stalled_percent(),
                figures.waits.longest_freeze_us,
                figures.late,
                figures.up.payload_bytes,
                figures.down.payload_bytes,
                figures.up.wire_bytes(0.0),
                figures.down.wire_bytes(0.0),
                figures.up.datagrams,
                figures.down.datagrams,
            )
        })
        .collect();
    format!(
        "{{\"encryption_bytes\":{overhead:.2},\"rows\":[{}]}}",
        rows.join(",")
    )
}

/// Bytes per tick as kbit/s at 60 ticks per second.
fn kbit(bytes: f64) -> f64 {
    bytes * 60.0 * 8.0 / 1000.0
}
