//! A session whose hosting moves, watched: what sessions of both modes have in common.
//!
//! The nodes run in virtual time and are looked at each 5 ms. Whoever is let in nowhere asks again,
//! and whoever leaves ends. What is of interest in one mode only is a [`Watcher`]'s:
//! [`crate::succession`] watches lockstep, [`crate::reign`] state-sync.
//!
//! A session that fails prints the line that repeats it and how its nodes stand.

use std::collections::BTreeSet;
use std::fmt::Debug;

use phalanx::netcode::id::{MemberId, Path, SessionId, Term};
use phalanx::netcode::node::{DisconnectReason, Event, Node};
use phalanx::netcode::prng::Prng;
use phalanx::netcode::tick::Tick;
use phalanx::netcode::time::Time;
use phalanx::netcode::wire::header::kind;

use crate::cluster::{ClusterOf, Index, Seeded};

/// Microseconds between two looks at the nodes.
pub(crate) const LOOK_US: u64 = 5_000;

/// How long a process that was let in nowhere waits before it asks again, in microseconds.
const ASK_AGAIN_US: u64 = 200_000;

/// Events of a node that are shown when it fails.
const EVENTS_SHOWN: usize = 8;

/// What watches a session of one mode: what it looks for, and what it has seen.
pub trait Watcher<P: Seeded>: Debug + Sized {
    /// What it remembers of a process.
    type Seen: Debug + Default;

    /// Microseconds to run before the next look, when `left_us` are left to run.
    fn stride_us(left_us: u64) -> u64;

    /// Starts the process of `index` again, which remembers nothing and asks `host`; returns what
    /// is known of it then.
    fn restart(session: &mut Watched<P, Self>, index: Index, host: Index) -> Self::Seen;

    /// Starts one more process, which asks whoever hosts to let it in.
    fn let_in_another(session: &mut Watched<P, Self>, prng: &mut Prng);

    /// Whether there is room for it.
    fn has_room(_session: &Watched<P, Self>) -> bool {
        true
    }

    /// Whether all that the session needs is there without `index`, votes aside.
    fn can_do_without(_session: &Watched<P, Self>, _index: Index) -> bool {
        true
    }

    /// How long `index` waits for a host, in microseconds.
    fn resume_us(session: &Watched<P, Self>, index: Index) -> u64;

    /// Takes in what `index` tells.
    fn hear(session: &mut Watched<P, Self>, index: Index, event: &Event);

    /// Looks at the nodes, after all that they had to tell.
    fn look(session: &mut Watched<P, Self>);
}

/// What was seen of a process.
#[derive(Debug, Default)]
pub(crate) struct Seen<T> {
    /// Its events that were heard.
    events: usize,
    /// It takes part, and does not just ask to be let in.
    pub(crate) is_in: bool,
    /// Cut off and paused for now.
    pub(crate) is_away: bool,
    pub(crate) leaves: bool,
    /// When it asks to be let in again.
    pub(crate) asks_at: Option<Time>,
    /// The term and the newest tick that it has shown.
    pub(crate) shown: (Term, Tick),
    /// Since when it has shown nothing newer, and how long that took at most.
    moved: Option<(Time, Tick)>,
    gap_us: u64,
    /// Own inputs of which it was told that others acted.
    pub(crate) replaced: BTreeSet<Tick>,
    /// Ticks that it had settled and lost.
    pub(crate) lost: BTreeSet<Tick>,
    /// What is of interest in one mode only.
    pub(crate) own: T,
}

/// A session whose hosting moves, watched by `W`.
#[derive(Debug)]
pub struct Watched<P: Seeded, W: Watcher<P>> {
    /// The nodes; the one that opened the session is the first.
    pub cluster: ClusterOf<P>,
    /// What repeats the run.
    pub seed: String,
    /// Whether to print what nodes tell.
    pub traces: bool,
    pub(crate) seen: Vec<Seen<W::Seen>>,
    /// When the last fault ended.
    calm_at: Option<Time>,
    /// Whether faults lasted for so long that a member gave the session up, as it shall.
    pub(crate) has_given_up: bool,
    /// What is of interest in one mode only.
    pub watcher: W,
}

