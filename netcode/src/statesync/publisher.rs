//! The host's side that all clients share: the ring of snapshots, and the bytes made from them.

mod shared;
mod store;

use std::sync::Arc;

use crate::delta::{Encoder, Entry, Tally};
use crate::id::NetId;
use crate::limits::SNAPSHOT_TICKS_MAX;
use crate::session::config::StateSyncConfig;
use crate::state::{
    KindRows, QuantizeReport, QuantizedSnapshot, Quantizer, Schema, Shapes, Snapshot, WireLayout,
};
use crate::tick::{Tick, TickRate};

use super::interest::{Interest, Outlook, Rules, Sight, Viewer, VisibilityRule, WorldIndex};
use super::records::stands;
use super::ring::Ring;
use super::rows::RowHashes;
use shared::Rotation;
pub(super) use shared::SharedParts;
pub(super) use store::KeyframeBytes;
use store::Store;

/// Entities that are worked out for single clients in a snapshot, from which on they take turns in
/// the ticks until the next; and down to which they do not any more.
const BUSY_FROM: usize = 3000;
const BUSY_TO: usize = 1500;
/// Records of entities that are looked at in the time in which one is worked out.
const RECORDS_PER_ENTITY: usize = 16;

/// Bits that an entity of a part body takes, until there is experience.
pub(super) const BITS_GUESS: u32 = 128;

/// Views whose memory is kept for others.
const SPARE_VIEWS_MAX: usize = 512;

/// What a publisher needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublisherConfig {
    /// Ticks between two snapshots, at least 1. Snapshots stand at its multiples.
    pub snapshot_ticks: u32,
    /// Ticks per second.
    pub rate: TickRate,
    /// Bytes of state per second and client, at most.
    pub budget_bytes_per_second: u32,
}

impl PublisherConfig {
    /// The settings of a host whose game runs at `rate`.
    #[must_use]
    pub const fn new(config: &StateSyncConfig, rate: TickRate) -> Self {
        Self {
            snapshot_ticks: config.snapshot_ticks,
            rate,
            budget_bytes_per_second: config.budget_bytes_per_second,
        }
    }

    /// Bytes that a snapshot may take on average.
    pub(super) fn bytes_per_snapshot(&self) -> u32 {
        let bytes = u64::from(self.budget_bytes_per_second) * u64::from(self.snapshot_ticks)
            / u64::from(self.rate.hz());
        u32::try_from(bytes).unwrap_or(u32::MAX)
    }
}

/// Counters of the shared side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PublisherStatistics {
    /// Snapshots published.
    pub snapshots: u64,
    /// Of those, snapshots that equal the one before.
    pub unchanged: u64,
    /// Values beyond the bounds of their field, clamped.
    pub clamped: u64,
    /// Entities left out because there are too many combinations of components.
    pub left_out: u64,
    /// Whole bodies that were made.
    pub bodies_made: u64,
    /// Times that a client got bodies that had been made for another.
    pub bodies_shared: u64,
    /// Part bodies that were made.
    pub parts_made: u64,
    /// Part bodies that a client got although they had been made for another.
    pub parts_shared: u64,
}

/// Bodies of one snapshot.
#[derive(Debug, Default)]
struct Generation {
    number: Option<u32>,
    store: Store,
    parts: SharedParts,
}

/// The ring of quantized snapshots, and what is made from them once for all clients.
///
/// It keeps the last [`STATE_RING_SNAPSHOTS`](crate::limits::STATE_RING_SNAPSHOTS) snapshots; those that equal the one before take no
/// memory. Nothing in it grows with the number of clients but the bodies of the newest snapshot,
/// one set per distinct view and references.
#[derive(Debug)]
pub struct Publisher {
    config: PublisherConfig,
    layout: Arc<WireLayout>,
    shapes: Shapes,
    quantizer: Quantizer,
    /// The newest snapshot in its exact form.
    exact: Snapshot,
    ring: Ring,
    rules: Rules,
    index: WorldIndex,
    /// Of which snapshot `index` is.
    indexed: Option<u32>,
    /// When each entity of that snapshot changed, as [`stands`] has it.
    changes: Vec<u32>,
    /// The views of the newest snapshot so far.
    sights: Vec<Arc<Vec<Entry>>>,
    spare_entries: Vec<Arc<Vec<Entry>>>,
    /// Bodies of the two newest snapshots: some clients get one later in its interval than others.
    stores: [Generation; 2],
    rotation: Rotation,
    /// Number of the snapshot since which the same entities are there.
    same_ids_since: u32,
    /// Bits that an entity takes in bodies of parts of everything: as the newest snapshot assumes,
    /// and as its bodies say.
    part_bits: (u32, u32),
    /// Entities that were worked out for single clients since the newest snapshot.
    work: usize,
    is_busy: bool,
    /// Entities in part bodies since the newest snapshot, and in those of one in the mean.
    demand: (usize, usize),
    is_crowded: bool,
    encoder: Encoder,
    /// Where the bits of all bodies went, while someone looks.
    made: Option<Box<Tally>>,
    hashes: RowHashes,
    statistics: PublisherStatistics,
}

