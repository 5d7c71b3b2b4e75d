//! The state that goes out in state-sync mode.

use super::Host;
use crate::id::{MemberId, Path};
use crate::node::audience::Inspection;
use crate::node::core::{Core, Todo};
use crate::node::guest::Guest;
use crate::node::standby::AuthorityStream;
use crate::session::control::Control;
use crate::session::statistics::DropReason;
use crate::state::Snapshot;
use crate::tick::Tick;
use crate::time::Time;

impl Host {
    /// Asks for the state after `tick`, if it is one that goes to clients.
    pub(super) fn publish_if_due(&mut self, core: &mut Core, tick: Tick) {
        let Some(audience) = &self.audience else {
            return;
        };
        if audience.is_snapshot(core, tick) {
            core.todo.push_back(Todo::Publish(tick));
        }
        for guest in self.guests.values_mut() {
            let listener = guest.listener.as_mut();
            if let Some(control) = listener.and_then(|it| it.poll_replaced(tick)) {
                guest.tell(&control);
            }
        }
    }

    /// Asks for what standbys are sent of `tick`.
    pub(super) fn stream_if_due(&self, core: &mut Core, tick: Tick) {
        if self
            .stream
            .as_ref()
            .is_some_and(|stream| stream.is_wanted())
        {
            core.todo.push_back(Todo::Authority(tick));
        }
    }

    /// The hash of the state after `tick` is there, and the state if it was asked for.
    pub(in crate::node) fn commit_authority(
        &mut self,
        core: &mut Core,
        tick: Tick,
        hash: u64,
        state: Option<&mut Snapshot>,
    ) {
        if let Some(stream) = &mut self.stream {
            let frame = core.frame(tick, self.own_slot);
            let audience = self.audience.as_ref();
            let interest = audience.and_then(|audience| audience.publisher.interest());
            stream.push(frame, hash, state, interest, &mut self.guests);
        }
    }

    /// These members hold all of the state from now on.
    pub(in crate::node) fn stream_to(&mut self, core: &Core, members: &[MemberId]) {
        if self.audience.is_none() {
            return;
        }
        let schema = &self.config.game.schema;
        let new = || Box::new(AuthorityStream::new(schema, core));
        self.stream.get_or_insert_with(new).send_to(members);
    }

    /// A standby says what it holds.
    pub(super) fn handle_standby_ack(
        &mut self,
        now: Time,
        path: Path,
        body: &[u8],
    ) -> Result<(), DropReason> {
        let guest = self.guests.get_mut(&path).ok_or(DropReason::UnknownPath)?;
        let stream = self.stream.as_mut().ok_or(DropReason::Unexpected)?;
        stream.handle_ack(guest.peer.member, body)?;
        guest.peer.heard_at = now;
        Ok(())
    }

    /// The state that clients may see is there.
    pub(in crate::node) fn commit_publish(&mut self, core: &mut Core, snapshot: &Snapshot) {
        if let Some(audience) = &mut self.audience {
            audience.publish(core, snapshot, self.guests.values_mut());
            audience.release(snapshot.tick, 0, self.guests.values_mut());
        }
    }

    /// How many ticks clients may see behind.
    pub(in crate::node) fn rewind_ticks_max(&self) -> u32 {
        let audience = self.audience.as_ref();
        audience.map_or(0, |audience| audience.config.rewind_ticks_max)
    }

    /// Begins to count what clients are sent, or stops to; false in lockstep.
    pub(in crate::node) fn inspect(&mut self, on: bool) -> bool {
        let Some(audience) = &mut self.audience else {
            return false;
        };
        audience.inspect(on, self.guests.values_mut());
        true
    }

    /// What each client was sent, while someone looks.
    pub(in crate::node) fn inspections(&self) -> impl Iterator<Item = Inspection> {
        let audience = self.audience.as_ref();
        audience
            .into_iter()
            .flat_map(|audience| self.guests.values().map(move |guest| (audience, guest)))
            .filter_map(|(audience, guest)| audience.inspection(guest))
    }

    /// The link of a guest is gone: tells what it was sent.
    pub(super) fn close_account(&self, core: &mut Core, guest: &Guest) {
        if let Some(audience) = &self.audience {
            audience.tell_inspection(core, guest);
        }
    }

    /// The hash of the last state is there.
    pub(in crate::node) fn commit_final_hash(&mut self, tick: Tick, hash: u64) {
        if let Some(audience) = &mut self.audience {
            audience.end(tick, hash);
        }
    }

    /// Takes in what only a client in this mode says; gives back what is none of that.
    pub(super) fn handle_listener(
        &mut self,
        core: &mut Core,
        now: Time,
        path: Path,
        control: Control,
    ) -> Result<Option<Control>, DropReason> {
        let (Some(audience), Some(guest)) = (&mut self.audience, self.guests.get_mut(&path)) else {
            return Err(DropReason::Unexpected);
        };
        match control {
            Control::Reset => {
                let Some(listener) = &mut guest.listener else {
                    return Err(DropReason::Unexpected);
                };
                if !listener.reset(now) {
                    return Err(DropReason::RateLimited);
                }
                guest.transfer = None;
                audience.statistics.resets += 1;
                audience.begin(guest);
                Ok(None)
            }
            Control::Behind(ticks) => {
                let slot = guest.peer.slot.ok_or(DropReason::Unexpected)?;
                let behind_ticks = ticks.min(audience.config.rewind_ticks_max);
                audience.statistics.views_cut += u64::from(behind_ticks < ticks);
                // The newest word counts; a flood of them does not pile up.
                core.todo
                    .retain(|todo| !matches!(todo, Todo::Seen(of, _) if *of == slot));
                core.todo.push_back(Todo::Seen(slot, behind_ticks));
                Ok(None)
            }
            Control::Hashes { .. } | Control::Transfer { .. } => Err(DropReason::Unexpected),
            Control::Member(_)
            | Control::Gone(_)
            | Control::Start(_)
            | Control::LastTick(_)
            | Control::Ready
            | Control::Activate(_)
            | Control::Diverged { .. }
            | Control::Difference(_)
            | Control::Replaced { .. }
            | Control::Final { .. }
            | Control::Denied { .. }
            | Control::Peer { .. }
            | Control::Invite { .. }
            | Control::Invitation { .. }
            | Control::Settings(_)
            | Control::Stand(_) => Ok(Some(control)),
        }
    }
}
