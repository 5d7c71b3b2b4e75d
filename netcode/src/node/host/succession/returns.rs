//! Members that go on with this host after another one: their Returns, and what answers them.

use std::collections::BTreeMap;

use super::super::Host;
use super::super::admission::Entry;
use crate::id::{MemberId, Path, Slot, Term};
use crate::limits::{ANSWERS_MAX, INPUT_HISTORY_TICKS_MAX, MEMBERS_MAX};
use crate::node::client::switch::keep;
use crate::node::core::Core;
use crate::node::core::term_log::Shared;
use crate::node::seat::Early;
use crate::session::handshake::{self, Return, TERMS_MAX, TermStart};
use crate::session::statistics::DropReason;
use crate::tick::Tick;
use crate::time::Time;

/// So long a link has to be silent before a Return over its path ends it, in microseconds: two
/// Returns and two ticks.
const LATE_US: u64 = 40_000;

impl Host {
    /// Answers what members have asked of this node before it hosted.
    pub(in crate::node) fn answer_returns(&mut self, core: &mut Core, now: Time) {
        for (path, body) in core::mem::take(&mut self.succession.returns) {
            // Whose Return is not as it should be sends another one soon.
            let _dropped = self.handle_return(core, now, path, &body);
        }
    }

    /// A member asks to go on.
    pub(in crate::node::host) fn handle_return(
        &mut self,
        core: &mut Core,
        now: Time,
        path: Path,
        body: &[u8],
    ) -> Result<(), DropReason> {
        let ask: Return = handshake::read(body).map_err(|_error| DropReason::Malformed)?;
        let is_later = ask.wants > core.info.term.0;
        if self.succession.is_frozen || is_later || self.succession.hands_over_at.is_some() {
            let allows = self.may_move();
            return keep(&mut self.succession.returns, path, body, allows);
        }
        let known = |paths: &BTreeMap<Path, MemberId>| paths.get(&path).copied();
        let member = known(&self.succession.warm).or_else(|| known(&self.succession.lost));
        let member = member.ok_or(DropReason::UnknownPath)?;
        if let Some(guest) = self.guests.get(&path)
            && guest.nonce == ask.hello.nonce
        {
            if self.outgoing.len() < ANSWERS_MAX {
                self.outgoing.push_back((path, guest.welcome.clone()));
            }
            self.take_early(core, path, &ask);
            self.advance(core, now);
            return Ok(());
        }
        if let Some(guest) = self.guests.get_mut(&path)
            && !asks_in_earnest(guest, now, ask.hello.nonce)
        {
            return Err(DropReason::Unexpected);
        }
        if !ask.followed.is_valid() {
            return Err(DropReason::Malformed);
        }
        let is_stale =
            self.nonces.contains(&ask.hello.nonce) || ask.followed.newest() > core.info.term;
        if is_stale || self.leaving || self.guests.len() >= MEMBERS_MAX {
            return Err(DropReason::Unexpected);
        }
        let protocol = ask.hello.compare(&self.config.game);
        let protocol = protocol.map_err(|_refusal| DropReason::Unexpected)?;
        let kept = self.seat_of(member);
        let slot = if ask.hello.spectator {
            None
        } else {
            Some(kept.or(self.free_slot()).ok_or(DropReason::Unexpected)?)
        };
        self.forget_links(core, now, path, member);
        let avoids = ask.avoids | core.stray_tags(now, path);
        let entry = if self.audience.is_some() {
            self.listener_for(core, &ask, member, slot, kept.is_some(), avoids)
        } else {
            self.entry_for(core, &ask, member, slot, kept.is_some(), avoids)
        };
        self.let_in(core, now, path, &ask.hello, protocol, entry);
        if let Some(guest) = self.guests.get_mut(&path) {
            guest.returned_at = Some(now);
        }
        self.take_early(core, path, &ask);
        if let Some(recovery) = &mut self.succession.recovery {
            recovery.awaited.remove(&member);
        }
        Ok(())
    }

    /// Keeps the inputs that a Return brings, if its member takes part.
    fn take_early(&mut self, core: &Core, path: Path, ask: &Return) {
        let input_bytes = usize::from(core.info.input_bytes);
        let after = Tick::new(ask.inputs_after);
        let slot = self.guests.get(&path).and_then(|guest| guest.peer.slot);
        let holder = slot.and_then(|slot| self.seats[slot.index()].holder.as_mut());
        let is_near = after.since(core.clock.tick()) < INPUT_HISTORY_TICKS_MAX;
        if let Some(holder) = holder
            && holder.path == Some(path)
            && holder.inputs_from < Tick::MAX
            && is_near
            && let Some(early) = Early::new(after, &ask.inputs, input_bytes)
            && early.newest() > holder.early.newest()
        {
            holder.early = early;
        }
    }

