//! Replays of a toy game: what is recorded plays, seeks, verifies, and survives damage.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::io::{Cursor, Read, Seek, SeekFrom, Write};
use std::sync::mpsc;

use phalanx_netcode::hash::digest;
use phalanx_netcode::id::{MemberId, SessionId, Slot, Term};
use phalanx_netcode::input::InputFrame;
use phalanx_netcode::link::replay_file::{RecordError, ReplayFile};
use phalanx_netcode::prng::Prng;
use phalanx_netcode::replay::{
    Cause, Completeness, Damage, Header, Mode, OpenError, PlayError, Player, ReadError, Reader,
    TermCause, TermChange, VerifyError, VerifyReport, WriteError, Writer,
};
use phalanx_netcode::simulation::{Simulation, StepKind};
use phalanx_netcode::state::{Snapshot, StateHash};
use phalanx_netcode::tick::{Tick, TickRate};
use toy::{State, Toy};

#[path = "replay/files.rs"]
mod files;
#[path = "replay/states.rs"]
mod states;
#[path = "replay/storm.rs"]
mod storm;
#[path = "replay/toy.rs"]
mod toy;

const SLOTS: u8 = 3;
const INPUT_BYTES: u8 = 4;

/// What a recording looks like.
#[derive(Clone, Copy)]
struct Plan {
    start: u32,
    ticks: u32,
    units: u32,
    chunk_ticks: u32,
    hash_every: u32,
    keyframe_every: u32,
}

const SMALL: Plan = Plan {
    start: 0,
    ticks: 40,
    units: 3,
    chunk_ticks: 7,
    hash_every: 1,
    keyframe_every: 16,
};

fn header(toy: &Toy) -> Header {
    Header {
        game: "toy".to_owned(),
        build: "1.0-test".to_owned(),
        mode: Mode::Lockstep,
        tick_rate: TickRate::DEFAULT,
        input_bytes: INPUT_BYTES,
        seed: 7,
        session: SessionId(0x1234),
        schema: toy.schema().clone(),
        roster: vec!["Ada".to_owned(), String::new(), "Grace".to_owned()],
        start: toy.tick(),
    }
}

fn export(toy: &mut Toy) -> Snapshot {
    let mut image = State::default();
    toy.capture(&mut image);
    toy.export(&image)
}

fn combined(toy: &mut Toy) -> u64 {
    let mut hash = StateHash::default();
    toy.hash(&mut hash);
    hash.combined()
}

/// Changes some of the inputs, as players do between two ticks.
fn next_inputs(prng: &mut Prng, frame: &mut InputFrame) {
    frame.set_tick(frame.tick().next());
    for slot in 0..frame.slots() {
        if prng.chance_per_million(150_000) {
            let mut input = [0; INPUT_BYTES as usize];
            input[0] = prng.next_u64().to_le_bytes()[0];
            input[1] = prng.next_u64().to_le_bytes()[0];
            frame.set(Slot(slot), &input);
        } else if prng.chance_per_million(10_000) {
            frame.clear(Slot(slot));
        }
    }
}

/// Plays a match and records it. Gives the file, and the state at every tick.
fn record(plan: Plan) -> (Vec<u8>, Vec<State>) {
    let mut toy = Toy::new(7, plan.units, Tick::new(plan.start));
    let mut writer = Writer::with_chunk_ticks(Vec::new(), &header(&toy), plan.chunk_ticks).unwrap();
    let mut states = vec![toy.state().clone()];
    writer.keyframe(&export(&mut toy)).unwrap();
    writer.hash(toy.tick(), combined(&mut toy)).unwrap();
    let mut prng = Prng::new(99);
    let mut frame = InputFrame::empty(toy.tick(), SLOTS, INPUT_BYTES);
    for tick in 1..=plan.ticks {
        next_inputs(&mut prng, &mut frame);
        toy.step(&frame, StepKind::First);
        states.push(toy.state().clone());
        writer.frame(&frame).unwrap();
        if tick % plan.hash_every == 0 {
            writer.hash(toy.tick(), combined(&mut toy)).unwrap();
        }
        if tick % plan.keyframe_every == 0 {
            writer.keyframe(&export(&mut toy)).unwrap();
        }
    }
    let (bytes, summary) = writer.finish().unwrap();
    assert_eq!(summary.bytes, bytes.len() as u64);
    assert_eq!(summary.last, Tick::new(plan.start + plan.ticks));
    (bytes, states)
}

