//! Activations to integers, a run of a row at a time: `q = round(x MAX / max |x|)`.

use super::Level;
use super::integer::Integer;
use super::level::Work;

/// Quantises a run of a row, and returns its scale; what `x` does not reach becomes zeros.
///
/// A run with a number that is not finite gets a scale that is none either, so that everything made of it is NaN.
///
/// # Panics
/// If `out` is shorter than `x`.
pub fn quantise<Q: Integer>(level: Level, x: &[f32], out: &mut [Q]) -> f32 {
    let (out, beyond) = out.split_at_mut(x.len());
    beyond.fill(Q::default());
    level.run(Quantise { x, out })
}

struct Quantise<'a, Q> {
    x: &'a [f32],
    out: &'a mut [Q],
}

impl<Q: Integer> Work for Quantise<'_, Q> {
    type Output = f32;

    #[inline(always)]
    fn run(self) -> f32 {
        /// Added to a number of at most 22 bits, it leaves the nearest whole one in the low bits, half to even.
        const ROUNDER: f32 = 12_582_912.0;
        /// Runs of smaller numbers are zeros.
        const SMALLEST: f32 = 1e-30;
        // As whole numbers, magnitudes are in the order of their values, with NaN above all.
        let largest = self.x.iter().fold(0, |largest: u32, x| largest.max(x.to_bits() & 0x7fff_ffff));
        let max = f32::from_bits(largest);
        if !(max.is_finite() && max >= SMALLEST) {
            self.out.fill(Q::default());
            return if max.is_finite() { 0.0 } else { f32::NAN };
        }
        let inverse = f32::from(Q::MAX) / max;
        for (x, out) in self.x.iter().zip(self.out) {
            let rounded = x * inverse + ROUNDER;
            *out = Q::of((rounded.to_bits() as i32).wrapping_sub(ROUNDER.to_bits() as i32));
        }
        max / f32::from(Q::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantised<Q: Integer>(level: Level, x: &[f32]) -> (Vec<i32>, f32) {
        let mut out = vec![Q::of(3); x.len() + 5];
        let scale = quantise(level, x, &mut out);
        (out.into_iter().map(Into::into).collect(), scale)
    }

    #[test]
    fn quantised_numbers_are_the_nearest_and_reach_the_largest() {
        for level in Level::available() {
            for len in 1..70 {
                let x: Vec<f32> = (0..len).map(|at| ((at * at) as f32 * 0.7).sin() * 3.0 - 0.5).collect();
                let (q, scale) = quantised::<i8>(level, &x);
                let max = x.iter().map(|x| x.abs()).fold(0.0, f32::max);
                assert_eq!(scale, max / 127.0);
                assert_eq!(q.iter().map(|q| q.abs()).max(), Some(127));
                for (q, x) in q.iter().zip(&x) {
                    let exact = f64::from(*x) / f64::from(scale);
                    assert!((f64::from(*q) - exact).abs() <= 0.5 + 1e-4, "{level:?}: {x} became {q}");
                }
                assert_eq!(q[len..], [0; 5]);
                assert_eq!(quantised::<i16>(level, &x), quantised::<i16>(Level::Scalar, &x));
            }
        }
    }

    #[test]
    fn what_is_not_finite_or_nothing_is_told_by_the_scale() {
        for level in Level::available() {
            for strange in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -f32::NAN] {
                let (q, scale) = quantised::<i8>(level, &[1.0, strange, 2.0]);
                assert!(scale.is_nan() && q == [0; 8], "{strange}");
            }
            for nothing in [0.0, -0.0, 1e-40, -1e-31] {
                assert_eq!(quantised::<i16>(level, &[nothing; 20]), (vec![0; 25], 0.0));
            }
            let (q, scale) = quantised::<i16>(level, &[f32::MAX, -f32::MAX, 0.0]);
            assert!(scale.is_finite() && q[..3] == [2047, -2047, 0]);
        }
    }
}
