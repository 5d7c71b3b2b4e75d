//! Input frames of consecutive ticks, coded by what changes.
//!
//! Each chunk decodes on its own: every slot starts absent. Per slot there is a list of events,
//! each with the gap to the one before; an event flips the slot's presence or changes its input.
//! Changes are XOR deltas, stored plane by plane (all first bytes, all second bytes, …), so that
//! bytes that rarely change lie together as zeros, which LZ4 takes away.
//!
//! Arithmetic for 8 players at 60 Hz whose 8-byte inputs change at random with p = 0.1: a change
//! costs 8 B and 6 bits, so an hour (172 800 changes) takes 1.38 MB + 0.13 MB; unchanged ticks
//! cost nothing.

use crate::hash::digest;
use crate::id::Slot;
use crate::input::InputFrame;
use crate::limits::REPLAY_CHUNK_TICKS_MAX;
use crate::tick::Tick;
use crate::wire::bytes::{DecodeError, Reader, put_counted};

/// A run of consecutive input frames that grows tick by tick, then becomes one chunk.
#[derive(Debug)]
pub(crate) struct InputRun {
    slots: u8,
    input_bytes: u8,
    first: Tick,
    ticks: u32,
    /// Digest of all frames since the start of the replay, chained.
    chain: u64,
    tracks: Vec<Track>,
    scratch: Vec<u8>,
}

/// What happened to one slot during a run.
#[derive(Clone, Debug, Default)]
struct Track {
    present: bool,
    current: Vec<u8>,
    /// Tick within the run, and whether presence flips.
    events: Vec<(u32, bool)>,
    /// XOR deltas of the events that have one.
    deltas: Vec<u8>,
}

impl InputRun {
    /// An empty run whose next frame is that of `first`, after frames that digest to `chain`.
    pub(crate) fn new(slots: u8, input_bytes: u8, first: Tick, chain: u64) -> Self {
        let track = Track {
            current: vec![0; usize::from(input_bytes)],
            ..Track::default()
        };
        Self {
            slots,
            input_bytes,
            first,
            ticks: 0,
            chain,
            tracks: vec![track; usize::from(slots)],
            scratch: Vec::new(),
        }
    }

    /// An empty run that continues after this one.
    pub(crate) fn next_run(&self) -> Self {
        let mut next = Self::new(self.slots, self.input_bytes, self.next_tick(), self.chain);
        // Room for as much again: then the ticks of a steady match do not allocate.
        for (next, track) in next.tracks.iter_mut().zip(&self.tracks) {
            next.events.reserve(track.events.len() * 2);
            next.deltas.reserve(track.deltas.len() * 2);
        }
        next
    }

    /// The tick of the first frame.
    pub(crate) fn first(&self) -> Tick {
        self.first
    }

    /// The tick of the next frame.
    pub(crate) fn next_tick(&self) -> Tick {
        self.first.plus(self.ticks)
    }

    /// Number of frames in the run.
    pub(crate) fn ticks(&self) -> u32 {
        self.ticks
    }

    /// Digest of all frames so far, those of earlier runs included.
    pub(crate) fn chain(&self) -> u64 {
        self.chain
    }

    /// Whether `frame` has the shape and the tick of the next one.
    pub(crate) fn accepts(&self, frame: &InputFrame) -> bool {
        frame.tick() == self.next_tick()
            && frame.slots() == self.slots
            && frame.input_bytes() == self.input_bytes
    }

    /// Appends a frame that [`InputRun::accepts`] accepts.
    pub(crate) fn push(&mut self, frame: &InputFrame) {
        debug_assert!(self.accepts(frame), "the caller checked the frame");
        self.chain = chain_digest(self.chain, frame, &mut self.scratch);
        for (track, slot) in self.tracks.iter_mut().zip(0..self.slots) {
            track.push(self.ticks, frame.input(Slot(slot)));
        }
        self.ticks += 1;
    }

