//! Golden bytes: every kind of packet and section, byte by byte as `docs/WIRE.md` has it.
//!
//! A change here is a change of the protocol: raise its version.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use phalanx_netcode::id::{MemberId, SessionId, Slot, Term};
use phalanx_netcode::input::{BatchDecoder, BatchEncoder, BatchPlan, InputHistory};
use phalanx_netcode::session::acted::{Acted, Run};
use phalanx_netcode::session::bulk::{BulkConfig, BulkReceiver, BulkSender};
use phalanx_netcode::session::control::{Control, Purpose, Route, Settings, Stand};
use phalanx_netcode::session::handshake::{
    self, Back, Baseline, Bye, ByeReason, Followed, Hello, Refusal, Refuse, Return, SchemaPart,
    TermBase, TermStart, Welcome,
};
use phalanx_netcode::session::introduction::Introduction;
use phalanx_netcode::session::mesh::{self, Address, Echo, MeshDatagram, PairKey};
use phalanx_netcode::session::messages::{Channel, Messages, MessagesConfig};
use phalanx_netcode::session::outbox::{Inbox, Outbox};
use phalanx_netcode::session::roster::MemberRecord;
use phalanx_netcode::tick::{Seq, Tick};
use phalanx_netcode::time::Time;
use phalanx_netcode::wire::codec::{Decode, Encode};
use phalanx_netcode::wire::header::{ClockSection, HashSection, Prefix, TagKey, TickHeader, kind};

/// The bytes that `text` spells: hexadecimal, and letters between quotes.
fn golden(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in text.split_whitespace() {
        if let Some(letters) = word.strip_prefix('\'') {
            bytes.extend_from_slice(letters.trim_end_matches('\'').as_bytes());
        } else {
            bytes.push(u8::from_str_radix(word, 16).unwrap());
        }
    }
    bytes
}

/// `body` has these bytes after `kind`, and they read as `body`.
fn check<T: Encode + Decode<()> + PartialEq + std::fmt::Debug>(kind: u8, body: &T, text: &str) {
    let mut bytes = Vec::new();
    handshake::write(kind, body, &mut bytes);
    assert_eq!(bytes, golden(text), "{body:?}");
    assert_eq!(handshake::read::<T>(&bytes[1..]).as_ref(), Ok(body));
}

#[test]
fn hello() {
    let hello = Hello {
        protocol_min: 1,
        protocol_max: 1,
        game: "toy".to_owned(),
        build: "1.0".to_owned(),
        schema_hash: 0x1122_3344_5566_7788,
        mode: 1,
        tick_hz: 60,
        input_bytes: 8,
        spectator: false,
        name: "Ada".to_owned(),
        nonce: 0x0102_0304_0506_0708,
        resume: 300,
        confirmed: 70_000,
        schema_parts_wanted: 5,
    };
    check(
        kind::HELLO,
        &hello,
        "c0 01 01 03 'toy' 03 '1.0' fd 88 77 66 55 44 33 22 11 01 3c 08 00 03 'Ada' \
         fd 08 07 06 05 04 03 02 01 fb 2c 01 fc 70 11 01 00 05",
    );
}

#[test]
fn welcome() {
    let welcome = Welcome {
        nonce: 7,
        protocol: 1,
        session: 0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100,
        term: 1,
        member: 251,
        slot: 255,
        slots: 4,
        seed: 250,
        gate: 1,
        desync_interval: 32,
        images: 64,
        heal: true,
        resume: 0xffff_ffff_ffff_ffff,
        from: 0,
        resumed: false,
        snapshot_ticks: 3,
    };
    check(
        kind::WELCOME,
        &welcome,
        "c1 07 01 fe 00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f 01 fb fb 00 ff 04 fa 01 20 \
         40 01 fd ff ff ff ff ff ff ff ff 00 00 03",
    );
}