fn open(bytes: &[u8]) -> Reader<Cursor<&[u8]>> {
    Reader::open(Cursor::new(bytes)).unwrap()
}

fn verify(bytes: &[u8]) -> Result<VerifyReport, VerifyError> {
    let reader = open(bytes);
    // The setup comes from the replay: a simulation with another one plays it all the same.
    let toy = Toy::new(1, 9, Tick::ZERO);
    Player::new(toy, reader)?.verify(|_, _| ())
}

/// Offsets of the chunks, and the kind and tick range of each: as `docs/REPLAY.md` says.
fn chunks(bytes: &[u8]) -> Vec<(usize, u8, u32, u32)> {
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let mut at = 16 + word(12) as usize + 8;
    let mut found = Vec::new();
    while bytes.len() - at > 24 {
        found.push((at, bytes[at + 2], word(at + 4), word(at + 8)));
        at += 28 + word(at + 12) as usize;
    }
    found.push((at, 0, 0, 0));
    found
}

/// Corrects the checksums of the chunk at `at` after someone has changed it.
fn forge(bytes: &mut [u8], at: usize) {
    let length = u32::from_le_bytes(bytes[at + 12..at + 16].try_into().unwrap()) as usize;
    let checksum = digest(&bytes[at + 28..at + 28 + length]).to_le_bytes();
    bytes[at + 16..at + 24].copy_from_slice(&checksum);
    let check = digest(&bytes[at..at + 24]).to_le_bytes();
    bytes[at + 24..at + 28].copy_from_slice(&check[..4]);
}

#[test]
fn what_was_recorded_verifies_to_the_last_hash() {
    let (bytes, _) = record(SMALL);
    let report = verify(&bytes).unwrap();
    assert_eq!(report.completeness, Completeness::Complete);
    assert_eq!((report.first, report.last), (Tick::ZERO, Tick::new(40)));
    assert_eq!((report.hashes, report.keyframes), (41, 2));
}

#[test]
fn a_recording_may_start_in_the_middle_of_a_match() {
    let plan = Plan {
        start: 5000,
        hash_every: 3,
        ..SMALL
    };
    let (bytes, states) = record(plan);
    let report = verify(&bytes).unwrap();
    assert_eq!((report.first.number(), report.last.number()), (5000, 5040));
    let mut player = Player::new(Toy::new(0, 0, Tick::ZERO), open(&bytes)).unwrap();
    player.seek(Tick::new(5017)).unwrap();
    assert_eq!(player.simulation().state(), &states[17]);
    let outside = player.seek(Tick::new(4999));
    assert!(
        matches!(outside, Err(PlayError::OutOfRange { .. })),
        "{outside:?}"
    );
}

#[test]
fn seeking_gives_the_state_of_continuous_play() {
    let plan = Plan {
        ticks: 1500,
        keyframe_every: 200,
        chunk_ticks: 120,
        units: 8,
        ..SMALL
    };
    let (bytes, states) = record(plan);
    let mut player = Player::new(Toy::new(0, 0, Tick::ZERO), open(&bytes)).unwrap();
    let mut prng = Prng::new(3);
    for _ in 0..200 {
        let tick = u32::try_from(prng.below(1501)).unwrap();
        player.seek(Tick::new(tick)).unwrap();
        assert_eq!(
            player.simulation().state(),
            &states[tick as usize],
            "tick {tick}"
        );
        let (simulated, recorded) = player.hashes().unwrap();
        assert_eq!(Some(simulated), recorded, "tick {tick}");
    }
    player.seek(Tick::new(1499)).unwrap();
    assert!(player.step().unwrap(), "tick 1500 is left");
    assert!(!player.step().unwrap(), "the replay is over");
    assert_eq!(player.simulation().state(), &states[1500]);
}

