//! Members whose process sleeps, over links that end: a matrix of who sleeps, for how long, among how
//! many, where all wait for all or not.
//!
//! A sleeper reads what its link has kept for it before it does anything else, all at one instant, and
//! what came after the link was full is lost. Links end after ten seconds of silence, and when either
//! end closes them. A client whose link has ended comes back over another one, as programs do.
//!
//! Whatever happens: there is one session, which all that are not told to be out are in, with one host
//! and one history. Two members may end up in two sessions, as documented; more never do.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use phalanx::netcode::link::CloseReason;
use phalanx::netcode::link::conditioner::Conditions;
use phalanx::netcode::migration::HostPolicy;
use phalanx::netcode::node::{DisconnectReason, Event};
use phalanx::netcode::session::config::{Gate, HostConfig, JoinConfig, Role};
use phalanx::netcode::tick::Tick;
use phalanx_tests::cluster::{Bot, Cluster, Index};
use phalanx_tests::succession::{Succession, assert_one_acts};

const WAIT: Gate = Gate::Wait {
    limit_us: 4_000_000,
};
/// Silence after which a link ends, in microseconds.
const LINK_US: u64 = 10_000_000;
const SILENCE_US: u64 = 5_000_000;
/// How long a member that is away keeps its slot.
const RESUME_US: u64 = 15_000_000;
/// Time between two looks.
const LOOK_US: u64 = 20_000;
/// Times that a client comes back.
const RETURNS_MAX: u32 = 3;
/// Datagrams that a link keeps for a sleeper.
const WAITING: usize = 300;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sleeper {
    Host,
    Standby,
    Other,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// All are in one session.
    Together,
    /// The sleeper was told that it is out.
    Out,
    /// Two members go on apart.
    Apart,
}

struct Run {
    cluster: Cluster,
    sleeper: Index,
    heard: Vec<usize>,
    returns: Vec<u32>,
    name: String,
}

/// What a run is of.
#[derive(Clone, Debug)]
struct Setting {
    sleeper: Sleeper,
    members: u8,
    gate: Gate,
    pause_ms: u64,
    policy: HostPolicy,
    /// Whether links that have ended find back.
    reopens: bool,
    /// Whether the host and the member that joins first have no slot: a pair of servers.
    is_pair: bool,
}

impl Setting {
    fn new(sleeper: Sleeper, members: u8, gate: Gate, pause_ms: u64) -> Self {
        Self {
            sleeper,
            members,
            gate,
            pause_ms,
            policy: HostPolicy::default(),
            reopens: false,
            is_pair: false,
        }
    }

    fn host(&self) -> HostConfig {
        let players = self.members - if self.is_pair { 2 } else { 0 };
        HostConfig {
            plays: !self.is_pair,
            silence_us: SILENCE_US,
            resume_us: RESUME_US,
            hosting: self.policy.clone(),
            ..Succession::<Bot>::elected(players, self.gate)
        }
    }

    fn guests(&self) -> Vec<JoinConfig> {
        let guests = Succession::<Bot>::guests(self.members - 1);
        let guests = guests.into_iter().enumerate().map(|(index, join)| {
            let watches = self.is_pair && index == 0;
            let role = if watches { Role::Spectator } else { join.role };
            JoinConfig {
                role,
                silence_us: SILENCE_US,
                resume_us: RESUME_US,
                hosting: self.policy.clone(),
                ..join
            }
        });
        guests.collect()
    }

