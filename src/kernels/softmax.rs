//! The softmax of one row of attention scores.

use super::activation::exp;
use super::level::{Level, Work};

/// `scores[i] <- exp(scale * (scores[i] - max))`, returns the sum of the new values.
///
/// The division is left to the caller, who makes it once per output channel instead of once per key.
/// An empty row gives 0.
pub fn exponentials(scores: &mut [f32], scale: f32) -> f32 {
    Level::detect().run(Exponentials { scores, scale })
}

struct Exponentials<'a> {
    scores: &'a mut [f32],
    scale: f32,
}

impl Work for Exponentials<'_> {
    type Output = f32;

    #[inline(always)]
    fn run(self) -> f32 {
        let Self { scores, scale } = self;
        let mut highest = [f32::NEG_INFINITY; 8];
        let (chunks, rest) = scores.as_chunks_mut::<8>();
        for chunk in chunks.iter() {
            highest.iter_mut().zip(chunk).for_each(|(highest, x)| *highest = x.max(*highest));
        }
        let max = highest.iter().chain(rest.iter()).copied().fold(f32::NEG_INFINITY, f32::max);
        let mut sums = [0.0f32; 8];
        for chunk in chunks {
            for (x, sum) in chunk.iter_mut().zip(&mut sums) {
                *x = exp(scale * (*x - max));
                *sum += *x;
            }
        }
        for x in rest.iter_mut() {
            *x = exp(scale * (*x - max));
            sums[0] += *x;
        }
        sums.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials_sum_to_what_is_returned_and_never_overflow() {
        for len in 0..40 {
            let scores: Vec<f32> = (0..len).map(|i| (i as f32 * 1.3).cos() * 500.0).collect();
            let mut got = scores.clone();
            let sum = exponentials(&mut got, 0.25);
            let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let exact: Vec<f64> = scores.iter().map(|s| (0.25 * f64::from(s - max)).exp()).collect();
            assert!((f64::from(sum) - exact.iter().sum::<f64>()).abs() < 1e-5);
            assert!(got.iter().zip(&exact).all(|(&g, e)| (f64::from(g) - e).abs() < 1e-6));
        }
    }
}
