//! Going over to another host.
//!
//! Whoever votes for a candidate, or hears of the next host, asks it at once to go on: a Return
//! goes out over the path that the two have already, every 20 ms, until the new host answers with
//! a Back or the matter is off. After a vote nothing that the old host still says is taken in, so
//! that no voter holds frames which the new host does not know of. What this node has sampled and
//! the new host does not have is offered again.
//!
//! The same Returns, from others, are kept here for the case that this node becomes the host.

use super::{Client, Phase};
use crate::id::{MemberId, Path, SessionId, Slot, Term};
use crate::limits::MEMBERS_MAX;
use crate::node::api::Event;
use crate::node::core::Core;
use crate::node::core::term_log::{Shared, TermLog};
use crate::node::hosting;
use crate::node::takeover::{Prepare, Warm};
use crate::session::config::{Mode, ResumeToken};
use crate::session::control::{Control, Settings};
use crate::session::handshake::{
    self, Back, ByeReason, Hello, RETURN_INPUT_BYTES_MAX, RETURN_INPUTS_MAX, Return, TERMS_MAX,
    Welcome,
};
use crate::session::statistics::DropReason;
use crate::tick::Tick;
use crate::time::Time;
use crate::wire::header::kind;

/// Microseconds between two Returns.
const RETURN_US: u64 = 20_000;

/// Microseconds after a switch in which frames may come late because the new host makes up for
/// lost time. They say nothing of the path.
pub(super) const RECOVERY_US: u64 = 2_000_000;

/// Ticks after a switch of which none is left without an input of its own.
pub(super) const SAMPLED_TICKS: u32 = 64;

/// Bytes of a Return that is kept for later, at most.
const RETURN_BYTES_MAX: usize = 1024;

/// Ticks beyond the newest final one for which inputs are sampled, where hosting may move. A new
/// host takes no inputs that are further ahead than its memory of them reaches.
pub(super) const UNSAFE_TICKS_MAX: u32 = 192;

/// So long all Returns have the same nonce, in microseconds. The answer to one may be lost, and with it
/// the link that it began: that is no answer to others.
const RETURN_NONCE_US: u64 = 1_000_000;

/// So long a link is silent, in microseconds, before its host, heard otherwise, is asked for another
/// one: long enough for a host that everyone waits for or that stands still.
const LINK_LOST_US: u64 = 1_000_000;

/// The host that a client wants to follow next.
#[derive(Debug)]
pub(super) struct Prepared {
    candidate: MemberId,
    term: Term,
    /// How to reach it; `None` if it is this node.
    warm: Option<Warm>,
    /// Whether the old host's frames are still taken.
    keeps_frames: bool,
    hello: Hello,
    /// Until when its Returns have this nonce.
    nonce_until: Time,
    since: Time,
    next_at: Time,
}

impl Client {
    /// Asks `prepare.candidate` to go on with this member once it hosts.
    pub(in crate::node) fn prepare_for(&mut self, core: &mut Core, now: Time, prepare: Prepare) {
        let was_inside = self.resume.is_some() && self.phase != Phase::Over;
        if !was_inside || prepare.term < core.info.term {
            return;
        }
        let follows = prepare.candidate == self.host && prepare.term == core.info.term;
        if follows && self.phase == Phase::Inside {
            return;
        }
        self.ask_for_link(core, now, prepare);
    }

    /// Leaves the session for `session`, which `prepare.candidate` has begun apart from it: for good,
    /// and only from where it knows the session's settings. Says whether it does.
    pub(in crate::node) fn go_apart(
        &mut self,
        core: &mut Core,
        now: Time,
        session: SessionId,
        prepare: Prepare,
    ) -> bool {
        let is_inside = self.resume.is_some() && self.phase == Phase::Inside;
        let is_known = self.settings.is_some() && self.apart.is_none();
        if !is_inside || !is_known || self.ended_at.is_some() || prepare.term <= core.info.term {
            return false;
        }
        self.apart = Some(session);
        self.renounces = false;
        self.ask_for_link(core, now, prepare);
        true
    }

    /// Whether this node has left a session for another one, and does not know that one's settings yet.
    pub(in crate::node) const fn is_between_sessions(&self) -> bool {
        self.apart.is_some()
    }

