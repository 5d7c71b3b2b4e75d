//! A cluster of real nodes in virtual time.

mod clock;
mod link;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use phalanx::netcode::driver::{Driver, Player};
use phalanx::netcode::id::Path;
use phalanx::netcode::input::InputFrame;
use phalanx::netcode::link::CloseReason;
use phalanx::netcode::link::conditioner::{Conditioner, Conditions};
use phalanx::netcode::node::{Event, Node, SessionInfo};
use phalanx::netcode::prng::Prng;
use phalanx::netcode::session::config::{HostConfig, JoinConfig};
use phalanx::netcode::tick::Tick;
use phalanx::netcode::time::Time;

use self::clock::Clock;
use self::link::SimLink;
use crate::toy::Toy;

/// Index of a node in its cluster. The host is 0.
pub type Index = usize;

/// A player whose 8-byte input flips one of 16 bits now and then.
#[derive(Debug)]
pub struct Bot {
    prng: Prng,
    input: u64,
    /// Probability of a flip per tick, in millionths.
    pub flips_per_million: u32,
    /// What it submitted, by tick.
    pub submitted: BTreeMap<Tick, u64>,
    /// Whether to remember what was submitted; long runs switch it off.
    pub remembers: bool,
}

impl Player for Bot {
    type Simulation = Toy;

    fn begin(&mut self, session: &SessionInfo) -> Toy {
        Toy::new(session.seed, session.slots)
    }

    fn sample(&mut self, tick: Tick, _simulation: &Toy, input: &mut [u8]) {
        if self.prng.chance_per_million(self.flips_per_million) {
            self.input ^= 1 << self.prng.below(16);
        }
        if self.remembers {
            self.submitted.insert(tick, self.input);
        }
        input.copy_from_slice(&self.input.to_le_bytes());
    }

    fn stepped(&mut self, _simulation: &Toy, _frame: &InputFrame) {}
}

/// A player whose behaviour is decided by a seed and its place in the cluster.
pub trait Seeded: Player {
    /// The player.
    fn seeded(seed: u64, stream: u64) -> Self;
}

impl Seeded for Bot {
    fn seeded(seed: u64, stream: u64) -> Self {
        Self {
            prng: Prng::with_stream(seed, stream),
            input: 0,
            flips_per_million: 100_000,
            submitted: BTreeMap::new(),
            remembers: true,
        }
    }
}

/// A node with what arrived for it.
#[derive(Debug)]
pub struct Member<P: Player = Bot> {
    /// Its driver.
    pub driver: Driver<P>,
    /// All events so far.
    pub events: Vec<Event>,
    link: SimLink,
    /// Not pumped while paused.
    pub paused: bool,
    /// Its process is gone: nothing is pumped, and what is sent to it is lost.
    pub crashed: bool,
    /// How others reach it: its index, and in the upper half how often it was restarted.
    path: Path,
    clock: Clock,
}

/// A cluster that plays the lockstep toy.
pub type Cluster = ClusterOf<Bot>;

/// A host and its clients over conditioned paths. Every member reaches every other one: the path to
/// member `j` is `Path(j)` for all, until it is restarted; see [`ClusterOf::path_to`].
#[derive(Debug)]
pub struct ClusterOf<P: Player> {
    /// The nodes; the host is the first.
    pub members: Vec<Member<P>>,
    now: Time,
    seed: u64,
    /// Of datagrams: the path to the receiver, the path from the sender.
    network: Conditioner<(Path, Path)>,
    conditions: BTreeMap<Index, Conditioner<(Path, Path)>>,
    routes: BTreeMap<(Index, Index), Conditioner<(Path, Path)>>,
    default_conditions: Conditions,
    /// Directed routes that carry nothing: (from, to).
    pub cut: Vec<(Index, Index)>,
    /// Whether a path that one end closes is gone for the other, too, as with encrypted links.
    /// Without that, paths are there whatever happens.
    pub closes: bool,
    /// Pairs without a path, the lower index first.
    shut: BTreeSet<(Index, Index)>,
    /// Datagrams that wait for a member that is paused, at most; others are lost.
    pub waiting_max: usize,
    /// Changes datagrams on their way: given sender, receiver and bytes.
    pub mutate: Option<fn(&mut Prng, &mut Vec<u8>)>,
    prng: Prng,
    /// Datagrams and bytes of UDP payload sent so far, per directed route.
    pub traffic: BTreeMap<(Index, Index), (u64, u64)>,
    /// Bytes of the largest datagram sent so far.
    pub largest: usize,
    /// The last datagrams sent, with sender and receiver: at most [`Cluster::tapped`].
    pub tap: VecDeque<(Index, Index, Vec<u8>)>,
    /// How many datagrams are kept in the tap; none by default.
    pub tapped: usize,
    /// What the host has sent over paths that belong to no member, oldest first, 256 at most.
    pub astray: VecDeque<(Path, Vec<u8>)>,
    /// Which node crashes, and how many more datagrams it sends before.
    pub crashes_after: Option<(Index, u64)>,
    /// Looks at the nodes whenever some of them have run.
    pub watch: Option<fn(&Self)>,
    /// Looks at what a node sends, and when on its clock: paths and datagrams.
    pub overhear: Option<Overhear>,
}

