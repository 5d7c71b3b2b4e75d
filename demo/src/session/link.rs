//! The link of a node, and where it leads.

use std::net::SocketAddr;

use anyhow::Result;
use phalanx::netcode::hash::digest;
use phalanx::netcode::id::Path;
use phalanx::netcode::link::conditioned::ConditionedLink;
use phalanx::netcode::link::conditioner::Conditions;
use phalanx::netcode::link::udp::{JoinToken, UdpConfig, UdpLink};

use crate::options::Settings;

/// Room in the link for spectators and for players who come back.
const EXTRA_CLIENTS: usize = 40;

/// The link of a session: UDP, and a bad network if one is asked for.
pub type GameLink = ConditionedLink<UdpLink>;

/// Opens the UDP link of a node to which `clients` may connect: those that join a host, or members
/// that go on with this node should it host. Of `conditions`, a node that `conditions` alone makes the network
/// bad meets both directions; nodes that share them meet what they receive.
///
/// # Errors
/// If the address cannot be used.
pub fn open_link(
    bind: SocketAddr,
    settings: &Settings,
    clients: usize,
    network: Network,
    stream: u64,
) -> Result<GameLink> {
    // One id for all versions: the handshake explains what differs, a link would stay silent.
    let mut config = UdpConfig::new(digest(b"phalanx arena")).with_bind(bind);
    if clients > 0 {
        config = config.with_clients_max(clients + EXTRA_CLIENTS);
    } else {
        config = config.with_clients_max(0);
    }
    if settings.insecure {
        config = config.insecure();
    }
    config.timeout = settings.timeout;
    let outgoing = match network {
        Network::BothWays => settings.conditions,
        Network::Incoming => Conditions::PERFECT,
    };
    let seed = settings
        .seed
        .wrapping_add(stream.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let udp = UdpLink::bind(config)?;
    Ok(ConditionedLink::new(
        udp,
        outgoing,
        settings.conditions,
        seed,
    ))
}

/// Which datagrams meet the settings' network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// Those that are sent and those that are received.
    BothWays,
    /// Those that are received; the other end does the same.
    Incoming,
}

/// Connects to a host.
///
/// # Errors
/// If the destination cannot be one.
pub(super) fn connect(link: &mut GameLink, to: &Destination) -> Result<Path> {
    let udp = link.inner_mut();
    Ok(match to {
        Destination::Address(address) => udp.connect(*address)?,
        Destination::Token(token) => udp.join(token)?,
    })
}

/// Where a client connects to.
#[derive(Clone, Debug)]
pub enum Destination {
    /// A host without encryption.
    Address(SocketAddr),
    /// A host that gave a join code.
    Token(Box<JoinToken>),
}

impl Destination {
    /// The host's address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        match self {
            Self::Address(address) => *address,
            Self::Token(token) => token.address(),
        }
    }
}