    /// Asks the present host, which is heard over `warm`, for another link if this one is silent
    /// although ticks are due: that end may have given it up. Its goodbye is said a few times only,
    /// and none of them reaches a machine that sleeps.
    pub(in crate::node) fn ask_again(&mut self, core: &mut Core, now: Time, warm: Warm) {
        let silent_us = now.micros_since(self.peer.heard_at);
        // Where the path itself has ended, the session is taken up again over the next one.
        let is_dead = self.closed.as_ref().is_some_and(|it| it.path == self.path);
        let is_inside = self.phase == Phase::Inside && self.resume.is_some();
        if !is_inside || is_dead || self.ended_at.is_some() {
            return;
        }
        if silent_us > LINK_LOST_US {
            let prepare = Prepare {
                candidate: self.host,
                term: core.info.term,
                warm: Some(warm),
                keeps_frames: true,
            };
            self.ask_for_link(core, now, prepare);
        } else if self.asks_again(core) {
            // The link is heard again.
            self.prepared = None;
        }
    }

    /// Whether it is the present host that is asked for another link.
    pub(super) fn asks_again(&self, core: &Core) -> bool {
        let prepared = self.prepared.as_ref();
        prepared.is_some_and(|it| (it.candidate, it.term) == (self.host, core.info.term))
    }

    fn ask_for_link(&mut self, core: &Core, now: Time, prepare: Prepare) {
        // The same again: its Returns go on.
        if let Some(prepared) = &mut self.prepared
            && prepared.candidate == prepare.candidate
            && prepared.term == prepare.term
            && prepared.warm.map(|warm| warm.path) == prepare.warm.map(|warm| warm.path)
        {
            prepared.keeps_frames &= prepare.keeps_frames;
            return;
        }
        let nonce = self.fresh_nonce(now);
        let hello = Hello {
            nonce,
            ..self.hello.clone()
        };
        let rtt_us = prepare.warm.and_then(|warm| warm.rtt_us);
        self.prepared = Some(Prepared {
            candidate: prepare.candidate,
            term: prepare.term,
            warm: prepare.warm,
            keeps_frames: prepare.keeps_frames,
            hello,
            nonce_until: now.plus_micros(RETURN_NONCE_US),
            since: now,
            next_at: now,
        });
        // A farther host needs a longer lead; sampled before it is needed, nothing is missing.
        if let Some(rtt_us) = rtt_us
            && !self.waits
            && self.active_from.is_some()
        {
            let lead = core.rate.ticks_in_us_ceil(rtt_us) + 2;
            if self.delay.raise(lead) {
                self.sample_all(core);
            }
        }
    }

    /// From now on, until some time after the switch, a lead that grows leaves no tick without an
    /// input of its own.
    fn sample_all(&mut self, core: &Core) {
        let upto = core.clock.tick().next().plus(self.delay.ticks());
        self.samples_all_upto = self.samples_all_upto.max(upto.plus(SAMPLED_TICKS));
    }

    /// Follows the present host on.
    pub(in crate::node) fn withdraw(&mut self, now: Time) {
        if let Some(prepared) = self.prepared.take()
            && !prepared.keeps_frames
        {
            // Nothing was taken from it for a while: that is not its silence.
            self.peer.heard_at = self.peer.heard_at.max(now);
        }
    }

    /// Whether neither a host was heard nor another candidate prepared for, which takes members that
    /// elect, for so long that this node gives up.
    pub(super) fn has_waited_for_long(&self, now: Time) -> bool {
        self.prepared.as_ref().is_some_and(|prepared| {
            let since = self.peer.heard_at.max(prepared.since);
            now.micros_since(since) > self.config.resume_us
        })
    }

    /// Whether this node has promised not to take anything more from the present host.
    pub(super) fn has_renounced(&self) -> bool {
        let prepared = self.prepared.as_ref();
        self.renounces || prepared.is_some_and(|prepared| !prepared.keeps_frames)
    }

    /// Whether nothing more may be taken from the present host, prepared for another or not.
    pub(in crate::node) const fn renounce(&mut self, renounces: bool) {
        self.renounces = renounces;
    }

    /// Whether members elect the next host, if the present one has said so.
    pub(in crate::node) fn elects(&self) -> Option<bool> {
        self.settings.map(|settings| settings.elects)
    }

