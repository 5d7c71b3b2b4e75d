//! Which tick the simulation is at, which ticks are final, and what must run again.

use crate::id::Slot;
use crate::input::{InputFrame, InputHistory, SlotInput};
use crate::limits::PREDICTION_TICKS_MAX;
use crate::simulation::StepKind;
use crate::tick::Tick;

/// What the driver must do to the simulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Run the tick.
    Step(Tick, StepKind),
    /// Return to the state at this tick.
    Restore(Tick),
}

/// The simulation's progress over final and guessed inputs.
#[derive(Debug)]
pub struct Timeline {
    /// The newest tick that ran.
    simulated: Tick,
    /// The newest tick that ran on final inputs only, as did all before it.
    settled: Tick,
    /// The inputs on which the ticks after `settled` ran, by tick modulo the ring's length.
    guesses: Vec<InputFrame>,
    slots: u8,
    input_bytes: u8,
    /// How far ahead of the confirmed tick it may run.
    prediction: u32,
}

impl Timeline {
    /// A timeline that begins with the state at `tick`.
    #[must_use]
    pub fn new(slots: u8, input_bytes: u8, prediction: u32, tick: Tick) -> Self {
        let ring = if prediction == 0 {
            0
        } else {
            PREDICTION_TICKS_MAX as usize + 1
        };
        let guesses = vec![InputFrame::empty(Tick::ZERO, slots, input_bytes); ring];
        Self {
            simulated: tick,
            settled: tick,
            guesses,
            slots,
            input_bytes,
            prediction,
        }
    }

    /// The newest tick that ran.
    #[must_use]
    pub const fn simulated(&self) -> Tick {
        self.simulated
    }

    /// The newest tick that ran on final inputs only, as did all before it.
    #[must_use]
    pub const fn settled(&self) -> Tick {
        self.settled
    }

    /// How far ahead of the confirmed tick it may run.
    #[must_use]
    pub const fn prediction(&self) -> u32 {
        self.prediction
    }

    /// Goes on from the state at `tick`, which was taken over from elsewhere.
    pub const fn jump(&mut self, tick: Tick) {
        self.simulated = tick;
        self.settled = tick;
    }

    /// Goes on from a state that an authority gave: final up to `settled`, and now at `simulated`.
    pub fn follow(&mut self, settled: Tick, simulated: Tick) {
        self.simulated = simulated;
        self.settled = settled.min(simulated);
    }

    /// Makes room for `ticks` that ran on inputs which are certain enough to run on, as a node's
    /// own are where nobody replaces them, but are not final before the host says so.
    pub fn keep_guesses(&mut self, ticks: u32) {
        let count = usize::try_from(ticks).unwrap_or(0) + 1;
        if self.guesses.len() < count {
            let frame = InputFrame::empty(Tick::ZERO, self.slots, self.input_bytes);
            let guesses = core::mem::replace(&mut self.guesses, vec![frame; count]);
            // What has been guessed so far may still have to run.
            for guess in guesses {
                let tick = guess.tick();
                if tick > self.settled && tick <= self.simulated {
                    self.guesses[tick.number() as usize % count] = guess;
                }
            }
        }
    }

    /// Whether the next tick may run when all inputs up to `confirmed` are final, or as good.
    #[must_use]
    pub const fn may_step(&self, confirmed: Tick) -> bool {
        let ahead = self.simulated.number() - self.settled.number();
        self.simulated.number() < confirmed.number().saturating_add(self.prediction)
            && (self.guesses.is_empty() || (ahead as usize) < self.guesses.len() - 1)
    }

    /// Counts the next tick as run. Its inputs are read with [`Timeline::frame`].
    pub fn step(&mut self, confirmed: Tick, inputs: &Inputs<'_>) -> Work {
        let tick = self.simulated.next();
        self.simulated = tick;
        if tick <= confirmed && self.settled.next() == tick {
            self.settled = tick;
        } else {
            self.guess(tick, inputs);
        }
        Work::Step(tick, StepKind::First)
    }

    /// Compares guesses with what has become final, and says from which tick on to run again.
    /// The works are `Restore`, then `Step`s up to where the simulation was.
    pub fn settle(&mut self, confirmed: Tick, inputs: &Inputs<'_>, mut work: impl FnMut(Work)) {
        while self.settled < confirmed.min(self.simulated) {
            let tick = self.settled.next();
            if !self.is_as_guessed(tick, inputs) {
                break;
            }
            self.settled = tick;
        }
        if self.settled >= confirmed.min(self.simulated) {
            return;
        }
        work(Work::Restore(self.settled));
        for number in self.settled.number() + 1..=self.simulated.number() {
            let tick = Tick::new(number);
            if tick <= confirmed {
                self.settled = tick;
            } else {
                self.guess(tick, inputs);
            }
            work(Work::Step(tick, StepKind::Again));
        }
    }

