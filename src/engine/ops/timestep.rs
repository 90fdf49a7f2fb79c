//! The sinusoidal embedding of a timestep, or of a picture's sizes.

use super::{Operation, only};
use crate::engine::threads::Threads;
use crate::engine::weights::Vector;
use crate::kernels::elementary::sin_cos;

/// Cosines and sines of timestep times frequency.
#[derive(Debug)]
pub struct TimestepEmbedding {
    /// The frequencies.
    pub frequencies: Vector,
    /// Whether the cosines come first.
    pub cosine_first: bool,
}

impl Operation for TimestepEmbedding {
    fn name(&self) -> &'static str {
        "TimestepEmbedding"
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let (batch, each) = match *only(inputs)? {
            [] => (1, 1),
            [batch, ref each @ ..] => (batch, each.iter().product::<usize>()),
        };
        Ok(vec![batch, each * 2 * self.frequencies.values().len()])
    }

    fn run(&self, _: &[&[usize]], inputs: &[&[f32]], output: &mut [f32], _: &Threads) {
        let frequencies = self.frequencies.values();
        let half = frequencies.len();
        for (&timestep, out) in inputs[0].iter().zip(output.chunks_exact_mut(2 * half)) {
            let (first, second) = out.split_at_mut(half);
            let (cosines, sines) = if self.cosine_first { (first, second) } else { (second, first) };
            for ((&frequency, cosine), sine) in frequencies.iter().zip(cosines).zip(sines) {
                let (exact_sine, exact_cosine) = sin_cos(f64::from(timestep * frequency));
                (*sine, *cosine) = (exact_sine as f32, exact_cosine as f32);
            }
        }
    }
}
