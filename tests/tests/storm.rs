//! Hostile bytes at nodes: noise, mutations of real datagrams, and peers that lie.
//!
//! A path belongs to whoever the link has verified, so what comes over the path of a member is
//! that member's word. It may ruin its own part; the match of the others goes on, with equal
//! states, and nothing panics or grows. `PHALANX_STORM=n` sends so many datagrams instead of a million.

use std::collections::VecDeque;

use phalanx::netcode::driver::{Driver, Player};
use phalanx::netcode::id::{MemberId, Path, SessionId, Term};
use phalanx::netcode::input::InputFrame;
use phalanx::netcode::link::conditioner::Conditions;
use phalanx::netcode::link::{Link, LinkEvent};
use phalanx::netcode::node::{Event, Node, SessionInfo};
use phalanx::netcode::prng::Prng;
use phalanx::netcode::session::config::{Gate, HostConfig, JoinConfig, Role};
use phalanx::netcode::session::control::{Control, Purpose};
use phalanx::netcode::session::handshake::{self, Bye, ByeReason, Hello, Welcome};
use phalanx::netcode::session::messages::Channel;
use phalanx::netcode::session::peer::Peer;
use phalanx::netcode::session::roster::MemberRecord;
use phalanx::netcode::tick::{Tick, TickRate};
use phalanx::netcode::time::Time;
use phalanx::netcode::wire::header::{HashSection, TagKey, kind};
use phalanx_tests::cluster::{Cluster, Index};
use phalanx_tests::toy::{self, Toy};

/// Datagrams of a default run, over all tests of this file.
const DATAGRAMS: u64 = 1_000_000;
/// Bytes by which the printed form of an attacked node may grow: a measure of what it holds.
const GROWTH_BYTES_MAX: usize = 6 << 20;

fn datagrams(share: u64) -> u64 {
    let all = std::env::var("PHALANX_STORM").ok();
    all.and_then(|text| text.parse().ok()).unwrap_or(DATAGRAMS) / share
}

fn index_below(prng: &mut Prng, bound: usize) -> usize {
    usize::try_from(prng.below(bound as u64)).expect("below a length")
}

fn noise(prng: &mut Prng) -> Vec<u8> {
    let length = match prng.below(8) {
        0 => prng.below(4),
        1 => prng.below(1500),
        _ => prng.below(64),
    };
    let mut bytes: Vec<u8> = (0..length)
        .map(|_| prng.next_u64().to_le_bytes()[0])
        .collect();
    if let Some(first) = bytes.first_mut()
        && prng.below(2) == 0
    {
        *first = 0xc0 + prng.next_u64().to_le_bytes()[0] % 12;
    }
    bytes
}

/// A real datagram, damaged; or an old one as it was.
fn mutated(prng: &mut Prng, real: &VecDeque<(Index, Index, Vec<u8>)>) -> Vec<u8> {
    if real.is_empty() {
        return noise(prng);
    }
    let mut bytes = real[index_below(prng, real.len())].2.clone();
    match prng.below(6) {
        0 => {}
        1 if !bytes.is_empty() => bytes.truncate(index_below(prng, bytes.len())),
        2 => bytes.extend(noise(prng)),
        3 => {
            let other = &real[index_below(prng, real.len())].2;
            bytes.truncate(index_below(prng, bytes.len() + 1));
            bytes.extend(&other[index_below(prng, other.len() + 1)..]);
        }
        _ => {
            for _ in 0..=prng.below(4) {
                let bits = bytes.len() * 8;
                if bits > 0 {
                    let bit = index_below(prng, bits);
                    bytes[bit / 8] ^= 1 << (bit % 8);
                }
            }
        }
    }
    bytes
}

/// A number that hurts where nobody looked.
fn wild(prng: &mut Prng) -> u32 {
    match prng.below(8) {
        0 => 0,
        1 => u32::MAX,
        2 => u32::MAX - below(prng, 50),
        3 => 1_000_000_000,
        4 => 1 << 31,
        5 => below(prng, 4),
        6 => below(prng, 2000),
        _ => prng.next_u32(),
    }
}

