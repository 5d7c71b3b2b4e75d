//! A host that says anything at all: a client refuses or survives it, without a panic, a hang or
//! queues without end.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use phalanx_netcode::id::{Path, SessionId, Term};
use phalanx_netcode::limits::{EVENTS_MAX, IMAGES_MAX, JOIN_TICK_MAX};
use phalanx_netcode::node::{Node, Request};
use phalanx_netcode::prng::Prng;
use phalanx_netcode::session::config::{GameInfo, JoinConfig, Mode, Role, StateSyncConfig};
use phalanx_netcode::session::control::{Control, Purpose, Route};
use phalanx_netcode::session::handshake::{self, Hello, Welcome};
use phalanx_netcode::state::{Schema, Snapshot};
use phalanx_netcode::statesync::{Publisher, PublisherConfig, Subscription, Viewer};
use phalanx_netcode::tick::{Seq, Tick, TickRate};
use phalanx_netcode::time::Time;
use phalanx_netcode::wire::bytes::{put_counted, put_varint};
use phalanx_netcode::wire::header::{ClockSection, HashSection, TagKey, TickHeader, kind};

/// Numbers at the edges, and some in between.
fn wild(prng: &mut Prng) -> u64 {
    match prng.below(8) {
        0 => 0,
        1 => u64::MAX,
        2 => u64::from(u32::MAX),
        3 => i64::MAX.unsigned_abs(),
        4 => 1 << 62,
        5 => u64::from(JOIN_TICK_MAX),
        6 => prng.below(2000),
        _ => prng.next_u64() >> prng.below(64),
    }
}

fn wild32(prng: &mut Prng) -> u32 {
    u32::try_from(wild(prng) & 0xffff_ffff).unwrap()
}

fn control(prng: &mut Prng) -> Control {
    match prng.below(13) {
        0 => Control::Start(wild(prng)),
        1 => Control::LastTick(wild32(prng)),
        2 => Control::Activate(wild32(prng)),
        3 => Control::Transfer {
            id: 1,
            purpose: Purpose::Join,
            tick: wild32(prng),
            bytes: wild32(prng),
            digest: 0,
        },
        4 => Control::Hashes {
            after: wild32(prng),
            upto: wild32(prng),
            hashes: Vec::new(),
        },
        5 => Control::Diverged {
            tick: wild32(prng),
            heal: true,
        },
        6 => Control::Replaced {
            first: wild32(prng),
            ticks: wild(prng),
        },
        7 => Control::Final {
            tick: wild32(prng),
            state: 1,
            interest: wild(prng),
        },
        8 => Control::Reset,
        9 => Control::Peer {
            member: wild(prng),
            key: u128::from(wild(prng)),
            route: match prng.below(4) {
                0 => Route::Here,
                1 => Route::Opens(vec![1; usize::try_from(prng.below(40)).unwrap()]),
                2 => Route::Accepts(Vec::new()),
                _ => Route::Apart,
            },
        },
        10 => Control::Invite {
            member: prng.below(5),
            public_key: vec![2; 32],
        },
        11 => Control::Invitation {
            member: prng.below(5),
            part: u8::try_from(prng.below(3)).unwrap(),
            parts: u8::try_from(prng.below(4)).unwrap(),
            bytes: vec![1; usize::try_from(prng.below(201)).unwrap()],
        },
        _ => Control::Gone(1),
    }
}

/// Obeys all requests, without a simulation; gives how many there were.
fn obey(node: &mut Node, now: Time) -> u32 {
    let mut count = 0;
    loop {
        let (mut sample, mut hash, mut export, mut import) = (false, None, None, false);
        let mut patch = false;
        match node.poll_request() {
            None => return count,
            Some(Request::Sample { .. }) => sample = true,
            Some(Request::Hash { tick }) => hash = Some(tick),
            Some(Request::Export { tick }) => export = Some(tick),
            Some(Request::Import { .. }) => import = true,
            Some(Request::Patch(_)) => patch = true,
            // The others need no answer.
            Some(_) => {}
        }
        if sample {
            node.submit_input(now, &[0; 4]).unwrap();
        }
        if let Some(tick) = hash {
            node.commit_hash(tick, None);
        }
        if let Some(tick) = export {
            node.commit_snapshot(tick, None);
        }
        if import {
            node.commit_import(now, None);
        }
        if patch {
            node.commit_patch(now, count % 50 != 49);
        }
        count += 1;
    }
}