    /// Where a member goes on that has followed another host.
    fn entry_for(
        &self,
        core: &Core,
        ask: &Return,
        member: MemberId,
        slot: Option<Slot>,
        has_seat: bool,
        avoids: u64,
    ) -> Entry {
        let newest = core.final_tick();
        let since = Since::new(core, ask);
        let confirmed = Tick::new(ask.hello.confirmed).min(since.upto).min(newest);
        let holds = core
            .slots()
            .all(|slot| core.known.oldest(slot) <= confirmed);
        let is_near = newest.since(confirmed) < INPUT_HISTORY_TICKS_MAX / 2;
        let resumed = since.shared.is_some() && confirmed > Tick::ZERO && holds && is_near;
        let from = if resumed {
            confirmed
        } else {
            core.timeline.settled()
        };
        let inputs_after = match (slot, offered(core, ask)) {
            (Some(slot), Some(after)) if resumed && has_seat => {
                let holder = self.seats[slot.index()].holder.as_ref();
                let is_present = holder.is_some_and(|holder| holder.from.is_some());
                let after = after.max(from);
                // Where all wait for all, what was settled as absent stays that.
                let fits = self.is_paced() || is_present || after >= core.known.newest(slot);
                fits.then_some(after)
            }
            _ => None,
        };
        Entry {
            member,
            slot,
            from,
            resumed,
            inputs_after,
            avoids,
            // Also whoever needs a state wants to know from where on all is void.
            terms: Some(since),
            listener: None,
        }
    }

    /// The same in state-sync mode: the member goes on from a snapshot that it holds, if it can, and
    /// with its inputs from the newest tick that ran.
    fn listener_for(
        &mut self,
        core: &Core,
        ask: &Return,
        member: MemberId,
        slot: Option<Slot>,
        has_seat: bool,
        avoids: u64,
    ) -> Entry {
        let newest = core.final_tick();
        let since = Since::new(core, ask);
        let is_known = since.shared.is_some();
        let from = if is_known {
            since.upto.min(newest)
        } else {
            newest
        };
        let audience = self.audience.as_mut().filter(|_| is_known);
        let listener =
            audience.and_then(|audience| audience.take_up(slot, member, &ask.baselines, from));
        let offers = offered(core, ask);
        let takes_part = slot.is_some() && has_seat && newest > Tick::ZERO;
        Entry {
            member,
            slot,
            from,
            resumed: false,
            inputs_after: offers.filter(|_| takes_part).map(|after| after.max(newest)),
            avoids,
            terms: Some(since),
            listener,
        }
    }

    /// Links of `member`, and whatever was on `path`, are no more; nobody need be told.
    pub(in crate::node::host) fn forget_links(
        &mut self,
        core: &mut Core,
        now: Time,
        path: Path,
        member: MemberId,
    ) {
        let is_old = |(of, guest): (&Path, &crate::node::guest::Guest)| {
            (*of == path || guest.peer.member == member).then_some(*of)
        };
        let old: Vec<Path> = self.guests.iter().filter_map(is_old).collect();
        for path in old {
            if let Some(guest) = self.guests.remove(&path) {
                // The member may never have known of this link: it cannot tell what comes of it.
                let tags = guest.peer.stray_tags() | guest.peer.sent_tags();
                core.note_strays(now, path, tags);
            }
            self.doctor.forget(path);
        }
    }
}

/// What has come of the session since the history that whoever asks shares with this node.
#[derive(Debug)]
pub(in crate::node::host) struct Since {
    /// The newest term of both; nothing if none is known, or too much has come since.
    pub(in crate::node::host) shared: Option<Term>,
    /// The terms after it, ascending.
    pub(in crate::node::host) starts: Vec<TermStart>,
    /// Of what it holds, this much stands.
    upto: Tick,
}

impl Since {
    fn new(core: &Core, ask: &Return) -> Self {
        let followed = &ask.followed;
        let shared = core.terms.shared(followed.since(), &followed.starts());
        let starts =
            |shared: Shared| -> Vec<TermStart> { core.terms.after(shared.term).copied().collect() };
        let known = shared.map(|shared| (shared, starts(shared)));
        match known.filter(|(_, starts)| starts.len() <= TERMS_MAX) {
            Some((shared, starts)) => Self {
                shared: Some(shared.term),
                starts,
                upto: shared.upto,
            },
            None => Self {
                shared: None,
                starts: Vec::new(),
                upto: Tick::ZERO,
            },
        }
    }
}

/// The tick after which whoever asks has inputs that this node can take in.
fn offered(core: &Core, ask: &Return) -> Option<Tick> {
    let limit = core.clock.tick().plus(INPUT_HISTORY_TICKS_MAX / 4);
    ask.offers.map(Tick::new).filter(|&after| after <= limit)
}

/// Whether a member that has a link asks for another one: not if that link goes on to be heard, since
/// then its Return was sent before the link began and has come late.
fn asks_in_earnest(guest: &mut crate::node::guest::Guest, now: Time, nonce: u64) -> bool {
    let since = match guest.asks_anew {
        Some((known, since)) if known == nonce => since.max(guest.peer.heard_at),
        _ => now,
    };
    guest.asks_anew = Some((nonce, since));
    now.micros_since(since) >= LATE_US
}
