//! A UNet in two: its deep part, and the outer blocks that read what comes of it.
//!
//! On its way up a UNet joins, level by level, what came from below with what was put aside on the way down. What the last such
//! join reads from below is made by all blocks but the outermost; given that, these can run by themselves.

use super::graph::{Graph, Input, InputType, Node, Op, Output, Value};

/// The output, and input, that holds the deep features.
pub const DEEP_FEATURES: &str = "deep_features";

impl Graph {
    /// The same graph, which also shows its deep features, and the part of it that is left when these are given; `None` if
    /// nothing is joined.
    pub fn split_at_deep_features(&self) -> Option<[Self; 2]> {
        let join = self.nodes.iter().rfind(|node| node.op == Op::Concat)?;
        // From below comes what was made last.
        let deep = *join.inputs.iter().max()?;
        let mut whole = self.clone();
        whole.outputs.push(Output { name: DEEP_FEATURES.into(), value: deep });
        Some([whole, self.given(deep).pruned()])
    }

    /// The graph with an input in place of the map `value`.
    fn given(&self, value: Value) -> Self {
        let given = self.inputs.len() as Value;
        let number = |v: Value| if v == value { given } else { v + Value::from(v >= given) };
        let mut inputs = self.inputs.clone();
        inputs.push(Input { name: DEEP_FEATURES.into(), dtype: InputType::F32, shape: vec![None; 4] });
        let node =
            |node: &Node| Node { inputs: node.inputs.iter().copied().map(number).collect(), ..node.clone() };
        let output = |output: &Output| Output { value: number(output.value), ..output.clone() };
        Self {
            inputs,
            nodes: self.nodes.iter().map(node).collect(),
            outputs: self.outputs.iter().map(output).collect(),
        }
    }
}
