use super::*;
use crate::prng::Prng;

/// A random float from -1 to 1.
fn signed_unit(prng: &mut Prng) -> f64 {
    f64::from(prng.next_u32()) / f64::from(u32::MAX) * 2.0 - 1.0
}

#[test]
fn fixed_point_rounds_clamps_and_comes_back() {
    assert_eq!(fixed(1.0, 512, -16_384, 16_384), (512, false));
    assert_eq!(fixed(0.4 / 512.0, 512, -16_384, 16_384), (0, false));
    assert_eq!(fixed(-0.6 / 512.0, 512, -16_384, 16_384), (-1, false));
    assert_eq!(fixed(32.0, 512, -16_384, 16_384), (16_384, false));
    assert_eq!(fixed(32.1, 512, -16_384, 16_384), (16_384, true));
    assert_eq!(fixed(f64::INFINITY, 512, -16_384, 16_384), (16_384, true));
    assert_eq!(fixed(f64::NEG_INFINITY, 1, -5, 5), (-5, true));
    assert_eq!(fixed(f64::NAN, 1, -5, 5), (0, true));
    assert_eq!(fixed(f64::NAN, 1, 2, 5), (2, true));
    // Up to 2^23 steps a f32 keeps them apart, whatever the step is.
    for per_unit in [1, 3, 7, 10, 100, 512, 1000, 4096, 999_983] {
        for lane in (-(1 << 23)..=1 << 23).step_by(997).chain([1 << 23]) {
            let value = f64::from(narrow(unfixed(lane, per_unit)));
            assert_eq!(
                fixed(value, per_unit, -(1 << 23), 1 << 23),
                (lane, false),
                "{per_unit} per unit"
            );
        }
    }
}

#[test]
fn floats_keep_their_order_and_bits() {
    let ascending = [
        f32::NEG_INFINITY,
        f32::MIN,
        -1.0,
        -f32::MIN_POSITIVE,
        -0.0,
        0.0,
        f32::MIN_POSITIVE,
        1.0,
        f32::MAX,
        f32::INFINITY,
        f32::NAN,
    ];
    assert!(ascending.is_sorted_by(|a, b| float_lane(*a) < float_lane(*b)));
    assert_eq!((float_lane(0.0), float_lane(-0.0)), (0, -1));
    for value in ascending {
        let back = float_of_lane(float_lane(value)).unwrap();
        assert_eq!(back.to_bits(), canonical_f32_bits(value));
    }
    assert_eq!(float_of_lane(float_lane(f32::NAN) + 1), None);
    assert_eq!(float_of_lane(i32::MIN), None, "a negative NaN");
}

#[test]
fn all_halves_come_back() {
    let mut last = f64::NEG_INFINITY;
    let mut count = 0;
    for lane in i32::from(i16::MIN) * 2..=i32::from(i16::MAX) * 2 {
        let Some(value) = unhalf(lane) else {
            continue;
        };
        count += 1;
        assert_eq!(half(value), (lane, false), "{value}");
        assert_eq!(half(f64::from(narrow(value))), (lane, false), "{value}");
        if !value.is_nan() {
            assert!(
                value > last || lane == HALF_LANE_MIN || lane == 0,
                "{value}"
            );
            last = value;
        }
    }
    // All 2^16 patterns but for those NaNs that are not the canonical one.
    assert_eq!(count, 65_536 - 2 * 1023 + 1);
}

