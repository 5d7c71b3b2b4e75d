//! Letting members in: Hello, Welcome, Refuse, and the state that newcomers need.

use std::sync::Arc;

use super::succession::Since;
use super::{Host, first_transfer};
use crate::id::{MemberId, Path, Slot, Term};
use crate::limits::{ANSWERS_MAX, INPUT_HISTORY_TICKS_MAX, MEMBERS_MAX};
use crate::lockstep::Exchange;
use crate::node::api::Event;
use crate::node::audience::Listener;
use crate::node::core::{Core, ExportFor, Todo};
use crate::node::guest::Guest;
use crate::node::seat::{Early, Holder, Seat};
use crate::session::acted::Acted;
use crate::session::config::Role;
use crate::session::control::{Control, Purpose};
use crate::session::handshake::{
    self, Back, ByeReason, Hello, Refusal, Refuse, SchemaPart, Welcome,
};
use crate::session::peer::Peer;
use crate::session::roster::{Member, MemberRecord};
use crate::session::statistics::DropReason;
use crate::tick::Tick;
use crate::time::Time;
use crate::wire::header::{TagKey, kind};

/// For so long a Hello may still come that was sent before a Return, in microseconds.
const OVERTAKEN_US: u64 = 1_000_000;

/// Bytes of schema in one part of a refusal.
const SCHEMA_PART_BYTES: usize = 900;

/// Parts of a schema that are sent for one Hello, at most.
const SCHEMA_PARTS_MAX: usize = 32;

/// Parts that one Hello gets: it is small, and the answer shall not be hundreds of times its size.
const SCHEMA_PARTS_AT_ONCE: u32 = 4;

/// Links whose nonces are remembered.
const NONCES_MAX: usize = 512;

/// Microseconds between two exports of the state for members that join.
const EXPORT_US: u64 = 100_000;

/// What a member is let in as.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) member: MemberId,
    pub(super) slot: Option<Slot>,
    /// The tick after which it gets input frames.
    pub(super) from: Tick,
    /// Whether it has the state at that tick.
    pub(super) resumed: bool,
    /// The tick after which it goes on to send inputs; without one it begins once it is ready.
    pub(super) inputs_after: Option<Tick>,
    /// Where it followed another host before: how the terms since began.
    pub(super) terms: Option<Since>,
    /// Tags that its datagrams must not have: see [`TagKey::salt_clear_of`].
    pub(super) avoids: u64,
    /// In state-sync mode: what it is told goes on from this snapshot, which it holds.
    pub(super) listener: Option<(Listener, Tick)>,
}

impl Host {
    pub(super) fn handle_hello(
        &mut self,
        core: &mut Core,
        now: Time,
        path: Path,
        body: &[u8],
    ) -> Result<(), DropReason> {
        let hello: Hello = handshake::read(body).map_err(|_error| DropReason::Malformed)?;
        // It asks again; by then this host orders again, or another one does.
        if self.is_frozen() || self.hands_over_at().is_some() {
            return Err(DropReason::RateLimited);
        }
        if let Some(guest) = self.guests.get(&path)
            && guest.nonce == hello.nonce
        {
            if self.outgoing.len() < ANSWERS_MAX {
                self.outgoing.push_back((path, guest.welcome.clone()));
            }
            return Ok(());
        }
        // Sent before its Return, which it may have been answered for already.
        let is_overtaken = |at: Time| now.micros_since(at) < OVERTAKEN_US;
        let guest = self.guests.get(&path);
        if guest.is_some_and(|guest| guest.returned_at.is_some_and(is_overtaken)) {
            return Err(DropReason::Unexpected);
        }
        // A late copy, or a client that has not heard of a link that is lost by now: it asks with
        // another nonce soon.
        if self.nonces.contains(&hello.nonce) {
            return Err(DropReason::Unexpected);
        }
        if !self.admissions.take(now) {
            return Err(DropReason::RateLimited);
        }
        match self.admit(core, now, path, &hello) {
            Ok(()) => {}
            Err(Refusal::Schema { host, .. }) => self.refuse_schema(path, &hello, host),
            Err(refusal) => {
                self.answer(
                    path,
                    kind::REFUSE,
                    &Refuse {
                        nonce: hello.nonce,
                        refusal,
                    },
                );
            }
        }
        Ok(())
    }

