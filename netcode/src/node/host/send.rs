//! What a host sends to whom, and when.

use super::Host;
use crate::id::Path;
use crate::node::core::Core;
use crate::session::bulk::BulkSender;
use crate::session::statistics::Body;
use crate::time::Time;
use crate::wire::header::kind;

impl Host {
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
        if let Some(body) = out.first().and_then(|&first| Body::of_kind(first))
            && let Some(guest) = self.guests.get_mut(&path)
        {
            guest.peer.statistics.count_sent(body, out.len());
        }
        Some(path)
    }

    fn next_datagram(&mut self, core: &mut Core, now: Time, out: &mut Vec<u8>) -> Option<Path> {
        if self.is_frozen() {
            return None;
        }
        if let Some((path, bytes)) = self.outgoing.pop_front() {
            out.extend_from_slice(&bytes);
            return Some(path);
        }
        if let Some(path) = self.doctor.poll_ack(now, out) {
            return Some(path);
        }
        // After the last tick, those who watch with a delay see the rest.
        let since_end = self
            .ended_at
            .map_or(0, |at| core.rate.ticks_in_us_ceil(now.micros_since(at)));
        if now.micros_since(core.transmitted_at) >= self.pause_us(core) {
            core.transmitted_at = now;
            if since_end > 0
                && let Some(audience) = &mut self.audience
            {
                let last = core.timeline.simulated();
                audience.release(last, since_end, self.guests.values_mut());
            }
            if let Some(stream) = &mut self.stream {
                stream.repeat(&mut self.guests);
            }
            for guest in self.guests.values_mut() {
                guest.due = true;
            }
        }
        let newest = core
            .slots()
            .map(|slot| core.known.newest(slot))
            .max()
            .unwrap_or_default();
        let uneven = !self.is_paced();
        for (path, guest) in &mut self.guests {
            if core::mem::take(&mut guest.due) {
                if let Some(audience) = &mut self.audience {
                    audience.tell_final(guest, now);
                    if audience.is_due(guest, core) {
                        audience.write(guest, core, now, since_end, out);
                        return Some(*path);
                    }
                } else {
                    guest.write(core, now, newest, since_end, uneven, out);
                    if guest.is_too_far_behind {
                        // No batch was written, and its absence means "nothing has changed".
                        out.clear();
                        continue;
                    }
                    return Some(*path);
                }
            }
            if let Some(stream) = &mut self.stream
                && stream.write(guest.peer.member, out)
            {
                return Some(*path);
            }
            if let Some(transfer) = &mut guest.transfer
                && core.clock.tick() >= guest.state_not_before
            {
                out.push(kind::BULK);
                if transfer.next_chunk(now, out) {
                    return Some(*path);
                }
                out.clear();
            }
        }
        None
    }

    /// Longest time between two datagrams: a tick, or a little more where ticks themselves send.
    fn pause_us(&self, core: &Core) -> u64 {
        let tick_us = core.rate.tick_us();
        if !self.started || core.is_over() {
            tick_us
        } else {
            tick_us + tick_us / 2
        }
    }

    pub(in crate::node) fn poll_timeout(&self, core: &Core) -> Time {
        if self.is_frozen() {
            return Time::FAR;
        }
        let mut next = core.transmitted_at.plus_micros(self.pause_us(core));
        if let (Some(at), false) = (self.start_at, self.started) {
            next = next.min(at);
        }
        let ticks = self.started && core.awaited.is_none() && core.stalled_since.is_none();
        if ticks && core.is_within(core.clock.tick().next()) {
            next = next.min(self.next_tick_at(core));
        }
        for guest in self.guests.values() {
            let transfer = guest.transfer.as_ref();
            if let Some(at) = transfer.and_then(BulkSender::next_time)
                && core.clock.tick() >= guest.state_not_before
            {
                next = next.min(at);
            }
        }
        next
    }
}
