//! Quantized snapshots in a row, each coded against those before it: see `docs/REPLAY.md`.
//!
//! A **run** of snapshots begins with one that needs no other. The others use the snapshots 1, 2
//! and 5 before them, as far as the run has them. So a run decodes from its beginning only, and
//! what a run may hold bounds what a seek costs.

use core::ops::Range;
use std::collections::VecDeque;
use std::sync::Arc;

use super::format::ChunkKind;
use crate::delta::{self, Decoder, Encoder, Reference, Tally, View, WholeEnd};
use crate::id::NetId;
use crate::limits::{
    REPLAY_CHUNK_TICKS_MAX, REPLAY_KEYFRAME_BYTES_MAX, REPLAY_RUN_COST_MAX, STATE_HELD_BYTES_MAX,
};
use crate::state::{
    KindRows, Patch, QuantizedSnapshot, Quantizer, Schema, Shapes, Snapshot, WireLayout,
};
use crate::tick::{Tick, TickRate};
use crate::wire::bytes::{DecodeError, Reader, put_counted, put_varint};

/// How many snapshots before a coded one its references are.
const REFERENCE_AGES: [u32; 3] = [1, 2, 5];

/// Snapshots that may be needed as references.
const WINDOW: usize = 5;

/// A run ends after so many seconds, or when decoding it costs too much: damage costs at most a
/// run.
const RUN_SECONDS: u32 = 30;

/// A chunk ends when it has so many bytes of bodies.
const CHUNK_BYTES: usize = 256 << 10;

/// The newest snapshots of a run.
#[derive(Debug, Default)]
struct Window {
    /// Oldest first.
    snapshots: VecDeque<QuantizedSnapshot>,
    /// How many of them are of the present run.
    usable: usize,
    /// Memory for the next one.
    spare: QuantizedSnapshot,
    /// What decoding the run's snapshots costs, but for its first.
    cost: usize,
}

impl Window {
    fn newest(&self) -> Option<&QuantizedSnapshot> {
        self.snapshots.back()
    }

    /// A run begins: nothing before it is a reference.
    fn begin_run(&mut self) {
        self.usable = 0;
        self.cost = 0;
    }

    /// The references of the next snapshot.
    fn references(&self) -> Vec<Reference<'_>> {
        let ages = REFERENCE_AGES.into_iter();
        ages.filter(|&age| age as usize <= self.usable)
            .filter_map(|age| {
                let index = self.snapshots.len().checked_sub(age as usize)?;
                let view = View::all(self.snapshots.get(index)?);
                Some(Reference { age, view })
            })
            .collect()
    }

    /// Whether another snapshot may follow in the present run.
    const fn has_room(&self) -> bool {
        self.cost <= REPLAY_RUN_COST_MAX
    }

    /// Adds a snapshot whose body has so many bytes.
    fn push(&mut self, snapshot: QuantizedSnapshot, bytes: usize) {
        if self.usable > 0 {
            let cost = bytes.saturating_add(snapshot.len() / 8);
            self.cost = self.cost.saturating_add(cost);
        }
        self.snapshots.push_back(snapshot);
        self.usable = (self.usable + 1).min(WINDOW);
        if self.snapshots.len() > WINDOW
            && let Some(oldest) = self.snapshots.pop_front()
        {
            self.spare = oldest;
        }
    }
}

/// The exact state that quantized values stand for; kinds that clients do not get have no rows.
///
/// # Errors
/// If a row is none that quantizing makes.
pub(super) fn exact_of(
    schema: &Schema,
    layout: &WireLayout,
    shapes: &Shapes,
    snapshot: &QuantizedSnapshot,
) -> Result<Snapshot, DecodeError> {
    let mut patch = Patch::default();
    Patch::between(layout, shapes, None, snapshot, &mut patch)?;
    let mut exact = Snapshot {
        tick: snapshot.tick,
        kinds: vec![KindRows::default(); schema.kinds().len()],
    };
    patch.apply_to(schema, &mut exact);
    Ok(exact)
}

/// Snapshots on their way into chunks.
#[derive(Debug)]
pub(super) struct StateRun {
    layout: Arc<WireLayout>,
    shapes: Shapes,
    quantizer: Quantizer,
    encoder: Encoder,
    window: Window,
    /// The newest snapshot in its exact form.
    exact: Option<Snapshot>,
    /// First tick of the present run.
    run_first: Tick,
    run_ticks: u32,
    chunk_ticks: u32,
    chunk: Chunk,
}

/// The snapshots that wait to be a chunk.
#[derive(Debug, Default)]
struct Chunk {
    /// The snapshot before its first, if that is of the same run.
    continues: Option<Tick>,
    first: Tick,
    last: Tick,
    count: u32,
    distances: Vec<u8>,
    bodies: Vec<u8>,
}

/// A snapshot that was too large to be recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLarge;

