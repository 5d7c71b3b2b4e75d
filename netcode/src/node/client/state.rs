//! States that come and go: joining, healing, and reports of what differs.

use std::sync::Arc;

use super::Client;
use crate::node::api::{DesyncReport, DisconnectReason, Event};
use crate::node::core::{Core, Todo};
use crate::node::desync::fold;
use crate::node::host::first_transfer;
use crate::node::standby::Standby;
use crate::session::bulk::{BulkConfig, BulkSender};
use crate::session::control::{Control, Purpose};
use crate::session::handshake::ByeReason;
use crate::session::statistics::DropReason;
use crate::statesync::PublisherConfig;
use crate::tick::Tick;
use crate::time::Time;

impl Client {
    pub(super) fn handle_chunk(
        &mut self,
        core: &mut Core,
        now: Time,
        body: &[u8],
    ) -> Result<(), DropReason> {
        let (tick, receiver) = self.receiver.as_mut().ok_or(DropReason::Unexpected)?;
        receiver
            .handle_chunk(now, body)
            .map_err(|_error| DropReason::Malformed)?;
        self.peer.heard_at = now;
        if !receiver.is_complete() || self.state.is_some() {
            return Ok(());
        }
        let tick = *tick;
        match receiver.finish() {
            Ok(bytes) if self.receives_standby => {
                let standby = self.standby_mut(core);
                standby.install_whole(core, &bytes)?;
            }
            Ok(bytes) if self.follower.is_some() => {
                self.take_keyframe(core, now, tick, &bytes);
            }
            Ok(bytes) => {
                self.state = Some((tick, bytes.into()));
                self.take_state(core);
            }
            Err(crate::session::bulk::BulkFinishError::Incomplete) => {}
            Err(crate::session::bulk::BulkFinishError::DigestMismatch) => {
                self.end(core, DisconnectReason::BadState);
            }
        }
        Ok(())
    }

    /// A part of what the host sends its standbys.
    pub(super) fn handle_standby(
        &mut self,
        core: &mut Core,
        now: Time,
        body: &[u8],
    ) -> Result<(), DropReason> {
        // What it said that it holds must stay true, after a vote.
        if self.follower.is_none() || self.has_renounced() {
            return Err(DropReason::Unexpected);
        }
        self.standby_mut(core).handle_part(core, body)?;
        self.peer.heard_at = now;
        Ok(())
    }

    fn standby_mut(&mut self, core: &Core) -> &mut Standby {
        let schema = &self.config.game.schema;
        let publishes = PublisherConfig::new(&self.state_sync_config(), core.rate);
        self.standby
            .get_or_insert_with(|| Box::new(Standby::new(schema, core, publishes)))
    }

    /// Lets the driver import the state, once the simulation is not behind it.
    pub(super) fn take_state(&mut self, core: &mut Core) {
        let Some((tick, _)) = &self.state else { return };
        let is_there = self.needs_state || core.timeline.simulated() >= *tick;
        if is_there && !core.todo.contains(&Todo::Import) {
            core.todo.push_back(Todo::Import);
        }
    }

    /// The driver has imported the state, or could not.
    pub(in crate::node) fn commit_import(
        &mut self,
        core: &mut Core,
        now: Time,
        found: Option<Tick>,
    ) {
        let Some((tick, _)) = self.state.take() else {
            return;
        };
        if found != Some(tick) {
            self.say_bye(core, ByeReason::Fault);
            self.end(core, DisconnectReason::BadState);
            return;
        }
        core.jump(tick);
        if core.info.images > 0 {
            core.todo.push_back(Todo::Capture(tick));
        }
        if core::mem::take(&mut self.needs_state) {
            self.running = false;
            self.try_run(core, now);
        } else {
            self.healing = false;
            core.report(Event::Healed { tick });
        }
        self.advance(core, now);
    }

    /// A hash is known: it goes to the host if it is one of those that are compared.
    pub(in crate::node) fn own_hash(&mut self, core: &Core, tick: Tick, hash: u64) {
        if core.hashes.is_compared(tick) && !self.healing {
            self.peer.hash_due = Some(fold(tick, hash));
        }
        self.answer_hashes(core);
    }

    pub(super) fn answer_hashes(&mut self, core: &Core) {
        let Some((after, upto)) = self.hashes_wanted else {
            return;
        };
        if core.todo.iter().any(|todo| matches!(todo, Todo::Hash(_))) {
            return;
        }
        self.hashes_wanted = None;
        let ticks = after.number() + 1..=upto.number();
        let hashes = ticks
            .map(Tick::new)
            .map(|tick| core.hashes.at(tick).map_or(0, |hash| fold(tick, hash).hash))
            .collect();
        let (after, upto) = (after.number(), upto.number());
        self.tell(&Control::Hashes {
            after,
            upto,
            hashes,
        });
    }

    /// The state that the host wants to compare is there, or known no more.
    pub(in crate::node) fn give_report(&mut self, tick: Tick, bytes: Option<Vec<u8>>) {
        let bytes: Arc<[u8]> = bytes.unwrap_or_default().into();
        let id = first_transfer(self.hello.nonce);
        self.tell(&Control::Transfer {
            id,
            purpose: Purpose::Report,
            tick: tick.number(),
            bytes: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
            digest: crate::hash::digest(&bytes),
        });
        self.report = BulkSender::new(id, bytes, BulkConfig::default()).ok();
    }

    /// Reports a divergence that the host has described, once its lines are complete.
    pub(in crate::node) fn poll_report(&mut self, core: &mut Core) {
        if !self.healing
            && let Some((tick, differences)) = self.diverged.take_if(|(_, lines)| !lines.is_empty())
        {
            let member = core.info.member;
            core.report(Event::Desync(DesyncReport {
                tick,
                member,
                differences,
            }));
        }
    }

    pub(super) fn handle_bulk_ack(&mut self, now: Time, body: &[u8]) -> Result<(), DropReason> {
        let report = self.report.as_mut().ok_or(DropReason::Unexpected)?;
        report
            .handle_ack(now, body)
            .map_err(|_error| DropReason::Malformed)?;
        if report.is_complete() {
            self.report = None;
        }
        Ok(())
    }
}
