//! Weights are asked for a little ahead of the operations that read them: storage and cores then work at the same time.

use super::graph::Graph;
use super::weights::Weights;

/// How far ahead: about a second's worth of a good memory card.
const AHEAD_BYTES: u64 = 32 << 20;

/// What each node of a graph asks for before it runs, by name: every weight once, those of the next nodes.
pub fn asked(graph: &Graph, weights: &Weights) -> Vec<Vec<String>> {
    let bytes = |names: &[&str]| names.iter().filter_map(|name| weights.bytes(name)).sum::<u64>();
    let of_nodes: Vec<Vec<&str>> = graph.nodes.iter().map(|node| node.op.weights()).collect();
    let (mut ahead, mut next) = (0, 0);
    let ask = |own: &Vec<&str>| {
        let mut asked = Vec::new();
        while let Some(names) = of_nodes.get(next).filter(|_| ahead < AHEAD_BYTES) {
            asked.extend(names.iter().map(|&name| name.to_owned()));
            ahead += bytes(names);
            next += 1;
        }
        ahead = ahead.saturating_sub(bytes(own));
        asked
    };
    of_nodes.iter().map(ask).collect()
}