    /// Writes the Return that is due.
    pub(super) fn poll_return(
        &mut self,
        core: &Core,
        now: Time,
        out: &mut Vec<u8>,
    ) -> Option<Path> {
        let is_due = self.prepared.as_ref().is_some_and(|it| it.next_at <= now);
        if self.phase == Phase::Over || !is_due {
            return None;
        }
        let confirmed = self.confirmed_to_resume(core);
        let offers = self.offers(core);
        let baselines = self.baselines();
        let (inputs_after, inputs) = self.newest_inputs(core);
        let is_old = self.prepared.as_ref()?.nonce_until <= now;
        let nonce = is_old.then(|| self.fresh_nonce(now));
        let resume = self.resume.map_or(0, |token| token.0);
        let prepared = self.prepared.as_mut()?;
        let path = prepared.warm?.path;
        let present = if path == self.path {
            self.peer.stray_tags()
        } else {
            0
        };
        let avoids = core.stray_tags(now, path) | present;
        prepared.next_at = now.plus_micros(RETURN_US);
        if let Some(nonce) = nonce {
            prepared.nonce_until = now.plus_micros(RETURN_NONCE_US);
            prepared.hello.nonce = nonce;
        }
        prepared.hello.confirmed = confirmed.number();
        prepared.hello.resume = resume;
        let body = Return {
            hello: prepared.hello.clone(),
            followed: core.terms.followed(),
            wants: prepared.term.0,
            offers: offers.map(Tick::number),
            inputs_after: inputs_after.number(),
            inputs,
            avoids,
            baselines,
        };
        handshake::write(kind::RETURN, &body, out);
        Some(path)
    }

    /// When the next Return is due.
    pub(super) fn next_return(&self) -> Option<Time> {
        let prepared = self.prepared.as_ref()?;
        prepared.warm.map(|_| prepared.next_at)
    }

    /// The newest tick from which this node can go on by frames; 0 if it needs a state.
    fn confirmed_to_resume(&self, core: &Core) -> Tick {
        let ahead = core.timeline.simulated().since(core.timeline.settled());
        let has_state = !self.needs_state && self.state.is_none();
        if has_state && (ahead == 0 || ahead < core.info.images) {
            core.final_tick()
        } else {
            Tick::ZERO
        }
    }

    /// The tick after which this node has inputs to offer.
    fn offers(&self, core: &Core) -> Option<Tick> {
        let slot = self.peer.slot?;
        self.active_from?;
        Some(core.submitted.oldest(slot))
    }

    /// The inputs for ticks that are not final yet, as many as fit, and the tick before the first.
    fn newest_inputs(&self, core: &Core) -> (Tick, Vec<u8>) {
        let mut inputs = Vec::new();
        let (Some(slot), Some(_)) = (self.peer.slot, self.active_from) else {
            return (Tick::ZERO, inputs);
        };
        // Where states come, what acted is not known here.
        let known = match &self.follower {
            Some(follower) => {
                // Of a host that became a client: what it ran.
                let shown = follower.base().or(follower.shown_upto);
                shown.unwrap_or_default().minus(4)
            }
            None => core.final_tick(),
        };
        let after = core.submitted.oldest(slot).max(known);
        let input_bytes = usize::from(core.info.input_bytes).max(1);
        let count = RETURN_INPUTS_MAX.min(RETURN_INPUT_BYTES_MAX / input_bytes);
        let mut tick = after;
        for _ in 0..count {
            tick = tick.next();
            let Some(input) = core.submitted.get(slot, tick).bytes() else {
                break;
            };
            inputs.extend_from_slice(input);
        }
        (after, inputs)
    }

    /// There is another input: the next host gets it at once.
    pub(in crate::node) fn hurry_return(&mut self, now: Time) {
        if let Some(prepared) = &mut self.prepared {
            prepared.next_at = prepared.next_at.min(now);
        }
    }

    /// Keeps what a member asks of this node as its next host.
    pub(super) fn keep_return(&mut self, path: Path, body: &[u8]) -> Result<(), DropReason> {
        keep(&mut self.returns, path, body, self.settings.is_some())
    }

