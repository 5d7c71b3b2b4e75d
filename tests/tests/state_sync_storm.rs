//! State-sync against bytes and words that nobody should send: the session goes on.

use phalanx::netcode::hash::mix;
use phalanx::netcode::id::{MemberId, Path, SessionId, Term};
use phalanx::netcode::link::conditioner::Conditions;
use phalanx::netcode::node::Event;
use phalanx::netcode::prng::Prng;
use phalanx::netcode::session::config::{JoinConfig, Role};
use phalanx::netcode::session::control::{Control, Purpose};
use phalanx::netcode::session::handshake::{self, Hello, Welcome};
use phalanx::netcode::session::peer::Peer;
use phalanx::netcode::session::statistics::DropReason;
use phalanx::netcode::tick::{Tick, TickRate};
use phalanx::netcode::time::Time;
use phalanx::netcode::wire::header::{TagKey, kind};
use phalanx_tests::cluster::Index;
use phalanx_tests::yard::{self, Cluster, host, player, statistics};

/// Ends the session; what `indices` hold then is what the host has.
#[track_caller]
fn finish(cluster: &mut Cluster, seed: u64, indices: &[Index]) {
    let soon = cluster.node(0).tick().plus(50);
    cluster.driver(0).node_mut().end_at(soon);
    cluster.run_us(5_000_000);
    let real = cluster.driver(0).simulation().expect("a state").clone();
    for &index in indices {
        let member = &cluster.members[index];
        let ended = member.events.iter();
        let ended = ended.filter(|event| matches!(event, Event::Ended { .. }));
        let place = format!(
            "node {index} of seed {seed}: {:?}",
            statistics(cluster, index)
        );
        assert_eq!(ended.count(), 1, "{place}");
        assert_eq!(statistics(cluster, index).converged, Some(true), "{place}");
        let shown = cluster.driver(index).simulation().expect("a state");
        assert_eq!(shown.bodies(), real.bodies(), "{place}");
    }
}

/// Changes every fourth datagram: some bits, a cut, or something added.
fn mutate(prng: &mut Prng, bytes: &mut Vec<u8>) {
    if prng.below(4) != 0 || bytes.len() < 4 {
        return;
    }
    match prng.below(4) {
        0 => bytes.truncate(usize::try_from(prng.below(bytes.len() as u64)).expect("small")),
        1 => bytes.push(prng.next_u32().to_le_bytes()[0]),
        _ => {
            for _ in 0..1 + prng.below(4) {
                let at = usize::try_from(prng.below(bytes.len() as u64)).expect("small");
                bytes[at] ^= 1 << prng.below(8);
            }
        }
    }
}

#[test]
fn mutated_datagrams_do_not_last() {
    for seed in 0..5 {
        let mut cluster = Cluster::new(host(3, 2), Conditions::from_rtt(60_000, 10_000), seed);
        cluster.join(player("one"));
        cluster.join(player("two"));
        cluster.join(JoinConfig {
            role: Role::Spectator,
            ..JoinConfig::new(yard::game(), "three")
        });
        cluster.run_us(2_000_000);
        cluster.mutate = Some(mutate);
        cluster.run_us(8_000_000);
        cluster.mutate = None;
        // A state that was read wrong is found out within a second, and replaced. A link whose two
        // ends were told different things is given up after five at each end, and opened again.
        cluster.run_us(16_000_000);
        let drops = cluster.node(0).statistics().drops;
        assert!(drops.total() > 100, "seed {seed}: {drops:?}");
        for index in 1..4 {
            let before = statistics(&cluster, index).hashes_wrong;
            cluster.run_us(1_200_000);
            let after = statistics(&cluster, index).hashes_wrong;
            assert_eq!(before, after, "node {index} of seed {seed} is not healed");
        }
        finish(&mut cluster, seed, &[1, 2, 3]);
    }
}

/// A client that speaks the protocol, and lies: it acks what it did not get, floods inputs, asks
/// for everything again and again.
struct Liar {
    path: Path,
    prng: Prng,
    peer: Option<Peer>,
    nonce: u64,
    tick: Tick,
}

impl Liar {
    fn new(seed: u64, path: Path) -> Self {
        Self {
            path,
            prng: Prng::with_stream(seed, u64::from(path.0)),
            peer: None,
            nonce: mix(seed, 5) | 1,
            tick: Tick::ZERO,
        }
    }

    fn hello(&self) -> Vec<u8> {
        let hello = Hello::new(&yard::game(), "liar", Role::Player, self.nonce);
        let mut bytes = Vec::new();
        handshake::write(kind::HELLO, &hello, &mut bytes);
        bytes
    }