    pub(super) fn refuse_schema(&mut self, path: Path, hello: &Hello, host: u64) {
        if self.schema_parts.is_empty() {
            let (mut schema, mut block) = (Vec::new(), Vec::new());
            self.config.game.schema.encode(&mut schema);
            crate::wire::compress::compress(&schema, &mut block);
            self.schema_parts = block
                .chunks(SCHEMA_PART_BYTES)
                .take(SCHEMA_PARTS_MAX)
                .map(<[u8]>::to_vec)
                .collect();
        }
        let parts = u8::try_from(self.schema_parts.len()).unwrap_or(u8::MAX);
        let refusal = Refusal::Schema { host, parts };
        self.answer(
            path,
            kind::REFUSE,
            &Refuse {
                nonce: hello.nonce,
                refusal,
            },
        );
        let mut sent = 0;
        for part in 0..parts {
            if hello.schema_parts_wanted & (1 << part) != 0 && sent < SCHEMA_PARTS_AT_ONCE {
                sent += 1;
                let bytes = self.schema_parts[usize::from(part)].clone();
                let part = SchemaPart {
                    nonce: hello.nonce,
                    part,
                    bytes,
                };
                self.answer(path, kind::SCHEMA_PART, &part);
            }
        }
    }

    pub(super) fn answer<T: crate::wire::codec::Encode>(&mut self, path: Path, kind: u8, body: &T) {
        // A flood of requests meets a full queue; whoever is serious asks again.
        if self.outgoing.len() < ANSWERS_MAX {
            let mut bytes = Vec::new();
            handshake::write(kind, body, &mut bytes);
            self.outgoing.push_back((path, bytes));
        }
    }

    /// Lets a client in, or says why not.
    pub(super) fn admit(
        &mut self,
        core: &mut Core,
        now: Time,
        path: Path,
        hello: &Hello,
    ) -> Result<(), Refusal> {
        let protocol = hello.compare(&self.config.game)?;
        if core.is_over() || self.leaving {
            return Err(Refusal::Ended);
        }
        // Whoever was on this path before is another attempt.
        if self.guests.contains_key(&path) {
            self.lose(core, now, path);
            // The path goes on, with the new attempt.
            self.closing.retain(|closing| *closing != path);
        }
        let resumes = self.seat_to_resume(core, hello);
        let slot = if hello.spectator {
            None
        } else {
            Some(resumes.or(self.free_slot()))
        };
        let slot = match slot {
            None => {
                let watching = self
                    .guests
                    .values()
                    .filter(|guest| guest.role == Role::Spectator);
                let limit = self.config.spectators;
                if watching.count() >= usize::from(limit) {
                    return Err(Refusal::SpectatorsFull { limit });
                }
                None
            }
            Some(None) => {
                return Err(Refusal::Full {
                    slots: self.config.slots,
                });
            }
            Some(slot) => slot,
        };
        if self.guests.len() >= MEMBERS_MAX {
            return Err(Refusal::Full {
                slots: self.config.slots,
            });
        }
        let holder = slot.and_then(|slot| self.seats[slot.index()].holder.clone());
        let member = match holder {
            Some(holder) => {
                if let Some(old) = holder.path {
                    self.say_bye(core, old, ByeReason::Replaced);
                    if let Some(guest) = self.guests.remove(&old) {
                        self.close_account(core, &guest);
                    }
                    self.doctor.forget(old);
                }
                holder.member
            }
            None => self.watcher_or_new(core, now, path, hello)?,
        };
        self.welcome(core, now, path, hello, protocol, member, slot);
        Ok(())
    }

    /// Who a client is that has no seat yet: the member without a slot that it was, or a new one.
    fn watcher_or_new(
        &mut self,
        core: &mut Core,
        now: Time,
        path: Path,
        hello: &Hello,
    ) -> Result<MemberId, Refusal> {
        if let Some(watcher) = self.watcher_to_resume(core, hello) {
            self.forget_links(core, now, path, watcher);
            return Ok(watcher);
        }
        let member = MemberId::new(core.info.term, self.next_member);
        let next = self.next_member.checked_add(1);
        self.next_member = next.ok_or(Refusal::Full {
            slots: self.config.slots,
        })?;
        Ok(member)
    }

    pub(super) fn seat_to_resume(&self, core: &Core, hello: &Hello) -> Option<Slot> {
        if hello.resume == 0 {
            return None;
        }
        let is_its = |seat: &Seat| {
            seat.holder.as_ref().is_some_and(|holder| {
                holder.resume == hello.resume || self.term_of(core, hello, holder.member).is_some()
            })
        };
        let index = self.seats.iter().position(is_its)?;
        u8::try_from(index).ok().map(Slot)
    }

