//! The choice per snapshot: whole bodies, or parts.

use std::sync::Arc;

use crate::state::QuantizedSnapshot;

use super::super::head::{BODY_REFERENCES_MAX, OTHERS_MAX, REFERENCE_DISTANCES};
use super::super::interest::Sight;
use super::super::publisher::Publisher;
use super::super::records::Records;
use super::{
    BASE_AGE_MAX, BODIES_MAX, Budget, EPOCHS, GHOSTS_MAX, Moment, PARTS_AT_LEAST, Plan,
    Subscription, Unsaid,
};

/// Distances from the base of the references next to it, the most useful first: one that tells of
/// speed, and one that tells of what speed was.
const OTHERS: [&[u32]; OTHERS_MAX] = [&[1, 2], &[4, 3, 5, 6]];

impl Subscription {
    /// Takes in the newest snapshot: what the client sees of it, and how it shall be told.
    pub(super) fn look_at(&mut self, publisher: &mut Publisher, number: u32) {
        let config = publisher.config();
        self.snapshot_ticks = config.snapshot_ticks;
        let passed = self.planned.map_or(1, |before| number - before);
        self.budget
            .get_or_insert_with(|| Budget::new(config.bytes_per_snapshot()))
            .accrue(passed);
        // Nobody said that the snapshot before was calm: that has to be known if this one is not.
        let was_calm = self.is_calm && self.next_body == 0 && passed == 1;
        let before = self.planned.filter(|_| was_calm);
        self.planned = Some(number);
        self.next_body = 0;
        self.plan = Plan::Done;
        self.is_calm = false;
        self.unsaid = None;
        self.choose(publisher, number);
        self.is_calm = self.says_nothing_new(publisher, number);
        if let Some(before) = before.filter(|_| !self.is_calm)
            && let Some(base) = self.base()
            && let base = &self.moments[base]
            && base.number < before
            && publisher.is_same(base.number, before)
            && let mut moments = self.moments.iter().rev()
            && moments.any(|it| it.number == before && it.sight.same(&base.sight))
            && let Ok(age) = u8::try_from(before - base.number)
        {
            self.unsaid = Some(Unsaid {
                number: before,
                age,
            });
        }
    }

    /// Whether the client is known to hold what is planned to be said.
    fn says_nothing_new(&self, publisher: &Publisher, number: u32) -> bool {
        match self.plan {
            Plan::Same { .. } => true,
            Plan::Parts { is_all: true } if self.queue.is_empty() => {
                let (Some(base), Some(now)) = (self.base(), self.moments.back()) else {
                    return false;
                };
                let base = &self.moments[base];
                publisher.is_same(base.number, number) && base.sight.same(&now.sight)
            }
            Plan::Done | Plan::Whole { .. } | Plan::Parts { .. } => false,
        }
    }

    /// Chooses how the newest snapshot is told.
    fn choose(&mut self, publisher: &mut Publisher, number: u32) {
        let sight = publisher.sight(&self.viewer, &mut self.outlook);
        let Some(snapshot) = publisher.snapshot(number).map(Arc::clone) else {
            return;
        };
        self.statistics.in_view = u32::try_from(sight.len(&snapshot)).unwrap_or(u32::MAX);
        self.trim(publisher, number);
        self.is_costly = self.records.is_some() || !matches!(sight, Sight::All);
        if let Some(records) = &mut self.records {
            merge(records, publisher, number, &snapshot, &sight);
            if records.rows().len() > sight.len(&snapshot) + GHOSTS_MAX {
                self.begin_anew();
            }
        }
        self.moments.push_back(Moment {
            number,
            sight,
            last: None,
            acked: 0,
            is_known: false,
        });
        if self.records.is_none() || self.may_try_whole(publisher, number) {
            if let Some(plan) = self.plan_whole(publisher, number) {
                self.records = None;
                self.plan = plan;
                return;
            }
            self.parts_since = number;
            if self.records.is_none() {
                self.begin_parts(publisher);
            }
        }
        if let Some(records) = &mut self.records
            && records.rows().is_empty()
            && let Some(moment) = self.moments.back()
        {
            // It has just begun anew.
            merge(records, publisher, number, &snapshot, &moment.sight);
        }
        self.plan_parts(publisher, number);
    }

    /// Forgets moments that are of no more use. Bodies become parts in time, before something is
    /// forgotten that says what the client may hold.
    fn trim(&mut self, publisher: &mut Publisher, number: u32) {
        let is_old = |moment: &Moment| number - moment.number > BASE_AGE_MAX;
        if self.records.is_none() {
            let first_needed = self.base().unwrap_or(0);
            if self.moments.get(first_needed).is_some_and(is_old) {
                self.parts_since = number;
                self.begin_parts(publisher);
            }
        }
        let keep_from = match (&self.records, self.base()) {
            (Some(_), _) => number.saturating_sub(BASE_AGE_MAX),
            (None, Some(base)) => {
                let [.., furthest] = REFERENCE_DISTANCES;
                self.moments[base].number.saturating_sub(furthest)
            }
            (None, None) => 0,
        };
        while self
            .moments
            .front()
            .is_some_and(|moment| moment.number < keep_from)
        {
            if let Some(moment) = self.moments.pop_front() {
                publisher.recycle(moment.sight);
            }
        }
    }

