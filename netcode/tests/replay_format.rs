//! The replay format, from the outside: golden bytes, and a decoder that was written from
//! `docs/REPLAY.md` alone. It shares no code with the crate's reader; a difference between the
//! two is an error in one of them or in the document.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::io::Cursor;
use std::sync::Arc;

use phalanx_netcode::id::{MemberId, NetId, SessionId, Slot, Term};
use phalanx_netcode::input::InputFrame;
use phalanx_netcode::prng::Prng;
use phalanx_netcode::replay::{Completeness, Header, Mode, Reader, TermCause, TermChange, Writer};
use phalanx_netcode::state::{
    ExactType, FieldSchema, KindRows, KindSchema, KindShape, Schema, Snapshot, Visibility,
};
use phalanx_netcode::tick::{Tick, TickRate};
use xxhash_rust::xxh3::xxh3_64;

/// The replay of three ticks that `record_tiny` writes: preamble, header, checksum, then header
/// and payload of each chunk on lines of their own, then the footer.
const GOLDEN: &str = "
    5048585245504c0a010000004c000000
    0474696e79026231013c0002020807060504030201edfe000000000000000000000000000005000000c840bd
    0d66f428801502010553636f72650101000106706f696e747303000341646100
    4a60c92f965397ad
    c74b03000500000005000000100000008971aa81e8b97f1eb5df621b
    01c840bd0d66f4288005000000012c01
    c74b010006000000070000000a0000008b1392b95974d2849aef008b
    03108004010000020100
    c74b020005000000070000001e000000f170f2ae28946fb874116cf6
    0700000004f7a5bb28982d5c020211110000000000002222000000000000
    c74b04000800000008000000030000000459626268d8360235a15d17
    010101
    c74b01000800000008000000050000009bb5593d371b0947a34f0deb
    0202010000
    c74b03000800000008000000100000004ba2bff301c33034b238b0af
    01c840bd0d66f4288008000000012d01
    c74b7f00050000000800000018000000d4de664f382a430f988667d7
    0305002c010601260205023a0408001f010800210308002c
    5c01000000000000dbef03fdcc17dcfc50485852444f4e45
";

fn schema() -> Schema {
    Schema::new(vec![KindSchema {
        name: "Score".to_owned(),
        version: 1,
        shape: KindShape::Resource,
        visibility: Visibility::Client,
        fields: vec![FieldSchema::new("points", ExactType::U16)],
    }])
    .unwrap()
}

fn snapshot(tick: u32, points: u16) -> Snapshot {
    let mut rows = KindRows::default();
    rows.push(NetId::NONE, |out| out.extend(points.to_le_bytes()));
    Snapshot {
        tick: Tick::new(tick),
        kinds: vec![rows],
    }
}

fn header(slots: usize, input_bytes: u8, start: u32) -> Header {
    let mut roster = vec![String::new(); slots];
    roster[0] = "Ada".to_owned();
    Header {
        game: "tiny".to_owned(),
        build: "b1".to_owned(),
        mode: Mode::Lockstep,
        tick_rate: TickRate::DEFAULT,
        input_bytes,
        seed: 0x0102_0304_0506_0708,
        session: SessionId(0xfeed),
        schema: Arc::new(schema()),
        roster,
        start: Tick::new(start),
    }
}

/// Two slots with inputs of two bytes, from tick 5 on: one joins, one changes, one leaves.
fn record_tiny() -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), &header(2, 2, 5)).unwrap();
    writer.keyframe(&snapshot(5, 300)).unwrap();
    writer.hash(Tick::new(5), 0x1111).unwrap();
    let mut frame = InputFrame::empty(Tick::new(6), 2, 2);
    frame.set(Slot(0), &[1, 2]);
    writer.frame(&frame).unwrap();
    frame.set_tick(Tick::new(7));
    frame.set(Slot(0), &[1, 3]);
    frame.set(Slot(1), &[0, 0]);
    writer.frame(&frame).unwrap();
    writer.hash(Tick::new(7), 0x2222).unwrap();
    writer
        .term_changed(&TermChange {
            takeover: Tick::new(8),
            term: Term(1),
            host: MemberId(1),
            cause: TermCause::Handover,
        })
        .unwrap();
    frame.set_tick(Tick::new(8));
    frame.clear(Slot(0));
    writer.frame(&frame).unwrap();
    writer.keyframe(&snapshot(8, 301)).unwrap();
    writer.finish().unwrap().0
}

