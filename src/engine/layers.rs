//! A transformer without its last layers.
//!
//! A layer adds what it has to say to the states that it reads, once for attention and once for what follows, and the last
//! normalisation reads the sum. So the states after an earlier layer are found by going back from sum to sum; the
//! normalisation then reads these instead.

use super::graph::{Graph, Op, Value};

impl Graph {
    /// The part of the graph that makes `output` of the states that its last `count` layers read, in place of those that they
    /// make.
    ///
    /// # Errors
    /// How many layers there are, if they are fewer; 0 if the output is not a normalised sum.
    pub fn without_last_layers(&self, output: &str, count: usize) -> Result<Self, usize> {
        let mut graph = self.clone();
        graph.outputs.retain(|o| o.name == output);
        let last = graph.outputs.first().and_then(|o| graph.node_of(o.value)).ok_or(0usize)?;
        if !matches!(graph.nodes[last].op, Op::LayerNorm { .. }) {
            return Err(0);
        }
        let mut states = graph.nodes[last].inputs[0];
        for done in 0..count {
            states = graph.before_layer(states).ok_or(done)?;
        }
        graph.nodes[last].inputs[0] = states;
        Ok(graph.pruned())
    }

    /// The states that a layer read, given those that it made.
    fn before_layer(&self, made: Value) -> Option<Value> {
        let mut states = made;
        loop {
            let sum = self.node_of(states)?;
            let node = &self.nodes[sum];
            // What was added was made of the states, which are therefore the earlier of the two.
            let read = *node.inputs.iter().min().filter(|_| node.op == Op::Add && node.inputs.len() == 2)?;
            let between = self.node_of(read).map_or(0, |at| at + 1);
            states = read;
            if self.nodes[between..sum].iter().any(|node| matches!(node.op, Op::Attention { .. })) {
                return Some(states);
            }
        }
    }
}
