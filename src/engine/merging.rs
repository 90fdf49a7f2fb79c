//! Self-attention over fewer tokens: on the largest maps, those that are most alike are one while they attend.
//!
//! The work of self-attention grows with the square of the tokens, and neighbours on a large map are much alike. So before
//! queries, keys and values are made of the normalised map, the tokens most like another become one with it, and what comes of
//! attention is given to each of them:
//!
//! ```text
//! x -> norm ----------> q, k, v -> attention -> out ----------> + x
//! x -> norm -> merge -> q, k, v -> attention -> out -> spread -> + x        both told by match, which looks at x
//! ```
//! Source: Bolya and Hoffman 2023, arXiv:2303.17604, self-attention alone, with a fixed place in each square of four that
//! others become one with.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::graph::{Graph, Node, Op, Output, Value};

/// A share of tokens that is none.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("token merging of {got}, expected 0 (none) to {max} (three of every four)", max = TokenMerging::MAX)]
pub struct TokenMergingError {
    /// The value given.
    pub got: f64,
}

/// Which share of a map's tokens is merged into the others for self-attention, 0 (none) to [`MAX`](Self::MAX).
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct TokenMerging(f64);

impl TokenMerging {
    /// One token of each square of four stays.
    pub const MAX: f64 = 0.75;
    /// Every token attends by itself.
    pub const NONE: Self = Self(0.0);

    /// # Errors
    /// [`TokenMergingError`] unless `0 <= share <= MAX`.
    pub fn new(share: f64) -> Result<Self, TokenMergingError> {
        if (0.0..=Self::MAX).contains(&share) {
            Ok(Self(share))
        } else {
            Err(TokenMergingError { got: share })
        }
    }

    /// Whether nothing is merged.
    pub fn is_none(&self) -> bool {
        *self == Self::NONE
    }

    /// How many tokens are left of a map, `height` by `width`.
    pub fn left(self, [height, width]: [usize; 2]) -> usize {
        let (all, stay) = (height * width, height / 2 * (width / 2));
        if stay == 0 {
            return all;
        }
        all - ((all as f64 * self.0) as usize).min(all - stay)
    }
}

impl TryFrom<f64> for TokenMerging {
    type Error = TokenMergingError;

    fn try_from(share: f64) -> Result<Self, TokenMergingError> {
        Self::new(share)
    }
}

impl From<TokenMerging> for f64 {
    fn from(TokenMerging(share): TokenMerging) -> Self {
        share
    }
}

/// A self-attention on a map: what it reads, and the node that makes its last value.
struct SelfAttention {
    /// The map.
    map: Value,
    /// The map normalised, of which queries, keys and values are made.
    normed: Value,
    /// The layers that make these.
    projections: [usize; 3],
    /// The layer behind the attention.
    out: usize,
    /// How often the map was halved on its way there.
    depth: usize,
}

impl Graph {
    /// The graph with fewer tokens in self-attention on its largest maps; `None` if there is none.
    pub fn merging_tokens(&self, share: TokenMerging) -> Option<Self> {
        let all = self.self_attentions();
        let depth = all.iter().map(|attention| attention.depth).min()?;
        let largest: Vec<_> = all.into_iter().filter(|attention| attention.depth == depth).collect();
        let find = |node: usize| largest.iter().find(|a| a.projections.contains(&node));
        let mut number: Vec<Value> = (0..self.inputs.len() as Value).collect();
        let mut nodes: Vec<Node> = Vec::new();
        let mut push = |name: String, op: Op, inputs: Vec<Value>| {
            nodes.push(Node { name, inputs, op });
            (self.inputs.len() + nodes.len() - 1) as Value
        };
        // Of every normalised map that was met: where its tokens go, and what is left of it.
        let mut merged: BTreeMap<Value, [Value; 2]> = BTreeMap::new();
        for (at, node) in self.nodes.iter().enumerate() {
            let mut inputs: Vec<Value> = node.inputs.iter().map(|&value| number[value as usize]).collect();
            let name = |what: &str| format!("{}.{what}", node.name);
            if let Some(&SelfAttention { map, normed, .. }) = find(at) {
                let [_, fewer] = *merged.entry(normed).or_insert_with(|| {
                    let read = [map, normed].map(|value| number[value as usize]);
                    let places = push(name("match"), Op::MatchTokens { share }, vec![read[0]]);
                    [places, push(name("merge"), Op::MergeTokens { share }, vec![read[1], places])]
                });
                inputs = vec![fewer];
            }
            let mut made = push(node.name.clone(), node.op.clone(), inputs);
            if let Some(attention) = largest.iter().find(|attention| attention.out == at) {
                made = push(name("spread"), Op::SpreadTokens, vec![made, merged[&attention.normed][0]]);
            }
            number.push(made);
        }
        let output = |output: &Output| Output { value: number[output.value as usize], ..output.clone() };
        let outputs = self.outputs.iter().map(output).collect();
        Some(Self { inputs: self.inputs.clone(), outputs, nodes })
    }

    fn self_attentions(&self) -> Vec<SelfAttention> {
        let depths = self.depths();
        let attentions = self.nodes.iter().enumerate().filter_map(|(at, node)| {
            let Op::Attention { causal: false, masked: false, .. } = node.op else { return None };
            let &[q, k, v] = &node.inputs[..] else { return None };
            let projections = [self.linear(q)?, self.linear(k)?, self.linear(v)?];
            let [normed, same @ ..] = projections.map(|layer| self.nodes[layer].inputs[0]);
            let norm = &self.nodes[self.node_of(normed)?];
            let out = self.only_reader(at).filter(|&out| matches!(self.nodes[out].op, Op::Linear { .. }))?;
            let fits = same == [normed; 2] && matches!(norm.op, Op::LayerNorm { .. });
            let map = norm.inputs[0];
            fits.then(|| SelfAttention { map, normed, projections, out, depth: depths[map as usize] })
        });
        attentions.collect()
    }

    /// The linear layer that makes a value.
    fn linear(&self, value: Value) -> Option<usize> {
        self.node_of(value).filter(|&at| matches!(self.nodes[at].op, Op::Linear { .. }))
    }

    /// The only node that reads what a node makes.
    fn only_reader(&self, node: usize) -> Option<usize> {
        let value = (self.inputs.len() + node) as Value;
        let mut readers = (node + 1..self.nodes.len()).filter(|&at| self.nodes[at].inputs.contains(&value));
        readers.next().filter(|_| readers.next().is_none())
    }

    /// Of every value, how often its map was halved in height and width, less how often it was doubled.
    fn depths(&self) -> Vec<usize> {
        let mut depths = vec![0_usize; self.inputs.len()];
        for node in &self.nodes {
            let read = node.inputs.iter().map(|&value| depths[value as usize]).max().unwrap_or(0);
            depths.push(match node.op {
                Op::Conv2d { stride: [2, 2], .. } | Op::Downsample => read + 1,
                Op::Conv2d { upsample: true, .. } | Op::Upsample => read.saturating_sub(1),
                _ => read,
            });
        }
        depths
    }
}
