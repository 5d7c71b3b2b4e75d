//! Sessions in virtual time, over a network that loses, and against a storm of hostile datagrams.

mod resume;
mod swarm;

use super::*;
use crate::link::conditioner::{Conditioner, Conditions};
use crate::link::udp::endpoint::tests::{Memory, Said};
use crate::link::udp::token;
use crate::prng::Prng;

const PROTOCOL: u64 = 77;
const STEP_US: u64 = 10_000;
/// Unix time of the tests' epoch.
const UNIX: Duration = Duration::from_secs(1_700_000_000);

fn address(number: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], number))
}

fn endpoint_with(clients_max: usize, unix_at_zero: Duration, key: u8) -> SecureEndpoint {
    endpoint_of(clients_max, unix_at_zero, key, 600)
}

fn endpoint_of(
    clients_max: usize,
    unix_at_zero: Duration,
    key: u8,
    resume_life_s: u64,
) -> SecureEndpoint {
    SecureEndpoint::new(SecureConfig {
        mint: TokenMint::new([key; 32], PROTOCOL, 10),
        clients_max,
        unix_at_zero,
        resume_life_s,
    })
    .unwrap()
}

/// Endpoints joined by a conditioned network, and all that they sent and said.
struct Net {
    now: Time,
    nodes: BTreeMap<SocketAddr, Node>,
    wire: Conditioner<(SocketAddr, SocketAddr)>,
    /// Every datagram that was sent: from, to, bytes.
    trace: Vec<(SocketAddr, SocketAddr, Vec<u8>)>,
}

struct Node {
    endpoint: SecureEndpoint,
    sink: Memory,
}

impl Net {
    fn new(conditions: Conditions, seed: u64) -> Self {
        Self {
            now: Time::ZERO,
            nodes: BTreeMap::new(),
            wire: Conditioner::new(conditions, seed),
            trace: Vec::new(),
        }
    }

    fn perfect() -> Self {
        Self::new(Conditions::from_rtt(20_000, 0), 1)
    }

    /// A node with a server side for `clients_max`.
    fn add(&mut self, number: u16, clients_max: usize) {
        let key = number.to_le_bytes()[0];
        self.add_endpoint(number, endpoint_with(clients_max, UNIX, key));
    }

    fn add_endpoint(&mut self, number: u16, endpoint: SecureEndpoint) {
        let sink = Memory::default();
        self.nodes.insert(address(number), Node { endpoint, sink });
    }

    fn token(&mut self, host: u16, client_id: u64, life_s: u64) -> JoinToken {
        let now = self.now;
        self.node(host)
            .endpoint
            .mint(now, client_id, address(host), life_s)
            .unwrap()
    }

    fn node(&mut self, number: u16) -> &mut Node {
        self.nodes.get_mut(&address(number)).unwrap()
    }

    fn connect(&mut self, number: u16, token: &JoinToken) -> Result<Path, ConnectError> {
        let now = self.now;
        let Node { endpoint, sink } = self.node(number);
        endpoint.connect(now, token, token.address(), sink)
    }

    fn send(&mut self, number: u16, path: Path, bytes: &[u8]) {
        let Node { endpoint, sink } = self.node(number);
        endpoint.send(path, bytes, sink);
    }

    fn close(&mut self, number: u16, path: Path) {
        let Node { endpoint, sink } = self.node(number);
        endpoint.close(path, sink);
    }

    fn said(&mut self, number: u16) -> Vec<Said> {
        core::mem::take(&mut self.node(number).sink.said)
    }

    fn drops(&mut self, number: u16, cause: DropCause) -> u64 {
        self.node(number).endpoint.counts().drops.of(cause)
    }

    /// Runs for `us` microseconds, with timeouts every 50 ms as in the shell.
    fn run(&mut self, us: u64) {
        let end = self.now.plus_micros(us);
        while self.now < end {
            self.now = self.now.plus_micros(STEP_US);
            let now = self.now;
            self.collect();
            while let Some(((from, to), bytes)) = self.wire.pop(now) {
                if let Some(Node { endpoint, sink }) = self.nodes.get_mut(&to) {
                    let mut bytes = bytes.to_vec();
                    endpoint.handle_datagram(now, from, &mut bytes, sink);
                }
            }
            if now.micros().is_multiple_of(50_000) {
                for Node { endpoint, sink } in self.nodes.values_mut() {
                    endpoint.handle_timeout(now, sink);
                    endpoint.invariants();
                }
            }
        }
        self.collect();
    }

