//! Replays of state-sync mode: what is recorded plays, seeks, verifies, and survives damage.

use super::*;
use phalanx_netcode::input::InputFrame;
use phalanx_netcode::limits::REPLAY_RUN_COST_MAX;
use phalanx_netcode::state::{QuantizedSnapshot, Quantizer, Shapes, WireLayout};

/// Ticks between two states.
pub(super) const EVERY: u32 = 3;

pub(super) fn header_of(toy: &Toy) -> Header {
    Header {
        mode: Mode::StateSync,
        ..header(toy)
    }
}

/// Plays a match and records what a host publishes. Gives the file and the published states.
pub(super) fn record_states(plan: Plan) -> (Vec<u8>, Vec<Snapshot>) {
    let mut toy = Toy::new(7, plan.units, Tick::new(plan.start));
    let header = header_of(&toy);
    let mut writer = Writer::with_chunk_ticks(Vec::new(), &header, plan.chunk_ticks).unwrap();
    let mut states = Vec::new();
    let mut prng = Prng::new(99);
    let mut frame = InputFrame::empty(toy.tick(), SLOTS, INPUT_BYTES);
    for tick in 0..=plan.ticks {
        if tick > 0 {
            next_inputs(&mut prng, &mut frame);
            toy.step(&frame, StepKind::First);
        }
        // The last tick of a session is published too.
        if tick % EVERY == 0 || tick == plan.ticks {
            let mut state = Snapshot::default();
            toy.publish(&mut state);
            let is_keyframe = tick % plan.keyframe_every == 0;
            writer.state(&state, is_keyframe).unwrap();
            states.push(state);
        }
    }
    let (bytes, summary) = writer.finish().unwrap();
    assert_eq!(summary.bytes, bytes.len() as u64);
    assert_eq!(summary.last, Tick::new(plan.start + plan.ticks));
    assert_eq!(summary.states as usize, states.len());
    (bytes, states)
}

/// The newest of `states` at `tick` or before.
fn newest(states: &[Snapshot], tick: Tick) -> &Snapshot {
    let end = states.partition_point(|state| state.tick <= tick);
    &states[end - 1]
}

fn player(bytes: &[u8]) -> Player<Toy, Cursor<&[u8]>> {
    Player::new(Toy::new(0, 9, Tick::ZERO), open(bytes)).unwrap()
}

#[test]
fn recorded_states_verify_to_the_last_hash() {
    let (bytes, states) = record_states(SMALL);
    let report = verify(&bytes).unwrap();
    assert_eq!(report.completeness, Completeness::Complete);
    assert_eq!((report.first, report.last), (Tick::ZERO, Tick::new(40)));
    assert_eq!((report.states, report.hashes), (15, 15));
    assert_eq!(states.len(), 15);
    // Only tick 0 is both a multiple of 16 and published, as is tick 0 in any case.
    assert_eq!(report.keyframes, 1);
}

#[test]
fn playing_and_seeking_show_the_newest_published_state() {
    let plan = Plan {
        start: 500,
        ticks: 2100,
        units: 8,
        chunk_ticks: 50,
        keyframe_every: 300,
        ..SMALL
    };
    let (bytes, states) = record_states(plan);
    let mut player = player(&bytes);
    let mut tick = Tick::new(500);
    loop {
        assert_eq!(player.tick(), tick);
        assert_eq!(&player.snapshot(), newest(&states, tick), "tick {tick}");
        if !player.step().unwrap() {
            break;
        }
        tick = tick.next();
    }
    assert_eq!(tick, Tick::new(2600));
    let mut prng = Prng::new(4);
    for _ in 0..300 {
        let tick = Tick::new(500 + u32::try_from(prng.below(2101)).unwrap());
        player.seek(tick).unwrap();
        assert_eq!(player.tick(), tick);
        let expected = newest(&states, tick);
        assert_eq!(&player.snapshot(), expected, "tick {tick}");
        // The simulation has taken it over as well.
        assert_eq!(&export(player.simulation_mut()), expected, "tick {tick}");
        let (shown, recorded) = player.hashes().unwrap();
        assert_eq!(Some(shown), recorded, "tick {tick}");
    }
    let outside = player.seek(Tick::new(2601));
    assert!(
        matches!(outside, Err(PlayError::OutOfRange { .. })),
        "{outside:?}"
    );
    assert!(chunks(&bytes).iter().any(|chunk| chunk.1 == 0x11));
}

