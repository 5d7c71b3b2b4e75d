use phalanx_netcode::input::InputFrame;
use phalanx_netcode::simulation::{Simulation, StepKind};
use phalanx_netcode::state::{Patch, PatchRows, Snapshot};
use phalanx_netcode::tick::Tick;

use super::*;
use crate::prelude::*;

#[derive(Component, Networked, Clone, Copy, Debug, PartialEq)]
struct Position(Vec2);

#[derive(Component, Networked, Clone, Copy, Debug, PartialEq)]
struct Place(#[networked(interpolate = "step")] f32);

#[derive(Component, Networked, Clone, Copy, Debug, PartialEq)]
struct Facing(Quat);

#[derive(Clone, Debug, PartialEq)]
struct Bang(Slot);

/// Everything moves by 1 per tick; a pressed trigger spawns a shot.
fn advance(
    triggers: Res<Inputs<u8>>,
    mut commands: NetCommands,
    mut bangs: ResMut<TickEvents<Bang>>,
    movers: Query<(&mut Position, Option<&mut Place>)>,
) {
    for (mut position, place) in movers {
        position.0.x += 1.0;
        if let Some(mut place) = place {
            place.0 += 1.0;
        }
    }
    for (slot, _) in triggers.iter().filter(|(_, trigger)| **trigger > 0) {
        commands.spawn_predicted(slot, Position(Vec2::new(0.0, 7.0)));
        bangs.send(Bang(slot));
    }
}

fn game() -> Game {
    Game::builder("shown")
        .component::<Position>()
        .component::<Place>()
        .component::<Facing>()
        .event::<Bang>()
        .input::<u8>()
        .systems(|| advance)
        .setup(|world, _setup| {
            for slot in 0..2 {
                world.spawn_networked((
                    Owner(Slot(slot)),
                    Position(Vec2::ZERO),
                    Place(0.0),
                    Facing(Quat::IDENTITY),
                ));
            }
        })
        .build()
        .unwrap()
}

const HERO: NetId = NetId::from_bits(1);

/// A host, and the client of slot 0 that has taken over the host's first state.
struct Pair {
    host: EcsSimulation,
    client: EcsSimulation,
    base: EcsImage,
    triggers: Vec<u32>,
}

impl Pair {
    fn new(triggers: &[u32]) -> Self {
        let game = game();
        let mut pair = Self {
            host: game.simulation(1, 2),
            client: game.simulation(1, 2),
            base: EcsImage::default(),
            triggers: triggers.to_vec(),
        };
        pair.client.set_side(Side::Predicting(Slot(0)));
        pair.tell();
        pair
    }

    fn frame(triggers: &[u32], tick: Tick) -> InputFrame {
        let mut frame = InputFrame::empty(tick, 2, 1);
        let is_pressed = triggers.contains(&tick.number());
        frame.set(Slot(0), &[u8::from(is_pressed)]);
        frame
    }

    fn step_host(&mut self) {
        let frame = Self::frame(&self.triggers, self.host.tick().next());
        self.host.step(&frame, StepKind::First);
    }

    fn step_client(&mut self, kind: StepKind) {
        let frame = Self::frame(&self.triggers, self.client.tick().next());
        self.client.step(&frame, kind);
    }

    /// The client takes over the host's present state, and runs again what it had run.
    fn tell(&mut self) {
        let ran = self.client.tick();
        let mut now = Snapshot::default();
        self.host.publish(&mut now);
        let mut patch = Patch {
            tick: now.tick,
            is_whole: self.base.entities() == 0,
            ..Patch::default()
        };
        for rows in now.kinds {
            patch.kinds.push(PatchRows {
                rows,
                removed: Vec::new(),
            });
        }
        if !patch.is_whole {
            self.client.restore(&self.base);
        }
        self.client.patch(&patch).unwrap();
        self.client.capture(&mut self.base);
        while self.client.tick() < ran {
            self.step_client(StepKind::Again);
        }
    }

    fn shown(&self) -> ShownWorld<'_> {
        ShownWorld::new(&self.client, None)
    }

    fn shown_x(&self, id: NetId) -> f32 {
        self.shown().get::<Position>(id).unwrap().0.x
    }
}

