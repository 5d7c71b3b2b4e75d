//! Records a session into a file, off the tick's thread.
//!
//! The tick thread only collects: input frames and hashes go into a batch in memory, and every two
//! seconds of ticks the batch moves to a writer thread, as each keyframe does at once. The thread
//! encodes, compresses and writes. In state-sync mode each published state is copied and moves
//! over at once; quantizing and coding happen there too. No call waits for it: where the queue is full because the disk
//! cannot keep up, recording stops, what was written stays a valid replay, and
//! [`ReplayFile::finish`] says so.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use crate::input::InputFrame;
use crate::replay::{
    Batch, Header, KeyframePolicy, Pending, Summary, TermChange, WriteError, Writer, chunk_ticks,
};
use crate::session::config::Mode;
use crate::state::{KindRows, Snapshot};
use crate::tick::Tick;

/// Batches and keyframes that may wait for the disk: about a minute of play.
const QUEUE_LENGTH_MAX: usize = 32;

/// States that may wait for the disk: some seconds of play.
const STATES_WAITING_MAX: usize = 128;

/// Copied states whose memory is used again.
const SPARE_MAX: usize = 4;

/// Seconds between keyframes, unless the game has a policy.
const KEYFRAME_SECONDS: u32 = 5;

/// The same in state-sync mode, where seeks do not need them.
const STATE_KEYFRAME_SECONDS: u32 = 60;

/// Why a recording is not whole.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The disk could not keep up: recording stopped at this tick, so that the game did not wait.
    #[error("recording stopped at tick {stopped}: the disk could not keep up")]
    TooSlow {
        /// The tick at which recording stopped.
        stopped: Tick,
        /// What was written before, as a finished file.
        written: Summary,
    },
    /// The game recorded something out of order.
    #[error("recording stopped: {error}")]
    Misuse {
        /// What was out of order.
        error: WriteError,
        /// What was written before, as a finished file.
        written: Summary,
    },
    /// Something cannot be written. What was written before plays as a cut replay.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The writer thread panicked, which is a bug of ours.
    #[error("the thread that writes the replay ended unexpectedly")]
    ThreadLost,
}

/// A session that is recorded into a file.
///
/// The first record must be a keyframe of the header's start tick. Ask
/// [`ReplayFile::keyframe_due`] after each tick when to record another. Dropping it without
/// [`ReplayFile::finish`] completes the file as well, but tells nobody how that went.
#[derive(Debug)]
pub struct ReplayFile {
    pending: Pending,
    policy: KeyframePolicy,
    start: Tick,
    newest_keyframe: Option<Tick>,
    tick: Tick,
    /// `None` once recording has stopped.
    queue: Option<Sender<Command>>,
    /// Memory that comes back from the thread.
    spare: Receiver<Snapshot>,
    stop: Option<Stop>,
    thread: Option<JoinHandle<Result<Summary, WriteError>>>,
}

/// Why recording stopped before its end.
#[derive(Debug)]
enum Stop {
    TooSlow,
    Misuse(WriteError),
    /// The thread ended; it knows why.
    ThreadEnded,
}

/// What the tick thread hands over.
#[derive(Debug)]
enum Command {
    Batch(Batch),
    Keyframe(Snapshot),
    State { state: Snapshot, is_keyframe: bool },
    TermChanged(TermChange),
}

impl ReplayFile {
    /// Creates the file, or empties it, and writes the header.
    ///
    /// # Errors
    /// If that fails or the header is impossible.
    pub fn create(path: impl AsRef<Path>, header: &Header) -> io::Result<Self> {
        let file = File::create(path)?;
        Self::record(FileOutput(file), header)
    }

    /// Records into any output. Writes the header at once; the rest follows in another thread.
    ///
    /// # Errors
    /// If the header is impossible or cannot be written, or no thread can be started.
    pub fn record(output: impl Write + Send + 'static, header: &Header) -> io::Result<Self> {
        let writer = Writer::new(output, header).map_err(|error| {
            if let WriteError::Io(error) = error {
                error
            } else {
                io::Error::new(io::ErrorKind::InvalidInput, error)
            }
        })?;
        let (length, seconds) = match header.mode {
            Mode::Lockstep => (QUEUE_LENGTH_MAX, KEYFRAME_SECONDS),
            Mode::StateSync => (STATES_WAITING_MAX, STATE_KEYFRAME_SECONDS),
        };
        let (queue, commands) = bounded(length);
        let (back, spare) = bounded(SPARE_MAX);
        let thread = thread::Builder::new()
            .name("phalanx-replay".to_owned())
            .spawn(move || write_all(writer, &commands, &back))?;
        Ok(Self {
            pending: Pending::new(header, chunk_ticks(header.tick_rate)),
            policy: KeyframePolicy::every_seconds(header.tick_rate, seconds),
            start: header.start,
            newest_keyframe: None,
            tick: header.start,
            queue: Some(queue),
            spare,
            stop: None,
            thread: Some(thread),
        })
    }

    /// Sets when keyframes are due; every five seconds until then, every minute in state-sync mode.
    pub fn set_keyframe_policy(&mut self, policy: KeyframePolicy) {
        self.policy = policy;
    }

    /// Whether the state at `tick` should be recorded as a keyframe.
    #[must_use]
    pub fn keyframe_due(&self, tick: Tick) -> bool {
        self.is_recording()
            && match self.newest_keyframe {
                Some(newest) => self.policy.is_due(self.start, newest, tick),
                None => tick == self.start,
            }
    }

    /// Whether records are still taken. If not, [`ReplayFile::finish`] says why.
    #[must_use]
    pub fn is_recording(&self) -> bool {
        self.stop.is_none()
    }