    fn collect(&mut self) {
        for (&from, node) in &mut self.nodes {
            for (to, bytes) in node.sink.sent.drain(..) {
                self.wire.push(self.now, (from, to), &bytes);
                self.trace.push((from, to, bytes));
            }
        }
    }

    /// Connects `client` to `host` and gives the paths at the client and at the host.
    fn establish(&mut self, client: u16, host: u16, client_id: u64) -> (Path, Path) {
        let token = self.token(host, client_id, 60);
        let at_client = self.connect(client, &token).unwrap();
        self.run(1_000_000);
        assert_eq!(
            self.said(client),
            [Said::Opened(at_client, client_id)],
            "the client's path opens"
        );
        let said = self.said(host);
        let [Said::Opened(at_host, id)] = said[..] else {
            panic!("the host's path opens: {said:?}");
        };
        assert_eq!(id, client_id);
        (at_client, at_host)
    }
}

#[test]
fn a_session_opens_carries_and_closes() {
    let mut net = Net::perfect();
    net.add(1, 4);
    net.add(2, 0);
    let (to_host, to_client) = net.establish(2, 1, 42);
    for round in 0x40..0xa0_u8 {
        net.send(2, to_host, &[round; 100]);
        net.send(1, to_client, &[round; 200]);
        net.run(20_000);
        assert_eq!(net.said(1), [Said::Datagram(to_client, vec![round; 100])]);
        assert_eq!(net.said(2), [Said::Datagram(to_host, vec![round; 200])]);
    }
    net.close(2, to_host);
    net.run(50_000);
    assert_eq!(net.said(1), [Said::Closed(to_client, CloseReason::Remote)]);
    assert_eq!(net.said(2), []);
    net.send(2, to_host, &[1]);
    assert_eq!(net.node(2).endpoint.counts().unknown_path, 1);
}

#[test]
fn the_host_can_close_too_and_says_it_ten_times() {
    let mut net = Net::perfect();
    net.add(1, 4);
    net.add(2, 0);
    let (to_host, to_client) = net.establish(2, 1, 42);
    net.trace.clear();
    net.close(1, to_client);
    net.run(50_000);
    assert_eq!(net.said(2), [Said::Closed(to_host, CloseReason::Remote)]);
    let ends = net
        .trace
        .iter()
        .filter(|(from, _, bytes)| {
            *from == address(1) && guard::inspect(bytes) == Ok(Kind::Disconnect)
        })
        .count();
    assert_eq!(ends, ENDS_SAID);
}

#[test]
fn the_hosts_path_opens_only_when_the_client_was_heard() {
    let mut net = Net::perfect();
    net.add(1, 4);
    net.add(2, 0);
    let token = net.token(1, 7, 60);
    net.connect(2, &token).unwrap();
    // Two round trips in steps: the client is connected and has said nothing yet.
    net.run(100_000);
    assert_eq!(net.said(2).len(), 1);
    assert_eq!(
        net.said(1),
        [],
        "a payload now could overtake the keep-alive"
    );
    net.run(300_000);
    assert_eq!(net.said(1).len(), 1, "heard by the client's keep-alive");
}

#[test]
fn every_handshake_succeeds_within_ten_seconds_at_20_percent_loss() {
    let conditions = Conditions {
        jitter_us: 20_000,
        ..Conditions::from_rtt(100_000, 200_000)
    };
    let mut slowest = Time::ZERO;
    for seed in 0..1000 {
        let mut net = Net::new(conditions, seed);
        net.add(1, 4);
        net.add(2, 0);
        let token = net.token(1, 1, 60);
        let path = net.connect(2, &token).unwrap();
        let mut open = (false, false);
        while open != (true, true) {
            net.run(STEP_US);
            assert!(net.now < Time::from_millis(10_000), "seed {seed}");
            open.1 |= net
                .said(1)
                .iter()
                .any(|said| matches!(said, Said::Opened(..)));
            // The game says hello as soon as it may.
            if net.said(2).contains(&Said::Opened(path, 1)) {
                open.0 = true;
                net.send(2, path, b"hello");
            }
        }
        slowest = slowest.max(net.now);
    }
    println!("slowest of 1000: {} ms", slowest.micros() / 1000);
}

