//! One component of a model, ready to run at any size.

use std::sync::Arc;

use tract_core::prelude::*;

use super::EngineError;
use super::graph::{Graph, Input};
use super::plan::{PlanError, plan};
use super::threads::Threads;
use super::weights::Weights;
use crate::bundle::{self, Bundle};

/// A tensor with the name that the source graph gives it: f32, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedTensor {
    /// The name.
    pub name: String,
    /// The shape, outermost dimension first.
    pub shape: Vec<usize>,
    /// The values; token ids and timesteps too are whole numbers in f32.
    pub values: Vec<f32>,
}

impl NamedTensor {
    /// A tensor under a name.
    pub fn new(name: &str, shape: &[usize], values: Vec<f32>) -> Self {
        Self { name: name.to_owned(), shape: shape.to_vec(), values }
    }
}

/// A component's graph over the weights in the bundle. Plans are made when a size is first run, and the last
/// one is kept.
pub struct Component {
    kind: bundle::Component,
    graph: Graph,
    weights: Weights,
    threads: Threads,
    planned: Option<(Vec<Vec<usize>>, Arc<TypedRunnableModel>)>,
}

impl Component {
    /// Finds the component in the bundle and reads its graph. No weight is read.
    ///
    /// # Errors
    /// - [`EngineError::NoComponent`] if the model has none of this kind.
    /// - [`EngineError::Graph`] if its graph cannot be read.
    pub fn load(
        bundle: &Arc<Bundle>,
        kind: bundle::Component,
        threads: &Threads,
    ) -> Result<Self, EngineError> {
        let entry = bundle.component(kind).ok_or(EngineError::NoComponent { component: kind })?;
        let graph = serde_json::from_slice(bundle.graph(entry))
            .map_err(|source| EngineError::Graph { component: kind, source })?;
        let weights = Weights::new(bundle.clone(), kind);
        Ok(Self { kind, graph, weights, threads: threads.clone(), planned: None })
    }

    /// The inputs that the graph takes.
    pub fn inputs(&self) -> &[Input] {
        &self.graph.inputs
    }

    /// Plans for inputs of these shapes, so that the next run of them starts at once.
    ///
    /// # Errors
    /// As [`Component::run`], but for [`EngineError::Run`] of the run itself.
    pub fn prepare(&mut self, inputs: &[NamedTensor]) -> Result<(), EngineError> {
        let shapes = self.graph.inputs.iter().map(|input| Ok(self.find(input, inputs)?.1.to_vec()));
        let shapes = shapes.collect::<Result<_, EngineError>>()?;
        self.plan(shapes).map(drop)
    }

    /// Runs the graph. Inputs are found by name, others are ignored; outputs come in the graph's order.
    ///
    /// # Errors
    /// - [`EngineError::MissingInput`], [`EngineError::InputShape`]: an input.
    /// - [`EngineError::Node`]: a node that does not fit its weights or inputs.
    /// - [`EngineError::Run`]: tract's own.
    pub fn run(&mut self, inputs: &[NamedTensor]) -> Result<Vec<NamedTensor>, EngineError> {
        let inputs =
            self.graph.inputs.iter().map(|input| self.bind(input, inputs)).collect::<Result<Vec<_>, _>>()?;
        let plan = self.plan(inputs.iter().map(|tensor| tensor.shape().to_vec()).collect())?;
        let inputs = inputs.into_iter().map(IntoTValue::into_tvalue).collect();
        let failed = |source| EngineError::Run { component: self.kind, source };
        let outputs = plan.run(inputs).map_err(failed)?;
        let named = self.graph.outputs.iter().zip(outputs);
        named
            .map(|(output, tensor)| {
                let values = tensor.try_as_plain_ram()?.as_slice::<f32>()?.to_vec();
                Ok(NamedTensor::new(&output.name, tensor.shape(), values))
            })
            .collect::<TractResult<_>>()
            .map_err(failed)
    }

    /// Runs the graph for one of its outputs.
    ///
    /// # Errors
    /// - As [`Component::run`].
    /// - [`EngineError::MissingOutput`] if the graph has no output `name`.
    pub fn run_for(
        &mut self,
        name: &'static str,
        inputs: &[NamedTensor],
    ) -> Result<NamedTensor, EngineError> {
        let mut outputs = self.run(inputs)?.into_iter();
        let missing = EngineError::MissingOutput { component: self.kind, name };
        outputs.find(|output| output.name == name).ok_or(missing)
    }

    fn bind(&self, input: &Input, given: &[NamedTensor]) -> Result<Tensor, EngineError> {
        let (tensor, shape) = self.find(input, given)?;
        Tensor::from_shape(shape, &tensor.values)
            .map_err(|source| EngineError::Run { component: self.kind, source })
    }

    /// The tensor that goes in there, and the shape that it takes on.
    fn find<'a>(
        &self,
        input: &Input,
        given: &'a [NamedTensor],
    ) -> Result<(&'a NamedTensor, &'a [usize]), EngineError> {
        let missing = || EngineError::MissingInput { component: self.kind, name: input.name.clone() };
        let tensor = given.iter().find(|t| t.name == input.name).ok_or_else(missing)?;
        let shape = fitted(input, tensor).ok_or_else(|| EngineError::InputShape {
            component: self.kind,
            name: input.name.clone(),
            expected: described(input),
            got: tensor.shape.clone(),
        })?;
        Ok((tensor, shape))
    }

    fn plan(&mut self, shapes: Vec<Vec<usize>>) -> Result<Arc<TypedRunnableModel>, EngineError> {
        if let Some((planned, plan)) = &self.planned
            && *planned == shapes
        {
            return Ok(plan.clone());
        }
        let component = self.kind;
        let made = plan(&self.graph, &shapes, &self.weights, &self.threads).map_err(|error| match error {
            PlanError::Node { node, reason } => EngineError::Node { component, node, reason },
            PlanError::Tract(source) => EngineError::Run { component, source },
        })?;
        self.planned = Some((shapes, made.clone()));
        Ok(made)
    }
}

/// The shape of a tensor that an input takes; a single number passes for one of rank 0 or 1 alike.
fn fitted<'a>(input: &Input, tensor: &'a NamedTensor) -> Option<&'a [usize]> {
    if tensor.shape.iter().product::<usize>() != tensor.values.len() || tensor.values.is_empty() {
        return None;
    }
    if input.shape.len() <= 1 && tensor.values.len() == 1 {
        return Some(&[1]);
    }
    let fits = input.shape.len() == tensor.shape.len()
        && input.shape.iter().zip(&tensor.shape).all(|(want, got)| want.is_none_or(|want| want == *got));
    fits.then_some(&tensor.shape)
}

fn described(input: &Input) -> String {
    let dims: Vec<String> =
        input.shape.iter().map(|dim| dim.map_or("any".into(), |dim| dim.to_string())).collect();
    format!("[{}]", dims.join(", "))
}
