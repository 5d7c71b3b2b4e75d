//! What the host's datagrams bring.

use super::{Client, Phase, session_low};
use crate::id::MemberId;
use crate::limits::{INPUT_HISTORY_TICKS_MAX, JOIN_TICK_MAX, SNAPSHOT_BYTES_MAX};
use crate::lockstep::Shape;
use crate::node::api::{DisconnectReason, Event};
use crate::node::core::{Core, ExportFor, Todo};
use crate::session::bulk::BulkReceiver;
use crate::session::control::{Control, HASHES_MAX, Purpose};
use crate::session::handshake::{self, Bye, ByeReason};
use crate::session::statistics::DropReason;
use crate::tick::Tick;
use crate::time::Time;

impl Client {
    pub(super) fn handle_bye(&mut self, core: &mut Core, body: &[u8]) -> Result<(), DropReason> {
        let bye: Bye = handshake::read(body).map_err(|_error| DropReason::Malformed)?;
        // Only members leave. Whoever says so was to host next, or did not know of it yet.
        let is_host = bye.reason != ByeReason::Left;
        if self.phase != Phase::Inside || bye.session_low != session_low(core) || !is_host {
            return Err(DropReason::Unexpected);
        }
        self.end(core, DisconnectReason::Bye(bye.reason));
        Ok(())
    }

    pub(super) fn handle_tick(
        &mut self,
        core: &mut Core,
        now: Time,
        bytes: &[u8],
    ) -> Result<(), DropReason> {
        if self.phase != Phase::Inside || self.has_renounced() {
            return Err(DropReason::Unexpected);
        }
        let datagram = self.peer.open(now, bytes)?;
        if datagram.claims.is_some() {
            return Err(DropReason::Unexpected);
        }
        if self.follower.is_some() {
            self.read_state(core, now, &datagram)?;
        } else if let Some(reference) = datagram.tick {
            let own = self.peer.slot.map(|slot| (slot, &core.submitted));
            let shape = Shape {
                reference,
                uneven: self.waits,
                own,
            };
            // Frames wait here until the state is there and the ticks before have run.
            let newest_max = core.timeline.settled().plus(INPUT_HISTORY_TICKS_MAX - 64);
            self.exchange
                .read(
                    datagram.ack,
                    shape,
                    newest_max,
                    datagram.batch,
                    &mut core.known,
                )
                .map_err(|_error| DropReason::BadBatch)?;
        } else if !datagram.batch.is_empty() {
            return Err(DropReason::UnknownTick);
        }
        let mut controls = Vec::new();
        if let Some(control) = datagram.control {
            self.peer
                .inbox
                .read(control, |message| {
                    controls.push(Control::from_bytes(message))
                })
                .map_err(|_error| DropReason::BadSection)?;
        }
        if let Some(messages) = datagram.messages {
            self.peer
                .messages
                .handle(messages)
                .map_err(|_fault| DropReason::BadSection)?;
        }
        self.peer.accept(now, &datagram);
        if let (Some(ack), Some(follower)) = (datagram.acked, &mut self.follower) {
            follower.decided.claims.on_ack(ack);
        }
        if let Some(ack) = datagram.acked
            && self.exchange.on_ack(ack, &core.submitted).is_err()
        {
            // Our own inputs are forgotten before the host had them: it has gone on without.
            self.rejoin(core, now, self.path);
            return Ok(());
        }
        if let Some(margin) = datagram.clock.and_then(|clock| clock.margin)
            && self.active_from.is_some()
        {
            let rtt_us = self.peer.rtt.smoothed_us().unwrap_or(0);
            // Where all wait for all, prediction lets the host run ahead of late inputs.
            let spare = if self.waits {
                16 * core.timeline.prediction()
            } else {
                0
            };
            let margin = margin.saturating_add(i16::try_from(spare).unwrap_or(0));
            self.delay.report(now, core.rate, rtt_us, margin);
        }
        while core.has_room_for_messages()
            && let Some((channel, bytes)) = self.peer.messages.receive()
        {
            core.report(Event::Message {
                from: self.host,
                channel,
                bytes,
            });
        }
        for control in controls {
            match control {
                Ok(control) => self.handle_control(core, now, control)?,
                Err(_error) => return Err(DropReason::BadSection),
            }
        }
        if self.follower.is_none() {
            self.note_arrivals(core, now);
            self.find_replaced(core);
        }
        self.try_run(core, now);
        self.steer(core);
        self.advance(core, now);
        Ok(())
    }