fn below(prng: &mut Prng, bound: u32) -> u32 {
    prng.next_u32() % bound
}

fn short(number: u32) -> u16 {
    let [low, high, ..] = number.to_le_bytes();
    u16::from_le_bytes([low, high])
}

fn byte(number: u32) -> u8 {
    number.to_le_bytes()[0]
}

fn lie(prng: &mut Prng) -> Control {
    let mut number = || wild(prng);
    let (a, b, c, d) = (number(), number(), number(), number());
    match prng.below(16) {
        0 => Control::Member(MemberRecord {
            id: u64::from(a),
            role: byte(b) % 5,
            slot: byte(c),
            name: "x".repeat(usize::from(byte(d)) % 120),
            connected: a % 2 == 0,
        }),
        1 => Control::Gone(u64::from(a)),
        2 => Control::Start(u64::from(a) << (b % 33)),
        3 => Control::LastTick(a),
        4 => Control::Ready,
        5 => Control::Activate(a),
        6 | 7 => Control::Transfer {
            id: short(a),
            purpose: if b % 2 == 0 {
                Purpose::Join
            } else {
                Purpose::Report
            },
            tick: c,
            bytes: d,
            digest: u64::from(a) << 20,
        },
        8 | 9 => Control::Hashes {
            after: a,
            upto: if b % 2 == 0 {
                b
            } else {
                a.saturating_add(b % 50)
            },
            hashes: vec![c; d as usize % 41],
        },
        10 => Control::Diverged {
            tick: a,
            heal: b % 2 == 0,
        },
        11 => Control::Reset,
        12 => Control::Replaced {
            first: a,
            ticks: u64::from(b) << 32 | u64::from(c),
        },
        13 => Control::Final {
            tick: a,
            state: u64::from(b),
            interest: u64::from(c),
        },
        14 => Control::Behind(a),
        _ => Control::Difference("y".repeat(a as usize % 220)),
    }
}

/// A peer that numbers, tags and acks its datagrams as it should, and lies in them.
struct Liar {
    peer: Peer,
    prng: Prng,
    tick: u32,
    /// What it says about its clock.
    ahead_us: u64,
}

impl Liar {
    fn new(welcome: &Welcome, nonce: u64, now: Time, seed: u64) -> Self {
        let key = TagKey::new(SessionId(welcome.session), Term(welcome.term), nonce);
        Self {
            peer: Peer::new(Path(0), MemberId(0), key, TickRate::DEFAULT, now),
            prng: Prng::with_stream(seed, 5),
            tick: welcome.from,
            ahead_us: [0, seed << 40, u64::MAX / 2]
                [usize::from(welcome.nonce.to_le_bytes()[0]) % 3],
        }
    }

    fn hear(&mut self, now: Time, bytes: &[u8]) {
        if let Ok(datagram) = self.peer.open(now, bytes) {
            self.tick = datagram.tick.map_or(self.tick, Tick::number);
            self.peer.accept(now, &datagram);
        }
    }

