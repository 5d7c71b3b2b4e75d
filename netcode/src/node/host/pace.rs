//! When ticks run, and whose inputs act on them.

use super::{Host, at_before};
use crate::id::{Path, Slot};
use crate::node::api::Event;
use crate::node::core::{Core, Todo};
use crate::node::seat::Source;
use crate::session::config::{Gate, Start};
use crate::session::control::Control;
use crate::tick::Tick;
use crate::time::Time;

/// Ticks by which absences are settled ahead of time, where everyone waits for everyone.
const ABSENCE_TICKS: u32 = 16;

/// Microseconds that the start waits for round trips to be measured.
const MEASURING_US: u64 = 2_000_000;

/// Microseconds from the last player's arrival to the first tick, at least.
const START_LEAD_US: u64 = 300_000;

impl Host {
    pub(super) fn try_start(&mut self, core: &mut Core, now: Time) {
        if self.started {
            return;
        }
        let Some(at) = self.start_at else {
            let is_complete = match self.config.start {
                Start::Players(players) => core.roster.players() >= usize::from(players),
                Start::Manual => self.manual_start,
            };
            if !is_complete {
                self.complete_since = None;
                return;
            }
            // Round trips should be known, so that everyone's first inputs are in time; but nobody
            // keeps the others from starting by staying silent.
            let since = *self.complete_since.get_or_insert(now);
            let measured = self
                .guests
                .values()
                .all(|guest| guest.peer.rtt.smoothed_us().is_some());
            if measured || now.micros_since(since) > MEASURING_US {
                let trips = self
                    .guests
                    .values()
                    .filter_map(|guest| guest.peer.rtt.smoothed_us());
                let lead = START_LEAD_US + 2 * trips.max().unwrap_or(0);
                let at = now.plus_micros(lead);
                self.start_at = Some(at);
                for guest in self.guests.values_mut() {
                    guest.tell(&Control::Start(at.micros()));
                }
                core.clock
                    .jump(Tick::ZERO, at_before(at, core.rate.tick_us()));
                self.begin(core);
            }
            return;
        };
        if at <= now {
            self.started = true;
            core.report(Event::Started);
        }
    }

    /// Lets everyone who is there play from the first tick on.
    pub(super) fn begin(&mut self, core: &mut Core) {
        if let Some(slot) = self.own_slot {
            let seat = &mut self.seats[slot.index()];
            if let Some(holder) = &mut seat.holder {
                holder.from = Some(Tick::new(1));
                holder.inputs_from = Tick::new(1);
            }
            core.submitted.start(slot, Tick::ZERO);
            if !self.is_paced() {
                let trips = self
                    .guests
                    .values()
                    .filter_map(|guest| guest.peer.rtt.smoothed_us());
                let one_way = trips.max().unwrap_or(0) / 2;
                let ticks = core.rate.ticks_in_us_ceil(one_way) + 1;
                self.delay
                    .guess(ticks.saturating_sub(core.timeline.prediction()));
                core.prefill(slot, Tick::new(self.delay.ticks()));
            }
        }
        let paths: Vec<Path> = self.guests.keys().copied().collect();
        for path in paths {
            self.activate(core, path);
        }
        if !self.is_paced() {
            self.settle_absences(core, Tick::ZERO);
            core.slots().for_each(|slot| self.adopt(core, slot));
        }
    }

    /// Runs what may run.
    pub(in crate::node) fn advance(&mut self, core: &mut Core, now: Time) {
        match self.config.gate {
            Gate::Paced => self.advance_paced(core, now),
            Gate::Wait { .. } => self.advance_waiting(core, now),
        }
        if core.is_over() && self.ended_at.is_none() {
            self.ended_at = Some(now);
            let tick = core.timeline.settled();
            core.report(Event::Ended { tick });
            if self.audience.is_some() {
                core.todo.push_back(Todo::Hash(tick));
            }
        }
    }

