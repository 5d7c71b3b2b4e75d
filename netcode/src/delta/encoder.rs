//! Writing bodies.

use std::sync::Arc;

use crate::id::NetId;
use crate::state::{EntityRef, Shapes, WireLayout};
use crate::wire::range::{self, Mark};

use super::coder::{Coder, Writer};
use super::desk::Desk;
use super::entity;
use super::model::flags;
use super::tables::Tables;
use super::tally::{Meter, STRUCTURE, Tally};
use super::training::Lessons;
use super::view::{Reference, View};
use super::walk::{self, Seen, next_id, next_id_bits};
use super::whole::{Told, Whole, take};
use super::{AGE_MAX, PART_REFERENCES_MAX, REFERENCES_MAX};

/// Bits that a body's end needs beside the id where the next one begins: the flag that it stops,
/// and what rounding to bytes may take.
const STOP_BITS: usize = 8 + 16;

/// How far a whole body got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WholeEnd {
    /// To the last entity.
    Done,
    /// The entities from this one on need another body.
    Next(NetId),
    /// Not even the first entity fits the room; nothing was written.
    TooLarge(NetId),
}

/// One entity of a part body.
#[derive(Clone, Copy, Debug)]
pub struct PartItem<'a> {
    /// Which entity.
    pub id: NetId,
    /// Its values and hidden kinds; `None` if the client has it no longer.
    pub value: Option<(EntityRef<'a>, u64)>,
    /// Older values that the client holds, newest first: age in snapshots, values, hidden kinds.
    pub references: &'a [(u32, EntityRef<'a>, u64)],
}

/// Writes bodies; keeps its memory from call to call.
#[derive(Debug)]
pub struct Encoder {
    desk: Desk,
    meter: Option<Meter>,
    part: Part,
}

/// A part body that is being written.
#[derive(Debug, Default)]
struct Part {
    bytes: Vec<u8>,
    mark: Option<Mark>,
    room: usize,
    last: Option<NetId>,
}

impl Encoder {
    /// An encoder of snapshots with this layout.
    #[must_use]
    pub fn new(layout: Arc<WireLayout>) -> Self {
        Self {
            desk: Desk::new(layout),
            meter: None,
            part: Part::default(),
        }
    }

    /// Counts from here on where bits go, or stops to.
    pub fn set_tally(&mut self, on: bool) {
        self.meter = on.then(Meter::default);
    }

    /// Where bits went since the tally was switched on, or taken.
    #[must_use]
    pub fn tally(&self) -> Option<&Tally> {
        self.meter.as_ref().map(|meter| &meter.tally)
    }

    /// Takes the tally, which begins anew.
    pub fn take_tally(&mut self) -> Option<Tally> {
        let meter = self.meter.as_mut()?;
        Some(core::mem::take(&mut meter.tally))
    }

    /// Appends a body to `out` that says how the entities of `now` from `from` on are, for a
    /// receiver that holds `references`: the base first, ages ascending. Their ages are not in the
    /// body. It takes at most `room` bytes.
    ///
    /// # Panics
    /// If an age is 0, exceeds [`AGE_MAX`], or does not ascend; or a view is not of these shapes.
    pub fn encode_whole(
        &mut self,
        shapes: &Shapes,
        now: View<'_>,
        references: &[Reference<'_>],
        from: NetId,
        room: usize,
        out: &mut Vec<u8>,
    ) -> WholeEnd {
        let references = &references[..references.len().min(REFERENCES_MAX)];
        assert!(
            self.desk.set_ages(references),
            "ages ascend within their bounds"
        );
        let told = Told {
            shapes,
            now,
            references,
        };
        let start = out.len();
        if from == NetId::NONE {
            if self.entire(&told, room, out) {
                return WholeEnd::Done;
            }
            out.truncate(start);
        }
        let end = self.split(&told, from, room, out);
        if let WholeEnd::TooLarge(_) = end {
            out.truncate(start);
        }
        end
    }

    /// Writes a body of all entities; gives up when it does not fit.
    fn entire(&mut self, told: &Told<'_>, room: usize, out: &mut Vec<u8>) -> bool {
        let mut whole = self.whole(told, None, out);
        let bits_max = room.saturating_mul(8);
        while whole.go_on() {
            if whole.coder.coder.bits() > bits_max {
                return false;
            }
        }
        if whole.coder.coder.len() > room {
            return false;
        }
        whole.coder.coder.finish();
        self.commit_tally();
        true
    }

    /// Writes a body of the entities from `from` on that fit.
    fn split(&mut self, told: &Told<'_>, from: NetId, room: usize, out: &mut Vec<u8>) -> WholeEnd {
        let mut whole = self.whole(told, Some(from), out);
        let bits_max = room.saturating_mul(8);
        loop {
            let mark = whole.coder.coder.mark();
            let (last, next) = (whole.last, whole.next());
            whole.coder.flag(flags::STOP, false);
            let goes_on = whole.step();
            if !goes_on {
                // The step before left room for more than this.
                whole.coder.coder.finish();
                self.commit_tally();
                return WholeEnd::Done;
            }
            let id_bits = whole
                .next()
                .map_or(0, |next| next_id_bits(whole.last, next));
            if whole.coder.coder.bits() + id_bits + STOP_BITS > bits_max {
                whole.coder.coder.restore(&mark);
                let Some(next) = next.filter(|_| last.is_some()) else {
                    return WholeEnd::TooLarge(next.unwrap_or(from));
                };
                whole.coder.flag(flags::STOP, true);
                next_id(&mut whole.coder, last, next).expect("ids ascend");
                whole.coder.coder.finish();
                self.commit_tally();
                return WholeEnd::Next(next);
            }
        }
    }

    /// Begins a whole body, of all entities or of those from `from` on.
    fn whole<'a, 'b>(
        &'a mut self,
        told: &Told<'a>,
        from: Option<NetId>,
        out: &'b mut Vec<u8>,
    ) -> Whole<'a, Writer<'a, 'b>> {
        let mut writer = Writer {
            tables: Tables::shared(),
            coder: range::Encoder::new(out),
            tally: self.meter.as_mut(),
        };
        if let Some(meter) = &mut writer.tally {
            meter.begin(writer.coder.fine_bits());
        }
        Whole::begin(&mut self.desk, writer, told, from)
    }

