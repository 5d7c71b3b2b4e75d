//! A host and standbys over a network that loses, doubles and reorders; damaged parts; bytes.

mod game;
mod line;
mod world;

use super::*;
use crate::id::{Slot, Term};
use crate::input::InputFrame;
use crate::prng::Prng;
use crate::state::Snapshot;
use crate::tick::TickRate;

use self::game::Game;
use self::line::Line;
use self::world::{World, schema};

fn config(budget: Option<u32>) -> StandbyConfig {
    StandbyConfig {
        rate: TickRate::new(60).unwrap(),
        budget_bytes_per_second: budget,
        mode: StandbyMode::Copies,
    }
}

fn push(stream: &mut StandbyStream, state: &mut Snapshot, context: &[u8]) {
    let hash = state.hash(&schema()).combined();
    stream.push(state.tick, hash, Some(state), context);
}

#[test]
fn standbys_hold_the_very_state_whatever_the_network_does() {
    for seed in 0..4 {
        let schema = schema();
        let mut stream = StandbyStream::new(&schema, Term(1), config(None));
        let mut world = World::new(200, seed);
        let lines = [(0, 0), (0, 4), (5, 2), (30, 5)];
        let mut lines = lines.map(|line| Line::new(&stream, line, seed));
        let mut states = Vec::new();
        let mut next = Snapshot::default();
        for now in 1..=300_u32 {
            world.step(&mut next);
            states.push(next.clone());
            push(&mut stream, &mut next, &now.to_le_bytes());
            for line in &mut lines {
                line.tick(now, &mut stream);
                for held in line
                    .standby
                    .states()
                    .skip(if now % 100 == 0 { 0 } else { 60 })
                {
                    let tick = held.state.tick.number();
                    assert_eq!(held.state, states[tick as usize - 1], "seed {seed}");
                    assert_eq!(held.hash, held.state.hash(&schema).combined());
                    assert_eq!(held.context, tick.to_le_bytes());
                }
                let known = line.feed.held().map_or(0, |tick| tick.number());
                assert!(known <= line.newest(), "seed {seed}: acked but not held");
            }
        }
        let behind = lines.each_ref().map(|line| 300 - line.newest());
        assert!(behind[0] == 0 && behind[1] <= 8, "seed {seed}: {behind:?}");
        assert!(
            behind[2] <= 12 && behind[3] <= 60,
            "seed {seed}: {behind:?}"
        );
        for line in &lines {
            assert_eq!(line.feed.statistics().wholes, 1, "seed {seed}");
        }
        // Two that hold the same states are sent the same bytes; a state that was acked costs less
        // than all of it.
        let whole = lines[0].feed.whole(&mut stream).unwrap().bytes.len() as u64;
        let sent = lines[1].feed.statistics();
        assert!(sent.bytes / sent.ticks < whole / 2, "{sent:?} of {whole}");
    }
}

#[test]
fn a_standby_that_was_away_for_long_goes_on_from_what_it_holds() {
    let schema = schema();
    let mut stream = StandbyStream::new(&schema, Term(1), config(None));
    let mut world = World::new(50, 3);
    let mut line = Line::new(&stream, (0, 0), 3);
    let mut next = Snapshot::default();
    for now in 1..=400 {
        world.step(&mut next);
        push(&mut stream, &mut next, &[]);
        line.loss = if (100..300).contains(&now) { 100 } else { 0 };
        line.tick(now, &mut stream);
    }
    assert_eq!(line.newest(), 400);
    assert_eq!(line.feed.statistics().wholes, 1);
}

#[test]
fn a_budget_leaves_ticks_out() {
    let schema = schema();
    let mut stream = StandbyStream::new(&schema, Term(1), config(Some(30_000)));
    let mut world = World::new(400, 5);
    let mut line = Line::new(&stream, (0, 1), 5);
    let mut next = Snapshot::default();
    for now in 1..=600 {
        world.step(&mut next);
        push(&mut stream, &mut next, &[]);
        line.tick(now, &mut stream);
    }
    let sent = line.feed.statistics();
    assert!(sent.over_budget > 60, "{sent:?}");
    assert!(sent.bytes < 310_000, "ten seconds at 30 kB: {sent:?}");
    assert!(line.newest() > 580, "{}", line.newest());
}

