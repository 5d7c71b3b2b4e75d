//! Hosting moves: what the session's members see of it, and what they do not.
//!
//! Who hosts next is decided here by the test, as an election would: the members that are there
//! vote, and the base is the newest position among them. `SEED=n` runs one seed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;

use phalanx::netcode::driver;
use phalanx::netcode::hash::mix;
use phalanx::netcode::id::{MemberId, Path, Term};
use phalanx::netcode::link::conditioner::Conditions;
use phalanx::netcode::node::{
    Event, Prepare, SessionInfo, StepDown, TakeOver, TakeOverError, Warm,
};
use phalanx::netcode::prng::Prng;
use phalanx::netcode::replay::{Player, Reader, TermCause};
use phalanx::netcode::session::config::{
    Gate, HostConfig, InputDelay, JoinConfig, MigrationConfig, Role, Start,
};
use phalanx::netcode::tick::Tick;
use phalanx_tests::cluster::{ClusterOf, Index, Seeded};
use phalanx_tests::toy::{self, Footprint, Toy};

/// Microseconds between two looks at the nodes.
const LOOK_US: u64 = 50_000;

/// A player whose input depends on the tick alone, so that runs compare.
#[derive(Debug)]
struct Pianist {
    seed: u64,
    submitted: BTreeMap<Tick, u64>,
}

impl driver::Player for Pianist {
    type Simulation = Toy;

    fn begin(&mut self, session: &SessionInfo) -> Toy {
        Toy::new(session.seed, session.slots)
    }

    fn sample(&mut self, tick: Tick, _simulation: &Toy, input: &mut [u8]) {
        // Held for some ticks, as keys are.
        let key = mix(self.seed, u64::from(tick.number() / 3)) & 0xffff;
        self.submitted.insert(tick, key);
        input.copy_from_slice(&key.to_le_bytes());
    }
}

impl Seeded for Pianist {
    fn seeded(seed: u64, stream: u64) -> Self {
        Self {
            seed: mix(seed, stream),
            submitted: BTreeMap::new(),
        }
    }
}

type Cluster = ClusterOf<Pianist>;

/// A session of players of whom the first hosts, with checkers.
#[derive(Debug)]
struct Session {
    cluster: Cluster,
    seed: u64,
    /// The member of each node.
    ids: Vec<MemberId>,
    /// State after each tick that is settled, by term in which it was, and who had it first.
    states: BTreeMap<u32, (Footprint, Index)>,
    checked: Vec<u32>,
    events: Vec<usize>,
    replaced: Vec<BTreeSet<u32>>,
    /// Ticks of the term before that were taken back.
    lost: Vec<BTreeSet<u32>>,
    gone: BTreeSet<Index>,
    rtt_us: u64,
}

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

impl Session {
    fn new(setting: Setting, seed: u64) -> Self {
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
        let mut cluster = Cluster::new(host, Conditions::from_rtt(rtt_us, loss_ppm), seed);
        for number in 1..players + spectators {
            cluster.join(JoinConfig {
                prediction_ticks: prediction,
                input_delay: delay,
                role: if number < players {
                    Role::Player
                } else {
                    Role::Spectator
                },
                ..JoinConfig::new(toy::game(), &format!("member {number}"))
            });
        }
        let count = usize::from(players + spectators);
        let mut session = Self {
            cluster,
            seed,
            ids: Vec::new(),
            states: BTreeMap::new(),
            checked: vec![0; count],
            events: vec![0; count],
            replaced: vec![BTreeSet::new(); count],
            lost: vec![BTreeSet::new(); count],
            gone: BTreeSet::new(),
            rtt_us,
        };
        let all = session.all();
        session.run_until(20_000_000, |run| run.cluster.settled(&all).number() > 60);
        session.ids = (0..count)
            .map(|index| session.cluster.node(index).session().member)
            .collect();
        session
    }

    fn all(&self) -> Vec<Index> {
        (0..self.cluster.members.len())
            .filter(|index| !self.gone.contains(index))
            .collect()
    }

    fn run(&mut self, us: u64) {
        let end = self.cluster.now().plus_micros(us);
        while self.cluster.now() < end {
            let left = end.micros_since(self.cluster.now());
            self.cluster.run_us(left.min(LOOK_US));
            self.look();
        }
    }