    pub(super) fn advance_paced(&mut self, core: &mut Core, now: Time) {
        if self.started {
            core.forgive(now);
        }
        while self.ticks_are_due(core, now) {
            let tick = core.clock.tick().next();
            if self.asks_for_input(core, tick) {
                return;
            }
            for slot in core.slots() {
                let seat = &mut self.seats[slot.index()];
                let policy = self.config.late_policy;
                let source = seat.finalize(slot, tick, policy, &core.submitted, &mut core.known);
                if source == Source::Replaced
                    && let Some(path) = seat.holder.as_ref().and_then(|holder| holder.path)
                    && let Some(guest) = self.guests.get_mut(&path)
                {
                    guest.peer.statistics.inputs_late += 1;
                    guest.peer.want_clock();
                    if let Some(control) = guest.listener.as_mut().and_then(|it| it.replace(tick)) {
                        guest.tell(&control);
                    }
                }
            }
            if core.timeline.simulated() < tick {
                core.step(tick, self.own_slot);
            } else {
                // It ran on guesses, before this node hosted.
                core.settle(tick, self.own_slot);
            }
            self.publish_if_due(core, tick);
            self.stream_if_due(core, tick);
            self.tick_done(core, now);
        }
    }

    pub(super) fn advance_waiting(&mut self, core: &mut Core, now: Time) {
        let own = self.own_slot;
        while self.ticks_are_due(core, now) {
            let tick = core.clock.tick().next();
            self.settle_absences(core, tick);
            if self.asks_for_input(core, tick.plus(self.delay.ticks())) {
                return;
            }
            for slot in core.slots() {
                self.adopt(core, slot);
            }
            let confirmed = self.confirmed(core);
            core.settle(confirmed, own);
            if !core.timeline.may_step(confirmed) {
                let due = core.clock.next_due();
                let first = core.stalled_since.is_none();
                core.stall(now, due);
                if first {
                    let slots = self.missing(core, tick);
                    for guest in self.guests.values_mut() {
                        let is_awaited =
                            guest.peer.slot.is_some_and(|slot| slots & slot.bit() != 0);
                        guest.peer.statistics.stalls += u64::from(is_awaited);
                    }
                    core.report(Event::Stalled { tick, slots });
                }
                self.drop_slowest(core, now, tick);
                return;
            }
            if let Some(since) = core.stalled_since {
                core.unstall(now);
                core.clock.hold(now);
                let stalled_us = now.micros_since(since);
                core.report(Event::Resumed { stalled_us });
                // The others follow this clock.
                self.guests
                    .values_mut()
                    .for_each(|guest| guest.peer.want_clock());
            }
            core.step(confirmed, own);
            self.tick_done(core, now);
        }
        if self.started && !self.is_frozen() {
            let tick = core.clock.tick();
            if self.hands_over_at().is_some_and(|at| tick >= at) {
                // No later tick is due here, but what ran on guesses has to become final.
                self.settle_absences(core, tick);
                core.slots().for_each(|slot| self.adopt(core, slot));
            }
            let confirmed = self.confirmed(core);
            core.settle(confirmed, own);
        }
    }

    pub(super) fn ticks_are_due(&self, core: &Core, now: Time) -> bool {
        self.started
            && core.awaited.is_none()
            && core.is_within(core.clock.tick().next())
            && core.clock.is_due(now)
            && self.may_order(core, now)
    }

    /// Asks for the host's own inputs up to `tick`; true if it must wait for the answer.
    pub(super) fn asks_for_input(&self, core: &mut Core, tick: Tick) -> bool {
        let Some(slot) = self.own_slot else {
            return false;
        };
        if core.submitted.newest(slot) >= tick {
            return false;
        }
        core.awaited = Some(tick);
        core.todo.push_back(Todo::Sample(tick));
        true
    }

    pub(super) fn tick_done(&mut self, core: &mut Core, now: Time) {
        core.clock.advance();
        self.pace_recovery(core, now);
        core.transmitted_at = now;
        for guest in self.guests.values_mut() {
            guest.due = true;
        }
    }

    /// The tick up to which all inputs are final.
    pub(super) fn confirmed(&self, core: &Core) -> Tick {
        core.slots()
            .map(|slot| core.known.newest(slot))
            .min()
            .unwrap_or(Tick::ZERO)
    }

