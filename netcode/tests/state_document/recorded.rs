//! Chunks of states in a replay, as `docs/REPLAY.md` has them.

/// A chunk: kind, first and last tick, payload.
pub(super) type Chunk = (u8, u32, u32, Vec<u8>);

pub(super) struct Bytes<'a>(pub(super) &'a [u8]);

impl<'a> Bytes<'a> {
    pub(super) fn take(&mut self, count: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(count);
        self.0 = rest;
        head
    }

    fn number(&mut self, count: usize) -> u64 {
        let bytes = self.take(count).iter().rev();
        bytes.fold(0, |number, &byte| number << 8 | u64::from(byte))
    }

    pub(super) fn varint(&mut self) -> u64 {
        let mut value = 0;
        for place in 0.. {
            let byte = self.number(1);
            value |= (byte & 0x7f) << (7 * place);
            if byte < 0x80 {
                break;
            }
        }
        value
    }
}

/// All chunks of a whole file.
pub(super) fn chunks(file: &[u8]) -> Vec<Chunk> {
    let mut bytes = Bytes(&file[12..]);
    let header = usize::try_from(bytes.number(4)).unwrap();
    let _header = bytes.take(header + 8);
    let mut chunks = Vec::new();
    // The footer ends the file.
    while bytes.0.len() > 24 {
        assert_eq!(bytes.take(2), [0xc7, 0x4b]);
        let (kind, coding) = (bytes.take(1)[0], bytes.take(1)[0]);
        let ticks = [(); 2].map(|()| u32::try_from(bytes.number(4)).unwrap());
        let length = usize::try_from(bytes.number(4)).unwrap();
        let _checks = bytes.take(12);
        let mut payload = Bytes(bytes.take(length));
        let payload = match coding {
            0 => payload.0.to_vec(),
            _ => {
                let unpacked = usize::try_from(payload.varint()).unwrap();
                lz4_flex::block::decompress(payload.0, unpacked).unwrap()
            }
        };
        chunks.push((kind, ticks[0], ticks[1], payload));
    }
    chunks
}

/// The ticks and bodies of a chunk of states, with the version of the codec; for one that goes on,
/// how far before its first the state before stands.
pub(super) fn states((kind, first, last, payload): &Chunk) -> (u64, u64, Vec<(u32, Vec<u8>)>) {
    let mut bytes = Bytes(payload);
    let version = bytes.varint();
    let distance = if *kind == 0x11 { bytes.varint() } else { 0 };
    let count = bytes.varint();
    let mut ticks = vec![*first];
    for _ in 1..count {
        let before = ticks[ticks.len() - 1];
        ticks.push(before + u32::try_from(bytes.varint()).unwrap());
    }
    assert_eq!(ticks.last(), Some(last));
    let states = ticks.into_iter().map(|tick| {
        let count = usize::try_from(bytes.varint()).unwrap();
        (tick, bytes.take(count).to_vec())
    });
    let states = states.collect();
    assert!(bytes.0.is_empty());
    (version, distance, states)
}