#[test]
fn return_and_back() {
    let hello = Hello {
        protocol_min: 1,
        protocol_max: 1,
        game: "g".to_owned(),
        build: "b".to_owned(),
        schema_hash: 2,
        mode: 1,
        tick_hz: 60,
        input_bytes: 8,
        spectator: true,
        name: "n".to_owned(),
        nonce: 3,
        resume: 4,
        confirmed: 300,
        schema_parts_wanted: 0,
    };
    let mut ask = Return {
        hello,
        followed: Followed {
            since: 1,
            starts: Vec::new(),
        },
        wants: 2,
        offers: None,
        inputs_after: 0,
        inputs: Vec::new(),
        avoids: 3,
        baselines: Vec::new(),
    };
    check(
        kind::RETURN,
        &ask,
        "c5 01 01 01 'g' 01 'b' 02 01 3c 08 01 01 'n' 03 04 fb 2c 01 00 01 00 02 00 00 00 03 00",
    );
    ask.followed.starts = vec![TermBase { term: 3, base: 290 }];
    ask.offers = Some(9);
    (ask.inputs_after, ask.inputs) = (11, b"in".to_vec());
    ask.baselines = vec![Baseline {
        tick: 300,
        hash: 5,
        epoch: 1,
    }];
    check(
        kind::RETURN,
        &ask,
        "c5 01 01 01 'g' 01 'b' 02 01 3c 08 01 01 'n' 03 04 fb 2c 01 00 01 01 03 fb 22 01 02 01 09 0b \
         02 'in' 03 01 fb 2c 01 05 01",
    );
    let mut back = Back {
        welcome: Welcome {
            nonce: 3,
            protocol: 1,
            session: 5,
            term: 2,
            member: 6,
            slot: 1,
            slots: 4,
            seed: 0,
            gate: 0,
            desync_interval: 32,
            images: 64,
            heal: true,
            resume: 7,
            from: 100,
            resumed: true,
            snapshot_ticks: 0,
        },
        shared: Some(1),
        terms: vec![TermStart {
            term: 2,
            base: 120,
            host: 8,
            is_planned: true,
        }],
        inputs_after: Some(100),
        salt: 4,
        baseline: None,
        acted: None,
    };
    check(
        kind::BACK,
        &back,
        "c6 03 01 05 02 06 01 04 00 00 20 40 01 07 64 01 00 01 01 01 02 78 08 01 01 64 04 00 00",
    );
    back.baseline = Some(99);
    back.acted = Some(Acted {
        first: 98,
        runs: vec![
            Run {
                ticks: 300,
                is_present: true,
            },
            Run {
                ticks: 1,
                is_present: false,
            },
        ],
        inputs: b"a".to_vec(),
    });
    check(
        kind::BACK,
        &back,
        "c6 03 01 05 02 06 01 04 00 00 20 40 01 07 64 01 00 01 01 01 02 78 08 01 01 64 04 \
         01 63 01 62 02 fb 2c 01 01 01 00 01 'a'",
    );
}

#[test]
fn refusals() {
    let name = "toy".to_owned();
    let refusals = [
        (Refusal::Protocol { min: 1, max: 2 }, "00 01 02"),
        (Refusal::Game { host: name.clone() }, "01 03 'toy'"),
        (Refusal::Build { host: name }, "02 03 'toy'"),
        (Refusal::Schema { host: 9, parts: 3 }, "03 09 03"),
        (Refusal::Mode { host: 2 }, "04 02"),
        (Refusal::TickRate { host: 240 }, "05 f0"),
        (Refusal::InputBytes { host: 16 }, "06 10"),
        (Refusal::Full { slots: 4 }, "07 04"),
        (Refusal::SpectatorsFull { limit: 300 }, "08 fb 2c 01"),
        (Refusal::Name, "09"),
        (Refusal::Ended, "0a"),
    ];
    for (refusal, body) in refusals {
        let refuse = Refuse { nonce: 5, refusal };
        check(kind::REFUSE, &refuse, &format!("c2 05 {body}"));
    }
}

#[test]
fn schema_part() {
    let part = SchemaPart {
        nonce: 5,
        part: 2,
        bytes: vec![0xaa, 0xbb],
    };
    check(kind::SCHEMA_PART, &part, "c3 05 02 02 aa bb");
}

#[test]
fn goodbyes() {
    let reasons = [
        ByeReason::Left,
        ByeReason::Ended,
        ByeReason::HostStops,
        ByeReason::TooSlow,
        ByeReason::Fault,
        ByeReason::Replaced,
    ];
    for (number, reason) in (0..).zip(reasons) {
        let number: u8 = number;
        let bye = Bye {
            session_low: 256,
            reason,
        };
        check(kind::BYE, &bye, &format!("c4 fb 00 01 {number:02x}"));
    }
}

