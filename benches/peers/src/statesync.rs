//! State sync of Phalanx and of other libraries on the same scenes, in one run.
//!
//! ```text
//! cargo run --release --ignore-rust-version --manifest-path benches/peers/Cargo.toml \
//!     --features replicon,lightyear,naia --bin statesync [-- TICKS]
//! ```
//!
//! A feature per rival, since their trees are large; `--ignore-rust-version` because the `bevy` crate
//! 0.20.1 and lightyear 0.31 ask for a newer compiler than they need. Every entity has a position, a
//! rotation, a velocity, a health and a state; those that change, change all five each tick. Bytes are
//! UDP payload from host to client, counted between the two sockets (for naia in its in-memory
//! transport, which hands over what would be a datagram's payload), after all clients hold all
//! entities; nothing is lost. Times are medians of what the host's thread takes per tick for all
//! clients: receiving, replicating and sending, without the change of the entities itself. The last
//! line of the output is JSON.

#[path = "statesync/ours.rs"]
mod ours;
#[cfg(any(feature = "replicon", feature = "lightyear"))]
#[path = "statesync/relay.rs"]
mod relay;
#[path = "statesync/scene.rs"]
mod scene;

#[cfg(any(feature = "replicon", feature = "lightyear"))]
#[path = "statesync/components.rs"]
mod components;
#[cfg(feature = "lightyear")]
#[path = "statesync/lightyear.rs"]
mod lightyear;
#[cfg(feature = "naia")]
#[path = "statesync/naia.rs"]
mod naia;
#[cfg(feature = "replicon")]
#[path = "statesync/replicon.rs"]
mod replicon;

use std::error::Error;

use scene::{Figures, Form, Load};

/// A library's host and clients under a load.
type Run = fn(Load) -> Result<Figures, Box<dyn Error>>;

/// Libraries and their forms of an entity.
const LIBRARIES: &[(&str, &[Form], Run)] = &[
    ("Phalanx", &[Form::Plain, Form::Packed], ours::run),
    #[cfg(feature = "replicon")]
    (
        "bevy_replicon 0.45.5, renet",
        &[Form::Plain, Form::Packed],
        replicon::run,
    ),
    #[cfg(feature = "lightyear")]
    (
        "lightyear 0.31.0, netcode",
        &[Form::Plain, Form::Packed],
        lightyear::run,
    ),
    #[cfg(feature = "naia")]
    ("naia 0.25.0", &[Form::Plain, Form::Packed], naia::run),
];

fn main() -> Result<(), Box<dyn Error>> {
    let ticks = match std::env::args().nth(1) {
        Some(text) => text.parse()?,
        None => 200,
    };
    let mut loads = Vec::new();
    for form in [Form::Plain, Form::Packed] {
        loads.push(Load {
            entities: 90,
            clients: 1,
            rate: 60,
            changing: 100,
            form,
            ticks,
        });
    }
    for clients in [1, 16] {
        for changing in [0, 1, 10, 100] {
            loads.push(Load {
                entities: 1000,
                clients,
                rate: 20,
                changing,
                form: Form::Packed,
                ticks,
            });
        }
    }
    println!(
        "{:<28} {:>8} {:>8} {:>7} {:>9} {:>7} | {:>14} {:>14} {:>12} {:>7} {:>10}",
        "library",
        "form",
        "entities",
        "clients",
        "changing",
        "rate",
        "B/client tick",
        "datagrams",
        "up B/tick",
        "fresh %",
        "host µs"
    );
    let mut rows = Vec::new();
    for load in &loads {
        for (name, forms, run) in LIBRARIES {
            if !forms.contains(&load.form) {
                continue;
            }
            let figures = run(*load).map_err(|error| format!("{name}, {load:?}: {error}"))?;
            println!(
                "{name:<28} {:>8} {:>8} {:>7} {:>7} % {:>4} Hz | {:>14.1} {:>14.2} {:>12.1} {:>7.1} {:>10.1}{}",
                format!("{:?}", load.form),
                load.entities,
                load.clients,
                load.changing,
                load.rate,
                figures.bytes_down,
                figures.datagrams_down,
                figures.bytes_up,
                figures.fresh * 100.0,
                figures.host_us,
                if figures.converged {
                    ""
                } else {
                    "  NOT CONVERGED"
                },
            );
            rows.push(figures.json(name, load));
        }
    }
    println!("[{}]", rows.join(","));
    Ok(())
}
