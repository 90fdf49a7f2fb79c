//! Element-wise functions.

use super::level::{Level, Work};
use super::tile::Line;

/// The functions that graphs apply to every element.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Function {
    /// `x / (1 + exp(-x))`, also called swish.
    Silu,
    /// `x / 2 (1 + erf(x / sqrt 2))`.
    Gelu,
    /// `x / (1 + exp(-1.702 x))`, CLIP's approximation of GELU.
    QuickGelu,
    /// `max(x, 0)`.
    Relu,
    /// The hyperbolic tangent.
    Tanh,
}

impl Function {
    /// Applies the function to every element, in place.
    pub fn apply(self, level: Level, values: &mut [f32]) {
        level.run(Apply { function: self, values: std::iter::once(values) });
    }

    /// As [`Function::apply`], for the elements of lines.
    pub fn apply_to_lines(self, level: Level, lines: &mut [Line]) {
        level.run(Apply { function: self, values: lines.iter_mut().map(|line| &mut line.0[..]) });
    }
}

struct Apply<I> {
    function: Function,
    values: I,
}

impl<'a, I: Iterator<Item = &'a mut [f32]>> Work for Apply<I> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        match self.function {
            Function::Silu => self.values.for_each(|values| each(values, silu)),
            Function::Gelu => self.values.for_each(|values| each(values, gelu)),
            Function::QuickGelu => self.values.for_each(|values| each(values, quick_gelu)),
            Function::Relu => self.values.for_each(|values| each(values, relu)),
            Function::Tanh => self.values.for_each(|values| each(values, tanh)),
        }
    }
}

/// `out = value * gelu(gate)`; all of one length.
///
/// # Panics
/// If the lengths differ.
///
/// Source: Shazeer 2020, eq. 6, arXiv:2002.05202.
pub fn geglu(level: Level, value: &[f32], gate: &[f32], out: &mut [f32]) {
    assert!(value.len() == out.len() && gate.len() == out.len());
    level.run(Geglu { value, gate, out });
}

/// `value = value * gelu(gate)`, as [`geglu`], for the elements of equally many lines.
///
/// # Panics
/// If there are other than as many.
pub fn gate_lines(level: Level, values: &mut [Line], gates: &[Line]) {
    assert!(values.len() == gates.len());
    level.run(GateLines { values, gates });
}

struct GateLines<'a> {
    values: &'a mut [Line],
    gates: &'a [Line],
}

impl Work for GateLines<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for (values, gates) in self.values.iter_mut().zip(self.gates) {
            for (value, &gate) in values.0.iter_mut().zip(&gates.0) {
                *value *= gelu(gate);
            }
        }
    }
}

struct Geglu<'a> {
    value: &'a [f32],
    gate: &'a [f32],
    out: &'a mut [f32],
}

impl Work for Geglu<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for ((out, &value), &gate) in self.out.iter_mut().zip(self.value).zip(self.gate) {
            *out = value * gelu(gate);
        }
    }
}

#[inline(always)]
fn each(values: &mut [f32], f: impl Fn(f32) -> f32) {
    for x in values {
        *x = f(*x);
    }
}

#[inline(always)]
fn quick_gelu(x: f32) -> f32 {
    x * sigmoid(1.702 * x)
}

#[inline(always)]
fn relu(x: f32) -> f32 {
    x.max(0.0)
}

/// The hyperbolic tangent, absolute error below 3e-7.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    2.0 * sigmoid(2.0 * x) - 1.0
}

/// `1 / (1 + exp(-x))`.
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// `x / (1 + exp(-x))`.
#[inline(always)]
pub fn silu(x: f32) -> f32 {
    x * sigmoid(x)
}

/// `x / 2 (1 + erf(x / sqrt 2))`.
#[inline(always)]
pub fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}

/// `exp(x)` within 2 ulp for results that are normal; 0 below -87.3, infinity above 88.7.
///
/// Branch-free and without calls, so that loops over it become vector code on every level: `x = n ln 2 + r`, a polynomial
/// of degree 6 in `r` with |r| <= ln 2 / 2, and `2^n` put into the exponent bits. `ln 2` is split in two. Adding 1.5 * 2^23
/// rounds to a whole number, half to even, and leaves it in the low bits.
///
/// Source: Cody and Waite, Software Manual for the Elementary Functions, 1980, chapter 6 (the reduction); the
/// polynomial is Taylor's, whose remainder r^7 / 5040 is below 1.2e-7 there.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const HIGH: f32 = std::f32::consts::LN_2;
    const LOW: f32 = -1.904_654_3e-9;
    let clamped = x.clamp(-87.3, 88.7);
    let rounded = clamped.mul_add(std::f32::consts::LOG2_E, ROUNDER);
    let n = rounded - ROUNDER;
    let whole = (rounded.to_bits() as i32).wrapping_sub(ROUNDER.to_bits() as i32);
    let r = n.mul_add(-LOW, n.mul_add(-HIGH, clamped));
    let p = polynomial(r, [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0]);
    // n is in -126..=128: halved, so that both factors are normal numbers.
    let half = whole >> 1;
    let two = |e: i32| f32::from_bits((e.wrapping_add(127) << 23) as u32);
    let y = p * two(half) * two(whole.wrapping_sub(half));
    let y = if x < -87.3 { 0.0 } else { y };
    let y = if x > 88.7 { f32::INFINITY } else { y };
    if x.is_nan() { x } else { y }
}

