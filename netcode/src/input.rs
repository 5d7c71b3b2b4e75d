//! Inputs: one slot's bytes for one tick, the frames that collect all slots, what a node keeps of
//! them, and how they travel.

pub mod batch;
mod frame;
pub mod history;
pub mod model;

pub use batch::{BatchDecoder, BatchEncoder, BatchError, BatchPlan, BatchReport, BatchSpan};
pub use frame::InputFrame;
pub use history::{InputHistory, SlotInput};
