//! Host and guest as two processes, encrypted: the host prints a join code, the guest takes it.
//!
//! ```text
//! cargo run --release -p phalanx --example join_udp -- host
//! cargo run --release -p phalanx --example join_udp -- join CODE
//! ```

use std::error::Error;
use std::net::Ipv4Addr;
use std::time::Duration;

use phalanx::netcode::link::udp::{JoinToken, UdpConfig, UdpLink};
use phalanx::netcode::node::Event;
use phalanx::netcode::session::config::{HostConfig, JoinConfig};
use phalanx::prelude::*;
use phalanx::{LocalInput, Session};

/// Names this game among others on the network.
const PROTOCOL_ID: u64 = 0x6a6f_696e_5f75_6470;

#[derive(Resource, Networked, Clone, Copy, Debug, Default)]
struct Score {
    presses: u32,
}

#[derive(Exact, Clone, Copy, Debug, Default)]
struct Button {
    pressed: bool,
}

fn count(buttons: Res<Inputs<Button>>, mut score: ResMut<Score>) {
    for (_slot, button) in buttons.iter() {
        score.presses += u32::from(button.pressed);
    }
}

fn game() -> Result<Game, GameError> {
    Game::builder("join-example")
        .resource::<Score>()
        .input::<Button>()
        .systems(|| count)
        .setup(|world, _setup| world.insert_resource(Score::default()))
        .build()
}

fn main() -> Result<(), Box<dyn Error>> {
    let game = game()?;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["host"] => host(&game),
        ["join", code] => join(&game, code),
        _ => Err("say `host` or `join CODE`".into()),
    }
}

/// Presses the button every other second.
fn thumb() -> impl LocalInput<Button> {
    |tick: Tick, _world: &World| Button {
        pressed: tick.number().is_multiple_of(120),
    }
}

fn host(game: &Game) -> Result<(), Box<dyn Error>> {
    let bind = (Ipv4Addr::LOCALHOST, 0).into();
    let link = UdpLink::bind(UdpConfig::new(PROTOCOL_ID).with_bind(bind))?;
    let token = link.mint_token(1, link.local_addr(), Duration::from_secs(600))?;
    say(&format!(
        "join code, good for one guest:\n{}",
        token.to_text()
    ));
    let config = HostConfig {
        plays: true,
        last_tick: Some(Tick::new(600)),
        ..HostConfig::new(game.info("1.0"), 2)
    };
    finish(Session::host(game, config, link, thumb())?)
}

fn join(game: &Game, code: &str) -> Result<(), Box<dyn Error>> {
    let token = JoinToken::from_text(code)?;
    let mut link = UdpLink::bind(UdpConfig::new(PROTOCOL_ID).with_clients_max(0))?;
    let path = link.join(&token)?;
    let config = JoinConfig::new(game.info("1.0"), "guest");
    finish(Session::join(game, config, link, path, thumb())?)
}

fn finish(mut session: Session<UdpLink>) -> Result<(), Box<dyn Error>> {
    let mut refused = None;
    session.run(|_session, event| {
        say(&format!("{event:?}"));
        if let Event::Refused { reason, .. } = event {
            refused = Some(reason);
        }
    });
    if let Some(reason) = refused {
        return Err(reason.into());
    }
    let hash = session.state_hash().ok_or("the session never began")?;
    say(&format!(
        "state {hash:016x} after tick {}",
        session.node().tick()
    ));
    Ok(())
}

#[expect(clippy::print_stdout, reason = "an example shows what happens")]
fn say(text: &str) {
    println!("{text}");
}
