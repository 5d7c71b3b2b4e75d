//! Who stands where: a uniform grid over the field, made anew in every tick.
//!
//! It is no state. [`Field::survey`] fills it from positions in the order of NetIds, before any
//! system of the tick reads it, so that neighbours are visited in the same order on every node.

use phalanx::prelude::*;

use super::FIELD_M;

/// Side of a cell, in metres; nobody sees further.
pub(super) const CELL_M: f32 = 4.0;
/// Cells along one side of the field.
const CELLS: usize = 50;

/// Everyone who can see and be hit, by NetId and by place.
#[derive(Resource, Debug, Default)]
pub(super) struct Field {
    /// Ascending.
    ids: Vec<NetId>,
    seen: Vec<Seen>,
    /// First entry of each cell in `by_cell`, and one end.
    starts: Vec<u32>,
    /// Everyone by cell, row by row; within a cell by NetId.
    by_cell: Vec<Seen>,
    cells: Vec<u16>,
    /// Hits of this tick, by index.
    hits: Vec<Hit>,
}

/// Someone on the field.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Seen {
    pub(super) position: Vec2,
    /// Place in the order of NetIds.
    pub(super) index: u32,
    pub(super) slot: Slot,
}

/// What someone takes in this tick.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Hit {
    pub(super) damage: u16,
    /// Whose hit was the last one.
    pub(super) by: Slot,
}

impl Field {
    /// Takes stock of everyone. `all` must go by NetId ascending.
    pub(super) fn survey(&mut self, all: impl Iterator<Item = (NetId, Vec2, Slot)>) {
        self.ids.clear();
        self.seen.clear();
        self.cells.clear();
        self.starts.clear();
        self.starts.resize(CELLS * CELLS + 1, 0);
        for (index, (id, position, slot)) in (0..).zip(all) {
            self.ids.push(id);
            self.seen.push(Seen {
                position,
                index,
                slot,
            });
            let cell = cell_of(position.y) * CELLS + cell_of(position.x);
            self.starts[cell + 1] += 1;
            self.cells
                .push(u16::try_from(cell).expect("CELLS * CELLS fits 16 bits"));
        }
        let mut sum = 0;
        for start in &mut self.starts {
            sum += *start;
            *start = sum;
        }
        // A counting sort keeps the order of NetIds within a cell.
        self.by_cell.clear();
        self.by_cell.resize(self.seen.len(), Seen::default());
        for (seen, &cell) in self.seen.iter().zip(&self.cells) {
            let place = &mut self.starts[usize::from(cell)];
            self.by_cell[*place as usize] = *seen;
            *place += 1;
        }
        // Placing moved each start to its cell's end, which is the start of the next one.
        self.starts.rotate_right(1);
        self.starts[0] = 0;
        self.hits.clear();
        self.hits.resize(self.seen.len(), Hit::default());
    }

    /// Where `id` stands, if it is on the field.
    pub(super) fn find(&self, id: NetId) -> Option<Seen> {
        if id.is_none() {
            return None;
        }
        Some(self.seen[self.ids.binary_search(&id).ok()?])
    }

    /// The id of the one with this index.
    pub(super) fn id(&self, index: u32) -> NetId {
        self.ids[index as usize]
    }

    /// Everyone in the cells that `radius` metres around `centre` touch, and some beyond.
    pub(super) fn around(&self, centre: Vec2, radius: f32) -> impl Iterator<Item = &Seen> {
        let columns = cell_of(centre.x - radius)..=cell_of(centre.x + radius);
        let rows = cell_of(centre.y - radius)..=cell_of(centre.y + radius);
        rows.flat_map(move |row| {
            let first = self.starts[row * CELLS + columns.start()];
            let end = self.starts[row * CELLS + columns.end() + 1];
            &self.by_cell[first as usize..end as usize]
        })
    }

    /// Adds a hit of `by` on the one with this index. Call in the order of NetIds.
    pub(super) fn hit(&mut self, index: u32, damage: u16, by: Slot) {
        let hit = &mut self.hits[index as usize];
        hit.damage = hit.damage.saturating_add(damage);
        hit.by = by;
    }

    /// What everyone takes, by NetId ascending.
    pub(super) fn hits(&self) -> impl Iterator<Item = Hit> {
        self.hits.iter().copied()
    }
}

fn cell_of(metres: f32) -> usize {
    const { assert!(CELLS as f32 * CELL_M == FIELD_M) };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a float cast saturates: below 0 is cell 0, and NaN too"
    )]
    let cell = (metres / CELL_M) as usize;
    cell.min(CELLS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use phalanx::netcode::prng::Prng;

    #[test]
    fn the_grid_finds_all_that_a_search_finds_in_the_order_of_ids() {
        let seed = 4;
        let mut prng = Prng::new(seed);
        let mut place = || Vec2::new(prng.range_f32(0.0, FIELD_M), prng.range_f32(0.0, FIELD_M));
        let all: Vec<(NetId, Vec2, Slot)> = (1..400)
            .map(|bits| (NetId::from_bits(bits * 3), place(), Slot(1)))
            .collect();
        let mut field = Field::default();
        for _ in 0..2 {
            field.survey(all.iter().copied());
        }
        for &(id, position, _) in &all {
            assert_eq!(field.find(id).map(|seen| seen.position), Some(position));
            let near = |other: &Vec2| other.distance(position) <= CELL_M;
            let mut found: Vec<u32> = field
                .around(position, CELL_M)
                .filter(|seen| near(&seen.position))
                .map(|seen| seen.index)
                .collect();
            found.sort_unstable();
            let expected: Vec<u32> = (0..)
                .zip(&all)
                .filter(|(_, (_, other, _))| near(other))
                .map(|(index, _)| index)
                .collect();
            assert_eq!(found, expected, "seed {seed}");
        }
        assert_eq!(field.find(NetId::from_bits(4)), None);
        assert_eq!(field.find(NetId::NONE), None);
        for start in 0..CELLS * CELLS {
            let cell = field.starts[start] as usize..field.starts[start + 1] as usize;
            assert!(field.by_cell[cell].is_sorted_by(|a, b| a.index < b.index));
        }
    }
}
