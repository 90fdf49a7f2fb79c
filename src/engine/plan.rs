//! A graph and the shapes of its inputs -> something that runs.

use std::sync::Arc;

use tract_core::prelude::*;

use super::ahead;
use super::graph::Graph;
use super::memory;
use super::node::OperationNode;
use super::ops::{self, Operation};
use super::resources::{Resources, Tile};
use super::stripes::{self, Network, Schedule};
use super::weights::Weights;

/// Large maps stay whole up to this much memory, where nobody sets a limit: a picture of 512 x 512 px by Stable
/// Diffusion's decoder takes some 130 MB in stripes, and 700 MB whole.
const AUTO_BYTES: usize = 138_000_000;

/// Why there is no plan.
pub enum PlanError {
    /// A node does not fit its weights or inputs.
    Node {
        /// Its name.
        node: String,
        /// What does not fit.
        reason: String,
    },
    /// tract's own.
    Tract(TractError),
}

/// A graph, planned for inputs of certain shapes.
#[derive(Debug)]
pub enum Plan {
    /// All of it by tract.
    Whole(Arc<TypedRunnableModel>),
    /// The part with the largest maps in stripes, what comes before and behind by tract.
    Striped {
        /// Makes what the region is given.
        before: Arc<TypedRunnableModel>,
        /// The part in stripes.
        network: Box<Network>,
        /// How it is worked through.
        schedule: Schedule,
        /// Reads what the region makes.
        after: Arc<TypedRunnableModel>,
    },
}

impl Plan {
    /// Plans `graph` for inputs of these `shapes`, one for each of the graph's.
    ///
    /// With [`Tile::Auto`], it is in stripes if it takes more than `limit_bytes` whole; it may still take more then.
    ///
    /// # Errors
    /// [`PlanError`], naming the node where there is one.
    pub fn new(
        graph: &Graph,
        shapes: &[Vec<usize>],
        weights: &Weights,
        resources: &Resources,
        limit_bytes: Option<usize>,
    ) -> Result<Self, PlanError> {
        let shapes = all_shapes(graph, &build(graph, weights)?, shapes)?;
        let whole = || {
            let fused = graph.fused(&shapes, weights);
            let operations = build(&fused, weights)?;
            wire(&fused, &operations, weights, &shapes[..graph.inputs.len()], resources).map(Self::Whole)
        };
        let limit_bytes = limit_bytes.unwrap_or(AUTO_BYTES);
        let stripe = match resources.tile {
            // A tile is whole by itself.
            Tile::Off | Tile::Blend(_) => return whole(),
            Tile::Auto => {
                let whole = whole()?;
                if whole.peak_bytes(resources.threads.count()) <= limit_bytes {
                    return Ok(whole);
                }
                None
            }
            Tile::Rows(rows) => Some(rows),
        };
        match stripes::divide(graph, &shapes) {
            Some(parts) => Self::striped(&parts, &shapes, weights, resources, stripe, limit_bytes),
            None => whole(),
        }
    }

    fn striped(
        parts: &stripes::Parts,
        shapes: &[Vec<usize>],
        weights: &Weights,
        resources: &Resources,
        stripe: Option<usize>,
        limit_bytes: usize,
    ) -> Result<Self, PlanError> {
        let part = |graph: &Graph, shapes: &[Vec<usize>]| {
            wire(graph, &build(graph, weights)?, weights, shapes, resources)
        };
        let before = part(&parts.before, &shapes[..parts.before.inputs.len()])?;
        let kept: Vec<Vec<usize>> =
            parts.before.outputs.iter().map(|output| shapes[output.value as usize].clone()).collect();
        let given: Vec<[usize; 3]> =
            kept[..parts.given].iter().map(|shape| [shape[1], shape[2], shape[3]]).collect();
        let network = Network::new(&parts.region, weights, &given, resources.threads.count())
            .map_err(|(node, reason)| PlanError::Node { node, reason })?;
        let others = kept[parts.given..].iter().map(|shape| memory::bytes(shape)).sum::<usize>();
        let schedule = stripes::fit(&network, stripe, limit_bytes.saturating_sub(others));
        let [height, width, channels] = network.shapes[network.shapes.len() - 1];
        let others = kept.into_iter().skip(parts.given);
        let inputs: Vec<Vec<usize>> =
            std::iter::once(vec![1, height, width, channels]).chain(others).collect();
        let after = part(&parts.after, &inputs)?;
        Ok(Self::Striped { before, network: Box::new(network), schedule, after })
    }

