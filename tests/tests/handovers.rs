//! Hosting that moves as planned, on whole nodes in virtual time: how long members stand still, and
//! that nothing is lost.
//!
//! `SEEDS=n` runs more seeds, `SEED=n` one.

use phalanx::netcode::hash::mix;
use phalanx::netcode::link::conditioner::Conditions;
use phalanx::netcode::session::config::{Gate, HostConfig};
use phalanx::netcode::session::hosting::HostPolicy;
use phalanx::netcode::tick::Tick;
use phalanx_tests::cluster::{Bot, Index};
use phalanx_tests::gaps::Gaps;
use phalanx_tests::seeds;
use phalanx_tests::succession::Succession;

type Session = Succession<Bot>;

/// Milliseconds by which gaps are measured too long: the harness looks at nodes each 5 ms.
const LOOK_MS: u64 = 5;
const TICK_MS: u64 = 17;

fn open(players: u8, gate: Gate, hosting: &HostPolicy, rtt_us: u64, seed: u64) -> Session {
    let host = HostConfig {
        hosting: hosting.clone(),
        ..Session::elected(players, gate)
    };
    let mut guests = Session::guests(players - 1);
    for guest in &mut guests {
        guest.hosting = hosting.clone();
    }
    let conditions = Conditions::from_rtt(rtt_us, 0);
    let repeat = "cargo test -p phalanx-tests --test handovers";
    Session::new(host, guests, conditions, seed, 240, repeat)
}

/// The state of the node that hosts, slot by slot, and its tick.
fn state(session: &Session, host: Index) -> (Tick, Vec<(u64, u32)>) {
    let simulation = session.cluster.members[host].driver.simulation();
    let simulation = simulation.expect("a host has a state");
    let traces = simulation.traces().iter();
    let traces = traces.map(|trace| (trace.sum, trace.present)).collect();
    (session.cluster.node(host).settled_tick(), traces)
}

/// What becomes of a state if every player's input acts as it was submitted, whoever hosts.
fn plain_run(session: &Session, from: Tick, to: Tick, state: &mut [(u64, u32)]) {
    for index in session.alive() {
        let slot = session.cluster.node(index).session().slot;
        let (sum, present) = &mut state[slot.expect("a player").index()];
        let bot = session.cluster.members[index].driver.player();
        for number in from.next().number()..=to.number() {
            // Where a lead grew, a tick has the input of the one before.
            let input = bot.submitted.range(..=Tick::new(number)).next_back();
            let (_, input) = input.expect("it has sampled before");
            *sum = mix(*sum, *input);
            *present += 1;
        }
    }
}

/// Lets the host hand over, and says how long somebody stood still, in milliseconds.
fn gap_of_a_handover(gate: Gate, players: u8, rtt_us: u64, seed: u64) -> u64 {
    let mut session = open(players, gate, &HostPolicy::default(), rtt_us, seed);
    session.run(2_000_000 + seed * 7_919 % 50_000);
    let losses = session.losses();
    let (from, mut expected) = state(&session, 0);
    let gap_ms = session.gap_ms(|it| {
        it.move_host();
        it.assert_recovers(3_000_000);
    });
    assert_eq!(session.losses(), losses);
    let host = session.host().expect("all follow");
    let (to, actual) = state(&session, host);
    if gate == Gate::Paced {
        plain_run(&session, from, to, &mut expected);
        assert_eq!(actual, expected, "a handover changes nothing");
    }
    gap_ms
}

#[test]
fn a_handover_stops_nobody_for_longer_than_a_round_trip_and_a_tick() {
    let wait = Gate::Wait {
        limit_us: 4_000_000,
    };
    for gate in [Gate::Paced, wait] {
        for rtt_ms in [50, 100, 200] {
            let gaps = Gaps::of(seeds::chosen(1, 12).into_iter().map(|seed| {
                let players = 3 + u8::try_from(seed % 6).expect("small");
                gap_of_a_handover(gate, players, rtt_ms * 1000, seed)
            }));
            println!("{gate:?}, RTT {rtt_ms} ms: {gaps}");
            assert!(
                gaps.longest() <= rtt_ms + TICK_MS + LOOK_MS,
                "{gate:?}, RTT {rtt_ms} ms: {gaps:?}"
            );
        }
    }
}

/// A host and its standby in one building, with players who neither vote nor host.
#[test]
fn a_dedicated_pair_is_back_soon() {
    let gaps = Gaps::of(seeds::chosen(1, 12).into_iter().map(|seed| {
        // With a third voter, as a majority of two is both.
        let mut session = open(3, Gate::Paced, &HostPolicy::dedicated(), 2000, seed);
        session.run(1_000_000 + seed * 7_919 % 50_000);
        session.gap_ms(|it| {
            it.cluster.crash(0);
            it.assert_recovers(5_000_000);
        })
    }));
    println!("dedicated, RTT 2 ms: {gaps}");
    assert!(gaps.longest() <= 180, "{gaps:?}");
}
