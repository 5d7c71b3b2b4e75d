//! What a host's systems see of the past.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use phalanx::prelude::*;

#[derive(Component, Networked, Clone, Copy, Debug, PartialEq)]
struct Place(u32);

/// What slots 0 and 1 saw: of each entity its place, by id.
#[derive(Resource, Default, Debug)]
struct Report {
    ticks: [u32; 2],
    seen: [Vec<(u64, u32)>; 2],
    target: Option<u32>,
}

fn walk(places: Query<&mut Place>, tick: Res<CurrentTick>) {
    for mut place in places {
        place.0 += tick.0.number();
    }
}

fn come_and_go(
    tick: Res<CurrentTick>,
    entities: Ordered<&NetId, With<Place>>,
    mut commands: NetCommands,
) {
    if tick.0.number().is_multiple_of(3) {
        commands.spawn(Place(1000));
    }
    if tick.0.number().is_multiple_of(5)
        && let Some(&eldest) = entities.iter().next()
    {
        commands.despawn(eldest);
    }
}

fn look(rewind: Rewind<Place>, mut report: ResMut<Report>) {
    for slot in [0, 1] {
        let then = rewind.at(Slot(slot));
        let place = usize::from(slot);
        report.ticks[place] = then.tick().number();
        let mut seen = Vec::new();
        then.for_each(|id, place| {
            assert_eq!(then.get(id), Some(place));
            seen.push((id.bits(), place.0));
        });
        seen.sort_unstable();
        report.seen[place] = seen;
    }
    let first = NetId::from_bits(1);
    report.target = rewind.at(Slot(1)).get(first).map(|place| place.0);
}

const LIMIT: u32 = 6;

fn game() -> Game {
    Game::builder("rewind")
        .component::<Place>()
        .rewindable::<Place>(LIMIT)
        .systems(|| (walk, look, come_and_go).chain())
        .setup(|world, _setup| {
            world.init_resource::<Report>();
            for place in 0..4 {
                world.spawn_networked(Place(place));
            }
        })
        .build()
        .unwrap()
}

fn step(simulation: &mut EcsSimulation) {
    let frame = InputFrame::empty(simulation.tick().next(), 2, 0);
    simulation.step(&frame, StepKind::First);
}

fn places(simulation: &mut EcsSimulation) -> Vec<(u64, u32)> {
    let mut query = simulation.world_mut().query::<(&NetId, &Place)>();
    let places = query.iter(simulation.world());
    let mut places: Vec<(u64, u32)> = places.map(|(id, place)| (id.bits(), place.0)).collect();
    places.sort_unstable();
    places
}

#[test]
fn each_slot_gets_exactly_what_it_saw_within_the_limit() {
    let mut host = game().simulation(1, 2);
    // What everything was at the end of each tick.
    let mut truth: Vec<Vec<(u64, u32)>> = vec![places(&mut host)];
    let mut despawned_seen = 0;
    for now in 1..60_u32 {
        let seen = now.saturating_sub(1 + now % 10);
        host.seen(Slot(0), 1);
        host.seen(Slot(1), now - seen);
        step(&mut host);
        let report = host.world().resource::<Report>();
        if now > 1 {
            let then = seen.max((now - 1).saturating_sub(LIMIT)).max(1);
            assert_eq!(report.ticks, [now - 1, then], "tick {now}");
            assert_eq!(report.seen[0], truth[now as usize - 1], "tick {now}");
            assert_eq!(report.seen[1], truth[then as usize], "tick {now}");
            let gone = report.seen[1]
                .iter()
                .any(|(id, _)| truth[now as usize - 1].iter().all(|(other, _)| other != id));
            despawned_seen += u32::from(gone);
        }
        truth.push(places(&mut host));
    }
    assert!(despawned_seen > 0, "the past has entities that are gone");
    // Nobody sees the future, or back to the beginning of time.
    for (claimed, then) in [(0, 59), (u32::MAX, 60 - LIMIT)] {
        host.seen(Slot(1), claimed);
        step(&mut host);
        let report = host.world().resource::<Report>();
        assert_eq!(report.ticks[1], then);
        assert_eq!(report.seen[1], truth[then as usize]);
    }
}

#[test]
fn in_lockstep_and_on_clients_it_is_the_present() {
    for side in [Side::Authority, Side::Predicting(Slot(1))] {
        let mut simulation = game().simulation(1, 2);
        simulation.set_side(side);
        if !side.is_authority() {
            simulation.seen(Slot(1), 2);
        }
        for now in 1..5 {
            step(&mut simulation);
            let report = simulation.world().resource::<Report>();
            assert_eq!(report.ticks[1], now);
            // `walk` ran before in the same tick.
            assert_eq!(report.target, Some((1..=now).sum()));
        }
    }
}

#[test]
fn a_past_that_nobody_keeps_is_refused() {
    let error = Game::builder("rewind")
        .component::<Place>()
        .systems(|| look)
        .build()
        .unwrap_err();
    assert!(
        matches!(&error, GameError::NotRegistered(name) if name.contains("Place")),
        "{error}"
    );
    fn tell(mut events: ResMut<TickEvents<u8>>) {
        events.send(1);
    }
    let error = Game::builder("events")
        .systems(|| tell)
        .build()
        .unwrap_err();
    assert!(matches!(error, GameError::NotRegistered(_)), "{error}");
}
