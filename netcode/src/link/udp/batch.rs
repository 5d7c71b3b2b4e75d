#![expect(
    clippy::disallowed_types,
    reason = "IO shell: moves datagrams through the socket"
)]
//! Many datagrams per system call, where the system can.
//!
//! Linux takes a list of datagrams, each with its own destination, in one `sendmmsg`: that saves
//! the way into the kernel and the look-up of the socket for all but the first. Elsewhere, each
//! datagram is a call.

use core::net::SocketAddr;
use std::io;
use std::net::UdpSocket;

/// Datagrams that one system call takes, where it takes several.
pub(super) const BATCH_DATAGRAMS_MAX: usize = 64;

/// What became of some datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) datagrams: u64,
    pub(super) bytes: u64,
    /// Datagrams that the system refused.
    pub(super) errors: u64,
}

impl Sent {
    fn count(&mut self, bytes: usize) {
        self.datagrams += 1;
        self.bytes += bytes as u64;
    }
}

/// Sends `datagrams`, given by destination and end within `bytes`, where they lie end to end. What
/// the system refuses is lost and counted. Once one has waited for room in the system's buffer in
/// vain, as long as the socket's write timeout says, the others do not wait.
#[cfg(target_os = "linux")]
pub(super) fn send(socket: &UdpSocket, datagrams: &[(SocketAddr, usize)], bytes: &[u8]) -> Sent {
    linux::send(socket, datagrams, bytes)
}

/// As on Linux, but each datagram may wait.
#[cfg(not(target_os = "linux"))]
pub(super) fn send(socket: &UdpSocket, datagrams: &[(SocketAddr, usize)], bytes: &[u8]) -> Sent {
    one_by_one(socket, datagrams, bytes)
}

/// Takes a datagram from the socket if there is one already.
#[cfg(target_os = "linux")]
pub(super) fn try_receive(
    socket: &UdpSocket,
    buffer: &mut [u8],
) -> io::Result<(usize, SocketAddr)> {
    linux::try_receive(socket, buffer)
}

/// Takes a datagram from the socket if there is one already.
#[cfg(not(target_os = "linux"))]
pub(super) fn try_receive(
    socket: &UdpSocket,
    buffer: &mut [u8],
) -> io::Result<(usize, SocketAddr)> {
    socket.set_nonblocking(true)?;
    let received = socket.recv_from(buffer);
    socket.set_nonblocking(false)?;
    received
}

#[cfg(any(not(target_os = "linux"), test))]
fn one_by_one(socket: &UdpSocket, datagrams: &[(SocketAddr, usize)], bytes: &[u8]) -> Sent {
    let mut sent = Sent::default();
    let mut start = 0;
    for &(to, end) in datagrams {
        match socket.send_to(&bytes[start..end], to) {
            Ok(len) => sent.count(len),
            Err(_lost) => sent.errors += 1,
        }
        start = end;
    }
    sent
}

#[cfg(target_os = "linux")]
mod linux {
    use core::array::from_fn;
    use core::slice;
    use std::io::IoSlice;

    use rustix::io::Errno;
    use rustix::net::{
        MMsgHdr, RecvFlags, SendAncillaryBuffer, SendFlags, SocketAddrAny, recvfrom, sendmmsg,
    };

    use super::{BATCH_DATAGRAMS_MAX, Sent, SocketAddr, UdpSocket, io};

    pub(super) fn send(
        socket: &UdpSocket,
        datagrams: &[(SocketAddr, usize)],
        bytes: &[u8],
    ) -> Sent {
        let mut sent = Sent::default();
        let mut flags = SendFlags::empty();
        let mut start = 0;
        for group in datagrams.chunks(BATCH_DATAGRAMS_MAX) {
            let end = group.last().map_or(start, |&(_to, end)| end);
            // The lists lie on the stack, so their size is fixed: few datagrams get a short one.
            match group.len() {
                1 => send_group::<1>(socket, group, start, bytes, &mut flags, &mut sent),
                2..=8 => send_group::<8>(socket, group, start, bytes, &mut flags, &mut sent),
                _ => send_group::<BATCH_DATAGRAMS_MAX>(
                    socket, group, start, bytes, &mut flags, &mut sent,
                ),
            }
            start = end;
        }
        sent
    }

