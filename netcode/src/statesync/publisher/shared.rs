//! Part bodies of which several clients get the same, made once.
//!
//! A part body is the same for two clients if it tells of the same entities of one snapshot against
//! the same older values, in as much room. That is so for clients that see everything and lost
//! nothing lately, because what they get next follows from a place in the world that turns for all
//! of them together: the *rotation*.

use crate::hash::mix;
use crate::id::NetId;

use super::super::records::Record;
use super::super::subscription::GAP_MAX;
use super::store::BODY_BYTES_MAX;

/// Bodies of one snapshot that are kept, at most.
const BODIES_MAX: usize = 256;

/// What an item of a part body is made from, next to the snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Origin {
    id: NetId,
    /// Whether it is a tombstone, and which acked values are references.
    past: u64,
}

impl Origin {
    fn of(record: &Record) -> Self {
        let past = match record.acked {
            _ if record.is_ghost => 1,
            None => 0,
            Some(acked) => {
                // Of what else was acked only the newest is a reference, if it is not too old.
                let gap = u64::from(record.acks.trailing_zeros().min(GAP_MAX));
                2 | gap << 2 | u64::from(acked.number()) << 16
            }
        };
        Self {
            id: record.id,
            past,
        }
    }
}

/// A body that was made.
#[derive(Debug, Default)]
struct Made {
    hash: u64,
    room: usize,
    /// What it was tried with: as many as fitted are in it.
    origins: Vec<Origin>,
    pushed: usize,
    bytes: Vec<u8>,
}

/// The part bodies of one snapshot.
#[derive(Debug, Default)]
pub(in super::super) struct SharedParts {
    /// The first `used` are of this snapshot; the others are kept for their memory.
    made: Vec<Made>,
    used: usize,
    /// Records that each has room for.
    origins_max: usize,
    /// What was asked for last.
    origins: Vec<Origin>,
    hash: u64,
    room: usize,
}

impl SharedParts {
    pub(super) const fn clear(&mut self) {
        self.used = 0;
    }

    /// The body of so many bytes at most that tells of `records`, if it was made, and how many of
    /// them are in it.
    pub(in super::super) fn find<'a>(
        &mut self,
        room: usize,
        records: impl Iterator<Item = &'a Record>,
    ) -> Option<(&[u8], usize)> {
        self.origins.clear();
        self.origins.extend(records.map(Origin::of));
        self.room = room;
        self.hash = self
            .origins
            .iter()
            .fold(0, |hash, origin| mix(hash ^ origin.past, origin.id.bits()));
        let known = self.made[..self.used].iter().find(|made| {
            made.hash == self.hash && made.room == room && made.origins == self.origins
        });
        known.map(|made| (&made.bytes[..], made.pushed))
    }

    /// Keeps what was asked for last: `bytes`, with the first `pushed` of its records.
    pub(in super::super) fn keep(&mut self, bytes: &[u8], pushed: usize) {
        if self.used >= BODIES_MAX {
            return;
        }
        self.make_room();
        let made = &mut self.made[self.used];
        self.used += 1;
        made.hash = self.hash;
        made.room = self.room;
        made.origins.clear();
        made.origins.extend_from_slice(&self.origins);
        made.pushed = pushed;
        made.bytes.clear();
        made.bytes.extend_from_slice(bytes);
    }

    /// Takes memory for twice as many bodies, or for twice as long ones, when there is too little: so
    /// that a steady host soon takes none.
    fn make_room(&mut self) {
        let is_longer = self.origins.len() > self.origins_max;
        let is_more = self.made.len() == self.used;
        if is_longer {
            self.origins_max = self.origins.len().next_power_of_two();
        }
        if is_more {
            let count = (2 * self.used).clamp(16, BODIES_MAX);
            self.made.resize_with(count, Made::default);
        }
        if is_longer || is_more {
            for made in &mut self.made {
                made.origins
                    .reserve(self.origins_max - made.origins.len().min(self.origins_max));
                made.bytes
                    .reserve(BODY_BYTES_MAX - made.bytes.len().min(BODY_BYTES_MAX));
            }
        }
    }
}

/// Where in the world, by NetId, clients that cannot get all of it go on at the next snapshot.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rotation {
    start: u64,
    /// How far beyond the start somebody got, round the end of the ids.
    reached: u64,
}

impl Rotation {
    pub(super) const fn turn(&mut self) {
        self.start = self.start.wrapping_add(self.reached);
        self.reached = 0;
    }

    pub(super) const fn start(self) -> NetId {
        NetId::from_bits(self.start)
    }

    pub(super) fn reach(&mut self, last: NetId) {
        let distance = last.bits().wrapping_add(1).wrapping_sub(self.start);
        self.reached = self.reached.max(distance);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotation_goes_on_behind_the_furthest_and_round_the_end() {
        let mut rotation = Rotation::default();
        rotation.reach(NetId::from_bits(9));
        rotation.reach(NetId::from_bits(4));
        assert_eq!(rotation.start(), NetId::from_bits(0));
        rotation.turn();
        assert_eq!(rotation.start(), NetId::from_bits(10));
        rotation.reach(NetId::from_bits(20));
        rotation.reach(NetId::from_bits(3));
        rotation.turn();
        assert_eq!(rotation.start(), NetId::from_bits(4));
        rotation.turn();
        assert_eq!(rotation.start(), NetId::from_bits(4), "nobody went on");
    }
}
