//! Writing bodies.

use std::sync::Arc;

use crate::id::NetId;
use crate::state::{EntityRef, Shapes, WireLayout};
use crate::wire::range::{self, Mark};

use super::coder::{Coder, Writer};
use super::entity::{self, Memory, Row};
use super::model::{Ages, flags};
use super::plan::Plans;
use super::project::Projection;
use super::tables::Tables;
use super::tally::{Meter, STRUCTURE, Tally};
use super::view::{Reference, View};
use super::walk::{self, Cursor, Seen, age_classes, changed_context, next_id, next_id_bits};
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
    plans: Plans,
    ages: Ages,
    memory: Memory,
    now: Projection,
    /// Projections of references with hidden kinds.
    past: [Projection; REFERENCES_MAX],
    classes: Vec<u8>,
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
            plans: Plans::new(layout),
            ages: Ages::default(),
            memory: Memory::default(),
            now: Projection::default(),
            past: Default::default(),
            classes: Vec::new(),
            meter: None,
            part: Part::default(),
        }
    }

    /// Counts from here on where bits go, or stops to.
    pub fn set_tally(&mut self, on: bool) {
        self.meter = on.then(Meter::default);
    }

    /// Where bits went since the tally was switched on.
    #[must_use]
    pub fn tally(&self) -> Option<&Tally> {
        self.meter.as_ref().map(|meter| &meter.tally)
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
        let mut ages = [0; REFERENCES_MAX];
        for (index, (age, reference)) in ages.iter_mut().zip(references).enumerate() {
            *age = reference.age;
            let before = index.checked_sub(1).map_or(0, |at| references[at].age);
            assert!(
                before < *age && *age <= AGE_MAX,
                "ages ascend within their bounds"
            );
        }
        self.ages.set(&ages[..references.len()]);
        let start = out.len();
        if from == NetId::NONE {
            if self.entire(shapes, now, references, room, out) {
                return WholeEnd::Done;
            }
            out.truncate(start);
        }
        let end = self.split(shapes, now, references, from, room, out);
        if let WholeEnd::TooLarge(_) = end {
            out.truncate(start);
        }
        end
    }

    /// Writes a body of all entities; gives up when it does not fit.
    fn entire(
        &mut self,
        shapes: &Shapes,
        now: View<'_>,
        references: &[Reference<'_>],
        room: usize,
        out: &mut Vec<u8>,
    ) -> bool {
        let mut whole = Whole::begin(self, shapes, now, references, None, out);
        let bits_max = room.saturating_mul(8);
        while whole.step() {
            if whole.writer.coder.bits() > bits_max {
                return false;
            }
        }
        if whole.writer.coder.len() > room {
            return false;
        }
        whole.writer.coder.finish();
        self.commit_tally();
        true
    }

    /// Writes a body of the entities from `from` on that fit.
    fn split(
        &mut self,
        shapes: &Shapes,
        now: View<'_>,
        references: &[Reference<'_>],
        from: NetId,
        room: usize,
        out: &mut Vec<u8>,
    ) -> WholeEnd {
        let mut whole = Whole::begin(self, shapes, now, references, Some(from), out);
        let bits_max = room.saturating_mul(8);
        loop {
            let mark = whole.writer.coder.mark();
            let (last, next) = (whole.last, whole.next());
            whole.writer.flag(flags::STOP, false);
            let goes_on = whole.step();
            if !goes_on {
                // The step before left room for more than this.
                whole.writer.coder.finish();
                self.commit_tally();
                return WholeEnd::Done;
            }
            let id_bits = whole
                .next()
                .map_or(0, |next| next_id_bits(whole.last, next));
            if whole.writer.coder.bits() + id_bits + STOP_BITS > bits_max {
                whole.writer.coder.restore(&mark);
                let Some(next) = next.filter(|_| last.is_some()) else {
                    return WholeEnd::TooLarge(next.unwrap_or(from));
                };
                whole.writer.flag(flags::STOP, true);
                next_id(&mut whole.writer, last, next).expect("ids ascend");
                whole.writer.coder.finish();
                self.commit_tally();
                return WholeEnd::Next(next);
            }
        }
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
        self.memory.clear(0);
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
        let Self {
            plans,
            ages: weights,
            memory,
            now,
            past,
            meter,
            part,
            ..
        } = self;
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

/// A whole body that is being written.
struct Whole<'a, 'b> {
    layout: &'a WireLayout,
    plans: &'a Plans,
    ages: &'a Ages,
    memory: &'a mut Memory,
    row: &'a mut Projection,
    past: &'a mut [Projection; REFERENCES_MAX],
    classes: &'a [u8],
    writer: Writer<'a, 'b>,
    shapes: &'a Shapes,
    now: View<'a>,
    /// Place in `now`.
    at: usize,
    cursor: Cursor<'a>,
    /// Number of the base's next entity, counted from the first of this body.
    place: usize,
    has_middle: bool,
    did_previous: bool,
    last: Option<NetId>,
}

impl<'a, 'b> Whole<'a, 'b> {
    fn begin(
        encoder: &'a mut Encoder,
        shapes: &'a Shapes,
        now: View<'a>,
        references: &[Reference<'a>],
        from: Option<NetId>,
        out: &'b mut Vec<u8>,
    ) -> Self {
        let Encoder {
            plans,
            ages,
            memory,
            now: row,
            past,
            classes,
            meter,
            ..
        } = encoder;
        memory.clear(0);
        let layout = &*plans.layout;
        let start = from.unwrap_or(NetId::NONE);
        age_classes(layout, shapes, references, start, past, classes);
        let mut writer = Writer {
            tables: Tables::shared(),
            coder: range::Encoder::new(out),
            tally: meter.as_mut(),
        };
        if let Some(meter) = &mut writer.tally {
            meter.begin(writer.coder.fine_bits());
        }
        let at = now.place_of(start);
        let has_middle = has_middle(now, at, references.first(), start);
        writer.flag(flags::SPLIT, from.is_some());
        if let Some(from) = from {
            next_id(&mut writer, None, from).expect("an id is one");
        }
        writer.flag(flags::MIDDLE, has_middle);
        Self {
            layout,
            plans,
            ages,
            memory,
            row,
            past,
            classes,
            writer,
            shapes,
            now,
            at,
            cursor: Cursor::new(references, start),
            place: 0,
            has_middle,
            did_previous: false,
            last: None,
        }
    }

    /// The id of the next entity in either list.
    fn next(&self) -> Option<NetId> {
        let now = (self.at < self.now.len()).then(|| self.now.id(self.at));
        match (now, self.cursor.id()) {
            (Some(now), Some(base)) => Some(now.min(base)),
            (now, base) => now.or(base),
        }
    }

    /// Writes the next entity; false if that was the end.
    #[inline]
    fn step(&mut self) -> bool {
        let now = (self.at < self.now.len()).then(|| self.now.id(self.at));
        let Some(base) = self.cursor.id() else {
            self.writer.raw(u32::from(now.is_some()), 1);
            if now.is_some() {
                self.spawn();
            }
            return now.is_some();
        };
        let spawns = now.is_some_and(|now| now < base);
        if self.has_middle {
            self.writer.flag(flags::SPAWN, spawns);
        }
        if spawns {
            self.spawn();
        } else {
            self.base(now == Some(base));
            self.last = Some(base);
        }
        true
    }

    /// Writes an entity that the base does not have.
    fn spawn(&mut self) {
        let (entity, hidden) = self.now.entity(self.at);
        next_id(&mut self.writer, self.last, entity.id).expect("ids ascend");
        self.writer.note(STRUCTURE.0, STRUCTURE.1);
        take(self.layout, self.shapes, &entity, hidden, self.row);
        entity::unknown(&mut self.writer, self.plans, self.memory, self.row)
            .expect("values of a snapshot are within bounds");
        self.memory.commit(self.row);
        self.at += 1;
        self.last = Some(entity.id);
    }

    /// Writes what became of an entity of the base.
    #[inline]
    fn base(&mut self, stays: bool) {
        let context = changed_context(self.classes, self.place, self.did_previous);
        self.place += 1;
        let seen = self.cursor.take().expect("the base has an entity here");
        let past = walk::past(self.layout, self.shapes, &seen, self.past)
            .expect("the base has this entity");
        if !stays {
            self.writer.flag(context, true);
            self.writer.flag(flags::GONE, true);
            self.did_previous = true;
            return;
        }
        let (entity, hidden) = self.now.entity(self.at);
        self.at += 1;
        let is_same = if hidden == 0 {
            Row::of(self.shapes, &entity).same(&past.base)
        } else {
            self.row.take(self.layout, self.shapes, &entity, hidden);
            self.row.row().same(&past.base)
        };
        self.did_previous = self.writer.flag(context, !is_same);
        if is_same {
            return;
        }
        self.writer.flag(flags::GONE, false);
        self.writer.note(STRUCTURE.0, STRUCTURE.1);
        if hidden == 0 {
            self.row.copy_row(&Row::of(self.shapes, &entity));
        }
        entity::known(
            &mut self.writer,
            self.plans,
            self.memory,
            self.ages,
            &past,
            self.row,
        )
        .expect("values of a snapshot are within bounds");
    }
}

/// The visible part of an entity.
fn take(
    layout: &WireLayout,
    shapes: &Shapes,
    entity: &EntityRef<'_>,
    hidden: u64,
    out: &mut Projection,
) {
    if hidden == 0 {
        out.copy_row(&Row::of(shapes, entity));
    } else {
        out.take(layout, shapes, entity, hidden);
    }
}

/// Whether entities appear before the base's last one.
fn has_middle(now: View<'_>, mut at: usize, base: Option<&Reference<'_>>, from: NetId) -> bool {
    let Some(base) = base.map(|base| base.view) else {
        return false;
    };
    for place in base.place_of(from)..base.len() {
        let id = base.id(place);
        if at == now.len() {
            return false;
        }
        let own = now.id(at);
        if own < id {
            return true;
        }
        at += usize::from(own == id);
    }
    false
}
