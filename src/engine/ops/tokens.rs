//! Operations on whole tokens of a sequence.

use super::{Operation, expect_channels, only, rows_of};
use crate::engine::graph::TokenRule;
use crate::engine::threads::Threads;
use crate::engine::weights::Vector;

/// Adds a weight `[t, c]` to every sequence.
#[derive(Debug)]
pub struct AddPositions(pub Vector);

/// Puts a weight `[c]` before the pixels of a map.
#[derive(Debug)]
pub struct PrependToken(pub Vector);

/// One token of every sequence.
#[derive(Debug)]
pub struct PickToken(pub TokenRule);

impl Operation for AddPositions {
    fn name(&self) -> &'static str {
        "AddPositions"
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let input = only(inputs)?;
        let per_sequence: usize = input.iter().skip(1).product();
        if per_sequence != self.0.values().len() {
            return Err(format!("{input:?} has other than {} numbers a sequence", self.0.values().len()));
        }
        Ok(input.to_vec())
    }

    fn run(&self, _: &[&[usize]], inputs: &[&[f32]], output: &mut [f32], _: &Threads) {
        let positions = self.0.values().iter().cycle();
        for ((out, &x), &position) in output.iter_mut().zip(inputs[0]).zip(positions) {
            *out = x + position;
        }
    }
}

impl Operation for PrependToken {
    fn name(&self) -> &'static str {
        "PrependToken"
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let input = only(inputs)?;
        let (rows, channels) = rows_of(input)?;
        expect_channels("token", self.0.values().len(), channels)?;
        match input.first() {
            Some(&batch) if batch > 0 && input.len() > 2 => Ok(vec![batch, 1 + rows / batch, channels]),
            _ => Err(format!("{input:?} is not a map")),
        }
    }

    fn run(&self, shapes: &[&[usize]], inputs: &[&[f32]], output: &mut [f32], _: &Threads) {
        let token = self.0.values();
        let len = inputs[0].len() / shapes[0][0];
        for (map, out) in inputs[0].chunks_exact(len).zip(output.chunks_exact_mut(token.len() + len)) {
            out[..token.len()].copy_from_slice(token);
            out[token.len()..].copy_from_slice(map);
        }
    }
}

impl PickToken {
    fn place(&self, ids: &[f32]) -> usize {
        match self.0 {
            TokenRule::First => 0,
            TokenRule::LargestId => {
                let largest = ids.iter().copied().fold(f32::MIN, f32::max);
                ids.iter().position(|&id| id == largest).unwrap_or(0)
            }
            TokenRule::Id(wanted) => ids.iter().position(|&id| id == wanted as f32).unwrap_or(0),
        }
    }
}

impl Operation for PickToken {
    fn name(&self) -> &'static str {
        "PickToken"
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        match (inputs, self.0) {
            ([[n, t, c]], TokenRule::First) if *t > 0 => Ok(vec![*n, *c]),
            ([[n, t, c], ids], TokenRule::LargestId | TokenRule::Id(_)) if *ids == [*n, *t] => {
                Ok(vec![*n, *c])
            }
            _ => Err(format!("{inputs:?} are not sequences and their ids")),
        }
    }

    fn run(&self, shapes: &[&[usize]], inputs: &[&[f32]], output: &mut [f32], _: &Threads) {
        let &[_, tokens, channels] = shapes[0] else { unreachable!("the shape was checked") };
        let sequences = inputs[0].chunks_exact(tokens * channels).zip(output.chunks_exact_mut(channels));
        for (n, (sequence, out)) in sequences.enumerate() {
            let ids = inputs.get(1).map_or(&[][..], |ids| &ids[n * tokens..(n + 1) * tokens]);
            out.copy_from_slice(&sequence[self.place(ids) * channels..][..channels]);
        }
    }
}
