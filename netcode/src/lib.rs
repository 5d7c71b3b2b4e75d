//! The protocol core of Phalanx: sessions, lockstep, replay and links, without an ECS.
//!
//! Modules import only downwards:
//!
//! ```text
//! L0  time tick id limits prng hash
//! L1  wire
//! L2  input  state  delta  session  simulation
//! L3  lockstep  statesync  migration  replay
//! L4  node
//! L5  link  driver
//! ```

pub mod delta;
pub mod driver;
pub mod hash;
pub mod id;
pub mod input;
pub mod limits;
pub mod link;
pub mod lockstep;
pub mod migration;
pub mod node;
pub mod prng;
pub mod replay;
pub mod session;
pub mod simulation;
pub mod state;
pub mod statesync;
pub mod tick;
pub mod time;
pub mod wire;
