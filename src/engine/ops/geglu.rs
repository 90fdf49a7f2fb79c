//! The gated feed-forward of transformer blocks: one half of the channels times the GELU of the other.

use super::{Operation, only, rows_of};
use crate::engine::threads::Threads;
use crate::kernels::Level;
use crate::kernels::activation::geglu;

/// Output rows that one thread takes at a time.
const ROWS_AT_ONCE: usize = 64;

/// `x[.., ..c] * gelu(x[.., c..])`.
#[derive(Debug)]
pub struct Geglu;

impl Operation for Geglu {
    fn name(&self) -> &'static str {
        "Geglu"
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let input = only(inputs)?;
        let (_, channels) = rows_of(input)?;
        if !channels.is_multiple_of(2) {
            return Err(format!("{channels} channels have no halves"));
        }
        Ok([&input[..input.len() - 1], &[channels / 2]].concat())
    }

    fn run(&self, shapes: &[&[usize]], inputs: &[&[f32]], output: &mut [f32], threads: &Threads) {
        let half = rows_of(shapes[0]).expect("the shape was checked").1 / 2;
        let rows = threads.share(output.len() / half, ROWS_AT_ONCE);
        threads.for_each_chunk(output, rows * half, |at, out| {
            let inputs = inputs[0][at * rows * 2 * half..].chunks_exact(2 * half);
            for (row, out) in inputs.zip(out.chunks_exact_mut(half)) {
                let (value, gate) = row.split_at(half);
                geglu(Level::detect(), value, gate, out);
            }
        });
    }
}
