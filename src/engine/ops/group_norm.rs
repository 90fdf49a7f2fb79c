//! Group normalisation of a channels-last map, with SiLU behind it if asked.

use super::{Operation, expect_channels, only, rows_of};
use crate::engine::threads::Threads;
use crate::engine::weights::{Vector, Weights};
use crate::kernels::{Level, norm};

/// Pixels whose sums are taken together, by one thread.
const CHUNK_PIXELS: usize = 1024;

/// A group normalisation.
#[derive(Debug)]
pub struct GroupNorm {
    weight: Vector,
    bias: Vector,
    groups: usize,
    epsilon: f32,
    silu: bool,
}

impl GroupNorm {
    /// Over the factors and summands, `[c]` each, of these names.
    ///
    /// # Errors
    /// A sentence, if one is missing or does not fit.
    pub fn new(
        weights: &Weights,
        weight: &str,
        bias: &str,
        groups: usize,
        epsilon: f32,
        silu: bool,
    ) -> Result<Self, String> {
        let (weight, bias) = (weights.vector(weight)?, weights.vector(bias)?);
        let channels = weight.values().len();
        expect_channels("bias", bias.values().len(), channels)?;
        if groups == 0 || !channels.is_multiple_of(groups) {
            return Err(format!("{groups} groups do not divide {channels} channels"));
        }
        Ok(Self { weight, bias, groups, epsilon, silu })
    }

    /// The factor and the summand of each channel, for a picture of `pixels` with these sums.
    pub fn affine(&self, sums: &[[f64; 2]], pixels: usize) -> Affine {
        let (weight, bias) = (self.weight.values(), self.bias.values());
        let (scale, shift) = norm::group_affine(sums, pixels, self.groups, self.epsilon, weight, bias);
        Affine { scale, shift }
    }

    /// Normalises some pixels.
    pub fn apply(&self, affine: &Affine, input: &[f32], output: &mut [f32], threads: &Threads) {
        let chunk_len = CHUNK_PIXELS * affine.scale.len();
        threads.for_each_chunk(output, chunk_len, |at, out| {
            let input = &input[at * chunk_len..][..out.len()];
            norm::apply_affine(Level::detect(), input, &affine.scale, &affine.shift, self.silu, out);
        });
    }
}

/// A group normalisation with the statistics of one picture.
#[derive(Debug)]
pub struct Affine {
    scale: Vec<f32>,
    shift: Vec<f32>,
}

/// The sum and the sum of squares of each of `channels` over some pixels; in fixed chunks, so that threads do not
/// change them.
pub fn channel_sums(pixels: &[f32], channels: usize, threads: &Threads) -> Vec<[f64; 2]> {
    let chunks: Vec<&[f32]> = pixels.chunks(CHUNK_PIXELS * channels).collect();
    let mut parts = vec![[0.0; 2]; chunks.len() * channels];
    threads.for_each_chunk(&mut parts, channels, |at, sums| {
        norm::channel_sums(Level::detect(), chunks[at], sums);
    });
    let mut total = vec![[0.0; 2]; channels];
    for part in parts.chunks_exact(channels) {
        for (total, sum) in total.iter_mut().zip(part) {
            total[0] += sum[0];
            total[1] += sum[1];
        }
    }
    total
}

impl Operation for GroupNorm {
    fn name(&self) -> &'static str {
        "GroupNorm"
    }

    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String> {
        let input = only(inputs)?;
        expect_channels("input", rows_of(input)?.1, self.weight.values().len())?;
        Ok(input.to_vec())
    }

    fn scratch_bytes(&self, inputs: &[&[usize]], _: usize) -> usize {
        let (rows, channels) = rows_of(inputs[0]).unwrap_or((0, 0));
        (rows / inputs[0][0]).div_ceil(CHUNK_PIXELS) * channels * size_of::<[f64; 2]>()
    }

    fn run(&self, shapes: &[&[usize]], inputs: &[&[f32]], output: &mut [f32], threads: &Threads) {
        let channels = self.weight.values().len();
        let len = output.len() / shapes[0][0];
        for (picture, out) in inputs[0].chunks_exact(len).zip(output.chunks_exact_mut(len)) {
            let affine = self.affine(&channel_sums(picture, channels, threads), len / channels);
            self.apply(&affine, picture, out, threads);
        }
    }
}
