//! Layers with what follows them: so that maps are not written to be read once and written again.
//!
//! ```text
//! layer -> + x               a layer whose outputs are added to x, where that is the last to read it in its place
//! layer -> activation        a layer that applies it before it stores a row
//! ```
//! The numbers are the same to the bit. A plan is made of the fused graph; files have the plain one.

use super::graph::{Graph, Node, Op, Then, Value};
use super::weights::Weights;
use crate::kernels::LANES;

impl Graph {
    /// The graph, whose values have these shapes, with fused layers.
    pub fn fused(&self, shapes: &[Vec<usize>], weights: &Weights) -> Self {
        let mut readers = vec![0_usize; shapes.len()];
        let read = self.nodes.iter().flat_map(|node| &node.inputs);
        read.chain(self.outputs.iter().map(|output| &output.value))
            .for_each(|&value| readers[value as usize] += 1);
        // The node that makes a value which nothing else reads.
        let layer = |value: Value| {
            let node = &self.nodes[self.node_of(value)?];
            (readers[value as usize] == 1).then_some(node)
        };
        let fuse = |(at, node): (usize, &Node)| {
            let sum = &shapes[self.inputs.len() + at];
            match (&node.op, &node.inputs[..]) {
                (Op::Add, &[a, b]) => added_to(layer, a.max(b), a.min(b), sum, shapes).or_else(|| {
                    added_to(layer, a.min(b), a.max(b), sum, shapes)
                        .filter(|_| is_vector(&shapes[a.max(b) as usize]))
                }),
                (Op::Geglu, &[x]) if sum.last().is_some_and(|channels| channels.is_multiple_of(LANES)) => {
                    then(layer(x)?, Then::Geglu, weights)
                }
                (&Op::Activation { function }, &[x]) => then(layer(x)?, Then::Activation(function), weights),
                _ => None,
            }
        };
        let nodes = self.nodes.iter().enumerate();
        let nodes = nodes.map(|(at, node)| fuse((at, node)).unwrap_or_else(|| node.clone())).collect();
        Self { inputs: self.inputs.clone(), nodes, outputs: self.outputs.clone() }.pruned()
    }
}

/// The layer that makes `value`, with its outputs added to `onto`.
fn added_to<'a>(
    layer: impl Fn(Value) -> Option<&'a Node>,
    value: Value,
    onto: Value,
    sum: &[usize],
    shapes: &[Vec<usize>],
) -> Option<Node> {
    let node = layer(value).filter(|node| matches!(node.op, Op::Linear { .. } | Op::Conv2d { .. }))?;
    let [value_shape, onto_shape] = [value, onto].map(|of| &shapes[of as usize][..]);
    let fits = value_shape == sum && can_begin(onto_shape, sum);
    fits.then(|| Node { inputs: vec![node.inputs[0], onto], ..node.clone() })
}

/// Whether a sum of this shape can begin as a value of that: one as large, or the same vector for all pixels of a picture.
pub fn can_begin(onto: &[usize], sum: &[usize]) -> bool {
    onto == sum || is_vector(onto) && onto.first() == sum.first() && onto.last() == sum.last()
}

fn is_vector(shape: &[usize]) -> bool {
    shape.len() == 2
}

/// A linear layer with what is done to its outputs; one that something is added to stays as it is.
fn then(node: &Node, then: Then, weights: &Weights) -> Option<Node> {
    let Op::Linear { weight, bias } = &node.op else { return None };
    let op = Op::LinearThen { weight: weight.clone(), bias: bias.clone(), then };
    weights.added_to(weight).is_empty().then(|| Node { op, ..node.clone() })
}
