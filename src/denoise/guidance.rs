//! Classifier-free guidance: away from what the negative prompt gives, towards what the prompt gives.
//!
//! The model runs twice, and the difference between the two predictions is exaggerated. A strong exaggeration
//! also raises the contrast of the prediction; rescaling brings its deviation back towards that of the prompt's.
//!
//! A model may also have been distilled to be told the scale; it then runs once.
//!
//! Where noise is very strong or nearly gone, guidance does little; left out there, the model runs once in those steps.
//!
//! Source: Ho and Salimans 2022, eq. 6, arXiv:2207.12598, in the form of diffusers; rescaling: Lin et al. 2023,
//! eq. 15 and 16, arXiv:2305.08891; intervals: Kynkäänniemi et al. 2024, arXiv:2404.07724, there of noise levels.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::kernels::elementary::{exp, ln, sin_cos};

/// Why a guidance parameter was refused.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum GuidanceError {
    /// The guidance scale is not finite or out of range.
    #[error("guidance scale is {got}, expected 0 to {max} (1 or less turns guidance off)", max = GuidanceScale::MAX)]
    Scale {
        /// The value given.
        got: f32,
    },
    /// The interval is not one within 0 to 1.
    #[error(
        "guidance interval is {from}:{to}, expected two shares of the steps, from 0 to 1, the smaller one first"
    )]
    Interval {
        /// Where it was to begin.
        from: f64,
        /// Where it was to end.
        to: f64,
    },
    /// The share of rescaling is not finite or out of range.
    #[error("guidance rescale is {got}, expected 0 (none) to 1 (full)")]
    Rescale {
        /// The value given.
        got: f32,
    },
}

/// How strongly the prompt is followed, 0 to [`MAX`](Self::MAX). Usual values are 5 to 10.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct GuidanceScale(f32);

impl GuidanceScale {
    /// The largest scale. Pictures are destroyed well below it.
    pub const MAX: f32 = 100.0;
    /// No guidance.
    pub const OFF: Self = Self(1.0);

    /// # Errors
    /// [`GuidanceError::Scale`] if `scale` is NaN or not in `0..=MAX`.
    pub fn new(scale: f32) -> Result<Self, GuidanceError> {
        match (0.0..=Self::MAX).contains(&scale) {
            true => Ok(Self(scale)),
            false => Err(GuidanceError::Scale { got: scale }),
        }
    }

    /// The scale.
    pub fn get(self) -> f32 {
        self.0
    }

    /// Whether the model has to run twice: above 1. Otherwise the prompt's prediction is used alone.
    pub fn is_active(self) -> bool {
        self.0 > 1.0
    }
}

/// The part of the steps that has guidance, as shares of them from 0 (noise) to 1 (the picture).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "[f64; 2]", into = "[f64; 2]")]
pub struct GuidanceInterval {
    from: f64,
    to: f64,
}

impl GuidanceInterval {
    /// All steps.
    pub const WHOLE: Self = Self { from: 0.0, to: 1.0 };

    /// # Errors
    /// [`GuidanceError::Interval`] unless `0 <= from <= to <= 1`.
    pub fn new(from: f64, to: f64) -> Result<Self, GuidanceError> {
        match 0.0 <= from && from <= to && to <= 1.0 {
            true => Ok(Self { from, to }),
            false => Err(GuidanceError::Interval { from, to }),
        }
    }

    /// Whether it has all steps.
    pub fn is_whole(&self) -> bool {
        *self == Self::WHOLE
    }

    /// Which of `steps` steps have guidance; each end is rounded to a whole step.
    pub fn of(self, steps: usize) -> Range<usize> {
        let step = |share: f64| (share * steps as f64).round() as usize;
        step(self.from)..step(self.to)
    }

    /// The scale in step `index` of `steps`: this one, or none.
    pub fn scale(self, scale: GuidanceScale, index: usize, steps: usize) -> GuidanceScale {
        if self.of(steps).contains(&index) { scale } else { GuidanceScale::OFF }
    }
}

