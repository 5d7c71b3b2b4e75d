use super::*;
use crate::prng::Prng;

fn pick(prng: &mut Prng, bound: u64) -> u32 {
    u32::try_from(prng.below(bound)).unwrap()
}

fn any_roster(prng: &mut Prng, members: u16, wide: bool) -> TermRoster {
    let step = if wide { 1 << 42 } else { 1 };
    let members: Vec<TermMember> = (0..members)
        .map(|index| TermMember {
            id: MemberId((1 << 48) - u64::from(index) * step),
            incarnation: prng.next_u32(),
            can_host: true,
            is_voter: usize::from(index) < TERM_VOTERS_MAX,
            wants_vote: prng.below(2) == 0,
        })
        .rev()
        .collect();
    let mut lineage = Lineage::founding(Term(u32::MAX / 2 - 100));
    for term in 0..12 {
        let base = Tick::new(u32::MAX - 1000 + term);
        lineage = lineage.continued(Term(u32::MAX / 2 - 90 + term), base);
    }
    let host = members[0].id;
    let standbys = members.iter().skip(1).map(|one| one.id);
    TermRoster {
        term: Term(u32::MAX / 2 - 79),
        version: prng.next_u32(),
        kind: ElectionKind::Failover,
        host,
        start: Tick::new(u32::MAX - 900),
        floor: lineage.position(lineage.base()),
        lineage,
        standbys: standbys.take(TERM_STANDBYS_MAX).collect(),
        members,
    }
}

fn any_certificate(roster: &TermRoster) -> Certificate {
    let votes = roster.voters().map(|voter| CastVote {
        voter,
        position: roster.floor,
        shown: Tick::MAX,
    });
    Certificate {
        votes: votes.collect(),
    }
}

fn all(prng: &mut Prng, members: u16) -> Vec<TermMessage> {
    let roster = any_roster(prng, members, false);
    let (term, seq) = (Term(pick(prng, 1 << 31)), prng.next_u32());
    let position = roster.floor;
    let tick = Tick::new(pick(prng, 1 << 20));
    vec![
        TermMessage::Heartbeat {
            term,
            seq,
            suspect_ms: 150,
            is_frozen: prng.below(2) == 0,
            tick,
            safe: tick.minus(3),
        },
        TermMessage::Echo {
            term,
            seq,
            position,
            version: 7,
        },
        TermMessage::Report {
            reached: vec![MemberId(1), MemberId(700)],
            median_us: prng.next_u32(),
            p95_us: 4,
            stalls: u16::MAX,
            tick_us: 9,
        },
        TermMessage::Suspect {
            promised: term,
            position,
            roster: roster.clone(),
        },
        TermMessage::VoteRequest {
            term,
            seq,
            suspect_ms: 2000,
            kind: ElectionKind::Unclean,
            position,
            roster: roster.clone(),
        },
        TermMessage::Vote {
            term,
            seq,
            position,
            shown: tick,
            upto: tick,
            records: vec![5; TERM_RECORDS_BYTES_MAX],
        },
        TermMessage::NewTerm {
            seq,
            suspect_ms: 0,
            certificate: any_certificate(&roster),
            roster: roster.clone(),
        },
        TermMessage::RosterUpdate { roster },
        TermMessage::Stale { promised: term },
        TermMessage::Prepare {
            term,
            target: MemberId(9),
            switch: tick,
        },
        TermMessage::Ready { term },
        TermMessage::Commit {
            term,
            target: MemberId(u64::MAX - 1),
            last: tick,
            hash: prng.next_u64(),
            upto: tick,
            records: vec![7; usize::try_from(prng.below(40)).unwrap()],
        },
        TermMessage::Abort { term },
        TermMessage::Goodbye {
            term,
            successor: (prng.below(2) == 0).then_some(MemberId(300)),
            position,
            shown: tick,
        },
        TermMessage::Forked {
            session: SessionId(u128::from(prng.next_u64()) << 64 | 7),
            last: tick,
        },
    ]
}