    fn handle_control(
        &mut self,
        core: &mut Core,
        now: Time,
        control: Control,
    ) -> Result<(), DropReason> {
        let Some(control) = self.handle_word(core, control)? else {
            return Ok(());
        };
        match control {
            Control::Member(record) => {
                let member = record
                    .member(core.info.slots)
                    .ok_or(DropReason::BadSection)?;
                if core.roster.members().len() >= crate::limits::MEMBERS_MAX
                    && core.roster.member(member.id).is_none()
                {
                    return Err(DropReason::BadSection);
                }
                self.unnamed.remove(&member.id);
                core.roster.set(member.clone());
                core.report(Event::Member(member));
            }
            Control::Settings(settings) => self.take_settings(core, settings),
            Control::Gone(id) => {
                self.introduced.push_back(Control::Gone(id));
                if let Some(member) = core.roster.remove(MemberId(id)) {
                    core.report(Event::Left {
                        member,
                        reason: ByeReason::Left,
                    });
                }
            }
            Control::Start(at_us) => self.start_at_us = Some(at_us),
            Control::LastTick(tick) => core.last_tick = Some(Tick::new(tick)),
            Control::Activate(tick) => self.activate(core, now, Tick::new(tick))?,
            Control::Transfer {
                id,
                purpose: purpose @ (Purpose::Join | Purpose::Standby),
                tick,
                bytes,
                digest,
            } => {
                let wanted = self.needs_state || self.healing || self.follower.is_some();
                let fits = purpose == Purpose::Join || self.follower.is_some();
                if !wanted || !fits || tick > JOIN_TICK_MAX {
                    return Err(DropReason::Unexpected);
                }
                let receiver = BulkReceiver::new(id, u64::from(bytes), digest, SNAPSHOT_BYTES_MAX)
                    .map_err(|_too_large| DropReason::BadSection)?;
                self.receiver = Some((Tick::new(tick), receiver));
                self.receives_standby = purpose == Purpose::Standby;
            }
            Control::Hashes {
                after,
                upto,
                hashes,
            } => {
                let span = upto.checked_sub(after).unwrap_or(u32::MAX) as usize;
                if !hashes.is_empty()
                    || !(1..=HASHES_MAX).contains(&span)
                    || self.hashes_wanted.is_some()
                {
                    return Err(DropReason::Unexpected);
                }
                for number in after + 1..=upto {
                    if core.hashes.at(Tick::new(number)).is_none() {
                        core.todo.push_back(Todo::Hash(Tick::new(number)));
                    }
                }
                self.hashes_wanted = Some((Tick::new(after), Tick::new(upto)));
            }
            Control::Diverged { tick, heal } => {
                // One export at a time, however often the host asks.
                let exports = |todo: &Todo| matches!(todo, Todo::Export(_, _));
                if core.todo.iter().any(exports) {
                    return Err(DropReason::Unexpected);
                }
                core.statistics.desyncs += 1;
                self.diverged = Some((Tick::new(tick), Vec::new()));
                self.healing = heal && self.heal;
                core.todo
                    .push_back(Todo::Export(Tick::new(tick), ExportFor::Report));
            }
            Control::Difference(line) => {
                let Some((_, lines)) = &mut self.diverged else {
                    return Ok(());
                };
                if lines.len() < 64 {
                    lines.push(line);
                }
            }
            Control::Peer { .. } | Control::Invite { .. } | Control::Invitation { .. } => {
                self.introduced.push_back(control);
            }
            Control::Ready
            | Control::Reset
            | Control::Behind(_)
            | Control::Stand(_)
            | Control::Replaced { .. }
            | Control::Final { .. }
            | Control::Denied { .. }
            | Control::Transfer {
                purpose: Purpose::Report,
                ..
            } => {
                return Err(DropReason::Unexpected);
            }
        }
        Ok(())
    }
}