#[test]
fn halves_are_the_nearest() {
    assert_eq!(half(1.0), (0x3c00, false));
    assert_eq!(half(-2.0), (-1 - 0xc000 + 0x8000, false));
    assert_eq!(half(65_504.0), (0x7bff, false));
    assert_eq!(half(65_519.9), (0x7bff, false));
    assert_eq!(half(65_520.0), (0x7bff, true));
    assert_eq!(half(-1e300), (-1 - 0x7bff, true));
    assert_eq!(half(f64::INFINITY), (0x7c00, false));
    assert_eq!(half(5.960_464_477_539_063e-8), (1, false));
    assert_eq!(half(2.9e-8), (0, false));
    // A tie goes to the even neighbour.
    assert_eq!(half(1.0 + 1.0 / 2048.0), (0x3c00, false));
    assert_eq!(half(1.0 + 3.0 / 2048.0), (0x3c02, false));
    assert_eq!(half(2047.9), (0x6800, false), "carries into the exponent");
    for seed in 0..20_000 {
        let mut prng = Prng::new(seed);
        let value = f64::from(f32::from_bits(prng.next_u32() & 0xb7ff_ffff));
        let (lane, _) = half(value);
        let at = |lane| unhalf(lane).map_or(f64::INFINITY, |other| (other - value).abs());
        let error = at(lane);
        assert!(
            error <= at(lane - 1) && error <= at(lane + 1),
            "seed {seed}: {value}"
        );
    }
}

#[test]
fn all_angles_come_back() {
    for bits in 4..=16 {
        let half_turn = 1 << (bits - 1);
        for lane in -half_turn..half_turn {
            let exact = undirection2(lane, bits);
            let value = exact.map(|part| f64::from(narrow(part)));
            assert_eq!(direction2(value, bits), (lane, false), "{bits} bits");
            let length = exact[0].hypot(exact[1]);
            assert!((length - 1.0).abs() < 1e-12, "{length}");
            // An independent look: std's functions are good to a few bits.
            let angle = f64::from(lane) / f64::from(half_turn) * PI;
            assert!((exact[0] - angle.cos()).abs() < 1e-12, "{angle}");
            assert!((exact[1] - angle.sin()).abs() < 1e-12, "{angle}");
        }
    }
    assert_eq!(undirection2(0, 8), [1.0, 0.0]);
    assert_eq!(undirection2(64, 8), [0.0, 1.0]);
    assert_eq!(undirection2(-128, 8), [-1.0, 0.0]);
    assert_eq!(direction2([-1.0, -1e-9], 8), (-128, false));
    for none in [[0.0, 0.0], [f64::NAN, 1.0], [1.0, f64::INFINITY]] {
        assert_eq!(direction2(none, 8), (0, true), "{none:?}");
    }
}

#[test]
fn angles_are_the_nearest() {
    for seed in 0..20_000 {
        let mut prng = Prng::new(seed);
        let value = [signed_unit(&mut prng), signed_unit(&mut prng)];
        let bits = 4 + u8::try_from(seed % 13).unwrap();
        let (lane, is_clamped) = direction2(value, bits);
        assert!(!is_clamped);
        let [x, y] = undirection2(lane, bits);
        let error = (x * value[1] - y * value[0]).atan2(x * value[0] + y * value[1]);
        let step = PI / f64::from(1 << (bits - 1));
        assert!(error.abs() <= step / 2.0 + 1e-9, "seed {seed}: {error}");
    }
}

#[test]
fn octahedra_come_back() {
    let back = |lanes, bits| {
        let value = undirection3(lanes, bits)?.map(|part| f64::from(narrow(part)));
        Some(direction3(value, bits))
    };
    for bits in [4, 5, 8] {
        let steps = octahedron_steps(bits);
        let mut places = 0;
        for u in -steps..=steps {
            for v in -steps..=steps {
                if let Some(found) = back([u, v], bits) {
                    assert_eq!(found, ([u, v], false), "{bits} bits");
                    places += 1;
                }
            }
        }
        // Two places of the rim are one direction: half of the rim does not count, but for the
        // four corners, which are one, and the ends of the axes, which stand alone.
        let side = 2 * steps + 1;
        assert_eq!(places, side * side - 4 * (steps - 1) - 3, "{bits} bits");
    }
    for seed in 0..50_000 {
        let mut prng = Prng::new(seed);
        let bits = 4 + u8::try_from(seed % 13).unwrap();
        let mut value = [0.0; 3].map(|_: f64| signed_unit(&mut prng));
        if seed % 5 == 0 {
            value[usize::try_from(seed).unwrap() % 3] *= 1e-9;
        }
        let (lanes, is_clamped) = direction3(value, bits);
        assert!(!is_clamped);
        assert_eq!(back(lanes, bits), Some((lanes, false)), "seed {seed}");
        let [x, y, z] = undirection3(lanes, bits).unwrap();
        let length = value.iter().map(|part| part * part).sum::<f64>().sqrt();
        let cosine = (x * value[0] + y * value[1] + z * value[2]) / length;
        // Half a step on both axes, and where a face of the octahedron is nearest to the middle the
        // sphere is 2.13 times as large.
        let error = cosine.clamp(-1.0, 1.0).acos() * f64::from(octahedron_steps(bits));
        assert!(error < 2.2, "seed {seed}: {error}");
    }
    for none in [[0.0; 3], [f64::NAN, 0.0, 1.0], [f64::INFINITY, 0.0, 0.0]] {
        assert_eq!(direction3(none, 8), ([0, 0], true));
    }
    assert_eq!(undirection3([0, 0], 8), Some([0.0, 0.0, 1.0]));
    assert_eq!(
        undirection3([127, -127], 8),
        None,
        "the corner has one place"
    );
}

