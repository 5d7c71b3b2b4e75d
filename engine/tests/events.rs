//! Events of ticks, told to presentation once, also where another simulation goes on.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use phalanx::prelude::*;

#[derive(Clone, Debug, PartialEq)]
struct Step(u32);

fn walk(tick: Res<CurrentTick>, mut steps: ResMut<TickEvents<Step>>) {
    steps.send(Step(tick.0.number()));
}

fn run(simulation: &mut EcsSimulation, ticks: core::ops::RangeInclusive<u32>) {
    for tick in ticks {
        simulation.step(&InputFrame::empty(Tick::new(tick), 1, 1), StepKind::First);
    }
}

fn told(simulation: &mut EcsSimulation) -> Vec<u32> {
    let events = simulation.drain_events::<Step>();
    events.map(|(_tick, step)| step.0).collect()
}

#[test]
fn a_standby_that_takes_over_tells_neither_its_past_nor_anything_twice() {
    let game = Game::builder("steps")
        .event::<Step>()
        .input::<u8>()
        .systems(|| walk)
        .build()
        .unwrap();
    let mut shown = game.simulation(1, 1);
    // What ran out of sight, and is not as far: the player was shown a prediction.
    let mut standby = game.simulation(1, 1);
    run(&mut shown, 1..=20);
    assert_eq!(told(&mut shown), (1..=20).collect::<Vec<_>>());
    run(&mut shown, 21..=24);
    run(&mut standby, 1..=18);
    standby.take_place_of(&mut shown);
    assert_eq!(
        told(&mut standby),
        [21, 22, 23, 24],
        "not lost, and nothing of its own"
    );
    run(&mut standby, 19..=30);
    assert_eq!(told(&mut standby), (25..=30).collect::<Vec<_>>());
}
