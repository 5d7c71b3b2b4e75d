//! Entities that a client decides, in virtual time: what it says counts, as long as it decides.

use phalanx::netcode::id::{MemberId, NetId, Path, SessionId, Slot, Term};
use phalanx::netcode::link::conditioner::Conditions;
use phalanx::netcode::node::Event;
use phalanx::netcode::session::config::{HostConfig, JoinConfig, Role, Start};
use phalanx::netcode::session::control::Control;
use phalanx::netcode::session::handshake::{self, Hello, Welcome};
use phalanx::netcode::session::peer::Peer;
use phalanx::netcode::state::{Snapshot, WireLayout};
use phalanx::netcode::statesync::Claims;
use phalanx::netcode::tick::{Tick, TickRate};
use phalanx::netcode::wire::header::{TagKey, kind};
use phalanx_tests::yard::{self, Cluster, Plan};

/// Ticks for which the host, slot 0 and slot 1 decide the first body in turn.
const TERM: u32 = 240;

/// Ticks after a transfer in which its news travel: half a round trip, and what loss adds.
const NEWS: u32 = 60;

fn cluster(loss_per_million: u32, seed: u64) -> Cluster {
    let path = Conditions::from_rtt(100_000, loss_per_million);
    let mut cluster = Cluster::new(yard::host(2, 2), path, seed);
    for name in ["one", "two"] {
        cluster.join(yard::player(name));
    }
    for member in &mut cluster.members {
        member.driver.player_mut().plan = Plan {
            bodies: 6,
            is_lively: false,
            gust_ticks: 0,
            term_ticks: TERM,
            spawns: true,
        };
    }
    cluster
}

#[test]
fn authority_goes_to_clients_and_back_and_nothing_jumps() {
    let mut cluster = cluster(50_000, 11);
    let upto = Tick::new(TERM * 7);
    assert!(cluster.run_while_not(120_000_000, |c| c.settled(&[1, 2]) >= upto));
    let host = cluster.driver(0).player().first.clone();
    for index in [1, 2] {
        let slot = cluster.node(index).session().slot.expect("it plays").0;
        let shown = cluster.driver(index).player().first.clone();
        let mut own = 0;
        let terms = (0..7).filter(|term| term % 3 == u32::from(slot) + 1);
        for first in terms.map(|term| term * TERM + NEWS) {
            for number in first..first + TERM - NEWS {
                let (now, next) = (Tick::new(number), Tick::new(number + 1));
                let (now, next) = (&shown[&now], &shown[&next]);
                if now.decider != Some(slot) || next.decider != Some(slot) {
                    continue;
                }
                own += 1;
                assert!(
                    next.at[0] == now.at[0] + 1 || next.at[0] < now.at[0] - 1000,
                    "node {index} after tick {number}: from {now:?} to {next:?}"
                );
            }
            // The host follows: by what was claimed last before its tick ran.
            let last = Tick::new(first + TERM - NEWS - 1);
            let (held, decided) = (&host[&last], &shown[&last]);
            let apart = (decided.at[0] - held.at[0]).abs();
            assert!(
                !(30..=1000).contains(&apart),
                "the host has {held:?} where node {index} says {decided:?}"
            );
        }
        assert!(own > 150, "node {index} decided {own} ticks only");
    }
    let statistics = cluster.node(0).state_sync().expect("state-sync mode");
    assert!(statistics.claims > 300, "{statistics:?}");
    assert_eq!(statistics.claims_foreign, 0, "{statistics:?}");
    let reported = |event: &Event| {
        matches!(
            event,
            Event::ClaimRefused {
                is_foreign: true,
                ..
            }
        )
    };
    assert!(!cluster.members[0].events.iter().any(reported));
    // The host decides again: all hold what it has.
    let soon = Tick::new(TERM * 9 + NEWS);
    assert!(cluster.run_while_not(120_000_000, |c| c.settled(&[1, 2]) >= soon));
    let last = cluster.node(0).tick().plus(50);
    cluster.driver(0).node_mut().end_at(last);
    cluster.run_us(4_000_000);
    let real = cluster.driver(0).simulation().expect("a state").clone();
    assert_eq!(real.bodies()[&100].decider, None);
    for index in [1, 2] {
        let statistics = cluster.node(index).state_sync().expect("state-sync mode");
        assert_eq!(statistics.converged, Some(true), "node {index}");
        let shown = cluster.driver(index).simulation().expect("a state");
        assert_eq!(shown.bodies(), real.bodies(), "node {index}");
    }
}

/// A member that plays by the protocol, but for what it claims.
struct Liar {
    path: Path,
    peer: Option<Peer>,
    slot: Option<Slot>,
    claims: Claims,
    /// What the host told it of its claims.
    denied: Vec<(NetId, bool)>,
}

impl Liar {
    const NONCE: u64 = 77;

    fn hello() -> Vec<u8> {
        let hello = Hello::new(&yard::game(), "liar", Role::Player, Self::NONCE);
        let mut bytes = Vec::new();
        handshake::write(kind::HELLO, &hello, &mut bytes);
        bytes
    }

