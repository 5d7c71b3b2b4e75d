//! What a client shows of others: states of the host, played out evenly.
//!
//! Snapshots arrive in bursts, late or not at all. A [`View`] shows a moment that lies far enough
//! behind the newest one that nearly always the two snapshots around it are here, and mixes their
//! values as each field asks. It is presentation: nothing of it enters the state.
//!
//! # How far behind
//! Until a snapshot arrives, nothing later than the one before it may be shown. Each arrival thus
//! says how far behind the clock the view should have been; the largest of the recent ones, but
//! for a few outliers, is where the view goes. It moves there by running a little faster or slower,
//! and jumps only over large gaps. A lost snapshot counts like a late one.

mod blend;

use std::collections::VecDeque;
use std::sync::Arc;

pub use blend::{Blend, Floats};

use crate::id::NetId;
use crate::state::{EntityRef, KindPart, QuantizedSnapshot, Schema, Shapes, WireLayout, parts_of};
use crate::tick::{Tick, TickRate};
use crate::time::Time;

/// Arrivals that are remembered.
const ARRIVALS: usize = 128;
/// One in so many arrivals may come too late to be waited for.
const OUTLIER: usize = 50;
/// A gap of more snapshot distances than this is no jitter: nothing was sent.
const GAP_MAX: i64 = 8;
/// The clock runs at most this much too fast or too slow, in millionths.
const SLEW_PPM: i64 = 60_000;
/// A difference beyond this is jumped over.
const JUMP_US: i64 = 300_000;
/// Waited for in addition, so that the next snapshot is here a little before it is needed.
const SAFETY_US: i64 = 4_000;

/// Shows the states that a client has received; see the module.
#[derive(Debug)]
pub struct View {
    rate: TickRate,
    /// By kind.
    blends: Vec<Blend>,
    /// Of each arrival, the tick's time that could be shown until then, minus the clock.
    arrivals: VecDeque<i64>,
    sorted: Vec<i64>,
    newest: Option<Tick>,
    /// Ticks between the two newest snapshots, as a time.
    distance_us: i64,
    /// The tick's time that is shown, minus the clock, and the moment of the last update.
    offset: Option<i64>,
    at: Time,
    older: Option<Side>,
    newer: Option<Side>,
    /// From `older`, 0, to `newer`, 1.
    part: f32,
    shown: Option<Shown>,
}

#[derive(Clone, Debug)]
struct Side {
    tick: Tick,
    snapshot: Arc<QuantizedSnapshot>,
}

/// The moment that a view shows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shown {
    /// The last whole tick.
    pub tick: Tick,
    /// How far it is on the way to the next one, 0 to 1.
    pub fraction: f32,
}

/// How to read the values of a [`View`]: the tables of the node that received them.
#[derive(Clone, Copy, Debug)]
pub struct Tables<'a> {
    /// How values lie in rows.
    pub layout: &'a WireLayout,
    /// How rows lie in entities.
    pub shapes: &'a Shapes,
}

impl View {
    /// A view of states of `schema`.
    #[must_use]
    pub fn new(schema: &Schema, rate: TickRate) -> Self {
        Self {
            rate,
            blends: schema.kinds().iter().map(Blend::new).collect(),
            arrivals: VecDeque::with_capacity(ARRIVALS),
            sorted: Vec::with_capacity(ARRIVALS),
            newest: None,
            distance_us: 0,
            offset: None,
            at: Time::ZERO,
            older: None,
            newer: None,
            part: 0.0,
            shown: None,
        }
    }

    /// Moves on to `now`. `received` are the states at hand, oldest first: tick, when it arrived,
    /// values.
    pub fn update<'a>(
        &mut self,
        now: Time,
        received: impl Iterator<Item = (Tick, Time, &'a Arc<QuantizedSnapshot>)> + Clone,
    ) {
        let mut before = None;
        for (tick, arrived_at, snapshot) in received.clone() {
            let is_same = before.is_some_and(|before| Arc::ptr_eq(before, snapshot));
            self.note_arrival(tick, arrived_at, is_same);
            before = Some(snapshot);
        }
        let Some(newest) = self.newest else { return };
        let elapsed = i64::try_from(now.micros_since(self.at)).unwrap_or(i64::MAX);
        self.at = now;
        let target = self.target();
        let offset = match self.offset {
            Some(offset) if (target - offset).abs() <= JUMP_US => {
                let step = elapsed.min(JUMP_US) * SLEW_PPM / 1_000_000;
                offset + (target - offset).clamp(-step, step)
            }
            Some(_) | None => target,
        };
        self.offset = Some(offset);
        let clock = i64::try_from(now.micros()).unwrap_or(i64::MAX);
        let shown_us = clock.saturating_add(offset).clamp(0, self.time_of(newest));
        self.older = None;
        self.newer = None;
        for (tick, _, snapshot) in received {
            let side = Side {
                tick,
                snapshot: Arc::clone(snapshot),
            };
            if self.time_of(tick) <= shown_us || self.older.is_none() {
                self.older = Some(side);
            } else {
                self.newer = Some(side);
                break;
            }
        }
        self.place(shown_us);
    }

