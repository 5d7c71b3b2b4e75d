//! The shortest complete lockstep game: two players, one process, real UDP on loopback.
//!
//! ```text
//! cargo run --release -p phalanx --example lockstep
//! ```

use std::error::Error;
use std::net::Ipv4Addr;
use std::thread;

use phalanx::Session;
use phalanx::netcode::link::udp::{UdpConfig, UdpLink};
use phalanx::netcode::node::Event;
use phalanx::netcode::session::config::{HostConfig, JoinConfig};
use phalanx::prelude::*;

#[derive(Component, Networked, Clone, Copy, Debug)]
struct Position(Vec2);

#[derive(Component, Networked, Clone, Copy, Debug)]
struct Hero(Slot);

#[derive(Exact, Clone, Copy, Debug, Default)]
struct Stick {
    x: i8,
    y: i8,
}

/// The rules: every hero goes where its player's stick points.
fn steer(sticks: Res<Inputs<Stick>>, mut heroes: Query<(&Hero, &mut Position)>) {
    for (hero, mut position) in &mut heroes {
        if let Some(stick) = sticks.get(hero.0) {
            position.0 += Vec2::new(f32::from(stick.x), f32::from(stick.y)) / 127.0;
        }
    }
}

fn game() -> Result<Game, GameError> {
    Game::builder("lockstep-example")
        .component::<Position>()
        .component::<Hero>()
        .input::<Stick>()
        .systems(|| steer)
        .setup(|world, setup| {
            for slot in 0..setup.slots {
                world.spawn_networked((Hero(Slot(slot)), Position(Vec2::ZERO)));
            }
        })
        .build()
}

fn main() -> Result<(), Box<dyn Error>> {
    let game = game()?;
    let info = game.info("1.0");
    let local = UdpConfig::new(1)
        .with_bind((Ipv4Addr::LOCALHOST, 0).into())
        .insecure();

    let link = UdpLink::bind(local)?;
    let address = link.local_addr();
    let config = HostConfig {
        plays: true,
        last_tick: Some(Tick::new(300)),
        ..HostConfig::new(info.clone(), 2)
    };
    let mut host = Session::host(&game, config, link, |_tick, _world: &World| Stick {
        x: 50,
        y: 20,
    })?;

    let mut link = UdpLink::bind(local)?;
    let path = link.connect(address)?;
    let config = JoinConfig::new(info, "guest");
    let mut guest = Session::join(&game, config, link, path, |tick: Tick, _world: &World| {
        Stick {
            x: if tick.number() % 60 < 30 { 100 } else { -100 },
            y: 0,
        }
    })?;

    let guest = thread::spawn(move || {
        guest.run(|_session, event| tell("guest", &event));
        (guest.node().tick(), guest.state_hash())
    });
    host.run(|_session, event| tell("host", &event));
    let here = (host.node().tick(), host.state_hash());
    let there = guest
        .join()
        .map_err(|_panic| "the guest's thread panicked")?;
    assert_eq!(here, there, "both ran the same ticks to the same state");
    Ok(())
}

#[expect(clippy::print_stdout, reason = "an example shows what happens")]
fn tell(who: &str, event: &Event) {
    println!("{who}: {event:?}");
}