    fn hear(&mut self, cluster: &Cluster, bytes: &[u8]) {
        let now = cluster.now_of(0);
        if bytes[0] == kind::WELCOME {
            let welcome: Welcome = handshake::read(&bytes[1..]).expect("a welcome");
            let key = TagKey::new(SessionId(welcome.session), Term(welcome.term), Self::NONCE);
            let mut peer = Peer::new(self.path, MemberId(0), key, TickRate::DEFAULT, now);
            peer.tells_missing = true;
            self.slot = Some(Slot(welcome.slot));
            self.peer.get_or_insert(peer);
            return;
        }
        let Some(peer) = &mut self.peer else { return };
        let Ok(accepted) = peer.open(now, bytes) else {
            return;
        };
        if let Some(control) = accepted.control {
            let denied = &mut self.denied;
            let read = peer.inbox.read(control, |word| {
                if let Ok(Control::Denied { entity, is_foreign }) = Control::from_bytes(word) {
                    denied.push((NetId::from_bits(entity), is_foreign));
                }
            });
            read.expect("the host speaks well");
        }
        peer.accept(now, &accepted);
    }

    /// A datagram that says where these bodies are.
    fn claim(&mut self, cluster: &Cluster, ids: &[u64], step: u8) -> Option<Vec<u8>> {
        let now = cluster.now_of(0);
        let peer = self.peer.as_mut()?;
        let schema = yard::game().schema;
        let mut state = Snapshot {
            tick: Tick::new(1),
            kinds: vec![Default::default(); schema.kinds().len()],
        };
        let body = schema.kind_index("Body").expect("a kind");
        for &id in ids {
            state.kinds[body].push(NetId::from_bits(id), |out| {
                out.extend(f32::from(step).to_le_bytes());
                out.extend([0; 12]);
            });
        }
        let layout = WireLayout::new(&schema);
        self.claims.update(&layout, &state, |_| true);
        let seq = peer.next_seq();
        self.claims.write(seq, &mut peer.claims_due);
        let mut bytes = Vec::new();
        peer.pack(now, now, None, |_, _, _| {}, &mut bytes);
        Some(bytes)
    }
}

#[test]
fn a_member_that_claims_what_others_decide_moves_nothing() {
    let config = HostConfig {
        start: Start::Players(2),
        ..HostConfig::new(yard::game(), 3)
    };
    let seed = 12;
    let mut cluster = Cluster::new(config, Conditions::from_rtt(60_000, 0), seed);
    for name in ["one", "two"] {
        cluster.join(JoinConfig::new(yard::game(), name));
    }
    // Slot 0 decides body 100 from here on, the host all others.
    cluster.driver(0).player_mut().plan = Plan {
        bodies: 6,
        is_lively: false,
        gust_ticks: 0,
        term_ticks: TERM,
        spawns: true,
    };
    for index in [1, 2] {
        cluster.driver(index).player_mut().plan.is_lively = false;
    }
    cluster.run_us(4_500_000);
    let mut liar = Liar {
        path: Path(40),
        peer: None,
        slot: None,
        claims: Claims::new(&yard::game().schema),
        denied: Vec::new(),
    };
    cluster.inject_over(liar.path, 0, &Liar::hello());
    // The hero of slot 1, the body of slot 0, a body of the host, and one that nobody knows.
    let ids = [2, 100, 103, 999_999];
    let mut lies = 0;
    let mut places: Option<[[i32; 2]; 3]> = None;
    for round in 0..180 {
        if let Some(bytes) = liar.claim(&cluster, &ids, 100 + 40 * (round % 2)) {
            cluster.inject_over(liar.path, 0, &bytes);
            lies += 1;
        }
        cluster.run_us(16_667);
        while let Some((_, bytes)) = cluster.astray.pop_front() {
            liar.hear(&cluster, &bytes);
        }
        let yard = cluster.driver(0).simulation().expect("a state");
        let now = [0, 1, 2].map(|at| yard.bodies()[&ids[at]].at);
        for ((id, now), before) in ids.iter().zip(now).zip(places.unwrap_or(now)) {
            let moved = (now[0] - before[0]).abs();
            assert!(
                !(400..20_000).contains(&moved),
                "round {round}: body {id} moved by {moved}"
            );
        }
        places = Some(now);
    }
    let slot = liar.slot.expect("it was let in");
    assert_eq!(slot, Slot(2), "seed {seed}");
    assert!(lies > 150);
    let told = cluster.node(0).state_sync().expect("state-sync mode");
    assert!(told.claims_foreign > 400, "{told:?}");
    assert!(told.claims > 50, "those of slot 0 go on: {told:?}");
    let claims = &cluster.driver(0).simulation().expect("a state").claims;
    assert_eq!(claims.get(&slot.0), None, "none comes to the simulation");
    // It is told, once a second, as the host is.
    let events = cluster.members[0].events.iter();
    let reports: Vec<(NetId, bool)> = events
        .filter_map(|event| {
            let Event::ClaimRefused {
                slot: of,
                entity,
                is_foreign,
            } = event
            else {
                return None;
            };
            (*of == slot).then_some((*entity, *is_foreign))
        })
        .collect();
    assert!((2..=4).contains(&reports.len()), "{reports:?}");
    assert!(reports.iter().all(|(_, is_foreign)| *is_foreign));
    assert_eq!(liar.denied, reports);
    for index in [1, 2] {
        let judged = cluster.node(index).state_sync().expect("state-sync mode");
        assert_eq!((judged.hashes_wrong, judged.claims_denied), (0, 0));
    }
}