    /// Makes records from what the client is known to hold, and may hold since.
    fn begin_parts(&mut self, publisher: &Publisher) {
        let base = self.base();
        let mut records = Records::default();
        for (at, moment) in self.moments.iter().enumerate().skip(base.unwrap_or(0)) {
            let Some(snapshot) = publisher.snapshot(moment.number) else {
                // The ring is longer than the moments; if it were not, only a new beginning is safe.
                self.begin_anew();
                return;
            };
            let tick = publisher.stamp(moment.number);
            if base == Some(at) {
                let heads = snapshot.heads();
                let held = moment.sight.entries(snapshot);
                records = Records::holding(
                    held.map(|entry| (heads[entry.index as usize].id, entry.hidden)),
                    tick,
                );
                // Indexes come with the merge.
            }
            records.merge(snapshot, &moment.sight, tick);
            if moment.number != self.planned.unwrap_or(moment.number) {
                records.touch_all();
            }
        }
        self.records = Some(records);
    }

    /// The client shall forget everything.
    fn begin_anew(&mut self) {
        self.epoch = (self.epoch + 1) % EPOCHS;
        self.statistics.resets += 1;
        self.sent.clear();
        self.unsaid = None;
        let now = self.moments.pop_back();
        self.moments.clear();
        if let Some(now) = now.filter(|now| Some(now.number) == self.planned) {
            self.moments.push_back(now);
        }
        self.records = Some(Records::default());
    }

    /// Whether bodies that were parts may become whole again.
    fn may_try_whole(&self, publisher: &Publisher, number: u32) -> bool {
        let Some(base) = self.base() else {
            return false;
        };
        let base = &self.moments[base];
        let since = number - self.parts_since;
        // Not at every snapshot, for it means to look at everything.
        if since == 0 || !since.is_multiple_of(PARTS_AT_LEAST) {
            return false;
        }
        if number - base.number > BASE_AGE_MAX {
            return false;
        }
        let (Some(records), Some(snapshot), Some(budget)) =
            (&self.records, publisher.snapshot(number), &self.budget)
        else {
            return false;
        };
        let base_tick = publisher.stamp(base.number);
        let differing = records
            .rows()
            .iter()
            .filter(|record| {
                record.is_ghost
                    || record.entered > base_tick
                    || snapshot.heads()[record.index as usize].changed > base_tick
            })
            .count();
        let bits = u64::from(self.queue.bits_per_entity()) * differing as u64;
        let most = u64::try_from(budget.per_snapshot()).unwrap_or(0) * 8;
        // In whole bodies an entity takes about two thirds of what it does in others.
        bits * 2 <= most * 3
    }

    /// Whole bodies, if they fit.
    fn plan_whole(&self, publisher: &mut Publisher, number: u32) -> Option<Plan> {
        let (now, before) = {
            let mut moments = self.moments.iter().rev();
            (moments.next()?, moments)
        };
        let base = before.clone().find(|moment| moment.is_known);
        let age = |moment: &Moment| u8::try_from(number - moment.number).ok();
        if let Some(base) = base
            && publisher.is_same(base.number, number)
            && base.sight.same(&now.sight)
        {
            return Some(Plan::Same { age: age(base)? });
        }
        let mut others = 0;
        let mut references: [Option<(u32, &Sight)>; BODY_REFERENCES_MAX] =
            [None; BODY_REFERENCES_MAX];
        if let Some(base) = base {
            references[0] = Some((base.number, &base.sight));
            for (choices, to) in OTHERS.iter().zip(&mut references[1..]) {
                let known = choices.iter().find_map(|&distance| {
                    let is_it = |moment: &&Moment| {
                        moment.is_known && moment.number + distance == base.number
                    };
                    Some((distance, before.clone().find(is_it)?))
                });
                if let Some((distance, known)) = known {
                    others |= 1 << (distance - 1);
                    *to = Some((known.number, &known.sight));
                }
            }
        }
        let bodies_max = usize::try_from(self.snapshot_ticks)
            .unwrap_or(usize::MAX)
            .min(usize::from(BODIES_MAX));
        let tokens = self.budget.as_ref().map_or(0, Budget::tokens);
        let mut bytes_max = usize::try_from(tokens).unwrap_or(0);
        if self.records.is_some() {
            // Something is left for growth, so that the ways of sending do not alternate.
            let per_snapshot = self.budget.as_ref().map_or(0, Budget::per_snapshot);
            let usual = usize::try_from(per_snapshot - per_snapshot / 8).unwrap_or(0);
            bytes_max = bytes_max.min(usual);
        }
        let references = references.iter().flatten().copied();
        let stored = publisher.store_whole(references, &now.sight, bodies_max, bytes_max)?;
        Some(Plan::Whole {
            stored,
            base: match base {
                Some(base) => Some(age(base)?),
                None => None,
            },
            others,
        })
    }
}

/// Takes in what `sight` shows of snapshot `number`, the newest.
fn merge(
    records: &mut Records,
    publisher: &Publisher,
    number: u32,
    snapshot: &QuantizedSnapshot,
    sight: &Sight,
) {
    if !matches!(sight, Sight::All) {
        records.merge(snapshot, sight, publisher.stamp(number));
    } else if !records.is_aligned(number, publisher.same_ids_since()) {
        records.merge(snapshot, sight, publisher.stamp(number));
        records.align(number, snapshot);
    }
}