impl StateRun {
    pub(super) fn new(schema: &Schema, rate: TickRate, chunk_ticks: u32) -> Self {
        let layout = Arc::new(WireLayout::new(schema));
        Self {
            encoder: Encoder::new(Arc::clone(&layout)),
            layout,
            shapes: Shapes::default(),
            quantizer: Quantizer::default(),
            window: Window::default(),
            exact: None,
            run_first: Tick::ZERO,
            run_ticks: u32::from(rate.hz()) * RUN_SECONDS,
            chunk_ticks,
            chunk: Chunk::default(),
        }
    }

    /// Tick of the newest snapshot.
    pub(super) fn newest(&self) -> Option<Tick> {
        self.window.newest().map(|snapshot| snapshot.tick)
    }

    /// Whether nothing waits.
    pub(super) const fn is_empty(&self) -> bool {
        self.chunk.count == 0
    }

    /// Whether a chunk's worth waits.
    pub(super) fn is_full(&self) -> bool {
        let ticks = self.chunk.last.since(self.chunk.first);
        self.chunk.count >= REPLAY_CHUNK_TICKS_MAX
            || self.chunk.bodies.len() >= CHUNK_BYTES
            || !self.is_empty() && ticks >= self.chunk_ticks
    }

    /// Quantizes a valid state of the schema, the next one. [`StateRun::push`] adds it.
    pub(super) fn quantize(&mut self, snapshot: &Snapshot) -> QuantizedSnapshot {
        let mut quantized = core::mem::take(&mut self.window.spare);
        let before = self.exact.as_ref().zip(self.window.newest());
        let _report = self.quantizer.quantize(
            &self.layout,
            &mut self.shapes,
            snapshot,
            before,
            &mut quantized,
        );
        let exact = self.exact.get_or_insert_default();
        exact.tick = snapshot.tick;
        exact
            .kinds
            .resize_with(snapshot.kinds.len(), KindRows::default);
        for (to, from) in exact.kinds.iter_mut().zip(&snapshot.kinds) {
            to.ids.clone_from(&from.ids);
            to.ends.clone_from(&from.ends);
            to.bytes.clone_from(&from.bytes);
        }
        quantized
    }

    /// The hash of a quantized state.
    pub(super) fn hash(&self, quantized: &QuantizedSnapshot) -> u64 {
        quantized.hash(&self.shapes)
    }

    /// The exact form of a quantized state.
    pub(super) fn exact_of(
        &self,
        schema: &Schema,
        quantized: &QuantizedSnapshot,
    ) -> Result<Snapshot, DecodeError> {
        exact_of(schema, &self.layout, &self.shapes, quantized)
    }

    /// Whether a run begins with this snapshot. What waits must be taken before it is pushed then.
    pub(super) fn begins_run(&self, next: &QuantizedSnapshot) -> bool {
        self.window.newest().is_none()
            || next.tick.since(self.run_first) >= self.run_ticks
            || !self.window.has_room()
    }

    /// Adds a snapshot. The first of a run needs no other.
    pub(super) fn push(
        &mut self,
        snapshot: QuantizedSnapshot,
        begins_run: bool,
    ) -> Result<(), TooLarge> {
        let tick = snapshot.tick;
        let before = self.newest();
        if begins_run {
            self.window.begin_run();
            self.run_first = tick;
        }
        let mut body = Vec::new();
        let end = self.encoder.encode_whole(
            &self.shapes,
            View::all(&snapshot),
            &self.window.references(),
            NetId::NONE,
            BODY_BYTES_MAX,
            &mut body,
        );
        if end != WholeEnd::Done {
            // It is not in the window, so nothing may be copied from it.
            self.exact = None;
            return Err(TooLarge);
        }
        let chunk = &mut self.chunk;
        if chunk.count == 0 {
            chunk.first = tick;
            chunk.continues = before.filter(|_| !begins_run);
        } else {
            put_varint(&mut chunk.distances, u64::from(tick.since(chunk.last)));
        }
        chunk.last = tick;
        chunk.count += 1;
        put_counted(&mut chunk.bodies, &body);
        self.window.push(snapshot, body.len());
        Ok(())
    }

    /// Moves what waits into `payload`; gives its kind, first and last tick, and number.
    pub(super) fn take(&mut self, payload: &mut Vec<u8>) -> (ChunkKind, Tick, Tick, u32) {
        let chunk = &mut self.chunk;
        put_varint(payload, u64::from(delta::VERSION));
        let kind = match chunk.continues {
            Some(before) => {
                put_varint(payload, u64::from(chunk.first.since(before)));
                ChunkKind::MoreStates
            }
            None => ChunkKind::States,
        };
        put_varint(payload, u64::from(chunk.count));
        payload.append(&mut chunk.distances);
        payload.append(&mut chunk.bodies);
        let taken = (kind, chunk.first, chunk.last, chunk.count);
        chunk.count = 0;
        taken
    }
}

/// Bytes of a body at most; with its bookkeeping it fits a chunk.
const BODY_BYTES_MAX: usize = REPLAY_KEYFRAME_BYTES_MAX - CHUNK_BYTES - (64 << 10);

