//! Token ids -> rows of a table.

use super::{Operation, only};
use crate::engine::threads::Threads;
use crate::engine::weights::Table;

/// A lookup by token id. Ids outside of the table read its last row: the tokenizer that fits the model makes
/// none, and nothing else is read.
#[derive(Debug)]
pub struct Embedding(pub Table);

impl Operation for Embedding {
    fn name(&self) -> &'static str {
        "Embedding"
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        Ok([only(inputs)?, &[self.0.width()]].concat())
    }

    fn run(&self, _: &[&[usize]], inputs: &[&[f32]], output: &mut [f32], _: &Threads) {
        for (&id, out) in inputs[0].iter().zip(output.chunks_exact_mut(self.0.width())) {
            self.0.row((id as usize).min(self.0.rows() - 1), out);
        }
    }
}
