//! Numbers to lanes and back, bit for bit the same on every platform.
//!
//! Only `+ - * /` and `sqrt` of `f64` are used, which IEEE 754 fixes to the last bit. Whatever a
//! function here makes of a value, its inverse makes a value that gives the same lane again.

use crate::hash::{canonical_f32_bits, canonical_f64_bits};

/// Adding and subtracting it rounds numbers below 2^51 to the nearest integer, ties to even.
const ROUNDER: f64 = 6_755_399_441_055_744.0;

const HALF_PI: f64 = core::f64::consts::FRAC_PI_2;
const PI: f64 = core::f64::consts::PI;

/// The nearest integer of a number that is within the bounds of `i32`; ties to even.
#[inline]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the sum is an integer within i32"
)]
const fn round(value: f64) -> i32 {
    ((value + ROUNDER) - ROUNDER) as i32
}

/// The nearest f32.
#[inline]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the nearest f32 is what is asked for"
)]
pub(super) const fn narrow(value: f64) -> f32 {
    value as f32
}

/// The lane of `value` in steps of `1 / per_unit`, and whether it was clamped, being more than half
/// a step beyond the bounds. NaN counts as 0.
#[inline]
pub(super) fn fixed(value: f64, per_unit: u32, min: i32, max: i32) -> (i32, bool) {
    let scaled = value * f64::from(per_unit);
    let (least, greatest) = (f64::from(min) - 0.5, f64::from(max) + 0.5);
    if scaled > least && scaled < greatest {
        (round(scaled).clamp(min, max), false)
    } else if scaled <= least {
        (min, true)
    } else if scaled >= greatest {
        (max, true)
    } else {
        (0.clamp(min, max), true)
    }
}

/// The value of a lane of [`fixed`].
#[inline]
pub(super) fn unfixed(lane: i32, per_unit: u32) -> f64 {
    f64::from(lane) / f64::from(per_unit)
}

/// The order of floats as an order of integers: 0.0 is 0, -0.0 is -1, and neighbours are 1 apart.
/// It is its own inverse, on bits and on lanes.
#[inline]
pub(super) const fn ordered32(bits: u32) -> u32 {
    if bits >> 31 == 0 {
        bits
    } else {
        bits ^ 0x7fff_ffff
    }
}

/// The lane of the bits of a float.
#[inline]
pub(super) const fn float_lane(value: f32) -> i32 {
    ordered32(canonical_f32_bits(value)).cast_signed()
}

/// The float of a lane, if it is one: all NaNs but one have no lane.
#[inline]
pub(super) fn float_of_lane(lane: i32) -> Option<f32> {
    let bits = ordered32(lane.cast_unsigned());
    let value = f32::from_bits(bits);
    (canonical_f32_bits(value) == bits).then_some(value)
}

/// Whether these are the bits of a float in its one form.
#[inline]
pub(super) fn is_canonical64(bits: u64) -> bool {
    canonical_f64_bits(f64::from_bits(bits)) == bits
}

/// Bits of the binary16 infinity, NaN and largest number.
const HALF_INFINITY: u16 = 0x7c00;
const HALF_NAN: u16 = 0x7e00;
const HALF_MAX: u16 = 0x7bff;
/// The lanes of binary16 numbers reach from that of minus infinity to that of NaN.
pub(super) const HALF_LANE_MIN: i32 = -0x7c01;
/// See [`HALF_LANE_MIN`].
pub(super) const HALF_LANE_MAX: i32 = 0x7e00;

/// The lane of `value` as a binary16 number, the nearest one, ties to even, and whether it was
/// clamped to the largest one. Infinities stay infinite.
pub(super) fn half(value: f64) -> (i32, bool) {
    let (bits, is_clamped) = half_bits(value.abs());
    let lane = i32::from(bits);
    if value.is_sign_negative() && bits != HALF_NAN {
        (-1 - lane, is_clamped)
    } else {
        (lane, is_clamped)
    }
}

