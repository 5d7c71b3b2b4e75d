//! Introductions by members over encrypted UDP on the loopback interface: a host vanishes before two
//! members have met, one of them hosts next, and a neighbour passes their invitations on.
//!
//! Waits end when what they wait for has happened; the limits only stop a test that hangs.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use phalanx::netcode::driver::Driver;
use phalanx::netcode::id::{MemberId, Path};
use phalanx::netcode::link::udp::{UdpConfig, UdpLink};
use phalanx::netcode::link::{Address, Link, LinkEvent, Opening, random_secret};
use phalanx::netcode::migration::HostPolicy;
use phalanx::netcode::node::{Event, Node};
use phalanx::netcode::session::config::{HostConfig, JoinConfig, MigrationConfig, Start};
use phalanx::netcode::time::Time;
use phalanx_tests::cluster::{Bot, Seeded};
use phalanx_tests::toy;

const LIMIT: Duration = Duration::from_secs(30);
const MEMBERS: usize = 4;

/// A link that does not reach one member, and does not let itself be reached by it.
struct Shy {
    link: UdpLink,
    shuns: Option<MemberId>,
}

impl Link for Shy {
    fn receive(&mut self) -> Option<LinkEvent<'_>> {
        self.link.receive()
    }

    fn send(&mut self, path: Path, bytes: &[u8]) {
        self.link.send(path, bytes);
    }

    fn flush(&mut self) {
        self.link.flush();
    }

    fn close(&mut self, path: Path) {
        Link::close(&mut self.link, path);
    }

    fn address(&self, path: Path) -> Option<Address> {
        Link::address(&self.link, path)
    }

    fn open(&mut self, opening: &Opening) -> Option<Path> {
        if self.shuns == Some(opening.member) {
            return None;
        }
        self.link.open(opening)
    }

    fn reopen(&mut self, old: Path) -> Option<Path> {
        Link::reopen(&mut self.link, old)
    }

    fn public_key(&self) -> Option<[u8; 32]> {
        Link::public_key(&self.link)
    }

    fn invite(&mut self, member: MemberId, public_key: &[u8]) -> Option<Vec<u8>> {
        if self.shuns == Some(member) {
            return None;
        }
        Link::invite(&mut self.link, member, public_key)
    }
}

/// The nodes of a session with their links; those before `first` are gone.
struct Session {
    drivers: Vec<Driver<Bot>>,
    links: Vec<Shy>,
    first: usize,
    start: Instant,
}

impl Session {
    fn now(&self) -> Time {
        Time::from_millis(5_000) + self.start.elapsed()
    }

    fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !done(self) {
            assert!(start.elapsed() < LIMIT, "waited in vain for: {what}");
            let now = self.now();
            let both = self.drivers.iter_mut().zip(&mut self.links);
            for (driver, link) in both.skip(self.first) {
                driver.pump(now, link);
                while let Some(event) = driver.poll_event() {
                    let is_out = matches!(event, Event::Disconnected { .. });
                    assert!(!is_out, "{event:?}");
                }
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn node(&self, index: usize) -> &Node {
        self.drivers[index].node()
    }

    fn have_met(&self, one: usize, other: usize) -> bool {
        let other = self.node(other).session().member;
        let mut links = self.node(one).mesh_links();
        links.any(|link| link.member == other && link.is_confirmed)
    }
}

/// A policy under which a busy machine is no dead one.
fn policy(can_host: bool) -> HostPolicy {
    HostPolicy {
        can_host,
        suspect_us_min: 600_000,
        ..HostPolicy::default()
    }
}

#[test]
fn a_stranger_is_introduced_over_secure_udp() {
    let config = UdpConfig::new(7).with_bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let links = (0..MEMBERS).map(|_| Shy {
        link: UdpLink::bind(config).expect("a free port"),
        shuns: None,
    });
    let mut session = Session {
        drivers: Vec::new(),
        links: links.collect(),
        first: 0,
        start: Instant::now(),
    };
    let host = HostConfig {
        plays: true,
        start: Start::Players(4),
        migration: MigrationConfig::ELECTED,
        secret: random_secret().expect("the system has random numbers"),
        hosting: policy(true),
        ..HostConfig::new(toy::game(), 4)
    };
    let node = Node::host(host, session.now()).expect("usable settings");
    let driver = Driver::new(node, toy::game(), Bot::seeded(1, 0));
    session.drivers.push(driver);
    let address = session.links[0].link.local_addr();
    // The second one hosts next, and does not meet the last one before.
    let (heir, stranger) = (1, MEMBERS - 1);
    session.links[heir].shuns = Some(MemberId(3));
    session.links[stranger].shuns = Some(MemberId(1));
    for index in 1..MEMBERS {
        let life = Duration::from_secs(60);
        let host = &mut session.links[0].link;
        let token = host.mint_token(index as u64, address, life);
        let link = &mut session.links[index].link;
        let path = link.join(&token.expect("a token")).expect("a path");
        let config = JoinConfig {
            secret: random_secret().expect("the system has random numbers"),
            hosting: policy(index == heir),
            ..JoinConfig::new(toy::game(), &format!("player {index}"))
        };
        let node = Node::join(config, path, session.now()).expect("usable settings");
        let bot = Bot::seeded(1, index as u64);
        session.drivers.push(Driver::new(node, toy::game(), bot));
        let member = MemberId(index as u64);
        session.until("its welcome", |it| {
            it.node(index).session().member == member
        });
    }
    session.until("a session without one path", |it| {
        let is_heir_ready = it.node(0).is_replaceable();
        let settled = it.node(stranger).settled_tick().number();
        is_heir_ready && settled > 120 && it.have_met(2, stranger) && it.have_met(heir, 2)
    });
    assert!(!session.have_met(heir, stranger));

    // The host's process stands still for good.
    session.first = 1;
    for link in &mut session.links {
        link.shuns = None;
    }
    session.until("all follow the heir", |it| {
        let follow = (1..MEMBERS).all(|index| it.node(index).host_member() == MemberId(1));
        follow && it.node(heir).is_host()
    });
    assert!(session.have_met(heir, stranger));
    assert_eq!(session.node(stranger).session().member, MemberId(3));
    let goal = session.node(heir).settled_tick().plus(60);
    session.until("ticks go on", |it| {
        (1..MEMBERS).all(|index| it.node(index).settled_tick() > goal)
    });
    let refused = |index: usize| session.links[index].link.statistics().invitations_refused;
    assert_eq!((1..MEMBERS).map(refused).sum::<u64>(), 0);
}
