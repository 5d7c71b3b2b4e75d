//! What a client sends, and when it is due next.

use super::{Client, Phase};
use crate::id::Path;
use crate::lockstep::Shape;
use crate::node::core::Core;
use crate::session::bulk::BulkSender;
use crate::session::statistics::Body;
use crate::tick::Tick;
use crate::time::Time;
use crate::wire::header::kind;

impl Client {
    pub(in crate::node) fn poll_transmit(
        &mut self,
        core: &mut Core,
        now: Time,
        out: &mut Vec<u8>,
    ) -> Option<Path> {
        let path = self.next_datagram(core, now, out)?;
        core.statistics.datagrams_sent += 1;
        core.statistics.bytes_sent += out.len() as u64;
        // Tick datagrams are counted where they are packed.
        if let Some(body) = out.first().and_then(|&first| Body::of_kind(first)) {
            self.peer.statistics.count_sent(body, out.len());
        }
        Some(path)
    }

    fn next_datagram(&mut self, core: &mut Core, now: Time, out: &mut Vec<u8>) -> Option<Path> {
        if let Some(path) = self.poll_return(core, now, out) {
            return Some(path);
        }
        if let Some(bytes) = self.outgoing.pop_front() {
            out.extend_from_slice(&bytes);
            return Some(self.path);
        }
        if self.phase != Phase::Inside {
            return None;
        }
        if now.micros_since(core.transmitted_at) >= self.pause_us(core) {
            core.transmitted_at = now;
            self.due = true;
        }
        if core::mem::take(&mut self.due) {
            self.write(core, now, out);
            return Some(self.path);
        }
        if let Some((_, receiver)) = &mut self.receiver {
            out.push(kind::BULK_ACK);
            if receiver.write_ack(now, out) {
                return Some(self.path);
            }
            out.clear();
        }
        if let Some(standby) = &mut self.standby
            && standby.write_ack(now, out)
        {
            return Some(self.path);
        }
        if let Some(report) = &mut self.report {
            out.push(kind::BULK);
            if report.next_chunk(now, out) {
                return Some(self.path);
            }
            out.clear();
        }
        None
    }

    fn write(&mut self, core: &mut Core, now: Time, out: &mut Vec<u8>) {
        let slot = self.peer.slot.filter(|_| self.active_from.is_some());
        let newest = slot.map(|slot| core.submitted.newest(slot));
        let reference = newest.unwrap_or_default();
        let shape = Shape {
            reference,
            uneven: false,
            own: None,
        };
        let exchange = &mut self.exchange;
        if let Some(follower) = &mut self.follower
            && slot.is_some()
        {
            let seq = self.peer.next_seq();
            let claims = &mut follower.decided.claims;
            claims.write(seq, &mut self.peer.claims_due);
        }
        let mut is_forgotten = false;
        self.peer.pack(
            now,
            core.clock.due(Tick::ZERO),
            newest,
            |seq, room, out| {
                let result = exchange.write(seq, shape, &core.submitted, room, out);
                is_forgotten = result.is_err();
            },
            out,
        );
        if is_forgotten {
            self.rejoin(core, now, self.path);
        }
    }

    pub(super) fn pause_us(&self, core: &Core) -> u64 {
        let tick_us = core.rate.tick_us();
        if !self.running || self.ended_at.is_some() {
            tick_us
        } else {
            tick_us + tick_us / 2
        }
    }

    pub(in crate::node) fn poll_timeout(&self, core: &Core) -> Time {
        let next = self.next_time(core);
        match self.next_return() {
            Some(at) if self.phase != Phase::Over => next.min(at),
            _ => next,
        }
    }

    fn next_time(&self, core: &Core) -> Time {
        match &self.phase {
            Phase::Asking { next_at, .. } => *next_at,
            Phase::Over => Time::FAR,
            Phase::Inside => {
                let mut next = core.transmitted_at.plus_micros(self.pause_us(core));
                let held = self.waits && core.stalled_since.is_some();
                if self.running && core.awaited.is_none() && !held {
                    let over = self.waits && !core.is_within(core.clock.tick().next());
                    if !over {
                        next = next.min(core.clock.next_due());
                    }
                }
                if let Some(at) = self.report.as_ref().and_then(BulkSender::next_time) {
                    next = next.min(at);
                }
                if let Some((_, receiver)) = &self.receiver
                    && let Some(at) = receiver.next_ack_time()
                {
                    next = next.min(at);
                }
                next
            }
        }
    }
}