/// See [`ClusterOf::overhear`]: the node, the time on its clock, and what it sends.
pub type Overhear = fn(&Node, Time, &[(Path, Vec<u8>)]);

impl<P: Seeded> ClusterOf<P> {
    /// A cluster with a host; all depends on `seed`.
    ///
    /// # Panics
    /// If the settings cannot be used.
    #[must_use]
    pub fn new(mut host: HostConfig, conditions: Conditions, seed: u64) -> Self {
        host.secret = u128::from(seed) | 1 << 64;
        host.seed = seed;
        let game = host.game.clone();
        // An epoch that is not zero, as in a real process.
        let now = Time::from_millis(10_000);
        let node = Node::host(host, now).expect("the host's settings can be used");
        let clock = Clock {
            ahead_us: 0,
            drift_ppm: 0,
            since: now,
        };
        let member = member(Driver::new(node, game, P::seeded(seed, 0)), Path(0), clock);
        Self {
            members: vec![member],
            now,
            seed,
            network: Conditioner::new(conditions, seed),
            conditions: BTreeMap::new(),
            routes: BTreeMap::new(),
            default_conditions: conditions,
            cut: Vec::new(),
            closes: false,
            shut: BTreeSet::new(),
            waiting_max: usize::MAX,
            mutate: None,
            prng: Prng::with_stream(seed, 99),
            traffic: BTreeMap::new(),
            largest: 0,
            tap: VecDeque::new(),
            tapped: 0,
            astray: VecDeque::new(),
            crashes_after: None,
            watch: None,
            overhear: None,
        }
    }

    /// Adds a client, which asks to join at once.
    ///
    /// # Panics
    /// If the settings cannot be used.
    pub fn join(&mut self, config: JoinConfig) -> Index {
        self.join_ahead(config, 0)
    }

    /// As [`Cluster::join`], with a clock that is `ahead_us` microseconds ahead of the others'.
    ///
    /// # Panics
    /// If the settings cannot be used.
    pub fn join_ahead(&mut self, config: JoinConfig, ahead_us: u64) -> Index {
        self.join_drifting(config, ahead_us, 0)
    }

    /// As [`Cluster::join_ahead`], with a clock that is also faster by `drift_ppm` millionths.
    ///
    /// # Panics
    /// If the settings cannot be used.
    pub fn join_drifting(&mut self, config: JoinConfig, ahead_us: u64, drift_ppm: i32) -> Index {
        let index = self.members.len();
        let clock = Clock {
            ahead_us,
            drift_ppm,
            since: self.now,
        };
        let path = Path(u32::try_from(index).expect("few members"));
        let member = self.client(config, index, path, Path(0), clock);
        self.members.push(member);
        index
    }

    fn client(
        &self,
        mut config: JoinConfig,
        index: Index,
        path: Path,
        host: Path,
        clock: Clock,
    ) -> Member<P> {
        let life = u128::from(path.0 >> 16);
        config.secret = u128::from(self.seed) << 32 | life << 16 | index as u128;
        let game = config.game.clone();
        let node = Node::join(config, host, clock.shows(self.now));
        let node = node.expect("the settings can be used");
        let stream = u64::from(path.0);
        member(
            Driver::new(node, game, P::seeded(self.seed, stream)),
            path,
            clock,
        )
    }

    /// Ends the process of `index`: it says nothing more, and what is sent to it is lost. What it
    /// has sent arrives.
    pub fn crash(&mut self, index: Index) {
        let member = &mut self.members[index];
        member.crashed = true;
        member.link = SimLink::default();
    }