#[test]
fn the_recorded_hash_is_that_of_the_quantized_state() {
    let (bytes, states) = record_states(SMALL);
    let toy = Toy::new(0, 0, Tick::ZERO);
    let layout = WireLayout::new(toy.schema());
    let mut reader = open(&bytes);
    for state in &states {
        let mut shapes = Shapes::default();
        let mut quantized = QuantizedSnapshot::default();
        Quantizer::default().quantize(&layout, &mut shapes, state, None, &mut quantized);
        let hash = quantized.hash(&shapes);
        assert_eq!(reader.hash_at(state.tick).unwrap(), Some(hash));
        reader.seek_state(state.tick).unwrap();
        assert_eq!(reader.state_hash(), Some(hash));
        assert_eq!(reader.exact_state().as_ref(), Some(state));
    }
}

#[test]
fn runs_end_before_a_seek_costs_too_much() {
    let toy = Toy::new(7, 40_000, Tick::ZERO);
    let mut writer = Writer::new(Vec::new(), &header_of(&toy)).unwrap();
    let mut state = Snapshot::default();
    let mut toy = toy;
    toy.publish(&mut state);
    for tick in 0..120 {
        state.tick = Tick::new(tick);
        writer.state(&state, false).unwrap();
    }
    let (bytes, _) = writer.finish().unwrap();
    let runs = chunks(&bytes)
        .iter()
        .filter(|chunk| chunk.1 == 0x10)
        .count();
    // Nothing changes: a state costs an eighth of its entities and hardly a byte.
    let least = 120 / (2 + REPLAY_RUN_COST_MAX / (40_000 / 8));
    assert!((least..=least + 2).contains(&runs) && runs > 1, "{runs}");
    let report = verify(&bytes).unwrap();
    assert_eq!(report.states, 120);
}

#[test]
fn a_replay_that_was_cut_anywhere_plays_up_to_there() {
    let plan = Plan {
        ticks: 60,
        units: 2,
        ..SMALL
    };
    let (bytes, states) = record_states(plan);
    let mut cuts = 0;
    for length in 0..bytes.len() {
        let cut = &bytes[..length];
        let Ok(reader) = Reader::open(Cursor::new(cut)) else {
            continue;
        };
        assert!(
            matches!(reader.completeness(), Completeness::Cut { .. }),
            "length {length}"
        );
        let last = reader.last_tick();
        match Player::new(Toy::new(0, 0, Tick::ZERO), reader) {
            Ok(mut player) => {
                player.seek(last).unwrap();
                assert_eq!(&player.snapshot(), newest(&states, last), "length {length}");
                cuts += usize::from(last > Tick::ZERO);
                match player.verify(|_, _| ()) {
                    Ok(report) => assert_eq!(report.last, last),
                    Err(VerifyError::NothingToCompare) => {}
                    Err(error) => panic!("length {length}: {error}"),
                }
            }
            Err(error) => assert!(
                matches!(error, PlayError::Read(ReadError::NoKeyframe(_))),
                "length {length}: {error}"
            ),
        }
    }
    assert!(cuts > 100, "{cuts}");
}

#[test]
fn damage_is_named_and_play_goes_on_behind_it() {
    let plan = Plan {
        // More than a run of 30 seconds.
        ticks: 4000,
        chunk_ticks: 100,
        keyframe_every: 1_000_000,
        ..SMALL
    };
    let (good, states) = record_states(plan);
    let found = chunks(&good);
    let second_run = found
        .iter()
        .rfind(|chunk| chunk.1 == 0x10)
        .map(|chunk| chunk.2)
        .unwrap();
    assert!(second_run > 0, "there are two runs");
    let &(at, _, first, last) = found.iter().find(|chunk| chunk.1 == 0x11).unwrap();
    let mut bytes = good.clone();
    bytes[at + 40] ^= 4;
    let error = verify(&bytes).unwrap_err();
    assert!(
        matches!(
            error,
            VerifyError::Play(PlayError::Read(ReadError::Damaged { first: a, last: b, .. }))
                if (a.number(), b.number()) == (first, last)
        ),
        "{error}"
    );
    let mut player = player(&bytes);
    assert!(player.seek(Tick::new(last)).is_err());
    let behind = Tick::new(second_run + 5);
    player.seek(behind).unwrap();
    assert_eq!(&player.snapshot(), newest(&states, behind));
    player.seek(Tick::new(first - 1)).unwrap();
    assert_eq!(&player.snapshot(), newest(&states, Tick::new(first - 1)));

    // The same without an index: the chunks behind cannot be used before the next run.
    bytes.truncate(bytes.len() - 24);
    let reader = open(&bytes);
    assert!(
        matches!(reader.completeness(), Completeness::Damaged(_)),
        "{:?}",
        reader.completeness()
    );
    let mut player = Player::new(Toy::new(0, 0, Tick::ZERO), reader).unwrap();
    let missing = player.seek(Tick::new(last + 50)).unwrap_err();
    assert!(
        matches!(
            missing,
            PlayError::Read(ReadError::Missing { first: a, last: b })
                if (a.number(), b.number()) == (first - EVERY + 1, last + EVERY - 1)
        ),
        "{missing}"
    );
    player.seek(behind).unwrap();
    assert_eq!(&player.snapshot(), newest(&states, behind));
    assert!(player.verify(|_, _| ()).is_err());
}

