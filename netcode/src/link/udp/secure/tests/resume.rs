//! Coming back over an encrypted link after its session was lost.

use super::*;
use crate::link::udp::guard::TAG_BYTES;
use crate::link::udp::secure::resume::{
    Meeting, OFFER, Offers, TAKEN, WaysBack, id_over, is_reserved_id,
};

/// Host 1 and client 2, connected as client 42; what each path was.
fn pair(conditions: Conditions, seed: u64, resume_life_s: u64) -> (Net, Path, Path) {
    pair_of(conditions, seed, resume_life_s, 0)
}

/// The same, with a client that has a server side of its own for so many.
fn pair_of(
    conditions: Conditions,
    seed: u64,
    resume_life_s: u64,
    clients_max: usize,
) -> (Net, Path, Path) {
    let mut net = Net::new(conditions, seed);
    net.add_endpoint(1, endpoint_of(4, UNIX, 1, resume_life_s));
    net.add_endpoint(2, endpoint_of(clients_max, UNIX, 2, resume_life_s));
    let (to_host, to_client) = net.establish(2, 1, 42);
    (net, to_host, to_client)
}

impl Net {
    /// Nothing arrives for `us` microseconds.
    fn cut(&mut self, us: u64) {
        let end = self.now.plus_micros(us);
        while self.now < end {
            self.now = self.now.plus_micros(50_000);
            for Node { endpoint, sink } in self.nodes.values_mut() {
                endpoint.handle_timeout(self.now, sink);
                endpoint.invariants();
                sink.sent.clear();
            }
            while self.wire.pop(self.now).is_some() {}
        }
    }

    fn rejoin(&mut self, number: u16, old: Path) -> Result<Path, ConnectError> {
        let now = self.now;
        let Node { endpoint, sink } = self.node(number);
        endpoint.rejoin(now, old, sink)
    }

    /// Loses the session on both ends.
    fn lose(&mut self, to_host: Path, to_client: Path) {
        self.cut(11_000_000);
        assert_eq!(self.said(2), [Said::Closed(to_host, CloseReason::TimedOut)]);
        assert_eq!(
            self.said(1),
            [Said::Closed(to_client, CloseReason::TimedOut)]
        );
    }
}

#[test]
fn a_client_comes_back_as_often_as_it_is_lost() {
    for (seed, loss_per_million) in [(1, 0), (2, 50_000), (3, 200_000)] {
        let conditions = Conditions::from_rtt(40_000, loss_per_million);
        let perfect = Conditions::from_rtt(40_000, 0);
        let (mut net, mut to_host, mut to_client) = pair(perfect, seed, 600);
        net.wire = Conditioner::new(conditions, seed);
        for round in 0..5 {
            // Tokens are repeated until they have arrived.
            net.run(3_000_000);
            assert_eq!(net.said(1), [], "seed {seed}");
            assert_eq!(net.said(2), [], "what the link says stays in the link");
            assert_eq!(
                net.rejoin(2, to_host),
                Err(ConnectError::AlreadyConnected),
                "seed {seed}, round {round}"
            );
            net.lose(to_host, to_client);
            to_host = net.rejoin(2, to_host).unwrap();
            net.run(7_000_000);
            assert_eq!(net.said(2), [Said::Opened(to_host, 42)], "seed {seed}");
            let said = net.said(1);
            let [Said::Opened(path, 42)] = said[..] else {
                panic!("seed {seed}, round {round}: {said:?}");
            };
            to_client = path;
            net.send(2, to_host, b"here again");
            net.run(3_000_000);
            // One datagram may be lost; the session is there.
            let said = net.said(1);
            assert!(loss_per_million > 0 || !said.is_empty(), "seed {seed}");
        }
    }
}