/// `2^x` within 2 ulp for x from -125 to 127; below that as for -125, above it anything. As [`exp`], with less to be done.
#[inline(always)]
pub fn exp2(x: f32) -> f32 {
    let clamped = if x < -125.0 { -125.0 } else { x };
    let rounded = clamped + ROUNDER;
    let r = clamped - (rounded - ROUNDER);
    // The powers of ln 2 over the factorials.
    let p = polynomial(
        r,
        [1.540_353_e-4, 1.333_355_8e-3, 9.618_129e-3, 5.550_411e-2, 0.240_226_5, std::f32::consts::LN_2, 1.0],
    );
    // The low bits of `rounded` are the whole part: onto the exponent with it.
    f32::from_bits(p.to_bits().wrapping_add(rounded.to_bits() << 23))
}

/// Adding it rounds to a whole number, which is left in the low bits.
const ROUNDER: f32 = 12_582_912.0;

/// `p[0] x^6 + p[1] x^5 + ... + p[6]`.
#[inline(always)]
fn polynomial<const N: usize>(x: f32, p: [f32; N]) -> f32 {
    p.into_iter().reduce(|sum, p| sum.mul_add(x, p)).unwrap_or(0.0)
}

/// The error function, absolute error below 5e-7: 1.5e-7 the formula, the rest its rounding.
///
/// Source: Abramowitz and Stegun, Handbook of Mathematical Functions, 1964, formula 7.1.26.
#[inline(always)]
pub fn erf(x: f32) -> f32 {
    let a = x.abs();
    let t = 1.0 / a.mul_add(0.327_591_1, 1.0);
    let p = polynomial(t, [1.061_405_4, -1.453_152_1, 1.421_413_8, -0.284_496_72, 0.254_829_6]);
    let y = (p * -t).mul_add(exp(-a * a), 1.0);
    y.copysign(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers from -90 to 90, denser near 0, and the special ones.
    fn arguments() -> impl Iterator<Item = f32> {
        let dense = (-9000..=9000).map(|i| i as f32 * 1e-3);
        let wide = (-9000..=9000).map(|i| i as f32 * 1e-2);
        dense.chain(wide).chain([0.0, -0.0, f32::MIN_POSITIVE, f32::EPSILON])
    }

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        for x in arguments().filter(|x| (-87.3..=88.7).contains(x)) {
            let exact = f64::from(x).exp();
            let unit = f64::from(exact as f32) * f64::from(f32::EPSILON);
            let error = (f64::from(exp(x)) - exact).abs() / unit;
            assert!(error <= 2.0, "exp({x}) is off by {error}");
        }
        assert_eq!([exp(f32::NEG_INFINITY), exp(-88.0), exp(0.0), exp(89.0)], [0.0, 0.0, 1.0, f32::INFINITY]);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn exp2_is_within_two_units_in_the_last_place() {
        for x in arguments().map(|x| x * 1.38).filter(|x| (-125.0..=127.0).contains(x)) {
            let exact = f64::from(x).exp2();
            let unit = f64::from(exact as f32) * f64::from(f32::EPSILON);
            let error = (f64::from(exp2(x)) - exact).abs() / unit;
            assert!(error <= 2.0, "exp2({x}) is off by {error}");
        }
        assert_eq!([exp2(0.0), exp2(-3.0), exp2(10.0)], [1.0, 0.125, 1024.0]);
        assert_eq!(exp2(f32::NEG_INFINITY), exp2(-125.0));
        assert!(exp2(f32::NAN).is_nan());
    }

    #[test]
    fn sigmoids_stay_in_their_range() {
        for x in arguments() {
            let exact = 1.0 / (1.0 + (-f64::from(x)).exp());
            assert!((f64::from(sigmoid(x)) - exact).abs() <= 3e-7, "sigmoid({x})");
            assert!((f64::from(tanh(x)) - f64::from(x).tanh()).abs() <= 3e-7, "tanh({x})");
            assert!(
                (f64::from(silu(x)) - f64::from(x) * exact).abs() <= 3e-7 * (1.0 + f64::from(x.abs())),
                "silu({x})"
            );
        }
        assert_eq!([silu(-1e30), silu(1e30)], [0.0, 1e30]);
    }

    /// erf by its Maclaurin series below 3 and by its continued fraction above, in f64.
    fn exact_erf(x: f64) -> f64 {
        let a = x.abs();
        let value = if a < 3.0 {
            let mut term = a;
            let mut sum = a;
            for n in 1..200 {
                term *= -a * a / f64::from(n);
                sum += term / f64::from(2 * n + 1);
            }
            sum * std::f64::consts::FRAC_2_SQRT_PI
        } else {
            let tail = (1..=60).rev().fold(a, |tail, n| a + f64::from(n) / 2.0 / tail);
            1.0 - (-a * a).exp() / tail / std::f64::consts::PI.sqrt()
        };
        value.copysign(x)
    }

    #[test]
    fn erf_and_gelu_are_within_their_bounds() {
        for x in arguments() {
            let exact = exact_erf(f64::from(x));
            assert!(
                (f64::from(erf(x)) - exact).abs() <= 5e-7,
                "erf({x}) is off by {:e}",
                f64::from(erf(x)) - exact
            );
            let exact = 0.5 * f64::from(x) * (1.0 + exact_erf(f64::from(x) / 2f64.sqrt()));
            assert!((f64::from(gelu(x)) - exact).abs() <= 5e-7 * (1.0 + f64::from(x.abs())), "gelu({x})");
        }
    }

    /// Bits, with all NaNs alike: which NaN an operation gives is left to the machine.
    fn bits(values: &[f32]) -> Vec<u32> {
        values.iter().map(|x| if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() }).collect()
    }

    #[test]
    fn every_level_gives_the_same_bits() {
        const FUNCTIONS: [Function; 5] =
            [Function::Silu, Function::Gelu, Function::QuickGelu, Function::Relu, Function::Tanh];
        let special = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, 1e-40, -0.0];
        let all: Vec<f32> = special.into_iter().chain(arguments().step_by(97)).collect();
        for level in Level::available() {
            for (len, start) in (0..70).flat_map(|len| [(len, 0), (len, 1), (len, 3)]) {
                let values = &all[start..start + len];
                for function in FUNCTIONS {
                    let (mut expected, mut got) = (values.to_vec(), vec![0.0; start + len]);
                    got[start..].copy_from_slice(values);
                    function.apply(Level::Scalar, &mut expected);
                    function.apply(level, &mut got[start..]);
                    assert_eq!(bits(&got[start..]), bits(&expected), "{level:?} {function:?} {len}");
                }
                let (mut expected, mut got) = (vec![0.0; len], vec![0.0; len]);
                geglu(Level::Scalar, &all[7..7 + len], values, &mut expected);
                geglu(level, &all[7..7 + len], values, &mut got);
                assert_eq!(bits(&got), bits(&expected), "{level:?} {len}");
            }
            lines_are_as_their_elements(level, &all);
        }
    }

    fn lines_are_as_their_elements(level: Level, all: &[f32]) {
        let (chunks, _) = all.as_chunks();
        let mut lines: Vec<Line> = chunks.iter().copied().map(Line).collect();
        let (mut values, gates) = (lines.clone(), lines.iter().rev().copied().collect::<Vec<_>>());
        let bits =
            |lines: &[Line]| lines.iter().flat_map(|line| line.0.map(f32::to_bits)).collect::<Vec<_>>();
        Function::Gelu.apply_to_lines(level, &mut lines);
        gate_lines(level, &mut values, &gates);
        for ((line, value), (chunk, gate)) in lines.iter().zip(&values).zip(chunks.iter().zip(&gates)) {
            let (mut applied, mut gated) = (*chunk, [0.0; 16]);
            Function::Gelu.apply(Level::Scalar, &mut applied);
            geglu(Level::Scalar, chunk, &gate.0, &mut gated);
            assert_eq!(bits(&[*line, *value]), bits(&[Line(applied), Line(gated)]), "{level:?}");
        }
    }

    #[test]
    fn functions_apply_to_every_element() {
        let applied = |function: Function| {
            let mut values = [-2.0, 0.0, 0.5];
            function.apply(Level::detect(), &mut values);
            values
        };
        assert_eq!(applied(Function::Relu), [0.0, 0.0, 0.5]);
        assert_eq!(applied(Function::Tanh), [-2.0f32, 0.0, 0.5].map(tanh));
        assert_eq!(applied(Function::Silu), [-2.0, 0.0, 0.5].map(silu));
        assert_eq!(applied(Function::Gelu), [-2.0, 0.0, 0.5].map(gelu));
        assert_eq!(applied(Function::QuickGelu)[2], 0.5 * sigmoid(0.851));
    }
}