impl<T> Seen<T> {
    /// There was news of `tick` at `at`.
    /// When a tick was settled last.
    pub(crate) fn moved_at(&self) -> Time {
        self.moved.map_or(Time::ZERO, |(at, _)| at)
    }

    pub(crate) fn moves(&mut self, tick: Tick, at: Time) {
        let moved = *self.moved.get_or_insert((at, tick));
        if tick > moved.1 {
            self.gap_us = self.gap_us.max(at.micros_since(moved.0));
            self.moved = Some((at, tick));
        }
    }
}

impl<P: Seeded, W: Watcher<P>> Watched<P, W> {
    /// Watches `cluster`, of whose processes all take part; `repeat` is the command that runs the
    /// test again.
    pub(crate) fn over(mut cluster: ClusterOf<P>, watcher: W, seed: u64, repeat: &str) -> Self {
        cluster.watch = Some(assert_one_acts);
        cluster.overhear = Some(assert_frozen_is_silent);
        let is_in = || Seen {
            is_in: true,
            ..Seen::default()
        };
        Self {
            seen: cluster.members.iter().map(|_| is_in()).collect(),
            cluster,
            seed: format!("seed {seed}, again with: {repeat}"),
            traces: false,
            calm_at: None,
            has_given_up: false,
            watcher,
        }
    }

    // ---- members ----

    /// Starts the process of `index` again, which remembers nothing and asks whoever hosts. If
    /// nobody does, it comes back when there is somebody to ask.
    pub fn restart(&mut self, index: Index) {
        let Some(host) = self.acting_host(index) else {
            self.cluster.crash(index);
            self.refuse(index);
            return;
        };
        self.hear(index);
        let own = W::restart(self, index, host);
        let seen = &mut self.seen[index];
        *seen = Seen {
            events: seen.events,
            own,
            ..Seen::default()
        };
    }

    /// `index` does not take part any more, or not yet: it asks again after a while.
    pub(crate) fn refuse(&mut self, index: Index) {
        let seen = &mut self.seen[index];
        seen.is_in = false;
        seen.asks_at = Some(self.cluster.now().plus_micros(ASK_AGAIN_US));
    }

    /// Whether `index` could not follow whoever hosts: the two have not met, or it was away for so
    /// long that it is no member any more.
    pub(crate) fn is_stranger(&self, index: Index) -> bool {
        let node = self.cluster.node(index);
        if node.terms().is_none() {
            return true;
        }
        let Some(host) = self.acting_host(index) else {
            return false;
        };
        let host = self.cluster.node(host);
        let (own, other) = (node.session().member, host.session().member);
        let has_met = |node: &Node, whom| {
            let mut links = node.mesh_links();
            links.any(|link| link.member == whom && link.is_confirmed)
        };
        let have_met = has_met(node, other) && has_met(host, own);
        host.roster().member(own).is_none() || !have_met
    }

    /// Whether `index` has had no host for as long as its place is kept, and not for want of trying:
    /// faults kept it from that, or others that did the same.
    pub(crate) fn may_give_up(&self, index: Index) -> bool {
        let now = self.cluster.now();
        // After 2.5 s without a standby another member may host, and is elected.
        let in_trouble = self
            .calm_at
            .is_none_or(|at| now.micros_since(at) < 3_500_000);
        let moved_at = self.seen[index].moved_at();
        let resume_us = W::resume_us(self, index);
        // The old host's last ticks may have come after its last word.
        let alone_us = now.micros_since(moved_at) + 500_000;
        self.has_given_up || in_trouble && alone_us >= resume_us
    }