    /// The inputs on which `tick` runs, or ran last.
    pub fn frame(&self, tick: Tick, inputs: &Inputs<'_>, frame: &mut InputFrame) {
        if tick > self.settled {
            frame.clone_from(&self.guesses[tick.number() as usize % self.guesses.len()]);
        } else {
            inputs.fill(tick, frame);
        }
    }

    fn guess(&mut self, tick: Tick, inputs: &Inputs<'_>) {
        let at = tick.number() as usize % self.guesses.len().max(1);
        if let Some(frame) = self.guesses.get_mut(at) {
            inputs.fill(tick, frame);
        }
    }

    fn is_as_guessed(&self, tick: Tick, inputs: &Inputs<'_>) -> bool {
        let at = tick.number() as usize % self.guesses.len().max(1);
        self.guesses.get(at).is_some_and(|frame| {
            frame.tick() == tick
                && (0..frame.slots())
                    .map(Slot)
                    .all(|slot| inputs.at(slot, tick) == frame.input(slot))
        })
    }
}

/// Where the inputs of a tick come from.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// Final inputs.
    pub known: &'a InputHistory,
    /// This node's own slot with what it submitted: known to itself before it is final.
    pub own: Option<(Slot, &'a InputHistory)>,
}

impl<'a> Inputs<'a> {
    /// The input of `slot` at `tick`: final, or its own, or the last known one as a guess.
    #[must_use]
    pub fn at(&self, slot: Slot, tick: Tick) -> Option<&'a [u8]> {
        match self.known.get(slot, tick) {
            SlotInput::Present(bytes) => return Some(bytes),
            SlotInput::Absent => return None,
            SlotInput::Unknown => {}
        }
        if let Some((own, submitted)) = self.own
            && own == slot
        {
            match submitted.get(slot, tick) {
                SlotInput::Present(bytes) => return Some(bytes),
                SlotInput::Absent => return None,
                SlotInput::Unknown => {}
            }
        }
        self.known.get(slot, self.known.newest(slot)).bytes()
    }

    /// Fills `frame` with the inputs of all slots at `tick`.
    pub fn fill(&self, tick: Tick, frame: &mut InputFrame) {
        frame.set_tick(tick);
        for slot in (0..frame.slots()).map(Slot) {
            match self.at(slot, tick) {
                Some(input) => frame.set(slot, input),
                None => frame.clear(slot),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(history: &mut InputHistory, slot: u8, tick: u32, value: u8) {
        history.push(Slot(slot), Tick::new(tick), Some(&[value]));
    }

    #[test]
    fn a_wrong_guess_runs_again_from_the_first_wrong_tick_only() {
        let mut known = InputHistory::new(2, 1);
        let mut own = InputHistory::new(2, 1);
        let mut timeline = Timeline::new(2, 1, 8, Tick::ZERO);
        for tick in 1..=5 {
            push(&mut own, 0, tick, 10);
            let inputs = Inputs {
                known: &known,
                own: Some((Slot(0), &own)),
            };
            assert!(timeline.may_step(Tick::ZERO));
            timeline.step(Tick::ZERO, &inputs);
        }
        // The other slot was guessed absent; it is present from tick 3 on.
        for tick in 1..=4 {
            push(&mut known, 0, tick, 10);
            known.push(Slot(1), Tick::new(tick), (tick >= 3).then_some(&[7][..]));
        }
        let inputs = Inputs {
            known: &known,
            own: Some((Slot(0), &own)),
        };
        let mut works = Vec::new();
        timeline.settle(Tick::new(4), &inputs, |work| works.push(work));
        assert_eq!(
            works,
            [
                Work::Restore(Tick::new(2)),
                Work::Step(Tick::new(3), StepKind::Again),
                Work::Step(Tick::new(4), StepKind::Again),
                Work::Step(Tick::new(5), StepKind::Again),
            ]
        );
        assert_eq!(
            (timeline.simulated(), timeline.settled()),
            (Tick::new(5), Tick::new(4))
        );
        let mut frame = InputFrame::empty(Tick::ZERO, 2, 1);
        timeline.frame(Tick::new(5), &inputs, &mut frame);
        assert_eq!(
            frame.input(Slot(1)),
            Some(&[7][..]),
            "the guess repeats the newest input"
        );
    }

    #[test]
    fn right_guesses_cost_nothing() {
        let mut known = InputHistory::new(1, 1);
        push(&mut known, 0, 1, 5);
        let mut timeline = Timeline::new(1, 1, 4, Tick::ZERO);
        for _ in 0..4 {
            timeline.step(
                Tick::new(1),
                &Inputs {
                    known: &known,
                    own: None,
                },
            );
        }
        assert!(!timeline.may_step(Tick::ZERO));
        (2..=4).for_each(|tick| push(&mut known, 0, tick, 5));
        let inputs = Inputs {
            known: &known,
            own: None,
        };
        timeline.settle(Tick::new(4), &inputs, |work| panic!("needless {work:?}"));
        assert_eq!(timeline.settled(), Tick::new(4));
    }
}