impl Publisher {
    /// A publisher of states of `schema`.
    ///
    /// # Panics
    /// If `snapshot_ticks` is not 1 to [`SNAPSHOT_TICKS_MAX`].
    #[must_use]
    pub fn new(schema: &Schema, config: PublisherConfig) -> Self {
        assert!(
            (1..=SNAPSHOT_TICKS_MAX).contains(&config.snapshot_ticks),
            "snapshots have a distance within the limits"
        );
        let layout = Arc::new(WireLayout::new(schema));
        let index = WorldIndex::new(schema);
        let rules = Rules {
            has_rooms: index.has_rooms(&layout),
            ..Rules::default()
        };
        Self {
            config,
            encoder: Encoder::new(Arc::clone(&layout)),
            layout,
            shapes: Shapes::default(),
            quantizer: Quantizer::default(),
            exact: Snapshot::default(),
            ring: Ring::default(),
            rules,
            index,
            indexed: None,
            changes: Vec::new(),
            sights: Vec::new(),
            spare_entries: Vec::new(),
            stores: Default::default(),
            rotation: Rotation::default(),
            same_ids_since: 0,
            part_bits: (BITS_GUESS, BITS_GUESS),
            work: 0,
            is_busy: false,
            demand: (0, 0),
            is_crowded: false,
            made: None,
            hashes: RowHashes::default(),
            statistics: PublisherStatistics::default(),
        }
    }

    /// Limits what clients see by distance; `None` shows them everything.
    pub fn set_interest(&mut self, interest: Option<Interest>) {
        self.rules.interest = interest;
        self.indexed = None;
    }

    /// How far clients see; `None`: everything.
    #[must_use]
    pub const fn interest(&self) -> Option<Interest> {
        self.rules.interest
    }

    /// Asks `rule` what each client may see.
    pub fn set_rule(&mut self, rule: Option<Box<dyn VisibilityRule>>) {
        self.rules.rule = rule.map(Arc::from);
    }

    /// Takes in the state at a snapshot tick, with the rows of the kinds that clients may see. The
    /// last one of a session may stand at any tick, the others at multiples of `snapshot_ticks`.
    ///
    /// # Panics
    /// If there is one already at this tick, later, or before within `snapshot_ticks` of a multiple.
    pub fn publish(&mut self, snapshot: &Snapshot) -> QuantizeReport {
        let tick = snapshot.tick;
        let number = tick.number().div_ceil(self.config.snapshot_ticks);
        let newest = self.ring.newest().map(|slot| slot.number);
        assert!(
            newest.is_none_or(|newest| newest < number),
            "snapshots are published in order"
        );
        self.begin(number);
        let mut fresh = self.ring.take_spare();
        let before = self
            .ring
            .newest()
            .map(|slot| (&self.exact, &*slot.snapshot));
        let out = Arc::get_mut(&mut fresh).expect("a spare snapshot has one holder");
        let report = self
            .quantizer
            .quantize(&self.layout, &mut self.shapes, snapshot, before, out);
        let is_same = before.is_some() && report.changed == 0 && report.removed == 0;
        if is_same {
            self.ring.push_same(number, tick);
            self.ring.recycle(fresh);
            self.statistics.unchanged += 1;
        } else {
            if !before.is_some_and(|(_, before)| have_same_ids(before, &fresh)) {
                self.same_ids_since = number;
            }
            copy(snapshot, &mut self.exact);
            self.ring.push(number, tick, fresh);
        }
        self.statistics.snapshots += 1;
        self.statistics.clamped += report.clamped;
        self.statistics.left_out += report.left_out as u64;
        report
    }