    fn datagram(&mut self, now: Time) -> Vec<u8> {
        let prng = &mut self.prng;
        let mut out = Vec::new();
        if prng.below(5) == 0 {
            out.push(if prng.below(2) == 0 {
                kind::BULK
            } else {
                kind::BULK_ACK
            });
            out.extend(noise(prng));
            return out;
        }
        if prng.below(3) == 0 {
            let _full = self.peer.outbox.push(lie(prng).to_bytes());
        }
        if prng.below(8) == 0 {
            let bytes = vec![7; 1 + index_below(prng, 900)];
            let _full = self.peer.messages.send(Channel::Reliable, &bytes);
        }
        if prng.below(2) == 0 {
            self.peer.hash_due = Some(HashSection {
                tick: Tick::new(match prng.below(3) {
                    0 => wild(prng),
                    _ => (self.tick / 32) * 32,
                }),
                hash: prng.next_u32(),
            });
        }
        if prng.below(4) == 0 {
            self.peer.want_clock();
        }
        let tick = match prng.below(4) {
            0 => wild(prng),
            1 => self.tick.saturating_add(below(prng, 600)),
            _ => self.tick.saturating_add(below(prng, 8)),
        };
        let zero = Time::from_micros(prng.next_u64() >> prng.below(64));
        let batch = noise(prng);
        let said = prng.below(6);
        self.peer.pack(
            now.plus_micros(self.ahead_us),
            zero,
            (said > 0).then_some(Tick::new(tick)),
            |_, room, out| {
                if said > 1 {
                    out.extend(&batch[..batch.len().min(room).min(40)]);
                }
            },
            &mut out,
        );
        out
    }
}

fn printed(cluster: &Cluster, index: Index) -> usize {
    format!("{:?}", cluster.node(index)).len()
}

/// The states of `honest` at the last tick that all of them settled are the same.
fn assert_equal(cluster: &Cluster, honest: &[Index], seed: u64) -> Tick {
    let tick = cluster.settled(honest);
    let footprints: Vec<_> = honest
        .iter()
        .map(|&index| {
            let toy = cluster.members[index].driver.simulation();
            toy.and_then(|toy| toy.footprint(tick))
        })
        .collect();
    assert!(
        footprints.windows(2).all(|pair| pair[0] == pair[1]),
        "seed {seed}: at {tick}: {footprints:?}"
    );
    tick
}

fn session(gate: Gate, slots: u8, seed: u64) -> Cluster {
    let host = HostConfig {
        gate,
        ..HostConfig::new(toy::game(), slots)
    };
    let mut cluster = Cluster::new(host, Conditions::from_rtt(30_000, 0), seed);
    cluster.tapped = 512;
    cluster
}

const WAIT: Gate = Gate::Wait { limit_us: 200_000 };

#[test]
fn noise_and_damaged_datagrams_leave_the_others_match_alone() {
    for (seed, gate) in [(1, Gate::Paced), (2, WAIT)] {
        let mut cluster = session(gate, 3, seed);
        let mut prng = Prng::with_stream(seed, 3);
        for number in 0..3 {
            cluster.join(JoinConfig::new(toy::game(), &format!("client {number}")));
        }
        let victim = 3;
        let mut start = None;
        let began = |c: &Cluster| c.node(0).tick() > Tick::new(5);
        assert!(cluster.run_while_not(5_000_000, began));
        let rounds = datagrams(6) / 20;
        for round in 0..rounds {
            for _ in 0..20 {
                let bytes = if prng.below(3) == 0 {
                    noise(&mut prng)
                } else {
                    mutated(&mut prng, &cluster.tap)
                };
                match prng.below(4) {
                    // Paths that the link has never verified, or somebody else's.
                    0 => {
                        let stranger = Path(100 + below(&mut prng, 8));
                        cluster.inject_over(stranger, 0, &bytes);
                    }
                    1 => {
                        let client = 1 + index_below(&mut prng, 3);
                        cluster.inject_over(Path(9), client, &bytes);
                    }
                    2 => cluster.inject(victim, 0, &bytes),
                    _ => cluster.inject(0, victim, &bytes),
                }
            }
            cluster.run_us(5_000 + prng.below(20_000));
            let now = cluster.now_of(victim);
            if round % 100 == 99 {
                // The victim tries to come back, through a handshake under fire.
                cluster.driver(victim).node_mut().rejoin(now, Path(0));
            }
            if round == 40 {
                start = Some(printed(&cluster, 0));
            }
        }
        let before = assert_equal(&cluster, &[0, 1, 2], seed);
        assert!(before > Tick::new(50), "seed {seed}: only {before} ticks");
        cluster.run_us(5_000_000);
        let after = assert_equal(&cluster, &[0, 1, 2], seed);
        assert!(after > before.plus(100), "seed {seed}: {before} to {after}");
        let grown = printed(&cluster, 0).saturating_sub(start.unwrap_or_default());
        assert!(grown < GROWTH_BYTES_MAX, "the host grew by {grown} B");
        let drops = cluster.node(0).statistics().drops.total();
        assert!(drops > rounds, "only {drops} drops: the storm did not hit");
    }
}

