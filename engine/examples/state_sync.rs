//! The shortest game in state-sync mode: a host decides, two clients show.
//!
//! ```text
//! cargo run -p phalanx --example state_sync
//! ```
//!
//! A dedicated host and two players run in one process, over UDP on this machine. Each player
//! steers its own hero, which reacts at once, and sees the other's move evenly.

use std::error::Error;
use std::net::Ipv4Addr;
use std::thread;

use phalanx::Session;
use phalanx::netcode::link::udp::{UdpConfig, UdpLink};
use phalanx::netcode::session::config::{HostConfig, JoinConfig, Mode};
use phalanx::prelude::*;

/// Where something is, in metres. Clients get it in steps of 1/512 m.
#[derive(Component, Networked, Clone, Copy, Debug, PartialEq)]
struct Position(#[networked(range(-64..=64), per_unit = 512, position)] Vec2);

#[derive(Exact, Clone, Copy, Debug, Default)]
struct Stick {
    x: i8,
    y: i8,
}

/// The rules: on the host for everyone, on a client for its own hero.
fn steer(side: Res<Side>, sticks: Res<Inputs<Stick>>, heroes: Query<(&Owner, &mut Position)>) {
    for (owner, mut position) in heroes {
        if let (true, Some(stick)) = (side.computes(owner.0), sticks.get(owner.0)) {
            position.0 += Vec2::new(f32::from(stick.x), f32::from(stick.y)) / 2048.0;
        }
    }
}

fn game() -> Result<Game, GameError> {
    Game::builder("state-sync")
        .component::<Position>()
        .input::<Stick>()
        .systems(|| steer)
        .setup(|world, setup| {
            for slot in 0..setup.slots {
                world.spawn_networked((Owner(Slot(slot)), Position(Vec2::ZERO)));
            }
        })
        .build()
}

fn main() -> Result<(), Box<dyn Error>> {
    let game = game()?;
    let info = game.info_for("1.0", Mode::StateSync);
    let local = UdpConfig::new(2)
        .with_bind((Ipv4Addr::LOCALHOST, 0).into())
        .insecure();

    let link = UdpLink::bind(local)?;
    let address = link.local_addr();
    let config = HostConfig {
        last_tick: Some(Tick::new(240)),
        ..HostConfig::new(info.clone(), 2)
    };
    let mut host = Session::host(&game, config, link, |_, _: &World| Stick::default())?;

    let mut guests = Vec::new();
    for (name, x, y) in [("ada", 100, 0), ("bob", 0, -100)] {
        let mut link = UdpLink::bind(local)?;
        let path = link.connect(address)?;
        let config = JoinConfig::new(info.clone(), name);
        let stick = Stick { x, y };
        let mut guest = Session::join(&game, config, link, path, move |_, _: &World| stick)?;
        guests.push(thread::spawn(move || {
            let mut drawn = 0;
            while guest.update() {
                // A renderer would draw this.
                drawn += guest
                    .shown()
                    .map_or(0, |shown| shown.iter::<Position>().count());
                guest.nap();
            }
            (guest.node().state_sync(), drawn)
        }));
    }
    host.run(|_session, _event| {});

    let truth = host.state_hash();
    for guest in guests {
        let (sync, drawn) = guest.join().map_err(|_panic| "a guest's thread panicked")?;
        let sync = sync.ok_or("a guest never got in")?;
        assert_eq!(sync.authority.map(|(_tick, hash)| hash), truth);
        assert_eq!(sync.converged, Some(true), "it holds what the host has");
        assert!(sync.predictions > 10, "its own hero reacted at once");
        assert!(drawn > 100, "both heroes were shown");
        tell(&format!("{sync:?}"));
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "an example shows what happens")]
fn tell(line: &str) {
    println!("{line}");
}
