//! What a client says of what it was sent, and starting anew: acks, keyframes and resets.

use crate::id::NetId;
use crate::tick::{Seq, Tick};

use super::super::budget::Budget;
use super::super::head::{BODIES_MAX, EPOCHS};
use super::super::publisher::{KeyframeBytes, Publisher, stamp};
use super::super::records::Records;
use super::sent::Sent;
use super::{BASE_AGE_MAX, Keyframe, Moment, Pending, Plan, Subscription};

impl Subscription {
    /// Datagram `seq` arrived, and the client took its state body in.
    pub fn on_ack(&mut self, seq: Seq) {
        let Some((sent, ids)) = self.sent.take(seq) else {
            self.statistics.unknown_acks += 1;
            return;
        };
        let trip = self.ticks.wrapping_sub(sent.at);
        // It rises at once and falls slowly: sending again too late costs less than too often.
        self.round_trip = Some(
            self.round_trip
                .map_or(trip, |before| trip.max(before - before / 8)),
        );
        if let Some(budget) = &mut self.budget {
            budget.outcome(true);
        }
        if let Some(records) = &mut self.records {
            let tick = stamp(sent.number, self.snapshot_ticks);
            records.ack(ids, tick, self.snapshot_ticks);
        }
        let moment = self
            .moments
            .iter_mut()
            .find(|moment| moment.number == sent.number);
        if let Some(moment) = moment {
            moment.acked |= 1 << sent.index;
            if let Some(last) = moment.last {
                let all = u8::MAX >> (BODIES_MAX - 1 - last);
                moment.is_known |= moment.acked & all == all;
            }
        }
    }

    /// Datagram `seq` did not arrive, or was refused.
    pub fn on_lost(&mut self, seq: Seq) {
        match self.sent.take(seq) {
            Some((sent, ids)) => lose(
                sent,
                ids,
                self.snapshot_ticks,
                &mut self.records,
                &mut self.budget,
            ),
            None => self.statistics.unknown_acks += 1,
        }
    }

    pub(super) fn on_stale(&mut self, seq: Seq) {
        if let Some((sent, ids)) = self.sent.stale(seq) {
            lose(
                sent,
                ids,
                self.snapshot_ticks,
                &mut self.records,
                &mut self.budget,
            );
        }
    }

    /// Whether something does not fit datagrams: the client needs a [`Subscription::keyframe`] to
    /// get it.
    #[must_use]
    pub const fn needs_keyframe(&self) -> bool {
        self.wants_keyframe && self.pending.is_none()
    }

    /// The newest snapshot as the client sees it, in one piece, to be transferred. Until it is
    /// there ([`Subscription::keyframe_held`]), nothing else is written. `None` before the first
    /// snapshot.
    pub fn keyframe(&mut self, publisher: &mut Publisher) -> Option<Keyframe> {
        let number = publisher.newest_number()?;
        let sight = publisher.sight(&self.viewer, &mut self.outlook);
        let KeyframeBytes { bytes, tally } = publisher.keyframe_bytes(&sight, self.epoch)?;
        let snapshot = publisher.snapshot(number)?;
        let ids = sight
            .entries(snapshot)
            .map(|entry| (snapshot.heads()[entry.index as usize].id, entry.hidden))
            .collect();
        let tick = publisher.tick(number)?;
        self.snapshot_ticks = publisher.config().snapshot_ticks;
        self.pending = Some(Pending {
            number,
            sight,
            ids,
            tally,
        });
        self.wants_keyframe = false;
        self.statistics.keyframes += 1;
        Some(Keyframe { tick, bytes })
    }

    /// The keyframe was transferred: what the client holds is known from here on.
    pub fn keyframe_held(&mut self, publisher: &Publisher) {
        let Some(pending) = self.pending.take() else {
            return;
        };
        if let Some(tally) = pending.tally.filter(|_| publisher.tally().is_some()) {
            let ledger = self.ledger.get_or_insert_default();
            ledger.keyframes.add(&tally);
        }
        self.moments.clear();
        self.sent.clear();
        self.planned = None;
        self.plan = Plan::Done;
        self.is_calm = false;
        self.unsaid = None;
        let newest = publisher.newest_number().unwrap_or(pending.number);
        let is_recent = newest.saturating_sub(pending.number) < BASE_AGE_MAX;
        if is_recent && publisher.snapshot(pending.number).is_some() {
            self.records = None;
            self.moments.push_back(Moment {
                number: pending.number,
                sight: pending.sight,
                last: Some(0),
                acked: 1,
                is_known: true,
            });
        } else {
            let tick = publisher.stamp(pending.number);
            self.records = Some(Records::holding(pending.ids.into_iter(), tick));
            self.parts_since = newest;
        }
    }

    /// The keyframe will not be transferred.
    pub fn keyframe_cancelled(&mut self) {
        self.pending = None;
    }

    /// The client asks to begin anew: it holds nothing, and ignores what was sent until now.
    pub fn reset(&mut self) {
        self.epoch = (self.epoch + 1) % EPOCHS;
        self.moments.clear();
        self.sent.clear();
        self.records = None;
        self.pending = None;
        self.planned = None;
        self.plan = Plan::Done;
        self.is_calm = false;
        self.unsaid = None;
        self.statistics.resets += 1;
    }

    /// The hash of what the client sees of the newest snapshot, with its tick. A client that holds
    /// the same has it as [`Receiver::hash_at`](crate::statesync::Receiver::hash_at) that tick.
    pub fn interest_hash(&mut self, publisher: &mut Publisher) -> Option<(Tick, u64)> {
        let number = publisher.newest_number()?;
        if self.planned != Some(number) && self.pending.is_none() {
            self.look_at(publisher, number);
        }
        let moment = self
            .moments
            .back()
            .filter(|moment| moment.number == number)?;
        let hash = publisher.view_hash(&moment.sight)?;
        Some((publisher.tick(number)?, hash))
    }

    /// Where the newest known snapshot stands among the moments.
    pub(super) fn base(&self) -> Option<usize> {
        self.moments.iter().rposition(|moment| moment.is_known)
    }
}

fn lose(
    sent: Sent,
    ids: &[NetId],
    snapshot_ticks: u32,
    records: &mut Option<Records>,
    budget: &mut Option<Budget>,
) {
    if let Some(records) = records {
        let tick = stamp(sent.number, snapshot_ticks);
        records.lose(ids, tick);
    }
    if let Some(budget) = budget {
        budget.outcome(false);
    }
}