#[test]
fn a_member_that_lies_harms_only_itself() {
    let lies = datagrams(6);
    for (seed, gate) in [(11, Gate::Paced), (12, WAIT)] {
        let mut cluster = session(gate, 3, seed);
        for number in 0..2 {
            cluster.join(JoinConfig::new(toy::game(), &format!("client {number}")));
        }
        let path = Path(50);
        let mut hello = Hello::new(&toy::game(), "liar", Role::Player, 0);
        let mut liar: Option<Liar> = None;
        let mut prng = Prng::with_stream(seed, 8);
        let (mut told, mut welcomes, mut start) = (0, 0_u64, None);
        while told < lies {
            // Whoever is thrown out comes back, now and then also of its own will.
            if liar.is_none() || prng.below(400) == 0 {
                liar = None;
                hello.nonce = prng.next_u64();
                hello.spectator = prng.below(3) == 0;
                hello.confirmed = wild(&mut prng);
                let mut bytes = Vec::new();
                handshake::write(kind::HELLO, &hello, &mut bytes);
                cluster.inject_over(path, 0, &bytes);
            }
            cluster.run_us(2_000 + prng.below(16_000));
            let now = cluster.now();
            while let Some((_, bytes)) = cluster.astray.pop_front() {
                match (bytes.first(), &mut liar) {
                    (Some(&kind::WELCOME), None) => {
                        let welcome: Welcome = handshake::read(&bytes[1..]).expect("a welcome");
                        if welcome.nonce == hello.nonce {
                            welcomes += 1;
                            hello.resume = welcome.resume;
                            liar = Some(Liar::new(&welcome, hello.nonce, now, seed + welcomes));
                        }
                    }
                    (Some(&kind::BYE), _) => liar = None,
                    (_, Some(liar)) => liar.hear(now, &bytes),
                    (_, None) => {}
                }
            }
            for _ in 0..3 {
                if let Some(liar) = &mut liar {
                    let bytes = liar.datagram(now);
                    cluster.inject_over(path, 0, &bytes);
                    told += 1;
                }
            }
            if start.is_none() && told > 100 {
                start = Some(printed(&cluster, 0));
            }
            cluster.members[0].events.clear();
        }
        assert!(welcomes > 0);
        let before = assert_equal(&cluster, &[0, 1, 2], seed);
        cluster.run_us(8_000_000);
        let after = assert_equal(&cluster, &[0, 1, 2], seed);
        assert!(
            before > Tick::new(50) && after > before.plus(100),
            "seed {seed}: {before} to {after}, {welcomes} welcomes"
        );
        let grown = printed(&cluster, 0).saturating_sub(start.unwrap_or_default());
        assert!(grown < GROWTH_BYTES_MAX, "the host grew by {grown} B");
        for index in [1, 2] {
            let healed = |event: &Event| matches!(event, Event::Healed { .. });
            assert!(!cluster.members[index].events.iter().any(healed));
        }
    }
}

/// A player without intent.
struct Idle;

impl Player for Idle {
    type Simulation = Toy;

    fn begin(&mut self, session: &SessionInfo) -> Toy {
        Toy::new(session.seed, session.slots)
    }

    fn sample(&mut self, _tick: Tick, _simulation: &Toy, _input: &mut [u8]) {}

    fn stepped(&mut self, _simulation: &Toy, _frame: &InputFrame) {}
}

/// A link in two queues.
#[derive(Default)]
struct Queues {
    inbox: VecDeque<Vec<u8>>,
    current: Vec<u8>,
    outbox: Vec<Vec<u8>>,
}