#[test]
fn frames_hashes_and_keyframes_come_back_by_tick() {
    let plan = Plan {
        hash_every: 5,
        ..SMALL
    };
    let (bytes, _) = record(plan);
    let mut reader = open(&bytes);
    let mut prng = Prng::new(99);
    let mut frame = InputFrame::empty(Tick::ZERO, SLOTS, INPUT_BYTES);
    assert_eq!(reader.frame_at(Tick::ZERO).unwrap(), None);
    for tick in 1..=40 {
        next_inputs(&mut prng, &mut frame);
        assert_eq!(
            reader.frame_at(Tick::new(tick)).unwrap(),
            Some(&frame),
            "tick {tick}"
        );
        let hash = reader.hash_at(Tick::new(tick)).unwrap();
        assert_eq!(hash.is_some(), tick % 5 == 0, "tick {tick}");
        let keyframe = reader.keyframe_before(Tick::new(tick)).unwrap();
        assert_eq!(keyframe.tick.number(), tick / 16 * 16, "tick {tick}");
    }
    assert_eq!(reader.frame_at(Tick::new(41)).unwrap(), None);
}

#[test]
fn a_file_cut_anywhere_plays_up_to_its_last_whole_chunk() {
    let (bytes, states) = record(SMALL);
    let chunks = chunks(&bytes);
    let body = chunks[0].0;
    for length in 0..bytes.len() {
        let opened = Reader::open(Cursor::new(&bytes[..length]));
        if length < body {
            assert!(
                matches!(opened, Err(OpenError::Truncated)),
                "length {length}: {opened:?}"
            );
            continue;
        }
        let reader = opened.unwrap();
        let whole = chunks.windows(2).filter(|pair| pair[1].0 <= length);
        let last = whole
            .filter(|pair| pair[0].1 == 1)
            .map(|pair| pair[0].3)
            .max();
        assert_eq!(
            reader.last_tick().number(),
            last.unwrap_or(0),
            "length {length}"
        );
        let cut = matches!(reader.completeness(), Completeness::Cut { .. });
        assert!(cut, "length {length}: {:?}", reader.completeness());
        let Ok(mut player) = Player::new(Toy::new(0, 0, Tick::ZERO), reader) else {
            assert!(
                length < chunks[1].0,
                "length {length}: the first keyframe is whole"
            );
            continue;
        };
        match player.verify(|_, _| ()) {
            Ok(report) => assert_eq!(report.last.number(), last.unwrap_or(0), "length {length}"),
            Err(VerifyError::NothingToCompare) => assert!(length < chunks[3].0, "length {length}"),
            Err(error) => panic!("length {length}: {error}"),
        }
        player.seek(Tick::new(last.unwrap_or(0))).unwrap();
        assert_eq!(
            player.simulation().state(),
            &states[last.unwrap_or(0) as usize]
        );
    }
}

#[test]
fn no_changed_byte_verifies() {
    let (bytes, _) = record(SMALL);
    for at in 0..bytes.len() {
        for mask in [0x01, 0x80, 0xff] {
            let mut changed = bytes.clone();
            changed[at] ^= mask;
            if let Ok(reader) = Reader::open(Cursor::new(&changed[..]))
                && let Ok(mut player) = Player::new(Toy::new(0, 0, Tick::ZERO), reader)
            {
                let verified = player.verify(|_, _| ());
                assert!(verified.is_err(), "byte {at} ^ {mask:#x}: {verified:?}");
            }
        }
    }
}