    /// Starts the process of `index` again, which remembers nothing: it asks `host` to join. Others
    /// reach it over another path than its last life. Its events and its clock go on.
    ///
    /// # Panics
    /// If the settings cannot be used.
    pub fn restart(&mut self, index: Index, host: Index, config: JoinConfig) {
        let old = &mut self.members[index];
        let (path, clock) = (Path(old.path.0 + (1 << 16)), old.clock);
        let events = core::mem::take(&mut old.events);
        let host = self.members[host].path;
        self.members[index] = self.client(config, index, path, host, clock);
        self.members[index].events = events;
    }

    /// The path over which others reach `index`.
    #[must_use]
    pub fn path_to(&self, index: Index) -> Path {
        self.members[index].path
    }

    /// Lets `index` open paths to others, or not.
    pub fn set_opens(&mut self, index: Index, opens: bool) {
        self.members[index].link.opens = opens;
    }

    /// Lets `index` go back over paths that have ended, or not.
    pub fn set_reopens(&mut self, index: Index, reopens: bool) {
        self.members[index].link.reopens = reopens;
    }

    /// The paths that `index` opens from now on need invitations, as with encrypted links.
    pub fn seal(&mut self, index: Index) {
        let member = &mut self.members[index];
        member.link.sealed = Some(member.path);
    }

    /// Lets two open paths to each other and invite each other, or not.
    pub fn set_may_meet(&mut self, one: Index, other: Index, may_meet: bool) {
        for (index, to) in [(one, other), (other, one)] {
            let path = self.members[to].path;
            let refuses = &mut self.members[index].link.refuses;
            if may_meet {
                refuses.remove(&path);
            } else {
                refuses.insert(path);
            }
        }
    }

    /// Gives everything that `index` sends other conditions than the rest.
    pub fn set_conditions(&mut self, index: Index, conditions: Conditions) {
        let seed = self.seed ^ index as u64;
        self.conditions
            .insert(index, Conditioner::new(conditions, seed));
    }

    /// As [`Cluster::set_conditions`], but what is under way arrives as it would.
    pub fn change_conditions(&mut self, index: Index, conditions: Conditions) {
        let seed = self.seed ^ index as u64;
        let one = self.conditions.entry(index);
        one.or_insert_with(|| Conditioner::new(conditions, seed))
            .set_conditions(conditions);
    }

    /// Gives what `from` sends to `to` other conditions than the rest.
    pub fn set_route(&mut self, from: Index, to: Index, conditions: Conditions) {
        let seed = self.seed ^ (from as u64) << 32 ^ (to as u64) << 16;
        self.routes
            .insert((from, to), Conditioner::new(conditions, seed));
    }

    /// Gives everybody the same conditions from now on. What is under way arrives as it would.
    pub fn set_all_conditions(&mut self, conditions: Conditions) {
        self.network.set_conditions(conditions);
        let routes = self.routes.values_mut();
        for one in routes.chain(self.conditions.values_mut()) {
            one.set_conditions(conditions);
        }
    }

    /// The conditions of those who have no other.
    #[must_use]
    pub fn default_conditions(&self) -> Conditions {
        self.default_conditions
    }

    /// The present.
    #[must_use]
    pub fn now(&self) -> Time {
        self.now
    }

    /// The driver of `index`.
    pub fn driver(&mut self, index: Index) -> &mut Driver<P> {
        &mut self.members[index].driver
    }

    /// The node of `index`.
    #[must_use]
    pub fn node(&self, index: Index) -> &Node {
        self.members[index].driver.node()
    }

    /// The present on the clock of `index`.
    #[must_use]
    pub fn now_of(&self, index: Index) -> Time {
        self.members[index].clock.shows(self.now)
    }

    /// Mends all routes to and from `index`.
    pub fn mend(&mut self, index: Index) {
        self.cut.retain(|&(from, to)| from != index && to != index);
    }

    /// Cuts all routes to and from `index`.
    pub fn isolate(&mut self, index: Index) {
        for other in 0..self.members.len() {
            self.cut.push((index, other));
            self.cut.push((other, index));
        }
    }

