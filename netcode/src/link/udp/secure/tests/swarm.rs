//! Random sessions from a seed, and a storm of mutated datagrams.

use super::*;

/// What one node may still hear of each path.
#[derive(Debug, Default)]
struct Checker {
    connecting: Vec<Path>,
    open: Vec<Path>,
}

impl Checker {
    fn check(&mut self, said: Vec<Said>, context: &str) {
        for said in said {
            match said {
                Said::Opened(path, _) => {
                    assert!(
                        !self.open.contains(&path),
                        "{context}: {path:?} opens twice"
                    );
                    self.connecting.retain(|&other| other != path);
                    self.open.push(path);
                }
                Said::Datagram(path, bytes) => {
                    assert!(self.open.contains(&path), "{context}: {path:?} is not open");
                    assert_eq!(bytes.len(), 50, "{context}");
                }
                Said::Closed(path, _) => {
                    let known = self.open.len() + self.connecting.len();
                    self.forget(path);
                    let left = self.open.len() + self.connecting.len();
                    assert_eq!(left + 1, known, "{context}: {path:?} was not known");
                }
            }
        }
    }

    fn forget(&mut self, path: Path) {
        self.open.retain(|&other| other != path);
        self.connecting.retain(|&other| other != path);
    }
}

#[test]
fn swarms_of_random_sessions_stay_consistent_and_calm_down() {
    let mut survived = 0;
    for seed in 0..40 {
        let mut prng = Prng::with_stream(seed, 1);
        let conditions = Conditions {
            jitter_us: prng.below(50_000),
            duplicate_per_million: 20_000,
            reorder_per_million: 50_000,
            ..Conditions::from_rtt(prng.below(200_000), 300_000)
        };
        let mut net = Net::new(conditions, seed);
        let count = 2 + u16::try_from(prng.below(5)).unwrap();
        let mut checkers = BTreeMap::new();
        for number in 1..=count {
            net.add(number, 3);
            checkers.insert(number, Checker::default());
        }
        let mut client_id = 0;
        for _ in 0..300 {
            let number = 1 + u16::try_from(prng.below(count.into())).unwrap();
            let other = 1 + u16::try_from(prng.below(count.into())).unwrap();
            let checker = checkers.get_mut(&number).unwrap();
            match prng.below(10) {
                0..=2 if other != number => {
                    client_id += 1;
                    let token = net.token(other, client_id, 1 + prng.below(20));
                    if let Ok(path) = net.connect(number, &token) {
                        checker.connecting.push(path);
                    }
                }
                3 => {
                    let known: Vec<Path> = checker
                        .open
                        .iter()
                        .chain(&checker.connecting)
                        .copied()
                        .collect();
                    if let Some(&path) = known.first() {
                        net.close(number, path);
                        checker.forget(path);
                    }
                }
                4 if prng.below(20) == 0 => {
                    // The process dies; another takes its place at the same address.
                    net.add(number, 3);
                    *checker = Checker::default();
                }
                _ => {
                    for path in checker.open.clone() {
                        net.send(number, path, &[7; 50]);
                    }
                }
            }
            net.run(10_000 * (1 + prng.below(20)));
            for (&number, checker) in &mut checkers {
                checker.check(net.said(number), &format!("seed {seed}, node {number}"));
            }
        }
        // Calm: what is half open ends, what is open stays so at both ends.
        net.wire.set_conditions(Conditions::from_rtt(20_000, 0));
        net.run(40_000_000);
        let mut ends = [0, 0];
        for (&number, checker) in &mut checkers {
            checker.check(net.said(number), &format!("seed {seed}, node {number}"));
            let endpoint = &net.node(number).endpoint;
            assert_eq!(endpoint.routes.len(), checker.open.len(), "seed {seed}");
            for route in endpoint.routes.values() {
                ends[usize::from(matches!(route, Route::ToHost(_)))] += 1;
            }
        }
        assert_eq!(ends[0], ends[1], "seed {seed}: a session with one end");
        survived += ends[0];
        net.run(15_000_000);
        for &number in checkers.keys() {
            assert_eq!(net.said(number), [], "seed {seed}");
        }
    }
    assert!(survived > 40, "the swarm has sessions: {survived}");
    println!("{survived} sessions survived");
}

