//! A network that is asked at every step: once, or twice for guidance.

use std::ops::Range;
use std::sync::Arc;

use super::FeatureCache;
use super::attention::{AttentionMap, AttentionRecorder};
use crate::bundle::{self, Bundle};
use crate::engine::{Component, EngineError, Footprint, NamedTensor, Resources, TokenMerging};

/// What a pass for two conditions may take where nobody sets a limit, in bytes.
const BOTH_BYTES: usize = 250_000_000;

/// Which conditions a pass is for.
const CONDITION: Range<usize> = 0..1;
const NEGATIVE: Range<usize> = 1..2;
const BOTH: Range<usize> = 0..2;

/// A network that predicts `out_sample`.
pub struct Network {
    component: Component,
    memory_bytes: Option<usize>,
    /// Whether two conditions go through in one pass, once that is known.
    takes_both: Option<bool>,
    attention: Option<AttentionRecorder>,
    features: Option<FeatureCache>,
}

impl Network {
    /// Loads a component of a bundle.
    ///
    /// # Errors
    /// [`EngineError`] if there is none or its graph cannot be read.
    pub fn load(
        bundle: &Arc<Bundle>,
        kind: bundle::Component,
        resources: &Resources,
    ) -> Result<Self, EngineError> {
        let component = Component::load(bundle, kind, resources)?;
        let memory_bytes = resources.memory_bytes;
        Ok(Self { component, memory_bytes, takes_both: None, attention: None, features: None })
    }

    /// The same, and it is recorded from now on what of the text the network attends to.
    ///
    /// # Errors
    /// [`EngineError::NoCrossAttention`] if it reads the text in another way, or none.
    pub fn recording_attention(self) -> Result<Self, EngineError> {
        let (component, layers) = self.component.with_cross_attention("encoder_hidden_states", "sample")?;
        Ok(Self { component, attention: Some(AttentionRecorder::new(layers)), ..self })
    }

    /// The same, and deep features are computed in every so many steps alone; in every one, if that is 1.
    ///
    /// # Errors
    /// [`EngineError::NoDeepFeatures`] if there are none.
    pub fn caching_features(mut self, every: usize) -> Result<Self, EngineError> {
        self.features = (every > 1).then(|| FeatureCache::new(&mut self.component, every)).transpose()?;
        Ok(self)
    }

    /// The same, with fewer tokens in self-attention on the largest maps.
    ///
    /// # Errors
    /// [`EngineError::NoSelfAttention`] if there is none.
    pub fn merging_tokens(mut self, share: TokenMerging) -> Result<Self, EngineError> {
        self.component.merge_tokens(share)?;
        Ok(self)
    }

    /// Says how many steps of a picture are done.
    pub fn begin_step(&mut self, done: usize) {
        self.features.iter_mut().for_each(|features| features.begin_step(done));
    }

    /// What was recorded: a map for each token of the text.
    pub fn attention_maps(&self) -> Vec<AttentionMap> {
        self.attention.as_ref().map_or(Vec::new(), AttentionRecorder::maps)
    }

    /// The component.
    pub fn component(&self) -> &Component {
        &self.component
    }

    /// Its prediction.
    ///
    /// # Errors
    /// [`EngineError`] if the inputs do not fit the graph.
    pub fn predict(&mut self, inputs: &[NamedTensor]) -> Result<Vec<f32>, EngineError> {
        self.run(inputs, CONDITION)
    }

    /// Its predictions for two conditions, which differ in values alone: in one pass over the weights where memory allows it.
    /// The result is the same.
    ///
    /// # Errors
    /// [`EngineError`] if the inputs do not fit the graph.
    pub fn predict_both(&mut self, inputs: [Vec<NamedTensor>; 2]) -> Result<[Vec<f32>; 2], EngineError> {
        let [first, second] = inputs;
        self.features.iter_mut().for_each(|features| features.expect(BOTH));
        if self.takes_both.is_none() {
            self.takes_both = Some(self.prepare_both(&first));
        }
        let both = if self.takes_both == Some(true) { stacked(&first, &second) } else { None };
        let Some(both) = both else {
            return Ok([self.run(&first, CONDITION)?, self.run(&second, NEGATIVE)?]);
        };
        let mut first = self.run(&both, BOTH)?;
        let second = first.split_off(first.len() / 2);
        Ok([first, second])
    }

    /// Plans a pass for two conditions, given the inputs for one; `false` if it takes too much.
    fn prepare_both(&mut self, inputs: &[NamedTensor]) -> bool {
        let fits = prepare_both(&mut self.component, inputs, self.memory_bytes).is_some();
        match (&mut self.features, stacked(inputs, inputs)) {
            (Some(features), Some(both)) if fits => features.prepare(&mut self.component, &both).is_ok(),
            _ => fits,
        }
    }

    /// A pass for some of the conditions.
    fn run(&mut self, inputs: &[NamedTensor], conditions: Range<usize>) -> Result<Vec<f32>, EngineError> {
        let is_condition = conditions.start == CONDITION.start;
        let outputs = match &mut self.features {
            Some(features) => features.run(&mut self.component, inputs, conditions)?,
            None => self.component.run(inputs)?,
        };
        if let Some(attention) = self.attention.as_mut().filter(|_| is_condition) {
            attention.add(&outputs);
        }
        Ok(self.component.pick(outputs, "out_sample")?.values)
    }
}

/// Plans a network for two conditions in one pass, given the inputs for one; `None` if that takes too much, or its graph does
/// not know it.
pub fn prepare_both(
    component: &mut Component,
    inputs: &[NamedTensor],
    memory_bytes: Option<usize>,
) -> Option<Footprint> {
    let footprint = component.prepare(&stacked(inputs, inputs)?).ok()?;
    (memory_bytes.is_some() || footprint.peak_anon_bytes <= BOTH_BYTES).then_some(footprint)
}

/// Two batches of one as a batch of two; `None` if they are not alike.
fn stacked(first: &[NamedTensor], second: &[NamedTensor]) -> Option<Vec<NamedTensor>> {
    let stack = |(first, second): (&NamedTensor, &NamedTensor)| {
        let (1, true) = (*first.shape.first()?, first.shape == second.shape) else { return None };
        let shape = [&[2], &first.shape[1..]].concat();
        Some(NamedTensor::new(&first.name, &shape, [&first.values[..], &second.values[..]].concat()))
    };
    first.iter().zip(second).map(stack).collect()
}