/// The binary16 number next to `value`, which is not negative.
fn half_bits(value: f64) -> (u16, bool) {
    if value.is_nan() {
        return (HALF_NAN, false);
    }
    if value.is_infinite() {
        return (HALF_INFINITY, false);
    }
    // From here on the next number up would be 2^16.
    if value >= 65_520.0 {
        return (HALF_MAX, true);
    }
    // Between 2^e and 2^(e+1) the numbers are 2^(e-10) apart, and never less than 2^-24.
    let exponent = ((value.to_bits() >> 52) & 0x7ff).max(1023 - 14) + 25 - 1023;
    let exponent = u16::try_from(exponent).unwrap_or(0);
    let unit = f64::from_bits(u64::from(1023 + exponent - 35) << 52);
    let steps = u16::try_from(round(value / unit)).unwrap_or(0);
    // A mantissa that rounded up to 2^11 carries into the exponent, as it should.
    let bits = (exponent - 11) * 0x400 + steps;
    (bits, false)
}

/// The value of a lane of [`half`], if it is one.
pub(super) fn unhalf(lane: i32) -> Option<f64> {
    let magnitude = if lane < 0 { -1 - lane } else { lane };
    let bits = u16::try_from(magnitude).ok()?;
    let value = match bits {
        0x7c00 => f64::INFINITY,
        0x7e00 if lane >= 0 => f64::NAN,
        0x7c01.. => return None,
        _ => {
            let exponent = (bits >> 10).max(1);
            let mantissa = if bits < 0x400 {
                bits
            } else {
                bits & 0x3ff | 0x400
            };
            f64::from(mantissa) * f64::from_bits(u64::from(1023 + exponent - 25) << 52)
        }
    };
    Some(if lane < 0 { -value } else { value })
}

/// The angle of (x, y), from -pi to pi; `None` if it has none.
fn angle(x: f64, y: f64) -> Option<f64> {
    let (along, across) = (x.abs(), y.abs());
    let (large, small) = if along >= across {
        (along, across)
    } else {
        (across, along)
    };
    if !(large > 0.0 && large.is_finite() && small.is_finite()) {
        return None;
    }
    // atan(t) = 2 atan(t / (1 + sqrt(1 + t^2))), twice: what is left is below 0.2.
    let mut t = small / large;
    for _ in 0..2 {
        t /= 1.0 + (1.0 + t * t).sqrt();
    }
    let square = t * t;
    let mut series = 0.0;
    for odd in [17.0, 15.0, 13.0, 11.0, 9.0, 7.0, 5.0, 3.0, 1.0] {
        series = 1.0 / odd - square * series;
    }
    let octant = 4.0 * t * series;
    let quarter = if along >= across {
        octant
    } else {
        HALF_PI - octant
    };
    let upper = if x < 0.0 { PI - quarter } else { quarter };
    Some(if y < 0.0 { -upper } else { upper })
}

/// Cosine and sine of an angle from 0 to pi / 4.
fn turn(angle: f64) -> (f64, f64) {
    let square = angle * angle;
    let (mut cos, mut sin) = (1.0, 1.0);
    for n in [14.0, 12.0, 10.0, 8.0, 6.0, 4.0, 2.0] {
        cos = 1.0 - square / (n * (n - 1.0)) * cos;
        sin = 1.0 - square / (n * (n + 1.0)) * sin;
    }
    (cos, angle * sin)
}

/// The lane of the direction of (x, y), and whether there was none: the angle in steps of a
/// 2^-bits turn, from half a turn to the right to half a turn to the left.
pub(super) fn direction2([x, y]: [f64; 2], bits: u8) -> (i32, bool) {
    let half_turn = 1_i32 << (bits - 1);
    match angle(x, y) {
        Some(angle) => {
            let lane = round(angle / PI * f64::from(half_turn));
            // Half a turn to the left is half a turn to the right.
            (if lane == half_turn { -half_turn } else { lane }, false)
        }
        None => (0, true),
    }
}

