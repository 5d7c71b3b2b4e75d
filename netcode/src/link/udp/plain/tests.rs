//! Plain sessions in virtual time.

use super::*;
use crate::link::conditioner::{Conditioner, Conditions};
use crate::link::udp::endpoint::tests::{Memory, Said};
use crate::prng::Prng;

fn address(number: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], number))
}

fn endpoint(clients_max: usize, protocol_id: u64) -> PlainEndpoint {
    PlainEndpoint::new(PlainConfig {
        protocol_id,
        clients_max,
        timeout_us: 10_000_000,
        cookie_key: RandomState::new(),
    })
}

struct Net {
    now: Time,
    nodes: BTreeMap<SocketAddr, (PlainEndpoint, Memory)>,
    wire: Conditioner<(SocketAddr, SocketAddr)>,
}

impl Net {
    fn new(conditions: Conditions, seed: u64, nodes: &[(u16, usize)]) -> Self {
        let nodes = nodes
            .iter()
            .map(|&(number, clients_max)| {
                let node = (endpoint(clients_max, 7), Memory::default());
                (address(number), node)
            })
            .collect();
        Self {
            now: Time::ZERO,
            nodes,
            wire: Conditioner::new(conditions, seed),
        }
    }

    fn node(&mut self, number: u16) -> &mut (PlainEndpoint, Memory) {
        self.nodes.get_mut(&address(number)).unwrap()
    }

    fn connect(&mut self, number: u16, to: u16, nonce: u64) -> Path {
        let now = self.now;
        let (endpoint, sink) = self.node(number);
        endpoint.connect(now, address(to), nonce, sink).unwrap()
    }

    fn said(&mut self, number: u16) -> Vec<Said> {
        core::mem::take(&mut self.node(number).1.said)
    }

    fn run(&mut self, us: u64) {
        let end = self.now.plus_micros(us);
        while self.now < end {
            self.now = self.now.plus_micros(10_000);
            let now = self.now;
            for (&from, (_, sink)) in &mut self.nodes {
                for (to, bytes) in sink.sent.drain(..) {
                    self.wire.push(now, (from, to), &bytes);
                }
            }
            while let Some(((from, to), bytes)) = self.wire.pop(now) {
                if let Some((endpoint, sink)) = self.nodes.get_mut(&to) {
                    endpoint.handle_datagram(now, from, bytes, sink);
                }
            }
            if now.micros().is_multiple_of(50_000) {
                for (endpoint, sink) in self.nodes.values_mut() {
                    endpoint.handle_timeout(now, sink);
                }
            }
        }
    }
}

#[test]
fn a_session_opens_carries_bare_payloads_and_closes() {
    let mut net = Net::new(Conditions::from_rtt(20_000, 0), 1, &[(1, 4), (2, 0)]);
    let to_host = net.connect(2, 1, 99);
    net.run(100_000);
    assert_eq!(net.said(2), [Said::Opened(to_host, 0)]);
    let said = net.said(1);
    let [Said::Opened(to_client, 0)] = said[..] else {
        panic!("{said:?}");
    };
    let now = net.now;
    let (endpoint, sink) = net.node(2);
    endpoint.send(now, to_host, &[0x40, 1, 2], sink);
    assert_eq!(
        sink.sent,
        [(address(1), vec![0x40, 1, 2])],
        "not a byte more"
    );
    net.run(20_000);
    assert_eq!(net.said(1), [Said::Datagram(to_client, vec![0x40, 1, 2])]);
    let (endpoint, sink) = net.node(1);
    endpoint.close(to_client, sink);
    net.run(20_000);
    assert_eq!(net.said(2), [Said::Closed(to_host, CloseReason::Remote)]);
}

#[test]
fn every_handshake_succeeds_at_20_percent_loss() {
    for seed in 0..1000 {
        let conditions = Conditions::from_rtt(100_000, 200_000);
        let mut net = Net::new(conditions, seed, &[(1, 4), (2, 0)]);
        net.connect(2, 1, seed);
        while net.said(2).is_empty() {
            net.run(10_000);
            assert!(net.now < Time::from_millis(10_000), "seed {seed}");
        }
    }
}

