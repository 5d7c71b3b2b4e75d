//! Hosting moves: what the session's members see of it, and what they do not.
//!
//! Who hosts next is decided here by the test, as an election would: the members that are there
//! vote, and the base is the newest position among them. `SEED=n` runs one seed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;

use phalanx::netcode::id::Term;
use phalanx::netcode::link::conditioner::Conditions;
use phalanx::netcode::node::{TakeOver, TakeOverError};
use phalanx::netcode::prng::Prng;
use phalanx::netcode::replay::{Player, Reader, TermCause};
use phalanx::netcode::session::config::{
    Gate, HostConfig, InputDelay, JoinConfig, MigrationConfig, Role, Start,
};
use phalanx::netcode::tick::Tick;
use phalanx_tests::cluster::Index;
use phalanx_tests::pianist::Pianist;
use phalanx_tests::seeds;
use phalanx_tests::succession::Succession;
use phalanx_tests::toy::{self, Toy};

type Session = Succession<Pianist>;

#[derive(Clone, Copy, Debug)]
struct Setting {
    players: u8,
    waits: bool,
    prediction: u32,
    rtt_us: u64,
    loss_ppm: u32,
    spectators: u8,
    delay: InputDelay,
    last_tick: Option<Tick>,
}

impl Setting {
    fn new(players: u8, waits: bool, rtt_us: u64) -> Self {
        Self {
            players,
            waits,
            prediction: 0,
            rtt_us,
            loss_ppm: 0,
            spectators: 0,
            delay: InputDelay::default(),
            last_tick: None,
        }
    }
}

/// A session of players of whom the first hosts.
fn open(setting: Setting, seed: u64, test: &str) -> Session {
    let Setting {
        players,
        waits,
        prediction,
        rtt_us,
        loss_ppm,
        spectators,
        delay,
        last_tick,
    } = setting;
    let host = HostConfig {
        plays: true,
        gate: if waits {
            Gate::Wait {
                limit_us: 3_000_000,
            }
        } else {
            Gate::Paced
        },
        prediction_ticks: if waits { prediction } else { 0 },
        input_delay: delay,
        last_tick,
        start: Start::Players(players),
        migration: MigrationConfig::COMMANDED,
        ..HostConfig::new(toy::game(), players)
    };
    let joins = (1..players + spectators).map(|number| JoinConfig {
        prediction_ticks: prediction,
        input_delay: delay,
        role: if number < players {
            Role::Player
        } else {
            Role::Spectator
        },
        ..JoinConfig::new(toy::game(), &format!("member {number}"))
    });
    let conditions = Conditions::from_rtt(rtt_us, loss_ppm);
    let repeat = format!("SEED=n cargo test -p phalanx-tests --test takeover {test}");
    Session::new(host, joins.collect(), conditions, seed, 60, &repeat)
}

/// Players among those who take part.
fn players(session: &Session) -> Vec<Index> {
    let plays = |index: &Index| session.cluster.node(*index).session().slot.is_some();
    session.alive().into_iter().filter(plays).collect()
}

/// Inputs from tick `first` on that were replaced, of all players.
fn replaced_from(session: &Session, first: u32) -> usize {
    let history = session.history();
    let of = |index: Index| session.assert_inputs(index, first, &history);
    players(session).into_iter().map(of).sum()
}

fn pick<T: Copy>(seed: u64, choices: &[T]) -> T {
    let index = usize::try_from(seed % choices.len() as u64).expect("an index");
    choices[index]
}

fn crash_run(setting: Setting, seed: u64, test: &str) {
    let mut prng = Prng::with_stream(seed, 5);
    let mut session = open(setting, seed, test);
    session.run(500_000 + prng.below(1_000_000));
    let before = session.settled();
    let (host, base) = session.fail_over(&mut prng, 0, 2);
    assert!(base >= before, "settled ticks are gone: {base} < {before}");
    session.assert_goes_on(host, 2);
    for index in session.alive() {
        assert_eq!(session.lost(index), 0, "{index} lost ticks");
    }
    let replaced = replaced_from(&session, base.number() + 1);
    if setting.loss_ppm == 0 {
        assert_eq!(replaced, 0);
    }
}

#[test]
fn a_crashed_host_is_followed_by_another_one_that_loses_nothing() {
    for seed in seeds::chosen(0, 12) {
        let players = pick(seed, &[3, 4, 5]);
        let setting = Setting {
            prediction: pick(seed, &[0, 0, 4, 12]),
            ..Setting::new(
                players,
                false,
                pick(seed, &[20_000, 60_000, 100_000, 50_000]),
            )
        };
        let test = "a_crashed_host_is_followed";
        crash_run(setting, seed, test);
    }
}