#[test]
fn a_damaged_chunk_names_its_ticks_and_the_rest_plays() {
    let (bytes, states) = record(SMALL);
    let chunks = chunks(&bytes);
    let &(at, _, first, last) = chunks
        .iter()
        .find(|chunk| chunk.1 == 1 && chunk.2 > 16)
        .unwrap();
    let mut changed = bytes.clone();
    changed[at + 30] ^= 1;
    let mut player = Player::new(Toy::new(0, 0, Tick::ZERO), open(&changed)).unwrap();
    let Err(VerifyError::Play(PlayError::Read(ReadError::Damaged {
        first: from,
        last: to,
        ..
    }))) = player.verify(|_, _| ())
    else {
        panic!("the damage is not reported");
    };
    assert_eq!((from.number(), to.number()), (first, last));
    // The keyframe at tick 32 lies behind the damage.
    player.seek(Tick::new(36)).unwrap();
    assert_eq!(player.simulation().state(), &states[36]);

    // The same without the index: whole chunks are found on both sides of the damaged one.
    changed.truncate(bytes.len() - 30);
    for broken in [at, at + 30] {
        let mut changed = changed.clone();
        changed[broken] ^= 0x55;
        let mut reader = open(&changed);
        let Completeness::Damaged(Damage::Ticks {
            first: from,
            last: to,
        }) = reader.completeness()
        else {
            panic!("byte {broken}: {:?}", reader.completeness());
        };
        assert!(
            from.number() <= first && to.number() >= last,
            "byte {broken}: {from} to {to}"
        );
        let missing = reader.frame_at(Tick::new(first)).map(|_| ());
        let Err(ReadError::Missing {
            first: from,
            last: to,
        }) = missing
        else {
            panic!("byte {broken}: {missing:?}");
        };
        assert_eq!((from.number(), to.number()), (first, last));
        let mut player = Player::new(Toy::new(0, 0, Tick::ZERO), reader).unwrap();
        player.seek(Tick::new(36)).unwrap();
        assert_eq!(player.simulation().state(), &states[36]);
        assert!(player.verify(|_, _| ()).is_err());
    }
}

#[test]
fn a_replay_without_its_first_keyframe_plays_from_a_later_one() {
    let (bytes, states) = record(SMALL);
    let (at, ..) = chunks(&bytes)[0];
    let mut changed = bytes.clone();
    changed[at + 28] ^= 1;
    let new = Player::new(Toy::new(0, 0, Tick::ZERO), open(&changed));
    assert!(matches!(
        new,
        Err(PlayError::Read(ReadError::Damaged { .. }))
    ));
    let toy = Toy::new(0, 0, Tick::ZERO);
    let mut player = Player::open_at(toy, open(&changed), Tick::new(20)).unwrap();
    assert_eq!(player.simulation().state(), &states[20]);
    assert!(player.seek(Tick::new(3)).is_err());
    assert!(player.verify(|_, _| ()).is_err());
    player.seek(Tick::new(40)).unwrap();
    assert_eq!(player.simulation().state(), &states[40]);
}

#[test]
fn texts_of_a_file_do_not_steer_a_terminal() {
    let toy = Toy::new(7, 3, Tick::ZERO);
    let mut header = header(&toy);
    header.roster[0] = "\u{1b}[2J".to_owned();
    let bytes = header.encode().unwrap();
    let text = open(&bytes).info().unwrap().to_string();
    assert!(text.contains("u{1b}") && !text.contains('\u{1b}'), "{text}");
}

#[test]
fn other_rules_diverge_at_the_first_tick_that_differs() {
    let (bytes, states) = record(SMALL);
    let mut other = Toy::new(0, 0, Tick::ZERO);
    other.stride = 4;
    // The first tick on which the two rules give different states, by playing both.
    let mut witness = Player::new(other.clone(), open(&bytes)).unwrap();
    let mut wrong = 0;
    while witness.simulation().state() == &states[wrong as usize] {
        assert!(witness.step().unwrap());
        wrong += 1;
    }
    let Err(VerifyError::Diverged {
        tick, good, cause, ..
    }) = Player::new(other, open(&bytes)).unwrap().verify(|_, _| ())
    else {
        panic!("the other rules verify");
    };
    assert_eq!((tick.number(), good), (wrong, Some(Tick::new(wrong - 1))));
    assert_eq!(cause, Cause::State);
}

