//! TCD: from one timestep to a lower one than is wanted, and back up with fresh noise.
//!
//! With `a = alphas_cumprod[t]`, `a'` the same at the next timestep `t'` of the list, or 0 after the last, and `a''`
//! that at `s = floor((1 - eta) t')`, one step from `x` is
//!
//! ```text
//! original, noise = what the model output says they are
//! lower           = sqrt(a'') original + sqrt(1 - a'') noise
//! x'              = sqrt(a' / a'') lower + sqrt(1 - a' / a'') fresh noise     `lower` itself after the last step
//! ```
//!
//! All of it in f32, in diffusers' order of operations.
//!
//! Source: Zheng et al. 2024, algorithm 4, arXiv:2402.19159; diffusers 0.42.1, `scheduling_tcd.py`.

use super::config::SchedulerConfig;
use super::consistency;
use super::prediction::{Amplitudes, Reading};
use super::schedule::{Schedule, Timesteps};
use super::{Sampler, SamplerError};

/// The TCD sampler, for a given number of steps.
#[derive(Debug, Clone)]
pub struct Tcd {
    schedule: Schedule,
    timesteps: Timesteps,
    reading: Reading,
    /// The share of fresh noise, 0 to 1. The paper's gamma.
    eta: f32,
}

impl Tcd {
    /// A run of `num_inference_steps`, at most as many as the model was distilled on.
    ///
    /// # Errors
    /// - [`SamplerError::Eta`] if `eta` is not in `0..=1`.
    /// - [`SamplerError::Schedule`] if the betas are unusable, noise is predicted where there is nothing else, or the
    ///   number of steps does not fit.
    pub fn new(config: &SchedulerConfig, num_inference_steps: usize, eta: f32) -> Result<Self, SamplerError> {
        if !(0.0..=1.0).contains(&eta) {
            return Err(SamplerError::Eta { got: eta });
        }
        let schedule = Schedule::new(config)?;
        schedule.check_prediction(config)?;
        let timesteps = consistency::timesteps(config, num_inference_steps)?;
        Ok(Self { schedule, timesteps, reading: Reading::new(config), eta })
    }

    fn alpha_cumprod(&self, timestep: u32) -> f32 {
        self.schedule.alphas_cumprod()[timestep as usize]
    }
}

impl Sampler for Tcd {
    fn steps(&self) -> usize {
        self.timesteps.len()
    }

    fn timestep(&self, index: usize) -> f32 {
        self.timesteps[index] as f32
    }

    fn amplitudes(&self, index: usize) -> Amplitudes {
        Amplitudes::of(self.alpha_cumprod(self.timesteps[index]))
    }

    fn adds_noise(&self, index: usize) -> bool {
        self.eta > 0.0 && index + 1 < self.timesteps.len()
    }

    fn step(&mut self, index: usize, latents: &mut [f32], model_output: &[f32], noise: &[f32]) {
        let next = self.timesteps.get(index + 1).copied().unwrap_or_default();
        let a_next = self.alpha_cumprod(next);
        let a_lower = self.alpha_cumprod(((1.0 - self.eta) * next as f32).floor() as u32);
        let lower = Amplitudes::of(a_lower);
        let seen = self.reading.of(self.amplitudes(index), latents, model_output);
        for (x, &output) in latents.iter_mut().zip(model_output) {
            let (original, predicted_noise) = seen.both(*x, output);
            *x = lower.signal * original + lower.noise * predicted_noise;
        }
        if self.adds_noise(index) {
            assert_eq!(latents.len(), noise.len(), "latents and noise differ in length");
            let up = Amplitudes::of(a_next / a_lower);
            latents.iter_mut().zip(noise).for_each(|(x, z)| *x = up.signal * *x + up.noise * z);
        }
    }

    fn pred_original_sample(&self, index: usize, latents: &[f32], model_output: &[f32]) -> Vec<f32> {
        self.reading.of(self.amplitudes(index), latents, model_output).originals(latents, model_output)
    }
}
