//! Hosting that another member did before, and making room for one that does it next.
//!
//! A new host knows its members by the paths that they had to each other before. Each of them asks
//! to go on by a Return, mostly before the new host is one, and is answered by a Back. The first
//! tick of the new term waits for what they have sampled, for a round trip and a half at most; then
//! the ticks of the time without a host are made up for, some in one tick's time.

mod returns;

pub(super) use self::returns::Since;

use std::collections::{BTreeMap, BTreeSet};

use super::Host;
use crate::hash::keyed;
use crate::id::{MemberId, Path, Slot, Term};
use crate::node::api::Event;
use crate::node::client::Client;
use crate::node::client::heir::Retired;
use crate::node::core::{Core, Todo};
use crate::node::seat::{Early, Holder, Seat};
use crate::node::takeover::TakeOver;
use crate::session::config::{Gate, JoinConfig, LatePolicy, Role, Start};
use crate::session::control::{Control, Settings};
use crate::session::handshake::ByeReason;
use crate::session::roster::{Member, MemberRecord};
use crate::tick::Tick;
use crate::time::Time;

/// Round trip that is assumed where none was measured, in microseconds.
const RTT_US: u64 = 200_000;

/// Ticks without a host that are made up for, at most.
const MADE_UP_TICKS_MAX: u64 = 64;

/// Ticks that run in one tick's time to make up for others, where no client's settings say it.
const CATCH_UP_TICKS: u32 = 8;

/// What a host has to do with hosts before and after it.
#[derive(Debug, Default)]
pub(in crate::node) struct Succession {
    /// Says nothing with authority.
    is_frozen: bool,
    /// The last tick that it orders.
    hands_over_at: Option<Tick>,
    /// Who is at the other end of paths that were there before they were needed.
    warm: BTreeMap<Path, MemberId>,
    /// Whose link over a path was lost while this node hosted; the member is kept a place for.
    lost: BTreeMap<Path, MemberId>,
    /// What members ask of this node once it hosts.
    returns: BTreeMap<Path, Vec<u8>>,
    /// With what this node joined, if it did.
    joined: Option<JoinConfig>,
    /// The first tick on which this node's inputs acted as a client's, without a break since.
    active_from: Option<Tick>,
    recovery: Option<Recovery>,
    /// Members without a slot that have not come back to this host yet, and since when.
    away: BTreeMap<MemberId, Time>,
}

impl Succession {
    /// A member without a slot has lost its link. It may be cut off for the moment, and have a vote.
    pub(super) fn note_away(&mut self, now: Time, member: MemberId) {
        self.away.insert(member, now);
    }

    /// The link of `member` over `path` is lost: it may not know of that, and ask for another one.
    pub(super) fn note_lost(&mut self, path: Path, member: MemberId) {
        self.lost.retain(|_, known| *known != member);
        self.lost.insert(path, member);
    }

    /// No place is kept for `member` any more.
    pub(super) fn forget_lost(&mut self, member: MemberId) {
        self.lost.retain(|_, known| *known != member);
    }
}

/// The first moments of a new term.
#[derive(Debug)]
struct Recovery {
    /// Members that have not returned yet.
    awaited: BTreeSet<MemberId>,
    /// Until when inputs are waited for.
    patience_until: Time,
    /// When the next tick may run.
    next_at: Time,
    catch_up_ticks: u32,
}

