//! Finds the chunks of a file that has no index: one that a crash cut, or that was damaged.
//!
//! Each byte is looked at a constant number of times, whatever the file holds.

use std::io::{Read, Seek, SeekFrom};

use super::chunks::ChunkRef;
use super::format::{CHUNK_HEADER_BYTES, CHUNK_MARKER, ChunkHeader, ChunkKind, FOOTER_BYTES};
use super::header::{Header, OpenError};
use super::reader::{Chunks, Completeness, Damage, read_all};
use crate::hash::digest;
use crate::tick::Tick;

/// Bytes that the search for the next chunk reads at a time.
const WINDOW_BYTES: usize = 64 << 10;

/// Walks over the chunks between `from` and `file_bytes`.
///
/// # Errors
/// If the source fails, or a whole chunk is of a kind that must be understood and is not.
pub(super) fn scan(
    source: &mut (impl Read + Seek),
    header: &Header,
    from: u64,
    file_bytes: u64,
) -> Result<(Chunks, Completeness), OpenError> {
    let mut found = Found {
        start: header.start,
        chunks: Chunks::new(header),
        doubt: None,
        damage: None,
    };
    let mut offset = from;
    // Where the last whole chunk ended.
    let mut end = from;
    let mut index_ended = false;
    while let Some((at, header)) = find_chunk(source, offset, file_bytes)? {
        let next = at + header.chunk_bytes();
        if next > file_bytes {
            // The last chunk was cut, or only seems to be one: look behind its header.
            found.doubt(header.last);
            offset = at + CHUNK_HEADER_BYTES as u64;
            continue;
        }
        if at != offset {
            found.doubt(header.last);
        }
        offset = next;
        if !is_whole(source, at, &header)? {
            found.doubt(header.last);
            continue;
        }
        let Some(kind) = ChunkKind::from_code(header.code) else {
            return Err(OpenError::UnknownChunk(header.code));
        };
        end = next;
        found.confirm();
        if kind == ChunkKind::Index {
            index_ended = true;
            break;
        }
        found.push(ChunkRef {
            kind,
            first: header.first,
            last: header.last,
            offset: at,
            bytes: header.chunk_bytes(),
        });
    }
    found.add_gaps();
    let lost_bytes = file_bytes - end;
    let completeness = match found.damage {
        Some((first, last)) => Completeness::Damaged(Damage::Ticks { first, last }),
        // A footer was written in full and is not one, or something follows it.
        None if index_ended && lost_bytes >= FOOTER_BYTES as u64 => {
            Completeness::Damaged(Damage::Index)
        }
        None => Completeness::Cut { lost_bytes },
    };
    Ok((found.chunks, completeness))
}

/// What the walk has found.
struct Found {
    start: Tick,
    chunks: Chunks,
    /// Ticks that a broken chunk was about. Broken chunks at the end are a cut; if a whole one
    /// follows, they are damage.
    doubt: Option<(Tick, Tick)>,
    damage: Option<(Tick, Tick)>,
}

impl Found {
    /// Something is broken behind what was found so far, and not behind `until`.
    fn doubt(&mut self, until: Tick) {
        let chunks = &self.chunks;
        let covered = [&chunks.inputs, &chunks.states, &chunks.hashes]
            .into_iter()
            .filter_map(|chunks| chunks.last())
            .map(|chunk| chunk.last.next())
            .min()
            .unwrap_or(self.start)
            .min(until);
        let (first, last) = self.doubt.unwrap_or((covered, until));
        self.doubt = Some((first, last.max(until)));
    }

    /// A whole chunk follows what was broken.
    fn confirm(&mut self) {
        if let Some((first, last)) = self.doubt.take() {
            let known = self.damage.unwrap_or((first, last));
            self.damage = Some((known.0.min(first), known.1.max(last)));
        }
    }

    /// Ticks without inputs between others are damage as well.
    fn add_gaps(&mut self) {
        let before = [self.start]
            .into_iter()
            .chain(self.chunks.inputs.iter().map(|chunk| chunk.last));
        for (before, chunk) in before.zip(&self.chunks.inputs) {
            if before.next() < chunk.first {
                let known = self.damage.unwrap_or((before.next(), before.next()));
                let last = known.1.max(chunk.first.previous());
                self.damage = Some((known.0.min(before.next()), last));
            }
        }
    }

    fn push(&mut self, chunk: ChunkRef) {
        match self.chunks.push(chunk) {
            Ok(()) => {}
            Err(chunk) => {
                // Whole, but not where it belongs: no writer does that.
                self.doubt = Some((chunk.first, chunk.last));
                self.confirm();
            }
        }
    }
}

/// The next chunk header at `from` or behind, and where it is.
fn find_chunk(
    source: &mut (impl Read + Seek),
    from: u64,
    file_bytes: u64,
) -> Result<Option<(u64, ChunkHeader)>, OpenError> {
    // Chunks follow each other directly, so the first look nearly always succeeds.
    let mut window = vec![0; CHUNK_HEADER_BYTES];
    let mut base = from;
    while file_bytes.saturating_sub(base) >= CHUNK_HEADER_BYTES as u64 {
        source.seek(SeekFrom::Start(base))?;
        if !read_all(source, &mut window)? {
            return Ok(None);
        }
        let candidates = window.windows(CHUNK_HEADER_BYTES).enumerate();
        for (at, bytes) in candidates {
            if bytes[..2] != CHUNK_MARKER {
                continue;
            }
            let header = bytes.first_chunk().and_then(ChunkHeader::decode);
            if let Some(header) = header {
                return Ok(Some((base + at as u64, header)));
            }
        }
        // The last bytes may begin a header that the next window completes.
        base += (window.len() - CHUNK_HEADER_BYTES + 1) as u64;
        let left = usize::try_from(file_bytes.saturating_sub(base)).unwrap_or(usize::MAX);
        // Growing windows: what is read stays in proportion to the distance to what is found.
        window.resize((window.len() * 2).min(WINDOW_BYTES).min(left), 0);
    }
    Ok(None)
}

/// Whether the chunk's payload has its checksum. It lies within the file.
fn is_whole(
    source: &mut (impl Read + Seek),
    offset: u64,
    header: &ChunkHeader,
) -> Result<bool, OpenError> {
    source.seek(SeekFrom::Start(offset + CHUNK_HEADER_BYTES as u64))?;
    let mut payload = vec![0; header.stored_bytes as usize];
    Ok(read_all(source, &mut payload)? && digest(&payload) == header.checksum)
}
