//! Baseline: Fabian Giesen's adaptive binary arithmetic coder, the legal record of the challenge.
//!
//! The scheme, understood from what its author published: every decision is a bit with an adaptive
//! probability, the mean of a fast and a slow estimate; numbers are an adaptive octave and highest
//! bit, then plain bits and sign. A cube is expected to go on as it came into its baseline, and the
//! contexts are made for cubes: whether it changed, which component it turns to, how fast it moved
//! and turned. The probabilities that a snapshot starts with are those that its baseline ended with,
//! so both sides keep one [`State`] per snapshot.
//!
//! The record's last version was not at hand; this one is tuned until it was no worse than the
//! record's 193.1 kbit/s on the scene that `BENCHMARKS.md` names A.

use super::{CUBES, Cube, Frame, ORIENTATION_MAX, empty_frame};

/// Bits of a probability.
const PROBABILITY_BITS: u32 = 15;
const HALF: u32 = 1 << (PROBABILITY_BITS - 1);

/// Shifts of the fast and of the slow estimate.
const FAST: u32 = 4;
const SLOW: u32 = 7;

/// Contexts of a residual: octaves of the speed.
const SPEEDS: usize = 10;

/// A component of a quaternion that is one, in half steps of the quantizer around its middle.
const ONE: i32 = 722;

/// Eighths of a cube's turn into its baseline that it goes on to turn.
const INERTIA: i32 = 7;

/// What coding a snapshot leaves behind for those that are coded against it.
#[derive(Clone, Debug)]
pub struct State {
    tables: Tables,
    motion: Box<[Motion; CUBES]>,
}

impl State {
    /// Before the first snapshot: even odds, nothing moves.
    #[must_use]
    pub fn new() -> Self {
        Self {
            tables: Tables::default(),
            motion: Box::new([Motion::default(); CUBES]),
        }
    }
}

impl Default for State {
    fn default() -> Self {
        Self::new()
    }
}

/// How a cube got into a snapshot from that snapshot's baseline.
#[derive(Clone, Copy, Debug, Default)]
struct Motion {
    changed: bool,
    velocity: [i32; 3],
    /// Change of the quaternion, in half steps.
    turn: [i32; 4],
}

#[derive(Clone, Debug, Default)]
struct Tables {
    /// By whether the cube changed in the baseline.
    turned: [Bit; 2],
    /// By the baseline's largest component and the expected one.
    largest: [[Bit; 3]; 16],
    /// By the octave of the turn; the last where another component became the largest.
    orientation: [Magnitude; SPEEDS],
    /// By whether the cube turned.
    moved: [Bit; 2],
    /// By the octave of the speed.
    position: [Magnitude; SPEEDS],
    /// By the baseline's flag.
    interacting: [Bit; 2],
}

/// An adaptive bit: two estimates, each of half of the probability of a one.
#[derive(Clone, Copy, Debug)]
struct Bit {
    fast: u16,
    slow: u16,
}

impl Default for Bit {
    fn default() -> Self {
        let quarter = 1 << (PROBABILITY_BITS - 2);
        Self {
            fast: quarter,
            slow: quarter,
        }
    }
}

impl Bit {
    #[inline]
    fn code<C: Coder>(&mut self, coder: &mut C, bit: bool) -> bool {
        let bit = coder.code(u32::from(self.fast + self.slow), bit);
        const TOP: u16 = 1 << (PROBABILITY_BITS - 1);
        if bit {
            self.fast += (TOP - self.fast) >> FAST;
            self.slow += (TOP - self.slow) >> SLOW;
        } else {
            self.fast -= self.fast >> FAST;
            self.slow -= self.slow >> SLOW;
        }
        bit
    }
}

/// `bits` bits of `value`, each in the context of those above it.
#[inline]
fn code_tree<C: Coder>(coder: &mut C, tree: &mut [Bit], bits: u32, value: u32) -> u32 {
    let mut node = 1;
    for shift in (0..bits).rev() {
        let bit = tree[node - 1].code(coder, value >> shift & 1 == 1);
        node = node << 1 | usize::from(bit);
    }
    u32::try_from(node - (1 << bits)).unwrap_or(0)
}

/// A signed number: the octave of its magnitude plus one and the bit below are adaptive, the rest
/// plain.
#[derive(Clone, Debug, Default)]
struct Magnitude {
    octave: [Bit; 31],
    below: [Bit; 32],
}