    /// Writes nothing, and lets `lessons` learn from what a whole body of all of `now` would say.
    pub(super) fn teach(
        &mut self,
        lessons: &mut Lessons,
        shapes: &Shapes,
        now: View<'_>,
        references: &[Reference<'_>],
    ) {
        assert!(
            self.desk.set_ages(references),
            "ages ascend within their bounds"
        );
        let told = Told {
            shapes,
            now,
            references,
        };
        let mut whole = Whole::begin(&mut self.desk, lessons, &told, None);
        while whole.go_on() {}
    }

    fn commit_tally(&mut self) {
        if let Some(meter) = &mut self.meter {
            meter.commit();
        }
    }

    /// Begins a part body of at most `room` bytes; forgets one that was not finished.
    pub fn begin_part(&mut self, room: usize) {
        let part = &mut self.part;
        part.bytes.clear();
        part.mark = None;
        part.room = room;
        part.last = None;
        self.desk.memory.clear(0);
    }

    /// Adds an entity to the part body. Items cost least by id ascending.
    ///
    /// Returns false, and changes nothing, if it does not fit.
    ///
    /// # Panics
    /// If there are more than [`PART_REFERENCES_MAX`] references, or an age is 0, exceeds
    /// [`AGE_MAX`] or does not ascend.
    pub fn push_part(&mut self, shapes: &Shapes, item: &PartItem<'_>) -> bool {
        let mut seen: [Option<Seen<'_>>; REFERENCES_MAX] = [None; REFERENCES_MAX];
        let mut ages = [0; PART_REFERENCES_MAX];
        assert!(
            item.references.len() <= PART_REFERENCES_MAX,
            "an item has few references"
        );
        let mut before = 0;
        for (at, &(age, entity, hidden)) in item.references.iter().enumerate() {
            assert!(
                before < age && age <= AGE_MAX,
                "ages ascend within their bounds"
            );
            before = age;
            ages[at] = age;
            seen[at] = Some((entity, hidden));
        }
        let ages = &ages[..item.references.len()];
        let Self { desk, meter, part } = self;
        let Desk {
            plans,
            ages: weights,
            memory,
            now,
            past,
            ..
        } = desk;
        let mut writer = Writer {
            tables: Tables::shared(),
            coder: match &part.mark {
                None => range::Encoder::new(&mut part.bytes),
                Some(mark) => range::Encoder::resume(&mut part.bytes, 0, mark),
            },
            tally: meter.as_mut(),
        };
        let before = writer.coder.mark();
        if let Some(meter) = &mut writer.tally {
            meter.begin(writer.coder.fine_bits());
        }
        let newest = memory.mark();
        walk::part_id(&mut writer, part.last, item.id).expect("ids are ids");
        let count = if item.value.is_some() {
            Some(ages.len())
        } else {
            None
        };
        walk::part_references(&mut writer, memory, count, ages)
            .expect("ages are within their bounds");
        writer.note(STRUCTURE.0, STRUCTURE.1);
        if let Some((entity, hidden)) = item.value {
            let layout = &*plans.layout;
            take(layout, shapes, &entity, hidden, now);
            match walk::past(layout, shapes, &seen, past) {
                Some(past) => {
                    weights.set(ages);
                    entity::known(&mut writer, plans, memory, weights, &past, now)
                }
                None => entity::unknown(&mut writer, plans, memory, now),
            }
            .expect("values of a snapshot are within bounds");
        }
        // The flag that says that there are no more takes less than a bit.
        if writer.coder.bits() + STOP_BITS > part.room.saturating_mul(8) {
            memory.restore(newest);
            let mut coder = writer.coder;
            coder.restore(&before);
            return false;
        }
        part.mark = Some(writer.coder.mark());
        part.last = Some(item.id);
        memory.commit(now);
        self.commit_tally();
        true
    }

    /// Ends the part body and appends it to `out`. Returns its bytes, 0 if it has no items.
    pub fn finish_part(&mut self, out: &mut Vec<u8>) -> usize {
        let part = &mut self.part;
        let Some(mark) = part.mark.take() else {
            return 0;
        };
        let mut writer = Writer {
            tables: Tables::shared(),
            coder: range::Encoder::resume(&mut part.bytes, 0, &mark),
            tally: None,
        };
        writer.flag(flags::NO_MORE, true);
        let len = writer.coder.finish();
        out.extend_from_slice(&part.bytes);
        len
    }
}
