//! The kinds of the test's schema as lanes in groups, by chapters 9.1 and 10.8 of the document.

/// Bounds of a lane.
#[derive(Clone, Copy)]
pub(super) struct Lane {
    pub(super) min: i64,
    pub(super) max: i64,
}

impl Lane {
    pub(super) fn bits(self) -> u32 {
        let span = u64::try_from(self.max - self.min).unwrap();
        64 - span.leading_zeros()
    }
}

/// Lanes that change together.
#[derive(Clone)]
pub(super) struct Group {
    pub(super) class: usize,
    pub(super) lanes: Vec<Lane>,
    /// Of residuals and courses.
    pub(super) family: usize,
    /// Predicted as last.
    pub(super) is_last: bool,
    /// Lanes per unit of the game, of a position.
    pub(super) per_unit: Option<f64>,
}

pub(super) const FLAGS: usize = 0;
pub(super) const VECTORS: usize = 1;
pub(super) const NUMBERS: usize = 2;
pub(super) const ROTATIONS: usize = 3;
pub(super) const HALVES: usize = 4;
pub(super) const IDS: usize = 5;

impl Group {
    pub(super) fn new(class: usize, count: usize, min: i64, max: i64) -> Self {
        Self {
            class,
            lanes: vec![Lane { min, max }; count],
            family: match class {
                VECTORS => 1,
                NUMBERS => 2,
                _ => 3,
            },
            is_last: false,
            per_unit: None,
        }
    }

    pub(super) fn rotation(bits: u32) -> Self {
        let mut group = Self::new(ROTATIONS, 4, 0, (1 << bits) - 1);
        group.lanes[0].max = 3;
        group
    }

    pub(super) fn position(mut self, per_unit: f64) -> Self {
        self.family = 0;
        self.per_unit = Some(per_unit);
        self
    }

    pub(super) fn last(mut self) -> Self {
        self.is_last = true;
        self
    }
}

/// A kind that clients get.
#[derive(Clone, Default)]
pub(super) struct Kind {
    pub(super) groups: Vec<Group>,
    pub(super) is_opaque: bool,
}