impl Magnitude {
    #[inline]
    fn code<C: Coder>(&mut self, coder: &mut C, value: i32) -> i32 {
        // At most 2^31 + 1, so the octave is at most 31.
        let magnitude = value.unsigned_abs() + 1;
        let octave = code_tree(coder, &mut self.octave, 5, magnitude.ilog2());
        let mut read = 1_u32;
        for shift in (0..octave).rev() {
            let bit = magnitude >> shift & 1 == 1;
            let bit = if shift + 1 == octave {
                self.below[octave as usize].code(coder, bit)
            } else {
                coder.code(HALF, bit)
            };
            read = read << 1 | u32::from(bit);
        }
        let read = (read - 1).cast_signed();
        if read != 0 && coder.code(HALF, value < 0) {
            read.wrapping_neg()
        } else {
            read
        }
    }
}

/// Appends `frame` to `out`, relative to `baseline`, whose state is `state`; `next` becomes the
/// state of `frame`.
pub fn encode(frame: &Frame, baseline: &Frame, state: &State, next: &mut State, out: &mut Vec<u8>) {
    next.tables.clone_from(&state.tables);
    let mut encoder = Encoder {
        low: 0,
        high: u32::MAX,
        bytes: out,
    };
    for index in 0..CUBES {
        let (_, motion) = code_cube(
            &mut encoder,
            &mut next.tables,
            &frame[index],
            &baseline[index],
            &state.motion[index],
        );
        next.motion[index] = motion;
    }
    encoder.finish();
}

/// The snapshot that [`encode`] wrote. Other bytes give another snapshot, or one whose values are
/// out of bounds: an arithmetic code has no redundancy to notice it by.
#[must_use]
pub fn decode(bytes: &[u8], baseline: &Frame, state: &State, next: &mut State) -> Frame {
    next.tables.clone_from(&state.tables);
    let mut decoder = Decoder::new(bytes);
    let mut frame = empty_frame();
    for index in 0..CUBES {
        let (cube, motion) = code_cube(
            &mut decoder,
            &mut next.tables,
            &Cube::default(),
            &baseline[index],
            &state.motion[index],
        );
        frame[index] = cube;
        next.motion[index] = motion;
    }
    frame
}

/// Writes `cube`, or reads one and ignores `cube`; gives back which, and how it moved.
#[inline]
fn code_cube<C: Coder>(
    coder: &mut C,
    tables: &mut Tables,
    cube: &Cube,
    base: &Cube,
    before: &Motion,
) -> (Cube, Motion) {
    let mut coded = *base;
    let mut turn = [0; 4];
    let turned = cube.largest != base.largest || cube.orientation != base.orientation;
    let turned = tables.turned[usize::from(before.changed)].code(coder, turned);
    if turned {
        turn = code_orientation(coder, tables, cube, base, before.turn, &mut coded);
    }

    let mut velocity = [0; 3];
    let moved = cube.position != base.position;
    let moved = tables.moved[usize::from(turned)].code(coder, moved);
    if moved {
        for (axis, velocity) in velocity.iter_mut().enumerate() {
            let expected = before.velocity[axis];
            let table = &mut tables.position[octave(expected).min(SPEEDS - 1)];
            let actual = cube.position[axis].wrapping_sub(base.position[axis]);
            let residual = table.code(coder, actual.wrapping_sub(expected));
            *velocity = expected.wrapping_add(residual);
            coded.position[axis] = base.position[axis].wrapping_add(*velocity);
        }
    }
    let interacting = &mut tables.interacting[usize::from(base.interacting)];
    coded.interacting = interacting.code(coder, cube.interacting);
    let motion = Motion {
        changed: turned || velocity != [0; 3],
        velocity,
        turn,
    };
    (coded, motion)
}

/// The same for the orientation; gives back how the quaternion changed.
#[inline]
fn code_orientation<C: Coder>(
    coder: &mut C,
    tables: &mut Tables,
    cube: &Cube,
    base: &Cube,
    turn: [i32; 4],
    coded: &mut Cube,
) -> [i32; 4] {
    let from = quaternion(base);
    let mut expected = from;
    for (expected, turn) in expected.iter_mut().zip(turn) {
        *expected += turn * INERTIA / 8;
    }
    let mut longest = 0;
    for (component, value) in expected.iter().enumerate() {
        if value.abs() > expected[longest].abs() {
            longest = component;
        }
    }
    let tree = &mut tables.largest[longest * 4 + usize::from(base.largest & 3)];
    let [largest, ..] = code_tree(coder, tree, 2, u32::from(cube.largest)).to_le_bytes();
    coded.largest = largest;

    // The sign of a quaternion is chosen so that its largest component is positive.
    let largest = usize::from(largest);
    let flipped = expected[largest] < 0;
    for component in 0..3 {
        let full = component + usize::from(component >= largest);
        let expected = if flipped {
            -expected[full]
        } else {
            expected[full]
        };
        let expected =
            ((expected + i32::from(ORIENTATION_MAX)) >> 1).clamp(0, ORIENTATION_MAX.into());
        let context = if coded.largest == base.largest {
            octave(turn[full] / 2).min(SPEEDS - 2)
        } else {
            SPEEDS - 1
        };
        let residual = i32::from(cube.orientation[component]) - expected;
        let value = expected.wrapping_add(tables.orientation[context].code(coder, residual));
        coded.orientation[component] =
            u16::try_from(value & i32::from(ORIENTATION_MAX)).unwrap_or(ORIENTATION_MAX);
    }

    // Of the two quaternions for one orientation the nearer one to `from` tells the turn, which is
    // kept in the sign of the new one.
    let to = quaternion(coded);
    let opposite = from.iter().zip(to).map(|(from, to)| from * to).sum::<i32>() < 0;
    let mut turn = to;
    for (turn, from) in turn.iter_mut().zip(from) {
        *turn -= if opposite { -from } else { from };
    }
    turn
}