impl Host {
    /// The host that `client` becomes.
    pub(in crate::node) fn succeed(
        client: &mut Client,
        core: &mut Core,
        now: Time,
        take_over: &TakeOver,
    ) -> Self {
        core.note_strays(now, client.path(), client.peer.stray_tags());
        let heir = client.bequeath(core);
        let own = core.info.member;
        let mut host = Self::blank(heir.config, heir.slot);
        host.delay = heir.delay;
        // Ids of this term are its own.
        host.next_member = 0;
        host.succession.joined = Some(heir.joined);
        host.succession.active_from = heir.active_from;
        host.succession.returns = heir.returns;
        let role = if heir.slot.is_some() {
            Role::Player
        } else {
            Role::DedicatedHost
        };
        if let Some(member) = core.roster.member_mut(own) {
            member.role = role;
            member.connected = true;
        }
        let is_lobby = take_over.base == Tick::ZERO;
        host.seat_members(core, now, take_over);
        if let Some(slot) = heir.slot {
            let first = take_over.base.next();
            host.seats[slot.index()].holder = Some(Holder {
                member: own,
                resume: 0,
                path: None,
                from: (!is_lobby).then_some(take_over.base),
                inputs_from: if is_lobby { Tick::ZERO } else { first },
                lost_at: None,
                replaced: 0,
                early: Early::default(),
            });
            let has_inputs = heir.active_from.is_some() && !is_lobby;
            if !has_inputs || core.submitted.newest(slot) < take_over.base {
                core.submitted.start(slot, take_over.base);
                core.awaited = None;
            }
        }
        let others = core.slots().filter(|&slot| Some(slot) != heir.slot);
        for slot in others.collect::<Vec<_>>() {
            core.submitted.start(slot, Tick::ZERO);
        }
        if is_lobby {
            host.return_to_lobby(core);
        } else {
            let confirmed = host.confirmed(core);
            core.settle(confirmed, heir.slot);
            // Where all wait for all, inputs are final some ticks before they act: those run when
            // they are due.
            while host.is_paced() && core.timeline.simulated() < take_over.base {
                core.step(confirmed, heir.slot);
            }
            host.set_clock(core, now, take_over, heir.ahead_us, heir.trip_us);
        }
        host.recover(core, now, take_over, heir.catch_up_ticks);
        host
    }

    /// A host that was elected again begins a new term.
    pub(in crate::node) fn renew(&mut self, core: &mut Core, now: Time, take_over: &TakeOver) {
        for (path, guest) in core::mem::take(&mut self.guests) {
            core.note_strays(now, path, guest.peer.stray_tags());
            self.doctor.forget(path);
        }
        self.succession.is_frozen = false;
        self.succession.hands_over_at = None;
        // Standbys take states of the new term only.
        self.stream = None;
        let own = self.own_slot;
        let kept = own.and_then(|slot| self.seats[slot.index()].holder.take());
        if take_over.base == Tick::ZERO && !self.started {
            self.start_at = None;
        }
        self.seat_members(core, now, take_over);
        if let (Some(slot), Some(holder)) = (own, kept) {
            self.seats[slot.index()].holder = Some(holder);
        }
        if self.started {
            self.limit_lateness(core, now);
        }
        self.pardon(core, now);
        let joined = self.succession.joined.as_ref();
        let catch_up = joined.map_or(CATCH_UP_TICKS, |config| config.catch_up_ticks.max(1));
        self.recover(core, now, take_over, catch_up);
    }

    /// Gives every slot to the member that has it, as if all links were lost just now.
    fn seat_members(&mut self, core: &mut Core, now: Time, take_over: &TakeOver) {
        let own = core.info.member;
        let is_lobby = take_over.base == Tick::ZERO;
        let is_expected =
            |id: MemberId| take_over.paths.contains_key(&id) && !take_over.lost.contains(&id);
        self.seats = vec![Seat::default(); usize::from(core.info.slots)];
        let others = core.roster.members().iter().filter(|it| it.id != own);
        let others: Vec<Member> = others.cloned().collect();
        for member in others {
            let is_here = is_expected(member.id);
            let keeps = is_here || (self.config.resume_us > 0 && !is_lobby);
            let Some(slot) = member.slot.filter(|slot| slot.0 < core.info.slots && keeps) else {
                let watches = member.slot.is_none();
                let stays = is_here || self.config.migration.elects && self.config.resume_us > 0;
                if watches && stays {
                    self.seat_watcher(core, now, member.id, is_here);
                } else {
                    core.roster.remove(member.id);
                    let reason = ByeReason::Left;
                    core.report(Event::Left { member, reason });
                }
                continue;
            };
            let is_present = core.known.get(slot, take_over.base).bytes().is_some();
            let mut holder = Holder {
                member: member.id,
                resume: self.token(core, member.id, core.info.term),
                path: None,
                from: is_present.then_some(take_over.base),
                inputs_from: Tick::MAX,
                lost_at: None,
                replaced: 0,
                early: Early::default(),
            };
            if !is_here {
                holder.lose(now, self.config.gate);
            }
            self.seats[slot.index()].holder = Some(holder);
            if let Some(known) = core.roster.member_mut(member.id) {
                known.connected = is_here;
                if known.role == Role::DedicatedHost {
                    known.role = Role::Player;
                }
            }
        }
    }

