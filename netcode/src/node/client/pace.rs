//! When ticks run, and how the clock follows the host.

use super::{Client, Phase, switch::UNSAFE_TICKS_MAX};
use crate::limits::{CATCH_UP_US_MAX, INPUT_HISTORY_TICKS_MAX};
use crate::node::api::Event;
use crate::node::core::{Core, Todo};
use crate::session::clock::offset_of;
use crate::tick::Tick;
use crate::time::Time;

/// Microseconds by which frames shall be there before they are due.
const FRAME_MARGIN_US: i64 = 2_000;

impl Client {
    /// Begins to run ticks as soon as it is known when they are due.
    pub(super) fn try_run(&mut self, core: &mut Core, now: Time) {
        if self.running || self.needs_state || self.state.is_some() {
            return;
        }
        let (Some(at_us), Some(ahead_us)) = (self.start_at_us, self.peer.clock_offset_us) else {
            return;
        };
        let to_local = |us: u64| {
            let local = i64::try_from(us)
                .unwrap_or(i64::MAX)
                .saturating_sub(ahead_us);
            Time::from_micros(u64::try_from(local).unwrap_or(0))
        };
        if core.timeline.simulated() == Tick::ZERO && core.clock.tick() == Tick::ZERO {
            let trip_us = self.peer.rtt.min_us().unwrap_or(0);
            let first = to_local(at_us);
            let wait_us = if self.waits {
                0
            } else {
                trip_us / 2 + core.rate.tick_us() / 4
            };
            let ahead_us = u64::from(self.ahead(core.timeline.prediction())) * core.rate.tick_us();
            let tick_us = core.rate.tick_us();
            let zero = first
                .micros()
                .saturating_add(wait_us)
                .saturating_sub(tick_us + ahead_us);
            core.clock.jump(Tick::ZERO, Time::from_micros(zero));
            core.report(Event::Started);
        } else if let Some(offset) = self.target(core) {
            let elapsed = now.micros_from(Time::ZERO).saturating_sub(offset);
            let ticks = u64::try_from(elapsed).unwrap_or(0);
            let ticks = ticks.saturating_mul(u64::from(core.rate.hz())) / 1_000_000;
            let tick = Tick::new(u32::try_from(ticks).unwrap_or(u32::MAX));
            // Whoever is further behind than history reaches cannot catch up; and no host may make
            // this node ask for inputs without end.
            let settled = core.timeline.settled();
            let latest = settled.plus(INPUT_HISTORY_TICKS_MAX);
            core.clock.jump(tick.clamp(settled, latest), now);
            core.clock.steer(offset);
        } else {
            return;
        }
        self.running = true;
    }

    /// Where the clock should be, as an offset of its tick 0.
    pub(super) fn target(&self, core: &Core) -> Option<i64> {
        if self.waits {
            // The host's own ticks: everyone runs the same tick at the same time.
            let zero_us = i64::try_from(self.peer.zero_us?).ok()?;
            return Some(zero_us.saturating_sub(self.peer.clock_offset_us?));
        }
        let arrival = if self.follower.is_some() {
            // Nothing waits for the host's ticks: the earliest tells best how late it is there.
            self.arrivals.min()?
        } else {
            // The latest of the last four seconds: a jitter buffer as deep as the losses were long.
            self.arrivals.max()?
        };
        let ahead = self.ahead(core.timeline.prediction());
        let ahead_us = i64::try_from(u64::from(ahead) * core.rate.tick_us()).unwrap_or(0);
        Some(arrival + FRAME_MARGIN_US - ahead_us)
    }

    pub(super) fn steer(&self, core: &mut Core) {
        if self.running
            && (self.waits || self.arrivals.len() >= 8)
            && let Some(offset) = self.target(core)
        {
            core.clock.steer(offset);
        }
    }

    /// Ticks of the lead that prediction covers; input delay covers the rest.
    pub(super) fn ahead(&self, prediction: u32) -> u32 {
        if self.waits {
            return 0;
        }
        let lead = self.delay.ticks();
        lead.saturating_sub(self.config.input_delay.min())
            .min(prediction)
    }

