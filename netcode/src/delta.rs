//! The state codec: quantized snapshots to bytes, as differences to what the receiver holds.
//!
//! A body is a pure function of the tables in this crate, the references that it names, the
//! entities that it is about, and their values. So a host codes once for all clients with the same
//! references, and every datagram decodes alone. There are two kinds of bodies:
//!
//! - a **whole body** ([`Encoder::encode_whole`]) says how the entities of a list are at a tick,
//!   given up to [`REFERENCES_MAX`] complete older snapshots; the newest of them is the base. Large
//!   ones are split by entity range.
//! - a **part body** ([`Encoder::push_part`]) says how some entities are, each given up to two
//!   older values of its own, or that they are gone.
//!
//! Values are predicted from the references (along their course, by their turning rate, like their
//! neighbours), and what remains is range coded with static chances that depend on how the value
//! moved and how wrong the guesses nearby were. Which model a value has follows from the
//! [`LaneModel`](crate::state::LaneModel)s of its kind alone.
//!
//! All arithmetic is on integers, or on floats with `+ - * /` and `sqrt` only: the same everywhere.

mod breakdown;
mod coder;
mod decoder;
mod desk;
mod encoder;
mod entity;
mod group;
mod model;
mod near;
mod plan;
mod project;
mod rotation;
mod tables;
mod tally;
pub mod training;
mod view;
mod walk;
mod whole;
mod whole_read;

pub use breakdown::{Breakdown, BreakdownRow};
pub use decoder::{Decoder, PartState, Span};
pub use encoder::{Encoder, PartItem, WholeEnd};
pub use project::{Projection, project};
pub use tally::{HEADS, STRUCTURE, Tally};
pub use view::{Entry, Reference, View, choose_ages};

/// The version of the bodies' form, which replays name. It rises with every change of what a body's
/// bytes mean: of tables, predictions or contexts.
pub const VERSION: u32 = 2;

/// References that a whole body uses at most; further ones are ignored.
pub const REFERENCES_MAX: usize = 3;

/// References that an item of a part body uses at most.
pub const PART_REFERENCES_MAX: usize = 2;

/// Greatest age of a reference, in snapshots.
pub const AGE_MAX: u32 = 255;
