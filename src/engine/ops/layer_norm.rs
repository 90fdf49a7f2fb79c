//! Layer normalisation, over the last axis.

use super::{Operation, expect_channels, only, rows_of};
use crate::engine::threads::Threads;
use crate::engine::weights::{Vector, Weights};
use crate::kernels::{Level, norm};

/// The most rows that one thread takes at a time.
const ROWS_AT_ONCE: usize = 64;

/// A layer normalisation.
#[derive(Debug)]
pub struct LayerNorm {
    weight: Vector,
    bias: Vector,
    epsilon: f32,
}

impl LayerNorm {
    /// Over the factors and summands, `[c]` each, of these names.
    ///
    /// # Errors
    /// A sentence, if one is missing or does not fit.
    pub fn new(weights: &Weights, weight: &str, bias: &str, epsilon: f32) -> Result<Self, String> {
        let (weight, bias) = (weights.vector(weight)?, weights.vector(bias)?);
        expect_channels("bias", bias.values().len(), weight.values().len())?;
        Ok(Self { weight, bias, epsilon })
    }
}

impl Operation for LayerNorm {
    fn name(&self) -> &'static str {
        "LayerNorm"
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let input = only(inputs)?;
        expect_channels("input", rows_of(input)?.1, self.weight.values().len())?;
        Ok(input.to_vec())
    }

    fn run(&self, _: &[&[usize]], inputs: &[&[f32]], output: &mut [f32], threads: &Threads) {
        let (weight, bias) = (self.weight.values(), self.bias.values());
        let channels = weight.len();
        let chunk_len = threads.share(output.len() / channels, ROWS_AT_ONCE) * channels;
        threads.for_each_chunk(output, chunk_len, |at, out| {
            let rows = inputs[0][at * chunk_len..].chunks_exact(channels);
            for (row, out) in rows.zip(out.chunks_exact_mut(channels)) {
                norm::layer(Level::detect(), row, self.epsilon, weight, bias, out);
            }
        });
    }
}
