//! The UDP link over real sockets on the loopback interface, on ports that the system chooses.
//!
//! Waits end when what they wait for has happened; the limits only stop a test that hangs.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test with real sockets and a real clock; helpers of tests may unwrap"
)]

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use phalanx_netcode::id::{MemberId, Path};
use phalanx_netcode::link::udp::{BindError, ConnectError, JoinToken, UdpConfig, UdpLink};
use phalanx_netcode::link::{Address, CloseReason, Link, LinkEvent, Opening};
use phalanx_netcode::prng::Prng;

const LIMIT: Duration = Duration::from_secs(20);

fn config() -> UdpConfig {
    UdpConfig::new(7).with_bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
}

fn bind(config: UdpConfig) -> UdpLink {
    UdpLink::bind(config).unwrap()
}

#[derive(Debug, PartialEq, Eq)]
enum News {
    Opened(Path, u64),
    Datagram(Path, Vec<u8>),
    Closed(Path, CloseReason),
}

fn wait(link: &mut UdpLink) -> News {
    let start = Instant::now();
    while start.elapsed() < LIMIT {
        match link.receive() {
            Some(LinkEvent::Opened { path, client_id }) => return News::Opened(path, client_id),
            Some(LinkEvent::Datagram { path, bytes }) => {
                return News::Datagram(path, bytes.to_vec());
            }
            Some(LinkEvent::Closed { path, reason }) => return News::Closed(path, reason),
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    panic!("nothing happened for {LIMIT:?}; {:?}", link.statistics());
}

fn opened(link: &mut UdpLink) -> (Path, u64) {
    match wait(link) {
        News::Opened(path, client_id) => (path, client_id),
        other @ (News::Datagram(..) | News::Closed(..)) => {
            panic!("expected an opened path, not {other:?}")
        }
    }
}

/// Sends numbered datagrams both ways and waits for each.
fn talk(host: &mut UdpLink, to_client: Path, client: &mut UdpLink, to_host: Path, rounds: u32) {
    for round in 0..rounds {
        let mut bytes = vec![0x40];
        bytes.extend_from_slice(&round.to_le_bytes());
        client.send(to_host, &bytes);
        client.flush();
        assert_eq!(wait(host), News::Datagram(to_client, bytes.clone()));
        host.send(to_client, &bytes);
        host.flush();
        assert_eq!(wait(client), News::Datagram(to_host, bytes));
    }
}

#[test]
fn a_busy_game_gets_all_in_order_afterwards() {
    let (mut host, mut client) = (bind(config()), bind(config()));
    let token = host.mint_token(1, host.local_addr(), Duration::from_secs(60));
    // The host's caller does nothing yet: its IO thread answers.
    let path = client.join(&token.unwrap()).unwrap();
    assert_eq!(opened(&mut client).0, path);
    client.send(path, &[0x40, 0, 0]);
    client.flush();
    let (to_client, _id) = opened(&mut host);
    assert_eq!(wait(&mut host), News::Datagram(to_client, vec![0x40, 0, 0]));

    // Now it looks for events in turns with long absences, so both threads take datagrams.
    let mut expected = 1_u16;
    for number in 1..=600_u16 {
        let [low, high] = number.to_le_bytes();
        client.send(path, &[0x40, low, high]);
        client.flush();
        if number % 3 == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        if number % 200 < 150 {
            continue;
        }
        while let Some(event) = host.receive() {
            let [low, high] = expected.to_le_bytes();
            let bytes = &[0x40, low, high][..];
            let path = to_client;
            assert_eq!(event, LinkEvent::Datagram { path, bytes });
            expected += 1;
        }
    }
    while expected <= 600 {
        let [low, high] = expected.to_le_bytes();
        let next = News::Datagram(to_client, vec![0x40, low, high]);
        assert_eq!(wait(&mut host), next);
        expected += 1;
    }
    assert_eq!(host.receive(), None);
}

#[test]
fn a_secure_session_from_join_code_to_goodbye() {
    let mut host = bind(config());
    let mut client = bind(config().with_clients_max(0));
    let life = Duration::from_secs(60);
    let token = host.mint_token(42, host.local_addr(), life).unwrap();
    let token = JoinToken::from_text(&token.to_text()).unwrap();
    let to_host = client.join(&token).unwrap();
    assert_eq!(opened(&mut client), (to_host, 42));
    client.send(to_host, &[0x40]);
    client.flush();
    let (to_client, client_id) = opened(&mut host);
    assert_eq!(client_id, 42);
    assert_eq!(wait(&mut host), News::Datagram(to_client, vec![0x40]));

    // Strangers knock all the while.
    let stranger = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut prng = Prng::new(1);
    for round in 0..100 {
        for _ in 0..10 {
            let len = prng.below(1500);
            let noise: Vec<u8> = (0..len).map(|_| prng.next_u64().to_le_bytes()[0]).collect();
            stranger.send_to(&noise, host.local_addr()).unwrap();
        }
        talk(&mut host, to_client, &mut client, to_host, 1);
        assert!(round < 100);
    }

    // The token is spent: here, and for whoever has a copy.
    assert_eq!(client.join(&token), Err(ConnectError::TokenUsed));
    let mut thief = bind(config());
    let path = thief.join(&token).unwrap();
    let refused = News::Closed(path, CloseReason::TokenUsed);
    assert_eq!(wait(&mut thief), refused);

    drop(client);
    assert_eq!(
        wait(&mut host),
        News::Closed(to_client, CloseReason::Remote)
    );
    let done = host.statistics();
    assert!(done.drops.total() > 0, "{done:?}");
    assert_eq!((done.queue_full, done.send_errors), (0, 0), "{done:?}");
}

#[test]
fn an_insecure_session_adds_no_byte() {
    let mut host = bind(config().insecure());
    let mut client = bind(config().insecure());
    let to_host = client.connect(host.local_addr()).unwrap();
    assert_eq!(opened(&mut client), (to_host, 0));
    let (to_client, _) = opened(&mut host);
    let before = client.statistics();
    talk(&mut host, to_client, &mut client, to_host, 100);
    let after = client.statistics();
    let datagrams = after.datagrams_sent - before.datagrams_sent;
    let bytes = after.bytes_sent - before.bytes_sent;
    // Keep-alives, if the machine is slow, are 9 bytes.
    assert_eq!(bytes, 500 + (datagrams - 100) * 9);
    host.close(to_client);
    assert_eq!(
        wait(&mut client),
        News::Closed(to_host, CloseReason::Remote)
    );
}

#[test]
fn one_socket_hosts_and_joins() {
    let mut links: Vec<UdpLink> = (0..3).map(|_| bind(config())).collect();
    // A ring: each is the client of the next.
    for number in 0..3_usize {
        let host = &links[(number + 1) % 3];
        let life = Duration::from_secs(60);
        let token = host.mint_token(number as u64, host.local_addr(), life);
        links[number].join(&token.unwrap()).unwrap();
    }
    // Each greets on every path as it opens; so a greeting may come before the other path opens.
    let mut seen = [(0, 0); 3];
    let start = Instant::now();
    while seen != [(2, 2); 3] {
        assert!(start.elapsed() < LIMIT, "opened and greeted: {seen:?}");
        for (link, (opened, greeted)) in links.iter_mut().zip(&mut seen) {
            let mut path_opened = None;
            match link.receive() {
                Some(LinkEvent::Opened { path, .. }) => path_opened = Some(path),
                Some(LinkEvent::Datagram { bytes, .. }) => {
                    assert_eq!(bytes, [0x40, 9]);
                    *greeted += 1;
                }
                Some(LinkEvent::Closed { reason, .. }) => panic!("{reason}"),
                None => std::thread::sleep(Duration::from_millis(1)),
            }
            if let Some(path) = path_opened {
                *opened += 1;
                link.send(path, &[0x40, 9]);
                link.flush();
            }
        }
    }
}

#[test]
fn failures_are_sentences() {
    let host = bind(config());
    let busy = UdpLink::bind(config().with_bind(host.local_addr())).unwrap_err();
    assert!(matches!(busy, BindError::PortBusy(_)), "{busy:?}");
    assert!(busy.to_string().contains("busy"), "{busy}");

    let elsewhere = SocketAddr::from(([192, 0, 2, 1], 0));
    let error = UdpLink::bind(config().with_bind(elsewhere)).unwrap_err();
    assert!(matches!(error, BindError::AddressNotHere(_)), "{error:?}");

    let mut plain = bind(config().insecure());
    let life = Duration::from_secs(60);
    let token = host.mint_token(1, host.local_addr(), life).unwrap();
    assert_eq!(plain.join(&token), Err(ConnectError::NeedsAddress));
    assert!(plain.mint_token(1, host.local_addr(), life).is_err());
    let mut secure = bind(config());
    let address = host.local_addr();
    assert_eq!(secure.connect(address), Err(ConnectError::NeedsToken));
    assert!(secure.mint_token(1, address, Duration::ZERO).is_err());

    // A port where nobody listens.
    let mut plain = bind(UdpConfig {
        timeout: Duration::from_secs(1),
        ..config().insecure()
    });
    let nobody = {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.local_addr().unwrap()
    };
    let path = plain.connect(nobody).unwrap();
    assert_eq!(wait(&mut plain), News::Closed(path, CloseReason::NoAnswer));
}

#[test]
fn the_likely_address_of_a_link_on_every_address_works() {
    let mut host = bind(UdpConfig::new(7));
    assert!(host.local_addr().ip().is_unspecified());
    let mut client = bind(UdpConfig::new(7));
    let life = Duration::from_secs(60);
    let token = host.mint_token(1, host.likely_addr(), life).unwrap();
    let path = client.join(&token).unwrap();
    assert_eq!(opened(&mut client), (path, 1));
    assert_eq!(client.remote_addr(path), Some(host.likely_addr()));
    client.send(path, &[0x40]);
    client.flush();
    let (at_host, _) = opened(&mut host);
    assert!(host.remote_addr(at_host).is_some());
}

#[test]
fn both_address_families_meet_on_one_socket() {
    let any = "[::]:0".parse().unwrap();
    let Ok(mut host) = UdpLink::bind(UdpConfig::new(7).insecure().with_bind(any)) else {
        return; // a machine without IPv6
    };
    let port = host.local_addr().port();
    let mut client = bind(config().insecure());
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let to_host = client.connect(address).unwrap();
    assert_eq!(opened(&mut client), (to_host, 0));
    let (to_client, _) = opened(&mut host);
    talk(&mut host, to_client, &mut client, to_host, 3);
    let v6 = "[2001:db8::1]:9".parse().unwrap();
    assert_eq!(client.connect(v6), Err(ConnectError::AddressFamily));
    assert_eq!(
        host.connect(client.local_addr()),
        Err(ConnectError::AlreadyConnected)
    );
}

#[test]
fn a_link_opens_paths_to_addresses_that_another_one_sees() {
    let plain = || bind(config().insecure());
    let (mut host, mut one, mut other) = (plain(), plain(), plain());
    let address = host.local_addr();
    let opens = |address| Opening {
        member: MemberId(2),
        address,
        invitation: Vec::new(),
    };
    let mut seen = Vec::new();
    for link in [&mut one, &mut other] {
        link.connect(address).unwrap();
        opened(link);
        let (path, _) = opened(&mut host);
        seen.push(host.address(path).unwrap());
    }
    let path = one.open(&opens(seen[1])).unwrap();
    assert_eq!(opened(&mut one), (path, 0));
    let (back, _) = opened(&mut other);
    assert_eq!(other.address(back), Some(seen[0]));
    // A second wish for the same is the same path.
    assert_eq!(one.open(&opens(seen[1])), Some(path));
    one.send(path, &[0x40, 9]);
    one.flush();
    assert_eq!(wait(&mut other), News::Datagram(back, vec![0x40, 9]));
    for bytes in [
        &[4, 127][..],
        &[5, 127, 0, 0, 1, 9, 9],
        &[4, 0, 0, 0, 0, 9, 9],
        &[4, 127, 0, 0, 1, 0, 0],
    ] {
        let address = Address::new(bytes).unwrap();
        assert_eq!(one.open(&opens(address)), None, "{bytes:?}");
    }
}
