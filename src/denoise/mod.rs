//! From noise to latents: schedule, sampler, noise and guidance.
//!
//! A sampler owns the arithmetic between two calls of the model and nothing else: the loop owns the buffers, the
//! model and the noise generator.
//!
//! ```text
//! latents = noise * sampler.init_noise_sigma()
//! for i in 0..sampler.steps():
//!     input = latents / sampler.input_divisor(i)
//!     model_output = model(input, sampler.timestep(i))       twice, and guidance, if there is a negative prompt
//!     noise = generator.fill_normal() if sampler.adds_noise(i)
//!     sampler.step(i, latents, model_output, noise)          in place, allocating nothing
//! ```

pub mod attention;
pub mod config;
mod consistency;
pub mod ddim;
pub mod ddpm;
pub mod dpm_solver;
pub mod euler;
pub mod euler_ancestral;
mod feature_cache;
pub mod guidance;
mod kept;
mod keys;
pub mod kind;
pub mod lcm;
mod limit;
mod mt19937;
pub mod network;
pub mod noise;
pub mod noise_level;
pub mod pixel_unet;
mod prediction;
pub mod prior;
pub mod run;
pub mod schedule;
mod sigmas;
mod solver;
pub mod tcd;
pub mod unclip;
pub mod unet;
pub mod unipc;

pub use feature_cache::FeatureCache;
pub use kept::Kept;
pub use prediction::Amplitudes;

use config::ConfigError;
use schedule::ScheduleError;

/// Why a sampler cannot run.
#[derive(Debug, thiserror::Error)]
pub enum SamplerError {
    /// The model's scheduler configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The schedule cannot be run as asked.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// `eta` is NaN or out of range.
    #[error("eta is {got}, expected 0 (deterministic) to 1 (as much fresh noise as there can be)")]
    Eta {
        /// The value given.
        got: f32,
    },
    /// `eta` for a sampler that has none.
    #[error("sampler {sampler} has no eta: leave it out, or choose ddim or tcd")]
    NoEta {
        /// The sampler's name.
        sampler: &'static str,
    },
}

/// One way to walk from noise to a picture.
///
/// A step takes `&mut self` because some samplers remember earlier steps: run them in order, from 0, or from where
/// their [`memory`](Self::memory) was taken.
pub trait Sampler {
    /// How many steps there are.
    fn steps(&self) -> usize;

    /// The timestep to run the model at in step `index`; not always a whole number.
    fn timestep(&self, index: usize) -> f32;

    /// The standard deviation of the latents that the first step expects.
    fn init_noise_sigma(&self) -> f32 {
        1.0
    }

    /// What latents are divided by before the model is given them in step `index`: samplers that let the noise grow
    /// beside a picture of constant size would otherwise show it numbers that it was not trained on.
    fn input_divisor(&self, index: usize) -> f32 {
        let _ = index;
        1.0
    }

    /// How much of a picture and how much noise step `index` expects in the latents: those of a picture to begin from there.
    fn amplitudes(&self, index: usize) -> Amplitudes;

    /// Says that the run begins with step `index`, at a picture with noise over it: there are no earlier steps to remember.
    fn begin_at(&mut self, index: usize) {
        let _ = index;
    }

    /// Whether step `index` adds fresh noise.
    fn adds_noise(&self, index: usize) -> bool;

    /// Takes `latents` through step `index`, in place, without allocating.
    ///
    /// `model_output`: what the model returned for these latents at that timestep, guidance applied; as long as
    /// `latents`. `noise`: standard normal values, as long as `latents`; not read, and best left empty, unless
    /// [`adds_noise`](Self::adds_noise) says so.
    ///
    /// # Panics
    /// If the lengths differ, or if there is no step `index`.
    fn step(&mut self, index: usize, latents: &mut [f32], model_output: &[f32], noise: &[f32]);

    /// The picture that the model sees in `latents` at step `index`, to be asked for before the step is taken. As long
    /// as `latents`.
    fn pred_original_sample(&self, index: usize, latents: &[f32], model_output: &[f32]) -> Vec<f32>;

    /// What steps to come need of those that are done, beside the latents; always of one length, often none.
    fn memory(&self) -> &[f32] {
        &[]
    }

    /// Goes on from another run's [`memory`](Self::memory).
    ///
    /// # Panics
    /// If it is not as long as this one's.
    fn remember(&mut self, memory: &[f32]) {
        assert!(memory.is_empty(), "this sampler remembers nothing");
    }
}

/// Adds `sigma` times `noise`.
///
/// # Panics
/// If the lengths differ.
fn add_noise(latents: &mut [f32], sigma: f32, noise: &[f32]) {
    assert_eq!(latents.len(), noise.len(), "latents and noise differ in length");
    latents.iter_mut().zip(noise).for_each(|(x, z)| *x += sigma * z);
}