impl TryFrom<[f64; 2]> for GuidanceInterval {
    type Error = GuidanceError;

    fn try_from([from, to]: [f64; 2]) -> Result<Self, GuidanceError> {
        Self::new(from, to)
    }
}

impl From<GuidanceInterval> for [f64; 2] {
    fn from(interval: GuidanceInterval) -> Self {
        [interval.from, interval.to]
    }
}

impl Default for GuidanceInterval {
    fn default() -> Self {
        Self::WHOLE
    }
}

/// How much of the contrast that guidance adds is taken back, 0 (none) to 1 (all).
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct GuidanceRescale(f32);

impl GuidanceRescale {
    /// # Errors
    /// [`GuidanceError::Rescale`] if `phi` is NaN or not in `0..=1`.
    pub fn new(phi: f32) -> Result<Self, GuidanceError> {
        match (0.0..=1.0).contains(&phi) {
            true => Ok(Self(phi)),
            false => Err(GuidanceError::Rescale { got: phi }),
        }
    }

    /// The share that is taken back.
    pub fn get(self) -> f32 {
        self.0
    }
}

/// `uncond + scale (cond - uncond)`, in place of `uncond`.
///
/// # Panics
/// If the lengths differ.
pub fn combine(uncond: &mut [f32], cond: &[f32], scale: GuidanceScale) {
    assert_eq!(uncond.len(), cond.len(), "the two predictions differ in length");
    uncond.iter_mut().zip(cond).for_each(|(u, c)| *u += scale.0 * (c - *u));
}

/// The scale as a distilled network is told it: sines and cosines of `1000 (scale - 1)` at `width / 2` frequencies from 1
/// down to 1/10000, evenly spaced on a logarithmic scale; a last value is 0 if the width is odd.
///
/// Source: Meng et al. 2023, section 3.1, arXiv:2210.03142; `get_guidance_scale_embedding` of diffusers 0.42.1.
pub fn embedding(scale: GuidanceScale, width: usize) -> Vec<f32> {
    const LOWEST: f64 = 10_000.0;
    let half = width / 2;
    let w = (scale.0 - 1.0) * 1000.0;
    let fall = ln(LOWEST) as f32 / (half.max(2) - 1) as f32;
    let angle = |i: usize| w * exp(f64::from(i as f32 * -fall)) as f32;
    let mut values = vec![0.0; width];
    let (sines, rest) = values.split_at_mut(half);
    for (i, (sine, cosine)) in sines.iter_mut().zip(rest).enumerate() {
        let angle = f64::from(angle(i));
        let (sin, cos) = sin_cos(angle.abs());
        (*sine, *cosine) = ((sin * angle.signum()) as f32, cos as f32);
    }
    values
}

/// Blends `noise_pred`, in place, with itself scaled to the standard deviation of `cond`. Does nothing if the share
/// is 0 or `noise_pred` is constant.
///
/// `noise_pred`: the combined prediction; `cond`: the prompt's own, as long.
///
/// # Panics
/// If the lengths differ.
pub fn rescale(noise_pred: &mut [f32], cond: &[f32], share: GuidanceRescale) {
    assert_eq!(noise_pred.len(), cond.len(), "the two predictions differ in length");
    let (wanted, got) = (standard_deviation(cond), standard_deviation(noise_pred));
    if share.0 == 0.0 || got == 0.0 {
        return;
    }
    let (phi, ratio) = (share.0, (wanted / got) as f32);
    noise_pred.iter_mut().for_each(|x| *x = phi * (*x * ratio) + (1.0 - phi) * *x);
}

/// The population standard deviation: only ratios of it are used, and those do not depend on the divisor.
fn standard_deviation(values: &[f32]) -> f64 {
    let n = values.len() as f64;
    let mean = values.iter().copied().map(f64::from).sum::<f64>() / n;
    let deviations = values.iter().map(|&value| f64::from(value) - mean);
    (deviations.map(|deviation| deviation * deviation).sum::<f64>() / n).sqrt()
}