/// The direction of a lane of [`direction2`].
pub(super) fn undirection2(lane: i32, bits: u8) -> [f64; 2] {
    let half_turn = 1_i32 << (bits - 1);
    let eighths = lane.unsigned_abs();
    // By symmetry, so that the axes and diagonals come out exactly.
    let quarter = half_turn.unsigned_abs() / 2;
    let folded = if eighths > quarter {
        2 * quarter - eighths
    } else {
        eighths
    };
    let step = PI / f64::from(half_turn);
    let (mut x, mut y) = if 2 * folded <= quarter {
        turn(f64::from(folded) * step)
    } else {
        let (cos, sin) = turn(f64::from(quarter - folded) * step);
        (sin, cos)
    };
    if eighths > quarter {
        x = -x;
    }
    if lane < 0 {
        y = -y;
    }
    // -0.0 would be another value than 0.0 without being another direction.
    [x + 0.0, y + 0.0]
}

/// 1 or -1; 0.0 and -0.0 count as positive.
fn sign(value: f64) -> f64 {
    if value < 0.0 { -1.0 } else { 1.0 }
}

/// Steps from the middle of an octahedral axis of `bits` bits to its end.
pub(super) const fn octahedron_steps(bits: u8) -> i32 {
    (1 << (bits - 1)) - 1
}

/// The lanes of the direction of a vector, and whether there was none.
///
/// The direction meets the octahedron |x| + |y| + |z| = 1, whose lower half is folded outwards, so
/// that it fills a square (Cigolle and others, "A Survey of Efficient Representations for
/// Independent Unit Vectors", 2014).
pub(super) fn direction3([x, y, z]: [f64; 3], bits: u8) -> ([i32; 2], bool) {
    let sum = x.abs() + y.abs() + z.abs();
    if !(sum > 0.0 && sum.is_finite()) {
        return ([0, 0], true);
    }
    let (mut u, mut v) = (x / sum, y / sum);
    if z < 0.0 {
        (u, v) = ((1.0 - v.abs()) * sign(u), (1.0 - u.abs()) * sign(v));
    }
    let steps = octahedron_steps(bits);
    let lane = |part: f64| round(part * f64::from(steps));
    (canonical_octahedron([lane(u), lane(v)], steps), false)
}

/// On the square's rim two places are one direction: the one on the positive side stands for both.
fn canonical_octahedron([mut u, mut v]: [i32; 2], steps: i32) -> [i32; 2] {
    if u.abs() == steps {
        v = v.abs();
    }
    if v.abs() == steps {
        u = u.abs();
    }
    [u, v]
}

/// The direction of the lanes of [`direction3`], if they are those of one.
pub(super) fn undirection3(lanes: [i32; 2], bits: u8) -> Option<[f64; 3]> {
    let steps = octahedron_steps(bits);
    if canonical_octahedron(lanes, steps) != lanes {
        return None;
    }
    let [u, v] = lanes;
    let z = steps - u.abs() - v.abs();
    let (x, y) = if z < 0 {
        let unfold = |of: i32, other: i32| (steps - other.abs()) * if of < 0 { -1 } else { 1 };
        (unfold(u, v), unfold(v, u))
    } else {
        (u, v)
    };
    let [x, y, z] = [x, y, z].map(f64::from);
    let length = (x * x + y * y + z * z).sqrt();
    Some([x / length, y / length, z / length])
}

/// The lanes of a rotation (x, y, z, w), and whether there was none: the part with the greatest
/// magnitude, made positive, is left out; the other three lie within 1 / sqrt(2).
///
/// Where parts are about as great as each other, rounding may make another one the greatest. So
/// whatever *is* the value of some lanes gets these lanes again, those with the lowest number if
/// there are several.
pub(super) fn rotation(parts: [f32; 4], bits: u8) -> ([i32; 4], bool) {
    let wide = parts.map(f64::from);
    let norm = wide.iter().map(|part| part * part).sum::<f64>().sqrt();
    if !(norm > 0.0 && norm.is_finite()) {
        let lanes = nearest_lanes([0.0, 0.0, 0.0, 1.0], 3, bits);
        return (lanes, true);
    }
    let unit = wide.map(|part| part / norm);
    let largest = largest_of(unit);
    let lanes = nearest_lanes(unit, largest, bits);
    // Rounding moves two parts towards each other by one slack at most: no other part is near.
    let near = unit[largest].abs() - 2.0 * rotation_slack(bits);
    if (0..4).all(|index| index == largest || unit[index].abs() < near) {
        return (lanes, false);
    }
    let exact = lanes_of_value(parts, bits);
    let again = || value_of_lanes(lanes, bits).and_then(|value| lanes_of_value(value, bits));
    (exact.or_else(again).unwrap_or(lanes), false)
}