    /// The path between two is gone, and both hear of it.
    pub fn shut(&mut self, one: Index, other: Index, reason: CloseReason) {
        if self.shut.insert((one.min(other), one.max(other))) {
            for (index, to) in [(one, other), (other, one)] {
                let path = self.members[to].path;
                self.members[index].link.closed.push_back((path, reason));
            }
        }
    }

    /// There is a path between two again.
    pub fn reopen(&mut self, one: Index, other: Index) {
        self.shut.remove(&(one.min(other), one.max(other)));
    }

    /// What members have closed and opened takes effect.
    fn close_and_open(&mut self, index: Index) {
        let link = &mut self.members[index].link;
        let ends = core::mem::take(&mut link.ends);
        let begins = core::mem::take(&mut link.begins);
        if !self.closes {
            return;
        }
        for path in ends {
            let other = index_of(path);
            if other < self.members.len() && self.members[other].path == path {
                self.shut.insert((index.min(other), index.max(other)));
                let path = self.members[index].path;
                let link = &mut self.members[other].link;
                link.closed.push_back((path, CloseReason::Remote));
            }
        }
        for path in begins {
            self.reopen(index, index_of(path));
        }
    }

    /// Hands `bytes` to `to` as if they came over the path of `from`.
    pub fn inject(&mut self, from: Index, to: Index, bytes: &[u8]) {
        let path = self.members[from].path;
        self.members[to]
            .link
            .inbox
            .push_back((path, bytes.to_vec()));
    }

    /// Hands `bytes` to `to` over any path.
    pub fn inject_over(&mut self, path: Path, to: Index, bytes: &[u8]) {
        self.members[to]
            .link
            .inbox
            .push_back((path, bytes.to_vec()));
    }

    /// Runs for `us` microseconds.
    pub fn run_us(&mut self, us: u64) {
        let end = self.now.plus_micros(us);
        self.run_until(end, |_| false);
    }

    /// Runs until `done`, at most `us` microseconds; says whether it came true.
    pub fn run_while_not(&mut self, us: u64, mut done: impl FnMut(&Self) -> bool) -> bool {
        let end = self.now.plus_micros(us);
        self.run_until(end, &mut done)
    }

    fn run_until(&mut self, end: Time, mut done: impl FnMut(&Self) -> bool) -> bool {
        let mut steps = 0;
        loop {
            if done(self) {
                return true;
            }
            let next = self.next_time();
            if next > end {
                self.now = end;
                return false;
            }
            steps = if next > self.now { 0 } else { steps + 1 };
            assert!(
                steps < 100_000,
                "time stands still at {:?}: {:?}",
                self.now,
                self.members.iter().map(Member::timeout).collect::<Vec<_>>()
            );
            self.now = self.now.max(next);
            self.step();
        }
    }

    fn next_time(&self) -> Time {
        let routes = self.routes.values();
        let arrivals = routes.chain(self.conditions.values());
        let arrivals = arrivals.chain([&self.network]);
        let arrivals = arrivals.filter_map(Conditioner::next_time);
        let timeouts = self.members.iter().filter(|member| member.runs());
        let timeouts = timeouts.map(Member::timeout);
        let waiting = self.members.iter().any(|m| m.runs() && m.link.has_news());
        let waiting = waiting.then_some(self.now);
        arrivals
            .chain(timeouts)
            .chain(waiting)
            .min()
            .unwrap_or(Time::FAR)
    }

    fn step(&mut self) {
        let routes = self.routes.values_mut();
        let networks = routes.chain(self.conditions.values_mut());
        for network in networks.chain([&mut self.network]) {
            while let Some(((to, path), bytes)) = network.pop(self.now) {
                let (member, life) = (&mut self.members[index_of(to)], to);
                if member.crashed || member.path != life {
                    continue;
                }
                if member.paused && member.link.inbox.len() >= self.waiting_max {
                    continue;
                }
                let link = &mut member.link;
                let mut copy = link.spare.pop().unwrap_or_default();
                copy.clear();
                copy.extend_from_slice(bytes);
                link.inbox.push_back((path, copy));
            }
        }
        for index in 0..self.members.len() {
            let member = &mut self.members[index];
            let due = member.timeout() <= self.now || member.link.has_news();
            if !member.runs() || !due {
                continue;
            }
            self.pump(index);
        }
        if let Some(watch) = self.watch {
            watch(self);
        }
    }

