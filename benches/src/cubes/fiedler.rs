//! Baseline: Glenn Fiedler's bit packing, which the challenge was set against.
//!
//! The scheme, as its author describes it in "Snapshot Compression" and the challenge: changed cubes
//! by relative indices, or one bit per cube where that is shorter; positions relative to where the
//! baseline's motion, with drag, gravity and the ground, would bring them; orientations relative to
//! the baseline's; each number in the narrowest of a few ranges. Everything is a whole number of
//! bits, nothing adapts.
//!
//! Packets count with every byte that they have. The published program counts without the zeros at
//! the end of its last four bytes, which makes 0.2 % less: 253.9 instead of 254.3 kbit/s on the scene
//! that `BENCHMARKS.md` names A.

use super::bits::{BitReader, BitWriter};
use super::{CUBES, Cube, Frame, ORIENTATION_BITS, ORIENTATION_MAX};

/// Most cubes that go by index.
const INDEXED_MAX: usize = 256;

/// Bits of a cube's number.
const INDEX_BITS: u32 = 10;

/// Ladder of distances to the next changed cube: each rung covers the distances from `from` on, in
/// `bits` after as many zeros as there are rungs below and a one.
const RUNGS: [Rung; 6] = [
    Rung {
        from: 1,
        last: 1,
        bits: 0,
    },
    Rung {
        from: 2,
        last: 6,
        bits: 3,
    },
    Rung {
        from: 7,
        last: 14,
        bits: 3,
    },
    Rung {
        from: 15,
        last: 30,
        bits: 4,
    },
    Rung {
        from: 31,
        last: 62,
        bits: 5,
    },
    Rung {
        from: 63,
        last: 126,
        bits: 6,
    },
];

/// Distances above the ladder.
const FAR_FROM: u32 = 127;

#[derive(Clone, Copy)]
struct Rung {
    from: u32,
    last: u32,
    bits: u32,
}

/// Three numbers are small together, or each is in one of three ranges.
struct Ranges {
    small_bits: u32,
    bits: [u32; 3],
}

impl Ranges {
    /// The first value beyond the last range.
    const fn end(&self) -> u32 {
        (1 << self.bits[0]) + (1 << self.bits[1]) + (1 << self.bits[2])
    }

    fn write(&self, writer: &mut BitWriter<'_>, value: u32) {
        let mut from = 0;
        for bits in &self.bits[..2] {
            let fits = value - from < 1 << bits;
            writer.flag(fits);
            if fits {
                return writer.write(value - from, *bits);
            }
            from += 1 << bits;
        }
        writer.write(value - from, self.bits[2]);
    }

    fn read(&self, reader: &mut BitReader<'_>) -> u32 {
        let mut from = 0;
        for bits in &self.bits[..2] {
            if reader.flag() {
                return from + reader.read(*bits);
            }
            from += 1 << bits;
        }
        from + reader.read(self.bits[2])
    }
}

const POSITION: Ranges = Ranges {
    small_bits: 4,
    bits: [5, 6, 7],
};

/// Bits of a position's residual beyond all ranges, and beyond those.
const POSITION_FAR_BITS: u32 = 11;
const POSITION_FAR_MAX: u32 = (1 << POSITION_FAR_BITS) - 1;
const POSITION_ANY_BITS: u32 = 20;

const ORIENTATION: Ranges = Ranges {
    small_bits: 2,
    bits: [4, 5, 7],
};

/// Units that a cube falls more in one lag than in the one before it.
const GRAVITY: i32 = 3;

/// Height at which a cube rests on the ground, in units.
const GROUND: i32 = 105;

/// Part of the motion that drag takes in a lag.
const DRAG: f32 = 0.062;