/// A host and a standby that holds its states up to tick 3.
fn pair() -> (StandbyStream, StandbyFeed, StandbyState, World) {
    let schema = schema();
    let mut stream = StandbyStream::new(&schema, Term(1), config(None));
    let (mut feed, mut world) = (StandbyFeed::new(&stream), World::new(1000, 9));
    let mut standby = StandbyState::new(&schema, Term(1));
    let mut next = Snapshot::default();
    for tick in 1..=3 {
        world.step(&mut next);
        push(&mut stream, &mut next, &[7; 9]);
        if tick == 1 {
            let whole = feed.whole(&mut stream).unwrap();
            standby.install_whole(&whole.bytes).unwrap();
        }
        feed.begin_tick(&mut stream);
        let mut part = Vec::new();
        while feed.next_part(&mut part) {
            standby.handle_part(&part).unwrap();
            part.clear();
        }
        feed.on_ack(&stream, &standby.ack());
    }
    assert_eq!(feed.held(), Some(Tick::new(3)));
    (stream, feed, standby, world)
}

fn parts(feed: &mut StandbyFeed, stream: &mut StandbyStream) -> Vec<Vec<u8>> {
    feed.begin_tick(stream);
    let mut parts = vec![Vec::new()];
    while feed.next_part(parts.last_mut().unwrap()) {
        parts.push(Vec::new());
    }
    parts.pop();
    parts
}

#[test]
fn a_standby_that_runs_needs_inputs_and_hashes_only() {
    for seed in 0..20 {
        let mut host = Game::new();
        let config = StandbyConfig {
            mode: StandbyMode::Runs,
            ..config(None)
        };
        let mut stream = StandbyStream::new(&host.schema, Term(1), config);
        let lines = [(0, 0), (0, 4), (10, 2), (40, 6)];
        let mut lines = lines.map(|line| (Line::new(&stream, line, seed), Game::new()));
        let mut prng = Prng::new(seed);
        let mut hashes = vec![0];
        let mut states = 0;
        for now in 1..=400 {
            let input = [u8::from(prng.below(10) == 0); 40];
            host.step(&input);
            if now == 300 {
                // The host does what no input tells.
                host.number += 1;
            }
            let needs_state = lines.iter().any(|(line, _)| line.feed.needs_state());
            let mut state = needs_state.then(|| host.state());
            states += u32::from(needs_state && now < 300);
            hashes.push(host.hash());
            let tick = Tick::new(now);
            stream.push(tick, host.hash(), state.as_mut(), &input);
            for (line, game) in &mut lines {
                line.tick(now, &mut stream);
                game.obey(&mut line.standby);
                if let Some(newest) = line.standby.newest() {
                    let newest = newest.number() as usize;
                    let (hash, _) = line.standby.newest_told().unwrap();
                    assert_eq!(hash, hashes[newest], "seed {seed}");
                    if line.standby.mode() == StandbyMode::Runs {
                        assert_eq!(game.hash(), hash, "seed {seed}");
                    }
                }
                let known = line.feed.held().map_or(0, |tick| tick.number());
                assert!(known <= line.newest(), "seed {seed}: acked but not held");
            }
            if now == 299 {
                for (line, _) in &lines {
                    assert_eq!(line.feed.mode(), StandbyMode::Runs, "seed {seed}");
                    assert!(line.newest() > 260, "seed {seed}: {}", line.newest());
                }
            }
        }
        assert!(states < 30, "seed {seed}: {states} states were made");
        for (line, _) in &mut lines {
            assert_eq!(line.feed.mode(), StandbyMode::Copies, "seed {seed}");
            assert!(line.newest() > 360, "seed {seed}: {}", line.newest());
            let state = &line.standby.newest_state().unwrap().state;
            let tick = line.newest() as usize;
            assert_eq!(state.hash(&host.schema).combined(), hashes[tick]);
        }
    }
}

#[test]
fn who_runs_hands_its_ticks_on() {
    let mut host = Game::new();
    let config = StandbyConfig {
        mode: StandbyMode::Runs,
        ..config(None)
    };
    let mut stream = StandbyStream::new(&host.schema, Term(1), config);
    let two = || (StandbyState::new(&host.schema, Term(1)), Game::new());
    let ((mut ahead, mut first), (mut behind, mut second)) = (two(), two());
    let mut feed = StandbyFeed::new(&stream);
    for tick in 1..=60 {
        host.step(&[3; 50]);
        let mut state = (tick == 1).then(|| host.state());
        stream.push(Tick::new(tick), host.hash(), state.as_mut(), &[3; 50]);
        if tick == 1 {
            let whole = feed.whole(&mut stream).unwrap();
            ahead.install_whole(&whole.bytes).unwrap();
            behind.install_whole(&whole.bytes).unwrap();
        }
        feed.begin_tick(&mut stream);
        let mut part = Vec::new();
        while feed.next_part(&mut part) {
            ahead.handle_part(&part).unwrap();
            if tick <= 5 {
                behind.handle_part(&part).unwrap();
            }
            part.clear();
        }
        first.obey(&mut ahead);
        second.obey(&mut behind);
        feed.on_ack(&stream, &ahead.ack());
    }
    assert_eq!(behind.newest(), Some(Tick::new(5)));
    let mut rounds = 0;
    while behind.newest() < ahead.newest() {
        let mut records = Vec::new();
        let after = behind.newest().unwrap();
        let reached = ahead.records_after(after, 200, &mut records).unwrap();
        assert!(records.len() <= 200 && reached > after);
        assert_eq!(behind.take_records(&records), Ok(reached));
        second.obey(&mut behind);
        assert_eq!(behind.newest(), Some(reached));
        rounds += 1;
    }
    assert!(rounds < 10, "the same inputs over and over take few bytes");
    assert_eq!(second.hash(), host.hash());
    // A term that goes on from a tick that has been passed: it needs a whole state.
    behind.begin_term(Term(2), Tick::new(60));
    assert!(!behind.ack().needs_whole);
    behind.begin_term(Term(3), Tick::new(59));
    assert!(behind.ack().needs_whole || behind.newest() == Some(Tick::new(1)));
}

