//! Deep features of a UNet that are used again in the steps that follow.
//!
//! From one step to the next the latents change little, and what the deep part of a UNet makes of them changes less. So it is
//! run in every few steps alone, and in those between the outermost blocks are given what it made last:
//!
//! ```text
//! step 0      all of it          -> prediction, deep features
//! step 1, 2   outermost blocks   -> prediction         of the step's own latents and timestep, and of the features of step 0
//! step 3      all of it          -> prediction, deep features
//! ```
//! Source: Ma et al. 2023, arXiv:2312.00858.

use std::ops::Range;

use crate::engine::{Component, DEEP_FEATURES, EngineError, Footprint, NamedTensor};

/// The outermost blocks, and the features that they are given.
pub struct FeatureCache {
    outer: Component,
    /// In how many steps the features are used, that of their making included.
    every: usize,
    /// Of the prompt, and of the negative prompt.
    held: [Option<NamedTensor>; 2],
}

impl FeatureCache {
    /// For a UNet, which is changed to show its deep features.
    ///
    /// # Errors
    /// [`EngineError::NoDeepFeatures`] if it is no UNet.
    pub fn new(unet: &mut Component, every: usize) -> Result<Self, EngineError> {
        Ok(Self { outer: unet.split_at_deep_features()?, every, held: [None, None] })
    }

    /// Lets go of features that are too old for the step behind so many.
    pub fn begin_step(&mut self, done: usize) {
        if done.is_multiple_of(self.every) {
            self.held = [None, None];
        }
    }

    /// Says which prompts a step has, so that either all of them are given features or none is.
    pub fn expect(&mut self, prompts: Range<usize>) {
        if self.held[prompts].iter().any(Option::is_none) {
            self.held = [None, None];
        }
    }

    /// Plans both parts for these inputs, so that it is known what they take with the features that are held.
    ///
    /// # Errors
    /// [`EngineError`], as those of [`Component::prepare`].
    pub fn prepare(
        &mut self,
        unet: &mut Component,
        inputs: &[NamedTensor],
    ) -> Result<Footprint, EngineError> {
        let shape = unet.output_shape(DEEP_FEATURES, inputs)?;
        let (batch, len) = (shape[0], shape.iter().product());
        let one_bytes = len / batch * size_of::<f32>();
        // One prompt's while the other's are made; then both, and a copy of those that the blocks are given.
        unet.hold_beside(one_bytes);
        let whole = unet.prepare(inputs)?;
        self.outer.hold_beside((self.held.len() + batch) * one_bytes);
        let features = NamedTensor::new(DEEP_FEATURES, &shape, vec![0.0; len]);
        let outer = self.outer.prepare(&with(inputs, features))?;
        Ok(if outer.peak_anon_bytes > whole.peak_anon_bytes { outer } else { whole })
    }

    /// One pass for some of the prompts, with the features that are held, or through all of the UNet, whose features are held
    /// then.
    ///
    /// # Errors
    /// [`EngineError`], as those of [`Component::run`].
    pub fn run(
        &mut self,
        unet: &mut Component,
        inputs: &[NamedTensor],
        prompts: Range<usize>,
    ) -> Result<Vec<NamedTensor>, EngineError> {
        if let Some(features) = stacked(&self.held[prompts.clone()]) {
            unet.rest();
            return self.outer.run(&with(inputs, features));
        }
        self.prepare(unet, inputs)?;
        self.outer.rest();
        let outputs = unet.run(inputs)?;
        let features = outputs.iter().find(|output| output.name == DEEP_FEATURES);
        if let Some(features) = features {
            let len = features.values.len() / prompts.len();
            let parts = features.values.chunks_exact(len);
            for (held, part) in self.held[prompts].iter_mut().zip(parts) {
                let shape = [&[1], &features.shape[1..]].concat();
                *held = Some(NamedTensor::new(DEEP_FEATURES, &shape, part.to_vec()));
            }
        }
        Ok(outputs)
    }
}

fn with(inputs: &[NamedTensor], features: NamedTensor) -> Vec<NamedTensor> {
    inputs.iter().cloned().chain([features]).collect()
}

/// Features of some prompts as one batch, if all of them are held.
fn stacked(held: &[Option<NamedTensor>]) -> Option<NamedTensor> {
    let held: Vec<&NamedTensor> = held.iter().map(Option::as_ref).collect::<Option<_>>()?;
    let shape = [&[held.len()], &held.first()?.shape[1..]].concat();
    let values = held.iter().flat_map(|features| &features.values).copied();
    Some(NamedTensor::new(DEEP_FEATURES, &shape, values.collect()))
}
