//! The operations of a graph. One file, one operation: what it needs, which shape it makes, how it runs.

mod adapted;
mod attention;
mod conv2d;
mod downsample;
mod elementwise;
mod embedding;
mod geglu;
mod group_norm;
mod heads;
mod inputs;
mod layer_norm;
mod layout;
mod linear;
mod merging;
mod product;
mod timestep;
mod tokens;
mod upsample;
mod winograd;

use std::fmt::Debug;
use std::sync::Arc;

pub use conv2d::Conv2d;
pub use group_norm::{Affine, GroupNorm, channel_sums};
pub use linear::Linear;

use super::graph::Op;
use super::threads::Threads;
use super::weights::Weights;

/// Something that makes one tensor of f32 from others. Shapes are whole numbers by the time it is asked.
pub trait Operation: Debug + Send + Sync {
    /// Its name in dumps and profiles.
    fn name(&self) -> &'static str;

    /// The shape of the output.
    ///
    /// # Errors
    /// A sentence, if it cannot work on inputs of these shapes.
    fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, String>;

    /// The most memory that a run takes beside inputs and output, in bytes.
    fn scratch_bytes(&self, _: &[&[usize]], _threads: usize) -> usize {
        0
    }

    /// Computes the output, which is as large as [`Operation::output_shape`] says and filled with zeros. A linear layer or
    /// convolution adds to what is there, which may be another value.
    fn run(&self, shapes: &[&[usize]], inputs: &[&[f32]], output: &mut [f32], threads: &Threads);
}

/// The operation that `op` describes, over `weights`.
///
/// # Errors
/// A sentence, if a weight is missing or of a shape that does not fit.
pub fn build(op: &Op, weights: &Weights) -> Result<Arc<dyn Operation>, String> {
    let layer = build_plain(op, weights)?;
    let (Op::Conv2d { weight, .. } | Op::Linear { weight, .. }) = op else { return Ok(layer) };
    let added = weights.added_to(weight);
    Ok(if added.is_empty() { layer } else { Arc::new(adapted::Adapted::new(op, layer, added)?) })
}

/// As [`build`], with nothing added.
fn build_plain(op: &Op, weights: &Weights) -> Result<Arc<dyn Operation>, String> {
    Ok(match op {
        Op::ChannelsLast => Arc::new(layout::ChannelsLast),
        Op::ChannelsFirst => Arc::new(layout::ChannelsFirst),
        Op::Conv2d { weight, bias, stride, pads, upsample } => {
            Arc::new(conv2d::Conv2d::new(weights, weight, bias.as_deref(), *stride, *pads, *upsample)?)
        }
        Op::Linear { weight, bias } => Arc::new(linear::Linear::new(weights, weight, bias.as_deref(), None)?),
        Op::LinearThen { weight, bias, then } => {
            Arc::new(linear::Linear::new(weights, weight, bias.as_deref(), Some(*then))?)
        }
        Op::GroupNorm { weight, bias, groups, epsilon, silu } => {
            Arc::new(group_norm::GroupNorm::new(weights, weight, bias, *groups, *epsilon, *silu)?)
        }
        Op::LayerNorm { weight, bias, epsilon } => {
            Arc::new(layer_norm::LayerNorm::new(weights, weight, bias, *epsilon)?)
        }
        Op::Attention { heads, scale, causal, masked } => {
            Arc::new(attention::Attention::new(*heads, *scale, *causal, *masked, weights.arithmetic())?)
        }
        Op::Geglu => Arc::new(geglu::Geglu),
        Op::Activation { function } => Arc::new(elementwise::Activation(*function)),
        Op::Add => Arc::new(elementwise::Add),
        Op::Multiply => Arc::new(elementwise::Multiply),
        Op::Scale { factor } => Arc::new(elementwise::Scale(*factor)),
        Op::Shift { summand } => Arc::new(elementwise::Shift(*summand)),
        Op::Concat => Arc::new(layout::Concat),
        Op::Slice { start, len } => Arc::new(layout::Slice { start: *start, len: *len }),
        Op::Upsample => Arc::new(upsample::Upsample),
        Op::Downsample => Arc::new(downsample::Downsample),
        Op::TimestepEmbedding { frequencies, cosine_first } => Arc::new(timestep::TimestepEmbedding {
            frequencies: weights.vector(frequencies)?,
            cosine_first: *cosine_first,
        }),
        Op::Embedding { table } => Arc::new(embedding::Embedding(weights.table(table)?)),
        Op::AddPositions { weight } => Arc::new(tokens::AddPositions(weights.vector(weight)?)),
        Op::PrependToken { weight } => Arc::new(tokens::PrependToken(weights.vector(weight)?)),
        Op::ConcatTokens { last } => {
            Arc::new(tokens::ConcatTokens(last.as_deref().map(|name| weights.vector(name)).transpose()?))
        }
        Op::SplitTokens { count } => Arc::new(tokens::SplitTokens(*count)),
        Op::PickToken { rule } => Arc::new(tokens::PickToken(*rule)),
        Op::MatchTokens { share } => Arc::new(merging::Match::new(*share)),
        Op::MergeTokens { share } => Arc::new(merging::Merge(*share)),
        Op::SpreadTokens => Arc::new(merging::Spread),
    })
}

/// The last dimension and the product of the others: rows of channels.
fn rows_of(shape: &[usize]) -> Result<(usize, usize), String> {
    match shape.split_last() {
        Some((&channels, rows)) if channels > 0 => Ok((rows.iter().product(), channels)),
        _ => Err(format!("{shape:?} has no channels")),
    }
}

/// The only input's shape.
fn only<'a>(inputs: &[&'a [usize]]) -> Result<&'a [usize], String> {
    match inputs {
        [one] => Ok(one),
        _ => Err(format!("it takes one input, not {}", inputs.len())),
    }
}

/// The four sizes of a channels-last map.
fn map_of(shape: &[usize]) -> Result<[usize; 4], String> {
    shape.try_into().map_err(|_| format!("{shape:?} is not a map"))
}

/// That a per-channel weight has `channels` numbers.
fn expect_channels(name: &str, got: usize, channels: usize) -> Result<(), String> {
    if got == channels { Ok(()) } else { Err(format!("`{name}` has {got} numbers for {channels} channels")) }
}