/// Whichever end opened the last session, either opens the next one; the tokens of that one lead on.
#[test]
fn a_host_comes_back_to_its_client_and_that_to_the_host() {
    for (seed, loss_per_million) in [(1, 0), (2, 50_000), (3, 200_000)] {
        let perfect = Conditions::from_rtt(40_000, 0);
        let (mut net, to_host, to_client) = pair_of(perfect, seed, 600, 4);
        let conditions = Conditions::from_rtt(40_000, loss_per_million);
        net.wire = Conditioner::new(conditions, seed);
        let mut paths = [to_client, to_host];
        for round in 0..6 {
            net.run(5_000_000);
            for number in [1, 2] {
                assert_eq!(net.said(number), [], "seed {seed}, round {round}: {number}");
            }
            net.cut(11_000_000);
            for (number, path) in [1, 2].into_iter().zip(paths) {
                let gone = [Said::Closed(path, CloseReason::TimedOut)];
                assert_eq!(net.said(number), gone, "seed {seed}, round {round}");
            }
            // The host, the host again, the client, in turn.
            let (opens, accepts) = if round % 3 == 2 { (2, 1) } else { (1, 2) };
            let [old, _] = if opens == 1 {
                paths
            } else {
                [paths[1], paths[0]]
            };
            let opened = net.rejoin(opens, old).unwrap();
            net.run(7_000_000);
            let said = net.said(opens);
            let [Said::Opened(path, id)] = said[..] else {
                panic!("seed {seed}, round {round}: {said:?}");
            };
            assert_eq!(path, opened);
            let said = net.said(accepts);
            let [Said::Opened(accepted, same)] = said[..] else {
                panic!("seed {seed}, round {round}: {said:?}");
            };
            assert_eq!(same, id, "seed {seed}, round {round}");
            assert!(is_reserved_id(id), "it names no client of a join code");
            paths = if opens == 1 {
                [opened, accepted]
            } else {
                [accepted, opened]
            };
            net.send(opens, opened, b"here again");
            net.run(3_000_000);
            // One datagram may be lost; the session is there.
            let said = net.said(accepts);
            assert!(loss_per_million > 0 || !said.is_empty(), "seed {seed}");
        }
    }
}

#[test]
fn a_way_back_to_a_client_leads_there_once_and_only_for_its_host() {
    let (mut net, to_host, to_client) = pair_of(Conditions::from_rtt(20_000, 0), 1, 600, 4);
    net.run(3_000_000);
    net.lose(to_host, to_client);
    net.trace.clear();
    let again = net.rejoin(1, to_client).unwrap();
    net.run(1_000_000);
    assert_eq!(net.said(1), [Said::Opened(again, id_over(to_host))]);
    net.said(2);
    let request = net.trace.iter().find(|(_, _, bytes)| bytes[0] == 0);
    let request = request.unwrap().2.clone();
    net.close(1, again);
    net.run(200_000);
    assert_eq!(net.said(2).len(), 1, "closed");
    let used = net.drops(2, DropCause::TokenUsed);
    for from in [address(1), address(3)] {
        let now = net.now;
        let Node { endpoint, sink } = net.node(2);
        endpoint.handle_datagram(now, from, &mut request.clone(), sink);
    }
    assert_eq!(net.drops(2, DropCause::TokenUsed), used + 2);
    assert_eq!(net.said(2), [], "nobody came in");
    assert_eq!(net.rejoin(1, to_client), Err(ConnectError::NoWayBack));
}

/// Both ends may try at once: two sessions come up, and nothing of one disturbs the other.
#[test]
fn both_ends_may_come_back_at_once() {
    let (mut net, to_host, to_client) = pair_of(Conditions::from_rtt(20_000, 0), 1, 600, 4);
    net.run(3_000_000);
    net.lose(to_host, to_client);
    let first = net.rejoin(1, to_client).unwrap();
    let second = net.rejoin(2, to_host).unwrap();
    net.run(3_000_000);
    for (number, own) in [(1, first), (2, second)] {
        let said = net.said(number);
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(
            said.iter()
                .any(|said| matches!(said, Said::Opened(path, _) if *path == own))
        );
    }
    net.send(1, first, b"one");
    net.send(2, second, b"two");
    net.run(200_000);
    for number in [1, 2] {
        assert!(matches!(net.said(number)[..], [Said::Datagram(_, _)]));
    }
}

