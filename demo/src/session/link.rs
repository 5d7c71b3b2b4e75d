//! The link of a node, and where it leads.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use anyhow::{Context, Result, bail};
use phalanx::netcode::hash::digest;
use phalanx::netcode::id::Path as LinkPath;
use phalanx::netcode::link::conditioned::ConditionedLink;
use phalanx::netcode::link::conditioner::Conditions;
use phalanx::netcode::link::udp::{JoinToken, UdpConfig, UdpLink};

use crate::options::Settings;
use crate::place::Place;

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
pub(super) fn connect(link: &mut GameLink, to: &Destination) -> Result<LinkPath> {
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
    /// What someone wrote: a join code, or without encryption an address.
    ///
    /// # Errors
    /// If it is neither, or the other one of both.
    pub fn from_text(to: &str, insecure: bool) -> Result<Self> {
        match (to.parse::<Place>(), insecure) {
            (Ok(place), true) => return Ok(Self::Address(place.resolve("--insecure")?)),
            (Ok(place), false) => bail!(
                "{place} is an address: joining it needs --insecure, or a join code from the host"
            ),
            (Err(error), true) => bail!("--insecure needs an address: {error}"),
            (Err(_error), false) => {}
        }
        let token = JoinToken::from_text(to).context("cannot join")?;
        Ok(Self::Token(Box::new(token)))
    }

    /// The join code in a file.
    ///
    /// # Errors
    /// If there is none.
    pub fn from_file(file: &Path) -> Result<Self> {
        let token =
            JoinToken::read_file(file).with_context(|| format!("cannot use {}", file.display()))?;
        Ok(Self::Token(Box::new(token)))
    }

    /// Where a socket listens that reaches it: any address of this machine, and any port.
    #[must_use]
    pub fn bind(&self) -> SocketAddr {
        if self.address().is_ipv4() {
            (Ipv4Addr::UNSPECIFIED, 0).into()
        } else {
            (Ipv6Addr::UNSPECIFIED, 0).into()
        }
    }

    /// The host's address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        match self {
            Self::Address(address) => *address,
            Self::Token(token) => token.address(),
        }
    }
}