    /// A session in which somebody is about to sleep; `None` if nobody has that role.
    fn open(&self, seed: u64) -> Option<Run> {
        let &Self {
            sleeper,
            members,
            gate,
            pause_ms,
            ..
        } = self;
        let pair = if self.is_pair {
            " with a pair of servers"
        } else {
            ""
        };
        let name = format!(
            "{sleeper:?} of {members}{pair} sleeps for {pause_ms} ms, {gate:?}, seed {seed}"
        );
        let mut cluster = Cluster::new(self.host(), Conditions::from_rtt(20_000, 0), seed);
        cluster.watch = Some(assert_one_acts);
        cluster.closes = true;
        cluster.waiting_max = WAITING;
        for join in self.guests() {
            cluster.join(join);
        }
        let all: Vec<Index> = (0..usize::from(members)).collect();
        // The host needs a second to choose who succeeds, and members one to meet.
        let goal = Tick::new(260);
        let goes = cluster.run_while_not(30_000_000, |it| it.settled(&all) > goal);
        assert!(goes, "{name}: it does not begin");
        for index in all.clone() {
            cluster.set_reopens(index, self.reopens);
        }
        let terms = cluster.node(0).terms().expect("members elect");
        assert_eq!(terms.roster().voter_count(), all.len(), "{name}");
        let standbys = terms.roster().standbys.clone();
        let is_standby =
            |index: &&Index| standbys.contains(&cluster.node(**index).session().member);
        let mut clients = all[1..].iter();
        let sleeper = match sleeper {
            Sleeper::Host => Some(0),
            Sleeper::Standby => clients.find(is_standby).copied(),
            Sleeper::Other => clients.find(|index| !is_standby(index)).copied(),
        }?;
        Some(Run {
            cluster,
            sleeper,
            heard: vec![0; all.len()],
            returns: vec![0; all.len()],
            name,
        })
    }
}

impl Run {
    fn members(&self) -> Vec<Index> {
        (0..self.cluster.members.len()).collect()
    }

    fn run(&mut self, us: u64) {
        let end = self.cluster.now().plus_micros(us);
        while self.cluster.now() < end {
            let left_us = end.micros_since(self.cluster.now());
            self.cluster.run_us(left_us.min(LOOK_US));
            self.come_back();
        }
    }

    /// Clients that are out of the session try the way by which they came in.
    fn come_back(&mut self) {
        for index in self.members() {
            let from = core::mem::replace(
                &mut self.heard[index],
                self.cluster.members[index].events.len(),
            );
            let events = &self.cluster.members[index].events[from..];
            let is_lost = |event: &Event| {
                matches!(
                    event,
                    Event::Disconnected {
                        reason: DisconnectReason::Silence | DisconnectReason::PathClosed(_)
                    }
                )
            };
            let may = !self.cluster.node(index).is_host() && index != 0;
            if events.iter().any(is_lost) && may && self.returns[index] < RETURNS_MAX {
                self.returns[index] += 1;
                if !self.cluster.members[0].paused {
                    self.cluster.reopen(index, 0);
                }
                let path = self.cluster.path_to(0);
                let now = self.cluster.now_of(index);
                self.cluster.driver(index).node_mut().rejoin(now, path);
                self.cluster.pump(index);
            }
        }
    }

    fn sleep(&mut self, us: u64) {
        self.cluster.members[self.sleeper].paused = true;
        if us >= LINK_US {
            self.run(LINK_US);
            for other in self.members() {
                if other != self.sleeper {
                    self.cluster
                        .shut(self.sleeper, other, CloseReason::TimedOut);
                }
            }
            self.run(us - LINK_US);
        } else {
            self.run(us);
        }
        self.cluster.members[self.sleeper].paused = false;
    }

    fn has_told(&self, index: Index, what: impl Fn(&Event) -> bool) -> bool {
        self.cluster.members[index].events.iter().any(what)
    }

    /// Whether this member is out of any session, and was told.
    fn is_out(&self, index: Index) -> bool {
        let is_over = self.cluster.node(index).is_over();
        let is_told = self.has_told(index, |event| matches!(event, Event::Disconnected { .. }));
        assert!(
            !is_over || is_told,
            "{}: {index} ends without a word",
            self.name
        );
        is_over
    }

