#![expect(clippy::print_stdout, reason = "a benchmark prints its result")]
//! What a host costs per client and tick over a real loopback socket, encrypted and not.
//!
//! `cargo run --release -p phalanx-benches --bin udp [CLIENTS [PAYLOAD [TICKS]]]`, by default 64
//! clients, 100 bytes, 600 ticks. Linux only. `benches/peers` runs the same beside renet_netcode.

use phalanx_benches::udp_load::{self, Load};
use phalanx_netcode::link::udp::Security;

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: u32| -> u32 {
        arguments
            .next()
            .and_then(|text| text.parse().ok())
            .unwrap_or(default)
    };
    let load = Load {
        clients: usize::try_from(number(64)).map_err(std::io::Error::other)?,
        payload: usize::try_from(number(100)).map_err(std::io::Error::other)?,
        ticks: number(600),
    };
    println!("{load:?}");
    for security in [Security::Secure, Security::Insecure] {
        let cost = udp_load::run(load, security)?;
        println!(
            "{security:?}: {:.2} us per client and tick ({:.2} on the game's thread), \
             {:.1} B in {:.2} datagrams, {:.2} % received",
            cost.us_per_client_tick,
            cost.us_on_game_thread,
            cost.bytes_sent,
            cost.datagrams_sent,
            cost.received * 100.0
        );
    }
    Ok(())
}
