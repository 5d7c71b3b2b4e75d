//! Records a session to a file, verifies it, and seeks in it.
//!
//! ```text
//! cargo run --release -p phalanx --example record_and_verify
//! ```

use std::error::Error;

use phalanx::Session;
use phalanx::netcode::link::memory::MemoryHub;
use phalanx::netcode::session::config::{HostConfig, Start};
use phalanx::prelude::*;

#[derive(Component, Networked, Clone, Copy, Debug)]
struct Walker {
    place: i32,
}

#[derive(Exact, Clone, Copy, Debug, Default)]
struct Push {
    by: i8,
}

fn walk(
    pushes: Res<Inputs<Push>>,
    mut rng: ResMut<TickRng>,
    mut walkers: Ordered<&'static mut Walker>,
) {
    let push: i32 = pushes.iter().map(|(_slot, push)| i32::from(push.by)).sum();
    // Random numbers are drawn in turn, so the order of the walkers matters.
    for mut walker in walkers.iter_mut() {
        walker.place += push
            + if rng.chance_per_million(500_000) {
                1
            } else {
                -1
            };
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let game = Game::builder("record-example")
        .component::<Walker>()
        .input::<Push>()
        .systems(|| walk)
        .setup(|world, _setup| {
            for place in 0..1000 {
                world.spawn_networked(Walker { place });
            }
        })
        .build()?;

    // A session of one: the host plays alone, over a link that leads nowhere.
    let file = std::env::temp_dir().join(format!("phalanx-example-{}.phxr", std::process::id()));
    let config = HostConfig {
        plays: true,
        start: Start::Players(1),
        last_tick: Some(Tick::new(240)),
        seed: 7,
        ..HostConfig::new(game.info("1.0"), 1)
    };
    let link = MemoryHub::new().link();
    let mut session = Session::host(&game, config, link, |tick: Tick, _world: &World| Push {
        by: if tick.number().is_multiple_of(50) {
            3
        } else {
            0
        },
    })?;
    session.record(&file);
    session.run(|_session, _event| {});
    session.finish_recording().ok_or("nothing was recorded")??;
    let played = session.state_hash();

    let mut playback = game.playback(&file)?;
    let report = playback.verify(|_tick, _last| {})?;
    playback.seek(Tick::new(100))?;
    playback.seek(Tick::new(240))?;
    let replayed = Some(playback.simulation_mut().state_hash().combined());
    std::fs::remove_file(&file)?;
    say(&format!(
        "{report:?}\nstate at the end: {played:x?}, from the replay: {replayed:x?}"
    ));
    assert_eq!(
        played, replayed,
        "the replay ends in the state that was played"
    );
    Ok(())
}

#[expect(clippy::print_stdout, reason = "an example shows what happens")]
fn say(text: &str) {
    println!("{text}");
}
