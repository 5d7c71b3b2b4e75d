//! Rotations, as chapter 10.8 of the document has them: single precision, in the order given there.

use super::body::{Surprise, residual};
use super::coder::{Coder, Tables, Wrong};
use super::layout::Group;

type Quaternion = [f32; 4];

const ROOT: f32 = core::f32::consts::FRAC_1_SQRT_2;

fn dot(p: Quaternion, q: Quaternion) -> f32 {
    (p[0] * q[0] + p[1] * q[1]) + (p[2] * q[2] + p[3] * q[3])
}

fn minus(p: Quaternion, q: Quaternion) -> Quaternion {
    [0, 1, 2, 3].map(|part| p[part] - q[part])
}

/// The axes beside `left_out`, in order.
fn others(left_out: usize) -> [usize; 3] {
    let mut axes = (0..4).filter(|&axis| axis != left_out);
    [(); 3].map(|()| axes.next().unwrap())
}

/// The quaternion of lanes, with its parts in the given order of axes.
fn quaternion(lanes: &[i64], most: f32, order: [usize; 4]) -> Quaternion {
    let left_out = usize::try_from(lanes[0]).unwrap();
    let mut parts = [0.0; 4];
    let mut rest = 1.0;
    for (axis, &lane) in others(left_out).into_iter().zip(&lanes[1..]) {
        let part = (2.0 * lane as f32 - most) * (ROOT / most);
        parts[axis] = part;
        rest -= part * part;
    }
    parts[left_out] = if rest > 0.0 { rest.sqrt() } else { 0.0 };
    order.map(|axis| parts[axis])
}

fn spread(r: f32, x: f32) -> f32 {
    let s1 = r * (1.0 - r * r) * (1.0 / 3.0);
    let s2 = s1 * (4.0 - r * r) * 0.1;
    let s3 = s2 * (9.0 - r * r) * (1.0 / 21.0);
    r + x * (s1 + x * (s2 + x * s3))
}

fn extension(base: Quaternion, older: Quaternion, age: i64, gap: i64) -> Option<Quaternion> {
    let r = (4096 * age / gap) as f32 / 4096.0;
    let d = dot(base, older);
    let x = (1.0 - d.abs()).max(0.0);
    if x > 4.0 / ((1.0 + r) * (1.0 + r)) {
        return None;
    }
    let first = spread(1.0 + r, x);
    let second = spread(r, x);
    let second = if d < 0.0 { -second } else { second };
    Some([0, 1, 2, 3].map(|part| first * base[part] - second * older[part]))
}

/// The class of a distance whose square in steps is given.
fn class(square: f32) -> usize {
    if square <= 0.0 {
        return 0;
    }
    let log = i64::from(square.to_bits() >> 23) - 127;
    usize::try_from((log + 2).max(0)).unwrap()
}

pub(super) fn read(
    coder: &mut Coder<'_>,
    tables: &Tables,
    group: &Group,
    lanes: &[i64],
    older: &[(i64, Vec<i64>)],
    age: i64,
    position_surprise: usize,
) -> Result<Vec<i64>, Wrong> {
    let max = group.lanes[1].max;
    let most = max as f32;
    let u = ROOT * most;
    let left_out = usize::try_from(lanes[0]).unwrap();
    let [a, b, c] = others(left_out);
    let order = [a, b, c, left_out];
    let base = quaternion(lanes, most, order);
    let mut extended = older.iter().map(|(gap, lanes)| {
        let older = quaternion(lanes, most, order);
        extension(base, older, age, *gap)
    });
    let (near, far) = (extended.next().flatten(), extended.next().flatten());
    let course = |bend: usize| tables.courses[3 * 16 + bend].map(|part| part as f32 / 4096.0);
    let square = |q: Quaternion| dot(q, q) * u * u;
    let (mut q, scale, bend_class) = match (near, far) {
        (Some(n), Some(f)) => {
            let (e, m) = (square(minus(n, f)), square(minus(base, f)));
            let bend_class = class(e).min(15);
            let [velocity, bend, _] = course(bend_class);
            let k = 256 * (age + older[0].0) / (older[1].0 - older[0].0).max(1);
            let bend = bend * (k as f32 / 256.0);
            let q = [0, 1, 2, 3].map(|part| {
                base[part] + velocity * (n[part] - base[part]) + bend * (n[part] - f[part])
            });
            (q, class(e + m * (1.0 / 64.0)).min(14), bend_class)
        }
        (Some(e), None) => {
            let m = square(minus(e, base));
            let bend_class = class(m).min(15);
            let [.., alone] = course(bend_class);
            let q = [0, 1, 2, 3].map(|part| base[part] + alone * (e[part] - base[part]));
            (q, class(m * (1.0 / 16.0 + 1.0 / 64.0)).min(14), bend_class)
        }
        (None, _) => (base, 15, 0),
    };
    let length = dot(q, q);
    let w = if (0.25..=4.0).contains(&length) {
        1.0 / length.sqrt()
    } else {
        q = base;
        1.0
    };
    let mut first = 3;
    for part in 0..3 {
        if q[part].abs() > q[first].abs() {
            first = part;
        }
    }
    let mut second = usize::from(first == 0);
    for part in 0..4 {
        if part != first && q[part].abs() > q[second].abs() {
            second = part;
        }
    }
    let apart = ((q[first].abs() - q[second].abs()) * w * 128.0) as u32;
    let margin = usize::try_from(32 - apart.leading_zeros()).unwrap().min(7);
    let bend = (bend_class / 4).min(3);
    let guess = if !coder.flag(99 + 4 * margin + bend) {
        order[first]
    } else if !coder.flag(131) {
        order[second]
    } else {
        let mut rest = (0..4).filter(|&axis| axis != order[first] && axis != order[second]);
        let which = usize::try_from(coder.uniform(1)).unwrap();
        rest.nth(which).unwrap()
    };
    let mut by_axis = [0.0; 4];
    for (part, &axis) in order.iter().enumerate() {
        by_axis[axis] = q[part];
    }
    let s = if by_axis[guess] < 0.0 {
        -(u * w)
    } else {
        u * w
    };
    let mut values = vec![i64::try_from(guess).unwrap()];
    let mut surprise = Surprise::default();
    for (number, axis) in others(guess).into_iter().enumerate() {
        let expected = (by_axis[axis] * s + (most * 0.5 + 0.5)) as i64;
        let (family, how) = match number {
            0 => (3, position_surprise),
            _ => (4, surprise.class()),
        };
        let off = residual(coder, family, scale, how);
        surprise.count(off.abs(), 1);
        let value = expected.clamp(0, max) + off;
        if !(0..=max).contains(&value) {
            return Err("a part of a rotation beyond its bounds");
        }
        values.push(value);
    }
    Ok(values)
}