/// The key of the golden tick datagrams, and the tag of the first: 14.
fn key() -> TagKey {
    TagKey::new(SessionId(7 << 70 | 99), Term(3), 1)
}

fn check_tick(header: &TickHeader<'_>, seq: u32, text: &str) {
    let mut bytes = Vec::new();
    header.encode(key(), Seq::new(seq), &mut bytes);
    bytes.extend_from_slice(&[0xba, 0x7c]);
    assert_eq!(bytes, golden(text), "{header:?}");
    let prefix = Prefix::read(&bytes).unwrap();
    assert_eq!(prefix.tag, key().tag(Seq::new(seq)));
    let (read, batch) = prefix.sections(Some(Seq::new(4))).unwrap();
    assert_eq!((&read, batch), (header, &[0xba, 0x7c][..]));
}

#[test]
fn tick_datagrams_with_each_section() {
    let acked = TickHeader {
        ack: Some(Seq::new(4)),
        ..TickHeader::default()
    };
    // The tag is (key + 5 * term + 11 * (sequence / 256)) mod 64.
    check_tick(&acked, 5, "4e 05 04 ba 7c");
    check_tick(&acked, 261, "59 05 04 ba 7c");

    check_tick(&TickHeader::default(), 5, "8e 05 00 02 ba 7c");
    let tick = TickHeader {
        tick: Some(Tick::new(300)),
        ..acked
    };
    check_tick(&tick, 5, "8e 05 04 01 ac 02 ba 7c");
    let clock = ClockSection {
        sent_us: 1 << 14,
        zero_us: 5,
        ack_delay_us: 300,
        margin: Some(-3),
        loss: 9,
    };
    let with_clock = |clock| TickHeader {
        clock: Some(clock),
        ..acked
    };
    check_tick(
        &with_clock(clock),
        5,
        "8e 05 04 04 80 80 01 05 ac 02 fd ff 09 ba 7c",
    );
    check_tick(
        &with_clock(ClockSection {
            margin: None,
            ..clock
        }),
        5,
        "8e 05 04 04 80 80 01 05 ac 02 00 80 09 ba 7c",
    );
    let hash = TickHeader {
        hash: Some(HashSection {
            tick: Tick::new(64),
            hash: 0xdead_beef,
        }),
        ..acked
    };
    check_tick(&hash, 5, "8e 05 04 08 40 ef be ad de ba 7c");
    let control = TickHeader {
        control: Some(&[0, 1, 4]),
        ..acked
    };
    check_tick(&control, 5, "8e 05 04 10 03 00 01 04 ba 7c");
    let messages = TickHeader {
        messages: Some(&[4, 0, 0, 0, 0]),
        ..acked
    };
    check_tick(&messages, 5, "8e 05 04 20 05 04 00 00 00 00 ba 7c");
    let all = TickHeader {
        ack: None,
        tick: tick.tick,
        clock: Some(clock),
        hash: hash.hash,
        control: control.control,
        messages: messages.messages,
        missing: 0,
        claims: None,
    };
    let missing = TickHeader {
        missing: 1 << 7 | 1,
        claims: None,
        ..acked
    };
    check_tick(&missing, 5, "8e 05 04 40 81 01 ba 7c");
    check_tick(
        &all,
        5,
        "8e 05 00 3f ac 02 80 80 01 05 ac 02 fd ff 09 40 ef be ad de 03 00 01 04 \
         05 04 00 00 00 00 ba 7c",
    );
}