    fn run_until(&mut self, us: u64, done: impl Fn(&Self) -> bool) {
        let end = self.cluster.now().plus_micros(us);
        while !done(self) {
            assert!(
                self.cluster.now() < end,
                "seed {}: it does not come true in {us} us: {}",
                self.seed,
                self.standing()
            );
            self.run(LOOK_US);
        }
    }

    fn standing(&self) -> String {
        let of = |index: &Index| {
            let node = self.cluster.node(*index);
            let (term, position) = node.position();
            format!(
                "{index}: term {} host {} position {position} tick {} settled {} drops {:?}",
                term.0,
                node.host_member().0,
                node.tick(),
                node.settled_tick(),
                node.statistics().drops,
            )
        };
        self.all().iter().map(of).collect::<Vec<_>>().join("\n")
    }

    /// Every tick that is settled anywhere is the same everywhere, and every input in it is what
    /// its player submitted, unless the player was told.
    fn look(&mut self) {
        for index in self.all() {
            for at in self.events[index]..self.cluster.members[index].events.len() {
                match self.cluster.members[index].events[at].clone() {
                    Event::InputReplaced { tick } => {
                        let fresh = self.replaced[index].insert(tick.number());
                        let is_again = self.lost[index].contains(&tick.number());
                        assert!(fresh || is_again, "{tick} reported twice to {index}");
                    }
                    Event::TicksLost { first, last } => {
                        self.lost[index].extend(first.number()..=last.number());
                        // It begins again there, and what it had is told no more.
                        let before = first.previous().number();
                        self.checked[index] = self.checked[index].min(before);
                    }
                    Event::Desync(report) => panic!("seed {}: {report:?}", self.seed),
                    Event::Disconnected { reason } => {
                        panic!("seed {}: {index} is out: {reason}", self.seed)
                    }
                    Event::Healed { tick } => panic!("{index} healed at {tick}"),
                    Event::Refused { .. }
                    | Event::JoinFailed { .. }
                    | Event::ClaimRefused { .. }
                    | Event::Inspected(_) => panic!("that happens elsewhere"),
                    Event::Welcomed { .. }
                    | Event::Member(_)
                    | Event::Left { .. }
                    | Event::Started
                    | Event::Activated { .. }
                    | Event::Stalled { .. }
                    | Event::Resumed { .. }
                    | Event::Message { .. }
                    | Event::HostSuspected { .. }
                    | Event::HostHeardAgain { .. }
                    | Event::Electing { .. }
                    | Event::Frozen
                    | Event::Thawed
                    | Event::HandoverAborted { .. }
                    | Event::DataLossPossible { .. }
                    | Event::Forked { .. }
                    | Event::HostChanged { .. }
                    | Event::Ended { .. } => {}
                }
            }
            self.events[index] = self.cluster.members[index].events.len();
        }
        for index in self.all() {
            let settled = self.cluster.node(index).settled_tick().number();
            for tick in self.checked[index] + 1..=settled {
                let simulation = self.cluster.members[index].driver.simulation();
                let Some(footprint) = simulation.and_then(|it| it.footprint(Tick::new(tick)))
                else {
                    continue;
                };
                let footprint = footprint.clone();
                let (known, other) = self
                    .states
                    .entry(tick)
                    .or_insert_with(|| (footprint.clone(), index));
                assert_eq!(
                    *known, footprint,
                    "seed {}: {other} and {index} differ at {tick}",
                    self.seed
                );
            }
            self.checked[index] = self.checked[index].max(settled);
        }
    }

    /// Ticks beyond `base` are ordered anew; who had them already, has them no more.
    fn void_after(&mut self, base: Tick) {
        self.states.retain(|tick, _| *tick <= base.number());
        for index in 0..self.checked.len() {
            self.checked[index] = self.checked[index].min(base.number());
        }
    }

    /// Every input of `index` from `first` on that is settled is its own, or it was told.
    fn assert_inputs(&self, index: Index, first: u32) -> u32 {
        let node = self.cluster.node(index);
        let slot = node.session().slot.expect("a player");
        let bot = self.cluster.members[index].driver.player();
        let mut replaced = 0;
        for (tick, (footprint, _)) in self.states.range(first..) {
            if *tick > node.settled_tick().number() {
                break;
            }
            let Some(submitted) = bot.submitted.get(&Tick::new(*tick)) else {
                continue;
            };
            let is_there = footprint.present & slot.bit() != 0;
            let acted = footprint.inputs[slot.index()];
            let is_own = is_there && acted == *submitted;
            let is_told = self.replaced[index].contains(tick);
            assert!(
                is_own || is_told,
                "seed {}: {index} submitted {submitted:x} for {tick}, {acted:x} acted",
                self.seed
            );
            replaced += u32::from(is_told);
        }
        replaced
    }