#[test]
fn a_state_that_is_not_the_hosts_is_noticed_and_replaced() {
    let (mut stream, mut feed, mut standby, mut world) = pair();
    // Something is wrong with the standby's memory: the random number differs by a bit.
    let held = standby.newest_state().unwrap().clone();
    let mut wrong = held.clone();
    wrong.state.kinds[2].bytes[0] ^= 1;
    let mut bytes = Vec::new();
    let head = ContentHead {
        hash: wrong.state.hash(&schema()).combined(),
        context: &[],
    };
    head.encode(&mut bytes);
    wrong.state.compress(&schema(), &mut bytes);
    standby = StandbyState::new(&schema(), Term(1));
    standby.install_whole(&bytes).unwrap();

    let mut next = Snapshot::default();
    world.step(&mut next);
    // The number does not change in this tick, or the delta would mend it.
    next.kinds[2] = held.state.kinds[2].clone();
    push(&mut stream, &mut next, &[]);
    let only_newest = StandbyAck {
        number: 50,
        before: 0,
        ..standby.ack()
    };
    feed.on_ack(&stream, &only_newest);
    let parts = parts(&mut feed, &mut stream);
    let results: Vec<_> = parts.iter().map(|part| standby.handle_part(part)).collect();
    assert_eq!(
        results.last(),
        Some(&Err(StandbyError::WrongHash(Tick::new(4))))
    );
    let mut ack = standby.ack();
    ack.number += 100;
    assert!(ack.needs_whole);
    feed.on_ack(&stream, &ack);
    assert!(feed.needs_whole());
    let whole = feed.whole(&mut stream).unwrap();
    assert_eq!(standby.install_whole(&whole.bytes), Ok(Tick::new(4)));
    let mut ack = standby.ack();
    ack.number += 100;
    feed.on_ack(&stream, &ack);
    assert_eq!(feed.held(), Some(Tick::new(4)));
}

#[test]
fn records_bring_another_standby_up_to_date() {
    let (_, _, ahead, _) = pair();
    let (_, _, mut behind, _) = pair();
    behind.begin_term(Term(2), Tick::new(1));
    assert_eq!(behind.newest(), Some(Tick::new(1)));
    let mut records = Vec::new();
    assert_eq!(ahead.records_after(Tick::new(1), 10, &mut records), None);
    assert!(records.is_empty(), "too little room");
    let reached = ahead.records_after(Tick::new(1), 100_000, &mut records);
    assert_eq!(reached, Some(Tick::new(3)));
    assert_eq!(behind.take_records(&records), Ok(Tick::new(3)));
    let states = [&behind, &ahead].map(|standby| &standby.newest_state().unwrap().state);
    assert_eq!(states[0], states[1]);
    assert_eq!(
        ahead.records_after(Tick::new(3), 100_000, &mut records),
        None
    );
    assert_eq!(
        ahead.records_after(Tick::new(9), 100_000, &mut records),
        None
    );
}

#[test]
fn parts_of_another_term_or_of_what_is_held_change_nothing() {
    let (mut stream, mut feed, mut standby, mut world) = pair();
    let mut next = Snapshot::default();
    world.step(&mut next);
    push(&mut stream, &mut next, &[]);
    let parts = parts(&mut feed, &mut stream);
    assert!(parts.len() > 1, "several parts");
    let mut other = StandbyState::new(&schema(), Term(2));
    assert_eq!(other.handle_part(&parts[0]), Err(StandbyError::OtherTerm));
    let mut empty = StandbyState::new(&schema(), Term(1));
    let results: Vec<_> = parts.iter().map(|part| empty.handle_part(part)).collect();
    assert_eq!(
        results.last(),
        Some(&Err(StandbyError::NoStart(Tick::new(3))))
    );
    for part in parts.iter().rev() {
        let _incomplete = standby.handle_part(part).unwrap();
        let _doubled = standby.handle_part(part).unwrap();
    }
    assert_eq!(standby.newest(), Some(Tick::new(4)));
    assert_eq!(standby.handle_part(&parts[0]), Ok(None), "held already");
}