    /// The member without a slot that asks to go on, where it may have a vote.
    fn watcher_to_resume(&self, core: &Core, hello: &Hello) -> Option<MemberId> {
        if hello.resume == 0 || !hello.spectator || !self.config.migration.elects {
            return None;
        }
        let own = core.info.member;
        let watchers = core.roster.members().iter();
        let mut watchers = watchers.filter(|it| it.slot.is_none() && it.id != own);
        let is_its = |it: &&Member| {
            self.token(core, it.id, core.info.term) == hello.resume
                || self.term_of(core, hello, it.id).is_some()
        };
        watchers.find(is_its).map(|it| it.id)
    }

    pub(super) fn free_slot(&self) -> Option<Slot> {
        let index = self.seats.iter().position(|seat| seat.holder.is_none())?;
        u8::try_from(index).ok().map(Slot)
    }

    #[expect(clippy::too_many_arguments, reason = "all of them make up the welcome")]
    pub(super) fn welcome(
        &mut self,
        core: &mut Core,
        now: Time,
        path: Path,
        hello: &Hello,
        protocol: u16,
        member: MemberId,
        slot: Option<Slot>,
    ) {
        let confirmed = Tick::new(hello.confirmed);
        let settled = core.timeline.settled();
        let holds_frames = confirmed <= settled
            && core
                .slots()
                .all(|slot| core.known.oldest(slot) <= confirmed)
            && settled.since(confirmed) < INPUT_HISTORY_TICKS_MAX / 2;
        let resumed = self.audience.is_none()
            && slot.is_some()
            && hello.confirmed > 0
            && holds_frames
            && hello.resume != 0
            && self.is_standing(core, hello, member);
        let entry = Entry {
            member,
            slot,
            from: if resumed { confirmed } else { settled },
            resumed,
            inputs_after: None,
            terms: None,
            avoids: 0,
            listener: None,
        };
        self.let_in(core, now, path, hello, protocol, entry);
    }

    /// Whether all that `member` holds has happened: terms since the one of its proof may have
    /// begun before the end of what it holds.
    fn is_standing(&self, core: &Core, hello: &Hello, member: MemberId) -> bool {
        if core.info.term == Term(1) {
            return true;
        }
        let term = self.term_of(core, hello, member);
        let standing = term.and_then(|term| core.terms.standing(term));
        standing.is_some_and(|standing| hello.confirmed <= standing.number())
    }

    /// The term in which this node gave `member` the proof that it shows.
    fn term_of(&self, core: &Core, hello: &Hello, member: MemberId) -> Option<Term> {
        let is_its = |&term: &Term| self.token(core, member, term) == hello.resume;
        let (own, present) = (core.info.member, core.info.term);
        core.terms.hosted_by(own, present).find(is_its)
    }

