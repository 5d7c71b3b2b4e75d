//! What a replay says about itself, readable without the rest of the file.

use std::io::{self, Read};
use std::sync::Arc;

use super::format::{FORMAT_VERSION, MAGIC, PREAMBLE_BYTES};
use crate::hash::digest;
use crate::id::SessionId;
use crate::limits::{
    INPUT_BYTES_MAX, INPUT_FRAME_BYTES_MAX, NAME_BYTES_MAX, REPLAY_HEADER_BYTES_MAX, SLOTS_MAX,
};
use crate::session::config::Mode;
use crate::state::Schema;
use crate::tick::{Tick, TickRate};
use crate::wire::bytes::{DecodeError, Reader, put_counted};

/// What a replay says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Identity of the game, at most [`NAME_BYTES_MAX`] bytes.
    pub game: String,
    /// The game's build, as it names it; at most [`NAME_BYTES_MAX`] bytes.
    pub build: String,
    /// How the session was played.
    pub mode: Mode,
    /// Ticks per second.
    pub tick_rate: TickRate,
    /// Bytes of one input.
    pub input_bytes: u8,
    /// The session's seed, for the reader's information: the keyframe at the start holds the
    /// state that came from it.
    pub seed: u64,
    /// The session.
    pub session: SessionId,
    /// What the state consists of.
    pub schema: Arc<Schema>,
    /// The name of whoever sat in each slot when the recording started, empty where nobody did.
    /// Its length is the number of slots. Names have at most [`NAME_BYTES_MAX`] bytes.
    pub roster: Vec<String>,
    /// The first tick: that of the first keyframe. The first input frame is the next tick's.
    pub start: Tick,
}

/// Why a header cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// A text is longer than [`NAME_BYTES_MAX`] bytes.
    #[error("a name in the replay's header has more than {NAME_BYTES_MAX} bytes")]
    NameTooLong,
    /// Slots, input size or their product exceed their limits.
    #[error("{slots} slots with inputs of {input_bytes} bytes exceed the limits of a session")]
    Shape {
        /// Slots in the header.
        slots: usize,
        /// Bytes of one input.
        input_bytes: u8,
    },
    /// The schema is too large.
    #[error("the replay's header has more than {REPLAY_HEADER_BYTES_MAX} bytes")]
    TooLong,
}

/// Why a file is not opened as a replay.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file cannot be read.
    #[error("the replay cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It does not begin like a replay.
    #[error("this is not a replay")]
    NotAReplay,
    /// It was written in another version of the format.
    #[error("the replay has format version {0}, this program reads version {FORMAT_VERSION}")]
    UnknownVersion(u16),
    /// It ends within its header.
    #[error("the replay ends within its header")]
    Truncated,
    /// The header is damaged.
    #[error("the replay's header is damaged")]
    Damaged,
    /// The header has an impossible value.
    #[error("the replay's header makes no sense: {0}")]
    Header(#[from] DecodeError),
    /// It holds something that this version would have to understand.
    #[error("the replay holds chunks of kind {0:#04x}, which this program does not know")]
    UnknownChunk(u8),
}

impl Header {
    /// Number of slots.
    #[must_use]
    pub fn slots(&self) -> u8 {
        // More than `SLOTS_MAX` are refused wherever a header enters or leaves.
        u8::try_from(self.roster.len()).unwrap_or(u8::MAX)
    }

    /// The header as a file begins with it, checksum included.
    ///
    /// # Errors
    /// If a value exceeds its limit.
    pub fn encode(&self) -> Result<Vec<u8>, HeaderError> {
        if !is_session_shape(self.roster.len(), self.input_bytes) {
            return Err(HeaderError::Shape {
                slots: self.roster.len(),
                input_bytes: self.input_bytes,
            });
        }
        let mut texts = [&self.game, &self.build].into_iter().chain(&self.roster);
        if texts.any(|text| text.len() > NAME_BYTES_MAX) {
            return Err(HeaderError::NameTooLong);
        }

        let mut body = Vec::new();
        put_counted(&mut body, self.game.as_bytes());
        put_counted(&mut body, self.build.as_bytes());
        body.push(self.mode.number());
        body.extend(self.tick_rate.hz().to_le_bytes());
        body.push(self.input_bytes);
        body.push(self.slots());
        body.extend(self.seed.to_le_bytes());
        body.extend(self.session.0.to_le_bytes());
        body.extend(self.start.number().to_le_bytes());
        body.extend(self.schema.hash().to_le_bytes());
        let mut schema = Vec::new();
        self.schema.encode(&mut schema);
        put_counted(&mut body, &schema);
        for name in &self.roster {
            put_counted(&mut body, name.as_bytes());
        }

        if body.len() > REPLAY_HEADER_BYTES_MAX {
            return Err(HeaderError::TooLong);
        }
        let length = u32::try_from(body.len()).map_err(|_too_long| HeaderError::TooLong)?;
        let mut bytes = Vec::with_capacity(PREAMBLE_BYTES + body.len() + 8);
        bytes.extend(MAGIC);
        bytes.extend(FORMAT_VERSION.to_le_bytes());
        bytes.extend([0, 0]);
        bytes.extend(length.to_le_bytes());
        bytes.extend(body);
        bytes.extend(digest(&bytes).to_le_bytes());
        Ok(bytes)
    }

