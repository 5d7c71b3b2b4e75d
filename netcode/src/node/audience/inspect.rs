//! The live inspector: what each client is sent, by component, field and everything else.
//!
//! It is off by default: while someone looks, the codec notes what every field of every body takes.

use super::{Audience, Listener};
use crate::delta::{Breakdown, BreakdownRow, Tally};
use crate::id::{MemberId, Slot};
use crate::node::api::Event;
use crate::node::core::Core;
use crate::node::guest::Guest;
use crate::session::statistics::{Body, BodyBytes};
use crate::state::Schema;
use crate::tick::Tick;

/// What one client of a host in state-sync mode was sent over its present link, since someone
/// looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// The client.
    pub member: MemberId,
    /// Its slot, if it plays.
    pub slot: Option<Slot>,
    /// The newest snapshot when the count began.
    pub from: Tick,
    /// The newest snapshot now.
    pub until: Tick,
    /// Entities that the client sees.
    pub in_view: u32,
    /// Bytes of UDP payload by what they are for.
    pub sent: BodyBytes,
    /// Datagrams with state.
    pub bodies: u64,
    /// Where the bits of [`Body::State`] went: all of them.
    pub state: Tally,
    /// Where the bits of those whole states went that arrived as transfers: part of
    /// [`Body::Bulk`], which also has heads of chunks, what was sent again, and what did not arrive.
    pub keyframes: Tally,
}

impl Inspection {
    /// What was sent since this account stood at `older`; all of it, if that is of another link.
    #[must_use]
    pub fn since(&self, older: &Self) -> Self {
        if (older.member, older.from) != (self.member, self.from) || older.bodies > self.bodies {
            return self.clone();
        }
        Self {
            from: older.until,
            sent: self.sent.since(&older.sent),
            bodies: self.bodies - older.bodies,
            state: self.state.since(&older.state),
            keyframes: self.keyframes.since(&older.keyframes),
            ..self.clone()
        }
    }

    /// The state's bits, with the names of kinds and fields.
    #[must_use]
    pub fn breakdown(&self, schema: &Schema) -> Breakdown {
        Breakdown::new(&self.state, schema, self.bodies)
    }

    /// The bits of whole states that arrived as transfers, with the names of kinds and fields.
    #[must_use]
    pub fn keyframe_breakdown(&self, schema: &Schema) -> Breakdown {
        Breakdown::new(&self.keyframes, schema, 1)
    }

    /// All bits of the client's datagrams: those of the state by field; those of whole states by
    /// field, of kinds called `keyframe: KIND`; those of other bodies under the body's name. What
    /// transfers took beyond what they brought is under theirs.
    #[must_use]
    pub fn rows(&self, schema: &Schema) -> Vec<BreakdownRow> {
        let mut rows = self.breakdown(schema).rows;
        let mut keyframes = self.keyframe_breakdown(schema);
        for body in Body::ALL {
            let bytes = self.sent.of(body);
            if body != Body::State && bytes > 0 {
                #[expect(clippy::cast_precision_loss, reason = "a statistic")]
                let mut bits = bytes as f64 * 8.0;
                // Between two accounts a transfer may have arrived that was sent before the first.
                if body == Body::Bulk && keyframes.bits <= bits {
                    bits -= keyframes.bits;
                    rows.extend(keyframes.rows.drain(..).map(of_keyframe));
                }
                rows.push(BreakdownRow {
                    kind: String::new(),
                    field: body.name().to_owned(),
                    bits,
                });
            }
        }
        rows
    }
}

fn of_keyframe(row: BreakdownRow) -> BreakdownRow {
    let (kind, field) = match (row.kind.is_empty(), row.field.is_empty()) {
        (true, true) => (row.kind, "keyframe: ids, flags, shapes".to_owned()),
        (true, false) => (row.kind, format!("keyframe: {}", row.field)),
        (false, _) => (format!("keyframe: {}", row.kind), row.field),
    };
    BreakdownRow {
        kind,
        field,
        bits: row.bits,
    }
}

/// Where the account of a guest began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Since {
    from: Tick,
    sent: BodyBytes,
}

impl Audience {
    fn now(&self) -> Tick {
        self.published.unwrap_or_default()
    }

    pub(in crate::node) fn is_inspected(&self) -> bool {
        self.publisher.tally().is_some()
    }

    /// Begins to count, or stops to.
    pub(in crate::node) fn inspect<'a>(
        &mut self,
        on: bool,
        guests: impl Iterator<Item = &'a mut Guest>,
    ) {
        if on == self.is_inspected() {
            return;
        }
        self.publisher.set_tally(on);
        if let Some(late) = &mut self.late {
            late.publisher.set_tally(on);
        }
        let from = self.now();
        for guest in guests {
            let sent = guest.peer.statistics.sent;
            if let Some(listener) = &mut guest.listener {
                listener.since = on.then_some(Since { from, sent });
            }
        }
    }

    /// Counts what a new guest is sent, if someone looks.
    pub(super) fn inspect_new(&self, listener: &mut Listener) {
        if self.is_inspected() && listener.since.is_none() {
            listener.since = Some(Since {
                from: self.now(),
                sent: BodyBytes::default(),
            });
        }
    }

    /// What `guest` was sent, if someone looks.
    pub(in crate::node) fn inspection(&self, guest: &Guest) -> Option<Inspection> {
        let listener = guest.listener.as_ref()?;
        let since = listener.since?;
        let subscription = &listener.subscription;
        let ledger = subscription.ledger();
        Some(Inspection {
            member: guest.peer.member,
            slot: guest.peer.slot,
            from: since.from,
            until: self.now(),
            in_view: subscription.statistics().in_view,
            sent: guest.peer.statistics.sent.since(&since.sent),
            bodies: ledger.map_or(0, |ledger| ledger.bodies),
            state: ledger.map_or_else(Tally::default, |ledger| ledger.tally.clone()),
            keyframes: ledger.map_or_else(Tally::default, |ledger| ledger.keyframes.clone()),
        })
    }

    /// Tells the game what `guest` was sent, if someone looks.
    pub(in crate::node) fn tell_inspection(&self, core: &mut Core, guest: &Guest) {
        if let Some(inspection) = self.inspection(guest) {
            core.report(Event::Inspected(Box::new(inspection)));
        }
    }
}
