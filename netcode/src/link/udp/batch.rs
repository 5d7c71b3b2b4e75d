#![expect(
    clippy::disallowed_types,
    reason = "IO shell: moves datagrams through the socket"
)]
//! Many datagrams per system call, where the system can.
//!
//! Linux takes a list of datagrams, each with its own destination, in one `sendmmsg`, and fills a
//! list of buffers in one `recvmmsg`: that saves the way into the kernel and the look-up of the
//! socket for all but the first. Elsewhere, each datagram is a call.

use core::fmt;
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

/// Room for one datagram: more than any that we accept has. Longer ones are cut to this and
/// refused. An odd number of cache lines, so that the beginnings of the buffers do not fall onto
/// the same few places of the processor's cache.
const RECEIVE_BYTES_MAX: usize = 25 * 64;

/// Datagrams as they came, at most [`BATCH_DATAGRAMS_MAX`].
pub(super) struct Received {
    /// [`RECEIVE_BYTES_MAX`] for each.
    bytes: Box<[u8]>,
    /// Lengths and senders.
    datagrams: Vec<(usize, SocketAddr)>,
    /// Of the socket that they come from.
    #[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "Linux needs it"))]
    is_ipv6: bool,
}

impl Received {
    /// Room for what a socket at `local` receives.
    pub(super) fn new(local: SocketAddr) -> Self {
        Self {
            is_ipv6: local.is_ipv6(),
            bytes: vec![0; BATCH_DATAGRAMS_MAX * RECEIVE_BYTES_MAX].into_boxed_slice(),
            datagrams: Vec::with_capacity(BATCH_DATAGRAMS_MAX),
        }
    }

    /// How many there are.
    pub(super) const fn count(&self) -> usize {
        self.datagrams.len()
    }

    /// Senders and contents.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (SocketAddr, &mut [u8])> {
        let buffers = self.bytes.chunks_exact_mut(RECEIVE_BYTES_MAX);
        let datagrams = self.datagrams.iter().zip(buffers);
        datagrams.map(|(&(len, from), buffer)| (from, &mut buffer[..len]))
    }
}

impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.datagrams).finish()
    }
}

/// Replaces what `received` holds by datagrams that are there already. If it is full afterwards
/// there may be more.
///
/// # Errors
/// Those of the socket, also that there is none yet, if they come before any datagram.
#[cfg(target_os = "linux")]
pub(super) fn try_receive(socket: &UdpSocket, received: &mut Received) -> io::Result<()> {
    received.datagrams.clear();
    linux::try_receive(socket, received)
}

/// As on Linux.
#[cfg(not(target_os = "linux"))]
pub(super) fn try_receive(socket: &UdpSocket, received: &mut Received) -> io::Result<()> {
    received.datagrams.clear();
    one_by_one_receive(socket, received)
}

