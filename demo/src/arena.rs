//! The game: a top-down skirmish of thousands of units on a square field.
//!
//! Every slot owns an army of four squads, two that fight at arm's length and two that shoot, and
//! commands it through a hero. Units go where their squad's order says, keep their distance from
//! each other, fight enemies that they see, fall, and come back as reinforcements. Armies take
//! control points by outnumbering the others around them; held points give score.
//!
//! All of it is registered state and systems in one fixed order. Sums and random draws whose
//! order matters go by [`NetId`], so a restored node plays on like all others.
//!
//! A slot's hero appears when its player joins and goes when the player leaves; an army without a
//! player seeks control points on its own.

mod bot;
mod command;
mod field;
mod rules;
mod standings;
mod state;

pub use bot::Bot;
pub use command::{ALL_SQUADS, Buttons, Command, Verb};
pub use standings::{Standing, standings};
pub use state::{
    Armies, Army, ControlPoint, Downed, Health, Hero, Position, SQUADS, SquadOrder, Unit, Velocity,
    Weapon,
};

use phalanx::prelude::*;

/// Side of the square field, in metres. Positions lie in 0 to this in both directions.
pub const FIELD_M: f32 = 200.0;

/// Units of a session if nothing else is said.
pub const UNITS_DEFAULT: u32 = 3000;

/// Most units of a session.
pub const UNITS_MAX: u32 = 100_000;

/// The game's id in handshakes and replays.
pub const GAME_ID: &str = "arena";

/// The game with `units` units, shared evenly among the slots of a session.
///
/// # Errors
/// None, unless the registration below contradicts itself.
pub fn game(units: u32) -> Result<Game, GameError> {
    Game::builder(GAME_ID)
        .component::<Position>()
        .component::<Velocity>()
        .component::<Unit>()
        .component::<Health>()
        .component::<Weapon>()
        .component::<Hero>()
        .component::<Downed>()
        .component::<ControlPoint>()
        .resource::<Armies>()
        .input::<Command>()
        .systems(rules::systems)
        .setup(move |world, setup| rules::set_up(world, setup, units))
        .build()
}

/// What builds must agree on beyond the schema: the rules' version and the number of units.
#[must_use]
pub fn build_name(units: u32) -> String {
    format!("{} with {units} units", env!("CARGO_PKG_VERSION"))
}