    /// `index` is in no session any more. That must not be for no reason; it asks again then.
    pub(crate) fn end(&mut self, index: Index, reason: DisconnectReason) {
        let has_left = self.seen[index].leaves && reason == DisconnectReason::Left;
        // Whoever has not met the new host yet cannot follow it, and whoever was away for too long
        // has no place any more.
        let is_unheard = matches!(
            reason,
            DisconnectReason::Silence
                | DisconnectReason::Abandoned
                | DisconnectReason::NoMajority(_)
                | DisconnectReason::NobodyMayHost
        );
        let gives_up = is_unheard && self.may_give_up(index);
        self.has_given_up |= gives_up;
        let was_dropped = gives_up || is_unheard && self.is_stranger(index);
        assert!(was_dropped || has_left, "node {index} is out: {reason}");
        if was_dropped {
            self.refuse(index);
        }
    }

    /// No fault is under way any more.
    pub fn calm(&mut self) {
        self.calm_at = Some(self.cluster.now());
    }

    /// Whether faults lasted for so long that a member gave the session up.
    #[must_use]
    pub const fn has_given_up(&self) -> bool {
        self.has_given_up
    }

    /// Lets `index` leave. It is gone once it has handed over what it had to.
    pub fn leave(&mut self, index: Index) {
        self.seen[index].leaves = true;
        self.cluster.driver(index).node_mut().leave();
    }

    /// Cuts `index` off and holds it, for good.
    pub fn send_away(&mut self, index: Index) {
        self.cluster.members[index].paused = true;
        self.cluster.isolate(index);
        self.seen[index].is_away = true;
    }

    /// The processes that take part: neither crashed, nor gone, nor still asking to be let in.
    #[must_use]
    pub fn alive(&self) -> Vec<Index> {
        let takes_part = |&index: &Index| {
            let seen = &self.seen[index];
            let crashed = self.cluster.members[index].crashed;
            !crashed && !seen.is_away && seen.is_in && !seen.leaves
        };
        (0..self.cluster.members.len()).filter(takes_part).collect()
    }

    /// Whether processes still ask to be let in, or have not left yet.
    #[must_use]
    pub fn is_in_motion(&self) -> bool {
        let mut all = self.seen.iter().zip(&self.cluster.members);
        all.any(|(seen, member)| {
            let asks = !seen.is_in && !member.crashed || seen.asks_at.is_some();
            asks || seen.leaves && !member.crashed
        })
    }

    /// The node that hosts, if all follow one.
    #[must_use]
    pub fn host(&self) -> Option<Index> {
        self.cluster.host_of(&self.alive())
    }

    /// A node that hosts, the one of the newest term, if any does besides `but`.
    pub(crate) fn acting_host(&self, but: Index) -> Option<Index> {
        let hosts = self.alive().into_iter();
        let hosts = hosts.filter(|&index| index != but && self.cluster.node(index).is_host());
        hosts.max_by_key(|&index| self.cluster.node(index).session().term)
    }

    /// The node of a member.
    #[must_use]
    pub fn index_of(&self, member: MemberId) -> Option<Index> {
        let mut all = self.alive().into_iter();
        all.find(|&index| self.member(index) == member)
    }

    /// The member of a node.
    #[must_use]
    pub fn member(&self, index: Index) -> MemberId {
        self.cluster.node(index).session().member
    }

    // ---- hosting that moves as planned ----

    /// Asks the host to hand over; says to whom. Nobody may be ready for it; then nothing happens.
    pub fn request_handover(&mut self) -> Option<MemberId> {
        let host = self.host()?;
        let now = self.cluster.now_of(host);
        let node = self.cluster.driver(host).node_mut();
        node.request_handover(now, None).ok()
    }

    /// The host hands over, and all follow the next one.
    ///
    /// # Panics
    /// If nobody can host, or that takes more than 3 s.
    pub fn move_host(&mut self) {
        let target = self.request_handover().expect("somebody can host");
        self.run_until(3_000_000, |it| {
            it.host().is_some() && it.host() == it.index_of(target)
        });
    }

    /// Crashes the host that is the first node; returns after how many microseconds another one
    /// acts.
    ///
    /// # Panics
    /// If that takes more than `us` microseconds.
    pub fn crash_first_host(&mut self, us: u64) -> u64 {
        let died_at = self.cluster.now();
        self.cluster.crash(0);
        self.run_until(us, |it| {
            it.alive().into_iter().any(|index| {
                let now = it.cluster.now_of(index);
                let terms = it.cluster.node(index).terms();
                terms.is_some_and(|terms| terms.may_act(now))
            })
        });
        self.cluster.now().micros_since(died_at)
    }