    fn note_arrival(&mut self, tick: Tick, arrived_at: Time, is_same: bool) {
        let Some(newest) = self.newest else {
            self.newest = Some(tick);
            let arrived = i64::try_from(arrived_at.micros()).unwrap_or(i64::MAX);
            self.arrivals.push_back(self.time_of(tick) - arrived);
            return;
        };
        if tick <= newest {
            return;
        }
        let until = self.time_of(newest);
        let distance = self.time_of(tick) - until;
        self.newest = Some(tick);
        if self.distance_us == 0 || distance < self.distance_us {
            self.distance_us = distance;
        }
        // Nothing was missed by showing for too long what has not changed; and a host with nothing
        // to say says so less often.
        if is_same || distance > self.distance_us.saturating_mul(GAP_MAX) {
            return;
        }
        if self.arrivals.len() >= ARRIVALS {
            self.arrivals.pop_front();
        }
        let arrived = i64::try_from(arrived_at.micros()).unwrap_or(i64::MAX);
        self.arrivals.push_back(until.saturating_sub(arrived));
    }

    /// Where the clock of the view should be, relative to the time.
    fn target(&mut self) -> i64 {
        self.sorted.clear();
        self.sorted.extend(&self.arrivals);
        self.sorted.sort_unstable();
        let outliers = self.sorted.len() / OUTLIER;
        let allowed = self.sorted.get(outliers).copied().unwrap_or(0);
        allowed - SAFETY_US
    }

    fn time_of(&self, tick: Tick) -> i64 {
        let us = u64::from(tick.number()) * 1_000_000 / u64::from(self.rate.hz());
        i64::try_from(us).unwrap_or(i64::MAX)
    }

    /// Sets what lies at `shown_us`.
    fn place(&mut self, shown_us: i64) {
        let Some(older) = &self.older else { return };
        let from = self.time_of(older.tick);
        self.part = self.newer.as_ref().map_or(0.0, |newer| {
            ratio(shown_us - from, self.time_of(newer.tick) - from)
        });
        // A view of less than there is shows the oldest state.
        let shown_us = shown_us.max(from);
        let ticks = shown_us.saturating_mul(i64::from(self.rate.hz())) / 1_000_000;
        let tick = Tick::new(u32::try_from(ticks).unwrap_or(u32::MAX));
        let tick_us = 1_000_000 / i64::from(self.rate.hz()).max(1);
        self.shown = Some(Shown {
            tick,
            fraction: ratio(shown_us - self.time_of(tick), tick_us),
        });
    }

    /// The moment that is shown; `None` before anything arrived.
    #[must_use]
    pub fn shown(&self) -> Option<Shown> {
        self.shown
    }

    /// The entities that are shown, by NetId ascending.
    pub fn ids(&self) -> impl Iterator<Item = NetId> {
        let older = self.older.iter();
        let heads = older.flat_map(|older| older.snapshot.heads());
        heads.map(|head| head.id).filter(|id| !id.is_none())
    }

    /// Appends the row of kind number `kind` of the entity `id` ([`NetId::NONE`] for a resource) as
    /// it is shown, in its exact form. `false`, and nothing appended, if it has none.
    pub fn row(&self, tables: Tables<'_>, id: NetId, kind: u16, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        let Some(older) = &self.older else {
            return false;
        };
        let Some(from) = older.snapshot.find(id) else {
            return false;
        };
        let Some(then) = part_of(tables, &from, kind) else {
            return false;
        };
        let Some(layout) = tables.layout.kind(kind) else {
            return false;
        };
        if layout
            .dequantize(then.lanes, &mut { then.opaque }, out)
            .is_err()
        {
            out.truncate(start);
            return false;
        }
        let blend = self.blends.get(usize::from(kind));
        if let (Some(newer), Some(blend)) = (&self.newer, blend)
            && self.part > 0.0
            && !blend.is_empty()
            && let Some(to) = newer.snapshot.find(id)
            && let Some(next) = part_of(tables, &to, kind)
            && next.lanes != then.lanes
        {
            let mut row = Vec::with_capacity(out.len() - start);
            if layout
                .dequantize(next.lanes, &mut { next.opaque }, &mut row)
                .is_ok()
            {
                blend.mix(&mut out[start..], &row, self.part);
            }
        }
        true
    }
}

fn part_of<'a>(tables: Tables<'a>, entity: &EntityRef<'a>, kind: u16) -> Option<KindPart<'a>> {
    let mut parts = parts_of(tables.layout, tables.shapes, *entity);
    parts.find_map(|part| part.ok().filter(|part| part.kind == kind))
}

/// `part / whole` as a number from 0 to 1.
fn ratio(part: i64, whole: i64) -> f32 {
    if whole <= 0 {
        return 0.0;
    }
    #[expect(
        clippy::cast_precision_loss,
        reason = "a place between two snapshots, for the eye"
    )]
    let ratio = part as f32 / whole as f32;
    ratio.clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests;