#[test]
fn no_word_of_a_host_breaks_a_client() {
    let (mut welcomed, mut most) = (0, 0);
    let (mut followed, mut met) = (0, 0);
    for seed in 0..1200 {
        let mut prng = Prng::new(seed);
        let game = GameInfo {
            game: "toy".to_owned(),
            build: "1".to_owned(),
            schema: Arc::new(Schema::new(Vec::new()).unwrap()),
            mode: [Mode::Lockstep, Mode::StateSync][usize::try_from(seed / 3 % 2).unwrap()],
            tick_rate: TickRate::new([5, 60, 240][usize::try_from(seed % 3).unwrap()]).unwrap(),
            input_bytes: 4,
        };
        let follows = game.mode == Mode::StateSync;
        let state_sync = StateSyncConfig::default();
        let settings = PublisherConfig::new(&state_sync, game.tick_rate);
        let schema = Arc::clone(&game.schema);
        let role = if prng.below(2) == 0 {
            Role::Player
        } else {
            Role::Spectator
        };
        let config = JoinConfig {
            role,
            prediction_ticks: u32::try_from(prng.below(2)).unwrap() * 8,
            ..JoinConfig::new(game, "Ada")
        };
        let mut now = Time::from_millis(3_600_000);
        let mut node = Node::join(config, Path(0), now).unwrap();
        node.handle_timeout(now);
        let mut out = Vec::new();
        node.poll_transmit(now, &mut out).unwrap();
        let hello: Hello = handshake::read(&out[1..]).unwrap();
        let from = if prng.below(2) == 0 {
            0
        } else {
            wild32(&mut prng)
        };
        let welcome = Welcome {
            nonce: hello.nonce,
            protocol: 1,
            session: 5,
            term: 1,
            member: 1,
            slot: if role == Role::Player { 1 } else { 255 },
            slots: 2,
            seed: 0,
            gate: u8::from(!follows && prng.below(2) == 0),
            desync_interval: wild32(&mut prng),
            images: wild32(&mut prng) % (IMAGES_MAX + 2),
            heal: true,
            resume: wild(&mut prng),
            from,
            resumed: !follows && prng.below(8) == 0,
            snapshot_ticks: match (follows, prng.below(8)) {
                (false, _) => 0,
                (true, 0) => wild32(&mut prng),
                (true, _) => state_sync.snapshot_ticks,
            },
        };
        let mut bytes = Vec::new();
        handshake::write(kind::WELCOME, &welcome, &mut bytes);
        node.handle_datagram(now, Path(0), &bytes);
        most = most.max(obey(&mut node, now));
        welcomed += u32::from(node.session().session == SessionId(5));

        let key = TagKey::new(SessionId(5), Term(1), hello.nonce);
        let mut first_control = 0;
        for seq in 0..60 {
            now = now.plus_micros(prng.below(100_000));
            let mut section = Vec::new();
            put_varint(&mut section, first_control);
            let count = 1 + prng.below(2);
            for _ in 0..count {
                put_counted(&mut section, &control(&mut prng).to_bytes());
            }
            let has = |prng: &mut Prng| prng.below(2) == 0;
            let control = has(&mut prng).then_some(&section[..]);
            let header = TickHeader {
                ack: None,
                tick: has(&mut prng).then(|| match prng.below(3) {
                    0 => Tick::new(wild32(&mut prng)),
                    _ => Tick::new(welcome.from.saturating_add(prng.next_u32() % 300)),
                }),
                clock: has(&mut prng).then(|| ClockSection {
                    sent_us: wild(&mut prng),
                    zero_us: wild(&mut prng),
                    ack_delay_us: wild32(&mut prng),
                    margin: Some(i16::MAX),
                    loss: 255,
                }),
                hash: Some(HashSection {
                    tick: Tick::new(wild32(&mut prng)),
                    hash: 0,
                }),
                control,
                messages: None,
                missing: 0,
                claims: None,
            };
            first_control += if control.is_some() { count } else { 0 };
            let mut bytes = Vec::new();
            header.encode(key, Seq::new(seq), &mut bytes);
            if follows {
                // Now and then a state that the client takes, at the tick that it was told; else
                // noise.
                let tick = header.tick.unwrap_or_default();
                if prng.below(4) == 0 {
                    bytes.extend((0..prng.below(20)).map(|_| prng.next_u32().to_le_bytes()[0]));
                } else if tick.number() < JOIN_TICK_MAX {
                    let mut publisher = Publisher::new(&schema, settings);
                    publisher.publish(&Snapshot {
                        tick: Tick::new(tick.number() / 3 * 3),
                        kinds: Vec::new(),
                    });
                    Subscription::new(Viewer::default()).write(
                        &mut publisher,
                        Seq::new(seq),
                        1000,
                        &mut bytes,
                    );
                }
            }
            node.handle_datagram(now, Path(0), &bytes);
            most = most.max(obey(&mut node, now));
            node.handle_timeout(now);
            most = most.max(obey(&mut node, now));
            while let Some((member, _)) = node.poll_invite() {
                node.handle_invitation(member, Some(vec![5; 1200]));
            }
            while let Some(opening) = node.poll_open(now) {
                let path = (prng.below(2) == 0).then_some(Path(100 + seq));
                node.handle_path_open(now, opening.member, path, Some([3; 32]));
                met += 1;
            }
            while node.poll_transmit(now, &mut out).is_some() {}
            assert!(node.poll_timeout() >= Time::ZERO, "seed {seed}");
        }
        followed += u32::from(node.received().next().is_some());
        let events = core::iter::from_fn(|| node.poll_event()).count();
        assert!(events <= EVENTS_MAX, "seed {seed}: {events} events");
    }
    assert!(met > 20, "only {met} paths were asked for");
    assert!(followed > 50, "only {followed} ever took a state");
    assert!(welcomed > 400, "only {welcomed} were let in");
    assert!(most < 20_000, "{most} requests for one datagram");
}