    /// The members of each session.
    fn sessions(&self) -> Vec<Vec<Index>> {
        let present = || {
            self.members()
                .into_iter()
                .filter(|&index| !self.is_out(index))
        };
        let session = |index: Index| self.cluster.node(index).session().session;
        let ids: BTreeSet<_> = present().map(session).collect();
        let of = |id| present().filter(|&index| session(index) == id).collect();
        ids.into_iter().map(of).collect()
    }

    /// Whether all follow the host of their session, and ticks go on there.
    fn goes_on(&mut self, sessions: &[Vec<Index>]) -> bool {
        sessions.iter().all(|members| {
            if self.cluster.host_of(members).is_none() {
                return false;
            }
            let before = self.cluster.settled(members);
            let newest = members.iter().map(|&index| self.cluster.node(index).tick());
            let goal = newest.max().unwrap_or(before).plus(30);
            let us = 3_000_000;
            let all = members.clone();
            self.cluster.run_while_not(us, |it| it.settled(&all) > goal)
        })
    }

    fn outcome(&mut self) -> Outcome {
        let start = self.cluster.now();
        loop {
            self.run(1_000_000);
            let sessions = self.sessions();
            let spent_us = self.cluster.now().micros_since(start);
            if spent_us >= 4_000_000 && self.goes_on(&sessions) && self.sessions() == sessions {
                return self.judge(&sessions);
            }
            assert!(
                spent_us < 4 * RESUME_US,
                "{}: {sessions:?} do not go on: {:#?}",
                self.name,
                self.standing()
            );
        }
    }

    fn judge(&self, sessions: &[Vec<Index>]) -> Outcome {
        for members in sessions {
            self.assert_same_history(members);
        }
        for index in self.members() {
            let is_told = !self.is_out(index) || index == self.sleeper;
            assert!(
                is_told,
                "{}: {index} is out: {:#?}",
                self.name,
                self.standing()
            );
        }
        let all = self.members().len();
        let forked = |&index: &Index| self.has_told(index, |it| matches!(it, Event::Forked { .. }));
        let forks = self.members().iter().filter(|index| forked(index)).count();
        assert!(
            all == 2 || forks == 0 && sessions.len() == 1,
            "{}: {sessions:?}: {:#?}",
            self.name,
            self.standing()
        );
        if sessions.len() > 1 {
            Outcome::Apart
        } else if sessions[0].len() < all {
            Outcome::Out
        } else {
            Outcome::Together
        }
    }

    /// The states after the ticks that all of `members` remember are the same.
    fn assert_same_history(&self, members: &[Index]) {
        let toys = members.iter().map(|&index| {
            let member = &self.cluster.members[index];
            member.driver.simulation().expect("it has a state")
        });
        let toys: Vec<_> = toys.collect();
        let settled = self.cluster.settled(members).number();
        for tick in settled.saturating_sub(60)..=settled {
            let mut states = toys.iter().filter_map(|toy| toy.footprint(Tick::new(tick)));
            let Some(first) = states.next() else { continue };
            assert!(
                states.all(|state| state == first),
                "{}: tick {tick}",
                self.name
            );
        }
    }

    fn standing(&self) -> Vec<String> {
        let of = |index: Index| {
            let node = self.cluster.node(index);
            let terms = node.terms();
            let events = self.cluster.members[index].events.iter().rev();
            let events = events.filter(|event| !matches!(event, Event::Message { .. }));
            format!(
                "{index}: session {:x}, hosts {}, over {}, term {:?}, voters {:?}, tick {}, {:?}",
                node.session().session.0,
                node.is_host(),
                node.is_over(),
                terms.map(|terms| terms.term().0),
                terms.map(|terms| terms.roster().voters().collect::<Vec<_>>()),
                node.tick(),
                events.take(6).collect::<Vec<_>>()
            )
        };
        self.members().into_iter().map(of).collect()
    }
}