#[test]
fn control_messages() {
    let member = MemberRecord {
        id: 3,
        role: 1,
        slot: 255,
        name: "Ada".to_owned(),
        connected: true,
    };
    let controls = [
        (Control::Member(member), "00 03 01 ff 03 'Ada' 01"),
        (Control::Gone(300), "01 fb 2c 01"),
        (Control::Start(1_000_000), "02 fc 40 42 0f 00"),
        (Control::LastTick(600), "03 fb 58 02"),
        (Control::Ready, "04"),
        (Control::Activate(7), "05 07"),
        (
            Control::Transfer {
                id: 1,
                purpose: Purpose::Join,
                tick: 600,
                bytes: 70_000,
                digest: 1 << 32,
            },
            "06 01 00 fb 58 02 fc 70 11 01 00 fd 00 00 00 00 01 00 00 00",
        ),
        (
            Control::Transfer {
                id: 1,
                purpose: Purpose::Report,
                tick: 0,
                bytes: 0,
                digest: 0,
            },
            "06 01 01 00 00 00",
        ),
        (
            Control::Hashes {
                after: 64,
                upto: 66,
                hashes: vec![0, 0xdead_beef],
            },
            "07 40 42 02 00 fc ef be ad de",
        ),
        (
            Control::Diverged {
                tick: 65,
                heal: true,
            },
            "08 41 01",
        ),
        (Control::Difference("hp".to_owned()), "09 02 'hp'"),
        (Control::Reset, "0a"),
        (
            Control::Replaced {
                first: 300,
                ticks: 5,
            },
            "0b fb 2c 01 05",
        ),
        (
            Control::Final {
                tick: 600,
                state: 1 << 32,
                interest: 9,
            },
            "0c fb 58 02 fd 00 00 00 00 01 00 00 00 09",
        ),
        (Control::Behind(9), "0d 09"),
        (
            Control::Peer {
                member: 300,
                key: 5,
                route: Route::Here,
            },
            "0e fb 2c 01 05 00",
        ),
        (
            Control::Peer {
                member: 3,
                key: 1 << 64,
                route: Route::Opens(vec![4, 9]),
            },
            "0e 03 fe 00 00 00 00 00 00 00 00 01 00 00 00 00 00 00 00 01 02 04 09",
        ),
        (
            Control::Peer {
                member: 2,
                key: 250,
                route: Route::Accepts(vec![7]),
            },
            "0e 02 fa 02 01 07",
        ),
        (
            Control::Peer {
                member: 2,
                key: 0,
                route: Route::Apart,
            },
            "0e 02 00 03",
        ),
        (
            Control::Invite {
                member: 4,
                public_key: vec![8, 9],
            },
            "0f 04 02 08 09",
        ),
        (
            Control::Invitation {
                member: 4,
                part: 1,
                parts: 7,
                bytes: b"ab".to_vec(),
            },
            "10 04 01 07 02 'ab'",
        ),
        (
            Control::Settings(Settings {
                host: 2,
                late_policy: 1,
                limit_us: 3,
                resume_us: 300,
                silence_us: 5,
                spectator_delay_ticks: 6,
                spectators: 7,
                heal_host: true,
                players: 8,
                elects: true,
                budget_bytes_per_second: 10,
                rewind_ticks_max: 11,
            }),
            "12 02 01 03 fb 2c 01 05 06 07 01 08 01 0a 0b",
        ),
        (
            Control::Stand(Stand {
                incarnation: 300,
                can_host: true,
                votes: false,
            }),
            "13 fb 2c 01 01 00",
        ),
    ];
    for (control, text) in controls {
        assert_eq!(control.to_bytes(), golden(text), "{control:?}");
        assert_eq!(Control::from_bytes(&golden(text)), Ok(control));
    }
}

#[test]
fn introductions() {
    let member = MemberId(300);
    let key = PairKey(0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100);
    let address = Address::new(&[127, 0, 0, 1, 0x39, 0x30]).unwrap();
    let public_key = [0x11; 32];
    let bytes = b"token".to_vec();
    let words = [
        (
            Introduction::Ask { member, key },
            "20 ac 02 00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f".to_owned(),
        ),
        (
            Introduction::Meet {
                member,
                key,
                address,
            },
            "21 ac 02 00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f 7f 00 00 01 39 30".to_owned(),
        ),
        (
            Introduction::Invite { member, public_key },
            format!("22 ac 02{}", " 11".repeat(32)),
        ),
        (
            Introduction::Invitation {
                member,
                part: 1,
                parts: 7,
                bytes,
            },
            "23 ac 02 01 07 'token'".to_owned(),
        ),
    ];
    for (word, text) in words {
        assert_eq!(word.to_bytes(), golden(&text), "{word:?}");
        assert_eq!(Introduction::decode(&golden(&text)), Ok(word));
    }
}

