//! Lockstep: everyone simulates, inputs travel.
//!
//! [`Exchange`] codes the inputs that a peer has not acked into every datagram. [`Timeline`] says
//! which ticks may run, on what inputs, and what runs again after a wrong guess.

mod exchange;
mod lateness;
mod records;
mod timeline;

pub use exchange::{Exchange, Shape, slots_of};
pub use lateness::DelayControl;
pub use records::{RecordsError, read_records, write_records};
pub use timeline::{Inputs, Timeline, Work};