/// Everything that a file says, in plain numbers.
#[derive(Debug, Default, PartialEq)]
struct Decoded {
    game: String,
    build: String,
    mode: u8,
    tick_rate: u16,
    input_bytes: u8,
    slots: u8,
    seed: u64,
    session: u128,
    start: u32,
    schema_hash: u64,
    schema: Vec<u8>,
    roster: Vec<String>,
    /// Tick, and per slot its input if it is present.
    frames: Vec<(u32, Vec<Option<Vec<u8>>>)>,
    hashes: Vec<(u32, u64)>,
    /// Tick and digest of the inputs.
    digests: Vec<(u32, u64)>,
    keyframes: Vec<(u32, Vec<u8>)>,
    /// Takeover tick, term, host, cause.
    terms: Vec<(u32, u64, u64, u8)>,
    packed_chunks: usize,
}

/// Takes bytes from the front.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }
    fn number(&mut self, count: usize) -> u128 {
        let bytes = self.take(count).iter().rev();
        bytes.fold(0, |number, &byte| number << 8 | u128::from(byte))
    }
    fn u8(&mut self) -> u8 {
        u8::try_from(self.number(1)).unwrap()
    }
    fn u16(&mut self) -> u16 {
        u16::try_from(self.number(2)).unwrap()
    }
    fn u32(&mut self) -> u32 {
        u32::try_from(self.number(4)).unwrap()
    }
    fn u64(&mut self) -> u64 {
        u64::try_from(self.number(8)).unwrap()
    }
    fn varint(&mut self) -> u64 {
        let mut number = 0;
        let mut shift = 0;
        loop {
            let byte = self.u8();
            number |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return number;
            }
        }
    }
    fn counted(&mut self) -> &'a [u8] {
        let count = usize::try_from(self.varint()).unwrap();
        self.take(count)
    }
    fn text(&mut self) -> String {
        String::from_utf8(self.counted().to_vec()).unwrap()
    }
}

/// Chapters 2 to 5 of the document.
fn decode(file: &[u8]) -> Decoded {
    let mut bytes = Bytes(file);
    assert_eq!(bytes.take(8), b"PHXREPL\n");
    assert_eq!((bytes.u16(), bytes.u16()), (1, 0));
    let length = bytes.u32() as usize;
    let mut body = Bytes(bytes.take(length));
    assert_eq!(bytes.u64(), xxh3_64(&file[..16 + length]));
    let mut decoded = Decoded {
        game: body.text(),
        build: body.text(),
        mode: body.u8(),
        tick_rate: body.u16(),
        input_bytes: body.u8(),
        slots: body.u8(),
        seed: body.u64(),
        session: body.number(16),
        start: body.u32(),
        schema_hash: body.u64(),
        schema: body.counted().to_vec(),
        ..Decoded::default()
    };
    decoded.roster = (0..decoded.slots).map(|_slot| body.text()).collect();
    assert!(body.0.is_empty());

    let mut seen = Vec::new();
    let index_at = loop {
        let at = file.len() - bytes.0.len();
        let chunk = bytes.0;
        assert_eq!(bytes.take(2), [0xc7, 0x4b]);
        let (kind, coding) = (bytes.u8(), bytes.u8());
        let (first, last) = (bytes.u32(), bytes.u32());
        let length = bytes.u32() as usize;
        let checksum = bytes.u64();
        assert_eq!(bytes.take(4), &xxh3_64(&chunk[..24]).to_le_bytes()[..4]);
        let stored = bytes.take(length);
        assert_eq!(checksum, xxh3_64(stored));
        let payload = if coding == 1 {
            decoded.packed_chunks += 1;
            let mut packed = Bytes(stored);
            let unpacked = usize::try_from(packed.varint()).unwrap();
            lz4_flex::block::decompress(packed.0, unpacked).unwrap()
        } else {
            assert_eq!(coding, 0);
            stored.to_vec()
        };
        let mut payload = Bytes(&payload);
        match kind {
            1 => decode_inputs(&mut decoded, payload, first, last),
            2 => {
                decoded.digests.push((payload.u32(), payload.u64()));
                let count = payload.varint();
                let mut ticks = vec![first];
                for _ in 1..count {
                    ticks.push(ticks.last().unwrap() + u32::try_from(payload.varint()).unwrap());
                }
                assert_eq!(ticks.last(), Some(&last));
                decoded
                    .hashes
                    .extend(ticks.iter().map(|&tick| (tick, payload.u64())));
                assert!(payload.0.is_empty());
            }
            3 => decoded.keyframes.push((first, payload.0.to_vec())),
            4 => {
                let term = (first, payload.varint(), payload.varint(), payload.u8());
                decoded.terms.push(term);
                assert!(payload.0.is_empty());
            }
            0x7f => {
                for &(kind, first, last, length) in &seen {
                    assert_eq!(payload.u8(), kind);
                    assert_eq!(payload.varint(), u64::from(first));
                    assert_eq!(payload.varint(), u64::from(last - first));
                    assert_eq!(payload.varint(), length);
                }
                assert!(payload.0.is_empty());
                break at;
            }
            kind => panic!("kind {kind}"),
        }
        seen.push((kind, first, last, 28 + length as u64));
    };
    assert_eq!(bytes.0.len(), 24);
    let offset = &bytes.0[..8];
    assert_eq!(offset, (index_at as u64).to_le_bytes());
    assert_eq!(bytes.0[8..16], xxh3_64(offset).to_le_bytes());
    assert_eq!(&bytes.0[16..], b"PHXRDONE");
    decoded
}

