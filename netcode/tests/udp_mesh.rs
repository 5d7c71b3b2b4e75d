//! Members of a session reach each other over their only sockets: each link is host and client at
//! once, invited by sealed tokens that somebody else could carry.
//!
//! Waits end when what they wait for has happened; the limits only stop a test that hangs.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test with real sockets and a real clock; helpers of tests may unwrap"
)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use phalanx_netcode::id::{MemberId, Path};
use phalanx_netcode::link::udp::{
    ConnectError, DropCause, Security, TokenError, UdpConfig, UdpLink,
};
use phalanx_netcode::link::{Address, CloseReason, Link, LinkEvent, Opening};
use phalanx_netcode::prng::Prng;

const LIMIT: Duration = Duration::from_secs(20);
const LIFE: Duration = Duration::from_secs(60);

fn config() -> UdpConfig {
    let mut config = UdpConfig::new(7).with_bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    config.timeout = Duration::from_secs(1);
    config
}

/// A member of a session, as far as its link is concerned.
struct Member {
    id: MemberId,
    link: UdpLink,
    /// Paths under way, and to whom.
    opening: BTreeMap<Path, MemberId>,
    /// Open paths.
    paths: BTreeMap<MemberId, Path>,
    /// What came, as (from, payload).
    heard: Vec<(MemberId, Vec<u8>)>,
    closed: Vec<(Path, CloseReason)>,
}

impl Member {
    fn new(id: u64) -> Self {
        Self {
            id: MemberId(id),
            link: UdpLink::bind(config()).unwrap(),
            opening: BTreeMap::new(),
            paths: BTreeMap::new(),
            heard: Vec::new(),
            closed: Vec::new(),
        }
    }

    fn invitation_for(&mut self, other: &Self) -> Vec<u8> {
        let (key, address) = (other.link.public_key().unwrap(), self.link.local_addr());
        self.link.mint_for(other.id, &key, address, LIFE).unwrap()
    }

    fn open(&mut self, to: MemberId, invitation: &[u8]) -> Path {
        let path = self.link.open_invitation(invitation, None).unwrap();
        self.opening.insert(path, to);
        path
    }

    fn say(&mut self, to: MemberId, payload: &[u8]) {
        self.link.send(self.paths[&to], payload);
        self.link.flush();
    }

    /// Takes what has come.
    fn pump(&mut self) {
        while let Some(event) = self.link.receive() {
            match event {
                LinkEvent::Opened { path, client_id } => {
                    // A path of our own leads to whom we opened it; of any other, the id says it.
                    let own = self.opening.remove(&path);
                    let member = own.or_else(|| self.link.invited_member(client_id)).unwrap();
                    assert_eq!(self.paths.insert(member, path), None);
                }
                LinkEvent::Datagram { path, bytes } => {
                    let who = self.paths.iter().find(|&(_, known)| *known == path);
                    self.heard.push((*who.unwrap().0, bytes.to_vec()));
                }
                LinkEvent::Closed { path, reason } => {
                    self.opening.remove(&path);
                    self.paths.retain(|_member, known| *known != path);
                    self.closed.push((path, reason));
                }
            }
        }
    }
}