#[test]
fn over_bad_paths_it_takes_longer_and_players_are_told() {
    for seed in seeds::chosen(0, 12) {
        let setting = Setting {
            prediction: pick(seed, &[0, 4, 8]),
            loss_ppm: 100_000,
            spectators: 1,
            ..Setting::new(pick(seed, &[3, 4, 5]), false, 20_000 + 20_000 * (seed % 6))
        };
        crash_run(setting, 100 + seed, "over_bad_paths");
    }
}

#[test]
fn where_all_wait_for_all_no_input_is_ever_replaced() {
    for seed in seeds::chosen(0, 16) {
        let setting = Setting {
            prediction: pick(seed, &[0, 0, 4, 8]),
            loss_ppm: pick(seed / 2, &[0, 100_000]),
            spectators: pick(seed, &[0, 1]),
            ..Setting::new(pick(seed, &[3, 4, 5]), true, 20_000 + 20_000 * (seed % 6))
        };
        let mut prng = Prng::with_stream(seed, 6);
        let mut session = open(setting, 200 + seed, "where_all_wait");
        session.run(500_000 + prng.below(1_000_000));
        let (host, base) = session.fail_over(&mut prng, 0, 2);
        session.assert_goes_on(host, 2);
        assert_eq!(replaced_from(&session, base.number() + 1), 0);
        // The old host's slot is absent from the first tick on.
        let first = &session.history()[&(base.number() + 1)];
        assert_eq!(first.present & 1, 0, "seed {seed}");
    }
}

/// Three hosts in a row, of whom each crashes; the first one comes back in between.
#[test]
fn hosting_moves_on_and_an_old_host_comes_back() {
    for seed in seeds::chosen(0, 8) {
        let waits = seed % 2 == 1;
        let setting = Setting {
            loss_ppm: pick(seed / 2, &[0, 50_000]),
            prediction: pick(seed / 2, &[0, 4]),
            ..Setting::new(4, waits, 60_000)
        };
        let mut prng = Prng::with_stream(seed, 7);
        let mut session = open(setting, 300 + seed, "hosting_moves_on");
        session.run(700_000);
        let (second, _) = session.fail_over(&mut prng, 0, 2);
        session.assert_goes_on(second, 2);
        // It does not know that it was voted out, and went on ordering for a while.
        session.come_back(0, second, 2, pick(seed / 2, &[0, 300_000, 3_000_000]));
        session.assert_goes_on(second, 2);
        let (third, _) = session.fail_over(&mut prng, second, 3);
        session.assert_goes_on(third, 3);
        session.come_back(second, third, 3, 100_000);
        session.assert_goes_on(third, 3);
        assert_eq!(session.alive().len(), 4);
        // All slots take part again.
        session.run_until(10_000_000, |it| {
            let history = it.history();
            history.last_key_value().expect("ticks").1.present == 0b1111
        });
    }
}

/// Nothing is lost, and nothing shows it: not one tick, not one input, not one bit of state.
#[test]
fn a_planned_handover_changes_no_state() {
    for seed in seeds::chosen(0, 6) {
        let waits = seed % 2 == 1;
        let setting = Setting {
            delay: InputDelay::Fixed(12),
            last_tick: Some(Tick::new(600)),
            ..Setting::new(pick(seed, &[2, 3, 4]), waits, 60_000)
        };
        let mut ends = Vec::new();
        for moves in [false, true] {
            let mut session = open(setting, 400 + seed, "a_planned_handover");
            if moves {
                session.run(1_000_000 + 100_000 * (seed % 8));
                session.hand_over(0, 1, 2);
                session.assert_goes_on(1, 2);
            }
            session.run_until(30_000_000, |it| it.settled() == Tick::new(600));
            assert_eq!(session.losses(), (0, 0), "seed {seed}");
            // One by one: where all wait for all, the first ones are neutral.
            let first = if moves { 60 } else { 30 };
            assert_eq!(replaced_from(&session, first), 0);
            ends.push(session.history());
        }
        for (tick, footprint) in &ends[0] {
            assert_eq!(footprint, &ends[1][tick], "seed {seed}: at tick {tick}");
        }
    }
}

