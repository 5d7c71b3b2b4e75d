//! Letting members go: goodbyes, lost links, and those for whom all have waited too long.

use super::{Host, session_low};
use crate::id::{MemberId, Path};
use crate::node::api::Event;
use crate::node::core::Core;
use crate::node::seat::Holder;
use crate::session::config::Gate;
use crate::session::control::Control;
use crate::session::handshake::{self, Bye, ByeReason};
use crate::session::statistics::DropReason;
use crate::tick::Tick;
use crate::time::Time;
use crate::wire::header::kind;

/// Times that a goodbye is said: it is not acked.
const BYE_COPIES: u8 = 3;

/// Microseconds after the last tick in which members fetch what they lack.
const FAREWELL_US: u64 = 5_000_000;

impl Host {
    pub(super) fn handle_bye(
        &mut self,
        core: &mut Core,
        path: Path,
        body: &[u8],
    ) -> Result<(), DropReason> {
        let bye: Bye = handshake::read(body).map_err(|_error| DropReason::Malformed)?;
        if bye.session_low != session_low(core) {
            return Err(DropReason::Unexpected);
        }
        let Some(guest) = self.guests.remove(&path) else {
            return Err(DropReason::UnknownPath);
        };
        self.close_account(core, &guest);
        self.doctor.forget(path);
        self.closing.push_back(path);
        let reason = if bye.reason == ByeReason::Ended && core.is_over() {
            ByeReason::Ended
        } else {
            ByeReason::Left
        };
        self.depart(core, guest.peer.member, reason);
        Ok(())
    }

    pub(in crate::node) fn handle_path_closed(&mut self, core: &mut Core, now: Time, path: Path) {
        self.lose(core, now, path);
    }

    /// The link of a member is gone; its slot is kept for a while.
    pub(super) fn lose(&mut self, core: &mut Core, now: Time, path: Path) {
        let Some(guest) = self.guests.remove(&path) else {
            return;
        };
        self.close_account(core, &guest);
        self.doctor.forget(path);
        self.closing.push_back(path);
        let member = guest.peer.member;
        let keeps = self.config.resume_us > 0 && !core.is_over();
        if keeps && self.config.migration.elects {
            // It may ask for another link over this path, and send over the old one until it has it.
            let tags = guest.peer.stray_tags() | guest.peer.sent_tags();
            core.note_strays(now, path, tags);
            self.succession.note_lost(path, member);
        }
        let seat = guest
            .peer
            .slot
            .and_then(|slot| self.seats[slot.index()].holder.as_mut());
        match seat {
            Some(holder) if keeps && self.started => {
                holder.lose(now, self.config.gate);
                if let Some(mut known) = core.roster.member(member).cloned() {
                    known.connected = false;
                    self.set_member(core, known);
                }
            }
            None if keeps && guest.peer.slot.is_none() && self.config.migration.elects => {
                self.succession.note_away(now, member);
            }
            _ => self.depart(core, member, ByeReason::Left),
        }
    }

    /// A member is gone for good.
    pub(super) fn depart(&mut self, core: &mut Core, member: MemberId, reason: ByeReason) {
        for seat in &mut self.seats {
            if seat
                .holder
                .as_ref()
                .is_some_and(|holder| holder.member == member)
            {
                seat.holder = None;
            }
        }
        self.succession.forget_lost(member);
        for guest in self.guests.values_mut() {
            guest.tell(&Control::Gone(member.0));
        }
        if let Some(member) = core.roster.remove(member) {
            core.report(Event::Left { member, reason });
        }
    }

    pub(super) fn say_bye(&mut self, core: &Core, path: Path, reason: ByeReason) {
        let bye = Bye {
            session_low: session_low(core),
            reason,
        };
        for _ in 0..BYE_COPIES {
            self.answer(path, kind::BYE, &bye);
        }
        self.closing.push_back(path);
    }

    pub(in crate::node) fn leave(&mut self, core: &mut Core) {
        let paths: Vec<Path> = self.guests.keys().copied().collect();
        for path in paths {
            self.say_bye(core, path, ByeReason::HostStops);
        }
        for guest in self.guests.values() {
            self.close_account(core, guest);
        }
        self.guests.clear();
        self.leaving = true;
    }

    /// Ends this node's part without a word to those who follow it: they go on with another host.
    pub(in crate::node) fn vanish(&mut self, core: &mut Core) {
        for guest in self.guests.values() {
            self.close_account(core, guest);
        }
        self.guests.clear();
        // A frozen host says nothing of what waits here.
        self.outgoing.clear();
        self.leaving = true;
    }

    pub(super) fn watch_links(&mut self, core: &mut Core, now: Time) {
        let silent: Vec<Path> = self
            .guests
            .iter()
            .filter(|(_, guest)| now.micros_since(guest.peer.heard_at) > self.config.silence_us)
            .map(|(path, _)| *path)
            .collect();
        for path in silent {
            self.lose(core, now, path);
        }
        let behind: Vec<Path> = self
            .guests
            .iter()
            .filter(|(_, guest)| guest.is_too_far_behind)
            .map(|(path, _)| *path)
            .collect();
        // It asks again, and gets a snapshot instead of frames that are known no more.
        for path in behind {
            self.say_bye(core, path, ByeReason::TooSlow);
            self.lose(core, now, path);
        }
        let resume_us = self.config.resume_us;
        let expired = |holder: &Holder| {
            holder
                .lost_at
                .is_some_and(|at| now.micros_since(at) > resume_us)
        };
        let gone: Vec<MemberId> = self
            .seats
            .iter()
            .filter_map(|seat| seat.holder.as_ref().filter(|holder| expired(holder)))
            .map(|holder| holder.member)
            .collect();
        for member in gone {
            self.depart(core, member, ByeReason::Left);
        }
    }

    /// Lets go of members for whom all have waited too long.
    pub(super) fn drop_slowest(&mut self, core: &mut Core, now: Time, tick: Tick) {
        let Gate::Wait { limit_us } = self.config.gate else {
            return;
        };
        let Some(since) = core.stalled_since else {
            return;
        };
        if now.micros_since(since) <= limit_us {
            return;
        }
        // Only those whom the others wait for too: the rest may be late because they wait.
        let missing = self.missing(core, self.confirmed(core).next());
        for slot in crate::lockstep::slots_of(missing) {
            let path = match &self.seats[slot.index()].holder {
                Some(holder) if Some(slot) != self.own_slot => holder.path,
                _ => continue,
            };
            if let Some(path) = path {
                self.say_bye(core, path, ByeReason::TooSlow);
                self.lose(core, now, path);
            }
        }
        self.settle_absences(core, tick);
    }

    pub(super) fn say_farewell(&mut self, core: &Core, now: Time) {
        let Some(at) = self.ended_at else { return };
        let delay = Tick::new(self.config.spectator_delay_ticks);
        if now.micros_since(at) > FAREWELL_US + core.rate.micros_at(delay) {
            let paths: Vec<Path> = self.guests.keys().copied().collect();
            for path in paths {
                self.say_bye(core, path, ByeReason::Ended);
            }
            self.guests.clear();
        }
    }
}