/// All pauses of one kind of sleeper. How they ended.
fn sleeps(sleeper: Sleeper, members: u8, gate: Gate) -> Vec<(u64, Outcome)> {
    let mut outcomes = Vec::new();
    for (seed, pause_ms) in (1..).zip([500, 2000, 4000, 7000, 13_000, 40_000]) {
        let setting = Setting::new(sleeper, members, gate, pause_ms);
        if let Some(mut run) = setting.open(seed) {
            run.sleep(pause_ms * 1000);
            outcomes.push((pause_ms, run.outcome()));
        }
    }
    outcomes
}

#[expect(clippy::print_stdout, reason = "a table for whoever asks for it")]
fn matrix(sleeper: Sleeper, gate: Gate) -> Vec<(u8, u64, Outcome)> {
    let mut table = Vec::new();
    for members in 2..=5 {
        let outcomes = sleeps(sleeper, members, gate);
        println!("{sleeper:?} of {members}, {gate:?}: {outcomes:?}");
        table.extend(outcomes.into_iter().map(|(ms, it)| (members, ms, it)));
    }
    table
}

/// Whoever slept less than its slot is kept is back with the others, if they are more than one.
fn assert_back(table: &[(u8, u64, Outcome)], upto_ms: u64) {
    for &(members, pause_ms, outcome) in table {
        let is_back = outcome == Outcome::Together;
        let may_be_out = members == 2 || pause_ms > upto_ms;
        assert!(
            is_back || may_be_out,
            "{members}, {pause_ms} ms: {outcome:?}"
        );
    }
}

#[test]
fn hosts_that_sleep() {
    assert_back(&matrix(Sleeper::Host, Gate::Paced), 7000);
}

#[test]
fn hosts_that_sleep_where_all_wait() {
    assert_back(&matrix(Sleeper::Host, WAIT), 7000);
}

/// A host that knows nobody any more is told so, after the time for which slots are kept.
#[test]
fn a_host_whose_links_have_ended_is_told() {
    let setting = Setting::new(Sleeper::Host, 3, Gate::Paced, 13_000);
    let mut run = setting.open(7).expect("there is a host");
    // Nothing of what the others said meanwhile has stayed.
    run.cluster.waiting_max = 0;
    run.sleep(13_000_000);
    run.run(RESUME_US - 1_000_000);
    assert!(!run.cluster.node(0).is_over(), "others may still be heard");
    run.run(2_000_000);
    let reason = DisconnectReason::Abandoned;
    assert!(run.has_told(0, |event| *event == Event::Disconnected { reason }));
    assert!(run.cluster.node(0).is_over());
}

#[test]
fn standbys_that_sleep() {
    assert_back(&matrix(Sleeper::Standby, Gate::Paced), 13_000);
}

#[test]
fn standbys_that_sleep_where_all_wait() {
    assert_back(&matrix(Sleeper::Standby, WAIT), 13_000);
}

#[test]
fn others_that_sleep() {
    assert_back(&matrix(Sleeper::Other, Gate::Paced), 13_000);
}

#[test]
fn others_that_sleep_where_all_wait() {
    assert_back(&matrix(Sleeper::Other, WAIT), 13_000);
}

/// Over links that find back, whoever slept for less than its slot is kept is with the others again,
/// also if it hosted, or the host is another one by now; and without having been told that it is out.
#[expect(clippy::print_stdout, reason = "a table for whoever asks for it")]
fn come_back(sleeper: Sleeper, gate: Gate, is_pair: bool) {
    for members in 3..=5 {
        let mut outcomes = Vec::new();
        for (seed, pause_ms) in (1..).zip([2000, 7000, 11_000, 13_000]) {
            let setting = Setting {
                reopens: true,
                is_pair,
                ..Setting::new(sleeper, members, gate, pause_ms)
            };
            let Some(mut run) = setting.open(seed) else {
                continue;
            };
            let who = |run: &Run| {
                let session = run.cluster.node(run.sleeper).session();
                (session.session, session.member, session.slot)
            };
            let before = who(&run);
            run.sleep(pause_ms * 1000);
            let outcome = run.outcome();
            outcomes.push((pause_ms, outcome));
            assert_eq!(outcome, Outcome::Together, "{}", run.name);
            assert_eq!(who(&run), before, "{}", run.name);
            let is_out = |event: &Event| matches!(event, Event::Disconnected { .. });
            assert!(!run.has_told(run.sleeper, is_out), "{}", run.name);
            let is_gone = |event: &Event| matches!(event, Event::Left { .. });
            let is_told = |&index: &Index| run.has_told(index, is_gone);
            assert!(!run.members().iter().any(is_told), "{}", run.name);
        }
        println!(
            "{sleeper:?} of {members}, {gate:?}, pair {is_pair}, with ways back: {outcomes:?}"
        );
    }
}

