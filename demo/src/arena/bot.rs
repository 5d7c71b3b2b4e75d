//! Inputs without a human.

use phalanx::math::Vec2;
use phalanx::netcode::id::Slot;
use phalanx::netcode::prng::Prng;

use super::{ALL_SQUADS, Buttons, Command, FIELD_M, Verb};

/// Chance per tick that a bot changes its input, in millionths. People change theirs about six
/// times per second.
const CHANGE_PER_MILLION: u32 = 100_000;

/// A player made of a seed. Its inputs hold for ten ticks on average.
#[derive(Clone, Debug)]
pub struct Bot {
    prng: Prng,
    command: Command,
}

impl Bot {
    /// The bot of `slot` in a run with this seed.
    #[must_use]
    pub fn new(seed: u64, slot: Slot) -> Self {
        let mut bot = Self {
            prng: Prng::with_stream(seed, 0x626f_7400 | u64::from(slot.0)),
            command: Command::default(),
        };
        bot.change();
        bot
    }

    /// The input for the next tick.
    pub fn next_command(&mut self) -> Command {
        if self.prng.chance_per_million(CHANGE_PER_MILLION) {
            self.change();
        }
        self.command
    }

    /// Mostly a new way for the hero, sometimes an order for some squads.
    fn change(&mut self) {
        let prng = &mut self.prng;
        self.command.direction = [(); 2].map(|()| {
            let [byte, ..] = prng.next_u32().to_le_bytes();
            i8::from_le_bytes([byte])
        });
        self.command.buttons = match prng.below(3) {
            0 => Buttons::STRIKE,
            _ => Buttons::default(),
        };
        if prng.below(4) == 0 {
            let verb = match prng.below(6) {
                0..=2 => Verb::Seek,
                3 | 4 => Verb::Go,
                _ => Verb::Follow,
            };
            let [mask, ..] = prng.next_u32().to_le_bytes();
            let margin = FIELD_M / 8.0;
            let place = Vec2::new(
                prng.range_f32(margin, FIELD_M - margin),
                prng.range_f32(margin, FIELD_M - margin),
            );
            self.command = self.command.ordering(mask & ALL_SQUADS, verb, place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bot_is_its_seed_and_changes_about_every_tenth_tick() {
        let mut bot = Bot::new(3, Slot(1));
        let mut twin = bot.clone();
        let mut last = bot.next_command();
        assert_eq!(last, twin.next_command());
        let mut changes = 0;
        for _ in 0..2000 {
            let command = bot.next_command();
            assert_eq!(command, twin.next_command());
            changes += u32::from(command != last);
            last = command;
        }
        assert!((140..=260).contains(&changes), "{changes} changes");
        assert_ne!(
            Bot::new(3, Slot(2)).next_command(),
            Bot::new(3, Slot(1)).next_command()
        );
    }
}
