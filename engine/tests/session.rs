//! Sessions as a game client holds them.

use phalanx::netcode::link::memory::MemoryHub;
use phalanx::netcode::session::config::{HostConfig, Start};
use phalanx::prelude::*;
use phalanx::{Session, SessionError};

#[derive(Resource, Networked, Clone, Copy, Debug, Default)]
struct Sum(u32);

#[derive(Exact, Clone, Copy, Debug, Default)]
struct Step(u8);

fn game() -> Game {
    Game::builder("session-test")
        .resource::<Sum>()
        .input::<Step>()
        .systems(|| {
            |steps: Res<Inputs<Step>>, mut sum: ResMut<Sum>| {
                sum.0 += steps.iter().map(|(_, step)| u32::from(step.0)).sum::<u32>();
            }
        })
        .setup(|world, _setup| world.insert_resource(Sum::default()))
        .build()
        .expect("a plain game")
}

fn alone(game: &Game) -> HostConfig {
    HostConfig {
        plays: true,
        start: Start::Players(1),
        last_tick: Some(Tick::new(5)),
        ..HostConfig::new(game.info("1"), 1)
    }
}

#[test]
fn a_player_alone_runs_every_tick_on_its_own_inputs() {
    let game = game();
    let link = MemoryHub::new().link();
    let mut session =
        Session::host(&game, alone(&game), link, |_, _: &World| Step(3)).expect("it begins");
    session.run(|_session, _event| {});
    assert_eq!(session.node().tick(), Tick::new(5));
    let world = session.world().expect("it has run");
    assert_eq!(world.resource::<Sum>().0, 15);
}

#[test]
fn inputs_of_another_type_are_refused_before_the_session_begins() {
    let game = game();
    let link = MemoryHub::new().link();
    let refused = Session::host(&game, alone(&game), link, |_, _: &World| 7_u8);
    let Err(SessionError::Input { expected, found }) = refused else {
        panic!("not refused: {refused:?}");
    };
    assert!(
        expected.ends_with("Step") && found == "u8",
        "{expected}, {found}"
    );
}

#[test]
fn a_replay_that_cannot_be_played_is_named() {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    let diary = folder.join("diary.phxr");
    std::fs::write(&diary, "dear diary, today").expect("a folder for tests");
    for (file, why) in [(diary, "replay"), (folder.join("missing.phxr"), "os error")] {
        let error = game().playback(&file).expect_err("not a replay");
        let sentence = error.to_string();
        let name = file.display().to_string();
        assert!(
            sentence.contains(&name) && sentence.contains(why),
            "{sentence}"
        );
    }
}