#[test]
fn a_forged_input_is_found_at_its_tick() {
    let (bytes, _) = record(Plan {
        ticks: 12,
        chunk_ticks: 12,
        keyframe_every: 100,
        ..SMALL
    });
    let (at, ..) = *chunks(&bytes).iter().find(|chunk| chunk.1 == 1).unwrap();
    assert_eq!(bytes[at + 3], 0, "so short a chunk is stored plain");
    let length = u32::from_le_bytes(bytes[at + 12..at + 16].try_into().unwrap()) as usize;
    let mut found = 0;
    for byte in at + 28..at + 28 + length {
        let mut forged = bytes.clone();
        forged[byte] ^= 0x40;
        forge(&mut forged, at);
        // The first tick whose frame differs, if the chunk decodes at all.
        let (mut old, mut new) = (open(&bytes), open(&forged));
        let differs = |tick: u32| {
            let tick = Tick::new(tick);
            Some(new.frame_at(tick).ok()?? != old.frame_at(tick).unwrap().unwrap())
        };
        let wrong: Option<Vec<bool>> = (1..=12).map(differs).collect();
        let verified = verify(&forged);
        let Some(wrong) = wrong else {
            let undecodable = matches!(
                verified,
                Err(VerifyError::Play(PlayError::Read(
                    ReadError::Undecodable { .. }
                )))
            );
            assert!(undecodable, "byte {byte}: {verified:?}");
            continue;
        };
        let wrong = u32::try_from(wrong.iter().position(|&differs| differs).unwrap() + 1).unwrap();
        match verified {
            Err(VerifyError::Diverged { tick, cause, .. }) => {
                // A unit may not care at once, but never diverges before its input does.
                assert!(tick.number() >= wrong, "byte {byte}: {tick} before {wrong}");
                assert_eq!(cause, Cause::Inputs, "byte {byte}");
                found += u32::from(tick.number() == wrong);
            }
            Err(VerifyError::Inputs { .. }) => {}
            other => panic!("byte {byte}: {other:?}"),
        }
    }
    assert!(found > 0, "no forged input was found at its own tick");
}

#[test]
fn a_forged_keyframe_and_a_forged_hash_are_found() {
    let (bytes, _) = record(SMALL);
    for (kind, at_payload) in [(3, 20), (2, 20)] {
        let chunks = chunks(&bytes);
        let &(at, _, first, last) = chunks
            .iter()
            .find(|chunk| chunk.1 == kind && chunk.2 > 10)
            .unwrap();
        let mut forged = bytes.clone();
        let length = u32::from_le_bytes(bytes[at + 12..at + 16].try_into().unwrap()) as usize;
        forged[at + 28 + length - at_payload / 4] ^= 1;
        forge(&mut forged, at);
        match verify(&forged) {
            Err(VerifyError::Keyframe { tick, differences }) => {
                assert_eq!((kind, tick.number()), (3, first));
                assert_eq!(differences.len(), 1, "{differences:?}");
                assert_eq!(differences[0].kind, "Unit");
            }
            Err(VerifyError::Diverged {
                tick,
                cause: Cause::State,
                ..
            }) => {
                assert_eq!((kind, tick.number()), (2, last));
            }
            other => panic!("kind {kind}: {other:?}"),
        }
    }
}

#[test]
fn another_schema_is_refused_with_the_difference_named() {
    let (bytes, _) = record(SMALL);
    let mut header = open(&bytes).header().clone();
    let mut kinds = header.schema.kinds().to_vec();
    kinds[1].fields[2].name = "armour".to_owned();
    header.schema = std::sync::Arc::new(phalanx_netcode::state::Schema::new(kinds).unwrap());
    let renamed = header.encode().unwrap();
    let error = Player::new(Toy::new(0, 0, Tick::ZERO), open(&renamed)).unwrap_err();
    let PlayError::Schema(_) = &error else {
        panic!("{error}");
    };
    let text = error.to_string();
    assert!(text.contains("Unit") && text.contains("armour"), "{text}");
}

