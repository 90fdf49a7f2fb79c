//! LCM: a model that was distilled to see the picture in one look, asked a few times with fresh noise in between.
//!
//! With `a = alphas_cumprod[t]` and `a'` the same at the next timestep, one step from `x` is
//!
//! ```text
//! original = what the model output says it is                     clipped or thresholded, if configured
//! s        = timestep_scaling t
//! picture  = s / sqrt(s^2 + 0.25) original + 0.25 / (s^2 + 0.25) x
//! x'       = sqrt(a') picture + sqrt(1 - a') fresh noise          the picture itself after the last step
//! ```
//!
//! All of it in f32, in diffusers' order of operations.
//!
//! Source: Luo et al. 2023, algorithm 1 and section 3, arXiv:2310.04378; the boundary condition: Song et al. 2023,
//! appendix C, arXiv:2303.01469; diffusers 0.42.1, `scheduling_lcm.py`.

use super::config::SchedulerConfig;
use super::consistency;
use super::prediction::{Amplitudes, Reading, Seen};
use super::schedule::{Schedule, Timesteps};
use super::{Sampler, SamplerError};

/// The standard deviation that pictures are taken to have.
const SIGMA_DATA: f32 = 0.5;

/// The LCM sampler, for a given number of steps.
#[derive(Debug, Clone)]
pub struct Lcm {
    schedule: Schedule,
    timesteps: Timesteps,
    timestep_scaling: f32,
    reading: Reading,
}

impl Lcm {
    /// A run of `num_inference_steps`, at most as many as the model was distilled on.
    ///
    /// # Errors
    /// [`SamplerError::Schedule`] if the betas are unusable, noise is predicted where there is nothing else, or the
    /// number of steps does not fit.
    pub fn new(config: &SchedulerConfig, num_inference_steps: usize) -> Result<Self, SamplerError> {
        let schedule = Schedule::new(config)?;
        schedule.check_prediction(config)?;
        let timesteps = consistency::timesteps(config, num_inference_steps)?;
        let timestep_scaling = config.distillation.timestep_scaling;
        Ok(Self { schedule, timesteps, timestep_scaling, reading: Reading::new(config) })
    }

    fn boundary(&self, index: usize) -> Boundary {
        let (scaled, data) = (self.timestep(index) * self.timestep_scaling, SIGMA_DATA * SIGMA_DATA);
        let sum = scaled * scaled + data;
        Boundary { sample: data / sum, original: scaled / sum.sqrt() }
    }
}

impl Sampler for Lcm {
    fn steps(&self) -> usize {
        self.timesteps.len()
    }

    fn timestep(&self, index: usize) -> f32 {
        self.timesteps[index] as f32
    }

    fn amplitudes(&self, index: usize) -> Amplitudes {
        Amplitudes::of(self.schedule.alphas_cumprod()[self.timesteps[index] as usize])
    }

    fn adds_noise(&self, index: usize) -> bool {
        index + 1 < self.timesteps.len()
    }

    fn step(&mut self, index: usize, latents: &mut [f32], model_output: &[f32], noise: &[f32]) {
        let seen = self.reading.of(self.amplitudes(index), latents, model_output);
        let boundary = self.boundary(index);
        latents.iter_mut().zip(model_output).for_each(|(x, &output)| *x = boundary.picture(seen, *x, output));
        if self.adds_noise(index) {
            assert_eq!(latents.len(), noise.len(), "latents and noise differ in length");
            let next = self.amplitudes(index + 1);
            latents.iter_mut().zip(noise).for_each(|(x, z)| *x = next.signal * *x + next.noise * z);
        }
    }

    fn pred_original_sample(&self, index: usize, latents: &[f32], model_output: &[f32]) -> Vec<f32> {
        let seen = self.reading.of(self.amplitudes(index), latents, model_output);
        let boundary = self.boundary(index);
        latents.iter().zip(model_output).map(|(&x, &output)| boundary.picture(seen, x, output)).collect()
    }
}

/// The weights that make a step at timestep 0 the identity.
#[derive(Debug, Clone, Copy)]
struct Boundary {
    /// Of the sample.
    sample: f32,
    /// Of the predicted original sample.
    original: f32,
}

impl Boundary {
    fn picture(self, seen: Seen, x: f32, output: f32) -> f32 {
        self.original * seen.original(x, output) + self.sample * x
    }
}