    /// The most bytes of anonymous memory that values and scratch memory hold at a time.
    pub fn peak_bytes(&self, threads: usize) -> usize {
        match self {
            Self::Whole(plan) => memory::peak_bytes(plan, threads),
            Self::Striped { before, network, schedule, after } => {
                let outputs = before.model().outputs.iter().skip(network.given);
                let shapes = outputs.map(|&outlet| memory::shape(before.model(), outlet));
                let others = shapes.map(memory::bytes).sum::<usize>();
                let parts = [before, after].map(|part| memory::peak_bytes(part, threads));
                parts[0].max(parts[1]).max(others + schedule.peak_bytes)
            }
        }
    }

    /// The shape of an output, by its place among them.
    ///
    /// # Panics
    /// If there is none.
    pub fn output_shape(&self, at: usize) -> Vec<usize> {
        let (Self::Whole(plan) | Self::Striped { after: plan, .. }) = self;
        memory::shape(plan.model(), plan.model().outputs[at]).to_vec()
    }

    /// How large maps are worked on; `None` where all is whole.
    pub fn stripes(&self) -> Option<&Schedule> {
        match self {
            Self::Whole(_) => None,
            Self::Striped { schedule, .. } => Some(schedule),
        }
    }

    /// Runs it; outputs come in the graph's order.
    ///
    /// # Errors
    /// tract's, or that memory ran out, or [`Stopped`](super::Stopped).
    pub fn run(&self, inputs: TVec<TValue>, resources: &Resources) -> TractResult<TVec<TValue>> {
        let (before, network, schedule, after) = match self {
            Self::Whole(plan) => return plan.run(inputs),
            Self::Striped { before, network, schedule, after } => (before, network, schedule, after),
        };
        let mut given = before.run(inputs)?;
        let others: TVec<TValue> = given.drain(network.given..).collect();
        let [height, width, channels] = network.shapes[network.shapes.len() - 1];
        let values = stripes::run(network, schedule, given, &resources.threads, &resources.pulse)?;
        let map = Tensor::from_shape(&[1, height, width, channels], &values)?;
        drop(values);
        after.run(std::iter::once(map.into_tvalue()).chain(others).collect())
    }
}

fn build(graph: &Graph, weights: &Weights) -> Result<Vec<Arc<dyn Operation>>, PlanError> {
    let build = |node: &super::graph::Node| {
        ops::build(&node.op, weights).map_err(|reason| PlanError::Node { node: node.name.clone(), reason })
    };
    graph.nodes.iter().map(build).collect()
}

/// The shape of every value.
fn all_shapes(
    graph: &Graph,
    operations: &[Arc<dyn Operation>],
    inputs: &[Vec<usize>],
) -> Result<Vec<Vec<usize>>, PlanError> {
    let mut shapes = inputs.to_vec();
    for (node, operation) in graph.nodes.iter().zip(operations) {
        let refuse = |reason: String| PlanError::Node { node: node.name.clone(), reason };
        let read = node.inputs.iter().map(|&value| shapes.get(value as usize).map(Vec::as_slice));
        let read: Option<Vec<&[usize]>> = read.collect();
        let read = read.ok_or_else(|| refuse("it reads a value that does not exist yet".into()))?;
        shapes.push(operation.output_shape(&read).map_err(refuse)?);
    }
    for output in &graph.outputs {
        if output.value as usize >= shapes.len() {
            let reason = "it shows no value".into();
            return Err(PlanError::Node { node: output.name.clone(), reason });
        }
    }
    Ok(shapes)
}

/// A tract model of the operations, planned.
fn wire(
    graph: &Graph,
    operations: &[Arc<dyn Operation>],
    weights: &Weights,
    shapes: &[Vec<usize>],
    resources: &Resources,
) -> Result<Arc<TypedRunnableModel>, PlanError> {
    let mut model = TypedModel::default();
    let mut outlets = Vec::with_capacity(graph.inputs.len() + graph.nodes.len());
    for (input, shape) in graph.inputs.iter().zip(shapes) {
        outlets.push(model.add_source(&*input.name, f32::fact(shape)).map_err(PlanError::Tract)?);
    }
    let nodes = graph.nodes.iter().zip(operations).zip(ahead::asked(graph, weights));
    for (at, ((node, operation), ahead)) in nodes.enumerate() {
        let inputs: Vec<OutletId> = node.inputs.iter().map(|&value| outlets[value as usize]).collect();
        let (operation, pulse) = (operation.clone(), resources.pulse.clone());
        let operation = OperationNode { operation, onto: node.is_onto(), pulse, ahead };
        let wired = model.wire_node(format!("{at}.{}", node.name), operation, &inputs);
        outlets.push(wired.map_err(PlanError::Tract)?[0]);
    }
    let shown: Vec<OutletId> = graph.outputs.iter().map(|output| outlets[output.value as usize]).collect();
    model.select_output_outlets(&shown).map_err(PlanError::Tract)?;
    let options = RunOptions { executor: Some(resources.threads.executor()), ..RunOptions::default() };
    model.into_runnable_with_options(&options).map_err(PlanError::Tract)
}