/// Chapter 6.
fn decode_inputs(decoded: &mut Decoded, mut payload: Bytes<'_>, first: u32, last: u32) {
    let ticks = last - first + 1;
    let bits = payload.counted();
    let planes = payload.0;
    let mut position = 0;
    let mut bit = || {
        let bit = u32::from(bits[position / 8] >> (position % 8) & 1);
        position += 1;
        bit
    };
    // Slot, tick, flips, number of the delta.
    let mut events = Vec::new();
    let mut deltas = 0;
    for slot in 0..usize::from(decoded.slots) {
        let (mut next, mut present) = (0, false);
        loop {
            let mut prefix = 0;
            while bit() == 1 {
                prefix += 1;
            }
            assert!(prefix <= 8);
            let value: u32 = (0..3 + prefix).map(|shift| bit() << shift).sum();
            let tick = next + (1 << (3 + prefix)) + value - 8;
            assert!(tick <= ticks);
            if tick == ticks {
                break;
            }
            let flips = bit() == 1;
            assert!(flips || present);
            present ^= flips;
            events.push((slot, tick, present.then_some(deltas)));
            deltas += usize::from(present);
            next = tick + 1;
        }
    }
    assert_eq!(bits.len(), position.div_ceil(8));
    let size = usize::from(decoded.input_bytes);
    assert_eq!(planes.len(), deltas * size);
    for tick in 0..ticks {
        let mut frame = Vec::new();
        for slot in 0..usize::from(decoded.slots) {
            let mut input: Option<Vec<u8>> = None;
            for &(_, _, delta) in events
                .iter()
                .filter(|event| event.0 == slot && event.1 <= tick)
            {
                let Some(delta) = delta else {
                    input = None;
                    continue;
                };
                let mut bytes = input.unwrap_or(vec![0; size]);
                for (plane, byte) in bytes.iter_mut().enumerate() {
                    *byte ^= planes[plane * deltas + delta];
                }
                input = Some(bytes);
            }
            frame.push(input);
        }
        decoded.frames.push((first + tick, frame));
    }
}

