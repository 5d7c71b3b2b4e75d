//! The bytes of term messages, as WIRE.md says: whoever changes them must know.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use phalanx_netcode::id::{MemberId, SessionId, Term};
use phalanx_netcode::migration::{
    Ancestor, CastVote, Certificate, ElectionKind, Lineage, Position, TermMember, TermMessage,
    TermRoster,
};
use phalanx_netcode::tick::Tick;

/// The message has these bytes, which read as the message.
#[track_caller]
fn check(message: &TermMessage, text: &str) {
    let words = text.split_whitespace();
    let bytes: Vec<u8> = words
        .map(|word| u8::from_str_radix(word, 16).unwrap())
        .collect();
    assert_eq!(message.to_bytes(), bytes, "{message:?}");
    assert_eq!(TermMessage::decode(&bytes).as_ref(), Ok(message));
}

const fn position(term: u32, tick: u32) -> Position {
    Position {
        term: Term(term),
        tick: Tick::new(tick),
    }
}

/// Host 1 with standby 2, and 300, which only wants to vote.
fn roster() -> TermRoster {
    let member = |id: u64, incarnation: u32, can_host: bool, is_voter: bool| TermMember {
        id: MemberId(id),
        incarnation,
        can_host,
        is_voter,
        wants_vote: true,
    };
    let ancestor = |term: u32, base: u32| Ancestor {
        term: Term(term),
        base: Tick::new(base),
    };
    TermRoster {
        term: Term(3),
        version: 4,
        kind: ElectionKind::Failover,
        host: MemberId(1),
        start: Tick::new(302),
        floor: position(3, 301),
        lineage: Lineage::new(vec![ancestor(1, 0), ancestor(3, 300)]).unwrap(),
        members: vec![
            member(1, 7, true, true),
            member(2, 0x0102_0304, true, true),
            member(300, 9, false, false),
        ],
        standbys: vec![MemberId(2)],
    }
}

const ROSTER: &str = "03 04 01 01 ae 02 03 ad 02 02 01 00 03 ac 02 \
    03 01 07 07 00 00 00 01 07 04 03 02 01 aa 02 04 09 00 00 00 01 02";

#[test]
fn what_a_host_and_its_voters_say_all_the_time() {
    check(
        &TermMessage::Heartbeat {
            term: Term(3),
            seq: 70_000,
            suspect_ms: 150,
            is_frozen: true,
            tick: Tick::new(300),
            safe: Tick::new(298),
        },
        "01 03 f0 a2 04 96 01 01 ac 02 02",
    );
    check(
        &TermMessage::Echo {
            term: Term(3),
            seq: 5,
            position: position(3, 300),
            version: 4,
        },
        "02 03 05 03 ac 02 04",
    );
    check(
        &TermMessage::Report {
            reached: vec![MemberId(1), MemberId(300)],
            median_us: 50_000,
            p95_us: 70_000,
            stalls: 2,
            tick_us: 250,
        },
        "03 02 01 ac 02 d0 86 03 f0 a2 04 02 fa 01",
    );
    check(
        &TermMessage::Suspect {
            promised: Term(3),
            position: position(3, 300),
            roster: roster(),
        },
        &format!("04 03 03 ac 02 {ROSTER}"),
    );
}

#[test]
fn elections() {
    check(
        &TermMessage::VoteRequest {
            term: Term(4),
            seq: 6,
            suspect_ms: 250,
            kind: ElectionKind::Unclean,
            position: position(3, 310),
            roster: roster(),
        },
        &format!("05 04 06 fa 01 03 03 b6 02 {ROSTER}"),
    );
    check(
        &TermMessage::Vote {
            term: Term(4),
            seq: 6,
            position: position(3, 311),
            shown: Tick::new(312),
            upto: Tick::new(311),
            records: vec![0xaa, 0xbb],
        },
        "06 04 06 03 b7 02 b8 02 b7 02 02 aa bb",
    );
    check(
        &TermMessage::NewTerm {
            seq: 0,
            suspect_ms: 2000,
            certificate: Certificate {
                votes: vec![CastVote {
                    voter: MemberId(2),
                    position: position(3, 10),
                    shown: Tick::new(11),
                }],
            },
            roster: roster(),
        },
        &format!("07 00 d0 0f 01 02 03 0a 0b {ROSTER}"),
    );
    check(
        &TermMessage::RosterUpdate { roster: roster() },
        &format!("08 {ROSTER}"),
    );
    check(&TermMessage::Stale { promised: Term(9) }, "09 09");
}

#[test]
fn handovers_and_goodbyes() {
    let term = Term(4);
    check(
        &TermMessage::Prepare {
            term,
            target: MemberId(300),
            switch: Tick::new(20),
        },
        "0a 04 ac 02 14",
    );
    check(&TermMessage::Ready { term }, "0b 04");
    check(
        &TermMessage::Commit {
            term,
            target: MemberId(2),
            last: Tick::new(19),
            hash: 0x0102_0304_0506_0708,
            upto: Tick::new(19),
            records: vec![0xcc],
        },
        "0c 04 02 13 08 07 06 05 04 03 02 01 13 01 cc",
    );
    check(&TermMessage::Abort { term }, "0d 04");
    check(
        &TermMessage::Goodbye {
            term: Term(3),
            successor: Some(MemberId(2)),
            position: position(3, 19),
            shown: Tick::new(20),
        },
        "0e 03 01 02 03 13 14",
    );
    check(
        &TermMessage::Goodbye {
            term: Term(3),
            successor: None,
            position: position(3, 19),
            shown: Tick::new(20),
        },
        "0e 03 00 03 13 14",
    );
    check(
        &TermMessage::Forked {
            session: SessionId(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10),
            last: Tick::new(300),
        },
        "0f 10 0f 0e 0d 0c 0b 0a 09 08 07 06 05 04 03 02 01 ac 02",
    );
}