    /// Appends the coded run to `out`.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let mut bits = BitWriter::default();
        for track in &self.tracks {
            let mut next = 0;
            for &(tick, flips) in &track.events {
                bits.gap(tick - next);
                bits.bit(flips);
                next = tick + 1;
            }
            bits.gap(self.ticks - next);
        }
        put_counted(out, &bits.bytes);
        let size = usize::from(self.input_bytes);
        for plane in 0..size {
            for track in &self.tracks {
                out.extend(track.deltas.iter().skip(plane).step_by(size));
            }
        }
    }
}

impl Track {
    fn push(&mut self, tick: u32, input: Option<&[u8]>) {
        match input {
            Some(input) => {
                if self.present && self.current == input {
                    return;
                }
                self.events.push((tick, !self.present));
                self.present = true;
                for (current, &new) in self.current.iter_mut().zip(input) {
                    self.deltas.push(*current ^ new);
                    *current = new;
                }
            }
            None => {
                if self.present {
                    self.events.push((tick, true));
                    self.present = false;
                    self.current.fill(0);
                }
            }
        }
    }
}

/// The digest of all frames up to `frame`, given that of all frames before it.
///
/// It covers the tick, the presence mask and the bytes of all slots, absent ones as zeros.
pub(crate) fn chain_digest(chain: u64, frame: &InputFrame, scratch: &mut Vec<u8>) -> u64 {
    let size = usize::from(frame.input_bytes());
    scratch.clear();
    scratch.extend(chain.to_le_bytes());
    scratch.extend(frame.tick().number().to_le_bytes());
    scratch.extend(frame.present().to_le_bytes());
    for slot in 0..frame.slots() {
        match frame.input(Slot(slot)) {
            Some(input) => scratch.extend_from_slice(input),
            None => scratch.resize(scratch.len() + size, 0),
        }
    }
    digest(scratch)
}

/// Decodes a run: one frame for each of `first..=last`.
///
/// # Errors
/// If the bytes are not the one form of such a run.
pub(crate) fn decode_run(
    bytes: &[u8],
    slots: u8,
    input_bytes: u8,
    first: Tick,
    last: Tick,
) -> Result<Vec<InputFrame>, DecodeError> {
    let ticks = last.since(first).saturating_add(1);
    if ticks > REPLAY_CHUNK_TICKS_MAX {
        return Err(DecodeError::Invalid("a chunk of inputs has too many ticks"));
    }
    let mut reader = Reader::new(bytes);
    let mut bits = BitReader::new(reader.counted(bytes.len())?);
    let planes = reader.rest();

    // Events first: they say how many deltas there are.
    let mut events = Vec::new();
    let mut deltas = 0_usize;
    for slot in 0..slots {
        let mut present = false;
        let mut next = 0;
        loop {
            let tick = bits.gap()? + next;
            if tick >= ticks {
                if tick > ticks {
                    return Err(DecodeError::Invalid("an input event lies beyond its chunk"));
                }
                break;
            }
            let flips = bits.bit()?;
            if !flips && !present {
                return Err(DecodeError::Invalid("the input of an absent slot changes"));
            }
            present ^= flips;
            let delta = present.then_some(deltas);
            deltas += usize::from(present);
            events.push(Event {
                tick,
                slot,
                flips,
                delta,
            });
            next = tick + 1;
        }
    }
    bits.finish()?;
    let size = usize::from(input_bytes);
    if planes.len() != deltas * size {
        return Err(DecodeError::Invalid(
            "input deltas do not match their events",
        ));
    }

    // Stable, so events of one tick stay in slot order and each slot's in time order.
    events.sort_by_key(|event| event.tick);
    let mut current = InputFrame::empty(first, slots, input_bytes);
    let mut events = events.into_iter().peekable();
    let mut value = vec![0; size];
    let mut frames = Vec::with_capacity(ticks as usize);
    for tick in 0..ticks {
        current.set_tick(first.plus(tick));
        while let Some(event) = events.next_if(|event| event.tick == tick) {
            let slot = Slot(event.slot);
            let Some(delta) = event.delta else {
                current.clear(slot);
                continue;
            };
            match current.input(slot) {
                Some(old) => value.copy_from_slice(old),
                None => value.fill(0),
            }
            let mut changed = false;
            for (plane, byte) in value.iter_mut().enumerate() {
                let xor = planes[plane * deltas + delta];
                changed |= xor != 0;
                *byte ^= xor;
            }
            if !changed && !event.flips {
                return Err(DecodeError::Invalid("an input change changes nothing"));
            }
            current.set(slot, &value);
        }
        frames.push(current.clone());
    }
    Ok(frames)
}