#[cfg(any(not(target_os = "linux"), test))]
fn one_by_one_receive(socket: &UdpSocket, received: &mut Received) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    let mut end = Ok(());
    for buffer in received.bytes.chunks_exact_mut(RECEIVE_BYTES_MAX) {
        match socket.recv_from(buffer) {
            Ok(datagram) => received.datagrams.push(datagram),
            Err(error) => {
                end = Err(error);
                break;
            }
        }
    }
    socket.set_nonblocking(false)?;
    if received.datagrams.is_empty() {
        end
    } else {
        Ok(())
    }
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
    use core::cell::RefCell;
    use core::slice;
    use std::io::{IoSlice, IoSliceMut};
    use std::os::fd::AsRawFd as _;

    use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg};
    use rustix::io::Errno;
    use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, SocketAddrAny, sendmmsg};

    use super::{
        BATCH_DATAGRAMS_MAX, RECEIVE_BYTES_MAX, Received, Sent, SocketAddr, UdpSocket, io,
    };

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

    thread_local! {
        /// Lists for the system, without and with room for IPv6: it shortens the room for an
        /// address to what it wrote there, and the next call takes it as found.
        static HEADERS: RefCell<[MultiHeaders<SockaddrStorage>; 2]> =
            RefCell::new(from_fn(|_| MultiHeaders::preallocate(BATCH_DATAGRAMS_MAX, None)));
    }

    pub(super) fn try_receive(socket: &UdpSocket, received: &mut Received) -> io::Result<()> {
        HEADERS.with_borrow_mut(|headers| {
            let mut buffers = received.bytes.chunks_exact_mut(RECEIVE_BYTES_MAX);
            let mut slices: [[IoSliceMut<'_>; 1]; BATCH_DATAGRAMS_MAX] =
                from_fn(|_| [IoSliceMut::new(buffers.next().unwrap_or_default())]);
            let headers = &mut headers[usize::from(received.is_ipv6)];
            let flags = MsgFlags::MSG_DONTWAIT;
            let messages = recvmmsg(socket.as_raw_fd(), headers, &mut slices, flags, None)?;
            for message in messages {
                let from = message.address.as_ref().and_then(address);
                let from = from.ok_or(io::ErrorKind::Unsupported)?;
                received.datagrams.push((message.bytes, from));
            }
            Ok(())
        })
    }

    fn address(address: &SockaddrStorage) -> Option<SocketAddr> {
        if let Some(v4) = address.as_sockaddr_in() {
            return Some(SocketAddr::V4((*v4).into()));
        }
        Some(SocketAddr::V6((*address.as_sockaddr_in6()?).into()))
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

    type Receive = fn(&UdpSocket, &mut Received) -> io::Result<()>;

    #[test]
    fn receiving_does_not_wait_takes_groups_and_cuts_what_is_too_long() {
        let receives: [Receive; 2] = [try_receive, |socket, received| {
            received.datagrams.clear();
            one_by_one_receive(socket, received)
        }];
        for receive in receives {
            let (one, two) = (socket(), socket());
            let (from, to) = (one.local_addr().unwrap(), two.local_addr().unwrap());
            let mut received = Received::new(to);
            let nothing = receive(&two, &mut received).unwrap_err();
            assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
            let count = BATCH_DATAGRAMS_MAX + 3;
            for number in 0..count {
                one.send_to(&content(number), to).unwrap();
            }
            one.send_to(&[7; RECEIVE_BYTES_MAX + 1], to).unwrap();
            let mut taken = Vec::new();
            while taken.len() <= count {
                // Waits until there is one.
                two.peek_from(&mut [0; 1]).unwrap();
                receive(&two, &mut received).unwrap();
                assert!(received.count() > 0);
                for (sender, bytes) in received.iter_mut() {
                    assert_eq!(sender, from);
                    taken.push(bytes.to_vec());
                }
            }
            assert_eq!(taken.pop(), Some(vec![7; RECEIVE_BYTES_MAX]));
            assert!(taken.into_iter().eq((0..count).map(content)));
            assert!(receive(&two, &mut received).is_err());
            assert_eq!(received.count(), 0);
        }
    }

    #[test]
    fn senders_of_both_families_are_told_apart_by_one_thread() {
        let Ok(six) = UdpSocket::bind((core::net::Ipv6Addr::LOCALHOST, 0)) else {
            return;
        };
        for _ in 0..2 {
            let four = socket();
            for receiver in [&four, &six] {
                let sender = UdpSocket::bind((receiver.local_addr().unwrap().ip(), 0)).unwrap();
                sender
                    .send_to(&[1], receiver.local_addr().unwrap())
                    .unwrap();
                receiver.peek_from(&mut [0; 1]).unwrap();
                let mut received = Received::new(receiver.local_addr().unwrap());
                try_receive(receiver, &mut received).unwrap();
                let (from, _bytes) = received.iter_mut().next().unwrap();
                assert_eq!(from, sender.local_addr().unwrap());
            }
        }
    }
}
