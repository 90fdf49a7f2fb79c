//! Group and layer normalisation, channels last.

use super::activation::silu;
use super::level::{Level, Work};

/// Adds the sum and the sum of squares of each channel of `pixels`, `[n, channels]`, to `sums`.
///
/// `f32` within a run of 64 pixels, `f64` across runs, so that a map of any size keeps f32 accuracy.
///
/// # Panics
/// If `pixels` is not a whole number of pixels.
pub fn channel_sums(level: Level, pixels: &[f32], sums: &mut [[f64; 2]]) {
    let channels = sums.len();
    assert!(pixels.len().is_multiple_of(channels), "a pixel is cut");
    let mut run = vec![0.0f32; 2 * channels];
    for pixels in pixels.chunks(64 * channels) {
        run.fill(0.0);
        let (sum, square) = run.split_at_mut(channels);
        level.run(AddSums { pixels, sum, square });
        for ((total, &sum), &square) in sums.iter_mut().zip(sum.iter()).zip(square.iter()) {
            total[0] += f64::from(sum);
            total[1] += f64::from(square);
        }
    }
}

struct AddSums<'a> {
    pixels: &'a [f32],
    sum: &'a mut [f32],
    square: &'a mut [f32],
}

impl Work for AddSums<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for pixel in self.pixels.chunks_exact(self.sum.len()) {
            for ((&x, sum), square) in pixel.iter().zip(self.sum.iter_mut()).zip(self.square.iter_mut()) {
                *sum += x;
                *square += x * x;
            }
        }
    }
}

/// The affine form of a group normalisation: what each channel is multiplied by and what is added then.
///
/// `sums`: per channel, over all pixels; `pixels` of them. `weight`, `bias`: per channel.
///
/// # Panics
/// If `groups` does not divide the channels.
///
/// Source: Wu and He 2018, eq. 1-3, arXiv:1803.08494.
pub fn group_affine(
    sums: &[[f64; 2]],
    pixels: usize,
    groups: usize,
    epsilon: f32,
    weight: &[f32],
    bias: &[f32],
) -> (Vec<f32>, Vec<f32>) {
    let channels = sums.len();
    assert!(channels.is_multiple_of(groups), "{groups} groups do not divide {channels} channels");
    let width = channels / groups;
    let (mut scale, mut shift) = (vec![0.0; channels], vec![0.0; channels]);
    for (g, group) in sums.chunks_exact(width).enumerate() {
        let count = (pixels * width) as f64;
        let mean = group.iter().map(|s| s[0]).sum::<f64>() / count;
        let variance = (group.iter().map(|s| s[1]).sum::<f64>() / count - mean * mean).max(0.0);
        let inverse = 1.0 / (variance + f64::from(epsilon)).sqrt();
        for c in g * width..(g + 1) * width {
            scale[c] = (f64::from(weight[c]) * inverse) as f32;
            shift[c] = (f64::from(bias[c]) - mean * f64::from(weight[c]) * inverse) as f32;
        }
    }
    (scale, shift)
}

/// `out = x * scale + shift` per channel, through SiLU if asked; `x` and `out`: `[n, channels]`.
///
/// # Panics
/// If the lengths differ.
pub fn apply_affine(
    level: Level,
    x: &[f32],
    scale: &[f32],
    shift: &[f32],
    through_silu: bool,
    out: &mut [f32],
) {
    assert_eq!(x.len(), out.len());
    level.run(Apply { x, scale, shift, through_silu, out });
}

struct Apply<'a> {
    x: &'a [f32],
    scale: &'a [f32],
    shift: &'a [f32],
    through_silu: bool,
    out: &'a mut [f32],
}

impl Work for Apply<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        if self.through_silu { self.each(silu) } else { self.each(same) }
    }
}

impl Apply<'_> {
    #[inline(always)]
    fn each(self, then: impl Fn(f32) -> f32) {
        let channels = self.scale.len();
        for (x, out) in self.x.chunks_exact(channels).zip(self.out.chunks_exact_mut(channels)) {
            for (((&x, out), &scale), &shift) in x.iter().zip(out).zip(self.scale).zip(self.shift) {
                *out = then(x * scale + shift);
            }
        }
    }
}

#[inline(always)]
fn same(x: f32) -> f32 {
    x
}