/// One event, as decoded.
struct Event {
    tick: u32,
    slot: u8,
    flips: bool,
    /// Number of its delta; `None` where the slot becomes absent.
    delta: Option<usize>,
}

/// Bits that a gap has at least, after its prefix.
const GAP_BITS: u32 = 3;
/// Ones in a gap's prefix at most: 3 + 8 bits hold every gap within a chunk.
const GAP_PREFIX_MAX: u32 = 8;

const _: () =
    assert!(REPLAY_CHUNK_TICKS_MAX + (1 << GAP_BITS) < 1 << (GAP_BITS + GAP_PREFIX_MAX + 1));

/// Appends bits, the lowest of each byte first.
#[derive(Debug, Default)]
struct BitWriter {
    bytes: Vec<u8>,
    /// Bits used in the last byte; 0 if it is full or there is none.
    used: u32,
}

impl BitWriter {
    fn bit(&mut self, bit: bool) {
        if self.used == 0 {
            self.bytes.push(0);
        }
        if let Some(last) = self.bytes.last_mut() {
            *last |= u8::from(bit) << self.used;
        }
        self.used = (self.used + 1) % 8;
    }

    fn bits(&mut self, value: u32, count: u32) {
        for shift in 0..count {
            self.bit(value >> shift & 1 == 1);
        }
    }

    /// Exp-Golomb of order 3: `0` and 3 bits below 8, `10` and 4 bits below 24, and so on.
    fn gap(&mut self, gap: u32) {
        let value = gap + (1 << GAP_BITS);
        let bits = value.ilog2();
        for _ in GAP_BITS..bits {
            self.bit(true);
        }
        self.bit(false);
        self.bits(value, bits);
    }
}