#[test]
fn a_changed_hash_and_a_changed_state_are_named() {
    let (bytes, _) = record_states(SMALL);
    for kind in [0x02, 0x11] {
        let found = chunks(&bytes);
        let &(at, _, _, last) = found.iter().find(|chunk| chunk.1 == kind).unwrap();
        let mut bytes = bytes.clone();
        let length = u32::from_le_bytes(bytes[at + 12..at + 16].try_into().unwrap()) as usize;
        // The last bytes are the same in packed payloads.
        bytes[at + 28 + length - 1] ^= 0x10;
        forge(&mut bytes, at);
        let error = verify(&bytes).unwrap_err();
        // The host's hash differs; or the body of the chunk's last state is none at all.
        let differs = matches!(
            error,
            VerifyError::Diverged { tick, cause: Cause::Decoded, .. } if tick.number() == last
        );
        let refused = matches!(
            error,
            VerifyError::Play(PlayError::Read(ReadError::Undecodable { last: wrong, .. }))
                if wrong.number() == last
        );
        assert!(differs || refused && kind == 0x11, "{error}");
    }
}

#[test]
fn states_are_recorded_in_order_and_in_their_mode() {
    let mut toy = Toy::new(7, 3, Tick::new(5));
    let mut state = Snapshot::default();
    toy.publish(&mut state);
    let header = header_of(&toy);
    let mut writer = Writer::new(Vec::new(), &header).unwrap();
    let early = Snapshot {
        tick: Tick::new(6),
        ..state.clone()
    };
    let error = writer.state(&early, false).unwrap_err();
    assert!(matches!(error, WriteError::NoFirstKeyframe(_)), "{error}");
    writer.state(&state, false).unwrap();
    let error = writer.state(&state, false).unwrap_err();
    assert!(matches!(error, WriteError::Order { .. }), "{error}");
    let frame = InputFrame::empty(Tick::new(6), SLOTS, INPUT_BYTES);
    let error = writer.frame(&frame).unwrap_err();
    assert!(
        matches!(error, WriteError::Mode(Mode::StateSync)),
        "{error}"
    );
    let mut wrong = early;
    wrong.kinds[1].bytes.pop();
    let error = writer.state(&wrong, false).unwrap_err();
    assert!(matches!(error, WriteError::Snapshot(_)), "{error}");
    let (bytes, _) = writer.finish().unwrap();
    assert_eq!(verify(&bytes).unwrap().states, 1);

    let mut lockstep = Writer::new(Vec::new(), &super::header(&toy)).unwrap();
    let error = lockstep.state(&state, false).unwrap_err();
    assert!(matches!(error, WriteError::Mode(Mode::Lockstep)), "{error}");
}

#[test]
fn a_file_recorded_off_the_thread_holds_the_same() {
    let plan = Plan {
        // Fewer states than may wait for the thread.
        ticks: 300,
        chunk_ticks: 120,
        keyframe_every: 1_000_000,
        ..SMALL
    };
    let (expected, states) = record_states(plan);
    let (sender, receiver) = mpsc::channel();
    let toy = Toy::new(7, plan.units, Tick::ZERO);
    let mut file = ReplayFile::record(Output(sender, Vec::new()), &header_of(&toy)).unwrap();
    for state in &states {
        file.state(state);
    }
    let summary = file.finish().unwrap();
    assert_eq!(summary.states as usize, states.len());
    assert_eq!(receiver.recv().unwrap(), expected);
}

/// Hands over what was written when it is flushed.
struct Output(mpsc::Sender<Vec<u8>>, Vec<u8>);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.1.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        drop(self.0.send(core::mem::take(&mut self.1)));
        Ok(())
    }
}
