//! Inputs: one slot's bytes for one tick, and the frames that collect all slots.

mod frame;

pub use frame::InputFrame;
