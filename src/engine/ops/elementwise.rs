//! Functions and sums of single elements.

use super::{Operation, only, rows_of};
use crate::engine::threads::Threads;
use crate::kernels::activation::Function;

/// Elements that one thread takes at a time.
const CHUNK: usize = 1 << 15;

/// A function of every element.
#[derive(Debug)]
pub struct Activation(pub Function);

/// Every element times a number.
#[derive(Debug)]
pub struct Scale(pub f32);

/// The sum of two values of one shape, or of a map and one vector for all its pixels.
#[derive(Debug)]
pub struct Add;

impl Operation for Activation {
    fn name(&self) -> &'static str {
        "Activation"
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        only(inputs).map(<[usize]>::to_vec)
    }

    fn run(&self, _: &[&[usize]], inputs: &[&[f32]], output: &mut [f32], threads: &Threads) {
        threads.for_each_chunk(output, CHUNK, |at, out| {
            out.copy_from_slice(&inputs[0][at * CHUNK..][..out.len()]);
            self.0.apply(out);
        });
    }
}

impl Operation for Scale {
    fn name(&self) -> &'static str {
        "Scale"
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        only(inputs).map(<[usize]>::to_vec)
    }

    fn run(&self, _: &[&[usize]], inputs: &[&[f32]], output: &mut [f32], _: &Threads) {
        for (out, &x) in output.iter_mut().zip(inputs[0]) {
            *out = x * self.0;
        }
    }
}

impl Operation for Add {
    fn name(&self) -> &'static str {
        "Add"
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let [a, b] = inputs else { return Err("it takes two inputs".into()) };
        let vector = b.len() == 2 && (a.first(), a.last()) == (b.first(), b.last());
        if a != b && !vector {
            return Err(format!("{a:?} and {b:?} cannot be added"));
        }
        Ok(a.to_vec())
    }

    fn run(&self, shapes: &[&[usize]], inputs: &[&[f32]], output: &mut [f32], _: &Threads) {
        let (a, b) = (inputs[0], inputs[1]);
        if a.len() == b.len() {
            add(a, b, output);
            return;
        }
        let (batch, channels) = rows_of(shapes[1]).expect("the shape was checked");
        let len = a.len() / batch;
        let maps = a.chunks_exact(len).zip(output.chunks_exact_mut(len));
        for ((map, out), vector) in maps.zip(b.chunks_exact(channels)) {
            for (pixel, out) in map.chunks_exact(channels).zip(out.chunks_exact_mut(channels)) {
                add(pixel, vector, out);
            }
        }
    }
}

fn add(a: &[f32], b: &[f32], out: &mut [f32]) {
    for ((out, &a), &b) in out.iter_mut().zip(a).zip(b) {
        *out = a + b;
    }
}