#[test]
fn hosts_that_sleep_come_back() {
    come_back(Sleeper::Host, Gate::Paced, false);
    come_back(Sleeper::Host, WAIT, false);
}

#[test]
fn servers_without_a_slot_that_sleep_come_back() {
    come_back(Sleeper::Host, Gate::Paced, true);
    come_back(Sleeper::Standby, WAIT, true);
}

/// Who opened a session and sleeps before it starts is in it when it does, in its own slot.
#[test]
fn hosts_that_sleep_in_the_lobby_come_back() {
    for (seed, is_pair) in (1..).zip([false, true, false, true]) {
        let setting = Setting {
            is_pair,
            ..Setting::new(Sleeper::Host, 4, Gate::Paced, 2000)
        };
        let mut cluster = Cluster::new(setting.host(), Conditions::from_rtt(20_000, 0), seed);
        cluster.watch = Some(assert_one_acts);
        let mut guests = setting.guests();
        let late = guests.pop().expect("there are guests");
        for join in guests {
            cluster.join(join);
        }
        let meets = cluster.run_while_not(10_000_000, |it| it.node(0).is_replaceable());
        assert!(meets, "pair {is_pair}");
        let who = |cluster: &Cluster| {
            let session = cluster.node(0).session();
            (session.session, session.member, session.slot)
        };
        let before = who(&cluster);
        cluster.members[0].paused = true;
        cluster.run_us(2_000_000);
        cluster.members[0].paused = false;
        cluster.run_us(1_000_000);
        assert!(!cluster.node(0).is_host(), "pair {is_pair}");
        let host = cluster.host_of(&[0, 1, 2]).expect("they have one host");
        let newcomer = cluster.join(late.clone());
        cluster.restart(newcomer, host, late);
        let all = [0, 1, 2, 3];
        let goes = cluster.run_while_not(10_000_000, |it| it.settled(&all) > Tick::new(60));
        assert!(goes, "pair {is_pair}: {:?}", cluster.members[0].events);
        assert_eq!(who(&cluster), before);
    }
}

#[test]
fn standbys_that_sleep_come_back() {
    come_back(Sleeper::Standby, Gate::Paced, false);
    come_back(Sleeper::Standby, WAIT, false);
}

#[test]
fn others_that_sleep_come_back() {
    come_back(Sleeper::Other, Gate::Paced, false);
    come_back(Sleeper::Other, WAIT, false);
}

/// Where members of any minority go their own way, the runs do not pass.
#[test]
fn sleepers_that_go_their_own_way_are_seen() {
    let policy = HostPolicy {
        fork_minority: true,
        ..HostPolicy::default()
    };
    for sleeper in [Sleeper::Standby, Sleeper::Other] {
        let result = catch_unwind(AssertUnwindSafe(|| {
            let setting = Setting {
                policy: policy.clone(),
                ..Setting::new(sleeper, 3, Gate::Paced, 7000)
            };
            let mut run = setting.open(1).expect("there is one");
            run.sleep(7_000_000);
            run.outcome()
        }));
        assert!(result.is_err(), "{sleeper:?}: {result:?}");
    }
}
