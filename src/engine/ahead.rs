//! Weights are asked for a little ahead of the operations that read them: storage and cores then work at the same time.

use super::graph::Graph;
use super::weights::{Pages, Weights};

/// How far ahead: about a second's worth of a good memory card.
const AHEAD_BYTES: u64 = 32 << 20;

/// What each node of a graph asks for before it runs: every weight once, those of the next nodes.
pub fn asked(graph: &Graph, weights: &Weights) -> Vec<Vec<Pages>> {
    let pages = |name: &str| weights.pages(name);
    let of_nodes = graph.nodes.iter().map(|node| node.op.weights().into_iter().filter_map(pages).collect());
    let of_nodes: Vec<Vec<Pages>> = of_nodes.collect();
    let bytes = |pages: &[Pages]| pages.iter().map(Pages::bytes).sum::<u64>();
    let (mut ahead, mut next) = (0, 0);
    let ask = |own: &Vec<Pages>| {
        let mut asked = Vec::new();
        while let Some(pages) = of_nodes.get(next).filter(|_| ahead < AHEAD_BYTES) {
            asked.extend_from_slice(pages);
            ahead += bytes(pages);
            next += 1;
        }
        ahead = ahead.saturating_sub(bytes(own));
        asked
    };
    of_nodes.iter().map(ask).collect()
}