#[test]
fn a_recording_goes_on_across_hosts_and_verifies() {
    for waits in [false, true] {
        let mut prng = Prng::with_stream(u64::from(waits), 8);
        let mut session = open(Setting::new(4, waits, 60_000), 500, "a_recording");
        let file = |index: Index| {
            let name = format!("takeover_{waits}_{index}.phxr");
            PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name)
        };
        for index in 1..4 {
            session.cluster.driver(index).record(file(index));
        }
        session.run(1_000_000);
        let (host, base) = session.fail_over(&mut prng, 0, 2);
        session.assert_goes_on(host, 2);
        let next = if host == 1 { 2 } else { 1 };
        let switch = session.hand_over(host, next, 3);
        session.assert_goes_on(next, 3);
        for index in 1..4 {
            let driver = session.cluster.driver(index);
            let summary = driver.finish_recording().expect("it recorded");
            summary.expect("the file is complete");
            let reader = BufReader::new(File::open(file(index)).expect("it was recorded"));
            let mut reader = Reader::open(reader).expect("a replay");
            let terms = reader.term_changes().expect("term changes");
            let told: Vec<_> = terms
                .iter()
                .map(|change| (change.takeover, change.term.0, change.cause))
                .collect();
            let expected = [
                (base.next(), 2, TermCause::Failover),
                (switch.next(), 3, TermCause::Handover),
            ];
            assert_eq!(told, expected, "of {index}");
            let toy = Toy::new(500, reader.header().slots());
            let mut player = Player::new(toy, reader).expect("it fits the toy");
            let report = player.verify(|_, _| ()).expect("it verifies");
            assert!(report.first < base && report.last > switch, "{report:?}");
        }
    }
}

#[test]
fn a_frozen_host_says_nothing_and_goes_on() {
    for waits in [false, true] {
        let mut session = open(Setting::new(3, waits, 40_000), 600, "a_frozen_host");
        session.run(500_000);
        session.cluster.driver(0).node_mut().freeze(true);
        let position = session.cluster.node(0).position();
        session.run(100_000);
        session.cluster.reset_traffic();
        session.run(600_000);
        assert_eq!(session.cluster.node(0).position(), position);
        let said = (1..3).map(|to| session.cluster.traffic.get(&(0, to)));
        assert_eq!(said.flatten().count(), 0, "a frozen host speaks");
        session.cluster.driver(0).node_mut().freeze(false);
        let now = session.cluster.now_of(0);
        session.cluster.driver(0).node_mut().handle_timeout(now);
        session.run_until(3_000_000, |it| {
            it.settled().number() > position.1.number() + 120
        });
        assert_eq!(replaced_from(&session, 61), 0);
    }
}

#[test]
fn a_host_that_is_elected_again_begins_a_term_in_its_place() {
    for waits in [false, true] {
        let mut session = open(
            Setting::new(3, waits, 40_000),
            700,
            "a_host_that_is_elected",
        );
        session.run(500_000);
        session.cluster.driver(0).node_mut().freeze(true);
        session.run(400_000);
        session.prepare(&[1, 2], 0, 2, false);
        session.run(50_000);
        let base = session.elect(&[1, 2], 0, 2, &[]);
        session.assert_goes_on(0, 2);
        assert_eq!(session.losses().1, 0);
        assert_eq!(replaced_from(&session, base.number() + 1), 0);
    }
}

#[test]
fn a_vote_is_kept_until_it_is_withdrawn() {
    let mut session = open(Setting::new(3, false, 40_000), 800, "a_vote_is_kept");
    session.run(300_000);
    session.prepare(&[1], 2, 2, false);
    let position = session.cluster.node(1).position();
    session.run(300_000);
    assert_eq!(
        session.cluster.node(1).position(),
        position,
        "it took frames"
    );
    let now = session.cluster.now_of(1);
    session.cluster.driver(1).node_mut().withdraw(now);
    session.run_until(3_000_000, |it| {
        it.cluster.node(1).position().1.number() > position.1.number() + 60
    });
    replaced_from(&session, 61);
}

#[test]
fn a_node_hosts_only_what_it_can() {
    let mut session = open(Setting::new(3, false, 40_000), 900, "a_node_hosts");
    let (term, base) = session.cluster.node(1).position();
    let mut take_over = TakeOver {
        term,
        base,
        is_planned: false,
        paths: BTreeMap::new(),
        lost: Vec::new(),
    };
    let now = session.cluster.now_of(1);
    let node = session.cluster.driver(1).node_mut();
    let refused = node.take_over(now, &take_over);
    assert!(matches!(refused, Err(TakeOverError::Term { .. })));
    take_over.term = Term(term.0 + 1);
    take_over.base = base.next();
    let refused = node.take_over(now, &take_over);
    assert!(matches!(refused, Err(TakeOverError::Position { .. })));
    assert!(!node.is_host());
    session.run(100_000);
    assert!(session.settled() > base, "the session goes on");
}