/// All lanes of rotations with few bits: those that stand for a rotation stand for it alone or
/// give way to the one with the lowest number.
#[test]
fn rotations_come_back() {
    for bits in [5, 6] {
        let steps = (1 << bits) - 1;
        let (mut legal, mut own) = (0, 0);
        for place in 0..4 << (3 * bits) {
            let part = |index: u32| (place >> (u32::from(bits) * index)) & steps;
            let lanes = [place >> (3 * bits), part(0), part(1), part(2)];
            let Some(value) = unrotation(lanes, bits) else {
                continue;
            };
            legal += 1;
            let (found, is_clamped) = rotation(value, bits);
            assert!(!is_clamped);
            own += u32::from(found == lanes);
            assert_eq!(unrotation(found, bits), Some(value), "{lanes:?}");
            assert_eq!(rotation(value, bits), (found, false));
        }
        assert!(legal > 1 << (3 * bits), "{legal}");
        assert_eq!(own, legal, "{bits} bits");
    }
}

#[test]
fn rotations_are_near_and_stable() {
    for seed in 0..100_000 {
        let mut prng = Prng::new(seed);
        let bits = 5 + u8::try_from(seed % 11).unwrap();
        let mut value = [0.0_f32; 4].map(|_| narrow(signed_unit(&mut prng)));
        if seed % 3 == 0 {
            // Parts of nearly equal magnitude are the hard ones.
            value = value.map(|part| part.signum() + part * 0.02);
        }
        let (lanes, is_clamped) = rotation(value, bits);
        assert!(!is_clamped);
        let found = unrotation(lanes, bits).unwrap_or_else(|| panic!("seed {seed}: {lanes:?}"));
        assert_eq!(rotation(found, bits), (lanes, false), "seed {seed}");
        let norm = value.iter().map(|part| part * part).sum::<f32>().sqrt();
        let dot: f32 = value.iter().zip(found).map(|(a, b)| a / norm * b).sum();
        // Each of the three parts is off by half a step at most, the fourth by what follows.
        let step = std::f32::consts::SQRT_2 / f32::from((1_u16 << bits) - 1);
        assert!(
            1.0 - dot.abs() < 1.5 * step * step + 1e-6,
            "seed {seed}: {dot}"
        );
    }
    for none in [[0.0; 4], [f32::NAN, 0.0, 0.0, 1.0], [f32::INFINITY; 4]] {
        let (lanes, is_clamped) = rotation(none, 9);
        assert!(is_clamped);
        assert_eq!(lanes[0], 3, "the identity");
        assert!(unrotation(lanes, 9).is_some());
    }
    assert_eq!(unrotation([4, 0, 0, 0], 9), None);
    assert_eq!(unrotation([0, 512, 0, 0], 9), None);
    assert_eq!(unrotation([0, 0, 0, 0], 9), None, "longer than 1");
}
