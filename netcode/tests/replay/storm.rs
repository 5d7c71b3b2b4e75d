//! Mutated files: an error or a replay, never a panic, a hang or a large buffer.

use super::*;

/// Sums up what a reader asks its source for, so that a test sees hostile lengths.
struct Counting<'a> {
    bytes: Cursor<&'a [u8]>,
    read: u64,
    /// The largest buffer that was to be filled: nobody allocates more for what the file claims.
    buffer_max: usize,
}

impl Read for Counting<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        self.buffer_max = self.buffer_max.max(out.len());
        let count = self.bytes.read(out)?;
        self.read += count as u64;
        Ok(count)
    }
}

impl Seek for Counting<'_> {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        self.bytes.seek(to)
    }
}

#[test]
fn mutated_files_of_lockstep_neither_panic_nor_hang() {
    let files = [
        record(Plan {
            ticks: 20,
            keyframe_every: 8,
            units: 2,
            ..SMALL
        })
        .0,
        record(Plan {
            ticks: 60,
            chunk_ticks: 30,
            hash_every: 4,
            ..SMALL
        })
        .0,
    ];
    storm(&files, 1_000_000);
}

#[test]
fn mutated_files_of_state_sync_neither_panic_nor_hang() {
    let file = states::record_states(Plan {
        ticks: 60,
        keyframe_every: 30,
        units: 3,
        ..SMALL
    })
    .0;
    storm(&[file], 60_000);
}

/// Opens, verifies and seeks as many mutations of `files` as `PHALANX_STORM` says, else `default`.
fn storm(files: &[Vec<u8>], default: u64) {
    let count = std::env::var("PHALANX_STORM").ok();
    let count = count
        .and_then(|count| count.parse().ok())
        .unwrap_or(default);
    let mut played = 0;
    for seed in 0..count {
        let mut prng = Prng::with_stream(seed, 0xf11e);
        let mut below = |bound: usize| usize::try_from(prng.below(bound as u64)).unwrap();
        let mut bytes = files[below(files.len())].clone();
        for _ in 0..=below(4) {
            if bytes.is_empty() {
                break;
            }
            let at = below(bytes.len());
            match below(6) {
                0 => bytes[at] ^= 1 << below(8),
                1 => bytes[at] = u8::try_from(below(256)).unwrap(),
                2 => bytes.truncate(at),
                3 => {
                    let piece: Vec<u8> = bytes[at..].iter().copied().take(below(200)).collect();
                    let to = below(bytes.len());
                    bytes.splice(to..to, piece);
                }
                4 => drop(bytes.drain(at..(at + below(40)).min(bytes.len()))),
                _ => {
                    // Mutations behind correct checksums reach deeper.
                    if bytes.starts_with(b"PHXREPL\n") {
                        let chunks = chunks_of_any(&bytes);
                        if let Some(&(at, length)) = chunks.get(below(chunks.len().max(1))) {
                            let inside = at + 2 + below(length - 2);
                            bytes[inside] ^= 1 << below(8);
                            let claimed = &bytes[at + 12..at + 16];
                            let claimed = u32::from_le_bytes(claimed.try_into().unwrap()) as usize;
                            if at + 28 + claimed <= bytes.len() {
                                forge(&mut bytes, at);
                            }
                        }
                    }
                }
            }
        }
        let source = Counting {
            bytes: Cursor::new(&bytes),
            read: 0,
            buffer_max: 0,
        };
        let Ok(reader) = Reader::open(source) else {
            continue;
        };
        let ticks = reader.last_tick().since(reader.first_tick());
        let Ok(mut player) = Player::new(Toy::new(0, 0, Tick::ZERO), reader) else {
            continue;
        };
        if ticks > 10_000 {
            // Forged tick numbers: it would play, and take its time.
            continue;
        }
        drop(player.verify(|_, _| ()));
        drop(player.seek(Tick::new(u32::try_from(prng.below(70)).unwrap())));
        drop(player.reader_mut().info());
        let source = player.into_parts().1.into_source();
        let (read, buffer) = (source.read, source.buffer_max);
        let length = bytes.len();
        assert!(
            read < 64 * (length as u64 + 1024),
            "seed {seed}: {read} of {length} read"
        );
        assert!(
            buffer < length + 65_536,
            "seed {seed}: {buffer} bytes for {length}"
        );
        played += 1;
    }
    assert!(
        played > count / 10,
        "only {played} of {count} were opened at all"
    );
}

/// Offsets and lengths of whatever looks like chunks.
fn chunks_of_any(bytes: &[u8]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut at = 0;
    while at + 28 <= bytes.len() {
        if bytes[at..at + 2] == [0xc7, 0x4b] {
            let length = u32::from_le_bytes(bytes[at + 12..at + 16].try_into().unwrap()) as usize;
            if length <= bytes.len() - at - 28 {
                found.push((at, 28 + length));
                at += 28 + length;
                continue;
            }
        }
        at += 1;
    }
    found
}