    /// Lets a member in as `entry` says.
    pub(super) fn let_in(
        &mut self,
        core: &mut Core,
        now: Time,
        path: Path,
        hello: &Hello,
        protocol: u16,
        entry: Entry,
    ) {
        let Entry {
            member,
            slot,
            from,
            resumed,
            inputs_after,
            terms,
            avoids,
            listener,
        } = entry;
        // The same for as long as the member is one: a welcome that is lost takes nothing away.
        let resume = self.token(core, member, core.info.term);
        let tells_state = self.audience.is_some();
        let role = if slot.is_some() {
            Role::Player
        } else {
            Role::Spectator
        };
        let body = Welcome {
            nonce: hello.nonce,
            protocol,
            session: core.info.session.0,
            term: core.info.term.0,
            member: member.0,
            slot: slot.map_or(u8::MAX, |slot| slot.0),
            slots: core.info.slots,
            seed: if tells_state {
                core.info.public_seed
            } else {
                core.info.seed
            },
            gate: u8::from(!self.is_paced()),
            desync_interval: core.info.desync_interval,
            images: core.info.images,
            heal: self.config.desync.heal,
            resume,
            from: from.number(),
            resumed,
            snapshot_ticks: self
                .audience
                .as_ref()
                .map_or(0, |audience| audience.config.snapshot_ticks),
        };
        let key = TagKey::new(core.info.session, core.info.term, hello.nonce);
        let salt = key.salt_clear_of(avoids);
        let key = key.salted(salt);
        let mut welcome = Vec::new();
        match terms {
            None => handshake::write(kind::WELCOME, &body, &mut welcome),
            Some(terms) => {
                let back = Back {
                    welcome: body,
                    shared: terms.shared.map(|term| term.0),
                    terms: terms.starts,
                    inputs_after: inputs_after.map(Tick::number),
                    salt,
                    baseline: listener.as_ref().map(|(_, tick)| tick.number()),
                    acted: slot
                        .filter(|_| tells_state)
                        .map(|slot| Acted::newest(&core.known, slot)),
                };
                handshake::write(kind::BACK, &back, &mut welcome);
            }
        }
        if self.nonces.len() >= NONCES_MAX {
            self.nonces.pop_front();
        }
        self.nonces.push_back(hello.nonce);
        self.outgoing.push_back((path, welcome.clone()));

        let mut peer = Peer::new(path, member, key, core.rate, now);
        peer.slot = slot;
        peer.hears_missing = tells_state;
        let (slots, input_bytes) = (core.info.slots, core.info.input_bytes);
        let all = core.slots().fold(0, |mask, slot| mask | slot.bit());
        let behind = if slot.is_none() {
            self.config.spectator_delay_ticks
        } else {
            0
        };
        let wants_state = from > Tick::ZERO && !resumed && !tells_state;
        // Inputs of all slots go out where everyone simulates.
        let all = if tells_state { 0 } else { all };
        let mut guest = Guest {
            peer,
            exchange: Exchange::new(slots, input_bytes, all, 0, from),
            nonce: hello.nonce,
            asks_anew: None,
            returned_at: None,
            incarnation: None,
            votes: false,
            welcome,
            role,
            behind,
            due: true,
            wants_state,
            state_not_before: if tells_state {
                Tick::ZERO
            } else {
                from.plus(behind)
            },
            transfer: None,
            transfers: first_transfer(hello.nonce),
            is_too_far_behind: false,
            listener: None,
        };
        if let Some(audience) = &mut self.audience {
            if let Some((listener, _)) = listener {
                guest.listener = Some(listener);
                audience.begin_with(&mut guest);
            } else {
                guest.listener = Some(Listener::new(slot, member));
                audience.begin(&mut guest);
            }
        }
        self.tell_members(core, &mut guest);
        if let Some(at) = self.start_at {
            guest.tell(&Control::Start(at.micros()));
        }
        if let Some(last) = core.last_tick {
            guest.tell(&Control::LastTick(last.number()));
        }
        if let (Some(slot), Some(after)) = (slot, inputs_after) {
            guest.exchange.expect(slot, after);
        }
        self.guests.insert(path, guest);
        if let Some(slot) = slot {
            // What came over another link, or from the slot's last member, is nothing that this one
            // sent: it may know it as something else, or not at all.
            core.submitted
                .start(slot, inputs_after.unwrap_or(Tick::ZERO));
            let held = self.seats[slot.index()].holder.take();
            let held = held.and_then(|held| held.from);
            let newest = core.known.newest(slot);
            let (from, inputs_from) = match inputs_after {
                Some(after) if held.is_none() || !self.is_paced() && after > newest => {
                    let first = after.max(newest).next();
                    (Some(first), first)
                }
                Some(after) => (held, after.max(newest).next()),
                // Where all wait for all, a member that was away is absent until it is back.
                None => (held.filter(|_| self.is_paced()), Tick::MAX),
            };
            self.seats[slot.index()].holder = Some(Holder {
                member,
                resume,
                path: Some(path),
                from,
                inputs_from,
                lost_at: None,
                replaced: 0,
                early: Early::default(),
            });
        }
        let joined = Member {
            id: member,
            role,
            slot,
            name: hello.name.clone(),
            connected: true,
        };
        self.set_member(core, joined);
        self.export_if_due(core, now);
    }

    /// Makes a member known to all.
    pub(super) fn set_member(&mut self, core: &mut Core, member: Member) {
        for guest in self.guests.values_mut() {
            guest.tell(&Control::Member(MemberRecord::from(&member)));
        }
        core.roster.set(member.clone());
        core.report(Event::Member(member));
    }

    /// Asks for the state, now or as soon as the last time is long enough ago: members that come
    /// and go shall not keep the host busy with exports.
    pub(super) fn export_if_due(&mut self, core: &mut Core, now: Time) {
        let is_wanted = self.guests.values().any(|guest| guest.wants_state);
        let is_due = self
            .exported_at
            .is_none_or(|at| now.micros_since(at) >= EXPORT_US);
        if is_wanted && is_due {
            self.exported_at = Some(now);
            let tick = core.timeline.settled();
            core.todo.push_back(Todo::Export(tick, ExportFor::Join));
        }
    }

    /// The state at `tick` is there: it goes to those who wait for one.
    pub(in crate::node) fn give_state(&mut self, tick: Tick, bytes: &Arc<[u8]>) {
        for guest in self.guests.values_mut().filter(|guest| guest.wants_state) {
            guest.wants_state = false;
            guest.begin_transfer(Purpose::Join, tick, bytes);
        }
    }
}