/// Reads what [`BitWriter`] wrote.
struct BitReader<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> BitReader<'a> {
    const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    fn bit(&mut self) -> Result<bool, DecodeError> {
        let byte = self
            .bytes
            .get(self.position / 8)
            .ok_or(DecodeError::Truncated)?;
        let bit = byte >> (self.position % 8) & 1 == 1;
        self.position += 1;
        Ok(bit)
    }

    fn gap(&mut self) -> Result<u32, DecodeError> {
        let mut bits = GAP_BITS;
        while self.bit()? {
            bits += 1;
            if bits > GAP_BITS + GAP_PREFIX_MAX {
                return Err(DecodeError::Invalid("a gap between inputs is too long"));
            }
        }
        let mut value = 1 << bits;
        for shift in 0..bits {
            value |= u32::from(self.bit()?) << shift;
        }
        Ok(value - (1 << GAP_BITS))
    }

    /// All but less than a byte was read, and what is left is zero.
    fn finish(mut self) -> Result<(), DecodeError> {
        if self.position.div_ceil(8) != self.bytes.len() {
            return Err(DecodeError::Invalid(
                "bits are left over after the last slot",
            ));
        }
        while self.position < self.bytes.len() * 8 {
            if self.bit()? {
                return Err(DecodeError::Invalid("padding bits are not zero"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prng::Prng;

    fn random_frames(
        prng: &mut Prng,
        slots: u8,
        size: u8,
        first: Tick,
        ticks: u32,
    ) -> Vec<InputFrame> {
        let mut frame = InputFrame::empty(first, slots, size);
        (0..ticks)
            .map(|tick| {
                frame.set_tick(first.plus(tick));
                for slot in 0..slots {
                    if prng.chance_per_million(100_000) {
                        let input: Vec<u8> = (0..size)
                            .map(|_| prng.next_u64().to_le_bytes()[0])
                            .collect();
                        frame.set(Slot(slot), &input);
                    } else if prng.chance_per_million(20_000) {
                        frame.clear(Slot(slot));
                    }
                }
                frame.clone()
            })
            .collect()
    }

    #[test]
    fn runs_of_every_shape_come_back() {
        let mut prng = Prng::new(11);
        for (slots, size, ticks) in [
            (0, 0, 1),
            (1, 1, 1),
            (8, 8, 120),
            (64, 11, 33),
            (3, 0, 50),
            (2, 3, REPLAY_CHUNK_TICKS_MAX),
        ] {
            let first = Tick::new(1000);
            let frames = random_frames(&mut prng, slots, size, first, ticks);
            let mut run = InputRun::new(slots, size, first, 0);
            frames.iter().for_each(|frame| run.push(frame));
            let mut bytes = Vec::new();
            run.encode(&mut bytes);
            let decoded = decode_run(&bytes, slots, size, first, first.plus(ticks - 1));
            assert_eq!(
                decoded.as_ref(),
                Ok(&frames),
                "{slots} slots of {size} bytes"
            );
        }
    }

    #[test]
    fn unchanged_inputs_cost_almost_nothing() {
        let mut run = InputRun::new(8, 8, Tick::new(1), 0);
        let mut frame = InputFrame::empty(Tick::new(1), 8, 8);
        for slot in 0..8 {
            frame.set(Slot(slot), &[slot; 8]);
        }
        for tick in 1..=600 {
            frame.set_tick(Tick::new(tick));
            run.push(&frame);
        }
        let mut bytes = Vec::new();
        run.encode(&mut bytes);
        assert!(
            bytes.len() <= 64 + 24,
            "{} bytes for 600 ticks",
            bytes.len()
        );
    }

    #[test]
    fn hostile_runs_are_refused_and_accepted_ones_have_one_form() {
        let mut prng = Prng::new(5);
        let frames = random_frames(&mut prng, 4, 3, Tick::new(1), 60);
        let mut run = InputRun::new(4, 3, Tick::new(1), 0);
        frames.iter().for_each(|frame| run.push(frame));
        let mut bytes = Vec::new();
        run.encode(&mut bytes);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let Ok(other) = decode_run(&flipped, 4, 3, Tick::new(1), Tick::new(60)) else {
                continue;
            };
            let mut again = InputRun::new(4, 3, Tick::new(1), 0);
            other.iter().for_each(|frame| again.push(frame));
            let mut coded = Vec::new();
            again.encode(&mut coded);
            assert_eq!(coded, flipped, "bit {bit} gives a second form");
        }
        for length in 0..bytes.len() {
            assert!(decode_run(&bytes[..length], 4, 3, Tick::new(1), Tick::new(60)).is_err());
        }
    }

    #[test]
    fn the_chain_depends_on_every_frame() {
        let mut prng = Prng::new(6);
        let frames = random_frames(&mut prng, 2, 2, Tick::new(1), 10);
        let chain = |frames: &[InputFrame]| {
            let mut run = InputRun::new(2, 2, Tick::new(1), 0);
            for frame in frames {
                run.push(frame);
            }
            run.chain()
        };
        let mut changed = frames.clone();
        changed[4].set(Slot(1), &[1, 2]);
        assert_ne!(frames, changed);
        assert_ne!(chain(&frames), chain(&changed));
    }
}