/// The bodies of a chunk.
#[derive(Debug)]
pub(super) struct States {
    /// The snapshot before its first, in the same run.
    pub(super) continues: Option<Tick>,
    bytes: Vec<u8>,
    /// Tick, and where its body is.
    bodies: Vec<(Tick, Range<usize>)>,
}

impl States {
    pub(super) fn decode(
        kind: ChunkKind,
        bytes: Vec<u8>,
        first: Tick,
        last: Tick,
    ) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(&bytes);
        if reader.varint_u32()? != delta::VERSION {
            return Err(DecodeError::Invalid(
                "states are coded by another version of the state codec",
            ));
        }
        let continues = if kind == ChunkKind::MoreStates {
            let distance = reader.varint_u32()?;
            let before = first.number().checked_sub(distance).map(Tick::new);
            let before = before.filter(|&before| before < first);
            Some(before.ok_or(DecodeError::Invalid("states follow nothing"))?)
        } else {
            None
        };
        let count = reader.varint_u32()?;
        if count == 0 || count > REPLAY_CHUNK_TICKS_MAX {
            return Err(DecodeError::Invalid("a chunk has no states or too many"));
        }
        let mut tick = first;
        let mut bodies = vec![(first, 0..0)];
        for _ in 1..count {
            let distance = reader.varint_u32()?;
            let next = tick.number().checked_add(distance).map(Tick::new);
            tick = next
                .filter(|&next| next > tick)
                .ok_or(DecodeError::Invalid("the ticks of states do not ascend"))?;
            bodies.push((tick, 0..0));
        }
        if tick != last {
            return Err(DecodeError::Invalid("states do not span their chunk"));
        }
        for (_tick, place) in &mut bodies {
            let body = reader.counted(REPLAY_KEYFRAME_BYTES_MAX)?;
            let end = bytes.len() - reader.len();
            *place = end - body.len()..end;
        }
        reader.finish()?;
        Ok(Self {
            continues,
            bytes,
            bodies,
        })
    }

    /// The tick of snapshot number `index`.
    pub(super) fn tick(&self, index: usize) -> Option<Tick> {
        self.bodies.get(index).map(|body| body.0)
    }

    /// Bytes of all bodies.
    pub(super) fn body(&self, index: usize) -> Option<(Tick, &[u8])> {
        let (tick, place) = self.bodies.get(index)?;
        Some((*tick, self.bytes.get(place.clone())?))
    }
}

/// Decodes runs, snapshot by snapshot.
#[derive(Debug)]
pub(super) struct StateDecoder {
    layout: Arc<WireLayout>,
    shapes: Shapes,
    decoder: Decoder,
    window: Window,
    /// Codes each snapshot once more, to see where its bits go.
    inspector: Option<Box<Encoder>>,
}

impl StateDecoder {
    pub(super) fn new(schema: &Schema) -> Self {
        let layout = Arc::new(WireLayout::new(schema));
        Self {
            decoder: Decoder::new(Arc::clone(&layout)),
            layout,
            shapes: Shapes::default(),
            window: Window::default(),
            inspector: None,
        }
    }

    pub(super) fn layout(&self) -> &Arc<WireLayout> {
        &self.layout
    }

    pub(super) const fn shapes(&self) -> &Shapes {
        &self.shapes
    }

    /// The newest decoded snapshot.
    pub(super) fn newest(&self) -> Option<&QuantizedSnapshot> {
        self.window.newest()
    }

    /// Forgets all snapshots: the next one begins a run.
    pub(super) fn begin_run(&mut self) {
        self.window.begin_run();
    }

    /// Counts from here on where bits go, or stops to.
    pub(super) fn inspect(&mut self, on: bool) {
        self.inspector = on.then(|| {
            let mut encoder = Encoder::new(Arc::clone(&self.layout));
            encoder.set_tally(true);
            Box::new(encoder)
        });
    }

    /// Where the bits of what was decoded since then went.
    pub(super) fn tally(&self) -> Option<&Tally> {
        self.inspector.as_ref()?.tally()
    }

    /// Decodes the next snapshot of the run.
    pub(super) fn decode(&mut self, tick: Tick, body: &[u8]) -> Result<(), DecodeError> {
        if !self.window.has_room() {
            return Err(DecodeError::Invalid("a run of states is too long"));
        }
        let mut snapshot = core::mem::take(&mut self.window.spare);
        let references = self.window.references();
        let span =
            self.decoder
                .decode_whole(&mut self.shapes, tick, &references, body, &mut snapshot)?;
        if span.from != NetId::NONE || span.next.is_some() {
            return Err(DecodeError::Invalid("a state is not whole"));
        }
        if snapshot.memory() > STATE_HELD_BYTES_MAX {
            return Err(DecodeError::Invalid("a state is too large"));
        }
        if let Some(encoder) = &mut self.inspector {
            let now = View::all(&snapshot);
            let mut out = Vec::new();
            let room = BODY_BYTES_MAX;
            encoder.encode_whole(&self.shapes, now, &references, NetId::NONE, room, &mut out);
        }
        drop(references);
        self.window.push(snapshot, body.len());
        Ok(())
    }
}