/// Layer normalisation of one row, over all its channels.
///
/// # Panics
/// If the lengths differ.
///
/// Source: Ba et al. 2016, arXiv:1607.06450.
pub fn layer(level: Level, x: &[f32], epsilon: f32, weight: &[f32], bias: &[f32], out: &mut [f32]) {
    assert_eq!(x.len(), out.len());
    let count = x.len() as f64;
    let mean = x.iter().map(|&v| f64::from(v)).sum::<f64>() / count;
    let variance = x.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / count;
    let inverse = (1.0 / (variance + f64::from(epsilon)).sqrt()) as f32;
    level.run(Centre { x, mean: mean as f32, inverse, weight, bias, out });
}

struct Centre<'a> {
    x: &'a [f32],
    mean: f32,
    inverse: f32,
    weight: &'a [f32],
    bias: &'a [f32],
    out: &'a mut [f32],
}

impl Work for Centre<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for (((&x, out), &weight), &bias) in self.x.iter().zip(self.out).zip(self.weight).zip(self.bias) {
            *out = (x - self.mean) * self.inverse * weight + bias;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(len: usize) -> Vec<f32> {
        (0..len).map(|i| (i as f32 * 0.7).sin() * 3.0 + 100.0).collect()
    }

    #[test]
    fn groups_get_mean_zero_and_variance_one() {
        let (channels, groups, pixels) = (12, 3, 150);
        let x = wave(channels * pixels);
        let mut sums = vec![[0.0; 2]; channels];
        channel_sums(Level::detect(), &x, &mut sums);
        let weight: Vec<f32> = (0..channels).map(|c| 1.0 + c as f32).collect();
        let bias: Vec<f32> = (0..channels).map(|c| c as f32 - 3.0).collect();
        let (scale, shift) = group_affine(&sums, pixels, groups, 1e-5, &weight, &bias);
        let mut out = vec![0.0; x.len()];
        apply_affine(Level::detect(), &x, &scale, &shift, false, &mut out);
        for g in 0..groups {
            let members = |c: usize| c / (channels / groups) == g;
            let mean_of = |f: &dyn Fn(f64) -> f64| {
                let values = (0..x.len()).filter(|&i| members(i % channels)).map(|i| {
                    let c = i % channels;
                    f((f64::from(out[i]) - f64::from(bias[c])) / f64::from(weight[c]))
                });
                values.sum::<f64>() / (pixels * channels / groups) as f64
            };
            assert!(mean_of(&|v| v).abs() < 1e-4, "group {g}: {}", mean_of(&|v| v));
            assert!((mean_of(&|v| v * v) - 1.0).abs() < 1e-4);
        }
        let mut through = vec![0.0; x.len()];
        apply_affine(Level::detect(), &x, &scale, &shift, true, &mut through);
        assert!(out.iter().zip(&through).all(|(&y, &z)| silu(y) == z));
    }

    #[test]
    fn every_level_gives_the_same_bits() {
        for level in Level::available() {
            for (channels, pixels) in (1..70).flat_map(|channels| [(channels, 1), (channels, 130)]) {
                let x = wave(channels * pixels);
                let run = |level| {
                    let mut sums = vec![[0.0; 2]; channels];
                    channel_sums(level, &x, &mut sums);
                    let [mut plain, mut through, mut row] = [(); 3].map(|()| vec![0.0; x.len()]);
                    let (scale, shift) = (wave(channels), wave(channels));
                    apply_affine(level, &x, &scale, &shift, false, &mut plain);
                    apply_affine(level, &x, &scale, &shift, true, &mut through);
                    layer(level, &x, 1e-5, &x, &plain, &mut row);
                    (sums, plain, through, row)
                };
                assert_eq!(run(level), run(Level::Scalar), "{level:?}, {channels} channels");
            }
        }
    }

    #[test]
    fn a_constant_map_becomes_the_bias() {
        let mut sums = vec![[0.0; 2]; 4];
        channel_sums(Level::detect(), &[7.0; 4 * 100], &mut sums);
        let (scale, shift) = group_affine(&sums, 100, 2, 1e-5, &[2.0; 4], &[0.5; 4]);
        let mut out = [0.0; 4];
        apply_affine(Level::detect(), &[7.0; 4], &scale, &shift, false, &mut out);
        assert!(out.iter().all(|y| (y - 0.5).abs() < 1e-3), "{out:?}");
    }

    #[test]
    fn a_row_gets_mean_zero_and_variance_one() {
        let x = wave(77);
        let mut out = vec![0.0; 77];
        layer(Level::detect(), &x, 1e-5, &[1.0; 77], &[0.0; 77], &mut out);
        let mean = out.iter().map(|&v| f64::from(v)).sum::<f64>() / 77.0;
        let square = out.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / 77.0;
        assert!(mean.abs() < 1e-4 && (square - 1.0).abs() < 1e-4, "{mean} {square}");
    }
}