#[test]
fn a_correction_fades_and_never_enters_the_state() {
    let mut pair = Pair::new(&[]);
    assert!(
        pair.shown().ids().next().is_none(),
        "nothing is predicted yet"
    );
    for _ in 0..3 {
        pair.step_client(StepKind::First);
    }
    assert_eq!(pair.shown_x(HERO), 3.0);
    assert!(pair.shown().is_predicted(HERO));
    assert!(
        pair.shown().ids().eq([HERO]),
        "others are not this client's to predict"
    );
    // On the host, something pushed the hero.
    pair.step_host();
    let entity = pair.host.world().resource::<NetIndex>().get(HERO).unwrap();
    let mut hero = pair.host.world_mut().entity_mut(entity);
    hero.get_mut::<Position>().unwrap().0.x += 8.0;
    hero.get_mut::<Place>().unwrap().0 += 8.0;
    hero.insert(Facing(Quat::from_xyzw(0.0, 0.0, 0.6, -0.8)));
    pair.tell();
    let hash = pair.client.state_hash();
    assert_eq!(pair.client.snapshot().tick, Tick::new(3));
    assert_eq!(pair.shown_x(HERO), 3.0, "it goes on from where it was");
    let place = pair.shown().get::<Place>(HERO).unwrap();
    assert_eq!(place.0, 11.0, "steps are not smoothed");
    let facing = pair.shown().get::<Facing>(HERO).unwrap();
    assert!(facing.0.dot(Quat::IDENTITY).abs() > 0.999, "{facing:?}");
    pair.client.fade_corrections(50_000);
    assert!((pair.shown_x(HERO) - 7.0).abs() < 1e-4);
    let facing = pair.shown().get::<Facing>(HERO).unwrap();
    assert!((facing.0.length() - 1.0).abs() < 1e-5);
    // It moves on meanwhile, and a second word of the host that agrees changes nothing.
    pair.step_host();
    pair.tell();
    assert!((pair.shown_x(HERO) - 7.0).abs() < 1e-4);
    assert_eq!(pair.client.state_hash(), hash);
    pair.step_client(StepKind::First);
    assert!((pair.shown_x(HERO) - 8.0).abs() < 1e-4);
    pair.client.fade_corrections(5_000_000);
    assert_eq!(pair.shown_x(HERO), 12.0);
}

#[test]
fn what_was_moved_on_purpose_is_not_smoothed() {
    let mut pair = Pair::new(&[]);
    pair.client.set_smoothing(Smoothing {
        snap_beyond: 5.0,
        ..Smoothing::default()
    });
    for _ in 0..3 {
        pair.step_client(StepKind::First);
    }
    pair.step_host();
    let entity = pair.host.world().resource::<NetIndex>().get(HERO).unwrap();
    pair.host
        .world_mut()
        .get_mut::<Position>(entity)
        .unwrap()
        .0
        .x += 8.0;
    pair.tell();
    assert_eq!(pair.shown_x(HERO), 11.0);
}

