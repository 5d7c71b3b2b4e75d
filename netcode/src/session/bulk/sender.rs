//! The sending end of a transfer.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use super::congestion::{Congestion, RoundTrip};
use super::{BulkTooLarge, Progress, chunks_of, offset};
use crate::limits::{BULK_WINDOW_CHUNKS_MAX, SNAPSHOT_BYTES_MAX};
use crate::time::Time;
use crate::wire::bytes::{DecodeError, Reader};

/// Chunks sent beyond the window when no ack comes.
const PROBES: u32 = 2;
/// Probes without an ack after which the window falls to its floor.
const SILENT_PROBES: u32 = 3;
/// Longest time between two probes.
const PROBE_US_MAX: u64 = 2_000_000;
/// Time whose worth of chunks may go out at once.
const BURST_US: u64 = 10_000;
/// Bytes of a chunk's datagram beside its payload, for the rate cap.
const CHUNK_OVERHEAD_BYTES: u64 = 18;

/// Pace of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BulkConfig {
    /// Bytes per second that are never exceeded, or `None`: the path decides.
    pub bytes_per_second_max: Option<u64>,
    /// Round trip that is assumed until one is measured, in microseconds.
    pub initial_rtt_us: u64,
}

impl Default for BulkConfig {
    fn default() -> Self {
        Self {
            bytes_per_second_max: None,
            initial_rtt_us: 100_000,
        }
    }
}

/// Where a chunk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chunk {
    /// Sent with this transmission, without an answer so far.
    InFlight(u32),
    /// Will be sent again.
    Lost,
    /// Has arrived.
    Arrived,
}

/// Sends one payload; see the [module](super).
#[derive(Debug)]
pub struct BulkSender {
    id: u16,
    payload: Arc<[u8]>,
    config: BulkConfig,
    chunk_count: u32,
    /// Index of the first chunk that has not arrived.
    first: u32,
    /// Chunks from `first` to the last that was ever sent.
    chunks: VecDeque<Chunk>,
    /// The lost ones among them.
    lost: BTreeSet<u32>,
    in_flight: u64,
    /// Chunk and moment of each transmission from `log_first` on.
    log: VecDeque<(u32, Time)>,
    log_first: u32,
    newest_arrived: Option<u32>,
    round_trip: RoundTrip,
    congestion: Congestion,
    /// When the next loss is declared if its chunk does not arrive before.
    loss_at: Option<Time>,
    sent_at: Time,
    /// Probes that may be sent beyond the window, and how many rounds of them got no answer.
    probes: u32,
    silent_probes: u32,
    /// When the rate cap allows the next chunk.
    paced_at: Time,
}

impl BulkSender {
    /// A sender of `payload` as the transfer `id`.
    ///
    /// # Errors
    /// If it exceeds [`SNAPSHOT_BYTES_MAX`].
    pub fn new(id: u16, payload: Arc<[u8]>, config: BulkConfig) -> Result<Self, BulkTooLarge> {
        Ok(Self {
            id,
            chunk_count: chunks_of(payload.len() as u64, SNAPSHOT_BYTES_MAX)?,
            payload,
            config,
            first: 0,
            chunks: VecDeque::new(),
            lost: BTreeSet::new(),
            in_flight: 0,
            log: VecDeque::new(),
            log_first: 0,
            newest_arrived: None,
            round_trip: RoundTrip::new(config.initial_rtt_us.clamp(1000, 1_000_000)),
            congestion: Congestion::new(),
            loss_at: None,
            sent_at: Time::ZERO,
            probes: 0,
            silent_probes: 0,
            paced_at: Time::ZERO,
        })
    }

    /// Number of the transfer.
    #[must_use]
    pub const fn id(&self) -> u16 {
        self.id
    }

