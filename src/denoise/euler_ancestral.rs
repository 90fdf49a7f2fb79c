//! Euler's method to below the level of noise that is wanted, and back up to it with fresh noise.
//!
//! One step from `x` at `sigma` to `sigma'` is
//!
//! ```text
//! up   = sqrt(sigma'^2 (sigma^2 - sigma'^2) / sigma^2)
//! down = sqrt(sigma'^2 - up^2)
//! x'   = Euler's step from sigma to down, + up fresh noise
//! ```
//!
//! In f32, in diffusers' order of operations.
//!
//! Source: k-diffusion's `sample_euler_ancestral`, whose noise is that of Ho et al. 2020, eq. 7, arXiv:2006.11239;
//! diffusers 0.42.1, `scheduling_euler_ancestral_discrete.py`.

use super::config::{ConfigError, PredictionType, SchedulerConfig};
use super::euler::{Relative, deviation};
use super::sigmas::Sigmas;
use super::{Amplitudes, Sampler, SamplerError, add_noise};

/// The ancestral Euler sampler, for a given number of steps.
#[derive(Debug, Clone)]
pub struct EulerAncestral {
    sigmas: Sigmas,
    relative: Relative,
}

impl EulerAncestral {
    /// A run of `num_inference_steps` over the schedule of `config`.
    ///
    /// # Errors
    /// - [`SamplerError::Config`] if the model predicts samples, for which diffusers has no such sampler to compare with.
    /// - [`SamplerError::Schedule`] if the betas are unusable or the number of steps does not fit.
    pub fn new(config: &SchedulerConfig, num_inference_steps: usize) -> Result<Self, SamplerError> {
        if config.prediction_type == PredictionType::Sample {
            let (key, expected) = ("prediction_type", "epsilon or v_prediction");
            return Err(ConfigError::Unsupported { key, got: "\"sample\"".into(), expected }.into());
        }
        let sigmas = Sigmas::of_steps(config, num_inference_steps)?;
        Ok(Self { sigmas, relative: Relative::new(config) })
    }
}

impl Sampler for EulerAncestral {
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

    fn adds_noise(&self, index: usize) -> bool {
        self.sigmas.levels[index + 1] > 0.0
    }

    fn step(&mut self, index: usize, latents: &mut [f32], model_output: &[f32], noise: &[f32]) {
        let (from, to) = (self.sigmas.levels[index], self.sigmas.levels[index + 1]);
        let (from2, to2) = (from * from, to * to);
        let up = (to2 * (from2 - to2) / from2).sqrt();
        let down = (to2 - up * up).sqrt();
        self.relative.advance(latents, model_output, from, down);
        if self.adds_noise(index) {
            add_noise(latents, up, noise);
        }
    }

    fn pred_original_sample(&self, index: usize, latents: &[f32], model_output: &[f32]) -> Vec<f32> {
        self.relative.originals(latents, model_output, self.sigmas.levels[index])
    }
}