#[test]
fn a_way_back_leads_back_once() {
    let (mut net, to_host, to_client) = pair(Conditions::from_rtt(20_000, 0), 1, 600);
    net.run(3_000_000);
    net.lose(to_host, to_client);
    net.trace.clear();
    let again = net.rejoin(2, to_host).unwrap();
    net.run(1_000_000);
    assert_eq!(net.said(2), [Said::Opened(again, 42)]);
    net.said(1);
    // Whoever has seen the request repeats it, now and after the session has ended.
    let request = net.trace.iter().find(|(_, _, bytes)| bytes[0] == 0);
    let request = request.unwrap().2.clone();
    net.close(2, again);
    net.run(200_000);
    assert_eq!(net.said(1).len(), 1, "closed");
    net.add(3, 0);
    let used = net.drops(1, DropCause::TokenUsed);
    for from in [address(2), address(3)] {
        let now = net.now;
        let Node { endpoint, sink } = net.node(1);
        endpoint.handle_datagram(now, from, &mut request.clone(), sink);
    }
    assert_eq!(net.drops(1, DropCause::TokenUsed), used + 2);
    net.run(1_000_000);
    assert_eq!(net.said(1), [], "nobody came in");
    // The right that the old path gave went on to the new one.
    assert_eq!(net.rejoin(2, to_host), Err(ConnectError::NoWayBack));
    assert!(net.rejoin(2, again).is_ok());
}

#[test]
fn attempts_in_vain_use_up_the_right() {
    let (mut net, to_host, to_client) = pair(Conditions::from_rtt(20_000, 0), 1, 600);
    net.run(3_000_000);
    net.lose(to_host, to_client);
    let mut path = to_host;
    for attempt in 0..3 {
        path = net.rejoin(2, path).unwrap();
        net.cut(11_000_000);
        let gone = [Said::Closed(path, CloseReason::NoAnswer)];
        assert_eq!(net.said(2), gone, "attempt {attempt}");
    }
    assert_eq!(net.rejoin(2, path), Err(ConnectError::NoWayBack));
}

#[test]
fn the_right_expires_unless_it_is_renewed_and_may_be_switched_off() {
    let perfect = Conditions::from_rtt(20_000, 0);
    let (mut net, to_host, to_client) = pair(perfect, 1, 60);
    // The first tokens are worth nothing by now; later ones came before.
    net.run(100_000_000);
    net.lose(to_host, to_client);
    let again = net.rejoin(2, to_host).unwrap();
    net.run(3_000_000);
    assert_eq!(net.said(2), [Said::Opened(again, 42)]);
    let said = net.said(1);
    let [Said::Opened(to_client, 42)] = said[..] else {
        panic!("{said:?}");
    };
    net.lose(again, to_client);
    net.cut(61_000_000);
    let late = net.rejoin(2, again).unwrap();
    net.run(3_000_000);
    assert_eq!(net.said(2), [Said::Closed(late, CloseReason::TokenExpired)]);

    let (mut net, to_host, to_client) = pair(perfect, 1, 0);
    net.run(3_000_000);
    net.lose(to_host, to_client);
    assert_eq!(net.rejoin(2, to_host), Err(ConnectError::NoWayBack));
}

#[test]
fn payloads_of_the_link_are_not_for_the_game_to_send() {
    let (mut net, to_host, to_client) = pair(Conditions::from_rtt(20_000, 0), 1, 600);
    for first in [OFFER, TAKEN] {
        net.send(1, to_client, &[first, 1, 2, 3]);
        net.send(2, to_host, &[first; 17]);
    }
    for number in [1, 2] {
        assert_eq!(net.node(number).endpoint.counts().unsendable, 2);
    }
}

/// Seals a payload that no honest end sends, and delivers it.
fn forge(net: &mut Net, from: u16, payload: &[u8]) {
    let Node { endpoint, .. } = net.node(from);
    let datagram = match &mut endpoint.server {
        Some(server) => {
            let client_id = server.peers.values().next().unwrap().client_id;
            let sealed = server.netcode.generate_payload_packet(client_id, payload);
            sealed.unwrap().1.to_vec()
        }
        None => {
            let client = endpoint.clients.values_mut().next().unwrap();
            client
                .netcode
                .generate_payload_packet(payload)
                .unwrap()
                .1
                .to_vec()
        }
    };
    let (now, to) = (net.now, 3 - from);
    let Node { endpoint, sink } = net.node(to);
    endpoint.handle_datagram(now, address(from), &mut datagram.clone(), sink);
}

