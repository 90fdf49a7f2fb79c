//! DDIM: a few large steps against the noise, deterministic or not.
//!
//! With `a = alphas_cumprod[t]` and `a'` the same at the previous timestep, one step from `x` is
//!
//! ```text
//! original, noise = what the model output says they are          by prediction type
//! original        = clipped or thresholded, if configured        (noise = recomputed from it, if asked for)
//! sigma           = eta sqrt((1 - a') / (1 - a)) sqrt(1 - a / a')
//! x'              = sqrt(a') original + sqrt(1 - a' - sigma^2) noise + sigma * fresh noise
//! ```
//!
//! All of it in f32, in diffusers' order of operations: without fresh noise the result is diffusers' to the bit.
//!
//! The previous timestep is `t - N / n`, a whole stride below, and so not always the next of the list: under
//! linspace spacing, and under trailing spacing when `n` does not divide `N`, the two differ. diffusers does the
//! same, and models are judged by the pictures that it draws.
//!
//! One departure. At zero terminal SNR with `eta = 1`, `1 - a' - sigma^2` is 0 but for rounding, and diffusers
//! returns NaN where the rounding falls below. Here it counts as 0.
//!
//! Source: Song et al. 2020, eq. 12 and 16, arXiv:2010.02502; diffusers 0.42.1, `scheduling_ddim.py`.

use super::config::SchedulerConfig;
use super::prediction::{Amplitudes, Reading};
use super::schedule::{Schedule, Timesteps};
use super::{Sampler, SamplerError, add_noise};

/// What a caller may choose about a DDIM run.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct DdimOptions {
    /// The share of fresh noise per step, from 0 (none) to 1 (as much as DDPM).
    pub eta: f32,
    /// Whether the predicted noise is recomputed from the clipped original sample.
    pub use_clipped_model_output: bool,
}

/// The DDIM sampler, for a given number of steps.
#[derive(Debug, Clone)]
pub struct Ddim {
    schedule: Schedule,
    timesteps: Timesteps,
    /// `N / n`: how far below a timestep its previous one lies.
    stride: usize,
    reading: Reading,
    options: DdimOptions,
}

impl Ddim {
    /// A run of `num_inference_steps` over the schedule of `config`.
    ///
    /// # Errors
    /// - [`SamplerError::Eta`] if `eta` is not in `0..=1`.
    /// - [`SamplerError::Schedule`] if the betas are unusable, noise is predicted where there is nothing else, or the
    ///   number of steps does not fit.
    pub fn new(
        config: &SchedulerConfig,
        num_inference_steps: usize,
        options: DdimOptions,
    ) -> Result<Self, SamplerError> {
        if !(0.0..=1.0).contains(&options.eta) {
            return Err(SamplerError::Eta { got: options.eta });
        }
        let schedule = Schedule::new(config)?;
        schedule.check_prediction(config)?;
        let timesteps = schedule.timesteps(num_inference_steps)?;
        let stride = config.num_train_timesteps / num_inference_steps;
        Ok(Self { schedule, timesteps, stride, reading: Reading::new(config), options })
    }

    fn coefficients(&self, index: usize) -> Coefficients {
        let t = self.timesteps[index] as usize;
        let a = self.schedule.alphas_cumprod()[t];
        let a_prev = match t.checked_sub(self.stride) {
            Some(previous) => self.schedule.alphas_cumprod()[previous],
            None => self.schedule.final_alpha_cumprod(),
        };
        let variance = (1.0 - a_prev) / (1.0 - a) * (1.0 - a / a_prev);
        let sigma = self.options.eta * variance.sqrt();
        Coefficients {
            amplitudes: Amplitudes::of(a),
            signal_prev: a_prev.sqrt(),
            noise_prev: (1.0 - a_prev - sigma * sigma).max(0.0).sqrt(),
            sigma,
        }
    }
}

impl Sampler for Ddim {
    fn steps(&self) -> usize {
        self.timesteps.len()
    }

    fn timestep(&self, index: usize) -> f32 {
        self.timesteps[index] as f32
    }

    fn amplitudes(&self, index: usize) -> Amplitudes {
        self.coefficients(index).amplitudes
    }

    fn adds_noise(&self, _index: usize) -> bool {
        self.options.eta > 0.0
    }

    fn step(&mut self, index: usize, latents: &mut [f32], model_output: &[f32], noise: &[f32]) {
        let c = self.coefficients(index);
        let seen = self.reading.of(c.amplitudes, latents, model_output);
        for (x, &output) in latents.iter_mut().zip(model_output) {
            let (original, mut predicted_noise) = seen.both(*x, output);
            if self.options.use_clipped_model_output {
                predicted_noise = c.amplitudes.noise_given(original, *x);
            }
            *x = c.signal_prev * original + c.noise_prev * predicted_noise;
        }
        if self.adds_noise(index) {
            add_noise(latents, c.sigma, noise);
        }
    }

    fn pred_original_sample(&self, index: usize, latents: &[f32], model_output: &[f32]) -> Vec<f32> {
        self.reading.of(self.amplitudes(index), latents, model_output).originals(latents, model_output)
    }
}

/// The factors of one step.
#[derive(Debug, Clone, Copy)]
struct Coefficients {
    /// Of picture and noise in the sample.
    amplitudes: Amplitudes,
    /// `sqrt(a')`.
    signal_prev: f32,
    /// `sqrt(1 - a' - sigma^2)`.
    noise_prev: f32,
    /// The amplitude of fresh noise.
    sigma: f32,
}
