//! Functions and sums of single elements.

use super::{Operation, only};
use crate::engine::threads::Threads;
use crate::kernels::Level;
use crate::kernels::activation::Function;

/// Elements that one thread takes at a time.
const CHUNK: usize = 1 << 15;

/// A function of every element.
#[derive(Debug)]
pub struct Activation(pub Function);

/// Every element times a number.
#[derive(Debug)]
pub struct Scale(pub f32);

/// A number more than every element.
#[derive(Debug)]
pub struct Shift(pub f32);

/// The sum of two values of one shape, or of a map and one vector for all its pixels.
#[derive(Debug)]
pub struct Add;

/// The product of the same.
#[derive(Debug)]
pub struct Multiply;

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
            self.0.apply(Level::detect(), out);
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

    fn run(&self, _: &[&[usize]], inputs: &[&[f32]], output: &mut [f32], threads: &Threads) {
        each(inputs[0], output, threads, |x| x * self.0);
    }
}

impl Operation for Shift {
    fn name(&self) -> &'static str {
        "Shift"
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        only(inputs).map(<[usize]>::to_vec)
    }

    fn run(&self, _: &[&[usize]], inputs: &[&[f32]], output: &mut [f32], threads: &Threads) {
        each(inputs[0], output, threads, |x| x + self.0);
    }
}

impl Operation for Add {
    fn name(&self) -> &'static str {
        "Add"
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        paired_shape(inputs)
    }

    fn run(&self, shapes: &[&[usize]], inputs: &[&[f32]], output: &mut [f32], threads: &Threads) {
        paired(shapes, inputs, output, threads, |a, b| a + b);
    }
}

impl Operation for Multiply {
    fn name(&self) -> &'static str {
        "Multiply"
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        paired_shape(inputs)
    }

    fn run(&self, shapes: &[&[usize]], inputs: &[&[f32]], output: &mut [f32], threads: &Threads) {
        paired(shapes, inputs, output, threads, |a, b| a * b);
    }
}

/// The shape that two values, or a map and a vector, come to.
fn paired_shape(inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
    let [a, b] = *inputs else { return Err("it takes two inputs".into()) };
    let batch = a.first().max(b.first()).copied().unwrap_or(1);
    let counts = [a, b].iter().all(|shape| shape.first().is_none_or(|&n| n == 1 || n == batch));
    let alike = a.len() == b.len() && a.iter().skip(1).eq(b.iter().skip(1));
    let vector = b.len() == 2 && a.last() == b.last();
    if !counts || !(alike || vector) {
        return Err(format!("{a:?} and {b:?} do not go together"));
    }
    Ok(a.first().map(|_| batch).into_iter().chain(a.iter().skip(1).copied()).collect())
}

/// `f` of each element of the first value and its counterpart in the second.
fn paired(
    shapes: &[&[usize]],
    inputs: &[&[f32]],
    output: &mut [f32],
    threads: &Threads,
    f: impl Fn(f32, f32) -> f32 + Copy + Sync + Send,
) {
    let batch = shapes.iter().filter_map(|shape| shape.first()).max().copied().unwrap_or(1);
    let pictures = output.len() / batch;
    let of = |at: usize, n: usize| {
        let count = shapes[at].first().copied().unwrap_or(1);
        inputs[at].chunks_exact(inputs[at].len() / count).nth(n % count).expect("the shapes were checked")
    };
    let zip = |a: &[f32], b: &[f32], out: &mut [f32]| {
        out.iter_mut().zip(a).zip(b).for_each(|((out, &a), &b)| *out = f(a, b));
    };
    for (n, out) in output.chunks_exact_mut(pictures).enumerate() {
        let (a, b) = (of(0, n), of(1, n));
        let is_vector = b.len() < a.len();
        let len = if is_vector { CHUNK.next_multiple_of(b.len()) } else { CHUNK };
        threads.for_each_chunk(out, len, |at, out| {
            let a = &a[at * len..][..out.len()];
            if is_vector {
                let pixels = out.chunks_exact_mut(b.len()).zip(a.chunks_exact(b.len()));
                pixels.for_each(|(out, a)| zip(a, b, out));
            } else {
                zip(a, &b[at * len..][..out.len()], out);
            }
        });
    }
}

fn each(input: &[f32], output: &mut [f32], threads: &Threads, f: impl Fn(f32) -> f32 + Sync + Send) {
    threads.for_each_chunk(output, CHUNK, |at, out| {
        out.iter_mut().zip(&input[at * CHUNK..]).for_each(|(out, &x)| *out = f(x));
    });
}
