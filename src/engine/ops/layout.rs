//! Operations that only move: into our order and out of it, side by side, a part.

use super::{Operation, map_of, only, rows_of};
use crate::engine::threads::Threads;

/// `[n, c, h, w]` -> `[n, h, w, c]`.
#[derive(Debug)]
pub struct ChannelsLast;

/// `[n, h, w, c]` -> `[n, c, h, w]`.
#[derive(Debug)]
pub struct ChannelsFirst;

/// The channels of several values, one behind the other.
#[derive(Debug)]
pub struct Concat;

/// A range of the channels.
#[derive(Debug)]
pub struct Slice {
    /// The first channel.
    pub start: usize,
    /// How many.
    pub len: usize,
}

impl Operation for ChannelsLast {
    fn name(&self) -> &'static str {
        "ChannelsLast"
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let [n, c, h, w] = map_of(only(inputs)?)?;
        Ok(vec![n, h, w, c])
    }

    fn run(&self, shapes: &[&[usize]], inputs: &[&[f32]], output: &mut [f32], _: &Threads) {
        let [n, c, h, w] = map_of(shapes[0]).expect("the shape was checked");
        turn(n, c, h * w, inputs[0], output);
    }
}

impl Operation for ChannelsFirst {
    fn name(&self) -> &'static str {
        "ChannelsFirst"
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let [n, h, w, c] = map_of(only(inputs)?)?;
        Ok(vec![n, c, h, w])
    }

    fn run(&self, shapes: &[&[usize]], inputs: &[&[f32]], output: &mut [f32], _: &Threads) {
        let [n, h, w, c] = map_of(shapes[0]).expect("the shape was checked");
        turn(n, h * w, c, inputs[0], output);
    }
}

/// `[n, rows, columns]` -> `[n, columns, rows]`.
fn turn(n: usize, rows: usize, columns: usize, input: &[f32], output: &mut [f32]) {
    let len = rows * columns;
    for (input, output) in input.chunks_exact(len).zip(output.chunks_exact_mut(len)).take(n) {
        for (r, row) in input.chunks_exact(columns).enumerate() {
            for (c, &x) in row.iter().enumerate() {
                output[c * rows + r] = x;
            }
        }
    }
}

impl Operation for Concat {
    fn name(&self) -> &'static str {
        "Concat"
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let Some((first, others)) = inputs.split_first() else { return Err("it takes inputs".into()) };
        rows_of(first)?;
        let outer = &first[..first.len() - 1];
        if others.iter().any(|other| other.len() != first.len() || !other.starts_with(outer)) {
            return Err(format!("{inputs:?} cannot stand side by side"));
        }
        let channels = inputs.iter().map(|shape| shape[shape.len() - 1]).sum();
        Ok([outer, &[channels]].concat())
    }

    fn run(&self, shapes: &[&[usize]], inputs: &[&[f32]], output: &mut [f32], _: &Threads) {
        let widths = shapes.iter().map(|shape| shape[shape.len() - 1]);
        let total: usize = widths.clone().sum();
        let mut start = 0;
        for (width, input) in widths.zip(inputs) {
            for (row, out) in input.chunks_exact(width).zip(output.chunks_exact_mut(total)) {
                out[start..start + width].copy_from_slice(row);
            }
            start += width;
        }
    }
}

impl Operation for Slice {
    fn name(&self) -> &'static str {
        "Slice"
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let input = only(inputs)?;
        let (_, channels) = rows_of(input)?;
        if self.len == 0 || self.start.checked_add(self.len).is_none_or(|end| end > channels) {
            return Err(format!("{} channels from {} on do not exist in {channels}", self.len, self.start));
        }
        Ok([&input[..input.len() - 1], &[self.len]].concat())
    }

    fn run(&self, shapes: &[&[usize]], inputs: &[&[f32]], output: &mut [f32], _: &Threads) {
        let (_, channels) = rows_of(shapes[0]).expect("the shape was checked");
        for (row, out) in inputs[0].chunks_exact(channels).zip(output.chunks_exact_mut(self.len)) {
            out.copy_from_slice(&row[self.start..self.start + self.len]);
        }
    }
}