    /// The next host goes on with this member.
    pub(super) fn handle_back(
        &mut self,
        core: &mut Core,
        now: Time,
        path: Path,
        body: &[u8],
    ) -> Result<(), DropReason> {
        let back: Back = handshake::read(body).map_err(|_error| DropReason::Malformed)?;
        let prepared = self.prepared.as_ref().ok_or(DropReason::Unexpected)?;
        let is_asked = prepared.warm.is_some_and(|warm| warm.path == path)
            && prepared.hello.nonce == back.welcome.nonce
            && back.welcome.term >= prepared.term.0;
        if !is_asked || self.phase == Phase::Over {
            return Err(DropReason::Unexpected);
        }
        let welcome = &back.welcome;
        let info = self.check_welcome(welcome)?;
        let tells_state = self.config.game.mode == Mode::StateSync;
        let session = self.apart.unwrap_or(core.info.session);
        let is_same = info.session == session
            && info.term >= core.info.term
            && info.slots == core.info.slots
            && (info.images == core.info.images || tells_state)
            && leads_on(&back, prepared.candidate);
        if !is_same {
            return Err(DropReason::Malformed);
        }
        let shared = shared(core, &back).ok_or(DropReason::Malformed)?;
        let from = Tick::new(welcome.from);
        if tells_state {
            return self.remain(core, now, &back, &info, shared);
        }
        if !welcome.resumed {
            self.follow_anew(core, now, &back, shared);
            return Ok(());
        }
        let shared = shared.ok_or(DropReason::Malformed)?;
        let base = shared.upto;
        let fits = from > Tick::ZERO
            && from <= base
            && from <= core.final_tick()
            && core.slots().all(|slot| core.known.oldest(slot) <= from);
        if !fits {
            return Err(DropReason::Malformed);
        }
        if !self.go_back_to(core, base) {
            // The state at that tick is here no more: it asks for one.
            self.needs_state = true;
            let nonce = self.fresh_nonce(now);
            if let Some(prepared) = &mut self.prepared {
                prepared.hello.nonce = nonce;
                prepared.next_at = now;
            }
            return Ok(());
        }
        self.follow_on(core, now, &back, shared);
        Ok(())
    }

    /// Undoes what was ordered beyond `base`; false if the state before is here no more.
    pub(in crate::node) fn go_back_to(&mut self, core: &mut Core, base: Tick) -> bool {
        self.checked_own = self.checked_own.min(base);
        let (settled, simulated) = (core.timeline.settled(), core.timeline.simulated());
        if settled > base {
            if simulated.since(base) >= core.info.images {
                return false;
            }
            core.todo.push_back(crate::node::core::Todo::Restore(base));
            core.statistics.rollbacks += 1;
            core.go_back(base);
            core.report(Event::LostTicks {
                first: base.next(),
                last: settled,
            });
        }
        core.void_after(base);
        true
    }

    /// Goes on with the new host where the old one ended.
    fn follow_on(&mut self, core: &mut Core, now: Time, back: &Back, shared: Shared) {
        let base = shared.upto;
        let from = Tick::new(back.welcome.from);
        let (active_from, running) = (self.active_from, self.running);
        let has_same_slot = self.peer.slot == slot_of(&back.welcome);
        self.take_link(core, now, back, from);
        core.change_terms(shared, &back.terms);
        // An active member stays active, and its inputs are offered from where the host wants them.
        if let (Some(slot), Some(after)) = (self.peer.slot, back.inputs_after.map(Tick::new))
            && has_same_slot
            && active_from.is_some()
            && core.submitted.oldest(slot) <= after
        {
            self.active_from = active_from;
            self.said_ready = true;
            if core.submitted.newest(slot) < after {
                core.submitted.start(slot, after);
            }
            self.exchange.offer(slot, after);
        } else if let Some(slot) = self.peer.slot {
            self.abandon_inputs(core, slot, base);
            core.submitted.start(slot, Tick::ZERO);
            core.awaited = None;
        }
        self.running = running;
        self.frames_upto = self.frames_upto.min(base);
        self.checked_own = self.checked_own.min(base);
        self.recovers_until = Some(now.plus_micros(RECOVERY_US));
        self.sample_all(core);
        self.due = true;
        self.report_link(core, back, !back.terms.is_empty());
        self.advance(core, now);
    }

    /// The slot is absent for now: what was sampled for it and is not known to have acted will not.
    pub(super) fn abandon_inputs(&mut self, core: &Core, slot: Slot, base: Tick) {
        let first = self.checked_own.min(base).next();
        for number in first.number()..=core.submitted.newest(slot).number() {
            let tick = Tick::new(number);
            if let Some(input) = core.submitted.get(slot, tick).bytes() {
                self.abandoned.push_back((tick, input.to_vec()));
            }
        }
        // No more than could be submitted at once.
        let limit = usize::try_from(crate::limits::INPUT_HISTORY_TICKS_MAX).unwrap_or(usize::MAX);
        let surplus = self.abandoned.len().saturating_sub(limit);
        self.abandoned.drain(..surplus);
    }

