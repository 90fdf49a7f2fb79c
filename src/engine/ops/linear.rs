//! A linear layer, `x W^T + b` over the last axis, and what is done with its outputs.

use super::product::Product;
use super::{Operation, only, rows_of};
use crate::engine::graph::Then;
use crate::engine::threads::Threads;
use crate::engine::weights::{Matrix, Vector, Weights};

/// A linear layer.
#[derive(Debug)]
pub struct Linear(Product);

impl Linear {
    /// Over the weight `[o, k]` and the bias `[o]` of these names, and what is done with the outputs.
    ///
    /// # Errors
    /// A sentence, if one is missing or does not fit.
    pub fn new(
        weights: &Weights,
        weight: &str,
        bias: Option<&str>,
        then: Option<Then>,
    ) -> Result<Self, String> {
        let bias = bias.map(|name| weights.vector(name)).transpose()?;
        Ok(Self(Product::new(weights.matrix(weight)?, bias, 1)?.then(then)))
    }

    /// Over these weights.
    ///
    /// # Errors
    /// A sentence, if they do not fit.
    pub fn over(weight: Matrix, bias: Option<Vector>) -> Result<Self, String> {
        Ok(Self(Product::new(weight, bias, 1)?))
    }

    /// Inputs of each output channel: multiplications for one number of the output.
    pub fn inputs(&self) -> usize {
        self.0.channels()
    }
}

impl Operation for Linear {
    fn name(&self) -> &'static str {
        "Linear"
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let input = only(inputs)?;
        super::expect_channels("input", rows_of(input)?.1, self.0.channels())?;
        Ok([&input[..input.len() - 1], &[self.0.outputs()]].concat())
    }

    fn scratch_bytes(&self, inputs: &[&[usize]], threads: usize) -> usize {
        rows_of(inputs[0]).map_or(0, |(rows, _)| self.0.scratch_bytes(rows, threads))
    }

    fn run(&self, _: &[&[usize]], inputs: &[&[f32]], output: &mut [f32], threads: &Threads) {
        let channels = self.0.channels();
        self.0.run(output, threads, |row, _| &inputs[0][row * channels..(row + 1) * channels]);
    }
}