/// The quaternion in half steps, with the component that was left out.
#[inline]
fn quaternion(cube: &Cube) -> [i32; 4] {
    let three = cube
        .orientation
        .map(|value| 2 * i32::from(value) - i32::from(ORIENTATION_MAX));
    let rest = ONE * ONE - three.iter().map(|value| value * value).sum::<i32>();
    let largest = usize::from(cube.largest & 3);
    let mut four = [root(rest); 4];
    for (component, value) in three.into_iter().enumerate() {
        four[component + usize::from(component >= largest)] = value;
    }
    four
}

/// The root of a number below 2^20, rounded down: exact, since such a number and the distance of its
/// root to the next whole one fit an `f32`. Faster than the integer root.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "at most 722")]
fn root(square: i32) -> i32 {
    (square.max(0) as f32).sqrt() as i32
}

/// Octave of a speed, 0 for none.
#[inline]
fn octave(speed: i32) -> usize {
    speed.unsigned_abs().max(1).ilog2() as usize
}

/// Writes a bit, or reads one and ignores what it was given; gives back which.
trait Coder {
    /// `one` is the probability of a one, of 2^[`PROBABILITY_BITS`].
    fn code(&mut self, one: u32, bit: bool) -> bool;
}

/// Where ones end in the interval: between `low` and `high`, both of which belong to it.
#[inline]
fn split(low: u32, high: u32, one: u32) -> u32 {
    let width = (u64::from(high - low) * u64::from(one)) >> PROBABILITY_BITS;
    low + u32::try_from(width).unwrap_or(0)
}

/// Whether the first byte of the interval is settled.
#[inline]
fn settled(low: u32, high: u32) -> bool {
    (low ^ high) >> 24 == 0
}

struct Encoder<'a> {
    low: u32,
    high: u32,
    bytes: &'a mut Vec<u8>,
}

impl Coder for Encoder<'_> {
    #[inline]
    fn code(&mut self, one: u32, bit: bool) -> bool {
        let middle = split(self.low, self.high, one);
        if bit {
            self.high = middle;
        } else {
            self.low = middle + 1;
        }
        while settled(self.low, self.high) {
            self.bytes.push(self.low.to_be_bytes()[0]);
            self.low <<= 8;
            self.high = self.high << 8 | 0xff;
        }
        bit
    }
}

impl Encoder<'_> {
    /// Ends with the fewest bytes that lie in the interval when zeros follow.
    fn finish(self) {
        for count in 0..=4_u32 {
            let below = u32::MAX.checked_shr(8 * count).unwrap_or(0);
            let rounded = (u64::from(self.low) + u64::from(below)) & !u64::from(below);
            if let Ok(rounded) = u32::try_from(rounded)
                && rounded <= self.high
            {
                self.bytes.extend(&rounded.to_be_bytes()[..count as usize]);
                return;
            }
        }
    }
}

struct Decoder<'a> {
    low: u32,
    high: u32,
    code: u32,
    bytes: &'a [u8],
    next: usize,
}

impl<'a> Decoder<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        let mut decoder = Self {
            low: 0,
            high: u32::MAX,
            code: 0,
            bytes,
            next: 0,
        };
        for _ in 0..4 {
            decoder.take();
        }
        decoder
    }

    #[inline]
    fn take(&mut self) {
        let byte = self.bytes.get(self.next).copied().unwrap_or(0);
        self.next += 1;
        self.code = self.code << 8 | u32::from(byte);
    }
}

impl Coder for Decoder<'_> {
    #[inline]
    fn code(&mut self, one: u32, _bit: bool) -> bool {
        let middle = split(self.low, self.high, one);
        let bit = self.code <= middle;
        if bit {
            self.high = middle;
        } else {
            self.low = middle + 1;
        }
        while settled(self.low, self.high) {
            self.low <<= 8;
            self.high = self.high << 8 | 0xff;
            self.take();
        }
        bit
    }
}