    pub(super) fn missing(&self, core: &Core, tick: Tick) -> u64 {
        core.slots()
            .filter(|&slot| core.known.newest(slot) < tick)
            .fold(0, |mask, slot| mask | slot.bit())
    }

    /// Slots without a player are absent for some ticks to come, so that nobody waits to hear it.
    pub(super) fn settle_absences(&self, core: &mut Core, tick: Tick) {
        let end = self.hands_over_at().unwrap_or(Tick::MAX);
        for slot in core.slots() {
            let from = match &self.seats[slot.index()].holder {
                None => Tick::MAX,
                Some(holder) => holder.from.unwrap_or(Tick::MAX),
            };
            let upto = tick.plus(ABSENCE_TICKS).min(from.previous()).min(end);
            while core.known.newest(slot) < upto {
                let next = core.known.newest(slot).next();
                core.known.push(slot, next, None);
            }
        }
    }

    /// Where all wait for all, a received input is final.
    pub(super) fn adopt(&self, core: &mut Core, slot: Slot) {
        let Some(holder) = &self.seats[slot.index()].holder else {
            return;
        };
        let Some(from) = holder.from else { return };
        let mut tick = core.known.newest(slot).next();
        let end = self.hands_over_at().unwrap_or(Tick::MAX);
        while tick >= from && tick <= end {
            if tick <= core.submitted.newest(slot) {
                core.known
                    .push(slot, tick, core.submitted.get(slot, tick).bytes());
            } else if tick >= holder.inputs_from
                && let Some(input) = holder.early.get(tick)
            {
                core.known.push(slot, tick, Some(input));
            } else {
                return;
            }
            tick = tick.next();
        }
    }

    /// Lets the slot of a member that has caught up take part.
    pub(super) fn activate(&mut self, core: &mut Core, path: Path) {
        let Some(guest) = self.guests.get_mut(&path) else {
            return;
        };
        let Some(slot) = guest.peer.slot else { return };
        if guest.exchange.expects(slot) {
            return;
        }
        let Some(holder) = &mut self.seats[slot.index()].holder else {
            return;
        };
        // Late enough that the member hears of it in time, also when one datagram is lost.
        let rtt_us = guest.peer.rtt.smoothed_us().unwrap_or(200_000);
        let lead = core.rate.ticks_in_us_ceil(2 * rtt_us + 100_000);
        let at = core.clock.tick().max(core.known.newest(slot)).plus(lead);
        let first = if core.clock.tick() == Tick::ZERO {
            // Or as soon as its absence is not settled, where that was told ahead of time.
            core.known.newest(slot).next()
        } else {
            at
        };
        if holder.from.is_none() {
            holder.from = Some(first);
        }
        holder.inputs_from = first;
        guest.exchange.expect(slot, first.previous());
        core.submitted.start(slot, first.previous());
        guest.tell(&Control::Activate(first.number()));
    }

    /// Notes how early new inputs are, and asks for a report when they are not.
    pub(super) fn measure_margins(
        &mut self,
        core: &Core,
        now: Time,
        path: Path,
        slot: Slot,
        before: Tick,
    ) {
        // What is late for a tick that was due before this node hosted says nothing of the path.
        if self.audience.is_some() && self.recovers() {
            return;
        }
        // Where all wait for all, an input must also reach the farthest other client in time.
        let relay_us = if self.is_paced() {
            0
        } else {
            let others = self.guests.iter().filter(|(other, _)| **other != path);
            others
                .filter_map(|(_, guest)| guest.peer.rtt.min_us())
                .max()
                .unwrap_or(0)
                / 2
        };
        let Some(guest) = self.guests.get_mut(&path) else {
            return;
        };
        let newest = core.submitted.newest(slot);
        let first = before.number().max(newest.number().saturating_sub(16)) + 1;
        for number in first..=newest.number() {
            let due = core.clock.due(Tick::new(number));
            let margin_us = due.micros_from(now.plus_micros(relay_us));
            let margin =
                margin_us.saturating_mul(16) / i64::try_from(core.rate.tick_us()).unwrap_or(1);
            guest.peer.margins.push(margin);
            if margin < 4 {
                guest.peer.want_clock();
            }
        }
    }
}
