//! A graph and the shapes of its inputs -> a tract plan.

use std::sync::Arc;

use tract_core::prelude::*;

use super::graph::Graph;
use super::node::OperationNode;
use super::ops;
use super::threads::Threads;
use super::weights::Weights;

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

/// Plans `graph` for inputs of these `shapes`, one for each of the graph's.
///
/// # Errors
/// [`PlanError`], naming the node where there is one.
pub fn plan(
    graph: &Graph,
    shapes: &[Vec<usize>],
    weights: &Weights,
    threads: &Threads,
) -> Result<Arc<TypedRunnableModel>, PlanError> {
    let mut model = TypedModel::default();
    let mut outlets = Vec::with_capacity(graph.inputs.len() + graph.nodes.len());
    for (input, shape) in graph.inputs.iter().zip(shapes) {
        outlets.push(model.add_source(&*input.name, f32::fact(shape)).map_err(PlanError::Tract)?);
    }
    for (at, node) in graph.nodes.iter().enumerate() {
        let refuse = |reason: String| PlanError::Node { node: node.name.clone(), reason };
        let read = |&value: &u32| outlets.get(value as usize).copied();
        let inputs: Option<Vec<OutletId>> = node.inputs.iter().map(read).collect();
        let inputs = inputs.ok_or_else(|| refuse("it reads a value that does not exist yet".into()))?;
        let operation = ops::build(&node.op, weights).map_err(refuse)?;
        let wired = model.wire_node(format!("{at}.{}", node.name), OperationNode(operation), &inputs);
        outlets.push(wired.map_err(|error| refuse(error.root_cause().to_string()))?[0]);
    }
    let last = |name: &String| PlanError::Node { node: name.clone(), reason: "it shows no value".into() };
    let shown =
        graph.outputs.iter().map(|o| outlets.get(o.value as usize).copied().ok_or_else(|| last(&o.name)));
    let shown = shown.collect::<Result<Vec<_>, _>>()?;
    model.select_output_outlets(&shown).map_err(PlanError::Tract)?;
    let options = RunOptions { executor: Some(threads.executor()), ..RunOptions::default() };
    model.into_runnable_with_options(&options).map_err(PlanError::Tract)
}
