//! Euler's method on the differential equation whose solutions are pictures.
//!
//! Noise is measured relative to the picture: a sample is `picture + sigma noise`, and what the model is given is that
//! divided by `sqrt(sigma^2 + 1)`. One step from `x` at `sigma` to `sigma'` is
//!
//! ```text
//! original = what the model output says it is
//! x'       = x + (x - original) / sigma (sigma' - sigma)
//! ```
//!
//! All of it in f32, in diffusers' order of operations.
//!
//! Source: Karras et al. 2022, algorithm 2 without its second half and without churn, arXiv:2206.00364; diffusers
//! 0.42.1, `scheduling_euler_discrete.py`.

use super::config::{PredictionType, SchedulerConfig, TimestepSpacing};
use super::sigmas::Sigmas;
use super::{Amplitudes, Sampler, SamplerError};

/// The Euler sampler, for a given number of steps.
#[derive(Debug, Clone)]
pub struct Euler {
    sigmas: Sigmas,
    relative: Relative,
}

impl Euler {
    /// A run of `num_inference_steps` over the schedule of `config`.
    ///
    /// # Errors
    /// [`SamplerError::Schedule`] if the betas are unusable or the number of steps does not fit.
    pub fn new(config: &SchedulerConfig, num_inference_steps: usize) -> Result<Self, SamplerError> {
        let sigmas = Sigmas::of_steps(config, num_inference_steps)?;
        Ok(Self { sigmas, relative: Relative::new(config) })
    }
}

impl Sampler for Euler {
    fn steps(&self) -> usize {
        self.sigmas.timesteps.len()
    }

    fn timestep(&self, index: usize) -> f32 {
        self.sigmas.timesteps[index]
    }

    fn init_noise_sigma(&self) -> f32 {
        self.relative.init_noise_sigma(&self.sigmas)
    }

    fn input_divisor(&self, index: usize) -> f32 {
        deviation(self.sigmas.levels[index])
    }

    fn amplitudes(&self, index: usize) -> Amplitudes {
        Amplitudes { noise: self.sigmas.levels[index], ..Amplitudes::PICTURE }
    }

    fn adds_noise(&self, _index: usize) -> bool {
        false
    }

    fn step(&mut self, index: usize, latents: &mut [f32], model_output: &[f32], _noise: &[f32]) {
        let (sigma, next) = (self.sigmas.levels[index], self.sigmas.levels[index + 1]);
        self.relative.advance(latents, model_output, sigma, next);
    }

    fn pred_original_sample(&self, index: usize, latents: &[f32], model_output: &[f32]) -> Vec<f32> {
        self.relative.originals(latents, model_output, self.sigmas.levels[index])
    }
}

/// Samples whose noise is measured relative to their picture.
#[derive(Debug, Clone, Copy)]
pub(super) struct Relative {
    prediction_type: PredictionType,
    /// Whether a run begins with nothing but noise, as all spacings but one do.
    begins_with_noise: bool,
}

impl Relative {
    pub(super) fn new(config: &SchedulerConfig) -> Self {
        let begins_with_noise = config.timestep_spacing != TimestepSpacing::Leading;
        Self { prediction_type: config.prediction_type, begins_with_noise }
    }

    /// The deviation of the first latents: of the noise, and of the picture in it if it is not negligible.
    pub(super) fn init_noise_sigma(self, sigmas: &Sigmas) -> f32 {
        let greatest = sigmas.greatest();
        if self.begins_with_noise { greatest } else { deviation(greatest) }
    }

    /// A step of Euler's method from `sigma` to `next`, in place.
    ///
    /// # Panics
    /// If the lengths differ.
    pub(super) fn advance(self, latents: &mut [f32], model_output: &[f32], sigma: f32, next: f32) {
        assert_eq!(latents.len(), model_output.len(), "latents and model output differ in length");
        let by = next - sigma;
        for (x, &output) in latents.iter_mut().zip(model_output) {
            let slope = (*x - self.original(*x, output, sigma)) / sigma;
            *x += slope * by;
        }
    }

    /// The pictures that the model saw, value by value.
    ///
    /// # Panics
    /// If the lengths differ.
    pub(super) fn originals(self, latents: &[f32], model_output: &[f32], sigma: f32) -> Vec<f32> {
        assert_eq!(latents.len(), model_output.len(), "latents and model output differ in length");
        latents.iter().zip(model_output).map(|(&x, &output)| self.original(x, output, sigma)).collect()
    }

    fn original(self, x: f32, output: f32, sigma: f32) -> f32 {
        let variance = sigma * sigma + 1.0;
        match self.prediction_type {
            PredictionType::Epsilon => x - sigma * output,
            PredictionType::VPrediction => output * (-sigma / variance.sqrt()) + x / variance,
            PredictionType::Sample => output,
        }
    }
}

/// The standard deviation of a sample whose picture has one of 1.
pub(super) fn deviation(sigma: f32) -> f32 {
    (sigma * sigma + 1.0).sqrt()
}