    /// Tells the game of abandoned inputs that others acted in place of.
    pub(super) fn find_abandoned(&mut self, core: &mut Core) {
        let Some(slot) = self.peer.slot else { return };
        let newest = core.known.newest(slot);
        while let Some((tick, input)) = self.abandoned.pop_front_if(|(tick, _)| *tick <= newest) {
            let acted = core.known.get(slot, tick).bytes();
            // Another one was asked for since, and is told of as any other.
            let anew = core.submitted.get(slot, tick).bytes();
            let is_told_anew = tick > self.checked_own
                && self.active_from.is_some_and(|from| tick >= from)
                && anew.is_some()
                && anew != acted;
            if acted != Some(&input[..]) && !is_told_anew {
                core.statistics.inputs_replaced += 1;
                core.report(Event::InputReplaced { tick });
            }
        }
    }

    /// Tells the game of all inputs that will not act, before this node becomes the host: what it
    /// samples then is its own.
    pub(super) fn settle_inputs(&mut self, core: &mut Core) {
        if self.config.game.mode == Mode::StateSync {
            // See `settle_accounts`.
            return;
        }
        self.find_replaced(core);
        for (tick, _) in core::mem::take(&mut self.abandoned) {
            core.statistics.inputs_replaced += 1;
            core.report(Event::InputReplaced { tick });
        }
    }

    /// Begins again with the new host, which has to give a state.
    fn follow_anew(&mut self, core: &mut Core, now: Time, back: &Back, shared: Option<Shared>) {
        let from = Tick::new(back.welcome.from);
        let (settled, before) = (core.timeline.settled(), core.info.term);
        // What stands of what ran here; where nobody knows, nothing.
        let base = shared.map_or(Tick::ZERO, |shared| shared.upto);
        if let Some(slot) = self.peer.slot {
            self.abandon_inputs(core, slot, base);
        }
        let (seen, statistics) = (core.roster.clone(), core.statistics);
        let strays = core::mem::take(&mut core.strays);
        let terms = core::mem::replace(&mut core.terms, TermLog::new(core.info.term));
        let lasts = core.last_tick;
        self.state = None;
        self.take_link(core, now, back, from);
        let mut info = core.info.clone();
        info.term = Term(back.welcome.term);
        self.begin_anew(core, now, &info, &back.welcome);
        match shared {
            Some(shared) => {
                core.terms = terms;
                core.change_terms(shared, &back.terms);
            }
            None => core.terms = TermLog::voided(core.info.term),
        }
        (core.roster, core.statistics, core.last_tick) = (seen, statistics, lasts);
        core.strays.extend(strays);
        if settled > base {
            core.report(Event::LostTicks {
                first: base.next(),
                last: settled,
            });
        }
        self.frames_upto = from;
        self.checked_own = from;
        self.report_link(core, back, core.info.term > before);
    }

    /// Tells the game of the new link: to another host, or to the same.
    pub(super) fn report_link(&self, core: &mut Core, back: &Back, is_new_host: bool) {
        core.report(if is_new_host {
            Event::HostChanged {
                member: self.host,
                term: core.info.term,
            }
        } else {
            Event::Welcomed {
                info: core.info.clone(),
                resume: ResumeToken(back.welcome.resume),
            }
        });
    }

    /// The link to the new host takes the place of that to the old one.
    pub(super) fn take_link(&mut self, core: &mut Core, now: Time, back: &Back, from: Tick) {
        let Some(prepared) = self.prepared.take() else {
            return;
        };
        core.note_strays(now, self.path, self.peer.stray_tags());
        if let Some(warm) = prepared.warm {
            self.path = warm.path;
        }
        self.host = prepared.candidate;
        self.hello = prepared.hello;
        self.outgoing.clear();
        self.returns.clear();
        if self.apart.is_some_and(|apart| core.info.session != apart) {
            core.info.session = SessionId(back.welcome.session);
            core.report(Event::Forked {
                session: core.info.session,
            });
        }
        core.info.member = MemberId(back.welcome.member);
        core.info.slot = slot_of(&back.welcome);
        let info = crate::node::api::SessionInfo {
            term: Term(back.welcome.term),
            ..core.info.clone()
        };
        self.open_link(now, &back.welcome, &info, from, back.salt);
        self.report = None;
        self.hashes_wanted = None;
        self.diverged = None;
        self.healing = false;
        self.ended_at = None;
        // When ticks are due on its clock is told again.
        self.start_at_us = None;
        self.unnamed = core
            .roster
            .members()
            .iter()
            .map(|member| member.id)
            .collect();
    }

