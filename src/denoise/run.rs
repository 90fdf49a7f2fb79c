//! The loop: from noise to latents.

use super::Sampler;
use super::guidance::{self, GuidanceScale};
use super::noise::TorchGenerator;
use super::unet::Unet;
use crate::engine::EngineError;
use crate::tensor::{Latents, TextEmbedding};

/// The two prompts of a picture: what to draw, and what to stay away from.
pub struct Condition<'a> {
    /// The prompt.
    pub cond: &'a TextEmbedding,
    /// The negative prompt; not read unless guidance is active.
    pub uncond: &'a TextEmbedding,
    /// How far to go from the one to the other.
    pub guidance_scale: GuidanceScale,
}

/// Takes `latents` from noise to picture, in place; `after_step` is told how many steps are done.
///
/// `generator` is read on by samplers that add noise, as diffusers does with the one that made the latents.
///
/// # Errors
/// [`EngineError`] if the network fails; the latents are then of no use.
pub fn run(
    unet: &mut Unet,
    sampler: &mut dyn Sampler,
    condition: &Condition,
    latents: &mut Latents,
    generator: &mut TorchGenerator,
    after_step: &mut dyn FnMut(usize),
) -> Result<(), EngineError> {
    let mut noise = Vec::new();
    for index in 0..sampler.timesteps().len() {
        let timestep = sampler.timesteps()[index];
        let noise_pred = predict(unet, condition, latents, timestep)?;
        if sampler.adds_noise(index) {
            noise.resize(latents.values().len(), 0.0);
            generator.fill_normal(&mut noise);
        }
        sampler.step(index, latents.values_mut(), &noise_pred, &noise);
        after_step(index + 1);
    }
    Ok(())
}

fn predict(
    unet: &mut Unet,
    condition: &Condition,
    latents: &Latents,
    timestep: u32,
) -> Result<Vec<f32>, EngineError> {
    let cond = unet.predict(latents, timestep, condition.cond)?;
    if !condition.guidance_scale.is_active() {
        return Ok(cond);
    }
    let mut noise_pred = unet.predict(latents, timestep, condition.uncond)?;
    guidance::combine(&mut noise_pred, &cond, condition.guidance_scale);
    Ok(noise_pred)
}
