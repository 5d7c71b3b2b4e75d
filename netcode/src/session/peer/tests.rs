//! Outcomes of datagrams, between two ends of a path.

use super::*;
use crate::id::{SessionId, Term};

const TICK_US: u64 = 16_667;

/// Two ends of a path, and what became of the datagrams of the first.
struct Path2 {
    peers: [Peer; 2],
    now: Time,
    outcomes: Vec<(Seq, Outcome)>,
    /// Most bytes of a datagram of the second.
    longest: usize,
}

impl Path2 {
    fn new() -> Self {
        let key = TagKey::new(SessionId(3), Term(1), 7);
        let peer = || Peer::new(Path(0), MemberId(0), key, TickRate::DEFAULT, Time::ZERO);
        let mut peers = [peer(), peer()];
        peers[0].hears_missing = true;
        peers[1].tells_missing = true;
        Self {
            peers,
            now: Time::from_millis(1000),
            outcomes: Vec::new(),
            longest: 0,
        }
    }

    fn pack(&mut self, from: usize) -> Vec<u8> {
        let mut out = Vec::new();
        let tick = Some(Tick::new(self.peers[from].next_seq.number()));
        self.peers[from].pack(self.now, Time::ZERO, tick, |_, _, _| {}, &mut out);
        out
    }

    fn deliver(&mut self, to: usize, bytes: &[u8]) -> Result<(), DropReason> {
        let accepted = self.peers[to].open(self.now, bytes)?;
        self.peers[to].accept(self.now, &accepted);
        if to == 0 {
            let outcomes = self.peers[0].take_outcomes();
            self.outcomes.extend(outcomes);
        }
        Ok(())
    }
}

#[test]
fn every_datagram_has_one_outcome_and_it_is_the_right_one() {
    let seed = 11;
    let mut prng = crate::prng::Prng::new(seed);
    let mut path = Path2::new();
    let mut arrived = Vec::new();
    let mut way: std::collections::VecDeque<Vec<u8>> = std::collections::VecDeque::new();
    for round in 0..3000_u32 {
        path.now = path.now.plus_micros(TICK_US);
        let bytes = path.pack(0);
        // A stretch without any, now and then, and a twentieth of the rest.
        let cut = round % 700 > 690 || round % 900 > 600 && round % 900 < 680;
        let lost = cut || prng.chance_per_million(50_000);
        arrived.push(!lost);
        if !lost {
            path.deliver(1, &bytes).unwrap();
        }
        let answer = path.pack(1);
        if round > 100 {
            path.longest = path.longest.max(answer.len());
        }
        way.push_back(answer);
        if way.len() > 6 {
            let answer = way.pop_front().unwrap();
            if !prng.chance_per_million(50_000) {
                path.deliver(0, &answer).unwrap();
            }
        }
    }
    let mut outcomes = path.outcomes.clone();
    outcomes.sort_by_key(|&(seq, _)| seq);
    assert!(
        outcomes.len() > 2980,
        "only {} of 3000 resolved",
        outcomes.len()
    );
    for (number, (seq, outcome)) in outcomes.iter().enumerate() {
        assert_eq!(
            seq.number() as usize,
            number,
            "seed {seed}: twice, or left out"
        );
        let expected = if arrived[number] {
            Outcome::Acked
        } else {
            Outcome::Lost
        };
        assert_eq!(*outcome, expected, "seed {seed}: datagram {number}");
    }
}

#[test]
fn what_was_told_is_not_told_for_ever() {
    let mut path = Path2::new();
    let mut told = 0;
    for round in 0..200 {
        path.now = path.now.plus_micros(TICK_US);
        let bytes = path.pack(0);
        if round != 60 {
            path.deliver(1, &bytes).unwrap();
        }
        told += u32::from(path.peers[1].missing() != 0);
        let answer = path.pack(1);
        path.deliver(0, &answer).unwrap();
    }
    assert!((9..=14).contains(&told), "told {told} times");
}

#[test]
fn a_datagram_that_comes_after_two_others_is_not_lost() {
    let mut path = Path2::new();
    let datagrams: Vec<_> = (0..5).map(|_| path.pack(0)).collect();
    for at in [0, 2, 3, 1, 4] {
        path.deliver(1, &datagrams[at]).unwrap();
        let answer = path.pack(1);
        path.deliver(0, &answer).unwrap();
    }
    assert_eq!(path.deliver(1, &datagrams[3]), Err(DropReason::Duplicate));
    assert_eq!(path.deliver(1, &datagrams[4]), Err(DropReason::Duplicate));
    let acked = path
        .outcomes
        .iter()
        .filter(|(_, outcome)| *outcome == Outcome::Acked);
    assert_eq!(acked.count(), 5, "{:?}", path.outcomes);
}
