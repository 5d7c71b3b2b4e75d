//! Hosting moves: what the session's members see of it, and what they do not.
//!
//! Who hosts next is decided here by the test, as an election would: the members that are there
//! vote, and the base is the newest position among them. `SEED=n` runs one seed.

use std::collections::{BTreeMap, BTreeSet};

use phalanx::netcode::id::{MemberId, Path, Slot, Term};
use phalanx::netcode::link::conditioner::Conditions;
use phalanx::netcode::node::{Event, Prepare, StepDown, TakeOver, Warm};
use phalanx::netcode::prng::Prng;
use phalanx::netcode::session::config::{
    Gate, HostConfig, JoinConfig, MigrationConfig, Role, Start,
};
use phalanx::netcode::tick::Tick;
use phalanx_tests::cluster::{Cluster, Index};
use phalanx_tests::toy::{self, Footprint};

/// Microseconds between two looks at the nodes.
const LOOK_US: u64 = 50_000;

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
    waits: bool,
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
            start: Start::Players(players),
            migration: MigrationConfig::COMMANDED,
            ..HostConfig::new(toy::game(), players)
        };
        let mut cluster = Cluster::new(host, Conditions::from_rtt(rtt_us, loss_ppm), seed);
        for number in 1..players + spectators {
            cluster.join(JoinConfig {
                prediction_ticks: prediction,
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
            waits,
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

    fn index_of(&self, id: MemberId) -> Index {
        let found = self.ids.iter().position(|known| *known == id);
        found.expect("a member of the session")
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
                    }
                    Event::Desync(report) => panic!("seed {}: {report:?}", self.seed),
                    Event::Disconnected { reason } => {
                        panic!("seed {}: {index} is out: {reason}", self.seed)
                    }
                    _ => {}
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
    match std::env::var("SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
    {
        Some(seed) => vec![seed],
        None => (0..count).collect(),
    }
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
        assert!(
            session.lost[index].is_empty(),
            "seed {seed}: {index} lost {:?}",
            session.lost[index]
        );
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
        let setting = Setting {
            players: 3 + u8::try_from(seed % 3).expect("small"),
            waits: false,
            prediction: [0, 0, 4, 12][usize::try_from(seed % 4).expect("small")],
            rtt_us: 20_000 + 20_000 * (seed % 5),
            loss_ppm: 0,
            spectators: 0,
        };
        crash_run(setting, seed);
    }
}

#[test]
fn over_bad_paths_it_takes_longer_and_players_are_told() {
    for seed in seeds(12) {
        let setting = Setting {
            players: 3 + u8::try_from(seed % 3).expect("small"),
            waits: false,
            prediction: [0, 4, 8][usize::try_from(seed % 3).expect("small")],
            rtt_us: 20_000 + 20_000 * (seed % 6),
            loss_ppm: 100_000,
            spectators: 1,
        };
        crash_run(setting, 100 + seed);
    }
}