#[test]
fn the_hosts_entity_takes_the_place_of_the_predicted_one() {
    let mut pair = Pair::new(&[2]);
    for _ in 0..5 {
        pair.step_client(StepKind::First);
    }
    let ahead: Vec<NetId> = pair.shown().ids().filter(|&id| id != HERO).collect();
    let [shot] = ahead[..] else {
        panic!("{ahead:?}");
    };
    assert!(shot.is_predicted());
    assert_eq!(pair.shown().handle(shot), shot);
    assert_eq!(pair.shown_x(shot), 3.0);
    for ticks in 1..=4 {
        pair.step_host();
        if ticks == 3 {
            // The host's shot flew a little further than foreseen.
            let mut shots = pair.host.world_mut().query::<(&SpawnKey, &mut Position)>();
            let mut moved = 0;
            for (key, mut position) in shots.iter_mut(pair.host.world_mut()) {
                assert_eq!(key.predicted_id(), shot);
                position.0.x += 0.5;
                moved += 1;
            }
            assert_eq!(moved, 1);
        }
        pair.tell();
        let here: Vec<NetId> = pair.shown().ids().filter(|&id| id != HERO).collect();
        let [id] = here[..] else { panic!("{here:?}") };
        assert_eq!(id.is_predicted(), ticks < 2, "tick {ticks}");
        assert_eq!(pair.shown().handle(id), shot, "tick {ticks}");
        assert_eq!(pair.shown_x(id), 3.0, "no jump, tick {ticks}");
    }
    let id = pair.shown().ids().find(|&id| id != HERO).unwrap();
    pair.client.fade_corrections(5_000_000);
    assert_eq!(pair.shown_x(id), 3.5);
}

#[test]
fn a_predicted_shot_is_heard_once() {
    let mut pair = Pair::new(&[2, 4]);
    let mut heard: Vec<(u32, Bang)> = Vec::new();
    for round in 0..10 {
        pair.step_client(StepKind::First);
        if round >= 3 {
            pair.step_host();
            pair.tell();
        }
        let bangs = pair.client.drain_events::<Bang>();
        heard.extend(bangs.map(|(tick, bang)| (tick.number(), bang)));
    }
    assert_eq!(heard, [(2, Bang(Slot(0))), (4, Bang(Slot(0)))]);
    assert_eq!(pair.host.drain_events::<Bang>().count(), 2);
}

#[test]
fn what_is_predicted_is_shown_between_ticks() {
    let mut pair = Pair::new(&[3]);
    for _ in 0..2 {
        pair.step_client(StepKind::First);
    }
    let place = |pair: &Pair| pair.shown().get::<Place>(HERO).unwrap().0;
    assert_eq!(
        pair.shown_x(HERO),
        2.0,
        "whole ticks, if nobody says otherwise"
    );
    for part in [0.0, 0.25, 1.0] {
        pair.client.show_between_ticks(part);
        assert_eq!(pair.shown_x(HERO), 1.0 + part);
        assert_eq!(place(&pair), 2.0, "a step is shown at once");
    }
    // What has just come is where it came.
    pair.step_client(StepKind::First);
    pair.client.show_between_ticks(0.5);
    let shot = pair.shown().ids().find(|&id| id != HERO).unwrap();
    assert_eq!(pair.shown_x(shot), 0.0);
    pair.step_client(StepKind::First);
    assert_eq!(pair.shown_x(shot), 0.5);
    let hash = pair.client.state_hash();
    assert_eq!(pair.shown_x(HERO), 3.5);
    assert_eq!(pair.client.state_hash(), hash, "it is presentation");
}

#[test]
fn a_correction_between_ticks_does_not_jump_either() {
    let mut pair = Pair::new(&[]);
    for _ in 0..5 {
        pair.step_client(StepKind::First);
    }
    pair.client.show_between_ticks(0.5);
    assert_eq!(pair.shown_x(HERO), 4.5);
    pair.step_host();
    let entity = pair.host.world().resource::<NetIndex>().get(HERO).unwrap();
    let mut position = pair.host.world_mut().get_mut::<Position>(entity).unwrap();
    position.0.x += 4.0;
    pair.tell();
    assert!((pair.shown_x(HERO) - 4.5).abs() < 1e-4);
    pair.client.fade_corrections(5_000_000);
    assert_eq!(pair.shown_x(HERO), 8.5);
}

#[test]
fn nothing_glides_where_it_was_moved_on_purpose() {
    let mut pair = Pair::new(&[]);
    pair.client.set_smoothing(Smoothing {
        snap_beyond: 0.5,
        ..Smoothing::default()
    });
    for _ in 0..2 {
        pair.step_client(StepKind::First);
    }
    // A whole metre per tick is a jump here.
    pair.client.show_between_ticks(0.25);
    assert_eq!(pair.shown_x(HERO), 2.0);
}
