//! Half the height and width, each pixel the mean of four.

use super::{Operation, map_of, only};
use crate::engine::threads::Threads;

/// Halves a map; an odd last row or column is left out, as torch's `avg_pool2d` does.
#[derive(Debug)]
pub struct Downsample;

impl Operation for Downsample {
    fn name(&self) -> &'static str {
        "Downsample"
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let [n, h, w, c] = map_of(only(inputs)?)?;
        if h.min(w) < 2 {
            return Err(format!("{h} x {w} pixels cannot be halved"));
        }
        Ok(vec![n, h / 2, w / 2, c])
    }

    fn run(&self, shapes: &[&[usize]], inputs: &[&[f32]], output: &mut [f32], threads: &Threads) {
        let [_, h, w, c] = map_of(shapes[0]).expect("the shape was checked");
        let line_len = w / 2 * c;
        threads.for_each_chunk(output, line_len, |line, out| {
            let (picture, y) = (line / (h / 2), line % (h / 2));
            let upper = &inputs[0][(picture * h + 2 * y) * w * c..][..2 * w * c];
            let (upper, lower) = upper.split_at(w * c);
            let pairs = upper.chunks_exact(2 * c).zip(lower.chunks_exact(2 * c));
            for (out, (upper, lower)) in out.chunks_exact_mut(c).zip(pairs) {
                for (at, out) in out.iter_mut().enumerate() {
                    *out = (upper[at] + upper[at + c] + lower[at] + lower[at + c]) * 0.25;
                }
            }
        });
    }
}
