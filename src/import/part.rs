//! A component on its way into the bundle.

use std::collections::HashSet;
use std::sync::Arc;

use super::ImportError;
use super::architectures::{self, ArchitectureError, Weight};
use super::checkpoint::Checkpoint;
use super::report::{ComponentReport, Deviation, Numbers};
use super::source::{Network, Origin, Source};
use super::weight::Plan;
use crate::bundle::{Component, TensorEntry};
use crate::engine::graph::Graph;
use crate::engine::onnx::{self, Constant, Initialisers};

/// A component, its graph taken over or built.
pub struct Part {
    /// Which one.
    pub component: Component,
    /// What it computes.
    pub graph: Graph,
    /// The graph as the bundle has it.
    pub graph_json: Vec<u8>,
    /// How each weight is stored, once that is decided.
    pub plans: Vec<Plan>,
    weights: Weights,
}

/// Where the weights are.
enum Weights {
    Onnx(Vec<(String, Constant)>, Initialisers),
    Built(Vec<(String, Weight)>, Arc<Checkpoint>),
}

/// All components of a source; no weight is read yet.
///
/// # Errors
/// [`ImportError::Graph`], [`ImportError::Network`].
pub fn parts(source: &Source) -> Result<Vec<Part>, ImportError> {
    let parts = source.networks().iter().map(|network| Part::new(source, network));
    let parts = parts.collect::<Result<Vec<_>, _>>()?;
    parts.iter().try_for_each(|part| part.leaves_nothing_out(&parts))?;
    Ok(parts)
}

impl Part {
    fn new(source: &Source, network: &Network) -> Result<Self, ImportError> {
        let component = network.component;
        let (graph, weights) = match &network.origin {
            Origin::Onnx(file) => {
                let size = |name: &str, at: usize| source.analysis_size(component, name, at);
                let imported =
                    onnx::import(file, &size).map_err(|source| ImportError::Graph { component, source })?;
                (imported.graph, Weights::Onnx(imported.weights, imported.initialisers))
            }
            Origin::Checkpoint(checkpoint) => {
                let built = architectures::build(component, &network.file, &network.config, checkpoint);
                let built = built.map_err(|source| ImportError::Network { component, source })?;
                (built.graph, Weights::Built(built.weights, checkpoint.clone()))
            }
        };
        let graph_json = serde_json::to_vec(&graph).expect("a graph has string keys and finite numbers");
        Ok(Self { component, graph, graph_json, plans: Vec::new(), weights })
    }

    /// That every weight of its files is used, by this component or by another one of the same files.
    fn leaves_nothing_out(&self, all: &[Self]) -> Result<(), ImportError> {
        let Weights::Built(_, checkpoint) = &self.weights else { return Ok(()) };
        let mut used = HashSet::new();
        for part in all {
            if let Weights::Built(weights, other) = &part.weights
                && Arc::ptr_eq(checkpoint, other)
            {
                used.extend(weights.iter().filter_map(|(_, weight)| weight.tensor()));
            }
        }
        match checkpoint.unused(&used) {
            Some((file, tensor)) => {
                let source = ArchitectureError::Unused { file, tensor };
                Err(ImportError::Network { component: self.component, source })
            }
            None => Ok(()),
        }
    }

    /// How many weights it has.
    pub fn len(&self) -> usize {
        match &self.weights {
            Weights::Onnx(weights, _) => weights.len(),
            Weights::Built(weights, _) => weights.len(),
        }
    }

    /// The name of a weight.
    pub fn name(&self, at: usize) -> &str {
        match &self.weights {
            Weights::Onnx(weights, _) => &weights[at].0,
            Weights::Built(weights, _) => &weights[at].0,
        }
    }

    /// The shape of a weight.
    pub fn shape(&self, at: usize) -> Vec<usize> {
        match &self.weights {
            Weights::Onnx(weights, _) => weights[at].1.shape(),
            Weights::Built(weights, _) => weights[at].1.shape(),
        }
    }

    /// The numbers of a weight, row-major.
    ///
    /// # Errors
    /// [`ImportError::Graph`], [`ImportError::Network`].
    pub fn read(&self, at: usize) -> Result<Vec<f32>, ImportError> {
        let component = self.component;
        match &self.weights {
            Weights::Onnx(weights, initialisers) => {
                let (name, constant) = &weights[at];
                let values = constant.read(name, initialisers);
                values.map_err(|source| ImportError::Graph { component, source })
            }
            Weights::Built(weights, _) => {
                weights[at].1.read().map_err(|source| ImportError::Network { component, source })
            }
        }
    }

    /// The weights as the header lists them.
    ///
    /// # Errors
    /// [`ImportError::Tensor`].
    pub fn entries(&self) -> Result<Vec<TensorEntry>, ImportError> {
        let component = self.component;
        let refused = |source| ImportError::Tensor { component, source };
        let plans = self.plans.iter().enumerate();
        plans.map(|(at, plan)| plan.entry(component, self.name(at)).map_err(refused)).collect()
    }

    /// What was decided for the weights.
    pub fn report(&self) -> ComponentReport {
        let (mut numbers, mut weights) = (Numbers::default(), Deviation::default());
        for plan in &self.plans {
            numbers.add(plan.dtype(), plan.count());
            weights.merge(&plan.error);
        }
        ComponentReport {
            component: self.component.name(),
            operations: self.graph.nodes.len(),
            numbers,
            weights: weights.difference(),
            output: None,
        }
    }
}