    /// Lets a member do what is due, as after a command to its node.
    pub fn pump(&mut self, index: Index) {
        let member = &mut self.members[index];
        let now = member.clock.shows(self.now);
        member.driver.pump(now, &mut member.link);
        while let Some(event) = member.driver.poll_event() {
            member.events.push(event);
        }
        if let Some(overhear) = self.overhear {
            let member = &self.members[index];
            overhear(member.driver.node(), now, &member.link.outbox);
        }
        self.carry(index);
        self.close_and_open(index);
    }

    fn carry(&mut self, from: Index) {
        let mut outbox = core::mem::take(&mut self.members[from].link.outbox);
        let mut sends = u64::MAX;
        if let Some((index, left)) = &mut self.crashes_after
            && *index == from
        {
            sends = *left;
            *left = left.saturating_sub(outbox.len() as u64);
        }
        let sends = usize::try_from(sends).unwrap_or(usize::MAX);
        let crashes = sends < outbox.len();
        for (path, bytes) in outbox.iter_mut().take(sends) {
            let to = index_of(*path);
            if to >= self.members.len() {
                self.astray.push_back((*path, bytes.clone()));
                if self.astray.len() > 256 {
                    self.astray.pop_front();
                }
                continue;
            }
            if self.tapped > 0 {
                self.tap.push_back((from, to, bytes.clone()));
                if self.tap.len() > self.tapped {
                    self.tap.pop_front();
                }
            }
            let traffic = self.traffic.entry((from, to)).or_default();
            traffic.0 += 1;
            traffic.1 += bytes.len() as u64;
            self.largest = self.largest.max(bytes.len());
            if let Some(mutate) = self.mutate {
                mutate(&mut self.prng, bytes);
            }
            let is_shut = self.shut.contains(&(from.min(to), from.max(to)));
            if !is_shut && !self.cut.contains(&(from, to)) {
                let network = match self.routes.get_mut(&(from, to)) {
                    Some(route) => route,
                    None => self.conditions.get_mut(&from).unwrap_or(&mut self.network),
                };
                network.push(self.now, (*path, self.members[from].path), bytes);
            }
        }
        let link = &mut self.members[from].link;
        link.spare.extend(outbox.drain(..).map(|(_, bytes)| bytes));
        link.outbox = outbox;
        if crashes {
            self.crash(from);
        }
    }

    /// Forgets the traffic so far.
    pub fn reset_traffic(&mut self) {
        self.traffic.clear();
    }

    /// The newest tick that all of `indices` have settled.
    #[must_use]
    pub fn settled(&self, indices: &[Index]) -> Tick {
        indices
            .iter()
            .map(|&index| self.node(index).settled_tick())
            .min()
            .unwrap_or(Tick::ZERO)
    }

    /// The one of `indices` that hosts, if there is one and all of them follow it in its term.
    #[must_use]
    pub fn host_of(&self, indices: &[Index]) -> Option<Index> {
        let is_host = |index: &&Index| self.node(**index).is_host();
        let mut hosts = indices.iter().filter(is_host);
        let (host, other) = (*hosts.next()?, hosts.next());
        let info = self.node(host).session();
        let follows = |&index: &Index| {
            let node = self.node(index);
            node.host_member() == info.member && node.session().term == info.term
        };
        (other.is_none() && indices.iter().all(follows)).then_some(host)
    }

    /// Whether all of `indices` are at the same tick with the same state hash.
    pub fn agree(&mut self, indices: &[Index]) -> bool {
        let states: Vec<_> = indices
            .iter()
            .map(|&index| {
                let tick = self.node(index).tick();
                (tick, self.driver(index).state_hash())
            })
            .collect();
        states.windows(2).all(|pair| pair[0] == pair[1])
    }
}

impl<P: Player> Member<P> {
    /// When it wants to be pumped, on the cluster's clock.
    fn timeout(&self) -> Time {
        self.clock.when(self.driver.poll_timeout())
    }

    fn runs(&self) -> bool {
        !self.paused && !self.crashed
    }
}

/// The member to which a path leads.
fn index_of(path: Path) -> Index {
    path.0 as usize & 0xffff
}

fn member<P: Player>(driver: Driver<P>, path: Path, clock: Clock) -> Member<P> {
    Member {
        driver,
        events: Vec::new(),
        link: SimLink {
            opens: true,
            ..SimLink::default()
        },
        paused: false,
        crashed: false,
        path,
        clock,
    }
}