    /// Whether all has arrived.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.first == self.chunk_count
    }

    /// What the receiver has acked, without gaps.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let total_bytes = self.payload.len() as u64;
        Progress {
            bytes: offset(self.first, total_bytes),
            total_bytes,
        }
    }

    /// Appends the next chunk to `out`, if window and pace allow one now, and says whether it did.
    /// Call it until it does not.
    pub fn next_chunk(&mut self, now: Time, out: &mut Vec<u8>) -> bool {
        if self.is_complete() {
            return false;
        }
        self.declare_losses(now);
        if self.probe_at().is_some_and(|at| now >= at) {
            self.silent_probes = self.silent_probes.saturating_add(1);
            if self.silent_probes == SILENT_PROBES {
                self.congestion.on_silence();
            }
            self.probes = PROBES;
        }
        let Some(index) = self.pick() else {
            return false;
        };
        if self.probes == 0 && self.in_flight >= self.congestion.window() {
            self.congestion.note_limited();
            return false;
        }
        if now < self.paced_at {
            return false;
        }
        self.probes = self.probes.saturating_sub(1);
        self.write(now, index, out);
        self.invariants();
        true
    }

    /// When [`BulkSender::next_chunk`] should be called again, if no ack comes before; a moment
    /// that has passed means at once. `None` when all has arrived.
    #[must_use]
    pub fn next_time(&self) -> Option<Time> {
        if self.is_complete() {
            return None;
        }
        let sends = self.probes > 0 || self.in_flight < self.congestion.window();
        if sends && self.pick().is_some() {
            return Some(self.paced_at);
        }
        [self.loss_at, self.probe_at()].into_iter().flatten().min()
    }

    /// Takes an ack.
    ///
    /// # Errors
    /// If it is malformed or acks what was never sent; nothing has changed then.
    pub fn handle_ack(&mut self, now: Time, bytes: &[u8]) -> Result<(), DecodeError> {
        let mut reader = Reader::new(bytes);
        if reader.u16()? != self.id {
            return Err(DecodeError::Invalid("an ack is for another transfer"));
        }
        let newest = reader.u32()?;
        let delay_us = reader.varint_u32()?;
        let next = reader.varint_u32()?;
        let bitmap = reader.counted(BULK_WINDOW_CHUNKS_MAX as usize / 8)?;
        reader.finish()?;
        let sent_end = u64::from(self.first) + self.chunks.len() as u64;
        let bits = bitmap.last().map_or(0, |last| {
            bitmap.len() as u64 * 8 - u64::from(last.leading_zeros())
        });
        let end = if bits > 0 {
            u64::from(next) + 1 + bits
        } else {
            u64::from(next)
        };
        if bitmap.last() == Some(&0) {
            return Err(DecodeError::Invalid(
                "an ack's bitmap is longer than needed",
            ));
        }
        if end > sent_end || newest >= self.next_transmission() {
            return Err(DecodeError::Invalid("an ack is for chunks never sent"));
        }

        let before = self.in_flight + self.lost.len() as u64;
        for index in self.first..next {
            self.arrive(index);
        }
        for (index, byte) in (u64::from(next) + 1..).step_by(8).zip(bitmap) {
            for bit in (0..8).filter(|bit| byte & (1 << bit) != 0) {
                if let Ok(index) = u32::try_from(index + bit) {
                    self.arrive(index);
                }
            }
        }
        while self.chunks.front() == Some(&Chunk::Arrived) {
            self.chunks.pop_front();
            self.first += 1;
        }
        if self.newest_arrived.is_none_or(|known| newest > known) {
            self.newest_arrived = Some(newest);
            let sent = newest
                .checked_sub(self.log_first)
                .and_then(|index| self.log.get(index as usize));
            if let Some(&(_, at)) = sent {
                let us = now.micros_since(at);
                self.round_trip
                    .sample(us.saturating_sub(u64::from(delay_us)).max(1));
            }
        }
        if self.in_flight + (self.lost.len() as u64) < before {
            self.silent_probes = 0;
            self.probes = 0;
        }
        self.declare_losses(now);
        self.congestion
            .on_ack(&self.round_trip, newest, self.next_transmission());
        self.invariants();
        Ok(())
    }

    fn next_transmission(&self) -> u32 {
        // The log is never longer than a few windows.
        self.log_first
            .saturating_add(u32::try_from(self.log.len()).unwrap_or(u32::MAX))
    }

    fn chunk_mut(&mut self, index: u32) -> Option<&mut Chunk> {
        let position = index.checked_sub(self.first)?;
        self.chunks.get_mut(position as usize)
    }

    fn arrive(&mut self, index: u32) {
        let Some(chunk) = self.chunk_mut(index) else {
            return;
        };
        match core::mem::replace(chunk, Chunk::Arrived) {
            Chunk::InFlight(transmission) => {
                self.in_flight -= 1;
                self.congestion.on_arrived(transmission);
            }
            Chunk::Lost => {
                self.lost.remove(&index);
            }
            Chunk::Arrived => {}
        }
    }

    /// Declares lost what was overtaken by an arrived transmission and is older than a round trip.
    fn declare_losses(&mut self, now: Time) {
        self.loss_at = None;
        let Some(newest) = self.newest_arrived else {
            return;
        };
        let loss_us = self.round_trip.loss_us();
        while self.log_first < newest {
            let Some(&(index, at)) = self.log.front() else {
                return;
            };
            let transmission = self.log_first;
            if self.chunk_mut(index).as_deref() == Some(&Chunk::InFlight(transmission)) {
                let lost_at = at.plus_micros(loss_us);
                if now < lost_at {
                    self.loss_at = Some(lost_at);
                    return;
                }
                if let Some(chunk) = self.chunk_mut(index) {
                    *chunk = Chunk::Lost;
                }
                self.lost.insert(index);
                self.in_flight -= 1;
                self.congestion.on_lost(transmission);
            }
            self.log.pop_front();
            self.log_first += 1;
        }
    }

    /// When the last chunks are probed, if no ack comes before.
    fn probe_at(&self) -> Option<Time> {
        let us = self.round_trip.probe_us() << self.silent_probes.min(6);
        (self.in_flight > 0 && self.probes == 0)
            .then(|| self.sent_at.plus_micros(us.min(PROBE_US_MAX)))
    }

    /// The chunk to send next: a lost one, for a probe one in flight, or a new one.
    fn pick(&self) -> Option<u32> {
        if let Some(&index) = self.lost.first() {
            return Some(index);
        }
        if self.probes > 0 {
            let mut flying = (self.first..)
                .zip(&self.chunks)
                .filter(|(_, chunk)| matches!(chunk, Chunk::InFlight(_)))
                .map(|(index, _)| index);
            // The second probe takes another chunk than the first.
            let skipped = usize::from(self.probes < PROBES);
            let probe = flying.clone().nth(skipped).or_else(|| flying.next());
            if probe.is_some() {
                return probe;
            }
        }
        self.fresh()
    }

    /// The first chunk that was never sent, if the receiver's window has room for it.
    fn fresh(&self) -> Option<u32> {
        let sent = u32::try_from(self.chunks.len()).unwrap_or(u32::MAX);
        (sent < BULK_WINDOW_CHUNKS_MAX && self.first + sent < self.chunk_count)
            .then_some(self.first + sent)
    }

    fn write(&mut self, now: Time, index: u32, out: &mut Vec<u8>) {
        let transmission = self.next_transmission();
        match self.chunk_mut(index) {
            Some(chunk) => {
                if core::mem::replace(chunk, Chunk::InFlight(transmission)) == Chunk::Lost {
                    self.lost.remove(&index);
                    self.in_flight += 1;
                }
            }
            None => {
                self.chunks.push_back(Chunk::InFlight(transmission));
                self.in_flight += 1;
            }
        }
        self.log.push_back((index, now));
        self.sent_at = now;
        let total = self.payload.len() as u64;
        // Both lie within the payload, which is in memory.
        let start = usize::try_from(offset(index, total)).unwrap_or(usize::MAX);
        let end = usize::try_from(offset(index + 1, total)).unwrap_or(usize::MAX);
        out.extend(self.id.to_le_bytes());
        out.extend(transmission.to_le_bytes());
        out.extend(index.to_le_bytes());
        out.extend(&self.payload[start..end]);
        let capped_us = self.config.bytes_per_second_max.map_or(0, |rate| {
            ((end - start) as u64 + CHUNK_OVERHEAD_BYTES) * 1_000_000 / rate.max(1)
        });
        // Time that the driver slept is made good, up to a limit.
        let earliest = Time::from_micros(now.micros().saturating_sub(BURST_US));
        let interval_us = self.congestion.interval_us(&self.round_trip).max(capped_us);
        self.paced_at = self.paced_at.max(earliest).plus_micros(interval_us);
    }

    fn invariants(&self) {
        debug_assert!(self.chunks.len() <= BULK_WINDOW_CHUNKS_MAX as usize);
        debug_assert!(self.chunks.front() != Some(&Chunk::Arrived));
        debug_assert!(self.in_flight + self.lost.len() as u64 <= self.chunks.len() as u64);
    }
}
