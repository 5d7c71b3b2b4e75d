//! Whole bodies of the newest snapshot, made once per distinct view and references.

use std::sync::Arc;

use crate::delta::{Reference, Tally, WholeEnd};
use crate::id::NetId;
use crate::limits::SNAPSHOT_BYTES_MAX;
use crate::wire::bytes::put_varint;

use super::super::head::BODY_REFERENCES_MAX;
use super::super::interest::Sight;
use super::Publisher;

/// Bytes of a whole body behind its head, at most: what a datagram without control messages has
/// room for, and some more.
pub(super) const BODY_BYTES_MAX: usize = 1040;
/// The bodies of one view against some references.
#[derive(Debug, Default)]
struct Stored {
    references: Vec<(u32, Sight)>,
    sight: Option<Sight>,
    bytes: Vec<u8>,
    /// Where each body ends.
    ends: Vec<usize>,
    /// Where the bits of each body went, if someone looks.
    tallies: Vec<Tally>,
    /// Whether the bodies are all there; otherwise they would have been more, or larger, than these
    /// limits say.
    is_whole: bool,
    bodies_max: usize,
    bytes_max: usize,
}

/// All bodies of the newest snapshot.
#[derive(Debug, Default)]
pub(super) struct Store {
    /// The first `used` are of this snapshot; the others are kept for their memory.
    stored: Vec<Stored>,
    used: usize,
    keyframes: Vec<Whole>,
}

/// A snapshot in one piece, as some see it.
#[derive(Debug)]
struct Whole {
    sight: Sight,
    epoch: u8,
    made: KeyframeBytes,
}

/// The bytes of a keyframe.
#[derive(Clone, Debug)]
pub(in super::super) struct KeyframeBytes {
    pub(in super::super) bytes: Arc<[u8]>,
    /// Where all of its bits go, if someone looks.
    pub(in super::super) tally: Option<Arc<Tally>>,
}

impl Store {
    pub(super) fn clear(&mut self) {
        for stored in &mut self.stored[..self.used] {
            stored.references.clear();
            stored.sight = None;
        }
        self.used = 0;
        self.keyframes.clear();
    }
}

impl Stored {
    fn is_of<'a>(
        &self,
        mut references: impl Iterator<Item = (u32, &'a Sight)>,
        sight: &Sight,
    ) -> bool {
        let same_references = self.references.iter().all(|(number, known)| {
            references
                .next()
                .is_some_and(|(other, sight)| *number == other && known.same(sight))
        });
        same_references
            && references.next().is_none()
            && self.sight.as_ref().is_some_and(|known| known.same(sight))
    }
}

impl Publisher {
    /// The bodies that tell of what `sight` shows of the newest snapshot, given `references` (number
    /// and view, the base first), if they are at most so many with so many bytes in all.
    pub(in super::super) fn store_whole<'a>(
        &mut self,
        references: impl Iterator<Item = (u32, &'a Sight)> + Clone,
        sight: &Sight,
        bodies_max: usize,
        bytes_max: usize,
    ) -> Option<usize> {
        let [present, _] = &mut self.stores;
        let store = &mut present.store;
        let used = store.used;
        let known = store.stored[..used]
            .iter()
            .position(|stored| stored.is_of(references.clone(), sight));
        let at = match known {
            Some(at) => {
                let stored = &store.stored[at];
                let is_enough = stored.is_whole
                    || stored.bodies_max >= bodies_max && stored.bytes_max >= bytes_max;
                if is_enough {
                    self.statistics.bodies_shared += 1;
                } else {
                    self.make_bodies(at, bodies_max, bytes_max);
                }
                at
            }
            None => {
                if store.stored.len() == used {
                    store.stored.push(Stored::default());
                }
                let stored = &mut store.stored[used];
                stored.references.clear();
                stored
                    .references
                    .extend(references.map(|(number, sight)| (number, sight.clone())));
                stored.sight = Some(sight.clone());
                store.used += 1;
                self.make_bodies(used, bodies_max, bytes_max);
                used
            }
        };
        let stored = &self.stores[0].store.stored[at];
        let fits =
            stored.is_whole && stored.ends.len() <= bodies_max && stored.bytes.len() <= bytes_max;
        fits.then_some(at)
    }