/// The index of the part with the greatest magnitude, the first one if there are several.
fn largest_of(parts: [f64; 4]) -> usize {
    let mut largest = 0;
    for index in 1..4 {
        if parts[index].abs() > parts[largest].abs() {
            largest = index;
        }
    }
    largest
}

/// The lanes next to a unit quaternion with part `largest` left out.
fn nearest_lanes(unit: [f64; 4], largest: usize, bits: u8) -> [i32; 4] {
    let steps = f64::from((1_i32 << bits) - 1);
    let flip = sign(unit[largest]);
    let mut lanes = [0; 4];
    lanes[0] = i32::try_from(largest).unwrap_or(0);
    let others = (0..4).filter(|&index| index != largest);
    for (lane, index) in lanes[1..].iter_mut().zip(others) {
        let part = (unit[index] * flip * core::f64::consts::SQRT_2 + 1.0) / 2.0;
        *lane = round(part * steps).clamp(0, (1 << bits) - 1);
    }
    lanes
}

/// The lanes whose value is exactly `value`.
fn lanes_of_value(value: [f32; 4], bits: u8) -> Option<[i32; 4]> {
    let wide = value.map(f64::from);
    let norm: f64 = wide.iter().map(|part| part * part).sum();
    if !(norm > 0.999 && norm < 1.001) {
        return None;
    }
    let top = wide.iter().fold(0.0, |top: f64, part| top.max(part.abs()));
    let slack = rotation_slack(bits);
    (0..4)
        .filter(|&largest| wide[largest] >= top - slack)
        .map(|largest| nearest_lanes(wide, largest, bits))
        .find(|&lanes| value_of_lanes(lanes, bits) == Some(value))
}

/// By how much the part that is left out may be smaller than another after rounding: a part moves
/// by half a step, and the one that follows from the others by up to three times as much, a little
/// more where the steps are large.
fn rotation_slack(bits: u8) -> f64 {
    3.0 * core::f64::consts::SQRT_2 / f64::from((1_i32 << bits) - 1)
}

/// The rotation of the lanes of [`rotation`], if they are those of one.
pub(super) fn unrotation(lanes: [i32; 4], bits: u8) -> Option<[f32; 4]> {
    let value = value_of_lanes(lanes, bits)?;
    // Two lots of lanes may have one value, with another part left out that is about as great; then
    // the other lot may be the canonical one.
    let largest = usize::try_from(lanes[0]).ok()?;
    let near = f64::from(value[largest]) - 1.01 * rotation_slack(bits);
    let is_alone = (0..4).all(|index| index == largest || f64::from(value[index].abs()) < near);
    (is_alone || rotation(value, bits).0 == lanes).then_some(value)
}

/// What lanes stand for, if any part can have been left out of it.
fn value_of_lanes(lanes: [i32; 4], bits: u8) -> Option<[f32; 4]> {
    let largest = usize::try_from(lanes[0]).ok().filter(|&index| index < 4)?;
    let steps = (1_i32 << bits) - 1;
    let scale = f64::from(steps) * core::f64::consts::SQRT_2;
    let mut parts = [0.0; 4];
    let mut squares = 0.0;
    let mut top = 0.0_f64;
    let others = (0..4).filter(|&index| index != largest);
    for (&lane, index) in lanes[1..].iter().zip(others) {
        if !(0..=steps).contains(&lane) {
            return None;
        }
        let part = f64::from(2 * lane - steps) / scale;
        parts[index] = part;
        squares += part * part;
        top = top.max(part.abs());
    }
    if squares > 1.0 {
        return None;
    }
    parts[largest] = (1.0 - squares).sqrt();
    // A part that is so much greater would have been left out.
    (parts[largest] >= top - rotation_slack(bits)).then(|| parts.map(narrow))
}

#[cfg(test)]
mod tests;