    /// The settings.
    #[must_use]
    pub const fn config(&self) -> PublisherConfig {
        self.config
    }

    /// How rows are quantized.
    #[must_use]
    pub const fn layout(&self) -> &Arc<WireLayout> {
        &self.layout
    }

    /// The combinations of components so far.
    #[must_use]
    pub const fn shapes(&self) -> &Shapes {
        &self.shapes
    }

    /// Takes over the snapshot at `tick` of `other`, which shows it by the same rules: so that some
    /// get it later. Ticks ascend.
    pub(crate) fn publish_from(
        &mut self,
        other: &Self,
        tick: Tick,
        snapshot: &Arc<QuantizedSnapshot>,
    ) {
        let number = tick.number().div_ceil(self.config.snapshot_ticks);
        self.begin(number);
        self.rules.clone_from(&other.rules);
        if self.shapes.count() < other.shapes.count() {
            self.shapes.clone_from(&other.shapes);
        }
        let newest = self.ring.newest();
        if newest.is_some_and(|newest| Arc::ptr_eq(&newest.snapshot, snapshot)) {
            self.ring.push_same(number, tick);
            self.statistics.unchanged += 1;
        } else {
            if !newest.is_some_and(|newest| have_same_ids(&newest.snapshot, snapshot)) {
                self.same_ids_since = number;
            }
            self.ring.push(number, tick, Arc::clone(snapshot));
        }
        self.statistics.snapshots += 1;
    }

    /// Makes room for what is made of snapshot `number`.
    fn begin(&mut self, number: u32) {
        self.sights.clear();
        self.stores.rotate_right(1);
        let [present, _] = &mut self.stores;
        present.number = Some(number);
        present.store.clear();
        present.parts.clear();
        self.rotation.turn();
        self.part_bits.0 = self.part_bits.1;
        self.is_busy = self.work > if self.is_busy { BUSY_TO } else { BUSY_FROM };
        self.work = 0;
        let (now, mean) = self.demand;
        let mean = mean - mean / 4 + now / 4;
        self.demand = (0, mean);
        self.is_crowded = mean > if self.is_crowded { BUSY_TO } else { BUSY_FROM };
        self.indexed = None;
    }

    /// Counters.
    #[must_use]
    pub const fn statistics(&self) -> &PublisherStatistics {
        &self.statistics
    }

    /// Tick of the newest snapshot.
    #[must_use]
    pub fn newest(&self) -> Option<Tick> {
        self.ring.newest().map(|slot| slot.tick)
    }

    /// The snapshot at `tick`, one of the last [`STATE_RING_SNAPSHOTS`](crate::limits::STATE_RING_SNAPSHOTS). Its own tick is older if
    /// nothing has changed since.
    #[must_use]
    pub fn at(&self, tick: Tick) -> Option<&Arc<QuantizedSnapshot>> {
        let slot = self
            .ring
            .slot(tick.number().div_ceil(self.config.snapshot_ticks))?;
        (slot.tick == tick).then_some(&slot.snapshot)
    }

    /// The snapshots that are kept, newest first.
    pub(crate) fn newest_first(&self) -> impl Iterator<Item = &QuantizedSnapshot> {
        self.ring.newest_first()
    }

    /// The same with their numbers and ticks.
    pub(crate) fn slots_newest_first(
        &self,
    ) -> impl Iterator<Item = (u32, Tick, &Arc<QuantizedSnapshot>)> {
        self.ring.slots_newest_first()
    }

    /// Bytes that the ring takes: at most [`STATE_RING_SNAPSHOTS`](crate::limits::STATE_RING_SNAPSHOTS) snapshots, of the size that
    /// [`QuantizedSnapshot::memory`] says.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.ring.memory()
    }

    /// Counts from here on where the bits of bodies go, or stops to: here, where bodies that
    /// several clients share count once, and for each client in its [`Subscription::ledger`].
    ///
    /// [`Subscription::ledger`]: super::Subscription::ledger
    pub fn set_tally(&mut self, on: bool) {
        if on != self.made.is_some() {
            self.encoder.set_tally(on);
            self.made = on.then(Box::default);
        }
    }

    /// Where bits of bodies went since the tally was switched on, without their heads.
    #[must_use]
    pub fn tally(&self) -> Option<&Tally> {
        self.made.as_deref()
    }
}