    /// Runs what may run.
    pub(in crate::node) fn advance(&mut self, core: &mut Core, now: Time) {
        if self.phase == Phase::Inside && self.running {
            if self.follower.is_some() {
                self.advance_following(core, now);
            } else if self.waits {
                self.advance_waiting(core, now);
            } else {
                self.advance_paced(core, now);
            }
            self.take_state(core);
            self.say_ready(core);
            let is_told = self.follower.as_ref().is_none_or(|it| it.is_final());
            if core.is_over() && self.ended_at.is_none() && self.state.is_none() && is_told {
                self.ended_at = Some(now);
                let tick = core.timeline.settled();
                core.report(Event::Ended { tick });
            }
        } else if self.phase == Phase::Inside {
            self.take_over(core, now);
            self.say_ready(core);
        }
    }

    pub(super) fn advance_paced(&mut self, core: &mut Core, now: Time) {
        let own = self.peer.slot;
        // The host's ticks went on: those that nobody ran here are made up for without inputs.
        core.clock.skip(now, CATCH_UP_US_MAX);
        while core.awaited.is_none() && core.clock.is_due(now) {
            let tick = core.clock.tick().next();
            if self.asks_for_input(core, tick.plus(self.input_delay())) {
                return;
            }
            core.clock.advance();
            core.transmitted_at = now;
            self.due = true;
            self.run(core, now, self.config.catch_up_ticks.max(1));
            let confirmed = self.confirmed(core);
            let late = core.timeline.simulated() < tick && core.is_within(tick);
            if late && !core.timeline.may_step(confirmed) && self.stalled_at < tick {
                self.stalled_at = tick;
                let first = core.stalled_since.is_none();
                core.stall(now, now);
                if first {
                    self.peer.statistics.stalls += 1;
                    core.report(Event::Stalled {
                        tick: confirmed.next(),
                        slots: 0,
                    });
                }
            }
        }
        let confirmed = self.confirmed(core);
        core.settle(confirmed, own);
        if core.stalled_since.is_some() {
            self.run(core, now, self.config.catch_up_ticks.max(1));
        }
    }

    /// Runs ticks up to the clock's, at most `budget`.
    pub(super) fn run(&mut self, core: &mut Core, now: Time, budget: u32) {
        let own = self.peer.slot;
        let confirmed = self.confirmed(core);
        core.settle(confirmed, own);
        for _ in 0..budget {
            let tick = core.timeline.simulated().next();
            if tick > core.clock.tick()
                || !core.is_within(tick)
                || !core.timeline.may_step(confirmed)
            {
                break;
            }
            core.step(confirmed, own);
        }
        if core.timeline.simulated() >= core.clock.tick()
            && let Some(since) = core.stalled_since
        {
            core.unstall(now);
            core.report(Event::Resumed {
                stalled_us: now.micros_since(since),
            });
        }
    }

    pub(super) fn advance_waiting(&mut self, core: &mut Core, now: Time) {
        let own = self.peer.slot;
        let mut budget = self.config.catch_up_ticks.max(1);
        while core.awaited.is_none() && core.clock.is_due(now) && budget > 0 {
            let tick = core.clock.tick().next();
            if !core.is_within(tick) {
                break;
            }
            if self.asks_for_input(core, tick.plus(self.delay.ticks())) {
                return;
            }
            let confirmed = self.confirmed(core);
            let last = core.final_tick();
            core.settle(last, own);
            // Behind the clock after a join: the ticks in between run first.
            while core.timeline.simulated() < core.clock.tick()
                && core.timeline.may_step(confirmed)
                && budget > 0
            {
                core.step(last, own);
                budget -= 1;
            }
            let is_behind = core.timeline.simulated() < core.clock.tick();
            if is_behind || !core.timeline.may_step(confirmed) {
                let due = core.clock.next_due();
                if core.stalled_since.is_none() && !is_behind {
                    let slots = core
                        .slots()
                        .filter(|&slot| core.known.newest(slot) < tick && Some(slot) != own)
                        .fold(0, |mask, slot| mask | slot.bit());
                    self.peer.statistics.stalls += 1;
                    core.report(Event::Stalled { tick, slots });
                }
                core.stall(now, due);
                return;
            }
            if let Some(since) = core.stalled_since {
                core.unstall(now);
                core.clock.hold(now);
                let stalled_us = now.micros_since(since);
                core.report(Event::Resumed { stalled_us });
            }
            core.step(last, own);
            core.clock.advance();
            core.transmitted_at = now;
            self.due = true;
            budget = budget.saturating_sub(1);
        }
        let last = core.final_tick();
        core.settle(last, own);
    }

