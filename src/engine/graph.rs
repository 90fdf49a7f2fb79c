//! The table that a bundle holds for each component: what is computed, in which order, from which weights.
//!
//! A graph is a list of nodes in single assignment form. Values are numbered: first the inputs, then one per
//! node, so node `n` of a graph with `i` inputs makes value `i + n` and may read only smaller numbers. No
//! height or width is written anywhere: each operation works on whatever size comes in, and the shapes are
//! worked out when a plan is made.
//!
//! All values are `f32`. Maps are channels last, `[batch, height, width, channels]`; sequences are
//! `[batch, tokens, channels]`; everything else is `[batch, channels]`. So a map is a sequence of its pixels
//! as it lies, and no operation moves memory between the two.

use serde::{Deserialize, Serialize};

use super::merging::TokenMerging;
use crate::kernels::activation::Function;

/// The number of a value: graph inputs first, then the nodes.
pub type Value = u32;

/// One component's computation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Graph {
    /// What goes in, in the source graph's order and by its names.
    pub inputs: Vec<Input>,
    /// The operations, in an order in which they can be computed.
    pub nodes: Vec<Node>,
    /// What comes out, by the source graph's names.
    pub outputs: Vec<Output>,
}

/// An input of the graph.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// The name in the source graph.
    pub name: String,
    /// The element type in the source graph.
    pub dtype: InputType,
    /// The shape in the source graph, `null` for a dimension that a request chooses.
    pub shape: Vec<Option<usize>>,
}

/// The element types that a graph's input may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InputType {
    /// 32-bit floating point.
    F32,
    /// 64-bit integers: token ids, class labels and timesteps; and what is true or false.
    I64,
}

/// An output of the graph.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Output {
    /// The name in the source graph.
    pub name: String,
    /// The value that it shows.
    pub value: Value,
}

/// One operation on some values.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// The source graph's name for the place, for messages.
    pub name: String,
    /// The values read.
    pub inputs: Vec<Value>,
    /// What is done.
    #[serde(flatten)]
    pub op: Op,
}

/// What a node does. Weights are named as in the component's tensor list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op {
    /// `[n, c, h, w]` -> `[n, h, w, c]`; only behind a graph input.
    ChannelsLast,
    /// `[n, h, w, c]` -> `[n, c, h, w]`; only before a graph output.
    ChannelsFirst,
    /// Convolution of a map; weight `[o, kh, kw, c]`.
    Conv2d {
        /// The weight's name.
        weight: String,
        /// The bias's name, `[o]`.
        bias: Option<String>,
        /// Vertical and horizontal stride.
        stride: [usize; 2],
        /// Padding: top, left, bottom, right.
        pads: [usize; 4],
        /// Whether the map is doubled in height and width (nearest) on the way in.
        upsample: bool,
    },
    /// `x W^T + b` over the last axis; weight `[o, k]`.
    Linear {
        /// The weight's name.
        weight: String,
        /// The bias's name, `[o]`.
        bias: Option<String>,
    },
    /// Normalisation over groups of channels, per picture.
    GroupNorm {
        /// The factors' name, `[c]`.
        weight: String,
        /// The summands' name, `[c]`.
        bias: String,
        /// The number of groups.
        groups: usize,
        /// Added to the variance.
        epsilon: f32,
        /// Whether SiLU follows.
        silu: bool,
    },
    /// Normalisation over the last axis.
    LayerNorm {
        /// The factors' name, `[c]`.
        weight: String,
        /// The summands' name, `[c]`.
        bias: String,
        /// Added to the variance.
        epsilon: f32,
    },
    /// A linear layer, and what is done with each of its rows before that is stored. In no file: see [`Graph::fused`].
    #[serde(skip)]
    LinearThen {
        /// The weight's name.
        weight: String,
        /// The bias's name, `[o]`.
        bias: Option<String>,
        /// What is done.
        then: Then,
    },
    /// Softmax(scale q k^T) v per head; reads q, k and v, and a mask if there is one.
    Attention {
        /// The number of heads; each has its share of the channels, in order.
        heads: usize,
        /// The factor of the scores.
        scale: f32,
        /// Whether a token sees only itself and those before it.
        causal: bool,
        /// Whether a fourth value `[n, t]` says which of the first `t` keys are seen, by not being 0; those behind them all are.
        #[serde(default, skip_serializing_if = "is_false")]
        masked: bool,
    },
    /// `x[.., ..c] * gelu(x[.., c..])` of `[.., 2 c]`.
    Geglu,
    /// A function of every element.
    Activation {
        /// Which one.
        function: Function,
    },
    /// Sum of two values of one shape, or of a map and one vector `[n, c]` for all its pixels. Either may hold
    /// one picture, and is then the same for all pictures of the other.
    Add,
    /// Product of two values, which go together as those of a sum do.
    Multiply,
    /// Every element times a number.
    Scale {
        /// The number.
        factor: f32,
    },
    /// A number more than every element.
    Shift {
        /// The number.
        summand: f32,
    },
    /// The channels of several values, one behind the other.
    Concat,
    /// A range of the channels.
    Slice {
        /// The first channel.
        start: usize,
        /// How many.
        len: usize,
    },
    /// Twice the height and width, nearest neighbour.
    Upsample,
    /// Half the height and width, each pixel the mean of four.
    Downsample,
    /// `[n]` timesteps or `[n, k]` sizes -> cosines and sines of their products with the frequencies, one number
    /// behind the other: `[n, c]` or `[n, k c]`.
    TimestepEmbedding {
        /// The frequencies' name, `[c / 2]`.
        frequencies: String,
        /// Whether the cosines come first.
        cosine_first: bool,
    },
    /// Token ids `[n, t]` or class labels `[n]` -> rows of a table `[vocabulary, c]`.
    Embedding {
        /// The table's name.
        table: String,
    },
    /// Adds a weight `[t, c]` to every sequence.
    AddPositions {
        /// The weight's name.
        weight: String,
    },
    /// Puts one token, a weight `[c]`, before the pixels of a map: `[n, h, w, c]` -> `[n, 1 + h w, c]`.
    PrependToken {
        /// The weight's name.
        weight: String,
    },
    /// The tokens of several sequences `[n, t, c]`, or single tokens `[n, c]`, one behind the other: `[n, all t, c]`.
    /// Any may hold one sequence, which is then the same for all.
    ConcatTokens {
        /// The name of a weight `[c]` that comes behind them all, if one does.
        last: Option<String>,
    },
    /// Rows cut into tokens of equal width: `[n, t c]` -> `[n, t, c]`.
    SplitTokens {
        /// How many tokens.
        count: usize,
    },
    /// One token of a sequence: `[n, t, c]` -> `[n, c]`; a rule that looks at ids reads them as second input.
    PickToken {
        /// Which one.
        rule: TokenRule,
    },
    /// A map `[n, h, w, c]` -> `[n, h, w, 1]`: of every token, its place among those that are left when some are merged. This and the
    /// next two are in no file: see [`Graph::merging_tokens`].
    #[serde(skip)]
    MatchTokens {
        /// Which share of the tokens.
        share: TokenMerging,
    },
    /// A map `[n, h, w, c]` and the places of its tokens -> `[n, t, c]`, the mean of those with the same place.
    #[serde(skip)]
    MergeTokens {
        /// Which share of the tokens.
        share: TokenMerging,
    },
    /// Tokens `[n, t, c]`, and the places of a map's tokens among them -> `[n, h, w, c]`.
    #[serde(skip)]
    SpreadTokens,
}

