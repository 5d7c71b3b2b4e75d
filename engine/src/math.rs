//! Mathematics that give the same bits on every platform.
//!
//! `+ - * /`, `sqrt`, `floor` and their like are exact everywhere. What std leaves to the platform
//! (`sin`, `atan2`, `powf` and so on) comes from `libm` here. The types of [`glam`] are built with
//! `libm` and without SIMD for the same reason.
//!
//! Two traps remain. `f32::min` and `f32::max` of `0.0` and `-0.0` may return either: use [`min`]
//! and [`max`]. The sign of a NaN differs between platforms; hashes and snapshots take every NaN
//! for the same one.

pub use glam;
pub use glam::{
    Affine2, EulerRot, IVec2, IVec3, Mat2, Mat3, Mat4, Quat, UVec2, UVec3, Vec2, Vec3, Vec4,
};

/// Functions of one argument.
macro_rules! unary {
    ($($name:ident, $libm:ident, $doc:literal;)*) => {$(
        #[doc = $doc]
        #[inline]
        #[must_use]
        pub fn $name(x: f32) -> f32 {
            libm::$libm(x)
        }
    )*};
}

unary! {
    sin, sinf, "Sine of `x` radians.";
    cos, cosf, "Cosine of `x` radians.";
    tan, tanf, "Tangent of `x` radians.";
    asin, asinf, "Arcsine, in radians; NaN outside of -1 to 1.";
    acos, acosf, "Arccosine, in radians; NaN outside of -1 to 1.";
    atan, atanf, "Arctangent, in radians.";
    sinh, sinhf, "Hyperbolic sine.";
    cosh, coshf, "Hyperbolic cosine.";
    tanh, tanhf, "Hyperbolic tangent.";
    exp, expf, "e to the power of `x`.";
    exp2, exp2f, "2 to the power of `x`.";
    ln, logf, "Natural logarithm; NaN below 0.";
    log2, log2f, "Logarithm to base 2; NaN below 0.";
    log10, log10f, "Logarithm to base 10; NaN below 0.";
    cbrt, cbrtf, "Cube root.";
    sqrt, sqrtf, "Square root; NaN below 0.";
}

/// Sine and cosine of `x` radians.
#[inline]
#[must_use]
pub fn sin_cos(x: f32) -> (f32, f32) {
    libm::sincosf(x)
}

/// Angle of the point (`x`, `y`) in radians, from -pi to pi.
#[inline]
#[must_use]
pub fn atan2(y: f32, x: f32) -> f32 {
    libm::atan2f(y, x)
}

/// `base` to the power of `exponent`.
#[inline]
#[must_use]
pub fn powf(base: f32, exponent: f32) -> f32 {
    libm::powf(base, exponent)
}

/// Length of the vector (`x`, `y`), without overflow in between.
#[inline]
#[must_use]
pub fn hypot(x: f32, y: f32) -> f32 {
    libm::hypotf(x, y)
}

/// The smaller one; `b` if they are equal, or if `a` is NaN.
#[inline]
#[must_use]
pub const fn min(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}

/// The larger one; `b` if they are equal, or if `a` is NaN.
#[inline]
#[must_use]
pub const fn max(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed once on x86-64; every platform and build must find the same.
    #[test]
    fn results_are_these_bits_everywhere() {
        let bits = [
            sin(1.0),
            cos(1.0),
            tan(1.0),
            asin(0.3),
            acos(0.3),
            atan2(1.0, -2.0),
            exp(1.5),
            ln(3.0),
            powf(1.7, 2.3),
            hypot(3.0, 4.0),
        ]
        .map(f32::to_bits);
        assert_eq!(
            bits,
            [
                0x3f57_6aa4,
                0x3f0a_5140,
                0x3fc7_5923,
                0x3e9c_00ad,
                0x3fa2_0faf,
                0x402b_6374,
                0x408f_69ff,
                0x3f8c_9f54,
                0x4058_e063,
                0x40a0_0000
            ]
        );
        assert_eq!(sin_cos(1.0), (sin(1.0), cos(1.0)));
    }

    #[test]
    fn equal_zeros_give_the_second_one() {
        assert_eq!(min(0.0, -0.0).to_bits(), (-0.0_f32).to_bits());
        assert_eq!(max(-0.0, 0.0).to_bits(), 0);
        assert_eq!((min(1.0, 2.0), max(1.0, 2.0)), (1.0, 2.0));
    }
}