/// `PHALANX_STORM` raises the number of datagrams.
#[test]
fn a_storm_of_mutated_datagrams_disturbs_nothing() {
    let seed = 11;
    let count = std::env::var("PHALANX_STORM")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1_000_000_u64);
    let mut net = Net::perfect();
    for number in [1, 2] {
        net.add(number, 4);
    }
    net.add(3, 0);
    let (to_host, to_client) = net.establish(2, 1, 42);
    for round in 0x40..0x72_u8 {
        net.send(2, to_host, &[round; 40]);
        net.send(1, to_client, &[round; 400]);
        net.run(20_000);
    }
    net.said(1);
    net.said(2);
    // One handshake that stops half way, and a session that has ended.
    net.add(4, 0);
    let (gone, _) = net.establish(4, 1, 44);
    net.close(4, gone);
    net.run(100_000);
    let token = net.token(1, 43, 3600);
    net.connect(3, &token).unwrap();
    net.collect();
    let corpus = net.trace.clone();
    for number in [1, 2, 3] {
        net.said(number);
    }

    let mut prng = Prng::new(seed);
    let mut fed = 0;
    for round in 0..count {
        let pick = |prng: &mut Prng, len: usize| usize::try_from(prng.below(len as u64)).unwrap();
        let (from, to, original) = &corpus[pick(&mut prng, corpus.len())];
        let mut bytes = original.clone();
        mutate(&mut prng, &mut bytes, &corpus);
        if corpus.iter().any(|(_, _, known)| *known == bytes) {
            continue;
        }
        let from = if prng.below(8) == 0 {
            address(99)
        } else {
            *from
        };
        let Some(Node { endpoint, sink }) = net.nodes.get_mut(to) else {
            continue;
        };
        let before = endpoint.counts().drops.total();
        endpoint.handle_datagram(net.now, from, &mut bytes, sink);
        assert_eq!(
            endpoint.counts().drops.total(),
            before + 1,
            "seed {seed}, round {round}: not dropped"
        );
        assert!(sink.said.is_empty(), "seed {seed}, round {round}");
        // Nothing but short refusals may answer.
        assert!(
            sink.sent.drain(..).all(|(_, bytes)| bytes.len() <= 18),
            "seed {seed}, round {round}"
        );
        fed += 1;
    }
    assert!(fed > count * 9 / 10, "{fed} of {count}");
    for number in [1, 2] {
        println!(
            "node {number}: {:?}",
            net.node(number).endpoint.counts().drops
        );
    }

    net.send(2, to_host, b"still here");
    net.send(1, to_client, b"me too");
    net.run(50_000);
    let at_host = net.said(1);
    assert!(
        at_host.contains(&Said::Datagram(to_client, b"still here".to_vec())),
        "{at_host:?}"
    );
    assert_eq!(net.said(2), [Said::Datagram(to_host, b"me too".to_vec())]);
}

fn mutate(prng: &mut Prng, bytes: &mut Vec<u8>, corpus: &[(SocketAddr, SocketAddr, Vec<u8>)]) {
    let random_byte = |prng: &mut Prng| prng.next_u64().to_le_bytes()[0];
    for _ in 0..=prng.below(3) {
        let len = bytes.len() as u64;
        let at = usize::try_from(prng.below(len)).unwrap();
        match prng.below(8) {
            0 if len > 0 => bytes.truncate(at),
            1 => {
                let more = prng.below(1400);
                (0..more).for_each(|_| bytes.push(random_byte(prng)));
            }
            2 if len > 0 => bytes[0] = random_byte(prng),
            3 if len > 8 => {
                for byte in &mut bytes[1..9] {
                    *byte = random_byte(prng);
                }
            }
            4 => {
                let other = usize::try_from(prng.below(corpus.len() as u64)).unwrap();
                let other = &corpus[other].2;
                bytes.truncate(at);
                bytes.extend_from_slice(&other[at.min(other.len())..]);
            }
            5 if len > 0 => {
                // Another length of sequence number, everything else as it was.
                bytes[0] = (bytes[0] & 0x0f) | (random_byte(prng) & 0xf0);
            }
            _ if len > 0 => bytes[at] ^= 1 << prng.below(8),
            _ => {}
        }
    }
}
