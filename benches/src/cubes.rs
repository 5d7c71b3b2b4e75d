//! Scenes of the networked physics compression challenge, and the published coders for them.
//!
//! 901 cubes, one of which a player rolls about, sixty snapshots per second, each coded against the
//! one [`LAG`] snapshots before it. A cube is already quantized: 512 units per metre, orientation as
//! the smallest three of a quaternion with nine bits each. [`read`] takes a recorded scene in the
//! challenge's file format, [`generate`] makes one from a seed.

pub mod baselines;
mod bits;
pub mod fiedler;
pub mod giesen;
mod reader;
mod scene;
pub mod snapshots;
pub mod statesync;

pub use reader::{FRAMES_MAX, Reader, SceneError, read, write};
pub use scene::{SceneConfig, generate};

/// Cubes of a snapshot.
pub const CUBES: usize = 901;

/// Snapshots per second.
pub const RATE: u32 = 60;

/// The challenge codes each snapshot against the one this many before it.
pub const LAG: usize = 6;

/// Quantization steps per metre.
pub const UNITS_PER_METRE: i32 = 512;

/// Bounds of x and y, in units: 32 m to each side.
pub const POSITION_XY_MAX: i32 = 32 * UNITS_PER_METRE - 1;

/// Upper bound of z, in units: 16 m. The lower one is 0.
pub const POSITION_Z_MAX: i32 = 16 * UNITS_PER_METRE - 1;

/// Bits of each of the three orientation components.
pub const ORIENTATION_BITS: u32 = 9;

/// Upper bound of an orientation component; the lower one is 0.
pub const ORIENTATION_MAX: u16 = (1 << ORIENTATION_BITS) - 1;

/// One cube of one snapshot, quantized.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cube {
    /// Which component of the quaternion (x, y, z, w) is left out since it is the largest.
    pub largest: u8,
    /// The other three in their order, from -1/√2 to 1/√2 in 512 steps.
    pub orientation: [u16; 3],
    /// Units from the origin; z is up.
    pub position: [i32; 3],
    /// Whether the player holds or touches it.
    pub interacting: bool,
}

/// One snapshot.
pub type Frame = Box<[Cube; CUBES]>;

/// A snapshot of cubes at the origin.
#[must_use]
pub fn empty_frame() -> Frame {
    Box::new([Cube::default(); CUBES])
}

/// Bandwidth of `bytes` for so many `snapshots` at [`RATE`], in kbit/s.
#[must_use]
pub fn kbit_s(bytes: usize, snapshots: usize) -> f64 {
    bytes as f64 * 8.0 * f64::from(RATE) / snapshots as f64 / 1000.0
}
