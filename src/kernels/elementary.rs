//! Logarithm, sine and cosine that give the same bits on every machine.
//!
//! The platform's own (`f64::ln`, `f64::cos`) come from a libm that differs between targets and versions, and
//! one changed last bit in the noise is another picture. Here each is a range reduction and a Taylor series,
//! in additions, multiplications and divisions alone: IEEE 754 defines the result of each of those to the bit,
//! and the compiler may neither fuse nor reorder them.
//!
//! ```text
//! ln x    = e ln 2 + 2 (s + s^3/3 + s^5/5 + ...)     x = m 2^e, 1/sqrt 2 <= m < sqrt 2, s = (m - 1) / (m + 1)
//! sin/cos = the series of y = x - k pi/2, |y| <= pi/4, swapped and negated by k mod 4
//! ```
//!
//! Both are meant for a result rounded to f32: their own relative error is below 2^-50, so that result is the
//! correctly rounded one but for about one argument in 2^25, where it is its neighbour.

use std::f64::consts::{FRAC_2_PI, LN_2, SQRT_2};

/// pi/2 in two parts. The first has 33 significant bits, so that its product with a small integer is exact.
///
/// Source: the constants `pio2_1` and `pio2_1t` of fdlibm, e_rem_pio2.c.
const PI_2_HIGH: f64 = 1.570_796_326_734_125_6;
const PI_2_LOW: f64 = 6.077_100_506_506_192e-11;

/// Terms of the series. The first one left out is below 2^-53 of the sum at the end of the reduced range.
const LN_TERMS: u32 = 10;
const SIN_COS_TERMS: u32 = 8;

/// The natural logarithm of a positive, finite, normal number.
///
/// Relative error below 2^-50 for arguments up to 1.
pub fn ln(x: f64) -> f64 {
    let (mantissa, exponent) = split(x);
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let s2 = s * s;
    let series = (0..LN_TERMS).rev().fold(0.0, |sum, i| sum * s2 + 1.0 / f64::from(2 * i + 1));
    f64::from(exponent) * LN_2 + 2.0 * s * series
}

/// `x` as mantissa and power of two, the mantissa from 1/sqrt 2 to sqrt 2.
fn split(x: f64) -> (f64, i32) {
    const FRACTION: u64 = (1 << 52) - 1;
    let bits = x.to_bits();
    let exponent = (bits >> 52) as i32 - 1023;
    let mantissa = f64::from_bits(bits & FRACTION | 1.0f64.to_bits());
    if mantissa < SQRT_2 { (mantissa, exponent) } else { (mantissa / 2.0, exponent + 1) }
}

/// The sine and the cosine of an angle from 0 to a million, in radians; absolute error below 2^-50.
///
/// From 0 to 2 pi the relative error is below 2^-50 wherever the result is at least 2^-30, which it is for every angle
/// given in f32.
pub fn sin_cos(x: f64) -> (f64, f64) {
    let quarter = (x * FRAC_2_PI + 0.5).floor();
    let y = (x - quarter * PI_2_HIGH) - quarter * PI_2_LOW;
    let y2 = y * y;
    // From the highest term down: each is the previous one times -y^2 / (two consecutive integers).
    let series = |first: u32| {
        (0..SIN_COS_TERMS).rev().fold(1.0, |sum, i| {
            let n = first + 2 * i;
            1.0 - sum * y2 / f64::from(n * (n + 1))
        })
    };
    let (sin, cos) = (y * series(2), series(1));
    match quarter as i32 & 3 {
        0 => (sin, cos),
        1 => (cos, -sin),
        2 => (-sin, -cos),
        _ => (-cos, sin),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f64::consts::TAU;

    /// The stated error, and room for the platform's own.
    const TOLERANCE: f64 = 1.0 / (1u64 << 49) as f64;

    fn assert_close(got: f64, want: f64, x: f64, what: &str) {
        assert!((got - want).abs() <= TOLERANCE * want.abs(), "{what}({x:e}) is {got:e}, expected {want:e}");
    }

    /// The uniforms that the noise generator asks about: both ends, and a walk over all magnitudes.
    fn uniforms() -> impl Iterator<Item = f64> {
        let ends = (0..2000).map(|i| f64::from(i) / f64::from(1 << 24));
        let magnitudes =
            (0..53).flat_map(|e| (1..200).map(move |m| f64::from(m) / 200.0 / (1u64 << e) as f64));
        ends.chain(magnitudes).chain([1.0 - f64::EPSILON / 2.0, 0.5, 0.25, 0.75])
    }

    #[test]
    fn logarithm_is_that_of_the_platform() {
        for u in uniforms() {
            assert_close(ln(1.0 - u), (1.0 - u).ln(), 1.0 - u, "ln");
            if u > 0.0 {
                assert_close(ln(u), u.ln(), u, "ln");
            }
        }
        assert_eq!(ln(1.0), 0.0);
    }

    #[test]
    fn sine_and_cosine_are_those_of_the_platform() {
        for u in uniforms() {
            for angle in [TAU * u, f64::from((TAU * u) as f32), f64::from(TAU as f32 * (1.0 - u) as f32)] {
                let (sin, cos) = sin_cos(angle);
                // Next to a zero that f64 cannot express, only the absolute error is small.
                if sin.abs() > 1e-9 && cos.abs() > 1e-9 {
                    assert_close(sin, angle.sin(), angle, "sin");
                    assert_close(cos, angle.cos(), angle, "cos");
                }
            }
        }
        assert_eq!(sin_cos(0.0), (0.0, 1.0));
        for angle in (0..100_000).map(|at| f64::from(at) * 0.37) {
            let (sin, cos) = sin_cos(angle);
            let error = (sin - angle.sin()).abs().max((cos - angle.cos()).abs());
            assert!(error < 2f64.powi(-50), "{angle}: {error}");
        }
    }
}