    /// The same for a member without a slot, such as a server that hosted: its place is kept, too, for
    /// it may have slept, and have a vote.
    fn seat_watcher(&mut self, core: &mut Core, now: Time, member: MemberId, is_here: bool) {
        if !is_here {
            self.succession.note_away(now, member);
        }
        if let Some(known) = core.roster.member_mut(member) {
            known.connected = is_here;
            known.role = Role::Spectator;
        }
    }

    /// The session has not begun: it will when all are there.
    fn return_to_lobby(&mut self, core: &mut Core) {
        if core.timeline.simulated() > Tick::ZERO {
            core.todo.push_back(Todo::Restore(Tick::ZERO));
            core.jump(Tick::ZERO);
        }
        core.clock.jump(Tick::ZERO, Time::ZERO);
        core.stalled_since = None;
        self.started = false;
    }

    /// Ticks stay at the times at which this node had the inputs of others until now; after a
    /// handover, nearly at those at which the old host ran them.
    fn set_clock(
        &mut self,
        core: &mut Core,
        now: Time,
        take_over: &TakeOver,
        ahead_us: u64,
        trip_us: u64,
    ) {
        let base = take_over.base;
        self.started = true;
        if self.is_paced() {
            let due = core.clock.due(base).plus_micros(ahead_us);
            let due = if take_over.is_planned {
                // All are there, and their inputs with them: the next tick need not wait longer.
                let there = due.micros().saturating_sub(trip_us / 2);
                let next = now.micros().saturating_sub(core.rate.tick_us());
                due.min(Time::from_micros(there.max(next)))
            } else {
                due
            };
            core.clock.jump(base, due);
            self.limit_lateness(core, now);
            core.stalled_since = None;
        } else {
            let at = core.timeline.simulated();
            let due = core.clock.due(at);
            core.clock.jump(at, due);
            self.pardon(core, now);
        }
        self.start_at = Some(core.clock.due(Tick::new(1)));
    }

    /// Whoever is waited for has all of the time from now on: that nothing was heard so far may be
    /// this node's fault.
    pub(in crate::node) fn pardon(&self, core: &mut Core, now: Time) {
        if !self.is_paced() && core.stalled_since.is_some() {
            core.stalled_since = Some(now);
        }
    }

    /// Time beyond what is made up for is lost.
    fn limit_lateness(&mut self, core: &mut Core, now: Time) {
        let limit_us = MADE_UP_TICKS_MAX * core.rate.tick_us();
        let tick = core.clock.tick();
        if self.is_paced() && now.micros_since(core.clock.due(tick)) > limit_us {
            let due = Time::from_micros(now.micros().saturating_sub(limit_us));
            core.clock.jump(tick, due);
            self.start_at = Some(core.clock.due(Tick::new(1)));
        }
    }

    fn recover(&mut self, core: &Core, now: Time, take_over: &TakeOver, catch_up_ticks: u32) {
        let is_expected = |id: &MemberId| !take_over.lost.contains(id);
        let known = take_over.paths.iter().filter(|(id, _)| is_expected(id));
        let is_other = |id: MemberId| id != core.info.member && core.roster.member(id).is_some();
        // Nobody's tick needs those who only watch: they come when they can, and hold nobody up.
        let keeps_places = self.config.resume_us > 0;
        let (watching, playing): (Vec<_>, Vec<_>) = known
            .filter(|(id, _)| is_other(**id))
            .partition(|(id, _)| keeps_places && watches(core, **id));
        for (id, _) in watching {
            self.succession.note_away(now, *id);
        }
        let awaited: BTreeSet<MemberId> = playing.iter().map(|(id, _)| **id).collect();
        let rtts = playing.iter().map(|(_, warm)| warm.rtt_us);
        let rtt_us = rtts.map(|rtt_us| rtt_us.unwrap_or(RTT_US)).max();
        let rtt_us = rtt_us.unwrap_or(0);
        let patience_us = if take_over.is_planned && self.audience.is_some() {
            // All of them are there, and the old host hears of it last.
            rtt_us * 5 / 2 + 4 * core.rate.tick_us()
        } else {
            rtt_us * 3 / 2 + 2 * core.rate.tick_us()
        };
        self.succession.warm = take_over
            .paths
            .iter()
            .map(|(id, warm)| (warm.path, *id))
            .collect();
        self.succession.recovery = Some(Recovery {
            awaited,
            patience_until: now.plus_micros(patience_us),
            next_at: now,
            catch_up_ticks,
        });
    }

