//! The mesh over real links: in memory, and over UDP on the loopback interface.
//!
//! Waits end when the mesh is there; the limit only stops a test that hangs.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use phalanx::netcode::driver::Driver;
use phalanx::netcode::link::memory::MemoryHub;
use phalanx::netcode::link::udp::{UdpConfig, UdpLink};
use phalanx::netcode::link::{Link, random_secret};
use phalanx::netcode::node::Node;
use phalanx::netcode::session::config::{HostConfig, JoinConfig, Start};
use phalanx::netcode::time::Time;
use phalanx_tests::cluster::{Bot, Seeded};
use phalanx_tests::toy;

const LIMIT: Duration = Duration::from_secs(20);
const MEMBERS: usize = 4;

/// Plays over these links, of which the first is the host's, until all members hear each other.
/// `connect` connects one to the host.
fn mesh_over<L: Link>(
    mut links: Vec<L>,
    mut connect: impl FnMut(&mut L) -> phalanx::netcode::id::Path,
) {
    let start = Instant::now();
    let now = move || Time::from_millis(5_000) + start.elapsed();
    let mut host = HostConfig {
        plays: true,
        start: Start::Players(2),
        secret: random_secret().expect("the system has random numbers"),
        ..HostConfig::new(toy::game(), 4)
    };
    host.migration.allows = true;
    let node = Node::host(host, now()).expect("usable settings");
    let mut drivers = vec![Driver::new(node, toy::game(), Bot::seeded(1, 0))];
    for (index, link) in links.iter_mut().enumerate().skip(1) {
        let config = JoinConfig {
            secret: random_secret().expect("the system has random numbers"),
            ..JoinConfig::new(toy::game(), &format!("player {index}"))
        };
        let path = connect(link);
        let node = Node::join(config, path, now()).expect("usable settings");
        drivers.push(Driver::new(node, toy::game(), Bot::seeded(1, index as u64)));
    }
    loop {
        for (driver, link) in drivers.iter_mut().zip(&mut links) {
            driver.pump(now(), link);
        }
        let is_full = drivers.iter().all(|driver| {
            let links = driver.node().mesh_links();
            links.filter(|link| link.is_confirmed).count() == MEMBERS - 1
        });
        if is_full {
            break;
        }
        let links: Vec<Vec<_>> = drivers
            .iter()
            .map(|d| d.node().mesh_links().collect())
            .collect();
        assert!(start.elapsed() < LIMIT, "no mesh: {links:#?}");
        std::thread::sleep(Duration::from_millis(2));
    }
    // Whoever leaves closes its paths.
    let mut gone = drivers.pop().expect("the last one");
    let mut link = links.pop().expect("its link");
    gone.node_mut().leave();
    gone.pump(now(), &mut link);
    drop((gone, link));
    while drivers
        .iter()
        .any(|driver| driver.node().mesh_links().count() != MEMBERS - 2)
    {
        for (driver, link) in drivers.iter_mut().zip(&mut links) {
            driver.pump(now(), link);
        }
        assert!(start.elapsed() < LIMIT, "it is not forgotten");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn members_reach_each_other_in_memory() {
    let hub = MemoryHub::new();
    let links: Vec<_> = (0..MEMBERS).map(|_| hub.link()).collect();
    let address = links[0].address();
    mesh_over(links, |link| link.connect(address));
}

#[test]
fn members_reach_each_other_over_udp() {
    let config = UdpConfig::new(7)
        .with_bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
        .insecure();
    let links: Vec<_> = (0..MEMBERS)
        .map(|_| UdpLink::bind(config).expect("a free port"))
        .collect();
    let address = links[0].local_addr();
    mesh_over(links, |link| link.connect(address).expect("a path"));
}

#[test]
fn members_reach_each_other_over_secure_udp() {
    let config = UdpConfig::new(7).with_bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let links: Vec<_> = (0..MEMBERS)
        .map(|_| UdpLink::bind(config).expect("a free port"))
        .collect();
    let (host, address) = (&links[0], links[0].local_addr());
    let life = Duration::from_secs(60);
    let mut tokens: Vec<_> = (1..MEMBERS as u64)
        .map(|id| host.mint_token(id, address, life).expect("a token"))
        .collect();
    mesh_over(links, |link| {
        let token = tokens.pop().expect("one for each");
        link.join(&token).expect("a path")
    });
}
