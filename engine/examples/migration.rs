//! Hosting that moves: three players over encrypted UDP on loopback. The first one hosts, and hangs
//! after two seconds; the others elect one of them and play on to the same end.
//!
//! ```text
//! cargo run --release -p phalanx --example migration
//! ```

use std::error::Error;
use std::net::Ipv4Addr;
use std::thread;
use std::time::Duration;

use phalanx::Session;
use phalanx::netcode::link::udp::{UdpConfig, UdpLink};
use phalanx::netcode::node::Event;
use phalanx::netcode::session::config::{HostConfig, JoinConfig, MigrationConfig};
use phalanx::prelude::*;

#[derive(Component, Networked, Clone, Copy, Debug)]
struct Score {
    slot: Slot,
    presses: u32,
}

#[derive(Exact, Clone, Copy, Debug, Default)]
struct Button(bool);

fn count(buttons: Res<Inputs<Button>>, mut scores: Query<&mut Score>) {
    for mut score in &mut scores {
        let is_pressed = buttons.get(score.slot).is_some_and(|button| button.0);
        score.presses += u32::from(is_pressed);
    }
}

fn game() -> Result<Game, GameError> {
    Game::builder("migration-example")
        .component::<Score>()
        .input::<Button>()
        .systems(|| count)
        .setup(|world, setup| {
            for slot in (0..setup.slots).map(Slot) {
                world.spawn_networked(Score { slot, presses: 0 });
            }
        })
        .build()
}

fn main() -> Result<(), Box<dyn Error>> {
    let game = game()?;
    let thumb = |tick: Tick, _world: &World| Button(tick.number().is_multiple_of(3));
    // Every member takes connections on its only socket: any of them may host one day.
    let local = UdpConfig::new(1).with_bind((Ipv4Addr::LOCALHOST, 0).into());

    let link = UdpLink::bind(local)?;
    let codes = [1, 2].map(|id| link.mint_token(id, link.local_addr(), Duration::from_secs(60)));
    let config = HostConfig {
        name: "player 0".to_owned(),
        plays: true,
        last_tick: Some(Tick::new(400)),
        migration: MigrationConfig::ELECTED,
        ..HostConfig::new(game.info("1.0"), 3)
    };
    let mut players = vec![Some(Session::host(&game, config, link, thumb)?)];
    for (number, code) in (1..).zip(codes) {
        let mut link = UdpLink::bind(local)?;
        let path = link.join(&code?)?;
        let config = JoinConfig::new(game.info("1.0"), &format!("player {number}"));
        players.push(Some(Session::join(&game, config, link, path, thumb)?));
    }

    let mut hung = None;
    while players.iter().flatten().any(|one| !one.node().is_over()) {
        for (number, slot) in players.iter_mut().enumerate() {
            let Some(player) = slot else { continue };
            player.update();
            while let Some(event) = player.poll_event() {
                tell(number, player.node().tick(), &event);
            }
            // A process that hangs: nobody updates its session any more, nobody says goodbye.
            if number == 0 && player.node().tick() >= Tick::new(120) {
                hung = slot.take();
            }
        }
        thread::sleep(Duration::from_millis(1));
    }
    assert!(hung.is_some(), "the first host is gone");
    let ends: Vec<_> = players
        .iter_mut()
        .flatten()
        .map(|player| (player.node().tick(), player.state_hash()))
        .collect();
    assert_eq!(ends.first(), ends.last(), "both end in the same state");
    assert_eq!(ends.first().map(|end| end.0), Some(Tick::new(400)));
    Ok(())
}

#[expect(clippy::print_stdout, reason = "an example shows what happens")]
fn tell(player: usize, tick: Tick, event: &Event) {
    println!("player {player}, tick {tick}: {event:?}");
}