#[test]
fn no_nonce_is_used_twice_and_collisions_do_occur() {
    let mut net = Net::new(
        Conditions {
            duplicate_per_million: 100_000,
            ..Conditions::from_rtt(30_000, 200_000)
        },
        5,
    );
    net.add(1, 16);
    // Several clients, so that challenges spread over the numbers.
    for number in 2..10 {
        net.add(number, 0);
        let token = net.token(1, u64::from(number), 60);
        net.connect(number, &token).unwrap();
    }
    for round in 0..600_u32 {
        net.run(STEP_US);
        for number in [1, 2, 3, 4, 5, 6, 7, 8, 9] {
            let Node { endpoint, sink } = net.node(number);
            let paths: Vec<Path> = endpoint.routes.keys().copied().collect();
            for path in paths {
                endpoint.send(path, &round.to_le_bytes(), sink);
            }
        }
    }
    for number in 1..10 {
        net.close(number, Path(1));
    }
    net.run(100_000);

    let mut seen: BTreeMap<(SocketAddr, SocketAddr, u64), &[u8]> = BTreeMap::new();
    for (from, to, bytes) in &net.trace {
        match guard::inspect(bytes) {
            Ok(Kind::Request | Kind::Refusal) => continue,
            other => assert!(other.is_ok(), "we send {other:?}"),
        }
        let sequence = guard::sequence_of(bytes).unwrap();
        let first = seen.entry((*from, *to, sequence)).or_insert(bytes);
        assert!(first == bytes, "{from} to {to}: number {sequence} twice");
    }
    let burned = net.nodes[&address(1)].endpoint.counts().burned;
    assert!(burned >= 8, "each session meets its challenge: {burned}");
    assert!(seen.len() > 5000, "{}", seen.len());
}

#[test]
fn a_token_opens_one_session_only() {
    let mut net = Net::perfect();
    net.add(1, 4);
    net.add(2, 0);
    let token = net.token(1, 42, 60);
    let path = net.connect(2, &token).unwrap();
    net.run(1_000_000);
    assert_eq!(net.connect(2, &token), Err(ConnectError::TokenUsed));

    // Another machine with a copy, while the session goes on.
    net.add(3, 0);
    let copy = net.connect(3, &token).unwrap();
    net.run(2_000_000);
    assert_eq!(net.said(3), [Said::Closed(copy, CloseReason::TokenUsed)]);
    assert!(net.drops(1, DropCause::TokenUsed) > 0);

    // The same address with a fresh memory, after the session.
    net.close(2, path);
    net.run(100_000);
    net.add(2, 0);
    net.said(1);
    let again = net.connect(2, &token).unwrap();
    net.run(2_000_000);
    assert_eq!(net.said(2), [Said::Closed(again, CloseReason::TokenUsed)]);
    assert_eq!(net.said(1), []);
}

#[test]
fn a_token_under_way_is_bound_to_its_address() {
    let mut net = Net::perfect();
    for number in [2, 3] {
        net.add(number, 0);
    }
    net.add(1, 4);
    let token = net.token(1, 42, 60);
    let first = net.connect(2, &token).unwrap();
    net.run(STEP_US);
    net.connect(3, &token).unwrap();
    net.run(2_000_000);
    assert_eq!(net.said(2), [Said::Opened(first, 42)]);
    let said = net.said(3);
    assert!(
        matches!(said[..], [Said::Closed(_, CloseReason::TokenUsed)]),
        "{said:?}"
    );
}

