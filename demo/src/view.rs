//! The field as text: a few thousand units in a few hundred characters.

use std::fmt::Write as _;

use phalanx::ShownWorld;
use phalanx::prelude::*;

use crate::arena::{ControlPoint, Downed, FIELD_M, Hero, Position, Standing, Unit, standings};

/// Foreground colours of the first slots, as ANSI numbers; further slots begin anew.
const COLOURS: [u8; 8] = [31, 34, 32, 33, 35, 36, 91, 94];

/// Size and style of a drawing.
#[derive(Clone, Copy, Debug)]
pub struct Canvas {
    /// Characters per line.
    pub columns: usize,
    /// Lines.
    pub rows: usize,
    /// Whether to use ANSI colours.
    pub colours: bool,
}

impl Canvas {
    /// 60 characters in 20 lines.
    #[must_use]
    pub const fn new(colours: bool) -> Self {
        Self {
            columns: 60,
            rows: 20,
            colours,
        }
    }
}

/// What is seen at one place; later variants cover earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Mark {
    Nothing,
    Units(Slot),
    Point(Option<Slot>),
    Hero(Slot),
}

impl Mark {
    fn letter(self) -> char {
        match self {
            Self::Nothing => ' ',
            Self::Units(slot) => slot_letter(slot),
            Self::Point(None) => '+',
            Self::Point(Some(slot)) => slot_letter(slot).to_ascii_uppercase(),
            Self::Hero(_) => '@',
        }
    }

    fn slot(self) -> Option<Slot> {
        match self {
            Self::Units(slot) | Self::Point(Some(slot)) | Self::Hero(slot) => Some(slot),
            Self::Nothing | Self::Point(None) => None,
        }
    }
}

/// Draws the field as it is shown and, below it, a line per player as `world` has it. `names` are
/// by slot.
#[must_use]
pub fn draw(shown: ShownWorld<'_>, world: &World, canvas: Canvas, names: &[String]) -> String {
    let mut text = draw_field(shown, canvas);
    for standing in standings(world) {
        text.push_str(&standing_line(&standing, names, canvas.colours));
        text.push('\n');
    }
    text
}

/// One player's line in a table whose head is [`STANDINGS_HEAD`].
#[must_use]
pub fn standing_line(standing: &Standing, names: &[String], colours: bool) -> String {
    let slot = standing.slot;
    let name = names.get(slot.index()).map_or("", String::as_str);
    let name: String = name.chars().filter(|letter| !letter.is_control()).collect();
    let mut text = String::new();
    paint(
        &mut text,
        &slot_letter(slot).to_string(),
        Some(slot),
        colours,
    );
    let _ = write!(
        text,
        "  {name:<12.12} {:>6} {:>6} {:>6} {:>6} {:>6}  {}",
        standing.score,
        standing.points,
        standing.units,
        standing.kills,
        standing.losses,
        if standing.hero { "@" } else { "-" },
    );
    text
}

/// What the columns of [`standing_line`] are.
pub const STANDINGS_HEAD: &str = "   player        score points  units  kills losses hero";

fn draw_field(shown: ShownWorld<'_>, canvas: Canvas) -> String {
    let marks = marks(shown, canvas);
    let edge = format!("+{}+\n", "-".repeat(canvas.columns));
    let mut text = edge.clone();
    for row in marks.chunks(canvas.columns) {
        text.push('|');
        for &mark in row {
            let letter = mark.letter().to_string();
            paint(&mut text, &letter, mark.slot(), canvas.colours);
        }
        text.push_str("|\n");
    }
    text.push_str(&edge);
    text
}

fn marks(shown: ShownWorld<'_>, canvas: Canvas) -> Vec<Mark> {
    let mut marks = vec![Mark::Nothing; canvas.columns * canvas.rows];
    // How many more units of the marked slot than of others are here.
    let mut lead = vec![0_u32; marks.len()];
    for (id, position) in shown.iter::<Position>() {
        let column = cell(position.0.x, canvas.columns);
        let row = cell(position.0.y, canvas.rows);
        let place = row * canvas.columns + column;
        if let Some(unit) = shown.get::<Unit>(id) {
            match marks[place] {
                Mark::Units(slot) if slot == unit.slot => lead[place] += 1,
                Mark::Units(_) if lead[place] > 0 => lead[place] -= 1,
                Mark::Nothing | Mark::Units(_) => marks[place] = Mark::Units(unit.slot),
                Mark::Point(_) | Mark::Hero(_) => {}
            }
        } else if let Some(point) = shown.get::<ControlPoint>(id) {
            marks[place] = marks[place].max(Mark::Point(point.holder));
        } else if let Some(hero) = shown.get::<Hero>(id)
            && shown.get::<Downed>(id).is_none()
        {
            marks[place] = marks[place].max(Mark::Hero(hero.slot));
        }
    }
    marks
}

fn cell(metres: f32, cells: usize) -> usize {
    let share = (metres / FIELD_M).clamp(0.0, 1.0);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a share of a few dozen cells"
    )]
    let cell = (share * cells as f32) as usize;
    cell.min(cells.saturating_sub(1))
}

fn slot_letter(slot: Slot) -> char {
    char::from(b'a' + slot.0 % 26)
}

fn paint(text: &mut String, what: &str, slot: Option<Slot>, colours: bool) {
    match slot {
        Some(slot) if colours => {
            let colour = COLOURS[slot.index() % COLOURS.len()];
            let _ = write!(text, "\x1b[{colour}m{what}\x1b[0m");
        }
        _ => text.push_str(what),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena;

    #[test]
    fn the_field_shows_every_army_and_all_points() {
        let game = arena::game(300).unwrap();
        let simulation = game.simulation(1, 3);
        let text = draw(
            ShownWorld::new(&simulation, None),
            simulation.world(),
            Canvas::new(false),
            &[],
        );
        let field: Vec<&str> = text.lines().take(22).collect();
        assert!(field.iter().all(|line| line.chars().count() == 62));
        for letter in ['a', 'b', 'c', '+'] {
            assert!(
                field[1..21].iter().any(|line| line.contains(letter)),
                "{letter}\n{text}"
            );
        }
        assert_eq!(text.lines().count(), 22 + 3);
        assert!(!text.contains('\x1b'));
        let coloured = draw(
            ShownWorld::new(&simulation, None),
            simulation.world(),
            Canvas::new(true),
            &[],
        );
        assert!(coloured.contains("\x1b[31m"));
    }

    #[test]
    fn a_name_cannot_write_to_the_terminal() {
        let game = arena::game(3).unwrap();
        let simulation = game.simulation(1, 1);
        let names = ["\x1b[2Jevil\n".to_owned()];
        let text = draw(
            ShownWorld::new(&simulation, None),
            simulation.world(),
            Canvas::new(false),
            &names,
        );
        assert!(!text.contains('\x1b') && text.contains("[2Jevil"));
    }
}
