//! Hosting moves by itself: members elect another host when theirs is gone, and a host that hands
//! over loses nothing. Whole nodes, bytes and all, in virtual time.
//!
//! `SEEDS=n` runs more seeds, `SEED=n` one.

use phalanx::netcode::link::conditioner::Conditions;
use phalanx::netcode::prng::Prng;
use phalanx::netcode::session::config::{Gate, HostConfig, JoinConfig, MigrationConfig, Start};
use phalanx_tests::cluster::Index;
use phalanx_tests::succession::Succession;

const PACED: Gate = Gate::Paced;
const WAIT: Gate = Gate::Wait {
    limit_us: 4_000_000,
};

fn open(players: u8, gate: Gate, conditions: Conditions, seed: u64, test: &str) -> Succession {
    let host = HostConfig {
        plays: true,
        gate,
        start: Start::Players(players),
        migration: MigrationConfig::ELECTED,
        ..HostConfig::new(Succession::game(), players)
    };
    let join = JoinConfig::new(Succession::game(), "member");
    let repeat = format!("SEED={seed} cargo test -p phalanx-tests --test elections {test}");
    Succession::new(host, &join, players, conditions, seed, &repeat)
}

fn seeds(usual: u64) -> Vec<u64> {
    let read = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    match (read("SEED"), read("SEEDS")) {
        (Some(seed), _) => vec![seed],
        (None, count) => (1..=count.unwrap_or(usual)).collect(),
    }
}

#[test]
fn members_elect_another_host_when_theirs_dies() {
    for seed in seeds(6) {
        let players = 3 + u8::try_from(seed % 3).expect("small");
        let gate = if seed % 2 == 0 { PACED } else { WAIT };
        let conditions = Conditions::from_rtt(50_000, 0);
        let test = "members_elect_another_host_when_theirs_dies";
        let mut session = open(players, gate, conditions, seed, test);
        session.forget_gaps();
        session.cluster.crash(0);
        session.assert_recovers(5_000_000);
        let gap_us = session.longest_gap_us();
        println!(
            "seed {seed}: {players} players, {gate:?}: gap {} ms",
            gap_us / 1000
        );
        assert!(gap_us <= 420_000, "{}: {gap_us} us", session.seed);
    }
}

#[test]
fn a_handover_loses_nothing() {
    for seed in seeds(6) {
        let players = 3 + u8::try_from(seed % 3).expect("small");
        let gate = if seed % 2 == 0 { PACED } else { WAIT };
        let conditions = Conditions::from_rtt(50_000, 0);
        let mut session = open(players, gate, conditions, seed, "a_handover_loses_nothing");
        session.run(2_000_000);
        session.forget_gaps();
        let before = session.losses();
        let now = session.cluster.now_of(0);
        let node = session.cluster.driver(0).node_mut();
        let target = node.request_handover(now, None).expect("somebody can host");
        session.run_until(3_000_000, |it| {
            it.host() == it.index_of(target) && it.host().is_some()
        });
        session.assert_recovers(3_000_000);
        let gap_us = session.longest_gap_us();
        println!(
            "seed {seed}: {players} players, {gate:?}: gap {} ms",
            gap_us / 1000
        );
        assert_eq!(session.losses(), before, "{}", session.seed);
    }
}

#[test]
fn a_host_that_leaves_hands_over_first() {
    for seed in seeds(4) {
        let test = "a_host_that_leaves_hands_over_first";
        let mut session = open(4, PACED, Conditions::from_rtt(50_000, 0), seed, test);
        session.run(2_000_000);
        let before = session.losses();
        session.cluster.driver(0).node_mut().leave();
        session.cluster.run_us(4_000_000);
        // It is gone; the others play on, without it.
        session.cluster.crash(0);
        session.assert_recovers(3_000_000);
        assert_eq!(session.losses().1, before.1, "{}", session.seed);
        for index in session.alive() {
            let roster = session.cluster.node(index).roster();
            assert_eq!(roster.members().len(), 3, "{}", session.seed);
        }
    }
}

#[test]
fn the_last_of_two_goes_on_in_a_session_of_its_own() {
    let test = "the_last_of_two_goes_on_in_a_session_of_its_own";
    let mut session = open(2, PACED, Conditions::from_rtt(50_000, 0), 1, test);
    let common = session.cluster.node(1).session().session;
    session.cluster.crash(0);
    session.run(2_500_000);
    assert!(!session.cluster.node(1).is_host(), "it may be late only");
    session.assert_recovers(3_000_000);
    assert!(session.cluster.node(1).is_host());
    assert_ne!(session.cluster.node(1).session().session, common);
}