    fn warm(&self, index: Index) -> Warm {
        Warm {
            path: Path(u32::try_from(index).expect("few members")),
            rtt_us: Some(self.rtt_us),
        }
    }

    /// `who` vote for `candidate` in `term`, or follow it.
    fn prepare(&mut self, who: &[Index], candidate: Index, term: u32, keeps_frames: bool) {
        for &voter in who {
            let warm = (voter != candidate).then(|| self.warm(candidate));
            let now = self.cluster.now_of(voter);
            let prepare = Prepare {
                candidate: self.ids[candidate],
                term: Term(term),
                warm,
                keeps_frames,
            };
            let node = self.cluster.driver(voter).node_mut();
            node.prepare_for(now, prepare);
        }
    }

    /// What the voters hold beyond the candidate's position comes to it; it takes over there.
    fn elect(&mut self, voters: &[Index], candidate: Index, term: u32, lost: &[Index]) -> Tick {
        for &voter in voters {
            let mut at = self.cluster.node(candidate).position().1;
            let newest = self.cluster.node(voter).position().1;
            while at < newest {
                let mut bytes = Vec::new();
                let node = self.cluster.node(voter);
                at = node
                    .records_after(at, 600, &mut bytes)
                    .expect("frames of a voter");
                let now = self.cluster.now_of(candidate);
                let node = self.cluster.driver(candidate).node_mut();
                let reached = node.ingest_records(now, &bytes).expect("frames of a voter");
                assert_eq!(reached, at);
            }
        }
        self.take_over(candidate, term, lost, false)
    }

    fn take_over(&mut self, candidate: Index, term: u32, lost: &[Index], is_planned: bool) -> Tick {
        let base = self.cluster.node(candidate).position().1;
        let others = (0..self.ids.len()).filter(|&index| index != candidate);
        let take_over = TakeOver {
            term: Term(term),
            base,
            is_planned,
            paths: others
                .map(|index| (self.ids[index], self.warm(index)))
                .collect(),
            lost: lost.iter().map(|&index| self.ids[index]).collect(),
        };
        let now = self.cluster.now_of(candidate);
        let node = self.cluster.driver(candidate).node_mut();
        node.take_over(now, &take_over)
            .unwrap_or_else(|error| panic!("seed {}: {error}", self.seed));
        self.void_after(base);
        base
    }

    fn crash(&mut self, index: Index) {
        self.cluster.members[index].paused = true;
        self.cluster.isolate(index);
        self.gone.insert(index);
    }

    /// All who are there follow `host` in `term`, and play on in step.
    fn assert_goes_on(&mut self, host: Index, term: u32) {
        let all = self.all();
        let id = self.ids[host];
        let from = self.cluster.settled(&all).number();
        self.run_until(10_000_000, |run| {
            let follows = |&index: &Index| {
                let node = run.cluster.node(index);
                node.position().0 == Term(term) && node.host_member() == id
            };
            run.all().iter().all(follows) && run.cluster.settled(&all).number() > from + 120
        });
        for &index in &all {
            let events = &self.cluster.members[index].events;
            let changed = Event::HostChanged {
                member: id,
                term: Term(term),
            };
            assert!(events.contains(&changed), "{index}: {events:?}");
        }
    }

    /// The host that was gone is there again, has ordered for a while on its own, and makes room.
    fn come_back(&mut self, index: Index, host: Index, term: u32, alone_us: u64) {
        self.cluster.members[index].paused = false;
        self.cluster.run_us(alone_us);
        self.cluster.mend(index);
        let step_down = StepDown {
            host: self.ids[host],
            warm: self.warm(host),
            term: Term(term),
        };
        let now = self.cluster.now_of(index);
        self.cluster
            .driver(index)
            .node_mut()
            .step_down(now, step_down);
        self.cluster.run_us(2_000_000);
        self.gone.remove(&index);
        let settled = self.cluster.node(index).settled_tick().number();
        self.checked[index] = settled;
    }