    /// Records the inputs of the next tick: those that everyone agreed on, never predicted ones.
    /// Never waits.
    pub fn frame(&mut self, frame: &InputFrame) {
        self.tick = self.tick.max(frame.tick());
        self.collect(|pending| pending.frame(frame));
    }

    /// Records the combined state hash at `tick`. Never waits.
    pub fn hash(&mut self, tick: Tick, hash: u64) {
        self.collect(|pending| pending.hash(tick, hash));
    }

    /// Records the whole state at its tick. Never waits: another thread encodes it.
    pub fn keyframe(&mut self, snapshot: Snapshot) {
        let newest = snapshot.tick;
        self.flush();
        self.send(Command::Keyframe(snapshot));
        self.newest_keyframe = Some(newest);
    }

    /// Records a state that was published in state-sync mode, which ascend from the header's start
    /// tick on; also as a keyframe, if one is due. Never waits: another thread quantizes and codes
    /// a copy of it.
    pub fn state(&mut self, state: &Snapshot) {
        if !self.is_recording() {
            return;
        }
        let is_keyframe = self.keyframe_due(state.tick);
        if is_keyframe {
            self.newest_keyframe = Some(state.tick);
        }
        self.tick = self.tick.max(state.tick);
        let mut copy = self.spare.try_recv().unwrap_or_default();
        copy_state(state, &mut copy);
        self.send(Command::State {
            state: copy,
            is_keyframe,
        });
    }

    /// Records that another host took over. Never waits.
    pub fn term_changed(&mut self, change: TermChange) {
        self.flush();
        self.send(Command::TermChanged(change));
    }

    /// Completes the file, and waits until it is on the disk.
    ///
    /// # Errors
    /// If recording stopped before, or the rest cannot be written.
    pub fn finish(mut self) -> Result<Summary, RecordError> {
        let result = self.close();
        match self.stop.take() {
            None | Some(Stop::ThreadEnded) => result,
            Some(Stop::TooSlow) => Err(RecordError::TooSlow {
                stopped: self.tick,
                written: result?,
            }),
            Some(Stop::Misuse(error)) => Err(RecordError::Misuse {
                error,
                written: result?,
            }),
        }
    }

    fn collect(&mut self, record: impl FnOnce(&mut Pending) -> Result<(), WriteError>) {
        if !self.is_recording() {
            return;
        }
        if let Err(error) = record(&mut self.pending) {
            self.flush();
            self.stop(Stop::Misuse(error));
        } else if self.pending.is_full() {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if !self.pending.is_empty() {
            let batch = self.pending.take();
            self.send(Command::Batch(batch));
        }
    }

    fn send(&mut self, command: Command) {
        let Some(queue) = &self.queue else {
            return;
        };
        match queue.try_send(command) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => self.stop(Stop::TooSlow),
            Err(TrySendError::Disconnected(_)) => self.stop(Stop::ThreadEnded),
        }
    }

    fn stop(&mut self, why: Stop) {
        // The first reason is the one that counts. Without the queue the thread finishes.
        self.stop.get_or_insert(why);
        self.queue = None;
    }

    fn close(&mut self) -> Result<Summary, RecordError> {
        if self.is_recording() {
            self.send_last();
        }
        self.queue = None;
        let thread = self.thread.take().ok_or(RecordError::ThreadLost)?;
        let result = thread.join().map_err(|_panic| RecordError::ThreadLost)?;
        Ok(result?)
    }

    /// Hands over what is left. This is the end, so it waits for room in the queue.
    fn send_last(&mut self) {
        if let Some(queue) = &self.queue
            && !self.pending.is_empty()
            && queue.send(Command::Batch(self.pending.take())).is_err()
        {
            self.stop(Stop::ThreadEnded);
        }
    }
}

impl Drop for ReplayFile {
    fn drop(&mut self) {
        if self.thread.is_some() {
            // Nobody is left to be told.
            drop(self.close());
        }
    }
}

/// Copies a state into memory that another one has left.
fn copy_state(from: &Snapshot, to: &mut Snapshot) {
    to.tick = from.tick;
    to.kinds.resize_with(from.kinds.len(), KindRows::default);
    for (to, from) in to.kinds.iter_mut().zip(&from.kinds) {
        to.ids.clone_from(&from.ids);
        to.ends.clone_from(&from.ends);
        to.bytes.clone_from(&from.bytes);
    }
}

/// The writer thread: writes until the tick thread lets go of the queue, then finishes the file.
fn write_all<W: Write>(
    mut writer: Writer<W>,
    commands: &Receiver<Command>,
    back: &Sender<Snapshot>,
) -> Result<Summary, WriteError> {
    for command in commands {
        let result = match command {
            Command::Batch(batch) => writer.write_batch(&batch),
            Command::Keyframe(snapshot) => writer.keyframe(&snapshot),
            Command::State { state, is_keyframe } => {
                let result = writer.state(&state, is_keyframe);
                // Where there are enough already, this one is freed.
                drop(back.try_send(state));
                result
            }
            Command::TermChanged(change) => writer.term_changed(&change),
        };
        match result {
            Ok(()) => {}
            Err(WriteError::Io(error)) => return Err(WriteError::Io(error)),
            // Something out of order: what was written before becomes a whole file.
            Err(error) => {
                writer.finish()?;
                return Err(error);
            }
        }
    }
    let (_output, summary) = writer.finish()?;
    Ok(summary)
}

/// A file whose last flush waits until all is on the disk.
#[derive(Debug)]
struct FileOutput(File);

impl Write for FileOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }
}
