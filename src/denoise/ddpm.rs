//! DDPM: every step goes back to a sample of what the step before it could have been, with fresh noise.
//!
//! With `a = alphas_cumprod[t]` and `a'` the same at the next timestep of the list, or 1 after the last, one step
//! from `x` is
//!
//! ```text
//! original = what the model output says it is                     clipped or thresholded, if configured
//! beta     = 1 - a / a'
//! x'       = sqrt(a') beta / (1 - a) original + sqrt(a / a') (1 - a') / (1 - a) x + sqrt(variance) fresh noise
//! variance = (1 - a') / (1 - a) beta        "fixed small"; "fixed large" is beta
//! ```
//!
//! There is no noise at timestep 0. All of it in f32, in diffusers' order of operations.
//!
//! Source: Ho et al. 2020, eq. 6, 7 and 15, arXiv:2006.11239; diffusers 0.42.1, `scheduling_ddpm.py`.

use super::config::{ConfigError, SchedulerConfig};
use super::keys::Keys;
use super::kind::SamplerKind;
use super::prediction::{Amplitudes, Reading};
use super::schedule::{Schedule, Timesteps};
use super::{Sampler, SamplerError, add_noise};

/// The least variance of a step; it keeps its logarithm finite where that is asked for.
const VARIANCE_MIN: f32 = 1e-20;

/// How much fresh noise a step adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variance {
    /// What is optimal if the picture is a point.
    FixedSmall,
    /// What is optimal if the picture is noise.
    FixedLarge,
}

impl Variance {
    /// Reads `variance_type`, which DDPM alone has.
    pub(super) fn read(keys: &Keys, sampler: SamplerKind) -> Result<Self, ConfigError> {
        if sampler != SamplerKind::Ddpm {
            return Ok(Self::FixedSmall);
        }
        let expected = "one of fixed_small, fixed_small_log, fixed_large (a learned variance is not read)";
        keys.read_supported("variance_type", Self::FixedSmall, expected, |v| {
            if v.is_null() {
                return Some(Self::FixedSmall);
            }
            match v.as_str()? {
                // The logarithm is taken back at once.
                "fixed_small" | "fixed_small_log" => Some(Self::FixedSmall),
                "fixed_large" => Some(Self::FixedLarge),
                _ => None,
            }
        })
    }
}

/// The DDPM sampler, for a given number of steps.
#[derive(Debug, Clone)]
pub struct Ddpm {
    schedule: Schedule,
    timesteps: Timesteps,
    reading: Reading,
    variance: Variance,
}

impl Ddpm {
    /// A run of `num_inference_steps` over the schedule of `config`.
    ///
    /// # Errors
    /// [`SamplerError::Schedule`] if the betas are unusable, noise is predicted where there is nothing else, or the
    /// number of steps does not fit.
    pub fn new(config: &SchedulerConfig, num_inference_steps: usize) -> Result<Self, SamplerError> {
        let schedule = Schedule::new(config)?;
        schedule.check_prediction(config)?;
        let timesteps = schedule.timesteps(num_inference_steps)?;
        Ok(Self { schedule, timesteps, reading: Reading::new(config), variance: config.variance })
    }

    fn alpha_cumprod(&self, index: usize) -> f32 {
        self.timesteps.get(index).map_or(1.0, |&t| self.schedule.alphas_cumprod()[t as usize])
    }
}

impl Sampler for Ddpm {
    fn steps(&self) -> usize {
        self.timesteps.len()
    }

    fn timestep(&self, index: usize) -> f32 {
        self.timesteps[index] as f32
    }

    fn amplitudes(&self, index: usize) -> Amplitudes {
        Amplitudes::of(self.alpha_cumprod(index))
    }

    fn adds_noise(&self, index: usize) -> bool {
        self.timesteps[index] > 0
    }

    fn step(&mut self, index: usize, latents: &mut [f32], model_output: &[f32], noise: &[f32]) {
        let (a, a_prev) = (self.alpha_cumprod(index), self.alpha_cumprod(index + 1));
        let (kept, beta) = (a / a_prev, 1.0 - a / a_prev);
        let original_factor = a_prev.sqrt() * beta / (1.0 - a);
        let sample_factor = kept.sqrt() * (1.0 - a_prev) / (1.0 - a);
        let seen = self.reading.of(Amplitudes::of(a), latents, model_output);
        for (x, &output) in latents.iter_mut().zip(model_output) {
            *x = original_factor * seen.original(*x, output) + sample_factor * *x;
        }
        if self.adds_noise(index) {
            let variance = match self.variance {
                Variance::FixedSmall => ((1.0 - a_prev) / (1.0 - a) * beta).max(VARIANCE_MIN),
                Variance::FixedLarge => beta,
            };
            add_noise(latents, variance.sqrt(), noise);
        }
    }

    fn pred_original_sample(&self, index: usize, latents: &[f32], model_output: &[f32]) -> Vec<f32> {
        self.reading.of(self.amplitudes(index), latents, model_output).originals(latents, model_output)
    }
}