    /// The host hands over to `target`; returns the switch tick.
    fn hand_over(&mut self, old: Index, target: Index, term: u32) -> Tick {
        let others: Vec<Index> = self.all().into_iter().filter(|&it| it != old).collect();
        self.prepare(&others, target, term, true);
        self.run(self.rtt_us);
        let at = self.cluster.node(old).tick().plus(10);
        let node = self.cluster.driver(old).node_mut();
        let at = node.hand_over_at(at).expect("it hosts");
        self.run_until(3_000_000, |run| {
            run.cluster.node(old).has_handed_over() == Some(at)
        });
        while self.cluster.node(target).position().1 < at {
            self.cluster.run_us(1_000);
        }
        let base = self.take_over(target, term, &[], true);
        assert_eq!(base, at);
        let step_down = StepDown {
            host: self.ids[target],
            warm: self.warm(target),
            term: Term(term),
        };
        let now = self.cluster.now_of(old);
        self.cluster
            .driver(old)
            .node_mut()
            .step_down(now, step_down);
        at
    }

    /// The host crashes, the others vote after a while, and the winner takes over.
    fn fail_over(&mut self, prng: &mut Prng, old: Index, term: u32) -> (Index, Tick) {
        self.crash(old);
        let voters = self.all();
        let players: Vec<Index> = voters
            .iter()
            .copied()
            .filter(|&index| self.cluster.node(index).session().slot.is_some())
            .collect();
        let pick = usize::try_from(prng.below(players.len() as u64)).expect("an index");
        let candidate = players[pick];
        // Not all at once: suspicion and votes take their time.
        let mut order = voters.clone();
        order.sort_by_key(|&index| index != candidate);
        self.run(150_000 + prng.below(150_000));
        for voter in order {
            self.prepare(&[voter], candidate, term, false);
            self.run(prng.below(self.rtt_us + 1));
        }
        let base = self.elect(&voters, candidate, term, &[old]);
        (candidate, base)
    }
}

fn seeds(count: u64) -> Vec<u64> {
    let read = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    match read("SEED") {
        Some(seed) => vec![seed],
        None => (0..read("SEEDS").unwrap_or(count)).collect(),
    }
}

fn pick<T: Copy>(seed: u64, choices: &[T]) -> T {
    let index = usize::try_from(seed % choices.len() as u64).expect("an index");
    choices[index]
}

fn crash_run(setting: Setting, seed: u64) {
    let mut prng = Prng::with_stream(seed, 5);
    let mut session = Session::new(setting, seed);
    session.run(500_000 + prng.below(1_000_000));
    let before = session.cluster.settled(&session.all());
    let (host, base) = session.fail_over(&mut prng, 0, 2);
    assert!(base >= before, "settled ticks are gone: {base} < {before}");
    session.assert_goes_on(host, 2);
    for index in session.all() {
        let lost = &session.lost[index];
        assert!(lost.is_empty(), "seed {seed}: {index} lost {lost:?}");
        if session.cluster.node(index).session().slot.is_some() {
            let replaced = session.assert_inputs(index, base.number() + 1);
            if setting.loss_ppm == 0 {
                assert_eq!(replaced, 0, "seed {seed}: inputs of {index} were replaced");
            }
        }
    }
}

#[test]
fn a_crashed_host_is_followed_by_another_one_that_loses_nothing() {
    for seed in seeds(12) {
        let players = pick(seed, &[3, 4, 5]);
        let setting = Setting {
            prediction: pick(seed, &[0, 0, 4, 12]),
            ..Setting::new(
                players,
                false,
                pick(seed, &[20_000, 60_000, 100_000, 50_000]),
            )
        };
        crash_run(setting, seed);
    }
}

#[test]
fn over_bad_paths_it_takes_longer_and_players_are_told() {
    for seed in seeds(12) {
        let setting = Setting {
            prediction: pick(seed, &[0, 4, 8]),
            loss_ppm: 100_000,
            spectators: 1,
            ..Setting::new(pick(seed, &[3, 4, 5]), false, 20_000 + 20_000 * (seed % 6))
        };
        crash_run(setting, 100 + seed);
    }
}

#[test]
fn where_all_wait_for_all_no_input_is_ever_replaced() {
    for seed in seeds(16) {
        let setting = Setting {
            prediction: pick(seed, &[0, 0, 4, 8]),
            loss_ppm: pick(seed / 2, &[0, 100_000]),
            spectators: pick(seed, &[0, 1]),
            ..Setting::new(pick(seed, &[3, 4, 5]), true, 20_000 + 20_000 * (seed % 6))
        };
        let mut prng = Prng::with_stream(seed, 6);
        let mut session = Session::new(setting, 200 + seed);
        session.run(500_000 + prng.below(1_000_000));
        let (host, base) = session.fail_over(&mut prng, 0, 2);
        session.assert_goes_on(host, 2);
        for index in session.all() {
            if session.cluster.node(index).session().slot.is_some() {
                assert_eq!(session.assert_inputs(index, base.number() + 1), 0);
            }
        }
        // The old host's slot is absent from the first tick on.
        let (first, _) = &session.states[&(base.number() + 1)];
        assert_eq!(first.present & 1, 0, "seed {seed}");
    }
}