#[test]
fn mesh_datagram() {
    let key = PairKey(0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100);
    let (from, to) = (MemberId(2), MemberId(300));
    let echo = Echo {
        counter: 9,
        held_us: 300,
    };
    let mut bytes = Vec::new();
    MeshDatagram::begin(from, 258, Some(echo), &mut bytes);
    assert!(mesh::put_message(b"vote", &mut bytes));
    mesh::seal(key.direction(from, to), &mut bytes);
    assert_eq!(
        bytes,
        golden("d0 19 f8 6a 60 37 7a 10 d6 02 02 01 00 00 01 09 00 00 00 ac 02 04 'vote'")
    );
    let read = MeshDatagram::read(&bytes, key.direction(from, to)).unwrap();
    assert_eq!(
        (read.from, read.counter, read.echo),
        (from, 258, Some(echo))
    );
    assert!(read.messages().eq([&b"vote"[..]]));
}

#[test]
fn control_section() {
    let mut outbox = Outbox::new();
    outbox.push(b"ab".to_vec()).unwrap();
    outbox.push(Vec::new()).unwrap();
    let mut section = Vec::new();
    assert!(outbox.write(Time::ZERO, Seq::ZERO, 200, 1000, &mut section));
    assert_eq!(section, golden("00 02 'ab' 00"));
    let mut read = Vec::new();
    Inbox::new()
        .read(&section, |message| read.push(message.to_vec()))
        .unwrap();
    assert_eq!(read, [b"ab".to_vec(), Vec::new()]);
}

#[test]
fn message_packets() {
    let mut ends = [0, 1].map(|_| Messages::new(MessagesConfig::default()));
    let [one, other] = &mut ends;
    one.send(Channel::Reliable, b"hello").unwrap();
    let reliable = one.pump(Time::ZERO, 500).unwrap();
    assert_eq!(reliable, golden("00 00 00 00 01 00 05 'hello'"));
    other.handle(&reliable).unwrap();
    assert_eq!(
        other.pump(Time::ZERO, 500).unwrap(),
        golden("04 00 00 00 00")
    );
    one.send(Channel::Unreliable, b"hi").unwrap();
    let unreliable = one.pump(Time::ZERO, 500).unwrap();
    assert_eq!(unreliable, golden("01 01 01 00 01 02 'hi'"));
}

#[test]
fn transfers() {
    let mut chunk = vec![kind::BULK];
    let mut sender = BulkSender::new(7, vec![0xff].into(), BulkConfig::default()).unwrap();
    assert!(sender.next_chunk(Time::ZERO, &mut chunk));
    assert_eq!(chunk, golden("c8 07 00 00 00 00 00 00 00 00 00 ff"));
    let digest = phalanx_netcode::hash::digest(&[0xff]);
    let mut receiver = BulkReceiver::new(7, 1, digest, 100).unwrap();
    receiver.handle_chunk(Time::ZERO, &chunk[1..]).unwrap();
    let mut ack = vec![kind::BULK_ACK];
    assert!(receiver.write_ack(Time::ZERO, &mut ack));
    assert_eq!(ack, golden("c9 07 00 00 00 00 00 00 01 00"));
    sender.handle_ack(Time::ZERO, &ack[1..]).unwrap();
    assert!(sender.is_complete());
}

#[test]
fn input_batch() {
    // The example of the document: two slots of two bytes, both bases at tick 6.
    let mut history = InputHistory::new(2, 2);
    for tick in 1..=12_u8 {
        let second = if tick >= 10 { 0x80 } else { 0 };
        let at = Tick::new(u32::from(tick));
        history.push(Slot(0), at, Some(&[tick / 3, second]));
        history.push(Slot(1), at, (tick >= 9).then_some(&[5, 0]));
    }
    let mut encoder = BatchEncoder::new(2, 2);
    let mut known = InputHistory::new(2, 2);
    for slot in [Slot(0), Slot(1)] {
        encoder.rebase(slot, Tick::new(6), &history).unwrap();
        for tick in (1..=6).map(Tick::new) {
            known.push(slot, tick, history.get(slot, tick).bytes());
        }
    }
    let plan = BatchPlan::new(3, Tick::new(12));
    let mut bytes = Vec::new();
    encoder.encode(&plan, &history, 100, &mut bytes).unwrap();
    assert_eq!(bytes, golden("4f da 7b 04 f9 8f bf"));
    BatchDecoder::new(2, 2)
        .decode(&plan, Tick::new(20), &bytes, &mut known)
        .unwrap();
    for slot in [Slot(0), Slot(1)] {
        for tick in (1..=12).map(Tick::new) {
            assert_eq!(known.get(slot, tick), history.get(slot, tick));
        }
    }
}
