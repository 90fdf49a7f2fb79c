//! Leaves out what no output needs: halves of operations that became whole, and their weights.

use std::collections::HashSet;

use crate::engine::graph::{Graph, Value};
use crate::engine::onnx::constant::Constant;

/// The part of `graph` that its outputs need, renumbered, and the weights of that part.
pub fn prune(mut graph: Graph, weights: Vec<(String, Constant)>) -> (Graph, Vec<(String, Constant)>) {
    let inputs = graph.inputs.len();
    let mut needed = vec![false; inputs + graph.nodes.len()];
    for output in &graph.outputs {
        needed[output.value as usize] = true;
    }
    for (at, node) in graph.nodes.iter().enumerate().rev() {
        if needed[inputs + at] {
            node.inputs.iter().for_each(|&v| needed[v as usize] = true);
        }
    }
    needed[..inputs].fill(true);
    let mut number: Vec<Value> = Vec::with_capacity(needed.len());
    let mut next = 0;
    for &keep in &needed {
        number.push(next);
        next += Value::from(keep);
    }
    let mut at = inputs;
    graph.nodes.retain_mut(|node| {
        node.inputs.iter_mut().for_each(|v| *v = number[*v as usize]);
        at += 1;
        needed[at - 1]
    });
    graph.outputs.iter_mut().for_each(|o| o.value = number[o.value as usize]);
    let used: HashSet<&str> = graph.nodes.iter().flat_map(|node| node.op.weights()).collect();
    let kept = weights.into_iter().filter(|(name, _)| used.contains(name.as_str())).collect();
    (graph, kept)
}