/// What is done with the outputs of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// As [`Op::Geglu`].
    Geglu,
    /// As [`Op::Activation`].
    Activation(Function),
}

/// Which token stands for a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenRule {
    /// The first.
    First,
    /// The last.
    Last,
    /// The first one with the largest id (CLIP's end of text has the largest).
    LargestId,
    /// The first one with this id, or the first token where there is none.
    Id(i64),
}

impl Graph {
    /// The node that makes a value; an input has none.
    pub fn node_of(&self, value: Value) -> Option<usize> {
        (value as usize).checked_sub(self.inputs.len())
    }

    /// The part of the graph that its outputs need, renumbered.
    pub fn pruned(mut self) -> Self {
        let inputs = self.inputs.len();
        let mut needed = vec![false; inputs + self.nodes.len()];
        for output in &self.outputs {
            needed[output.value as usize] = true;
        }
        for (at, node) in self.nodes.iter().enumerate().rev() {
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
        self.nodes.retain_mut(|node| {
            node.inputs.iter_mut().for_each(|v| *v = number[*v as usize]);
            at += 1;
            needed[at - 1]
        });
        self.outputs.iter_mut().for_each(|o| o.value = number[o.value as usize]);
        self
    }
}

impl Node {
    /// Whether the last value read is what a layer's outputs are added to. In no file: see [`Graph::fused`].
    pub fn is_onto(&self) -> bool {
        matches!((&self.op, &self.inputs[..]), (Op::Linear { .. } | Op::Conv2d { .. }, [_, _]))
    }
}

impl Op {
    /// The names of the weights that the operation reads.
    pub fn weights(&self) -> Vec<&str> {
        match self {
            Self::Conv2d { weight, bias, .. }
            | Self::Linear { weight, bias }
            | Self::LinearThen { weight, bias, .. } => {
                std::iter::once(weight.as_str()).chain(bias.as_deref()).collect()
            }
            Self::GroupNorm { weight, bias, .. } | Self::LayerNorm { weight, bias, .. } => vec![weight, bias],
            Self::TimestepEmbedding { frequencies, .. } => vec![frequencies],
            Self::Embedding { table } => vec![table],
            Self::AddPositions { weight } | Self::PrependToken { weight } => vec![weight],
            Self::ConcatTokens { last } => last.as_deref().into_iter().collect(),
            Self::ChannelsLast
            | Self::ChannelsFirst
            | Self::Attention { .. }
            | Self::Geglu
            | Self::Activation { .. }
            | Self::Add
            | Self::Multiply
            | Self::Scale { .. }
            | Self::Shift { .. }
            | Self::Concat
            | Self::Slice { .. }
            | Self::Upsample
            | Self::Downsample
            | Self::SplitTokens { .. }
            | Self::PickToken { .. }
            | Self::MatchTokens { .. }
            | Self::MergeTokens { .. }
            | Self::SpreadTokens => Vec::new(),
        }
    }
}

fn is_false(flag: &bool) -> bool {
    !flag
}