/// Pumps all members until `done`.
fn until<const N: usize>(
    members: &mut [Member; N],
    what: &str,
    mut done: impl FnMut(&mut [Member; N]) -> bool,
) {
    let start = Instant::now();
    while !done(members) {
        assert!(start.elapsed() < LIMIT, "waited in vain for: {what}");
        for member in members.iter_mut() {
            member.pump();
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Of each two members the one with the lower id opens the path.
fn mesh<const N: usize>(members: &mut [Member; N]) {
    for low in 0..N {
        for high in low + 1..N {
            let (left, right) = members.split_at_mut(high);
            let invitation = right[0].invitation_for(&left[low]);
            left[low].open(right[0].id, &invitation);
        }
    }
    until(members, "a path between any two", |members| {
        members.iter().all(|member| member.paths.len() == N - 1)
    });
}

/// Everyone says something to everyone whom it has a path to; it arrives, and says who it is from.
fn talk<const N: usize>(members: &mut [Member; N], round: u8) {
    let mut expected = 0;
    for member in members.iter_mut() {
        let others: Vec<MemberId> = member.paths.keys().copied().collect();
        for to in others {
            let [from, to_byte] = [member.id.0, to.0].map(|id| u8::try_from(id).unwrap());
            member.say(to, &[0x40, round, from, to_byte]);
            expected += 1;
        }
    }
    until(members, "all words", |members| {
        members
            .iter()
            .map(|member| member.heard.len())
            .sum::<usize>()
            >= expected
    });
    for member in members {
        for (from, payload) in member.heard.drain(..) {
            let [from, to] = [from.0, member.id.0].map(|id| u8::try_from(id).unwrap());
            assert_eq!(payload, [0x40, round, from, to]);
        }
    }
}

#[test]
fn every_member_reaches_every_other_over_its_only_socket() {
    let mut members = [0, 1, 2].map(Member::new);
    mesh(&mut members);
    for round in 0..20 {
        talk(&mut members, round);
    }
    for member in &members {
        let statistics = member.link.statistics();
        assert_eq!(statistics.drops.total(), 0, "{statistics:?}");
        assert_eq!(statistics.invitations_refused, 0);
    }
    // A second path between two addresses, in the other direction, disturbs neither.
    let [zero, one, _two] = &mut members;
    let invitation = zero.invitation_for(one);
    let back = one.link.open_invitation(&invitation, None).unwrap();
    let start = Instant::now();
    let mut accepted = None;
    let mut own = false;
    while accepted.is_none() || !own {
        assert!(start.elapsed() < LIMIT);
        while let Some(event) = one.link.receive() {
            own |= matches!(event, LinkEvent::Opened { path, .. } if path == back);
        }
        while let Some(event) = zero.link.receive() {
            if let LinkEvent::Opened { path, client_id } = event {
                assert_eq!(zero.link.invited_member(client_id), Some(MemberId(1)));
                accepted = Some(path);
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    zero.paths.insert(MemberId(1), accepted.unwrap());
    one.paths.insert(MemberId(0), back);
    talk(&mut members, 21);
}

#[test]
fn an_invitation_opens_one_path_for_one_member() {
    let mut members = [0, 1, 2].map(Member::new);
    let [zero, one, two] = &mut members;
    let invitation = one.invitation_for(zero);
    // Whoever carries it cannot use it.
    let refused = two.link.open_invitation(&invitation, None);
    assert_eq!(refused, Err(ConnectError::Invitation));
    assert_eq!(two.link.statistics().invitations_refused, 1);
    zero.open(one.id, &invitation);
    until(&mut members, "the path", |members| {
        members[0].paths.len() == 1 && members[1].paths.len() == 1
    });
    let [zero, one, two] = &mut members;
    assert_eq!(zero.link.statistics().invitations_refused, 0);
    // Used twice, there is no second path: not beside the first one, not after it.
    let again = zero.link.open_invitation(&invitation, None);
    assert_eq!(again, Err(ConnectError::TokenUsed));
    zero.link.close(zero.paths[&one.id]);
    let again = zero.link.open_invitation(&invitation, None);
    assert_eq!(again, Err(ConnectError::TokenUsed));
    assert_eq!(zero.link.statistics().invitations_refused, 2);

    // At the address of somebody else it is worth nothing: he did not make it.
    let invitation = one.invitation_for(zero);
    let elsewhere = Some(two.link.local_addr());
    let path = zero.link.open_invitation(&invitation, elsewhere).unwrap();
    until(&mut members, "no answer", |members| {
        members[0].closed.contains(&(path, CloseReason::NoAnswer))
    });
    let drops = members[2].link.statistics().drops;
    assert!(drops.of(DropCause::TokenRefused) > 0, "{drops:?}");
    assert!(members[2].paths.is_empty() && members[2].closed.is_empty());
}

/// What a node asks of its link, secure and plain: the address that a third sees, an invitation if
/// there is a key for it, and the path.
#[test]
fn links_open_paths_to_members_that_a_host_introduces() {
    for config in [config(), config().insecure()] {
        let is_secure = config.security == Security::Secure;
        let [mut host, mut low, mut high] = [(); 3].map(|()| UdpLink::bind(config).unwrap());
        let at_host = [(1, &mut low), (2, &mut high)].map(|(client_id, link)| {
            if is_secure {
                let address = host.local_addr();
                let token = host.mint_token(client_id, address, LIFE).unwrap();
                link.join(&token).unwrap();
            } else {
                link.connect(host.local_addr()).unwrap();
            }
            let (path, _id) = opened(&mut host);
            opened(link);
            path
        });
        let mut opening = Opening {
            member: MemberId(2),
            address: Link::address(&host, at_host[1]).unwrap(),
            invitation: Vec::new(),
        };
        assert_eq!(Link::public_key(&low).is_some(), is_secure);
        if let Some(key) = Link::public_key(&low) {
            assert_eq!(low.open(&opening), None, "not without an invitation");
            opening.invitation = high.invite(MemberId(1), &key).unwrap();
        } else {
            assert_eq!(high.invite(MemberId(1), &[1; 32]), None);
        }
        let path = low.open(&opening).unwrap();
        assert_eq!(opened(&mut low).0, path);
        let (accepted, id) = opened(&mut high);
        assert_eq!(high.invited_member(id), is_secure.then_some(MemberId(1)));
        low.send(path, &[0x77]);
        low.flush();
        let news = wait(&mut high);
        assert_eq!(news, (accepted, Some(vec![0x77])));
        // With another invitation it is the path that there is already.
        if let Some(key) = Link::public_key(&low) {
            opening.invitation = high.invite(MemberId(1), &key).unwrap();
        }
        assert_eq!(low.open(&opening), Some(path));
        opening.address = Address::new(&[9, 9]).unwrap();
        assert_eq!(low.open(&opening), None, "no address of a socket");
    }
}

fn opened(link: &mut UdpLink) -> (Path, u64) {
    let start = Instant::now();
    while start.elapsed() < LIMIT {
        match link.receive() {
            Some(LinkEvent::Opened { path, client_id }) => return (path, client_id),
            Some(other) => panic!("expected an opened path, not {other:?}"),
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    panic!("no path opened");
}

/// The next datagram.
fn wait(link: &mut UdpLink) -> (Path, Option<Vec<u8>>) {
    let start = Instant::now();
    while start.elapsed() < LIMIT {
        match link.receive() {
            Some(LinkEvent::Datagram { path, bytes }) => return (path, Some(bytes.to_vec())),
            Some(other) => panic!("expected a datagram, not {other:?}"),
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    panic!("no datagram came");
}

#[test]
fn an_expired_invitation_is_refused_by_who_made_it() {
    let mut members = [0, 1].map(Member::new);
    let [zero, one] = &mut members;
    let (key, address) = (zero.link.public_key().unwrap(), one.link.local_addr());
    let life = Duration::from_secs(1);
    let invitation = one.link.mint_for(zero.id, &key, address, life).unwrap();
    std::thread::sleep(Duration::from_millis(2100));
    let path = zero.open(one.id, &invitation);
    until(&mut members, "the refusal", |members| {
        members[0]
            .closed
            .contains(&(path, CloseReason::TokenExpired))
    });
    let drops = members[1].link.statistics().drops;
    assert!(drops.of(DropCause::TokenExpired) > 0, "{drops:?}");
}

#[test]
fn invitations_need_a_key_a_server_side_and_encryption() {
    let mut link = UdpLink::bind(config()).unwrap();
    let (key, address) = (link.public_key().unwrap(), link.local_addr());
    let member = MemberId(3);
    for wrong in [&key[..31], &[0; 32], &[]] {
        let error = link.mint_for(member, wrong, address, LIFE).unwrap_err();
        assert!(matches!(error, TokenError::PublicKey));
    }
    for reserved in [0x6d62 << 48, 0x6d64 << 48 | 7] {
        let error = link.mint_token(reserved, address, LIFE).unwrap_err();
        assert!(matches!(error, TokenError::ReservedId));
    }
    let mut client = UdpLink::bind(config().with_clients_max(0)).unwrap();
    let error = client.mint_for(member, &key, address, LIFE).unwrap_err();
    assert!(matches!(error, TokenError::NoClients));
    let mut plain = UdpLink::bind(config().insecure()).unwrap();
    assert_eq!(plain.public_key(), None);
    let error = plain.mint_for(member, &key, address, LIFE).unwrap_err();
    assert!(matches!(error, TokenError::Insecure));
    let error = plain.open_invitation(&[1; 1200], None).unwrap_err();
    assert_eq!(error, ConnectError::NeedsAddress);
}

/// Either end goes back to the other one, whichever had opened the path; on links of both kinds.
#[test]
fn paths_that_have_ended_lead_back_from_both_ends() {
    for config in [config(), config().insecure()] {
        let is_secure = config.security == Security::Secure;
        let [mut opens, mut accepts] = [(); 2].map(|()| UdpLink::bind(config).unwrap());
        let first = if is_secure {
            let address = accepts.local_addr();
            let token = accepts.mint_token(1, address, LIFE).unwrap();
            opens.join(&token).unwrap()
        } else {
            opens.connect(accepts.local_addr()).unwrap()
        };
        let (accepted, _id) = opened(&mut accepts);
        assert_eq!(opened(&mut opens).0, first);
        assert_eq!(opens.reopen(first), None, "it has not ended");
        assert_eq!(opens.reopen(Path(99)), None, "there never was one");
        let mut paths = [first, accepted];
        for round in 0..4_u8 {
            // Each end has said that it has the three tokens of the other one.
            let start = Instant::now();
            let heard = |link: &UdpLink| link.statistics().datagrams_received;
            let before = heard(&opens).min(heard(&accepts));
            while is_secure && heard(&opens).min(heard(&accepts)) < before + 10 {
                assert!(start.elapsed() < LIMIT);
                assert_eq!(opens.receive(), None);
                assert_eq!(accepts.receive(), None);
                std::thread::sleep(Duration::from_millis(1));
            }
            let (mut back, mut stays) = (&mut opens, &mut accepts);
            let [mut old, mut gone] = paths;
            if round % 2 == 0 {
                (back, stays) = (stays, back);
                (old, gone) = (gone, old);
            }
            stays.close(gone);
            let start = Instant::now();
            let reason = loop {
                assert!(start.elapsed() < LIMIT);
                match back.receive() {
                    Some(LinkEvent::Closed { path, reason }) if path == old => break reason,
                    _ => std::thread::sleep(Duration::from_millis(1)),
                }
            };
            assert_eq!(reason, CloseReason::Remote);
            let new = back.reopen(old).unwrap();
            assert_eq!(opened(back).0, new);
            let (accepted, _id) = opened(stays);
            back.send(new, &[0x66, round]);
            back.flush();
            assert_eq!(wait(stays), (accepted, Some(vec![0x66, round])));
            paths = if round % 2 == 0 {
                [accepted, new]
            } else {
                [new, accepted]
            };
        }
    }
}

#[test]
fn hostile_bytes_at_a_dormant_server_side_are_counted_and_change_nothing() {
    let seed = 11;
    let mut prng = Prng::new(seed);
    let mut members = [0, 1].map(Member::new);
    let stranger = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let target = members[1].link.local_addr();
    // A real request, to be damaged: a client that asks the stranger.
    let [zero, one] = &mut members;
    let invitation = one.invitation_for(zero);
    let to_stranger = Some(stranger.local_addr().unwrap());
    let astray = zero.link.open_invitation(&invitation, to_stranger).unwrap();
    let mut request = [0; 2048];
    stranger.set_read_timeout(Some(LIMIT)).unwrap();
    let len = stranger.recv(&mut request).unwrap();
    let request = &request[..len];
    zero.link.close(astray);

    let mut sent = 0;
    while sent < 3000 {
        let mut bytes = request.to_vec();
        if prng.below(4) == 0 {
            let len = usize::try_from(prng.below(1500)).unwrap();
            bytes = (0..len).map(|_| prng.next_u32().to_le_bytes()[0]).collect();
        } else {
            for _ in 0..=prng.below(3) {
                let position = usize::try_from(prng.below(bytes.len() as u64)).unwrap();
                bytes[position] ^= 1 << prng.below(8);
            }
            if bytes == request {
                continue;
            }
        }
        stranger.send_to(&bytes, target).unwrap();
        sent += 1;
        if sent % 32 == 0 {
            members[1].pump();
        }
    }
    until(&mut members, "all refused", |members| {
        members[1].link.statistics().datagrams_received >= sent
    });
    let statistics = members[1].link.statistics();
    assert_eq!(
        statistics.drops.total(),
        sent,
        "seed {seed}: {statistics:?}"
    );
    assert!(members[1].paths.is_empty() && members[1].closed.is_empty());
    // It is as good as new.
    mesh(&mut members);
    talk(&mut members, 1);
}

/// A path comes to lie in another process, which vanishes without a word.
#[test]
fn members_go_on_when_a_process_vanishes() {
    let mut members = [0, 1].map(Member::new);
    let mut third = Process::start();
    for member in &mut members {
        let invitation = {
            let (key, address) = (third.public_key.as_slice(), member.link.local_addr());
            member
                .link
                .mint_for(MemberId(2), key, address, LIFE)
                .unwrap()
        };
        third.tell(&invitation);
    }
    until(&mut members, "paths from the third", |members| {
        members.iter().all(|member| member.paths.len() == 1)
    });
    mesh_of_two(&mut members);
    // It answers each of them; both are heard.
    for round in 0..10 {
        for member in &mut members {
            member.say(MemberId(2), &[0x40, round]);
        }
        until(&mut members, "echoes", |members| {
            members.iter().all(|member| member.heard.len() == 1)
        });
        for member in &mut members {
            assert_eq!(member.heard.pop(), Some((MemberId(2), vec![0x41, round])));
        }
    }

    third.child.kill().unwrap();
    third.child.wait().unwrap();
    let lost: Vec<Path> = members
        .iter()
        .map(|member| member.paths[&MemberId(2)])
        .collect();
    // What is sent there now goes nowhere, and what the others say arrives, the whole time.
    let start = Instant::now();
    let mut round = 0;
    while members.iter().any(|member| member.closed.is_empty()) {
        assert!(start.elapsed() < LIMIT);
        let (zero, one) = (MemberId(0), MemberId(1));
        for member in &mut members {
            if member.paths.contains_key(&MemberId(2)) {
                member.say(MemberId(2), &[0x40, 99]);
            }
        }
        members[0].say(one, &[0x50, round]);
        members[1].say(zero, &[0x50, round]);
        until(&mut members, "each other", |members| {
            members.iter().all(|member| !member.heard.is_empty())
        });
        assert_eq!(members[0].heard.pop(), Some((one, vec![0x50, round])));
        assert_eq!(members[1].heard.pop(), Some((zero, vec![0x50, round])));
        round = round.wrapping_add(1);
    }
    for (member, lost) in members.iter().zip(lost) {
        assert_eq!(member.closed, [(lost, CloseReason::TimedOut)]);
        assert_eq!(member.paths.len(), 1);
    }
}

fn mesh_of_two(members: &mut [Member; 2]) {
    let [zero, one] = members;
    let invitation = one.invitation_for(zero);
    zero.open(one.id, &invitation);
    until(members, "the path between the two", |members| {
        members.iter().all(|member| member.paths.len() == 2)
    });
}

/// Says to a child process that it is one.
const CHILD: &str = "PHALANX_UDP_MESH_CHILD";

struct Process {
    child: Child,
    public_key: Vec<u8>,
}

impl Process {
    fn start() -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_third_process", "--nocapture", "--quiet"])
            .env(CHILD, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let public_key = lines
            .find_map(|line| Some(from_hex(line.unwrap().split_once("key ")?.1)))
            .unwrap();
        Self { child, public_key }
    }

    fn tell(&mut self, invitation: &[u8]) {
        let text = invitation.iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").unwrap();
            text
        });
        let stdin = self.child.stdin.as_mut().unwrap();
        writeln!(stdin, "{text}").unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may be dead already.
        let _killed = self.child.kill();
        let _status = self.child.wait();
    }
}

fn from_hex(text: &str) -> Vec<u8> {
    let pairs = text.trim().as_bytes().chunks(2);
    let digits = pairs.map(|pair| std::str::from_utf8(pair).unwrap());
    digits
        .map(|pair| u8::from_str_radix(pair, 16).unwrap())
        .collect()
}

/// No test, but the process of [`members_go_on_when_a_process_vanishes`]: opens two paths with the
/// invitations that it is told, and answers what comes until it is killed.
#[test]
fn the_third_process() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let mut link = UdpLink::bind(config()).unwrap();
    let key = link.public_key().unwrap();
    let text = key.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    });
    println!("key {text}");
    for line in std::io::stdin().lines().take(2) {
        link.open_invitation(&from_hex(&line.unwrap()), None)
            .unwrap();
    }
    let start = Instant::now();
    // A parent that died does not kill us.
    while start.elapsed() < 2 * LIMIT {
        let mut answers = Vec::new();
        while let Some(event) = link.receive() {
            if let LinkEvent::Datagram { path, bytes } = event {
                answers.push((path, [0x41, bytes[1]]));
            }
        }
        for (path, answer) in answers {
            link.send(path, &answer);
        }
        link.flush();
        std::thread::sleep(Duration::from_millis(1));
    }
}
