//! The input of one slot for one tick: eight bytes.

use phalanx::Exact;
use phalanx::math::Vec2;

use super::{FIELD_M, SquadOrder};

/// What a player wants in one tick.
///
/// Every part says how things should be rather than what changed, so that an input that is
/// repeated in place of a late one does no harm.
#[derive(Exact, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Command {
    /// Where the hero goes: each part -127 to 127, full speed at length 127.
    pub direction: [i8; 2],
    /// What the hero does.
    pub buttons: Buttons,
    /// Squads (low half, one bit each) and what they are to do (high half, see [`Verb`]).
    pub order: u8,
    /// The order's place, in 1/65536 of the field's side.
    pub target: [u16; 2],
}

/// Buttons that are held, one bit each.
#[derive(Exact, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Buttons(pub u8);

impl Buttons {
    /// The hero strikes all enemies around itself, as soon as it can.
    pub const STRIKE: Self = Self(1);

    /// Whether all buttons of `other` are held.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// What squads are to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// What they do already.
    Keep,
    /// Take control points.
    Seek,
    /// Go to the order's place.
    Go,
    /// Stay.
    Hold,
    /// Go with the hero.
    Follow,
}

/// Mask of all squads.
pub const ALL_SQUADS: u8 = 0b1111;

impl Command {
    /// This command with an order for the squads of `mask`, to or at `place` (in metres).
    #[must_use]
    pub fn ordering(mut self, mask: u8, verb: Verb, place: Vec2) -> Self {
        let number = match verb {
            Verb::Keep => 0,
            Verb::Seek => 1,
            Verb::Go => 2,
            Verb::Hold => 3,
            Verb::Follow => 4,
        };
        self.order = mask & ALL_SQUADS | number << 4;
        self.target = [quantize(place.x), quantize(place.y)];
        self
    }

    /// The hero's way in this tick; length 1 at most.
    pub(super) fn way(&self) -> Vec2 {
        let [x, y] = self.direction.map(|part| f32::from(part) / 127.0);
        Vec2::new(x, y).clamp_length_max(1.0)
    }

    /// Whether the order is for `squad`.
    pub(super) fn concerns(&self, squad: usize) -> bool {
        self.order & ALL_SQUADS & 1 << squad != 0
    }

    /// The order, or `None` to keep the one before. Numbers that mean nothing change nothing.
    pub(super) fn squad_order(&self) -> Option<SquadOrder> {
        match self.order >> 4 {
            1 => Some(SquadOrder::Seek),
            2 => Some(SquadOrder::Go(self.place())),
            3 => Some(SquadOrder::Hold),
            4 => Some(SquadOrder::Follow),
            _ => None,
        }
    }

    fn place(&self) -> Vec2 {
        let [x, y] = self
            .target
            .map(|part| f32::from(part) * (FIELD_M / 65_536.0));
        Vec2::new(x, y)
    }
}

fn quantize(metres: f32) -> u16 {
    let scaled = (metres * (65_536.0 / FIELD_M)).clamp(0.0, 65_535.0);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to the type's range on the line above; NaN becomes 0"
    )]
    {
        scaled as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_has_eight_bytes() {
        let mut bytes = Vec::new();
        Command::default().write_exact(&mut bytes);
        assert_eq!(bytes.len(), 8);
    }

    #[test]
    fn orders_arrive_where_they_were_sent() {
        let command = Command::default().ordering(0b0101, Verb::Go, Vec2::new(150.0, 2.5));
        assert!(command.concerns(0) && command.concerns(2));
        assert!(!command.concerns(1) && !command.concerns(3));
        let Some(SquadOrder::Go(place)) = command.squad_order() else {
            panic!("{command:?}");
        };
        assert!(place.distance(Vec2::new(150.0, 2.5)) < 0.01, "{place}");
    }

    #[test]
    fn any_bytes_are_a_harmless_command() {
        let far = Command {
            direction: [-128, 127],
            order: 0xff,
            ..Command::default()
        };
        assert!(far.way().length() <= 1.0001);
        assert_eq!(far.squad_order(), None);
    }
}
