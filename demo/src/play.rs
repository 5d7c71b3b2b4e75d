//! Who gives the inputs: a bot, someone who types, or nobody.

use std::io::BufRead;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use phalanx::math::Vec2;
use phalanx::netcode::driver::Player;
use phalanx::netcode::input::InputFrame;
use phalanx::netcode::node::SessionInfo;
use phalanx::prelude::*;

use crate::arena::{ALL_SQUADS, Bot, Buttons, Command, Verb};
use crate::truth::Truth;

/// The game's side of a driver: makes simulations and gives inputs.
#[derive(Debug)]
pub struct Pilot {
    game: Game,
    hands: Hands,
    bot: Option<Bot>,
    /// Whether the state of a session is its host's, and clients only predict.
    takes_states: bool,
    /// Whether this node hosts.
    is_hosting: bool,
    /// The newest tick for which an input was given.
    sampled: Tick,
    /// Where to note who is where, tick by tick.
    truth: Option<Truth>,
}

/// What moves a player's hero.
#[derive(Clone, Debug)]
pub enum Hands {
    /// Nothing: a dedicated host or a spectator.
    None,
    /// A generator with this seed.
    Bot(u64),
    /// Lines of text; see [`Keyboard`].
    Keyboard(Keyboard),
}

impl Pilot {
    /// A pilot of `game`.
    #[must_use]
    pub const fn new(game: Game, hands: Hands) -> Self {
        Self {
            game,
            hands,
            bot: None,
            takes_states: false,
            is_hosting: false,
            sampled: Tick::ZERO,
            truth: None,
        }
    }

    /// The same, for a session in state-sync mode.
    #[must_use]
    pub const fn taking_states(mut self) -> Self {
        self.takes_states = true;
        self
    }

    /// Says whether this node hosts at present.
    pub const fn set_hosting(&mut self, is_hosting: bool) {
        self.is_hosting = is_hosting;
    }

    /// Whether someone typed that it is enough.
    #[must_use]
    pub fn wants_to_quit(&self) -> bool {
        match &self.hands {
            Hands::Keyboard(keyboard) => keyboard.wants_to_quit(),
            Hands::None | Hands::Bot(_) => false,
        }
    }

    /// Notes who is where in every tick that runs from now on while this node hosts.
    pub fn note_into(&mut self, truth: Truth) {
        self.truth = Some(truth);
    }

    /// The newest tick for which an input was given.
    #[must_use]
    pub const fn sampled(&self) -> Tick {
        self.sampled
    }
}

impl Player for Pilot {
    type Simulation = EcsSimulation;

    fn begin(&mut self, session: &SessionInfo) -> EcsSimulation {
        self.bot = match (&self.hands, session.slot) {
            (&Hands::Bot(seed), Some(slot)) => Some(Bot::new(seed, slot)),
            (Hands::Bot(_) | Hands::None | Hands::Keyboard(_), _) => None,
        };
        let mut simulation = self.game.simulation_of(session);
        if self.takes_states && !session.hosts {
            simulation.set_side(session.slot.map_or(Side::Spectating, Side::Predicting));
        }
        simulation
    }

    fn begin_standby(&mut self, session: &SessionInfo) -> EcsSimulation {
        self.game.simulation_of(session)
    }

    fn sample(&mut self, tick: Tick, _simulation: &EcsSimulation, input: &mut [u8]) {
        self.sampled = tick;
        let command = match (&mut self.bot, &self.hands) {
            (Some(bot), _) => bot.next_command(),
            (None, Hands::Keyboard(keyboard)) => keyboard.command(),
            (None, Hands::None | Hands::Bot(_)) => Command::default(),
        };
        input.copy_from_slice(&self.game.encode_input(&command));
    }

    fn stepped(&mut self, simulation: &EcsSimulation, _frame: &InputFrame) {
        if let Some(truth) = &self.truth
            && self.is_hosting
        {
            truth.note_all(simulation);
        }
    }
}

/// Commands that someone types, one per line: a direction (`n`, `ne` and so on, or `stop`),
/// `strike`, `rest`, `seek`, `hold`, `follow`, or `go X Y` with places in metres; `quit` leaves.
#[derive(Clone, Debug, Default)]
pub struct Keyboard {
    command: Arc<Mutex<Command>>,
    quits: Arc<AtomicBool>,
}

impl Keyboard {
    /// What was typed, as it stands.
    #[must_use]
    pub fn command(&self) -> Command {
        *self.command.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether `quit` was typed.
    #[must_use]
    pub fn wants_to_quit(&self) -> bool {
        self.quits.load(Ordering::Relaxed)
    }

    /// Takes lines from stdin in a thread of its own, as long as there are any.
    pub fn listen(&self) {
        let (command, quits) = (Arc::clone(&self.command), Arc::clone(&self.quits));
        // Nobody waits for this thread: a read of stdin cannot be cancelled.
        let _detached = std::thread::spawn(move || {
            for line in std::io::stdin().lock().lines() {
                let Ok(line) = line else { return };
                if line.trim() == "quit" {
                    quits.store(true, Ordering::Relaxed);
                }
                let mut command = command.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(next) = typed(*command, &line) {
                    *command = next;
                }
            }
        });
    }
}

/// `command` after `line` was typed; `None` if it means nothing.
fn typed(command: Command, line: &str) -> Option<Command> {
    let mut words = line.split_whitespace();
    let towards = |x, y| {
        Some(Command {
            direction: [x, y],
            ..command
        })
    };
    let order = |verb, place| Some(command.ordering(ALL_SQUADS, verb, place));
    let buttons = |buttons| Some(Command { buttons, ..command });
    match words.next()? {
        "n" => towards(0, -127),
        "ne" => towards(90, -90),
        "e" => towards(127, 0),
        "se" => towards(90, 90),
        "s" => towards(0, 127),
        "sw" => towards(-90, 90),
        "w" => towards(-127, 0),
        "nw" => towards(-90, -90),
        "stop" => towards(0, 0),
        "strike" => buttons(Buttons::STRIKE),
        "rest" => buttons(Buttons::default()),
        "seek" => order(Verb::Seek, Vec2::ZERO),
        "hold" => order(Verb::Hold, Vec2::ZERO),
        "follow" => order(Verb::Follow, Vec2::ZERO),
        "go" => {
            let mut place = || words.next()?.parse::<f32>().ok();
            let place = Vec2::new(place()?, place()?);
            order(Verb::Go, place)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typed_lines_change_what_they_name_and_nothing_else() {
        let start = Command::default();
        let east = typed(start, " e ").unwrap();
        assert_eq!(east.direction, [127, 0]);
        let strike = typed(east, "strike").unwrap();
        assert_eq!(
            (strike.direction, strike.buttons),
            ([127, 0], Buttons::STRIKE)
        );
        let go = typed(strike, "go 100 50.5").unwrap();
        assert_eq!(
            go,
            strike.ordering(ALL_SQUADS, Verb::Go, Vec2::new(100.0, 50.5))
        );
        for nonsense in ["", "go", "go 1", "go x y", "fly"] {
            assert_eq!(typed(start, nonsense), None, "{nonsense}");
        }
    }
}
