//! What a model's output says about the picture and the noise in a sample.
//!
//! A sample is `signal original + noise epsilon`, and the output is one of the two, or the velocity
//! `signal epsilon - noise original`. In f32, in diffusers' order of operations.
//!
//! Source: Song et al. 2020, eq. 9, arXiv:2010.02502; velocity: Salimans and Ho 2022, appendix D, arXiv:2202.00512.

use super::config::{Clip, PredictionType, SchedulerConfig};
use super::limit::Limit;

/// How much of a sample is picture and how much is noise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Amplitudes {
    /// The picture's amplitude.
    pub signal: f32,
    /// The noise's amplitude.
    pub noise: f32,
}

impl Amplitudes {
    /// The picture alone.
    pub const PICTURE: Self = Self { signal: 1.0, noise: 0.0 };

    /// Puts noise over a picture.
    pub fn mix(self, picture: f32, noise: f32) -> f32 {
        self.signal * picture + self.noise * noise
    }

    /// Where the picture's share of the variance is `alpha_cumprod`.
    pub(super) fn of(alpha_cumprod: f32) -> Self {
        Self { signal: alpha_cumprod.sqrt(), noise: (1.0 - alpha_cumprod).sqrt() }
    }

    /// The original sample and the noise that the model sees in `x`.
    pub(super) fn predict(self, prediction_type: PredictionType, x: f32, output: f32) -> (f32, f32) {
        let noise = match prediction_type {
            PredictionType::Epsilon => output,
            PredictionType::Sample => self.noise_given(output, x),
            PredictionType::VPrediction => self.signal * output + self.noise * x,
        };
        (self.original(prediction_type, x, output), noise)
    }

    /// The original sample that the model sees in `x`.
    pub(super) fn original(self, prediction_type: PredictionType, x: f32, output: f32) -> f32 {
        match prediction_type {
            PredictionType::Epsilon => (x - self.noise * output) / self.signal,
            PredictionType::Sample => output,
            PredictionType::VPrediction => self.signal * x - self.noise * output,
        }
    }

    /// The noise in `x`, if this is the original sample in it.
    pub(super) fn noise_given(self, original: f32, x: f32) -> f32 {
        (x - self.signal * original) / self.noise
    }
}

/// How a model's output is to be read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    /// What the output stands for.
    pub prediction_type: PredictionType,
    /// How the original sample is kept in range.
    pub clip: Clip,
}

impl Reading {
    /// As the configuration says.
    pub(super) fn new(config: &SchedulerConfig) -> Self {
        Self { prediction_type: config.prediction_type, clip: config.clip }
    }

    /// What the model saw in these latents.
    ///
    /// # Panics
    /// If the lengths differ.
    pub(super) fn of(self, amplitudes: Amplitudes, latents: &[f32], model_output: &[f32]) -> Seen {
        assert_eq!(latents.len(), model_output.len(), "latents and model output differ in length");
        let limit = Limit::new(self.clip, latents.len(), || {
            let original = |(&x, &output)| amplitudes.original(self.prediction_type, x, output).abs();
            latents.iter().zip(model_output).map(original)
        });
        Seen { amplitudes, prediction_type: self.prediction_type, limit }
    }
}

/// What a model saw in a sample, value by value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    amplitudes: Amplitudes,
    prediction_type: PredictionType,
    limit: Limit,
}

impl Seen {
    /// The original sample, limited, and the noise.
    pub(super) fn both(self, x: f32, output: f32) -> (f32, f32) {
        let (original, noise) = self.amplitudes.predict(self.prediction_type, x, output);
        (self.limit.apply(original), noise)
    }

    /// The original sample, limited.
    pub(super) fn original(self, x: f32, output: f32) -> f32 {
        self.limit.apply(self.amplitudes.original(self.prediction_type, x, output))
    }

    /// The original sample, limited, of every value.
    pub(super) fn originals(self, latents: &[f32], model_output: &[f32]) -> Vec<f32> {
        latents.iter().zip(model_output).map(|(&x, &output)| self.original(x, output)).collect()
    }
}