/// The digest of inputs, chapter 5.
fn digests(decoded: &Decoded) -> Vec<(u32, u64)> {
    let mut digest = 0;
    let mut all = vec![(decoded.start, digest)];
    for (tick, inputs) in &decoded.frames {
        let mut bytes = Vec::new();
        bytes.extend(u64::to_le_bytes(digest));
        bytes.extend(tick.to_le_bytes());
        let present = inputs.iter().enumerate();
        let present: u64 = present
            .map(|(slot, input)| u64::from(input.is_some()) << slot)
            .sum();
        bytes.extend(present.to_le_bytes());
        for input in inputs {
            let absent = vec![0; usize::from(decoded.input_bytes)];
            bytes.extend(input.as_ref().unwrap_or(&absent));
        }
        digest = xxh3_64(&bytes);
        all.push((*tick, digest));
    }
    all
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn encoded(snapshot: &Snapshot) -> Vec<u8> {
    let mut bytes = Vec::new();
    snapshot.encode(&schema(), &mut bytes);
    bytes
}

#[test]
fn the_tiny_replay_has_its_golden_bytes() {
    let bytes = record_tiny();
    assert_eq!(hex(&bytes), GOLDEN.split_whitespace().collect::<String>());
}

#[test]
fn the_golden_bytes_mean_what_the_document_says() {
    let golden: String = GOLDEN.split_whitespace().collect();
    assert!(golden.is_ascii());
    let byte = |at: usize| u8::from_str_radix(&golden[at..at + 2], 16).unwrap();
    let golden: Vec<u8> = (0..golden.len()).step_by(2).map(byte).collect();
    let decoded = decode(&golden);
    let mut schema_bytes = Vec::new();
    schema().encode(&mut schema_bytes);
    let expected = Decoded {
        game: "tiny".to_owned(),
        build: "b1".to_owned(),
        mode: 1,
        tick_rate: 60,
        input_bytes: 2,
        slots: 2,
        seed: 0x0102_0304_0506_0708,
        session: 0xfeed,
        start: 5,
        schema_hash: schema().hash(),
        schema: schema_bytes,
        roster: vec!["Ada".to_owned(), String::new()],
        frames: vec![
            (6, vec![Some(vec![1, 2]), None]),
            (7, vec![Some(vec![1, 3]), Some(vec![0, 0])]),
            (8, vec![None, Some(vec![0, 0])]),
        ],
        hashes: vec![(5, 0x1111), (7, 0x2222)],
        digests: vec![digests(&decoded)[2]],
        keyframes: vec![
            (5, encoded(&snapshot(5, 300))),
            (8, encoded(&snapshot(8, 301))),
        ],
        terms: vec![(8, 1, 1, 1)],
        packed_chunks: 0,
    };
    assert_eq!(decoded, expected);
}

#[test]
fn the_documents_decoder_and_the_reader_agree() {
    for seed in 0..20 {
        let mut prng = Prng::new(seed);
        let (slots, size) = [(1, 1), (8, 8), (64, 9), (5, 0)][usize::try_from(seed % 4).unwrap()];
        let mut writer = Writer::with_chunk_ticks(Vec::new(), &header(slots, size, 0), 50).unwrap();
        writer.keyframe(&snapshot(0, 1)).unwrap();
        let slots = u8::try_from(slots).unwrap();
        let mut frame = InputFrame::empty(Tick::ZERO, slots, size);
        let mut input = vec![0; usize::from(size)];
        for tick in 1..=330 {
            frame.set_tick(Tick::new(tick));
            for slot in 0..slots {
                if prng.chance_per_million(100_000) {
                    // Few bytes change, so that there is something to pack.
                    if let Some(byte) = input.first_mut() {
                        *byte = prng.next_u64().to_le_bytes()[0];
                    }
                    frame.set(Slot(slot), &input);
                } else if prng.chance_per_million(20_000) {
                    frame.clear(Slot(slot));
                }
            }
            writer.frame(&frame).unwrap();
            if prng.chance_per_million(300_000) {
                writer.hash(Tick::new(tick), prng.next_u64()).unwrap();
            }
            if tick % 100 == 0 {
                writer
                    .keyframe(&snapshot(tick, u16::try_from(tick).unwrap()))
                    .unwrap();
            }
        }
        let bytes = writer.finish().unwrap().0;
        let decoded = decode(&bytes);
        let mut reader = Reader::open(Cursor::new(&bytes)).unwrap();
        assert_eq!(reader.completeness(), Completeness::Complete);
        assert_eq!(decoded.frames.len(), 330, "seed {seed}");
        for (tick, inputs) in &decoded.frames {
            let frame = reader.frame_at(Tick::new(*tick)).unwrap().unwrap();
            for (slot, input) in (0..slots).zip(inputs) {
                let read = frame.input(Slot(slot));
                assert_eq!(
                    read,
                    input.as_deref(),
                    "seed {seed}, tick {tick}, slot {slot}"
                );
            }
        }
        for &(tick, hash) in &decoded.hashes {
            assert_eq!(
                reader.hash_at(Tick::new(tick)).unwrap(),
                Some(hash),
                "seed {seed}"
            );
        }
        let all = digests(&decoded);
        for digest in &decoded.digests {
            assert!(all.contains(digest), "seed {seed}: {digest:?}");
        }
        for (tick, keyframe) in &decoded.keyframes {
            let read = reader.keyframe_at(Tick::new(*tick)).unwrap().unwrap();
            assert_eq!(&encoded(&read), keyframe, "seed {seed}");
        }
        assert_eq!(decoded.keyframes.len(), reader.keyframe_ticks().count());
        if (slots, size) == (8, 8) {
            assert!(decoded.packed_chunks > 0, "seed {seed}: nothing to pack");
        }
    }
}
