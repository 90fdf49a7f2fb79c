//! A graph in the making: layers by the names of their modules, weights as the checkpoint has them.

use std::sync::Arc;

use super::{ArchitectureError, Network, Weight};
use crate::engine::graph::{Graph, Input, InputType, Node, Op, Output, TokenRule, Value};
use crate::import::checkpoint::Checkpoint;
use crate::kernels::activation::Function;
use crate::kernels::elementary::{exp, ln};

/// What a builder's methods return: the value that they made.
pub type Made = Result<Value, ArchitectureError>;

/// The longest period of the waves that a timestep is embedded in, over 2 pi.
const PERIOD_MAX: f64 = 10_000.0;

/// Builds a graph node by node. Inputs come first.
pub struct Builder {
    checkpoint: Arc<Checkpoint>,
    graph: Graph,
    weights: Vec<(String, Weight)>,
}

/// A convolution beside its weights.
#[derive(Debug, Clone, Copy)]
pub struct Convolution {
    /// Channels that come in and that go out.
    pub channels: [usize; 2],
    /// The sides of the kernel.
    pub kernel: usize,
    /// In both directions.
    pub stride: usize,
    /// Top, left, bottom, right.
    pub pads: [usize; 4],
    /// Whether the map is doubled before.
    pub upsample: bool,
    /// Whether it has a bias.
    pub bias: bool,
}

impl Convolution {
    /// 3x3, stride 1, of maps that keep their size.
    pub fn same(from: usize, to: usize) -> Self {
        Self { channels: [from, to], kernel: 3, stride: 1, pads: [1; 4], upsample: false, bias: true }
    }
}

/// Groups of channels that are normalised together, and what is added to their variance.
#[derive(Debug, Clone, Copy)]
pub struct Groups {
    /// How many.
    pub count: usize,
    /// Added to the variance.
    pub epsilon: f32,
}

impl Builder {
    /// Over these weights.
    pub fn new(checkpoint: &Arc<Checkpoint>) -> Self {
        let graph = Graph { inputs: Vec::new(), nodes: Vec::new(), outputs: Vec::new() };
        Self { checkpoint: checkpoint.clone(), graph, weights: Vec::new() }
    }

    /// Whether the checkpoint has a weight of this name.
    pub fn has(&self, name: &str) -> bool {
        self.checkpoint.shape(name).is_some()
    }

    /// A size of a weight that no configuration tells.
    pub fn size(&self, name: &str, at: usize) -> Result<usize, ArchitectureError> {
        let missing = || ArchitectureError::Missing {
            file: self.checkpoint.path().to_owned(),
            tensor: name.to_owned(),
        };
        self.checkpoint.shape(name).and_then(|shape| shape.get(at).copied()).ok_or_else(missing)
    }

    /// An input of the graph; `None` for a size that a request chooses.
    pub fn input(&mut self, name: &str, dtype: InputType, shape: &[Option<usize>]) -> Value {
        assert!(self.graph.nodes.is_empty(), "inputs come before everything else");
        self.graph.inputs.push(Input { name: name.to_owned(), dtype, shape: shape.to_vec() });
        self.graph.inputs.len() as Value - 1
    }

    /// An output of the graph.
    pub fn output(&mut self, name: &str, value: Value) {
        self.graph.outputs.push(Output { name: name.to_owned(), value });
    }

    /// The finished network.
    pub fn finish(self) -> Network {
        Network { graph: self.graph, weights: self.weights }
    }

    /// An operation without weights.
    pub fn emit(&mut self, place: &str, op: Op, inputs: &[Value]) -> Value {
        self.graph.nodes.push(Node { name: place.to_owned(), inputs: inputs.to_vec(), op });
        (self.graph.inputs.len() + self.graph.nodes.len()) as Value - 1
    }

    /// A function of every element.
    pub fn activation(&mut self, place: &str, function: Function, x: Value) -> Value {
        self.emit(place, Op::Activation { function }, &[x])
    }

    /// The sum of two values.
    pub fn add(&mut self, place: &str, a: Value, b: Value) -> Value {
        self.emit(place, Op::Add, &[a, b])
    }

    /// `x W^T + b` with the weights of a module: from so many channels to so many.
    pub fn linear(&mut self, module: &str, x: Value, channels: [usize; 2], bias: bool) -> Made {
        let [from, to] = channels;
        let weight = self.weight(format!("{module}.weight"), &[to, from])?;
        let bias = self.bias(module, to, bias)?;
        Ok(self.emit(module, Op::Linear { weight, bias }, &[x]))
    }