#[test]
fn every_message_comes_back_and_every_cut_or_addition_is_an_error() {
    let mut prng = Prng::new(3);
    for members in [1, 2, 8, 64] {
        for message in all(&mut prng, members) {
            let mut bytes = message.to_bytes();
            assert_eq!(TermMessage::decode(&bytes).as_ref(), Ok(&message));
            for cut in 0..bytes.len() {
                let read = TermMessage::decode(&bytes[..cut]);
                assert!(read.is_err(), "{} cut at {cut}", message.name());
            }
            bytes.push(0);
            assert!(TermMessage::decode(&bytes).is_err(), "{}", message.name());
        }
    }
}

#[test]
fn the_largest_message_fits() {
    let mut prng = Prng::new(4);
    // Members of as many terms as can be, as far as they have room.
    let everyone = any_roster(&mut prng, 64, true).members;
    assert_eq!(everyone.len(), TERM_MEMBERS_MAX);
    let mut roster = TermRoster {
        members: Vec::new(),
        ..any_roster(&mut prng, 8, false)
    };
    for one in everyone.into_iter().rev() {
        if roster.has_room_for(one.id) {
            roster.members.insert(0, one);
        }
    }
    assert!((40..64).contains(&roster.members.len()));
    roster.host = roster.members[0].id;
    let mut standbys = roster.members.iter().skip(1).map(|one| one.id);
    roster.standbys = standbys.by_ref().take(TERM_STANDBYS_MAX).collect();
    for (index, one) in roster.members.iter_mut().enumerate() {
        one.is_voter = index < TERM_VOTERS_MAX;
    }
    let largest = TermMessage::NewTerm {
        seq: u32::MAX,
        suspect_ms: 2000,
        certificate: any_certificate(&roster),
        roster,
    };
    let bytes = largest.to_bytes();
    assert!(bytes.len() <= TERM_MESSAGE_BYTES_MAX, "{} B", bytes.len());
    assert_eq!(TermMessage::decode(&bytes), Ok(largest));
}

#[test]
fn mutated_messages_are_refused_or_mean_something_within_the_limits() {
    let mut prng = Prng::new(5);
    let originals = all(&mut prng, 8);
    let mut accepted = 0;
    for _ in 0..40_000 {
        let which = usize::try_from(prng.below(originals.len() as u64)).unwrap();
        let mut bytes = originals[which].to_bytes();
        for _ in 0..=prng.below(3) {
            let at = usize::try_from(prng.below(bytes.len() as u64)).unwrap();
            bytes[at] = prng.next_u64().to_le_bytes()[0];
        }
        if let Ok(message) = TermMessage::decode(&bytes) {
            accepted += 1;
            assert_eq!(message.to_bytes(), bytes, "one form per message");
        }
    }
    assert!(accepted > 1000, "{accepted} of the mutated ones were read");
}

#[test]
fn a_roster_that_contradicts_itself_is_refused() {
    let mut prng = Prng::new(6);
    let sound = any_roster(&mut prng, 8, false);
    let read = |roster: TermRoster| {
        let bytes = TermMessage::RosterUpdate { roster }.to_bytes();
        TermMessage::decode(&bytes)
    };
    assert!(read(sound.clone()).is_ok());
    let breaks: [fn(&mut TermRoster); 7] = [
        |roster| roster.host = MemberId(1),
        |roster| roster.standbys = vec![roster.host],
        |roster| roster.standbys = vec![MemberId(2)],
        |roster| roster.members.swap(0, 1),
        |roster| roster.term = Term(3),
        |roster| roster.start = roster.lineage.base(),
        |roster| roster.floor.term = Term(roster.term.0 + 1),
    ];
    for (number, break_it) in breaks.iter().enumerate() {
        let mut roster = sound.clone();
        break_it(&mut roster);
        assert!(read(roster).is_err(), "contradiction {number}");
    }
}
