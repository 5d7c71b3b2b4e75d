//! Sessions inside of Bevy apps, without a window: a listen server and a client, one code path.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use bevy_app::{App, Update};
use bevy_ecs::message::MessageReader;
use phalanx::app::{GameEvent, PlayerInput, RunningSession, SessionEvent, SessionPlugin};
use phalanx::netcode::link::memory::{MemoryHub, MemoryLink};
use phalanx::netcode::node::Event;
use phalanx::netcode::session::config::{HostConfig, JoinConfig, Mode};
use phalanx::prelude::*;

#[derive(Component, Networked, Clone, Copy, Debug, PartialEq)]
struct Position(f32);

#[derive(Clone, Copy, Debug, PartialEq)]
struct Step(Slot);

fn walk(
    side: Res<Side>,
    inputs: Res<Inputs<i8>>,
    mut steps: ResMut<TickEvents<Step>>,
    heroes: Ordered<(&Owner, &mut Position)>,
) {
    let mut heroes = heroes;
    for (owner, mut position) in heroes.iter_mut() {
        let push = inputs.get(owner.0).copied().unwrap_or(0);
        if side.computes(owner.0) && push != 0 {
            position.0 += f32::from(push);
            steps.send(Step(owner.0));
        }
    }
}

/// How far behind the running tick slot 1 saw the others, at most.
#[derive(Resource, Default)]
struct Behind(u32);

fn look(tick: Res<CurrentTick>, rewind: Rewind<Position>, mut behind: ResMut<Behind>) {
    let then = rewind.at(Slot(1));
    let first = NetId::from_bits(1);
    assert!(then.get(first).is_some());
    behind.0 = behind.0.max(tick.0.number() - then.tick().number());
}

fn game() -> Game {
    Game::builder("app")
        .component::<Position>()
        .rewindable::<Position>(20)
        .event::<Step>()
        .input::<i8>()
        .systems(|| (walk, look).chain())
        .setup(|world, setup| {
            world.init_resource::<Behind>();
            for slot in 0..setup.slots {
                world.spawn_networked((Owner(Slot(slot)), Position(0.0)));
            }
        })
        .build()
        .unwrap()
}

/// What an app has seen.
#[derive(Resource, Default)]
struct Diary {
    steps: u32,
    ended: bool,
    heroes: usize,
    furthest: f32,
}

/// The same systems draw on every side.
fn draw(
    mut diary: ResMut<Diary>,
    heroes: Query<(&NetId, &Owner, &Position)>,
    mut steps: MessageReader<GameEvent<Step>>,
    mut events: MessageReader<SessionEvent>,
) {
    diary.steps += u32::try_from(steps.read().count()).unwrap();
    diary.heroes = heroes.iter().count();
    for (_, _, position) in &heroes {
        diary.furthest = diary.furthest.max(position.0);
    }
    let is_end = |event: &SessionEvent| matches!(event.0, Event::Ended { .. });
    diary.ended |= events.read().any(is_end);
}

fn app(plugin: SessionPlugin<MemoryLink, i8>, push: i8) -> App {
    let mut app = App::new();
    app.add_plugins(plugin.show::<Position>().show::<Owner>().event::<Step>())
        .init_resource::<Diary>()
        .add_systems(Update, draw);
    app.world_mut().resource_mut::<PlayerInput<i8>>().0 = push;
    app
}

fn play(mode: Mode) -> [App; 2] {
    let game = game();
    let info = game.info_for("1", mode);
    let hub = MemoryHub::new();
    let link = hub.link();
    let address = link.address();
    let config = HostConfig {
        plays: true,
        last_tick: Some(Tick::new(90)),
        ..HostConfig::new(info.clone(), 2)
    };
    let host = app(SessionPlugin::host(&game, config, link).unwrap(), 1);
    let mut link = hub.link();
    let path = link.connect(address);
    let config = JoinConfig {
        prediction_ticks: 8,
        ..JoinConfig::new(info, "guest")
    };
    let guest = app(SessionPlugin::join(&game, config, link, path).unwrap(), 2);
    let mut apps = [host, guest];
    let start = Instant::now();
    let is_over = |app: &App| {
        let running = app.world().resource::<RunningSession<MemoryLink>>();
        running.is_over()
    };
    while !apps.iter().all(is_over) {
        apps.iter_mut().for_each(App::update);
        assert!(start.elapsed() < Duration::from_secs(60), "it never ends");
        std::thread::sleep(Duration::from_micros(500));
    }
    apps
}

#[test]
fn a_listen_server_and_a_client_show_the_same_game() {
    for mode in [Mode::StateSync, Mode::Lockstep] {
        let mut apps = play(mode);
        let [host, guest] = apps.each_mut().map(|app| {
            let diary = app.world_mut().remove_resource::<Diary>().unwrap();
            let mut heroes = app.world_mut().query::<(&Owner, &Position)>();
            let mut heroes: Vec<(u8, f32)> = heroes
                .iter(app.world())
                .map(|(owner, position)| (owner.0.0, position.0))
                .collect();
            heroes.sort_by_key(|hero| hero.0);
            assert!(diary.ended, "{mode}");
            assert_eq!(diary.heroes, 2, "{mode}");
            assert_eq!(app.world().resource::<NetIndex>().len(), 2);
            (diary, heroes)
        });
        // The host's own hero takes one step per tick, the guest's steps are twice as long.
        assert_eq!(host.1[0], (0, 90.0), "{mode}");
        assert!(host.1[1].1 > 100.0, "{mode}: {:?}", host.1);
        assert!(guest.0.furthest > 100.0, "{mode}");
        let own = host.1[1].1 - guest.1[1].1;
        assert!(own.abs() < 1e-3, "{mode}: the own hero is at the present");
        assert!(guest.0.steps > 50, "{mode}: {}", guest.0.steps);
        match mode {
            // Every step that a client hears it has predicted itself, once.
            Mode::StateSync => assert!(guest.0.steps <= 90, "{}", guest.0.steps),
            Mode::Lockstep => assert_eq!(guest.0.steps, host.0.steps),
        }
        let host = apps[0].world_mut();
        let mut running = host.resource_mut::<RunningSession<MemoryLink>>();
        let world = running.session().world().unwrap();
        let behind = world.resource::<Behind>().0;
        match mode {
            // The distance of two snapshots at least, and no more than the host allows.
            Mode::StateSync => assert!((4..=16).contains(&behind), "{behind}"),
            Mode::Lockstep => assert_eq!(behind, 0),
        }
        let session = apps[1].world_mut();
        let mut running = session.resource_mut::<RunningSession<MemoryLink>>();
        let converged = running.session().node().state_sync();
        assert_eq!(
            converged.and_then(|sync| sync.converged),
            (mode == Mode::StateSync).then_some(true)
        );
    }
}