    pub(super) fn asks_for_input(&self, core: &mut Core, tick: Tick) -> bool {
        let (Some(slot), Some(from)) = (self.peer.slot, self.active_from) else {
            return false;
        };
        let tick = core.last_tick.map_or(tick, |last| tick.min(last));
        // Far behind, as after a pause: what acts on that tick is known, so nobody is asked.
        let is_settled = !self.waits && core.known.newest(slot) >= tick;
        if core.submitted.newest(slot) >= tick || tick < from || is_settled {
            return false;
        }
        // Where another host may take over, it must be able to take in what is sampled meanwhile.
        let newest = match &self.follower {
            Some(follower) => follower.base().unwrap_or(core.timeline.settled()),
            None => core.final_tick(),
        };
        let limit = newest.plus(UNSAFE_TICKS_MAX);
        if self.settings.is_some() && !self.waits && tick > limit {
            return false;
        }
        let mut next = core.submitted.newest(slot).next().max(from);
        if !self.waits {
            // Nobody is asked for what is settled.
            next = next.max(core.known.newest(slot).next());
        }
        // After a change of host the lead may grow by several ticks, all of which are still to come.
        let may_grow = self.settings.is_some() && self.follower.is_some();
        let is_to_come = may_grow && next > core.clock.tick();
        let tick = if next <= self.samples_all_upto || is_to_come {
            next.min(tick)
        } else {
            tick
        };
        core.awaited = Some(tick);
        core.todo.push_back(Todo::Sample(tick));
        true
    }

    /// The tick up to which all inputs are final, or this node's own.
    pub(super) fn confirmed(&self, core: &Core) -> Tick {
        let own = self
            .peer
            .slot
            .filter(|_| self.waits && self.active_from.is_some());
        core.slots()
            .map(|slot| {
                let known = core.known.newest(slot);
                // Where all wait for all, nobody replaces what this node has submitted.
                if Some(slot) == own {
                    known.max(core.submitted.newest(slot))
                } else {
                    known
                }
            })
            .min()
            .unwrap_or(Tick::ZERO)
    }

    /// The tick up to which the inputs of the others are known.
    pub(super) fn confirmed_by_others(&self, core: &Core) -> Tick {
        let others = core
            .slots()
            .filter(|&slot| !self.waits || Some(slot) != self.peer.slot);
        others
            .map(|slot| core.known.newest(slot))
            .min()
            .unwrap_or(Tick::ZERO)
    }

    /// Notes when frames became known, and how early.
    pub(super) fn note_arrivals(&mut self, core: &mut Core, now: Time) {
        let known = self.confirmed_by_others(core);
        if known > self.frames_upto && !self.is_on_time(core, now, known) {
            self.frames_upto = known;
            return;
        }
        let first = self
            .frames_upto
            .number()
            .max(known.number().saturating_sub(16))
            + 1;
        for number in first..=known.number() {
            let tick = Tick::new(number);
            self.arrivals.push(offset_of(core.rate, tick, now));
            if self.waits && self.running {
                let margin_us = core.clock.due(tick).micros_from(now);
                let tick_us = i64::try_from(core.rate.tick_us()).unwrap_or(1);
                let margin = margin_us.saturating_mul(16) / tick_us;
                self.peer.margins.push(margin);
                if margin < 4 {
                    self.peer.want_clock();
                }
            }
        }
        self.frames_upto = self.frames_upto.max(known);
    }

    /// Tells the game of own inputs that others acted in place of.
    pub(super) fn find_replaced(&mut self, core: &mut Core) {
        self.find_abandoned(core);
        let (Some(slot), Some(from)) = (self.peer.slot, self.active_from) else {
            return;
        };
        let newest = core.known.newest(slot);
        self.checked_own = self.checked_own.max(from.previous());
        while self.checked_own < newest {
            let tick = self.checked_own.next();
            self.checked_own = tick;
            let submitted = core.submitted.get(slot, tick).bytes();
            if submitted.is_some() && submitted != core.known.get(slot, tick).bytes() {
                core.statistics.inputs_replaced += 1;
                core.report(Event::InputReplaced { tick });
            }
        }
    }
}
