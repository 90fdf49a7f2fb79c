//! From noise to latents: schedule, sampler, noise and guidance.
//!
//! A sampler owns the arithmetic between two calls of the model and nothing else: the loop owns the buffers, the
//! model and the noise generator.
//!
//! ```text
//! latents = noise * sampler.init_noise_sigma()
//! for (i, t) in sampler.timesteps():
//!     model_output = model(latents, t)                       twice, and guidance, if there is a negative prompt
//!     noise = generator.fill_normal() if sampler.adds_noise(i)
//!     sampler.step(i, latents, model_output, noise)          in place, allocating nothing
//! ```

pub mod config;
pub mod ddim;
pub mod guidance;
mod mt19937;
pub mod noise;
pub mod run;
pub mod schedule;
pub mod unet;

/// One way to walk from noise to a picture.
///
/// A step takes `&mut self` because some samplers remember earlier steps: run them in order, from 0.
pub trait Sampler {
    /// The timesteps to run the model at, in order: one per step.
    fn timesteps(&self) -> &[u32];

    /// The standard deviation of the latents that the first step expects.
    fn init_noise_sigma(&self) -> f32;

    /// Whether step `index` adds fresh noise.
    fn adds_noise(&self, index: usize) -> bool;

    /// Takes `latents` from timestep `index` of the list to the next, in place, without allocating.
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
}