#[test]
fn crossed_connects_become_one_path_at_each_end() {
    for (one, two) in [(5, 6), (6, 5)] {
        let mut net = Net::new(Conditions::from_rtt(20_000, 0), 1, &[(1, 4), (2, 4)]);
        let (at_one, at_two) = (net.connect(1, 2, one), net.connect(2, 1, two));
        net.run(1_000_000);
        assert_eq!(net.said(1), [Said::Opened(at_one, 0)]);
        assert_eq!(net.said(2), [Said::Opened(at_two, 0)]);
        net.run(15_000_000);
        assert_eq!(net.said(1), []);
    }
}

#[test]
fn an_invented_address_gets_nothing_but_a_smaller_answer() {
    let mut host = endpoint(4, 7);
    let mut sink = Memory::default();
    let request = |cookie| {
        Control::Request {
            protocol_id: 7,
            nonce: 1,
            cookie,
        }
        .encode()
    };
    host.handle_datagram(Time::ZERO, address(2), &request(0), &mut sink);
    let (to, cookie) = sink.sent.pop().unwrap();
    assert_eq!(to, address(2));
    assert!(cookie.len() < request(0).len());
    let Ok(Control::Cookie { cookie, .. }) = Control::decode(&cookie) else {
        panic!("a cookie");
    };
    // Guessed, or given to somebody else.
    for (from, guess) in [(2, 1), (3, cookie)] {
        host.handle_datagram(Time::ZERO, address(from), &request(guess), &mut sink);
    }
    assert_eq!(host.counts().drops.of(DropCause::Cookie), 2);
    assert!(host.sessions.is_empty() && sink.said.is_empty());
    // Too old.
    host.handle_datagram(
        Time::from_millis(20_000),
        address(2),
        &request(cookie),
        &mut sink,
    );
    assert!(host.sessions.is_empty());
    // In time, over a change of period.
    host.handle_datagram(
        Time::from_millis(19_999),
        address(2),
        &request(cookie),
        &mut sink,
    );
    assert_eq!(host.sessions.len(), 1);
}

#[test]
fn cookies_and_new_paths_have_a_rate() {
    let mut host = endpoint(512, 7);
    let mut sink = Memory::default();
    let request = Control::Request {
        protocol_id: 7,
        nonce: 1,
        cookie: 0,
    }
    .encode();
    for port in 1..=5000 {
        host.handle_datagram(Time::ZERO, address(port), &request, &mut sink);
    }
    assert_eq!(sink.sent.len() as u64, COOKIES_PER_S_MAX);
    let answers = core::mem::take(&mut sink.sent);
    for (from, bytes) in answers {
        let Ok(Control::Cookie { nonce, cookie }) = Control::decode(&bytes) else {
            panic!("a cookie");
        };
        let request = Control::Request {
            protocol_id: 7,
            nonce,
            cookie,
        };
        host.handle_datagram(Time::ZERO, from, &request.encode(), &mut sink);
    }
    assert_eq!(host.sessions.len() as u64, NEW_PATHS_PER_S_MAX);
}

#[test]
fn full_and_foreign_hosts_say_so_and_silence_is_noticed() {
    let conditions = Conditions::from_rtt(20_000, 0);
    let mut net = Net::new(conditions, 1, &[(1, 1), (2, 0), (3, 0)]);
    net.connect(2, 1, 1);
    net.run(100_000);
    let path = net.connect(3, 1, 2);
    net.run(100_000);
    assert_eq!(net.said(3), [Said::Closed(path, CloseReason::Full)]);

    net.nodes
        .insert(address(4), (endpoint(4, 8), Memory::default()));
    let path = net.connect(3, 4, 3);
    net.run(100_000);
    assert_eq!(net.said(3), [Said::Closed(path, CloseReason::OtherGame)]);

    let path = net.connect(3, 5, 4);
    net.run(11_000_000);
    assert_eq!(net.said(3), [Said::Closed(path, CloseReason::NoAnswer)]);

    net.said(1);
    net.nodes.remove(&address(2));
    net.run(11_000_000);
    let said = net.said(1);
    assert!(
        matches!(said[..], [Said::Closed(_, CloseReason::TimedOut)]),
        "{said:?}"
    );
    assert_eq!(net.node(1).0.incoming_count, 0);
}

