//! A relay on loopback that counts what passes: one per client, so that the host tells them apart.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use crate::scene::Count;

/// Between a client and the host.
pub struct Relay {
    front: UdpSocket,
    back: UdpSocket,
    client: Option<SocketAddr>,
    host: SocketAddr,
    pub down: Count,
    pub up: Count,
}

impl Relay {
    pub fn new(host: SocketAddr) -> io::Result<Self> {
        let bind = || -> io::Result<UdpSocket> {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        Ok(Self {
            front: bind()?,
            back: bind()?,
            client: None,
            host,
            down: Count::default(),
            up: Count::default(),
        })
    }

    /// Where the client finds the host.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.front.local_addr()
    }

    /// Passes on what has arrived.
    pub fn pump(&mut self) -> io::Result<()> {
        let mut datagram = [0; 65_536];
        while let Some((length, from)) = receive(&self.front, &mut datagram)? {
            self.client = Some(from);
            self.up.bytes += length as u64;
            self.up.datagrams += 1;
            self.back.send_to(&datagram[..length], self.host)?;
        }
        while let Some((length, _)) = receive(&self.back, &mut datagram)? {
            self.down.bytes += length as u64;
            self.down.datagrams += 1;
            if let Some(client) = self.client {
                self.front.send_to(&datagram[..length], client)?;
            }
        }
        Ok(())
    }
}

fn receive(socket: &UdpSocket, datagram: &mut [u8]) -> io::Result<Option<(usize, SocketAddr)>> {
    match socket.recv_from(datagram) {
        Ok(received) => Ok(Some(received)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

/// Passes everything on and gives back the counts since the relays began.
pub fn pump(relays: &mut [Relay]) -> io::Result<()> {
    relays.iter_mut().try_for_each(Relay::pump)
}

/// Sums over all relays: down and up.
pub fn totals(relays: &[Relay]) -> (Count, Count) {
    let (mut down, mut up) = (Count::default(), Count::default());
    for relay in relays {
        down.bytes += relay.down.bytes;
        down.datagrams += relay.down.datagrams;
        up.bytes += relay.up.bytes;
        up.datagrams += relay.up.datagrams;
    }
    (down, up)
}

/// Starts counting anew.
pub fn reset(relays: &mut [Relay]) {
    for relay in relays {
        (relay.down, relay.up) = (Count::default(), Count::default());
    }
}