    fn make_bodies(&mut self, at: usize, bodies_max: usize, bytes_max: usize) {
        let [present, _] = &mut self.stores;
        let stored = &mut present.store.stored[at];
        stored.bytes.clear();
        stored.ends.clear();
        stored.tallies.clear();
        stored.is_whole = false;
        stored.bodies_max = bodies_max;
        stored.bytes_max = bytes_max;
        let (Some(newest), Some(sight)) = (self.ring.newest(), &stored.sight) else {
            return;
        };
        self.work += sight.len(&newest.snapshot);
        let now = sight.view(&newest.snapshot);
        let mut references = [Reference { age: 0, view: now }; BODY_REFERENCES_MAX];
        let mut count = 0;
        for ((number, sight), reference) in stored.references.iter().zip(&mut references) {
            let Some(snapshot) = self.ring.get(*number) else {
                return;
            };
            reference.age = newest.number - number;
            reference.view = sight.view(snapshot);
            count += 1;
        }
        let mut from = NetId::NONE;
        loop {
            if stored.ends.len() == bodies_max || stored.bytes.len() > bytes_max {
                return;
            }
            let end = self.encoder.encode_whole(
                &self.shapes,
                now,
                &references[..count],
                from,
                BODY_BYTES_MAX,
                &mut stored.bytes,
            );
            if let (Some(made), Some(tally)) = (&mut self.made, self.encoder.take_tally()) {
                made.add(&tally);
                stored.tallies.push(tally);
            }
            match end {
                WholeEnd::TooLarge(_) => return,
                WholeEnd::Done => {
                    stored.ends.push(stored.bytes.len());
                    break;
                }
                WholeEnd::Next(next) => {
                    stored.ends.push(stored.bytes.len());
                    from = next;
                }
            }
        }
        self.statistics.bodies_made += stored.ends.len() as u64;
        stored.is_whole = true;
    }

    /// Body `index` of those stored as `at` of snapshot `number`, and whether it is the last. `None`
    /// if it is forgotten.
    pub(in super::super) fn stored_body(
        &self,
        number: u32,
        at: usize,
        index: u8,
    ) -> Option<(&[u8], bool)> {
        let stored = self.stored(number, at)?;
        let index = usize::from(index);
        let start = index.checked_sub(1).map_or(0, |before| stored.ends[before]);
        let body = &stored.bytes[start..stored.ends[index]];
        Some((body, index + 1 == stored.ends.len()))
    }

    /// Where the bits of that body went, if someone looks.
    pub(in super::super) fn stored_tally(
        &self,
        number: u32,
        at: usize,
        index: u8,
    ) -> Option<&Tally> {
        self.stored(number, at)?.tallies.get(usize::from(index))
    }

    fn stored(&self, number: u32, at: usize) -> Option<&Stored> {
        let mut stores = self.stores.iter();
        let its = stores.find(|it| it.number == Some(number))?;
        its.store.stored[..its.store.used].get(at)
    }

    /// The newest snapshot as `sight` shows it in one piece, behind the epoch and the tick.
    pub(in super::super) fn keyframe_bytes(
        &mut self,
        sight: &Sight,
        epoch: u8,
    ) -> Option<KeyframeBytes> {
        let newest = self.ring.newest()?;
        let known = self.stores[0]
            .store
            .keyframes
            .iter()
            .find(|known| known.epoch == epoch && known.sight.same(sight));
        if let Some(known) = known {
            self.statistics.bodies_shared += 1;
            return Some(known.made.clone());
        }
        let mut bytes = vec![epoch];
        put_varint(&mut bytes, u64::from(newest.tick.number()));
        let end = self.encoder.encode_whole(
            &self.shapes,
            sight.view(&newest.snapshot),
            &[],
            NetId::NONE,
            SNAPSHOT_BYTES_MAX,
            &mut bytes,
        );
        let tally = self.encoder.take_tally();
        if end != WholeEnd::Done {
            return None;
        }
        let made = KeyframeBytes {
            tally: tally.map(|mut tally| {
                tally.fill_up(bytes.len() as u64);
                Arc::new(tally)
            }),
            bytes: bytes.into(),
        };
        self.stores[0].store.keyframes.push(Whole {
            sight: sight.clone(),
            epoch,
            made: made.clone(),
        });
        Some(made)
    }
}
