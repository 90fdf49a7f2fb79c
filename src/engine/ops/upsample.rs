//! Twice the height and width by nearest neighbour, where no convolution takes it over.

use super::{Operation, map_of, only};
use crate::engine::threads::Threads;

/// Doubles a map.
#[derive(Debug)]
pub struct Upsample;

impl Operation for Upsample {
    fn name(&self) -> &'static str {
        "Upsample"
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let [n, h, w, c] = map_of(only(inputs)?)?;
        Ok(vec![n, 2 * h, 2 * w, c])
    }

    fn run(&self, shapes: &[&[usize]], inputs: &[&[f32]], output: &mut [f32], _: &Threads) {
        let [_, _, w, c] = map_of(shapes[0]).expect("the shape was checked");
        let lines = inputs[0].chunks_exact(w * c).zip(output.chunks_exact_mut(4 * w * c));
        for (line, pair) in lines {
            let (upper, lower) = pair.split_at_mut(2 * w * c);
            for (pixel, twice) in line.chunks_exact(c).zip(upper.chunks_exact_mut(2 * c)) {
                twice[..c].copy_from_slice(pixel);
                twice[c..].copy_from_slice(pixel);
            }
            lower.copy_from_slice(upper);
        }
    }
}