impl Link for Queues {
    fn receive(&mut self) -> Option<LinkEvent<'_>> {
        self.current = self.inbox.pop_front()?;
        Some(LinkEvent::Datagram {
            path: Path(0),
            bytes: &self.current,
        })
    }

    fn send(&mut self, _path: Path, bytes: &[u8]) {
        self.outbox.push(bytes.to_vec());
    }

    fn close(&mut self, _path: Path) {}
}

#[test]
fn a_host_that_lies_cannot_break_a_client() {
    let lies = datagrams(6);
    let mut prng = Prng::new(77);
    let (mut told, mut round, mut welcomed) = (0, 0, 0_u64);
    while told < lies {
        round += 1;
        let mut now = Time::from_millis(10_000);
        let config = JoinConfig {
            prediction_ticks: below(&mut prng, 9),
            secret: u128::from(round + 1_u64),
            role: if prng.below(4) == 0 {
                Role::Spectator
            } else {
                Role::Player
            },
            ..JoinConfig::new(toy::game(), "honest")
        };
        let is_player = config.role == Role::Player;
        let node = Node::join(config, Path(0), now).expect("the settings can be used");
        let mut driver = Driver::new(node, toy::game(), Idle);
        let mut link = Queues::default();
        let mut liar: Option<Liar> = None;
        for _ in 0..400 {
            now = now.plus_micros(prng.below(30_000));
            driver.pump(now, &mut link);
            for bytes in core::mem::take(&mut link.outbox) {
                assert!(bytes.len() <= 1180);
                if bytes.first() == Some(&kind::HELLO) {
                    let hello: Hello = handshake::read(&bytes[1..]).expect("a hello");
                    let from = match prng.below(3) {
                        0 => wild(&mut prng),
                        _ => 0,
                    };
                    let slots = match prng.below(4) {
                        0 => byte(wild(&mut prng)),
                        _ => 4,
                    };
                    let welcome = Welcome {
                        nonce: hello.nonce,
                        protocol: hello.protocol_max,
                        session: 1 << 80 | 5,
                        term: 1,
                        member: u64::from(wild(&mut prng)) << 20,
                        slot: if is_player { 1 } else { u8::MAX },
                        slots,
                        seed: 1,
                        gate: byte(prng.next_u32()) % 2,
                        desync_interval: wild(&mut prng),
                        images: below(&mut prng, 200),
                        heal: prng.below(2) == 0,
                        resume: 9,
                        from,
                        resumed: prng.below(4) == 0,
                        snapshot_ticks: 0,
                    };
                    let mut answer = Vec::new();
                    handshake::write(kind::WELCOME, &welcome, &mut answer);
                    link.inbox.push_back(answer);
                    liar = Some(Liar::new(&welcome, hello.nonce, now, prng.next_u64()));
                } else if let Some(liar) = &mut liar {
                    liar.hear(now, &bytes);
                }
            }
            if let Some(liar) = &mut liar {
                for _ in 0..=prng.below(3) {
                    link.inbox.push_back(liar.datagram(now));
                    told += 1;
                }
            }
            if prng.below(200) == 0 {
                let bye = Bye {
                    session_low: 5,
                    reason: ByeReason::TooSlow,
                };
                let mut bytes = Vec::new();
                handshake::write(kind::BYE, &bye, &mut bytes);
                link.inbox.push_back(bytes);
            }
            while let Some(event) = driver.poll_event() {
                welcomed += u64::from(matches!(event, Event::Welcomed { .. }));
                if matches!(event, Event::Disconnected { .. }) {
                    driver.node_mut().rejoin(now, Path(0));
                }
            }
        }
        let bytes = format!("{:?}", driver.node()).len();
        assert!(bytes < 16 << 20, "round {round}: the client holds {bytes}");
    }
    assert!(
        welcomed > round / 2,
        "{welcomed} welcomes in {round} rounds"
    );
}