    // ---- time ----

    /// Runs until `done`.
    ///
    /// # Panics
    /// If that takes more than `us` microseconds, or something is seen that must not be.
    pub fn run_until(&mut self, us: u64, done: impl Fn(&Self) -> bool) {
        let end = self.cluster.now().plus_micros(us);
        while !done(self) {
            assert!(self.cluster.now() < end, "it does not come true in {us} us");
            self.cluster.run_us(LOOK_US);
            self.look();
        }
    }

    /// Runs for `us` microseconds.
    ///
    /// # Panics
    /// If something is seen that must not be.
    pub fn run(&mut self, us: u64) {
        let end = self.cluster.now().plus_micros(us);
        while self.cluster.now() < end {
            let left_us = end.micros_since(self.cluster.now());
            self.cluster.run_us(W::stride_us(left_us));
            self.look();
        }
    }

    fn look(&mut self) {
        for index in 0..self.cluster.members.len() {
            self.ask_again(index);
            if !self.cluster.members[index].crashed && !self.seen[index].is_away {
                self.hear(index);
            }
        }
        W::look(self);
    }

    /// A process that was let in nowhere asks again in time; one that has left ends.
    fn ask_again(&mut self, index: Index) {
        let now = self.cluster.now();
        let seen = &mut self.seen[index];
        if seen.asks_at.take_if(|at| *at <= now).is_some() {
            self.restart(index);
        }
        let is_over = self.cluster.node(index).is_over();
        if self.seen[index].leaves && is_over && !self.cluster.members[index].crashed {
            self.cluster.crash(index);
        }
    }

    /// Takes in what `index` tells.
    #[expect(clippy::print_stdout, reason = "traces are for people")]
    fn hear(&mut self, index: Index) {
        let news = self.cluster.members[index].events[self.seen[index].events..].to_vec();
        self.seen[index].events += news.len();
        for event in &news {
            if self.traces && !matches!(event, Event::Message { .. }) {
                let ms = self.cluster.now().micros() / 1000 - 10_000;
                println!("{ms} ms, {index}: {event:?}");
            }
            if let Event::LostTicks { first, last } = event {
                let ticks = (first.number()..=last.number()).map(Tick::new);
                self.seen[index].lost.extend(ticks);
            }
            W::hear(self, index, event);
        }
    }

    // ---- what was seen ----

    /// Forgets how long nodes stood still so far.
    pub fn forget_gaps(&mut self) {
        for seen in &mut self.seen {
            seen.gap_us = 0;
        }
    }

    /// The longest time for which a node that takes part has shown nothing newer, in microseconds.
    #[must_use]
    pub fn longest_gap_us(&self) -> u64 {
        let gaps = self.alive().into_iter().map(|index| self.gap_us(index));
        gaps.max().unwrap_or(0)
    }

    /// The same of the node `index`.
    #[must_use]
    pub fn gap_us(&self, index: Index) -> u64 {
        self.seen[index].gap_us
    }

    /// The longest time, in milliseconds, for which a node shows nothing newer while `story` takes
    /// place.
    pub fn gap_ms(&mut self, story: impl FnOnce(&mut Self)) -> u64 {
        self.forget_gaps();
        story(self);
        self.longest_gap_us() / 1000
    }

    /// Ticks of which `index` was told that another input acted than its own.
    #[must_use]
    pub fn replaced(&self, index: Index) -> &BTreeSet<Tick> {
        &self.seen[index].replaced
    }

    /// Ticks that `index` had settled and lost.
    #[must_use]
    pub fn lost(&self, index: Index) -> usize {
        self.seen[index].lost.len()
    }

    /// Inputs of nodes that take part which were replaced, and ticks that were taken back.
    #[must_use]
    pub fn losses(&self) -> (usize, usize) {
        let alive = self.alive();
        let replaced = alive.iter().map(|&index| self.replaced(index).len());
        let lost = alive.iter().map(|&index| self.lost(index));
        (replaced.sum(), lost.sum())
    }