    fn hear(&mut self, now: Time, bytes: &[u8]) {
        if bytes[0] == kind::WELCOME {
            let welcome: Welcome = handshake::read(&bytes[1..]).expect("a welcome");
            let key = TagKey::new(SessionId(welcome.session), Term(welcome.term), self.nonce);
            let peer = Peer::new(self.path, MemberId(0), key, TickRate::DEFAULT, now);
            self.peer.get_or_insert(peer);
            return;
        }
        let Some(peer) = &mut self.peer else { return };
        if let Ok(accepted) = peer.open(now, bytes) {
            self.tick = accepted.tick.unwrap_or(self.tick);
            // It claims to have taken in what it has not even looked at.
            peer.accept(now, &accepted);
        }
    }

    fn datagram(&mut self, now: Time) -> Option<Vec<u8>> {
        let prng = &mut self.prng;
        let peer = self.peer.as_mut()?;
        let wild = |prng: &mut Prng| match prng.below(4) {
            0 => u32::MAX,
            1 => 0,
            2 => prng.next_u32() % 1000,
            _ => prng.next_u32(),
        };
        if prng.below(3) == 0 {
            let control = match prng.below(8) {
                0 | 1 => Control::Ready,
                2 | 3 => Control::Reset,
                4 | 5 => Control::Behind(wild(prng)),
                6 => Control::Final {
                    tick: wild(prng),
                    state: prng.next_u64(),
                    interest: prng.next_u64(),
                },
                _ => Control::Transfer {
                    id: 3,
                    purpose: Purpose::Report,
                    tick: wild(prng),
                    bytes: wild(prng),
                    digest: 0,
                },
            };
            let _full = peer.outbox.push(control.to_bytes());
        }
        let tick = match prng.below(4) {
            0 => Tick::new(wild(prng)),
            _ => self.tick.plus(prng.next_u32() % 40),
        };
        let noise: Vec<u8> = (0..prng.below(60))
            .map(|_| prng.next_u32().to_le_bytes()[0])
            .collect();
        let mut bytes = Vec::new();
        peer.pack(
            now,
            now,
            Some(tick),
            |_, _, out| out.extend(noise),
            &mut bytes,
        );
        if prng.below(2) == 0 {
            // Any datagram that was sent, as far as 8 bits tell.
            bytes[2] = prng.next_u32().to_le_bytes()[0];
        }
        Some(bytes)
    }
}

#[test]
fn a_lying_client_changes_nothing_for_the_others() {
    for seed in 0..5 {
        let mut cluster = Cluster::new(host(3, 2), Conditions::from_rtt(60_000, 10_000), seed);
        cluster.join(player("one"));
        cluster.join(player("two"));
        cluster.run_us(2_000_000);
        let mut liar = Liar::new(seed, Path(40));
        let (mut heard, mut welcomes) = (0, 0);
        for round in 0..600 {
            if round % 60 == 0 && liar.peer.is_none() {
                cluster.inject_over(liar.path, 0, &liar.hello());
            }
            let now = cluster.now_of(0);
            for _ in 0..liar.prng.below(12) {
                if let Some(bytes) = liar.datagram(now) {
                    cluster.inject_over(liar.path, 0, &bytes);
                }
            }
            cluster.run_us(16_667);
            while let Some((path, bytes)) = cluster.astray.pop_front() {
                assert_eq!(path, liar.path);
                heard += 1;
                welcomes += u32::from(bytes[0] == kind::WELCOME);
                // It loses a third of them, and acks all the same.
                if liar.prng.below(3) != 0 {
                    liar.hear(cluster.now_of(0), &bytes);
                }
            }
        }
        assert!(welcomes > 0, "seed {seed}: never let in");
        // A datagram per tick, the answers to Hello, and states that it asked for: never a flood.
        assert!(heard < 2400, "seed {seed}: {heard} datagrams for a liar");
        let drops = cluster.node(0).statistics().drops;
        let caught = drops.of(DropReason::BadBatch) + drops.of(DropReason::Unexpected);
        assert!(caught > 20, "seed {seed}: {drops:?}");
        let told = statistics(&cluster, 0);
        assert!(told.resets <= 25, "seed {seed}: {told:?}");
        for index in [1, 2] {
            let judged = statistics(&cluster, index);
            assert_eq!(judged.resets, 0, "seed {seed}: {judged:?}");
            assert_eq!(judged.hashes_wrong, 0, "seed {seed}: {judged:?}");
        }
        finish(&mut cluster, seed, &[1, 2]);
    }
}