    fn seat_of(&self, member: MemberId) -> Option<Slot> {
        let has_it = |seat: &Seat| {
            let holder = seat.holder.as_ref();
            holder.is_some_and(|holder| holder.member == member)
        };
        let index = self.seats.iter().position(has_it)?;
        u8::try_from(index).ok().map(Slot)
    }

    /// The proof that `member` was here in `term`, of which this node was the host.
    pub(super) fn token(&self, core: &Core, member: MemberId, term: Term) -> u64 {
        let mut proof = b"resume".to_vec();
        proof.extend_from_slice(&member.0.to_le_bytes());
        proof.extend_from_slice(&core.info.session.0.to_le_bytes());
        // What was ordered in another term may be void by now.
        if term > Term(1) {
            proof.extend_from_slice(&term.0.to_le_bytes());
        }
        keyed(self.config.secret, &proof).max(1)
    }

    // ---- time ----

    /// Whether the next tick may run, as far as hosts before and after this one are concerned.
    pub(super) fn may_order(&self, core: &Core, now: Time) -> bool {
        let tick = core.clock.tick().next();
        let ends = self.succession.hands_over_at.is_some_and(|at| tick > at);
        let waits = self.succession.recovery.as_ref().is_some_and(|recovery| {
            let is_patient = now < recovery.patience_until;
            now < recovery.next_at || is_patient && !self.has_all(core, tick)
        });
        !self.succession.is_frozen && !ends && !waits
    }

    /// When the next tick may run at the earliest, if nothing arrives.
    pub(super) fn next_tick_at(&self, core: &Core) -> Time {
        let due = core.clock.next_due();
        let tick = core.clock.tick().next();
        if self.succession.is_frozen || self.succession.hands_over_at.is_some_and(|at| tick > at) {
            return Time::FAR;
        }
        match &self.succession.recovery {
            Some(recovery) if self.has_all(core, tick) => due.max(recovery.next_at),
            Some(recovery) => due.max(recovery.next_at).max(recovery.patience_until),
            None => due,
        }
    }

    /// Whether all inputs for `tick` are here that can be expected.
    fn has_all(&self, core: &Core, tick: Tick) -> bool {
        let Some(recovery) = &self.succession.recovery else {
            return true;
        };
        let is_there = |slot: Slot| {
            let holder = self.seats[slot.index()].holder.as_ref();
            let sends = holder.filter(|it| it.path.is_some() && it.inputs_from <= tick);
            sends.is_none_or(|it| {
                core.submitted.newest(slot) >= tick || it.early.get(tick).is_some()
            })
        };
        recovery.awaited.is_empty() && core.slots().all(is_there)
    }

    /// A tick has run: the next one may follow sooner than usual, until no time is to make up for.
    pub(super) fn pace_recovery(&mut self, core: &Core, now: Time) {
        let Some(recovery) = &mut self.succession.recovery else {
            return;
        };
        let is_over = now >= recovery.patience_until && recovery.awaited.is_empty();
        if core.clock.next_due() > now && is_over {
            self.succession.recovery = None;
            return;
        }
        let step_us = core.rate.tick_us() / u64::from(recovery.catch_up_ticks.max(1));
        recovery.next_at = now.plus_micros(step_us);
    }

    /// Whether ticks are made up for that were due before this node hosted.
    pub(super) const fn recovers(&self) -> bool {
        self.succession.recovery.is_some()
    }

    /// Gives up waiting for members that have not returned.
    pub(super) fn end_patience(&mut self, core: &mut Core, now: Time) {
        let Some(recovery) = &mut self.succession.recovery else {
            return;
        };
        if now < recovery.patience_until {
            return;
        }
        for member in core::mem::take(&mut recovery.awaited) {
            let seat = self.seat_of(member);
            let holder = seat.and_then(|slot| self.seats[slot.index()].holder.as_mut());
            match holder {
                Some(holder) if self.started && self.config.resume_us > 0 => {
                    holder.lose(now, self.config.gate);
                    if let Some(mut known) = core.roster.member(member).cloned() {
                        known.connected = false;
                        self.set_member(core, known);
                    }
                }
                _ => self.depart(core, member, ByeReason::Left),
            }
        }
        if !self.is_paced() {
            self.succession.recovery = None;
        }
    }