/// Appends `frame` to `out`, relative to `baseline` and to `before`, the snapshot that the baseline
/// itself was relative to. Without it the baseline counts as at rest.
///
/// The published scheme stops at a residual of 2047 (two metres in a lag); so that every snapshot can
/// be told, 2047 here announces a longer number.
pub fn encode(frame: &Frame, baseline: &Frame, before: Option<&Frame>, out: &mut Vec<u8>) {
    let mut writer = BitWriter::new(out);
    let changed: Vec<usize> = (0..CUBES)
        .filter(|&index| frame[index] != baseline[index])
        .collect();
    let indexed = !changed.is_empty()
        && changed.len() <= INDEXED_MAX
        && index_bits(&changed) <= u32::try_from(CUBES).unwrap_or(u32::MAX);
    writer.flag(indexed);
    if indexed {
        writer.write(number(changed.len() - 1), 8);
        let mut previous = None;
        for &index in &changed {
            match previous {
                None => writer.write(number(index), INDEX_BITS),
                Some(previous) => write_distance(&mut writer, number(index - previous)),
            }
            previous = Some(index);
            write_cube(
                &mut writer,
                &frame[index],
                &baseline[index],
                estimate(index, baseline, before),
            );
        }
    } else {
        let mut changed = changed.into_iter().peekable();
        for index in 0..CUBES {
            let is_changed = changed.next_if_eq(&index).is_some();
            writer.flag(is_changed);
            if is_changed {
                write_cube(
                    &mut writer,
                    &frame[index],
                    &baseline[index],
                    estimate(index, baseline, before),
                );
            }
        }
    }
    writer.finish();
}

/// The snapshot that [`encode`] wrote, or `None` if `bytes` are none of its.
#[must_use]
pub fn decode(bytes: &[u8], baseline: &Frame, before: Option<&Frame>) -> Option<Frame> {
    let mut reader = BitReader::new(bytes);
    let mut frame = baseline.clone();
    if reader.flag() {
        let mut index = 0;
        for nth in 0..=reader.read(8) {
            index = if nth == 0 {
                reader.read(INDEX_BITS) as usize
            } else {
                index + read_distance(&mut reader) as usize
            };
            let cube = frame.get_mut(index)?;
            read_cube(&mut reader, cube, estimate(index, baseline, before));
        }
    } else {
        for index in 0..CUBES {
            if reader.flag() {
                read_cube(
                    &mut reader,
                    &mut frame[index],
                    estimate(index, baseline, before),
                );
            }
        }
    }
    reader.finish().then_some(frame)
}

/// Bits that the numbers of the `changed` cubes take; the published coder counts two bits where its
/// second rung takes three, and chooses by that.
fn index_bits(changed: &[usize]) -> u32 {
    let mut bits = 8 + INDEX_BITS;
    for pair in changed.windows(2) {
        let distance = number(pair[1] - pair[0]);
        bits += match RUNGS.iter().position(|rung| distance <= rung.last) {
            Some(1) => 4,
            Some(rung) => number(rung) + 1 + RUNGS[rung].bits,
            None => 7 + INDEX_BITS,
        };
    }
    bits
}

fn write_distance(writer: &mut BitWriter<'_>, distance: u32) {
    for rung in &RUNGS {
        writer.flag(distance <= rung.last);
        if distance <= rung.last {
            return writer.write(distance - rung.from, rung.bits);
        }
    }
    writer.write(distance - FAR_FROM, INDEX_BITS);
}

fn read_distance(reader: &mut BitReader<'_>) -> u32 {
    for rung in &RUNGS {
        if reader.flag() {
            return rung.from + reader.read(rung.bits);
        }
    }
    FAR_FROM + reader.read(INDEX_BITS)
}

/// Where the baseline's motion would bring a cube.
fn estimate(index: usize, baseline: &Frame, before: Option<&Frame>) -> [i32; 3] {
    let from = baseline[index].position;
    let moved = |axis: usize| {
        let moved = before.map_or(0, |before| from[axis] - before[index].position[axis]);
        moved - drag(moved)
    };
    [
        from[0] + moved(0),
        from[1] + moved(1),
        (from[2] + moved(2) - GRAVITY).max(GROUND),
    ]
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "positions have 15 bits, so their differences are exact"
)]
fn drag(moved: i32) -> i32 {
    (moved as f32 * DRAG).ceil() as i32
}

