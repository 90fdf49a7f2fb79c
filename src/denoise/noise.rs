//! Noise, as torch's CPU generator makes it, so that a seed means the same picture as in diffusers.
//!
//! `torch.randn` has two ways to turn the words of a Mersenne twister into f32 normals, both Box-Muller:
//!
//! ```text
//! 16 values or more       every value first gets a uniform of 24 bits; then each block of 16, for j in 0..8:
//!                             r = sqrt(-2 ln(1 - d[j]))     theta = 2 pi d[j + 8]     all rounded to f32
//!                             d[j] = r cos theta            d[j + 8] = r sin theta
//!                         if the last block is short, the last 16 values are drawn anew and overlap it
//! fewer than 16           one at a time, in f64, from uniforms u, v of 53 bits:
//!                             r cos(2 pi u), r = sqrt(-2 ln(1 - v)); r sin(2 pi u) waits for the next such draw
//! ```
//!
//! The waiting value outlives calls of the first kind.
//!
//! The uniforms are exact. From there torch itself takes two roads: its AVX2 path multiplies by another 2 pi than
//! its portable path, so that the angles differ by up to one f32 step, 4.8e-7, and the normals by up to 6 times as
//! much. Here the angle is the mean of the two, and logarithm, sine and cosine are those of `elementary`. So a
//! value is within 2e-6 of either path (in 48 million values the largest difference was 1.3e-6), and has the same
//! bits on every machine.
//!
//! Source: torch 2.15, `DistributionsHelper.h`, `TransformationHelper.h` and `normal_fill` of
//! `DistributionTemplates.h`.

use std::f64::consts::TAU;

use super::mt19937::Mt19937;
use crate::kernels::elementary::{ln, sin_cos};

/// Values that Box-Muller makes together.
const BLOCK: usize = 16;

/// `torch.Generator("cpu")`, as far as `randn` in float32 goes.
#[derive(Debug, Clone)]
pub struct TorchGenerator {
    words: Mt19937,
    /// The second normal of the last pair that was drawn one at a time.
    waiting: Option<f64>,
}

impl TorchGenerator {
    /// The generator after `manual_seed(seed)`. Like torch's, it depends on the low 32 bits of `seed` alone.
    pub fn new(seed: u64) -> Self {
        Self { words: Mt19937::new(seed), waiting: None }
    }

    /// Fills `out` with what `torch.randn(out.len(), generator=self)` would return.
    ///
    /// Successive calls follow each other as in torch: the same values drawn in one call or in two differ.
    pub fn fill_normal(&mut self, out: &mut [f32]) {
        if out.len() < BLOCK {
            out.fill_with(|| self.next_normal() as f32);
            return;
        }
        self.fill_uniform(out);
        out.chunks_exact_mut(BLOCK).for_each(box_muller);
        if !out.len().is_multiple_of(BLOCK) {
            let last = out.len() - BLOCK;
            self.fill_uniform(&mut out[last..]);
            box_muller(&mut out[last..]);
        }
    }

    /// Uniforms of 24 bits in `[0, 1)`.
    fn fill_uniform(&mut self, out: &mut [f32]) {
        const BITS: u32 = f32::MANTISSA_DIGITS;
        const MASK: u32 = (1 << BITS) - 1;
        out.fill_with(|| (self.words.next_u32() & MASK) as f32 / (1u32 << BITS) as f32);
    }

    /// A uniform of 53 bits in `[0, 1)`.
    fn next_uniform(&mut self) -> f64 {
        const BITS: u32 = f64::MANTISSA_DIGITS;
        const MASK: u64 = (1 << BITS) - 1;
        (self.words.next_u64() & MASK) as f64 / (1u64 << BITS) as f64
    }

    /// One normal in f64, the waiting one if there is one.
    fn next_normal(&mut self) -> f64 {
        if let Some(normal) = self.waiting.take() {
            return normal;
        }
        let (u, v) = (self.next_uniform(), self.next_uniform());
        let radius = (-2.0 * ln(1.0 - v)).sqrt();
        let (sin, cos) = sin_cos(TAU * u);
        self.waiting = Some(radius * sin);
        radius * cos
    }
}

/// Turns 16 uniforms into 16 normals, in place.
fn box_muller(block: &mut [f32]) {
    let (first, second) = block.split_at_mut(BLOCK / 2);
    for (a, b) in first.iter_mut().zip(second) {
        let radius = (-2.0 * ln(f64::from(1.0 - *a)) as f32).sqrt();
        let (sin, cos) = sin_cos(angle(*b));
        *a = radius * cos as f32;
        *b = radius * sin as f32;
    }
}

/// The mean of the angles that torch's two paths compute for a uniform.
fn angle(uniform: f32) -> f64 {
    let portable = (TAU * f64::from(uniform)) as f32;
    let avx2 = TAU as f32 * uniform;
    (f64::from(portable) + f64::from(avx2)) / 2.0
}