#[test]
fn what_the_other_end_makes_up_is_counted_and_forgotten() {
    let seed = 23;
    let (mut net, _, _) = pair_of(Conditions::from_rtt(20_000, 0), 1, 0, 0);
    let mut prng = Prng::new(seed);
    // A token of another client, of another game, and noise.
    let now = net.now;
    let other = net.node(1).endpoint.mint(now, 43, address(1), 60).unwrap();
    let foreign = TokenMint::new([1; 32], PROTOCOL + 1, 10);
    let foreign = foreign.mint(42, address(1), UNIX, 60).unwrap();
    let mut made_up: Vec<Vec<u8>> = [other, foreign].map(|token| token.to_bytes()).into();
    made_up.push(Vec::new());
    for _ in 0..2000 {
        let length = prng.below(1179);
        let random = |_| prng.next_u64().to_le_bytes()[0];
        made_up.push((0..length).map(random).collect());
    }
    for (index, bytes) in made_up.iter().enumerate() {
        // Within the payloads per second that a session may send.
        net.now = net.now.plus_micros(1000);
        for from in [1, 2] {
            for first in [OFFER, TAKEN] {
                let to = 3 - from;
                let before = net.drops(to, DropCause::Kind);
                forge(&mut net, from, &[&[first], &bytes[..]].concat());
                // A word of the right length about no token is heard and means nothing.
                let is_word = first == TAKEN && bytes.len() == TAG_BYTES;
                let counted = net.drops(to, DropCause::Kind) - before;
                assert_eq!(counted, u64::from(!is_word), "seed {seed}, {index}: {from}");
            }
        }
    }
    assert_eq!(net.said(1), []);
    assert_eq!(net.said(2), []);
    for number in [1, 2] {
        assert!(net.node(number).endpoint.ways_back.next(Path(1)).is_none());
    }
}

/// What a hostile end hands over takes no more room than this, and takes nobody's way.
#[test]
fn tokens_of_paths_long_gone_are_forgotten_first() {
    let mint = TokenMint::new([1; 32], PROTOCOL, 10);
    let mut ways = WaysBack::default();
    let host = address(1);
    let is_open = |path: &Path| path.0 < 100;
    for number in 0..800 {
        for _ in 0..5 {
            let token = mint.mint(42, host, UNIX, 60).unwrap();
            let payload = [&[OFFER], &token.to_bytes()[..]].concat();
            let meeting = Meeting {
                path: Path(number),
                address: host,
                protocol_id: PROTOCOL,
                own_id: Some(42),
                offers: &mut Offers::default(),
                life_us: 60_000_000,
            };
            let taken = ways.handle(Time::ZERO, meeting, &payload, is_open);
            let answer = taken.unwrap().unwrap();
            assert_eq!(answer[1..], token.tag()[..]);
        }
    }
    let mut held = |number| {
        let tokens = core::iter::from_fn(|| ways.next(Path(number)));
        tokens.count()
    };
    assert_eq!(held(0), 3);
    assert_eq!(held(100), 0);
    assert_eq!(held(799), 3);
    let most = CLIENTS_MAX + MEMBERS_MAX;
    assert_eq!((0..800).map(&mut held).sum::<usize>(), (most - 2) * 3);
}

/// A host takes only tokens for the ids of hosts that come back: with another id, it would speak for
/// somebody else at the end that gave the token.
#[test]
fn a_host_takes_only_tokens_that_are_for_hosts() {
    let mint = TokenMint::new([1; 32], PROTOCOL, 10);
    let mut ways = WaysBack::default();
    let path = Path(3);
    let mut take = |id: u64| {
        let token = mint.mint(id, address(1), UNIX, 60).unwrap();
        let payload = [&[OFFER], &token.to_bytes()[..]].concat();
        let meeting = Meeting {
            path,
            address: address(2),
            protocol_id: PROTOCOL,
            own_id: None,
            offers: &mut Offers::default(),
            life_us: 60_000_000,
        };
        ways.handle(Time::ZERO, meeting, &payload, |_| true).is_ok()
    };
    assert!([0, 42, 0x6d62 << 48, u64::MAX].iter().all(|&id| !take(id)));
    assert!(take(id_over(path)));
    let token = ways.next(path).unwrap();
    assert_eq!(token.address(), address(2), "where the other end is seen");
}