#[test]
fn who_does_not_know_the_number_cannot_end_a_session() {
    let mut net = Net::new(Conditions::from_rtt(20_000, 0), 1, &[(1, 4), (2, 0)]);
    let path = net.connect(2, 1, 99);
    net.run(100_000);
    net.said(1);
    net.said(2);
    let now = net.now;
    let mut prng = Prng::new(9);
    for _ in 0..20_000 {
        let (host, sink) = net.node(1);
        let mut bytes = Control::Close {
            nonce: prng.next_u64(),
        }
        .encode()
        .to_vec();
        bytes[0] = prng.next_u64().to_le_bytes()[0] & 0x3f;
        bytes.truncate(usize::try_from(prng.below(10)).unwrap());
        host.handle_datagram(now, address(2), &bytes, sink);
    }
    assert_eq!(net.said(1), []);
    let (endpoint, sink) = net.node(2);
    endpoint.send(now, path, &[0x50], sink);
    net.run(20_000);
    assert_eq!(net.said(1).len(), 1, "the session lives");
}

#[test]
fn reserved_kinds_and_wrong_sizes_are_not_sent() {
    let mut net = Net::new(Conditions::from_rtt(20_000, 0), 1, &[(1, 4), (2, 0)]);
    let path = net.connect(2, 1, 99);
    net.run(100_000);
    let now = net.now;
    let (endpoint, sink) = net.node(2);
    sink.sent.clear();
    for bytes in [&[][..], &[0x3f], &[0x40; DATAGRAM_BYTES_MAX + 1]] {
        endpoint.send(now, path, bytes, sink);
    }
    endpoint.send(now, Path(999), &[0x40], sink);
    assert!(sink.sent.is_empty());
    assert_eq!(endpoint.counts().unsendable, 3);
    assert_eq!(endpoint.counts().unknown_path, 1);
}

#[test]
fn control_datagrams_have_one_form() {
    let (nonce, cookie) = (1, 2);
    for control in [
        Control::Request {
            protocol_id: 3,
            nonce,
            cookie,
        },
        Control::Cookie { nonce, cookie },
        Control::Accept { nonce },
        Control::Deny {
            nonce,
            reason: CloseReason::Full,
        },
        Control::Deny {
            nonce,
            reason: CloseReason::OtherGame,
        },
        Control::KeepAlive { nonce },
        Control::Close { nonce },
    ] {
        let bytes = control.encode();
        assert_eq!(Control::decode(&bytes), Ok(control));
        assert_eq!(
            Control::decode(&bytes[..bytes.len() - 1]),
            Err(DropCause::TooShort)
        );
        let mut longer = bytes.to_vec();
        longer.push(0);
        assert_eq!(Control::decode(&longer), Err(DropCause::BodySize));
    }
    assert_eq!(Control::decode(&[0x07]), Err(DropCause::Kind));
}

#[test]
fn a_flood_from_one_session_is_cut_to_its_rate() {
    let mut net = Net::new(Conditions::PERFECT, 1, &[(1, 4), (2, 0)]);
    net.connect(2, 1, 99);
    net.run(100_000);
    net.said(1);
    let now = net.now;
    let (host, sink) = net.node(1);
    for _ in 0..10_000 {
        host.handle_datagram(now, address(2), &[0x40], sink);
    }
    assert_eq!(sink.said.len() as u64, SESSION_PAYLOADS_PER_S_MAX);
    assert!(host.counts().drops.of(DropCause::Flood) > 5000);
}

/// The bytes of `docs/LINKS.md`, written by hand.
#[test]
fn control_datagrams_are_as_documented() {
    let nonce = 0x0807_0605_0403_0201;
    let cookie = 0x1817_1615_1413_1211;
    let request = Control::Request {
        protocol_id: 0x2827_2625_2423_2221,
        nonce,
        cookie,
    };
    let (n, c) = ("01 02 03 04 05 06 07 08", "11 12 13 14 15 16 17 18");
    let deny = |reason| Control::Deny { nonce, reason };
    for (control, golden) in [
        (request, format!("01 21 22 23 24 25 26 27 28 {n} {c}")),
        (Control::Cookie { nonce, cookie }, format!("02 {n} {c}")),
        (Control::Accept { nonce }, format!("03 {n}")),
        (deny(CloseReason::Full), format!("04 {n} 00")),
        (deny(CloseReason::OtherGame), format!("04 {n} 01")),
        (Control::KeepAlive { nonce }, format!("05 {n}")),
        (Control::Close { nonce }, format!("06 {n}")),
    ] {
        let hex: Vec<String> = control
            .encode()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        assert_eq!(hex.join(" "), golden);
    }
}
