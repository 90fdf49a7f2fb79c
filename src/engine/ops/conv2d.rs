//! Convolution of a channels-last map, without gathering columns: each tap reads the map where it lies.

use std::ops::Range;

use super::product::Product;
use super::winograd::Winograd;
use super::{Operation, map_of, only};
use crate::engine::threads::Threads;
use crate::engine::weights::{Matrix, Vector, Weights};
use crate::kernels::winograd;

/// A convolution; the map may be doubled in height and width on the way in.
#[derive(Debug)]
pub struct Conv2d {
    product: Product,
    kernel: [usize; 2],
    stride: [usize; 2],
    /// Top, left, bottom, right.
    pads: [usize; 4],
    /// The base-2 logarithm of the upsampling: 0 or 1.
    doubling: usize,
    /// What a tap outside of the map reads.
    zeros: Vec<f32>,
}

impl Conv2d {
    /// Over the weight `[o, kh, kw, c]` and the bias `[o]` of these names.
    ///
    /// # Errors
    /// A sentence, if one is missing or does not fit, or a stride is 0.
    pub fn new(
        weights: &Weights,
        weight: &str,
        bias: Option<&str>,
        stride: [usize; 2],
        pads: [usize; 4],
        upsample: bool,
    ) -> Result<Self, String> {
        let bias = bias.map(|name| weights.vector(name)).transpose()?;
        Self::over((weight, weights.matrix(weight)?), bias, stride, pads, upsample)
    }

    /// Over these weights; the first with its name, for messages.
    ///
    /// # Errors
    /// A sentence, if one does not fit, or a stride is 0.
    pub fn over(
        (weight, matrix): (&str, Matrix),
        bias: Option<Vector>,
        stride: [usize; 2],
        pads: [usize; 4],
        upsample: bool,
    ) -> Result<Self, String> {
        let &[_, height, width, channels] = matrix.shape() else {
            return Err(format!("weight `{weight}` has shape {:?}, not [o, kh, kw, c]", matrix.shape()));
        };
        if stride.contains(&0) {
            return Err("a stride is 0".into());
        }
        let product = Product::new(matrix, bias, height * width)?;
        let zeros = vec![0.0; channels];
        Ok(Self { product, kernel: [height, width], stride, pads, doubling: usize::from(upsample), zeros })
    }

    /// The output's height (`axis` 0) or width (1) for that of the input.
    fn output_len(&self, axis: usize, input: usize) -> Result<usize, String> {
        let padded = (input << self.doubling) + self.pads[axis] + self.pads[axis + 2];
        let room = padded.checked_sub(self.kernel[axis]).ok_or("the map is smaller than the kernel")?;
        Ok(room / self.stride[axis] + 1)
    }

    /// Multiplications for an output of `[pictures, height, width]`.
    pub fn macs(&self, output: [usize; 3]) -> usize {
        let each = match self.winograd(output) {
            Some(winograd) => winograd.macs_per_channel(),
            None => output.iter().product::<usize>() * self.kernel[0] * self.kernel[1],
        };
        each * self.product.channels() * self.product.outputs()
    }

    /// What a run allocates for an output of `[pictures, height, width]`.
    pub fn scratch_bytes_of(&self, output: [usize; 3], threads: usize) -> usize {
        match self.winograd(output) {
            Some(winograd) => winograd.scratch_bytes(threads),
            None => self.product.scratch_bytes(output.iter().product(), threads),
        }
    }

    /// The input rows that output rows `rows` are made of, of a map of `height` rows.
    pub fn rows_read(&self, rows: &Range<usize>, height: usize) -> Range<usize> {
        let first = (rows.start * self.stride[0]).saturating_sub(self.pads[0]) >> self.doubling;
        let last = (rows.end - 1) * self.stride[0] + self.kernel[0] - 1;
        let end = (last.saturating_sub(self.pads[0]) >> self.doubling) + 1;
        first.min(height)..end.min(height)
    }

    /// Computes some output rows of a batch of maps that are `shape`, from the input rows that are there.
    ///
    /// `input` starts with row `from` of each map and `output` with row `to`; of a batch of several maps, all
    /// rows have to be there.
    pub fn run_rows(
        &self,
        shape: [usize; 4],
        (from, input): (usize, &[f32]),
        (to, output): (usize, &mut [f32]),
        threads: &Threads,
    ) {
        let [n, h, w, c] = shape;
        let across = self.output_len(1, w).expect("the shape was checked");
        let (there, down) = (input.len() / (n * w * c), output.len() / (n * across * self.product.outputs()));
        let pixel = |picture: usize, y: Option<usize>, x: Option<usize>| {
            let y = y.and_then(|y| y.checked_sub(from)).filter(|&y| y < there);
            y.zip(x).map_or(&self.zeros[..], |(y, x)| &input[((picture * there + y) * w + x) * c..][..c])
        };
        if let Some(winograd) = self.winograd([n, down, across]) {
            return winograd.run(output, threads, |picture, y, x| {
                pixel(picture, self.source(0, to + y, 0, h), self.source(1, x, 0, w))
            });
        }
        self.product.run(output, threads, |row, tap| {
            let (picture, y, x) = (row / (down * across), row / across % down, row % across);
            let [y_tap, x_tap] = [tap / self.kernel[1], tap % self.kernel[1]];
            pixel(picture, self.source(0, to + y, y_tap, h), self.source(1, x, x_tap, w))
        });
    }

    /// The faster way, where there is one.
    fn winograd(&self, [pictures, down, across]: [usize; 3]) -> Option<Winograd<'_>> {
        let is_empty = pictures * down * across == 0;
        let fits = !is_empty && self.kernel == [winograd::TAPS; 2] && self.stride == [1; 2];
        let winograd = Winograd { product: &self.product, pictures, down, across };
        (fits && winograd.pays()).then_some(winograd)
    }

    /// Where a tap reads for an output place; `None` outside of the map, which is `input` long.
    fn source(&self, axis: usize, output: usize, tap: usize, input: usize) -> Option<usize> {
        let at = (output * self.stride[axis] + tap).checked_sub(self.pads[axis])? >> self.doubling;
        (at < input).then_some(at)
    }
}

impl Operation for Conv2d {
    fn name(&self) -> &'static str {
        "Conv2d"
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let [n, h, w, c] = map_of(only(inputs)?)?;
        super::expect_channels("input", c, self.product.channels())?;
        Ok(vec![n, self.output_len(0, h)?, self.output_len(1, w)?, self.product.outputs()])
    }

    fn scratch_bytes(&self, inputs: &[&[usize]], threads: usize) -> usize {
        let shape = self.output_shape(inputs);
        shape.map_or(0, |shape| self.scratch_bytes_of([shape[0], shape[1], shape[2]], threads))
    }

    fn run(&self, shapes: &[&[usize]], inputs: &[&[f32]], output: &mut [f32], threads: &Threads) {
        let shape = map_of(shapes[0]).expect("the shape was checked");
        self.run_rows(shape, (0, inputs[0]), (0, output), threads);
    }
}
