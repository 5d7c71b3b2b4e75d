//! How far off what a client shows is from what the host has.
//!
//! A client of a state-sync session shows others as they were a moment ago, and its own hero as it
//! predicts it. Every now and then it notes what it shows, and for which moment; once the [`Truth`]
//! around that moment is known, the distances are taken. Where the host runs in the same process,
//! the truth is its own state, tick by tick. A client alone only has the complete states that it
//! received: against these it sees what lost and delayed datagrams and wrong predictions cost, but
//! not how straight lines between two states differ from the real ways.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use phalanx::EcsSimulation;
use phalanx::math::Vec2;
use phalanx::netcode::id::NetId;
use phalanx::netcode::simulation::Simulation as _;
use phalanx::netcode::tick::Tick;
use phalanx::prelude::NetIndex;

use crate::arena::Position;

/// Ticks that are remembered: samples wait for less than that.
const TICKS_MAX: usize = 180;
/// Samples that wait for the truth.
const SAMPLES_MAX: usize = 32;
/// Steps of the distribution, per metre.
const STEPS_PER_METRE: f32 = 1000.0;
/// Distances from here on, in steps, are told apart no more.
const STEPS_MAX: usize = 20_000;

/// Entities and where they are, by id ascending.
pub type Places = Vec<(NetId, Vec2)>;

/// Where everyone was at the last ticks. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Truth {
    ticks: Arc<Mutex<VecDeque<(Tick, Places)>>>,
}

impl Truth {
    /// Notes where everyone is at `tick`; `write` fills in the places. What was known of it and of
    /// later ticks is void: another host has ordered them anew.
    pub fn note(&self, tick: Tick, write: impl FnOnce(&mut Places)) {
        let mut ticks = self.ticks.lock().unwrap_or_else(PoisonError::into_inner);
        while ticks.back().is_some_and(|&(known, _)| known >= tick) {
            ticks.pop_back();
        }
        let oldest = (ticks.len() >= TICKS_MAX).then(|| ticks.pop_front());
        let (_, mut places) = oldest.flatten().unwrap_or_default();
        places.clear();
        write(&mut places);
        ticks.push_back((tick, places));
    }

    /// The newest tick that is known.
    #[must_use]
    pub fn newest(&self) -> Option<Tick> {
        let ticks = self.ticks.lock().unwrap_or_else(PoisonError::into_inner);
        ticks.back().map(|&(tick, _)| tick)
    }

    /// Notes where everyone is in `simulation`.
    pub fn note_all(&self, simulation: &EcsSimulation) {
        let world = simulation.world();
        self.note(simulation.tick(), |places| {
            for (id, entity) in world.resource::<NetIndex>().iter() {
                if let Some(position) = world.get::<Position>(entity) {
                    places.push((id.into(), position.0));
                }
            }
        });
    }

    /// Takes the distances of `sample` into `errors`; false if its moment is not over yet.
    fn judge(&self, sample: &Sample, errors: &mut ShownErrors) -> bool {
        let ticks = self.ticks.lock().unwrap_or_else(PoisonError::into_inner);
        let after = ticks.partition_point(|&(tick, _)| tick <= sample.tick);
        let (Some((tick, then)), Some((next_tick, next))) =
            (ticks.get(after.wrapping_sub(1)), ticks.get(after))
        else {
            // Before all that is known, it will never be judged.
            return after == 0 && !ticks.is_empty();
        };
        let whole = f64::from(next_tick.since(*tick));
        let part = f64::from(sample.tick.since(*tick)) + f64::from(sample.fraction);
        #[expect(clippy::cast_possible_truncation, reason = "a share of 0 to 1")]
        let share = (part / whole) as f32;
        for &(id, shown) in &sample.places {
            // Whoever came or went in between is shown at one end of it.
            if let (Some(from), Some(to)) = (find(then, id), find(next, id)) {
                errors.add(shown.distance(from.lerp(to, share)));
            }
        }
        true
    }
}

fn find(places: &Places, id: NetId) -> Option<Vec2> {
    let at = places.binary_search_by_key(&id, |&(id, _)| id).ok()?;
    Some(places[at].1)
}

/// What was shown for one moment.
#[derive(Debug, Default)]
pub(crate) struct Sample {
    /// The last whole tick before it.
    pub(crate) tick: Tick,
    /// The part of a tick that had passed since.
    pub(crate) fraction: f32,
    /// Who was shown where.
    pub(crate) places: Places,
}

/// Samples on their way to become errors.
#[derive(Debug, Default)]
pub(crate) struct Judge {
    waiting: VecDeque<Sample>,
    pub(crate) errors: ShownErrors,
}

impl Judge {
    /// Takes what is shown now.
    pub(crate) fn add(&mut self, sample: Sample) {
        // Where the truth does not come any more, the oldest are not judged.
        if self.waiting.len() >= SAMPLES_MAX {
            self.waiting.pop_front();
        }
        self.waiting.push_back(sample);
    }