/// Makes `to` equal to `from` in the memory that it has.
fn copy(from: &Snapshot, to: &mut Snapshot) {
    to.tick = from.tick;
    to.kinds.resize_with(from.kinds.len(), KindRows::default);
    for (from, to) in from.kinds.iter().zip(&mut to.kinds) {
        to.ids.clone_from(&from.ids);
        to.ends.clone_from(&from.ends);
        to.bytes.clone_from(&from.bytes);
    }
}

/// Whether the same entities are in two snapshots.
fn have_same_ids(a: &QuantizedSnapshot, b: &QuantizedSnapshot) -> bool {
    let (a, b) = (a.heads(), b.heads());
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.id == b.id)
}

/// The tick of snapshot `number`, as far as records care.
pub(super) const fn stamp(number: u32, snapshot_ticks: u32) -> Tick {
    Tick::new(number.saturating_mul(snapshot_ticks))
}

/// What part bodies are made with.
pub(super) struct PartTools<'a> {
    pub(super) encoder: &'a mut Encoder,
    pub(super) shapes: &'a Shapes,
    pub(super) ring: &'a Ring,
    /// What was made for others.
    pub(super) shared: Option<&'a mut SharedParts>,
}

/// For subscriptions.
impl Publisher {
    pub(super) fn newest_number(&self) -> Option<u32> {
        self.ring.newest().map(|slot| slot.number)
    }

    /// The tick that stands for snapshot `number` in records. That of the last one of a session may
    /// be up to a snapshot later than its real one.
    pub(super) const fn stamp(&self, number: u32) -> Tick {
        stamp(number, self.config.snapshot_ticks)
    }

    /// The tick of snapshot `number`.
    pub(super) fn tick(&self, number: u32) -> Option<Tick> {
        self.ring.slot(number).map(|slot| slot.tick)
    }

    pub(super) fn snapshot(&self, number: u32) -> Option<&Arc<QuantizedSnapshot>> {
        self.ring.get(number)
    }

