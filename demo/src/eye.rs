//! What a client of a state-sync session shows.

use phalanx::ShownWorld;
use phalanx::netcode::driver::{Driver, Player};
use phalanx::netcode::node::{Node, Received};
use phalanx::netcode::simulation::Simulation as _;
use phalanx::netcode::state::{Networked as _, parts_of};
use phalanx::netcode::statesync::{Tables, View};
use phalanx::netcode::tick::Tick;
use phalanx::netcode::time::Time;
use phalanx::{EcsSimulation, Game};

use crate::arena::Position;
use crate::truth::{Judge, Sample, ShownErrors, Truth};

/// Microseconds between two moves of the view.
const MOVE_US: u64 = 8000;
/// Microseconds between two samples of what is shown.
const SAMPLE_US: u64 = 130_000;

/// What a client of a state-sync session shows, and how far off that is.
#[derive(Debug)]
pub struct Eye {
    view: View,
    /// The place of [`Position`] in the schema.
    position: Option<u16>,
    moved_at: Time,
    sampled_at: Time,
    judge: Judge,
    truth: Truth,
    /// Whether the truth is what is received, as nothing better is here.
    learns: bool,
}

impl Eye {
    /// An eye that is judged by what is received.
    #[must_use]
    pub fn new(game: &Game) -> Self {
        let kind = game.schema().kind_index(Position::NAME);
        Self {
            view: View::new(game.schema(), game.tick_rate()),
            position: kind.and_then(|kind| u16::try_from(kind).ok()),
            moved_at: Time::ZERO,
            sampled_at: Time::ZERO,
            judge: Judge::default(),
            learns: true,
            truth: Truth::default(),
        }
    }

    /// The same, judged by what the host notes.
    #[must_use]
    pub fn judged_by(mut self, truth: Truth) -> Self {
        self.truth = truth;
        self.learns = false;
        self
    }

    /// How far off what was shown is from the truth.
    #[must_use]
    pub const fn errors(&self) -> &ShownErrors {
        &self.judge.errors
    }

    /// Follows what `driver` has received. `sampled` is the newest tick for which its player gave
    /// an input.
    pub fn follow<P>(&mut self, now: Time, driver: &mut Driver<P>, sampled: Tick)
    where
        P: Player<Simulation = EcsSimulation>,
    {
        let elapsed = now.micros_since(self.moved_at);
        if elapsed < MOVE_US {
            return;
        }
        self.moved_at = now;
        let part = driver.node().part_of_tick(now);
        if let Some(simulation) = driver.simulation_mut() {
            simulation.fade_corrections(elapsed);
            simulation.show_between_ticks(part);
        }
        let received: Vec<&Received> = driver.node().received().collect();
        if received.is_empty() {
            return;
        }
        let states = received
            .iter()
            .map(|state| (state.tick, state.arrived_at, &state.snapshot));
        self.view.update(now, states);
        self.learn(driver.node());
        if let Some(shown) = self.view.shown() {
            let seen = shown.tick.number() + u32::from(shown.fraction >= 0.5);
            let behind = sampled.number().saturating_sub(seen);
            driver.node_mut().show_behind(now, behind);
        }
        if now.micros_since(self.sampled_at) >= SAMPLE_US {
            self.sampled_at = now;
            self.sample(driver, part);
        }
        self.judge.judge(&self.truth);
    }

    /// What `driver`'s node shows.
    #[must_use]
    pub fn shown<'a, P>(&'a self, driver: &'a Driver<P>) -> Option<ShownWorld<'a>>
    where
        P: Player<Simulation = EcsSimulation>,
    {
        let (layout, shapes) = driver.node().wire_tables()?;
        let others = Some((&self.view, Tables { layout, shapes }));
        Some(ShownWorld::new(driver.simulation()?, others))
    }

    /// Notes the places in what was received, if that is all there is to know.
    fn learn(&self, node: &Node) {
        let (Some(kind), Some((layout, shapes))) = (self.position, node.wire_tables()) else {
            return;
        };
        let Some(rows) = layout.kind(kind).filter(|_| self.learns) else {
            return;
        };
        let newest = self.truth.newest();
        let is_new = |state: &&Received| state.is_complete && Some(state.tick) > newest;
        for state in node.received().filter(is_new) {
            self.truth.note(state.tick, |places| {
                for entity in state.snapshot.entities() {
                    let mut parts = parts_of(layout, shapes, entity).flatten();
                    let part = parts.find(|part| part.kind == kind);
                    if let Some([x, y, _]) = part.and_then(|part| rows.place(part.lanes)) {
                        #[expect(
                            clippy::cast_possible_truncation,
                            reason = "a place on the field, on the steps of its wire form"
                        )]
                        let place = phalanx::math::Vec2::new(x as f32, y as f32);
                        places.push((entity.id, place));
                    }
                }
            });
        }
    }

    /// Takes a sample of what is shown: others of their moment, and what is predicted of its own, a
    /// `part` of the way to the newest tick.
    fn sample<P: Player<Simulation = EcsSimulation>>(&mut self, driver: &Driver<P>, part: f32) {
        let (Some(shown), Some(at)) = (self.shown(driver), self.view.shown()) else {
            return;
        };
        let now_tick = driver.simulation().map_or(Tick::ZERO, EcsSimulation::tick);
        let mut others = Sample {
            tick: at.tick,
            fraction: at.fraction,
            ..Sample::default()
        };
        let mut own = Sample {
            tick: now_tick.minus(1),
            fraction: part,
            ..Sample::default()
        };
        for (id, position) in shown.iter::<Position>() {
            let sample = if shown.is_predicted(id) {
                &mut own
            } else {
                &mut others
            };
            sample.places.push((id.into(), position.0));
        }
        for sample in [others, own] {
            if !sample.places.is_empty() {
                self.judge.add(sample);
            }
        }
    }
}