    /// Reads a header from the beginning of a file, and no byte more. Cheapest refusal first.
    ///
    /// # Errors
    /// If the file is no replay, has another format version, or its header is damaged.
    pub fn read(source: &mut impl Read) -> Result<Self, OpenError> {
        let mut preamble = [0; PREAMBLE_BYTES];
        read_whole(source, &mut preamble[..MAGIC.len()])?;
        if preamble[..MAGIC.len()] != MAGIC {
            return Err(OpenError::NotAReplay);
        }
        read_whole(source, &mut preamble[MAGIC.len()..])?;
        let mut fields = Reader::new(&preamble[MAGIC.len()..]);
        let version = fields.u16()?;
        if version != FORMAT_VERSION {
            return Err(OpenError::UnknownVersion(version));
        }
        let reserved = fields.u16()?;
        let length = fields.u32()? as usize;
        if reserved != 0 || length > REPLAY_HEADER_BYTES_MAX {
            return Err(OpenError::Damaged);
        }

        // `take` and `read_to_end`: the memory grows with what the file holds, not what it claims.
        let mut bytes = preamble.to_vec();
        let wanted = length + 8;
        let read = source.take(wanted as u64).read_to_end(&mut bytes)?;
        if read < wanted {
            return Err(OpenError::Truncated);
        }
        let (covered, checksum) = bytes.split_at(PREAMBLE_BYTES + length);
        if checksum != digest(covered).to_le_bytes() {
            return Err(OpenError::Damaged);
        }
        Ok(Self::decode_body(&covered[PREAMBLE_BYTES..])?)
    }

    fn decode_body(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let game = reader.text(NAME_BYTES_MAX)?.to_owned();
        let build = reader.text(NAME_BYTES_MAX)?.to_owned();
        let mode = Mode::from_number(reader.u8()?).ok_or(DecodeError::Invalid("unknown mode"))?;
        let tick_rate = TickRate::new(reader.u16()?)
            .ok_or(DecodeError::Invalid("the tick rate is out of range"))?;
        let input_bytes = reader.u8()?;
        let slots = reader.u8()?;
        if !is_session_shape(usize::from(slots), input_bytes) {
            return Err(DecodeError::Invalid(
                "slots or input size exceed the limits of a session",
            ));
        }
        let seed = reader.u64()?;
        let session = SessionId(reader.u128()?);
        let start = Tick::new(reader.u32()?);
        let schema_hash = reader.u64()?;
        let mut schema_reader = Reader::new(reader.counted(REPLAY_HEADER_BYTES_MAX)?);
        let schema = Schema::decode(&mut schema_reader)?;
        schema_reader.finish()?;
        if schema.hash() != schema_hash {
            return Err(DecodeError::Invalid(
                "the schema does not have the hash it claims",
            ));
        }
        let roster = (0..slots)
            .map(|_slot| Ok(reader.text(NAME_BYTES_MAX)?.to_owned()))
            .collect::<Result<_, DecodeError>>()?;
        reader.finish()?;
        Ok(Self {
            game,
            build,
            mode,
            tick_rate,
            input_bytes,
            seed,
            session,
            schema: Arc::new(schema),
            roster,
            start,
        })
    }
}

/// Whether a session may have this many slots with inputs of this size.
fn is_session_shape(slots: usize, input_bytes: u8) -> bool {
    let input_bytes = usize::from(input_bytes);
    slots <= SLOTS_MAX
        && input_bytes <= INPUT_BYTES_MAX
        && slots * input_bytes <= INPUT_FRAME_BYTES_MAX
}

fn read_whole(source: &mut impl Read, bytes: &mut [u8]) -> Result<(), OpenError> {
    source.read_exact(bytes).map_err(|error| {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            OpenError::Truncated
        } else {
            OpenError::Io(error)
        }
    })
}