#[test]
fn unknown_versions_and_unknown_chunks_are_refused() {
    let (bytes, _) = record(SMALL);
    let mut newer = bytes.clone();
    newer[8] = 2;
    let opened = Reader::open(Cursor::new(&newer));
    assert!(
        matches!(opened, Err(OpenError::UnknownVersion(2))),
        "{opened:?}"
    );
    let opened = Reader::open(Cursor::new(b"GIF89a, which is no replay at all"));
    assert!(matches!(opened, Err(OpenError::NotAReplay)), "{opened:?}");

    let (at, ..) = *chunks(&bytes).iter().find(|chunk| chunk.1 == 2).unwrap();
    let mut unknown = bytes.clone();
    unknown.truncate(bytes.len() - 30);
    unknown[at + 2] = 0x1f;
    forge(&mut unknown, at);
    let opened = Reader::open(Cursor::new(&unknown));
    assert!(
        matches!(opened, Err(OpenError::UnknownChunk(0x1f))),
        "{opened:?}"
    );
    // Kinds from 0x80 on may be passed over.
    unknown[at + 2] = 0x90;
    forge(&mut unknown, at);
    let opened = Reader::open(Cursor::new(&unknown)).unwrap();
    assert!(matches!(opened.completeness(), Completeness::Cut { .. }));
}

#[test]
fn a_replay_crosses_a_change_of_host() {
    let mut toy = Toy::new(7, 3, Tick::ZERO);
    let mut writer = Writer::new(Vec::new(), &header(&toy)).unwrap();
    writer.keyframe(&export(&mut toy)).unwrap();
    let mut frame = InputFrame::empty(Tick::ZERO, SLOTS, INPUT_BYTES);
    let mut prng = Prng::new(4);
    let change = TermChange {
        takeover: Tick::new(101),
        term: Term(1),
        host: MemberId(2),
        cause: TermCause::Failover,
    };
    for tick in 1..=200 {
        if tick == 101 {
            writer.term_changed(&change).unwrap();
        }
        next_inputs(&mut prng, &mut frame);
        toy.step(&frame, StepKind::First);
        writer.frame(&frame).unwrap();
        writer.hash(toy.tick(), combined(&mut toy)).unwrap();
    }
    let (bytes, _) = writer.finish().unwrap();
    assert_eq!(verify(&bytes).unwrap().hashes, 200);
    let info = open(&bytes).info().unwrap();
    assert_eq!(info.term_changes, [change]);
    let text = info.to_string();
    for part in [
        "toy (build 1.0-test)",
        "Grace",
        "0 to 200 (0:00:03.333)",
        "failover",
    ] {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
}

#[test]
fn the_writer_refuses_what_nobody_could_play() {
    let mut toy = Toy::new(7, 3, Tick::ZERO);
    let mut frame = InputFrame::empty(Tick::new(1), SLOTS, INPUT_BYTES);
    let mut writer = Writer::new(Vec::new(), &header(&toy)).unwrap();
    assert!(matches!(
        writer.frame(&frame),
        Err(WriteError::NoFirstKeyframe(_))
    ));
    writer.keyframe(&export(&mut toy)).unwrap();
    assert!(matches!(
        writer.keyframe(&export(&mut toy)),
        Err(WriteError::Order { .. })
    ));
    writer.frame(&frame).unwrap();
    assert!(matches!(
        writer.frame(&frame),
        Err(WriteError::Frame { .. })
    ));
    frame.set_tick(Tick::new(2));
    writer.frame(&frame).unwrap();
    let narrow = InputFrame::empty(Tick::new(3), SLOTS, 1);
    assert!(matches!(
        writer.frame(&narrow),
        Err(WriteError::Frame { .. })
    ));
    writer.hash(Tick::new(2), 5).unwrap();
    assert!(matches!(
        writer.hash(Tick::new(2), 5),
        Err(WriteError::Order { .. })
    ));
    // None of these refusals hurts the file.
    let (bytes, _) = writer.finish().unwrap();
    assert_eq!(open(&bytes).last_tick(), Tick::new(2));

    let mut wide = header(&toy);
    wide.roster = vec![String::new(); 65];
    assert!(Writer::new(Vec::new(), &wide).is_err());
    let mut long = header(&toy);
    long.game = "x".repeat(65);
    assert!(Writer::new(Vec::new(), &long).is_err());
}
