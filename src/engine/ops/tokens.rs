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

/// The tokens of several sequences one behind the other, and a weight `[c]` behind them.
#[derive(Debug)]
pub struct ConcatTokens(pub Option<Vector>);

/// Rows cut into so many tokens.
#[derive(Debug)]
pub struct SplitTokens(pub usize);

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

impl ConcatTokens {
    fn last(&self) -> &[f32] {
        self.0.as_ref().map_or(&[], Vector::values)
    }
}

impl Operation for ConcatTokens {
    fn name(&self) -> &'static str {
        "ConcatTokens"
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let apart = || format!("{inputs:?} cannot stand one behind the other");
        let batch = inputs.iter().filter_map(|input| input.first()).max().copied().ok_or_else(apart)?;
        let channels = inputs.iter().filter_map(|input| input.last()).max().copied().ok_or_else(apart)?;
        let mut tokens = 0;
        for input in inputs {
            let (n, count, c) = match **input {
                [n, c] => (n, 1, c),
                [n, t, c] => (n, t, c),
                _ => return Err(apart()),
            };
            if c != channels || ![1, batch].contains(&n) {
                return Err(apart());
            }
            tokens += count;
        }
        if self.0.is_some() {
            expect_channels("last token", self.last().len(), channels)?;
            tokens += 1;
        }
        Ok(vec![batch, tokens, channels])
    }

    fn run(&self, shapes: &[&[usize]], inputs: &[&[f32]], output: &mut [f32], _: &Threads) {
        let batch = shapes.iter().map(|shape| shape[0]).max().unwrap_or(1);
        let per_sequence = output.len() / batch;
        for (n, out) in output.chunks_exact_mut(per_sequence).enumerate() {
            let parts = inputs.iter().zip(shapes).map(|(input, shape)| {
                let len = input.len() / shape[0];
                &input[n % shape[0] * len..][..len]
            });
            let mut rest = out;
            for part in parts.chain([self.last()]) {
                let (first, others) = rest.split_at_mut(part.len());
                first.copy_from_slice(part);
                rest = others;
            }
        }
    }
}

impl Operation for SplitTokens {
    fn name(&self) -> &'static str {
        "SplitTokens"
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        match only(inputs)? {
            &[n, all] if self.0 > 0 && all.is_multiple_of(self.0) => Ok(vec![n, self.0, all / self.0]),
            other => Err(format!("{other:?} cannot be cut into {} tokens", self.0)),
        }
    }

    fn run(&self, _: &[&[usize]], inputs: &[&[f32]], output: &mut [f32], _: &Threads) {
        output.copy_from_slice(inputs[0]);
    }
}

impl PickToken {
    fn place(&self, ids: &[f32], tokens: usize) -> usize {
        match self.0 {
            TokenRule::First => 0,
            TokenRule::Last => tokens - 1,
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
            ([[n, t, c]], TokenRule::First | TokenRule::Last) if *t > 0 => Ok(vec![*n, *c]),
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
            out.copy_from_slice(&sequence[self.place(ids, tokens) * channels..][..channels]);
        }
    }
}