    /// A convolution with the weights of a module.
    pub fn convolution(&mut self, module: &str, x: Value, convolution: Convolution) -> Made {
        let Convolution { channels: [from, to], kernel, stride, pads, upsample, bias } = convolution;
        let weight = self.weight(format!("{module}.weight"), &[to, from, kernel, kernel])?;
        let bias = self.bias(module, to, bias)?;
        Ok(self.emit(module, Op::Conv2d { weight, bias, stride: [stride; 2], pads, upsample }, &[x]))
    }

    /// Normalises groups of channels.
    pub fn group_norm(
        &mut self,
        module: &str,
        x: Value,
        channels: usize,
        groups: Groups,
        silu: bool,
    ) -> Made {
        let weight = self.weight(format!("{module}.weight"), &[channels])?;
        let bias = self.weight(format!("{module}.bias"), &[channels])?;
        let Groups { count: groups, epsilon } = groups;
        Ok(self.emit(module, Op::GroupNorm { weight, bias, groups, epsilon, silu }, &[x]))
    }

    /// Normalises the channels of every row.
    pub fn layer_norm(&mut self, module: &str, x: Value, channels: usize, epsilon: f32) -> Made {
        let weight = self.weight(format!("{module}.weight"), &[channels])?;
        let bias = self.weight(format!("{module}.bias"), &[channels])?;
        Ok(self.emit(module, Op::LayerNorm { weight, bias, epsilon }, &[x]))
    }

    /// Attention over queries, keys and values of so many channels.
    pub fn attention(
        &mut self,
        place: &str,
        qkv: [Value; 3],
        channels: usize,
        heads: usize,
        causal: bool,
    ) -> Value {
        let scale = scale_of(channels / heads);
        self.emit(place, Op::Attention { heads, scale, causal, masked: false }, &qkv)
    }

    /// Causal attention in which a mask says which of the first keys are seen: queries, keys, values and the mask.
    pub fn masked_attention(
        &mut self,
        place: &str,
        qkv_mask: [Value; 4],
        channels: usize,
        heads: usize,
    ) -> Value {
        let scale = scale_of(channels / heads);
        self.emit(place, Op::Attention { heads, scale, causal: true, masked: true }, &qkv_mask)
    }

    /// Timesteps, or sizes, as `width` cosines and sines each.
    pub fn sinusoids(
        &mut self,
        place: &str,
        x: Value,
        width: usize,
        cosine_first: bool,
        shift: f32,
    ) -> Value {
        // As torch computes it, in f32 but for the exponential function.
        let half = width / 2;
        let fall = |i: usize| -(ln(PERIOD_MAX) as f32) * i as f32 / (half as f32 - shift);
        let values = (0..half).map(|i| exp(f64::from(fall(i))) as f32).collect();
        let frequencies = format!("{place}.frequencies");
        self.weights.push((frequencies.clone(), Weight::Computed(values)));
        self.emit(place, Op::TimestepEmbedding { frequencies, cosine_first }, &[x])
    }

    /// Rows of a module's table for token ids.
    pub fn embedding(&mut self, module: &str, ids: Value, shape: [usize; 2]) -> Made {
        let table = self.weight(format!("{module}.weight"), &shape)?;
        Ok(self.emit(module, Op::Embedding { table }, &[ids]))
    }

    /// Adds a module's row to each token.
    pub fn add_positions(&mut self, module: &str, x: Value, shape: [usize; 2]) -> Made {
        let weight = self.weight(format!("{module}.weight"), &shape)?;
        Ok(self.emit(module, Op::AddPositions { weight }, &[x]))
    }

    /// Puts the token `name` before the pixels of a map.
    pub fn prepend_token(&mut self, name: &str, x: Value, channels: usize) -> Made {
        let weight = self.weight(name.to_owned(), &[channels])?;
        Ok(self.emit(name, Op::PrependToken { weight }, &[x]))
    }

    /// One token of each sequence; `ids` for the rules that look at them.
    pub fn pick_token(&mut self, place: &str, x: Value, rule: TokenRule, ids: Option<Value>) -> Value {
        let inputs: Vec<Value> = std::iter::once(x).chain(ids).collect();
        self.emit(place, Op::PickToken { rule }, &inputs)
    }

    fn bias(
        &mut self,
        module: &str,
        channels: usize,
        there: bool,
    ) -> Result<Option<String>, ArchitectureError> {
        there.then(|| self.weight(format!("{module}.bias"), &[channels])).transpose()
    }

    /// The weight of that name.
    pub fn weight(&mut self, name: String, shape: &[usize]) -> Result<String, ArchitectureError> {
        let stored = self.checkpoint.weight(&name, shape)?;
        self.weights.push((name.clone(), Weight::Stored(stored)));
        Ok(name)
    }
}

/// The factor of the scores. Queries and keys each get its root in torch, which rounds it.
fn scale_of(width: usize) -> f32 {
    let root = (width as f32).sqrt().recip().sqrt();
    root * root
}
