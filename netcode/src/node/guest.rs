//! A member behind a path, as the host sees it.

use std::sync::Arc;

use crate::lockstep::{Exchange, Shape};
use crate::node::audience::Listener;
use crate::node::core::Core;
use crate::session::bulk::{BulkConfig, BulkSender};
use crate::session::config::Role;
use crate::session::control::{Control, Purpose};
use crate::session::peer::Peer;
use crate::tick::Tick;
use crate::time::Time;

/// A member behind a path.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) peer: Peer,
    pub(super) exchange: Exchange,
    pub(super) nonce: u64,
    /// A Return with another nonce that has come over the path, and since when nothing else came.
    pub(super) asks_anew: Option<(u64, Time)>,
    /// When its Return was answered, if it came back by one.
    pub(super) returned_at: Option<Time>,
    /// Which process of the member it is, once it has said so, where hosting may move.
    pub(super) incarnation: Option<u32>,
    /// Whether it votes on who hosts, where members elect.
    pub(super) votes: bool,
    pub(super) welcome: Vec<u8>,
    pub(super) role: Role,
    /// Ticks by which its frames are held back.
    pub(super) behind: u32,
    pub(super) due: bool,
    /// It needs the state of some tick; the transfer begins when that is exported.
    pub(super) wants_state: bool,
    /// When the state may be sent, to members that watch with a delay.
    pub(super) state_not_before: Tick,
    pub(super) transfer: Option<BulkSender>,
    pub(super) transfers: u16,
    pub(super) is_too_far_behind: bool,
    /// What it is told of the state, in state-sync mode.
    pub(super) listener: Option<Listener>,
}

impl Guest {
    pub(super) fn tell(&mut self, control: &Control) {
        // A full outbox means a peer that acks nothing. What it misses it would miss for ever.
        if self.peer.outbox.push(control.to_bytes()).is_err() {
            self.is_too_far_behind = true;
        }
    }

    pub(super) fn begin_transfer(&mut self, purpose: Purpose, tick: Tick, bytes: &Arc<[u8]>) {
        self.transfers = self.transfers.wrapping_add(1);
        let id = self.transfers;
        self.tell(&Control::Transfer {
            id,
            purpose,
            tick: tick.number(),
            bytes: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
            digest: crate::hash::digest(bytes),
        });
        self.transfer = BulkSender::new(id, Arc::clone(bytes), BulkConfig::default()).ok();
    }

    pub(super) fn write(
        &mut self,
        core: &mut Core,
        now: Time,
        newest: Tick,
        since_end: u32,
        uneven: bool,
        out: &mut Vec<u8>,
    ) {
        // Where all wait for all, some inputs are final long before they act: whoever watches with a
        // delay counts from what acts now.
        let newest = if self.behind > 0 {
            newest.min(core.timeline.simulated())
        } else {
            newest
        };
        let reference = newest
            .minus(self.behind.saturating_sub(since_end))
            .max(self.exchange.newest_base());
        let (exchange, known, theirs) = (&mut self.exchange, &core.known, &core.submitted);
        let own = self.peer.slot.map(|slot| (slot, theirs));
        let shape = Shape {
            reference,
            uneven,
            own,
        };
        let too_far = &mut self.is_too_far_behind;
        self.peer.pack(
            now,
            core.clock.due(Tick::ZERO),
            Some(reference),
            |seq, room, out| {
                if exchange.write(seq, shape, known, room, out).is_err() {
                    *too_far = true;
                }
            },
            out,
        );
    }
}