    /// Sends 1 to `N` datagrams, the first of which begins at `start`.
    fn send_group<const N: usize>(
        socket: &UdpSocket,
        group: &[(SocketAddr, usize)],
        mut start: usize,
        bytes: &[u8],
        flags: &mut SendFlags,
        sent: &mut Sent,
    ) {
        let nobody = SocketAddr::from(([0, 0, 0, 0], 0));
        let to: [SocketAddrAny; N] =
            from_fn(|number| group.get(number).map_or(nobody, |&(to, _end)| to).into());
        let slices: [IoSlice<'_>; N] = from_fn(|number| {
            let end = group.get(number).map_or(start, |&(_to, end)| end);
            let datagram = &bytes[start..end];
            start = end;
            IoSlice::new(datagram)
        });
        let mut no_control: [SendAncillaryBuffer<'_, '_, '_>; N] =
            from_fn(|_| SendAncillaryBuffer::default());
        let mut number = 0;
        let mut messages = no_control.each_mut().map(|control| {
            let message =
                MMsgHdr::new_with_addr(&to[number], slice::from_ref(&slices[number]), control);
            number += 1;
            message
        });

        let mut rest = &mut messages[..group.len()];
        while !rest.is_empty() {
            // A call stops at the first datagram that the system refuses; the next call, which
            // begins with it, says why.
            let done = match sendmmsg(socket, rest, *flags) {
                Ok(done) if done > 0 => {
                    rest[..done]
                        .iter()
                        .for_each(|message| sent.count(message.bytes_sent()));
                    done
                }
                Err(Errno::INTR) => 0,
                lost => {
                    if lost == Err(Errno::AGAIN) {
                        *flags |= SendFlags::DONTWAIT;
                    }
                    sent.errors += 1;
                    1
                }
            };
            rest = &mut rest[done..];
        }
    }

    pub(super) fn try_receive(
        socket: &UdpSocket,
        buffer: &mut [u8],
    ) -> io::Result<(usize, SocketAddr)> {
        let (len, _of_datagram, from) = recvfrom(socket, buffer, RecvFlags::DONTWAIT)?;
        let from = from.ok_or(Errno::AFNOSUPPORT)?;
        Ok((len, SocketAddr::try_from(from)?))
    }
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;
    use core::time::Duration;

    use super::*;

    fn socket() -> UdpSocket {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        socket
    }

    /// Datagram `number`: so many bytes of that value.
    fn content(number: usize) -> Vec<u8> {
        vec![u8::try_from(number).unwrap(); 1 + number * 7]
    }

    type Send = fn(&UdpSocket, &[(SocketAddr, usize)], &[u8]) -> Sent;

    #[test]
    fn each_datagram_reaches_its_destination_and_refused_ones_are_skipped() {
        let sends: [Send; 2] = [send, one_by_one];
        for send in sends {
            // No group, the shortest, all sizes of lists, and more than one list.
            for count in [0, 1, 2, 8, 9, BATCH_DATAGRAMS_MAX, BATCH_DATAGRAMS_MAX + 3] {
                let from = socket();
                let receivers: Vec<UdpSocket> = (0..3).map(|_| socket()).collect();
                // An IPv4 socket cannot send to an IPv6 address.
                let impossible = SocketAddr::from((core::net::Ipv6Addr::LOCALHOST, 9));
                let (mut datagrams, mut bytes) = (Vec::new(), Vec::new());
                let mut expected = Sent::default();
                for number in 0..count {
                    let content = content(number);
                    bytes.extend_from_slice(&content);
                    if number % 5 == 4 {
                        datagrams.push((impossible, bytes.len()));
                        expected.errors += 1;
                    } else {
                        let to = receivers[number % 3].local_addr().unwrap();
                        datagrams.push((to, bytes.len()));
                        expected.count(content.len());
                    }
                }
                assert_eq!(send(&from, &datagrams, &bytes), expected, "{count}");
                let mut buffer = [0; 2048];
                for number in (0..count).filter(|number| number % 5 != 4) {
                    let (len, source) = receivers[number % 3].recv_from(&mut buffer).unwrap();
                    assert_eq!(buffer[..len], content(number));
                    assert_eq!(source, from.local_addr().unwrap());
                }
            }
        }
    }

    #[test]
    fn receiving_does_not_wait_and_cuts_what_is_too_long() {
        let (one, two) = (socket(), socket());
        let mut buffer = [0; 16];
        let nothing = try_receive(&two, &mut buffer).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        one.send_to(&[7; 20], two.local_addr().unwrap()).unwrap();
        // Waits until it is there. Without the system's option to wait it would fail at once.
        two.peek_from(&mut [0; 1]).unwrap();
        let (len, from) = try_receive(&two, &mut buffer).unwrap();
        assert_eq!((len, from), (16, one.local_addr().unwrap()));
        assert_eq!(buffer, [7; 16]);
    }
}