#[test]
fn expired_tokens_are_refused_by_the_hosts_clock() {
    let mut net = Net::perfect();
    net.add(1, 4);
    let token = net.token(1, 42, 2);
    net.run(3_000_000);
    // Clients whose clocks are right, 10 hours slow and 10 hours fast all get the same answer.
    let hours = Duration::from_secs(10 * 3600);
    for (number, unix) in [(2, UNIX), (3, UNIX - hours), (4, UNIX + hours)] {
        net.add_endpoint(number, endpoint_with(0, unix, 9));
        let path = net.connect(number, &token).unwrap();
        net.run(2_000_000);
        let expired = Said::Closed(path, CloseReason::TokenExpired);
        assert_eq!(net.said(number), [expired]);
    }
    assert!(net.drops(1, DropCause::TokenExpired) > 0);
    // A clock beyond all doubt does not even ask.
    net.add_endpoint(5, endpoint_with(0, UNIX + hours * 3, 9));
    assert_eq!(net.connect(5, &token), Err(ConnectError::TokenExpired));
    // And a valid token works by a clock that is wrong.
    net.add_endpoint(6, endpoint_with(0, UNIX + hours, 9));
    let token = net.token(1, 43, 60);
    let path = net.connect(6, &token).unwrap();
    net.run(1_000_000);
    assert_eq!(net.said(6), [Said::Opened(path, 43)]);
}

#[test]
fn foreign_tokens_and_protocols_are_refused() {
    let mut net = Net::perfect();
    for number in [1, 4] {
        net.add(number, 4);
    }
    net.add(2, 0);
    // Minted by host 4, shown to host 1.
    let token = net.token(4, 42, 60).with_address(address(1));
    let path = net.connect(2, &token).unwrap();
    net.run(11_000_000);
    assert_eq!(net.said(2), [Said::Closed(path, CloseReason::NoAnswer)]);
    assert!(net.drops(1, DropCause::TokenRefused) > 10);
    assert_eq!(net.said(1), []);

    let other = TokenMint::new([1; 32], PROTOCOL + 1, 10)
        .mint(1, address(1), UNIX, 60)
        .unwrap();
    assert_eq!(net.connect(2, &other), Err(ConnectError::OtherGame));
}

#[test]
fn an_identity_that_is_not_bound_is_refused() {
    let mut net = Net::perfect();
    net.add(1, 4);
    net.add(2, 0);
    let mut forged = net.token(1, 42, 60).to_renetcode();
    let real = renetcode::ConnectToken::generate(
        UNIX,
        PROTOCOL,
        60,
        42,
        10,
        vec![token::SEALED_ADDRESS],
        Some(&token::user_data(43)),
        &[1; 32],
    )
    .unwrap();
    forged.clone_from(&real);
    forged.server_addresses[0] = Some(address(1));
    let mut sink = Memory::default();
    let mut client = NetcodeClient::new(
        UNIX,
        ClientAuthentication::Secure {
            connect_token: forged,
        },
    )
    .unwrap();
    let host = &mut net.node(1).endpoint;
    for ms in (0..2000).step_by(50) {
        let now = Time::from_millis(ms);
        let mut to_host = client
            .update(Duration::from_millis(50))
            .map(|(bytes, _)| bytes.to_vec());
        if let Some(bytes) = &mut to_host {
            host.handle_datagram(now, address(2), bytes, &mut sink);
        }
        for (_, mut bytes) in sink.sent.drain(..) {
            client.process_packet(&mut bytes);
        }
    }
    assert!(host.counts().drops.of(DropCause::IdentityMismatch) > 0);
    assert!(sink.said.is_empty());
    assert!(!client.is_connected());
}

#[test]
fn a_full_host_says_so() {
    let mut net = Net::perfect();
    net.add(1, 1);
    net.add(2, 0);
    net.add(3, 0);
    net.establish(2, 1, 42);
    let token = net.token(1, 43, 60);
    let path = net.connect(3, &token).unwrap();
    net.run(1_000_000);
    assert_eq!(net.said(3), [Said::Closed(path, CloseReason::Full)]);
    assert!(net.drops(1, DropCause::Full) > 0);
}

