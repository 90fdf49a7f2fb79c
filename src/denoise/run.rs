//! The loop: from noise to latents.

use std::ops::Range;

use super::guidance::{self, GuidanceInterval, GuidanceScale};
use super::noise::TorchGenerator;
use super::unet::{Input, Unet};
use super::{Amplitudes, Kept, Sampler};
use crate::engine::EngineError;
use crate::tensor::{Latents, TextEmbedding};

/// What steers a picture: what to draw, what to stay away from, and what of a given picture is to stay.
pub struct Condition<'a> {
    /// The prompt.
    pub cond: &'a TextEmbedding,
    /// The negative prompt; not read unless guidance is active.
    pub uncond: &'a TextEmbedding,
    /// How far to go from the one to the other.
    pub guidance_scale: GuidanceScale,
    /// In which steps; in the others the prompt's prediction is used alone.
    pub guidance_interval: GuidanceInterval,
    /// What the network sees behind the latents, if it was made to draw parts of a picture: where those are, and the rest.
    pub beside: Option<&'a Latents>,
    /// What stays of a given picture, for a network that was not.
    pub kept: Option<&'a Kept>,
}

/// Looks on.
pub trait Observer {
    /// Whether the next step is to come with the picture that the model sees, which costs a copy of the latents.
    fn wants_original(&self) -> bool;

    /// `done` steps are done and these are the latents; `memory` is the sampler's, and `original` the picture that the
    /// model saw in the step.
    fn after_step(&mut self, done: usize, latents: &Latents, memory: &[f32], original: Option<&Latents>);
}

/// Where in a run a network is asked, and how it is shown the latents.
#[derive(Debug, Clone, Copy)]
pub struct At {
    /// The step.
    pub index: usize,
    /// The timestep; not always a whole number.
    pub timestep: f32,
    /// What the latents are divided by.
    pub divisor: f32,
}

/// Asks a network what it makes of latents; as many values as the sampler takes.
pub type Predict<'a> = dyn FnMut(&Latents, At) -> Result<Vec<f32>, EngineError> + 'a;

/// Takes `latents` through these steps of the sampler by a UNet that is told texts; see [`walk`].
///
/// # Errors
/// [`EngineError`] if the network fails; the latents are then those of the last step that was done.
pub fn run(
    unet: &mut Unet,
    sampler: &mut dyn Sampler,
    steps: Range<usize>,
    condition: &Condition,
    latents: &mut Latents,
    generator: &mut TorchGenerator,
    observer: &mut dyn Observer,
) -> Result<(), EngineError> {
    let (total, first) = (sampler.steps(), steps.start);
    let mut ask = |latents: &Latents, At { index, timestep, divisor }: At| {
        unet.begin_step(index - first);
        let input = Input { divisor, timestep, beside: condition.beside };
        let scale = condition.guidance_interval.scale(condition.guidance_scale, index, total);
        predict(unet, condition, scale, latents, input)
    };
    walk(sampler, steps, condition.kept, latents, generator, observer, &mut ask)
}

/// Takes `latents` through these steps of the sampler, in place; all of them lead from noise to a picture. Of a given picture
/// `kept` stays.
///
/// `generator` is read on by samplers that add noise, as diffusers does with the one that made the latents.
///
/// # Errors
/// [`EngineError`] if the network fails; the latents are then those of the last step that was done.
pub fn walk(
    sampler: &mut dyn Sampler,
    steps: Range<usize>,
    kept: Option<&Kept>,
    latents: &mut Latents,
    generator: &mut TorchGenerator,
    observer: &mut dyn Observer,
    predict: &mut Predict,
) -> Result<(), EngineError> {
    let mut noise = Vec::new();
    for index in steps {
        let (timestep, divisor) = (sampler.timestep(index), sampler.input_divisor(index));
        let noise_pred = predict(latents, At { index, timestep, divisor })?;
        let original = observer.wants_original().then(|| {
            let mut original = latents.clone();
            let values = sampler.pred_original_sample(index, latents.values(), &noise_pred);
            original.values_mut().copy_from_slice(&values);
            original
        });
        if sampler.adds_noise(index) {
            noise.resize(latents.values().len(), 0.0);
            generator.fill_normal(&mut noise);
        }
        sampler.step(index, latents.values_mut(), &noise_pred, &noise);
        if let Some(kept) = kept {
            let is_last = index + 1 == sampler.steps();
            kept.restore(latents, if is_last { Amplitudes::PICTURE } else { sampler.amplitudes(index + 1) });
        }
        observer.after_step(index + 1, latents, sampler.memory(), original.as_ref());
    }
    Ok(())
}

/// Reads past the noise that these steps of the sampler would have added.
pub fn skip_noise(
    sampler: &dyn Sampler,
    steps: Range<usize>,
    latents: &Latents,
    generator: &mut TorchGenerator,
) {
    let mut noise = vec![0.0; latents.values().len()];
    steps.filter(|&index| sampler.adds_noise(index)).for_each(|_| generator.fill_normal(&mut noise));
}

fn predict(
    unet: &mut Unet,
    condition: &Condition,
    scale: GuidanceScale,
    latents: &Latents,
    input: Input,
) -> Result<Vec<f32>, EngineError> {
    if !scale.is_active() || unet.is_told_guidance() {
        return unet.predict(latents, input, condition.cond, scale);
    }
    let texts = [condition.cond, condition.uncond];
    let [cond, mut noise_pred] = unet.predict_both(latents, input, texts, scale)?;
    guidance::combine(&mut noise_pred, &cond, scale);
    Ok(noise_pred)
}