/// Three hosts in a row, of whom each crashes; the first one comes back in between.
#[test]
fn hosting_moves_on_and_an_old_host_comes_back() {
    for seed in seeds(8) {
        let waits = seed % 2 == 1;
        let setting = Setting {
            loss_ppm: pick(seed / 2, &[0, 50_000]),
            prediction: pick(seed / 2, &[0, 4]),
            ..Setting::new(4, waits, 60_000)
        };
        let mut prng = Prng::with_stream(seed, 7);
        let mut session = Session::new(setting, 300 + seed);
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
        assert_eq!(session.all().len(), 4);
        // All slots take part again.
        session.run_until(10_000_000, |run| {
            run.states.last_key_value().expect("ticks").1.0.present == 0b1111
        });
    }
}

/// Nothing is lost, and nothing shows it: not one tick, not one input, not one bit of state.
#[test]
fn a_planned_handover_changes_no_state() {
    for seed in seeds(6) {
        let waits = seed % 2 == 1;
        let setting = Setting {
            delay: InputDelay::Fixed(12),
            last_tick: Some(Tick::new(600)),
            ..Setting::new(pick(seed, &[2, 3, 4]), waits, 60_000)
        };
        let mut ends = Vec::new();
        for moves in [false, true] {
            let mut session = Session::new(setting, 400 + seed);
            if moves {
                session.run(1_000_000 + 100_000 * (seed % 8));
                session.hand_over(0, 1, 2);
                session.assert_goes_on(1, 2);
            }
            let all = session.all();
            session.run_until(30_000_000, |run| {
                run.cluster.settled(&all) == Tick::new(600)
            });
            for &index in &all {
                assert_eq!(session.replaced[index].len(), 0, "seed {seed}: of {index}");
                assert!(session.lost[index].is_empty());
                // One by one: where all wait for all, the first ones are neutral.
                let first = if moves { 60 } else { 30 };
                assert_eq!(session.assert_inputs(index, first), 0);
            }
            ends.push(session.states);
        }
        for (tick, (footprint, _)) in &ends[0] {
            let other = &ends[1][tick].0;
            assert_eq!(footprint, other, "seed {seed}: at tick {tick}");
        }
    }
}

#[test]
fn a_recording_goes_on_across_hosts_and_verifies() {
    for waits in [false, true] {
        let mut prng = Prng::with_stream(u64::from(waits), 8);
        let mut session = Session::new(Setting::new(4, waits, 60_000), 500);
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
        let mut session = Session::new(Setting::new(3, waits, 40_000), 600);
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
        let all = session.all();
        session.run_until(3_000_000, |run| {
            run.cluster.settled(&all).number() > position.1.number() + 120
        });
        for index in all {
            assert_eq!(session.assert_inputs(index, 61), 0);
        }
    }
}

#[test]
fn a_host_that_is_elected_again_begins_a_term_in_its_place() {
    for waits in [false, true] {
        let mut session = Session::new(Setting::new(3, waits, 40_000), 700);
        session.run(500_000);
        session.cluster.driver(0).node_mut().freeze(true);
        session.run(400_000);
        session.prepare(&[1, 2], 0, 2, false);
        session.run(50_000);
        let base = session.elect(&[1, 2], 0, 2, &[]);
        session.assert_goes_on(0, 2);
        for index in session.all() {
            assert!(session.lost[index].is_empty());
            assert_eq!(session.assert_inputs(index, base.number() + 1), 0);
        }
    }
}

#[test]
fn a_vote_is_kept_until_it_is_withdrawn() {
    let mut session = Session::new(Setting::new(3, false, 40_000), 800);
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
    session.run_until(3_000_000, |run| {
        run.cluster.node(1).position().1.number() > position.1.number() + 60
    });
    session.assert_inputs(1, 61);
}

#[test]
fn a_node_hosts_only_what_it_can() {
    let mut session = Session::new(Setting::new(3, false, 40_000), 900);
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
    let all = session.all();
    assert!(session.cluster.settled(&all) > base, "the session goes on");
}
