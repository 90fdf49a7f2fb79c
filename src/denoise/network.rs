//! A network that is asked at every step: once, or twice for guidance.

use std::sync::Arc;

use crate::bundle::{self, Bundle};
use crate::engine::{Component, EngineError, Footprint, NamedTensor, Resources};

/// What a pass for two conditions may take where nobody sets a limit, in bytes.
const BOTH_BYTES: usize = 250_000_000;

/// A network that predicts `out_sample`.
pub struct Network {
    component: Component,
    memory_bytes: Option<usize>,
    /// Whether two conditions go through in one pass, once that is known.
    takes_both: Option<bool>,
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
        Ok(Self { component, memory_bytes: resources.memory_bytes, takes_both: None })
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
        Ok(self.component.run_for("out_sample", inputs)?.values)
    }

    /// Its predictions for two conditions, which differ in values alone: in one pass over the weights where memory allows it.
    /// The result is the same.
    ///
    /// # Errors
    /// [`EngineError`] if the inputs do not fit the graph.
    pub fn predict_both(&mut self, inputs: [Vec<NamedTensor>; 2]) -> Result<[Vec<f32>; 2], EngineError> {
        let [first, second] = inputs;
        if self.takes_both.is_none() {
            self.takes_both = Some(prepare_both(&mut self.component, &first, self.memory_bytes).is_some());
        }
        let both = if self.takes_both == Some(true) { stacked(&first, &second) } else { None };
        let Some(both) = both else {
            return Ok([self.predict(&first)?, self.predict(&second)?]);
        };
        let mut first = self.predict(&both)?;
        let second = first.split_off(first.len() / 2);
        Ok([first, second])
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
