//! The softmax of one row of attention scores.

use super::activation::exp;

/// `scores[i] <- exp(scale * (scores[i] - max))`, returns the sum of the new values.
///
/// The division is left to the caller, who makes it once per output channel instead of once per key.
/// An empty row gives 0.
pub fn exponentials(scores: &mut [f32], scale: f32) -> f32 {
    let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sums = [0.0f32; 8];
    let (chunks, rest) = scores.as_chunks_mut::<8>();
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
