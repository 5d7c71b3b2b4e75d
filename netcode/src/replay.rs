//! Replays: a session as a file that plays, seeks and verifies. See `docs/REPLAY.md`.
//!
//! A replay holds a [`Header`] that is readable alone, a keyframe at the start, the input frames
//! of every tick after it, state hashes, further keyframes, and an index. In state-sync mode it
//! holds the published states instead of inputs. It needs the game's rules and nothing of its
//! setup. [`Writer`] makes one, [`Reader`] takes it apart, [`Player`]
//! plays it on a [`Simulation`](crate::simulation::Simulation).
//!
//! Everything here is pure: bytes go to an `io::Write` and come from an `io::Read + io::Seek`.
//! Files and the thread that writes them are in `link::replay_file`.

mod chunks;
mod format;
mod header;
mod info;
mod inputs;
mod inspect;
mod player;
mod policy;
mod reader;
mod scan;
mod states;
mod verify;
mod writer;

pub use crate::session::config::Mode;
pub use chunks::{TermCause, TermChange};
pub use format::{ChunkKind, FORMAT_VERSION};
pub use header::{Header, HeaderError, OpenError};
pub use info::{ChunkTotal, Info};
pub use player::{PlayError, Player};
pub use policy::KeyframePolicy;
pub use reader::{Completeness, Damage, ReadError, Reader};
pub use verify::{Cause, VerifyError, VerifyReport};
pub(crate) use writer::{Batch, Pending, chunk_ticks};
pub use writer::{Summary, WriteError, Writer};