    /// Members without a slot that stay away for too long are gone.
    pub(super) fn forget_away(&mut self, core: &mut Core, now: Time) {
        let guests = &self.guests;
        let is_back = |member: MemberId| guests.values().any(|it| it.peer.member == member);
        self.succession.away.retain(|member, _| !is_back(*member));
        let is_late = |(member, since): (&MemberId, &Time)| {
            (now.micros_since(*since) > self.config.resume_us).then_some(*member)
        };
        let late: Vec<MemberId> = self.succession.away.iter().filter_map(is_late).collect();
        for member in late {
            self.succession.away.remove(&member);
            self.depart(core, member, ByeReason::Left);
        }
    }

    // ---- what the node asks ----

    /// Whether hosting of this session may move.
    pub(in crate::node) fn may_move(&self) -> bool {
        self.config.migration.allows
    }

    /// Whether this host says nothing with authority.
    pub(in crate::node) const fn is_frozen(&self) -> bool {
        self.succession.is_frozen
    }

    pub(in crate::node) const fn freeze(&mut self, is_frozen: bool) {
        self.succession.is_frozen = is_frozen;
    }

    pub(in crate::node) fn meet(&mut self, member: MemberId, path: Path) {
        if self.succession.warm.get(&path) == Some(&member) {
            return;
        }
        self.succession.warm.retain(|_, known| *known != member);
        self.succession.warm.insert(path, member);
    }

    pub(in crate::node) fn hand_over_at(&mut self, core: &Core, tick: Tick) -> Tick {
        // Where all wait for all, some inputs are final ahead of the rest.
        let newest = core.slots().map(|slot| core.known.newest(slot)).max();
        let at = tick.max(newest.unwrap_or_default()).max(Tick::new(1));
        let at = core.last_tick.map_or(at, |last| at.min(last));
        self.succession.hands_over_at = Some(at);
        at
    }

    pub(in crate::node) const fn hands_over_at(&self) -> Option<Tick> {
        self.succession.hands_over_at
    }

    pub(in crate::node) const fn cancel_handover(&mut self) {
        self.succession.hands_over_at = None;
    }

    /// Leaves what the client needs that this host becomes.
    pub(in crate::node) fn retire(&mut self) -> Retired {
        let slot = self.own_slot;
        let holder = slot.and_then(|slot| self.seats[slot.index()].holder.as_ref());
        Retired {
            config: self.config.clone(),
            joined: self.succession.joined.take(),
            slot,
            // What it sampled before it hosted may be void, too, and is told of then.
            active_from: holder.and_then(|holder| {
                let before = self.succession.active_from;
                Some(holder.from?.min(before.unwrap_or(Tick::MAX)))
            }),
            delay: self.delay.clone(),
            is_running: self.started,
        }
    }

    /// What the next host must know.
    pub(in crate::node) fn settings(&self, core: &Core) -> Settings {
        let tells = self.audience.as_ref().map(|audience| audience.config);
        Settings {
            host: core.info.member.0,
            late_policy: match self.config.late_policy {
                LatePolicy::Repeat => 0,
                LatePolicy::Neutral => 1,
            },
            limit_us: match self.config.gate {
                Gate::Wait { limit_us } => limit_us,
                Gate::Paced => 0,
            },
            resume_us: self.config.resume_us,
            silence_us: self.config.silence_us,
            spectator_delay_ticks: self.config.spectator_delay_ticks,
            spectators: self.config.spectators,
            heal_host: self.config.desync.heal_host,
            players: match self.config.start {
                Start::Players(players) => players,
                Start::Manual => 0,
            },
            elects: self.config.migration.elects,
            budget_bytes_per_second: tells.map_or(0, |it| it.budget_bytes_per_second),
            rewind_ticks_max: tells.map_or(0, |it| it.rewind_ticks_max),
        }
    }

    /// Tells a guest who takes part, and what it must know to host next.
    pub(super) fn tell_members(&self, core: &Core, guest: &mut crate::node::guest::Guest) {
        for other in core.roster.members() {
            guest.tell(&Control::Member(MemberRecord::from(other)));
        }
        if self.may_move() {
            guest.tell(&Control::Settings(self.settings(core)));
        }
    }
}

/// Whether `member` takes part without a slot.
fn watches(core: &Core, member: MemberId) -> bool {
    let known = core.roster.member(member);
    known.is_some_and(|known| known.slot.is_none())
}