#[test]
fn silence_ends_sessions_and_requests_do_not_keep_them_alive() {
    let mut net = Net::perfect();
    net.add(1, 4);
    net.add(2, 0);
    let (to_host, to_client) = net.establish(2, 1, 42);
    let request = net
        .trace
        .iter()
        .find(|(_, _, bytes)| guard::inspect(bytes) == Ok(Kind::Request))
        .unwrap()
        .2
        .clone();
    // The client's machine is gone; somebody repeats its request from its address.
    let gone = net.nodes.remove(&address(2)).unwrap();
    for _ in 0..110 {
        net.run(100_000);
        let now = net.now;
        let Node { endpoint, sink } = net.node(1);
        endpoint.handle_datagram(now, address(2), &mut request.clone(), sink);
    }
    assert_eq!(
        net.said(1),
        [Said::Closed(to_client, CloseReason::TimedOut)]
    );
    assert!(net.drops(1, DropCause::RequestFromConnected) > 50);
    // And the other way round.
    net.nodes.clear();
    net.nodes.insert(address(2), gone);
    net.run(11_000_000);
    assert_eq!(net.said(2), [Said::Closed(to_host, CloseReason::TimedOut)]);
}

#[test]
fn one_socket_hosts_and_joins_both_ways_at_once() {
    let mut net = Net::perfect();
    for number in [1, 2, 3] {
        net.add(number, 8);
    }
    // Everyone joins everyone: six sessions over three addresses, each pair crossed.
    let pairs = [(1, 2), (2, 1), (1, 3), (3, 1), (2, 3), (3, 2)];
    for (client, host) in pairs {
        let id = u64::from(client) * 10 + u64::from(host);
        let token = net.token(host, id, 60);
        net.connect(client, &token).unwrap();
    }
    net.run(2_000_000);
    for number in [1, 2, 3] {
        let said = net.said(number);
        assert_eq!(said.len(), 4, "{said:?}");
        let paths: Vec<Path> = said
            .iter()
            .map(|said| match said {
                Said::Opened(path, _) => *path,
                Said::Datagram(..) | Said::Closed(..) => panic!("{said:?}"),
            })
            .collect();
        for path in paths {
            net.send(number, path, &number.to_le_bytes());
        }
    }
    net.run(100_000);
    for number in [1, 2, 3] {
        let said = net.said(number);
        assert_eq!(said.len(), 4, "one datagram of each session: {said:?}");
    }
    // Long enough that a session kept alive by the wrong key would end.
    net.run(15_000_000);
    for number in [1, 2, 3] {
        assert_eq!(net.said(number), []);
    }
}

#[test]
fn challenges_per_token_are_limited() {
    let mut net = Net::perfect();
    net.add(1, 4);
    let token = net.token(1, 42, 60).to_renetcode();
    let mut client = NetcodeClient::new(
        UNIX,
        ClientAuthentication::Secure {
            connect_token: token,
        },
    )
    .unwrap();
    let request = client.update(Duration::ZERO).unwrap().0.to_vec();
    let Node { endpoint, sink } = net.node(1);
    for _ in 0..1000 {
        endpoint.handle_datagram(Time::ZERO, address(2), &mut request.clone(), sink);
    }
    assert_eq!(sink.sent.len(), CHALLENGES_PER_TOKEN_MAX);
    assert_eq!(endpoint.counts().drops.of(DropCause::Flood), 872);
}

#[test]
fn a_flood_from_one_session_is_cut_to_its_rate() {
    let mut net = Net::perfect();
    net.add(1, 4);
    net.add(2, 0);
    let (to_host, _) = net.establish(2, 1, 42);
    for _ in 0..6000 {
        net.send(2, to_host, &[7; 50]);
    }
    net.run(20_000);
    assert_eq!(net.said(1).len() as u64, SESSION_PAYLOADS_PER_S_MAX);
    assert!(net.drops(1, DropCause::Flood) > 1900);
    net.run(1_000_000);
    net.send(2, to_host, &[7; 50]);
    net.run(20_000);
    assert_eq!(net.said(1).len(), 1, "the session goes on");
}

#[test]
fn memory_of_tokens_ends_with_them() {
    let mut net = Net::perfect();
    net.add(1, 4);
    for number in 2..5 {
        net.add(number, 0);
        let token = net.token(1, u64::from(number), 5);
        net.connect(number, &token).unwrap();
        net.run(500_000);
    }
    let server = net.node(1).endpoint.server.as_ref().unwrap();
    assert_eq!(server.tokens.len(), 3);
    net.run(10_000_000);
    let server = net.node(1).endpoint.server.as_ref().unwrap();
    assert_eq!((server.tokens.len(), server.pending.len()), (0, 0));
    assert_eq!(server.peers.len(), 3, "sessions outlive their tokens");
}
