//! Leaves out what no output needs: halves of operations that became whole, and their weights.

use std::collections::HashSet;

use crate::engine::graph::Graph;
use crate::engine::onnx::constant::Constant;

/// The part of `graph` that its outputs need, renumbered, and the weights of that part.
pub fn prune(graph: Graph, weights: Vec<(String, Constant)>) -> (Graph, Vec<(String, Constant)>) {
    let graph = graph.pruned();
    let used: HashSet<&str> = graph.nodes.iter().flat_map(|node| node.op.weights()).collect();
    let kept = weights.into_iter().filter(|(name, _)| used.contains(name.as_str())).collect();
    (graph, kept)
}
