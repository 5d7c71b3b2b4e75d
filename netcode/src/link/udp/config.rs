//! What a UDP link is started with, why it may not start, and what it counts.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::io;

use super::guard::Drops;

/// Whether a link encrypts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// Join tokens, authentication, encryption.
    Secure,
    /// None of them: for the local network and development.
    Insecure,
}

/// What a [`UdpLink`](super::UdpLink) depends on.
#[derive(Clone, Copy, Debug)]
pub struct UdpConfig {
    /// Address of this machine to listen on; port 0 lets the system choose.
    pub bind: SocketAddr,
    /// Whether to encrypt. Both ends must agree.
    pub security: Security,
    /// Says which game and version this is: links with different ones do not connect.
    pub protocol_id: u64,
    /// Clients that the server side takes at once, at most [`MEMBERS_MAX`](crate::limits::MEMBERS_MAX); 0 switches it off.
    pub clients_max: usize,
    /// Silence after which a session is over, and time that connecting may take: 1 to 60 s.
    pub timeout: Duration,
    /// How long the tokens are valid with which the other ends of paths may come back to the secure
    /// server side ([`UdpLink::rejoin`](super::UdpLink::rejoin)), in whole seconds, at most 30 days;
    /// they are renewed when half of it is over. Zero lets nobody come back without a join token from
    /// outside.
    pub resume_life: Duration,
}

impl UdpConfig {
    /// A secure link on any address and port, which takes 64 clients and 10 s of silence, and lets
    /// them come back for 10 minutes.
    #[must_use]
    pub const fn new(protocol_id: u64) -> Self {
        Self {
            bind: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
            security: Security::Secure,
            protocol_id,
            clients_max: 64,
            timeout: Duration::from_secs(10),
            resume_life: Duration::from_secs(600),
        }
    }

    /// The same on this address of this machine.
    #[must_use]
    pub const fn with_bind(mut self, bind: SocketAddr) -> Self {
        self.bind = bind;
        self
    }

    /// The same without encryption.
    #[must_use]
    pub const fn insecure(mut self) -> Self {
        self.security = Security::Insecure;
        self
    }

    /// The same with this many clients.
    #[must_use]
    pub const fn with_clients_max(mut self, clients_max: usize) -> Self {
        self.clients_max = clients_max;
        self
    }
}

/// Why a link cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Another program has the port.
    #[error("UDP port {} is busy: another program uses it (perhaps another host); choose another or 0", .0.port())]
    PortBusy(SocketAddr),
    /// The address is not one of this machine's.
    #[error("this machine has no address {}", .0.ip())]
    AddressNotHere(SocketAddr),
    /// The system forbids it.
    #[error("this program may not use UDP port {}", .0.port())]
    Forbidden(SocketAddr),
    /// Any other failure of the socket.
    #[error("the UDP socket cannot be opened on {0}: {1}")]
    Socket(SocketAddr, #[source] io::Error),
    /// The operating system gives no random numbers, or its clock is before 1970.
    #[error("keys for the UDP link cannot be made: {0}")]
    Keys(String),
}

/// What a [`UdpLink`](super::UdpLink) has done so far.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct UdpStatistics {
    /// Datagrams given to the network, the link's own included.
    pub datagrams_sent: u64,
    /// Their bytes, without IP and UDP headers.
    pub bytes_sent: u64,
    /// Datagrams taken from the network, those that were refused included.
    pub datagrams_received: u64,
    /// Their bytes, without IP and UDP headers.
    pub bytes_received: u64,
    /// Datagrams that the system refused to send.
    pub send_errors: u64,
    /// Errors of the socket while receiving.
    pub receive_errors: u64,
    /// Payloads dropped because the game did not take its events.
    pub queue_full: u64,
    /// Sends over a path that is not open.
    pub unknown_path: u64,
    /// Payloads that are empty, too large, or begin with a byte that the link reserves.
    pub unsendable: u64,
    /// Sequence numbers left out because a challenge had used them.
    pub sequences_burned: u64,
    /// Received datagrams that were refused, by cause.
    pub drops: Drops,
    /// Bytes of these, without IP and UDP headers.
    pub bytes_refused: u64,
    /// Invitations that were damaged, sealed to another key, for another game, used or expired.
    pub invitations_refused: u64,
}