    /// How the nodes stand, for people.
    #[must_use]
    pub fn standing(&self) -> String {
        let here = |index: &Index| !self.cluster.members[*index].crashed;
        let lines = (0..self.cluster.members.len()).filter(here);
        let lines = lines.map(|index| self.stands(index));
        lines.collect::<Vec<String>>().join("\n")
    }

    /// How the node of `index` stands, for people.
    fn stands(&self, index: Index) -> String {
        let node = self.cluster.node(index);
        let terms = node.terms();
        let seen = &self.seen[index];
        let now = self.cluster.now_of(index);
        let mesh = node.mesh_links().map(|link| {
            let ago = |at: Option<Time>| at.map(|at| now.micros_since(at) / 1000);
            let confirmed = if link.is_confirmed { "" } else { "?" };
            let (heard, echoed) = (ago(link.heard_at), ago(link.echoed_at));
            format!(
                "{}{confirmed} heard {heard:?} echoed {echoed:?} ms ago",
                link.member
            )
        });
        let mesh: Vec<String> = mesh.collect();
        let events = self.cluster.members[index].events.iter().rev();
        let events = events.filter(|event| !matches!(event, Event::Message { .. }));
        format!(
            "{index}: {}member {} follows {} in term {}, host {}; machine: term {:?} host {:?} hosts {:?} \
             acts {:?} fence {:?} voters {:?} standbys {:?}; tick {} settled {} shown {} position {:?}; \
             {:?}; {:?}; drops {:?}; mesh [{}]; {:?}",
            if seen.is_in { "" } else { "(asks) " },
            node.session().member,
            node.host_member(),
            node.session().term.0,
            node.is_host(),
            terms.map(|it| it.term().0),
            terms.and_then(|it| it.host()),
            terms.map(|it| it.is_host()),
            terms.map(|it| it.may_act(now)),
            terms.map(|it| it.fence().0),
            terms.map(|it| it
                .roster()
                .voters()
                .map(|it| it.to_string())
                .collect::<Vec<_>>()),
            terms.map(|it| it.roster().standbys.clone()),
            node.tick(),
            node.settled_tick(),
            seen.shown.1,
            node.position(),
            node.standby_statistics(),
            node.state_sync(),
            node.statistics().drops,
            mesh.join(", "),
            events.take(EVENTS_SHOWN).collect::<Vec<_>>(),
        )
    }
}

impl<P: Seeded, W: Watcher<P>> Drop for Watched<P, W> {
    #[expect(clippy::print_stdout, reason = "the line that repeats a failed run")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}\n{}", self.seed, self.standing());
        }
    }
}

/// At most one node of a session acts as host at this instant.
///
/// # Panics
/// If more do.
pub fn assert_one_acts<P: Seeded>(cluster: &ClusterOf<P>) {
    let mut acting: Option<(Index, SessionId)> = None;
    for (index, member) in cluster.members.iter().enumerate() {
        let node = member.driver.node();
        if member.paused || member.crashed || !node.is_host() {
            continue;
        }
        let now = cluster.now_of(index);
        if !node.terms().is_some_and(|terms| terms.may_act(now)) {
            continue;
        }
        let session = node.session().session;
        if let Some((other, same)) = acting {
            assert!(same != session, "{other} and {index} act at once");
        }
        acting = Some((index, session));
    }
}

/// A host without a lease speaks as a member to members, and not to those who follow it.
fn assert_frozen_is_silent(node: &Node, now: Time, sent: &[(Path, Vec<u8>)]) {
    let is_frozen = node.is_host()
        && node
            .terms()
            .is_some_and(|terms| terms.is_host() && !terms.may_act(now));
    let is_of_members = |(_, bytes): &(Path, Vec<u8>)| bytes.first() == Some(&kind::MESH);
    assert!(
        !is_frozen || sent.iter().all(is_of_members),
        "a frozen host says {:?}",
        sent.iter()
            .map(|(path, bytes)| (path.0, bytes.first()))
            .collect::<Vec<_>>()
    );
}
