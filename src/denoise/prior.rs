//! The prior: from noise to the embedding of a picture that a prompt describes.
//!
//! ```text
//! embedding = noise * sampler.init_noise_sigma()
//! for each step: prediction = prior(embedding, timestep, prompt), with guidance away from the empty prompt
//!                sampler.step
//! embedding = back from unit variance                         with the statistics of the model
//! ```
//!
//! Source: diffusers 0.42.1, `pipeline_unclip.py`, `pipeline_stable_unclip.py`.

use std::sync::Arc;

use serde_json::Value;

use super::guidance::{self, GuidanceScale};
use super::kind::{RunOptions, SamplerKind};
use super::noise::TorchGenerator;
use super::unclip::Unclip;
use super::{Sampler, SamplerError};
use crate::bundle::{self, Bundle};
use crate::engine::{Component, EngineError, NamedTensor, Resources};
use crate::tensor::Sentence;

/// The network's output.
const OUTPUT: &str = "predicted_image_embedding";

/// A prior, as loaded.
pub struct Prior {
    component: Component,
    width: usize,
}

/// The prompt to follow, and the empty one to go away from.
pub struct Prompts<'a> {
    /// What is described.
    pub cond: &'a Sentence,
    /// Nothing; not read unless guidance is active.
    pub uncond: &'a Sentence,
    /// How far to go from the one to the other.
    pub guidance_scale: GuidanceScale,
}

/// The sampler of a prior with this scheduler configuration.
///
/// # Errors
/// [`SamplerError`]: the configuration, or the number of steps.
pub fn sampler(scheduler: &Value, steps: usize) -> Result<Box<dyn Sampler>, SamplerError> {
    if scheduler["_class_name"] == "UnCLIPScheduler" {
        return Ok(Box::new(Unclip::new(scheduler, steps)?));
    }
    SamplerKind::of_scheduler(scheduler).build(scheduler, RunOptions { steps, eta: None, len: 0 })
}

impl Prior {
    /// Loads the prior of a bundle.
    ///
    /// # Errors
    /// [`EngineError`] if there is none, or its graph cannot be read or has another output.
    pub fn load(bundle: &Arc<Bundle>, resources: &Resources) -> Result<Self, EngineError> {
        let component = Component::load(bundle, bundle::Component::Prior, resources)?;
        component.check_output(OUTPUT)?;
        let input = component.inputs().iter().find(|input| input.name == "hidden_states");
        let in_graph = input.and_then(|input| *input.shape.get(1)?);
        let config = bundle.component(bundle::Component::Prior).map(|prior| &prior.config);
        let in_config = || config?["embedding_dim"].as_u64().and_then(|n| usize::try_from(n).ok());
        let width = in_graph.or_else(in_config).unwrap_or(768);
        Ok(Self { component, width })
    }

    /// The numbers of an embedding.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Makes an embedding, of unit variance still.
    ///
    /// # Errors
    /// [`EngineError`] if the prompts do not fit the network, or it fails.
    pub fn run(
        &mut self,
        sampler: &mut dyn Sampler,
        prompts: &Prompts,
        generator: &mut TorchGenerator,
    ) -> Result<Vec<f32>, EngineError> {
        let mut embedding = vec![0.0; self.width];
        generator.fill_normal(&mut embedding);
        embedding.iter_mut().for_each(|x| *x *= sampler.init_noise_sigma());
        let mut noise = Vec::new();
        for index in 0..sampler.steps() {
            let (divisor, timestep) = (sampler.input_divisor(index), sampler.timestep(index));
            let input: Vec<f32> = embedding.iter().map(|x| x / divisor).collect();
            let cond = self.predict(&input, timestep, prompts.cond)?;
            let prediction = if prompts.guidance_scale.is_active() {
                let mut uncond = self.predict(&input, timestep, prompts.uncond)?;
                guidance::combine(&mut uncond, &cond, prompts.guidance_scale);
                uncond
            } else {
                cond
            };
            noise.clear();
            if sampler.adds_noise(index) {
                noise.resize(embedding.len(), 0.0);
                generator.fill_normal(&mut noise);
            }
            sampler.step(index, &mut embedding, &prediction, &noise);
        }
        Ok(embedding)
    }

    fn predict(
        &mut self,
        embedding: &[f32],
        timestep: f32,
        prompt: &Sentence,
    ) -> Result<Vec<f32>, EngineError> {
        let (states, pooled) = (&prompt.embedding, prompt.embedding.pooled());
        let mask = (0..states.tokens()).map(|at| f32::from(u8::from(at < prompt.tokens))).collect();
        let inputs = [
            NamedTensor::new("hidden_states", &[1, embedding.len()], embedding.to_vec()),
            NamedTensor::new("timestep", &[1], vec![timestep]),
            NamedTensor::new("proj_embedding", &[1, pooled.len()], pooled.to_vec()),
            NamedTensor::new(
                "encoder_hidden_states",
                &[1, states.tokens(), states.width()],
                states.values().to_vec(),
            ),
            NamedTensor::new("attention_mask", &[1, states.tokens()], mask),
        ];
        Ok(self.component.run_for(OUTPUT, &inputs)?.values)
    }
}