    /// Takes in what a host tells its possible successors, after it has named all members.
    pub(super) fn take_settings(&mut self, core: &mut Core, settings: Settings) {
        self.host = MemberId(settings.host);
        self.settings = Some(settings);
        self.apart = None;
        let stand = hosting::stand(&self.config.hosting, self.config.secret);
        self.tell(&Control::Stand(stand));
        for id in core::mem::take(&mut self.unnamed) {
            if let Some(member) = core.roster.remove(id) {
                let reason = ByeReason::Left;
                core.report(Event::Left { member, reason });
            }
        }
    }

    /// Whether frames that come now, so much later than they were due, say how long the path is.
    pub(super) fn is_on_time(&mut self, core: &Core, now: Time, newest: Tick) -> bool {
        let Some(until) = self.recovers_until else {
            return true;
        };
        let zero_us = self.peer.zero_us.and_then(|us| i64::try_from(us).ok());
        let (Some(zero_us), Some(ahead_us)) = (zero_us, self.peer.clock_offset_us) else {
            return now >= until;
        };
        let tick_us = i64::try_from(core.rate.tick_us()).unwrap_or(i64::MAX);
        let at_us = i64::try_from(core.rate.micros_at(newest)).unwrap_or(i64::MAX);
        let due_us = zero_us.saturating_sub(ahead_us).saturating_add(at_us);
        let late_us = now.micros_from(Time::ZERO).saturating_sub(due_us);
        let trip_us = self.peer.rtt.smoothed_us().unwrap_or(0);
        let usual_us = i64::try_from(trip_us).unwrap_or(i64::MAX);
        let is_on_time = late_us <= usual_us.saturating_add(2 * tick_us) || now >= until;
        if is_on_time {
            self.recovers_until = None;
        }
        is_on_time
    }
}

/// Keeps the newest Return of a path, of as many paths as there may be members.
pub(in crate::node) fn keep(
    returns: &mut std::collections::BTreeMap<Path, Vec<u8>>,
    path: Path,
    body: &[u8],
    allows: bool,
) -> Result<(), DropReason> {
    if !allows || body.len() > RETURN_BYTES_MAX {
        return Err(DropReason::Unexpected);
    }
    if returns.len() >= MEMBERS_MAX && !returns.contains_key(&path) {
        return Err(DropReason::RateLimited);
    }
    let kept = returns.entry(path).or_default();
    kept.clear();
    kept.extend_from_slice(body);
    Ok(())
}

fn slot_of(welcome: &Welcome) -> Option<Slot> {
    (welcome.slot != u8::MAX).then_some(Slot(welcome.slot))
}

/// Whether the terms that a new host tells of lead to its own.
fn leads_on(back: &Back, host: MemberId) -> bool {
    let terms = &back.terms;
    let ascends = terms.windows(2).all(|pair| pair[0].term < pair[1].term);
    let leads = match (back.shared, terms.last()) {
        (Some(shared), Some(last)) => {
            let begins_after = terms.first().is_none_or(|first| first.term > shared);
            begins_after && last.term == back.welcome.term && last.host == host.0
        }
        (Some(shared), None) => shared == back.welcome.term,
        (None, last) => last.is_none() && !back.welcome.resumed,
    };
    terms.len() <= TERMS_MAX && ascends && leads
}

/// What this node and a new host share of the session; `None` inside if nobody knows, and outside
/// if the host says what cannot be.
fn shared(core: &Core, back: &Back) -> Option<Option<Shared>> {
    let Some(term) = back.shared else {
        return Some(None);
    };
    let starts = back.terms.iter();
    let starts: Vec<_> = starts
        .map(|start| (Term(start.term), Tick::new(start.base)))
        .collect();
    let shared = core.terms.shared(Term(term), &starts);
    shared.filter(|shared| shared.term == Term(term)).map(Some)
}
