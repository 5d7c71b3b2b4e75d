//! Recording to files and slow disks, off the tick's thread.

use super::*;

/// Takes bytes as long as the test lets it.
struct Gate {
    open: mpsc::Receiver<()>,
    bytes: mpsc::Sender<Vec<u8>>,
}

impl Write for Gate {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        // Once the test has dropped its end, the disk is fast again.
        let _open_or_gone = self.open.recv();
        self.bytes
            .send(bytes.to_vec())
            .map_err(std::io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_disk_that_does_not_answer_stops_the_recording_and_not_the_game() {
    let mut toy = Toy::new(7, 3, Tick::ZERO);
    let (open_gate, gate) = mpsc::channel();
    let (sink, written) = mpsc::channel();
    open_gate.send(()).unwrap();
    let output = Gate {
        open: gate,
        bytes: sink,
    };
    let mut file = ReplayFile::record(output, &header(&toy)).unwrap();
    assert!(file.keyframe_due(Tick::ZERO));
    file.keyframe(export(&mut toy));
    let mut frame = InputFrame::empty(Tick::ZERO, SLOTS, INPUT_BYTES);
    let mut prng = Prng::new(8);
    // None of these calls waits, though the thread is stuck in its first write.
    while file.is_recording() {
        assert!(frame.tick() < Tick::new(20_000), "the queue has no end");
        next_inputs(&mut prng, &mut frame);
        toy.step(&frame, StepKind::First);
        file.frame(&frame);
        file.hash(toy.tick(), combined(&mut toy));
    }
    drop(open_gate);
    let Err(RecordError::TooSlow {
        stopped,
        written: summary,
    }) = file.finish()
    else {
        panic!("nobody said that the recording stopped");
    };
    assert_eq!(stopped, frame.tick());
    let bytes = written.try_iter().flatten().collect::<Vec<u8>>();
    let report = verify(&bytes).unwrap();
    assert_eq!(report.completeness, Completeness::Complete);
    assert_eq!(report.last, summary.last);
    assert!(summary.last > Tick::new(1000) && summary.last < stopped);
}

#[test]
fn a_recorded_file_verifies_and_a_dropped_one_is_complete() {
    for finish in [true, false] {
        let path = std::env::temp_dir().join(format!(
            "phalanx-replay-{}-{finish}.phx",
            std::process::id()
        ));
        let mut toy = Toy::new(7, 20, Tick::ZERO);
        let mut file = ReplayFile::create(&path, &header(&toy)).unwrap();
        let mut frame = InputFrame::empty(Tick::ZERO, SLOTS, INPUT_BYTES);
        let mut prng = Prng::new(8);
        file.keyframe(export(&mut toy));
        for _ in 0..1300 {
            next_inputs(&mut prng, &mut frame);
            toy.step(&frame, StepKind::First);
            file.frame(&frame);
            file.hash(toy.tick(), combined(&mut toy));
            if file.keyframe_due(toy.tick()) {
                file.keyframe(export(&mut toy));
            }
        }
        if finish {
            let summary = file.finish().unwrap();
            assert_eq!((summary.last.number(), summary.keyframes), (1300, 5));
        } else {
            drop(file);
        }
        let reader = Reader::open(std::fs::File::open(&path).unwrap()).unwrap();
        let mut player = Player::new(Toy::new(0, 0, Tick::ZERO), reader).unwrap();
        let report = player.verify(|_, _| ()).unwrap();
        assert_eq!((report.hashes, report.keyframes), (1300, 4));
        assert_eq!(report.completeness, Completeness::Complete);
        drop(player);
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_full_disk_is_reported_at_the_end() {
    /// Takes so many bytes.
    struct Full(usize);
    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 = self
                .0
                .checked_sub(bytes.len())
                .ok_or(std::io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut toy = Toy::new(7, 20, Tick::ZERO);
    let mut file = ReplayFile::record(Full(700), &header(&toy)).unwrap();
    file.keyframe(export(&mut toy));
    let mut frame = InputFrame::empty(Tick::ZERO, SLOTS, INPUT_BYTES);
    for _ in 0..2000 {
        next_inputs(&mut Prng::new(8), &mut frame);
        file.frame(&frame);
    }
    let result = file.finish();
    let Err(RecordError::Write(WriteError::Io(error))) = result else {
        panic!("{result:?}");
    };
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
}

#[test]
fn an_out_of_order_frame_stops_the_recording_with_a_valid_file() {
    let mut toy = Toy::new(7, 20, Tick::ZERO);
    let mut file = ReplayFile::record(std::io::sink(), &header(&toy)).unwrap();
    file.keyframe(export(&mut toy));
    file.frame(&InputFrame::empty(Tick::new(1), SLOTS, INPUT_BYTES));
    file.frame(&InputFrame::empty(Tick::new(3), SLOTS, INPUT_BYTES));
    assert!(!file.is_recording());
    let result = file.finish();
    let Err(RecordError::Misuse {
        error: WriteError::Frame { expected, found },
        written,
    }) = result
    else {
        panic!("{result:?}");
    };
    assert_eq!(
        (expected.number(), found.number(), written.last.number()),
        (2, 3, 1)
    );
}