#[test]
fn damaged_parts_change_nothing_or_are_noticed() {
    let (mut accepted, mut refused) = (0, 0);
    let (mut stream, mut feed, mut standby, mut world) = pair();
    let mut next = Snapshot::default();
    world.step(&mut next);
    push(&mut stream, &mut next, &[]);
    let parts = parts(&mut feed, &mut stream);
    let mut prng = Prng::new(4);
    for round in 0..20_000 {
        let mut part = parts[round % parts.len()].clone();
        for _ in 0..=prng.below(3) {
            // Heads are hit as often as payloads.
            let upto = if prng.below(2) == 0 {
                12
            } else {
                part.len() as u64
            };
            let at = usize::try_from(prng.below(upto)).unwrap();
            match prng.below(4) {
                0 => drop(part.remove(at)),
                1 => part.insert(at, 0x80),
                _ => part[at] = prng.next_u64().to_le_bytes()[0],
            }
        }
        match standby.handle_part(&part) {
            Ok(_) => accepted += 1,
            Err(_) => refused += 1,
        }
        if round % 100 == 0 {
            // Damaged payloads end in a wrong hash, and the assembly begins again.
            standby.begin_term(Term(1), Tick::new(3));
        }
        let newest = standby.newest_state().unwrap();
        let tick = newest.state.tick;
        assert!(tick == Tick::new(3) || Some(newest.hash) == stream.hash_at(tick));
    }
    assert!(accepted > 100 && refused > 10_000, "{accepted} {refused}");
}

#[test]
fn contexts_come_back() {
    let mut frame = InputFrame::empty(Tick::new(9), 3, 2);
    frame.set(Slot(0), &[1, 2]);
    frame.set(Slot(2), &[3, 4]);
    let context = TickContext {
        roster: (Term(2), 300),
        frame,
        pending: vec![PendingInput {
            slot: Slot(1),
            tick: Tick::new(11),
            bytes: vec![5, 6],
        }],
        extra: vec![7, 8],
    };
    let mut bytes = Vec::new();
    context.encode(&mut bytes);
    let expected = [
        &[2, 0xac, 0x02][..],
        &[0b101, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4],
        &[1, 1, 2, 5, 6],
        &[2, 7, 8],
    ]
    .concat();
    assert_eq!(bytes, expected);
    let decode = |bytes: &[u8]| TickContext::decode(bytes, Tick::new(9), 3, 2);
    assert_eq!(decode(&bytes), Ok(context));
    for len in 0..bytes.len() {
        assert!(decode(&bytes[..len]).is_err(), "cut to {len}");
    }
    bytes[3] = 0b1000;
    assert!(decode(&bytes).is_err(), "a slot that is not there");
}

#[test]
fn the_bytes_are_these() {
    let mut bytes = Vec::new();
    let ack = StandbyAck {
        number: 0x0403_0201,
        newest: Some(Tick::new(9)),
        before: 0b101,
        needs_whole: true,
        has_diverged: true,
    };
    ack.encode(&mut bytes);
    assert_eq!(bytes, [7, 1, 2, 3, 4, 9, 0, 0, 0, 5, 0, 0, 0]);
    assert_eq!(StandbyAck::decode(&bytes), Ok(ack));
    let ticks: Vec<u32> = ack.ticks().map(|tick| tick.number()).collect();
    assert_eq!(ticks, [9, 8, 6]);
    assert!(StandbyAck::decode(&bytes[..12]).is_err());
    bytes[0] = 8;
    assert!(StandbyAck::decode(&bytes).is_err(), "an unknown flag");
    bytes[0] = 2;
    assert!(
        StandbyAck::decode(&bytes).is_err(),
        "a tick without a state"
    );

    bytes.clear();
    let head = PartHead {
        term: 2,
        tick: Tick::new(0x0100),
        size: 1133,
        index: 1,
    };
    head.encode(&mut bytes);
    assert_eq!(bytes, [2, 0, 1, 0, 0, 0xed, 0x08, 1]);
    bytes.extend([1, 2, 3]);
    let mut reader = Reader::new(&bytes);
    assert_eq!(PartHead::decode(&mut reader), Ok(head));
    assert_eq!(reader.rest(), [1, 2, 3]);
    bytes.push(4);
    assert!(
        PartHead::decode(&mut Reader::new(&bytes)).is_err(),
        "longer"
    );
}