fn write_cube(writer: &mut BitWriter<'_>, cube: &Cube, baseline: &Cube, estimate: [i32; 3]) {
    writer.flag(cube.interacting);
    let moved = cube.position != baseline.position;
    writer.flag(moved);
    if moved {
        let residual = zigzags(|axis| cube.position[axis] - estimate[axis]);
        if !write_small(writer, &POSITION, residual) {
            let far = residual.iter().any(|value| *value >= POSITION.end());
            writer.flag(far);
            for value in residual {
                if far {
                    writer.write(value.min(POSITION_FAR_MAX), POSITION_FAR_BITS);
                    if value >= POSITION_FAR_MAX {
                        writer.write(value, POSITION_ANY_BITS);
                    }
                } else {
                    POSITION.write(writer, value);
                }
            }
        }
    }

    let residual =
        zigzags(|axis| i32::from(cube.orientation[axis]) - i32::from(baseline.orientation[axis]));
    let relative =
        cube.largest == baseline.largest && residual.iter().all(|value| *value < ORIENTATION.end());
    writer.flag(relative);
    if relative {
        if !write_small(writer, &ORIENTATION, residual) {
            for value in residual {
                ORIENTATION.write(writer, value);
            }
        }
    } else {
        writer.write(u32::from(cube.largest), 2);
        for value in cube.orientation {
            writer.write(u32::from(value), ORIENTATION_BITS);
        }
    }
}

/// Reads into `cube`, which holds its baseline.
fn read_cube(reader: &mut BitReader<'_>, cube: &mut Cube, estimate: [i32; 3]) {
    cube.interacting = reader.flag();
    if reader.flag() {
        let residual = read_small(reader, &POSITION).unwrap_or_else(|| {
            let far = reader.flag();
            [(); 3].map(|()| {
                if !far {
                    return POSITION.read(reader);
                }
                match reader.read(POSITION_FAR_BITS) {
                    POSITION_FAR_MAX => reader.read(POSITION_ANY_BITS),
                    value => value,
                }
            })
        });
        for axis in 0..3 {
            cube.position[axis] = estimate[axis] + unzigzag(residual[axis]);
        }
    }
    if reader.flag() {
        let residual = read_small(reader, &ORIENTATION)
            .unwrap_or_else(|| [(); 3].map(|()| ORIENTATION.read(reader)));
        for (value, residual) in cube.orientation.iter_mut().zip(residual) {
            *value = value.wrapping_add_signed(small(residual)) & ORIENTATION_MAX;
        }
    } else {
        cube.largest = reader.read(2).to_le_bytes()[0];
        cube.orientation = [(); 3]
            .map(|()| u16::try_from(reader.read(ORIENTATION_BITS)).unwrap_or(ORIENTATION_MAX));
    }
}

/// Writes whether all are small, and if so, them.
fn write_small(writer: &mut BitWriter<'_>, ranges: &Ranges, values: [u32; 3]) -> bool {
    let small = values.iter().all(|value| *value < 1 << ranges.small_bits);
    writer.flag(small);
    if small {
        for value in values {
            writer.write(value, ranges.small_bits);
        }
    }
    small
}

fn read_small(reader: &mut BitReader<'_>, ranges: &Ranges) -> Option<[u32; 3]> {
    let small = reader.flag();
    small.then(|| [(); 3].map(|()| reader.read(ranges.small_bits)))
}

fn zigzags(value: impl Fn(usize) -> i32) -> [u32; 3] {
    [0, 1, 2].map(|axis| {
        let value = value(axis);
        (value << 1 ^ value >> 31).cast_unsigned()
    })
}

fn unzigzag(value: u32) -> i32 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

fn small(residual: u32) -> i16 {
    i16::try_from(unzigzag(residual)).unwrap_or(0)
}

fn number(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