    /// Judges what can be judged by now.
    pub(crate) fn judge(&mut self, truth: &Truth) {
        let errors = &mut self.errors;
        self.waiting.retain(|sample| !truth.judge(sample, errors));
    }
}

/// Distances between shown and true places, in steps of a millimetre.
#[derive(Clone, Debug, Default)]
pub struct ShownErrors {
    /// How often each distance occurred, by steps; the last one stands for all larger ones.
    counts: Vec<u64>,
    count: u64,
    sum_m: f64,
    max_m: f32,
}

impl ShownErrors {
    /// Takes one in, in metres.
    pub fn add(&mut self, metres: f32) {
        if self.counts.is_empty() {
            self.counts.resize(STEPS_MAX + 1, 0);
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a distance; too large ones saturate and are cut below"
        )]
        let step = (metres * STEPS_PER_METRE).ceil() as usize;
        self.counts[step.min(STEPS_MAX)] += 1;
        self.count += 1;
        self.sum_m += f64::from(metres);
        self.max_m = self.max_m.max(metres);
    }

    /// Takes in those of another client.
    pub fn merge(&mut self, other: &Self) {
        self.counts
            .resize(self.counts.len().max(other.counts.len()), 0);
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.count += other.count;
        self.sum_m += other.sum_m;
        self.max_m = self.max_m.max(other.max_m);
    }

    /// How many there are.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The mean in metres; `None` without any.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
        let count = self.count as f64;
        (self.count > 0).then(|| self.sum_m / count)
    }

    /// The largest in metres.
    #[must_use]
    pub fn max(&self) -> Option<f64> {
        (self.count > 0).then(|| f64::from(self.max_m))
    }

    /// What so many percent of them do not exceed, in metres, rounded up to a millimetre.
    #[must_use]
    pub fn percentile(&self, percent: u64) -> Option<f64> {
        let wanted = (self.count * percent).div_ceil(100);
        let mut seen = 0;
        let steps = self.counts.iter().position(|count| {
            seen += count;
            seen >= wanted.max(1)
        })?;
        if steps == STEPS_MAX {
            return self.max();
        }
        let steps = u32::try_from(steps).unwrap_or(u32::MAX);
        Some(f64::from(steps) / f64::from(STEPS_PER_METRE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> NetId {
        NetId::from_bits(number)
    }

    fn sample(tick: u32, fraction: f32, places: &[(u64, Vec2)]) -> Sample {
        Sample {
            tick: Tick::new(tick),
            fraction,
            places: places.iter().map(|&(n, place)| (id(n), place)).collect(),
        }
    }

    #[test]
    fn a_sample_is_judged_by_the_ticks_around_its_moment() {
        let truth = Truth::default();
        let mut judge = Judge::default();
        truth.note(Tick::new(3), |places| {
            places.extend([(id(1), Vec2::ZERO), (id(2), Vec2::ONE)]);
        });
        // Entity 2 is gone at the next tick, and 9 never was.
        let shown = [
            (1, Vec2::new(5.0, 3.0)),
            (2, Vec2::ZERO),
            (9, Vec2::splat(99.0)),
        ];
        judge.add(sample(4, 0.5, &shown));
        judge.judge(&truth);
        assert_eq!(judge.errors.count(), 0, "the tick behind it is not known");
        truth.note(Tick::new(6), |places| {
            places.push((id(1), Vec2::new(10.0, 0.0)));
        });
        judge.judge(&truth);
        // Halfway from tick 3 to tick 6 it was at (5, 0).
        assert_eq!(judge.errors.count(), 1);
        assert_eq!(judge.errors.max(), Some(3.0));
        // What is older than all that is known is dropped, what is newer waits.
        judge.add(sample(1, 0.0, &shown));
        judge.add(sample(6, 0.0, &shown));
        judge.judge(&truth);
        assert_eq!((judge.errors.count(), judge.waiting.len()), (1, 1));
    }

    #[test]
    fn a_percentile_is_what_so_many_do_not_exceed() {
        let mut errors = ShownErrors::default();
        assert_eq!(errors.percentile(99), None);
        for number in 1..=98_u8 {
            errors.add(f32::from(number) / 1000.0);
        }
        let mut other = ShownErrors::default();
        other.add(1.5);
        other.add(50.0);
        errors.merge(&other);
        assert_eq!(errors.count(), 100);
        assert_eq!(errors.percentile(50), Some(0.05));
        assert_eq!(errors.percentile(99), Some(1.5));
        assert_eq!(errors.percentile(100), Some(50.0));
        let mean = errors.mean().unwrap();
        assert!((mean - (4.851 + 51.5) / 100.0).abs() < 1e-6, "{mean}");
    }
}