/// How long members stand still when their host dies: of eight players, at any moment, without
/// loss. The limits are those of the project, in milliseconds.
#[test]
fn the_gap_after_a_crash_is_short() {
    for (rtt_us, limit_ms) in [(50_000, 420), (100_000, 620), (200_000, 1050)] {
        let mut gaps: Vec<u64> = Vec::new();
        for seed in seeds(8) {
            let test = "the_gap_after_a_crash_is_short";
            let conditions = Conditions::from_rtt(rtt_us, 0);
            let mut session = open(8, PACED, conditions, seed, test);
            session.run(1_000_000 + seed * 7_919 % 100_000);
            session.forget_gaps();
            session.cluster.crash(0);
            session.assert_recovers(5_000_000);
            gaps.push(session.longest_gap_us() / 1000);
        }
        gaps.sort_unstable();
        let (median, worst) = (gaps[gaps.len() / 2], gaps[gaps.len() - 1]);
        println!(
            "RTT {} ms: median {median} ms, longest {worst} ms",
            rtt_us / 1000
        );
        assert!(worst <= limit_ms, "RTT {rtt_us} us: {gaps:?}");
    }
}

/// What befalls the session next.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Crash(Index),
    Pause(Index, u64),
    Isolate(Index, u64),
    /// What the node sends does not arrive.
    Mute(Index, u64),
    /// What is sent to the node does not arrive.
    Deafen(Index, u64),
    Handover,
    /// A handover, and the crash of this node so much later.
    HandoverAndCrash(Index, u64),
}

fn fault(prng: &mut Prng, session: &Succession) -> Fault {
    let alive = session.alive();
    let any = alive[usize::try_from(prng.below(alive.len() as u64)).expect("an index")];
    let host = session.host().unwrap_or(any);
    let whom = if prng.below(3) == 0 { any } else { host };
    let us = 50_000 + prng.below(2_400_000);
    let voters = session.cluster.node(any).terms();
    let voters = voters.map_or(0, |terms| terms.roster().voter_count());
    // Who is left must be able to elect.
    let spare = 2 * (alive.len() - 1) > voters;
    match prng.below(10) {
        0..=2 if spare => Fault::Crash(whom),
        0..=4 => Fault::Pause(whom, us),
        5 => Fault::Isolate(whom, us),
        6 => Fault::Mute(whom, us),
        7 => Fault::Deafen(whom, us),
        8 if spare => Fault::HandoverAndCrash(any, prng.below(300_000)),
        _ => Fault::Handover,
    }
}

fn hand_over(session: &mut Succession) {
    if let Some(host) = session.host() {
        let now = session.cluster.now_of(host);
        let node = session.cluster.driver(host).node_mut();
        // Nobody may be ready for it; then nothing happens.
        let _result = node.request_handover(now, None);
    }
}

fn strike(session: &mut Succession, fault: Fault) {
    let others = |session: &Succession, index| {
        let alive = session.alive().into_iter();
        alive.filter(|&other| other != index).collect::<Vec<_>>()
    };
    match fault {
        Fault::Crash(index) => session.cluster.crash(index),
        Fault::Pause(index, us) => {
            session.cluster.members[index].paused = true;
            session.run(us);
            session.cluster.members[index].paused = false;
        }
        Fault::Isolate(index, us) => {
            session.cluster.isolate(index);
            session.run(us);
            session.cluster.mend(index);
        }
        Fault::Mute(index, us) => {
            let cuts = others(session, index)
                .into_iter()
                .map(|other| (index, other));
            session.cluster.cut.extend(cuts);
            session.run(us);
            session.cluster.mend(index);
        }
        Fault::Deafen(index, us) => {
            let cuts = others(session, index)
                .into_iter()
                .map(|other| (other, index));
            session.cluster.cut.extend(cuts);
            session.run(us);
            session.cluster.mend(index);
        }
        Fault::Handover => hand_over(session),
        Fault::HandoverAndCrash(index, us) => {
            hand_over(session);
            session.run(us);
            session.cluster.crash(index);
        }
    }
}

#[test]
fn sessions_survive_what_befalls_their_hosts() {
    let mut recoveries = 0;
    for seed in seeds(24) {
        let mut prng = Prng::with_stream(seed, 7);
        let players = [3, 4, 5][usize::try_from(prng.below(3)).expect("an index")];
        let gate = if prng.below(3) == 0 { WAIT } else { PACED };
        let loss = [0, 0, 20_000, 100_000][usize::try_from(prng.below(4)).expect("an index")];
        let mut conditions = Conditions::from_rtt(10_000 + prng.below(150_000), loss);
        conditions.jitter_us = [0, 5_000][usize::try_from(prng.below(2)).expect("an index")];
        let test = "sessions_survive_what_befalls_their_hosts";
        let mut session = open(players, gate, conditions, seed, test);
        let faults = 1 + prng.below(4);
        let mut story = Vec::new();
        for _ in 0..faults {
            session.run(prng.below(2_000_000));
            let fault = fault(&mut prng, &session);
            story.push(fault);
            session.seed = format!(
                "SEED={seed} cargo test -p phalanx-tests --test elections {test} \
                 ({players} players, {gate:?}, {conditions:?}): {story:?}"
            );
            strike(&mut session, fault);
        }
        session.assert_recovers(20_000_000);
        recoveries += 1;
    }
    println!("{recoveries} sessions have recovered");
}