    /// Whether nothing has changed between two snapshots.
    pub(super) fn is_same(&self, a: u32, b: u32) -> bool {
        match (self.ring.get(a), self.ring.get(b)) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (None, _) | (_, None) => false,
        }
    }

    /// Makes the index of the newest snapshot, if there is none yet.
    pub(super) fn index_newest(&mut self) {
        let Some(newest) = self.ring.newest() else {
            return;
        };
        if self.indexed == Some(newest.number) {
            return;
        }
        self.indexed = Some(newest.number);
        let interest = self.rules.interest.map(|interest| interest.radius);
        let reach = interest.filter(|radius| radius.is_finite());
        self.index
            .build(&self.layout, &self.shapes, &newest.snapshot, reach);
        self.changes.clear();
        let heads = newest.snapshot.heads().iter();
        self.changes.extend(heads.map(|head| stands(head.changed)));
    }

    /// When each entity of the snapshot of the index changed, as [`stands`] has it.
    pub(super) fn changes(&self) -> &[u32] {
        &self.changes
    }

    pub(super) const fn index(&self) -> &WorldIndex {
        &self.index
    }

    /// What `viewer` sees of the newest snapshot.
    pub(super) fn sight(&mut self, viewer: &Viewer, outlook: &mut Outlook) -> Sight {
        if self.rules.show_all() {
            return Sight::All;
        }
        self.index_newest();
        let Some(newest) = self.ring.newest() else {
            return Sight::All;
        };
        let mut shared = self.spare_entries.pop().unwrap_or_default();
        if Arc::get_mut(&mut shared).is_none() {
            shared = Arc::default();
        }
        let entries = Arc::get_mut(&mut shared).expect("a spare view has one holder");
        let is_all = self.rules.sight(
            viewer,
            outlook,
            &newest.snapshot,
            &self.shapes,
            &self.index,
            entries,
        );
        if is_all {
            self.spare_entries.push(shared);
            return Sight::All;
        }
        if let Some(known) = self.sights.iter().find(|known| **known == shared) {
            let known = Arc::clone(known);
            self.spare_entries.push(shared);
            return Sight::Some(known);
        }
        self.sights.push(Arc::clone(&shared));
        Sight::Some(shared)
    }

    /// What `viewer`, who has seen nothing before, sees of snapshot `number`, and the hash of that.
    pub(super) fn look_back(
        &mut self,
        viewer: &Viewer,
        outlook: &mut Outlook,
        number: u32,
    ) -> Option<(Sight, u64)> {
        let snapshot = Arc::clone(self.ring.get(number)?);
        let sight = if self.rules.show_all() {
            Sight::All
        } else {
            let reach = self.rules.interest.map(|interest| interest.radius);
            let reach = reach.filter(|radius| radius.is_finite());
            self.indexed = None;
            self.index
                .build(&self.layout, &self.shapes, &snapshot, reach);
            let mut entries = Vec::new();
            let (rules, index) = (&self.rules, &self.index);
            let is_all = rules.sight(
                viewer,
                outlook,
                &snapshot,
                &self.shapes,
                index,
                &mut entries,
            );
            if is_all {
                Sight::All
            } else {
                Sight::Some(Arc::new(entries))
            }
        };
        let (layout, shapes) = (&self.layout, &self.shapes);
        let hash = self.hashes.view(layout, shapes, number, &snapshot, &sight);
        Some((sight, hash))
    }

    /// Takes the memory of a view that is no longer needed.
    pub(super) fn recycle(&mut self, sight: Sight) {
        if let Sight::Some(entries) = sight
            && self.spare_entries.len() < SPARE_VIEWS_MAX
            && Arc::strong_count(&entries) == 1
        {
            self.spare_entries.push(entries);
        }
    }

    /// The hash of what `sight` shows of the newest snapshot.
    pub(super) fn view_hash(&mut self, sight: &Sight) -> Option<u64> {
        let newest = self.ring.newest()?;
        Some(self.hashes.view(
            &self.layout,
            &self.shapes,
            newest.number,
            &newest.snapshot,
            sight,
        ))
    }

    /// Takes what was counted of the body that was just made; `None` if nobody looks.
    pub(super) fn take_tally(&mut self) -> Option<Tally> {
        let made = self.made.as_mut()?;
        let tally = self.encoder.take_tally()?;
        made.add(&tally);
        Some(tally)
    }

    /// What part bodies of snapshot `number` are made with: with those made for others, unless
    /// someone looks where the bits of each went.
    pub(super) fn part_tools(&mut self, number: u32) -> PartTools<'_> {
        let mut stores = self.stores.iter_mut();
        let shared = stores.find(|it| it.number == Some(number));
        PartTools {
            encoder: &mut self.encoder,
            shapes: &self.shapes,
            ring: &self.ring,
            shared: shared
                .filter(|_| self.made.is_none())
                .map(|it| &mut it.parts),
        }
    }

    /// Number of the snapshot since which the same entities are there.
    pub(super) const fn same_ids_since(&self) -> u32 {
        self.same_ids_since
    }

    /// Bits that an entity takes in bodies of parts of everything.
    pub(super) const fn part_bits(&self) -> u32 {
        self.part_bits.0
    }

    pub(super) const fn note_part_bits(&mut self, bits: u32) {
        self.part_bits.1 = bits;
    }

    /// Where clients that cannot get all of the newest snapshot begin.
    pub(super) const fn rotation(&self) -> NetId {
        self.rotation.start()
    }

    /// One of them got these entities of snapshot `number`.
    pub(super) fn note_rotation(&mut self, number: u32, sent: &[NetId]) {
        if self.newest_number() == Some(number) {
            sent.iter().for_each(|&id| self.rotation.reach(id));
        }
    }

    /// Takes note of a part body: whether it was made for another client, or of how many entities
    /// it was made.
    pub(super) const fn note_part(&mut self, is_shared: bool, entities: usize) {
        self.demand.0 += entities;
        if is_shared {
            self.statistics.parts_shared += 1;
        } else {
            self.statistics.parts_made += 1;
            self.work += entities;
        }
    }

    /// Takes note that a client's records were looked at, so many of them.
    pub(super) const fn note_look(&mut self, records: usize) {
        self.work += records / RECORDS_PER_ENTITY;
    }

    /// Whether so many clients lack so much that they should go round together: it costs each some
    /// of its budget, as bodies are full or not there.
    pub(super) const fn is_crowded(&self) -> bool {
        self.is_crowded
    }

    /// Whether there is so much to do for single clients that they should take turns.
    pub(super) const fn is_busy(&self) -> bool {
        self.is_busy
    }
}
